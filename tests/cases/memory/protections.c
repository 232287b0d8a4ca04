/* Memory of every protection, more than fits: filled, protected, pressed out of RAM, and right when it is looked at again.
 * argv[1]: the protection (r, x, rx, rwx, n), argv[2]: "all" for one mapping, or every how many MiB one is protected. */
#include "../case.h"

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    size_t mib = 120, every = argc > 2 && !is(argv[2], "all") ? (size_t)atoi(argv[2]) : 1;
    int protection =
        (strchr(how, 'r') ? PROT_READ : 0) | (strchr(how, 'w') ? PROT_WRITE : 0) | (strchr(how, 'x') ? PROT_EXEC : 0);
    bool readable = protection & PROT_READ;
    uint8_t *memory = anonymous(mib * MIB);
    if (argc > 2 && is(argv[2], "all")) {
        fill(memory, mib * PAGES_OF_MIB, 6);
        if (mprotect(memory, mib * MIB, protection) != 0)
            unable("mprotect");
    } else {
        /* A guard that protects what it has written: one call for each part that is ready. */
        for (size_t part = 0; part < mib; part++) {
            for (size_t i = 0; i < PAGES_OF_MIB; i++)
                pattern(memory + part * MIB + i * PAGE, part * PAGES_OF_MIB + i, 6);
            if (part % every == 0 && mprotect(memory + part * MIB, MIB, protection) != 0)
                unable("mprotect");
        }
    }
    for (int pass = 0; readable && pass < 2; pass++)
        expect("wrong pages", (long)wrong(memory, mib * PAGES_OF_MIB, 6), 0);
    /* A child sees the same. */
    pid_t child = fork();
    if (child == 0) {
        if (!readable && mprotect(memory, 20 * MIB, PROT_READ) != 0)
            _exit(9);
        _exit(wrong(memory, 20 * PAGES_OF_MIB, 6) != 0);
    }
    expect_child("child", child, 0);
    if (mprotect(memory, mib * MIB, PROT_READ | PROT_WRITE) != 0)
        unable("mprotect");
    expect("wrong pages after it was opened again", (long)wrong(memory, mib * PAGES_OF_MIB, 6), 0);
    fill(memory, mib * PAGES_OF_MIB, 9);
    expect("wrong pages after it was written again", (long)wrong(memory, mib * PAGES_OF_MIB, 9), 0);
    return verdict();
}

/* Locked memory, more than the budget: the calls work and the bytes are right, as alone; what the budget lets be in RAM is
 * watched from outside. argv[1]: how; argv[2]: MiB. */
#include "../case.h"

static void check(const char *what, uint8_t *memory, size_t pages) {
    expect(what, (long)wrong(memory, pages, 3), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(wrong(memory, pages, 3) != 0);
    expect_child("child", child, 0);
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    size_t mib = (size_t)atoi(argv[2]), pages = mib * PAGES_OF_MIB, bytes = mib * MIB;
    int access = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (is(how, "future"))
        expect_call("mlockall FUTURE", mlockall(MCL_FUTURE), "done");
    if (is(how, "current"))
        expect_call("mlockall CURRENT, FUTURE", mlockall(MCL_CURRENT | MCL_FUTURE), "done");
    if (is(how, "on-fault"))
        expect_call("mlockall CURRENT, FUTURE, ONFAULT", mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT), "done");
    if (is(how, "unlocked")) {
        expect_call("mlockall CURRENT, FUTURE", mlockall(MCL_CURRENT | MCL_FUTURE), "done");
        expect_call("munlockall", munlockall(), "done");
    }
    if (is(how, "many")) {
        expect_call("mlockall CURRENT, FUTURE", mlockall(MCL_CURRENT | MCL_FUTURE), "done");
        int mapped = 0;
        for (size_t i = 0; i < mib; i++) {
            uint8_t *memory = mmap(NULL, MIB, access, flags, -1, 0);
            if (memory == MAP_FAILED)
                break;
            memory[0] = 1;
            mapped++;
        }
        expect("mappings", mapped, (long)mib);
        return verdict();
    }
    if (is(how, "heap")) {
        expect_call("mlockall FUTURE", mlockall(MCL_FUTURE), "done");
        uint8_t *start = sbrk(0), *aligned = (uint8_t *)(((uintptr_t)start + PAGE - 1) & ~(PAGE - 1));
        expect_call("brk", brk(aligned + bytes), "done");
        fill(aligned, pages, 3);
        expect("wrong pages", (long)wrong(aligned, pages, 3), 0);
        return verdict();
    }
    if (is(how, "found")) {
        /* Everything that can be written and is there, whoever put it there. */
        char line[512], kind[8];
        unsigned long from, to;
        int refused = 0;
        FILE *file = fopen("/proc/self/maps", "r");
        while (file != NULL && fgets(line, sizeof line, file) != NULL)
            refused +=
                sscanf(line, "%lx-%lx %7s", &from, &to, kind) == 3 && kind[1] == 'w' && mlock((void *)from, to - from) != 0;
        fclose(file);
        expect("ranges that could not be locked", refused, 0);
    }
    if (is(how, "flag"))
        flags |= MAP_LOCKED;
    if (is(how, "populate"))
        flags |= MAP_POPULATE;
    uint8_t *memory = mmap(NULL, bytes, access, flags, -1, 0);
    expect_call("mmap", (long)memory, "done");
    if (is(how, "populate-advice"))
        expect_call("POPULATE_WRITE", madvise(memory, bytes, MADV_POPULATE_WRITE), "done");
    if (is(how, "populate-read"))
        expect_call("POPULATE_READ", madvise(memory, bytes, MADV_POPULATE_READ), "done");
    if (is(how, "huge"))
        madvise(memory, bytes, MADV_HUGEPAGE);
    usleep(300000);
    if (is(how, "before")) {
        /* Locked before it was touched: all of it is populated. */
        expect_call("mlock", mlock(memory, bytes), "done");
    }
    if (is(how, "before-on-fault"))
        expect_call("mlock2", mlock2(memory, bytes, MLOCK_ONFAULT), "done");
    fill(memory, pages, 3);
    if (is(how, "half"))
        expect_call("mlock", mlock(memory, bytes / 2), "done");
    if (is(how, "collapse")) {
        for (size_t i = 0; i + 2 * MIB <= bytes; i += 2 * MIB)
            madvise(memory + i, 2 * MIB, 25);
    }
    if (is(how, "grown")) {
        /* A locked mapping that grows is populated as it grows. */
        expect_call("mlock", mlock(memory, MIB), "done");
        uint8_t *other = mmap(NULL, MIB, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
        other = mremap(other, MIB, bytes, MREMAP_MAYMOVE);
        expect_call("mremap of locked memory", (long)other, "done");
        usleep(300000);
        fill(other, pages, 3);
        expect("wrong pages of it", (long)wrong(other, pages, 3), 0);
    }
    check("wrong pages", memory, pages);
    if (is(how, "half")) {
        expect_call("munlock", munlock(memory, bytes), "done");
        check("wrong pages", memory, pages);
    }
    return verdict();
}

/* Limits on address space, data and stack bind the program as they do alone. The modes: "outside", where somebody else has set
 * RLIMIT_AS; "as" and "data", which set a limit and map until it is reached; "stack", a deep recursion. */
#include "../case.h"

#define STEP (8 * MIB)

static size_t mapped_kib(const char *key) {
    char line[256];
    size_t value = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(line + strlen(key) + 1, NULL, 10);
    }
    if (file != NULL)
        fclose(file);
    return value;
}

static __attribute__((noinline)) size_t deep(size_t left) {
    volatile uint8_t frame[PAGE];
    frame[0] = (uint8_t)left;
    frame[PAGE - 1] = (uint8_t)(left >> 8);
    size_t below = left > 0 ? deep(left - 1) : 0;
    return below + (frame[0] == (uint8_t)left && frame[PAGE - 1] == (uint8_t)(left >> 8));
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "outside")) {
        uint8_t *memory = anonymous(120 * MIB);
        fill(memory, 120 * PAGES_OF_MIB, 3);
        expect("wrong pages", (long)wrong(memory, 120 * PAGES_OF_MIB, 3), 0);
        pid_t child = fork();
        if (child == 0)
            _exit(wrong(memory, 10 * PAGES_OF_MIB, 3) != 0);
        expect_child("child", child, 0);
        return verdict();
    }
    if (is(how, "stack")) {
        /* The limit lets 100 MiB of stack be, more than the budget. */
        expect("right frames", (long)deep(100 * PAGES_OF_MIB), 100 * PAGES_OF_MIB + 1);
        pid_t child = fork();
        if (child == 0) {
            deep(300 * PAGES_OF_MIB);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        expect("a deeper recursion is killed by", WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGSEGV);
        return verdict();
    }
    bool data = is(how, "data");
    size_t limit = mapped_kib(data ? "VmData" : "VmSize") * 1024 + 12 * STEP + STEP / 2;
    struct rlimit some = {limit, limit};
    if (setrlimit(data ? RLIMIT_DATA : RLIMIT_AS, &some) != 0)
        unable("setrlimit");
    uint8_t *parts[100];
    int count = 0;
    for (; count < 100; count++) {
        parts[count] = mmap(NULL, STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (parts[count] == MAP_FAILED)
            break;
        fill(parts[count], STEP / PAGE, (uint64_t)count);
    }
    expect_call("beyond the limit", -1, "ENOMEM");
    expect("parts that could be mapped", count, 12);
    size_t failed = 0;
    for (int i = 0; i < count; i++)
        failed += wrong(parts[i], STEP / PAGE, (uint64_t)i);
    expect("wrong pages", (long)failed, 0);
    munmap(parts[3], STEP);
    pid_t child = fork();
    if (child == 0)
        _exit(wrong(parts[0], STEP / PAGE, 0) != 0);
    expect_child("child", child, 0);
    expect_call("in place of one that is gone",
                (long)mmap(NULL, STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "done");
    return verdict();
}

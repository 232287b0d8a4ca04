/* What RLIMIT_MEMLOCK and the pages' protection say of memory that is to be locked, as an ordinary user. */
#include "../case.h"

static void map(const char *what, size_t bytes, int flags) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    say("%s: %s", what, memory == MAP_FAILED ? strerrorname_np(errno) : "done");
    if (memory != MAP_FAILED) {
        fill(memory, bytes / PAGE, 3);
        case_failures += wrong(memory, bytes / PAGE, 3) != 0;
    }
}

static void limit(size_t bytes) {
    struct rlimit limit = {bytes, bytes};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        unable("setrlimit");
}

int main(void) {
    limit(256 << 10);
    if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0)
        unable("another user");
    map("beyond the limit", MIB, MAP_LOCKED);
    map("within the limit", 32 << 10, MAP_LOCKED);
    map("within the limit, and populated", 32 << 10, MAP_LOCKED | MAP_POPULATE);
    uint8_t *memory = anonymous(MIB);
    mprotect(memory + 4 * PAGE, PAGE, PROT_NONE);
    mprotect(memory + 8 * PAGE, PAGE, PROT_READ);
    mprotect(memory + 9 * PAGE, PAGE, PROT_WRITE);
    expect_call("mlock beyond the limit", mlock(memory, MIB), "ENOMEM");
    expect_call("mlock", mlock(memory, 4 * PAGE), "done");
    expect_call("mlock of less than a page", mlock(memory + 3 * PAGE + 7, 9), "done");
    expect_call("mlock of what may not be touched", mlock(memory + 3 * PAGE, 2 * PAGE), "ENOMEM");
    expect_call("mlock2 of what may not be touched", mlock2(memory + 4 * PAGE, PAGE, 0), "ENOMEM");
    expect_call("the same at its first touch", mlock2(memory + 4 * PAGE, PAGE, 1), "done");
    expect_call("mlock behind it", mlock(memory + 5 * PAGE, 5 * PAGE), "done");
    expect_call("mlock of a hole", (munmap(memory + 12 * PAGE, PAGE), mlock(memory + 11 * PAGE, 2 * PAGE)), "ENOMEM");
    expect_call("mlockall", mlockall(64), "EINVAL");
    limit(0);
    map("without a limit", PAGE, MAP_LOCKED);
    expect_call("mlock without a limit", mlock(memory, PAGE), "EPERM");
    return verdict();
}

/* Guard pages of MADV_GUARD_INSTALL (Linux 6.13) fault until they are removed, whatever is read beside them, and read as zeros
 * then. The modes: "near" sweeps fresh pages before them, "evicted" sets them into a range that is out of RAM, "fork" looks in a
 * child, "advice" drops and protects the range around them, "half" sets them by a call that fails behind them. */
#include "../case.h"

#define INSTALL 102
#define REMOVE 103

static sigjmp_buf back;
static void on_fault(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

static size_t readable(uint8_t *memory, size_t pages) {
    volatile size_t count = 0;
    for (volatile size_t i = 0; i < pages; i++) {
        if (sigsetjmp(back, 1) == 0) {
            *(volatile uint8_t *)(memory + i * PAGE);
            count++;
        }
    }
    return count;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    uint8_t *memory = anonymous(128 * PAGE), *guards = memory + 60 * PAGE;
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    if (is(how, "near")) {
        if (madvise(guards, 4 * PAGE, INSTALL) != 0)
            unable("MADV_GUARD_INSTALL");
        for (size_t i = 0; i < 60; i++)
            memory[i * PAGE] = 1;
        expect("guard pages that can be read", (long)readable(guards, 4), 0);
        return verdict();
    }
    if (is(how, "half")) {
        fill(memory, 128, 3);
        munmap(memory + 64 * PAGE, PAGE);
        expect_call("guards before a hole", madvise(guards, 8 * PAGE, INSTALL), "ENOMEM");
        expect("guard pages that can be read", (long)readable(guards, 4), 0);
        expect_call("GUARD_REMOVE", madvise(guards, 4 * PAGE, REMOVE), "done");
        expect("zero pages where they were", (long)zeros(guards, 4), 4);
        expect("wrong pages before them", (long)wrong(memory, 60, 3), 0);
        return verdict();
    }
    fill(memory, 128, 3);
    evict(memory, 128);
    if (madvise(guards, 4 * PAGE, INSTALL) != 0)
        unable("MADV_GUARD_INSTALL");
    expect("wrong pages before them", (long)wrong(memory, 60, 3), 0);
    expect("guard pages that can be read", (long)readable(guards, 4), 0);
    if (is(how, "advice")) {
        evict(memory, 60);
        expect_call("DONTNEED around them", madvise(memory + 50 * PAGE, 20 * PAGE, MADV_DONTNEED), "done");
        expect("guard pages that can be read", (long)readable(guards, 4), 0);
        expect_call("PROT_READ and back",
                    mprotect(memory, 128 * PAGE, PROT_READ) | mprotect(memory, 128 * PAGE, PROT_READ | PROT_WRITE), "done");
        expect("guard pages that can be read", (long)readable(guards, 4), 0);
    }
    if (is(how, "fork")) {
        evict(memory, 60);
        pid_t child = fork();
        if (child == 0)
            _exit((int)readable(guards, 4) + (wrong(memory, 60, 3) != 0 ? 10 : 0));
        expect_child("child", child, 0);
    }
    evict(memory, 60);
    expect("guard pages that can be read", (long)readable(guards, 4), 0);
    expect_call("GUARD_REMOVE", madvise(guards, 4 * PAGE, REMOVE), "done");
    expect("zero pages where they were", (long)zeros(guards, 4), 4);
    fill(guards, 4, 5);
    evict(guards, 4);
    expect("wrong pages where they were", (long)wrong(guards, 4, 5), 0);
    return verdict();
}

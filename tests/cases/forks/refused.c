/* A fork or clone that the kernel refuses, and calls of the same thread right after it: they take no longer than ever, and the
 * memory is as it was. Each kind of refusal many times. */
#include "../case.h"

#include <linux/sched.h>

#define PAGES 64

static uint8_t *memory;

static void maps(void) {
    for (int i = 0; i < 3; i++) {
        uint8_t *other = anonymous(16 * PAGE);
        other[0] = 1;
        mprotect(other, PAGE, PROT_READ);
        madvise(other, PAGE, MADV_DONTNEED);
        munmap(other, 16 * PAGE);
    }
}

static void many(const char *what, int rounds, long flags, const char *want) {
    double start = now();
    int others = 0;
    for (int i = 0; i < rounds; i++) {
        long born = syscall(SYS_clone, flags, 0L, 0L, 0L, 0L);
        if (born == 0)
            _exit(1);
        others += born != -1 || strcmp(strerrorname_np(errno), want) != 0;
        maps();
    }
    say("%s: %s", what, want);
    expect("  other answers", others, 0);
    took(what, start);
}

int main(void) {
    alarm(50);
    memory = anonymous(PAGES * PAGE);
    fill(memory, PAGES, 3);
    evict(memory, PAGES);
    many("CLONE_SIGHAND without CLONE_VM", 200, CLONE_SIGHAND | SIGCHLD, "EINVAL");
    many("CLONE_THREAD without CLONE_SIGHAND", 100, CLONE_THREAD | CLONE_VM, "EINVAL");
    many("CLONE_FS with CLONE_NEWNS", 100, CLONE_FS | CLONE_NEWNS | SIGCHLD, "EINVAL");
    many("CLONE_NEWPID with CLONE_THREAD", 100, CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, "EINVAL");
    many("CLONE_PIDFD with CLONE_PARENT_SETTID", 100, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, "EINVAL");
    /* Refused late: the word for the pidfd cannot be written. */
    many("CLONE_PIDFD without a word", 50, CLONE_PIDFD | SIGCHLD, "EFAULT");
    struct clone_args arguments = {.flags = CLONE_SIGHAND, .exit_signal = SIGCHLD};
    long born = syscall(SYS_clone3, &arguments, sizeof arguments);
    expect_call("clone3 with such flags", born, "EINVAL");
    maps();
    born = syscall(SYS_clone3, &arguments, 8UL);
    expect_call("clone3 with a small size", born, "EINVAL");
    maps();
    born = syscall(SYS_clone3, 8L, sizeof arguments);
    expect_call("clone3 with a bad address", born, "EFAULT");
    maps();
    /* A signal that waits makes the kernel begin the fork anew; it works in the end. */
    pid_t child = fork();
    if (child == 0)
        _exit(wrong(memory, PAGES, 3) != 0);
    expect_child("a fork that works", child, 0);
    expect("wrong pages", (long)wrong(memory, PAGES, 3), 0);
    return verdict();
}

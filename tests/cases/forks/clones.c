/* Every way to make a process, each with memory that is out of RAM: the child has the bytes of the moment, the parent keeps its
 * own. The modes name the call. */
#include "../case.h"

#include <linux/sched.h>
#include <spawn.h>

#define PAGES 2000UL

extern char **environ;
static uint8_t *memory;

static long clone3_with(uint64_t flags, uint64_t pidfd, uint64_t cgroup, uint64_t tid) {
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD, .pidfd = pidfd, .cgroup = cgroup, .parent_tid = tid};
    return syscall(SYS_clone3, &arguments, sizeof arguments);
}

static _Noreturn void child_of_copy(void) {
    size_t failed = wrong(memory, PAGES, 3);
    fill(memory, PAGES, 5);
    evict(memory, PAGES);
    failed += wrong(memory, PAGES, 5);
    _exit(failed == 0 ? 7 : 8);
}

static void judge(const char *what, long born) {
    if (born < 0) {
        say("%s: %s", what, result_name(-1));
        case_failures++;
        return;
    }
    expect_child(what, (pid_t)born, 7);
    expect("  wrong pages of the parent", (long)wrong(memory, PAGES, 3), 0);
}

static int in_vm(void *unused) {
    (void)unused;
    pattern(memory, 0, 77);
    return 7;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "image"))
        return 7;
    memory = anonymous(PAGES * PAGE);
    fill(memory, PAGES, 3);
    evict(memory, PAGES);
    long born = -1;
    if (is(how, "fork")) {
        born = syscall(SYS_fork);
    } else if (is(how, "clone")) {
        born = syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
    } else if (is(how, "clone3")) {
        born = clone3_with(0, 0, 0, 0);
    } else if (is(how, "clone3-pidfd")) {
        int descriptor = -1;
        pid_t tid = 0;
        born = clone3_with(CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CLEAR_SIGHAND, (uintptr_t)&descriptor, 0, (uintptr_t)&tid);
        if (born > 0) {
            expect("  pidfd is open", fcntl(descriptor, F_GETFD) >= 0, 1);
            expect("  number was written", tid == born, 1);
        }
    } else if (is(how, "clone3-cgroup")) {
        /* argv[2]: a directory of the second version of control groups. */
        int group = open(argv[2], O_RDONLY | O_DIRECTORY);
        if (group < 0)
            unable(argv[2]);
        born = clone3_with(CLONE_INTO_CGROUP, 0, (uint64_t)group, 0);
        if (born == 0) {
            static char text[4096];
            int file = open("/proc/self/cgroup", O_RDONLY);
            ssize_t got = read(file, text, sizeof text - 1);
            if (got < 0 || strstr(text, strrchr(argv[2], '/')) == NULL)
                _exit(6);
        }
    } else if (is(how, "parent")) {
        /* CLONE_PARENT: the grandchild becomes a sibling, which this process waits for. */
        int pipes[2];
        if (pipe(pipes) != 0)
            unable("pipe");
        pid_t between = fork();
        if (between == 0) {
            long sibling = syscall(SYS_clone, (long)(CLONE_PARENT | SIGCHLD), 0L, 0L, 0L, 0L);
            if (sibling == 0)
                child_of_copy();
            if (write(pipes[1], &sibling, sizeof sibling) < 0)
                _exit(9);
            _exit(7);
        }
        if (read(pipes[0], &born, sizeof born) != (ssize_t)sizeof born)
            unable("read");
        judge("process between", between);
    } else if (is(how, "vm")) {
        static uint8_t stack[65536] __attribute__((aligned(16)));
        born = clone(in_vm, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
        expect_child("child in the same memory", (pid_t)born, 7);
        expect("it wrote", holds(memory, 0, 77), 1);
        pattern(memory, 0, 3);
        expect("wrong pages", (long)wrong(memory, PAGES, 3), 0);
        return verdict();
    } else if (is(how, "vfork")) {
        born = vfork();
        if (born == 0) {
            execl("/proc/self/exe", argv[0], "image", (char *)NULL);
            _exit(9);
        }
    } else if (is(how, "spawn")) {
        pid_t child = -1;
        char *arguments[] = {argv[0], "image", NULL};
        int error = posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ);
        expect("posix_spawn", error, 0);
        born = child;
    } else if (is(how, "no-signal")) {
        /* A child that says nothing when it ends, and is only found by __WALL. */
        born = syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);
        if (born == 0)
            child_of_copy();
        int status = 0;
        expect_call("waitpid does not see it", waitpid(-1, &status, 0), "ECHILD");
        expect("waitpid with __WALL does", waitpid((pid_t)born, &status, __WALL) == born, 1);
        expect_status("its status", status, 7);
        expect("wrong pages", (long)wrong(memory, PAGES, 3), 0);
        return verdict();
    } else {
        return 2;
    }
    if (born == 0)
        child_of_copy();
    judge(how, born);
    return verdict();
}

/* SIGTRAP belongs to the program: handler, ignoring and mask are inherited by fork and exec as those of any other signal. */
#include "../case.h"

static volatile int handled;
static void on_trap(int signal) {
    (void)signal;
    handled++;
}

static const char *disposition(void) {
    struct sigaction action;
    sigaction(SIGTRAP, NULL, &action);
    return action.sa_handler == SIG_DFL ? "default" : action.sa_handler == SIG_IGN ? "ignored" : "handler";
}

static bool blocked(void) {
    sigset_t set;
    sigprocmask(0, NULL, &set);
    return sigismember(&set, SIGTRAP) == 1;
}

static void judge(const char *what, const char *want) {
    say("%s: %s, blocked %d", what, disposition(), blocked());
    case_failures += !is(disposition(), want);
}

static void execute(char **argv) {
    execl("/proc/self/exe", argv[0], "executed", (char *)NULL);
    _exit(9);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        say("after exec: %s, blocked %d", disposition(), blocked());
        return is(disposition(), "handler") ? 9 : is(disposition(), "ignored") ? 4 : 3;
    }
    signal(SIGTRAP, on_trap);
    pid_t child = fork();
    if (child == 0) {
        judge("child with a handler", "handler");
        raise(SIGTRAP);
        raise(SIGTRAP);
        expect("handled", handled, 2);
        _exit(verdict());
    }
    expect_child("its status", child, 0);
    child = fork();
    if (child == 0)
        execute(argv);
    expect_child("an image after a handler", child, 3);

    signal(SIGTRAP, SIG_IGN);
    child = fork();
    if (child == 0) {
        judge("child that ignores it", "ignored");
        raise(SIGTRAP);
        execute(argv);
    }
    expect_child("an image after ignoring", child, 4);

    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    signal(SIGTRAP, on_trap);
    child = fork();
    if (child == 0) {
        judge("child with everything blocked", "handler");
        raise(SIGTRAP);
        sigset_t pending;
        sigpending(&pending);
        expect("pending", sigismember(&pending, SIGTRAP), 1);
        execute(argv);
    }
    expect_child("an image with everything blocked", child, 3);
    judge("parent after all", "handler");
    sigemptyset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);

    /* By default it kills; a breakpoint of one's own is handled. */
    signal(SIGTRAP, SIG_DFL);
    child = fork();
    if (child == 0) {
        raise(SIGTRAP);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    expect("signal that killed a child", WIFSIGNALED(status) ? WTERMSIG(status) : -1, SIGTRAP);
    signal(SIGTRAP, on_trap);
    handled = 0;
    __asm__ volatile("int3");
    expect("breakpoints handled", handled, 1);
    return verdict();
}

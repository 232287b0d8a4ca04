/* A signal with a handler interrupts a wait, though one that is ignored comes right before it. argv[1]: how often. */
#include "../case.h"

#include <sys/epoll.h>

static volatile sig_atomic_t handled;
static void on_alarm(int number) { handled += number == SIGALRM; }

int main(int argc, char **argv) {
    int rounds = atoi(mode(argc, argv)), interrupted = 0, ask[2];
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm}, NULL);
    signal(SIGHUP, SIG_IGN);
    /* It comes in the wait only. */
    sigset_t alarms, before;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarms, &before);
    int set = epoll_create1(0);
    if (set < 0 || pipe(ask) != 0)
        unable("epoll_create1");
    pid_t self = getpid(), child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (char byte; read(ask[0], &byte, 1) == 1;) {
            usleep(20000);
            kill(self, SIGHUP);
            kill(self, SIGALRM);
        }
        _exit(0);
    }
    for (int i = 0; i < rounds; i++) {
        struct epoll_event event;
        if (write(ask[1], "", 1) != 1)
            unable("write");
        interrupted += epoll_pwait(set, &event, 1, 1000, &before) == -1 && errno == EINTR;
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    expect("waits that were interrupted", interrupted, rounds);
    expect("signals that were handled", handled, rounds);
    return verdict();
}

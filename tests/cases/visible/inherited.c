/* Prints what a program inherits from whoever starts it: signals ignored and blocked, open descriptors, limits, masks, priorities
 * and so on. Under zcache it is what the caller of zcache had. argv[1]: a file to print to, for callers that have closed stdout.
 */
#include "../case.h"

#include <dirent.h>
#include <sys/personality.h>
#include <sys/time.h>

int main(int argc, char **argv) {
    FILE *out = stdout;
    bool open_at_start[32];
    for (int i = 0; i < 32; i++)
        open_at_start[i] = fcntl(i, F_GETFD) >= 0;
    if (argc > 1) {
        int file = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        out = fdopen(fcntl(file, F_DUPFD_CLOEXEC, 100), "w");
    }
    fprintf(out, "open descriptors:");
    for (int i = 0; i < 32; i++) {
        if (open_at_start[i])
            fprintf(out, " %d", i);
    }
    fprintf(out, "\nignored signals:");
    for (int i = 1; i < 65; i++) {
        struct sigaction action;
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            fprintf(out, " %d", i);
    }
    sigset_t blocked, pending;
    sigprocmask(0, NULL, &blocked);
    sigpending(&pending);
    fprintf(out, "\nblocked and pending signals:");
    for (int i = 1; i < 65; i++) {
        if (sigismember(&blocked, i) == 1 || sigismember(&pending, i) == 1)
            fprintf(out, " %d", i);
    }
    static const int limits[] = {RLIMIT_CPU,   RLIMIT_FSIZE,      RLIMIT_DATA,     RLIMIT_STACK,   RLIMIT_CORE,
                                 RLIMIT_RSS,   RLIMIT_NPROC,      RLIMIT_NOFILE,   RLIMIT_MEMLOCK, RLIMIT_AS,
                                 RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE,    RLIMIT_RTPRIO};
    fprintf(out, "\nlimits:");
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        getrlimit((__rlimit_resource_t)limits[i], &limit);
        fprintf(out, " %lld/%lld", (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
    mode_t mask = umask(0);
    cpu_set_t processors;
    sched_getaffinity(0, sizeof processors, &processors);
    int death = 0, subreaper = 0;
    prctl(PR_GET_PDEATHSIG, &death);
    prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
    struct itimerval timer;
    getitimer(ITIMER_REAL, &timer);
    fprintf(out, "\numask %o, nice %d, policy %d, processors %d, personality %d", (unsigned)mask, getpriority(PRIO_PROCESS, 0),
            sched_getscheduler(0), CPU_COUNT(&processors), personality(0xffffffff));
    fprintf(out,
            "\nsignal at the parent's death %d, subreaper %d, dumpable %d, no new rights %d, keeps capabilities %d, timer %d, "
            "slack %d",
            death, subreaper, prctl(PR_GET_DUMPABLE), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_KEEPCAPS),
            timer.it_value.tv_sec > 0, prctl(PR_GET_TIMERSLACK));
    fprintf(out, "\nusers %d %d, groups %d %d, leads its group %d, leads its session %d\n", (int)getuid(), (int)geteuid(),
            (int)getgid(), (int)getegid(), getpgrp() == getpid(), getsid(0) == getpid());
    char line[256];
    static const char *const keys[] = {"Cap", "Threads", "Groups", "CoreDumping", "THP_enabled", "SigCgt"};
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            if (strncmp(line, keys[i], strlen(keys[i])) == 0)
                fputs(line, out);
        }
    }
    if (file != NULL)
        fclose(file);
    file = fopen("/proc/self/oom_score_adj", "r");
    if (file != NULL && fgets(line, sizeof line, file) != NULL)
        fprintf(out, "oom_score_adj %s", line);
    if (file != NULL)
        fclose(file);
    fclose(out);
    return 0;
}

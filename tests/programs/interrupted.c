/* Calls that change the memory map, and forks, under a rain of signals whose handler does not ask for restarts: on Linux none of
 * them is ever interrupted. Exit status: 0 all went well, 1 a call failed (said on stderr). Argument: seconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 1 << 20 };

static volatile sig_atomic_t signals;

static void count(int signal) {
    (void)signal;
    signals++;
}

static void must(int good, const char *what) {
    if (good)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

int main(int argc, char **argv) {
    time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 2);
    struct sigaction action = {.sa_handler = count};
    must(sigaction(SIGALRM, &action, NULL) == 0 && sigaction(SIGCHLD, &action, NULL) == 0, "sigaction");
    struct itimerval often = {{0, 150}, {0, 150}};
    must(setitimer(ITIMER_REAL, &often, NULL) == 0, "setitimer");
    int children = 0;
    while (time(NULL) < end) {
        char *area = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(area != MAP_FAILED, "mmap");
        memset(area, 1, BYTES);
        must(madvise(area, BYTES / 2, MADV_DONTNEED) == 0, "madvise");
        must(area[0] == 0 && area[BYTES / 2] == 1, "contents after madvise");
        area = mremap(area, BYTES, 2 * BYTES, MREMAP_MAYMOVE);
        must(area != MAP_FAILED, "mremap");
        must(area[BYTES / 2] == 1 && area[BYTES] == 0, "contents after mremap");
        must(munmap(area, 2 * BYTES) == 0, "munmap");
        must(sbrk(BYTES) != (void *)-1 && sbrk(-BYTES) != (void *)-1, "sbrk");
        pid_t child = fork();
        must(child >= 0, "fork");
        if (child == 0)
            _exit(0);
        for (children++; children > 3;) {
            if (waitpid(-1, NULL, 0) > 0)
                children--;
        }
    }
    must(signals > 100, "signals arrived");
    return 0;
}

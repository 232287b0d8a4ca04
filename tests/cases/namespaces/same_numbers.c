/* Processes in an inner PID namespace that have, there, the number that another process has outside. A pager that took one number
 * for the other would read or kill the wrong process. To be run only inside a PID namespace of its own.
 *
 * The modes: "outer" gives the inner process the outer one's number, "before" and "helper" such that the task born next would
 * have the outer one's or its pager's helper's; "short" is "outer" with an inner process that ends at once. */
#include "../helpers.h"

static volatile size_t lost, failed, i;
static sigjmp_buf back;
static void on_fault(int signal) {
    (void)signal;
    lost++;
    siglongjmp(back, 1);
}

/* Locks what the process itself stands on (its data, libraries, stack and what is small), so that only the pattern is paged. */
static void lock_own(void) {
    struct {
        unsigned long from, to;
    } ranges[100];
    int count = 0;
    char line[512], access[8];
    FILE *file = fopen("/proc/self/maps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL && count < 100) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx %7s", &from, &to, access) != 3 || access[1] != 'w' || access[3] != 'p' || to - from > MIB)
            continue;
        ranges[count].from = from;
        ranges[count++].to = to;
    }
    if (file != NULL)
        fclose(file);
    for (int k = 0; k < count; k++)
        mlock((void *)ranges[k].from, ranges[k].to - ranges[k].from);
}

static int verify(uint64_t tag, int rounds) {
    size_t pages = 60 * PAGES_OF_MIB;
    signal(SIGBUS, on_fault);
    signal(SIGSEGV, on_fault);
    lock_own();
    uint8_t *memory = anonymous(pages * PAGE);
    for (volatile int round = 0; round < rounds && failed == 0; round++) {
        for (i = 0; i < pages; i++) {
            if (sigsetjmp(back, 1) == 0)
                pattern(memory + i * PAGE, i, tag);
        }
        for (i = 0; i < pages; i++) {
            if (sigsetjmp(back, 1) == 0)
                failed += !holds(memory + i * PAGE, i, tag);
        }
    }
    return (failed > 0 ? 1 : 0) | (lost > 0 ? 2 : 0);
}

/* The task of the pager that shares this memory, or nobody. */
static pid_t helper(void) {
    pid_t found = 0;
    return helpers(&found, 1) > 0 ? found : 0;
}

/* The next process of this namespace gets this number. */
static void next_number(pid_t number) {
    char text[32];
    int file = open("/proc/sys/kernel/ns_last_pid", O_WRONLY), length = snprintf(text, sizeof text, "%d", number - 1);
    if (file < 0 || write(file, text, (size_t)length) != length)
        unable("ns_last_pid");
    close(file);
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    int rounds = is(how, "short") ? 0 : 3;
    /* Numbers far from those that a new namespace has used. */
    next_number(300);
    fflush(stdout);
    pid_t outer = fork();
    if (outer == 0) {
        pid_t own = getpid(), target = is(how, "helper") && helper() != 0 ? helper() : own;
        fprintf(stderr, "outer process %d, its helper %d\n", own, helper());
        if (unshare(CLONE_NEWPID) != 0)
            unable("unshare");
        pid_t init = fork();
        if (init == 0) {
            /* The number itself, or the one before, so that a helper born beside the process would get it. */
            next_number(is(how, "outer") || is(how, "short") ? target : target - 1);
            pid_t inner = fork();
            if (inner == 0)
                _exit(rounds > 0 ? verify(0xbb, rounds) : 0);
            expect_child("inner process", inner, 0);
            _exit(verdict());
        }
        int mine = verify(0xaa, rounds > 0 ? rounds : 1);
        expect_child("the namespace's first process", init, 0);
        expect("outer process", mine, 0);
        _exit(verdict());
    }
    expect_child("all of it", outer, 0);
    return verdict();
}

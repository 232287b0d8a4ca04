/* Stops and continuations as job control and cpulimit send them: reported once each when they come slowly, and leaving nobody
 * stopped when they come fast. argv[1]: how many fast ones; argv[2]: "forks" if two of the processes fork all the time. */
#include "../case.h"

#define KINDS 4

struct shared {
    _Atomic long rounds[KINDS], wrong, wrong_children;
    _Atomic int end;
};
static struct shared *shared;

/* With a handler SIGCONT is delivered to a child that is being born. Where it is ignored, Linux itself leaves a child stopped if
 * SIGSTOP and SIGCONT both reach the group during one fork: it keeps the first for the child and forgets the second. */
static void on_continue(int signal) { (void)signal; }

static _Noreturn void work(int number, bool forks) {
    signal(SIGCONT, on_continue);
    size_t pages = 20 * PAGES_OF_MIB;
    uint8_t *memory = anonymous(pages * PAGE);
    fill(memory, pages, 3);
    while (!shared->end) {
        shared->wrong += (long)wrong(memory, pages, 3);
        shared->rounds[number]++;
        if (!forks)
            continue;
        pid_t child = fork();
        if (child == 0)
            _exit(5);
        int status = 0;
        pid_t got;
        while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
        }
        if (child < 0 || got != child || status != 5 << 8) {
            fprintf(stderr, "grandchild: fork %d, wait %d %s, status %#x\n", child, got, strerrorname_np(errno), status);
            shared->wrong_children++;
        }
    }
    _exit(3);
}

/* Whether the child reports this within five seconds. */
static bool reports(pid_t child, int options, bool (*expected)(int)) {
    double end = now() + 5;
    while (now() < end) {
        int status;
        if (waitpid(child, &status, options | WNOHANG) == child)
            return expected(status);
        usleep(1000);
    }
    return false;
}
static bool stopped(int status) { return WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP; }
static bool continued(int status) { return WIFCONTINUED(status); }

int main(int argc, char **argv) {
    int storms = atoi(mode(argc, argv));
    bool forks = argc > 2;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t group = 0, child[KINDS];
    for (int i = 0; i < KINDS; i++) {
        child[i] = fork();
        if (child[i] == 0) {
            setpgid(0, group);
            work(i, forks && i < 2);
        }
        setpgid(child[i], group ? group : child[i]);
        if (group == 0)
            group = child[i];
    }
    int reported = 0, again = 0;
    for (int i = 0; i < 20; i++) {
        kill(child[3], SIGSTOP);
        bool both = reports(child[3], WUNTRACED, stopped);
        int status;
        again += waitpid(child[3], &status, WUNTRACED | WNOHANG) != 0;
        kill(child[3], SIGCONT);
        both &= reports(child[3], WCONTINUED, continued);
        reported += both;
    }
    expect("stops and continuations that were reported", reported, 20);
    expect("stops that were reported twice", again, 0);
    for (int i = 0; i < storms; i++) {
        kill(-group, SIGSTOP);
        kill(-group, SIGCONT);
        if (forks)
            usleep(1500);
    }
    kill(-group, SIGCONT);
    long before[KINDS];
    for (int i = 0; i < KINDS; i++)
        before[i] = shared->rounds[i];
    bool all = false;
    for (double end = now() + 20; !all && now() < end; usleep(10000)) {
        all = true;
        for (int i = 0; i < KINDS; i++)
            all &= shared->rounds[i] >= before[i] + 2;
    }
    expect("all run on", all, 1);
    shared->end = 1;
    int bad = 0;
    for (int i = 0; i < KINDS; i++) {
        int status = 0;
        pid_t got = 0;
        for (double end = now() + 10; got == 0 && now() < end; usleep(10000))
            got = waitpid(child[i], &status, WNOHANG);
        bad += got != child[i] || status != 3 << 8;
        kill(child[i], SIGKILL);
    }
    expect("children that ended otherwise", bad, 0);
    expect("wrong pages", shared->wrong, 0);
    expect("grandchildren that ended otherwise", shared->wrong_children, 0);
    return verdict();
}

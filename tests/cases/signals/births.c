/* Stops that arrive while a process is born or executes: it stops, is seen to be stopped, and goes on when it is continued. The
 * modes: "fork", "exec", "thread". */
#include "../case.h"

static void *nothing(void *argument) { return argument; }

/* Works for ever in the way of the mode, and counts. */
static _Noreturn void work(const char *how, char **argv, _Atomic long *rounds) {
    for (;;) {
        pid_t child = 0;
        pthread_t thread;
        if (is(how, "thread")) {
            if (pthread_create(&thread, NULL, nothing, NULL) != 0)
                _exit(8);
            pthread_join(thread, NULL);
        } else {
            child = fork();
            if (child == 0) {
                if (is(how, "exec"))
                    execl("/proc/self/exe", argv[0], "image", (char *)NULL);
                _exit(is(how, "exec") ? 9 : 5);
            }
            int status = 0;
            pid_t got;
            while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
            }
            if (child < 0 || got != child || status != 5 << 8) {
                fprintf(stderr, "fork %d, wait %d %s, status %#x\n", child, got, strerrorname_np(errno), status);
                _exit(7);
            }
        }
        ++*rounds;
    }
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "image"))
        return 5;
    _Atomic long *rounds = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint8_t *memory = anonymous(8 * MIB);
    fill(memory, 8 * PAGES_OF_MIB, 3);
    unsigned seed = 1;
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        work(how, argv, rounds);
    }
    setpgid(child, child);
    int lost = 0, stuck = 0;
    for (int i = 0; i < 60 && lost + stuck == 0; i++) {
        usleep((unsigned)rand_r(&seed) % 5000);
        /* The whole group in half of the rounds, so that newborn children are stopped too. */
        kill(i % 2 ? -child : child, SIGSTOP);
        int status = 0;
        double end = now() + 5;
        pid_t got = 0;
        while (got == 0 && now() < end) {
            got = waitpid(child, &status, WUNTRACED | WNOHANG);
            usleep(500);
        }
        if (got == child && !WIFSTOPPED(status)) {
            expect_status("the worker ended", status, 0);
            return verdict();
        }
        lost += got != child;
        long before = *rounds;
        usleep(5000);
        lost += *rounds > before + 1;
        kill(-child, SIGCONT);
        for (end = now() + 5; *rounds < before + 2 && now() < end;)
            usleep(500);
        stuck += *rounds < before + 2;
    }
    expect("stops that were lost", lost, 0);
    expect("times that it did not go on", stuck, 0);
    kill(-child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    expect("killed by", WIFSIGNALED(status) ? WTERMSIG(status) : -1, SIGKILL);
    expect("wrong pages", (long)wrong(memory, 8 * PAGES_OF_MIB, 3), 0);
    return verdict();
}

/* A process that gives its memory back all the time is stopped: each stop is reported, and it stands still until it is continued.
 * argv[1]: how many. */
#include "../case.h"

int main(int argc, char **argv) {
    int stops = atoi(mode(argc, argv)), lost = 0, ran_on = 0;
    _Atomic long *rounds = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < stops; i++) {
        pid_t child = fork();
        if (child == 0) {
            for (uint8_t *memory = anonymous(16 * PAGE);; ++*rounds) {
                *memory = 1;
                madvise(memory, 16 * PAGE, MADV_FREE);
            }
        }
        usleep(4000 + (useconds_t)i * 37);
        kill(child, SIGSTOP);
        int status, reported = 0;
        for (double end = now() + 2; !reported && now() < end; usleep(1000))
            reported = waitpid(child, &status, WUNTRACED | WNOHANG) == child && WIFSTOPPED(status);
        lost += !reported;
        long before = *rounds;
        usleep(5000);
        ran_on += reported && *rounds != before;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    expect("stops that were lost", lost, 0);
    expect("stopped processes that ran on", ran_on, 0);
    return verdict();
}

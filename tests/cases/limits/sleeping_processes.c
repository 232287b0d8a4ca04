/* Many processes that sleep at the same time. argv[1]: how many. */
#include "../case.h"

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 300, failed = 0, ended = 0, killed = 0;
    pid_t *children = calloc((size_t)count, sizeof *children);
    for (int i = 0; i < count; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            sleep(2);
            _exit(0);
        }
        failed += children[i] < 0;
    }
    for (int i = 0; i < count; i++) {
        int status = 0;
        if (children[i] > 0 && waitpid(children[i], &status, 0) == children[i]) {
            ended += status == 0;
            killed += status != 0;
        }
    }
    expect("forks that failed", failed, 0);
    expect("children that ended well", ended, count);
    expect("children that ended otherwise", killed, 0);
    return verdict();
}

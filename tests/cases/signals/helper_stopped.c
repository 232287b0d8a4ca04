/* A process stops (argv[1] "stop") or kills ("kill") the pager's helper of its own memory, if it has one: a task that bears the
 * name "zcache-servant" and that a signal of this process reaches. Whatever becomes of itself, another process of the tree goes
 * on. Without a pager there is no helper, and all go on. */
#include "../helpers.h"

static int signal_helpers(int number) {
    pid_t found[16];
    int count = 0;
    for (int left = helpers(found, 16); left > 0; left--)
        count += kill(found[left - 1], number) == 0;
    return count;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    alarm(45);
    pid_t child = fork();
    if (child == 0) {
        uint8_t *memory = anonymous(40 * MIB);
        fill(memory, 40 * PAGES_OF_MIB, 1);
        fprintf(stderr, "helpers found: %d\n", signal_helpers(is(how, "stop") ? SIGSTOP : SIGKILL));
        for (int i = 0; i < 1000; i++) {
            fill(memory, 40 * PAGES_OF_MIB, 1);
            usleep(1000);
        }
        _exit(0);
    }
    sleep(1);
    double start = now();
    uint8_t *memory = anonymous(100 * MIB);
    fill(memory, 100 * PAGES_OF_MIB, 2);
    expect("wrong pages of the other process", (long)wrong(memory, 100 * PAGES_OF_MIB, 2), 0);
    took("the other process", start);
    expect("it had to wait for more than 15 s", now() - start > 15, 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return verdict();
}

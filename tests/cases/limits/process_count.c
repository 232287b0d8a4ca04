/* More forks than a limit on processes allows: so many succeed, the others are told EAGAIN, and nobody is killed. The modes:
 * "user" sets RLIMIT_NPROC to 20 and becomes user argv[2], who has no other process; "group" enters the control group argv[2],
 * whose pids.max is 20; "zero" sets RLIMIT_NPROC to 0 in a child, which can execute still. */
#include "../case.h"

#define LIMIT 20
#define TRIES 30

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "zero")) {
        pid_t child = fork();
        if (child == 0) {
            struct rlimit none = {0, 0};
            setrlimit(RLIMIT_NPROC, &none);
            execl("/bin/echo", "echo", "executed", (char *)NULL);
            _exit(9);
        }
        expect_child("child", child, 0);
        return verdict();
    }
    if (is(how, "group")) {
        char name[256];
        snprintf(name, sizeof name, "%s/cgroup.procs", argv[2]);
        int file = open(name, O_WRONLY);
        if (file < 0 || write(file, "0", 1) != 1)
            unable(name);
        close(file);
    } else {
        struct rlimit some = {LIMIT, LIMIT};
        uid_t user = (uid_t)atoi(argv[2]);
        if (setrlimit(RLIMIT_NPROC, &some) != 0 || setgid(user) != 0 || setuid(user) != 0)
            unable("another user");
    }
    uint8_t *memory = anonymous(10 * MIB);
    fill(memory, 10 * PAGES_OF_MIB, 3);
    pid_t children[TRIES];
    int born = 0, refused = 0, ended = 0;
    for (int i = 0; i < TRIES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            usleep(1500000);
            _exit(holds(memory + PAGE * 5, 5, 3) ? 0 : 1);
        }
        born += children[i] > 0;
        refused += children[i] < 0 && errno == EAGAIN;
    }
    expect("born", born, LIMIT - 1);
    expect("refused with EAGAIN", refused, TRIES - LIMIT + 1);
    for (int i = 0; i < TRIES; i++) {
        int status = -1;
        ended += children[i] > 0 && waitpid(children[i], &status, 0) == children[i] && status == 0;
    }
    expect("ended well", ended, LIMIT - 1);
    pid_t child = fork();
    if (child == 0)
        _exit(wrong(memory, 10 * PAGES_OF_MIB, 3) != 0);
    expect_child("another when they are gone", child, 0);
    return verdict();
}

/* The first process of a PID namespace adopts orphans and waits for all; when it ends, all others are killed. It sees the
 * processes that it knows and no others. */
#include "../case.h"

#include <sys/mount.h>

static int as_first(void) {
    uint8_t *memory = anonymous(80 * MIB);
    fill(memory, 80 * PAGES_OF_MIB, 3);
    int ends = 0, other = 0;
    for (int i = 0; i < 5; i++) {
        pid_t child = fork();
        if (child == 0) {
            /* An orphan, which comes to the first process. */
            if (fork() == 0) {
                usleep(200000);
                _exit(wrong(memory, 1000, 3) == 0 ? 6 : 9);
            }
            _exit(5);
        }
    }
    int status;
    while (waitpid(-1, &status, __WALL) > 0) {
        ends += status == 5 << 8 || status == 6 << 8;
        other += status != 5 << 8 && status != 6 << 8;
    }
    expect("children and orphans that ended", ends, 10);
    expect("others", other, 0);
    expect_call("wait when nobody is left", wait(NULL), "ECHILD");
    expect("wrong pages", (long)wrong(memory, 80 * PAGES_OF_MIB, 3), 0);
    /* One that is still alive when the namespace ends. */
    if (fork() == 0)
        pause();
    return verdict();
}

int main(void) {
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0)
        unable("unshare");
    pid_t child = fork();
    if (child == 0) {
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("proc", "/proc", "proc", 0, NULL) != 0)
            unable("mount");
        exit(as_first());
    }
    expect_child("first process", child, 0);
    expect_call("fork when the namespace is over", fork(), "ENOMEM");
    return verdict();
}

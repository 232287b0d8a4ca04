/* A wait returns this process's children and orphans, each once, and nobody else, by every kind of wait. The modes: "plain" and
 * "subreaper", where orphans come to this process. */
#include "../case.h"

#define CHILDREN 12

static bool ours(int status) { return WIFEXITED(status) && (WEXITSTATUS(status) == 5 || WEXITSTATUS(status) == 6); }

int main(int argc, char **argv) {
    bool subreaper = is(mode(argc, argv), "subreaper");
    if (subreaper && prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        unable("PR_SET_CHILD_SUBREAPER");
    uint8_t *memory = anonymous(70 * MIB);
    fill(memory, 70 * PAGES_OF_MIB, 3);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < CHILDREN; i++) {
            pid_t child = fork();
            if (child == 0) {
                if (fork() == 0) {
                    usleep(50000);
                    _exit(holds(memory, 0, 3) ? 6 : 9);
                }
                if (i % 3 == 0)
                    execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
                _exit(5);
            }
        }
        int ends = 0, others = 0;
        for (;;) {
            int status = 0;
            siginfo_t info = {0};
            if (round == 0) {
                if (waitpid(-1, &status, 0) < 0)
                    break;
            } else if (round == 1) {
                if (waitpid(-1, &status, __WALL | WUNTRACED | WCONTINUED) < 0)
                    break;
            } else if (round == 2) {
                /* Looked at first, then taken. */
                if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | WNOWAIT) != 0)
                    break;
                if (waitpid(info.si_pid, &status, __WALL) != info.si_pid)
                    others++;
            } else {
                if (waitid(P_PGID, 0, &info, WEXITED | __WALL) != 0)
                    break;
                status = info.si_status << 8;
            }
            ends += ours(status);
            others += !ours(status);
        }
        expect("ends", ends, subreaper ? 2 * CHILDREN : CHILDREN);
        expect("others", others, 0);
        expect_call("then", wait(NULL), "ECHILD");
        usleep(subreaper ? 0 : 100000);
    }
    expect("clones found by __WCLONE", waitpid(-1, NULL, __WCLONE | WNOHANG), -1);
    expect("wrong pages", (long)wrong(memory, 70 * PAGES_OF_MIB, 3), 0);
    return verdict();
}

/* A program's own filter kills for calls that the program does not make: it looks at their arguments, and knows no
 * restart_syscall. Sleeps that an ignored signal meets, and locks and maps of every kind, go on under it. */
#include "../case.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void sleep_beside_ignored(const char *what, bool polls) {
    pid_t self = getpid(), child = fork();
    if (child == 0) {
        for (int i = 0; i < 4; i++) {
            usleep(50000);
            kill(self, SIGWINCH);
        }
        _exit(0);
    }
    struct timespec time = {0, 300000000};
    expect(what, polls ? poll(NULL, 0, 300) : nanosleep(&time, NULL), 0);
    expect_child("who sends", child, 0);
}

int main(void) {
    struct sock_filter filter[] = {
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 0, 1), KILL,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mlock2, 0, 4), LOAD(args[2]), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0), KILL, ALLOW,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mlockall, 0, 4), LOAD(args[0]), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 4, 0, 1), KILL, ALLOW,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 4), LOAD(args[3]), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_POPULATE, 1, 0), KILL, ALLOW,
        ALLOW,
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    void *page = anonymous(PAGE);
    signal(SIGWINCH, SIG_IGN);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        unable("seccomp");
    sleep_beside_ignored("nanosleep", false);
    sleep_beside_ignored("poll", true);
    expect_call("mlock2", syscall(SYS_mlock2, page, PAGE, 0), "done");
    expect_call("mlock", syscall(SYS_mlock, page, PAGE), "done");
    void *populated = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    expect_call("mmap", populated == MAP_FAILED ? -1 : 0, "done");
    expect_call("mlockall", mlockall(MCL_CURRENT), "done");
    return verdict();
}

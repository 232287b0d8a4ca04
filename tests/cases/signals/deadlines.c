/* Waits with a timeout end in time although ignored signals come all the while, and not before. argv[1]: "plain", or "filtered" by a
 * filter of the program's own, which kills whoever calls `restart_syscall`. */
#include "../case.h"

#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/sem.h>
#include <sys/socket.h>

#define TIMEOUT 0.3

static void refuse_restarts(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        unable("a filter");
}

static double start;

static void judge(const char *what, long result, long want, const char *name) {
    const char *got = result_name(result);
    double time = now() - start;
    fprintf(stderr, "%s: %.3f s\n", what, time);
    say("%s: %ld %s, %s", what, result, got, time < TIMEOUT - 0.001 ? "too early" : time > 3 * TIMEOUT ? "too late" : "in time");
    case_failures += result != want || strcmp(got, name) != 0 || time < TIMEOUT - 0.001 || time > 3 * TIMEOUT;
    start = now();
}

int main(int argc, char **argv) {
    struct timespec time = {0, 300000000};
    struct timeval limit = {0, 300000};
    pid_t self = getpid(), child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Longer than all waits here take. */
        for (int i = 0; i < 600; i++) {
            usleep(40000);
            kill(self, SIGWINCH);
        }
        _exit(0);
    }
    if (is(mode(argc, argv), "filtered"))
        refuse_restarts();
    struct epoll_event event;
    int polled = epoll_create1(EPOLL_CLOEXEC), pair[2], listens = socket(AF_UNIX, SOCK_STREAM, 0);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || bind(listens, &(struct sockaddr){AF_UNIX, ""}, 2) != 0 ||
        listen(listens, 1) != 0)
        unable("sockets");
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(listens, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    char byte;
    struct iovec part = {&byte, 1};
    struct mmsghdr message = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
    uint32_t word = 0;
    start = now();
    judge("poll", poll(NULL, 0, 300), 0, "done");
    judge("nanosleep", nanosleep(&time, NULL), 0, "done");
    judge("clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL), 0, "done");
    judge("futex", syscall(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &time, NULL, 0), -1, "ETIMEDOUT");
    judge("select", select(0, NULL, NULL, NULL, &(struct timeval){0, 300000}), 0, "done");
    judge("epoll_wait", epoll_wait(polled, &event, 1, 300), 0, "done");
    judge("epoll_pwait2", syscall(SYS_epoll_pwait2, polled, &event, 1, &time, NULL, 0), 0, "done");
    int id = semget(IPC_PRIVATE, 1, 0600);
    judge("semtimedop", semtimedop(id, &(struct sembuf){0, -1, 0}, 1, &time), -1, "EAGAIN");
    semctl(id, 0, IPC_RMID);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    judge("sigtimedwait", sigtimedwait(&set, NULL, &time), -1, "EAGAIN");
    judge("recv", recv(pair[0], &byte, 1, 0), -1, "EAGAIN");
    judge("read", read(pair[0], &byte, 1), -1, "EAGAIN");
    judge("recvmmsg", recvmmsg(pair[0], &message, 1, 0, NULL), -1, "EAGAIN");
    judge("accept", accept(listens, NULL, NULL), -1, "EAGAIN");
    aio_context_t context = 0;
    struct io_event done;
    if (syscall(SYS_io_setup, 4, &context) != 0)
        unable("io_setup");
    start = now();
    judge("io_getevents", syscall(SYS_io_getevents, context, 1, 1, &done, &time), 0, "done");
    judge("io_pgetevents", syscall(SYS_io_pgetevents, context, 1, 1, &done, &time, NULL), 0, "done");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return verdict();
}

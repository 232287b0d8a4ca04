/* Calls that wait while signals come which the program does not handle: Linux does not interrupt them. argv[1]: WINCH (ignored
 * unless handled), CHLD (of children that end), or IGN (a SIGUSR1 that is set to be ignored). */
#include "../case.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/socket.h>

static const char *how;

/* Sends signals to the program for a third of a second. */
static pid_t disturb(void) {
    pid_t program = getpid(), child = fork();
    if (child != 0)
        return child;
    for (int i = 0; i < 15; i++) {
        usleep(20000);
        if (is(how, "WINCH"))
            kill(program, SIGWINCH);
        else if (is(how, "IGN"))
            kill(program, SIGUSR1);
        else
            kill(program, SIGCHLD);
    }
    _exit(0);
}

static void judge(const char *what, long result, long want, const char *name) {
    const char *got = result_name(result);
    say("%s: %ld %s", what, result, got);
    case_failures += result != want || strcmp(got, name) != 0;
}

int main(int argc, char **argv) {
    how = mode(argc, argv);
    signal(SIGUSR1, SIG_IGN);
    struct timespec one = {0, 500000000};
    struct timeval second = {0, 500000};
    size_t pages = 60 * PAGES_OF_MIB;
    uint8_t *memory = anonymous(pages * PAGE);
    fill(memory, pages, 3);
    struct epoll_event event;
    int polled = epoll_create1(0), pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        unable("socketpair");
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    char byte;

    pid_t child = disturb();
    judge("epoll_wait", epoll_wait(polled, &event, 1, 500), 0, "done");
    expect_child("child", child, 0);

    child = disturb();
    int id = semget(IPC_PRIVATE, 1, 0600);
    struct sembuf down = {0, -1, 0};
    judge("semtimedop", semtimedop(id, &down, 1, &one), -1, "EAGAIN");
    semctl(id, 0, IPC_RMID);
    expect_child("child", child, 0);

    child = disturb();
    judge("recv with a timeout", recv(pair[0], &byte, 1, 0), -1, "EAGAIN");
    expect_child("child", child, 0);

    child = disturb();
    judge("poll", poll(NULL, 0, 500), 0, "done");
    expect_child("child", child, 0);

    child = disturb();
    struct timespec rest = {9, 9};
    judge("nanosleep", nanosleep(&one, &rest), 0, "done");
    expect_child("child", child, 0);

    child = disturb();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    judge("sigtimedwait", sigtimedwait(&set, NULL, &one), -1, "EAGAIN");
    expect_child("child", child, 0);

    child = disturb();
    struct timeval left = second;
    judge("select", select(0, NULL, NULL, NULL, &left), 0, "done");
    expect_child("child", child, 0);

    /* msgrcv has no timeout: a message comes when the signals are over. */
    id = msgget(IPC_PRIVATE, 0600);
    struct {
        long type;
        char text[8];
    } message = {1, "hello"};
    child = disturb();
    pid_t sender = fork();
    if (sender == 0) {
        usleep(500000);
        _exit(msgsnd(id, &message, sizeof message.text, 0) != 0);
    }
    judge("msgrcv", msgrcv(id, &message, sizeof message.text, 0, 0), (long)sizeof message.text, "done");
    msgctl(id, IPC_RMID, NULL);
    expect_child("child", child, 0);
    expect_child("sender", sender, 0);

    child = disturb();
    static uint32_t word;
    judge("futex", syscall(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &one, NULL, 0), -1, "ETIMEDOUT");
    expect_child("child", child, 0);

    expect("wrong pages", (long)wrong(memory, pages, 3), 0);
    return verdict();
}

/* A transfer goes on until all is done although signals come that are ignored, here of children that end; one that is handled ends
 * it. argv[1]: the call. */
#include "../case.h"

#include <sys/random.h>
#include <sys/socket.h>

#define BYTES ((long)MIB)

static volatile sig_atomic_t handled;
static void on_signal(int number) { handled += number == SIGUSR1; }

/* Set right before the call: until then all others wait. */
static _Atomic bool *begun;

static void after(useconds_t microseconds) {
    while (!*begun)
        usleep(500);
    usleep(microseconds);
}

/* A child that does nothing but end so long after the beginning, or send a signal. */
static void child_after(useconds_t microseconds, int number) {
    pid_t self = getpid();
    if (fork() == 0) {
        after(microseconds);
        if (number != 0)
            kill(self, number);
        _exit(0);
    }
}

/* The other side: reads slowly, or writes in ten parts. */
static void other_side(int descriptor, int mine, uint8_t *memory, bool writes) {
    if (fork() != 0)
        return;
    close(mine);
    after(200000);
    for (int i = 0; writes && i < 10; i++, usleep(20000)) {
        if (write(descriptor, memory, (size_t)BYTES / 10) < 0)
            _exit(1);
    }
    while (!writes && read(descriptor, memory, 1 << 16) > 0)
        usleep(2000);
    _exit(0);
}

int main(int argc, char **argv) {
    const char *call = mode(argc, argv);
    uint8_t *memory = anonymous((size_t)BYTES * 30);
    memset(memory, 7, (size_t)BYTES);
    bool receives = is(call, "recv"), socket = receives || is(call, "send");
    begun = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long whole = receives ? BYTES / 10 * 10 : BYTES, got = 0;
    int ends[2], file = -1;
    if (is(call, "random") || is(call, "zero")) {
        file = open(is(call, "zero") ? "/dev/zero" : "/dev/urandom", O_RDONLY | O_CLOEXEC);
        whole = 16 * BYTES;
    } else if (is(call, "getrandom")) {
        whole = 30 * BYTES;
    } else if (socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) {
        unable("pipe");
    } else {
        other_side(ends[!receives ? 0 : 1], ends[!receives ? 1 : 0], memory, receives);
        close(ends[!receives ? 0 : 1]);
    }
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL);
    for (useconds_t i = 1; i <= 20; i++)
        child_after(i * (file >= 0 || is(call, "getrandom") ? 1500 : 20000), 0);
    if (is(call, "handled"))
        child_after(100000, SIGUSR1);
    int mine = ends[!receives ? 1 : 0];
    *begun = true;
    if (file >= 0)
        got = read(file, memory, (size_t)whole);
    else if (is(call, "getrandom"))
        got = getrandom(memory, (size_t)whole, 0);
    else if (receives)
        got = recv(mine, memory, (size_t)whole, MSG_WAITALL);
    else if (is(call, "send"))
        got = send(mine, memory, (size_t)whole, 0);
    else
        got = write(mine, memory, (size_t)whole);
    if (is(call, "handled"))
        expect("a part was moved", got > 0 && got < whole && handled == 1, 1);
    else
        expect("bytes that were moved", got, whole);
    if (file < 0 && !is(call, "getrandom"))
        close(mine);
    while (wait(NULL) > 0 || errno == EINTR) {
    }
    return verdict();
}

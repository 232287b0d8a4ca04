/* Transfers by several buffers, several messages, or from one file to another go on until all is done although signals come that are
 * ignored. argv[1]: the call; argv[2]: "timeout", where the socket has one and nobody reads. */
#include "../case.h"

#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define BYTES ((long)MIB)
#define PARTS 8L
#define MESSAGES 4L

static uint8_t *memory;
static struct iovec parts[PARTS];
static struct mmsghdr messages[MESSAGES];
static const char *call;

/* Byte `i` of what is moved: no part looks like another. */
static uint8_t byte_of(long i) { return (uint8_t)(i * 31 + i / 257 + i / 65536 * 7); }

/* Sends signals that are ignored every 700 us, from when the call has begun. */
static pid_t disturb(void) {
    pid_t self = getpid(), child = fork();
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        usleep(700);
        kill(self, SIGWINCH);
    }
}

/* Reads all that comes, slowly, and judges it; or writes it in parts. Its exit status says whether all was right. */
static pid_t other_side(int descriptor, int mine, bool writes) {
    pid_t child = fork();
    if (child != 0)
        return child;
    close(mine);
    uint8_t block[5000];
    long done = 0, wrong_bytes = 0, got = 1;
    while (writes && done < BYTES) {
        long length = BYTES - done < (long)sizeof block ? BYTES - done : (long)sizeof block;
        for (long i = 0; i < length; i++)
            block[i] = byte_of(done + i);
        if (write(descriptor, block, (size_t)length) != length)
            _exit(9);
        done += length;
        usleep(200);
    }
    while (!writes && (got = read(descriptor, block, sizeof block)) > 0) {
        for (long i = 0; i < got; i++)
            wrong_bytes += block[i] != byte_of(done + i);
        done += got;
        usleep(200);
    }
    _exit(wrong_bytes != 0 ? 1 : done != BYTES ? 2 : 0);
}

static long make(int mine, int file) {
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = PARTS};
    loff_t start = 0;
    if (is(call, "writev"))
        return writev(mine, parts, PARTS);
    if (is(call, "pwritev2"))
        return pwritev2(mine, parts, PARTS, -1, 0);
    if (is(call, "sendmsg"))
        return sendmsg(mine, &message, 0);
    if (is(call, "recvmsg"))
        return recvmsg(mine, &message, MSG_WAITALL);
    if (is(call, "sendmmsg"))
        return sendmmsg(mine, messages, MESSAGES, 0);
    if (is(call, "recvmmsg"))
        return recvmmsg(mine, messages, MESSAGES, 0, NULL);
    if (is(call, "sendfile"))
        return sendfile(mine, file, &start, (size_t)BYTES);
    if (is(call, "splice"))
        return splice(file, NULL, mine, NULL, (size_t)BYTES, 0);
    if (is(call, "readv") || is(call, "preadv"))
        return is(call, "readv") ? readv(file, parts, PARTS) : preadv(file, parts, PARTS, 0);
    unable("no such call");
}

/* Nobody reads: the call returns what there is room for when time is up. */
static int with_timeout(int mine) {
    setsockopt(mine, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){0, 400000}, sizeof(struct timeval));
    double start = now();
    pid_t child = disturb();
    long first = make(mine, -1), second = make(mine, -1);
    expect("moved in part", first > 0 && first < BYTES, 1);
    expect("nothing more", second == -1 && errno == EAGAIN, 1);
    took("both", start);
    expect("in time", now() - start > 0.75 && now() - start < 3, 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return verdict();
}

int main(int argc, char **argv) {
    call = mode(argc, argv);
    bool writes = is(call, "recvmsg"), reads = is(call, "readv") || is(call, "preadv"), datagrams = is(call, "recvmmsg");
    bool piped = is(call, "writev") || is(call, "pwritev2");
    long bytes = reads ? 32 * BYTES : BYTES;
    memory = anonymous((size_t)bytes);
    for (long i = 0; i < BYTES && !writes; i++)
        memory[i] = byte_of(i);
    for (long i = 0; i < PARTS; i++)
        /* One is empty, and they differ. */
        parts[i] = (struct iovec){memory + bytes / PARTS * i - (i > 1 ? 300 : 0), (size_t)(i == 0 ? bytes / PARTS : i == 1 ? bytes / PARTS - 300 : bytes / PARTS)};
    parts[PARTS - 1].iov_len += 300;
    for (long i = 0; i < MESSAGES; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = parts + 2 * i, .msg_iovlen = 2};
    int ends[2], file = -1;
    if (piped && argc < 3 ? pipe(ends) : socketpair(AF_UNIX, datagrams ? SOCK_DGRAM : SOCK_STREAM, 0, ends))
        unable("ends");
    int mine = piped ? ends[1] : ends[0], theirs = piped ? ends[0] : ends[1];
    if (argc > 2)
        return with_timeout(mine);
    if (reads)
        file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (is(call, "sendfile")) {
        file = memfd_create("source", MFD_CLOEXEC);
        if (write(file, memory, (size_t)BYTES) != BYTES)
            unable("write");
    }
    if (is(call, "splice")) {
        int source[2];
        if (pipe(source) != 0 || fcntl(source[1], F_SETPIPE_SZ, BYTES) < BYTES || write(source[1], memory, (size_t)BYTES) != BYTES)
            unable("pipe");
        file = source[0];
    }
    long got;
    if (datagrams) {
        pid_t self = getpid(), sender = fork();
        for (long i = 0; sender == 0 && i < MESSAGES; i++) {
            usleep(60000);
            if (write(theirs, memory, 100) != 100)
                _exit(1);
        }
        if (sender == 0)
            _exit(getppid() != self);
        pid_t child = disturb();
        expect("messages", make(mine, file), MESSAGES);
        for (long i = 0; i < MESSAGES; i++)
            expect("bytes of a message", messages[i].msg_len, 100);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        expect_child("sender", sender, 0);
        return verdict();
    }
    pid_t reader = reads ? 0 : other_side(theirs, mine, writes);
    close(theirs);
    pid_t child = disturb();
    for (int i = 0; i < (reads ? 20 : 1); i++) {
        got = make(mine, file);
        if (is(call, "sendmmsg")) {
            expect("messages", got, MESSAGES);
            for (long k = got = 0; k < MESSAGES; k++)
                got += messages[k].msg_len;
        }
        expect("bytes that were moved", got, bytes);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(mine);
    if (!reads)
        expect_child("the other side", reader, 0);
    long wrong_bytes = 0;
    for (long i = 0; i < bytes && (reads || writes); i++)
        wrong_bytes += memory[i] != (reads ? 0 : byte_of(i));
    expect("wrong bytes", wrong_bytes, 0);
    return verdict();
}

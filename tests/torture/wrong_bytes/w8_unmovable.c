/* 8. Pages that cannot be moved: locked, read-only, executable, file-private, shared, pinned by the kernel for I/O.
 *
 * All of them are made, kept under pressure, used and checked: data written by the kernel into pinned pages must arrive where the
 * program looks, vmsplice'd pages must read as they were, code must run.
 */
#define _GNU_SOURCE
#include "race.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGES ((size_t)64)

static int scratch;

/* Locked pages keep their data; a refusal by RLIMIT_MEMLOCK is no error. */
static void *locked(void *argument) {
    (void)argument;
    uint8_t *at = race_map(PAGES * PAGE);
    for (uint32_t version = 1; !race_over(); version++) {
        race_fill(at, PAGES, 80, version);
        int refused = mlock(at, PAGES * PAGE);
        usleep(3000);
        race_check(at, PAGES, 80, version, "locked");
        if (refused == 0)
            munlock(at, PAGES * PAGE);
        usleep(3000);
        race_check(at, PAGES, 80, version, "unlocked");
    }
    return NULL;
}

static void *read_only(void *argument) {
    (void)argument;
    uint8_t *at = race_map(PAGES * PAGE);
    for (uint32_t version = 1; !race_over(); version++) {
        mprotect(at, PAGES * PAGE, PROT_READ | PROT_WRITE);
        race_fill(at, PAGES, 81, version);
        mprotect(at, PAGES * PAGE, PROT_READ);
        usleep(5000);
        race_check(at, PAGES, 81, version, "read-only");
    }
    return NULL;
}

/* Each page holds a function that returns its number; RWX as a JIT compiler has it. */
static void *executable(void *argument) {
    (void)argument;
    uint8_t *at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        cannot("mmap rwx");
    for (uint32_t round = 1; !race_over(); round++) {
        for (uint32_t i = 0; i < PAGES; i++) {
#if defined(__x86_64__)
            uint8_t code[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov eax, number; ret */
            uint32_t number = round * 1000 + i;
            memcpy(code + 1, &number, sizeof number);
#elif defined(__aarch64__)
            uint32_t number = (round * 1000 + i) & 0xffff;
            uint32_t code[] = {0x52800000u | number << 5, 0xd65f03c0u}; /* mov w0, number; ret */
#else
#error "no machine code for this architecture"
#endif
            memcpy(at + i * PAGE, code, sizeof code);
            __builtin___clear_cache((char *)at + i * PAGE, (char *)at + i * PAGE + sizeof code);
        }
        usleep(5000);
        for (uint32_t i = 0; i < PAGES; i++) {
            uint32_t (*function)(void);
            uint8_t *address = at + i * PAGE;
            memcpy(&function, &address, sizeof function);
            uint32_t expected = round * 1000 + i;
#if defined(__aarch64__)
            expected &= 0xffff;
#endif
            uint32_t got = function();
            if (got != expected)
                wrong("executable page %u: returned %u instead of %u", i, got, expected);
            race_checks++;
        }
    }
    return NULL;
}

/* Written pages of a private file mapping, beside unwritten ones, and shared anonymous memory. */
static void *file_private_and_shared(void *argument) {
    (void)argument;
    uint8_t page[PAGE] __attribute__((aligned(8)));
    for (uint32_t i = 0; i < PAGES; i++) {
        page_fill(page, (struct page_name){1, 82, i, 1});
        if (pwrite(scratch, page, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE)
            cannot("pwrite");
    }
    uint8_t *file = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, scratch, 0);
    uint8_t *shared = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (file == MAP_FAILED || shared == MAP_FAILED)
        cannot("mmap");
    for (uint32_t version = 2; !race_over(); version++) {
        for (uint32_t i = 0; i < PAGES; i += 2)
            page_fill(file + i * PAGE, (struct page_name){1, 82, i, version});
        race_fill(shared, PAGES, 83, version);
        usleep(5000);
        for (uint32_t i = 0; i < PAGES; i++)
            page_check(file + i * PAGE, (struct page_name){1, 82, i, i % 2 ? 1 : version}, "private file");
        race_check(shared, PAGES, 83, version, "shared");
    }
    return NULL;
}

/* Pages lent to a pipe by vmsplice: the pipe's reader must see them as they were, however long they wait there. */
static void *spliced(void *argument) {
    (void)argument;
    const size_t count = 8;
    uint8_t *from = race_map(count * PAGE), *to = race_map(count * PAGE);
    int ends[2];
    if (pipe(ends) != 0)
        cannot("pipe");
    for (uint32_t version = 1; !race_over(); version++) {
        race_fill(from, count, 84, version);
        usleep(2000);
        struct iovec vector = {from, count * PAGE};
        ssize_t lent = vmsplice(ends[1], &vector, 1, 0);
        if (lent < 0)
            cannot("vmsplice");
        usleep(5000);
        race_check(from, count, 84, version, "lent to a pipe");
        for (ssize_t done = 0; done < lent;) {
            ssize_t got = read(ends[0], to + done, (size_t)(lent - done));
            if (got <= 0)
                cannot("read");
            done += got;
        }
        race_check(to, (size_t)lent / PAGE, 84, version, "through vmsplice");
    }
    return NULL;
}

/* O_DIRECT pins the buffer while the disk writes into it. */
static void *direct(void *argument) {
    (void)argument;
    char path[] = "w8-direct-XXXXXX";
    int file = mkostemp(path, O_DIRECT);
    unlink(path);
    uint8_t *from = race_map(PAGES * PAGE), *to = race_map(PAGES * PAGE);
    for (uint32_t version = 1; !race_over(); version++) {
        race_fill(from, PAGES, 85, version);
        usleep(1000);
        ssize_t bytes = (ssize_t)(PAGES * PAGE);
        if (pwrite(file, from, (size_t)bytes, 0) != bytes || pread(file, to, (size_t)bytes, 0) != bytes) {
            if (errno == EINVAL)
                return NULL; /* A filesystem without O_DIRECT. */
            cannot("O_DIRECT");
        }
        race_check(to, PAGES, 85, version, "read by O_DIRECT");
        usleep(1000);
        race_check(to, PAGES, 85, version, "read by O_DIRECT, later");
    }
    return NULL;
}

/* A ring with one registered buffer; the kernel keeps the buffer's pages pinned and writes to them behind the page tables. */
static void *registered(void *argument) {
    (void)argument;
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0) {
        if (errno == EPERM || errno == ENOSYS)
            return NULL; /* io_uring is switched off on this machine. */
        cannot("io_uring_setup");
    }
    size_t queue_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    size_t completion_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    if (completion_bytes > queue_bytes)
        queue_bytes = completion_bytes;
    uint8_t *queue = mmap(NULL, queue_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries = mmap(NULL, params.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (queue == MAP_FAILED || entries == MAP_FAILED)
        cannot("mmap of the ring");
    const size_t count = 16;
    uint8_t *buffer = race_map(count * PAGE), *from = race_map(count * PAGE);
    race_fill(buffer, count, 86, 1);
    struct iovec vector = {buffer, count * PAGE};
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &vector, 1) != 0)
        cannot("io_uring_register");
    race_check(buffer, count, 86, 1, "registered buffer");
    int ends[2];
    if (pipe(ends) != 0)
        cannot("pipe");
    _Atomic uint32_t *tail = (_Atomic uint32_t *)(queue + params.sq_off.tail);
    uint32_t *array = (uint32_t *)(queue + params.sq_off.array);
    _Atomic uint32_t *head = (_Atomic uint32_t *)(queue + params.cq_off.head);
    struct io_uring_cqe *completions = (struct io_uring_cqe *)(queue + params.cq_off.cqes);
    uint32_t mask = *(uint32_t *)(queue + params.sq_off.ring_mask);
    uint32_t completion_mask = *(uint32_t *)(queue + params.cq_off.ring_mask);
    for (uint32_t version = 2; !race_over(); version++) {
        race_fill(from, count, 86, version);
        if (write(ends[1], from, count * PAGE) != (ssize_t)(count * PAGE))
            cannot("write");
        uint32_t slot = *tail & mask;
        memset(&entries[slot], 0, sizeof entries[slot]);
        entries[slot].opcode = IORING_OP_READ_FIXED;
        entries[slot].fd = ends[0];
        entries[slot].off = (uint64_t)-1;
        entries[slot].addr = (uint64_t)(uintptr_t)buffer;
        entries[slot].len = (uint32_t)(count * PAGE);
        array[slot] = slot;
        (*tail)++;
        long done;
        do {
            done = syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        } while (done < 0 && errno == EINTR);
        int32_t got = completions[*head & completion_mask].res;
        (*head)++;
        if (done != 1 || got != (int32_t)(count * PAGE))
            wrong("io_uring: read %d bytes into the registered buffer", (int)got);
        race_check(buffer, count, 86, version, "read into a registered buffer");
        usleep(3000);
        race_check(buffer, count, 86, version, "registered buffer, later");
    }
    return NULL;
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    char path[] = "w8-scratch-XXXXXX";
    scratch = mkostemp(path, O_CLOEXEC);
    if (scratch < 0)
        cannot("mkostemp");
    unlink(path);
    void *(*const kinds[])(void *) = {locked, read_only, executable, file_private_and_shared, spliced, direct, registered};
    const size_t count = sizeof kinds / sizeof kinds[0];
    pthread_t pressure = race_pressure(race_bytes, 1);
    pthread_t threads[count];
    for (size_t i = 0; i < count; i++)
        threads[i] = race_thread(kinds[i], NULL);
    for (size_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    pthread_join(pressure, NULL);
    race_ok();
}

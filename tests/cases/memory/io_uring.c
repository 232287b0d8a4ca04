/* io_uring: a program asks whether it is there. Where it is, reads, writes, fixed buffers and madvise through it act on evicted
 * pages as calls do; where it is refused (as by io_uring_disabled, which programs know how to live with) the program goes on. */
#include "../case.h"

#include <linux/io_uring.h>

#define ENTRIES 8
#define PAGES 64

static int ring;
static uint8_t *submissions, *completions;
static struct io_uring_sqe *entries;
static struct io_uring_params parameters;

static int one(uint8_t operation, int file, const void *at, unsigned length, uint64_t offset, unsigned advice) {
    unsigned *tail = (unsigned *)(submissions + parameters.sq_off.tail),
             mask = *(unsigned *)(submissions + parameters.sq_off.ring_mask);
    unsigned slot = *tail & mask;
    memset(&entries[slot], 0, sizeof entries[slot]);
    entries[slot].opcode = operation;
    entries[slot].fd = file;
    entries[slot].addr = (uintptr_t)at;
    entries[slot].len = length;
    entries[slot].off = offset;
    entries[slot].fadvise_advice = advice;
    ((unsigned *)(submissions + parameters.sq_off.array))[slot] = slot;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1U, 1U, IORING_ENTER_GETEVENTS, NULL, 0UL) != 1)
        unable("io_uring_enter");
    unsigned *head = (unsigned *)(completions + parameters.cq_off.head);
    unsigned at_head = *head & *(unsigned *)(completions + parameters.cq_off.ring_mask);
    int result = ((struct io_uring_cqe *)(completions + parameters.cq_off.cqes))[at_head].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

int main(int argc, char **argv) {
    uint8_t *memory = anonymous(4 * PAGES * PAGE);
    ring = (int)syscall(SYS_io_uring_setup, ENTRIES, &parameters);
    if (ring < 0 && (errno == ENOSYS || errno == EPERM)) {
        /* What a kernel with kernel.io_uring_disabled answers; output is as if all was well, since programs fall back. */
        fprintf(stderr, "io_uring is refused: %s\n", strerrorname_np(errno));
        fill(memory, 4 * PAGES, 3);
        evict(memory, 4 * PAGES);
        expect("wrong pages", (long)wrong(memory, 4 * PAGES, 3), 0);
        return 10;
    }
    if (ring < 0)
        unable("io_uring_setup");
    size_t size = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
    submissions = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    completions = mmap(NULL, parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
    entries = mmap(NULL, parameters.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                   IORING_OFF_SQES);
    if (submissions == MAP_FAILED || completions == MAP_FAILED || entries == MAP_FAILED)
        unable("mmap of the ring");
    fill(memory, 4 * PAGES, 3);
    evict(memory, 4 * PAGES);
    int file = memfd_create("case", 0);
    expect("write", one(IORING_OP_WRITE, file, memory, PAGES * PAGE, 0, 0), (long)(PAGES * PAGE));
    expect("read", one(IORING_OP_READ, file, memory + PAGES * PAGE, PAGES * PAGE, 0, 0), (long)(PAGES * PAGE));
    expect("wrong pages", (long)(wrong(memory, PAGES, 3) + wrong(memory + PAGES * PAGE, PAGES, 3)), 0);
    evict(memory, 4 * PAGES);
    struct iovec {
        void *base;
        size_t bytes;
    } fixed = {memory + 2 * PAGES * PAGE, PAGES * PAGE};
    expect_call("register a buffer", syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &fixed, 1U), "done");
    expect("write of it", one(IORING_OP_WRITE_FIXED, file, fixed.base, PAGES * PAGE, 0, 0), (long)(PAGES * PAGE));
    press(120);
    expect("read into it", one(IORING_OP_READ_FIXED, file, fixed.base, PAGES * PAGE, 0, 0), (long)(PAGES * PAGE));
    size_t failed = 0;
    for (size_t i = 0; i < PAGES; i++)
        failed += !holds((uint8_t *)fixed.base + i * PAGE, 2 * PAGES + i, 3);
    expect("wrong pages", (long)failed, 0);
    /* The registered pages are pinned: what the program writes there is what is sent, for as long as they are registered. */
    for (int round = 0; round < 2; round++) {
        fill(fixed.base, PAGES, (uint64_t)(20 + round));
        press(120);
        expect("write of it", one(IORING_OP_WRITE_FIXED, file, fixed.base, PAGES * PAGE, 0, 0), (long)(PAGES * PAGE));
        expect("read elsewhere", one(IORING_OP_READ, file, memory, PAGES * PAGE, 0, 0), (long)(PAGES * PAGE));
        expect("wrong pages", (long)wrong(memory, PAGES, (uint64_t)(20 + round)), 0);
    }
    if (argc < 2 || !is(argv[1], "advice"))
        return verdict();
    fill(memory, PAGES, 3);
    evict(memory, PAGES);
    expect("madvise DONTNEED", one(IORING_OP_MADVISE, -1, memory, PAGES * PAGE, 0, MADV_DONTNEED), 0);
    expect("zero pages", (long)zeros(memory, PAGES), PAGES);
    return verdict();
}

/* madvise calls that Linux refuses, over pages that are out of RAM. What the kernel left must be left, what it dropped before it
 * stopped must read as zeros. */
#include "../case.h"

#define PAGES 16
#define AREAS 16

static uint8_t *areas;
static uint8_t *area(size_t i) { return areas + i * 2 * PAGES * PAGE; }

/* Pages from `from` on must be as they were. */
static void judge(const char *what, const uint8_t *memory, long result, const char *want, size_t from) {
    expect_call(what, result, want);
    size_t lost = 0;
    for (size_t i = from; i < PAGES; i++)
        lost += !holds(memory + i * PAGE, i, 3);
    expect("  pages lost", (long)lost, 0);
    if (from > 0)
        expect("  pages dropped before it", (long)zeros(memory, from), (long)from);
}

int main(void) {
    areas = anonymous(AREAS * 2 * PAGES * PAGE);
    for (size_t i = 0; i < AREAS; i++)
        fill(area(i), PAGES, 3);
    mlock(area(2) + 4 * PAGE, 4 * PAGE);
    mlock(area(3) + 4 * PAGE, 4 * PAGE);
    munmap(area(8) + 4 * PAGE, 4 * PAGE);
    evict(areas, AREAS * 2 * PAGES);

    uint8_t *at = area(0);
    judge("DONTNEED, start not aligned", at, syscall(SYS_madvise, at + 1, 4 * PAGE, MADV_DONTNEED), "EINVAL", 0);
    at = area(1);
    judge("FREE, start not aligned", at, syscall(SYS_madvise, at + 8, 4 * PAGE, MADV_FREE), "EINVAL", 0);
    at = area(2);
    judge("DONTNEED over a locked middle", at, syscall(SYS_madvise, at, PAGES * PAGE, MADV_DONTNEED), "EINVAL", 4);
    at = area(3);
    expect_call("FREE over a locked middle", syscall(SYS_madvise, at, PAGES * PAGE, MADV_FREE), "EINVAL");
    size_t lost = 0;
    for (size_t i = 4; i < PAGES; i++)
        lost += !holds(at + i * PAGE, i, 3);
    expect("  pages lost", (long)lost, 0);
    at = area(4);
    judge("REMOVE of private memory", at, syscall(SYS_madvise, at, PAGES * PAGE, MADV_REMOVE), "EINVAL", 0);
    at = area(5);
    judge("advice that does not exist", at, syscall(SYS_madvise, at, PAGES * PAGE, 9999), "EINVAL", 0);
    at = area(6);
    judge("DONTNEED of nothing", at, syscall(SYS_madvise, at, 0UL, MADV_DONTNEED), "done", 0);
    at = area(7);
    judge("DONTNEED of 100 bytes", at, syscall(SYS_madvise, at, 100UL, MADV_DONTNEED), "done", 1);
    /* Linux goes on behind a hole and says ENOMEM at the end. */
    at = area(8);
    expect_call("DONTNEED over a hole", syscall(SYS_madvise, at, PAGES * PAGE, MADV_DONTNEED), "ENOMEM");
    expect("  pages dropped before it", (long)zeros(at, 4), 4);
    expect("  pages dropped behind it", (long)zeros(at + 8 * PAGE, 8), 8);
    /* A length that wraps; in a child, whose stack may go. */
    at = area(9);
    pid_t child = fork();
    if (child == 0) {
        judge("DONTNEED, length wraps", at, syscall(SYS_madvise, at, (size_t)-4096, MADV_DONTNEED), "EINVAL", 0);
        _exit(verdict());
    }
    expect_child("its process", child, 0);
    at = area(10);
    judge("POPULATE_READ with a length that wraps", at, syscall(SYS_madvise, at, (size_t)-1, MADV_POPULATE_READ), "EINVAL", 0);
    at = area(11);
    mlock(at + 4 * PAGE, 4 * PAGE);
    expect_call("DONTNEED_LOCKED over a locked middle", syscall(SYS_madvise, at, PAGES * PAGE, MADV_DONTNEED_LOCKED), "done");
    expect("  pages dropped", (long)zeros(at, PAGES), PAGES);
    return verdict();
}

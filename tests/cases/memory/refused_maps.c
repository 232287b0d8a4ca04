/* mmap, munmap, mremap and mprotect that Linux refuses, some of them midway. The bytes that are left are those that the kernel
 * leaves; where that depends on its version, the run alone says what is right. */
#include "../case.h"

#define PAGES 16
#define AREAS 24

static uint8_t *areas;
static uint8_t *area(size_t i) { return areas + i * 2 * PAGES * PAGE; }

/* Counts the pages that hold their pattern, that read as zeros and that are not mapped. */
static void describe(const uint8_t *memory, size_t pages, uint64_t tag) {
    size_t kept = 0, zero = 0, gone = 0;
    for (size_t i = 0; i < pages; i++) {
        unsigned char state;
        if (mincore((void *)(memory + i * PAGE), PAGE, &state) != 0)
            gone++;
        else if (holds(memory + i * PAGE, i, tag))
            kept++;
        else
            zero += is_zero(memory + i * PAGE);
    }
    say("  kept %zu, zero %zu, not mapped %zu, anything else %zu", kept, zero, gone, pages - kept - zero - gone);
}

static void kept(const char *what, const uint8_t *memory, long result, const char *want) {
    expect_call(what, result, want);
    expect("  pages lost", (long)wrong(memory, PAGES, 3), 0);
}

int main(void) {
    areas = anonymous(AREAS * 2 * PAGES * PAGE);
    for (size_t i = 0; i < AREAS; i++)
        fill(area(i), PAGES, 3);
    munmap(area(10) + 8 * PAGE, PAGE);
    munmap(area(11) + 8 * PAGE, PAGE);
    evict(areas, AREAS * 2 * PAGES);
    const size_t bytes = PAGES * PAGE;
    int prot = PROT_READ | PROT_WRITE, fixed = MAP_PRIVATE | MAP_FIXED;

    kept("munmap, start not aligned", area(0), munmap(area(0) + 1, PAGE), "EINVAL");
    kept("munmap of nothing", area(0), munmap(area(0), 0), "EINVAL");
    kept("munmap, length wraps", area(0), munmap(area(0), (size_t)-8192), "EINVAL");
    kept("mmap of a descriptor that is closed", area(1), (long)mmap(area(1), bytes, prot, fixed, 1000, 0), "EBADF");
    kept("mmap of nothing", area(1), (long)mmap(area(1), 0, prot, fixed | MAP_ANONYMOUS, -1, 0), "EINVAL");
    kept("mmap, address not aligned", area(1), (long)mmap(area(1) + 7, bytes, prot, fixed | MAP_ANONYMOUS, -1, 0), "EINVAL");
    int null = open("/dev/null", O_WRONLY);
    kept("mmap of a write-only file", area(2), (long)mmap(area(2), bytes, prot, fixed, null, 0), "EACCES");
    kept("mmap, offset not aligned", area(3), (long)mmap(area(3), bytes, prot, fixed, null, 1), "EINVAL");
    kept("mmap FIXED_NOREPLACE", area(4),
         (long)mmap(area(4), bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), "EEXIST");
    int directory = open("/", O_RDONLY | O_DIRECTORY);
    void *mapped = mmap(area(5), bytes, PROT_READ, fixed, directory, 0);
    say("mmap of a directory: %s", result_name((long)mapped));
    describe(area(5), PAGES, 3);
    int pipes[2];
    if (pipe(pipes) != 0)
        unable("pipe");
    mapped = mmap(area(6), bytes, PROT_READ, fixed, pipes[0], 0);
    say("mmap of a pipe: %s", result_name((long)mapped));
    describe(area(6), PAGES, 3);

    kept("mremap, start not aligned", area(7), (long)mremap(area(7) + 1, bytes, 2 * bytes, MREMAP_MAYMOVE), "EINVAL");
    kept("mremap to nothing", area(7), (long)mremap(area(7), bytes, 0, MREMAP_MAYMOVE), "EINVAL");
    kept("mremap FIXED without MAYMOVE", area(7), (long)mremap(area(7), bytes, bytes, MREMAP_FIXED, area(8)), "EINVAL");
    kept("mremap onto itself", area(7), (long)mremap(area(7), bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, area(7) + 4 * PAGE),
         "EINVAL");
    kept("mremap DONTUNMAP with another size", area(8),
         (long)mremap(area(8), bytes, bytes / 2, MREMAP_MAYMOVE | MREMAP_DONTUNMAP), "EINVAL");
    kept("mremap in place over a neighbour", area(8), (long)mremap(area(8), bytes, 4 * bytes, 0), "ENOMEM");
    kept("mremap with a flag that does not exist", area(9), (long)mremap(area(9), bytes, bytes, 64), "EINVAL");

    mapped = mremap(area(10), bytes, 2 * bytes, MREMAP_MAYMOVE);
    say("mremap over a hole: %s", result_name((long)mapped));
    describe(area(10), PAGES, 3);
    mapped = mremap(area(11), bytes, 2 * bytes, MREMAP_MAYMOVE | MREMAP_FIXED, area(12));
    say("mremap FIXED over a hole: %s", result_name((long)mapped));
    describe(area(11), PAGES, 3);
    describe(area(12), PAGES, 3);

    long result = mprotect(area(10), bytes, PROT_READ);
    say("mprotect over a hole: %s", result_name(result));
    describe(area(10), PAGES, 3);
    kept("mprotect with bits that do not exist", area(13), mprotect(area(13), bytes, 0x40000000), "EINVAL");

    /* Memory that is sealed (Linux 6.10) keeps its bytes against all of them. */
    uint8_t *sealed = area(14);
    mprotect(sealed, bytes, PROT_READ);
    result = syscall(462, sealed, bytes, 0UL);
    say("mseal: %s", result_name(result));
    evict(sealed, PAGES);
    if (result == 0) {
        kept("munmap of what is sealed", sealed, munmap(sealed, bytes), "EPERM");
        kept("DONTNEED of what is sealed", sealed, madvise(sealed, bytes, MADV_DONTNEED), "EPERM");
        kept("mmap over what is sealed", sealed, (long)mmap(sealed, bytes, prot, fixed | MAP_ANONYMOUS, -1, 0), "EPERM");
        kept("mremap of what is sealed", sealed, (long)mremap(sealed, bytes, 2 * bytes, MREMAP_MAYMOVE), "EPERM");
        kept("mremap over what is sealed", sealed, (long)mremap(area(16), bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, sealed),
             "EPERM");
        describe(area(16), PAGES, 3);
    }
    return verdict();
}

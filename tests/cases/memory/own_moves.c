/* A program moves pages of ordinary memory, in RAM or not, into memory that it watches by a userfaultfd of its own, as a collector
 * does: what arrives is right, and zeros are left. */
#include "../case.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#define PAGES (100 * PAGES_OF_MIB)
#define MOVED 256UL

/* `UFFDIO_MOVE` (Linux 6.8), which older headers lack. */
struct move {
    uint64_t to, from, length, mode;
    int64_t moved;
};
#define MOVE _IOWR(0xAA, 5, struct move)
#define FEATURE_MOVE (1 << 16)

int main(void) {
    int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API, .features = FEATURE_MOVE};
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0)
        unable("userfaultfd");
    uint8_t *from = anonymous(PAGES * PAGE), *to = anonymous(MOVED * PAGE);
    struct uffdio_register all = {.range = {(uintptr_t)to, MOVED * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    expect_call("UFFDIO_REGISTER", ioctl(faults, UFFDIO_REGISTER, &all), "done");
    fill(from, PAGES, 3);
    size_t step = PAGES / MOVED, failed = 0, bad = 0, left = 0;
    for (size_t i = 0; i < MOVED; i++) {
        struct move one = {.to = (uintptr_t)(to + i * PAGE), .from = (uintptr_t)(from + i * step * PAGE), .length = PAGE};
        failed += ioctl(faults, MOVE, &one) != 0;
    }
    expect("moves that failed", (long)failed, 0);
    for (size_t i = 0; i < MOVED && failed == 0; i++) {
        bad += !holds(to + i * PAGE, i * step, 3);
        left += !is_zero(from + i * step * PAGE);
        for (size_t k = 1; k < step; k += 7)
            bad += !holds(from + (i * step + k) * PAGE, i * step + k, 3);
    }
    expect("wrong pages", (long)bad, 0);
    expect("pages that were left", (long)left, 0);
    return verdict();
}

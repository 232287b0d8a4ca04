/* What a child does not inherit (MADV_WIPEONFORK, MADV_DONTFORK) is a mark of a mapping, and mappings move.
 *
 * Marked ranges are unmapped, partly replaced, moved and shrunk; then their old addresses are used for something else. Children
 * must see what the marks say of the mappings that are there, whether the pages were evicted or not.
 */
#define _GNU_SOURCE
#include "race.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILLED = 60, MOVED = 61, PIECE = 62 };

static size_t pages;

static void must_be_zeros(const uint8_t *at, size_t count, const char *where) {
    for (size_t i = 0; i < count * PAGE; i++) {
        if (at[i] != 0)
            wrong("%s: byte %zu is %02x in a wiped mapping", where, i, at[i]);
    }
}

static void mark(void *at, size_t count, int advice) {
    if (madvise(at, count * PAGE, advice) != 0)
        cannot("madvise");
}

static uint8_t *move_to(uint8_t *from, uint8_t *to) {
    uint8_t *now = mremap(from, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    if (now != to)
        cannot("mremap");
    return now;
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    pages = race_bytes / 8 / PAGE;
    pthread_t pressure = race_pressure(race_bytes / 2, 1);
    unsigned round = 0;
    do {
        round++;
        /* Its mark ends with it: something else moves to its address. */
        uint8_t *gone = race_map(pages * PAGE);
        uint8_t *kept = race_map(pages * PAGE);
        race_fill(kept, pages, FILLED, 1);
        mark(gone, pages, round % 2 == 0 ? MADV_WIPEONFORK : MADV_DONTFORK);
        munmap(gone, pages * PAGE);
        kept = move_to(kept, gone);

        /* Its mark goes where it goes. */
        uint8_t *wiped = race_map(pages * PAGE);
        uint8_t *hole = race_map(pages * PAGE);
        race_fill(wiped, pages, MOVED, 1);
        mark(wiped, pages, MADV_WIPEONFORK);
        uint8_t *reused = wiped;
        wiped = move_to(wiped, hole);
        reused = mmap(reused, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (reused == MAP_FAILED)
            cannot("mmap");
        race_fill(reused, pages, FILLED, 2);

        /* A piece of it is replaced: the rest keeps the mark. */
        uint8_t *split = race_map(pages * PAGE);
        race_fill(split, pages, MOVED, 3);
        mark(split, pages, MADV_WIPEONFORK);
        size_t piece = pages / 2;
        if (mmap(split + PAGE, piece * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            cannot("mmap");
        race_fill(split + PAGE, piece, PIECE, 1);

        pid_t child = fork();
        if (child < 0)
            cannot("fork");
        if (child == 0) {
            race_check(kept, pages, FILLED, 1, "child, moved to where a marked mapping was");
            race_check(reused, pages, FILLED, 2, "child, mapped where a marked mapping was");
            race_check(split + PAGE, piece, PIECE, 1, "child, a piece without the mark");
            must_be_zeros(wiped, pages, "child, moved with its mark");
            must_be_zeros(split, 1, "child, before the piece");
            must_be_zeros(split + (piece + 1) * PAGE, pages - piece - 1, "child, behind the piece");
            _exit(0);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0)
            wrong("child %d: wait status %x", (int)child, (unsigned)status);
        race_check(wiped, pages, MOVED, 1, "parent, moved");
        for (size_t i = piece + 1; i < pages; i++)
            page_check(split + i * PAGE, (struct page_name){1, MOVED, (uint32_t)i, 3}, "parent, behind the piece");
        munmap(kept, pages * PAGE);
        munmap(reused, pages * PAGE);
        munmap(wiped, pages * PAGE);
        munmap(split, pages * PAGE);
        race_checks += pages * 6;
    } while (!race_over());
    pthread_join(pressure, NULL);
    race_ok();
}

/* 4. A copy across the boundary of a mapping fails: fault-around that ignores boundaries never gets further, or skips pages.
 *
 * Memory of many tiny mappings (1 to 17 pages, alternately writable, read-only and unmapped), whose boundaries move all the time,
 * is swept in order, backwards and at random. Every sweep must end: the count of sweeps is printed, none is an error.
 */
#define _GNU_SOURCE
#include "race.h"

#include <stdio.h>
#include <sys/mman.h>

#define THREADS 2

static _Atomic uint64_t sweeps;

static void *sweep(void *argument) {
    uint32_t region = 30 + (uint32_t)(uintptr_t)argument;
    uint64_t state = region;
    const size_t pages = race_bytes / 2 / THREADS / PAGE;
    uint8_t *base = race_map(pages * PAGE);
    bool *gone = race_map(pages);
    race_fill(base, pages, region, 1);
    do {
        /* The limit of mappings for a process is 65530: far more than this makes. */
        for (size_t i = 0; i < pages; ) {
            size_t count = 1 + random_next(&state) % 17;
            if (count > pages - i)
                count = pages - i;
            uint64_t what = random_next(&state) % 16;
            uint8_t *at = base + i * PAGE;
            if (what == 0) {
                if (mmap(at, count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
                    cannot("mmap none");
                for (size_t k = i; k < i + count; k++)
                    gone[k] = true;
            } else if (!gone[i]) {
                size_t k = i;
                while (k < i + count && !gone[k])
                    k++;
                if (mprotect(at, (k - i) * PAGE, what % 2 ? PROT_READ : PROT_READ | PROT_WRITE) != 0)
                    cannot("mprotect");
            }
            i += count * (1 + random_next(&state) % 8);
        }
        bool backwards = random_next(&state) % 2;
        for (size_t k = 0; k < pages; k++) {
            size_t i = backwards ? pages - 1 - k : k;
            if (!gone[i]) {
                page_check(base + i * PAGE, (struct page_name){1, region, (uint32_t)i, 1}, "sweep");
                race_checks++;
            }
        }
        sweeps++;
        if (mprotect(base, pages * PAGE, PROT_READ | PROT_WRITE) != 0)
            cannot("mprotect all");
        for (size_t i = 0; i < pages; i++) {
            if (gone[i]) {
                page_check(base + i * PAGE, (struct page_name){1, region, (uint32_t)i, 0}, "mapped again");
                page_fill(base + i * PAGE, (struct page_name){1, region, (uint32_t)i, 1});
                gone[i] = false;
            }
        }
    } while (!race_over());
    return NULL;
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    pthread_t pressure = race_pressure(race_bytes / 2, 1);
    race_threads(sweep, THREADS);
    pthread_join(pressure, NULL);
    printf("sweeps %llu\n", (unsigned long long)sweeps);
    race_ok();
}

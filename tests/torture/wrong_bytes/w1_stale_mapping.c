/* 1. Eviction from a list of mappings that is stale: fresh mappings at addresses that were others a moment ago.
 *
 * Threads unmap and map again slots at fixed addresses as fast as they can, write them, look at once and a little later. A pager
 * that evicts by an old list moves pages out of a mapping that it does not watch yet, and the kernel hands out zeros for them; one
 * that handles the unmapping late forgets pages of the new mapping.
 */
#define _GNU_SOURCE
#include "race.h"

#include <sys/mman.h>
#include <unistd.h>

#define SLOTS 16
#define THREADS 3

static uint8_t *arena;
static size_t slot_pages;

static void *churn(void *argument) {
    uint32_t thread = (uint32_t)(uintptr_t)argument;
    uint64_t state = thread + 77;
    uint32_t version = 0;
    uint32_t versions[SLOTS] = {0};
    while (!race_over()) {
        uint32_t slot = (uint32_t)(random_next(&state) % SLOTS);
        uint32_t region = thread * SLOTS + slot + 10;
        uint8_t *at = arena + (thread * SLOTS + slot) * slot_pages * PAGE;
        if (versions[slot] != 0)
            race_check(at, slot_pages, region, versions[slot], "before unmap");
        if (random_next(&state) % 2 == 0) {
            /* The hole is real only for a moment: a PROT_NONE mapping keeps others out of the address range. */
            if (mmap(at, slot_pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != at)
                cannot("mmap none");
        } else if (munmap(at, slot_pages * PAGE) != 0) {
            cannot("munmap");
        }
        if (mmap(at, slot_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
            cannot("mmap again");
        version++;
        size_t half = slot_pages / 2;
        race_fill(at, half, region, version);
        race_check(at, half, region, version, "just written");
        race_check(at + half * PAGE, 1, 0, 0, "fresh page");
        race_fill(at, slot_pages, region, version);
        race_check(at, slot_pages, region, version, "written again");
        versions[slot] = version;
    }
    return NULL;
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    slot_pages = race_bytes / 2 / PAGE / (SLOTS * THREADS);
    size_t bytes = slot_pages * PAGE * SLOTS * THREADS;
    /* Other threads' stacks and arenas must not land in the holes: they are made before, and the arena's ends are guarded. */
    pthread_t pressure = race_pressure(race_bytes / 2, 1);
    usleep(100000);
    arena = race_map(bytes);
    race_threads(churn, THREADS);
    pthread_join(pressure, NULL);
    race_ok();
}

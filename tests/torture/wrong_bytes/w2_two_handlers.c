/* 2. The program goes on when an event is read: another handler can then serve a page that the event made invalid.
 *
 * One thread discards or moves pages, the others wait at a barrier and read those very pages in the same instant, all at once.
 * Whoever is served an old page sees data where there must be zeros.
 */
#define _GNU_SOURCE
#include "race.h"

#include <sys/mman.h>

#define READERS 2
#define PAGES 64

static uint8_t *arena;
static _Atomic uint64_t round_number;
static _Atomic uint64_t readers_done;
static size_t arena_pages;
static _Atomic size_t window;

static void *read_all(void *argument) {
    uint64_t seen = 0, state = (uintptr_t)argument + 5;
    for (;;) {
        while (round_number == seen) {
            if (race_over())
                return NULL;
        }
        seen = round_number;
        uint8_t *at = arena + window * PAGE;
        for (size_t i = 0; i < PAGES; i++) {
            size_t page = (i + random_next(&state)) % PAGES;
            page_check(at + page * PAGE, (struct page_name){0, 0, 0, 0}, "discarded page read at once");
        }
        race_checks += PAGES;
        readers_done++;
    }
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    arena_pages = race_bytes / 2 / PAGE / PAGES * PAGES;
    arena = race_map(arena_pages * PAGE);
    race_fill(arena, arena_pages, 2, 1);
    pthread_t pressure = race_pressure(race_bytes / 2, 1);
    pthread_t readers[READERS];
    for (uintptr_t i = 0; i < READERS; i++)
        readers[i] = race_thread(read_all, (void *)i);
    uint64_t state = 9;
    uint32_t turn = 0;
    uint32_t *versions = race_map(arena_pages / PAGES * sizeof *versions);
    while (!race_over()) {
        size_t index = random_next(&state) % (arena_pages / PAGES);
        uint8_t *at = arena + index * PAGES * PAGE;
        /* Windows are checked, discarded, read by all, and written again. */
        for (size_t i = 0; i < PAGES; i++)
            page_check(at + i * PAGE, (struct page_name){1, 2, (uint32_t)(index * PAGES + i), versions[index] + 1}, "window");
        switch (turn++ % 3) {
        case 0:
            if (madvise(at, PAGES * PAGE, MADV_DONTNEED) != 0)
                cannot("madvise");
            break;
        case 1:
            if (mmap(at, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
                cannot("mmap fixed");
            break;
        default: {
            uint8_t *away = race_map(PAGES * PAGE);
            if (mremap(at, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, away) != away)
                cannot("mremap");
            if (mmap(at, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
                cannot("mmap fixed after mremap");
            munmap(away, PAGES * PAGE);
        }
        }
        window = index * PAGES;
        readers_done = 0;
        round_number++;
        while (readers_done < READERS && !race_over()) {
        }
        if (race_over())
            break;
        versions[index]++;
        for (size_t i = 0; i < PAGES; i++)
            page_fill(at + i * PAGE, (struct page_name){1, 2, (uint32_t)(index * PAGES + i), versions[index] + 1});
    }
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    pthread_join(pressure, NULL);
    race_ok();
}

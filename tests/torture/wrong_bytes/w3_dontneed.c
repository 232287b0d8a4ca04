/* 3. The discard is announced before it happens: a page moved out in that window comes back with its old data.
 *
 * Threads discard pages (MADV_DONTNEED, MADV_FREE) that the pager is busy evicting, and look at them at once, soon and late: they
 * must be zeros and stay so (for MADV_FREE old or zeros, but once zeros, always zeros).
 */
#define _GNU_SOURCE
#include "race.h"

#include <sys/mman.h>
#include <unistd.h>

#define THREADS 2

static void *discard(void *argument) {
    uint32_t region = 20 + (uint32_t)(uintptr_t)argument;
    uint64_t state = region;
    const size_t pages = race_bytes / 2 / THREADS / PAGE;
    uint8_t *base = race_map(pages * PAGE);
    uint32_t version = 1;
    race_fill(base, pages, region, version);
    while (!race_over()) {
        size_t first = random_next(&state) % (pages - 256);
        size_t count = 1 + random_next(&state) % 255;
        uint8_t *at = base + first * PAGE;
        bool lazy = random_next(&state) % 3 == 0;
        if (madvise(at, count * PAGE, lazy ? MADV_FREE : MADV_DONTNEED) != 0)
            cannot("madvise");
        bool zero[256] = {false};
        for (int look = 0; look < 3; look++) {
            for (size_t i = 0; i < count; i++) {
                struct page_name name = {1, region, (uint32_t)(first + i), version};
                const uint8_t *page = at + i * PAGE;
                if (lazy && !zero[i]) {
                    zero[i] = page_is_zero(page);
                    if (!zero[i] && !page_is(page, name) && !(zero[i] = page_is_zero(page)))
                        page_check(page, name, "freed page: neither old nor zeros");
                    continue;
                }
                name.version = 0;
                page_check(page, name, lazy ? "freed page: zeros, then not" : "discarded page");
            }
            race_checks += count;
            usleep(look == 0 ? 50 : 2000);
        }
        for (size_t i = 0; i < count; i++)
            page_fill(at + i * PAGE, (struct page_name){1, region, (uint32_t)(first + i), version});
        size_t look = random_next(&state) % (pages - 64);
        for (size_t i = look; i < look + 64; i++)
            page_check(base + i * PAGE, (struct page_name){1, region, (uint32_t)i, version}, "kept page");
    }
    race_check(base, pages, region, version, "at the end");
    return NULL;
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    pthread_t pressure = race_pressure(race_bytes / 2, 1);
    race_threads(discard, THREADS);
    pthread_join(pressure, NULL);
    race_ok();
}

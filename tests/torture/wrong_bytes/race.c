/* What these programs share: see race.h. */
#define _GNU_SOURCE
#include "race.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

uint64_t race_end_ns;
uint64_t race_bytes = (uint64_t)64 << 20;
_Atomic uint64_t race_checks;

void race_options(int argc, char **argv) {
    double seconds = 5;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0)
            seconds = atof(argv[i + 1]);
        else if (strcmp(argv[i], "--bytes") == 0)
            race_bytes = parse_size(argv[i + 1]);
    }
    race_end_ns = now_ns() + (uint64_t)(seconds * 1e9);
}

bool race_over(void) { return now_ns() >= race_end_ns; }

void *race_map(size_t bytes) {
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        cannot("mmap");
    return base;
}

pthread_t race_thread(void *(*run)(void *), void *argument) {
    pthread_t thread;
    errno = pthread_create(&thread, NULL, run, argument);
    if (errno != 0)
        cannot("pthread_create");
    return thread;
}

void race_threads(void *(*run)(void *), unsigned count) {
    pthread_t threads[count];
    for (uintptr_t i = 0; i < count; i++)
        threads[i] = race_thread(run, (void *)i);
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

struct pressure {
    size_t pages;
    uint32_t region;
};

static void *press(void *argument) {
    struct pressure pressure = *(struct pressure *)argument;
    free(argument);
    uint8_t *base = race_map(pressure.pages * PAGE);
    uint32_t *versions = race_map(pressure.pages * sizeof *versions);
    uint64_t state = pressure.region;
    struct page_name name = {1, pressure.region, 0, 1};
    for (name.page = 0; name.page < pressure.pages && !race_over(); name.page++) {
        versions[name.page] = 1;
        page_fill(base + name.page * PAGE, name);
    }
    while (!race_over()) {
        name.page = (uint32_t)(random_next(&state) % pressure.pages);
        name.version = versions[name.page];
        page_check(base + name.page * PAGE, name, "pressure");
        race_checks++;
        if (random_next(&state) % 4 == 0) {
            name.version = ++versions[name.page];
            page_fill(base + name.page * PAGE, name);
        }
    }
    return NULL;
}

pthread_t race_pressure(size_t bytes, uint32_t region) {
    struct pressure *pressure = malloc(sizeof *pressure);
    if (pressure == NULL)
        cannot("malloc");
    *pressure = (struct pressure){bytes / PAGE, region};
    return race_thread(press, pressure);
}

void race_fill(uint8_t *base, size_t pages, uint32_t region, uint32_t version) {
    for (size_t i = 0; i < pages; i++)
        page_fill(base + i * PAGE, (struct page_name){1, region, (uint32_t)i, version});
}

void race_check(const uint8_t *base, size_t pages, uint32_t region, uint32_t version, const char *where) {
    for (size_t i = 0; i < pages; i++)
        page_check(base + i * PAGE, (struct page_name){1, region, (uint32_t)i, version}, where);
    race_checks += pages;
}

void race_ok(void) {
    printf("ok: %llu checks\n", (unsigned long long)race_checks);
    exit(0);
}

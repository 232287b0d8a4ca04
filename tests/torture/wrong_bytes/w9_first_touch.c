/* 9. First touches: memory that appears faster than a pager notices new mappings.
 *
 * Threads and child processes map, touch everything at full speed, check and unmap, again and again; also by the break, by
 * MAP_POPULATE and by huge pages. The budget is watched from outside; here only the bytes are checked.
 */
#define _GNU_SOURCE
#include "race.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 2

static void storm(uint32_t region, size_t bytes, unsigned turn) {
    size_t pages = bytes / PAGE;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (turn % 4 == 1 ? MAP_POPULATE : 0);
    uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (at == MAP_FAILED)
        cannot("mmap");
    if (turn % 4 == 2)
        (void)madvise(at, bytes, MADV_HUGEPAGE);
    /* The fastest touch is one word a page; the rest of the page stays zeros. */
    for (size_t i = 0; i < pages; i++)
        *(volatile uint64_t *)(at + i * PAGE) = (uint64_t)region << 32 | i;
    for (size_t i = 0; i < pages; i++) {
        uint64_t *words = (uint64_t *)(at + i * PAGE);
        uint64_t got = words[0], expected = (uint64_t)region << 32 | i;
        if (got != expected || words[511] != 0 || words[1 + i % 510] != 0)
            wrong("first touch: region %u page %zu expected %llx got %llx", region, i, (unsigned long long)expected,
                  (unsigned long long)got);
    }
    race_checks += pages;
    if (munmap(at, bytes) != 0)
        cannot("munmap");
}

static void *storms(void *argument) {
    uint32_t region = 90 + (uint32_t)(uintptr_t)argument;
    for (unsigned turn = 0; !race_over(); turn++)
        storm(region, race_bytes / THREADS / (turn % 3 + 1), turn);
    return NULL;
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = race_thread(storms, (void *)i);
    for (unsigned turn = 0; !race_over(); turn++) {
        pid_t child = fork();
        if (child < 0)
            cannot("fork");
        if (child == 0) {
            storm(95, race_bytes / 2, turn);
            _exit(0);
        }
        int status;
        while (waitpid(child, &status, 0) != child) {
            if (errno != EINTR)
                cannot("waitpid");
        }
        if (status != 0)
            wrong("child %d: wait status %x", (int)child, (unsigned)status);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    race_ok();
}

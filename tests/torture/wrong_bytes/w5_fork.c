/* 5. fork with evicted pages: without the parent's swapped-out state the child reads silent zeros.
 *
 * A multi-threaded parent whose pages are mostly evicted forks again and again. Children verify everything, change their copies,
 * grow, fork grandchildren and may outlive the round; the parent writes meanwhile. Nobody may see another's writes or zeros.
 */
#define _GNU_SOURCE
#include "race.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t *shared;
static size_t pages;
static uint32_t *versions;

static void check_all(const char *where) {
    for (size_t i = 0; i < pages; i++)
        page_check(shared + i * PAGE, (struct page_name){1, 40, (uint32_t)i, versions[i]}, where);
}

static void rewrite(uint64_t *state, size_t count) {
    for (size_t k = 0; k < count; k++) {
        size_t i = random_next(state) % pages;
        versions[i]++;
        page_fill(shared + i * PAGE, (struct page_name){1, 40, (uint32_t)i, versions[i]});
    }
}

_Noreturn static void child(unsigned depth, uint64_t seed) {
    for (;;) {
        uint64_t state = seed;
        /* Half of the children begin by writing, half by reading: both kinds of first touch of an evicted shared page. */
        if (seed % 2 == 0)
            rewrite(&state, pages / 8);
        check_all("child");
        rewrite(&state, pages / 4);
        size_t own_pages = pages / 4;
        uint8_t *own = race_map(own_pages * PAGE);
        race_fill(own, own_pages, 41 + depth, 1);
        pid_t grandchild = depth > 0 ? fork() : -1;
        if (grandchild == 0) {
            race_check(own, own_pages, 41 + depth, 1, "grandchild sees the child's own");
            depth--;
            seed++;
            continue;
        }
        check_all("child, changed");
        race_check(own, own_pages, 41 + depth, 1, "child's own");
        if (grandchild > 0) {
            int status;
            if (waitpid(grandchild, &status, 0) != grandchild || status != 0)
                wrong("grandchild %d: wait status %x", (int)grandchild, (unsigned)status);
        }
        _exit(0);
    }
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    pages = race_bytes / 2 / PAGE;
    shared = race_map(pages * PAGE);
    versions = race_map(pages * sizeof *versions);
    uint64_t state = 3;
    for (size_t i = 0; i < pages; i++)
        versions[i] = 1;
    race_fill(shared, pages, 40, 1);
    pthread_t pressure = race_pressure(race_bytes / 4, 1);
    uint64_t forks = 0;
    do {
        pid_t children[2];
        for (int i = 0; i < 2; i++) {
            children[i] = fork();
            if (children[i] < 0)
                cannot("fork");
            if (children[i] == 0)
                child(i == 0 ? 1 : 0, ++forks * 2 + (uint64_t)i);
            rewrite(&state, pages / 16);
        }
        check_all("parent during");
        for (int i = 0; i < 2; i++) {
            int status;
            while (waitpid(children[i], &status, 0) != children[i]) {
                if (errno != EINTR)
                    cannot("waitpid");
            }
            if (status != 0)
                wrong("child %d: wait status %x", (int)children[i], (unsigned)status);
        }
        check_all("parent after");
        rewrite(&state, pages / 16);
        race_checks += pages * 5;
        forks++;
    } while (!race_over());
    pthread_join(pressure, NULL);
    race_ok();
}

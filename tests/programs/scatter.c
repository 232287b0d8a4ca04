/* Touches more memory than it may have in a random order, checks every page, and says how long the longest touch took.
 *
 *     scatter --bytes SIZE --until FILE [--seconds N] [--marked]
 *
 * Fills SIZE bytes with pages that do not compress and prints "ready". Then it makes passes: each visits all pages once in a random
 * order, checks all of their bytes and writes a new version of every eighth. After each it prints "pass" and the longest touch of it
 * in microseconds. A pass after FILE is there, or after N seconds, is the last; it ends with "held". A wrong byte ends it with
 * status 1. --marked puts the text of MARK into each page.
 */
#define _GNU_SOURCE
#include "../torture/content.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORDS (PAGE / sizeof(uint64_t))
#define MARK "zcache test plaintext mark"

static bool marked;

static void fill(uint64_t *page, uint64_t number, uint32_t version) {
    uint64_t state = number << 32 ^ version;
    for (size_t i = 0; i < WORDS; i++)
        page[i] = random_next(&state);
    if (marked)
        memcpy(page + WORDS / 2, MARK, sizeof MARK - 1);
}

static void check(const uint64_t *page, uint64_t number, uint32_t version) {
    uint64_t expected[WORDS];
    fill(expected, number, version);
    for (size_t i = 0; i < WORDS; i++) {
        if (page[i] != expected[i])
            wrong("scatter: WRONG page %llu version %u word %zu: expected %016llx got %016llx", (unsigned long long)number, version, i,
                  (unsigned long long)expected[i], (unsigned long long)page[i]);
    }
}

/* One pass in the order of a shuffle; the longest first touch in nanoseconds. */
static uint64_t pass(uint64_t *base, uint32_t *order, uint32_t *versions, uint64_t pages, uint64_t *state) {
    for (uint64_t i = pages; i > 1; i--) {
        uint64_t other = random_next(state) % i;
        uint32_t kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
    uint64_t longest = 0;
    for (uint64_t k = 0; k < pages; k++) {
        uint32_t number = order[k];
        uint64_t *page = base + number * WORDS;
        uint64_t start = now_ns();
        (void)*(volatile uint64_t *)page;
        uint64_t took = now_ns() - start;
        if (took > longest)
            longest = took;
        check(page, number, versions[number]);
        if (k % 8 == 0)
            fill(page, number, ++versions[number]);
    }
    return longest;
}

int main(int argc, char **argv) {
    uint64_t bytes = 0, seconds = 120;
    const char *until = NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--marked") == 0) {
            marked = true;
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--bytes") == 0)
            bytes = parse_size(value);
        else if (strcmp(argv[i - 1], "--until") == 0)
            until = value;
        else if (strcmp(argv[i - 1], "--seconds") == 0)
            seconds = strtoull(value, NULL, 10);
        else
            return 2;
    }
    uint64_t pages = bytes / PAGE;
    if (pages == 0 || until == NULL)
        return 2;
    uint64_t *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *order = malloc(pages * sizeof *order);
    uint32_t *versions = calloc(pages, sizeof *versions);
    if (base == MAP_FAILED || order == NULL || versions == NULL)
        cannot("mmap");
    for (uint64_t i = 0; i < pages; i++) {
        order[i] = (uint32_t)i;
        fill(base + i * WORDS, i, 0);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    uint64_t end = now_ns() + seconds * 1000000000ull, state = 7;
    for (bool last = false; !last;) {
        last = access(until, F_OK) == 0 || now_ns() > end;
        printf("pass %llu\n", (unsigned long long)(pass(base, order, versions, pages, &state) / 1000));
    }
    puts("held");
    return 0;
}

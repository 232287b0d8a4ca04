/* Holds pages of kinds that can be counted, and tells how long it was ever kept from running.
 *
 *     contents SAME DUPLICATE RANDOM TEXT
 *
 * Writes so many pages of each kind: of one repeated non-zero word, copies of one random page, random pages that no codec
 * shrinks, and pages of words that each codec shrinks. Prints "ready" and reads them again and again until its standard input
 * ends; then prints the longest time between two looks at the clock, in microseconds.
 */
#define _GNU_SOURCE
#include "../torture/content.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

int main(int argc, char **argv) {
    uint64_t counts[4] = {0}, pages = 0;
    if (argc != 5)
        return 2;
    for (int i = 0; i < 4; i++)
        pages += counts[i] = strtoull(argv[i + 1], NULL, 10);
    uint64_t *base = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return 2;
    const size_t words = PAGE / sizeof *base;
    uint64_t *page = base, state = 1, same_state = 7;
    for (int kind = 0; kind < 4; kind++) {
        for (uint64_t i = 0; i < counts[kind]; i++, page += words) {
            uint64_t word = random_next(&state) | 1, copied = same_state;
            for (size_t at = 0; at < words; at++) {
                switch (kind) {
                case 0: page[at] = word; break;
                case 1: page[at] = random_next(&copied); break;
                case 2: page[at] = random_next(&state); break;
                default: page[at] = at % 4 == 0 ? word + at : 0x2020656761702061ull;
                }
            }
        }
    }
    puts("ready");
    fflush(stdout);
    uint64_t last = now_us(), longest = 0, sum = 0;
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    for (uint64_t at = 0; poll(&input, 1, 0) == 0; at++) {
        for (size_t i = 0; i < 64; i++)
            sum += base[(at * 64 + i) % pages * words];
        uint64_t time = now_us();
        if (time - last > longest)
            longest = time - last;
        last = time;
    }
    printf("%llu%s\n", (unsigned long long)longest, sum == 0 ? " " : "");
    return 0;
}

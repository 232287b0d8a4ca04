/* Fills argv[1] MiB with pages that shrink to about a third and rewrites random ones for argv[2] seconds. */
#include "../case.h"

static void make(uint8_t *page, uint64_t i) {
    uint64_t *words = (uint64_t *)page, state = i * 2654435761u + 1;
    for (int k = 0; k < 512; k++) {
        if (k < 170) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        words[k] = k < 170 ? state : i;
    }
}

int main(int argc, char **argv) {
    size_t pages = (argc > 1 ? (size_t)atoi(argv[1]) : 400) * PAGES_OF_MIB, failed = 0, rewritten = 0;
    uint8_t *memory = anonymous(pages * PAGE), want[PAGE];
    for (size_t i = 0; i < pages; i++)
        make(memory + i * PAGE, i);
    say("filled");
    unsigned seed = 1;
    for (double end = now() + (argc > 2 ? atof(argv[2]) : 10); now() < end; rewritten++) {
        size_t i = (size_t)rand_r(&seed) % pages;
        make(want, i);
        failed += memcmp(memory + i * PAGE, want, PAGE) != 0;
        make(memory + i * PAGE, i);
    }
    fprintf(stderr, "%zu pages rewritten\n", rewritten);
    expect("wrong pages", (long)failed, 0);
    return verdict();
}

/* A sweep in X brings pages of Y along, which are stored next to them; meanwhile another thread moves S over Y. Y must be S's
 * data then: no thread touches Y before the move has returned. The mode "merge" lets the moved mapping join its neighbour's. */
#include "../case.h"

#define PAGES 64
#define SETS 100

static uint8_t *volatile swept;
static _Atomic int go, done;

static void *sweep(void *unused) {
    (void)unused;
    for (;;) {
        while (!go) {
            if (done)
                return NULL;
        }
        for (size_t i = 20; i < PAGES; i++)
            *(volatile uint8_t *)(swept + i * PAGE);
        go = 0;
    }
}

int main(int argc, char **argv) {
    bool merge = is(mode(argc, argv), "merge");
    size_t failed = 0, old = 0, zero = 0;
    unsigned seed = 1;
    uint8_t *range[SETS], *source[SETS];
    pthread_t thread;
    pthread_create(&thread, NULL, sweep, NULL);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < SETS; i++) {
            range[i] = anonymous(2 * PAGES * PAGE);
            if (!merge) {
                source[i] = anonymous(PAGES * PAGE);
                fill(source[i], PAGES, 22);
            } else {
                /* The source lies just behind what it moves over, so that both have the same page offset and can merge. */
                munmap(range[i], 2 * PAGES * PAGE);
                range[i] = anonymous(3 * PAGES * PAGE);
                source[i] = range[i] + 2 * PAGES * PAGE;
                fill(source[i], PAGES, 22);
            }
            fill(range[i], 2 * PAGES, 11);
        }
        for (int e = 0; e < 3; e++)
            press(120);
        for (int i = 0; i < SETS; i++) {
            swept = range[i];
            uint8_t *target = range[i] + PAGES * PAGE;
            go = 1;
            for (volatile int delay = rand_r(&seed) % 60000; delay > 0; delay--) {
            }
            if (mremap(source[i], PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
                unable("mremap");
            while (go) {
            }
            for (size_t j = 0; j < PAGES; j++) {
                failed += !holds(target + j * PAGE, j, 22);
                old += holds(target + j * PAGE, j + PAGES, 11);
                zero += is_zero(target + j * PAGE);
            }
            munmap(range[i], 2 * PAGES * PAGE);
        }
    }
    done = 1;
    pthread_join(thread, NULL);
    expect("pages that are wrong", (long)failed, 0);
    expect("pages with the bytes that lay there before", (long)old, 0);
    expect("pages that are zero", (long)zero, 0);
    return verdict();
}

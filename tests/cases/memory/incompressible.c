/* Memory that does not shrink fills the budget, so pages that were on their way out come back; all the while another thread moves a
 * mapping, which makes the kernel refuse pages for a moment. argv[1]: seconds. */
#include "../case.h"

#define SMALL (16 * PAGE)

static _Atomic bool over;

static void *move(void *unused) {
    (void)unused;
    uint8_t *place[2] = {anonymous(SMALL), anonymous(SMALL)}, *now_at = place[0];
    for (int next = 1; !over; next = !next) {
        now_at = mremap(now_at, SMALL, SMALL, MREMAP_MAYMOVE | MREMAP_FIXED, place[next]);
        if (now_at != place[next])
            unable("mremap");
        *now_at = 1;
    }
    return NULL;
}

int main(int argc, char **argv) {
    double end = now() + atoi(mode(argc, argv));
    size_t words = 36 * MIB / 8, pages = 24 * PAGES_OF_MIB;
    uint64_t *noise = (uint64_t *)anonymous(words * 8), random = 88172645463325252UL;
    uint8_t *plain = anonymous(pages * PAGE);
    pthread_t mover;
    pthread_create(&mover, NULL, move, NULL);
    for (size_t i = 0; i < words; i++)
        noise[i] = random = (random ^= random << 13, random ^= random >> 7, random ^ random << 17);
    size_t bad = 0;
    for (uint64_t round = 0; now() < end; round++) {
        for (size_t i = 0; i < pages; i++)
            *(uint64_t *)(plain + i * PAGE) = i ^ round;
        for (size_t i = 0; i < pages; i++)
            bad += *(uint64_t *)(plain + i * PAGE) != (i ^ round);
    }
    random = 88172645463325252UL;
    for (size_t i = 0; i < words; i++)
        bad += noise[i] != (random = (random ^= random << 13, random ^= random >> 7, random ^ random << 17));
    over = true;
    pthread_join(mover, NULL);
    expect("wrong pages and words", (long)bad, 0);
    return verdict();
}

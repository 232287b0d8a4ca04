/* A large mapping goes to and fro while other memory pushes its pages out and in. argv[1]: seconds. */
#include "../case.h"

static _Atomic bool over;

static void *push(void *unused) {
    (void)unused;
    while (!over)
        press(48);
    return NULL;
}

int main(int argc, char **argv) {
    double end = now() + atoi(mode(argc, argv));
    size_t pages = 24 * PAGES_OF_MIB, bytes = pages * PAGE;
    uint8_t *place[2] = {anonymous(bytes), anonymous(bytes)}, *at = place[0];
    press(48);
    fill(at, pages, 9);
    pthread_t pusher;
    pthread_create(&pusher, NULL, push, NULL);
    size_t bad = 0, turn = 0;
    for (int next = 1; now() < end && bad == 0; next = !next) {
        at = mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place[next]);
        if (at != place[next])
            unable("mremap");
        /* Nobody else comes to lie where it goes next. */
        mmap(place[!next], bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        for (int i = 0; i < 64; i++, turn = (turn + 37) % pages)
            bad += !holds(at + turn * PAGE, turn, 9);
    }
    bad += wrong(at, pages, 9);
    over = true;
    pthread_join(pusher, NULL);
    expect("wrong pages", (long)bad, 0);
    return verdict();
}

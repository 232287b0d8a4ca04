/* A thread forks while others touch more memory than the budget all the time: each fork succeeds, and the child has it all.
 * argv[1]: threads that touch. */
#include "../case.h"

#define MIBS 90UL
#define PAGES (MIBS * PAGES_OF_MIB)

static uint8_t *memory;
static _Atomic long wrong_touches;

static void *touch(void *argument) {
    uint64_t random = 88172645463325252UL + (uint64_t)(uintptr_t)argument;
    for (;;) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        size_t page = (random >> 16) % PAGES;
        wrong_touches += *(volatile uint64_t *)(memory + page * PAGE) != page;
    }
    return NULL;
}

int main(int argc, char **argv) {
    memory = anonymous(PAGES * PAGE);
    for (size_t i = 0; i < PAGES; i++)
        *(uint64_t *)(memory + i * PAGE) = i;
    for (long i = 0, threads = atol(mode(argc, argv)); i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, touch, (void *)i) != 0)
            unable("a thread");
    }
    usleep(100000);
    double start = now();
    for (int i = 0; i < 8; i++) {
        pid_t child = fork();
        if (child == 0) {
            size_t failed = 0;
            for (size_t k = (size_t)i; k < PAGES; k += 61)
                failed += *(volatile uint64_t *)(memory + k * PAGE) != k;
            _exit(failed != 0);
        }
        expect_call("fork", child, "done");
        if (child > 0)
            expect_child("child", child, 0);
    }
    took("forks", start);
    expect("wrong touches", wrong_touches, 0);
    expect("in time", now() - start < 15, 1);
    _exit(verdict());
}

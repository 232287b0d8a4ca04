/* WIPEONFORK and DONTFORK are two settings: each is undone by its own opposite alone, and the parent's bytes stay. */
#include "../case.h"

#define PAGES 32

static sigjmp_buf back;
static void on_fault(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

/* What a child has there: 0 the data, 1 zeros, 2 no mapping, 3 anything else. */
static int seen(uint8_t *memory) {
    if (sigsetjmp(back, 1) != 0)
        return 2;
    if (wrong(memory, PAGES, 3) == 0)
        return 0;
    return zeros(memory, PAGES) == PAGES ? 1 : 3;
}

static void look(const char *what, uint8_t *memory, int want) {
    evict(memory, PAGES);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, on_fault);
        _exit(seen(memory));
    }
    expect_child(what, child, want);
    expect("  wrong pages of the parent", (long)wrong(memory, PAGES, 3), 0);
}

static void advise(uint8_t *memory, int advice) {
    if (madvise(memory, PAGES * PAGE, advice) != 0)
        unable("madvise");
}

int main(void) {
    uint8_t *memory = anonymous(PAGES * PAGE);
    fill(memory, PAGES, 3);
    advise(memory, MADV_WIPEONFORK);
    look("wiped (1)", memory, 1);
    advise(memory, MADV_DOFORK);
    look("DOFORK leaves it wiped (1)", memory, 1);
    advise(memory, MADV_DONTFORK);
    look("wiped and not inherited (2)", memory, 2);
    advise(memory, MADV_KEEPONFORK);
    look("kept, but not inherited (2)", memory, 2);
    advise(memory, MADV_DOFORK);
    look("inherited again (0)", memory, 0);
    advise(memory, MADV_DONTFORK);
    advise(memory, MADV_WIPEONFORK);
    advise(memory, MADV_DOFORK);
    look("inherited, but wiped (1)", memory, 1);
    advise(memory, MADV_KEEPONFORK);
    look("inherited again (0)", memory, 0);
    /* The settings move with a mapping, and a new mapping in its place has none. */
    advise(memory, MADV_WIPEONFORK);
    uint8_t *moved = mremap(memory, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, anonymous(PAGES * PAGE));
    look("wiped at its new place (1)", moved, 1);
    memory = mmap(memory, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    fill(memory, PAGES, 3);
    look("new memory at the old place (0)", memory, 0);
    /* A part of a mapping. */
    advise(memory, MADV_DONTFORK);
    if (madvise(memory, PAGES / 2 * PAGE, MADV_DOFORK) != 0)
        unable("madvise");
    evict(memory, PAGES);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, on_fault);
        _exit(wrong(memory, PAGES / 2, 3) != 0 ? 3 : seen(memory + PAGES / 2 * PAGE));
    }
    expect_child("the first half inherited, the second not (2)", child, 2);
    return verdict();
}

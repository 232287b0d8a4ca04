/* mremap of several mappings at once to a fixed place, which Linux allows since 6.17: gaps stay, an error ends it half way, and what
 * is out of RAM comes along. Each line shows what lies where then: a page's own first byte, "-" where nothing is mapped. */
#include "../case.h"

#define PAGES 64UL
#define STEP 8UL
#define MOVE (MREMAP_MAYMOVE | MREMAP_FIXED)

/* A range of which nothing is mapped, with room around it. */
static uint8_t *area(void) {
    static uint8_t *next;
    if (next == NULL)
        next = mmap(NULL, 64 * 2 * PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *memory = next + PAGES * PAGE / 2;
    next += 2 * PAGES * PAGE;
    munmap(memory, PAGES * PAGE);
    return memory;
}

static void map(uint8_t *at, size_t pages, int tag) {
    if (mmap(at, pages * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != at)
        unable("mmap");
    for (size_t i = 0; i < pages; i++)
        memset(at + i * PAGE, tag + (int)i, PAGE);
}

/* Reads without touching: what may not be read is no error. */
static void show(const char *what, const uint8_t *memory) {
    char line[PAGES * 5];
    size_t length = 0;
    int pipes[2];
    if (pipe(pipes) != 0)
        unable("pipe");
    for (size_t i = 0; i < PAGES; i += STEP / 2) {
        uint8_t byte = 0;
        unsigned char there;
        if (mincore((void *)(memory + i * PAGE), PAGE, &there) != 0)
            length += (size_t)sprintf(line + length, " -");
        else if (write(pipes[1], memory + i * PAGE + 99, 1) == 1 && read(pipes[0], &byte, 1) == 1)
            length += (size_t)sprintf(line + length, " %d", byte);
        else
            length += (size_t)sprintf(line + length, " ?");
    }
    close(pipes[0]);
    close(pipes[1]);
    say("  %s:%s", what, line);
}

static void move(const char *what, uint8_t *from, uint8_t *to, size_t old, size_t new, int flags) {
    evict(from, PAGES);
    void *got = mremap(from, old * PAGE, new * PAGE, flags, to);
    say("%s: %s", what, got == MAP_FAILED ? strerrorname_np(errno) : got == to ? "moved" : "elsewhere");
    show("old", from);
    show("new", to);
    /* What has come there is pageable like all other. */
    evict(to, PAGES);
    show("new, later", to);
}

int main(void) {
    for (int target = 0; target < 2; target++) {
        uint8_t *from[8], *to[8];
        for (int i = 0; i < 8; i++) {
            from[i] = area();
            to[i] = area();
            if (target)
                map(to[i], PAGES, 100);
        }
        map(from[0], PAGES, 1);
        mprotect(from[0] + 16 * PAGE, 16 * PAGE, PROT_READ);
        mprotect(from[0] + 40 * PAGE, 2 * PAGE, PROT_NONE);
        move("four mappings", from[0], to[0], PAGES, PAGES, MOVE);
        map(from[1], 16, 1);
        map(from[1] + 32 * PAGE, 16, 33);
        move("a hole between and behind", from[1], to[1], PAGES, PAGES, MOVE);
        map(from[2] + 8 * PAGE, 24, 1);
        mprotect(from[2] + 16 * PAGE, 8 * PAGE, PROT_READ);
        move("a hole in front", from[2], to[2], PAGES, PAGES, MOVE);
        map(from[3], PAGES, 1);
        mprotect(from[3] + 16 * PAGE, 16 * PAGE, PROT_READ);
        move("the mappings stay", from[3], to[3], PAGES, PAGES, MOVE | MREMAP_DONTUNMAP);
        map(from[4], PAGES, 1);
        mprotect(from[4] + 16 * PAGE, 16 * PAGE, PROT_READ);
        move("shorter", from[4], to[4], PAGES, PAGES - 8, MOVE);
        move("longer", from[4], to[4], PAGES - 8, PAGES, MOVE);
        map(from[5], PAGES, 1);
        mprotect(from[5] + 16 * PAGE, 16 * PAGE, PROT_READ);
        if (syscall(462 /* mseal */, from[5] + 32 * PAGE, 8 * PAGE, 0) == 0)
            move("one is sealed", from[5], to[5], PAGES, PAGES, MOVE);
        map(from[6], PAGES, 1);
        mmap(from[6] + 24 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        move("shared memory between", from[6], to[6], PAGES, PAGES, MOVE);
        map(from[7], 24, 1);
        move("one mapping and a hole", from[7], to[7], PAGES, PAGES, MOVE);
    }
    return verdict();
}

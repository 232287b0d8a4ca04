/* Memory that comes into being where evicted memory was reads as zeros, whatever call took the old memory away: shmat with
 * SHM_REMAP, munmap, a smaller mremap, brk, a brk that PR_SET_MM moved, mmap MAP_FIXED. */
#include "../case.h"

#include <linux/prctl.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#define PAGES 64

static uint8_t *evicted(size_t pages) {
    uint8_t *memory = anonymous(pages * PAGE);
    fill(memory, pages, 4);
    evict(memory, pages);
    return memory;
}

/* Two mappings side by side that do not merge; the second is out of RAM. */
static uint8_t *two(void) {
    uint8_t *memory = anonymous(2 * PAGES * PAGE), *second = memory + PAGES * PAGE;
    fill(memory, PAGES, 3);
    fill(second, PAGES, 4);
    mprotect(second, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    mprotect(second, PAGES * PAGE, PROT_READ | PROT_WRITE);
    evict(second, PAGES);
    return memory;
}

static void grow_over(uint8_t *memory) {
    uint8_t *grown = mremap(memory, PAGES * PAGE, 2 * PAGES * PAGE, 0);
    expect_call("growth in place", (long)grown, "done");
    if (grown != MAP_FAILED)
        expect("zero pages in what is new", (long)zeros(grown + PAGES * PAGE, PAGES), PAGES);
    expect("wrong pages in what is old", (long)wrong(memory, PAGES, 3), 0);
}

static void shm(const char *how) {
    uint8_t *memory = two(), *second = memory + PAGES * PAGE;
    int id = shmget(IPC_PRIVATE, PAGES * PAGE, 0600 | IPC_CREAT);
    void *attached = shmat(id, second, is(how, "shm-read-only") ? SHM_REMAP | SHM_RDONLY : SHM_REMAP);
    shmctl(id, IPC_RMID, NULL);
    if (attached != second)
        unable("shmat");
    expect("zero pages in the segment", (long)zeros(attached, PAGES), PAGES);
    if (is(how, "shm-moved")) {
        /* Shared memory that is moved leaves a hole and stays shared. */
        uint8_t *moved = mremap(second, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, anonymous(PAGES * PAGE));
        if (moved == MAP_FAILED)
            unable("mremap");
        fill(moved, PAGES, 6);
        evict(moved, PAGES);
        expect("wrong pages in the moved segment", (long)wrong(moved, PAGES, 6), 0);
        expect_call("shmdt", shmdt(moved), "done");
    } else
        expect_call("shmdt", shmdt(attached), "done");
    grow_over(memory);
    /* Without SHM_REMAP an address that is taken is refused, and nothing is lost. */
    uint8_t *taken = evicted(PAGES);
    id = shmget(IPC_PRIVATE, PAGES * PAGE, 0600 | IPC_CREAT);
    attached = shmat(id, taken, 0);
    expect_call("shmat on memory", (long)attached, "EINVAL");
    shmctl(id, IPC_RMID, NULL);
    expect("wrong pages there", (long)wrong(taken, PAGES, 4), 0);
}

/* Sets the heap's place. PR_SET_MM_MAP wants the whole description, and no capability. */
static void set_break(uint8_t *from, uint8_t *to) {
    static char text[4096];
    int file = open("/proc/self/stat", O_RDONLY);
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    uint64_t field[60] = {0};
    char *at = got > 0 ? strrchr(text, ')') + 2 : text;
    for (int i = 3; i < 53 && at != NULL; i++) {
        field[i] = strtoull(at, NULL, 10);
        at = strchr(at, ' ');
        at += at != NULL;
    }
    struct prctl_mm_map map = {.start_code = field[26],
                               .end_code = field[27],
                               .start_stack = field[28],
                               .start_data = field[45],
                               .end_data = field[46],
                               .arg_start = field[48],
                               .arg_end = field[49],
                               .env_start = field[50],
                               .env_end = field[51],
                               .start_brk = (uintptr_t)from,
                               .brk = (uintptr_t)to,
                               .exe_fd = (uint32_t)-1};
    if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) != 0)
        unable("PR_SET_MM");
}

static void brk_case(bool move) {
    /* Nothing else may use the heap. */
    static char buffer[4096];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    uint8_t *start = sbrk(0);
    if (move) {
        /* A heap of its own, at a place of the program's choice. */
        uint8_t *home = anonymous(4 * PAGES * PAGE);
        munmap(home, 4 * PAGES * PAGE);
        if (mmap(home, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != home)
            unable("mmap");
        set_break(home, home + PAGES * PAGE);
        start = (uint8_t *)syscall(SYS_brk, 0L);
        expect("the break is where it was set", start == home + PAGES * PAGE, 1);
    }
    start = (uint8_t *)(((uintptr_t)start + PAGE - 1) & ~(PAGE - 1));
    if ((uint8_t *)syscall(SYS_brk, start + PAGES * PAGE) != start + PAGES * PAGE)
        unable("brk");
    expect("zero pages of a new heap", (long)zeros(start, PAGES), PAGES);
    fill(start, PAGES, 4);
    evict(start, PAGES);
    syscall(SYS_brk, start + PAGES / 2 * PAGE + 100);
    syscall(SYS_brk, start + PAGES * PAGE);
    expect("wrong pages of what was kept", (long)wrong(start, PAGES / 2 + 1, 4), 0);
    expect("zero pages of what came back", (long)zeros(start + (PAGES / 2 + 1) * PAGE, PAGES / 2 - 1), PAGES / 2 - 1);
    /* The heap's upper half is replaced by other means, goes with the heap, and comes anew. */
    fill(start, PAGES, 4);
    evict(start, PAGES);
    uint8_t *half = start + PAGES / 2 * PAGE;
    if (mmap(half, PAGES / 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != half)
        unable("mmap");
    expect("zero pages of a mapping over it", (long)zeros(half, PAGES / 2), PAGES / 2);
    fill(half, PAGES / 2, 5);
    evict(half, PAGES / 2);
    expect("the heap can shrink", (uint8_t *)syscall(SYS_brk, half) == half, 1);
    expect("the heap can grow", (uint8_t *)syscall(SYS_brk, start + PAGES * PAGE) == start + PAGES * PAGE, 1);
    expect("wrong pages of what was kept", (long)wrong(start, PAGES / 2, 4), 0);
    expect("zero pages of what came back", (long)zeros(half, PAGES / 2), PAGES / 2);
}

static void remaps(void) {
    uint8_t *memory = evicted(2 * PAGES);
    if (mremap(memory, 2 * PAGES * PAGE, PAGES * PAGE, 0) != memory)
        unable("mremap");
    uint8_t *grown = mremap(memory, PAGES * PAGE, 2 * PAGES * PAGE, 0);
    expect_call("shrunk and grown in place", (long)grown, "done");
    expect("wrong pages of what was kept", (long)wrong(memory, PAGES, 4), 0);
    expect("zero pages of what came back", (long)zeros(memory + PAGES * PAGE, PAGES), PAGES);

    memory = two();
    munmap(memory + PAGES * PAGE, PAGES * PAGE);
    grow_over(memory);

    memory = evicted(PAGES);
    void *again = mmap(memory, PAGES / 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (again != memory)
        unable("mmap");
    expect("zero pages of a mapping over it", (long)zeros(memory, PAGES / 2), PAGES / 2);
    size_t kept = 0;
    for (size_t i = PAGES / 2; i < PAGES; i++)
        kept += holds(memory + i * PAGE, i, 4);
    expect("pages behind it that are right", (long)kept, PAGES / 2);

    /* One mremap over two mappings moves the second over evicted memory (the kernel takes one mapping at a time). */
    memory = evicted(PAGES);
    uint8_t *source = anonymous(PAGES * PAGE);
    fill(source, PAGES / 2, 6);
    evict(source, PAGES);
    if (mremap(source, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory) != memory)
        unable("mremap");
    expect("wrong pages of what moved", (long)wrong(memory, PAGES / 2, 6), 0);
    expect("zero pages that were never touched", (long)zeros(memory + PAGES / 2 * PAGE, PAGES / 2), PAGES / 2);
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (strncmp(how, "shm", 3) == 0)
        shm(how);
    else if (is(how, "brk") || is(how, "brk-moved"))
        brk_case(is(how, "brk-moved"));
    else if (is(how, "remaps"))
        remaps();
    else
        return 2;
    return verdict();
}

/* Mappings that are moved or grown by mremap and are not anonymous memory: what is read afterwards is the file's, and a hole that
 * is punched through the descriptor is seen. One mode for each kind; "huge" needs vm.nr_hugepages >= 4. */
#include "../case.h"

#define PAGES 128UL
#define HOLE 32UL

/* A file of PAGES pages whose first HOLE pages were never written. */
static int sparse(int file) {
    uint8_t page[PAGE];
    if (file < 0 || ftruncate(file, (off_t)(PAGES * PAGE)) != 0)
        unable("a file");
    for (size_t i = HOLE; i < PAGES; i++) {
        pattern(page, i, 9);
        if (pwrite(file, page, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE)
            unable("writing a file");
    }
    return file;
}

static int unlinked(const char *directory) {
    char name[64];
    snprintf(name, sizeof name, "%s/zcache-case-XXXXXX", directory);
    int file = mkstemp(name);
    unlink(name);
    return file;
}

static void judge(const uint8_t *memory) {
    size_t failed = 0;
    for (size_t i = 0; i < PAGES; i++)
        failed += i < HOLE ? !is_zero(memory + i * PAGE) : !holds(memory + i * PAGE, i, 9);
    expect("wrong pages", (long)failed, 0);
}

/* Maps the first half, grows it to the whole, moves it, and looks. */
static void file_case(int file, int share) {
    sparse(file);
    uint8_t *memory = mmap(NULL, PAGES / 2 * PAGE, PROT_READ | PROT_WRITE, share, file, 0);
    memory = mremap(memory, PAGES / 2 * PAGE, PAGES * PAGE, MREMAP_MAYMOVE);
    if (memory == MAP_FAILED)
        unable("mremap");
    judge(memory);
    uint8_t *target = anonymous(PAGES * PAGE);
    fill(target, PAGES, 1);
    if (mremap(memory, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
        unable("mremap");
    judge(target);
    /* Private memory keeps what was written; shared memory gives it to the file. */
    pattern(target + 100 * PAGE, 5, 5);
    evict(target, PAGES);
    expect("written page is right", holds(target + 100 * PAGE, 5, 5), 1);
    pattern(target + 100 * PAGE, 100, 9);
    if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 40 * (off_t)PAGE, 8 * (off_t)PAGE) != 0)
        unable("fallocate");
    expect("zero pages where a hole was punched", (long)zeros(target + 40 * PAGE, 8), 8);
    uint8_t page[PAGE];
    pattern(page, 41, 77);
    if (pwrite(file, page, PAGE, 41 * (off_t)PAGE) != (ssize_t)PAGE)
        unable("pwrite");
    expect("page that was written through the descriptor is seen", holds(target + 41 * PAGE, 41, 77), 1);
}

static void grown_memfd(void) {
    size_t mib = 150;
    int file = memfd_create("case", 0);
    if (ftruncate(file, (off_t)(mib * MIB)) != 0)
        unable("ftruncate");
    uint8_t *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    memory = mremap(memory, MIB, mib * MIB, MREMAP_MAYMOVE);
    if (memory == MAP_FAILED)
        unable("mremap");
    fill(memory, mib * PAGES_OF_MIB, 5);
    expect("wrong pages", (long)wrong(memory, mib * PAGES_OF_MIB, 5), 0);
}

static void huge(void) {
    size_t bytes = 2 * MIB;
    uint8_t *memory = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (memory == MAP_FAILED)
        unable("mmap of huge pages");
    memory[0] = 1;
    uint8_t *target = mmap(NULL, 4 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    target = (uint8_t *)(((uintptr_t)target + bytes - 1) & ~(bytes - 1));
    uint8_t *moved = mremap(memory, 2 * bytes, 2 * bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    if (moved == MAP_FAILED)
        unable("mremap");
    say("moved");
    moved[bytes] = 2;
    say("touched %d %d", moved[0], moved[bytes]);
}

/* Shared anonymous memory with a child that writes to it after it moved. */
static void shared_anonymous(void) {
    uint8_t *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fill(memory, PAGES, 3);
    uint8_t *target = anonymous(PAGES * PAGE);
    fill(target, PAGES, 1);
    if (mremap(memory, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
        unable("mremap");
    evict(target, PAGES);
    expect("wrong pages", (long)wrong(target, PAGES, 3), 0);
    pid_t child = fork();
    if (child == 0) {
        fill(target, PAGES, 4);
        _exit(0);
    }
    expect_child("child", child, 0);
    expect("wrong pages after the child wrote", (long)wrong(target, PAGES, 4), 0);
    /* An old size of zero duplicates a shared mapping. */
    uint8_t *twin = mremap(target, 0, PAGES * PAGE, MREMAP_MAYMOVE);
    if (twin == MAP_FAILED)
        unable("mremap of size 0");
    twin[0] = 99;
    expect("what was written through the twin", target[0], 99);
}

/* MREMAP_DONTUNMAP: the data moves, the old place reads as zeros and can be used. */
static void dontunmap(void) {
    uint8_t *memory = anonymous(PAGES * PAGE);
    fill(memory, PAGES, 3);
    evict(memory, PAGES);
    uint8_t *moved = mremap(memory, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    if (moved == MAP_FAILED)
        unable("mremap DONTUNMAP");
    expect("wrong pages at the new place", (long)wrong(moved, PAGES, 3), 0);
    expect("zero pages at the old place", (long)zeros(memory, PAGES), PAGES);
    fill(memory, PAGES, 4);
    evict(memory, PAGES);
    evict(moved, PAGES);
    expect("wrong pages at the old place", (long)wrong(memory, PAGES, 4), 0);
    expect("wrong pages at the new place", (long)wrong(moved, PAGES, 3), 0);
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "memfd-private"))
        file_case(memfd_create("case", 0), MAP_PRIVATE);
    else if (is(how, "memfd-shared"))
        file_case(memfd_create("case", 0), MAP_SHARED);
    else if (is(how, "shm-private"))
        file_case(unlinked("/dev/shm"), MAP_PRIVATE);
    else if (is(how, "shm-shared"))
        file_case(unlinked("/dev/shm"), MAP_SHARED);
    else if (is(how, "disk-private"))
        file_case(unlinked("/var/tmp"), MAP_PRIVATE);
    else if (is(how, "disk-shared"))
        file_case(unlinked("/var/tmp"), MAP_SHARED);
    else if (is(how, "memfd-grown"))
        grown_memfd();
    else if (is(how, "anonymous-shared"))
        shared_anonymous();
    else if (is(how, "dontunmap"))
        dontunmap();
    else if (is(how, "huge"))
        huge();
    else
        return 2;
    return verdict();
}

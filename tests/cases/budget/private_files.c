/* Memory that becomes anonymous by being written: a private mapping of /dev/zero, of a file on a disk, of a memory file, of the
 * program's own data. argv[1]: which; argv[2]: MiB; argv[3]: MiB of other memory that presses. */
#include "../case.h"

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    size_t mib = (size_t)atoi(argv[2]), pages = mib * PAGES_OF_MIB, others = argc > 3 ? (size_t)atoi(argv[3]) : 0;
    int file = is(how, "zero")    ? open("/dev/zero", O_RDWR)
               : is(how, "memfd") ? memfd_create("case", 0)
               : is(how, "shm")   ? open("/dev/shm", O_TMPFILE | O_RDWR, 0600)
                                  : open("/var/tmp", O_TMPFILE | O_RDWR, 0600);
    if (file < 0 || (!is(how, "zero") && ftruncate(file, (off_t)(mib * MIB)) != 0))
        unable("a file");
    uint8_t *other = others > 0 ? anonymous(others * MIB) : NULL;
    if (others > 0)
        fill(other, others * PAGES_OF_MIB, 6);
    uint8_t *memory = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (memory == MAP_FAILED)
        unable("mmap");
    if (is(how, "slowly")) {
        for (size_t i = 0; i < pages; i++) {
            memory[i * PAGE + 5] = 1;
            if (i % 2048 == 0)
                usleep(20000);
        }
    }
    double start = now();
    fill(memory, pages, 5);
    took("writing it", start);
    usleep(300000);
    expect("wrong pages", (long)wrong(memory, pages, 5), 0);
    if (others > 0)
        expect("wrong other pages", (long)wrong(other, others * PAGES_OF_MIB, 6), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(wrong(memory, pages, 5) != 0);
    expect_child("child", child, 0);
    /* The file itself has none of it. */
    uint8_t page[PAGE];
    if (!is(how, "zero"))
        expect("the file's first page is zero", pread(file, page, PAGE, 0) == (ssize_t)PAGE && is_zero(page), 1);
    madvise(memory, pages / 2 * PAGE, MADV_DONTNEED);
    expect("zero pages where it was dropped", (long)zeros(memory, pages / 2), (long)(pages / 2));
    return verdict();
}

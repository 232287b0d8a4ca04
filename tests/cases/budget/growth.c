/* Memory that grows fast by other ways than a loop of stores: a copy by read, large stacks of threads, forks that all write, an
 * array that doubles by mremap, and a large environment. The mode says which. */
#include "../case.h"

#define PAGES (100 * PAGES_OF_MIB)

static void *deep_thread(void *number) {
    volatile uint8_t *frame = __builtin_alloca(7 * MIB);
    for (size_t i = 0; i < 7 * MIB; i += PAGE)
        frame[i] = (uint8_t)((uintptr_t)number + i / PAGE);
    usleep(300000);
    size_t failed = 0;
    for (size_t i = 0; i < 7 * MIB; i += PAGE)
        failed += frame[i] != (uint8_t)((uintptr_t)number + i / PAGE);
    return (void *)failed;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "read")) {
        int file = memfd_create("case", 0);
        uint8_t page[PAGE];
        for (size_t i = 0; i < PAGES; i++) {
            pattern(page, i, 3);
            if (write(file, page, PAGE) != (ssize_t)PAGE)
                unable("write");
        }
        uint8_t *memory = anonymous(PAGES * PAGE);
        size_t got = 0;
        while (got < PAGES * PAGE) {
            ssize_t part = pread(file, memory + got, PAGES * PAGE - got, (off_t)got);
            if (part <= 0)
                break;
            got += (size_t)part;
        }
        expect("bytes that were read", (long)got, (long)(PAGES * PAGE));
        expect("wrong pages", (long)wrong(memory, PAGES, 3), 0);
    } else if (is(how, "stacks")) {
        pthread_t threads[16];
        for (uintptr_t i = 0; i < 16; i++)
            pthread_create(&threads[i], NULL, deep_thread, (void *)i);
        long failed = 0;
        for (int i = 0; i < 16; i++) {
            void *result;
            pthread_join(threads[i], &result);
            failed += (long)result;
        }
        expect("wrong pages", failed, 0);
    } else if (is(how, "forks")) {
        uint8_t *memory = anonymous(20 * MIB);
        fill(memory, 20 * PAGES_OF_MIB, 3);
        pid_t children[6];
        for (uint64_t i = 0; i < 6; i++) {
            children[i] = fork();
            if (children[i] == 0) {
                fill(memory, 20 * PAGES_OF_MIB, 10 + i);
                usleep(300000);
                _exit(wrong(memory, 20 * PAGES_OF_MIB, 10 + i) != 0);
            }
        }
        for (int i = 0; i < 6; i++)
            expect_child("child", children[i], 0);
        expect("wrong pages", (long)wrong(memory, 20 * PAGES_OF_MIB, 3), 0);
    } else if (is(how, "doubling")) {
        size_t pages = 256;
        uint8_t *memory = anonymous(pages * PAGE);
        fill(memory, pages, 3);
        while (pages < PAGES) {
            uint8_t *grown = mremap(memory, pages * PAGE, 2 * pages * PAGE, MREMAP_MAYMOVE);
            if (grown == MAP_FAILED)
                unable("mremap");
            memory = grown;
            for (size_t i = pages; i < 2 * pages; i++)
                pattern(memory + i * PAGE, i, 3);
            pages *= 2;
        }
        expect("wrong pages", (long)wrong(memory, pages, 3), 0);
    } else {
        return 2;
    }
    return verdict();
}

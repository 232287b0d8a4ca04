/* Memory that the kernel may drop lies beside memory that it may not: a child inherits the second whole. */
#include "../case.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

int main(void) {
    size_t pages = 200 * PAGES_OF_MIB;
    uint8_t *both = mmap(NULL, (pages + 1) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(both, (pages + 1) * PAGE);
    void *memory = mmap(both, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    uint8_t *beside = mmap(both + pages * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_DROPPABLE | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory != both)
        unable("mmap");
    /* Linux has such memory since 6.11. */
    if (beside != MAP_FAILED)
        *beside = 1;
    fill(both, pages, 5);
    pid_t child = fork();
    if (child == 0) {
        expect("wrong pages of the child", (long)wrong(both, pages, 5), 0);
        _exit(verdict());
    }
    expect_child("the child", child, 0);
    expect("wrong pages", (long)wrong(both, pages, 5), 0);
    return verdict();
}

/* Memory that the kernel may drop (MAP_DROPPABLE, Linux 6.11), more than the budget: each page is what was written or zeros, a child
 * sees zeros, and what Linux refuses for it is refused. */
#include "../case.h"

#define DROPPABLE 8
#define PAGES (100 * PAGES_OF_MIB)

static size_t neither(const uint8_t *memory, uint64_t tag) {
    size_t count = 0;
    for (size_t i = 0; i < PAGES; i++)
        count += !holds(memory + i * PAGE, i, tag) && !is_zero(memory + i * PAGE);
    return count;
}

int main(void) {
    uint8_t *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, DROPPABLE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        unable("MAP_DROPPABLE");
    fill(memory, PAGES, 3);
    expect("pages of other contents", (long)neither(memory, 3), 0);
    pid_t child = fork();
    if (child == 0) {
        size_t inherited = PAGES - zeros(memory, PAGES);
        fill(memory, PAGES, 5);
        _exit(inherited != 0 ? 1 : neither(memory, 5) != 0 ? 2 : 0);
    }
    expect_child("child", child, 0);
    expect("pages of other contents", (long)neither(memory, 3), 0);
    expect_call("munmap", munmap(memory, PAGES * PAGE), "done");
    void *locked = mmap(NULL, PAGE, PROT_READ, DROPPABLE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
    expect_call("locked", locked == MAP_FAILED ? -1 : 0, "EINVAL");
    return verdict();
}

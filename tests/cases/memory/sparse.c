/* One page touched in every 2 MiB: each brings a page table with it, alone and under zcache. argv[1] pages. */
#include "../case.h"

int main(int argc, char **argv) {
    size_t pages = argc > 1 ? (size_t)atoi(argv[1]) : 40000, step = 2 * MIB, failed = 0;
    uint8_t *memory = mmap(NULL, pages * step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        unable("mmap");
    for (size_t i = 0; i < pages; i++)
        pattern(memory + i * step, i, 3);
    for (size_t i = 0; i < pages; i++)
        failed += !holds(memory + i * step, i, 3);
    expect("wrong pages", (long)failed, 0);
    return verdict();
}

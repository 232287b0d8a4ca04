/* MADV_FREE over memory and a file behind it fails when it has freed the memory, which reads as zeros once Linux has taken it. */
#include "../case.h"

#define PAGES 64

int main(void) {
    uint8_t *memory = anonymous(2 * PAGES * PAGE);
    int file = memfd_create("case", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, PAGES * PAGE) != 0)
        unable("memfd_create");
    uint8_t *behind = memory + PAGES * PAGE;
    fill(memory, PAGES, 3);
    if (mmap(behind, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != behind)
        unable("mmap");
    fill(behind, PAGES, 4);
    expect_call("MADV_FREE", madvise(memory, 2 * PAGES * PAGE, MADV_FREE), "EINVAL");
    madvise(memory, PAGES * PAGE, MADV_PAGEOUT);
    press(120);
    /* Each page is whole, or zeros. */
    long torn = 0;
    for (size_t i = 0; i < PAGES; i++)
        torn += !holds(memory + i * PAGE, i, 3) && !is_zero(memory + i * PAGE);
    expect("pages that are neither", torn, 0);
    expect("wrong pages of the file", (long)wrong(behind, PAGES, 4), 0);
    fill(memory, PAGES, 5);
    press(120);
    expect("wrong pages after new ones were written", (long)wrong(memory, PAGES, 5), 0);
    return verdict();
}

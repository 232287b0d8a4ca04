/* A pipe that has got pages by vmsplice shows what was written to them since, also when other memory has pressed meanwhile. */
#include "../case.h"

#include <sys/uio.h>

#define PAGES 8UL

int main(void) {
    uint8_t *memory = anonymous(PAGES * PAGE), got[PAGES * PAGE];
    int ends[2];
    if (pipe(ends) != 0)
        unable("pipe");
    for (int round = 0; round < 3; round++) {
        fill(memory, PAGES, 3);
        expect("spliced", vmsplice(ends[1], &(struct iovec){memory, PAGES * PAGE}, 1, 0), PAGES * PAGE);
        press(150);
        for (size_t i = 0; i < PAGES; i++)
            pattern(memory + i * PAGE, i, 9);
        expect("read", read(ends[0], got, sizeof got), sizeof got);
        expect("pages without the later change", (long)wrong(got, PAGES, 9), 0);
    }
    return verdict();
}

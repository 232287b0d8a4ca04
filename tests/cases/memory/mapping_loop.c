/* Maps a file privately and writably, writes one byte of it, unmaps; between, sweeps data of its own. argv[1] MiB of data,
 * argv[2] rounds. */
#include "../case.h"

int main(int argc, char **argv) {
    size_t pages = (argc > 1 ? (size_t)atoi(argv[1]) : 30) * PAGES_OF_MIB;
    int rounds = argc > 2 ? atoi(argv[2]) : 50;
    int file = open("/var/tmp", O_TMPFILE | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, 64 * MIB) != 0)
        unable("a file");
    uint8_t *data = anonymous(pages * PAGE);
    double start = now();
    for (int i = 0; i < rounds; i++) {
        uint8_t *mapped = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
        if (mapped == MAP_FAILED)
            unable("mmap");
        mapped[0] = 1;
        munmap(mapped, 64 * MIB);
        for (size_t k = 0; k < pages; k++)
            *(volatile uint8_t *)(data + k * PAGE) += 1;
    }
    took("all rounds", start);
    size_t failed = 0;
    for (size_t k = 0; k < pages; k++)
        failed += data[k * PAGE] != (uint8_t)rounds;
    expect("wrong counters", (long)failed, 0);
    return verdict();
}

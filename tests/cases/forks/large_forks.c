/* Forks with much in memory each time, which have to wait until a second copy fits. argv[1] MiB, argv[2] how many. */
#include "../case.h"

int main(int argc, char **argv) {
    size_t pages = (argc > 1 ? (size_t)atoi(argv[1]) : 100) * PAGES_OF_MIB;
    int count = argc > 2 ? atoi(argv[2]) : 20, right = 0;
    uint8_t *memory = anonymous(pages * PAGE);
    double sum = 0;
    for (int i = 0; i < count; i++) {
        fill(memory, pages, (uint64_t)i);
        double start = now();
        pid_t child = fork();
        if (child == 0)
            _exit(holds(memory, 0, (uint64_t)i) && holds(memory + (pages - 1) * PAGE, pages - 1, (uint64_t)i) ? 0 : 1);
        sum += now() - start;
        int status = -1;
        right += child > 0 && waitpid(child, &status, 0) == child && status == 0;
    }
    fprintf(stderr, "%d forks: %.1f ms each\n", count, sum / count * 1e3);
    expect("forks whose child was right", right, count);
    return verdict();
}

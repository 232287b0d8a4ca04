/* Several processes fork with much in memory at once, so that their forks wait; another maps and unmaps meanwhile, and is not
 * held up with them for long. */
#include "../case.h"

#include <stdatomic.h>

int main(void) {
    _Atomic int *end = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t forkers[5];
    for (int i = 0; i < 5; i++) {
        forkers[i] = fork();
        if (forkers[i] == 0) {
            uint8_t *memory = anonymous(20 * MIB);
            int bad = 0;
            for (int round = 0; round < 4; round++) {
                fill(memory, 20 * PAGES_OF_MIB, (uint64_t)round);
                pid_t child = fork();
                if (child == 0)
                    _exit(holds(memory, 0, (uint64_t)round) ? 0 : 1);
                int status = -1;
                bad += child < 0 || waitpid(child, &status, 0) != child || status != 0;
            }
            _exit(bad);
        }
    }
    pid_t mapper = fork();
    if (mapper == 0) {
        double longest = 0;
        while (!*end) {
            double start = now();
            uint8_t *memory = anonymous(16 * PAGE);
            memory[0] = 1;
            munmap(memory, 16 * PAGE);
            if (now() - start > longest)
                longest = now() - start;
            usleep(1000);
        }
        fprintf(stderr, "the longest mapping took %.2f s\n", longest);
        _exit(longest > 10);
    }
    for (int i = 0; i < 5; i++)
        expect_child("forks that failed", forkers[i], 0);
    *end = 1;
    expect_child("the mapper waited for too long", mapper, 0);
    return verdict();
}

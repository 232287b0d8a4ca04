/* Something to be stopped and continued from outside: counts aloud, with memory that has to be paged. argv[1]: rounds. */
#include "../case.h"

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 100;
    uint8_t *memory = anonymous(80 * MIB);
    fill(memory, 80 * PAGES_OF_MIB, 3);
    say("ready");
    size_t failed = 0;
    for (int i = 0; i < rounds; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        int status = -1;
        pid_t got;
        while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
        }
        failed += got != child || status != 0;
        failed += wrong(memory + (size_t)(i % 80) * MIB, 1, 3) != 0 &&
                  !holds(memory + (size_t)(i % 80) * MIB, (size_t)(i % 80) * PAGES_OF_MIB, 3);
    }
    expect("wrong", (long)failed, 0);
    return verdict();
}

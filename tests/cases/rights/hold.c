/* Holds argv[1] MiB for argv[2] seconds and looks whether they are right, in a child too. */
#include "../case.h"

int main(int argc, char **argv) {
    size_t pages = (argc > 1 ? (size_t)atoi(argv[1]) : 100) * PAGES_OF_MIB;
    uint8_t *memory = anonymous(pages * PAGE);
    fill(memory, pages, 0x41);
    double end = now() + (argc > 2 ? atof(argv[2]) : 0);
    while (now() < end)
        usleep(10000);
    expect("wrong pages", (long)wrong(memory, pages, 0x41), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(wrong(memory, pages, 0x41) != 0);
    expect_child("child", child, 0);
    return verdict();
}

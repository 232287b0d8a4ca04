/* A child's command line, environment and image are there for everybody who asks, also when its memory is out of RAM. */
#include "../case.h"

static size_t bytes_of(pid_t pid, const char *file, char *text, size_t most) {
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/%s", (int)pid, file);
    int descriptor = open(name, O_RDONLY);
    ssize_t got = descriptor < 0 ? -1 : read(descriptor, text, most);
    if (descriptor >= 0)
        close(descriptor);
    return got < 0 ? 0 : (size_t)got;
}

int main(int argc, char **argv) {
    if (argc > 1 && is(argv[1], "sleeper")) {
        /* Presses its own words out, then waits without touching them. */
        uint8_t *memory = anonymous(120 * MIB);
        fill(memory, 120 * PAGES_OF_MIB, 3);
        fill(memory, 120 * PAGES_OF_MIB, 4);
        for (;;)
            pause();
    }
    pid_t child = fork();
    if (child == 0) {
        char *arguments[] = {argv[0], "sleeper", "with some words", NULL}, *environment[] = {"CASE=one", "OTHER=two words", NULL};
        execve("/proc/self/exe", arguments, environment);
        _exit(9);
    }
    char want[4096], text[4096];
    usleep(300000);
    memcpy(want, argv[0], strlen(argv[0]) + 1);
    size_t length = strlen(argv[0]) + 1;
    memcpy(want + length, "sleeper\0with some words", 24);
    length += 24;
    int failed = 0, empty = 0;
    uint8_t *memory = anonymous(60 * MIB);
    for (int i = 0; i < 25; i++) {
        size_t got = bytes_of(child, "cmdline", text, sizeof text);
        empty += got == 0;
        failed += got != length || memcmp(text, want, length) != 0;
        got = bytes_of(child, "environ", text, sizeof text);
        empty += got == 0;
        failed += got != 25 || memcmp(text, "CASE=one\0OTHER=two words", 25) != 0;
        fill(memory, 60 * PAGES_OF_MIB, 3);
    }
    expect("times that they were empty", empty, 0);
    expect("times that they were wrong", failed, 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return verdict();
}

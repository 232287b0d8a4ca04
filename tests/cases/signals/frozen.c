/* A control group is frozen and thawed again and again while its processes fork, map and wait. No call fails by it, none is seen
 * to return one of the kernel's inner numbers. argv[1]: a directory of a freezer (of either version) that processes may enter. */
#include "../case.h"

static const char *group;
static bool second_version;

static void put(const char *file, const char *text) {
    char name[256];
    snprintf(name, sizeof name, "%s/%s", group, file);
    int descriptor = open(name, O_WRONLY);
    if (descriptor < 0 || write(descriptor, text, strlen(text)) < 0)
        unable(name);
    close(descriptor);
}

static void freeze(bool frozen) {
    if (second_version)
        put("cgroup.freeze", frozen ? "1" : "0");
    else
        put("freezer.state", frozen ? "FROZEN" : "THAWED");
}

int main(int argc, char **argv) {
    group = mode(argc, argv);
    char name[256];
    snprintf(name, sizeof name, "%s/cgroup.freeze", group);
    second_version = access(name, F_OK) == 0;
    _Atomic long *rounds = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child == 0) {
        put("cgroup.procs", "0");
        uint8_t *memory = anonymous(24 * MIB);
        fill(memory, 24 * PAGES_OF_MIB, 3);
        for (; rounds[1] == 0; ++*rounds) {
            pid_t grandchild = fork();
            if (grandchild == 0) {
                usleep(1000);
                _exit(5);
            }
            int status = 0;
            pid_t got = waitpid(grandchild, &status, 0);
            if (grandchild < 0 || got != grandchild || status != 5 << 8) {
                fprintf(stderr, "fork %d, wait %d %s, status %#x\n", grandchild, got, strerror(errno), status);
                _exit(7);
            }
            uint8_t *other = anonymous(MIB);
            fill(other, PAGES_OF_MIB, 4);
            size_t failed = wrong(other, PAGES_OF_MIB, 4);
            munmap(other, MIB);
            struct timespec moment = {0, 2000000};
            if (failed > 0 || nanosleep(&moment, NULL) != 0)
                _exit(6);
        }
        _exit(wrong(memory, 24 * PAGES_OF_MIB, 3) != 0);
    }
    /* This process works while the other stands still. */
    uint8_t *memory = anonymous(50 * MIB);
    int stuck = 0;
    for (int i = 0; i < 12; i++) {
        freeze(true);
        fill(memory, 50 * PAGES_OF_MIB, (uint64_t)i);
        usleep(20000);
        freeze(false);
        long before = *rounds;
        for (double end = now() + 5; *rounds == before && now() < end;)
            usleep(1000);
        stuck += *rounds == before;
    }
    expect("times that it did not go on", stuck, 0);
    rounds[1] = 1;
    expect_child("the frozen one", child, 0);
    expect("wrong pages", (long)wrong(memory, 50 * PAGES_OF_MIB, 11), 0);
    return verdict();
}

/* Forks that the pids controller refuses, which is late: the memory has been copied by then. Each by another thread, with the
 * budget's worth of work after them, since a fork that failed must leave nothing behind. argv[1]: a directory of a pids cgroup
 * with pids.max 2 that this process may enter; argv[2]: MiB; argv[3]: rounds. */
#include "../case.h"

static void put(const char *directory, const char *file, const char *text) {
    char name[256];
    snprintf(name, sizeof name, "%s/%s", directory, file);
    int descriptor = open(name, O_WRONLY);
    if (descriptor < 0 || write(descriptor, text, strlen(text)) < 0)
        unable(name);
    close(descriptor);
}

static void *try_fork(void *unused) {
    (void)unused;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    if (child > 0)
        waitpid(child, NULL, 0);
    return (void *)(long)(child < 0 ? errno : 0);
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    size_t pages = (size_t)atoi(argv[2]) * PAGES_OF_MIB;
    int rounds = atoi(argv[3]), refused = 0, other = 0;
    uint8_t *memory = anonymous(pages * PAGE);
    fill(memory, pages, 6);
    put(argv[1], "cgroup.procs", "0");
    for (int i = 0; i < rounds; i++) {
        pthread_t thread;
        void *error = NULL;
        if (pthread_create(&thread, NULL, try_fork, NULL) != 0)
            unable("pthread_create");
        pthread_join(thread, &error);
        refused += (long)error == EAGAIN;
        other += (long)error != EAGAIN;
    }
    expect("forks that were refused", refused, rounds);
    expect("other ends", other, 0);
    double start = now();
    size_t failed = 0;
    uint8_t *set = anonymous(30 * MIB);
    fill(set, 30 * PAGES_OF_MIB, 9);
    for (int pass = 0; pass < 20; pass++)
        failed += wrong(set, 30 * PAGES_OF_MIB, 9);
    took("20 passes over a working set of 30 MiB", start);
    expect("wrong pages of a working set", (long)failed, 0);
    expect("wrong pages", (long)wrong(memory, pages, 6), 0);
    return verdict();
}

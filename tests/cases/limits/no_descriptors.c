/* A process that has no descriptor left (argv[1]: its limit) needs none to map memory, fork, execute and start threads. To be
 * linked statically, since a loader would need one. */
#include "../case.h"

static void *nothing(void *argument) { return argument; }

int main(int argc, char **argv) {
    int limit = atoi(mode(argc, argv));
    if (limit < 0) {
        /* The image that was executed at the limit. */
        uint8_t *memory = anonymous(80 * MIB);
        fill(memory, 80 * PAGES_OF_MIB, 4);
        return wrong(memory, 80 * PAGES_OF_MIB, 4) == 0 ? 7 : 8;
    }
    struct rlimit none = {(rlim_t)limit, (rlim_t)limit};
    if (setrlimit(RLIMIT_NOFILE, &none) != 0)
        unable("setrlimit");
    uint8_t *memory = anonymous(80 * MIB);
    fill(memory, 80 * PAGES_OF_MIB, 3);
    expect_call("a new descriptor", dup(1), "EMFILE");
    pid_t child = fork();
    if (child == 0) {
        size_t failed = wrong(memory, 80 * PAGES_OF_MIB, 3);
        child = fork();
        if (child == 0)
            _exit(5);
        int status = 0;
        waitpid(child, &status, 0);
        _exit(failed == 0 && status == 5 << 8 ? 7 : 8);
    }
    expect_child("child and grandchild", child, 7);
    pthread_t thread;
    expect("thread", pthread_create(&thread, NULL, nothing, NULL), 0);
    pthread_join(thread, NULL);
    child = fork();
    if (child == 0) {
        execl("/proc/self/exe", argv[0], "-1", (char *)NULL);
        _exit(9);
    }
    expect_child("image", child, 7);
    expect("wrong pages", (long)wrong(memory, 80 * PAGES_OF_MIB, 3), 0);
    return verdict();
}

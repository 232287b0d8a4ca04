/* A thread maps a file: through its own descriptors, whatever the process's first thread has. The modes: "ended" when the first
 * thread has ended, "unshared" when this thread has a table of descriptors of its own (CLONE_FILES). */
#include "../case.h"

static uint8_t page_of_a[PAGE], page_of_b[PAGE];
static int file;

static int written(const uint8_t *page) {
    int descriptor = memfd_create("case", 0);
    if (write(descriptor, page, PAGE) != (ssize_t)PAGE)
        unable("write");
    return descriptor;
}

static void *after_the_end(void *unused) {
    (void)unused;
    usleep(200000);
    uint8_t *memory = anonymous(4 * PAGE);
    fill(memory, 4, 2);
    evict(memory, 4);
    file = written(page_of_a);
    uint8_t *mapped = mmap(memory + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0);
    expect_call("mmap of a file over memory", (long)mapped, "done");
    if (mapped != MAP_FAILED)
        expect("it is the file", holds(mapped, 1, 9), 1);
    expect("the page before is right", holds(memory, 0, 2), 1);
    expect("the page behind is right", holds(memory + 2 * PAGE, 2, 2), 1);
    _exit(verdict());
}

static void *with_its_own(void *unused) {
    (void)unused;
    if (unshare(CLONE_FILES) != 0)
        unable("unshare");
    int other = written(page_of_b);
    if (dup2(other, file) != file)
        unable("dup2");
    uint8_t *memory = anonymous(4 * PAGE);
    fill(memory, 4, 2);
    evict(memory, 4);
    uint8_t *mapped = mmap(memory + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0);
    expect_call("mmap of a file over memory", (long)mapped, "done");
    expect("it is this thread's file", holds(mapped, 2, 8), 1);
    /* A number that only this thread has. */
    int far = fcntl(other, F_DUPFD, 500);
    mapped = mmap(memory + 2 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, far, 0);
    expect_call("mmap of a descriptor that the first thread has not", (long)mapped, "done");
    if (mapped != MAP_FAILED)
        expect("it is this thread's file", holds(mapped, 2, 8), 1);
    pid_t child = fork();
    if (child == 0)
        _exit(fcntl(far, F_GETFD) >= 0 && holds(memory, 0, 2) ? 4 : 5);
    expect_child("child has this thread's descriptors", child, 4);
    return NULL;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    pthread_t thread;
    pattern(page_of_a, 1, 9);
    pattern(page_of_b, 2, 8);
    if (is(how, "ended")) {
        pthread_create(&thread, NULL, after_the_end, NULL);
        pthread_exit(NULL);
    }
    file = written(page_of_a);
    pthread_create(&thread, NULL, with_its_own, NULL);
    pthread_join(thread, NULL);
    expect("descriptor of the first thread is closed", fcntl(500, F_GETFD), -1);
    uint8_t *mapped = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, file, 0);
    expect("the first thread's file", holds(mapped, 1, 9), 1);
    return verdict();
}

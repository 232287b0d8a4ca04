/* A thread executes another image while the process's first thread waits in a call: the image has the first one's number. */
#include "../case.h"

static pthread_mutex_t mutex;
static char *self;

static void *execute(void *unused) {
    (void)unused;
    pthread_mutex_lock(&mutex);
    usleep(300000);
    execv(self, (char *[]){self, "again", NULL});
    unable("exec");
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1) {
        size_t pages = 200 * PAGES_OF_MIB;
        uint8_t *memory = anonymous(pages * PAGE);
        fill(memory, pages, 3);
        expect("wrong pages of the new image", (long)wrong(memory, pages, 3), 0);
        pid_t child = fork();
        if (child == 0)
            _exit(wrong(memory, pages, 3) != 0);
        expect_child("its child", child, 0);
        return verdict();
    }
    /* Such a mutex is locked in the kernel, by a call that zcache watches. */
    pthread_mutexattr_t inherits;
    pthread_mutexattr_init(&inherits);
    pthread_mutexattr_setprotocol(&inherits, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&mutex, &inherits);
    pthread_t thread;
    pthread_create(&thread, NULL, execute, NULL);
    usleep(100000);
    pthread_mutex_lock(&mutex);
    say("the first thread goes on");
    return 1;
}

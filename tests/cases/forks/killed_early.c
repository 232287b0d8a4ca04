/* Processes that fork or execute all the time are killed at random moments. argv[1]: "fork", "exec", "vfork" or "thread";
 * argv[2]: how many. Nobody is left behind, and a pipe that they all held sees its end. */
#include "../case.h"

static _Noreturn void fork_for_ever(void) {
    for (;;) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
}

static _Noreturn void execute(char **argv) {
    char *arguments[] = {argv[0], "exec-again", NULL};
    execv("/proc/self/exe", arguments);
    _exit(9);
}

static _Noreturn void vfork_for_ever(void) {
    for (;;) {
        pid_t child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(9);
        }
        waitpid(child, NULL, 0);
    }
}

static void *nothing(void *argument) { return argument; }

static _Noreturn void threads_for_ever(void) {
    for (;;) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, nothing, NULL) == 0)
            pthread_join(thread, NULL);
    }
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "exec-again"))
        execute(argv);
    int count = argc > 2 ? atoi(argv[2]) : 500, pipes[2], killed = 0;
    unsigned seed = 1;
    /* Grandchildren whose parent was killed come to this process, and are waited for. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (pipe(pipes) != 0)
        unable("pipe");
    uint8_t *memory = anonymous(4 * MIB);
    fill(memory, 4 * PAGES_OF_MIB, 2);
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (is(how, "fork"))
                fork_for_ever();
            if (is(how, "vfork"))
                vfork_for_ever();
            if (is(how, "thread"))
                threads_for_ever();
            /* An image that is replaced closes the pipe's ends no more than any other. */
            execute(argv);
        }
        usleep(300 + (unsigned)rand_r(&seed) % 3000);
        kill(child, SIGKILL);
        int status = 0;
        if (waitpid(child, &status, 0) == child)
            killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
    expect("children that were killed", killed, count);
    /* Nobody is left who lives on: these waits and the pipe come to their ends. */
    alarm(30);
    while (wait(NULL) > 0) {
    }
    close(pipes[1]);
    char byte;
    expect("the pipe's end is seen", read(pipes[0], &byte, 1), 0);
    expect("wrong pages", (long)wrong(memory, 4 * PAGES_OF_MIB, 2), 0);
    return verdict();
}

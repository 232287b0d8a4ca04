/* A process stops (argv[1] "stop") or kills ("kill") the pager's helper of its own memory, if it has one: a task that bears the
 * name "zcache-servant" and that a signal of this process reaches. Whatever becomes of itself, another process of the tree goes
 * on. Without a pager there is no helper, and all go on. */
#include "../case.h"

#include <dirent.h>
#include <linux/kcmp.h>

/* The tasks with that name that share this process's memory. */
static int signal_helpers(int number) {
    DIR *directory = opendir("/proc");
    int count = 0;
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        pid_t pid = atoi(entry->d_name);
        char name[300], text[32] = "";
        snprintf(name, sizeof name, "/proc/%s/comm", entry->d_name);
        int file = pid > 0 ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        if (file < 0)
            continue;
        bool ours = read(file, text, sizeof text - 1) > 0 && strncmp(text, "zcache-servant", 14) == 0;
        close(file);
        if (ours && syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0) == 0)
            count += kill(pid, number) == 0;
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    alarm(45);
    pid_t child = fork();
    if (child == 0) {
        uint8_t *memory = anonymous(40 * MIB);
        fill(memory, 40 * PAGES_OF_MIB, 1);
        fprintf(stderr, "helpers found: %d\n", signal_helpers(is(how, "stop") ? SIGSTOP : SIGKILL));
        for (int i = 0; i < 1000; i++) {
            fill(memory, 40 * PAGES_OF_MIB, 1);
            usleep(1000);
        }
        _exit(0);
    }
    sleep(1);
    double start = now();
    uint8_t *memory = anonymous(100 * MIB);
    fill(memory, 100 * PAGES_OF_MIB, 2);
    expect("wrong pages of the other process", (long)wrong(memory, 100 * PAGES_OF_MIB, 2), 0);
    took("the other process", start);
    expect("it had to wait for more than 15 s", now() - start > 15, 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return verdict();
}

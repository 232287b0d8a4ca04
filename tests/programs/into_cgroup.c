/* Starts a command by clone3(2) in a new control group of the unified hierarchy, as systemd does; ends as the command does.
 *
 *     into_cgroup COMMAND…
 *
 * Prints the group that the child finds itself in.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say_group(const char *name) {
    char line[512];
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "0::", 3) == 0)
            printf("born in the group: %s\n", strstr(line, name) != NULL ? "yes" : "no");
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    const char *root = access("/sys/fs/cgroup/unified", F_OK) == 0 ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup";
    char name[64], path[256];
    snprintf(name, sizeof name, "zcache-test-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/%s", root, name);
    if (mkdir(path, 0755) != 0) {
        perror(path);
        return 2;
    }
    int group = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct clone_args arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = SIGCHLD;
    arguments.cgroup = (uint64_t)group;
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) {
        say_group(name);
        execv(argv[1], argv + 1);
        _exit(127);
    }
    int status = 1 << 8;
    if (child < 0)
        perror("clone3");
    else
        waitpid((pid_t)child, &status, 0);
    for (int tries = 0; rmdir(path) != 0 && tries < 20; tries++)
        usleep(50000);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

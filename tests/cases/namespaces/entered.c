/* A process makes namespaces of its own (the modes), and goes on with memory beyond the budget, children, and a new image. */
#include "../case.h"

#include <sys/mount.h>

#define PAGES (80 * PAGES_OF_MIB)

static uint8_t *memory;

/* Becomes root of the user namespace. */
static void map_ids(uid_t user, gid_t group) {
    char users[32], groups[32];
    snprintf(users, sizeof users, "0 %d 1", (int)user);
    snprintf(groups, sizeof groups, "0 %d 1", (int)group);
    const char *lines[][2] = {{"/proc/self/setgroups", "deny"}, {"/proc/self/uid_map", users}, {"/proc/self/gid_map", groups}};
    for (size_t i = 0; i < 3; i++) {
        int file = open(lines[i][0], O_WRONLY);
        if (file < 0 || write(file, lines[i][1], strlen(lines[i][1])) < 0)
            unable(lines[i][0]);
        close(file);
    }
}

static int family(char **argv) {
    size_t failed = wrong(memory, PAGES, 3);
    pid_t child = fork();
    if (child == 0)
        _exit(wrong(memory, PAGES, 3) == 0 ? 7 : 8);
    int status = -1;
    if (waitpid(child, &status, 0) != child || status != 7 << 8)
        return 20;
    child = fork();
    if (child == 0) {
        execl("/proc/self/exe", argv[0], "image", (char *)NULL);
        _exit(9);
    }
    if (waitpid(child, &status, 0) != child || status != 7 << 8)
        return 21;
    return failed == 0 ? 7 : 22;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    memory = anonymous(PAGES * PAGE);
    fill(memory, PAGES, 3);
    if (is(how, "image"))
        return wrong(memory, PAGES, 3) == 0 ? 7 : 8;
    bool user = strstr(how, "user") != NULL, pid = strstr(how, "pid") != NULL;
    int flags = (user ? CLONE_NEWUSER : 0) | (pid ? CLONE_NEWPID : 0) | (strstr(how, "mount") ? CLONE_NEWNS : 0) |
                (strstr(how, "ipc") ? CLONE_NEWIPC : 0) | (strstr(how, "net") ? CLONE_NEWNET : 0) |
                (strstr(how, "files") ? CLONE_FILES : 0) | (strstr(how, "fs") ? CLONE_FS : 0) |
                (strstr(how, "uts") ? CLONE_NEWUTS : 0) | (strstr(how, "cgroup") ? CLONE_NEWCGROUP : 0);
    uid_t outer_user = geteuid();
    gid_t outer_group = getegid();
    pid_t child;
    if (strncmp(how, "clone-", 6) == 0) {
        /* The namespaces come with the process. */
        child = (pid_t)syscall(SYS_clone, (long)(flags | SIGCHLD), 0L, 0L, 0L, 0L);
        if (child < 0)
            unable("clone");
    } else {
        if (unshare(flags) != 0)
            unable("unshare");
        if (user)
            map_ids(outer_user, outer_group);
        expect("wrong pages after unshare", (long)wrong(memory, PAGES, 3), 0);
        child = fork();
    }
    if (child == 0) {
        if (pid && strstr(how, "mount") != NULL) {
            if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("proc", "/proc", "proc", 0, NULL) != 0)
                unable("mount");
        }
        if (pid && getpid() != 1)
            _exit(30);
        _exit(family(argv));
    }
    expect_child("process in its namespaces", child, 7);
    if (!pid)
        expect("process that made them", family(argv), 7);
    expect("wrong pages at the end", (long)wrong(memory, PAGES, 3), 0);
    return verdict();
}

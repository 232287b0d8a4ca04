/* A program that changes its rights while it runs: memory beyond the budget before and after, a child, threads and a new image.
 * The mode says what it changes; argv[2] is a directory with a static copy of this program for those that change the root. */
#include "../case.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <linux/securebits.h>

#define PAGES (80 * PAGES_OF_MIB)

static void *in_thread(void *memory) { return (void *)wrong(memory, PAGES, 3); }

static void drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    if (syscall(SYS_capset, &header, none) != 0)
        unable("capset");
}

static void change(const char *how, const char *directory) {
    gid_t group = 65534;
    if (is(how, "setuid")) {
        if (setgid(65534) != 0 || setuid(65534) != 0)
            unable("setuid");
        expect_call("setuid back", setuid(0), "EPERM");
    } else if (is(how, "setresuid")) {
        if (setgroups(1, &group) != 0 || setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0)
            unable("setresuid");
    } else if (is(how, "seteuid")) {
        /* For a while, as daemons do around a file access. */
        if (seteuid(65534) != 0)
            unable("seteuid");
    } else if (is(how, "capset")) {
        drop_capabilities();
    } else if (is(how, "bounding")) {
        for (int i = 0; i < 64; i++)
            prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
        drop_capabilities();
    } else if (is(how, "no-new-privs")) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || setuid(65534) != 0)
            unable("no_new_privs");
    } else if (is(how, "keep-caps")) {
        if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || setuid(65534) != 0)
            unable("keepcaps");
        drop_capabilities();
    } else if (is(how, "securebits")) {
        if (prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED, 0, 0, 0) != 0)
            unable("securebits");
    } else if (is(how, "not-dumpable")) {
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
            unable("PR_SET_DUMPABLE");
    } else if (is(how, "not-dumpable-user")) {
        if (setgid(65534) != 0 || setuid(65534) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
            unable("PR_SET_DUMPABLE");
    } else if (is(how, "chroot")) {
        if (chroot(directory) != 0 || chdir("/") != 0)
            unable("chroot");
    } else if (is(how, "chroot-user")) {
        if (chroot(directory) != 0 || chdir("/") != 0 || setgid(65534) != 0 || setuid(65534) != 0)
            unable("chroot");
    } else if (is(how, "pivot-root")) {
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount(directory, directory, NULL, MS_BIND, NULL) != 0 || chdir(directory) != 0 ||
            syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
            unable("pivot_root");
    } else {
        exit(2);
    }
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    uint8_t *memory = anonymous(PAGES * PAGE);
    fill(memory, PAGES, 3);
    if (is(how, "image")) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        int status = -1;
        waitpid(child, &status, 0);
        return wrong(memory, PAGES, 3) == 0 && status == 0 ? 7 : 8;
    }
    change(how, argc > 2 ? argv[2] : "/");
    say("user %d", (int)geteuid());
    expect("wrong pages after the change", (long)wrong(memory, PAGES, 3), 0);
    uint8_t *later = anonymous(40 * MIB);
    fill(later, 40 * PAGES_OF_MIB, 4);
    expect("wrong pages of newer memory", (long)wrong(later, 40 * PAGES_OF_MIB, 4), 0);
    munmap(later, 40 * MIB);
    pid_t child = fork();
    if (child == 0) {
        size_t failed = wrong(memory, PAGES, 3);
        pid_t grandchild = fork();
        if (grandchild == 0)
            _exit(0);
        int status = -1;
        waitpid(grandchild, &status, 0);
        _exit(failed == 0 && status == 0 ? 7 : 8);
    }
    expect_child("child", child, 7);
    pthread_t thread;
    void *failed = NULL;
    expect("thread", pthread_create(&thread, NULL, in_thread, memory), 0);
    pthread_join(thread, &failed);
    expect("wrong pages for a thread", (long)failed, 0);
    bool moved = strstr(how, "root") != NULL;
    child = fork();
    if (child == 0) {
        execl(moved ? "/program" : argc > 2 ? argv[2] : "/proc/self/exe", argv[0], "image", (char *)NULL);
        _exit(9);
    }
    expect_child("image", child, 7);
    child = vfork();
    if (child == 0) {
        execl(moved ? "/program" : argc > 2 ? argv[2] : "/proc/self/exe", argv[0], "image", (char *)NULL);
        _exit(9);
    }
    expect_child("image by vfork", child, 7);
    return verdict();
}

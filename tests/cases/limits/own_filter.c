/* A program's own seccomp filter is asked about the program's calls and no others. It knows a small list; the mode says what
 * befalls others: "kill" or "errno". Memory beyond the budget, a child and a new image work under it. */
#include "../case.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

static const int allowed[] = {
    SYS_read, SYS_write, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_brk, SYS_clone, SYS_fork, SYS_vfork, SYS_clone3,
    SYS_execve, SYS_exit, SYS_exit_group, SYS_futex, SYS_madvise, SYS_wait4, SYS_waitid, SYS_openat, SYS_close,
    SYS_newfstatat, SYS_fstat, SYS_pread64, SYS_access, SYS_arch_prctl, SYS_set_tid_address, SYS_set_robust_list, SYS_rseq,
    SYS_prlimit64, SYS_getrandom, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_rt_sigreturn, SYS_readlink, SYS_getpid,
    SYS_gettid, SYS_mremap, SYS_readlinkat, SYS_uname, SYS_getuid, SYS_getgid, SYS_geteuid, SYS_getegid
};
#define ALLOWED (sizeof allowed / sizeof *allowed)

static long paged(uint64_t tag) {
    size_t pages = 96 * PAGES_OF_MIB;
    uint8_t *memory = anonymous(pages * PAGE);
    fill(memory, pages, tag);
    size_t failed = wrong(memory, pages, tag);
    munmap(memory, pages * PAGE);
    return (long)failed;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "image")) {
        expect("wrong pages of the image", paged(5), 0);
        return 5;
    }
    struct sock_filter filter[2 * ALLOWED + 2];
    unsigned short length = 0;
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ALLOWED; i++) {
        filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    unsigned other = is(how, "errno") ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS;
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, other);
    struct sock_fprog program = {length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        unable("seccomp");
    expect("wrong pages", paged(3), 0);
    pid_t child = fork();
    if (child == 0) {
        expect("wrong pages of the child", paged(4), 0);
        execl("/proc/self/exe", argv[0], "image", (char *)NULL);
        _exit(9);
    }
    int status = 0;
    if (wait4(child, &status, 0, NULL) != child)
        say("wait4: %s", result_name(-1));
    expect_status("child", status, 5);
    return verdict();
}

/* Arguments that are 32 bits wide for the kernel: what stands in the upper half of the register has no meaning. Others are 64
 * bits wide, and their upper half is refused. */
#include "../case.h"

#define PAGES 64
#define HIGH (1UL << 32)

static uint8_t *evicted(void) {
    uint8_t *memory = anonymous(PAGES * PAGE);
    fill(memory, PAGES, 4);
    evict(memory, PAGES);
    return memory;
}

static size_t old(const uint8_t *memory) { return PAGES - wrong(memory, PAGES, 4); }

int main(void) {
    uint8_t *memory = evicted();
    expect_call("madvise DONTNEED", syscall(SYS_madvise, memory, PAGES * PAGE, HIGH | MADV_DONTNEED), "done");
    expect("  pages with their old bytes", (long)old(memory), 0);
    expect("  zero pages", (long)zeros(memory, PAGES), PAGES);

    memory = evicted();
    expect_call("madvise WIPEONFORK", syscall(SYS_madvise, memory, PAGES * PAGE, HIGH | MADV_WIPEONFORK), "done");
    pid_t child = fork();
    if (child == 0)
        _exit(zeros(memory, PAGES) != PAGES);
    expect_child("  child sees zeros", child, 0);
    expect("  pages with their old bytes", (long)old(memory), PAGES);

    /* The descriptor of mmap is 32 bits wide. */
    int file = memfd_create("case", 0);
    uint8_t page[PAGE];
    pattern(page, 1, 9);
    if (write(file, page, PAGE) != (ssize_t)PAGE)
        unable("write");
    memory = evicted();
    long result =
        syscall(SYS_mmap, memory, PAGE, (long)PROT_READ, (long)(MAP_PRIVATE | MAP_FIXED), HIGH | (unsigned long)file, 0L);
    say("mmap of a descriptor: %s", result_name(result));
    if (result != -1)
        expect("  the file's page is there", holds(memory, 1, 9), 1);
    expect("  wrong pages beside it", (long)(PAGES - 1 - (old(memory) - (result == -1))), 0);

    /* Protection and flags of mmap are 64 bits wide; unknown ones of private mappings have no effect. */
    memory = evicted();
    result = syscall(SYS_mmap, memory, PAGES * PAGE, HIGH | PROT_READ | PROT_WRITE,
                     HIGH | MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1L, 0L);
    say("mmap: %s", result_name(result));
    say("  zero pages: %zu", zeros(memory, PAGES));
    fill(memory, PAGES, 4);
    evict(memory, PAGES);
    expect("  pages with their bytes", (long)old(memory), PAGES);

    memory = evicted();
    expect_call("mprotect", syscall(SYS_mprotect, memory, PAGES * PAGE, HIGH | PROT_READ), "EINVAL");
    memory[0] = memory[0];
    expect_call("mremap", syscall(SYS_mremap, memory, PAGES * PAGE, 2 * PAGES * PAGE, HIGH | MREMAP_MAYMOVE, 0L), "EINVAL");
    expect("  pages with their old bytes", (long)old(memory), PAGES);

    /* clone takes the lower half of its flags. */
    fflush(stdout);
    long born = syscall(SYS_clone, HIGH | SIGCHLD, 0L, 0L, 0L, 0L);
    if (born == 0)
        _exit(old(memory) == PAGES ? 6 : 5);
    expect_call("clone", born > 0 ? 0 : born, "done");
    expect_child("  its child", (pid_t)born, 6);
    fflush(stdout);
    /* The upper half is no CLONE_UNTRACED either. */
    born = syscall(SYS_clone, 0x800000UL << 32 | SIGCHLD, 0L, 0L, 0L, 0L);
    if (born == 0) {
        fill(memory, PAGES, 5);
        evict(memory, PAGES);
        _exit(wrong(memory, PAGES, 5) == 0 ? 6 : 5);
    }
    expect_child("another child", (pid_t)born, 6);
    expect_call("mlock2", syscall(SYS_mlock2, memory, PAGE, HIGH), "done");
    expect_call("munlock", munlock(memory, PAGE), "done");
    expect_call("msync", syscall(SYS_msync, memory, PAGE, HIGH | MS_ASYNC), "done");
    result = syscall(SYS_futex, memory, HIGH | FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1L, 0L, 0L, 0L);
    expect("futex WAKE", result, 0);
    int status;
    result = syscall(SYS_wait4, -1L, &status, HIGH | WNOHANG, 0L);
    expect_call("wait4 without children", result, "ECHILD");
    return verdict();
}

/* A system call leaves all registers but rax, rcx and r11, whatever becomes of it on its way. */
#include "../case.h"

static void calls(const char *what, long number, const unsigned long a[6], const char *want) {
    register unsigned long rdi __asm__("rdi") = a[0], rsi __asm__("rsi") = a[1], rdx __asm__("rdx") = a[2];
    register unsigned long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
    long result = number;
    __asm__ volatile("syscall" : "+a"(result), "+r"(rdi), "+r"(rsi), "+r"(rdx), "+r"(r10), "+r"(r8), "+r"(r9) : : "rcx", "r11", "memory");
    unsigned long now[6] = {rdi, rsi, rdx, r10, r8, r9};
    errno = (int)-result;
    expect_call(what, result < 0 && result > -4096 ? -1 : 0, want);
    long changed = 0;
    for (int i = 0; i < 6; i++)
        changed += now[i] != a[i];
    expect("registers that it has changed", changed, 0);
}

int main(void) {
    unsigned long page = (unsigned long)anonymous(2 * PAGE), own = MAP_PRIVATE | MAP_ANONYMOUS;
    calls("mlock", SYS_mlock, (unsigned long[]){page, PAGE, 0x11, 0x22, 0x33, 0x44}, "done");
    calls("mlock2", SYS_mlock2, (unsigned long[]){page, PAGE, 0, 0x22, 0x33, 0x44}, "done");
    calls("munlockall", SYS_munlockall, (unsigned long[]){1, 2, 3, 4, 5, 6}, "done");
    calls("mlockall", SYS_mlockall, (unsigned long[]){MCL_FUTURE, 2, 3, 4, 5, 6}, "done");
    calls("munlockall", SYS_munlockall, (unsigned long[]){1, 2, 3, 4, 5, 6}, "done");
    calls("mmap, populated", SYS_mmap, (unsigned long[]){0, PAGE, 3, own | MAP_POPULATE, -1UL, 0}, "done");
    calls("mmap, locked", SYS_mmap, (unsigned long[]){0, PAGE, 3, own | MAP_LOCKED, -1UL, 0}, "done");
    calls("mmap of nothing", SYS_mmap, (unsigned long[]){0, 0, 3, own | MAP_POPULATE, -1UL, 0}, "EINVAL");
    int zero = open("/dev/zero", O_RDWR);
    calls("mmap of zeros", SYS_mmap, (unsigned long[]){0, PAGE, 3, MAP_PRIVATE, (unsigned long)zero, 0}, "done");
    calls("madvise", SYS_madvise, (unsigned long[]){page, PAGE, MADV_FREE, 4, 5, 6}, "done");
    return verdict();
}

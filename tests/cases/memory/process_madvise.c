/* process_madvise: by a process about itself (all advice, since Linux 6.13) and about a child (only advice that drops nothing),
 * with a second range that is refused. Whatever the kernel answers, the bytes are those that its answer means. */
#include "../case.h"

#include <sys/uio.h>

#define PAGES 32

int main(void) {
    uint8_t *memory = anonymous(4 * PAGES * PAGE);
    fill(memory, 4 * PAGES, 3);
    evict(memory, 4 * PAGES);
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (self < 0)
        unable("pidfd_open");
    struct iovec ranges[2] = {{memory, PAGES * PAGE}, {memory + PAGES * PAGE + 1, PAGE}};
    long result = syscall(SYS_process_madvise, self, ranges, 1UL, MADV_DONTNEED, 0);
    say("DONTNEED of one range: %s, %ld bytes", result_name(result), result);
    say("  pages that are zero: %zu", zeros(memory, PAGES));
    expect("  pages behind it that are zero", (long)zeros(memory + PAGES * PAGE, 3 * PAGES), 0);
    fill(memory, 4 * PAGES, 3);
    evict(memory, 4 * PAGES);
    result = syscall(SYS_process_madvise, self, ranges, 2UL, MADV_DONTNEED, 0);
    say("DONTNEED of two ranges, the second not aligned: %s, %ld bytes", result_name(result), result);
    say("  pages that are zero: %zu", zeros(memory, 4 * PAGES));

    fill(memory, 4 * PAGES, 3);
    int held[2];
    if (pipe(held) != 0)
        unable("pipe");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(held[1]);
        if (read(held[0], &byte, 1) != 0)
            _exit(9);
        _exit(wrong(memory, 4 * PAGES, 3) != 0);
    }
    close(held[0]);
    int other = (int)syscall(SYS_pidfd_open, child, 0);
    result = syscall(SYS_process_madvise, other, ranges, 1UL, MADV_PAGEOUT, 0);
    say("PAGEOUT of a child's range: %s, %ld bytes", result_name(result), result);
    result = syscall(SYS_process_madvise, other, ranges, 1UL, MADV_DONTNEED, 0);
    say("DONTNEED of a child's range: %s, %ld bytes", result_name(result), result);
    close(held[1]);
    expect_child("child", child, 0);
    return verdict();
}

/* Evicted pages seen by ways other than the processor: /proc/self/mem, a child's /proc/PID/mem, process_vm_readv and _writev
 * between two processes, a system call's buffers. */
#include "../case.h"

#include <sys/uio.h>

#define PAGES 2000UL

static uint8_t *memory;

static void judge_self(void) {
    int file = open("/proc/self/mem", O_RDWR);
    uint8_t page[PAGE], byte = 55;
    size_t errors = 0, failed = 0, lost = 0;
    for (size_t i = 0; i < PAGES; i++) {
        ssize_t got = pread(file, page, PAGE, (off_t)(uintptr_t)(memory + i * PAGE));
        errors += got != (ssize_t)PAGE;
        failed += got == (ssize_t)PAGE && !holds(page, i, 4);
        uint8_t *other = memory + (PAGES + 100 + i) * PAGE;
        errors += pwrite(file, &byte, 1, (off_t)(uintptr_t)(other + 9)) != 1;
        lost += other[9] != 55;
    }
    expect("calls on /proc/self/mem that failed", (long)errors, 0);
    expect("pages that were read wrong", (long)failed, 0);
    expect("bytes that were not written", (long)lost, 0);
}

/* A child holds the memory, evicted; the parent looks into it, then the child. */
static void judge_other(void) {
    int ready[2], go[2];
    if (pipe(ready) != 0 || pipe(go) != 0)
        unable("pipe");
    pid_t child = fork();
    if (child == 0) {
        char byte = 1;
        fill(memory, PAGES, 5);
        evict(memory, PAGES);
        if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1)
            _exit(9);
        size_t failed = wrong(memory, PAGES, 6);
        _exit(failed == 0 ? 3 : 4);
    }
    char byte;
    if (read(ready[0], &byte, 1) != 1)
        unable("read");
    uint8_t page[PAGE];
    size_t errors = 0, failed = 0;
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/mem", (int)child);
    int file = open(name, O_RDWR);
    for (size_t i = 0; i < PAGES; i++) {
        struct iovec here = {page, PAGE}, there = {memory + i * PAGE, PAGE};
        ssize_t got = i % 2 == 0 ? process_vm_readv(child, &here, 1, &there, 1, 0)
                                 : pread(file, page, PAGE, (off_t)(uintptr_t)there.iov_base);
        errors += got != (ssize_t)PAGE;
        failed += got == (ssize_t)PAGE && !holds(page, i, 5);
        pattern(page, i, 6);
        got = i % 2 == 0 ? process_vm_writev(child, &here, 1, &there, 1, 0)
                         : pwrite(file, page, PAGE, (off_t)(uintptr_t)there.iov_base);
        errors += got != (ssize_t)PAGE;
    }
    expect("calls on a child's memory that failed", (long)errors, 0);
    expect("pages that were read wrong", (long)failed, 0);
    byte = 1;
    if (write(go[1], &byte, 1) != 1)
        unable("write");
    expect_child("child found what was written", child, 3);
}

static void judge_calls(void) {
    int pipes[2];
    char back[PAGE];
    if (pipe(pipes) != 0)
        unable("pipe");
    size_t errors = 0, failed = 0;
    for (size_t i = 0; i < 200; i++) {
        errors += write(pipes[1], memory + i * PAGE, PAGE) != (ssize_t)PAGE;
        errors += read(pipes[0], back, PAGE) != (ssize_t)PAGE;
        failed += !holds((uint8_t *)back, i, 4);
        struct iovec part = {memory + (200 + i) * PAGE, PAGE};
        errors += vmsplice(pipes[1], &part, 1, 0) != (ssize_t)PAGE;
        errors += read(pipes[0], memory + (400 + i) * PAGE, PAGE) != (ssize_t)PAGE;
        failed += !holds(memory + (400 + i) * PAGE, 200 + i, 4);
    }
    int file = open("/var/tmp", O_TMPFILE | O_RDWR | O_DIRECT, 0600);
    for (size_t i = 0; i < 100; i++) {
        errors += pwrite(file, memory + (800 + i) * PAGE, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE;
        errors += pread(file, memory + (900 + i) * PAGE, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE;
        failed += !holds(memory + (900 + i) * PAGE, 800 + i, 4);
    }
    expect("calls that failed", (long)errors, 0);
    expect("pages that came back wrong", (long)failed, 0);
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    memory = anonymous(2 * (PAGES + 100) * PAGE);
    fill(memory, 2 * (PAGES + 100), 4);
    evict(memory, 2 * (PAGES + 100));
    if (is(how, "self"))
        judge_self();
    else if (is(how, "other"))
        judge_other();
    else
        judge_calls();
    return verdict();
}

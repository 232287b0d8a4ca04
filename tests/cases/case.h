/* What the programs of this folder share: pages with known contents, pressure on the budget, and judging.
 *
 * A program prints what it saw, one thing a line, and nothing that depends on time or addresses: its output under zcache must be
 * its output alone. Where the right value is known it also judges, and ends with 1 if anything was wrong. Times go to stderr.
 */
#ifndef CASES_CASE_H
#define CASES_CASE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB (1UL << 20)
#define PAGES_OF_MIB 256UL

static int case_failures;

/* Prints a line of what was seen. */
__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

/* Prints a number that was seen and judges it. */
static inline void expect(const char *what, long got, long want) {
    if (got == want)
        say("%s: %ld", what, got);
    else
        say("%s: %ld, which must be %ld", what, got, want);
    case_failures += got != want;
}

/* The name of what a call returned: "done", or the error's name. To be asked right after the call. */
static inline const char *result_name(long result) { return result == -1 ? strerrorname_np(errno) : "done"; }

/* Prints how a call ended and judges it; `want` is "done" or the name of an error. To be called right after the call. */
static inline void expect_call(const char *what, long result, const char *want) {
    const char *got = result_name(result);
    if (strcmp(got, want) == 0)
        say("%s: %s", what, got);
    else
        say("%s: %s, which must be %s", what, got, want);
    case_failures += strcmp(got, want) != 0;
}

/* The status to end with. */
static inline int verdict(void) { return case_failures != 0; }

/* Ends the program since a precondition does not hold: neither right nor wrong. */
static inline _Noreturn void unable(const char *what) {
    fprintf(stderr, "cannot be tested: %s: %s\n", what, strerror(errno));
    _exit(2);
}

/* Prints and judges how a child ended. */
static inline void expect_status(const char *what, int status, int want_exit) {
    if (WIFEXITED(status))
        expect(what, WEXITSTATUS(status), want_exit);
    else {
        say("%s: killed by signal %d, must exit with %d", what, WTERMSIG(status), want_exit);
        case_failures++;
    }
}

/* Waits for a child and judges its exit status. */
static inline void expect_child(const char *what, pid_t child, int want_exit) {
    int status = 0;
    pid_t got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
    }
    if (got != child) {
        say("%s: waitpid says %s", what, got < 0 ? strerrorname_np(errno) : "another process");
        case_failures++;
        return;
    }
    expect_status(what, status, want_exit);
}

static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Notes a time on stderr, where nothing is compared. */
static inline void took(const char *what, double since) { fprintf(stderr, "%s: %.3f s\n", what, now() - since); }

/* New anonymous memory. */
static inline uint8_t *anonymous(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        unable("mmap");
    return memory;
}

/* Writes page `i` of `tag`: compressible, but never the same byte throughout. */
static inline void pattern(uint8_t *page, uint64_t i, uint64_t tag) {
    uint64_t *words = (uint64_t *)page;
    for (uint64_t k = 0; k < 512; k++)
        words[k] = k % 16 != 0 ? 0x0101010101010101UL * (tag & 255) : (tag << 48 | i << 16 | k);
}

static inline bool holds(const uint8_t *page, uint64_t i, uint64_t tag) {
    uint64_t want[512];
    pattern((uint8_t *)want, i, tag);
    return memcmp(page, want, PAGE) == 0;
}

static inline bool is_zero(const uint8_t *page) {
    for (size_t k = 0; k < PAGE; k++) {
        if (page[k] != 0)
            return false;
    }
    return true;
}

static inline void fill(uint8_t *memory, size_t pages, uint64_t tag) {
    for (size_t i = 0; i < pages; i++)
        pattern(memory + i * PAGE, i, tag);
}

/* How many pages do not hold what `fill` wrote. */
static inline size_t wrong(const uint8_t *memory, size_t pages, uint64_t tag) {
    size_t count = 0;
    for (size_t i = 0; i < pages; i++)
        count += !holds(memory + i * PAGE, i, tag);
    return count;
}

/* How many pages hold nothing but zeros. */
static inline size_t zeros(const uint8_t *memory, size_t pages) {
    size_t count = 0;
    for (size_t i = 0; i < pages; i++)
        count += is_zero(memory + i * PAGE);
    return count;
}

/* How many pages are in RAM, without touching them. */
static inline size_t resident(const void *memory, size_t pages) {
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    size_t count = 0;
    for (size_t i = 0; i < pages; i++) {
        uint64_t entry = 0;
        if (pread(file, &entry, 8, (off_t)(((uintptr_t)memory / PAGE + i) * 8)) == 8)
            count += entry >> 62 != 0;
    }
    close(file);
    return count;
}

/* Writes to every page of `mib` MiB of other memory, which pushes what is not used out of a smaller budget. */
static inline void press(size_t mib) {
    static uint8_t *hog;
    if (hog == NULL) {
        hog = anonymous(mib * MIB);
        fill(hog, mib * PAGES_OF_MIB, 7);
    }
    for (size_t i = 0; i < mib * PAGES_OF_MIB; i++)
        ++*(volatile uint64_t *)(hog + i * PAGE);
}

/* Presses until these pages are out of RAM; without zcache they never are. */
static inline void evict(const void *memory, size_t pages) {
    size_t left = pages;
    for (int round = 0; round < 12 && left > 0; round++) {
        if (round >= 2 && left == pages)
            break;
        press(120);
        left = resident(memory, pages);
    }
    fprintf(stderr, "%zu of %zu pages still in RAM\n", left, pages);
}

/* The letter that names what the program is to do. */
static inline const char *mode(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "the mode is missing\n");
        exit(2);
    }
    return argv[1];
}

static inline bool is(const char *text, const char *other) { return strcmp(text, other) == 0; }

#endif

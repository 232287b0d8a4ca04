/* 6 and 7. The pager or the servant dies: what is evicted must not become zeros.
 *
 *     w6_verify_forever --bytes SIZE --evidence FILE --output FILE [--children N]
 *
 * Runs until it is killed. It checks its memory page by page, and also writes pages from evicted memory straight to the output
 * file with write(), where the kernel reads the memory. On the first wrong byte it writes the evidence file, which the test looks
 * for after the kill; the test also checks that the output holds only whole right pages (--check-output). It prints "ready" when
 * all memory is written once. SIGBUS has its default effect.
 *
 * The output begins full of pages that say "not written yet". With holes in it a kill would leave zeros that nobody wrote: the
 * kernel (6.15 and later) makes the block for a write() before it faults the source in, and a process that is killed in that
 * fault leaves the block behind, whoever serves the fault.
 */
#define _GNU_SOURCE
#include "race.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define REGION 60
#define NOT_WRITTEN 61
#define SLOTS 1024

static uint8_t *base;
static size_t pages;
static int evidence;
static int output;

static void check(uint32_t page) {
    if (page_is(base + page * PAGE, (struct page_name){1, REGION, page, 1}))
        return;
    char line[80];
    int at = snprintf(line, sizeof line, "wrong page %u, %s\n", page, page_is_zero(base + page * PAGE) ? "zeros" : "not zeros");
    if (write(evidence, line, (size_t)at) < 0)
        _exit(3);
    page_check(base + page * PAGE, (struct page_name){1, REGION, page, 1}, "verify forever");
}

static void *verify(void *argument) {
    uint64_t state = (uintptr_t)argument + (uint64_t)getpid();
    while (pages > 0)
        check((uint32_t)(random_next(&state) % pages));
    return NULL;
}

static void prepare_output(void) {
    static uint8_t page[PAGE] __attribute__((aligned(8)));
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        page_fill(page, (struct page_name){1, NOT_WRITTEN, slot, 1});
        if (pwrite(output, page, PAGE, (off_t)slot * (off_t)PAGE) != (ssize_t)PAGE)
            cannot("write output");
    }
}

/* The output is a ring of slots; slot i holds the page that follows from i and is always written whole. */
static void *write_out(void *argument) {
    uint64_t state = (uintptr_t)argument;
    while (pages > 0) {
        uint32_t page = (uint32_t)(random_next(&state) % pages);
        if (pwrite(output, base + page * PAGE, PAGE, (off_t)(page % SLOTS * PAGE)) < 0)
            _exit(4);
    }
    return NULL;
}

/* Ends with 0 if each 4 KiB of the file is a whole page of region 60, version 1, or says that it was not written. */
static int check_output(const char *path, uint32_t pages_max) {
    int file = open(path, O_RDONLY);
    if (file < 0)
        cannot("open output");
    static uint8_t page[PAGE] __attribute__((aligned(8)));
    uint64_t right = 0, not_written = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        ssize_t got = pread(file, page, PAGE, (off_t)slot * (off_t)PAGE);
        if (got != (ssize_t)PAGE)
            wrong("output: slot %u is cut off at %zd", slot, got);
        if (page_is(page, (struct page_name){1, NOT_WRITTEN, slot, 1})) {
            not_written++;
            continue;
        }
        bool found = false;
        for (uint32_t i = slot; i < pages_max && !found; i += SLOTS)
            found = page_is(page, (struct page_name){1, REGION, i, 1});
        if (!found)
            wrong("output: slot %u holds a page that the program never had%s", slot, page_is_zero(page) ? ": zeros" : "");
        right++;
    }
    printf("output: %llu right, %llu not written\n", (unsigned long long)right, (unsigned long long)not_written);
    return right > 0 ? 0 : 2;
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    const char *evidence_path = NULL, *output_path = NULL;
    int children = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--evidence") == 0)
            evidence_path = argv[i + 1];
        else if (strcmp(argv[i], "--output") == 0)
            output_path = argv[i + 1];
        else if (strcmp(argv[i], "--children") == 0)
            children = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--check-output") == 0)
            return check_output(argv[i + 1], (uint32_t)(race_bytes / PAGE));
    }
    if (evidence_path == NULL || output_path == NULL) {
        fprintf(stderr, "w6_verify_forever: --evidence and --output are needed\n");
        return 2;
    }
    pages = race_bytes / PAGE;
    base = race_map(race_bytes);
    race_fill(base, pages, REGION, 1);
    evidence = open(evidence_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    output = open(output_path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (evidence < 0 || output < 0)
        cannot("open");
    prepare_output();
    for (int i = 0; i < children; i++) {
        if (fork() == 0)
            break;
    }
    race_thread(verify, (void *)1);
    race_thread(write_out, (void *)2);
    if (printf("ready %d\n", (int)getpid()) < 0 || fflush(stdout) != 0)
        return 2;
    verify((void *)3);
}

/* Holds memory of known content and checks it: the plain subject of the tests of behaviour.
 *
 *     hold [--bytes SIZE] [--kind random|text|same|mixed] [--passes N] [--exit N] [--forever] [--daemon FILE] [--close-fds] [--say] [--survive-bus]
 *
 * Fills SIZE bytes, then makes N passes over all pages in a random order, checking each and rewriting every eighth. Prints "ready"
 * after the filling and "held" at the end, if nothing is wrong; a wrong byte ends it with status 1. --forever makes passes until it
 * is killed. --daemon forks twice first, detaches, and writes "held" to FILE instead; the first process ends at once with 0.
 * --close-fds closes every file descriptor before the filling, as daemons do. --say prints a line for each pass.
 * --survive-bus leaves out the pages whose filling raises SIGBUS and goes on.
 */
#define _GNU_SOURCE
#include "../torture/content.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind = "mixed";
static sigjmp_buf next_page;

static void fill(uint64_t *page, uint64_t number, uint64_t version) {
    uint64_t state = number << 20 ^ version;
    uint64_t word = random_next(&state);
    if (strcmp(kind, "mixed") == 0) {
        page_fill(page, (struct page_name){2, 0, (uint32_t)number, (uint32_t)version + 1});
        return;
    }
    for (size_t i = 0; i < PAGE / sizeof word; i++) {
        if (kind[0] == 'r')
            page[i] = random_next(&state);
        else if (kind[0] == 't')
            page[i] = i % 8 == 0 ? word + i : 0x2020656761702061ull;
        else
            page[i] = word;
    }
}

static void check(const uint64_t *page, uint64_t number, uint64_t version) {
    uint64_t expected[PAGE / sizeof(uint64_t)];
    fill(expected, number, version);
    for (size_t i = 0; i < PAGE / sizeof(uint64_t); i++) {
        if (page[i] != expected[i])
            wrong("hold: page %llu version %llu word %zu: expected %016llx got %016llx", (unsigned long long)number,
                  (unsigned long long)version, i, (unsigned long long)expected[i], (unsigned long long)page[i]);
    }
}

static uint64_t common_factor(uint64_t a, uint64_t b) {
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void say(const char *line) {
    /* After --close-fds there is nobody to say it to. */
    if (write(STDOUT_FILENO, line, strlen(line)) < 0)
        return;
}

/* The first two processes end here; the third goes on as a daemon. */
static void detach(void) {
    if (fork() != 0)
        _exit(0);
    setsid();
    if (fork() != 0)
        _exit(0);
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
}

static void on_bus(int number) { siglongjmp(next_page, number); }

static void try_fill(uint8_t *base, uint64_t number) {
    if (sigsetjmp(next_page, 1) == 0)
        fill((uint64_t *)(base + number * PAGE), number, 0);
}

int main(int argc, char **argv) {
    uint64_t bytes = (uint64_t)64 << 20;
    long passes = 2, status = 0;
    bool forever = false, close_fds = false, verbose = false, survive_bus = false;
    const char *daemon_file = NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--forever") == 0) {
            forever = true;
            continue;
        }
        if (strcmp(argv[i], "--close-fds") == 0) {
            close_fds = true;
            continue;
        }
        if (strcmp(argv[i], "--survive-bus") == 0) {
            survive_bus = true;
            continue;
        }
        if (strcmp(argv[i], "--say") == 0) {
            verbose = true;
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--bytes") == 0)
            bytes = parse_size(value);
        else if (strcmp(argv[i - 1], "--kind") == 0)
            kind = value;
        else if (strcmp(argv[i - 1], "--passes") == 0)
            passes = atol(value);
        else if (strcmp(argv[i - 1], "--exit") == 0)
            status = atol(value);
        else if (strcmp(argv[i - 1], "--daemon") == 0)
            daemon_file = value;
        else
            return 2;
    }
    if (daemon_file != NULL)
        detach();
    if (close_fds) {
        for (int fd = 0; fd < 1024; fd++)
            close(fd);
    }
    uint64_t pages = bytes / PAGE;
    uint8_t *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *versions = calloc(pages, sizeof *versions);
    if (base == MAP_FAILED || versions == NULL)
        cannot("mmap");
    if (survive_bus)
        signal(SIGBUS, on_bus);
    for (uint64_t i = 0; i < pages; i++)
        try_fill(base, i);
    say("ready\n");
    uint64_t state = 11;
    for (long pass = 0; forever || pass < passes; pass++) {
        uint64_t start = random_next(&state) % pages;
        /* A stride that has no common factor with the count visits every page once. */
        uint64_t stride = 514229 % pages + 1;
        while (common_factor(pages, stride) != 1)
            stride++;
        for (uint64_t k = 0; k < pages; k++) {
            uint64_t i = (start + k * stride) % pages;
            check((uint64_t *)(base + i * PAGE), i, versions[i]);
            if (k % 8 == 0)
                fill((uint64_t *)(base + i * PAGE), i, ++versions[i]);
        }
        if (verbose)
            say("pass\n");
    }
    if (daemon_file != NULL) {
        int file = open(daemon_file, O_WRONLY | O_CREAT, 0644);
        if (file < 0 || write(file, "held\n", 5) != 5)
            return 2;
        close(file);
    }
    say("held\n");
    return (int)status;
}

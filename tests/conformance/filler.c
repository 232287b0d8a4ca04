/* Runs a command while it holds memory itself and uses it all the time, so that both press on one budget.
 *
 *     filler MIB COMMAND ARGS…
 *
 * It fills MIB of anonymous memory before the command starts, then sweeps over it, page by page, until the command ends: checks each
 * page and writes it again. A quarter of each page is random, so that about a quarter is left of it when it is compressed. It ends as
 * the command does, by the same status or signal; with 99 when a page of its own was not what it had written. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / sizeof(uint64_t))
/* After so many pages it sleeps for a millisecond: the command is to have the processors. */
#define PAGES_AT_ONCE 64

static uint64_t random_next(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t word(uint64_t *state, size_t index, uint64_t page) {
    return index < WORDS / 4 ? random_next(state) : page;
}

static void write_page(uint64_t *at, uint64_t page, uint64_t version) {
    uint64_t state = page << 32 | version;
    for (size_t i = 0; i < WORDS; i++)
        at[i] = word(&state, i, page);
}

static int is_right(const volatile uint64_t *at, uint64_t page, uint64_t version) {
    uint64_t state = page << 32 | version;
    for (size_t i = 0; i < WORDS; i++) {
        if (at[i] != word(&state, i, page))
            return 0;
    }
    return 1;
}

static void end_as(int status) {
    if (WIFEXITED(status))
        exit(WEXITSTATUS(status));
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
    exit(128 + WTERMSIG(status));
}

int main(int argc, char **argv) {
    char *end = NULL;
    uint64_t pages = argc > 2 ? strtoull(argv[1], &end, 10) * (1 << 20) / PAGE : 0;
    if (pages == 0 || *end != '\0') {
        fprintf(stderr, "filler: MIB COMMAND are needed\n");
        return 125;
    }
    uint64_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("filler: mmap");
        return 125;
    }
    uint64_t version = 0;
    for (uint64_t page = 0; page < pages; page++)
        write_page(memory + page * WORDS, page, version);
    pid_t child = fork();
    if (child < 0) {
        perror("filler: fork");
        return 125;
    }
    if (child == 0) {
        execvp(argv[2], argv + 2);
        fprintf(stderr, "filler: %s: %s\n", argv[2], strerror(errno));
        _exit(127);
    }
    for (;; version++) {
        for (uint64_t page = 0; page < pages; page++) {
            uint64_t *at = memory + page * WORDS;
            if (!is_right(at, page, version)) {
                fprintf(stderr, "filler: wrong bytes in page %llu\n", (unsigned long long)page);
                kill(child, SIGKILL);
                return 99;
            }
            write_page(at, page, version + 1);
            if (page % PAGES_AT_ONCE == 0) {
                int status;
                if (waitpid(child, &status, WNOHANG) == child)
                    end_as(status);
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            }
        }
    }
}

/* Holds memory and forks until it is refused, several times; every child checks a part of the memory and waits.
 *
 *     refused_forks [--any-number]
 *
 * Prints how many forks went well and the error of the one that did not; with --any-number only the error.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS = 7 << 20, CHILDREN_MAX = 1000, TURNS = 4 };

static uint64_t *word;

static int check(size_t from, size_t step) {
    for (size_t i = from; i < WORDS; i += step) {
        if (word[i] != i * 0x9E3779B97F4A7C15ull)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    int any_number = argc > 1 && strcmp(argv[1], "--any-number") == 0;
    word = malloc(WORDS * sizeof *word);
    for (size_t i = 0; i < WORDS; i++)
        word[i] = i * 0x9E3779B97F4A7C15ull;
    for (int turn = 0; turn < TURNS; turn++) {
        int hold[2];
        if (pipe(hold) != 0)
            return 2;
        int children = 0, wrong = 0;
        pid_t child = 0;
        while (children < CHILDREN_MAX && (child = fork()) > 0)
            children++;
        int error = errno;
        if (child == 0) {
            close(hold[1]);
            int found = check((size_t)children, 5000);
            char byte;
            while (read(hold[0], &byte, 1) < 0 && errno == EINTR) {
            }
            _exit(found);
        }
        close(hold[0]);
        close(hold[1]);
        for (int status; wait(&status) > 0;)
            wrong += status != 0;
        if (!any_number)
            printf("%d children, then ", children);
        printf("%s; %d found a wrong byte or were killed\n", child < 0 ? strerror(error) : "no end", wrong);
        fflush(stdout);
    }
    printf("%s\n", check(0, 1) == 0 ? "all bytes are right" : "a wrong byte");
    return 0;
}

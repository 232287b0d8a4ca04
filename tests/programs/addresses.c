/* A subject for the address sanitizer: allocates, forks, frees and digests.
 *
 *     addresses sound|used|leaky
 *
 * "sound" makes no mistake, "used" reads a byte that it has freed, "leaky" loses three blocks.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 500000, BYTES = 64 };

static uint64_t digest(unsigned char **block) {
    uint64_t sum = 0;
    for (size_t i = 0; i < BLOCKS; i++) {
        for (size_t k = 0; k < BYTES; k += 8)
            sum = sum * 31 + block[i][k];
    }
    return sum;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "sound";
    unsigned char **block = malloc(BLOCKS * sizeof *block);
    for (size_t i = 0; i < BLOCKS; i++) {
        block[i] = malloc(BYTES);
        memset(block[i], (int)(i * 7919), BYTES);
    }
    uint64_t before = digest(block);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(digest(block) == before ? 0 : 3);
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) {
        printf("the child found something else\n");
        return 2;
    }
    printf("%llu\n", (unsigned long long)digest(block));
    fflush(stdout);
    if (strcmp(what, "leaky") == 0)
        block[100] = block[200] = block[300] = NULL;
    for (size_t i = 0; i < BLOCKS; i++)
        free(block[i]);
    if (strcmp(what, "used") == 0)
        printf("%d\n", *(volatile unsigned char *)block[7]);
    free(block);
    return 0;
}

/* Allocates, resizes, frees and digests many blocks through malloc: for a static and for a musl binary.
 *
 *     churn BLOCKS TURNS
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252ull;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(int argc, char **argv) {
    size_t blocks = argc > 1 ? strtoull(argv[1], NULL, 10) : 50000;
    size_t turns = argc > 2 ? strtoull(argv[2], NULL, 10) : 200000;
    unsigned char **block = calloc(blocks, sizeof *block);
    size_t *size = calloc(blocks, sizeof *size);
    unsigned char *mark = calloc(blocks, 1);
    if (block == NULL || size == NULL || mark == NULL)
        return 2;
    for (size_t turn = 0; turn < turns + blocks; turn++) {
        size_t i = turn < blocks ? turn : next() % blocks;
        for (size_t k = 0; k < size[i]; k++) {
            if (block[i][k] != (unsigned char)(mark[i] + k / 16)) {
                printf("wrong byte: block %zu offset %zu expected %02x got %02x\n", i, k, (unsigned)(unsigned char)(mark[i] + k / 16),
                       block[i][k]);
                return 1;
            }
        }
        size[i] = 64 + next() % (turn % 64 == 0 ? 60000 : 3000);
        block[i] = realloc(block[i], size[i]);
        if (block[i] == NULL)
            return 2;
        mark[i] = (unsigned char)next();
        for (size_t k = 0; k < size[i]; k++)
            block[i][k] = (unsigned char)(mark[i] + k / 16);
    }
    uint64_t digest = 14695981039346656037ull;
    for (size_t i = 0; i < blocks; i++) {
        for (size_t k = 0; k < size[i]; k++)
            digest = (digest ^ block[i][k]) * 1099511628211ull;
        free(block[i]);
    }
    printf("%016llx\n", (unsigned long long)digest);
    return 0;
}

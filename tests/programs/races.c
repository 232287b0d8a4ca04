/* A subject for the thread sanitizer: threads that sum up a table under a lock.
 *
 *     races sound|racy
 *
 * "racy" also has two threads write one word without the lock.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, WORDS = 1500000 };

static uint64_t *table, total, unlocked;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int racy;

static void *work(void *argument) {
    size_t number = (size_t)argument;
    uint64_t sum = 0;
    for (size_t i = number; i < WORDS; i += THREADS) {
        table[i] = table[i] * 31 + number;
        sum += table[i];
    }
    pthread_mutex_lock(&lock);
    total += sum;
    pthread_mutex_unlock(&lock);
    if (racy)
        unlocked++;
    return NULL;
}

int main(int argc, char **argv) {
    racy = argc > 1 && strcmp(argv[1], "racy") == 0;
    table = malloc(WORDS * sizeof *table);
    for (size_t i = 0; i < WORDS; i++)
        table[i] = i * 7919 % 60013;
    for (int turn = 0; turn < 3; turn++) {
        pthread_t thread[THREADS];
        for (size_t i = 0; i < THREADS; i++)
            pthread_create(&thread[i], NULL, work, (void *)i);
        for (size_t i = 0; i < THREADS; i++)
            pthread_join(thread[i], NULL);
    }
    free(table);
    printf("%llu\n", (unsigned long long)total);
    return 0;
}

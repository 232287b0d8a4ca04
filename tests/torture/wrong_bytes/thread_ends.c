/* The last thing that the kernel does for a thread is to write a zero where joiners wait, and for that write alone it asks no
 * pager: on an evicted page it is lost, and who joins waits for ever.
 *
 * Threads sleep while others press for eviction, and end without touching their memory again. (To be run with
 * GLIBC_TUNABLES=glibc.pthread.rseq=0: else the kernel touches it for them.)
 */
#define _GNU_SOURCE
#include "race.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void *sleep_and_end(void *argument) {
    struct timespec time = {1, 0};
    (void)argument;
    __asm__ volatile("syscall\n\t"
                     "mov %[exit], %%eax\n\t"
                     "xor %%edi, %%edi\n\t"
                     "syscall"
                     :
                     : "a"(SYS_nanosleep), "D"(&time), "S"(NULL), [exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory");
    return NULL;
}

int main(int argc, char **argv) {
    race_options(argc, argv);
    pthread_t pressure[2] = {race_pressure(race_bytes / 2, 1), race_pressure(race_bytes / 2, 2)};
    do {
        pthread_t row[8];
        for (size_t i = 0; i < 8; i++)
            row[i] = race_thread(sleep_and_end, NULL);
        for (size_t i = 0; i < 8; i++) {
            if (pthread_join(row[i], NULL) != 0)
                wrong("thread %zu cannot be joined", i);
        }
    } while (!race_over());
    pthread_join(pressure[0], NULL);
    pthread_join(pressure[1], NULL);
    race_ok();
}

/* What these programs share: options, threads that press for eviction, and the way they end.
 *
 *     PROGRAM [--seconds N] [--bytes SIZE]
 *
 * Each provokes one of the ways in which a pager from outside can hand a program wrong bytes. Exit status: 0 all right (the last
 * line on stdout is "ok: N checks"), 1 a wrong byte (said on stderr), 2 the test could not run. SIZE is what the program keeps
 * alive; to press for eviction it has to be more than the budget.
 */
#ifndef WRONG_BYTES_RACE_H
#define WRONG_BYTES_RACE_H

#include "../content.h"

#include <pthread.h>
#include <stdatomic.h>

extern uint64_t race_end_ns;
extern uint64_t race_bytes;
extern _Atomic uint64_t race_checks;

/* Reads the options; the defaults are 5 s and 64 MiB. */
void race_options(int argc, char **argv);
bool race_over(void);

void *race_map(size_t bytes);
pthread_t race_thread(void *(*run)(void *), void *argument);

/* Runs `count` threads to their end; each gets its number, from 0. */
void race_threads(void *(*run)(void *), unsigned count);

/* Starts a thread that keeps `bytes` of memory hot, in a random order, and checks them: what makes the pager evict. */
pthread_t race_pressure(size_t bytes, uint32_t region);

/* Prints the count of checks and ends with 0. */
_Noreturn void race_ok(void);

void race_fill(uint8_t *base, size_t pages, uint32_t region, uint32_t version);
void race_check(const uint8_t *base, size_t pages, uint32_t region, uint32_t version, const char *where);

#endif

/* What one torturing thread owns: its regions, its random numbers, its counters.
 *
 * A region is a piece of anonymous memory with one expected version for each page. Only the owning thread touches a region, and
 * signal handlers touch only the owner's signal region, so what a page must hold is known exactly at every moment.
 *
 * Invariant, for each page of a region: bytes == content(seed, region, page, version), or, when the page is `lazy` (MADV_FREE
 * since the last write), all zeros.
 */
#ifndef TORTURE_WORKER_H
#define TORTURE_WORKER_H

#include "content.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#define REGIONS 8
#define SIGNAL_PAGES 16
#define ALT_STACK_PAGES 16

struct page_state {
    uint32_t version; /* 0: zeros */
    uint32_t lazy;    /* 1: MADV_FREE, may have become zeros */
};

struct region {
    uint32_t id;
    uint8_t *base;
    size_t pages;
    struct page_state *state; /* `pages_max` entries */
    size_t pages_max;
};

struct worker {
    unsigned number;
    uint64_t seed;
    uint64_t random;
    size_t bytes; /* what the regions of this worker may hold together */
    uint32_t next_region;
    struct region regions[REGIONS];
    uint8_t *signal_base; /* SIGNAL_PAGES pages that the signal handler checks and rewrites */
    volatile uint32_t signal_versions[SIGNAL_PAGES];
    volatile uint64_t signals_handled;
    sigjmp_buf guard_jump;
    volatile sig_atomic_t guard_armed;
    pthread_t thread;
    int scratch_file; /* unlinked file for reads and writes */
    uint64_t counts[64]; /* operations done, by index in the table of operations */
};

/* The worker that runs on this thread. */
extern _Thread_local struct worker *self;

/* All workers, for signals to one another. */
extern struct worker *workers;
extern unsigned workers_count;
extern volatile int workers_running;

uint64_t pick(uint64_t below);
struct page_name name_of(const struct region *region, size_t page);

/* Anonymous private memory; ends the process when the kernel refuses. */
void *map_anonymous(size_t bytes, int more_flags);
void unmap(void *base, size_t bytes);

void region_open(struct region *region, size_t pages);
void region_close(struct region *region);
struct region *region_any(void);
/* A span of 1 to `max` pages inside a region. */
size_t span_any(const struct region *region, size_t max, size_t *first);
void region_write(struct region *region, size_t first, size_t count);
void region_check(struct region *region, size_t first, size_t count, const char *where);
void region_mark_zero(struct region *region, size_t first, size_t count);

/* Operations; each leaves every region as its state says. */
void op_write(void);
void op_verify(void);
void op_sweep(void);
void op_remap(void);
void op_map_fixed(void);
void op_reopen(void);
void op_grow(void);
void op_move(void);
void op_move_part(void);
void op_dontunmap(void);
void op_dontneed(void);
void op_free(void);
void op_protect(void);
void op_file_over(void);
void op_huge(void);
void op_sparse(void);
void op_populate(void);
void op_lock(void);
void op_guard(void);
void op_break(void);
void op_stack(void);
void op_signal(void);
void op_fork(void);
void op_fork_exec(void);
void op_spawn(void);
void op_vfork(void);
void op_wipe_on_fork(void);
void op_dont_fork(void);
void op_pipe(void);
void op_file_io(void);
void op_vector_io(void);

/* The program that op_fork_exec, op_spawn and op_vfork start: allocates, verifies, ends with 0. */
int exec_child(uint64_t seed);

/* Installs the handlers that op_signal and op_guard need, once for the process, and this thread's alternate stack. */
void signals_install(void);
void signals_thread_start(void);

#endif

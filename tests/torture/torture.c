/* The torturer: a program without any knowledge of zcache that does to its memory whatever Linux allows, and checks every byte.
 *
 *     torture [--seconds N] [--threads N] [--bytes SIZE] [--seed S] [--ops NAME,NAME,…] [--canary]
 *
 * Each thread owns regions of memory whose content it can derive again at any time (content.h) and applies random operations
 * (worker.h) to them. Exit status: 0 all right; 1 a wrong byte, said on stderr; 2 the test could not run.
 * --ops limits the operations to those named (write and verify are always among them); --canary spoils one byte of its own half
 * way through, which must end the process with status 1: a torturer that cannot fail would prove nothing.
 */
#define _GNU_SOURCE
#include "worker.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Thread_local struct worker *self;
struct worker *workers;
unsigned workers_count = 4;
volatile int workers_running;

static uint64_t end_ns;
static uint64_t canary_ns;

struct operation {
    const char *name;
    void (*run)(void);
    unsigned weight;
};

static struct operation operations[] = {
    {"write", op_write, 120},     {"verify", op_verify, 120},     {"sweep", op_sweep, 12},
    {"remap", op_remap, 20},      {"map_fixed", op_map_fixed, 20}, {"reopen", op_reopen, 2},
    {"grow", op_grow, 6},         {"move", op_move, 10},          {"move_part", op_move_part, 16},
    {"dontunmap", op_dontunmap, 4}, {"dontneed", op_dontneed, 30}, {"free", op_free, 30},
    {"protect", op_protect, 16},  {"file_over", op_file_over, 10}, {"huge", op_huge, 1},
    {"sparse", op_sparse, 2},     {"populate", op_populate, 4},   {"lock", op_lock, 4},
    {"guard", op_guard, 4},       {"break", op_break, 4},         {"stack", op_stack, 6},
    {"signal", op_signal, 30},    {"fork", op_fork, 2},           {"fork_exec", op_fork_exec, 1},
    {"spawn", op_spawn, 1},       {"vfork", op_vfork, 1},         {"wipe_on_fork", op_wipe_on_fork, 1},
    {"dont_fork", op_dont_fork, 1}, {"pipe", op_pipe, 24},        {"file_io", op_file_io, 24},
    {"vector_io", op_vector_io, 24},
};

#define OPERATIONS (sizeof operations / sizeof operations[0])

static unsigned weights_total;

static void operations_select(char *names) {
    if (names != NULL) {
        for (size_t i = 2; i < OPERATIONS; i++)
            operations[i].weight |= 0x80000000u;
        for (char *name = strtok(names, ","); name != NULL; name = strtok(NULL, ",")) {
            size_t i = 0;
            while (i < OPERATIONS && strcmp(operations[i].name, name) != 0)
                i++;
            if (i == OPERATIONS) {
                fprintf(stderr, "torture: no operation is called %s\n", name);
                exit(2);
            }
            operations[i].weight &= 0x7fffffffu;
        }
        for (size_t i = 2; i < OPERATIONS; i++) {
            if (operations[i].weight & 0x80000000u)
                operations[i].weight = 0;
        }
    }
    for (size_t i = 0; i < OPERATIONS; i++)
        weights_total += operations[i].weight;
}

static size_t operation_any(void) {
    uint64_t at = pick(weights_total);
    size_t i = 0;
    while (at >= operations[i].weight)
        at -= operations[i++].weight;
    return i;
}

/* An unlinked file in $TMPDIR, for operations on files. */
static int scratch_open(void) {
    const char *directory = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/torture-XXXXXX", directory != NULL ? directory : "/tmp");
    int file = mkostemp(path, O_CLOEXEC);
    if (file < 0)
        cannot("mkostemp");
    unlink(path);
    return file;
}

static void *work(void *argument) {
    self = argument;
    self->random = self->seed;
    self->next_region = 1;
    self->scratch_file = scratch_open();
    signals_thread_start();
    size_t average = self->bytes / REGIONS / PAGE;
    for (int i = 0; i < REGIONS; i++) {
        region_open(&self->regions[i], average / 2 + pick(average) + 2);
        region_write(&self->regions[i], 0, self->regions[i].pages);
    }
    bool spoiled = false;
    while (now_ns() < end_ns) {
        size_t i = operation_any();
        operations[i].run();
        self->counts[i]++;
        if (!spoiled && canary_ns != 0 && self->number == 0 && now_ns() > canary_ns) {
            struct region *region = region_any();
            region_write(region, region->pages / 2, 1);
            region->base[region->pages / 2 * PAGE + 1234] ^= 0x01;
            spoiled = true;
            end_ns = 0;
        }
    }
    for (int i = 0; i < REGIONS; i++)
        region_check(&self->regions[i], 0, self->regions[i].pages, "at the end");
    return NULL;
}

static void report(void) {
    uint64_t total = 0;
    for (size_t i = 0; i < OPERATIONS; i++) {
        uint64_t count = 0;
        for (unsigned w = 0; w < workers_count; w++)
            count += workers[w].counts[i];
        total += count;
        if (count > 0)
            printf("%s %llu\n", operations[i].name, (unsigned long long)count);
    }
    uint64_t signals = 0;
    for (unsigned w = 0; w < workers_count; w++)
        signals += workers[w].signals_handled;
    printf("signals handled %llu\n", (unsigned long long)signals);
    printf("torture: %llu ops, 0 wrong bytes\n", (unsigned long long)total);
}

int main(int argc, char **argv) {
    double seconds = 10;
    uint64_t bytes = (uint64_t)64 << 20, seed = 1;
    char *names = NULL;
    bool canary = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--canary") == 0) {
            canary = true;
            continue;
        }
        if (strcmp(argv[i], "--exec-child") == 0)
            return exec_child(strtoull(value, NULL, 10));
        if (strcmp(argv[i], "--seconds") == 0)
            seconds = atof(value);
        else if (strcmp(argv[i], "--threads") == 0)
            workers_count = (unsigned)atoi(value);
        else if (strcmp(argv[i], "--bytes") == 0)
            bytes = parse_size(value);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--ops") == 0)
            names = argv[i + 1];
        else {
            fprintf(stderr, "torture: unknown option %s\n", argv[i]);
            return 2;
        }
        i++;
    }
    if (workers_count == 0 || bytes / workers_count < REGIONS * 16 * PAGE) {
        fprintf(stderr, "torture: too few threads or bytes\n");
        return 2;
    }
    operations_select(names);
    signals_install();
    workers = map_anonymous(workers_count * sizeof *workers, 0);
    end_ns = now_ns() + (uint64_t)(seconds * 1e9);
    canary_ns = canary ? now_ns() + (uint64_t)(seconds * 5e8) : 0;
    for (unsigned w = 0; w < workers_count; w++) {
        workers[w].number = w;
        workers[w].seed = seed * 1000003 + w;
        workers[w].bytes = bytes / workers_count;
    }
    /* The main thread is worker 0, so that the kernel-grown stack is tested as well. */
    workers[0].thread = pthread_self();
    for (unsigned w = 1; w < workers_count; w++) {
        if (pthread_create(&workers[w].thread, NULL, work, &workers[w]) != 0)
            cannot("pthread_create");
    }
    workers_running = 1;
    work(&workers[0]);
    for (unsigned w = 1; w < workers_count; w++)
        pthread_join(workers[w].thread, NULL);
    report();
    return 0;
}

/* Operations that make processes: fork, fork and exec, posix_spawn, vfork, and the advice that changes what a child gets. */
#define _GNU_SOURCE
#include "worker.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void wait_for(pid_t child, const char *what) {
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            cannot("waitpid");
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    if (WIFSIGNALED(status))
        wrong("%s: the child %d died of signal %d", what, (int)child, WTERMSIG(status));
    wrong("%s: the child %d ended with status %d", what, (int)child, WEXITSTATUS(status));
}

static pid_t forked(void) {
    pid_t child = fork();
    if (child < 0)
        cannot("fork");
    if (child == 0) {
        /* The other threads do not exist here. */
        workers_running = 0;
        self->random ^= (uint64_t)getpid() << 20;
    }
    return child;
}

/* Memory of the child's own, more than it inherited a need for. */
static void grow_in_child(void) {
    size_t pages = 64 + pick(512);
    uint8_t *base = map_anonymous(pages * PAGE, 0);
    struct page_name name = {self->seed, self->next_region++, 0, 7};
    for (name.page = 0; name.page < pages; name.page++)
        page_fill(base + name.page * PAGE, name);
    for (name.page = 0; name.page < pages; name.page++)
        page_check(base + name.page * PAGE, name, "child's own memory");
}

/* The child sees what the parent had, changes its copy, and the parent's stays. */
void op_fork(void) {
    pid_t child = forked();
    if (child == 0) {
        bool nested = pick(8) == 0;
        for (int i = 0; i < 2; i++) {
            struct region *region = region_any();
            region_check(region, 0, region->pages, "child's snapshot");
            size_t first, count = span_any(region, 256, &first);
            region_write(region, first, count);
            region_check(region, 0, region->pages, "child's changed copy");
        }
        grow_in_child();
        if (nested)
            op_fork();
        for (int i = 0; i < REGIONS; i++)
            region_check(&self->regions[i], 0, self->regions[i].pages, "child at its end");
        _exit(0);
    }
    for (int i = 0; i < 4; i++) {
        op_write();
        op_verify();
        if (pick(4) == 0)
            op_dontneed();
    }
    wait_for(child, "fork");
    op_sweep();
}

int exec_child(uint64_t seed) {
    struct worker worker;
    memset(&worker, 0, sizeof worker);
    worker.seed = worker.random = seed;
    self = &worker;
    size_t pages = 256 + pick(512);
    uint8_t *base = map_anonymous(pages * PAGE, 0);
    struct page_name name = {seed, 1, 0, 1};
    for (int round = 0; round < 2; round++) {
        for (name.page = 0; name.page < pages; name.page++) {
            if (round == 0)
                page_fill(base + name.page * PAGE, name);
            else
                page_check(base + name.page * PAGE, name, "after exec");
        }
    }
    return 0;
}

static void child_arguments(char *seed, size_t size, char *arguments[4]) {
    snprintf(seed, size, "%llu", (unsigned long long)random_next(&self->random));
    arguments[0] = "torture";
    arguments[1] = "--exec-child";
    arguments[2] = seed;
    arguments[3] = NULL;
}

void op_fork_exec(void) {
    char seed[24], *arguments[4];
    child_arguments(seed, sizeof seed, arguments);
    pid_t child = forked();
    if (child == 0) {
        op_verify();
        execv("/proc/self/exe", arguments);
        cannot("execv");
    }
    op_verify();
    wait_for(child, "fork_exec");
}

void op_spawn(void) {
    char seed[24], *arguments[4];
    child_arguments(seed, sizeof seed, arguments);
    pid_t child;
    int error = posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ);
    if (error != 0) {
        errno = error;
        cannot("posix_spawn");
    }
    op_verify();
    wait_for(child, "spawn");
}

void op_vfork(void) {
    char seed[24], *arguments[4];
    child_arguments(seed, sizeof seed, arguments);
    pid_t child = vfork();
    if (child < 0)
        cannot("vfork");
    if (child == 0) {
        execv("/proc/self/exe", arguments);
        _exit(2);
    }
    op_verify();
    wait_for(child, "vfork");
}

/* MADV_WIPEONFORK: zeros in the child, data in the parent. */
void op_wipe_on_fork(void) {
    const size_t pages = 32;
    uint8_t *base = map_anonymous(pages * PAGE, 0);
    struct page_name name = {self->seed, self->next_region++, 0, 1};
    for (name.page = 0; name.page < pages; name.page++)
        page_fill(base + name.page * PAGE, name);
    if (madvise(base, pages * PAGE, MADV_WIPEONFORK) != 0)
        cannot("madvise wipeonfork");
    pid_t child = forked();
    if (child == 0) {
        name.version = 0;
        for (name.page = 0; name.page < pages; name.page++)
            page_check(base + name.page * PAGE, name, "wiped on fork");
        name.version = 2;
        for (name.page = 0; name.page < pages; name.page++)
            page_fill(base + name.page * PAGE, name);
        for (name.page = 0; name.page < pages; name.page++)
            page_check(base + name.page * PAGE, name, "wiped, then written");
        _exit(0);
    }
    wait_for(child, "wipe_on_fork");
    for (name.page = 0; name.page < pages; name.page++)
        page_check(base + name.page * PAGE, name, "wipe_on_fork parent");
    unmap(base, pages * PAGE);
}

/* MADV_DONTFORK: not there in the child, data in the parent. */
void op_dont_fork(void) {
    const size_t pages = 32;
    uint8_t *base = map_anonymous(pages * PAGE, 0);
    struct page_name name = {self->seed, self->next_region++, 0, 1};
    for (name.page = 0; name.page < pages; name.page++)
        page_fill(base + name.page * PAGE, name);
    if (madvise(base, pages * PAGE, MADV_DONTFORK) != 0)
        cannot("madvise dontfork");
    pid_t child = forked();
    if (child == 0) {
        unsigned char resident;
        if (mincore(base, PAGE, &resident) == 0)
            wrong("dont_fork: the memory is mapped in the child");
        _exit(0);
    }
    wait_for(child, "dont_fork");
    for (name.page = 0; name.page < pages; name.page++)
        page_check(base + name.page * PAGE, name, "dont_fork parent");
    unmap(base, pages * PAGE);
}

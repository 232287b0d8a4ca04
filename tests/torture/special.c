/* Operations on memory with special rules: protection, files over memory, guard pages, the break, stacks, signals. */
#define _GNU_SOURCE
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* PROT_NONE or PROT_READ for a moment, and back. */
void op_protect(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 32, &first);
    void *at = region->base + first * PAGE;
    bool readable = pick(2);
    if (mprotect(at, count * PAGE, readable ? PROT_READ : PROT_NONE) != 0)
        cannot("mprotect");
    usleep(100);
    if (readable)
        region_check(region, first, count, "protect read-only");
    if (mprotect(at, count * PAGE, PROT_READ | PROT_WRITE) != 0)
        cannot("mprotect back");
    region_check(region, first, count, "protect back");
    region_write(region, first, 1);
}

/* A private mapping of a file over anonymous memory, and anonymous memory over it again. */
void op_file_over(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 16, &first);
    uint8_t *at = region->base + first * PAGE;
    struct page_name name = {self->seed, self->next_region++, 0, 1};
    uint8_t page[PAGE] __attribute__((aligned(8)));
    for (name.page = 0; name.page < count; name.page++) {
        page_fill(page, name);
        if (pwrite(self->scratch_file, page, PAGE, (off_t)(name.page * PAGE)) != (ssize_t)PAGE)
            cannot("pwrite");
    }
    if (mmap(at, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, self->scratch_file, 0) != (void *)at)
        cannot("mmap of a file");
    struct page_name changed = name;
    changed.version = 2;
    for (size_t i = 0; i < count; i += 2) {
        changed.page = (uint32_t)i;
        page_fill(at + i * PAGE, changed);
    }
    usleep(100);
    for (size_t i = 0; i < count; i++) {
        name.page = (uint32_t)i;
        name.version = i % 2 == 0 ? 2 : 1;
        page_check(at + i * PAGE, name, "private file page");
    }
    if (mmap(at, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)at)
        cannot("mmap over a file");
    region_mark_zero(region, first, count);
    region_check(region, first, count, "anonymous over file");
    region_write(region, first, count);
}

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)info;
    (void)context;
    if (self != NULL && self->guard_armed) {
        self->guard_armed = 0;
        siglongjmp(self->guard_jump, number);
    }
    signal(number, SIG_DFL);
}

/* Reading a guard page is a SIGSEGV, next to pages that stay right. */
void op_guard(void) {
    const size_t pages = 8;
    uint8_t *base = map_anonymous(pages * PAGE, 0);
    struct page_name name = {self->seed, self->next_region++, 0, 1};
    for (name.page = 1; name.page < pages - 1; name.page++)
        page_fill(base + name.page * PAGE, name);
    if (mprotect(base, PAGE, PROT_NONE) != 0 || mprotect(base + (pages - 1) * PAGE, PAGE, PROT_NONE) != 0)
        cannot("mprotect of a guard page");
    volatile const uint8_t *guard = pick(2) ? base : base + (pages - 1) * PAGE;
    int got = sigsetjmp(self->guard_jump, 1);
    if (got == 0) {
        self->guard_armed = 1;
        (void)*guard;
        self->guard_armed = 0;
        wrong("guard: a PROT_NONE page could be read");
    }
    if (got != SIGSEGV)
        wrong("guard: signal %d instead of SIGSEGV", got);
    for (name.page = 1; name.page < pages - 1; name.page++)
        page_check(base + name.page * PAGE, name, "guard neighbour");
    unmap(base, pages * PAGE);
}

/* The break grows and shrinks; what comes back after shrinking is zeros. */
void op_break(void) {
    static pthread_mutex_t break_lock = PTHREAD_MUTEX_INITIALIZER;
    if (pthread_mutex_trylock(&break_lock) != 0)
        return;
    const size_t pages = 64;
    struct page_name name = {self->seed, self->next_region++, 0, 0};
    for (int round = 0; round < 2; round++) {
        uint8_t *base = sbrk((intptr_t)((pages + 1) * PAGE));
        if (base == (void *)-1) {
            /* The address space above the break may be taken. */
            break;
        }
        uint8_t *first = (uint8_t *)(((uintptr_t)base + PAGE - 1) & ~(PAGE - 1));
        name.version = 0;
        /* The first page may be the tail of what the allocator used; it is left alone. */
        for (name.page = 1; name.page < pages; name.page++)
            page_check(first + name.page * PAGE, name, "break fresh");
        name.version = 1 + (uint32_t)round;
        for (name.page = 1; name.page < pages; name.page++)
            page_fill(first + name.page * PAGE, name);
        usleep(100);
        for (name.page = 1; name.page < pages; name.page++)
            page_check(first + name.page * PAGE, name, "break");
        if (sbrk(0) != base + (pages + 1) * PAGE)
            wrong("break: somebody else moved the break");
        if (sbrk(-(intptr_t)((pages + 1) * PAGE)) == (void *)-1)
            cannot("sbrk shrink");
    }
    pthread_mutex_unlock(&break_lock);
}

static void recurse(unsigned depth, uint32_t region) {
    uint8_t frame[2 * PAGE];
    uint8_t *page = (uint8_t *)(((uintptr_t)frame + 7) & ~(uintptr_t)7);
    struct page_name name = {self->seed, region, depth, 1};
    page_fill(page, name);
    if (depth > 0)
        recurse(depth - 1, region);
    page_check(page, name, "stack");
}

/* Deep recursion: the stack grows, and each frame is right on the way back. */
void op_stack(void) { recurse((unsigned)pick(128), self->next_region++); }

/* Checks one page of the thread's own, which is probably evicted, and writes its next version. */
static void on_signal(int number) {
    (void)number;
    int saved = errno;
    if (self != NULL && self->signal_base != NULL) {
        size_t i = self->signals_handled % SIGNAL_PAGES;
        struct page_name name = {self->seed, 0, (uint32_t)i, self->signal_versions[i]};
        page_check(self->signal_base + i * PAGE, name, "signal handler");
        name.version = ++self->signal_versions[i];
        page_fill(self->signal_base + i * PAGE, name);
        self->signals_handled++;
    }
    errno = saved;
}

void signals_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaddset(&action.sa_mask, SIGURG);
    sigaddset(&action.sa_mask, SIGWINCH);
    /* SIGURG runs on the alternate stack, SIGWINCH on the thread's own. */
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigaction(SIGURG, &action, NULL);
    action.sa_flags = SA_RESTART;
    sigaction(SIGWINCH, &action, NULL);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, NULL);
}

void signals_thread_start(void) {
    self->signal_base = map_anonymous(SIGNAL_PAGES * PAGE, 0);
    stack_t stack = {.ss_sp = map_anonymous(ALT_STACK_PAGES * PAGE, 0), .ss_size = ALT_STACK_PAGES * PAGE};
    if (sigaltstack(&stack, NULL) != 0)
        cannot("sigaltstack");
}

/* A signal for this thread or another one. */
void op_signal(void) {
    struct worker *to = &workers[pick(workers_count)];
    if (workers_running)
        pthread_kill(to->thread, pick(2) ? SIGURG : SIGWINCH);
    for (size_t i = 0; i < SIGNAL_PAGES; i++) {
        /* The handler may run in between, on this thread only: take the version again if it did. */
        uint32_t version;
        uint8_t copy[PAGE] __attribute__((aligned(8)));
        do {
            version = self->signal_versions[i];
            memcpy(copy, self->signal_base + i * PAGE, PAGE);
        } while (version != self->signal_versions[i]);
        page_check(copy, (struct page_name){self->seed, 0, (uint32_t)i, version}, "signal page");
    }
}

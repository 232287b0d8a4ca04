/* Regions and the operations that change the memory map under them: see worker.h. */
#define _GNU_SOURCE
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

uint64_t pick(uint64_t below) { return random_next(&self->random) % below; }

struct page_name name_of(const struct region *region, size_t page) {
    return (struct page_name){self->seed, region->id, (uint32_t)page, region->state[page].version};
}

void *map_anonymous(size_t bytes, int more_flags) {
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | more_flags, -1, 0);
    if (base == MAP_FAILED)
        cannot("mmap");
    return base;
}

void unmap(void *base, size_t bytes) {
    if (munmap(base, bytes) != 0)
        cannot("munmap");
}

void region_open(struct region *region, size_t pages) {
    region->id = self->next_region++;
    region->pages = pages;
    region->pages_max = pages * 2;
    region->base = map_anonymous(pages * PAGE, 0);
    region->state = map_anonymous(region->pages_max * sizeof *region->state, 0);
}

void region_close(struct region *region) {
    unmap(region->base, region->pages * PAGE);
    unmap(region->state, region->pages_max * sizeof *region->state);
}

struct region *region_any(void) { return &self->regions[pick(REGIONS)]; }

size_t span_any(const struct region *region, size_t max, size_t *first) {
    *first = pick(region->pages);
    size_t left = region->pages - *first;
    size_t count = 1 + pick(max);
    return count < left ? count : left;
}

void region_write(struct region *region, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        region->state[i].version++;
        region->state[i].lazy = 0;
        page_fill(region->base + i * PAGE, name_of(region, i));
    }
}

void region_check(struct region *region, size_t first, size_t count, const char *where) {
    for (size_t i = first; i < first + count; i++) {
        const uint8_t *page = region->base + i * PAGE;
        if (region->state[i].lazy && page_is_zero(page)) {
            /* A freed page that reads as zeros stays so until it is written. */
            region->state[i].version = 0;
            region->state[i].lazy = 0;
        }
        if (region->state[i].lazy && !page_is(page, name_of(region, i)) && page_is_zero(page)) {
            /* It was freed between the two looks. */
            region->state[i].version = 0;
            region->state[i].lazy = 0;
        }
        page_check(page, name_of(region, i), where);
    }
}

void region_mark_zero(struct region *region, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++)
        region->state[i] = (struct page_state){0, 0};
}

void op_write(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 64, &first);
    region_write(region, first, count);
}

void op_verify(void) {
    struct region *region = region_any();
    for (int i = 0; i < 16; i++) {
        size_t first, count = span_any(region, 4, &first);
        region_check(region, first, count, "verify");
    }
}

void op_sweep(void) {
    struct region *region = region_any();
    region_check(region, 0, region->pages, "sweep");
}

/* mremap refuses a range that several mappings make up (EFAULT); such a region is exchanged for one of a single mapping. The
 * place that the refused move was to go to is left alone: the kernel may have unmapped it, and another thread may be there. */
static void region_renew(struct region *region) {
    if (errno != EFAULT)
        cannot("mremap");
    size_t pages = region->pages;
    region_check(region, 0, pages, "renew");
    region_close(region);
    region_open(region, pages);
    region_write(region, 0, pages);
}

/* A hole in the middle and at once a fresh mapping in it, which must read as zeros. */
void op_remap(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 64, &first);
    uint8_t *at = region->base + first * PAGE;
    /* Another thread may take the hole; the fixed mapping below says so instead of replacing it. */
    unmap(at, count * PAGE);
    void *again = mmap(at, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (again == MAP_FAILED && errno == EEXIST) {
        /* The hole is lost: give up the region piece by piece and open another. */
        if (first > 0)
            unmap(region->base, first * PAGE);
        if (first + count < region->pages)
            unmap(at + count * PAGE, (region->pages - first - count) * PAGE);
        unmap(region->state, region->pages_max * sizeof *region->state);
        region_open(region, region->pages);
        return;
    }
    if (again != (void *)at)
        cannot("mmap of a hole");
    region_mark_zero(region, first, count);
    if (pick(2))
        region_write(region, first, count);
    region_check(region, first, count, "remap");
}

/* A new mapping straight over the old one. */
void op_map_fixed(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 64, &first);
    void *at = region->base + first * PAGE;
    if (mmap(at, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
        cannot("mmap fixed");
    region_mark_zero(region, first, count);
    region_check(region, first, count, "map_fixed");
    region_write(region, first, 1 + pick(count));
}

/* Closes a region and opens one of another size. */
void op_reopen(void) {
    struct region *region = region_any();
    region_check(region, 0, region->pages, "reopen");
    region_close(region);
    size_t average = self->bytes / REGIONS / PAGE;
    region_open(region, average / 2 + pick(average));
    region_write(region, 0, region->pages);
}

/* Grows in place or by a move, and shrinks again. */
void op_grow(void) {
    struct region *region = region_any();
    size_t before = region->pages;
    size_t after = before + 1 + pick(before / 4 + 1);
    if (after > region->pages_max)
        return;
    int flags = pick(2) ? MREMAP_MAYMOVE : 0;
    void *moved = mremap(region->base, before * PAGE, after * PAGE, flags);
    if (moved == MAP_FAILED) {
        if (flags == 0 && errno == ENOMEM)
            return;
        region_renew(region);
        return;
    }
    region->base = moved;
    region->pages = after;
    region_mark_zero(region, before, after - before);
    region_check(region, before, after - before, "grow");
    region_write(region, before, after - before);
    region_check(region, 0, before, "grow old part");
    if (mremap(region->base, after * PAGE, before * PAGE, 0) == MAP_FAILED)
        cannot("mremap shrink");
    region->pages = before;
}

/* Moves the whole region to a reserved place. */
void op_move(void) {
    struct region *region = region_any();
    size_t bytes = region->pages * PAGE;
    void *place = map_anonymous(bytes, MAP_NORESERVE);
    if (pick(2))
        memset(place, 0x5a, PAGE);
    if (mremap(region->base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) != place) {
        region_renew(region);
        return;
    }
    region->base = place;
    size_t first, count = span_any(region, 256, &first);
    region_check(region, first, count, "move");
}

/* Moves some pages away, checks them there, and brings them back. */
void op_move_part(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 64, &first);
    uint8_t *home = region->base + first * PAGE;
    uint8_t *away = map_anonymous(count * PAGE, 0);
    if (mremap(home, count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, away) != away) {
        region_renew(region);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *page = away + i * PAGE;
        if (region->state[first + i].lazy && page_is_zero(page))
            region->state[first + i] = (struct page_state){0, 0};
        if (!region->state[first + i].lazy)
            page_check(page, name_of(region, first + i), "move_part away");
    }
    if (mremap(away, count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, home) != home)
        cannot("mremap back");
    region_check(region, first, count, "move_part back");
}

/* MREMAP_DONTUNMAP: the new place has the data, the old one reads as zeros and can be used on. */
void op_dontunmap(void) {
    struct region *region = region_any();
    size_t bytes = region->pages * PAGE;
    uint8_t *old = region->base;
    uint8_t *moved = mremap(old, bytes, bytes, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    if (moved == MAP_FAILED) {
        region_renew(region);
        return;
    }
    region->base = moved;
    for (int i = 0; i < 16; i++) {
        const uint8_t *page = old + pick(bytes / PAGE) * PAGE;
        page_check(page, (struct page_name){self->seed, region->id, 0, 0}, "dontunmap old place");
    }
    size_t first, count = span_any(region, 64, &first);
    region_check(region, first, count, "dontunmap");
    unmap(old, bytes);
}

void op_dontneed(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 64, &first);
    if (madvise(region->base + first * PAGE, count * PAGE, MADV_DONTNEED) != 0)
        cannot("madvise dontneed");
    region_mark_zero(region, first, count);
    region_check(region, first, count, "dontneed");
    if (pick(2)) {
        usleep(200);
        region_check(region, first, count, "dontneed later");
    }
    region_write(region, first, 1 + pick(count));
}

/* MADV_FREE: old or zero until written; a write, even of one byte, makes the page stable. */
void op_free(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 32, &first);
    if (madvise(region->base + first * PAGE, count * PAGE, MADV_FREE) != 0)
        cannot("madvise free");
    for (size_t i = first; i < first + count; i++)
        region->state[i].lazy = 1;
    region_check(region, first, count, "free");
    size_t page = first + pick(count);
    uint8_t *at = region->base + page * PAGE;
    uint8_t expected[PAGE] __attribute__((aligned(8)));
    *(volatile uint8_t *)at = 0xa5;
    page_fill(expected, name_of(region, page));
    expected[0] = 0xa5;
    for (int i = 0; i < 2; i++) {
        if (memcmp(at, expected, PAGE) != 0) {
            if (at[0] != 0xa5)
                wrong("free: the written byte is lost: region %u page %zu expected a5 got %02x", region->id, page, at[0]);
            uint8_t copy[PAGE] __attribute__((aligned(8)));
            memcpy(copy, at, PAGE);
            copy[0] = 0;
            if (!page_is_zero(copy) || i == 1 || region->state[page].version == 0)
                wrong("free: torn page after a write: region %u page %zu version %u", region->id, page, region->state[page].version);
            memset(expected, 0, PAGE);
            expected[0] = 0xa5;
        }
        usleep(50);
    }
    region_write(region, page, 1);
    region_check(region, page, 1, "free then written");
}

/* A region of huge pages with a hole punched in. */
void op_huge(void) {
    const size_t huge = (size_t)2 << 20;
    uint8_t *place = map_anonymous(3 * huge, MAP_NORESERVE);
    uint8_t *base = (uint8_t *)(((uintptr_t)place + huge - 1) & ~(huge - 1));
    /* A kernel without huge pages refuses the advice; ordinary pages do for the test as well. */
    (void)madvise(base, huge, MADV_HUGEPAGE);
    struct page_name name = {self->seed, self->next_region++, 0, 1};
    for (name.page = 0; name.page < huge / PAGE; name.page++)
        page_fill(base + name.page * PAGE, name);
    uint32_t hole = (uint32_t)pick(huge / PAGE);
    if (madvise(base + hole * PAGE, PAGE, MADV_DONTNEED) != 0)
        cannot("madvise dontneed in a huge page");
    for (name.page = 0; name.page < huge / PAGE; name.page++) {
        name.version = name.page == hole ? 0 : 1;
        page_check(base + name.page * PAGE, name, "huge");
    }
    unmap(place, 3 * huge);
}

/* 64 GiB of address space of which a few pages are touched. */
void op_sparse(void) {
    const size_t giant = (size_t)64 << 30;
    uint8_t *base = mmap(NULL, giant, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        cannot("mmap of 64 GiB");
    uint64_t place = self->random;
    struct page_name name = {self->seed, self->next_region++, 0, 1};
    for (int round = 0; round < 2; round++) {
        uint64_t state = place;
        for (int i = 0; i < 48; i++) {
            size_t page = random_next(&state) % (giant / PAGE / 2) * 2;
            name.page = (uint32_t)page;
            name.version = 1;
            if (round == 0) {
                page_fill(base + page * PAGE, name);
                continue;
            }
            page_check(base + page * PAGE, name, "sparse");
            name.version = 0;
            page_check(base + (page + 1) * PAGE, name, "sparse neighbour");
        }
    }
    (void)pick(2);
    unmap(base, giant);
}

void op_populate(void) {
    size_t pages = 1 + pick(128);
    uint8_t *base = map_anonymous(pages * PAGE, MAP_POPULATE);
    struct page_name name = {self->seed, self->next_region++, 0, 0};
    for (name.page = 0; name.page < pages; name.page++)
        page_check(base + name.page * PAGE, name, "populate");
    name.version = 1;
    for (name.page = 0; name.page < pages; name.page++)
        page_fill(base + name.page * PAGE, name);
    for (name.page = 0; name.page < pages; name.page++)
        page_check(base + name.page * PAGE, name, "populate written");
    unmap(base, pages * PAGE);
}

/* Locked pages must not be lost; locking is refused beyond RLIMIT_MEMLOCK, which is no error here. */
void op_lock(void) {
    struct region *region = region_any();
    size_t first, count = span_any(region, 16, &first);
    void *at = region->base + first * PAGE;
    bool locked = mlock(at, count * PAGE) == 0;
    region_check(region, first, count, "lock");
    region_write(region, first, count);
    usleep(200);
    region_check(region, first, count, "locked");
    if (locked && munlock(at, count * PAGE) != 0)
        cannot("munlock");
}

/* Page contents that can be derived again, and so be checked byte by byte.
 *
 * A page is named by (seed, region, page, version). Its 4096 bytes follow from the name alone; version 0 is the page that the
 * kernel hands out fresh: all zeros. Every page that is not a repeated word also carries its own name and a checksum, so that a
 * wrong page tells which page it really is: stale (an older version), misplaced (another page) or torn.
 *
 * Invariant: a program that uses these functions either sees the bytes that it wrote or ends at once with status 1.
 */
#ifndef TORTURE_CONTENT_H
#define TORTURE_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE ((size_t)4096)

/* Ways in which a page can be filled; which one a page gets follows from its name. */
enum content_kind {
    CONTENT_SAME_FILLED,    /* one repeated non-zero 8-byte word */
    CONTENT_RANDOM,         /* does not compress */
    CONTENT_TEXT,           /* words of a small vocabulary */
    CONTENT_SPARSE,         /* mostly zeros, a few words set */
    CONTENT_HALF_RANDOM,    /* compresses to about a half */
    CONTENT_COUNTERS,       /* slowly growing integers, as in tables of pointers */
    CONTENT_KINDS
};

struct page_name {
    uint64_t seed;
    uint32_t region;
    uint32_t page;
    uint32_t version;
};

/* A cheap generator of random numbers (splitmix64); the state is the caller's. */
uint64_t random_next(uint64_t *state);

/* One well-mixed word of a page's name. */
uint64_t page_hash(struct page_name name);

/* Writes the content of `name` to the 4096 bytes at `out`. */
void page_fill(void *out, struct page_name name);

/* Whether the 4096 bytes at `page` are exactly the content of `name`. */
bool page_is(const void *page, struct page_name name);

/* Whether the 4096 bytes at `page` are all zero. */
bool page_is_zero(const void *page);

/* Ends the process with status 1, after saying which byte is wrong, when the page is not `name`. */
void page_check(const void *page, struct page_name name, const char *where);

/* Says what is wrong on stderr, in one write, and ends the process with status 1. */
_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Says which system call failed and ends the process with status 2: the test itself could not run. */
_Noreturn void cannot(const char *call);

/* Nanoseconds of the monotonic clock. */
uint64_t now_ns(void);

/* Number with a suffix k, M or G (powers of 1024). */
uint64_t parse_size(const char *text);

#endif

/* Page contents that can be derived again: see content.h. */
#define _GNU_SOURCE
#include "content.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HEADER_MAGIC 0x7a70616765303031ull
#define WORDS (PAGE / sizeof(uint64_t))

/* The first words of a page that is not same-filled. */
struct header {
    uint64_t magic;
    uint64_t seed;
    uint32_t region;
    uint32_t page;
    uint32_t version;
    uint32_t kind;
    uint64_t checksum; /* of the words after the header */
};

#define HEADER_WORDS (sizeof(struct header) / sizeof(uint64_t))

uint64_t random_next(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t page_hash(struct page_name name) {
    uint64_t state = name.seed ^ ((uint64_t)name.region << 32 | name.page);
    uint64_t first = random_next(&state);
    state = first ^ name.version;
    return random_next(&state);
}

static uint64_t checksum_of(const uint64_t *words) {
    uint64_t sum = 0xcbf29ce484222325ull;
    for (size_t i = HEADER_WORDS; i < WORDS; i++)
        sum = (sum ^ words[i]) * 0x100000001b3ull;
    return sum;
}

static void fill_text(char *out, size_t bytes, uint64_t *state) {
    static const char vocabulary[16][12] = {"page ",  "frame ", "block ", "tier ",  "fault ", "reclaim ", "evict ", "store ",
                                            "codec ", "swap ",  "pool ",  "index ", "shard ", "handle ",  "the ",   "of\n"};
    size_t at = 0;
    while (at < bytes) {
        const char *word = vocabulary[random_next(state) % 16];
        for (size_t i = 0; word[i] != '\0' && at < bytes; i++)
            out[at++] = word[i];
    }
}

void page_fill(void *out, struct page_name name) {
    uint64_t *words = out;
    if (name.version == 0) {
        memset(out, 0, PAGE);
        return;
    }
    uint64_t state = page_hash(name);
    enum content_kind kind = (enum content_kind)(state % CONTENT_KINDS);
    if (kind == CONTENT_SAME_FILLED) {
        uint64_t word = random_next(&state) | 1;
        for (size_t i = 0; i < WORDS; i++)
            words[i] = word;
        return;
    }
    uint64_t *body = words + HEADER_WORDS;
    size_t count = WORDS - HEADER_WORDS;
    switch (kind) {
    case CONTENT_RANDOM:
        for (size_t i = 0; i < count; i++)
            body[i] = random_next(&state);
        break;
    case CONTENT_TEXT:
        fill_text((char *)body, count * sizeof(uint64_t), &state);
        break;
    case CONTENT_SPARSE:
        memset(body, 0, count * sizeof(uint64_t));
        for (int i = 0; i < 8; i++)
            body[random_next(&state) % count] = random_next(&state);
        break;
    case CONTENT_HALF_RANDOM:
        for (size_t i = 0; i < count; i++)
            body[i] = i % 2 == 0 ? random_next(&state) : i;
        break;
    default:
        for (size_t i = 0; i < count; i++)
            body[i] = 0x00007f0000000000ull + (state & 0xffffff) + i * 64;
        break;
    }
    struct header header = {HEADER_MAGIC, name.seed, name.region, name.page, name.version, kind, checksum_of(words)};
    memcpy(out, &header, sizeof header);
}

bool page_is(const void *page, struct page_name name) {
    uint64_t expected[WORDS];
    page_fill(expected, name);
    return memcmp(page, expected, PAGE) == 0;
}

bool page_is_zero(const void *page) {
    const uint64_t *words = page;
    uint64_t any = 0;
    for (size_t i = 0; i < WORDS; i++)
        any |= words[i];
    return any == 0;
}

/* What the wrong page looks like, as far as it tells. */
static void describe(char *out, size_t size, const void *page) {
    struct header header;
    memcpy(&header, page, sizeof header);
    if (page_is_zero(page))
        snprintf(out, size, "the page is all zeros");
    else if (header.magic == HEADER_MAGIC)
        snprintf(out, size, "the page says region %u page %u version %u, checksum %s", header.region, header.page, header.version,
                 header.checksum == checksum_of(page) ? "right" : "wrong");
    else
        snprintf(out, size, "the page has no header, first word %016llx", (unsigned long long)header.magic);
}

void page_check(const void *page, struct page_name name, const char *where) {
    uint8_t expected[PAGE] __attribute__((aligned(8)));
    uint8_t got[PAGE] __attribute__((aligned(8)));
    page_fill(expected, name);
    if (memcmp(page, expected, PAGE) == 0)
        return;
    memcpy(got, page, PAGE);
    size_t first = 0, count = 0;
    for (size_t i = PAGE; i-- > 0;) {
        if (got[i] != expected[i]) {
            first = i;
            count++;
        }
    }
    char what[160];
    describe(what, sizeof what, got);
    wrong("%s: wrong byte: region %u page %u version %u offset %zu expected %02x got %02x, %zu bytes differ%s; %s; address %p", where,
          name.region, name.page, name.version, first, expected[first], got[first], count,
          count == 0 ? " (right when read again)" : "", what, page);
}

void wrong(const char *format, ...) {
    char line[640];
    int at = snprintf(line, sizeof line - 1, "WRONG pid %d tid %d: ", (int)getpid(), (int)gettid());
    va_list args;
    va_start(args, format);
    at += vsnprintf(line + at, sizeof line - 1 - (size_t)at, format, args);
    va_end(args);
    if (at > (int)sizeof line - 2)
        at = (int)sizeof line - 2;
    line[at] = '\n';
    if (write(STDERR_FILENO, line, (size_t)at + 1) < 0)
        _exit(1);
    _exit(1);
}

void cannot(const char *call) {
    char line[160];
    int at = snprintf(line, sizeof line, "cannot run the test: %s: %s (pid %d)\n", call, strerror(errno), (int)getpid());
    if (write(STDERR_FILENO, line, (size_t)at) < 0)
        _exit(2);
    _exit(2);
}

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint64_t parse_size(const char *text) {
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    switch (*end) {
    case 'k':
    case 'K':
        return number << 10;
    case 'm':
    case 'M':
        return number << 20;
    case 'g':
    case 'G':
        return number << 30;
    default:
        return number;
    }
}

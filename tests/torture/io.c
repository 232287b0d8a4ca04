/* Operations in which the kernel reads and writes memory that is probably evicted: pipes, files, vectors. */
#define _GNU_SOURCE
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static void pipe_open(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC) != 0)
        cannot("pipe2");
}

static void pipe_close(int ends[2]) {
    close(ends[0]);
    close(ends[1]);
}

/* Both spans of pages of one region, not overlapping, of the same length. */
static size_t two_spans(struct region *region, size_t max, size_t *from, size_t *to) {
    size_t half = region->pages / 2;
    size_t count = 1 + pick(max);
    if (count > half)
        count = half;
    *from = pick(half - count + 1);
    *to = half + pick(half - count + 1);
    if (pick(2)) {
        size_t swap = *from;
        *from = *to;
        *to = swap;
    }
    return count;
}

/* What the kernel copied to `to` must be the pages at `from`; afterwards both are as their states say. */
static void check_copy(struct region *region, size_t from, size_t to, size_t count, const char *where) {
    for (size_t i = 0; i < count; i++)
        page_check(region->base + (to + i) * PAGE, name_of(region, from + i), where);
    region_write(region, to, count);
}

/* Lazily freed pages may read as zeros at any time, so their state is settled by a write first. */
static void settle(struct region *region, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        if (region->state[i].lazy)
            region_write(region, i, 1);
    }
}

/* Pages through a pipe, written from evicted memory and read into evicted memory. */
void op_pipe(void) {
    struct region *region = region_any();
    size_t from, to, count = two_spans(region, 8, &from, &to);
    int ends[2];
    pipe_open(ends);
    settle(region, from, count);
    size_t bytes = count * PAGE;
    if (write(ends[1], region->base + from * PAGE, bytes) != (ssize_t)bytes)
        cannot("write to a pipe");
    for (size_t done = 0; done < bytes;) {
        ssize_t got = read(ends[0], region->base + to * PAGE + done, bytes - done);
        if (got <= 0)
            cannot("read from a pipe");
        done += (size_t)got;
    }
    pipe_close(ends);
    check_copy(region, from, to, count, "pipe");
}

/* Pages through a file, at an odd offset, in pieces of odd sizes. */
void op_file_io(void) {
    struct region *region = region_any();
    size_t from, to, count = two_spans(region, 32, &from, &to);
    settle(region, from, count);
    size_t bytes = count * PAGE;
    off_t at = (off_t)pick(8192);
    for (size_t done = 0; done < bytes;) {
        size_t piece = 1 + pick(3 * PAGE);
        if (piece > bytes - done)
            piece = bytes - done;
        ssize_t put = pwrite(self->scratch_file, region->base + from * PAGE + done, piece, at + (off_t)done);
        if (put <= 0)
            cannot("pwrite");
        done += (size_t)put;
    }
    for (size_t done = 0; done < bytes;) {
        size_t piece = 1 + pick(5 * PAGE);
        if (piece > bytes - done)
            piece = bytes - done;
        ssize_t got = pread(self->scratch_file, region->base + to * PAGE + done, piece, at + (off_t)done);
        if (got <= 0)
            cannot("pread");
        done += (size_t)got;
    }
    check_copy(region, from, to, count, "file");
}

/* Many single pages gathered by one writev and scattered by one readv. */
void op_vector_io(void) {
    struct region *region = region_any();
    size_t from, to, count = two_spans(region, 14, &from, &to);
    settle(region, from, count);
    struct iovec gather[14], scatter[14];
    for (size_t i = 0; i < count; i++) {
        gather[i] = (struct iovec){region->base + (from + i) * PAGE, PAGE};
        scatter[i] = (struct iovec){region->base + (to + i) * PAGE, PAGE};
    }
    int ends[2];
    pipe_open(ends);
    if (writev(ends[1], gather, (int)count) != (ssize_t)(count * PAGE))
        cannot("writev");
    if (readv(ends[0], scatter, (int)count) != (ssize_t)(count * PAGE))
        cannot("readv");
    pipe_close(ends);
    check_copy(region, from, to, count, "vector");
}

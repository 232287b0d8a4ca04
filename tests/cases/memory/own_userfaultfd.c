/* A program with a userfaultfd of its own, which resolves faults by copies, zero pages and write protection, while other memory
 * presses; and seccomp's strict mode. */
#include "../case.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#define PAGES 64

static int faults;
static uint8_t *memory;

static void *serve(void *unused) {
    (void)unused;
    static uint8_t page[PAGE] __attribute__((aligned(4096)));
    struct uffd_msg message;
    while (read(faults, &message, sizeof message) == (ssize_t)sizeof message) {
        uint64_t at = message.arg.pagefault.address & ~(PAGE - 1), i = (at - (uintptr_t)memory) / PAGE;
        if (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
            struct uffdio_writeprotect open_it = {.range = {at, PAGE}, .mode = 0};
            ioctl(faults, UFFDIO_WRITEPROTECT, &open_it);
        } else if (i % 2 == 0) {
            pattern(page, i, 3);
            struct uffdio_copy copy = {.dst = at, .src = (uintptr_t)page, .len = PAGE};
            ioctl(faults, UFFDIO_COPY, &copy);
        } else {
            struct uffdio_zeropage zero = {.range = {at, PAGE}};
            ioctl(faults, UFFDIO_ZEROPAGE, &zero);
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (is(mode(argc, argv), "strict")) {
        pid_t child = fork();
        if (child == 0) {
            uint8_t *other = anonymous(40 * MIB);
            if (prctl(PR_SET_SECCOMP, 1, 0, 0, 0) != 0)
                syscall(SYS_exit, 4);
            for (int round = 0; round < 3; round++) {
                for (size_t i = 0; i < 40 * PAGES_OF_MIB; i++)
                    pattern(other + i * PAGE, i, 3);
            }
            size_t failed = wrong(other, 40 * PAGES_OF_MIB, 3);
            syscall(SYS_exit, failed == 0 ? 5 : 6);
        }
        uint8_t *mine = anonymous(60 * MIB);
        fill(mine, 60 * PAGES_OF_MIB, 2);
        expect_child("child in strict mode", child, 5);
        expect("wrong pages", (long)wrong(mine, 60 * PAGES_OF_MIB, 2), 0);
        return verdict();
    }
    faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0)
        unable("userfaultfd");
    memory = anonymous(PAGES * PAGE);
    struct uffdio_register all = {.range = {(uintptr_t)memory, PAGES * PAGE},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
    expect_call("UFFDIO_REGISTER", ioctl(faults, UFFDIO_REGISTER, &all), "done");
    if (verdict() != 0)
        return verdict();
    pthread_t thread;
    pthread_create(&thread, NULL, serve, NULL);
    size_t failed = 0;
    for (size_t i = 0; i < PAGES; i++)
        failed += i % 2 == 0 ? !holds(memory + i * PAGE, i, 3) : !is_zero(memory + i * PAGE);
    expect("pages that are not what the handler gave", (long)failed, 0);
    struct uffdio_writeprotect protect = {.range = {(uintptr_t)memory, PAGES * PAGE}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    expect_call("UFFDIO_WRITEPROTECT", ioctl(faults, UFFDIO_WRITEPROTECT, &protect), "done");
    press(120);
    fill(memory, PAGES, 5);
    press(120);
    expect("wrong pages after they were written", (long)wrong(memory, PAGES, 5), 0);
    /* What the program drops is missing again, and its handler is asked. */
    madvise(memory, PAGES * PAGE, MADV_DONTNEED);
    failed = 0;
    for (size_t i = 0; i < PAGES; i++)
        failed += i % 2 == 0 ? !holds(memory + i * PAGE, i, 3) : !is_zero(memory + i * PAGE);
    expect("pages that are not what the handler gave", (long)failed, 0);
    expect_call("UFFDIO_UNREGISTER", ioctl(faults, UFFDIO_UNREGISTER, &all.range), "done");
    madvise(memory, PAGES * PAGE, MADV_DONTNEED);
    expect("zero pages when it is unregistered", (long)zeros(memory, PAGES), PAGES);
    fill(memory, PAGES, 6);
    evict(memory, PAGES);
    expect("wrong pages then", (long)wrong(memory, PAGES, 6), 0);
    return verdict();
}

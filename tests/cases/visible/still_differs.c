/* What is otherwise under zcache and has its reason there; each mode says what Linux alone does. */
#include "../case.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#define PAGES (100 * PAGES_OF_MIB)
#define CLONE_UNTRACED_ 0x00800000
#define COLLAPSE 25

static uint8_t *memory;
static int faults;

static void watch(uint64_t mode) {
    faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0)
        unable("userfaultfd");
    memory = anonymous(PAGES * PAGE);
    fill(memory, PAGES, 3);
    struct uffdio_register all = {.range = {(uintptr_t)memory, PAGES * PAGE}, .mode = mode};
    if (mode != 0)
        expect_call("UFFDIO_REGISTER", ioctl(faults, UFFDIO_REGISTER, &all), "done");
}

int main(int argc, char **argv) {
    const char *what = mode(argc, argv);
    if (is(what, "untraced")) {
        pid_t child = (pid_t)syscall(SYS_clone, CLONE_UNTRACED_ | SIGCHLD, 0, 0, 0, 0);
        if (child == 0)
            _exit(3);
        expect_call("CLONE_UNTRACED", child, "done");
        if (child > 0)
            expect_child("child", child, 3);
    } else if (is(what, "int80")) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
        expect("getpid by int 0x80", result == getpid(), 1);
    } else if (is(what, "data")) {
        setrlimit(RLIMIT_DATA, &(struct rlimit){60 * MIB, 60 * MIB});
        for (int i = 0; i < 6; i++)
            expect_call("9 MiB of 60", (long)mmap(NULL, 9 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == -1 ? -1 : 0,
                        "done");
    } else if (is(what, "collapse")) {
        memory = anonymous(4 * MIB);
        uint8_t *huge = (uint8_t *)(((uintptr_t)memory + 2 * MIB - 1) & ~(2 * MIB - 1));
        huge[0] = huge[2 * MIB - 1] = 1;
        expect_call("MADV_COLLAPSE of two pages", madvise(huge, 2 * MIB, COLLAPSE), "done");
    } else if (is(what, "own-protect")) {
        watch(UFFDIO_REGISTER_MODE_WP);
        expect("wrong pages", (long)wrong(memory, PAGES, 3), 0);
    } else if (is(what, "own-copy")) {
        static uint8_t page[PAGE];
        watch(0);
        struct uffdio_copy copy = {.dst = (uintptr_t)memory, .src = (uintptr_t)page, .len = PAGE};
        expect_call("UFFDIO_COPY to what nobody watches", ioctl(faults, UFFDIO_COPY, &copy), "ENOENT");
        expect("wrong pages", (long)wrong(memory, PAGES, 3), 0);
    } else if (is(what, "own-unregister")) {
        watch(0);
        struct uffdio_range range = {(uintptr_t)memory, PAGES * PAGE};
        expect_call("UFFDIO_UNREGISTER of what nobody watches", ioctl(faults, UFFDIO_UNREGISTER, &range), "done");
        expect("wrong pages", (long)wrong(memory, PAGES, 3), 0);
    }
    return verdict();
}

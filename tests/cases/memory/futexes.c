/* Futex calls whose words lie in evicted pages, and the words that the kernel writes for a thread that ends. */
#include "../case.h"

#define PRIVATE FUTEX_PRIVATE_FLAG

static uint8_t *memory;

/* The word of the page `i`, which is out of RAM again before it is used. */
static uint32_t *word(size_t i) { return (uint32_t *)(memory + i * PAGE); }

static long futex(uint32_t *at, int operation, unsigned value, long extra, uint32_t *other, unsigned last) {
    return syscall(SYS_futex, at, operation, value, extra, other, last);
}

static void *wait_for_it(void *at) {
    while (*(volatile uint32_t *)at == 0)
        futex(at, FUTEX_WAIT | PRIVATE, 0, 0, NULL, 0);
    return NULL;
}

static void words(void) {
    struct timespec soon = {0, 50000000};
    memory = anonymous(32 * PAGE);
    for (size_t i = 0; i < 32; i++)
        memory[i * PAGE + 100] = (uint8_t)(i + 1);
    evict(memory, 32);
    expect_call("LOCK_PI", futex(word(0), FUTEX_LOCK_PI | PRIVATE, 0, 0, NULL, 0), "done");
    expect("  owner", *word(0) == (uint32_t)syscall(SYS_gettid), 1);
    evict(word(0), 1);
    expect_call("UNLOCK_PI", futex(word(0), FUTEX_UNLOCK_PI | PRIVATE, 0, 0, NULL, 0), "done");
    uint32_t here = 0;
    int set_if_zero = FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0);
    expect_call("WAKE_OP", futex(&here, FUTEX_WAKE_OP | PRIVATE, 1, 1, word(1), (unsigned)set_if_zero), "done");
    expect("  word", *word(1), 1);
    expect_call("WAIT for another value", futex(word(2), FUTEX_WAIT | PRIVATE, 5, 0, NULL, 0), "EAGAIN");
    expect_call("WAIT for a while", futex(word(3), FUTEX_WAIT | PRIVATE, 0, (long)&soon, NULL, 0), "ETIMEDOUT");
    expect_call("CMP_REQUEUE", futex(word(4), FUTEX_CMP_REQUEUE | PRIVATE, 0, 1, word(5), 0), "done");
    expect_call("CMP_REQUEUE of another value", futex(word(6), FUTEX_CMP_REQUEUE | PRIVATE, 0, 1, word(7), 1), "EAGAIN");
    expect_call("TRYLOCK_PI", futex(word(8), FUTEX_TRYLOCK_PI | PRIVATE, 0, 0, NULL, 0), "done");
    /* Shared futexes, as between processes: the key is the page. */
    expect_call("shared WAIT for another value", futex(word(9), FUTEX_WAIT, 5, 0, NULL, 0), "EAGAIN");
    expect_call("shared WAKE", futex(word(10), FUTEX_WAKE, 1, 0, NULL, 0), "done");
    /* futex_waitv: two words, one of which has another value. */
    struct futex_waitv both[2] = {{.val = 0, .uaddr = (uintptr_t)word(11), .flags = FUTEX_32 | PRIVATE},
                                  {.val = 7, .uaddr = (uintptr_t)word(12), .flags = FUTEX_32 | PRIVATE}};
    expect_call("waitv for another value", syscall(449, both, 2UL, 0UL, NULL, 0UL), "EAGAIN");
    both[1].val = 0;
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += 1;
    expect_call("waitv for a while", syscall(449, both, 2UL, 0UL, &end, (long)CLOCK_MONOTONIC), "ETIMEDOUT");
    /* A thread that waits while the page is evicted is woken. */
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_it, word(13));
    usleep(100000);
    evict(word(13), 1);
    *word(13) = 1;
    futex(word(13), FUTEX_WAKE | PRIVATE, 1, 0, NULL, 0);
    pthread_join(thread, NULL);
    say("the waiter was woken");
    size_t failed = 0;
    for (size_t i = 0; i < 32; i++)
        failed += memory[i * PAGE + 100] != (uint8_t)(i + 1);
    expect("pages with wrong bytes beside the words", (long)failed, 0);
}

/* The first thread ends while its thread block is out of RAM; another joins it. */
static pthread_t first;

static void *join_first(void *unused) {
    (void)unused;
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 20;
    int error = pthread_timedjoin_np(first, NULL, &end);
    say("join of the first thread: %s", error != 0 ? strerrorname_np(error) : "done");
    _exit(error != 0);
}

static _Noreturn void end_first(void) {
    first = pthread_self();
    pthread_t thread;
    pthread_create(&thread, NULL, join_first, NULL);
    /* Only raw accesses from here on, so that the thread block is not touched. */
    uint8_t *other = mmap(NULL, 200 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 200 * PAGES_OF_MIB; i++)
            *(volatile uint64_t *)(other + i * PAGE) = i;
    }
    __asm__ volatile("syscall" ::"a"(SYS_exit), "D"(0) : "rcx", "r11", "memory");
    __builtin_unreachable();
}

/* set_tid_address: the word is cleared and woken when the thread ends, be its page in RAM or not. */
static uint8_t *cleared;
static void *set_and_end(void *unused) {
    (void)unused;
    syscall(SYS_set_tid_address, cleared);
    *(uint32_t *)cleared = 77;
    evict(cleared, 1);
    __asm__ volatile("syscall" ::"a"(SYS_exit), "D"(0) : "rcx", "r11", "memory");
    return NULL;
}

static void tid_address(void) {
    cleared = anonymous(PAGE);
    cleared[100] = 1;
    pthread_t thread;
    pthread_create(&thread, NULL, set_and_end, NULL);
    bool zero = false;
    for (int i = 0; i < 1500 && !zero; i++) {
        usleep(10000);
        zero = *(volatile uint32_t *)cleared == 0 && cleared[100] == 1;
    }
    expect("word is cleared", zero, 1);
}

/* A robust mutex whose owner dies. The page that it lies in was evicted before, and used since. */
static pthread_mutex_t *mutex;
static void *lock_and_end(void *unused) {
    (void)unused;
    pthread_mutex_lock(mutex);
    return NULL;
}

static void robust(void) {
    mutex = (pthread_mutex_t *)anonymous(PAGE);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attributes);
    for (int round = 0; round < 5; round++) {
        evict(mutex, 1);
        pthread_t thread;
        pthread_create(&thread, NULL, lock_and_end, NULL);
        pthread_join(thread, NULL);
        evict(mutex, 1);
        int error = pthread_mutex_lock(mutex);
        say("lock after the owner's death: %s", strerrorname_np(error));
        case_failures += error != EOWNERDEAD;
        pthread_mutex_consistent(mutex);
        pthread_mutex_unlock(mutex);
    }
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    if (is(how, "words"))
        words();
    else if (is(how, "first-thread"))
        end_first();
    else if (is(how, "tid-address"))
        tid_address();
    else
        robust();
    return verdict();
}

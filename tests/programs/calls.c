/*
 * What a few system calls cost: run it alone and under zcache.
 *
 *     cc -O2 -o calls tests/programs/calls.c
 *     ./calls && zcache run --ram 64M -- ./calls
 *
 * Prints the mean of each in microseconds.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void map_and_unmap(void)
{
    void *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || munmap(p, 8192))
        exit(2);
}

static void *nothing(void *argument)
{
    return argument;
}

static void thread_and_join(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
        exit(2);
}

static void fork_and_wait(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    if (child < 0 || waitpid(child, NULL, 0) != child)
        exit(2);
}

static void fork_exec_and_wait(void)
{
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    if (child < 0 || waitpid(child, NULL, 0) != child)
        exit(2);
}

static void measure(const char *what, void (*work)(void), int times)
{
    work();
    double start = now();
    for (int i = 0; i < times; i++)
        work();
    printf("%s %.1f\n", what, (now() - start) / times);
}

int main(void)
{
    measure("mmap+munmap", map_and_unmap, 20000);
    measure("thread+join", thread_and_join, 2000);
    measure("fork+wait", fork_and_wait, 300);
    measure("fork+exec+wait", fork_exec_and_wait, 300);
    return 0;
}

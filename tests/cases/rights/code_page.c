/* Whatever code a pager has put into the process (executable mappings of a memory file "zcache…"), a system call made from there
 * is the program's own call: clone with CLONE_UNTRACED must not make a child that nobody watches. Without such code nothing is
 * tried. */
#include "../case.h"

#include <ucontext.h>

/* Whatever stands behind the instruction: go on where the caller said. */
static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    registers[REG_RIP] = registers[REG_R12];
    registers[REG_RSP] = registers[REG_R13];
}

static bool traced(void) {
    char line[256];
    bool found = false;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        found |= strncmp(line, "TracerPid:", 10) == 0 && atoi(line + 10) != 0;
    if (file != NULL)
        fclose(file);
    return found;
}

static long clone_from(const uint8_t *instruction) {
    long result;
    register long r10 __asm__("r10") = 0, r8 __asm__("r8") = 0;
    register const uint8_t *at __asm__("rbx") = instruction;
    __asm__ volatile("lea 1f(%%rip), %%r12\n\t"
                     "mov %%rsp, %%r13\n\t"
                     "sub $256, %%rsp\n\t"
                     "call *%%rbx\n"
                     "1:\n\t"
                     "mov %%r13, %%rsp"
                     : "=a"(result)
                     : "a"(SYS_clone), "D"(CLONE_UNTRACED | SIGCHLD), "S"(0), "d"(0), "r"(r10), "r"(r8), "r"(at)
                     : "rcx", "r11", "r12", "r13", "memory");
    return result;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGTRAP, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    bool watched = traced();
    char line[512];
    int places = 0, escaped = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        unsigned long from, to;
        char access[8];
        if (strstr(line, "memfd:zcache") == NULL || sscanf(line, "%lx-%lx %7s", &from, &to, access) != 3 || access[2] != 'x' ||
            access[0] != 'r')
            continue;
        for (const uint8_t *at = (const uint8_t *)from; at + 1 < (const uint8_t *)to && places < 20; at++) {
            if (at[0] != 0x0f || at[1] != 0x05)
                continue;
            places++;
            long born = clone_from(at);
            if (born == 0)
                _exit(watched && !traced() ? 1 : 0);
            int status = 0;
            if (born > 0 && waitpid((pid_t)born, &status, 0) == born)
                escaped += WIFEXITED(status) && WEXITSTATUS(status) == 1;
        }
    }
    fprintf(stderr, "instructions found: %d\n", places);
    expect("children that nobody watches", escaped, 0);
    /* The program's own instruction, for comparison. */
    long born = syscall(SYS_clone, (long)(CLONE_UNTRACED | SIGCHLD), 0L, 0L, 0L, 0L);
    if (born == 0)
        _exit(watched && !traced() ? 1 : 0);
    expect_child("child by the program's own instruction", (pid_t)born, 0);
    return verdict();
}

/* Whatever code a pager has put into the process (executable mappings of no file, or of a memory file), a system call made from
 * there is the program's own call: clone with CLONE_UNTRACED must not make a child that nobody watches. Without such code nothing
 * is tried. */
#include "../case.h"

#include <dirent.h>
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

/* Children of this process that nobody watches; all are killed. */
static int unwatched_children(void) {
    DIR *directory = opendir("/proc");
    int count = 0;
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        char name[300], line[256], who[32] = "";
        int parent = 0, tracer = -1;
        char state = '?';
        snprintf(name, sizeof name, "/proc/%s/status", entry->d_name);
        FILE *file = atoi(entry->d_name) > 0 ? fopen(name, "r") : NULL;
        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            sscanf(line, "Name: %31s", who);
            sscanf(line, "State: %c", &state);
            sscanf(line, "PPid: %d", &parent);
            sscanf(line, "TracerPid: %d", &tracer);
        }
        if (file != NULL)
            fclose(file);
        if (parent != getpid() || strncmp(who, "zcache", 6) == 0)
            continue;
        /* Nobody watches the dead. */
        count += tracer == 0 && state != 'Z';
        kill(atoi(entry->d_name), SIGKILL);
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

/* Makes the call from there. Behind the instruction may stand a loop without an end, for the child too: an alarm ends it. */
static int escaped_from(const uint8_t *instruction) {
    pid_t trier = fork();
    if (trier == 0) {
        pid_t own = getpid();
        alarm(1);
        clone_from(instruction);
        if (getpid() != own) {
            /* To be found by its parent; not for ever, since that may have been killed. */
            sleep(5);
            _exit(0);
        }
        _exit(unwatched_children());
    }
    int status = 0;
    waitpid(trier, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGTRAP, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    bool watched = traced();
    struct {
        const uint8_t *from, *to;
    } ranges[16];
    char line[512];
    int count = 0, places = 0, escaped = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL && count < 16) {
        unsigned long from, to;
        char access[8];
        /* Code of no file, and none of the kernel's. */
        const char *file_name = strchr(line, '/');
        if (sscanf(line, "%lx-%lx %7s", &from, &to, access) != 3 || access[2] != 'x' || access[0] != 'r' ||
            (file_name != NULL && strncmp(file_name, "/memfd:", 7) != 0) || strchr(line, '[') != NULL)
            continue;
        ranges[count].from = (const uint8_t *)from;
        ranges[count++].to = (const uint8_t *)to;
    }
    if (file != NULL)
        fclose(file);
    for (int k = 0; k < count; k++) {
        for (const uint8_t *at = ranges[k].from; at + 1 < ranges[k].to && places < 10; at++) {
            if (at[0] != 0x0f || at[1] != 0x05)
                continue;
            places++;
            escaped += watched ? escaped_from(at) : 0;
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

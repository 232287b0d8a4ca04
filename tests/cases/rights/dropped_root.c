/* A process that gave up root has no helper left that has more rights than itself, and none that it could command: no shared
 * memory can be written. Without a pager there is nothing of the kind. */
#include "../helpers.h"

static uint64_t capabilities(pid_t pid) {
    char name[64], line[256];
    uint64_t value = 0;
    snprintf(name, sizeof name, "/proc/%d/status", (int)pid);
    FILE *file = fopen(name, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "CapPrm:", 7) == 0 || strncmp(line, "CapEff:", 7) == 0)
            value |= strtoull(line + 7, NULL, 16);
    }
    if (file != NULL)
        fclose(file);
    return value;
}

static void judge(const char *who, const pid_t *found, int count) {
    int stronger = 0, writable = 0;
    for (int i = 0; i < count; i++)
        stronger += (capabilities(found[i]) & ~capabilities(getpid())) != 0;
    char line[512];
    FILE *file = fopen("/proc/self/maps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        /* This program has no shared memory of its own. */
        const char *access = strchr(line, ' ');
        writable += access != NULL && access[2] == 'w' && access[4] == 's';
    }
    if (file != NULL)
        fclose(file);
    say("%s", who);
    expect("  helpers with more rights", stronger, 0);
    expect("  places where a helper could be commanded", writable, 0);
}

int main(void) {
    uint8_t *memory = anonymous(100 * MIB);
    fill(memory, 100 * PAGES_OF_MIB, 3);
    pid_t found[16];
    int count = helpers(found, 16);
    fprintf(stderr, "helpers: %d\n", count);
    if (setgid(65534) != 0 || setuid(65534) != 0)
        unable("setuid");
    judge("process", found, count);
    expect_call("mkdir where only root may", mkdir("/root/zcache-case", 0700), "EACCES");
    pid_t child = fork();
    if (child == 0) {
        count = helpers(found, 16);
        judge("child", found, count);
        _exit(wrong(memory, 100 * PAGES_OF_MIB, 3) != 0 || verdict());
    }
    expect_child("child", child, 0);
    expect("wrong pages", (long)wrong(memory, 100 * PAGES_OF_MIB, 3), 0);
    return verdict();
}

/* Runs a command and measures from outside, all the time, how much anonymous memory its whole process tree holds.
 *
 *     watch --report FILE [--interval-ms N] [--linger-ms N] -- COMMAND ARGS…
 *
 * Every N ms (10 by default) it adds up the anonymous memory of all descendants. It is a subreaper, so that daemons which fork
 * twice stay its descendants. A memory map that several processes share (threads do anyway; vfork, zcache's servants) counts once,
 * which kcmp(2) tells. Pages shared by fork count by share (Pss). Of zcache's own processes shared memory counts too, since it is
 * theirs; of the others it does not, and file pages never do.
 *
 *     measured = sum over distinct memory maps of Pss_Anon, + Pss_Shmem of processes whose name begins with "zcache"
 *
 * Pss is costly and never more than Rss, so it is only read when the sum of Rss is above the highest measured sum so far.
 *
 * It ends as the command ended (same status, or the same signal). What the command left running may go on for --linger-ms (0 by
 * default) and is killed then; left_running counts only what had to be killed. The report has one
 * key=value a line: peak_bytes, peak_ms (since the start), samples, seconds, left_running, signal or exit, and at_peak lines.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TREE_MAX 4096
#define PIDS (1 << 22)

struct process {
    pid_t pid, parent;
    char name[32];
    bool member, zombie, duplicate;
    uint64_t bytes;
};

static struct process processes[TREE_MAX];
static size_t processes_count;
/* Processes that are known not to be ours; forgotten every second, since numbers are reused. */
static uint8_t foreign[PIDS / 8];
static uint64_t peak_bytes, peak_ms, samples;
static char at_peak[16384];
static volatile sig_atomic_t asked_to_end;

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The text of a file below /proc/PID, or an empty one when the process is gone. */
static const char *read_of(pid_t pid, const char *file) {
    static char text[8192];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

static uint64_t field_kib(const char *text, const char *key) {
    const char *at = strstr(text, key);
    return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10) * 1024;
}

static bool parse_stat(pid_t pid, struct process *process) {
    const char *text = read_of(pid, "stat");
    const char *open = strchr(text, '('), *close = strrchr(text, ')');
    char state;
    int parent;
    if (open == NULL || close == NULL || sscanf(close + 1, " %c %d", &state, &parent) != 2)
        return false;
    memset(process, 0, sizeof *process);
    size_t length = (size_t)(close - open - 1);
    if (length >= sizeof process->name)
        length = sizeof process->name - 1;
    memcpy(process->name, open + 1, length);
    process->pid = pid;
    process->parent = parent;
    process->zombie = state == 'Z' || state == 'X';
    return true;
}

static bool of_zcache(const struct process *process) { return strncmp(process->name, "zcache", 6) == 0; }

/* The number of the newest process or thread of the machine, or 0 when it cannot be read. */
static unsigned long newest_pid(void) {
    char text[128];
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    const char *last = strrchr(text, ' ');
    return last == NULL ? 0 : strtoul(last, NULL, 10);
}

/* Finds all descendants: fills `processes`. */
static void find_tree(void) {
    static uint64_t forgotten_ms;
    if (now_ms() - forgotten_ms > 1000) {
        memset(foreign, 0, sizeof foreign);
        forgotten_ms = now_ms();
    }
    processes_count = 0;
    DIR *directory = opendir("/proc");
    if (directory == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL && processes_count < TREE_MAX;) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        pid_t pid = atoi(entry->d_name);
        if (pid >= PIDS || (foreign[pid / 8] >> (pid % 8) & 1))
            continue;
        if (parse_stat(pid, &processes[processes_count]))
            processes_count++;
    }
    closedir(directory);
    pid_t own = getpid();
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < processes_count; i++) {
            if (processes[i].member)
                continue;
            bool member = processes[i].parent == own;
            for (size_t k = 0; k < processes_count && !member; k++)
                member = processes[k].member && processes[k].pid == processes[i].parent;
            processes[i].member = member;
            changed |= member;
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < processes_count; i++) {
        if (processes[i].member)
            processes[kept++] = processes[i];
        else if (processes[i].pid != own)
            foreign[processes[i].pid / 8] |= (uint8_t)(1 << (processes[i].pid % 8));
    }
    processes_count = kept;
}

static void mark_shared_maps(void) {
    for (size_t i = 0; i < processes_count; i++) {
        for (size_t k = 0; k < i && !processes[i].duplicate; k++) {
            if (!processes[k].duplicate && !processes[k].zombie && !processes[i].zombie)
                processes[i].duplicate = syscall(SYS_kcmp, processes[i].pid, processes[k].pid, KCMP_VM, 0, 0) == 0;
        }
    }
}

static uint64_t upper_bound_bytes(const struct process *process) {
    if (of_zcache(process)) {
        const char *text = read_of(process->pid, "status");
        return field_kib(text, "RssAnon:") + field_kib(text, "RssShmem:");
    }
    unsigned long long size, resident, shared;
    if (sscanf(read_of(process->pid, "statm"), "%llu %llu %llu", &size, &resident, &shared) != 3 || shared > resident)
        return 0;
    return (resident - shared) * 4096;
}

/* The kernel walks over the maps for Pss, and counts a page twice that moves or is replaced while it does. At no moment is it more
 * than Rss, which is read at once, before and after. */
static uint64_t exact_bytes(const struct process *process) {
    uint64_t before = upper_bound_bytes(process);
    const char *text = read_of(process->pid, "smaps_rollup");
    uint64_t walked = field_kib(text, "Pss_Anon:") + (of_zcache(process) ? field_kib(text, "Pss_Shmem:") : 0);
    uint64_t after = upper_bound_bytes(process);
    uint64_t bound = before > after ? before : after;
    return walked < bound ? walked : bound;
}

static void sample(uint64_t start_ms) {
    /* Without a new process anywhere the tree has no new member either, and those that have ended hold no memory. */
    static unsigned long newest;
    unsigned long now = newest_pid();
    if (now == 0 || now != newest)
        find_tree();
    newest = now;
    uint64_t bound = 0;
    for (size_t i = 0; i < processes_count; i++)
        bound += processes[i].zombie ? 0 : upper_bound_bytes(&processes[i]);
    samples++;
    if (bound <= peak_bytes)
        return;
    mark_shared_maps();
    uint64_t sum = 0;
    for (size_t i = 0; i < processes_count; i++) {
        processes[i].bytes = processes[i].zombie || processes[i].duplicate ? 0 : exact_bytes(&processes[i]);
        sum += processes[i].bytes;
    }
    if (sum <= peak_bytes)
        return;
    peak_bytes = sum;
    peak_ms = now_ms() - start_ms;
    size_t at = 0;
    for (size_t i = 0; i < processes_count && at + 100 < sizeof at_peak; i++) {
        if (processes[i].bytes > 0)
            at += (size_t)snprintf(at_peak + at, sizeof at_peak - at, "at_peak=%s %d %llu KiB\n", processes[i].name,
                                   (int)processes[i].pid, (unsigned long long)processes[i].bytes / 1024);
    }
}

/* Kills all descendants, again and again until none is left; returns how many there were. */
static unsigned kill_tree(void) {
    unsigned left = 0;
    for (int round = 0; round < 500; round++) {
        memset(foreign, 0, sizeof foreign);
        find_tree();
        unsigned alive = 0;
        for (size_t i = 0; i < processes_count; i++) {
            if (!processes[i].zombie) {
                alive++;
                kill(processes[i].pid, SIGKILL);
            }
        }
        if (round == 0)
            left = alive;
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
        if (alive == 0)
            break;
        usleep(10000);
    }
    return left;
}

static void on_end(int number) { asked_to_end = number; }

static void write_report(const char *path, int status, uint64_t start_ms, unsigned left) {
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        perror("watch: report");
        return;
    }
    fprintf(file, "peak_bytes=%llu\npeak_ms=%llu\nsamples=%llu\nseconds=%.3f\nleft_running=%u\n%s=%d\n%s",
            (unsigned long long)peak_bytes, (unsigned long long)peak_ms, (unsigned long long)samples,
            (double)(now_ms() - start_ms) / 1000.0, left, WIFSIGNALED(status) ? "signal" : "exit",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), at_peak);
    fclose(file);
}

int main(int argc, char **argv) {
    const char *report = NULL;
    unsigned interval_ms = 10, linger_ms = 0;
    int i = 1;
    for (; i + 1 < argc && strcmp(argv[i], "--") != 0; i += 2) {
        if (strcmp(argv[i], "--report") == 0)
            report = argv[i + 1];
        else if (strcmp(argv[i], "--interval-ms") == 0)
            interval_ms = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--linger-ms") == 0)
            linger_ms = (unsigned)atoi(argv[i + 1]);
    }
    if (report == NULL || i + 1 >= argc) {
        fprintf(stderr, "watch: --report FILE -- COMMAND is needed\n");
        return 125;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGTERM, on_end);
    uint64_t start_ms = now_ms();
    pid_t child = fork();
    if (child == 0) {
        signal(SIGTERM, SIG_DFL);
        execvp(argv[i + 1], argv + i + 1);
        perror(argv[i + 1]);
        _exit(127);
    }
    /* Samples should be on time even when the tree keeps all processors busy. */
    setpriority(PRIO_PROCESS, 0, -10);
    int status = 0;
    for (bool running = true; running && asked_to_end == 0;) {
        sample(start_ms);
        int ended;
        for (pid_t pid; (pid = waitpid(-1, &ended, WNOHANG)) > 0;) {
            if (pid == child) {
                status = ended;
                running = false;
            }
        }
        if (running)
            usleep(interval_ms * 1000);
    }
    for (uint64_t end_ms = now_ms() + linger_ms; now_ms() < end_ms && asked_to_end == 0;) {
        sample(start_ms);
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
        find_tree();
        if (processes_count == 0)
            break;
        usleep(interval_ms * 1000);
    }
    unsigned left = kill_tree();
    write_report(report, asked_to_end ? asked_to_end : status, start_ms, left);
    if (asked_to_end)
        return 124;
    if (WIFSIGNALED(status)) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}

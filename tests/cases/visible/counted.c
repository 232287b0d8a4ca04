/* A program that asks the usual tools for itself, by its name and by its command line, finds itself once. Its memory is under
 * pressure meanwhile. */
#include "../case.h"

static int number_of(const char *format, const char *word) {
    char command[512], line[64] = "";
    snprintf(command, sizeof command, format, word);
    FILE *output = popen(command, "r");
    if (output == NULL || fgets(line, sizeof line, output) == NULL)
        unable(command);
    pclose(output);
    return atoi(line);
}

int main(int argc, char **argv) {
    (void)argc;
    char path[256] = "", name[32] = "case-visible-counted";
    if (readlink("/proc/self/exe", path, sizeof path - 1) < 0)
        unable("readlink");
    const char *base = strrchr(path, '/') + 1;
    snprintf(name, sizeof name, "%.15s", base);
    uint8_t *memory = anonymous(90 * MIB);
    fill(memory, 90 * PAGES_OF_MIB, 3);
    pid_t child = fork();
    if (child == 0) {
        fill(memory, 90 * PAGES_OF_MIB, 4);
        for (;;)
            pause();
    }
    usleep(500000);
    /* This process and its child. */
    expect("pidof", number_of("pidof %s | wc -w", base), 2);
    expect("pgrep by name", number_of("pgrep -c -x '%s'", name), 2);
    expect("pgrep by the beginning of the command line", number_of("pgrep -c -f '^%s'", argv[0]), 2);
    expect("ps by name", number_of("ps -e -o comm= | grep -c -x '%s'", name), 2);
    expect("threads", number_of("ls /proc/%s/task | wc -l", "self"), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    expect("pidof when the child has ended", number_of("pidof %s | wc -w", base), 1);
    expect("wrong pages", (long)wrong(memory, 90 * PAGES_OF_MIB, 3), 0);
    return verdict();
}

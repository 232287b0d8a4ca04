/* The pager's helpers, as a program that looks for them finds them. */
#ifndef CASES_HELPERS_H
#define CASES_HELPERS_H

#include "case.h"

#include <dirent.h>
#include <linux/kcmp.h>

/* Finds the tasks of their name that share this process's memory; returns how many. */
static inline int helpers(pid_t *found, int most) {
    DIR *directory = opendir("/proc");
    int count = 0;
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL && count < most;) {
        pid_t pid = atoi(entry->d_name);
        char name[300], text[32] = "";
        snprintf(name, sizeof name, "/proc/%s/comm", entry->d_name);
        int file = pid > 0 ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        if (file < 0)
            continue;
        if (read(file, text, sizeof text - 1) > 0 && strncmp(text, "zcache-servant", 14) == 0 &&
            syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0) == 0)
            found[count++] = pid;
        close(file);
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

#endif

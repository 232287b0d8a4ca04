// Overwrites a file by one call whose second half stands still until a line comes on standard input: the file's time of change is
// that of the call's beginning. Says "begun" and "done"; a second line ends it. The call is write(2), or with "aio" io_submit(2).
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int faults;
static char *bytes;
static size_t half;

static void check(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
}

static void say(const char *word)
{
	puts(word);
	fflush(stdout);
}

static void wait_for_line(void)
{
	char line[16];
	if (!fgets(line, sizeof line, stdin))
		exit(0);
}

static void *fill_second_half(void *unused)
{
	struct uffd_msg message;
	if (read(faults, &message, sizeof message) != sizeof message)
		exit(1);
	say("begun");
	wait_for_line();
	char *page = aligned_alloc(4096, half);
	memset(page, 'N', half);
	struct uffdio_copy copy = { .dst = (unsigned long)bytes + half, .src = (unsigned long)page, .len = half };
	check(ioctl(faults, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	return unused;
}

static void write_by_aio(int fd)
{
	aio_context_t context = 0;
	check(syscall(SYS_io_setup, 1, &context), "io_setup");
	struct iocb block = { .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (unsigned long)bytes, .aio_nbytes = 2 * half };
	struct iocb *blocks = &block;
	check(syscall(SYS_io_submit, context, 1, &blocks), "io_submit");
	struct io_event event;
	check(syscall(SYS_io_getevents, context, 1, 1, &event, NULL), "io_getevents");
	check(event.res == (long long)(2 * half) ? 0 : -1, "all of it");
}

int main(int count, char **words)
{
	int fd = open(words[1], O_WRONLY);
	check(fd, "open");
	struct stat stat;
	check(fstat(fd, &stat), "fstat");
	half = stat.st_size / 2;
	faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	check(faults, "userfaultfd");
	struct uffdio_api api = { .api = UFFD_API };
	check(ioctl(faults, UFFDIO_API, &api), "UFFDIO_API");
	bytes = mmap(NULL, 2 * half, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(bytes, 'N', half);
	struct uffdio_register missing = { .range = { (unsigned long)bytes + half, half }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	check(ioctl(faults, UFFDIO_REGISTER, &missing), "UFFDIO_REGISTER");
	pthread_t thread;
	pthread_create(&thread, NULL, fill_second_half, NULL);
	if (count > 2 && !strcmp(words[2], "aio"))
		write_by_aio(fd);
	else
		check(pwrite(fd, bytes, 2 * half, 0), "pwrite");
	say("done");
	wait_for_line();
	return 0;
}

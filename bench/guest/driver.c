// SPDX-License-Identifier: MIT
/*
 * main() of the benchmark programs; work.h says what it prints.
 *
 * As /init (pid 1) it first prints "bench start", mounts /proc, and powers the machine off at the end. Names on the
 * command line (natively) or bench=NAME,... on the kernel's command line choose programs; "spin" runs the sieve for
 * ever, to sample counters.
 */
#include "work.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MIN_ROUNDS = 3, MAX_ROUNDS = 20 };
#define ENOUGH 400000000u /* ns: no further rounds */

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int chosen(const char *list, const char *name)
{
	size_t n = strlen(name);

	if (!list || !*list)
		return 1;
	for (const char *p = list; (p = strstr(p, name)); p += n) {
		if ((p == list || p[-1] == ',') && (p[n] == ',' || !p[n]))
			return 1;
	}
	return 0;
}

/* The value of bench= on the kernel's command line. */
static char *from_cmdline(void)
{
	static char line[4096];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);
	char *p;

	line[n < 0 ? 0 : n] = 0;
	line[strcspn(line, "\n")] = 0;
	p = strstr(line, "bench=");
	if (!p)
		return NULL;
	p += strlen("bench=");
	p[strcspn(p, " ")] = 0;
	return p;
}

static void measure(const struct program *p)
{
	uint64_t best = UINT64_MAX, all = 0, sum = 0;

	printf("bench begin %s\n", p->name);
	fflush(stdout);
	for (int r = 0; r < MIN_ROUNDS || (r < MAX_ROUNDS && all < ENOUGH); r++) {
		uint64_t t = now(), result = p->run();

		t = now() - t;
		all += t;
		best = t < best ? t : best;
		if (r && result != sum) {
			printf("bench: %s: round %d has another result\n", p->name, r);
			return;
		}
		sum = result;
	}
	printf("bench %s %s %llu %llu %llx\n", p->class, p->name, (unsigned long long)best,
	       (unsigned long long)all, (unsigned long long)sum);
	fflush(stdout);
}

static void run_next(const char *list)
{
	pid_t child = fork();

	if (child == 0) {
		execl(next_executable, next_executable, list ? list : "", (char *)NULL);
		_exit(1);
	}
	waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
	const char *list = argc > 1 ? argv[1] : NULL;
	int init = getpid() == 1;

	if (list && !strcmp(list, "--nothing"))
		return 0;
	if (init) {
		mkdir("/proc", 0755);
		mount("proc", "/proc", "proc", 0, NULL);
		list = from_cmdline();
		printf("bench start\n");
		fflush(stdout);
	}
	while (list && !strcmp(list, "spin"))
		sieve();
	for (const struct program *p = programs; p->class; p++) {
		if (chosen(list, p->name))
			measure(p);
	}
	if (init) {
		if (next_executable && (!list || strcmp(list, "none")))
			run_next(list);
		printf("bench end\n");
		fflush(stdout);
		sync();
		reboot(RB_POWER_OFF);
	}
	return 0;
}

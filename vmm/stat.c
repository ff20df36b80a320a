// SPDX-License-Identifier: MIT
/*
 * `umbra stat PID`: counters of a process that uses libumbra, whatever VMM it is.
 *
 * Each VM has a memfd named "umbra-stat" (base/counters.h), which is mapped through /proc/PID/fd.  The
 * page describes itself, so the numbers and names of counters need not be those of this program; what
 * it says is checked against the file's size.  Counters that the VMM asked for with KVM_GET_STATS_FD are in
 * files of their own, in the same order.
 */
#include "stat.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/counters.h"
#include "msg.h"

#define MEMFD_LINK   "/memfd:umbra-stat"
#define MAX_COUNTERS 500u /* that a block has room for */

/* The head of struct um_stat_page, which does not depend on the number of counters. */
struct stat_head {
	u64 magic;
	u32 ncounters, nblocks;
};

struct stat_view {
	const struct stat_head *head;
	size_t size;
	u32 n;		 /* counters */
	const char *dir; /* of the process's descriptors */
	u64 *total;	 /* over the VM and its vCPUs */
};

/* Where the blocks begin. */
static size_t blocks_at(const struct stat_view *v)
{
	size_t names = sizeof(struct stat_head) + (size_t)v->n * UM_STAT_NAME_LEN;

	return (names + UM_STAT_BLOCK_SIZE - 1) / UM_STAT_BLOCK_SIZE * UM_STAT_BLOCK_SIZE;
}

/* Counters that moved to the file behind descriptor @number of the process.  False: it is no such file. */
static bool read_moved(const struct stat_view *v, int number, u64 *values)
{
	struct kvm_stats_header h;
	size_t size = v->n * sizeof(u64);
	char path[96];
	bool done;
	int fd;

	snprintf(path, sizeof(path), "%s/%d", v->dir, number);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	done = pread(fd, &h, sizeof(h), 0) == (ssize_t)sizeof(h) && h.num_desc == v->n &&
	       pread(fd, values, size, h.data_offset) == (ssize_t)size;
	close(fd);
	return done;
}

static void add_up(struct stat_view *v)
{
	u32 nblocks = v->head->nblocks;
	u64 moved_values[MAX_COUNTERS];

	if (nblocks > UM_STAT_MAX_BLOCKS)
		nblocks = UM_STAT_MAX_BLOCKS;
	for (u32 b = 0; b < nblocks; b++) {
		const char *block =
			(const char *)v->head + blocks_at(v) + (size_t)b * UM_STAT_BLOCK_SIZE;
		const volatile u64 *values = (const volatile u64 *)block;
		s32 moved = ((const volatile union um_stat_block *)block)->moved;

		if (moved > 0 && read_moved(v, moved - 1, moved_values))
			values = moved_values;
		for (u32 i = 0; i < v->n; i++)
			v->total[i] += values[i];
	}
}

static bool view_open(struct stat_view *v, const char *dir, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p = MAP_FAILED;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(struct stat_head))
		p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return false;
	v->head = p;
	v->size = (size_t)st.st_size;
	v->n = v->head->ncounters;
	v->dir = dir;
	v->total = NULL;
	if (v->head->magic == UM_STAT_MAGIC && v->n <= MAX_COUNTERS &&
	    blocks_at(v) + (u64)UM_STAT_BLOCK_SIZE * UM_STAT_MAX_BLOCKS <= v->size)
		v->total = calloc(v->n + 1, sizeof(u64));
	if (v->total) {
		add_up(v);
		return true;
	}
	munmap(p, v->size);
	return false;
}

static void view_close(struct stat_view *v)
{
	munmap((void *)v->head, v->size);
	free(v->total);
}

static const char *counter_name(const struct stat_view *v, u32 i)
{
	return (const char *)(v->head + 1) + i * UM_STAT_NAME_LEN;
}

static void print_vm(FILE *f, const struct stat_view *v, unsigned vm, double seconds,
		     unsigned long long *last)
{
	u32 nblocks = v->head->nblocks;

	fprintf(f, "VM %u, %u vCPU%s\n", vm, nblocks - 1, nblocks == 2 ? "" : "s");
	fprintf(f, "%-26s %18s %16s\n", "counter", "total", seconds > 0 ? "per second" : "");
	for (u32 i = 0; i < v->n; i++) {
		unsigned slot = vm * MAX_COUNTERS + i;
		u64 now = v->total[i];

		if (!now)
			continue;
		fprintf(f, "%-26.*s %18" PRIu64, UM_STAT_NAME_LEN, counter_name(v, i), now);
		if (slot < STAT_MEMORY) {
			if (seconds > 0 && now >= last[slot])
				fprintf(f, " %16.0f", (double)(now - last[slot]) / seconds);
			last[slot] = now;
		}
		fprintf(f, "\n");
	}
}

int stat_print(FILE *f, pid_t pid, double seconds, unsigned long long *last)
{
	char dir[64], path[128], link[64];
	struct dirent *e;
	int found = 0;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", (int)pid);
	d = opendir(dir);
	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		struct stat_view v;
		ssize_t n;

		if (strlen(e->d_name) > 16)
			continue;
		snprintf(path, sizeof(path), "%s/%.16s", dir, e->d_name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n < (ssize_t)strlen(MEMFD_LINK))
			continue;
		if (strncmp(link, MEMFD_LINK, strlen(MEMFD_LINK)) || !view_open(&v, dir, path))
			continue;
		print_vm(f, &v, (unsigned)found++, seconds, last);
		view_close(&v);
	}
	closedir(d);
	return found;
}

static int show(pid_t pid, bool live)
{
	static const char clear[] = "\033[H\033[J";
	unsigned long long *last = calloc(STAT_MEMORY, sizeof(*last));
	bool first = true;
	int n;

	if (!last)
		return -ENOMEM;
	do {
		/* Gathered first, so that the screen does not flicker. */
		char *text = NULL;
		size_t size = 0;
		FILE *f = open_memstream(&text, &size);

		if (!f) {
			n = -errno;
			break;
		}
		n = stat_print(f, pid, first ? 0 : 1, last);
		fclose(f);
		if (n > 0)
			printf("%s%s", live ? clear : "", text);
		fflush(stdout);
		free(text);
		first = false;
		if (live && n > 0)
			sleep(1);
	} while (live && n > 0);
	free(last);
	/* A live view ends with the process that it looks at. */
	return live && !first && (n == -ENOENT || n == 0) ? 1 : n;
}

int cmd_stat(int argc, char **argv)
{
	static const struct option longopts[] = { { "once", no_argument, NULL, '1' },
						  { "help", no_argument, NULL, 'h' },
						  { NULL, 0, NULL, 0 } };
	bool live = isatty(STDOUT_FILENO);
	char *end;
	long pid;
	int c, n;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "h", longopts, NULL)) != -1) {
		if (c == 'h') {
			printf("Usage: umbra stat [--once] PID\n"
			       "Show the counters of the VMs in a process; on a terminal, every "
			       "second.\n");
			return 0;
		}
		if (c == '?') {
			msg("%s: no such option; see `umbra stat --help`", argv[optind - 1]);
			return 2;
		}
		live = false;
	}
	if (optind + 1 != argc) {
		msg("Usage: umbra stat [--once] PID");
		return 2;
	}
	errno = 0;
	pid = strtol(argv[optind], &end, 10);
	if (errno || *end || end == argv[optind] || pid <= 0 || pid > 0x7fffffff) {
		msg("'%s' is no process number", argv[optind]);
		return 2;
	}
	n = show((pid_t)pid, live);
	if (n > 0)
		return 0;
	if (n < 0)
		msg("process %ld: %s", pid, strerror(-n));
	else
		msg("process %ld has no VM of libumbra", pid);
	return 2;
}

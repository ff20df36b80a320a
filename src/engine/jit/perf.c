// SPDX-License-Identifier: MIT
/*
 * Symbols for perf(1), in either of the two forms that it knows.
 *
 * A map is a text file, one line for each piece of code: address, size, name.  Code that was
 * evicted stays listed, and what is at its address now is listed later.
 *
 * A jitdump is a file of records with times and the code itself, which `perf inject --jit` merges
 * into a recording that was made with `perf record -k CLOCK_MONOTONIC`.  perf learns of the file by
 * seeing it mapped to be executed.
 *
 * Addresses are those of the executable mapping of the code area (arena.c).
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/jit/dump.h"

#define JITDUMP_MAGIC	0x4a695444u
#define JITDUMP_VERSION 1u
#define JITDUMP_LOAD	0u /* a record: code, with its name */

struct jitdump_header {
	u32 magic, version, size, machine, pad, pid;
	u64 time, flags;
};
_Static_assert(sizeof(struct jitdump_header) == 40, "read by perf");

/* Followed by the name with its zero, and the code. */
struct jitdump_load {
	u32 kind, size;
	u64 time;
	u32 pid, tid;
	u64 vma, address, code_size, index;
};
_Static_assert(sizeof(struct jitdump_load) == 56, "read by perf");

static struct {
	enum um_perf kind;
	int fd;
	void *mark; /* the jitdump, mapped for perf to see */
	u64 index;  /* of the next record */
} perf;

static u64 now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

static int begin_jitdump(void)
{
	struct jitdump_header h = { .magic = JITDUMP_MAGIC,
				    .version = JITDUMP_VERSION,
				    .size = sizeof(h),
				    .machine = EM_X86_64,
				    .pid = (u32)getpid(),
				    .time = now() };

	if (write(perf.fd, &h, sizeof(h)) != sizeof(h))
		return errno ? -errno : -EIO;
	perf.mark = mmap(NULL, UM_PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, perf.fd, 0);
	return perf.mark == MAP_FAILED ? -errno : 0;
}

int um_perf_open(enum um_perf kind)
{
	struct stat st;
	char path[64];
	int err = 0;

	if (kind == UM_PERF_NONE)
		return 0;
	snprintf(path, sizeof(path), kind == UM_PERF_MAP ? "/tmp/perf-%d.map" : "jit-%d.dump",
		 (int)getpid());
	/* Anybody may have put a link there.  perf wants the file to be the user's. */
	perf.fd = open(path,
		       O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		       0644);
	if (perf.fd < 0)
		err = -errno;
	else if (fstat(perf.fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
		err = -EPERM;
	else if (kind == UM_PERF_JITDUMP)
		err = begin_jitdump();
	if (err) {
		um_log("%s: %s", path, strerror(-err));
		if (perf.fd >= 0)
			close(perf.fd);
		return err;
	}
	perf.kind = kind;
	return 0;
}

void um_perf_leave(void)
{
	if (perf.kind == UM_PERF_NONE)
		return;
	if (perf.kind == UM_PERF_JITDUMP)
		munmap(perf.mark, UM_PAGE_SIZE);
	close(perf.fd);
	perf.kind = UM_PERF_NONE;
}

/* (A file that can't be written any more has as many symbols as fitted.) */
static void write_map(const char *name, const void *code, size_t size)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "%lx %zx %s\n", (unsigned long)code, size, name);

	if (write(perf.fd, line, (size_t)um_min(n, (int)sizeof(line) - 1)) < 0)
		return;
}

static void write_jitdump(const char *name, const void *code, size_t size)
{
	size_t len = strlen(name) + 1;
	struct jitdump_load r = { .kind = JITDUMP_LOAD,
				  .size = (u32)(sizeof(r) + len + size),
				  .time = now(),
				  .pid = (u32)getpid(),
				  .tid = (u32)gettid(),
				  .vma = (u64)code,
				  .address = (u64)code,
				  .code_size = size,
				  .index = __atomic_fetch_add(&perf.index, 1, __ATOMIC_RELAXED) };
	struct iovec v[] = { { &r, sizeof(r) }, { (void *)name, len }, { (void *)code, size } };

	if (writev(perf.fd, v, ARRAY_SIZE(v)) < 0)
		return;
}

void um_perf_code(const char *name, const void *code, size_t size)
{
	if (perf.kind == UM_PERF_MAP)
		write_map(name, code, size);
	else if (perf.kind == UM_PERF_JITDUMP)
		write_jitdump(name, code, size);
}

void um_perf_block(const struct um_exec *x, const struct um_jit_block *jb)
{
	char name[64];
	int len;

	if (likely(perf.kind == UM_PERF_NONE))
		return;
	len = snprintf(name, sizeof(name), "guest%s.cpl%u.%llx",
		       x->mode == UM_MODE_64 ? "64" : "32", x->cpu.cpl,
		       (unsigned long long)x->cpu.rip);
	um_perf_code(name, jb->code, jb->code_len);
	snprintf(name + len, sizeof(name) - (size_t)len, ".cold");
	um_perf_code(name, jb->cold, jb->cold_len);
}

// SPDX-License-Identifier: MIT
/*
 * CPUID as a program sees it under `umbra exec`, with UMBRA_CPUID=fault or patch in the
 * environment: the flag is there, all else is as without us, and no byte of the program's code is
 * changed but what has to be.
 *
 *	cpuid		the test
 *	cpuid print	write what CPUID says, for the test: with UMBRA_CPUID=off, the truth
 */
#include "client.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <link.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ROWS 40

static const uint32_t leaves[][2] = {
	{ 0, 0 },	   { 1, 0 },	      { 2, 0 },		 { 4, 0 },
	{ 4, 1 },	   { 4, 2 },	      { 5, 0 },		 { 6, 0 },
	{ 7, 0 },	   { 7, 1 },	      { 0xb, 0 },	 { 0xb, 1 },
	{ 0xd, 0 },	   { 0xd, 1 },	      { 0xd, 2 },	 { 0x14, 0 },
	{ 0x15, 0 },	   { 0x16, 0 },	      { 0x40000000, 0 }, { 0x80000000, 0 },
	{ 0x80000001, 0 }, { 0x80000002, 0 }, { 0x80000008, 0 }, { 0x8000000a, 0 },
	{ 0xffffffff, 7 },
};

struct row {
	uint32_t a, b, c, d;
};

static unsigned read_all(struct row *rows)
{
	unsigned n = sizeof(leaves) / sizeof(leaves[0]);

	for (unsigned i = 0; i < n; i++)
		__cpuid_count(leaves[i][0], leaves[i][1], rows[i].a, rows[i].b, rows[i].c,
			      rows[i].d);
	return n;
}

/* The bytes of CPUID, but no CPUID: these must stay. */
__attribute__((noinline)) static uint32_t lookalike(void)
{
	uint32_t r;

	asm volatile("mov $0x00a20fa2, %0" : "=r"(r));
	return r;
}

/* All registers but the four, and the flags, are kept; the upper halves are cleared. */
static void check_registers(void)
{
	uint64_t a = 0xffffffff00000000, b = ~0ull, c = 0xffffffff00000000, d = ~0ull, flags;
	register uint64_t r8 asm("r8") = 8, r12 asm("r12") = 12;

	asm volatile("stc; cpuid; pushfq; pop %[flags]"
		     : "+a"(a), "+b"(b), "+c"(c), "+d"(d), [flags] "=r"(flags), "+r"(r8),
		       "+r"(r12));
	CHECK(!((a | b | c | d) >> 32));
	CHECK((flags & 1) && r8 == 8 && r12 == 12);
}

/* The program's code in memory against its file. */
static int compare_code(struct dl_phdr_info *info, size_t size, void *changed)
{
	int fd = open("/proc/self/exe", O_RDONLY);

	(void)size;
	CHECK(fd >= 0);
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		const uint8_t *mem = (const uint8_t *)(info->dlpi_addr + p->p_vaddr);
		uint8_t *file;

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
			continue;
		file = malloc(p->p_filesz);
		CHECK(pread(fd, file, p->p_filesz, (off_t)p->p_offset) == (ssize_t)p->p_filesz);
		for (size_t j = 0; j < p->p_filesz; j++) {
			if (file[j] == mem[j])
				continue;
			/* CPUID became UD2 */
			if (j && file[j - 1] == 0x0f && file[j] == 0xa2 && mem[j] == 0x0b) {
				++*(int *)changed;
				continue;
			}
			/* mov $NR, %eax; syscall: became jmp; syscall */
			CHECK(file[j] == 0xb8 && mem[j] == 0xe9 && j + 7 <= p->p_filesz);
			CHECK(file[j + 5] == 0x0f && file[j + 6] == 0x05);
			CHECK(mem[j + 5] == 0x0f && mem[j + 6] == 0x05);
			j += 4;
		}
		free(file);
	}
	close(fd);
	return 1; /* the program is the first object */
}

static void read_truth(struct row *rows, size_t n)
{
	char *argv[] = { "/proc/self/exe", "print", NULL };
	posix_spawn_file_actions_t actions;
	int pipefd[2], status;
	pid_t pid;

	CHECK(pipe(pipefd) == 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipefd[1], 1);
	CHECK(setenv("UMBRA_CPUID", "off", 1) == 0);
	CHECK(posix_spawn(&pid, argv[0], &actions, NULL, argv, environ) == 0);
	close(pipefd[1]);
	CHECK(read(pipefd[0], rows, n * sizeof(*rows)) == (ssize_t)(n * sizeof(*rows)));
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

int main(int argc, char **argv)
{
	struct row seen[ROWS], truth[ROWS];
	const char *mode = getenv("UMBRA_CPUID");
	cpu_set_t one;
	unsigned n;
	int changed = 0;
	bool patch, amd;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
	n = read_all(seen);
	if (argc > 1 && !strcmp(argv[1], "print"))
		return write(1, seen, n * sizeof(*seen)) == (ssize_t)(n * sizeof(*seen)) ? 0 : 1;
	CHECK(mode);
	patch = !strcmp(mode, "patch");
	if (!patch && syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0) != 0)
		return 77; /* the CPU cannot */
	CHECK(lookalike() == 0x00a20fa2);
	check_registers();
	dl_iterate_phdr(compare_code, &changed);
	CHECK(patch ? changed > 0 : changed == 0);
	read_truth(truth, n);
	amd = truth[0].b == 0x68747541 || truth[0].b == 0x6f677948;
	for (unsigned i = 0; i < n; i++) {
		uint32_t flag = amd ? (leaves[i][0] == 0x80000001) << 2 : (leaves[i][0] == 1) << 5;

		truth[i].c |= flag;
		CHECK(!memcmp(&seen[i], &truth[i], sizeof(truth[i])));
	}
	/*
	 * And in other threads, with all signals blocked, and when the program has a handler of its
	 * own.
	 */
	for (int i = 0; i < 2; i++) {
		sigset_t all;

		sigfillset(&all);
		if (i)
			CHECK(signal(patch ? SIGILL : SIGSEGV, SIG_IGN) != SIG_ERR);
		CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
		CHECK(read_all(seen) == n && !memcmp(seen, truth, n * sizeof(*seen)));
	}
	return 0;
}

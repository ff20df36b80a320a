// SPDX-License-Identifier: MIT
/* The kernel's work: system calls, processes, page tables, switches, signals. */
#include "work.h"

#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t do_syscall(void)
{
	for (int i = 0; i < 200000; i++)
		syscall(SYS_getppid);
	return 200000;
}

uint64_t do_fork(void)
{
	for (int i = 0; i < 100; i++) {
		pid_t p = fork();

		if (p == 0)
			_exit(0);
		waitpid(p, NULL, 0);
	}
	return 100;
}

uint64_t do_exec(void)
{
	for (int i = 0; i < 40; i++) {
		pid_t p = fork();

		if (p == 0) {
			execl("/proc/self/exe", "work", "--nothing", (char *)NULL);
			_exit(1);
		}
		waitpid(p, NULL, 0);
	}
	return 40;
}

uint64_t do_fault(void)
{
	enum { SIZE = 32 << 20 };
	uint64_t sum = 0;
	char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(p, SIZE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < SIZE; i += 4096)
		p[i] = 1, sum++;
	munmap(p, SIZE);
	return sum;
}

uint64_t do_mmap(void)
{
	uint64_t n = 0;

	for (int i = 0; i < 4000; i++) {
		char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			       0);

		p[0] = 1;
		n++;
		munmap(p, 65536);
	}
	return n;
}

uint64_t do_pipe(void)
{
	int a[2], b[2];
	char c = 0;
	pid_t child;

	if (pipe(a) || pipe(b))
		return 0;
	child = fork();
	if (child == 0) {
		close(a[1]);
		while (read(a[0], &c, 1) == 1) {
			if (write(b[1], &c, 1) != 1)
				break;
		}
		_exit(0);
	}
	close(a[0]);
	for (int i = 0; i < 5000; i++) {
		if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
			return 1;
	}
	close(a[1]);
	close(b[0]);
	close(b[1]);
	waitpid(child, NULL, 0);
	return 5000;
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

uint64_t do_signal(void)
{
	signals = 0;
	signal(SIGUSR1, on_signal);
	for (int i = 0; i < 15000; i++)
		raise(SIGUSR1);
	return (uint64_t)signals;
}

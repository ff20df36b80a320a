/* SPDX-License-Identifier: MIT */
/*
 * System calls from the library's own code instead of the C library's.  A filter that a VMM puts on its vCPU threads
 * knows what the VMM calls, not what the library needs; `umbra exec` lets through what comes from libumbra's text.  So
 * this is for calls that a VMM has no use for in such a thread.
 */
#ifndef UM_BASE_SYSCALL_H
#define UM_BASE_SYSCALL_H

#include <sys/syscall.h>

/* The result, or -errno. */
static inline long um_syscall3(long nr, long a, long b, long c)
{
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "0"(nr), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return r;
}

#endif

// SPDX-License-Identifier: MIT
/*
 * Filters of system calls under the preload library: those that the program puts on itself are widened (seccomp.h), by
 * whichever of the two ways it asks for them.
 *
 * While the thread is inside libumbra, syscall(2) is done here and not by the C library, so that a filter can tell.
 */
#include <sys/prctl.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "seccomp.h"
#include "shim.h"

static long raw(const long *a)
{
	register long r10 asm("r10") = a[4], r8 asm("r8") = a[5], r9 asm("r9") = a[6];
	long r;

	asm volatile("syscall"
		     : "=a"(r)
		     : "a"(a[0]), "D"(a[1]), "S"(a[2]), "d"(a[3]), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	if (r < 0 && r > -4096) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

/* The call @a with the filter that @a[@at] points at. */
static long install(long *a, unsigned at)
{
	const struct sock_fprog *prog = (void *)a[at];
	struct um_seccomp_filter f;
	int err, saved_errno;
	long r;

	if (!prog || !prog->filter || !prog->len || prog->len > BPF_MAXINSNS)
		return raw(a);
	err = um_seccomp_widen(&f, prog);
	if (err) {
		errno = -err;
		return -1;
	}
	a[at] = (long)&f.prog;
	r = raw(a);
	saved_errno = errno;
	um_seccomp_free(&f);
	errno = saved_errno;
	return r;
}

UM_SHIM long syscall(long nr, ...)
{
	long a[7] = { nr };
	va_list ap;

	va_start(ap, nr);
	for (int i = 1; i < 7; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (um_shim_in)
		return raw(a);
	if (nr == SYS_seccomp && a[1] == SECCOMP_SET_MODE_FILTER)
		return install(a, 3);
	if (nr == SYS_prctl && a[1] == PR_SET_SECCOMP && a[2] == SECCOMP_MODE_FILTER)
		return install(a, 3);
	return um_next()->syscall(nr, a[1], a[2], a[3], a[4], a[5], a[6]);
}

UM_SHIM int prctl(int option, ...)
{
	long a[7] = { SYS_prctl, option };
	va_list ap;

	va_start(ap, option);
	for (int i = 2; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (!um_shim_in && option == PR_SET_SECCOMP && a[2] == SECCOMP_MODE_FILTER)
		return (int)install(a, 3);
	return um_next()->prctl(option, a[2], a[3], a[4], a[5]);
}

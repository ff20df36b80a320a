// SPDX-License-Identifier: MIT
/*
 * What programs do with descriptors of /dev/kvm: requests, mappings, copies, the end.
 *
 * libumbra's table says which descriptors are ours.  It follows what is done to the real descriptors here:
 * a copy gets its entry after it is made, and an entry is taken out before its descriptor is closed, so that
 * a number that another thread gets anew never has an old entry.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim.h"

#define LARGEFILE 0100000 /* O_LARGEFILE, which is 0 for 64-bit programs */

__thread unsigned um_shim_in;

static pid_t owner; /* the process that this memory belongs to */

void um_shim_own(void)
{
	owner = getpid();
}

__attribute__((constructor)) static void init(void)
{
	um_shim_own();
	pthread_atfork(NULL, NULL, um_shim_own);
}

bool um_shim_foreign(void)
{
	long pid;

	um_shim_in++; /* a call of ours: filters.c */
	pid = syscall(SYS_getpid);
	um_shim_in--;
	return pid != owner;
}

/* ---- requests ---- */

/*
 * libumbra has cancellation points, where a thread must not vanish with locks held.  In the kernel KVM_RUN
 * is none.
 */
static int call(int fd, unsigned long request, void *arg)
{
	int r = -1, state;
	bool stoppable;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	stoppable = __builtin_expect(um_shim_async, 0) && state == PTHREAD_CANCEL_ENABLE;
	if (stoppable && !um_shim_begin_run(fd)) {
		errno = EINTR;
	} else {
		um_shim_enter();
		r = umbra_ioctl(fd, request, arg);
		um_shim_leave();
	}
	if (stoppable)
		um_shim_end_run();
	if (state != PTHREAD_CANCEL_DISABLE)
		pthread_setcancelstate(state, NULL);
	return r;
}

int um_shim_adopt(int fd)
{
	int kind;

	if (um_shim_in || um_shim_foreign())
		return UMBRA_KIND_NONE;
	um_shim_enter();
	kind = umbra_adopt(fd);
	um_shim_leave();
	return kind;
}

UM_SHIM int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (um_shim_kind(fd))
		return call(fd, request, arg);
	if (_IOC_TYPE(request) == KVMIO) {
		int saved_errno = errno, kind = um_shim_adopt(fd);

		if (kind > 0)
			return call(fd, request, arg);
		if (kind < 0)
			return -1;
		errno = saved_errno;
	}
	return um_next()->ioctl(fd, request, arg);
}

UM_SHIM void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	void *p;

	if (fd < 0 || (flags & MAP_ANONYMOUS) || !um_shim_kind(fd))
		return um_next()->mmap(addr, length, prot, flags, fd, offset);
	um_shim_enter();
	p = umbra_mmap(addr, length, prot, flags, fd, offset);
	um_shim_leave();
	return p;
}

void *mmap64(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
	UM_SHIM_ALIAS(mmap);

/* ---- the end ---- */

static int forget(int fd)
{
	int r;

	um_shim_enter();
	r = umbra_forget(fd);
	um_shim_leave();
	return r;
}

UM_SHIM int close(int fd)
{
	int r;

	if (!um_shim_kind(fd) || um_shim_foreign())
		return um_next()->close(fd);
	um_shim_enter();
	r = umbra_close(fd);
	um_shim_leave();
	return r;
}

UM_SHIM int fclose(FILE *f)
{
	int saved_errno = errno;
	int fd = f ? fileno(f) : -1;

	errno = saved_errno;
	if (um_shim_kind(fd) && !um_shim_foreign())
		forget(fd);
	return um_next()->fclose(f);
}

static void forget_range(unsigned first, unsigned last)
{
	if (um_shim_in || um_shim_foreign() || first > (unsigned)__INT_MAX__)
		return;
	for (int fd = umbra_next((int)first); fd >= 0 && (unsigned)fd <= last;
	     fd = umbra_next(fd + 1))
		forget(fd);
}

UM_SHIM int close_range(unsigned first, unsigned last, int flags)
{
	/* Flags: only marks them, or takes a table of descriptors of its own, which no VMM does. */
	if (first <= last && !flags)
		forget_range(first, last);
	return um_next()->close_range(first, last, flags);
}

UM_SHIM void closefrom(int first)
{
	forget_range(first < 0 ? 0 : (unsigned)first, (unsigned)__INT_MAX__);
	um_next()->closefrom(first);
}

/* ---- copies ---- */

/* @new was made from @old, or is -1.  Returns what the program is told. */
static int copied(int old, int new)
{
	int saved_errno = errno, r;

	if (new < 0 || new == old || um_shim_in || um_shim_foreign())
		return new;
	if (!umbra_kind(old)) {
		/* dup2() over one of ours. */
		if (umbra_kind(new))
			forget(new);
		errno = saved_errno;
		return new;
	}
	um_shim_enter();
	r = umbra_dup(old, new);
	um_shim_leave();
	if (r < 0) {
		saved_errno = errno;
		um_next()->close(new);
		new = -1;
	}
	errno = saved_errno;
	return new;
}

UM_SHIM int dup(int fd)
{
	return copied(fd, um_next()->dup(fd));
}

UM_SHIM int dup2(int fd, int to)
{
	return copied(fd, um_next()->dup2(fd, to));
}

UM_SHIM int dup3(int fd, int to, int flags)
{
	return copied(fd, um_next()->dup3(fd, to, flags));
}

UM_SHIM int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;
	int r;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	r = um_next()->fcntl(fd, cmd, arg);
	/* Memfds say so of themselves; what the kernel makes for VMs does not. */
	if (cmd == F_GETFL && r >= 0 && um_shim_kind(fd) > UMBRA_KIND_SYSTEM)
		return r & ~LARGEFILE;
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		return copied(fd, r);
	return r;
}

int fcntl64(int fd, int cmd, ...) UM_SHIM_ALIAS(fcntl);

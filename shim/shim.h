/* SPDX-License-Identifier: MIT */
/*
 * The preload library: answers the C library's functions for /dev/kvm and the descriptors that come from it,
 * and hands everything else to the functions behind it (next.h).
 *
 * Three rules:
 *  1. libumbra.so calls the C library too, and gets our functions.  While the thread is in there, um_shim_in
 *     is not 0, and every function passes straight through.
 *  2. The VMM's signal handlers never run inside of libumbra (signals.c), so rule 1 never hides their calls.
 *  3. A child of vfork() shares our memory but not the descriptors: there the table of descriptors is left
 *     alone (um_shim_foreign).
 */
#ifndef UM_SHIM_SHIM_H
#define UM_SHIM_SHIM_H

#include <errno.h>
#include <stdbool.h>

#include "next.h"
#include "umbra.h"

extern __thread unsigned um_shim_in __attribute__((tls_model("initial-exec")));

/* Signals that wait until the thread has left libumbra: signals.c */
extern __thread volatile sig_atomic_t um_shim_deferred __attribute__((tls_model("initial-exec")));
void um_shim_deliver(void);

static inline void um_shim_enter(void)
{
	um_shim_in++;
}

static inline void um_shim_leave(void)
{
	um_shim_in--;
	if (__builtin_expect(um_shim_deferred, 0))
		um_shim_deliver();
}

/* Is the caller a child that shares this memory?  descriptors.c */
bool um_shim_foreign(void);
/* The calling process has this memory for itself: after a fork that the C library does not know of. */
void um_shim_own(void);

/* Does @path, looked up from @dirfd, mean /dev/kvm?  files.c */
bool um_shim_is_kvm(int dirfd, const char *path);
/* The same if symbolic links are followed, also with other names. */
bool um_shim_leads_to_kvm(int dirfd, const char *path);

/* Are these files built into the supervisor (load/load.h), or into the preload library? */
#ifndef UM_SHIM_SUPERVISOR
#define UM_SHIM_SUPERVISOR 0
#endif

/* umbra_adopt() */
int um_shim_adopt(int fd);

/*
 * Around KVM_RUN, in a thread with asynchronous cancelability (um_shim_async): cancel.c.  begin: false if the thread
 * was cancelled already.
 */
#if UM_SHIM_SUPERVISOR
/* The program's own C library sends a signal. */
#define um_shim_async false
static inline bool um_shim_begin_run(int fd)
{
	(void)fd;
	return true;
}

static inline void um_shim_end_run(void) {}
#else
extern __thread bool um_shim_async __attribute__((tls_model("initial-exec")));
bool um_shim_begin_run(int fd);
void um_shim_end_run(void);
#endif

/* umbra_open() with the flags of open(2); -1 with errno. */
int um_shim_open(int flags);

/* Kind of a descriptor for this caller: UMBRA_KIND_NONE inside libumbra. */
static inline int um_shim_kind(int fd)
{
	return um_shim_in ? UMBRA_KIND_NONE : umbra_kind(fd);
}

#endif

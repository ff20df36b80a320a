/* SPDX-License-Identifier: MIT */
/*
 * Timers and watched descriptors, and the one helper thread of a VM that serves them.
 *
 * A timer has an absolute deadline on CLOCK_MONOTONIC, in nanoseconds.  When it has passed, the
 * helper thread disarms the timer and calls its function, with no lock held; the function may arm
 * the timer again.  Arming is cheap (a lock; a system call only if the new deadline is the nearest
 * one), may be done from any thread and under any lock that the timer's own function can wait for.
 *
 * The thread is made with the VM, before a VMM may install seccomp filters that forbid clone(), and
 * blocks every signal, so the VMM's handlers never run on it.
 *
 * Lock: the set's own mutex, a leaf; nothing is called under it.
 */
#ifndef UM_IRQCHIP_TIMER_H
#define UM_IRQCHIP_TIMER_H

#include "base/types.h"

struct um_timers;
struct um_timer;

/* Called in the helper thread, with no lock of the timer set held.  Must not block for long. */
typedef void (*um_timer_fn)(void *opaque);

/* Embed one; the fields are timer.c's. */
struct um_timer {
	struct um_timers *set;
	um_timer_fn fn;
	void *opaque;
	u64 deadline; /* ns of CLOCK_MONOTONIC, valid while armed */
	int slot;     /* place in the set's heap, or -1: not armed */
};

/* Start the helper thread.  0 or -errno (EMFILE, ENOMEM, EAGAIN). */
int um_timers_create(struct um_timers **set);

/* Stop and join the helper thread.  Every timer must have been destroyed. */
void um_timers_destroy(struct um_timers *set);

/* Now, in ns of CLOCK_MONOTONIC: what deadlines are compared with. */
u64 um_timer_now(void);

/* Prepare a timer, disarmed.  0 or -ENOMEM. */
int um_timer_init(struct um_timer *t, struct um_timers *set, um_timer_fn fn, void *opaque);

/* (Re)arm: the function runs once, as soon as possible after @deadline.  Never fails. */
void um_timer_arm(struct um_timer *t, u64 deadline);

/*
 * Disarm.  The function may be running, or about to run, in the helper thread and is not waited
 * for: it must recheck under its owner's lock whether there is still something to do.
 */
void um_timer_cancel(struct um_timer *t);

/*
 * Disarm and wait until the function is not running; afterwards it will not run again.  Not under a
 * lock that the function takes, and not from a timer function.  A zeroed timer is left alone.
 */
void um_timer_destroy(struct um_timer *t);

/* ---- Descriptors ---- */

/* Embed one; the fields are timer.c's. */
struct um_watch {
	struct um_timers *set;
	um_timer_fn fn;
	void *opaque;
	int fd;
	u32 slot; /* in the set's table of watches */
};

/*
 * Call @fn in the helper thread whenever @fd is readable, until it is removed; @fn must read what makes
 * it so.  At once if it is readable already.  @fd stays the caller's, who must not close it before
 * removing the watch.  0 or -errno (ENOMEM, ENOSPC, EPERM: not a descriptor that can be waited for).
 */
int um_watch_add(struct um_watch *w, struct um_timers *set, int fd, um_timer_fn fn, void *opaque);

/*
 * Stop, and wait until the function is not running; afterwards it will not run again.  The rules of
 * um_timer_destroy(); a zeroed watch is left alone.
 */
void um_watch_remove(struct um_watch *w);

#endif

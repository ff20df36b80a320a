// SPDX-License-Identifier: MIT
/*
 * pthread_cancel() of a thread that runs a vCPU.
 *
 * KVM_RUN is no cancellation point.  But a thread whose cancelability is asynchronous gets a signal from
 * pthread_cancel(), which in the kernel ends KVM_RUN; then the thread ends.  Here cancelability is off while a
 * thread is inside libumbra, or it might vanish with locks held, and the C library sends no signal to such a
 * thread.  So we tell libumbra to return from KVM_RUN; the thread ends when its cancelability is on again.
 *
 * Threads come on the list when they ask for asynchronous cancelability, which few ever do.  Whether a thread is
 * cancelled before KVM_RUN, or in it, is decided between two words that each side writes first and then reads the
 * other's: `cancelled` and `fd`.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "shim.h"

static __thread struct target {
	struct target *next, **link; /* link NULL: not on the list */
	pthread_t thread;
	atomic_bool cancelled;
	atomic_int fd; /* of the vCPU that it runs, or -1 */
} me __attribute__((tls_model("initial-exec")));

__thread bool um_shim_async __attribute__((tls_model("initial-exec")));

static struct target *targets;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t at_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void unlist(void *target)
{
	struct target *t = target;

	pthread_mutex_lock(&lock);
	if (t->link) {
		*t->link = t->next;
		if (t->next)
			t->next->link = t->link;
		t->link = NULL;
	}
	pthread_mutex_unlock(&lock);
}

/* The child has one thread, which nobody else knows. */
static void after_fork_child(void)
{
	pthread_mutex_init(&lock, NULL);
	targets = NULL;
	me.link = NULL;
	um_shim_async = false;
}

static void make_key(void)
{
	pthread_key_create(&at_exit, unlist);
	pthread_atfork(NULL, NULL, after_fork_child);
}

static void list(void)
{
	pthread_once(&once, make_key);
	if (me.link || pthread_setspecific(at_exit, &me))
		return;
	me.thread = pthread_self();
	atomic_store(&me.cancelled, false);
	atomic_store(&me.fd, -1);
	pthread_mutex_lock(&lock);
	me.next = targets;
	if (targets)
		targets->link = &me.next;
	targets = &me;
	me.link = &targets;
	pthread_mutex_unlock(&lock);
}

UM_SHIM int pthread_setcanceltype(int type, int *old)
{
	bool async = type == PTHREAD_CANCEL_ASYNCHRONOUS;

	/* Afterwards it may be too late: a thread that was cancelled before ends in there. */
	if (async && !um_shim_in)
		list();
	um_shim_async = async && me.link;
	return um_next()->pthread_setcanceltype(type, old);
}

/*
 * The lock is held until the C library knows: or a thread that isn't on the list yet could come on it, and enter
 * KVM_RUN, between our look and the library's mark, which it would not see there.
 */
UM_SHIM int pthread_cancel(pthread_t thread)
{
	int r, fd, state;

	if (pthread_equal(thread, pthread_self()))
		return um_next()->pthread_cancel(thread);
	pthread_once(&once, make_key); /* what a fork does meanwhile */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_mutex_lock(&lock);
	for (struct target *t = targets; t; t = t->next) {
		if (!pthread_equal(t->thread, thread))
			continue;
		atomic_store(&t->cancelled, true);
		fd = atomic_load(&t->fd);
		if (fd >= 0) {
			um_shim_enter();
			umbra_interrupt_vcpu(fd);
			um_shim_leave();
		}
	}
	r = um_next()->pthread_cancel(thread);
	pthread_mutex_unlock(&lock);
	pthread_setcancelstate(state, NULL);
	return r;
}

bool um_shim_begin_run(int fd)
{
	atomic_store(&me.fd, fd);
	return !atomic_load(&me.cancelled);
}

/*
 * Cancelability goes on again in two steps: some C libraries end a thread that was cancelled meanwhile without its
 * result when it is switched on, but not when it becomes asynchronous.
 */
void um_shim_end_run(void)
{
	atomic_store(&me.fd, -1);
	um_next()->pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	um_next()->pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
}

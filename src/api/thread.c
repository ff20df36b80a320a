// SPDX-License-Identifier: MIT
/*
 * Signals and KVM_RUN.
 *
 * In the kernel a signal ends KVM_RUN with EINTR and its handler runs afterwards.  Here KVM_RUN is a
 * function, and a handler interrupts it in the middle.  It calls umbra_interrupt(), which raises `wanted`
 * and kicks the vCPU; the run loop reads `wanted` where it reads immediate_exit.
 *
 * All of this is one thread and its own signal handlers.  Order is what counts: `wanted` is lowered before
 * `depth` says that the thread is inside, and raised before the vCPU is looked at; the vCPU is set before
 * the loop reads `wanted`.  So a signal at any point between enter and leave is noticed, and none is left
 * over for the next call.
 */
#include "api/thread.h"

#include <errno.h>
#include <stddef.h>

#include "vcpu/vcpu.h"

static _Thread_local struct {
	atomic_uint depth;
	atomic_bool wanted;
	struct um_vcpu *_Atomic vcpu;
} me __attribute__((tls_model("initial-exec")));

/* Compiler barriers are enough between a thread and its handlers. */
#define LOAD(p)	    atomic_load_explicit(p, memory_order_relaxed)
#define STORE(p, v) atomic_store_explicit(p, v, memory_order_relaxed)
#define FENCE()	    atomic_signal_fence(memory_order_seq_cst)

void um_thread_enter(void)
{
	unsigned depth = LOAD(&me.depth);

	if (!depth)
		STORE(&me.wanted, false);
	FENCE();
	STORE(&me.depth, depth + 1);
	FENCE();
}

void um_thread_leave(void)
{
	FENCE();
	STORE(&me.depth, LOAD(&me.depth) - 1);
	FENCE();
}

const atomic_bool *um_thread_set_vcpu(struct um_vcpu *v)
{
	FENCE();
	STORE(&me.vcpu, v);
	FENCE();
	return &me.wanted;
}

int um_thread_interrupt(void)
{
	struct um_vcpu *v;
	int saved_errno = errno;

	if (!LOAD(&me.depth))
		return 0;
	STORE(&me.wanted, true);
	FENCE();
	v = LOAD(&me.vcpu);
	if (v)
		um_vcpu_kick(v);
	errno = saved_errno;
	return 1;
}

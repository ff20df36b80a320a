/* SPDX-License-Identifier: MIT */
/*
 * What the calling thread does in the library: so that a signal handler can ask, and end KVM_RUN.
 *
 * um_thread_enter() and um_thread_leave() bracket every function of umbra.h that may block or lock; they
 * nest.  um_thread_set_vcpu() says which vCPU is being run (NULL: none).
 */
#ifndef UM_API_THREAD_H
#define UM_API_THREAD_H

#include <stdatomic.h>

struct um_vcpu;

void um_thread_enter(void);
void um_thread_leave(void);
/* Returns the flag that says that the thread is wanted back. */
const atomic_bool *um_thread_set_vcpu(struct um_vcpu *v);

/* umbra_interrupt() */
int um_thread_interrupt(void);

#endif

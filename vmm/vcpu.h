/* SPDX-License-Identifier: MIT */
/*
 * A vCPU: its KVM descriptor, its kvm_run, and the thread that runs it and serves its exits.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "accel.h"
#include "board.h"
#include "bus.h"
#include "load.h"
#include "memory.h"

struct vcpu;
struct kvm_cpuid2;

/* What all vCPUs of a machine share. */
struct vcpu_env {
	const struct accel *accel;
	int kvm, vm;
	struct board *board;
	struct bus *io, *mmio;
	const struct memory *mem;
};

/* Install the handler of the signal with which threads are kicked.  Once, before vcpu_start(). */
void vcpu_init_signal(void);

/* Create vCPU @id in its reset state, with @cpuid.  NULL after a message. */
struct vcpu *vcpu_new(const struct vcpu_env *env, unsigned id, const struct kvm_cpuid2 *cpuid);
void vcpu_free(struct vcpu *v);

/* Make it start as @boot says.  0 or -errno after a message. */
int vcpu_set_boot(struct vcpu *v, const struct boot *boot);

/* Start the thread.  0 or -errno after a message. */
int vcpu_start(struct vcpu *v);

/* Make KVM_RUN return and the thread end.  Any thread; does not wait. */
void vcpu_stop(struct vcpu *v);

/* Wait until a thread that was started and stopped has ended. */
void vcpu_join(struct vcpu *v);

/* Registers, and the code at RIP, to standard error (dump.c).  On the vCPU's own thread. */
void vcpu_dump(const struct vcpu_env *env, int fd, unsigned id);

#endif

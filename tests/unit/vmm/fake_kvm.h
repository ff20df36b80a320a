/* SPDX-License-Identifier: MIT */
/*
 * A KVM without a CPU: it answers the ioctls that the VMM uses, remembers what it was told, and
 * "runs" the boot processor by making the exits of a script.  Other processors wait to be kicked.
 */
#ifndef TEST_VMM_FAKE_KVM_H
#define TEST_VMM_FAKE_KVM_H

#include <linux/kvm.h>

#include "fixture.h"
#include "vmm/accel.h"

enum fake_op {
	FAKE_OUT,     /* OUT of @len bytes of @value to @port */
	FAKE_OUTS,    /* REP OUTSB of the string @text to @port */
	FAKE_IN,      /* IN of @len bytes from @port, which must give @value */
	FAKE_MMIO_IN, /* a load of @len bytes at @addr, which must give @value */
	FAKE_SPIN,    /* run until kicked */
	FAKE_EXIT,    /* the exit reason @value */
	FAKE_EVENT,   /* KVM_EXIT_SYSTEM_EVENT of type @value */
	FAKE_ERROR,   /* KVM_RUN fails with errno @value */
};

struct fake_step {
	enum fake_op op;
	u16 port;
	u64 value;
	unsigned len;
	const char *text;
	u64 addr;
};

#define FAKE_MAX_VCPUS 8

struct fake_kvm {
	const struct fake_step *script;
	unsigned nsteps, at;
	int refuse; /* the capability to deny, or -1 */
	unsigned open_fds;
	unsigned nvcpus, nslots;
	struct kvm_userspace_memory_region slot[4];
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	u32 apic_id[FAKE_MAX_VCPUS]; /* of CPUID leaf 1 */
	u32 ncores[FAKE_MAX_VCPUS];  /* of CPUID leaf 0Bh */
	unsigned irqchips, pits;
	unsigned mismatches; /* INs that gave something else */
};

/* The one that the table talks to. */
extern struct fake_kvm fake;
extern const struct accel fake_accel;

void fake_reset(const struct fake_step *script, unsigned nsteps);

#endif

/* SPDX-License-Identifier: MIT */
/* What CPUID tells each vCPU. */
#ifndef VMM_GUEST_CPUID_H
#define VMM_GUEST_CPUID_H

#include <linux/kvm.h>

#include "accel.h"

/*
 * KVM_GET_SUPPORTED_CPUID, with room for a few entries more.  NULL after a message; free() it.
 */
struct kvm_cpuid2 *cpuid_supported(const struct accel *accel, int kvm);

/*
 * The table for vCPU @id of @ncpus: @supported with the APIC id and the topology (one socket, @ncpus
 * cores of one thread) put in.  NULL if out of memory; free() it.
 */
struct kvm_cpuid2 *cpuid_for_vcpu(const struct kvm_cpuid2 *supported, unsigned id, unsigned ncpus,
				  bool tsc_deadline);

#endif

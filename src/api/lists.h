/* SPDX-License-Identifier: MIT */
/*
 * Requests with a list of variable length behind their header: MSRs and CPUID entries.  @arg is the VMM's
 * pointer.
 */
#ifndef UM_API_LISTS_H
#define UM_API_LISTS_H

#include <linux/kvm.h>

#include "base/types.h"

#define UM_MAX_IO_MSRS 256 /* KVM's limit on a list */

/*
 * KVM_GET_MSRS, KVM_SET_MSRS: up to the first that fails; returns how many were done.  -E2BIG, -EFAULT,
 * -ENOMEM.
 */
long um_api_get_msrs(unsigned long arg, bool (*get)(void *ctx, u32 msr, u64 *val), void *ctx);
long um_api_set_msrs(unsigned long arg, bool (*set)(void *ctx, u32 msr, u64 val), void *ctx);

/*
 * Give out CPUID entries: @fill puts at most @max of them into @e and returns how many there are, or
 * -E2BIG.  0, -E2BIG, -EFAULT, -ENOMEM.
 */
long um_api_get_cpuid(unsigned long arg,
		      int (*fill)(void *ctx, struct kvm_cpuid_entry2 *e, unsigned max), void *ctx);

/* Take CPUID entries in: the number, with *@e to be freed by the caller; -E2BIG, -EFAULT, -ENOMEM. */
long um_api_copy_cpuid(unsigned long arg, struct kvm_cpuid_entry2 **e);
/* The same for the older KVM_SET_CPUID, whose entries have no subleaf. */
long um_api_copy_cpuid1(unsigned long arg, struct kvm_cpuid_entry2 **e);

#endif

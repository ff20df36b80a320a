// SPDX-License-Identifier: MIT
/* Lists of variable length behind a header, in and out. */
#include "api/lists.h"

#include <errno.h>
#include <stdlib.h>

#include "api/api.h"
#include "cpu/cpu.h"

/* The entries of KVM_GET_MSRS and KVM_SET_MSRS: their number, with *@e to be freed; -errno. */
static long copy_msrs(unsigned long arg, struct kvm_msr_entry **e)
{
	struct kvm_msrs head;

	if (um_copy_in_user(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.nmsrs >= UM_MAX_IO_MSRS)
		return -E2BIG;
	*e = calloc(head.nmsrs + 1, sizeof(**e));
	if (!*e)
		return -ENOMEM;
	if (um_copy_in_user(*e, arg + sizeof(head), head.nmsrs * sizeof(**e))) {
		free(*e);
		return -EFAULT;
	}
	return head.nmsrs;
}

long um_api_get_msrs(unsigned long arg, bool (*get)(void *ctx, u32 msr, u64 *val), void *ctx)
{
	struct kvm_msr_entry *e;
	long n = copy_msrs(arg, &e), i = 0;

	if (n < 0)
		return n;
	while (i < n) {
		u64 val = 0;

		if (!get(ctx, e[i].index, &val))
			break;
		e[i++].data = val;
	}
	if (um_copy_out_user(arg + sizeof(struct kvm_msrs), e, (size_t)n * sizeof(*e)))
		i = -EFAULT;
	free(e);
	return i;
}

long um_api_set_msrs(unsigned long arg, bool (*set)(void *ctx, u32 msr, u64 val), void *ctx)
{
	struct kvm_msr_entry *e;
	long n = copy_msrs(arg, &e), i = 0;

	if (n < 0)
		return n;
	while (i < n && set(ctx, e[i].index, e[i].data))
		i++;
	free(e);
	return i;
}

long um_api_get_cpuid(unsigned long arg,
		      int (*fill)(void *ctx, struct kvm_cpuid_entry2 *e, unsigned max), void *ctx)
{
	struct kvm_cpuid_entry2 *e;
	struct kvm_cpuid2 head;
	int n;

	if (um_copy_in_user(&head, arg, sizeof(head)))
		return -EFAULT;
	head.nent = um_min(head.nent, (u32)UM_MAX_CPUID_ENTRIES);
	e = calloc(head.nent + 1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	n = fill(ctx, e, head.nent);
	if (n >= 0) {
		head.nent = (u32)n;
		if (um_copy_out_user(arg, &head, sizeof(head)) ||
		    um_copy_out_user(arg + sizeof(head), e, head.nent * sizeof(*e)))
			n = -EFAULT;
	}
	free(e);
	return n < 0 ? n : 0;
}

long um_api_copy_cpuid(unsigned long arg, struct kvm_cpuid_entry2 **e)
{
	struct kvm_cpuid2 head;

	if (um_copy_in_user(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.nent > UM_MAX_CPUID_ENTRIES)
		return -E2BIG;
	*e = calloc(head.nent + 1, sizeof(**e));
	if (!*e)
		return -ENOMEM;
	if (um_copy_in_user(*e, arg + sizeof(head), head.nent * sizeof(**e))) {
		free(*e);
		return -EFAULT;
	}
	return head.nent;
}

long um_api_copy_cpuid1(unsigned long arg, struct kvm_cpuid_entry2 **out)
{
	struct kvm_cpuid_entry2 *e;
	struct kvm_cpuid head;

	if (um_copy_in_user(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.nent > UM_MAX_CPUID_ENTRIES)
		return -E2BIG;
	e = calloc(head.nent + 1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	for (u32 i = 0; i < head.nent; i++) {
		struct kvm_cpuid_entry old;

		if (um_copy_in_user(&old, arg + sizeof(head) + i * sizeof(old), sizeof(old))) {
			free(e);
			return -EFAULT;
		}
		e[i] = (struct kvm_cpuid_entry2){ .function = old.function,
						  .eax = old.eax,
						  .ebx = old.ebx,
						  .ecx = old.ecx,
						  .edx = old.edx };
	}
	*out = e;
	return head.nent;
}

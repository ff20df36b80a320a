// SPDX-License-Identifier: MIT
/*
 * CPUID: everything that KVM offers, with the leaves that differ from one processor to the next filled
 * in (SDM vol. 2, CPUID; vol. 3, 9.9.2 "Hierarchical Mapping of CPUID Extended Topology Leaf"; APM
 * vol. 3, appendix E).
 */
#include "guest_cpuid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "msg.h"

#define EXTRA 8 /* entries that topology may add */

#define F1_ECX_TSC_DEADLINE (1u << 24)
#define F1_ECX_HYPERVISOR   (1u << 31)
#define F1_EDX_HTT	    (1u << 28)
#define F81_ECX_CMP_LEGACY  (1u << 1)

static struct kvm_cpuid2 *alloc(unsigned n)
{
	return calloc(1, sizeof(struct kvm_cpuid2) + n * sizeof(struct kvm_cpuid_entry2));
}

struct kvm_cpuid2 *cpuid_supported(const struct accel *accel, int kvm)
{
	for (unsigned n = 64; n <= 4096; n *= 2) {
		struct kvm_cpuid2 *c = alloc(n);
		int err;

		if (!c)
			break;
		c->nent = n;
		if (accel->ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c) == 0)
			return c;
		err = errno;
		free(c);
		if (err == E2BIG)
			continue;
		msg("KVM_GET_SUPPORTED_CPUID: %s", strerror(err));
		return NULL;
	}
	msg("KVM_GET_SUPPORTED_CPUID: too much");
	return NULL;
}

/* Bits that number @n things. */
static unsigned bits_for(unsigned n)
{
	return n > 1 ? 32u - (unsigned)__builtin_clz(n - 1) : 0;
}

/* Leaves 4 and 8000_001Dh: who shares a cache.  The last level is shared by all, the others by none. */
static void patch_cache(struct kvm_cpuid_entry2 *e, unsigned ncpus)
{
	unsigned level = (e->eax >> 5) & 7;
	unsigned sharing = level >= 3 ? (1u << bits_for(ncpus)) - 1 : 0;

	if (!(e->eax & 0x1f))
		return;
	e->eax = (e->eax & ~0x03ffc000u) | (sharing & 0xfff) << 14;
	if (e->function == 4)
		e->eax = (e->eax & ~0xfc000000u) | um_min((1u << bits_for(ncpus)) - 1, 63u) << 26;
}

static void patch(struct kvm_cpuid_entry2 *e, unsigned id, unsigned ncpus, bool tsc_deadline)
{
	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0xffff) | (1u << bits_for(ncpus)) << 16 | id << 24;
		e->ecx |= F1_ECX_HYPERVISOR;
		e->ecx &= ~F1_ECX_TSC_DEADLINE;
		e->ecx |= tsc_deadline ? F1_ECX_TSC_DEADLINE : 0;
		e->edx &= ~F1_EDX_HTT;
		e->edx |= ncpus > 1 ? F1_EDX_HTT : 0;
		break;
	case 4:
	case 0x8000001d:
		patch_cache(e, ncpus);
		break;
	case 0x80000001:
		e->ecx &= ~F81_ECX_CMP_LEGACY;
		break;
	case 0x80000008:
		e->ecx = (ncpus - 1) | bits_for(ncpus) << 12;
		break;
	case 0x8000001e:
		e->eax = id;
		e->ebx = id & 0xff;
		e->ecx = 0;
		break;
	default:
		break;
	}
}

/* Leaves 0Bh and 1Fh: threads (none besides the one), cores, and the end. */
static void add_topology(struct kvm_cpuid2 *c, u32 leaf, unsigned id, unsigned ncpus)
{
	for (u32 i = 0; i < 3; i++)
		c->entries[c->nent++] = (struct kvm_cpuid_entry2){
			.function = leaf,
			.index = i,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = i == 1 ? bits_for(ncpus) : 0,
			.ebx = i == 0	? 1
			       : i == 1 ? ncpus
					: 0,
			.ecx = i | (i < 2 ? (i + 1) << 8 : 0),
			.edx = id,
		};
}

struct kvm_cpuid2 *cpuid_for_vcpu(const struct kvm_cpuid2 *supported, unsigned id, unsigned ncpus,
				  bool tsc_deadline)
{
	struct kvm_cpuid2 *c = alloc(supported->nent + EXTRA);
	u32 max = 0;

	if (!c)
		return NULL;
	for (unsigned i = 0; i < supported->nent; i++) {
		struct kvm_cpuid_entry2 e = supported->entries[i];

		if (e.function == 0)
			max = e.eax;
		if (e.function == 0xb || e.function == 0x1f)
			continue;
		patch(&e, id, ncpus, tsc_deadline);
		c->entries[c->nent++] = e;
	}
	if (max >= 0xb)
		add_topology(c, 0xb, id, ncpus);
	if (max >= 0x1f)
		add_topology(c, 0x1f, id, ncpus);
	return c;
}

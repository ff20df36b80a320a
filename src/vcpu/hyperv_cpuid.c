// SPDX-License-Identifier: MIT
/*
 * CPUID leaves of Hyper-V's interface (TLFS, "Feature and Interface Discovery"): what can be offered, and which of
 * it the guest was offered.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "vcpu/hyperv.h"

#define VERSION_BUILD 14393 /* of the version that is claimed: Windows Server 2016, as KVM does */
#define VERSION	      (10u << 16) /* 10.0 */
#define SPIN_TRIES    0xfffu	  /* before a guest tells that it spins */
#define MAX_LOGICAL   64	  /* logical processors, by which guests size tables */

#define ACCESS                                                                                  \
	(HV_ACCESS_VP_RUNTIME | HV_ACCESS_TIME_REF_COUNT | HV_ACCESS_SYNIC | HV_ACCESS_STIMER | \
	 HV_ACCESS_APIC | HV_ACCESS_HYPERCALL | HV_ACCESS_VP_INDEX | HV_ACCESS_RESET |          \
	 HV_ACCESS_REFERENCE_TSC | HV_ACCESS_FREQUENCIES | HV_ACCESS_REENLIGHTENMENT)
#define PRIVILEGES (HV_ALLOW_POST_MESSAGES | HV_ALLOW_SIGNAL_EVENTS | HV_ALLOW_DEBUGGING)
#define FEATURES                                                                                \
	(HV_FEATURE_XMM_INPUT | HV_FEATURE_FREQUENCIES | HV_FEATURE_CRASH | HV_FEATURE_SYNDBG | \
	 HV_FEATURE_EXTENDED_RANGES)
#define HINTS                                                                    \
	(HV_HINT_REMOTE_TLB_FLUSH | HV_HINT_APIC_MSRS | HV_HINT_RELAXED_TIMING | \
	 HV_HINT_NO_AUTO_EOI | HV_HINT_CLUSTER_IPI | HV_HINT_EX_PROCESSOR_MASKS)

/* Can two threads share a core of the host, now or when its administrator says so? */
static bool host_smt_possible(void)
{
	char text[16] = "";
	int fd = open("/sys/devices/system/cpu/smt/control", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return true;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	return strncmp(text, "forceoff", 8) && strncmp(text, "notsupported", 12);
}

static void vendor(struct kvm_cpuid_entry2 *e, u32 max_leaf)
{
	static const char name[12] = "Linux KVM Hv";

	e->eax = max_leaf;
	memcpy(&e->ebx, name, 4);
	memcpy(&e->ecx, name + 4, 4);
	memcpy(&e->edx, name + 8, 4);
}

static void fill(struct kvm_cpuid_entry2 *e, bool direct_timers)
{
	switch (e->function) {
	case HV_CPUID_VENDOR:
	case HV_CPUID_SYNDBG_VENDOR:
		vendor(e, HV_CPUID_SYNDBG_CAPS);
		break;
	case HV_CPUID_INTERFACE:
		e->eax = HV_INTERFACE_HV1;
		break;
	case HV_CPUID_VERSION:
		e->eax = VERSION_BUILD;
		e->ebx = VERSION;
		break;
	case HV_CPUID_FEATURES:
		e->eax = ACCESS;
		e->ebx = PRIVILEGES;
		e->edx = FEATURES | (direct_timers ? HV_FEATURE_STIMER_DIRECT : 0);
		break;
	case HV_CPUID_HINTS:
		e->eax = HINTS | (host_smt_possible() ? 0 : HV_HINT_NO_CORE_SHARING);
		e->ebx = SPIN_TRIES;
		break;
	case HV_CPUID_LIMITS:
		e->eax = UM_MAX_VCPUS;
		e->ebx = MAX_LOGICAL;
		break;
	case HV_CPUID_NESTED:
		/* A hypervisor in the guest may say when it changed its bitmap of MSRs; it is read every time. */
		e->eax = HV_NESTED_MSR_BITMAP;
		break;
	case HV_CPUID_SYNDBG_INTERFACE:
		e->eax = HV_INTERFACE_VS1;
		break;
	case HV_CPUID_SYNDBG_CAPS:
		e->eax = HV_SYNDBG_KERNEL_DEBUGGING;
		break;
	}
}

int um_hv_supported_cpuid(bool direct_timers, struct kvm_cpuid_entry2 *e, unsigned max)
{
	static const u32 leaves[] = {
		HV_CPUID_VENDOR,      HV_CPUID_INTERFACE,     HV_CPUID_VERSION,
		HV_CPUID_FEATURES,    HV_CPUID_HINTS,	      HV_CPUID_LIMITS,
		HV_CPUID_NESTED,      HV_CPUID_SYNDBG_VENDOR, HV_CPUID_SYNDBG_INTERFACE,
		HV_CPUID_SYNDBG_CAPS,
	};

	if (max < ARRAY_SIZE(leaves))
		return -E2BIG;
	for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++) {
		e[i] = (struct kvm_cpuid_entry2){ .function = leaves[i] };
		fill(&e[i], direct_timers);
	}
	return ARRAY_SIZE(leaves);
}

const struct um_cpuid_entry *um_hv_cpuid_entry(const struct um_vcpu *v, u32 leaf)
{
	const struct um_cpu *c = &v->x.cpu;

	for (unsigned i = 0; i < c->ncpuid; i++) {
		if (c->cpuid[i].function == leaf)
			return &c->cpuid[i];
	}
	return NULL;
}

void um_hv_cpuid_changed(struct um_vcpu *v)
{
	static const struct um_cpuid_entry none;
	const struct um_cpuid_entry *e = um_hv_cpuid_entry(v, HV_CPUID_INTERFACE);
	struct um_hv_vcpu *hv = v->hv;

	hv->present = e && e->eax == HV_INTERFACE_HV1;
	e = um_hv_cpuid_entry(v, HV_CPUID_FEATURES);
	e = e ? e : &none;
	hv->access = e->eax;
	hv->privileges = e->ebx;
	hv->features = e->edx;
	e = um_hv_cpuid_entry(v, HV_CPUID_HINTS);
	e = e ? e : &none;
	hv->hints = e->eax;
	hv->spins = e->ebx;
	e = um_hv_cpuid_entry(v, HV_CPUID_SYNDBG_CAPS);
	hv->syndbg = e ? e->eax : 0;
}

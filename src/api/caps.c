// SPDX-License-Identifier: MIT
/*
 * Capabilities: one list of what is there, with the values of the kernel (some VMMs compare with 1).  What
 * is not in the list is not supported: 0.
 */
#include <errno.h>
#include <unistd.h>

#include "api/api.h"
#include "cpu/msr.h"
#include "cpu/xsave.h"
#include "vcpu/hyperv.h"

#define CLOCK_FLAGS (KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC | KVM_CLOCK_TSC_STABLE)

#define GUESTDBG_FLAGS                                                              \
	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP |   \
	 KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP | \
	 KVM_GUESTDBG_BLOCKIRQ)

/* Quirks that can be switched off: those that exist here. */
#define QUIRKS                                                                   \
	(KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_LAPIC_MMIO_HOLE |         \
	 KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_FIX_HYPERCALL_INSN | \
	 KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

#define X2APIC_FLAGS (KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)

#define DIRTY_LOG_FLAGS (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)

#define RING_BYTES (UM_RING_MAX_ENTRIES * sizeof(struct kvm_dirty_gfn))

#define MSR_REASONS \
	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER)

/* MWAIT never waits (vcpu/exits.c), so there is no exit to do without. */
#define DISABLED_EXITS \
	(KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_CSTATE)

static long online_cpus(void)
{
	return um_min(sysconf(_SC_NPROCESSORS_ONLN), (long)UM_MAX_VCPUS);
}

static long xsave_size(void)
{
	return um_max(um_xsave_image_size(um_xsave_layout()->supported, false),
		      (u32)sizeof(struct kvm_xsave));
}

/* X(capability, value) */
#define UM_CAPS(X)                                            \
	/* memory */                                          \
	X(KVM_CAP_USER_MEMORY, 1)                             \
	X(KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1)             \
	X(KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1)               \
	X(KVM_CAP_NR_MEMSLOTS, UM_NR_SLOTS)                   \
	X(KVM_CAP_MULTI_ADDRESS_SPACE, UM_NR_AS)              \
	X(KVM_CAP_READONLY_MEM, 1)                            \
	X(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, DIRTY_LOG_FLAGS) \
	X(KVM_CAP_DIRTY_LOG_RING, RING_BYTES)                 \
	X(KVM_CAP_DIRTY_LOG_RING_ACQ_REL, RING_BYTES)         \
	X(KVM_CAP_SYNC_MMU, 1)                                \
	X(KVM_CAP_MMU_SHADOW_CACHE_CONTROL, 1)                \
	/* vCPUs */                                           \
	X(KVM_CAP_NR_VCPUS, online_cpus())                    \
	X(KVM_CAP_MAX_VCPUS, UM_MAX_VCPUS)                    \
	X(KVM_CAP_MAX_VCPU_ID, UM_MAX_VCPU_IDS)               \
	X(KVM_CAP_HLT, 1)                                     \
	X(KVM_CAP_CLOCKSOURCE, 1)                             \
	X(KVM_CAP_X86_DISABLE_EXITS, DISABLED_EXITS)          \
	X(KVM_CAP_IMMEDIATE_EXIT, 1)                          \
	X(KVM_CAP_INTERNAL_ERROR_DATA, 1)                     \
	X(KVM_CAP_SYNC_REGS, KVM_SYNC_X86_VALID_FIELDS)       \
	X(KVM_CAP_MP_STATE, 1)                                \
	X(KVM_CAP_VCPU_EVENTS, 1)                             \
	X(KVM_CAP_INTR_SHADOW, 1)                             \
	X(KVM_CAP_EXCEPTION_PAYLOAD, 1)                       \
	X(KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1)                  \
	X(KVM_CAP_DEBUGREGS, 1)                               \
	X(KVM_CAP_SET_GUEST_DEBUG, 1)                         \
	X(KVM_CAP_SET_GUEST_DEBUG2, GUESTDBG_FLAGS)           \
	X(KVM_CAP_X86_ROBUST_SINGLESTEP, 1)                   \
	X(KVM_CAP_XSAVE, 1)                                   \
	X(KVM_CAP_XSAVE2, xsave_size())                       \
	X(KVM_CAP_XCRS, 1)                                    \
	X(KVM_CAP_SREGS2, 1)                                  \
	X(KVM_CAP_USER_NMI, 1)                                \
	X(KVM_CAP_X86_SMM, 1)                                 \
	X(KVM_CAP_MCE, UM_MAX_MCE_BANKS)                      \
	X(KVM_CAP_SET_BOOT_CPU_ID, 1)                         \
	X(KVM_CAP_SET_TSS_ADDR, 1)                            \
	X(KVM_CAP_SET_IDENTITY_MAP_ADDR, 1)                   \
	/* CPUID and MSRs */                                  \
	X(KVM_CAP_EXT_CPUID, 1)                               \
	X(KVM_CAP_EXT_EMUL_CPUID, 1)                          \
	X(KVM_CAP_GET_MSR_FEATURES, 1)                        \
	X(KVM_CAP_MSR_PLATFORM_INFO, 1)                       \
	X(KVM_CAP_X86_USER_SPACE_MSR, MSR_REASONS)            \
	X(KVM_CAP_X86_MSR_FILTER, 1)                          \
	X(KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1)                \
	X(KVM_CAP_NOP_IO_DELAY, 1)                            \
	/* Hyper-V's interface for guests */                  \
	X(KVM_CAP_HYPERV, 1)                                  \
	X(KVM_CAP_HYPERV_VAPIC, 1)                            \
	X(KVM_CAP_HYPERV_SPIN, 1)                             \
	X(KVM_CAP_HYPERV_TIME, 1)                             \
	X(KVM_CAP_HYPERV_SYNIC, 1)                            \
	X(KVM_CAP_HYPERV_SYNIC2, 1)                           \
	X(KVM_CAP_HYPERV_VP_INDEX, 1)                         \
	X(KVM_CAP_HYPERV_EVENTFD, 1)                          \
	X(KVM_CAP_HYPERV_TLBFLUSH, 1)                         \
	X(KVM_CAP_HYPERV_SEND_IPI, 1)                         \
	X(KVM_CAP_HYPERV_CPUID, 1)                            \
	X(KVM_CAP_SYS_HYPERV_CPUID, 1)                        \
	X(KVM_CAP_HYPERV_ENFORCE_CPUID, 1)                    \
	/* interrupt controllers */                           \
	X(KVM_CAP_IRQCHIP, 1)                                 \
	X(KVM_CAP_SPLIT_IRQCHIP, 1)                           \
	X(KVM_CAP_IRQ_ROUTING, UM_MAX_IRQ_ROUTES)             \
	X(KVM_CAP_IRQ_INJECT_STATUS, 1)                       \
	X(KVM_CAP_SIGNAL_MSI, 1)                              \
	X(KVM_CAP_IOAPIC_POLARITY_IGNORED, 1)                 \
	X(KVM_CAP_X2APIC_API, X2APIC_FLAGS)                   \
	X(KVM_CAP_PIT, 1)                                     \
	X(KVM_CAP_PIT2, 1)                                    \
	X(KVM_CAP_PIT_STATE2, 1)                              \
	X(KVM_CAP_REINJECT_CONTROL, 1)                        \
	X(KVM_CAP_TSC_DEADLINE_TIMER, 1)                      \
	X(KVM_CAP_IRQFD, 1)                                   \
	X(KVM_CAP_IRQFD_RESAMPLE, 1)                          \
	/* writes that don't leave */                         \
	X(KVM_CAP_IOEVENTFD, 1)                               \
	X(KVM_CAP_IOEVENTFD_NO_LENGTH, 1)                     \
	X(KVM_CAP_IOEVENTFD_ANY_LENGTH, 1)                    \
	X(KVM_CAP_COALESCED_MMIO, UM_RING_PAGE)               \
	X(KVM_CAP_COALESCED_PIO, 1)                           \
	/* time */                                            \
	X(KVM_CAP_ADJUST_CLOCK, CLOCK_FLAGS)                  \
	X(KVM_CAP_KVMCLOCK_CTRL, 1)                           \
	X(KVM_CAP_GET_TSC_KHZ, 1)                             \
	X(KVM_CAP_TSC_CONTROL, 1)                             \
	X(KVM_CAP_VM_TSC_CONTROL, 1)                          \
	X(KVM_CAP_VCPU_ATTRIBUTES, 1)                         \
	/* the interface itself */                            \
	X(KVM_CAP_CHECK_EXTENSION_VM, 1)                      \
	X(KVM_CAP_ENABLE_CAP, 1)                              \
	X(KVM_CAP_SYS_ATTRIBUTES, 1)                          \
	X(KVM_CAP_ENABLE_CAP_VM, 1)                           \
	X(KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1)               \
	X(KVM_CAP_BINARY_STATS_FD, 1)                         \
	X(KVM_CAP_DISABLE_QUIRKS, 1)                          \
	X(KVM_CAP_DISABLE_QUIRKS2, QUIRKS)

long um_check_extension(const struct um_vm *vm, unsigned long cap)
{
	switch (cap) {
#define X(name, value) \
	case name:     \
		return value;
		UM_CAPS(X)
#undef X
	}
	return 0;
}

/* All others are on again. */
static long disable_quirks(struct um_vm *vm, u64 quirks)
{
	struct um_irqchip *chip;

	pthread_mutex_lock(&vm->lock);
	vm->quirks_disabled = quirks;
	chip = um_vm_irqchip(vm);
	if (chip)
		um_irqchip_disable_quirks(chip, vm->quirks_disabled);
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

static long x2apic_api(struct um_vm *vm, u64 flags)
{
	struct um_irqchip *chip = um_vm_irqchip(vm);

	if (flags & ~(u64)X2APIC_FLAGS)
		return -EINVAL;
	if (!chip) { /* for the one to come */
		pthread_mutex_lock(&vm->lock);
		vm->x2apic_flags |= flags;
		pthread_mutex_unlock(&vm->lock);
		return 0;
	}
	return um_irqchip_set_x2apic_api(chip, flags);
}

static long manual_dirty_log(struct um_vm *vm, u64 flags)
{
	/* The second flag only together with the first. */
	if (flags & ~(u64)DIRTY_LOG_FLAGS || flags == KVM_DIRTY_LOG_INITIALLY_SET)
		return -EINVAL;
	um_mem_set_manual_dirty_log(vm->mem, flags);
	return 0;
}

/* Before the first vCPU.  KVM takes the bits of exits that it can't do without, too. */
static long disable_exits(struct um_vm *vm, u64 exits)
{
	long r = -EINVAL;

	if (exits & ~(u64)(DISABLED_EXITS | KVM_X86_DISABLE_EXITS_MWAIT))
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (!atomic_load(&vm->nvcpus)) {
		vm->disabled_exits |= (u32)exits & DISABLED_EXITS;
		r = 0;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* Once, and before the first vCPU: ids from then on are below it. */
static long set_max_vcpu_ids(struct um_vm *vm, u64 ids)
{
	long r = 0;

	if (ids > UM_MAX_VCPU_IDS)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (!vm->max_vcpu_ids)
		vm->max_vcpu_ids = (u32)ids;
	else if (vm->max_vcpu_ids != ids)
		r = -EINVAL;
	pthread_mutex_unlock(&vm->lock);
	return r;
}

long um_vm_enable_cap(struct um_vm *vm, const struct kvm_enable_cap *cap)
{
	u64 arg = cap->args[0];

	if (cap->flags)
		return -EINVAL;
	switch (cap->cap) {
	case KVM_CAP_DISABLE_QUIRKS:
		return disable_quirks(vm, arg);
	case KVM_CAP_DISABLE_QUIRKS2:
		return arg & ~(u64)QUIRKS ? -EINVAL : disable_quirks(vm, arg);
	case KVM_CAP_SPLIT_IRQCHIP:
		if (arg > UM_MAX_IRQ_ROUTES)
			return -EINVAL;
		return um_vm_create_irqchip(vm, true, (u32)arg);
	case KVM_CAP_X2APIC_API:
		return x2apic_api(vm, arg);
	case KVM_CAP_DIRTY_LOG_RING:
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return um_vm_enable_dirty_rings(vm, arg);
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		return manual_dirty_log(vm, arg);
	case KVM_CAP_X86_USER_SPACE_MSR:
		if (arg & ~(u64)MSR_REASONS)
			return -EINVAL;
		WRITE_ONCE(vm->user_msr_reasons, (u32)arg);
		return 0;
	case KVM_CAP_X86_DISABLE_EXITS:
		return disable_exits(vm, arg);
	case KVM_CAP_EXIT_ON_EMULATION_FAILURE: /* as it is */
		return arg > 1 ? -EINVAL : 0;
	case KVM_CAP_MAX_VCPU_ID:
		return set_max_vcpu_ids(vm, arg);
	case KVM_CAP_EXCEPTION_PAYLOAD:
		vm->exception_payload = arg;
		return 0;
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
		vm->triple_fault_event = arg;
		return 0;
	case KVM_CAP_MSR_PLATFORM_INFO:
		vm->platform_info_hidden = !arg;
		return 0;
	}
	return -EINVAL;
}

long um_vcpu_enable_cap(struct um_vcpu *v, const struct kvm_enable_cap *cap)
{
	if (cap->flags)
		return -EINVAL;
	switch (cap->cap) {
	case KVM_CAP_ENFORCE_PV_FEATURE_CPUID:
		v->pv_enforce = cap->args[0];
		return 0;
	case KVM_CAP_HYPERV_ENFORCE_CPUID:
		v->hv->enforce = cap->args[0];
		return 0;
	case KVM_CAP_HYPERV_SYNIC:
	case KVM_CAP_HYPERV_SYNIC2:
		if (cap->args[0])
			return -EINVAL;
		return um_hv_enable_synic(v, cap->cap == KVM_CAP_HYPERV_SYNIC2);
	}
	return -EINVAL;
}

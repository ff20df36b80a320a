// SPDX-License-Identifier: MIT
/*
 * Hypercalls (the kernel's Documentation/virt/kvm/x86/hypercalls.rst): number in RAX, arguments in RBX,
 * RCX, RDX, RSI, result in RAX.  VMCALL and VMMCALL are the same here, so nothing needs patching.
 */
#include <errno.h>
#include <sched.h>

#include "cpu/cpuid.h"
#include "cpu/tsc.h"
#include "vcpu/hyperv.h"
#include "vcpu/vcpu.h"

/* After x86/regs.h, whose enumerators it defines again as macros of the same values. */
#include <linux/kvm_para.h>

/* Both take the APIC id of a vCPU. */
static s64 kick_cpu(struct um_vcpu *v, u32 apic_id)
{
	struct um_irqchip *chip = um_vm_irqchip(v->vm);
	struct um_lapic *l = chip ? um_irqchip_find_lapic(chip, apic_id) : NULL;

	if (l)
		um_vcpu_request(um_lapic_vcpu(l), UM_REQ_UNHALT);
	return 0;
}

static s64 clock_pairing(struct um_vcpu *v, gpa_t gpa, u64 type)
{
	struct kvm_clock_pairing p = { 0 };
	u64 now, tsc;

	if (type != KVM_CLOCK_PAIRING_WALLCLOCK)
		return -KVM_EOPNOTSUPP;
	now = um_clock_realtime(&tsc);
	p.sec = (s64)(now / 1000000000ull);
	p.nsec = (s64)(now % 1000000000ull);
	p.tsc = um_guest_tsc_at(&v->x.cpu, tsc);
	return um_mem_write(v->vm->mem, um_cpu_as(&v->x.cpu), gpa, &p, sizeof(p)) ? -KVM_EFAULT : 0;
}

static s64 call(struct um_vcpu *v, u64 nr, const u64 a[4])
{
	const struct um_cpu *c = &v->x.cpu;
	struct um_irqchip *chip = um_vm_irqchip(v->vm);

	switch (nr) {
	case KVM_HC_VAPIC_POLL_IRQ: /* interrupts are looked at on every exit */
		return 0;
	case KVM_HC_KICK_CPU:
		if (v->pv_enforce && !um_cpu_has(c, UM_F_KVM_PV_UNHALT))
			break;
		return kick_cpu(v, (u32)a[1]);
	case KVM_HC_CLOCK_PAIRING:
		return clock_pairing(v, a[0], a[1]);
	case KVM_HC_SEND_IPI:
		if (!chip || (v->pv_enforce && !um_cpu_has(c, UM_F_KVM_PV_SEND_IPI)))
			break;
		return um_irqchip_pv_ipi(chip, a[0], a[1], (u32)a[2], a[3],
					 um_cpu_64bit(c) ? 64 : 32);
	case KVM_HC_SCHED_YIELD:
		if (v->pv_enforce && !um_cpu_has(c, UM_F_KVM_PV_SCHED_YIELD))
			break;
		sched_yield();
		return 0;
	}
	return -KVM_ENOSYS;
}

int um_vcpu_hypercall(struct um_vcpu *v)
{
	u64 *gpr = v->x.cpu.gpr;
	unsigned size = um_cpu_64bit(&v->x.cpu) ? 8 : 4;
	const u64 a[4] = { um_trunc(gpr[UM_RBX], size), um_trunc(gpr[UM_RCX], size),
			   um_trunc(gpr[UM_RDX], size), um_trunc(gpr[UM_RSI], size) };
	s64 result;

	um_count(v->counters, hypercalls);
	if (um_hv_calls_enabled(v))
		return um_hv_hypercall(v);
	result = v->x.cpu.cpl ? -KVM_EPERM : call(v, um_trunc(gpr[UM_RAX], size), a);
	gpr[UM_RAX] = um_trunc((u64)result, size);
	return um_vcpu_retire(v);
}

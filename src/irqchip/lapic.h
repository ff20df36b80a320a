/* SPDX-License-Identifier: MIT */
/*
 * The local APIC of one vCPU (Intel SDM vol. 3, "Advanced Programmable Interrupt Controller"),
 * xAPIC and x2APIC, as KVM presents it: version 0x14, six or seven LVT entries, timer clock 1 GHz.
 *
 * The vCPU layer makes one with each vCPU and works with it from the vCPU's thread; messages arrive
 * from any thread.  How a vCPU's loop uses it:
 *
 *	if (interrupts can be taken && um_lapic_has_interrupt(l) && (vec = um_lapic_ack(l)) >= 0)
 *		deliver vec;
 *	else if (um_lapic_has_interrupt(l))
 *		ask the engine to come back when the guest opens its interrupt window;
 *	um_lapic_pv_eoi_enter(l);                 before the engine runs
 *	um_lapic_pv_eoi_exit(l);                  when KVM_RUN returns
 *
 * and, after anything by which the guest may have written EOI (um_lapic_mmio_write,
 * um_lapic_msr_write), in split mode only: while ((vec = um_lapic_take_ioapic_eoi(l)) >= 0) exit
 * with KVM_EXIT_IOAPIC_EOI.
 *
 * Functions that return bool for an MSR: false means that the guest gets #GP(0).
 */
#ifndef UM_IRQCHIP_LAPIC_H
#define UM_IRQCHIP_LAPIC_H

#include <linux/kvm.h>

#include "irqchip/irqchip.h"

/*
 * What a LAPIC needs of its vCPU.  Called from any thread, with the lock of the chip and of a LAPIC
 * possibly held: they must not block, may take only leaf locks, and must not call anything of the
 * irqchip but um_lapic_has_interrupt().  After um_lapic_destroy() returns they are not called any
 * more.
 */
struct um_lapic_ops {
	/* An interrupt became deliverable: wake the vCPU from HLT, make its engine look. */
	void (*kick)(void *vcpu);
	/* Latch an NMI, SMI, INIT; start-up IPI with its vector.  Each wakes the vCPU by itself. */
	void (*nmi)(void *vcpu);
	void (*smi)(void *vcpu);
	void (*init)(void *vcpu);
	void (*sipi)(void *vcpu, u8 vector);
	/* The guest's TSC now and its frequency, for the TSC-deadline timer. */
	void (*tsc)(void *vcpu, u64 *now, u32 *khz);
	/*
	 * One byte of guest memory, for PV EOI.  Called in the vCPU's thread only and with no lock
	 * held.  False: there is no such memory.
	 */
	bool (*guest_read8)(void *vcpu, gpa_t gpa, u8 *val);
	bool (*guest_write8)(void *vcpu, gpa_t gpa, u8 val);
	/*
	 * An interrupt of the SINTs in @sints (bits) has ended.  In the vCPU's thread, with no lock held; only after
	 * um_synic_activate().
	 */
	void (*sint_eoi)(void *vcpu, u32 sints);
};

/*
 * Make the LAPIC of vCPU @vcpu_id, reset.  @bsp: the bootstrap processor (APIC_BASE bit 8, LINT0 as
 * virtual wire).  0; -EINVAL if the id is too large; -EEXIST; -ENOMEM.
 */
int um_lapic_create(struct um_lapic **lapic, struct um_irqchip *chip, u32 vcpu_id, bool bsp,
		    const struct um_lapic_ops *ops, void *vcpu);
void um_lapic_destroy(struct um_lapic *l);

/*
 * Power-on or INIT state.  INIT keeps APIC_BASE and thus the mode (SDM "Local APIC State After It
 * Receives an INIT").  By the vCPU when it acts on a reset.
 */
void um_lapic_reset(struct um_lapic *l, bool init);

/*
 * What the guest's CPUID says: x2APIC, TSC-deadline timer, physical address bits.  Until told,
 * everything is there and 52 bits.
 */
void um_lapic_set_cpuid(struct um_lapic *l, bool x2apic, bool tsc_deadline, unsigned maxphyaddr);

void *um_lapic_vcpu(struct um_lapic *l);
u32 um_lapic_id(struct um_lapic *l); /* as the guest reads it: 8 bits in xAPIC mode, 32 in x2APIC */

/* ---- Interrupts for the vCPU ---- */

/*
 * Is there an interrupt that the CPU would take if IF allows?  Lock-free.  Exact in the vCPU's
 * thread, but for one case: while an offer of PV EOI stands, any request counts, and
 * um_lapic_ack(), which settles the offer, may then find none.
 */
bool um_lapic_has_interrupt(struct um_lapic *l);

/*
 * Acknowledge: the PIC's interrupt first (if the LAPIC passes it on), else the highest request
 * above the processor priority, which moves from IRR to ISR.  The vector, or -1 if there is none
 * (any more).
 */
int um_lapic_ack(struct um_lapic *l);

/*
 * Since the last call, has anything but the LAPIC's own timer asked for an interrupt?  Behind
 * um_lapic_ack(), so that whoever has got one asked before.
 */
bool um_lapic_heard(struct um_lapic *l);

/* Does LINT0 (or a disabled LAPIC) pass external interrupts on?  For ready_for_interrupt_injection.
 */
bool um_lapic_accepts_extint(struct um_lapic *l);

/* Split mode, KVM_INTERRUPT: the VMM's PIC has @vector.  0; -ENXIO if not split; -EEXIST. */
int um_lapic_set_extint(struct um_lapic *l, u8 vector);
bool um_lapic_extint_pending(struct um_lapic *l);

/* Split mode: the next vector whose EOI the VMM's IOAPIC has to see, or -1. */
int um_lapic_take_ioapic_eoi(struct um_lapic *l);

/*
 * A local source fires: @reg is UM_LVT_*.  The timer and the error entry are the LAPIC's own; the
 * vCPU layer uses this for corrected machine checks, performance counters, thermal events and LINT1.
 * False: masked.
 */
#define UM_LVT_CMCI    0x2f0
#define UM_LVT_TIMER   0x320
#define UM_LVT_THERMAL 0x330
#define UM_LVT_PERF    0x340
#define UM_LVT_LINT0   0x350
#define UM_LVT_LINT1   0x360
#define UM_LVT_ERROR   0x370
bool um_lapic_local_deliver(struct um_lapic *l, u32 reg);

/* Is there an LVT entry for corrected machine checks (IA32_MCG_CAP.CMCI_P)? */
void um_lapic_set_cmci(struct um_lapic *l, bool has_cmci);

/* A fixed, edge-triggered interrupt for this LAPIC.  Any thread.  As um_irqchip_set_irq(). */
int um_lapic_fixed(struct um_lapic *l, u8 vector);

/* ---- Accesses by the guest ---- */

/*
 * MMIO, @len 1, 2, 4 or 8.  True: handled (perhaps ignored).  False: outside the LAPIC's page, or
 * the LAPIC is not in xAPIC mode and the MMIO-hole quirk is off.  Lock-free when it returns false.
 */
bool um_lapic_mmio_read(struct um_lapic *l, gpa_t gpa, unsigned len, void *data);
bool um_lapic_mmio_write(struct um_lapic *l, gpa_t gpa, unsigned len, const void *data);

/* MSRs 0x800-0x8ff. */
bool um_lapic_msr_read(struct um_lapic *l, u32 msr, u64 *val);
bool um_lapic_msr_write(struct um_lapic *l, u32 msr, u64 val);

/*
 * EOI, ICR (both halves) and TPR as Hyper-V's MSRs show them in any mode; @offset is that in the page.  False:
 * not readable, or not one of these.
 */
#define UM_LAPIC_TPR 0x80
#define UM_LAPIC_EOI 0xb0
#define UM_LAPIC_ICR 0x300
bool um_lapic_hv_read(struct um_lapic *l, u32 offset, u64 *val);
bool um_lapic_hv_write(struct um_lapic *l, u32 offset, u64 val);

/*
 * IA32_APIC_BASE.  Setting checks reserved bits, and for the guest (!@host) the legal transitions
 * of the modes (SDM "x2APIC State Transitions").  @host: KVM_SET_SREGS and KVM_SET_MSRS.
 */
u64 um_lapic_get_base(struct um_lapic *l);
bool um_lapic_set_base(struct um_lapic *l, u64 val, bool host);

/* CR8 is TPR[7:4].  The caller has refused reserved bits. */
u8 um_lapic_get_cr8(struct um_lapic *l);
void um_lapic_set_cr8(struct um_lapic *l, u8 cr8);

/* IA32_TSC_DEADLINE: 0 when disarmed, expired, or not in that mode, where writes are ignored. */
u64 um_lapic_get_tsc_deadline(struct um_lapic *l);
void um_lapic_set_tsc_deadline(struct um_lapic *l, u64 tsc);

/* The guest's TSC has jumped or changed its rate: an armed TSC deadline is placed anew. */
void um_lapic_tsc_changed(struct um_lapic *l);

/* ---- PV EOI (MSR_KVM_PV_EOI_EN) ---- */

/* Bit 0 enables, bits 63:2 are the address of the flag. */
bool um_lapic_set_pv_eoi(struct um_lapic *l, u64 msr);
u64 um_lapic_get_pv_eoi(struct um_lapic *l);

/* Offer the guest to end the interrupt in service by clearing its flag.  Vcpu's thread. */
void um_lapic_pv_eoi_enter(struct um_lapic *l);
/*
 * Take the offer back; if the guest took it, do the EOI.  Cheap when there is none.  Vcpu's thread.
 * The functions here that look at ISR for the guest or the VMM do it by themselves; the vCPU does it
 * whenever KVM_RUN returns, so that guest memory has no offer in it when the VMM saves it.
 */
void um_lapic_pv_eoi_exit(struct um_lapic *l);

/* ---- State ---- */

/*
 * KVM_GET_LAPIC, KVM_SET_LAPIC.  APIC_BASE is set before (it decides the format of the id).  Set:
 * 0, or -EINVAL if in x2APIC mode the id is not the vCPU's.
 */
void um_lapic_get_state(struct um_lapic *l, struct kvm_lapic_state *s);
int um_lapic_set_state(struct um_lapic *l, const struct kvm_lapic_state *s);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The interrupts of Hyper-V's synthetic interrupt controller (TLFS, "Virtual Interrupt Controller"): 16 synthetic
 * sources (SINTs) for each vCPU, each with a vector of its local APIC.  Who raises a SINT: messages and timers
 * (vcpu/hyperv_synic.c), and GSIs that are routed to it (KVM_IRQ_ROUTING_HV_SINT).
 *
 * A SINT with AutoEOI ends at once: its vector never enters ISR.  EOIs of the others are reported to the vCPU
 * (um_lapic_ops.sint_eoi) and to irqfds with a resample descriptor.
 *
 * Any thread, but where it says so.
 */
#ifndef UM_IRQCHIP_SYNIC_H
#define UM_IRQCHIP_SYNIC_H

#include "irqchip/lapic.h"

#define UM_NR_SINTS	 16
#define UM_SINT_VECTOR	 0xffull
#define UM_SINT_MASKED	 BIT(16)
#define UM_SINT_AUTO_EOI BIT(17)
#define UM_SINT_POLLING	 BIT(18) /* the guest looks by itself */

/* KVM_CAP_HYPERV_SYNIC: until then there are no SINTs, and what follows fails or does nothing. */
void um_synic_activate(struct um_lapic *l);
bool um_synic_active(const struct um_lapic *l);

/* The number that routes call the vCPU by.  Works without activation. */
void um_synic_set_vp_index(struct um_lapic *l, u32 index);
u32 um_synic_vp_index(const struct um_lapic *l);

/* HV_X64_MSR_SINT0 + @n.  Setting fails for a vector below 16, unless it is masked or the VMM's. */
u64 um_synic_get_sint(const struct um_lapic *l, unsigned n);
bool um_synic_set_sint(struct um_lapic *l, unsigned n, u64 val, bool host);

/* Interrupt.  As um_irqchip_set_irq(); < 0 if it is masked or not active. */
int um_synic_raise(struct um_lapic *l, unsigned n);

/* The guest has freed message slots: for SINTs without an EOI of their own.  The vCPU's thread. */
void um_synic_end_of_message(struct um_lapic *l);

#endif

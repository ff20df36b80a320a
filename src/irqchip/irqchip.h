/* SPDX-License-Identifier: MIT */
/*
 * The interrupt controllers of one VM: what KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2 and
 * KVM_CAP_SPLIT_IRQCHIP make, and what KVM_IRQ_LINE, KVM_SIGNAL_MSI, KVM_SET_GSI_ROUTING work on.
 *
 *       GSI ──routing──┬─> 8259 pair ──INTR──> LINT0 of the LAPICs ┐
 *                      ├─> IOAPIC ──message──┐                     ├─> vCPU
 *                      └─> MSI ──message─────┴──> LAPICs (lapic.h) ┘
 *       8254 PIT, channel 0 ──> GSI 0
 *
 * A "full" chip has all of it.  A "split" chip has only the LAPICs and MSI routes: the PIC, the
 * IOAPIC and the PIT are the VMM's, and it learns of EOIs through KVM_EXIT_IOAPIC_EOI.
 *
 * Used by src/api (creation, lines, routing, state) and src/vcpu (port and MMIO accesses).  Every
 * function may be called from any thread.
 *
 * Locks, outermost first (no other lock of the project is taken inside, but for leaves):
 *   chip->irqfds_lock  the list of irqfds
 *   chip->lock    PIC, IOAPIC, PIT, port 0x61, routing table, the list of resampling irqfds
 *   lapic->lock   all of one local APIC; never two at once
 *   timer set     leaf (timer.h)
 *   whatever the um_lapic_ops take: must be leaves
 * A LAPIC that has to tell the IOAPIC something (EOI) drops its own lock first.  Deliveries between
 * LAPICs (IPIs) hold no chip lock.  Whether an interrupt is pending is answered without a lock.
 */
#ifndef UM_IRQCHIP_IRQCHIP_H
#define UM_IRQCHIP_IRQCHIP_H

#include <linux/kvm.h>

#include "base/counters.h"
#include "base/trace.h"
#include "base/types.h"

struct um_irqchip;
struct um_lapic;

#define UM_MAX_IRQ_ROUTES 4096 /* entries of the routing table, and GSIs */
#define UM_MAX_VCPU_IDS	  4096 /* vCPU ids, hence APIC ids, are below this */
#define UM_IOAPIC_BASE	  0xfec00000ull
#define UM_IOAPIC_LEN	  0x100
#define UM_LAPIC_BASE	  0xfee00000ull /* at reset; the guest may move it */
#define UM_LAPIC_LEN	  0x1000

/*
 * Who asserts a line.  A level-triggered pin is high while any source holds it, so devices of the
 * VMM and those of the library can share one.
 */
enum um_irq_source {
	UM_IRQ_SOURCE_USER,	/* KVM_IRQ_LINE */
	UM_IRQ_SOURCE_RESAMPLE, /* irqfds with a resample descriptor */
	UM_IRQ_SOURCE_PIT,
	UM_IRQ_SOURCE_IRQFD,
	UM_IRQ_SOURCE_MAX
};

struct um_irqchip_config {
	bool split;	      /* KVM_CAP_SPLIT_IRQCHIP */
	u32 nr_reserved_pins; /* its args[0]: GSIs below it may be pins of the VMM's IOAPIC */
	const struct um_trace *trace; /* NULL: no tracing */
	struct um_counters *counters; /* the VM's block; NULL: not counted */
};

/*
 * Make the controllers, in their power-on state, with KVM's routing table (full: GSI 0-15 to PIC
 * and IOAPIC, 16-23 to the IOAPIC; split: empty), and the helper thread. 0 or -errno; -EINVAL if
 * nr_reserved_pins > UM_MAX_IRQ_ROUTES.
 */
int um_irqchip_create(struct um_irqchip **chip, const struct um_irqchip_config *cfg);

/* After the last vCPU is gone (its um_lapic destroyed) and nobody else uses the chip. */
void um_irqchip_destroy(struct um_irqchip *chip);

bool um_irqchip_is_split(const struct um_irqchip *chip);

/* The VM's helper thread: for irqfds, and whoever else needs a timer. */
struct um_timers *um_irqchip_timers(struct um_irqchip *chip);

/*
 * KVM_CAP_DISABLE_QUIRKS2: KVM_X86_QUIRK_LINT0_REENABLED (off: LINT0 of the BSP resets masked) and
 * KVM_X86_QUIRK_LAPIC_MMIO_HOLE (off: an access to the page of a LAPIC that is not in xAPIC mode
 * goes to the VMM).  Other bits are ignored.  Before the vCPUs run.
 */
void um_irqchip_disable_quirks(struct um_irqchip *chip, u64 quirks);

/* KVM_CAP_X2APIC_API: KVM_X2APIC_API_* flags.  0, or -EINVAL for unknown ones. */
int um_irqchip_set_x2apic_api(struct um_irqchip *chip, u64 flags);

/* ---- Lines and messages ---- */

/*
 * Drive a GSI (KVM_IRQ_LINE, irqfd).  Routes to the PIC and the IOAPIC take the level; an MSI route
 * sends its message when @level is not 0.
 * Returns what KVM_IRQ_LINE_STATUS reports: > 0 the number of targets that took it, 0 coalesced
 * with one still pending, < 0 ignored (masked, no route, no such destination).
 */
int um_irqchip_set_irq(struct um_irqchip *chip, enum um_irq_source source, u32 gsi, int level);

/*
 * KVM_SIGNAL_MSI.  > 0 delivered, 0 coalesced, -EPERM (which is -1) no APIC took it, -EINVAL bad
 * flags or address.
 */
int um_irqchip_send_msi(struct um_irqchip *chip, const struct kvm_msi *msi);

/*
 * KVM_IRQFD: let an eventfd drive a GSI, or stop that.  The chip keeps a duplicate of the descriptors until
 * then.  Each time the eventfd becomes non-zero, the helper thread takes its count and sends a pulse on the
 * GSI; with a resample descriptor it raises the GSI, and when the guest acknowledges the interrupt, lowers
 * it and signals all resample descriptors of this GSI.  After deassignment no pulse follows.
 * 0; -EINVAL: flags, not an eventfd, resampling without an IOAPIC; -EBADF; -EBUSY: the eventfd has an irqfd;
 * -ENOMEM, -EMFILE.  Deassigning what was not assigned is no error, as in KVM.
 */
int um_irqchip_irqfd(struct um_irqchip *chip, const struct kvm_irqfd *args);

/*
 * KVM_SET_GSI_ROUTING: replace the table.  0; -EINVAL as KVM: too many entries, flags, GSI or pin
 * out of range, two routes of one GSI to one chip, a non-chip route beside another, a type that is
 * not IRQCHIP, MSI or HV_SINT, IRQCHIP in split mode, MSI address bits outside the format; -ENOMEM.
 */
int um_irqchip_set_routing(struct um_irqchip *chip, const struct kvm_irq_routing_entry *entries,
			   u32 nr, u32 flags);

/*
 * The hypercall KVM_HC_SEND_IPI: fixed or NMI message of @icr to the APIC ids @min + n for each bit
 * n of @high:@low.  @bits is 64 for a 64-bit caller, 32 for others. Returns the number of targets,
 * or -EINVAL if the ICR is not one that it allows.
 */
int um_irqchip_pv_ipi(struct um_irqchip *chip, u64 low, u64 high, u32 min, u64 icr, unsigned bits);

/* The LAPIC that a physical destination names (KVM_HC_KICK_CPU, KVM_HC_SCHED_YIELD), or NULL. */
struct um_lapic *um_irqchip_find_lapic(struct um_irqchip *chip, u32 apic_id);

/* ---- Accesses by the guest.  True: handled here; false: nobody here has that address ---- */

/* @len 1, 2, 4 or 8; the IOAPIC's window.  (The LAPIC's is um_lapic_mmio_*.) */
bool um_irqchip_mmio_read(struct um_irqchip *chip, gpa_t gpa, unsigned len, void *data);
bool um_irqchip_mmio_write(struct um_irqchip *chip, gpa_t gpa, unsigned len, const void *data);

/* @len 1, 2 or 4.  PIC 20 21 A0 A1, ELCR 4D0 4D1, PIT 40-43, port 61 if the PIT has the dummy
 * speaker. */
bool um_irqchip_pio_read(struct um_irqchip *chip, u16 port, unsigned len, void *data);
bool um_irqchip_pio_write(struct um_irqchip *chip, u16 port, unsigned len, const void *data);

/* ---- State ---- */

/*
 * KVM_GET_IRQCHIP, KVM_SET_IRQCHIP: the chip that chip_id names.  0; -ENXIO if the chip is split;
 * -EINVAL for another chip_id.
 */
int um_irqchip_get_state(struct um_irqchip *chip, struct kvm_irqchip *state);
int um_irqchip_set_state(struct um_irqchip *chip, const struct kvm_irqchip *state);

/*
 * KVM_CREATE_PIT2.  @flags: KVM_PIT_SPEAKER_DUMMY.  0; -EEXIST; -ENOENT if the chip is split;
 * -EINVAL for other flags; -ENOMEM.
 */
int um_irqchip_create_pit(struct um_irqchip *chip, u32 flags);
bool um_irqchip_has_pit(struct um_irqchip *chip);

/* KVM_GET_PIT2, KVM_SET_PIT2 (KVM_*_PIT is their first part).  0; -ENXIO without a PIT; -EINVAL. */
int um_irqchip_get_pit(struct um_irqchip *chip, struct kvm_pit_state2 *state);
int um_irqchip_set_pit(struct um_irqchip *chip, const struct kvm_pit_state2 *state);

/*
 * KVM_REINJECT_CONTROL: whether ticks that the guest was too late for are delivered later (the
 * default) or dropped.  0; -ENXIO without a PIT.
 */
int um_irqchip_pit_reinject(struct um_irqchip *chip, bool reinject);

#endif

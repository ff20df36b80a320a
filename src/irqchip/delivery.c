// SPDX-License-Identifier: MIT
/*
 * From a message to the local APICs that it names (SDM "Determining IPI Destination", "Logical
 * Destination Mode in x2APIC Mode", "Lowest Priority Delivery Mode"), and the three places where
 * messages come from besides the IOAPIC: MSI, ICR, and the hypercall that sends many IPIs.
 *
 * Destinations are matched against registers that other vCPUs may be writing; a LAPIC that is
 * re-programmed at that moment matches by its old or by its new value, as on the bus.
 */
#include "irqchip/internal.h"

#include <errno.h>

#define BROADCAST_XAPIC	 0xffu
#define BROADCAST_X2APIC 0xffffffffu

void msg_set_device_dest(struct um_irqchip *chip, struct irq_msg *msg, u32 dest)
{
	msg->dest = dest;
	/*
	 * 0xff comes from hardware that knows 8 bits only.  It means everybody, unless the VMM says
	 * that its devices know 32 bits: then it is a number to x2APICs.
	 */
	if (dest == BROADCAST_X2APIC)
		msg->broadcast = true;
	else if (dest == BROADCAST_XAPIC &&
		 (load_relaxed(&chip->x2apic_api) & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK))
		msg->broadcast_xapic = true;
	else if (dest == BROADCAST_XAPIC)
		msg->broadcast = true;
}

static bool matches_logical(struct um_lapic *l, u32 dest)
{
	u32 ldr = reg_get(l, APIC_LDR);

	if (lapic_x2apic(l))
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	ldr >>= 24;
	if (dest > 0xff)
		return false;
	switch (reg_get(l, APIC_DFR) >> 28) {
	case 0xf: /* flat */
		return ldr & dest;
	case 0x0: /* cluster */
		return ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
	}
	return false;
}

bool msg_matches(struct um_lapic *l, const struct irq_msg *msg)
{
	if (msg->broadcast || (msg->broadcast_xapic && !lapic_x2apic(l)))
		return true;
	if (msg->logical)
		return matches_logical(l, msg->dest);
	/* An id above 255 cannot be expressed in xAPIC mode; firmware still starts such CPUs by it.
	 */
	return lapic_number(l) == msg->dest ||
	       (!lapic_x2apic(l) && l->vcpu_id > 0xff && l->vcpu_id == msg->dest);
}

static bool is_target(struct um_lapic *l, struct um_lapic *src, const struct irq_msg *msg)
{
	switch (msg->shorthand) {
	case TO_SELF:
		return l == src;
	case TO_ALL:
		return lapic_enabled(l);
	case TO_OTHERS:
		return lapic_enabled(l) && l != src;
	}
	return lapic_enabled(l) && msg_matches(l, msg);
}

static int accept_one(struct um_lapic *l, const struct irq_msg *msg, bool *accepted)
{
	int ret;

	pthread_mutex_lock(&l->lock);
	ret = lapic_accept(l, msg->mode, msg->vector, msg->level, accepted);
	pthread_mutex_unlock(&l->lock);
	return ret;
}

/* Lower is better: processor priority first, then whoever took fewer. */
static bool beats(struct um_lapic *a, struct um_lapic *b)
{
	u32 pa = reg_get(a, APIC_PPR) >> 4, pb = reg_get(b, APIC_PPR) >> 4;

	if (pa != pb)
		return pa < pb;
	/* The counts wrap. */
	return (s32)(load_relaxed(&a->arb) - load_relaxed(&b->arb)) < 0;
}

static int deliver_lowest(struct um_irqchip *chip, struct um_lapic *src, const struct irq_msg *msg,
			  bool *accepted)
{
	struct um_lapic *l, *best = NULL;

	for_each_lapic(chip, id, l)
	{
		if (!is_target(l, src, msg) || !lapic_sw_enabled(l))
			continue;
		if (!best || beats(l, best))
			best = l;
	}
	if (!best)
		return -1;
	__atomic_fetch_add(&best->arb, 1, __ATOMIC_RELAXED);
	return accept_one(best, msg, accepted);
}

/* The one LAPIC that a physical destination names, while every id is the vCPU's own; or NULL. */
static struct um_lapic *by_number(struct um_irqchip *chip, const struct irq_msg *msg)
{
	struct um_lapic *l;

	if (msg->shorthand != TO_DEST || msg->logical || msg->broadcast || msg->broadcast_xapic ||
	    load_relaxed(&chip->ids_changed) || msg->dest >= UM_MAX_VCPU_IDS)
		return NULL;
	l = chip_lapic(chip, msg->dest);
	return l && lapic_enabled(l) ? l : NULL;
}

int deliver(struct um_irqchip *chip, struct um_lapic *src, const struct irq_msg *msg,
	    bool *accepted)
{
	struct irq_msg m = *msg;
	struct um_lapic *l;
	bool taken = false;
	int ret = -1;

	/* To everybody at the lowest priority makes no sense; it is to everybody. */
	if (m.lowest && !m.logical && (m.broadcast || m.broadcast_xapic))
		m.lowest = false;
	l = by_number(chip, &m);
	if (l) {
		ret = accept_one(l, &m, &taken);
	} else if (m.lowest) {
		ret = deliver_lowest(chip, src, &m, &taken);
	} else {
		for_each_lapic(chip, id, l)
		{
			if (is_target(l, src, &m))
				ret = um_max(ret, 0) + accept_one(l, &m, &taken);
		}
	}
	if (accepted)
		*accepted = taken;
	um_trace(chip->trace, irq, "message: %s 0x%x mode %u vector 0x%x%s -> %d",
		 m.shorthand ? "shorthand"
		 : m.logical ? "logical"
			     : "physical",
		 m.shorthand ? m.shorthand : m.dest, m.mode, m.vector, m.level ? " level" : "",
		 ret);
	return ret;
}

struct um_lapic *um_irqchip_find_lapic(struct um_irqchip *chip, u32 apic_id)
{
	const struct irq_msg msg = { .dest = apic_id };
	struct um_lapic *l;

	for_each_lapic(chip, id, l)
	{
		if (lapic_enabled(l) && msg_matches(l, &msg))
			return l;
	}
	return NULL;
}

/* ---- MSI ---- */

/* With 32-bit ids, address bits 63:40 are bits 31:8 of the destination and 39:32 must be 0. */
bool msi_address_valid(struct um_irqchip *chip, u32 address_hi)
{
	return !(load_relaxed(&chip->x2apic_api) & KVM_X2APIC_API_USE_32BIT_IDS) ||
	       !(address_hi & 0xff);
}

void msg_from_msi(struct um_irqchip *chip, struct irq_msg *msg, u32 address_lo, u32 address_hi,
		  u32 data)
{
	u32 dest = address_lo >> 12 & 0xff;

	if (load_relaxed(&chip->x2apic_api) & KVM_X2APIC_API_USE_32BIT_IDS)
		dest |= address_hi & 0xffffff00;
	*msg = (struct irq_msg){
		.vector = data & 0xff,
		.mode = data >> 8 & 7,
		.logical = address_lo & BIT(2),
	};
	msg->level = (data & BIT(15)) && (msg->mode == DM_FIXED || msg->mode == DM_LOWEST);
	/* The redirection hint asks for one of the destinations, too. */
	msg->lowest = msg->mode == DM_LOWEST || (address_lo & BIT(3));
	msg_set_device_dest(chip, msg, dest);
}

int um_irqchip_send_msi(struct um_irqchip *chip, const struct kvm_msi *msi)
{
	struct irq_msg msg;

	if ((msi->flags & ~KVM_MSI_VALID_DEVID) || !msi_address_valid(chip, msi->address_hi))
		return -EINVAL;
	chip_count(chip, msis);
	msg_from_msi(chip, &msg, msi->address_lo, msi->address_hi, msi->data);
	return deliver(chip, NULL, &msg, NULL);
}

/* ---- IPIs ---- */

void lapic_send_ipi(struct um_lapic *l, u64 icr)
{
	struct irq_msg msg = {
		.vector = icr & 0xff,
		.mode = icr >> 8 & 7,
		.logical = icr & BIT(11),
		.shorthand = icr >> 18 & 3,
	};
	bool deassert = (icr & BIT(15)) && !(icr & BIT(14));

	chip_count(l->chip, ipis);
	if (lapic_x2apic(l)) {
		msg.dest = (u32)(icr >> 32);
		msg.broadcast = msg.dest == BROADCAST_X2APIC;
	} else {
		msg.dest = (u32)(icr >> 56);
		msg.broadcast = msg.dest == BROADCAST_XAPIC;
	}
	msg.lowest = msg.mode == DM_LOWEST;
	/* INIT level de-assert only synchronized arbitration ids, on a bus that is no more. */
	if (msg.mode == DM_INIT && deassert)
		return;
	/* An external interrupt cannot be sent. */
	if (msg.mode == DM_EXTINT || msg.mode == DM_RESERVED)
		return;
	if ((msg.mode == DM_FIXED || msg.mode == DM_LOWEST) && msg.vector < 16) {
		pthread_mutex_lock(&l->lock);
		lapic_error(l, ESR_SEND_VECTOR);
		pthread_mutex_unlock(&l->lock);
		return;
	}
	deliver(l->chip, l, &msg, NULL);
}

int um_irqchip_pv_ipi(struct um_irqchip *chip, u64 low, u64 high, u32 min, u64 icr, unsigned bits)
{
	const u64 halves[2] = { low, high };
	struct irq_msg msg = { .vector = icr & 0xff, .mode = icr >> 8 & 7 };
	int count = 0;

	/* The targets are in the bitmap, so no shorthand, and no destination mode but physical. */
	if ((icr >> 18 & 3) || (icr & BIT(11)) || (msg.mode != DM_FIXED && msg.mode != DM_NMI) ||
	    (bits != 64 && bits != 32) || (msg.mode == DM_FIXED && msg.vector < 16))
		return -EINVAL;
	for (unsigned half = 0; half < 2; half++) {
		u64 map = um_trunc(halves[half], bits / 8);

		for (; map; map &= map - 1) {
			u64 id = (u64)min + half * bits + (unsigned)__builtin_ctzll(map);
			struct um_lapic *l;

			if (id >= UM_MAX_VCPU_IDS)
				continue;
			l = chip_lapic(chip, (u32)id);
			if (l && lapic_enabled(l)) {
				bool accepted = false;

				count += accept_one(l, &msg, &accepted);
			}
		}
	}
	return count;
}

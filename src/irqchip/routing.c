// SPDX-License-Identifier: MIT
/*
 * GSI routing (KVM_SET_GSI_ROUTING): which pins or messages a GSI drives.
 *
 * A table is immutable: a new one is built and checked aside, then takes the old one's place under
 * the chip's lock.  Its routes are sorted by GSI; those of GSI g are routes[first[g]] up to
 * routes[first[g + 1]].
 */
#include "irqchip/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NR_CHIPS 3 /* KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE, _IOAPIC */

struct route {
	u8 type; /* KVM_IRQ_ROUTING_IRQCHIP, _MSI or _HV_SINT */
	u8 chip; /* KVM_IRQCHIP_* */
	u8 pin;	 /* of that chip */
	u32 address_lo, address_hi, data;
	u32 vp_index, sint;
};

struct routing {
	u32 nr_gsis; /* highest routed GSI + 1 */
	u32 first[UM_MAX_IRQ_ROUTES + 1];
	s16 gsi_of[NR_CHIPS][IOAPIC_PINS];
	struct route routes[];
};

static int parse_chip_route(struct um_irqchip *chip, const struct kvm_irq_routing_entry *e,
			    struct route *r)
{
	if (chip->split || e->u.irqchip.irqchip >= NR_CHIPS)
		return -EINVAL;
	if (e->u.irqchip.pin >= (e->u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC ? IOAPIC_PINS : 8u))
		return -EINVAL;
	r->chip = (u8)e->u.irqchip.irqchip;
	r->pin = (u8)e->u.irqchip.pin;
	return 0;
}

static int parse_route(struct um_irqchip *chip, const struct kvm_irq_routing_entry *e,
		       struct route *r)
{
	if (e->gsi >= UM_MAX_IRQ_ROUTES)
		return -EINVAL;
	r->type = (u8)e->type;
	switch (e->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		return e->flags ? -EINVAL : parse_chip_route(chip, e, r);
	case KVM_IRQ_ROUTING_MSI:
		if ((e->flags & ~KVM_MSI_VALID_DEVID) ||
		    !msi_address_valid(chip, e->u.msi.address_hi))
			return -EINVAL;
		r->address_lo = e->u.msi.address_lo;
		r->address_hi = e->u.msi.address_hi;
		r->data = e->u.msi.data;
		return 0;
	case KVM_IRQ_ROUTING_HV_SINT: /* which vCPU that will be is seen when it is used */
		if (e->flags)
			return -EINVAL;
		r->vp_index = e->u.hv_sint.vcpu;
		r->sint = e->u.hv_sint.sint;
		return 0;
	}
	return -EINVAL;
}

/* A GSI goes to one pin of each chip at most, or to one message and nothing else. */
static bool clash(const struct route *a, const struct route *b)
{
	return a->type != KVM_IRQ_ROUTING_IRQCHIP || b->type != KVM_IRQ_ROUTING_IRQCHIP ||
	       a->chip == b->chip;
}

static int fill(struct um_irqchip *chip, struct routing *t,
		const struct kvm_irq_routing_entry *entries, u32 nr)
{
	u32 next[UM_MAX_IRQ_ROUTES];
	int err;

	for (u32 i = 0; i < nr; i++) {
		if (entries[i].gsi >= UM_MAX_IRQ_ROUTES)
			return -EINVAL;
		t->first[entries[i].gsi + 1]++;
		t->nr_gsis = um_max(t->nr_gsis, entries[i].gsi + 1);
	}
	for (u32 g = 0; g < UM_MAX_IRQ_ROUTES; g++) {
		t->first[g + 1] += t->first[g];
		next[g] = t->first[g];
	}
	for (u32 i = 0; i < nr; i++) {
		u32 gsi = entries[i].gsi;
		struct route *r = &t->routes[next[gsi]];

		err = parse_route(chip, &entries[i], r);
		if (err)
			return err;
		/* At most three can stand before the first clash. */
		for (u32 j = t->first[gsi]; j < next[gsi]; j++)
			if (clash(&t->routes[j], r))
				return -EINVAL;
		next[gsi]++;
		if (r->type == KVM_IRQ_ROUTING_IRQCHIP)
			t->gsi_of[r->chip][r->pin] = (s16)gsi;
	}
	return 0;
}

/*
 * Split: GSIs below nr_reserved_pins may stand for pins of the VMM's IOAPIC.  The EOI of a vector
 * that such a GSI sends level-triggered is the VMM's business.
 */
static bool reserved_level_msg(struct um_irqchip *chip, const struct routing *t, u32 gsi,
			       struct irq_msg *msg)
{
	const struct route *r = &t->routes[t->first[gsi]];

	if (t->first[gsi] == t->first[gsi + 1] || r->type != KVM_IRQ_ROUTING_MSI)
		return false;
	msg_from_msi(chip, msg, r->address_lo, r->address_hi, r->data);
	return msg->level;
}

static u32 nr_reserved_gsis(struct um_irqchip *chip, const struct routing *t)
{
	return um_min(t->nr_gsis, chip->nr_reserved_pins);
}

static void update_eoi_vectors(struct um_irqchip *chip)
{
	const struct routing *t = chip->routing;
	u64 vectors[4] = { 0 };
	struct irq_msg msg;

	if (!chip->split) {
		ioapic_update_eoi_vectors(chip);
		return;
	}
	for (u32 gsi = 0; gsi < nr_reserved_gsis(chip, t); gsi++)
		if (reserved_level_msg(chip, t, gsi, &msg))
			vectors[msg.vector >> 6] |= BIT(msg.vector & 63);
	for (unsigned i = 0; i < 4; i++)
		store_relaxed(&chip->eoi_vectors[i], vectors[i]);
}

bool routing_level_vector(struct um_irqchip *chip, struct um_lapic *l, u8 vec)
{
	const struct routing *t = chip->routing;
	struct irq_msg msg;

	for (u32 gsi = 0; gsi < nr_reserved_gsis(chip, t); gsi++)
		if (reserved_level_msg(chip, t, gsi, &msg) && msg.vector == vec &&
		    msg_matches(l, &msg))
			return true;
	return false;
}

static int build(struct um_irqchip *chip, const struct kvm_irq_routing_entry *entries, u32 nr,
		 struct routing **table)
{
	struct routing *t;
	int err;

	t = calloc(1, sizeof(*t) + nr * sizeof(t->routes[0]));
	if (!t)
		return -ENOMEM;
	memset(t->gsi_of, 0xff, sizeof(t->gsi_of));
	err = fill(chip, t, entries, nr);
	if (err) {
		free(t);
		return err;
	}
	*table = t;
	return 0;
}

int um_irqchip_set_routing(struct um_irqchip *chip, const struct kvm_irq_routing_entry *entries,
			   u32 nr, u32 flags)
{
	struct routing *t, *old;
	int err;

	if (nr > UM_MAX_IRQ_ROUTES || flags)
		return -EINVAL;
	err = build(chip, entries, nr, &t);
	if (err)
		return err;
	chip_lock(chip);
	old = chip->routing;
	chip->routing = t;
	update_eoi_vectors(chip);
	chip_unlock(chip);
	free(old);
	return 0;
}

int routing_init(struct um_irqchip *chip)
{
	struct kvm_irq_routing_entry entries[IOAPIC_PINS + PIC_PINS] = { 0 };
	u32 nr = 0;

	for (u32 pin = 0; !chip->split && pin < IOAPIC_PINS; pin++) {
		entries[nr].gsi = pin;
		entries[nr].type = KVM_IRQ_ROUTING_IRQCHIP;
		entries[nr].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		entries[nr++].u.irqchip.pin = pin;
		if (pin >= PIC_PINS)
			continue;
		entries[nr].gsi = pin;
		entries[nr].type = KVM_IRQ_ROUTING_IRQCHIP;
		entries[nr].u.irqchip.irqchip =
			pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
		entries[nr++].u.irqchip.pin = pin & 7;
	}
	return build(chip, entries, nr, &chip->routing);
}

int routing_gsi_of(struct um_irqchip *chip, unsigned which, unsigned pin)
{
	return chip->routing->gsi_of[which][pin];
}

/* A pin is high while any source holds it. */
static bool set_source(u32 *lines, enum um_irq_source source, bool level)
{
	if (level)
		*lines |= (u32)BIT(source);
	else
		*lines &= ~(u32)BIT(source);
	return *lines;
}

static int drive(struct um_irqchip *chip, const struct route *r, enum um_irq_source source,
		 bool level)
{
	struct irq_msg msg;
	unsigned pin = r->pin;

	if (r->type == KVM_IRQ_ROUTING_MSI) {
		if (!level)
			return -1;
		chip_count(chip, msis);
		msg_from_msi(chip, &msg, r->address_lo, r->address_hi, r->data);
		return deliver(chip, NULL, &msg, NULL);
	}
	if (r->type == KVM_IRQ_ROUTING_HV_SINT)
		return level ? synic_set_irq(chip, r->vp_index, r->sint) : -1;
	if (r->chip == KVM_IRQCHIP_IOAPIC)
		return ioapic_set_line(chip, pin,
				       set_source(&chip->ioapic.lines[pin], source, level));
	if (r->chip == KVM_IRQCHIP_PIC_SLAVE)
		pin += 8;
	return pic_set_line(chip, pin, set_source(&chip->pic.lines[pin], source, level));
}

int routing_set_irq(struct um_irqchip *chip, enum um_irq_source source, u32 gsi, bool level)
{
	const struct routing *t = chip->routing;
	int ret = -1;

	if (gsi >= t->nr_gsis)
		return -1;
	for (u32 i = t->first[gsi]; i < t->first[gsi + 1]; i++) {
		int r = drive(chip, &t->routes[i], source, level);

		if (r >= 0)
			ret = um_max(ret, 0) + r;
	}
	return ret;
}

void routing_sints_acked(struct um_irqchip *chip, u32 vp_index, u32 sints)
{
	const struct routing *t = chip->routing;

	for (u32 gsi = 0; gsi < t->nr_gsis; gsi++) {
		const struct route *r = &t->routes[t->first[gsi]];

		if (t->first[gsi] < t->first[gsi + 1] && r->type == KVM_IRQ_ROUTING_HV_SINT &&
		    r->vp_index == vp_index && r->sint < UM_NR_SINTS && sints >> r->sint & 1)
			irqfd_acked(chip, gsi);
	}
}

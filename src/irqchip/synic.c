// SPDX-License-Identifier: MIT
/*
 * SINTs: registers, interrupts, end of interrupt.  See synic.h.
 *
 * From the 16 registers two sets of vectors are derived: those that are ended at once (AutoEOI), and all that
 * some SINT uses, whose EOIs somebody may wait for.  Both are read without the lock.
 */
#include "irqchip/synic.h"

#include "irqchip/internal.h"

bool um_synic_active(const struct um_lapic *l)
{
	return load_relaxed(&l->synic.active);
}

void um_synic_activate(struct um_lapic *l)
{
	pthread_mutex_lock(&l->lock);
	if (!l->synic.active)
		for (unsigned n = 0; n < UM_NR_SINTS; n++)
			l->synic.sint[n] = UM_SINT_MASKED;
	store_relaxed(&l->synic.active, true);
	pthread_mutex_unlock(&l->lock);
}

void um_synic_set_vp_index(struct um_lapic *l, u32 index)
{
	store_relaxed(&l->synic.vp_index, index);
}

u32 um_synic_vp_index(const struct um_lapic *l)
{
	return load_relaxed(&l->synic.vp_index);
}

u64 um_synic_get_sint(const struct um_lapic *l, unsigned n)
{
	return load_relaxed(&l->synic.sint[n]);
}

static void derive_vectors(struct synic *s)
{
	u64 all[4] = { 0 }, auto_eoi[4] = { 0 };

	for (unsigned n = 0; n < UM_NR_SINTS; n++) {
		u8 vec = s->sint[n] & UM_SINT_VECTOR;

		if (s->sint[n] & UM_SINT_MASKED)
			continue;
		all[vec >> 6] |= BIT(vec & 63);
		if (s->sint[n] & UM_SINT_AUTO_EOI)
			auto_eoi[vec >> 6] |= BIT(vec & 63);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		store_relaxed(&s->vectors[i], all[i]);
		store_relaxed(&s->auto_eoi[i], auto_eoi[i]);
	}
}

bool um_synic_set_sint(struct um_lapic *l, unsigned n, u64 val, bool host)
{
	if (!host && (val & UM_SINT_VECTOR) < 16 && !(val & UM_SINT_MASKED))
		return false;
	/* An offer that stands was made under the old rules. */
	um_lapic_pv_eoi_exit(l);
	pthread_mutex_lock(&l->lock);
	store_relaxed(&l->synic.sint[n], val);
	derive_vectors(&l->synic);
	pthread_mutex_unlock(&l->lock);
	return true;
}

int um_synic_raise(struct um_lapic *l, unsigned n)
{
	bool accepted = false;
	int ret = -1;
	u64 sint;

	if (n >= UM_NR_SINTS || !um_synic_active(l))
		return -1;
	pthread_mutex_lock(&l->lock);
	sint = l->synic.sint[n];
	if (!(sint & (UM_SINT_MASKED | UM_SINT_POLLING)))
		ret = lapic_accept(l, DM_FIXED, sint & UM_SINT_VECTOR, false, &accepted);
	pthread_mutex_unlock(&l->lock);
	return ret;
}

int synic_set_irq(struct um_irqchip *chip, u32 vp_index, u32 sint)
{
	struct um_lapic *l;

	for_each_lapic(chip, id, l)
	{
		if (um_synic_vp_index(l) == vp_index && um_synic_active(l))
			return um_synic_raise(l, sint);
	}
	return -1;
}

/* @sints have ended: the GSIs that raise them may be raised again. */
static void ack_gsis(struct um_lapic *l, u32 sints)
{
	struct um_irqchip *chip = l->chip;

	chip_lock(chip);
	if (chip->resamplers)
		routing_sints_acked(chip, um_synic_vp_index(l), sints);
	chip_unlock(chip);
}

void synic_eoi(struct um_lapic *l, u8 vec)
{
	u32 sints = 0;

	for (unsigned n = 0; n < UM_NR_SINTS; n++) {
		u64 sint = um_synic_get_sint(l, n);

		if (!(sint & UM_SINT_MASKED) && (sint & UM_SINT_VECTOR) == vec)
			sints |= 1u << n;
	}
	if (!sints)
		return;
	ack_gsis(l, sints);
	l->ops->sint_eoi(l->vcpu, sints);
}

void um_synic_end_of_message(struct um_lapic *l)
{
	ack_gsis(l, GENMASK(UM_NR_SINTS - 1, 0));
}

// SPDX-License-Identifier: MIT
/*
 * The local APIC: requests, priorities, acknowledgement, EOI, reset, and PV EOI.
 *
 * Whatever changes IRR, ISR, TPR or the way LINT0 is programmed ends with lapic_update(), which
 * computes the processor priority (SDM "Task and Processor Priorities") and publishes in `hint` the
 * vector that could be delivered now.  So the vCPU's loop and a halted vCPU ask with one load.
 *
 *   I1  isr_top is the highest bit of ISR, or -1.
 *   I2  hint is the highest bit of IRR if its class is above PPR's, else -1.  While an offer of PV
 * EOI stands, ISR may be out of date, and hint is the highest bit of IRR in any case. I3  an offer
 * of PV EOI was made when IRR was empty; a request that comes later kicks the vCPU, which settles
 * the offer (um_lapic_pv_eoi_exit) before it looks at ISR.
 */
#include "irqchip/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Highest set bit of the 256 of ISR, TMR or IRR, or -1. */
static int vec_highest(const struct um_lapic *l, u32 reg)
{
	for (int i = 7; i >= 0; i--) {
		u32 word = reg_get(l, reg + (u32)i * 16);

		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

static u32 processor_priority(const struct um_lapic *l)
{
	u32 tpr = reg_get(l, APIC_TPR);
	u32 isrv = l->isr_top < 0 ? 0 : (u32)l->isr_top;

	return (tpr & 0xf0) >= (isrv & 0xf0) ? tpr : isrv & 0xf0;
}

void lapic_update(struct um_lapic *l)
{
	u32 lvt0 = reg_get(l, UM_LVT_LINT0), ppr;
	int irr, hint = -1, old = l->hint;

	store_relaxed(&l->isr_top, vec_highest(l, APIC_ISR));
	ppr = processor_priority(l);
	reg_set(l, APIC_PPR, ppr);
	irr = vec_highest(l, APIC_IRR);
	if (lapic_enabled(l) && irr >= 0 && (l->pv_pending || ((u32)irr & 0xf0) > (ppr & 0xf0)))
		hint = irr;
	store_relaxed(&l->accepts_pic,
		      !lapic_enabled(l) || (lvt0 & (LVT_MASKED | LVT_MODE)) == (u32)DM_EXTINT << 8);
	__atomic_store_n(&l->hint, hint, __ATOMIC_SEQ_CST);
	if (hint >= 0 && hint != old && !l->dead)
		l->ops->kick(l->vcpu);
}

/* ---- Requests ---- */

/* An error is accumulated until the guest writes ESR; its interrupt comes with the first of a kind.
 */
void lapic_error(struct um_lapic *l, u32 esr_bit)
{
	if (l->esr & esr_bit)
		return;
	l->esr |= esr_bit;
	lapic_deliver_lvt(l, UM_LVT_ERROR);
}

static void note_heard(struct um_lapic *l)
{
	__atomic_store_n(&l->heard, true, __ATOMIC_RELEASE);
}

bool um_lapic_heard(struct um_lapic *l)
{
	return __atomic_exchange_n(&l->heard, false, __ATOMIC_ACQ_REL);
}

static int accept(struct um_lapic *l, u8 mode, u8 vector, bool level, bool *accepted)
{
	bool fresh;

	if (l->dead)
		return 0;
	switch (mode) {
	case DM_FIXED:
	case DM_LOWEST:
		if (!lapic_enabled(l) || !lapic_sw_enabled(l))
			return 0;
		if (vector < 16) {
			lapic_error(l, ESR_RECV_VECTOR);
			return 0;
		}
		fresh = !vec_test(l, APIC_IRR, vector);
		if (level)
			vec_set(l, APIC_TMR, vector);
		else
			vec_clear(l, APIC_TMR, vector);
		vec_set(l, APIC_IRR, vector);
		*accepted = true;
		lapic_update(l);
		return fresh;
	case DM_SMI:
		l->ops->smi(l->vcpu);
		break;
	case DM_NMI:
		l->ops->nmi(l->vcpu);
		break;
	case DM_INIT:
		l->ops->init(l->vcpu);
		break;
	case DM_SIPI:
		l->ops->sipi(l->vcpu, vector);
		break;
	default:
		/* External interrupts come by LINT0 only; mode 3 is reserved. */
		return 0;
	}
	*accepted = true;
	return 1;
}

int lapic_accept(struct um_lapic *l, u8 mode, u8 vector, bool level, bool *accepted)
{
	note_heard(l);
	return accept(l, mode, vector, level, accepted);
}

bool lapic_deliver_lvt(struct um_lapic *l, u32 reg)
{
	u32 lvt = reg_get(l, reg);
	bool level = (lvt & LVT_LEVEL) && (reg == UM_LVT_LINT0 || reg == UM_LVT_LINT1);
	u8 mode = lvt >> 8 & 7;
	bool accepted = false;

	if (!lapic_enabled(l) || (lvt & LVT_MASKED))
		return false;
	if (reg == UM_LVT_TIMER || reg == UM_LVT_ERROR)
		mode = DM_FIXED; /* these two have no mode field */
	/* SDM "Local Vector Table": the entry masks itself when it signals a counter overflow. */
	if (reg == UM_LVT_PERF)
		reg_set(l, reg, lvt | LVT_MASKED);
	if (mode == DM_EXTINT) {
		if (!l->dead)
			l->ops->kick(l->vcpu);
		return true;
	}
	if (mode == DM_SIPI || mode == DM_RESERVED || mode == DM_LOWEST)
		return false;
	if (reg != UM_LVT_TIMER)
		note_heard(l);
	accept(l, mode, lvt & LVT_VECTOR, level, &accepted);
	return accepted;
}

int um_lapic_fixed(struct um_lapic *l, u8 vector)
{
	bool accepted = false;
	int ret;

	pthread_mutex_lock(&l->lock);
	ret = lapic_accept(l, DM_FIXED, vector, false, &accepted);
	pthread_mutex_unlock(&l->lock);
	return accepted ? ret : -1;
}

bool um_lapic_local_deliver(struct um_lapic *l, u32 reg)
{
	bool ret;

	if (reg == UM_LVT_CMCI ? !l->has_cmci
			       : reg < UM_LVT_TIMER || reg > UM_LVT_ERROR || (reg & 0xf))
		return false;
	pthread_mutex_lock(&l->lock);
	ret = lapic_deliver_lvt(l, reg);
	pthread_mutex_unlock(&l->lock);
	return ret;
}

/* ---- EOI ---- */

/* Tell whoever waits for the EOI of a level-triggered (or watched) vector.  No lock held. */
static void broadcast_eoi(struct um_lapic *l, u8 vec, bool level)
{
	struct um_irqchip *chip = l->chip;

	if (!chip->split) {
		if (!level && !chip_wants_eoi(chip, vec))
			return;
		chip_lock(chip);
		ioapic_eoi(chip, vec, level);
		chip_unlock(chip);
		return;
	}
	/*
	 * The VMM is told even if the guest asked to suppress broadcasts: as with KVM, its IOAPIC
	 * may have no EOI register for the guest to use instead, and ignores EOIs that it does not
	 * wait for.
	 */
	if (!chip_wants_eoi(chip, vec))
		return;
	if (!level) {
		chip_lock(chip);
		level = routing_level_vector(chip, l, vec);
		chip_unlock(chip);
	}
	if (level) {
		pthread_mutex_lock(&l->lock);
		l->eoi_exit[vec >> 6] |= BIT(vec & 63);
		pthread_mutex_unlock(&l->lock);
	}
}

void lapic_eoi(struct um_lapic *l)
{
	bool level;
	int vec;

	pthread_mutex_lock(&l->lock);
	vec = l->isr_top;
	if (vec < 0) {
		pthread_mutex_unlock(&l->lock);
		return;
	}
	vec_clear(l, APIC_ISR, (u8)vec);
	level = vec_test(l, APIC_TMR, (u8)vec);
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
	um_trace(l->chip->trace, irq, "lapic %u: eoi vector 0x%x%s", l->vcpu_id, (unsigned)vec,
		 level ? " level" : "");
	broadcast_eoi(l, (u8)vec, level);
	if (synic_has_vector(l, (u8)vec))
		synic_eoi(l, (u8)vec);
}

int um_lapic_take_ioapic_eoi(struct um_lapic *l)
{
	int vec = -1;

	if (!l->chip->split)
		return -1;
	pthread_mutex_lock(&l->lock);
	for (int i = 3; i >= 0 && vec < 0; i--) {
		if (!l->eoi_exit[i])
			continue;
		vec = i * 64 + 63 - __builtin_clzll(l->eoi_exit[i]);
		l->eoi_exit[i] &= ~BIT(vec & 63);
	}
	pthread_mutex_unlock(&l->lock);
	return vec;
}

/* ---- PV EOI ---- */

bool um_lapic_set_pv_eoi(struct um_lapic *l, u64 msr)
{
	if (msr & 2)
		return false;
	um_lapic_pv_eoi_exit(l);
	store_relaxed(&l->pv_eoi, msr);
	return true;
}

u64 um_lapic_get_pv_eoi(struct um_lapic *l)
{
	return load_relaxed(&l->pv_eoi);
}

static void set_pv_pending(struct um_lapic *l, bool pending)
{
	store_relaxed(&l->pv_pending, pending);
	lapic_update(l);
}

void um_lapic_pv_eoi_enter(struct um_lapic *l)
{
	gpa_t flag = l->pv_eoi & ~3ull;
	bool offer;
	u8 val;

	/* These change only in this thread, but for requests, which are looked at under the lock.
	 */
	if (!(l->pv_eoi & 1) || l->pv_pending || load_relaxed(&l->isr_top) < 0)
		return;
	pthread_mutex_lock(&l->lock);
	offer = l->isr_top >= 0 && vec_highest(l, APIC_IRR) < 0 &&
		!vec_test(l, APIC_TMR, (u8)l->isr_top) &&
		!chip_wants_eoi(l->chip, (u8)l->isr_top) && !synic_has_vector(l, (u8)l->isr_top);
	if (offer)
		set_pv_pending(l, true);
	pthread_mutex_unlock(&l->lock);
	if (!offer)
		return;
	if (l->ops->guest_read8(l->vcpu, flag, &val) &&
	    l->ops->guest_write8(l->vcpu, flag, val | 1))
		return;
	pthread_mutex_lock(&l->lock);
	set_pv_pending(l, false);
	pthread_mutex_unlock(&l->lock);
}

void um_lapic_pv_eoi_exit(struct um_lapic *l)
{
	gpa_t flag = l->pv_eoi & ~3ull;
	u8 val = 1;

	if (!load_relaxed(&l->pv_pending))
		return;
	/* Where the flag cannot be read any more the guest cannot have taken the offer. */
	if (l->ops->guest_read8(l->vcpu, flag, &val) && (val & 1))
		l->ops->guest_write8(l->vcpu, flag, val & 0xfe);
	pthread_mutex_lock(&l->lock);
	set_pv_pending(l, false);
	pthread_mutex_unlock(&l->lock);
	if (!(val & 1))
		lapic_eoi(l);
}

/* ---- What the vCPU takes ---- */

bool um_lapic_has_interrupt(struct um_lapic *l)
{
	if (__atomic_load_n(&l->hint, __ATOMIC_SEQ_CST) >= 0)
		return true;
	return load_relaxed(&l->accepts_pic) &&
	       (__atomic_load_n(&l->chip->pic.output, __ATOMIC_SEQ_CST) ||
		load_relaxed(&l->ext_vector) >= 0);
}

static int ack_extint(struct um_lapic *l)
{
	struct um_irqchip *chip = l->chip;
	int vec;

	if (!load_relaxed(&l->accepts_pic))
		return -1;
	if (chip->split)
		return __atomic_exchange_n(&l->ext_vector, -1, __ATOMIC_ACQ_REL);
	if (!load_relaxed(&chip->pic.output))
		return -1;
	chip_lock(chip);
	vec = pic_ack(chip);
	chip_unlock(chip);
	return vec;
}

int um_lapic_ack(struct um_lapic *l)
{
	int vec = ack_extint(l);

	if (vec >= 0) {
		note_heard(l);
		return vec;
	}
	um_lapic_pv_eoi_exit(l);
	pthread_mutex_lock(&l->lock);
	vec = l->hint;
	if (vec >= 0) {
		vec_clear(l, APIC_IRR, (u8)vec);
		if (!synic_auto_eoi(l, (u8)vec))
			vec_set(l, APIC_ISR, (u8)vec);
		lapic_update(l);
	}
	pthread_mutex_unlock(&l->lock);
	if (vec >= 0)
		um_trace(l->chip->trace, irq, "lapic %u: ack vector 0x%x", l->vcpu_id,
			 (unsigned)vec);
	return vec;
}

bool um_lapic_accepts_extint(struct um_lapic *l)
{
	return load_relaxed(&l->accepts_pic);
}

int um_lapic_set_extint(struct um_lapic *l, u8 vector)
{
	int none = -1;

	if (!l->chip->split)
		return -ENXIO;
	if (!__atomic_compare_exchange_n(&l->ext_vector, &none, vector, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		return -EEXIST;
	pthread_mutex_lock(&l->lock);
	if (!l->dead)
		l->ops->kick(l->vcpu);
	pthread_mutex_unlock(&l->lock);
	return 0;
}

bool um_lapic_extint_pending(struct um_lapic *l)
{
	return load_relaxed(&l->ext_vector) >= 0;
}

/* ---- Mode, reset, life ---- */

/* The id and, in x2APIC mode, the logical id that go with the mode just entered. */
void lapic_set_mode_id(struct um_lapic *l)
{
	u32 id = l->vcpu_id;

	if (lapic_x2apic(l)) {
		reg_set(l, APIC_ID, id);
		/* SDM "Logical Destination Mode in x2APIC Mode": derived from the id. */
		reg_set(l, APIC_LDR, (id >> 4) << 16 | 1u << (id & 15));
		reg_set(l, APIC_DFR, 0xffffffff);
	} else {
		reg_set(l, APIC_ID, id << 24);
	}
}

/* "Local APIC State After Power-Up or Reset". */
void lapic_clear(struct um_lapic *l)
{
	u32 version = reg_get(l, APIC_VERSION);
	bool wire = l->bsp && !(load_relaxed(&l->chip->quirks_off) & KVM_X86_QUIRK_LINT0_REENABLED);

	lapic_timer_stop(l);
	for (u32 i = 0; i < APIC_NR_REGS; i++)
		store_relaxed(&l->regs[i], 0);
	reg_set(l, APIC_VERSION, version);
	for (u32 reg = UM_LVT_TIMER; reg <= UM_LVT_ERROR; reg += 0x10)
		reg_set(l, reg, LVT_MASKED);
	if (l->has_cmci)
		reg_set(l, UM_LVT_CMCI, LVT_MASKED);
	/* Firmware that knows nothing of the APIC finds the PIC connected. */
	if (wire)
		reg_set(l, UM_LVT_LINT0, (u32)DM_EXTINT << 8);
	reg_set(l, APIC_DFR, 0xffffffff);
	reg_set(l, APIC_SPIV, 0xff);
	lapic_set_mode_id(l);
	l->esr = 0;
	store_relaxed(&l->ext_vector, -1);
	store_relaxed(&l->pv_pending, false);
	memset(l->eoi_exit, 0, sizeof(l->eoi_exit));
	lapic_timer_restore(l);
}

void um_lapic_reset(struct um_lapic *l, bool init)
{
	pthread_mutex_lock(&l->lock);
	if (!init) {
		store_relaxed(&l->base,
			      UM_LAPIC_BASE | APIC_BASE_ENABLE | (l->bsp ? APIC_BASE_BSP : 0));
	}
	store_relaxed(&l->pv_eoi, 0);
	lapic_clear(l);
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
}

static void set_version(struct um_lapic *l)
{
	u32 version = 0x14 | (l->has_cmci ? 6 : 5) << 16; /* the highest LVT entry */

	/* Only a VMM's IOAPIC may have an EOI register. */
	if (l->chip->split && l->has_x2apic)
		version |= VERSION_DIRECTED;
	reg_set(l, APIC_VERSION, version);
}

void um_lapic_set_cmci(struct um_lapic *l, bool has_cmci)
{
	pthread_mutex_lock(&l->lock);
	if (has_cmci != l->has_cmci) {
		l->has_cmci = has_cmci;
		reg_set(l, UM_LVT_CMCI, has_cmci ? LVT_MASKED : 0);
		set_version(l);
	}
	pthread_mutex_unlock(&l->lock);
}

void um_lapic_set_cpuid(struct um_lapic *l, bool x2apic, bool tsc_deadline, unsigned maxphyaddr)
{
	pthread_mutex_lock(&l->lock);
	l->has_x2apic = x2apic;
	l->has_deadline = tsc_deadline;
	l->maxphyaddr = maxphyaddr < 36 ? 36 : um_min(maxphyaddr, 52u);
	set_version(l);
	pthread_mutex_unlock(&l->lock);
}

void *um_lapic_vcpu(struct um_lapic *l)
{
	return l->vcpu;
}

u32 um_lapic_id(struct um_lapic *l)
{
	return lapic_number(l);
}

int um_lapic_create(struct um_lapic **lapic, struct um_irqchip *chip, u32 vcpu_id, bool bsp,
		    const struct um_lapic_ops *ops, void *vcpu)
{
	struct um_lapic *l;
	int err;

	if (vcpu_id >= UM_MAX_VCPU_IDS)
		return -EINVAL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->chip = chip;
	l->ops = ops;
	l->vcpu = vcpu;
	l->vcpu_id = vcpu_id;
	l->bsp = bsp;
	l->hint = l->isr_top = l->ext_vector = -1;
	l->has_x2apic = l->has_deadline = true;
	l->maxphyaddr = 52;
	pthread_mutex_init(&l->lock, NULL);
	err = lapic_timer_init(l);
	if (err)
		goto fail;
	set_version(l);
	um_lapic_reset(l, false);

	chip_lock(chip);
	if (chip->lapics[vcpu_id]) {
		chip_unlock(chip);
		lapic_timer_destroy(l);
		err = -EEXIST;
		goto fail;
	}
	__atomic_store_n(&chip->lapics[vcpu_id], l, __ATOMIC_RELEASE);
	if (vcpu_id >= chip->nr_ids)
		__atomic_store_n(&chip->nr_ids, vcpu_id + 1, __ATOMIC_RELEASE);
	/* Messages call an id above 255 by its low byte in xAPIC mode: no shortcut by number then.
	 */
	if (vcpu_id > 0xff)
		store_relaxed(&chip->ids_changed, true);
	chip_unlock(chip);
	*lapic = l;
	return 0;
fail:
	pthread_mutex_destroy(&l->lock);
	free(l);
	return err;
}

/*
 * A message may be on its way here in another thread, so the memory stays until the chip goes;
 * there is at most one such LAPIC for each vCPU that was made and given up.
 */
void um_lapic_destroy(struct um_lapic *l)
{
	struct um_irqchip *chip = l->chip;

	chip_lock(chip);
	__atomic_store_n(&chip->lapics[l->vcpu_id], NULL, __ATOMIC_RELEASE);
	pthread_mutex_lock(&l->lock);
	l->dead = true;
	lapic_timer_stop(l);
	pthread_mutex_unlock(&l->lock);
	l->next_dead = chip->dead;
	chip->dead = l;
	chip_unlock(chip);
	lapic_timer_destroy(l);
}

// SPDX-License-Identifier: MIT
/*
 * The local APIC as the guest sees it: the xAPIC page, the x2APIC MSRs, IA32_APIC_BASE, CR8; and as
 * the VMM sees it: struct kvm_lapic_state.
 *
 * Both register interfaces go through read_reg() and write_reg(), keyed by the xAPIC offset (SDM
 * "Local APIC Register Address Map", "x2APIC Register Address Space").  Every access by the guest
 * first settles an offer of PV EOI, so ISR is exact.
 *
 * Reserved bits: an MSR write with any of bits 63:32 set is #GP (but for ICR); below, bits that do
 * not exist read as 0, in both modes, as with KVM.  ICR keeps every bit that is written but for the
 * delivery status.
 */
#include "irqchip/internal.h"

#include <errno.h>
#include <string.h>

#define MSR_X2APIC_BASE 0x800u

/* Which registers exist, and what may be done to them in which mode. */
enum { RD = 1, WR = 2 };

static unsigned reg_access(const struct um_lapic *l, u32 reg, bool x2apic)
{
	if ((reg & 0xf) == 0 && reg >= APIC_ISR && reg < APIC_ESR)
		return RD;
	switch (reg) {
	case APIC_ID:
		return x2apic ? RD : RD | WR;
	case APIC_VERSION:
	case APIC_PPR:
	case APIC_TMCCT:
		return RD;
	case APIC_LDR:
		return x2apic ? RD : RD | WR;
	case APIC_APR:
		return x2apic ? 0 : RD;
	case APIC_DFR:
	case APIC_ICR2:
		return x2apic ? 0 : RD | WR;
	case APIC_EOI:
		return WR;
	case APIC_SELF_IPI:
		return x2apic ? WR : 0;
	case UM_LVT_CMCI:
		return l->has_cmci ? RD | WR : 0;
	case APIC_TPR:
	case APIC_SPIV:
	case APIC_ESR:
	case APIC_ICR:
	case UM_LVT_TIMER:
	case UM_LVT_THERMAL:
	case UM_LVT_PERF:
	case UM_LVT_LINT0:
	case UM_LVT_LINT1:
	case UM_LVT_ERROR:
	case APIC_TMICT:
	case APIC_TDCR:
		return RD | WR;
	}
	return 0;
}

static u32 read_reg(struct um_lapic *l, u32 reg)
{
	switch (reg) {
	case APIC_TMCCT:
		return lapic_timer_count(l);
	case APIC_APR:
		/* Arbitration is done by whoever sends; what is left of this register is PPR. */
		return reg_get(l, APIC_PPR);
	}
	return reg_get(l, reg);
}

/* The bits of an LVT entry that software can write (SDM "Local Vector Table"). */
static u32 lvt_mask(const struct um_lapic *l, u32 reg)
{
	switch (reg) {
	case UM_LVT_TIMER:
		return LVT_VECTOR | LVT_MASKED | (l->has_deadline ? LVT_TIMER_MODE : LVT_PERIODIC);
	case UM_LVT_CMCI:
	case UM_LVT_THERMAL:
	case UM_LVT_PERF:
		return LVT_VECTOR | LVT_MODE | LVT_MASKED;
	case UM_LVT_ERROR:
		return LVT_VECTOR | LVT_MASKED;
	}
	return LVT_VECTOR | LVT_MODE | LVT_POLARITY | LVT_LEVEL | LVT_MASKED;
}

static void write_lvt(struct um_lapic *l, u32 reg, u32 val)
{
	val &= lvt_mask(l, reg);
	if (!lapic_sw_enabled(l))
		val |= LVT_MASKED;
	if (reg == UM_LVT_TIMER)
		lapic_timer_set_lvt(l, val);
	else
		reg_set(l, reg, val);
}

/* Disabling by software masks every entry of the LVT; they stay masked afterwards. */
static void write_spiv(struct um_lapic *l, u32 val)
{
	u32 mask = 0x3ff;

	if (reg_get(l, APIC_VERSION) & VERSION_DIRECTED)
		mask |= SPIV_DIRECTED;
	reg_set(l, APIC_SPIV, val & mask);
	if (lapic_sw_enabled(l))
		return;
	for (u32 reg = UM_LVT_TIMER; reg <= UM_LVT_ERROR; reg += 0x10)
		reg_set(l, reg, reg_get(l, reg) | LVT_MASKED);
	if (l->has_cmci)
		reg_set(l, UM_LVT_CMCI, reg_get(l, UM_LVT_CMCI) | LVT_MASKED);
}

/* Registers that only change this LAPIC's own state; the lock is held. */
static void write_state(struct um_lapic *l, u32 reg, u32 val)
{
	switch (reg) {
	case APIC_ID:
		reg_set(l, reg, val & 0xff000000);
		store_relaxed(&l->chip->ids_changed, true);
		break;
	case APIC_TPR:
		reg_set(l, reg, val & 0xff);
		break;
	case APIC_LDR:
	case APIC_ICR2:
		reg_set(l, reg, val & 0xff000000);
		break;
	case APIC_DFR:
		reg_set(l, reg, val | 0x0fffffff);
		break;
	case APIC_SPIV:
		write_spiv(l, val);
		break;
	case APIC_ESR:
		/* Any write makes the errors since the last one visible. */
		reg_set(l, reg, l->esr);
		l->esr = 0;
		break;
	case APIC_TMICT:
		lapic_timer_set_count(l, val);
		break;
	case APIC_TDCR:
		lapic_timer_set_divide(l, val);
		break;
	default:
		write_lvt(l, reg, val);
	}
	lapic_update(l);
}

static void write_icr(struct um_lapic *l, u64 icr)
{
	icr &= ~BIT(12);
	pthread_mutex_lock(&l->lock);
	reg_set(l, APIC_ICR, (u32)icr);
	reg_set(l, APIC_ICR2, (u32)(icr >> 32));
	pthread_mutex_unlock(&l->lock);
	lapic_send_ipi(l, icr);
}

static void write_reg(struct um_lapic *l, u32 reg, u64 val)
{
	switch (reg) {
	case APIC_EOI:
		lapic_eoi(l);
		break;
	case APIC_ICR:
		write_icr(l, val);
		break;
	case APIC_SELF_IPI:
		lapic_send_ipi(l, (u64)TO_SELF << 18 | (val & 0xff));
		break;
	default:
		pthread_mutex_lock(&l->lock);
		write_state(l, reg, (u32)val);
		pthread_mutex_unlock(&l->lock);
	}
}

/* ---- xAPIC ---- */

static void bad_register(struct um_lapic *l)
{
	pthread_mutex_lock(&l->lock);
	lapic_error(l, ESR_REGISTER);
	pthread_mutex_unlock(&l->lock);
}

/*
 * Whether the access is ours at all.  *@live: and the page shows the registers; otherwise it reads
 * as all ones and takes no writes.
 */
static bool page_hit(struct um_lapic *l, gpa_t gpa, bool *live)
{
	u64 base = load_relaxed(&l->base);

	if (gpa - (base & UM_PAGE_MASK) >= UM_LAPIC_LEN)
		return false;
	*live = (base & APIC_BASE_ENABLE) && !(base & APIC_BASE_X2APIC);
	return *live || !(load_relaxed(&l->chip->quirks_off) & KVM_X86_QUIRK_LAPIC_MMIO_HOLE);
}

bool um_lapic_mmio_read(struct um_lapic *l, gpa_t gpa, unsigned len, void *data)
{
	u32 offset = gpa & (UM_LAPIC_LEN - 1), reg = offset & ~0xfu, val;
	bool live;

	if (!page_hit(l, gpa, &live))
		return false;
	if (!live) {
		memset(data, 0xff, len);
		return true;
	}
	memset(data, 0, len);
	/* Registers are 32 bits wide, in slots of 16 bytes; the rest of the slot reads as 0. */
	if ((offset & 0xf) + len > 4)
		return true;
	um_lapic_pv_eoi_exit(l);
	if (!(reg_access(l, reg, false) & RD)) {
		if (!reg_access(l, reg, false))
			bad_register(l);
		return true;
	}
	pthread_mutex_lock(&l->lock);
	val = read_reg(l, reg);
	pthread_mutex_unlock(&l->lock);
	memcpy(data, (u8 *)&val + (offset & 3), len);
	return true;
}

bool um_lapic_mmio_write(struct um_lapic *l, gpa_t gpa, unsigned len, const void *data)
{
	u32 offset = gpa & (UM_LAPIC_LEN - 1), val;
	u64 wide;
	bool live;

	if (!page_hit(l, gpa, &live))
		return false;
	/* Anything but an aligned 32-bit write has no defined effect, and here none. */
	if (!live || len != 4 || (offset & 0xf))
		return true;
	memcpy(&val, data, sizeof(val));
	um_lapic_pv_eoi_exit(l);
	if (!(reg_access(l, offset, false) & WR)) {
		if (!reg_access(l, offset, false))
			bad_register(l);
		return true;
	}
	wide = val;
	if (offset == APIC_ICR)
		wide |= (u64)reg_get(l, APIC_ICR2) << 32;
	write_reg(l, offset, wide);
	return true;
}

/* ---- x2APIC ---- */

static bool msr_reg(u32 msr, u32 *reg)
{
	if (msr < MSR_X2APIC_BASE || msr - MSR_X2APIC_BASE >= APIC_NR_REGS)
		return false;
	*reg = (msr - MSR_X2APIC_BASE) << 4;
	return true;
}

bool um_lapic_msr_read(struct um_lapic *l, u32 msr, u64 *val)
{
	u32 reg;

	if (!lapic_x2apic(l) || !msr_reg(msr, &reg) || !(reg_access(l, reg, true) & RD))
		return false;
	um_lapic_pv_eoi_exit(l);
	pthread_mutex_lock(&l->lock);
	*val = read_reg(l, reg);
	if (reg == APIC_ICR)
		*val |= (u64)reg_get(l, APIC_ICR2) << 32;
	pthread_mutex_unlock(&l->lock);
	return true;
}

bool um_lapic_msr_write(struct um_lapic *l, u32 msr, u64 val)
{
	u32 reg;

	if (!lapic_x2apic(l) || !msr_reg(msr, &reg) || !(reg_access(l, reg, true) & WR))
		return false;
	if (reg != APIC_ICR && val >> 32)
		return false;
	/* These take only a zero, and only a vector. */
	if ((reg == APIC_EOI || reg == APIC_ESR) && val)
		return false;
	if (reg == APIC_SELF_IPI && val > 0xff)
		return false;
	um_lapic_pv_eoi_exit(l);
	write_reg(l, reg, val);
	return true;
}

/* ---- Hyper-V's MSRs ---- */

bool um_lapic_hv_read(struct um_lapic *l, u32 offset, u64 *val)
{
	if (offset != UM_LAPIC_TPR && offset != UM_LAPIC_ICR)
		return false;
	um_lapic_pv_eoi_exit(l);
	pthread_mutex_lock(&l->lock);
	*val = read_reg(l, offset);
	if (offset == UM_LAPIC_ICR)
		*val |= (u64)reg_get(l, APIC_ICR2) << 32;
	pthread_mutex_unlock(&l->lock);
	return true;
}

bool um_lapic_hv_write(struct um_lapic *l, u32 offset, u64 val)
{
	if (offset != UM_LAPIC_TPR && offset != UM_LAPIC_ICR && offset != UM_LAPIC_EOI)
		return false;
	um_lapic_pv_eoi_exit(l);
	write_reg(l, offset, val);
	return true;
}

/* ---- IA32_APIC_BASE and CR8 ---- */

u64 um_lapic_get_base(struct um_lapic *l)
{
	return load_relaxed(&l->base);
}

bool um_lapic_set_base(struct um_lapic *l, u64 val, bool host)
{
	const u64 mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;
	u64 old = load_relaxed(&l->base);
	u64 reserved = 0x2ff | ~GENMASK(l->maxphyaddr - 1, 0);

	if (!l->has_x2apic)
		reserved |= APIC_BASE_X2APIC;
	if ((val & reserved) || (val & mode) == APIC_BASE_X2APIC)
		return false;
	if (!host) {
		/* x2APIC is entered from xAPIC only, and left to disabled only. */
		if ((old & mode) == mode && (val & mode) == APIC_BASE_ENABLE)
			return false;
		if (!(old & APIC_BASE_ENABLE) && (val & mode) == mode)
			return false;
	}
	um_lapic_pv_eoi_exit(l);
	pthread_mutex_lock(&l->lock);
	store_relaxed(&l->base, val);
	if (((old ^ val) & mode) && (val & APIC_BASE_ENABLE)) {
		lapic_set_mode_id(l);
		/* ICR's upper half has another format. */
		if ((old ^ val) & APIC_BASE_X2APIC)
			reg_set(l, APIC_ICR2, 0);
	}
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
	um_trace(l->chip->trace, irq, "lapic %u: base 0x%llx", l->vcpu_id, (unsigned long long)val);
	return true;
}

u8 um_lapic_get_cr8(struct um_lapic *l)
{
	return reg_get(l, APIC_TPR) >> 4 & 0xf;
}

void um_lapic_set_cr8(struct um_lapic *l, u8 cr8)
{
	u32 tpr = (u32)(cr8 & 0xf) << 4;

	if (reg_get(l, APIC_TPR) == tpr)
		return;
	pthread_mutex_lock(&l->lock);
	reg_set(l, APIC_TPR, tpr);
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
}

/* ---- KVM_GET_LAPIC, KVM_SET_LAPIC ---- */

/*
 * The id in x2APIC mode: all 32 bits if the VMM asked for them with KVM_CAP_X2APIC_API, otherwise
 * the low 8 in the place where xAPIC has them.
 */
static u32 id_to_user(struct um_lapic *l, u32 id)
{
	if (!lapic_x2apic(l) || (load_relaxed(&l->chip->x2apic_api) & KVM_X2APIC_API_USE_32BIT_IDS))
		return id;
	return id << 24;
}

void um_lapic_get_state(struct um_lapic *l, struct kvm_lapic_state *s)
{
	u32 count;

	um_lapic_pv_eoi_exit(l);
	memset(s, 0, sizeof(*s));
	pthread_mutex_lock(&l->lock);
	count = lapic_timer_save(l); /* before IRR is read */
	for (u32 reg = 0; reg < KVM_APIC_REG_SIZE; reg += 16) {
		u32 val = reg == APIC_ID ? id_to_user(l, reg_get(l, reg)) : read_reg(l, reg);

		memcpy(s->regs + reg, &val, sizeof(val));
	}
	memcpy(s->regs + APIC_TMCCT, &count, sizeof(count));
	pthread_mutex_unlock(&l->lock);
}

int um_lapic_set_state(struct um_lapic *l, const struct kvm_lapic_state *s)
{
	u32 regs[APIC_NR_REGS], version;

	for (u32 i = 0; i < APIC_NR_REGS; i++)
		memcpy(&regs[i], s->regs + i * 16, sizeof(u32));
	if (lapic_x2apic(l)) {
		if (regs[APIC_ID >> 4] != id_to_user(l, l->vcpu_id))
			return -EINVAL;
		regs[APIC_ID >> 4] = l->vcpu_id;
		regs[APIC_LDR >> 4] = (l->vcpu_id >> 4) << 16 | 1u << (l->vcpu_id & 15);
	} else if (regs[APIC_ID >> 4] != l->vcpu_id << 24) {
		store_relaxed(&l->chip->ids_changed, true);
	}
	um_lapic_pv_eoi_exit(l);
	pthread_mutex_lock(&l->lock);
	version = reg_get(l, APIC_VERSION);
	/*
	 * Everything stands as saved: LINT0 may be open although the LAPIC is disabled, as after
	 * reset. A TSC deadline is set by its MSR, which follows; one that is armed stays.
	 */
	for (u32 i = 0; i < APIC_NR_REGS; i++)
		store_relaxed(&l->regs[i], regs[i]);
	reg_set(l, APIC_VERSION, version);
	l->esr = 0;
	lapic_timer_restore(l);
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Control and debug registers, and the TLB instructions (SDM vol. 2: MOV CRn, MOV DRn, LMSW, SMSW,
 * CLTS, INVLPG, INVPCID; vol. 3 2.5, 4.1, 9.8.5, 17.2).
 *
 * A write is: privilege, reserved bits, combinations, PDPTEs (all may raise #GP and change
 * nothing), then the register, then whoever derives from it: the MMU first, um_sync_mode() last.
 */
#include "cpu/cpuid.h"
#include "engine/system/system.h"

/*
 * PAE paging (not IA-32e) with these register values: MOV CR loads the PDPTEs (SDM vol. 3 4.4.1).
 */
static bool is_pae(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

static bool load_pdptrs(struct um_exec *x, u64 cr3)
{
	u64 pdptr[4];

	/* Reserved bits set, or nothing there, which reads as all ones. */
	if (um_mmu_load_pdptrs(x->mmu, cr3, pdptr))
		return um_sys_gp0(x);
	__builtin_memcpy(x->cpu.pdptr, pdptr, sizeof(pdptr));
	return true;
}

/* IA-32e mode goes with paging: may CR0 become @cr0? */
static bool check_long_mode(struct um_exec *x, u64 cr0, u64 *efer)
{
	const struct um_cpu *c = &x->cpu;

	*efer = c->efer;
	if (!((cr0 ^ c->cr0) & CR0_PG))
		return true;
	if (!(cr0 & CR0_PG)) {
		if (um_cpu_64bit(c) || (c->cr4 & CR4_PCIDE))
			return um_sys_gp0(x);
		*efer &= ~EFER_LMA;
		return true;
	}
	if (!(c->efer & EFER_LME))
		return true;
	/* PAE must be on; CS must not become 64-bit code at once; no 16-bit TSS (9.8.5). */
	if (!(c->cr4 & CR4_PAE) || c->seg[UM_CS].l ||
	    (!SEL_IS_NULL(c->tr.selector) && !(c->tr.type & 8)))
		return um_sys_gp0(x);
	*efer |= EFER_LMA;
	return true;
}

bool um_sys_set_cr0(struct um_exec *x, u64 v)
{
	struct um_cpu *c = &x->cpu;
	u64 old = c->cr0, efer, changed;

	if (v >> 32)
		return um_sys_gp0(x);
	v = (v & CR0_DEFINED) | CR0_ET; /* other bits are ignored */
	if (((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
		return um_sys_gp0(x);
	if (!check_long_mode(x, v, &efer))
		return false;
	changed = old ^ v;
	if (is_pae(v, c->cr4, efer) && (changed & (CR0_PG | CR0_CD | CR0_NW)) &&
	    !load_pdptrs(x, c->cr3))
		return false;

	c->cr0 = v;
	c->efer = efer;
	if (changed & CR0_PE)
		c->cpl = 0;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		um_mmu_reset_context(x->mmu);
	if (changed & ~(CR0_TS | CR0_MP | CR0_EM | CR0_NE))
		um_sync_mode(x);
	um_trace(x->trace, cr, "cr0 %#lx -> %#lx", (unsigned long)old, (unsigned long)v);
	return true;
}

static bool set_cr3(struct um_exec *x, u64 v)
{
	struct um_cpu *c = &x->cpu;
	bool keep = false;

	if (x->mode == UM_MODE_64) {
		if (c->cr4 & CR4_PCIDE) {
			keep = v & CR3_NOFLUSH;
			v &= ~CR3_NOFLUSH;
		}
		if (v & ~GENMASK(c->maxphyaddr - 1, 0))
			return um_sys_gp0(x);
	}
	if (is_pae(c->cr0, c->cr4, c->efer) && !load_pdptrs(x, v))
		return false;
	c->cr3 = v;
	um_mmu_new_cr3(x->mmu, !keep);
	um_sync_priv(x); /* the TLB's context numbers */
	return true;
}

static bool set_cr4(struct um_exec *x, u64 v)
{
	struct um_cpu *c = &x->cpu;
	u64 old = c->cr4, changed = old ^ v;

	if (v & ~c->cr4_allowed)
		return um_sys_gp0(x);
	if (um_cpu_long_mode(c) && ((changed & CR4_LA57) || !(v & CR4_PAE)))
		return um_sys_gp0(x);
	if ((changed & v & CR4_PCIDE) && (!um_cpu_long_mode(c) || (c->cr3 & CR3_PCID)))
		return um_sys_gp0(x);
	if (is_pae(c->cr0, v, c->efer) && (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP)) &&
	    !load_pdptrs(x, c->cr3))
		return false;

	c->cr4 = v;
	if (changed &
	    (CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE))
		um_mmu_reset_context(x->mmu);
	um_sync_mode(x);
	um_trace(x->trace, cr, "cr4 %#lx -> %#lx", (unsigned long)old, (unsigned long)v);
	return true;
}

const struct um_insn *um_sysop_mov_to_cr(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 v = c->gpr[i->reg[1] / 8], next = um_next_rip(x, i);
	unsigned cr = i->reg[0];
	bool ok;

	if (cr != 0 && cr != 2 && cr != 3 && cr != 4 && cr != 8)
		return um_sys_stop_ud(x, i);
	if (c->cpl)
		return um_sys_stop_gp0(x, i);
	if (x->mode != UM_MODE_64)
		v = (u32)v;
	switch (cr) {
	case 0:
		ok = um_sys_set_cr0(x, v);
		break;
	case 2:
		c->cr2 = v;
		ok = true;
		break;
	case 3:
		ok = set_cr3(x, v);
		break;
	case 4:
		ok = set_cr4(x, v);
		break;
	default:
		x->exit.reg = i->reg[1] / 8;
		return um_sys_exit(x, i, UM_EXIT_CR8_WRITE);
	}
	if (!ok)
		return um_stop(x, i);
	c->rip = next;
	return NULL;
}

const struct um_insn *um_sysop_mov_from_cr(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 v;

	switch (i->reg[1]) {
	case 0:
		v = c->cr0;
		break;
	case 2:
		v = c->cr2;
		break;
	case 3:
		v = c->cr3;
		break;
	case 4:
		v = c->cr4;
		break;
	case 8:
		if (c->cpl)
			return um_sys_stop_gp0(x, i);
		x->exit.reg = i->reg[0] / 8;
		return um_sys_exit(x, i, UM_EXIT_CR8_READ);
	default:
		return um_sys_stop_ud(x, i);
	}
	if (c->cpl)
		return um_sys_stop_gp0(x, i);
	c->gpr[i->reg[0] / 8] = x->mode == UM_MODE_64 ? v : (u32)v;
	return um_end(x, i);
}

/*
 * The checks that reading and writing debug registers share (SDM vol. 3 17.2): which register @n
 * is, or #UD, #GP(0), or #DB because DR7.GD guards them all.
 */
static bool check_dr(struct um_exec *x, unsigned n, unsigned *dr)
{
	struct um_cpu *c = &x->cpu;

	*dr = n;
	if (n == 4 || n == 5) {
		if (c->cr4 & CR4_DE)
			return um_raise(x, UM_VEC_UD);
		*dr = n + 2;
	} else if (n > 7) {
		return um_raise(x, UM_VEC_UD);
	}
	if (c->cpl)
		return um_sys_gp0(x);
	if ((x->use_guest_dr ? x->guest_dr7 : c->dr7) & DR7_GD) {
		um_raise(x, UM_VEC_DB);
		x->exit.exc.payload = DR6_BD;
		return false;
	}
	return true;
}

const struct um_insn *um_sysop_mov_to_dr(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 v = c->gpr[i->reg[1] / 8];
	unsigned dr;

	if (!check_dr(x, i->reg[0], &dr))
		return um_stop(x, i);
	if (x->mode != UM_MODE_64)
		v = (u32)v;
	if (dr >= 6 && v >> 32)
		return um_sys_stop_gp0(x, i);
	if (dr == 6) {
		c->dr6 = (v & (0xf | DR6_BD | DR6_BS | DR6_BT)) | DR6_FIXED1;
		return um_end(x, i);
	}
	if (dr == 7)
		c->dr7 = (v & (0xffff0000 | DR7_GD | 0x3ff)) | DR7_FIXED1;
	else
		c->dr[dr] = v;
	um_mmu_rights_changed(x->mmu);
	um_sync_priv(x);
	um_sync_special(x);
	return um_end(x, i);
}

const struct um_insn *um_sysop_mov_from_dr(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	unsigned dr;
	u64 v;

	if (!check_dr(x, i->reg[1], &dr))
		return um_stop(x, i);
	v = dr == 6 ? c->dr6 : dr == 7 ? c->dr7 : c->dr[dr];
	c->gpr[i->reg[0] / 8] = x->mode == UM_MODE_64 ? v : (u32)v;
	return um_end(x, i);
}

const struct um_insn *um_sysop_lmsw(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 next = um_next_rip(x, i);
	u16 v;

	if (c->cpl)
		return um_sys_stop_gp0(x, i);
	/* PE, MP, EM, TS; PE can be set, not cleared. */
	if (!um_sys_get16(x, i, 0, &v) || !um_sys_set_cr0(x, (c->cr0 & ~0xeull) | (v & 0xf)))
		return um_stop(x, i);
	c->rip = next;
	return NULL;
}

const struct um_insn *um_sysop_smsw(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;

	if (c->cpl && (c->cr4 & CR4_UMIP))
		return um_sys_stop_gp0(x, i);
	if (!um_sys_put_word(x, i, c->cr0))
		return um_stop(x, i);
	return um_end(x, i);
}

const struct um_insn *um_sysop_clts(struct um_exec *x, const struct um_insn *i)
{
	if (x->cpu.cpl)
		return um_sys_stop_gp0(x, i);
	x->cpu.cr0 &= ~CR0_TS;
	return um_end(x, i);
}

const struct um_insn *um_sysop_invlpg(struct um_exec *x, const struct um_insn *i)
{
	gva_t gva = (um_ea(x, i) + x->seg_base[i->seg]) & x->lin_mask;

	if (x->cpu.cpl)
		return um_sys_stop_gp0(x, i);
	/* No segment checks; a non-canonical address does nothing (SDM vol. 2 INVLPG). */
	if (x->mode != UM_MODE_64 || um_sys_canonical(&x->cpu, gva)) {
		um_mmu_invlpg(x->mmu, gva);
		um_sync_priv(x);
	}
	return um_end(x, i);
}

const struct um_insn *um_sysop_invpcid(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 type = c->gpr[i->reg[0] / 8];
	u64 d[2]; /* PCID, linear address */

	if (!um_cpu_has(c, UM_F_INVPCID))
		return um_sys_stop_ud(x, i);
	if (c->cpl)
		return um_sys_stop_gp0(x, i);
	if (x->mode != UM_MODE_64)
		type = (u32)type;
	if (!um_sys_load(x, i, d, sizeof(d)))
		return um_stop(x, i);
	if (type > 3 || d[0] >> 12 || (type == 0 && !um_sys_canonical(c, d[1])) ||
	    (type <= 1 && d[0] && !(c->cr4 & CR4_PCIDE)))
		return um_sys_stop_gp0(x, i);
	um_mmu_invpcid(x->mmu, type, d[0], d[1]);
	um_sync_priv(x);
	return um_end(x, i);
}

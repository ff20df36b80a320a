// SPDX-License-Identifier: MIT
/*
 * Asking about selectors without loading them (SDM vol. 2: LAR, LSL, VERR, VERW, ARPL).  The answer
 * is in ZF; what would be a protection fault is ZF = 0, but a page fault on a table is one.
 */
#include "engine/system/system.h"

static void put_zf(struct um_exec *x, bool zf)
{
	um_set_status(x, (um_status(x) & ~RFLAGS_ZF) | (zf ? RFLAGS_ZF : 0));
}

/* May the present CPL and the selector's RPL see the segment?  Conforming code is for all. */
static bool visible(const struct um_cpu *c, u16 sel, u64 d)
{
	return um_desc_is_conforming(d) || um_max(c->cpl, SEL_RPL(sel)) <= um_desc_dpl(d);
}

/*
 * System descriptor types that LAR and LSL know, as bits: SDM vol. 2 tables 3-50 (LAR), 3-56 (LSL).
 */
#define T(name)	   (1u << UM_SYS_##name)
#define LSL_LONG   (T(LDT) | T(TSS_AVAIL) | T(TSS_BUSY))
#define LSL_LEGACY (LSL_LONG | T(TSS16_AVAIL) | T(TSS16_BUSY))
#define LAR_LONG   (LSL_LONG | T(CALLGATE))
#define LAR_LEGACY (LSL_LEGACY | T(CALLGATE) | T(CALLGATE16) | T(TASKGATE))

static const struct um_insn *describe(struct um_exec *x, const struct um_insn *i, bool lsl)
{
	const struct um_cpu *c = &x->cpu;
	unsigned types =
		um_cpu_long_mode(c) ? (lsl ? LSL_LONG : LAR_LONG) : (lsl ? LSL_LEGACY : LAR_LEGACY);
	struct um_sys_desc d;
	bool found = false;
	u16 sel;

	if (um_sys_not_protected(x))
		return um_sys_stop_ud(x, i);
	if (!um_sys_get16(x, i, 1, &sel))
		return um_stop(x, i);
	if (!SEL_IS_NULL(sel) && !um_sys_desc_find(x, sel, &d, &found))
		return um_stop(x, i);
	if (found && !um_desc_s(d.lo))
		found = types >> um_desc_type(d.lo) & 1;
	if (found && visible(c, sel, d.lo)) {
		um_sys_put_gpr(x, i->reg[0] / 8,
			       lsl ? um_desc_limit(d.lo) : (d.lo >> 32) & 0x00f0ff00, i->osz);
		put_zf(x, true);
	} else {
		put_zf(x, false);
	}
	return um_end(x, i);
}

const struct um_insn *um_sysop_lar(struct um_exec *x, const struct um_insn *i)
{
	return describe(x, i, false);
}

const struct um_insn *um_sysop_lsl(struct um_exec *x, const struct um_insn *i)
{
	return describe(x, i, true);
}

static const struct um_insn *verify(struct um_exec *x, const struct um_insn *i, bool write)
{
	struct um_sys_desc d;
	bool found = false;
	u16 sel;

	if (um_sys_not_protected(x))
		return um_sys_stop_ud(x, i);
	if (!um_sys_get16(x, i, 0, &sel))
		return um_stop(x, i);
	if (!SEL_IS_NULL(sel) && !um_sys_desc_find(x, sel, &d, &found))
		return um_stop(x, i);
	put_zf(x, found && (write ? um_desc_is_writable(d.lo) : um_desc_is_readable(d.lo)) &&
			  visible(&x->cpu, sel, d.lo));
	return um_end(x, i);
}

const struct um_insn *um_sysop_verr(struct um_exec *x, const struct um_insn *i)
{
	return verify(x, i, false);
}

const struct um_insn *um_sysop_verw(struct um_exec *x, const struct um_insn *i)
{
	return verify(x, i, true);
}

const struct um_insn *um_sysop_arpl(struct um_exec *x, const struct um_insn *i)
{
	u16 src = x->cpu.gpr[i->reg[1] / 8], dst;
	u64 *r = &x->cpu.gpr[i->reg[0] / 8];
	struct um_rmw m;
	enum um_rmw_result done;
	bool raise;

	if (um_sys_not_protected(x))
		return um_sys_stop_ud(x, i);
	if (i->kind[0] != UM_OPD_MEM) {
		raise = SEL_RPL(*r) < SEL_RPL(src);
		if (raise)
			*r = (*r & ~3ull) | SEL_RPL(src);
		put_zf(x, raise);
		return um_end(x, i);
	}
	if (!um_rmw_begin(x, i, um_ea(x, i), 2, false, &m))
		return um_stop(x, i);
	dst = m.old;
	raise = SEL_RPL(dst) < SEL_RPL(src);
	done = um_rmw_commit(x, &m, raise ? (dst & ~3u) | SEL_RPL(src) : dst);
	if (done != UM_RMW_DONE)
		return um_stop(x, i);
	put_zf(x, raise);
	return um_end(x, i);
}

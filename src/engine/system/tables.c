// SPDX-License-Identifier: MIT
/*
 * Descriptor-table registers (SDM vol. 2: LGDT, LIDT, SGDT, SIDT, LLDT, SLDT, LTR, STR).
 *
 * The stores are refused outside of CPL 0 if CR4.UMIP is set.
 */
#include <string.h>

#include "engine/system/system.h"

static bool umip(const struct um_cpu *c)
{
	return c->cpl && (c->cr4 & CR4_UMIP);
}

static const struct um_insn *load_table(struct um_exec *x, const struct um_insn *i,
					struct um_dtable *t)
{
	bool l = x->mode == UM_MODE_64;
	u64 base = 0;
	u16 limit;
	u8 p[10];

	if (x->cpu.cpl)
		return um_sys_stop_gp0(x, i);
	if (!um_sys_load(x, i, p, l ? 10 : 6))
		return um_stop(x, i);
	memcpy(&limit, p, 2);
	memcpy(&base, p + 2, l ? 8 : 4);
	if (!l && i->osz == 2) /* the 80286's 24 bits */
		base &= 0xffffff;
	if (l && !um_sys_canonical(&x->cpu, base))
		return um_sys_stop_gp0(x, i);
	*t = (struct um_dtable){ .base = base, .limit = limit };
	return um_end(x, i);
}

static const struct um_insn *store_table(struct um_exec *x, const struct um_insn *i,
					 const struct um_dtable *t)
{
	u8 p[10];

	if (umip(&x->cpu))
		return um_sys_stop_gp0(x, i);
	memcpy(p, &t->limit, 2);
	memcpy(p + 2, &t->base, 8);
	if (!um_sys_store(x, i, p, x->mode == UM_MODE_64 ? 10 : 6))
		return um_stop(x, i);
	return um_end(x, i);
}

const struct um_insn *um_sysop_lgdt(struct um_exec *x, const struct um_insn *i)
{
	return load_table(x, i, &x->cpu.gdt);
}

const struct um_insn *um_sysop_lidt(struct um_exec *x, const struct um_insn *i)
{
	return load_table(x, i, &x->cpu.idt);
}

const struct um_insn *um_sysop_sgdt(struct um_exec *x, const struct um_insn *i)
{
	return store_table(x, i, &x->cpu.gdt);
}

const struct um_insn *um_sysop_sidt(struct um_exec *x, const struct um_insn *i)
{
	return store_table(x, i, &x->cpu.idt);
}

/*
 * The descriptor for LLDT and LTR: in the GDT, 16 bytes in IA-32e mode.  Type is the caller's
 * check.
 */
static bool read_system(struct um_exec *x, u16 sel, struct um_sys_desc *d)
{
	if (SEL_TI(sel))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	if (!um_sys_desc_read(x, sel, UM_VEC_GP, 0, d))
		return false;
	if (um_desc_s(d->lo) || (d->hi >> 40 & 0x1f))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	return true;
}

static bool check_base(struct um_exec *x, u16 sel, const struct um_segment *s)
{
	if (!um_cpu_long_mode(&x->cpu) || um_sys_canonical(&x->cpu, s->base))
		return true;
	return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
}

static bool load_ldt(struct um_exec *x, u16 sel)
{
	struct um_sys_desc d;
	struct um_segment s;

	if (SEL_IS_NULL(sel)) {
		x->cpu.ldt = um_segment_null(sel, 0);
		return true;
	}
	if (!read_system(x, sel, &d))
		return false;
	if (um_desc_type(d.lo) != UM_SYS_LDT)
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
	s = um_segment_unpack(sel, d.lo, d.hi);
	if (!check_base(x, sel, &s))
		return false;
	x->cpu.ldt = s;
	return true;
}

static bool load_tr(struct um_exec *x, u16 sel)
{
	struct um_sys_desc d;
	struct um_segment s;
	unsigned type;

	if (SEL_IS_NULL(sel))
		return um_sys_gp0(x);
	if (!read_system(x, sel, &d))
		return false;
	type = um_desc_type(d.lo);
	if (type != UM_SYS_TSS_AVAIL && (type != UM_SYS_TSS16_AVAIL || um_cpu_long_mode(&x->cpu)))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
	s = um_segment_unpack(sel, d.lo, d.hi);
	if (!check_base(x, sel, &s) || !um_sys_desc_set_busy(x, &d, true, 0))
		return false;
	s.type = um_desc_type(d.lo);
	x->cpu.tr = s;
	return true;
}

static const struct um_insn *load_selector(struct um_exec *x, const struct um_insn *i,
					   bool (*load)(struct um_exec *, u16))
{
	u16 sel;

	if (um_sys_not_protected(x))
		return um_sys_stop_ud(x, i);
	if (x->cpu.cpl)
		return um_sys_stop_gp0(x, i);
	if (!um_sys_get16(x, i, 0, &sel) || !load(x, sel))
		return um_stop(x, i);
	return um_end(x, i);
}

static const struct um_insn *store_selector(struct um_exec *x, const struct um_insn *i, u16 sel)
{
	if (um_sys_not_protected(x))
		return um_sys_stop_ud(x, i);
	if (umip(&x->cpu))
		return um_sys_stop_gp0(x, i);
	if (!um_sys_put_word(x, i, sel))
		return um_stop(x, i);
	return um_end(x, i);
}

const struct um_insn *um_sysop_lldt(struct um_exec *x, const struct um_insn *i)
{
	return load_selector(x, i, load_ldt);
}

const struct um_insn *um_sysop_ltr(struct um_exec *x, const struct um_insn *i)
{
	return load_selector(x, i, load_tr);
}

const struct um_insn *um_sysop_sldt(struct um_exec *x, const struct um_insn *i)
{
	return store_selector(x, i, x->cpu.ldt.selector);
}

const struct um_insn *um_sysop_str(struct um_exec *x, const struct um_insn *i)
{
	return store_selector(x, i, x->cpu.tr.selector);
}

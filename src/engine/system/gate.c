// SPDX-License-Identifier: MIT
/*
 * Call gates (SDM vol. 3 5.8.3-5.8.5; vol. 2 CALL and JMP).
 *
 * To the same privilege a gate is an indirect far transfer.  A CALL to inner privilege takes a new
 * stack from the TSS, and builds there: SS:ESP of the caller, a copy of its parameters (not in
 * IA-32e mode), CS:EIP.
 */
#include "engine/system/system.h"

/* The code segment that the gate names. @inner: a CALL may go to more privilege. */
static bool gate_code(struct um_exec *x, u16 sel, bool call, struct um_segment *cs, bool *inner)
{
	const struct um_cpu *c = &x->cpu;
	bool conforming, bad;
	struct um_sys_desc d;
	unsigned dpl;

	if (SEL_IS_NULL(sel))
		return um_sys_gp0(x);
	if (!um_sys_desc_read(x, sel, UM_VEC_GP, 0, &d))
		return false;
	dpl = um_desc_dpl(d.lo);
	conforming = um_desc_is_conforming(d.lo);
	bad = !um_desc_is_code(d.lo) || dpl > c->cpl || (!call && !conforming && dpl != c->cpl);
	if (um_cpu_long_mode(c)) /* only 64-bit code */
		bad |= !um_desc_l(d.lo) || um_desc_db(d.lo);
	if (bad)
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
	if (!um_sys_desc_accessed(x, &d, 0))
		return false;
	*inner = call && !conforming && dpl < c->cpl;
	*cs = um_segment_unpack((sel & ~3u) | (*inner ? dpl : c->cpl), d.lo, 0);
	return true;
}

/* CALL to inner privilege. */
static bool call_inner(struct um_exec *x, const struct um_sys_desc *d, const struct um_segment *cs,
		       u64 rip, unsigned size, u64 ret)
{
	struct um_cpu *c = &x->cpu;
	unsigned n = 0, params = size == 8 ? 0 : um_gate_params(d->lo);
	unsigned cpl = SEL_RPL(cs->selector);
	struct um_segment ss;
	struct um_sys_stack st;
	u64 frame[4 + 31];

	if (size == 8) {
		ss = um_segment_null(cpl, cpl);
		st = (struct um_sys_stack){ .mask = ~0ull, .priv = um_sys_priv(c, cpl, c->rflags) };
		if (!um_sys_tss64_rsp(x, cpl, 0, &st.sp))
			return false;
	} else if (!um_sys_tss_stack(x, cpl, 0, &ss, &st)) {
		return false;
	}
	if (!um_sys_check_rip(x, cs, rip, 0))
		return false;

	frame[n++] = ret;
	frame[n++] = c->seg[UM_CS].selector;
	for (unsigned k = 0; k < params; k++)
		if (!um_stack_peek(x, k * size, &frame[n++], size))
			return false;
	frame[n++] = c->gpr[UM_RSP];
	frame[n++] = c->seg[UM_SS].selector;
	if (!um_sys_push_frame(x, &st, frame, n, size))
		return false;

	c->seg[UM_SS] = ss;
	c->seg[UM_CS] = *cs;
	c->gpr[UM_RSP] = st.sp;
	c->rip = rip;
	c->cpl = cpl;
	return true;
}

bool um_sys_call_gate(struct um_exec *x, u16 sel, const struct um_sys_desc *d, bool call, u64 ret)
{
	struct um_cpu *c = &x->cpu;
	unsigned size = um_cpu_long_mode(c) ? 8 : um_desc_type(d->lo) == UM_SYS_CALLGATE ? 4 : 2;
	u64 frame[] = { ret, c->seg[UM_CS].selector };
	struct um_sys_stack st;
	struct um_segment cs;
	bool inner = false;
	u64 rip;

	if (um_desc_dpl(d->lo) < c->cpl || SEL_RPL(sel) > um_desc_dpl(d->lo))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	/* The type field of the upper half must be zero: it would be another descriptor. */
	if (size == 8 && (d->hi >> 40 & 0x1f))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	if (!um_desc_present(d->lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
	if (!gate_code(x, um_gate_selector(d->lo), call, &cs, &inner))
		return false;
	rip = um_gate_offset(d->lo);
	if (size == 2)
		rip = (u16)rip;
	else if (size == 8)
		rip |= d->hi << 32;
	if (inner)
		return call_inner(x, d, &cs, rip, size, ret);

	if (!um_sys_check_rip(x, &cs, rip, 0))
		return false;
	if (call) {
		st = um_sys_current_stack(c, 0);
		/* A gate in IA-32e mode always leads to 64-bit mode, whose stack is flat. */
		if (size == 8) {
			st.ss = NULL;
			st.mask = ~0ull;
		}
		if (!um_sys_push_frame(x, &st, frame, 2, size))
			return false;
		c->gpr[UM_RSP] = st.sp;
	}
	c->seg[UM_CS] = cs;
	c->rip = rip;
	return true;
}

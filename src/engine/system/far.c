// SPDX-License-Identifier: MIT
/*
 * Far JMP, CALL and RET to code segments (SDM vol. 2, the instructions' operation sections; vol. 3
 * 5.8), and the stacks that they and events build frames on.  Call gates are in gate.c, tasks in
 * task.c.
 *
 * Each transfer first does all checks and all memory accesses, with the new state in local
 * variables, and then commits.
 */
#include <string.h>

#include "engine/system/system.h"

/* ---- stacks ---- */

struct um_sys_stack um_sys_current_stack(const struct um_cpu *c, u32 ext)
{
	bool l = um_cpu_64bit(c);

	return (struct um_sys_stack){
		.ss = l ? NULL : &c->seg[UM_SS],
		.sp = c->gpr[UM_RSP],
		.mask = l ? ~0ull : um_sys_sp_mask(&c->seg[UM_SS]),
		.priv = um_sys_priv(c, c->cpl, c->rflags),
		.align = c->cpl == 3 && (c->cr0 & CR0_AM) && (c->rflags & RFLAGS_AC),
		.err = ext,
	};
}

/* The checks of one access to the stack, and its linear address. */
static bool stack_linear(struct um_exec *x, const struct um_sys_stack *st, u64 sp, unsigned len,
			 gva_t *gva)
{
	const struct um_cpu *c = &x->cpu;

	if (!st->ss) {
		if (!um_sys_canonical(c, sp) || !um_sys_canonical(c, sp + len - 1))
			return um_raise_code(x, UM_VEC_SS, st->err);
		*gva = sp;
		return true;
	}
	if ((c->cr0 & CR0_PE) ? !um_segment_holds(st->ss, sp, len) : sp + len - 1 > st->ss->limit)
		return um_raise_code(x, UM_VEC_SS, st->err);
	*gva = (u32)(st->ss->base + sp);
	return true;
}

bool um_sys_push_frame(struct um_exec *x, struct um_sys_stack *st, const u64 *v, unsigned n,
		       unsigned size)
{
	unsigned len = n * size;
	u64 bottom = (st->sp - len) & st->mask;
	u8 image[40 * 8]; /* a call gate copies up to 31 parameters */
	gva_t gva;

	if (unlikely(len > sizeof(image)))
		return um_internal(x, "stack frame too large");
	if (size == 8 && !st->ss &&
	    likely(um_sys_put_words(x, bottom, v, n, x->tlb->ctx[st->priv] & x->ctx_mask))) {
		st->sp = bottom;
		return true;
	}
	if (st->align && (bottom & (size - 1)))
		return um_raise_code(x, UM_VEC_AC, 0);
	for (unsigned k = 0; k < n; k++)
		memcpy(image + k * size, &v[k], size);

	if (likely((st->sp & st->mask) >= len || (st->sp & st->mask) == 0)) {
		unsigned head;

		if (!stack_linear(x, st, bottom, len, &gva))
			return false;
		head = um_sys_head(gva, len);
		if (unlikely(head != len) &&
		    !um_priv_write(x, st->priv, um_sys_next_gva(&x->cpu, gva, head), image + head,
				   len - head))
			return false;
		if (!um_priv_write(x, st->priv, gva, image, head))
			return false;
	} else {
		/* The stack pointer wraps within the frame: slot by slot, all checks first. */
		for (unsigned k = 0; k < n; k++)
			if (!stack_linear(x, st, (bottom + k * size) & st->mask, size, &gva))
				return false;
		for (unsigned k = n; k-- > 0;)
			if (!stack_linear(x, st, (bottom + k * size) & st->mask, size, &gva) ||
			    !um_priv_write(x, st->priv, gva, image + k * size, size))
				return false;
	}
	st->sp = um_sys_merge_sp(st->sp, bottom, st->mask);
	return true;
}

bool um_sys_tss_stack(struct um_exec *x, unsigned cpl, u32 ext, struct um_segment *ss,
		      struct um_sys_stack *st)
{
	const struct um_cpu *c = &x->cpu;
	bool tss32 = c->tr.type & 8;
	unsigned off = tss32 ? 4 + cpl * 8 : 2 + cpl * 4, len = tss32 ? 6 : 4;
	u8 p[6];
	u32 esp = 0;
	u16 sel;

	if (off + len - 1 > c->tr.limit)
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(c->tr.selector) | ext);
	if (!um_sys_table_read(x, c->tr.base + off, p, len, ext))
		return false;
	memcpy(&esp, p, len - 2);
	memcpy(&sel, p + len - 2, 2);
	if (!um_sys_check_ss(x, sel, cpl, UM_VEC_TS, ext, ss))
		return false;
	*st = (struct um_sys_stack){
		.ss = ss,
		.sp = esp,
		.mask = um_sys_sp_mask(ss),
		.priv = um_sys_priv(c, cpl, c->rflags),
		.err = SEL_ERR(sel) | ext,
	};
	return true;
}

bool um_sys_tss64_rsp(struct um_exec *x, unsigned slot, u32 ext, u64 *rsp)
{
	const struct um_cpu *c = &x->cpu;
	unsigned off = 4 + slot * 8;

	if (off + 7 > c->tr.limit)
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(c->tr.selector) | ext);
	if (!um_sys_table_words(x, c->tr.base + off, rsp, 1, ext))
		return false;
	if (!um_sys_canonical(c, *rsp))
		return um_raise_code(x, UM_VEC_SS, ext);
	return true;
}

bool um_sys_check_rip(struct um_exec *x, const struct um_segment *cs, u64 rip, u32 ext)
{
	const struct um_cpu *c = &x->cpu;
	bool ok = um_cpu_long_mode(c) && cs->l ? um_sys_canonical(c, rip) : rip <= cs->limit;

	return ok || um_raise_code(x, UM_VEC_GP, ext);
}

/* ---- JMP and CALL ---- */

/* The far pointer of JMP or CALL: immediate or in memory. */
static bool far_pointer(struct um_exec *x, const struct um_insn *i, u16 *sel, u64 *off)
{
	u8 p[10];

	if (i->kind[0] == UM_OPD_FAR) {
		*off = um_trunc(i->imm, i->osz);
		*sel = i->imm2;
		return true;
	}
	if (!um_sys_load(x, i, p, i->osz + 2))
		return false;
	*off = 0;
	memcpy(off, p, i->osz);
	memcpy(sel, p + i->osz, 2);
	return true;
}

static bool far_real(struct um_exec *x, u16 sel, u64 off, bool call, unsigned osz, u64 ret)
{
	struct um_cpu *c = &x->cpu;
	struct um_sys_stack st = um_sys_current_stack(c, 0);
	u64 frame[] = { ret, c->seg[UM_CS].selector };

	if (off > (c->rflags & RFLAGS_VM ? 0xffff : c->seg[UM_CS].limit))
		return um_sys_gp0(x);
	if (call) {
		if (!um_sys_push_frame(x, &st, frame, 2, osz))
			return false;
		c->gpr[UM_RSP] = st.sp;
	}
	um_sys_load_real(c, UM_CS, sel);
	c->rip = off;
	return true;
}

/* Straight to a code segment: no change of privilege. */
static bool far_code(struct um_exec *x, u16 sel, struct um_sys_desc *d, u64 off, bool call,
		     unsigned osz, u64 ret)
{
	struct um_cpu *c = &x->cpu;
	struct um_sys_stack st = um_sys_current_stack(c, 0);
	u64 frame[] = { ret, c->seg[UM_CS].selector };
	unsigned dpl = um_desc_dpl(d->lo);
	struct um_segment cs;

	if (!um_desc_is_code(d->lo) ||
	    (um_desc_is_conforming(d->lo) ? dpl > c->cpl
					  : SEL_RPL(sel) > c->cpl || dpl != c->cpl) ||
	    (um_cpu_long_mode(c) && um_desc_l(d->lo) && um_desc_db(d->lo)))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	if (!um_desc_present(d->lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
	cs = um_segment_unpack((sel & ~3u) | c->cpl, d->lo | (u64)UM_DESC_ACCESSED << 40, 0);
	if (!um_sys_check_rip(x, &cs, off, 0) || !um_sys_desc_accessed(x, d, 0))
		return false;
	if (call) {
		if (!um_sys_push_frame(x, &st, frame, 2, osz))
			return false;
		c->gpr[UM_RSP] = st.sp;
	}
	c->seg[UM_CS] = cs;
	c->rip = off;
	return true;
}

/* A TSS or task gate as the target. */
static bool far_task(struct um_exec *x, u16 sel, struct um_sys_desc *d, bool call, u64 ret,
		     struct um_task_result *task)
{
	struct um_cpu *c = &x->cpu;
	unsigned dpl = um_desc_dpl(d->lo);

	if (dpl < c->cpl || dpl < SEL_RPL(sel))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	if (um_desc_type(d->lo) == UM_SYS_TASKGATE) {
		if (!um_desc_present(d->lo))
			return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
		sel = um_gate_selector(d->lo);
		if (!um_sys_task_gate(x, sel, 0, d))
			return false;
	} else {
		if (SEL_TI(sel))
			return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
		if (!um_desc_present(d->lo))
			return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
	}
	c->rflags = um_get_rflags(x);
	return um_sys_task_switch(x, call ? UM_TASK_CALL : UM_TASK_JMP, sel, d, ret, NULL, 0, task);
}

static bool far_protected(struct um_exec *x, u16 sel, u64 off, bool call, unsigned osz, u64 ret,
			  struct um_task_result *task)
{
	struct um_sys_desc d;

	if (SEL_IS_NULL(sel))
		return um_sys_gp0(x);
	if (!um_sys_desc_read(x, sel, UM_VEC_GP, 0, &d))
		return false;
	if (um_desc_s(d.lo))
		return far_code(x, sel, &d, off, call, osz, ret);

	switch (um_desc_type(d.lo)) {
	case UM_SYS_CALLGATE:
		return um_sys_call_gate(x, sel, &d, call, ret);
	case UM_SYS_CALLGATE16:
		if (um_cpu_long_mode(&x->cpu))
			break;
		return um_sys_call_gate(x, sel, &d, call, ret);
	case UM_SYS_TASKGATE:
	case UM_SYS_TSS16_AVAIL:
	case UM_SYS_TSS_AVAIL:
		if (um_cpu_long_mode(&x->cpu))
			break;
		return far_task(x, sel, &d, call, ret, task);
	}
	return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
}

static const struct um_insn *far_transfer(struct um_exec *x, const struct um_insn *i, bool call)
{
	u64 off, ret = um_next_rip(x, i);
	struct um_task_result task = { 0 };
	bool ok;
	u16 sel;

	if (!far_pointer(x, i, &sel, &off))
		return um_stop(x, i);
	ok = um_sys_not_protected(x) ? far_real(x, sel, off, call, i->osz, ret)
				     : far_protected(x, sel, off, call, i->osz, ret, &task);
	if (!ok || task.committed)
		return um_sys_task_end(x, i, ok, &task);
	um_sync_mode(x);
	return NULL;
}

const struct um_insn *um_sysop_far_jmp(struct um_exec *x, const struct um_insn *i)
{
	return far_transfer(x, i, false);
}

const struct um_insn *um_sysop_far_call(struct um_exec *x, const struct um_insn *i)
{
	return far_transfer(x, i, true);
}

/* ---- RET ---- */

static bool ret_real(struct um_exec *x, unsigned osz, unsigned release)
{
	struct um_cpu *c = &x->cpu;
	u64 rip, cs;

	if (!um_stack_peek(x, 0, &rip, osz) || !um_stack_peek(x, osz, &cs, osz))
		return false;
	if (rip > (c->rflags & RFLAGS_VM ? 0xffff : c->seg[UM_CS].limit))
		return um_sys_gp0(x);
	c->gpr[UM_RSP] =
		um_sys_merge_sp(c->gpr[UM_RSP], c->gpr[UM_RSP] + 2 * osz + release, x->sp_mask);
	um_sys_load_real(c, UM_CS, cs);
	c->rip = rip;
	return true;
}

bool um_sys_check_return_cs(struct um_exec *x, u16 sel, struct um_segment *cs)
{
	const struct um_cpu *c = &x->cpu;
	unsigned rpl = SEL_RPL(sel), dpl;
	struct um_sys_desc d;

	if (SEL_IS_NULL(sel))
		return um_sys_gp0(x);
	if (!um_sys_desc_read(x, sel, UM_VEC_GP, 0, &d))
		return false;
	dpl = um_desc_dpl(d.lo);
	if (!um_desc_is_code(d.lo) || rpl < c->cpl ||
	    (um_desc_is_conforming(d.lo) ? dpl > rpl : dpl != rpl) ||
	    (um_cpu_long_mode(c) && um_desc_l(d.lo) && um_desc_db(d.lo)))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
	if (!um_sys_desc_accessed(x, &d, 0))
		return false;
	*cs = um_segment_unpack(sel, d.lo, 0);
	return true;
}

bool um_sys_check_return_ss(struct um_exec *x, u16 sel, const struct um_segment *cs,
			    struct um_segment *ss)
{
	unsigned cpl = SEL_RPL(cs->selector);

	if (SEL_IS_NULL(sel) && um_cpu_long_mode(&x->cpu) && cs->l && cpl != 3) {
		if (SEL_RPL(sel) != cpl)
			return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel));
		*ss = um_segment_null(sel, cpl);
		return true;
	}
	return um_sys_check_ss(x, sel, cpl, UM_VEC_GP, 0, ss);
}

static bool ret_protected(struct um_exec *x, unsigned osz, unsigned release)
{
	struct um_cpu *c = &x->cpu;
	u64 rip, sel, rsp, ss_sel, mask;
	struct um_segment cs, ss;
	bool outer;

	if (!um_stack_peek(x, 0, &rip, osz) || !um_stack_peek(x, osz, &sel, osz) ||
	    !um_sys_check_return_cs(x, sel, &cs))
		return false;
	outer = SEL_RPL(cs.selector) > c->cpl;
	if (outer && (!um_stack_peek(x, 2 * osz + release, &rsp, osz) ||
		      !um_stack_peek(x, 3 * osz + release, &ss_sel, osz) ||
		      !um_sys_check_return_ss(x, ss_sel, &cs, &ss)))
		return false;
	if (!um_sys_check_rip(x, &cs, rip, 0))
		return false;

	c->seg[UM_CS] = cs;
	c->rip = rip;
	if (!outer) {
		c->gpr[UM_RSP] = um_sys_merge_sp(c->gpr[UM_RSP], c->gpr[UM_RSP] + 2 * osz + release,
						 x->sp_mask);
		return true;
	}
	c->seg[UM_SS] = ss;
	c->cpl = SEL_RPL(cs.selector);
	mask = um_cpu_64bit(c) ? ~0ull : um_sys_sp_mask(&ss);
	/* The parameters are released on the outer stack too. */
	c->gpr[UM_RSP] = um_sys_merge_sp(c->gpr[UM_RSP], rsp + release, mask);
	um_sys_null_inner_segments(c, c->cpl);
	return true;
}

const struct um_insn *um_sysop_far_ret(struct um_exec *x, const struct um_insn *i)
{
	unsigned release = i->kind[0] == UM_OPD_IMM ? (u16)i->imm : 0;

	if (!(um_sys_not_protected(x) ? ret_real(x, i->osz, release)
				      : ret_protected(x, i->osz, release)))
		return um_stop(x, i);
	um_sync_mode(x);
	return NULL;
}

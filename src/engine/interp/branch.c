// SPDX-License-Identifier: MIT
/*
 * Near JMP CALL RET, Jcc, LOOP, JCXZ.  (Far transfers are the system's.)
 *
 * A branch sets cpu.rip and returns NULL; all but Jcc are the last of their block.  A fault is
 * reported at the branch (SDM vol. 2: #GP(0) if the target is not canonical or beyond the limit of
 * CS), and it has no other effect then; except that a CALL's return address is in memory already.
 */
#include "engine/interp/ops.h"

static UM_SLOW const struct um_insn *bad_target(struct um_exec *x, const struct um_insn *i)
{
	um_raise_code(x, UM_VEC_GP, 0);
	return um_stop(x, i);
}

UM_INLINE const struct um_insn *jump(struct um_exec *x, const struct um_insn *i, u64 rip)
{
	if (unlikely(!um_target_ok(x, rip)))
		return bad_target(x, i);
	x->cpu.rip = rip;
	return NULL;
}

/* 64-bit mode, where rip is a linear address. */
UM_INLINE u64 next64(const struct um_exec *x, const struct um_insn *i)
{
	return x->cpu.gpr[UM_REG_PAGE] + i->off + i->len;
}
UM_INLINE const struct um_insn *jump64(struct um_exec *x, const struct um_insn *i, u64 rip)
{
	if (unlikely(!um_is_canonical(x, rip)))
		return bad_target(x, i);
	x->cpu.rip = rip;
	return NULL;
}

UM_INLINE u64 rel_target(const struct um_exec *x, const struct um_insn *i)
{
	return um_trunc_target(i, um_next_rip(x, i) + i->imm);
}

/* ---- Jcc ---- */

/* X(condition, the manual's mnemonic as Zydis spells it): in encoding order */
// clang-format off
#define CONDS(X)                                                                                   \
	X(0, O) X(1, NO) X(2, B) X(3, NB) X(4, Z) X(5, NZ) X(6, BE) X(7, NBE)                      \
	X(8, S) X(9, NS) X(10, P) X(11, NP) X(12, L) X(13, NL) X(14, LE) X(15, NLE)
// clang-format on

/*
 * Blocks go on behind these.  Taken, they leave out i->imm2 instructions that were counted already.
 */
UM_INLINE const struct um_insn *jump_over(struct um_exec *x, const struct um_insn *i, u64 rip)
{
	if (unlikely(!um_target_ok(x, rip)))
		return bad_target(x, i);
	um_count_add(x->counters, insns, -(u64)i->imm2);
	x->cpu.rip = rip;
	return NULL;
}

#define X(cc, name)                                                                              \
	static const struct um_insn *op_j##name##_64(struct um_exec *x, const struct um_insn *i) \
	{                                                                                        \
		if (um_cond(x, cc))                                                              \
			return jump_over(x, i, next64(x, i) + i->imm);                           \
		UM_NEXT(x, i);                                                                   \
	}                                                                                        \
	static const struct um_insn *op_j##name(struct um_exec *x, const struct um_insn *i)      \
	{                                                                                        \
		if (um_cond(x, cc))                                                              \
			return jump_over(x, i, rel_target(x, i));                                \
		UM_NEXT(x, i);                                                                   \
	}
CONDS(X)
#undef X

bool um_is_jcc(const struct um_insn *i)
{
	switch (i->op) {
#define X(cc, name) case ZYDIS_MNEMONIC_J##name:
		CONDS(X)
#undef X
		return !(i->flags & UM_INSN_UD);
	}
	return false;
}

/* ---- JMP, CALL, RET ---- */

static const struct um_insn *op_jmp_rel_64(struct um_exec *x, const struct um_insn *i)
{
	return jump64(x, i, next64(x, i) + i->imm);
}

static const struct um_insn *op_jmp_rel(struct um_exec *x, const struct um_insn *i)
{
	return jump(x, i, rel_target(x, i));
}

/* Size of an indirect target or return address. */
UM_INLINE unsigned rip_size(const struct um_insn *i)
{
	return i->mode == UM_MODE_64 ? 8 : i->osz;
}

static const struct um_insn *op_jmp_ind(struct um_exec *x, const struct um_insn *i)
{
	u64 target;

	if (!um_operand(x, i, 0, rip_size(i), &target))
		return um_stop(x, i);
	return jump(x, i, target);
}

static const struct um_insn *call(struct um_exec *x, const struct um_insn *i, u64 target)
{
	u64 sp = x->cpu.gpr[UM_RSP];

	/*
	 * In the manuals' listings the target is checked first.  Processors were seen to store
	 * first: to raise faults of the stack in place of #GP, and to have stored when they raise
	 * that.
	 */
	if (!um_push(x, um_next_rip(x, i), rip_size(i)))
		return um_stop(x, i);
	if (unlikely(!um_target_ok(x, target))) {
		x->cpu.gpr[UM_RSP] = sp;
		return bad_target(x, i);
	}
	x->cpu.rip = target;
	return NULL;
}

static const struct um_insn *op_call_rel(struct um_exec *x, const struct um_insn *i)
{
	return call(x, i, rel_target(x, i));
}

static const struct um_insn *op_call_rel_64(struct um_exec *x, const struct um_insn *i)
{
	u64 next = next64(x, i), sp = x->cpu.gpr[UM_RSP] - 8;
	void *p = um_fast_lin(x, sp, 8, UM_WRITE);

	if (unlikely(!p) || unlikely(!um_is_canonical(x, next + i->imm)) ||
	    unlikely(!um_put64(p, next)))
		return op_call_rel(x, i);
	x->cpu.gpr[UM_RSP] = sp;
	x->cpu.rip = next + i->imm;
	return NULL;
}

static const struct um_insn *op_call_ind(struct um_exec *x, const struct um_insn *i)
{
	u64 target;

	if (!um_operand(x, i, 0, rip_size(i), &target))
		return um_stop(x, i);
	return call(x, i, target);
}

static const struct um_insn *op_ret(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = rip_size(i);
	u64 target, sp, drop = size + (i->nops ? (u16)i->imm : 0);

	if (!um_stack_peek(x, 0, &target, size))
		return um_stop(x, i);
	if (unlikely(!um_target_ok(x, target)))
		return bad_target(x, i);
	sp = x->cpu.gpr[UM_RSP] + drop;
	if (x->sp_mask == 0xffff)
		um_set_reg(x, UM_RSP * 8, 2, sp);
	else
		x->cpu.gpr[UM_RSP] = sp & x->sp_mask;
	x->cpu.rip = target;
	return NULL;
}

static const struct um_insn *op_ret_64(struct um_exec *x, const struct um_insn *i)
{
	u64 sp = x->cpu.gpr[UM_RSP], target;
	void *p = um_fast_lin(x, sp, 8, UM_READ);

	if (unlikely(!p) || unlikely(!um_get64(p, &target)) ||
	    unlikely(!um_is_canonical(x, target)))
		return op_ret(x, i);
	x->cpu.gpr[UM_RSP] = sp + 8;
	x->cpu.rip = target;
	return NULL;
}

/* ---- LOOP, JCXZ: the counter is as wide as addresses ---- */

static const struct um_insn *op_loop(struct um_exec *x, const struct um_insn *i)
{
	u64 count = um_trunc(um_reg(x, UM_RCX * 8, i->asz) - 1, i->asz);
	bool taken = count != 0;

	if (i->op == ZYDIS_MNEMONIC_LOOPE)
		taken = taken && um_zf(x);
	else if (i->op == ZYDIS_MNEMONIC_LOOPNE)
		taken = taken && !um_zf(x);
	if (taken && unlikely(!um_target_ok(x, rel_target(x, i))))
		return bad_target(x, i);
	um_set_reg(x, UM_RCX * 8, i->asz, count);
	return taken ? jump(x, i, rel_target(x, i)) : um_end(x, i);
}

static const struct um_insn *op_jcxz(struct um_exec *x, const struct um_insn *i)
{
	return um_reg(x, UM_RCX * 8, i->asz) == 0 ? jump(x, i, rel_target(x, i)) : um_end(x, i);
}

um_insn_fn um_bind_branch(const struct um_insn *i)
{
	bool m64 = i->mode == UM_MODE_64, rel = i->kind[0] == UM_OPD_REL;

	if (i->flags & UM_INSN_FAR)
		return NULL;
	switch (i->op) {
#define X(cc, name)                  \
	case ZYDIS_MNEMONIC_J##name: \
		return m64 ? op_j##name##_64 : op_j##name;
		CONDS(X)
#undef X
	case ZYDIS_MNEMONIC_JMP:
		if (rel)
			return m64 ? op_jmp_rel_64 : op_jmp_rel;
		return i->kind[0] == UM_OPD_GPR || i->kind[0] == UM_OPD_MEM ? op_jmp_ind : NULL;
	case ZYDIS_MNEMONIC_CALL:
		if (rel)
			return m64 ? op_call_rel_64 : op_call_rel;
		return i->kind[0] == UM_OPD_GPR || i->kind[0] == UM_OPD_MEM ? op_call_ind : NULL;
	case ZYDIS_MNEMONIC_RET:
		return m64 && !i->nops ? op_ret_64 : op_ret;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
		return op_loop;
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ:
		return op_jcxz;
	}
	return NULL;
}

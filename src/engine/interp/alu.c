// SPDX-License-Identifier: MIT
/*
 * ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT.
 */
#include "engine/interp/ops.h"

/* In the order of their encodings (SDM vol. 2 table A-6, group 1), then TEST. */
#define ALU_OPS(X) X(ADD) X(OR) X(ADC) X(SBB) X(AND) X(SUB) X(XOR) X(CMP) X(TEST)
enum alu {
#define X(op) ALU_##op,
	ALU_OPS(X)
#undef X
		NR_ALU
};

UM_INLINE bool writes(enum alu op)
{
	return op != ALU_CMP && op != ALU_TEST;
}

UM_INLINE u64 result(const struct um_exec *x, enum alu op, u64 a, u64 b)
{
	switch (op) {
	case ALU_ADD:
		return a + b;
	case ALU_ADC:
		return a + b + um_cf(x);
	case ALU_SBB:
		return a - b - um_cf(x);
	case ALU_OR:
		return a | b;
	case ALU_XOR:
		return a ^ b;
	case ALU_AND:
	case ALU_TEST:
		return a & b;
	default:
		return a - b;
	}
}

UM_INLINE void flags(struct um_exec *x, enum alu op, u64 a, u64 b, u64 r, unsigned size)
{
	switch (op) {
	case ALU_ADD:
	case ALU_ADC:
		um_cc_add(x, a, b, r, size);
		break;
	case ALU_SUB:
	case ALU_SBB:
	case ALU_CMP:
		um_cc_sub(x, a, b, r, size);
		break;
	default:
		um_cc_logic(x, r, size);
		break;
	}
}

static enum alu alu_of(u16 op)
{
	switch (op) {
#define X(op)                     \
	case ZYDIS_MNEMONIC_##op: \
		return ALU_##op;
		ALU_OPS(X)
#undef X
	}
	return NR_ALU;
}

static UM_SLOW const struct um_insn *op_alu_slow(struct um_exec *x, const struct um_insn *i)
{
	enum alu op = alu_of(i->op);
	unsigned size = i->osz;
	enum um_rmw_result done;
	struct um_rmw m;
	u64 a, b, r;

	if (!um_operand(x, i, 1, size, &b))
		return um_stop(x, i);
	if (i->kind[0] == UM_OPD_GPR || !writes(op)) {
		if (!um_operand(x, i, 0, size, &a))
			return um_stop(x, i);
		r = result(x, op, a, b);
		if (writes(op))
			um_set_reg(x, i->reg[0], size, r);
	} else {
		do {
			if (!um_rmw_begin(x, i, um_ea(x, i), size, i->flags & UM_INSN_LOCK, &m))
				return um_stop(x, i);
			a = m.old;
			r = result(x, op, a, b);
			done = um_rmw_commit(x, &m, r);
			if (done == UM_RMW_FAULT)
				return um_stop(x, i);
		} while (done == UM_RMW_AGAIN);
	}
	flags(x, op, a, b, r, size);
	return i + 1;
}

UM_INLINE const struct um_insn *alu(struct um_exec *x, const struct um_insn *i, enum alu op,
				    enum um_form form, enum um_addr addr, unsigned size)
{
	void *p = NULL;
	u64 a, b, r;

	if (form == UM_FORM_RM) {
		if (!um_fast_load(x, i, addr, size, &b))
			return op_alu_slow(x, i);
	} else {
		b = form == UM_FORM_RI || form == UM_FORM_MI ? i->imm : um_reg(x, i->reg[1], size);
	}
	if (UM_FORM_WRITES_MEM(form)) {
		p = um_fast(x, i, addr, size, writes(op) ? UM_WRITE : UM_READ);
		if (unlikely(!p) || unlikely(!um_get(p, size, &a)))
			return op_alu_slow(x, i);
	} else {
		a = um_reg(x, i->reg[0], size);
	}
	r = result(x, op, a, b);
	if (writes(op)) {
		if (!UM_FORM_WRITES_MEM(form))
			um_set_reg(x, i->reg[0], size, r);
		else if (unlikely(!um_put(p, size, r)))
			return op_alu_slow(x, i);
	}
	flags(x, op, a, b, r, size);
	UM_NEXT(x, i);
}

/* The instances: op_<operation>_<form>_<address>_<size>. */
#define EACH_SIZE(X, op, form, addr) \
	X(op, form, addr, 1) X(op, form, addr, 2) X(op, form, addr, 4) X(op, form, addr, 8)
#define EACH_FORM(X, op)             \
	EACH_SIZE(X, op, RR, 64)     \
	EACH_SIZE(X, op, RI, 64)     \
	EACH_SIZE(X, op, RM, 64)     \
	EACH_SIZE(X, op, MR, 64)     \
	EACH_SIZE(X, op, MI, 64)     \
	EACH_SIZE(X, op, RM, LEGACY) \
	EACH_SIZE(X, op, MR, LEGACY) \
	EACH_SIZE(X, op, MI, LEGACY)
#define DEFINE(op, form, addr, size)                                                             \
	static const struct um_insn *op_##op##_##form##_##addr##_##size(struct um_exec *x,       \
									const struct um_insn *i) \
	{                                                                                        \
		return alu(x, i, ALU_##op, UM_FORM_##form, UM_ADDR_##addr, size);                \
	}
#define X(op) EACH_FORM(DEFINE, op)
ALU_OPS(X)
#undef X

#define ENTRY(op, form, addr, size)                                       \
	[ALU_##op][UM_FORM_##form][UM_ADDR_##addr][__builtin_ctz(size)] = \
		op_##op##_##form##_##addr##_##size,
static const um_insn_fn alu_fns[NR_ALU][UM_NR_FORMS][2][4] = {
#define X(op) EACH_FORM(ENTRY, op)
	ALU_OPS(X)
#undef X
};

um_insn_fn um_bind_alu(const struct um_insn *i)
{
	int form = um_form_of(i);
	enum um_addr addr = i->flags & UM_INSN_MEM ? um_addr_of(i) : UM_ADDR_64;

	if (form < 0)
		return NULL;
	if (i->flags & UM_INSN_LOCK)
		return op_alu_slow;
	return alu_fns[alu_of(i->op)][form][addr][um_size_index(i->osz)];
}

/* ---- INC DEC NEG NOT ---- */

#define UNARY_OPS(X) X(INC) X(DEC) X(NEG) X(NOT)
enum unary {
#define X(op) UNARY_##op,
	UNARY_OPS(X)
#undef X
		NR_UNARY
};

UM_INLINE u64 unary_result(enum unary op, u64 a)
{
	switch (op) {
	case UNARY_INC:
		return a + 1;
	case UNARY_DEC:
		return a - 1;
	case UNARY_NEG:
		return -a;
	default:
		return ~a;
	}
}

UM_INLINE void unary_flags(struct um_exec *x, enum unary op, u64 a, u64 r, unsigned size)
{
	if (op == UNARY_INC || op == UNARY_DEC)
		um_cc_incdec(x, r, size, op == UNARY_DEC);
	else if (op == UNARY_NEG)
		um_cc_sub(x, 0, a, r, size);
}

static enum unary unary_of(u16 op)
{
	switch (op) {
#define X(op)                     \
	case ZYDIS_MNEMONIC_##op: \
		return UNARY_##op;
		UNARY_OPS(X)
#undef X
	}
	return NR_UNARY;
}

static UM_SLOW const struct um_insn *op_unary_slow(struct um_exec *x, const struct um_insn *i)
{
	enum unary op = unary_of(i->op);
	enum um_rmw_result done;
	struct um_rmw m;
	u64 r;

	do {
		if (!um_rmw_begin(x, i, um_ea(x, i), i->osz, i->flags & UM_INSN_LOCK, &m))
			return um_stop(x, i);
		r = unary_result(op, m.old);
		done = um_rmw_commit(x, &m, r);
		if (done == UM_RMW_FAULT)
			return um_stop(x, i);
	} while (done == UM_RMW_AGAIN);
	unary_flags(x, op, m.old, r, i->osz);
	return i + 1;
}

UM_INLINE const struct um_insn *unary(struct um_exec *x, const struct um_insn *i, enum unary op,
				      bool mem, enum um_addr addr, unsigned size)
{
	void *p = NULL;
	u64 a, r;

	if (mem) {
		p = um_fast(x, i, addr, size, UM_WRITE);
		if (unlikely(!p) || unlikely(!um_get(p, size, &a)))
			return op_unary_slow(x, i);
	} else {
		a = um_reg(x, i->reg[0], size);
	}
	r = unary_result(op, a);
	if (!mem)
		um_set_reg(x, i->reg[0], size, r);
	else if (unlikely(!um_put(p, size, r)))
		return op_unary_slow(x, i);
	unary_flags(x, op, a, r, size);
	UM_NEXT(x, i);
}

/* The instances: op_<operation>_<R or M>_<address>_<size>. */
enum { FORM_R, FORM_M };
#define EACH_UNARY(X, op) \
	EACH_SIZE(X, op, R, 64) EACH_SIZE(X, op, M, 64) EACH_SIZE(X, op, M, LEGACY)
#define DEFINE_UNARY(op, form, addr, size)                                                       \
	static const struct um_insn *op_##op##_##form##_##addr##_##size(struct um_exec *x,       \
									const struct um_insn *i) \
	{                                                                                        \
		return unary(x, i, UNARY_##op, FORM_##form, UM_ADDR_##addr, size);               \
	}
#define X(op) EACH_UNARY(DEFINE_UNARY, op)
UNARY_OPS(X)
#undef X

#define UNARY_ENTRY(op, form, addr, size)                                \
	[UNARY_##op][FORM_##form][UM_ADDR_##addr][__builtin_ctz(size)] = \
		op_##op##_##form##_##addr##_##size,
static const um_insn_fn unary_fns[NR_UNARY][2][2][4] = {
#define X(op) EACH_UNARY(UNARY_ENTRY, op)
	UNARY_OPS(X)
#undef X
};

um_insn_fn um_bind_unary(const struct um_insn *i)
{
	bool mem = i->kind[0] == UM_OPD_MEM;

	if (i->flags & UM_INSN_LOCK)
		return op_unary_slow;
	return unary_fns[unary_of(i->op)][mem][mem ? um_addr_of(i) : UM_ADDR_64]
			[um_size_index(i->osz)];
}

// SPDX-License-Identifier: MIT
/*
 * ROL ROR RCL RCR SHL SHR SAR, SHLD SHRD.
 *
 * The count is taken modulo 32, or 64 for 64-bit operands.  A count of 0 changes no flags, but a
 * 32-bit register is zero-extended all the same.  Rotates change only CF and OF; OF after counts
 * other than 1 is undefined in the manual and follows the same formula here (SDM vol. 2,
 * RCL/RCR/ROL/ROR, SAL/SAR/SHL/SHR).
 */
#include "engine/interp/ops.h"

#define SHIFT_OPS(X) X(ROL) X(ROR) X(RCL) X(RCR) X(SHL) X(SHR) X(SAR)
enum shift {
#define X(op) SHIFT_##op,
	SHIFT_OPS(X)
#undef X
		NR_SHIFT
};

UM_INLINE bool is_rotate(enum shift op)
{
	return op <= SHIFT_RCR;
}

struct shifted {
	u64 r; /* at operand size, zero-extended */
	bool cf, of;
};

/* @a zero-extended from @size bytes; @count masked, not 0; @cf: the carry flag. */
UM_INLINE struct shifted shift(enum shift op, u64 a, unsigned count, bool cf, unsigned size)
{
	unsigned bits = size * 8, c;
	struct shifted s = { 0 };
	bool top, second;

	switch (op) {
	case SHIFT_ROL:
		c = count & (bits - 1);
		s.r = c ? (a << c) | (a >> (bits - c)) : a;
		s.cf = s.r & 1;
		break;
	case SHIFT_ROR:
		c = count & (bits - 1);
		s.r = c ? (a >> c) | (a << (bits - c)) : a;
		s.cf = (s.r >> (bits - 1)) & 1;
		break;
	case SHIFT_RCL:
		c = count % (bits + 1);
		s.r = a;
		s.cf = cf;
		if (c) {
			s.r = (u64)cf << (c - 1);
			s.r |= c < 64 ? a << c : 0;
			s.r |= c > 1 ? a >> (bits + 1 - c) : 0;
			s.cf = (a >> (bits - c)) & 1;
		}
		break;
	case SHIFT_RCR:
		c = count % (bits + 1);
		s.r = a;
		s.cf = cf;
		if (c) {
			s.r = (u64)cf << (bits - c);
			s.r |= c < 64 ? a >> c : 0;
			s.r |= c > 1 ? a << (bits + 1 - c) : 0;
			s.cf = (a >> (c - 1)) & 1;
		}
		break;
	case SHIFT_SHL:
		s.r = a << count;
		s.cf = count <= bits && ((a >> (bits - count)) & 1);
		break;
	case SHIFT_SHR:
		s.r = a >> count;
		s.cf = (a >> (count - 1)) & 1;
		break;
	default:
		s.r = (u64)(um_sext(a, size) >> count);
		s.cf = (um_sext(a, size) >> (count - 1)) & 1;
		break;
	}
	s.r = um_trunc(s.r, size);
	top = (s.r >> (bits - 1)) & 1;
	second = (s.r >> (bits - 2)) & 1;
	if (op == SHIFT_ROL || op == SHIFT_RCL || op == SHIFT_SHL)
		s.of = s.cf ^ top;
	else if (op != SHIFT_SAR)
		s.of = top ^ second;
	return s;
}

UM_INLINE void flags(struct um_exec *x, enum shift op, struct shifted s, unsigned size)
{
	if (is_rotate(op))
		um_cc_put_cf_of(x, s.cf, s.of);
	else
		um_cc_result(x, s.r, size, s.cf, s.of);
}

static enum shift shift_of(u16 op)
{
	switch (op) {
#define X(op)                     \
	case ZYDIS_MNEMONIC_##op: \
		return SHIFT_##op;
		SHIFT_OPS(X)
#undef X
	}
	return NR_SHIFT;
}

/* The count: CL, or an immediate (of which 1 is implied by some encodings). */
UM_INLINE unsigned count_of(const struct um_exec *x, const struct um_insn *i, unsigned n,
			    unsigned size)
{
	u64 c = i->kind[n] == UM_OPD_GPR ? x->cpu.gpr[UM_RCX] : i->nops > n ? i->imm : 1;

	return (unsigned)c & (size == 8 ? 63 : 31);
}

/* The operand that is shifted, in a register or in memory: m->old; it becomes @v.  False: x->exit. */
static bool operand_begin(struct um_exec *x, const struct um_insn *i, unsigned size,
			  struct um_rmw *m)
{
	if (i->kind[0] != UM_OPD_GPR)
		return um_rmw_begin(x, i, um_ea(x, i), size, false, m);
	m->old = um_reg(x, i->reg[0], size);
	return true;
}

static bool operand_commit(struct um_exec *x, const struct um_insn *i, unsigned size,
			   struct um_rmw *m, u64 v)
{
	if (i->kind[0] != UM_OPD_GPR)
		return um_rmw_commit(x, m, v) == UM_RMW_DONE;
	um_set_reg(x, i->reg[0], size, v);
	return true;
}

static UM_SLOW const struct um_insn *op_shift_slow(struct um_exec *x, const struct um_insn *i)
{
	enum shift op = shift_of(i->op);
	unsigned size = i->osz, count = count_of(x, i, 1, size);
	struct shifted s;
	struct um_rmw m;

	if (!operand_begin(x, i, size, &m))
		return um_stop(x, i);
	s.r = m.old;
	if (count)
		s = shift(op, m.old, count, um_cf(x), size);
	if (!operand_commit(x, i, size, &m, s.r))
		return um_stop(x, i);
	if (count)
		flags(x, op, s, size);
	return i + 1;
}

/* Registers of 4 and 8 bytes: op_<operation>_<I or C: the count>_<size>. */
UM_INLINE const struct um_insn *shift_reg(struct um_exec *x, const struct um_insn *i, enum shift op,
					  bool cl, unsigned size)
{
	unsigned count = (unsigned)(cl ? x->cpu.gpr[UM_RCX] : i->imm) & (size == 8 ? 63 : 31);
	u64 a = um_reg(x, i->reg[0], size);

	if (likely(count)) {
		struct shifted s = shift(op, a, count, um_cf(x), size);

		um_set_reg(x, i->reg[0], size, s.r);
		flags(x, op, s, size);
	} else {
		um_set_reg(x, i->reg[0], size, a);
	}
	UM_NEXT(x, i);
}

enum { COUNT_I, COUNT_C };
#define EACH_SHIFT(X, op) X(op, I, 4) X(op, I, 8) X(op, C, 4) X(op, C, 8)
#define DEFINE(op, count, size)                                                          \
	static const struct um_insn *op_##op##_##count##_##size(struct um_exec *x,       \
								const struct um_insn *i) \
	{                                                                                \
		return shift_reg(x, i, SHIFT_##op, COUNT_##count, size);                 \
	}
#define X(op) EACH_SHIFT(DEFINE, op)
SHIFT_OPS(X)
#undef X

#define ENTRY(op, count, size) \
	[SHIFT_##op][COUNT_##count][__builtin_ctz(size)] = op_##op##_##count##_##size,
static const um_insn_fn shift_fns[NR_SHIFT][2][4] = {
#define X(op) EACH_SHIFT(ENTRY, op)
	SHIFT_OPS(X)
#undef X
};

/* ---- SHLD, SHRD ---- */

/*
 * Of 16-bit operands with counts over 16, which the manual leaves undefined, the bits that come in
 * after those of the source are those of the destination again.
 */
static struct shifted double_shift(bool left, u64 a, u64 b, unsigned count, unsigned size)
{
	unsigned bits = size * 8;
	struct shifted s;

	if (size == 2) {
		u64 all = (a << 32) | (b << 16) | a;

		s.r = (left ? (all << count) >> 32 : all >> count) & 0xffff;
		s.cf = left ? (all >> (48 - count)) & 1 : (all >> (count - 1)) & 1;
	} else {
		s.r = left ? (a << count) | (b >> (bits - count))
			   : (a >> count) | (b << (bits - count));
		s.r = um_trunc(s.r, size);
		s.cf = left ? (a >> (bits - count)) & 1 : (a >> (count - 1)) & 1;
	}
	s.of = ((s.r ^ a) >> (bits - 1)) & 1;
	return s;
}

static const struct um_insn *op_double_shift(struct um_exec *x, const struct um_insn *i)
{
	bool left = i->op == ZYDIS_MNEMONIC_SHLD;
	unsigned size = i->osz, count = count_of(x, i, 2, size);
	u64 b = um_reg(x, i->reg[1], size);
	struct shifted s;
	struct um_rmw m;

	if (!operand_begin(x, i, size, &m))
		return um_stop(x, i);
	s.r = m.old;
	if (count)
		s = double_shift(left, m.old, b, count, size);
	if (!operand_commit(x, i, size, &m, s.r))
		return um_stop(x, i);
	if (count)
		um_cc_result(x, s.r, size, s.cf, s.of);
	return i + 1;
}

um_insn_fn um_bind_shift(const struct um_insn *i)
{
	um_insn_fn fn = NULL;

	if (i->op == ZYDIS_MNEMONIC_SHLD || i->op == ZYDIS_MNEMONIC_SHRD)
		return op_double_shift;
	if (i->kind[0] == UM_OPD_GPR && i->nops == 2)
		fn = shift_fns[shift_of(i->op)][i->kind[1] == UM_OPD_GPR][um_size_index(i->osz)];
	return fn ? fn : op_shift_slow;
}

// SPDX-License-Identifier: MIT
/*
 * MUL IMUL DIV IDIV, AAM AAD (the decimal multiplication and division).
 *
 * After multiplications SF is that of the low half, as on every processor since the Pentium 4; ZF,
 * AF and PF are undefined in the manual.  Divisions leave all flags as they were (undefined in the
 * manual).
 */
#include "engine/interp/ops.h"

/* Write a double-width product or a pair of results: AX, or DX:AX and wider. */
static void set_pair(struct um_exec *x, unsigned size, u64 lo, u64 hi)
{
	if (size == 1) {
		um_set_reg(x, UM_RAX * 8, 2, (u8)lo | (u64)(u8)hi << 8);
	} else {
		um_set_reg(x, UM_RAX * 8, size, lo);
		um_set_reg(x, UM_RDX * 8, size, hi);
	}
}

static const struct um_insn *op_mul(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz, bits = size * 8;
	u64 v, lo, hi;

	if (!um_operand(x, i, 0, size, &v))
		return um_stop(x, i);
	if (i->op == ZYDIS_MNEMONIC_MUL) {
		u128 p = (u128)um_reg(x, UM_RAX * 8, size) * v;

		lo = (u64)p;
		hi = (u64)(p >> bits);
		hi = um_trunc(hi, size);
		um_cc_result(x, lo, size, hi != 0, hi != 0);
	} else {
		__int128 p =
			(__int128)um_sext(um_reg(x, UM_RAX * 8, size), size) * um_sext(v, size);
		bool wide = p != um_sext((u64)p, size);

		lo = (u64)p;
		hi = (u64)(p >> bits);
		um_cc_result(x, lo, size, wide, wide);
	}
	set_pair(x, size, lo, hi);
	return i + 1;
}

/* IMUL r, r/m and IMUL r, r/m, imm */
static const struct um_insn *op_imul2(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz;
	__int128 p;
	bool wide;
	u64 a, b;

	if (!um_operand(x, i, 1, size, &a))
		return um_stop(x, i);
	b = i->nops == 3 ? i->imm : um_reg(x, i->reg[0], size);
	p = (__int128)um_sext(a, size) * um_sext(b, size);
	wide = p != um_sext((u64)p, size);
	um_set_reg(x, i->reg[0], size, (u64)p);
	um_cc_result(x, (u64)p, size, wide, wide);
	return i + 1;
}

UM_INLINE const struct um_insn *imul_reg(struct um_exec *x, const struct um_insn *i, bool imm,
					 unsigned size)
{
	s64 a = um_sext(um_reg(x, i->reg[1], size), size), r;
	s64 b = um_sext(imm ? i->imm : um_reg(x, i->reg[0], size), size);
	bool wide = __builtin_mul_overflow(a, b, &r);

	if (size == 4)
		wide = r != (s32)r;
	um_set_reg(x, i->reg[0], size, (u64)r);
	um_cc_result(x, (u64)r, size, wide, wide);
	UM_NEXT(x, i);
}
static const struct um_insn *op_imul_rr_4(struct um_exec *x, const struct um_insn *i)
{
	return imul_reg(x, i, false, 4);
}
static const struct um_insn *op_imul_rr_8(struct um_exec *x, const struct um_insn *i)
{
	return imul_reg(x, i, false, 8);
}
static const struct um_insn *op_imul_rri_4(struct um_exec *x, const struct um_insn *i)
{
	return imul_reg(x, i, true, 4);
}
static const struct um_insn *op_imul_rri_8(struct um_exec *x, const struct um_insn *i)
{
	return imul_reg(x, i, true, 8);
}

/* ---- division ---- */

static const struct um_insn *divide_error(struct um_exec *x, const struct um_insn *i)
{
	um_raise(x, UM_VEC_DE);
	return um_stop(x, i);
}

/* @n / @d, false if the quotient does not fit 64 bits. */
static bool udiv128(u128 n, u64 d, u64 *q, u64 *r)
{
	u64 hi = (u64)(n >> 64), lo = (u64)n;

	if (hi >= d)
		return false; /* d == 0 included */
	asm("divq %4" : "=a"(*q), "=d"(*r) : "a"(lo), "d"(hi), "rm"(d) : "cc");
	return true;
}

static u128 dividend(const struct um_exec *x, unsigned size)
{
	u64 lo = um_reg(x, UM_RAX * 8, size);

	if (size == 1)
		return um_reg(x, UM_RAX * 8, 2);
	return (u128)um_reg(x, UM_RDX * 8, size) << (size * 8) | lo;
}

static const struct um_insn *op_div(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz;
	u64 d, q, r;

	if (!um_operand(x, i, 0, size, &d))
		return um_stop(x, i);
	if (!udiv128(dividend(x, size), d, &q, &r) || q != um_trunc(q, size))
		return divide_error(x, i);
	set_pair(x, size, q, r);
	return i + 1;
}

/* On magnitudes; the remainder has the sign of the dividend. */
static const struct um_insn *op_idiv(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz, unused = 128 - size * 16;
	__int128 n;
	u64 d, q, r;
	s64 sd;

	if (!um_operand(x, i, 0, size, &d))
		return um_stop(x, i);
	n = (__int128)(dividend(x, size) << unused) >> unused;
	sd = um_sext(d, size);
	if (!udiv128(n < 0 ? -(u128)n : (u128)n, sd < 0 ? -(u64)sd : (u64)sd, &q, &r))
		return divide_error(x, i);
	if ((n < 0) != (sd < 0)) {
		if (q > 1ull << (size * 8 - 1))
			return divide_error(x, i);
		q = -q;
	} else if (q >= 1ull << (size * 8 - 1)) {
		return divide_error(x, i);
	}
	set_pair(x, size, q, n < 0 ? -r : r);
	return i + 1;
}

/* ---- AAM, AAD ---- */

static const struct um_insn *op_aam(struct um_exec *x, const struct um_insn *i)
{
	u8 al = (u8)x->cpu.gpr[UM_RAX], base = (u8)i->imm;

	if (!base)
		return divide_error(x, i);
	set_pair(x, 1, al % base, al / base);
	um_cc_logic(x, al % base, 1);
	return i + 1;
}

static const struct um_insn *op_aad(struct um_exec *x, const struct um_insn *i)
{
	u16 ax = (u16)x->cpu.gpr[UM_RAX];
	u8 al = (u8)((ax >> 8) * (u8)i->imm + (ax & 0xff));

	set_pair(x, 1, al, 0);
	um_cc_logic(x, al, 1);
	return i + 1;
}

um_insn_fn um_bind_muldiv(const struct um_insn *i)
{
	switch (i->op) {
	case ZYDIS_MNEMONIC_MUL:
		return op_mul;
	case ZYDIS_MNEMONIC_IMUL:
		if (i->nops == 1)
			return op_mul;
		if (i->kind[1] == UM_OPD_GPR && i->osz == 4)
			return i->nops == 3 ? op_imul_rri_4 : op_imul_rr_4;
		if (i->kind[1] == UM_OPD_GPR && i->osz == 8)
			return i->nops == 3 ? op_imul_rri_8 : op_imul_rr_8;
		return op_imul2;
	case ZYDIS_MNEMONIC_DIV:
		return op_div;
	case ZYDIS_MNEMONIC_IDIV:
		return op_idiv;
	case ZYDIS_MNEMONIC_AAM:
		return op_aam;
	case ZYDIS_MNEMONIC_AAD:
		return op_aad;
	}
	return NULL;
}

// SPDX-License-Identifier: MIT
/*
 * The rest of the integer instructions: sign extension of the accumulator, flags, byte order,
 * decimal adjustment, BOUND, XLAT, and those that do nothing.
 */
#include "engine/interp/ops.h"

/* ---- CBW CWDE CDQE, CWD CDQ CQO ---- */

static const struct um_insn *op_widen(struct um_exec *x, const struct um_insn *i)
{
	unsigned to = i->op == ZYDIS_MNEMONIC_CBW ? 2 : i->op == ZYDIS_MNEMONIC_CWDE ? 4 : 8;

	um_set_reg(x, UM_RAX * 8, to, (u64)um_sext(x->cpu.gpr[UM_RAX], to / 2));
	UM_NEXT(x, i);
}

static const struct um_insn *op_sign(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->op == ZYDIS_MNEMONIC_CWD ? 2 : i->op == ZYDIS_MNEMONIC_CDQ ? 4 : 8;

	um_set_reg(x, UM_RDX * 8, size, (u64)(um_sext(x->cpu.gpr[UM_RAX], size) >> 63));
	UM_NEXT(x, i);
}

/* ---- flags ---- */

static const struct um_insn *op_lahf(struct um_exec *x, const struct um_insn *i)
{
	um_set_reg(x, UM_RAX * 8 + 1, 1, um_status(x) | RFLAGS_FIXED1);
	UM_NEXT(x, i);
}

static const struct um_insn *op_sahf(struct um_exec *x, const struct um_insn *i)
{
	um_set_status(x, um_reg(x, UM_RAX * 8 + 1, 1) | (um_of(x) ? RFLAGS_OF : 0));
	UM_NEXT(x, i);
}

static const struct um_insn *op_carry(struct um_exec *x, const struct um_insn *i)
{
	um_cc_put_cf(x, i->op == ZYDIS_MNEMONIC_STC || (i->op == ZYDIS_MNEMONIC_CMC && !um_cf(x)));
	UM_NEXT(x, i);
}

static const struct um_insn *op_direction(struct um_exec *x, const struct um_insn *i)
{
	if (i->op == ZYDIS_MNEMONIC_STD)
		x->cpu.rflags |= RFLAGS_DF;
	else
		x->cpu.rflags &= ~RFLAGS_DF;
	UM_NEXT(x, i);
}

static const struct um_insn *op_salc(struct um_exec *x, const struct um_insn *i)
{
	um_set_reg(x, UM_RAX * 8, 1, um_cf(x) ? 0xff : 0);
	UM_NEXT(x, i);
}

/* ---- BSWAP, MOVBE, XLAT ---- */

static u64 swap(u64 v, unsigned size)
{
	return __builtin_bswap64(v) >> (64 - size * 8);
}

static const struct um_insn *op_bswap(struct um_exec *x, const struct um_insn *i)
{
	/* Of a 16-bit register the result is undefined in the manual; processors give 0. */
	u64 v = i->osz == 2 ? 0 : swap(um_reg(x, i->reg[0], i->osz), i->osz);

	um_set_reg(x, i->reg[0], i->osz, v);
	UM_NEXT(x, i);
}

static const struct um_insn *op_movbe(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_operand(x, i, 1, i->osz, &v))
		return um_stop(x, i);
	v = swap(v, i->osz);
	if (i->kind[0] == UM_OPD_GPR)
		um_set_reg(x, i->reg[0], i->osz, v);
	else if (!um_store(x, i, i->osz, v))
		return um_stop(x, i);
	return i + 1;
}

static const struct um_insn *op_xlat(struct um_exec *x, const struct um_insn *i)
{
	u64 ea = um_trunc(x->cpu.gpr[UM_RBX] + (u8)x->cpu.gpr[UM_RAX], i->asz);
	gva_t gva;
	u8 v;

	if (!um_linear(x, i->seg, ea, 1, UM_READ, &gva) || !um_lin_read(x, gva, &v, 1))
		return um_stop(x, i);
	um_set_reg(x, UM_RAX * 8, 1, v);
	return i + 1;
}

/* ---- BOUND ---- */

static const struct um_insn *op_bound(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz;
	s64 index = um_sext(um_reg(x, i->reg[0], size), size), lower, upper;
	u64 bounds = 0;
	gva_t gva;

	if (!um_linear(x, i->seg, um_ea(x, i), 2 * size, UM_READ, &gva) ||
	    !um_check_align(x, gva, size) || !um_lin_read(x, gva, &bounds, 2 * size))
		return um_stop(x, i);
	lower = um_sext(bounds, size);
	upper = um_sext(bounds >> (size * 8), size);
	if (index < lower || index > upper) {
		um_raise(x, UM_VEC_BR);
		return um_stop(x, i);
	}
	return i + 1;
}

/* ---- DAA DAS AAA AAS (SDM vol. 2) ---- */

static const struct um_insn *op_decimal(struct um_exec *x, const struct um_insn *i)
{
	bool sub = i->op == ZYDIS_MNEMONIC_DAS, af = um_af(x), cf = um_cf(x);
	u8 al = (u8)x->cpu.gpr[UM_RAX], old = al;
	bool low = (al & 15) > 9 || af, high = old > 0x99 || cf;
	u64 f;

	if (low)
		al = (u8)(sub ? al - 6 : al + 6);
	if (low && sub && old < 6)
		/* a borrow out of the low correction stays even if the high one isn't due */
		cf = true;
	if (high)
		al = (u8)(sub ? al - 0x60 : al + 0x60);
	um_set_reg(x, UM_RAX * 8, 1, al);
	um_cc_result(x, al, 1, high || (sub && cf), false);
	f = um_status(x) & ~RFLAGS_AF;
	um_set_status(x, f | (low ? RFLAGS_AF : 0));
	UM_NEXT(x, i);
}

static const struct um_insn *op_ascii(struct um_exec *x, const struct um_insn *i)
{
	u16 ax = (u16)x->cpu.gpr[UM_RAX];
	bool adjust = (ax & 15) > 9 || um_af(x);

	if (adjust)
		ax = (u16)(i->op == ZYDIS_MNEMONIC_AAA ? ax + 0x106 : ax - 0x106);
	um_set_reg(x, UM_RAX * 8, 2, ax & 0xff0f);
	um_cc_result(x, ax & 15, 1, adjust, false);
	um_set_status(x, (um_status(x) & ~RFLAGS_AF) | (adjust ? RFLAGS_AF : 0));
	UM_NEXT(x, i);
}

/* ---- nothing ---- */

/* NOP and hints: memory operands of these are not accessed. */
static const struct um_insn *op_nop(struct um_exec *x, const struct um_insn *i)
{
	UM_NEXT(x, i);
}

static const struct um_insn *op_fence(struct um_exec *x, const struct um_insn *i)
{
	atomic_thread_fence(memory_order_seq_cst);
	UM_NEXT(x, i);
}

static const struct um_insn *op_pause(struct um_exec *x, const struct um_insn *i)
{
	if (x->exit_on_pause) {
		x->exit.kind = UM_EXIT_PAUSE;
		return um_end(x, i);
	}
	__builtin_ia32_pause();
	UM_NEXT(x, i);
}

um_insn_fn um_bind_misc(const struct um_insn *i)
{
	switch (i->op) {
	case ZYDIS_MNEMONIC_CBW:
	case ZYDIS_MNEMONIC_CWDE:
	case ZYDIS_MNEMONIC_CDQE:
		return op_widen;
	case ZYDIS_MNEMONIC_CWD:
	case ZYDIS_MNEMONIC_CDQ:
	case ZYDIS_MNEMONIC_CQO:
		return op_sign;
	case ZYDIS_MNEMONIC_LAHF:
		return op_lahf;
	case ZYDIS_MNEMONIC_SAHF:
		return op_sahf;
	case ZYDIS_MNEMONIC_CLC:
	case ZYDIS_MNEMONIC_STC:
	case ZYDIS_MNEMONIC_CMC:
		return op_carry;
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_STD:
		return op_direction;
	case ZYDIS_MNEMONIC_SALC:
		return op_salc;
	case ZYDIS_MNEMONIC_BSWAP:
		return op_bswap;
	case ZYDIS_MNEMONIC_MOVBE:
		return op_movbe;
	case ZYDIS_MNEMONIC_XLAT:
		return op_xlat;
	case ZYDIS_MNEMONIC_BOUND:
		return op_bound;
	case ZYDIS_MNEMONIC_DAA:
	case ZYDIS_MNEMONIC_DAS:
		return op_decimal;
	case ZYDIS_MNEMONIC_AAA:
	case ZYDIS_MNEMONIC_AAS:
		return op_ascii;
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
		return op_fence;
	case ZYDIS_MNEMONIC_PAUSE:
		return op_pause;
	default: /* NOP, ENDBR, PREFETCH */
		return op_nop;
	}
}

// SPDX-License-Identifier: MIT
/*
 * BT BTS BTR BTC, BSF BSR, TZCNT LZCNT POPCNT.
 */
#include "engine/interp/ops.h"

/* ---- BT and its kin ---- */

static u64 changed(u16 op, u64 old, u64 mask)
{
	switch (op) {
	case ZYDIS_MNEMONIC_BTS:
		return old | mask;
	case ZYDIS_MNEMONIC_BTR:
		return old & ~mask;
	case ZYDIS_MNEMONIC_BTC:
		return old ^ mask;
	default:
		return old;
	}
}

static const struct um_insn *op_bt_reg(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz;
	u64 bit = i->kind[1] == UM_OPD_GPR ? um_reg(x, i->reg[1], size) : i->imm;
	u64 old = um_reg(x, i->reg[0], size), mask = 1ull << (bit & (size * 8 - 1));

	if (i->op != ZYDIS_MNEMONIC_BT)
		um_set_reg(x, i->reg[0], size, changed(i->op, old, mask));
	um_cc_put_cf(x, old & mask);
	UM_NEXT(x, i);
}

/* With a register, the bit string goes on in both directions from the operand (SDM vol. 2 BT). */
static const struct um_insn *op_bt_mem(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz, bits = size * 8;
	u64 ea = um_ea(x, i), bit = i->imm, mask;
	enum um_rmw_result done;
	struct um_rmw m;

	if (i->kind[1] == UM_OPD_GPR) {
		s64 at = um_sext(um_reg(x, i->reg[1], size), size);

		ea = um_trunc(ea + (u64)((at >> __builtin_ctz(bits)) * (s64)size), i->asz);
		bit = (u64)at;
	}
	mask = 1ull << (bit & (bits - 1));
	if (i->op == ZYDIS_MNEMONIC_BT) {
		gva_t gva;

		m.old = 0;
		if (!um_linear(x, i->seg, ea, size, UM_READ, &gva) ||
		    !um_check_align(x, gva, size) || !um_lin_read(x, gva, &m.old, size))
			return um_stop(x, i);
	} else {
		do {
			if (!um_rmw_begin(x, i, ea, size, i->flags & UM_INSN_LOCK, &m))
				return um_stop(x, i);
			done = um_rmw_commit(x, &m, changed(i->op, m.old, mask));
			if (done == UM_RMW_FAULT)
				return um_stop(x, i);
		} while (done == UM_RMW_AGAIN);
	}
	um_cc_put_cf(x, m.old & mask);
	return i + 1;
}

/* ---- counting ---- */

/* Of a source of 0, BSF and BSR leave the destination alone; only ZF is defined. */
static const struct um_insn *op_scan(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_operand(x, i, 1, i->osz, &v))
		return um_stop(x, i);
	if (v)
		um_set_reg(x, i->reg[0], i->osz,
			   i->op == ZYDIS_MNEMONIC_BSF ? (u64)__builtin_ctzll(v)
						       : 63 - (u64)__builtin_clzll(v));
	um_cc_logic(x, v, i->osz);
	return i + 1;
}

static const struct um_insn *op_count_zeros(struct um_exec *x, const struct um_insn *i)
{
	unsigned bits = i->osz * 8;
	u64 v, n = bits;

	if (!um_operand(x, i, 1, i->osz, &v))
		return um_stop(x, i);
	if (v)
		n = i->op == ZYDIS_MNEMONIC_TZCNT ? (u64)__builtin_ctzll(v)
						  : bits - 64 + (u64)__builtin_clzll(v);
	um_set_reg(x, i->reg[0], i->osz, n);
	um_cc_result(x, n, i->osz, v == 0, false);
	return i + 1;
}

static const struct um_insn *op_popcnt(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_operand(x, i, 1, i->osz, &v))
		return um_stop(x, i);
	um_set_reg(x, i->reg[0], i->osz, (u64)__builtin_popcountll(v));
	um_set_status(x, v ? 0 : RFLAGS_ZF);
	return i + 1;
}

um_insn_fn um_bind_bits(const struct um_insn *i)
{
	switch (i->op) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return i->kind[0] == UM_OPD_MEM ? op_bt_mem : op_bt_reg;
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
		return op_scan;
	case ZYDIS_MNEMONIC_TZCNT:
	case ZYDIS_MNEMONIC_LZCNT:
		return op_count_zeros;
	case ZYDIS_MNEMONIC_POPCNT:
		return op_popcnt;
	}
	return NULL;
}

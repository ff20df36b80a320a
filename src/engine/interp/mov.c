// SPDX-License-Identifier: MIT
/*
 * MOV between general registers and memory, MOVZX MOVSX MOVSXD, LEA, MOVBE, BSWAP, XLAT, SETcc,
 * CMOVcc.
 */
#include "engine/interp/ops.h"

/* ---- MOV ---- */

static UM_SLOW const struct um_insn *op_mov_slow(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_operand(x, i, 1, i->osz, &v))
		return um_stop(x, i);
	if (i->kind[0] == UM_OPD_GPR)
		um_set_reg(x, i->reg[0], i->osz, v);
	else if (!um_store(x, i, i->osz, v))
		return um_stop(x, i);
	return i + 1;
}

UM_INLINE const struct um_insn *mov(struct um_exec *x, const struct um_insn *i, enum um_form form,
				    enum um_addr addr, unsigned size)
{
	u64 v;

	if (form == UM_FORM_RM) {
		if (!um_fast_load(x, i, addr, size, &v))
			return op_mov_slow(x, i);
	} else {
		v = form == UM_FORM_RI || form == UM_FORM_MI ? i->imm : um_reg(x, i->reg[1], size);
	}
	if (!UM_FORM_WRITES_MEM(form))
		um_set_reg(x, i->reg[0], size, v);
	else if (!um_fast_store(x, i, addr, size, v))
		return op_mov_slow(x, i);
	UM_NEXT(x, i);
}

/* The instances: op_mov_<form>_<address>_<size>. */
#define EACH_SIZE(X, form, addr) X(form, addr, 1) X(form, addr, 2) X(form, addr, 4) X(form, addr, 8)
#define EACH_FORM(X)             \
	EACH_SIZE(X, RR, 64)     \
	EACH_SIZE(X, RI, 64)     \
	EACH_SIZE(X, RM, 64)     \
	EACH_SIZE(X, MR, 64)     \
	EACH_SIZE(X, MI, 64)     \
	EACH_SIZE(X, RM, LEGACY) \
	EACH_SIZE(X, MR, LEGACY) \
	EACH_SIZE(X, MI, LEGACY)
#define DEFINE(form, addr, size)                                                              \
	static const struct um_insn *op_mov_##form##_##addr##_##size(struct um_exec *x,       \
								     const struct um_insn *i) \
	{                                                                                     \
		return mov(x, i, UM_FORM_##form, UM_ADDR_##addr, size);                       \
	}
EACH_FORM(DEFINE)

#define ENTRY(form, addr, size) \
	[UM_FORM_##form][UM_ADDR_##addr][__builtin_ctz(size)] = op_mov_##form##_##addr##_##size,
static const um_insn_fn mov_fns[UM_NR_FORMS][2][4] = { EACH_FORM(ENTRY) };

um_insn_fn um_bind_mov(const struct um_insn *i)
{
	int form = um_form_of(i); /* segment, control and debug registers are the system's */
	enum um_addr addr = i->flags & UM_INSN_MEM ? um_addr_of(i) : UM_ADDR_64;

	return form < 0 ? NULL : mov_fns[form][addr][um_size_index(i->osz)];
}

/* ---- MOVZX MOVSX MOVSXD: from @from bytes (i->msz) to i->osz ---- */

UM_INLINE u64 extend(u64 v, unsigned from, bool sign)
{
	return sign ? (u64)um_sext(v, from) : v;
}

static UM_SLOW const struct um_insn *op_extend_slow(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_operand(x, i, 1, i->msz, &v))
		return um_stop(x, i);
	um_set_reg(x, i->reg[0], i->osz, extend(v, i->msz, i->op != ZYDIS_MNEMONIC_MOVZX));
	return i + 1;
}

UM_INLINE const struct um_insn *movx(struct um_exec *x, const struct um_insn *i, bool sign,
				     bool mem, enum um_addr addr, unsigned from, unsigned to)
{
	u64 v;

	if (!mem)
		v = um_reg(x, i->reg[1], from);
	else if (!um_fast_load(x, i, addr, from, &v))
		return op_extend_slow(x, i);
	um_set_reg(x, i->reg[0], to, extend(v, from, sign));
	UM_NEXT(x, i);
}

/* The instances: op_<operation>_<R or M>_<address>_<from>_<to>. */
enum { FORM_R, FORM_M };
enum { EXT_zx, EXT_sx };
#define EACH_WIDTH(X, op, form, addr) \
	X(op, form, addr, 1, 2)       \
	X(op, form, addr, 1, 4)       \
	X(op, form, addr, 1, 8)       \
	X(op, form, addr, 2, 4) X(op, form, addr, 2, 8) X(op, form, addr, 4, 8)
#define EACH_EXT(X)                  \
	EACH_WIDTH(X, zx, R, 64)     \
	EACH_WIDTH(X, zx, M, 64)     \
	EACH_WIDTH(X, zx, M, LEGACY) \
	EACH_WIDTH(X, sx, R, 64) EACH_WIDTH(X, sx, M, 64) EACH_WIDTH(X, sx, M, LEGACY)
#define DEFINE_EXT(op, form, addr, from, to)                                        \
	static const struct um_insn *op_mov##op##_##form##_##addr##_##from##_##to(  \
		struct um_exec *x, const struct um_insn *i)                         \
	{                                                                           \
		return movx(x, i, EXT_##op, FORM_##form, UM_ADDR_##addr, from, to); \
	}
EACH_EXT(DEFINE_EXT)

#define EXT_ENTRY(op, form, addr, from, to)                                               \
	[EXT_##op][FORM_##form][UM_ADDR_##addr][__builtin_ctz(from)][__builtin_ctz(to)] = \
		op_mov##op##_##form##_##addr##_##from##_##to,
static const um_insn_fn ext_fns[2][2][2][4][4] = { EACH_EXT(EXT_ENTRY) };

um_insn_fn um_bind_extend(const struct um_insn *i)
{
	bool mem = i->kind[1] == UM_OPD_MEM;
	um_insn_fn fn =
		ext_fns[i->op != ZYDIS_MNEMONIC_MOVZX][mem][mem ? um_addr_of(i) : UM_ADDR_64]
		       [um_size_index(i->msz)][um_size_index(i->osz)];

	/* The rest are same-size oddities: MOVSXD r32, r/m32; MOVZX r16, r/m16. */
	return fn ? fn : op_extend_slow;
}

/* ---- LEA ---- */

static const struct um_insn *op_lea_64(struct um_exec *x, const struct um_insn *i)
{
	x->cpu.gpr[i->reg[0] / 8] =
		x->cpu.gpr[i->base] + (x->cpu.gpr[i->index] << i->scale) + (u64)i->disp;
	UM_NEXT(x, i);
}

static const struct um_insn *op_lea(struct um_exec *x, const struct um_insn *i)
{
	um_set_reg(x, i->reg[0], i->osz, um_ea(x, i));
	UM_NEXT(x, i);
}

um_insn_fn um_bind_lea(const struct um_insn *i)
{
	if (i->mode == UM_MODE_64 && i->asz == 8 && i->osz == 8)
		return op_lea_64;
	return op_lea;
}

/* ---- SETcc, CMOVcc ---- */

/* X(condition, the manual's mnemonic as Zydis spells it): in encoding order */
// clang-format off
#define CONDS(X)                                                                                   \
	X(0, O) X(1, NO) X(2, B) X(3, NB) X(4, Z) X(5, NZ) X(6, BE) X(7, NBE)                      \
	X(8, S) X(9, NS) X(10, P) X(11, NP) X(12, L) X(13, NL) X(14, LE) X(15, NLE)
// clang-format on

#define X(cc, name)                                                                            \
	static const struct um_insn *op_set##name(struct um_exec *x, const struct um_insn *i)  \
	{                                                                                      \
		um_set_reg(x, i->reg[0], 1, um_cond(x, cc));                                   \
		UM_NEXT(x, i);                                                                 \
	}                                                                                      \
	static const struct um_insn *op_cmov##name(struct um_exec *x, const struct um_insn *i) \
	{                                                                                      \
		unsigned size = i->osz;                                                        \
                                                                                               \
		um_set_reg(x, i->reg[0], size,                                                 \
			   um_reg(x, um_cond(x, cc) ? i->reg[1] : i->reg[0], size));           \
		UM_NEXT(x, i);                                                                 \
	}
CONDS(X)
#undef X

static int cond_of(u16 op)
{
	switch (op) {
#define X(cc, name)                     \
	case ZYDIS_MNEMONIC_SET##name:  \
	case ZYDIS_MNEMONIC_CMOV##name: \
		return cc;
		CONDS(X)
#undef X
	}
	return -1;
}

static const struct um_insn *op_set_mem(struct um_exec *x, const struct um_insn *i)
{
	if (!um_store(x, i, 1, um_cond(x, (unsigned)cond_of(i->op))))
		return um_stop(x, i);
	return i + 1;
}

/* The source is read whatever the condition says. */
static const struct um_insn *op_cmov_mem(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_load(x, i, i->osz, &v))
		return um_stop(x, i);
	if (!um_cond(x, (unsigned)cond_of(i->op)))
		v = um_reg(x, i->reg[0], i->osz);
	um_set_reg(x, i->reg[0], i->osz, v);
	return i + 1;
}

um_insn_fn um_bind_cond(const struct um_insn *i)
{
	switch (i->op) {
#define X(cc, name)                                                          \
	case ZYDIS_MNEMONIC_SET##name:                                       \
		return i->kind[0] == UM_OPD_MEM ? op_set_mem : op_set##name; \
	case ZYDIS_MNEMONIC_CMOV##name:                                      \
		return i->kind[1] == UM_OPD_MEM ? op_cmov_mem : op_cmov##name;
		CONDS(X)
#undef X
	}
	return NULL;
}

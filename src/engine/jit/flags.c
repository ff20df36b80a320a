// SPDX-License-Identifier: MIT
/*
 * Where the guest's status flags are.
 *
 * The translator's own code (TLB checks, looking up jumps) destroys the host's flags, and nearly
 * every guest instruction writes them; but few read them.  What must not be lost is what an
 * exception would show: so flags count as read by everything that can leave the block.
 *
 * To save them costs more than a memory access.  So after a comparison (or an addition, ...), they
 * are not saved but forgotten, with a recipe for having them again: the same comparison, as long as
 * its registers keep their values.  The recipe is executed by whoever reads the flags, mostly
 * nobody: the slow paths.
 *
 * Recipes, with r and s registers, or s a constant (TEST, BT, shifts, rotates and IMUL: those that are in registers of the host):
 *	CMP, TEST, BT r, s	itself
 *	AND, OR, XOR r, s	TEST r, r, also if s is in memory
 *	ADD r, s		MOV t, r; SUB t, s; ADD t, s
 *	SUB r, s		MOV t, r; ADD t, s; SUB t, s
 *	NEG r			MOV t, r; NEG t; NEG t
 *	SHL, SHR, SAR, IMUL	the same again, on a copy in memory of what r was
 *
 * What keeps some flags is done again behind what gives the flags before it (their recipe, or
 * loading them):
 *
 *	INC, DEC r		LEA t, [r -+ 1]; INC, DEC t
 *	ROL, ROR r, n		MOV t, r; ROR, ROL t, n; ROL, ROR t, n
 */
#include "engine/jit/trans.h"

#define ALL RFLAGS_STATUS

void um_flags_liveness(struct um_trans *t)
{
	u16 live = ALL;

	for (unsigned k = t->b->ninsns; k-- > 0;) {
		const struct um_facts *f = &t->facts[k];

		t->live[k + 1] = live;
		if (t->how[k] == UM_HOW_OUT || f->mem_size || f->may_fault) {
			live = ALL;
			continue;
		}
		if (!f->flags_maybe)
			live &= (u16)~f->flags_written;
		live |= f->flags_read;
	}
	t->live[0] = live;
}

/* Clobbers H_T2. */
static void emit_load(struct um_emit *e)
{
	if (um_host_feature(um_host(), UM_F_LAHF_LM))
		um_emit_status_load(e, H_T2, H_CTX, UM_JIT_OFF(jit.flags));
	else
		um_emit_flags_load(e, H_CTX, UM_JIT_OFF(jit.flags));
}

static void emit_recipe(struct um_trans *t, const struct um_recipe *r)
{
	um_emit_bytes(&t->e, r->code, r->len);
}

void um_flags_emit_save(struct um_trans *t, const struct um_flag_state *s)
{
	if (s->where & UM_FLAGS_SAVED)
		return;
	if (!(s->where & UM_FLAGS_HOST))
		emit_recipe(t, &s->recipe);
	um_emit_flags_save(&t->e, H_CTX, UM_JIT_OFF(jit.flags));
}

void um_flags_save(struct um_trans *t)
{
	um_flags_emit_save(t, &t->flags);
	t->flags.where = UM_FLAGS_SAVED;
}

void um_flags_spill(struct um_trans *t)
{
	if (t->flags.where == UM_FLAGS_HOST)
		um_flags_save(t);
	t->flags.where &= (u8)~UM_FLAGS_HOST;
}

void um_flags_want(struct um_trans *t)
{
	if (t->flags.where & UM_FLAGS_HOST)
		return;
	if (t->flags.where & UM_FLAGS_RECIPE)
		emit_recipe(t, &t->flags.recipe);
	else
		emit_load(&t->e);
	t->flags.where |= UM_FLAGS_HOST;
}

void um_flags_registers(struct um_trans *t)
{
	const struct um_facts *f = &t->facts[t->k];
	u16 regs = f->writes;

	if (!(t->flags.where & UM_FLAGS_RECIPE) || !(regs & t->flags.recipe.regs))
		return;
	if (t->flags.where == UM_FLAGS_RECIPE) {
		if (f->flags_maybe || (t->live[t->k + 1] & ~f->flags_written))
			um_flags_save(t);
		else
			t->flags.where = UM_FLAGS_SAVED; /* whatever they are */
	}
	t->flags.where &= (u8)~UM_FLAGS_RECIPE;
}

/* ---- recipes ---- */

/* Is operand @n of @i a whole register, of 4 or 8 bytes if the operand size is? */
static bool is_whole(const struct um_insn *i, unsigned n)
{
	return i->kind[n] == UM_OPD_GPR && !(i->reg[n] & 7);
}

/* Is it in one of the host's? */
static bool in_host(const struct um_insn *i, unsigned n)
{
	return is_whole(i, n) && um_jit_host(i->reg[n] / 8) != UM_JIT_IN_MEMORY;
}

/* Opcode @op, of "r, r/m", with t and the guest's register @g. */
static void recipe_op(struct um_emit *e, unsigned w, unsigned op, unsigned g)
{
	if (um_jit_host(g) == UM_JIT_IN_MEMORY)
		um_emit_rm(e, w, op, H_T2, H_CTX, um_jit_gpr(g));
	else
		um_emit_rr(e, w, op, H_T2, um_jit_host(g));
}

/* ADD OR ... CMP (@n = 0..7) t, source of @i, in the operand size of @i. */
static void recipe_alu(struct um_emit *e, const struct um_insn *i, unsigned n)
{
	unsigned w = i->osz == 8;

	if (i->kind[1] == UM_OPD_IMM)
		um_emit_alu_imm(e, w, n, H_T2, (s32)i->imm);
	else
		recipe_op(e, w, n << 3 | 3, i->reg[1] / 8);
}

static u16 reg_bit(const struct um_insn *i, unsigned n)
{
	return (u16)(1u << (i->reg[n] / 8));
}

static unsigned shift_count(const struct um_insn *i)
{
	return (unsigned)i->imm & (i->osz == 8 ? 63 : 31);
}

/* ModRM.reg of the shift or rotate @i; -1: it is none by a constant. */
static int shift_opcode(const struct um_insn *i)
{
	if (i->nops != 2 || i->kind[1] != UM_OPD_IMM || i->osz < 4 || !in_host(i, 0) ||
	    !shift_count(i))
		return -1;
	switch (i->op) {
	case ZYDIS_MNEMONIC_ROL:
		return 0;
	case ZYDIS_MNEMONIC_ROR:
		return 1;
	case ZYDIS_MNEMONIC_SHL:
		return 4;
	case ZYDIS_MNEMONIC_SHR:
		return 5;
	case ZYDIS_MNEMONIC_SAR:
		return 7;
	}
	return -1;
}

static bool is_rotate(const struct um_insn *i)
{
	return (unsigned)shift_opcode(i) < 2;
}

static bool is_imul(const struct um_insn *i)
{
	return i->op == ZYDIS_MNEMONIC_IMUL && i->nops >= 2 && i->osz >= 4 && in_host(i, 0) &&
	       in_host(i, 1);
}

bool um_jit_keeps_operand(const struct um_insn *i)
{
	return shift_opcode(i) >= 4 || (is_imul(i) && i->nops == 2);
}

/* Do the flags of @i depend on nothing but its result? */
static bool is_logical(const struct um_insn *i)
{
	return i->op == ZYDIS_MNEMONIC_AND || i->op == ZYDIS_MNEMONIC_OR ||
	       i->op == ZYDIS_MNEMONIC_XOR;
}

/* CMP, TEST; BT with a constant, or two registers of the host.  @copy NULL: it needs more than the copy. */
static bool recipe_same(struct um_emit *e, u16 *regs, const struct um_insn *i, const u8 *copy,
			unsigned len)
{
	bool imm = i->kind[1] == UM_OPD_IMM;

	if (!imm && i->kind[1] != UM_OPD_GPR)
		return false;
	*regs = reg_bit(i, 0) | (imm ? 0 : reg_bit(i, 1));
	if (copy) {
		um_emit_bytes(e, copy, len);
		return true;
	}
	if (i->op != ZYDIS_MNEMONIC_CMP || i->osz < 4 || imm || !is_whole(i, 0) || !is_whole(i, 1))
		return false;
	recipe_op(e, i->osz == 8, 0x8b, i->reg[0] / 8);
	recipe_alu(e, i, 7);
	return true;
}

static bool recipe_imul(struct um_emit *e, u16 *regs, const struct um_insn *i, const u8 *copy,
			unsigned len)
{
	unsigned by = i->reg[0] == i->reg[1] ? H_T2 : um_jit_host(i->reg[1] / 8);

	*regs = i->reg[0] == i->reg[1] ? 0 : reg_bit(i, 1);
	if (i->nops == 3) {
		*regs |= reg_bit(i, 0); /* written again, with what it has */
		um_emit_bytes(e, copy, len);
		return i->reg[0] != i->reg[1];
	}
	um_emit_load(e, 1, H_T2, H_CTX, UM_JIT_OFF(jit.operand));
	um_emit_rex(e, i->osz == 8, H_T2, 0, by);
	um_emit8(e, 0x0f);
	um_emit8(e, 0xaf);
	um_emit8(e, 0xc0 | (H_T2 & 7) << 3 | (by & 7));
	return true;
}

/* Recipes of instructions that write all flags.  @copy: what was copied, if that was all; else NULL. */
static bool recipe_full(struct um_emit *e, u16 *regs, const struct um_insn *i, const u8 *copy,
			unsigned len)
{
	bool imm = i->nops > 1 && i->kind[1] == UM_OPD_IMM;
	unsigned dst = i->reg[0] / 8, w = i->osz == 8;

	if (i->kind[0] != UM_OPD_GPR)
		return false;
	if (i->op == ZYDIS_MNEMONIC_CMP || i->op == ZYDIS_MNEMONIC_TEST)
		return recipe_same(e, regs, i, copy, len);
	if (copy && i->op == ZYDIS_MNEMONIC_BT && in_host(i, 0) && (imm || in_host(i, 1)))
		return recipe_same(e, regs, i, copy, len);
	if (copy && is_imul(i))
		return recipe_imul(e, regs, i, copy, len);
	if (shift_opcode(i) >= 4) {
		um_emit_load(e, 1, H_T2, H_CTX, UM_JIT_OFF(jit.operand));
		um_emit_shift(e, w, (unsigned)shift_opcode(i), H_T2, shift_count(i));
		return true;
	}
	if (i->osz < 4 || !is_whole(i, 0))
		return false;
	*regs = reg_bit(i, 0);
	if (i->op == ZYDIS_MNEMONIC_NEG) {
		recipe_op(e, w, 0x8b, dst);
		for (unsigned n = 0; n < 2; n++)
			um_emit_rr(e, w, 0xf7, 3, H_T2);
		return true;
	}
	if (is_logical(i)) {
		unsigned r = um_jit_host(dst);

		if (r == UM_JIT_IN_MEMORY)
			recipe_op(e, w, 0x8b, dst);
		r = r == UM_JIT_IN_MEMORY ? H_T2 : r;
		um_emit_rr(e, w, 0x85, r, r);
		return true;
	}
	if ((i->op != ZYDIS_MNEMONIC_ADD && i->op != ZYDIS_MNEMONIC_SUB) ||
	    (imm ? (s64)i->imm != (s32)i->imm : !is_whole(i, 1) || i->reg[0] == i->reg[1]))
		return false;
	if (!imm)
		*regs |= reg_bit(i, 1);
	recipe_op(e, w, 0x8b, dst);
	recipe_alu(e, i, i->op == ZYDIS_MNEMONIC_ADD ? 5 : 0);
	recipe_alu(e, i, i->op == ZYDIS_MNEMONIC_ADD ? 0 : 5);
	return true;
}

/* Recipes of those that keep some flags: behind what gives the flags before. */
static bool recipe_partial(struct um_emit *e, u16 *regs, const struct um_insn *i)
{
	unsigned dst = i->reg[0] / 8, w = i->osz == 8;

	if (i->osz < 4 || !is_whole(i, 0))
		return false;
	*regs |= reg_bit(i, 0);
	if (is_rotate(i)) {
		recipe_op(e, w, 0x8b, dst);
		um_emit_shift(e, w, i->op == ZYDIS_MNEMONIC_ROL, H_T2, shift_count(i));
		um_emit_shift(e, w, i->op != ZYDIS_MNEMONIC_ROL, H_T2, shift_count(i));
		return true;
	}
	if (i->op == ZYDIS_MNEMONIC_INC || i->op == ZYDIS_MNEMONIC_DEC) {
		bool dec = i->op == ZYDIS_MNEMONIC_DEC;

		recipe_op(e, w, 0x8b, dst);
		um_emit_lea(e, w, H_T2, H_T2, H_RSP, 0, dec ? 1 : -1);
		um_emit_rr(e, w, 0xff, dec, H_T2);
		return true;
	}
	return false;
}

#define ROTATE_RECIPE 11u /* bytes */

/* Does the result depend on CF alone of the flags before, as far as they matter? */
static bool only_carry(const struct um_trans *t, const struct um_facts *f)
{
	u16 kept = f->flags_written ? t->live[t->k + 1] & (u16)~f->flags_written : 0;

	return !f->flags_maybe && !((f->flags_read | kept) & ~RFLAGS_CF);
}

void um_flags_before(struct um_trans *t, const struct um_insn *i, const struct um_facts *f)
{
	u16 after = t->live[t->k + 1];

	if (after && !f->mem_size && um_jit_keeps_operand(i))
		um_emit_store(&t->e, 1, um_jit_host(i->reg[0] / 8), H_CTX, UM_JIT_OFF(jit.operand));
	if (!f->flags_read &&
	    (!f->flags_written || !(f->flags_maybe ? after : after & ~f->flags_written)))
		return;
	if (t->flags.where & UM_FLAGS_HOST)
		return;
	if (t->flags.where == UM_FLAGS_SAVED && only_carry(t, f)) {
		/* BT dword [flags], 0 */
		_Static_assert(RFLAGS_CF == BIT(0), "the bit tested");
		um_emit8(&t->e, 0x0f);
		um_emit_rm(&t->e, 0, 0xba, 4, H_CTX, UM_JIT_OFF(jit.flags));
		um_emit8(&t->e, 0);
		return;
	}
	/* (Its recipe takes the flags from where they are, as long as there is room.) */
	if (!f->mem_size && is_rotate(i) &&
	    (!(t->flags.where & UM_FLAGS_RECIPE) ||
	     t->flags.recipe.len <= sizeof(t->flags.recipe.code) - ROTATE_RECIPE))
		return;
	um_flags_want(t);
}

void um_flags_written(struct um_trans *t, const struct um_insn *i, const struct um_facts *f,
		      const u8 *copy, unsigned len)
{
	struct um_flag_state old = t->flags;
	struct um_recipe *r = &t->flags.recipe;
	struct um_emit e = { .p = r->code, .end = r->code + sizeof(r->code) };
	bool host = true, ok = false;
	u16 regs = 0;

	if (!f->flags_written)
		return;
	t->flags.where = 0;
	if ((!f->mem_size || is_logical(i)) && !f->flags_maybe) {
		if (f->flags_written == ALL) {
			ok = recipe_full(&e, &regs, i, copy, len);
		} else if (old.where & (UM_FLAGS_SAVED | UM_FLAGS_RECIPE)) {
			if (old.where & UM_FLAGS_SAVED) {
				emit_load(&e);
			} else {
				um_emit_bytes(&e, old.recipe.code, old.recipe.len);
				regs = old.recipe.regs;
			}
			ok = recipe_partial(&e, &regs, i);
			if (is_rotate(i))
				host = old.where & UM_FLAGS_HOST;
		}
	}
	ok = ok && !e.full;
	r->len = (u8)(e.p - r->code);
	r->regs = regs;
	t->flags.where = (host ? UM_FLAGS_HOST : 0) | (ok ? UM_FLAGS_RECIPE : 0);
	if (!t->flags.where)
		t->failed = true; /* a recipe that is too long */
}

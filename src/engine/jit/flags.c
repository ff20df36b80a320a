// SPDX-License-Identifier: MIT
/*
 * Where the guest's status flags are.
 *
 * The translator's own code (TLB checks, looking up jumps) destroys the host's flags, and nearly every guest instruction writes
 * them; but few read them.  What must not be lost is what an exception would show: so flags count as read by everything that can
 * leave the block.
 *
 * To save them costs more than a memory access.  So after a comparison (or an addition, ...), they are not saved but
 * forgotten, with a recipe for having them again: the same comparison, as long as its registers keep their values.  The recipe is executed
 * by whoever reads the flags, mostly nobody: the slow paths.
 *
 * Recipes, with r and s registers in registers of the host, or s a constant:
 *	CMP, TEST r, s		itself
 *	AND, OR, XOR r, s	TEST r, r
 *	ADD r, s		MOV t, r; SUB t, s; ADD t, s
 *	SUB r, s		MOV t, r; ADD t, s; SUB t, s
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
		um_emit_flags_load(&t->e, H_CTX, UM_JIT_OFF(jit.flags));
	t->flags.where |= UM_FLAGS_HOST;
}

void um_flags_registers(struct um_trans *t, u16 regs)
{
	if (!(t->flags.where & UM_FLAGS_RECIPE) || !(regs & t->flags.recipe.regs))
		return;
	if (t->flags.where == UM_FLAGS_RECIPE) {
		if (t->live[t->k])
			um_flags_save(t);
		else
			t->flags.where = UM_FLAGS_SAVED; /* whatever they are */
	}
	t->flags.where &= (u8)~UM_FLAGS_RECIPE;
}

/* ADD (@n = 0) or SUB (5) t, source of @i, in the operand size of @i. */
static void recipe_alu(struct um_emit *e, const struct um_insn *i, unsigned n)
{
	unsigned w = i->osz == 8;

	if (i->kind[1] == UM_OPD_IMM)
		um_emit_alu_imm(e, w, n, H_T2, (s32)i->imm);
	else
		um_emit_rr(e, w, n << 3 | 3, H_T2, um_jit_host(i->reg[1] / 8));
}

/* Is operand @n of @i a whole register of 4 or 8 bytes that is in a register? */
static bool in_host(const struct um_insn *i, unsigned n)
{
	return i->kind[n] == UM_OPD_GPR && !(i->reg[n] & 7) &&
	       um_jit_host(i->reg[n] / 8) != UM_JIT_IN_MEMORY;
}

static bool make_recipe(struct um_recipe *r, const struct um_insn *i, const u8 *copy, unsigned len)
{
	struct um_emit e = { .p = r->code, .end = r->code + sizeof(r->code) };
	bool imm = i->nops > 1 && i->kind[1] == UM_OPD_IMM;
	unsigned dst, w = i->osz == 8;

	if (i->nops != 2 || !in_host(i, 0) || !(imm || in_host(i, 1)))
		return false;
	dst = um_jit_host(i->reg[0] / 8);
	r->regs = (u16)(1u << (i->reg[0] / 8));
	if (!imm)
		r->regs |= (u16)(1u << (i->reg[1] / 8));
	switch (i->op) {
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_TEST:
		um_emit_bytes(&e, copy, len);
		break;
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
		if (i->osz < 4)
			return false;
		r->regs = (u16)(1u << (i->reg[0] / 8));
		um_emit_rr(&e, w, 0x85, dst, dst);
		break;
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
		if (i->osz < 4 || (!imm && i->reg[0] == i->reg[1]) ||
		    (imm && (s64)i->imm != (s32)i->imm))
			return false;
		um_emit_mov(&e, w, H_T2, dst);
		recipe_alu(&e, i, i->op == ZYDIS_MNEMONIC_ADD ? 5 : 0);
		recipe_alu(&e, i, i->op == ZYDIS_MNEMONIC_ADD ? 0 : 5);
		break;
	default:
		return false;
	}
	r->len = (u8)(e.p - r->code);
	return !e.full;
}

void um_flags_written(struct um_trans *t, const struct um_insn *i, const struct um_facts *f,
		      const u8 *copy, unsigned len)
{
	if (!f->flags_written)
		return;
	t->flags.where = UM_FLAGS_HOST;
	if (f->flags_written == ALL && !f->flags_maybe && !f->mem_size && len &&
	    make_recipe(&t->flags.recipe, i, copy, len))
		t->flags.where |= UM_FLAGS_RECIPE;
}

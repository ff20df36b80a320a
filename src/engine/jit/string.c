// SPDX-License-Identifier: MIT
/*
 * REP MOVS and REP STOS of what is in one page (of each operand), in 64-bit mode, upwards: by the
 * host's instruction, which finds RSI and RDI in the scratch registers, RCX and RAX in their
 * places.  All else is the interpreter's (interp/string.c).
 *
 * The guest's RSI and RDI are moved ahead by all elements before the host begins.  If it faults,
 * they are moved back by what is left of RCX, on the way to the interpreter: so the iterations that
 * were done are done.
 */
#include "engine/jit/trans.h"

static unsigned log2_of(unsigned size)
{
	return size == 8 ? 3 : size == 4 ? 2 : size - 1;
}

static bool is_movs(const struct um_insn *i)
{
	return i->op == ZYDIS_MNEMONIC_MOVSB || i->op == ZYDIS_MNEMONIC_MOVSW ||
	       i->op == ZYDIS_MNEMONIC_MOVSD || i->op == ZYDIS_MNEMONIC_MOVSQ;
}

/*
 * H_T1 := host address of what guest register @g points to; all RCX elements are in that page, and
 * may be accessed.
 */
static void emit_operand(struct um_trans *t, unsigned g, unsigned shift, enum um_access acc)
{
	struct um_emit *e = &t->e;

	/* Elements up to the page's end */
	um_emit_get(t, H_T1, g);
	um_emit_mov(e, 0, H_T0, H_T1);
	um_emit_alu_imm(e, 0, 1, H_T0, -(s32)UM_PAGE_SIZE);
	um_emit_rr(e, 0, 0xf7, 3, H_T0); /* NEG */
	if (shift)
		um_emit_shift(e, 0, 5, H_T0, shift);
	um_emit_rr(e, 1, 0x3b, H_RCX, H_T0);
	um_emit_slow_if(t, CC_A);
	um_emit_check(t, 1, acc, UM_NO_WINDOW);
}

/* Guest register @g += RCX elements. */
static void advance(struct um_emit *e, unsigned g, unsigned shift)
{
	um_emit_lea(e, 1, um_jit_host(g), um_jit_host(g), H_RCX, shift, 0);
}

bool um_string_ok(const struct um_trans *t, const struct um_insn *i, struct um_facts *f)
{
	_Static_assert((int)H_T0 == H_RSI && (int)H_T1 == H_RDI,
		       "the host's string instructions use them");
	if (!t->m64 || i->asz != 8 || !(i->flags & UM_INSN_REP) || i->kind[0] == UM_OPD_VEC ||
	    i->kind[1] == UM_OPD_VEC || (i->flags & (UM_INSN_UD | UM_INSN_TOOLONG | UM_INSN_LOCK)))
		return false;
	*f = (struct um_facts){ .may_fault = true, .mem_size = i->osz };
	f->writes = BIT(UM_RCX) | BIT(UM_RDI);
	switch (i->op) {
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		return true;
	}
	f->writes |= BIT(UM_RSI);
	return is_movs(i) && i->seg != UM_FS && i->seg != UM_GS;
}

void um_emit_string(struct um_trans *t, const struct um_insn *i)
{
	unsigned shift = log2_of(i->osz);
	struct um_emit *e = &t->e;
	bool movs = is_movs(i);
	u8 *none;

	um_flags_save(t);
	t->slow_flags[t->k] = t->flags;
	um_emit_rr(e, 1, 0x85, H_RCX, H_RCX); /* TEST */
	none = um_emit_jcc(e, CC_Z);
	um_emit_rm(e, 0, 0xf7, 0, H_CTX, UM_JIT_OFF(cpu.rflags)); /* TEST dword, DF */
	um_emit32(e, RFLAGS_DF);
	um_emit_slow_if(t, CC_NZ);
	if (movs) {
		emit_operand(t, UM_RSI, shift, UM_READ);
		um_emit_store(e, 1, H_T1, H_CTX, UM_JIT_OFF(jit.spare[0]));
	}
	emit_operand(t, UM_RDI, shift, UM_WRITE);
	if (movs) {
		um_emit_load(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.spare[0]));
		advance(e, UM_RSI, shift);
	}
	advance(e, UM_RDI, shift);
	um_emit8(e, 0xf3);
	if (i->osz == 2)
		um_emit8(e, 0x66);
	um_emit_rex(e, i->osz == 8, 0, 0, 0);
	um_emit8(e, (movs ? 0xa4 : 0xaa) | (i->osz > 1));
	um_emit_patch_here(e, none);
}

void um_emit_string_fault(struct um_trans *t, const struct um_insn *i)
{
	unsigned shift = log2_of(i->osz);
	struct um_emit *e = &t->e;

	um_emit_rr(e, 1, 0xf7, 3, H_RCX); /* NEG */
	if (is_movs(i))
		advance(e, UM_RSI, shift);
	advance(e, UM_RDI, shift);
	um_emit_rr(e, 1, 0xf7, 3, H_RCX);
}

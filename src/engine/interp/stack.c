// SPDX-License-Identifier: MIT
/*
 * PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE.
 *
 * Registers change only when all memory accesses are done; bytes below the stack pointer may be
 * written by an instruction that faults later, as on hardware.
 */
#include "engine/interp/ops.h"

/* RSP := @sp, as wide as the stack is. */
static void set_sp(struct um_exec *x, u64 sp)
{
	if (x->sp_mask == 0xffff)
		um_set_reg(x, UM_RSP * 8, 2, sp);
	else
		x->cpu.gpr[UM_RSP] = sp & x->sp_mask;
}

/* ---- PUSH, POP ---- */

static const struct um_insn *op_push(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_operand(x, i, 0, i->osz, &v) || !um_push(x, v, i->osz))
		return um_stop(x, i);
	return i + 1;
}

static const struct um_insn *op_push_reg_64(struct um_exec *x, const struct um_insn *i)
{
	u64 sp = x->cpu.gpr[UM_RSP] - 8;
	void *p = um_fast_lin(x, sp, 8, UM_WRITE);

	if (unlikely(!p) || unlikely(!um_put64(p, x->cpu.gpr[i->reg[0] / 8])))
		return op_push(x, i);
	x->cpu.gpr[UM_RSP] = sp;
	UM_NEXT(x, i);
}

static const struct um_insn *op_pop_reg(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_pop(x, &v, i->osz))
		return um_stop(x, i);
	um_set_reg(x, i->reg[0], i->osz, v); /* POP SP: the value popped stays */
	return i + 1;
}

static const struct um_insn *op_pop_reg_64(struct um_exec *x, const struct um_insn *i)
{
	u64 sp = x->cpu.gpr[UM_RSP], v;
	void *p = um_fast_lin(x, sp, 8, UM_READ);

	if (unlikely(!p) || unlikely(!um_get64(p, &v)))
		return op_pop_reg(x, i);
	x->cpu.gpr[UM_RSP] = sp + 8;
	x->cpu.gpr[i->reg[0] / 8] = v;
	UM_NEXT(x, i);
}

/* The address of the destination is formed with the new stack pointer (SDM vol. 2 POP). */
static const struct um_insn *op_pop_mem(struct um_exec *x, const struct um_insn *i)
{
	u64 sp = x->cpu.gpr[UM_RSP], v;

	if (!um_pop(x, &v, i->osz))
		return um_stop(x, i);
	if (!um_store(x, i, i->osz, v)) {
		x->cpu.gpr[UM_RSP] = sp;
		return um_stop(x, i);
	}
	return i + 1;
}

/* ---- PUSHA, POPA ---- */

static const struct um_insn *op_pusha(struct um_exec *x, const struct um_insn *i)
{
	u64 sp = x->cpu.gpr[UM_RSP];

	for (unsigned r = UM_RAX; r <= UM_RDI; r++) {
		if (!um_push(x, r == UM_RSP ? sp : x->cpu.gpr[r], i->osz)) {
			x->cpu.gpr[UM_RSP] = sp;
			return um_stop(x, i);
		}
	}
	return i + 1;
}

static const struct um_insn *op_popa(struct um_exec *x, const struct um_insn *i)
{
	u64 v[8];

	for (unsigned n = 0; n < 8; n++) {
		if (!um_stack_peek(x, n * i->osz, &v[UM_RDI - n], i->osz))
			return um_stop(x, i);
	}
	set_sp(x, x->cpu.gpr[UM_RSP] + 8 * i->osz);
	for (unsigned r = UM_RAX; r <= UM_RDI; r++) {
		if (r != UM_RSP)
			um_set_reg(x, r * 8, i->osz, v[r]);
	}
	return i + 1;
}

/* ---- PUSHF, POPF (SDM vol. 2; vol. 3 20.3 for virtual-8086 mode) ---- */

static bool vm86(const struct um_exec *x)
{
	return x->cpu.rflags & RFLAGS_VM;
}

static unsigned iopl(const struct um_exec *x)
{
	return (x->cpu.rflags & RFLAGS_IOPL) >> 12;
}

static const struct um_insn *op_pushf(struct um_exec *x, const struct um_insn *i)
{
	u64 f = um_get_rflags(x) & ~(RFLAGS_RF | RFLAGS_VM);

	if (vm86(x) && iopl(x) < 3) {
		if (!(x->cpu.cr4 & CR4_VME) || i->osz != 2) {
			um_raise_code(x, UM_VEC_GP, 0);
			return um_stop(x, i);
		}
		/* The virtual interrupt flag in place of IF, and IOPL 3. */
		f = (f & ~RFLAGS_IF) | RFLAGS_IOPL | (f & RFLAGS_VIF ? RFLAGS_IF : 0);
	}
	if (!um_push(x, f, i->osz))
		return um_stop(x, i);
	return i + 1;
}

static const struct um_insn *op_popf(struct um_exec *x, const struct um_insn *i)
{
	u64 old = um_get_rflags(x), new, may;
	bool virtual = vm86(x) && iopl(x) < 3;

	if (virtual && (!(x->cpu.cr4 & CR4_VME) || i->osz != 2)) {
		um_raise_code(x, UM_VEC_GP, 0);
		return um_stop(x, i);
	}
	if (!um_stack_peek(x, 0, &new, i->osz))
		return um_stop(x, i);

	may = RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID;
	if (virtual) {
		if ((new &RFLAGS_TF) || ((old & RFLAGS_VIP) && (new &RFLAGS_IF))) {
			um_raise_code(x, UM_VEC_GP, 0);
			return um_stop(x, i);
		}
		new = (new & ~RFLAGS_VIF) | (new &RFLAGS_IF ? RFLAGS_VIF : 0);
	} else {
		if (x->cpu.cpl <= iopl(x))
			may |= RFLAGS_IF;
		if (x->cpu.cpl == 0)
			may |= RFLAGS_IOPL;
	}
	if (i->osz == 2)
		may &= 0xffff;
	if (virtual)
		may |= RFLAGS_VIF;
	set_sp(x, x->cpu.gpr[UM_RSP] + i->osz);
	um_set_rflags(x, ((old & ~may) | (new &may)) & ~RFLAGS_RF);
	return um_end(x, i);
}

/* ---- ENTER, LEAVE ---- */

static const struct um_insn *op_enter(struct um_exec *x, const struct um_insn *i)
{
	u64 sp = x->cpu.gpr[UM_RSP], bp = x->cpu.gpr[UM_RBP], frame, v;
	unsigned level = i->imm2 & 31, size = i->osz;
	gva_t gva;

	if (!um_push(x, bp, size))
		goto fault;
	frame = x->cpu.gpr[UM_RSP];
	for (unsigned n = 1; n < level; n++) {
		/* Copy the pointers of the enclosing frames. */
		u64 at = (bp - n * size) & x->sp_mask;

		v = 0;
		if (!um_linear(x, UM_SS, at, size, UM_READ, &gva) ||
		    !um_check_align(x, gva, size) || !um_lin_read(x, gva, &v, size) ||
		    !um_push(x, v, size))
			goto fault;
	}
	if (level && !um_push(x, frame, size))
		goto fault;
	/* The new top of the stack must take a store (SDM vol. 2 ENTER), by its alignment, too. */
	v = (x->cpu.gpr[UM_RSP] - (u16)i->imm) & x->sp_mask;
	if (!um_linear(x, UM_SS, v, size, UM_WRITE, &gva) || !um_check_align(x, gva, size) ||
	    !um_lin_probe(x, gva, size, UM_WRITE))
		goto fault;
	set_sp(x, v);
	um_set_reg(x, UM_RBP * 8, size, frame);
	return i + 1;
fault:
	x->cpu.gpr[UM_RSP] = sp;
	return um_stop(x, i);
}

static const struct um_insn *op_leave(struct um_exec *x, const struct um_insn *i)
{
	u64 sp = x->cpu.gpr[UM_RSP], v;

	set_sp(x, x->cpu.gpr[UM_RBP]);
	if (!um_pop(x, &v, i->osz)) {
		x->cpu.gpr[UM_RSP] = sp;
		return um_stop(x, i);
	}
	um_set_reg(x, UM_RBP * 8, i->osz, v);
	return i + 1;
}

um_insn_fn um_bind_stack(const struct um_insn *i)
{
	switch (i->op) {
	case ZYDIS_MNEMONIC_PUSH:
		if (i->kind[0] == UM_OPD_GPR)
			return i->osz == 8 ? op_push_reg_64 : op_push;
		return i->kind[0] == UM_OPD_MEM || i->kind[0] == UM_OPD_IMM ? op_push : NULL;
	case ZYDIS_MNEMONIC_POP:
		if (i->kind[0] == UM_OPD_GPR)
			return i->osz == 8 ? op_pop_reg_64 : op_pop_reg;
		return i->kind[0] == UM_OPD_MEM ? op_pop_mem : NULL;
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
		return op_pusha;
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
		return op_popa;
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
		return op_pushf;
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		return op_popf;
	case ZYDIS_MNEMONIC_ENTER:
		return op_enter;
	case ZYDIS_MNEMONIC_LEAVE:
		return op_leave;
	}
	return NULL;
}

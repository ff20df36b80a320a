// SPDX-License-Identifier: MIT
/*
 * From an instruction to the function that executes it (interp/interp.h).
 *
 * One row a mnemonic, in the order of SDM vol. 2's chapters; a row names the binder of the file
 * that has the instruction.  A mnemonic without a row is not an integer instruction of ours: the
 * system's, a native stub's, or #UD.
 */
#include "cpu/cpuid.h"
#include "engine/interp/block.h"
#include "engine/interp/ops.h"

const struct um_insn *um_op_ud(struct um_exec *x, const struct um_insn *i)
{
	um_raise(x, UM_VEC_UD);
	return um_stop(x, i);
}

/* More than 15 bytes (SDM vol. 3 table 6-2 and 6.15, #GP). */
static const struct um_insn *op_too_long(struct um_exec *x, const struct um_insn *i)
{
	um_raise_code(x, UM_VEC_GP, 0);
	return um_stop(x, i);
}

#define M(name) ZYDIS_MNEMONIC_##name

static um_insn_fn (*const binders[])(const struct um_insn *i) = {
	[M(ADD)] = um_bind_alu,
	[M(OR)] = um_bind_alu,
	[M(ADC)] = um_bind_alu,
	[M(SBB)] = um_bind_alu,
	[M(AND)] = um_bind_alu,
	[M(SUB)] = um_bind_alu,
	[M(XOR)] = um_bind_alu,
	[M(CMP)] = um_bind_alu,
	[M(TEST)] = um_bind_alu,
	[M(INC)] = um_bind_unary,
	[M(DEC)] = um_bind_unary,
	[M(NEG)] = um_bind_unary,
	[M(NOT)] = um_bind_unary,

	[M(MOV)] = um_bind_mov,
	[M(MOVZX)] = um_bind_extend,
	[M(MOVSX)] = um_bind_extend,
	[M(MOVSXD)] = um_bind_extend,
	[M(LEA)] = um_bind_lea,

#define X(name)                                                        \
	[M(SET##name)] = um_bind_cond, [M(CMOV##name)] = um_bind_cond, \
	[M(J##name)] = um_bind_branch,
	// clang-format off
	X(O) X(NO) X(B) X(NB) X(Z) X(NZ) X(BE) X(NBE)
	X(S) X(NS) X(P) X(NP) X(L) X(NL) X(LE) X(NLE)
// clang-format on
#undef X

		[M(PUSH)] = um_bind_stack,
	[M(POP)] = um_bind_stack,
	[M(PUSHA)] = um_bind_stack,
	[M(PUSHAD)] = um_bind_stack,
	[M(POPA)] = um_bind_stack,
	[M(POPAD)] = um_bind_stack,
	[M(PUSHF)] = um_bind_stack,
	[M(PUSHFD)] = um_bind_stack,
	[M(PUSHFQ)] = um_bind_stack,
	[M(POPF)] = um_bind_stack,
	[M(POPFD)] = um_bind_stack,
	[M(POPFQ)] = um_bind_stack,
	[M(ENTER)] = um_bind_stack,
	[M(LEAVE)] = um_bind_stack,

	[M(JMP)] = um_bind_branch,
	[M(CALL)] = um_bind_branch,
	[M(RET)] = um_bind_branch,
	[M(LOOP)] = um_bind_branch,
	[M(LOOPE)] = um_bind_branch,
	[M(LOOPNE)] = um_bind_branch,
	[M(JCXZ)] = um_bind_branch,
	[M(JECXZ)] = um_bind_branch,
	[M(JRCXZ)] = um_bind_branch,

	[M(ROL)] = um_bind_shift,
	[M(ROR)] = um_bind_shift,
	[M(RCL)] = um_bind_shift,
	[M(RCR)] = um_bind_shift,
	[M(SHL)] = um_bind_shift,
	[M(SHR)] = um_bind_shift,
	[M(SAR)] = um_bind_shift,
	[M(SHLD)] = um_bind_shift,
	[M(SHRD)] = um_bind_shift,

	[M(MUL)] = um_bind_muldiv,
	[M(IMUL)] = um_bind_muldiv,
	[M(DIV)] = um_bind_muldiv,
	[M(IDIV)] = um_bind_muldiv,
	[M(AAM)] = um_bind_muldiv,
	[M(AAD)] = um_bind_muldiv,

	[M(BT)] = um_bind_bits,
	[M(BTS)] = um_bind_bits,
	[M(BTR)] = um_bind_bits,
	[M(BTC)] = um_bind_bits,
	[M(BSF)] = um_bind_bits,
	[M(BSR)] = um_bind_bits,
	[M(TZCNT)] = um_bind_bits,
	[M(LZCNT)] = um_bind_bits,
	[M(POPCNT)] = um_bind_bits,

	[M(XCHG)] = um_bind_exchange,
	[M(XADD)] = um_bind_exchange,
	[M(CMPXCHG)] = um_bind_exchange,
	[M(CMPXCHG8B)] = um_bind_exchange,
	[M(CMPXCHG16B)] = um_bind_exchange,

	[M(MOVSB)] = um_bind_string,
	[M(MOVSW)] = um_bind_string,
	[M(MOVSD)] = um_bind_string,
	[M(MOVSQ)] = um_bind_string,
	[M(CMPSB)] = um_bind_string,
	[M(CMPSW)] = um_bind_string,
	[M(CMPSD)] = um_bind_string,
	[M(CMPSQ)] = um_bind_string,
	[M(SCASB)] = um_bind_string,
	[M(SCASW)] = um_bind_string,
	[M(SCASD)] = um_bind_string,
	[M(SCASQ)] = um_bind_string,
	[M(LODSB)] = um_bind_string,
	[M(LODSW)] = um_bind_string,
	[M(LODSD)] = um_bind_string,
	[M(LODSQ)] = um_bind_string,
	[M(STOSB)] = um_bind_string,
	[M(STOSW)] = um_bind_string,
	[M(STOSD)] = um_bind_string,
	[M(STOSQ)] = um_bind_string,

	[M(CBW)] = um_bind_misc,
	[M(CWDE)] = um_bind_misc,
	[M(CDQE)] = um_bind_misc,
	[M(CWD)] = um_bind_misc,
	[M(CDQ)] = um_bind_misc,
	[M(CQO)] = um_bind_misc,
	[M(LAHF)] = um_bind_misc,
	[M(SAHF)] = um_bind_misc,
	[M(CLC)] = um_bind_misc,
	[M(STC)] = um_bind_misc,
	[M(CMC)] = um_bind_misc,
	[M(CLD)] = um_bind_misc,
	[M(STD)] = um_bind_misc,
	[M(SALC)] = um_bind_misc,
	[M(BSWAP)] = um_bind_misc,
	[M(MOVBE)] = um_bind_misc,
	[M(XLAT)] = um_bind_misc,
	[M(BOUND)] = um_bind_misc,
	[M(DAA)] = um_bind_misc,
	[M(DAS)] = um_bind_misc,
	[M(AAA)] = um_bind_misc,
	[M(AAS)] = um_bind_misc,

	[M(NOP)] = um_bind_misc,
	[M(PAUSE)] = um_bind_misc,
	[M(LFENCE)] = um_bind_misc,
	[M(MFENCE)] = um_bind_misc,
	[M(SFENCE)] = um_bind_misc,
	[M(PREFETCH)] = um_bind_misc,
	[M(PREFETCHNTA)] = um_bind_misc,
	[M(PREFETCHT0)] = um_bind_misc,
	[M(PREFETCHT1)] = um_bind_misc,
	[M(PREFETCHT2)] = um_bind_misc,
	[M(PREFETCHW)] = um_bind_misc,
	[M(PREFETCHWT1)] = um_bind_misc,
	[M(ENDBR32)] = um_bind_misc,
	[M(ENDBR64)] = um_bind_misc,
};

/*
 * Instructions that came with a CPUID bit, as a processor without it takes them: TZCNT and LZCNT
 * ignore their prefix and are BSF and BSR (SDM vol. 2), the others are not there: false.
 */
static bool offered(const struct um_cpu *c, struct um_insn *i)
{
	switch (i->op) {
	case M(TZCNT):
		if (!um_cpu_has(c, UM_F_BMI1))
			i->op = M(BSF);
		return true;
	case M(LZCNT):
		if (!um_cpu_has(c, UM_F_ABM))
			i->op = M(BSR);
		return true;
	case M(POPCNT):
		return um_cpu_has(c, UM_F_POPCNT);
	case M(MOVBE):
		return um_cpu_has(c, UM_F_MOVBE);
	case M(CMPXCHG8B):
		return um_cpu_has(c, UM_F_CX8);
	case M(CMPXCHG16B):
		return um_cpu_has(c, UM_F_CX16);
	case M(LAHF):
	case M(SAHF):
		return i->mode != UM_MODE_64 || um_cpu_has(c, UM_F_LAHF_LM);
	}
	return true;
}

um_insn_fn um_core_bind(const struct um_insn *i)
{
	if (i->op >= ARRAY_SIZE(binders) || !binders[i->op])
		return NULL;
	return binders[i->op](i);
}

void um_interp_bind(struct um_exec *x, struct um_insn *i, const u8 *bytes)
{
	if ((i->flags & UM_INSN_UD) || !offered(&x->cpu, i)) {
		i->fn = um_op_ud;
		return;
	}
	if (i->flags & UM_INSN_TOOLONG) {
		i->fn = op_too_long;
		return;
	}
	i->fn = um_core_bind(i);
	if (i->fn)
		return;
	i->fn = um_system_bind(x, i);
	if (i->fn) {
		if (!(i->flags & UM_INSN_SYSTEM))
			i->flags |= UM_INSN_END;
		return;
	}
	/* What changes RIP can't be run by a stub; UD0, UD1 and UD2 are of this kind. */
	if ((i->flags & UM_INSN_BRANCH) || !um_native_bind(x, i, bytes) || !i->fn)
		i->fn = um_op_ud;
}

/*
 * Which function executes an instruction depends on its first bytes and on what the guest's CPUID
 * offers; which stub, on its immediate, too, since the stub has it.
 */
unsigned um_interp_decode(struct um_exec *x, struct um_insn *i, enum um_mode mode, const u8 *bytes,
			  unsigned avail, u16 off)
{
	struct um_decode_entry *e;
	unsigned len = um_decode_cached(&x->interp->decoded, i, mode, bytes, avail, off, &e);

	if (!len || i->fn)
		return len;
	um_interp_bind(x, i, bytes);
	if (e && !(i->imm_len && i->aux) && i->fn != um_native_no_memory)
		um_decode_keep(e, i);
	return len;
}

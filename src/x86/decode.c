// SPDX-License-Identifier: MIT
/*
 * The decoder: Zydis's answer, brought into the shape of struct um_insn.
 *
 * Zydis is set up as the processors that umbra presents to guests: Intel's treatment of 66h before
 * near branches in 64-bit mode, LZCNT and TZCNT, and neither MPX nor CET, whose opcodes are then
 * what they were before: the reserved NOPs of 0F 1A..1E (SDM vol. 2 appendix A).  What is left to
 * do here:
 *
 *   - operands become byte offsets into the register file, RIP-relative addresses become
 * page-relative,
 *   - repeat prefixes are read as the processor does: the last of F2 and F3 counts, and F2 repeats
 *     MOVS, STOS, LODS, INS and OUTS just as F3 does,
 *   - instructions are sorted into those that end a block, and why.
 *
 * No state: a ZydisDecoder is some thirty bytes, made on the stack by each call.
 */
#include "x86/insn.h"

#include <string.h>

void um_zydis_init(ZydisDecoder *d, enum um_mode mode)
{
	switch (mode) {
	case UM_MODE_REAL:
		ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16);
		break;
	case UM_MODE_16:
		ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
		break;
	case UM_MODE_32:
		ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
		break;
	default:
		ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
		break;
	}
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
}

/* Byte offset into gpr[] (UM_OPD_GPR), or a register's number. */
static bool operand_reg(ZydisRegister r, u8 *kind, u8 *reg)
{
	int id = ZydisRegisterGetId(r);

	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
		*kind = UM_OPD_GPR;
		if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
			*reg = (u8)((r - ZYDIS_REGISTER_AH) * 8 + 1);
		else if (r >= ZYDIS_REGISTER_SPL)
			*reg = (u8)((r - ZYDIS_REGISTER_SPL + UM_RSP) * 8);
		else
			*reg = (u8)((r - ZYDIS_REGISTER_AL) * 8);
		return true;
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		*kind = UM_OPD_GPR;
		*reg = (u8)(id * 8);
		return true;
	case ZYDIS_REGCLASS_X87:
		*kind = UM_OPD_X87;
		break;
	case ZYDIS_REGCLASS_MMX:
		*kind = UM_OPD_MMX;
		break;
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
	case ZYDIS_REGCLASS_ZMM:
		*kind = UM_OPD_VEC;
		break;
	case ZYDIS_REGCLASS_SEGMENT:
		*kind = UM_OPD_SEG;
		break;
	case ZYDIS_REGCLASS_CONTROL:
		*kind = UM_OPD_CR;
		break;
	case ZYDIS_REGCLASS_DEBUG:
		*kind = UM_OPD_DR;
		break;
	case ZYDIS_REGCLASS_MASK:
		*kind = UM_OPD_K;
		break;
	default:
		*kind = UM_OPD_OTHER;
		break;
	}
	*reg = (u8)um_max(id, 0);
	return true;
}

static u8 address_reg(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return (u8)ZydisRegisterGetId(r);
	case ZYDIS_REGCLASS_IP:
		return UM_REG_PAGE;
	default: /* none, or the vector index of a gather */
		return UM_REG_ZERO;
	}
}

static u8 segment_of(ZydisRegister r)
{
	return ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_SEGMENT ? (u8)ZydisRegisterGetId(r)
								  : UM_DS;
}

static void memory_operand(struct um_insn *i, const ZydisDecodedInstruction *z,
			   const ZydisDecodedOperand *o)
{
	i->flags |= UM_INSN_MEM;
	i->seg = segment_of(o->mem.segment);
	i->base = address_reg(o->mem.base);
	i->index = address_reg(o->mem.index);
	i->scale = o->mem.scale ? (u8)__builtin_ctz(o->mem.scale) : 0;
	i->disp = o->mem.disp.value;
	/* SIB with base 101b and mod 00b is disp32 without a base, also with REX.B (SDM vol. 2 2.2.1.3). */
	if ((z->attributes & ZYDIS_ATTRIB_HAS_SIB) && z->raw.modrm.mod == 0 &&
	    z->raw.sib.base == 5) {
		i->base = UM_REG_ZERO;
		i->disp = z->raw.disp.value;
	}
	if (i->base == UM_REG_PAGE)
		i->disp += i->off + i->len;
	if (o->mem.type != ZYDIS_MEMOP_TYPE_AGEN && o->size / 8 <= 64)
		i->msz = (u8)(o->size / 8);
}

static void operand(struct um_insn *i, const ZydisDecodedInstruction *z, unsigned n,
		    const ZydisDecodedOperand *o)
{
	u8 kind = UM_OPD_OTHER, reg = 0;

	switch (o->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		operand_reg(o->reg.value, &kind, &reg);
		break;
	case ZYDIS_OPERAND_TYPE_MEMORY:
		kind = UM_OPD_MEM;
		memory_operand(i, z, o);
		break;
	case ZYDIS_OPERAND_TYPE_POINTER:
		kind = UM_OPD_FAR;
		i->imm = o->ptr.offset;
		i->imm2 = o->ptr.segment;
		break;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		if (n && n <= ARRAY_SIZE(i->kind) && i->kind[n - 1] == UM_OPD_IMM) {
			kind = UM_OPD_IMM;
			i->imm2 = (u16)o->imm.value.u;
		} else {
			kind = o->imm.is_relative ? UM_OPD_REL : UM_OPD_IMM;
			i->imm = o->imm.value.u;
		}
		break;
	default:
		break;
	}
	if (n < ARRAY_SIZE(i->kind)) {
		i->kind[n] = kind;
		i->reg[n] = reg;
	}
}

static bool is_string(u16 op)
{
	switch (op) {
	case ZYDIS_MNEMONIC_MOVSB ... ZYDIS_MNEMONIC_MOVSW: /* with look-alikes between: see
							       is_sse() */
	case ZYDIS_MNEMONIC_CMPSB ... ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_SCASB ... ZYDIS_MNEMONIC_SCASW:
	case ZYDIS_MNEMONIC_LODSB ... ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_STOSB ... ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_INSB ... ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_OUTSB ... ZYDIS_MNEMONIC_OUTSW:
		return true;
	}
	return false;
}

/* The repeat prefix as the processor sees it: the last one counts. */
static void string_prefix(struct um_insn *i, const ZydisDecodedInstruction *z)
{
	bool compares = (i->op >= ZYDIS_MNEMONIC_CMPSB && i->op <= ZYDIS_MNEMONIC_CMPSW) ||
			(i->op >= ZYDIS_MNEMONIC_SCASB && i->op <= ZYDIS_MNEMONIC_SCASW);
	u8 last = 0;

	for (unsigned n = 0; n < z->raw.prefix_count; n++) {
		u8 p = z->raw.prefixes[n].value;

		if (p == 0xf2 || p == 0xf3)
			last = p;
	}
	if (last)
		i->flags |= last == 0xf2 && compares ? UM_INSN_REPNE : UM_INSN_REP;
}

/* Why the instruction is the last of its block, and whether it is the system's. */
static u16 classify(const ZydisDecodedInstruction *z)
{
	u16 f = 0;

	if (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		f |= UM_INSN_SYSTEM | UM_INSN_END;
	if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR &&
	    (z->mnemonic == ZYDIS_MNEMONIC_JMP || z->mnemonic == ZYDIS_MNEMONIC_CALL ||
	     z->mnemonic == ZYDIS_MNEMONIC_RET))
		f |= UM_INSN_FAR;

	switch (z->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_INTERRUPT:
		f |= UM_INSN_BRANCH;
		break;
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
		f |= UM_INSN_BRANCH | UM_INSN_SYSTEM;
		break;
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_SEGOP:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_SMAP:
	case ZYDIS_CATEGORY_RDWRFSGS:
	case ZYDIS_CATEGORY_SERIALIZE:
	case ZYDIS_CATEGORY_SGX:
	case ZYDIS_CATEGORY_WAITPKG:
	case ZYDIS_CATEGORY_PCONFIG:
	case ZYDIS_CATEGORY_RDPID:
	case ZYDIS_CATEGORY_RDPRU:
	case ZYDIS_CATEGORY_UINTR:
	case ZYDIS_CATEGORY_ENQCMD:
		f |= UM_INSN_SYSTEM | UM_INSN_END;
		break;
	default:
		break;
	}

	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
	case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_SYSEXIT:
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSRET:
	case ZYDIS_MNEMONIC_RSM:
	case ZYDIS_MNEMONIC_VMRUN:
		f |= UM_INSN_BRANCH | UM_INSN_SYSTEM;
		break;
	case ZYDIS_MNEMONIC_UD0: /* these never complete */
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_XBEGIN:
	case ZYDIS_MNEMONIC_XABORT:
		f |= UM_INSN_BRANCH;
		break;
	case ZYDIS_MNEMONIC_STI: /* change IF, TF or the interrupt shadow */
	case ZYDIS_MNEMONIC_CLI:
		f |= UM_INSN_SYSTEM | UM_INSN_END;
		break;
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_HLT:
	case ZYDIS_MNEMONIC_MONITOR: /* may wait, may let time pass */
	case ZYDIS_MNEMONIC_MONITORX:
	case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_MWAITX:
	case ZYDIS_MNEMONIC_PAUSE:
	case ZYDIS_MNEMONIC_CPUID: /* serialize */
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_XSETBV: /* change what may be executed, or how */
	case ZYDIS_MNEMONIC_WRPKRU:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_SWAPGS:
	case ZYDIS_MNEMONIC_CLGI:
	case ZYDIS_MNEMONIC_STGI:
		f |= UM_INSN_END;
		break;
	default:
		break;
	}
	return f;
}

/* MOV and POP to a segment register, MOV to and from control and debug registers. */
static u16 classify_operands(const struct um_insn *i)
{
	if (i->op != ZYDIS_MNEMONIC_MOV && i->op != ZYDIS_MNEMONIC_POP &&
	    i->op != ZYDIS_MNEMONIC_PUSH)
		return 0;
	for (unsigned n = 0; n < i->nops && n < ARRAY_SIZE(i->kind); n++) {
		switch (i->kind[n]) {
		case UM_OPD_SEG: /* reading one changes nothing */
			if (n == 0 && i->op != ZYDIS_MNEMONIC_PUSH)
				return UM_INSN_SYSTEM | UM_INSN_END;
			return UM_INSN_SYSTEM;
		case UM_OPD_CR:
		case UM_OPD_DR:
			return UM_INSN_SYSTEM | UM_INSN_END;
		}
	}
	return 0;
}

/* Encodings of processors that umbra never is: Xeon Phi's first generation. */
static bool is_foreign(const ZydisDecodedInstruction *z)
{
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX ||
	       z->meta.isa_ext == ZYDIS_ISA_EXT_KNC || z->meta.isa_ext == ZYDIS_ISA_EXT_KNCE ||
	       z->meta.isa_ext == ZYDIS_ISA_EXT_KNCV;
}

/*
 * Where the displacement and the immediate are, and whether they are all that other bytes than the first (x86/decode_cache.h)
 * decide.
 */
static void layout(struct um_insn *i, const ZydisDecoderContext *ctx,
		   const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	s64 disp = z->raw.disp.value;

	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW ||
	    z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP || z->raw.imm[1].size)
		return;
	for (unsigned n = 0; n < z->operand_count; n++) {
		if (ops[n].type == ZYDIS_OPERAND_TYPE_POINTER ||
		    ops[n].encoding == ZYDIS_OPERAND_ENCODING_IS4)
			return;
	}
	i->disp_scale = 1;
	if (z->raw.disp.size) {
		if (z->raw.disp.size == 8 && ctx->cd8_scale)
			i->disp_scale = ctx->cd8_scale;
		disp *= i->disp_scale;
		if (i->base == UM_REG_PAGE)
			disp += i->off + i->len;
		if (disp != i->disp)
			return;
		i->disp_at = z->raw.disp.offset;
		i->disp_len = z->raw.disp.size / 8;
	}
	if (z->raw.imm[0].size) {
		if (i->imm != z->raw.imm[0].value.u)
			return;
		i->imm_at = z->raw.imm[0].offset;
		i->imm_len = z->raw.imm[0].size / 8;
		i->imm_signed = z->raw.imm[0].is_signed;
	}
	i->plain = true;
}

static void fill(struct um_insn *i, const ZydisDecoder *d, const ZydisDecoderContext *ctx,
		 const ZydisDecodedInstruction *z)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	unsigned all = z->operand_count, visible = z->operand_count_visible;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeOperands(d, ctx, z, ops, z->operand_count))) {
		i->flags = UM_INSN_UD | UM_INSN_END;
		return;
	}
	i->op = (u16)z->mnemonic;
	i->len = z->length;
	i->osz = (u8)um_max(z->operand_width / 8, 1);
	i->asz = z->address_width / 8;
	i->nops = (u8)visible;
	i->flags = classify(z);
	if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		i->flags |= UM_INSN_LOCK;
	if (z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT)
		i->flags |= UM_INSN_SEGOVERRIDE;
	for (unsigned n = 0; n < visible; n++)
		operand(i, z, n, &ops[n]);
	i->flags |= classify_operands(i);

	/*
	 * The sources of MOVZX and its kin differ in size from operand 0: msz says which, for
	 * registers too.
	 */
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_CRC32:
		i->osz = (u8)(ops[0].size / 8);
		i->msz = (u8)(ops[1].size / 8);
		/* MOVSXD r16, r/m16 (SDM vol. 2). */
		if (z->mnemonic == ZYDIS_MNEMONIC_MOVSXD)
			i->msz = um_min(i->msz, i->osz);
		break;
	default:
		break;
	}

	/* The segment of implied memory operands: the source of strings, XLAT's table, MASKMOV's
	 * target. */
	if (!(i->flags & UM_INSN_MEM)) {
		for (unsigned n = visible; n < all; n++) {
			if (ops[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
				continue;
			if (ZydisRegisterGetId(ops[n].mem.base) == UM_RDI && n + 1 < all &&
			    ops[n + 1].type == ZYDIS_OPERAND_TYPE_MEMORY)
				continue; /* ES:RDI of MOVS; DS:RSI follows */
			i->seg = segment_of(ops[n].mem.segment);
			if (ZydisRegisterGetId(ops[n].mem.base) == UM_RSI)
				break;
		}
	}
	if (is_string(i->op) && !visible && z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		string_prefix(i, z);
	layout(i, ctx, z, ops);
}

unsigned um_decode(struct um_insn *i, enum um_mode mode, const u8 *bytes, unsigned avail, u16 off)
{
	ZydisDecoder d;
	ZydisDecoderContext ctx;
	ZydisDecodedInstruction z;
	ZyanStatus st;

	um_zydis_init(&d, mode);
	st = ZydisDecoderDecodeInstruction(&d, &ctx, bytes, um_min(avail, 15u), &z);
	if (st == ZYDIS_STATUS_NO_MORE_DATA && avail < 15)
		return 0;

	*i = (struct um_insn){ .fn = i->fn, .aux = i->aux };
	i->off = off;
	i->mode = (u8)mode;
	i->base = i->index = UM_REG_ZERO;
	i->seg = UM_DS;
	i->len = 1;
	i->osz = i->asz = mode == UM_MODE_64 ? 8 : mode == UM_MODE_32 ? 4 : 2;
	if (ZYAN_SUCCESS(st) && is_foreign(&z)) {
		i->flags = UM_INSN_UD | UM_INSN_END;
	} else if (ZYAN_SUCCESS(st)) {
		fill(i, &d, &ctx, &z);
	} else if (st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || st == ZYDIS_STATUS_NO_MORE_DATA) {
		i->flags = UM_INSN_TOOLONG | UM_INSN_END;
		i->len = 15;
	} else {
		i->flags = UM_INSN_UD | UM_INSN_END;
	}
	return i->len;
}

unsigned um_disassemble(enum um_mode mode, const u8 *bytes, unsigned avail, u64 ip, char *text,
			size_t size)
{
	ZydisDecoder d;
	ZydisFormatter f;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

	if (size)
		text[0] = 0;
	um_zydis_init(&d, mode);
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, um_min(avail, 15u), &z, ops)) ||
	    !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&f, &z, ops, z.operand_count_visible,
							  text, size, ip, NULL))) {
		static const char bad[] = "(bad)";

		if (size) {
			size_t n = um_min(sizeof(bad) - 1, size - 1);

			memcpy(text, bad, n);
			text[n] = 0;
		}
		return 1;
	}
	return z.length;
}

// SPDX-License-Identifier: MIT
/*
 * Facts about instructions, and their copies.
 *
 * Zydis knows the operands and flags of all instructions; what it leaves open is settled here: what
 * "conditional" means for each instruction, shifts whose count is known, operands that are no data.
 * Integer instructions that may be copied are listed (SDM vol. 2, by chapter); SIMD and the rest
 * are what the interpreter's native stubs run (interp/native.h), and those know what state they
 * need.
 *
 * Encodings are taken apart and put together by engine/encode.h; between the two, registers get
 * their new numbers.
 */
#include "engine/jit/copy.h"

#include <string.h>

#include "engine/interp/native.h"

#define M(name) ZYDIS_MNEMONIC_##name

/* ---- which ---- */

enum kind {
	OTHER,	 /* not an integer instruction of the core */
	PLAIN,	 /* what Zydis says is all */
	SHIFT,	 /* with a count: the flags stay if it is 0 */
	BIT,	 /* BT and kin: the bit offset may reach beyond the operand */
	SCAN,	 /* BSF, BSR: a source of 0 leaves the destination */
	DIVIDE,	 /* may raise #DE */
	NOTHING, /* hints */
	REFUSED, /* copies would do something else */
};

static enum kind kind_of(ZydisMnemonic op)
{
	switch (op) {
	case M(ADD):
	case M(OR):
	case M(ADC):
	case M(SBB):
	case M(AND):
	case M(SUB):
	case M(XOR):
	case M(CMP):
	case M(TEST):
	case M(INC):
	case M(DEC):
	case M(NEG):
	case M(NOT):
	case M(MUL):
	case M(IMUL):
	case M(MOV):
	case M(MOVZX):
	case M(MOVSX):
	case M(MOVSXD):
	case M(MOVBE):
	case M(BSWAP):
	case M(XCHG):
	case M(XADD):
	case M(CMPXCHG):
	case M(CMPXCHG8B):
	case M(CMPXCHG16B):
	case M(CBW):
	case M(CWDE):
	case M(CDQE):
	case M(CWD):
	case M(CDQ):
	case M(CQO):
	case M(LAHF):
	case M(SAHF):
	case M(CLC):
	case M(STC):
	case M(CMC):
	case M(TZCNT):
	case M(LZCNT):
	case M(POPCNT):
	case M(LFENCE):
	case M(MFENCE):
	case M(SFENCE):
#define X(cc)            \
	case M(SET##cc): \
	case M(CMOV##cc):
		// clang-format off
	X(O) X(NO) X(B) X(NB) X(Z) X(NZ) X(BE) X(NBE)
	X(S) X(NS) X(P) X(NP) X(L) X(NL) X(LE) X(NLE)
		// clang-format on
#undef X
				return PLAIN;
	case M(ROL):
	case M(ROR):
	case M(RCL):
	case M(RCR):
	case M(SHL):
	case M(SHR):
	case M(SAR):
	case M(SHLD):
	case M(SHRD):
		return SHIFT;
	case M(BT):
	case M(BTS):
	case M(BTR):
	case M(BTC):
		return BIT;
	case M(BSF):
	case M(BSR):
		return SCAN;
	case M(DIV):
	case M(IDIV):
		return DIVIDE;
	case M(NOP):
	case M(ENDBR32):
	case M(ENDBR64):
	case M(PREFETCH):
	case M(PREFETCHNTA):
	case M(PREFETCHT0):
	case M(PREFETCHT1):
	case M(PREFETCHT2):
	case M(PREFETCHW):
	case M(PREFETCHWT1):
		return NOTHING;
	/* What works on all of the state, on other state than registers, or changes RIP. */
	case M(UD0):
	case M(UD1):
	case M(UD2):
	case M(SYSENTER):
	case M(SYSEXIT):
	case M(FXSAVE):
	case M(FXSAVE64):
	case M(FXRSTOR):
	case M(FXRSTOR64):
	case M(XSAVE):
	case M(XSAVE64):
	case M(XSAVEOPT):
	case M(XSAVEOPT64):
	case M(XSAVEC):
	case M(XSAVEC64):
	case M(XSAVES):
	case M(XSAVES64):
	case M(XRSTORS):
	case M(XRSTORS64):
	case M(XRSTOR):
	case M(XRSTOR64):
	case M(XGETBV):
	case M(XSETBV):
	case M(RDPKRU):
	case M(WRPKRU):
	case M(MOVDIR64B):
		return REFUSED;
	default:
		return OTHER;
	}
}

/* What the guest's CPUID must have for it to be this instruction (as in interp/bind.c). */
static enum um_feature feature_of(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case M(TZCNT):
		return UM_F_BMI1;
	case M(LZCNT):
		return UM_F_ABM;
	case M(POPCNT):
		return UM_F_POPCNT;
	case M(MOVBE):
		return UM_F_MOVBE;
	case M(CMPXCHG8B):
		return UM_F_CX8;
	case M(CMPXCHG16B):
		return UM_F_CX16;
	case M(LAHF):
	case M(SAHF):
		return z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? UM_F_LAHF_LM : UM_F_MAX;
	default:
		return UM_F_MAX;
	}
}

/* ---- what it does ---- */

static void one_register(struct um_facts *f, const ZydisDecodedOperand *o, unsigned width)
{
	ZydisRegister r = o->reg.value;
	unsigned n = (unsigned)ZydisRegisterGetId(r);
	u16 bit;

	if (width == 8) {
		if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH) {
			n = (unsigned)(r - ZYDIS_REGISTER_AH);
			f->high |= (u16)BIT(n);
		} else {
			n = (unsigned)(r >= ZYDIS_REGISTER_SPL ? r - ZYDIS_REGISTER_SPL + 4
							       : r - ZYDIS_REGISTER_AL);
		}
	}
	bit = (u16)BIT(n);
	if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
		f->implied |= bit;
	else
		f->explicit_regs |= bit;
	if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
		f->reads |= bit;
	if (!(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return;
	f->writes |= bit;
	if (!(o->actions & ZYDIS_OPERAND_ACTION_WRITE)) {
		f->conditional |= bit;
		f->reads |= bit;
	}
	if (width < 32) {
		f->partial |= bit;
		f->reads |= bit;
	} else if (width == 32 && !(f->conditional & bit)) {
		f->writes32 |= bit;
	}
	/* (A register of the opcode has become ModRM.rm if that is a register.) */
	if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
	    o->encoding == ZYDIS_OPERAND_ENCODING_OPCODE)
		f->rm_written = f->enc.rm.kind >= UM_FIELD_GPR;
}

static u16 address_register(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return (u16)BIT(ZydisRegisterGetId(r));
	default:
		return 0;
	}
}

static bool operands(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		     struct um_facts *f)
{
	for (unsigned n = 0; n < z->operand_count; n++) {
		const ZydisDecodedOperand *o = &ops[n];

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			if (z->address_width == 16 || !o->size || o->size / 8 > 64)
				return false;
			f->mem_size = (u8)(o->size / 8);
			f->mem_read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
			f->mem_write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
			f->address = address_register(o->mem.base) | address_register(o->mem.index);
		} else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
			switch (ZydisRegisterGetClass(o->reg.value)) {
			case ZYDIS_REGCLASS_GPR8:
				one_register(f, o, 8);
				break;
			case ZYDIS_REGCLASS_GPR16:
				one_register(f, o, 16);
				break;
			case ZYDIS_REGCLASS_GPR32:
				one_register(f, o, 32);
				break;
			case ZYDIS_REGCLASS_GPR64:
				one_register(f, o, 64);
				break;
			default:
				break;
			}
		}
	}
	/* An accumulator that has got a field (see encode.h) is implied no longer. */
	if (f->enc.accumulator) {
		f->implied &= (u16)~BIT(UM_RAX);
		f->explicit_regs |= BIT(UM_RAX);
		f->rm_written |= f->enc.rm.n == UM_RAX && (f->writes & BIT(UM_RAX));
	}
	return true;
}

static void flags(const ZydisDecodedInstruction *z, struct um_facts *f)
{
	const ZydisAccessedFlags *c = z->cpu_flags;

	if (!c)
		return;
	f->flags_read = c->tested & RFLAGS_STATUS;
	f->flags_undefined = c->undefined & RFLAGS_STATUS;
	f->flags_written = (c->modified | c->set_0 | c->set_1 | c->undefined) & RFLAGS_STATUS;
}

/*
 * Counts are taken modulo 32, or 64 for 64-bit operands; of 0, nothing happens but that a 32-bit
 * destination is zero-extended.  OF is defined for counts of 1.
 */
static void shift(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		  struct um_facts *f)
{
	const ZydisDecodedOperand *count = &ops[z->operand_count_visible - 1];
	unsigned c;

	/* SHLD and SHRD have three visible operands, the others two; the count is the last. */
	if (count->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		f->flags_maybe = true;
		return;
	}
	c = (unsigned)count->imm.value.u & (z->operand_width == 64 ? 63 : 31);
	if (c) {
		f->conditional = 0;
		if (c == 1)
			f->flags_undefined &= (u16)~RFLAGS_OF;
		if (z->operand_width == 32)
			f->writes32 = f->writes;
	} else {
		f->flags_written = f->flags_undefined = 0;
	}
}

/* Instructions whose result doesn't depend on a register that both operands are. */
static bool is_zeroing(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	return (z->mnemonic == M(XOR) || z->mnemonic == M(SUB)) && z->operand_width >= 32 &&
	       ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER && ops[0].reg.value == ops[1].reg.value;
}

static bool core(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops, enum kind kind,
		 struct um_facts *f)
{
	switch (kind) {
	case SHIFT:
		shift(z, ops, f);
		break;
	case BIT:
		f->bit_string = f->mem_size && ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
		break;
	case SCAN:
		f->conditional = f->writes;
		f->reads |= f->writes;
		f->writes32 = 0;
		break;
	case DIVIDE:
		f->may_fault = true;
		break;
	default:
		break;
	}
	/* A false condition zero-extends too (SDM vol. 2 CMOVcc). */
	if (z->meta.category == ZYDIS_CATEGORY_CMOV && z->operand_width == 32)
		f->writes32 = f->writes;
	/* Undefined, and not the same from memory on all processors. */
	if ((z->mnemonic == M(BSWAP) || z->mnemonic == M(MOVSXD)) && z->operand_width == 16)
		return false;
	if (is_zeroing(z, ops))
		f->reads = 0;
	f->feature = feature_of(z);
	return true;
}

/* SIMD and what else the native stubs run. */
static bool native(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		   const u8 *bytes, struct um_facts *f)
{
	struct um_native_key k = { 0 };

	um_native_describe(z, ops, &k);
	f->x87 = k.x87 == 1;
	f->mmx = k.x87 == 2;
	if (f->x87 && um_native_x87_bind((u16)z->mnemonic))
		return false; /* works on the state as a whole */
	f->x87_pointers = f->x87 && !um_native_x87_is_control(z->mnemonic);
	if (f->x87_pointers)
		f->x87_fop = (u16)((z->opcode & 7) << 8 | bytes[z->raw.modrm.offset]);
	if (k.xcr0_need & XCR0_AVX512)
		f->vec = UM_VEC_CLASS_AVX512;
	else if (k.xcr0_need & XCR0_AVX)
		f->vec = UM_VEC_CLASS_AVX;
	else if (k.cr4_need & CR4_OSFXSR)
		f->vec = UM_VEC_CLASS_SSE;
	f->mem_read |= k.reads;
	f->mem_masked = k.mask_kind != UM_MASK_NONE;
	f->mem_aligned = k.align != 0;
	f->xinuse = (u16)k.xinuse;
	switch (z->mnemonic) {
	case M(LDMXCSR):
	case M(VLDMXCSR):
	case M(STMXCSR):
	case M(VSTMXCSR):
		f->mxcsr = true;
		break;
	default:
		f->mxcsr = k.mxcsr;
	}
	f->may_fault = f->mxcsr || k.x87;
	switch (z->mnemonic) {
	case M(VPTEST):
	case M(VTESTPS):
	case M(VTESTPD): /* the others are cleared, as by PTEST (SDM vol. 2): Zydis doesn't know */
		f->flags_written = RFLAGS_STATUS;
		break;
	case M(VZEROALL):
		f->xclear = XCR0_SSE;
		/* fall through */
	case M(VZEROUPPER):
		f->xclear |= XCR0_AVX | XCR0_ZMM_HI256;
		/* Only of registers 0..7 outside 64-bit mode. */
		return z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
	default:
		break;
	}
	return true;
}

bool um_jit_analyse_for(const struct um_host *host, enum um_mode mode, const u8 *bytes,
			unsigned len, struct um_facts *f)
{
	ZydisDecoder d;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	enum kind kind;

	if (mode != UM_MODE_64 && mode != UM_MODE_32)
		return false;
	um_zydis_init(&d, mode);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, len, &z, ops)) || z.length != len)
		return false;
	kind = kind_of(z.mnemonic);
	memset(f, 0, sizeof(*f));
	f->feature = UM_F_MAX;
	if (kind == NOTHING) {
		f->nothing = true;
		return true;
	}
	if (kind == REFUSED ||
	    !(kind == OTHER ? um_host_has(host, &z) : um_host_has_core(host, &z)) ||
	    !um_encoding_of(&z, ops, bytes, &f->enc) || !operands(&z, ops, f))
		return false;
	flags(&z, f);
	return kind == OTHER ? native(&z, ops, bytes, f) : core(&z, ops, kind, f);
}

bool um_jit_analyse(enum um_mode mode, const u8 *bytes, unsigned len, struct um_facts *f)
{
	return um_jit_analyse_for(um_host(), mode, bytes, len, f);
}

/* ---- the copy ---- */

static bool is_gpr(const struct um_field *f)
{
	return f->kind >= UM_FIELD_GPR;
}

/* Give a field its new register. */
static bool place(struct um_field *f, const struct um_places *p)
{
	unsigned n;

	if (!is_gpr(f))
		return true;
	n = p->gpr[f->n];
	if (n >= (f->kind == UM_FIELD_HIGH ? 4 : 16))
		return false;
	f->n = (u8)n;
	return true;
}

static bool implied_in_place(u16 implied, const struct um_places *p)
{
	for (; implied; implied &= (u16)(implied - 1)) {
		unsigned n = (unsigned)__builtin_ctz(implied);

		if (p->gpr[n] != n)
			return false;
	}
	return true;
}

unsigned um_jit_copy(const struct um_facts *f, const struct um_places *p, u8 *out)
{
	struct um_encoding e = f->enc;

	if (f->nothing || (f->bit_string && !p->bit_string) || !implied_in_place(f->implied, p))
		return 0;
	if (!place(&e.reg, p) || !place(&e.rm, p) || !place(&e.vvvv, p) || !place(&e.low, p))
		return 0;
	if (e.mem) {
		e.base = p->base;
		e.disp = p->disp;
	}
	return um_encode(&e, out);
}

/* Is the same opcode with memory in place of the general register ModRM.rm the same operation? */
static bool has_memory_form(const struct um_facts *f)
{
	const struct um_encoding *e = &f->enc;
	unsigned op = (unsigned)e->map << 8 | e->opcode;

	switch (e->form) {
	case UM_FORM_LEGACY:
		switch (op) {
		case 0x086: /* XCHG: would be locked */
		case 0x087:
		case 0x1a3: /* BT and kin: the bit offset would reach beyond */
		case 0x1ab:
		case 0x1b3:
		case 0x1bb:
		case 0x1c7: /* RDRAND, RDSEED: another instruction */
			return false;
		}
		break;
	case UM_FORM_VEX:
		if (op == 0x192) /* KMOV: another opcode */
			return false;
		break;
	default:
		/*
		 * Rounding mode would be broadcast; VPBROADCAST from general registers is an opcode
		 * of its own.
		 */
		if (e->b || (op >= 0x27a && op <= 0x27c))
			return false;
	}
	if (!f->rm_written)
		return true;
	/*
	 * What extracts from vectors stores no more than the element: MOVQ and PEXTRQ are all of
	 * it.
	 */
	if (f->vec != UM_VEC_CLASS_NONE)
		return e->w && (op == 0x17e || op == 0x316);
	return e->opsize || e->w || e->rm.kind != UM_FIELD_GPR;
}

unsigned um_jit_copy_rm(const struct um_facts *f, const struct um_places *p, u8 *out)
{
	struct um_encoding e = f->enc;

	if (f->nothing || e.mem || !e.modrm || !is_gpr(&e.rm) || !implied_in_place(f->implied, p) ||
	    !has_memory_form(f))
		return 0;
	e.mem = true;
	e.base = p->base;
	e.disp = p->disp + (e.rm.kind == UM_FIELD_HIGH);
	e.rm.kind = UM_FIELD_NONE;
	if (!place(&e.reg, p) || !place(&e.vvvv, p))
		return 0;
	return um_encode(&e, out);
}

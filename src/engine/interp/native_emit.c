// SPDX-License-Identifier: MIT
/*
 * The code of a native stub (see native.h for its calling convention):
 *
 *	lea r11, [exit]                    where the signal handler continues after a fault
 *	[push rdx; popfq]                  if it reads status flags
 *	load general, vector, opmask registers
 *	THE INSTRUCTION
 *	store those that it writes
 *	[vzeroupper]
 *	[pushfq; pop rax] or xor eax, eax
 *	ret
 * exit:	[vzeroupper] ret
 *
 * Nothing between the instruction and `pushfq` changes flags.
 *
 * Re-encoding (SDM vol. 2 ch. 2).  Vector, opmask and x87 registers keep their numbers: C code may
 * clobber all of them.  General registers that the encoding names become r8, r9, r10 in turn; those
 * that the opcode implies (EAX, ECX, EDX) stay what they are.  The memory operand becomes [rsi].
 * See engine/encode.h.
 *
 * Vector registers are always loaded, also pure destinations: so merging forms need no list.
 * A VEX or EVEX destination zeroes its register up to bit 511 (SDM vol. 1 14.6).
 */
#include "engine/interp/native.h"

#include <string.h>

#include "engine/encode.h"

#define OFF_GPR(r) ((u32)(offsetof(struct um_exec, cpu.gpr) + (r)))
#define OFF_ZMM(r) ((u32)(offsetof(struct um_exec, cpu.fpu.zmm) + (r)*64u))
#define OFF_K(r)   ((u32)(offsetof(struct um_exec, cpu.fpu.k) + (r)*8u))

_Static_assert(sizeof(((struct um_fpu *)0)->zmm[0]) == 64, "OFF_ZMM");

/* Host registers */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11 };

struct emit {
	u8 *buf;
	unsigned n;
	bool bad; /* does not fit, or can't be encoded */
};

static void put(struct emit *e, u8 b)
{
	if (e->n < UM_STUB_MAX)
		e->buf[e->n++] = b;
	else
		e->bad = true;
}

static void put_bytes(struct emit *e, const char *s, unsigned n)
{
	while (n--)
		put(e, (u8)*s++);
}
#define CODE(e, s) put_bytes(e, s, sizeof(s) - 1)

static void put32(struct emit *e, u32 v)
{
	for (int i = 0; i < 4; i++)
		put(e, (u8)(v >> (i * 8)));
}

/* ModRM of [rdi + disp32]. */
static void modrm_state(struct emit *e, unsigned reg, u32 off)
{
	put(e, (u8)(0x80 | (reg & 7) << 3 | RDI));
	put32(e, off);
}

/* ---- general registers ---- */

static void load_gpr(struct emit *e, unsigned host, u32 off, unsigned bits)
{
	if (bits == 8) { /* movzx r32, m8: AH..BH are bytes of their own in the register file */
		put(e, host >= R8 ? 0x44 : 0x40);
		CODE(e, "\x0f\xb6");
	} else {
		put(e, host >= R8 ? 0x4c : 0x48);
		put(e, 0x8b);
	}
	modrm_state(e, host, off);
}

/* A 32-bit result was zero-extended by the host already. */
static void store_gpr(struct emit *e, unsigned host, u32 off, unsigned bits)
{
	if (bits == 16)
		put(e, 0x66);
	put(e, (u8)((host >= R8 ? 0x44 : 0x40) | (bits >= 32 ? 8 : 0)));
	put(e, bits == 8 ? 0x88 : 0x89);
	modrm_state(e, host, off);
}

/* ---- vector registers ---- */

/* VMOVUPS of @bytes between register @r and the state; @store or load. */
static void evex_move(struct emit *e, unsigned r, u32 off, unsigned bytes, bool store)
{
	put(e, 0x62);
	put(e, (u8)(0x61 | (r & 8 ? 0 : 0x80) | (r & 16 ? 0 : 0x10)));
	put(e, 0x7c);
	put(e, (u8)(0x08 | (bytes == 64 ? 0x40 : bytes == 32 ? 0x20 : 0)));
	put(e, store ? 0x11 : 0x10);
	modrm_state(e, r, off);
}

static void vex_move(struct emit *e, unsigned r, u32 off, unsigned bytes, bool store)
{
	put(e, 0xc5);
	put(e, (u8)((r & 8 ? 0 : 0x80) | 0x78 | (bytes == 32 ? 4 : 0)));
	put(e, store ? 0x11 : 0x10);
	modrm_state(e, r, off);
}

static void sse_move(struct emit *e, unsigned r, u32 off, bool store)
{
	if (r & 8)
		put(e, 0x44);
	put(e, 0x0f);
	put(e, store ? 0x11 : 0x10);
	modrm_state(e, r, off);
}

static void load_vector(struct emit *e, unsigned r, unsigned bytes, ZydisInstructionEncoding enc)
{
	if (enc == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		sse_move(e, r, OFF_ZMM(r), false);
	else if (r >= 16 || bytes == 64)
		evex_move(e, r, OFF_ZMM(r), bytes, false);
	else
		vex_move(e, r, OFF_ZMM(r), bytes, false);
}

static void store_vector(struct emit *e, unsigned r, ZydisInstructionEncoding enc)
{
	if (enc == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
		sse_move(e, r, OFF_ZMM(r), true);
	} else if (enc == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
		evex_move(e, r, OFF_ZMM(r), 64, true);
	} else {
		/*
		 * The host zeroed bits 255..128 of a 128-bit result; 511..256 are zero in any case.
		 */
		vex_move(e, r, OFF_ZMM(r), 32, true);
		put(e, 0xc4); /* vpxor xmm, xmm, xmm */
		put(e, r & 8 ? 0x41 : 0xe1);
		put(e, (u8)(0x01 | (~r & 15) << 3));
		put(e, 0xef);
		put(e, (u8)(0xc0 | (r & 7) << 3 | (r & 7)));
		vex_move(e, r, OFF_ZMM(r) + 32, 32, true);
	}
}

static void move_opmask(struct emit *e, unsigned k, bool store)
{
	CODE(e, "\xc4\xe1\xf8"); /* kmovq */
	put(e, store ? 0x91 : 0x90);
	modrm_state(e, k, OFF_K(k));
}

/* ---- the instruction ---- */

static void put_instruction(struct emit *e, const struct um_encoding *c)
{
	u8 code[UM_ENCODE_MAX];
	unsigned n = um_encode(c, code);

	e->bad |= !n;
	for (unsigned k = 0; k < n; k++)
		put(e, code[k]);
}

bool um_native_uses_mxcsr(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_SSE2: /* those with floating-point exceptions */
	case ZYDIS_EXCEPTION_CLASS_SSE3:
	case ZYDIS_EXCEPTION_CLASS_AVX2:
	case ZYDIS_EXCEPTION_CLASS_AVX3:
	case ZYDIS_EXCEPTION_CLASS_AVX11:
	case ZYDIS_EXCEPTION_CLASS_E2:
	case ZYDIS_EXCEPTION_CLASS_E3:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E11:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return true;
	default:
		break;
	}
	/* The rest may still look at DAZ and the rounding mode. */
	switch (z->meta.category) {
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_LOGICAL_FP:
	case ZYDIS_CATEGORY_LOGICAL:
	case ZYDIS_CATEGORY_BROADCAST:
	case ZYDIS_CATEGORY_BLEND:
		return false;
	default:
		break;
	}
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_UNPCKLPS:
	case ZYDIS_MNEMONIC_UNPCKHPS:
	case ZYDIS_MNEMONIC_UNPCKLPD:
	case ZYDIS_MNEMONIC_UNPCKHPD:
	case ZYDIS_MNEMONIC_SHUFPS:
	case ZYDIS_MNEMONIC_SHUFPD:
	case ZYDIS_MNEMONIC_VUNPCKLPS:
	case ZYDIS_MNEMONIC_VUNPCKHPS:
	case ZYDIS_MNEMONIC_VUNPCKLPD:
	case ZYDIS_MNEMONIC_VUNPCKHPD:
	case ZYDIS_MNEMONIC_VSHUFPS:
	case ZYDIS_MNEMONIC_VSHUFPD:
		return false;
	default:
		break;
	}
	for (unsigned n = 0; n < z->operand_count; n++) {
		switch (ops[n].element_type) {
		case ZYDIS_ELEMENT_TYPE_FLOAT16:
		case ZYDIS_ELEMENT_TYPE_FLOAT32:
		case ZYDIS_ELEMENT_TYPE_FLOAT64:
			return true;
		default:
			break;
		}
	}
	return false;
}

static u32 gpr_offset(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return OFF_GPR((unsigned)(r - ZYDIS_REGISTER_AH) * 8 + 1);
	if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR8)
		return OFF_GPR((r >= ZYDIS_REGISTER_SPL
					? (unsigned)(r - ZYDIS_REGISTER_SPL + UM_RSP)
					: (unsigned)(r - ZYDIS_REGISTER_AL)) *
			       8);
	return OFF_GPR((unsigned)ZydisRegisterGetId(r) * 8);
}

/* Register operands of the instruction, as the stub has them. */
struct operand {
	enum { OPERAND_GPR, OPERAND_VECTOR, OPERAND_OPMASK } kind;
	unsigned host; /* host register number */
	u32 off;       /* GPR: offset in struct um_exec */
	unsigned bits;
	bool written;
};

#define MAX_OPERANDS 10

/* Where a register of the instruction is named.  NULL: it is implied. */
static struct um_field *field_of(struct um_encoding *c, ZydisOperandEncoding encoding)
{
	switch (encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		return &c->reg;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		return &c->rm;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		return &c->low;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		return &c->vvvv;
	default:
		return NULL;
	}
}

static unsigned collect(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			struct operand *o, struct um_encoding *c, struct emit *e)
{
	unsigned count = 0, next = R8;

	for (unsigned n = 0; n < z->operand_count && count + 1 < MAX_OPERANDS; n++) {
		const ZydisDecodedOperand *d = &ops[n];
		struct operand v = { 0 };
		struct um_field *f;
		int number;

		if (d->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		number = ZydisRegisterGetId(d->reg.value);
		v.written = d->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		switch (ZydisRegisterGetClass(d->reg.value)) {
		case ZYDIS_REGCLASS_GPR8:
		case ZYDIS_REGCLASS_GPR16:
		case ZYDIS_REGCLASS_GPR32:
		case ZYDIS_REGCLASS_GPR64:
			v.kind = OPERAND_GPR;
			v.off = gpr_offset(d->reg.value);
			v.bits = d->size;
			f = field_of(c, d->encoding);
			if (f) {
				number = (int)next++;
				f->n = (u8)number;
				f->kind = v.bits == 8 ? UM_FIELD_GPR8 : UM_FIELD_GPR;
			} else if (number > RDX) {
				e->bad = true;
			}
			break;
		case ZYDIS_REGCLASS_XMM:
		case ZYDIS_REGCLASS_YMM:
		case ZYDIS_REGCLASS_ZMM:
			v.kind = OPERAND_VECTOR;
			v.bits = (unsigned)ZydisRegisterGetWidth(z->machine_mode, d->reg.value);
			break;
		case ZYDIS_REGCLASS_MASK:
			v.kind = OPERAND_OPMASK;
			if (d->encoding == ZYDIS_OPERAND_ENCODING_MASK && !number)
				continue; /* "no mask" */
			break;
		default: /* x87, MMX; flags, status words */
			continue;
		}
		v.host = (unsigned)number;
		if (v.kind == OPERAND_OPMASK && v.written &&
		    (z->mnemonic == ZYDIS_MNEMONIC_VP2INTERSECTD ||
		     z->mnemonic == ZYDIS_MNEMONIC_VP2INTERSECTQ)) { /* a pair of opmasks */
			v.host &= ~1u;
			o[count++] = v;
			v.host |= 1;
		}
		o[count++] = v;
	}
	if (next > R11)
		e->bad = true;
	return count;
}

bool um_native_x87_is_control(ZydisMnemonic op)
{
	return op == ZYDIS_MNEMONIC_FNINIT || op == ZYDIS_MNEMONIC_FNCLEX ||
	       op == ZYDIS_MNEMONIC_FLDCW || op == ZYDIS_MNEMONIC_FNSTCW ||
	       op == ZYDIS_MNEMONIC_FNSTSW ||
	       /* What is left of the 8087's and 287's: no operation at all. */
	       op == ZYDIS_MNEMONIC_FENI8087_NOP || op == ZYDIS_MNEMONIC_FDISI8087_NOP ||
	       op == ZYDIS_MNEMONIC_FSETPM287_NOP;
}

/* A register that is several operands is loaded once, */
static bool already_loaded(const struct operand *o, unsigned n)
{
	for (unsigned m = 0; m < n; m++) {
		if (o[m].kind == o[n].kind && o[m].host == o[n].host)
			return true;
	}
	return false;
}

/* in its greatest width. */
static unsigned widest(const struct operand *o, unsigned count, unsigned n)
{
	unsigned bits = 0;

	for (unsigned m = 0; m < count; m++) {
		if (o[m].kind == o[n].kind && o[m].host == o[n].host)
			bits = um_max(bits, o[m].bits);
	}
	return bits;
}

unsigned um_native_emit(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			const u8 *bytes, struct um_native_key *k, u8 *buf)
{
	struct emit e = { .buf = buf };
	struct um_encoding c;
	struct operand o[MAX_OPERANDS];
	bool vex = z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	unsigned count, lea, fop;

	if (!um_encoding_of(z, ops, bytes, &c))
		return 0;
	c.base = RSI;
	count = collect(z, ops, o, &c, &e);

	CODE(&e, "\x4c\x8d\x1d"); /* lea r11, [rip + ...] */
	lea = e.n;
	put32(&e, 0);
	if (k->status_in)
		CODE(&e, "\x52\x9d"); /* push rdx; popfq */
	for (unsigned n = 0; n < count; n++) {
		if (already_loaded(o, n))
			continue;
		if (o[n].kind == OPERAND_GPR)
			load_gpr(&e, o[n].host, o[n].off, o[n].bits);
		else if (o[n].kind == OPERAND_VECTOR)
			load_vector(&e, o[n].host, widest(o, count, n) / 8, z->encoding);
		else
			move_opmask(&e, o[n].host, false);
	}

	fop = e.n;
	put_instruction(&e, &c);
	if (k->x87 == 1 && !um_native_x87_is_control(z->mnemonic) && e.n >= fop + 2) {
		k->pointers = true;
		k->fop_host = (u16)((z->opcode & 7) << 8 | buf[e.n - 1]);
		k->fop_guest = (u16)((z->opcode & 7) << 8 | bytes[z->raw.modrm.offset]);
	}

	/* Last operand first: of MULX's two destinations, the first wins if they are the same. */
	for (unsigned n = count; n--;) {
		if (!o[n].written)
			continue;
		if (o[n].kind == OPERAND_GPR)
			store_gpr(&e, o[n].host, o[n].off, o[n].bits);
		else if (o[n].kind == OPERAND_VECTOR)
			store_vector(&e, o[n].host, z->encoding);
		else
			move_opmask(&e, o[n].host, true);
	}
	if (vex)
		CODE(&e, "\xc5\xf8\x77"); /* vzeroupper */
	if (k->status_out)
		CODE(&e, "\x9c\x58\xc3"); /* pushfq; pop rax; ret */
	else
		CODE(&e, "\x31\xc0\xc3"); /* xor eax, eax; ret */

	{
		u32 rel = e.n - (lea + 4);

		memcpy(buf + lea, &rel, 4);
	}
	if (vex)
		CODE(&e, "\xc5\xf8\x77"); /* vzeroupper */
	CODE(&e, "\xc3");
	return e.bad ? 0 : e.n;
}

// SPDX-License-Identifier: MIT
/*
 * From Zydis's decoding to the fields of an encoding, and from those to bytes (SDM vol. 2 ch. 2,
 * table 2-8 ff.).
 *
 * Prefixes: what selects the instruction (mandatory 66h, F2h, F3h), its operand size and LOCK
 * stays; segments, the address size, hardware lock elision and what has no meaning is dropped.
 * REX, VEX and EVEX are built from the fields.
 */
#include "engine/encode.h"

#include <string.h>

/* ---- taking apart ---- */

static struct um_field register_field(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
		if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
			return (struct um_field){ UM_FIELD_HIGH, (u8)(r - ZYDIS_REGISTER_AH) };
		return (struct um_field){ UM_FIELD_GPR8,
					  (u8)(r >= ZYDIS_REGISTER_SPL ? r - ZYDIS_REGISTER_SPL + 4
								       : r - ZYDIS_REGISTER_AL) };
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return (struct um_field){ UM_FIELD_GPR, (u8)ZydisRegisterGetId(r) };
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
	case ZYDIS_REGCLASS_ZMM:
	case ZYDIS_REGCLASS_MASK:
	case ZYDIS_REGCLASS_MMX:
	case ZYDIS_REGCLASS_X87:
		return (struct um_field){ UM_FIELD_FIXED, (u8)ZydisRegisterGetId(r) };
	default:
		return (struct um_field){ UM_FIELD_NONE, 0 };
	}
}

/* Put one operand into its field; false: there is none for it. */
static bool put_operand(struct um_encoding *e, const ZydisDecodedOperand *o)
{
	struct um_field f;

	switch (o->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		break;
	case ZYDIS_OPERAND_TYPE_MEMORY:
		if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			return false;
		if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM &&
		    o->encoding != ZYDIS_OPERAND_ENCODING_DISP16_32_64)
			return false;
		e->mem = true;
		return true;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		return !o->imm.is_relative;
	default:
		return false;
	}
	if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE ||
	    o->encoding == ZYDIS_OPERAND_ENCODING_MASK)
		return true;
	f = register_field(o->reg.value);
	if (f.kind == UM_FIELD_NONE)
		return false;
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		e->reg = f;
		return true;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		e->rm = f;
		return true;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		e->low = f;
		return true;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		e->vvvv = f;
		return true;
	case ZYDIS_OPERAND_ENCODING_IS4:
		e->is4 = f;
		return true;
	default:
		return false;
	}
}

static bool is_x87(const ZydisDecodedInstruction *z)
{
	return z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z->opcode >= 0xd8 && z->opcode <= 0xdf;
}

/* Is it the operand size of 16 bits that selects the width?  (By 66h, or by the mode.) */
static bool is_16bit(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	bool found = false;

	if (is_x87(z))
		return false;
	if (z->mnemonic == ZYDIS_MNEMONIC_CRC32)
		return ops[1].size == 16;
	if (z->operand_width != 16)
		return false;
	for (unsigned n = 0; n < z->operand_count; n++) {
		if (ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			found |= ops[n].size == 16;
		} else if (ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER) {
			switch (ZydisRegisterGetClass(ops[n].reg.value)) {
			case ZYDIS_REGCLASS_GPR16:
				found = true;
				break;
			case ZYDIS_REGCLASS_XMM:
			case ZYDIS_REGCLASS_MMX:
				return false;
			default:
				break;
			}
		}
	}
	return found;
}

/*
 * Forms with an accumulator, short forms and those that 64-bit mode doesn't have become their
 * siblings with ModRM.
 */
static void generalize(const ZydisDecodedInstruction *z, struct um_encoding *e)
{
	u8 op = z->opcode;
	struct um_field acc = { op & 1 ? UM_FIELD_GPR : UM_FIELD_GPR8, 0 };

	if (op < 0x40 && (op & 6) == 4) { /* ADD ... CMP accumulator, imm */
		e->accumulator = true;
		e->opcode = 0x80 | (op & 1);
		e->reg = (struct um_field){ UM_FIELD_FIXED, op >> 3 };
		e->rm = acc;
	} else if (op >= 0x40 && op < 0x50) { /* INC, DEC */
		e->opcode = 0xff;
		e->reg = (struct um_field){ UM_FIELD_FIXED, op >> 3 & 1 };
		e->rm = e->low;
	} else if (op == 0x82) {
		e->opcode = 0x80;
		return;
	} else if (op >= 0x90 && op < 0x98) { /* XCHG accumulator, register (90h: with REX.B) */
		if (e->low.kind != UM_FIELD_GPR)
			return;
		e->accumulator = true;
		e->opcode = 0x87;
		e->reg = (struct um_field){ UM_FIELD_GPR, 0 };
		e->rm = e->low;
	} else if (op >= 0xa0 && op < 0xa4) { /* MOV accumulator, moffs */
		e->accumulator = true;
		e->opcode = (u8)(0x88 | (op & 1) | (op & 2 ? 0 : 2));
		e->reg = acc;
		e->nimm = 0;
	} else if (op == 0xa8 || op == 0xa9) { /* TEST accumulator, imm */
		e->accumulator = true;
		e->opcode = 0xf6 | (op & 1);
		e->reg = (struct um_field){ UM_FIELD_FIXED, 0 };
		e->rm = acc;
	} else {
		return;
	}
	e->low.kind = UM_FIELD_NONE;
	e->modrm = true;
}

static void legacy(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		   struct um_encoding *e)
{
	e->form = UM_FORM_LEGACY;
	for (unsigned n = 0; n < z->raw.prefix_count; n++) {
		if (z->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
			e->prefix = z->raw.prefixes[n].value;
	}
	e->lock = (z->attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0;
	e->opsize = is_16bit(z, ops);
	e->w = z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64 && z->raw.rex.W;
	if (e->low.kind != UM_FIELD_NONE)
		e->opcode &= 0xf8;
	if (e->map == 0)
		generalize(z, e);
}

static const u8 prefix_of_pp[4] = { 0, 0x66, 0xf3, 0xf2 };

/* W selects the width of an operand that may be memory, or is implied; it is ignored outside 64-bit mode. */
static bool w_is_width(const struct um_encoding *e, ZydisMnemonic op)
{
	if (e->reg.kind == UM_FIELD_GPR || e->rm.kind == UM_FIELD_GPR ||
	    e->vvvv.kind == UM_FIELD_GPR)
		return true;
	switch (op) {
	case ZYDIS_MNEMONIC_VCVTSI2SD:
	case ZYDIS_MNEMONIC_VCVTSI2SS:
	case ZYDIS_MNEMONIC_VCVTSI2SH:
	case ZYDIS_MNEMONIC_VCVTUSI2SD:
	case ZYDIS_MNEMONIC_VCVTUSI2SS:
	case ZYDIS_MNEMONIC_VCVTUSI2SH:
	case ZYDIS_MNEMONIC_VMOVD:
	case ZYDIS_MNEMONIC_VPCMPESTRI:
	case ZYDIS_MNEMONIC_VPCMPESTRM:
	case ZYDIS_MNEMONIC_VPINSRD:
	case ZYDIS_MNEMONIC_VPEXTRD:
		return true;
	default:
		return false;
	}
}

bool um_encoding_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		    const u8 *bytes, struct um_encoding *e)
{
	bool outside = z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64;
	unsigned nimm = (z->raw.imm[0].size + z->raw.imm[1].size) / 8;

	memset(e, 0, sizeof(*e));
	switch (z->opcode_map) {
	case ZYDIS_OPCODE_MAP_DEFAULT:
	case ZYDIS_OPCODE_MAP_0F:
	case ZYDIS_OPCODE_MAP_0F38:
	case ZYDIS_OPCODE_MAP_0F3A:
	case ZYDIS_OPCODE_MAP_MAP5:
	case ZYDIS_OPCODE_MAP_MAP6:
		e->map = (u8)(z->opcode_map - ZYDIS_OPCODE_MAP_DEFAULT);
		break;
	default:
		return false;
	}
	for (unsigned n = 0; n < z->operand_count; n++) {
		if (!put_operand(e, &ops[n]))
			return false;
	}
	e->opcode = z->opcode;
	if (nimm > sizeof(e->imm) || nimm > z->length)
		return false;
	e->nimm = (u8)nimm;
	memcpy(e->imm, bytes + z->length - nimm, nimm);
	if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
		e->modrm = true;
		if (e->reg.kind == UM_FIELD_NONE)
			e->reg = (struct um_field){ UM_FIELD_FIXED, z->raw.modrm.reg };
		if (e->rm.kind == UM_FIELD_NONE && !e->mem)
			e->rm = (struct um_field){ UM_FIELD_FIXED, z->raw.modrm.rm };
	}
	switch (z->encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
		legacy(z, ops, e);
		return true;
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		e->form = UM_FORM_VEX;
		e->prefix = prefix_of_pp[z->raw.vex.pp & 3];
		e->l = z->raw.vex.L & 1;
		e->w = z->raw.vex.W && !(outside && w_is_width(e, z->mnemonic));
		if (e->is4.kind != UM_FIELD_NONE) /* what is below the register */
			e->imm[0] = bytes[z->length - 1] & 15;
		return true;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX:
		e->form = UM_FORM_EVEX;
		e->prefix = prefix_of_pp[z->raw.evex.pp & 3];
		e->l = (u8)((z->raw.evex.L2 & 1) << 1 | (z->raw.evex.L & 1));
		e->w = z->raw.evex.W && !(outside && w_is_width(e, z->mnemonic));
		e->aaa = z->raw.evex.aaa & 7;
		e->z = z->raw.evex.z & 1;
		e->b = z->raw.evex.b & 1;
		return true;
	default:
		return false;
	}
}

/* ---- putting together ---- */

enum { RSP = 4, RBP = 5 };

/* A register's bits in ModRM or the opcode. */
static unsigned low3(const struct um_field *f)
{
	return f->kind == UM_FIELD_HIGH ? f->n + 4u : f->n & 7u;
}

/* ModRM, SIB, displacement.  Compressed displacements (EVEX) are only used for 0. */
static u8 *put_modrm(u8 *p, const struct um_encoding *e)
{
	unsigned reg = low3(&e->reg) << 3, base = e->base & 7, mod;

	if (!e->mem) {
		*p++ = (u8)(0xc0 | reg | low3(&e->rm));
		return p;
	}
	if (e->disp == 0 && base != RBP)
		mod = 0;
	else if (e->disp == 0 || (e->disp == (s8)e->disp && e->form != UM_FORM_EVEX))
		mod = 1;
	else
		mod = 2;
	*p++ = (u8)(mod << 6 | reg | base);
	if (base == RSP)
		*p++ = 0x24;
	if (mod == 1) {
		*p++ = (u8)e->disp;
	} else if (mod == 2) {
		memcpy(p, &e->disp, 4);
		p += 4;
	}
	return p;
}

static bool wants_rex(const struct um_field *f)
{
	return f->kind == UM_FIELD_GPR8 && f->n >= 4;
}

static u8 *put_legacy(u8 *p, const struct um_encoding *e)
{
	unsigned b = e->mem ? e->base : e->modrm ? e->rm.n : e->low.n;
	unsigned rex = (unsigned)e->w << 3 | (e->reg.n >> 3 & 1u) << 2 | (b >> 3 & 1u);

	if (rex || wants_rex(&e->reg) || wants_rex(&e->rm) || wants_rex(&e->low)) {
		if (e->reg.kind == UM_FIELD_HIGH || e->rm.kind == UM_FIELD_HIGH ||
		    e->low.kind == UM_FIELD_HIGH)
			return NULL;
		rex |= 0x40;
	}
	if (e->lock)
		*p++ = 0xf0;
	if (e->opsize && e->prefix != 0x66)
		*p++ = 0x66;
	if (e->prefix)
		*p++ = e->prefix;
	if (rex)
		*p++ = (u8)rex;
	if (e->map)
		*p++ = 0x0f;
	if (e->map > 1)
		*p++ = e->map == 2 ? 0x38 : 0x3a;
	*p++ = e->low.kind != UM_FIELD_NONE ? (u8)(e->opcode | low3(&e->low)) : e->opcode;
	return p;
}

static unsigned pp_of(const struct um_encoding *e)
{
	return e->prefix == 0x66 ? 1 : e->prefix == 0xf3 ? 2 : e->prefix == 0xf2 ? 3 : 0;
}

/* Bit @b of @n, inverted, in place @pos: as VEX and EVEX want them. */
static unsigned inv(unsigned n, unsigned b, unsigned pos)
{
	return (~n >> b & 1) << pos;
}

static u8 *put_vex(u8 *p, const struct um_encoding *e)
{
	unsigned b = e->mem ? e->base : e->rm.n;
	unsigned last = (~e->vvvv.n & 15u) << 3 | e->l << 2 | pp_of(e);

	if (e->map == 1 && !e->w && b < 8) {
		*p++ = 0xc5;
		*p++ = (u8)(inv(e->reg.n, 3, 7) | last);
	} else {
		*p++ = 0xc4;
		*p++ = (u8)(inv(e->reg.n, 3, 7) | 0x40 | inv(b, 3, 5) | e->map);
		*p++ = (u8)((unsigned)e->w << 7 | last);
	}
	*p++ = e->opcode;
	return p;
}

static u8 *put_evex(u8 *p, const struct um_encoding *e)
{
	unsigned b = e->mem ? e->base : e->rm.n;

	*p++ = 0x62;
	*p++ = (u8)(inv(e->reg.n, 3, 7) | (e->mem ? 0x40 : inv(b, 4, 6)) | inv(b, 3, 5) |
		    inv(e->reg.n, 4, 4) | e->map);
	*p++ = (u8)((unsigned)e->w << 7 | (~e->vvvv.n & 15u) << 3 | 4 | pp_of(e));
	*p++ = (u8)(e->z << 7 | e->l << 5 | e->b << 4 | inv(e->vvvv.n, 4, 3) | e->aaa);
	*p++ = e->opcode;
	return p;
}

unsigned um_encode(const struct um_encoding *e, u8 *out)
{
	u8 *p;

	switch (e->form) {
	case UM_FORM_VEX:
		p = put_vex(out, e);
		break;
	case UM_FORM_EVEX:
		p = put_evex(out, e);
		break;
	default:
		p = put_legacy(out, e);
		if (!p)
			return 0;
	}
	if (e->modrm)
		p = put_modrm(p, e);
	memcpy(p, e->imm, e->nimm);
	if (e->is4.kind != UM_FIELD_NONE)
		*p |= (u8)(e->is4.n << 4);
	return (unsigned)(p + e->nimm - out);
}

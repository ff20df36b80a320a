/* SPDX-License-Identifier: MIT */
/*
 * An instruction as the fields of its encoding (SDM vol. 2 ch. 2), taken from Zydis's answer so
 * that it can be encoded anew for 64-bit mode with other registers and another memory operand.
 *
 * The native stubs (interp/native_emit.c) and the translator (jit/copy.c) use it.  Pure functions.
 *
 * Encodings differ between the modes: outside 64-bit mode REX.W, VEX.W and the high bits of
 * register fields are ignored, 40h..4Fh are INC and DEC, and absolute addresses are shorter.  What
 * comes out of um_encoding_of() is what the instruction means, in a form that 64-bit mode has.  On
 * the way, forms with an implied accumulator become their general siblings, so that the register
 * can be changed (ADD EAX, imm32 is 81 /0 as any other register's).
 */
#ifndef UM_ENGINE_ENCODE_H
#define UM_ENGINE_ENCODE_H

#include <Zydis/Zydis.h>

#include "base/types.h"

/* What a field of the encoding is. */
enum um_field_kind {
	UM_FIELD_NONE,	/* the encoding doesn't have it */
	UM_FIELD_FIXED, /* an opcode extension; a register that is no general one */
	UM_FIELD_GPR,	/* a general register of 16, 32 or 64 bits */
	UM_FIELD_GPR8,	/* its low byte: 4..7 need a REX prefix */
	UM_FIELD_HIGH,	/* AH, CH, DH, BH, as 0..3: no REX prefix must be there */
};

struct um_field {
	u8 kind; /* enum um_field_kind */
	u8 n;	 /* 0..31 */
};

enum um_form { UM_FORM_LEGACY, UM_FORM_VEX, UM_FORM_EVEX };

struct um_encoding {
	u8 form;   /* enum um_form */
	u8 map;	   /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A, 5, 6 */
	u8 prefix; /* mandatory: 0, 66h, F3h, F2h (XACQUIRE and XRELEASE are dropped) */
	u8 opcode; /* without the register in its low bits, if `low` is one */
	bool lock;
	bool opsize; /* 66h selects 16 bits (may come with prefix F2h, F3h) */
	bool w;
	bool modrm, mem;
	bool accumulator; /* a field is RAX, EAX, AX or AL, which the original form implied */
	struct um_field reg, rm, vvvv;
	struct um_field low; /* in the opcode's low bits */
	struct um_field is4; /* in bits 7..4 of the immediate */
	u8 l;		     /* VEX, EVEX: vector length or rounding mode, 0..3 */
	u8 aaa, z, b;	     /* EVEX: opmask, zeroing, broadcast */
	u8 base;	     /* of the memory operand: [base + disp] */
	s32 disp;
	u8 nimm;
	u8 imm[8];
};

/* Longest encoding: prefixes LOCK, 66h, F2h, REX, 3 bytes of opcode, ModRM, SIB, disp32, imm32. */
#define UM_ENCODE_MAX 16

/*
 * Fill *@e for the instruction that Zydis decoded from @bytes.  Returns false for what has no such
 * form: branches, far pointers, implied memory operands, vectors as index, segment, control and
 * debug registers, XOP and the like.  `base` and `disp` are 0.
 */
bool um_encoding_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		    const u8 *bytes, struct um_encoding *e);

/*
 * Encode for 64-bit mode into @out (UM_ENCODE_MAX bytes).  Returns the length; 0: AH..BH together
 * with what needs REX.
 */
unsigned um_encode(const struct um_encoding *e, u8 *out);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Writing host instructions (SDM vol. 2 ch. 2): only the forms that the translator needs.
 *
 * Everything goes into one buffer; when it is full, `full` is set and the rest is dropped, so
 * callers look once, at the end.
 */
#ifndef UM_ENGINE_JIT_EMIT_H
#define UM_ENGINE_JIT_EMIT_H

#include <string.h>

#include "base/bits.h"
#include "base/types.h"

/* Host registers, by number. */
enum um_host_reg {
	H_RAX,
	H_RCX,
	H_RDX,
	H_RBX,
	H_RSP,
	H_RBP,
	H_RSI,
	H_RDI,
	H_R8,
	H_R9,
	H_R10,
	H_R11,
	H_R12,
	H_R13,
	H_R14,
	H_R15
};

/* Condition codes of Jcc. */
enum um_cc_code { CC_B = 2, CC_Z = 4, CC_NZ = 5, CC_A = 7, CC_S = 8 };

struct um_emit {
	u8 *p, *end;
	bool full;
};

static inline void um_emit8(struct um_emit *e, unsigned b)
{
	if (likely(e->p < e->end))
		*e->p++ = (u8)b;
	else
		e->full = true;
}

static inline void um_emit_bytes(struct um_emit *e, const void *bytes, unsigned n)
{
	if (likely((size_t)(e->end - e->p) >= n)) {
		memcpy(e->p, bytes, n);
		e->p += n;
	} else {
		e->full = true;
	}
}

static inline void um_emit32(struct um_emit *e, u32 v)
{
	um_emit_bytes(e, &v, 4);
}

static inline void um_emit64(struct um_emit *e, u64 v)
{
	um_emit_bytes(e, &v, 8);
}

/*
 * REX for operand size @w, ModRM.reg @reg, index @idx, ModRM.rm or base @rm; none if it would be
 * 40h.
 */
static inline void um_emit_rex(struct um_emit *e, unsigned w, unsigned reg, unsigned idx,
			       unsigned rm)
{
	unsigned rex = 0x40 | w << 3 | (reg >> 3) << 2 | (idx >> 3) << 1 | rm >> 3;

	if (rex != 0x40)
		um_emit8(e, rex);
}

/* ModRM and displacement of [base + disp]. */
static inline void um_emit_modrm_mem(struct um_emit *e, unsigned reg, unsigned base, s32 disp)
{
	unsigned mod = disp == 0 && (base & 7) != H_RBP ? 0 : disp == (s8)disp ? 1 : 2;

	um_emit8(e, mod << 6 | (reg & 7) << 3 | (base & 7));
	if ((base & 7) == H_RSP)
		um_emit8(e, 0x24);
	if (mod == 1)
		um_emit8(e, (u8)disp);
	else if (mod == 2)
		um_emit32(e, (u32)disp);
}

/* One-byte opcode, register operands: 64 bits if @w. */
static inline void um_emit_rr(struct um_emit *e, unsigned w, unsigned op, unsigned reg, unsigned rm)
{
	um_emit_rex(e, w, reg, 0, rm);
	um_emit8(e, op);
	um_emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* One-byte opcode, memory operand [base + disp]. */
static inline void um_emit_rm(struct um_emit *e, unsigned w, unsigned op, unsigned reg,
			      unsigned base, s32 disp)
{
	um_emit_rex(e, w, reg, 0, base);
	um_emit8(e, op);
	um_emit_modrm_mem(e, reg, base, disp);
}

/* ADD OR ... CMP (@n = 0..7) register, imm32. */
static inline void um_emit_alu_imm(struct um_emit *e, unsigned w, unsigned n, unsigned rm, s32 imm)
{
	um_emit_rex(e, w, 0, 0, rm);
	um_emit8(e, imm == (s8)imm ? 0x83 : 0x81);
	um_emit8(e, 0xc0 | n << 3 | (rm & 7));
	if (imm == (s8)imm)
		um_emit8(e, (u8)imm);
	else
		um_emit32(e, (u32)imm);
}

/* SHL SHR ... (@n) register, imm8. */
static inline void um_emit_shift(struct um_emit *e, unsigned w, unsigned n, unsigned rm,
				 unsigned count)
{
	um_emit_rex(e, w, 0, 0, rm);
	um_emit8(e, 0xc1);
	um_emit8(e, 0xc0 | n << 3 | (rm & 7));
	um_emit8(e, count);
}

/* RORX dst, src, imm8, 32 bits (BMI2) */
static inline void um_emit_rorx(struct um_emit *e, unsigned dst, unsigned src, unsigned count)
{
	um_emit8(e, 0xc4);
	um_emit8(e, 0x03 | (dst < 8) << 7 | 1 << 6 | (src < 8) << 5);
	um_emit8(e, 0x7b);
	um_emit8(e, 0xf0);
	um_emit8(e, 0xc0 | (dst & 7) << 3 | (src & 7));
	um_emit8(e, count);
}

static inline void um_emit_mov(struct um_emit *e, unsigned w, unsigned dst, unsigned src)
{
	um_emit_rr(e, w, 0x8b, dst, src);
}

static inline void um_emit_load(struct um_emit *e, unsigned w, unsigned dst, unsigned base,
				s32 disp)
{
	um_emit_rm(e, w, 0x8b, dst, base, disp);
}

static inline void um_emit_store(struct um_emit *e, unsigned w, unsigned src, unsigned base,
				 s32 disp)
{
	um_emit_rm(e, w, 0x89, src, base, disp);
}

/* The shortest MOV of a constant into a register; flags stay. */
static inline void um_emit_mov_imm(struct um_emit *e, unsigned dst, u64 v)
{
	if (v == (u32)v) {
		um_emit_rex(e, 0, 0, 0, dst);
		um_emit8(e, 0xb8 | (dst & 7));
		um_emit32(e, (u32)v);
	} else if (v == (u64)(s64)(s32)v) {
		um_emit_rex(e, 1, 0, 0, dst);
		um_emit8(e, 0xc7);
		um_emit8(e, 0xc0 | (dst & 7));
		um_emit32(e, (u32)v);
	} else {
		um_emit_rex(e, 1, 0, 0, dst);
		um_emit8(e, 0xb8 | (dst & 7));
		um_emit64(e, v);
	}
}

/* LEA dst, [base + index << scale + disp]; index H_RSP: none. */
static inline void um_emit_lea(struct um_emit *e, unsigned w, unsigned dst, unsigned base,
			       unsigned index, unsigned scale, s32 disp)
{
	if (index == H_RSP) {
		um_emit_rm(e, w, 0x8d, dst, base, disp);
		return;
	}
	um_emit_rex(e, w, dst, index, base);
	um_emit8(e, 0x8d);
	um_emit8(e, (disp == (s8)disp ? 0x44 : 0x84) | (dst & 7) << 3);
	um_emit8(e, scale << 6 | (index & 7) << 3 | (base & 7));
	if (disp == (s8)disp)
		um_emit8(e, (u8)disp);
	else
		um_emit32(e, (u32)disp);
}

/* LEA dst, [index << scale + disp32] */
static inline void um_emit_lea_nobase(struct um_emit *e, unsigned w, unsigned dst, unsigned index,
				      unsigned scale, s32 disp)
{
	um_emit_rex(e, w, dst, index, 0);
	um_emit8(e, 0x8d);
	um_emit8(e, 0x04 | (dst & 7) << 3);
	um_emit8(e, scale << 6 | (index & 7) << 3 | 5);
	um_emit32(e, (u32)disp);
}

/* Jcc rel32, JMP rel32: to be patched.  Return where the displacement is. */
static inline u8 *um_emit_jcc(struct um_emit *e, unsigned cc)
{
	um_emit8(e, 0x0f);
	um_emit8(e, 0x80 | cc);
	um_emit32(e, 0);
	return e->p - 4;
}

static inline u8 *um_emit_jmp(struct um_emit *e)
{
	um_emit8(e, 0xe9);
	um_emit32(e, 0);
	return e->p - 4;
}

/*
 * Make the jump whose displacement is at @site (writable mapping) go to @target (the same mapping).
 */
static inline void um_emit_patch(u8 *site, const u8 *target)
{
	s32 rel = (s32)(target - (site + 4));

	memcpy(site, &rel, 4);
}

/* ... that @e has emitted: there is none if that had no room. */
static inline void um_emit_patch_to(const struct um_emit *e, u8 *site, const u8 *target)
{
	if (!e->full)
		um_emit_patch(site, target);
}
/* ... to what comes now. */
static inline void um_emit_patch_here(const struct um_emit *e, u8 *site)
{
	um_emit_patch_to(e, site, e->p);
}

static inline void um_emit_push(struct um_emit *e, unsigned reg)
{
	um_emit_rex(e, 0, 0, 0, reg);
	um_emit8(e, 0x50 | (reg & 7));
}

static inline void um_emit_pop(struct um_emit *e, unsigned reg)
{
	um_emit_rex(e, 0, 0, 0, reg);
	um_emit8(e, 0x58 | (reg & 7));
}

/* PUSHFQ; POP [base + disp], and the way back. */
static inline void um_emit_flags_save(struct um_emit *e, unsigned base, s32 disp)
{
	um_emit8(e, 0x9c);
	um_emit_rm(e, 0, 0x8f, 0, base, disp);
}

static inline void um_emit_flags_load(struct um_emit *e, unsigned base, s32 disp)
{
	um_emit_rm(e, 0, 0xff, 6, base, disp);
	um_emit8(e, 0x9d);
}

/*
 * SF, ZF, AF, PF, CF, OF from the RFLAGS image at [base + disp], by LAHF's twin; clobbers @scratch.
 * POPFQ takes four times as long.
 *
 * OF is bit 3 of the image's second byte: it alone, plus 78h, overflows.
 */
static inline void um_emit_status_load(struct um_emit *e, unsigned scratch, unsigned base, s32 disp)
{
	um_emit_mov(e, 1, scratch, H_RAX);
	um_emit_rm(e, 0, 0x8a, 4, base, disp);	       /* mov ah, [] */
	um_emit_rm(e, 0, 0x8a, H_RAX, base, disp + 1); /* mov al, [] */
	um_emit_bytes(e, "\x24\x08", 2);	       /* and al, 8 */
	um_emit_bytes(e, "\x04\x78", 2);	       /* add al, 78h */
	um_emit8(e, 0x9e);			       /* sahf */
	um_emit_mov(e, 1, H_RAX, scratch);
}

#endif

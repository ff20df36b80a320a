/* SPDX-License-Identifier: MIT */
/*
 * A decoded instruction, as both engines take it.
 *
 * The decoder (x86/decode.c) is pure: bytes and mode in, struct um_insn out; no VM state.  Zydis does
 * the work; this is its result in the shape that execution wants: one cache line, operands resolved to
 * offsets, immediates extended, RIP-relative addresses made relative to the page of the instruction.
 *
 * Operands keep the manual's order (destination first).  At most one is explicit memory.
 */
#ifndef UM_X86_INSN_H
#define UM_X86_INSN_H

#include <Zydis/Zydis.h>

#include "base/bits.h"
#include "base/types.h"
#include "x86/regs.h"

/* How the processor reads instruction bytes: the default operand and address size. */
enum um_mode {
	UM_MODE_REAL, /* real-address mode and virtual-8086: 16-bit, no protection */
	UM_MODE_16,   /* protected or compatibility mode, CS.D = 0 */
	UM_MODE_32,   /* protected or compatibility mode, CS.D = 1 */
	UM_MODE_64,   /* 64-bit mode */
};

enum um_operand_kind {
	UM_OPD_NONE,
	UM_OPD_GPR,  /* reg = byte offset into gpr[]: number * 8, + 1 for AH CH DH BH */
	UM_OPD_MEM,  /* the instruction's one memory operand: seg, base, index, scale, disp */
	UM_OPD_IMM,  /* imm (operand 0 or 1..) */
	UM_OPD_REL,  /* imm: branch displacement from the end of the instruction */
	UM_OPD_FAR,  /* far pointer: imm = offset, imm2 = selector */
	UM_OPD_SEG,  /* reg = enum um_seg */
	UM_OPD_CR,   /* reg = number */
	UM_OPD_DR,   /* reg = number */
	UM_OPD_VEC,  /* reg = number of XMM/YMM/ZMM register */
	UM_OPD_K,    /* reg = number of opmask register */
	UM_OPD_MMX,  /* reg = number */
	UM_OPD_X87,  /* reg = ST(i) */
	UM_OPD_OTHER /* bound, tile, ... : only the native stubs look closer */
};

/* base and index: 0..15, or */
#define UM_REG_ZERO 16 /* no register: gpr[16] is always 0 */
#define UM_REG_PAGE 17 /* gpr[17] is the linear address of the page of the current instruction */

#define UM_INSN_LOCK \
	BIT(0) /* F0 on an instruction that may be locked (XCHG with memory has it implied) */
#define UM_INSN_REP   BIT(1) /* F3 on a string instruction */
#define UM_INSN_REPNE BIT(2) /* F2 on a string instruction */
#define UM_INSN_BRANCH \
	BIT(3) /* may change RIP other than by falling through: the last of its block */
#define UM_INSN_END \
	BIT(4) /* ends its block for another reason (changes mode, may be serializing, …) */
#define UM_INSN_MEM	    BIT(5)  /* has an explicit memory operand */
#define UM_INSN_SYSTEM	    BIT(6)  /* privileged or sensitive */
#define UM_INSN_UD	    BIT(7)  /* not an instruction: raises #UD; len is what was consumed */
#define UM_INSN_TOOLONG	    BIT(8)  /* more than 15 bytes: raises #GP(0) */
#define UM_INSN_SEGOVERRIDE BIT(9)  /* the segment was given by a prefix */
#define UM_INSN_FAR	    BIT(10) /* JMP, CALL, RET: the far form (pointer, m16:xx, RETF) */

struct um_exec;
struct um_insn;

/* What an engine binds to an instruction: see engine/interp/interp.h. */
typedef const struct um_insn *(*um_insn_fn)(struct um_exec *x, const struct um_insn *i);

struct um_insn {
	um_insn_fn fn; /* set by the engine */
	void *aux;     /* set by the engine: a native stub, ... */
	u64 imm;       /* sign-extended to 64 bits where the manual says so */
	s64 disp;  /* of the memory operand; moffs in full; page-relative if base is UM_REG_PAGE */
	u16 op;	   /* ZydisMnemonic */
	u16 off;   /* of its first byte in its page, 0..4095 */
	u16 flags; /* UM_INSN_... */
	u16 imm2;  /* selector of a far pointer; second immediate of ENTER, EXTRQ, INSERTQ */
	u8 len;	   /* 1..15 */
	/*
	 * Effective operand size in bytes: 1, 2, 4, 8 (of operand 0 or the memory operand).  For far
	 * transfers and what works on segment registers (MOV, PUSH, POP Sreg, LDS, LGDT, SYSRET, ...) it is
	 * the one that mode and prefixes select, whatever the width of the operands.
	 */
	u8 osz;
	u8 asz; /* effective address size in bytes: 2, 4, 8 */
	u8 msz; /* size of the memory operand in bytes, 0 if none, more than 64 (FXSAVE, ...) or implied;
			 * of MOVZX MOVSX MOVSXD CRC32: of the source, even if that is a register */
	u8 seg; /* enum um_seg of the memory operand (also of the source of string instructions) */
	u8 base, index; /* of the memory operand */
	u8 scale;	/* shift: 0..3 */
	u8 nops;	/* explicit operands */
	u8 kind[3];	/* enum um_operand_kind of operands 0..2 */
	u8 reg[3];	/* their registers */
	u8 mode;	/* enum um_mode it was decoded in */
	/*
	 * Where in the instruction its displacement is, and its immediate; how many bytes each has, 0: it has none.  (x86/decode_cache.h.)
	 */
	u8 disp_at, disp_len;
	u8 disp_scale; /* what is there times this is `disp`: EVEX */
	u8 imm_at, imm_len;
	bool imm_signed;
	bool plain; /* nothing but disp and imm depends on those bytes */
};

_Static_assert(sizeof(struct um_insn) <= 64, "one cache line");

/*
 * Decode one instruction at @bytes (at least 1, at most 15 are available: @avail), whose first byte is
 * at offset @off of its page.  Fills *@i but for fn and aux.
 *
 * Returns the length (1..15), or 0 if more than @avail bytes are needed.  Invalid encodings come back
 * as UM_INSN_UD, over-long ones as UM_INSN_TOOLONG: both are instructions that raise an exception.
 * Whether the instruction is allowed by CPUID, CPL or CR bits is the engine's business, not the
 * decoder's.  LOCK on an instruction that can't have it is UM_INSN_UD.
 */
unsigned um_decode(struct um_insn *i, enum um_mode mode, const u8 *bytes, unsigned avail, u16 off);

/* Zydis as um_decode() uses it, for who needs more than struct um_insn has. */
void um_zydis_init(ZydisDecoder *d, enum um_mode mode);

/* Text of the instruction at @bytes as at address @ip, Intel syntax, for people.  Returns its length or 1. */
unsigned um_disassemble(enum um_mode mode, const u8 *bytes, unsigned avail, u64 ip, char *text,
			size_t size);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Where the guest's general registers are while translated code runs, and where things are from
 * rbp.
 *
 * RAX RCX RDX RBX keep their numbers, for what has them implied (MUL, shifts, CMPXCHG) and for AH
 * CH DH BH.  What stays in memory is used least in what programs execute (docs/performance.md).  RSP, the commonest base, is none that
 * would take a longer encoding.
 */
#ifndef UM_ENGINE_JIT_REGS_H
#define UM_ENGINE_JIT_REGS_H

#include "engine/jit/jit.h"

/* X(guest register, host register or UM_JIT_IN_MEMORY), in encoding order */
// clang-format off
#define UM_JIT_HOST(X)								\
	X(RAX, H_RAX) X(RCX, H_RCX) X(RDX, H_RDX) X(RBX, H_RBX)			\
	X(RSP, H_R15) X(RBP, H_R13) X(RSI, H_R10) X(RDI, H_R14)			\
	X(R8, UM_JIT_IN_MEMORY) X(R9, UM_JIT_IN_MEMORY) X(R10, UM_JIT_IN_MEMORY) \
	X(R11, UM_JIT_IN_MEMORY) X(R12, H_R12) X(R13, H_R8)			\
	X(R14, UM_JIT_IN_MEMORY) X(R15, H_R9)
// clang-format on

static inline unsigned um_jit_host(unsigned guest)
{
	static const u8 host[UM_NR_GPRS] = {
#define X(g, h) [UM_##g] = h,
		UM_JIT_HOST(X)
#undef X
	};

	return host[guest];
}

_Static_assert(offsetof(struct um_exec, jit.stack) >= UM_JIT_BIAS - 128, "within short reach");
#define UM_JIT_OFF(field) ((s32)offsetof(struct um_exec, field) - UM_JIT_BIAS)

static inline s32 um_jit_gpr(unsigned guest)
{
	return UM_JIT_OFF(cpu.gpr) + (s32)guest * 8;
}

/* JMP, CALL to @to, in the executable mapping. */
static inline void um_emit_jump(struct um_emit *e, const u8 *to)
{
	um_emit8(e, 0xe9);
	um_emit32(e, (u32)(to - (um_arena_rx_of(e->p) + 4)));
}
static inline void um_emit_call(struct um_emit *e, const u8 *to)
{
	um_emit8(e, 0xe8);
	um_emit32(e, (u32)(to - (um_arena_rx_of(e->p) + 4)));
}

/* From a linear address to its entry in the TLB: (page number mod UM_TLB_PAGES) * 32 */
_Static_assert(sizeof(struct um_tlb_entry) == 32, "the index is scaled by 32");
#define UM_JIT_ENTRY_SHIFT (UM_PAGE_SHIFT - 5)
#define UM_JIT_ENTRY_MASK  ((s32)((UM_TLB_PAGES - 1) << 5))
/* H_T0 := from H_T1. */
static inline void um_emit_entry_offset(struct um_emit *e)
{
	if (um_host_feature(um_host(), UM_F_BMI2)) {
		um_emit_rorx(e, H_T0, H_T1, UM_JIT_ENTRY_SHIFT);
	} else {
		um_emit_mov(e, 0, H_T0, H_T1);
		um_emit_shift(e, 0, 5, H_T0, UM_JIT_ENTRY_SHIFT);
	}
	um_emit_alu_imm(e, 0, 4, H_T0, UM_JIT_ENTRY_MASK);
}

/*
 * Windows that no access hits: their start is no canonical address; to which an access, if there is
 * one, becomes an access to a host address that is none either, and so a fault that the interpreter
 * looks into.
 */
#define UM_JIT_NOWHERE BIT(63)

static inline s32 um_jit_window_start(unsigned acc, unsigned window)
{
	if (window == UM_RSP)
		return UM_JIT_OFF(jit.stack) + (s32)(acc * sizeof(struct um_jit_window));
	return UM_JIT_OFF(window) +
	       (s32)((acc * UM_JIT_WINDOWS + window) * sizeof(struct um_jit_window));
}

/*
 * Where translated code keeps a host address for several accesses (anchor.c).  In place of a guest register: while translated code runs,
 * memory has nothing for those that are in the host's, and this is within short reach.
 */
static inline s32 um_jit_anchor(unsigned slot)
{
	static const u8 place[UM_JIT_ANCHORS] = { UM_RAX, UM_RCX, UM_RDX, UM_RBX };

	return um_jit_gpr(place[slot]);
}

/* linear address of the page of the instruction */
#define UM_JIT_PAGE (UM_JIT_OFF(cpu.gpr) + UM_REG_PAGE * 8)

static inline s32 um_jit_window_host(unsigned acc, unsigned window)
{
	return um_jit_window_start(acc, window) + (s32)offsetof(struct um_jit_window, host);
}

/* Of accesses of @size bytes. */
static inline s32 um_jit_window_limit(unsigned acc, unsigned window, unsigned size)
{
	if (size > 64)
		return UM_JIT_OFF(window_span) + (s32)((acc * UM_JIT_WINDOWS + window) * 8);
	if (size > 8)
		return UM_JIT_OFF(window_wide) + (s32)((acc * UM_JIT_WINDOWS + window) * 8);
	return um_jit_window_start(acc, window) + (s32)offsetof(struct um_jit_window, limit);
}

/* MOV dword or, if @w, quadword [rbp + @off], @imm */
static inline void um_emit_store_imm(struct um_emit *e, unsigned w, s32 off, u32 imm)
{
	um_emit_rm(e, w, 0xc7, 0, H_CTX, off);
	um_emit32(e, imm);
}

/*
 * Return addresses on the host's stack (branch.c): at most so many bytes, below a multiple of twice as many, so that a bit of the stack
 * pointer tells when there is no room for more.
 */
#define UM_JIT_RETURNS 2048

/* Forget them. */
static inline void um_emit_forget_returns(struct um_emit *e)
{
	um_emit_load(e, 1, H_RSP, H_CTX, UM_JIT_OFF(jit.sp));
}

/* TEST dword [rbp + @off], @imm */
static inline void um_emit_test32(struct um_emit *e, s32 off, u32 imm)
{
	um_emit_rm(e, 0, 0xf7, 0, H_CTX, off);
	um_emit32(e, imm);
}

#endif

// SPDX-License-Identifier: MIT
/*
 * Loading and storing the guest's vector registers.
 *
 * The code must not change flags, so it branches by JRCXZ alone.  Whether a state component is in
 * use is bit 2 or 6 of cpu.fpu.xinuse; rcx becomes 0 or not by moves, LEA and BSWAP.
 *
 * What is loaded of registers 0 to 15 depends on what they hold: all of ZMM0-15 if the upper 256
 * bits of any are not zero, YMM0-15 if bits 255..128 are not, else XMM0-15 by VEX.128. These clear
 * the rest, and after VZEROUPPER leave the registers "clean", so that each change between legacy
 * SSE and VEX instructions costs nothing (Intel's optimization manual, 15.3). Loading zeros by
 * longer moves would make them "dirty", and they would stay so, since code with VEX.128
 * instructions alone has no reason to execute VZEROUPPER.  That a component is not in use means
 * that it is zero, in memory as well.
 */
#include "engine/jit/vec.h"

#include "cpu/xsave.h"
#include "engine/jit/jit.h"

#define AT(field) ((s32)(offsetof(struct um_exec, field) - UM_JIT_BIAS))
#define AT_ZMM(r) (AT(cpu.fpu.zmm) + (s32)(r)*64)
#define AT_K(r)	  (AT(cpu.fpu.k) + (s32)(r)*8)

_Static_assert(sizeof(((struct um_fpu *)0)->zmm[0]) == 64, "AT_ZMM");
_Static_assert(sizeof(((struct um_fpu *)0)->k[0]) == 8, "AT_K");
_Static_assert(sizeof(bool) == 1, "x->mxcsr_live is one byte");
_Static_assert(UM_MXCSR_MASK == 0xffff, "clearing bits 31..16 of MXCSR");

/* ---- one register ---- */

/* ModRM of [rbp + disp32]. */
static void modrm(struct um_emit *e, unsigned reg, s32 disp)
{
	um_emit8(e, 0x80 | (reg & 7) << 3 | H_CTX);
	um_emit32(e, (u32)disp);
}

static void sse_move(struct um_emit *e, unsigned r, bool store)
{
	um_emit_rex(e, 0, r, 0, 0);
	um_emit8(e, 0x0f);
	um_emit8(e, store ? 0x11 : 0x10); /* movups */
	modrm(e, r, AT_ZMM(r));
}

static void vex_move(struct um_emit *e, unsigned r, unsigned bytes, bool store)
{
	um_emit8(e, 0xc5);
	um_emit8(e, (r & 8 ? 0 : 0x80) | 0x78 | (bytes == 32 ? 4 : 0));
	um_emit8(e, store ? 0x11 : 0x10); /* vmovups */
	modrm(e, r, AT_ZMM(r));
}

static void zmm_move(struct um_emit *e, unsigned r, bool store)
{
	um_emit8(e, 0x62);
	um_emit8(e, 0x61 | (r & 8 ? 0 : 0x80) | (r & 16 ? 0 : 0x10));
	um_emit8(e, 0x7c);
	um_emit8(e, 0x48);
	um_emit8(e, store ? 0x11 : 0x10); /* vmovups */
	modrm(e, r, AT_ZMM(r));
}

static void opmask_move(struct um_emit *e, unsigned k, bool store)
{
	um_emit_bytes(e, "\xc4\xe1\xf8", 3); /* kmovq */
	um_emit8(e, store ? 0x91 : 0x90);
	modrm(e, k, AT_K(k));
}

/* ---- branches ---- */

/*
 * Jump if rcx is not 0: JRCXZ, which is short, over a jump.  Returns where the jump's displacement
 * is.
 */
static u8 *jump_if_rcx(struct um_emit *e)
{
	um_emit_bytes(e, "\xe3\x05", 2);
	return um_emit_jmp(e);
}

/* mov ecx, [rbp + disp]; movzx ecx, byte [rbp + disp] */
static void load_rcx(struct um_emit *e, unsigned size, s32 disp)
{
	um_emit_bytes(e, size == 1 ? "\x0f\xb6" : "\x8b", size == 1 ? 2 : 1);
	modrm(e, H_RCX, disp);
}

/* rcx = 0 if bit @b of cpu.fpu.xinuse (0..7) is clear, else 255. */
static void load_in_use(struct um_emit *e, unsigned b)
{
	load_rcx(e, 1, AT(cpu.fpu.xinuse));
	um_emit_bytes(e, "\x0f\xc9", 2); /* bswap ecx: the bit is 24 + b */
	for (; b < 7; b++)
		um_emit_bytes(e, "\x8d\x0c\x09", 3); /* lea ecx, [rcx + rcx]: until it is 31 */
	um_emit_bytes(e, "\x48\x63\xc9", 3);	     /* movsxd rcx, ecx */
	um_emit_bytes(e, "\x48\x0f\xc9", 3);	     /* bswap rcx */
	um_emit_bytes(e, "\x0f\xb6\xc9", 3);	     /* movzx ecx, cl */
}

/* ---- MXCSR ---- */

/* As mxcsr_get() in interp/native_run.c. */
static void load_mxcsr(struct um_emit *e)
{
	u8 *is_live;

	load_rcx(e, 1, AT(mxcsr_live));
	is_live = jump_if_rcx(e);
	um_emit8(e, 0xc6); /* mov byte [], 1 */
	modrm(e, 0, AT(mxcsr_live));
	um_emit8(e, 1);
	um_emit_bytes(e, "\x0f\xae", 2); /* stmxcsr */
	modrm(e, 3, AT(host_mxcsr));
	um_emit_bytes(e, "\x66\xc7", 2); /* mov word [], 0: reserved bits */
	modrm(e, 0, AT(cpu.fpu.mxcsr) + 2);
	um_emit_bytes(e, "\0\0", 2);
	um_emit_bytes(e, "\x0f\xae", 2); /* ldmxcsr */
	modrm(e, 2, AT(cpu.fpu.mxcsr));
	um_emit_patch_here(e, is_live);
}

/* ---- classes ---- */

static void sse_moves(struct um_emit *e, bool store)
{
	for (unsigned r = 0; r < 16; r++)
		sse_move(e, r, store);
}

static void vex_moves(struct um_emit *e, unsigned bytes, bool store)
{
	for (unsigned r = 0; r < 16; r++)
		vex_move(e, r, bytes, store);
}

static void zmm_moves(struct um_emit *e, unsigned first, unsigned end, bool store)
{
	for (unsigned r = first; r < end; r++)
		zmm_move(e, r, store);
}

/* vorps xmm0 or ymm0, the same, [rbp + disp] */
static void or_memory(struct um_emit *e, unsigned bytes, s32 disp)
{
	um_emit8(e, 0xc5);
	um_emit8(e, bytes == 32 ? 0xfc : 0xf8);
	um_emit8(e, 0x56);
	modrm(e, 0, disp);
}

/*
 * rcx is 0 if component @bit is not in use, or the @bytes (16 or 32) at offset @bytes of ZMM0-15
 * are zero in memory.  The host's registers 0 and 1 are lost.
 */
static void load_any(struct um_emit *e, unsigned bit, unsigned bytes)
{
	u8 *used, *unused;

	load_in_use(e, bit);
	used = jump_if_rcx(e);
	unused = um_emit_jmp(e);
	um_emit_patch_here(e, used);
	um_emit_bytes(e, "\xc5\xf8\x57\xc0", 4); /* vxorps xmm0, xmm0, xmm0 */
	for (unsigned r = 0; r < 16; r++)
		or_memory(e, bytes, AT_ZMM(r) + (s32)bytes);
	if (bytes == 32) {
		um_emit_bytes(e, "\xc4\xe3\x7d\x19\xc1\x01", 6); /* vextractf128 xmm1, ymm0, 1 */
		um_emit_bytes(e, "\xc5\xf8\x56\xc1", 4);	 /* vorps xmm0, xmm0, xmm1 */
	}
	um_emit_bytes(e, "\xc5\xf8\x12\xc8", 4);     /* vmovhlps xmm1, xmm0, xmm0 */
	um_emit_bytes(e, "\xc5\xf8\x56\xc1", 4);     /* vorps xmm0, xmm0, xmm1 */
	um_emit_bytes(e, "\xc5\xf1\x73\xd0\x20", 5); /* vpsrlq xmm1, xmm0, 32 */
	um_emit_bytes(e, "\xc5\xf8\x56\xc1", 4);     /* vorps xmm0, xmm0, xmm1 */
	um_emit_bytes(e, "\xc5\xf9\x7e\xc1", 4);     /* vmovd ecx, xmm0 */
	um_emit_patch_here(e, unused);
}

static void vzeroupper(struct um_emit *e)
{
	um_emit_bytes(e, "\xc5\xf8\x77", 3);
}

/* Registers 0 to 15, as much of them as there is. */
static void load_low(struct um_emit *e, bool avx512)
{
	u8 *to_zmm = NULL, *to_ymm, *end_xmm, *end_ymm;

	if (avx512) {
		load_any(e, 6, 32);
		um_emit8(e, 0x89); /* mov [], ecx */
		modrm(e, H_RCX, AT(jit.vec_zmm));
		to_zmm = jump_if_rcx(e);
	}
	load_any(e, 2, 16);
	to_ymm = jump_if_rcx(e);
	vzeroupper(e);
	vex_moves(e, 16, false);
	end_xmm = um_emit_jmp(e);
	um_emit_patch_here(e, to_ymm);
	vex_moves(e, 32, false);
	if (avx512) {
		end_ymm = um_emit_jmp(e);
		um_emit_patch_here(e, to_zmm);
		zmm_moves(e, 0, 16, false);
		um_emit_patch_here(e, end_ymm);
	}
	um_emit_patch_here(e, end_xmm);
}

static void store_avx(struct um_emit *e, bool avx512)
{
	u8 *to_zmm = NULL, *end;

	if (avx512) {
		load_rcx(e, 4, AT(jit.vec_zmm));
		to_zmm = jump_if_rcx(e);
	}
	vex_moves(e, 32, true);
	if (avx512) {
		end = um_emit_jmp(e);
		um_emit_patch_here(e, to_zmm);
		zmm_moves(e, 0, 16, true);
		um_emit_patch_here(e, end);
	}
}

static void opmask_moves(struct um_emit *e, bool store)
{
	for (unsigned k = 0; k < 8; k++)
		opmask_move(e, k, store);
}

enum um_vec_class um_vec_host_class(const struct um_host *h)
{
	if ((h->states & XCR0_AVX512) == XCR0_AVX512 && um_host_feature(h, UM_F_AVX512F) &&
	    um_host_feature(h, UM_F_AVX512BW) && um_host_feature(h, UM_F_AVX512VL))
		return UM_VEC_CLASS_AVX512;
	return (h->states & XCR0_AVX) && um_host_feature(h, UM_F_AVX) ? UM_VEC_CLASS_AVX
								      : UM_VEC_CLASS_SSE;
}

static void store(struct um_emit *e, enum um_vec_class live)
{
	switch (live) {
	case UM_VEC_CLASS_NONE:
		return;
	case UM_VEC_CLASS_SSE:
		sse_moves(e, true);
		return;
	case UM_VEC_CLASS_AVX:
		um_emit8(e, 0x51); /* push rcx */
		store_avx(e, um_vec_host_class(um_host()) == UM_VEC_CLASS_AVX512);
		um_emit8(e, 0x59); /* pop rcx */
		break;
	case UM_VEC_CLASS_AVX512:
		zmm_moves(e, 0, 32, true);
		opmask_moves(e, true);
		break;
	}
	vzeroupper(e);
}

unsigned um_vec_emit_store(u8 *out, enum um_vec_class live)
{
	struct um_emit e = { .p = out, .end = out + UM_VEC_EMIT_MAX };

	store(&e, live);
	return (unsigned)(e.p - out);
}

unsigned um_vec_emit_load(u8 *out, enum um_vec_class have, enum um_vec_class want)
{
	struct um_emit e = { .p = out, .end = out + UM_VEC_EMIT_MAX };

	if (want <= have)
		return 0;
	store(&e, have);
	um_emit8(&e, 0x51); /* push rcx */
	load_mxcsr(&e);
	if (want == UM_VEC_CLASS_SSE)
		sse_moves(&e, false);
	else
		load_low(&e, um_vec_host_class(um_host()) == UM_VEC_CLASS_AVX512);
	if (want == UM_VEC_CLASS_AVX512) {
		zmm_moves(&e, 16, 32, false);
		opmask_moves(&e, false);
	}
	um_emit8(&e, 0x59); /* pop rcx */
	return (unsigned)(e.p - out);
}

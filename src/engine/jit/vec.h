/* SPDX-License-Identifier: MIT */
/*
 * The guest's vector registers in the host's: code that brings them there and back.
 *
 * Translated code works on the guest's XMM, YMM, ZMM and opmask registers in the host's registers
 * of the same numbers.  They are loaded when the first block that needs them runs, as far as its
 * class (copy.h) goes, and stored before C code may look at cpu.fpu or use vector registers itself.
 * x->jit.vec says what is there.
 *
 * The code is for translated code's registers (jit.h: rbp); all general registers and flags stay,
 * and the host's stack is used.  It is put into routines at start: classes that the host doesn't
 * have are never asked for.
 */
#ifndef UM_ENGINE_JIT_VEC_H
#define UM_ENGINE_JIT_VEC_H

#include "engine/jit/copy.h"

/* Bytes that either function writes at most. */
#define UM_VEC_EMIT_MAX 2048

/*
 * Write code to @out for: @have is in the registers, make it @want.  MXCSR becomes the guest's,
 * too, and x->mxcsr_live is set, unless it is.  Returns the length: 0 if @have includes @want.
 *
 * With class AVX the upper halves of ZMM0-15 come along if they are not zero, since VEX
 * instructions clear them: x->jit.vec_zmm.
 */
unsigned um_vec_emit_load(u8 *out, enum um_vec_class have, enum um_vec_class want);

/*
 * Write code to @out for: store the registers of class @live into cpu.fpu.  Afterwards the host's
 * upper halves are clear (VZEROUPPER), as C code expects it.  MXCSR stays the guest's:
 * um_native_fpu_put() ends that.  Returns the length.
 */
unsigned um_vec_emit_store(u8 *out, enum um_vec_class live);

/* The greatest class that the host has. */
enum um_vec_class um_vec_host_class(const struct um_host *h);

/* State components of class @c: what XCR0 must have. */
static inline u64 um_vec_states(enum um_vec_class c)
{
	return (c >= UM_VEC_CLASS_SSE ? XCR0_SSE : 0) | (c >= UM_VEC_CLASS_AVX ? XCR0_AVX : 0) |
	       (c >= UM_VEC_CLASS_AVX512 ? XCR0_AVX512 : 0);
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Status flags, lazily.
 *
 * Instead of six flags, an instruction leaves its result and the vector of carries; each flag is a
 * cheap function of them, computed only by the instructions that ask (blocks of guest code
 * overwrite flags far more often than they read them).
 *
 *   res   the result, sign-extended to 64 bits from the operand size:
 *           ZF = res == 0,  SF = res < 0 (but see aux2)
 *   aux   bit 63: CF.  bit 62: the carry into the most significant bit, so OF = bit 63 ^ bit 62.
 *         bit 3: carry out of bit 3 (AF)
 *   aux2  low byte: PF is the even parity of (res ^ aux2) & 0xff.  Bit 8: SF is inverted.  Zero
 * after arithmetic; set when flags are loaded from an RFLAGS image.
 */
#ifndef UM_ENGINE_FLAGS_H
#define UM_ENGINE_FLAGS_H

#include "engine/exec.h"

#define UM_CC_CF     BIT(63)
#define UM_CC_CARRY1 BIT(62) /* carry into the sign bit */
#define UM_CC_AF     BIT(3)

#define UM_CC2_SFINV BIT(8)

static inline bool um_cf(const struct um_exec *x)
{
	return x->cc.aux >> 63;
}
static inline bool um_of(const struct um_exec *x)
{
	return ((x->cc.aux >> 63) ^ (x->cc.aux >> 62)) & 1;
}
static inline bool um_af(const struct um_exec *x)
{
	return (x->cc.aux >> 3) & 1;
}
static inline bool um_zf(const struct um_exec *x)
{
	return x->cc.res == 0;
}
static inline bool um_sf(const struct um_exec *x)
{
	return (x->cc.res >> 63) ^ ((x->cc.aux2 >> 8) & 1);
}
static inline bool um_pf(const struct um_exec *x)
{
	return !(__builtin_popcountll((x->cc.res ^ x->cc.aux2) & 0xff) & 1);
}

/* The six flags as RFLAGS bits. */
static inline u64 um_status(const struct um_exec *x)
{
	return (um_cf(x) ? RFLAGS_CF : 0) | (um_pf(x) ? RFLAGS_PF : 0) |
	       (um_af(x) ? RFLAGS_AF : 0) | (um_zf(x) ? RFLAGS_ZF : 0) |
	       (um_sf(x) ? RFLAGS_SF : 0) | (um_of(x) ? RFLAGS_OF : 0);
}

/* Load the six flags from an RFLAGS image. */
static inline void um_set_status(struct um_exec *x, u64 f)
{
	bool cf = f & RFLAGS_CF, of = f & RFLAGS_OF, zf = f & RFLAGS_ZF;

	/* ZF by res = 0 or 1, which are positive; parity of 0 is even, of 1 odd: aux2 corrects the
	 * rest. */
	x->cc.res = !zf;
	x->cc.aux =
		(cf ? UM_CC_CF : 0) | (cf ^ of ? UM_CC_CARRY1 : 0) | (f & RFLAGS_AF ? UM_CC_AF : 0);
	x->cc.aux2 = (zf == !!(f & RFLAGS_PF) ? 0 : 1) | (f & RFLAGS_SF ? UM_CC2_SFINV : 0);
}

/* After an addition: @a + @b (+ carry) = @r, all at @size bytes. */
static inline void um_cc_add(struct um_exec *x, u64 a, u64 b, u64 r, unsigned size)
{
	u64 c = (a & b) | ((a | b) & ~r); /* carries out of each bit */

	x->cc.res = (u64)um_sext(r, size);
	x->cc.aux = (c << (64 - size * 8)) & (UM_CC_CF | UM_CC_CARRY1);
	x->cc.aux |= c & UM_CC_AF;
	x->cc.aux2 = 0;
}

/* After a subtraction or comparison: @a - @b (- borrow) = @r. */
static inline void um_cc_sub(struct um_exec *x, u64 a, u64 b, u64 r, unsigned size)
{
	u64 c = (~a & b) | ((~a | b) & r); /* borrows out of each bit */

	x->cc.res = (u64)um_sext(r, size);
	x->cc.aux = (c << (64 - size * 8)) & (UM_CC_CF | UM_CC_CARRY1);
	x->cc.aux |= c & UM_CC_AF;
	x->cc.aux2 = 0;
}

/* After AND, OR, XOR, TEST: CF = OF = AF = 0. */
static inline void um_cc_logic(struct um_exec *x, u64 r, unsigned size)
{
	x->cc.res = (u64)um_sext(r, size);
	x->cc.aux = 0;
	x->cc.aux2 = 0;
}

/* Replace CF only (INC, DEC keep it; CMC, STC, CLC, BT change it alone). */
static inline void um_cc_put_cf(struct um_exec *x, bool cf)
{
	u64 aux = x->cc.aux ^ ((x->cc.aux & UM_CC_CF) >> 1); /* bit 62: OF */

	x->cc.aux = cf ? (aux | UM_CC_CF) ^ UM_CC_CARRY1 : aux & ~UM_CC_CF;
}

/* After INC and DEC: as an addition or subtraction of 1 that left @r, but CF stays. */
static inline void um_cc_incdec(struct um_exec *x, u64 r, unsigned size, bool dec)
{
	u64 top = 1ull << (size * 8 - 1);
	bool of = um_trunc(r, size) == (dec ? top - 1 : top);
	u64 cf = x->cc.aux & UM_CC_CF;

	x->cc.res = (u64)um_sext(r, size);
	x->cc.aux = cf | ((cf >> 1) ^ (of ? UM_CC_CARRY1 : 0)) |
		    ((r & 15) == (dec ? 15 : 0) ? UM_CC_AF : 0);
	x->cc.aux2 = 0;
}

/* Replace CF and OF only (rotates). */
static inline void um_cc_put_cf_of(struct um_exec *x, bool cf, bool of)
{
	x->cc.aux = (x->cc.aux & ~(UM_CC_CF | UM_CC_CARRY1)) | (cf ? UM_CC_CF : 0) |
		    (cf ^ of ? UM_CC_CARRY1 : 0);
}

/* ZF, SF and PF by @r, CF and OF as given, AF clear (shifts, multiplications). */
static inline void um_cc_result(struct um_exec *x, u64 r, unsigned size, bool cf, bool of)
{
	x->cc.res = (u64)um_sext(r, size);
	x->cc.aux = (cf ? UM_CC_CF : 0) | (cf ^ of ? UM_CC_CARRY1 : 0);
	x->cc.aux2 = 0;
}

/* Condition codes in encoding order: O NO B AE E NE BE A S NS P NP L GE LE G. */
static inline bool um_cond(const struct um_exec *x, unsigned cc)
{
	bool v;

	switch (cc >> 1) {
	case 0:
		v = um_of(x);
		break;
	case 1:
		v = um_cf(x);
		break;
	case 2:
		v = um_zf(x);
		break;
	case 3:
		v = um_cf(x) || um_zf(x);
		break;
	case 4:
		v = um_sf(x);
		break;
	case 5:
		v = um_pf(x);
		break;
	case 6:
		v = um_sf(x) != um_of(x);
		break;
	default:
		v = um_zf(x) || um_sf(x) != um_of(x);
		break;
	}
	return v ^ (cc & 1);
}

#endif

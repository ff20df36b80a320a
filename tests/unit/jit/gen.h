/* SPDX-License-Identifier: MIT */
/*
 * Encodings for the tests of copies: every opcode of every map with every mandatory prefix, W, and
 * ModRM.reg; the rest at random.  Most of them are no instructions.
 */
#ifndef TESTS_JIT_GEN_H
#define TESTS_JIT_GEN_H

#include <string.h>

#include "base/bits.h"
#include "engine/encode.h"

struct gen {
	u64 rng;
	bool plain_memory; /* memory operands are [rsi] or [rdi], no prefixes that change them */
};

static inline u64 gen_rnd(struct gen *g)
{
	g->rng ^= g->rng << 13;
	g->rng ^= g->rng >> 7;
	g->rng ^= g->rng << 17;
	return g->rng;
}

static inline unsigned gen_below(struct gen *g, unsigned n)
{
	return (unsigned)((gen_rnd(g) >> 20) % n);
}

static inline u8 *gen_modrm(struct gen *g, u8 *p, unsigned reg)
{
	unsigned mod = gen_below(g, 2) ? 3 : g->plain_memory ? 0 : gen_below(g, 3);
	unsigned rm = mod != 3 && g->plain_memory ? 6 + gen_below(g, 2) : gen_below(g, 8);

	*p++ = (u8)(mod << 6 | reg << 3 | rm);
	for (unsigned n = 0; n < 9; n++) /* SIB, displacement, immediate */
		*p++ = (u8)gen_rnd(g);
	return p;
}

static inline void gen_legacy(struct gen *g, u8 *p, bool mode64, unsigned map, unsigned prefix,
			      unsigned w, unsigned op, unsigned reg)
{
	static const u8 prefixes[4] = { 0, 0x66, 0xf3, 0xf2 }, seg[3] = { 0x2e, 0x64, 0x65 };
	bool rex = mode64 && (w || gen_below(g, 2));

	if (!gen_below(g, 8))
		*p++ = 0xf0;
	if (!g->plain_memory && !gen_below(g, 16))
		*p++ = seg[gen_below(g, 3)];
	if (!g->plain_memory && !gen_below(g, 16))
		*p++ = 0x67;
	if (prefix > 1 && !gen_below(g, 4))
		*p++ = 0x66;
	if (prefix)
		*p++ = prefixes[prefix];
	if (rex)
		*p++ = (u8)(0x40 | w << 3 | gen_below(g, 8));
	if (rex && g->plain_memory)
		p[-1] &= 0xfe; /* B: rsi, rdi */
	if (map)
		*p++ = 0x0f;
	if (map > 1)
		*p++ = map == 2 ? 0x38 : 0x3a;
	*p++ = (u8)op;
	gen_modrm(g, p, reg);
}

static inline void gen_vex(struct gen *g, u8 *p, bool mode64, unsigned map, unsigned prefix,
			   unsigned w, unsigned op, unsigned reg)
{
	unsigned rxb = mode64 ? (unsigned)gen_rnd(g) & 0xe0 : 0xe0;

	if (g->plain_memory)
		rxb |= 0x60;
	*p++ = 0xc4;
	*p++ = (u8)(rxb | map);
	*p++ = (u8)(w << 7 | (gen_below(g, 3) ? gen_below(g, 16) : 15) << 3 | gen_below(g, 2) << 2 |
		    prefix);
	*p++ = (u8)op;
	gen_modrm(g, p, reg);
}

static inline void gen_evex(struct gen *g, u8 *p, bool mode64, unsigned map, unsigned prefix,
			    unsigned w, unsigned op, unsigned reg)
{
	unsigned rxb = mode64 ? (unsigned)gen_rnd(g) & 0xf0 : 0xf0;

	if (g->plain_memory)
		rxb |= 0x60;
	*p++ = 0x62;
	*p++ = (u8)(rxb | map);
	*p++ = (u8)(w << 7 | (gen_below(g, 3) ? gen_below(g, 16) : 15) << 3 | 4 | prefix);
	*p++ = (u8)(gen_below(g, 2) << 7 | gen_below(g, 4) << 5 | (!gen_below(g, 3)) << 4 |
		    (gen_below(g, 3) > 0) << 3 | (gen_below(g, 2) ? gen_below(g, 8) : 0));
	if (!mode64)
		p[-1] |= 8;
	*p++ = (u8)op;
	gen_modrm(g, p, reg);
}

/* Call fn(arg, 15 bytes) for all. */
static inline void gen_all(struct gen *g, bool mode64, unsigned repeat,
			   void (*fn)(void *arg, const u8 *bytes), void *arg)
{
	u8 b[32];

	for (unsigned form = 0; form < 3; form++) {
		for (unsigned map = form ? 1 : 0; map < (form == 2 ? 7 : 4); map++) {
			for (unsigned n = 0; n < repeat * 4 * 2 * 256 * 8; n++) {
				unsigned reg = n & 7, op = n >> 3 & 255, w = n >> 11 & 1,
					 prefix = n >> 12 & 3;

				memset(b, 0, sizeof(b));
				if (form == UM_FORM_LEGACY)
					gen_legacy(g, b, mode64, map, prefix, w, op, reg);
				else if (form == UM_FORM_VEX)
					gen_vex(g, b, mode64, map, prefix, w, op, reg);
				else
					gen_evex(g, b, mode64, map, prefix, w, op, reg);
				fn(arg, b);
			}
		}
	}
}

#endif

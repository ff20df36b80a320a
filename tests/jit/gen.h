/* SPDX-License-Identifier: MIT */
/*
 * A random program in the making: what its instructions (gen.c) and its blocks (program.c) have in
 * common.
 */
#ifndef TESTS_JIT_GEN_H
#define TESTS_JIT_GEN_H

#include "../fuzz/rng.h"
#include "program.h"

struct fixup {
	u16 at;	 /* of the displacement or absolute address, 4 bytes */
	u16 end; /* of its instruction; 0: an absolute address */
	u8 block;
};

struct gen {
	struct rng r;
	struct program *p;
	program_can_fn *can;
	void *arg;
	ZydisDecoder d;
	unsigned at;	/* where the next instruction goes, from PROGRAM_CODE */
	unsigned limit; /* no more instructions from here on */
	u16 undefined;	/* flags */
	u16 known;	/* registers whose values are known */
	u64 value[16];
	unsigned nfields; /* so many operands to come are by register `field`, near each other */
	unsigned field;
	struct fixup fix[3 * PROGRAM_BLOCKS];
	unsigned nfix;
	bool plain; /* integer instructions only */
	u16 smc[8]; /* displacements of stores to code */
	unsigned nsmc;
	unsigned calls;
};

static inline unsigned below(struct gen *g, unsigned n)
{
	return rng_below(&g->r, n);
}

static inline bool one_in(struct gen *g, unsigned n)
{
	return rng_one_in(&g->r, n);
}

static inline bool is64(const struct gen *g)
{
	return !g->p->code32;
}

struct decoded {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};
bool gen_decode(struct gen *g, const u8 *b, struct decoded *d);

/* A number from where things go wrong, or any. */
u64 gen_edge(struct rng *r);

/* Is there room for more instructions? */
bool gen_room(const struct gen *g);
/* An instruction of which the generator is sure. */
void gen_put(struct gen *g, const u8 *b, unsigned len);
#define PUT(g, ...)                                       \
	do {                                              \
		const u8 put_bytes[] = { __VA_ARGS__ };   \
		gen_put(g, put_bytes, sizeof(put_bytes)); \
	} while (0)
#define LE32(v) (u8)(v), (u8)((v) >> 8), (u8)((v) >> 16), (u8)((v) >> 24)

/* Define the flags, if they aren't: CMP of two registers. */
void gen_settle(struct gen *g);
/* MOV @r, @v: some encoding that leaves the flags alone. */
void gen_load(struct gen *g, unsigned r, u64 v);
/* Some instruction that the processor can execute. */
void gen_random_insn(struct gen *g);

#endif

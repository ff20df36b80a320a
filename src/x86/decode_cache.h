/* SPDX-License-Identifier: MIT */
/*
 * Decoding at a tenth of the price: instructions that differ only in displacement and immediate are decoded once.
 *
 * What an instruction is depends on its mode and on its first bytes: prefixes, opcode, ModRM and SIB (SDM vol. 2 figure 2-1).  The cache
 * keeps the answer of um_decode() by these; displacement and immediate are read anew each time.  Instructions in which more than the
 * number itself depends on an immediate (3DNow!, registers in an immediate), far pointers, two immediates and what is no
 * instruction are not kept: `plain` in struct um_insn.
 */
#ifndef UM_X86_DECODE_CACHE_H
#define UM_X86_DECODE_CACHE_H

#include "x86/insn.h"

#define UM_DECODE_CACHE_BITS 13

/* The first bytes of an instruction, zeroes behind; in the last byte their number and the mode.  0: none. */
struct um_insn_key {
	u64 word[2];
};

/* How an instruction begins. */
struct um_insn_head {
	u8 len;	   /* bytes of prefixes, opcode, ModRM and SIB; or a few more; 0: not known */
	u8 opcode; /* offset of the opcode, behind prefixes and escapes */
	u8 map; /* of the opcode: 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A, others of VEX and EVEX */
	bool vex; /* VEX or EVEX */
};

/*
 * Read it from @bytes, of which @avail are there.  Not known: if it goes on beyond those, and XOP.  What is no instruction may have a
 * beginning all the same.
 */
struct um_insn_head um_insn_head(enum um_mode mode, const u8 *bytes, unsigned avail);

/* The key of @len bytes, 0..15. */
struct um_insn_key um_insn_key(enum um_mode mode, const u8 *bytes, unsigned len);

static inline bool um_insn_key_is(const struct um_insn_key *a, const struct um_insn_key *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

/* A number of @bits bits, 1..32, for tables of keys. */
static inline unsigned um_insn_key_hash(const struct um_insn_key *k, unsigned bits)
{
	return (unsigned)((k->word[0] * 0x9e3779b97f4a7c15ull ^
			   k->word[1] * 0xc2b2ae3d27d4eb4full) >>
			  (64 - bits));
}

/* Starts as zeroes; one thread at a time. */
struct um_decode_cache {
	struct um_decode_entry {
		struct um_insn_key key;
		struct um_insn insn; /* its displacement, immediate and `off` mean nothing */
	} entry[1 << UM_DECODE_CACHE_BITS];
};

/*
 * um_decode() from memory, but for fn and aux: they are those of *@entry, where an engine may keep what it binds the instruction to,
 * and more that depends on its first bytes only, by um_decode_keep().  *@entry is NULL if nothing can be kept; fn and aux are NULL
 * then, and if nothing was kept yet.
 */
unsigned um_decode_cached(struct um_decode_cache *c, struct um_insn *i, enum um_mode mode,
			  const u8 *bytes, unsigned avail, u16 off, struct um_decode_entry **entry);

/* Have the next ones that are like @i start as it is now.  @e is of this um_decode_cached(). */
static inline void um_decode_keep(struct um_decode_entry *e, const struct um_insn *i)
{
	e->insn = *i;
}

/* Forget everything. */
void um_decode_forget(struct um_decode_cache *c);

#endif

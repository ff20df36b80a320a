/* SPDX-License-Identifier: MIT */
/*
 * Blocks: decoded guest code, and the cache that holds it.  Private to interp/ and its tests.
 *
 * A block is a straight run of instructions of one page, closed by a pseudo instruction that falls
 * through to the next address.  It is keyed by the host address of its first byte and the mode it
 * was decoded in; its linear address is not part of it (gpr[UM_REG_PAGE] supplies that), so all
 * mappings of a page share its blocks.
 *
 * Where there is a translator, a block ends with its first conditional jump, so that code that is
 * executed a few times is not decoded again for each way through it; what gets translated goes on
 * behind the jump (um_block_trace()).
 *
 * A block carries a copy of the bytes that it was decoded from, and every entry compares them with
 * guest memory.  That is the whole of self-modifying code, DMA, other processors' stores and
 * remapped slots: a block that doesn't match is decoded again, and nobody ever has to invalidate
 * one.
 *
 * An instruction that crosses a page is a block of its own, with bytes in two pages.
 */
#ifndef UM_ENGINE_INTERP_BLOCK_H
#define UM_ENGINE_INTERP_BLOCK_H

#include "engine/interp/interp.h"
#include "x86/decode_cache.h"

#define UM_BLOCK_JCC	 3  /* conditional jumps in a block when it is first translated */
#define UM_BLOCK_MAX	 32 /* instructions */
#define UM_BLOCK_BYTES	 (UM_BLOCK_MAX * 15)
#define UM_BLOCK_SINGLE	 0x80 /* in key: one instruction only (single-stepping) */
#define UM_BLOCK_NEVER	 0xffff
#define UM_BLOCK_UNKNOWN 0xfe /* no key: UM_JIT_KEY_NONE ends in 0xff, the others have six bits */
#define UM_ARENA_SIZE	 (16ul << 20)
#define UM_HASH_BITS	 15
#define UM_RING_SIZE	 32

struct um_block {
	hva_t hva;	       /* of the first byte */
	struct um_block *next; /* in its hash bucket */
	/* Bytes to be compared: in the first and last of the aligned words that hold the block. */
	u64 first_mask, last_mask;
	u16 hits;   /* executions since it was last translated; UM_BLOCK_NEVER: it can't be */
	u8 key;	    /* enum um_mode, UM_BLOCK_SINGLE */
	u8 ninsns;  /* without the closing one */
	u16 nwords; /* 0: crosses a page */
	u16 len;    /* bytes: of the instructions, or more if the last is none */
	u16 len1;   /* of them in the first page */
	struct um_insn *insn;
	/*
	 * Where execution went on last, and before that: tried before the table.  Only if the last
	 * instruction has fixed targets.  They may be stale, like any block, but never dangle: the
	 * arena is emptied as a whole.
	 */
	struct um_block *succ[2];
	bool direct;
	bool steady; /* none of its instructions changes what translated blocks are looked up by, x->jit_key */
	u8 untranslated; /* this x->jit_key's low byte: there was no translation when it was entered last; UM_BLOCK_UNKNOWN */
	u64 words[];	 /* the bytes, in aligned words; or, if it crosses a page, just the bytes */
};

#define UM_BLOCK_ROOM                                                            \
	((UM_BLOCK_MAX + 1) * sizeof(struct um_insn) + sizeof(struct um_block) + \
	 ALIGN_UP(UM_BLOCK_BYTES + 14, 64))

/* The blocks executed last, for the report of a guest's death. */
struct um_ring_entry {
	u64 rip;
	const struct um_block *block; /* NULL: the cache was emptied since, or it was this: */
	/*
	 * Translated code was left in this block, at its last instruction that is in force: that of
	 * count - 1.
	 */
	const struct um_jit_block *translated;
	unsigned count;
};

struct um_interp {
	char *arena;
	size_t used;
	/* times that the arena was emptied: pointers to blocks are good for one value */
	u64 flushes;
	struct um_block **hash;
	/*
	 * By bucket: hits of a block that went when the arena was emptied, and a hash of its bytes,
	 * since other code may be there by now.
	 */
	struct um_heat {
		u8 hits, hash;
	} heat[1 << UM_HASH_BITS];
	struct um_decode_cache decoded;
	u64 features[4]; /* of the CPUID that blocks and decoded instructions were bound for */
	unsigned ring_pos;
	struct um_ring_entry ring[UM_RING_SIZE];
};

/*
 * The decoded block at cpu.rip, its bytes verified; NULL: x->exit.  Sets gpr[UM_REG_PAGE] and
 * x->code_page.  um_block_enter() does everything; um_block_find() the same for what is usual, and
 * its NULL means nothing.
 */
struct um_block *um_block_enter(struct um_exec *x, unsigned key);

/*
 * Get the page of linear address @lin into the TLB, for fetching.  The host address; 0: it can't be, and what is
 * wrong is for um_block_enter() to say.
 */
hva_t um_block_map(struct um_exec *x, gva_t lin);

/* Instruction @k of @b, a translated block, is where translated code was left. */
static inline void um_ring_note(struct um_exec *x, const struct um_jit_block *b, hva_t hva,
				unsigned k)
{
	struct um_interp *in = x->interp;
	struct um_ring_entry *r = &in->ring[in->ring_pos++ % UM_RING_SIZE];

	r->rip = x->cpu.gpr[UM_REG_PAGE] + (hva & ~UM_PAGE_MASK);
	r->block = NULL;
	r->translated = b;
	r->count = k + 1;
}

/* Translated blocks are gone. */
static inline void um_ring_forget_translated(struct um_exec *x)
{
	for (unsigned n = 0; n < UM_RING_SIZE; n++)
		x->interp->ring[n].translated = NULL;
}

/*
 * What is to be translated in place of @b, whose page is in memory: the same code and what is
 * behind its conditional jump, or @b.  @room has UM_BLOCK_ROOM bytes.
 */
const struct um_block *um_block_trace(struct um_exec *x, const struct um_block *b, void *room);

/* Empty the cache. */
void um_block_flush(struct um_exec *x);

/*
 * Buckets of tables of blocks, 1 << @bits: those of a page are beside each other, since code that
 * is entered for the first time is looked for in vain at one address after the other.
 */
#define UM_PAGE_BUCKET_BITS 9
static inline unsigned um_code_bucket(hva_t hva, unsigned bits)
{
	u64 page =
		(hva >> UM_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> (64 - bits + UM_PAGE_BUCKET_BITS);

	return (unsigned)(page << UM_PAGE_BUCKET_BITS |
			  (hva & ~UM_PAGE_MASK) >> (UM_PAGE_SHIFT - UM_PAGE_BUCKET_BITS));
}
static inline unsigned um_block_bucket(hva_t hva)
{
	return um_code_bucket(hva, UM_HASH_BITS);
}

/* Does a block within a page still say what memory says?  False too if the memory can't be read. */
static inline bool um_block_verify(const struct um_block *b)
{
	const u64 *mem = (const u64 *)(b->hva & ~7ull), *copy = b->words;
	const u64 *last = copy + b->nwords - 1;
	u64 w;

	if (unlikely(!um_get64(mem, &w)) || unlikely((w ^ *copy) & b->first_mask))
		return false;
	if (copy == last)
		return true;
	for (copy++, mem++; copy != last; copy++, mem++) {
		if (unlikely(!um_get64(mem, &w)) || unlikely(w != *copy))
			return false;
	}
	return likely(um_get64(mem, &w)) && likely(!((w ^ *copy) & b->last_mask));
}

/* Bytes of its instructions. */
static inline unsigned um_block_code(const struct um_block *b)
{
	return (u16)(b->insn[b->ninsns].off - b->insn[0].off);
}

static inline bool um_block_is(const struct um_block *b, hva_t hva, unsigned key)
{
	return b && b->hva == hva && b->key == key;
}

/* @b was executed after @prev. */
static inline void um_block_link(struct um_block *prev, struct um_block *b)
{
	prev->succ[1] = prev->succ[0];
	prev->succ[0] = b;
}

/* @prev: the block executed before, or NULL. */
static inline struct um_block *um_block_find(struct um_exec *x, unsigned key, struct um_block *prev)
{
	gva_t lin = (x->cpu.rip + x->seg_base[UM_CS]) & x->lin_mask;
	hva_t hva = (hva_t)um_tlb_lookup(x->tlb, lin, UM_FETCH, x->fetch_ctx);
	struct um_block *b;

	if (unlikely(!hva))
		return NULL;
	if (prev && prev->direct) {
		b = prev->succ[0];
		if (likely(um_block_is(b, hva, key)))
			goto found;
		b = prev->succ[1];
		if (likely(um_block_is(b, hva, key)))
			goto found;
	}
	b = x->interp->hash[um_block_bucket(hva)];
	while (b && unlikely(!um_block_is(b, hva, key)))
		b = b->next;
	if (unlikely(!b))
		return NULL;
	if (prev)
		um_block_link(prev, b);
found:
	if (unlikely(!b->nwords) || unlikely(!um_block_verify(b)))
		return NULL;
	if (key != UM_MODE_64 &&
	    unlikely(x->cpu.rip + um_block_code(b) - 1 > x->cpu.seg[UM_CS].limit))
		return NULL;
	x->code_page = hva & UM_PAGE_MASK;
	x->cpu.gpr[UM_REG_PAGE] = lin & UM_PAGE_MASK;
	return b;
}

#endif

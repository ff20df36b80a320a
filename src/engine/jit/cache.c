// SPDX-License-Identifier: MIT
/*
 * A vCPU's part of the code cache: chunks in the order in which they were filled.
 *
 * A chunk has the code of blocks and their descriptions, and is given up as a whole: one with few blocks that weren't dropped since.
 * With some chance, since otherwise code that is executed in turn, and is a little too much, would all be gone before its turn.  That
 * needs no cooperation of other vCPUs, since no other has pointers into it; and nothing of it is running, since only C asks for
 * translations.  (But C's own pointers to blocks are good no longer behind what translates: um_jit_find(), too.)  What is left are jumps
 * from other chunks, which are led back to their exits, entries of the jump cache, which are looked for, and return addresses on the
 * host's stack, which are all forgotten (um_jit.drops).
 *
 * How much of the process's cache a vCPU may have: arena.c.
 */
#include <limits.h>
#include <stdlib.h>

#include "engine/jit/jit.h"

#define YOUNG  8  /* of so many chunks, the newest is never the one to go */
#define CHANCE 64 /* blocks */

/* ---- eviction ---- */

static u32 chance(struct um_jit *j)
{
	j->chance = j->chance * 1664525 + 1013904223;
	return j->chance >> 16;
}

void um_jit_forget_link(struct um_jit_link *l)
{
	struct um_jit_link **q = &l->to->in;

	while (*q && *q != l)
		q = &(*q)->next;
	if (*q)
		*q = l->next;
}

static void evict_block(struct um_exec *x, struct um_jit_block *b)
{
	if (!b->dead) {
		um_jit_unlink(x, b);
		um_jit_page_settle(x, b->page);
		um_count(x->counters, jit_evicted);
	}
	for (unsigned n = 0; n < b->nlinks; n++) {
		if (b->link[n].linked)
			um_jit_forget_link(&b->link[n]);
	}
}

/* No pointers into @c are left in the jump cache, and among the decoded instructions. */
static void forget_chunk(struct um_jit *j, const struct um_jit_chunk *c)
{
	const u8 *code = um_arena_rx_of(c->cold_end) - UM_JIT_CHUNK;
	const char *meta = c->meta_end - UM_JIT_CHUNK_META;

	for (unsigned n = 0; n < ARRAY_SIZE(j->jump); n++) {
		if ((u64)((u8 *)j->jump[n].code - code) < UM_JIT_CHUNK)
			j->jump[n].stamp = 0;
	}
	for (unsigned n = 0; n < ARRAY_SIZE(j->decoded); n++) {
		if ((u64)((char *)j->decoded[n].block - meta) < UM_JIT_CHUNK_META)
			j->decoded[n].block = NULL;
	}
}

/* Take one of the chunks away.  NULL: there is none. */
static struct um_jit_chunk *evict(struct um_exec *x)
{
	struct um_jit *j = x->translator;
	struct um_jit_chunk **victim = &j->oldest, *c;
	unsigned fewest = UINT_MAX, older = j->nchunks - j->nchunks / YOUNG;

	if (older > 1 && older == j->nchunks)
		older--;
	for (struct um_jit_chunk **q = &j->oldest; *q && older--; q = &(*q)->next) {
		unsigned live = (*q)->live + chance(j) % CHANCE;

		if (live < fewest) {
			fewest = live;
			victim = q;
		}
	}
	c = *victim;
	if (!c)
		return NULL;
	for (struct um_jit_block *b = c->blocks; b; b = b->chunk_next)
		evict_block(x, b);
	*victim = c->next;
	if (!j->oldest)
		j->newest = NULL;
	j->nchunks--;
	forget_chunk(j, c);
	um_ring_forget_translated(x);
	um_count(x->counters, jit_evictions);
	return c;
}

/* ---- room ---- */

static bool fits(const struct um_jit_chunk *c, size_t code, size_t meta)
{
	return c && (size_t)(c->code_end - c->code) >= code &&
	       (size_t)(c->cold_end - c->cold) >= code && (size_t)(c->meta_end - c->meta) >= meta;
}

static struct um_jit_chunk *next_chunk(struct um_exec *x)
{
	struct um_jit *j = x->translator;
	struct um_jit_chunk *c = um_arena_get(j->nchunks);

	if (c)
		return c;
	c = evict(x);
	if (c && um_arena_crowded(j->nchunks + 1)) {
		um_arena_put(c);
		c = evict(x);
	}
	if (c)
		um_arena_clear(c);
	return c;
}

bool um_jit_room(struct um_exec *x, size_t code, size_t meta)
{
	struct um_jit *j = x->translator;
	struct um_jit_chunk *c;

	meta = ALIGN_UP(meta, (size_t)UM_JIT_ALIGN);
	if (likely(fits(j->newest, code, meta)))
		return true;
	c = next_chunk(x);
	if (!c)
		return false;
	c->next = NULL;
	if (j->newest)
		j->newest->next = c;
	else
		j->oldest = c;
	j->newest = c;
	j->nchunks++;
	return true;
}

void um_jit_commit(struct um_exec *x, struct um_jit_block *b, size_t meta)
{
	struct um_jit_chunk *c = x->translator->newest;

	c->code = (u8 *)ALIGN_UP((u64)(c->code + b->code_len), UM_JIT_CODE_ALIGN);
	c->cold += b->cold_len;
	c->meta += ALIGN_UP(meta, (size_t)UM_JIT_ALIGN);
	b->chunk_next = c->blocks;
	/* (The signal handler looks for blocks here.) */
	__atomic_store_n(&c->blocks, b, __ATOMIC_RELEASE);
}

/* ---- pages ---- */

/* Pages without blocks are kept for what is known of them, until others are wanted.  How many there were. */
static unsigned free_pages(struct um_jit *j)
{
	unsigned freed = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(j->pages); n++) {
		struct um_jit_page **q = &j->pages[n], *p;

		while ((p = *q)) {
			if (p->blocks || p->tails) {
				q = &p->next;
				continue;
			}
			*q = p->next;
			um_arena_page_put(p);
			freed++;
		}
	}
	j->npages -= freed;
	return freed;
}

struct um_jit_page *um_jit_page_new(struct um_exec *x)
{
	struct um_jit *j = x->translator;

	for (;;) {
		struct um_jit_page *p = um_arena_page_get(j->npages);
		struct um_jit_chunk *c;

		if (p) {
			j->npages++;
			return p;
		}
		if (free_pages(j))
			continue;
		c = evict(x);
		if (!c)
			return NULL;
		um_arena_put(c);
	}
}

/* ---- all of it ---- */

static void give_back(struct um_jit *j)
{
	struct um_jit_chunk *c, *next;

	for (c = j->oldest; c; c = next) {
		next = c->next;
		um_arena_put(c);
	}
	j->oldest = j->newest = NULL;
	j->nchunks = 0;
	for (unsigned n = 0; n < ARRAY_SIZE(j->pages); n++) {
		struct um_jit_page *p, *after;

		for (p = j->pages[n]; p; p = after) {
			after = p->next;
			um_arena_page_put(p);
		}
		j->pages[n] = NULL;
	}
	j->npages = 0;
}

void um_jit_flush(struct um_exec *x)
{
	struct um_jit *j = x->translator;

	give_back(j);
	j->drops++;
	memset(j->hash, 0, sizeof(j->hash));
	um_jit_forget_jumps(j);
	um_jit_forget_insns(j);
	um_ring_forget_translated(x);
	um_tlb_unguard_all(x->tlb);
	um_count(x->counters, jit_flushes);
}

void um_jit_cache_destroy(struct um_jit *j)
{
	if (j->generation == um_arena_generation())
		give_back(j);
}

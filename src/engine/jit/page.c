// SPDX-License-Identifier: MIT
/*
 * Pages that translated code was made from, and what happens when they change (jit.h).
 *
 * Blocks have the bytes that they were made from.  To compare those of a page's blocks with memory is
 * cheap enough to be done after every event by which this vCPU may learn that others changed code.
 */
#include "engine/jit/jit.h"

#define PIECE	 64u
#define PATIENCE 16u /* stores */

static struct um_jit_page **bucket(struct um_jit *j, hva_t hva)
{
	return &j->pages[(hva >> UM_PAGE_SHIFT) % ARRAY_SIZE(j->pages)];
}

struct um_jit_page *um_jit_page_find(struct um_jit *j, hva_t hva)
{
	struct um_jit_page *p = *bucket(j, hva);

	hva &= UM_PAGE_MASK;
	while (p && p->hva != hva)
		p = p->next;
	return p;
}

static bool guard(struct um_exec *x, struct um_jit_page *p)
{
	p->guarded = um_tlb_guard(x->tlb, p->hva);
	p->stores = 0;
	return p->guarded;
}

/* Nothing is translated from the page any more. */
static void unguard(struct um_exec *x, struct um_jit_page *p)
{
	if (!p->guarded)
		return;
	p->guarded = false;
	p->covered = 0;
	um_tlb_unguard(x->tlb, p->hva);
}

static u64 pieces(unsigned off, unsigned len)
{
	return GENMASK((off + len - 1) / PIECE, off / PIECE);
}

bool um_jit_page_reserve(struct um_exec *x, hva_t hva)
{
	struct um_jit *j = x->translator;
	struct um_jit_page **head = bucket(j, hva), *p = um_jit_page_find(j, hva);

	if (p)
		return true;
	p = um_jit_page_new(x);
	if (!p)
		return false;
	p->hva = hva & UM_PAGE_MASK;
	p->next = *head;
	p->blocks = p->tails = NULL;
	p->covered = 0;
	p->doubt = j->doubt;
	p->guarded = false;
	p->patience = PATIENCE;
	*head = p;
	return true;
}

/*
 * Have @p cover @len bytes from @off on, which were @bytes.  False: they are others by now, or
 * can't be had.
 */
static bool cover(struct um_exec *x, struct um_jit_page *p, unsigned off, const u8 *bytes,
		  unsigned len)
{
	u8 now[UM_BLOCK_BYTES];

	if (!p->guarded && !guard(x, p)) {
		um_jit_flush(x); /* the block and @p, too */
		return false;
	}
	if (um_copy_from(now, (void *)(p->hva + off), len) || memcmp(now, bytes, len)) {
		um_jit_page_settle(x, p);
		return false;
	}
	p->covered |= pieces(off, len);
	return true;
}

bool um_jit_page_add(struct um_exec *x, struct um_jit_block *b, hva_t tail)
{
	struct um_jit *j = x->translator;
	struct um_jit_page *p = um_jit_page_find(j, b->hva), *q = NULL;

	if (!p || !cover(x, p, b->hva & ~UM_PAGE_MASK, b->bytes, b->len1))
		return false;
	if (tail) {
		q = um_jit_page_find(j, tail);
		/* What is covered for nothing is seen to when the page is compared next. */
		if (!q || !cover(x, q, 0, b->bytes + b->len1, b->len - b->len1))
			return false;
		b->tail_next = q->tails;
		q->tails = b;
	}
	b->tail_page = q;
	b->page = p;
	b->dead = false;
	um_arena_chunk(b->id)->live++;
	b->page_next = p->blocks;
	p->blocks = b;
	return true;
}

static void forget_tail(struct um_exec *x, struct um_jit_block *b)
{
	struct um_jit_block **q = &b->tail_page->tails;

	while (*q && *q != b)
		q = &(*q)->tail_next;
	if (*q)
		*q = b->tail_next;
	um_jit_page_settle(x, b->tail_page);
}

void um_jit_unlink(struct um_exec *x, struct um_jit_block *b)
{
	struct um_jit *j = x->translator;
	struct um_jit_block **h = &j->hash[um_jit_bucket(b->hva)], **q = &b->page->blocks;

	while (*h && *h != b)
		h = &(*h)->next;
	if (*h)
		*h = b->next;
	while (*q && *q != b)
		q = &(*q)->page_next;
	if (*q)
		*q = b->page_next;
	for (struct um_jit_link *l = b->in; l; l = l->next) {
		l->linked = false;
		/* The start of a dropped block is not what it was: um_emit_dead(). */
		if (!l->from->dead)
			um_emit_unlinked(l);
	}
	b->in = NULL;
	b->dead = true;
	x->translator->drops++;
	um_arena_chunk(b->id)->live--;
	if (b->tail_page)
		forget_tail(x, b);
}

void um_jit_drop(struct um_exec *x, struct um_jit_block *b)
{
	um_jit_unlink(x, b);
	um_emit_dead(b);
	um_count(x->counters, jit_dropped);
}

void um_jit_page_settle(struct um_exec *x, struct um_jit_page *p)
{
	if (!p->blocks && !p->tails)
		unguard(x, p);
}

/* Drop @b since its second page changed. */
static void drop_tail(struct um_exec *x, struct um_jit_block *b)
{
	um_jit_drop(x, b);
	um_jit_page_settle(x, b->page);
}

/* Drop the blocks with bytes in [off, off + len). */
static void drop_range(struct um_exec *x, struct um_jit_page *p, unsigned off, unsigned len)
{
	struct um_jit_block *b, *next;

	for (b = p->blocks; b; b = next) {
		unsigned at = b->hva & ~UM_PAGE_MASK;

		next = b->page_next;
		if (at < off + len && off < at + b->len1)
			um_jit_drop(x, b);
	}
	for (b = p->tails; b; b = next) {
		next = b->tail_next;
		if (off < (unsigned)b->len - b->len1)
			drop_tail(x, b);
	}
}

void um_jit_written(struct um_exec *x, const void *hva, unsigned len)
{
	struct um_jit_page *p = um_jit_page_find(x->translator, (hva_t)hva);
	unsigned off = (hva_t)hva & ~UM_PAGE_MASK;

	if (!p || !p->guarded)
		return;
	if (p->covered & pieces(off, len))
		drop_range(x, p, off, len);
	if (++p->stores >= p->patience) {
		/* A page of data by now; or of both, which the next time is given more time. */
		drop_range(x, p, 0, UM_PAGE_SIZE);
		p->patience *= 2;
	}
	um_jit_page_settle(x, p);
}

void um_jit_mapped(struct um_exec *x, hva_t hva)
{
	struct um_jit_page *p = um_jit_page_find(x->translator, hva);

	/* Where nobody else stores to it but devices, that was seen to. */
	if (p && !(x->alone && p->doubt == x->translator->doubt))
		um_jit_page_check(x, p);
}

void um_jit_page_check(struct um_exec *x, struct um_jit_page *p)
{
	struct um_jit_block *b, *next;
	u8 now[UM_PAGE_SIZE];
	unsigned from, to;

	p->doubt = x->translator->doubt;
	if (!p->covered)
		return;
	/* From the first piece to the last: mostly less than the page. */
	from = (unsigned)__builtin_ctzll(p->covered) * PIECE;
	to = (64 - (unsigned)__builtin_clzll(p->covered)) * PIECE;
	if (um_copy_from(now + from, (void *)(p->hva + from),
			 to - from)) { /* the host has no page any more */
		drop_range(x, p, 0, UM_PAGE_SIZE);
		unguard(x, p);
		return;
	}
	for (b = p->blocks; b; b = next) {
		next = b->page_next;
		if (memcmp(b->bytes, now + (b->hva & ~UM_PAGE_MASK), b->len1))
			um_jit_drop(x, b);
	}
	for (b = p->tails; b; b = next) {
		next = b->tail_next;
		if (memcmp(b->bytes + b->len1, now, b->len - b->len1))
			drop_tail(x, b);
	}
	um_jit_page_settle(x, p);
}

// SPDX-License-Identifier: MIT
/*
 * The software TLB's own operations: filling it and forgetting.
 *
 * Context numbers are handed out in ascending groups of four, one for each privilege and one unused.  A flush
 * hands out the next group, which no entry has; the entries of older groups can't match any more and are
 * overwritten in time.  When numbers run out, the table is cleared once and they start over: one clearing
 * of 512 KiB in 1023 flushes.
 */
#include "mmu/tlb.h"

#include <string.h>

#define CTX_STEP 4 /* context numbers of a root: one for each privilege, one unused */
_Static_assert(!(CTX_STEP & (CTX_STEP - 1)) && UM_NR_PRIVS <= CTX_STEP,
	       "translated code takes the privilege from a number (engine/jit/arena.c)");
#define MAX_FLUSH_PAGES 64 /* beyond this, forgetting everything is cheaper */

static void clear(struct um_tlb *t)
{
	for (unsigned n = 0; n < UM_TLB_ENTRIES; n++)
		for (unsigned i = 0; i < ARRAY_SIZE(t->e[n].tag); i++)
			t->e[n].tag[i] = UM_TLB_EMPTY;
}

static void forget_code(struct um_tlb *t, bool user)
{
	t->code_seq[user]++;
	memset(t->code[user], 0, sizeof(t->code[user]));
}

void um_tlb_new_context(struct um_tlb *t)
{
	if (t->next_ctx + UM_NR_PRIVS > UM_TLB_NR_CTX) {
		clear(t);
		t->next_ctx = t->oldest_ctx = CTX_STEP;
		t->epoch++;
		forget_code(t, false);
		forget_code(t, true);
	}
	for (unsigned i = 0; i < UM_NR_PRIVS; i++)
		t->ctx[i] = (u16)(t->next_ctx + i);
	t->next_ctx += CTX_STEP;
}

void um_tlb_init(struct um_tlb *t)
{
	memset(t, 0, sizeof(*t));
	clear(t);
	t->next_ctx = CTX_STEP;
	um_tlb_new_context(t);
}

void um_tlb_flush(struct um_tlb *t)
{
	t->epoch++;
	t->seq++;
	um_tlb_new_context(t);
	t->oldest_ctx = t->ctx[0];
	memset(t->written, 0, sizeof(t->written));
}

static void clear_entry(struct um_tlb_entry *e, u64 vpn)
{
	for (unsigned i = 0; i < ARRAY_SIZE(e->tag); i++) {
		if (e->tag[i] >> UM_PAGE_SHIFT == vpn)
			e->tag[i] = UM_TLB_EMPTY;
	}
}

void um_tlb_flush_range(struct um_tlb *t, gva_t gva, u64 npages)
{
	u64 vpn = gva >> UM_PAGE_SHIFT;

	if (npages > MAX_FLUSH_PAGES) {
		um_tlb_flush(t);
		return;
	}
	t->seq++;
	for (u64 i = 0; i < npages; i++) {
		unsigned n = um_tlb_code_bit((vpn + i) << UM_PAGE_SHIFT);

		for (unsigned user = 0; user < 2; user++) {
			if (t->code[user][n / 64] >> (n % 64) & 1)
				forget_code(t, user);
		}
	}
	for (unsigned ctx = 0; ctx < 1u << UM_TLB_SPREAD; ctx++) {
		if (ctx % CTX_STEP >= UM_NR_PRIVS)
			continue;
		for (u64 i = 0; i < npages; i++)
			clear_entry(&t->e[um_tlb_index((vpn + i) << UM_PAGE_SHIFT, ctx)], vpn + i);
	}
}

void um_tlb_flush_page(struct um_tlb *t, gva_t gva)
{
	um_tlb_flush_range(t, gva, 1);
}

void um_tlb_fill(struct um_tlb *t, gva_t gva, unsigned ctx, void *host_page, unsigned allowed)
{
	struct um_tlb_entry *e = &t->e[um_tlb_index(gva, ctx)];
	u64 tag = (gva & UM_PAGE_MASK) | ctx;
	u64 addend = (u64)host_page - (gva & UM_PAGE_MASK);

	if ((allowed & (1u << UM_WRITE)) && unlikely(um_tlb_guarded(t, (hva_t)host_page)))
		allowed &= ~(1u << UM_WRITE);
	for (unsigned i = 0; i < ARRAY_SIZE(e->tag); i++) {
		if (allowed & (1u << i))
			e->tag[i] = tag;
		else if (e->tag[i] != tag || e->addend != addend)
			e->tag[i] = UM_TLB_EMPTY;
	}
	e->addend = addend;
	if (allowed & (1u << UM_WRITE))
		um_tlb_note_written(t, e);
}

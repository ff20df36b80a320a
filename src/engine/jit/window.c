// SPDX-License-Identifier: MIT
/*
 * Windows (memory.c has what they are): when they are forgotten, how they become larger than a page, and which accesses do without.
 *
 * An access does without when it missed often, while misses were frequent: um_jit_plain() notes that, and the block is translated anew
 * when it is hot again.
 */
#include "engine/jit/regs.h"

#define WINDOW_CYCLES	   60
#define WINDOW_STRIKES	   6  /* times that it is, until it does without */
#define WINDOW_MISSES_TEST 2  /* in tests, which translate everything */
#define RUN_CROSSINGS	   16 /* times that a run is not had at once, until it is no run */
#define REGION_MAX	   (4ul << 20)

/* ---- forgetting ---- */

static struct um_jit_window *window_of(struct um_exec *x, unsigned acc, unsigned n)
{
	return n == UM_RSP ? &x->jit.stack[acc] : &x->window[acc][n];
}

static void clear_regions(struct um_jit *j)
{
	for (unsigned acc = UM_READ; acc <= UM_WRITE; acc++) {
		for (unsigned n = 0; n < UM_JIT_REGIONS; n++)
			j->region[acc][n] =
				(struct um_jit_region){ UM_JIT_NOWHERE, UM_JIT_NOWHERE };
	}
	j->regions = false;
}

static void forget_windows(struct um_exec *x, bool user)
{
	unsigned first = user ? 0 : UM_JIT_KERNEL_WINDOW,
		 last = user ? UM_JIT_KERNEL_WINDOW : UM_JIT_WINDOWS;

	for (unsigned acc = UM_READ; acc <= UM_WRITE; acc++) {
		for (unsigned n = first; n < last; n++)
			*window_of(x, acc, n) =
				(struct um_jit_window){ UM_JIT_NOWHERE, UM_JIT_NOWHERE, 0 };
		memset(&x->window_wide[acc][first], 0, (last - first) * sizeof(u64));
		memset(&x->window_span[acc][first], 0, (last - first) * sizeof(u64));
	}
	if (user && unlikely(x->translator->regions))
		clear_regions(x->translator);
}

void um_jit_forget_windows(struct um_exec *x)
{
	clear_regions(x->translator);
	forget_windows(x, false);
	forget_windows(x, true);
}

void um_jit_check_windows(struct um_exec *x, bool same)
{
	struct um_jit *j = x->translator;
	bool all = j->window_seq != x->tlb->seq || j->window_epoch != x->tlb->epoch;

	if (unlikely(all || j->window_ctx != (u16)(x->tlb->ctx[UM_PRIV_USER] & x->ctx_mask))) {
		j->window_seq = x->tlb->seq;
		j->window_epoch = x->tlb->epoch;
		j->window_ctx = x->tlb->ctx[UM_PRIV_USER] & x->ctx_mask;
		forget_windows(x, true);
	}
	if (all || !same)
		forget_windows(x, false);
}

/* ---- misses ---- */

/* Does the TLB have page @gva for the access, at that distance from it? */
static bool continues(const struct um_exec *x, gva_t gva, unsigned acc, u64 addend)
{
	const struct um_tlb_entry *e = &x->tlb->e[um_tlb_index(gva, x->ctx)];

	return e->tag[acc] == (gva | x->ctx) && e->addend == addend;
}

/* Make the region of the access that missed, or a larger one than is known.  False: it is no larger than a page, or than what was known. */
static bool grow_region(struct um_exec *x)
{
	struct um_jit *j = x->translator;
	unsigned acc = x->missed_window & 1;
	gva_t page = x->missed & UM_PAGE_MASK, from = page, to = page + UM_PAGE_SIZE;
	u64 addend = x->tlb->e[um_tlb_index(page, x->ctx)].addend;
	struct um_jit_region *r = &j->region[acc][(page >> UM_JIT_REGION_SHIFT) % UM_JIT_REGIONS];

	if (x->missed_window >> 1 == UM_JIT_KERNEL_WINDOW || x->priv != UM_PRIV_USER ||
	    !continues(x, page, acc, addend))
		return false;
	while (page - from < REGION_MAX / 2 && continues(x, from - UM_PAGE_SIZE, acc, addend))
		from -= UM_PAGE_SIZE;
	while (to - page < REGION_MAX / 2 && continues(x, to, acc, addend))
		to += UM_PAGE_SIZE;
	if (to - from == UM_PAGE_SIZE || (page - r->start <= r->last && to - from <= r->last + 1))
		return false;
	for (gva_t at = from; at < to; at = (at | (BIT(UM_JIT_REGION_SHIFT) - 1)) + 1)
		j->region[acc][(at >> UM_JIT_REGION_SHIFT) % UM_JIT_REGIONS] =
			(struct um_jit_region){ from, from + addend, to - from - 1, 0 };
	j->regions = true;
	return true;
}

/* Instruction @k of @b does without windows and runs from now on. */
static void make_plain(struct um_exec *x, struct um_jit_block *b, unsigned k)
{
	u64 bit, *plain = um_jit_plain(x->translator, b->hva + b->map[k].off, &bit);

	*plain |= bit;
	um_count(x->counters, jit_unwindowed);
}

static void forget_block(struct um_exec *x, struct um_jit_block *b)
{
	um_jit_drop(x, b);
	um_jit_page_settle(x, b->page);
}

/*
 * @k, the first of several that use the stack, was left: the interpreter executes all of them.  That
 * takes long if it is often so, since they cross a page.
 */
void um_jit_missed_run(struct um_exec *x, struct um_jit_block *b, unsigned k)
{
	if (b->dead || ++b->crossings < RUN_CROSSINGS)
		return;
	make_plain(x, b, k);
	forget_block(x, b);
}

/* Those of its accesses that missed do without windows from now on, in both of its translations. */
static void do_without(struct um_exec *x, struct um_jit_block *b)
{
	struct um_jit_block *other =
		um_jit_lookup(x->translator, b->hva, b->key ^ UM_JIT_KEY_APART);

	for (unsigned n = 0; n < b->nwindowed; n++) {
		if (b->windowed[n].strikes >= WINDOW_STRIKES / 2)
			make_plain(x, b, b->windowed[n].insn);
	}
	forget_block(x, b);
	if (other)
		forget_block(x, other);
}

/*
 * Instruction @k of @b is one of many that missed their windows.  If there were too many of late (a
 * miss costs the host a wrong prediction, a hit gains less than that), and it is seen here again,
 * it does without from now on: @b is translated anew.
 */
void um_jit_missed_window(struct um_exec *x, struct um_jit_block *b, unsigned k)
{
	u64 now = __builtin_ia32_rdtsc(), since = now - x->translator->missed_at;

	x->jit.patience = x->jit_threshold ? UM_JIT_WINDOW_MISSES : WINDOW_MISSES_TEST;
	x->translator->missed_at = now;
	if (grow_region(x))
		return;
	if (since > UM_JIT_WINDOW_MISSES * WINDOW_CYCLES)
		return;
	for (unsigned n = 0; n < b->nwindowed; n++) {
		struct um_jit_windowed *w = &b->windowed[n];

		if (w->insn == k && ++w->strikes == WINDOW_STRIKES)
			do_without(x, b);
	}
}

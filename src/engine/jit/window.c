// SPDX-License-Identifier: MIT
/*
 * Windows (memory.c has what they are): when they are forgotten, how they become larger than a page, and which accesses do without.
 *
 * A hit saves a few cycles, a miss costs a wrong prediction and a routine: a window is worth having only if nearly all accesses hit it.
 * That depends on the program's data, and no access says it for another.  So translated code counts how often a block is executed.  When
 * that was often, it is translated anew, with windows for all accesses, whose misses are counted, too; and soon once more, with windows
 * for those that were good.  What then misses all the same, since the program does something else by now, is tried anew.
 */
#include "engine/jit/regs.h"

/* Executions of a block in UM_JIT_NEW and UM_JIT_TRIAL; and in both in tests, which translate everything. */
#define NEW	   32768
#define TRIAL	   1024
#define STAGE_TEST 2
/* Of so many executions of a block, one access may miss its window once. */
#define WORTH 16

#define WINDOW_CYCLES 60
/* Times that an access is seen to be one of many that missed, until the block is tried again. */
#define WINDOW_STRIKES 6
#define MISSES_TRIAL   16
#define MISSES_TEST    2  /* in tests, which translate everything */
#define RUN_CROSSINGS  16 /* times that a run is not had at once, until it is no run */
#define REGION_MAX     (4ul << 20)

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

/* ---- regions ---- */

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

/* ---- which accesses do without ---- */

s32 um_jit_stage(const struct um_exec *x, enum um_jit_stage stage)
{
	if (!x->jit_threshold)
		return STAGE_TEST;
	return stage == UM_JIT_NEW ? NEW : TRIAL;
}

/* Misses until one is looked at: few while it is seen what windows are good for, since it depends on which regions there are. */
static s32 patience(const struct um_exec *x, enum um_jit_stage stage)
{
	if (!x->jit_threshold)
		return MISSES_TEST;
	return stage == UM_JIT_TRIAL ? MISSES_TRIAL : UM_JIT_WINDOW_MISSES;
}

/* Links into a block, which is dropped, lead to @to. */
static void adopt(struct um_jit_link *in, struct um_jit_block *to)
{
	struct um_jit_link *next;

	for (; in; in = next) {
		next = in->next;
		if (in->far || in->apart || in->from->dead)
			continue;
		um_emit_linked(in, to);
		in->linked = true;
		in->to = to;
		in->next = to->in;
		to->in = in;
	}
}

/* What is translated in place of @b, with that choice: @as, or the same instructions.  NULL: nothing, and @b may be gone. */
static struct um_jit_block *replace(struct um_exec *x, struct um_jit_block *b,
				    const struct um_block *as, struct um_jit_choice choice)
{
	struct um_jit *j = x->translator;
	struct um_jit_link *in;
	struct um_jit_block *to;
	hva_t hva = b->hva;
	u32 key = b->key;

	to = um_jit_translate_again(x, b, as, key, choice);
	/* That may have taken the place of @b, or of all. */
	if (!to || um_jit_lookup(j, hva, key) != b || !um_jit_publish(x, to, 0))
		return NULL;
	in = b->in;
	um_jit_drop(x, b);
	adopt(in, to);
	return to;
}

/* The instructions of @b whose windows missed too often, as bits. */
static u32 not_worth(struct um_exec *x, const struct um_jit_block *b)
{
	u32 plain = b->choice.plain;

	for (unsigned n = 0; n < b->nwindowed; n++) {
		const struct um_jit_windowed *w = &b->windowed[n];

		if (w->misses * WORTH <= (u32)um_jit_stage(x, UM_JIT_TRIAL) ||
		    (plain & BIT(w->insn)))
			continue;
		plain |= (u32)BIT(w->insn);
		um_count(x->counters, jit_unwindowed);
	}
	return plain;
}

struct um_jit_block *um_jit_next_stage(struct um_exec *x, struct um_jit_block *b)
{
	_Alignas(struct um_insn) char room[UM_BLOCK_ROOM];
	struct um_jit_choice choice = { 0, b->choice.followed, (u8)(b->choice.stage + 1) };
	const struct um_block *path = NULL;
	struct um_jit *j = x->translator;
	struct um_jit_block *to;
	hva_t hva = b->hva;
	u32 key = b->key;

	if (choice.stage == UM_JIT_TRIAL)
		path = um_jit_path(x, b, &choice.followed, room);
	else
		choice.plain = not_worth(x, b);
	b->left = INT32_MAX; /* unless there is another from now on */
	to = replace(x, b, path, choice);
	if (!to && path && um_jit_lookup(j, hva, key) == b) {
		/* The path leads to what isn't translated. */
		choice.followed = 0;
		to = replace(x, b, NULL, choice);
	}
	x->jit.patience = patience(x, (enum um_jit_stage)choice.stage);
	return to || um_jit_lookup(j, hva, key) != b ? to : b;
}

/*
 * @k, the first of several that use the stack, was left: the interpreter executes all of them.  That
 * takes long if it is often so, since they cross a page.
 */
bool um_jit_missed_run(struct um_exec *x, struct um_jit_block *b, unsigned k)
{
	struct um_jit_choice choice = b->choice;

	if (b->dead || b->tail_page || ++b->crossings < RUN_CROSSINGS)
		return false;
	choice.plain |= (u32)BIT(k);
	replace(x, b, NULL, choice);
	return true;
}

/*
 * Instruction @k of @b is one of many that missed their windows.  If there were too many of late, and it is seen here again and again, the
 * block is tried anew.
 */
bool um_jit_missed_window(struct um_exec *x, struct um_jit_block *b, unsigned k)
{
	u64 now = __builtin_ia32_rdtsc(), since = now - x->translator->missed_at;
	struct um_jit_choice choice = { 0, b->choice.followed, UM_JIT_TRIAL };

	/* What is never on trial: the stack's windows, and blocks that are seldom entered at their start. */
	if (!(b->key & UM_JIT_KEY_USER) || (b->key & UM_JIT_KEY_APART) ||
	    x->missed_window >> 1 == UM_RSP)
		choice = (struct um_jit_choice){ b->choice.plain | (u32)BIT(k), b->choice.followed,
						 UM_JIT_SETTLED };
	x->jit.patience = patience(x, (enum um_jit_stage)b->choice.stage);
	x->translator->missed_at = now;
	if (grow_region(x) || b->dead || b->choice.stage != UM_JIT_SETTLED || b->tail_page ||
	    since > UM_JIT_WINDOW_MISSES * WINDOW_CYCLES)
		return false;
	for (unsigned n = 0; n < b->nwindowed; n++) {
		struct um_jit_windowed *w = &b->windowed[n];

		if (w->insn == k && ++w->misses == WINDOW_STRIKES) {
			replace(x, b, NULL, choice);
			return true;
		}
	}
	return false;
}

// SPDX-License-Identifier: MIT
/*
 * One look-up for several accesses.
 *
 * Fields of a structure, and of a stack frame, are accessed one after the other by the same base register.  So the first access looks
 * ahead: which others of this block go by that register, before it changes, to within UM_JIT_SPAN bytes?  It looks up all of these bytes
 * at once (memory.c: in the window or the TLB, which have them if they don't cross a page), for writing if one of them that is not behind
 * a conditional jump writes, and keeps their host address in a slot:
 *
 *	lea  t1, [base + lo]
 *	...					as for one access, of hi - lo bytes
 *	mov  [slot], t1				("anchor")
 *	op   [t1 + disp - lo]
 *
 * The others are then
 *
 *	mov  t1, [slot]				unless t1 has it still
 *	op   [t1 + disp - lo]
 *
 * with a slow path as any access has, since the host's page may be gone.  Flags stay where they are.
 *
 * A slot holds within one execution of the block: nothing translated between the first and the last of these accesses changes the
 * context, the segment bases or the TLB (what does so ends what came before: is_steady()).  When the interpreter has executed an
 * instruction between them, whatever that did, translated code goes on only after all slots that are in use at that place were looked
 * up anew (um_jit_resume()).
 *
 * What crosses a page, or may be read but not written, is not to be had at once, and never will be: that happens often with one object
 * of thirty.  For these there is another translation of the block, made when it is wanted, in which each access is looked up by itself
 * (UM_JIT_KEY_APART).  A look-up that fails jumps there, to the same instruction.  The flags are in x->jit.flags then, and all else is
 * in guest registers, as if the interpreter had executed what is before.
 */
#include "engine/jit/trans.h"

/* Times that a look-up fails for good until there is another translation. */
#define LOST_FEW  4
#define LOST_TEST 2 /* in tests, which translate everything */

/* ---- which accesses ---- */

/* Can instruction @k's operand be looked up with others? */
static bool shares(const struct um_trans *t, unsigned k)
{
	const struct um_insn *i = &t->b->insn[k];
	const struct um_facts *f = &t->facts[k];

	return t->how[k] == UM_HOW_COPY && f->mem_size && !f->bit_string &&
	       !(i->flags & UM_INSN_LOCK) && i->op != ZYDIS_MNEMONIC_XCHG &&
	       i->index == UM_REG_ZERO && i->disp == (s32)i->disp && i->asz == (t->m64 ? 8 : 4);
}

/* Does instruction @k leave all but general registers and memory alone, and go on behind it? */
static bool is_steady(const struct um_trans *t, unsigned k)
{
	switch (t->how[k]) {
	case UM_HOW_COPY:
	case UM_HOW_LEA:
	case UM_HOW_PUSH:
	case UM_HOW_POP:
	case UM_HOW_LEAVE:
	case UM_HOW_NOTHING:
		return true;
	case UM_HOW_BRANCH:
		return um_is_jcc(&t->b->insn[k]);
	default:
		return false;
	}
}

/* Does what was looked up by register @base hold no longer behind instruction @k? */
static bool ends(const struct um_trans *t, unsigned k, unsigned base)
{
	return !is_steady(t, k) || (base < UM_NR_GPRS && (t->facts[k].writes & BIT(base)));
}

static bool same_base(const struct um_insn *a, const struct um_insn *b)
{
	return a->base == b->base && a->seg == b->seg;
}

/* What can be looked up with the present instruction @i?  False: nothing. */
static bool plan(const struct um_trans *t, const struct um_insn *i, struct um_anchoring *a)
{
	s64 lo = i->disp, hi = lo + t->facts[t->k].mem_size;
	bool write = t->facts[t->k].mem_write, jumped = false;

	a->until = (u8)t->k;
	for (unsigned k = t->k; k < t->b->ninsns; k++) {
		const struct um_insn *other = &t->b->insn[k];
		const struct um_facts *f = &t->facts[k];

		if (k > t->k && shares(t, k) && same_base(i, other) &&
		    (!f->mem_write || write || !jumped)) {
			s64 from = um_min(lo, other->disp),
			    to = um_max(hi, other->disp + f->mem_size);

			if (to - from <= UM_JIT_SPAN && from == (s32)from) {
				lo = from;
				hi = to;
				write |= f->mem_write;
				a->until = (u8)k;
			}
		}
		if (ends(t, k, i->base))
			break;
		jumped |= t->how[k] == UM_HOW_BRANCH;
	}
	a->a = (struct um_jit_anchor){
		.lo = (s32)lo,
		.size = (u8)(hi - lo),
		.acc = write ? UM_WRITE : UM_READ,
		.base = i->base,
		.seg = i->seg,
	};
	return a->until > t->k;
}

static bool has(const struct um_anchoring *a, const struct um_insn *i, const struct um_facts *f)
{
	return !a->closed && a->a.base == i->base && a->a.seg == i->seg && i->disp >= a->a.lo &&
	       i->disp + f->mem_size <= (s64)a->a.lo + a->a.size &&
	       (!f->mem_write || a->a.acc == UM_WRITE);
}

struct um_anchoring *um_anchor_for(struct um_trans *t, const struct um_insn *i)
{
	struct um_anchoring *a = &t->anchor[t->nanchors];
	unsigned used = 0;

	if (!shares(t, t->k) || (t->key & UM_JIT_KEY_APART))
		return NULL;
	for (unsigned n = 0; n < t->nanchors; n++) {
		if (has(&t->anchor[n], i, &t->facts[t->k]))
			return &t->anchor[n];
		if (!t->anchor[n].closed)
			used |= 1u << t->anchor[n].a.slot;
	}
	if (t->nanchors == UM_MAX_ANCHORS || used == (1u << UM_JIT_ANCHORS) - 1)
		return NULL;
	*a = (struct um_anchoring){ 0 };
	if (!plan(t, i, a))
		return NULL;
	a->a.slot = (u8)__builtin_ctz(~used);
	return a;
}

/* ---- the accesses ---- */

void um_emit_anchor(struct um_trans *t, const struct um_insn *i, struct um_anchoring *a)
{
	struct um_insn at = *i;

	at.disp = a->a.lo;
	t->anchoring = t->nanchors++;
	um_emit_linear(t, &at);
	um_emit_check(t, a->a.size, (enum um_access)a->a.acc, um_window_of(t, i));
	t->anchoring = UM_NO_ANCHOR;
	a->store = t->e.p;
	um_emit_store(&t->e, 1, H_T1, H_CTX, um_jit_anchor(a->a.slot));
	a->a.first = a->a.last = (u8)t->k;
	t->t1 = a->a.slot + 1u;
	t->known.insn = NULL;
}

void um_emit_anchored(struct um_trans *t, struct um_anchoring *a)
{
	if (t->t1 != a->a.slot + 1u) {
		um_emit_load(&t->e, 1, H_T1, H_CTX, um_jit_anchor(a->a.slot));
		a->reloaded = true;
	}
	a->a.last = (u8)t->k;
	t->t1 = a->a.slot + 1u;
	t->known.insn = NULL;
}

void um_anchors_step(struct um_trans *t)
{
	for (unsigned n = 0; n < t->nanchors; n++) {
		struct um_anchoring *a = &t->anchor[n];

		a->closed |= t->k >= a->until || ends(t, t->k, a->a.base);
	}
}

void um_anchors_end(struct um_trans *t)
{
	static const u8 nop[] = { 0x0f, 0x1f, 0x40, 0x00 }; /* as long as the store */

	for (unsigned n = 0; n < t->nanchors; n++) {
		if (!t->anchor[n].reloaded && !t->e.full)
			memcpy(t->anchor[n].store, nop, sizeof(nop));
	}
}

void um_emit_anchor_miss(struct um_trans *t, struct um_anchoring *a)
{
	t->has_slow[a->a.first] = true;
	um_flags_emit_save(t, &t->slow_flags[a->a.first]);
	a->out = um_emit_jmp(&t->e);
}

void um_emit_anchor_misses(struct um_trans *t)
{
	for (unsigned n = 0; n < t->nanchors; n++) {
		if (!t->anchor[n].miss)
			continue;
		um_emit_patch_here(&t->e, t->anchor[n].miss);
		um_emit_anchor_miss(t, &t->anchor[n]);
	}
}

void um_anchor_links(struct um_trans *t)
{
	for (unsigned n = 0; n < t->nanchors && !t->e.full; n++) {
		struct um_anchoring *a = &t->anchor[n];
		const u8 *slow = t->slow_saved[a->a.first];

		um_emit_patch(a->out, slow);
		a->a.link = (u8)t->nlinks;
		t->link[t->nlinks++] = (struct um_jit_link){
			.site = (s32)(a->out - t->start),
			.stub = (u16)(slow - t->cold_start),
			.apart = true,
		};
	}
}

/* ---- the other translation ---- */

static bool same_insns(const struct um_jit_block *a, const struct um_jit_block *b)
{
	return a->len == b->len && a->ninsns == b->ninsns && a->vec == b->vec &&
	       a->choice.followed == b->choice.followed;
}

/* @b's look-ups that fail go on in @other from now on. */
static void link_apart(struct um_jit_block *b, struct um_jit_block *other)
{
	for (unsigned n = 0; n < b->nanchors; n++) {
		struct um_jit_link *l = &b->link[b->anchor[n].link];
		const struct um_jit_insn *to = &other->map[b->anchor[n].first];

		if (l->linked || to->goes_on || to->host_flags)
			continue;
		um_emit_patch(um_arena_rw_of(b->code) + l->site,
			      um_arena_rw_of(other->code) + to->start);
		l->linked = true;
		l->to = other;
		l->next = other->in;
		other->in = l;
	}
}

static struct um_jit_block *make_apart(struct um_exec *x, const struct um_jit_block *b)
{
	struct um_jit_block *other = um_jit_translate_again(
		x, b, NULL, b->key | UM_JIT_KEY_APART,
		(struct um_jit_choice){ b->choice.plain, b->choice.followed, UM_JIT_SETTLED });

	if (!other || !um_jit_publish(x, other, 0))
		return NULL;
	um_count(x->counters, jit_apart);
	return other;
}

struct um_jit_block *um_jit_apart(struct um_exec *x, struct um_jit_block *b)
{
	struct um_jit *j = x->translator;
	struct um_jit_block *other = um_jit_lookup(j, b->hva, b->key | UM_JIT_KEY_APART);
	hva_t hva = b->hva;
	u32 key = b->key;

	if (other && !same_insns(b, other)) {
		/* (Of a trace that went on longer, or not as long.) */
		um_jit_drop(x, other);
		other = NULL;
	}
	if (!other)
		other = make_apart(x, b);
	/* That may have taken the place of @b, or of all. */
	if (other && um_jit_lookup(j, hva, key) == b)
		link_apart(b, other);
	return other;
}

/* ---- coming back from the interpreter ---- */

/* Look up again what is in use at instruction @k.  False: that is not to be had. */
static bool refresh(struct um_exec *x, const struct um_jit_block *b, unsigned k, bool *anchored)
{
	*anchored = false;
	for (unsigned n = 0; n < b->nanchors; n++) {
		const struct um_jit_anchor *a = &b->anchor[n];
		gva_t lin = x->cpu.gpr[a->base] + (u64)(s64)a->lo;
		void *host;

		if (k <= a->first || k > a->last)
			continue;
		if (a->seg >= UM_FS)
			lin += x->seg_base[a->seg];
		um_interp_sync_ctx(x);
		host = um_tlb_lookup_sized(x->tlb, lin & x->lin_mask, a->size,
					   (enum um_access)a->acc, x->ctx);
		if (!host)
			return false;
		x->anchor[a->slot] = (hva_t)host;
		*anchored = true;
	}
	if (b->map[k].t1)
		x->t1 = x->anchor[b->map[k].t1 - 1];
	return true;
}

bool um_jit_resume(struct um_exec *x, struct um_jit_block **pb, unsigned k, bool *anchored)
{
	struct um_jit_block *b = *pb, *other;

	*anchored = false;
	if (b->map[k].goes_on)
		return false;
	if (refresh(x, b, k, anchored))
		return true;
	*anchored = false;
	if (x->lockstep) {
		/* @b must stay: um_lockstep_run() has made the other, if it could. */
		other = um_jit_lookup(x->translator, b->hva, b->key | UM_JIT_KEY_APART);
		if (!other || !same_insns(b, other))
			return false;
		link_apart(b, other);
	} else {
		if (++b->lost < (x->jit_threshold ? LOST_FEW : LOST_TEST))
			return false;
		other = um_jit_apart(x, b);
	}
	*pb = other;
	return other && !other->map[k].goes_on;
}

// SPDX-License-Identifier: MIT
/*
 * Running translated code: entering it, and what to do when it comes back (enum um_jit_exit).
 *
 * The flags are the interpreter's (x->cc) whenever this file's functions are not running, and in
 * x->jit.flags while translated code is.
 *
 * Kicks.  Whoever kicks sets x->kick, then the upper half of x->jit.stamp to 0, which no entry of
 * the jump cache has; translated code looks at one of them in every loop.  We set the stamp, then
 * look at x->kick, then enter: so either we see the kick or its stamp stays.
 */
#include <errno.h>

#include "base/huge.h"
#include "engine/flags.h"
#include "engine/jit/regs.h"
#include "engine/jit/vec.h"

/* Times that translated code is entered with vector registers that one block missed. */
#define VEC_TURNS 16
/* Of so many far links that don't hold, about, one is made to (not always the same of a loop). */
#define FAR_PATIENCE	  128
#define FAR_PATIENCE_MORE 127 /* a mask */
#define FAR_PATIENCE_TEST 1

/* No guest has code there. */
#define NO_RIP (~0ull)

/* ---- life ---- */

void um_jit_forget_jumps(struct um_jit *j)
{
	if (unlikely(++j->gen >> (64 - UM_STAMP_GEN_SHIFT))) {
		memset(j->jump, 0, sizeof(j->jump));
		j->gen = 1;
	}
}

int um_jit_init(struct um_exec *x)
{
	struct um_jit_options none;
	struct um_jit *j;
	int err;

	um_jit_options_init(&none);
	err = um_arena_init(x->jit_options ? x->jit_options : &none);
	if (err)
		return err;
	j = um_huge_map(sizeof(*j));
	if (!j)
		return -ENOMEM;
	j->meta = um_arena_meta();
	j->gen = j->doubt = 1;
	j->generation = um_arena_generation();
	j->host_vec = um_vec_host_class(um_host());
	memcpy(j->features, x->cpu.features, sizeof(j->features));
	x->jit.jump = j->jump;
	x->jit.regions = j->region[0];
	x->translator = j;
	x->jit.shadow_rip = NO_RIP;
	um_jit_forget_windows(x);
	x->jit.code_pages = x->tlb->code[0];
	x->jit.checked = j->checked;
	x->jit.doubt = um_jit_doubt_tag(j->doubt);
	return 0;
}

void um_jit_destroy(struct um_exec *x)
{
	struct um_jit *j = x->translator;

	if (!j)
		return;
	um_jit_cache_destroy(j);
	um_huge_unmap(j, sizeof(*j));
	x->translator = NULL;
}

/* ---- what blocks are looked up by ---- */

/* Is segment @s, outside 64-bit mode, all of the linear address space, readable and writable? */
static bool flat(const struct um_exec *x, enum um_seg s)
{
	return (x->seg_flat[s] & (BIT(UM_READ) | BIT(UM_WRITE))) == (BIT(UM_READ) | BIT(UM_WRITE));
}

/* The greatest class of vector instructions that raises neither #UD nor #NM now. */
static u32 vec_class(const struct um_exec *x)
{
	const struct um_cpu *c = &x->cpu;
	unsigned n = UM_VEC_CLASS_SSE;

	if ((c->cr0 & (CR0_TS | CR0_EM)) || !(c->cr4 & CR4_OSFXSR))
		return UM_VEC_CLASS_NONE;
	if (!(c->cr4 & CR4_OSXSAVE))
		return n;
	while (n < x->translator->host_vec &&
	       !(um_vec_states((enum um_vec_class)(n + 1)) & ~c->xcr0))
		n++;
	return n;
}

/* The key of the present state. */
static u32 key_of(const struct um_exec *x)
{
	u32 key = vec_class(x) << UM_JIT_KEY_VEC_SHIFT;

	if (x->priv == UM_PRIV_USER)
		key |= UM_JIT_KEY_USER;
	if (x->mode == UM_MODE_64)
		return key | UM_JIT_KEY_64;
	if (x->mode != UM_MODE_32 || x->seg_base[UM_CS] || x->cpu.seg[UM_CS].limit != 0xffffffff ||
	    x->sp_mask != 0xffffffff || !flat(x, UM_SS) || x->seg_base[UM_SS] || !flat(x, UM_DS) ||
	    x->seg_base[UM_DS] || !flat(x, UM_ES) || x->seg_base[UM_ES])
		return UM_JIT_KEY_NONE;
	return key | (flat(x, UM_FS) ? UM_JIT_KEY_FS : 0) | (flat(x, UM_GS) ? UM_JIT_KEY_GS : 0);
}

static void next_map_seq(struct um_jit *j, bool user)
{
	if (++j->map_seq[user] >> UM_STAMP_SEQ_BITS) {
		j->map_seq[user] = 0;
		um_jit_forget_jumps(j);
	}
}

/* What entries of the jump cache must have to hold now.  Sees what became of those before. */
static u64 stamp_now(struct um_exec *x)
{
	struct um_jit *j = x->translator;
	bool user = x->jit_key & UM_JIT_KEY_USER;

	for (unsigned n = 0; n < 2; n++) {
		if (unlikely(x->tlb->code_seq[n] != j->code_seq[n])) {
			j->code_seq[n] = x->tlb->code_seq[n];
			next_map_seq(j, n);
		}
		x->jit_seq[n] = j->map_seq[n] << UM_STAMP_SEQ_SHIFT |
				(n ? UM_JIT_KEY_USER << UM_STAMP_KEY_SHIFT : 0);
	}
	return j->gen << UM_STAMP_GEN_SHIFT | (u64)x->jit_key << UM_STAMP_KEY_SHIFT |
	       x->jit_seq[user] | x->fetch_ctx;
}

/* What sync_contexts() depends on, but for the present privilege. */
static u64 contexts_of(const struct um_exec *x)
{
	const u16 *ctx = x->tlb->ctx;

	return ctx[UM_PRIV_KERNEL] | (u64)ctx[UM_PRIV_KERNEL_AC] << 16 |
	       (u64)ctx[UM_PRIV_USER] << 32 | (u64)(x->ctx_mask & 1) << 48 |
	       (u64) !!(x->cpu.cr4 & CR4_SMAP) << 49;
}

/* Was translated code left in the kernel's context with EFLAGS.AC? */
static bool left_with_ac(const struct um_exec *x)
{
	return x->jit.ctx == x->jit.kernel[1].ctx && x->jit.ctx != x->jit.kernel[0].ctx;
}

static void sync_contexts(struct um_exec *x)
{
	x->jit.tlb = x->tlb->e + um_tlb_spread(x->ctx);
	x->jit.ctx = x->ctx;
	for (unsigned ac = 0; ac < 2; ac++) {
		u32 priv = ac && (x->cpu.cr4 & CR4_SMAP) ? UM_PRIV_KERNEL_AC : UM_PRIV_KERNEL;
		u32 ctx = x->tlb->ctx[priv] & x->ctx_mask;

		x->jit.kernel[ac] =
			(struct um_jit_context){ x->tlb->e + um_tlb_spread(ctx), ctx, priv };
	}
	x->jit.user.ctx = x->tlb->ctx[UM_PRIV_USER] & x->ctx_mask;
	x->jit.user.tlb = x->tlb->e + um_tlb_spread(x->jit.user.ctx);
	x->jit.user.priv = UM_PRIV_USER;
	x->jit.fetch_tlb = x->tlb->e + um_tlb_spread(x->fetch_ctx);
	x->jit.fetch_ctx = x->fetch_ctx;
}

/* Bring what translated code reads up to date. */
static void sync_state(struct um_exec *x)
{
	struct um_jit *j = x->translator;
	u64 contexts = contexts_of(x), stamp;
	bool same = contexts == j->contexts;

	um_interp_sync_ctx(x);
	um_jit_check_windows(x, same && (x->jit.ctx == x->ctx || !left_with_ac(x)));
	if (!same || x->jit.ctx != x->ctx || x->jit.fetch_ctx != x->fetch_ctx) {
		j->contexts = contexts;
		sync_contexts(x);
	}
	stamp = stamp_now(x);
	if (x->jit.stamp != stamp)
		__atomic_store_n(&x->jit.stamp, stamp, __ATOMIC_SEQ_CST);
}

/* ---- far links ---- */

/* Far link @l leads to @to, at cpu.rip, which um_jit_find() just found; from @page. */
static void make_far(struct um_exec *x, struct um_jit_link *l, struct um_jit_block *to, gva_t page)
{
	if (l->from->dead || (l->from->key & (u32)~UM_JIT_KEY_APART) != x->jit_key)
		return;
	um_emit_far_linked(l, to, stamp_now(x), l->by_target ? x->cpu.rip : page);
	um_count(x->counters, jit_links);
	if (l->linked && l->to == to)
		return;
	if (l->linked)
		um_jit_forget_link(l);
	l->linked = true;
	l->to = to;
	l->next = to->in;
	to->in = l;
}

/* Translated code had no patience with the far link that it came to last. */
static inline bool wants_far(struct um_exec *x)
{
	if (likely(x->far_patience >= 0))
		return false;
	x->far_patience = FAR_PATIENCE_TEST;
	if (x->jit_threshold)
		x->far_patience =
			FAR_PATIENCE + (s32)(__builtin_ia32_rdtsc() >> 4 & FAR_PATIENCE_MORE);
	return true;
}

/* Instruction @k of @from, executed in @page, jumped to @to. */
static void jumped(struct um_exec *x, struct um_jit_block *from, unsigned k, gva_t page,
		   struct um_jit_block *to)
{
	for (unsigned n = 0; n < from->nlinks; n++) {
		if (from->link[n].far && from->link[n].insn == k)
			make_far(x, &from->link[n], to, page);
	}
}

/* ---- blocks ---- */

static struct um_jit_block *block_at(struct um_exec *x, hva_t hva, u32 key)
{
	struct um_jit *j = x->translator;
	struct um_jit_block *b = um_jit_lookup(j, hva, key);

	if (b && unlikely(b->page->doubt != j->doubt)) {
		um_jit_page_check(x, b->page);
		if (b->dead)
			return NULL;
	}
	if (!b)
		return NULL;
	*um_jit_checked_slot(j, hva) = (hva & UM_PAGE_MASK) | um_jit_doubt_tag(j->doubt);
	if (likely(!b->tail_page))
		return b;
	if (b->tail_page->doubt != j->doubt) {
		um_jit_page_check(x, b->tail_page);
		if (b->dead)
			return NULL;
	}
	*um_jit_checked_slot(j, b->tail_page->hva) = b->tail_page->hva | um_jit_doubt_tag(j->doubt);
	return b;
}

static struct um_jump *jump_entry(struct um_jit *j, gva_t lin)
{
	return &j->jump[(u32)((u32)lin * UM_JUMP_HASH) >> (32 - UM_JIT_JUMP_BITS)];
}

/* Others may have changed code, and this vCPU has to know. */
static inline void take_doubt(struct um_exec *x)
{
	struct um_jit *j = x->translator;

	if (likely(!x->code_doubt))
		return;
	x->code_doubt = false;
	if (unlikely(!(++j->doubt << (64 - UM_JIT_DOUBT_BITS))))
		memset(j->checked, 0, sizeof(j->checked));
	x->jit.doubt = um_jit_doubt_tag(j->doubt);
	next_map_seq(j, false);
	next_map_seq(j, true);
}

struct um_jit_block *um_jit_find(struct um_exec *x)
{
	struct um_jit *j = x->translator;
	gva_t lin = x->cpu.rip;
	struct um_jit_block *b;
	struct um_jump *e;
	hva_t hva;

	x->jit_key = key_of(x);
	if (x->jit_key == UM_JIT_KEY_NONE)
		return NULL;
	take_doubt(x);
	um_interp_sync_ctx(x);
	hva = (hva_t)um_tlb_lookup(x->tlb, lin, UM_FETCH, x->fetch_ctx);
	if (unlikely(!hva)) {
		hva = um_block_map(x, lin);
		if (!hva)
			return NULL;
	}
	b = block_at(x, hva, x->jit_key);
	if (!b)
		return NULL;
	x->cpu.gpr[UM_REG_PAGE] = lin & UM_PAGE_MASK;
	if (unlikely(um_jit_stage_over(b))) {
		b = um_jit_next_stage(x, b);
		if (!b)
			return NULL;
	}
	e = jump_entry(j, lin);
	um_tlb_note_code(x->tlb, lin, x->jit_key & UM_JIT_KEY_USER);
	um_count(x->counters, jit_enters);
	e->lin = lin;
	e->stamp = stamp_now(x);
	e->code = b->code;
	e->hva = hva;
	return b;
}

bool um_jit_publish(struct um_exec *x, struct um_jit_block *b, hva_t tail)
{
	struct um_jit *j = x->translator;

	if (!um_jit_page_add(x, b, tail))
		return false;
	b->next = j->hash[um_jit_bucket(b->hva)];
	j->hash[um_jit_bucket(b->hva)] = b;
	um_count(x->counters, jit_blocks);
	um_count_add(x->counters, jit_insns, b->ninsns);
	return true;
}

bool um_jit_add(struct um_exec *x, const struct um_block *b)
{
	_Alignas(struct um_insn) char room[UM_BLOCK_ROOM];
	struct um_jit_block *jb;
	hva_t tail = 0;
	bool full;

	x->jit_key = key_of(x);
	if (x->jit_key == UM_JIT_KEY_NONE)
		return true; /* it may be another time */
	if (block_at(x, b->hva, x->jit_key))
		return true; /* it was executed by the interpreter since the TLB did not have its page */
	if (b->len1 < b->len) {
		gva_t lin = (x->cpu.rip + x->seg_base[UM_CS] + b->len1) & x->lin_mask;

		tail = (hva_t)um_tlb_lookup(x->tlb, lin, UM_FETCH, x->fetch_ctx);
		if (!tail || !um_jit_page_reserve(x, tail))
			return true;
	}
	/* (The one page may have had to go for the other: then um_jit_page_add() refuses.) */
	if (!um_jit_page_reserve(x, b->hva))
		return true;
	jb = um_jit_translate(x, um_block_trace(x, b, room), tail, x->jit_key,
			      (struct um_jit_choice){ .stage = UM_JIT_NEW }, &full);
	if (!jb)
		return full;
	um_jit_publish(x, jb, tail);
	return true;
}

/* ---- exits ---- */

/* Where an instruction that the interpreter executed has led to. */
enum led {
	LED_AWAY, /* it jumped, did not complete (x->exit), or the run loop has to see to something */
	LED_BEHIND, /* nowhere: it is a jump that was not taken */
	LED_ON,	    /* behind it, and translated code can go on there */
};

/* Execute instruction @k of @b by the interpreter.  Sets cpu.rip; x->exit.kind, if the instruction did not complete. */
static enum led execute_one(struct um_exec *x, struct um_jit_block *b, unsigned k)
{
	const struct um_insn *one = um_jit_insn(x, b, k), *r;
	bool stop;

	x->code_page = b->hva & UM_PAGE_MASK;
	um_set_status(x, x->jit.flags);
	um_count(x->counters, jit_slow);
	um_ring_note(x, b, b->hva, k);
	if (one[0].flags & UM_INSN_BRANCH)
		um_count(x->counters, jit_jump_misses);
	if (um_jit_keeps_operand(&one[0]))
		x->jit.operand = x->cpu.gpr[one[0].reg[0] / 8];
	r = one[0].fn(x, &one[0]);
	stop = x->brk || b->dead || x->special || (one[0].flags & UM_INSN_END);
	x->brk = false;
	if (!r)
		return LED_AWAY;
	x->cpu.rip = um_rip(x, &one[1]);
	if (stop)
		return LED_AWAY;
	return one[0].flags & UM_INSN_BRANCH ? LED_BEHIND : LED_ON;
}

/*
 * The same for it and those behind it that translated code can't be entered at: *@k becomes the one to enter at, in *@b, which may be
 * another translation of the block (*@anchored: um_jit_resume()).
 */
static bool execute_on(struct um_exec *x, struct um_jit_block **b, unsigned *k, bool *anchored)
{
	while (execute_one(x, *b, *k) == LED_ON) {
		++*k;
		x->jit.flags = um_status(x) | UM_JIT_HOST_FLAGS;
		if (um_jit_resume(x, b, *k, anchored))
			return true;
		if (!*b)
			return false;
	}
	return false;
}

static u64 link_target(const struct um_exec *x, const struct um_jit_link *l)
{
	u64 rip = x->cpu.gpr[UM_REG_PAGE] + l->off;

	return x->mode == UM_MODE_64 ? rip : (u32)rip;
}

/* Exit @l of a block: the block to go on in; NULL: none yet.  Sets cpu.rip. */
static struct um_jit_block *follow(struct um_exec *x, struct um_jit_link *l)
{
	struct um_jit_block *to;

	x->cpu.rip = link_target(x, l);
	if (l->again) {
		/*
		 * This time the interpreter executes it, and gets its pages into the TLB; see to
		 * doubts for the next.
		 */
		block_at(x, l->from->hva, l->from->key);
		return NULL;
	}
	if (l->far) {
		gva_t page = x->cpu.gpr[UM_REG_PAGE];
		struct um_jit_block *from = l->from;
		hva_t hva = from->hva;
		u32 key = from->key;

		um_count(x->counters, jit_jump_misses);
		to = um_jit_find(x);
		/* (That may have translated something, in the place of @from.) */
		if (to && wants_far(x) && um_jit_lookup(x->translator, hva, key) == from)
			make_far(x, l, to, page);
		return to;
	}
	to = block_at(x, (l->from->hva & UM_PAGE_MASK) + l->off,
		      l->from->key & (u32)~UM_JIT_KEY_APART);
	if (!to || l->linked || l->from->dead)
		return to;
	um_emit_linked(l, to);
	l->linked = true;
	l->to = to;
	l->next = to->in;
	to->in = l;
	um_count(x->counters, jit_links);
	return to;
}

/*
 * Have the vector registers loaded that @b needs; and those that were found missing a moment ago,
 * since the blocks around it need them.
 */
static void want_vec(struct um_exec *x, const struct um_jit_block *b)
{
	struct um_jit *j = x->translator;
	u8 class = b->vec;

	if (j->vec_turns) {
		j->vec_turns--;
		class = um_max(class, j->vec_missed);
	}
	if (class > j->host_vec || class > (x->jit_key & UM_JIT_KEY_VEC) >> UM_JIT_KEY_VEC_SHIFT)
		class = b->vec;
	x->jit.want = class;
	if (class)
		x->cpu.fpu.xinuse |= um_vec_states((enum um_vec_class) class);
}

static void missed_vec(struct um_jit *j, const struct um_jit_block *b)
{
	j->vec_missed = b->vec;
	j->vec_turns = VEC_TURNS;
}

static bool kicked(const struct um_exec *x)
{
	return atomic_load_explicit(&x->kick, memory_order_seq_cst) || *x->jit.immediate_exit;
}

static struct um_jit_block *block_of(const struct um_jit *j, u64 ret)
{
	return (struct um_jit_block *)(j->meta + (ret >> 8) * UM_JIT_ALIGN);
}

/*
 * The return addresses on the host's stack hold as long as no block is gone, and each linear address has the code that it had; and if
 * translated code was left where it has nothing of its own on the stack.
 */
static bool returns_hold(const struct um_exec *x, u64 stamp, u64 drops)
{
	u64 sp = (u64)x->jit.sp, at = (u64)x->jit_returns_sp;

	return x->jit.stamp == stamp && x->translator->drops == drops &&
	       sp - at <= UM_JIT_RETURNS && (sp - at) % 16 == 0;
}

/* Is the page where translated code goes on, in @b, where it was? */
static bool is_still_at(const struct um_exec *x, const struct um_jit_block *b)
{
	gva_t page = x->cpu.gpr[UM_REG_PAGE];
	hva_t hva = (hva_t)um_tlb_lookup(x->tlb, page, UM_FETCH, x->fetch_ctx);

	return hva == (b->hva & UM_PAGE_MASK) && !b->tail_page;
}

/* The interpreter went to cpu.rip: if that was by a return, its address is not wanted any more. */
static void take_return(struct um_exec *x)
{
	const u64 *at = x->jit_returns_sp;

	if ((u64)x->jit.sp - (u64)at <= UM_JIT_RETURNS && at != x->jit.sp && at[1] == x->cpu.rip)
		x->jit_returns_sp = (void *)(at + 2);
}

/* The way into @b at instruction @k: @anchored as um_jit_resume() says. */
static const void *way_into(const struct um_jit_block *b, unsigned k, bool anchored)
{
	const struct um_arena_code *a = um_arena_code();

	return anchored ? a->anchored : b->map[k].host_flags ? a->flags : a->plain;
}

/* Translated code was left.  Where to go on; and in which of the ways, or out. */
static struct um_jit_next code_left(struct um_exec *x, u64 ret)
{
	const struct um_arena_code *a = um_arena_code();
	struct um_jit *j = x->translator;
	u64 stamp = x->jit.stamp, drops = j->drops;
	struct um_jit_block *b = block_of(j, ret), *from;
	unsigned k = (ret >> 2) & 63;
	bool anchored = false;
	struct um_jit_next next = { .way = a->plain };

	switch ((enum um_jit_exit)(ret & 3)) {
	case UM_JIT_EXIT_LINK:
		um_count(x->counters, jit_unlinked);
		b = follow(x, &b->link[k]);
		if (!b)
			goto out;
		next.code = b->code;
		break;
	case UM_JIT_EXIT_SLOW: {
		gva_t page = x->cpu.gpr[UM_REG_PAGE];
		hva_t hva;
		u32 key;

		if (unlikely(x->jit.patience < 0 || b->map[k].run)) {
			x->cpu.rip = um_rip(x, um_jit_insn(x, b, k));
			if ((x->jit.patience < 0 && um_jit_missed_window(x, b, k)) ||
			    (b->map[k].run && um_jit_missed_run(x, b, k)))
				goto out;
		}
		if (execute_on(x, &b, &k, &anchored)) {
			next.code = b->code + b->map[k].start;
			next.way = way_into(b, k, anchored);
			break;
		}
		if (x->exit.kind != UM_EXIT_NONE || x->special)
			goto gone;
		from = b;
		hva = from ? from->hva : 0;
		key = from ? from->key : 0;
		take_return(x);
		b = um_jit_find(x);
		if (!b)
			goto gone;
		/* (As in follow().) */
		if (wants_far(x) && from && um_jit_lookup(j, hva, key) == from)
			jumped(x, from, k, page, b);
		next.code = b->code;
		x->jit.flags = um_status(x) | UM_JIT_HOST_FLAGS;
		break;
	}
	case UM_JIT_EXIT_ENTER:
		x->cpu.rip = x->cpu.gpr[UM_REG_PAGE] + (b->hva & ~UM_PAGE_MASK);
		if (b->dead || um_jit_stage_over(b)) {
			b = um_jit_find(x);
			if (!b)
				goto out;
		} else {
			um_count(x->counters, jit_vec);
			missed_vec(j, b);
		}
		next.code = b->code;
		break;
	case UM_JIT_EXIT_STOP:
		if (likely(k == UM_JIT_GO_ON)) {
			um_count(x->counters, jit_jump_misses);
			b = um_jit_find(x);
			if (!b)
				goto out;
			next.code = b->code;
			break;
		}
		x->cpu.rip = um_rip(x, um_jit_insn(x, b, k));
		um_ring_note(x, b, b->hva, k);
		um_internal(x, "a fault in translated code that no instruction explains");
		goto out;
	}
	sync_state(x);
	if (kicked(x)) {
		x->exit.kind = UM_EXIT_KICK;
		goto out;
	}
	/* (Only what was looked up may be noted as code: then its flush is told.) */
	if (unlikely(x->jit.stamp != stamp) && !is_still_at(x, b))
		goto out;
	want_vec(x, b);
	if (unlikely(!returns_hold(x, stamp, drops))) {
		x->jit_returns_sp = x->jit.sp;
		/* What returns to this page is good until it is flushed. */
		um_tlb_note_code(x->tlb, x->cpu.gpr[UM_REG_PAGE], x->jit_key & UM_JIT_KEY_USER);
	}
	return next;
out:
	um_set_status(x, x->jit.flags);
gone:
	return (struct um_jit_next){ .way = a->out };
}

void um_jit_run(struct um_exec *x, struct um_jit_block *b)
{
	const struct um_arena_code *a = um_arena_code();

	x->jit.shadow_rip = NO_RIP;
	x->jit.flags = um_status(x) | UM_JIT_HOST_FLAGS;
	sync_state(x);
	if (unlikely(kicked(x))) {
		x->exit.kind = UM_EXIT_KICK;
		return;
	}
	want_vec(x, b);
	x->jit_on_exit = code_left;
	a->enter(x, b->code, a->plain);
}

bool um_jit_in_shadow(const struct um_exec *x)
{
	return x->cpu.rip == x->jit.shadow_rip && (x->cpu.rflags & RFLAGS_IF);
}

void um_jit_open_shadow(struct um_exec *x)
{
	x->cpu.int_shadow |= UM_SHADOW_STI;
	um_sync_special(x);
}

/* A stamp of which there is one entry in the jump cache, that leads out of translated code. */
#define STAMP_ALONE (~0ull)

static void only_exit(struct um_exec *x, u64 next)
{
	struct um_jump *e = jump_entry(x->translator, next);

	e->lin = next;
	e->stamp = STAMP_ALONE;
	e->code = (void *)um_arena_code()->stop;
	x->jit.stamp = STAMP_ALONE;
}

void um_jit_run_alone(struct um_exec *x, struct um_jit_block *b, u64 next)
{
	const struct um_arena_code *a = um_arena_code();
	const void *code = b->code, *way = a->plain;
	bool anchored;

	x->jit.flags = um_status(x) | UM_JIT_HOST_FLAGS;
	x->jit_on_exit = NULL;
	for (;;) {
		u64 ret;
		unsigned k;

		sync_state(x);
		only_exit(x, next);
		want_vec(x, b);
		ret = a->enter(x, code, way);
		k = (ret >> 2) & 63;
		if ((ret & 3) != UM_JIT_EXIT_STOP)
			b = block_of(x->translator, ret); /* (or its other translation) */
		switch ((enum um_jit_exit)(ret & 3)) {
		case UM_JIT_EXIT_LINK:
			x->cpu.rip = link_target(x, &b->link[k]);
			um_set_status(x, x->jit.flags);
			return;
		case UM_JIT_EXIT_STOP:
			/* (That the page is right is for the caller to see.) */
			if (k != UM_JIT_GO_ON)
				x->cpu.rip = x->cpu.gpr[UM_REG_PAGE] | (next & ~UM_PAGE_MASK);
			um_set_status(x, x->jit.flags);
			return;
		case UM_JIT_EXIT_SLOW:
			x->jit.patience = UM_JIT_WINDOW_MISSES;
			x->far_patience = FAR_PATIENCE;
			do {
				if (k && !um_lockstep_repeatable(um_jit_insn(x, b, k))) {
					x->cpu.rip = um_rip(x, um_jit_insn(x, b, k));
					um_set_status(x, x->jit.flags);
					return;
				}
				if (execute_one(x, b, k) == LED_AWAY)
					return;
				x->jit.flags = um_status(x) | UM_JIT_HOST_FLAGS;
			} while (!um_jit_resume(x, &b, ++k, &anchored));
			code = b->code + b->map[k].start;
			way = way_into(b, k, anchored);
			break;
		case UM_JIT_EXIT_ENTER:
			b->left =
				um_max(b->left, 1); /* (That is seen to when it is entered next.) */
			code = b->code;
			way = a->plain;
			break;
		}
	}
}

void um_jit_begin(struct um_exec *x)
{
	static const u8 never;
	struct um_jit *j = x->translator;

	x->jit.immediate_exit = x->immediate_exit ? x->immediate_exit : &never;
	take_doubt(x);
	if (unlikely(memcmp(j->features, x->cpu.features, sizeof(j->features)))) {
		memcpy(j->features, x->cpu.features, sizeof(j->features));
		um_jit_flush(x);
	}
}

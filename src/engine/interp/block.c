// SPDX-License-Identifier: MIT
/*
 * The block cache (interp/block.h): find, verify, decode.
 *
 * Memory comes from one arena that is given out from its start and, when full, emptied as a whole:
 * blocks have no owners other than the hash table, so this needs no bookkeeping.  Stale blocks
 * leave the table at once and their memory when the arena is emptied.
 *
 * Exceptions of the fetch (SDM vol. 3 6.9, table 6-2): code-segment limit and canonical checks come
 * before paging, and only the bytes that an instruction really has are fetched: an instruction that
 * ends with its page never faults on the next.
 */
#include "engine/interp/block.h"
#include "engine/jit/jit.h"

#include <string.h>

static u8 hash_of(const struct um_block *b)
{
	unsigned n = b->nwords ? b->nwords : b->len / 8;
	u64 h = 0;

	/* (What the words have besides the block's bytes is 0.) */
	for (unsigned k = 0; k < n; k++)
		h = (h ^ b->words[k]) * 0x9e3779b97f4a7c15ull;
	return (u8)(h >> 56);
}

void um_block_flush(struct um_exec *x)
{
	struct um_interp *in = x->interp;

	/* Code that doesn't fit gets translated, too, only later. */
	for (unsigned n = 0; n < 1u << UM_HASH_BITS; n++) {
		struct um_heat *h = &in->heat[n];

		h->hits = 0;
		for (const struct um_block *b = in->hash[n]; b; b = b->next) {
			if (b->hits != UM_BLOCK_NEVER && b->hits > h->hits)
				*h = (struct um_heat){ (u8)um_min(b->hits, 255), hash_of(b) };
		}
	}
	memset(in->hash, 0, sizeof(in->hash[0]) << UM_HASH_BITS);
	in->used = 0;
	in->flushes++;
	for (unsigned n = 0; n < UM_RING_SIZE; n++)
		in->ring[n].block = NULL;
	um_count(x->counters, block_flushes);
}

/* ---- fetching ---- */

static enum um_access_result map(struct um_exec *x, struct um_fault *f)
{
	enum um_access_result r;

	f->acc = UM_FETCH;
	f->priv = x->cpu.cpl == 3 ? UM_PRIV_USER : UM_PRIV_KERNEL;
	r = um_mmu_access(x->mmu, f);
	um_interp_sync_ctx(x);
	if (x->translator && (r == UM_ACCESS_OK || r == UM_ACCESS_TRACKED))
		um_jit_mapped(x, (hva_t)f->hva);
	return r;
}

static bool fetch_slow(struct um_exec *x, gva_t lin, hva_t *hva)
{
	struct um_fault f = { .gva = lin };

	if (!um_is_canonical(x, lin))
		return um_raise_code(x, UM_VEC_GP, 0);
	switch (map(x, &f)) {
	case UM_ACCESS_OK:
	case UM_ACCESS_TRACKED:
		*hva = (hva_t)f.hva;
		return true;
	case UM_ACCESS_FAULT:
		um_raise_code(x, UM_VEC_PF, f.error_code);
		x->exit.exc.payload = lin;
		return false;
	case UM_ACCESS_HOST:
		x->exit.kind = UM_EXIT_HOST_FAULT;
		x->exit.hva = (hva_t)f.hva;
		x->exit.gpa = f.gpa;
		return false;
	case UM_ACCESS_MMIO:
		break;
	}
	x->exit.gpa = f.gpa;
	return um_internal(x, "instruction fetch from a device");
}

hva_t um_block_map(struct um_exec *x, gva_t lin)
{
	struct um_fault f = { .gva = lin };

	if (um_is_canonical(x, lin))
		map(x, &f);
	return (hva_t)um_tlb_lookup(x->tlb, lin, UM_FETCH, x->fetch_ctx);
}

/* The host address of the code byte at linear address @lin. */
static inline bool fetch(struct um_exec *x, gva_t lin, hva_t *hva)
{
	*hva = (hva_t)um_tlb_lookup(x->tlb, lin, UM_FETCH, x->fetch_ctx);
	return likely(*hva) || fetch_slow(x, lin, hva);
}

/* ---- verifying ---- */

/*
 * um_block_verify() of a block that crosses a page.  @same is the answer; false: x->exit (fault of
 * the second page).
 */
static bool verify_crossing(struct um_exec *x, const struct um_block *b, gva_t lin, bool *same)
{
	const u8 *copy = (const u8 *)b->words;
	u8 now[16];
	hva_t second;

	/* If the first part changed, the instruction may have got shorter: don't touch the second
	 * page. */
	*same = !um_copy_from(now, (void *)b->hva, b->len1) && !memcmp(now, copy, b->len1);
	if (!*same)
		return true;
	if (!fetch(x, (lin + b->len1) & x->lin_mask, &second))
		return false;
	*same = !um_copy_from(now, (void *)second, b->len - b->len1) &&
		!memcmp(now, copy + b->len1, b->len - b->len1);
	return true;
}

/* ---- decoding ---- */

static const struct um_insn *op_close(struct um_exec *x, const struct um_insn *i)
{
	return um_end(x, i);
}

/* Bytes of instruction @i, at its address, that what it was decoded to depends on: of @avail. */
static unsigned depends_on(const struct um_insn *i, unsigned avail)
{
	/* Of what is not an instruction nobody says how many bytes make it so. */
	return i->flags & UM_INSN_UD ? um_min(avail, 15u) : i->len;
}

/* Code that is about to be a block, or is in its instructions already. */
struct run {
	struct um_insn *insn; /* with room for one more behind them */
	unsigned n;
	unsigned len; /* bytes that are to be compared */
	hva_t trace;  /* what is to be translated: where the bytes are from; else 0 */
	u8 bytes[UM_BLOCK_BYTES];
};

/*
 * Is what is at @hva, behind a conditional jump of a trace, worth being translated with it?  Where
 * that jump is mostly taken it isn't, nor if it was translated already: then its count started over.
 * (Tests want everything.)
 */
static bool is_warm(const struct um_exec *x, hva_t hva, enum um_mode mode)
{
	const struct um_block *b = x->interp->hash[um_block_bucket(hva)];

	if (!x->jit_threshold)
		return true;
	while (b && !um_block_is(b, hva, mode))
		b = b->next;
	return b && b->hits != UM_BLOCK_NEVER && b->hits >= x->jit_threshold / 4;
}

/*
 * Decode @r->bytes, of which @avail are there, the first at @off in its page: at most @max
 * instructions, @jcc of them conditional jumps.  None, if the first goes on behind those bytes.
 */
static void decode_run(struct um_exec *x, struct run *r, enum um_mode mode, unsigned avail, u16 off,
		       unsigned max, unsigned jcc)
{
	unsigned pos = 0, n = 0, jumps = 0;

	while (n < max && pos < avail) {
		struct um_insn *i = &r->insn[n];
		unsigned len =
			um_interp_decode(x, i, mode, r->bytes + pos, avail - pos, (u16)(off + pos));

		if (!len)
			break;
		pos += len;
		n++;
		if (!(i->flags & (UM_INSN_BRANCH | UM_INSN_END)))
			continue;
		if (!um_is_jcc(i) || ++jumps == jcc)
			break;
		if (r->trace && !is_warm(x, r->trace + pos, mode))
			break;
	}
	/* A conditional jump that is taken skips the rest of the block. */
	for (unsigned k = 0; jumps && k < n; k++) {
		if (um_is_jcc(&r->insn[k]))
			r->insn[k].imm2 = (u16)(n - 1 - k);
	}
	r->n = n;
	r->len = pos;
	if (n) {
		pos -= r->insn[n - 1].len;
		r->len = pos + depends_on(&r->insn[n - 1], avail - pos);
	}
}

/*
 * The block of @r, whose source is at @hva, @len1 bytes of it in the first page: behind its
 * instructions.
 */
static struct um_block *build(const struct run *r, hva_t hva, unsigned key, unsigned len1)
{
	unsigned skew = hva & 7, nwords = (skew + len1 + 7) / 8, tail = (skew + len1) & 7;
	struct um_insn *end = &r->insn[r->n];
	const struct um_insn *last = end - 1;
	struct um_block *b = (struct um_block *)(end + 1);

	*end = (struct um_insn){ .fn = op_close,
				 .off = (u16)(last->off + last->len),
				 .mode = last->mode };
	*b = (struct um_block){ .hva = hva,
				.key = (u8)key,
				.ninsns = (u8)r->n,
				.len = (u16)r->len,
				.len1 = (u16)len1,
				.insn = r->insn,
				.untranslated = UM_BLOCK_UNKNOWN };
	b->direct = !(last->flags & UM_INSN_BRANCH) || last->kind[0] == UM_OPD_REL;
	/*
	 * (What changes modes, privilege, segments or control registers is the last of its block.)
	 */
	b->steady = !(last->flags & (UM_INSN_END | UM_INSN_SYSTEM | UM_INSN_FAR));
	if (len1 < r->len) {
		memcpy(b->words, r->bytes, r->len);
		return b;
	}
	b->nwords = (u16)nwords;
	b->first_mask = ~0ull << (skew * 8);
	b->last_mask = tail ? ~0ull >> (64 - tail * 8) : ~0ull;
	if (nwords == 1)
		b->first_mask &= b->last_mask;
	b->words[0] = b->words[nwords - 1] = 0;
	memcpy((u8 *)b->words + skew, r->bytes, r->len);
	return b;
}

/* The same, kept. */
static struct um_block *make(struct um_exec *x, const struct run *r, hva_t hva, unsigned key,
			     unsigned len1)
{
	struct um_block *b = build(r, hva, key, len1), **head;
	unsigned slot = um_block_bucket(hva);

	x->interp->used += ALIGN_UP((size_t)((char *)b + sizeof(*b) - (char *)r->insn) +
					    um_max(b->nwords * 8u, 16u),
				    64);
	head = &x->interp->hash[slot];
	if (x->interp->heat[slot].hits && x->interp->heat[slot].hash == hash_of(b))
		b->hits = x->interp->heat[slot].hits;
	b->next = *head;
	*head = b;
	um_count(x->counters, blocks_decoded);
	return b;
}

static struct um_block *decode(struct um_exec *x, gva_t lin, hva_t hva, unsigned key)
{
	enum um_mode mode = (enum um_mode)(key & ~UM_BLOCK_SINGLE);
	unsigned max = key & UM_BLOCK_SINGLE ? 1 : UM_BLOCK_MAX;
	u16 off = lin & ~UM_PAGE_MASK;
	unsigned avail = um_min((unsigned)(UM_PAGE_SIZE - off), (unsigned)UM_BLOCK_BYTES);
	struct run r;

	r.trace = 0;
	if (x->interp->used + UM_BLOCK_ROOM > UM_ARENA_SIZE)
		um_block_flush(x);
	r.insn = (struct um_insn *)(x->interp->arena + x->interp->used);
	if (um_copy_from(r.bytes, (void *)hva, avail)) {
		um_host_fault(x, lin, (void *)hva);
		return NULL;
	}
	decode_run(x, &r, mode, avail, off, max, x->translator ? 1 : UM_BLOCK_JCC);
	if (r.n)
		return make(x, &r, hva, key, r.len);

	/* The first instruction goes on in the next page. */
	if (mode != UM_MODE_64 && x->cpu.rip + avail > x->cpu.seg[UM_CS].limit) {
		um_raise_code(x, UM_VEC_GP, 0);
		return NULL;
	}
	lin = (lin + avail) & x->lin_mask;
	if (!fetch(x, lin, &hva))
		return NULL;
	if (um_copy_from(r.bytes + avail, (void *)hva, 15 - avail)) {
		um_host_fault(x, lin, (void *)hva);
		return NULL;
	}
	/* That fetch may have moved the first page: read it again, for its address as the key. */
	if (!fetch(x, (lin - avail) & x->lin_mask, &hva))
		return NULL;
	decode_run(x, &r, mode, 15, off, 1, 1);
	return make(x, &r, hva, key, um_min(r.len, avail));
}

const struct um_block *um_block_trace(struct um_exec *x, const struct um_block *b, void *room)
{
	unsigned off = b->hva & ~UM_PAGE_MASK;
	unsigned avail = um_min((unsigned)(UM_PAGE_SIZE - off), (unsigned)UM_BLOCK_BYTES);
	struct run r;

	r.insn = room;
	r.trace = b->hva;
	if (!um_is_jcc(&b->insn[b->ninsns - 1]) || b->len1 < b->len ||
	    um_copy_from(r.bytes, (void *)b->hva, avail))
		return b;
	decode_run(x, &r, (enum um_mode)b->key, avail, (u16)off, UM_BLOCK_MAX, UM_BLOCK_JCC);
	return r.n ? build(&r, b->hva, b->key, r.len) : b;
}

/* ---- entering ---- */

static void unlink_block(struct um_exec *x, const struct um_block *b)
{
	struct um_block **p = &x->interp->hash[um_block_bucket(b->hva)];

	while (*p && *p != b)
		p = &(*p)->next;
	if (*p)
		*p = b->next;
}

struct um_block *um_block_enter(struct um_exec *x, unsigned key)
{
	gva_t lin = (x->cpu.rip + x->seg_base[UM_CS]) & x->lin_mask;
	struct um_block *b;
	hva_t hva;

	if (unlikely(x->mode != UM_MODE_64) && x->cpu.rip > x->cpu.seg[UM_CS].limit) {
		um_raise_code(x, UM_VEC_GP, 0);
		return NULL;
	}
	if (!fetch(x, lin, &hva))
		return NULL;
	x->code_page = hva & UM_PAGE_MASK;
	x->cpu.gpr[UM_REG_PAGE] = lin & UM_PAGE_MASK;

	for (b = x->interp->hash[um_block_bucket(hva)]; b; b = b->next) {
		if (b->hva == hva && b->key == key)
			break;
	}
	if (likely(b)) {
		bool same;

		if (likely(b->nwords))
			same = um_block_verify(b);
		else if (!verify_crossing(x, b, lin, &same))
			return NULL;
		if (unlikely(!same)) {
			um_count(x->counters, blocks_stale);
			unlink_block(x, b);
			b = NULL;
		}
	}
	if (unlikely(!b)) {
		b = decode(x, lin, hva, key);
		if (!b)
			return NULL;
	}
	if (unlikely(x->mode != UM_MODE_64) &&
	    x->cpu.rip + um_block_code(b) - 1 > x->cpu.seg[UM_CS].limit) {
		/* Only the instructions within the limit: one at a time. */
		if (!(key & UM_BLOCK_SINGLE))
			return um_block_enter(x, key | UM_BLOCK_SINGLE);
		um_raise_code(x, UM_VEC_GP, 0);
		return NULL;
	}
	return b;
}

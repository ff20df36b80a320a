/* SPDX-License-Identifier: MIT */
/*
 * The software TLB: one for each vCPU, in front of its shadow page tables.  With the walker it is
 * umbra's "MMU hardware"; engines look translations up here inline.
 *
 * Layout.  A direct-mapped table, indexed by virtual page number.  An entry has one tag for each kind of
 * access (read, write, fetch) and one addend: host address = guest virtual address + addend.  A tag is
 * the page's gva with a context number in its low 12 bits:
 *
 *	63                       12 11        0
 *	[ virtual page number      ][ context  ]
 *
 * A context stands for (shadow root, privilege): supervisor with SMAP in force, supervisor with
 * EFLAGS.AC set, or user.  Context numbers are never reused without clearing the table.  So:
 *   - loading CR3, changing CPL, STAC/CLAC only change the current context: entries survive,
 *   - dropping everything is taking fresh context numbers,
 *   - one comparison checks page, root and privilege; gva bits are all compared, so a hit implies that the
 *     address is canonical.
 *
 * Invariants (checked by the auditor, mmu/audit.c):
 *  1. An entry whose context is in use is implied by a present leaf spte of that root, with at least the
 *     rights that the tag stands for.
 *  2. A write tag is only there if the spte is writable and marked dirty: so write-protected pages
 *     (shadowed page tables, dirty logging, read-only slots) always come to the slow path.
 *  3. No entry for a page with an enabled data breakpoint (DR7), for MMIO, or with context 0.
 *  4. The host page of a write tag is noted in `written`.
 *
 * Owner protocol.  Only the owning vCPU thread reads and writes the table.  Others ask it to flush, through
 * `flush`; um_mmu_enter() and um_mmu_leave() (mmu/mmu.h) are the owner's side, mmu/lock.c has the other.
 */
#ifndef UM_MMU_TLB_H
#define UM_MMU_TLB_H

#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "base/types.h"

#define UM_TLB_BITS   13
#define UM_TLB_PAGES  (1u << UM_TLB_BITS) /* of one context, before the first two share an entry */
#define UM_TLB_NR_CTX 4095		  /* context numbers 4..4094; 0 never matches */
#define UM_TLB_SPREAD \
	5 /* low bits of a context number that the index depends on; bits 0-1 are the privilege */
#define UM_TLB_SPREAD_SHIFT (UM_TLB_BITS - UM_TLB_SPREAD)
#define UM_TLB_ENTRIES	    (2 * UM_TLB_PAGES)
/* The tag of an empty entry: of no context that is ever used, and not of context 0 either. */
#define UM_TLB_EMPTY 0xfffull
_Static_assert(UM_TLB_ENTRIES < 0xffff, "um_tlb.written has numbers of entries");

/* Kinds of access, in the order of the tags. */
enum um_access { UM_READ, UM_WRITE, UM_FETCH };

/* Privilege of an access: which of a root's contexts it uses. */
enum um_tlb_priv {
	UM_PRIV_KERNEL,	   /* CPL < 3, or an implicit supervisor access; SMAP in force */
	UM_PRIV_KERNEL_AC, /* CPL < 3, EFLAGS.AC = 1: explicit accesses to user pages allowed */
	UM_PRIV_USER,	   /* CPL 3 */
	UM_NR_PRIVS
};

#define UM_TLB_FLUSH_ALL    1u /* forget every entry */
#define UM_TLB_FLUSH_RELOAD 2u /* a shadow root may have become invalid: look it up again */

struct um_tlb_entry {
	u64 tag[3]; /* by enum um_access */
	u64 addend; /* hva - gva, modulo 2^64 */
};

#define UM_TLB_GUARD_SETS   (1u << 11)
#define UM_TLB_GUARD_WAYS   8
#define UM_TLB_CODE_SHIFT   15
#define UM_TLB_CODE_BITS    (1u << UM_TLB_CODE_SHIFT)
#define UM_TLB_WRITTEN_BITS 15
#define UM_TLB_SEVERAL	    0xffff

struct um_tlb {
	/* Context numbers of the current root, by enum um_tlb_priv; never 0 while a root is loaded. */
	u16 ctx[UM_NR_PRIVS];
	u16 next_ctx;
	u16 oldest_ctx; /* older ones are nobody's any more: everything was flushed since */
	/*
	 * Counts flushes of everything: a context number is good as long as this is the same.
	 */
	u32 epoch;
	/*
	 * Counts flushes of anything.  As long as it is the same, no host address that was got since has been
	 * taken back, nor its right to be written: an access that crosses a page translates both halves, and again if this
	 * changed; translated code forgets what it remembers of entries (engine/exec.h, struct um_jit_window).
	 */
	u32 seq;
	/*
	 * Set by the owner while it may use entries; others that need a flush set `flush` (and kick the
	 * vCPU) and wait until `running` or `flush` is clear.
	 */
	atomic_uint running;
	atomic_uint flush; /* UM_TLB_FLUSH_... */
	/*
	 * Host pages that never get a write tag, since the engine must see stores to them (translated code): each in the set that
	 * um_tlb_guard_set() says, or 0.
	 */
	hva_t guard[UM_TLB_GUARD_SETS][UM_TLB_GUARD_WAYS];
	/*
	 * Which entry has a write tag for a host page, by the page's hash: 1 + its index; UM_TLB_SEVERAL: there may be several,
	 * or of several pages; 0: none.  So that a page can be guarded without a look at all entries.
	 */
	u16 written[1u << UM_TLB_WRITTEN_BITS];
	/*
	 * Whoever keeps translations of code addresses outside the TLB notes their pages (um_tlb_note_code()), and drops
	 * all of them when code_seq changes: a noted page was flushed, or context numbers started over.  That of CPL 3
	 * ([1]) by itself, since processes come and go, and the kernel stays.
	 */
	u32 code_seq[2];
	u64 code[2][UM_TLB_CODE_BITS / 64]; /* at um_tlb_code_bit() */
	struct um_tlb_entry e[UM_TLB_ENTRIES] __attribute__((aligned(64)));
};

/*
 * Where the translation of @gva in context @ctx is kept.  The low bits of the context number spread contexts over
 * the table: a page that the kernel and the user take turns at (a system call's buffers, a signal's frame), or that
 * two processes share (the kernel), has an entry for each.
 */
static inline unsigned um_tlb_spread(unsigned ctx)
{
	return (ctx & ((1u << UM_TLB_SPREAD) - 1)) << UM_TLB_SPREAD_SHIFT;
}
static inline unsigned um_tlb_index(gva_t gva, unsigned ctx)
{
	return ((gva >> UM_PAGE_SHIFT) & (UM_TLB_PAGES - 1)) + um_tlb_spread(ctx);
}

/* Kernels have the upper half of the addresses, so of the bits. */
static inline unsigned um_tlb_code_bit(gva_t gva)
{
	return ((gva >> UM_PAGE_SHIFT) ^ (gva >> 30)) % (UM_TLB_CODE_BITS / 2) |
	       (unsigned)(gva >> 63) << (UM_TLB_CODE_SHIFT - 1);
}
/* Of a page that the TLB has: or nobody may know that there is something to flush. */
static inline void um_tlb_note_code(struct um_tlb *t, gva_t gva, bool user)
{
	unsigned n = um_tlb_code_bit(gva);

	t->code[user][n / 64] |= BIT(n % 64);
}

static inline hva_t *um_tlb_guard_set(struct um_tlb *t, hva_t page)
{
	return t->guard[((page >> UM_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 32) %
			UM_TLB_GUARD_SETS];
}
/* The place of @host_page among the guarded ones (with 0: a free place in its set); NULL: there is none. */
static inline hva_t *um_tlb_guard_find(struct um_tlb *t, hva_t host_page, hva_t what)
{
	hva_t *set = um_tlb_guard_set(t, host_page);

	for (unsigned n = 0; n < UM_TLB_GUARD_WAYS; n++) {
		if (set[n] == what)
			return &set[n];
	}
	return NULL;
}
/* @p is in a page that is guarded. */
static inline bool um_tlb_guarded(struct um_tlb *t, hva_t p)
{
	return um_tlb_guard_find(t, p & UM_PAGE_MASK, p & UM_PAGE_MASK) != NULL;
}

static inline u16 *um_tlb_written(struct um_tlb *t, hva_t host_page)
{
	return &t->written[(host_page >> UM_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >>
			   (64 - UM_TLB_WRITTEN_BITS)];
}
/* The host page that @e has a write tag for, in a context that may be somebody's; 0: none. */
static inline hva_t um_tlb_write_page(const struct um_tlb *t, const struct um_tlb_entry *e)
{
	u64 tag = e->tag[UM_WRITE];

	if (tag == UM_TLB_EMPTY || (tag & ~UM_PAGE_MASK) < t->oldest_ctx)
		return 0;
	return (tag & UM_PAGE_MASK) + e->addend;
}
/* Note that @e has got a write tag. */
static inline void um_tlb_note_written(struct um_tlb *t, const struct um_tlb_entry *e)
{
	u16 *w = um_tlb_written(t, um_tlb_write_page(t, e)), n = (u16)(e - t->e + 1);

	if (*w == n || *w == UM_TLB_SEVERAL)
		return;
	/* What was noted before counts only if it is still so. */
	if (*w && um_tlb_written(t, um_tlb_write_page(t, &t->e[*w - 1])) == w)
		*w = UM_TLB_SEVERAL;
	else
		*w = n;
}

/* The host address of @gva, or NULL: not cached for this kind of access and privilege. */
static inline void *um_tlb_lookup(const struct um_tlb *t, gva_t gva, enum um_access acc,
				  unsigned ctx)
{
	const struct um_tlb_entry *e = &t->e[um_tlb_index(gva, ctx)];

	if (likely(e->tag[acc] == ((gva & UM_PAGE_MASK) | ctx)))
		return (void *)(gva + e->addend);
	return NULL;
}

/*
 * The same for an access of @size bytes (a power of two, at most 64 KiB): an access that crosses a page
 * misses, because its last byte's page number is folded into the comparison.
 */
static inline void *um_tlb_lookup_sized(const struct um_tlb *t, gva_t gva, unsigned size,
					enum um_access acc, unsigned ctx)
{
	const struct um_tlb_entry *e = &t->e[um_tlb_index(gva, ctx)];
	u64 tag = e->tag[acc];

	if (likely(tag == ((gva & UM_PAGE_MASK) | ctx) &&
		   (gva & ~UM_PAGE_MASK) <= UM_PAGE_SIZE - size))
		return (void *)(gva + e->addend);
	return NULL;
}

/* Ready for use, empty. */
void um_tlb_init(struct um_tlb *t);
/* Forget everything: O(1) but when context numbers run out.  Owner only. */
void um_tlb_flush(struct um_tlb *t);
/* Go over to context numbers that no entry has (another root).  Owner only. */
void um_tlb_new_context(struct um_tlb *t);
/* Give no write tag to @host_page from now on, and take those away that it has.  False: no room for that.  Owner only. */
static inline bool um_tlb_guard(struct um_tlb *t, hva_t host_page)
{
	hva_t *place = um_tlb_guard_find(t, host_page, host_page);
	unsigned n;

	if (!place)
		place = um_tlb_guard_find(t, host_page, 0);
	if (!place)
		return false;
	*place = host_page;
	n = *um_tlb_written(t, host_page);
	if (n && n != UM_TLB_SEVERAL) {
		if (um_tlb_write_page(t, &t->e[n - 1]) == host_page)
			t->e[n - 1].tag[UM_WRITE] = UM_TLB_EMPTY;
	} else if (n) {
		/* With a look at all entries, forget those that have gone. */
		memset(t->written, 0, sizeof(t->written));
		for (struct um_tlb_entry *e = t->e; e < t->e + UM_TLB_ENTRIES; e++) {
			hva_t page = um_tlb_write_page(t, e);

			if (page == host_page)
				e->tag[UM_WRITE] = UM_TLB_EMPTY;
			else if (page)
				um_tlb_note_written(t, e);
		}
	}
	t->seq++;
	return true;
}
static inline void um_tlb_unguard(struct um_tlb *t, hva_t host_page)
{
	hva_t *place = um_tlb_guard_find(t, host_page, host_page);

	if (place)
		*place = 0;
}
/* Guard no page any more. */
static inline void um_tlb_unguard_all(struct um_tlb *t)
{
	for (unsigned n = 0; n < UM_TLB_GUARD_SETS * UM_TLB_GUARD_WAYS; n++)
		t->guard[n / UM_TLB_GUARD_WAYS][n % UM_TLB_GUARD_WAYS] = 0;
}

/* Forget the page of @gva in every context.  Owner only. */
void um_tlb_flush_page(struct um_tlb *t, gva_t gva);
/* The same for @npages pages from that of @gva on. */
void um_tlb_flush_range(struct um_tlb *t, gva_t gva, u64 npages);
/* Fill.  @allowed: bit (1 << enum um_access).  Other tags of the entry are cleared unless it is the same page. */
void um_tlb_fill(struct um_tlb *t, gva_t gva, unsigned ctx, void *host_page, unsigned allowed);

#endif

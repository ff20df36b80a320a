// SPDX-License-Identifier: MIT
/*
 * Random edits of a guest's tables at all levels, with and without the flush that they need,
 * against a reference that keeps for each address every translation the processor may use: those
 * that the tables gave at any time since the last flush of that address, and the one they give now.
 * An answer of the MMU has to be one of them; after a flush it has to be the current one.  Under
 * the auditor.
 *
 * The memory that holds the tables is mapped by the guest itself, and the edits are stores through
 * that mapping, so write protection, unsync pages, and the heuristics all take part; so do slot
 * changes, dirty logging, aging, invalidation, recycling.
 */
#include "oracle.h"

#include <stdlib.h>
#include <string.h>

#define RAM    (8 * MB)
#define NPAGES 24 /* addresses under test */
#define NROOTS 3

static u64 rng(u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s >> 11;
}

/* Translations of one address under one root that may be in use: gpa page, or -1: fault. */
#define MAX_STALE 32
struct may {
	unsigned n;
	u64 page[MAX_STALE]; /* gpa page | writable */
	bool overflow;
};

struct world {
	struct guest g;
	u64 seed;
	gva_t base; /* of the addresses under test */
	gva_t lin;  /* linear map of RAM */
	gpa_t root[NROOTS];
	unsigned cur;
	struct may may[NROOTS][NPAGES];
};

static gva_t page_gva(const struct world *w, unsigned i)
{
	/* Several last-level tables and, in long mode, several directories. */
	return w->base + (i % 8) * 0x1000 + (i / 8) * (2 * MB) +
	       (w->g.mode >= GUEST_64 && i >= 16 ? 1ull << 30 : 0);
}

/* What the tables say now for reading by the kernel: gpa page | 1 if writable; -1. */
static u64 now(struct world *w, unsigned root, unsigned i)
{
	u64 cr3 = w->g.cpu->cr3, pd[4];
	struct verdict v, wr;

	memcpy(pd, w->g.cpu->pdptr, sizeof(pd));
	w->g.cpu->cr3 = w->root[root];
	if (w->g.mode == GUEST_PAE)
		memcpy(w->g.cpu->pdptr, w->g.ram + w->root[root], sizeof(pd));
	v = oracle(&w->g, page_gva(w, i), UM_READ, UM_PRIV_KERNEL);
	wr = oracle(&w->g, page_gva(w, i), UM_WRITE, UM_PRIV_KERNEL);
	w->g.cpu->cr3 = cr3;
	memcpy(w->g.cpu->pdptr, pd, sizeof(pd));
	return v.fault ? ~0ull : (v.gpa & UM_PAGE_MASK) | !wr.fault;
}

static void remember(struct world *w)
{
	for (unsigned r = 0; r < NROOTS; r++) {
		for (unsigned i = 0; i < NPAGES; i++) {
			struct may *m = &w->may[r][i];
			u64 t = now(w, r, i);
			unsigned k;

			for (k = 0; k < m->n && m->page[k] != t; k++)
				;
			if (k < m->n)
				continue;
			if (m->n == MAX_STALE)
				m->overflow = true;
			else
				m->page[m->n++] = t;
		}
	}
}

/* The address was flushed under root @r. */
static void forget(struct world *w, unsigned r, unsigned i)
{
	w->may[r][i].n = 1;
	w->may[r][i].overflow = false;
	w->may[r][i].page[0] = now(w, r, i);
}

static void check_access(struct world *w)
{
	unsigned i = rng(&w->seed) % NPAGES;
	enum um_access acc = rng(&w->seed) % 2 ? UM_READ : UM_WRITE;
	struct may *m = &w->may[w->cur][i];
	struct outcome o = guest_access(&w->g, page_gva(w, i), acc, UM_PRIV_KERNEL);
	u64 current = now(w, w->cur, i);
	bool ok = m->overflow;

	/*
	 * A fault may only be reported if the tables say so now: the processor walks before it
	 * faults.
	 */
	if (o.result == UM_ACCESS_FAULT) {
		assert_true(current == ~0ull || (acc == UM_WRITE && !(current & 1)));
		return;
	}
	for (unsigned k = 0; k < m->n && !ok; k++) {
		u64 t = m->page[k];

		if (t == ~0ull || (acc == UM_WRITE && !(t & 1)))
			continue;
		ok = (t & UM_PAGE_MASK) < RAM ? o.hva == w->g.ram + (t & UM_PAGE_MASK)
					      : o.result == UM_ACCESS_MMIO;
	}
	if (!ok)
		fail_msg("page %u acc %d: result %d gpa %#lx; now %#lx of %u", i, acc, o.result,
			 o.gpa, current, m->n);
	/* What was used, stays possible. */
	if (o.result == UM_ACCESS_TRACKED)
		um_mmu_written(w->g.mmu, o.gpa, 8);
}

static void store_entry(struct world *w, gpa_t at, u64 e)
{
	unsigned size = w->g.mode == GUEST_32 || w->g.mode == GUEST_PSE ? 4 : 8;

	assert_true(guest_store(&w->g, w->lin + at, e, size) <= UM_ACCESS_TRACKED);
	remember(w);
}

static u64 random_leaf(struct world *w)
{
	u64 e = (4 * MB + rng(&w->seed) % 64 * 4096) | PTE_P;

	if (!(rng(&w->seed) % 6))
		return 0;
	if (!(rng(&w->seed) % 10))
		e = 0x80000000 | PTE_P; /* mmio */
	if (rng(&w->seed) % 4)
		e |= PTE_W;
	if (rng(&w->seed) % 2)
		e |= PTE_A;
	if (rng(&w->seed) % 2)
		e |= PTE_D;
	if (rng(&w->seed) % 2)
		e |= PTE_U;
	return e;
}

/* Change an entry of some level for a random address of a random root, by the guest's own store. */
static void edit(struct world *w)
{
	unsigned i = rng(&w->seed) % NPAGES, r = rng(&w->seed) % NROOTS;
	unsigned top = w->g.mode >= GUEST_64 ? 4 : 2, level = 1;
	u64 cr3 = w->g.cpu->cr3, old;
	gpa_t at;

	if (!(rng(&w->seed) % 8))
		level = 1 + rng(&w->seed) % top;
	w->g.cpu->cr3 = w->root[r];
	at = guest_entry(&w->g, page_gva(w, i), level);
	w->g.cpu->cr3 = cr3;
	old = guest_read(&w->g, at);
	if (level == 1) {
		static const u64 flip[] = { PTE_W, PTE_A, PTE_D, PTE_P };

		if (rng(&w->seed) % 2)
			store_entry(w, at, random_leaf(w));
		else
			store_entry(w, at, old ^ flip[rng(&w->seed) % ARRAY_SIZE(flip)]);
		return;
	}
	/* Upper levels: other rights, or a swap with a neighbour's table. */
	if (rng(&w->seed) % 2) {
		store_entry(w, at, (old | PTE_P | PTE_U | PTE_A) ^ (rng(&w->seed) & PTE_W));
	} else {
		unsigned other = rng(&w->seed) % NPAGES;
		gpa_t from;

		w->g.cpu->cr3 = w->root[rng(&w->seed) % NROOTS];
		from = guest_entry(&w->g, page_gva(w, other), level);
		w->g.cpu->cr3 = cr3;
		store_entry(w, at, guest_read(&w->g, from));
	}
}

static void load_root(struct world *w, unsigned r)
{
	w->cur = r;
	guest_set_cr3(&w->g, w->root[r]);
	for (unsigned k = 0; k < NROOTS; k++) {
		/* Without PCIDs one flush is for all; the MMU does each root's at its load. */
		for (unsigned i = 0; k == r && i < NPAGES; i++)
			forget(w, r, i);
	}
}

static void host_event(struct world *w)
{
	struct guest *g = &w->g;
	hva_t at = (hva_t)g->ram + rng(&w->seed) % (RAM / 4096) * 4096;
	static u64 log[RAM / 4096 / 64];

	switch (rng(&w->seed) % 7) {
	case 0:
		HOST_VOID(g, um_mem_invalidate(g->mem, at, at + 64 * 4096));
		break;
	case 1:
		HOST(g, um_mem_clear_young(g->mem, at, at + 64 * 4096));
		break;
	case 2:
		assert_int_equal(guest_slot(g, 0, 0, RAM, g->ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
		break;
	case 3:
		assert_int_equal(guest_slot(g, 0, 0, RAM, g->ram, 0), 0);
		break;
	case 4:
		HOST(g, um_mem_get_dirty_log(g->mem, 0, log));
		break;
	case 5:
		HOST(g, um_mmu_shrink(g->vm, rng(&w->seed) % 10));
		break;
	case 6:
		um_mmu_reset_context(g->mmu);
		for (unsigned i = 0; i < NPAGES; i++)
			forget(w, w->cur, i);
		break;
	}
}

static void run(enum guest_mode mode, bool tdp, u64 seed, unsigned steps, unsigned audit_every)
{
	struct world *w = calloc(1, sizeof(*w));
	struct guest *g = &w->g;

	w->seed = seed * 0x9e3779b97f4a7c15ull + 1;
	guest_init(g, RAM, tdp, false);
	guest_paging(g, mode);
	w->base = mode >= GUEST_64 ? 0x7f1240000000 : 0x40000000;
	w->lin = mode >= GUEST_64 ? 0xffff888000000000 : 0xc0000000;
	for (unsigned r = 0; r < NROOTS; r++) {
		w->root[r] = r ? guest_new_root(g) : g->cpu->cr3;
		g->cpu->cr3 = w->root[r];
		for (gpa_t a = 0; a < RAM; a += 4096)
			guest_map(g, w->lin + a, a | PTE_P | PTE_W | PTE_A | PTE_D, 1);
		for (unsigned i = 0; i < NPAGES; i++)
			guest_map(g, page_gva(w, i), (4 * MB + i * 4096) | RW, 1);
	}
	load_root(w, 0);
	for (unsigned r = 0; r < NROOTS; r++) {
		for (unsigned i = 0; i < NPAGES; i++)
			forget(w, r, i);
	}
	for (unsigned n = 0; n < steps; n++) {
		unsigned what = rng(&w->seed) % 100, i;

		if (what < 40) {
			edit(w);
		} else if (what < 85) {
			check_access(w);
		} else if (what < 93) {
			i = rng(&w->seed) % NPAGES;
			um_mmu_invlpg(g->mmu, page_gva(w, i));
			/*
			 * Paging-structure caches go for all addresses, so upper levels count as
			 * flushed.
			 */
			forget(w, w->cur, i);
			check_access(w);
		} else if (what < 98) {
			load_root(w, rng(&w->seed) % NROOTS);
		} else {
			host_event(w);
		}
		if (n % audit_every == 0)
			guest_audit(g);
	}
	if (!tdp) {
		assert_true(COUNT(g, mmu_unsync) > 10);
		assert_true(COUNT(g, mmu_synced) > 10);
		assert_true(COUNT(g, mmu_pte_write) > 10);
	}
	guest_destroy(g);
	free(w);
}

static void random_edits(void **state)
{
	static const enum guest_mode modes[] = { GUEST_32, GUEST_PAE, GUEST_64 };

	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
		for (u64 seed = 1; seed <= 6; seed++) {
			run(modes[m], false, seed, 6000, 40);
			run(modes[m], true, seed, 6000, 40);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_edits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

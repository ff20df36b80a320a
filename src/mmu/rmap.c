// SPDX-License-Identifier: MIT
/*
 * The reverse map: from a guest frame (and level) to all leaf sptes that map it, and, with the same lists, from a
 * shadow page to the nonleaf sptes that point at it.
 *
 * A list is one word.  Most have no or one element and need nothing else; longer ones are chains of blocks,
 * marked by bit 0 of the word.  Order doesn't matter: the last element of the first block fills the hole of
 * one that is taken out, so only the first block is ever less than full.
 */
#include "mmu/mmu_internal.h"

#include <stdlib.h>

#define BLOCK_PTES 14

struct um_ptelist_block {
	struct um_ptelist_block *next;
	unsigned n;
	u64 *pte[BLOCK_PTES];
};

static struct um_ptelist_block *blocks(const struct um_ptelist *l)
{
	return l->val & 1 ? (struct um_ptelist_block *)(l->val & ~(uintptr_t)1) : NULL;
}

static struct um_ptelist_block *get_block(struct um_mmu_vm *v)
{
	struct um_ptelist_block *b = v->free_blocks;

	if (b)
		v->free_blocks = b->next;
	else
		b = malloc(sizeof(*b));
	if (b) {
		b->n = 0;
		b->next = NULL;
	}
	return b;
}

static void put_block(struct um_mmu_vm *v, struct um_ptelist_block *b)
{
	b->next = v->free_blocks;
	v->free_blocks = b;
}

void um_ptelist_free_blocks(struct um_mmu_vm *v)
{
	while (v->free_blocks) {
		struct um_ptelist_block *b = v->free_blocks;

		v->free_blocks = b->next;
		free(b);
	}
}

/* False on ENOMEM; the list is then as it was. */
bool um_ptelist_add(struct um_mmu_vm *v, struct um_ptelist *l, u64 *sptep)
{
	struct um_ptelist_block *b = blocks(l), *n;

	if (!l->val) {
		l->val = (uintptr_t)sptep;
		return true;
	}
	if (!b || b->n == BLOCK_PTES) {
		n = get_block(v);
		if (!n)
			return false;
		if (!b)
			n->pte[n->n++] = (u64 *)l->val;
		n->next = b;
		l->val = (uintptr_t)n | 1;
		b = n;
	}
	b->pte[b->n++] = sptep;
	return true;
}

/* False if it isn't there. */
bool um_ptelist_del(struct um_mmu_vm *v, struct um_ptelist *l, u64 *sptep)
{
	struct um_ptelist_block *first = blocks(l), *b;

	if (!first) {
		if (l->val != (uintptr_t)sptep)
			return false;
		l->val = 0;
		return true;
	}
	for (b = first; b; b = b->next) {
		for (unsigned i = 0; i < b->n; i++) {
			if (b->pte[i] != sptep)
				continue;
			b->pte[i] = first->pte[--first->n];
			if (!first->n) {
				l->val = first->next ? (uintptr_t)first->next | 1 : 0;
				put_block(v, first);
			} else if (first->n == 1 && !first->next) {
				l->val = (uintptr_t)first->pte[0];
				put_block(v, first);
			}
			return true;
		}
	}
	return false;
}

u64 *um_ptelist_next(const struct um_ptelist *l, struct um_ptelist_cursor *c)
{
	if (!c->started) {
		c->started = true;
		c->block = blocks(l);
		if (!c->block)
			return (u64 *)l->val;
	}
	while (c->block) {
		if (c->i < c->block->n)
			return c->block->pte[c->i++];
		c->block = c->block->next;
		c->i = 0;
	}
	return NULL;
}

u64 *um_ptelist_first(const struct um_ptelist *l)
{
	struct um_ptelist_block *b = blocks(l);

	return b ? b->pte[0] : (u64 *)l->val;
}

unsigned um_ptelist_count(const struct um_ptelist *l)
{
	struct um_ptelist_block *b = blocks(l);
	unsigned n = l->val && !b;

	for (; b; b = b->next)
		n += b->n;
	return n;
}

struct um_ptelist *um_rmap(struct um_mmu_vm *v, unsigned as, gfn_t gfn, unsigned level)
{
	struct um_slot *s = um_vm_slot(v, as, gfn);
	struct um_slot_mmu *a = s ? s->arch : NULL;

	return a ? &a->rmap[level][um_slot_index(a, gfn, level)] : NULL;
}

/* Take the bits of @clear away from all sptes that map @gfn; drop large ones. */
static bool write_protect(struct um_mmu_vm *v, unsigned as, gfn_t gfn, u64 clear)
{
	struct um_ptelist *l = um_rmap(v, as, gfn, 1);
	bool any = false;
	struct um_ptelist_cursor pos = { 0 };
	u64 *sptep;

	if (!l)
		return false;
	while ((sptep = um_ptelist_next(l, &pos))) {
		u64 old = *sptep;

		if (!(old & clear))
			continue;
		WRITE_ONCE(*sptep, old & ~clear);
		if ((old & (SPTE_DIRTY | SPTE_ACCESSED)) == (SPTE_DIRTY | SPTE_ACCESSED))
			um_flush_note(v, um_sptep_page(sptep), um_sptep_index(sptep));
		any = true;
	}
	for (unsigned level = 2; level <= MAX_LEAF_LEVEL; level++) {
		l = um_rmap(v, as, gfn, level);
		while (l && (sptep = um_ptelist_first(l))) {
			um_sp_drop_spte(v, um_sptep_page(sptep), um_sptep_index(sptep));
			any = true;
		}
	}
	return any;
}

/*
 * Take the permission to store away from all sptes that map @gfn, so that the next write is logged.  Large
 * sptes are dropped, so that the other frames are not affected.  Returns whether anything was weakened.
 */
bool um_rmap_write_protect(struct um_mmu_vm *v, unsigned as, gfn_t gfn)
{
	return write_protect(v, as, gfn, SPTE_STORABLE | SPTE_DIRTY);
}

/* The same in every address space, because @gfn becomes a page table: only a full fault may give M back. */
bool um_rmap_protect_table(struct um_mmu_vm *v, gfn_t gfn)
{
	bool any = false;

	for (unsigned as = 0; as < UM_NR_AS; as++)
		any |= write_protect(v, as, gfn, SPTE_STORABLE | SPTE_DIRTY | SPTE_MMU_WRITABLE);
	return any;
}

/* Drop all sptes that map frames first..first+npages-1 of @slot. */
bool um_rmap_zap(struct um_mmu_vm *v, struct um_slot *slot, gfn_t first, u64 npages)
{
	struct um_slot_mmu *a = slot->arch;
	bool any = false;
	u64 *sptep;

	if (!a || !npages)
		return false;
	for (unsigned level = 1; level <= MAX_LEAF_LEVEL; level++) {
		u64 end = um_slot_index(a, first + npages - 1, level);

		for (u64 i = um_slot_index(a, first, level); i <= end; i++) {
			struct um_ptelist *l = &a->rmap[level][i];

			while ((sptep = um_ptelist_first(l))) {
				um_sp_drop_spte(v, um_sptep_page(sptep), um_sptep_index(sptep));
				any = true;
			}
		}
	}
	return any;
}

// SPDX-License-Identifier: MIT
/*
 * Making leaf sptes: what a leaf may allow, given the slot, the dirty log, and the page tables that are shadowed.
 */
#include "mmu/mmu_internal.h"

/*
 * The largest level, at most @max, at which one spte may map the aligned range around @gfn: it lies in one
 * slot, the slot's writes aren't logged page by page, and no frame in it is a shadowed page table.
 */
unsigned um_max_mapping_level(struct um_mmu_vm *v, unsigned as, gfn_t gfn, unsigned max)
{
	struct um_slot *s = max > 1 ? um_vm_slot(v, as, gfn) : NULL;
	struct um_slot_mmu *a = s ? s->arch : NULL;
	unsigned level = 1;

	if (!a || s->dirty)
		return 1;
	max = um_min(max, (unsigned)MAX_LEAF_LEVEL);
	while (level < max && !a->disallow_lpage[level + 1][um_slot_index(a, gfn, level + 1)])
		level++;
	return level;
}

static enum um_map_result map_mmio(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i,
				   const struct um_leaf *leaf)
{
	u64 spte = spte_make_mmio(leaf->gfn, leaf->access, leaf->dirty, v->slots_generation);

	if (sp->spt[i] == spte)
		return UM_MAP_MMIO;
	um_sp_drop_spte(v, sp, i);
	/* A key's rights can't be told from an mmio spte: such pages are walked every time. */
	if (leaf->pkey)
		return UM_MAP_MMIO;
	WRITE_ONCE(sp->spt[i], spte);
	sp->nr_present++;
	return UM_MAP_MMIO;
}

/*
 * May stores go through a spte for @leaf?  Returns the S, M and D bits.  *@is_table: no, because the frame is a
 * page table that must stay protected.
 */
static u64 store_bits(struct um_mmu_vm *v, struct um_slot *s, unsigned level,
		      const struct um_leaf *leaf, u64 old, bool *is_table)
{
	u64 bits = SPTE_MMU_WRITABLE;

	if (!leaf->dirty || (s->flags & KVM_MEM_READONLY))
		return 0;
	if (level == 1 && um_gfn_shadowed(v, s->as, leaf->gfn) &&
	    !um_try_unsync(v, leaf->gfn, leaf->write && !leaf->prefetch)) {
		*is_table = true;
		return 0;
	}
	if (leaf->write) {
		um_mem_mark_dirty(v->mem, s, leaf->gfn, v->owner->ring);
		return bits | SPTE_STORABLE | SPTE_DIRTY;
	}
	/* What the spte allowed stays allowed; a slot that logs wants to see the first write. */
	bits |= old & (SPTE_STORABLE | SPTE_DIRTY);
	if (!s->dirty)
		bits |= SPTE_STORABLE;
	return bits;
}

/*
 * Make spte @i of @sp say what @leaf says.  If it says something else, that is dropped.  The level is the page's:
 * above 1 the caller has asked um_max_mapping_level().
 */
enum um_map_result um_map_leaf(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i,
			       const struct um_leaf *leaf)
{
	unsigned level = sp->role.level;
	struct um_slot *s = um_vm_slot(v, sp->role.smm, leaf->gfn);
	u64 old = sp->spt[i], new;
	bool is_table = false;
	struct um_ptelist *l;
	hva_t hva;

	if (!s || !s->arch)
		return map_mmio(v, sp, i, leaf);

	hva = um_slot_hva(s, leaf->gfn);
	if (old &&
	    (!spte_leaf(old, level) || um_sp_gfn(sp, i) != leaf->gfn || spte_hva(old) != hva)) {
		um_sp_drop_spte(v, sp, i);
		old = 0;
	}
	new = hva | SPTE_PRESENT | leaf->access | ((u64)leaf->pkey << SPTE_PKEY_SHIFT);
	if (level > 1)
		new |= SPTE_LARGE;
	if (leaf->global)
		new |= SPTE_GLOBAL;
	if (!(s->flags & KVM_MEM_READONLY))
		new |= SPTE_HOST_WRITABLE;
	new |= leaf->prefetch ? old &SPTE_ACCESSED : SPTE_ACCESSED;
	new |= store_bits(v, s, level, leaf, old, &is_table);

	if (old != new) {
		if (!old) {
			l = um_rmap(v, s->as, leaf->gfn, level);
			if (!um_ptelist_add(v, l, &sp->spt[i]))
				return UM_MAP_NOMEM;
			sp->nr_present++;
			if (level > 1)
				um_count(v->counters, mmu_large_sptes);
		}
		if (sp->gfns)
			WRITE_ONCE(sp->gfns[i], leaf->gfn);
		sp->slot_bitmap |= BIT(s->id % 64);
		WRITE_ONCE(sp->spt[i], new);
		/* Rights that went away, or moved to another key. */
		if ((old & SPTE_ACCESSED) &&
		    ((old & ~new &(SPTE_RIGHTS | SPTE_DIRTY)) || ((old ^ new) & SPTE_PKEY_MASK)))
			um_flush_note(v, sp, i);
	}
	return is_table && leaf->write ? UM_MAP_PROTECTED : UM_MAP_OK;
}

// SPDX-License-Identifier: MIT
/*
 * Synchronized and unsynchronized shadow pages.
 *
 * A guest's table that is shadowed is write-protected: a store to it is seen, and the sptes follow at once.
 * For last-level tables there is a cheaper way.  The guest has to execute INVLPG or flush its TLB before it may
 * rely on a changed entry; so at the first store the page is marked unsync and the protection taken off, and
 * the sptes are compared with the guest's entries when the guest executes INVLPG (that one entry) or flushes
 * (all unsync pages under the root, found by following the bitmaps of unsync children).
 *
 * The marks are exact: bit i of a page's unsync_child_bitmap is set if and only if its spte i points at a page
 * that is unsync or has unsync children itself.
 */
#include "mmu/mmu_internal.h"

#include "base/uaccess.h"

void um_unsync_child_set(struct um_shadow_page *parent, unsigned i)
{
	u64 bit = BIT(i % 64);
	struct um_ptelist_cursor pos = { 0 };
	u64 *p;

	if (parent->unsync_child_bitmap[i / 64] & bit)
		return;
	parent->unsync_child_bitmap[i / 64] |= bit;
	if (parent->unsync_children++)
		return;
	while ((p = um_ptelist_next(&parent->parents, &pos)))
		um_unsync_child_set(um_sptep_page(p), um_sptep_index(p));
}

void um_unsync_child_clear(struct um_shadow_page *parent, unsigned i)
{
	u64 bit = BIT(i % 64);
	struct um_ptelist_cursor pos = { 0 };
	u64 *p;

	if (!(parent->unsync_child_bitmap[i / 64] & bit))
		return;
	parent->unsync_child_bitmap[i / 64] &= ~bit;
	if (--parent->unsync_children)
		return;
	while ((p = um_ptelist_next(&parent->parents, &pos)))
		um_unsync_child_clear(um_sptep_page(p), um_sptep_index(p));
}

void um_mark_unsync(struct um_shadow_page *sp)
{
	struct um_ptelist_cursor pos = { 0 };
	u64 *p;

	sp->unsync = true;
	while ((p = um_ptelist_next(&sp->parents, &pos)))
		um_unsync_child_set(um_sptep_page(p), um_sptep_index(p));
}

void um_clear_unsync(struct um_shadow_page *sp)
{
	struct um_ptelist_cursor pos = { 0 };
	u64 *p;

	sp->unsync = false;
	while ((p = um_ptelist_next(&sp->parents, &pos)))
		um_unsync_child_clear(um_sptep_page(p), um_sptep_index(p));
}

/*
 * May the guest write to @gfn, which is shadowed?  If all pages that shadow it are of level 1: they become
 * unsync, or are already.  Without @can_unsync only the latter counts.
 */
bool um_try_unsync(struct um_mmu_vm *v, gfn_t gfn, bool can_unsync)
{
	struct um_shadow_page *sp;

	um_for_each_table(sp, v, gfn)
	{
		if (sp->role.level > 1 || (!sp->unsync && !can_unsync))
			return false;
	}
	um_for_each_table(sp, v, gfn)
	{
		if (sp->unsync)
			continue;
		um_count(v->counters, mmu_unsync);
		um_trace(v->trace, mmu, "unsync gfn %#lx role %#x", gfn, sp->role.word);
		um_mark_unsync(sp);
	}
	return true;
}

void um_sp_format(const struct um_mmu_vm *v, const struct um_shadow_page *sp,
		  struct um_gpte_format *f)
{
	*f = v->cpu_format;
	f->pae = sp->role.cr4_pae;
	f->pse = sp->role.cr4_pse || f->pae;
	f->lma = sp->role.efer_lma;
	f->nx = sp->role.efer_nx;
}

gpa_t um_sp_gpte_gpa(const struct um_shadow_page *sp, unsigned i)
{
	gpa_t table = sp->gfn << UM_PAGE_SHIFT;

	if (sp->role.cr4_pae)
		return table + i * 8;
	if (sp->role.level == 1)
		return table + (sp->role.quadrant * SPTES_PER_PAGE + i) * 4;
	return table + (sp->role.quadrant * SPTES_PER_PAGE + i) / 2 * 4;
}

/* The guest's entry as it is now.  False: there is no memory, or the host can't provide it. */
bool um_sp_read_gpte(struct um_mmu_vm *v, const struct um_shadow_page *sp, unsigned i, u64 *gpte)
{
	struct um_slot *s = um_vm_slot(v, sp->role.smm, sp->gfn);
	struct um_gpte_format f = { .pae = sp->role.cr4_pae };

	if (!s)
		return false;
	return um_gpte_read(
		&f, (void *)(um_slot_hva(s, sp->gfn) + (um_sp_gpte_gpa(sp, i) & ~UM_PAGE_MASK)),
		gpte);
}

static void sync_one(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i,
		     const struct um_gpte_format *f, u64 reserved, u64 gpte, bool reinstate)
{
	u64 spte = sp->spt[i];
	struct um_leaf leaf;

	/* Without A, the next access has to set it, so it has to come to the walker. */
	if (!(gpte & GPTE_PRESENT) || !(gpte & GPTE_ACCESSED) || (gpte & reserved)) {
		um_sp_drop_spte(v, sp, i);
		return;
	}
	leaf = (struct um_leaf){
		.gfn = um_gpte_gfn(f, gpte, 1),
		.access = um_gpte_access(f, gpte) & role_access(sp->role),
		.pkey = f->lma ? spte_pkey(gpte) : 0,
		.dirty = gpte & GPTE_DIRTY,
		.global = gpte & GPTE_GLOBAL,
		.prefetch = true,
	};
	if (spte_present(spte) && um_sp_gfn(sp, i) == leaf.gfn) {
		/*
		 * The common case is that nothing changed.  M follows the guest's D, and what else it depends on
		 * takes it away where that changes (um_rmap_write_protect).
		 */
		if ((spte & SPTE_RIGHTS) == leaf.access && spte_pkey(spte) == leaf.pkey &&
		    !(spte & SPTE_MMU_WRITABLE) == !leaf.dirty)
			return;
	} else if (!reinstate) {
		um_sp_drop_spte(v, sp, i);
		return;
	}
	if (um_map_leaf(v, sp, i, &leaf) == UM_MAP_NOMEM)
		um_sp_drop_spte(v, sp, i);
}

/* Make spte @i of level-1 page @sp agree with the guest's entry; @reinstate: make one where there is none. */
void um_sync_entry(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i, bool reinstate)
{
	struct um_gpte_format f;
	u64 gpte;

	if (!um_sp_read_gpte(v, sp, i, &gpte)) {
		um_sp_drop_spte(v, sp, i);
		return;
	}
	um_sp_format(v, sp, &f);
	sync_one(v, sp, i, &f, um_gpte_reserved(&f, ~0ull, 1), gpte, reinstate);
}

/* All entries of level-1 page @sp.  Its state doesn't change. */
void um_sync_entries(struct um_mmu_vm *v, struct um_shadow_page *sp)
{
	struct um_slot *s = um_vm_slot(v, sp->role.smm, sp->gfn);
	unsigned left = sp->nr_present, size = sp->role.cr4_pae ? 8 : 4;
	struct um_gpte_format f;
	const char *table;
	u64 reserved;

	um_count(v->counters, mmu_synced);
	um_sp_format(v, sp, &f);
	reserved = um_gpte_reserved(&f, ~0ull, 1);
	table = s ? (char *)um_slot_hva(s, sp->gfn) + (um_sp_gpte_gpa(sp, 0) & ~UM_PAGE_MASK)
		  : NULL;
	for (unsigned i = 0; left && i < SPTES_PER_PAGE; i++) {
		u64 gpte;

		if (!sp->spt[i])
			continue;
		left--;
		if (table && um_gpte_read(&f, table + i * size, &gpte))
			sync_one(v, sp, i, &f, reserved, gpte, false);
		else
			um_sp_drop_spte(v, sp, i);
	}
}

static void sync_page(struct um_mmu_vm *v, struct um_shadow_page *sp)
{
	/* First stop the stores, then read. */
	um_clear_unsync(sp);
	if (um_rmap_protect_table(v, sp->gfn))
		um_flush_remote(v);
	um_sync_entries(v, sp);
	um_trace(v->trace, mmu, "sync gfn %#lx role %#x", sp->gfn, sp->role.word);
}

/* The guest flushes: synchronize all unsync pages reachable from @sp. */
void um_sync_children(struct um_mmu_vm *v, struct um_shadow_page *sp)
{
	for (unsigned w = 0; sp->unsync_children && w < SPTES_PER_PAGE / 64; w++) {
		u64 seen = 0, bits;

		/* Synchronizing a page may clear other bits: look again every time. */
		while ((bits = sp->unsync_child_bitmap[w] & ~seen)) {
			unsigned b = (unsigned)__builtin_ctzll(bits);
			struct um_shadow_page *child =
				um_sptep_page(spte_child(sp->spt[w * 64 + b]));

			seen |= BIT(b);
			if (child->unsync)
				sync_page(v, child);
			else
				um_sync_children(v, child);
		}
	}
}

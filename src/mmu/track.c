// SPDX-License-Identifier: MIT
/*
 * Stores to shadowed tables that were seen (UM_ACCESS_TRACKED): the sptes follow.
 *
 * Two heuristics guess that a frame is no page table any more, and zap its shadow pages so that stores to it cost
 * nothing again: a store that isn't a whole aligned entry (nobody writes page tables like that), and
 * several stores to an upper-level table that nothing was translated through meanwhile.  A wrong guess costs only
 * time.
 */
#include "mmu/mmu_internal.h"

#define FLOODED 3 /* writes without use */

static bool misaligned(const struct um_shadow_page *sp, unsigned offset, unsigned len)
{
	unsigned size = sp->role.cr4_pae ? 8 : 4;

	/* Two halves of an 8-byte entry are written by 32-bit guests all the time. */
	return len < 4 || ((offset ^ (offset + len - 1)) & ~(size - 1) & 0xfff && len <= size) ||
	       offset % 4;
}

static bool flooded(struct um_shadow_page *sp)
{
	/* Level 1 has a better way: unsync. */
	return sp->role.level > 1 && ++sp->write_flooding_count >= FLOODED;
}

static void entry_written(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i)
{
	u64 old = sp->spt[i];

	if (sp->role.level == 1) {
		/* Likely to be used soon. */
		um_sync_entry(v, sp, i, true);
		um_count(v->counters, mmu_pte_updated);
		return;
	}
	if (!old)
		return;
	if (spte_nonleaf(old, sp->role.level))
		um_count(v->counters, mmu_pde_zapped);
	um_sp_drop_spte(v, sp, i);
}

/* Entries of @sp for bytes [offset, offset + len) of the guest's table. */
static void entries_written(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned offset,
			    unsigned len)
{
	unsigned first = offset, last = offset + len - 1, base = 0;

	if (sp->role.cr4_pae) {
		first /= 8;
		last /= 8;
	} else {
		/* An spt holds 512 entries of 4 bytes, or 256 of which each has two sptes. */
		first /= 4;
		last /= 4;
		if (sp->role.level > 1) {
			first *= 2;
			last = last * 2 + 1;
		}
		base = sp->role.quadrant * SPTES_PER_PAGE;
	}
	for (unsigned n = first; n <= last; n++) {
		if (n >= base && n < base + SPTES_PER_PAGE)
			entry_written(v, sp, n - base);
	}
}

static void page_written(struct um_mmu_vm *v, unsigned as, gpa_t gpa, unsigned len)
{
	gfn_t gfn = gpa >> UM_PAGE_SHIFT;
	unsigned offset = gpa & ~UM_PAGE_MASK;
	struct um_slot *s = um_vm_slot(v, as, gfn);
	struct um_shadow_page *sp, *next;

	if (!s)
		return;
	um_mem_mark_dirty(v->mem, s, gfn, v->owner->ring);
	if (!um_gfn_shadowed(v, as, gfn))
		return;
	um_count(v->counters, mmu_pte_write);
	for (sp = um_sp_first_of(v, gfn); sp; sp = next) {
		next = um_sp_next_of(sp);
		if (misaligned(sp, offset, len)) {
			um_count(v->counters, mmu_misaligned);
			um_sp_zap(v, sp);
		} else if (flooded(sp)) {
			um_count(v->counters, mmu_flooded);
			um_sp_zap(v, sp);
		} else {
			entries_written(v, sp, offset, len);
		}
	}
}

void um_mmu_storing(struct um_mmu *m, gpa_t gpa)
{
	gfn_t was = atomic_load_explicit(&m->storing[0], memory_order_relaxed);

	atomic_store(&m->storing[1], was);
	atomic_store(&m->storing[0], (gpa >> UM_PAGE_SHIFT) + 1);
}

static void stored(struct um_mmu *m, gfn_t gfn)
{
	for (unsigned n = 0; n < ARRAY_SIZE(m->storing); n++) {
		if (atomic_load_explicit(&m->storing[n], memory_order_relaxed) == gfn + 1)
			atomic_store(&m->storing[n], 0);
	}
}

void um_mmu_written(struct um_mmu *m, gpa_t gpa, unsigned len)
{
	struct um_mmu_vm *v = m->vm;

	um_mmu_lock(m);
	while (len) {
		unsigned n = um_min(len, (unsigned)(UM_PAGE_SIZE - (gpa & ~UM_PAGE_MASK)));

		page_written(v, um_cpu_as(m->cpu), gpa, n);
		stored(m, gpa >> UM_PAGE_SHIFT);
		gpa += n;
		len -= n;
	}
	um_vm_unlock(v);
}

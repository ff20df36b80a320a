// SPDX-License-Identifier: MIT
/*
 * The MMU as a listener of memory: slots that come, go and move, dirty logs, and what happens to host memory
 * under the slots.
 */
#include "mmu/mmu_internal.h"

#include <errno.h>
#include <stdlib.h>

static struct um_mmu_vm *vm_of(struct um_mem_listener *l)
{
	return um_container_of(l, struct um_mmu_vm, listener);
}

static void free_arch(struct um_slot_mmu *a)
{
	if (!a)
		return;
	for (unsigned level = 1; level <= MAX_LEAF_LEVEL; level++) {
		free(a->rmap[level]);
		free(a->disallow_lpage[level]);
	}
	free(a->shadowed);
	free(a);
}

/* A range that sticks out of the slot at either end can't be mapped by one spte. */
static void disallow_edges(struct um_slot_mmu *a, unsigned level)
{
	gfn_t end = a->base + a->npages;
	u64 mask = level_pages(level) - 1;

	if (a->base & mask)
		a->disallow_lpage[level][0]++;
	if (end & mask)
		a->disallow_lpage[level][um_slot_index(a, end - 1, level)]++;
}

static struct um_slot_mmu *make_arch(const struct um_slot *s)
{
	struct um_slot_mmu *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->base = s->base;
	a->npages = s->npages;
	a->shadowed = calloc(s->npages, sizeof(*a->shadowed));
	if (!a->shadowed)
		goto fail;
	for (unsigned level = 1; level <= MAX_LEAF_LEVEL; level++) {
		u64 n = um_slot_index(a, s->base + s->npages - 1, level) + 1;

		a->rmap[level] = calloc(n, sizeof(*a->rmap[level]));
		if (!a->rmap[level])
			goto fail;
		if (level == 1)
			continue;
		a->disallow_lpage[level] = calloc(n, sizeof(*a->disallow_lpage[level]));
		if (!a->disallow_lpage[level])
			goto fail;
		disallow_edges(a, level);
	}
	return a;
fail:
	free_arch(a);
	return NULL;
}

static int slot_prepare(struct um_mem_listener *l, struct um_slot *new, const struct um_slot *old)
{
	if (old && old->base == new->base)
		new->arch = old->arch;
	else
		new->arch = make_arch(new);
	return new->arch ? 0 : -ENOMEM;
}

static void slot_free(struct um_mem_listener *l, struct um_slot *s)
{
	free_arch(s->arch);
	s->arch = NULL;
}

static void learn_slots(struct um_mmu_vm *v)
{
	v->slots_generation = 0;
	for (unsigned as = 0; as < UM_NR_AS; as++) {
		v->slots[as] = um_mem_slots(v->mem, as);
		v->slots_generation = um_max(v->slots_generation, v->slots[as]->generation);
	}
}

/*
 * Indirect pages whose tables are in the range, in any address space: their frames are counted in the slots of
 * all.
 */
static void zap_tables_in(struct um_mmu_vm *v, gfn_t base, u64 npages)
{
	struct um_shadow_page *sp, *tmp;

	cds_list_for_each_entry_safe(sp, tmp, &v->active, lru) {
		if (!sp->role.direct && sp->gfn - base < npages)
			um_sp_zap(v, sp);
	}
}

static void slot_flush(struct um_mem_listener *l, struct um_slot *old)
{
	struct um_mmu_vm *v = vm_of(l);

	um_vm_lock(v);
	/* The MMU still knows the slot, so rmap and counts are found; from here on it doesn't. */
	um_rmap_zap(v, old, old->base, old->npages);
	zap_tables_in(v, old->base, old->npages);
	learn_slots(v);
	um_vm_unlock(v);
}

/* Take @clear away from leaf sptes that map frames of @s; drop the large ones. */
static void protect_slot(struct um_mmu_vm *v, struct um_slot *s)
{
	const u64 clear = SPTE_STORABLE | SPTE_DIRTY;
	struct um_shadow_page *sp, *tmp;

	cds_list_for_each_entry_safe(sp, tmp, &v->active, lru) {
		if (sp->role.smm != s->as || !(sp->slot_bitmap & BIT(s->id % 64)) ||
		    sp->role.level > MAX_LEAF_LEVEL)
			continue;
		for (unsigned i = 0; i < SPTES_PER_PAGE; i++) {
			u64 old = sp->spt[i];

			if (!spte_leaf(old, sp->role.level) ||
			    um_sp_gfn(sp, i) - s->base >= s->npages)
				continue;
			if (sp->role.level > 1) {
				um_sp_drop_spte(v, sp, i);
				continue;
			}
			WRITE_ONCE(sp->spt[i], old & ~clear);
			if ((old & SPTE_DIRTY) && (old & SPTE_ACCESSED))
				um_flush_note(v, sp, i);
		}
	}
}

/* Logging ended: small sptes of linear ranges may be large ones again.  The next faults make them. */
static void collapse_slot(struct um_mmu_vm *v, struct um_slot *s)
{
	struct um_shadow_page *sp, *tmp;

	cds_list_for_each_entry_safe(sp, tmp, &v->active, lru) {
		if (sp->role.direct && sp->role.smm == s->as && sp->role.level == 1 &&
		    !sp->root_count && (sp->slot_bitmap & BIT(s->id % 64)) &&
		    um_max_mapping_level(v, s->as, sp->gfn, 2) == 2)
			um_sp_zap(v, sp);
	}
}

void um_update_limit(struct um_mmu_vm *v)
{
	u64 n = 0;

	for (unsigned as = 0; as < UM_NR_AS; as++)
		n += v->slots[as]->npages * MMU_PERMILLE / 1000;
	if (!v->limit_set)
		v->limit = um_max(n, (u64)MIN_MMU_PAGES);
}

static void slot_commit(struct um_mem_listener *l, const struct um_slot *old, struct um_slot *new)
{
	struct um_mmu_vm *v = vm_of(l);
	u64 generation;

	um_vm_lock(v);
	learn_slots(v);
	um_update_limit(v);
	/*
	 * Where there was no memory, a "table" may have been shadowed all the same; or there is one in the other
	 * address space, which the new slot has not counted.
	 */
	if (new && (!old || old->base != new->base))
		zap_tables_in(v, new->base, new->npages);
	if (new &&new->dirty && !(old && old->dirty && old->base == new->base))
		protect_slot(v, new);
	if (new &&old && old->dirty && !new->dirty)
		collapse_slot(v, new);
	/* An mmio spte has only some bits of the generation it is good for. */
	generation = v->slots_generation;
	if ((generation ^ v->mmio_generation_seen) >> SPTE_MMIO_GEN_BITS)
		um_sp_zap_all(v);
	v->mmio_generation_seen = generation;
	um_vm_unlock(v);
}

static void dirty_cleared(struct um_mem_listener *l, struct um_slot *s, u64 first, const u64 *mask,
			  size_t nwords)
{
	struct um_mmu_vm *v = vm_of(l);

	um_vm_lock(v);
	for (size_t w = 0; w < nwords; w++) {
		for (u64 bits = mask[w]; bits; bits &= bits - 1) {
			u64 page = first + w * 64 + (u64)__builtin_ctzll(bits);

			if (page < s->npages)
				um_rmap_write_protect(v, s->as, s->base + page);
		}
	}
	um_vm_unlock(v);
}

/* Call @fn for the frames of each slot whose host memory overlaps [start, end). */
static bool for_each_range(struct um_mmu_vm *v, hva_t start, hva_t end,
			   bool (*fn)(struct um_mmu_vm *v, struct um_slot *s, gfn_t first, u64 n))
{
	struct um_slot *s;
	bool any = false;
	unsigned as, i;

	um_for_each_slot(v, as, i, s)
	{
		hva_t lo = um_max(start, s->hva);
		hva_t hi = um_min(end, s->hva + (s->npages << UM_PAGE_SHIFT));
		u64 first, last;

		if (lo >= hi)
			continue;
		first = (lo - s->hva) >> UM_PAGE_SHIFT;
		last = (hi - 1 - s->hva) >> UM_PAGE_SHIFT;
		any |= fn(v, s, s->base + first, last - first + 1);
	}
	return any;
}

static void invalidate_range_start(struct um_mem_listener *l, hva_t start, hva_t end)
{
	struct um_mmu_vm *v = vm_of(l);

	um_vm_lock(v);
	um_count(v->counters, mmu_notifier_invalidate);
	if (!v->notifier_count++) {
		v->notifier_start = start;
		v->notifier_end = end;
	} else {
		v->notifier_start = um_min(v->notifier_start, start);
		v->notifier_end = um_max(v->notifier_end, end);
	}
	for_each_range(v, start, end, um_rmap_zap);
	um_vm_unlock(v);
}

static void invalidate_range_end(struct um_mem_listener *l, hva_t start, hva_t end)
{
	struct um_mmu_vm *v = vm_of(l);

	um_vm_lock(v);
	/* First the sequence: a fault that sees no invalidation in progress must see that there was one. */
	atomic_fetch_add(&v->notifier_seq, 1);
	v->notifier_count--;
	pthread_cond_broadcast(&v->notifier_done);
	um_vm_unlock(v);
}

static void change(struct um_mem_listener *l, hva_t hva)
{
	struct um_mmu_vm *v = vm_of(l);

	um_vm_lock(v);
	atomic_fetch_add(&v->notifier_seq, 1);
	for_each_range(v, hva & UM_PAGE_MASK, (hva & UM_PAGE_MASK) + UM_PAGE_SIZE, um_rmap_zap);
	um_vm_unlock(v);
}

static bool young(struct um_mmu_vm *v, struct um_slot *s, gfn_t first, u64 n, bool clear)
{
	struct um_slot_mmu *a = s->arch;
	bool any = false;

	for (unsigned level = 1; level <= MAX_LEAF_LEVEL; level++) {
		u64 end = um_slot_index(a, first + n - 1, level);

		for (u64 i = um_slot_index(a, first, level); i <= end; i++) {
			struct um_ptelist_cursor pos = { 0 };
			u64 *p;

			while ((p = um_ptelist_next(&a->rmap[level][i], &pos))) {
				if (!(*p & SPTE_ACCESSED))
					continue;
				any = true;
				if (!clear)
					return true;
				/* TLB entries are made from accessed sptes only. */
				um_flush_note(v, um_sptep_page(p), um_sptep_index(p));
				WRITE_ONCE(*p, *p & ~SPTE_ACCESSED);
			}
		}
	}
	return any;
}

static bool clear_young_range(struct um_mmu_vm *v, struct um_slot *s, gfn_t first, u64 n)
{
	return young(v, s, first, n, true);
}

static bool test_young_range(struct um_mmu_vm *v, struct um_slot *s, gfn_t first, u64 n)
{
	return young(v, s, first, n, false);
}

static bool clear_young(struct um_mem_listener *l, hva_t start, hva_t end)
{
	struct um_mmu_vm *v = vm_of(l);
	bool any;

	um_vm_lock(v);
	any = for_each_range(v, start, end, clear_young_range);
	um_vm_unlock(v);
	return any;
}

static bool test_young(struct um_mem_listener *l, hva_t start, hva_t end)
{
	struct um_mmu_vm *v = vm_of(l);
	bool any;

	um_vm_lock(v);
	any = for_each_range(v, start, end, test_young_range);
	um_vm_unlock(v);
	return any;
}

static void release(struct um_mem_listener *l)
{
	struct um_mmu_vm *v = vm_of(l);

	um_vm_lock(v);
	v->released = true;
	um_sp_zap_all(v);
	um_vm_unlock(v);
}

void um_listener_init(struct um_mmu_vm *v)
{
	v->listener = (struct um_mem_listener){
		.invalidate_range_start = invalidate_range_start,
		.invalidate_range_end = invalidate_range_end,
		.change = change,
		.clear_young = clear_young,
		.test_young = test_young,
		.release = release,
		.slot_prepare = slot_prepare,
		.slot_flush = slot_flush,
		.slot_commit = slot_commit,
		.slot_free = slot_free,
		.dirty_cleared = dirty_cleared,
	};
	learn_slots(v);
	um_mem_add_listener(v->mem, &v->listener);
}

/*
 * @sp, indirect, begins or ceases to shadow its gfn.  The counts say which frames may be mapped without a look
 * into the hash, and which ranges can't have large sptes.
 */
void um_account_shadowed(struct um_mmu_vm *v, struct um_shadow_page *sp, bool shadowed)
{
	u32 delta = shadowed ? 1 : -1u;

	for (unsigned as = 0; as < UM_NR_AS; as++) {
		struct um_slot *s = um_vm_slot(v, as, sp->gfn);
		struct um_slot_mmu *a = s ? s->arch : NULL;

		if (!a || !(sp->accounted & BIT(as)) != shadowed)
			continue;
		sp->accounted ^= (u8)BIT(as);
		a->shadowed[um_slot_index(a, sp->gfn, 1)] += (u16)delta;
		for (unsigned level = 2; level <= MAX_LEAF_LEVEL; level++)
			a->disallow_lpage[level][um_slot_index(a, sp->gfn, level)] += delta;
	}
}

unsigned um_gfn_shadowed(struct um_mmu_vm *v, unsigned as, gfn_t gfn)
{
	struct um_slot *s = um_vm_slot(v, as, gfn);
	struct um_slot_mmu *a = s ? s->arch : NULL;

	return a ? a->shadowed[um_slot_index(a, gfn, 1)] : 0;
}

void um_mmu_set_nr_pages(struct um_mmu_vm *v, unsigned long n)
{
	um_vm_lock(v);
	v->limit_set = n != 0;
	v->limit = um_max(n, (unsigned long)MIN_MMU_PAGES);
	um_update_limit(v);
	um_sp_make_room(v, 0);
	um_vm_unlock(v);
}

unsigned long um_mmu_get_nr_pages(struct um_mmu_vm *v)
{
	unsigned long n;

	um_vm_lock(v);
	n = v->limit;
	um_vm_unlock(v);
	return n;
}

unsigned long um_mmu_shrink(struct um_mmu_vm *v, unsigned long nr)
{
	unsigned long n;

	um_vm_lock(v);
	n = um_sp_recycle(v, nr);
	um_vm_unlock(v);
	return n;
}

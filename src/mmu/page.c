// SPDX-License-Identifier: MIT
/*
 * Shadow pages: pool, hash, links between parents and children, zapping.
 *
 * A page lives in the hash from its creation until it is zapped.  It stays there when the last
 * parent lets go of it: the next root (or the same one, loaded again) finds it with its sptes.  The
 * pool is bounded; when it is full, the least recently used pages are zapped.
 *
 * Zapping empties the page, cuts it off from its parents, stops the write protection of the guest's
 * table, and puts it on the zapped list; it is free for reuse after the flush that ends the
 * critical section.  A page that is a loaded root can't go yet: it is marked invalid, every vCPU is
 * asked to look its roots up again, and the last one to let go frees it.
 */
#include "mmu/mmu_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static unsigned hash_gfn(gfn_t gfn)
{
	return (gfn * 0x9e3779b97f4a7c15ull) >> (64 - HASH_BITS);
}

static bool grow_pool(struct um_mmu_vm *v)
{
	struct um_shadow_page *sp = calloc(CHUNK_PAGES, sizeof(*sp));
	struct um_chunk *c = NULL;

	if (sp)
		c = aligned_alloc(CHUNK_SIZE, CHUNK_SIZE);
	if (!c) {
		free(sp);
		return false;
	}
	for (unsigned i = 0; i < CHUNK_PAGES; i++) {
		c->sp[i + 1] = &sp[i];
		sp[i].spt = (u64 *)((char *)c + (i + 1) * UM_PAGE_SIZE);
		cds_list_add_tail(&sp[i].lru, &v->free);
	}
	c->sp[0] = NULL;
	c->next = v->chunks;
	v->chunks = c;
	return true;
}

void um_sp_free_pool(struct um_mmu_vm *v)
{
	while (v->chunks) {
		struct um_chunk *c = v->chunks;

		v->chunks = c->next;
		for (unsigned i = 1; i <= CHUNK_PAGES; i++)
			free(c->sp[i]->gfns);
		free(c->sp[1]);
		free(c);
	}
}

static struct um_shadow_page *alloc_page(struct um_mmu_vm *v, bool direct)
{
	struct um_shadow_page *sp;
	gfn_t *gfns;
	u64 *spt;

	if (cds_list_empty(&v->free) && !grow_pool(v))
		return NULL;
	sp = cds_list_first_entry(&v->free, struct um_shadow_page, lru);
	if (!direct && !sp->gfns) {
		sp->gfns = malloc(SPTES_PER_PAGE * sizeof(gfn_t));
		if (!sp->gfns)
			return NULL;
	}
	cds_list_del(&sp->lru);
	if (direct) {
		free(sp->gfns);
		sp->gfns = NULL;
	}
	gfns = sp->gfns;
	spt = sp->spt;
	memset(sp, 0, sizeof(*sp));
	sp->gfns = gfns;
	sp->spt = spt;
	memset(spt, 0, SPTES_PER_PAGE * sizeof(u64));
	v->used++;
	return sp;
}

static struct um_shadow_page *first_from(struct um_shadow_page *sp, gfn_t gfn)
{
	while (sp && (sp->gfn != gfn || sp->role.direct))
		sp = sp->hash_next;
	return sp;
}

struct um_shadow_page *um_sp_first_of(struct um_mmu_vm *v, gfn_t gfn)
{
	return first_from(v->hash[hash_gfn(gfn)], gfn);
}

struct um_shadow_page *um_sp_next_of(struct um_shadow_page *sp)
{
	return first_from(sp->hash_next, sp->gfn);
}

struct um_shadow_page *um_sp_lookup(struct um_mmu_vm *v, gfn_t gfn, union um_role role)
{
	struct um_shadow_page *sp = v->hash[hash_gfn(gfn)];

	while (sp && (sp->gfn != gfn || sp->role.word != role.word))
		sp = sp->hash_next;
	return sp;
}

static void hash_del(struct um_mmu_vm *v, struct um_shadow_page *sp)
{
	struct um_shadow_page **p = &v->hash[hash_gfn(sp->gfn)];

	while (*p != sp)
		p = &(*p)->hash_next;
	*p = sp->hash_next;
	sp->hash_next = NULL;
}

/*
 * A page above level 1 relies on the write protection of its table, which an unsync page of the
 * same table (the guest uses it at two levels) has given up: that one has to go.
 */
static void zap_unsync_pages_of(struct um_mmu_vm *v, gfn_t gfn)
{
	struct um_shadow_page *sp, *next;

	for (sp = um_sp_first_of(v, gfn); sp; sp = next) {
		next = um_sp_next_of(sp);
		if (sp->unsync)
			um_sp_zap(v, sp);
	}
}

/*
 * The page for (gfn, role), from the hash or new.  What comes back agrees with the guest's table as
 * it is now, or is marked unsync and agreed a moment ago: an entry that was not present before
 * needs no flush by the guest, so the caller may follow a link that has just been made.  NULL on
 * ENOMEM.
 */
struct um_shadow_page *um_sp_get(struct um_mmu_vm *v, gfn_t gfn, union um_role role, gva_t gva)
{
	struct um_shadow_page *sp = um_sp_lookup(v, gfn, role);

	if (sp) {
		if (sp->unsync)
			um_sync_entries(v, sp);
		cds_list_del(&sp->lru);
		cds_list_add(&sp->lru, &v->active);
		um_sp_set_gva(sp, gva);
		return sp;
	}
	um_count(v->counters, mmu_cache_miss);
	sp = alloc_page(v, role.direct);
	if (!sp)
		return NULL;
	um_count(v->counters, mmu_shadow_created);
	if (!role.direct && role.level > 1)
		zap_unsync_pages_of(v, gfn);
	sp->role = role;
	sp->gfn = gfn;
	um_sp_set_gva(sp, gva);
	sp->hash_next = v->hash[hash_gfn(gfn)];
	v->hash[hash_gfn(gfn)] = sp;
	cds_list_add(&sp->lru, &v->active);
	if (!role.direct) {
		/* From here on writes to the table are seen; then the caller reads it. */
		um_account_shadowed(v, sp, true);
		if (um_rmap_protect_table(v, gfn))
			um_flush_remote(v);
	}
	um_trace(v->trace, mmu, "new page: level %u gfn %#lx role %#x", role.level, gfn, role.word);
	return sp;
}

static void set_multi(struct um_shadow_page *sp)
{
	if (sp->gva_multi)
		return;
	sp->gva_multi = true;
	if (sp->role.level == 1)
		return;
	for (unsigned i = 0; i < SPTES_PER_PAGE; i++) {
		if (spte_nonleaf(sp->spt[i], sp->role.level))
			set_multi(um_sptep_page(spte_child(sp->spt[i])));
	}
}

/* @sp is (also) at @gva of its root's space; ~0: at several places. */
void um_sp_set_gva(struct um_shadow_page *sp, gva_t gva)
{
	/*
	 * When its last parent let go of it, what TLBs had through it was flushed: it may start
	 * anew.
	 */
	if (sp->role.level == 1 && !sp->parents.val) {
		sp->gva_known = false;
		sp->gva_multi = false;
	}
	if (gva != ~(gva_t)0 && !sp->gva_known) {
		sp->gva_known = true;
		sp->gva = gva;
	} else if (sp->gva != gva) {
		set_multi(sp);
	}
}

/* Point spte @i of @parent, which is empty, at @child.  False on ENOMEM. */
bool um_sp_link(struct um_mmu_vm *v, struct um_shadow_page *parent, unsigned i,
		struct um_shadow_page *child)
{
	gva_t gva = parent->gva + ((gva_t)i * level_pages(parent->role.level) << UM_PAGE_SHIFT);

	if (!um_ptelist_add(v, &child->parents, &parent->spt[i]))
		return false;
	um_sp_set_gva(child, parent->gva_multi ? ~(gva_t)0 : gva);
	WRITE_ONCE(parent->spt[i], spte_make_nonleaf(child->spt));
	parent->nr_present++;
	if (child->unsync || child->unsync_children)
		um_unsync_child_set(parent, i);
	return true;
}

/* Is there a way from the root that the owner of the lock is in to @sp? */
static bool in_sight(const struct um_root *root, const struct um_shadow_page *sp)
{
	struct um_ptelist_cursor pos = { 0 };
	u64 *p;

	for (unsigned i = 0; i < ARRAY_SIZE(root->sp); i++) {
		if (root->sp[i] == sp)
			return true;
	}
	while ((p = um_ptelist_next(&sp->parents, &pos))) {
		if (in_sight(root, um_sptep_page(p)))
			return true;
	}
	return false;
}

static bool maps_global(const struct um_shadow_page *sp)
{
	unsigned level = sp->role.level;

	for (unsigned k = 0, left = sp->nr_present; left && k < SPTES_PER_PAGE; k++) {
		u64 spte = sp->spt[k];

		left -= spte != 0;
		if (spte_nonleaf(spte, level) ? maps_global(um_sptep_page(spte_child(spte)))
					      : spte_leaf(spte, level) && (spte & SPTE_GLOBAL))
			return true;
	}
	return false;
}

/* How many accessed leaves last table @sp has, and which; -1: more than @index has room for. */
static int accessed_leaves(const struct um_shadow_page *sp, unsigned index[MAX_FLUSH_RANGES])
{
	int n = 0;

	for (unsigned k = 0, left = sp->nr_present; left && k < SPTES_PER_PAGE; k++) {
		left -= sp->spt[k] != 0;
		if (!spte_leaf(sp->spt[k], 1) || !(sp->spt[k] & SPTE_ACCESSED))
			continue;
		if (n == MAX_FLUSH_RANGES)
			return -1;
		index[n++] = k;
	}
	return n;
}

/*
 * The way to @child through spte @i of @sp is gone: note what TLBs may hold of it, so that little
 * else is lost.
 *
 *   - A last table with few accessed pages, whose place is known: these pages.  As when a process
 *     unmaps one page.
 *   - Nothing global is below: the contexts of roots.  As when a process frees its tables; the
 *     kernel's translations stay.
 *   - Else the whole range.
 */
static void note_subtree(struct um_mmu_vm *v, const struct um_shadow_page *sp, unsigned i,
			 const struct um_shadow_page *child)
{
	const struct um_root *root = v->owner ? v->owner->root : NULL;
	unsigned leaf[MAX_FLUSH_RANGES];
	int nleaves = -1;

	if (!child->nr_present)
		return;
	if (child->role.level == 1 && child->gva_known && !child->gva_multi)
		nleaves = accessed_leaves(child, leaf);
	if (nleaves >= 0) {
		for (int k = 0; k < nleaves; k++)
			um_flush_note(v, child, leaf[k]);
	} else if (root && !v->cfg.tdp && !maps_global(child)) {
		v->flush.needed = v->flush.idle = true;
		v->flush.current |= sp->zapped || in_sight(root, sp);
	} else {
		um_flush_note(v, sp, i);
	}
}

/*
 * Take spte @i, which is not zero, out of @sp and of its list.  Returns it: what TLBs hold of it is
 * not noted yet.
 */
static u64 clear_spte(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i)
{
	u64 old = sp->spt[i];
	unsigned level = sp->role.level;
	struct um_ptelist *l = NULL;

	if (spte_nonleaf(old, level)) {
		struct um_shadow_page *child = um_sptep_page(spte_child(old));

		if (child->unsync || child->unsync_children)
			um_unsync_child_clear(sp, i);
		l = &child->parents;
	} else if (spte_leaf(old, level)) {
		l = um_rmap(v, sp->role.smm, um_sp_gfn(sp, i), level);
	}
	WRITE_ONCE(sp->spt[i], 0);
	if (l)
		um_ptelist_del(v, l, &sp->spt[i]);
	sp->nr_present--;
	return old;
}

void um_sp_drop_spte(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i)
{
	unsigned level = sp->role.level;
	u64 old;

	if (!sp->spt[i])
		return;
	old = clear_spte(v, sp, i);
	if (spte_nonleaf(old, level))
		note_subtree(v, sp, i, um_sptep_page(spte_child(old)));
	else if (spte_leaf(old, level) && (old & SPTE_ACCESSED))
		um_flush_note(v, sp, i);
}

/*
 * Drop all sptes of @sp.  Two kinds of pages need not be looked through for what TLBs hold:
 *
 *   - a last table that no spte leads to: what it maps was noted when it lost its last parent
 *     (note_subtree());
 *   - the top of an address space: its contexts are given up.  (The shared one needs leaf sptes,
 *     not the way to them.)
 */
static void drop_all(struct um_mmu_vm *v, struct um_shadow_page *sp)
{
	bool orphan = !sp->parents.val && sp->role.level == 1 && !sp->root_count;
	bool top = !sp->parents.val && sp->role.level >= 4 && !sp->role.direct && v->owner &&
		   !v->cfg.tdp;
	u64 *parent;

	while ((parent = um_ptelist_first(&sp->parents)))
		clear_spte(v, um_sptep_page(parent), um_sptep_index(parent));
	for (unsigned i = 0; sp->nr_present && i < SPTES_PER_PAGE; i++) {
		if (!orphan && !top)
			um_sp_drop_spte(v, sp, i);
		else if (sp->spt[i])
			clear_spte(v, sp, i);
	}
	if (top)
		v->flush.idle = v->flush.current = true;
}

/*
 * Take @sp out of use.  It must not be touched after the lock is released, unless it is a loaded
 * root.
 */
void um_sp_zap(struct um_mmu_vm *v, struct um_shadow_page *sp)
{
	if (sp->zapped)
		return;
	um_count(v->counters, mmu_shadow_zapped);
	um_trace(v->trace, mmu, "zap page: level %u gfn %#lx role %#x", sp->role.level, sp->gfn,
		 sp->role.word);
	sp->zapped = true;
	drop_all(v, sp);
	if (sp->unsync)
		um_clear_unsync(sp);
	hash_del(v, sp);
	um_account_shadowed(v, sp, false);
	cds_list_del(&sp->lru);
	/* Others may be walking it without the lock. */
	v->flush.needed = true;
	if (sp->root_count) {
		sp->role.invalid = 1;
		CDS_INIT_LIST_HEAD(&sp->lru);
		v->reload_roots = true;
	} else {
		cds_list_add(&sp->lru, &v->zapped);
	}
}

/* After the flush: nobody walks them any more. */
void um_sp_free_zapped(struct um_mmu_vm *v)
{
	struct um_shadow_page *sp, *tmp;

	cds_list_for_each_entry_safe(sp, tmp, &v->zapped, lru) {
		cds_list_del(&sp->lru);
		cds_list_add(&sp->lru, &v->free);
		v->used--;
	}
}

/* A vCPU lets go of a root. */
void um_sp_put_root(struct um_mmu_vm *v, struct um_shadow_page *sp)
{
	if (--sp->root_count || !sp->zapped)
		return;
	cds_list_add(&sp->lru, &v->zapped);
}

unsigned long um_sp_recycle(struct um_mmu_vm *v, unsigned long pages)
{
	struct um_shadow_page *sp;
	struct cds_list_head *pos = v->active.prev;
	unsigned long done = 0;

	while (done < pages && pos != &v->active) {
		sp = cds_list_entry(pos, struct um_shadow_page, lru);
		pos = pos->prev;
		if (sp->root_count)
			continue;
		/* Zapping one page takes no other out of the list, so pos stays good. */
		um_sp_zap(v, sp);
		um_count(v->counters, mmu_recycled);
		done++;
	}
	return done;
}

/* Before a fault or a root load: make sure that @pages more fit under the limit, if that can be. */
void um_sp_make_room(struct um_mmu_vm *v, unsigned long pages)
{
	unsigned long over;

	if (likely(v->used + pages <= v->limit))
		return;
	over = v->used + pages - v->limit;
	/*
	 * A few more, so that this isn't done for every single page.  If so much of the pool is
	 * roots that nothing else can go, the vCPU doesn't need those that it only keeps.
	 */
	if (um_sp_recycle(v, over + um_min(v->limit / 16, 32ul)) < over && v->owner) {
		um_root_drop_idle(v->owner);
		um_sp_recycle(v, over);
	}
	um_flush_now(v);
	um_sp_free_zapped(v);
}

void um_sp_zap_all(struct um_mmu_vm *v)
{
	struct um_shadow_page *sp, *tmp;

	cds_list_for_each_entry_safe(sp, tmp, &v->active, lru)
		um_sp_zap(v, sp);
}

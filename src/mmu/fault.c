// SPDX-License-Identifier: MIT
/*
 * The fault path: what a TLB miss costs, from cheap to dear.
 *
 *  1. Walk the root's sptes, without the lock.  If there is a leaf that allows the access, fill the
 *     TLB.  So a page that was used before costs a few loads, whatever the guest's tables look like.
 *  2. With the lock: the leaf is there but was not accessed, not written, or is protected for the dirty log only.
 *     Set what is missing.
 *  3. Walk the guest's tables, reflect the fault to the guest if they don't allow the access, find the host
 *     page (all this without the lock); then, with the lock, check that neither the slots nor the host page
 *     changed since, go down the shadow pages making those that miss, check at each level that the guest's entry is
 *     still the one walked, and make the leaf.  If something changed, start over.
 *
 * The root's space is guest-virtual in shadow mode, guest-physical in direct mode (no paging, or tdp).  With
 * tdp, step 3's guest walk comes first and its result is looked up in the root: two dimensions.
 */
#include "mmu/mmu_internal.h"

#include <sched.h>

#include "base/uaccess.h"

#define PREFETCH 8 /* entries around a fault that are tried too */

bool um_mmu_watched(const struct um_cpu *cpu, gva_t gva)
{
	if (likely(!(cpu->dr7 & 0xff)))
		return false;
	for (unsigned i = 0; i < 4; i++) {
		if (DR7_ENABLED(cpu->dr7, i) && (DR7_RW(cpu->dr7, i) & 1) &&
		    ((cpu->dr[i] ^ gva) & UM_PAGE_MASK) == 0)
			return true;
	}
	return false;
}

/* What a fault is about, besides what the caller of um_mmu_access() sees. */
struct request {
	struct um_fault *f;
	enum um_access acc;
	unsigned bit; /* 1 << acc */
	/* The address in the root's space, and what the guest allows there (tdp: from its tables). */
	u64 addr;
	bool combined; /* tdp with paging: rights come from here, not from the spte */
	unsigned allowed;
};

/* Accesses that @spte and the guest's rights allow, as bits. */
static unsigned leaf_allows(const struct um_mmu *m, const struct request *r, u64 spte)
{
	unsigned ok = r->combined ? r->allowed
				  : um_allowed(&m->paging, r->f->priv, spte & SPTE_RIGHTS,
					       spte_pkey(spte), m->cpu->fpu.pkru);

	if (!(spte & SPTE_ACCESSED))
		return 0;
	if (!spte_store_ok(spte))
		ok &= ~(1u << UM_WRITE);
	return ok;
}

/* The spte for r->addr: the leaf, or the last one before nothing.  NULL: no root for it. */
static u64 *walk_sptes(const struct um_mmu *m, u64 addr, unsigned *levelp)
{
	unsigned level = m->root_level;
	struct um_shadow_page *sp = m->root->sp[level == 2 ? (addr >> 30) & 3 : 0];
	u64 *spt, *sptep, spte;

	if (!sp)
		return NULL;
	for (spt = sp->spt;; level--) {
		sptep = &spt[spt_index(addr, level)];
		spte = READ_ONCE(*sptep);
		if (!spte_nonleaf(spte, level))
			break;
		spt = spte_child(spte);
	}
	*levelp = level;
	return sptep;
}

static enum um_access_result finish(struct um_mmu *m, const struct request *r, u64 spte,
				    unsigned level, gfn_t gfn, unsigned allowed)
{
	struct um_fault *f = r->f;
	u64 offset = r->addr & ((level_pages(level) << UM_PAGE_SHIFT) - 1);
	char *page = (char *)spte_hva(spte) + (offset & UM_PAGE_MASK);

	f->gpa = (gfn << UM_PAGE_SHIFT) + offset;
	f->hva = page + (offset & ~UM_PAGE_MASK);
	f->write_protected = false;
	if (unlikely(um_mmu_watched(m->cpu, f->gva)))
		allowed &= 1u << UM_FETCH;
	if (allowed)
		um_tlb_fill(m->tlb, f->gva, m->tlb->ctx[f->priv], page, allowed);
	return UM_ACCESS_OK;
}

static bool mmio_answers(const struct um_mmu *m, const struct request *r, u64 spte)
{
	unsigned ok = r->combined ? r->allowed
				  : um_allowed(&m->paging, r->f->priv, spte & SPTE_RIGHTS, 0,
					       m->cpu->fpu.pkru);

	if (!spte_mmio_current(spte, um_mem_generation(m->vm->mem)))
		return false;
	return (ok & r->bit) && (r->acc != UM_WRITE || (spte & SPTE_DIRTY));
}

/* Step 1.  -1: not answered. */
static int fast(struct um_mmu *m, const struct request *r)
{
	unsigned level, allowed;
	u64 *sptep, spte;
	gfn_t gfn;

	sptep = walk_sptes(m, r->addr, &level);
	if (!sptep)
		return -1;
	spte = READ_ONCE(*sptep);
	if (spte_leaf(spte, level)) {
		allowed = leaf_allows(m, r, spte);
		if (!(allowed & r->bit))
			return -1;
		/* The gfn belongs to this spte only if that is still there after reading it. */
		gfn = um_sp_gfn(um_sptep_page(sptep), um_sptep_index(sptep));
		if (READ_ONCE(*sptep) != spte)
			return -1;
		return finish(m, r, spte, level, gfn, allowed);
	}
	if (spte_mmio(spte) && mmio_answers(m, r, spte)) {
		um_count(m->counters, pf_mmio_spte);
		r->f->gpa = (spte_mmio_gfn(spte) << UM_PAGE_SHIFT) | (r->addr & ~UM_PAGE_MASK);
		return UM_ACCESS_MMIO;
	}
	return -1;
}

/* Step 2, under the lock: A, D and S may be missing.  -1: it is something else. */
static int fix_spte(struct um_mmu *m, const struct request *r)
{
	struct um_shadow_page *sp;
	unsigned level, allowed;
	u64 *sptep, spte;
	gfn_t gfn;

	sptep = walk_sptes(m, r->addr, &level);
	if (!sptep || !spte_leaf(*sptep, level))
		return -1;
	sp = um_sptep_page(sptep);
	gfn = um_sp_gfn(sp, um_sptep_index(sptep));
	spte = *sptep | SPTE_ACCESSED;
	if (r->acc == UM_WRITE && (spte & SPTE_MMU_WRITABLE))
		spte |= SPTE_STORABLE | SPTE_DIRTY;
	allowed = leaf_allows(m, r, spte);
	if (!(allowed & r->bit))
		return -1;
	if (r->acc == UM_WRITE && !(*sptep & SPTE_DIRTY)) {
		gfn_t page = gfn + ((r->addr >> UM_PAGE_SHIFT) & (level_pages(level) - 1));
		struct um_slot *s = um_vm_slot(m->vm, m->mode.smm, page);

		/* A slot that logs has no large sptes that can be written. */
		if (!s || (s->dirty && level > 1))
			return -1;
		um_mem_mark_dirty(m->vm->mem, s, page, m->ring);
	}
	WRITE_ONCE(*sptep, spte);
	um_count(m->counters, pf_fixed);
	return finish(m, r, spte, level, gfn, allowed);
}

/* Is the guest's entry for @sp's spte @i still what the walk saw? */
static bool gpte_changed(struct um_mmu *m, const struct um_walk *w, struct um_shadow_page *sp,
			 unsigned i)
{
	u64 gpte;

	return !um_sp_read_gpte(m->vm, sp, i, &gpte) || gpte != w->gpte[sp->role.level];
}

static union um_role child_role(const struct um_mmu *m, const struct um_walk *w, unsigned level,
				u64 addr)
{
	union um_role role = m->mode;

	role.level = level;
	role.quadrant = 0;
	if (w && level >= w->leaf) {
		role.direct = 0;
		role.access = w->access[level + 1] >> ACC_ROLE_SHIFT;
		if (!role.cr4_pae)
			role.quadrant = (addr >> 21) & 1;
	} else {
		/* Below a large guest page, or no paging: linear. */
		role.word = 0;
		role.level = level;
		role.direct = 1;
		role.smm = m->mode.smm;
		role.access = (w ? w->access[w->leaf] : ACC_ALL) >> ACC_ROLE_SHIFT;
		role.dirty = w ? w->dirty : 1;
		role.pkey = w ? w->pkey : 0;
	}
	return role;
}

static void prefetch(struct um_mmu *m, const struct um_leaf *leaf, struct um_shadow_page *sp,
		     unsigned i)
{
	unsigned first = i & ~(PREFETCH - 1);

	if (sp->role.level > 1)
		return;
	for (unsigned k = first; k < first + PREFETCH; k++) {
		if (sp->spt[k])
			continue;
		if (sp->role.direct) {
			struct um_leaf l = *leaf;

			l.gfn = sp->gfn + k;
			l.write = false;
			l.prefetch = true;
			if (um_vm_slot(m->vm, sp->role.smm, l.gfn))
				um_map_leaf(m->vm, sp, k, &l);
		} else {
			um_sync_entry(m->vm, sp, k, true);
		}
	}
}

#define RETRY (-2)

/*
 * The second half of step 3: from the root down to the leaf, making what misses.  @w is the guest walk, NULL in
 * direct mode.  Returns an enum um_access_result or RETRY.
 */
static int fetch(struct um_mmu *m, const struct request *r, const struct um_walk *w)
{
	struct um_mmu_vm *v = m->vm;
	gfn_t gfn = r->f->gpa >> UM_PAGE_SHIFT;
	unsigned level = m->root_level, goal = 0;
	struct um_shadow_page *sp = m->root->sp[level == 2 ? (r->addr >> 30) & 3 : 0], *child;
	struct um_leaf leaf = {
		.access = w ? w->access[w->leaf] : ACC_ALL,
		.pkey = w ? w->pkey : 0,
		.dirty = w ? w->dirty : true,
		.write = r->acc == UM_WRITE,
	};
	enum um_map_result res;
	unsigned i;

	if (!sp) /* the PDPTE became present since the root was loaded */
		return um_root_load(m, true) < 0 ? UM_ACCESS_HOST : RETRY;
	if (!w)
		goal = um_max_mapping_level(v, m->mode.smm, gfn, m->root_level - 1u);
	for (;; level--, sp = child) {
		union um_role role;
		gfn_t child_gfn;
		u64 spte;

		i = spt_index(r->addr, level);
		sp->write_flooding_count = 0;
		if (w && level >= w->leaf && gpte_changed(m, w, sp, i))
			return RETRY;
		/* Only now: the tables on the way, which are shadowed since, may lie in the range. */
		if (w && level == w->leaf)
			goal = um_max_mapping_level(v, m->mode.smm, gfn, level);
		if (level == goal)
			break;
		role = child_role(m, w, level - 1, r->addr);
		child_gfn = role.direct ? gfn & ~(level_span(level - 1) - 1) : w->table[level - 1];
		spte = sp->spt[i];
		if (spte_nonleaf(spte, level)) {
			child = um_sptep_page(spte_child(spte));
			if (child->gfn == child_gfn && child->role.word == role.word)
				continue;
		}
		um_sp_drop_spte(v, sp, i);
		child = um_sp_get(
			v, child_gfn, role,
			sp->gva_multi ? ~(gva_t)0
				      : sp->gva + ((gva_t)i * level_pages(level) << UM_PAGE_SHIFT));
		if (!child)
			return UM_ACCESS_HOST;
		um_sync_children(v, child);
		/* Write-protecting the child's table may have changed things above. */
		if (sp->zapped || child->zapped || sp->spt[i])
			return RETRY;
		if (!um_sp_link(v, sp, i, child))
			return UM_ACCESS_HOST;
	}

	leaf.gfn = gfn & ~(level_pages(level) - 1);
	res = um_map_leaf(v, sp, i, &leaf);
	if (res == UM_MAP_NOMEM)
		return UM_ACCESS_HOST;
	if (res == UM_MAP_MMIO)
		return UM_ACCESS_MMIO;
	prefetch(m, &leaf, sp, i);
	um_count(m->counters, pf_fixed);
	if (res == UM_MAP_PROTECTED) {
		struct um_slot *s = um_vm_slot(v, m->mode.smm, gfn);

		r->f->hva = (void *)(um_slot_hva(s, gfn) + (r->f->gpa & ~UM_PAGE_MASK));
		r->f->write_protected = true;
		um_mmu_storing(m, gfn << UM_PAGE_SHIFT);
		return UM_ACCESS_TRACKED;
	}
	return finish(m, r, sp->spt[i], level, leaf.gfn, leaf_allows(m, r, sp->spt[i]));
}

/* Wait until no invalidation of @hva's page is in progress.  The lock is held, and still is. */
static void wait_for_notifier(struct um_mmu *m, hva_t hva)
{
	struct um_mmu_vm *v = m->vm;

	while (v->notifier_count && hva >= v->notifier_start && hva < v->notifier_end) {
		bool was = um_mmu_pause(m);

		um_flush_now(v);
		pthread_cond_wait(&v->notifier_done, &v->lock);
		v->owner = m;
		um_mmu_resume(m, was);
	}
}

/* Have the host make the page present, so that an error is known before the guest depends on it. */
static bool touch(struct um_mmu *m, hva_t page, bool write)
{
	bool was = um_mmu_pause(m), ok;
	u8 byte = 0;

	ok = write ? um_or32((void *)page, 0) : um_get8((void *)page, &byte);
	um_mmu_resume(m, was);
	return ok;
}

struct host_page {
	u64 generation;
	unsigned long seq;
	hva_t page; /* 0: no memory */
};

/* The unlocked part of step 3 after the guest walk.  Returns -1 to go on. */
static int find_host_page(struct um_mmu *m, const struct request *r, struct host_page *h)
{
	struct um_mem *mem = m->vm->mem;
	struct um_slot *s = um_mem_slot(mem, um_cpu_as(m->cpu), r->f->gpa >> UM_PAGE_SHIFT);
	bool write = r->acc == UM_WRITE;

	h->page = 0;
	if (!s)
		return -1;
	if (write && (s->flags & KVM_MEM_READONLY))
		return UM_ACCESS_MMIO;
	h->page = um_slot_hva(s, r->f->gpa >> UM_PAGE_SHIFT);
	if (touch(m, h->page, write))
		return -1;
	r->f->hva = (char *)h->page + (r->f->gpa & ~UM_PAGE_MASK);
	return UM_ACCESS_HOST;
}

static int slow_once(struct um_mmu *m, struct request *r)
{
	struct um_mmu_vm *v = m->vm;
	struct host_page h;
	struct um_walk w;
	bool walked = m->paging.enabled && !v->cfg.tdp;
	int res;
	unsigned token = um_mem_read_lock(v->mem);

	h.seq = atomic_load(&v->notifier_seq);
	h.generation = um_mem_generation(v->mem);
	res = -1;
	if (walked) {
		switch (um_walk(v->mem, m->ring, &m->paging, m->cpu, r->f, &w)) {
		case UM_WALK_OK:
			break;
		case UM_WALK_FAULT:
			um_count(m->counters, pf_guest);
			res = UM_ACCESS_FAULT;
			break;
		case UM_WALK_HOST:
			res = UM_ACCESS_HOST;
			break;
		}
	} else {
		r->f->gpa = r->addr;
	}
	if (res < 0)
		res = find_host_page(m, r, &h);
	um_mem_read_unlock(v->mem, token);
	if (res == UM_ACCESS_HOST && h.generation != um_mem_generation(v->mem))
		return RETRY;
	if (res >= 0) {
		/* Requests that came while the vCPU was out of the bracket. */
		if (unlikely(atomic_load(&m->tlb->flush))) {
			um_mmu_lock(m);
			um_vm_unlock(v);
		}
		return res;
	}

	um_mmu_lock(m);
	if (h.page)
		wait_for_notifier(m, h.page);
	if (v->released) {
		res = UM_ACCESS_HOST;
	} else if (h.generation != v->slots_generation ||
		   (h.page && h.seq != atomic_load(&v->notifier_seq))) {
		res = RETRY;
	} else {
		um_sp_make_room(v, FREE_FOR_FAULT);
		if (unlikely(atomic_load(&m->tlb->flush)))
			um_root_drop_invalid(m);
		if (!m->root && um_root_load(m, true) < 0)
			res = UM_ACCESS_HOST;
		else
			res = fetch(m, r, walked ? &w : NULL);
	}
	um_vm_unlock(v);
	/* Perhaps who changes slots is waiting for the lock, to tell the MMU. */
	if (res == RETRY)
		sched_yield();
	return res;
}

static enum um_access_result resolve(struct um_mmu *m, struct request *r)
{
	bool running = atomic_load_explicit(&m->tlb->running, memory_order_relaxed);
	int res = -1;

	/* Without the bracket nobody waits for us: shadow pages may be reused while we walk. */
	if (likely(running && m->root))
		res = fast(m, r);
	if (likely(res >= 0))
		return (enum um_access_result)res;

	um_mmu_lock(m);
	if (m->root) {
		res = fast(m, r);
		if (res < 0)
			res = fix_spte(m, r);
	}
	um_vm_unlock(m->vm);
	if (res >= 0)
		return (enum um_access_result)res;

	do
		res = slow_once(m, r);
	while (res == RETRY);
	return (enum um_access_result)res;
}

/* Note how far a large guest page reaches: INVLPG of any address in it concerns all of it. */
static void note_large(struct um_mmu *m, const struct um_walk *w, gva_t gva)
{
	u64 size = m->paging.fmt.pae ? level_pages(w->leaf) << UM_PAGE_SHIFT : BIT(22);
	gva_t lo = gva & ~(size - 1);

	m->large_lo = um_min(m->large_lo, lo);
	m->large_hi = um_max(m->large_hi, lo + size - 1);
}

/* tdp with paging: the guest's walk, then its result in the second dimension. */
static enum um_access_result resolve_tdp(struct um_mmu *m, struct request *r)
{
	struct um_mem *mem = m->vm->mem;
	unsigned token = um_mem_read_lock(mem);
	enum um_walk_result res;
	struct um_walk w;

	res = um_walk(mem, m->ring, &m->paging, m->cpu, r->f, &w);
	um_mem_read_unlock(mem, token);
	if (res == UM_WALK_FAULT)
		um_count(m->counters, pf_guest);
	if (res != UM_WALK_OK)
		return res == UM_WALK_FAULT ? UM_ACCESS_FAULT : UM_ACCESS_HOST;
	r->addr = w.gpa;
	r->combined = true;
	r->allowed = um_allowed(&m->paging, r->f->priv, w.access[w.leaf], w.pkey, m->cpu->fpu.pkru);
	if (!w.dirty)
		r->allowed &= ~(1u << UM_WRITE);
	/* An entry in a read-only slot can't be marked: the access is allowed all the same. */
	r->allowed |= r->bit;
	if (w.leaf > 1)
		note_large(m, &w, r->f->gva);
	return resolve(m, r);
}

/* Without side effects: what um_mmu_access() would say. */
static enum um_access_result probe(struct um_mmu *m, struct request *r)
{
	struct um_mem *mem = m->vm->mem;
	unsigned token = um_mem_read_lock(mem);
	enum um_access_result res = UM_ACCESS_OK;
	struct um_fault *f = r->f;
	struct um_slot *s;
	struct um_walk w;

	f->gpa = f->gva;
	if (m->paging.enabled) {
		switch (um_walk(mem, m->ring, &m->paging, m->cpu, f, &w)) {
		case UM_WALK_OK:
			break;
		case UM_WALK_FAULT:
			res = UM_ACCESS_FAULT;
			break;
		case UM_WALK_HOST:
			res = UM_ACCESS_HOST;
			break;
		}
	}
	if (res == UM_ACCESS_OK) {
		s = um_mem_slot(mem, um_cpu_as(m->cpu), f->gpa >> UM_PAGE_SHIFT);
		if (!s || (r->acc == UM_WRITE && (s->flags & KVM_MEM_READONLY)))
			res = UM_ACCESS_MMIO;
		else
			f->hva = (char *)um_slot_hva(s, f->gpa >> UM_PAGE_SHIFT) +
				 (f->gpa & ~UM_PAGE_MASK);
	}
	um_mem_read_unlock(mem, token);
	return res;
}

enum um_access_result um_mmu_access(struct um_mmu *m, struct um_fault *f)
{
	struct request r = { .f = f, .addr = f->gva };
	enum um_access_result res;

	r.acc = f->locked_rmw ? UM_WRITE : f->acc;
	r.bit = 1u << r.acc;
	f->error_code = 0;
	f->hva = NULL;
	f->write_protected = false;
	if (f->probe)
		return probe(m, &r);
	um_count(m->counters, tlb_misses);
	if (m->vm->cfg.tdp && m->paging.enabled)
		res = resolve_tdp(m, &r);
	else
		res = resolve(m, &r);
	um_trace(m->vm->trace, faults, "gva %#lx acc %d priv %d: %d gpa %#lx error %#x", f->gva,
		 f->acc, f->priv, res, f->gpa, f->error_code);
	return res;
}

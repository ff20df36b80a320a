// SPDX-License-Identifier: MIT
/*
 * vCPU contexts: which shadow root the TLB is filled from, and what control-register writes and the
 * instructions that flush do to it.
 *
 * A vCPU keeps the roots of the address spaces that it ran last, with their TLB context numbers.  Loading CR3
 * with one of them changes three numbers: neither its shadow pages nor its TLB entries are lost.  The flush that
 * loading CR3 implies is to synchronize the unsync pages under the root, often none: what is synchronized
 * is what a flushed TLB would be filled with again.
 *
 * The two address spaces that slots are in (role.smm) have roots of their own; entering and leaving
 * system-management mode is a change of the paging mode.
 *
 * Flushes of address spaces that aren't current (other PCIDs, all of them on MOV CR4) are only noted: need_sync.
 *
 * The kernel is the same in all address spaces, and says so: its pages are global (CR4.PGE).  So roots share one TLB context for
 * UM_PRIV_KERNEL, which survives switches between them; with SMAP that context has no user pages.  Only global
 * translations may get into it: a root that needs another kind there gets a context of its own, until its next one.  An
 * entry of the shared context may not have an spte in the current root, but it has one in some: dropping that one drops it (all
 * contexts forget the address).
 *
 * In two-dimensional mode nobody watches the guest's tables, so flushing means fresh context numbers.
 */
#include "mmu/mmu_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void update_mode(struct um_mmu *m)
{
	const struct um_paging *p = &m->paging;
	union um_role mode = { .access = ACC_ALL >> ACC_ROLE_SHIFT };
	bool tdp = m->vm->cfg.tdp;

	mode.smm = um_cpu_as(m->cpu);
	um_paging_init(&m->paging, m->cpu);
	m->direct = tdp || !p->enabled;
	if (m->direct) {
		mode.direct = 1;
		mode.dirty = 1;
		mode.level = !tdp ? 3 : p->fmt.maxphyaddr > 48 ? 5 : 4;
	} else {
		mode.level = p->levels;
		mode.cr4_pae = p->fmt.pae;
		mode.cr4_pse = !p->fmt.pae && p->fmt.pse;
		mode.efer_nx = p->fmt.nx;
		mode.efer_lma = p->fmt.lma;
	}
	m->mode = mode;
	m->root_level = mode.level;
}

static u64 pcid_of(const struct um_mmu *m)
{
	return m->cpu->cr4 & CR4_PCIDE ? m->cpu->cr3 & CR3_PCID : 0;
}

/* What tells address spaces apart. */
static u64 root_key(const struct um_mmu *m)
{
	if (!m->paging.enabled)
		return 0;
	return (m->cpu->cr3 & (m->paging.pae_root ? GENMASK(31, 5) : GPTE_ADDR)) | pcid_of(m);
}

static bool pdptrs_match(const struct um_mmu *m, const struct um_root *r)
{
	return !m->paging.pae_root || m->direct ||
	       !memcmp(r->pdptr, m->cpu->pdptr, sizeof(r->pdptr));
}

static struct um_root *find_root(struct um_mmu *m)
{
	u64 key = root_key(m);

	for (unsigned i = 0; i < MMU_ROOTS; i++) {
		struct um_root *r = &m->roots[i];

		if (r->valid && r->key == key && r->mode.word == m->mode.word && pdptrs_match(m, r))
			return r;
	}
	return NULL;
}

static bool root_zapped(const struct um_root *r)
{
	for (unsigned i = 0; i < 4; i++) {
		if (r->sp[i] && r->sp[i]->zapped)
			return true;
	}
	return false;
}

static bool root_has_unsync(const struct um_root *r)
{
	for (unsigned i = 0; i < 4; i++) {
		if (r->sp[i] && READ_ONCE(r->sp[i]->unsync_children))
			return true;
	}
	return false;
}

/* The TLB now has the contexts of no root. */
static void unset_root(struct um_mmu *m)
{
	struct um_root *r = m->root;

	if (!r)
		return;
	memcpy(r->ctx, m->tlb->ctx, sizeof(r->ctx));
	r->epoch = m->tlb->epoch;
	m->root = NULL;
}

/* Kept by the TLB while @r is the root. */
static void note_contexts(struct um_mmu *m, struct um_root *r)
{
	memcpy(r->ctx, m->tlb->ctx, sizeof(r->ctx));
	r->epoch = m->tlb->epoch;
}

/* Use the shared context for @r's kernel, if that may be. */
static void share(struct um_mmu *m, struct um_root *r)
{
	struct um_tlb *t = m->tlb;

	if (r->own_kernel || !m->paging.enabled || m->direct || !(m->cpu->cr4 & CR4_PGE))
		return;
	if (m->shared_epoch != t->epoch || m->shared_mode.word != r->mode.word) {
		um_tlb_new_context(t); /* nothing else is in it */
		m->shared_ctx = t->ctx[UM_PRIV_KERNEL];
		m->shared_epoch = t->epoch;
		m->shared_mode = r->mode;
	}
	t->ctx[UM_PRIV_KERNEL] = m->shared_ctx;
}

bool um_root_shared(const struct um_mmu *m)
{
	return m->tlb->ctx[UM_PRIV_KERNEL] == m->shared_ctx && m->tlb->epoch == m->shared_epoch;
}

void um_root_unshare(struct um_mmu *m)
{
	m->root->own_kernel = true;
	um_tlb_new_context(m->tlb);
	note_contexts(m, m->root);
}

void um_root_renew(struct um_mmu *m)
{
	bool shared = um_root_shared(m);

	m->tlb->seq++;
	um_tlb_new_context(m->tlb);
	if (shared && m->root)
		share(m, m->root); /* (the numbers may have started over: then it is another) */
}

void um_root_forget_idle(struct um_mmu *m)
{
	for (unsigned i = 0; i < MMU_ROOTS; i++) {
		if (&m->roots[i] != m->root)
			m->roots[i].epoch = m->tlb->epoch - 1;
	}
}

static void set_root(struct um_mmu *m, struct um_root *r)
{
	unset_root(m);
	m->root = r;
	r->used = ++m->clock;
	if (r->epoch == m->tlb->epoch && r->ctx[0]) {
		memcpy(m->tlb->ctx, r->ctx, sizeof(r->ctx));
	} else {
		um_tlb_new_context(m->tlb);
		r->own_kernel = false;
	}
	share(m, r);
	note_contexts(m, r);
}

static void drop_root(struct um_mmu *m, struct um_root *r)
{
	if (m->root == r) {
		m->root = NULL;
		um_tlb_new_context(m->tlb);
	}
	for (unsigned i = 0; i < 4; i++) {
		if (r->sp[i])
			um_sp_put_root(m->vm, r->sp[i]);
	}
	memset(r, 0, sizeof(*r));
}

/* Some root was zapped (lock held): let go of those of @m. */
void um_root_drop_invalid(struct um_mmu *m)
{
	for (unsigned i = 0; i < MMU_ROOTS; i++) {
		if (m->roots[i].valid && root_zapped(&m->roots[i]))
			drop_root(m, &m->roots[i]);
	}
}

/* Let go of all roots of @m but the current one. */
void um_root_drop_idle(struct um_mmu *m)
{
	for (unsigned i = 0; i < MMU_ROOTS; i++) {
		if (m->roots[i].valid && &m->roots[i] != m->root)
			drop_root(m, &m->roots[i]);
	}
}

static struct um_root *oldest_root(struct um_mmu *m)
{
	struct um_root *best = NULL;

	for (unsigned i = 0; i < MMU_ROOTS; i++) {
		struct um_root *r = &m->roots[i];

		if (!r->valid)
			return r;
		if (r != m->root && (!best || r->used < best->used))
			best = r;
	}
	return best;
}

static struct um_root *make_root(struct um_mmu *m)
{
	struct um_mmu_vm *v = m->vm;
	bool four = !m->direct && m->root_level == 2;
	struct um_root *r = oldest_root(m);

	drop_root(m, r);
	r->valid = true;
	r->key = root_key(m);
	r->mode = m->mode;
	memcpy(r->pdptr, m->cpu->pdptr, sizeof(r->pdptr));
	for (unsigned i = 0; i < (four ? 4 : 1); i++) {
		union um_role role = m->mode;
		gfn_t gfn = 0;

		if (m->paging.pae_root && !m->direct) {
			if (!(r->pdptr[i] & GPTE_PRESENT))
				continue;
			gfn = (r->pdptr[i] & GPTE_ADDR) >> UM_PAGE_SHIFT;
		} else if (!m->direct) {
			gfn = (m->cpu->cr3 & (m->paging.fmt.lma ? GPTE_ADDR : GENMASK(31, 12))) >>
			      UM_PAGE_SHIFT;
			role.quadrant = four ? i : 0;
		}
		r->sp[i] = um_sp_get(v, gfn, role, (gva_t)i << 30);
		if (!r->sp[i]) {
			drop_root(m, r);
			return NULL;
		}
		r->sp[i]->root_count++;
	}
	return r;
}

/*
 * Make the root for the vCPU's registers the current one, synchronized if @sync (it always is if it was not among
 * the vCPU's roots).  The lock is held, and there is room for its pages.  0 or -ENOMEM.
 */
int um_root_load(struct um_mmu *m, bool sync)
{
	struct um_root *r = find_root(m);

	m->vm->cpu_format = m->paging.fmt;
	if (r && root_zapped(r)) {
		drop_root(m, r);
		r = NULL;
	}
	unset_root(m);
	if (r) {
		um_count(m->counters, mmu_root_reused);
	} else {
		r = make_root(m);
		if (!r)
			return -ENOMEM;
		sync = true;
	}
	if (sync || r->need_sync) {
		for (unsigned i = 0; i < 4; i++) {
			if (r->sp[i])
				um_sync_children(m->vm, r->sp[i]);
		}
		if (m->vm->cfg.tdp)
			r->epoch = m->tlb->epoch - 1;
		r->need_sync = false;
	}
	set_root(m, r);
	return 0;
}

static void load_root(struct um_mmu *m, bool sync)
{
	um_mmu_lock(m);
	um_sp_make_room(m->vm, 4);
	/* If there is no memory, the next access tries again, and reports it. */
	if (um_root_load(m, sync) < 0)
		um_tlb_new_context(m->tlb);
	um_vm_unlock(m->vm);
}

void um_mmu_new_cr3(struct um_mmu *m, bool flush)
{
	struct um_root *r;
	u64 pcid = pcid_of(m);

	um_trace(m->vm->trace, cr, "cr3 %#lx%s", m->cpu->cr3, flush ? "" : " (no flush)");
	if (m->direct && !m->vm->cfg.tdp)
		return; /* not paging: CR3 means nothing yet */
	if (flush && (m->cpu->cr4 & CR4_PCIDE)) {
		for (unsigned i = 0; i < MMU_ROOTS; i++) {
			if ((m->roots[i].key & CR3_PCID) == pcid)
				m->roots[i].need_sync = true;
		}
	}
	if (flush && m->vm->cfg.tdp && !(m->cpu->cr4 & CR4_PCIDE)) {
		m->large_lo = ~0ull;
		m->large_hi = 0;
	}
	r = find_root(m);
	if (likely(r && atomic_load_explicit(&m->tlb->running, memory_order_relaxed) &&
		   !m->vm->cfg.tdp && !root_zapped(r) &&
		   !((flush || r->need_sync) && root_has_unsync(r)))) {
		um_count(m->counters, mmu_root_reused);
		if (m->root != r)
			set_root(m, r);
		r->used = ++m->clock;
		r->need_sync = false;
		return;
	}
	load_root(m, flush);
}

static void need_sync_all(struct um_mmu *m)
{
	for (unsigned i = 0; i < MMU_ROOTS; i++)
		m->roots[i].need_sync = true;
	m->large_lo = ~0ull;
	m->large_hi = 0;
}

void um_mmu_reset_context(struct um_mmu *m)
{
	need_sync_all(m);
	unset_root(m);
	um_count(m->counters, tlb_flushes);
	um_tlb_flush(m->tlb);
	update_mode(m);
	load_root(m, true);
	m->pkru = m->cpu->fpu.pkru;
}

void um_mmu_flush_all(struct um_mmu *m)
{
	um_mmu_reset_context(m);
}

void um_mmu_rights_changed(struct um_mmu *m)
{
	if (m->pkru != m->cpu->fpu.pkru) {
		m->pkru = m->cpu->fpu.pkru;
		if (m->paging.pke) {
			um_count(m->counters, tlb_flushes);
			um_tlb_flush(m->tlb);
		}
	}
	/* Pages that are watched now must not have entries; others may stay without. */
	for (unsigned i = 0; i < 4; i++) {
		if (DR7_ENABLED(m->cpu->dr7, i))
			um_tlb_flush_page(m->tlb, m->cpu->dr[i]);
	}
}

/* The level-1 page of @r that translates @gva, if there is one and it is unsync. */
static struct um_shadow_page *unsync_page_at(const struct um_mmu *m, const struct um_root *r,
					     gva_t gva)
{
	unsigned level = r->mode.level;
	struct um_shadow_page *sp = r->sp[level == 2 ? (gva >> 30) & 3 : 0];

	for (; sp && level > 1; level--) {
		u64 spte = READ_ONCE(sp->spt[spt_index(gva, level)]);

		if (!spte_nonleaf(spte, level))
			return NULL;
		sp = um_sptep_page(spte_child(spte));
	}
	return sp && READ_ONCE(sp->unsync) ? sp : NULL;
}

static void sync_gva(struct um_mmu *m, struct um_root *r, gva_t gva)
{
	struct um_shadow_page *sp;

	if (atomic_load_explicit(&m->tlb->running, memory_order_relaxed) &&
	    !unsync_page_at(m, r, gva))
		return;
	um_mmu_lock(m);
	/* The lock may have taken a request that dropped the root. */
	if (r->valid) {
		sp = unsync_page_at(m, r, gva);
		if (sp)
			um_sync_entry(m->vm, sp, spt_index(gva, 1), r == m->root);
	}
	um_vm_unlock(m->vm);
}

static void invalidate_gva(struct um_mmu *m, gva_t gva, bool all_roots)
{
	um_tlb_flush_page(m->tlb, gva);
	if (m->direct) {
		if (gva >= m->large_lo && gva <= m->large_hi) {
			um_count(m->counters, tlb_flushes);
			um_tlb_flush(m->tlb);
			m->large_lo = ~0ull;
			m->large_hi = 0;
		}
		return;
	}
	for (unsigned i = 0; i < MMU_ROOTS; i++) {
		struct um_root *r = &m->roots[i];

		if (r->valid && !r->mode.direct && (all_roots || r == m->root))
			sync_gva(m, r, gva);
	}
}

void um_mmu_invlpg(struct um_mmu *m, gva_t gva)
{
	um_count(m->counters, invlpg);
	/*
	 * Global translations go in all PCIDs, so roots that may come back without a flush count too; without
	 * PCIDs each is synchronized when it is loaded.
	 */
	invalidate_gva(m, gva, m->cpu->cr4 & CR4_PCIDE);
}

void um_mmu_invpcid(struct um_mmu *m, unsigned type, u64 pcid, gva_t gva)
{
	um_count(m->counters, invlpg);
	switch (type) {
	case 0: /* one address in one PCID */
		invalidate_gva(m, gva, true);
		return;
	case 1: /* one PCID */
		for (unsigned i = 0; i < MMU_ROOTS; i++) {
			if ((m->roots[i].key & CR3_PCID) == pcid)
				m->roots[i].need_sync = true;
		}
		if (pcid == pcid_of(m))
			load_root(m, true);
		return;
	default: /* everything, with or without global translations */
		um_mmu_reset_context(m);
		return;
	}
}

int um_mmu_load_pdptrs(struct um_mmu *m, u64 cr3, u64 pdptr[4])
{
	/* SDM vol. 3 table 4-8: bits 2:1, 8:5 and those from MAXPHYADDR on are reserved. */
	u64 reserved = GENMASK(2, 1) | GENMASK(8, 5) |
		       GENMASK(63, m->cpu->maxphyaddr ? m->cpu->maxphyaddr : 36);
	u64 v[4];

	if (um_mem_read(m->vm->mem, um_cpu_as(m->cpu), cr3 & GENMASK(31, 5), v, sizeof(v)))
		return -EFAULT;
	for (unsigned i = 0; i < 4; i++) {
		if ((v[i] & GPTE_PRESENT) && (v[i] & reserved))
			return 1;
	}
	memcpy(pdptr, v, sizeof(v));
	return 0;
}

struct um_tlb *um_mmu_tlb(struct um_mmu *m)
{
	return m->tlb;
}

struct um_mmu *um_mmu_create(struct um_mmu_vm *v, struct um_cpu *cpu, struct um_counters *counters,
			     void (*kick)(void *opaque), void *opaque)
{
	struct um_mmu *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->tlb = aligned_alloc(64, sizeof(*m->tlb));
	if (!m->tlb) {
		free(m);
		return NULL;
	}
	um_tlb_init(m->tlb);
	m->vm = v;
	m->cpu = cpu;
	m->counters = counters ? counters : v->counters;
	m->kick = kick;
	m->opaque = opaque;
	m->large_lo = ~0ull;
	update_mode(m);
	um_vm_lock(v);
	m->next = v->mmus;
	v->mmus = m;
	um_vm_unlock(v);
	return m;
}

void um_mmu_set_dirty_ring(struct um_mmu *m, struct um_dirty_ring *ring)
{
	m->ring = ring;
}

void um_mmu_destroy(struct um_mmu *m)
{
	struct um_mmu_vm *v = m->vm;
	struct um_mmu **p;

	um_vm_lock(v);
	for (p = &v->mmus; *p != m; p = &(*p)->next)
		;
	*p = m->next;
	for (unsigned i = 0; i < MMU_ROOTS; i++) {
		if (m->roots[i].valid)
			drop_root(m, &m->roots[i]);
	}
	um_vm_unlock(v);
	free(m->tlb);
	free(m);
}

struct um_mmu_vm *um_mmu_vm_create(struct um_mem *mem, const struct um_mmu_config *cfg)
{
	struct um_mmu_vm *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->cfg = *cfg;
	v->mem = mem;
	v->counters = cfg->counters ? cfg->counters : &v->own_counters;
	v->trace = cfg->trace ? cfg->trace : &v->no_trace;
	v->limit = MIN_MMU_PAGES;
	CDS_INIT_LIST_HEAD(&v->active);
	CDS_INIT_LIST_HEAD(&v->zapped);
	CDS_INIT_LIST_HEAD(&v->free);
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->notifier_done, NULL);
	um_listener_init(v);
	return v;
}

void um_mmu_vm_destroy(struct um_mmu_vm *v)
{
	um_vm_lock(v);
	um_sp_zap_all(v);
	um_vm_unlock(v);
	if (v->cfg.audit)
		um_audit_summary(v);
	um_mem_remove_listener(v->mem, &v->listener);
	um_sp_free_pool(v);
	um_ptelist_free_blocks(v);
	pthread_cond_destroy(&v->notifier_done);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

// SPDX-License-Identifier: MIT
/*
 * The auditor: recomputes from scratch everything that the MMU keeps incrementally, and compares.
 *
 *  1. Every present leaf spte is what the guest's entry (or the linear range) and the slot say, or its page is
 *     unsync.  Its word obeys mmu/spte.h.
 *  2. rmap and sptes agree, both ways; so do lists of parents and nonleaf sptes.
 *  3. No storable spte maps a frame that a synchronized page shadows, in whichever address space.  A page has
 *     children of its own address space only.
 *  4. Unsync bitmaps and counts are exact; so are present counts, root counts, the counts of shadowed frames
 *     and the number of pages.
 *  5. Every TLB entry with a context in use is implied by a leaf spte: accessed, with the rights of its tag,
 *     dirty if it allows writing, not watched.
 *
 * It looks at the TLBs of the vCPU that holds the lock and of those that don't run; entries of a vCPU that
 * has a flush pending don't count.
 *
 * A vCPU stores to a shadowed table and then tells the MMU (um_mmu_written()), and an audit by another thread may
 * come between the two: rule 1 does not count for tables that a vCPU is storing to.
 */
#include "mmu/mmu_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

struct audit {
	struct um_mmu_vm *v;
	char *why;
	size_t size;
	unsigned bad;
};

static void __attribute__((format(printf, 2, 3))) violation(struct audit *a, const char *fmt, ...)
{
	va_list ap;

	if (a->bad++ || !a->size)
		return;
	va_start(ap, fmt);
	vsnprintf(a->why, a->size, fmt, ap);
	va_end(ap);
}

#define PAGE_FMT     "page(level %u gfn %#lx role %#x)"
#define PAGE_ARG(sp) (sp)->role.level, (sp)->gfn, (sp)->role.word

static bool on_list(const struct um_ptelist *l, const u64 *sptep)
{
	struct um_ptelist_cursor pos = { 0 };
	u64 *p;

	while ((p = um_ptelist_next(l, &pos))) {
		if (p == sptep)
			return true;
	}
	return false;
}

/* May a vCPU have stored to the table that @sp shadows, and not have told yet? */
static bool being_stored_to(struct um_mmu_vm *v, const struct um_shadow_page *sp)
{
	for (struct um_mmu *m = v->mmus; m; m = m->next) {
		for (unsigned n = 0; n < ARRAY_SIZE(m->storing); n++) {
			if (atomic_load(&m->storing[n]) == sp->gfn + 1)
				return true;
		}
	}
	return false;
}

/* Does the guest's entry for leaf @i of indirect @sp still say what the spte says? */
static void check_gpte(struct audit *a, struct um_shadow_page *sp, unsigned i, u64 spte)
{
	struct um_slot *table = um_vm_slot(a->v, sp->role.smm, sp->gfn);
	unsigned level = sp->role.level;
	struct um_gpte_format f;
	gfn_t gfn;
	u64 gpte;

	if (sp->unsync || being_stored_to(a->v, sp))
		return;
	um_sp_format(a->v, sp, &f);
	if (!um_sp_read_gpte(a->v, sp, i, &gpte)) {
		violation(a, PAGE_FMT "[%u]: spte %#lx without a guest table", PAGE_ARG(sp), i,
			  spte);
		return;
	}
	if (!(gpte & GPTE_PRESENT) || um_gpte_reserved(&f, gpte, level) ||
	    (level > 1 && !um_gpte_large(&f, gpte, level))) {
		violation(a, PAGE_FMT "[%u]: spte %#lx, gpte %#lx", PAGE_ARG(sp), i, spte, gpte);
		return;
	}
	gfn = um_gpte_gfn(&f, gpte, level);
	/* A 4M entry is shadowed by two sptes. */
	if (!f.pae && level == 2)
		gfn += (i & 1) * level_pages(2);
	if (gfn != um_sp_gfn(sp, i))
		violation(a, PAGE_FMT "[%u]: gfn %#lx, gpte %#lx", PAGE_ARG(sp), i,
			  um_sp_gfn(sp, i), gpte);
	if ((um_gpte_access(&f, gpte) & role_access(sp->role)) != (spte & SPTE_RIGHTS))
		violation(a, PAGE_FMT "[%u]: rights of spte %#lx, gpte %#lx", PAGE_ARG(sp), i, spte,
			  gpte);
	if (f.lma && spte_pkey(gpte) != spte_pkey(spte))
		violation(a, PAGE_FMT "[%u]: key of spte %#lx, gpte %#lx", PAGE_ARG(sp), i, spte,
			  gpte);
	if (!(gpte & GPTE_GLOBAL) != !(spte & SPTE_GLOBAL))
		violation(a, PAGE_FMT "[%u]: global bit of spte %#lx, gpte %#lx", PAGE_ARG(sp), i,
			  spte, gpte);
	if ((spte & SPTE_MMU_WRITABLE) && !(gpte & GPTE_DIRTY) &&
	    !(table->flags & KVM_MEM_READONLY))
		violation(a, PAGE_FMT "[%u]: writable spte %#lx, clean gpte %#lx", PAGE_ARG(sp), i,
			  spte, gpte);
}

static bool synced_table(struct um_mmu_vm *v, gfn_t gfn)
{
	struct um_shadow_page *sp;

	um_for_each_table(sp, v, gfn)
	{
		if (!sp->unsync)
			return true;
	}
	return false;
}

static void check_leaf(struct audit *a, struct um_shadow_page *sp, unsigned i)
{
	unsigned level = sp->role.level;
	gfn_t gfn = um_sp_gfn(sp, i);
	struct um_slot *s = um_vm_slot(a->v, sp->role.smm, gfn);
	struct um_ptelist *l = s ? um_rmap(a->v, s->as, gfn, level) : NULL;
	u64 spte = sp->spt[i];

	if (!spte_leaf_valid(spte))
		violation(a, PAGE_FMT "[%u]: spte %#lx is malformed", PAGE_ARG(sp), i, spte);
	if (level > MAX_LEAF_LEVEL || !!(spte & SPTE_LARGE) != (level > 1))
		violation(a, PAGE_FMT "[%u]: leaf %#lx at this level", PAGE_ARG(sp), i, spte);
	if (!s || spte_hva(spte) != um_slot_hva(s, gfn) ||
	    gfn + level_pages(level) > s->base + s->npages) {
		violation(a, PAGE_FMT "[%u]: spte %#lx is not where gfn %#lx is", PAGE_ARG(sp), i,
			  spte, gfn);
		return;
	}
	if (!on_list(l, &sp->spt[i]))
		violation(a, PAGE_FMT "[%u]: not in the rmap of gfn %#lx", PAGE_ARG(sp), i, gfn);
	if (!(sp->slot_bitmap & BIT(s->id % 64)))
		violation(a, PAGE_FMT "[%u]: slot %u not in the bitmap", PAGE_ARG(sp), i, s->id);
	if (!(s->flags & KVM_MEM_READONLY) != !!(spte & SPTE_HOST_WRITABLE))
		violation(a, PAGE_FMT "[%u]: host-writable bit of %#lx", PAGE_ARG(sp), i, spte);
	if ((spte & SPTE_DIRTY) && s->dirty && level > 1)
		violation(a, PAGE_FMT "[%u]: writable large spte in a logged slot", PAGE_ARG(sp),
			  i);
	if ((spte & SPTE_DIRTY) && s->dirty &&
	    !(s->dirty[(gfn - s->base) / 64] & BIT((gfn - s->base) % 64)) &&
	    !um_mem_clearing(a->v->mem))
		violation(a, PAGE_FMT "[%u]: dirty spte, clean log for gfn %#lx", PAGE_ARG(sp), i,
			  gfn);
	if (spte & SPTE_MMU_WRITABLE) {
		for (u64 k = 0; k < level_pages(level); k++) {
			if (um_gfn_shadowed(a->v, s->as, gfn + k) && synced_table(a->v, gfn + k))
				violation(a, PAGE_FMT "[%u]: table %#lx isn't write-protected",
					  PAGE_ARG(sp), i, gfn + k);
		}
	}
	if (!sp->role.direct) {
		check_gpte(a, sp, i, spte);
	} else if ((spte & SPTE_RIGHTS) != role_access(sp->role) ||
		   spte_pkey(spte) != sp->role.pkey || !!(spte & SPTE_GLOBAL) != sp->role.global ||
		   ((spte & SPTE_MMU_WRITABLE) && !sp->role.dirty)) {
		violation(a, PAGE_FMT "[%u]: rights of %#lx in a direct page", PAGE_ARG(sp), i,
			  spte);
	}
}

/* What child a nonleaf spte of an indirect page must have is in the guest's entry. */
static void check_nonleaf_gpte(struct audit *a, struct um_shadow_page *sp, unsigned i,
			       struct um_shadow_page *child)
{
	unsigned level = sp->role.level;
	struct um_gpte_format f;
	u64 gpte, access;
	gfn_t gfn;

	if (sp->role.direct || being_stored_to(a->v, sp))
		return;
	um_sp_format(a->v, sp, &f);
	if (!um_sp_read_gpte(a->v, sp, i, &gpte) || !(gpte & GPTE_PRESENT) ||
	    um_gpte_reserved(&f, gpte, level)) {
		violation(a, PAGE_FMT "[%u]: child without a guest entry", PAGE_ARG(sp), i);
		return;
	}
	if (um_gpte_large(&f, gpte, level)) {
		gfn = um_gpte_gfn(&f, gpte, level);
		if (!f.pae)
			gfn += (i & 1) * level_pages(2);
	} else {
		gfn = (gpte & (f.pae ? GPTE_ADDR : GENMASK(31, 12))) >> UM_PAGE_SHIFT;
	}
	access = um_gpte_access(&f, gpte) & role_access(sp->role);
	if (child->gfn != gfn || role_access(child->role) != access ||
	    child->role.direct != um_gpte_large(&f, gpte, level))
		violation(a, PAGE_FMT "[%u]: child gfn %#lx role %#x, gpte %#lx", PAGE_ARG(sp), i,
			  child->gfn, child->role.word, gpte);
}

static void check_nonleaf(struct audit *a, struct um_shadow_page *sp, unsigned i)
{
	struct um_shadow_page *child = um_sptep_page(spte_child(sp->spt[i]));
	bool bit = sp->unsync_child_bitmap[i / 64] & BIT(i % 64);

	if (child->zapped || child->role.level != sp->role.level - 1 ||
	    child->role.smm != sp->role.smm)
		violation(a, PAGE_FMT "[%u]: child of level %u, smm %u%s", PAGE_ARG(sp), i,
			  child->role.level, child->role.smm, child->zapped ? ", zapped" : "");
	if (!on_list(&child->parents, &sp->spt[i]))
		violation(a, PAGE_FMT "[%u]: not among its child's parents", PAGE_ARG(sp), i);
	if (bit != (child->unsync || child->unsync_children))
		violation(a, PAGE_FMT "[%u]: unsync bit is %d", PAGE_ARG(sp), i, bit);
	if (sp->gva_known && !sp->gva_multi && !child->gva_multi &&
	    child->gva != sp->gva + ((gva_t)i * level_pages(sp->role.level) << UM_PAGE_SHIFT))
		violation(a, PAGE_FMT "[%u]: child believes to be at %#lx", PAGE_ARG(sp), i,
			  child->gva);
	if (sp->gva_multi && !child->gva_multi)
		violation(a, PAGE_FMT "[%u]: child believes to be at one place", PAGE_ARG(sp), i);
	check_nonleaf_gpte(a, sp, i, child);
}

static void check_page(struct audit *a, struct um_shadow_page *sp)
{
	struct um_ptelist_cursor pos = { 0 };
	unsigned present = 0, bits = 0;
	u64 *p;

	for (unsigned i = 0; i < SPTES_PER_PAGE; i++) {
		u64 spte = sp->spt[i];

		present += spte != 0;
		if (spte_nonleaf(spte, sp->role.level))
			check_nonleaf(a, sp, i);
		else if (spte_leaf(spte, sp->role.level))
			check_leaf(a, sp, i);
		else if (sp->unsync_child_bitmap[i / 64] & BIT(i % 64))
			violation(a, PAGE_FMT "[%u]: unsync bit without a child", PAGE_ARG(sp), i);
		else if (spte && !spte_mmio(spte))
			violation(a, PAGE_FMT "[%u]: spte %#lx", PAGE_ARG(sp), i, spte);
	}
	for (unsigned w = 0; w < ARRAY_SIZE(sp->unsync_child_bitmap); w++)
		bits += (unsigned)__builtin_popcountll(sp->unsync_child_bitmap[w]);
	if (present != sp->nr_present)
		violation(a, PAGE_FMT ": %u sptes, %u counted", PAGE_ARG(sp), present,
			  sp->nr_present);
	if (bits != sp->unsync_children)
		violation(a, PAGE_FMT ": %u unsync children, %u counted", PAGE_ARG(sp), bits,
			  sp->unsync_children);
	if (sp->unsync && (sp->role.level > 1 || sp->role.direct))
		violation(a, PAGE_FMT ": unsync", PAGE_ARG(sp));
	if (sp->role.invalid || sp->zapped)
		violation(a, PAGE_FMT ": dead page in use", PAGE_ARG(sp));
	for (unsigned as = 0; !sp->role.direct && as < UM_NR_AS; as++) {
		if (!(sp->accounted & BIT(as)) != !um_vm_slot(a->v, as, sp->gfn))
			violation(a, PAGE_FMT ": accounted in address spaces %#x", PAGE_ARG(sp),
				  sp->accounted);
	}
	if (um_sp_lookup(a->v, sp->gfn, sp->role) != sp)
		violation(a, PAGE_FMT ": not in the hash, or twice", PAGE_ARG(sp));
	while ((p = um_ptelist_next(&sp->parents, &pos))) {
		if (spte_child(*p) != sp->spt || !spte_nonleaf(*p, sp->role.level + 1))
			violation(a, PAGE_FMT ": parent %#lx points elsewhere", PAGE_ARG(sp), *p);
	}
}

static void check_slots(struct audit *a)
{
	struct um_slot *s;
	unsigned as, n;

	um_for_each_slot(a->v, as, n, s)
	{
		struct um_slot_mmu *arch = s->arch;

		for (unsigned level = 1; level <= MAX_LEAF_LEVEL; level++) {
			u64 end = um_slot_index(arch, s->base + s->npages - 1, level);

			for (u64 i = 0; i <= end; i++) {
				struct um_ptelist_cursor pos = { 0 };
				u64 *p;

				while ((p = um_ptelist_next(&arch->rmap[level][i], &pos))) {
					struct um_shadow_page *sp = um_sptep_page(p);

					if (!spte_leaf(*p, level) || sp->role.level != level ||
					    sp->role.smm != as ||
					    um_slot_index(arch, um_sp_gfn(sp, um_sptep_index(p)),
							  level) != i)
						violation(a,
							  "rmap of slot %u level %u frame %#lx: "
							  "spte %#lx isn't such a leaf",
							  s->id, level, i, *p);
				}
			}
		}
		for (u64 i = 0; i < s->npages; i++) {
			struct um_shadow_page *sp;
			unsigned pages = 0;

			if (!arch->shadowed[i] && !um_sp_first_of(a->v, s->base + i))
				continue;
			um_for_each_table(sp, a->v, s->base + i) pages++;
			if (pages != arch->shadowed[i])
				violation(a, "gfn %#lx: %u shadow pages, %u counted", s->base + i,
					  pages, arch->shadowed[i]);
		}
	}
}

static unsigned roots_of(struct um_mmu_vm *v, const struct um_shadow_page *sp)
{
	unsigned n = 0;

	for (struct um_mmu *m = v->mmus; m; m = m->next) {
		for (unsigned r = 0; r < MMU_ROOTS; r++) {
			for (unsigned i = 0; m->roots[r].valid && i < 4; i++)
				n += m->roots[r].sp[i] == sp;
		}
	}
	return n;
}

/* The leaf that @root has for @addr, 0 if none. */
static u64 leaf_at(const struct um_root *root, u64 addr, unsigned *levelp)
{
	unsigned level = root->mode.level;
	struct um_shadow_page *sp = root->sp[level == 2 ? (addr >> 30) & 3 : 0];
	u64 spte;

	for (; sp; level--) {
		spte = sp->spt[spt_index(addr, level)];
		if (!spte_nonleaf(spte, level)) {
			*levelp = level;
			return spte_leaf(spte, level) ? spte : 0;
		}
		sp = um_sptep_page(spte_child(spte));
	}
	return 0;
}

/* tdp: some accessed spte maps the host page that the entry leads to. */
static bool any_leaf_to(struct um_mmu_vm *v, const struct um_root *root, hva_t page, bool write)
{
	const struct um_slots *t = v->slots[root->mode.smm];

	for (unsigned i = 0; i < t->n; i++) {
		const struct um_slot *s = t->slot[i];
		unsigned level;
		u64 spte;

		if (page - s->hva >= s->npages << UM_PAGE_SHIFT)
			continue;
		spte = leaf_at(root, (s->base << UM_PAGE_SHIFT) + (page - s->hva), &level);
		if ((spte & SPTE_ACCESSED) && (!write || spte_store_ok(spte)))
			return true;
	}
	return false;
}

/* Does the leaf @spte of @level, or 0, imply a TLB entry for @gva with host page @page? */
static bool implies(u64 spte, unsigned level, gva_t gva, hva_t page)
{
	return (spte & SPTE_ACCESSED) &&
	       page == spte_hva(spte) + (gva & ((level_pages(level) << UM_PAGE_SHIFT) - 1));
}

/*
 * The same of any root, which allows storing if @write: what an entry of the shared context needs.  (Roots may have leaves of their own,
 * as with 4 MiB pages, and not all need be dirty.)  0: none.
 */
static u64 leaf_anywhere(struct um_mmu_vm *v, unsigned smm, gva_t gva, hva_t page, bool write)
{
	struct um_shadow_page *sp;

	cds_list_for_each_entry(sp, &v->active, lru) {
		unsigned level = sp->role.level;
		u64 spte = sp->spt[spt_index(gva, level)], span = level_span(level)
								  << UM_PAGE_SHIFT;
		bool there = sp->gva_multi || !sp->gva_known ||
			     !((sp->gva ^ gva) & GENMASK(47, 12) & ~(span - 1));

		if (there && sp->role.smm == smm && spte_leaf(spte, level) &&
		    implies(spte, level, gva, page) && (!write || spte_store_ok(spte)))
			return spte;
	}
	return 0;
}

static void check_entry(struct audit *a, struct um_mmu *m, const struct um_root *root,
			const struct um_tlb_entry *e, enum um_access acc, enum um_tlb_priv priv)
{
	gva_t gva = e->tag[acc] & UM_PAGE_MASK;
	hva_t page = gva + e->addend;
	bool shared =
		(e->tag[acc] & ~UM_PAGE_MASK) == m->shared_ctx && m->tlb->epoch == m->shared_epoch;
	unsigned level = 1, ok;
	u64 spte;

	if (acc != UM_FETCH && um_mmu_watched(m->cpu, gva))
		violation(a, "TLB: %#lx is watched", gva);
	if (acc == UM_WRITE && !*um_tlb_written(m->tlb, page))
		violation(a, "TLB: %#lx is not noted as written", gva);
	if (a->v->cfg.tdp) {
		if (!any_leaf_to(a->v, root, page, acc == UM_WRITE))
			violation(a, "TLB: no spte for %#lx, access %d", gva, acc);
		return;
	}
	spte = leaf_at(root, gva, &level);
	if (!implies(spte, level, gva, page))
		spte = 0;
	if (shared && (!spte || (acc == UM_WRITE && !spte_store_ok(spte))))
		spte = leaf_anywhere(a->v, root->mode.smm, gva, page, acc == UM_WRITE);
	if (!spte) {
		violation(a, "TLB: %#lx -> %#lx, spte %#lx", gva, page, leaf_at(root, gva, &level));
		return;
	}
	if (shared && !(spte & SPTE_GLOBAL))
		violation(a, "TLB: %#lx is shared, spte %#lx isn't global", gva, spte);
	ok = um_allowed(&m->paging, priv, spte & SPTE_RIGHTS, spte_pkey(spte), m->cpu->fpu.pkru);
	if (!(ok & (1u << acc)) || (acc == UM_WRITE && !spte_store_ok(spte)))
		violation(a, "TLB: %#lx allows access %d priv %d, spte %#lx", gva, acc, priv, spte);
}

static void check_tlb(struct audit *a, struct um_mmu *m)
{
	const struct um_tlb *t = m->tlb;

	if (atomic_load(&t->flush) || (m != a->v->owner && atomic_load(&t->running)))
		return;
	for (unsigned n = 0; n < MMU_ROOTS; n++) {
		struct um_root *root = &m->roots[n];
		const u16 *ctx = root == m->root ? t->ctx : root->ctx;

		/* Entries of another paging mode can't come back: changing the mode flushes. */
		if (!root->valid || (root != m->root && root->epoch != t->epoch) ||
		    root->mode.word != m->mode.word)
			continue;
		for (unsigned i = 0; i < UM_TLB_ENTRIES; i++) {
			const struct um_tlb_entry *e = &t->e[i];

			for (unsigned acc = 0; acc < 3; acc++) {
				for (unsigned p = 0; p < UM_NR_PRIVS; p++) {
					if (e->tag[acc] && (e->tag[acc] & ~UM_PAGE_MASK) == ctx[p])
						check_entry(a, m, root, e, (enum um_access)acc,
							    (enum um_tlb_priv)p);
				}
			}
		}
	}
}

static unsigned audit_locked(struct um_mmu_vm *v, char *why, size_t size)
{
	struct audit a = { .v = v, .why = why, .size = size };
	struct um_shadow_page *sp;
	unsigned long pages = 0;

	cds_list_for_each_entry(sp, &v->active, lru) {
		check_page(&a, sp);
		if (roots_of(v, sp) != sp->root_count)
			violation(&a, PAGE_FMT ": root count %u, loaded %u times", PAGE_ARG(sp),
				  sp->root_count, roots_of(v, sp));
		pages++;
	}
	/* Dead roots count as used until the last vCPU lets go. */
	for (struct um_mmu *m = v->mmus; m; m = m->next) {
		for (unsigned r = 0; r < MMU_ROOTS; r++) {
			for (unsigned i = 0; m->roots[r].valid && i < 4; i++) {
				sp = m->roots[r].sp[i];
				if (sp && sp->zapped && sp->nr_present)
					violation(&a, PAGE_FMT ": dead root in use", PAGE_ARG(sp));
			}
		}
	}
	if (pages > v->used)
		violation(&a, "%lu pages, %lu counted", pages, v->used);
	check_slots(&a);
	for (struct um_mmu *m = v->mmus; m; m = m->next)
		check_tlb(&a, m);
	return a.bad;
}

unsigned um_mmu_audit(struct um_mmu_vm *v, char *why, size_t size)
{
	unsigned bad;

	/* Not um_vm_lock(): looking must not change the owner's pending flushes. */
	pthread_mutex_lock(&v->lock);
	bad = audit_locked(v, why, size);
	pthread_mutex_unlock(&v->lock);
	return bad;
}

/* After an event, with the lock: remember, and say, the first violation. */
void um_audit_event(struct um_mmu_vm *v)
{
	char why[sizeof(v->audit_why)];
	unsigned bad = audit_locked(v, why, sizeof(why));

	if (bad && !v->audit_failures) {
		memcpy(v->audit_why, why, sizeof(why));
		um_log("MMU audit: %s", why);
	}
	v->audits++;
	v->audit_failures += bad;
}

void um_audit_summary(const struct um_mmu_vm *v)
{
	um_log("MMU audit: looked %lu times, found %u violations", v->audits, v->audit_failures);
}

unsigned um_mmu_audit_failures(struct um_mmu_vm *v, char *why, size_t size)
{
	unsigned n;

	pthread_mutex_lock(&v->lock);
	n = v->audit_failures;
	if (size)
		snprintf(why, size, "%s", v->audit_why);
	pthread_mutex_unlock(&v->lock);
	return n;
}

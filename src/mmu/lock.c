// SPDX-License-Identifier: MIT
/*
 * The MMU's lock and the TLB flush protocol.
 *
 * A vCPU that executes guest code has `running` set in its TLB.  It may use TLB entries, and read
 * sptes without the lock.  Who weakens or drops an spte does so under the lock and notes what TLBs
 * may still hold; before the lock is released, or a shadow page reused, the flush happens:
 *
 *	requester                               owner of a TLB
 *	---------                               --------------
 *	change the spte                         running = 1
 *	flush |= ALL                            if (flush) forget entries
 *	if (running) kick, and wait until       use entries, walk sptes …
 *	  !running || !flush                    running = 0
 *
 * All four accesses are sequentially consistent.  If the requester sees running = 0, the owner's next look
 * at flush comes after and sees the request.  If it sees running = 1, it waits until the owner has either
 * left or taken the request, and an owner that takes it forgets its entries before it uses any.  Either
 * way nobody uses an old translation after the wait.
 *
 * No deadlock: a vCPU that waits for the lock has left; requesters hold the lock, so there is one at a time.
 *
 * The own TLB of the vCPU that holds the lock gets the finer treatment: only the ranges that were noted.
 */
#include "mmu/mmu_internal.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void um_flush_note_all(struct um_mmu_vm *v)
{
	v->flush.needed = true;
	v->flush.all = true;
}

/* Spte @i of @sp, which had been accessed, is going or gone: note what it mapped. */
void um_flush_note(struct um_mmu_vm *v, const struct um_shadow_page *sp, unsigned i)
{
	struct um_flush *f = &v->flush;
	u64 npages = level_pages(sp->role.level);
	gva_t gva;

	f->needed = true;
	if (f->all)
		return;
	/* In two-dimensional mode the root's space is not what TLBs are indexed by. */
	if (v->cfg.tdp || !sp->gva_known || sp->gva_multi || npages > UM_TLB_ENTRIES) {
		f->all = true;
		return;
	}
	gva = sp->gva + ((gva_t)i * npages << UM_PAGE_SHIFT);
	if (f->n && f->range[f->n - 1].gva + (f->range[f->n - 1].npages << UM_PAGE_SHIFT) == gva &&
	    f->range[f->n - 1].npages + npages <= UM_TLB_ENTRIES)
		f->range[f->n - 1].npages += npages;
	else if (f->n < MAX_FLUSH_RANGES) {
		f->range[f->n].gva = gva;
		f->range[f->n++].npages = npages;
	} else {
		f->all = true;
	}
}

static void request(struct um_mmu *m, unsigned what)
{
	atomic_fetch_or(&m->tlb->flush, what);
	if (atomic_load(&m->tlb->running) && m->kick)
		m->kick(m->opaque);
}

static void wait_for(struct um_mmu *m)
{
	for (unsigned spins = 0; atomic_load(&m->tlb->running) && atomic_load(&m->tlb->flush);
	     spins++) {
		if (spins > 100)
			sched_yield();
		else
			__builtin_ia32_pause();
		/* The owner may have looked just before the kick arrived. */
		if (spins % 1024 == 1023 && m->kick)
			m->kick(m->opaque);
	}
}

static void flush_others(struct um_mmu_vm *v, unsigned what)
{
	bool any = false;

	for (struct um_mmu *m = v->mmus; m; m = m->next) {
		if (m != v->owner) {
			request(m, what);
			any = true;
		}
	}
	if (!any)
		return;
	um_count(v->counters, remote_tlb_flushes);
	for (struct um_mmu *m = v->mmus; m; m = m->next) {
		if (m != v->owner)
			wait_for(m);
	}
}

/* Sptes' addresses aren't sign-extended: a TLB may have them in the form of 4- or of 5-level paging. */
static void flush_own_range(struct um_tlb *t, gva_t gva, u64 npages)
{
	um_tlb_flush_range(t, gva, npages);
	if (gva >> 47 == 1)
		um_tlb_flush_range(t, gva | GENMASK(63, 48), npages);
	if (gva >> 56 == 1)
		um_tlb_flush_range(t, gva | GENMASK(63, 57), npages);
}

static void flush_own(struct um_mmu_vm *v)
{
	struct um_tlb *t = v->owner->tlb;

	if (v->flush.idle)
		um_root_forget_idle(v->owner);
	if (v->flush.current)
		um_root_renew(v->owner);
	if (v->flush.all) {
		um_count(v->owner->counters, tlb_flushes);
		um_tlb_flush(t);
		return;
	}
	for (unsigned i = 0; i < v->flush.n; i++)
		flush_own_range(t, v->flush.range[i].gva, v->flush.range[i].npages);
}

void um_flush_remote(struct um_mmu_vm *v)
{
	if (!v->flush.needed && !v->reload_roots)
		return;
	flush_others(v, UM_TLB_FLUSH_ALL | (v->reload_roots ? UM_TLB_FLUSH_RELOAD : 0));
	if (v->reload_roots) {
		v->reload_roots = false;
		if (v->owner)
			atomic_fetch_or(&v->owner->tlb->flush, UM_TLB_FLUSH_RELOAD);
	}
	v->flush.needed = false;
}

void um_flush_now(struct um_mmu_vm *v)
{
	um_flush_remote(v);
	if (v->owner && (v->flush.all || v->flush.idle || v->flush.current || v->flush.n))
		flush_own(v);
	v->flush.all = v->flush.idle = v->flush.current = false;
	v->flush.n = 0;
}

void um_vm_lock(struct um_mmu_vm *v)
{
	pthread_mutex_lock(&v->lock);
	v->owner = NULL;
}

void um_vm_unlock(struct um_mmu_vm *v)
{
	um_flush_now(v);
	um_sp_free_zapped(v);
	if (unlikely(v->cfg.audit))
		um_audit_event(v);
	v->owner = NULL;
	pthread_mutex_unlock(&v->lock);
}

/* Do what others asked for.  The lock is held by @m, so nobody is asking now. */
static void take_requests(struct um_mmu *m)
{
	unsigned what = atomic_exchange(&m->tlb->flush, 0);

	if (what & UM_TLB_FLUSH_ALL) {
		um_count(m->counters, tlb_flushes);
		um_tlb_flush(m->tlb);
	}
	if (what & UM_TLB_FLUSH_RELOAD)
		um_root_drop_invalid(m);
}

bool um_mmu_pause(struct um_mmu *m)
{
	bool was = atomic_load_explicit(&m->tlb->running, memory_order_relaxed);

	if (was)
		atomic_store(&m->tlb->running, 0);
	return was;
}

void um_mmu_resume(struct um_mmu *m, bool was_running)
{
	if (was_running)
		atomic_store(&m->tlb->running, 1);
}

void um_mmu_lock(struct um_mmu *m)
{
	struct um_mmu_vm *v = m->vm;

	if (pthread_mutex_trylock(&v->lock)) {
		bool was = um_mmu_pause(m);

		pthread_mutex_lock(&v->lock);
		um_mmu_resume(m, was);
	}
	v->owner = m;
	if (unlikely(atomic_load(&m->tlb->flush)))
		take_requests(m);
}

int um_mmu_enter(struct um_mmu *m)
{
	int err;

	for (;;) {
		atomic_store(&m->tlb->running, 1);
		if (likely(!atomic_load(&m->tlb->flush) && m->root))
			return 0;
		/* um_mmu_lock() takes the requests. */
		um_mmu_lock(m);
		err = m->root ? 0 : um_root_load(m, true);
		um_vm_unlock(m->vm);
		if (err) {
			atomic_store(&m->tlb->running, 0);
			return err;
		}
	}
}

void um_mmu_leave(struct um_mmu *m)
{
	atomic_store(&m->tlb->running, 0);
}

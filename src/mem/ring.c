// SPDX-License-Identifier: MIT
/*
 * Dirty rings: each vCPU lists the pages that it makes dirty in a ring that it shares with the VMM.
 *
 * An entry goes round: unused -> dirty (we fill it in, then set its flag) -> harvested (the VMM has read it, and
 * sets its flag) -> unused (KVM_RESET_DIRTY_RINGS: the page is protected again).  The VMM harvests in order, so
 * two counters say all: `dirty` of entries filled in, `reset` of entries taken back; both only grow.
 *
 * The bitmap of a slot has a page's bit set while the page is in some ring: so it is listed once, whoever writes to
 * it how often.  Taking an entry back clears the bit before the page is protected: a write that found it set
 * is older than the protection, which the VMM waits for before it copies the page (dirty.c has the same argument).
 *
 * A ring that is almost full makes its vCPU leave for the VMM.  The engine notices that at the end of a block, so room
 * is left for what a block can make dirty.  Should a ring get full all the same, the entry goes into another one.
 *
 * The ring's memory is written by the VMM at any time: what is read from there is checked, and nothing of ours
 * depends on it.
 */
#include "mem/internal.h"

#include <errno.h>
#include <stdlib.h>

struct um_dirty_ring {
	struct um_dirty_ring *next; /* of all rings; set before it is published */
	struct kvm_dirty_gfn *e;
	u32 size; /* a power of two */
	void (*kick)(void *opaque);
	void *opaque;

	pthread_mutex_t lock; /* leaf: pushing */
	u32 dirty;	      /* under lock */
	atomic_uint used;     /* dirty - reset */
	u32 reset;	      /* under slots_mutex */
};

int um_mem_add_ring(struct um_mem *m, struct kvm_dirty_gfn *entries, u32 n,
		    void (*kick)(void *opaque), void *opaque, struct um_dirty_ring **ring)
{
	struct um_dirty_ring *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->e = entries;
	r->size = n;
	r->kick = kick;
	r->opaque = opaque;
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_lock(&m->slots_mutex);
	r->next = atomic_load(&m->rings);
	atomic_store(&m->rings, r);
	pthread_mutex_unlock(&m->slots_mutex);
	*ring = r;
	return 0;
}

void um_rings_free(struct um_mem *m)
{
	struct um_dirty_ring *r = atomic_load(&m->rings);

	while (r) {
		struct um_dirty_ring *next = r->next;

		pthread_mutex_destroy(&r->lock);
		free(r);
		r = next;
	}
}

void um_mem_enable_rings(struct um_mem *m)
{
	pthread_mutex_lock(&m->slots_mutex);
	atomic_store(&m->use_rings, true);
	/* What was logged so far nobody can ask for any more.  There are no vCPUs, so nothing is mapped. */
	for (unsigned as = 0; as < UM_NR_AS; as++) {
		const struct um_slots *t = um_mem_slots(m, as);

		for (unsigned i = 0; i < t->n; i++) {
			struct um_slot *s = t->slot[i];

			for (size_t w = 0; s->dirty && w < um_dirty_words(s); w++)
				WRITE_ONCE(s->dirty[w], 0);
		}
	}
	pthread_mutex_unlock(&m->slots_mutex);
}

bool um_dirty_ring_almost_full(const struct um_dirty_ring *r)
{
	return atomic_load(&r->used) >= r->size - UM_RING_RESERVED;
}

/* False: it is full. */
static bool push(struct um_dirty_ring *r, const struct um_slot *s, u64 page)
{
	bool room;

	pthread_mutex_lock(&r->lock);
	room = atomic_load(&r->used) < r->size;
	if (room) {
		struct kvm_dirty_gfn *e = &r->e[r->dirty++ & (r->size - 1)];

		WRITE_ONCE(e->slot, (u32)s->as << 16 | s->id);
		WRITE_ONCE(e->offset, page);
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
		atomic_fetch_add(&r->used, 1);
	}
	pthread_mutex_unlock(&r->lock);
	if (um_dirty_ring_almost_full(r))
		r->kick(r->opaque);
	return room;
}

static struct um_dirty_ring *emptiest(struct um_mem *m)
{
	struct um_dirty_ring *best = atomic_load(&m->rings);

	for (struct um_dirty_ring *r = best; r; r = r->next) {
		if (atomic_load(&r->used) < atomic_load(&best->used))
			best = r;
	}
	return best;
}

bool um_rings_push(struct um_mem *m, struct um_dirty_ring *ring, const struct um_slot *s, u64 page)
{
	struct um_dirty_ring *other;

	if (ring && push(ring, s, page))
		return true;
	other = emptiest(m);
	return other && push(other, s, page);
}

/* ---- taking entries back ---- */

/* Pages of one slot that are to be protected: they are collected, because each time costs a flush. */
struct batch {
	struct um_slot *slot;
	u64 *mask; /* of the whole slot */
	size_t lo, hi;
};

static void flush_batch(struct um_mem *m, struct batch *b)
{
	struct um_mem_listener *l;

	if (!b->slot)
		return;
	um_for_each_listener(l, m)
	{
		if (l->dirty_cleared)
			l->dirty_cleared(l, b->slot, b->lo * 64, b->mask + b->lo,
					 b->hi - b->lo + 1);
	}
	free(b->mask);
	*b = (struct batch){ 0 };
}

/* The slot that the entry names may be gone by now, or have another size: then there is nothing to do. */
static struct um_slot *entry_slot(struct um_mem *m, u32 slot, u64 page)
{
	struct um_slot *s;

	if ((slot >> 16) >= UM_NR_AS || (slot & 0xffff) >= UM_NR_SLOTS)
		return NULL;
	s = m->by_id[slot >> 16][slot & 0xffff];
	return s && s->dirty && page < s->npages ? s : NULL;
}

/* False on ENOMEM. */
static bool add_to_batch(struct um_mem *m, struct batch *b, struct um_slot *s, u64 page)
{
	size_t w = page / 64;

	if (b->slot != s) {
		u64 *mask = calloc(um_dirty_words(s), sizeof(u64));

		if (!mask)
			return false;
		flush_batch(m, b);
		*b = (struct batch){ .slot = s, .mask = mask, .lo = w, .hi = w };
	}
	__atomic_fetch_and(&s->dirty[w], ~BIT(page % 64), __ATOMIC_SEQ_CST);
	b->mask[w] |= BIT(page % 64);
	b->lo = um_min(b->lo, w);
	b->hi = um_max(b->hi, w);
	return true;
}

static long reset_ring(struct um_mem *m, struct um_dirty_ring *r, struct batch *b)
{
	long n = 0;

	while (atomic_load(&r->used)) {
		struct kvm_dirty_gfn *e = &r->e[r->reset & (r->size - 1)];
		struct um_slot *s;
		u64 page;

		if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_RESET))
			break;
		page = READ_ONCE(e->offset);
		s = entry_slot(m, READ_ONCE(e->slot), page);
		if (s && !add_to_batch(m, b, s, page))
			return n ? n : -ENOMEM;
		__atomic_store_n(&e->flags, 0, __ATOMIC_RELEASE);
		r->reset++;
		atomic_fetch_sub(&r->used, 1);
		n++;
	}
	return n;
}

long um_mem_reset_rings(struct um_mem *m)
{
	struct batch b = { 0 };
	long n = 0, all = 0;

	if (!atomic_load(&m->use_rings))
		return -EINVAL;
	pthread_mutex_lock(&m->slots_mutex);
	atomic_fetch_add(&m->clearing, 1);
	for (struct um_dirty_ring *r = atomic_load(&m->rings); r && n >= 0; r = r->next) {
		n = reset_ring(m, r, &b);
		all += um_max(n, 0l);
	}
	flush_batch(m, &b);
	atomic_fetch_sub(&m->clearing, 1);
	pthread_mutex_unlock(&m->slots_mutex);
	return n < 0 && !all ? n : all;
}

// SPDX-License-Identifier: MIT
/*
 * Memory slots: for each address space the table from guest frames to host memory, and its changes while
 * vCPUs run.
 *
 * A table is an immutable sorted array.  A change builds another one, publishes it with one store,
 * tells the listeners, waits for readers of the old one, and frees it.  Slots themselves are as
 * immutable: new flags make a new struct um_slot, which takes over what the listeners hung off the old.
 *
 * What KVM_SET_USER_MEMORY_REGION checks, and in which order, is that of the KVM API document (4.35) and
 * of the kernel's behaviour: a size of zero deletes; an existing slot may change its guest address (move)
 * or its dirty-logging flag, and nothing else.
 */
#include "mem/internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* User space ends below the canonical hole, less a guard page. */
#define HVA_LIMIT      (BIT(47) - UM_PAGE_SIZE)
#define MAX_SLOT_PAGES ((1ull << 31) - 1)
#define MAX_GFN	       (BIT(52 - UM_PAGE_SHIFT) - 1)

static void free_tables(struct um_mem *m)
{
	for (unsigned as = 0; as < UM_NR_AS; as++) {
		free(atomic_load(&m->slots[as]));
		free(m->by_id[as]);
	}
	um_rings_free(m);
	pthread_mutex_destroy(&m->slots_mutex);
	free(m);
}

struct um_mem *um_mem_create(const struct um_trace *trace)
{
	struct um_mem *m = aligned_alloc(64, ALIGN_UP(sizeof(*m), 64));
	bool ok = true;

	if (!m)
		return NULL;
	memset(m, 0, sizeof(*m));
	m->trace = trace;
	pthread_mutex_init(&m->slots_mutex, NULL);
	for (unsigned as = 0; as < UM_NR_AS; as++) {
		struct um_slots *empty = calloc(1, sizeof(*empty));

		atomic_init(&m->slots[as], empty);
		m->by_id[as] = calloc(UM_NR_SLOTS, sizeof(*m->by_id[as]));
		ok = ok && empty && m->by_id[as];
	}
	if (!ok) {
		free_tables(m);
		return NULL;
	}
	return m;
}

void um_mem_add_listener(struct um_mem *m, struct um_mem_listener *l)
{
	l->next = m->listeners;
	m->listeners = l;
}

void um_mem_remove_listener(struct um_mem *m, struct um_mem_listener *l)
{
	struct um_mem_listener **p;

	for (p = &m->listeners; *p && *p != l; p = &(*p)->next)
		;
	if (!*p)
		return;
	*p = l->next;
	for (unsigned as = 0; l->slot_free && as < UM_NR_AS; as++) {
		struct um_slots *t = atomic_load(&m->slots[as]);

		for (unsigned i = 0; i < t->n; i++)
			l->slot_free(l, t->slot[i]);
	}
}

static void free_arch(struct um_mem *m, struct um_slot *s)
{
	struct um_mem_listener *l;

	um_for_each_listener(l, m)
	{
		if (l->slot_free)
			l->slot_free(l, s);
	}
}

void um_mem_destroy(struct um_mem *m)
{
	struct um_mem_listener *l;

	um_for_each_listener(l, m)
	{
		if (l->release)
			l->release(l);
	}
	for (unsigned as = 0; as < UM_NR_AS; as++) {
		struct um_slots *t = atomic_load(&m->slots[as]);

		for (unsigned i = 0; i < t->n; i++) {
			free_arch(m, t->slot[i]);
			free(t->slot[i]->dirty);
			free(t->slot[i]);
		}
	}
	free_tables(m);
}

/*
 * Read-side sections.  A reader adds itself to the cell of the current phase, then makes sure that the
 * phase is still that one; if not, it takes itself out and tries again.  The writer publishes, flips
 * the phase, and waits until the old phase's cell is empty.
 *
 * Why that is enough: whoever stays in a cell saw its phase after adding itself.  A reader that could
 * have seen the old table began before the flip, so it is in the old phase's cell and is waited for; one
 * in the new phase's cell saw the flip, and with it the new table.  The new phase's cell holds no one from
 * the time before that, because the previous change waited until it was empty.  Readers that come in
 * during the wait go to the new cell, so the wait ends.
 */
unsigned um_mem_read_lock(struct um_mem *m)
{
	for (;;) {
		unsigned phase = atomic_load(&m->phase);

		atomic_fetch_add(&m->readers[phase & 1].n, 1);
		if (likely(atomic_load(&m->phase) == phase))
			return phase & 1;
		atomic_fetch_sub(&m->readers[phase & 1].n, 1);
	}
}

void um_mem_read_unlock(struct um_mem *m, unsigned token)
{
	atomic_fetch_sub_explicit(&m->readers[token].n, 1, memory_order_release);
}

static void synchronize_readers(struct um_mem *m)
{
	unsigned old = atomic_fetch_add(&m->phase, 1) & 1;

	while (atomic_load(&m->readers[old].n))
		sched_yield();
}

const struct um_slots *um_mem_slots(struct um_mem *m, unsigned as)
{
	return atomic_load_explicit(&m->slots[as], memory_order_acquire);
}

u64 um_mem_generation(struct um_mem *m)
{
	return atomic_load_explicit(&m->generation, memory_order_acquire);
}

struct um_slot *um_mem_slot(struct um_mem *m, unsigned as, gfn_t gfn)
{
	return um_slots_find(um_mem_slots(m, as), gfn);
}

/* How many slots begin at or before @gfn: they come first. */
static unsigned slots_up_to(const struct um_slots *t, gfn_t gfn)
{
	unsigned lo = 0, hi = t->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (t->slot[mid]->base <= gfn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct um_slot *um_slots_find(const struct um_slots *t, gfn_t gfn)
{
	unsigned n = slots_up_to(t, gfn);

	if (!n || gfn - t->slot[n - 1]->base >= t->slot[n - 1]->npages)
		return NULL;
	return t->slot[n - 1];
}

static void append(struct um_slots *n, struct um_slot *const *from, unsigned count)
{
	memcpy(&n->slot[n->n], from, count * sizeof(*from));
	n->n += count;
}

/*
 * A table with @out taken out or replaced by @in, which has the same base then, or @in put in; either may be NULL.
 * NULL on ENOMEM.
 */
static struct um_slots *make_table(const struct um_slots *t, u64 generation,
				   const struct um_slot *out, struct um_slot *in)
{
	struct um_slots *n = malloc(sizeof(*n) + (t->n + 1) * sizeof(n->slot[0]));
	unsigned before = slots_up_to(t, out ? out->base : in->base) - (out ? 1 : 0);
	unsigned after = before + (out ? 1 : 0);

	if (!n)
		return NULL;
	n->generation = generation;
	n->npages = t->npages - (out ? out->npages : 0) + (in ? in->npages : 0);
	n->n = 0;
	append(n, t->slot, before);
	if (in)
		append(n, &in, 1);
	append(n, t->slot + after, t->n - after);
	return n;
}

/* Slots of a table do not overlap: only the neighbours can overlap with @s. */
static bool overlaps(const struct um_slots *t, const struct um_slot *s,
		     const struct um_slot *except)
{
	unsigned next = slots_up_to(t, s->base), last = next;

	if (last && t->slot[last - 1] == except)
		last--;
	if (last && s->base - t->slot[last - 1]->base < t->slot[last - 1]->npages)
		return true;
	if (next < t->n && t->slot[next] == except)
		next++;
	return next < t->n && t->slot[next]->base - s->base < s->npages;
}

static int prepare(struct um_mem *m, struct um_slot *new, const struct um_slot *old)
{
	struct um_mem_listener *l, *done;
	int err = 0;

	if (new->flags & KVM_MEM_LOG_DIRTY_PAGES) {
		new->dirty = calloc(um_dirty_words(new), sizeof(u64));
		if (!new->dirty)
			return -ENOMEM;
		if ((m->manual_dirty & KVM_DIRTY_LOG_INITIALLY_SET) &&
		    !atomic_load(&m->use_rings)) {
			memset(new->dirty, 0xff, um_dirty_words(new) * sizeof(u64));
			if (new->npages % 64)
				new->dirty[new->npages / 64] = BIT(new->npages % 64) - 1;
		}
	}
	um_for_each_listener(l, m)
	{
		err = l->slot_prepare ? l->slot_prepare(l, new, old) : 0;
		if (err)
			break;
	}
	if (err) {
		/* What a flags-only successor took over still belongs to @old. */
		for (done = m->listeners; done != l; done = done->next) {
			if (done->slot_free && (!old || old->arch != new->arch))
				done->slot_free(done, new);
		}
		free(new->dirty);
		new->dirty = NULL;
	}
	return err;
}

static void commit(struct um_mem *m, const struct um_slot *old, struct um_slot *new)
{
	struct um_mem_listener *l;

	um_for_each_listener(l, m)
	{
		if (l->slot_commit)
			l->slot_commit(l, old, new);
	}
}

static void publish(struct um_mem *m, unsigned as, struct um_slots *t)
{
	u64 generation = t->generation;

	atomic_store(&m->slots[as], t);
	atomic_store(&m->generation, generation);
}

/*
 * Replace @old by @new (either may be NULL).  Moving and deleting have a step in between, in which the
 * old place is gone: translations through it are dropped before anything can be mapped at the new one.
 */
static int change(struct um_mem *m, unsigned as, u16 id, struct um_slot *old, struct um_slot *new)
{
	struct um_slots *t = atomic_load(&m->slots[as]), *without = NULL, *with = NULL;
	u64 generation = um_mem_generation(m);
	bool drop = old && (!new || new->base != old->base);
	struct um_mem_listener *l;
	int err = new ? prepare(m, new, old) : 0;

	if (err)
		return err;
	if (drop)
		without = make_table(t, ++generation, old, NULL);
	if (new)
		with = make_table(without ? without : t, ++generation, drop ? NULL : old, new);
	if ((drop && !without) || (new && !with)) {
		if (new && !(old && old->arch == new->arch))
			free_arch(m, new);
		if (new)
			free(new->dirty);
		free(without);
		free(with);
		return -ENOMEM;
	}

	if (drop) {
		publish(m, as, without);
		um_for_each_listener(l, m)
		{
			if (l->slot_flush)
				l->slot_flush(l, old);
		}
	}
	if (new)
		publish(m, as, with);
	m->by_id[as][id] = new;
	commit(m, old, new);
	synchronize_readers(m);

	free(t);
	if (drop && new)
		free(without);
	if (old) {
		if (!(new &&new->arch == old->arch))
			free_arch(m, old);
		free(old->dirty);
		free(old);
	}
	return 0;
}

static bool region_valid(const struct kvm_userspace_memory_region *r)
{
	if (r->flags & ~(u32)(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return false;
	if ((r->slot >> 16) >= UM_NR_AS || (r->slot & 0xffff) >= UM_NR_SLOTS)
		return false;
	if ((r->memory_size | r->guest_phys_addr | r->userspace_addr) & ~UM_PAGE_MASK)
		return false;
	if (r->userspace_addr > HVA_LIMIT || r->memory_size > HVA_LIMIT - r->userspace_addr)
		return false;
	if (r->guest_phys_addr + r->memory_size < r->guest_phys_addr)
		return false;
	return (r->memory_size >> UM_PAGE_SHIFT) <= MAX_SLOT_PAGES;
}

static int set_region(struct um_mem *m, const struct kvm_userspace_memory_region *r)
{
	unsigned as = r->slot >> 16;
	u16 id = (u16)r->slot;
	struct um_slot *old = m->by_id[as][id], *new;
	int err;

	if (!r->memory_size)
		return old ? change(m, as, id, old, NULL) : -EINVAL;

	new = calloc(1, sizeof(*new));
	if (!new)
		return -ENOMEM;
	new->base = r->guest_phys_addr >> UM_PAGE_SHIFT;
	new->npages = r->memory_size >> UM_PAGE_SHIFT;
	new->hva = r->userspace_addr;
	new->flags = r->flags;
	new->id = id;
	new->as = (u8)as;

	if (old && (new->hva != old->hva || new->npages != old->npages ||
		    ((new->flags ^ old->flags) & KVM_MEM_READONLY)))
		err = -EINVAL;
	else if (old && new->base == old->base &&new->flags == old->flags)
		err = 1; /* nothing changes */
	else if (new->base + new->npages - 1 > MAX_GFN)
		err = -EINVAL;
	else if (overlaps(um_mem_slots(m, as), new, old))
		err = -EEXIST;
	else
		err = change(m, as, id, old, new);
	if (err)
		free(new);
	return err > 0 ? 0 : err;
}

int um_mem_set_region(struct um_mem *m, const struct kvm_userspace_memory_region *r)
{
	int err = -EINVAL;

	if (region_valid(r)) {
		pthread_mutex_lock(&m->slots_mutex);
		err = set_region(m, r);
		pthread_mutex_unlock(&m->slots_mutex);
	}
	um_trace(m->trace, slots, "slot %u: gpa %#llx size %#llx hva %#llx flags %#x: %d", r->slot,
		 r->guest_phys_addr, r->memory_size, r->userspace_addr, r->flags, err);
	return err;
}

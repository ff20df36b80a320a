// SPDX-License-Identifier: MIT
/*
 * Dirty logs: one bit a page, set by whoever lets the guest write or writes for it, fetched and cleared by
 * the VMM: in one step (KVM_GET_DIRTY_LOG), or in two, so that it can clear a few at a time, just before it
 * copies them (KVM_CLEAR_DIRTY_LOG).
 *
 * The order that loses nothing: bits are taken out of the log, then the listeners protect those pages
 * again (so that the next write is seen), and only then does the VMM get the bits and copy the pages.  A
 * write in between is in this round's copy, and its bit may be lost; a write after is in the next round.
 */
#include "mem/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/uaccess.h"

void um_mem_mark_dirty(struct um_mem *m, struct um_slot *slot, gfn_t gfn,
		       struct um_dirty_ring *ring)
{
	u64 page = gfn - slot->base, bit = BIT(page & 63), old;

	if (!slot->dirty)
		return;
	/* What was written is in memory before a bit that is set already is taken for a word about it. */
	atomic_thread_fence(memory_order_seq_cst);
	if (READ_ONCE(slot->dirty[page / 64]) & bit)
		return;
	old = __atomic_fetch_or(&slot->dirty[page / 64], bit, __ATOMIC_SEQ_CST);
	if (!(old & bit) && atomic_load(&m->use_rings) && !um_rings_push(m, ring, slot, page))
		__atomic_fetch_and(&slot->dirty[page / 64], ~bit, __ATOMIC_SEQ_CST);
}

/* These pages' bits were taken out. */
static void protect(struct um_mem *m, struct um_slot *s, u64 first, const u64 *mask, size_t words)
{
	struct um_mem_listener *l;

	um_for_each_listener(l, m)
	{
		if (l->dirty_cleared)
			l->dirty_cleared(l, s, first, mask, words);
	}
}

bool um_mem_clearing(const struct um_mem *m)
{
	return atomic_load(&m->clearing);
}

static int get_log(struct um_mem *m, struct um_slot *s, void *bitmap)
{
	bool clear = !(m->manual_dirty & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
	size_t words = um_dirty_words(s);
	u64 *taken = malloc(words * sizeof(u64)), any = 0;
	int err = 0;

	if (!taken)
		return -ENOMEM;
	for (size_t i = 0; i < words; i++) {
		taken[i] = READ_ONCE(s->dirty[i]);
		if (taken[i] && clear)
			taken[i] = __atomic_exchange_n(&s->dirty[i], 0, __ATOMIC_SEQ_CST);
		any |= taken[i];
	}
	if (any && clear)
		protect(m, s, 0, taken, words);
	if (um_copy_to(bitmap, taken, words * sizeof(u64)))
		err = -EFAULT;
	free(taken);
	return err;
}

static int clear_log(struct um_mem *m, struct um_slot *s, const struct kvm_clear_dirty_log *log)
{
	size_t words = ((size_t)log->num_pages + 63) / 64;
	u64 *dirty = s->dirty + log->first_page / 64;
	u64 *mask, any = 0;

	if (log->first_page > s->npages || log->num_pages > s->npages - log->first_page ||
	    (log->num_pages < s->npages - log->first_page && log->num_pages % 64))
		return -EINVAL;
	mask = malloc((words ? words : 1) * sizeof(u64));
	if (!mask)
		return -ENOMEM;
	if (um_copy_from(mask, log->dirty_bitmap, words * sizeof(u64))) {
		free(mask);
		return -EFAULT;
	}
	for (size_t i = 0; i < words; i++) {
		/* Only what is in the log has to be protected again. */
		if (mask[i])
			mask[i] &= __atomic_fetch_and(&dirty[i], ~mask[i], __ATOMIC_SEQ_CST);
		any |= mask[i];
	}
	if (any)
		protect(m, s, log->first_page, mask, words);
	free(mask);
	return 0;
}

/* The slot of that number, if it is logged; slots mutex held. */
static int find_logged(struct um_mem *m, u32 slot, struct um_slot **s)
{
	if (atomic_load(&m->use_rings))
		return -ENXIO;
	if ((slot >> 16) >= UM_NR_AS || (slot & 0xffff) >= UM_NR_SLOTS)
		return -EINVAL;
	*s = m->by_id[slot >> 16][slot & 0xffff];
	return *s && (*s)->dirty ? 0 : -ENOENT;
}

int um_mem_get_dirty_log(struct um_mem *m, u32 slot, void *bitmap)
{
	struct um_slot *s;
	int err;

	pthread_mutex_lock(&m->slots_mutex);
	err = find_logged(m, slot, &s);
	atomic_fetch_add(&m->clearing, 1);
	if (!err)
		err = get_log(m, s, bitmap);
	atomic_fetch_sub(&m->clearing, 1);
	pthread_mutex_unlock(&m->slots_mutex);
	return err;
}

int um_mem_clear_dirty_log(struct um_mem *m, const struct kvm_clear_dirty_log *log)
{
	struct um_slot *s;
	int err;

	pthread_mutex_lock(&m->slots_mutex);
	err = find_logged(m, log->slot, &s);
	if (!err && log->first_page % 64)
		err = -EINVAL;
	atomic_fetch_add(&m->clearing, 1);
	if (!err)
		err = clear_log(m, s, log);
	atomic_fetch_sub(&m->clearing, 1);
	pthread_mutex_unlock(&m->slots_mutex);
	return err;
}

void um_mem_set_manual_dirty_log(struct um_mem *m, u64 flags)
{
	pthread_mutex_lock(&m->slots_mutex);
	m->manual_dirty = flags;
	pthread_mutex_unlock(&m->slots_mutex);
}

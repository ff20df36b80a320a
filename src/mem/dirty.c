// SPDX-License-Identifier: MIT
/*
 * Dirty logs: one bit a page, set by whoever lets the guest write or writes for it, fetched and cleared by
 * the VMM (KVM_GET_DIRTY_LOG).
 *
 * The order that loses nothing: bits are taken out of the log, then the listeners protect those pages
 * again (so that the next write is seen), and only then does the VMM get the bits and copy the pages.  A
 * write in between is in this round's copy, and its bit may be lost; a write after is in the next round.
 */
#include "mem/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/uaccess.h"

void um_mem_mark_dirty(struct um_slot *slot, gfn_t gfn)
{
	u64 page = gfn - slot->base, bit = BIT(page & 63);

	if (!slot->dirty || (READ_ONCE(slot->dirty[page / 64]) & bit))
		return;
	__atomic_fetch_or(&slot->dirty[page / 64], bit, __ATOMIC_SEQ_CST);
}

static int get_log(struct um_mem *m, struct um_slot *s, void *bitmap)
{
	size_t words = um_dirty_words(s);
	u64 *taken = malloc(words * sizeof(u64)), any = 0;
	struct um_mem_listener *l;
	int err = 0;

	if (!taken)
		return -ENOMEM;
	for (size_t i = 0; i < words; i++) {
		taken[i] = READ_ONCE(s->dirty[i]);
		if (taken[i])
			taken[i] = __atomic_exchange_n(&s->dirty[i], 0, __ATOMIC_SEQ_CST);
		any |= taken[i];
	}
	if (any) {
		um_for_each_listener(l, m)
		{
			if (l->dirty_cleared)
				l->dirty_cleared(l, s, 0, taken, words);
		}
	}
	if (um_copy_to(bitmap, taken, words * sizeof(u64)))
		err = -EFAULT;
	free(taken);
	return err;
}

int um_mem_get_dirty_log(struct um_mem *m, u32 slot, void *bitmap)
{
	int err = -EINVAL;

	if ((slot >> 16) >= UM_NR_AS || (slot & 0xffff) >= UM_NR_SLOTS)
		return err;
	pthread_mutex_lock(&m->slots_mutex);
	if (m->by_id[slot] && m->by_id[slot]->dirty)
		err = get_log(m, m->by_id[slot], bitmap);
	else
		err = -ENOENT;
	pthread_mutex_unlock(&m->slots_mutex);
	return err;
}

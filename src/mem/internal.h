/* SPDX-License-Identifier: MIT */
/* struct um_mem, for the files of this folder. */
#ifndef UM_MEM_INTERNAL_H
#define UM_MEM_INTERNAL_H

#include <stdatomic.h>

#include "mem/mem.h"

struct um_mem {
	const struct um_trace *trace;
	struct um_mem_listener *listeners;

	pthread_mutex_t slots_mutex;
	struct um_slot **by_id[UM_NR_AS]; /* UM_NR_SLOTS pointers each; under slots_mutex */
	u64 manual_dirty;		  /* KVM_DIRTY_LOG_...; under slots_mutex */
	atomic_uint
		clearing; /* logs are being cleared: bits are gone that the MMU has not heard of */

	atomic_bool use_rings;
	_Atomic(struct um_dirty_ring *) rings; /* grows only, under slots_mutex */

	_Atomic(struct um_slots *) slots[UM_NR_AS];
	_Atomic u64 generation; /* of the newest table */

	/*
	 * Read-side sections (slots.c: synchronize_readers): readers count themselves in the cell that
	 * `phase` names at the time.
	 */
	atomic_uint phase __attribute__((aligned(64)));
	struct {
		atomic_uint n __attribute__((aligned(64)));
	} readers[2];
};

#define um_for_each_listener(l, m) for ((l) = (m)->listeners; (l); (l) = (l)->next)

/* Words of a slot's dirty bitmap. */
static inline size_t um_dirty_words(const struct um_slot *s)
{
	return (s->npages + 63) / 64;
}

/* ring.c.  False: all rings are full, or there is none. */
bool um_rings_push(struct um_mem *m, struct um_dirty_ring *ring, const struct um_slot *s, u64 page);
void um_rings_free(struct um_mem *m);

#endif

// SPDX-License-Identifier: MIT
/*
 * Dirty rings: what gets into them, in which order, how often, and what KVM_RESET_DIRTY_RINGS makes
 * of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/uaccess.h"
#include "mem/mem.h"

#define PAGES 4096
#define RAM   (PAGES * UM_PAGE_SIZE)
#define SIZE  1024u /* entries of a ring */

static const struct um_trace no_trace;
static struct sigaction handlers[2];

struct fixture {
	struct um_mem *m;
	u8 *ram;
	struct um_dirty_ring *ring[2];
	struct kvm_dirty_gfn *e[2];
	unsigned kicks[2];
	/* The listener's: what was protected last. */
	struct um_mem_listener l;
	unsigned calls;
	u16 slot;
	u64 pages;
};

static void kick(void *opaque)
{
	++*(unsigned *)opaque;
}

static void dirty_cleared(struct um_mem_listener *l, struct um_slot *s, u64 first, const u64 *mask,
			  size_t nwords)
{
	struct fixture *f = um_container_of(l, struct fixture, l);

	assert_int_equal(first % 64, 0);
	assert_true(first / 64 + nwords <= (s->npages + 63) / 64);
	f->calls++;
	f->slot = s->id;
	for (size_t w = 0; w < nwords; w++)
		f->pages += (unsigned)__builtin_popcountll(mask[w]);
}

static int set_slot(struct fixture *f, u32 slot, u64 page, u64 pages, u32 flags)
{
	struct kvm_userspace_memory_region r = { slot, flags, page << UM_PAGE_SHIFT,
						 pages << UM_PAGE_SHIFT, (uintptr_t)f->ram };

	return um_mem_set_region(f->m, &r);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	sigaction(SIGSEGV, &handlers[0], NULL);
	sigaction(SIGBUS, &handlers[1], NULL);
	f->m = um_mem_create(&no_trace);
	f->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	f->l.dirty_cleared = dirty_cleared;
	um_mem_add_listener(f->m, &f->l);
	assert_int_equal(set_slot(f, 3, 0, PAGES, KVM_MEM_LOG_DIRTY_PAGES), 0);
	/* Logged before there were rings: forgotten. */
	assert_int_equal(um_mem_write(f->m, 0, 5 * UM_PAGE_SIZE, "x", 1), 0);
	assert_int_equal(um_mem_reset_rings(f->m), -EINVAL);
	um_mem_enable_rings(f->m);
	for (unsigned i = 0; i < 2; i++) {
		f->e[i] = calloc(SIZE, sizeof(*f->e[i]));
		assert_int_equal(
			um_mem_add_ring(f->m, f->e[i], SIZE, kick, &f->kicks[i], &f->ring[i]), 0);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	um_mem_destroy(f->m);
	munmap(f->ram, RAM);
	free(f->e[0]);
	free(f->e[1]);
	free(f);
	return 0;
}

static void mark(struct fixture *f, u64 page, unsigned ring)
{
	unsigned token = um_mem_read_lock(f->m);

	um_mem_mark_dirty(f->m, um_mem_slot(f->m, 0, page), page, f->ring[ring]);
	um_mem_read_unlock(f->m, token);
}

/* Entry @i of ring @ring is dirty and names @page of slot 3; harvest it. */
static void harvest(struct fixture *f, unsigned ring, unsigned i, u64 page)
{
	struct kvm_dirty_gfn *e = &f->e[ring][i % SIZE];

	assert_int_equal(e->flags, KVM_DIRTY_GFN_F_DIRTY);
	assert_int_equal(e->slot, 3);
	assert_int_equal(e->offset, page);
	e->flags = KVM_DIRTY_GFN_F_RESET;
}

static void round_trip(void **state)
{
	struct fixture *f = *state;

	mark(f, 5, 0);
	mark(f, 70, 0);
	mark(f, 5, 0);
	mark(f, 70, 1);
	mark(f, 4000, 1);
	harvest(f, 0, 0, 5);
	assert_int_equal(f->e[0][1].offset, 70);
	assert_int_equal(f->e[0][2].flags, 0);
	harvest(f, 1, 0, 4000);
	assert_int_equal(f->e[1][1].flags, 0);

	/* What was not harvested stays; it is listed once until it is taken back. */
	assert_int_equal(um_mem_reset_rings(f->m), 2);
	assert_int_equal(f->pages, 2);
	assert_int_equal(f->slot, 3);
	assert_int_equal(f->e[0][0].flags, 0);
	assert_int_equal(um_mem_reset_rings(f->m), 0);
	mark(f, 70, 0);
	mark(f, 5, 0);
	harvest(f, 0, 1, 70);
	harvest(f, 0, 2, 5);
	assert_int_equal(um_mem_reset_rings(f->m), 2);

	/* Umbra's own writes are listed somewhere. */
	assert_int_equal(um_mem_write(f->m, 0, 9 * UM_PAGE_SIZE - 1, "xy", 2), 0);
	assert_int_equal((f->e[0][3].flags | f->e[1][1].flags) & KVM_DIRTY_GFN_F_DIRTY,
			 KVM_DIRTY_GFN_F_DIRTY);
}

/* Collected into few calls, whatever the order. */
static void batches(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 256; i++)
		mark(f, i * 1237 % PAGES, 0);
	for (unsigned i = 0; i < 256; i++)
		harvest(f, 0, i, i * 1237 % PAGES);
	assert_int_equal(um_mem_reset_rings(f->m), 256);
	assert_int_equal(f->calls, 1);
	assert_int_equal(f->pages, 256);
}

static void around(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 5 * SIZE; i++) {
		mark(f, i % PAGES, 1);
		harvest(f, 1, i, i % PAGES);
		assert_int_equal(um_mem_reset_rings(f->m), 1);
	}
	assert_int_equal(f->kicks[1], 0);
}

static void full(void **state)
{
	struct fixture *f = *state;
	unsigned limit = SIZE - UM_RING_RESERVED;

	for (unsigned i = 0; i < limit - 1; i++)
		mark(f, i, 0);
	assert_false(um_dirty_ring_almost_full(f->ring[0]));
	assert_int_equal(f->kicks[0], 0);
	mark(f, limit - 1, 0);
	assert_true(um_dirty_ring_almost_full(f->ring[0]));
	assert_int_equal(f->kicks[0], 1);
	assert_false(um_dirty_ring_almost_full(f->ring[1]));

	/* To the last entry, then into the other one; then nowhere, and nothing is overwritten. */
	for (unsigned i = limit; i < 2 * SIZE; i++)
		mark(f, i, 0);
	assert_int_equal(f->e[0][SIZE - 1].offset, SIZE - 1);
	assert_int_equal(f->e[1][0].offset, SIZE);
	mark(f, 2 * SIZE, 0);
	for (unsigned i = 0; i < SIZE; i++) {
		harvest(f, 0, i, i);
		harvest(f, 1, i, SIZE + i);
	}
	assert_int_equal(um_mem_reset_rings(f->m), 2 * SIZE);
	assert_false(um_dirty_ring_almost_full(f->ring[0]));
	mark(f, 2 * SIZE, 0);
	harvest(f, 0, SIZE, 2 * SIZE);
}

/* What the VMM writes there, and slots that went since. */
static void nonsense(void **state)
{
	static const struct {
		u32 slot;
		u64 offset;
	} bad[] = { { 4, 0 }, { 0xffff, 0 }, { 2 << 16 | 3, 0 }, { 3, PAGES }, { 3, -1ull } };
	struct fixture *f = *state;

	/* Entries that were never dirty are not taken back. */
	f->e[0][0].flags = KVM_DIRTY_GFN_F_RESET;
	assert_int_equal(um_mem_reset_rings(f->m), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		mark(f, i, 0);
		f->e[0][i].slot = bad[i].slot;
		f->e[0][i].offset = bad[i].offset;
		f->e[0][i].flags = KVM_DIRTY_GFN_F_RESET;
	}
	assert_int_equal(um_mem_reset_rings(f->m), ARRAY_SIZE(bad));
	assert_int_equal(f->calls, 0);

	mark(f, 100, 0);
	harvest(f, 0, 5, 100);
	mark(f, 101, 0);
	assert_int_equal(set_slot(f, 3, 0, PAGES, 0), 0); /* logged no more */
	assert_int_equal(um_mem_reset_rings(f->m), 1);
	mark(f, 102, 0);
	assert_int_equal(f->e[0][7].flags, 0);
	assert_int_equal(set_slot(f, 3, 0, 0, 0), 0);
	harvest(f, 0, 6, 101);
	assert_int_equal(um_mem_reset_rings(f->m), 1);
	assert_int_equal(f->calls, 0);
}

/* No bitmaps for the VMM, and none that begins with all bits set. */
static void exclusive(void **state)
{
	struct fixture *f = *state;
	u64 log[PAGES / 64];
	struct kvm_clear_dirty_log clear = { .slot = 3, .num_pages = 64, .dirty_bitmap = log };

	assert_int_equal(um_mem_get_dirty_log(f->m, 3, log), -ENXIO);
	assert_int_equal(um_mem_clear_dirty_log(f->m, &clear), -ENXIO);
	um_mem_set_manual_dirty_log(f->m, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
						  KVM_DIRTY_LOG_INITIALLY_SET);
	assert_int_equal(set_slot(f, 3, 0, PAGES, 0), 0);
	assert_int_equal(set_slot(f, 3, 0, PAGES, KVM_MEM_LOG_DIRTY_PAGES), 0);
	mark(f, 7, 1);
	harvest(f, 1, 0, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(batches, setup, teardown),
		cmocka_unit_test_setup_teardown(around, setup, teardown),
		cmocka_unit_test_setup_teardown(full, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(exclusive, setup, teardown),
	};

	if (um_uaccess_init())
		return 1;
	sigaction(SIGSEGV, NULL, &handlers[0]);
	sigaction(SIGBUS, NULL, &handlers[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Dirty rings under the MMU: every way that a page gets dirty (stores, A and D bits that the walker
 * sets, stores to shadowed tables, from either address space) lists it once, and again after
 * KVM_RESET_DIRTY_RINGS.  The auditor looks after every step.
 */
#include "guest.h"

#include <stdlib.h>

#define RAM  (16 * MB)
#define SIZE 2048u

struct machine {
	struct guest g;
	struct um_dirty_ring *ring;
	struct kvm_dirty_gfn *e;
	unsigned next, kicks;
};

static void kick(void *opaque)
{
	++*(unsigned *)opaque;
}

static void init(struct machine *m, bool tdp)
{
	struct guest *g = &m->g;

	m->next = m->kicks = 0;
	guest_init_linear(g, RAM, tdp, true);
	um_mem_enable_rings(g->mem);
	m->e = calloc(SIZE, sizeof(*m->e));
	assert_int_equal(um_mem_add_ring(g->mem, m->e, SIZE, kick, &m->kicks, &m->ring), 0);
	um_mmu_set_dirty_ring(g->mmu, m->ring);
	guest_store(g, KGVA + 8 * MB, 1, 8);
	assert_int_equal(guest_slot(g, 0, 0, RAM, g->ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
}

static void destroy(struct machine *m)
{
	guest_destroy(&m->g);
	free(m->e);
}

/* The next entry is @gpa's page, in @slot; or there is none (~0). */
static void expect(struct machine *m, u32 slot, gpa_t gpa)
{
	struct kvm_dirty_gfn *e = &m->e[m->next % SIZE];

	if (gpa == ~0ull) {
		assert_int_equal(e->flags, 0);
		return;
	}
	assert_int_equal(e->flags, KVM_DIRTY_GFN_F_DIRTY);
	assert_int_equal(e->slot, slot);
	assert_int_equal(e->offset, gpa >> UM_PAGE_SHIFT);
	e->flags = KVM_DIRTY_GFN_F_RESET;
	m->next++;
}

static void reset(struct machine *m, long n)
{
	assert_int_equal(HOST(&m->g, um_mem_reset_rings(m->g.mem)), n);
}

static void stores(void **state)
{
	for (unsigned tdp = 0; tdp < 2; tdp++) {
		struct machine m;
		struct guest *g = &m.g;

		init(&m, tdp);
		for (unsigned round = 0; round < 3; round++) {
			/* Known to the TLB as writable before, but no more. */
			guest_store(g, KGVA + 8 * MB, 2, 8);
			guest_load(g, KGVA + 9 * MB);
			guest_store(g, KGVA + 10 * MB, 3, 8);
			assert_true(guest_access(g, KGVA + 10 * MB, UM_WRITE, 0).hit);
			guest_store(g, KGVA + 8 * MB, 4, 8);
			expect(&m, 0, 8 * MB);
			expect(&m, 0, 10 * MB);
			expect(&m, 0, ~0ull);
			reset(&m, 2);
			assert_false(guest_access(g, KGVA + 8 * MB, UM_WRITE, 0).hit);
			expect(&m, 0, 8 * MB);
			reset(&m, 1);
		}
		destroy(&m);
	}
}

/* The walker's bits, and stores to tables: shadowed ones, of either level. */
static void tables(void **state)
{
	struct machine m;
	struct guest *g = &m.g;
	gpa_t pte, pde;

	init(&m, false);
	pte = guest_map(g, UGVA, 11 * MB | RW, 1);
	pde = guest_entry(g, UGVA, 2);
	guest_load(g, UGVA);
	expect(&m, 0, pte);
	guest_store(g, UGVA, 1, 8);
	expect(&m, 0, 11 * MB);
	expect(&m, 0, ~0ull);
	reset(&m, 2);

	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(guest_store(g, KGVA + pde, guest_read(g, pde), 8),
				 UM_ACCESS_TRACKED);
		guest_load(g, UGVA);
	}
	expect(&m, 0, pde);
	expect(&m, 0, ~0ull);
	reset(&m, 1);
	guest_store(g, KGVA + pte, 12 * MB | RW, 8);
	um_mmu_invlpg(g->mmu, UGVA);
	guest_store(g, UGVA, 1, 8);
	expect(&m, 0, pte);
	expect(&m, 0, 12 * MB);
	expect(&m, 0, ~0ull);
	destroy(&m);
}

/* The same memory in the other space is another slot. */
static void spaces(void **state)
{
	const u32 smm = (u32)UM_AS_SMM << 16 | 9;
	struct machine m;
	struct guest *g = &m.g;

	init(&m, false);
	assert_int_equal(guest_slot(g, smm, 0, RAM, g->ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
	guest_store(g, KGVA + 8 * MB, 1, 8);
	g->cpu->smm = true;
	um_mmu_reset_context(g->mmu);
	guest_store(g, KGVA + 8 * MB, 2, 8);
	guest_store(g, KGVA + 9 * MB, 2, 8);
	expect(&m, 0, 8 * MB);
	expect(&m, smm, 8 * MB);
	expect(&m, smm, 9 * MB);
	expect(&m, 0, ~0ull);
	reset(&m, 3);
	guest_store(g, KGVA + 9 * MB, 3, 8);
	expect(&m, smm, 9 * MB);
	expect(&m, 0, ~0ull);
	destroy(&m);
}

static void almost_full(void **state)
{
	struct machine m;
	struct guest *g = &m.g;

	init(&m, false);
	for (unsigned i = 0; i < SIZE - UM_RING_RESERVED; i++) {
		assert_int_equal(m.kicks, 0);
		guest_store(g, KGVA + 4 * MB + i * UM_PAGE_SIZE, 1, 8);
	}
	assert_int_equal(m.kicks, 1);
	assert_true(um_dirty_ring_almost_full(m.ring));
	destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stores),
		cmocka_unit_test(tables),
		cmocka_unit_test(spaces),
		cmocka_unit_test(almost_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

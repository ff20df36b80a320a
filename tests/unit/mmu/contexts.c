// SPDX-License-Identifier: MIT
/*
 * TLB contexts of address spaces: what is global is the same in all and survives switches between them, also when context numbers
 * start over; what isn't, does not.
 */
#include "guest.h"

#define RAM   (4 * MB)
#define OWN   (KGVA + 0x5000) /* a page of the kernel's that is not global */
#define HEAP  (KGVA + 0x6000)
#define PAGES 128
#define LOOPS (3 * UM_TLB_NR_CTX / 4) /* context numbers go in groups of four */

/* Two roots with global pages in common: all but OWN, which has frame 10 in the one, 11 in the other. */
static void init(struct guest *g, gpa_t root[2])
{
	guest_init(g, RAM, false, true);
	guest_paging(g, GUEST_64);
	g->cpu->cr4 |= CR4_PGE;
	um_mmu_reset_context(g->mmu);
	for (unsigned n = 0; n < 2; n++) {
		root[n] = n ? guest_new_root(g) : g->cpu->cr3;
		guest_set_cr3(g, root[n]);
		for (gpa_t a = 0; a < RAM; a += UM_PAGE_SIZE)
			guest_map(g, KGVA + a, a | PTE_P | PTE_W | PTE_A | PTE_D | PTE_G, 1);
		guest_map(g, UGVA, 0x8000 | RW | PTE_A | PTE_D, 1);
		guest_map(g, OWN, (0xa000 + n * UM_PAGE_SIZE) | PTE_P | PTE_W | PTE_A | PTE_D, 1);
	}
	um_mmu_reset_context(g->mmu);
}

static bool hits(struct guest *g, gva_t gva, enum um_tlb_priv priv)
{
	struct outcome o = guest_access(g, gva, UM_READ, priv);

	assert_int_equal(o.result, UM_ACCESS_OK);
	return o.hit;
}

/* Switches between address spaces, until numbers have started over: the kernel's pages are there as a rule. */
static void switches(void **state)
{
	struct guest g;
	gpa_t root[2];
	unsigned misses = 0;

	init(&g, root);
	for (unsigned n = 0; n < LOOPS; n++) {
		guest_set_cr3(&g, root[n & 1]);
		misses += !hits(&g, HEAP, UM_PRIV_KERNEL);
		assert_true(hits(&g, HEAP, UM_PRIV_KERNEL));
	}
	assert_in_range(misses, 1, LOOPS / 100);
	guest_destroy(&g);
}

/* The same in one address space that loses a table of the user's each time, and with it more pages than are flushed one by one. */
static void tables_lost(void **state)
{
	struct guest g;
	gpa_t root[2], entry;
	unsigned misses = 0, fresh = 0;
	u64 table;

	init(&g, root);
	guest_set_cr3(&g, root[0]);
	for (unsigned n = 0; n < PAGES; n++)
		guest_map(&g, UGVA + n * UM_PAGE_SIZE, 0x8000 | RW | PTE_A | PTE_D, 1);
	entry = guest_entry(&g, UGVA, 2);
	table = guest_read(&g, entry);
	for (unsigned n = 0; n < LOOPS; n++) {
		for (unsigned k = 0; k < PAGES; k++)
			fresh += !hits(&g, UGVA + k * UM_PAGE_SIZE, UM_PRIV_USER);
		assert_int_equal(guest_store(&g, KGVA + entry, 0, 8), UM_ACCESS_TRACKED);
		guest_store(&g, KGVA + entry, table, 8);
		misses += !hits(&g, HEAP, UM_PRIV_KERNEL);
		assert_true(hits(&g, HEAP, UM_PRIV_KERNEL));
	}
	assert_int_equal(fresh, PAGES * LOOPS);
	assert_in_range(misses, 1, LOOPS / 100);
	guest_destroy(&g);
}

/* What is not global is never another address space's. */
static void own(void **state)
{
	struct guest g;
	gpa_t root[2];

	init(&g, root);
	g.ram[0xa000] = 'a';
	g.ram[0xb000] = 'b';
	for (unsigned n = 0; n < LOOPS; n++) {
		unsigned k = n * 5 / 3 & 1;
		struct outcome o;

		guest_set_cr3(&g, root[k]);
		if (n % 3 == 0)
			hits(&g, HEAP, UM_PRIV_KERNEL);
		o = guest_access(&g, OWN, UM_READ, UM_PRIV_KERNEL);
		assert_int_equal(o.result, UM_ACCESS_OK);
		assert_int_equal(*(char *)o.hva, 'a' + k);
		assert_true(hits(&g, OWN, UM_PRIV_KERNEL));
	}
	guest_destroy(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(switches),
		cmocka_unit_test(tables_lost),
		cmocka_unit_test(own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

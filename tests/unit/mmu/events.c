// SPDX-License-Identifier: MIT
/* The events that drive the MMU, one test each, all under the auditor. */
#include "guest.h"

#include <string.h>

#define RW (PTE_P | PTE_W | PTE_U)

/* A guest access to a missing translation, in every paging mode: the tables are followed, A and D set. */
static void missing_translation(void **state)
{
	for (enum guest_mode mode = GUEST_32; mode <= GUEST_LA57; mode++) {
		gva_t gva = mode >= GUEST_64 ? 0xffff888012345000 : 0xc2345000;
		struct guest g;
		gpa_t pte;

		guest_init(&g, 16 * MB, false, true);
		guest_paging(&g, mode);
		pte = guest_map(&g, gva, 8 * MB | RW, 1);
		memcpy(g.ram + 8 * MB, "8 bytes!", 8);
		assert_int_equal(guest_load(&g, gva), 0x2173657479622038);
		assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A);
		assert_true(guest_access(&g, gva, UM_READ, UM_PRIV_KERNEL).hit);
		assert_false(guest_access(&g, gva, UM_WRITE, UM_PRIV_KERNEL).hit);
		assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A | PTE_D);
		assert_int_equal(guest_store(&g, gva + 8, 42, 8), UM_ACCESS_OK);
		assert_int_equal(g.ram[8 * MB + 8], 42);
		guest_destroy(&g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(missing_translation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

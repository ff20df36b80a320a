/* SPDX-License-Identifier: MIT */
/*
 * What the manuals say an access does: SDM vol. 3 sections 4.3 to 4.8, written down once more,
 * without a look at src/mmu/walker.c and in another shape: each paging mode has its own function,
 * permissions are the manual's sentences one after the other.
 */
#ifndef UM_TEST_MMU_ORACLE_H
#define UM_TEST_MMU_ORACLE_H

#include "guest.h"

struct verdict {
	bool fault;
	u32 error;
	gpa_t gpa;
	/*
	 * The entries used, from the top; and the last one's dirty bit must be set after the
	 * access.
	 */
	unsigned n;
	gpa_t entry[5];
	bool sets_dirty;
	unsigned leaf_level;
};

struct verdict oracle(struct guest *g, gva_t gva, enum um_access acc, enum um_tlb_priv priv);

#endif

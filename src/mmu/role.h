/* SPDX-License-Identifier: MIT */
/*
 * The role of a shadow page: everything besides its gfn that decides what its sptes mean.  Two pages with
 * the same gfn and role are the same page; the hash finds it, whoever shadowed it first.
 */
#ifndef UM_MMU_ROLE_H
#define UM_MMU_ROLE_H

#include "base/bits.h"
#include "mmu/spte.h"

union um_role {
	u32 word;
	struct {
		u32 level : 4;	/* 1 = 4k sptes, 2 = 2M, 3 = 1G, 4, 5 */
		u32 direct : 1; /* a linear range from gfn on; else the guest's table at gfn */
		/*
		 * With 4-byte gptes (cr4_pae = 0) a guest table has 1024 entries and an spt 512.  Level 1:
		 * which half (0, 1); level 2: which quarter (0..3), each entry shadowed by two sptes.
		 */
		u32 quadrant : 2;
		u32 access : 3;	 /* uwx granted by the tables above (>> ACC_ROLE_SHIFT) */
		u32 invalid : 1; /* a root that was zapped while vCPUs had it loaded */
		/* The format of the guest's entries; 0 in direct pages. */
		u32 cr4_pae : 1; /* 8-byte entries */
		u32 cr4_pse : 1; /* 4-byte entries: large pages enabled */
		u32 efer_nx : 1;
		u32 efer_lma : 1; /* entries of long mode: other reserved bits, protection keys */
		/* Direct pages behind a large guest page: what its entry says and sptes must know. */
		u32 dirty : 1; /* D is set */
		u32 pkey : 4;
		u32 global : 1;
		u32 smm : 1; /* the address space that gfns are in: of system-management mode */
	};
};

_Static_assert(sizeof(union um_role) == 4, "compared as one word");

static inline u64 role_access(union um_role r)
{
	return (u64)r.access << ACC_ROLE_SHIFT;
}

/* Guest pages (4k) that one spte of @level covers, and that a whole page of @level covers. */
static inline u64 level_pages(unsigned level)
{
	return 1ull << (9 * (level - 1));
}

static inline u64 level_span(unsigned level)
{
	return level_pages(level + 1);
}

/* Index into an spt of @level for an address of the root's space. */
static inline unsigned spt_index(u64 addr, unsigned level)
{
	return (addr >> (UM_PAGE_SHIFT + 9 * (level - 1))) & (SPTES_PER_PAGE - 1);
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The shadow pte: one 64-bit word, in ordinary memory, read by umbra's own "hardware" (the TLB fill in
 * mmu/fault.c).  There are four kinds, told apart by PRESENT, MMIO, and the level and LARGE bit:
 *
 * not present   0
 *
 * leaf          level 1, or LARGE
 *	63   62      59 58 56 55                    12 11 10 9 8 7 6 5 4 3 2 1 0
 *	[ 0 ][  pkey   ][ 0  ][ host page (hva)       ][0][E][M][S][L][D][A][H][X][U][G][P]
 *	  P present      G guest-writable: the product of the guest's W bits      U user
 *	  X executable (positive)      H host-writable: the slot isn't read-only
 *	  A accessed   D dirty   L large
 *	  S storable: stores may go through this spte now
 *	  M may become storable without a look at the guest's tables
 *	  E everywhere: the guest's entry is global (CR4.PGE decides what that means)
 *
 * nonleaf       level > 1, not LARGE: P, and bits 12..55 are the address of the child's spt
 *
 * mmio          not P, MMIO (bit 11): no memory behind the guest frame
 *	63 62     52 51             12 11
 *	[0][ gen   ][ gfn             ][1] 0 ... D, X, U, G in their places
 *
 * Invariants:
 *  1. Rights of the guest (G, U, X, pkey) and umbra's own permission to store (S) are apart.  The hardware
 *     is ours, so a supervisor's store with CR0.WP = 0 to a page that is not G needs no trick: S is all it
 *     needs.  The price of x86's one W bit for both, roles that depend on CR0.WP, SMEP and SMAP, isn't paid.
 *  2. S => M and H.  M is only set if the guest's leaf entry is dirty (or there is none), and
 *     the guest frame is not a page table that must be write-protected.  M without S: write-protected for
 *     dirty logging, or not written yet since; the fault path marks the page dirty and sets S again.
 *  3. D => S.  A TLB entry allows writing only if D; then, if the slot logs, its dirty bit is set.
 *  4. A TLB entry exists only if A.  So dropping an spte without A needs no TLB flush, and taking S away
 *     from one without D needs none either.
 *  5. Host frames are 4 KiB frames at every level: a large spte may start at any host page, since addresses
 *     are added, not spliced.
 */
#ifndef UM_MMU_SPTE_H
#define UM_MMU_SPTE_H

#include "base/bits.h"

#define SPTE_PRESENT	   BIT(0)
#define SPTE_GUEST_W	   BIT(1)
#define SPTE_USER	   BIT(2)
#define SPTE_EXEC	   BIT(3)
#define SPTE_HOST_WRITABLE BIT(4)
#define SPTE_ACCESSED	   BIT(5)
#define SPTE_DIRTY	   BIT(6)
#define SPTE_LARGE	   BIT(7)
#define SPTE_STORABLE	   BIT(8)
#define SPTE_MMU_WRITABLE  BIT(9)
#define SPTE_GLOBAL	   BIT(10)
#define SPTE_MMIO	   BIT(11)
#define SPTE_HVA_MASK	   GENMASK(55, 12)
#define SPTE_PKEY_SHIFT	   59
#define SPTE_PKEY_MASK	   GENMASK(62, 59)

#define SPTE_MMIO_GFN_MASK  GENMASK(51, 12)
#define SPTE_MMIO_GEN_SHIFT 52
#define SPTE_MMIO_GEN_BITS  11
#define SPTE_MMIO_GEN_MASK  GENMASK(62, 52)

/* The guest's rights in a leaf or mmio spte. */
#define SPTE_RIGHTS (SPTE_GUEST_W | SPTE_USER | SPTE_EXEC)

#define SPTES_PER_PAGE 512

/*
 * Access permissions, as in roles and walks: the seeds' "uwx".  The values are those of the spte bits, so
 * that an spte is made without shifting.
 */
#define ACC_WRITE SPTE_GUEST_W
#define ACC_USER  SPTE_USER
#define ACC_EXEC  SPTE_EXEC
#define ACC_ALL	  (ACC_WRITE | ACC_USER | ACC_EXEC)
/* In a role they are these three bits, moved down by one. */
#define ACC_ROLE_SHIFT 1

_Static_assert((SPTE_HVA_MASK & (SPTE_PKEY_MASK | 0xfff)) == 0, "host frame and flags are apart");
_Static_assert((SPTE_MMIO_GFN_MASK & SPTE_MMIO_GEN_MASK) == 0, "mmio gfn and generation are apart");
_Static_assert((SPTE_MMIO & (SPTE_PRESENT | SPTE_RIGHTS | SPTE_DIRTY)) == 0, "mmio bit is its own");
_Static_assert((ACC_ALL >> ACC_ROLE_SHIFT) == 7, "access permissions fit the role's three bits");

static inline bool spte_present(u64 spte)
{
	return spte & SPTE_PRESENT;
}

static inline bool spte_leaf(u64 spte, unsigned level)
{
	return (spte & SPTE_PRESENT) && (level == 1 || (spte & SPTE_LARGE));
}

static inline bool spte_nonleaf(u64 spte, unsigned level)
{
	return (spte & SPTE_PRESENT) && level > 1 && !(spte & SPTE_LARGE);
}

static inline bool spte_mmio(u64 spte)
{
	return (spte & (SPTE_PRESENT | SPTE_MMIO)) == SPTE_MMIO;
}

/* May the TLB allow writes on this leaf, if the guest's rights do? */
static inline bool spte_store_ok(u64 spte)
{
	return (spte & (SPTE_STORABLE | SPTE_DIRTY)) == (SPTE_STORABLE | SPTE_DIRTY);
}

static inline hva_t spte_hva(u64 spte)
{
	return spte & SPTE_HVA_MASK;
}

static inline u64 *spte_child(u64 spte)
{
	return (u64 *)(uintptr_t)(spte & SPTE_HVA_MASK);
}

static inline unsigned spte_pkey(u64 spte)
{
	return (spte & SPTE_PKEY_MASK) >> SPTE_PKEY_SHIFT;
}

static inline u64 spte_make_nonleaf(const u64 *child_spt)
{
	return (uintptr_t)child_spt | SPTE_PRESENT;
}

/* @rights: ACC_...; @dirty: the guest's leaf entry is dirty, so writes may be answered from the spte. */
static inline u64 spte_make_mmio(u64 gfn, u64 rights, bool dirty, u64 generation)
{
	return SPTE_MMIO | (gfn << UM_PAGE_SHIFT) | rights | (dirty ? SPTE_DIRTY : 0) |
	       ((generation << SPTE_MMIO_GEN_SHIFT) & SPTE_MMIO_GEN_MASK);
}

static inline gfn_t spte_mmio_gfn(u64 spte)
{
	return (spte & SPTE_MMIO_GFN_MASK) >> UM_PAGE_SHIFT;
}

static inline bool spte_mmio_current(u64 spte, u64 generation)
{
	return ((spte ^ (generation << SPTE_MMIO_GEN_SHIFT)) & SPTE_MMIO_GEN_MASK) == 0;
}

/* Do the bits of a leaf obey the invariants that a single word can show? */
static inline bool spte_leaf_valid(u64 spte)
{
	if ((spte & SPTE_STORABLE) && (spte & (SPTE_MMU_WRITABLE | SPTE_HOST_WRITABLE)) !=
					      (SPTE_MMU_WRITABLE | SPTE_HOST_WRITABLE))
		return false;
	if ((spte & SPTE_DIRTY) && !(spte & SPTE_STORABLE))
		return false;
	if ((spte & SPTE_MMU_WRITABLE) && !(spte & SPTE_HOST_WRITABLE))
		return false;
	return !(spte & (SPTE_MMIO | GENMASK(58, 56) | BIT(63)));
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The guest page walker: one for all formats (SDM vol. 3 ch. 4), and the rules for permissions.
 *
 * A walk needs no lock of the MMU: it reads the guest's tables, which may change at any moment, like the
 * hardware's walker does.  Whoever makes sptes from it checks under the lock that the entries are still those.
 */
#ifndef UM_MMU_WALKER_H
#define UM_MMU_WALKER_H

#include "cpu/cpu.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "mmu/role.h"

#define PT_MAX_LEVEL 5

/* Guest entry bits, in all formats. */
#define GPTE_PRESENT  BIT(0)
#define GPTE_WRITABLE BIT(1)
#define GPTE_USER     BIT(2)
#define GPTE_ACCESSED BIT(5)
#define GPTE_DIRTY    BIT(6)
#define GPTE_PS	      BIT(7)
#define GPTE_GLOBAL   BIT(8)
#define GPTE_NX	      BIT(63)
#define GPTE_ADDR     GENMASK(51, 12)

/* The format of guest entries: what is reserved, what is large. */
struct um_gpte_format {
	bool pae; /* 8-byte entries */
	bool pse; /* 4-byte entries: 4M pages; always true with 8-byte entries */
	bool lma;
	bool nx;
	bool gbpages; /* CPUID: level 3 of long mode has large pages */
	bool pse36;   /* CPUID: 4M pages have address bits 39:32 */
	u8 maxphyaddr;
};

/* The paging mode of a vCPU, derived from its control registers when they change. */
struct um_paging {
	bool enabled;
	u8 levels;     /* of guest tables walked from CR3 or a PDPTE: 2, 2 (PAE), 4, 5 */
	bool pae_root; /* the walk starts at one of the four PDPTEs */
	struct um_gpte_format fmt;
	bool wp, smep, smap, pke;
	bool fetch_in_error; /* the I/D bit of error codes is in use */
};

struct um_walk {
	unsigned top, leaf; /* levels of the first and last entry */
	gfn_t table[PT_MAX_LEVEL + 1];
	u64 gpte[PT_MAX_LEVEL + 1];
	u64 access[PT_MAX_LEVEL + 1]; /* product of the entries down to this level */
	bool dirty;		      /* leaf entry's D, after the walk */
	u8 pkey;
	gpa_t gpa;
};

/* Fill @p from the control registers of @cpu. */
void um_paging_init(struct um_paging *p, const struct um_cpu *cpu);

/* Reserved bits of an entry of @level that are set (SDM vol. 3 4.4, 4.5; APM vol. 2 5.3). */
u64 um_gpte_reserved(const struct um_gpte_format *f, u64 gpte, unsigned level);
bool um_gpte_large(const struct um_gpte_format *f, u64 gpte, unsigned level);
u64 um_gpte_access(const struct um_gpte_format *f, u64 gpte);
/* First frame of what a leaf entry of @level maps. */
gfn_t um_gpte_gfn(const struct um_gpte_format *f, u64 gpte, unsigned level);

/* Index of @gva in a guest table of @level. */
static inline unsigned um_gpte_index(const struct um_gpte_format *f, gva_t gva, unsigned level)
{
	if (f->pae)
		return (gva >> (UM_PAGE_SHIFT + 9 * (level - 1))) & 511;
	return (gva >> (UM_PAGE_SHIFT + 10 * (level - 1))) & 1023;
}

/* Read one entry at @hva.  False: the host cannot. */
bool um_gpte_read(const struct um_gpte_format *f, const void *hva, u64 *gpte);

/*
 * Which accesses (bits 1 << enum um_access) the guest's rights allow at @priv to a page with @access
 * (ACC_...) and @pkey.  @pkru is the current PKRU.
 */
unsigned um_allowed(const struct um_paging *p, enum um_tlb_priv priv, u64 access, unsigned pkey,
		    u32 pkru);

enum um_walk_result {
	UM_WALK_OK,
	UM_WALK_FAULT, /* f->error_code is set */
	UM_WALK_HOST,  /* a table's host page cannot be read or written */
};

/*
 * Translate f->gva by the tables of @cpu, check permissions, set accessed and dirty bits (not for a
 * probe), for which a vCPU's dirty ring may be given.  Paging is enabled.  Fills *@w, f->gpa, f->level, f->pte_access, f->table_gpa.  The caller is in a
 * read-side section of @mem.
 */
enum um_walk_result um_walk(struct um_mem *mem, struct um_dirty_ring *ring,
			    const struct um_paging *p, const struct um_cpu *cpu, struct um_fault *f,
			    struct um_walk *w);

#endif

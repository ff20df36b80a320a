/* SPDX-License-Identifier: MIT */
/*
 * Page tables of every format (SDM vol. 3, chapter 4), built in identity-mapped memory.
 *
 * A level counts from 1, the page table; an entry at level 2 with PTE_PS maps a large page.
 */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "types.h"

#define PTE_P	 BIT64(0)
#define PTE_W	 BIT64(1)
#define PTE_U	 BIT64(2)
#define PTE_PWT	 BIT64(3)
#define PTE_PCD	 BIT64(4)
#define PTE_A	 BIT64(5)
#define PTE_D	 BIT64(6)
#define PTE_PS	 BIT64(7)
#define PTE_G	 BIT64(8)
#define PTE_NX	 BIT64(63)
#define PTE_ADDR 0x000ffffffffff000ull

/* Error code of a page fault (SDM vol. 3, 4.7). */
#define PF_P	1
#define PF_W	2
#define PF_U	4
#define PF_RSVD 8
#define PF_I	16
#define PF_PK	32

enum paging_mode { PAGING_2LEVEL, PAGING_PAE, PAGING_4LEVEL, PAGING_5LEVEL };

struct space {
	enum paging_mode mode;
	unsigned levels;
	ulong root; /* what CR3 points to */
};

/* An empty address space. */
struct space space_new(enum paging_mode mode);

/*
 * One in which the first 16 MiB are mapped one to one, as a supervisor's, but for the program's
 * user section, which ring 3 may use; by pages of 4 KiB.  With @global, as global pages. With
 * @devices, so are the 4 MiB at 0xfec00000, where the APICs are.
 */
struct space space_kernel(enum paging_mode mode, bool global, bool devices);

/* Bits of entry @va at @level, tables on the way down to it being made as needed (present,
 * writable, user).  The entry is written by space_set() and read by space_get(). */
void space_set(struct space *s, ulong va, unsigned level, u64 entry);
u64 space_get(struct space *s, ulong va, unsigned level);
volatile void *space_entry(struct space *s, ulong va, unsigned level);

static inline void space_map(struct space *s, ulong va, u64 pa, u64 bits)
{
	space_set(s, va, 1, pa | bits);
}

/* Bytes that an entry at @level maps. */
u64 space_size(const struct space *s, unsigned level);

/* Use it: load CR3, and in a 32-bit program that does not page yet, turn paging on. */
void space_load(const struct space *s);

/* Leave paging (32-bit programs). */
void paging_off(void);

/* Width of a physical address. */
unsigned phys_bits(void);

#endif

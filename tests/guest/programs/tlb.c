// SPDX-License-Identifier: MIT
/*
 * What translations survive and what removes them: INVLPG, CR3, global pages, CR4.PGE, PCIDs,
 * INVPCID; large pages; changes that need no invalidation (SDM vol. 3, 4.10).
 *
 * A processor may always forget a translation, so only the removals can be checked; that a
 * stale one is used is not wrong, and is counted for the curious.
 */
#include "cpu.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

#define VA	0x500000000000ul
#define VA_FAR	0x600000000000ul
#define PAGE(n) (SCRATCH_PHYS + (n)*4096ul)
#define RW	(PTE_P | PTE_W)

static unsigned stale;

PROBE(peek, "", "mov (%rax), %rax");
PROBE(poke, "", "lock addq $0, (%rax)");

static u64 at(ulong va)
{
	return *(volatile u64 *)va;
}

static void fill(void)
{
	for (unsigned n = 0; n < 64; n++)
		*(volatile u64 *)PAGE(n) = n;
}

static void single_pages(struct space *s)
{
	for (unsigned n = 0; n < 64; n++) {
		space_map(s, VA, PAGE(n), RW);
		if (n)
			stale += at(VA) != n;
		invlpg(VA + 8);
		CHECK_EQ(at(VA), n, "INVLPG removes a page");
	}
	space_map(s, VA, PAGE(1), RW);
	at(VA);
	space_map(s, VA, PAGE(2), RW);
	flush_tlb();
	CHECK_EQ(at(VA), 2, "CR3 removes a page");
	space_map(s, VA_FAR, 0, 0);
	CHECK_TRAP(trap_call(peek, VA_FAR), VEC_PF, 0, peek_at, "not present");
	space_map(s, VA_FAR, PAGE(3), RW);
	CHECK_EQ(at(VA_FAR), 3, "what becomes present needs no invalidation");
	space_map(s, VA_FAR, PAGE(3), PTE_P);
	invlpg(VA_FAR);
	write_cr0(read_cr0() | CR0_WP);
	CHECK_TRAP(trap_call(poke, VA_FAR), VEC_PF, PF_P | PF_W, poke_at, "write-protected");
	space_map(s, VA_FAR, PAGE(3), RW);
	CHECK_EQ(trap_call(poke, VA_FAR).vector, TRAP_NONE,
		 "what becomes writable after a fault needs no invalidation");
	write_cr0(read_cr0() & ~CR0_WP);
}

/* An entry above the leaf changes: INVLPG of one page removes what was kept of the upper ones. */
static void upper_levels(struct space *s)
{
	struct space other = space_new(PAGING_4LEVEL);

	for (unsigned level = 2; level <= 4; level++) {
		u64 old = space_get(s, VA, level);

		space_map(s, VA, PAGE(10), RW);
		space_map(&other, VA, PAGE(10 + level), RW);
		invlpg(VA);
		at(VA);
		space_set(s, VA, level, space_get(&other, VA, level));
		invlpg(VA);
		CHECK_EQ(at(VA), 10 + level, "INVLPG after a change above the page table");
		space_set(s, VA, level, old);
		invlpg(VA);
		CHECK_EQ(at(VA), 10, "and back");
	}
}

static void large_pages(struct space *s)
{
	ulong va = VA + 0x40000000;

	space_set(s, va, 2, SCRATCH_PHYS | RW | PTE_PS);
	for (unsigned n = 0; n < 64; n++)
		if (at(va + n * 4096ul) != n)
			CHECK_EQ(at(va + n * 4096ul), n, "a large page");
	space_set(s, va, 2, (SCRATCH_PHYS + 0x200000) | RW | PTE_PS);
	invlpg(va + 5 * 4096);
	CHECK(at(va + 63 * 4096) != 63, "INVLPG anywhere in a large page removes all of it");
	/* Split it: a table that maps the pages the other way round. */
	space_set(s, va, 2, 0);
	for (unsigned n = 0; n < 64; n++)
		space_map(s, va + n * 4096ul, PAGE(63 - n), RW);
	invlpg(va);
	for (unsigned n = 0; n < 64; n++)
		if (at(va + n * 4096ul) != 63 - n)
			CHECK_EQ(at(va + n * 4096ul), 63 - n, "a large page that was split");
}

static void global_pages(void)
{
	struct space a = space_kernel(PAGING_4LEVEL, false, false);
	struct space b = space_kernel(PAGING_4LEVEL, false, false);

	write_cr4(read_cr4() | CR4_PGE);
	space_map(&a, VA, PAGE(1), RW | PTE_G);
	space_map(&b, VA, PAGE(2), RW);
	space_load(&a);
	CHECK_EQ(at(VA), 1, "a global page");
	space_load(&b);
	stale += at(VA) != 2;
	invlpg(VA);
	CHECK_EQ(at(VA), 2, "INVLPG removes a global page");
	space_load(&a);
	invlpg(VA);
	at(VA);
	space_load(&b);
	write_cr4(read_cr4() & ~CR4_PGE);
	CHECK_EQ(at(VA), 2, "so does a change of CR4.PGE");
	write_cr4(read_cr4() | CR4_PGE);
	space_load(&a);
	CHECK_EQ(at(VA), 1, "global again");
	space_load(&b);
	write_cr4(read_cr4() ^ CR4_PSE);
	CHECK_EQ(at(VA), 2, "so does a change of CR4.PSE");
	write_cr4(read_cr4() & ~CR4_PGE);
}

static void invpcid(ulong type, ulong pcid, ulong address)
{
	struct {
		u64 pcid, address;
	} d = { pcid, address };

	asm volatile("invpcid %0, %1" : : "m"(d), "r"(type) : "memory");
}

#define KEEP BIT(63)

static void process_contexts(void)
{
	struct space a = space_kernel(PAGING_4LEVEL, false, false);
	struct space b = space_kernel(PAGING_4LEVEL, false, false);

	if (!(cpuid(1, 0).c & BIT(17)))
		return;
	space_load(&a);
	write_cr4(read_cr4() | CR4_PCIDE);
	space_map(&a, VA, PAGE(1), RW);
	space_map(&b, VA, PAGE(2), RW);
	write_cr3(a.root | 1);
	CHECK_EQ(at(VA), 1, "PCID 1");
	write_cr3(b.root | 2);
	CHECK_EQ(at(VA), 2, "PCID 2 does not see what is of PCID 1");
	write_cr3(a.root | 1 | KEEP);
	CHECK_EQ(at(VA), 1, "and back, keeping");
	CHECK_EQ(read_cr3(), a.root | 1, "bit 63 does not read back");
	space_map(&a, VA, PAGE(3), RW);
	write_cr3(b.root | 2 | KEEP);
	write_cr3(a.root | 1);
	CHECK_EQ(at(VA), 3, "CR3 without bit 63 removes what is of its PCID");
	if (cpuid_if(7, 0).b & BIT(10)) {
		space_map(&a, VA, PAGE(4), RW);
		invpcid(0, 1, VA);
		CHECK_EQ(at(VA), 4, "INVPCID, one address");
		space_map(&a, VA, PAGE(5), RW);
		invpcid(1, 1, 0);
		CHECK_EQ(at(VA), 5, "INVPCID, one context");
		space_map(&a, VA, PAGE(6), RW);
		invpcid(3, 0, 0);
		CHECK_EQ(at(VA), 6, "INVPCID, all contexts but global pages");
		space_map(&b, VA, PAGE(7), RW);
		invpcid(2, 0, 0);
		write_cr3(b.root | 2 | KEEP);
		CHECK_EQ(at(VA), 7, "INVPCID, everything");
	}
	write_cr3(a.root);
	write_cr4(read_cr4() & ~CR4_PCIDE);
}

/* Many address spaces, one after the other, each with a page of its own at the same address. */
static void many_spaces(void)
{
	struct space spaces[24];

	for (unsigned n = 0; n < COUNT(spaces); n++) {
		spaces[n] = space_kernel(PAGING_4LEVEL, false, false);
		space_map(&spaces[n], VA, PAGE(n), RW);
	}
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned n = 0; n < COUNT(spaces); n++) {
			space_load(&spaces[n]);
			if (at(VA) != n) {
				CHECK_EQ(at(VA), n, "CR3 changes the address space");
				return;
			}
		}
		/* Write to the tables of one that is not loaded. */
		unsigned n = round % COUNT(spaces);

		space_map(&spaces[n], VA, PAGE(63), RW);
		space_load(&spaces[n]);
		CHECK_EQ(at(VA), 63, "a change while another space was loaded");
		space_map(&spaces[n], VA, PAGE(n), RW);
	}
}

void guest_main(void)
{
	struct space s = space_kernel(PAGING_4LEVEL, false, false);

	fill();
	space_load(&s);
	single_pages(&s);
	upper_levels(&s);
	large_pages(&s);
	global_pages();
	process_contexts();
	many_spaces();
	say("%u stale translations were used, which is allowed\n", stale);
}

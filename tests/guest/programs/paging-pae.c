// SPDX-License-Identifier: MIT
/* PAE paging: who may access what, and reserved bits (SDM vol. 3, 4.3 to 4.7). */
#include "perm.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

PROBE(load_cr3, "", "mov %eax, %cr3");
PROBE(peek, "", "mov (%eax), %eax");

/* The four directory pointers are loaded with CR3, checked then, and not read again later. */
static void directory_pointers(void)
{
	struct space s = space_kernel(PAGING_PAE, false, false);
	struct space bad = space_kernel(PAGING_PAE, false, false);
	u64 *pdpt = (u64 *)s.root, *bad_pdpt = (u64 *)bad.root;
	ulong va = 0x40000000;
	u64 good = bad_pdpt[1];
	unsigned accepted = 0;

	space_map(&s, va, SCRATCH_PHYS, PTE_P | PTE_W);
	space_load(&s);
	*(volatile u32 *)va = 0xabcd;
	pdpt[1] = 0;
	invlpg(va);
	CHECK_EQ(trap_call(peek, va).value, 0xabcd,
		 "a pointer cleared in memory is still in force");
	flush_tlb();
	CHECK_TRAP(trap_call(peek, va), VEC_PF, 0, peek_at, "until CR3 is loaded");

	for (unsigned bit = 1; bit < 64; bit++) {
		bool reserved = bit < 3 || (bit >= 5 && bit < 9) || bit >= phys_bits();

		if (!reserved)
			continue;
		bad_pdpt[1] = good | BIT64(bit);
		accepted += trap_call(load_cr3, bad.root).vector != VEC_GP;
		bad_pdpt[1] = BIT64(bit);
		CHECK_EQ(trap_call(load_cr3, bad.root).vector, TRAP_NONE,
			 "what is not present has no reserved bits");
		space_load(&s);
	}
	CHECK_EQ(accepted, 0, "CR3 := table with a reserved bit is refused");
	paging_off();
}

void guest_main(void)
{
	directory_pointers();
	perm_enumerate(PAGING_PAE);
	paging_off();
	perm_reserved(PAGING_PAE);
}

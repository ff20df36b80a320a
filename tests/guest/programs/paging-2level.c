// SPDX-License-Identifier: MIT
/*
 * 32-bit paging, with 4 MiB pages: who may access what, and reserved bits (SDM vol. 3, 4.3 to 4.7).
 */
#include "perm.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

#define VA 0x50000000ul

PROBE(peek, "", "mov (%eax), %eax");

/* PSE36: bits 13 to 20 of an entry for a 4 MiB page are bits 32 to 39 of the address. */
static void pse36(void)
{
	struct space s = space_kernel(PAGING_2LEVEL, false, false);

	if (!(cpuid(1, 0).d & BIT(17)) || phys_bits() < 36)
		return;
	write_cr4(read_cr4() | CR4_PSE);
	space_load(&s);
	/* The machine has memory above 4 GiB when it has more than 3.5 GiB; see run-guests. */
	space_set(&s, VA, 2, (1 << 13) | PTE_P | PTE_W | PTE_PS);
	space_set(&s, VA + 0x400000, 2, PTE_P | PTE_W | PTE_PS | SCRATCH_PHYS);
	invlpg(VA);
	*(volatile u32 *)(VA + 0x123450) = 0x36363636;
	invlpg(VA);
	CHECK_EQ(*(volatile u32 *)(VA + 0x123450), 0x36363636, "memory above 4 GiB by PSE36");
	*(volatile u32 *)(VA + 0x523450) = 0x12121212;
	CHECK_EQ(*(volatile u32 *)(VA + 0x123450), 0x36363636, "it is not the memory below");
	paging_off();
	CHECK_EQ(*(volatile u32 *)(SCRATCH_PHYS + 0x123450), 0x12121212, "which this is");
}

/* Without CR4.PSE, bit 7 of a directory entry means nothing. */
static void without_pse(void)
{
	struct space s = space_kernel(PAGING_2LEVEL, false, false);

	write_cr4(read_cr4() & ~CR4_PSE);
	space_map(&s, VA, SCRATCH_PHYS, PTE_P | PTE_W);
	space_set(&s, VA, 2, space_get(&s, VA, 2) | PTE_PS);
	space_load(&s);
	*(volatile u32 *)VA = 0x4444;
	paging_off();
	CHECK_EQ(*(volatile u32 *)SCRATCH_PHYS, 0x4444, "bit 7 without CR4.PSE is a table");
}

void guest_main(void)
{
	without_pse();
	pse36();
	perm_enumerate(PAGING_2LEVEL);
	paging_off();
	perm_reserved(PAGING_2LEVEL);
	paging_off();
	CHECK_EQ(trap_call(peek, 0x60000000).vector, TRAP_NONE, "no page faults without paging");
}

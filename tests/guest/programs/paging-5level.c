// SPDX-License-Identifier: MIT
/* 5-level paging: who may access what, and reserved bits (SDM vol. 3, 4.3 to 4.7). */
#include "perm.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

const u8 guest_wants_la57 = 1;

PROBE(peek, "", "mov (%rax), %eax");

void guest_main(void)
{
	struct space s;

	if (!(read_cr4() & CR4_LA57))
		guest_skip("no 5-level paging");
	perm_enumerate(PAGING_5LEVEL);
	perm_reserved(PAGING_5LEVEL);

	s = space_kernel(PAGING_5LEVEL, false, false);
	space_map(&s, 0x00ff123456789000, SCRATCH_PHYS, PTE_P | PTE_W);
	space_map(&s, 0xff00123456789000, SCRATCH_PHYS + 4096, PTE_P | PTE_W);
	space_load(&s);
	*(volatile u32 *)0x00ff123456789010 = 1;
	*(volatile u32 *)0xff00123456789010 = 2;
	CHECK_EQ(*(volatile u32 *)0x00ff123456789010, 1, "the lower half has 56 bits");
	CHECK_EQ(*(volatile u32 *)0xff00123456789010, 2, "and the upper half");
	CHECK_TRAP(trap_call(peek, 0x0100000000000000), VEC_GP, 0, peek_at, "not canonical");
	CHECK_TRAP(trap_call(peek, 0x0080000000000000), VEC_PF, 0, peek_at,
		   "canonical with 57 bits, not with 48");
}

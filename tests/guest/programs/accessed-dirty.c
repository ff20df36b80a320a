// SPDX-License-Identifier: MIT
/*
 * Accessed and dirty bits: set where and when, at every level, and never where an access was
 * refused (SDM vol. 3, 4.8).
 */
#include "cpu.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

#define VA   0x500000000000ul
#define BITS (PTE_A | PTE_D)

PROBE(peek, "", "mov (%rax), %cl");
PROBE(poke, "", "movb $0xc3, (%rax)");
PROBE(add, "", "lock addl $0, (%rax)");
PROBE(compare, "mov $1, %ecx", "lock cmpxchg %ecx, (%rax)");
USER_PROBE(user_peek, "", "mov (%rax), %cl");
USER_PROBE(user_poke, "", "mov %cl, (%rax)");

static struct space s;

/* Clear the bits on the whole path, with @leaf as the leaf's other bits. */
static void reset(ulong va, unsigned level, u64 leaf)
{
	space_set(&s, va, level, SCRATCH_PHYS | leaf);
	for (unsigned up = level + 1; up <= 4; up++)
		space_set(&s, va, up, space_get(&s, va, up) & ~BITS);
	flush_tlb();
}

static u64 bits(ulong va, unsigned level)
{
	return space_get(&s, va, level) & BITS;
}

static void check_path(ulong va, unsigned level, u64 leaf, const char *what)
{
	CHECK_EQ(bits(va, level), leaf, what);
	for (unsigned up = level + 1; up <= 4; up++)
		CHECK_EQ(bits(va, up), leaf ? PTE_A : 0, what);
}

static void plain(ulong va, unsigned level)
{
	u64 large = level > 1 ? PTE_PS : 0;

	reset(va, level, PTE_P | PTE_W | large);
	check_path(va, level, 0, "nothing is set at first");
	trap_call(peek, va);
	check_path(va, level, PTE_A, "a read sets accessed at every level");
	trap_call(poke, va);
	check_path(va, level, BITS, "a write after it sets dirty in the leaf");
	space_set(&s, va, level, SCRATCH_PHYS | PTE_P | PTE_W | large);
	invlpg(va);
	trap_call(poke, va);
	CHECK_EQ(bits(va, level), BITS, "a write sets both");
	space_set(&s, va, level, SCRATCH_PHYS | PTE_P | PTE_W | PTE_A | large);
	invlpg(va);
	trap_call(peek, va);
	CHECK_EQ(bits(va, level), PTE_A, "a read never sets dirty");
	trap_call(add, va);
	CHECK_EQ(bits(va, level), BITS, "a locked addition of 0 sets dirty");
	reset(va, level, PTE_P | PTE_W | large);
	trap_call(compare, va);
	CHECK_EQ(bits(va, level), BITS, "so does a CMPXCHG that does not match");
	reset(va, level, PTE_P | PTE_W | large);
	trap_call((guest_fn)va, 0);
	check_path(va, level, PTE_A, "a fetch sets accessed");
}

static void refused(void)
{
	ulong va = VA;

	write_cr0(read_cr0() | CR0_WP);
	reset(va, 1, PTE_P);
	CHECK_EQ(trap_call(poke, va).vector, VEC_PF, "a write to a read-only page");
	CHECK_EQ(bits(va, 1) & PTE_D, 0, "does not set dirty");
	reset(va, 1, PTE_P | PTE_W);
	CHECK_EQ(user_call(user_poke, va).vector, VEC_PF, "ring 3 in a supervisor's page");
	CHECK_EQ(bits(va, 1) & PTE_D, 0, "does not set dirty");
	write_cr0(read_cr0() & ~CR0_WP);
	reset(va, 1, PTE_P);
	CHECK_EQ(trap_call(poke, va).vector, TRAP_NONE, "without CR0.WP ring 0 may write");
	CHECK_EQ(bits(va, 1), BITS, "and sets dirty, though the entry is read-only");
	space_set(&s, va, 1, SCRATCH_PHYS);
	flush_tlb();
	CHECK_EQ(trap_call(peek, va).vector, VEC_PF, "not present");
	CHECK_EQ(space_get(&s, va, 1), SCRATCH_PHYS, "is left alone");
	reset(va, 1, PTE_P | PTE_W | PTE_U);
	CHECK_EQ(user_call(user_peek, va).vector, TRAP_NONE, "ring 3 may set accessed");
	CHECK_EQ(bits(va, 1), PTE_A, "in a supervisor's tables");
}

void guest_main(void)
{
	*(volatile u8 *)SCRATCH_PHYS = 0xc3; /* RET, for the fetches */
	s = space_kernel(PAGING_4LEVEL, false, false);
	space_map(&s, VA, SCRATCH_PHYS, PTE_P | PTE_W);
	space_load(&s);
	plain(VA, 1);
	plain(VA + 0x40000000, 2);
	refused();
}

// SPDX-License-Identifier: MIT
/*
 * Code that changes itself: behind a jump, in its own basic block, in the next instruction, by
 * another mapping, by a string instruction, across a page boundary (SDM vol. 3, 11.6: on one
 * processor a jump is all it takes, and nothing at all on any that checks, as they all do).
 */
#include "cpu.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

static u8 code[8192] __attribute__((aligned(4096)));

/* mov $n, %eax; ret */
static void emit(u8 *at, u32 n)
{
	at[0] = 0xb8;
	memcpy(at + 1, &n, 4);
	at[5] = 0xc3;
}

static u32 run(const u8 *at)
{
	return ((u32(*)(void))at)();
}

/* The instruction to be changed lies in the same block, directly behind the write. */
PROBE(patch_next, "movb $0x22, patched + 1",
      "patched: mov $0x11, %al; movzbl %al, %eax; movb $0x11, patched + 1");
PROBE(patch_loop, "xor %edx, %edx; mov $5, %ecx; movb $1, looped + 2",
      "2: looped: add $1, %edx; incb looped + 2; loop 2b; mov %edx, %eax");
PROBE(patch_string, "push %esi; push %edi; cld; mov %eax, %esi; mov $strung, %edi; mov $5, %ecx",
      "rep movsb; strung: mov $0x11111111, %eax; pop %edi; pop %esi");

static void rewritten(void)
{
	for (u32 n = 0; n < 1000; n++) {
		emit(code + n % 7, n);
		if (run(code + n % 7) != n) {
			CHECK_EQ(n, 1000, "code rewritten and run again");
			return;
		}
	}
	CHECK(true, "code rewritten and run again");
}

static void in_its_block(void)
{
	u8 donor[5] = { 0xb8, 0x78, 0x56, 0x34, 0x12 };

	CHECK_EQ(trap_call(patch_next, 0).value, 0x22, "the next instruction is changed");
	CHECK_EQ(trap_call(patch_next, 0).value, 0x22, "and again");
	CHECK_EQ(trap_call(patch_loop, 0).value, 1 + 2 + 3 + 4 + 5, "an operand in a loop");
	CHECK_EQ(trap_call(patch_string, (ulong)donor).value, 0x12345678,
		 "REP MOVSB changes what comes behind it");
}

static void across_pages(void)
{
	for (u32 n = 0; n < 16; n++) {
		emit(code + 4096 - 3, n * 0x01010101);
		CHECK_EQ(run(code + 4096 - 3), n * 0x01010101, "an instruction across two pages");
	}
	/* Only its second half, on the second page, is changed. */
	code[4096] = 0x5a;
	CHECK_EQ(run(code + 4096 - 3) >> 16 & 0xff, 0x5a, "and only its half on the second page");
}

/* The write goes through another virtual address than the one that is executed. */
static void through_an_alias(void)
{
	struct space s = space_kernel(PAGING_2LEVEL, false, false);
	u8 *a = (u8 *)0x50000000, *b = (u8 *)0x50400000;

	space_map(&s, (ulong)a, SCRATCH_PHYS, PTE_P | PTE_W);
	space_map(&s, (ulong)b, SCRATCH_PHYS, PTE_P | PTE_W);
	space_load(&s);
	for (u32 n = 0; n < 100; n++) {
		emit(a, n);
		if (run(b) != n) {
			CHECK_EQ(run(b), n, "code changed through an alias");
			break;
		}
	}
	/* And the mapping changes under the code. */
	emit(a, 1);
	space_map(&s, (ulong)a, SCRATCH_PHYS + 4096, PTE_P | PTE_W);
	invlpg((ulong)a);
	emit(a, 2);
	CHECK_EQ(run(b), 1, "the first page has its code still");
	space_map(&s, (ulong)b, SCRATCH_PHYS + 4096, PTE_P | PTE_W);
	invlpg((ulong)b);
	CHECK_EQ(run(b), 2, "another page under the same address has other code");
	paging_off();
}

void guest_main(void)
{
	rewritten();
	in_its_block();
	across_pages();
	through_an_alias();
}

// SPDX-License-Identifier: MIT
/*
 * IRET in 32-bit mode: to the same ring, outward, the flags that each ring may change, and what
 * is refused (SDM vol. 2, IRET).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

PROBE(same_ring, "pushf; push %cs; push $1f; mov %esp, %ecx",
      "iret; 1: mov %esp, %eax; sub %ecx, %eax");
PROBE(set_flags, "push %eax; push %cs; push $1f", "iret; 1: pushf; pop %eax; push $2; popf");
PROBE(pop_flags, "push %eax", "popf; pushf; pop %eax; push $2; popf");
PROBE(to_selector, "pushf; push %eax; push $0", "iret");
PROBE(user_set_flags, "push %eax; push %cs; push $1f", "iret; 1: pushf; pop %eax");
PROBE(user_pop_flags, "push %eax", "popf; pushf; pop %eax");
PROBE(user_inward, "pushf; push $0x08; push $0", "iret");
PROBE(to_user_ss, "push %eax; push $user_stack_top; push $2; push $0x1b; push $user_return",
      "iret");
PROBE(data_segments,
      "mov $0x10, %ecx; mov %ecx, %fs; mov $0x23, %ecx; mov %ecx, %gs; "
      "push $0x23; push $user_stack_top; push $2; push $0x1b; push $user_segments",
      "iret");
asm(".pushsection .text; user_segments: mov %fs, %eax; mov %gs, %ecx; shl $16, %ecx; "
    "or %ecx, %eax; int $0x80; .popsection");

#define ALL                                                                                       \
	(FLAG_CF | FLAG_PF | FLAG_ZF | FLAG_IF | FLAG_DF | FLAG_AC | BIT(21) | 0x3000 | BIT(15) | \
	 FLAG_FIXED)

void guest_main(void)
{
	struct trap t;
	ulong keep = FLAG_CF | FLAG_PF | FLAG_ZF | FLAG_DF | FLAG_AC | BIT(21) | FLAG_FIXED;

	CHECK_EQ(trap_call(same_ring, 0).value, 12, "IRET to the same ring pops three words");
	cli();
	CHECK_EQ(trap_call(set_flags, ALL & ~FLAG_IF).value, keep | 0x3000,
		 "ring 0 may set all but the reserved flags");
	CHECK_EQ(trap_call(pop_flags, ALL & ~FLAG_IF).value, keep | 0x3000, "and by POPF");
	CHECK_EQ(user_call(user_set_flags, ALL).value, keep, "ring 3 keeps IF and IOPL by IRET");
	CHECK_EQ(user_call(user_pop_flags, ALL).value, keep, "ring 3 keeps IF and IOPL by POPF");
	CHECK_EQ(user_call_flags(user_pop_flags, ALL, 0x3000).value, keep | 0x3000 | FLAG_IF,
		 "with IOPL 3 it may set IF, and still not IOPL");
	CHECK_TRAP(user_call(user_inward, 0), VEC_GP, SEL_KCODE, user_inward_at,
		   "ring 3 cannot go inward");
	CHECK_TRAP(trap_call(to_selector, 0), VEC_GP, 0, to_selector_at, "CS null");
	CHECK_TRAP(trap_call(to_selector, SEL_KDATA), VEC_GP, SEL_KDATA, to_selector_at, "CS data");
	gdt_segment(SEL_TEST, 0, 0xfffff, ACC_CODE, SEG_G | SEG_D);
	CHECK_TRAP(trap_call(to_selector, SEL_TEST), VEC_NP, SEL_TEST, to_selector_at,
		   "CS not present");
	gdt_segment(SEL_TEST, 0, 0xfff, ACC_P | ACC_CODE, SEG_D);
	CHECK_TRAP(trap_call(to_user_ss, 0), VEC_GP, 0, to_user_ss_at, "outward, SS null");
	CHECK_TRAP(trap_call(to_user_ss, SEL_KDATA), VEC_GP, SEL_KDATA, to_user_ss_at,
		   "outward, SS of ring 0");
	CHECK_TRAP(trap_call(to_user_ss, SEL_UCODE32), VEC_GP, SEL_UCODE32 & ~3, to_user_ss_at,
		   "outward, SS code");
	t = trap_call(to_user_ss, SEL_UDATA);
	CHECK_EQ(t.vector, VEC_USER_RETURN, "outward");
	CHECK_EQ(t.cs, SEL_UCODE32, "it was ring 3");
	t = trap_call(data_segments, 0);
	CHECK_EQ(t.vector, VEC_USER_RETURN, "outward with segments of both rings loaded");
	CHECK_EQ(t.ax, SEL_UDATA << 16, "those of ring 0 become null, those of ring 3 stay");
}

// SPDX-License-Identifier: MIT
/*
 * 16-bit protected mode: operand and address sizes by the code segment, a stack of 64 KiB whose
 * upper half of ESP does not count, calls between 16 and 32 bits (SDM vol. 1, 3.6; vol. 3,
 * chapter 21).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

#define SEL_CODE16  SEL_TEST
#define SEL_STACK16 (SEL_TEST + 8)

static u8 stack16[65536] __attribute__((aligned(4096)));

/*
 * run16(offset) calls 16-bit code with base begin16 far, which comes back by a 32-bit far return.
 * stack_test() does with SS:SP what it is told, in 32-bit code on the 16-bit stack.
 */
asm(".globl begin16, sizes16, prefixes16, wrap16, run16, push_wrap, far_pointer, jump16\n"
    ".code16\n"
    "begin16:\n"
    "sizes16:	mov $0x11112222, %eax; mov $0x3333, %ax; lretl\n"
    "prefixes16:	movl $0x12345678, %eax; rol $16, %eax; lretl\n"
    "wrap16:	xor %eax, %eax; mov $0xfff0, %bx; lea 0x20(%bx), %ax; lretl\n"
    "jump16:	xor %eax, %eax; jmp 1f; nop\n"
    "1:	mov $7, %al; lretl\n"
    ".code32\n"
    "run16:	push %ebx; mov %eax, far_pointer; lcall *far_pointer; pop %ebx; ret\n"
    "push_wrap:	mov %esp, %ecx; mov $0x98, %edx; mov %edx, %ss\n"
    "	mov %eax, %esp; push $0x51525354; mov %esp, %eax\n"
    "	mov $0x10, %edx; mov %edx, %ss; mov %ecx, %esp; ret\n"
    ".data\n"
    "far_pointer: .long 0; .word 0x90\n"
    ".text\n");
extern const u8 begin16[], sizes16[], prefixes16[], wrap16[], jump16[];
ulong run16(ulong offset);
ulong push_wrap(ulong sp);

static ulong run(const u8 *at)
{
	return run16(at - begin16);
}

void guest_main(void)
{
	gdt_segment(SEL_CODE16, (ulong)begin16, 0xffff, ACC_P | ACC_CODE, 0);
	gdt_segment(SEL_STACK16, (ulong)stack16, 0xffff, ACC_P | ACC_DATA, 0);
	CHECK_EQ(run(sizes16), 0x11113333, "16-bit operands by default, 32-bit ones by prefix");
	CHECK_EQ(run(prefixes16), 0x56781234, "a 32-bit immediate and rotation");
	CHECK_EQ(run(wrap16), 0x0010, "a 16-bit address wraps");
	CHECK_EQ(run(jump16), 7, "a jump within the segment");

	CHECK_EQ(push_wrap(0x1000), 0x0ffc, "PUSH on a 16-bit stack");
	CHECK_EQ(*(u32 *)(stack16 + 0x0ffc), 0x51525354, "writes there");
	CHECK_EQ(push_wrap(0xabcd0010), 0xabcd000c, "the upper half of ESP stays");
	CHECK_EQ(*(u32 *)(stack16 + 0x000c), 0x51525354, "and does not count");
	CHECK_EQ(push_wrap(0xabcd0000), 0xabcdfffc, "SP wraps at 64 KiB");
	CHECK_EQ(*(u32 *)(stack16 + 0xfffc), 0x51525354, "to the top");
}

// SPDX-License-Identifier: MIT
/*
 * To real mode and back; real-mode interrupts by their table, 64 KiB limits, and "unreal" mode,
 * in which a limit loaded in protected mode goes on counting (SDM vol. 3, 9.9 and 20.1).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "smp.h"
#include "trap.h"

/*
 * real_call(offset) runs the code at that offset from LOW_BASE in real mode; it ends with a far
 * jump to rm_back.  %ax is what it leaves there.
 */
asm(".pushsection .data\n"
    ".code16\n"
    ".globl rm_begin, rm_end, rm_plain, rm_int, rm_limit, rm_divide, rm_unreal, rm_enter, rm_a20\n"
    "rm_begin:\n"
    "rm_enter:\n" /* here with CS = SEL_KCODE16, DS.. = SEL_KDATA16, the offset in %bx */
    "	mov %cr0, %edx; and $0xfe, %dl; mov %edx, %cr0\n"
    "	ljmp $0x0800, $(1f - rm_begin)\n"
    "1:	xor %ax, %ax; mov %ax, %ds; mov %ax, %ss; mov $0x7000, %sp\n"
    "	lidtl %cs:(rm_idt - rm_begin)\n"
    "	call *%bx\n"
    "	mov %eax, %esi\n"
    "	mov %cr0, %edx; or $1, %dl; mov %edx, %cr0\n"
    "	ljmpl $0x08, $rm_back\n"
    "rm_plain:	mov $0x0123, %ax; mov %cs, %dx; add %dx, %ax; movzwl %ax, %eax; ret\n"
    "rm_int:	movw $(rm_isr - rm_begin), 0x60 * 4; mov %cs, 0x60 * 4 + 2\n"
    "	xor %eax, %eax; sti; int $0x60; cli; ret\n"
    "rm_isr:	pushf; pop %ax; and $0x200, %ax; add $7, %ax; iret\n"
    "rm_divide:	movw $(rm_de - rm_begin), 0; mov %cs, 2\n"
    "	xor %eax, %eax; xor %dx, %dx; xor %cx, %cx; mov $5, %bp\n"
    "rm_div_at:	div %cx; ret\n"
    "rm_de:	mov %sp, %bp; mov (%bp), %ax; sub $(rm_div_at - rm_begin), %ax\n"
    "	addw $2, (%bp); add $0x55, %ax; iret\n"
    "rm_limit:	movw $(rm_gp - rm_begin), 13 * 4; mov %cs, 13 * 4 + 2\n"
    "	xor %eax, %eax; mov $0xffff, %ebx\n"
    "rm_gp_at:	mov (%bx), %dx\n"
    "	ret\n"
    "rm_gp:	mov %sp, %bp; addw $2, (%bp); mov $0x66, %ax; iret\n"
    "rm_unreal:	mov $0x02000000, %ebx; mov %fs:(%ebx), %eax; ret\n"
    "rm_a20:	mov $0xffff, %ax; mov %ax, %es; xor %eax, %eax; mov %es:0x10, %ax; ret\n"
    "	.balign 4\n"
    "rm_idt:	.word 0x3ff; .long 0\n"
    "rm_end:\n"
    ".code32\n"
    ".popsection\n"
    ".pushsection .text\n"
    ".globl rm_back, real_call\n"
    "real_call:\n"
    "	push %ebx; push %esi; push %edi; push %ebp\n"
    "	sidt rm_save_idt\n"
    "	mov %esp, rm_save_sp\n"
    "	mov %eax, %ebx\n"
    "	mov $0x48, %ecx; mov %ecx, %ds; mov %ecx, %es; mov %ecx, %ss\n"
    "	ljmp $0x40, $0x8000\n" /* SEL_KCODE16 has base 0: the offset is the address */
    "rm_back:\n"
    "	mov $0x10, %ecx; mov %ecx, %ds; mov %ecx, %es; mov %ecx, %ss\n"
    "	mov rm_save_sp, %esp\n"
    "	lidt rm_save_idt\n"
    "	mov %esi, %eax\n"
    "	pop %ebp; pop %edi; pop %esi; pop %ebx\n"
    "	ret\n"
    ".popsection");
extern const u8 rm_begin[], rm_end[], rm_plain[], rm_int[], rm_divide[], rm_limit[], rm_unreal[],
	rm_a20[];
ulong real_call(ulong offset);
ulong rm_save_sp;
struct table_pointer rm_save_idt;

static ulong call(const u8 *at)
{
	return real_call((ulong)at - (ulong)rm_begin);
}

void guest_main(void)
{
	low_copy(rm_begin, rm_end);
	CHECK_EQ(call(rm_plain), 0x0123 + LOW_BASE / 16, "real mode and back");
	CHECK_EQ(call(rm_int), 7, "INT n goes by the table at 0, with IF cleared");
	CHECK_EQ(call(rm_divide), 0x55, "#DE in real mode pushes the address of the DIV");
	*(volatile u32 *)SCRATCH_PHYS = 0x87654321;
	asm volatile("mov %0, %%fs" : : "r"(SEL_KDATA));
	CHECK_EQ(call(rm_unreal), 0x87654321, "a 4 GiB segment stays one in real mode");
	CHECK_EQ(call(rm_a20), *(volatile u16 *)0x100000, "0xffff:0x10 is the byte at 1 MiB");
	CHECK_EQ(call(rm_plain), 0x0123 + LOW_BASE / 16, "once more");
	CHECK_EQ(call(rm_limit), 0x66, "a word at offset 0xffff is #GP, vector 13");
}

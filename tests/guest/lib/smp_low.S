/* SPDX-License-Identifier: MIT */
/*
 * Where a processor starts after the start-up IPI: real mode, CS:IP = 0x0800:0000.  It goes on to
 * protected mode and start_ap with its number in %eax.
 */
#define LOW(symbol) ((symbol) - smp_low_begin)

	.data
	.globl smp_low_begin, smp_low_end, smp_low_cpu
	.balign 16
	.code16
smp_low_begin:
	cli
	mov %cs, %ax
	mov %ax, %ds
	lgdtl LOW(low_gdtr)
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $8, $0x8000 + LOW(1f)
	.code32
1:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov 0x8000 + LOW(smp_low_cpu), %eax
	mov $start_ap, %ecx
	jmp *%ecx
	.balign 8
low_gdt:
	.quad 0
	.quad 0x00cf9a000000ffff
	.quad 0x00cf92000000ffff
low_gdtr:
	.word 23
	.long 0x8000 + LOW(low_gdt)
smp_low_cpu:
	.long 0
smp_low_end:

/* SPDX-License-Identifier: MIT */
/*
 * The start of a 64-bit program: from the loader's protected mode to long mode, with the first
 * 4 GiB mapped one to one by 2 MiB pages; by 5 levels if the program says so (it defines
 * guest_wants_la57) and the processor can.
 */
#include "multiboot.inc"

	.text
	.code32
	.globl start
start:
	cld
	mov $0x80000001, %eax
	cpuid
	test $1 << 29, %edx
	jz no_long_mode

	/* Four page directories, with present, writable, user, accessed, dirty and large set. */
	mov $0xe7, %eax
	mov $boot_pd, %edi
	mov $2048, %ecx
1:	mov %eax, (%edi)
	movl $0, 4(%edi)
	add $0x200000, %eax
	add $8, %edi
	loop 1b
	movl $boot_pd + 0x0007, boot_pdpt
	movl $boot_pd + 0x1007, boot_pdpt + 8
	movl $boot_pd + 0x2007, boot_pdpt + 16
	movl $boot_pd + 0x3007, boot_pdpt + 24
	movl $boot_pdpt + 7, boot_pml4
	movl $boot_pml4 + 7, boot_pml5

	mov $1 << 5, %ebp		/* CR4.PAE */
	mov $boot_pml4, %esi
	mov $guest_wants_la57, %eax
	test %eax, %eax
	jz 2f
	xor %eax, %eax
	cpuid
	cmp $7, %eax
	jb 2f
	mov $7, %eax
	xor %ecx, %ecx
	cpuid
	test $1 << 16, %ecx
	jz 2f
	or $1 << 12, %ebp		/* CR4.LA57 */
	mov $boot_pml5, %esi
2:	mov %ebp, boot_cr4
	mov %esi, boot_cr3
	mov $stacks + 16384, %esp
	xor %esi, %esi

/* Enter long mode on the stack in %esp; %esi is the number of the processor. */
enter_long:
	mov boot_cr4, %eax
	mov %eax, %cr4
	mov boot_cr3, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $1 << 8, %eax		/* EFER.LME */
	wrmsr
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	lgdt boot_gdtr
	ljmp $8, $3f

	.code64
3:	xor %eax, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov %esp, %esp
	mov %esi, %edi
	test %edi, %edi
	jnz 4f
	call guest_start
4:	call ap_start

	.code32
	.globl start_ap
start_ap:
	mov %eax, %esi
	lea 1(%eax), %esp
	shl $14, %esp
	add $stacks, %esp
	jmp enter_long

no_long_mode:
	mov $0x12, %al			/* GUEST_SKIP */
	out %al, $0xf4
	hlt

	.weak guest_wants_la57

	.data
	.balign 8
boot_gdt:
	.quad 0
	.quad 0x00af9a000000ffff
boot_gdtr:
	.word 15
	.long boot_gdt
	.long 0
boot_cr4:
	.long 0
boot_cr3:
	.long 0

	.bss
	.balign 4096
boot_pml5:
	.skip 4096
boot_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pd:
	.skip 4 * 4096

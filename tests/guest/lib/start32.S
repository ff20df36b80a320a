/* SPDX-License-Identifier: MIT */
/*
 * The start of a 32-bit program: the loader leaves us in protected mode with flat segments and
 * without a stack (multiboot v1, "Machine state").
 */
#include "multiboot.inc"

	.text
	.globl start
start:
	cld
	mov $stacks + 16384, %esp
	xor %eax, %eax
	mov $0, %edx
	call guest_start		/* never returns */

/*
 * Where another processor arrives from the real-mode code of smp_low.S: protected mode, flat
 * segments, its number in %eax.
 */
	.globl start_ap
start_ap:
	lea 1(%eax), %esp
	shl $14, %esp
	add $stacks, %esp
	call ap_start

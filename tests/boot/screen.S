/* SPDX-License-Identifier: MIT */
/*
 * A boot sector that draws on the screen of a PC, for tests that look at the picture.
 *
 * It draws, says so on the first serial port with a letter on a line, and goes on at the next key:
 *
 *	a, b	text, 80 x 25: cell i is the character 0x20 + (7 i + step) % 95, light grey on black; step is 0, then 1
 *	c, d	mode 0x13, 320 x 200: the pixel (x, y) is of colour (x + y + step) & 0xff
 *	e, f	640 x 400, 32 bits each, in a linear frame buffer: pixel i is 0x10101 i + 0x123456 step (mod 2^24)
 *	g	the same as f, but for the pixel in the middle, which is white
 *
 * or '!', if there is no such frame buffer. The frame buffer is reached with the limits that a segment register
 * keeps from protected mode. The text goes through MMIO; the pictures are stores to memory that the VMM asks
 * the dirty log for.
 */
	.code16
	.globl	_start
_start:
	ljmp	$0, $main
main:
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	cld
	mov	$0x03, %ax
	int	$0x10
	mov	$0x01, %ah		# no cursor
	mov	$0x2000, %cx
	int	$0x10
	call	text
	call	text

	mov	$0x13, %ax
	int	$0x10
	movb	$0, step
	call	picture
	call	picture

	mov	$0x4f01, %ax		# what the mode is like: the frame buffer's address is at 0x28
	mov	$0x4141, %cx
	push	%ds
	pop	%es
	mov	$info, %di
	int	$0x10
	mov	$0x4f02, %ax
	mov	$0x4141, %bx
	int	$0x10
	cmp	$0x004f, %ax
	jne	fail
	movb	$0, step
	call	frame
	call	frame
	call	flat
	mov	info + 0x28, %edi
	movl	$0xffffff, %es:4 * (640 * 200 + 320)(%edi)
	call	done
	jmp	.

fail:
	mov	$'!', %al
	call	say
	jmp	.

say:
	mov	$0x3f8, %dx
	out	%al, %dx
	mov	$'\n', %al
	out	%al, %dx
	ret

text:
	mov	$0xb800, %ax
	mov	%ax, %es
	xor	%di, %di
	mov	$80 * 25, %cx
	mov	step, %bl
1:	lea	0x20(%bx), %ax
	mov	$0x07, %ah
	stosw
	add	$7, %bl
	cmp	$95, %bl
	jb	2f
	sub	$95, %bl
2:	loop	1b
	jmp	done

picture:
	mov	$0xa000, %ax
	mov	%ax, %es
	xor	%di, %di
	mov	step, %bl
	mov	$200, %dx
1:	mov	%bl, %al
	mov	$320, %cx
2:	stosb
	inc	%al
	loop	2b
	inc	%bl
	dec	%dx
	jnz	1b
	jmp	done

frame:
	call	flat
	mov	info + 0x28, %edi
	movzbl	step, %eax
	imul	$0x123456, %eax, %eax
	mov	$640 * 400, %ecx
1:	mov	%eax, %es:(%edi)
	add	$4, %edi
	add	$0x10101, %eax
	dec	%ecx
	jnz	1b
done:					# tell, wait for a key, and count the step
	mov	letter, %al
	call	say
	incb	letter
	incb	step
	sti
	xor	%ah, %ah
	int	$0x16
	ret

flat:					# ES begins at 0 and reaches all 4 GiB, until the BIOS uses it
	cli
	lgdt	gdt_pointer
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	mov	$8, %bx
	mov	%bx, %es
	and	$~1, %al
	mov	%eax, %cr0
	xor	%bx, %bx
	mov	%bx, %es
	ret

letter:	.byte	'a'
	.byte	'!'
step:	.byte	0
	.balign	8
gdt:	.quad	0, 0x00cf92000000ffff
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.org	510
	.word	0xaa55
	.set	info, 0x8000

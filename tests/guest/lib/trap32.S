/* SPDX-License-Identifier: MIT */
/* Exception entry for 32-bit programs; trap.h describes the frame that is built here. */

#define WORD	  .long
#define WORD_SIZE 4
#include "trap_stubs.inc"

	.text
trap_common:
	pusha
	push %ds
	push %es
	push %fs
	push %gs
	mov $0x10, %eax			/* SEL_KDATA */
	mov %eax, %ds
	mov %eax, %es
	cld
	mov %esp, %eax
	call trap_entry
	pop %gs
	pop %fs
	pop %es
	pop %ds
	popa
	add $8, %esp
	iret

/* What trap_resume() restores, into its first argument. */
	.macro save_resume
	mov %esp, (%eax)
	mov %ebx, 4(%eax)
	mov %esi, 8(%eax)
	mov %edi, 12(%eax)
	mov %ebp, 16(%eax)
	pushf
	pop 20(%eax)
	.endm

/* int trap_save(struct resume *r, guest_fn fn, ulong arg): see trap.c. */
	.globl trap_save
trap_save:
	save_resume
	push %eax
	mov %ecx, %eax
	call *%edx
	mov $0x10, %edx			/* the program may test DS, ES and SS */
	mov %edx, %ds
	mov %edx, %es
	mov %edx, %ss
	pop %edx
	mov %eax, 24(%edx)
	mov $-1, %eax
	ret

/* void trap_resume(struct resume *r, int vector): trap_save() returns vector, a second time. */
	.globl trap_resume
trap_resume:
	mov $0x10, %ecx
	mov %ecx, %ss
	mov (%eax), %esp
	mov %ecx, %ds
	mov %ecx, %es
	mov %ecx, %fs
	mov %ecx, %gs
	mov 4(%eax), %ebx
	mov 8(%eax), %esi
	mov 12(%eax), %edi
	mov 16(%eax), %ebp
	push 20(%eax)
	popf
	mov %edx, %eax
	ret

/*
 * void trap_enter_user(struct resume *r, guest_fn fn, ulong arg, ulong sp, ulong flags): with the
 * last two on the stack.  Comes back through trap_resume() only.
 */
	.globl trap_enter_user
trap_enter_user:
	save_resume
	mov 4(%esp), %ebx		/* sp */
	mov 8(%esp), %esi		/* flags */
	push $0x23
	push %ebx
	push %esi
	push $0x1b
	push %edx
	mov $0x23, %edx
	mov %edx, %ds
	mov %edx, %es
	mov %ecx, %eax
	iret

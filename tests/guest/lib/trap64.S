/* SPDX-License-Identifier: MIT */
/* Exception entry for 64-bit programs; trap.h describes the frame that is built here. */

#define WORD	  .quad
#define WORD_SIZE 8
#include "trap_stubs.inc"

	.text
trap_common:
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov %rsp, %rdi
	mov %rsp, %rbp
	and $-16, %rsp
	call trap_entry
	mov %rbp, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

/* What trap_resume() restores, into its first argument. */
	.macro save_resume
	mov %rsp, (%rdi)
	mov %rbx, 8(%rdi)
	mov %rbp, 16(%rdi)
	mov %r12, 24(%rdi)
	mov %r13, 32(%rdi)
	mov %r14, 40(%rdi)
	mov %r15, 48(%rdi)
	pushf
	pop 56(%rdi)
	.endm

/* int trap_save(struct resume *r, guest_fn fn, ulong arg): see trap.c. */
	.globl trap_save
trap_save:
	save_resume
	push %rdi
	mov %rdx, %rdi
	call *%rsi
	pop %rdi
	mov %rax, 64(%rdi)
	mov $-1, %eax
	ret

/* void trap_resume(struct resume *r, int vector): trap_save() returns vector, a second time. */
	.globl trap_resume
trap_resume:
	mov $0x10, %eax
	mov %eax, %ss
	mov (%rdi), %rsp
	mov %eax, %ds
	mov %eax, %es
	mov 8(%rdi), %rbx
	mov 16(%rdi), %rbp
	mov 24(%rdi), %r12
	mov 32(%rdi), %r13
	mov 40(%rdi), %r14
	mov 48(%rdi), %r15
	push 56(%rdi)
	popf
	mov %esi, %eax
	ret

/*
 * void trap_enter_user(struct resume *r, guest_fn fn, ulong arg, ulong sp, ulong flags).  Comes back
 * through trap_resume() only.
 */
	.globl trap_enter_user
trap_enter_user:
	save_resume
	push $0x23
	push %rcx
	push %r8
	push $0x2b
	push %rsi
	mov $0x23, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %rdx, %rdi
	iretq

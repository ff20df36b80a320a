/* SPDX-License-Identifier: MIT */
/* Exception entry for 64-bit programs; trap.h describes the frame that is built here. */

	.text
	.altmacro
	.macro stub vec
trap_stub_\vec:
	.if (\vec == 8) || ((\vec >= 10) && (\vec <= 14)) || (\vec == 17)
	.else
	push $0
	.endif
	push $\vec
	jmp trap_common
	.endm
	.macro stub_address vec
	.quad trap_stub_\vec
	.endm

	.set i, 0
	.rept 256
	stub %i
	.set i, i + 1
	.endr

	.section .rodata
	.balign 8
	.globl trap_stubs
trap_stubs:
	.set i, 0
	.rept 256
	stub_address %i
	.set i, i + 1
	.endr

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

/* int trap_save(struct resume *r, guest_fn fn, ulong arg): see trap.c. */
	.globl trap_save
trap_save:
	mov %rsp, (%rdi)
	mov %rbx, 8(%rdi)
	mov %rbp, 16(%rdi)
	mov %r12, 24(%rdi)
	mov %r13, 32(%rdi)
	mov %r14, 40(%rdi)
	mov %r15, 48(%rdi)
	pushf
	pop 56(%rdi)
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
	mov %rsp, (%rdi)
	mov %rbx, 8(%rdi)
	mov %rbp, 16(%rdi)
	mov %r12, 24(%rdi)
	mov %r13, 32(%rdi)
	mov %r14, 40(%rdi)
	mov %r15, 48(%rdi)
	pushf
	pop 56(%rdi)
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

	.section .utext, "ax"
	.globl user_return
user_return:
	int $0x80

	.section .udata, "aw"
	.balign 4096
	.globl user_stack, user_stack_top
user_stack:
	.skip 16384 - 64
user_stack_top:				/* where user_return is the return address */
	.quad user_return
	.skip 64 - 8

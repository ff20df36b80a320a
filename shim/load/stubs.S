/* SPDX-License-Identifier: MIT */
/*
 * Where a thread changes between the program's life and ours (load.h).
 *
 * To ours: first the selector, so that signals wait; then FS base and stack.  Back: FS base and stack first, then the
 * selector, and last a look whether signals have waited: those that come after the selector was set are the program's
 * already.  %gs:0 is the thread's struct um_load_thread in both lives.
 *
 * A system call of the kernel's clobbers rax, rcx and r11 and nothing else: so do the stubs that stand for one.
 */
#include "load/offsets.h"

#define SYS_rt_sigprocmask 14
#define SYS_rt_sigreturn   15
#define SYS_clone	   56
#define SYS_exit	   60
#define SYS_sigaltstack	   131
#define SYS_arch_prctl	   158
#define ARCH_SET_FS	   0x1002
#define ARCH_GET_FS	   0x1003

	.text

/* FS base to memory at \mem, and from register \reg.  These clobber rax, rcx, rdx, rsi, rdi, r11. */
.macro get_fs mem
	cmpb	$0, %gs:T_FSGSBASE
	je	1f
	rdfsbase %rax
	mov	%rax, \mem
	jmp	2f
1:	mov	$ARCH_GET_FS, %edi
	lea	\mem, %rsi
	mov	$SYS_arch_prctl, %eax
	syscall
2:
.endm

.macro set_fs reg
	cmpb	$0, %gs:T_FSGSBASE
	je	1f
	wrfsbase \reg
	jmp	2f
1:	mov	\reg, %rsi
	mov	$ARCH_SET_FS, %edi
	mov	$SYS_arch_prctl, %eax
	syscall
2:
.endm

/* ---- the stubs that are copied: no references to other code but by the thread and absolute addresses ---- */

	.globl	um_load_stubs
	.p2align 4
um_load_stubs:

/* A system call of the program that the kernel is to do: the return address is on the stack, below the red zone. */
	.globl	um_load_stub_pass
um_load_stub_pass:
	syscall
	ret	$128

/* The same with registers that had been changed for it, and the room for that: syscalls.c. */
	.globl	um_load_stub_pass_mask
	.p2align 4
um_load_stub_pass_mask:
	syscall
	mov	8(%rsp), %r10
	mov	16(%rsp), %r8
	mov	24(%rsp), %r9
	mov	32(%rsp), %rdi
	ret	$(128 + 64 - 8)

/* Return from a handler; rsp is at the frame's context. */
	.globl	um_load_stub_restorer
	.p2align 4
um_load_stub_restorer:
	mov	$SYS_rt_sigreturn, %eax
	syscall
	ud2

/* Signals have waited: set the thread's mask, and they come.  Keeps all registers. */
	.globl	um_load_stub_mask
	.p2align 4
um_load_stub_mask:
	pushfq
	push	%rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r10
	push	%r11
	movb	$0, %gs:T_DEFERRED
	mov	%gs:T_SELF, %rsi
	add	$T_MASK, %rsi
	mov	$SYS_rt_sigprocmask, %eax
	mov	$2, %edi /* SIG_SETMASK */
	xor	%edx, %edx
	mov	$8, %r10d
	syscall
	pop	%r11
	pop	%r10
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
	popfq
	ret

/*
 * A rewritten ioctl(): called from its trampoline, with rsp below the red zone.  What our code may clobber is saved,
 * the extended state as well: compilers keep values in vector registers across a system call.
 */
	.globl	um_load_stub_ioctl
	.p2align 4
um_load_stub_ioctl:
	pushfq
	mov	%gs:T_SELF, %rcx
	/* In a handler on the signal stack, signals of our life would come over it: by SIGSYS, then. */
	mov	%rsp, %rax
	sub	T_KERNEL_LOW(%rcx), %rax
	cmp	T_KERNEL_SIZE(%rcx), %rax
	jb	6f
	movb	$SELECT_OURS, T_SELECTOR(%rcx)
	cld
	mov	%rsp, T_PROGRAM_RSP(%rcx)
	mov	T_STACK(%rcx), %rsp
	push	%rdi
	push	%rsi
	push	%rdx
	push	%r8
	push	%r9
	push	%r10
	push	%rbx
	push	%rbp
	mov	%rcx, %rbx
	mov	T_XSAVE(%rbx), %rbp
	mov	%rdx, %r8
	mov	$-1, %eax
	mov	$-1, %edx
	cmpb	$0, T_XSAVEC(%rbx)
	je	1f
	xsavec64 (%rbp)
	jmp	2f
1:	xsave64	(%rbp)
2:	mov	%rdi, %r9
	mov	%rsi, %r10
	get_fs	T_PROGRAM_FS(%rbx)
	mov	T_OUR_FS(%rbx), %rcx
	set_fs	%rcx
	mov	%rbx, %rdi
	mov	%r9, %rsi
	mov	%r10, %rdx
	mov	%r8, %rcx
	call	*T_FAST_IOCTL(%rbx)
	mov	%rax, %r8
	mov	T_PROGRAM_FS(%rbx), %rcx
	set_fs	%rcx
	mov	$-1, %eax
	mov	$-1, %edx
	xrstor64 (%rbp)
	mov	%r8, %rax
	mov	%rbx, %rcx
	pop	%rbp
	pop	%rbx
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdx
	pop	%rsi
	pop	%rdi
	mov	T_PROGRAM_RSP(%rcx), %rsp
	movb	$SELECT_PROGRAM, T_SELECTOR(%rcx)
	cmpb	$0, T_DEFERRED(%rcx)
	jne	4f
3:	cmp	$-0x10000, %rax
	je	5f
	popfq
	ret
4:	call	um_load_stub_mask
	jmp	3b
5:	mov	$16, %eax
	popfq
	syscall
	ret
6:	mov	$16, %eax
	popfq
	jmp	*%gs:T_DISPATCHED

	.globl	um_load_stubs_end
um_load_stubs_end:

/* A system call that does raise SIGSYS, for a stub. */
	.globl	um_load_dispatched
	.type	um_load_dispatched, @function
um_load_dispatched:
	syscall
	ret
	.size	um_load_dispatched, . - um_load_dispatched

/* ---- signals ---- */

/* (edi: signal, rsi: siginfo, rdx: context.)  All registers are in the frame. */
	.globl	um_load_signal_entry
	.type	um_load_signal_entry, @function
	.p2align 4
um_load_signal_entry:
	mov	%gs:T_SELF, %rbx
	mov	%rsp, %rbp
	mov	%edi, %r12d
	mov	%rsi, %r13
	mov	%rdx, %r14
	cmpb	$SELECT_OURS, T_SELECTOR(%rbx)
	je	.Lours
	movb	$SELECT_OURS, T_SELECTOR(%rbx)
	get_fs	T_PROGRAM_FS(%rbx)
	mov	T_OUR_FS(%rbx), %rcx
	set_fs	%rcx
	/*
	 * On our signal stack we stay on it: the kernel sees that it is in use.  The program's may be small, so
	 * there, and on its ordinary stack, we change to our ordinary one.
	 */
	and	$-16, %rsp
	mov	%rsp, %rax
	sub	T_ALTSTACK(%rbx), %rax
	cmp	$ALTSTACK_SIZE, %rax
	jb	3f
	mov	T_STACK(%rbx), %rsp
3:	mov	%rbx, %rdi
	mov	%r12d, %esi
	mov	%r13, %rdx
	mov	%r14, %rcx
	call	um_load_program_signal
	mov	%rax, %r15
	mov	T_PROGRAM_FS(%rbx), %rcx
	set_fs	%rcx
	mov	%rbp, %rsp
	movb	$SELECT_PROGRAM, T_SELECTOR(%rbx)
	cmpb	$0, T_DEFERRED(%rbx)
	je	1f
	call	*um_load_mask_stub(%rip)
1:	test	%r15, %r15
	jz	2f
	mov	%r12d, %edi
	mov	%r13, %rsi
	mov	%r14, %rdx
	jmp	*%r15
2:	ret

.Lours:
	/* FS base is ours, or the program's if this is a few instructions from the change. */
	sub	$24, %rsp
	and	$-16, %rsp
	get_fs	0(%rsp)
	mov	(%rsp), %r15
	mov	T_OUR_FS(%rbx), %rcx
	set_fs	%rcx
	mov	%rbx, %rdi
	mov	%r12d, %esi
	mov	%r13, %rdx
	mov	%r14, %rcx
	call	um_load_our_signal
	set_fs	%r15
	mov	%rbp, %rsp
	ret
	.size	um_load_signal_entry, . - um_load_signal_entry

	.globl	um_load_sigreturn
	.type	um_load_sigreturn, @function
um_load_sigreturn:
	mov	%rdi, %rbx
	mov	%rsi, %rsp
	mov	%rdx, %rbp
	mov	T_PROGRAM_FS(%rbx), %rcx
	set_fs	%rcx
	movb	$SELECT_PROGRAM, T_SELECTOR(%rbx)
	jmp	*%rbp
	.size	um_load_sigreturn, . - um_load_sigreturn

/* ---- beginning and end of the program's life ---- */

/* Places in gregs[]: <sys/ucontext.h>. */
#define R8  0
#define R9  8
#define R10 16
#define R11 24
#define R12 32
#define R13 40
#define R14 48
#define R15 56
#define RDI 64
#define RSI 72
#define RBP 80
#define RBX 88
#define RDX 96
#define RAX 104
#define RSP 120
#define RIP 128

	.globl	um_load_enter
	.type	um_load_enter, @function
um_load_enter:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rdi, %rbx
	mov	%rsi, %rbp
	mov	%rsp, T_EXIT_RSP(%rbx)
	mov	T_PROGRAM_FS(%rbx), %rcx
	set_fs	%rcx
	/* The stack may be where @gregs is not any more: all is read before the selector lets signals in. */
	mov	RSP(%rbp), %rsp
	mov	RIP(%rbp), %rcx
	mov	R8(%rbp), %r8
	mov	R9(%rbp), %r9
	mov	R10(%rbp), %r10
	mov	R12(%rbp), %r12
	mov	R13(%rbp), %r13
	mov	R14(%rbp), %r14
	mov	R15(%rbp), %r15
	mov	RDI(%rbp), %rdi
	mov	RSI(%rbp), %rsi
	mov	RDX(%rbp), %rdx
	mov	RAX(%rbp), %rax
	mov	RBX(%rbp), %rbx
	mov	RBP(%rbp), %rbp
	xor	%r11d, %r11d
	movb	$SELECT_PROGRAM, %gs:T_SELECTOR
	cmpb	$0, %gs:T_DEFERRED
	je	1f
	call	*um_load_mask_stub(%rip)
1:	jmp	*%rcx
	.size	um_load_enter, . - um_load_enter

	.globl	um_load_leave
	.type	um_load_leave, @function
um_load_leave:
	mov	T_EXIT_RSP(%rdi), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret
	.size	um_load_leave, . - um_load_leave

/* ---- for C ---- */

	.globl	um_load_syscall
	.type	um_load_syscall, @function
um_load_syscall:
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
	syscall
	ret
	.size	um_load_syscall, . - um_load_syscall

	.globl	um_load_clone
	.type	um_load_clone, @function
um_load_clone:
	push	%rbx
	push	%rbp
	mov	%r8, %rbx
	mov	%r9, %rbp
	mov	%rcx, %r10
	xor	%r8d, %r8d
	mov	$SYS_clone, %eax
	syscall
	test	%rax, %rax
	jz	1f
	pop	%rbp
	pop	%rbx
	ret
1:	and	$-16, %rsp
	mov	%rbp, %rdi
	call	*%rbx
	ud2
	.size	um_load_clone, . - um_load_clone

	.globl	um_load_sigaltstack
	.type	um_load_sigaltstack, @function
um_load_sigaltstack:
	mov	%rsp, %rdx
	mov	%gs:T_STACK, %rsp
	xor	%esi, %esi
	mov	$SYS_sigaltstack, %eax
	syscall
	mov	%rdx, %rsp
	ret
	.size	um_load_sigaltstack, . - um_load_sigaltstack

	.globl	um_load_copy
	.globl	um_load_copy_insn
	.globl	um_load_copy_end
	.type	um_load_copy, @function
um_load_copy:
	mov	%rdx, %rcx
um_load_copy_insn:
	rep movsb
um_load_copy_end:
	mov	%rcx, %rax
	ret
	.size	um_load_copy, . - um_load_copy

	.section .note.GNU-stack, "", @progbits

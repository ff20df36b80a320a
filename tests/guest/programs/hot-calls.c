// SPDX-License-Identifier: MIT
/*
 * Calls and returns that are executed often, for engines that guess where a RET goes: nesting that is deeper than any such guess
 * remembers, returns that don't match their calls (changed, dropped or made-up return addresses, other stacks), and returns in the
 * other ring.
 */
#include "cpu.h"
#include "guest.h"
#include "hot.h"
#include "trap.h"

/* rdi calls deep: the sum of 1..rdi. */
ulong deep(ulong n);
asm(".text; .globl deep; deep: test %rdi, %rdi; jz 1f; push %rdi; dec %rdi; call deep; pop %rdi; "
    "add %rdi, %rax; ret; 1: xor %eax, %eax; ret");

/* The same by a call of a register to another page, and a RET that pops an argument. */
ulong deep_far(ulong n);
asm(".p2align 12; .globl deep_far; deep_far: test %rdi, %rdi; jz 1f; push %rdi; push %rdi; dec "
    "%rdi; "
    "mov $deep_far_turn, %eax; call *%rax; pop %rdi; add %rdi, %rax; ret; 1: xor %eax, %eax; ret; "
    ".p2align 12; deep_far_turn: call deep_far; ret $8; .p2align 12");

static void nesting(void)
{
	static const unsigned depth[] = { 1, 2, 7, 126, 127, 128, 129, 130, 255, 256, 257, 600 };

	for (unsigned round = 0; round < HOT; round++) {
		ulong n = depth[round % (sizeof(depth) / sizeof(depth[0]))];

		if (!HOT_EQ(deep(n), n * (n + 1) / 2, "nested calls") ||
		    !HOT_EQ(deep_far(n), n * (n + 1) / 2, "nested calls to another page"))
			break;
	}
}

/* Calls a function that returns behind rdi bytes of what follows the call, each INC EAX. */
ulong skip(ulong n);
asm(".globl skip; skip: xor %eax, %eax; call 1f; .rept 8; inc %eax; .endr; ret; "
    "1: shl %rdi; add %rdi, (%rsp); ret");

/* A call that only pushes RIP; the RET behind it is its caller's. */
ulong where(void);
asm(".globl where; where: call 1f; 1: pop %rax; sub $1b, %rax; ret");

/* A jump by PUSH and RET, to the place behind a call that has returned, and to one that had none. */
ulong pushed(ulong n);
asm(".globl pushed; pushed: xor %ecx, %ecx; xor %eax, %eax; call 2f; 1: inc %eax; cmp %edi, %eax; "
    "jae 3f; "
    "push $1b; ret; 2: ret; 3: push $4f; ret; int3; 4: ret");

/* rdi frames are left at once, from within the innermost: the number of these. */
ulong leave_all(ulong n);
asm(".globl leave_all; leave_all: mov %rsp, %rdx; xor %eax, %eax; call 1f; ud2; "
    "1: inc %rax; cmp %rdi, %rax; jae 2f; call 1b; ud2; 2: mov %rdx, %rsp; ret");

static void mismatches(void)
{
	for (unsigned round = 0; round < 3 * HOT; round++) {
		if (!HOT_EQ(skip(round % 9), 8 - round % 9, "a changed return address") ||
		    !HOT_EQ(where(), 0, "a return address that was popped") ||
		    !HOT_EQ(pushed(1 + round % 5), 1 + round % 5, "a jump by RET") ||
		    !HOT_EQ(leave_all(1 + round % 200), 1 + round % 200, "frames left at once"))
			break;
	}
}

/* Two stacks take turns: on the other one, a loop that yields rbx for ever. */
ulong other_stack[512], other_sp;
ulong turns(ulong n);
asm(".globl turns; turns: push %rbx; push %rbp; xor %ebp, %ebp; mov $other_stack + 4096 - 8, %eax; "
    "movq $other, (%rax); mov %rax, other_sp; "
    "1: call yield; add %rbx, %rbp; dec %rdi; jnz 1b; mov %rbp, %rax; pop %rbp; pop %rbx; ret; "
    "other: xor %ebx, %ebx; 2: inc %ebx; call 3f; jmp 2b; 3: call yield; ret; "
    "yield: xchg %rsp, other_sp; ret");

static void two_stacks(void)
{
	for (unsigned round = 0; round < HOT; round++) {
		if (!HOT_EQ(turns(20), 210, "two stacks"))
			break;
	}
}

/* RET to what is no code. */
PROBE(to_nowhere, "mov $0x100000000, %rcx; push %rcx", "ret");
PROBE(to_noncanonical, "mov $0x8000000000000000, %rcx; push %rcx", "ret");

static void faults(void)
{
	for (unsigned round = 0; round < HOT; round++) {
		if (!HOT_EQ(trap_call(to_nowhere, 0).vector, VEC_PF,
			    "RET to an address without a page") ||
		    !HOT_EQ(read_cr2(), 0x100000000, "where it went") ||
		    !HOT_EQ(trap_call(to_noncanonical, 0).vector, VEC_GP, "RET to no address") ||
		    !HOT_EQ(deep(3), 6, "calls behind it"))
			break;
	}
}

/* Ring 3 calls the same functions. */
USER_PROBE(user_calls, "mov $5, %ecx",
	   "1: call 2f; dec %ecx; jnz 1b; jmp 3f; 2: call 4f; ret; 4: ret; 3: nop");

static void rings(void)
{
	for (unsigned round = 0; round < HOT; round++) {
		if (!HOT_EQ(user_call(user_calls, 0).vector, TRAP_NONE, "calls in ring 3") ||
		    !HOT_EQ(deep(4), 10, "calls in ring 0"))
			break;
	}
}

void guest_main(void)
{
	nesting();
	mismatches();
	two_stacks();
	faults();
	rings();
}

// SPDX-License-Identifier: MIT
/*
 * Exceptions of 64-bit mode: what is gone from it, canonical addresses, stack alignment of
 * frames, interrupt stacks, double faults (SDM vol. 3, 6.14 and 3.3.7.1).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

#define NOT_CANONICAL 0x8000000000000000ul

PROBE(divide, "xor %edx, %edx; xor %ecx, %ecx", "div %rcx");
PROBE(undefined, "", "ud2");
PROBE(push_es, "", ".byte 0x06");
PROBE(into, "", ".byte 0xce");
PROBE(aaa, "", ".byte 0x37");
PROBE(daa, "", ".byte 0x27");
PROBE(pusha_, "", ".byte 0x60");
PROBE(ljmp_imm, "", ".byte 0xea, 0, 0, 0, 0, 8, 0");
PROBE(bound_32, "", ".byte 0x82, 0xc0, 0");
PROBE(peek, "", "mov (%rax), %cl");
PROBE(poke, "", "mov %cl, (%rax)");
PROBE(peek_stack, "mov %rsp, %rdx; mov %rax, %rsp", "mov (%rsp), %cl; mov %rdx, %rsp");
PROBE(peek_bp, "mov %rbp, %rdx; mov %rax, %rbp", "mov (%rbp), %cl; mov %rdx, %rbp");
PROBE(jump_far_away, "", "jmp *%rax");
PROBE(call_far_away, "", "call *%rax");
PROBE(straddle, "mov $0x7ffffffffffe, %rax", "mov (%rax), %ecx");
PROBE(software, "", "int $0x41");
PROBE(unaligned_sp, "mov %rsp, %rcx; lea -5(%rsp), %rsp; mov %rsp, %rdx",
      "int $0x41; mov %rcx, %rsp");
PROBE(invlpg_any, "", "invlpg (%rax)");
PROBE(load_ss_null, "xor %ecx, %ecx", "mov %ecx, %ss; mov $0x10, %ecx; mov %ecx, %ss");
PROBE(load_ss_null3, "mov $3, %ecx", "mov %ecx, %ss");
PROBE(user_wrfsbase, "", "wrfsbase %rax");
PROBE(swapgs_, "", "swapgs; swapgs");
PROBE(no_stack, "mov %rsp, %rdx; mov %rax, %rsp", "push %rax; mov %rdx, %rsp");

static ulong frame_sp, frame_at;

static bool look(struct frame *f)
{
	frame_sp = f->sp;
	frame_at = (ulong)&f->error;
	return true;
}

static void legacy(void)
{
	CHECK_TRAP(trap_call(divide, 1), VEC_DE, 0, divide_at, "DIV by zero");
	CHECK_TRAP(trap_call(undefined, 0), VEC_UD, 0, undefined_at, "UD2");
	CHECK_TRAP(trap_call(push_es, 0), VEC_UD, 0, push_es_at, "PUSH ES is gone");
	CHECK_TRAP(trap_call(into, 0), VEC_UD, 0, into_at, "INTO is gone");
	CHECK_TRAP(trap_call(aaa, 0), VEC_UD, 0, aaa_at, "AAA is gone");
	CHECK_TRAP(trap_call(daa, 0), VEC_UD, 0, daa_at, "DAA is gone");
	CHECK_TRAP(trap_call(pusha_, 0), VEC_UD, 0, pusha__at, "PUSHA is gone");
	CHECK_TRAP(trap_call(ljmp_imm, 0), VEC_UD, 0, ljmp_imm_at, "JMP ptr16:32 is gone");
	CHECK_TRAP(trap_call(bound_32, 0), VEC_UD, 0, bound_32_at, "opcode 82 is gone");
}

static void canonical(void)
{
	CHECK_TRAP(trap_call(peek, NOT_CANONICAL), VEC_GP, 0, peek_at, "read, not canonical");
	CHECK_TRAP(trap_call(poke, 0x0000800000000000), VEC_GP, 0, poke_at, "write, not canonical");
	CHECK_TRAP(trap_call(peek, 0xffff7fffffffffff), VEC_GP, 0, peek_at,
		   "one below the hole's end");
	CHECK_TRAP(trap_call(peek, 0xffff800000000000), VEC_PF, 0, peek_at,
		   "the upper half begins");
	/* The exception cannot be pushed on that stack: it needs one of its own. */
	idt_set_ist(VEC_SS, 1);
	idt_set_ist(VEC_GP, 1);
	CHECK_TRAP(trap_call(peek_stack, NOT_CANONICAL), VEC_SS, 0, peek_stack_at, "by RSP: #SS");
	idt_set_ist(VEC_SS, 0);
	idt_set_ist(VEC_GP, 0);
	CHECK_TRAP(trap_call(peek_bp, NOT_CANONICAL), VEC_SS, 0, peek_bp_at, "by RBP: #SS");
	CHECK_TRAP(trap_call(jump_far_away, NOT_CANONICAL), VEC_GP, 0, jump_far_away_at,
		   "a jump is refused before it is taken");
	CHECK_TRAP(trap_call(call_far_away, NOT_CANONICAL), VEC_GP, 0, call_far_away_at, "a call");
	CHECK_TRAP(trap_call(straddle, 0), VEC_GP, 0, straddle_at, "an operand into the hole");
	CHECK_EQ(trap_call(invlpg_any, NOT_CANONICAL).vector, TRAP_NONE, "INVLPG does not mind");
}

static void frames(void)
{
	trap_handle(0x41, look);
	CHECK_EQ(trap_call(software, 0).vector, TRAP_NONE, "an interrupt and back");
	trap_call(unaligned_sp, 0);
	/* error, ip, cs, flags, sp, ss: the first pushed word ends at a multiple of 16. */
	CHECK_EQ((frame_at + 6 * 8) % 16, 0, "the frame is aligned to 16 bytes");
	CHECK_EQ(frame_sp % 8, 3, "and RSP is saved as it was");

	idt_set_ist(0x41, 1);
	trap_call(software, 0);
	CHECK_EQ(frame_at, desc_tss(0)->ist[0] - 6 * 8, "IST 1 gives the stack");
	idt_set_ist(0x41, 0);
}

/* A push on a stack that is not there: the #PF cannot be delivered there either. */
static void double_fault(void)
{
	struct trap t;

	idt_set_ist(VEC_DF, 1);
	t = trap_call(no_stack, 0x00007f0000000000);
	CHECK_EQ(t.vector, VEC_DF, "a page fault without a stack is a double fault");
	CHECK_EQ(t.error, 0, "its error code is 0");
	CHECK_EQ(t.ip, ADDR(no_stack_at), "here it is at the PUSH still");
	/* SDM vol. 3, 6.15: the second page fault, that of the frame, leaves its address in CR2. */
	CHECK(read_cr2() >= 0x00007f0000000000 - 6 * 8 && read_cr2() < 0x00007f0000000000,
	      "CR2 is of the fault that could not go in");
	idt_set_ist(VEC_PF, 1);
	t = trap_call(no_stack, 0x00007f0000000000);
	CHECK_EQ(t.vector, VEC_PF, "with a stack of its own it is a page fault");
	idt_set_ist(VEC_PF, 0);
	idt_set_ist(VEC_DF, 0);
}

static void stack_segment(void)
{
	CHECK_EQ(trap_call(load_ss_null, 0).vector, TRAP_NONE, "SS may be null in ring 0");
	CHECK_TRAP(trap_call(load_ss_null3, 0), VEC_GP, 0, load_ss_null3_at, "not with RPL 3");
	CHECK_TRAP(user_call(load_ss_null3, 0), VEC_GP, 0, load_ss_null3_at, "nor in ring 3");
	CHECK_TRAP(user_call(swapgs_, 0), VEC_GP, 0, swapgs__at, "ring 3: SWAPGS");
	CHECK_TRAP(user_call(peek, NOT_CANONICAL), VEC_GP, 0, peek_at, "ring 3: not canonical");
	CHECK_TRAP(user_call(poke, NOT_CANONICAL), VEC_GP, 0, poke_at, "ring 3: a write");
}

static void fsgsbase(void)
{
	if (!(cpuid_if(7, 0).b & 1))
		return;
	CHECK_TRAP(user_call(user_wrfsbase, 0), VEC_UD, 0, user_wrfsbase_at,
		   "WRFSBASE, CR4 bit clear");
	write_cr4(read_cr4() | CR4_FSGSBASE);
	CHECK_EQ(user_call(user_wrfsbase, 0x123456789000).vector, TRAP_NONE, "ring 3: WRFSBASE");
	CHECK_EQ(rdmsr(MSR_FS_BASE), 0x123456789000, "is the FS_BASE register");
	CHECK_TRAP(user_call(user_wrfsbase, NOT_CANONICAL), VEC_GP, 0, user_wrfsbase_at,
		   "not canonical");
	write_cr4(read_cr4() & ~CR4_FSGSBASE);
	wrmsr(MSR_FS_BASE, 0);
}

void guest_main(void)
{
	legacy();
	canonical();
	frames();
	double_fault();
	stack_segment();
	fsgsbase();
}

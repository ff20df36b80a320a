// SPDX-License-Identifier: MIT
/*
 * Call gates: from ring 3 to ring 0 with parameters and a change of stacks, within ring 0,
 * refusals; conforming code; and far returns (SDM vol. 3, 5.8).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

#define SEL_GATE    SEL_TEST
#define SEL_CONFORM (SEL_TEST + 8)

/* What the gate's target saw. */
u32 seen_cs, seen_ss, seen_sp, seen_params[2], seen_return_cs, seen_user_sp, seen_user_ss;

asm(".pushsection .text\n"
    ".globl gate_target, same_target, conform_target\n"
    "gate_target:\n"
    "	push %ds; push $0x10; pop %ds\n"
    "	mov %cs, seen_cs; mov %ss, seen_ss; mov %esp, seen_sp\n"
    "	mov 8(%esp), %ecx; mov %ecx, seen_return_cs\n"
    "	mov 12(%esp), %ecx; mov %ecx, seen_params\n"
    "	mov 16(%esp), %ecx; mov %ecx, seen_params + 4\n"
    "	mov 20(%esp), %ecx; mov %ecx, seen_user_sp\n"
    "	mov 24(%esp), %ecx; mov %ecx, seen_user_ss\n"
    "	pop %ds\n"
    "	lret $8\n"
    "same_target:\n"
    "	mov 4(%esp), %ecx; mov %ecx, seen_return_cs\n"
    "	mov $0x77, %eax\n"
    "	lret\n"
    "conform_target:\n"
    "	mov %cs, %eax\n"
    "	lret\n"
    ".popsection");
extern const u8 gate_target[], same_target[], conform_target[];

/* The offset of a far call through a gate does not count. */
PROBE(call_gate, "push $0x22222222; push $0x11111111; mov %esp, %eax",
      "lcall $0x93, $0xdeadbeef; sub %esp, %eax; add $8, %eax");
PROBE(call_same, "", "lcall $0x90, $0");
PROBE(jump_gate, "", "ljmp $0x93, $0");
PROBE(call_conform, "", "lcall $0x9b, $conform_target");
PROBE(far_return, "push %eax; push $0", "lret");

static void inward(void)
{
	struct trap t;

	gdt_gate(SEL_GATE, SEL_KCODE, ADDR(gate_target), ACC_P | ACC_DPL(3) | ACC_CALLGATE, 2);
	t = user_call(call_gate, 0);
	CHECK_EQ(t.vector, TRAP_NONE, "ring 3 calls ring 0 and comes back");
	CHECK_EQ(t.value, 0, "lret $8 releases the parameters on the outer stack");
	CHECK_EQ(seen_cs, SEL_KCODE, "CS within");
	CHECK_EQ(seen_ss, SEL_KDATA, "SS within is the one of the TSS");
	CHECK_EQ(seen_sp, desc_tss(0)->sp0 - 28, "ESP within: two parameters, four saved, DS");
	CHECK_EQ(seen_params[0], 0x11111111, "the first parameter is copied");
	CHECK_EQ(seen_params[1], 0x22222222, "the second parameter is copied");
	CHECK_EQ(seen_return_cs, SEL_UCODE32, "the caller's CS");
	CHECK_EQ(seen_user_ss, SEL_UDATA, "the caller's SS");
	CHECK(seen_user_sp >= (ulong)user_stack && seen_user_sp < (ulong)user_stack + STACK_SIZE,
	      "the caller's ESP");
}

static void refused(void)
{
	gdt_gate(SEL_GATE, SEL_KCODE, ADDR(gate_target), ACC_P | ACC_DPL(0) | ACC_CALLGATE, 2);
	CHECK_TRAP(user_call(call_gate, 0), VEC_GP, SEL_GATE, call_gate_at, "a gate of DPL 0");
	gdt_gate(SEL_GATE, SEL_KCODE, ADDR(gate_target), ACC_DPL(3) | ACC_CALLGATE, 2);
	CHECK_TRAP(user_call(call_gate, 0), VEC_NP, SEL_GATE, call_gate_at, "a gate not present");
	gdt_gate(SEL_GATE, SEL_KDATA, 0, ACC_P | ACC_DPL(3) | ACC_CALLGATE, 0);
	CHECK_TRAP(user_call(call_gate, 0), VEC_GP, SEL_KDATA, call_gate_at, "a gate to data");
	gdt_gate(SEL_GATE, 0, 0, ACC_P | ACC_DPL(3) | ACC_CALLGATE, 0);
	CHECK_TRAP(user_call(call_gate, 0), VEC_GP, 0, call_gate_at, "a gate to null");
	gdt_gate(SEL_GATE, SEL_KCODE, ADDR(gate_target), ACC_P | ACC_DPL(3) | ACC_CALLGATE, 0);
	CHECK_TRAP(user_call(jump_gate, 0), VEC_GP, SEL_KCODE, jump_gate_at,
		   "a jump cannot go inward");
	desc_tss(0)->ss0 = SEL_KCODE;
	gdt_gate(SEL_GATE, SEL_KCODE, ADDR(same_target), ACC_P | ACC_CALLGATE, 0);
	CHECK_EQ(trap_call(call_same, 0).value, 0x77, "a call within a ring ignores SS0");
	desc_tss(0)->ss0 = SEL_KDATA;
}

static void within(void)
{
	gdt_gate(SEL_GATE, SEL_KCODE, ADDR(same_target), ACC_P | ACC_CALLGATE, 0);
	CHECK_EQ(trap_call(call_same, 0).value, 0x77, "ring 0 calls ring 0");
	CHECK_EQ(seen_return_cs, SEL_KCODE, "with two words on the stack");
}

static void conforming(void)
{
	gdt_segment(SEL_CONFORM, 0, 0xfffff, ACC_P | ACC_CONFORM, SEG_G | SEG_D);
	CHECK_EQ(user_call(call_conform, 0).value, SEL_CONFORM | 3,
		 "conforming code runs in the ring of its caller");
	gdt_segment(SEL_CONFORM, 0, 0xfffff, ACC_P | ACC_CODE, SEG_G | SEG_D);
	CHECK_TRAP(user_call(call_conform, 0), VEC_GP, SEL_CONFORM, call_conform_at,
		   "and code that does not conform is refused");
}

static void returns(void)
{
	CHECK_TRAP(user_call(far_return, SEL_KCODE), VEC_GP, SEL_KCODE, far_return_at,
		   "ring 3 cannot return inward");
	CHECK_TRAP(trap_call(far_return, 0), VEC_GP, 0, far_return_at, "return to null");
	CHECK_TRAP(trap_call(far_return, SEL_KDATA), VEC_GP, SEL_KDATA, far_return_at,
		   "return to data");
}

void guest_main(void)
{
	within();
	inward();
	refused();
	conforming();
	returns();
}

// SPDX-License-Identifier: MIT
/*
 * IRET and far transfers in 64-bit mode: SS and RSP are always popped, canonical targets, a null
 * SS, call gates of 16 bytes, UMIP (SDM vol. 2, IRET; vol. 3, 5.8.3.1).
 */
#include "cr4.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

#define SEL_GATE SEL_TEST

PROBE(same_ring,
      "mov %rsp, %rcx; push $0x10; push %rcx; pushf; push $0x08; lea 1f(%rip), %rdx; push %rdx",
      "iretq; 1: mov %rsp, %rax; sub %rcx, %rax");
PROBE(null_ss,
      "mov %rsp, %rcx; push $0; push %rcx; pushf; push $0x08; lea 1f(%rip), %rdx; push %rdx",
      "iretq; 1: mov %ss, %eax; mov $0x10, %edx; mov %edx, %ss");
PROBE(to_far_away, "push $0x10; push %rsp; pushf; push $0x08; push %rax", "iretq");
PROBE(nested_task, "pushf; orq $0x4000, (%rsp); popf", "iretq");
PROBE(to_ring3_null_ss, "push $0; push %rax; pushf; push $0x2b; push %rax", "iretq");
PROBE(call_gate, "", "lcall *gate_pointer(%rip); mov %cs, %ecx; shl $16, %rcx; or %rcx, %rax");
PROBE(sidt, "sub $16, %rsp", "sidt (%rsp); add $16, %rsp");
PROBE(smsw, "", "smsw %eax");
PROBE(str_, "", "str %eax");
PROBE(user_inward, "push $0x10; push %rsp; pushf; push $0x08; push $0", "iretq");

asm(".data; .balign 8; gate_pointer: .long 0; .word 0x93; .text\n"
    ".globl gate_target\n"
    "gate_target: mov %cs, %eax; lretq");
extern const u8 gate_target[];

static void returns(void)
{
	CHECK_EQ(trap_call(same_ring, 0).value, 0, "RSP and SS are popped within a ring, too");
	CHECK_EQ(trap_call(null_ss, 0).value & 0xffff, 0, "SS may become null in ring 0");
	CHECK_TRAP(trap_call(nested_task, 0), VEC_GP, 0, nested_task_at, "IRET with NT");
	write_flags(read_flags() & ~FLAG_NT);
	CHECK_TRAP(trap_call(to_ring3_null_ss, 0), VEC_GP, 0, to_ring3_null_ss_at,
		   "SS may not be null in ring 3");
	CHECK_TRAP(user_call(user_inward, 0), VEC_GP, SEL_KCODE, user_inward_at,
		   "ring 3 cannot go inward");
	CHECK_EQ(trap_call(to_far_away, BIT(63)).vector, VEC_GP,
		 "to an address that is not canonical");
}

static void gates(void)
{
	gdt_gate(SEL_GATE, SEL_KCODE, ADDR(gate_target), ACC_P | ACC_DPL(3) | ACC_CALLGATE, 0);
	CHECK_EQ(user_call(call_gate, 0).value, (ulong)SEL_UCODE64 << 16 | SEL_KCODE,
		 "a call gate to ring 0 and back");
	gdt_gate(SEL_GATE, SEL_KCODE32, ADDR(gate_target), ACC_P | ACC_DPL(3) | ACC_CALLGATE, 0);
	CHECK_TRAP(user_call(call_gate, 0), VEC_GP, SEL_KCODE32, call_gate_at,
		   "a gate leads to 64-bit code only");
	gdt_gate(SEL_GATE, SEL_KCODE, ADDR(gate_target), ACC_P | ACC_CALLGATE, 0);
	CHECK_TRAP(user_call(call_gate, 0), VEC_GP, SEL_GATE, call_gate_at, "a gate of DPL 0");
}

static void umip(void)
{
	CHECK_EQ(user_call(sidt, 0).vector, TRAP_NONE, "ring 3: SIDT");
	CHECK_EQ(user_call(smsw, 0).value & 1, 1, "ring 3: SMSW");
	if (!cpuid_has(7, REG_ECX, 2))
		return;
	write_cr4(read_cr4() | CR4_UMIP);
	CHECK_TRAP(user_call(sidt, 0), VEC_GP, 0, sidt_at, "ring 3: SIDT with CR4.UMIP");
	CHECK_TRAP(user_call(smsw, 0), VEC_GP, 0, smsw_at, "ring 3: SMSW with CR4.UMIP");
	CHECK_TRAP(user_call(str_, 0), VEC_GP, 0, str__at, "ring 3: STR with CR4.UMIP");
	CHECK_EQ(trap_call(sidt, 0).vector, TRAP_NONE, "ring 0: SIDT with CR4.UMIP");
	write_cr4(read_cr4() & ~CR4_UMIP);
}

void guest_main(void)
{
	returns();
	gates();
	umip();
}

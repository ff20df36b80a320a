// SPDX-License-Identifier: MIT
/*
 * The exceptions of 32-bit protected mode: vector, error code, and the address that each reports
 * (SDM vol. 3, chapter 6.15): faults at the instruction, traps behind it.
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

PROBE(divide, "xor %edx, %edx; xor %ecx, %ecx", "div %ecx");
PROBE(divide_overflow, "mov $2, %edx; mov $2, %ecx", "div %ecx");
PROBE(idivide_overflow, "mov $0x80000000, %eax; cdq; mov $-1, %ecx", "idiv %ecx");
PROBE(aam_zero, "", "aam $0");
PROBE(breakpoint, "", "int3");
PROBE(int_3, "", "int $3");
PROBE(overflow, "mov $0x7f, %al; add $1, %al", "into");
PROBE(no_overflow, "xor %eax, %eax", "into");
PROBE(bound_low, "mov $-1, %edx", "bound %edx, bounds");
PROBE(bound_high, "mov $11, %edx", "bound %edx, bounds");
PROBE(bound_edge, "mov $10, %edx", "bound %edx, bounds");
PROBE(undefined, "", "ud2");
PROBE(lock_register, "", ".byte 0xf0, 0x01, 0xc0");
PROBE(lock_mov, "", ".byte 0xf0, 0x89, 0x00");
PROBE(mov_to_cs, "", ".byte 0x8e, 0xc8");
PROBE(lea_register, "", ".byte 0x8d, 0xc0");
PROBE(too_long, "", ".fill 15, 1, 0x66; nop");
PROBE(longest, "", ".fill 14, 1, 0x66; nop");
PROBE(debug_trap, "", ".byte 0xf1");
PROBE(gate_missing, "", "int $0x50");
PROBE(beyond_idt, "", "int $0x60");
PROBE(load_ds, "", "mov %eax, %ds");
PROBE(load_ss, "", "mov %eax, %ss");
PROBE(load_es_user, "", "mov %eax, %es");
PROBE(far_jump, "push %eax; push $0", "ljmp *(%esp)");
PROBE(write_cr5, "", ".byte 0x0f, 0x22, 0xe8");
PROBE(user_hlt, "", "hlt");
PROBE(user_cli, "", "cli");
PROBE(user_in, "", "in $0x71, %al");
PROBE(user_lgdt, "", "lgdt (%esp)");
PROBE(user_read_cr0, "", "mov %cr0, %ecx");
PROBE(user_int, "", "int $0x0d");
PROBE(user_unaligned, "push $0; push $0", "mov 1(%esp), %ecx; pop %ecx; pop %ecx");
PROBE(user_rdtsc, "", "rdtsc");
PROBE(wait_fpu, "", "fwait");
PROBE(use_fpu, "", "fld1");

asm(".data; .globl bounds; bounds: .long 0, 10; .text");

static unsigned traps;
static ulong trap_ip;

static bool count_trap(struct frame *f)
{
	traps++;
	trap_ip = f->ip;
	return true;
}

static void arithmetic(void)
{
	CHECK_TRAP(trap_call(divide, 5), VEC_DE, 0, divide_at, "DIV by zero");
	CHECK_TRAP(trap_call(divide_overflow, 0), VEC_DE, 0, divide_overflow_at,
		   "DIV with a quotient that does not fit");
	CHECK_TRAP(trap_call(idivide_overflow, 0), VEC_DE, 0, idivide_overflow_at,
		   "IDIV of the smallest number by -1");
	CHECK_TRAP(trap_call(aam_zero, 0), VEC_DE, 0, aam_zero_at, "AAM 0");
	CHECK_TRAP(trap_call(overflow, 0), VEC_OF, 0, overflow_after, "INTO traps behind itself");
	CHECK_EQ(trap_call(no_overflow, 0).vector, TRAP_NONE, "INTO without overflow");
	CHECK_TRAP(trap_call(bound_low, 0), VEC_BR, 0, bound_low_at, "BOUND below");
	CHECK_TRAP(trap_call(bound_high, 0), VEC_BR, 0, bound_high_at, "BOUND above");
	CHECK_EQ(trap_call(bound_edge, 0).vector, TRAP_NONE, "BOUND at the upper bound");
}

static void software(void)
{
	CHECK_TRAP(trap_call(breakpoint, 0), VEC_BP, 0, breakpoint_after,
		   "INT3 traps behind itself");
	CHECK_TRAP(trap_call(int_3, 0), VEC_BP, 0, int_3_after, "INT 3, two bytes long");
	CHECK_TRAP(trap_call(debug_trap, 0), VEC_DB, 0, debug_trap_after, "INT1");
	idt_set_present(0x50, false);
	CHECK_TRAP(trap_call(gate_missing, 0), VEC_NP, 0x50 * 8 + 2, gate_missing_at,
		   "INT n through a gate that is not present");
	idt_default(0x50);
	idt_gate(0x50, SEL_KDATA, 0, ACC_P | ACC_INTGATE, 0);
	CHECK_TRAP(trap_call(gate_missing, 0), VEC_GP, SEL_KDATA, gate_missing_at,
		   "INT n through a gate to a data segment");
	idt_gate(0x50, 0, 0, ACC_P | ACC_INTGATE, 0);
	CHECK_TRAP(trap_call(gate_missing, 0), VEC_GP, 0, gate_missing_at,
		   "INT n through a gate to the null selector");
	idt_gate(0x50, SEL_KCODE, 0, ACC_P | ACC_DATA, 0);
	CHECK_TRAP(trap_call(gate_missing, 0), VEC_GP, 0x50 * 8 + 2, gate_missing_at,
		   "INT n through what is no gate");
	idt_default(0x50);
	trap_handle(0x50, count_trap);
	CHECK_EQ(trap_call(gate_missing, 0).vector, TRAP_NONE, "a handler may resume");
	CHECK_EQ(trap_ip, ADDR(gate_missing_after), "INT n reports the next instruction");
	CHECK_EQ(traps, 1, "the handler ran once");
}

static void short_idt(void)
{
	struct table_pointer idtr;

	asm volatile("sidt %0" : "=m"(idtr));
	idtr.limit = 0x60 * 8 - 1;
	asm volatile("lidt %0" : : "m"(idtr));
	CHECK_TRAP(trap_call(beyond_idt, 0), VEC_GP, 0x60 * 8 + 2, beyond_idt_at,
		   "INT n beyond the limit of the IDT");
	load_default_idt();
}

static void undefined_opcodes(void)
{
	CHECK_TRAP(trap_call(undefined, 0), VEC_UD, 0, undefined_at, "UD2");
	CHECK_TRAP(trap_call(lock_register, 0), VEC_UD, 0, lock_register_at, "LOCK, no memory");
	CHECK_TRAP(trap_call(lock_mov, 0), VEC_UD, 0, lock_mov_at, "LOCK MOV");
	CHECK_TRAP(trap_call(mov_to_cs, 0), VEC_UD, 0, mov_to_cs_at, "MOV to CS");
	CHECK_TRAP(trap_call(lea_register, 0), VEC_UD, 0, lea_register_at, "LEA of a register");
	CHECK_TRAP(trap_call(too_long, 0), VEC_GP, 0, too_long_at, "an instruction of 16 bytes");
	CHECK_EQ(trap_call(longest, 0).vector, TRAP_NONE, "an instruction of 15 bytes");
	CHECK_TRAP(trap_call(write_cr5, 0), VEC_UD, 0, write_cr5_at, "MOV to CR5");
}

static void segments(void)
{
	gdt_segment(SEL_TEST, 0, 0xfffff, ACC_DATA, SEG_G | SEG_D);
	CHECK_TRAP(trap_call(load_ds, SEL_TEST), VEC_NP, SEL_TEST, load_ds_at,
		   "DS := segment not present");
	CHECK_TRAP(trap_call(load_ss, SEL_TEST), VEC_SS, SEL_TEST, load_ss_at,
		   "SS := segment not present");
	CHECK_TRAP(trap_call(load_ss, 0), VEC_GP, 0, load_ss_at, "SS := null");
	CHECK_TRAP(trap_call(load_ss, SEL_KDATA | 3), VEC_GP, SEL_KDATA, load_ss_at,
		   "SS := selector of another RPL");
	CHECK_TRAP(trap_call(load_ss, SEL_KCODE), VEC_GP, SEL_KCODE, load_ss_at, "SS := code");
	CHECK_TRAP(trap_call(load_ds, SEL_TSS), VEC_GP, SEL_TSS, load_ds_at, "DS := TSS");
	CHECK_TRAP(trap_call(load_ds, GDT_ENTRIES * 8), VEC_GP, GDT_ENTRIES * 8, load_ds_at,
		   "DS := selector beyond the GDT");
	CHECK_TRAP(trap_call(load_ds, 0x0c), VEC_GP, 0x0c, load_ds_at,
		   "DS := selector in the LDT, there being none");
	gdt_segment(SEL_TEST, 0, 0xfffff, ACC_P | ACC_XCODE, SEG_G | SEG_D);
	CHECK_TRAP(trap_call(load_ds, SEL_TEST), VEC_GP, SEL_TEST, load_ds_at,
		   "DS := code that cannot be read");
	CHECK_TRAP(trap_call(far_jump, SEL_KDATA), VEC_GP, SEL_KDATA, far_jump_at,
		   "far jump to data");
	CHECK_TRAP(trap_call(far_jump, 0), VEC_GP, 0, far_jump_at, "far jump to null");
	CHECK_TRAP(user_call(load_es_user, SEL_KDATA), VEC_GP, SEL_KDATA, load_es_user_at,
		   "ring 3: ES := a segment of ring 0");
	CHECK_TRAP(user_call(far_jump, SEL_KCODE), VEC_GP, SEL_KCODE, far_jump_at,
		   "ring 3: far jump to a segment of ring 0");
}

static void privilege(void)
{
	CHECK_TRAP(user_call(user_hlt, 0), VEC_GP, 0, user_hlt_at, "ring 3: HLT");
	CHECK_TRAP(user_call(user_cli, 0), VEC_GP, 0, user_cli_at, "ring 3: CLI");
	CHECK_TRAP(user_call(user_in, 0), VEC_GP, 0, user_in_at, "ring 3: IN");
	CHECK_TRAP(user_call(user_lgdt, 0), VEC_GP, 0, user_lgdt_at, "ring 3: LGDT");
	CHECK_TRAP(user_call(user_read_cr0, 0), VEC_GP, 0, user_read_cr0_at, "ring 3: MOV CR0");
	CHECK_TRAP(user_call(user_int, 0), VEC_GP, VEC_GP * 8 + 2, user_int_at,
		   "ring 3: INT n through a gate of ring 0");
	CHECK_EQ(user_call(user_rdtsc, 0).vector, TRAP_NONE, "ring 3: RDTSC");
	write_cr4(read_cr4() | CR4_TSD);
	CHECK_TRAP(user_call(user_rdtsc, 0), VEC_GP, 0, user_rdtsc_at,
		   "ring 3: RDTSC with CR4.TSD");
	CHECK_EQ(trap_call(user_rdtsc, 0).vector, TRAP_NONE, "ring 0: RDTSC with CR4.TSD");
	write_cr4(read_cr4() & ~CR4_TSD);
}

static void alignment(void)
{
	CHECK_EQ(user_call_flags(user_unaligned, 0, FLAG_AC).vector, TRAP_NONE,
		 "EFLAGS.AC without CR0.AM");
	write_cr0(read_cr0() | CR0_AM);
	CHECK_TRAP(user_call_flags(user_unaligned, 0, FLAG_AC), VEC_AC, 0, user_unaligned_at,
		   "ring 3: unaligned access with AC and AM");
	CHECK_EQ(user_call(user_unaligned, 0).vector, TRAP_NONE, "CR0.AM without EFLAGS.AC");
	write_flags(read_flags() | FLAG_AC);
	CHECK_EQ(trap_call(user_unaligned, 0).vector, TRAP_NONE, "ring 0 is not checked");
	write_flags(read_flags() & ~FLAG_AC);
	write_cr0(read_cr0() & ~CR0_AM);
}

static void coprocessor(void)
{
	ulong cr0 = read_cr0() & ~(CR0_MP | CR0_EM | CR0_TS);

	write_cr0(cr0 | CR0_EM);
	CHECK_TRAP(trap_call(use_fpu, 0), VEC_NM, 0, use_fpu_at, "x87 with CR0.EM");
	CHECK_EQ(trap_call(wait_fpu, 0).vector, TRAP_NONE, "FWAIT with CR0.EM");
	write_cr0(cr0 | CR0_TS);
	CHECK_TRAP(trap_call(use_fpu, 0), VEC_NM, 0, use_fpu_at, "x87 with CR0.TS");
	CHECK_EQ(trap_call(wait_fpu, 0).vector, TRAP_NONE, "FWAIT with CR0.TS, not MP");
	write_cr0(cr0 | CR0_TS | CR0_MP);
	CHECK_TRAP(trap_call(wait_fpu, 0), VEC_NM, 0, wait_fpu_at, "FWAIT with CR0.TS and MP");
	asm volatile("clts");
	CHECK_EQ(read_cr0() & CR0_TS, 0, "CLTS");
	CHECK_EQ(trap_call(wait_fpu, 0).vector, TRAP_NONE, "FWAIT with CR0.MP");
	write_cr0(cr0);
}

void guest_main(void)
{
	arithmetic();
	software();
	short_idt();
	undefined_opcodes();
	segments();
	privilege();
	alignment();
	coprocessor();
}

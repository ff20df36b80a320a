// SPDX-License-Identifier: MIT
/*
 * x87: arithmetic, unmasked exceptions, which wait for the next x87 instruction, #MF or the old
 * way by IRQ 13, and FNSAVE/FRSTOR (SDM vol. 1, chapter 8).
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

static u8 image[512] __attribute__((aligned(16)));
static u64 result;
static u16 status, control;

PROBE(divide_by_zero,
      "fninit; push $0x037b; fldcw (%esp); pop %ecx; fld1; fldz; "
      ".globl fdiv_at; fdiv_at: fdivrp",
      "fwait; fninit");
PROBE(no_wait, "fninit; push $0x037b; fldcw (%esp); pop %ecx; fld1; fldz; fdivrp",
      "fnstsw %ax; fnclex; fninit");
PROBE(next_insn, "fninit; push $0x037b; fldcw (%esp); pop %ecx; fld1; fldz; fdivrp; nop; nop",
      "fld1; fninit");
extern const u8 fdiv_at[];
/* Divide by zero, unmasked, and go on. */
PROBE(cleared,
      "fninit; push $0x037b; fldcw (%esp); pop %ecx; fld1; mov $clear_from, %eax; "
      ".globl fdivl_at; fdivl_at: fdivl 8(%eax)",
      "fnclex; fldl (%eax)");
extern const u8 fdivl_at[];
u64 clear_from[2]; /* 0.0: its address and that of the divisor behind it are seen */

/*
 * The pointers of FNCLEX's successor are its own, or, as processors have it that note operands and
 * opcodes of unmasked exceptions only (CPUID.07H:EBX[6]), still the failed instruction's.
 */
static void cleared_exception(void)
{
	bool kept = cpuid_if(7, 0).b & BIT(6);
	u32 opcode;

	cleared(0);
	asm volatile("fnstenv %0; fninit" : "=m"(image));
	opcode = *(u32 *)(image + 16) >> 16;
	CHECK(opcode == 0x470 || opcode == 0x500, "the opcode is one of the guest's");
	CHECK_EQ(*(u32 *)(image + 20), ADDR(&clear_from[kept]), "the operand is, too");
}

/*
 * The opcode that was loaded stays, whatever it is, since no exception is unmasked; or, as old processors have it, FCOM's own is there.
 * (Then one that was loaded may be taken for it.)
 */
static void loaded_opcode(void)
{
	static u32 env[7], after[7];
	static const float one = 1;
	u32 kept = 0, own = 0, first = 0;

	asm volatile("fninit; fnstenv %0" : "=m"(env));
	for (u32 v = 0; v < 0x800; v++) {
		env[4] = (env[4] & 0xffff) | v << 16;
		asm volatile("fldenv %1; fcoms %2; fnstenv %0; fninit"
			     : "=m"(after)
			     : "m"(env), "m"(one));
		if (!v)
			first = after[4] >> 16;
		kept += after[4] >> 16 == v;
		own += after[4] >> 16 == first;
	}
	CHECK(kept == 0x800 || own >= 0x7ff, "the opcode that was loaded");
}

void guest_main(void)
{
	static const u64 two = 0x4000000000000000;
	struct trap t;

	write_cr0((read_cr0() & ~(CR0_EM | CR0_TS)) | CR0_MP | CR0_NE);
	asm volatile("fninit; fnstsw %0; fnstcw %1" : "=m"(status), "=m"(control));
	CHECK_EQ(status, 0, "status after FNINIT");
	CHECK_EQ(control, 0x37f, "control after FNINIT");
	asm volatile("fldl %1; fsqrt; fstpl %0" : "=m"(result) : "m"(two));
	CHECK_EQ(result, 0x3ff6a09e667f3bcd, "the square root of 2");
	asm volatile("fldpi; fsin; fstpl %0" : "=m"(result));
	CHECK((result >> 52 & 0x7ff) < 0x3d0, "the sine of pi is next to nothing");
	asm volatile("fnclex; fldz; fld1; fdivp; fstpl %0; fnstsw %1" : "=m"(result), "=m"(status));
	CHECK_EQ(status & 0x7f, 0x04, "1/0, masked, sets ZE");
	CHECK_EQ(result << 1 >> 1, 0x7ff0000000000000, "and gives an infinity");
	asm volatile("fnclex");

	CHECK_TRAP(trap_call(divide_by_zero, 0), VEC_MF, 0, divide_by_zero_at, "#MF at the FWAIT");
	asm volatile("fnsave %0; frstor %0" : "+m"(image));
	CHECK_EQ(*(u32 *)(image + 12), ADDR(fdiv_at), "the saved address is that of the FDIV");
	asm volatile("fnclex");
	t = trap_call(no_wait, 0);
	CHECK_EQ(t.vector, TRAP_NONE, "FNSTSW does not wait");
	CHECK_EQ(t.value & 0x84, 0x84, "and shows ES and ZE");
	CHECK_TRAP(trap_call(next_insn, 0), VEC_MF, 0, next_insn_at,
		   "#MF at the next x87 instruction");
	asm volatile("fnclex; fninit");
	cleared_exception();
	loaded_opcode();

	asm volatile("fld1; fldpi; fnsave %0" : "=m"(image));
	asm volatile("fnstsw %0" : "=m"(status));
	CHECK_EQ(status, 0, "FNSAVE initializes");
	asm volatile("frstor %1; fstpl %0; fninit" : "=m"(result) : "m"(image));
	CHECK_EQ(result, 0x400921fb54442d18, "FRSTOR brings pi back");

	/* The stack overflows at the ninth push: the result is the indefinite number, C1 is set. */
	for (unsigned i = 0; i < 9; i++)
		asm volatile("fld1");
	asm volatile("fnstsw %0; fstpl %1; fninit" : "=m"(status), "=m"(result));
	CHECK_EQ(status & 0x241, 0x241, "a stack overflow sets IE, SF and C1");
	CHECK_EQ(result, 0xfff8000000000000, "and gives the indefinite number");
}

// SPDX-License-Identifier: MIT
/*
 * Segment limits and types on data accesses: expand-up and expand-down, byte and page
 * granularity, 16 and 32 bits, read-only and execute-only segments, null selectors (SDM vol. 3,
 * 5.3 and 5.5).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

/* Access through ES (DS stays whole, so that the runtime works). */
#define SET_ES "push $0x90; pop %es"
PROBE(read1, SET_ES, "mov %es:(%eax), %cl");
PROBE(read2, SET_ES, "mov %es:(%eax), %cx");
PROBE(read4, SET_ES, "mov %es:(%eax), %ecx");
PROBE(write1, SET_ES, "mov %cl, %es:(%eax)");
PROBE(write4, SET_ES "; mov %es:(%eax), %ecx", "mov %ecx, %es:(%eax)");
PROBE(read_cs, "", "mov %cs:(%eax), %cl");
PROBE(write_cs, "", "mov %cl, %cs:(%eax)");
PROBE(read_null, "push $0; pop %fs", "mov %fs:(%eax), %cl");
PROBE(add_null, "push $3; pop %gs", "addl $1, %gs:(%eax)");

/* Access relative to %esp through SS. */
PROBE(read_ss, "mov $0x90, %ecx; mov %ecx, %ss",
      "mov %ss:(%eax), %cl; mov $0x10, %ecx; mov %ecx, %ss");
PROBE(lsl, "xor %ecx, %ecx; lsl %eax, %ecx; mov %ecx, %eax", "nop");
PROBE(lar, "xor %ecx, %ecx; lar %eax, %ecx; mov %ecx, %eax", "nop");
PROBE(verr, "mov %eax, %ecx; xor %eax, %eax; verr %cx; setz %al", "nop");
PROBE(verw, "mov %eax, %ecx; xor %eax, %eax; verw %cx; setz %al", "nop");

static u32 area[4096] __attribute__((aligned(4096)));

static void up_bytes(void)
{
	unsigned wrong = 0;

	for (unsigned limit = 0; limit < 12; limit++) {
		gdt_segment(SEL_TEST, (ulong)area, limit, ACC_P | ACC_DATA, SEG_D);
		for (unsigned at = 0; at < 12; at++) {
			wrong += (trap_call(read1, at).vector == VEC_GP) != (at > limit);
			wrong += (trap_call(read2, at).vector == VEC_GP) != (at + 1 > limit);
			wrong += (trap_call(read4, at).vector == VEC_GP) != (at + 3 > limit);
		}
	}
	CHECK_EQ(wrong, 0, "1, 2 and 4 bytes around limits of 0 to 11");
	CHECK_TRAP(trap_call(read4, 0xfffffffe), VEC_GP, 0, read4_at, "an offset that wraps");
}

static void up_pages(void)
{
	gdt_segment(SEL_TEST, (ulong)area, 1, ACC_P | ACC_DATA, SEG_D | SEG_G);
	CHECK_EQ(trap_call(read4, 0x1ffc).vector, TRAP_NONE, "the last doubleword of two pages");
	CHECK_TRAP(trap_call(read4, 0x1ffd), VEC_GP, 0, read4_at, "one byte further");
	CHECK_EQ(trap_call(write4, 0x1ffc).vector, TRAP_NONE, "and written");
	gdt_segment(SEL_TEST, 0, 0xfffff, ACC_P | ACC_DATA, SEG_D | SEG_G);
	CHECK_EQ(trap_call(read4, (ulong)area).vector, TRAP_NONE, "the whole 4 GiB");
}

static void down(void)
{
	/* Valid are the offsets above the limit, to 0xffff or to 0xffffffff. */
	gdt_segment(SEL_TEST, (ulong)area - 0x1000, 0xfff, ACC_P | ACC_DOWN, SEG_D);
	CHECK_TRAP(trap_call(read1, 0xfff), VEC_GP, 0, read1_at, "expand-down: at the limit");
	CHECK_EQ(trap_call(read1, 0x1000).vector, TRAP_NONE, "expand-down: above the limit");
	CHECK_EQ(trap_call(read4, 0x20000).vector, TRAP_NONE, "expand-down, 32 bits: above 64 K");
	gdt_segment(SEL_TEST, (ulong)area - 0x1000, 0xfff, ACC_P | ACC_DOWN, 0);
	CHECK_EQ(trap_call(read1, 0xffff).vector, TRAP_NONE, "expand-down, 16 bits: the top");
	CHECK_TRAP(trap_call(read2, 0xffff), VEC_GP, 0, read2_at, "expand-down, 16 bits: beyond");
	CHECK_TRAP(trap_call(read1, 0x10000), VEC_GP, 0, read1_at, "expand-down, 16 bits: 64 K");
	gdt_segment(SEL_TEST, (ulong)area - 0x1000, 0, ACC_P | ACC_DOWN, SEG_D | SEG_G);
	CHECK_TRAP(trap_call(read1, 0xfff), VEC_GP, 0, read1_at, "expand-down by pages: the limit");
	CHECK_EQ(trap_call(read1, 0x1000).vector, TRAP_NONE, "expand-down by pages: above");
}

static void types(void)
{
	gdt_segment(SEL_TEST, (ulong)area, 0xfff, ACC_P | ACC_RODATA, SEG_D);
	CHECK_EQ(trap_call(read1, 0).vector, TRAP_NONE, "a read-only segment is read");
	CHECK_TRAP(trap_call(write1, 0), VEC_GP, 0, write1_at, "a read-only segment is written");
	gdt_segment(SEL_TEST, (ulong)area, 0xfff, ACC_P | ACC_CODE, SEG_D);
	CHECK_EQ(trap_call(read1, 0).vector, TRAP_NONE, "readable code is read");
	CHECK_TRAP(trap_call(write1, 0), VEC_GP, 0, write1_at, "readable code is written");
	CHECK_EQ(trap_call(read_cs, (ulong)area).vector, TRAP_NONE, "CS is read");
	CHECK_TRAP(trap_call(write_cs, (ulong)area), VEC_GP, 0, write_cs_at, "CS is written");
	CHECK_TRAP(trap_call(read_null, (ulong)area), VEC_GP, 0, read_null_at, "FS null, read");
	CHECK_TRAP(trap_call(add_null, (ulong)area), VEC_GP, 0, add_null_at, "GS null, RPL 3");
	gdt_segment(SEL_TEST, (ulong)area, 0xf, ACC_P | ACC_DATA, SEG_D);
	CHECK_EQ(trap_call(read_ss, 0xf).vector, TRAP_NONE, "SS within the limit");
}

static void queries(void)
{
	gdt_segment(SEL_TEST, 0, 0x12345, ACC_P | ACC_DATA, SEG_D);
	CHECK_EQ(trap_call(lsl, SEL_TEST).value, 0x12345, "LSL, bytes");
	gdt_segment(SEL_TEST, 0, 0x12345, ACC_P | ACC_RODATA, SEG_D | SEG_G);
	CHECK_EQ(trap_call(lsl, SEL_TEST).value, 0x12345fff, "LSL, pages");
	CHECK_EQ(trap_call(lar, SEL_TEST).value & 0xf0ff00, 0xc09000, "LAR");
	CHECK_EQ(trap_call(verr, SEL_TEST).value, 1, "VERR of data");
	CHECK_EQ(trap_call(verw, SEL_TEST).value, 0, "VERW of read-only data");
	CHECK_EQ(trap_call(verw, SEL_KDATA).value, 1, "VERW of writable data");
	CHECK_EQ(trap_call(verr, SEL_KDATA | 3).value, 0, "VERR with too weak an RPL");
	CHECK_EQ(trap_call(verr, 0).value, 0, "VERR of null");
	CHECK_EQ(trap_call(lsl, 0).value, 0, "LSL of null");
	CHECK_EQ(trap_call(lar, 0x1000).value, 0, "LAR beyond the table");
	gdt_segment(SEL_TEST, 0, 0xfff, ACC_P | ACC_XCODE, SEG_D);
	CHECK_EQ(trap_call(verr, SEL_TEST).value, 0, "VERR of execute-only code");
	CHECK_EQ(user_call(verr, SEL_KDATA).value, 0, "ring 3: VERR of a segment of ring 0");
	CHECK_EQ(user_call(lsl, SEL_UDATA).value, 0xffffffff, "ring 3: LSL of its own");
}

/* Loading a segment sets its accessed bit, once. */
static void accessed(void)
{
	gdt_segment(SEL_TEST, (ulong)area, 0xfff, ACC_P | ACC_DATA, SEG_D);
	CHECK_EQ(gdt[SEL_TEST / 8] >> 40 & 1, 0, "accessed is clear at first");
	trap_call(read1, 0);
	CHECK_EQ(gdt[SEL_TEST / 8] >> 40 & 1, 1, "accessed is set by loading");
}

void guest_main(void)
{
	up_bytes();
	up_pages();
	down();
	types();
	queries();
	accessed();
}

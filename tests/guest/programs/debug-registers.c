// SPDX-License-Identifier: MIT
/*
 * Single steps and breakpoints: what they report, when they come, and what holds them off (SDM vol.
 * 3, chapter 18.2 and 18.3).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

#define DR7_ENABLE(n)	       (1ul << (n)*2)
#define DR7_TYPE(n, type, len) ((ulong)((type) | (len) << 2) << (16 + (n)*4))
#define EXECUTE		       0
#define WRITE		       1
#define READWRITE	       3
#define DR6_FIXED	       0xffff0ff0ul

static u32 watched[8] __attribute__((aligned(64)));
static ulong hits, hit_ip[64], hit_dr6[64];

static bool record(struct frame *f)
{
	if (hits < COUNT(hit_ip)) {
		hit_ip[hits] = f->ip;
		hit_dr6[hits] = read_dr6();
	}
	hits++;
	write_dr6(DR6_FIXED);
	f->flags |= FLAG_RF;
	return true;
}

PROBE(step_run, "pushf; pop %ecx; or $0x100, %ecx; push %ecx; popf",
      "nop; .globl step_2; step_2: nop; .globl step_3; step_3: pushf; pop %eax; "
      "and $~0x100, %ecx; push %ecx; popf");
PROBE(step_ss, "pushf; orl $0x100, (%esp); mov %ss, %edx; popf",
      "mov %edx, %ss; .globl ss_1; ss_1: nop; .globl ss_2; ss_2: pushf; andl $~0x100, (%esp); "
      "popf");
PROBE(step_int, "pushf; orl $0x100, (%esp); popf", "int $0x70; pushf; andl $~0x100, (%esp); popf");
PROBE(execute_here, "nop", "nop; nop");
PROBE(store, "mov $1, %ecx", "mov %ecx, (%eax)");
PROBE(load, "", "mov (%eax), %ecx");
PROBE(store_byte, "", "movb $1, (%eax)");
PROBE(store_word, "", "movw $1, (%eax)");
PROBE(move_dr, "", "mov %dr0, %ecx");
PROBE(move_dr4, "", "mov %dr4, %ecx");
PROBE(user_dr, "", "mov %dr7, %eax");
PROBE(fill, "push %edi; mov %eax, %edi; mov $8, %ecx; cld",
      "rep stosl; .globl fill_end; fill_end: pop %edi");
extern const u8 step_2[], step_3[], ss_1[], ss_2[], fill_end[];

static void arm(unsigned n, ulong address, unsigned type, unsigned len)
{
	static void (*const set[])(ulong) = { write_dr0, write_dr1, write_dr2, write_dr3 };

	set[n](address);
	write_dr7(0x400 | DR7_ENABLE(n) | DR7_TYPE(n, type, len - 1));
	write_dr6(DR6_FIXED);
	hits = 0;
}

static void single_step(void)
{
	hits = 0;
	trap_call(step_run, 0);
	CHECK_EQ(hits, 7, "a step after every instruction behind the POPF");
	CHECK_EQ(hit_ip[0], ADDR(step_2), "the first after the first NOP");
	CHECK_EQ(hit_ip[1], ADDR(step_3), "the second after the second");
	CHECK_EQ(hit_dr6[0], DR6_FIXED | BIT(14), "DR6.BS says so");

	hits = 0;
	trap_call(step_ss, 0);
	CHECK_EQ(hit_ip[0], ADDR(ss_2), "MOV SS holds a step off by one instruction");

	hits = 0;
	trap_handle(0x70, record);
	trap_call(step_int, 0);
	trap_handle(0x70, 0);
	CHECK_EQ(hits, 1 + 3, "INT clears TF: no step in the handler, none after INT itself");
}

static void code_breakpoint(void)
{
	arm(0, ADDR(execute_here_at), EXECUTE, 1);
	trap_call(execute_here, 0);
	CHECK_EQ(hits, 1, "an instruction breakpoint, once, as RF holds off the next");
	CHECK_EQ(hit_ip[0], ADDR(execute_here_at), "it is a fault");
	CHECK_EQ(hit_dr6[0], DR6_FIXED | 1, "DR6.B0");
	write_dr7(0x400);
	hits = 0;
	trap_call(execute_here, 0);
	CHECK_EQ(hits, 0, "not when disabled");
}

static void data_breakpoint(void)
{
	ulong w = (ulong)watched;

	arm(1, w + 4, WRITE, 4);
	trap_call(store, w + 4);
	CHECK_EQ(hits, 1, "a write breakpoint");
	CHECK_EQ(hit_ip[0], ADDR(store_after), "it is a trap");
	CHECK_EQ(hit_dr6[0], DR6_FIXED | 2, "DR6.B1");
	trap_call(load, w + 4);
	CHECK_EQ(hits, 1, "which a read does not trigger");
	trap_call(store_byte, w + 7);
	CHECK_EQ(hits, 2, "a write of its last byte does");
	trap_call(store_byte, w + 8);
	CHECK_EQ(hits, 2, "the byte behind does not");
	trap_call(store, w + 1);
	CHECK_EQ(hits, 3, "a write that overlaps does");
	trap_call(store_word, w + 2);
	CHECK_EQ(hits, 3, "one that ends in front does not");

	arm(2, w, READWRITE, 2);
	trap_call(load, w);
	CHECK_EQ(hits, 1, "a read breakpoint");
	CHECK_EQ(hit_dr6[0], DR6_FIXED | 4, "DR6.B2");
	trap_call(store, w);
	CHECK_EQ(hits, 2, "which a write triggers too");

	arm(3, w + 8, WRITE, 4);
	trap_call(fill, w);
	CHECK_EQ(hits, 1, "in the middle of REP STOSD");
	CHECK_EQ(hit_dr6[0] & 0xf, 8, "DR6.B3");
	write_dr7(0x400);
}

static void accesses(void)
{
	ulong cr4 = read_cr4();

	CHECK_TRAP(user_call(user_dr, 0), VEC_GP, 0, user_dr_at, "ring 3 may not read DR7");
	write_cr4(cr4 & ~CR4_DE);
	CHECK_EQ(trap_call(move_dr4, 0).vector, TRAP_NONE, "DR4 is DR6 without CR4.DE");
	write_cr4(cr4 | CR4_DE);
	CHECK_TRAP(trap_call(move_dr4, 0), VEC_UD, 0, move_dr4_at, "and does not exist with it");
	write_cr4(cr4);
	trap_handle(VEC_DB, 0);
	write_dr6(DR6_FIXED);
	write_dr7(0x400 | BIT(13));
	CHECK_TRAP(trap_call(move_dr, 0), VEC_DB, 0, move_dr_at, "DR7.GD guards the registers");
	CHECK_EQ(read_dr6() & BIT(13), BIT(13), "DR6.BD, and the handler may look");
	write_dr6(DR6_FIXED);
	CHECK_EQ(read_dr7() & BIT(13), 0, "as GD is clear again");
	CHECK_EQ(read_dr7(), 0x400, "DR7 at rest");
	CHECK_EQ(read_dr6(), DR6_FIXED, "DR6 at rest");
}

void guest_main(void)
{
	trap_handle(VEC_DB, record);
	single_step();
	code_breakpoint();
	data_breakpoint();
	accesses();
}

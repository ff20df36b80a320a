// SPDX-License-Identifier: MIT
/*
 * Hardware task switches: by JMP, by CALL and IRET back, through a task gate in the IDT, and the
 * exceptions that they raise (SDM vol. 3, chapter 7).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

#define SEL_OTHER SEL_TEST
#define SEL_GATE  (SEL_TEST + 8)

static struct tss32 other;
static u8 other_stack[8192] __attribute__((aligned(16)));
static volatile u32 visits, other_flags, other_tr;

PROBE(task_call, "", "lcall $0x90, $0");
PROBE(task_gate_call, "", "lcall $0x98, $0");
PROBE(task_jump, "", "ljmp $0x90, $0");
PROBE(task_int, "", "int $0x70");
PROBE(null_iret, "pushf; orl $0x4000, (%esp); popf; pushf; push %cs; push $1f", "iret; 1:");

static u16 task_register(void)
{
	u16 tr;

	asm volatile("str %0" : "=r"(tr));
	return tr;
}

/* What runs in the other task: once per visit; IRET with NT set goes back. */
static void other_main(void)
{
	for (;;) {
		visits++;
		other_flags = read_flags();
		other_tr = task_register();
		asm volatile("iret" : : : "memory");
	}
}

/* For a visit by JMP, which leaves no way back but another JMP. */
static void other_jump(void)
{
	for (;;) {
		visits++;
		other_flags = read_flags();
		asm volatile("ljmp %0, $0" : : "i"(SEL_TSS) : "memory");
	}
}

static void prepare(void (*entry)(void))
{
	other = (struct tss32){
		.ip = (ulong)entry,
		.flags = FLAG_FIXED,
		.sp = (ulong)other_stack + sizeof(other_stack) - 16,
		.cs = SEL_KCODE,
		.ss = SEL_KDATA,
		.ds = SEL_KDATA,
		.es = SEL_KDATA,
		.fs = SEL_KDATA,
		.gs = SEL_KDATA,
		.iomap = sizeof(other),
	};
	gdt_system(SEL_OTHER, (ulong)&other, sizeof(other) - 1, ACC_P | ACC_TSS);
}

static bool busy(u16 sel)
{
	return gdt[sel / 8] >> 41 & 1;
}

static void by_call(void)
{
	prepare(other_main);
	visits = 0;
	CHECK_EQ(trap_call(task_call, 0x1234).vector, TRAP_NONE, "CALL of a TSS and IRET back");
	CHECK_EQ(visits, 1, "the task ran");
	CHECK_EQ(other_flags & FLAG_NT, FLAG_NT, "NT is set in it");
	CHECK_EQ(other_tr, SEL_OTHER, "TR is its selector");
	CHECK_EQ(other.link, SEL_TSS, "the link is to the caller");
	CHECK_EQ(task_register(), SEL_TSS, "TR is ours again");
	CHECK(!busy(SEL_OTHER), "the task is no longer busy");
	CHECK(busy(SEL_TSS), "ours is");
	CHECK(!(read_flags() & FLAG_NT), "NT is clear again");
	CHECK(read_cr0() & CR0_TS, "a task switch sets CR0.TS");
	asm volatile("clts");
	CHECK_EQ(desc_tss(0)->ax, 0x1234, "our registers were saved in our TSS");
	CHECK_EQ(desc_tss(0)->ip, ADDR(task_call_after), "with the address to come back to");
	trap_call(task_call, 0);
	CHECK_EQ(visits, 2, "the second visit goes on behind the IRET");
	asm volatile("clts");
}

static void by_gate(void)
{
	prepare(other_main);
	visits = 0;
	gdt_gate(SEL_GATE, SEL_OTHER, 0, ACC_P | ACC_TASKGATE, 0);
	CHECK_EQ(trap_call(task_gate_call, 0).vector, TRAP_NONE, "CALL of a task gate");
	idt_gate(0x70, SEL_OTHER, 0, ACC_P | ACC_TASKGATE, 0);
	CHECK_EQ(trap_call(task_int, 0).vector, TRAP_NONE, "INT n through a task gate");
	CHECK_EQ(visits, 2, "both reached the task");
	idt_default(0x70);
	asm volatile("clts");
}

static void by_jump(void)
{
	prepare(other_jump);
	visits = 0;
	other.link = 0x5555;
	CHECK_EQ(trap_call(task_jump, 0).vector, TRAP_NONE, "JMP to a TSS and JMP back");
	CHECK_EQ(visits, 1, "the task ran");
	CHECK_EQ(other_flags & FLAG_NT, 0, "NT is clear in it");
	CHECK_EQ(other.link, 0x5555, "no link is written");
	CHECK(!busy(SEL_OTHER), "the task is no longer busy");
	asm volatile("clts");
}

static void refused(void)
{
	prepare(other_main);
	gdt_system(SEL_OTHER, (ulong)&other, sizeof(other) - 1, ACC_P | ACC_TSS | 2);
	CHECK_TRAP(trap_call(task_call, 0), VEC_GP, SEL_OTHER, task_call_at, "a busy task");
	gdt_system(SEL_OTHER, (ulong)&other, sizeof(other) - 1, ACC_TSS);
	CHECK_TRAP(trap_call(task_call, 0), VEC_NP, SEL_OTHER, task_call_at, "a TSS not present");
	gdt_system(SEL_OTHER, (ulong)&other, 0x66, ACC_P | ACC_TSS);
	CHECK_TRAP(trap_call(task_call, 0), VEC_TS, SEL_OTHER, task_call_at, "a TSS too short");
	prepare(other_main);
	CHECK_TRAP(user_call(task_call, 0), VEC_GP, SEL_OTHER, task_call_at, "ring 3, DPL 0");
	desc_tss(0)->link = SEL_KDATA;
	CHECK_TRAP(trap_call(null_iret, 0), VEC_TS, SEL_KDATA, null_iret_at,
		   "IRET with NT and a link to no TSS");
	write_flags(read_flags() & ~FLAG_NT);
}

/* A fault on loading the new task's segments comes in the new task. */
static void bad_segments(void)
{
	struct trap t;

	prepare(other_main);
	other.ds = SEL_KDATA | 3;
	t = trap_call(task_call, 0);
	CHECK_EQ(t.vector, VEC_TS, "a data segment that the new task may not have");
	CHECK_EQ(t.error & ~3ul, SEL_KDATA, "the error code names it");
	CHECK_EQ(task_register(), SEL_OTHER, "the switch has taken place by then");
	/* Home again, by making our TSS available and loading it. */
	gdt_system(SEL_TSS, (ulong)desc_tss(0), sizeof(struct tss32) - 1, ACC_P | ACC_TSS);
	load_tr(SEL_TSS);
	write_flags(read_flags() & ~FLAG_NT);
	asm volatile("clts");
}

void guest_main(void)
{
	by_call();
	by_gate();
	by_jump();
	refused();
	bad_segments();
}

// SPDX-License-Identifier: MIT
/* hot.h: flags and the stack; the timer. */
#include "hot.h"
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

#define STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
/* All that POPF changes in ring 0. */
#define LOADED (STATUS | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID)

#ifdef __x86_64__
#define R(name) "%r" #name
#define WORD	"8"
#else
#define R(name) "%e" #name
#define WORD	"4"
#endif
#define IMAGE "pushf; pop " AX

/* ---- the timer ---- */

#define TICK_VECTOR 0x50
#define TICK	    50000 /* of a clock of 1 GHz */

static volatile unsigned ticks;

static bool on_tick(struct frame *f)
{
	ticks++;
	lapic_eoi();
	return true;
}

void hot_timer(bool on)
{
	trap_handle(TICK_VECTOR, on_tick);
	lapic_write(LAPIC_TIMER_DIV, 0xb);
	lapic_write(LAPIC_LVT_TIMER, on ? LVT_PERIODIC | TICK_VECTOR : LVT_MASKED);
	lapic_write(LAPIC_TIMER_INIT, on ? TICK : 0);
}

unsigned hot_ticks(void)
{
	return ticks;
}

bool hot_ticked(unsigned n)
{
	sti();
	for (unsigned i = 0; ticks < n && i < 100000000; i++)
		pause();
	cli();
	return ticks >= n;
}

u32 hot_random(void)
{
	static u32 state = 1;

	state = state * 1664525 + 1013904223;
	return state ^ state >> 15;
}

bool hot_equal(u64 got, u64 want, const char *what, const char *file, int line)
{
	check_equal(got, want, what, file, line);
	return got == want;
}

/* ---- status flags ---- */

/* What is known of flags; the others are undefined. */
struct flags {
	ulong value, known;
};

static ulong of_result(u32 r)
{
	return (r ? 0 : FLAG_ZF) | (r >> 31 ? FLAG_SF : 0) |
	       (__builtin_parity(r & 0xff) ? 0 : FLAG_PF);
}

static struct flags sum(u32 a, u32 b, u32 carry)
{
	u64 wide = (u64)a + b + carry;
	u32 r = (u32)wide;

	return (struct flags){ of_result(r) | (wide >> 32 ? FLAG_CF : 0) |
				       ((a ^ b ^ r) & 0x10 ? FLAG_AF : 0) |
				       (((a ^ r) & (b ^ r)) >> 31 ? FLAG_OF : 0),
			       STATUS };
}

static struct flags difference(u32 a, u32 b, u32 borrow)
{
	u32 r = a - b - borrow;

	return (struct flags){ of_result(r) | ((u64)b + borrow > a ? FLAG_CF : 0) |
				       ((a ^ b ^ r) & 0x10 ? FLAG_AF : 0) |
				       (((a ^ b) & (a ^ r)) >> 31 ? FLAG_OF : 0),
			       STATUS };
}

static struct flags mix(struct flags old, struct flags new, ulong changed)
{
	return (struct flags){ (old.value & ~changed) | (new.value &changed),
			       (old.known & ~changed) | (new.known &changed) };
}

static struct flags of_cmp(u32 a)
{
	return difference(a, 5, 0);
}

static struct flags of_inc(u32 a)
{
	return mix(of_cmp(a), sum(a, 1, 0), STATUS & ~FLAG_CF);
}

static struct flags of_dec(u32 a)
{
	return mix(of_cmp(a), difference(a, 1, 0), STATUS & ~FLAG_CF);
}

static struct flags of_adc(u32 a)
{
	return sum(a, a, of_cmp(a).value & FLAG_CF);
}

static struct flags of_sbb(u32 a)
{
	return difference(a, 0x12345678, of_cmp(a).value & FLAG_CF);
}

static struct flags of_neg(u32 a)
{
	return difference(0, a, 0);
}

static struct flags of_test(u32 a)
{
	return (struct flags){ of_result(a), STATUS & ~FLAG_AF };
}

static struct flags of_shl(u32 a)
{
	return (struct flags){ of_result(a << 3) | (a >> 29 & 1), STATUS & ~(FLAG_AF | FLAG_OF) };
}

static struct flags of_shl_cl(u32 a)
{
	unsigned n = a & 31;

	if (!n)
		return of_cmp(a);
	return (struct flags){ of_result(a << n) | (a >> (32 - n) & 1),
			       STATUS & ~(FLAG_AF | FLAG_OF) };
}

static struct flags of_rol(u32 a)
{
	ulong carry = a >> 31, overflow = (a >> 30 & 1) ^ carry;

	return mix(of_cmp(a), (struct flags){ carry | (overflow ? FLAG_OF : 0), STATUS },
		   FLAG_CF | FLAG_OF);
}

static struct flags of_ror_cl(u32 a)
{
	unsigned n = a & 31;

	if (!n)
		return of_cmp(a);
	return mix(of_cmp(a), (struct flags){ a >> (n - 1) & 1, STATUS & ~FLAG_OF },
		   FLAG_CF | FLAG_OF);
}

static struct flags of_imul(u32 a)
{
	s64 r = (s64)(s32)a * 0x12345;

	return (struct flags){ r == (s32)r ? 0 : FLAG_CF | FLAG_OF, FLAG_CF | FLAG_OF };
}

static struct flags of_bt(u32 a)
{
	return mix(of_cmp(a), (struct flags){ a >> 7 & 1, FLAG_CF }, STATUS & ~FLAG_ZF);
}

static struct flags of_sahf(u32 a)
{
	return mix(of_cmp(a), (struct flags){ a, STATUS }, STATUS & ~FLAG_OF);
}

#define COMPARE "cmp $5, %eax; "

PROBE(flags_cmp, "", COMPARE IMAGE);
PROBE(flags_inc, "", COMPARE "inc %eax; " IMAGE);
PROBE(flags_dec, "", COMPARE "dec %eax; " IMAGE);
PROBE(flags_adc, "", COMPARE "adc %eax, %eax; " IMAGE);
PROBE(flags_sbb, "", COMPARE "sbb $0x12345678, %eax; " IMAGE);
PROBE(flags_neg, "", "neg %eax; " IMAGE);
PROBE(flags_test, "", "test %eax, %eax; " IMAGE);
PROBE(flags_shl, "", "shl $3, %eax; " IMAGE);
PROBE(flags_shl_cl, "mov %eax, %ecx", COMPARE "shl %cl, %eax; " IMAGE);
PROBE(flags_rol, "", COMPARE "rol $1, %eax; " IMAGE);
PROBE(flags_ror_cl, "mov %eax, %ecx", COMPARE "ror %cl, %eax; " IMAGE);
PROBE(flags_imul, "", "imul $0x12345, %eax, %eax; " IMAGE);
PROBE(flags_bt, "", COMPARE "bt $7, %eax; " IMAGE);
PROBE(flags_sahf, "mov %eax, %ecx; mov %cl, %ch", COMPARE "mov %ecx, %eax; sahf; " IMAGE);
PROBE(flags_rdtsc, "", COMPARE "rdtsc; " IMAGE);
PROBE(flags_cld, "", COMPARE "cld; " IMAGE);
PROBE(flags_std, "", "std; " COMPARE "cld; " IMAGE);
PROBE(flags_push, "", COMPARE "push " AX "; pop " R(cx) "; " IMAGE);
PROBE(flags_twice, "", COMPARE "pushf; pop " R(cx) "; " IMAGE);
PROBE(flags_popf, "", COMPARE "pushf; cmp %eax, %eax; popf; " IMAGE);
/* PUSHF's reader is not the only one. */
PROBE(flags_jump, "", COMPARE "pushf; jb 1f; xorl $1, (" R(sp) "); 1: pop " AX);
/* In ring 0 only. */
PROBE(flags_cli, "pushf; pop " R(dx), COMPARE "cli; " IMAGE "; push " R(dx) "; popf");
PROBE(flags_sti, "pushf; pop " R(dx), COMPARE "sti; " IMAGE "; push " R(dx) "; popf");

static struct flags of_jump(u32 a)
{
	struct flags f = of_cmp(a);

	f.value ^= f.value & FLAG_CF ? 0 : 1;
	return f;
}

static const struct kind {
	guest_fn fn;
	struct flags (*model)(u32 a);
	const char *what;
	bool ring0;
} kinds[] = {
	{ flags_cmp, of_cmp, "CMP, PUSHF" },
	{ flags_inc, of_inc, "INC, PUSHF" },
	{ flags_dec, of_dec, "DEC, PUSHF" },
	{ flags_adc, of_adc, "ADC, PUSHF" },
	{ flags_sbb, of_sbb, "SBB, PUSHF" },
	{ flags_neg, of_neg, "NEG, PUSHF" },
	{ flags_test, of_test, "TEST, PUSHF" },
	{ flags_shl, of_shl, "SHL, PUSHF" },
	{ flags_shl_cl, of_shl_cl, "SHL by CL, PUSHF" },
	{ flags_rol, of_rol, "ROL, PUSHF" },
	{ flags_ror_cl, of_ror_cl, "ROR by CL, PUSHF" },
	{ flags_imul, of_imul, "IMUL, PUSHF" },
	{ flags_bt, of_bt, "BT, PUSHF" },
	{ flags_sahf, of_sahf, "SAHF, PUSHF" },
	{ flags_rdtsc, of_cmp, "CMP, RDTSC, PUSHF" },
	{ flags_cld, of_cmp, "CMP, CLD, PUSHF" },
	{ flags_std, of_cmp, "STD, CMP, CLD, PUSHF" },
	{ flags_push, of_cmp, "CMP, PUSH, POP, PUSHF" },
	{ flags_twice, of_cmp, "CMP, PUSHF, PUSHF" },
	{ flags_popf, of_cmp, "CMP, PUSHF, CMP, POPF" },
	{ flags_jump, of_jump, "CMP, PUSHF, JB" },
	{ flags_cli, of_cmp, "CMP, CLI, PUSHF", true },
	{ flags_sti, of_cmp, "CMP, STI, PUSHF", true },
};

static u32 operand(unsigned round)
{
	static const u32 edges[] = { 0, 1, 4, 5, 0x20, 0x7fffffff, 0x80000000, 0xffffffff };

	return round % 3 ? hot_random() : edges[round / 3 % COUNT(edges)];
}

static void status_flags(const struct kind *k)
{
	ulong rest = FLAG_FIXED | (read_flags() & FLAG_IF);
	ulong ring0 = k->fn == flags_cli   ? FLAG_FIXED
		      : k->fn == flags_sti ? FLAG_FIXED | FLAG_IF
					   : rest;

	for (unsigned round = 0; round < HOT; round++) {
		u32 a = operand(round);
		struct flags want = k->model(a);
		ulong mask = ~(STATUS & ~want.known);
		struct trap t = trap_call(k->fn, a);

		if (!HOT_EQ(t.value & mask, (want.value & want.known) | ring0, k->what))
			return;
		if (k->ring0)
			continue;
		t = user_call(k->fn, a);
		if (!HOT_EQ(t.value & mask, (want.value & want.known) | rest, k->what))
			return;
	}
}

/* ---- POPF ---- */

PROBE(popf_image, "pushf; pop " R(dx),
      "push " AX "; popf; pushf; pop " AX "; push " R(dx) "; popf");
PROBE(popfw_image, "pushf; pop " R(dx), "push %ax; popfw; " IMAGE "; push " R(dx) "; popf");

static void all_flags(void)
{
	const ulong rare[] = { FLAG_DF,	  FLAG_NT, FLAG_AC, FLAG_ID, BIT(12),
			       FLAG_IOPL, FLAG_IF, FLAG_RF, FLAG_VM, FLAG_VIF | FLAG_VIP };
	ulong before = read_flags() & FLAG_IF;

	for (unsigned round = 0; round < 4 * HOT; round++) {
		ulong image = hot_random() & (STATUS | BIT(3) | BIT(5) | BIT(15)), want;

		if (round % 4 == 3)
			image |= rare[round / 4 % COUNT(rare)];
		else
			image |= before;
		if (round % 32 == 31)
			image = hot_random() & ~FLAG_TF;
		want = (image & LOADED) | FLAG_FIXED;
		if (!HOT_EQ(trap_call(popf_image, image).value, want, "POPF, PUSHF"))
			return;
		want = (image & LOADED & 0xffff) | FLAG_FIXED;
		if (!HOT_EQ(trap_call(popfw_image, image).value, want, "POPF of 16 bits"))
			return;
	}
}

void hot_flags(bool undefined)
{
	for (unsigned n = 0; n < COUNT(kinds); n++)
		if (undefined || kinds[n].model(1).known == STATUS)
			status_flags(&kinds[n]);
	all_flags();
}

/* ---- single steps ---- */

PROBE(steps, "pushf; pop " R(dx),
      "push " AX "; popf; .globl step0; step0: nop; .globl step1; step1: pushf; "
      ".globl step2; step2: pop " AX "; .globl step3; step3: cld; .globl step4; step4: "
      "push " R(dx) "; popf");
extern const u8 step0[], step1[], step2[], step3[], step4[];

static ulong step_at[8];
static volatile unsigned nsteps;

static bool on_step(struct frame *f)
{
	if (nsteps < COUNT(step_at))
		step_at[nsteps] = f->ip;
	if (++nsteps == 4)
		f->flags &= ~FLAG_TF;
	return true;
}

static void single_steps(void)
{
	const ulong want[] = { ADDR(step1), ADDR(step2), ADDR(step3), ADDR(step4) };
	ulong flags = FLAG_FIXED | (read_flags() & FLAG_IF);

	trap_handle(VEC_DB, on_step);
	for (unsigned round = 0; round < HOT; round++) {
		ulong tf = round % 8 == 7 ? FLAG_TF : 0;
		struct trap t;

		nsteps = 0;
		t = trap_call(steps, flags | tf);
		if (!HOT_EQ(t.value, flags | tf, "PUSHF in steps") ||
		    !HOT_EQ(nsteps, tf ? 4 : 0, "steps"))
			break;
		for (unsigned n = 0; tf && n < COUNT(want); n++)
			if (!HOT_EQ(step_at[n], want[n],
				    "a step, the first behind what follows POPF"))
				break;
	}
	trap_handle(VEC_DB, NULL);
}

/* ---- ring 3 ---- */

PROBE(any_cli, "", "cli; " IMAGE);
PROBE(any_sti, "", "sti; " IMAGE);
PROBE(any_popf, "", "push " AX "; popf; " IMAGE "; cld");

/* CLI and STI in ring 3, whose outcome depends on IOPL; in ring 0 the same code always works. */
static bool try_user(unsigned round, ulong start, ulong image)
{
	bool allowed = (start & FLAG_IOPL) == FLAG_IOPL;
	ulong now = FLAG_FIXED | start | (read_flags() & FLAG_IF);
	ulong user = STATUS | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | (allowed ? FLAG_IF : 0);
	ulong own = read_flags();
	struct trap t;

	if (round % 2) {
		trap_call(any_sti, 0);
		trap_call(any_cli, 0);
		write_flags(own);
	}
	t = user_call_flags(any_cli, 0, start);
	if (!HOT_EQ(t.vector, allowed ? TRAP_NONE : VEC_GP, "CLI in ring 3") ||
	    (allowed && !HOT_EQ(t.value, now & ~FLAG_IF, "CLI with IOPL 3")) ||
	    (!allowed && !HOT_EQ(t.ip, ADDR(any_cli_at), "#GP at the CLI")))
		return false;
	t = user_call_flags(any_sti, 0, start);
	if (!HOT_EQ(t.vector, allowed ? TRAP_NONE : VEC_GP, "STI in ring 3") ||
	    (allowed && !HOT_EQ(t.value, now | FLAG_IF, "STI with IOPL 3")) ||
	    (!allowed && !HOT_EQ(t.ip, ADDR(any_sti_at), "#GP at the STI")))
		return false;
	t = user_call_flags(any_popf, image, start);
	return HOT_EQ(t.value, (image & user) | (now & ~user), "POPF in ring 3");
}

/* CR4.PVI: CLI and STI of ring 3 are about VIF. */
static void virtual_interrupts(void)
{
	ulong now = FLAG_FIXED | (read_flags() & FLAG_IF);

	if (!(cpuid_if(1, 0).d & BIT(1)))
		return;
	write_cr4(read_cr4() | CR4_PVI);
	for (unsigned round = 0; round < HOT; round++) {
		ulong vip = round % 8 == 7 ? FLAG_VIP : 0;
		struct trap t = user_call_flags(any_cli, 0, vip ? vip : FLAG_VIF);

		if (!HOT_EQ(t.vector, TRAP_NONE, "PVI: CLI") ||
		    !HOT_EQ(t.value, now | vip, "PVI: CLI clears VIF"))
			break;
		t = user_call_flags(any_sti, 0, vip);
		if (!HOT_EQ(t.vector, vip ? VEC_GP : TRAP_NONE, "PVI: STI fails if VIP is set") ||
		    (!vip && !HOT_EQ(t.value, now | FLAG_VIF, "PVI: STI sets VIF")))
			break;
		t = user_call_flags(any_popf, now ^ FLAG_IF, vip ? vip : FLAG_VIF);
		if (!HOT_EQ(t.value, now | (vip ? vip : FLAG_VIF),
			    "PVI: POPF changes neither IF nor VIF"))
			break;
	}
	write_cr4(read_cr4() & ~CR4_PVI);
}

static void user_flags(void)
{
	const ulong rare = FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_IOPL | FLAG_IF;

	for (unsigned round = 0; round < HOT; round++) {
		ulong start = round % 3 == 2 ? FLAG_IOPL : 0;
		ulong image = hot_random() & (STATUS | (round % 4 == 3 ? rare : 0));

		if (!try_user(round, start, image))
			break;
	}
	virtual_interrupts();
}

/* ---- the stack ---- */

PROBE(pop_sp, "mov " R(sp) ", " R(dx) "; add " R(sp) ", " AX,
      "push " AX "; pop " R(sp) "; mov " R(sp) ", " AX "; mov " R(dx) ", " R(sp));
PROBE(push_sp, "mov " R(sp) ", " R(dx), "push " R(sp) "; pop " AX "; sub " R(dx) ", " AX);
/* POP's address is that after the stack pointer moved. */
PROBE(pop_mem, "push $0; push $0; push " AX,
      "pop " WORD "(" R(sp) "); pop " R(cx) "; mov (" R(sp) "), " AX "; pop " R(dx));
PROBE(pop_from, "mov " R(sp) ", " R(dx) "; mov " AX ", " R(sp),
      "pop " R(sp) "; mov " R(sp) ", " AX "; mov " R(dx) ", " R(sp));

static void stack_pointer(void)
{
	ulong word = 0xb0b0b0b0, flags = read_flags();

	for (unsigned round = 0; round < HOT; round++) {
		ulong delta = -(ulong)(hot_random() % 64) * sizeof(ulong);
		ulong sp = trap_call(pop_sp, 0).value;
		ulong moved = trap_call(pop_mem, delta).value;

		if (!HOT_EQ(trap_call(pop_sp, delta).value, sp + delta,
			    "POP of the stack pointer") ||
		    !HOT_EQ(trap_call(push_sp, 0).value, 0, "PUSH of the stack pointer") ||
		    !HOT_EQ(moved, delta, "POP to memory by the stack pointer"))
			break;
	}
	/* No interrupt likes such a stack. */
	cli();
	for (unsigned round = 0; round < HOT; round++)
		if (!HOT_EQ(trap_call(pop_from, (ulong)&word).value, word, "POP of any value"))
			break;
	write_flags(flags);
}

/* ---- strings ---- */

static u8 text[16] = "0123456789abcde";

PROBE(both_ways, "push " R(si) "; mov " AX ", " R(si) "; xor %ecx, %ecx",
      "std; lodsb; mov %al, %cl; lodsb; mov %al, %ch; pushf; cld; lodsb; pop " R(
	      dx) "; shl $16, %ecx; mov %al, %cl; and $0x400, %edx; or %edx, %ecx; mov %ecx, %eax; "
		  "pop " R(si));
PROBE(copy_down,
      "push " R(si) "; push " R(di) "; lea 7(" AX "), " R(si) "; lea 9(" AX
							      "), " R(di) "; mov $8, %ecx",
      "std; rep movsb; cld; pop " R(di) "; pop " R(si));

static void directions(void)
{
	for (unsigned round = 0; round < HOT; round++) {
		unsigned at = 2 + round % 8;
		u32 want = text[at - 2] | 0x400 | text[at] << 16 | text[at - 1] << 24;
		u8 copy[16], moved[16];

		if (!HOT_EQ(trap_call(both_ways, (ulong)&text[at]).value, want, "STD, CLD"))
			return;
		memcpy(copy, text, sizeof(copy));
		memcpy(moved, text, sizeof(moved));
		memcpy(moved + 2, text, 8);
		trap_call(copy_down, (ulong)copy);
		if (!HOT_EQ(memcmp(copy, moved, sizeof(copy)), 0, "STD, REP MOVSB onto itself"))
			return;
	}
}

/* ---- all of it ---- */

void hot_system(void (*more)(void))
{
	lapic_enable();
	for (unsigned pass = 0; pass < 2; pass++) {
		if (pass) {
			hot_timer(true);
			sti();
		}
		hot_flags(false);
		single_steps();
		hot_interrupts();
		user_flags();
		hot_smap();
		hot_tsc();
		stack_pointer();
		directions();
		if (more)
			more();
	}
	cli();
	CHECK(hot_ticked(11), "the timer was running");
}

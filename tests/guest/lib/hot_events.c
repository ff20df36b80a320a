// SPDX-License-Identifier: MIT
/* hot.h: interrupts, SMAP, the time-stamp counter. */
#include "apic.h"
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "hot.h"
#include "paging.h"
#include "trap.h"

#ifdef __x86_64__
#define R(name) "%r" #name
#define IRET	"iretq"
#else
#define R(name) "%e" #name
#define IRET	"iret"
#endif
#define IMAGE "pushf; pop " AX

/* ---- interrupts ---- */

#define VECTOR 0x40

static volatile ulong came, came_at;

static bool on_interrupt(struct frame *f)
{
	came++;
	came_at = f->ip;
	lapic_eoi();
	return true;
}

/* LABEL(x): here an interrupt that is pending comes in. */
#define LABEL(name) ".globl " #name "; " #name ": "
#define EVENT(name, before, insn)  \
	PROBE(name, before, insn); \
	extern const u8 name##_in[]

EVENT(ev_nop, "", "sti; nop; " LABEL(ev_nop_in) "nop; cli");
EVENT(ev_cli, "", "sti; cli; " LABEL(ev_cli_in) "nop");
EVENT(ev_hlt, "", "sti; hlt; " LABEL(ev_hlt_in) "cli");
EVENT(ev_sti, "", "sti; sti; " LABEL(ev_sti_in) "nop; cli");
EVENT(ev_cli_sti, "", "sti; cli; sti; nop; " LABEL(ev_cli_sti_in) "nop; cli");
EVENT(ev_pushf, "", "sti; pushf; " LABEL(ev_pushf_in) "pop " AX "; cli");
EVENT(ev_popf_off, "pushf", "sti; popf; " LABEL(ev_popf_off_in) "nop");
EVENT(ev_popf, "pushf; pop " AX "; or $0x200, " AX,
      "push " AX "; popf; " LABEL(ev_popf_in) "nop; cli");
EVENT(ev_popf_rare, "pushf; pop " AX "; or $0x40200, " AX,
      "push " AX "; popf; " LABEL(ev_popf_rare_in) "cli; push $2; popf");
EVENT(ev_ret, "", "call 1f; " LABEL(ev_ret_in) "cli; jmp 2f; 1: sti; ret; 2:");
EVENT(ev_call, "", "sti; call 1f; jmp 2f; 1: " LABEL(ev_call_in) "cli; ret; 2:");
EVENT(ev_jmp, "", "sti; jmp 1f; nop; 1: " LABEL(ev_jmp_in) "nop; cli");
EVENT(ev_back, "", "jmp 2f; 1: " LABEL(ev_back_in) "cli; jmp 3f; 2: sti; jmp 1b; 3:");
EVENT(ev_jz, "xor %ecx, %ecx", "sti; jz 1f; nop; 1: " LABEL(ev_jz_in) "nop; cli");
EVENT(ev_jnz, "xor %ecx, %ecx", "sti; jnz 1f; " LABEL(ev_jnz_in) "nop; 1: cli");
EVENT(ev_jump_reg, "mov $ev_jump_reg_in, %ecx",
      "sti; jmp *" R(cx) "; nop; " LABEL(ev_jump_reg_in) "nop; cli");
EVENT(ev_load, "", "sti; mov (" R(sp) "), %ecx; " LABEL(ev_load_in) "nop; cli");
EVENT(ev_out, "", "sti; out %al, $0x80; " LABEL(ev_out_in) "nop; cli");
EVENT(ev_mmio, "mov $0xfee00020, %ecx",
      "sti; mov (" R(cx) "), %edx; " LABEL(ev_mmio_in) "nop; cli");
EVENT(ev_int, "", "sti; int $0x42; " LABEL(ev_int_in) "nop; cli");
EVENT(ev_cld, "", "sti; cld; " LABEL(ev_cld_in) "nop; cli");
EVENT(ev_rdtsc, "", "sti; rdtsc; " LABEL(ev_rdtsc_in) "nop; cli");
EVENT(ev_cpuid, "push " R(bx) "; xor %eax, %eax",
      "sti; cpuid; " LABEL(ev_cpuid_in) "nop; cli; pop " R(bx));
EVENT(ev_read_cr3, "", "sti; mov %cr3, " AX "; " LABEL(ev_read_cr3_in) "nop; cli");
#ifdef __x86_64__
EVENT(ev_iret, "mov %rsp, %rdx; mov %ss, %ecx; push %rcx; push %rdx; pushf; orq $0x200, (%rsp)",
      "mov %cs, %ecx; push %rcx; push $ev_iret_in; iretq; " LABEL(ev_iret_in) "nop; cli");
#else
EVENT(ev_iret, "pushf; orl $0x200, (%esp)",
      "push %cs; push $ev_iret_in; iret; " LABEL(ev_iret_in) "nop; cli");
#endif

static const struct event {
	guest_fn fn;
	const u8 *in;
	const char *what;
	bool never, always;
} events[] = {
	{ ev_nop, ev_nop_in, "STI, NOP" },
	{ ev_cli, ev_cli_in, "STI, CLI", .never = true },
	{ ev_hlt, ev_hlt_in, "STI, HLT", .always = true },
	{ ev_sti, ev_sti_in, "STI, STI" },
	{ ev_cli_sti, ev_cli_sti_in, "STI, CLI, STI, NOP" },
	{ ev_pushf, ev_pushf_in, "STI, PUSHF" },
	{ ev_popf_off, ev_popf_off_in, "STI, POPF that clears IF", .never = true },
	{ ev_popf, ev_popf_in, "POPF that sets IF" },
	{ ev_popf_rare, ev_popf_rare_in, "POPF that sets IF and AC" },
	{ ev_ret, ev_ret_in, "STI, RET" },
	{ ev_call, ev_call_in, "STI, CALL" },
	{ ev_jmp, ev_jmp_in, "STI, JMP" },
	{ ev_back, ev_back_in, "STI, JMP backwards" },
	{ ev_jz, ev_jz_in, "STI, JZ" },
	{ ev_jnz, ev_jnz_in, "STI, JNZ" },
	{ ev_jump_reg, ev_jump_reg_in, "STI, JMP to a register" },
	{ ev_load, ev_load_in, "STI, MOV" },
	{ ev_out, ev_out_in, "STI, OUT" },
	{ ev_mmio, ev_mmio_in, "STI, MOV of a device" },
	{ ev_int, ev_int_in, "STI, INT" },
	{ ev_cld, ev_cld_in, "STI, CLD" },
	{ ev_rdtsc, ev_rdtsc_in, "STI, RDTSC" },
	{ ev_cpuid, ev_cpuid_in, "STI, CPUID" },
	{ ev_read_cr3, ev_read_cr3_in, "STI, MOV of CR3" },
	{ ev_iret, ev_iret_in, "IRET that sets IF" },
};

static void pend(void)
{
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR);
	while (!lapic_bit(LAPIC_IRR, VECTOR))
		pause();
}

/*
 * With IF set already, STI has no shadow, and what is behind it is executed as all code is.  So
 * that becomes hot, too, and is where translated code goes on when STI does have a shadow.
 */
static void without_shadow(const struct event *e)
{
	sti();
	trap_call(e->fn, 0);
	cli();
}

static bool event(const struct event *e, bool pending)
{
	unsigned ticks = hot_ticks();

	came = came_at = 0;
	if (pending)
		pend();
	trap_call(e->fn, 0);
	if (e->never && !HOT_EQ(hot_ticks(), ticks, e->what))
		return false;
	if (!HOT_EQ(came, pending && !e->never, e->what) ||
	    (came && !HOT_EQ(came_at, ADDR(e->in), e->what)))
		return false;
	if (!pending || !e->never)
		return true;
	open_window();
	return HOT_EQ(came, 1, "and it waits for its time");
}

/* STI is the last instruction of a page. */
static void at_page_end(void)
{
	static u8 code[8192] __attribute__((aligned(4096)));
	static const u8 end[] = { 0xfb, 0x90, 0x90, 0xfa, 0xc3 }; /* sti; nop; nop; cli; ret */
	struct event e = { (guest_fn)(code + 4095), code + 4097, "STI at the end of a page" };

	memcpy(code + 4095, end, sizeof(end));
	for (unsigned round = 0; round < HOT; round++) {
		if (!event(&e, round % 2))
			return;
		without_shadow(&e);
	}
}

/* The timer ends a sleep, however short it is. */
static void wake_ups(void)
{
	lapic_write(LAPIC_TIMER_DIV, 0xb);
	lapic_write(LAPIC_LVT_TIMER, VECTOR);
	for (unsigned round = 0; round < 2 * HOT; round++) {
		came = 0;
		lapic_write(LAPIC_TIMER_INIT, 1 + hot_random() % 20000);
		ev_hlt(0);
		if (!HOT_EQ(came, 1, "the timer ends a sleep") ||
		    !HOT_EQ(came_at, ADDR(ev_hlt_in), "it comes behind the HLT"))
			break;
	}
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
}

void hot_interrupts(void)
{
	ulong flags = read_flags();

	trap_handle(VECTOR, on_interrupt);
	cli();
	for (unsigned n = 0; n < COUNT(events); n++) {
		const struct event *e = &events[n];

		for (unsigned round = 0; round < HOT; round++) {
			if (!event(e, e->always || round % 4 == 3))
				break;
			if (!e->always && round % 4 != 3)
				without_shadow(e);
		}
	}
	at_page_end();
	if (lapic_read(LAPIC_LVT_TIMER) & LVT_MASKED)
		wake_ups();
	write_flags(flags);
}

/* ---- SMAP ---- */

#define VA    0x40000000ul
#define OWN   (VA + 4096) /* a page of the supervisor's */
#define OTHER (SCRATCH_PHYS + 4096)

PROBE(smap_open, "", "stac; mov (" AX "), %ecx; mov %ecx, (" AX "); clac; " IMAGE);
PROBE(smap_image, "", "stac; mov (" AX "), %ecx; " IMAGE "; clac");
PROBE(smap_read, "stac; mov (" AX "), %ecx; clac", "mov (" AX "), %ecx");
PROBE(smap_write, "stac; mov %ecx, (" AX "); clac", "mov %ecx, (" AX ")");
PROBE(smap_again, "stac; mov (" AX "), %ecx; clac; stac; mov (" AX "), %ecx; clac",
      "mov (" AX "), %ecx");
/* The same by POPF. */
PROBE(smap_popf,
      "pushf; pop " R(dx) "; mov " R(dx) ", " R(cx) "; or $0x40000, " R(cx) "; push " R(
	      cx) "; popf; mov (" AX "), %ecx; push " R(dx) "; popf",
      "mov (" AX "), %ecx");
#ifdef __x86_64__
/* By the stack pointer: an access that engines may have a quicker way for. */
PROBE(smap_stack, "mov %rsp, %rdx; mov %rax, %rsp; stac; mov (%rsp), %ecx; mov %ecx, (%rsp); clac",
      "mov (%rsp), %ecx; mov %rdx, %rsp");
PROBE(smap_push,
      "mov %rsp, %rdx; mov %rax, %rsp; stac; pop %rcx; push %rcx; clac; lea 8(%rsp), %rsp",
      "push %rcx; mov %rdx, %rsp");
#endif
/* Another address space's page: smap_cr3[0], then smap_cr3[1]. */
PROBE(smap_switch,
      "mov smap_cr3, " R(cx) "; mov " R(cx) ", %cr3; stac; mov (" AX "), %edx; clac; "
					    "mov smap_cr3 + 8, " R(cx) "; mov " R(cx) ", %cr3",
      "mov (" AX "), %edx");
USER_PROBE(user_stac, "", "stac");
USER_PROBE(user_clac, "", "clac");

u64 smap_cr3[2];

static bool smap_round(ulong va, bool smap, ulong flags)
{
	static const struct {
		guest_fn fn;
		const u8 *at;
		ulong error;
		const char *what;
	} shut[] = {
		{ smap_read, smap_read_at, PF_P, "STAC, CLAC, a read" },
		{ smap_write, smap_write_at, PF_P | PF_W, "STAC, CLAC, a write" },
		{ smap_again, smap_again_at, PF_P, "STAC, CLAC twice" },
		{ smap_popf, smap_popf_at, PF_P, "POPF sets AC, clears it" },
	};
	bool fault = smap && va == VA;

	for (unsigned n = 0; n < COUNT(shut); n++) {
		struct trap t = trap_call(shut[n].fn, va);

		if (!HOT_EQ(t.vector, fault ? VEC_PF : TRAP_NONE, shut[n].what))
			return false;
		if (fault && (!HOT_EQ(t.error, shut[n].error, shut[n].what) ||
			      !HOT_EQ(t.ip, ADDR(shut[n].at), shut[n].what) ||
			      !HOT_EQ(t.cr2, va, shut[n].what)))
			return false;
	}
	return HOT_EQ(trap_call(smap_open, va).value & ~BIT(0) & FLAG_AC, 0, "CLAC clears AC") &&
	       HOT_EQ(trap_call(smap_image, va).value & (FLAG_AC | FLAG_IF),
		      FLAG_AC | (flags & FLAG_IF), "STAC sets AC");
}

/* A stack in a user's page.  The fault has another one. */
static void smap_stacks(void)
{
#ifdef __x86_64__
	ulong flags = read_flags();

	cli();
	idt_set_ist(VEC_PF, 1);
	for (unsigned round = 0; round < HOT; round++) {
		bool fault = round % 8 >= 6;
		struct trap t = trap_call(smap_stack, (fault ? VA : OWN) + 512);

		if (!HOT_EQ(t.vector, fault ? VEC_PF : TRAP_NONE,
			    "STAC, CLAC, the stack is read") ||
		    (fault && !HOT_EQ(t.ip, ADDR(smap_stack_at), "at that instruction")))
			break;
		t = trap_call(smap_push, (fault ? VA : OWN) + 512);
		if (!HOT_EQ(t.vector, fault ? VEC_PF : TRAP_NONE, "STAC, CLAC, PUSH") ||
		    (fault && !HOT_EQ(t.ip, ADDR(smap_push_at), "at the PUSH")))
			break;
	}
	idt_set_ist(VEC_PF, 0);
	write_flags(flags);
#endif
}

static void smap_spaces(struct space *mine, struct space *others)
{
	for (unsigned round = 0; round < HOT; round++) {
		bool fault = round % 8 == 7;
		struct trap t;

		/* The user's page is in `mine`, and the supervisor's in `others`. */
		smap_cr3[!fault] = others->root;
		smap_cr3[fault] = mine->root;
		t = trap_call(smap_switch, VA);
		if (!HOT_EQ(t.vector, fault ? VEC_PF : TRAP_NONE, "CLAC, then CR3"))
			break;
		/* And the way round: what was allowed there is not here. */
		smap_cr3[0] = smap_cr3[1] = mine->root;
		t = trap_call(smap_switch, VA);
		if (!HOT_EQ(t.vector, VEC_PF, "CLAC, then the same CR3"))
			break;
	}
	space_load(mine);
}

void hot_smap(void)
{
	enum paging_mode mode = IS_64BIT ? PAGING_4LEVEL : PAGING_PAE;
	struct space mine, others;
	ulong cr3 = read_cr3(), flags = read_flags();

	if (!(cpuid_if(7, 0).b & BIT(20)))
		return;
	mine = space_kernel(mode, false, true);
	others = space_kernel(mode, false, true);
	space_map(&mine, VA, SCRATCH_PHYS, PTE_P | PTE_W | PTE_U);
	space_map(&mine, OWN, OTHER, PTE_P | PTE_W);
	space_map(&others, VA, OTHER, PTE_P | PTE_W);
	space_load(&mine);
	for (unsigned round = 0; round < 2 * HOT; round++) {
		bool smap = round % 16 != 15;

		write_cr4(smap ? read_cr4() | CR4_SMAP : read_cr4() & ~CR4_SMAP);
		if (!smap_round(round % 8 >= 6 ? VA : OWN, smap, flags))
			break;
		user_stac(0);
		user_clac(0);
		if (round % 8 != 7)
			continue;
		CHECK_TRAP(user_call(user_stac, 0), VEC_UD, 0, user_stac_at, "STAC in ring 3");
		CHECK_TRAP(user_call(user_clac, 0), VEC_UD, 0, user_clac_at, "CLAC in ring 3");
	}
	write_cr4(read_cr4() | CR4_SMAP);
	smap_stacks();
	smap_spaces(&mine, &others);
	write_cr4(read_cr4() & ~CR4_SMAP);
	if (IS_64BIT)
		write_cr3(cr3);
	else
		paging_off();
}

/* ---- the time-stamp counter ---- */

PROBE(any_rdtsc, "", "rdtsc");
PROBE(any_rdtscp, "", ".byte 0x0f, 0x01, 0xf9; mov %ecx, %eax");

/* All of the three registers are written. */
static u64 tsc(bool p, ulong *aux)
{
	ulong lo = -1ul, hi = -1ul;

	*aux = -1ul;
	if (p)
		asm volatile(".byte 0x0f, 0x01, 0xf9" : "+a"(lo), "+d"(hi), "+c"(*aux));
	else
		asm volatile("rdtsc" : "+a"(lo), "+d"(hi));
	CHECK(lo <= 0xffffffff && hi <= 0xffffffff, "RDTSC clears the upper halves");
	return (u64)hi << 32 | lo;
}

void hot_tsc(void)
{
	bool has_p = cpuid_if(0x80000001, 0).d & BIT(27);
	u64 last = 0;

	for (unsigned round = 0; round < 2 * HOT; round++) {
		bool tsd = round % 8 == 7, p = has_p && round % 2;
		ulong aux;
		u64 now;

		if (has_p)
			wrmsr(MSR_TSC_AUX, round * 0x1010101u);
		if (round % 32 == 31) {
			last = hot_random() * 16ull;
			wrmsr(MSR_TSC, last);
		}
		now = tsc(p, &aux);
		CHECK(now > last, "the counter goes up");
		CHECK(last == 0 || now - last < 1000000000000ull, "and not far at a time");
		last = now;
		if (p && !HOT_EQ(aux, round * 0x1010101u, "RDTSCP's third register"))
			break;
		write_cr4(tsd ? read_cr4() | CR4_TSD : read_cr4() & ~CR4_TSD);
		if (!HOT_EQ(trap_call(any_rdtsc, 0).vector, TRAP_NONE, "RDTSC in ring 0") ||
		    !HOT_EQ(user_call(any_rdtsc, 0).vector, tsd ? VEC_GP : TRAP_NONE,
			    "RDTSC in ring 3, by CR4.TSD"))
			break;
		if (has_p && (!HOT_EQ(user_call(any_rdtscp, 0).vector, tsd ? VEC_GP : TRAP_NONE,
				      "RDTSCP in ring 3, by CR4.TSD") ||
			      !HOT_EQ(trap_call(any_rdtscp, 0).value, round * 0x1010101u,
				      "RDTSCP in ring 0")))
			break;
	}
	write_cr4(read_cr4() & ~CR4_TSD);
}

// SPDX-License-Identifier: MIT
/*
 * Code that is executed often at linear addresses whose mapping changes: by CR3, INVLPG, global
 * pages, process-context identifiers; calls, returns, jumps and straight code from one page to
 * another that is exchanged; code that is changed by stores, its own or through an alias, in this
 * address space or while another one is in force (SDM vol. 3, 4.10 and 11.6).  All of it with an
 * interrupt every 50 us.
 */
#include "apic.h"
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "hot.h"
#include "paging.h"
#include "trap.h"

#define CODE	 0x40000000ul /* linear; from here on pages of code */
#define ALIAS	 0x48000000ul /* all frames, writable */
#define FRAMES	 16
#define FRAME(n) (SCRATCH_PHYS + (n)*4096ul)

static struct space a, b;
static u64 code_bits = PTE_P;

static u8 *alias(unsigned frame)
{
	return (u8 *)(ALIAS + frame * 4096);
}

/* mov $n, %eax; ret */
static void emit_number(u8 *at, u32 n)
{
	at[0] = 0xb8;
	memcpy(at + 1, &n, 4);
	at[5] = 0xc3;
}

static void emit_bytes(u8 *at, const char *bytes, unsigned len)
{
	memcpy(at, bytes, len);
}

/* @op with an operand of 32 bits. */
static void emit_op32(u8 *code, u8 op, u32 v)
{
	code[0] = op;
	memcpy(code + 1, &v, 4);
}

/* @op with a displacement from @at, where it is executed, to @target. */
static void emit_rel(u8 *code, u8 op, ulong at, ulong target)
{
	emit_op32(code, op, target - (at + 5));
}

static u32 call(ulong at)
{
	return ((u32(*)(void))at)();
}

static void map(struct space *s, unsigned page, unsigned frame)
{
	space_map(s, CODE + page * 4096, FRAME(frame), code_bits);
}

/* Frame n returns n from offset 0. */
static void fill(void)
{
	for (unsigned n = 0; n < FRAMES; n++) {
		memset(alias(n), 0xcc, 4096);
		emit_number(alias(n), n);
	}
}

static struct space new_space(bool global)
{
	struct space s = space_kernel(PAGING_4LEVEL, global, true);

	for (unsigned n = 0; n < FRAMES; n++) {
		space_map(&s, ALIAS + n * 4096, FRAME(n), PTE_P | PTE_W);
		space_map(&s, CODE + n * 4096, FRAME(n), code_bits);
	}
	return s;
}

/* ---- two address spaces ---- */

/*
 * Both in one loop: each turn adds what the two spaces' code at CODE returns, shifted by 16 for the
 * second.
 */
ulong spaces_cr3[2];
PROBE(turns, "push %rbx; push %rbp; mov %rax, %rbx; xor %ebp, %ebp",
      "1: mov spaces_cr3, %rcx; mov %rcx, %cr3; mov $0x40000000, %ecx; call *%rcx; add %rax, %rbp; "
      "mov spaces_cr3 + 8, %rcx; mov %rcx, %cr3; mov $0x40000000, %ecx; call *%rcx; shl $16, %rax; "
      "add %rax, %rbp; dec %ebx; jnz 1b; mov %rbp, %rax; pop %rbp; pop %rbx");

static void switches(void)
{
	fill();
	map(&a, 0, 1);
	map(&b, 0, 2);
	spaces_cr3[0] = a.root;
	spaces_cr3[1] = b.root;
	CHECK_EQ(trap_call(turns, HOT).value, HOT | HOT * 2 << 16, "two spaces in turn");
	for (unsigned round = 0; round < HOT; round++) {
		space_load(&a);
		if (!HOT_EQ(call(CODE), round % 4 == 1 ? 3 : 1, "the first space's code"))
			break;
		space_load(&b);
		/* Without an invalidation: the next CR3 is one. */
		map(&a, 0, round % 4 == 0 ? 3 : 1);
		if (!HOT_EQ(call(CODE), 2, "the second space's code"))
			break;
	}
	space_load(&a);
	map(&a, 0, 1);
	flush_tlb();
}

/* The present space's mapping changes. */
static void exchanged(void)
{
	fill();
	for (unsigned round = 0; round < 3 * HOT; round++) {
		unsigned frame = round % 8 == 7 ? 4 + round / 8 % 4 : 1 + round % 2;

		map(&a, 0, frame);
		invlpg(CODE);
		if (!HOT_EQ(call(CODE), frame, "INVLPG of code"))
			break;
		if (round % 8 != 5)
			continue;
		space_map(&a, CODE, 0, 0);
		invlpg(CODE + 5);
		CHECK_TRAP(trap_call((guest_fn)CODE, 0), VEC_PF, PF_I, CODE, "code that is gone");
		space_map(&a, CODE, FRAME(1), PTE_P | PTE_NX);
		invlpg(CODE);
		CHECK_TRAP(trap_call((guest_fn)CODE, 0), VEC_PF, PF_P | PF_I, CODE,
			   "code that is not executable");
		map(&a, 0, 1);
		flush_tlb();
		CHECK_EQ(call(CODE), 1, "code that is back");
	}
}

static void global_pages(void)
{
	write_cr4(read_cr4() | CR4_PGE);
	fill();
	for (unsigned round = 0; round < HOT; round++) {
		unsigned frame = 1 + round / 4 % 3;

		/* The same in both spaces, as it must be; it changes by INVLPG or by CR4.PGE. */
		space_map(&a, CODE, FRAME(frame), PTE_P | PTE_G);
		space_map(&b, CODE, FRAME(frame), PTE_P | PTE_G);
		if (round % 2) {
			invlpg(CODE);
		} else {
			write_cr4(read_cr4() & ~CR4_PGE);
			write_cr4(read_cr4() | CR4_PGE);
		}
		for (unsigned n = 0; n < 4; n++) {
			space_load(n % 2 ? &a : &b);
			if (!HOT_EQ(call(CODE), frame, "a global page of code"))
				goto out;
		}
	}
out:
	space_load(&a);
	write_cr4(read_cr4() & ~CR4_PGE);
}

#define NO_FLUSH BIT64(63)

static void identifiers(void)
{
	if (!(cpuid_if(1, 0).c & BIT(17)))
		return;
	fill();
	map(&a, 0, 1);
	map(&b, 0, 2);
	flush_tlb();
	write_cr4(read_cr4() | CR4_PCIDE);
	write_cr3(a.root | 1);
	write_cr3(b.root | 2);
	for (unsigned round = 0; round < 2 * HOT; round++) {
		bool change = round % 8 == 7;
		unsigned frame = 1 + round / 8 % 2 * 2;

		if (change)
			map(&a, 0, frame ^ 2);
		write_cr3(a.root | 1 | (change ? 0 : NO_FLUSH));
		if (!HOT_EQ(call(CODE), change ? frame ^ 2 : frame, "the first identifier's code"))
			break;
		write_cr3(b.root | 2 | NO_FLUSH);
		if (!HOT_EQ(call(CODE), 2, "the second identifier's code"))
			break;
	}
	write_cr3(a.root);
	write_cr4(read_cr4() & ~CR4_PCIDE);
}

/* ---- from page to page ---- */

/*
 * Page 0 of the code, frame 8, goes to page 1 at offset 0 in ways that differ; page 1 is exchanged.
 */
enum way { CALL, CALL_REG, CALL_MEM, JMP, JMP_REG, JMP_MEM, JZ, PUSH_RET, FALL, STRADDLE, WAYS };

static const char *const way_names[WAYS] = {
	[CALL] = "CALL",
	[CALL_REG] = "CALL of a register",
	[CALL_MEM] = "CALL of memory",
	[JMP] = "JMP",
	[JMP_REG] = "JMP to a register",
	[JMP_MEM] = "JMP by memory",
	[JZ] = "JZ",
	[PUSH_RET] = "RET",
	[FALL] = "off the end of a page",
	[STRADDLE] = "an instruction on two pages",
};

#define TO (CODE + 4096)

ulong way_target = TO;

/* Returns where it starts. */
static ulong emit_way(enum way w, u8 *page)
{
	u8 *at = page + 0x100;
	ulong va = CODE + 0x100;

	switch (w) {
	case CALL: /* call; ret */
		emit_rel(at, 0xe8, va, TO);
		at[5] = 0xc3;
		break;
	case CALL_REG: /* mov $TO, %ecx; call *%rcx; ret */
	case JMP_REG:
		emit_op32(at, 0xb9, TO);
		emit_bytes(at + 5, w == JMP_REG ? "\xff\xe1" : "\xff\xd1\xc3",
			   w == JMP_REG ? 2 : 3);
		break;
	case CALL_MEM: /* call *way_target; ret */
	case JMP_MEM: {
		u32 address = (ulong)&way_target;

		emit_bytes(at, w == JMP_MEM ? "\xff\x24\x25" : "\xff\x14\x25", 3);
		memcpy(at + 3, &address, 4);
		at[7] = 0xc3;
		break;
	}
	case JMP:
		emit_rel(at, 0xe9, va, TO);
		break;
	case JZ: /* xor %eax, %eax; jz */
		emit_bytes(at, "\x31\xc0\x0f", 3);
		emit_rel(at + 3, 0x84, va + 3, TO);
		break;
	case PUSH_RET: /* push $TO; ret */
		emit_op32(at, 0x68, TO);
		at[5] = 0xc3;
		break;
	case FALL: /* nop, the last byte */
		page[4095] = 0x90;
		return CODE + 4095;
	case STRADDLE: /* mov's second half is in the next page */
		page[4095] = 0xb8;
		return CODE + 4095;
	case WAYS:
		break;
	}
	return va;
}

static void to_another_page(enum way w)
{
	ulong start;

	fill();
	for (unsigned n = 1; n < 4 && w == STRADDLE; n++) {
		u32 v = n;

		memcpy(alias(n), &v, 4);
		alias(n)[4] = 0xc3;
	}
	start = emit_way(w, alias(8));
	map(&a, 0, 8);
	map(&b, 0, 8);
	map(&b, 1, 2);
	flush_tlb();
	for (unsigned round = 0; round < 2 * HOT; round++) {
		unsigned frame = round % 8 == 7 ? 3 : 1;

		map(&a, 1, frame);
		if (round % 2)
			invlpg(TO);
		else
			space_load(&a);
		for (unsigned n = 0; n < 3; n++)
			if (!HOT_EQ(call(start), frame, way_names[w]))
				return;
		if (round % 4 == 2) {
			space_load(&b);
			HOT_EQ(call(start), 2, way_names[w]);
			space_load(&a);
			HOT_EQ(call(start), frame, way_names[w]);
		}
		if (round % 16 != 11)
			continue;
		space_map(&a, TO, 0, 0);
		invlpg(TO);
		CHECK_TRAP(trap_call((guest_fn)start, 0), VEC_PF, PF_I, w == STRADDLE ? start : TO,
			   way_names[w]);
		CHECK_EQ(read_cr2(), TO, "where the other page is missing");
	}
	space_load(&a);
}

/* A function exchanges the page that it returns to. */
ulong exchange_entry, exchange_value;
PROBE(exchange, "",
      "mov exchange_entry, %rcx; mov exchange_value, %rdx; mov %rdx, (%rcx); "
      "invlpg 0x40000000; mov $7, %eax");

static void returns(void)
{
	fill();
	for (unsigned n = 0; n < 2; n++) {
		/* mov $exchange, %ecx; call *%rcx; add $n + 1, %eax; ret */
		emit_op32(alias(8 + n) + 0x200, 0xb9, ADDR(exchange));
		emit_bytes(alias(8 + n) + 0x205, "\xff\xd1\x83\xc0\x01\xc3", 6);
		alias(8 + n)[0x209] = n + 1;
	}
	map(&a, 0, 8);
	flush_tlb();
	exchange_entry = (ulong)space_entry(&a, CODE, 1);
	for (unsigned round = 0; round < 2 * HOT; round++) {
		unsigned n = round % 8 == 7 || round % 3 == 0;

		exchange_value = FRAME(8 + n) | code_bits;
		if (!HOT_EQ(call(CODE + 0x200), 7 + n + 1, "a return to a page that was exchanged"))
			break;
	}
}

/* ---- one frame at several addresses, in several modes ---- */

static void several_addresses(void)
{
	fill();
	/* lea 0(%rip), %rax; ret */
	emit_bytes(alias(8) + 0x300, "\x48\x8d\x05\x00\x00\x00\x00\xc3", 8);
	/* jmp to the next page, whatever that is */
	emit_rel(alias(8) + 0x400, 0xe9, 0x400, 0x1000);
	map(&a, 0, 8);
	map(&a, 1, 1);
	map(&a, 2, 8);
	map(&a, 3, 2);
	flush_tlb();
	for (unsigned round = 0; round < HOT; round++) {
		ulong page = CODE + round % 2 * 8192;

		if (!HOT_EQ(trap_call((guest_fn)(page + 0x300), 0).value, page + 0x307,
			    "RIP in a page that is mapped twice") ||
		    !HOT_EQ(call(page + 0x400), 1 + round % 2, "a jump from such a page"))
			break;
	}
	map(&a, 1, 1);
	map(&a, 2, 2);
	map(&a, 3, 3);
	flush_tlb();
}

/* 48 ff c0 is INC RAX, or DEC EAX and INC EAX: a far call of it by either code segment. */
static void modes(void)
{
	struct {
		u32 ip;
		u16 cs;
	} __attribute__((packed)) far;

	fill();
	/* call *%rcx; retf: to lea 1(%rdx), %eax; 48 ff c0; ret */
	emit_bytes(alias(8) + 0x500, "\xff\xd1\xcb", 3);
	emit_bytes(alias(9), "\x8d\x42\x01\x48\xff\xc0\xc3", 7);
	map(&a, 0, 8);
	map(&a, 1, 9);
	flush_tlb();
	for (unsigned round = 0; round < 2 * HOT; round++) {
		bool compat = round / 4 % 2;
		u32 ax;

		far.ip = CODE + 0x500;
		far.cs = compat ? SEL_KCODE32 : SEL_KCODE;
		asm volatile("lcall *%1"
			     : "=a"(ax)
			     : "m"(far), "c"(CODE + 4096), "d"(10)
			     : "memory", "cc");
		if (!HOT_EQ(ax, compat ? 11 : 12, "the same code in two modes"))
			break;
	}
}

/* ---- stores to code ---- */

static void stores(void)
{
	fill();
	map(&a, 0, 1);
	map(&b, 0, 1);
	space_map(&a, CODE + 8192, FRAME(2), PTE_P | PTE_W);
	flush_tlb();
	for (unsigned round = 0; round < 2 * HOT; round++) {
		u32 v = round % 8 >= 6 ? hot_random() : 1;

		/* Through an alias, here and while the other space is in force. */
		if (round % 4 == 3)
			space_load(&b);
		emit_number(alias(1), v);
		if (!HOT_EQ(call(CODE), v, "code changed through an alias"))
			break;
		space_load(&a);
		if (!HOT_EQ(call(CODE), v, "in the other space, too"))
			break;
		/* Where it is executed. */
		if (round % 8 == 5)
			emit_number((u8 *)CODE + 8192, round);
		if (!HOT_EQ(call(CODE + 8192),
			    round % 8 < 5 && round < 8 ? 2 : (round + 3) / 8 * 8 - 3,
			    "code changed in its place"))
			break;
		/* Changed while it is not mapped there. */
		if (round % 8 != 4)
			continue;
		map(&a, 0, 3);
		invlpg(CODE);
		HOT_EQ(call(CODE), 3, "another page");
		emit_number(alias(1), round);
		map(&a, 0, 1);
		invlpg(CODE);
		HOT_EQ(call(CODE), round, "code changed while it was not mapped");
		emit_number(alias(1), 1);
	}
	map(&a, 2, 2);
	flush_tlb();
}

/* A block that is a jump only: it is overwritten, then its target, then both come back. */
static void only_a_jump(void)
{
	u8 *page = alias(9);

	fill();
	map(&a, 0, 9);
	flush_tlb();
	for (unsigned round = 0; round < 40; round++) {
		u32 want = 100 + round;

		/* 0: jmp 0x800; 0x800: jmp 0x900; 0x900: mov $want, %eax; ret */
		emit_rel(page, 0xe9, 0, 0x800);
		emit_rel(page + 0x800, 0xe9, 0x800, 0x900);
		emit_number(page + 0x900, want);
		for (unsigned n = 0; n < 24; n++)
			if (!HOT_EQ(call(CODE), want, "by two jumps"))
				return;
		emit_number(page + 0x800, 1);
		if (!HOT_EQ(call(CODE), 1, "the second one is overwritten"))
			return;
		emit_number(page + 0x900, 2);
		if (!HOT_EQ(call(CODE), 1, "its former target, too") ||
		    !HOT_EQ(call(CODE + 0x900), 2, "which is called by itself"))
			return;
		emit_rel(page + 0x800, 0xe9, 0x800, 0x900);
		if (!HOT_EQ(call(CODE), 2, "and the jump is back"))
			return;
	}
}

/* ---- rings ---- */

USER_PROBE(ring_cli, "", "cli");

/* The same linear address in ring 0 and 3: who may execute a page, and what. */
static void rings(void)
{
	bool smep = cpuid_if(7, 0).b & BIT(7);

	fill();
	for (unsigned round = 0; round < HOT; round++) {
		bool user = round % 4 != 3, strict = smep && round % 8 >= 6;

		space_map(&a, CODE, FRAME(1), PTE_P | (user ? PTE_U : 0));
		invlpg(CODE);
		if (strict)
			write_cr4(read_cr4() | CR4_SMEP);
		CHECK_EQ(trap_call((guest_fn)CODE, 0).vector, strict && user ? VEC_PF : TRAP_NONE,
			 "ring 0, by SMEP");
		if (!HOT_EQ(user_call((guest_fn)CODE, 0).vector, user ? TRAP_NONE : VEC_PF,
			    "ring 3, by the page's U"))
			break;
		write_cr4(read_cr4() & ~CR4_SMEP);
		trap_call(ring_cli, 0);
		sti();
		CHECK_TRAP(user_call(ring_cli, 0), VEC_GP, 0, ring_cli_at, "CLI in ring 3");
	}
	write_cr4(read_cr4() & ~CR4_SMEP);
}

void guest_main(void)
{
	lapic_enable();
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	for (unsigned pass = 0; pass < 2; pass++) {
		/* The second time what the spaces share is global. */
		if (pass)
			write_cr4(read_cr4() | CR4_PGE);
		a = new_space(pass);
		b = new_space(pass);
		space_load(&a);
		hot_timer(true);
		sti();
		switches();
		exchanged();
		if (!pass)
			global_pages();
		identifiers();
		for (unsigned w = 0; w < WAYS; w++)
			to_another_page(w);
		returns();
		several_addresses();
		modes();
		stores();
		only_a_jump();
		rings();
		cli();
	}
	CHECK(hot_ticked(11), "the timer was running");
}

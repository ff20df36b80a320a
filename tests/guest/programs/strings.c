// SPDX-License-Identifier: MIT
/*
 * String instructions: directions, counts, overlap, and a page fault in the middle, after which
 * the registers say how far it came and the instruction goes on from there (SDM vol. 2, REP).
 */
#include "cpu.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

#define VA 0x50000000ul

static struct space s;
static ulong seen_cx, seen_si, seen_di, seen_ip, faults;

/* Map the page that is missing, and look at the registers. */
static bool supply(struct frame *f)
{
	ulong va = read_cr2() & ~0xffful;

	if (va < VA || va >= VA + 0x100000 || faults++ > 8)
		return false;
	seen_cx = f->cx;
	seen_si = f->si;
	seen_di = f->di;
	seen_ip = f->ip;
	space_map(&s, va, SCRATCH_PHYS + (va - VA), PTE_P | PTE_W);
	return true;
}

static void unmap(ulong va)
{
	space_map(&s, va, 0, 0);
	invlpg(va);
}

extern const u8 movs_at[];

static void moves(void)
{
	u32 *from = (u32 *)VA, *to = (u32 *)(VA + 0x10000);
	ulong si = (ulong)from + 0xf00, di = (ulong)to + 0xff0, cx = 0x100;

	for (unsigned i = 0; i < 2048; i++)
		from[i] = i * 0x9e3779b1;
	*(volatile u32 *)to = 0;
	unmap(VA + 0x11000);
	faults = 0;
	asm volatile("cld; .globl movs_at; movs_at: rep movsl"
		     : "+S"(si), "+D"(di), "+c"(cx)
		     :
		     : "memory");
	CHECK_EQ(faults, 1, "one fault in the middle of REP MOVSD");
	CHECK_EQ(seen_ip, ADDR(movs_at), "at the instruction");
	CHECK_EQ(seen_cx, 0x100 - 4, "ECX counts what is left");
	CHECK_EQ(seen_si, (ulong)from + 0xf10, "ESI is at the next source");
	CHECK_EQ(seen_di, (ulong)to + 0x1000, "EDI is at the next destination");
	CHECK_EQ(cx, 0, "it ends with ECX 0");
	CHECK_EQ(memcmp((u8 *)from + 0xf00, (u8 *)to + 0xff0, 0x400), 0, "all is copied");

	/* An element that straddles the missing page leaves nothing behind on the other. */
	unmap(VA + 0x11000);
	*(volatile u32 *)((u8 *)to + 0xffc) = 0x55555555;
	si = (ulong)from;
	di = (ulong)to + 0xffe;
	cx = 1;
	faults = 0;
	asm volatile("rep movsl" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	CHECK_EQ(faults, 1, "a straddling element faults once");
	CHECK_EQ(seen_cx, 1, "before it counts");
	CHECK_EQ(*(u16 *)((u8 *)to + 0xffc), 0x5555, "what is in front stays");
}

static void backwards(void)
{
	u8 *a = (u8 *)VA + 0x800, *b = (u8 *)VA + 0x20000;
	ulong si = (ulong)a + 99, di = (ulong)b + 0x1000 + 49, cx = 100;

	*b = 0;
	unmap(VA + 0x20000);
	*(volatile u8 *)(b + 0x1000) = 0;
	faults = 0;
	asm volatile("std; rep movsb; cld" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	CHECK_EQ(faults, 1, "backwards: one fault");
	CHECK_EQ(seen_di, (ulong)b + 0xfff, "backwards: at the last byte of the page below");
	CHECK_EQ(seen_cx, 50, "backwards: half is left");
	CHECK_EQ(memcmp(a, b + 0x1000 + 49 - 99, 100), 0, "backwards: all is copied");
	CHECK_EQ(di, (ulong)b + 0x1000 + 49 - 100, "backwards: EDI is below");
}

static void overlapping(void)
{
	u8 *a = (u8 *)VA + 0x30000;
	ulong si = (ulong)a, di = (ulong)a + 1, cx = 63;

	a[0] = 0xab;
	asm volatile("cld; rep movsb" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	for (unsigned i = 0; i < 64; i++)
		if (a[i] != 0xab) {
			CHECK_EQ(i, 64, "an overlapping move copies byte after byte");
			return;
		}
	CHECK(true, "an overlapping move copies byte after byte");
}

static void others(void)
{
	u8 *a = (u8 *)VA + 0x40000, *b = (u8 *)VA + 0x48000;
	ulong si, di = (ulong)a + 0xffd, cx = 3, ax = 0x11223344;
	u8 zf;

	*a = *b = 0;
	unmap((ulong)a + 0x1000);
	faults = 0;
	asm volatile("rep stosl" : "+D"(di), "+c"(cx) : "a"(ax) : "memory");
	CHECK_EQ(faults, 1, "REP STOSD that straddles: one fault");
	CHECK_EQ(seen_cx, 3, "before the first element");
	CHECK_EQ(*(u32 *)(a + 0xffd + 8), 0x11223344, "the last element is written");

	memset(a, 7, 0x1800);
	memset(b, 7, 0x1800);
	b[0x1234] = 8;
	unmap((ulong)b + 0x1000);
	faults = 0;
	si = (ulong)a;
	di = (ulong)b;
	cx = 0x1800;
	asm volatile("repe cmpsb; setz %0" : "=q"(zf), "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	CHECK_EQ(di - (ulong)b, 0x1235, "REPE CMPSB stops behind the difference");
	CHECK_EQ(cx, 0x1800 - 0x1235, "with the rest of the count");
	CHECK_EQ(zf, 0, "and ZF clear");
	CHECK_EQ(faults, 1, "having faulted once");

	di = (ulong)b;
	cx = 0x1800;
	asm volatile("repne scasb; setz %0" : "=q"(zf), "+D"(di), "+c"(cx) : "a"(8) : "memory");
	CHECK_EQ(di - (ulong)b, 0x1235, "REPNE SCASB stops behind the match");
	CHECK_EQ(zf, 1, "with ZF set");
	cx = 0;
	di = (ulong)b;
	asm volatile("cmp %%eax, %%eax; repne scasb; setz %0"
		     : "=q"(zf), "+D"(di), "+c"(cx)
		     :
		     : "memory");
	CHECK_EQ(zf, 1, "a count of 0 leaves the flags");
	CHECK_EQ(di, (ulong)b, "and EDI");
}

/* With a 16-bit address size only CX, SI and DI count, and they wrap. */
static void small_addresses(void)
{
	ulong di = 0x50005ffe, cx = 0x10002;
	u8 *low = (u8 *)0x5ffe;

	low[0] = low[1] = low[2] = 0;
	asm volatile("addr16 rep stosb" : "+D"(di), "+c"(cx) : "a"(0x77) : "memory");
	CHECK_EQ(cx, 0x10000, "CX is counted, the upper half stays");
	CHECK_EQ(di, 0x50006000, "so does the upper half of EDI");
	CHECK(low[0] == 0x77 && low[1] == 0x77 && low[2] == 0, "the address is 16 bits");
}

/* A single step is taken after each element. */
static unsigned steps;

static bool step(struct frame *f)
{
	steps++;
	return true;
}

static void stepped(void)
{
	u8 *a = (u8 *)VA + 0x40000;
	ulong di = (ulong)a, cx = 10;

	trap_handle(VEC_DB, step);
	asm volatile(
		"pushf; orl $0x100, (%%esp); popf; rep stosb; pushf; andl $~0x100, (%%esp); popf"
		: "+D"(di), "+c"(cx)
		: "a"(1)
		: "memory");
	trap_handle(VEC_DB, 0);
	CHECK_EQ(steps, 10 + 3, "a step after each element, and after each instruction");
}

void guest_main(void)
{
	s = space_kernel(PAGING_2LEVEL, false, false);
	space_load(&s);
	trap_handle(VEC_PF, supply);
	faults = 0;
	for (ulong va = VA; va < VA + 0x60000; va += 4096)
		space_map(&s, va, SCRATCH_PHYS + (va - VA), PTE_P | PTE_W);
	moves();
	backwards();
	overlapping();
	others();
	small_addresses();
	stepped();
}

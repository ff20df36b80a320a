// SPDX-License-Identifier: MIT
/*
 * Every form in which an instruction can touch a device's memory: moves of each kind,
 * read-modify-write, strings, with the local APIC's page as the device.  Its registers take aligned
 * 32-bit accesses only (SDM vol. 3, 11.4.1), so that is what is used.
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

#define TPR (LAPIC_BASE + LAPIC_TPR)

PROBE(poke, "", "movl $0x60, (%rax)");

static u32 get(void)
{
	return lapic_read(LAPIC_TPR);
}

static void set(u32 v)
{
	lapic_write(LAPIC_TPR, v);
}

#define RMW(insn, before, after, what)                                                          \
	do {                                                                                    \
		set(before);                                                                    \
		asm volatile(insn : : "r"(TPR), "c"(3ul), "d"(0x21ul) : "cc", "memory", "rax"); \
		CHECK_EQ(get(), (after), (what));                                               \
	} while (0)

static void moves(void)
{
	u32 v;
	u64 w;

	set(0x12);
	asm volatile("movl $0x34, (%0)" : : "r"(TPR) : "memory");
	CHECK_EQ(get(), 0x34, "MOV of an immediate");
	asm volatile("movabs %%eax, 0xfee00080" : : "a"(0x56) : "memory");
	CHECK_EQ(get(), 0x56, "MOV with an absolute address");
	asm volatile("movabs 0xfee00080, %%eax" : "=a"(v));
	CHECK_EQ(v, 0x56, "and back");
	asm volatile("movslq (%1), %0" : "=r"(w) : "r"(TPR));
	CHECK_EQ(w, 0x56, "MOVSXD");
	asm volatile("mov $1, %%ecx; test %%ecx, %%ecx; cmovnz (%1), %0"
		     : "=r"(v)
		     : "r"(TPR)
		     : "ecx");
	CHECK_EQ(v, 0x56, "CMOV");
	asm volatile("movnti %0, (%1)" : : "r"(0x44), "r"(TPR) : "memory");
	CHECK_EQ(get(), 0x44, "MOVNTI");
	asm volatile("mov $7, %%ecx; lea (%%rcx, %1), %%rax; mov -7(%%rax), %0"
		     : "=r"(v)
		     : "r"(TPR)
		     : "rax", "rcx");
	CHECK_EQ(v, 0x44, "MOV with a displacement");
	asm volatile("imul $3, (%1), %0" : "=r"(v) : "r"(TPR));
	CHECK_EQ(v, 0x44 * 3, "IMUL");
	v = 0x100;
	asm volatile("add (%1), %0" : "+r"(v) : "r"(TPR));
	CHECK_EQ(v, 0x144, "ADD from device memory");
}

static void modifications(void)
{
	u32 v;

	RMW("addl $0x11, (%0)", 0x22, 0x33, "ADD");
	RMW("orl %%edx, (%0)", 0x40, 0x61, "OR");
	RMW("andl $0x0f, (%0)", 0x73, 0x03, "AND");
	RMW("xorl $0xff, (%0)", 0x0f, 0xf0, "XOR");
	RMW("subl %%edx, (%0)", 0x31, 0x10, "SUB");
	RMW("incl (%0)", 0x10, 0x11, "INC");
	RMW("decl (%0)", 0x10, 0x0f, "DEC");
	RMW("shll %%cl, (%0)", 0x02, 0x10, "SHL");
	RMW("shrl $1, (%0)", 0x22, 0x11, "SHR");
	RMW("btsl $5, (%0)", 0x01, 0x21, "BTS");
	RMW("btrl $0, (%0)", 0x21, 0x20, "BTR");
	RMW("stc; adcl $0, (%0)", 0x0f, 0x10, "ADC");
	RMW("lock addl $1, (%0)", 0x0f, 0x10, "LOCK ADD");
	RMW("cmp %%eax, %%eax; setz %%al; movzx %%al, %%eax; mov %%eax, (%0)", 0, 1,
	    "MOV after SETcc");

	set(0x20);
	v = 0x35;
	asm volatile("xchg %0, (%1)" : "+r"(v) : "r"(TPR) : "memory");
	CHECK_EQ(v, 0x20, "XCHG gives the old value");
	CHECK_EQ(get(), 0x35, "and sets the new one");
	v = 0x11;
	asm volatile("lock xadd %0, (%1)" : "+r"(v) : "r"(TPR) : "memory");
	CHECK_EQ(v, 0x35, "XADD gives the old value");
	CHECK_EQ(get(), 0x46, "and adds");
	v = 0x46;
	asm volatile("lock cmpxchg %2, (%1)" : "+a"(v) : "r"(TPR), "r"(0x51) : "memory");
	CHECK_EQ(get(), 0x51, "CMPXCHG that matches");
	v = 0;
	asm volatile("lock cmpxchg %2, (%1)" : "+a"(v) : "r"(TPR), "r"(0x77) : "memory");
	CHECK_EQ(v, 0x51, "CMPXCHG that does not gives the value");
	CHECK_EQ(get(), 0x51, "and leaves it");
	asm volatile("cmpl $0x51, (%1); setz %b0; movzbl %b0, %0" : "=&q"(v) : "r"(TPR));
	CHECK_EQ(v, 1, "CMP");
	asm volatile("testl $0x10, (%1); setnz %b0; movzbl %b0, %0" : "=&q"(v) : "r"(TPR));
	CHECK_EQ(v, 1, "TEST");
	asm volatile("btl $4, (%1); setc %b0; movzbl %b0, %0" : "=&q"(v) : "r"(TPR));
	CHECK_EQ(v, 1, "BT");
	set(0);
}

static void strings(void)
{
	static u32 buffer[4] = { 0x10, 0x20, 0x30, 0x40 }, back[4];
	ulong si = (ulong)buffer, di = TPR, cx = 1;
	u32 v;

	asm volatile("movsl" : "+S"(si), "+D"(di) : : "memory");
	CHECK_EQ(get(), 0x10, "MOVS to the device");
	CHECK_EQ(di, TPR + 4, "counts RDI");
	si = TPR;
	di = (ulong)back;
	asm volatile("rep movsl" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	CHECK_EQ(back[0], 0x10, "REP MOVS from the device");
	CHECK_EQ(cx, 0, "counts RCX");
	di = TPR;
	asm volatile("stosl" : "+D"(di) : "a"(0x22) : "memory");
	CHECK_EQ(get(), 0x22, "STOS");
	si = TPR;
	asm volatile("lodsl" : "=a"(v), "+S"(si));
	CHECK_EQ(v, 0x22, "LODS");
	di = TPR;
	asm volatile("scasl; setz %b0; movzbl %b0, %0" : "=&q"(v), "+D"(di) : "a"(0x22));
	CHECK_EQ(v, 1, "SCAS");
	buffer[0] = 0x22;
	si = (ulong)buffer;
	di = TPR;
	asm volatile("cmpsl; setz %b0; movzbl %b0, %0" : "=&q"(v), "+S"(si), "+D"(di) : : "memory");
	CHECK_EQ(v, 1, "CMPS");
	si = (ulong)buffer;
	di = TPR;
	cx = 1;
	buffer[0] = 0x30;
	asm volatile("std; rep movsl; cld" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	CHECK_EQ(get(), 0x30, "REP MOVS backwards");
	CHECK_EQ(di, TPR - 4, "counts down");
	set(0);
}

/* A device behind a page that is not one to one, and a string over its end. */
static void mapped(void)
{
	struct space s = space_kernel(PAGING_4LEVEL, false, true);
	ulong va = 0x500000000000ul;
	struct trap t;

	space_map(&s, va, LAPIC_BASE, PTE_P | PTE_W);
	space_map(&s, va + 4096, 0, 0);
	space_load(&s);
	set(0x40);
	CHECK_EQ(*(volatile u32 *)(va + LAPIC_TPR), 0x40, "the device by another address");
	*(volatile u32 *)(va + LAPIC_TPR) = 0x50;
	CHECK_EQ(get(), 0x50, "written there");
	space_map(&s, va, LAPIC_BASE, PTE_P);
	write_cr0(read_cr0() | CR0_WP);
	invlpg(va);
	CHECK_EQ(*(volatile u32 *)(va + LAPIC_TPR), 0x50, "read-only: read");
	t = trap_call(poke, va + LAPIC_TPR);
	CHECK_EQ(t.vector, VEC_PF, "read-only: written");
	CHECK_EQ(t.error, PF_P | PF_W, "error code");
	CHECK_EQ(t.cr2, va + LAPIC_TPR, "CR2");
	space_map(&s, va, SCRATCH_PHYS, PTE_P | PTE_W);
	invlpg(va);
	*(volatile u32 *)(va + LAPIC_TPR) = 0x99;
	CHECK_EQ(get(), 0x50, "memory in the device's place");
	space_map(&s, va, LAPIC_BASE, PTE_P | PTE_W);
	invlpg(va);
	CHECK_EQ(*(volatile u32 *)(va + LAPIC_TPR), 0x50, "and the device again");
	set(0);
}

void guest_main(void)
{
	lapic_enable();
	moves();
	modifications();
	strings();
	mapped();
}

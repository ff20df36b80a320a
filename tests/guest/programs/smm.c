// SPDX-License-Identifier: MIT
/*
 * System-management mode: how it is entered, the state in SMRAM, what RSM takes from there, what
 * waits meanwhile (SDM vol. 3, chapter 31; APM vol. 2, chapter 10, with the 64-bit map of the
 * state).  SMIs are sent by the local APIC to itself.
 */
#include "apic.h"
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

#define SMBASE	   0x30000ul /* after power-up */
#define NEW_SMBASE 0x20000ul
#define MSR_SMBASE 0x9e
#define MAP	   0xfe00

/* Offsets from SMBASE. */
#define MAP_CS	   0xfe10
#define MAP_SS	   0xfe20
#define MAP_GDT	   0xfe60
#define MAP_IDT	   0xfe80
#define MAP_TR	   0xfe90
#define MAP_EFER   0xfed0
#define MAP_REV	   0xfefc
#define MAP_SMBASE 0xff00
#define MAP_CR4	   0xff48
#define MAP_CR3	   0xff50
#define MAP_CR0	   0xff58
#define MAP_DR7	   0xff60
#define MAP_FLAGS  0xff70
#define MAP_RIP	   0xff78
#define MAP_R15	   0xff80
#define MAP_RSP	   0xffd8
#define MAP_RAX	   0xfff8

#define REV_RELOCATES BIT(17)

/*
 * What the handler found, and what it shall do: this many times write one more command to the local
 * APIC; store 32 bits somewhere, if the address is not 0.
 */
u32 smm_count, smm_cr0, smm_cr4, smm_efer, smm_flags, smm_cs, smm_base, smm_dr7, smm_nmis;
u32 smm_again, smm_command, smm_store, smm_value;
static volatile u32 nmis;

/* It is entered with all segments but CS at 0, and may use 32-bit addresses. */
asm(".pushsection .text\n"
    ".code16\n"
    "smm_handler:\n"
    "	mov $smm_count, %ebx; incl (%ebx)\n"
    "	mov %cr0, %eax; mov $smm_cr0, %ebx; mov %eax, (%ebx)\n"
    "	mov %cr4, %eax; mov $smm_cr4, %ebx; mov %eax, (%ebx)\n"
    "	mov %dr7, %eax; mov $smm_dr7, %ebx; mov %eax, (%ebx)\n"
    "	mov $0x28000, %esp; pushfl; pop %eax\n"
    "	mov $smm_flags, %ebx; mov %eax, (%ebx)\n"
    "	xor %eax, %eax; mov %cs, %ax; mov $smm_cs, %ebx; mov %eax, (%ebx)\n"
    "	mov $0xc0000080, %ecx; rdmsr; mov $smm_efer, %ebx; mov %eax, (%ebx)\n"
    "	mov $0x9e, %ecx; rdmsr; mov $smm_base, %ebx; mov %eax, (%ebx)\n"
    "	mov $smm_again, %ebx; cmpl $0, (%ebx); je 1f; decl (%ebx)\n"
    "	mov $smm_command, %ebx; mov (%ebx), %eax; mov $0xfee00300, %ebx; mov %eax, (%ebx)\n"
    "	mov $1000, %ecx; 2: pause; dec %ecx; jnz 2b\n"
    "1:	mov $smm_store, %ebx; mov (%ebx), %edx; test %edx, %edx; je 3f\n"
    "	movl $0, (%ebx)\n"
    "	mov $smm_value, %ebx; mov (%ebx), %eax; mov %eax, (%edx)\n"
    "3:	rsm\n"
    "smm_handler_end:\n"
    ".code64\n"
    ".popsection\n");
extern const u8 smm_handler[], smm_handler_end[];

static u64 map(ulong base, unsigned offset)
{
	return *(volatile u64 *)(base + offset);
}

static void put_handler(ulong base)
{
	memcpy((void *)(base + 0x8000), smm_handler, (size_t)(smm_handler_end - smm_handler));
}

static void wait_for(u32 n)
{
	for (unsigned i = 0; i < 1000000 && *(volatile u32 *)&smm_count < n; i++)
		pause();
}

static void send(void)
{
	lapic_send(0, ICR_SMI | ICR_ASSERT);
}

/* Send one with known values in registers, and look at them afterwards. */
asm(".pushsection .text\n"
    "send_known:\n"
    "	push %rbx; push %rbp; push %r12; push %r15\n"
    "	mov $0x4200, %eax; mov $0xfee00300, %ecx\n"
    "	mov $0x1111222233334444, %rbx\n"
    "	mov $0x5555666677778888, %rbp\n"
    "	mov $0x9999aaaabbbbcccc, %r12\n"
    "	mov $0xddddeeeeffff0000, %r15\n"
    "	mov %rsp, %rdx\n"
    "	std; stc\n"
    "	mov %eax, (%rcx)\n"
    "known_at: mov $1000000, %esi\n"
    "1:	dec %esi; jz 2f\n"
    "	cmpl $0, smm_count; je 1b\n"
    "2:	cmp %rsp, %rdx; jne 9f\n"
    "	mov $0x1111222233334444, %rdx; cmp %rdx, %rbx; jne 9f\n"
    "	mov $0x5555666677778888, %rdx; cmp %rdx, %rbp; jne 9f\n"
    "	mov $0x9999aaaabbbbcccc, %rdx; cmp %rdx, %r12; jne 9f\n"
    "	mov $0xddddeeeeffff0000, %rdx; cmp %rdx, %r15; jne 9f\n"
    "	pushfq; pop %rdx; test $0x400, %edx; jz 9f\n"
    "	jmp 8f\n"
    "9:	xor %eax, %eax\n"
    "8:	cld; pop %r15; pop %r12; pop %rbp; pop %rbx; ret\n"
    /*
     * The same with the instruction alone, as ring 3 can do it; spins until somebody changes RAX.
     */
    "spin: mov $0x4200, %eax; mov $0xfee00300, %ecx; mov %eax, (%rcx)\n"
    "1:	cmp $0x4200, %eax; je 1b\n"
    "	ret\n"
    ".popsection\n");
ulong send_known(ulong arg);
ulong spin(ulong arg);
extern const u8 known_at[];

static void entry_and_state(void)
{
	ulong cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4(), efer = rdmsr(MSR_EFER);
	struct table_pointer gdtr, idtr;
	u16 tr;

	asm volatile("sgdt %0; sidt %1; str %2" : "=m"(gdtr), "=m"(idtr), "=m"(tr));
	smm_count = 0;
	CHECK_EQ(send_known(0), ICR_SMI | ICR_ASSERT, "registers are as before after RSM");
	REQUIRE(smm_count == 1, "the handler is reached");
	CHECK_EQ(smm_cr0, cr0 & ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG), "CR0 in SMM");
	CHECK_EQ(smm_cr4, 0, "CR4 in SMM");
	CHECK_EQ(smm_efer, 0, "EFER in SMM");
	CHECK_EQ(smm_flags, FLAG_FIXED, "EFLAGS in SMM");
	CHECK_EQ(smm_dr7, 0x400, "DR7 in SMM");
	CHECK_EQ(smm_cs, SMBASE >> 4, "CS in SMM");
	CHECK_EQ(smm_base, SMBASE, "SMBASE by its MSR");

	CHECK_EQ(map(SMBASE, MAP_CR0), cr0, "saved CR0");
	CHECK_EQ(map(SMBASE, MAP_CR3), cr3, "saved CR3");
	CHECK_EQ(map(SMBASE, MAP_CR4), cr4, "saved CR4");
	CHECK_EQ(map(SMBASE, MAP_EFER), efer, "saved EFER");
	CHECK_EQ((u16)map(SMBASE, MAP_CS), SEL_KCODE, "saved CS");
	CHECK_EQ(map(SMBASE, MAP_CS) >> 16 & 0xf0ff, 0xa09b, "saved rights of CS");
	CHECK_EQ((u32)(map(SMBASE, MAP_CS) >> 32), 0xffffffff, "saved limit of CS");
	CHECK_EQ((u16)map(SMBASE, MAP_TR), tr, "saved TR");
	CHECK_EQ(map(SMBASE, MAP_GDT + 8), gdtr.base, "saved base of the GDT");
	CHECK_EQ((u16)(map(SMBASE, MAP_GDT) >> 32), gdtr.limit, "saved limit of the GDT");
	CHECK_EQ(map(SMBASE, MAP_IDT + 8), idtr.base, "saved base of the IDT");
	CHECK_EQ(map(SMBASE, MAP_R15), 0xddddeeeeffff0000, "saved R15");
	CHECK_EQ(map(SMBASE, MAP_RAX), ICR_SMI | ICR_ASSERT, "saved RAX");
	CHECK_EQ(map(SMBASE, MAP_FLAGS) & (FLAG_DF | FLAG_IF | FLAG_FIXED), FLAG_DF | FLAG_FIXED,
		 "saved RFLAGS");
	CHECK(map(SMBASE, MAP_RIP) - ADDR(known_at) < 32, "saved RIP");
	CHECK_EQ((u32)map(SMBASE, MAP_SMBASE), SMBASE, "saved SMBASE");
	CHECK((u32)map(SMBASE, MAP_REV) & REV_RELOCATES, "SMBASE can be changed");
}

/* RSM takes what the handler left there. */
static void changes(void)
{
	smm_count = 0;
	smm_store = SMBASE + MAP_RAX;
	smm_value = 0x12345678;
	CHECK_EQ(spin(0), 0x12345678, "RAX from the map");

	smm_store = SMBASE + MAP_RAX;
	smm_value = 0x87654321;
	CHECK_EQ(user_call(spin, 0).value, 0x87654321, "and back to ring 3");
	CHECK_EQ((u16)map(SMBASE, MAP_CS), SEL_UCODE, "saved CS of ring 3");
	CHECK_EQ(map(SMBASE, MAP_CS) >> 16 & 0x60, 0x60, "saved privilege of ring 3");
	CHECK_EQ(smm_count, 2, "one SMI each");
}

PROBE(load, "", "mov (%rax), %rax");

/* The handler changes a page table, physically: it counts after RSM. */
static void tables(void)
{
	struct space s = space_new(PAGING_4LEVEL), old = { .root = read_cr3() };
	volatile u64 *a = alloc_page(), *b = alloc_page();
	ulong va = 0x8000000000ul;

	*a = 'a';
	*b = 'b';
	/* The first 512 GiB as they are now, and one more page behind them. */
	*(volatile u64 *)s.root = *(volatile u64 *)(old.root & PTE_ADDR);
	space_map(&s, va, ADDR(a), PTE_P | PTE_W);
	write_cr3(s.root);
	CHECK_EQ(*(volatile u64 *)va, 'a', "before");
	smm_count = 0;
	smm_store = (u32)(ulong)space_entry(&s, va, 1);
	smm_value = (u32)ADDR(b) | PTE_P | PTE_W;
	send();
	wait_for(1);
	CHECK_EQ(*(volatile u64 *)va, 'b', "the entry that the handler wrote");
	/* And in the table above. */
	smm_store = (u32)(ulong)space_entry(&s, va, 2);
	smm_value = 0;
	send();
	wait_for(2);
	CHECK_TRAP(trap_call(load, va), VEC_PF, 0, load_at, "the page table is gone");
	write_cr3(old.root);
}

static bool on_nmi(struct frame *f)
{
	nmis++;
	return true;
}

static void waiting(void)
{
	/* An SMI inside SMM is taken after RSM, before another instruction. */
	smm_count = 0;
	smm_command = ICR_SMI | ICR_ASSERT;
	smm_again = 1;
	send();
	wait_for(1);
	CHECK_EQ(smm_count, 2, "one SMI waits");

	trap_handle(VEC_NMI, on_nmi);
	smm_count = 0;
	nmis = 0;
	smm_command = ICR_NMI | ICR_ASSERT;
	smm_again = 1;
	smm_store = (u32)ADDR(&smm_nmis);
	smm_value = 1;
	send();
	wait_for(1);
	CHECK_EQ(smm_nmis, 1, "the handler ends undisturbed");
	for (unsigned i = 0; i < 1000000 && !nmis; i++)
		pause();
	CHECK_EQ(nmis, 1, "an NMI comes after RSM");
}

PROBE(rsm, "", "rsm");
PROBE(read_smbase, "mov $0x9e, %ecx", "rdmsr");
PROBE(write_smbase, "mov $0x9e, %ecx; mov $0x30000, %eax; xor %edx, %edx", "wrmsr");

static void outside(void)
{
	CHECK_TRAP(trap_call(rsm, 0), VEC_UD, 0, rsm_at, "RSM outside of SMM");
	CHECK_TRAP(user_call(rsm, 0), VEC_UD, 0, rsm_at, "RSM in ring 3");
	CHECK_TRAP(trap_call(read_smbase, 0), VEC_GP, 0, read_smbase_at, "SMBASE's MSR outside");
	CHECK_TRAP(trap_call(write_smbase, 0), VEC_GP, 0, write_smbase_at, "... can't be written");
}

static void relocation(void)
{
	put_handler(NEW_SMBASE);
	smm_count = 0;
	smm_store = SMBASE + MAP_SMBASE;
	smm_value = NEW_SMBASE;
	send();
	wait_for(1);
	CHECK_EQ(smm_base, SMBASE, "still the old one");
	smm_store = NEW_SMBASE + MAP_SMBASE;
	smm_value = SMBASE;
	send();
	wait_for(2);
	CHECK_EQ(smm_base, NEW_SMBASE, "the new one");
	CHECK_EQ(smm_cs, NEW_SMBASE >> 4, "CS follows it");
	send();
	wait_for(3);
	CHECK_EQ(smm_base, SMBASE, "and back");
}

void guest_main(void)
{
	if (!(cpuid(0x80000001, 0).d & BIT(29)))
		guest_skip("no long mode: another map");
	lapic_enable();
	cli();
	put_handler(SMBASE);
	entry_and_state();
	changes();
	tables();
	waiting();
	outside();
	relocation();
}

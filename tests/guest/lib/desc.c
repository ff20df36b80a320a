// SPDX-License-Identifier: MIT
/* Descriptor tables: SDM vol. 3, chapters 3.4, 6.11 and 7.2. */
#include "desc.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

struct gate {
	u16 offset_low, selector;
	u8 ist_or_params, access;
	u16 offset_mid;
#ifdef __x86_64__
	u32 offset_high, reserved;
#endif
} __attribute__((packed));

u64 gdt[GDT_ENTRIES] __attribute__((aligned(16)));
static struct gate idt[256] __attribute__((aligned(16)));
static tss_t tss[MAX_CPUS] __attribute__((aligned(16)));

tss_t *desc_tss(unsigned cpu)
{
	return &tss[cpu];
}

void gdt_segment(u16 sel, u32 base, u32 limit, u8 access, u8 flags)
{
	gdt[sel / 8] = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
		       (u64)(limit >> 16 & 0xf) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

void gdt_system(u16 sel, ulong base, u32 limit, u8 access)
{
	gdt_segment(sel, base, limit, access, 0);
#ifdef __x86_64__
	gdt[sel / 8 + 1] = base >> 32;
#endif
}

static struct gate make_gate(u16 sel, ulong offset, u8 access, u8 ist_or_params)
{
	return (struct gate){
		.offset_low = offset,
		.selector = sel,
		.ist_or_params = ist_or_params,
		.access = access,
		.offset_mid = offset >> 16,
#ifdef __x86_64__
		.offset_high = offset >> 32,
#endif
	};
}

void gdt_gate(u16 sel, u16 target, ulong offset, u8 access, u8 params)
{
	struct gate g = make_gate(target, offset, access, params);

	memcpy(&gdt[sel / 8], &g, sizeof(g));
}

void idt_gate(u8 vec, u16 sel, ulong offset, u8 access, u8 ist)
{
	idt[vec] = make_gate(sel, offset, access, ist);
}

void idt_default(u8 vec)
{
	idt_gate(vec, SEL_KCODE, trap_stubs[vec], ACC_P | ACC_INTGATE, 0);
}

void idt_set_dpl(u8 vec, u8 dpl)
{
	idt[vec].access = (idt[vec].access & ~ACC_DPL(3)) | ACC_DPL(dpl);
}

void idt_set_ist(u8 vec, u8 ist)
{
	idt[vec].ist_or_params = ist;
}

void idt_set_present(u8 vec, bool present)
{
	idt[vec].access = (idt[vec].access & ~ACC_P) | (present ? ACC_P : 0);
}

void load_default_idt(void)
{
	load_idt(idt, sizeof(idt) - 1);
}

static void fill_gdt(void)
{
	const u8 kcode = ACC_P | ACC_CODE, kdata = ACC_P | ACC_DATA;
	const u8 wide = SEG_G | (IS_64BIT ? SEG_L : SEG_D);

	gdt_segment(SEL_KCODE, 0, 0xfffff, kcode, wide);
	gdt_segment(SEL_KDATA, 0, 0xfffff, kdata, SEG_G | SEG_D);
	gdt_segment(SEL_UCODE32, 0, 0xfffff, kcode | ACC_DPL(3), SEG_G | SEG_D);
	gdt_segment(SEL_UDATA, 0, 0xfffff, kdata | ACC_DPL(3), SEG_G | SEG_D);
	gdt_segment(SEL_UCODE64, 0, 0xfffff, kcode | ACC_DPL(3), SEG_G | SEG_L);
	gdt_segment(SEL_UDATA2, 0, 0xfffff, kdata | ACC_DPL(3), SEG_G | SEG_D);
	gdt_segment(SEL_KCODE32, 0, 0xfffff, kcode, SEG_G | SEG_D);
	gdt_segment(SEL_KCODE16, 0, 0xffff, kcode, 0);
	gdt_segment(SEL_KDATA16, 0, 0xffff, kdata, 0);
}

void desc_load(unsigned cpu)
{
	u16 sel = SEL_TSS + cpu * 16;
	ulong top = (ulong)stacks[cpu] + STACK_SIZE;
	tss_t *t = &tss[cpu];

	if (!cpu)
		fill_gdt();
#ifdef __x86_64__
	/*
	 * An exception in ring 3 must not overwrite what trap_call() still has on the stack, so
	 * it gets the lower half.
	 */
	t->sp[0] = top - STACK_SIZE / 2;
	t->ist[0] = top - STACK_SIZE / 4;
#else
	t->sp0 = top - STACK_SIZE / 2;
	t->ss0 = SEL_KDATA;
#endif
	/* No port is open to ring 3: the bitmap lies beyond the limit. */
	t->iomap = sizeof(*t);
	gdt_system(sel, (ulong)t, sizeof(*t) - 1, ACC_P | ACC_TSS);

	load_gdt(gdt, sizeof(gdt) - 1);
#ifdef __x86_64__
	asm volatile("push %0; lea 1f(%%rip), %%rax; push %%rax; lretq; 1:"
		     :
		     : "i"(SEL_KCODE)
		     : "rax", "memory");
#else
	asm volatile("ljmp %0, $1f; 1:" : : "i"(SEL_KCODE) : "memory");
#endif
	asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %1, %%fs; mov %1, %%gs"
		     :
		     : "r"(SEL_KDATA), "r"(IS_64BIT ? 0 : SEL_KDATA)
		     : "memory");
	load_tr(sel);
	load_ldt(0);
	load_default_idt();
}

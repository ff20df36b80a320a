/* SPDX-License-Identifier: MIT */
/*
 * Descriptor tables.  The order of the first selectors is the one that SYSCALL and SYSENTER
 * assume (SDM vol. 2, those instructions), for a kernel of either width.
 */
#ifndef GUEST_DESC_H
#define GUEST_DESC_H

#include "types.h"

#define SEL_KCODE   0x08 /* code of the width that the program is built for, ring 0 */
#define SEL_KDATA   0x10 /* flat data, ring 0 */
#define SEL_UCODE32 0x1b
#define SEL_UDATA   0x23
#define SEL_UCODE64 0x2b
#define SEL_UDATA2  0x33 /* the same as SEL_UDATA, where a 64-bit SYSEXIT looks for it */
#define SEL_KCODE32 0x38
#define SEL_KCODE16 0x40 /* 16-bit code and data over the first megabyte, for the way to */
#define SEL_KDATA16 0x48 /* real mode and back */
#define SEL_TSS	    0x50 /* two entries long in 64-bit mode; one more for each processor */
#define SEL_TEST    0x90 /* from here on the program's own */

#define SEL_UCODE (sizeof(ulong) == 8 ? SEL_UCODE64 : SEL_UCODE32)

#define GDT_ENTRIES 48

/* Access byte: present, DPL, S, type (SDM vol. 3, 3.4.5). */
#define ACC_P	     0x80
#define ACC_DPL(n)   ((n) << 5)
#define ACC_CODE     0x1a /* executable, readable */
#define ACC_XCODE    0x18 /* executable only */
#define ACC_CONFORM  0x1e
#define ACC_DATA     0x12 /* writable */
#define ACC_RODATA   0x10
#define ACC_DOWN     0x16 /* writable, expands down */
#define ACC_LDT	     0x02
#define ACC_TASKGATE 0x05
#define ACC_TSS16    0x01
#define ACC_TSS	     0x09
#define ACC_CALLGATE 0x0c
#define ACC_INTGATE  0x0e
#define ACC_TRAPGATE 0x0f

/* Flags nibble. */
#define SEG_G 0x8 /* the limit counts pages */
#define SEG_D 0x4 /* 32-bit */
#define SEG_L 0x2 /* 64-bit */

/* The 32-bit task state segment (SDM vol. 3, figure 7-2); with the bitmap that we always have. */
struct tss32 {
	u32 link, sp0, ss0, sp1, ss1, sp2, ss2, cr3, ip, flags;
	u32 ax, cx, dx, bx, sp, bp, si, di;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, iomap;
	u8 bitmap[8193];
} __attribute__((packed));

/* The 64-bit one (SDM vol. 3, figure 7-11). */
struct tss64 {
	u32 reserved0;
	u64 sp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3, iomap;
	u8 bitmap[8193];
} __attribute__((packed));

#ifdef __x86_64__
typedef struct tss64 tss_t;
#else
typedef struct tss32 tss_t;
#endif

extern u64 gdt[GDT_ENTRIES];

struct table_pointer {
	u16 limit;
	ulong base;
} __attribute__((packed));

/* Load the tables on this processor, number @cpu; each has its own task state segment. */
void desc_load(unsigned cpu);

tss_t *desc_tss(unsigned cpu);

/* The entry with selector @sel (its RPL is ignored) becomes a segment.  @limit is in bytes, or
 * in pages with SEG_G. */
void gdt_segment(u16 sel, u32 base, u32 limit, u8 access, u8 flags);

/* A system descriptor: 16 bytes long in 64-bit mode. */
void gdt_system(u16 sel, ulong base, u32 limit, u8 access);

/* A call gate (or task gate: only its selector counts). */
void gdt_gate(u16 sel, u16 target, ulong offset, u8 access, u8 params);

/* Where vector @vec goes.  @ist is 0 in 32-bit mode. */
void idt_gate(u8 vec, u16 sel, ulong offset, u8 access, u8 ist);

/* Give vector @vec back to the runtime, or let user code raise it with INT n. */
void idt_default(u8 vec);
void idt_set_dpl(u8 vec, u8 dpl);
void idt_set_ist(u8 vec, u8 ist);
void idt_set_present(u8 vec, bool present);

static inline void load_gdt(const void *base, u16 limit)
{
	struct table_pointer p = { limit, (ulong)base };

	asm volatile("lgdt %0" : : "m"(p));
}

static inline void load_idt(const void *base, u16 limit)
{
	struct table_pointer p = { limit, (ulong)base };

	asm volatile("lidt %0" : : "m"(p));
}

static inline void load_tr(u16 sel)
{
	asm volatile("ltr %0" : : "r"(sel));
}

static inline void load_ldt(u16 sel)
{
	asm volatile("lldt %0" : : "r"(sel));
}

void load_default_idt(void);

#endif

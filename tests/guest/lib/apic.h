/* SPDX-License-Identifier: MIT */
/* The interrupt controllers and timers: PIC pair, PIT, I/O APIC and local APIC (memory mapped). */
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include "types.h"

#define LAPIC_BASE	 0xfee00000ul
#define LAPIC_ID	 0x20
#define LAPIC_VERSION	 0x30
#define LAPIC_TPR	 0x80
#define LAPIC_PPR	 0xa0
#define LAPIC_EOI	 0xb0
#define LAPIC_LDR	 0xd0
#define LAPIC_DFR	 0xe0
#define LAPIC_SVR	 0xf0
#define LAPIC_ISR	 0x100
#define LAPIC_TMR	 0x180
#define LAPIC_IRR	 0x200
#define LAPIC_ESR	 0x280
#define LAPIC_ICR	 0x300
#define LAPIC_ICR2	 0x310
#define LAPIC_LVT_TIMER	 0x320
#define LAPIC_LVT_LINT0	 0x350
#define LAPIC_LVT_LINT1	 0x360
#define LAPIC_LVT_ERROR	 0x370
#define LAPIC_TIMER_INIT 0x380
#define LAPIC_TIMER_NOW	 0x390
#define LAPIC_TIMER_DIV	 0x3e0

#define LVT_MASKED   BIT(16)
#define LVT_PERIODIC BIT(17)
#define LVT_DEADLINE BIT(18)
#define LVT_EXTINT   0x700

#define ICR_FIXED   0x000
#define ICR_SMI	    0x200
#define ICR_NMI	    0x400
#define ICR_INIT    0x500
#define ICR_SIPI    0x600
#define ICR_PENDING BIT(12)
#define ICR_ASSERT  BIT(14)
#define ICR_SELF    (1 << 18)
#define ICR_ALL	    (2 << 18)
#define ICR_OTHERS  (3 << 18)

#define IOAPIC_BASE 0xfec00000ul

static inline u32 lapic_read(u32 reg)
{
	return *(volatile u32 *)(LAPIC_BASE + reg);
}

static inline void lapic_write(u32 reg, u32 v)
{
	*(volatile u32 *)(LAPIC_BASE + reg) = v;
}

static inline void lapic_eoi(void)
{
	lapic_write(LAPIC_EOI, 0);
}

/* Switch it on, with the spurious vector 0xff and nothing let in. */
void lapic_enable(void);

/* Bit @vector of the 256-bit register that begins at @reg. */
bool lapic_bit(u32 reg, u8 vector);

/* Send an interrupt command to the processor with APIC id @id, and wait until it is gone. */
void lapic_send(u8 id, u32 command);

u32 ioapic_read(u8 reg);
void ioapic_write(u8 reg, u32 v);
void ioapic_route(u8 pin, u64 entry);

/* Initialize both PICs: IRQ 0..15 become vectors @base..@base + 15; all masked. */
void pic_init(u8 base);
void pic_mask(u16 mask);
void pic_eoi(u8 irq);
u8 pic_read_irr(void);
u8 pic_read_isr(void);

#define PIT_HZ 1193182

/* Counter 0 in @mode (2 periodic, 0 one-shot), counting from @count. */
void pit_start(u8 mode, u16 count);
u16 pit_read(void);

/* Wait that many of the PIT's ticks (at most 65000), by counter 2. */
void pit_delay(u16 ticks);

#endif

// SPDX-License-Identifier: MIT
/*
 * The interrupt controllers and timers.  Local APIC: SDM vol. 3, chapter 11; the others as in the
 * data sheets of the 8259A, 8254 and 82093AA.
 */
#include "apic.h"
#include "cpu.h"

void lapic_enable(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(11));
	lapic_write(LAPIC_SVR, 0x1ff);
	lapic_write(LAPIC_TPR, 0);
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
	lapic_write(LAPIC_LVT_LINT0, LVT_MASKED);
	lapic_write(LAPIC_LVT_LINT1, LVT_MASKED);
}

bool lapic_bit(u32 reg, u8 vector)
{
	return lapic_read(reg + vector / 32 * 16) >> vector % 32 & 1;
}

void lapic_send(u8 id, u32 command)
{
	lapic_write(LAPIC_ICR2, (u32)id << 24);
	lapic_write(LAPIC_ICR, command);
	while (lapic_read(LAPIC_ICR) & ICR_PENDING)
		pause();
}

u32 ioapic_read(u8 reg)
{
	*(volatile u32 *)IOAPIC_BASE = reg;
	return *(volatile u32 *)(IOAPIC_BASE + 0x10);
}

void ioapic_write(u8 reg, u32 v)
{
	*(volatile u32 *)IOAPIC_BASE = reg;
	*(volatile u32 *)(IOAPIC_BASE + 0x10) = v;
}

void ioapic_route(u8 pin, u64 entry)
{
	ioapic_write(0x10 + pin * 2, LVT_MASKED);
	ioapic_write(0x11 + pin * 2, entry >> 32);
	ioapic_write(0x10 + pin * 2, entry);
}

void pic_init(u8 base)
{
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, base);
	outb(0xa1, base + 8);
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	pic_mask(0xffff);
}

void pic_mask(u16 mask)
{
	outb(0x21, mask);
	outb(0xa1, mask >> 8);
}

void pic_eoi(u8 irq)
{
	if (irq >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

u8 pic_read_irr(void)
{
	outb(0x20, 0x0a);
	return inb(0x20);
}

u8 pic_read_isr(void)
{
	outb(0x20, 0x0b);
	return inb(0x20);
}

void pit_start(u8 mode, u16 count)
{
	outb(0x43, 0x30 | mode << 1);
	outb(0x40, count);
	outb(0x40, count >> 8);
}

u16 pit_read(void)
{
	u8 lo;

	outb(0x43, 0x00);
	lo = inb(0x40);
	return lo | inb(0x40) << 8;
}

void pit_delay(u16 ticks)
{
	/* Gate up, speaker off; mode 0: the output rises when the count is through. */
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0);
	outb(0x42, ticks);
	outb(0x42, ticks >> 8);
	while (!(inb(0x61) & 0x20))
		pause();
}

// SPDX-License-Identifier: MIT
/*
 * The PIC pair and the PIT: vectors, masks, priorities, in-service bits, end of interrupt, the
 * timer's modes and rate (data sheets of the 8259A and the 8254).
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

#define BASE 0x30

static volatile unsigned ticks;
static volatile u8 isr_inside;
static volatile bool end_of_interrupt;

static bool on_timer(struct frame *f)
{
	ticks++;
	isr_inside = pic_read_isr();
	if (end_of_interrupt)
		pic_eoi(0);
	return true;
}

static void rate(void)
{
	unsigned start, delays;

	ticks = 0;
	end_of_interrupt = true;
	pic_mask(~1);
	pit_start(2, PIT_HZ / 1000);
	for (start = ticks; start + 10 > ticks;)
		sleep();
	/*
	 * How many delays of a millisecond are 50 ticks?  About 50; a busy host makes each of them
	 * longer, or the ticks fewer, so only the order of magnitude is checked.
	 */
	start = ticks;
	sti();
	for (delays = 0; ticks - start < 50 && delays < 1000; delays++)
		pit_delay(PIT_HZ / 1000);
	cli();
	CHECK(ticks - start >= 50 && delays < 500, "1000 interrupts a second");
	CHECK_EQ(isr_inside, 1, "IRQ 0 is in service in its handler");
	CHECK_EQ(pic_read_isr(), 0, "and not after the end of interrupt");
	pic_mask(0xffff);
}

static void masked(void)
{
	unsigned before = ticks;

	for (unsigned i = 0; i < 100 && !(pic_read_irr() & 1); i++)
		pit_delay(PIT_HZ / 100);
	open_window();
	CHECK_EQ(ticks, before, "a masked interrupt does not come");
	CHECK_EQ(pic_read_irr() & 1, 1, "but it is remembered");
	pic_mask(~1);
	open_window();
	CHECK(ticks > before, "and comes when the mask is lifted");
	pic_mask(0xffff);
}

static void blocked(void)
{
	unsigned before = ticks;

	end_of_interrupt = false;
	pic_mask(~1);
	while (ticks == before)
		sleep();
	before = ticks;
	for (unsigned i = 0; i < 100 && !(pic_read_irr() & 1); i++)
		pit_delay(PIT_HZ / 100);
	open_window();
	CHECK_EQ(ticks, before, "no second interrupt before the end of the first");
	CHECK_EQ(pic_read_isr(), 1, "which is in service until then");
	pic_eoi(0);
	end_of_interrupt = true;
	open_window();
	CHECK(ticks > before, "then the next comes");
	pic_mask(0xffff);
}

static void one_shot(void)
{
	unsigned before;

	pit_start(0, 2000);
	/* What is pending from before goes away here. */
	pit_delay(PIT_HZ / 50);
	pic_mask(~1);
	open_window();
	open_window();
	before = ticks;
	pit_delay(PIT_HZ / 50);
	open_window();
	CHECK_EQ(ticks, before, "mode 0 interrupts once");
	pit_start(0, 2000);
	for (unsigned i = 0; i < 1000 && ticks == before; i++) {
		pit_delay(1000);
		open_window();
	}
	CHECK_EQ(ticks, before + 1, "each time that it is started");
	pic_mask(0xffff);
}

static void counts_down(void)
{
	u16 a, b;

	pit_start(2, 0xffff);
	a = pit_read();
	pit_delay(200);
	b = pit_read();
	CHECK((u16)(a - b) >= 150 && (u16)(a - b) < 40000, "the counter counts down");
}

static void mask_register(void)
{
	pic_mask(0xa55a);
	CHECK_EQ(inb(0x21), 0x5a, "the first mask reads back");
	CHECK_EQ(inb(0xa1), 0xa5, "the second mask reads back");
	pic_mask(0xffff);
}

void guest_main(void)
{
	pic_init(BASE);
	trap_handle(BASE, on_timer);
	mask_register();
	counts_down();
	rate();
	masked();
	blocked();
	one_shot();
}

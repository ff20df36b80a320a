// SPDX-License-Identifier: MIT
/*
 * The I/O APIC: registers, edge-triggered delivery of the PIT, masks, and delivery while masked
 * (data sheet of the 82093AA).
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

#define VECTOR 0x50

static volatile unsigned came;

static bool on_interrupt(struct frame *f)
{
	came++;
	lapic_eoi();
	return true;
}

static bool wait_more(unsigned than)
{
	for (unsigned i = 0; i < 2000 && came <= than; i++) {
		pit_delay(100);
		open_window();
	}
	return came > than;
}

void guest_main(void)
{
	unsigned before;
	u8 pin;

	pic_init(0x30);
	lapic_enable();
	trap_handle(VECTOR, on_interrupt);

	CHECK_EQ(ioapic_read(1) >> 16 & 0xff, 23, "24 pins");
	CHECK_EQ(ioapic_read(0x10 + 9 * 2) & LVT_MASKED, LVT_MASKED, "pins are masked after reset");
	ioapic_route(9, BIT64(16) | 0x0300000000000077);
	CHECK_EQ(ioapic_read(0x10 + 9 * 2) & 0x1afff, LVT_MASKED | 0x77,
		 "an entry reads back, low");
	CHECK_EQ(ioapic_read(0x11 + 9 * 2) >> 24, 3, "an entry reads back, high");

	/* PCs wire the PIT to pin 2, as their MADT says; KVM, if not told otherwise, to pin 0. */
	pin = 2;
	ioapic_route(pin, VECTOR);
	pit_start(2, PIT_HZ / 1000);
	if (!wait_more(3)) {
		ioapic_route(pin, LVT_MASKED);
		pin = 0;
		ioapic_route(pin, VECTOR);
	}
	CHECK(wait_more(3), "the PIT interrupts");
	ioapic_route(pin, VECTOR | LVT_MASKED);
	open_window();
	before = came;
	pit_delay(PIT_HZ / 100);
	open_window();
	CHECK_EQ(came, before, "not while the pin is masked");
	ioapic_route(pin, VECTOR);
	CHECK(wait_more(before), "and again afterwards");
}

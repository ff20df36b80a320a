// SPDX-License-Identifier: MIT
/*
 * System instructions that are executed often, in 32-bit mode: lib/hot.h. All of it twice, the second time with an interrupt
 * every 50 us.
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "hot.h"

void guest_main(void)
{
	lapic_enable();
	for (unsigned pass = 0; pass < 2; pass++) {
		if (pass) {
			hot_timer(true);
			sti();
		}
		hot_flags(false);
		hot_steps();
		hot_interrupts();
		hot_user();
		hot_smap();
		hot_tsc();
		hot_stack();
		hot_strings();
	}
	cli();
	CHECK(hot_ticked(11), "the timer was running");
}

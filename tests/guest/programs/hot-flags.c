// SPDX-License-Identifier: MIT
/*
 * PUSHF behind every kind of instruction, executed often (lib/hot.h); again with an interrupt every
 * 50 us.  It is a program of its own because it stores flags that are undefined, in which engines
 * may differ.
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "hot.h"

void guest_main(void)
{
	lapic_enable();
	hot_flags(true);
	hot_timer(true);
	sti();
	hot_flags(true);
	cli();
	CHECK(hot_ticked(1), "the timer was running");
}

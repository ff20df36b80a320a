// SPDX-License-Identifier: MIT
/*
 * Shuts the processor down: an exception without any descriptor table to go by, with registers
 * that the report has to show.  tests/boot/run-boot runs it.
 */
#include "desc.h"
#include "guest.h"

void guest_main(void)
{
	say("about to die\n");
	load_idt(0, 0);
	asm volatile("mov $0x5eed1234, %%eax; mov $0x0badcafe, %%ebx; ud2" : : : "eax", "ebx");
}

// SPDX-License-Identifier: MIT
/*
 * Non-maskable interrupts: not held off by IF, not nested until IRET, one more remembered (SDM
 * vol. 3, 6.7).
 */
#include "apic.h"
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

static volatile unsigned came, depth, deepest, again;

static void send(void)
{
	lapic_send(0, ICR_NMI | ICR_ASSERT);
}

static bool on_nmi(struct frame *f)
{
	came++;
	depth++;
	if (depth > deepest)
		deepest = depth;
	if (again) {
		again--;
		send();
		send();
		for (unsigned i = 0; i < 1000; i++)
			pause();
	}
	depth--;
	return true;
}

/* A fault in the handler, whose IRET ends the blocking early. */
static bool on_breakpoint(struct frame *f)
{
	return true;
}

static bool on_nmi_with_iret(struct frame *f)
{
	came++;
	depth++;
	if (depth > deepest)
		deepest = depth;
	if (came == 1) {
		send();
		for (unsigned i = 0; i < 1000; i++)
			pause();
		CHECK_EQ(came, 1, "blocked in the handler");
		asm volatile("int3");
		for (unsigned i = 0; i < 1000 && came == 1; i++)
			pause();
		CHECK_EQ(came, 2, "the IRET of another handler ends it");
	}
	depth--;
	return true;
}

static void wait_for(unsigned n)
{
	for (unsigned i = 0; i < 1000000 && came < n; i++)
		pause();
}

void guest_main(void)
{
	lapic_enable();
	cli();
	trap_handle(VEC_NMI, on_nmi);
	send();
	wait_for(1);
	CHECK_EQ(came, 1, "an NMI comes with IF clear");

	came = deepest = 0;
	again = 1;
	send();
	wait_for(2);
	for (unsigned i = 0; i < 1000; i++)
		pause();
	CHECK_EQ(deepest, 1, "no NMI within an NMI's handler");
	CHECK_EQ(came, 2, "two that come meanwhile are one afterwards");

	came = deepest = 0;
	trap_handle(VEC_BP, on_breakpoint);
	trap_handle(VEC_NMI, on_nmi_with_iret);
	send();
	wait_for(2);
	CHECK_EQ(deepest, 2, "then handlers nest");

	came = 0;
	trap_handle(VEC_NMI, on_nmi);
	send();
	wait_for(1);
	CHECK_EQ(came, 1, "and it works as before");
}

// SPDX-License-Identifier: MIT
/*
 * The local APIC: registers, priorities, self interrupts, the timer's three modes, errors, and
 * the x2APIC's registers (SDM vol. 3, chapter 11).
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

static volatile unsigned came[256], order[8], n_order;
static volatile bool do_eoi = true;

PROBE(x2apic_get, "mov %eax, %ecx", "rdmsr");
PROBE(x2apic_set, "mov %eax, %ecx; mov $0xffffffff, %eax; mov %eax, %edx", "wrmsr");

static bool on_interrupt(struct frame *f)
{
	came[f->vector]++;
	if (n_order < COUNT(order))
		order[n_order++] = f->vector;
	if (do_eoi)
		lapic_eoi();
	return true;
}

static void self(u8 vector)
{
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | vector);
	while (lapic_read(LAPIC_ICR) & ICR_PENDING)
		pause();
}

static void registers(void)
{
	CHECK_EQ(lapic_read(LAPIC_ID) >> 24, 0, "the id");
	CHECK((lapic_read(LAPIC_VERSION) & 0xff) >= 0x10, "the version");
	CHECK((lapic_read(LAPIC_VERSION) >> 16 & 0xff) >= 4, "the number of local vectors");
	lapic_write(LAPIC_TPR, 0x35);
	CHECK_EQ(lapic_read(LAPIC_TPR), 0x35, "TPR reads back");
	CHECK_EQ(lapic_read(LAPIC_PPR), 0x35, "PPR is TPR with nothing in service");
	lapic_write(LAPIC_TPR, 0);
	lapic_write(LAPIC_LDR, 0x02000000);
	CHECK_EQ(lapic_read(LAPIC_LDR), 0x02000000, "LDR reads back");
	CHECK_EQ(lapic_read(LAPIC_DFR), 0xffffffff, "DFR after reset");
}

static void priorities(void)
{
	n_order = 0;
	self(0x45);
	self(0x73);
	self(0x51);
	CHECK(lapic_bit(LAPIC_IRR, 0x45) && lapic_bit(LAPIC_IRR, 0x73), "requests are in IRR");
	open_window();
	open_window();
	open_window();
	CHECK_EQ(order[0], 0x73, "the highest comes first");
	CHECK_EQ(order[1], 0x51, "then the next");
	CHECK_EQ(order[2], 0x45, "then the last");

	lapic_write(LAPIC_TPR, 0x50);
	self(0x5f);
	open_window();
	CHECK_EQ(came[0x5f], 0, "TPR holds off its class");
	self(0x61);
	open_window();
	CHECK_EQ(came[0x61], 1, "but not the one above");
	lapic_write(LAPIC_TPR, 0);
	open_window();
	CHECK_EQ(came[0x5f], 1, "which comes when TPR goes down");

	do_eoi = false;
	self(0x62);
	open_window();
	CHECK(lapic_bit(LAPIC_ISR, 0x62), "in service until EOI");
	CHECK_EQ(lapic_read(LAPIC_PPR), 0x60, "PPR is its class");
	self(0x63);
	open_window();
	CHECK_EQ(came[0x63], 0, "the same class waits");
	self(0x70);
	open_window();
	CHECK_EQ(came[0x70], 1, "a higher class does not");
	lapic_eoi();
	CHECK(lapic_bit(LAPIC_ISR, 0x62), "EOI ends the highest");
	CHECK(!lapic_bit(LAPIC_ISR, 0x70), "only");
	do_eoi = true;
	lapic_eoi();
	open_window();
	CHECK_EQ(came[0x63], 1, "then the one that waited comes");
}

static void errors(void)
{
	lapic_write(LAPIC_ESR, 0);
	lapic_write(LAPIC_ESR, 0);
	trap_handle(5, on_interrupt);
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | 5);
	lapic_write(LAPIC_ESR, 0);
	CHECK(lapic_read(LAPIC_ESR) & 0x60, "a vector below 16 is an error");
	open_window();
	CHECK_EQ(came[5], 0, "and not sent");
	lapic_write(LAPIC_ESR, 0);
	CHECK_EQ(lapic_read(LAPIC_ESR), 0, "which goes away");
}

static void timer_one_shot(void)
{
	unsigned left;

	lapic_write(LAPIC_TIMER_DIV, 0x3); /* by 16 */
	lapic_write(LAPIC_LVT_TIMER, 0x81);
	came[0x81] = 0;
	lapic_write(LAPIC_TIMER_INIT, 100000000);
	pit_delay(1000);
	left = lapic_read(LAPIC_TIMER_NOW);
	CHECK(left < 100000000 && left > 0, "the timer counts down");
	lapic_write(LAPIC_TIMER_INIT, 0);
	CHECK_EQ(lapic_read(LAPIC_TIMER_NOW), 0, "an initial count of 0 stops it");
	lapic_write(LAPIC_TIMER_INIT, 1000);
	for (unsigned i = 0; i < 1000 && !came[0x81]; i++) {
		pit_delay(100);
		open_window();
	}
	pit_delay(2000);
	open_window();
	CHECK_EQ(came[0x81], 1, "one-shot: once");
	CHECK_EQ(lapic_read(LAPIC_TIMER_NOW), 0, "and the count stays 0");
	lapic_write(LAPIC_LVT_TIMER, 0x81 | LVT_MASKED);
	lapic_write(LAPIC_TIMER_INIT, 1000);
	pit_delay(2000);
	open_window();
	CHECK_EQ(came[0x81], 1, "masked: never");
}

static void timer_periodic(void)
{
	came[0x82] = 0;
	lapic_write(LAPIC_LVT_TIMER, 0x82 | LVT_PERIODIC);
	lapic_write(LAPIC_TIMER_INIT, 10000);
	for (unsigned i = 0; i < 20; i++)
		sleep();
	CHECK(came[0x82] >= 20, "periodic: again and again");
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
	lapic_write(LAPIC_TIMER_INIT, 0);
	open_window();
}

static void timer_deadline(void)
{
	u64 start;

	if (!(cpuid(1, 0).c & BIT(24))) {
		say("no TSC deadline\n");
		return;
	}
	came[0x83] = 0;
	lapic_write(LAPIC_LVT_TIMER, 0x83 | LVT_DEADLINE);
	asm volatile("mfence");
	CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0, "no deadline at first");
	start = rdtsc();
	wrmsr(MSR_TSC_DEADLINE, start + 3000000);
	while (!came[0x83])
		sleep();
	CHECK(rdtsc() >= start + 3000000, "it does not come early");
	CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0, "and the register is 0 again");
	wrmsr(MSR_TSC_DEADLINE, 1);
	for (unsigned i = 0; i < 1000 && came[0x83] == 1; i++)
		open_window();
	CHECK_EQ(came[0x83], 2, "a deadline in the past comes at once");
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + (1ull << 60));
	wrmsr(MSR_TSC_DEADLINE, 0);
	CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0, "0 disarms it");
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
}

static void x2apic(void)
{
	if (!(cpuid(1, 0).c & BIT(21)))
		return;
	CHECK_EQ(trap_call(x2apic_get, 0x802).vector, VEC_GP, "no x2APIC registers at first");
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(10));
	CHECK_EQ(rdmsr(0x802), 0, "the id by MSR");
	wrmsr(0x808, 0x20);
	CHECK_EQ(rdmsr(0x80a), 0x20, "TPR and PPR by MSR");
	wrmsr(0x808, 0);
	CHECK_EQ(trap_call(x2apic_set, 0x802).vector, VEC_GP, "the id cannot be written");
	CHECK_EQ(trap_call(x2apic_get, 0x80e).vector, VEC_GP, "there is no DFR");
	do_eoi = false;
	wrmsr(0x83f, 0x91);
	open_window();
	CHECK_EQ(came[0x91], 1, "the self interrupt register");
	wrmsr(0x80b, 0);
	wrmsr(0x830, ICR_SELF | 0x92);
	open_window();
	CHECK_EQ(came[0x92], 1, "the command register, 64 bits at once");
	wrmsr(0x80b, 0);
	CHECK_EQ(trap_call(x2apic_set, 0x80b).vector, VEC_GP, "EOI takes 0 only");
}

void guest_main(void)
{
	for (unsigned v = 0x40; v < 0xa0; v++)
		if (v != VEC_USER_RETURN)
			trap_handle(v, on_interrupt);
	lapic_enable();
	registers();
	priorities();
	errors();
	timer_one_shot();
	timer_periodic();
	timer_deadline();
	x2apic();
}

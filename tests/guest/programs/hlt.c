// SPDX-License-Identifier: MIT
/*
 * HLT and the interrupt shadow: STI; HLT sleeps until an interrupt, which never slips in between;
 * MOV SS holds interrupts off for one instruction; CLI wins over what is pending (SDM vol. 3, 6.8).
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

#define VECTOR 0x40

static volatile ulong came_at, came;

static bool on_interrupt(struct frame *f)
{
	came++;
	came_at = f->ip;
	lapic_eoi();
	return true;
}

PROBE(sti_hlt, "", "sti; .globl hlt_here; hlt_here: hlt; .globl hlt_after; hlt_after: cli");
PROBE(sti_nop, "", "sti; nop; .globl nop_after; nop_after: nop; cli");
PROBE(sti_cli, "", "sti; cli; nop");
PROBE(mov_ss, "mov %ss, %ecx",
      "sti; mov %ecx, %ss; .globl mov_ss_next; mov_ss_next: nop; "
      ".globl mov_ss_open; mov_ss_open: nop; cli");
PROBE(popf_open, "pushf; orq $0x200, (%rsp)", "popf; .globl popf_after; popf_after: nop; cli");
extern const u8 hlt_here[], hlt_after[], nop_after[], mov_ss_next[], mov_ss_open[], popf_after[];

static void pend(void)
{
	came = 0;
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR);
	while (!lapic_bit(LAPIC_IRR, VECTOR))
		pause();
}

void guest_main(void)
{
	lapic_enable();
	trap_handle(VECTOR, on_interrupt);

	pend();
	CHECK_EQ(came, 0, "CLI holds it off");
	sti_hlt(0);
	CHECK_EQ(came, 1, "a pending interrupt ends STI; HLT");
	CHECK_EQ(came_at, ADDR(hlt_after), "behind the HLT, not between");
	pend();
	sti_nop(0);
	CHECK_EQ(came_at, ADDR(nop_after), "STI lets one instruction by");
	pend();
	sti_cli(0);
	CHECK_EQ(came, 0, "STI; CLI lets nothing in");
	open_window();
	CHECK_EQ(came, 1, "and it waits");
	pend();
	popf_open(0);
	CHECK_EQ(came_at, ADDR(popf_after), "POPF has no such shadow");
	pend();
	mov_ss(0);
	CHECK_EQ(came, 1, "STI; MOV SS");
	CHECK(came_at == ADDR(mov_ss_next) || came_at == ADDR(mov_ss_open),
	      "comes behind the MOV, whose shadow may count or not after that of STI");

	/* Asleep when it comes: the timer ends the sleep, often. */
	lapic_write(LAPIC_TIMER_DIV, 0xb);
	lapic_write(LAPIC_LVT_TIMER, VECTOR);
	for (unsigned i = 0; i < 200; i++) {
		came = 0;
		lapic_write(LAPIC_TIMER_INIT, 1 + i * 500);
		sti_hlt(0);
		if (!came || came_at != ADDR(hlt_after)) {
			CHECK_EQ(came_at, ADDR(hlt_after), "the timer ends a sleep");
			break;
		}
	}
	CHECK(came, "the timer ends a sleep");
}

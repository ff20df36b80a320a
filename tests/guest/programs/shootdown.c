// SPDX-License-Identifier: MIT
/*
 * TLB shootdown: one processor changes a translation that the other one uses, asks it by an
 * interrupt to forget, and may then rely on it; accessed and dirty bits set by one while the
 * other changes the entry are never lost (SDM vol. 3, 4.10.5).
 */
#include "smp.h"
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

#define VA     0x500000000000ul
#define VECTOR 0x60
#define ROUNDS 300

static struct space s;
static volatile u32 flushed, stop, started, last_seen, writes;
static volatile bool faulted;

static bool on_flush(struct frame *f)
{
	invlpg(VA);
	flushed++;
	lapic_eoi();
	return true;
}

/* The other processor reads the page all the time. */
static void reader(void)
{
	space_load(&s);
	sti();
	started = 1;
	while (!stop)
		last_seen = *(volatile u32 *)VA;
	cli();
}

/* Or writes to it, and waits when it is not there. */
static bool on_missing(struct frame *f)
{
	if (read_cr2() != VA)
		return false;
	faulted = true;
	while (!(*(volatile u64 *)space_entry(&s, VA, 1) & PTE_P))
		pause();
	faulted = false;
	return true;
}

static void writer(void)
{
	space_load(&s);
	started = 1;
	while (!stop) {
		*(volatile u32 *)VA = 1;
		writes++;
		invlpg(VA);
	}
}

static void remap(void)
{
	volatile u32 *frames[2] = { alloc_page(), alloc_page() };

	*frames[0] = 100;
	*frames[1] = 101;
	space_map(&s, VA, (ulong)frames[0], PTE_P | PTE_W);
	REQUIRE(smp_start(1, reader), "the second processor starts");
	while (!started)
		pause();
	for (u32 i = 1; i <= ROUNDS; i++) {
		u32 want = 100 + (i & 1), seen;

		space_map(&s, VA, (ulong)frames[i & 1], PTE_P | PTE_W);
		lapic_send(1, ICR_FIXED | ICR_ASSERT | VECTOR);
		while (flushed != i)
			pause();
		/* One read may have been under way; whatever comes after it is the new page's. */
		for (unsigned n = 0; n < 1000000 && last_seen != want; n++)
			pause();
		seen = last_seen;
		if (seen != want) {
			CHECK_EQ(seen, want,
				 "after a shootdown the other processor sees the new page");
			break;
		}
		*frames[!(i & 1)] = 100 + !(i & 1);
	}
	CHECK_EQ(flushed, ROUNDS, "every shootdown was answered");
	stop = 1;
	smp_wait(1);
}

static void dirty_bits(void)
{
	volatile u64 *entry = space_entry(&s, VA, 1);
	volatile u32 *page = alloc_page();
	unsigned lost = 0, taken = 0;
	u64 fresh = (ulong)page | PTE_P | PTE_W;

	stop = started = 0;
	*entry = fresh;
	trap_handle(VEC_PF, on_missing);
	REQUIRE(smp_start(1, writer), "the second processor starts");
	while (!started)
		pause();
	for (u32 i = 0; i < ROUNDS; i++) {
		u64 old;

		for (u32 before = writes; writes == before && !faulted;)
			pause();
		old = __atomic_exchange_n(entry, 0, __ATOMIC_SEQ_CST);
		/* With a store in the page, and the entry clean, a dirty bit went astray. */
		lost += *page == 1 && !(old & PTE_D);
		taken += !!(old & PTE_D);
		while (!faulted)
			pause();
		*page = 0;
		*entry = fresh;
		while (faulted)
			pause();
	}
	stop = 1;
	smp_wait(1);
	CHECK_EQ(lost, 0, "no dirty bit is lost");
	CHECK_EQ(taken, ROUNDS, "each was seen");
}

void guest_main(void)
{
	trap_handle(VECTOR, on_flush);
	s = space_kernel(PAGING_4LEVEL, false, true);
	space_load(&s);
	remap();
	dirty_bits();
}

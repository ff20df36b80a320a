// SPDX-License-Identifier: MIT
/*
 * Two processors: start-up, interrupts from one to the other, locked operations, ordering, and
 * code changed by the other one (SDM vol. 3, 8.1, 8.2 and 9.4).
 */
#include "smp.h"
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

#define ROUNDS 100000
#define VECTOR 0x60

static volatile u32 ap_id, ap_cpu, stop;
static u32 locked_sum, exchanged, compared;
static u64 wide;
static unsigned __int128 widest __attribute__((aligned(16)));
static volatile u32 ready[2];
static volatile unsigned interrupts[2];
static u32 bits;
static volatile u32 flag_a, flag_b, seen_a, seen_b, turn;
static u8 code[64] __attribute__((aligned(64)));

static bool on_interrupt(struct frame *f)
{
	interrupts[this_cpu()]++;
	lapic_eoi();
	return true;
}

/* Both processors do this at once, and nothing may be lost. */
static void contend(unsigned me)
{
	ready[me] = 1;
	while (!ready[!me])
		pause();
	for (u32 i = 0; i < ROUNDS; i++) {
		u32 old, one = 1;
		u64 w;

		asm volatile("lock addl $1, %0" : "+m"(locked_sum));
		asm volatile("lock xadd %1, %0" : "+m"(exchanged), "+r"(one));
		do
			old = *(volatile u32 *)&compared;
		while (!__atomic_compare_exchange_n(&compared, &old, old + 1, false,
						    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
		w = 1ull << 32 | 1;
		asm volatile("lock addq %1, %0" : "+m"(wide) : "r"(w));
		/* Each has its own bits of one word. */
		asm volatile("lock btcl %1, %0" : "+m"(bits) : "r"(me * 16 + i % 16));
	}
	for (u32 i = 0; i < ROUNDS / 10; i++) {
		u64 lo = (u64)widest, hi = (u64)(widest >> 64);
		u8 ok;

		do
			asm volatile("lock cmpxchg16b %1; setz %0"
				     : "=q"(ok), "+m"(widest), "+a"(lo), "+d"(hi)
				     : "b"(lo + 1), "c"(hi + 2));
		while (!ok);
	}
}

static void ap_main(void)
{
	ap_id = lapic_read(LAPIC_ID) >> 24;
	ap_cpu = this_cpu();
	contend(1);
	sti();
	while (!stop)
		asm volatile("hlt");
	cli();
}

/* Store, fence, load: at least one of the two sees the other's store. */
static void ordering_ap(void)
{
	for (u32 i = 1; i <= 2000; i++) {
		while (turn != i)
			pause();
		flag_b = 1;
		asm volatile("mfence" : : : "memory");
		seen_a = flag_a;
		__atomic_store_n(&ready[1], i, __ATOMIC_RELEASE);
	}
}

static void ordering(void)
{
	unsigned neither = 0;

	ready[1] = 0;
	if (!smp_start(1, ordering_ap))
		return;
	for (u32 i = 1; i <= 2000; i++) {
		flag_a = flag_b = 0;
		turn = i;
		flag_a = 1;
		asm volatile("mfence" : : : "memory");
		seen_b = flag_b;
		while (__atomic_load_n(&ready[1], __ATOMIC_ACQUIRE) != i)
			pause();
		neither += !seen_a && !seen_b;
	}
	smp_wait(1);
	CHECK_EQ(neither, 0, "a fence between store and load orders them");
}

/* The other one changes code; a serializing instruction makes this one see it. */
static void patch_ap(void)
{
	for (u32 i = 1; i <= 200; i++) {
		while (turn != i)
			pause();
		*(volatile u32 *)(code + 1) = i;
		__atomic_store_n(&ready[1], i, __ATOMIC_RELEASE);
	}
}

static void cross_modify(void)
{
	u32 wrong = 0;

	code[0] = 0xb8; /* mov $n, %eax; ret */
	code[5] = 0xc3;
	ready[1] = turn = 0;
	if (!smp_start(1, patch_ap))
		return;
	for (u32 i = 1; i <= 200; i++) {
		turn = i;
		while (__atomic_load_n(&ready[1], __ATOMIC_ACQUIRE) != i)
			pause();
		cpuid(0, 0);
		for (u32 n = 0; n < 40;
		     n++) /* often enough for engines that translate what is executed often */
			wrong += ((u32(*)(void))code)() != i;
	}
	smp_wait(1);
	CHECK_EQ(wrong, 0, "code changed by another processor");
}

void guest_main(void)
{
	trap_handle(VECTOR, on_interrupt);
	REQUIRE(smp_start(1, ap_main), "the second processor starts");
	contend(0);
	while (ap_cpu != 1 || *(volatile u32 *)&locked_sum != 2 * ROUNDS ||
	       (u64) * (volatile u64 *)&widest != 2 * (ROUNDS / 10))
		pause();
	CHECK_EQ(ap_id, 1, "its APIC id");
	CHECK_EQ(locked_sum, 2 * ROUNDS, "LOCK ADD loses nothing");
	CHECK_EQ(exchanged, 2 * ROUNDS, "LOCK XADD");
	CHECK_EQ(compared, 2 * ROUNDS, "LOCK CMPXCHG");
	CHECK_EQ(wide, 2ull * ROUNDS << 32 | 2 * ROUNDS, "LOCK ADD of 64 bits");
	CHECK_EQ(bits, 0, "LOCK BTC: each bit was flipped an even number of times");
	CHECK_EQ((u64)(widest >> 64), 4 * (ROUNDS / 10), "LOCK CMPXCHG16B");

	for (unsigned i = 1; i <= 100; i++) {
		lapic_send(1, ICR_FIXED | ICR_ASSERT | VECTOR);
		for (unsigned n = 0; n < 100000000 && interrupts[1] < i; n++)
			pause();
		if (interrupts[1] != i)
			break;
	}
	CHECK_EQ(interrupts[1], 100, "interrupts wake the other processor from HLT");
	lapic_write(LAPIC_ICR, ICR_OTHERS | ICR_ASSERT | VECTOR);
	for (unsigned n = 0; n < 100000000 && interrupts[1] < 101; n++)
		pause();
	CHECK_EQ(interrupts[1], 101, "all but self");
	lapic_write(LAPIC_ICR, ICR_ALL | ICR_ASSERT | VECTOR);
	for (unsigned n = 0; n < 100000000 && interrupts[1] < 102; n++)
		pause();
	open_window();
	CHECK_EQ(interrupts[1], 102, "all, the other one");
	CHECK_EQ(interrupts[0], 1, "all, this one");
	stop = 1;
	lapic_send(1, ICR_FIXED | ICR_ASSERT | VECTOR);
	smp_wait(1);
	ordering();
	cross_modify();
}

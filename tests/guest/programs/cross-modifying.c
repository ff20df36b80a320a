// SPDX-License-Identifier: MIT
/*
 * Code that one processor stores to while another one executes it again and again (SDM vol. 3,
 * 9.1.3 "Handling Self- and Cross-Modifying Code"): when it has been told of the store, and has
 * executed a serializing instruction since, it executes the new code.
 */
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "smp.h"
#include "trap.h"

#define VECTOR 0x60
#define ROUNDS 100
#define TURNS  40 /* of the executing processor, for each store */

/* Calls go to another page than the one that they come from. */
static u8 code[3 * 4096] __attribute__((aligned(4096)));

/*
 * mov $n, %eax; ret: in one page, and on two.  The operand is aligned, so that it is stored at
 * once.
 */
static const struct place {
	u8 *at;
	u8 *first; /* called before: something in the page where the instruction begins */
	const char *name;
} places[] = {
	{ code + 0x103, 0, "in one page" },
	{ code + 8191, 0, "on two pages" },
	{ code + 8191, code + 4096, "on two pages, the first of which is executed already" },
};

enum way { INTERRUPT, CPUID, INVLPG, SERIALIZE, WAYS };
static const char *const way_names[WAYS] = { "an interrupt", "CPUID", "INVLPG", "SERIALIZE" };

static enum way way;
static const struct place *place;
static volatile u32 stored, told, turns, late;
static volatile bool stop, started;

static bool on_interrupt(struct frame *f)
{
	told = stored;
	lapic_eoi();
	return true;
}

/* What a call gives now, at least. */
static u32 ask(void)
{
	static u32 last;
	u32 n = stored;

	if (way != INTERRUPT && n == last)
		return n;
	last = n;
	switch (way) {
	case INTERRUPT:
		return told;
	case CPUID:
		cpuid(0, 0);
		break;
	case INVLPG:
		invlpg((ulong)place->at);
		invlpg((ulong)place->at + 4);
		break;
	case SERIALIZE:
		asm volatile(".byte 0x0f, 0x01, 0xe8" : : : "memory");
		break;
	case WAYS:
		break;
	}
	return n;
}

static void executing(void)
{
	if (way == INTERRUPT)
		sti();
	started = true;
	while (!stop) {
		u32 want = ask();

		if (place->first)
			((void (*)(void))place->first)();
		late += ((u32(*)(void))place->at)() < want;
		turns++;
	}
	cli();
}

static void store_and_tell(u32 n)
{
	u32 before;

	*(volatile u32 *)(place->at + 1) = n;
	stored = n;
	if (way == INTERRUPT) {
		lapic_send(1, ICR_FIXED | ICR_ASSERT | VECTOR);
		while (told != n)
			pause();
	}
	before = turns;
	while (turns - before < TURNS)
		pause();
}

static void try(void)
{
	place->at[0] = 0xb8;
	place->at[5] = 0xc3;
	*(u32 *)(place->at + 1) = 0;
	if (place->first)
		place->first[0] = 0xc3;
	stored = told = late = 0;
	stop = started = false;
	REQUIRE(smp_start(1, executing), "the second processor starts");
	while (!started)
		pause();
	for (u32 n = 1; n <= ROUNDS && !late; n++)
		store_and_tell(n);
	stop = true;
	smp_wait(1);
	if (late)
		say("told by %s, code %s:\n", way_names[way], place->name);
	CHECK_EQ(late, 0, "no call executes what was there before");
}

void guest_main(void)
{
	trap_handle(VECTOR, on_interrupt);
	for (way = INTERRUPT; way < WAYS; way++) {
		if (way == SERIALIZE && !(cpuid_if(7, 0).d & BIT(14)))
			continue;
		for (place = places; place < places + COUNT(places); place++)
			try();
	}
}

// SPDX-License-Identifier: MIT
/*
 * The 8254: counting, latches, read-back, gate and speaker port, channel 0's interrupt,
 * reinjection.
 */
#include "fixture.h"

#include <errno.h>
#include <string.h>

#define OUT(status) ((status) >> 7)

static void program(struct vm *vm, unsigned ch, unsigned mode, u16 count)
{
	outb(vm, 0x43, (u8)(ch << 6 | 0x30 | mode << 1));
	outb(vm, (u16)(0x40 + ch), (u8)count);
	outb(vm, (u16)(0x40 + ch), (u8)(count >> 8));
}

static u16 read_word(struct vm *vm, unsigned ch)
{
	u16 lo = inb(vm, (u16)(0x40 + ch));

	return (u16)(lo | inb(vm, (u16)(0x40 + ch)) << 8);
}

static u16 latched(struct vm *vm, unsigned ch)
{
	outb(vm, 0x43, (u8)(ch << 6));
	return read_word(vm, ch);
}

static u8 status(struct vm *vm, unsigned ch)
{
	outb(vm, 0x43, (u8)(0xe0 | 2u << ch));
	return inb(vm, (u16)(0x40 + ch));
}

static u64 clocks(u64 ns)
{
	return ns * 1193182 / 1000000000;
}

/* Gate of channel 2 by port 0x61. */
static void gate(struct vm *vm, int on)
{
	outb(vm, 0x61, (u8)on);
}

static void test_counts_with_the_clock(void **state)
{
	struct vm *vm = *state;

	/* Modes 0 and 2 count by ones; the counter is at most as far as the clock. */
	for (unsigned mode = 0; mode <= 2; mode += 2) {
		u64 t0, t1, t2;
		u32 count, passed;

		gate(vm, 1);
		do {
			t0 = um_timer_now();
			program(vm, 2, mode, 0);
			t1 = um_timer_now();
			sleep_ns(2 * MSEC);
			t2 = um_timer_now();
			count = latched(vm, 2);
			/* Once around is 54.9 ms: try again if that has passed. */
		} while (um_timer_now() - t0 > 50 * MSEC);
		passed = (0x10000 - count) & 0xffff;
		assert_true(passed >= clocks(t2 - t1));
		assert_true(passed <= clocks(um_timer_now() - t0) + 1);
	}
}

static void test_access_modes_and_latch(void **state)
{
	struct vm *vm = *state;
	u16 first;

	/* The gate of channel 2 is low: it stands still, so what is read is known. */
	gate(vm, 0);
	program(vm, 2, 0, 0x1234);
	assert_int_equal(read_word(vm, 2), 0x1234);
	assert_int_equal(latched(vm, 2), 0x1234);
	outb(vm, 0x43, 0x90); /* low byte only */
	outb(vm, 0x42, 0x56);
	assert_int_equal(inb(vm, 0x42), 0x56);
	assert_int_equal(inb(vm, 0x42), 0x56);
	outb(vm, 0x43, 0xa0); /* high byte only */
	outb(vm, 0x42, 0x78);
	assert_int_equal(inb(vm, 0x42), 0x78);
	outb(vm, 0x43, 0x80);
	assert_int_equal(inb(vm, 0x42), 0x78);
	assert_int_equal(inb(vm, 0x43), 0);

	/* A latch holds until read, also against a second latch. */
	gate(vm, 1);
	program(vm, 2, 2, 0);
	outb(vm, 0x43, 0x80);
	sleep_ns(MSEC);
	outb(vm, 0x43, 0x80);
	first = read_word(vm, 2);
	assert_true(first == 0 || first > 0xff00 || latched(vm, 2) != first);
	outb(vm, 0x43, 0x80);
	first = read_word(vm, 2);
	sleep_ns(MSEC);
	assert_int_not_equal(latched(vm, 2), first);
}

static void test_status_and_read_back(void **state)
{
	struct vm *vm = *state;

	gate(vm, 0);
	outb(vm, 0x43, 0xb6); /* channel 2, word, mode 3, no count yet */
	assert_int_equal(status(vm, 2), 0x80 | 0x40 | 0x36);
	outb(vm, 0x42, 0x34);
	outb(vm, 0x42, 0x12);
	assert_int_equal(status(vm, 2), 0x80 | 0x36);
	/* Count and status at once: the status is read first. */
	outb(vm, 0x43, 0xc8);
	assert_int_equal(inb(vm, 0x42), 0x80 | 0x36);
	assert_int_equal(read_word(vm, 2), 0x1234);
	/* Two channels in one command. */
	program(vm, 1, 2, 500);
	outb(vm, 0x43, 0xec);
	assert_int_equal(inb(vm, 0x41) & 0x7f, 0x34);
	assert_int_equal(inb(vm, 0x42) & 0x7f, 0x36);
	/* Neither: nothing is latched. */
	outb(vm, 0x43, 0xf8);
	assert_int_equal(read_word(vm, 2), 0x1234);
	/* Modes 6 and 7 are 2 and 3. */
	outb(vm, 0x43, 0xbc);
	assert_int_equal(status(vm, 2) & 0x3f, 0x34);
}

static void test_bcd(void **state)
{
	struct vm *vm = *state;
	u16 count;

	gate(vm, 0);
	outb(vm, 0x43, 0xb1); /* mode 0, BCD */
	outb(vm, 0x42, 0x99);
	outb(vm, 0x42, 0x19);
	assert_int_equal(read_word(vm, 2), 0x1999);
	outb(vm, 0x43, 0xb5);
	gate(vm, 1);
	outb(vm, 0x42, 0);
	outb(vm, 0x42, 0);
	sleep_ns(MSEC);
	for (int i = 0; i < 100; i++) {
		count = latched(vm, 2);
		for (int digit = 0; digit < 16; digit += 4)
			assert_true((count >> digit & 15) < 10);
	}
}

static void test_mode0_output(void **state)
{
	struct vm *vm = *state;
	u64 end = um_timer_now() + TEST_LIMIT;

	gate(vm, 1);
	outb(vm, 0x43, 0xb0);
	assert_int_equal(OUT(status(vm, 2)), 0);
	program(vm, 2, 0, 1193); /* 1 ms */
	while (!(inb(vm, 0x61) & 0x20))
		assert_true(um_timer_now() < end);
	assert_int_equal(OUT(status(vm, 2)), 1);
	/* It stays so, and the counter goes on through 0. */
	sleep_ns(MSEC);
	assert_int_equal(inb(vm, 0x61) & 0x20, 0x20);
	program(vm, 2, 0, 0xffff);
	gate(vm, 0);
	assert_int_equal(inb(vm, 0x61) & 0x21, 0);
}

static void test_gate_pauses(void **state)
{
	struct vm *vm = *state;
	u16 a, b;

	gate(vm, 1);
	program(vm, 2, 0, 0xffff);
	sleep_ns(MSEC);
	gate(vm, 0);
	a = latched(vm, 2);
	assert_int_not_equal(a, 0xffff);
	sleep_ns(2 * MSEC);
	assert_int_equal(latched(vm, 2), a);
	gate(vm, 1);
	sleep_ns(MSEC);
	b = latched(vm, 2);
	assert_int_not_equal(b, a);
}

static void test_gate_triggers(void **state)
{
	struct vm *vm = *state;
	u64 end = um_timer_now() + TEST_LIMIT;

	/* Mode 1: OUT is high until the gate rises, then low for the count. */
	gate(vm, 0);
	program(vm, 2, 1, 1193);
	sleep_ns(2 * MSEC);
	assert_int_equal(OUT(status(vm, 2)), 1);
	assert_int_equal(latched(vm, 2), 1193);
	program(vm, 2, 1, 0xffff);
	gate(vm, 1);
	assert_int_equal(OUT(status(vm, 2)), 0);
	program(vm, 2, 1, 1193);
	gate(vm, 0);
	gate(vm, 1);
	while (!OUT(status(vm, 2)))
		assert_true(um_timer_now() < end);
	/* Mode 5: counts only after the rising gate. */
	gate(vm, 0);
	program(vm, 2, 5, 0x8000);
	sleep_ns(MSEC);
	assert_int_equal(latched(vm, 2), 0x8000);
	gate(vm, 1);
	sleep_ns(MSEC);
	assert_int_not_equal(latched(vm, 2), 0x8000);
	/* Modes 2 and 3: a low gate stops them with OUT high, a rising one starts over. */
	program(vm, 2, 3, 0x1000);
	gate(vm, 0);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(OUT(status(vm, 2)), 1);
		assert_int_equal(latched(vm, 2), 0x1000);
		sleep_ns(100000);
	}
	gate(vm, 1);
	while (OUT(status(vm, 2)))
		assert_true(um_timer_now() < end);
}

/* Mode 3 is a square wave, and its counter goes by twos. */
static void test_square_wave(void **state)
{
	struct vm *vm = *state;
	bool seen[2] = { false, false }, high;
	u64 end = um_timer_now() + TEST_LIMIT, start;

	/* It starts high, for 27 ms here. */
	gate(vm, 1);
	do {
		start = um_timer_now();
		program(vm, 2, 3, 0);
		high = OUT(status(vm, 2));
	} while (um_timer_now() - start > 20 * MSEC);
	assert_true(high);
	program(vm, 2, 3, 2386);
	while (!seen[0] || !seen[1]) {
		assert_true(um_timer_now() < end);
		seen[inb(vm, 0x61) >> 5 & 1] = true;
	}
	for (int i = 0; i < 1000; i++) {
		u16 count = latched(vm, 2);

		assert_true(count <= 2386 && count % 2 == 0);
	}
}

static void test_port61(void **state)
{
	struct vm *vm = *state;
	bool seen[2] = { false, false };
	u64 end = um_timer_now() + TEST_LIMIT;
	struct vm *bare = vm_create(1, true);
	u8 val;

	outb(vm, 0x61, 0xff);
	assert_int_equal(inb(vm, 0x61) & 0xcf & ~0x20, 3);
	outb(vm, 0x61, 0);
	assert_int_equal(inb(vm, 0x61) & 3, 0);
	/* The refresh bit toggles. */
	while (!seen[0] || !seen[1]) {
		assert_true(um_timer_now() < end);
		seen[inb(vm, 0x61) >> 4 & 1] = true;
	}
	/* Who has no PIT has no such ports. */
	assert_false(um_irqchip_pio_read(bare->chip, 0x61, 1, &val));
	assert_false(um_irqchip_pio_read(bare->chip, 0x40, 1, &val));
	vm_destroy(bare);
}

static void test_creation(void **state)
{
	struct vm *vm = *state, *bare = vm_create(1, true);
	struct um_irqchip_config cfg = { 0 };
	struct um_irqchip *chip;
	struct kvm_pit_state2 s;
	u8 val;

	assert_int_equal(um_irqchip_create_pit(vm->chip, 0), -EEXIST);
	assert_int_equal(um_irqchip_create_pit(bare->chip, 0), -ENOENT);
	assert_int_equal(um_irqchip_create(&chip, &cfg), 0);
	assert_int_equal(um_irqchip_create_pit(chip, 2), -EINVAL);
	assert_int_equal(um_irqchip_get_pit(chip, &s), -ENXIO);
	assert_int_equal(um_irqchip_set_pit(chip, &s), -ENXIO);
	assert_int_equal(um_irqchip_pit_reinject(chip, true), -ENXIO);
	assert_false(um_irqchip_has_pit(chip));
	assert_int_equal(um_irqchip_create_pit(chip, 0), 0);
	assert_true(um_irqchip_has_pit(chip));
	assert_true(um_irqchip_pio_read(chip, 0x40, 1, &val));
	assert_false(um_irqchip_pio_read(chip, 0x61, 1, &val)); /* not asked for */
	um_irqchip_destroy(chip);
	vm_destroy(bare);
}

/* ---- Channel 0 ---- */

static int take_pic(struct vm *vm)
{
	int vec = um_lapic_ack(vm->cpu[0].l);

	if (vec >= 0)
		outb(vm, 0x20, 0x20);
	return vec;
}

static void test_periodic_interrupt(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 1);
	for (unsigned mode = 2; mode <= 3; mode++) {
		u64 start = um_timer_now();

		program(vm, 0, mode, 1193); /* 999.8 us */
		for (u64 i = 1; i <= 4; i++) {
			assert_true(wait_interrupt(&vm->cpu[0]) - start >= i * 999000);
			assert_int_equal(take_pic(vm), 0x20);
		}
		/* A control word stops it. */
		outb(vm, 0x43, 0x30);
		while (take_pic(vm) == 0x20)
			; /* what is owed */
		sleep_ns(3 * MSEC);
		assert_int_equal(take_pic(vm), -1);
	}
}

static void test_one_shot_interrupt(void **state)
{
	struct vm *vm = *state;
	static const u8 modes[] = { 0, 4 };

	pic_program(vm, 1);
	for (unsigned i = 0; i < 2; i++) {
		u64 start = um_timer_now();

		program(vm, 0, modes[i], 2387);
		assert_true(wait_interrupt(&vm->cpu[0]) - start >= 2 * 999000);
		assert_int_equal(take_pic(vm), 0x20);
		sleep_ns(5 * MSEC);
		assert_int_equal(take_pic(vm), -1);
	}
	/* Modes 1 and 5 wait for a gate that never rises. */
	program(vm, 0, 1, 1193);
	sleep_ns(3 * MSEC);
	program(vm, 0, 5, 1193);
	sleep_ns(3 * MSEC);
	assert_int_equal(take_pic(vm), -1);
}

static void test_through_ioapic(void **state)
{
	struct vm *vm = *state;

	redir_write(vm, 0, 0x31);
	program(vm, 0, 2, 1193);
	for (int i = 0; i < 3; i++) {
		wait_interrupt(&vm->cpu[0]);
		assert_int_equal(take(&vm->cpu[0]), 0x31);
	}
}

/* LINT0 as an NMI on the second CPU: each tick is one. */
static void test_watchdog(void **state)
{
	struct vm *vm = *state;
	u64 end = um_timer_now() + TEST_LIMIT;

	assert_int_equal(um_irqchip_pit_reinject(vm->chip, false), 0);
	mmio_write(&vm->cpu[1], 0x350, 0x400);
	program(vm, 0, 2, 1193);
	while (__atomic_load_n(&vm->cpu[1].nmis, __ATOMIC_SEQ_CST) < 3) {
		assert_true(um_timer_now() < end);
		sleep_ns(MSEC);
	}
	assert_int_equal(vm->cpu[0].nmis, 0);
}

/* Ticks that came while the guest was slow come later, or not, as the VMM wishes. */
static void test_reinject(void **state)
{
	struct vm *vm = *state;
	u64 end = um_timer_now() + TEST_LIMIT;
	int n;

	pic_program(vm, 1);
	/* On a busy host the helper thread may be late for some: then once more. */
	do {
		assert_true(um_timer_now() < end);
		program(vm, 0, 2, 1193);
		wait_interrupt(&vm->cpu[0]);
		sleep_ns(20 * MSEC);
		assert_int_equal(take_pic(vm), 0x20);
		/* Stop the source; what is owed still comes, one by one, without delay. */
		outb(vm, 0x43, 0x34);
		for (n = 0; take_pic(vm) == 0x20;)
			n++;
	} while (n < 15);

	/* Dropped. */
	assert_int_equal(um_irqchip_pit_reinject(vm->chip, false), 0);
	program(vm, 0, 2, 1193);
	wait_interrupt(&vm->cpu[0]);
	sleep_ns(20 * MSEC);
	outb(vm, 0x43, 0x34);
	assert_int_equal(take_pic(vm), 0x20);
	assert_int_equal(take_pic(vm), -1);

	/* Unmasking starts over. */
	assert_int_equal(um_irqchip_pit_reinject(vm->chip, true), 0);
	program(vm, 0, 2, 1193);
	wait_interrupt(&vm->cpu[0]);
	sleep_ns(20 * MSEC);
	outb(vm, 0x43, 0x34);
	outb(vm, 0x21, 0xff);
	outb(vm, 0x21, 0xfe);
	assert_int_equal(take_pic(vm), 0x20);
	assert_int_equal(take_pic(vm), -1);
}

/* A count of 1 would be a tick each 838 ns. */
static void test_period_is_bounded(void **state)
{
	struct vm *vm = *state;
	u64 end;
	int n = 0;

	pic_program(vm, 1);
	assert_int_equal(um_irqchip_pit_reinject(vm->chip, false), 0);
	end = um_timer_now() + 20 * MSEC;
	program(vm, 0, 2, 1);
	for (;;) {
		u64 now = um_timer_now();

		n += take_pic(vm) == 0x20;
		if (now >= end)
			break;
	}
	assert_true(n > 0 && n <= 102);
}

static void test_state(void **state)
{
	struct vm *vm = *state, *other = vm_create(1, false);
	struct kvm_pit_state2 s, back;

	gate(vm, 0);
	program(vm, 0, 2, 0x4321);
	program(vm, 1, 3, 18);
	program(vm, 2, 0, 0x1234);
	outb(vm, 0x61, 2);
	outb(vm, 0x43, 0xc8);
	inb(vm, 0x42);
	assert_int_equal(um_irqchip_get_pit(vm->chip, &s), 0);
	assert_int_equal(s.channels[0].count, 0x4321);
	assert_int_equal(s.channels[0].mode, 2);
	assert_int_equal(s.channels[1].count, 18);
	assert_int_equal(s.channels[2].latched_count, 0x1234);
	assert_int_equal(s.flags, 2);
	assert_int_equal(um_irqchip_set_pit(other->chip, &s), 0);
	assert_int_equal(um_irqchip_get_pit(other->chip, &back), 0);
	for (int i = 0; i < 3; i++)
		s.channels[i].count_load_time = back.channels[i].count_load_time = 0;
	assert_memory_equal(&s, &back, sizeof(s));
	assert_int_equal(inb(other, 0x61) & 3, 2);
	assert_int_equal(read_word(other, 2), 0x1234);

	/* The HPET has taken over: no ticks. */
	pic_program(other, 1);
	s.flags = 1;
	s.channels[0].count = 1193;
	assert_int_equal(um_irqchip_set_pit(other->chip, &s), 0);
	sleep_ns(5 * MSEC);
	assert_int_equal(take_pic(other), -1);
	s.flags = 0;
	assert_int_equal(um_irqchip_set_pit(other->chip, &s), 0);
	wait_interrupt(&other->cpu[0]);
	assert_int_equal(take_pic(other), 0x20);
	vm_destroy(other);
}

/* Any state at all may be set, and any port used afterwards. */
static void test_nonsense_state(void **state)
{
	struct vm *vm = *state;
	struct kvm_pit_state2 s;
	u32 seed = 1;

	for (int round = 0; round < 2000; round++) {
		u8 *p = (u8 *)&s;

		for (size_t i = 0; i < sizeof(s); i++) {
			seed = seed * 1664525 + 1013904223;
			p[i] = seed >> 28 ? (u8)(seed >> 16) : 0;
		}
		s.flags |= 1;
		assert_int_equal(um_irqchip_set_pit(vm->chip, &s), 0);
		for (u16 port = 0x40; port <= 0x43; port++) {
			inb(vm, port);
			inb(vm, port);
			outb(vm, port, (u8)seed);
			inb(vm, port);
		}
		inb(vm, 0x61);
		outb(vm, 0x61, (u8)(seed >> 8));
		assert_int_equal(um_irqchip_get_pit(vm->chip, &s), 0);
		assert_true(s.channels[2].count > 0 && s.channels[2].count <= 0x10000);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup1, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_counts_with_the_clock),
		T(test_access_modes_and_latch),
		T(test_status_and_read_back),
		T(test_bcd),
		T(test_mode0_output),
		T(test_gate_pauses),
		T(test_gate_triggers),
		T(test_square_wave),
		T(test_port61),
		T(test_creation),
		T(test_periodic_interrupt),
		T(test_one_shot_interrupt),
		T(test_through_ioapic),
		cmocka_unit_test_setup_teardown(test_watchdog, setup2, teardown),
		T(test_reinject),
		T(test_period_is_bounded),
		T(test_state),
		T(test_nonsense_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

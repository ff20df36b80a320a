// SPDX-License-Identifier: MIT
/* The local APIC's timer against the real clock.  Bounds are one-sided: late is never wrong. */
#include "fixture.h"

#include <string.h>

#define ONE_SHOT 0x00000u
#define PERIODIC 0x20000u
#define DEADLINE 0x40000u
#define MASKED	 0x10000u

static void test_one_shot(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];
	u64 start;

	mmio_write(c, 0x320, ONE_SHOT | 0x61);
	mmio_write(c, 0x3e0, 0xb); /* divide by 1 */
	start = um_timer_now();
	mmio_write(c, 0x380, 3 * MSEC);
	assert_true(wait_interrupt(c) - start >= 3 * MSEC);
	assert_int_equal(take(c), 0x61);
	assert_int_equal(mmio_read(c, 0x390), 0);
	assert_int_equal(mmio_read(c, 0x380), 3 * MSEC);
	sleep_ns(10 * MSEC);
	assert_int_equal(take(c), -1);
}

static void test_divider(void **state)
{
	/* Code of the register: 2 4 8 16 32 64 128 1. */
	static const u8 code[] = { 0, 1, 2, 3, 8, 9, 10, 11 };
	struct cpu *c = &((struct vm *)*state)->cpu[0];

	mmio_write(c, 0x320, MASKED);
	for (unsigned i = 0; i < 8; i++) {
		u64 div = i == 7 ? 1 : 2ull << i, t0, t1, t2;
		u32 count;

		mmio_write(c, 0x3e0, code[i]);
		assert_int_equal(mmio_read(c, 0x3e0), code[i]);
		t0 = um_timer_now();
		mmio_write(c, 0x380, 0xffffffff);
		t1 = um_timer_now();
		sleep_ns(MSEC);
		t2 = um_timer_now();
		count = 0xffffffff - mmio_read(c, 0x390);
		assert_true(count >= (t2 - t1) / div);
		assert_true(count <= (um_timer_now() - t0) / div + 1);
	}
}

static void test_count_decreases_and_stops(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];
	u32 a, b;

	mmio_write(c, 0x320, 0x61);
	mmio_write(c, 0x3e0, 0xb);
	mmio_write(c, 0x380, 4000000000u);
	a = mmio_read(c, 0x390);
	sleep_ns(100000);
	b = mmio_read(c, 0x390);
	assert_true(a <= 4000000000u && b < a && a - b >= 100000);
	mmio_write(c, 0x380, 0);
	assert_int_equal(mmio_read(c, 0x390), 0);
	/* The current count is read-only. */
	mmio_write(c, 0x390, 55);
	assert_int_equal(mmio_read(c, 0x390), 0);
}

static void test_periodic(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];
	u64 start;

	mmio_write(c, 0x320, PERIODIC | 0x61);
	mmio_write(c, 0x3e0, 0xb);
	start = um_timer_now();
	mmio_write(c, 0x380, MSEC);
	for (u64 i = 1; i <= 5; i++) {
		assert_true(wait_interrupt(c) - start >= i * MSEC);
		assert_int_equal(take(c), 0x61);
		assert_true(mmio_read(c, 0x390) <= MSEC);
	}
	/* Masked it counts on, silently; unmasked it speaks again. */
	mmio_write(c, 0x320, PERIODIC | MASKED | 0x61);
	take(c);
	sleep_ns(5 * MSEC);
	assert_int_equal(take(c), -1);
	mmio_write(c, 0x320, PERIODIC | 0x61);
	wait_interrupt(c);
	/* One-shot from here: the period that runs is the last. */
	mmio_write(c, 0x320, ONE_SHOT | 0x61);
	take(c);
	sleep_ns(5 * MSEC);
	take(c);
	sleep_ns(5 * MSEC);
	assert_int_equal(take(c), -1);
}

/* The shortest period is bounded, so a guest cannot occupy the helper thread. */
static void test_period_is_bounded(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];
	u64 start = um_timer_now(), took;
	unsigned n = 0;

	mmio_write(c, 0x320, PERIODIC | 0x61);
	mmio_write(c, 0x3e0, 0xb);
	mmio_write(c, 0x380, 1);
	/* (A busy host may let the helper thread wait.) */
	do {
		if (take(c) == 0x61)
			n++;
		took = um_timer_now() - start;
	} while (took < 20 * MSEC || (!n && took < 10000 * MSEC));
	assert_true(n > 0 && n <= took / 200000 + 2);
}

static void test_divider_while_running(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];
	u32 before, after;

	mmio_write(c, 0x320, MASKED);
	mmio_write(c, 0x3e0, 0xb);
	mmio_write(c, 0x380, 0xf0000000);
	before = mmio_read(c, 0x390);
	mmio_write(c, 0x3e0, 0xa); /* 128 times slower, from the same count */
	after = mmio_read(c, 0x390);
	assert_true(after <= before);
	assert_true(after > 0x80000000);
}

static void test_tsc_deadline(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];
	u64 now, deadline;
	u32 khz;

	/* Not in that mode: ignored. */
	um_lapic_set_tsc_deadline(c->l, 1);
	assert_int_equal(um_lapic_get_tsc_deadline(c->l), 0);
	assert_int_equal(take(c), -1);

	mmio_write(c, 0x320, DEADLINE | 0x62);
	fixture_ops.tsc(c, &now, &khz);
	deadline = now + (1ull << 50);
	um_lapic_set_tsc_deadline(c->l, deadline);
	assert_int_equal(um_lapic_get_tsc_deadline(c->l), deadline);
	deadline = now + 3 * MSEC * (TSC_KHZ / 1000000);
	um_lapic_set_tsc_deadline(c->l, deadline);
	mmio_write(c, 0x380, 1000); /* has no effect here */
	assert_int_equal(mmio_read(c, 0x390), 0);
	wait_interrupt(c);
	fixture_ops.tsc(c, &now, &khz);
	assert_true(now >= deadline);
	assert_int_equal(take(c), 0x62);
	assert_int_equal(um_lapic_get_tsc_deadline(c->l), 0);

	/* In the past: at once, in this thread. */
	um_lapic_set_tsc_deadline(c->l, now);
	assert_int_equal(take(c), 0x62);
	assert_int_equal(um_lapic_get_tsc_deadline(c->l), 0);

	/* 0 disarms, and so does leaving the mode. */
	um_lapic_set_tsc_deadline(c->l, now + (1ull << 50));
	um_lapic_set_tsc_deadline(c->l, 0);
	assert_int_equal(um_lapic_get_tsc_deadline(c->l), 0);
	um_lapic_set_tsc_deadline(c->l, ~0ull);
	mmio_write(c, 0x320, ONE_SHOT | 0x62);
	mmio_write(c, 0x320, DEADLINE | 0x62);
	assert_int_equal(um_lapic_get_tsc_deadline(c->l), 0);
	sleep_ns(5 * MSEC);
	assert_int_equal(take(c), -1);
}

/* The guest's TSC jumps past the deadline. */
static void test_tsc_jump(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];
	u64 now;
	u32 khz;

	mmio_write(c, 0x320, DEADLINE | 0x62);
	fixture_ops.tsc(c, &now, &khz);
	um_lapic_set_tsc_deadline(c->l, now + (1ull << 50));
	assert_int_equal(take(c), -1);
	c->tsc_offset = 1ll << 51;
	um_lapic_tsc_changed(c->l);
	assert_int_equal(take(c), 0x62);
}

static void test_deadline_mode_needs_cpuid(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];

	um_lapic_set_cpuid(c->l, true, false, 40);
	mmio_write(c, 0x320, DEADLINE | 0x62);
	assert_int_equal(mmio_read(c, 0x320), 0x62);
	um_lapic_set_tsc_deadline(c->l, 1);
	assert_int_equal(take(c), -1);
}

static void test_reset_stops(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];

	mmio_write(c, 0x320, PERIODIC | 0x61);
	mmio_write(c, 0x380, MSEC);
	um_lapic_reset(c->l, true);
	mmio_write(c, 0xf0, 0x1ff);
	mmio_write(c, 0x320, 0x61);
	sleep_ns(5 * MSEC);
	assert_int_equal(take(c), -1);
	assert_int_equal(mmio_read(c, 0x390), 0);
}

static void test_state(void **state)
{
	struct vm *other = vm_create(1, false);
	struct cpu *c = &((struct vm *)*state)->cpu[0], *d = &other->cpu[0];
	struct kvm_lapic_state s;
	u32 left;
	u64 start;

	mmio_write(c, 0x320, ONE_SHOT | 0x61);
	mmio_write(c, 0x3e0, 0xb);
	mmio_write(c, 0x380, 4000000000u);
	um_lapic_get_state(c->l, &s);
	memcpy(&left, s.regs + 0x390, 4);
	assert_true(left > 0 && left <= 4000000000u);
	/* The saved count goes on, whatever time has passed. */
	left = 5 * MSEC;
	memcpy(s.regs + 0x390, &left, 4);
	start = um_timer_now();
	assert_int_equal(um_lapic_set_state(d->l, &s), 0);
	assert_true(wait_interrupt(d) - start >= left);
	assert_int_equal(take(d), 0x61);
	/* An expired one-shot timer stays expired. */
	left = 0;
	memcpy(s.regs + 0x390, &left, 4);
	assert_int_equal(um_lapic_set_state(d->l, &s), 0);
	assert_int_equal(mmio_read(d, 0x390), 0);
	vm_destroy(other);
}

/* At every moment, a timer that was started is either saved as running or has made its request. */
static void test_state_loses_nothing(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];

	mmio_write(c, 0x320, ONE_SHOT | 0x61);
	for (unsigned i = 0; i < 300; i++) {
		u32 left, requested = 0;

		mmio_write(c, 0x3e0, i & 1 ? 0xa : 0xb); /* divided by 128 or by 1 */
		mmio_write(c, 0x380, i & 1 ? 200 : 25600);
		while (!requested) {
			struct kvm_lapic_state s;

			um_lapic_get_state(c->l, &s);
			memcpy(&left, s.regs + 0x390, 4);
			memcpy(&requested, s.regs + 0x230, 4); /* IRR, vectors 0x60 to 0x7f */
			assert_true(left || requested & 1u << 1);
		}
		assert_int_equal(take(c), 0x61);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup1, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_one_shot),
		T(test_divider),
		T(test_count_decreases_and_stops),
		T(test_periodic),
		T(test_period_is_bounded),
		T(test_divider_while_running),
		T(test_tsc_deadline),
		T(test_tsc_jump),
		T(test_deadline_mode_needs_cpuid),
		T(test_reset_stops),
		T(test_state),
		T(test_state_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

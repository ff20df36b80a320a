// SPDX-License-Identifier: MIT
/*
 * vCPU threads, devices and the helper thread at once.  Nothing that was sent may be lost, nothing
 * may hang, and the sanitizers must find nothing.
 */
#include "fixture.h"

#include <pthread.h>

#define ROUNDS	     3000
#define TOKEN_ROUNDS 1000

struct worker {
	struct vm *vm;
	int self;
	pthread_t thread;
	u64 taken[256];
	bool stop;
	u64 *progress; /* when the token was last seen, by anybody */
};

static struct cpu *me(struct worker *w)
{
	return &w->vm->cpu[w->self];
}

/* cmocka's assertions are for the main thread only: count here, judge there. */
static int take_raw(struct worker *w)
{
	u32 zero = 0;
	int vec = um_lapic_ack(me(w)->l);

	if (vec >= 0) {
		w->taken[vec]++;
		um_lapic_mmio_write(me(w)->l, UM_LAPIC_BASE + 0xb0, 4, &zero);
	}
	return vec;
}

/* Pass a token: who gets 0x80 + n sends 0x80 + n to the next CPU.  A lost IPI ends it early. */
static void *token(void *arg)
{
	struct worker *w = arg;
	u32 next = (u32)(w->self + 1) % 4 << 24, low = 0x4000 | 0x80;

	while (w->taken[0x80] < TOKEN_ROUNDS) {
		if (!um_lapic_has_interrupt(me(w)->l) || take_raw(w) != 0x80) {
			if (um_timer_now() >
			    __atomic_load_n(w->progress, __ATOMIC_ACQUIRE) + TEST_LIMIT)
				return NULL;
			sched_yield();
			continue;
		}
		__atomic_store_n(w->progress, um_timer_now(), __ATOMIC_RELEASE);
		um_lapic_mmio_write(me(w)->l, UM_LAPIC_BASE + 0x310, 4, &next);
		um_lapic_mmio_write(me(w)->l, UM_LAPIC_BASE + 0x300, 4, &low);
	}
	return NULL;
}

static void test_token(void **state)
{
	struct vm *vm = vm_create(4, false);
	struct worker w[4] = { 0 };
	u64 progress = um_timer_now();

	for (int i = 0; i < 4; i++) {
		w[i] = (struct worker){ .vm = vm, .self = i, .progress = &progress };
		assert_int_equal(pthread_create(&w[i].thread, NULL, token, &w[i]), 0);
	}
	assert_int_equal(msi(vm, 0xfee00000, 0x80), 1);
	for (int i = 0; i < 4; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].taken[0x80], TOKEN_ROUNDS);
	}
	vm_destroy(vm);
}

static void *serve(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE))
		if (!um_lapic_has_interrupt(me(w)->l) || take_raw(w) < 0)
			sched_yield();
	while (take_raw(w) >= 0)
		;
	return NULL;
}

struct device {
	struct vm *vm;
	u32 gsi;
	u64 delivered;
	pthread_t thread;
};

static void *pulse(void *arg)
{
	struct device *d = arg;

	for (int i = 0; i < ROUNDS; i++) {
		int ret = um_irqchip_set_irq(d->vm->chip, UM_IRQ_SOURCE_USER, d->gsi, 1);

		if (ret > 0)
			d->delivered += (u64)ret;
		um_irqchip_set_irq(d->vm->chip, UM_IRQ_SOURCE_USER, d->gsi, 0);
		if (i % 16 == 0)
			sched_yield();
	}
	return NULL;
}

/* What was reported as delivered arrives; meanwhile timers run and state is read. */
static void test_devices(void **state)
{
	struct vm *vm = vm_create(2, false);
	struct worker w[2] = { 0 };
	struct device d[2] = { 0 };
	struct kvm_irqchip s = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_lapic_state ls;

	for (u32 i = 0; i < 2; i++) {
		redir_write(vm, 20 + i, (u64)i << 56 | (0x50 + i));
		mmio_write(&vm->cpu[i], 0x320, 0x20000 | 0xd0);
		mmio_write(&vm->cpu[i], 0x3e0, 0xb);
		mmio_write(&vm->cpu[i], 0x380, 200000);
		w[i] = (struct worker){ .vm = vm, .self = (int)i };
		d[i] = (struct device){ .vm = vm, .gsi = 20 + i };
	}
	outb(vm, 0x43, 0x34);
	outb(vm, 0x40, 0xff);
	outb(vm, 0x40, 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&w[i].thread, NULL, serve, &w[i]), 0);
		assert_int_equal(pthread_create(&d[i].thread, NULL, pulse, &d[i]), 0);
	}
	for (int i = 0; i < 200; i++) {
		assert_int_equal(um_irqchip_get_state(vm->chip, &s), 0);
		um_lapic_get_state(vm->cpu[i & 1].l, &ls);
		sched_yield();
	}
	sleep_ns(5 * MSEC);
	for (int i = 0; i < 2; i++)
		pthread_join(d[i].thread, NULL);
	for (int i = 0; i < 2; i++) {
		__atomic_store_n(&w[i].stop, true, __ATOMIC_RELEASE);
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].taken[0x50 + i], d[i].delivered);
		assert_true(w[i].taken[0xd0] > 0);
	}
	vm_destroy(vm);
}

static void *flood(void *arg)
{
	struct worker *w = arg;
	struct kvm_msi m = { .address_lo = 0xfeeff000, .data = 0x90 };

	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE))
		um_irqchip_send_msi(w->vm->chip, &m);
	return NULL;
}

/* CPUs come and go under broadcasts; a destroyed one is told nothing any more. */
static void test_destroy_under_fire(void **state)
{
	struct vm *vm = vm_create(1, false);
	struct worker w = { .vm = vm };
	struct cpu c = { 0 };

	assert_int_equal(pthread_create(&w.thread, NULL, flood, &w), 0);
	for (int i = 0; i < 300; i++) {
		int kicks;

		assert_int_equal(um_lapic_create(&c.l, vm->chip, 1, false, &fixture_ops, &c), 0);
		mmio_write(&c, 0xf0, 0x1ff);
		mmio_write(&c, 0x320, 0x20000 | 0xd0);
		mmio_write(&c, 0x380, 1000);
		sched_yield();
		um_lapic_destroy(c.l);
		kicks = __atomic_load_n(&c.kicks, __ATOMIC_SEQ_CST);
		sched_yield();
		assert_int_equal(__atomic_load_n(&c.kicks, __ATOMIC_SEQ_CST), kicks);
	}
	__atomic_store_n(&w.stop, true, __ATOMIC_RELEASE);
	pthread_join(w.thread, NULL);
	vm_destroy(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_token),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_destroy_under_fire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

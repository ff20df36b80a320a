// SPDX-License-Identifier: MIT
/* The helper thread's timers: order, re-arming, cancelling, waiting for a running function. */
#include "fixture.h"

#include <pthread.h>
#include <signal.h>

struct probe {
	struct um_timer t;
	u64 fired_at;
	int count, order;
	u64 rearm; /* arm again this far ahead, while count < limit */
	int limit;
	u64 linger; /* stay in the function */
	int *sequence;
	bool done;
};

static void fire(void *opaque)
{
	struct probe *p = opaque;

	__atomic_store_n(&p->fired_at, um_timer_now(), __ATOMIC_SEQ_CST);
	if (p->sequence)
		p->order = ++*p->sequence;
	if (p->rearm && p->count + 1 < p->limit)
		um_timer_arm(&p->t, um_timer_now() + p->rearm);
	if (p->linger)
		sleep_ns(p->linger);
	__atomic_store_n(&p->done, true, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&p->count, 1, __ATOMIC_SEQ_CST);
}

static void wait_count(struct probe *p, int count)
{
	u64 end = um_timer_now() + TEST_LIMIT;

	while (__atomic_load_n(&p->count, __ATOMIC_SEQ_CST) < count) {
		assert_true(um_timer_now() < end);
		sleep_ns(100000);
	}
}

static int setup(void **state)
{
	struct um_timers *s;

	assert_int_equal(um_timers_create(&s), 0);
	*state = s;
	return 0;
}

static int done(void **state)
{
	um_timers_destroy(*state);
	return 0;
}

static void test_not_early(void **state)
{
	struct probe p = { 0 };
	u64 deadline;

	assert_int_equal(um_timer_init(&p.t, *state, fire, &p), 0);
	deadline = um_timer_now() + 3 * MSEC;
	um_timer_arm(&p.t, deadline);
	wait_count(&p, 1);
	assert_true(p.fired_at >= deadline);
	/* The past is now, and 0 is the past. */
	um_timer_arm(&p.t, 0);
	wait_count(&p, 2);
	um_timer_destroy(&p.t);
}

/* Armed in the order 5 1 4 2 3, and one of them put off: they fire by deadline. */
static void test_order(void **state)
{
	static const int when[] = { 5, 1, 4, 2, 3 };
	struct probe p[5] = { 0 };
	int sequence = 0;
	u64 base = um_timer_now() + 20 * MSEC;

	for (int i = 0; i < 5; i++) {
		assert_int_equal(um_timer_init(&p[i].t, *state, fire, &p[i]), 0);
		p[i].sequence = &sequence;
		um_timer_arm(&p[i].t, base + (u64)when[i] * MSEC / 2);
	}
	um_timer_arm(&p[1].t, base + 3 * MSEC); /* was first, is last */
	wait_count(&p[1], 1);
	assert_int_equal(p[3].order, 1);
	assert_int_equal(p[4].order, 2);
	assert_int_equal(p[2].order, 3);
	assert_int_equal(p[0].order, 4);
	assert_int_equal(p[1].order, 5);
	for (int i = 0; i < 5; i++)
		um_timer_destroy(&p[i].t);
}

static void test_many(void **state)
{
	struct probe p[200] = { 0 };
	u64 base = um_timer_now() + 5 * MSEC;

	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(um_timer_init(&p[i].t, *state, fire, &p[i]), 0);
		um_timer_arm(&p[i].t, base + i * 7919 % 200 * 10000);
	}
	for (unsigned i = 0; i < 200; i += 3)
		um_timer_cancel(&p[i].t);
	for (unsigned i = 0; i < 200; i++) {
		if (i % 3)
			wait_count(&p[i], 1);
		um_timer_destroy(&p[i].t);
	}
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(p[i].count, i % 3 ? 1 : 0);
}

static void test_rearm_in_function(void **state)
{
	struct probe p = { .rearm = 100000, .limit = 20 };

	assert_int_equal(um_timer_init(&p.t, *state, fire, &p), 0);
	um_timer_arm(&p.t, um_timer_now());
	wait_count(&p, 20);
	um_timer_destroy(&p.t);
	assert_int_equal(p.count, 20);
}

/* Destroying waits for the function, and takes back what that armed. */
static void test_destroy_waits(void **state)
{
	struct probe p = { .rearm = 1, .limit = 1000, .linger = 5 * MSEC };

	assert_int_equal(um_timer_init(&p.t, *state, fire, &p), 0);
	um_timer_arm(&p.t, um_timer_now());
	while (!__atomic_load_n(&p.fired_at, __ATOMIC_SEQ_CST))
		sleep_ns(10000);
	um_timer_destroy(&p.t);
	assert_true(p.done);
	int count = p.count;
	sleep_ns(20 * MSEC);
	assert_int_equal(p.count, count);
}

static pthread_t seen_thread;
static void look(void *opaque)
{
	struct probe *p = opaque;
	sigset_t blocked;

	seen_thread = pthread_self();
	pthread_sigmask(SIG_BLOCK, NULL, &blocked);
	p->order = sigismember(&blocked, SIGUSR1) && sigismember(&blocked, SIGTERM);
	__atomic_fetch_add(&p->count, 1, __ATOMIC_SEQ_CST);
}

static void test_own_thread_without_signals(void **state)
{
	struct probe p = { 0 };

	assert_int_equal(um_timer_init(&p.t, *state, look, &p), 0);
	um_timer_arm(&p.t, um_timer_now());
	wait_count(&p, 1);
	assert_false(pthread_equal(seen_thread, pthread_self()));
	assert_true(p.order);
	um_timer_destroy(&p.t);
}

static void test_destroy_zeroed(void **state)
{
	struct um_timer t = { 0 };

	um_timer_destroy(&t);
	assert_null(t.set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_not_early, setup, done),
		cmocka_unit_test_setup_teardown(test_order, setup, done),
		cmocka_unit_test_setup_teardown(test_many, setup, done),
		cmocka_unit_test_setup_teardown(test_rearm_in_function, setup, done),
		cmocka_unit_test_setup_teardown(test_destroy_waits, setup, done),
		cmocka_unit_test_setup_teardown(test_own_thread_without_signals, setup, done),
		cmocka_unit_test(test_destroy_zeroed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

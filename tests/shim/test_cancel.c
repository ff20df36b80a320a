// SPDX-License-Identifier: MIT
/* Under the preload library: pthread_cancel() of threads that run a vCPU. */
#include "guest.h"

static const uint8_t code_spin[] = { 0xeb, 0xfe }; /* 1: jmp 1b */

struct runner {
	struct guest g;
	pthread_t thread;
	int type;
	int spin_first; /* some work before KVM_RUN, so that it may be cancelled there */
	int cleaned_up;
	int returned;
};

static void clean_up(void *arg)
{
	((struct runner *)arg)->cleaned_up++;
}

static void *run(void *arg)
{
	struct runner *r = arg;

	pthread_cleanup_push(clean_up, r);
	assert_int_equal(pthread_setcanceltype(r->type, NULL), 0);
	for (volatile int i = 0; i < r->spin_first; i++)
		;
	for (;;) {
		ioctl(r->g.vcpu, KVM_RUN, 0);
		__atomic_add_fetch(&r->returned, 1, __ATOMIC_SEQ_CST);
		if (r->type == PTHREAD_CANCEL_DEFERRED && r->g.run->immediate_exit)
			break;
	}
	pthread_cleanup_pop(0);
	return NULL;
}

static void sleep_us(long us)
{
	nanosleep(&(struct timespec){ us / 1000000, us % 1000000 * 1000 }, NULL);
}

/*
 * As the kernel: the signal of an asynchronous cancellation ends KVM_RUN, and the thread, at any
 * moment.
 */
static void cancel_runs(const uint8_t *code, size_t size, int chip)
{
	for (int round = 0; round < 60; round++) {
		struct runner r = { .type = PTHREAD_CANCEL_ASYNCHRONOUS,
				    .spin_first = round % 3 ? 0 : 20000 };
		void *result;

		guest_open_chip(&r.g, code, size, chip);
		assert_int_equal(pthread_create(&r.thread, NULL, run, &r), 0);
		sleep_us(round % 4 ? round * 25 : 3000);
		assert_int_equal(pthread_cancel(r.thread), 0);
		assert_int_equal(pthread_join(r.thread, &result), 0);
		assert_ptr_equal(result, PTHREAD_CANCELED);
		/* It may not have come as far as pthread_cleanup_push(). */
		assert_true(r.cleaned_up <= 1);
		/* Its vCPU is free for others: nothing is held. */
		r.g.run->immediate_exit = 1;
		assert_int_equal(ioctl(r.g.vcpu, KVM_RUN, 0), -1);
		assert_int_equal(errno, EINTR);
		guest_close(&r.g);
	}
}

static void test_spinning(void **state)
{
	(void)state;
	cancel_runs(code_spin, sizeof(code_spin), 0);
}

/* Here KVM_RUN returns all the time. */
static void test_returning(void **state)
{
	(void)state;
	cancel_runs(code_count, sizeof(code_count), 0);
}

static void test_halted(void **state)
{
	(void)state;
	cancel_runs(code_halt, sizeof(code_halt), 1);
}

/* KVM_RUN is no cancellation point. */
static void test_deferred(void **state)
{
	struct runner r = { .type = PTHREAD_CANCEL_DEFERRED };
	void *result;

	(void)state;
	guest_open(&r.g, code_spin, sizeof(code_spin));
	assert_int_equal(pthread_create(&r.thread, NULL, run, &r), 0);
	sleep_us(20000);
	assert_int_equal(pthread_cancel(r.thread), 0);
	sleep_us(50000);
	assert_int_equal(r.returned, 0);
	/* It returns for other reasons, and goes on. */
	r.g.run->immediate_exit = 1;
	pthread_kill(r.thread, SIGUSR1);
	assert_int_equal(pthread_join(r.thread, &result), 0);
	assert_null(result);
	assert_true(r.returned >= 1);
	guest_close(&r.g);
}

static void on_signal(int sig)
{
	(void)sig;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spinning),
		cmocka_unit_test(test_returning),
		cmocka_unit_test(test_halted),
		cmocka_unit_test(test_deferred),
	};

	signal(SIGUSR1, on_signal);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

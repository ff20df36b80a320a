// SPDX-License-Identifier: MIT
/*
 * irqfds: pulses, levels with resampling, routing, and what KVM_IRQFD refuses; watched descriptors.
 */
#include "fixture.h"

#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EDGE(vec)  (u64)(vec)
#define LEVEL(vec) ((u64)(vec) | 1ull << 15)
#define MASKED	   (1ull << 16)

static int event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void signal_event(int fd)
{
	u64 one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

/* The count of an eventfd, waiting up to @ms for one. */
static u64 count(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	u64 n = 0;

	if (poll(&p, 1, ms) == 1)
		assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	return n;
}

#define LIMIT_MS ((int)(TEST_LIMIT / MSEC))

/* The helper thread has taken the count. */
static void wait_taken(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	for (int i = 0; i < 20000 && poll(&p, 1, 0) == 1; i++)
		sleep_ns(MSEC);
	assert_int_equal(poll(&p, 1, 0), 0);
}

static int irqfd(struct vm *vm, int fd, u32 gsi, u32 flags, int resample)
{
	struct kvm_irqfd args = {
		.fd = (u32)fd, .gsi = gsi, .flags = flags, .resamplefd = (u32)resample
	};

	return um_irqchip_irqfd(vm->chip, &args);
}

static void test_pulse(void **state)
{
	struct vm *vm = *state;
	int fd = event();

	redir_write(vm, 5, EDGE(0x51));
	assert_int_equal(irqfd(vm, fd, 5, 0, -1), 0);
	for (int i = 0; i < 3; i++) {
		signal_event(fd);
		wait_interrupt(&vm->cpu[0]);
		assert_int_equal(take(&vm->cpu[0]), 0x51);
	}
	assert_int_equal(irqfd(vm, fd, 5, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	signal_event(fd);
	sleep_ns(20 * MSEC);
	assert_int_equal(take(&vm->cpu[0]), -1);
	assert_int_equal(count(fd, 0), 1); /* nobody took it */
	close(fd);
}

/*
 * A signal from before the assignment counts; the VMM may close its descriptor and name it by
 * another.
 */
static void test_earlier_signal_and_closed(void **state)
{
	struct vm *vm = *state;
	int fd = event(), other = dup(fd);

	redir_write(vm, 6, EDGE(0x61));
	signal_event(fd);
	assert_int_equal(irqfd(vm, fd, 6, 0, -1), 0);
	wait_interrupt(&vm->cpu[0]);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	close(fd);
	signal_event(other);
	wait_interrupt(&vm->cpu[0]);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	assert_int_equal(irqfd(vm, other, 6, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	signal_event(other);
	sleep_ns(20 * MSEC);
	assert_int_equal(take(&vm->cpu[0]), -1);
	close(other);
}

/* Many signals before the helper thread looks are one pulse; a semaphore gives them one by one. */
static void test_semaphore(void **state)
{
	struct vm *vm = *state;
	int fd = eventfd(5, EFD_CLOEXEC | EFD_SEMAPHORE);

	redir_write(vm, 6, EDGE(0x61));
	assert_int_equal(irqfd(vm, fd, 6, 0, -1), 0);
	wait_taken(fd);
	wait_interrupt(&vm->cpu[0]);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	assert_int_equal(irqfd(vm, fd, 6, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	close(fd);
}

static void route_msi(struct vm *vm, u32 gsi, u8 vector)
{
	struct kvm_irq_routing_entry e = {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = 0xfee00000, .data = vector },
	};

	assert_int_equal(um_irqchip_set_routing(vm->chip, &e, 1, 0), 0);
}

static void test_routing_changes(void **state)
{
	struct vm *vm = *state;
	int fd = event();

	/* No route yet: the signal is taken, and lost. */
	assert_int_equal(irqfd(vm, fd, 40, 0, -1), 0);
	signal_event(fd);
	wait_taken(fd);
	for (int vec = 0x40; vec < 0x44; vec++) {
		route_msi(vm, 40, (u8)vec);
		signal_event(fd);
		wait_interrupt(&vm->cpu[0]);
		assert_int_equal(take(&vm->cpu[0]), vec);
	}
	assert_int_equal(take(&vm->cpu[0]), -1);
	assert_int_equal(irqfd(vm, fd, 40, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	close(fd);
}

static void test_resample(void **state)
{
	struct vm *vm = *state;
	int a = event(), b = event(), ra = event(), rb = event();

	redir_write(vm, 9, LEVEL(0x91));
	assert_int_equal(irqfd(vm, a, 9, KVM_IRQFD_FLAG_RESAMPLE, ra), 0);
	assert_int_equal(irqfd(vm, b, 9, KVM_IRQFD_FLAG_RESAMPLE, rb), 0);
	for (int i = 0; i < 3; i++) {
		signal_event(i & 1 ? b : a);
		wait_interrupt(&vm->cpu[0]);
		assert_int_equal(count(ra, 0), 0);
		assert_int_equal(take(&vm->cpu[0]), 0x91); /* with EOI */
		assert_int_equal(count(ra, LIMIT_MS), 1);
		assert_int_equal(count(rb, LIMIT_MS), 1);
		/* The line went down: no second one. */
		assert_int_equal(take(&vm->cpu[0]), -1);
	}
	/* A device that still wants service raises it again. */
	signal_event(a);
	wait_interrupt(&vm->cpu[0]);
	assert_int_equal(take(&vm->cpu[0]), 0x91);
	assert_int_equal(count(ra, LIMIT_MS), 1);
	signal_event(a);
	wait_interrupt(&vm->cpu[0]);
	/* Another source holds the line beyond the EOI. */
	assert_int_equal(line(vm, 9, 1), 0);
	assert_int_equal(take(&vm->cpu[0]), 0x91);
	assert_int_equal(take(&vm->cpu[0]), 0x91);
	line(vm, 9, 0);
	assert_int_equal(take(&vm->cpu[0]), 0x91);
	assert_int_equal(take(&vm->cpu[0]), -1);
	assert_int_equal(irqfd(vm, a, 9, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	assert_int_equal(irqfd(vm, b, 9, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	close(a);
	close(b);
	close(ra);
	close(rb);
}

/* The last irqfd of a GSI lets its line go; with it, EOIs of edges are nobody's business again. */
static void test_deassign_lowers(void **state)
{
	struct vm *vm = *state;
	int a = event(), b = event(), r = event();

	redir_write(vm, 9, LEVEL(0x91) | MASKED);
	assert_int_equal(irqfd(vm, a, 9, KVM_IRQFD_FLAG_RESAMPLE, r), 0);
	assert_int_equal(irqfd(vm, b, 9, KVM_IRQFD_FLAG_RESAMPLE, r), 0);
	signal_event(a);
	wait_taken(a);
	assert_int_equal(irqfd(vm, a, 9, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	redir_write(vm, 9, LEVEL(0x91));
	assert_int_equal(take(&vm->cpu[0]), 0x91); /* b still holds what a raised */
	redir_write(vm, 9, LEVEL(0x91) | MASKED);
	signal_event(b);
	wait_taken(b);
	assert_int_equal(irqfd(vm, b, 9, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	redir_write(vm, 9, LEVEL(0x91));
	assert_int_equal(take(&vm->cpu[0]), -1);
	close(a);
	close(b);
	close(r);
}

/* An edge-triggered pin has EOIs too, and who resamples hears of them. */
static void test_resample_edge(void **state)
{
	struct vm *vm = *state;
	int a = event(), r = event();

	redir_write(vm, 7, EDGE(0x71));
	assert_int_equal(irqfd(vm, a, 7, KVM_IRQFD_FLAG_RESAMPLE, r), 0);
	for (int i = 0; i < 2; i++) {
		signal_event(a);
		wait_interrupt(&vm->cpu[0]);
		assert_int_equal(take(&vm->cpu[0]), 0x71);
		assert_int_equal(count(r, LIMIT_MS), 1);
	}
	close(a);
	close(r); /* and still assigned when the VM ends */
}

static void test_resample_pic(void **state)
{
	struct vm *vm = *state;
	int a = event(), r = event();

	pic_program(vm, 1 << 5);
	outb(vm, 0x4d0, 1 << 5); /* level-triggered */
	assert_int_equal(irqfd(vm, a, 5, KVM_IRQFD_FLAG_RESAMPLE, r), 0);
	signal_event(a);
	wait_taken(a);
	while (!(outb(vm, 0x20, 0x0a), inb(vm, 0x20) & 1 << 5))
		sleep_ns(MSEC);
	outb(vm, 0x20, 0x0c); /* poll: takes the place of INTA */
	assert_int_equal(inb(vm, 0x20), 0x85);
	assert_int_equal(count(r, 0), 0);
	outb(vm, 0x20, 0x20);
	assert_int_equal(count(r, LIMIT_MS), 1);
	outb(vm, 0x20, 0x0a);
	assert_int_equal(inb(vm, 0x20) & 1 << 5, 0);
	assert_int_equal(irqfd(vm, a, 5, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	close(a);
	close(r);
}

static void test_refusals(void **state)
{
	struct vm *vm = *state;
	int a = event(), b = event(), p[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(irqfd(vm, a, 5, 4, -1), -EINVAL);
	assert_int_equal(irqfd(vm, -1, 5, 0, -1), -EBADF);
	assert_int_equal(irqfd(vm, 1 << 20, 5, 0, -1), -EBADF);
	assert_int_equal(irqfd(vm, p[0], 5, 0, -1), -EINVAL);
	assert_int_equal(irqfd(vm, a, 5, KVM_IRQFD_FLAG_RESAMPLE, -1), -EBADF);
	assert_int_equal(irqfd(vm, a, 5, KVM_IRQFD_FLAG_RESAMPLE, p[0]), -EINVAL);
	assert_int_equal(irqfd(vm, a, 5, 0, -1), 0);
	assert_int_equal(irqfd(vm, a, 5, 0, -1), -EBUSY);
	assert_int_equal(irqfd(vm, a, 6, 0, -1), -EBUSY);
	assert_int_equal(irqfd(vm, b, 5, 0, -1), 0);
	assert_int_equal(irqfd(vm, -1, 5, KVM_IRQFD_FLAG_DEASSIGN, -1), -EBADF);
	assert_int_equal(irqfd(vm, p[0], 5, KVM_IRQFD_FLAG_DEASSIGN, -1), -EINVAL);
	/* Another GSI: not found, which is no error; the right one still works. */
	assert_int_equal(irqfd(vm, a, 6, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	assert_int_equal(irqfd(vm, a, 6, 0, -1), -EBUSY);
	assert_int_equal(irqfd(vm, a, 5, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
	assert_int_equal(irqfd(vm, a, 6, 0, -1), 0);
	close(p[0]);
	close(p[1]);
	close(a);
	close(b);
}

static void test_split(void **state)
{
	struct vm *vm = *state;
	int a = event(), r = event();

	route_msi(vm, 3, 0x33);
	assert_int_equal(irqfd(vm, a, 3, KVM_IRQFD_FLAG_RESAMPLE, r), -EINVAL);
	assert_int_equal(irqfd(vm, a, 3, 0, -1), 0);
	signal_event(a);
	wait_interrupt(&vm->cpu[0]);
	assert_int_equal(take(&vm->cpu[0]), 0x33);
	close(a);
	close(r);
}

/*
 * Devices signal while the VMM assigns and deassigns: what comes after a deassignment stays unread.
 */
struct sender {
	int fd;
	atomic_bool stop;
};

static void *send_always(void *arg)
{
	struct sender *s = arg;

	while (!atomic_load(&s->stop))
		signal_event(s->fd);
	return NULL;
}

static void test_deassign_under_fire(void **state)
{
	struct vm *vm = *state;
	struct sender s = { .fd = event() };
	pthread_t thread;
	int seen = 0;

	redir_write(vm, 5, EDGE(0x51));
	assert_int_equal(pthread_create(&thread, NULL, send_always, &s), 0);
	for (int i = 0; i < 500; i++) {
		assert_int_equal(irqfd(vm, s.fd, 5, 0, -1), 0);
		if (i % 8 == 0)
			wait_interrupt(&vm->cpu[0]);
		assert_int_equal(irqfd(vm, s.fd, 5, KVM_IRQFD_FLAG_DEASSIGN, -1), 0);
		while (take(&vm->cpu[0]) == 0x51)
			seen++;
		assert_int_equal(take(&vm->cpu[0]), -1);
	}
	atomic_store(&s.stop, true);
	pthread_join(thread, NULL);
	assert_true(seen >= 500 / 8);
	signal_event(s.fd);
	assert_true(count(s.fd, 0) > 0);
	close(s.fd);
}

/* ---- watches ---- */

struct tap {
	struct um_watch watch;
	int fd;
	atomic_int calls;
};

static void drain(void *opaque)
{
	struct tap *t = opaque;
	u64 n;

	assert_int_equal(read(t->fd, &n, sizeof(n)), sizeof(n));
	atomic_fetch_add(&t->calls, 1);
}

static void test_watches(void **state)
{
	struct um_timers *set;
	struct tap t[40] = { 0 };

	assert_int_equal(um_timers_create(&set), 0);
	for (unsigned i = 0; i < 40; i++) {
		t[i].fd = event();
		assert_int_equal(um_watch_add(&t[i].watch, set, t[i].fd, drain, &t[i]), 0);
	}
	for (unsigned round = 1; round <= 10; round++) {
		for (unsigned i = 0; i < 40; i++)
			signal_event(t[i].fd);
		for (unsigned i = 0; i < 40; i++)
			while (atomic_load(&t[i].calls) < (int)round)
				sleep_ns(MSEC / 10);
	}
	for (unsigned i = 0; i < 40; i++) {
		um_watch_remove(&t[i].watch);
		um_watch_remove(&t[i].watch); /* no effect */
		signal_event(t[i].fd);
		assert_int_equal(count(t[i].fd, 0), 1);
		assert_int_equal(atomic_load(&t[i].calls), 10);
	}
	/* A bad descriptor leaves the table as it was. */
	assert_int_equal(um_watch_add(&t[0].watch, set, -1, drain, &t[0]), -EBADF);
	assert_int_equal(um_watch_add(&t[0].watch, set, t[0].fd, drain, &t[0]), 0);
	um_watch_remove(&t[0].watch);
	for (unsigned i = 0; i < 40; i++)
		close(t[i].fd);
	um_timers_destroy(set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pulse, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_earlier_signal_and_closed, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_semaphore, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_routing_changes, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_resample, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_deassign_lowers, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_resample_edge, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_resample_pic, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_split, setup_split, teardown),
		cmocka_unit_test_setup_teardown(test_deassign_under_fire, setup1, teardown),
		cmocka_unit_test(test_watches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* Whole machines on a KVM that follows a script: every way in which a run ends. */
#include "fake_kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "vmm/load.h"
#include "vmm/machine.h"
#include "vmm/memory.h"
#include "vmm/pm.h"

/* A Multiboot image with nothing in it but its header, a HLT, and an undefined instruction. */
static char *kernel;

static int group_setup(void **state)
{
	u32 image[16] = { 0x1badb002, 0x10003, 0, 0x200000, 0x200000, 0, 0, 0x200020, 0x0b0ff4 };

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	image[2] = -(image[0] + image[1]);
	kernel = temp_file(image, sizeof(image));
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	unlink(kernel);
	free(kernel);
	return 0;
}

struct result {
	enum stop_reason reason;
	int code;
	char out[256];
};

static struct run_options options(void)
{
	return (struct run_options){
		.kernel = kernel,
		.append = "",
		.mem = 8 << 20,
		.cpus = 1,
	};
}

static struct result run_with(const struct run_options *o, const struct fake_step *script,
			      unsigned n)
{
	struct result r = { 0 };
	int out[2], null = open("/dev/null", O_RDONLY);
	struct machine *m;

	fake_reset(script, n);
	assert_int_equal(pipe(out), 0);
	assert_int_equal(machine_new(&m, &fake_accel, o, null, out[1]), 0);
	r.reason = machine_run(m, &r.code);
	machine_free(m);
	close(out[1]);
	assert_true(read(out[0], r.out, sizeof(r.out) - 1) >= 0);
	close(out[0]);
	close(null);
	assert_int_equal(fake.open_fds, 0);
	assert_int_equal(fake.mismatches, 0);
	return r;
}

#define RUN(o, script) run_with(&(o), script, sizeof(script) / sizeof((script)[0]))

static void test_power_off(void **state)
{
	static const struct fake_step script[] = {
		{ .op = FAKE_IN, .port = 0x3fd, .len = 1, .value = 0x60 },
		{ .op = FAKE_OUT, .port = 0x3f8, .len = 1, .value = 'h' },
		{ .op = FAKE_OUTS, .port = 0x3f8, .text = "ello" },
		{ .op = FAKE_IN, .port = 0x5000, .len = 4, .value = 0xffffffff },
		{ .op = FAKE_OUT, .port = 0xcf8, .len = 4, .value = 0x80000000 },
		{ .op = FAKE_IN, .port = 0xcfc, .len = 4, .value = 0x0d578086 },
		{ .op = FAKE_MMIO_IN, .addr = 0xfec10000, .len = 8, .value = ~0ull },
		{ .op = FAKE_OUT,
		  .port = PM_PORT + PM1_CNT,
		  .len = 2,
		  .value = 0x2000 | PM_S5_TYPE << 10 },
	};
	struct run_options o = options();
	struct result r = RUN(o, script);

	(void)state;
	assert_int_equal(r.reason, STOP_POWEROFF);
	assert_string_equal(r.out, "hello");
	assert_int_equal(fake.irqchips, 1);
	assert_int_equal(fake.pits, 1);
	assert_int_equal(fake.nslots, 1);
	assert_int_equal(fake.slot[0].memory_size, 8 << 20);
	/* As Multiboot wants it. */
	assert_int_equal(fake.regs.rax, 0x2badb002);
	assert_int_equal(fake.regs.rip, 0x200020);
	assert_int_equal(fake.regs.rflags, 2);
	assert_int_equal(fake.sregs.cr0 & 0x80000001, 1);
	assert_int_equal(fake.sregs.cs.db, 1);
	assert_int_equal(fake.sregs.cs.base, 0);
	assert_int_equal(fake.sregs.ds.limit, 0xffffffff);
}

static void test_resets(void **state)
{
	static const struct fake_step keyboard[] = {
		{ .op = FAKE_OUT, .port = 0x64, .len = 1, .value = 0xfe },
	};
	static const struct fake_step port_cf9[] = {
		{ .op = FAKE_OUT, .port = 0xcf9, .len = 1, .value = 6 },
	};
	static const struct fake_step event[] = {
		{ .op = FAKE_EVENT, .value = KVM_SYSTEM_EVENT_RESET },
	};
	struct run_options o = options();

	(void)state;
	assert_int_equal(RUN(o, keyboard).reason, STOP_RESET);
	assert_int_equal(RUN(o, port_cf9).reason, STOP_RESET);
	assert_int_equal(RUN(o, event).reason, STOP_RESET);
}

static void test_deaths(void **state)
{
	static const struct fake_step steps[] = {
		{ .op = FAKE_EXIT, .value = KVM_EXIT_SHUTDOWN },
		{ .op = FAKE_EXIT, .value = KVM_EXIT_INTERNAL_ERROR },
		{ .op = FAKE_EXIT, .value = KVM_EXIT_FAIL_ENTRY },
		{ .op = FAKE_EXIT, .value = KVM_EXIT_EXCEPTION },
		{ .op = FAKE_EXIT, .value = 9999 },
		{ .op = FAKE_EVENT, .value = KVM_SYSTEM_EVENT_CRASH },
	};
	static const struct fake_step fault[] = { { .op = FAKE_ERROR, .value = EFAULT } };
	static const struct fake_step retry[] = {
		{ .op = FAKE_ERROR, .value = EINTR },
		{ .op = FAKE_ERROR, .value = EAGAIN },
		{ .op = FAKE_OUT, .port = 0x64, .len = 1, .value = 0xfe },
	};
	struct run_options o = options();

	(void)state;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		assert_int_equal(run_with(&o, &steps[i], 1).reason, STOP_DIED);
	assert_int_equal(RUN(o, fault).reason, STOP_HOST);
	assert_int_equal(RUN(o, retry).reason, STOP_RESET);
}

/* What the user reads when a guest dies: the reason, registers, and the code at RIP. */
static void test_dump(void **state)
{
	static const struct fake_step script[] = { { .op = FAKE_EXIT,
						     .value = KVM_EXIT_SHUTDOWN } };
	char path[] = "/tmp/umbra-dump-XXXXXX", text[8192] = "";
	int saved = dup(STDERR_FILENO), fd = mkstemp(path);
	struct run_options o = options();

	(void)state;
	fflush(stderr);
	dup2(fd, STDERR_FILENO);
	RUN(o, script);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	close(fd);
	unlink(path);
	assert_non_null(strstr(text, "triple fault"));
	assert_non_null(strstr(text, "rip 0000000000200020"));
	assert_non_null(strstr(text, "hlt"));
	assert_non_null(strstr(text, "ud2"));
}

static void test_debug_exit(void **state)
{
	static const struct fake_step script[] = {
		{ .op = FAKE_OUT, .port = DEBUG_EXIT_PORT, .len = 4, .value = 5 },
		{ .op = FAKE_OUT, .port = 0x64, .len = 1, .value = 0xfe },
	};
	struct run_options o = options();
	struct result r;

	(void)state;
	/* Without the option the port is nobody's. */
	assert_int_equal(RUN(o, script).reason, STOP_RESET);
	o.debug_exit = true;
	r = RUN(o, script);
	assert_int_equal(r.reason, STOP_DEBUG);
	assert_int_equal(r.code, 11);
}

static void *stop_later(void *arg)
{
	usleep(30000);
	board_stop(machine_board(arg), STOP_USER, 0);
	board_stop(machine_board(arg), STOP_DIED, 0); /* too late: the first counts */
	return NULL;
}

/* Several processors that run on and on, stopped from outside. */
static void test_stop(void **state)
{
	static const struct fake_step script[] = { { .op = FAKE_SPIN } };
	int null = open("/dev/null", O_RDWR), code;
	struct run_options o = options();
	struct machine *m;
	pthread_t t;

	(void)state;
	o.cpus = 4;
	for (unsigned i = 0; i < 10; i++) {
		fake_reset(script, 1);
		assert_int_equal(machine_new(&m, &fake_accel, &o, null, null), 0);
		assert_int_equal(fake.nvcpus, 4);
		for (u32 id = 0; id < 4; id++) {
			assert_int_equal(fake.apic_id[id], id);
			assert_int_equal(fake.ncores[id], 4);
		}
		pthread_create(&t, NULL, stop_later, m);
		assert_int_equal(machine_run(m, &code), STOP_USER);
		pthread_join(t, NULL);
		machine_free(m);
		assert_int_equal(fake.open_fds, 0);
	}
	close(null);
}

static void *read_all(void *arg)
{
	char buf[4096];
	ssize_t n;
	size_t total = 0;

	while ((n = read(*(int *)arg, buf, sizeof(buf))) > 0)
		total += (size_t)n;
	return (void *)total;
}

/* The same, once the script has not got on for a while. */
static void *stop_when_stuck(void *arg)
{
	unsigned was;

	do {
		was = __atomic_load_n(&fake.at, __ATOMIC_RELAXED);
		usleep(100000);
	} while (was <= 20 || was != __atomic_load_n(&fake.at, __ATOMIC_RELAXED));
	return stop_later(arg);
}

/* The guest is stuck in output that nobody reads: it can be stopped, and nothing is lost. */
static void test_stop_while_blocked(void **state)
{
	static char text[4000];
	static struct fake_step script[64];
	int out[2], null = open("/dev/null", O_RDONLY), code;
	struct run_options o = options();
	struct machine *m;
	pthread_t t, reader;
	void *total;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	for (unsigned i = 0; i < 64; i++)
		script[i] = (struct fake_step){ .op = FAKE_OUTS, .port = 0x3f8, .text = text };
	fake_reset(script, 64);
	assert_int_equal(pipe(out), 0);
	assert_int_equal(machine_new(&m, &fake_accel, &o, null, out[1]), 0);
	pthread_create(&t, NULL, stop_when_stuck, m);
	assert_int_equal(machine_run(m, &code), STOP_USER);
	pthread_join(t, NULL);
	/* Blocked after what the queue and the pipe hold. */
	assert_true(fake.at > 20 && fake.at < 64);
	pthread_create(&reader, NULL, read_all, &out[0]);
	machine_free(m);
	close(out[1]);
	pthread_join(reader, &total);
	/* All that was written, the exit under way included. */
	assert_int_equal((size_t)total, (size_t)fake.at * (sizeof(text) - 1));
	close(out[0]);
	close(null);
}

static void test_devices_on_pci(void **state)
{
	static u8 image[4096];
	char *disk = temp_file(image, sizeof(image));
	static const struct fake_step script[] = {
		{ .op = FAKE_OUT, .port = 0xcf8, .len = 4, .value = 0x80000800 },
		{ .op = FAKE_IN, .port = 0xcfc, .len = 4, .value = 0x10421af4 },
		{ .op = FAKE_OUT, .port = 0xcf8, .len = 4, .value = 0x80001000 },
		{ .op = FAKE_IN, .port = 0xcfc, .len = 4, .value = 0x10421af4 },
		{ .op = FAKE_OUT, .port = 0xcf8, .len = 4, .value = 0x80001800 },
		{ .op = FAKE_IN, .port = 0xcfc, .len = 4, .value = 0x10441af4 },
		{ .op = FAKE_OUT, .port = 0xcf8, .len = 4, .value = 0x80002000 },
		{ .op = FAKE_IN, .port = 0xcfc, .len = 4, .value = 0x10431af4 },
		{ .op = FAKE_MMIO_IN, .addr = 0xc0002000, .len = 8, .value = 8 },
		{ .op = FAKE_OUT, .port = 0x64, .len = 1, .value = 0xfe },
	};
	struct run_options o = options();

	(void)state;
	o.ndisks = 2;
	o.disk[0] = o.disk[1] = (struct disk_option){ disk, true };
	o.virtio_console = true;
	assert_int_equal(RUN(o, script).reason, STOP_RESET);
	unlink(disk);
	free(disk);
}

/* Whatever is missing: an error, and nothing left behind. */
static void test_failures(void **state)
{
	static const int needed[] = {
		KVM_CAP_IRQCHIP,   KVM_CAP_USER_MEMORY, KVM_CAP_PIT2,
		KVM_CAP_EXT_CPUID, KVM_CAP_SIGNAL_MSI,	KVM_CAP_IMMEDIATE_EXIT
	};
	struct run_options o = options();
	struct machine *m;

	(void)state;
	for (unsigned i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		fake_reset(NULL, 0);
		fake.refuse = needed[i];
		assert_int_equal(machine_new(&m, &fake_accel, &o, 0, 1), -ENOTSUP);
		assert_int_equal(fake.open_fds, 0);
	}
	fake_reset(NULL, 0);
	o.cpus = FAKE_MAX_VCPUS + 1;
	assert_int_equal(machine_new(&m, &fake_accel, &o, 0, 1), -EINVAL);
	o.cpus = 1;
	o.kernel = "/nonexistent";
	assert_int_equal(machine_new(&m, &fake_accel, &o, 0, 1), -ENOENT);
	o.kernel = "/tmp";
	assert_int_equal(machine_new(&m, &fake_accel, &o, 0, 1), -EINVAL);
	o.kernel = kernel;
	o.ndisks = 1;
	o.disk[0] = (struct disk_option){ "/nonexistent", false };
	assert_true(machine_new(&m, &fake_accel, &o, 0, 1) < 0);
	assert_int_equal(fake.open_fds, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_off),
		cmocka_unit_test(test_resets),
		cmocka_unit_test(test_deaths),
		cmocka_unit_test(test_dump),
		cmocka_unit_test(test_debug_exit),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_stop_while_blocked),
		cmocka_unit_test(test_devices_on_pci),
		cmocka_unit_test(test_failures),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

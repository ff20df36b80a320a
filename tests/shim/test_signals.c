// SPDX-License-Identifier: MIT
/* Under the preload library: signals end KVM_RUN, and their handlers run outside of it. */
#include <sched.h>
#include <stdbool.h>

#include "guest.h"

#define LIMIT_MS 50 /* of its CPU time, within which a signal has to end a thread's KVM_RUN */

static struct guest guest;
static volatile sig_atomic_t calls, in_handler_ioctl;
static siginfo_t last;
static sigjmp_buf jump;

/*
 * CPU time that a thread has used: on a busy host, wall time says more about the other processes.
 */
static uint64_t used_us(pthread_t thread)
{
	struct timespec t;
	clockid_t clock;

	pthread_getcpuclockid(thread, &clock);
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void on_signal(int sig)
{
	(void)sig;
	calls++;
}

/* In the kernel, KVM_RUN is over when a handler runs: the vCPU can be used. */
static void on_signal_use(int sig, siginfo_t *si, void *uc)
{
	struct kvm_regs regs;

	(void)sig;
	(void)uc;
	last = *si;
	in_handler_ioctl = ioctl(guest.vcpu, KVM_GET_REGS, &regs) == 0 ? 1 : -errno;
	calls++;
}

static void on_signal_jump(int sig)
{
	siglongjmp(jump, sig);
}

static void install(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	assert_int_equal(sigaction(sig, &sa, NULL), 0);
}

static void install_use(int sig, int flags)
{
	struct sigaction sa = { .sa_sigaction = on_signal_use, .sa_flags = SA_SIGINFO | flags };

	sigemptyset(&sa.sa_mask);
	assert_int_equal(sigaction(sig, &sa, NULL), 0);
}

/*
 * Sends a signal to a thread that is in KVM_RUN: one that came before would not end it.  A busy
 * guest shows by its counter that it runs.  One that halts does not: for it, the signal is sent
 * again if nothing happens, which may be rarely needed.
 */
struct sender {
	pthread_t thread, target;
	int sig, delay_us;
	bool halted, done; /* done: atomic */
	int resent;
	uint64_t sent; /* CPU time of the target; atomic */
};

static uint16_t counter(void)
{
	return *(volatile uint16_t *)(guest.mem + COUNTER);
}

static void *send_thread(void *arg)
{
	struct sender *s = arg;
	uint16_t start = counter();

	while (!s->halted && counter() == start)
		sched_yield();
	usleep((useconds_t)s->delay_us);
	for (s->resent = -1; !__atomic_load_n(&s->done, __ATOMIC_SEQ_CST); s->resent++) {
		__atomic_store_n(&s->sent, used_us(s->target), __ATOMIC_SEQ_CST);
		pthread_kill(s->target, s->sig);
		for (int i = 0; i < 200 && !__atomic_load_n(&s->done, __ATOMIC_SEQ_CST); i++)
			usleep(1000);
		if (!s->halted)
			break;
	}
	return NULL;
}

/* KVM_RUN ends with EINTR, in time.  Returns how often the signal had to be sent again. */
static int run_until_signal(int sig, int delay_us, bool halted)
{
	struct sender s = {
		.target = pthread_self(), .sig = sig, .delay_us = delay_us, .halted = halted
	};
	int before = calls, r, err;
	uint64_t end;

	assert_int_equal(pthread_create(&s.thread, NULL, send_thread, &s), 0);
	r = ioctl(guest.vcpu, KVM_RUN, 0);
	err = errno;
	end = used_us(pthread_self());
	__atomic_store_n(&s.done, true, __ATOMIC_SEQ_CST);
	pthread_join(s.thread, NULL);
	assert_int_equal(r, -1);
	assert_int_equal(err, EINTR);
	assert_int_equal(guest.run->exit_reason, KVM_EXIT_INTR);
	assert_true(calls >= before + 1);
	if (!halted)
		assert_int_equal(calls, before + 1);
	assert_true(end - s.sent < LIMIT_MS * 1000);
	return s.resent > 0 ? s.resent : 0;
}

static void repeat(const uint8_t *code, size_t size)
{
	guest_open(&guest, code, size);
	install(SIGUSR1, on_signal, SA_RESTART);
	for (int i = 0; i < 200; i++)
		run_until_signal(SIGUSR1, i < 20 ? 1000 * (i % 5) : i % 97, false);
	guest_close(&guest);
}

static void test_busy(void **state)
{
	(void)state;
	repeat(code_busy, sizeof(code_busy));
}

/* With interrupt controllers of the library, HLT waits in there. */
static void test_halted(void **state)
{
	struct guest *g = &guest;
	int resent = 0;

	(void)state;
	/* The same as guest_open(), with KVM_CREATE_IRQCHIP before the vCPU. */
	guest_open(g, code_halt, sizeof(code_halt));
	assert_int_equal(ioctl(g->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(g->run->exit_reason, KVM_EXIT_HLT);
	guest_close(g);

	g->kvm = open("/dev/kvm", O_RDWR);
	g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
	assert_int_equal(ioctl(g->vm, KVM_CREATE_IRQCHIP, 0), 0);
	{
		struct kvm_userspace_memory_region mem = { .memory_size = MEM_SIZE };
		struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
		struct kvm_sregs sregs;

		g->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			      -1, 0);
		memcpy(g->mem + CODE, code_halt, sizeof(code_halt));
		mem.userspace_addr = (uintptr_t)g->mem;
		assert_int_equal(ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
		g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
		g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
		assert_ptr_not_equal(g->run, MAP_FAILED);
		ioctl(g->vcpu, KVM_GET_SREGS, &sregs);
		sregs.cs.base = 0;
		sregs.cs.selector = 0;
		assert_int_equal(ioctl(g->vcpu, KVM_SET_SREGS, &sregs), 0);
		assert_int_equal(ioctl(g->vcpu, KVM_SET_REGS, &regs), 0);
	}
	install(SIGUSR1, on_signal, SA_RESTART);
	for (int i = 0; i < 200; i++)
		resent += run_until_signal(SIGUSR1, 1000 * (i % 5) + i % 97, true);
	assert_true(resent < 20); /* of 200 */
	guest_close(g);
}

static void test_handler_uses_vcpu(void **state)
{
	(void)state;
	guest_open(&guest, code_busy, sizeof(code_busy));
	install_use(SIGUSR2, 0);
	for (int i = 0; i < 50; i++) {
		in_handler_ioctl = 0;
		run_until_signal(SIGUSR2, 200 + i, false);
		assert_int_equal(in_handler_ioctl, 1);
		/* It still tells who sent it. */
		assert_int_equal(last.si_signo, SIGUSR2);
		assert_int_equal(last.si_code, SI_TKILL);
		assert_int_equal(last.si_pid, getpid());
	}
	guest_close(&guest);
}

static void test_jump_out(void **state)
{
	struct itimerval t = { .it_value.tv_usec = 3000, .it_interval.tv_usec = 3000 };
	struct itimerval off = { .it_value.tv_usec = 0 };
	struct kvm_regs regs;

	(void)state;
	guest_open(&guest, code_busy, sizeof(code_busy));
	install(SIGALRM, on_signal_jump, 0);
	for (int i = 0; i < 20; i++) {
		if (!sigsetjmp(jump, 1)) {
			setitimer(ITIMER_REAL, &t, NULL);
			for (;;)
				ioctl(guest.vcpu, KVM_RUN, 0);
		}
		setitimer(ITIMER_REAL, &off, NULL);
		assert_int_equal(ioctl(guest.vcpu, KVM_GET_REGS, &regs), 0);
		assert_in_range(regs.rip, CODE, CODE + sizeof(code_busy));
	}
	guest_close(&guest);
}

static void test_alarm(void **state)
{
	struct itimerval t = { .it_value.tv_usec = 2000, .it_interval.tv_usec = 2000 };
	struct itimerval off = { .it_value.tv_usec = 0 };
	int before;

	(void)state;
	guest_open(&guest, code_busy, sizeof(code_busy));
	assert_ptr_not_equal(signal(SIGALRM, on_signal), SIG_ERR);
	assert_ptr_equal(signal(SIGALRM, on_signal), on_signal);
	before = calls;
	setitimer(ITIMER_REAL, &t, NULL);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(ioctl(guest.vcpu, KVM_RUN, 0), -1);
		assert_int_equal(errno, EINTR);
	}
	setitimer(ITIMER_REAL, &off, NULL);
	assert_true(calls - before >= 50);
	guest_close(&guest);
}

/* A blocked signal ends nothing; one without a handler that is ignored by default neither. */
static void test_no_handler(void **state)
{
	sigset_t set, old;
	struct timespec none = { 0 };

	(void)state;
	guest_open(&guest, code_count, sizeof(code_count));
	install(SIGUSR1, on_signal, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	pthread_kill(pthread_self(), SIGUSR1);
	pthread_kill(pthread_self(), SIGWINCH);
	assert_int_equal(guest_out(&guest), 1);
	/* It is still there for sigwait and signalfd. */
	assert_int_equal(sigtimedwait(&set, NULL, &none), SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	guest_close(&guest);
}

/* The thread's mask is the same after KVM_RUN was interrupted as before. */
static void test_mask_restored(void **state)
{
	sigset_t set, before, after;

	(void)state;
	guest_open(&guest, code_busy, sizeof(code_busy));
	install(SIGUSR1, on_signal, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	for (int i = 0; i < 20; i++)
		run_until_signal(SIGUSR1, 100 * i, false);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (int s = 1; s <= SIGRTMAX; s++)
		assert_int_equal(sigismember(&before, s), sigismember(&after, s));
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	guest_close(&guest);
}

/*
 * KVM_SET_SIGNAL_MASK: a signal that the thread blocks and the mask lets through ends KVM_RUN, and
 * stays.
 */
static void test_signal_mask(void **state)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t bits;
	} __attribute__((packed)) mask = { .head.len = 8 };
	struct sender s = {
		.target = pthread_self(), .sig = SIGUSR1, .delay_us = 5000, .done = false
	};
	struct timespec none = { 0 };
	int before = calls;
	sigset_t set;

	(void)state;
	guest_open(&guest, code_busy, sizeof(code_busy));
	install(SIGUSR1, on_signal, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	assert_int_equal(ioctl(guest.vcpu, KVM_SET_SIGNAL_MASK, &mask), 0);
	assert_int_equal(pthread_create(&s.thread, NULL, send_thread, &s), 0);
	assert_int_equal(ioctl(guest.vcpu, KVM_RUN, 0), -1);
	assert_int_equal(errno, EINTR);
	pthread_join(s.thread, NULL);
	assert_int_equal(calls, before);
	assert_int_equal(sigtimedwait(&set, NULL, &none), SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	guest_close(&guest);
}

static void on_fault(int sig, siginfo_t *si, void *uc)
{
	(void)uc;
	last = *si;
	siglongjmp(jump, sig);
}

/* The program's own faults reach its handlers, installed before and after /dev/kvm was opened. */
static void test_faults(void **state)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO }, old;
	static const int signals[] = { SIGSEGV, SIGBUS };
	volatile uint8_t *page;
	sigset_t mask;

	(void)state;
	guest_open(&guest, code_count, sizeof(code_count));
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGHUP);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(sigaction(signals[i], &sa, NULL), 0);
	page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!sigsetjmp(jump, 1)) {
		*page = 1;
		fail();
	}
	assert_ptr_equal(last.si_addr, page);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	assert_int_equal(sigismember(&mask, SIGHUP), 0);
	/* It is told its own handler, with its own flags and mask. */
	assert_int_equal(sigaction(SIGSEGV, NULL, &old), 0);
	assert_ptr_equal(old.sa_sigaction, on_fault);
	assert_int_equal(old.sa_flags & SA_SIGINFO, SA_SIGINFO);
	assert_int_equal(sigismember(&old.sa_mask, SIGHUP), 1);
	/* And the library still has its own: guest memory that the VMM took away. */
	assert_int_equal(mprotect(guest.mem + CODE, 4096, PROT_NONE), 0);
	assert_int_equal(ioctl(guest.vcpu, KVM_RUN, 0), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(mprotect(guest.mem + CODE, 4096, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(guest_out(&guest), 1);
	for (unsigned i = 0; i < 2; i++)
		signal(signals[i], SIG_DFL);
	guest_close(&guest);
}

/* With all signals blocked, faults on the guest's memory end KVM_RUN as well. */
static void test_all_blocked(void **state)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t bits;
	} __attribute__((packed)) mask = { .head.len = 8, .bits = ~0ull };
	sigset_t all, own;

	(void)state;
	guest_open(&guest, code_count, sizeof(code_count));
	sigfillset(&all);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &all, &own), 0);
	assert_int_equal(mprotect(guest.mem + CODE, 4096, PROT_NONE), 0);
	assert_int_equal(ioctl(guest.vcpu, KVM_RUN, 0), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(mprotect(guest.mem + CODE, 4096, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(guest_out(&guest), 1);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &own, NULL), 0);
	/* The same with a mask that is for KVM_RUN alone. */
	assert_int_equal(ioctl(guest.vcpu, KVM_SET_SIGNAL_MASK, &mask), 0);
	assert_int_equal(mprotect(guest.mem + CODE, 4096, PROT_NONE), 0);
	assert_int_equal(ioctl(guest.vcpu, KVM_RUN, 0), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(mprotect(guest.mem + CODE, 4096, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(guest_out(&guest), 2);
	guest_close(&guest);
}

/* Handlers that the program asks for are told as it gave them. */
static void test_told(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART }, old;

	(void)state;
	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, on_signal);
	assert_int_equal(old.sa_flags & (SA_RESTART | SA_SIGINFO), SA_RESTART);
	assert_ptr_equal(signal(SIGUSR1, SIG_IGN), on_signal);
	assert_ptr_equal(signal(SIGUSR1, SIG_DFL), SIG_IGN);
	sa.sa_flags = SA_RESETHAND;
	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
	calls = 0;
	raise(SIGUSR1);
	assert_int_equal(calls, 1);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	errno = 0;
	assert_int_equal(sigaction(SIGKILL, &sa, NULL), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(sigaction(12345, &sa, NULL), -1);
}

/*
 * A thread that is cancelled in KVM_RUN ends when KVM_RUN returns, and the vCPU can be used by
 * others.
 */
static void *cancelled(void *arg)
{
	(void)arg;
	for (;;) {
		ioctl(guest.vcpu, KVM_RUN, 0);
		pthread_testcancel();
	}
	return NULL;
}

static void test_cancel(void **state)
{
	struct kvm_regs regs;
	pthread_t t;
	void *r;

	(void)state;
	guest_open(&guest, code_busy, sizeof(code_busy));
	install(SIGUSR1, on_signal, 0);
	assert_int_equal(pthread_create(&t, NULL, cancelled, NULL), 0);
	while (!counter())
		sched_yield();
	assert_int_equal(pthread_cancel(t), 0);
	pthread_kill(t, SIGUSR1);
	assert_int_equal(pthread_join(t, &r), 0);
	assert_ptr_equal(r, PTHREAD_CANCELED);
	assert_int_equal(ioctl(guest.vcpu, KVM_GET_REGS, &regs), 0);
	guest_close(&guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_halted),
		cmocka_unit_test(test_handler_uses_vcpu),
		cmocka_unit_test(test_jump_out),
		cmocka_unit_test(test_alarm),
		cmocka_unit_test(test_no_handler),
		cmocka_unit_test(test_mask_restored),
		cmocka_unit_test(test_signal_mask),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_all_blocked),
		cmocka_unit_test(test_told),
		cmocka_unit_test(test_cancel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * A static KVM client: device, guests, threads, signals, event descriptors, processes.
 *
 *	client			all of it
 *	client child		what a child of it does: open the device, exit status 7
 */
#include "client.h"

#include <cpuid.h>
#include <sched.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;

static struct guest guest;
static __thread int own =
	1; /* of the thread: tells whether a handler has the right thread-local storage */
static volatile sig_atomic_t calls, handler_own, handler_result;
static sigjmp_buf jump;

/* ---- the device ---- */

static void test_name(void)
{
	struct stat st;
	char name[64], target[64];
	int fd;

	CHECK(access("/dev/kvm", R_OK | W_OK) == 0);
	CHECK(access("/dev/kvm", X_OK) == -1 && errno == EACCES);
	CHECK(stat("/dev/kvm", &st) == 0 && S_ISCHR(st.st_mode));
	CHECK(st.st_rdev == makedev(10, 232));
	fd = open("/dev/../dev/kvm", O_RDWR);
	CHECK(fd >= 0);
	CHECK(fstat(fd, &st) == 0 && st.st_rdev == makedev(10, 232));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	CHECK(readlink(name, target, sizeof(target)) == 8 && !memcmp(target, "/dev/kvm", 8));
	CHECK(close(fd) == 0);
	CHECK(close(fd) == -1 && errno == EBADF);
	/* Wrong addresses are answered, not followed. */
	CHECK(syscall(SYS_openat, AT_FDCWD, (void *)8, O_RDONLY) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_rt_sigaction, SIGUSR1, (void *)8, NULL, 8) == -1 && errno == EFAULT);
}

static void test_guest(void)
{
	int copy;

	guest_open(&guest, code_count, sizeof(code_count));
	for (unsigned i = 1; i < 1000; i++)
		CHECK(guest_out(&guest) == (uint8_t)i);
	copy = dup(guest.vcpu);
	CHECK(copy >= 0);
	CHECK(ioctl(copy, KVM_RUN, 0) == 0 && guest_io(&guest) == (uint8_t)1000);
	CHECK(close(copy) == 0);
	CHECK(ioctl(guest.vcpu, KVM_RUN, 0) == 0);
	guest_close(&guest);
	CHECK(ioctl(guest.vcpu, KVM_RUN, 0) == -1 && errno == EBADF);
}

/*
 * Before and after the site is rewritten: all registers but rax, rcx and r11 stay, with vectors,
 * flags and modes.
 */
static void test_registers(void)
{
	uint64_t in[32], out[32];
	uint32_t mxcsr = 0x1f80 | 0x6000, mxcsr_out, mxcsr_own;
	uint16_t fcw = 0x0f7f, fcw_out, fcw_own;

	guest_open(&guest, code_count, sizeof(code_count));
	asm volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr_own), "=m"(fcw_own));
	for (unsigned i = 1; i < 200; i++) {
		register uint64_t r8 asm("r8"), r9 asm("r9"), r10 asm("r10");
		uint64_t rdi = (uint64_t)guest.vcpu, rsi = KVM_RUN, rdx = 0, flags, kept[3];
		long r;

		for (unsigned j = 0; j < 32; j++)
			in[j] = 0x0101010101010101ull * j + i;
		r8 = 0x8888 + i;
		r9 = 0x9999 + i;
		r10 = 0xaaaa + i;
		asm volatile("ldmxcsr %[mxcsr]; fldcw %[fcw]\n\t"
			     "movdqu 0(%[in]), %%xmm0; movdqu 16(%[in]), %%xmm1\n\t"
			     "movdqu 32(%[in]), %%xmm2; movdqu 48(%[in]), %%xmm6\n\t"
			     "movdqu 64(%[in]), %%xmm8; movdqu 80(%[in]), %%xmm15\n\t"
			     "xor %%r12d, %%r12d; sub $1, %%r12\n\t" /* CF, SF */
			     "mov $16, %%eax\n\t"
			     "syscall\n\t"
			     "pushfq; pop %[flags]\n\t"
			     "movdqu %%xmm0, 0(%[out]); movdqu %%xmm1, 16(%[out])\n\t"
			     "movdqu %%xmm2, 32(%[out]); movdqu %%xmm6, 48(%[out])\n\t"
			     "movdqu %%xmm8, 64(%[out]); movdqu %%xmm15, 80(%[out])\n\t"
			     "stmxcsr %[mxcsr_out]; fnstcw %[fcw_out]\n\t"
			     "ldmxcsr %[mxcsr_own]; fldcw %[fcw_own]"
			     : "=&a"(r), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r8), "+r"(r9),
			       "+r"(r10), [flags] "=&b"(flags), [mxcsr_out] "=m"(mxcsr_out),
			       [fcw_out] "=m"(fcw_out)
			     : [in] "r"(in), [out] "r"(out), [mxcsr] "m"(mxcsr), [fcw] "m"(fcw),
			       [mxcsr_own] "m"(mxcsr_own), [fcw_own] "m"(fcw_own)
			     : "rcx", "r11", "r12", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm6",
			       "xmm8", "xmm15");
		kept[0] = r8; /* before they are used for anything else */
		kept[1] = r9;
		kept[2] = r10;
		CHECK(r == 0 && guest_io(&guest) == (uint8_t)i);
		CHECK(!memcmp(in, out, 96));
		CHECK(rdi == (uint64_t)guest.vcpu && rsi == KVM_RUN && rdx == 0);
		CHECK(kept[0] == 0x8888 + i && kept[1] == 0x9999 + i && kept[2] == 0xaaaa + i);
		CHECK((flags & 0x81) == 0x81 && mxcsr_out == mxcsr && fcw_out == fcw);
	}
	guest_close(&guest);
}

/* ---- threads ---- */

static void *run_thread(void *arg)
{
	struct guest *g = arg;

	own = 2;
	for (unsigned i = 1; i < 3000; i++)
		CHECK(guest_out(g) == (uint8_t)i);
	CHECK(own == 2);
	return arg;
}

static void test_threads(void)
{
	struct guest g[3];
	pthread_t t[3];
	void *r;

	guest_vm(&g[0], false);
	for (int i = 0; i < 3; i++) {
		g[i] = g[0];
		guest_vcpu(&g[i], i, code_count, sizeof(code_count), 0);
	}
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&t[i], NULL, run_thread, &g[i]) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_join(t[i], &r) == 0 && r == &g[i]);
	CHECK(own == 1);
	for (int i = 1; i < 3; i++) {
		CHECK(munmap(g[i].run, g[i].run_size) == 0);
		CHECK(close(g[i].vcpu) == 0);
	}
	guest_close(&g[0]);
}

static void *short_thread(void *arg)
{
	void *p = malloc(100000);

	memset(p, 1, 100000);
	free(p);
	return arg;
}

/* More of them, one after another, than there is room for at a time. */
static void test_many_threads(void)
{
	for (long i = 0; i < 1500; i++) {
		pthread_t t;
		void *r;

		CHECK(pthread_create(&t, NULL, short_thread, (void *)i) == 0);
		CHECK(pthread_join(t, &r) == 0 && r == (void *)i);
	}
}

/* ---- signals ---- */

static void on_signal(int sig)
{
	(void)sig;
	handler_own = own;
	calls++;
}

static void on_signal_use(int sig, siginfo_t *si, void *uc)
{
	struct kvm_regs regs;

	(void)sig;
	(void)uc;
	handler_own = own;
	handler_result = ioctl(guest.vcpu, KVM_GET_REGS, &regs) == 0 && si->si_pid == getpid();
	calls++;
}

static void on_signal_jump(int sig)
{
	siglongjmp(jump, sig);
}

static void install(int sig, void *fn, int flags)
{
	struct sigaction sa = { .sa_flags = flags };

	if (flags & SA_SIGINFO)
		sa.sa_sigaction = fn;
	else
		sa.sa_handler = fn;
	sigemptyset(&sa.sa_mask);
	CHECK(sigaction(sig, &sa, NULL) == 0);
}

struct sender {
	pthread_t thread, target;
	int sig, delay_us;
};

static void *send_thread(void *arg)
{
	struct sender *s = arg;
	unsigned start = counter(&guest);

	own = 3;
	while (counter(&guest) == start)
		sched_yield();
	usleep((useconds_t)s->delay_us);
	CHECK(pthread_kill(s->target, s->sig) == 0);
	return NULL;
}

static void run_until_signal(int sig, int delay_us)
{
	struct sender s = { .target = pthread_self(), .sig = sig, .delay_us = delay_us };
	int before = calls;

	handler_own = 0;
	CHECK(pthread_create(&s.thread, NULL, send_thread, &s) == 0);
	CHECK(ioctl(guest.vcpu, KVM_RUN, 0) == -1 && errno == EINTR);
	CHECK(guest.run->exit_reason == KVM_EXIT_INTR);
	CHECK(calls == before + 1 && handler_own == 1);
	CHECK(pthread_join(s.thread, NULL) == 0);
}

static void test_signals(void)
{
	sigset_t before, after;

	guest_open(&guest, code_busy, sizeof(code_busy));
	install(SIGUSR1, on_signal, SA_RESTART);
	install(SIGUSR2, on_signal_use, SA_SIGINFO);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	for (int i = 0; i < 100; i++) {
		run_until_signal(SIGUSR1, i % 97);
		handler_result = 0;
		run_until_signal(SIGUSR2, i % 89);
		CHECK(handler_result == 1);
	}
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	CHECK(!memcmp(&before, &after, 8));
	guest_close(&guest);
}

static void test_jump(void)
{
	struct itimerval t = { .it_value.tv_usec = 3000, .it_interval.tv_usec = 3000 },
			 off = { .it_value.tv_usec = 0 };

	guest_open(&guest, code_busy, sizeof(code_busy));
	install(SIGALRM, on_signal_jump, 0);
	for (int i = 0; i < 20; i++) {
		struct kvm_regs regs;

		if (!sigsetjmp(jump, 1)) {
			CHECK(setitimer(ITIMER_REAL, &t, NULL) == 0);
			for (;;)
				ioctl(guest.vcpu, KVM_RUN, 0);
		}
		CHECK(setitimer(ITIMER_REAL, &off, NULL) == 0);
		CHECK(ioctl(guest.vcpu, KVM_GET_REGS, &regs) == 0);
		CHECK(regs.rip >= CODE && regs.rip < CODE + sizeof(code_busy));
	}
	guest_close(&guest);
}

/* On a signal stack of its own, a handler runs a guest, and is interrupted itself. */
static void on_stack(int sig)
{
	stack_t ss;

	(void)sig;
	CHECK(sigaltstack(NULL, &ss) == 0 && (ss.ss_flags & SS_ONSTACK));
	handler_result = (int)guest_out(&guest);
	kill(getpid(), SIGUSR1);
	handler_result += (int)guest_out(&guest) << 8;
}

static void test_altstack(void)
{
	stack_t ss = { .ss_size = 65536 }, old;

	CHECK(sigaltstack(NULL, &old) == 0 && old.ss_flags == SS_DISABLE);
	ss.ss_sp = malloc(ss.ss_size);
	CHECK(sigaltstack(&ss, NULL) == 0);
	CHECK(sigaltstack(NULL, &old) == 0 && old.ss_sp == ss.ss_sp && old.ss_flags == 0);
	guest_open(&guest, code_count, sizeof(code_count));
	install(SIGUSR1, on_signal, SA_ONSTACK);
	install(SIGUSR2, on_stack, SA_ONSTACK);
	for (unsigned i = 0; i < 100; i++) {
		CHECK(guest_out(&guest) == (uint8_t)(3 * i + 1));
		calls = 0;
		raise(SIGUSR2);
		CHECK((uint8_t)handler_result == (uint8_t)(3 * i + 2) && calls == 1);
		CHECK((uint8_t)(handler_result >> 8) == (uint8_t)(3 * i + 3));
	}
	guest_close(&guest);
	ss.ss_flags = SS_DISABLE;
	CHECK(sigaltstack(&ss, NULL) == 0);
	CHECK(sigaltstack(NULL, &old) == 0 && old.ss_flags == SS_DISABLE);
	free(ss.ss_sp);
}

/*
 * With all signals blocked the kernel can still be called; masks and handlers are told as they were
 * given.
 */
static void test_masks(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESETHAND }, old;
	struct timespec now = { 0 };
	sigset_t all, was, told;

	sigfillset(&all);
	CHECK(sigprocmask(SIG_SETMASK, &all, &was) == 0);
	CHECK(access("/dev/kvm", F_OK) == 0);
	CHECK(sigprocmask(SIG_SETMASK, NULL, &told) == 0 && sigismember(&told, SIGUSR1) == 1);
	install(SIGUSR1, on_signal, 0);
	calls = 0;
	raise(SIGUSR1);
	CHECK(calls == 0 && pselect(0, NULL, NULL, NULL, &now, &all) == 0);
	CHECK(pselect(0, NULL, NULL, NULL, NULL, &was) == -1 && errno == EINTR && calls == 1);
	CHECK(sigprocmask(SIG_SETMASK, &was, NULL) == 0);
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGHUP);
	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0 && sigaction(SIGUSR1, NULL, &old) == 0);
	CHECK(old.sa_handler == on_signal && (old.sa_flags & SA_RESETHAND));
	CHECK(sigismember(&old.sa_mask, SIGHUP) == 1 && sigismember(&old.sa_mask, SIGINT) == 0);
	raise(SIGUSR1);
	CHECK(calls == 2 && sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
}

static void on_fault(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)uc;
	CHECK((uintptr_t)si->si_addr == 16);
	siglongjmp(jump, 1);
}

/* Faults: the program's own go to its handler, those on the guest's memory end KVM_RUN. */
static void test_faults(void)
{
	volatile int *volatile bad = (int *)16;

	install(SIGSEGV, on_fault, SA_SIGINFO);
	guest_open(&guest, code_count, sizeof(code_count));
	for (int i = 0; i < 10; i++) {
		if (!sigsetjmp(jump, 1)) {
			*bad = 1;
			CHECK(false);
		}
		CHECK(mprotect(guest.mem + CODE, 4096, PROT_NONE) == 0);
		CHECK(ioctl(guest.vcpu, KVM_RUN, 0) == -1 && errno == EFAULT);
		CHECK(mprotect(guest.mem + CODE, 4096, PROT_READ | PROT_WRITE) == 0);
		CHECK(guest_out(&guest) == (unsigned)i + 1);
	}
	guest_close(&guest);
	signal(SIGSEGV, SIG_DFL);
}

/* ---- event descriptors ---- */

static void *irq_thread(void *arg)
{
	CHECK(guest_out(arg) == 0x5a);
	return NULL;
}

static void test_eventfds(void)
{
	/* The 8259 with vectors from 0x20 on: ICW1 to ICW4, and nothing masked. */
	static const uint8_t code[] = { 0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, 0xb0, 0x04,
					0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, 0xb0, 0x00, 0xe6, 0x21,
					/* out 0x30, al (ioeventfd); sti; hlt; jmp back */
					0xe6, 0x30, 0xfb, 0xf4, 0xeb, 0xfd };
	/* mov al, 0x5a; out 0x11, al; iret */
	static const uint8_t handler[] = { 0xb0, 0x5a, 0xe6, 0x11, 0xcf };
	struct kvm_ioeventfd io = { .addr = 0x30, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO };
	struct kvm_irqfd irq = { .gsi = 5 };
	uint64_t value;
	pthread_t t;

	guest_vm(&guest, true);
	guest_vcpu(&guest, 0, code, sizeof(code), 0);
	memcpy(guest.mem + 0x2000, handler, sizeof(handler));
	*(uint32_t *)(guest.mem + 0x25 * 4) = 0x2000;
	io.fd = eventfd(0, 0);
	irq.fd = (uint32_t)eventfd(0, EFD_NONBLOCK);
	CHECK(ioctl(guest.vm, KVM_IOEVENTFD, &io) == 0);
	CHECK(ioctl(guest.vm, KVM_IRQFD, &irq) == 0);
	CHECK(pthread_create(&t, NULL, irq_thread, &guest) == 0);
	CHECK(read(io.fd, &value, sizeof(value)) == sizeof(value) && value == 1);
	value = 1;
	CHECK(write((int)irq.fd, &value, sizeof(value)) == sizeof(value));
	CHECK(pthread_join(t, NULL) == 0);
	close(io.fd);
	close((int)irq.fd);
	guest_close(&guest);
}

/* ---- processes ---- */

static int wait_for(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_processes(void)
{
	char *child[] = { "/proc/self/exe", "child", NULL }, *sh[] = { "sh", "-c", "exit 5", NULL };
	pid_t pid;

	guest_open(&guest, code_count, sizeof(code_count));
	pid = fork();
	if (!pid) {
		/* As in the kernel: another process may not use the parent's VM. */
		bool ok = ioctl(guest.vcpu, KVM_RUN, 0) == -1 && errno == EIO;

		guest_open(&guest, code_count, sizeof(code_count));
		_exit(ok && guest_out(&guest) == 1 ? 6 : 1);
	}
	CHECK(wait_for(pid) == 6);
	/* Both call the kernel from places that neither has called it from before. */
	pid = fork();
	CHECK(getppid() > 0);
	if (!pid)
		_exit(getsid(0) > 0 && sched_yield() == 0 ? 8 : 1);
	CHECK(getpgid(0) > 0 && getuid() == geteuid());
	CHECK(wait_for(pid) == 8);
	pid = vfork();
	if (!pid)
		_exit(9);
	CHECK(wait_for(pid) == 9);
	CHECK(posix_spawn(&pid, child[0], NULL, NULL, child, environ) == 0 && wait_for(pid) == 7);
	CHECK(posix_spawn(&pid, "/bin/sh", NULL, NULL, sh, environ) == 0 && wait_for(pid) == 5);
	CHECK(posix_spawn(&pid, "/nonexistent", NULL, NULL, sh, environ) == ENOENT);
	/* Children that the preload reaches. */
	CHECK(WEXITSTATUS(system(
		      "test -c /dev/kvm && grep -qwE '^flags.*(vmx|svm)' /proc/cpuinfo")) == 0);
	CHECK(guest_out(&guest) == 1);
	guest_close(&guest);
}

/* ---- memory, the CPU ---- */

static uint8_t *set_break(uint8_t *to)
{
	return (uint8_t *)syscall(SYS_brk, to);
}

static void test_break(void)
{
	uint8_t *start = set_break(NULL);

	CHECK(set_break(start + 0x20000) == start + 0x20000);
	memset(start, 1, 0x20000);
	CHECK(set_break(start) == start);
	CHECK(set_break(start + 0x20000) == start + 0x20000 && start[0x1ffff] == 0);
	CHECK(set_break(start) == start);
	CHECK(set_break((uint8_t *)8) == start);
}

static void test_cpuid(void)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[256];
	} supported = { .head.nent = 256 };
	uint32_t a, b, c, d, max;
	bool vmx, svm, amd, found = false;
	char line[8192];
	FILE *f;

	__cpuid(0, max, b, c, d);
	amd = b == 0x68747541 || b == 0x6f677948;
	__cpuid(1, a, b, c, d);
	vmx = c & 1u << 5;
	__cpuid(0x80000001, a, b, c, d);
	svm = c & 1u << 2;
	CHECK(amd ? svm : vmx);
	__cpuid(7, a, b, c, d);
	CHECK(max >= 7);
	f = fopen("/proc/cpuinfo", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		found |= !strncmp(line, "flags", 5) && strstr(line, amd ? " svm" : " vmx");
	CHECK(found && fclose(f) == 0);
	/* Guests have neither as long as nesting is not there. */
	guest_open(&guest, code_count, sizeof(code_count));
	CHECK(ioctl(guest.kvm, KVM_GET_SUPPORTED_CPUID, &supported) == 0);
	for (unsigned i = 0; i < supported.head.nent; i++) {
		if (supported.e[i].function == 1)
			CHECK(!(supported.e[i].ecx & 1u << 5));
	}
	guest_close(&guest);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} tests[] = {
		{ "name", test_name },
		{ "guest", test_guest },
		{ "registers", test_registers },
		{ "threads", test_threads },
		{ "many threads", test_many_threads },
		{ "signals", test_signals },
		{ "jump", test_jump },
		{ "altstack", test_altstack },
		{ "masks", test_masks },
		{ "faults", test_faults },
		{ "eventfds", test_eventfds },
		{ "processes", test_processes },
		{ "break", test_break },
		{ "cpuid", test_cpuid },
	};

	if (argc > 1 && !strcmp(argv[1], "child")) {
		guest_open(&guest, code_count, sizeof(code_count));
		return guest_out(&guest) == 1 ? 7 : 1;
	}
	alarm(100);
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (argc > 1 && strcmp(argv[1], tests[i].name) != 0)
			continue;
		tests[i].fn();
		printf("ok %s\n", tests[i].name);
		fflush(stdout);
	}
	return 0;
}

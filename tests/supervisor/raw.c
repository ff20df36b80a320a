// SPDX-License-Identifier: MIT
/*
 * A KVM client without any library: system call instructions in several forms, no thread-local
 * storage, a second thread by clone(2) on a stack of its own, and a signal handler with a restorer
 * of its own.  Exit status 0 if all is well, else the number of the line.
 */
#include <linux/futex.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <stddef.h>
#include <stdint.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/mman.h>

#define CHECK(cond)                            \
	do {                                   \
		if (!(cond))                   \
			quit(__LINE__ & 0xff); \
	} while (0)

#define RUNS 2000

/* The number comes in a register: no immediate in front of the instruction. */
static long call(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
	long r;

	asm volatile("syscall"
		     : "=a"(r)
		     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return r;
}

/* The common form, which the supervisor rewrites. */
static long ioctl_immediate(long fd, unsigned long request, const void *arg)
{
	long r;

	asm volatile("mov $16, %%eax\n\tsyscall"
		     : "=a"(r)
		     : "D"(fd), "S"(request), "d"(arg)
		     : "rcx", "r11", "memory");
	return r;
}

/* Others jump to the instruction itself: it has to stay one. */
static long ioctl_jump(long fd, unsigned long request, const void *arg)
{
	long r;

	asm volatile("mov $8, %%eax\n\t"
		     "add %%eax, %%eax\n\t"
		     "jmp 1f\n\t"
		     "mov $16, %%eax\n"
		     "1:\tsyscall"
		     : "=a"(r)
		     : "D"(fd), "S"(request), "d"(arg)
		     : "rcx", "r11", "memory");
	return r;
}

static _Noreturn void quit(int status)
{
	for (;;)
		call(__NR_exit_group, status, 0, 0, 0, 0, 0);
}

static long vcpu;
static struct kvm_run *run;
static volatile int signals, thread_done, child_tid;
static uint8_t stack[65536] __attribute__((aligned(16)));

static unsigned io(void)
{
	CHECK(run->exit_reason == KVM_EXIT_IO);
	return ((uint8_t *)run)[run->io.data_offset];
}

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

void restorer(void);
asm(".globl restorer\nrestorer:\n\tmov $15, %eax\n\tsyscall");

struct action {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

/* clone(2) returns twice, once on another stack: what the child does is written here. */
static long start_thread(void (*fn)(void), uint8_t *top)
{
	long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
		     CLONE_SYSVSEM | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID;
	register long r10 asm("r10") = (long)&child_tid, r8 asm("r8") = 0;
	register void (*r12)(void) asm("r12") = fn;
	long r;

	asm volatile("syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jnz 1f\n\t"
		     "call *%%r12\n\t"
		     "mov $60, %%eax\n\t"
		     "xor %%edi, %%edi\n\t"
		     "syscall\n"
		     "1:"
		     : "=a"(r)
		     : "a"(__NR_clone), "D"(flags), "S"(top), "d"(&child_tid), "r"(r10), "r"(r8),
		       "r"(r12)
		     : "rcx", "r11", "memory");
	return r;
}

static void thread(void)
{
	for (unsigned i = 1; i < RUNS; i++) {
		CHECK(ioctl_immediate(vcpu, KVM_RUN, NULL) == 0);
		CHECK(io() == (uint8_t)i);
	}
	thread_done = 1;
}

static void wait_for_thread(void)
{
	int tid;

	while ((tid = child_tid))
		call(__NR_futex, (long)&child_tid, FUTEX_WAIT, tid, 0, 0, 0);
	CHECK(thread_done);
}

static void test(void)
{
	/* inc al; out 0x10, al; jmp back */
	static const uint8_t code[] = { 0xfe, 0xc0, 0xe6, 0x10, 0xeb, 0xfa };
	static struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
	struct kvm_userspace_memory_region mem = { .memory_size = 0x10000 };
	struct action act = { .handler = on_signal, .flags = 0x04000000, .restorer = restorer };
	long kvm = call(__NR_open, (long)"/dev/kvm", 2, 0, 0, 0, 0), vm, size;
	uint8_t *p;

	CHECK(kvm >= 0);
	vm = call(__NR_ioctl, kvm, KVM_CREATE_VM, 0, 0, 0, 0);
	CHECK(vm >= 0);
	p = (uint8_t *)call(__NR_mmap, 0, 0x10000, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK((unsigned long)p < -4095ul);
	for (unsigned i = 0; i < sizeof(code); i++)
		p[0x1000 + i] = code[i];
	mem.userspace_addr = (uintptr_t)p;
	CHECK(ioctl_immediate(vm, KVM_SET_USER_MEMORY_REGION, &mem) == 0);
	vcpu = ioctl_immediate(vm, KVM_CREATE_VCPU, NULL);
	CHECK(vcpu >= 0);
	size = ioctl_immediate(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	run = (void *)call(__NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	CHECK((unsigned long)run < -4095ul);
	CHECK(ioctl_immediate(vcpu, KVM_GET_SREGS, &sregs) == 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	CHECK(ioctl_immediate(vcpu, KVM_SET_SREGS, &sregs) == 0);
	CHECK(ioctl_immediate(vcpu, KVM_SET_REGS, &regs) == 0);
	CHECK(start_thread(thread, stack + sizeof(stack)) > 0);
	wait_for_thread();
	for (unsigned i = 0; i < RUNS; i++) {
		CHECK((i & 1 ? ioctl_jump(vcpu, KVM_RUN, NULL)
			     : call(__NR_ioctl, vcpu, KVM_RUN, 0, 0, 0, 0)) == 0);
		CHECK(io() == (uint8_t)(RUNS + i));
	}
	CHECK(call(__NR_rt_sigaction, 10, (long)&act, 0, 8, 0, 0) == 0);
	for (int i = 0; i < 100; i++)
		call(__NR_kill, call(__NR_getpid, 0, 0, 0, 0, 0, 0), 10, 0, 0, 0, 0);
	CHECK(signals == 100);
	CHECK(call(__NR_close, vcpu, 0, 0, 0, 0, 0) == 0 &&
	      call(__NR_close, vm, 0, 0, 0, 0, 0) == 0);
}

void start(void);

__attribute__((force_align_arg_pointer)) void start(void)
{
	test();
	quit(0);
}

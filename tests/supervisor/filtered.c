// SPDX-License-Identifier: MIT
/*
 * A KVM client whose vCPU thread lets itself make very few system calls, as careful VMMs do, and is
 * killed for all others.  The list is what such a thread needs on the kernel's KVM, and none of
 * what a KVM_RUN that is a function may need: no thread, no eventfd, no executable mapping, no
 * absolute timer.  Under it the guest does everything for the first time: it writes all of its
 * memory, uses vector and x87 instructions, programs timers, sleeps and is waked; and signals end
 * KVM_RUN.
 *
 * With ALLOW_MALLOC, also what the C library's malloc() does in a new thread, for when libumbra
 * shares it.
 */
#include "client.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define KICKS 10

static struct guest guest;
static volatile sig_atomic_t calls;
static volatile int outs, done;

static struct sock_filter code[256];
static unsigned length;

static void add(struct sock_filter f)
{
	CHECK(length < 256);
	code[length++] = f;
}

static void load(size_t offset)
{
	add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void allow(long nr)
{
	load(offsetof(struct seccomp_data, nr));
	add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1));
	add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

/* If (argument @arg & @mask) == @value. */
static void allow_if(long nr, unsigned arg, uint32_t mask, uint32_t value)
{
	load(offsetof(struct seccomp_data, nr));
	add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 4));
	load(offsetof(struct seccomp_data, args) + 8 * arg);
	add((struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask));
	add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
	add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

static void install_filter(bool by_prctl)
{
	struct sock_fprog prog;

	allow(SYS_exit);
	allow(SYS_exit_group);
	allow(SYS_write);
	allow(SYS_close);
	allow(SYS_munmap);
	allow(SYS_rt_sigreturn);
	allow(SYS_rt_sigprocmask);
	allow(SYS_sigaltstack);
	allow_if(SYS_futex, 1, ~0u, FUTEX_WAIT);
	allow_if(SYS_futex, 1, ~0u, FUTEX_WAKE);
	allow_if(SYS_futex, 1, ~0u, FUTEX_WAIT_PRIVATE);
	allow_if(SYS_futex, 1, ~0u, FUTEX_WAKE_PRIVATE);
	allow_if(SYS_madvise, 2, ~0u, MADV_DONTNEED);
	allow_if(SYS_timerfd_settime, 1, ~0u, 0);
	allow_if(SYS_ioctl, 1, ~0u, KVM_RUN);
	allow_if(SYS_ioctl, 1, ~0u, KVM_GET_REGS);
#ifdef ALLOW_MALLOC
	allow_if(SYS_mmap, 2, PROT_EXEC, 0);
	allow_if(SYS_mprotect, 2, PROT_EXEC, 0);
	allow(SYS_brk);
	allow(SYS_set_robust_list); /* and what its threads do */
	allow(SYS_rseq);
#endif
	add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	prog.filter = code;
	prog.len = (unsigned short)length;
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (by_prctl)
		CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0);
	else
		CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0);
}

static void on_signal(int sig)
{
	(void)sig;
	calls++;
}

/* Each OUT is one step of the guest; the value says which. */
static void *vcpu_thread(void *by_prctl)
{
	struct kvm_regs regs;

	install_filter(by_prctl != NULL);
	for (unsigned ticks = 0, next = 1; ticks < 20 || calls < KICKS;) {
		int r = ioctl(guest.vcpu, KVM_RUN, 0);
		unsigned value;

		if (r < 0) {
			CHECK(errno == EINTR);
			continue;
		}
		value = guest_io(&guest);
		if (value == 0x20)
			ticks++;
		else
			CHECK(value == next++);
		outs++;
	}
	CHECK(ioctl(guest.vcpu, KVM_GET_REGS, &regs) == 0);
	done = 1;
	return NULL;
}

/*
 * 16-bit code, assembled here: `main` counts its steps on port 0x10, `tick` is the timer's
 * interrupt.
 */
asm(".pushsection .rodata\n"
    ".code16\n"
    "guest_main:\n"
    "	mov $1, %al; out %al, $0x10\n"
    /* all memory behind the code */
    "	mov $0x3000, %di; mov $0x4000, %cx; xor %al, %al; cld; rep stosb\n"
    "	mov $0x1000, %ax; mov %ax, %es; xor %di, %di; mov $0xffff, %cx; rep stosb\n"
    "	mov $2, %al; out %al, $0x10\n"
    /* vectors and x87, which need code that is made at the first use */
    "	movups (0x3000), %xmm1; paddd %xmm1, %xmm2; mulps %xmm2, %xmm3; pshufd $0x1b, %xmm3, "
    "%xmm4\n"
    "	fld1; fldpi; fmulp; fstpl (0x3000); sqrtps %xmm4, %xmm5; crc32l %eax, %ebx\n"
    "	mov $3, %al; out %al, $0x10\n"
    /* the 8259, the 8254's channel 0 at 1 kHz */
    "	mov $0x11, %al; out %al, $0x20; mov $0x20, %al; out %al, $0x21\n"
    "	mov $4, %al; out %al, $0x21; mov $1, %al; out %al, $0x21; mov $0xfe, %al; out %al, $0x21\n"
    "	mov $0x34, %al; out %al, $0x43; mov $0xa9, %al; out %al, $0x40; mov $4, %al; out %al, "
    "$0x40\n"
    "	mov $4, %al; out %al, $0x10\n"
    "	sti\n"
    "1:	hlt; jmp 1b\n"
    "guest_tick:\n"
    "	push %ax; mov $0x20, %al; out %al, $0x20; out %al, $0x11\n"
    /* one shot after another: armed by the vCPU */
    "	mov $0x30, %al; out %al, $0x43; mov $0xa9, %al; out %al, $0x40; mov $4, %al; out %al, "
    "$0x40\n"
    "	pop %ax; iret\n"
    "guest_end:\n"
    ".code64\n"
    ".popsection");
extern const uint8_t guest_main[], guest_tick[], guest_end[];

static void test(bool by_prctl)
{
	struct kvm_userspace_memory_region more = { .slot = 1,
						    .guest_phys_addr = 0x10000,
						    .memory_size = 0x10000 };
	struct kvm_pit_config pit = { 0 };
	struct kvm_sregs sregs;
	pthread_t t;

	outs = 0;
	done = 0;
	calls = 0;
	length = 0;
	guest_vm(&guest, true);
	CHECK(ioctl(guest.vm, KVM_CREATE_PIT2, &pit) == 0);
	more.userspace_addr = (uintptr_t)mmap(NULL, 0x10000, PROT_READ | PROT_WRITE,
					      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(ioctl(guest.vm, KVM_SET_USER_MEMORY_REGION, &more) == 0);
	guest_vcpu(&guest, 0, guest_main, (size_t)(guest_end - guest_main), 0);
	*(uint32_t *)(guest.mem + 0x20 * 4) = CODE + (uint32_t)(guest_tick - guest_main);
	CHECK(ioctl(guest.vcpu, KVM_GET_SREGS, &sregs) == 0);
	sregs.cr4 |= 0x600; /* OSFXSR, OSXMMEXCPT */
	CHECK(ioctl(guest.vcpu, KVM_SET_SREGS, &sregs) == 0);
	CHECK(pthread_create(&t, NULL, vcpu_thread, by_prctl ? &guest : NULL) == 0);
	while (outs < 5)
		sched_yield();
	while (!done) {
		pthread_kill(t, SIGUSR1);
		usleep(300);
	}
	CHECK(pthread_join(t, NULL) == 0);
	CHECK(calls >= KICKS);
	guest_close(&guest);
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
	alarm(60);
	test(true);
	test(false);
	return 0;
}

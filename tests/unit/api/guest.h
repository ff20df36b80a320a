/* SPDX-License-Identifier: MIT */
/*
 * For tests of the API: a VM with one page-aligned piece of memory at 0 and one vCPU in real mode,
 * and helpers that fail the test when the API says no.
 */
#ifndef TEST_API_GUEST_H
#define TEST_API_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "umbra.h"

#define GUEST_MEM  0x10000
#define GUEST_CODE 0x1000

struct guest {
	int sys, vm, vcpu;
	uint8_t *mem;
	struct kvm_run *run;
};

/* The same as umbra_ioctl, with an integer or a pointer. */
#define io(fd, request, arg) umbra_ioctl(fd, request, (void *)(uintptr_t)(arg))

/* umbra_ioctl must fail with this errno. */
#define assert_errno(err, call)               \
	do {                                  \
		errno = 0;                    \
		assert_int_equal(call, -1);   \
		assert_int_equal(errno, err); \
	} while (0)

/*
 * cmocka takes over SIGSEGV and SIGBUS for each test, and the library needs them: call this in
 * main(), after which guest_open_vm() puts the library's handlers back.
 */
static struct sigaction library_segv, library_bus;

static inline void guest_save_signals(void)
{
	umbra_close(umbra_open());
	sigaction(SIGSEGV, NULL, &library_segv);
	sigaction(SIGBUS, NULL, &library_bus);
}

enum guest_chip { NO_CHIP, FULL_CHIP, SPLIT_CHIP };

static inline void guest_open_vm(struct guest *g, enum guest_chip chip)
{
	sigaction(SIGSEGV, &library_segv, NULL);
	sigaction(SIGBUS, &library_bus, NULL);
	memset(g, 0, sizeof(*g));
	g->vcpu = -1;
	g->sys = umbra_open();
	assert_true(g->sys >= 0);
	g->vm = io(g->sys, KVM_CREATE_VM, 0);
	assert_true(g->vm >= 0);
	if (chip == FULL_CHIP) {
		assert_int_equal(io(g->vm, KVM_CREATE_IRQCHIP, 0), 0);
	} else if (chip == SPLIT_CHIP) {
		struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

		assert_int_equal(io(g->vm, KVM_ENABLE_CAP, &cap), 0);
	}
}

static inline void guest_set_cpuid(int sys, int vcpu)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[256];
	} c = { .head = { .nent = 256 } };

	assert_int_equal(io(sys, KVM_GET_SUPPORTED_CPUID, &c), 0);
	assert_int_equal(io(vcpu, KVM_SET_CPUID2, &c), 0);
}

/* @code at GUEST_CODE, run in real mode with all segments at 0 and the stack below 0x8000. */
static inline void guest_start(struct guest *g, enum guest_chip chip, const void *code, size_t len)
{
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_MEM };
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2, .rsp = 0x8000 };

	guest_open_vm(g, chip);
	g->mem = mmap(NULL, GUEST_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(g->mem, MAP_FAILED);
	memcpy(g->mem + GUEST_CODE, code, len);
	region.userspace_addr = (uintptr_t)g->mem;
	assert_int_equal(io(g->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
	g->vcpu = io(g->vm, KVM_CREATE_VCPU, 0);
	assert_true(g->vcpu >= 0);
	g->run = umbra_mmap(NULL, (size_t)io(g->sys, KVM_GET_VCPU_MMAP_SIZE, 0),
			    PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	assert_ptr_not_equal(g->run, MAP_FAILED);
	guest_set_cpuid(g->sys, g->vcpu);
	assert_int_equal(io(g->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	assert_int_equal(io(g->vcpu, KVM_SET_SREGS, &sregs), 0);
	assert_int_equal(io(g->vcpu, KVM_SET_REGS, &regs), 0);
}

static inline void guest_stop(struct guest *g)
{
	if (g->run)
		munmap(g->run, (size_t)io(g->sys, KVM_GET_VCPU_MMAP_SIZE, 0));
	if (g->vcpu >= 0)
		assert_int_equal(umbra_close(g->vcpu), 0);
	assert_int_equal(umbra_close(g->vm), 0);
	assert_int_equal(umbra_close(g->sys), 0);
	if (g->mem)
		munmap(g->mem, GUEST_MEM);
}

/* KVM_RUN must return 0 with this exit reason. */
#define assert_exit(g, reason)                                   \
	do {                                                     \
		assert_int_equal(io((g)->vcpu, KVM_RUN, 0), 0);  \
		assert_int_equal((g)->run->exit_reason, reason); \
	} while (0)

static inline struct kvm_regs guest_regs(struct guest *g)
{
	struct kvm_regs regs;

	assert_int_equal(io(g->vcpu, KVM_GET_REGS, &regs), 0);
	return regs;
}

#endif

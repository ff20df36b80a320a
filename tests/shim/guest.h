/* SPDX-License-Identifier: MIT */
/*
 * The client of the preload's tests: nothing but what any KVM program does, with the C library's
 * functions.
 */
#ifndef UM_TESTS_SHIM_GUEST_H
#define UM_TESTS_SHIM_GUEST_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#define MEM_SIZE 0x10000
#define CODE	 0x1000

struct guest {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *mem;
};

/* A VM with one vCPU in real mode, at @code; with @chip, HLT waits in KVM_RUN. */
static void guest_open_chip(struct guest *g, const void *code, size_t size, int chip)
{
	struct kvm_userspace_memory_region mem = { .memory_size = MEM_SIZE };
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rsp = 0x8000 };
	struct kvm_sregs sregs;

	g->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	assert_true(g->kvm >= 0);
	assert_int_equal(ioctl(g->kvm, KVM_GET_API_VERSION, 0), 12);
	g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
	assert_true(g->vm >= 0);
	g->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(g->mem, MAP_FAILED);
	memcpy(g->mem + CODE, code, size);
	mem.userspace_addr = (uintptr_t)g->mem;
	assert_int_equal(ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
	if (chip)
		assert_int_equal(ioctl(g->vm, KVM_CREATE_IRQCHIP, 0), 0);
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	assert_true(g->vcpu >= 0);
	g->run_size = (size_t)ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	assert_ptr_not_equal(g->run, MAP_FAILED);
	assert_int_equal(ioctl(g->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	assert_int_equal(ioctl(g->vcpu, KVM_SET_SREGS, &sregs), 0);
	assert_int_equal(ioctl(g->vcpu, KVM_SET_REGS, &regs), 0);
}

static inline void guest_open(struct guest *g, const void *code, size_t size)
{
	guest_open_chip(g, code, size, 0);
}

static void guest_close(struct guest *g)
{
	assert_int_equal(munmap(g->run, g->run_size), 0);
	assert_int_equal(close(g->vcpu), 0);
	assert_int_equal(close(g->vm), 0);
	assert_int_equal(close(g->kvm), 0);
	assert_int_equal(munmap(g->mem, MEM_SIZE), 0);
}

/* Runs to the next OUT, and tells what was written. */
static inline unsigned guest_out(struct guest *g)
{
	assert_int_equal(ioctl(g->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(g->run->exit_reason, KVM_EXIT_IO);
	return ((uint8_t *)g->run)[g->run->io.data_offset];
}

/* inc al; out 0x10, al; jmp back */
static const uint8_t code_count[] = { 0xfe, 0xc0, 0xe6, 0x10, 0xeb, 0xfa };
/* inc word [COUNTER]; jmp back */
#define COUNTER 0x500
static const uint8_t code_busy[] = { 0xff, 0x06, COUNTER & 0xff, COUNTER >> 8, 0xeb, 0xfa };
/* cli; hlt */
static const uint8_t code_halt[] = { 0xfa, 0xf4 };

#endif

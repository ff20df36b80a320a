/* SPDX-License-Identifier: MIT */
/*
 * The clients of the supervisor's tests: ordinary KVM programs that no preload reaches.  They are
 * linked statically, with whichever C library, so there is no test framework: a wrong CHECK says
 * where and ends the program.
 */
#ifndef UM_TESTS_SUPERVISOR_CLIENT_H
#define UM_TESTS_SUPERVISOR_CLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK(cond)                                                                          \
	do {                                                                                 \
		if (!(cond)) {                                                               \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #cond, \
				errno);                                                      \
			exit(1);                                                             \
		}                                                                            \
	} while (0)

#define MEM_SIZE 0x10000
#define CODE	 0x1000
#define COUNTER	 0x500

struct guest {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *mem;
};

/* Opens the device, and makes a VM with memory, and interrupt controllers if @irqchip. */
static inline void guest_vm(struct guest *g, bool irqchip)
{
	struct kvm_userspace_memory_region mem = { .memory_size = MEM_SIZE };

	g->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(g->kvm >= 0);
	CHECK(ioctl(g->kvm, KVM_GET_API_VERSION, 0) == 12);
	g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
	CHECK(g->vm >= 0);
	if (irqchip)
		CHECK(ioctl(g->vm, KVM_CREATE_IRQCHIP, 0) == 0);
	g->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(g->mem != MAP_FAILED);
	mem.userspace_addr = (uintptr_t)g->mem;
	CHECK(ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &mem) == 0);
}

/* A vCPU in real mode at @code, which is put at CODE + @offset. */
static inline void guest_vcpu(struct guest *g, int id, const void *code, size_t size,
			      unsigned offset)
{
	struct kvm_regs regs = { .rip = CODE + offset,
				 .rflags = 2,
				 .rsp = 0x8000 - 0x1000 * (unsigned)id };
	struct kvm_sregs sregs;

	memcpy(g->mem + CODE + offset, code, size);
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, id);
	CHECK(g->vcpu >= 0);
	g->run_size = (size_t)ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	CHECK(g->run != MAP_FAILED);
	CHECK(ioctl(g->vcpu, KVM_GET_SREGS, &sregs) == 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	CHECK(ioctl(g->vcpu, KVM_SET_SREGS, &sregs) == 0);
	CHECK(ioctl(g->vcpu, KVM_SET_REGS, &regs) == 0);
}

static inline void guest_open(struct guest *g, const void *code, size_t size)
{
	guest_vm(g, false);
	guest_vcpu(g, 0, code, size, 0);
}

static inline void guest_close(struct guest *g)
{
	CHECK(munmap(g->run, g->run_size) == 0);
	CHECK(close(g->vcpu) == 0);
	CHECK(close(g->vm) == 0);
	CHECK(close(g->kvm) == 0);
	CHECK(munmap(g->mem, MEM_SIZE) == 0);
}

static inline unsigned guest_io(const struct guest *g)
{
	CHECK(g->run->exit_reason == KVM_EXIT_IO);
	return ((uint8_t *)g->run)[g->run->io.data_offset];
}

/* Runs to the next OUT, and tells what was written. */
static inline unsigned guest_out(struct guest *g)
{
	CHECK(ioctl(g->vcpu, KVM_RUN, 0) == 0);
	return guest_io(g);
}

static inline unsigned counter(const struct guest *g)
{
	return *(volatile uint16_t *)(g->mem + COUNTER);
}

/* inc al; out 0x10, al; jmp back */
static const uint8_t code_count[] = { 0xfe, 0xc0, 0xe6, 0x10, 0xeb, 0xfa };
/* inc word [COUNTER]; jmp back */
static const uint8_t code_busy[] = { 0xff, 0x06, COUNTER & 0xff, COUNTER >> 8, 0xeb, 0xfa };

#endif

// SPDX-License-Identifier: MIT
/*
 * What an exit to the VMM costs: a guest that writes to a port, over and over; from KVM_RUN to KVM_RUN.
 *
 *   exit-speed           with open() and ioctl() of /dev/kvm: under `umbra exec`, or on the host's KVM
 *   exit-speed --direct  with the functions of libumbra
 *   exit-speed --signal  with a system call instruction that the supervisor cannot rewrite
 *
 * EXIT_SPEED_STATIC: without libumbra, for a static executable.
 *
 * Prints nanoseconds for one round trip, the median and the least of several runs.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#ifndef EXIT_SPEED_STATIC
#include "umbra.h"
#endif

#define ROUNDS 21
#define EXITS  50000
#define MEM    0x10000
#define CODE   0x1000

static int os_open(void)
{
	return open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

static int os_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg);
}

/* The number comes from memory, not by the instruction in front of the system call. */
static int raw_ioctl(int fd, unsigned long request, void *arg)
{
	static const volatile long number = 16;
	long r;

	asm volatile("syscall"
		     : "=a"(r)
		     : "a"(number), "D"((long)fd), "S"(request), "d"(arg)
		     : "rcx", "r11", "memory");
	return r < 0 ? -1 : (int)r;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
	static const uint8_t code[] = { 0xe6, 0x10, 0xeb, 0xfc }; /* out 0x10, al; jmp back */
	int (*do_open)(void) = os_open;
	int (*do_ioctl)(int, unsigned long, void *) = os_ioctl;
	void *(*do_mmap)(void *, size_t, int, int, int, off_t) = mmap;
	struct kvm_userspace_memory_region mem = { .memory_size = MEM };
	struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
	double ns[ROUNDS];
	struct kvm_sregs sregs;
	struct kvm_run *run;
	int kvm, vm, vcpu;
	uint8_t *p;

#ifndef EXIT_SPEED_STATIC
	if (argc > 1 && !strcmp(argv[1], "--direct")) {
		do_open = umbra_open;
		do_ioctl = umbra_ioctl;
		do_mmap = umbra_mmap;
	}
#endif
	if (argc > 1 && !strcmp(argv[1], "--signal"))
		do_ioctl = raw_ioctl;
	kvm = do_open();
	vm = kvm < 0 ? -1 : do_ioctl(kvm, KVM_CREATE_VM, NULL);
	if (vm < 0) {
		perror("KVM_CREATE_VM");
		return 2;
	}
	p = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(p + CODE, code, sizeof(code));
	mem.userspace_addr = (uintptr_t)p;
	do_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &mem);
	vcpu = do_ioctl(vm, KVM_CREATE_VCPU, NULL);
	run = do_mmap(NULL, (size_t)do_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL),
		      PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED || do_ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0) {
		perror("vCPU");
		return 2;
	}
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	do_ioctl(vcpu, KVM_SET_SREGS, &sregs);
	do_ioctl(vcpu, KVM_SET_REGS, &regs);
	for (int r = 0; r < ROUNDS; r++) {
		double start = now_ns();

		for (int i = 0; i < EXITS; i++) {
			if (do_ioctl(vcpu, KVM_RUN, NULL) || run->exit_reason != KVM_EXIT_IO) {
				fprintf(stderr, "KVM_RUN: exit %u\n", run->exit_reason);
				return 1;
			}
		}
		ns[r] = (now_ns() - start) / EXITS;
	}
	qsort(ns, ROUNDS, sizeof(ns[0]), compare);
	printf("port-I/O exit and back: %.0f ns (median), %.0f ns (least)\n", ns[ROUNDS / 2],
	       ns[0]);
	return 0;
}

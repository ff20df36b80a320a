// SPDX-License-Identifier: MIT
/* Hypercalls of Hyper-V's interface: conventions, flushes, IPIs, messages and events. */
#include "hyperv_guest.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FAST	    (1ull << 16)
#define VARIABLE(n) ((uint64_t)(n) << 17)
#define REPS(n)	    ((uint64_t)(n) << 32)
#define START(n)    ((uint64_t)(n) << 48)

static void set_xmm(struct guest *g, unsigned i, uint64_t low, uint64_t high)
{
	struct kvm_fpu f;

	assert_int_equal(io(g->vcpu, KVM_GET_FPU, &f), 0);
	memcpy(f.xmm[i], &low, 8);
	memcpy(f.xmm[i] + 8, &high, 8);
	assert_int_equal(io(g->vcpu, KVM_SET_FPU, &f), 0);
}

static void test_flush_calls(void **state)
{
	struct guest g;
	struct cpuid c;

	start(&g, NO_CHIP, true);
	assert_wrmsr(&g, OS_ID, 1);
	memset(g.mem + INPUT, 0, 64);
	assert_int_equal(call(&g, 2, INPUT, 0), 0);
	assert_int_equal(call(&g, 2, INPUT + 4, 0), 4); /* alignment */
	assert_int_equal(call(&g, 2, NOWHERE, 0), 3);
	assert_int_equal(call(&g, 2 | FAST, 0, 1), 0);
	/* No repetitions, no variable header, no reserved bits */
	assert_int_equal(call(&g, 2 | REPS(1), INPUT, 0), 3);
	assert_int_equal(call(&g, 2 | VARIABLE(1), INPUT, 0), 3);
	assert_int_equal(call(&g, 2 | 1 << 27, INPUT, 0), 3);
	assert_int_equal(call(&g, 2 | 1ull << 60, INPUT, 0), 3);
	/* A list has some, all done at once. */
	assert_int_equal(call(&g, 3, INPUT, 0), 3);
	assert_int_equal(call(&g, 3 | REPS(4) | START(4), INPUT, 0), 3);
	assert_int_equal(call(&g, 3 | REPS(4) | START(1), INPUT, 0), 4ull << 32);
	/* Sets: banks as many as the mask has bits, in memory and in XMM registers */
	put64(&g, INPUT + 24, 0x11);
	assert_int_equal(call(&g, 0x13, INPUT, 0), 3);
	assert_int_equal(call(&g, 0x13 | VARIABLE(1), INPUT, 0), 3);
	assert_int_equal(call(&g, 0x13 | VARIABLE(2), INPUT, 0), 0);
	assert_int_equal(call(&g, 0x14 | VARIABLE(2) | REPS(7), INPUT, 0), 7ull << 32);
	put64(&g, INPUT + 16, 1); /* all */
	assert_int_equal(call(&g, 0x13, INPUT, 0), 0);
	set_xmm(&g, 0, 0, 1);
	assert_int_equal(call(&g, 0x13 | VARIABLE(1) | FAST, 0, 0), 0);
	assert_int_equal(call(&g, 0x13 | VARIABLE(2) | FAST, 0, 0), 3);
	set_xmm(&g, 0, 0, 0x3ff); /* 10 banks fill the six registers */
	assert_int_equal(call(&g, 0x13 | VARIABLE(10) | FAST, 0, 0), 0);
	set_xmm(&g, 0, 0, 0x7ff);
	assert_int_equal(call(&g, 0x13 | VARIABLE(11) | FAST, 0, 0), 3);
	/* Other privileges, other modes: no such instruction */
	assert_int_equal(call(&g, 0xbeef, 0, 0), 2);
	guest_stop(&g);
	guest_start(&g, NO_CHIP, stubs, sizeof(stubs));
	get_cpuid(g.sys, &c);
	assert_int_equal(io(g.vcpu, KVM_SET_CPUID2, &c), 0);
	assert_int_equal(host_set(&g, OS_ID, 1), 1);
	memcpy(g.mem + 6 * 4, "\x00\x60\x00\x00", 4); /* real mode's #UD: OUT to port 0x82 */
	memcpy(g.mem + 0x6000, "\xe6\x82", 2);
	assert_int_equal(run(&g, VMCALL, &(struct kvm_regs){ .rcx = 2 }), KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x82);
	guest_stop(&g);
}

static void test_ipi_calls(void **state)
{
	struct guest g;

	start(&g, FULL_CHIP, true);
	lapic_on(&g);
	assert_int_equal(host_set(&g, VP_INDEX, 70), 1);
	assert_wrmsr(&g, OS_ID, 1);
	assert_int_equal(call(&g, 0xb | FAST, 0x45, ~0ull), 0); /* 0-63: not us */
	assert_false(requested(&g, 0x45));
	assert_int_equal(call(&g, 0xb | FAST, 15, 1), 3);
	assert_int_equal(call(&g, 0xb | FAST, 256, 1), 3);
	assert_int_equal(call(&g, 0xb | FAST, 0x100000045, 1), 3);
	put64(&g, INPUT, 0x45);
	put64(&g, INPUT + 8, 0);
	put64(&g, INPUT + 16, 2);
	put64(&g, INPUT + 24, 1 << 5);
	assert_int_equal(call(&g, 0x15 | VARIABLE(1), INPUT, 0), 0);
	assert_false(requested(&g, 0x45));
	put64(&g, INPUT + 24, 1 << 6);
	assert_int_equal(call(&g, 0x15 | VARIABLE(1), INPUT, 0), 0);
	assert_true(requested(&g, 0x45));
	set_xmm(&g, 0, 2, 1 << 6);
	assert_int_equal(call(&g, 0x15 | VARIABLE(1) | FAST, 0x46, 0), 0);
	assert_true(requested(&g, 0x46));
	assert_int_equal(call(&g, 0x15 | FAST, 0x47, 1), 0); /* all */
	assert_true(requested(&g, 0x47));
	set_xmm(&g, 0, 0, 0);
	assert_int_equal(call(&g, 0x15 | FAST, 0, 0), 0); /* nobody: not even a vector */
	assert_int_equal(host_set(&g, VP_INDEX, 3), 1);
	assert_int_equal(call(&g, 0xb | FAST, 0x48, 1 << 3), 0);
	assert_true(requested(&g, 0x48));
	guest_stop(&g);
}

static uint64_t taken(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t n = 0;

	if (poll(&p, 1, 0) == 1)
		assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	return n;
}

static void test_messages_and_events(void **state)
{
	struct kvm_hyperv_eventfd e = { .conn_id = 0x123, .fd = eventfd(0, EFD_CLOEXEC) };
	struct kvm_regs regs;
	struct guest g;
	int fd = e.fd;

	start(&g, FULL_CHIP, true);
	assert_wrmsr(&g, OS_ID, 1);
	/* Nobody to talk to: the VMM is not asked before it has a SynIC. */
	assert_int_equal(call(&g, 0x5c, INPUT, 0), 3);
	assert_int_equal(call(&g, 0x5d | FAST, 0x123, 0), 3);
	set_cap(g.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	assert_int_equal(run(&g, VMCALL, &(struct kvm_regs){ .rcx = 0x5c, .rdx = INPUT, .r8 = 5 }),
			 KVM_EXIT_HYPERV);
	assert_int_equal(g.run->hyperv.type, KVM_EXIT_HYPERV_HCALL);
	assert_int_equal(g.run->hyperv.u.hcall.input, 0x5c);
	assert_int_equal(g.run->hyperv.u.hcall.params[0], INPUT);
	assert_int_equal(g.run->hyperv.u.hcall.params[1], 5);
	g.run->hyperv.u.hcall.result = 19;
	assert_exit(&g, KVM_EXIT_IO);
	regs = guest_regs(&g);
	assert_int_equal(regs.rax, 19);
	/* An eventfd takes the VMM's place. */
	assert_int_equal(io(g.vm, KVM_HYPERV_EVENTFD, &e), 0);
	assert_errno(EEXIST, io(g.vm, KVM_HYPERV_EVENTFD, &e));
	assert_int_equal(call(&g, 0x5d | FAST, 0x123, 0), 0);
	put64(&g, INPUT, 0x123);
	assert_int_equal(call(&g, 0x5d, INPUT, 0), 0);
	assert_int_equal(taken(fd), 2);
	/* Another connection, or another flag than 0: the VMM's.  Reserved bits: nobody's. */
	assert_int_equal(run(&g, VMCALL, &(struct kvm_regs){ .rcx = 0x5d | FAST, .rdx = 0x124 }),
			 KVM_EXIT_HYPERV);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(
		run(&g, VMCALL, &(struct kvm_regs){ .rcx = 0x5d | FAST, .rdx = 0x100000123 }),
		KVM_EXIT_HYPERV);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(call(&g, 0x5d | FAST, 0x1000123, 0), 3);
	assert_int_equal(taken(fd), 0);
	e.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
	assert_int_equal(io(g.vm, KVM_HYPERV_EVENTFD, &e), 0);
	assert_errno(ENOENT, io(g.vm, KVM_HYPERV_EVENTFD, &e));
	e.flags = 2;
	assert_errno(EINVAL, io(g.vm, KVM_HYPERV_EVENTFD, &e));
	e.flags = 0;
	e.conn_id = 0x1000000;
	assert_errno(EINVAL, io(g.vm, KVM_HYPERV_EVENTFD, &e));
	e.conn_id = 1;
	e.fd = -1;
	assert_errno(EBADF, io(g.vm, KVM_HYPERV_EVENTFD, &e));
	e.fd = fd; /* left to the end of the VM */
	assert_int_equal(io(g.vm, KVM_HYPERV_EVENTFD, &e), 0);
	guest_stop(&g);
	close(fd);
}

/* EDX:EAX, EBX:ECX, EDI:ESI; the result in EDX:EAX. */
static void test_call_32bit(void **state)
{
	struct kvm_regs regs;
	struct guest g;

	start(&g, NO_CHIP, false);
	assert_wrmsr(&g, OS_ID, 1);
	memset(g.mem + INPUT, 0, 64);
	assert_int_equal(run(&g, VMCALL, &(struct kvm_regs){ .rdx = 5, .rax = 3, .rcx = INPUT }),
			 KVM_EXIT_IO);
	regs = guest_regs(&g);
	assert_int_equal(regs.rax, 0);
	assert_int_equal(regs.rdx, 5);
	assert_int_equal(run(&g, VMCALL, &(struct kvm_regs){ .rbx = 1, .rax = 2, .rcx = INPUT }),
			 KVM_EXIT_IO);
	assert_int_equal(guest_regs(&g).rax, 3); /* no memory there */
	guest_stop(&g);
}

/*
 * A flush is complete when the call returns.  One vCPU counts in the page at 0x8000, the other maps
 * that elsewhere, flushes, and looks whether there is still anybody counting in the old page.
 */
static void *count_up(void *arg)
{
	struct guest *other = arg;

	while (!io(other->vcpu, KVM_RUN, 0) || errno == EINTR) {
		if (__atomic_load_n(&other->run->immediate_exit, __ATOMIC_ACQUIRE))
			break;
	}
	return NULL;
}

static void test_flush_is_complete(void **state)
{
	static const uint8_t counter[] = { 0x48, 0xff, 0x04, 0x25,
					   0x00, 0x80, 0x00, 0x00, /* incq 0x8000 */
					   0xeb, 0xf6 };
	static const uint8_t flusher[] = {
		0x49, 0xc7, 0xc1, 0xe8, 0x03, 0x00, 0x00, /* mov $1000, %r9 */
		/* again: the table becomes one that is not in step with the shadow */
		0x48, 0x83, 0x34, 0x25, 0x00, 0xc1, 0x00, 0x00, 0x10, /* xorq $16, 0xc100 */
		0x48, 0x8b, 0x1c, 0x25, 0x40, 0xc0, 0x00,
		0x00,				    /* mov 0xc040, %rbx: the entry of 0x8000 */
		0x48, 0x89, 0xd8,		    /* mov %rbx, %rax */
		0x48, 0x35, 0x00, 0x10, 0x00, 0x00, /* xor $0x1000, %rax */
		0x48, 0x89, 0x04, 0x25, 0x40, 0xc0, 0x00, 0x00, /* mov %rax, 0xc040 */
		0xb9, 0x02, 0x00, 0x00, 0x00,			/* mov $2, %ecx: flush */
		0xba, 0x00, 0x40, 0x00, 0x00,			/* mov $INPUT, %edx */
		0x0f, 0x01, 0xc1,				/* vmcall */
		0x81, 0xe3, 0x00, 0xf0, 0x00, 0x00, /* and $0xf000, %ebx: the old page */
		0x48, 0x8b, 0x33,		    /* mov (%rbx), %rsi */
		0xb9, 0x00, 0x10, 0x00, 0x00,	    /* mov $4096, %ecx */
		0xff, 0xc9, 0x75, 0xfc,		    /* dec %ecx; jnz */
		0x48, 0x3b, 0x33,		    /* cmp (%rbx), %rsi */
		0x75, 0x05,			    /* jne: failed */
		0x49, 0xff, 0xc9,		    /* dec %r9 */
		0x75, 0xb5,			    /* jnz again */
		0xe6, 0x80,			    /* out */
	};
	struct kvm_regs regs = { .rip = 0x2000, .rflags = 2, .rsp = 0x8000 };
	struct guest g, other;
	struct kvm_sregs s;
	pthread_t thread;
	struct cpuid c;

	start(&g, NO_CHIP, true);
	assert_wrmsr(&g, OS_ID, 1);
	memcpy(g.mem + 0x2000, counter, sizeof(counter));
	memcpy(g.mem + 0x5000, flusher, sizeof(flusher));
	memset(g.mem + INPUT, 0, 64);
	put64(&g, INPUT + 16,
	      1 << 1); /* the other one: our own flush would drop its translations, too */
	put64(&g, PAGE_TAB + 8 * 8, 0x6000 | 7);
	other = g;
	other.vcpu = io(g.vm, KVM_CREATE_VCPU, 1);
	assert_true(other.vcpu >= 0);
	other.run = umbra_mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, other.vcpu, 0);
	assert_ptr_not_equal(other.run, MAP_FAILED);
	get_cpuid(g.sys, &c);
	assert_int_equal(io(other.vcpu, KVM_SET_CPUID2, &c), 0);
	/* As g's, but the tables are there already. */
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &s), 0);
	assert_int_equal(io(other.vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(io(other.vcpu, KVM_SET_REGS, &regs), 0);
	assert_int_equal(pthread_create(&thread, NULL, count_up, &other), 0);
	while (!__atomic_load_n((uint64_t *)(g.mem + 0x6000), __ATOMIC_RELAXED))
		sched_yield();
	/* Again if the host didn't let the other one run meanwhile: it must count there, too. */
	do {
		assert_int_equal(run(&g, 0x5000, &(struct kvm_regs){ 0 }), KVM_EXIT_IO);
		assert_int_equal(guest_regs(&g).r9, 0);
	} while (!get64(&g, 0x7000));
	__atomic_store_n(&other.run->immediate_exit, 1, __ATOMIC_RELEASE);
	umbra_interrupt_vcpu(other.vcpu);
	pthread_join(thread, NULL);
	munmap(other.run, 3 * 4096);
	assert_int_equal(umbra_close(other.vcpu), 0);
	guest_stop(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flush_calls),	    cmocka_unit_test(test_ipi_calls),
		cmocka_unit_test(test_messages_and_events), cmocka_unit_test(test_call_32bit),
		cmocka_unit_test(test_flush_is_complete),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

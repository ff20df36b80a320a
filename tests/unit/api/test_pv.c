// SPDX-License-Identifier: MIT
/* Paravirtual interfaces as a guest uses them, and two vCPUs that start and wake each other. */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

/* ---- pieces of 16-bit code ---- */

#define MOV_ECX(v) 0x66, 0xb9, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (uint32_t)(v) >> 24
#define MOV_EAX(v) 0x66, 0xb8, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (uint32_t)(v) >> 24
#define MOV_EBX(v) 0x66, 0xbb, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (uint32_t)(v) >> 24
#define MOV_EDX(v) 0x66, 0xba, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (uint32_t)(v) >> 24
#define MOV_ESI(v) 0x66, 0xbe, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (uint32_t)(v) >> 24
#define WRMSR	   0x0f, 0x30
#define VMCALL	   0x0f, 0x01, 0xc1
#define VMMCALL	   0x0f, 0x01, 0xd9
#define OUT(port)  0xe6, port
#define HLT	   0xf4
#define X2APIC_ON  MOV_ECX(0x1b), 0x0f, 0x32, 0x66, 0x0d, 0x00, 0x0c, 0x00, 0x00, WRMSR

/* The kernel's msr.rst. */
struct pv_time {
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, pad[2];
};

static uint64_t guest_ns(const struct pv_time *t, uint64_t tsc)
{
	uint64_t delta = tsc - t->tsc_timestamp;

	delta = t->tsc_shift >= 0 ? delta << t->tsc_shift : delta >> -t->tsc_shift;
	return t->system_time + (uint64_t)((unsigned __int128)delta * t->tsc_to_system_mul >> 32);
}

static uint64_t guest_tsc(struct guest *g)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head = { .nmsrs = 1 }, .e = { .index = 0x10 } };

	assert_int_equal(io(g->vcpu, KVM_GET_MSRS, &m), 1);
	return m.e.data;
}

static void test_kvmclock(void **state)
{
	static const uint8_t code[] = {
		MOV_ECX(0x4b564d00), MOV_EAX(0x3000), MOV_EDX(0), WRMSR, /* wall clock */
		MOV_ECX(0x4b564d01), MOV_EAX(0x3101), MOV_EDX(0), WRMSR, /* system time, on */
		OUT(0x80),	     OUT(0x80),
	};
	const struct pv_time *t;
	const uint32_t *wall;
	struct kvm_clock_data clock;
	struct guest g;
	uint64_t ns, wall_ns;

	guest_start(&g, FULL_CHIP, code, sizeof(code));
	assert_exit(&g, KVM_EXIT_IO);
	t = (const struct pv_time *)(g.mem + 0x3100);
	wall = (const uint32_t *)(g.mem + 0x3000);
	assert_true(t->version >= 2 && t->version % 2 == 0);
	assert_int_equal(t->flags, 1); /* stable */
	ns = guest_ns(t, guest_tsc(&g));
	assert_int_equal(io(g.vm, KVM_GET_CLOCK, &clock), 0);
	assert_true(ns <= clock.clock && clock.clock - ns < 1000000000);
	/* Wall clock at boot + system time = now. */
	wall_ns = wall[1] * 1000000000ull + wall[2] + clock.clock;
	assert_int_equal(wall[0] % 2, 0);
	assert_true(wall_ns < clock.realtime + 1000000 && clock.realtime < wall_ns + 1000000);
	/* The VMM has stopped the guest for a while: said once. */
	assert_int_equal(io(g.vcpu, KVM_KVMCLOCK_CTRL, 0), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(t->flags, 3);
	guest_stop(&g);
}

/* Let a vCPU run up to the HLT at GUEST_CODE. */
static void to_hlt(int vcpu, const struct kvm_run *run)
{
	struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2 };
	struct kvm_sregs sregs;

	assert_int_equal(io(vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	assert_int_equal(io(vcpu, KVM_SET_SREGS, &sregs), 0);
	assert_int_equal(io(vcpu, KVM_SET_REGS, &regs), 0);
	assert_int_equal(io(vcpu, KVM_RUN, 0), 0);
	assert_int_equal(run->exit_reason, KVM_EXIT_HLT);
}

static void enable_clock(int vcpu, uint64_t gpa)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head = { .nmsrs = 1 }, .e = { .index = 0x4b564d01, .data = gpa | 1 } };

	assert_int_equal(io(vcpu, KVM_SET_MSRS, &m), 1);
}

/*
 * Guests read the page of one vCPU on all (the vDSO does).  So when the clock is set, no vCPU runs
 * before all pages tell of it.  Pages count on where they are: one may have been restored with the
 * guest's memory.
 */
static void test_kvmclock_pages(void **state)
{
	static const uint8_t code[] = { HLT };
	const struct pv_time *t[2];
	struct kvm_clock_data clock = { .clock = 1000000000000 };
	struct kvm_run *run;
	struct guest g;
	int other;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	other = io(g.vm, KVM_CREATE_VCPU, 1);
	assert_true(other >= 0);
	run = umbra_mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
	assert_ptr_not_equal(run, MAP_FAILED);
	t[0] = (const struct pv_time *)(g.mem + 0x3100);
	t[1] = (const struct pv_time *)(g.mem + 0x3200);
	*(uint32_t *)(g.mem + 0x3100) = 1000;
	enable_clock(g.vcpu, 0x3100);
	enable_clock(other, 0x3200);
	to_hlt(g.vcpu, g.run);
	to_hlt(other, run);
	assert_true(t[0]->version > 1000 && t[0]->version % 2 == 0);
	for (unsigned round = 0; round < 2; round++) {
		/* One function for all, to the last bit. */
		assert_int_equal(t[0]->tsc_timestamp, t[1]->tsc_timestamp);
		assert_int_equal(t[0]->system_time, t[1]->system_time);
		assert_int_equal(t[0]->flags & 1, 1);
		if (round)
			break;
		assert_int_equal(io(g.vm, KVM_SET_CLOCK, &clock), 0);
		to_hlt(other, run);
		assert_in_range(guest_ns(t[0], guest_tsc(&g)), clock.clock,
				clock.clock + 100000000000);
	}
	/* A word to one guest that the other's update must not take back. */
	assert_int_equal(io(g.vcpu, KVM_KVMCLOCK_CTRL, 0), 0);
	to_hlt(g.vcpu, g.run);
	assert_int_equal(io(g.vm, KVM_SET_CLOCK, &clock), 0);
	to_hlt(other, run);
	assert_int_equal(t[0]->flags, 3);
	assert_int_equal(t[1]->flags, 1);
	munmap(run, 3 * 4096);
	assert_int_equal(umbra_close(other), 0);
	guest_stop(&g);
}

static void test_hypercalls(void **state)
{
	static const uint8_t code[] = {
		MOV_EAX(1234), VMCALL, /* unknown */
		0x66,	       0xa3,
		0x00,	       0x30, /* mov %eax, 0x3000 */
		MOV_EAX(9),    MOV_EBX(0x3100),
		MOV_ECX(0),    VMMCALL, /* clock pairing */
		0x66,	       0xa3,
		0x04,	       0x30,
		MOV_EAX(9),    MOV_EBX(0x3100),
		MOV_ECX(1),    VMCALL, /* of an unknown clock */
		0x66,	       0xa3,
		0x08,	       0x30,
		HLT,
	};
	const int32_t *result;
	const int64_t *pair;
	struct kvm_clock_data clock;
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_exit(&g, KVM_EXIT_HLT);
	result = (const int32_t *)(g.mem + 0x3000);
	pair = (const int64_t *)(g.mem + 0x3100);
	assert_int_equal(result[0], -1000);
	assert_int_equal(result[1], 0);
	assert_int_equal(result[2], -95);
	assert_int_equal(io(g.vm, KVM_GET_CLOCK, &clock), 0);
	assert_true((uint64_t)pair[0] <= clock.realtime / 1000000000 &&
		    clock.realtime / 1000000000 - (uint64_t)pair[0] < 60);
	assert_true((uint64_t)pair[2] < guest_tsc(&g));
	guest_stop(&g);
}

/* ---- two vCPUs ---- */

struct other {
	struct kvm_run *run;
	int fd;
	pthread_t thread;
};

static void on_signal(int sig) {}

/* What every VMM does for an application processor. */
static void *run_other(void *arg)
{
	struct other *o = arg;

	while (!io(o->fd, KVM_RUN, 0) || errno == EAGAIN || errno == EINTR) {
		if (__atomic_load_n(&o->run->immediate_exit, __ATOMIC_ACQUIRE))
			break;
	}
	return NULL;
}

static void start_other(struct guest *g, struct other *o)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &sa, NULL);
	o->fd = io(g->vm, KVM_CREATE_VCPU, 1);
	assert_true(o->fd >= 0);
	o->run = umbra_mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, o->fd, 0);
	assert_ptr_not_equal(o->run, MAP_FAILED);
	guest_set_cpuid(g->sys, o->fd);
	assert_int_equal(pthread_create(&o->thread, NULL, run_other, o), 0);
}

static void stop_other(struct other *o)
{
	__atomic_store_n(&o->run->immediate_exit, 1, __ATOMIC_RELEASE);
	pthread_kill(o->thread, SIGUSR1);
	pthread_join(o->thread, NULL);
	munmap(o->run, 3 * 4096);
	assert_int_equal(umbra_close(o->fd), 0);
}

/*
 * INIT and SIPI through x2APIC; the other says that it lives; then it halts until an IPI wakes it.
 */
static void test_init_sipi_ipi(void **state)
{
	static const uint8_t boot[] = {
		X2APIC_ON,
		MOV_ECX(0x830),
		MOV_EDX(1),
		MOV_EAX(0x4500),
		WRMSR, /* INIT */
		MOV_EAX(0x4602),
		WRMSR, /* SIPI, page 2 */
		0x80,
		0x3e,
		0x00,
		0x30,
		0x01, /* cmpb $1, 0x3000 */
		0x75,
		0xf9, /* jne: until it is there */
		OUT(0x80),
		MOV_EAX(0x4033),
		WRMSR, /* fixed IPI, vector 0x33 */
		0x80,
		0x3e,
		0x00,
		0x30,
		0x02, /* cmpb $2, 0x3000 */
		0x75,
		0xf9,
		OUT(0x81),
		HLT,
	};
	static const uint8_t ap[] = {
		X2APIC_ON,	MOV_ECX(0x80f),
		MOV_EAX(0x1ff), MOV_EDX(0),
		WRMSR, /* software enable */
		0xc6,		0x06,
		0x00,		0x30,
		0x01, /* movb $1, 0x3000 */
		0xfb,		HLT,
		0xeb,		0xfd, /* sti; hlt; again */
	};
	static const uint8_t handler[] = {
		0xc6,		0x06,	    0x00,	0x30,  0x02, /* movb $2, 0x3000 */
		MOV_ECX(0x80b), MOV_EAX(0), MOV_EDX(0), WRMSR,	     /* EOI */
		0xcf,
	};
	struct guest g;
	struct other o;

	guest_start(&g, FULL_CHIP, boot, sizeof(boot));
	memcpy(g.mem + 0x2000, ap, sizeof(ap));
	memcpy(g.mem + 0x4000, handler, sizeof(handler));
	((uint16_t *)g.mem)[0x33 * 2] = 0x4000;
	start_other(&g, &o);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x80);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	stop_other(&o);
	guest_stop(&g);
}

/* KVM_HC_KICK_CPU wakes a vCPU that has halted with interrupts off. */
static void test_kick_hypercall(void **state)
{
	static const uint8_t boot[] = {
		X2APIC_ON,  MOV_ECX(0x830),
		MOV_EDX(1), MOV_EAX(0x4500),
		WRMSR,	    MOV_EAX(0x4602),
		WRMSR,	    0x80,
		0x3e,	    0x00,
		0x30,	    0x01,
		0x75,	    0xf9,
		MOV_EAX(5), MOV_EBX(0),
		MOV_ECX(1), VMCALL,
		0x80,	    0x3e,
		0x00,	    0x30,
		0x02,	    0x75,
		0xf9,	    OUT(0x81),
	};
	static const uint8_t ap[] = {
		0xc6, 0x06, 0x00, 0x30, 0x01, /* movb $1, 0x3000 */
		0xfa, HLT,		      /* cli; hlt */
		0xc6, 0x06, 0x00, 0x30, 0x02, /* movb $2, 0x3000 */
		0xfa, HLT,
	};
	struct guest g;
	struct other o;

	guest_start(&g, FULL_CHIP, boot, sizeof(boot));
	memcpy(g.mem + 0x2000, ap, sizeof(ap));
	start_other(&g, &o);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	stop_other(&o);
	guest_stop(&g);
}

/* Slots come and go under a running vCPU, which is then stopped. */
static void test_slots_while_running(void **state)
{
	static const uint8_t loop[] = {
		0xfe, 0x06, 0x00, 0x20, 0xeb, 0xfa
	}; /* incb 0x2000; again */
	struct kvm_userspace_memory_region region = { .slot = 1, .guest_phys_addr = 0x100000 };
	struct guest g;
	struct other o;
	void *extra;

	guest_start(&g, NO_CHIP, loop, sizeof(loop));
	extra = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(extra, MAP_FAILED);
	o = (struct other){ .fd = g.vcpu, .run = g.run };
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &sa, NULL);
	assert_int_equal(pthread_create(&o.thread, NULL, run_other, &o), 0);
	region.userspace_addr = (uintptr_t)extra;
	for (int i = 0; i < 200; i++) {
		struct kvm_userspace_memory_region base = {
			.memory_size = GUEST_MEM,
			.userspace_addr = (uintptr_t)g.mem,
			.flags = i % 2 ? 0 : KVM_MEM_LOG_DIRTY_PAGES,
		};

		region.memory_size = i % 2 ? 0 : 0x10000;
		assert_int_equal(io(g.vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
		assert_int_equal(io(g.vm, KVM_SET_USER_MEMORY_REGION, &base), 0);
	}
	__atomic_store_n(&g.run->immediate_exit, 1, __ATOMIC_RELEASE);
	pthread_kill(o.thread, SIGUSR1);
	pthread_join(o.thread, NULL);
	munmap(extra, 0x10000);
	guest_stop(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kvmclock),       cmocka_unit_test(test_kvmclock_pages),
		cmocka_unit_test(test_hypercalls),     cmocka_unit_test(test_init_sipi_ipi),
		cmocka_unit_test(test_kick_hypercall), cmocka_unit_test(test_slots_while_running),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

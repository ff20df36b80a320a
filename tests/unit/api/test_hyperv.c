// SPDX-License-Identifier: MIT
/*
 * Hyper-V's interface: what is offered, MSRs as guest and VMM see them, time, SynIC, timers, hypercalls and the exits
 * that they cause.  The guest executes one instruction at a time, in 64-bit or flat 32-bit mode at CPL 0, with
 * registers that the test gives it; an exception is a shutdown, because there is no IDT.
 */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
	OS_ID = 0x40000000,
	HYPERCALL,
	VP_INDEX,
	RESET,
	VP_RUNTIME = 0x40000010,
	REF_COUNT = 0x40000020,
	REF_TSC,
	TSC_FREQUENCY,
	APIC_FREQUENCY,
	EOI = 0x40000070,
	ICR,
	TPR,
	ASSIST,
	SCONTROL = 0x40000080,
	SVERSION,
	SIEFP,
	SIMP,
	EOM,
	SINT0 = 0x40000090,
	STIMER0_CONFIG = 0x400000b0,
	STIMER0_COUNT,
	SYNDBG_CONTROL = 0x400000f1,
	SYNDBG_STATUS,
	SYNDBG_SEND,
	SYNDBG_RECV,
	SYNDBG_PENDING,
	SYNDBG_OPTIONS = 0x400000ff,
	CRASH_P0 = 0x40000100,
	CRASH_CTL = 0x40000105,
	REENLIGHTENMENT,
	TSC_EMULATION,
	TSC_EMULATION_STATUS,
};

/* Where things are in the guest's memory */
#define STUBS	 0x1000
#define PAGE	 0x3000 /* of messages, of hypercalls, ... */
#define INPUT	 0x4000
#define TABLES	 0x9000 /* three levels, then the page table of the first 2 MiB */
#define PAGE_TAB (TABLES + 0x3000)
#define NOWHERE	 0x100000000ull /* no memory */

/* Each ends with OUT to port 0x80. */
static const uint8_t stubs[] = {
	0x0f, 0x32, 0xe6, 0x80,				      /* +0: RDMSR */
	0x0f, 0x30, 0xe6, 0x80,				      /* +4: WRMSR */
	0x0f, 0x01, 0xc1, 0xe6, 0x80,			      /* +8: VMCALL */
	0xff, 0xd3, 0xe6, 0x80,				      /* +13: call *%ebx, %rbx */
	0x83, 0x3e, 0x00, 0xf3, 0x90, 0x74, 0xf9, 0xe6, 0x80, /* +17: until *(u32 *)%esi != 0 */
	0xfb, 0xf4, 0xe6, 0x80,				      /* +26: STI, HLT */
};
enum {
	RDMSR = STUBS,
	WRMSR = STUBS + 4,
	VMCALL = STUBS + 8,
	CALL = STUBS + 13,
	SPIN = STUBS + 17,
	WAIT = STUBS + 26
};

/* ---- the guest ---- */

struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 e[256];
};

static struct kvm_cpuid_entry2 *leaf(struct cpuid *c, uint32_t function)
{
	for (unsigned i = 0; i < c->head.nent; i++) {
		if (c->e[i].function == function)
			return &c->e[i];
	}
	return NULL;
}

/* What is supported, with Hyper-V's leaves in place of KVM's. */
static void get_cpuid(int sys, struct cpuid *c)
{
	struct cpuid all = { .head = { .nent = 256 } }, hv = { .head = { .nent = 256 } };

	assert_int_equal(io(sys, KVM_GET_SUPPORTED_CPUID, &all), 0);
	assert_int_equal(io(sys, KVM_GET_SUPPORTED_HV_CPUID, &hv), 0);
	memset(c, 0, sizeof(*c));
	for (unsigned i = 0; i < all.head.nent; i++) {
		if (all.e[i].function >> 8 != 0x400000)
			c->e[c->head.nent++] = all.e[i];
	}
	for (unsigned i = 0; i < hv.head.nent; i++)
		c->e[c->head.nent++] = hv.e[i];
}

static void set_cap(int vcpu, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg } };

	assert_int_equal(io(vcpu, KVM_ENABLE_CAP, &c), 0);
}

static void set_mode(struct guest *g, int vcpu, bool wide)
{
	struct kvm_segment flat = {
		.limit = 0xffffffff,
		.selector = 8,
		.type = 3,
		.present = 1,
		.s = 1,
		.g = 1,
		.db = 1,
	};
	uint64_t *table = (uint64_t *)(g->mem + TABLES);
	struct kvm_sregs s;

	assert_int_equal(io(vcpu, KVM_GET_SREGS, &s), 0);
	s.ds = s.es = s.ss = s.fs = s.gs = flat;
	s.cs = flat;
	s.cs.type = 11;
	s.idt.limit = 0;
	s.cr0 = 0x11;
	if (wide) {
		for (unsigned level = 0; level < 3; level++)
			table[level * 512] = (TABLES + (level + 1) * 0x1000) | 7;
		for (unsigned i = 0; i < 512; i++)
			table[3 * 512 + i] = i << 12 | 7;
		s.cs.db = 0;
		s.cs.l = 1;
		s.cr3 = TABLES;
		s.cr4 = 0x620;
		s.efer = 0x500;
		s.cr0 = 0x80000011;
	}
	assert_int_equal(io(vcpu, KVM_SET_SREGS, &s), 0);
}

static void start(struct guest *g, enum guest_chip chip, bool wide)
{
	struct cpuid c;
	int sys = umbra_open();

	get_cpuid(sys, &c);
	umbra_close(sys);
	guest_start(g, chip, stubs, sizeof(stubs));
	assert_int_equal(io(g->vcpu, KVM_SET_CPUID2, &c), 0);
	set_mode(g, g->vcpu, wide);
}

/* With another bit set or cleared in a leaf of CPUID, and nothing there that it does not say. */
static void start_enforced(struct guest *g, uint32_t function, unsigned reg, uint32_t bits)
{
	struct cpuid c;

	start(g, FULL_CHIP, true);
	get_cpuid(g->sys, &c);
	leaf(&c, 0x40000003)->eax = leaf(&c, 0x40000003)->ebx = leaf(&c, 0x40000003)->edx = 0;
	leaf(&c, 0x40000004)->eax = leaf(&c, 0x40000004)->ebx = 0;
	leaf(&c, 0x40000003)->eax = 1 << 5; /* hypercalls */
	if (function)
		(&leaf(&c, function)->eax)[reg] |= bits;
	assert_int_equal(io(g->vcpu, KVM_SET_CPUID2, &c), 0);
	set_cap(g->vcpu, KVM_CAP_HYPERV_ENFORCE_CPUID, 1);
}

/* Run a stub.  The exit's reason. */
static uint32_t run(struct guest *g, uint64_t stub, const struct kvm_regs *with)
{
	struct kvm_regs regs = *with;

	/* An OUT that is not finished yet would move RIP. */
	g->run->immediate_exit = 1;
	assert_errno(EINTR, io(g->vcpu, KVM_RUN, 0));
	g->run->immediate_exit = 0;
	regs.rip = stub;
	regs.rflags = 2;
	regs.rsp = 0x8000;
	assert_int_equal(io(g->vcpu, KVM_SET_REGS, &regs), 0);
	assert_int_equal(io(g->vcpu, KVM_RUN, 0), 0);
	return g->run->exit_reason;
}

static uint32_t wrmsr(struct guest *g, uint32_t msr, uint64_t val)
{
	return run(g, WRMSR,
		   &(struct kvm_regs){ .rcx = msr, .rax = (uint32_t)val, .rdx = val >> 32 });
}

static uint32_t rdmsr(struct guest *g, uint32_t msr, uint64_t *val)
{
	uint32_t reason = run(g, RDMSR, &(struct kvm_regs){ .rcx = msr });
	struct kvm_regs regs = guest_regs(g);

	*val = regs.rdx << 32 | (uint32_t)regs.rax;
	return reason;
}

#define assert_wrmsr(g, msr, val)    assert_int_equal(wrmsr(g, msr, val), KVM_EXIT_IO)
#define assert_no_wrmsr(g, msr, val) assert_int_equal(wrmsr(g, msr, val), KVM_EXIT_SHUTDOWN)

static uint64_t read_ok(struct guest *g, uint32_t msr)
{
	uint64_t val;

	assert_int_equal(rdmsr(g, msr, &val), KVM_EXIT_IO);
	return val;
}

static void assert_no_rdmsr(struct guest *g, uint32_t msr)
{
	uint64_t val;

	assert_int_equal(rdmsr(g, msr, &val), KVM_EXIT_SHUTDOWN);
}

static long host_msr(int vcpu, unsigned long request, uint32_t msr, uint64_t *val)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head = { .nmsrs = 1 }, .e = { .index = msr, .data = *val } };
	long r = io(vcpu, request, &m);

	*val = m.e.data;
	return r;
}

static uint64_t host_get(struct guest *g, uint32_t msr)
{
	uint64_t val = 0;

	assert_int_equal(host_msr(g->vcpu, KVM_GET_MSRS, msr, &val), 1);
	return val;
}

static long host_set(struct guest *g, uint32_t msr, uint64_t val)
{
	return host_msr(g->vcpu, KVM_SET_MSRS, msr, &val);
}

/* The status of a hypercall by the 64-bit convention. */
static uint64_t call(struct guest *g, uint64_t control, uint64_t in, uint64_t out)
{
	assert_int_equal(
		run(g, VMCALL,
		    &(struct kvm_regs){ .rax = ~0ull, .rcx = control, .rdx = in, .r8 = out }),
		KVM_EXIT_IO);
	return guest_regs(g).rax;
}

static void put64(struct guest *g, unsigned at, uint64_t val)
{
	memcpy(g->mem + at, &val, sizeof(val));
}

static uint64_t get64(const struct guest *g, unsigned at)
{
	uint64_t val;

	memcpy(&val, g->mem + at, sizeof(val));
	return val;
}

static uint32_t get32(const struct guest *g, unsigned at)
{
	uint32_t val;

	memcpy(&val, g->mem + at, sizeof(val));
	return val;
}

static bool requested(struct guest *g, uint8_t vector)
{
	struct kvm_lapic_state s;

	assert_int_equal(io(g->vcpu, KVM_GET_LAPIC, &s), 0);
	return s.regs[0x200 + vector / 32 * 16 + vector % 32 / 8] >> (vector % 8) & 1;
}

static void lapic_on(struct guest *g)
{
	struct kvm_lapic_state s;
	const uint32_t spiv = 0x1ff;

	assert_int_equal(io(g->vcpu, KVM_GET_LAPIC, &s), 0);
	memcpy(s.regs + 0xf0, &spiv, sizeof(spiv));
	assert_int_equal(io(g->vcpu, KVM_SET_LAPIC, &s), 0);
}

static void sleep_ms(unsigned ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };

	nanosleep(&t, NULL);
}

/* ---- tests ---- */

static void test_offered(void **state)
{
	struct cpuid c = { .head = { .nent = 9 } };
	struct guest g;

	guest_start(&g, NO_CHIP, stubs, sizeof(stubs));
	assert_errno(E2BIG, io(g.sys, KVM_GET_SUPPORTED_HV_CPUID, &c));
	assert_errno(E2BIG, io(g.vcpu, KVM_GET_SUPPORTED_HV_CPUID, &c));
	c.head.nent = 256;
	assert_int_equal(io(g.sys, KVM_GET_SUPPORTED_HV_CPUID, &c), 0);
	assert_int_equal(c.head.nent, 10);
	assert_int_equal(leaf(&c, 0x40000000)->eax, 0x40000082);
	assert_int_equal(leaf(&c, 0x40000001)->eax, 0x31237648);
	assert_int_equal(leaf(&c, 0x40000003)->edx >> 19 & 1, 1);
	assert_int_equal(leaf(&c, 0x40000004)->eax >> 14 & 1, 0); /* no enlightened VMCS */
	/* Timers of direct mode need a LAPIC. */
	assert_int_equal(io(g.vcpu, KVM_GET_SUPPORTED_HV_CPUID, &c), 0);
	assert_int_equal(leaf(&c, 0x40000003)->edx >> 19 & 1, 0);
	guest_stop(&g);
}

static void test_without_interface(void **state)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_HYPERV_SYNIC };
	struct guest g;

	guest_start(&g, NO_CHIP, stubs, sizeof(stubs));
	set_mode(&g, g.vcpu, true);
	assert_no_wrmsr(&g, OS_ID, 1);
	assert_no_rdmsr(&g, REF_COUNT);
	assert_no_rdmsr(&g, VP_INDEX);
	/* VMCALL is KVM's. */
	assert_int_equal(call(&g, 0, 0, 0), -1000ull);
	/* The VMM may read and write all the same; what needs a LAPIC, only nothing. */
	assert_int_equal(host_set(&g, OS_ID, 1), 1);
	assert_int_equal(host_get(&g, OS_ID), 1);
	assert_int_equal(call(&g, 0, 0, 0), -1000ull);
	assert_int_equal(host_set(&g, SCONTROL, host_get(&g, SCONTROL)), 1);
	assert_int_equal(host_set(&g, SCONTROL, 1), 0);
	assert_int_equal(host_set(&g, ASSIST, 0), 1);
	assert_int_equal(host_set(&g, ASSIST, PAGE | 1), 0);
	assert_int_equal(host_set(&g, STIMER0_CONFIG, 0), 1);
	assert_int_equal(host_set(&g, STIMER0_CONFIG, 1), 0);
	assert_errno(EINVAL, io(g.vcpu, KVM_ENABLE_CAP, &cap));
	guest_stop(&g);
}

static void test_enforced(void **state)
{
	static const struct {
		uint32_t msr, reg, bit; /* of leaf 0x40000003 */
	} needs[] = {
		{ VP_RUNTIME, 0, 0 }, { REF_COUNT, 0, 1 },	 { SVERSION, 0, 2 },
		{ SINT0, 0, 2 },      { STIMER0_COUNT, 0, 3 },	 { TPR, 0, 4 },
		{ ASSIST, 0, 4 },     { VP_INDEX, 0, 6 },	 { RESET, 0, 7 },
		{ REF_TSC, 0, 9 },    { APIC_FREQUENCY, 0, 11 }, { TSC_EMULATION, 0, 13 },
		{ CRASH_P0, 3, 10 },  { SYNDBG_STATUS, 3, 11 },
	};
	struct guest g;

	for (unsigned i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		start_enforced(&g, 0, 0, 0);
		assert_no_rdmsr(&g, needs[i].msr);
		guest_stop(&g);
		start_enforced(&g, 0x40000003, needs[i].reg, 1u << needs[i].bit);
		read_ok(&g, needs[i].msr);
		guest_stop(&g);
	}
	/* Timers without direct mode */
	start_enforced(&g, 0x40000003, 0, 1 << 2 | 1 << 3);
	set_cap(g.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	assert_wrmsr(&g, STIMER0_CONFIG, 0);
	assert_no_wrmsr(&g, STIMER0_CONFIG, 1 << 12);
	guest_stop(&g);
}

static void test_vcpu_msrs(void **state)
{
	struct guest g;
	uint64_t runtime;

	start(&g, FULL_CHIP, true);
	assert_int_equal(read_ok(&g, VP_INDEX), 0);
	assert_no_wrmsr(&g, VP_INDEX, 1);
	assert_int_equal(host_set(&g, VP_INDEX, 77), 1);
	assert_int_equal(read_ok(&g, VP_INDEX), 77);
	assert_int_equal(host_set(&g, VP_INDEX, 1024), 0);
	assert_int_equal(host_set(&g, VP_RUNTIME, 1000000000000), 1);
	runtime = read_ok(&g, VP_RUNTIME);
	assert_in_range(runtime, 1000000000000, 1000000000000 + 600000000);
	assert_true(read_ok(&g, VP_RUNTIME) > runtime);
	assert_int_equal(read_ok(&g, TSC_FREQUENCY),
			 (uint64_t)io(g.vcpu, KVM_GET_TSC_KHZ, 0) * 1000);
	assert_int_equal(read_ok(&g, APIC_FREQUENCY), 1000000000);
	assert_int_equal(host_set(&g, TSC_FREQUENCY, 1), 1); /* of no effect */
	assert_int_equal(host_set(&g, REF_COUNT, 1), 1);
	assert_no_wrmsr(&g, REF_COUNT, 1);
	/* Reenlightenment is kept, for a guest that migrates. */
	assert_wrmsr(&g, REENLIGHTENMENT, 0x500010050);
	assert_int_equal(host_get(&g, REENLIGHTENMENT), 0x500010050);
	assert_no_wrmsr(&g, TSC_EMULATION_STATUS, 1);
	assert_wrmsr(&g, TSC_EMULATION_STATUS, 0);
	/* One that nobody knows */
	assert_no_rdmsr(&g, 0x40000024);
	assert_no_rdmsr(&g, 0x40000085);
	guest_stop(&g);
}

static void test_hypercall_page(void **state)
{
	static const uint8_t vmcall[] = { 0x0f, 0x01, 0xc1, 0xc3 },
			     vmmcall[] = { 0x0f, 0x01, 0xd9, 0xc3 };
	struct guest g;

	start(&g, NO_CHIP, true);
	/* Not before the guest says who it is. */
	assert_wrmsr(&g, HYPERCALL, PAGE | 1);
	assert_int_equal(read_ok(&g, HYPERCALL), 0);
	assert_wrmsr(&g, OS_ID, 0x8100ull << 48);
	assert_no_wrmsr(&g, HYPERCALL, NOWHERE | 1);
	assert_int_equal(read_ok(&g, HYPERCALL), 0);
	assert_wrmsr(&g, HYPERCALL, PAGE | 1);
	assert_int_equal(read_ok(&g, HYPERCALL), PAGE | 1);
	assert_true(!memcmp(g.mem + PAGE, vmcall, 4) || !memcmp(g.mem + PAGE, vmmcall, 4));
	assert_int_equal(run(&g, CALL, &(struct kvm_regs){ .rbx = PAGE, .rcx = 0xbeef }),
			 KVM_EXIT_IO);
	assert_int_equal(guest_regs(&g).rax, 2); /* no such call */
	/* Locked, it stays. */
	assert_wrmsr(&g, HYPERCALL, PAGE | 3);
	assert_wrmsr(&g, HYPERCALL, INPUT | 1);
	assert_int_equal(read_ok(&g, HYPERCALL), PAGE | 3);
	assert_int_equal(host_set(&g, HYPERCALL, INPUT | 1), 1);
	assert_int_equal(read_ok(&g, HYPERCALL), INPUT | 1);
	/* Nobody is there any more. */
	assert_wrmsr(&g, OS_ID, 0);
	assert_int_equal(read_ok(&g, HYPERCALL), INPUT);
	guest_stop(&g);
}

/* ---- time ---- */

static uint64_t page_time(struct guest *g, uint64_t tsc)
{
	return (uint64_t)((unsigned __int128)tsc * get64(g, PAGE + 8) >> 64) + get64(g, PAGE + 16);
}

static uint64_t now(struct guest *g)
{
	struct kvm_clock_data clock;

	assert_int_equal(io(g->vm, KVM_GET_CLOCK, &clock), 0);
	return clock.clock / 100;
}

#define SECOND 10000000ull

static void test_reference_time(void **state)
{
	struct kvm_clock_data clock = { .clock = 5000 * SECOND * 100 };
	struct guest g;
	uint64_t before, msr, page;
	uint32_t sequence;

	start(&g, NO_CHIP, true);
	before = now(&g);
	msr = read_ok(&g, REF_COUNT);
	assert_in_range(msr, before, now(&g));
	/* A page that is not enabled is not touched. */
	memset(g.mem + PAGE, 0xaa, 24);
	assert_wrmsr(&g, REF_TSC, PAGE);
	assert_int_equal(get32(&g, PAGE), 0xaaaaaaaa);
	assert_wrmsr(&g, REF_TSC, PAGE | 1);
	sequence = get32(&g, PAGE);
	assert_true(sequence && sequence != 0xaaaaaaaa && sequence != 0xffffffff);
	msr = read_ok(&g, REF_COUNT);
	page = page_time(&g, host_get(&g, 0x10));
	assert_in_range(page, msr, msr + SECOND);
	assert_in_range(read_ok(&g, REF_COUNT), page, page + SECOND);
	/* The clock is set: the page says so, under a new sequence. */
	assert_int_equal(io(g.vm, KVM_SET_CLOCK, &clock), 0);
	msr = read_ok(&g, REF_COUNT);
	assert_in_range(msr, 5000 * SECOND, 5100 * SECOND);
	assert_true(get32(&g, PAGE) != sequence);
	sequence = get32(&g, PAGE);
	assert_in_range(page_time(&g, host_get(&g, 0x10)), msr, msr + SECOND);
	/* Nothing has changed: the page stays. */
	assert_int_equal(io(g.vcpu, KVM_KVMCLOCK_CTRL, 0), -1);
	read_ok(&g, REF_COUNT);
	assert_int_equal(get32(&g, PAGE), sequence);
	/* A guest that wants to know first keeps its page, and the MSR goes by it. */
	assert_wrmsr(&g, TSC_EMULATION, 1);
	clock.clock = 0;
	assert_int_equal(io(g.vm, KVM_SET_CLOCK, &clock), 0);
	assert_in_range(read_ok(&g, REF_COUNT), msr, msr + 100 * SECOND);
	assert_int_equal(get32(&g, PAGE), sequence);
	/* Restored elsewhere: the same again. */
	assert_int_equal(host_set(&g, REF_TSC, PAGE | 1), 1);
	assert_in_range(read_ok(&g, REF_COUNT), msr, msr + 100 * SECOND);
	assert_int_equal(get32(&g, PAGE), sequence);
	assert_wrmsr(&g, TSC_EMULATION, 0);
	/* Without the page, time is kvmclock again. */
	assert_wrmsr(&g, REF_TSC, 0);
	assert_in_range(read_ok(&g, REF_COUNT), 0, 100 * SECOND);
	/* Where there is no memory, there is no page. */
	assert_wrmsr(&g, REF_TSC, NOWHERE | 1);
	assert_in_range(read_ok(&g, REF_COUNT), 0, 100 * SECOND);
	guest_stop(&g);
}

/* ---- interrupts ---- */

static void test_apic_msrs(void **state)
{
	struct guest g;

	start(&g, FULL_CHIP, true);
	lapic_on(&g);
	assert_wrmsr(&g, TPR, 0x60);
	assert_int_equal(read_ok(&g, TPR), 0x60);
	assert_wrmsr(&g, ICR, 0x77); /* to APIC id 0 */
	assert_int_equal(read_ok(&g, ICR), 0x77);
	assert_true(requested(&g, 0x77));
	assert_no_rdmsr(&g, EOI);
	assert_wrmsr(&g, EOI, 0);
	/* The first word of the page is the flag, the rest the guest's. */
	memset(g.mem + PAGE, 0xaa, 4096);
	assert_no_wrmsr(&g, ASSIST, NOWHERE | 1);
	assert_wrmsr(&g, ASSIST, PAGE | 1);
	assert_int_equal(read_ok(&g, ASSIST), PAGE | 1);
	assert_int_equal(get32(&g, PAGE), 0);
	assert_int_equal(get32(&g, PAGE + 4), 0xaaaaaaaa);
	assert_int_equal(host_get(&g, 0x4b564d04), PAGE | 1); /* MSR_KVM_PV_EOI_EN */
	assert_wrmsr(&g, ASSIST, 0);
	assert_int_equal(host_get(&g, 0x4b564d04), 0);
	guest_stop(&g);
}

/* The guest's WRMSR, and what the VMM is told of it. */
static void assert_synic_exit(struct guest *g, uint32_t msr, uint64_t val)
{
	assert_int_equal(wrmsr(g, msr, val), KVM_EXIT_HYPERV);
	assert_int_equal(g->run->hyperv.type, KVM_EXIT_HYPERV_SYNIC);
	assert_int_equal(g->run->hyperv.u.synic.msr, msr);
	assert_exit(g, KVM_EXIT_IO); /* the instruction was done */
}

static void start_synic(struct guest *g, uint32_t cap)
{
	start(g, FULL_CHIP, true);
	assert_no_wrmsr(g, SCONTROL, 1);
	set_cap(g->vcpu, cap, 0);
	lapic_on(g);
}

static void test_synic(void **state)
{
	struct guest g;

	start_synic(&g, KVM_CAP_HYPERV_SYNIC);
	assert_int_equal(read_ok(&g, SVERSION), 1);
	assert_int_equal(read_ok(&g, SINT0 + 15), 0x10000);
	assert_no_wrmsr(&g, SINT0 + 1, 5);
	assert_wrmsr(&g, SINT0 + 1, 0x20050);
	assert_int_equal(host_get(&g, SINT0 + 1), 0x20050);
	assert_synic_exit(&g, SCONTROL, 1);
	memset(g.mem + PAGE, 0xaa, 0x2000);
	assert_synic_exit(&g, SIMP, PAGE | 1);
	assert_int_equal(g.run->hyperv.u.synic.control, 1);
	assert_int_equal(g.run->hyperv.u.synic.msg_page, PAGE | 1);
	assert_int_equal(g.run->hyperv.u.synic.evt_page, 0);
	assert_synic_exit(&g, SIEFP, (PAGE + 0x1000) | 1);
	assert_int_equal(g.run->hyperv.u.synic.evt_page, (PAGE + 0x1000) | 1);
	assert_int_equal(get32(&g, PAGE) | get32(&g, PAGE + 0x1ffc), 0); /* cleared */
	assert_no_wrmsr(&g, SIMP, NOWHERE | 1);
	/* The VMM restores pages that have messages in them. */
	memset(g.mem + PAGE, 0xaa, 0x1000);
	assert_int_equal(host_set(&g, SIMP, PAGE | 1), 1);
	assert_int_equal(get32(&g, PAGE), 0xaaaaaaaa);
	assert_wrmsr(&g, EOM, 0);
	assert_int_equal(read_ok(&g, EOM), 0);
	guest_stop(&g);
	/* The newer capability leaves them alone. */
	start_synic(&g, KVM_CAP_HYPERV_SYNIC2);
	memset(g.mem + PAGE, 0xaa, 0x1000);
	assert_synic_exit(&g, SIMP, PAGE | 1);
	assert_int_equal(get32(&g, PAGE), 0xaaaaaaaa);
	guest_stop(&g);
}

/* ---- timers ---- */

#define ENABLE	      1
#define PERIODIC      2
#define AUTO_ENABLE   8
#define DIRECT(vec)   ((uint64_t)(vec) << 4 | 1 << 12)
#define SINT(n)	      ((uint64_t)(n) << 16)
#define SLOT(n)	      (PAGE + (n)*256)
#define TIMER_EXPIRED 0x80000010

static void wait_slot(struct guest *g, unsigned n)
{
	assert_int_equal(run(g, SPIN, &(struct kvm_regs){ .rsi = SLOT(n) }), KVM_EXIT_IO);
}

static void test_timer_messages(void **state)
{
	struct guest g;
	uint64_t t;

	start_synic(&g, KVM_CAP_HYPERV_SYNIC);
	assert_synic_exit(&g, SCONTROL, 1);
	assert_synic_exit(&g, SIMP, PAGE | 1);
	assert_wrmsr(&g, SINT0 + 3, 0x50);
	/* SINT 0 is no timer's. */
	assert_wrmsr(&g, STIMER0_CONFIG, ENABLE);
	assert_int_equal(read_ok(&g, STIMER0_CONFIG), 0);
	/* One shot, enabled by its count */
	assert_wrmsr(&g, STIMER0_CONFIG + 2, SINT(3) | AUTO_ENABLE);
	t = read_ok(&g, REF_COUNT) + SECOND / 50;
	assert_wrmsr(&g, STIMER0_COUNT + 2, t);
	assert_int_equal(read_ok(&g, STIMER0_CONFIG + 2), SINT(3) | AUTO_ENABLE | ENABLE);
	wait_slot(&g, 3);
	assert_int_equal(get32(&g, SLOT(3)), TIMER_EXPIRED);
	assert_int_equal(get32(&g, SLOT(3) + 4), 24); /* payload, no flags */
	assert_int_equal(get32(&g, SLOT(3) + 16), 1);
	assert_int_equal(get64(&g, SLOT(3) + 24), t);
	assert_in_range(get64(&g, SLOT(3) + 32), t, read_ok(&g, REF_COUNT));
	assert_int_equal(read_ok(&g, STIMER0_CONFIG + 2), SINT(3) | AUTO_ENABLE);
	assert_true(requested(&g, 0x50));
	/* The slot is still taken: the message waits, and the guest is told that it does. */
	t = read_ok(&g, REF_COUNT) - 1;
	assert_wrmsr(&g, STIMER0_COUNT + 2, t);
	read_ok(&g, REF_COUNT);
	assert_int_equal(g.mem[SLOT(3) + 5], 1);
	assert_true(get64(&g, SLOT(3) + 24) != t);
	memset(g.mem + SLOT(3), 0, 16);
	read_ok(&g, REF_COUNT);
	assert_int_equal(get32(&g, SLOT(3)), 0);
	assert_wrmsr(&g, EOM, 0);
	read_ok(&g, REF_COUNT);
	assert_int_equal(get32(&g, SLOT(3)), TIMER_EXPIRED);
	assert_int_equal(get64(&g, SLOT(3) + 24), t);
	/* A count of 0 stops it. */
	assert_wrmsr(&g, STIMER0_COUNT + 2, 0);
	assert_int_equal(read_ok(&g, STIMER0_CONFIG + 2), SINT(3) | AUTO_ENABLE);
	guest_stop(&g);
}

static void test_timer_periodic(void **state)
{
	struct guest g;
	uint64_t expiry[3];

	start_synic(&g, KVM_CAP_HYPERV_SYNIC);
	assert_synic_exit(&g, SCONTROL, 1);
	assert_synic_exit(&g, SIMP, PAGE | 1);
	assert_wrmsr(&g, SINT0 + 2, 0x50);
	assert_wrmsr(&g, STIMER0_COUNT, SECOND / 100);
	assert_wrmsr(&g, STIMER0_CONFIG, SINT(2) | PERIODIC | ENABLE);
	for (unsigned i = 0; i < 3; i++) {
		wait_slot(&g, 2);
		expiry[i] = get64(&g, SLOT(2) + 24);
		memset(g.mem + SLOT(2), 0, 256);
	}
	/* In phase, whatever was lost */
	assert_true(expiry[1] > expiry[0] && expiry[2] > expiry[1]);
	assert_int_equal((expiry[1] - expiry[0]) % (SECOND / 100), 0);
	assert_int_equal((expiry[2] - expiry[1]) % (SECOND / 100), 0);
	assert_int_equal(read_ok(&g, STIMER0_CONFIG), SINT(2) | PERIODIC | ENABLE);
	/* Disabled, it is silent. */
	assert_wrmsr(&g, STIMER0_CONFIG, SINT(2) | PERIODIC);
	memset(g.mem + SLOT(2), 0, 256);
	sleep_ms(30);
	read_ok(&g, REF_COUNT);
	assert_int_equal(get32(&g, SLOT(2)), 0);
	/* A period of 100 ns does not stop the guest. */
	assert_wrmsr(&g, STIMER0_COUNT, 1);
	assert_wrmsr(&g, STIMER0_CONFIG, SINT(2) | PERIODIC | ENABLE);
	wait_slot(&g, 2);
	for (unsigned i = 0; i < 100; i++)
		read_ok(&g, REF_COUNT);
	guest_stop(&g);
}

/* Direct mode, and a halted processor that it wakes. */
static void test_timer_direct(void **state)
{
	struct kvm_sregs s;
	struct guest g;
	uint64_t *gate, t;

	start_synic(&g, KVM_CAP_HYPERV_SYNIC2);
	assert_wrmsr(&g, STIMER0_COUNT + 4, read_ok(&g, REF_COUNT));
	assert_wrmsr(&g, STIMER0_CONFIG + 4, DIRECT(0x61) | ENABLE);
	read_ok(&g, REF_COUNT);
	assert_true(requested(&g, 0x61));
	assert_int_equal(read_ok(&g, STIMER0_CONFIG + 4), DIRECT(0x61));
	/* Its handler: OUT to port 0x81. */
	memcpy(g.mem + 0x2000, "\xe6\x81", 2);
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &s), 0);
	s.idt.base = 0x5000;
	s.idt.limit = 0xfff;
	s.gdt.base = 0x7000;
	s.gdt.limit = 15;
	put64(&g, 0x7008, 0x00af9b000000ffff);
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &s), 0);
	for (unsigned vec = 0x61; vec <= 0x62; vec++) {
		gate = (uint64_t *)(g.mem + 0x5000 + vec * 16);
		gate[0] = 0x8e0000080000 | 0x2000;
		gate[1] = 0;
	}
	assert_int_equal(run(&g, WAIT, &(struct kvm_regs){ 0 }), KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	assert_wrmsr(&g, EOI, 0);
	t = read_ok(&g, REF_COUNT) + SECOND / 50;
	assert_wrmsr(&g, STIMER0_COUNT + 6, t);
	assert_wrmsr(&g, STIMER0_CONFIG + 6, DIRECT(0x62) | ENABLE);
	assert_int_equal(run(&g, WAIT, &(struct kvm_regs){ 0 }), KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	assert_true(read_ok(&g, REF_COUNT) >= t);
	guest_stop(&g);
}

/* ---- events for the VMM ---- */

static void test_system_events(void **state)
{
	struct guest g;

	start(&g, NO_CHIP, true);
	assert_int_equal(read_ok(&g, RESET), 0);
	assert_wrmsr(&g, RESET, 0);
	assert_int_equal(wrmsr(&g, RESET, 1), KVM_EXIT_SYSTEM_EVENT);
	assert_int_equal(g.run->system_event.type, KVM_SYSTEM_EVENT_RESET);
	assert_exit(&g, KVM_EXIT_IO);
	/* What the guest may ask for is what the VMM has offered. */
	assert_int_equal(read_ok(&g, CRASH_CTL), 0);
	assert_int_equal(host_set(&g, CRASH_CTL, ~0ull), 1);
	assert_int_equal(read_ok(&g, CRASH_CTL), 1ull << 63);
	for (unsigned i = 0; i < 5; i++)
		assert_wrmsr(&g, CRASH_P0 + i, 0x1000000000 + i);
	assert_wrmsr(&g, CRASH_CTL, 0);
	assert_int_equal(wrmsr(&g, CRASH_CTL, 1ull << 63), KVM_EXIT_SYSTEM_EVENT);
	assert_int_equal(g.run->system_event.type, KVM_SYSTEM_EVENT_CRASH);
	assert_exit(&g, KVM_EXIT_IO);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(host_get(&g, CRASH_P0 + i), 0x1000000000 + i);
	guest_stop(&g);
}

static void test_debugger(void **state)
{
	struct guest g;

	start(&g, NO_CHIP, true);
	assert_wrmsr(&g, SYNDBG_SEND, 0x5000);
	assert_wrmsr(&g, SYNDBG_RECV, 0x6000);
	assert_int_equal(wrmsr(&g, SYNDBG_PENDING, 0x7000), KVM_EXIT_HYPERV);
	assert_int_equal(g.run->hyperv.type, KVM_EXIT_HYPERV_SYNDBG);
	assert_int_equal(g.run->hyperv.u.syndbg.pending_page, 0x7000);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(wrmsr(&g, SYNDBG_CONTROL, 0x101), KVM_EXIT_HYPERV);
	assert_int_equal(g.run->hyperv.u.syndbg.msr, SYNDBG_CONTROL);
	assert_int_equal(g.run->hyperv.u.syndbg.control, 0x101);
	assert_int_equal(g.run->hyperv.u.syndbg.send_page, 0x5000);
	assert_int_equal(g.run->hyperv.u.syndbg.recv_page, 0x6000);
	g.run->hyperv.u.syndbg.status = 0x42;
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(read_ok(&g, SYNDBG_STATUS), 0x42);
	/* Hypercalls, if the guest has chosen them */
	assert_wrmsr(&g, OS_ID, 1);
	assert_int_equal(call(&g, 0x6b, 0, 0), 8);
	assert_int_equal(call(&g, 0x69 | 1 << 16, 0, 0), 3);
	assert_wrmsr(&g, SYNDBG_OPTIONS, 4);
	assert_int_equal(
		run(&g, VMCALL, &(struct kvm_regs){ .rcx = 0x69, .rdx = INPUT, .r8 = PAGE }),
		KVM_EXIT_HYPERV);
	assert_int_equal(g.run->hyperv.type, KVM_EXIT_HYPERV_HCALL);
	assert_int_equal(g.run->hyperv.u.hcall.input, 0x69);
	guest_stop(&g);
}

/* ---- hypercalls ---- */

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
 * A flush is complete when the call returns.  One vCPU counts in the page at 0x8000, the other maps that elsewhere, flushes,
 * and looks whether there is still anybody counting in the old page.
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
		/* again: */
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
		0x75, 0xbe,			    /* jnz again */
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
	put64(&g, INPUT + 8, 1); /* all processors */
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
	assert_int_equal(run(&g, 0x5000, &(struct kvm_regs){ 0 }), KVM_EXIT_IO);
	assert_int_equal(guest_regs(&g).r9, 0);
	assert_true(get64(&g, 0x7000) > 0); /* it counted there, too */
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
		cmocka_unit_test(test_offered),	       cmocka_unit_test(test_without_interface),
		cmocka_unit_test(test_enforced),       cmocka_unit_test(test_vcpu_msrs),
		cmocka_unit_test(test_hypercall_page), cmocka_unit_test(test_reference_time),
		cmocka_unit_test(test_apic_msrs),      cmocka_unit_test(test_synic),
		cmocka_unit_test(test_timer_messages), cmocka_unit_test(test_timer_periodic),
		cmocka_unit_test(test_timer_direct),   cmocka_unit_test(test_system_events),
		cmocka_unit_test(test_debugger),       cmocka_unit_test(test_flush_calls),
		cmocka_unit_test(test_ipi_calls),      cmocka_unit_test(test_messages_and_events),
		cmocka_unit_test(test_call_32bit),     cmocka_unit_test(test_flush_is_complete),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

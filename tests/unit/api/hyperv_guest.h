/* SPDX-License-Identifier: MIT */
/*
 * For tests of Hyper-V's interface: a guest that executes one instruction at a time, in 64-bit or
 * flat 32-bit mode at CPL 0, with registers that the test gives it.  An exception is a shutdown,
 * because there is no IDT.
 */
#ifndef TEST_API_HYPERV_GUEST_H
#define TEST_API_HYPERV_GUEST_H

#include "guest.h"

#include <stdbool.h>

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

static inline struct kvm_cpuid_entry2 *leaf(struct cpuid *c, uint32_t function)
{
	for (unsigned i = 0; i < c->head.nent; i++) {
		if (c->e[i].function == function)
			return &c->e[i];
	}
	return NULL;
}

/* What is supported, with Hyper-V's leaves in place of KVM's. */
static inline void get_cpuid(int sys, struct cpuid *c)
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

static inline void set_cap(int vcpu, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg } };

	assert_int_equal(io(vcpu, KVM_ENABLE_CAP, &c), 0);
}

static inline void set_mode(struct guest *g, int vcpu, bool wide)
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

static inline void start(struct guest *g, enum guest_chip chip, bool wide)
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
static inline void start_enforced(struct guest *g, uint32_t function, unsigned reg, uint32_t bits)
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
static inline uint32_t run(struct guest *g, uint64_t stub, const struct kvm_regs *with)
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

static inline uint32_t wrmsr(struct guest *g, uint32_t msr, uint64_t val)
{
	return run(g, WRMSR,
		   &(struct kvm_regs){ .rcx = msr, .rax = (uint32_t)val, .rdx = val >> 32 });
}

static inline uint32_t rdmsr(struct guest *g, uint32_t msr, uint64_t *val)
{
	uint32_t reason = run(g, RDMSR, &(struct kvm_regs){ .rcx = msr });
	struct kvm_regs regs = guest_regs(g);

	*val = regs.rdx << 32 | (uint32_t)regs.rax;
	return reason;
}

#define assert_wrmsr(g, msr, val)    assert_int_equal(wrmsr(g, msr, val), KVM_EXIT_IO)
#define assert_no_wrmsr(g, msr, val) assert_int_equal(wrmsr(g, msr, val), KVM_EXIT_SHUTDOWN)

static inline uint64_t read_ok(struct guest *g, uint32_t msr)
{
	uint64_t val;

	assert_int_equal(rdmsr(g, msr, &val), KVM_EXIT_IO);
	return val;
}

static inline void assert_no_rdmsr(struct guest *g, uint32_t msr)
{
	uint64_t val;

	assert_int_equal(rdmsr(g, msr, &val), KVM_EXIT_SHUTDOWN);
}

static inline long host_msr(int vcpu, unsigned long request, uint32_t msr, uint64_t *val)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head = { .nmsrs = 1 }, .e = { .index = msr, .data = *val } };
	long r = io(vcpu, request, &m);

	*val = m.e.data;
	return r;
}

static inline uint64_t host_get(struct guest *g, uint32_t msr)
{
	uint64_t val = 0;

	assert_int_equal(host_msr(g->vcpu, KVM_GET_MSRS, msr, &val), 1);
	return val;
}

static inline long host_set(struct guest *g, uint32_t msr, uint64_t val)
{
	return host_msr(g->vcpu, KVM_SET_MSRS, msr, &val);
}

/* The status of a hypercall by the 64-bit convention. */
static inline uint64_t call(struct guest *g, uint64_t control, uint64_t in, uint64_t out)
{
	assert_int_equal(
		run(g, VMCALL,
		    &(struct kvm_regs){ .rax = ~0ull, .rcx = control, .rdx = in, .r8 = out }),
		KVM_EXIT_IO);
	return guest_regs(g).rax;
}

static inline void put64(struct guest *g, unsigned at, uint64_t val)
{
	memcpy(g->mem + at, &val, sizeof(val));
}

static inline uint64_t get64(const struct guest *g, unsigned at)
{
	uint64_t val;

	memcpy(&val, g->mem + at, sizeof(val));
	return val;
}

static inline uint32_t get32(const struct guest *g, unsigned at)
{
	uint32_t val;

	memcpy(&val, g->mem + at, sizeof(val));
	return val;
}

static inline bool requested(struct guest *g, uint8_t vector)
{
	struct kvm_lapic_state s;

	assert_int_equal(io(g->vcpu, KVM_GET_LAPIC, &s), 0);
	return s.regs[0x200 + vector / 32 * 16 + vector % 32 / 8] >> (vector % 8) & 1;
}

static inline void lapic_on(struct guest *g)
{
	struct kvm_lapic_state s;
	const uint32_t spiv = 0x1ff;

	assert_int_equal(io(g->vcpu, KVM_GET_LAPIC, &s), 0);
	memcpy(s.regs + 0xf0, &spiv, sizeof(spiv));
	assert_int_equal(io(g->vcpu, KVM_SET_LAPIC, &s), 0);
}

#endif

// SPDX-License-Identifier: MIT
/*
 * State of a vCPU: what is set is what is got, and what the processor could not be in is refused.
 */
#include "guest.h"

#include <stdlib.h>

static const uint8_t hlt[] = { 0xf4 };

static void start(struct guest *g, enum guest_chip chip)
{
	guest_start(g, chip, hlt, sizeof(hlt));
}

static void fill(void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)p)[i] = (uint8_t)(i * 37 + 11);
}

static void test_regs(void **state)
{
	struct kvm_regs a, b;
	struct guest g;

	start(&g, NO_CHIP);
	fill(&a, sizeof(a));
	a.rflags = 0x202;
	assert_int_equal(io(g.vcpu, KVM_SET_REGS, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_REGS, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	a.rflags = 0; /* bit 1 is always 1 */
	assert_int_equal(io(g.vcpu, KVM_SET_REGS, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_REGS, &b), 0);
	assert_int_equal(b.rflags, 2);
	guest_stop(&g);
}

/* 64-bit mode, as a VMM sets it up. */
static void long_mode(struct kvm_sregs *s)
{
	s->cr0 = 0x80050033;
	s->cr3 = 0x4000;
	s->cr4 = 0x20;
	s->efer = 0xd01;
	s->cs = (struct kvm_segment){ .limit = 0xffffffff,
				      .selector = 0x10,
				      .type = 11,
				      .present = 1,
				      .s = 1,
				      .l = 1,
				      .g = 1 };
	s->ds = (struct kvm_segment){ .limit = 0xffffffff,
				      .selector = 0x18,
				      .type = 3,
				      .present = 1,
				      .s = 1,
				      .db = 1,
				      .g = 1 };
	s->es = s->fs = s->gs = s->ss = s->ds;
	s->fs.base = 0x7ffff7d8a740;
	s->gdt = (struct kvm_dtable){ .base = 0xffff888000001000, .limit = 0x7f };
	s->idt = (struct kvm_dtable){ .base = 0xffff888000002000, .limit = 0xfff };
	s->tr = (struct kvm_segment){ .base = 0xffff888000003000,
				      .limit = 0x67,
				      .selector = 0x40,
				      .type = 11,
				      .present = 1 };
	s->ldt = (struct kvm_segment){ .unusable = 1 };
}

static void test_sregs(void **state)
{
	struct kvm_sregs a, b, bad;
	struct guest g;

	start(&g, NO_CHIP);
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &a), 0);
	long_mode(&a);
	a.cr8 = 5;
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));

	/* Combinations that no processor is in. */
	static const struct {
		size_t where;
		uint64_t val;
	} wrong[] = {
		{ offsetof(struct kvm_sregs, cr4), 0 },		     /* paging without PAE */
		{ offsetof(struct kvm_sregs, cr4), 1 << 15 | 0x20 }, /* reserved */
		{ offsetof(struct kvm_sregs, cr4), 1 << 13 | 0x20 }, /* VMXE */
		{ offsetof(struct kvm_sregs, efer), 0x101 },	     /* LME and PG, not LMA */
		{ offsetof(struct kvm_sregs, efer), 0x401 },	     /* LMA, not LME */
		{ offsetof(struct kvm_sregs, efer), 0x8000d01 },     /* reserved */
		{ offsetof(struct kvm_sregs, cr0), 0x80000000 },     /* PG, not PE */
		{ offsetof(struct kvm_sregs, cr0), 0xa0050033 },     /* NW, not CD */
		{ offsetof(struct kvm_sregs, cr0), 0x180050033 },    /* high half */
		{ offsetof(struct kvm_sregs, cr3), 1ull << 60 },     /* too wide */
		{ offsetof(struct kvm_sregs, cr8), 16 },
		{ offsetof(struct kvm_sregs, apic_base), 1ull << 60 },
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		bad = a;
		memcpy((char *)&bad + wrong[i].where, &wrong[i].val, sizeof(uint64_t));
		errno = 0;
		if (io(g.vcpu, KVM_SET_SREGS, &bad) != -1 || errno != EINVAL)
			fail_msg("row %zu was taken", i);
		assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &b), 0);
		assert_memory_equal(&a, &b, sizeof(a));
	}
	/* A pending interrupt, in the bitmap. */
	a.interrupt_bitmap[1] = 1ull << 9;
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	guest_stop(&g);
}

static void test_sregs2(void **state)
{
	struct kvm_sregs s;
	struct kvm_sregs2 a, b;
	struct guest g;

	start(&g, NO_CHIP);
	/* PAE paging, with PDPTEs that are not in memory. */
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &s), 0);
	s.cr0 = 0x80000031;
	s.cr4 = 0x20;
	s.cr3 = 0x4000;
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS2, &a), 0);
	assert_int_equal(a.flags, KVM_SREGS2_FLAGS_PDPTRS_VALID);
	assert_int_equal(a.cr3, 0x4000);
	a.pdptrs[2] = 0x5001;
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS2, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS2, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	a.cr0 = 0x11; /* PDPTEs without paging */
	assert_errno(EINVAL, io(g.vcpu, KVM_SET_SREGS2, &a));
	guest_stop(&g);
}

static void test_fpu(void **state)
{
	struct kvm_fpu a, b;
	struct guest g;

	start(&g, NO_CHIP);
	assert_int_equal(io(g.vcpu, KVM_GET_FPU, &a), 0);
	assert_int_equal(a.fcw, 0x37f);
	assert_int_equal(a.mxcsr, 0x1f80);
	fill(&a, sizeof(a));
	a.pad1 = 0;
	a.pad2 = 0;
	a.mxcsr = 0x1fa0;
	for (unsigned i = 0; i < 8; i++)
		memset(&a.fpr[i][10], 0, 6);
	assert_int_equal(io(g.vcpu, KVM_SET_FPU, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_FPU, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	guest_stop(&g);
}

static void test_xsave(void **state)
{
	static struct kvm_xsave a, b; /* static: zero */
	struct kvm_fpu fpu;
	struct guest g;

	start(&g, NO_CHIP);
	assert_int_equal(io(g.vcpu, KVM_GET_FPU, &fpu), 0);
	fill(fpu.xmm, sizeof(fpu.xmm));
	assert_int_equal(io(g.vcpu, KVM_SET_FPU, &fpu), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_XSAVE, &a), 0);
	assert_memory_equal((uint8_t *)&a + 160, fpu.xmm, 256);
	((uint8_t *)&a)[160] ^= 0xff;
	assert_int_equal(io(g.vcpu, KVM_SET_XSAVE, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_XSAVE2, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	a.region[128] |= 1u << 31; /* XSTATE_BV: a component that doesn't exist */
	assert_errno(EINVAL, io(g.vcpu, KVM_SET_XSAVE, &a));
	a.region[128] &= ~(1u << 31);
	a.region[6] = 0xffffffff; /* MXCSR: reserved bits */
	assert_errno(EINVAL, io(g.vcpu, KVM_SET_XSAVE, &a));
	guest_stop(&g);
}

static void test_xcrs(void **state)
{
	struct kvm_xcrs a, b;
	struct guest g;

	start(&g, NO_CHIP);
	if (io(g.vcpu, KVM_GET_XCRS, &a)) { /* a host without XSAVE */
		guest_stop(&g);
		return;
	}
	assert_int_equal(a.nr_xcrs, 1);
	assert_int_equal(a.xcrs[0].value, 1);
	a.xcrs[0].value = 3;
	assert_int_equal(io(g.vcpu, KVM_SET_XCRS, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_XCRS, &b), 0);
	assert_int_equal(b.xcrs[0].value, 3);
	a.xcrs[0].value = 1ull << 62 | 3;
	assert_errno(EINVAL, io(g.vcpu, KVM_SET_XCRS, &a));
	guest_stop(&g);
}

static void test_debugregs(void **state)
{
	struct kvm_debugregs a = { .db = { 1, 2, 3, 4 },
				   .dr6 = 0xffff4ff1,
				   .dr7 = 0x0000055 | 0x400 };
	struct kvm_debugregs b;
	struct guest g;

	start(&g, NO_CHIP);
	assert_int_equal(io(g.vcpu, KVM_SET_DEBUGREGS, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_DEBUGREGS, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	guest_stop(&g);
}

static void test_events(void **state)
{
	struct kvm_vcpu_events a, b;
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } };
	struct guest g;

	start(&g, NO_CHIP);
	assert_int_equal(io(g.vcpu, KVM_GET_VCPU_EVENTS, &a), 0);
	a.exception.injected = 1;
	a.exception.nr = 13;
	a.exception.has_error_code = 1;
	a.exception.error_code = 0x18;
	a.interrupt.injected = 1;
	a.interrupt.nr = 0x51;
	a.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	a.nmi.pending = 1;
	a.nmi.masked = 1;
	assert_int_equal(io(g.vcpu, KVM_SET_VCPU_EVENTS, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_VCPU_EVENTS, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	/* With payloads the exception is pending, and CR2 is not touched. */
	assert_int_equal(io(g.vm, KVM_ENABLE_CAP, &cap), 0);
	a.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	a.exception.injected = 0;
	a.exception.pending = 1;
	a.exception.nr = 14;
	a.exception_has_payload = 1;
	a.exception_payload = 0x12345678;
	assert_int_equal(io(g.vcpu, KVM_SET_VCPU_EVENTS, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_VCPU_EVENTS, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	guest_stop(&g);
}

static void test_msrs(void **state)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e[4];
	} m = { .head = { .nmsrs = 3 } };
	struct guest g;

	start(&g, NO_CHIP);
	m.e[0] = (struct kvm_msr_entry){ .index = 0xc0000082, .data = 0xffffffff81000000 };
	m.e[1] = (struct kvm_msr_entry){ .index = 0x12345 };
	m.e[2] = (struct kvm_msr_entry){ .index = 0xc0000081, .data = 5 };
	assert_int_equal(io(g.vcpu, KVM_SET_MSRS, &m), 1); /* up to the one that doesn't exist */
	m.head.nmsrs = 1;
	m.e[0].data = 0;
	assert_int_equal(io(g.vcpu, KVM_GET_MSRS, &m), 1);
	assert_int_equal(m.e[0].data, 0xffffffff81000000);
	m.e[0] = (struct kvm_msr_entry){ .index = 0xc0000081, .data = 7 };
	assert_int_equal(io(g.vcpu, KVM_GET_MSRS, &m), 1);
	assert_int_equal(m.e[0].data, 0);
	/* Feature MSRs, on the system descriptor. */
	m.e[0] = (struct kvm_msr_entry){ .index = 0x10a };
	assert_int_equal(io(g.sys, KVM_GET_MSRS, &m), 1);
	assert_true(m.e[0].data & 1);
	m.e[0].index = 0xc0000081;
	assert_int_equal(io(g.sys, KVM_GET_MSRS, &m), 0);
	guest_stop(&g);
}

/* A VMM saves and restores every MSR of the list, with and without a LAPIC. */
static void test_all_listed_msrs(void **state)
{
	struct {
		struct kvm_msr_list head;
		uint32_t index[256];
	} list;
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e[256];
	} *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	for (int chip = NO_CHIP; chip <= SPLIT_CHIP; chip++) {
		struct guest g;

		start(&g, (enum guest_chip)chip);
		list.head.nmsrs = 255;
		assert_int_equal(io(g.sys, KVM_GET_MSR_INDEX_LIST, &list), 0);
		m->head.nmsrs = list.head.nmsrs;
		for (unsigned i = 0; i < list.head.nmsrs; i++)
			m->e[i].index = list.index[i];
		assert_int_equal(io(g.vcpu, KVM_GET_MSRS, m), list.head.nmsrs);
		assert_int_equal(io(g.vcpu, KVM_SET_MSRS, m), list.head.nmsrs);
		guest_stop(&g);
	}
	free(m);
}

static void test_cpuid_is_fixed_after_run(void **state)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[256];
	} c = { .head = { .nent = 256 } };
	struct guest g;

	start(&g, NO_CHIP);
	assert_int_equal(io(g.vcpu, KVM_GET_CPUID2, &c), 0);
	assert_int_equal(io(g.vcpu, KVM_SET_CPUID2, &c), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(io(g.vcpu, KVM_SET_CPUID2, &c), 0);
	c.e[1].ecx ^= 1;
	assert_errno(EINVAL, io(g.vcpu, KVM_SET_CPUID2, &c));
	c.e[1].ecx ^= 1;
	c.head.nent--;
	assert_errno(EINVAL, io(g.vcpu, KVM_SET_CPUID2, &c));
	c.head.nent = 2;
	assert_errno(E2BIG, io(g.vcpu, KVM_GET_CPUID2, &c));
	guest_stop(&g);
}

static void test_mp_state_and_lapic(void **state)
{
	struct kvm_mp_state mp;
	struct kvm_lapic_state a, b;
	struct guest g;

	start(&g, FULL_CHIP);
	assert_int_equal(io(g.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	mp.mp_state = KVM_MP_STATE_HALTED;
	assert_int_equal(io(g.vcpu, KVM_SET_MP_STATE, &mp), 0);
	mp.mp_state = 0;
	assert_int_equal(io(g.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_HALTED);
	mp.mp_state = 77;
	assert_errno(EINVAL, io(g.vcpu, KVM_SET_MP_STATE, &mp));
	assert_int_equal(io(g.vcpu, KVM_GET_LAPIC, &a), 0);
	a.regs[0x80] = 0x30; /* TPR */
	assert_int_equal(io(g.vcpu, KVM_SET_LAPIC, &a), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_LAPIC, &b), 0);
	assert_int_equal((uint8_t)b.regs[0x80], 0x30);
	guest_stop(&g);
}

static void test_tsc(void **state)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head = { .nmsrs = 1 }, .e = { .index = 0x10 } };
	struct guest g;
	uint64_t before;
	int khz, other;

	start(&g, NO_CHIP);
	khz = io(g.vcpu, KVM_GET_TSC_KHZ, 0);
	assert_true(khz > 100000);
	assert_int_equal(io(g.vm, KVM_GET_TSC_KHZ, 0), khz);
	assert_int_equal(io(g.vcpu, KVM_GET_MSRS, &m), 1);
	before = m.e.data;
	assert_true(before < (uint64_t)khz * 1000 * 60); /* starts at 0 with the VM */
	/* A new rate goes on from there. */
	assert_int_equal(io(g.vcpu, KVM_SET_TSC_KHZ, khz / 2), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_TSC_KHZ, 0), khz / 2);
	assert_int_equal(io(g.vcpu, KVM_GET_MSRS, &m), 1);
	assert_true(m.e.data >= before && m.e.data < before + (uint64_t)khz * 1000 * 30);
	assert_int_equal(io(g.vcpu, KVM_SET_TSC_KHZ, 0), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_TSC_KHZ, 0), khz);
	/* Two vCPUs restored one after the other end up in step. */
	other = io(g.vm, KVM_CREATE_VCPU, 1);
	m.e.data = 1ull << 50;
	assert_int_equal(io(g.vcpu, KVM_SET_MSRS, &m), 1);
	m.e.data = (1ull << 50) + 1000;
	assert_int_equal(io(other, KVM_SET_MSRS, &m), 1);
	struct kvm_clock_data clock;

	assert_int_equal(io(g.vm, KVM_GET_CLOCK, &clock), 0);
	assert_true(clock.flags & KVM_CLOCK_TSC_STABLE);
	m.e.data = 1ull << 55;
	assert_int_equal(io(other, KVM_SET_MSRS, &m), 1);
	assert_int_equal(io(g.vm, KVM_GET_CLOCK, &clock), 0);
	assert_false(clock.flags & KVM_CLOCK_TSC_STABLE);
	assert_int_equal(umbra_close(other), 0);
	guest_stop(&g);
}

static void test_translate(void **state)
{
	struct kvm_translation t = { .linear_address = 0x2345 };
	uint64_t *pml4, *pdpt, *pd;
	struct kvm_sregs s;
	struct guest g;

	start(&g, NO_CHIP);
	assert_int_equal(io(g.vcpu, KVM_TRANSLATE, &t), 0);
	assert_int_equal(t.valid, 1);
	assert_int_equal(t.physical_address, 0x2345);
	/* 64-bit: 0xffff800000000000 -> 0, by a large page. */
	pml4 = (uint64_t *)(g.mem + 0x4000);
	pdpt = (uint64_t *)(g.mem + 0x5000);
	pd = (uint64_t *)(g.mem + 0x6000);
	pml4[256] = 0x5003;
	pdpt[0] = 0x6003;
	pd[0] = 0x83;
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &s), 0);
	long_mode(&s);
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &s), 0);
	t.linear_address = 0xffff800000003456;
	assert_int_equal(io(g.vcpu, KVM_TRANSLATE, &t), 0);
	assert_int_equal(t.valid, 1);
	assert_int_equal(t.physical_address, 0x3456);
	t.linear_address = 0x3456;
	assert_int_equal(io(g.vcpu, KVM_TRANSLATE, &t), 0);
	assert_int_equal(t.valid, 0);
	/* A look leaves no trace. */
	assert_int_equal(pd[0], 0x83);
	guest_stop(&g);
}

static void test_machine_check(void **state)
{
	uint64_t cap = 10 | 1 << 8;
	struct kvm_x86_mce mce = { .status = 1ull << 63 | 0x9, .addr = 0x1000, .bank = 3 };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e[2];
	} m = { .head = { .nmsrs = 2 }, .e = { { .index = 0x40d }, { .index = 0x40e } } };
	struct guest g;

	start(&g, NO_CHIP);
	assert_int_equal(io(g.vcpu, KVM_X86_SETUP_MCE, &cap), 0);
	assert_int_equal(io(g.vcpu, KVM_X86_SET_MCE, &mce), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_MSRS, &m), 2);
	assert_int_equal(m.e[0].data, mce.status);
	assert_int_equal(m.e[1].data, 0x1000);
	/* An uncorrected one that needs no action is told like a corrected one. */
	mce.status |= 1ull << 61;
	mce.addr = 0x2000;
	assert_int_equal(io(g.vcpu, KVM_X86_SET_MCE, &mce), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_MSRS, &m), 2);
	assert_int_equal(m.e[1].data, 0x2000);
	/* Any other one, with CR4.MCE clear: shutdown. */
	mce.mcg_status = 1 << 2;
	assert_int_equal(io(g.vcpu, KVM_X86_SET_MCE, &mce), 0);
	assert_exit(&g, KVM_EXIT_SHUTDOWN);
	guest_stop(&g);
}

/*
 * An event is the first thing that happens after the VMM has changed the mode: it is delivered by
 * the new one, here with 57 bits of linear address, that descriptor tables are in.
 */
static void test_event_in_new_mode(void **state)
{
	static const uint8_t code[] = { 0xf4 }; /* hlt */
	const uint64_t high = 1ull << 55;
	struct kvm_vcpu_events e;
	struct kvm_sregs s;
	struct kvm_regs r = { .rip = GUEST_CODE, .rflags = 2, .rsp = 0x8000 };
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	/* Root, its two tables' one, one of 1 GiB pages; a gate for #UD; a code segment. */
	*(uint64_t *)(g.mem + 0x2000) = *(uint64_t *)(g.mem + 0x2000 + 128 * 8) = 0x3003;
	*(uint64_t *)(g.mem + 0x3000) = 0x4003;
	*(uint64_t *)(g.mem + 0x4000) = 0x83;
	*(uint64_t *)(g.mem + 0x5000 + 6 * 16) = 0x00008e0000080000 | 0x6000;
	*(uint64_t *)(g.mem + 0x7008) = 0x00209b0000000000;
	g.mem[0x6000] = 0xf4;
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &s), 0);
	s.cr0 = 0x80000011;
	s.cr3 = 0x3000;
	s.cr4 = 1 << 5; /* PAE */
	s.efer = 0x500;
	s.cs = (struct kvm_segment){ .selector = 8, .present = 1, .s = 1, .type = 11, .l = 1 };
	s.ss = (struct kvm_segment){ .unusable = 1 };
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &s), 0);
	assert_exit(&g, KVM_EXIT_HLT);

	s.cr3 = 0x2000;
	s.cr4 |= 1 << 12; /* LA57 */
	s.idt.base = high + 0x5000;
	s.idt.limit = 0xfff;
	s.gdt.base = high + 0x7000;
	s.gdt.limit = 15;
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(io(g.vcpu, KVM_SET_REGS, &r), 0);
	assert_int_equal(io(g.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	e.exception.injected = 1;
	e.exception.nr = 6;
	assert_int_equal(io(g.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(io(g.vcpu, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rip, 0x6001);
	guest_stop(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_regs),
		cmocka_unit_test(test_sregs),
		cmocka_unit_test(test_sregs2),
		cmocka_unit_test(test_fpu),
		cmocka_unit_test(test_xsave),
		cmocka_unit_test(test_xcrs),
		cmocka_unit_test(test_debugregs),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_msrs),
		cmocka_unit_test(test_all_listed_msrs),
		cmocka_unit_test(test_cpuid_is_fixed_after_run),
		cmocka_unit_test(test_mp_state_and_lapic),
		cmocka_unit_test(test_tsc),
		cmocka_unit_test(test_translate),
		cmocka_unit_test(test_machine_check),
		cmocka_unit_test(test_event_in_new_mode),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

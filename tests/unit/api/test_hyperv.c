// SPDX-License-Identifier: MIT
/*
 * Hyper-V's interface: what is offered, MSRs as guest and VMM see them, time, SynIC, timers, and
 * the exits that they cause.
 */
#include "hyperv_guest.h"

#include <time.h>

static void sleep_ms(unsigned ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };

	nanosleep(&t, NULL);
}

/* ---- what there is ---- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_offered),	       cmocka_unit_test(test_without_interface),
		cmocka_unit_test(test_enforced),       cmocka_unit_test(test_vcpu_msrs),
		cmocka_unit_test(test_hypercall_page), cmocka_unit_test(test_reference_time),
		cmocka_unit_test(test_apic_msrs),      cmocka_unit_test(test_synic),
		cmocka_unit_test(test_timer_messages), cmocka_unit_test(test_timer_periodic),
		cmocka_unit_test(test_timer_direct),   cmocka_unit_test(test_system_events),
		cmocka_unit_test(test_debugger),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * System-management mode as a VMM sees it: KVM_SMI, the state in SMRAM, what KVM_GET_VCPU_EVENTS
 * and kvm_run.flags say, the second address space, and what waits until RSM.
 */
#include "guest.h"

#include <stdbool.h>
#include <sys/time.h>

#define SMBASE	    0x30000
#define SMRAM_SIZE  0x30000 /* room for SMBASE at 0x30000, 0x40000, 0x50000 */
#define HANDLER	    0x8000
#define SMM_SLOT(n) (1u << 16 | (n))
#define MSR_SMBASE  0x9e
#define MSR_SMICNT  0x34
#define PORT	    0x10

/* Offsets from SMBASE, of the 64-bit map and the 32-bit one. */
#define MAP64_HALT   0xfec9
#define MAP64_EFER   0xfed0
#define MAP64_REV    0xfefc
#define MAP64_SMBASE 0xff00
#define MAP64_CR4    0xff48
#define MAP64_CR3    0xff50
#define MAP64_CR0    0xff58
#define MAP64_RFLAGS 0xff70
#define MAP64_RIP    0xff78
#define MAP64_RBX    0xffe0
#define MAP64_RAX    0xfff8
#define MAP32_SMBASE 0xfef8
#define MAP32_REV    0xfefc
#define MAP32_SS_SEL 0xffb0
#define MAP32_EBX    0xffdc
#define MAP32_EIP    0xfff0
#define MAP32_CR0    0xfffc

/* Each writes one letter to the port; the handler what is at 0x2000, too. */
asm(".pushsection .rodata\n"
    ".code16\n"
    "main_code: mov $'M', %al; out %al, $0x10; mov $'m', %al; out %al, $0x10; hlt\n"
    "main_end:\n"
    "rsm_code: rsm\n"
    "rsm_end:\n"
    "handler: mov $'S', %al; out %al, $0x10; mov 0x2000, %al; out %al, $0x10; rsm\n"
    "handler_end:\n"
    "vector_code: mov $'V', %al; out %al, $0x10; iret\n"
    "vector_end:\n"
    "reset_code: mov $'R', %al; out %al, $0x10\n"
    "reset_end:\n"
    ".code64\n"
    ".popsection\n");
extern const uint8_t main_code[], main_end[], rsm_code[], rsm_end[], handler[], handler_end[],
	vector_code[], vector_end[], reset_code[], reset_end[];

struct machine {
	struct guest g;
	uint8_t *smram, *low; /* of the second address space: at SMBASE, at 0 */
};

static void set_slot(struct machine *m, unsigned slot, uint64_t gpa, uint64_t size, const void *p)
{
	struct kvm_userspace_memory_region r = { slot, 0, gpa, size, (uintptr_t)p };

	assert_int_equal(io(m->g.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
}

static void *memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void init_code(struct machine *m, enum guest_chip chip, const uint8_t *code,
		      const uint8_t *end)
{
	guest_start(&m->g, chip, code, (size_t)(end - code));
	m->smram = memory(SMRAM_SIZE);
	m->low = memory(GUEST_MEM);
	set_slot(m, SMM_SLOT(0), SMBASE, SMRAM_SIZE, m->smram);
	set_slot(m, SMM_SLOT(1), 0, GUEST_MEM, m->low);
	memcpy(m->smram + HANDLER, handler, (size_t)(handler_end - handler));
	m->g.mem[0x2000] = 'a';
	m->low[0x2000] = 'b';
}

static void init(struct machine *m, enum guest_chip chip)
{
	init_code(m, chip, main_code, main_end);
}

static void destroy(struct machine *m)
{
	guest_stop(&m->g);
	munmap(m->smram, SMRAM_SIZE);
	munmap(m->low, GUEST_MEM);
}

/* KVM_RUN, which comes back with @c for the port, in SMM or not. */
static void expect(struct machine *m, char c, bool smm)
{
	struct kvm_run *run = m->g.run;

	assert_int_equal(io(m->g.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(run->io.port, PORT);
	assert_int_equal(((uint8_t *)run)[run->io.data_offset], c);
	assert_int_equal(run->flags, smm ? KVM_RUN_X86_SMM : 0);
}

static void expect_exit(struct machine *m, uint32_t reason)
{
	assert_int_equal(io(m->g.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(m->g.run->exit_reason, reason);
}

static struct kvm_vcpu_events events(struct machine *m)
{
	struct kvm_vcpu_events e;

	assert_int_equal(io(m->g.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	assert_true(e.flags & KVM_VCPUEVENT_VALID_SMM);
	return e;
}

static uint64_t get_msr(struct machine *m, uint32_t msr)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} l = { { .nmsrs = 1 }, { .index = msr } };

	assert_int_equal(io(m->g.vcpu, KVM_GET_MSRS, &l), 1);
	return l.e.data;
}

static uint64_t map64(struct machine *m, unsigned offset)
{
	uint64_t v;

	memcpy(&v, m->smram + offset, sizeof(v));
	return v;
}

static uint32_t map32(struct machine *m, unsigned offset)
{
	return (uint32_t)map64(m, offset);
}

static void put64(struct machine *m, unsigned offset, uint64_t v)
{
	memcpy(m->smram + offset, &v, sizeof(v));
}

static void smi(struct machine *m)
{
	assert_int_equal(io(m->g.vcpu, KVM_SMI, 0), 0);
}

/* There and back: what is saved, what the handler's memory is, what it changes in the map. */
static void test_round_trip(void **state)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct machine m;

	init(&m, NO_CHIP);
	expect(&m, 'M', false);
	smi(&m);
	expect(&m, 'S', true);
	assert_int_equal(map64(&m, MAP64_RIP), GUEST_CODE + 4);
	assert_int_equal(map64(&m, MAP64_RFLAGS), 2);
	assert_int_equal(map64(&m, MAP64_RAX) & 0xff, 'M');
	assert_int_equal(map32(&m, MAP64_SMBASE), SMBASE);
	assert_int_equal(map32(&m, MAP64_REV), 0x20064);
	assert_int_equal(map64(&m, MAP64_CR0), 0x60000010);
	assert_int_equal(get_msr(&m, MSR_SMBASE), SMBASE);
	assert_int_equal(get_msr(&m, MSR_SMICNT), 1);
	assert_int_equal(events(&m).smi.smm, 1);
	assert_int_equal(events(&m).smi.pending, 0);
	assert_int_equal(events(&m).smi.smm_inside_nmi, 0);
	assert_int_equal(events(&m).nmi.masked, 1);

	assert_int_equal(io(m.g.vcpu, KVM_GET_SREGS, &sregs), 0);
	assert_int_equal(sregs.cs.base, SMBASE);
	assert_int_equal(sregs.cs.selector, SMBASE >> 4);
	assert_int_equal(sregs.ds.limit, 0xffffffff);
	assert_int_equal(sregs.cr4, 0);
	assert_int_equal(sregs.efer, 0);

	expect(&m, 'b', true);
	put64(&m, MAP64_RBX, 0x123456789abcdef0);
	expect(&m, 'm', false);
	assert_int_equal(io(m.g.vcpu, KVM_GET_REGS, &regs), 0);
	assert_int_equal(regs.rbx, 0x123456789abcdef0);
	assert_int_equal(regs.rip, GUEST_CODE + 8 - 2);
	assert_int_equal(events(&m).smi.smm, 0);
	assert_int_equal(events(&m).nmi.masked, 0);
	expect_exit(&m, KVM_EXIT_HLT);
	destroy(&m);
}

/* A processor without long mode has the 32-bit map. */
static void test_map32(void **state)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[256];
	} c = { .head = { .nent = 256 } };
	struct kvm_regs regs;
	struct machine m;

	init(&m, NO_CHIP);
	assert_int_equal(io(m.g.sys, KVM_GET_SUPPORTED_CPUID, &c), 0);
	for (unsigned i = 0; i < c.head.nent; i++) {
		if (c.e[i].function == 0x80000001)
			c.e[i].edx &= ~(1u << 29);
	}
	assert_int_equal(io(m.g.vcpu, KVM_SET_CPUID2, &c), 0);
	expect(&m, 'M', false);
	smi(&m);
	expect(&m, 'S', true);
	assert_int_equal(map32(&m, MAP32_EIP), GUEST_CODE + 4);
	assert_int_equal(map32(&m, MAP32_SMBASE), SMBASE);
	assert_int_equal(map32(&m, MAP32_REV), 0x20000);
	assert_int_equal(map32(&m, MAP32_CR0), 0x60000010);
	memcpy(m.smram + MAP32_EBX, "\x11\x22\x33\x44", 4);
	memcpy(m.smram + MAP32_SS_SEL, "\x55\x66", 2);
	expect(&m, 'b', true);
	expect(&m, 'm', false);
	assert_int_equal(io(m.g.vcpu, KVM_GET_REGS, &regs), 0);
	assert_int_equal(regs.rbx, 0x44332211);
	destroy(&m);
}

/* One SMI can wait while another is served; a third one is lost. */
static void test_pending(void **state)
{
	struct machine m;

	init(&m, NO_CHIP);
	expect(&m, 'M', false);
	smi(&m);
	expect(&m, 'S', true);
	smi(&m);
	smi(&m);
	assert_int_equal(events(&m).smi.pending, 1);
	expect(&m, 'b', true);
	expect(&m, 'S', true);
	assert_int_equal(events(&m).smi.pending, 0);
	expect(&m, 'b', true);
	expect(&m, 'm', false);
	assert_int_equal(get_msr(&m, MSR_SMICNT), 2);
	destroy(&m);
}

/* The handler moves SMBASE: the next SMI goes there. */
static void test_relocation(void **state)
{
	struct machine m;
	uint32_t base = SMBASE + 0x20000;

	init(&m, NO_CHIP);
	expect(&m, 'M', false);
	smi(&m);
	expect(&m, 'S', true);
	memcpy(m.smram + MAP64_SMBASE, &base, 4);
	expect(&m, 'b', true);
	expect(&m, 'm', false);
	assert_int_equal(get_msr(&m, MSR_SMBASE), base);
	m.smram[0x20000 + HANDLER] = 0xb0;
	m.smram[0x20000 + HANDLER + 1] = 'T';
	memcpy(m.smram + 0x20000 + HANDLER + 2, handler + 2, (size_t)(handler_end - handler) - 2);
	smi(&m);
	expect(&m, 'T', true);
	assert_int_equal(map32(&m, 0x20000 + MAP64_SMBASE), base);
	expect(&m, 'b', true);
	expect_exit(&m, KVM_EXIT_HLT);
	destroy(&m);
}

/* NMIs wait for RSM; if they were masked before, they still are. */
static void test_nmi(void **state)
{
	struct kvm_vcpu_events e;
	struct machine m;

	init(&m, NO_CHIP);
	memcpy(m.g.mem + 0x3000, vector_code, (size_t)(vector_end - vector_code));
	memcpy(m.g.mem + 2 * 4, "\0\x30\0", 4);
	expect(&m, 'M', false);
	smi(&m);
	expect(&m, 'S', true);
	assert_int_equal(io(m.g.vcpu, KVM_NMI, 0), 0);
	expect(&m, 'b', true);
	expect(&m, 'V', false);
	/* Inside the NMI's handler. */
	smi(&m);
	expect(&m, 'S', true);
	assert_int_equal(events(&m).smi.smm_inside_nmi, 1);
	expect(&m, 'b', true);
	expect(&m, 'm', false);
	assert_int_equal(events(&m).nmi.masked, 0);
	expect_exit(&m, KVM_EXIT_HLT);

	/* Both at once: the SMI is first, then the NMI, before the handler's "return". */
	e = events(&m);
	e.nmi.pending = 1;
	e.smi.pending = 1;
	e.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SMM;
	assert_int_equal(io(m.g.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	expect(&m, 'S', true);
	expect(&m, 'b', true);
	expect(&m, 'V', false);
	destroy(&m);
}

/* INIT waits for RSM; SIPI and the states that they make can't be set. */
static void test_init(void **state)
{
	static const uint32_t states[] = { KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_SIPI_RECEIVED };
	struct kvm_vcpu_events e;
	struct kvm_mp_state mp;
	uint8_t *rom = memory(GUEST_MEM);
	struct machine m;

	init(&m, FULL_CHIP);
	memcpy(rom + 0xfff0, reset_code, (size_t)(reset_end - reset_code));
	set_slot(&m, 1, 0xffff0000, GUEST_MEM, rom);
	expect(&m, 'M', false);
	smi(&m);
	expect(&m, 'S', true);
	for (unsigned i = 0; i < 2; i++) {
		mp.mp_state = states[i];
		assert_errno(EINVAL, io(m.g.vcpu, KVM_SET_MP_STATE, &mp));
	}
	e = events(&m);
	e.smi.latched_init = 1;
	assert_int_equal(io(m.g.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	expect(&m, 'b', true);
	assert_int_equal(events(&m).smi.latched_init, 1);
	expect(&m, 'R', false);
	assert_int_equal(events(&m).smi.latched_init, 0);
	assert_int_equal(get_msr(&m, MSR_SMBASE), SMBASE);
	destroy(&m);
	munmap(rom, GUEST_MEM);
}

static void on_alarm(int sig) {}

/* A halted processor takes SMIs; RSM halts it again, unless the handler says otherwise. */
static void test_halt(void **state)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	struct itimerval soon = { .it_value = { .tv_usec = 50000 } };
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_HALTED };
	struct machine m;

	sigaction(SIGALRM, &sa, NULL);
	init(&m, FULL_CHIP);
	expect(&m, 'M', false);
	assert_int_equal(io(m.g.vcpu, KVM_SET_MP_STATE, &mp), 0);
	smi(&m);
	expect(&m, 'S', true);
	assert_int_equal(m.smram[MAP64_HALT], 1);
	assert_int_equal(io(m.g.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	expect(&m, 'b', true);
	setitimer(ITIMER_REAL, &soon, NULL);
	assert_errno(EINTR, io(m.g.vcpu, KVM_RUN, 0));
	assert_int_equal(io(m.g.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_HALTED);
	assert_int_equal(events(&m).smi.smm, 0);

	smi(&m);
	expect(&m, 'S', true);
	m.smram[MAP64_HALT] = 0;
	expect(&m, 'b', true);
	expect(&m, 'm', false);

	/* Not halted: the flag is clear. */
	smi(&m);
	expect(&m, 'S', true);
	assert_int_equal(m.smram[MAP64_HALT], 0);
	destroy(&m);
}

/* RSM refuses states that no processor can be in. */
static void test_bad_state(void **state)
{
	static const struct {
		unsigned offset;
		uint64_t val;
	} bad[] = {
		{ MAP64_CR0, 0x80000010 },  /* PG without PE */
		{ MAP64_CR0, 0x20000010 },  /* NW without CD */
		{ MAP64_CR0, 0x100000010 }, /* high bits */
		{ MAP64_CR4, 1u << 31 },    /* reserved */
		{ MAP64_CR4, 1u << 17 },    /* PCIDE without long mode */
		{ MAP64_EFER, 1ull << 63 }, /* reserved */
	};
	struct machine m;
	uint64_t good;

	init(&m, NO_CHIP);
	expect(&m, 'M', false);
	smi(&m);
	expect(&m, 'S', true);
	expect(&m, 'b', true);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		good = map64(&m, bad[i].offset);
		put64(&m, bad[i].offset, bad[i].val);
		expect_exit(&m, KVM_EXIT_SHUTDOWN);
		put64(&m, bad[i].offset, good);
	}
	/* Long mode without PAE; with it, but a wrong CR3; and virtual-8086 mode there. */
	put64(&m, MAP64_CR0, 0x80000011);
	put64(&m, MAP64_EFER, 0x100);
	expect_exit(&m, KVM_EXIT_SHUTDOWN);
	put64(&m, MAP64_CR4, 0x20);
	put64(&m, MAP64_CR3, 1ull << 62);
	expect_exit(&m, KVM_EXIT_SHUTDOWN);
	put64(&m, MAP64_CR3, 0);
	put64(&m, MAP64_RFLAGS, 0x20002);
	expect_exit(&m, KVM_EXIT_SHUTDOWN);

	/* PAE paging with a reserved bit in a PDPTE, which is in the memory outside of SMM. */
	put64(&m, MAP64_EFER, 0);
	put64(&m, MAP64_RFLAGS, 2);
	put64(&m, MAP64_CR3, 0x4000);
	m.g.mem[0x4000] = 7;
	expect_exit(&m, KVM_EXIT_SHUTDOWN);

	put64(&m, MAP64_CR0, 0x60000010);
	put64(&m, MAP64_CR4, 0);
	expect(&m, 'm', false);
	destroy(&m);
}

/* RSM is an undefined opcode elsewhere. */
static void test_rsm_outside(void **state)
{
	struct machine m;

	init_code(&m, NO_CHIP, rsm_code, rsm_end);
	memcpy(m.g.mem + 0x3000, vector_code, (size_t)(vector_end - vector_code));
	memcpy(m.g.mem + 6 * 4, "\0\x30\0", 4);
	expect(&m, 'V', false);
	destroy(&m);
}

/* The VMM puts a vCPU into SMM, and takes it out. */
static void test_set_events(void **state)
{
	struct kvm_vcpu_events e;
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_INIT_RECEIVED };
	struct machine m;

	init(&m, FULL_CHIP);
	memcpy(m.low + GUEST_CODE, "\xb0\x4c\xe6\x10", 4); /* 'L' */
	e = events(&m);
	e.smi.smm = 1;
	e.smi.smm_inside_nmi = 1;
	assert_int_equal(io(m.g.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	e = events(&m);
	assert_int_equal(e.smi.smm, 1);
	assert_int_equal(e.smi.smm_inside_nmi, 1);
	expect(&m, 'L', true);
	e.smi.smm = 0;
	assert_int_equal(io(m.g.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	assert_int_equal(events(&m).smi.smm_inside_nmi, 0);
	expect(&m, 'm', false);

	assert_int_equal(io(m.g.vcpu, KVM_SET_MP_STATE, &mp), 0);
	e.smi.pending = 1;
	assert_errno(EINVAL, io(m.g.vcpu, KVM_SET_VCPU_EVENTS, &e));
	destroy(&m);
}

/* No memory where the state should go. */
static void test_no_smram(void **state)
{
	struct machine m;

	init(&m, NO_CHIP);
	set_slot(&m, SMM_SLOT(0), SMBASE, 0, NULL);
	expect(&m, 'M', false);
	smi(&m);
	expect_exit(&m, KVM_EXIT_INTERNAL_ERROR);
	assert_int_equal(m.g.run->flags, KVM_RUN_X86_SMM);
	/* The handler appears, but the state does not; and then it goes again. */
	set_slot(&m, SMM_SLOT(0), SMBASE, SMRAM_SIZE, m.smram);
	expect(&m, 'S', true);
	expect(&m, 'b', true);
	set_slot(&m, SMM_SLOT(0), SMBASE, 0, NULL);
	set_slot(&m, SMM_SLOT(0), SMBASE, 0x9000, m.smram);
	expect_exit(&m, KVM_EXIT_INTERNAL_ERROR);
	destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_map32),
		cmocka_unit_test(test_pending),	    cmocka_unit_test(test_relocation),
		cmocka_unit_test(test_nmi),	    cmocka_unit_test(test_init),
		cmocka_unit_test(test_halt),	    cmocka_unit_test(test_bad_state),
		cmocka_unit_test(test_rsm_outside), cmocka_unit_test(test_set_events),
		cmocka_unit_test(test_no_smram),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* Event delivery: every kind of gate, stack and mode, and the error code of every check. */
#include "machine.h"

#define HIGH 0xffff800000000000ull

static const struct um_event extint = { .vector = 0x30, .kind = UM_EVENT_EXTINT };
static const struct um_event gp = {
	.vector = UM_VEC_GP, .kind = UM_EVENT_FAULT, .has_error = true, .error_code = 0x1234
};

static void real_mode(void **state)
{
	struct machine *m = *state;

	m_real(m);
	m->x.cpu.rflags |= RFLAGS_TF | RFLAGS_AC | RFLAGS_CF;
	m_put(m, 0x30 * 4, 0x1230ul << 16 | 0x4567, 4);
	assert_true(m_deliver(m, &extint));
	assert_int_equal(m->x.cpu.rip, 0x4567);
	assert_int_equal(m->x.cpu.seg[UM_CS].selector, 0x1230);
	assert_int_equal(m->x.cpu.seg[UM_CS].base, 0x12300);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK - 6);
	assert_int_equal(m->x.cpu.rflags, RFLAGS_FIXED1 | RFLAGS_CF);
	EXPECT_STACK(m, KSTACK - 6, 2, CODE_AT, 0, 0x303);
}

/* No error code is pushed in real mode, and a frame may wrap around SP. */
static void real_mode_wrap(void **state)
{
	struct machine *m = *state;

	m_real(m);
	m->x.cpu.gpr[UM_RSP] = 0x12340002;
	assert_true(m_deliver(m, &gp));
	assert_int_equal(m->x.cpu.gpr[UM_RSP], 0x1234fffc);
	assert_int_equal(m_get(m, 0, 2), RFLAGS_FIXED1 | RFLAGS_IF);
	EXPECT_STACK(m, 0xfffc, 2, CODE_AT, 0);
	/* An odd SP of 1 would put a word at 0xffff: #SS. */
	m_real(m);
	m->x.cpu.gpr[UM_RSP] = 1;
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_SS, 1);
}

static void real_mode_limit(void **state)
{
	struct machine *m = *state;

	m_real(m);
	m->x.cpu.idt.limit = 0x30 * 4 + 2;
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_GP, 0x30 * 8 + 3);
}

static void prot_same_privilege(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m->x.cpu.rflags |= RFLAGS_TF | RFLAGS_NT | RFLAGS_ZF;
	assert_true(m_deliver(m, &gp));
	m_expect_at(m, CS32, HANDLER);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK - 16);
	assert_int_equal(m->x.cpu.rflags, RFLAGS_FIXED1 | RFLAGS_ZF);
	/* A fault is saved with RF. */
	EXPECT_STACK(m, KSTACK - 16, 4, 0x1234, CODE_AT, CS32, 0x14342 | RFLAGS_IF);
}

static void prot_trap_gate_keeps_if(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m_idt(m, 0x30, m_gate_make(CS32, HANDLER, UM_SYS_TRAPGATE, 0, 0), 0);
	assert_true(m_deliver(m, &extint));
	assert_int_equal(m->x.cpu.rflags, RFLAGS_FIXED1 | RFLAGS_IF);
	/* An interrupt is saved without RF. */
	EXPECT_STACK(m, KSTACK - 12, 4, CODE_AT, CS32, RFLAGS_FIXED1 | RFLAGS_IF);
}

static void prot_inner(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	assert_true(m_deliver(m, &gp));
	m_expect_at(m, CS32, HANDLER);
	assert_int_equal(m->x.cpu.cpl, 0);
	assert_int_equal(m->x.cpu.seg[UM_SS].selector, DS32);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK0 - 24);
	/* The data segments stay as they were. */
	assert_int_equal(m->x.cpu.seg[UM_DS].selector, UDS32);
	EXPECT_STACK(m, STACK0 - 24, 4, 0x1234, CODE_AT, UCS32, 0x10202, STACK3, UDS32);
}

static void prot_to_ring1(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	m_idt(m, 0x30, m_gate_make(CS1 & ~3, HANDLER, UM_SYS_INTGATE, 3, 0), 0);
	assert_true(m_deliver(m, &extint));
	m_expect_at(m, CS1, HANDLER);
	assert_int_equal(m->x.cpu.cpl, 1);
	assert_int_equal(m->x.cpu.seg[UM_SS].selector, DS1);
	EXPECT_STACK(m, STACK1 - 20, 4, CODE_AT, UCS32, 0x202, STACK3, UDS32);
}

static void prot_gate16(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	m_idt(m, 0x30, m_gate_make(CS16, 0xabcd7000, UM_SYS_INTGATE16, 0, 0), 0);
	assert_true(m_deliver(m, &extint));
	m_expect_at(m, CS16, 0x7000);
	assert_int_equal(m->x.mode, UM_MODE_16);
	EXPECT_STACK(m, STACK0 - 10, 2, CODE_AT, UCS32, 0x202, STACK3, UDS32);
}

static void prot_conforming(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	m_idt(m, 0x30, m_gate_make(CCS32, HANDLER, UM_SYS_INTGATE, 0, 0), 0);
	assert_true(m_deliver(m, &extint));
	m_expect_at(m, CCS32 | 3, HANDLER);
	assert_int_equal(m->x.cpu.cpl, 3);
	EXPECT_STACK(m, STACK3 - 12, 4, CODE_AT, UCS32, 0x202);
}

/* A 16-bit TSS: its stacks are two words each. */
static void prot_tss16(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	m->x.cpu.tr.type = UM_SYS_TSS16_BUSY;
	m_put(m, TSS_AT + 2, 0x8000, 2);
	m_put(m, TSS_AT + 4, DS16, 2);
	assert_true(m_deliver(m, &extint));
	assert_int_equal(m->x.cpu.seg[UM_SS].selector, DS16);
	/* The 16-bit stack: only SP is new. */
	assert_int_equal(m->x.cpu.gpr[UM_RSP], 0x8000 - 20);
	EXPECT_STACK(m, 0x8000 - 20, 4, CODE_AT, UCS32, 0x202, STACK3, UDS32);
}

static void soft_int(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	RUN(m, 0xcd, 0x80);
	m_expect_fault(m, UM_VEC_GP, 0x80 * 8 + 2);
	m_idt(m, 0x80, m_gate_make(CS32, HANDLER, UM_SYS_TRAPGATE, 3, 0), 0);
	RUN(m, 0xcd, 0x80);
	m_expect_at(m, CS32, HANDLER);
	EXPECT_STACK(m, STACK0 - 20, 4, CODE_AT + 2, UCS32, 0x202, STACK3, UDS32);
}

/* INT3, INTO and INT1 go to the vCPU layer, with what it needs to deliver them. */
static void soft_exceptions(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	RUN(m, 0xcc);
	assert_int_equal(m->x.exit.kind, UM_EXIT_EXCEPTION);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_BP);
	assert_int_equal(m->x.exit.exc.kind, UM_EVENT_SOFT_EXC);
	assert_false(m_deliver(m, &m->x.exit.exc));
	m_expect_fault(m, UM_VEC_GP, UM_VEC_BP * 8 + 2); /* the gate's DPL is 0 */

	RUN(m, 0xce);
	m_expect_next(m);
	m_prot32(m, 3);
	m->x.cpu.rflags |= RFLAGS_OF;
	RUN(m, 0xce);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_OF);

	m->x.cpu.rip = CODE_AT;
	RUN(m, 0xf1);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_DB);
	assert_int_equal(m->x.exit.exc.kind, UM_EVENT_PRIV_EXC);
	struct um_event e = m->x.exit.exc;
	assert_true(m_deliver(m, &e)); /* no DPL check */
	assert_int_equal(m_get(m, STACK0 - 20, 4), CODE_AT + 1);
	assert_int_equal(m->x.cpu.dr6, DR6_FIXED1);
}

struct gate_case {
	const char *what;
	u64 gate;
	unsigned vec;
	u32 code; /* with EXT */
};

/* Each check of an IDT gate in protected mode, with its error code. */
static void prot_gate_checks(void **state)
{
	struct machine *m = *state;
	const u32 idt = 0x30 * 8 + 3;
	const struct gate_case cases[] = {
		{ "call gate", m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 0, 0), UM_VEC_GP, idt },
		{ "code segment", m_desc_make(0, 0xffff, T_CODE, 0, "pd"), UM_VEC_GP, idt },
		{ "zero", 0, UM_VEC_GP, idt },
		{ "absent gate", m_gate_make(CS32, HANDLER, UM_SYS_INTGATE, 0, 0) & ~BIT(47),
		  UM_VEC_NP, idt },
		{ "null CS", m_gate_make(3, HANDLER, UM_SYS_INTGATE, 0, 0), UM_VEC_GP, 1 },
		{ "CS beyond GDT", m_gate_make(GDT_END, HANDLER, UM_SYS_INTGATE, 0, 0), UM_VEC_GP,
		  GDT_END | 1 },
		{ "CS beyond LDT", m_gate_make(0x44, HANDLER, UM_SYS_INTGATE, 0, 0), UM_VEC_GP,
		  0x45 },
		{ "data as CS", m_gate_make(DS32, HANDLER, UM_SYS_INTGATE, 0, 0), UM_VEC_GP,
		  DS32 | 1 },
		{ "TSS as CS", m_gate_make(TSS, HANDLER, UM_SYS_INTGATE, 0, 0), UM_VEC_GP,
		  TSS | 1 },
		{ "outer CS", m_gate_make(UCS32, HANDLER, UM_SYS_INTGATE, 0, 0), UM_VEC_GP,
		  (UCS32 & ~3) | 1 },
		{ "absent CS", m_gate_make(ABSENTC, HANDLER, UM_SYS_INTGATE, 0, 0), UM_VEC_NP,
		  ABSENTC | 1 },
		{ "EIP beyond limit", m_gate_make(CS16, 0x10000, UM_SYS_INTGATE, 0, 0), UM_VEC_GP,
		  1 },
		{ "task gate, null", m_gate_make(0, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_GP, 1 },
		{ "task gate, LDT", m_gate_make(TSSB | 4, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_GP,
		  TSSB | 5 },
		{ "task gate, busy TSS", m_gate_make(TSS, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_GP,
		  TSS | 1 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, 0);
		m_idt(m, 0x30, cases[n].gate, 0);
		print_message("%s\n", cases[n].what);
		assert_false(m_deliver(m, &extint));
		m_expect_fault(m, cases[n].vec, cases[n].code);
	}
	m_prot32(m, 0);
	m->x.cpu.idt.limit = 0x30 * 8 + 6;
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_GP, idt);
}

/* Each check of the stack that the TSS gives. */
static void prot_stack_checks(void **state)
{
	struct machine *m = *state;
	static const struct {
		u16 ss;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ 0, UM_VEC_TS, 1 },
		{ GDT_END, UM_VEC_TS, GDT_END | 1 },
		{ DS32 | 3, UM_VEC_TS, DS32 | 1 },	     /* RPL */
		{ UDS32 & ~3, UM_VEC_TS, (UDS32 & ~3) | 1 }, /* DPL */
		{ RODATA, UM_VEC_TS, RODATA | 1 },
		{ CS32, UM_VEC_TS, CS32 | 1 },
		{ ABSENT, UM_VEC_SS, ABSENT | 1 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, 3);
		m_put(m, TSS_AT + 8, cases[n].ss, 2);
		assert_false(m_deliver(m, &extint));
		m_expect_fault(m, cases[n].vec, cases[n].code);
	}
	/* No room: the frame would go below offset 0 of a small segment... */
	m_prot32(m, 3);
	m_desc(m, FREE, m_desc_make(0, 0xfff, T_DATA, 0, "pd"), 0);
	m_put(m, TSS_AT + 8, FREE, 2);
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_SS, FREE | 1);
	/* ... or into the forbidden part of an expand-down one. */
	m_put(m, TSS_AT + 8, DOWN, 2);
	m_put(m, TSS_AT + 4, 0x1010, 4);
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_SS, DOWN | 1);
	m_put(m, TSS_AT + 4, 0x1014, 4);
	assert_true(m_deliver(m, &extint));
	assert_int_equal(m->x.cpu.gpr[UM_RSP], 0x1000);
	/* The TSS is too short for its stack. */
	m_prot32(m, 3);
	m->x.cpu.tr.limit = 8;
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_TS, TSS | 1);
}

/* A page fault on anything leaves registers as they were, and the second try works. */
static void faults_are_restartable(void **state)
{
	struct machine *m = *state;
	static const u32 pages[] = { IDT_AT, GDT_AT, TSS_AT, STACK0 - 0x1000 };

	for (unsigned n = 0; n < ARRAY_SIZE(pages); n++) {
		m_prot32(m, 3);
		m->absent[pages[n] >> 12] = 1;
		assert_false(m_deliver(m, &gp));
		assert_int_equal(m->x.exit.exc.payload & ~0xfffull, pages[n]);
		/* Tables are read with supervisor rights. */
		m_expect_fault(m, UM_VEC_PF, pages[n] == STACK0 - 0x1000 ? PFERR_WRITE : 0);
		m->absent[pages[n] >> 12] = 0;
		assert_true(m_deliver(m, &gp));
		m_expect_at(m, CS32, HANDLER);
	}
	/* The frame crosses into a page that is not there. */
	m_prot32(m, 3);
	m_put(m, TSS_AT + 4, 0x8008, 4);
	m->absent[7] = 1;
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_PF, PFERR_WRITE);
	m->absent[7] = 0;
	assert_true(m_deliver(m, &extint));
	EXPECT_STACK(m, 0x8008 - 20, 4, CODE_AT, UCS32, 0x202, STACK3, UDS32);
}

static void accessed_bits(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	assert_int_equal(m_desc_get(m, CS32) >> 40 & 1, 0);
	assert_true(m_deliver(m, &extint));
	assert_int_equal(m_desc_get(m, CS32) >> 40 & 1, 1);
	assert_int_equal(m_desc_get(m, DS32) >> 40 & 1, 1);
	/* Set already: the table isn't written, so it may be read-only. */
	m->readonly[GDT_AT >> 12] = 1;
	m->x.cpu.cpl = 3;
	assert_true(m_deliver(m, &extint));
	m->readonly[GDT_AT >> 12] = 0;
}

/* ---- virtual-8086 mode ---- */

static void vm86_to_ring0(void **state)
{
	struct machine *m = *state;

	m_vm86(m, 3);
	m->x.cpu.rip = 0x6000;
	assert_true(m_deliver(m, &gp));
	m_expect_at(m, CS32, HANDLER);
	assert_int_equal(m->x.cpu.cpl, 0);
	assert_false(m->x.cpu.rflags & RFLAGS_VM);
	assert_true(m->x.cpu.seg[UM_DS].unusable && m->x.cpu.seg[UM_GS].unusable);
	EXPECT_STACK(m, STACK0 - 40, 4, 0x1234, 0x6000, 0, 0x33202, STACK3, 0, 0, 0x500, 0, 0);
}

static void vm86_refuses_outer_handlers(void **state)
{
	struct machine *m = *state;

	m_vm86(m, 3);
	m_idt(m, 0x30, m_gate_make(CS1 & ~3, HANDLER, UM_SYS_INTGATE, 0, 0), 0);
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_GP, (CS1 & ~3) | 1);
	m_idt(m, 0x30, m_gate_make(CCS32, HANDLER, UM_SYS_INTGATE, 0, 0), 0);
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_GP, CCS32 | 1);
}

/* SDM vol. 3 table 20-2: INT n by VME, IOPL and the redirection map. */
static void vm86_soft_int(void **state)
{
	struct machine *m = *state;

	for (unsigned vme = 0; vme < 2; vme++)
		for (unsigned iopl = 0; iopl <= 3; iopl += 3)
			for (unsigned bit = 0; bit < 2; bit++) {
				m_vm86(m, iopl);
				m->x.cpu.cr4 |= vme ? CR4_VME : 0;
				m->x.cpu.rflags |= RFLAGS_VIF;
				m->x.cpu.rflags &= ~RFLAGS_IF;
				m_idt(m, 0x21, m_gate_make(CS32, HANDLER, UM_SYS_INTGATE, 3, 0), 0);
				/* The map: 32 bytes below the I/O map. */
				m_put(m, TSS_AT + IOMAP - 32 + 4, bit ? 2 : 0, 1);
				m_put(m, 0x21 * 4, 0x0123ul << 16 | 0x4321, 4);
				RUN(m, 0xcd, 0x21);
				if (vme && !bit) {
					m_expect_at(m, 0x123, 0x4321);
					assert_int_equal(m->x.cpu.cpl, 3);
					assert_true(m->x.cpu.rflags & RFLAGS_VM);
					assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK3 - 6);
					/*
					 * IOPL 3 shows IF as it is, IOPL 0 shows VIF in its place.
					 */
					EXPECT_STACK(m, STACK3 - 6, 2, CODE_AT + 2, 0,
						     iopl == 3 ? 0x3002 : 0x3202);
					assert_int_equal(!!(m->x.cpu.rflags & RFLAGS_VIF),
							 iopl == 3);
				} else if (iopl == 3) {
					m_expect_at(m, CS32, HANDLER);
					assert_int_equal(m->x.cpu.cpl, 0);
				} else {
					m_expect_fault(m, UM_VEC_GP, 0);
				}
			}
}

/* ---- 64-bit mode ---- */

static void long_same_privilege(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	m->x.cpu.gpr[UM_RSP] = HIGH + KSTACK - 8;
	assert_true(m_deliver(m, &gp));
	m_expect_at(m, CS64, HIGH + HANDLER);
	/* Aligned to 16, and SS:RSP pushed always; SS stays. */
	assert_int_equal(m->x.cpu.gpr[UM_RSP], HIGH + KSTACK - 16 - 48);
	assert_int_equal(m->x.cpu.seg[UM_SS].selector, DS32);
	EXPECT_STACK(m, KSTACK - 64, 8, 0x1234, CODE_AT, CS64, 0x10202, HIGH + KSTACK - 8, DS32);
}

static void long_inner(void **state)
{
	struct machine *m = *state;

	m_long64(m, 3);
	assert_true(m_deliver(m, &extint));
	m_expect_at(m, CS64, HIGH + HANDLER);
	assert_int_equal(m->x.cpu.cpl, 0);
	assert_int_equal(m->x.cpu.seg[UM_SS].selector, 0);
	assert_true(m->x.cpu.seg[UM_SS].unusable);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], HIGH + STACK0 - 40);
	EXPECT_STACK(m, STACK0 - 40, 8, CODE_AT, UCS64, 0x202, STACK3, UDS32);
}

static void long_from_compat(void **state)
{
	struct machine *m = *state;

	m_compat(m, 3);
	assert_true(m_deliver(m, &extint));
	m_expect_at(m, CS64, HIGH + HANDLER);
	EXPECT_STACK(m, STACK0 - 40, 8, CODE_AT, UCS32, 0x202, STACK3, UDS32);
	/* Frame and table across pages, at addresses that 32 bits don't hold. */
	m_compat(m, 3);
	m_put(m, TSS_AT + 4, HIGH + 0x8010, 8);
	assert_true(m_deliver(m, &extint));
	EXPECT_STACK(m, 0x8010 - 40, 8, CODE_AT, UCS32, 0x202, STACK3, UDS32);
}

static void long_ist(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	m_idt(m, 2, m_gate_make(CS64, HANDLER, UM_SYS_INTGATE, 0, 1), 0xffff8000);
	assert_true(m_deliver(m, &(struct um_event){ .vector = 2, .kind = UM_EVENT_NMI }));
	assert_int_equal(m->x.cpu.gpr[UM_RSP], HIGH + ISTACK - 40);
	assert_true(m->x.cpu.nmi_masked);
	/* An IST entry beyond the TSS's limit. */
	m_long64(m, 0);
	m_idt(m, 0x30, m_gate_make(CS64, HANDLER, UM_SYS_INTGATE, 0, 1), 0xffff8000);
	m->x.cpu.tr.limit = 0x2a;
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_TS, TSS | 1);
	/* One that isn't canonical. */
	m->x.cpu.tr.limit = 0x67;
	m_put(m, TSS_AT + 0x24, 0x800000000000ull, 8);
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_SS, 1);
}

static void long_gate_checks(void **state)
{
	struct machine *m = *state;
	const u32 idt = 0x30 * 8 + 3;
	const struct {
		u64 gate, hi;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ m_gate_make(CS64, HANDLER, UM_SYS_INTGATE16, 0, 0), 0, UM_VEC_GP, idt },
		{ m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0), 0, UM_VEC_GP, idt },
		{ m_gate_make(CS64, HANDLER, UM_SYS_INTGATE, 0, 0) & ~BIT(47), 0, UM_VEC_NP, idt },
		{ m_gate_make(CS32, HANDLER, UM_SYS_INTGATE, 0, 0), 0, UM_VEC_GP, CS32 | 1 },
		{ m_gate_make(0, HANDLER, UM_SYS_INTGATE, 0, 0), 0, UM_VEC_GP, 1 },
		{ m_gate_make(CS64, HANDLER, UM_SYS_INTGATE, 0, 0), 0x8000, UM_VEC_GP, 1 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_long64(m, 0);
		m_idt(m, 0x30, cases[n].gate, cases[n].hi);
		assert_false(m_deliver(m, &extint));
		m_expect_fault(m, cases[n].vec, cases[n].code);
	}
	m_long64(m, 3);
	RUN(m, 0xcd, 0x21);
	m_expect_fault(m, UM_VEC_GP, 0x21 * 8 + 2);
	m_long64(m, 3);
	m_put(m, TSS_AT + 4, 0x800000000000ull, 8);
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_SS, 1);
	m_long64(m, 0);
	m->x.cpu.gpr[UM_RSP] = 0x800000000010ull;
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_SS, 1);
}

/* ---- payloads, RF, debug state ---- */

static void payloads(void **state)
{
	struct machine *m = *state;
	struct um_event pf = { .vector = UM_VEC_PF,
			       .kind = UM_EVENT_FAULT,
			       .has_error = true,
			       .error_code = 6,
			       .payload = 0xdead0000 };
	struct um_event db = { .vector = UM_VEC_DB, .kind = UM_EVENT_TRAP, .payload = DR6_BS | 2 };

	m_long64(m, 0);
	assert_true(m_deliver(m, &pf));
	assert_int_equal(m->x.cpu.cr2, 0xdead0000);
	/*
	 * B0-B3 are replaced, the rest adds up; the handler runs with GD off and is saved without
	 * RF.
	 */
	m->x.cpu.rip = CODE_AT;
	m->x.cpu.dr6 = DR6_FIXED1 | DR6_BT | 1;
	m->x.cpu.dr7 = DR7_FIXED1 | DR7_GD | 3;
	assert_true(m_deliver(m, &db));
	assert_int_equal(m->x.cpu.dr6, DR6_FIXED1 | DR6_BT | DR6_BS | 2);
	assert_int_equal(m->x.cpu.dr7, DR7_FIXED1 | 3);
	assert_int_equal(m_get(m, (m->x.cpu.gpr[UM_RSP] & 0xfffff) + 16, 8) & RFLAGS_RF, 0);
	/* A breakpoint's fault isn't saved with RF; one of GD is. */
	m_long64(m, 0);
	db.kind = UM_EVENT_FAULT;
	db.payload = 1;
	assert_true(m_deliver(m, &db));
	assert_int_equal(m_get(m, KSTACK - 24, 8) & RFLAGS_RF, 0);
	m_long64(m, 0);
	db.payload = DR6_BD;
	assert_true(m_deliver(m, &db));
	assert_int_equal(m_get(m, KSTACK - 24, 8) & RFLAGS_RF, RFLAGS_RF);
}

/* A double fault in the making: the second delivery fails too, and nothing has moved but CR2. */
static void failing_twice(void **state)
{
	struct machine *m = *state;
	struct um_event second;

	m_long64(m, 0);
	m->x.cpu.gpr[UM_RSP] = HIGH + KSTACK;
	m->absent[(KSTACK - 0x1000) >> 12] = 1;
	assert_false(m_deliver(m, &gp));
	m_expect_fault(m, UM_VEC_PF, PFERR_WRITE);
	second = m->x.exit.exc;
	assert_false(m_deliver(m, &second));
	m_expect_fault(m, UM_VEC_PF, PFERR_WRITE);
	assert_int_equal(m->x.cpu.cr2, second.payload);
}

static void mmio_stack_is_refused(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m->mmio = KSTACK - 0x1000;
	assert_false(m_deliver(m, &extint));
	assert_int_equal(m->x.exit.kind, UM_EXIT_INTERNAL);
	assert_memory_equal(&m->before, &m->x.cpu, sizeof(m->before));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(real_mode),
		M_TEST(real_mode_wrap),
		M_TEST(real_mode_limit),
		M_TEST(prot_same_privilege),
		M_TEST(prot_trap_gate_keeps_if),
		M_TEST(prot_inner),
		M_TEST(prot_to_ring1),
		M_TEST(prot_gate16),
		M_TEST(prot_conforming),
		M_TEST(prot_tss16),
		M_TEST(soft_int),
		M_TEST(soft_exceptions),
		M_TEST(prot_gate_checks),
		M_TEST(prot_stack_checks),
		M_TEST(faults_are_restartable),
		M_TEST(accessed_bits),
		M_TEST(vm86_to_ring0),
		M_TEST(vm86_refuses_outer_handlers),
		M_TEST(vm86_soft_int),
		M_TEST(long_same_privilege),
		M_TEST(long_inner),
		M_TEST(long_from_compat),
		M_TEST(long_ist),
		M_TEST(long_gate_checks),
		M_TEST(payloads),
		M_TEST(failing_twice),
		M_TEST(mmio_stack_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* Hardware task switches: all causes, both TSS formats, faults before and after the commit. */
#include "machine.h"

#define BUSY BIT(41)

static const struct um_event extint = { .vector = 0x30, .kind = UM_EVENT_EXTINT };

/* Fill the TSS of task B: 32 or 16 bits. */
static void task_b(struct machine *m, bool tss32, u16 cs, u16 ds, u32 eflags)
{
	u32 at = TSSB_AT;

	memset(m->mem + at, 0, 0x68);
	if (tss32) {
		m_put(m, at + 0x1c, 0xabc000, 4);
		m_put(m, at + 0x20, HANDLER, 4);
		m_put(m, at + 0x24, eflags, 4);
		for (unsigned n = 0; n < 8; n++)
			m_put(m, at + 0x28 + 4 * n, 0xb0000000 + n, 4);
		m_put(m, at + 0x28 + 4 * UM_RSP, 0x8000, 4);
		for (unsigned s = 0; s < 6; s++)
			m_put(m, at + 0x48 + 4 * s, s == UM_CS ? cs : ds, 4);
		m_put(m, at + 0x60, LDT, 2);
		m_desc(m, TSSB, m_desc_make(at, 0x67, UM_SYS_TSS_AVAIL, 0, "p"), 0);
	} else {
		m_put(m, at + 0x0e, HANDLER, 2);
		m_put(m, at + 0x10, eflags, 2);
		for (unsigned n = 0; n < 8; n++)
			m_put(m, at + 0x12 + 2 * n, 0xb000 + n, 2);
		m_put(m, at + 0x12 + 2 * UM_RSP, 0x8000, 2);
		for (unsigned s = 0; s < 4; s++)
			m_put(m, at + 0x22 + 2 * s, s == UM_CS ? cs : ds, 2);
		m_desc(m, TSSB, m_desc_make(at, 0x2b, UM_SYS_TSS16_AVAIL, 0, "p"), 0);
	}
}

static void far_call(struct machine *m, u16 sel)
{
	u8 b[7] = { 0x9a };

	memcpy(b + 5, &sel, 2);
	m_run(m, b, 7);
}

static void far_jmp(struct machine *m, u16 sel)
{
	u8 b[7] = { 0xea };

	memcpy(b + 5, &sel, 2);
	m_run(m, b, 7);
}

static void expect_in_b(struct machine *m, bool tss32)
{
	struct um_cpu *c = &m->x.cpu;

	m_expect_at(m, CS32, HANDLER);
	assert_int_equal(c->tr.selector, TSSB);
	assert_int_equal(c->tr.type, tss32 ? UM_SYS_TSS_BUSY : UM_SYS_TSS16_BUSY);
	assert_int_equal(c->gpr[UM_RAX], tss32 ? 0xb0000000 : 0xb000);
	assert_int_equal(c->gpr[UM_RSP], 0x8000);
	assert_int_equal(c->gpr[UM_RDI], tss32 ? 0xb0000007 : 0xb007);
	assert_int_equal(c->seg[UM_SS].selector, DS32);
	assert_true(c->cr0 & CR0_TS);
	assert_true(m_desc_get(m, TSSB) & BUSY);
}

/* There by CALL and back by IRET: everything returns, links and busy bits are right. */
static void call_iret(void **state)
{
	struct machine *m = *state;

	for (unsigned tss32 = 0; tss32 < 2; tss32++) {
		struct um_cpu before;

		m_prot32(m, 0);
		m->x.cpu.cr3 = 0x123000;
		m_put(m, TSS_AT + 0x1c, 0x123000, 4);
		m_put(m, TSS_AT + 0x60, LDT, 2);
		task_b(m, tss32, CS32, DS32, RFLAGS_FIXED1 | RFLAGS_CF);
		m->x.cpu.dr7 = DR7_FIXED1 | 0xff;
		m->new_cr3 = 0;
		before = m->x.cpu;
		far_call(m, TSSB);
		expect_in_b(m, tss32);
		assert_int_equal(m->x.cpu.rflags, RFLAGS_FIXED1 | RFLAGS_CF | RFLAGS_NT);
		assert_int_equal(m->x.cpu.cr3, tss32 ? 0xabc000 : 0x123000);
		assert_int_equal(m->new_cr3, tss32);
		assert_int_equal(m->x.cpu.dr7, DR7_FIXED1 | 0xaa); /* local ones off */
		assert_int_equal(m_get(m, TSSB_AT, 2), TSS);	   /* back link */
		assert_true(m_desc_get(m, TSS) & BUSY);
		assert_int_equal(m->x.cpu.ldt.selector, tss32 ? LDT : 0);
		assert_int_equal(m->x.cpu.seg[UM_FS].unusable, !tss32);
		/* The old task, saved. */
		assert_int_equal(m_get(m, TSS_AT + 0x20, 4), CODE_AT + 7);
		assert_int_equal(m_get(m, TSS_AT + 0x24, 4), before.rflags);
		assert_int_equal(m_get(m, TSS_AT + 0x48 + 4, 4), CS32);

		RUN(m, 0xcf);
		m_expect_at(m, CS32, CODE_AT + 7);
		assert_int_equal(m->x.cpu.tr.selector, TSS);
		assert_false(m_desc_get(m, TSSB) & BUSY);
		assert_true(m_desc_get(m, TSS) & BUSY);
		for (unsigned n = 0; n < 8; n++)
			assert_int_equal(m->x.cpu.gpr[n], (u32)before.gpr[n]);
		for (unsigned s = 0; s < UM_NR_SEGS; s++)
			assert_int_equal(m->x.cpu.seg[s].selector, before.seg[s].selector);
		assert_int_equal(m->x.cpu.rflags, before.rflags);
		assert_int_equal(m->x.cpu.cr3, 0x123000);
		/* B's image was saved with NT clear, and resumes after its IRET. */
		assert_int_equal(m_get(m, TSSB_AT + (tss32 ? 0x24 : 0x10), 2) & RFLAGS_NT, 0);
		assert_int_equal(m_get(m, TSSB_AT + (tss32 ? 0x20 : 0x0e), 2), HANDLER + 1);
	}
}

static void jmp(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	task_b(m, true, CS32, DS32, RFLAGS_FIXED1);
	far_jmp(m, TSSB);
	expect_in_b(m, true);
	assert_int_equal(m->x.cpu.rflags, RFLAGS_FIXED1);
	assert_false(m_desc_get(m, TSS) & BUSY);
	assert_int_equal(m_get(m, TSSB_AT, 2), 0);
	/* Through a task gate, from CPL 3, with a gate that permits it though the TSS would not. */
	m_prot32(m, 3);
	task_b(m, true, CS32, DS32, RFLAGS_FIXED1);
	m_desc(m, GATE, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 3, 0), 0);
	far_jmp(m, GATE | 3);
	expect_in_b(m, true);
	assert_int_equal(m->x.cpu.cpl, 0);
}

static void gate_checks(void **state)
{
	struct machine *m = *state;
	const struct {
		u8 cpl;
		u16 sel;
		u64 gate;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ 3, GATE | 3, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_GP, GATE },
		{ 0, GATE | 3, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_GP, GATE },
		{ 0, GATE, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0) & ~BIT(47), UM_VEC_NP,
		  GATE },
		{ 0, GATE, m_gate_make(TSSB | 4, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_GP, TSSB | 4 },
		{ 0, GATE, m_gate_make(TSS, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_GP, TSS },
		{ 0, GATE, m_gate_make(GDT_END, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_GP, GDT_END },
		{ 0, GATE, m_gate_make(FREE, 0, UM_SYS_TASKGATE, 0, 0), UM_VEC_NP, FREE },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, cases[n].cpl);
		m_desc(m, GATE, cases[n].gate, 0);
		m_desc(m, FREE, m_desc_make(TSSB_AT, 0x67, UM_SYS_TSS_AVAIL, 0, ""), 0);
		far_jmp(m, cases[n].sel);
		m_expect_fault(m, cases[n].vec, cases[n].code);
	}
}

/* An exception through a task gate: linked, and its error code on the new stack. */
static void event(void **state)
{
	struct machine *m = *state;
	struct um_event df = { .vector = UM_VEC_DF, .kind = UM_EVENT_FAULT, .has_error = true };
	struct um_event gp = {
		.vector = UM_VEC_GP, .kind = UM_EVENT_FAULT, .has_error = true, .error_code = 0x55
	};

	for (unsigned tss32 = 0; tss32 < 2; tss32++) {
		m_prot32(m, 3);
		task_b(m, tss32, CS32, DS32, RFLAGS_FIXED1);
		m_idt(m, UM_VEC_DF, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0), 0);
		m_idt(m, UM_VEC_GP, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0), 0);
		assert_true(m_deliver(m, tss32 ? &df : &gp));
		m_expect_at(m, CS32, HANDLER);
		assert_int_equal(m->x.cpu.gpr[UM_RSP], 0x8000 - (tss32 ? 4 : 2));
		assert_int_equal(m_get(m, 0x8000 - 4, 4), tss32 ? 0 : 0x55cccc);
		assert_true(m->x.cpu.rflags & RFLAGS_NT);
		assert_int_equal(m_get(m, TSSB_AT, 2), TSS);
		/* A fault is saved with RF. */
		assert_int_equal(!!(m_get(m, TSS_AT + 0x24, 4) & RFLAGS_RF), !tss32);
		assert_int_equal(m_get(m, TSS_AT + 0x20, 4), CODE_AT);
	}
}

static void trap_bit(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	task_b(m, true, CS32, DS32, RFLAGS_FIXED1);
	m_put(m, TSSB_AT + 0x64, 1, 2);
	far_jmp(m, TSSB);
	assert_int_equal(m->x.exit.kind, UM_EXIT_EXCEPTION);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_DB);
	assert_int_equal(m->x.exit.exc.kind, UM_EVENT_TRAP);
	assert_int_equal(m->x.exit.exc.payload, DR6_BT);
	assert_int_equal(m->x.cpu.rip, HANDLER);
	/* In an event, the trap is delivered at once. */
	m_prot32(m, 0);
	task_b(m, true, CS32, DS32, RFLAGS_FIXED1);
	m_put(m, TSSB_AT + 0x64, 1, 2);
	m_idt(m, 0x30, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0), 0);
	m_idt(m, UM_VEC_DB, m_gate_make(CS16, 0x7777, UM_SYS_INTGATE, 0, 0), 0);
	assert_true(m_deliver(m, &extint));
	m_expect_at(m, CS16, 0x7777);
	EXPECT_STACK(m, 0x8000 - 12, 4, HANDLER, CS32, RFLAGS_FIXED1 | RFLAGS_NT);
	assert_true(m->x.cpu.dr6 & DR6_BT);
}

static void to_vm86(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	task_b(m, true, 0x700, 0x500, RFLAGS_FIXED1 | RFLAGS_VM);
	m_put(m, TSSB_AT + 0x20, 0x10, 4);
	far_jmp(m, TSSB);
	m_expect_at(m, 0x700, 0x10);
	assert_int_equal(m->x.cpu.cpl, 3);
	assert_int_equal(m->x.cpu.seg[UM_GS].base, 0x5000);
	assert_int_equal(m->x.mode, UM_MODE_REAL);
}

/* Before the commit: the processor is as it was. */
static void early_faults(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	task_b(m, true, CS32, DS32, RFLAGS_FIXED1);
	m_desc(m, TSSB, m_desc_make(TSSB_AT, 0x66, UM_SYS_TSS_AVAIL, 0, "p"), 0);
	far_call(m, TSSB);
	m_expect_fault(m, UM_VEC_TS, TSSB);
	m_desc(m, TSSB, m_desc_make(TSSB_AT, 0x2a, UM_SYS_TSS16_AVAIL, 0, "p"), 0);
	far_call(m, TSSB);
	m_expect_fault(m, UM_VEC_TS, TSSB);
	/* The same in an event: EXT. */
	m_idt(m, 0x30, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0), 0);
	assert_false(m_deliver(m, &extint));
	m_expect_fault(m, UM_VEC_TS, TSSB | 1);
	/* Either TSS isn't in memory. */
	for (unsigned n = 0; n < 2; n++) {
		m_prot32(m, 0);
		task_b(m, true, CS32, DS32, RFLAGS_FIXED1);
		m->absent[(n ? TSS_AT : TSSB_AT) >> 12] = 1;
		far_call(m, TSSB);
		m_expect_fault(m, UM_VEC_PF, n ? PFERR_WRITE : 0);
		m->absent[(n ? TSS_AT : TSSB_AT) >> 12] = 0;
		far_call(m, TSSB);
		expect_in_b(m, true);
	}
	/* PDPTEs with reserved bits. */
	m_prot32(m, 0);
	m->x.cpu.cr4 |= CR4_PAE;
	task_b(m, true, CS32, DS32, RFLAGS_FIXED1);
	m->pdptr_result = 1;
	far_call(m, TSSB);
	m_expect_fault(m, UM_VEC_TS, TSSB);
	m->pdptr_result = 0;
	far_call(m, TSSB);
	expect_in_b(m, true);
	assert_int_equal(m->x.cpu.pdptr[1], 0xabc001);
}

/* After it: the fault is the new task's. */
static void late_faults(void **state)
{
	struct machine *m = *state;
	static const struct {
		u16 ldt, cs, ss, ds;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ LDT | 4, CS32, DS32, DS32, UM_VEC_TS, LDT | 4 },
		{ DS32, CS32, DS32, DS32, UM_VEC_TS, DS32 },
		{ GDT_END, CS32, DS32, DS32, UM_VEC_TS, GDT_END },
		{ 0, 0, DS32, DS32, UM_VEC_TS, 0 },
		{ 0, DS32, DS32, DS32, UM_VEC_TS, DS32 },
		{ 0, ABSENTC, DS32, DS32, UM_VEC_NP, ABSENTC },
		{ 0, CS32 | 3, UDS32, UDS32, UM_VEC_TS, CS32 },
		{ 0, CS32, 0, DS32, UM_VEC_TS, 0 },
		{ 0, CS32, UDS32, DS32, UM_VEC_TS, UDS32 & ~3 },
		{ 0, CS32, ABSENT, DS32, UM_VEC_SS, ABSENT },
		{ 0, CS32, DS32, ABSENT, UM_VEC_NP, ABSENT },
		{ 0, CS32, DS32, XONLY, UM_VEC_TS, XONLY },
		{ 0, UCS32, UDS32, DS32, UM_VEC_TS, DS32 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct um_exit *e = &m->x.exit;

		m_prot32(m, 0);
		task_b(m, true, cases[n].cs, cases[n].ds, RFLAGS_FIXED1);
		m_put(m, TSSB_AT + 0x50, cases[n].ss, 2);
		m_put(m, TSSB_AT + 0x60, cases[n].ldt, 2);
		far_call(m, TSSB);
		assert_int_equal(e->kind, UM_EXIT_EXCEPTION);
		assert_int_equal(e->exc.vector, cases[n].vec);
		assert_int_equal(e->exc.error_code, cases[n].code);
		assert_int_equal(m->x.cpu.rip, HANDLER);
		assert_int_equal(m->x.cpu.tr.selector, TSSB);
		assert_int_equal(m->x.cpu.seg[UM_CS].selector, cases[n].cs);
		assert_int_equal(m->x.cpu.gpr[UM_RBX], 0xb0000003);
	}
	/* No room for the error code of an event. */
	m_prot32(m, 0);
	task_b(m, true, CS32, DOWN, RFLAGS_FIXED1);
	m_put(m, TSSB_AT + 0x28 + 4 * UM_RSP, 0x1002, 4);
	m_idt(m, UM_VEC_DF, m_gate_make(TSSB, 0, UM_SYS_TASKGATE, 0, 0), 0);
	assert_false(m_deliver(m, &(struct um_event){ .vector = UM_VEC_DF,
						      .kind = UM_EVENT_FAULT,
						      .has_error = true }));
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_SS);
	assert_int_equal(m->x.exit.exc.error_code, 1);
	assert_int_equal(m->x.cpu.tr.selector, TSSB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(call_iret), M_TEST(jmp),	    M_TEST(gate_checks),  M_TEST(event),
		M_TEST(trap_bit),  M_TEST(to_vm86), M_TEST(early_faults), M_TEST(late_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

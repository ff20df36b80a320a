// SPDX-License-Identifier: MIT
/* Far JMP, CALL, RET, and call gates. */
#include "machine.h"

#define HIGH 0xffff800000000000ull

/* Far pointer instructions with 32-bit operands: EA/9A off32 sel16. */
static void far32(struct machine *m, u8 opcode, u32 off, u16 sel)
{
	u8 b[7] = { opcode };

	memcpy(b + 1, &off, 4);
	memcpy(b + 5, &sel, 2);
	m_run(m, b, 7);
}
#define JMP  0xea
#define CALL 0x9a

/* FF /5 and /3 through [DATA_AT]: m16:32, with REX.W m16:64. */
static void far_mem(struct machine *m, bool call, bool w, u64 off, u16 sel)
{
	u8 b[8] = { 0x48, 0xff, call ? 0x1c : 0x2c, 0x25 };
	u32 at = DATA_AT;

	memcpy(b + 4, &at, 4);
	m_put(m, DATA_AT, off, 8);
	m_put(m, DATA_AT + (w ? 8 : 4), sel, 2);
	m_run(m, b + !w, 8 - !w);
}

static void real_mode(void **state)
{
	struct machine *m = *state;

	m_real(m);
	m->x.cpu.seg[UM_CS].limit = 0xfffff; /* unreal: the limit stays */
	RUN(m, 0xea, 0x34, 0x12, 0x00, 0x20);
	m_expect_at(m, 0x2000, 0x1234);
	assert_int_equal(m->x.cpu.seg[UM_CS].base, 0x20000);
	assert_int_equal(m->x.cpu.seg[UM_CS].limit, 0xfffff);
	m_real(m);
	RUN(m, 0x9a, 0x34, 0x12, 0x00, 0x20);
	m_expect_at(m, 0x2000, 0x1234);
	EXPECT_STACK(m, KSTACK - 4, 2, CODE_AT + 5, 0);
	m->x.cpu.gpr[UM_RSP] = KSTACK - 4;
	RUN(m, 0xca, 0x10, 0x00);
	m_expect_at(m, 0, CODE_AT + 5);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK + 0x10);
	m_real(m);
	RUN(m, 0x66, 0xea, 0x00, 0x00, 0x01, 0x00, 0x00, 0x20);
	m_expect_fault(m, UM_VEC_GP, 0);
}

static void jmp_direct(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	far32(m, JMP, 0x1234, CS16 | 3);
	m_expect_fault(m, UM_VEC_GP, CS16); /* RPL > CPL */
	far32(m, JMP, 0x1234, CS16);
	m_expect_at(m, CS16, 0x1234);
	assert_int_equal(m->x.mode, UM_MODE_16);
	assert_int_equal(m_desc_get(m, CS16) >> 40 & 1, 1);
	/* Conforming: the CPL stays, and is the RPL. */
	m_prot32(m, 3);
	far32(m, JMP, 0x1234, CCS32);
	m_expect_at(m, CCS32 | 3, 0x1234);
	assert_int_equal(m->x.cpu.cpl, 3);
}

static void jmp_checks(void **state)
{
	struct machine *m = *state;
	static const struct {
		u8 cpl;
		u16 sel;
		u32 off;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ 0, 0, 0, UM_VEC_GP, 0 },
		{ 0, 3, 0, UM_VEC_GP, 0 },
		{ 0, GDT_END, 0, UM_VEC_GP, GDT_END },
		{ 0, DS32, 0, UM_VEC_GP, DS32 },
		{ 0, LDT, 0, UM_VEC_GP, LDT },
		{ 0, UCS32 & ~3, 0, UM_VEC_GP, UCS32 & ~3 },
		{ 3, CS32, 0, UM_VEC_GP, CS32 },
		{ 0, ABSENTC, 0, UM_VEC_NP, ABSENTC },
		{ 0, CS16, 0x10000, UM_VEC_GP, 0 },
		{ 0, TSS, 0, UM_VEC_GP, TSS },	     /* busy */
		{ 3, TSSB, 0, UM_VEC_GP, TSSB },     /* DPL */
		{ 0, TSSB | 3, 0, UM_VEC_GP, TSSB }, /* RPL */
		{ 0, FREE, 0, UM_VEC_NP, FREE },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++)
		for (unsigned call = 0; call < 2; call++) {
			m_prot32(m, cases[n].cpl);
			m_desc(m, FREE, m_desc_make(TSSB_AT, 0x67, UM_SYS_TSS_AVAIL, 0, ""), 0);
			far32(m, call ? CALL : JMP, cases[n].off, cases[n].sel);
			m_expect_fault(m, cases[n].vec, cases[n].code);
		}
}

static void call_and_return(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	far32(m, CALL, HANDLER, CS16);
	m_expect_at(m, CS16, HANDLER);
	EXPECT_STACK(m, KSTACK - 8, 4, CODE_AT + 7, CS32);
	RUN(m, 0x66, 0xcb); /* 32-bit operands in 16-bit code */
	m_expect_at(m, CS32, CODE_AT + 7);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK);
	/* The frame's page is missing: nothing has moved. */
	m_prot32(m, 0);
	m->absent[(KSTACK - 1) >> 12] = 1;
	far32(m, CALL, HANDLER, CS16);
	m_expect_fault(m, UM_VEC_PF, PFERR_WRITE);
}

static void ret_outer(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m_put(m, KSTACK, HANDLER, 4);
	m_put(m, KSTACK + 4, UCS32, 4);
	m_put(m, KSTACK + 8 + 8, STACK3, 4); /* behind 8 bytes of parameters */
	m_put(m, KSTACK + 8 + 12, UDS32, 4);
	RUN(m, 0xca, 0x08, 0x00);
	m_expect_at(m, UCS32, HANDLER);
	assert_int_equal(m->x.cpu.cpl, 3);
	/* Parameters are released on both stacks. */
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK3 + 8);
	assert_true(m->x.cpu.seg[UM_DS].unusable);
	/* A bad SS leaves all as it was. */
	m_prot32(m, 0);
	m_put(m, KSTACK, HANDLER, 4);
	m_put(m, KSTACK + 4, UCS32, 4);
	m_put(m, KSTACK + 8, STACK3, 4);
	m_put(m, KSTACK + 12, DS32, 4);
	RUN(m, 0xcb);
	m_expect_fault(m, UM_VEC_GP, DS32);
	/* To inner privilege, never. */
	m_prot32(m, 3);
	m_put(m, STACK3, HANDLER, 4);
	m_put(m, STACK3 + 4, CS32, 4);
	RUN(m, 0xcb);
	m_expect_fault(m, UM_VEC_GP, CS32);
}

static void gate_same_privilege(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m_desc(m, GATE, m_gate_make(CS16, HANDLER, UM_SYS_CALLGATE, 0, 5), 0);
	far32(m, CALL, 0xdeadbeef, GATE);
	m_expect_at(m, CS16, HANDLER);
	EXPECT_STACK(m, KSTACK - 8, 4, CODE_AT + 7, CS32);
	m_prot32(m, 0);
	m_desc(m, GATE, m_gate_make(CS16, HANDLER | 0x550000, UM_SYS_CALLGATE16, 0, 5), 0);
	far32(m, JMP, 0xdeadbeef, GATE);
	m_expect_at(m, CS16, HANDLER); /* 16 bits of offset */
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK);
	/* To a conforming segment from CPL 3: the gate helps, privilege stays. */
	m_prot32(m, 3);
	m_desc(m, GATE, m_gate_make(CCS32, HANDLER, UM_SYS_CALLGATE, 3, 0), 0);
	far32(m, CALL, 0, GATE | 3);
	m_expect_at(m, CCS32 | 3, HANDLER);
	EXPECT_STACK(m, STACK3 - 8, 4, CODE_AT + 7, UCS32);
}

static void gate_inner(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 3);
	m_desc(m, GATE, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 3, 3), 0);
	for (unsigned n = 0; n < 3; n++)
		m_put(m, STACK3 + 4 * n, 0xa0 + n, 4);
	far32(m, CALL, 0, GATE | 3);
	m_expect_at(m, CS32, HANDLER);
	assert_int_equal(m->x.cpu.cpl, 0);
	assert_int_equal(m->x.cpu.seg[UM_SS].selector, DS32);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK0 - 28);
	EXPECT_STACK(m, STACK0 - 28, 4, CODE_AT + 7, UCS32, 0xa0, 0xa1, 0xa2, STACK3, UDS32);
	/* And back by RETF 12. */
	RUN(m, 0xca, 0x0c, 0x00);
	m_expect_at(m, UCS32, CODE_AT + 7);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK3 + 12);

	/* A 16-bit gate copies words. */
	m_prot32(m, 3);
	m_desc(m, GATE, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE16, 3, 2), 0);
	m_put(m, STACK3, 0x00b100b0, 4);
	far32(m, CALL, 0, GATE | 3);
	m_expect_at(m, CS32, HANDLER);
	EXPECT_STACK(m, STACK0 - 12, 2, CODE_AT + 7, UCS32, 0xb0, 0xb1, STACK3, UDS32);
}

static void gate_checks(void **state)
{
	struct machine *m = *state;
	const struct {
		u8 cpl;
		u16 sel;
		u64 gate;
		bool call, jmp;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ 3, GATE | 3, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 0, 0), 1, 1, UM_VEC_GP,
		  GATE },
		{ 0, GATE | 3, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 0, 0), 1, 1, UM_VEC_GP,
		  GATE },
		{ 0, GATE, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 0, 0) & ~BIT(47), 1, 1,
		  UM_VEC_NP, GATE },
		{ 0, GATE, m_gate_make(0, HANDLER, UM_SYS_CALLGATE, 0, 0), 1, 1, UM_VEC_GP, 0 },
		{ 0, GATE, m_gate_make(GDT_END, HANDLER, UM_SYS_CALLGATE, 0, 0), 1, 1, UM_VEC_GP,
		  GDT_END },
		{ 0, GATE, m_gate_make(DS32, HANDLER, UM_SYS_CALLGATE, 0, 0), 1, 1, UM_VEC_GP,
		  DS32 },
		{ 0, GATE, m_gate_make(UCS32, HANDLER, UM_SYS_CALLGATE, 0, 0), 1, 1, UM_VEC_GP,
		  UCS32 & ~3 },
		{ 0, GATE, m_gate_make(ABSENTC, HANDLER, UM_SYS_CALLGATE, 0, 0), 1, 1, UM_VEC_NP,
		  ABSENTC },
		{ 0, GATE, m_gate_make(CS16, 0x10000, UM_SYS_CALLGATE, 0, 0), 1, 1, UM_VEC_GP, 0 },
		/* JMP doesn't change privilege. */
		{ 3, GATE | 3, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 3, 0), 0, 1, UM_VEC_GP,
		  CS32 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++)
		for (unsigned call = 0; call < 2; call++) {
			if (!(call ? cases[n].call : cases[n].jmp))
				continue;
			m_prot32(m, cases[n].cpl);
			m_desc(m, GATE, cases[n].gate, 0);
			far32(m, call ? CALL : JMP, 0, cases[n].sel);
			m_expect_fault(m, cases[n].vec, cases[n].code);
		}
	/* The new stack: selector errors are #TS, absence is #SS, so is no room. */
	m_prot32(m, 3);
	m_desc(m, GATE, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 3, 31), 0);
	m_put(m, TSS_AT + 8, RODATA, 2);
	far32(m, CALL, 0, GATE | 3);
	m_expect_fault(m, UM_VEC_TS, RODATA);
	m_put(m, TSS_AT + 8, ABSENT, 2);
	far32(m, CALL, 0, GATE | 3);
	m_expect_fault(m, UM_VEC_SS, ABSENT);
	m_put(m, TSS_AT + 8, DOWN, 2);
	m_put(m, TSS_AT + 4, 0x1000 + 16 + 31 * 4 - 4, 4);
	far32(m, CALL, 0, GATE | 3);
	m_expect_fault(m, UM_VEC_SS, DOWN);
	m_put(m, TSS_AT + 4, 0x1000 + 16 + 31 * 4, 4);
	far32(m, CALL, 0, GATE | 3);
	m_expect_at(m, CS32, HANDLER);
	/* Parameters beyond the old stack's limit. */
	m_prot32(m, 3);
	m_desc(m, GATE, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 3, 3), 0);
	m->x.cpu.seg[UM_SS].limit = STACK3 + 10;
	far32(m, CALL, 0, GATE | 3);
	m_expect_fault(m, UM_VEC_SS, 0);
}

static void long_direct(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	far_mem(m, false, true, HANDLER, CS32);
	m_expect_at(m, CS32, HANDLER);
	assert_int_equal(m->x.mode, UM_MODE_32);
	far32(m, JMP, CODE_AT, CS64);
	m_expect_at(m, CS64, CODE_AT);
	assert_int_equal(m->x.mode, UM_MODE_64);
	far_mem(m, true, true, HIGH + HANDLER, CS64);
	m_expect_at(m, CS64, HIGH + HANDLER);
	EXPECT_STACK(m, KSTACK - 16, 8, CODE_AT + 8, CS64);
	RUN(m, 0x48, 0xcb);
	m_expect_at(m, CS64, CODE_AT + 8);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK);
	/* Not canonical; beyond a compatibility segment; D and L; no tasks. */
	far_mem(m, false, true, 0x800000000000ull, CS64);
	m_expect_fault(m, UM_VEC_GP, 0);
	far_mem(m, false, true, 0x100000000ull, CS32);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_put(m, GDT_AT + FREE, m_desc_make(0, ~0u, T_CODE, 0, "pdl"), 8);
	far_mem(m, false, false, HANDLER, FREE);
	m_expect_fault(m, UM_VEC_GP, FREE);
	m_desc(m, FREE, m_desc_make(TSSB_AT, 0x67, UM_SYS_TSS_AVAIL, 0, "p"), 0);
	far_mem(m, false, false, HANDLER, FREE);
	m_expect_fault(m, UM_VEC_GP, FREE);
}

static void long_gate(void **state)
{
	struct machine *m = *state;
	u64 gate = m_gate_make(CS64, HANDLER, UM_SYS_CALLGATE, 3, 31);

	/* From 64-bit code at CPL 3: stack from the TSS, no parameters, null SS. */
	m_long64(m, 3);
	m_desc(m, GATE, gate, 0xffff8000);
	far_mem(m, true, false, 0, GATE | 3);
	m_expect_at(m, CS64, HIGH + HANDLER);
	assert_int_equal(m->x.cpu.cpl, 0);
	assert_true(m->x.cpu.seg[UM_SS].unusable);
	EXPECT_STACK(m, STACK0 - 32, 8, CODE_AT + 7, UCS64, STACK3, UDS32);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], HIGH + STACK0 - 32);
	/* From compatibility mode. */
	m_compat(m, 3);
	m_desc(m, GATE, gate, 0xffff8000);
	far32(m, CALL, 0, GATE | 3);
	m_expect_at(m, CS64, HIGH + HANDLER);
	EXPECT_STACK(m, STACK0 - 32, 8, CODE_AT + 7, UCS32, STACK3, UDS32);
	/* Same privilege. */
	m_long64(m, 0);
	m_desc(m, GATE, gate, 0xffff8000);
	far_mem(m, true, false, 0, GATE);
	m_expect_at(m, CS64, HIGH + HANDLER);
	EXPECT_STACK(m, KSTACK - 16, 8, CODE_AT + 7, CS64);
	/* Only 64-bit code; a zero type in the upper half; canonical. */
	m_long64(m, 0);
	m_desc(m, GATE, m_gate_make(CS32, HANDLER, UM_SYS_CALLGATE, 3, 0), 0);
	far_mem(m, true, false, 0, GATE);
	m_expect_fault(m, UM_VEC_GP, CS32);
	m_desc(m, GATE, gate, 0x100ull << 32);
	far_mem(m, true, false, 0, GATE);
	m_expect_fault(m, UM_VEC_GP, GATE);
	m_desc(m, GATE, gate, 0x8000);
	far_mem(m, true, false, 0, GATE);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_desc(m, GATE, m_gate_make(CS64, HANDLER, UM_SYS_CALLGATE16, 3, 0), 0);
	far_mem(m, true, false, 0, GATE);
	m_expect_fault(m, UM_VEC_GP, GATE);
	/* The second half of the descriptor is beyond the limit. */
	m_desc(m, GATE, gate, 0xffff8000);
	m->x.cpu.gdt.limit = GATE + 14;
	far_mem(m, true, false, 0, GATE);
	m_expect_fault(m, UM_VEC_GP, GATE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(real_mode),	 M_TEST(jmp_direct),  M_TEST(jmp_checks),
		M_TEST(call_and_return), M_TEST(ret_outer),   M_TEST(gate_same_privilege),
		M_TEST(gate_inner),	 M_TEST(gate_checks), M_TEST(long_direct),
		M_TEST(long_gate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* IRET from and to every mode. */
#include "machine.h"

#define HIGH 0xffff800000000000ull
#define IF   RFLAGS_IF
#define F1   RFLAGS_FIXED1

/* Put a frame of @size slots on the present stack. */
static void frame(struct machine *m, unsigned size, unsigned n, const u64 *v)
{
	u32 at = m->x.cpu.gpr[UM_RSP] & 0xfffff;

	for (unsigned k = 0; k < n; k++)
		m_put(m, at + k * size, v[k], size);
}
#define FRAME(m, size, ...)                         \
	do {                                        \
		const u64 v_[] = { __VA_ARGS__ };   \
		frame(m, size, ARRAY_SIZE(v_), v_); \
	} while (0)

#define IRET16_IN32(m) RUN(m, 0x66, 0xcf)
#define IRET(m)	       RUN(m, 0xcf)
#define IRETQ(m)       RUN(m, 0x48, 0xcf)

static void real_mode(void **state)
{
	struct machine *m = *state;

	m_real(m);
	m->x.cpu.nmi_masked = true;
	FRAME(m, 2, 0x1234, 0x2000, 0xffff);
	IRET(m);
	m_expect_at(m, 0x2000, 0x1234);
	assert_int_equal(m->x.cpu.seg[UM_CS].base, 0x20000);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK + 6);
	assert_int_equal(m->x.cpu.rflags, 0x7fd7);
	assert_false(m->x.cpu.nmi_masked);
	/* 32 bits: VM, VIF, VIP stay out; EIP must fit. */
	m_real(m);
	FRAME(m, 4, 0x1234, 0xabcd2000, 0xffffffff);
	IRET16_IN32(m); /* 66h makes it IRETD here */
	m_expect_at(m, 0x2000, 0x1234);
	assert_int_equal(m->x.cpu.rflags, 0x257fd7);
	m_real(m);
	FRAME(m, 4, 0x11234, 0x2000, 2);
	RUN(m, 0x66, 0xcf);
	m_expect_fault(m, UM_VEC_GP, 0);
}

static void same_privilege(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	FRAME(m, 4, HANDLER, CS32, 0x3f7fd7 & ~RFLAGS_VM);
	m->x.cpu.nmi_masked = true;
	IRET(m);
	m_expect_at(m, CS32, HANDLER);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK + 12);
	/* CPL 0 may change everything but VM. */
	assert_int_equal(m->x.cpu.rflags, 0x3d7fd7);
	assert_false(m->x.cpu.nmi_masked);
}

static void user_flags(void **state)
{
	struct machine *m = *state;

	/* CPL 3, IOPL 0: neither IOPL nor IF nor VIF, VIP. */
	m_prot32(m, 3);
	m->x.cpu.rflags = F1;
	FRAME(m, 4, HANDLER, UCS32, 0x3f7fd7 & ~RFLAGS_VM);
	IRET(m);
	m_expect_at(m, UCS32, HANDLER);
	assert_int_equal(m->x.cpu.rflags, 0x254dd7);
	/* IOPL 3: IF too. */
	m_prot32(m, 3);
	m->x.cpu.rflags = F1 | RFLAGS_IOPL;
	FRAME(m, 4, HANDLER, UCS32, F1 | IF);
	IRET(m);
	assert_int_equal(m->x.cpu.rflags, F1 | IF | RFLAGS_IOPL);
	/* 16-bit operands leave the upper half alone. */
	m_prot32(m, 0);
	m->x.cpu.rflags = F1 | RFLAGS_AC | RFLAGS_ID;
	FRAME(m, 2, HANDLER, CS32, F1 | RFLAGS_CF);
	IRET16_IN32(m);
	m_expect_at(m, CS32, HANDLER);
	assert_int_equal(m->x.cpu.rflags, F1 | RFLAGS_AC | RFLAGS_ID | RFLAGS_CF);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK + 6);
}

static void outer(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m->x.cpu.seg[UM_FS] = um_segment_unpack(UDS32, m_desc_get(m, UDS32), 0);
	FRAME(m, 4, HANDLER, UCS32, F1 | IF, STACK3, UDS32);
	IRET(m);
	m_expect_at(m, UCS32, HANDLER);
	assert_int_equal(m->x.cpu.cpl, 3);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK3);
	assert_int_equal(m->x.cpu.seg[UM_SS].selector, UDS32);
	/* What the outer level must not have is gone; the rest stays. */
	assert_true(m->x.cpu.seg[UM_DS].unusable);
	assert_int_equal(m->x.cpu.seg[UM_DS].selector, 0);
	assert_int_equal(m->x.cpu.seg[UM_FS].selector, UDS32);
	assert_int_equal(m->x.priv, UM_PRIV_USER);
}

/* To a 16-bit stack: the upper half of ESP is the kernel's. */
static void outer_stack16(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m_desc(m, FREE, m_desc_make(0, 0xffff, T_DATA, 3, "p"), 0);
	m->x.cpu.gpr[UM_RSP] = 0x70000;
	FRAME(m, 4, HANDLER, UCS32, F1, 0x12345678, FREE | 3);
	IRET(m);
	m_expect_at(m, UCS32, HANDLER);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], 0x75678);
}

static void return_checks(void **state)
{
	struct machine *m = *state;
	static const struct {
		u16 cs, ss;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ 0, UDS32, UM_VEC_GP, 0 },
		{ 3, UDS32, UM_VEC_GP, 0 },
		{ GDT_END | 3, UDS32, UM_VEC_GP, GDT_END },
		{ UDS32, UDS32, UM_VEC_GP, UDS32 & ~3 }, /* not code */
		{ CS32 | 3, UDS32, UM_VEC_GP, CS32 },	 /* DPL != RPL */
		{ UCS32 & ~3, DS32, UM_VEC_GP, UCS32 & ~3 },
		{ ABSENTC, DS32, UM_VEC_NP, ABSENTC },
		{ UCS32, 0, UM_VEC_GP, 0 },
		{ UCS32, GDT_END | 3, UM_VEC_GP, GDT_END },
		{ UCS32, UDS32 & ~3, UM_VEC_GP, UDS32 & ~3 }, /* RPL */
		{ UCS32, DS32 | 3, UM_VEC_GP, DS32 },	      /* DPL */
		{ UCS32, UCS32, UM_VEC_GP, UCS32 & ~3 },      /* not data */
		{ UCS32, FREE | 3, UM_VEC_SS, FREE },	      /* absent */
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, 0);
		m_desc(m, FREE, m_desc_make(0, 0xffff, T_DATA, 3, ""), 0);
		FRAME(m, 4, HANDLER, cases[n].cs, F1, STACK3, cases[n].ss);
		IRET(m);
		m_expect_fault(m, cases[n].vec, cases[n].code);
	}
	/* EIP beyond the limit; frame beyond the stack's. */
	m_prot32(m, 0);
	FRAME(m, 4, 0x10000, CS16, F1);
	IRET(m);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_prot32(m, 0);
	m->x.cpu.seg[UM_SS].limit = KSTACK + 10;
	FRAME(m, 4, HANDLER, CS32, F1);
	IRET(m);
	m_expect_fault(m, UM_VEC_SS, 0);
	/* To inner privilege. */
	m_prot32(m, 3);
	FRAME(m, 4, HANDLER, CS32, F1);
	IRET(m);
	m_expect_fault(m, UM_VEC_GP, CS32);
}

static void to_vm86(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	FRAME(m, 4, 0x1234, 0x2000, F1 | IF | RFLAGS_VM | RFLAGS_IOPL, 0x8765, 0x3000, 0x100, 0x200,
	      0x300, 0x400);
	IRET(m);
	m_expect_at(m, 0x2000, 0x1234);
	assert_int_equal(m->x.mode, UM_MODE_REAL);
	assert_int_equal(m->x.cpu.cpl, 3);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], 0x8765);
	assert_int_equal(m->x.cpu.seg[UM_SS].base, 0x30000);
	assert_int_equal(m->x.cpu.seg[UM_ES].selector, 0x100);
	assert_int_equal(m->x.cpu.seg[UM_DS].selector, 0x200);
	assert_int_equal(m->x.cpu.seg[UM_FS].selector, 0x300);
	assert_int_equal(m->x.cpu.seg[UM_GS].selector, 0x400);
	assert_int_equal(m->x.cpu.seg[UM_CS].limit, 0xffff);
	assert_int_equal(m->x.cpu.rflags, F1 | IF | RFLAGS_VM | RFLAGS_IOPL);
}

static void in_vm86(void **state)
{
	struct machine *m = *state;

	/* IOPL 3: as real mode, IOPL and VM stay. */
	m_vm86(m, 3);
	FRAME(m, 2, 0x1234, 0x2000, F1 | RFLAGS_CF);
	IRET(m);
	m_expect_at(m, 0x2000, 0x1234);
	assert_int_equal(m->x.cpu.rflags, F1 | RFLAGS_CF | RFLAGS_VM | RFLAGS_IOPL);
	/* IOPL 0 without VME. */
	m_vm86(m, 0);
	IRET(m);
	m_expect_fault(m, UM_VEC_GP, 0);
	/* With VME: IF of the image becomes VIF. */
	m_vm86(m, 0);
	m->x.cpu.cr4 |= CR4_VME;
	m->x.cpu.rflags &= ~IF;
	FRAME(m, 2, 0x1234, 0x2000, F1 | IF);
	IRET(m);
	m_expect_at(m, 0x2000, 0x1234);
	assert_int_equal(m->x.cpu.rflags, F1 | RFLAGS_VM | RFLAGS_VIF);
	/* ... but not with VIP, nor TF, nor 32 bits. */
	for (unsigned n = 0; n < 3; n++) {
		m_vm86(m, 0);
		m->x.cpu.cr4 |= CR4_VME;
		m->x.cpu.rflags |= n == 0 ? RFLAGS_VIP : 0;
		FRAME(m, 2, 0x1234, 0x2000, F1 | (n == 0 ? IF : RFLAGS_TF));
		if (n == 2)
			IRET16_IN32(m);
		else
			IRET(m);
		m_expect_fault(m, UM_VEC_GP, 0);
	}
}

static void long_mode(void **state)
{
	struct machine *m = *state;

	/* Same privilege: SS:RSP is popped all the same, and SS may be null. */
	m_long64(m, 0);
	FRAME(m, 8, HIGH + HANDLER, CS64, F1 | IF, HIGH + STACK0, 0);
	IRETQ(m);
	m_expect_at(m, CS64, HIGH + HANDLER);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], HIGH + STACK0);
	assert_true(m->x.cpu.seg[UM_SS].unusable);

	m_long64(m, 0);
	m->x.cpu.seg[UM_GS].base = HIGH + 0x1230;
	FRAME(m, 8, 0x400000, UCS64, F1 | IF | RFLAGS_VM | RFLAGS_RF, STACK3, UDS32);
	IRETQ(m);
	m_expect_at(m, UCS64, 0x400000);
	assert_int_equal(m->x.cpu.cpl, 3);
	assert_int_equal(m->x.priv, UM_PRIV_USER);
	assert_int_equal(m->x.fetch_ctx, m->tlb.ctx[UM_PRIV_USER]);
	assert_int_equal(m->x.cpu.rflags, F1 | IF | RFLAGS_RF); /* VM is not for IA-32e mode */
	assert_true(m->x.cpu.seg[UM_DS].unusable);
	/* GS is null too, but its base goes on working. */
	assert_int_equal(m->x.cpu.seg[UM_GS].selector, 0);
	assert_int_equal(m->x.seg_base[UM_GS], HIGH + 0x1230);

	/* IRETD in 64-bit mode pops five dwords. */
	m_long64(m, 0);
	FRAME(m, 4, HANDLER, UCS64, F1, STACK3, UDS32);
	IRET(m);
	m_expect_at(m, UCS64, HANDLER);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK3);
}

static void long_to_compat(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	FRAME(m, 8, HANDLER, UCS32, F1, 0xffffffff00000000ull + STACK3, UDS32);
	IRETQ(m);
	m_expect_at(m, UCS32, HANDLER);
	assert_int_equal(m->x.mode, UM_MODE_32);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK3);
	/*
	 * And back up is through IRET in compatibility mode at CPL 0 only by far means: same CPL.
	 */
	m_compat(m, 0);
	FRAME(m, 4, HANDLER, CS64, F1);
	IRET(m);
	m_expect_at(m, CS64, HANDLER);
	assert_int_equal(m->x.mode, UM_MODE_64);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK + 12);
}

static void long_checks(void **state)
{
	struct machine *m = *state;
	static const struct {
		u64 rip;
		u16 cs, ss;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ 0x800000000000ull, UCS64, UDS32, UM_VEC_GP, 0 },
		{ 0x1000, UCS64, 0, UM_VEC_GP, 0 },		/* null SS at CPL 3 */
		{ 0x1000, CS32, 0, UM_VEC_GP, 0 },		/* and in compatibility mode */
		{ 0x100000000ull, UCS32, UDS32, UM_VEC_GP, 0 }, /* limit */
		{ 0x1000, FREE, DS32, UM_VEC_GP, FREE },	/* L and D */
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_long64(m, 0);
		m_put(m, GDT_AT + FREE, m_desc_make(0, ~0u, T_CODE, 0, "pdl"), 8);
		FRAME(m, 8, cases[n].rip, cases[n].cs, F1, STACK3, cases[n].ss);
		IRETQ(m);
		m_expect_fault(m, cases[n].vec, cases[n].code);
	}
	/* NT in IA-32e mode. */
	m_long64(m, 0);
	m->x.cpu.rflags |= RFLAGS_NT;
	IRETQ(m);
	m_expect_fault(m, UM_VEC_GP, 0);
	/* A stack that isn't canonical. */
	m_long64(m, 0);
	m->x.cpu.gpr[UM_RSP] = 0x7ffffffffff0ull;
	IRETQ(m);
	m_expect_fault(m, UM_VEC_SS, 0);
	/* NMIs are unblocked by a faulting IRET too. */
	m_long64(m, 0);
	m->x.cpu.nmi_masked = true;
	FRAME(m, 8, 0, 0, F1, 0, 0);
	IRETQ(m);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_GP);
	assert_false(m->x.cpu.nmi_masked);
}

static void task_return_checks(void **state)
{
	struct machine *m = *state;
	static const struct {
		u16 link;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ 0, UM_VEC_TS, 0 },
		{ TSSB | 4, UM_VEC_TS, TSSB | 4 },
		{ GDT_END, UM_VEC_TS, GDT_END },
		{ TSSB, UM_VEC_TS, TSSB }, /* not busy */
		{ DS32, UM_VEC_TS, DS32 },
		{ FREE, UM_VEC_NP, FREE },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, 0);
		m->x.cpu.rflags |= RFLAGS_NT;
		m_desc(m, FREE, m_desc_make(TSSB_AT, 0x67, UM_SYS_TSS_BUSY, 0, ""), 0);
		m_put(m, TSS_AT, cases[n].link, 2);
		IRET(m);
		m_expect_fault(m, cases[n].vec, cases[n].code);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(real_mode),	M_TEST(same_privilege), M_TEST(user_flags),
		M_TEST(outer),		M_TEST(outer_stack16),	M_TEST(return_checks),
		M_TEST(to_vm86),	M_TEST(in_vm86),	M_TEST(long_mode),
		M_TEST(long_to_compat), M_TEST(long_checks),	M_TEST(task_return_checks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* Control and debug registers, descriptor-table registers, TLB instructions. */
#include "machine.h"

#define CR(m, n) ((m)->x.cpu.cr##n)
#define PG_PE	 (CR0_PG | CR0_PE | CR0_ET)

/* MOV CRn, ECX */
static void to_cr(struct machine *m, unsigned n, u64 v)
{
	u8 b[3] = { 0x0f, 0x22, 0xc1 | n << 3 };

	m->x.cpu.rip = CODE_AT;
	m->x.cpu.gpr[UM_RCX] = v;
	m_run(m, b, 3);
}

static void to_dr(struct machine *m, unsigned n, u64 v)
{
	u8 b[3] = { 0x0f, 0x23, 0xc1 | n << 3 };

	m->x.cpu.rip = CODE_AT;
	m->x.cpu.gpr[UM_RCX] = v;
	m_run(m, b, 3);
}

static void cr0(void **state)
{
	struct machine *m = *state;
	static const u64 bad[] = { CR0_PG, CR0_PE | CR0_NW };

	m_real(m);
	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		to_cr(m, 0, bad[n]);
		m_expect_fault(m, UM_VEC_GP, 0);
	}
	/* Undefined bits are ignored, ET is always set. */
	to_cr(m, 0, 0x1ff8ffc0 | CR0_PE);
	m_expect_next(m);
	assert_int_equal(CR(m, 0), CR0_PE | CR0_ET);
	assert_int_equal(m->x.mode, UM_MODE_16);
	assert_int_equal(m->resets, 1);
	to_cr(m, 0, CR0_PE | CR0_TS);
	assert_int_equal(m->resets, 1);
	to_cr(m, 0, 0);
	assert_int_equal(m->x.mode, UM_MODE_REAL);
	m_long64(m, 0);
	to_cr(m, 0, CR(m, 0) | BIT(32));
	m_expect_fault(m, UM_VEC_GP, 0);
	to_cr(m, 0, CR0_PE);
	m_expect_fault(m, UM_VEC_GP, 0); /* paging off in 64-bit mode */
	m_prot32(m, 3);
	to_cr(m, 0, PG_PE);
	m_expect_fault(m, UM_VEC_GP, 0);
}

/* Into IA-32e mode and out of it. */
static void long_mode(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	CR(m, 0) = CR0_PE | CR0_ET;
	m->x.cpu.efer = EFER_LME;
	to_cr(m, 0, PG_PE);
	m_expect_fault(m, UM_VEC_GP, 0); /* without PAE */
	CR(m, 4) = CR4_PAE;
	m->x.cpu.seg[UM_CS].l = true;
	to_cr(m, 0, PG_PE);
	m_expect_fault(m, UM_VEC_GP, 0); /* straight into 64-bit code */
	m->x.cpu.seg[UM_CS].l = false;
	m->x.cpu.tr.type = UM_SYS_TSS16_BUSY;
	to_cr(m, 0, PG_PE);
	m_expect_fault(m, UM_VEC_GP, 0);
	m->x.cpu.tr.type = UM_SYS_TSS_BUSY;
	m->pdptr_result = 1; /* no PDPTEs are loaded in IA-32e mode */
	to_cr(m, 0, PG_PE);
	m_expect_next(m);
	assert_int_equal(m->x.cpu.efer, EFER_LME | EFER_LMA);
	assert_int_equal(m->x.mode, UM_MODE_32);
	to_cr(m, 4, 0);
	m_expect_fault(m, UM_VEC_GP, 0); /* PAE stays */
	to_cr(m, 4, CR4_PAE | CR4_LA57);
	m_expect_fault(m, UM_VEC_GP, 0);
	to_cr(m, 0, CR0_PE);
	m_expect_next(m);
	assert_int_equal(m->x.cpu.efer, EFER_LME);
}

static void pae(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	CR(m, 0) = CR0_PE | CR0_ET;
	CR(m, 4) = CR4_PAE;
	CR(m, 3) = 0x1000;
	m->pdptr_result = 1;
	to_cr(m, 0, PG_PE);
	m_expect_fault(m, UM_VEC_GP, 0);
	m->pdptr_result = 0;
	to_cr(m, 0, PG_PE);
	m_expect_next(m);
	assert_int_equal(m->x.cpu.pdptr[3], 0x1003);
	to_cr(m, 3, 0x2000);
	assert_int_equal(m->x.cpu.pdptr[3], 0x2003);
	m->pdptr_result = -14;
	to_cr(m, 3, 0x3000);
	m_expect_fault(m, UM_VEC_GP, 0);
	to_cr(m, 4, CR4_PAE | CR4_PGE);
	m_expect_fault(m, UM_VEC_GP, 0);
	to_cr(m, 4, CR4_PAE | CR4_TSD); /* no reload for this one */
	m_expect_next(m);
}

static void cr3(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	to_cr(m, 3, 0x1234018);
	m_expect_next(m);
	assert_int_equal(CR(m, 3), 0x1234018);
	assert_true(m->cr3_flush);
	to_cr(m, 3, BIT(46));
	m_expect_fault(m, UM_VEC_GP, 0); /* MAXPHYADDR is 46 */
	to_cr(m, 3, CR3_NOFLUSH | 0x1000);
	m_expect_fault(m, UM_VEC_GP, 0);
	CR(m, 3) = 0x1000;
	to_cr(m, 4, CR(m, 4) | CR4_PCIDE);
	m_expect_next(m);
	to_cr(m, 3, CR3_NOFLUSH | 0x1005);
	m_expect_next(m);
	assert_int_equal(CR(m, 3), 0x1005);
	assert_false(m->cr3_flush);
	/* 32-bit: the upper half of the register isn't looked at. */
	m_prot32(m, 0);
	to_cr(m, 3, 0xffffffff00003000);
	assert_int_equal(CR(m, 3), 0x3000);
}

static void cr4(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	to_cr(m, 4, CR(m, 4) | CR4_VMXE);
	m_expect_fault(m, UM_VEC_GP, 0);
	to_cr(m, 4, CR(m, 4) | BIT(40));
	m_expect_fault(m, UM_VEC_GP, 0);
	CR(m, 3) = 0x1005; /* PCIDE needs PCID 0 */
	to_cr(m, 4, CR(m, 4) | CR4_PCIDE);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_prot32(m, 0); /* and IA-32e mode */
	to_cr(m, 4, CR4_PCIDE);
	m_expect_fault(m, UM_VEC_GP, 0);
	m->resets = 0;
	to_cr(m, 4, CR4_PSE | CR4_PGE);
	m_expect_next(m);
	assert_int_equal(m->resets, 1);
	to_cr(m, 4, CR4_PSE | CR4_PGE | CR4_DE | CR4_TSD);
	assert_int_equal(m->resets, 1);
}

static void cr8_and_reads(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	CR(m, 2) = 0x123456789abcdef;
	RUN(m, 0x0f, 0x20, 0xd1); /* mov rcx, cr2 */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0x123456789abcdef);
	to_cr(m, 2, 0x77);
	assert_int_equal(CR(m, 2), 0x77);
	m->x.cpu.rip = CODE_AT;
	RUN(m, 0x44, 0x0f, 0x20, 0xc1); /* mov rcx, cr8 */
	assert_int_equal(m->x.exit.kind, UM_EXIT_CR8_READ);
	assert_int_equal(m->x.exit.reg, UM_RCX);
	assert_int_equal(m->x.exit.insn_len, 4);
	assert_int_equal(m->x.cpu.rip, CODE_AT);
	RUN(m, 0x45, 0x0f, 0x22, 0xc1); /* mov cr8, r9 */
	assert_int_equal(m->x.exit.kind, UM_EXIT_CR8_WRITE);
	assert_int_equal(m->x.exit.reg, UM_R9);
	m_long64(m, 3);
	RUN(m, 0x44, 0x0f, 0x20, 0xc1);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x20, 0xc1);
	m_expect_fault(m, UM_VEC_GP, 0);
}

static void lmsw_smsw_clts(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m->x.cpu.gpr[UM_RCX] = 0xfff0 | CR0_TS; /* PE can't be cleared */
	RUN(m, 0x0f, 0x01, 0xf1);
	m_expect_next(m);
	assert_int_equal(CR(m, 0), PG_PE | CR0_NE | CR0_WP | CR0_TS);
	RUN(m, 0x0f, 0x06);
	assert_false(CR(m, 0) & CR0_TS);
	RUN(m, 0x0f, 0x01, 0xe1); /* smsw ecx */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], CR(m, 0));
	RUN(m, 0x0f, 0x01, 0x25, 0x00, 0x50, 0x00, 0x00);
	assert_int_equal(m_get(m, DATA_AT, 4), 0xcccc0000 | (u16)CR(m, 0));
	m_real(m);
	m->x.cpu.gpr[UM_RCX] = CR0_PE;
	RUN(m, 0x0f, 0x01, 0xf1);
	assert_int_equal(m->x.mode, UM_MODE_16);
	m_prot32(m, 3);
	RUN(m, 0x0f, 0x06);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x01, 0xf1);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x01, 0xe1);
	m_expect_next(m);
	CR(m, 4) |= CR4_UMIP;
	RUN(m, 0x0f, 0x01, 0xe1);
	m_expect_fault(m, UM_VEC_GP, 0);
}

static void debug_registers(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	to_dr(m, 3, 0xffff800000001234);
	m_expect_next(m);
	assert_int_equal(m->x.cpu.dr[3], 0xffff800000001234);
	assert_int_equal(m->rights, 1);
	to_dr(m, 7, 0xffffffff);
	assert_int_equal(m->x.cpu.dr7, 0xffff27ff);
	/* GD is on now: even a read traps. */
	RUN(m, 0x0f, 0x21, 0xd9);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_DB);
	assert_int_equal(m->x.exit.exc.kind, UM_EVENT_FAULT);
	assert_int_equal(m->x.exit.exc.payload, DR6_BD);
	m->x.cpu.dr7 = DR7_FIXED1;
	to_dr(m, 6, 0x12345);
	assert_int_equal(m->x.cpu.dr6, DR6_FIXED1 | 0x2005);
	to_dr(m, 4, 0); /* DR6, without CR4.DE */
	m_expect_next(m);
	assert_int_equal(m->x.cpu.dr6, DR6_FIXED1);
	to_dr(m, 6, BIT(32));
	m_expect_fault(m, UM_VEC_GP, 0);
	to_dr(m, 7, BIT(32));
	m_expect_fault(m, UM_VEC_GP, 0);
	CR(m, 4) |= CR4_DE;
	to_dr(m, 5, 0);
	m_expect_ud(m);
	m->x.cpu.dr[1] = 0x55;
	m->x.cpu.rip = CODE_AT;
	RUN(m, 0x0f, 0x21, 0xc9); /* mov rcx, dr1 */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0x55);
	/* #UD, #GP, #DB in this order. */
	m_long64(m, 3);
	m->x.cpu.dr7 |= DR7_GD;
	to_dr(m, 0, 0);
	m_expect_fault(m, UM_VEC_GP, 0);
	CR(m, 4) |= CR4_DE;
	to_dr(m, 4, 0);
	m_expect_ud(m);
}

static void tlb(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	RUN(m, 0x0f, 0x01, 0x3c, 0x25, 0x00, 0x50, 0x00, 0x00); /* invlpg [DATA_AT] */
	m_expect_next(m);
	assert_int_equal(m->invlpg, 1);
	assert_int_equal(m->invlpg_gva, DATA_AT);
	m->x.cpu.gpr[UM_RCX] = 0x800000000000;
	RUN(m, 0x0f, 0x01, 0x39);
	m_expect_next(m);
	assert_int_equal(m->invlpg, 1);

	static const struct {
		u64 type, pcid, gva, cr4;
		bool ok;
	} cases[] = {
		{ 0, 0, 0x1000, 0, 1 },
		{ 0, 5, 0x1000, 0, 0 },
		{ 0, 5, 0x1000, CR4_PCIDE, 1 },
		{ 0, 0x1000, 0x1000, CR4_PCIDE, 0 },
		{ 0, 0, 0x800000000000, 0, 0 },
		{ 1, 5, 0x800000000000, CR4_PCIDE, 1 },
		{ 1, 5, 0, 0, 0 },
		{ 2, 5, 0, 0, 1 },
		{ 3, 0, 0, 0, 1 },
		{ 4, 0, 0, 0, 0 },
		{ BIT(32), 0, 0, 0, 0 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_long64(m, 0);
		CR(m, 4) |= cases[n].cr4;
		m->invpcid = 0;
		m->x.cpu.gpr[UM_RCX] = cases[n].type;
		m_put(m, DATA_AT, cases[n].pcid, 8);
		m_put(m, DATA_AT + 8, cases[n].gva, 8);
		RUN(m, 0x66, 0x0f, 0x38, 0x82, 0x0c, 0x25, 0x00, 0x50, 0x00, 0x00);
		if (cases[n].ok)
			m_expect_next(m);
		else
			m_expect_fault(m, UM_VEC_GP, 0);
		assert_int_equal(m->invpcid, cases[n].ok);
	}
	m_long64(m, 3);
	RUN(m, 0x66, 0x0f, 0x38, 0x82, 0x0c, 0x25, 0x00, 0x50, 0x00, 0x00);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x01, 0x39);
	m_expect_fault(m, UM_VEC_GP, 0);
}

/* ---- GDTR, IDTR, LDTR, TR ---- */

static void dtables(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	m_put(m, DATA_AT, 0x1234, 2);
	m_put(m, DATA_AT + 2, 0xffff800012345678, 8);
	RUN(m, 0x0f, 0x01, 0x14, 0x25, 0x00, 0x50, 0x00, 0x00); /* lgdt */
	m_expect_next(m);
	assert_int_equal(m->x.cpu.gdt.base, 0xffff800012345678);
	assert_int_equal(m->x.cpu.gdt.limit, 0x1234);
	m_put(m, DATA_AT + 2, 0x800000000000, 8);
	RUN(m, 0x0f, 0x01, 0x1c, 0x25, 0x00, 0x50, 0x00, 0x00); /* lidt */
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x01, 0x0c, 0x25, 0x00, 0x50, 0x00, 0x00); /* sidt */
	m_expect_next(m);
	assert_int_equal(m_get(m, DATA_AT, 2), m->x.cpu.idt.limit);
	assert_int_equal(m_get(m, DATA_AT + 2, 8), IDT_AT);

	m_real(m);
	m_put(m, DATA_AT, 0xaabbccdd1234, 6);
	RUN(m, 0x0f, 0x01, 0x16, 0x00, 0x50); /* 16 bits: 24 of base */
	assert_int_equal(m->x.cpu.gdt.base, 0xbbccdd);
	m->x.cpu.rip = CODE_AT;
	RUN(m, 0x66, 0x0f, 0x01, 0x16, 0x00, 0x50);
	assert_int_equal(m->x.cpu.gdt.base, 0xaabbccdd);
	RUN(m, 0x0f, 0x01, 0x06, 0x00, 0x51); /* sgdt */
	assert_int_equal(m_get(m, DATA_AT + 0x100, 8), 0xccccaabbccdd1234);

	m_prot32(m, 3);
	RUN(m, 0x0f, 0x01, 0x15, 0x00, 0x50, 0x00, 0x00);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x01, 0x05, 0x00, 0x50, 0x00, 0x00);
	m_expect_next(m);
	CR(m, 4) |= CR4_UMIP;
	RUN(m, 0x0f, 0x01, 0x05, 0x00, 0x50, 0x00, 0x00);
	m_expect_fault(m, UM_VEC_GP, 0);
}

/* LLDT and LTR of CX. */
static void lldt(struct machine *m, u16 sel)
{
	m->x.cpu.gpr[UM_RCX] = sel;
	RUN(m, 0x0f, 0x00, 0xd1);
}
static void ltr(struct machine *m, u16 sel)
{
	m->x.cpu.gpr[UM_RCX] = sel;
	RUN(m, 0x0f, 0x00, 0xd9);
}

static void ldtr_tr(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	lldt(m, 0);
	m_expect_next(m);
	assert_true(m->x.cpu.ldt.unusable);
	lldt(m, LDT);
	assert_int_equal(m->x.cpu.ldt.base, LDT_AT);
	RUN(m, 0x0f, 0x00, 0xc1); /* sldt ecx */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], LDT);
	ltr(m, TSSB);
	m_expect_next(m);
	assert_int_equal(m->x.cpu.tr.base, TSSB_AT);
	assert_int_equal(m->x.cpu.tr.type, UM_SYS_TSS_BUSY);
	assert_true(m_desc_get(m, TSSB) & BIT(41));
	RUN(m, 0x0f, 0x00, 0xc9); /* str ecx */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], TSSB);

	static const struct {
		u16 sel;
		unsigned ldt_vec, tr_vec;
		u32 code;
	} cases[] = {
		{ LDT | 4, UM_VEC_GP, UM_VEC_GP, LDT | 4 },
		{ GDT_END, UM_VEC_GP, UM_VEC_GP, GDT_END },
		{ DS32, UM_VEC_GP, UM_VEC_GP, DS32 },
		{ TSS, UM_VEC_GP, UM_VEC_GP, TSS }, /* busy */
		{ LDT, 0, UM_VEC_GP, LDT },
		{ FREE, UM_VEC_NP, UM_VEC_GP, FREE }, /* absent LDT */
		{ DOWN, UM_VEC_GP, UM_VEC_NP, DOWN }, /* absent TSS */
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, 0);
		m_desc(m, FREE, m_desc_make(0, 0x67, UM_SYS_LDT, 0, ""), 0);
		m_desc(m, DOWN, m_desc_make(0, 0x67, UM_SYS_TSS_AVAIL, 0, ""), 0);
		lldt(m, cases[n].sel);
		if (cases[n].ldt_vec)
			m_expect_fault(m, cases[n].ldt_vec, cases[n].code);
		m_prot32(m, 0);
		m_desc(m, FREE, m_desc_make(0, 0x67, UM_SYS_LDT, 0, ""), 0);
		m_desc(m, DOWN, m_desc_make(0, 0x67, UM_SYS_TSS_AVAIL, 0, ""), 0);
		ltr(m, cases[n].sel);
		m_expect_fault(m, cases[n].tr_vec, cases[n].code);
	}
	m_prot32(m, 0);
	ltr(m, 0);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_prot32(m, 3);
	lldt(m, 0);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x00, 0xc1);
	m_expect_next(m);
	CR(m, 4) |= CR4_UMIP;
	RUN(m, 0x0f, 0x00, 0xc9);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_real(m);
	lldt(m, 0);
	m_expect_ud(m);

	/* IA-32e mode: 16 bytes, canonical base, no 16-bit TSS. */
	m_long64(m, 0);
	m_desc(m, GATE, m_desc_make(0x1000, 0x67, UM_SYS_TSS_AVAIL, 0, "p"), 0xffff8000);
	ltr(m, GATE);
	m_expect_next(m);
	assert_int_equal(m->x.cpu.tr.base, 0xffff800000001000);
	m_desc(m, GATE, m_desc_make(0x1000, 0x67, UM_SYS_TSS_AVAIL, 0, "p"), 0x8000);
	ltr(m, GATE);
	m_expect_fault(m, UM_VEC_GP, GATE);
	m_desc(m, GATE, m_desc_make(0x1000, 0x67, UM_SYS_TSS16_AVAIL, 0, "p"), 0);
	ltr(m, GATE);
	m_expect_fault(m, UM_VEC_GP, GATE);
	m_desc(m, GATE, m_desc_make(0x1000, 0x67, UM_SYS_LDT, 0, "p"), 0x8000);
	lldt(m, GATE);
	m_expect_fault(m, UM_VEC_GP, GATE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(cr0),
		M_TEST(long_mode),
		M_TEST(pae),
		M_TEST(cr3),
		M_TEST(cr4),
		M_TEST(cr8_and_reads),
		M_TEST(lmsw_smsw_clts),
		M_TEST(debug_registers),
		M_TEST(tlb),
		M_TEST(dtables),
		M_TEST(ldtr_tr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

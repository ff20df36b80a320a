// SPDX-License-Identifier: MIT
/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, RDFSBASE and its kin. */
#include "machine.h"

#define HIGH 0xffff800000000000ull
#define C(m) (&(m)->x.cpu)

static void setup(struct machine *m, unsigned cpl)
{
	m_long64(m, cpl);
	C(m)->msr.star = 0x001b000800000000ull | 0x12340000; /* user base 0x1b, kernel 0x08 */
	C(m)->msr.lstar = HIGH + HANDLER;
	C(m)->msr.cstar = HIGH + HANDLER + 0x100;
	C(m)->msr.sfmask = RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_AC | RFLAGS_NT;
	C(m)->msr.sysenter_cs = 0x08;
	C(m)->msr.sysenter_eip = HIGH + HANDLER + 0x200;
	C(m)->msr.sysenter_esp = HIGH + STACK0;
}

static void expect_flat(const struct um_segment *s, u16 sel, unsigned type, unsigned dpl, bool l,
			bool db)
{
	assert_int_equal(s->selector, sel);
	assert_int_equal(s->base, 0);
	assert_int_equal(s->limit, 0xffffffff);
	assert_int_equal(s->type, type);
	assert_int_equal(s->dpl, dpl);
	assert_int_equal(s->l, l);
	assert_int_equal(s->db, db);
	assert_true(s->s && s->present && s->g && !s->unusable);
}

static void syscall_sysret(void **state)
{
	struct machine *m = *state;
	u64 flags = RFLAGS_FIXED1 | RFLAGS_IF | RFLAGS_DF | RFLAGS_CF | RFLAGS_ZF | RFLAGS_AC;

	setup(m, 3);
	C(m)->rflags = flags | RFLAGS_RF;
	RUN(m, 0x0f, 0x05);
	m_expect_at(m, 0x08, HIGH + HANDLER);
	assert_int_equal(C(m)->cpl, 0);
	assert_int_equal(C(m)->gpr[UM_RCX], CODE_AT + 2);
	assert_int_equal(C(m)->gpr[UM_R11], flags);
	assert_int_equal(C(m)->gpr[UM_RSP], STACK3);
	assert_int_equal(C(m)->rflags, RFLAGS_FIXED1 | RFLAGS_CF | RFLAGS_ZF);
	expect_flat(&C(m)->seg[UM_CS], 0x08, 11, 0, true, false);
	expect_flat(&C(m)->seg[UM_SS], 0x10, 3, 0, false, true);
	assert_int_equal(m->x.priv, UM_PRIV_KERNEL);
	assert_int_equal(m->x.fetch_ctx, m->tlb.ctx[UM_PRIV_KERNEL]);

	C(m)->gpr[UM_R11] = ~(u64)RFLAGS_TF;
	RUN(m, 0x48, 0x0f, 0x07);
	m_expect_at(m, 0x2b, CODE_AT + 2);
	assert_int_equal(C(m)->cpl, 3);
	assert_int_equal(C(m)->rflags, 0x3c7ed7);
	expect_flat(&C(m)->seg[UM_CS], 0x2b, 11, 3, true, false);
	expect_flat(&C(m)->seg[UM_SS], 0x23, 3, 3, false, true);
	assert_int_equal(m->x.priv, UM_PRIV_USER);
	/* With TF, it traps at once. */
	setup(m, 0);
	C(m)->gpr[UM_RCX] = CODE_AT + 2;
	C(m)->gpr[UM_R11] = RFLAGS_TF;
	RUN(m, 0x48, 0x0f, 0x07);
	assert_int_equal(m->x.exit.kind, UM_EXIT_EXCEPTION);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_DB);
	assert_int_equal(m->x.exit.exc.kind, UM_EVENT_TRAP);
	assert_int_equal(m->x.exit.exc.payload, DR6_BS);
	assert_int_equal(C(m)->rip, CODE_AT + 2);
	assert_int_equal(C(m)->cpl, 3);
	/* To compatibility mode. */
	setup(m, 0);
	C(m)->gpr[UM_RCX] = 0xffffffff00001234;
	C(m)->gpr[UM_R11] = RFLAGS_FIXED1;
	RUN(m, 0x0f, 0x07);
	m_expect_at(m, 0x1b, 0x1234);
	assert_int_equal(m->x.mode, UM_MODE_32);
	expect_flat(&C(m)->seg[UM_CS], 0x1b, 11, 3, false, true);
}

static void refusals(void **state)
{
	struct machine *m = *state;

	setup(m, 3);
	C(m)->efer &= ~EFER_SCE;
	RUN(m, 0x0f, 0x05);
	m_expect_ud(m);
	setup(m, 0);
	C(m)->efer &= ~EFER_SCE;
	RUN(m, 0x48, 0x0f, 0x07);
	m_expect_ud(m);
	setup(m, 3);
	RUN(m, 0x48, 0x0f, 0x07);
	m_expect_fault(m, UM_VEC_GP, 0);
	/* A return address that isn't canonical: the fault is the kernel's. */
	setup(m, 0);
	C(m)->gpr[UM_RCX] = 0x800000000000;
	RUN(m, 0x48, 0x0f, 0x07);
	m_expect_fault(m, UM_VEC_GP, 0);
	assert_int_equal(C(m)->cpl, 0);
}

/* Outside of 64-bit mode it depends on who made the processor. */
static void vendors(void **state)
{
	struct machine *m = *state;
	const struct um_insn i = { .op = ZYDIS_MNEMONIC_SYSCALL, .len = 2, .off = CODE_AT & 0xfff };

	for (unsigned amd = 0; amd < 2; amd++) {
		m_vendor(m, amd ? "AuthenticAMD" : "GenuineIntel");
		m_compat(m, 3);
		setup(m, 3);
		C(m)->seg[UM_CS] = um_segment_unpack(UCS32, m_desc_get(m, UCS32), 0);
		um_exec_sync(&m->x);
		m->x.cpu.gpr[UM_REG_PAGE] = CODE_AT & UM_PAGE_MASK;
		m->x.exit.kind = UM_EXIT_NONE;
		m->before = m->x.cpu;
		assert_null(um_system_bind(&m->x, &i)(&m->x, &i));
		if (!amd) {
			m_expect_ud(m);
			continue;
		}
		m_expect_at(m, 0x08, HIGH + HANDLER + 0x100);
		assert_int_equal(m->x.mode, UM_MODE_64);
		assert_int_equal(C(m)->gpr[UM_RCX], CODE_AT + 2);

		m_prot32(m, 3);
		C(m)->efer = EFER_SCE;
		C(m)->msr.star = 0x001b000800007700ull;
		um_exec_sync(&m->x);
		m->x.cpu.gpr[UM_REG_PAGE] = CODE_AT & UM_PAGE_MASK;
		assert_null(um_system_bind(&m->x, &i)(&m->x, &i));
		m_expect_at(m, 0x08, 0x7700);
		assert_int_equal(C(m)->rflags & RFLAGS_IF, 0);
	}
}

static void sysenter_sysexit(void **state)
{
	struct machine *m = *state;

	/* 32-bit. */
	m_prot32(m, 3);
	C(m)->msr.sysenter_cs = 0x08;
	C(m)->msr.sysenter_eip = 0xffffffff00000000ull + HANDLER;
	C(m)->msr.sysenter_esp = STACK0;
	C(m)->rflags |= RFLAGS_CF;
	RUN(m, 0x0f, 0x34);
	m_expect_at(m, 0x08, HANDLER);
	assert_int_equal(C(m)->gpr[UM_RSP], STACK0);
	assert_int_equal(C(m)->rflags, RFLAGS_FIXED1 | RFLAGS_CF);
	expect_flat(&C(m)->seg[UM_CS], 0x08, 11, 0, false, true);
	expect_flat(&C(m)->seg[UM_SS], 0x10, 3, 0, false, true);
	C(m)->gpr[UM_RCX] = STACK3;
	C(m)->gpr[UM_RDX] = CODE_AT;
	RUN(m, 0x0f, 0x35);
	m_expect_at(m, 0x1b, CODE_AT);
	assert_int_equal(C(m)->cpl, 3);
	assert_int_equal(C(m)->gpr[UM_RSP], STACK3);
	/* IA-32e mode. */
	setup(m, 3);
	RUN(m, 0x0f, 0x34);
	m_expect_at(m, 0x08, HIGH + HANDLER + 0x200);
	assert_int_equal(m->x.mode, UM_MODE_64);
	C(m)->gpr[UM_RCX] = STACK3;
	C(m)->gpr[UM_RDX] = 0x7fffffff0000;
	RUN(m, 0x48, 0x0f, 0x35);
	m_expect_at(m, 0x2b, 0x7fffffff0000);
	/* Refusals. */
	setup(m, 3);
	C(m)->msr.sysenter_cs = 3;
	RUN(m, 0x0f, 0x34);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x35);
	m_expect_fault(m, UM_VEC_GP, 0);
	setup(m, 0);
	C(m)->gpr[UM_RDX] = 0x800000000000;
	RUN(m, 0x48, 0x0f, 0x35);
	m_expect_fault(m, UM_VEC_GP, 0);
	setup(m, 3);
	RUN(m, 0x0f, 0x35);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_real(m);
	C(m)->msr.sysenter_cs = 8;
	RUN(m, 0x0f, 0x34);
	m_expect_fault(m, UM_VEC_GP, 0);
}

static void bases(void **state)
{
	struct machine *m = *state;

	setup(m, 0);
	C(m)->seg[UM_GS].base = 0x1111;
	C(m)->msr.kernel_gs_base = HIGH + 0x2222;
	RUN(m, 0x0f, 0x01, 0xf8);
	m_expect_next(m);
	assert_int_equal(C(m)->seg[UM_GS].base, HIGH + 0x2222);
	assert_int_equal(m->x.seg_base[UM_GS], HIGH + 0x2222);
	assert_int_equal(C(m)->msr.kernel_gs_base, 0x1111);
	setup(m, 3);
	RUN(m, 0x0f, 0x01, 0xf8);
	m_expect_fault(m, UM_VEC_GP, 0);

	setup(m, 3);
	RUN(m, 0xf3, 0x48, 0x0f, 0xae, 0xd1); /* wrfsbase rcx without CR4.FSGSBASE */
	m_expect_ud(m);
	C(m)->cr4 |= CR4_FSGSBASE;
	C(m)->gpr[UM_RCX] = HIGH + 0x77;
	RUN(m, 0xf3, 0x48, 0x0f, 0xae, 0xd1);
	m_expect_next(m);
	assert_int_equal(m->x.seg_base[UM_FS], HIGH + 0x77);
	C(m)->gpr[UM_RDX] = ~0ull;
	RUN(m, 0xf3, 0x0f, 0xae, 0xc2); /* rdfsbase edx */
	assert_int_equal(C(m)->gpr[UM_RDX], 0x77);
	C(m)->gpr[UM_RCX] = 0x800000000000;
	RUN(m, 0xf3, 0x48, 0x0f, 0xae, 0xd9); /* wrgsbase rcx */
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0xf3, 0x0f, 0xae, 0xd9); /* wrgsbase ecx: 32 bits, zero-extended */
	m_expect_next(m);
	assert_int_equal(m->x.seg_base[UM_GS], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(syscall_sysret),	  M_TEST(refusals), M_TEST(vendors),
		M_TEST(sysenter_sysexit), M_TEST(bases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

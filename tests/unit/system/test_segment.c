// SPDX-License-Identifier: MIT
/* Descriptors, segment register loads and stores, LAR, LSL, VERR, VERW, ARPL. */
#include "machine.h"

#define DS(m) (&(m)->x.cpu.seg[UM_DS])

/* MOV to a segment register from CX. */
static void mov(struct machine *m, enum um_seg seg, u16 sel)
{
	u8 b[2] = { 0x8e, 0xc1 | seg << 3 };

	m->x.cpu.gpr[UM_RCX] = sel;
	m_run(m, b, 2);
}

static void pack_unpack(void **state)
{
	static const u64 some[] = { 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x12409a345678abcd,
				    0x008089abcdef0fff, 0xffdff3ffffff1234, 0 };

	for (unsigned n = 0; n < ARRAY_SIZE(some); n++) {
		struct um_segment s = um_segment_unpack(0x1b, some[n], 0x1234), t = { 0 };
		u64 hi;

		assert_int_equal(um_segment_pack(&s, &hi), some[n]);
		assert_int_equal(hi, 0x1234);
		assert_int_equal(um_segment_rights(&s) & 0xf0ff, (some[n] >> 40) & 0xf0ff);
		um_segment_set_rights(&t, um_segment_rights(&s));
		assert_int_equal(um_segment_rights(&t), um_segment_rights(&s));
	}
	assert_int_equal(um_desc_base(0x12409a345678abcd), 0x12345678);
	assert_int_equal(um_desc_limit(0x12409a345678abcd), 0xabcd);
	assert_int_equal(um_desc_limit(0x00cf9b000000ffff), 0xffffffff);
	struct um_segment null = um_segment_null(3, 3);
	assert_int_equal(um_segment_rights(&null), 0x10060);
}

static void holds(void **state)
{
	struct um_segment up = um_segment_unpack(8, m_desc_make(0, 0xfff, T_DATA, 0, "pd"), 0);
	struct um_segment down = um_segment_unpack(8, m_desc_make(0, 0xfff, T_DOWN, 0, "pd"), 0);
	struct um_segment down16 = um_segment_unpack(8, m_desc_make(0, 0xfff, T_DOWN, 0, "p"), 0);

	assert_true(um_segment_holds(&up, 0xffc, 4));
	assert_false(um_segment_holds(&up, 0xffd, 4));
	assert_false(um_segment_holds(&up, 0xfffffffe, 4));
	assert_false(um_segment_holds(&down, 0xfff, 1));
	assert_true(um_segment_holds(&down, 0x1000, 4));
	assert_true(um_segment_holds(&down, 0xfffffffc, 4));
	assert_false(um_segment_holds(&down, 0xfffffffd, 4));
	assert_false(um_segment_holds(&down16, 0xfffd, 4));
}

static void real_and_unreal(void **state)
{
	struct machine *m = *state;

	m_real(m);
	DS(m)->limit = 0xffffffff;
	mov(m, UM_DS, 0x1234);
	m_expect_next(m);
	assert_int_equal(DS(m)->base, 0x12340);
	assert_int_equal(DS(m)->limit, 0xffffffff);
	assert_int_equal(m->x.seg_base[UM_DS], 0x12340);
	*DS(m) = um_segment_null(0, 0);
	mov(m, UM_DS, 0x10);
	assert_int_equal(DS(m)->limit, 0xffff);
	assert_false(DS(m)->unusable);
	m_vm86(m, 0);
	mov(m, UM_ES, 0x4321);
	assert_int_equal(m->x.cpu.seg[UM_ES].base, 0x43210);
	assert_int_equal(m->x.cpu.seg[UM_ES].dpl, 3);
}

/* DS at each privilege: SDM vol. 3 5.6. */
static void load_data(void **state)
{
	struct machine *m = *state;
	static const struct {
		u8 cpl;
		u16 sel;
		unsigned vec; /* 0: fine */
		u32 code;
	} cases[] = {
		{ 0, DS32, 0, 0 },
		{ 0, DS32 | 3, UM_VEC_GP, DS32 }, /* max(CPL, RPL) > DPL */
		{ 0, UDS32, 0, 0 },
		{ 0, UDS32 & ~3, 0, 0 },
		{ 3, UDS32, 0, 0 },
		{ 3, UDS32 & ~3, 0, 0 },
		{ 3, DS32, UM_VEC_GP, DS32 },
		{ 3, CCS32, 0, 0 }, /* conforming, readable: for all */
		{ 0, RODATA, 0, 0 },
		{ 0, CS32, 0, 0 },
		{ 0, XONLY, UM_VEC_GP, XONLY },
		{ 0, TSS, UM_VEC_GP, TSS },
		{ 0, ABSENT, UM_VEC_NP, ABSENT },
		{ 0, GDT_END, UM_VEC_GP, GDT_END },
		{ 0, 0x44, UM_VEC_GP, 0x44 }, /* LDT limit */
		{ 0, 0x0c, 0, 0 },	      /* in the LDT */
		{ 0, 0, 0, 0 },
		{ 3, 3, 0, 0 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, cases[n].cpl);
		m_desc(m, 0x0c, m_desc_make(0x5000, 0xfff, T_DATA, 0, "pd"), 0);
		mov(m, UM_DS, cases[n].sel);
		if (cases[n].vec) {
			m_expect_fault(m, cases[n].vec, cases[n].code);
			continue;
		}
		m_expect_next(m);
		assert_int_equal(DS(m)->selector, cases[n].sel);
		assert_int_equal(DS(m)->unusable, cases[n].sel < 4);
		if (cases[n].sel >= 4)
			assert_int_equal(m_desc_get(m, cases[n].sel) >> 40 & 1, 1);
	}
	m_prot32(m, 0);
	m->x.cpu.ldt = um_segment_null(0, 0);
	mov(m, UM_DS, 0x0c);
	m_expect_fault(m, UM_VEC_GP, 0x0c);
	/* The accessed bit can't be set: a page fault, and no load. */
	m_prot32(m, 0);
	m->readonly[GDT_AT >> 12] = 1;
	mov(m, UM_DS, RODATA);
	m_expect_fault(m, UM_VEC_PF, PFERR_WRITE | PFERR_PRESENT);
}

static void load_ss(void **state)
{
	struct machine *m = *state;
	static const struct {
		u8 cpl;
		u16 sel;
		unsigned vec;
		u32 code;
	} cases[] = {
		{ 0, DS32, 0, 0 },
		{ 0, DS16, 0, 0 },
		{ 0, 0, UM_VEC_GP, 0 },
		{ 0, DS32 | 3, UM_VEC_GP, DS32 },
		{ 0, UDS32, UM_VEC_GP, UDS32 & ~3 },
		{ 0, RODATA, UM_VEC_GP, RODATA },
		{ 0, CS32, UM_VEC_GP, CS32 },
		{ 0, ABSENT, UM_VEC_SS, ABSENT },
		{ 3, UDS32, 0, 0 },
		{ 3, UDS32 & ~3, UM_VEC_GP, UDS32 & ~3 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, cases[n].cpl);
		mov(m, UM_SS, cases[n].sel);
		if (cases[n].vec) {
			m_expect_fault(m, cases[n].vec, cases[n].code);
			continue;
		}
		m_expect_next(m);
		assert_int_equal(m->x.sp_mask, cases[n].sel == DS16 ? 0xffff : 0xffffffff);
		assert_int_equal(m->x.cpu.int_shadow, UM_SHADOW_MOVSS);
		assert_true(m->x.special & UM_SPECIAL_STEP);
		m->x.cpu.int_shadow = 0;
	}
	/* 64-bit mode: null with RPL = CPL < 3. */
	m_long64(m, 0);
	mov(m, UM_SS, 0);
	m_expect_next(m);
	assert_true(m->x.cpu.seg[UM_SS].unusable);
	m_long64(m, 0);
	mov(m, UM_SS, 1);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_long64(m, 3);
	mov(m, UM_SS, 3);
	m_expect_fault(m, UM_VEC_GP, 0);
}

static void load_cs_is_ud(void **state)
{
	struct machine *m = *state;
	struct um_insn i = { .op = ZYDIS_MNEMONIC_MOV,
			     .kind = { UM_OPD_SEG, UM_OPD_GPR },
			     .reg = { UM_CS, 0 },
			     .len = 2 };

	m_prot32(m, 0);
	m->before = m->x.cpu;
	assert_null(um_system_bind(&m->x, &i)(&m->x, &i));
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_UD);
}

/* In 64-bit mode FS and GS take the descriptor's base; null zeroes it. */
static void long_bases(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	m_put(m, GDT_AT + FREE, m_desc_make(0x12345678, 0xfff, T_DATA, 0, "pd"), 8);
	mov(m, UM_GS, FREE);
	assert_int_equal(m->x.seg_base[UM_GS], 0x12345678);
	mov(m, UM_DS, FREE);
	assert_int_equal(m->x.seg_base[UM_DS], 0);
	mov(m, UM_GS, 0);
	assert_int_equal(m->x.seg_base[UM_GS], 0);
	assert_int_equal(m->x.cpu.seg[UM_GS].base, 0);
}

static void stores(void **state)
{
	struct machine *m = *state;
	u64 rcx = 0x2222222222222222;

	m_prot32(m, 0);
	m->x.cpu.gpr[UM_RCX] = rcx;
	RUN(m, 0x8c, 0xd9); /* mov ecx, ds */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], DS32);
	m->x.cpu.gpr[UM_RCX] = rcx;
	RUN(m, 0x66, 0x8c, 0xd9); /* mov cx, ds */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0x2222222222220010);
	RUN(m, 0x8c, 0x1d, 0x00, 0x50, 0x00, 0x00); /* mov [DATA_AT], ds */
	assert_int_equal(m_get(m, DATA_AT, 4), 0xcccc0000 | DS32);
	/* push: 16 bits of a 32-bit slot */
	m_put(m, KSTACK - 4, 0xaaaaaaaa, 4);
	RUN(m, 0x1e);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK - 4);
	assert_int_equal(m_get(m, KSTACK - 4, 4), 0xaaaa0000 | DS32);
	RUN(m, 0x07); /* pop es */
	assert_int_equal(m->x.cpu.seg[UM_ES].selector, DS32);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK);
	/* A pop that faults leaves RSP alone. */
	m_put(m, KSTACK, GDT_END, 2);
	RUN(m, 0x07);
	m_expect_fault(m, UM_VEC_GP, GDT_END);
	m_put(m, KSTACK, DS16, 2);
	m->x.cpu.rip = CODE_AT;
	RUN(m, 0x17); /* pop ss: moves the old stack pointer */
	m_expect_next(m);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], KSTACK + 4);
	assert_int_equal(m->x.cpu.int_shadow, UM_SHADOW_MOVSS);

	m_long64(m, 0);
	m->x.cpu.seg[UM_FS].selector = 0x1234;
	RUN(m, 0x0f, 0xa0); /* push fs */
	assert_int_equal(m_get(m, KSTACK - 8, 8), 0x1234);
	RUN(m, 0x48, 0x8c, 0xe1); /* mov rcx, fs */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0x1234);
}

static void far_pointers(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m_put(m, DATA_AT, 0x11223344, 4);
	m_put(m, DATA_AT + 4, UDS32, 2);
	RUN(m, 0xc4, 0x0d, 0x00, 0x50, 0x00, 0x00); /* les ecx, [DATA_AT] */
	m_expect_next(m);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0x11223344);
	assert_int_equal(m->x.cpu.seg[UM_ES].selector, UDS32);
	m_put(m, DATA_AT + 4, XONLY, 2);
	RUN(m, 0x0f, 0xb5, 0x0d, 0x00, 0x50, 0x00, 0x00); /* lgs */
	m_expect_fault(m, UM_VEC_GP, XONLY);
	m_put(m, DATA_AT + 4, DS16, 2);
	RUN(m, 0x0f, 0xb2, 0x25, 0x00, 0x50, 0x00, 0x00); /* lss esp */
	m_expect_next(m);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], 0x11223344);
	assert_int_equal(m->x.cpu.int_shadow, 0);
}

/* ---- LAR and its kin: ECX := about the selector in DX ---- */

static bool lar(struct machine *m, u16 sel, u32 *v)
{
	m->x.cpu.rip = CODE_AT;
	m->x.cpu.gpr[UM_RDX] = sel;
	RUN(m, 0x0f, 0x02, 0xca);
	m_expect_next(m);
	*v = m->x.cpu.gpr[UM_RCX];
	return m->x.cpu.rflags & RFLAGS_ZF;
}

static bool lsl(struct machine *m, u16 sel, u32 *v)
{
	m->x.cpu.rip = CODE_AT;
	m->x.cpu.gpr[UM_RDX] = sel;
	RUN(m, 0x0f, 0x03, 0xca);
	m_expect_next(m);
	*v = m->x.cpu.gpr[UM_RCX];
	return m->x.cpu.rflags & RFLAGS_ZF;
}

/* Every system type: which do LAR and LSL know, in legacy and in IA-32e mode? */
static void system_types(void **state)
{
	struct machine *m = *state;

	for (unsigned l = 0; l < 2; l++)
		for (unsigned type = 0; type < 16; type++) {
			static const u16 known[2][2] = {
				/* LAR, LSL */
				{ 0x1a3e, 0x0a0e }, /* 1 2 3 4 5 9 b c; 1 2 3 9 b */
				{ 0x1a04, 0x0a04 }, /* 2 9 b c; 2 9 b */
			};
			u32 v;

			if (l)
				m_long64(m, 0);
			else
				m_prot32(m, 0);
			m_put(m, GDT_AT + FREE, m_desc_make(0, 0x1234, type, 0, "p"), 8);
			assert_int_equal(lar(m, FREE, &v), known[l][0] >> type & 1);
			if (known[l][0] >> type & 1)
				assert_int_equal(v, 0x8000 | type << 8);
			assert_int_equal(lsl(m, FREE, &v), known[l][1] >> type & 1);
			if (known[l][1] >> type & 1)
				assert_int_equal(v, 0x1234);
		}
}

static void lar_lsl(void **state)
{
	struct machine *m = *state;
	u32 v, old;

	m_prot32(m, 0);
	assert_true(lar(m, DS32, &v));
	assert_int_equal(v, 0xc09200);
	assert_true(lsl(m, DS32, &v));
	assert_int_equal(v, 0xffffffff);
	assert_true(lar(m, ABSENT, &v)); /* absence is no failure */
	/* Failures leave the register. */
	m->x.cpu.gpr[UM_RCX] = old = 0x77777777;
	assert_false(lar(m, 0, &v));
	assert_int_equal(v, old);
	assert_false(lar(m, GDT_END, &v));
	assert_false(lsl(m, DS32 | 3, &v));
	assert_int_equal(v, old);
	m_prot32(m, 3);
	assert_false(lar(m, DS32, &v));
	assert_true(lar(m, CCS32, &v));
	m_desc(m, FREE, m_desc_make(0, 0xfffff000 | 0xfff, T_DATA, 3, "p"), 0);
	m->x.cpu.gpr[UM_RCX] = 0xffffffffffffffff;
	m->x.cpu.rip = CODE_AT;
	m->x.cpu.gpr[UM_RDX] = FREE;
	RUN(m, 0x66, 0x0f, 0x02, 0xca); /* lar cx: 16 bits */
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0xfffffffffffff200);
	/* A page fault on the table is one. */
	m->absent[GDT_AT >> 12] = 1;
	RUN(m, 0x0f, 0x02, 0xca);
	m_expect_fault(m, UM_VEC_PF, 0);
	m->absent[GDT_AT >> 12] = 0;
	m_real(m);
	RUN(m, 0x0f, 0x02, 0xca);
	m_expect_ud(m);
}

static void verify(void **state)
{
	struct machine *m = *state;
	static const struct {
		u8 cpl;
		u16 sel;
		bool read, write;
	} cases[] = {
		{ 0, DS32, 1, 1 },   { 3, DS32, 0, 0 }, { 0, DS32 | 3, 0, 0 }, { 3, UDS32, 1, 1 },
		{ 0, RODATA, 1, 0 }, { 0, CS32, 1, 0 }, { 0, XONLY, 0, 0 },    { 3, CCS32, 1, 0 },
		{ 0, TSS, 0, 0 },    { 0, 0, 0, 0 },	{ 0, GDT_END, 0, 0 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_prot32(m, cases[n].cpl);
		m->x.cpu.gpr[UM_RDX] = cases[n].sel;
		RUN(m, 0x0f, 0x00, 0xe2); /* verr dx */
		assert_int_equal(!!(m->x.cpu.rflags & RFLAGS_ZF), cases[n].read);
		RUN(m, 0x0f, 0x00, 0xea); /* verw dx */
		assert_int_equal(!!(m->x.cpu.rflags & RFLAGS_ZF), cases[n].write);
	}
}

static void arpl(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m->x.cpu.gpr[UM_RDX] = 0x100;
	m->x.cpu.gpr[UM_RCX] = 2;
	RUN(m, 0x63, 0xca); /* arpl dx, cx */
	assert_int_equal(m->x.cpu.gpr[UM_RDX], 0x102);
	assert_true(m->x.cpu.rflags & RFLAGS_ZF);
	RUN(m, 0x63, 0xca);
	assert_false(m->x.cpu.rflags & RFLAGS_ZF);
	m_put(m, DATA_AT, 0x1001, 2);
	RUN(m, 0x63, 0x0d, 0x00, 0x50, 0x00, 0x00);
	assert_int_equal(m_get(m, DATA_AT, 2), 0x1002);
	assert_true(m->x.cpu.rflags & RFLAGS_ZF);
	m_vm86(m, 3);
	RUN(m, 0x63, 0xca);
	m_expect_ud(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(pack_unpack),  M_TEST(holds),   M_TEST(real_and_unreal),
		M_TEST(load_data),    M_TEST(load_ss), M_TEST(load_cs_is_ud),
		M_TEST(long_bases),   M_TEST(stores),  M_TEST(far_pointers),
		M_TEST(system_types), M_TEST(lar_lsl), M_TEST(verify),
		M_TEST(arpl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* CLI and STI, STAC and CLAC, HLT, MWAIT, time, CPUID, MSRs, caches, hypercalls. */
#include "machine.h"

#define C(m) (&(m)->x.cpu)

/* CLI and STI by CPL, IOPL, PVI and VME: SDM vol. 2 table 3-7 (CLI), 4-... (STI). */
static void cli_sti(void **state)
{
	struct machine *m = *state;
	static const struct {
		bool vm86;
		u8 cpl, iopl;
		u64 cr4, flags, flag; /* which flag changes; 0: #GP(0) */
	} cases[] = {
		{ 0, 0, 0, 0, 0, RFLAGS_IF },
		{ 0, 3, 3, 0, 0, RFLAGS_IF },
		{ 0, 3, 0, 0, 0, 0 },
		{ 0, 3, 0, CR4_PVI, 0, RFLAGS_VIF },
		{ 0, 3, 3, CR4_PVI, 0, RFLAGS_IF },
		{ 1, 3, 3, 0, 0, RFLAGS_IF },
		{ 1, 3, 0, 0, 0, 0 },
		{ 1, 3, 0, CR4_VME, 0, RFLAGS_VIF },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++)
		for (unsigned sti = 0; sti < 2; sti++) {
			u64 flag = cases[n].flag;

			if (cases[n].vm86)
				m_vm86(m, cases[n].iopl);
			else
				m_prot32(m, cases[n].cpl);
			C(m)->cr4 = cases[n].cr4;
			C(m)->rflags |= (u64)cases[n].iopl << 12;
			C(m)->rflags &= ~(RFLAGS_IF | RFLAGS_VIF);
			if (!sti)
				C(m)->rflags |= RFLAGS_IF | RFLAGS_VIF;
			if (sti)
				RUN(m, 0xfb);
			else
				RUN(m, 0xfa);
			if (!flag) {
				m_expect_fault(m, UM_VEC_GP, 0);
				continue;
			}
			m_expect_next(m);
			assert_int_equal(C(m)->rflags, m->before.rflags ^ flag);
			assert_int_equal(C(m)->int_shadow,
					 sti && flag == RFLAGS_IF ? UM_SHADOW_STI : 0);
			C(m)->int_shadow = 0;
		}
	/* No second shadow; VIP. */
	m_prot32(m, 0);
	RUN(m, 0xfb);
	assert_int_equal(C(m)->int_shadow, 0);
	m_prot32(m, 3);
	C(m)->cr4 = CR4_PVI;
	C(m)->rflags |= RFLAGS_VIP;
	RUN(m, 0xfb);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_real(m);
	RUN(m, 0xfa);
	assert_int_equal(C(m)->rflags, RFLAGS_FIXED1);
}

static void stac_clac(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	C(m)->cr4 |= CR4_SMAP;
	RUN(m, 0x0f, 0x01, 0xcb);
	m_expect_next(m);
	assert_true(C(m)->rflags & RFLAGS_AC);
	assert_int_equal(m->x.priv, UM_PRIV_KERNEL_AC);
	assert_int_equal(m->x.ctx, m->tlb.ctx[UM_PRIV_KERNEL_AC]);
	RUN(m, 0x0f, 0x01, 0xca);
	assert_false(C(m)->rflags & RFLAGS_AC);
	assert_int_equal(m->x.priv, UM_PRIV_KERNEL);
	m_long64(m, 3);
	RUN(m, 0x0f, 0x01, 0xcb);
	m_expect_ud(m);
	m_long64(m, 0);
	memset(C(m)->features, 0, sizeof(C(m)->features));
	RUN(m, 0x0f, 0x01, 0xcb);
	m_expect_ud(m);
}

static void expect_exit(struct machine *m, enum um_exit_kind kind)
{
	assert_int_equal(m->x.exit.kind, kind);
	assert_int_equal(m->x.cpu.rip, m->before.rip);
	assert_int_equal(m->x.exit.insn_len, m->insn.len);
	assert_memory_equal(m->before.gpr, m->x.cpu.gpr, sizeof(m->before.gpr));
}

static void exits(void **state)
{
	struct machine *m = *state;
	static const struct {
		u8 bytes[3], len;
		enum um_exit_kind kind;
		bool user; /* at CPL 3 too */
	} cases[] = {
		{ { 0xf4 }, 1, UM_EXIT_HLT, 0 },
		{ { 0x0f, 0x32 }, 2, UM_EXIT_RDMSR, 0 },
		{ { 0x0f, 0x30 }, 2, UM_EXIT_WRMSR, 0 },
		{ { 0x0f, 0x01, 0xc1 }, 3, UM_EXIT_HYPERCALL, 1 },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_long64(m, 0);
		C(m)->gpr[UM_RCX] = MSR_IA32_TSC;
		m_run(m, cases[n].bytes, cases[n].len);
		expect_exit(m, cases[n].kind);
		m_long64(m, 3);
		m_run(m, cases[n].bytes, cases[n].len);
		if (cases[n].user)
			expect_exit(m, cases[n].kind);
		else
			m_expect_fault(m, UM_VEC_GP, 0);
	}
	m_long64(m, 0);
	RUN(m, 0x0f, 0xaa); /* rsm */
	m_expect_ud(m);
	C(m)->smm = true;
	RUN(m, 0x0f, 0xaa);
	expect_exit(m, UM_EXIT_RSM);
	C(m)->smm = false;
}

/* VMCALL is Intel's, VMMCALL AMD's: the other one is corrected, or #UD. */
static void hypercalls(void **state)
{
	static const struct {
		const char *vendor;
		u8 right[3], other[3];
	} cases[] = {
		{ "GenuineIntel", { 0x0f, 0x01, 0xc1 }, { 0x0f, 0x01, 0xd9 } },
		{ "AuthenticAMD", { 0x0f, 0x01, 0xd9 }, { 0x0f, 0x01, 0xc1 } },
	};
	struct machine *m = *state;

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		m_long64(m, 0);
		m_vendor(m, cases[n].vendor);
		m_run(m, cases[n].right, 3);
		expect_exit(m, UM_EXIT_HYPERCALL);
		m_run(m, cases[n].other, 3);
		m_expect_ud(m);
		m->x.fix_hypercall = true;
		m_run(m, cases[n].other, 3);
		expect_exit(m, UM_EXIT_KICK);
		assert_memory_equal(m->mem + CODE_AT, cases[n].right, 3);
		/* Code that can't be written: a page fault, as for a store of the guest's. */
		m->readonly[CODE_AT >> 12] = true;
		m_run(m, cases[n].other, 3);
		m_expect_fault(m, UM_VEC_PF, 3);
		m->readonly[CODE_AT >> 12] = false;
		m->x.fix_hypercall = false;
	}
	memset(C(m)->cpuid, 0, sizeof(C(m)->cpuid));
	C(m)->vendor = UM_VENDOR_UNKNOWN;
	m_run(m, cases[0].right, 3);
	expect_exit(m, UM_EXIT_HYPERCALL);
	m_run(m, cases[0].other, 3);
	expect_exit(m, UM_EXIT_HYPERCALL);
}

static void svm_vmx(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	RUN(m, 0x0f, 0x01, 0xd8); /* vmrun */
	m_expect_ud(m);
	RUN(m, 0x0f, 0x01, 0xc4); /* vmxoff */
	m_expect_ud(m);
	C(m)->efer |= EFER_SVME;
	RUN(m, 0x0f, 0x01, 0xd8);
	expect_exit(m, UM_EXIT_SVM);
	m_long64(m, 3);
	C(m)->efer |= EFER_SVME;
	RUN(m, 0x0f, 0x01, 0xdd); /* clgi */
	m_expect_fault(m, UM_VEC_GP, 0);
}

static void monitor_mwait(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	RUN(m, 0x0f, 0x01, 0xc8);
	m_expect_ud(m); /* not in CPUID */
	m->x.monitor_is_nop = true;
	RUN(m, 0x0f, 0x01, 0xc8);
	m_expect_next(m);
	RUN(m, 0x0f, 0x01, 0xc9);
	m_expect_next(m);
	m->x.monitor_is_nop = false;
	C(m)->mwait_by_msr = true;
	RUN(m, 0x0f, 0x01, 0xc9);
	m_expect_ud(m);
	C(m)->msr.misc_enable |= UM_MISC_ENABLE_MWAIT;
	C(m)->gpr[UM_RCX] = 0;
	RUN(m, 0x0f, 0x01, 0xc9);
	expect_exit(m, UM_EXIT_MWAIT);
	C(m)->mwait_by_msr = false;
	C(m)->features[UM_F_MONITOR / 64] |= BIT(UM_F_MONITOR % 64);
	C(m)->gpr[UM_RAX] = DATA_AT;
	C(m)->gpr[UM_RCX] = 0;
	RUN(m, 0x0f, 0x01, 0xc8);
	m_expect_next(m);
	C(m)->gpr[UM_RAX] = 0x800000000000;
	RUN(m, 0x0f, 0x01, 0xc8);
	m_expect_fault(m, UM_VEC_GP, 0);
	C(m)->gpr[UM_RCX] = 1;
	RUN(m, 0x0f, 0x01, 0xc8);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x01, 0xc9);
	expect_exit(m, UM_EXIT_MWAIT);
	C(m)->gpr[UM_RCX] = 2;
	RUN(m, 0x0f, 0x01, 0xc9);
	m_expect_fault(m, UM_VEC_GP, 0);
}

static u64 edx_eax(struct machine *m)
{
	return C(m)->gpr[UM_RDX] << 32 | C(m)->gpr[UM_RAX];
}

static void time_stamps(void **state)
{
	struct machine *m = *state;
	u64 a, b;

	m_long64(m, 3);
	C(m)->msr.tsc_aux = 0x123;
	C(m)->tsc_offset = -__builtin_ia32_rdtsc();
	RUN(m, 0x0f, 0x31);
	a = edx_eax(m);
	RUN(m, 0x0f, 0x01, 0xf9); /* rdtscp */
	b = edx_eax(m);
	assert_true(a < b);
	assert_int_equal(C(m)->gpr[UM_RCX], 0x123);
	RUN(m, 0xf3, 0x0f, 0xc7, 0xf9); /* rdpid rcx */
	assert_int_equal(C(m)->gpr[UM_RCX], 0x123);
	/* Half the speed: about half the value. */
	C(m)->tsc_offset = 0;
	C(m)->tsc_ratio = BIT(47);
	a = __builtin_ia32_rdtsc() / 2;
	RUN(m, 0x0f, 0x31);
	b = edx_eax(m);
	assert_true(a <= b && b <= __builtin_ia32_rdtsc() / 2);
	C(m)->tsc_ratio = 0;
	C(m)->cr4 |= CR4_TSD;
	RUN(m, 0x0f, 0x31);
	m_expect_fault(m, UM_VEC_GP, 0);
	RUN(m, 0x0f, 0x01, 0xf9);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_long64(m, 0);
	C(m)->cr4 |= CR4_TSD;
	RUN(m, 0x0f, 0x31);
	m_expect_next(m);
	RUN(m, 0x0f, 0x33); /* rdpmc */
	m_expect_fault(m, UM_VEC_GP, 0);
	memset(C(m)->features, 0, sizeof(C(m)->features));
	RUN(m, 0xf3, 0x0f, 0xc7, 0xf9);
	m_expect_ud(m);
}

static void cpuid(void **state)
{
	struct machine *m = *state;

	m_long64(m, 3);
	C(m)->gpr[UM_RAX] = 0xffffffff00000000;
	C(m)->gpr[UM_RCX] = 0;
	RUN(m, 0x0f, 0xa2);
	m_expect_next(m);
	assert_int_equal(C(m)->gpr[UM_RBX], 0x756e6547); /* Genu */
	assert_int_equal(C(m)->gpr[UM_RDX], 0x49656e69); /* ineI */
	assert_int_equal(C(m)->gpr[UM_RCX], 0x6c65746e); /* ntel */
}

/* The segment bases don't exit. */
static void base_msrs(void **state)
{
	struct machine *m = *state;
	u64 v = 0xffff800012345678;

	for (u32 msr = MSR_FS_BASE; msr <= MSR_KERNEL_GS_BASE; msr++) {
		m_long64(m, 0);
		C(m)->gpr[UM_RCX] = msr;
		C(m)->gpr[UM_RAX] = 0xaaaaaaaa00000000 | (u32)v;
		C(m)->gpr[UM_RDX] = 0xbbbbbbbb00000000 | v >> 32;
		RUN(m, 0x0f, 0x30);
		m_expect_next(m);
		assert_int_equal(C(m)->seg[UM_FS].base == v, msr == MSR_FS_BASE);
		assert_int_equal(m->x.seg_base[UM_FS] == v, msr == MSR_FS_BASE);
		assert_int_equal(m->x.seg_base[UM_GS] == v, msr == MSR_GS_BASE);
		C(m)->gpr[UM_RAX] = C(m)->gpr[UM_RDX] = ~0ull;
		RUN(m, 0x0f, 0x32);
		m_expect_next(m);
		assert_int_equal(edx_eax(m), v);
		C(m)->gpr[UM_RAX] = 0;
		C(m)->gpr[UM_RDX] = 0x8000;
		RUN(m, 0x0f, 0x30);
		m_expect_fault(m, UM_VEC_GP, 0);
	}
	/* A processor without long mode: the vCPU layer says no. */
	m_prot32(m, 0);
	C(m)->efer_allowed = 0;
	C(m)->gpr[UM_RCX] = MSR_FS_BASE;
	RUN(m, 0x0f, 0x32);
	expect_exit(m, UM_EXIT_RDMSR);
}

static void caches(void **state)
{
	struct machine *m = *state;

	m_long64(m, 0);
	RUN(m, 0x0f, 0x08);
	m_expect_next(m);
	RUN(m, 0x0f, 0x09);
	m_expect_next(m);
	RUN(m, 0x0f, 0x01, 0xe8); /* serialize */
	m_expect_next(m);
	RUN(m, 0x0f, 0xae, 0x3c, 0x25, 0x00, 0x50, 0x00, 0x00); /* clflush [DATA_AT] */
	m_expect_next(m);
	m->absent[DATA_AT >> 12] = 1;
	RUN(m, 0x0f, 0xae, 0x3c, 0x25, 0x00, 0x50, 0x00, 0x00);
	m_expect_fault(m, UM_VEC_PF, 0);
	RUN(m, 0x66, 0x0f, 0xae, 0x3c, 0x25, 0x00, 0x50, 0x00, 0x00); /* clflushopt */
	m_expect_fault(m, UM_VEC_PF, 0);
	RUN(m, 0x66, 0x0f, 0xae, 0x34, 0x25, 0x00, 0x50, 0x00, 0x00); /* clwb */
	m_expect_fault(m, UM_VEC_PF, 0);
	RUN(m, 0x0f, 0x1c, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00); /* cldemote */
	m_expect_next(m);
	m_long64(m, 3);
	RUN(m, 0x0f, 0x09);
	m_expect_fault(m, UM_VEC_GP, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(cli_sti),   M_TEST(stac_clac),	  M_TEST(exits),       M_TEST(hypercalls),
		M_TEST(svm_vmx),   M_TEST(monitor_mwait), M_TEST(time_stamps), M_TEST(cpuid),
		M_TEST(base_msrs), M_TEST(caches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

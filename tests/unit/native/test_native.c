// SPDX-License-Identifier: MIT
/*
 * What native stubs do beyond computing (tests/oracle compares that with the host CPU): accesses
 * that can't be direct, faults and restarts, state that forbids them, modes other than 64-bit,
 * XSAVE.
 */
#include "fixture.h"

#include <cpuid.h>
#include <signal.h>

#include "cpu/cpuid.h"
#include "cpu/xsave.h"
#include "engine/host.h"

#define IO PAGE(20) /* made MMIO by the tests that need it */

static bool avx512(void)
{
	return (um_xsave_layout()->supported & XCR0_AVX512) == XCR0_AVX512;
}

/* cmocka has signal handlers of its own during a test; the library's must be on top. */
static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE };
static struct sigaction library[ARRAY_SIZE(signals)];

static void keep_handlers(void)
{
	um_uaccess_init();
	for (size_t n = 0; n < ARRAY_SIZE(signals); n++)
		sigaction(signals[n], NULL, &library[n]);
}

static struct machine *machine(void)
{
	struct machine *m = machine_new();

	for (size_t n = 0; n < ARRAY_SIZE(signals); n++)
		sigaction(signals[n], &library[n], NULL);

	m->x.cpu.cr0 |= CR0_NE | CR0_MP;
	m->x.cpu.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	m->x.cpu.xcr0 = m->x.cpu.xcr0_allowed = um_xsave_layout()->supported;
	memset(m->x.cpu.features, 0xff, sizeof(m->x.cpu.features));
	um_fpu_reset(&m->x.cpu.fpu);
	um_exec_sync(&m->x);
	return m;
}

/*
 * Run; answer @reads MMIO reads with bytes 1, 2, 3, ... and collect writes; returns the last exit.
 */
static enum um_exit_kind run_mmio(struct machine *m, u8 *written, unsigned *nwritten)
{
	u8 next = 1;

	*nwritten = 0;
	for (;;) {
		enum um_exit_kind k = machine_run(m);
		u8 data[8];

		if (k != UM_EXIT_MMIO)
			return k;
		if (m->x.exit.mmio.write) {
			memcpy(written + *nwritten, m->x.exit.mmio.data, m->x.exit.mmio.len);
			*nwritten += m->x.exit.mmio.len;
		} else {
			for (unsigned n = 0; n < 8; n++)
				data[n] = next++;
		}
		um_engine_mmio_done(&m->x, data);
	}
}

CODE64(sse_copy, "movups xmm0, [rsi]\n movups [rdi], xmm0\n hlt\n");

static void test_page_crossing(void **state)
{
	struct machine *m = machine();

	load_code(m, sse_copy);
	m->x.cpu.gpr[UM_RSI] = DATA + 4096 - 5;
	m->x.cpu.gpr[UM_RDI] = DATA + 2 * 4096 - 9;
	for (unsigned n = 0; n < 16; n++)
		*at(m, DATA + 4096 - 5 + n) = (u8)(n + 1);
	run_to_hlt(m);
	assert_memory_equal(at(m, DATA + 2 * 4096 - 9), at(m, DATA + 4096 - 5), 16);

	/* The second page is not there: nothing is written to the first, and CR2 is the second. */
	load_code(m, sse_copy);
	machine_prop(m, 10, 0);
	memset(at(m, DATA + 2 * 4096 - 9), 0xee, 9);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.payload, DATA + 2 * 4096);
	assert_int_equal(*at(m, DATA + 2 * 4096 - 9), 0xee);
	assert_int_equal(m->x.cpu.rip, CODE + 3);
	machine_free(m);
}

CODE64(sse_aligned, "movaps xmm0, [rsi]\n hlt\n");
CODE64(sse_add, "addps xmm0, [rsi]\n hlt\n");

static void test_alignment(void **state)
{
	struct machine *m = machine();

	load_code(m, sse_aligned);
	m->x.cpu.gpr[UM_RSI] = DATA + 8;
	expect_fault(m, UM_VEC_GP);
	load_code(m, sse_add);
	expect_fault(m, UM_VEC_GP);
	/* ... which comes before the page fault. */
	machine_prop(m, 8, 0);
	load_code(m, sse_add);
	expect_fault(m, UM_VEC_GP);
	m->x.cpu.gpr[UM_RSI] = DATA + 16;
	load_code(m, sse_add);
	expect_fault(m, UM_VEC_PF);
	machine_free(m);
}

static void test_mmio(void **state)
{
	struct machine *m = machine();
	u8 out[64], expected[16];
	unsigned n;

	machine_prop(m, 20, P_PRESENT | P_WRITE | P_MMIO);
	m->x.cpu.gpr[UM_RSI] = IO + 0x100;
	m->x.cpu.gpr[UM_RDI] = IO + 0x200;
	load_code(m, sse_copy);
	assert_int_equal(run_mmio(m, out, &n), UM_EXIT_HLT);
	for (unsigned b = 0; b < 16; b++)
		expected[b] = (u8)(b + 1);
	assert_int_equal(n, 16);
	assert_memory_equal(out, expected, 16);
	machine_free(m);
}

CODE64(x87_store, "fldpi\n fld1\n fstp tbyte ptr [rdi]\n fstp qword ptr [rdi + 16]\n hlt\n");

/* A store that pops must pop once, however often it is started again. */
static void test_mmio_x87(void **state)
{
	struct machine *m = machine();
	static const u8 one[10] = { 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f };
	const double pi = 3.14159265358979323846;
	u8 out[64];
	unsigned n;

	machine_prop(m, 20, P_PRESENT | P_WRITE | P_MMIO);
	m->x.cpu.gpr[UM_RDI] = IO;
	load_code(m, x87_store);
	assert_int_equal(run_mmio(m, out, &n), UM_EXIT_HLT);
	assert_int_equal(n, 18);
	assert_memory_equal(out, one, 10);
	assert_memory_equal(out + 10, &pi, 8);
	assert_int_equal(m->x.cpu.fpu.fxsave[4], 0); /* all empty */
	machine_free(m);
}

static void test_tracked(void **state)
{
	struct machine *m = machine();

	machine_prop(m, 9, P_PRESENT | P_WRITE | P_TRACKED);
	m->x.cpu.gpr[UM_RSI] = DATA;
	m->x.cpu.gpr[UM_RDI] = PAGE(9) + 64;
	load_code(m, sse_copy);
	run_to_hlt(m);
	assert_int_equal(m->nwritten, 1);
	assert_int_equal(m->written[0].gpa, PAGE(9) + 64);
	assert_int_equal(m->written[0].len, 16);
	machine_free(m);
}

static void test_host_page_gone(void **state)
{
	struct machine *m = machine();

	machine_prop(m, 9, P_PRESENT | P_WRITE | P_GONE);
	m->x.cpu.gpr[UM_RSI] = PAGE(9);
	load_code(m, sse_copy);
	assert_int_equal(machine_run(m), UM_EXIT_HOST_FAULT);
	assert_int_equal(m->x.cpu.rip, CODE);
	machine_free(m);
}

/* A vector store over the code that follows it. */
CODE64(smc, "movups xmm0, [rsi]\n movups [rip + 1f], xmm0\n1: .skip 16, 0x90\n mov eax, 1\n hlt\n");

static void test_self_modifying(void **state)
{
	struct machine *m = machine();
	static const u8 code[16] = {
		0xbb, 0x78, 0x56, 0x34, 0x12, 0xf4
	}; /* mov ebx, 12345678h; hlt */

	memcpy(at(m, DATA), code, 16);
	m->x.cpu.gpr[UM_RSI] = DATA;
	load_code(m, smc);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RBX], 0x12345678);
	assert_int_not_equal(m->x.cpu.gpr[UM_RAX], 1);
	machine_free(m);
}

/* ---- state that forbids ---- */

CODE64(insn_sse, "addps xmm0, xmm1\n hlt\n");
CODE64(insn_cvt, "cvtss2si eax, [rip]\n hlt\n"); /* no operand is an SSE register */
CODE64(insn_avx, "vaddps ymm0, ymm1, ymm2\n hlt\n");
CODE64(insn_zmm, "vaddps zmm0, zmm1, zmm2\n hlt\n");
CODE64(insn_mmx, "paddb mm0, mm1\n hlt\n");
CODE64(insn_x87, "fld1\n hlt\n");
CODE64(insn_wait, "fwait\n hlt\n");
CODE64(insn_bmi, "andn eax, ebx, ecx\n hlt\n");

static const struct rule {
	const u8 *code, *end;
	u64 set_cr0, clear_cr4, clear_xcr0;
	int vector; /* -1: runs */
} rules[] = {
#define R(c) c, c##_end
	{ R(insn_sse), CR0_TS, 0, 0, UM_VEC_NM },
	{ R(insn_sse), CR0_EM, 0, 0, UM_VEC_UD },
	{ R(insn_sse), CR0_EM | CR0_TS, 0, 0, UM_VEC_UD },
	{ R(insn_sse), 0, CR4_OSFXSR, 0, UM_VEC_UD },
	{ R(insn_sse), 0, CR4_OSXSAVE, 0, -1 },
	{ R(insn_cvt), CR0_TS, 0, 0, UM_VEC_NM },
	{ R(insn_cvt), CR0_EM, 0, 0, UM_VEC_UD },
	{ R(insn_cvt), 0, CR4_OSFXSR, 0, UM_VEC_UD },
	{ R(insn_cvt), 0, CR4_OSXSAVE, 0, -1 },
	{ R(insn_avx), CR0_TS, 0, 0, UM_VEC_NM },
	{ R(insn_avx), 0, CR4_OSXSAVE, 0, UM_VEC_UD },
	{ R(insn_avx), 0, 0, XCR0_AVX, UM_VEC_UD },
	{ R(insn_avx), CR0_TS, 0, XCR0_AVX, UM_VEC_UD },
	{ R(insn_avx), 0, CR4_OSFXSR, 0, -1 },
	{ R(insn_zmm), 0, 0, XCR0_ZMM_HI256, UM_VEC_UD },
	{ R(insn_zmm), 0, 0, XCR0_OPMASK, UM_VEC_UD },
	{ R(insn_zmm), CR0_TS, 0, 0, UM_VEC_NM },
	{ R(insn_mmx), CR0_EM, 0, 0, UM_VEC_UD },
	{ R(insn_mmx), CR0_TS, 0, 0, UM_VEC_NM },
	{ R(insn_mmx), 0, CR4_OSFXSR, 0, -1 },
	{ R(insn_x87), CR0_EM, 0, 0, UM_VEC_NM },
	{ R(insn_x87), CR0_TS, 0, 0, UM_VEC_NM },
	{ R(insn_wait), CR0_TS, 0, 0, UM_VEC_NM }, /* MP is set */
	{ R(insn_wait), CR0_EM, 0, 0, -1 },
	{ R(insn_bmi), CR0_TS | CR0_EM, CR4_OSXSAVE | CR4_OSFXSR, XCR0_AVX, -1 },
};

static void test_rules(void **state)
{
	u64 host = um_xsave_layout()->supported;

	for (size_t n = 0; n < ARRAY_SIZE(rules); n++) {
		const struct rule *r = &rules[n];
		struct machine *m;

		if ((r->code == insn_zmm && !avx512()) ||
		    (r->code == insn_avx && !(host & XCR0_AVX)) ||
		    (r->code == insn_bmi && !__builtin_cpu_supports("bmi")))
			continue;
		m = machine();
		m->x.cpu.cr0 |= r->set_cr0;
		m->x.cpu.cr4 &= ~r->clear_cr4;
		m->x.cpu.xcr0 &= ~r->clear_xcr0;
		machine_code(m, CODE, r->code, r->end);
		if (r->vector < 0)
			run_to_hlt(m);
		else
			expect_fault(m, r->vector);
		machine_free(m);
	}
}

/* ---- exceptions of the instructions themselves ---- */

CODE64(divide, "divps xmm0, xmm1\n hlt\n");

static void test_simd_exception(void **state)
{
	struct machine *m = machine();
	const float one = 1;

	memcpy(m->x.cpu.fpu.zmm[0], &one, 4);
	m->x.cpu.fpu.mxcsr = UM_MXCSR_INIT;
	load_code(m, divide);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.fpu.mxcsr, UM_MXCSR_INIT | 4 | 1); /* ZE; 0 / 0: IE */

	memset(m->x.cpu.fpu.zmm[0], 0, 16);
	memcpy(m->x.cpu.fpu.zmm[0], &one, 4);
	m->x.cpu.fpu.mxcsr = UM_MXCSR_INIT & ~0x200u; /* ZM */
	load_code(m, divide);
	expect_fault(m, UM_VEC_XM);
	assert_int_equal(m->x.cpu.rip, CODE);
	assert_memory_equal(m->x.cpu.fpu.zmm[0], &one, 4);
	assert_int_equal(m->x.cpu.fpu.mxcsr & 0x3f, 5);
	m->x.cpu.cr4 &= ~CR4_OSXMMEXCPT;
	load_code(m, divide);
	expect_fault(m, UM_VEC_UD);
	machine_free(m);
}

CODE64(x87_divide, "fld1\n fldz\n fdivp\n fnop\n hlt\n");

static void test_x87_exception(void **state)
{
	struct machine *m = machine();

	m->x.cpu.fpu.fxsave[0] = 0x7b; /* ZM clear */
	load_code(m, x87_divide);
	expect_fault(m, UM_VEC_MF);
	assert_int_equal(m->x.cpu.rip, CODE + 6); /* the next waiting instruction */
	assert_int_equal(m->x.cpu.fpu.fxsave[2] & 0x84, 0x84);
	assert_int_equal(*(u64 *)(m->x.cpu.fpu.fxsave + 8), CODE + 4); /* FIP */

	/* CR0.NE clear: no #MF, the exception stays pending. */
	m = (machine_free(m), machine());
	m->x.cpu.cr0 &= ~CR0_NE;
	m->x.cpu.fpu.fxsave[0] = 0x7b;
	load_code(m, x87_divide);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.fpu.fxsave[2] & 0x84, 0x84);
	machine_free(m);
}

/* ---- fault suppression ---- */

CODE64(masked, "vmovups zmm1 {k1} {z}, [rsi]\n vmovups [rdi] {k1}, zmm1\n hlt\n");

CODE64(masked_extract, "vextractf32x4 [rdi] {k1}, zmm1, 1\n hlt\n");

/* It has no fault suppression, but what the mask leaves out keeps its value, also across pages. */
static void test_masked_extract(void **state)
{
	struct machine *m = machine();

	if (!avx512()) {
		machine_free(m);
		skip();
	}
	m->x.cpu.gpr[UM_RDI] = DATA + 4096 - 6;
	m->x.cpu.fpu.k[1] = 5;
	memset(m->x.cpu.fpu.zmm[1], 0x11, 64);
	memset(at(m, DATA + 4096 - 6), 0xee, 16);
	load_code(m, masked_extract);
	run_to_hlt(m);
	for (unsigned n = 0; n < 16; n++)
		assert_int_equal(*at(m, DATA + 4096 - 6 + n), n / 4 & 1 ? 0xee : 0x11);
	machine_free(m);
}

CODE64(masked_sad, "vdbpsadbw xmm1 {k1} {z}, xmm2, [rsi], 0\n hlt\n");

/* The mask is of the words that come out, each of which may need any dword that goes in. */
static void test_masked_sad(void **state)
{
	struct machine *m = machine();
	u8 v[16] = { 1, 2, 3, 4, 50, 60 };
	u16 sum;

	if (!um_host_feature(um_host(), UM_F_AVX512BW) || !avx512()) {
		machine_free(m);
		skip();
	}
	memcpy(at(m, PAGE(9) - 8), v, 16);
	m->x.cpu.gpr[UM_RSI] = PAGE(9) - 8;
	m->x.cpu.fpu.k[1] = 0x80;
	load_code(m, masked_sad);
	run_to_hlt(m);
	memcpy(&sum, m->x.cpu.fpu.zmm[1] + 14, 2);
	assert_int_equal(sum, 1 + 2 + 3 + 4);
	machine_free(m);
}

static void test_masked(void **state)
{
	struct machine *m = machine();
	u32 v[4] = { 11, 22, 33, 44 };

	if (!avx512()) {
		machine_free(m);
		skip();
	}
	/* Four elements before a page that isn't there; the mask has only those. */
	machine_prop(m, 9, 0);
	memcpy(at(m, PAGE(9) - 16), v, 16);
	m->x.cpu.gpr[UM_RSI] = PAGE(9) - 16;
	m->x.cpu.gpr[UM_RDI] = PAGE(9) - 12;
	m->x.cpu.fpu.k[1] = 7;
	load_code(m, masked);
	run_to_hlt(m);
	assert_memory_equal(at(m, PAGE(9) - 12), v, 12);
	m->x.cpu.fpu.k[1] = 0x10007; /* bit 16 is beyond the last element */
	load_code(m, masked);
	run_to_hlt(m);
	m->x.cpu.fpu.k[1] = 0x17;
	load_code(m, masked);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.payload, PAGE(9));
	m->x.cpu.fpu.k[1] = 0;
	m->x.cpu.gpr[UM_RSI] = m->x.cpu.gpr[UM_RDI] = PAGE(9);
	load_code(m, masked);
	run_to_hlt(m);
	machine_free(m);
}

/* ---- other modes ---- */

CODE32(in32, "movd xmm0, ecx\n movd [edi], xmm0\n fild dword ptr [edi]\n fistp word ptr [edi + "
	     "4]\n hlt\n");
CODE16(in_real,
       "movd xmm0, ecx\n movd [di], xmm0\n fild dword ptr [di]\n fnsave [di + 16]\n hlt\n");

static void test_modes(void **state)
{
	struct machine *m = machine();
	u32 v;

	machine_mode(m, UM_MODE_32);
	m->x.cpu.cr4 |= CR4_OSFXSR;
	m->x.cpu.gpr[UM_RCX] = 1234;
	m->x.cpu.gpr[UM_RDI] = DATA;
	load_code(m, in32);
	run_to_hlt(m);
	memcpy(&v, at(m, DATA), 4);
	assert_int_equal(v, 1234);
	assert_int_equal(*at(m, DATA + 4) | *at(m, DATA + 5) << 8, 1234);

	machine_mode(m, UM_MODE_REAL);
	m->x.cpu.cr4 |= CR4_OSFXSR;
	m->x.cpu.gpr[UM_RDI] = DATA - MEM_BASE;
	load_code(m, in_real);
	run_to_hlt(m);
	/* 14 bytes of environment, then ST(0) = 1234 = 1.205 * 2^10 */
	assert_int_equal(*at(m, DATA + 16) | *at(m, DATA + 17) << 8, 0x37f);
	assert_int_equal(*at(m, DATA + 20) | *at(m, DATA + 21) << 8, 0x3fff); /* register 7 valid */
	assert_int_equal(*at(m, DATA + 16 + 14 + 8) | *at(m, DATA + 16 + 14 + 9) << 8, 0x3fff + 10);
	assert_int_equal(*at(m, DATA + 16 + 14 + 7), 0x9a);
	assert_int_equal(m->x.cpu.fpu.fxsave[4], 0); /* FNINIT */
	machine_free(m);
}

/* ---- XSAVE ---- */

CODE64(do_fxsave, "fxsave64 [rdi]\n hlt\n");
CODE64(do_fxrstor, "fxrstor64 [rdi]\n hlt\n");
CODE64(do_xsave, "xsave64 [rdi]\n hlt\n");
CODE64(do_xsavec, "xsavec64 [rdi]\n hlt\n");
CODE64(do_xrstor, "xrstor64 [rdi]\n hlt\n");
CODE64(do_xsaves, "xsaves64 [rdi]\n hlt\n");
CODE64(do_xrstors, "xrstors64 [rdi]\n hlt\n");

static void fill(struct um_fpu *f, u64 states)
{
	u32 rng = 12345;
	u8 *z = f->zmm[0];

	um_fpu_reset(f);
	for (unsigned n = 0; n < sizeof(f->zmm); n++) {
		rng = rng * 1103515245 + 12345;
		if ((n % 64 < 16 && n < 1024) || (n % 64 < 32 && n < 1024 && (states & XCR0_AVX)) ||
		    (states & XCR0_AVX512))
			z[n] = (u8)(rng >> 16);
	}
	for (unsigned k = 0; k < 8 && (states & XCR0_AVX512); k++)
		f->k[k] = 0x0123456789abcdefull * (k + 1);
	for (unsigned r = 0; r < 8; r++) {
		f->fxsave[32 + r * 16 + 7] = (u8)(0x80 + r);
		f->fxsave[32 + r * 16 + 9] = 0x3f;
	}
	f->fxsave[4] = 0xff;
	f->mxcsr = 0x1fa0;
	f->xinuse = states & ~XCR0_PKRU;
}

/* The host's own XSAVE of the same registers. */
static void test_image_is_the_hosts(void **state)
{
	u64 states = um_xsave_layout()->supported & ~XCR0_PKRU;
	static u8 ours[UM_XSAVE_MAX] __attribute__((aligned(64))),
		host[UM_XSAVE_MAX] __attribute__((aligned(64)));
	u32 a, b, c, d;
	struct um_fpu f;

	if (!(um_xsave_layout()->supported & XCR0_AVX))
		skip();
	fill(&f, states);
	um_fpu_to_xsave(&f, ours, states, false);
	memset(host, 0, sizeof(host));
	asm volatile("xrstor64 %1; xsave64 %0; fninit"
		     : "+m"(host)
		     : "m"(ours), "a"((u32)states), "d"(0)
		     : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
		       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	{
		u32 mxcsr = UM_MXCSR_INIT;

		asm volatile("ldmxcsr %0" ::"m"(mxcsr));
	}
	memcpy(host + 28, ours + 28, 4); /* MXCSR_MASK */
	assert_memory_equal(host, ours, um_xsave_image_size(states, false));
	assert_true(__get_cpuid_count(0xd, 0, &a, &b, &c, &d));
	assert_true(um_xsave_image_size(um_xsave_layout()->supported, false) <= c);
}

static bool same_fpu(const struct um_fpu *a, const struct um_fpu *b)
{
	return !memcmp(a->zmm, b->zmm, sizeof(a->zmm)) && !memcmp(a->k, b->k, sizeof(a->k)) &&
	       !memcmp(a->fxsave, b->fxsave, 24) && !memcmp(a->fxsave + 32, b->fxsave + 32, 128) &&
	       a->mxcsr == b->mxcsr;
}

/* What is of XSAVES and XRSTORS alone: privilege, CPUID, and that the format must be compacted. */
static void test_xsaves(void **state)
{
	u64 states = um_xsave_layout()->supported & ~XCR0_PKRU;
	struct machine *m = machine();

	m->x.cpu.gpr[UM_RDI] = PAGE(8);
	m->x.cpu.gpr[UM_RAX] = (u32)states;
	m->x.cpu.gpr[UM_RDX] = 0;
	m->x.cpu.features[UM_F_XSAVES / 64] &= ~BIT(UM_F_XSAVES % 64);
	load_code(m, do_xsaves);
	expect_fault(m, UM_VEC_UD);
	load_code(m, do_xrstors);
	expect_fault(m, UM_VEC_UD);
	m->x.cpu.features[UM_F_XSAVES / 64] |= BIT(UM_F_XSAVES % 64);
	load_code(m, do_xsaves);
	run_to_hlt(m);
	load_code(m, do_xrstors);
	run_to_hlt(m);
	memset(at(m, PAGE(8) + 512), 0, 64);
	load_code(m, do_xrstor);
	run_to_hlt(m);
	load_code(m, do_xrstors);
	expect_fault(m, UM_VEC_GP);
	machine_free(m);
}

static void test_xsave(void **state)
{
	u64 states = um_xsave_layout()->supported & ~XCR0_PKRU, bv, xcomp;
	static const struct {
		const u8 *code, *end;
		bool compacted;
	} kinds[] = { { R(do_xsave), false }, { R(do_xsavec), true }, { R(do_xsaves), true } };

	for (size_t n = 0; n < ARRAY_SIZE(kinds); n++) {
		struct machine *m = machine();
		struct um_fpu f;

		fill(&m->x.cpu.fpu, states);
		f = m->x.cpu.fpu;
		m->x.cpu.gpr[UM_RDI] = PAGE(9) - 576; /* extended components on the next page */
		m->x.cpu.gpr[UM_RAX] = (u32)states;
		m->x.cpu.gpr[UM_RDX] = 0;
		memset(at(m, PAGE(9) - 576), 0, 4096);
		machine_code(m, CODE, kinds[n].code, kinds[n].end);
		run_to_hlt(m);
		memcpy(&bv, at(m, PAGE(9) - 64), 8);
		memcpy(&xcomp, at(m, PAGE(9) - 56), 8);
		assert_true(bv == states);
		assert_true(xcomp == (kinds[n].compacted ? states | UM_XSAVE_COMPACT : 0));

		um_fpu_reset(&m->x.cpu.fpu);
		load_code(m, do_xrstor);
		run_to_hlt(m);
		assert_true(same_fpu(&m->x.cpu.fpu, &f));
		assert_true(m->x.cpu.fpu.xinuse == states);

		/* Components not in XSTATE_BV become initial. */
		memset(at(m, PAGE(9) - 64), 0, 8);
		load_code(m, do_xrstor);
		run_to_hlt(m);
		um_fpu_reset(&f);
		if (!kinds[n].compacted)
			f.mxcsr = 0x1fa0;
		assert_true(same_fpu(&m->x.cpu.fpu, &f));
		assert_true(m->x.cpu.fpu.xinuse == 0);

		/* A bit that XCR0 does not have; a reserved byte; misalignment. */
		*at(m, PAGE(9) - 64 + 7) = 0x40;
		load_code(m, do_xrstor);
		expect_fault(m, UM_VEC_GP);
		*at(m, PAGE(9) - 64 + 7) = 0;
		*at(m, PAGE(9) - 64 + 16) = 1;
		load_code(m, do_xrstor);
		expect_fault(m, UM_VEC_GP);
		m->x.cpu.gpr[UM_RDI] += 32;
		load_code(m, do_xrstor);
		expect_fault(m, UM_VEC_GP);
		machine_free(m);
	}
}

static void test_fxsave(void **state)
{
	struct machine *m = machine();
	struct um_fpu f;

	fill(&m->x.cpu.fpu, XCR0_X87 | XCR0_SSE);
	f = m->x.cpu.fpu;
	m->x.cpu.gpr[UM_RDI] = DATA + 16;
	memset(at(m, DATA), 0xee, 1024);
	load_code(m, do_fxsave);
	run_to_hlt(m);
	assert_int_equal(*at(m, DATA + 16 + 416), 0xee); /* not the processor's */
	um_fpu_reset(&m->x.cpu.fpu);
	load_code(m, do_fxrstor);
	run_to_hlt(m);
	assert_true(same_fpu(&m->x.cpu.fpu, &f));
	*at(m, DATA + 16 + 27) = 1; /* reserved bit of MXCSR */
	load_code(m, do_fxrstor);
	expect_fault(m, UM_VEC_GP);
	m->x.cpu.gpr[UM_RDI] = DATA + 8;
	load_code(m, do_fxrstor);
	expect_fault(m, UM_VEC_GP);
	machine_free(m);
}

CODE64(do_xsetbv, "xsetbv\n xgetbv\n hlt\n");

static void test_xsetbv(void **state)
{
	static const struct {
		u64 value;
		bool ok;
	} values[] = {
		{ 1, true },
		{ 3, true },
		{ 0, false },
		{ 2, false },
		{ 5, false },
		{ BIT(63) | 1, false },
		{ XCR0_X87 | XCR0_SSE | XCR0_OPMASK, false },
	};

	for (size_t n = 0; n < ARRAY_SIZE(values); n++) {
		struct machine *m = machine();

		m->x.cpu.gpr[UM_RCX] = 0;
		m->x.cpu.gpr[UM_RAX] = (u32)values[n].value;
		m->x.cpu.gpr[UM_RDX] = values[n].value >> 32;
		load_code(m, do_xsetbv);
		if (values[n].ok) {
			run_to_hlt(m);
			assert_true(m->x.cpu.xcr0 == values[n].value);
			assert_true(m->x.cpu.gpr[UM_RAX] == values[n].value);
		} else {
			expect_fault(m, UM_VEC_GP);
		}
		machine_free(m);
	}
}

/* The VMM's thread keeps its own MXCSR and x87 control word. */
CODE64(set_controls, "ldmxcsr [rsi]\n fldcw [rsi + 4]\n addps xmm0, xmm0\n fld1\n hlt\n");

static void test_host_controls(void **state)
{
	struct machine *m = machine();
	u32 mxcsr = 0x9fc0, before, after;
	u16 fcw = 0x0c7f, fcw_before, fcw_after;

	asm volatile("stmxcsr %0; fnstcw %1" : "=m"(before), "=m"(fcw_before));
	memcpy(at(m, DATA), &mxcsr, 4);
	memcpy(at(m, DATA + 4), &fcw, 2);
	m->x.cpu.gpr[UM_RSI] = DATA;
	load_code(m, set_controls);
	run_to_hlt(m);
	asm volatile("stmxcsr %0; fnstcw %1" : "=m"(after), "=m"(fcw_after));
	assert_int_equal(before & ~0x3fu, after & ~0x3fu);
	assert_int_equal(fcw_before, fcw_after);
	assert_int_equal(m->x.cpu.fpu.mxcsr, mxcsr);
	assert_int_equal(m->x.cpu.fpu.fxsave[0] | m->x.cpu.fpu.fxsave[1] << 8, fcw);
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_page_crossing),
		cmocka_unit_test(test_alignment),
		cmocka_unit_test(test_mmio),
		cmocka_unit_test(test_mmio_x87),
		cmocka_unit_test(test_tracked),
		cmocka_unit_test(test_host_page_gone),
		cmocka_unit_test(test_self_modifying),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_simd_exception),
		cmocka_unit_test(test_x87_exception),
		cmocka_unit_test(test_masked),
		cmocka_unit_test(test_masked_extract),
		cmocka_unit_test(test_masked_sad),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_image_is_the_hosts),
		cmocka_unit_test(test_xsave),
		cmocka_unit_test(test_xsaves),
		cmocka_unit_test(test_fxsave),
		cmocka_unit_test(test_xsetbv),
		cmocka_unit_test(test_host_controls),
	};

	keep_handlers();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

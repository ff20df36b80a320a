// SPDX-License-Identifier: MIT
/*
 * SSE and AVX: who may use them (#UD, #NM), unmasked exceptions (#XM), alignment, XCR0, and
 * XSAVE's areas (SDM vol. 1, chapters 11 and 13).
 */
#include "cpu.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

static u8 area[4096] __attribute__((aligned(64)));
static float ones[4] __attribute__((aligned(16))) = { 1, 1, 1, 1 };

PROBE(sse, "", "xorps %xmm0, %xmm0");
PROBE(divide, "ldmxcsr (%rax); xorps %xmm1, %xmm1; movaps ones_data, %xmm0", "divps %xmm1, %xmm0");
PROBE(load_aligned, "", "movaps (%rax), %xmm0");
PROBE(load_unaligned, "", "movups (%rax), %xmm0");
PROBE(bad_mxcsr, "", "ldmxcsr (%rax)");
PROBE(avx, "", "vxorps %ymm0, %ymm0, %ymm0");
PROBE(xgetbv, "xor %ecx, %ecx", "xgetbv");
PROBE(xsetbv, "xor %ecx, %ecx; xor %edx, %edx", "xsetbv");
PROBE(fxsave, "", "fxsave (%rax)");
PROBE(movnti, "", "movnti %rcx, (%rax)");
asm(".data; .balign 16; ones_data: .float 1, 1, 1, 1; .text");

static void enabling(void)
{
	ulong cr0 = read_cr0() & ~(CR0_EM | CR0_TS),
	      cr4 = read_cr4() & ~(CR4_OSFXSR | CR4_OSXMMEXCPT);

	write_cr0(cr0 | CR0_MP | CR0_NE);
	write_cr4(cr4);
	CHECK_TRAP(trap_call(sse, 0), VEC_UD, 0, sse_at, "SSE without CR4.OSFXSR");
	CHECK_EQ(trap_call(movnti, (ulong)area).vector, TRAP_NONE, "MOVNTI needs nothing");
	write_cr4(cr4 | CR4_OSFXSR);
	CHECK_EQ(trap_call(sse, 0).vector, TRAP_NONE, "SSE with CR4.OSFXSR");
	write_cr0(read_cr0() | CR0_TS);
	CHECK_TRAP(trap_call(sse, 0), VEC_NM, 0, sse_at, "SSE with CR0.TS");
	CHECK_TRAP(trap_call(fxsave, (ulong)area), VEC_NM, 0, fxsave_at, "FXSAVE with CR0.TS");
	write_cr0((read_cr0() & ~CR0_TS) | CR0_EM);
	CHECK_TRAP(trap_call(sse, 0), VEC_UD, 0, sse_at, "SSE with CR0.EM");
	write_cr0(read_cr0() & ~CR0_EM);
}

static void exceptions(void)
{
	u32 unmasked = 0x1f80 & ~0x200, masked = 0x1f80, bad = 0x10000, csr;

	CHECK_TRAP(trap_call(divide, (ulong)&unmasked), VEC_UD, 0, divide_at,
		   "an unmasked division by zero without CR4.OSXMMEXCPT is #UD");
	write_cr4(read_cr4() | CR4_OSXMMEXCPT);
	CHECK_TRAP(trap_call(divide, (ulong)&unmasked), VEC_XM, 0, divide_at, "and with it #XM");
	asm volatile("stmxcsr %0" : "=m"(csr));
	CHECK_EQ(csr, unmasked | 4, "MXCSR.ZE is set");
	CHECK_EQ(trap_call(divide, (ulong)&masked).vector, TRAP_NONE, "masked it goes on");
	asm volatile("stmxcsr %0; movups %%xmm0, %1" : "=m"(csr), "=m"(ones));
	CHECK_EQ(csr, masked | 4, "with MXCSR.ZE");
	CHECK_EQ(*(u32 *)ones, 0x7f800000, "and an infinity");
	CHECK_TRAP(trap_call(bad_mxcsr, (ulong)&bad), VEC_GP, 0, bad_mxcsr_at,
		   "MXCSR, reserved bit");
	CHECK_TRAP(trap_call(load_aligned, (ulong)area + 8), VEC_GP, 0, load_aligned_at, "MOVAPS");
	CHECK_EQ(trap_call(load_unaligned, (ulong)area + 8).vector, TRAP_NONE, "MOVUPS");
	CHECK_TRAP(trap_call(fxsave, (ulong)area + 8), VEC_GP, 0, fxsave_at, "FXSAVE, not aligned");
}

/* A 16-byte store over the end of what is mapped leaves nothing in front. */
static void straddling(void)
{
	struct space s = space_kernel(PAGING_4LEVEL, false, false);
	u8 *end = (u8 *)0x500000001000;
	struct trap t;

	space_map(&s, (ulong)end - 4096, SCRATCH_PHYS, PTE_P | PTE_W);
	space_map(&s, (ulong)end, 0, 0);
	space_load(&s);
	*(volatile u64 *)(end - 8) = 0x0123456789abcdef;
	t = trap_call(load_unaligned, (ulong)end - 8);
	CHECK_TRAP(t, VEC_PF, 0, load_unaligned_at, "a load over the end");
	CHECK_EQ(t.cr2, (ulong)end, "faults at the page that is missing");
	space_map(&s, (ulong)end, SCRATCH_PHYS + 4096, PTE_P);
	write_cr0(read_cr0() | CR0_WP);
	asm volatile("pcmpeqd %xmm0, %xmm0");
	CHECK_EQ(trap_call(fxsave, (ulong)end - 16 * 16).vector, VEC_PF, "FXSAVE over the end");
	CHECK_EQ(*(volatile u64 *)end, 0, "does not write there");
	write_cr0(read_cr0() & ~CR0_WP);
}

static void extended_state(void)
{
	struct cpuid d;
	u32 lo, hi, n;

	if (!(cpuid(1, 0).c & BIT(26)))
		return;
	CHECK_TRAP(trap_call(xgetbv, 0), VEC_UD, 0, xgetbv_at, "XGETBV without CR4.OSXSAVE");
	CHECK_EQ(cpuid(1, 0).c & BIT(27), 0, "CPUID says OSXSAVE is off");
	write_cr4(read_cr4() | CR4_OSXSAVE);
	CHECK_EQ(cpuid(1, 0).c & BIT(27), BIT(27), "CPUID says OSXSAVE is on");
	CHECK_EQ(trap_call(xgetbv, 0).value & 0xffffffff, 1, "XCR0 is 1 after reset");
	CHECK_TRAP(trap_call(xsetbv, 0), VEC_GP, 0, xsetbv_at, "XCR0 without x87");
	CHECK_TRAP(user_call(xsetbv, 1), VEC_GP, 0, xsetbv_at, "ring 3: XSETBV");
	d = cpuid(13, 0);
	if (!(d.a & 4))
		return;
	CHECK_TRAP(trap_call(xsetbv, 5), VEC_GP, 0, xsetbv_at, "XCR0 with AVX, without SSE");
	trap_call(xsetbv, 3);
	CHECK_TRAP(trap_call(avx, 0), VEC_UD, 0, avx_at, "AVX without its bit in XCR0");
	CHECK_EQ(cpuid(13, 0).b, 576, "the area for x87 and SSE");
	trap_call(xsetbv, 7);
	CHECK_EQ(trap_call(avx, 0).vector, TRAP_NONE, "AVX with it");
	n = cpuid(13, 0).b;
	CHECK_EQ(n, 576 + 256, "the area with AVX");
	memset(area, 0x55, sizeof(area));
	memset(area + 512, 0, 64);
	asm volatile(
		"vpcmpeqd %%xmm0, %%xmm0, %%xmm0; vinsertf128 $1, %%xmm0, %%ymm0, %%ymm3; xsave %0"
		: "+m"(area)
		: "a"(7), "d"(0));
	CHECK_EQ(*(u64 *)(area + 512) & 4, 4, "XSTATE_BV has AVX");
	CHECK_EQ(*(u64 *)(area + 576 + 3 * 16), ~0ull, "the upper half of YMM3 is in its place");
	asm volatile("vzeroall; xrstor %1; vextractf128 $1, %%ymm3, %%xmm1; movd %%xmm1, %0"
		     : "=r"(lo)
		     : "m"(area), "a"(7), "d"(0));
	CHECK_EQ(lo, 0xffffffff, "XRSTOR brings it back");
	*(u64 *)(area + 512) = 0;
	asm volatile("xrstor %1; vextractf128 $1, %%ymm3, %%xmm1; movd %%xmm1, %0"
		     : "=r"(hi)
		     : "m"(area), "a"(4), "d"(0));
	CHECK_EQ(hi, 0, "a clear bit in XSTATE_BV initializes");
	write_cr0(read_cr0() | CR0_TS);
	CHECK_TRAP(trap_call(avx, 0), VEC_NM, 0, avx_at, "AVX with CR0.TS");
	write_cr0(read_cr0() & ~CR0_TS);
}

void guest_main(void)
{
	enabling();
	exceptions();
	extended_state();
	straddling();
}

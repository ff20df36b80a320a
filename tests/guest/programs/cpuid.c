// SPDX-License-Identifier: MIT
/*
 * CPUID hangs together: limits, vendors, features that imply others, and what it announces can
 * be switched on (SDM vol. 2, CPUID).
 */
#include "cr4.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

PROBE(to_cr4, "", "mov %rax, %cr4");

static void implied(bool a, bool b, const char *what)
{
	CHECK(!a || b, what);
}

void guest_main(void)
{
	struct cpuid zero = cpuid(0, 0), ext = cpuid(0x80000000, 0);
	ulong cr4 = read_cr4();
	struct space space;
	char name[49] = { 0 };

	say("vendor %08x %08x %08x, leaves to 0x%x and 0x%x\n", zero.b, zero.d, zero.c, zero.a,
	    ext.a);
	CHECK(zero.a >= 7 && zero.a < 0x100, "the last basic leaf is a sensible number");
	CHECK(ext.a >= 0x80000008 && ext.a < 0x80000100, "the last extended leaf as well");
	for (u32 i = 0; i < 3; i++) {
		struct cpuid part = cpuid(0x80000002 + i, 0);

		memcpy(name + i * 16, &part, 16);
	}
	CHECK(strlen(name) > 0, "the processor has a name");

	CHECK(cpuid_has(1, REG_EDX, 0) && cpuid_has(1, REG_EDX, 4) && cpuid_has(1, REG_EDX, 5) &&
		      cpuid_has(1, REG_EDX, 6) && cpuid_has(1, REG_EDX, 8) &&
		      cpuid_has(1, REG_EDX, 13) && cpuid_has(1, REG_EDX, 15) &&
		      cpuid_has(1, REG_EDX, 24) && cpuid_has(1, REG_EDX, 25) &&
		      cpuid_has(1, REG_EDX, 26),
	      "what 64-bit systems take for granted: FPU TSC MSR PAE CX8 PGE CMOV FXSR SSE SSE2");
	CHECK(cpuid_has(0x80000001, REG_EDX, 29) && cpuid_has(0x80000001, REG_EDX, 11) &&
		      cpuid_has(0x80000001, REG_EDX, 20),
	      "long mode, SYSCALL, NX");
	CHECK(phys_bits() >= 36 && phys_bits() <= 52, "physical address width");
	implied(cpuid_has(1, REG_ECX, 28), cpuid_has(1, REG_ECX, 26), "AVX implies XSAVE");
	implied(cpuid_has(1, REG_ECX, 12), cpuid_has(1, REG_ECX, 28), "FMA implies AVX");
	implied(cpuid_has(7, REG_EBX, 5), cpuid_has(1, REG_ECX, 28), "AVX2 implies AVX");
	implied(cpuid_has(7, REG_EBX, 16), cpuid_has(7, REG_EBX, 5), "AVX-512 implies AVX2");
	implied(cpuid_has(7, REG_EBX, 10), cpuid_has(1, REG_ECX, 17), "INVPCID implies PCID");
	CHECK_EQ(cpuid(1, 0).b >> 24, 0, "the first processor's APIC id is 0");
	CHECK_EQ(cpuid_has(1, REG_EDX, 9), 1, "there is an APIC");
	CHECK(cpuid_has(1, REG_ECX, 31), "the hypervisor bit is set");

	/* With CR4.SMEP the program may not be in pages of ring 3. */
	space = space_kernel(PAGING_4LEVEL, false, false);
	space_load(&space);
	/* That the others are refused is checked by control-registers.c. */
	for (unsigned i = 0; i < COUNT(cr4_features); i++) {
		if (!cpuid_has(cr4_features[i].leaf, cr4_features[i].reg, cr4_features[i].bit))
			continue;
		CHECK_EQ(trap_call(to_cr4, cr4 | cr4_features[i].cr4).vector, TRAP_NONE,
			 cr4_features[i].name);
		CHECK_EQ(read_cr4(), cr4 | cr4_features[i].cr4, cr4_features[i].name);
		write_cr4(cr4);
	}
}

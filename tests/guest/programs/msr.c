// SPDX-License-Identifier: MIT
/*
 * Model-specific registers: the ones that there must be, what they refuse, and #GP for others
 * (SDM vol. 4; vol. 2, RDMSR and WRMSR).
 */
#include "cpu.h"
#include "guest.h"
#include "trap.h"

PROBE(get, "mov %eax, %ecx", "rdmsr");
PROBE(set_0, "mov %eax, %ecx; xor %eax, %eax; xor %edx, %edx", "wrmsr");
PROBE(set_not_canonical, "mov %eax, %ecx; xor %eax, %eax; mov $0x80000000, %edx", "wrmsr");
PROBE(set_odd_pat, "mov $0x277, %ecx; mov $0x02000000, %eax; xor %edx, %edx", "wrmsr");
PROBE(read_tscp, "", "rdtscp; mov %ecx, %eax");

void guest_main(void)
{
	static const u32 bases[] = { MSR_LSTAR,	      MSR_CSTAR,	  MSR_FS_BASE,
				     MSR_GS_BASE,     MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP,
				     MSR_SYSENTER_EIP };
	u64 before, after;

	CHECK_TRAP(trap_call(get, 0x12345678), VEC_GP, 0, get_at, "RDMSR of nothing");
	CHECK_TRAP(trap_call(set_0, 0x12345678), VEC_GP, 0, set_0_at, "WRMSR of nothing");
	CHECK_TRAP(user_call(get, MSR_TSC), VEC_GP, 0, get_at, "ring 3: RDMSR");
	CHECK_TRAP(user_call(set_0, MSR_TSC), VEC_GP, 0, set_0_at, "ring 3: WRMSR");
	for (unsigned i = 0; i < COUNT(bases); i++) {
		wrmsr(bases[i], 0x00007fff12345678);
		CHECK_EQ(rdmsr(bases[i]), 0x00007fff12345678, "a base register reads back");
		CHECK_TRAP(trap_call(set_not_canonical, bases[i]), VEC_GP, 0, set_not_canonical_at,
			   "and refuses what is not canonical");
		CHECK_EQ(rdmsr(bases[i]), 0x00007fff12345678, "and keeps its value then");
		wrmsr(bases[i], 0);
	}
	wrmsr(MSR_STAR, 0x0013000800000000);
	CHECK_EQ(rdmsr(MSR_STAR), 0x0013000800000000, "STAR");
	wrmsr(MSR_SFMASK, 0x47700);
	CHECK_EQ(rdmsr(MSR_SFMASK), 0x47700, "SFMASK");
	CHECK_TRAP(trap_call(set_odd_pat, 0), VEC_GP, 0, set_odd_pat_at,
		   "PAT: no such memory type");
	wrmsr(MSR_PAT, 0x0007040600070406);
	CHECK_EQ(rdmsr(MSR_PAT), 0x0007040600070406, "PAT");
	CHECK_EQ(rdmsr(MSR_APIC_BASE) & 0xfffff900, 0xfee00900, "APIC base: on, first processor");
	before = rdtsc();
	after = rdmsr(MSR_TSC);
	CHECK(after >= before && after - before < 10000000000ull, "the TSC, read both ways");
	wrmsr(MSR_TSC, 0);
	CHECK(rdtsc() < before || before < 1000000, "the TSC can be set");
	if (cpuid_if(0x80000001, 0).d & BIT(27)) {
		wrmsr(MSR_TSC_AUX, 0x55);
		CHECK_EQ(trap_call(read_tscp, 0).value, 0x55, "RDTSCP gives TSC_AUX");
	}
	CHECK_EQ(rdmsr(MSR_EFER) & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA, "EFER in long mode");
	/* The memory type ranges: the capability register says how many there are. */
	if (cpuid(1, 0).d & BIT(12)) {
		u64 cap = rdmsr(0xfe);

		for (u32 i = 0; i < (cap & 0xff); i++) {
			CHECK_EQ(trap_call(get, 0x200 + i * 2).vector, TRAP_NONE, "MTRR base");
			CHECK_EQ(trap_call(get, 0x201 + i * 2).vector, TRAP_NONE, "MTRR mask");
		}
		CHECK_EQ(trap_call(get, 0x2ff).vector, TRAP_NONE, "MTRR default type");
	}
}

// SPDX-License-Identifier: MIT
/* Values that CR0, CR3, CR4 and EFER refuse in 64-bit mode (SDM vol. 3, 2.5 and 4.1). */
#include "cr4.h"
#include "guest.h"
#include "trap.h"

PROBE(to_cr0, "", "mov %rax, %cr0");
PROBE(to_cr4, "", "mov %rax, %cr4");
PROBE(to_cr3, "", "mov %rax, %cr3");
PROBE(to_cr8, "", "mov %rax, %cr8");
PROBE(to_efer, "mov %rax, %rdx; shr $32, %rdx; mov $0xc0000080, %ecx", "wrmsr");
PROBE(load_msw, "", "lmsw %ax");

void guest_main(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4(), cr3 = read_cr3();
	u64 efer = rdmsr(MSR_EFER);

	trap_call(load_msw, (cr0 & 0xfff0) | CR0_TS | CR0_MP);
	CHECK_EQ(read_cr0(), (cr0 & ~(ulong)CR0_EM) | CR0_TS | CR0_MP | CR0_PE,
		 "LMSW sets TS and MP, and never clears PE");
	write_cr0(cr0);
	trap_call(to_cr8, 5);
	CHECK_EQ(*(volatile u32 *)0xfee00080, 0x50, "CR8 is the upper half of the TPR");
	trap_call(to_cr8, 0);

	CHECK_TRAP(trap_call(to_cr0, cr0 & ~CR0_PE), VEC_GP, 0, to_cr0_at, "CR0.PG without PE");
	CHECK_TRAP(trap_call(to_cr0, (cr0 | BIT(29)) & ~BIT(30)), VEC_GP, 0, to_cr0_at,
		   "CR0.NW without CD");
	CHECK_TRAP(trap_call(to_cr0, cr0 | BIT(32)), VEC_GP, 0, to_cr0_at, "CR0 bit 32");
	CHECK_TRAP(trap_call(to_cr4, cr4 & ~CR4_PAE), VEC_GP, 0, to_cr4_at,
		   "CR4.PAE cleared in long mode");
	CHECK_TRAP(trap_call(to_cr4, cr4 ^ CR4_LA57), VEC_GP, 0, to_cr4_at,
		   "CR4.LA57 changed in long mode");
	CHECK_TRAP(trap_call(to_cr4, cr4 | BIT(31)), VEC_GP, 0, to_cr4_at, "CR4 bit 31");
	CHECK_TRAP(trap_call(to_cr4, cr4 | BIT(15)), VEC_GP, 0, to_cr4_at, "CR4 bit 15");
	CHECK_TRAP(trap_call(to_cr3, cr3 | BIT(62)), VEC_GP, 0, to_cr3_at, "CR3 bit 62");
	CHECK_TRAP(trap_call(to_cr8, 16), VEC_GP, 0, to_cr8_at, "CR8 above 15");
	CHECK_TRAP(trap_call(to_efer, efer & ~(u64)EFER_LME), VEC_GP, 0, to_efer_at,
		   "EFER.LME cleared while paging");
	CHECK_TRAP(trap_call(to_efer, efer | BIT64(1)), VEC_GP, 0, to_efer_at, "EFER bit 1");
	CHECK_EQ(read_cr0(), cr0, "CR0 is as it was");
	CHECK_EQ(read_cr4(), cr4, "CR4 is as it was");
	CHECK_EQ(read_cr3(), cr3, "CR3 is as it was");
	CHECK_EQ(rdmsr(MSR_EFER), efer, "EFER is as it was");
	for (unsigned i = 0; i < COUNT(cr4_features); i++)
		if (!cpuid_has(cr4_features[i].leaf, cr4_features[i].reg, cr4_features[i].bit))
			CHECK_TRAP(trap_call(to_cr4, cr4 | cr4_features[i].cr4), VEC_GP, 0,
				   to_cr4_at, cr4_features[i].name);
}

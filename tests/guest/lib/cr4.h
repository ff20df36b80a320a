/* SPDX-License-Identifier: MIT */
/* Which bit of CPUID announces which bit of CR4 (SDM vol. 3, 2.5). */
#ifndef GUEST_CR4_H
#define GUEST_CR4_H

#include "cpu.h"

enum cpuid_register { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

static inline bool cpuid_has(u32 leaf, enum cpuid_register reg, unsigned bit)
{
	struct cpuid r = cpuid_if(leaf, 0);
	u32 regs[] = { r.a, r.b, r.c, r.d };

	return regs[reg] >> bit & 1;
}

static const struct {
	u32 leaf;
	enum cpuid_register reg;
	unsigned bit;
	ulong cr4;
	const char *name;
} cr4_features[] = {
	{ 1, REG_EDX, 3, CR4_PSE, "CR4.PSE" },
	{ 1, REG_EDX, 13, CR4_PGE, "CR4.PGE" },
	{ 1, REG_EDX, 24, CR4_OSFXSR, "CR4.OSFXSR" },
	{ 1, REG_EDX, 25, CR4_OSXMMEXCPT, "CR4.OSXMMEXCPT" },
	{ 1, REG_EDX, 1, CR4_VME, "CR4.VME" },
	{ 1, REG_EDX, 2, CR4_DE, "CR4.DE" },
	{ 1, REG_EDX, 4, CR4_TSD, "CR4.TSD" },
	{ 1, REG_ECX, 26, CR4_OSXSAVE, "CR4.OSXSAVE" },
	{ 7, REG_EBX, 0, CR4_FSGSBASE, "CR4.FSGSBASE" },
	{ 7, REG_EBX, 7, CR4_SMEP, "CR4.SMEP" },
	{ 7, REG_EBX, 20, CR4_SMAP, "CR4.SMAP" },
	{ 7, REG_ECX, 2, CR4_UMIP, "CR4.UMIP" },
	{ 7, REG_ECX, 3, CR4_PKE, "CR4.PKE" },
};

#endif

/* SPDX-License-Identifier: MIT */
/* The processor's registers and instructions that C has no name for. */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include "types.h"

#ifdef __x86_64__
#define IS_64BIT 1
#else
#define IS_64BIT 0
#endif

/* Exception vectors (SDM vol. 3, table 6-1). */
enum {
	VEC_DE = 0,
	VEC_DB = 1,
	VEC_NMI = 2,
	VEC_BP = 3,
	VEC_OF = 4,
	VEC_BR = 5,
	VEC_UD = 6,
	VEC_NM = 7,
	VEC_DF = 8,
	VEC_TS = 10,
	VEC_NP = 11,
	VEC_SS = 12,
	VEC_GP = 13,
	VEC_PF = 14,
	VEC_MF = 16,
	VEC_AC = 17,
	VEC_MC = 18,
	VEC_XM = 19,
};

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_PG BIT(31)

#define CR4_VME	       BIT(0)
#define CR4_PVI	       BIT(1)
#define CR4_TSD	       BIT(2)
#define CR4_DE	       BIT(3)
#define CR4_PSE	       BIT(4)
#define CR4_PAE	       BIT(5)
#define CR4_PGE	       BIT(7)
#define CR4_PCE	       BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE	       BIT(22)

#define FLAG_CF	   BIT(0)
#define FLAG_FIXED BIT(1)
#define FLAG_PF	   BIT(2)
#define FLAG_AF	   BIT(4)
#define FLAG_ZF	   BIT(6)
#define FLAG_SF	   BIT(7)
#define FLAG_TF	   BIT(8)
#define FLAG_IF	   BIT(9)
#define FLAG_DF	   BIT(10)
#define FLAG_OF	   BIT(11)
#define FLAG_IOPL  (BIT(12) | BIT(13))
#define FLAG_NT	   BIT(14)
#define FLAG_RF	   BIT(16)
#define FLAG_VM	   BIT(17)
#define FLAG_AC	   BIT(18)
#define FLAG_VIF   BIT(19)
#define FLAG_VIP   BIT(20)
#define FLAG_ID	   BIT(21)

#define MSR_TSC		   0x10
#define MSR_APIC_BASE	   0x1b
#define MSR_SYSENTER_CS	   0x174
#define MSR_SYSENTER_ESP   0x175
#define MSR_SYSENTER_EIP   0x176
#define MSR_PAT		   0x277
#define MSR_TSC_DEADLINE   0x6e0
#define MSR_EFER	   0xc0000080
#define MSR_STAR	   0xc0000081
#define MSR_LSTAR	   0xc0000082
#define MSR_CSTAR	   0xc0000083
#define MSR_SFMASK	   0xc0000084
#define MSR_FS_BASE	   0xc0000100
#define MSR_GS_BASE	   0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX	   0xc0000103

#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

#define DEFINE_REGISTER(reg)                                           \
	static inline ulong read_##reg(void)                           \
	{                                                              \
		ulong v;                                               \
		asm volatile("mov %%" #reg ", %0" : "=r"(v));          \
		return v;                                              \
	}                                                              \
	static inline void write_##reg(ulong v)                        \
	{                                                              \
		asm volatile("mov %0, %%" #reg : : "r"(v) : "memory"); \
	}

DEFINE_REGISTER(cr0)
DEFINE_REGISTER(cr2)
DEFINE_REGISTER(cr3)
DEFINE_REGISTER(cr4)
DEFINE_REGISTER(dr0)
DEFINE_REGISTER(dr1)
DEFINE_REGISTER(dr2)
DEFINE_REGISTER(dr3)
DEFINE_REGISTER(dr6)
DEFINE_REGISTER(dr7)

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (u64)hi << 32 | lo;
}

static inline void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

struct cpuid {
	u32 a, b, c, d;
};

static inline struct cpuid cpuid(u32 leaf, u32 sub)
{
	struct cpuid r;

	asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
	return r;
}

/* A leaf that may lie beyond the last one (which then would answer for it): zeroes. */
static inline struct cpuid cpuid_if(u32 leaf, u32 sub)
{
	struct cpuid none = { 0, 0, 0, 0 };

	return cpuid(leaf & 0x80000000, 0).a >= leaf ? cpuid(leaf, sub) : none;
}

static inline ulong read_flags(void)
{
	ulong v;

	asm volatile("pushf; pop %0" : "=r"(v));
	return v;
}

static inline void write_flags(ulong v)
{
	asm volatile("push %0; popf" : : "r"(v) : "cc", "memory");
}

static inline void invlpg(ulong va)
{
	asm volatile("invlpg (%0)" : : "r"(va) : "memory");
}

static inline void flush_tlb(void)
{
	write_cr3(read_cr3());
}

static inline void outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void cli(void)
{
	asm volatile("cli" : : : "memory");
}

static inline void sti(void)
{
	asm volatile("sti" : : : "memory");
}

static inline void pause(void)
{
	asm volatile("pause" : : : "memory");
}

/* Let interrupts in for one instruction's time: none that is pending stays so. */
static inline void open_window(void)
{
	asm volatile("sti; nop; cli" : : : "memory");
}

/* Sleep until an interrupt has been handled; interrupts are off before and after. */
static inline void sleep(void)
{
	asm volatile("sti; hlt; cli" : : : "memory");
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The architectural state of one logical processor: plain data, no behaviour.
 *
 * Owned by the vCPU's thread while KVM_RUN runs, and by whoever holds the vCPU's mutex otherwise.
 * Between instructions it is exact, with one exception that only the engines know: while one runs, the
 * status flags (CF PF AF ZF SF OF) and rip may be in the engine's own form (engine/exec.h).
 */
#ifndef UM_CPU_CPU_H
#define UM_CPU_CPU_H

#include "base/bits.h"
#include "base/types.h"
#include "x86/insn.h"
#include "x86/regs.h"

/* A segment register with its hidden part.  limit is in bytes, granularity already applied. */
struct um_segment {
	u64 base;
	u32 limit;
	u16 selector;
	u8 type; /* 4 bits: UM_DESC_... or enum um_system_desc */
	u8 dpl;
	bool s; /* code or data; clear: system */
	bool present;
	bool avl;
	bool l;	       /* 64-bit code */
	bool db;       /* D/B: default operand size, stack size */
	bool g;	       /* as it was in the descriptor; for reading back */
	bool unusable; /* loaded with a null selector */
};

struct um_dtable {
	u64 base;
	u16 limit;
};

/*
 * x87, SSE, AVX, AVX-512 and PKRU state.  Flat, so that native stubs can load and store single
 * registers; cpu/xsave.c converts to and from the XSAVE image.
 */
struct um_fpu {
	u8 zmm[32][64] __attribute__((aligned(64))); /* XMM and YMM are the low parts */
	/*
	 * An FXSAVE64 image, of which bytes 0..23 (FCW FSW FTW FOP FIP FDP) and 32..159 (ST/MM
	 * registers, 16 bytes each, in stack order) are the x87 state.  The rest is scratch.
	 */
	u8 fxsave[512] __attribute__((aligned(64)));
	u64 k[8];
	u32 mxcsr;
	u32 pkru;
	u64 xinuse; /* XCR0_... components that were written since they were last initial */
};

/* MSRs that are just stored.  Those with behaviour elsewhere (APIC, TSC, KVM's own) are not here. */
struct um_msrs {
	u64 star, lstar, cstar, sfmask, kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 tsc_aux, pat, misc_enable, debugctl, spec_ctrl, xss;
	u64 mtrr_def_type, mtrr_fixed[11], mtrr_phys[8][2];
	u64 mcg_cap, mcg_status, mcg_ctl, mc[32][4];
	u64 mc_ctl2[32];
	u64 feat_ctl, power_ctl, arch_capabilities, platform_info, misc_features, ucode_rev, smbase;
	u64 tsc_adjust, smi_count, hwcr;
};

#define UM_MAX_CPUID_ENTRIES 256

/* Whose processor CPUID says it is: decides between instructions that are one vendor's only. */
enum um_vendor { UM_VENDOR_UNKNOWN, UM_VENDOR_INTEL, UM_VENDOR_AMD };

struct um_cpuid_entry {
	u32 function, index;
	bool index_significant;
	u32 eax, ebx, ecx, edx;
};

/* Interrupt shadow: which instruction blocks interrupts until the end of the next one. */
#define UM_SHADOW_STI	BIT(0)
#define UM_SHADOW_MOVSS BIT(1)

struct um_cpu {
	/* gpr[UM_REG_ZERO] and gpr[UM_REG_PAGE] serve effective addresses (x86/insn.h). */
	u64 gpr[18];
	u64 rip;
	u64 rflags;
	struct um_segment seg[UM_NR_SEGS];
	struct um_segment ldt, tr;
	struct um_dtable gdt, idt;
	u64 cr0, cr2, cr3, cr4, efer, xcr0;
	u64 pdptr[4]; /* PAE paging: loaded by MOV CR3 and friends (SDM vol. 3 4.4.1) */
	u64 dr[4], dr6, dr7;
	u8 int_shadow; /* UM_SHADOW_... */
	bool smm;      /* in system-management mode */
	bool nmi_masked;
	bool apic_enabled; /* IA32_APIC_BASE.EN, for CPUID; the register itself is the LAPIC's */
	u8 cpl;		   /* um_cpu_derive_cpl() */

	/* Guest TSC = host TSC * ratio / 2^48 + offset.  ratio 0 means 1:1. */
	u64 tsc_offset, tsc_ratio;

	struct um_msrs msr;
	struct um_fpu fpu;

	/* What KVM_SET_CPUID2 gave, and facts that are asked for often, derived from it. */
	unsigned ncpuid;
	struct um_cpuid_entry cpuid[UM_MAX_CPUID_ENTRIES];
	u8 vendor;	 /* enum um_vendor; those with VT-x count as Intel's */
	u8 maxphyaddr;	 /* bits, 36..52 */
	u64 cr4_allowed; /* CR4 bits that may be set */
	u64 efer_allowed;
	u64 xcr0_allowed;
	u64 features[4];   /* enum um_feature as a bitmap: cpu/cpuid.h */
	bool mwait_by_msr; /* CPUID's MONITOR bit follows IA32_MISC_ENABLE, as on hardware */
	bool cpuid_set; /* KVM_SET_CPUID2 was called; until then everything supported is allowed */
};

/* The mode in which instructions at CS:RIP are read. */
static inline enum um_mode um_cpu_mode(const struct um_cpu *c)
{
	if (!(c->cr0 & CR0_PE) || (c->rflags & RFLAGS_VM))
		return UM_MODE_REAL;
	if ((c->efer & EFER_LMA) && c->seg[UM_CS].l)
		return UM_MODE_64;
	return c->seg[UM_CS].db ? UM_MODE_32 : UM_MODE_16;
}

static inline bool um_cpu_long_mode(const struct um_cpu *c)
{
	return c->efer & EFER_LMA;
}

static inline bool um_cpu_64bit(const struct um_cpu *c)
{
	return (c->efer & EFER_LMA) && c->seg[UM_CS].l;
}

/* CPL from the rest of the state: SS.DPL in protected mode, 0 in real mode, 3 in virtual-8086 mode. */
static inline void um_cpu_derive_cpl(struct um_cpu *c)
{
	if (!(c->cr0 & CR0_PE))
		c->cpl = 0;
	else
		c->cpl = c->rflags & RFLAGS_VM ? 3 : c->seg[UM_SS].dpl;
}

/* The address space that its accesses go to: KVM_CAP_MULTI_ADDRESS_SPACE. */
static inline unsigned um_cpu_as(const struct um_cpu *c)
{
	return c->smm;
}

static inline bool um_cpu_paging(const struct um_cpu *c)
{
	return c->cr0 & CR0_PG;
}

static inline bool um_cpu_protected(const struct um_cpu *c)
{
	return (c->cr0 & CR0_PE) && !(c->rflags & RFLAGS_VM);
}

/* Number of significant bits of a linear address: 57 with CR4.LA57, else 48. */
static inline unsigned um_cpu_vaddr_bits(const struct um_cpu *c)
{
	return c->cr4 & CR4_LA57 ? 57 : 48;
}

/*
 * Put the processor into its state after power-up (@init = false) or INIT (true: FPU, MSRs, CR0.CD/NW
 * and TSC keep their values).  SDM vol. 3 table 9-1.  CPUID stays.
 */
void um_cpu_reset(struct um_cpu *c, bool init);

#endif

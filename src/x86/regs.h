/* SPDX-License-Identifier: MIT */
/*
 * Architectural registers: numbers and bits.  Names are the manuals' (SDM vol. 3 ch. 2 and 4,
 * vol. 4; APM vol. 2 ch. 3).  Pure definitions.
 */
#ifndef UM_X86_REGS_H
#define UM_X86_REGS_H

#include "base/bits.h"

/* General registers in encoding order. */
enum um_gpr {
	UM_RAX,
	UM_RCX,
	UM_RDX,
	UM_RBX,
	UM_RSP,
	UM_RBP,
	UM_RSI,
	UM_RDI,
	UM_R8,
	UM_R9,
	UM_R10,
	UM_R11,
	UM_R12,
	UM_R13,
	UM_R14,
	UM_R15,
	UM_NR_GPRS
};

/* Segment registers in encoding order. */
enum um_seg { UM_ES, UM_CS, UM_SS, UM_DS, UM_FS, UM_GS, UM_NR_SEGS };

/* RFLAGS (SDM vol. 1 3.4.3) */
#define RFLAGS_CF     BIT(0)
#define RFLAGS_FIXED1 BIT(1)
#define RFLAGS_PF     BIT(2)
#define RFLAGS_AF     BIT(4)
#define RFLAGS_ZF     BIT(6)
#define RFLAGS_SF     BIT(7)
#define RFLAGS_TF     BIT(8)
#define RFLAGS_IF     BIT(9)
#define RFLAGS_DF     BIT(10)
#define RFLAGS_OF     BIT(11)
#define RFLAGS_IOPL   (BIT(12) | BIT(13))
#define RFLAGS_NT     BIT(14)
#define RFLAGS_RF     BIT(16)
#define RFLAGS_VM     BIT(17)
#define RFLAGS_AC     BIT(18)
#define RFLAGS_VIF    BIT(19)
#define RFLAGS_VIP    BIT(20)
#define RFLAGS_ID     BIT(21)
#define RFLAGS_STATUS (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)
#define RFLAGS_ALL                                                                                 \
	(RFLAGS_STATUS | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_RF | \
	 RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID)

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)
#define CR0_DEFINED                                                                                \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)

#define CR3_PWT	    BIT(3)
#define CR3_PCD	    BIT(4)
#define CR3_PCID    GENMASK(11, 0)
#define CR3_NOFLUSH BIT(63)

#define CR4_VME	       BIT(0)
#define CR4_PVI	       BIT(1)
#define CR4_TSD	       BIT(2)
#define CR4_DE	       BIT(3)
#define CR4_PSE	       BIT(4)
#define CR4_PAE	       BIT(5)
#define CR4_MCE	       BIT(6)
#define CR4_PGE	       BIT(7)
#define CR4_PCE	       BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_VMXE       BIT(13)
#define CR4_SMXE       BIT(14)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE	       BIT(22)

#define EFER_SCE   BIT(0)
#define EFER_LME   BIT(8)
#define EFER_LMA   BIT(10)
#define EFER_NXE   BIT(11)
#define EFER_SVME  BIT(12)
#define EFER_FFXSR BIT(14)

#define DR6_B(n)	    BIT(n)
#define DR6_BD		    BIT(13)
#define DR6_BS		    BIT(14)
#define DR6_BT		    BIT(15)
#define DR6_RTM		    BIT(16)
#define DR6_FIXED1	    0xffff0ff0ull /* bits that read as one; RTM among them is inverted */
#define DR7_FIXED1	    BIT(10)
#define DR7_GD		    BIT(13)
#define DR7_ENABLED(dr7, n) (((dr7) >> ((n)*2)) & 3)
#define DR7_RW(dr7, n)	    (((dr7) >> (16 + (n)*4)) & 3)
#define DR7_LEN(dr7, n)	    (((dr7) >> (18 + (n)*4)) & 3)

#define XCR0_X87       BIT(0)
#define XCR0_SSE       BIT(1)
#define XCR0_AVX       BIT(2)
#define XCR0_OPMASK    BIT(5)
#define XCR0_ZMM_HI256 BIT(6)
#define XCR0_HI16_ZMM  BIT(7)
#define XCR0_PKRU      BIT(9)
#define XCR0_AVX512    (XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM)

/* Exception vectors (SDM vol. 3 table 6-1) */
enum um_vector {
	UM_VEC_DE,
	UM_VEC_DB,
	UM_VEC_NMI,
	UM_VEC_BP,
	UM_VEC_OF,
	UM_VEC_BR,
	UM_VEC_UD,
	UM_VEC_NM,
	UM_VEC_DF,
	UM_VEC_CSO,
	UM_VEC_TS,
	UM_VEC_NP,
	UM_VEC_SS,
	UM_VEC_GP,
	UM_VEC_PF,
	UM_VEC_15,
	UM_VEC_MF,
	UM_VEC_AC,
	UM_VEC_MC,
	UM_VEC_XM,
	UM_VEC_VE,
	UM_VEC_CP,
};

/* Page-fault error code (SDM vol. 3 4.7) */
#define PFERR_PRESENT BIT(0)
#define PFERR_WRITE   BIT(1)
#define PFERR_USER    BIT(2)
#define PFERR_RSVD    BIT(3)
#define PFERR_FETCH   BIT(4)
#define PFERR_PK      BIT(5)

/* Segment descriptor types (SDM vol. 3 3.4.5.1, 3.5) */
#define UM_DESC_ACCESSED   BIT(0)
#define UM_DESC_WRITABLE   BIT(1) /* data */
#define UM_DESC_READABLE   BIT(1) /* code */
#define UM_DESC_EXPANDDOWN BIT(2) /* data */
#define UM_DESC_CONFORMING BIT(2) /* code */
#define UM_DESC_CODE	   BIT(3)
enum um_system_desc {
	UM_SYS_TSS16_AVAIL = 1,
	UM_SYS_LDT = 2,
	UM_SYS_TSS16_BUSY = 3,
	UM_SYS_CALLGATE16 = 4,
	UM_SYS_TASKGATE = 5,
	UM_SYS_INTGATE16 = 6,
	UM_SYS_TRAPGATE16 = 7,
	UM_SYS_TSS_AVAIL = 9,
	UM_SYS_TSS_BUSY = 11,
	UM_SYS_CALLGATE = 12,
	UM_SYS_INTGATE = 14,
	UM_SYS_TRAPGATE = 15,
};

/* MSR indices (SDM vol. 4; KVM's own: msr.rst) */
enum um_msr {
	MSR_IA32_P5_MC_ADDR = 0x0,
	MSR_IA32_P5_MC_TYPE = 0x1,
	MSR_IA32_TSC = 0x10,
	MSR_IA32_PLATFORM_ID = 0x17,
	MSR_IA32_APICBASE = 0x1b,
	MSR_IA32_FEAT_CTL = 0x3a,
	MSR_IA32_TSC_ADJUST = 0x3b,
	MSR_IA32_SPEC_CTRL = 0x48,
	MSR_IA32_PRED_CMD = 0x49,
	MSR_IA32_UCODE_REV = 0x8b,
	MSR_IA32_SMBASE = 0x9e,
	MSR_PLATFORM_INFO = 0xce,
	MSR_IA32_MTRRCAP = 0xfe,
	MSR_IA32_ARCH_CAPABILITIES = 0x10a,
	MSR_IA32_SYSENTER_CS = 0x174,
	MSR_IA32_SYSENTER_ESP = 0x175,
	MSR_IA32_SYSENTER_EIP = 0x176,
	MSR_IA32_MCG_CAP = 0x179,
	MSR_IA32_MCG_STATUS = 0x17a,
	MSR_IA32_MCG_CTL = 0x17b,
	MSR_IA32_PERF_STATUS = 0x198,
	MSR_IA32_MISC_ENABLE = 0x1a0,
	MSR_IA32_DEBUGCTL = 0x1d9,
	MSR_IA32_MTRR_PHYSBASE0 = 0x200,
	MSR_IA32_MTRR_FIX64K_00000 = 0x250,
	MSR_IA32_MTRR_FIX16K_80000 = 0x258,
	MSR_IA32_MTRR_FIX16K_A0000 = 0x259,
	MSR_IA32_MTRR_FIX4K_C0000 = 0x268,
	MSR_IA32_PAT = 0x277,
	MSR_IA32_MTRR_DEF_TYPE = 0x2ff,
	MSR_IA32_MC0_CTL = 0x400,
	MSR_IA32_PERF_CAP = 0x345,
	MSR_IA32_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC_FIRST = 0x800,
	MSR_X2APIC_LAST = 0x8ff,
	MSR_IA32_XSS = 0xda0,
	MSR_KVM_WALL_CLOCK = 0x11,
	MSR_KVM_SYSTEM_TIME = 0x12,
	MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00,
	MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01,
	MSR_KVM_ASYNC_PF_EN = 0x4b564d02,
	MSR_KVM_STEAL_TIME = 0x4b564d03,
	MSR_KVM_PV_EOI_EN = 0x4b564d04,
	MSR_KVM_POLL_CONTROL = 0x4b564d05,
	MSR_KVM_ASYNC_PF_INT = 0x4b564d06,
	MSR_KVM_ASYNC_PF_ACK = 0x4b564d07,
	MSR_EFER = 0xc0000080,
	MSR_STAR = 0xc0000081,
	MSR_LSTAR = 0xc0000082,
	MSR_CSTAR = 0xc0000083,
	MSR_SFMASK = 0xc0000084,
	MSR_FS_BASE = 0xc0000100,
	MSR_GS_BASE = 0xc0000101,
	MSR_KERNEL_GS_BASE = 0xc0000102,
	MSR_TSC_AUX = 0xc0000103,
};

/* Is @gva canonical with @bits of virtual address (48 or 57)?  SDM vol. 1 3.3.7.1 */
static inline bool um_canonical(u64 gva, unsigned bits)
{
	return (u64)((s64)(gva << (64 - bits)) >> (64 - bits)) == gva;
}

#endif

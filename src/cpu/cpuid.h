/* SPDX-License-Identifier: MIT */
/*
 * CPUID: what umbra can offer, what a VMM chose of it, and what the guest sees.
 *
 * One list, UM_FEATURES, has every feature bit that the manuals define, with what umbra does about it.
 * From it come the enumerators, the filter of KVM_GET_SUPPORTED_CPUID, and the feature bitmap of a vCPU.
 * It is an allow-list: a bit that stands nowhere is not offered.
 */
#ifndef UM_CPU_CPUID_H
#define UM_CPU_CPUID_H

#include <linux/kvm.h>

#include "cpu/cpu.h"

/* Registers in the order of struct um_cpuid_entry. */
enum um_cpuid_reg { UM_EAX, UM_EBX, UM_ECX, UM_EDX };

/*
 * Policies:
 *   HOST  offered if the host CPU has it: the instructions run on it
 *   OURS  offered always: the library does it all by itself
 *   DYN   not offered, but set in the guest's view when a register of the guest says so
 *   NO    withheld, for the reason given
 *
 * X(name, leaf, subleaf, register, bit, policy, reason or remark)
 */
#define UM_FEATURES(X)                                                                            \
	X(SSE3, 1, 0, ECX, 0, HOST, "")                                                           \
	X(PCLMULQDQ, 1, 0, ECX, 1, HOST, "")                                                      \
	X(DTES64, 1, 0, ECX, 2, NO, "no debug store: there is no PMU")                            \
	X(MONITOR, 1, 0, ECX, 3, NO, "MWAIT ends at once: guests should use HLT")                 \
	X(DS_CPL, 1, 0, ECX, 4, NO, "no debug store: there is no PMU")                            \
	X(VMX, 1, 0, ECX, 5, NO, "no nested virtualization with Intel's interface")               \
	X(SMX, 1, 0, ECX, 6, NO, "no measured launch")                                            \
	X(EST, 1, 0, ECX, 7, NO, "frequency is the host's business")                              \
	X(TM2, 1, 0, ECX, 8, NO, "temperature is the host's business")                            \
	X(SSSE3, 1, 0, ECX, 9, HOST, "")                                                          \
	X(CNXT_ID, 1, 0, ECX, 10, NO, "a BIOS setting of old processors")                         \
	X(SDBG, 1, 0, ECX, 11, NO, "no silicon debug interface")                                  \
	X(FMA, 1, 0, ECX, 12, HOST, "")                                                           \
	X(CX16, 1, 0, ECX, 13, HOST, "")                                                          \
	X(XTPR, 1, 0, ECX, 14, NO, "no chipset that would listen")                                \
	X(PDCM, 1, 0, ECX, 15, NO, "no PMU")                                                      \
	X(PCID, 1, 0, ECX, 17, OURS, "")                                                          \
	X(DCA, 1, 0, ECX, 18, NO, "no direct cache access")                                       \
	X(SSE4_1, 1, 0, ECX, 19, HOST, "")                                                        \
	X(SSE4_2, 1, 0, ECX, 20, HOST, "")                                                        \
	X(X2APIC, 1, 0, ECX, 21, OURS, "needs the irqchip, as in KVM")                            \
	X(MOVBE, 1, 0, ECX, 22, HOST, "")                                                         \
	X(POPCNT, 1, 0, ECX, 23, HOST, "")                                                        \
	X(TSC_DEADLINE, 1, 0, ECX, 24, NO, "by KVM_CAP_TSC_DEADLINE_TIMER: needs the irqchip")    \
	X(AES, 1, 0, ECX, 25, HOST, "")                                                           \
	X(XSAVE, 1, 0, ECX, 26, HOST, "")                                                         \
	X(OSXSAVE, 1, 0, ECX, 27, DYN, "CR4.OSXSAVE")                                             \
	X(AVX, 1, 0, ECX, 28, HOST, "")                                                           \
	X(F16C, 1, 0, ECX, 29, HOST, "")                                                          \
	X(RDRAND, 1, 0, ECX, 30, HOST, "")                                                        \
	X(HYPERVISOR, 1, 0, ECX, 31, OURS, "")                                                    \
	X(FPU, 1, 0, EDX, 0, OURS, "")                                                            \
	X(VME, 1, 0, EDX, 1, OURS, "")                                                            \
	X(DE, 1, 0, EDX, 2, OURS, "")                                                             \
	X(PSE, 1, 0, EDX, 3, OURS, "")                                                            \
	X(TSC, 1, 0, EDX, 4, OURS, "")                                                            \
	X(MSR, 1, 0, EDX, 5, OURS, "")                                                            \
	X(PAE, 1, 0, EDX, 6, OURS, "")                                                            \
	X(MCE, 1, 0, EDX, 7, OURS, "")                                                            \
	X(CX8, 1, 0, EDX, 8, OURS, "")                                                            \
	X(APIC, 1, 0, EDX, 9, OURS, "cleared while IA32_APIC_BASE disables the APIC")             \
	X(SEP, 1, 0, EDX, 11, OURS, "")                                                           \
	X(MTRR, 1, 0, EDX, 12, OURS, "")                                                          \
	X(PGE, 1, 0, EDX, 13, OURS, "")                                                           \
	X(MCA, 1, 0, EDX, 14, OURS, "")                                                           \
	X(CMOV, 1, 0, EDX, 15, OURS, "")                                                          \
	X(PAT, 1, 0, EDX, 16, OURS, "")                                                           \
	X(PSE36, 1, 0, EDX, 17, OURS, "")                                                         \
	X(PSN, 1, 0, EDX, 18, NO, "no serial number")                                             \
	X(CLFLUSH, 1, 0, EDX, 19, OURS, "")                                                       \
	X(DS, 1, 0, EDX, 21, NO, "no debug store: there is no PMU")                               \
	X(ACPI, 1, 0, EDX, 22, NO, "temperature is the host's business")                          \
	X(MMX, 1, 0, EDX, 23, HOST, "")                                                           \
	X(FXSR, 1, 0, EDX, 24, OURS, "")                                                          \
	X(SSE, 1, 0, EDX, 25, HOST, "")                                                           \
	X(SSE2, 1, 0, EDX, 26, HOST, "")                                                          \
	X(SELFSNOOP, 1, 0, EDX, 27, HOST, "")                                                     \
	X(HTT, 1, 0, EDX, 28, NO, "topology is the VMM's to describe")                            \
	X(TM, 1, 0, EDX, 29, NO, "temperature is the host's business")                            \
	X(PBE, 1, 0, EDX, 31, NO, "temperature is the host's business")                           \
	X(ARAT, 6, 0, EAX, 2, OURS, "the APIC timer never stops")                                 \
	X(FSGSBASE, 7, 0, EBX, 0, OURS, "")                                                       \
	X(TSC_ADJUST, 7, 0, EBX, 1, OURS, "")                                                     \
	X(SGX, 7, 0, EBX, 2, NO, "enclaves need the hardware")                                    \
	X(BMI1, 7, 0, EBX, 3, HOST, "")                                                           \
	X(HLE, 7, 0, EBX, 4, NO, "transactions would not survive the engine")                     \
	X(AVX2, 7, 0, EBX, 5, HOST, "")                                                           \
	X(FDP_EXCPTN_ONLY, 7, 0, EBX, 6, HOST, "x87 runs on the host")                            \
	X(SMEP, 7, 0, EBX, 7, OURS, "")                                                           \
	X(BMI2, 7, 0, EBX, 8, HOST, "")                                                           \
	X(ERMS, 7, 0, EBX, 9, OURS, "string instructions go by pages")                            \
	X(INVPCID, 7, 0, EBX, 10, OURS, "")                                                       \
	X(RTM, 7, 0, EBX, 11, NO, "transactions would not survive the engine")                    \
	X(CQM, 7, 0, EBX, 12, NO, "caches are the host's")                                        \
	X(ZERO_FCS_FDS, 7, 0, EBX, 13, HOST, "x87 runs on the host")                              \
	X(MPX, 7, 0, EBX, 14, NO, "withdrawn by Intel; no bound registers in the state")          \
	X(RDT_A, 7, 0, EBX, 15, NO, "caches are the host's")                                      \
	X(AVX512F, 7, 0, EBX, 16, HOST, "")                                                       \
	X(AVX512DQ, 7, 0, EBX, 17, HOST, "")                                                      \
	X(RDSEED, 7, 0, EBX, 18, HOST, "")                                                        \
	X(ADX, 7, 0, EBX, 19, HOST, "")                                                           \
	X(SMAP, 7, 0, EBX, 20, OURS, "")                                                          \
	X(AVX512IFMA, 7, 0, EBX, 21, HOST, "")                                                    \
	X(CLFLUSHOPT, 7, 0, EBX, 23, OURS, "")                                                    \
	X(CLWB, 7, 0, EBX, 24, OURS, "")                                                          \
	X(INTEL_PT, 7, 0, EBX, 25, NO, "no processor trace")                                      \
	X(AVX512PF, 7, 0, EBX, 26, NO, "Xeon Phi only")                                           \
	X(AVX512ER, 7, 0, EBX, 27, NO, "Xeon Phi only")                                           \
	X(AVX512CD, 7, 0, EBX, 28, HOST, "")                                                      \
	X(SHA, 7, 0, EBX, 29, HOST, "")                                                           \
	X(AVX512BW, 7, 0, EBX, 30, HOST, "")                                                      \
	X(AVX512VL, 7, 0, EBX, 31, HOST, "")                                                      \
	X(PREFETCHWT1, 7, 0, ECX, 0, NO, "Xeon Phi only")                                         \
	X(AVX512VBMI, 7, 0, ECX, 1, HOST, "")                                                     \
	X(UMIP, 7, 0, ECX, 2, OURS, "")                                                           \
	X(PKU, 7, 0, ECX, 3, HOST, "the rights are the MMU's, the XSAVE layout the host's")       \
	X(OSPKE, 7, 0, ECX, 4, DYN, "CR4.PKE")                                                    \
	X(WAITPKG, 7, 0, ECX, 5, NO, "user-level waits are not timed")                            \
	X(AVX512VBMI2, 7, 0, ECX, 6, HOST, "")                                                    \
	X(CET_SS, 7, 0, ECX, 7, NO, "no shadow stacks")                                           \
	X(GFNI, 7, 0, ECX, 8, HOST, "")                                                           \
	X(VAES, 7, 0, ECX, 9, HOST, "")                                                           \
	X(VPCLMULQDQ, 7, 0, ECX, 10, HOST, "")                                                    \
	X(AVX512VNNI, 7, 0, ECX, 11, HOST, "")                                                    \
	X(AVX512BITALG, 7, 0, ECX, 12, HOST, "")                                                  \
	X(TME, 7, 0, ECX, 13, NO, "no memory encryption")                                         \
	X(AVX512VPOPCNTDQ, 7, 0, ECX, 14, HOST, "")                                               \
	X(LA57, 7, 0, ECX, 16, HOST, "the MMU can do it anywhere; guests expect it of the model") \
	X(RDPID, 7, 0, ECX, 22, OURS, "")                                                         \
	X(KEYLOCKER, 7, 0, ECX, 23, NO, "no key state")                                           \
	X(BUS_LOCK_DETECT, 7, 0, ECX, 24, NO, "no such debug exception")                          \
	X(CLDEMOTE, 7, 0, ECX, 25, OURS, "a hint")                                                \
	X(MOVDIRI, 7, 0, ECX, 27, HOST, "")                                                       \
	X(MOVDIR64B, 7, 0, ECX, 28, NO, "64-byte stores to devices are not atomic here")          \
	X(ENQCMD, 7, 0, ECX, 29, NO, "no PASID")                                                  \
	X(SGX_LC, 7, 0, ECX, 30, NO, "enclaves need the hardware")                                \
	X(PKS, 7, 0, ECX, 31, NO, "no supervisor keys in the MMU")                                \
	X(AVX512_4VNNIW, 7, 0, EDX, 2, NO, "Xeon Phi only")                                       \
	X(AVX512_4FMAPS, 7, 0, EDX, 3, NO, "Xeon Phi only")                                       \
	X(FSRM, 7, 0, EDX, 4, OURS, "string instructions go by pages")                            \
	X(UINTR, 7, 0, EDX, 5, NO, "no user interrupts")                                          \
	X(AVX512_VP2INTERSECT, 7, 0, EDX, 8, HOST, "")                                            \
	X(SRBDS_CTRL, 7, 0, EDX, 9, NO, "see ARCH_CAPABILITIES")                                  \
	X(MD_CLEAR, 7, 0, EDX, 10, OURS, "VERW is harmless; ARCH_CAPABILITIES says not needed")   \
	X(TSX_FORCE_ABORT, 7, 0, EDX, 13, NO, "no transactions")                                  \
	X(SERIALIZE, 7, 0, EDX, 14, OURS, "")                                                     \
	X(HYBRID, 7, 0, EDX, 15, NO, "all vCPUs are alike")                                       \
	X(TSXLDTRK, 7, 0, EDX, 16, NO, "no transactions")                                         \
	X(PCONFIG, 7, 0, EDX, 18, NO, "no memory encryption")                                     \
	X(ARCH_LBR, 7, 0, EDX, 19, NO, "no branch records")                                       \
	X(CET_IBT, 7, 0, EDX, 20, NO, "no branch tracking")                                       \
	X(AMX_BF16, 7, 0, EDX, 22, NO, "no tile state; needs a permission of the host kernel")    \
	X(AVX512_FP16, 7, 0, EDX, 23, HOST, "")                                                   \
	X(AMX_TILE, 7, 0, EDX, 24, NO, "no tile state; needs a permission of the host kernel")    \
	X(AMX_INT8, 7, 0, EDX, 25, NO, "no tile state; needs a permission of the host kernel")    \
	X(SPEC_CTRL, 7, 0, EDX, 26, NO, "a process cannot set the host's speculation controls")   \
	X(STIBP, 7, 0, EDX, 27, NO, "a process cannot set the host's speculation controls")       \
	X(L1D_FLUSH, 7, 0, EDX, 28, NO, "a process cannot flush the host's caches")               \
	X(ARCH_CAP, 7, 0, EDX, 29, OURS, "")                                                      \
	X(CORE_CAP, 7, 0, EDX, 30, NO, "no split-lock exception")                                 \
	X(SSBD, 7, 0, EDX, 31, NO, "a process cannot set the host's speculation controls")        \
	X(AVX_VNNI, 7, 1, EAX, 4, HOST, "")                                                       \
	X(AVX512_BF16, 7, 1, EAX, 5, HOST, "")                                                    \
	X(FZRM, 7, 1, EAX, 10, OURS, "string instructions go by pages")                           \
	X(FSRS, 7, 1, EAX, 11, OURS, "string instructions go by pages")                           \
	X(FSRC, 7, 1, EAX, 12, NO, "compares go byte by byte")                                    \
	X(XSAVEOPT, 0xd, 1, EAX, 0, HOST, "")                                                     \
	X(XSAVEC, 0xd, 1, EAX, 1, HOST, "")                                                       \
	X(XGETBV1, 0xd, 1, EAX, 2, HOST, "")                                                      \
	X(XSAVES, 0xd, 1, EAX, 3, HOST, "")                                                       \
	X(XFD, 0xd, 1, EAX, 4, NO, "no tile state")                                               \
	X(KVM_CLOCKSOURCE, 0x40000001, 0, EAX, 0, OURS, "")                                       \
	X(KVM_NOP_IO_DELAY, 0x40000001, 0, EAX, 1, OURS, "")                                      \
	X(KVM_MMU_OP, 0x40000001, 0, EAX, 2, NO, "gone from KVM too")                             \
	X(KVM_CLOCKSOURCE2, 0x40000001, 0, EAX, 3, OURS, "")                                      \
	X(KVM_ASYNC_PF, 0x40000001, 0, EAX, 4, NO, "a host page fault blocks the vCPU's thread")  \
	X(KVM_STEAL_TIME, 0x40000001, 0, EAX, 5, OURS, "")                                        \
	X(KVM_PV_EOI, 0x40000001, 0, EAX, 6, OURS, "")                                            \
	X(KVM_PV_UNHALT, 0x40000001, 0, EAX, 7, OURS, "")                                         \
	X(KVM_PV_TLB_FLUSH, 0x40000001, 0, EAX, 9, OURS, "")                                      \
	X(KVM_ASYNC_PF_VMEXIT, 0x40000001, 0, EAX, 10, NO, "no asynchronous page faults")         \
	X(KVM_PV_SEND_IPI, 0x40000001, 0, EAX, 11, OURS, "")                                      \
	X(KVM_POLL_CONTROL, 0x40000001, 0, EAX, 12, OURS, "")                                     \
	X(KVM_PV_SCHED_YIELD, 0x40000001, 0, EAX, 13, OURS, "")                                   \
	X(KVM_ASYNC_PF_INT, 0x40000001, 0, EAX, 14, NO, "no asynchronous page faults")            \
	X(KVM_MSI_EXT_DEST_ID, 0x40000001, 0, EAX, 15, NO, "the VMM's to offer: it routes MSIs")  \
	X(KVM_HC_MAP_GPA_RANGE, 0x40000001, 0, EAX, 16, NO, "no encrypted guests")                \
	X(KVM_MIGRATION_CONTROL, 0x40000001, 0, EAX, 17, NO, "no encrypted guests")               \
	X(KVM_CLOCKSOURCE_STABLE, 0x40000001, 0, EAX, 24, OURS, "")                               \
	X(KVM_HINT_REALTIME, 0x40000001, 0, EDX, 0, NO, "the VMM's to say")                       \
	X(LAHF_LM, 0x80000001, 0, ECX, 0, OURS, "")                                               \
	X(CMP_LEGACY, 0x80000001, 0, ECX, 1, NO, "topology is the VMM's to describe")             \
	X(SVM, 0x80000001, 0, ECX, 2, NO, "no nested virtualization yet")                         \
	X(EXTAPIC, 0x80000001, 0, ECX, 3, NO, "the APIC is Intel's")                              \
	X(CR8_LEGACY, 0x80000001, 0, ECX, 4, NO, "LOCK MOV CR0 is an invalid opcode here")        \
	X(ABM, 0x80000001, 0, ECX, 5, HOST, "")                                                   \
	X(SSE4A, 0x80000001, 0, ECX, 6, HOST, "")                                                 \
	X(MISALIGNSSE, 0x80000001, 0, ECX, 7, NO, "misaligned SSE operands fault here")           \
	X(PREFETCHW, 0x80000001, 0, ECX, 8, OURS, "")                                             \
	X(OSVW, 0x80000001, 0, ECX, 9, NO, "no errata of the host's to work around")              \
	X(IBS, 0x80000001, 0, ECX, 10, NO, "no PMU")                                              \
	X(XOP, 0x80000001, 0, ECX, 11, NO, "not in the engines")                                  \
	X(SKINIT, 0x80000001, 0, ECX, 12, NO, "no measured launch")                               \
	X(WDT, 0x80000001, 0, ECX, 13, NO, "no watchdog")                                         \
	X(LWP, 0x80000001, 0, ECX, 15, NO, "no such state component")                             \
	X(FMA4, 0x80000001, 0, ECX, 16, NO, "not in the engines")                                 \
	X(TBM, 0x80000001, 0, ECX, 21, NO, "not in the engines")                                  \
	X(TOPOEXT, 0x80000001, 0, ECX, 22, NO, "topology is the VMM's to describe")               \
	X(PERFCTR_CORE, 0x80000001, 0, ECX, 23, NO, "no PMU")                                     \
	X(SYSCALL, 0x80000001, 0, EDX, 11, OURS, "")                                              \
	X(NX, 0x80000001, 0, EDX, 20, OURS, "")                                                   \
	X(MMXEXT, 0x80000001, 0, EDX, 22, HOST, "")                                               \
	X(FXSR_OPT, 0x80000001, 0, EDX, 25, NO, "FXSAVE always saves the XMM registers here")     \
	X(GBPAGES, 0x80000001, 0, EDX, 26, OURS, "")                                              \
	X(RDTSCP, 0x80000001, 0, EDX, 27, OURS, "")                                               \
	X(LM, 0x80000001, 0, EDX, 29, OURS, "")                                                   \
	X(3DNOWEXT, 0x80000001, 0, EDX, 30, NO, "withdrawn by AMD")                               \
	X(3DNOW, 0x80000001, 0, EDX, 31, NO, "withdrawn by AMD")                                  \
	X(INVARIANT_TSC, 0x80000007, 0, EDX, 8, HOST, "the guest's TSC is the host's")            \
	X(CLZERO, 0x80000008, 0, EBX, 0, NO, "not in the engines")                                \
	X(XSAVEERPTR, 0x80000008, 0, EBX, 2, NO, "AMD's error pointers are the host's")           \
	X(WBNOINVD, 0x80000008, 0, EBX, 9, OURS, "")                                              \
	X(AMD_IBPB, 0x80000008, 0, EBX, 12, NO, "a process cannot set speculation controls")      \
	X(AMD_IBRS, 0x80000008, 0, EBX, 14, NO, "a process cannot set speculation controls")      \
	X(AMD_STIBP, 0x80000008, 0, EBX, 15, NO, "a process cannot set speculation controls")     \
	X(AMD_SSBD, 0x80000008, 0, EBX, 24, NO, "a process cannot set speculation controls")

enum um_feature {
#define X(name, leaf, sub, reg, bit, policy, why) UM_F_##name,
	UM_FEATURES(X)
#undef X
		UM_F_MAX
};

_Static_assert(UM_F_MAX <= 256, "struct um_cpu.features has 256 bits");

/* Does the guest's CPUID (KVM_SET_CPUID2) have @f?  Static bits only: not OSXSAVE, OSPKE. */
static inline bool um_cpu_has(const struct um_cpu *c, enum um_feature f)
{
	return c->features[f / 64] >> (f % 64) & 1;
}

#define UM_MISC_ENABLE_MWAIT BIT(18)

/* MONITOR and MWAIT: the one static bit that may follow an MSR instead (SDM vol. 4, IA32_MISC_ENABLE). */
static inline bool um_cpu_has_mwait(const struct um_cpu *c)
{
	return c->mwait_by_msr ? c->msr.misc_enable & UM_MISC_ENABLE_MWAIT
			       : um_cpu_has(c, UM_F_MONITOR);
}

/* Row of the list, for documentation and tests. */
struct um_feature_info {
	const char *name, *why;
	u32 leaf, subleaf;
	u8 reg, bit, policy; /* enum um_cpuid_reg; 0..31; enum um_feature_policy */
};
enum um_feature_policy { UM_FEATURE_HOST, UM_FEATURE_OURS, UM_FEATURE_DYN, UM_FEATURE_NO };
const struct um_feature_info *um_feature_info(enum um_feature f);

/* The instruction: leaf @eax, subleaf @ecx; out[] by enum um_cpuid_reg. */
void um_cpuid(const struct um_cpu *c, u32 eax, u32 ecx, u32 out[4]);

/*
 * KVM_GET_SUPPORTED_CPUID: fill @e with at most @max entries.  Returns how many there are, or -E2BIG if
 * they are more than @max.
 */
int um_cpuid_supported(struct kvm_cpuid_entry2 *e, unsigned max);

/* KVM_GET_EMULATED_CPUID: features that run without the host CPU having them.  As above. */
int um_cpuid_emulated(struct kvm_cpuid_entry2 *e, unsigned max);

/*
 * KVM_SET_CPUID2: take over @n entries and derive maxphyaddr, cr4_allowed, efer_allowed, xcr0_allowed,
 * features.  Returns 0; -E2BIG if there are too many; -EINVAL if the linear address width is not 0, 48
 * or 57.  The caller tells the MMU and the engine.
 */
int um_cpuid_set(struct um_cpu *c, const struct kvm_cpuid_entry2 *e, unsigned n);

/* KVM_GET_CPUID2, with dynamic bits as they are now.  Returns the number, or -E2BIG. */
int um_cpuid_get(const struct um_cpu *c, struct kvm_cpuid_entry2 *e, unsigned max);

/* Do two lists say the same, but for bits that follow the guest's registers? */
bool um_cpuid_equal(const struct um_cpu *c, const struct kvm_cpuid_entry2 *a,
		    const struct kvm_cpuid_entry2 *b, unsigned n);

/* Before the first um_cpuid_set(): no entries, but everything that is supported is allowed. */
void um_cpuid_init(struct um_cpu *c);

/* Limits that hold for every guest: what um_cpuid_set() can allow at most. */
u64 um_supported_cr4(void);
u64 um_supported_efer(void);
u64 um_supported_xcr0(void);

#endif

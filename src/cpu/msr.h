/* SPDX-License-Identifier: MIT */
/*
 * Model-specific registers: what exists, which values are allowed, where they are kept.
 *
 * One table (msr.c) has a row for each MSR.  Those that are plain storage with rules are done here;
 * those with behaviour elsewhere (TSC, APIC, KVM's own) come back as UM_MSR_ELSEWHERE, for the vCPU
 * layer.
 */
#ifndef UM_CPU_MSR_H
#define UM_CPU_MSR_H

#include "cpu/cpu.h"

enum um_msr_result {
	UM_MSR_OK,
	UM_MSR_BAD,	  /* the guest gets #GP(0); KVM_GET_MSRS and KVM_SET_MSRS stop here */
	UM_MSR_ELSEWHERE, /* exists; the vCPU layer knows */
};

/* Is there a rule for it at all?  If not, KVM calls it unknown, rather than invalid. */
bool um_msr_exists(u32 msr);

/* What a write changed that others have derived things from. */
#define UM_MSR_PAGING  BIT(0) /* EFER.NXE, LMA: um_mmu_reset_context() */
#define UM_MSR_SEGMENT BIT(1) /* FS or GS base: um_exec_sync() if an engine holds the state */

/*
 * Read or write MSR @msr.  @host: for the VMM (KVM_GET_MSRS, KVM_SET_MSRS), which may do more than
 * the guest.  A write ORs UM_MSR_... into *@effects.
 */
enum um_msr_result um_msr_get(const struct um_cpu *c, u32 msr, bool host, u64 *val);
enum um_msr_result um_msr_set(struct um_cpu *c, u32 msr, bool host, u64 val, unsigned *effects);

/*
 * KVM_GET_MSR_INDEX_LIST and KVM_GET_MSR_FEATURE_INDEX_LIST: write up to @max indices, return how
 * many there are.
 */
unsigned um_msr_index_list(u32 *list, unsigned max);
unsigned um_msr_feature_list(u32 *list, unsigned max);

/* KVM_GET_MSRS on the system descriptor: the default of a feature MSR.  False: not one. */
bool um_msr_feature(u32 msr, u64 *val);

/* Values after power-up. */
void um_msr_reset(struct um_cpu *c);

/* KVM_X86_SETUP_MCE: take over @mcg_cap (banks, MCG_CTL_P, …).  0 or -EINVAL. */
#define UM_MAX_MCE_BANKS     32
#define UM_MCG_CTL_P	     BIT(8)
#define UM_MCG_CMCI_P	     BIT(10)
#define UM_MCG_SER_P	     BIT(24)
#define UM_MCG_CAP_SUPPORTED (UM_MCG_CTL_P | UM_MCG_CMCI_P | UM_MCG_SER_P)
#define UM_MC_CTL2_CMCI_EN   BIT(30) /* IA32_MCi_CTL2 */
int um_msr_setup_mce(struct um_cpu *c, u64 mcg_cap);

#endif

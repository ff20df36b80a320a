// SPDX-License-Identifier: MIT
/*
 * The table of MSRs (SDM vol. 4 ch. 2; APM vol. 2 app. A; KVM's own: the kernel's msr.rst).
 *
 * A row has a range of indices, the field of struct um_cpu that keeps the first of them (the others
 * follow it), and the rule for writes.  A rule sees the new value before it is stored, may change
 * it, and says whether it is allowed.  Reads have rules only where the guest's CPUID must have
 * something.
 *
 * Rows without a field read as a constant: registers that guests look at without asking CPUID
 * first, and that KVM answers for the same reason.
 */
#include "cpu/msr.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "x86/hyperv.h"

#define PAT_DEFAULT	     0x0007040600070406ull /* SDM vol. 3 11.12.4 */
#define MTRRCAP		     0x508ull /* write combining, fixed ranges, 8 variable ranges */
#define MISC_FAST_STR	     BIT(0)
#define MISC_NO_BTS	     BIT(11)
#define MISC_NO_PEBS	     BIT(12)
#define DEBUGCTL_LBR	     BIT(0)
#define DEBUGCTL_BTF	     BIT(1)
#define PLATFORM_CPUID_FAULT BIT(31)
#define FEAT_CTL_LOCKED	     BIT(0)
#define HWCR_MC_WR_EN	     BIT(18)

/*
 * IA32_ARCH_CAPABILITIES (SDM vol. 4 table 2-2): the hazards that guests work around by
 * instructions. A guest's loads are done by the engine after its own translation of the address,
 * and none of the workarounds reaches the host CPU through it; so the guest is told that it need
 * not bother.
 */
#define ARCH_CAP                                                                        \
	(BIT(0) /* RDCL_NO */ | BIT(3) /* SKIP_L1DFL_VMENTRY */ | BIT(4) /* SSB_NO */ | \
	 BIT(5) /* MDS_NO */ | BIT(6) /* IF_PSCHANGE_MC_NO */ | BIT(8) /* TAA_NO */ |   \
	 BIT(13) /* SBDR_SSDP_NO */ | BIT(14) /* FBSDP_NO */ | BIT(15) /* PSDP_NO */ |  \
	 BIT(20) /* BHI_NO */ | BIT(24) /* PBRSB_NO */ | BIT(26) /* GDS_NO */ |         \
	 BIT(27) /* RFDS_NO */ | BIT(62) /* ITS_NO */)

struct msr_write {
	struct um_cpu *c;
	u32 msr;
	unsigned n; /* place in its row */
	bool host;
	u64 old;
	u64 val;
	unsigned effects;
	bool drop; /* allowed, but not stored */
};

typedef bool (*write_rule)(struct msr_write *w);
typedef bool (*read_rule)(const struct um_cpu *c, u32 msr);

/* ---- rules for writes ---- */

static bool any(struct msr_write *w)
{
	return true;
}

static bool never(struct msr_write *w)
{
	return false;
}

/* Written by guests without need, to no effect. */
static bool ignored(struct msr_write *w)
{
	w->drop = true;
	return true;
}

static bool zero(struct msr_write *w)
{
	return w->val == 0;
}

static bool host_only(struct msr_write *w)
{
	return w->host;
}

static bool host_zero(struct msr_write *w)
{
	return w->host && w->val == 0;
}

static bool canonical(struct msr_write *w)
{
	return um_canonical(w->val, um_cpu_vaddr_bits(w->c));
}

static bool segment_base(struct msr_write *w)
{
	w->effects |= UM_MSR_SEGMENT;
	return canonical(w);
}

static bool low32(struct msr_write *w)
{
	w->val = (u32)w->val;
	return true;
}

static bool tsc_aux(struct msr_write *w)
{
	if (!w->host && !um_cpu_has(w->c, UM_F_RDTSCP) && !um_cpu_has(w->c, UM_F_RDPID))
		return false;
	return w->val >> 32 == 0;
}

/*
 * SDM vol. 3 2.2.1.  LME can't change while paging is on; LMA is read-only, and changes with CR0.PG
 * only. The VMM sets all of it, before or after CR0.
 */
static bool efer(struct msr_write *w)
{
	struct um_cpu *c = w->c;

	if (w->val & ~(w->host ? um_supported_efer() : c->efer_allowed))
		return false;
	if (!w->host) {
		if (um_cpu_paging(c) && ((w->val ^ c->efer) & EFER_LME))
			return false;
		w->val = (w->val & ~EFER_LMA) | (c->efer & EFER_LMA);
	}
	if ((w->val ^ c->efer) & (EFER_NXE | EFER_LMA | EFER_LME))
		w->effects |= UM_MSR_PAGING;
	return true;
}

/* Memory types 0 UC, 1 WC, 4 WT, 5 WP, 6 WB; in the PAT also 7 UC- (SDM vol. 3 11.11, 11.12). */
static bool mtrr_type(u64 type)
{
	return type < 8 && (1u << type & 0x73);
}

static bool pat(struct msr_write *w)
{
	for (unsigned i = 0; i < 64; i += 8) {
		u64 type = w->val >> i & 0xff;

		if (!mtrr_type(type) && type != 7)
			return false;
	}
	return true;
}

static bool mtrr_def_type(struct msr_write *w)
{
	return !(w->val & ~0xcffull) && mtrr_type(w->val & 0xff);
}

static bool mtrr_fixed(struct msr_write *w)
{
	for (unsigned i = 0; i < 64; i += 8) {
		if (!mtrr_type(w->val >> i & 0xff))
			return false;
	}
	return true;
}

static bool mtrr_phys(struct msr_write *w)
{
	u64 reserved = ~GENMASK(w->c->maxphyaddr - 1, 12);

	if (w->n & 1) /* mask, and the valid bit */
		return !(w->val & reserved & ~BIT(11));
	return mtrr_type(w->val & 0xff) && !(w->val & reserved & ~0xffull);
}

/* LBR and BTF are accepted and stay off: there are no branch records. */
static bool debugctl(struct msr_write *w)
{
	if (w->val & ~(DEBUGCTL_LBR | DEBUGCTL_BTF))
		return false;
	w->val = 0;
	return true;
}

static bool misc_enable(struct msr_write *w)
{
	u64 changed = w->val ^ w->old;

	/* Bit 18 is there only with SSE3 (SDM vol. 4). */
	if (w->c->mwait_by_msr && (changed & UM_MISC_ENABLE_MWAIT) && !um_cpu_has(w->c, UM_F_SSE3))
		return false;
	return w->host || !(changed & (MISC_NO_BTS | MISC_NO_PEBS));
}

static bool feat_ctl(struct msr_write *w)
{
	if (!w->host && (w->old & FEAT_CTL_LOCKED))
		return false;
	return !(w->val & ~FEAT_CTL_LOCKED);
}

/* A loaded revision is announced by writing 0 and CPUID: keep what the VMM said. */
static bool ucode_rev(struct msr_write *w)
{
	w->drop = !w->host;
	return true;
}

static bool platform_info(struct msr_write *w)
{
	return w->host && !(w->val & PLATFORM_CPUID_FAULT);
}

/* The bits that BIOSes and kernels set on AMD processors; none means anything here but one. */
static bool hwcr(struct msr_write *w)
{
	w->val &= ~(BIT(3) /* TLBCACHEDIS */ | BIT(6) /* FFDIS */ | BIT(8) /* IGNNE */);
	return !(w->val & ~HWCR_MC_WR_EN);
}

/* ---- machine checks (SDM vol. 3 15.3) ---- */

static unsigned mc_banks(const struct um_cpu *c)
{
	return um_min(c->msr.mcg_cap & 0xff, UM_MAX_MCE_BANKS);
}

static bool all_or_nothing(u64 val)
{
	return val == 0 || val == ~0ull;
}

static bool has_mcg_ctl(const struct um_cpu *c, u32 msr)
{
	return c->msr.mcg_cap & UM_MCG_CTL_P;
}

static bool mcg_ctl(struct msr_write *w)
{
	return has_mcg_ctl(w->c, w->msr) && all_or_nothing(w->val);
}

static bool has_bank(const struct um_cpu *c, u32 msr)
{
	return (msr - MSR_IA32_MC0_CTL) / 4 < mc_banks(c);
}

static bool mc_bank(struct msr_write *w)
{
	if (!has_bank(w->c, w->msr))
		return false;
	switch (w->n % 4) {
	case 0: /* CTL: some kernels clear bit 10 of bank 4, or bit 0, for errata of AMD processors
		 */
		return w->val == 0 || (w->val | BIT(10) | BIT(0)) == ~0ull;
	case 1: /* STATUS: guests may only clear it */
		return w->host || w->val == 0 || (w->c->msr.hwcr & HWCR_MC_WR_EN);
	}
	return true; /* ADDR, MISC */
}

static bool has_ctl2(const struct um_cpu *c, u32 msr)
{
	return (c->msr.mcg_cap & UM_MCG_CMCI_P) && msr - 0x280 < mc_banks(c);
}

static bool mc_ctl2(struct msr_write *w)
{
	return has_ctl2(w->c, w->msr) && !(w->val & ~(UM_MC_CTL2_CMCI_EN | 0x7fffull));
}

/* ---- rules for reads by the guest ---- */

static bool has_tsc_aux(const struct um_cpu *c, u32 msr)
{
	return um_cpu_has(c, UM_F_RDTSCP) || um_cpu_has(c, UM_F_RDPID);
}

static bool has_arch_cap(const struct um_cpu *c, u32 msr)
{
	return um_cpu_has(c, UM_F_ARCH_CAP);
}

static bool hidden(const struct um_cpu *c, u32 msr)
{
	return false;
}

static bool in_smm(const struct um_cpu *c, u32 msr)
{
	return c->smm;
}

/* ---- the table ---- */

#define NOWHERE	 0xffff /* no field: reads as the constant */
#define VCPU	 0xfffe /* the vCPU layer has it */
#define F(field) offsetof(struct um_cpu, field)

#define LIST 1 /* in KVM_GET_MSR_INDEX_LIST */
#define FEAT 2 /* in KVM_GET_MSR_FEATURE_INDEX_LIST */

/* X(first index, how many, where, constant, rule for writes, rule for the guest's reads, lists) */
#define MSR_ROWS(X)                                                                            \
	/* time and the APIC */                                                                \
	X(MSR_IA32_TSC, 1, VCPU, 0, NULL, NULL, LIST)                                          \
	X(MSR_IA32_TSC_ADJUST, 1, VCPU, 0, NULL, NULL, LIST)                                   \
	X(MSR_IA32_TSC_DEADLINE, 1, VCPU, 0, NULL, NULL, LIST)                                 \
	X(MSR_IA32_APICBASE, 1, VCPU, 0, NULL, NULL, 0)                                        \
	X(MSR_X2APIC_FIRST, 256, VCPU, 0, NULL, NULL, 0)                                       \
	/* paravirtual */                                                                      \
	X(MSR_KVM_WALL_CLOCK, 1, VCPU, 0, NULL, NULL, LIST)                                    \
	X(MSR_KVM_SYSTEM_TIME, 1, VCPU, 0, NULL, NULL, LIST)                                   \
	X(MSR_KVM_WALL_CLOCK_NEW, 1, VCPU, 0, NULL, NULL, LIST)                                \
	X(MSR_KVM_SYSTEM_TIME_NEW, 1, VCPU, 0, NULL, NULL, LIST)                               \
	X(MSR_KVM_STEAL_TIME, 1, VCPU, 0, NULL, NULL, LIST)                                    \
	X(MSR_KVM_PV_EOI_EN, 1, VCPU, 0, NULL, NULL, LIST)                                     \
	X(MSR_KVM_POLL_CONTROL, 1, VCPU, 0, NULL, NULL, LIST)                                  \
	/* system calls, segments, modes */                                                    \
	X(MSR_IA32_SYSENTER_CS, 1, F(msr.sysenter_cs), 0, low32, NULL, LIST)                   \
	X(MSR_IA32_SYSENTER_ESP, 1, F(msr.sysenter_esp), 0, canonical, NULL, LIST)             \
	X(MSR_IA32_SYSENTER_EIP, 1, F(msr.sysenter_eip), 0, canonical, NULL, LIST)             \
	X(MSR_STAR, 1, F(msr.star), 0, any, NULL, LIST)                                        \
	X(MSR_LSTAR, 1, F(msr.lstar), 0, canonical, NULL, LIST)                                \
	X(MSR_CSTAR, 1, F(msr.cstar), 0, canonical, NULL, LIST)                                \
	X(MSR_SFMASK, 1, F(msr.sfmask), 0, low32, NULL, LIST)                                  \
	X(MSR_KERNEL_GS_BASE, 1, F(msr.kernel_gs_base), 0, canonical, NULL, LIST)              \
	X(MSR_FS_BASE, 1, F(seg[UM_FS].base), 0, segment_base, NULL, 0)                        \
	X(MSR_GS_BASE, 1, F(seg[UM_GS].base), 0, segment_base, NULL, 0)                        \
	X(MSR_TSC_AUX, 1, F(msr.tsc_aux), 0, tsc_aux, has_tsc_aux, LIST)                       \
	X(MSR_EFER, 1, F(efer), 0, efer, NULL, 0)                                              \
	/* memory types */                                                                     \
	X(MSR_IA32_PAT, 1, F(msr.pat), 0, pat, NULL, LIST)                                     \
	X(MSR_IA32_MTRRCAP, 1, NOWHERE, MTRRCAP, never, NULL, 0)                               \
	X(MSR_IA32_MTRR_DEF_TYPE, 1, F(msr.mtrr_def_type), 0, mtrr_def_type, NULL, 0)          \
	X(MSR_IA32_MTRR_PHYSBASE0, 16, F(msr.mtrr_phys), 0, mtrr_phys, NULL, 0)                \
	X(MSR_IA32_MTRR_FIX64K_00000, 1, F(msr.mtrr_fixed[0]), 0, mtrr_fixed, NULL, 0)         \
	X(MSR_IA32_MTRR_FIX16K_80000, 2, F(msr.mtrr_fixed[1]), 0, mtrr_fixed, NULL, 0)         \
	X(MSR_IA32_MTRR_FIX4K_C0000, 8, F(msr.mtrr_fixed[3]), 0, mtrr_fixed, NULL, 0)          \
	/* machine checks */                                                                   \
	X(MSR_IA32_P5_MC_ADDR, 2, NOWHERE, 0, never, NULL, 0)                                  \
	X(MSR_IA32_MCG_CAP, 1, F(msr.mcg_cap), 0, never, NULL, 0)                              \
	X(MSR_IA32_MCG_STATUS, 1, F(msr.mcg_status), 0, any, NULL, LIST)                       \
	X(MSR_IA32_MCG_CTL, 1, F(msr.mcg_ctl), 0, mcg_ctl, has_mcg_ctl, LIST)                  \
	X(0x280, UM_MAX_MCE_BANKS, F(msr.mc_ctl2), 0, mc_ctl2, has_ctl2, 0)                    \
	X(MSR_IA32_MC0_CTL, UM_MAX_MCE_BANKS * 4, F(msr.mc), 0, mc_bank, has_bank, 0)          \
	/* what the processor is and can be told */                                            \
	X(MSR_IA32_PLATFORM_ID, 1, NOWHERE, 0, never, NULL, 0)                                 \
	X(0x2a /* EBL_CR_POWERON */, 1, NOWHERE, 0, zero, NULL, 0)                             \
	X(0x34 /* SMI_COUNT */, 1, F(msr.smi_count), 0, host_only, NULL, LIST)                 \
	X(MSR_IA32_FEAT_CTL, 1, F(msr.feat_ctl), 0, feat_ctl, NULL, LIST)                      \
	X(0x79 /* BIOS_UPDT_TRIG */, 1, NOWHERE, 0, ignored, hidden, 0)                        \
	X(MSR_IA32_UCODE_REV, 1, F(msr.ucode_rev), 0, ucode_rev, NULL, LIST | FEAT)            \
	X(MSR_IA32_SMBASE, 1, F(msr.smbase), 0, host_only, in_smm, LIST)                       \
	X(MSR_PLATFORM_INFO, 1, F(msr.platform_info), 0, platform_info, NULL, LIST)            \
	X(0xcd /* FSB_FREQ */, 1, NOWHERE, 3, never, NULL, 0)                                  \
	X(MSR_IA32_ARCH_CAPABILITIES, 1, F(msr.arch_capabilities), 0, host_only, has_arch_cap, \
	  LIST | FEAT)                                                                         \
	X(0x11e /* BBL_CR_CTL3 */, 1, NOWHERE, 0xbe702111, ignored, NULL, 0)                   \
	X(0x140 /* MISC_FEATURES_ENABLES */, 1, F(msr.misc_features), 0, zero, NULL, LIST)     \
	X(MSR_IA32_PERF_STATUS, 1, NOWHERE, 1000 | 4ull << 40, never, NULL, 0)                 \
	X(0x199 /* PERF_CTL */, 1, NOWHERE, 0, ignored, NULL, 0)                               \
	X(MSR_IA32_MISC_ENABLE, 1, F(msr.misc_enable), 0, misc_enable, NULL, LIST)             \
	X(MSR_IA32_DEBUGCTL, 1, F(msr.debugctl), 0, debugctl, NULL, 0)                         \
	X(0x1db /* LASTBRANCHFROM, TO, LASTINTFROM, TO */, 4, NOWHERE, 0, never, NULL, 0)      \
	X(0x1fc /* POWER_CTL */, 1, F(msr.power_ctl), 0, any, NULL, LIST)                      \
	X(0x2c /* EBC_FREQUENCY_ID */, 1, NOWHERE, 1 << 24, never, NULL, 0)                    \
	X(0x606 /* RAPL_POWER_UNIT */, 1, NOWHERE, 0, never, NULL, 0)                          \
	X(0x611 /* PKG_ENERGY_STATUS */, 1, NOWHERE, 0, never, NULL, 0)                        \
	X(0x619 /* DRAM_ENERGY_STATUS */, 1, NOWHERE, 0, never, NULL, 0)                       \
	X(0x639 /* PP0_ENERGY_STATUS */, 1, NOWHERE, 0, never, NULL, 0)                        \
	X(0x641 /* PP1_ENERGY_STATUS */, 1, NOWHERE, 0, never, NULL, 0)                        \
	/* no PMU: counters of old families read as zero and take writes */                    \
	X(MSR_IA32_PERF_CAP, 1, NOWHERE, 0, host_zero, hidden, LIST | FEAT)                    \
	X(0xc1 /* PERFCTR0, 1 */, 2, NOWHERE, 0, ignored, NULL, 0)                             \
	X(0x186 /* EVENTSEL0, 1 */, 2, NOWHERE, 0, ignored, NULL, 0)                           \
	X(0xc0010000 /* PERF_CTL0-3, PERF_CTR0-3 */, 8, NOWHERE, 0, ignored, NULL, 0)          \
	/* AMD's, which kernels touch by family */                                             \
	X(0xc0010010 /* SYSCFG */, 1, NOWHERE, 0, never, NULL, 0)                              \
	X(0xc0010015 /* HWCR */, 1, F(msr.hwcr), 0, hwcr, NULL, LIST)                          \
	X(0xc001001f /* NB_CFG */, 1, NOWHERE, 0, ignored, NULL, 0)                            \
	X(0xc0010020 /* PATCH_LOADER */, 1, NOWHERE, 0, ignored, hidden, 0)                    \
	X(0xc0010055 /* INT_PENDING_MSG */, 1, NOWHERE, 0, never, NULL, 0)                     \
	X(0xc0010058 /* MMIO_CONF_BASE */, 1, NOWHERE, 0, zero, NULL, 0)                       \
	X(0xc0010112 /* TSEG_ADDR, TSEG_MASK */, 2, NOWHERE, 0, never, NULL, 0)                \
	X(0xc0011022 /* DC_CFG */, 1, NOWHERE, 0, ignored, NULL, 0)                            \
	X(0xc001102a /* BU_CFG2 */, 1, NOWHERE, 0, ignored, NULL, 0)                           \
	/* Hyper-V's; which are in the list is as in KVM: VMMs take the others from these */   \
	X(HV_MSR_GUEST_OS_ID, 1, VCPU, 0, NULL, NULL, LIST)                                    \
	X(HV_MSR_HYPERCALL, 1, VCPU, 0, NULL, NULL, LIST)                                      \
	X(HV_MSR_VP_INDEX, 1, VCPU, 0, NULL, NULL, LIST)                                       \
	X(HV_MSR_RESET, 1, VCPU, 0, NULL, NULL, LIST)                                          \
	X(HV_MSR_VP_RUNTIME, 1, VCPU, 0, NULL, NULL, LIST)                                     \
	X(HV_MSR_TIME_REF_COUNT, 1, VCPU, 0, NULL, NULL, LIST)                                 \
	X(HV_MSR_REFERENCE_TSC, 1, VCPU, 0, NULL, NULL, LIST)                                  \
	X(HV_MSR_TSC_FREQUENCY, 1, VCPU, 0, NULL, NULL, LIST)                                  \
	X(HV_MSR_APIC_FREQUENCY, 1, VCPU, 0, NULL, NULL, LIST)                                 \
	X(HV_MSR_EOI /* ICR, TPR */, 3, VCPU, 0, NULL, NULL, 0)                                \
	X(HV_MSR_VP_ASSIST_PAGE, 1, VCPU, 0, NULL, NULL, LIST)                                 \
	X(HV_MSR_SCONTROL, 1, VCPU, 0, NULL, NULL, LIST)                                       \
	X(HV_MSR_SVERSION /* SIEFP, SIMP, EOM */, 4, VCPU, 0, NULL, NULL, 0)                   \
	X(HV_MSR_SINT0, 16, VCPU, 0, NULL, NULL, 0)                                            \
	X(HV_MSR_STIMER0_CONFIG, 1, VCPU, 0, NULL, NULL, LIST)                                 \
	X(HV_MSR_STIMER0_CONFIG + 1, 7, VCPU, 0, NULL, NULL, 0)                                \
	X(HV_MSR_SYNDBG_CONTROL, 1, VCPU, 0, NULL, NULL, LIST)                                 \
	X(HV_MSR_SYNDBG_STATUS, 1, VCPU, 0, NULL, NULL, LIST)                                  \
	X(HV_MSR_SYNDBG_SEND_BUFFER, 1, VCPU, 0, NULL, NULL, LIST)                             \
	X(HV_MSR_SYNDBG_RECV_BUFFER, 1, VCPU, 0, NULL, NULL, LIST)                             \
	X(HV_MSR_SYNDBG_PENDING_BUFFER, 1, VCPU, 0, NULL, NULL, LIST)                          \
	X(HV_MSR_SYNDBG_OPTIONS, 1, VCPU, 0, NULL, NULL, LIST)                                 \
	X(HV_MSR_CRASH_P0, 1, VCPU, 0, NULL, NULL, LIST)                                       \
	X(HV_MSR_CRASH_P0 + 1, 1, VCPU, 0, NULL, NULL, LIST)                                   \
	X(HV_MSR_CRASH_P0 + 2, 1, VCPU, 0, NULL, NULL, LIST)                                   \
	X(HV_MSR_CRASH_P0 + 3, 1, VCPU, 0, NULL, NULL, LIST)                                   \
	X(HV_MSR_CRASH_P4, 1, VCPU, 0, NULL, NULL, LIST)                                       \
	X(HV_MSR_CRASH_CTL, 1, VCPU, 0, NULL, NULL, LIST)                                      \
	X(HV_MSR_REENLIGHTENMENT_CONTROL, 1, VCPU, 0, NULL, NULL, LIST)                        \
	X(HV_MSR_TSC_EMULATION_CONTROL, 1, VCPU, 0, NULL, NULL, LIST)                          \
	X(HV_MSR_TSC_EMULATION_STATUS, 1, VCPU, 0, NULL, NULL, LIST)

struct row {
	u32 first, count;
	u16 where;
	u8 lists;
	u64 constant;
	write_rule write;
	read_rule read;
};

_Static_assert(sizeof(struct um_cpu) < VCPU, "offsets fit in struct row");

static const struct row rows[] = {
#define X(index, n, where_, constant_, write_, read_, lists_) \
	{ .first = index,                                     \
	  .count = n,                                         \
	  .where = where_,                                    \
	  .lists = lists_,                                    \
	  .constant = constant_,                              \
	  .write = write_,                                    \
	  .read = read_ },
	MSR_ROWS(X)
#undef X
};

static const struct row *find(u32 msr)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (msr - rows[i].first < rows[i].count)
			return &rows[i];
	}
	return NULL;
}

bool um_msr_exists(u32 msr)
{
	return find(msr);
}

static u64 *field(const struct um_cpu *c, const struct row *r, u32 msr)
{
	return (u64 *)((char *)(uintptr_t)c + r->where) + (msr - r->first);
}

enum um_msr_result um_msr_get(const struct um_cpu *c, u32 msr, bool host, u64 *val)
{
	const struct row *r = find(msr);

	if (!r)
		return UM_MSR_BAD;
	if (r->where == VCPU)
		return UM_MSR_ELSEWHERE;
	/*
	 * What CPUID hides from the guest the VMM can still read.  Machine-check registers that
	 * don't exist it can't, but for MCG_CTL, which is in the list.
	 */
	if (r->read && !r->read(c, msr) && (!host || r->read == has_bank || r->read == has_ctl2))
		return UM_MSR_BAD;
	*val = r->where == NOWHERE ? r->constant : *field(c, r, msr);
	return UM_MSR_OK;
}

enum um_msr_result um_msr_set(struct um_cpu *c, u32 msr, bool host, u64 val, unsigned *effects)
{
	const struct row *r = find(msr);
	struct msr_write w = { .c = c, .msr = msr, .host = host, .val = val };

	if (!r)
		return UM_MSR_BAD;
	if (r->where == VCPU)
		return UM_MSR_ELSEWHERE;
	w.n = msr - r->first;
	if (r->where != NOWHERE)
		w.old = *field(c, r, msr);
	/* The VMM may always write back what it read. */
	if (!r->write(&w) && !(host && r->where != NOWHERE && val == w.old))
		return UM_MSR_BAD;
	if (r->where != NOWHERE && !w.drop)
		*field(c, r, msr) = w.val;
	*effects |= w.effects;
	return UM_MSR_OK;
}

static unsigned list_rows(u8 which, u32 *list, unsigned max)
{
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!(rows[i].lists & which))
			continue;
		if (n < max)
			list[n] = rows[i].first;
		n++;
	}
	return n;
}

unsigned um_msr_index_list(u32 *list, unsigned max)
{
	return list_rows(LIST, list, max);
}

unsigned um_msr_feature_list(u32 *list, unsigned max)
{
	return list_rows(FEAT, list, max);
}

static u64 default_ucode_rev(void)
{
	u32 max, b, c, d;

	/* What KVM says: a revision that kernels don't find too old. */
	__cpuid(0, max, b, c, d);
	return b == signature_AMD_ebx ? 0x01000065 : 0x100000000ull;
}

bool um_msr_feature(u32 msr, u64 *val)
{
	switch (msr) {
	case MSR_IA32_ARCH_CAPABILITIES:
		*val = ARCH_CAP;
		return true;
	case MSR_IA32_PERF_CAP:
		*val = 0;
		return true;
	case MSR_IA32_UCODE_REV:
		*val = default_ucode_rev();
		return true;
	}
	return false;
}

int um_msr_setup_mce(struct um_cpu *c, u64 mcg_cap)
{
	unsigned banks = mcg_cap & 0xff;

	if (!banks || banks > UM_MAX_MCE_BANKS || (mcg_cap & ~(UM_MCG_CAP_SUPPORTED | 0xff)))
		return -EINVAL;
	c->msr.mcg_cap = mcg_cap;
	if (mcg_cap & UM_MCG_CTL_P)
		c->msr.mcg_ctl = ~0ull;
	for (unsigned i = 0; i < banks; i++)
		c->msr.mc[i][0] = ~0ull;
	memset(c->msr.mc_ctl2, 0, sizeof(c->msr.mc_ctl2));
	return 0;
}

void um_msr_reset(struct um_cpu *c)
{
	u64 mcg_cap = c->msr.mcg_cap ? c->msr.mcg_cap : UM_MAX_MCE_BANKS;

	memset(&c->msr, 0, sizeof(c->msr));
	c->msr.mcg_cap = mcg_cap;
	c->msr.pat = PAT_DEFAULT;
	c->msr.misc_enable = MISC_FAST_STR | MISC_NO_BTS | MISC_NO_PEBS;
	c->msr.arch_capabilities = ARCH_CAP;
	c->msr.ucode_rev = default_ucode_rev();
	c->msr.smbase = 0x30000;
}

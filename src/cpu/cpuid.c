// SPDX-License-Identifier: MIT
/*
 * CPUID (SDM vol. 2, CPUID; KVM's own leaves: the kernel's Documentation/virt/kvm/x86/cpuid.rst).
 *
 * What can be offered: the host's leaves, filtered.  Feature registers are built bit by bit from
 * UM_FEATURES; registers that describe (caches, names, sizes) pass; whole leaves that describe what
 * is not here (PMU, trace, enclaves, host topology) read as zero.
 *
 * What the guest sees: the VMM's entries, but for bits that follow the guest's own registers, and
 * with the look-up rules of an Intel processor for leaves that do not exist.
 */
#include "cpu/cpuid.h"

#include <asm/kvm_para.h>
#include <cpuid.h>
#include <errno.h>
#include <string.h>

#include "cpu/hostid.h"
#include "cpu/xsave.h"

#define SIGNATURE_HYGON_EBX 0x6f677948 /* "Hygo" of HygonGenuine */

static const struct um_feature_info features[UM_F_MAX] = {
#define X(name, leaf, sub, reg, bit, policy, why) \
	[UM_F_##name] = { #name, why, leaf, sub, UM_##reg, bit, UM_FEATURE_##policy },
	UM_FEATURES(X)
#undef X
};

const struct um_feature_info *um_feature_info(enum um_feature f)
{
	return &features[f];
}

static bool is_feature_register(u32 leaf, u32 subleaf, unsigned reg)
{
	for (unsigned f = 0; f < UM_F_MAX; f++) {
		if (features[f].leaf == leaf && features[f].subleaf == subleaf &&
		    features[f].reg == reg)
			return true;
	}
	return false;
}

/* The bits of a feature register that can be offered, of which the host has @host. */
static u32 offered_bits(u32 leaf, u32 subleaf, unsigned reg, u32 host)
{
	u32 bits = 0;

	for (unsigned f = 0; f < UM_F_MAX; f++) {
		const struct um_feature_info *i = &features[f];

		if (i->leaf != leaf || i->subleaf != subleaf || i->reg != reg)
			continue;
		if (i->policy == UM_FEATURE_OURS)
			bits |= 1u << i->bit;
		else if (i->policy == UM_FEATURE_HOST)
			bits |= host & 1u << i->bit;
	}
	return bits;
}

u64 um_supported_xcr0(void)
{
	return um_xsave_layout()->supported;
}

u64 um_supported_cr4(void)
{
	u64 cr4 = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
		  CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE |
		  CR4_SMEP | CR4_SMAP;

	if (um_host_has_feature(UM_F_XSAVE))
		cr4 |= CR4_OSXSAVE;
	if (um_host_has_feature(UM_F_LA57))
		cr4 |= CR4_LA57;
	if (um_host_has_feature(UM_F_PKU))
		cr4 |= CR4_PKE;
	return cr4;
}

u64 um_supported_efer(void)
{
	return EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
}

/* ---- what can be offered ---- */

struct table {
	struct kvm_cpuid_entry2 *e;
	unsigned n, max;
};

static void add(struct table *t, u32 leaf, u32 subleaf, bool index_significant, const u32 regs[4])
{
	if (t->n < t->max) {
		t->e[t->n] = (struct kvm_cpuid_entry2){
			.function = leaf,
			.index = subleaf,
			.flags = index_significant ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = regs[UM_EAX],
			.ebx = regs[UM_EBX],
			.ecx = regs[UM_ECX],
			.edx = regs[UM_EDX],
		};
	}
	t->n++;
}

/* Feature registers filtered, the others as the host has them. */
static void filtered(u32 leaf, u32 subleaf, u32 regs[4])
{
	um_host_cpuid(leaf, subleaf, regs);
	for (unsigned r = UM_EAX; r <= UM_EDX; r++) {
		if (is_feature_register(leaf, subleaf, r))
			regs[r] = offered_bits(leaf, subleaf, r, regs[r]);
	}
}

static void add_caches(struct table *t)
{
	u32 regs[4];

	for (unsigned i = 0; i < 16; i++) {
		um_host_cpuid(4, i, regs);
		if (!(regs[UM_EAX] & 0x1f))
			break;
		/* Who shares the cache is topology, which is the VMM's to describe. */
		regs[UM_EAX] &= 0x3fff;
		add(t, 4, i, true, regs);
	}
}

static void add_xsave(struct table *t)
{
	u64 xcr0 = um_supported_xcr0();
	u32 regs[4];

	if (!um_host_has_feature(UM_F_XSAVE))
		return;
	regs[UM_EAX] = (u32)xcr0;
	regs[UM_EBX] = um_xsave_image_size(xcr0, false);
	regs[UM_ECX] = regs[UM_EBX];
	regs[UM_EDX] = (u32)(xcr0 >> 32);
	add(t, 0xd, 0, true, regs);
	filtered(0xd, 1, regs);
	regs[UM_EBX] = regs[UM_EAX] & 1u << features[UM_F_XSAVEC].bit
			       ? um_xsave_image_size(xcr0, true)
			       : 0;
	regs[UM_ECX] = 0;
	regs[UM_EDX] = 0;
	add(t, 0xd, 1, true, regs);
	for (unsigned i = 2; i < 63; i++) {
		if (!(xcr0 & BIT(i)))
			continue;
		um_host_cpuid(0xd, i, regs);
		regs[UM_ECX] &=
			2; /* aligned in the compacted format; never a supervisor component */
		regs[UM_EDX] = 0;
		add(t, 0xd, i, true, regs);
	}
}

static void add_basic(struct table *t, u32 leaf)
{
	static const u32 zero[4];
	u32 regs[4];

	switch (leaf) {
	case 0:
		um_host_cpuid(0, 0, regs);
		regs[UM_EAX] = um_min(regs[UM_EAX], 0x1fu);
		add(t, 0, 0, false, regs);
		break;
	case 1:
		filtered(1, 0, regs);
		regs[UM_EBX] &= 0xff00; /* CLFLUSH line; APIC id and count are the VMM's */
		add(t, 1, 0, false, regs);
		break;
	case 2:
		um_host_cpuid(2, 0, regs);
		add(t, 2, 0, false, regs);
		break;
	case 4:
		add_caches(t);
		break;
	case 6:
		filtered(6, 0, regs);
		regs[UM_EBX] = regs[UM_ECX] = regs[UM_EDX] = 0;
		add(t, 6, 0, false, regs);
		break;
	case 7:
		filtered(7, 0, regs);
		regs[UM_EAX] = 1; /* subleaf 1 is the last */
		add(t, 7, 0, true, regs);
		filtered(7, 1, regs);
		regs[UM_EBX] = regs[UM_ECX] = regs[UM_EDX] = 0;
		add(t, 7, 1, true, regs);
		break;
	case 0xb:
	case 0x1f:
		add(t, leaf, 0, true, zero);
		break;
	case 0xd:
		add_xsave(t);
		break;
	default:
		/*
		 * 3 serial number, 5 MONITOR, 9 DCA, 0xa PMU, 0xf/0x10 resource control, 0x12 SGX,
		 * 0x14 trace, 0x15/0x16 frequencies (by KVM_GET_TSC_KHZ), 0x17-0x1e: none here.
		 */
		add(t, leaf, 0, false, zero);
	}
}

static void add_kvm(struct table *t)
{
	u32 regs[4] = { KVM_CPUID_FEATURES };

	memcpy(&regs[UM_EBX], "KVMKVMKVM\0\0\0", 12);
	add(t, KVM_CPUID_SIGNATURE, 0, false, regs);
	memset(regs, 0, sizeof(regs));
	regs[UM_EAX] = offered_bits(KVM_CPUID_FEATURES, 0, UM_EAX, 0);
	add(t, KVM_CPUID_FEATURES, 0, false, regs);
}

static void add_extended(struct table *t, u32 leaf)
{
	static const u32 zero[4];
	u32 regs[4];

	switch (leaf) {
	case 0x80000000:
		um_host_cpuid(leaf, 0, regs);
		regs[UM_EAX] = um_min(regs[UM_EAX], 0x80000008u);
		add(t, leaf, 0, false, regs);
		break;
	case 0x80000001:
		filtered(leaf, 0, regs);
		regs[UM_EBX] = 0;
		add(t, leaf, 0, false, regs);
		break;
	case 0x80000002: /* the name of the processor */
	case 0x80000003:
	case 0x80000004:
	case 0x80000005: /* caches */
	case 0x80000006:
		um_host_cpuid(leaf, 0, regs);
		add(t, leaf, 0, false, regs);
		break;
	case 0x80000007:
		filtered(leaf, 0, regs);
		regs[UM_EAX] = regs[UM_EBX] = regs[UM_ECX] = 0;
		add(t, leaf, 0, false, regs);
		break;
	case 0x80000008:
		filtered(leaf, 0, regs);
		/* Address sizes; the number of cores is topology. */
		regs[UM_EAX] = um_min(regs[UM_EAX] & 0xff, 52u) |
			       (um_supported_cr4() & CR4_LA57 ? 57 : 48) << 8;
		regs[UM_ECX] = regs[UM_EDX] = 0;
		add(t, leaf, 0, false, regs);
		break;
	default:
		add(t, leaf, 0, false, zero);
	}
}

int um_cpuid_supported(struct kvm_cpuid_entry2 *e, unsigned max)
{
	struct table t = { .e = e, .max = max };
	u32 top;

	top = um_min(um_host_max_leaf(0), 0x1fu);
	for (u32 leaf = 0; leaf <= top; leaf++)
		add_basic(&t, leaf);
	add_kvm(&t);
	top = um_min(um_host_max_leaf(0x80000000), 0x80000008u);
	for (u32 leaf = 0x80000000; leaf <= top; leaf++)
		add_extended(&t, leaf);
	return t.n > max ? -E2BIG : (int)t.n;
}

int um_cpuid_emulated(struct kvm_cpuid_entry2 *e, unsigned max)
{
	struct table t = { .e = e, .max = max };
	u32 regs[4] = { 7 };

	/* The engine executes these in C, whatever the host has. */
	add(&t, 0, 0, false, regs);
	memset(regs, 0, sizeof(regs));
	regs[UM_ECX] = 1u << features[UM_F_MOVBE].bit;
	add(&t, 1, 0, false, regs);
	regs[UM_ECX] = 1u << features[UM_F_RDPID].bit;
	add(&t, 7, 0, true, regs);
	return t.n > max ? -E2BIG : (int)t.n;
}

/* ---- what the VMM chose ---- */

static const struct um_cpuid_entry *find(const struct um_cpu *c, u32 leaf, u32 subleaf)
{
	for (unsigned i = 0; i < c->ncpuid; i++) {
		const struct um_cpuid_entry *e = &c->cpuid[i];

		if (e->function == leaf && (!e->index_significant || e->index == subleaf))
			return e;
	}
	return NULL;
}

static u32 entry_reg(const struct um_cpuid_entry *e, unsigned reg)
{
	const u32 regs[4] = { e->eax, e->ebx, e->ecx, e->edx };

	return regs[reg];
}

/* CR4 bits that need a feature (SDM vol. 3 2.5). */
static const struct {
	u64 cr4;
	enum um_feature feature;
} cr4_needs[] = {
	{ CR4_OSXSAVE, UM_F_XSAVE },	 { CR4_SMEP, UM_F_SMEP },  { CR4_SMAP, UM_F_SMAP },
	{ CR4_FSGSBASE, UM_F_FSGSBASE }, { CR4_PKE, UM_F_PKU },	   { CR4_LA57, UM_F_LA57 },
	{ CR4_UMIP, UM_F_UMIP },	 { CR4_PCIDE, UM_F_PCID },
};

/*
 * Where the VMM has put KVM's @leaf: the class is told by its signature, as the first one may be another
 * interface's (Hyper-V's).  0: nowhere.
 */
static u32 kvm_leaf(const struct um_cpu *c, u32 leaf)
{
	for (u32 base = KVM_CPUID_SIGNATURE; base < KVM_CPUID_SIGNATURE + 0x10000; base += 0x100) {
		const struct um_cpuid_entry *e = find(c, base, 0);

		if (e && !memcmp(&e->ebx, "KVMK", 4) && !memcmp(&e->ecx, "VMKV", 4) &&
		    !memcmp(&e->edx, "M\0\0\0", 4))
			return base + (leaf - KVM_CPUID_SIGNATURE);
	}
	return 0;
}

static void derive(struct um_cpu *c)
{
	u32 kvm_features = kvm_leaf(c, KVM_CPUID_FEATURES);
	const struct um_cpuid_entry *e;

	e = find(c, 0, 0);
	if (!e)
		c->vendor = UM_VENDOR_UNKNOWN;
	else if (e->ebx == signature_AMD_ebx || e->ebx == SIGNATURE_HYGON_EBX)
		c->vendor = UM_VENDOR_AMD;
	else
		c->vendor = UM_VENDOR_INTEL;
	memset(c->features, 0, sizeof(c->features));
	for (unsigned f = 0; f < UM_F_MAX; f++) {
		u32 leaf = features[f].leaf;

		if (leaf == KVM_CPUID_FEATURES)
			leaf = kvm_features;
		e = leaf ? find(c, leaf, features[f].subleaf) : NULL; /* none has leaf 0 */
		if (e && entry_reg(e, features[f].reg) >> features[f].bit & 1)
			c->features[f / 64] |= 1ull << (f % 64);
	}

	c->cr4_allowed = um_supported_cr4();
	for (unsigned i = 0; i < ARRAY_SIZE(cr4_needs); i++) {
		if (!um_cpu_has(c, cr4_needs[i].feature))
			c->cr4_allowed &= ~cr4_needs[i].cr4;
	}
	c->efer_allowed = EFER_SCE;
	if (um_cpu_has(c, UM_F_LM))
		c->efer_allowed |= EFER_LME | EFER_LMA;
	if (um_cpu_has(c, UM_F_NX))
		c->efer_allowed |= EFER_NXE;
	e = find(c, 0xd, 0);
	c->xcr0_allowed = e ? um_supported_xcr0() & ((u64)e->edx << 32 | e->eax) : 0;

	/* Without the leaf, the width of processors before it (SDM vol. 3 4.1.4). */
	e = find(c, 0x80000000, 0);
	c->maxphyaddr = 36;
	if (e && e->eax >= 0x80000008 && (e = find(c, 0x80000008, 0)))
		c->maxphyaddr = (u8)um_min(um_max(e->eax & 0xff, 32u), 52u);
}

void um_cpuid_init(struct um_cpu *c)
{
	c->ncpuid = 0;
	c->cpuid_set = false;
	derive(c);
	c->cr4_allowed = um_supported_cr4();
	c->efer_allowed = um_supported_efer();
}

int um_cpuid_set(struct um_cpu *c, const struct kvm_cpuid_entry2 *e, unsigned n)
{
	if (n > UM_MAX_CPUID_ENTRIES)
		return -E2BIG;
	for (unsigned i = 0; i < n; i++) {
		unsigned vaddr_bits = e[i].eax >> 8 & 0xff;

		if (e[i].function == 0x80000008 && vaddr_bits != 0 && vaddr_bits != 48 &&
		    vaddr_bits != 57)
			return -EINVAL;
	}
	for (unsigned i = 0; i < n; i++) {
		c->cpuid[i] = (struct um_cpuid_entry){
			.function = e[i].function,
			.index = e[i].index,
			.index_significant = e[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = e[i].eax,
			.ebx = e[i].ebx,
			.ecx = e[i].ecx,
			.edx = e[i].edx,
		};
	}
	c->ncpuid = n;
	c->cpuid_set = true;
	derive(c);
	return 0;
}

/* ---- what the guest sees ---- */

static void put_bit(u32 *reg, enum um_feature f, bool on)
{
	*reg = (*reg & ~(1u << features[f].bit)) | (u32)on << features[f].bit;
}

/* Bits that follow the guest's registers. */
static void dynamic(const struct um_cpu *c, u32 leaf, u32 subleaf, u32 regs[4])
{
	switch (leaf) {
	case 1:
		if (um_cpu_has(c, UM_F_XSAVE))
			put_bit(&regs[UM_ECX], UM_F_OSXSAVE, c->cr4 & CR4_OSXSAVE);
		if (c->mwait_by_msr)
			put_bit(&regs[UM_ECX], UM_F_MONITOR, um_cpu_has_mwait(c));
		put_bit(&regs[UM_EDX], UM_F_APIC, um_cpu_has(c, UM_F_APIC) && c->apic_enabled);
		break;
	case 7:
		if (subleaf == 0 && um_cpu_has(c, UM_F_PKU))
			put_bit(&regs[UM_ECX], UM_F_OSPKE, c->cr4 & CR4_PKE);
		break;
	case 0xd:
		if (subleaf == 0)
			regs[UM_EBX] = um_xsave_image_size(c->xcr0, false);
		else if (subleaf == 1 && um_cpu_has(c, UM_F_XSAVEC))
			regs[UM_EBX] = um_xsave_image_size(c->xcr0, true);
		break;
	}
}

static void read_entry(const struct um_cpu *c, const struct um_cpuid_entry *e, u32 regs[4])
{
	for (unsigned r = UM_EAX; r <= UM_EDX; r++)
		regs[r] = entry_reg(e, r);
	dynamic(c, e->function, e->index_significant ? e->index : 0, regs);
}

int um_cpuid_get(const struct um_cpu *c, struct kvm_cpuid_entry2 *e, unsigned max)
{
	struct table t = { .e = e, .max = max };

	for (unsigned i = 0; i < c->ncpuid; i++) {
		u32 regs[4];

		read_entry(c, &c->cpuid[i], regs);
		add(&t, c->cpuid[i].function, c->cpuid[i].index, c->cpuid[i].index_significant,
		    regs);
	}
	return t.n > max ? -E2BIG : (int)t.n;
}

bool um_cpuid_equal(const struct um_cpu *c, const struct kvm_cpuid_entry2 *a,
		    const struct kvm_cpuid_entry2 *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		u32 ra[4] = { a[i].eax, a[i].ebx, a[i].ecx, a[i].edx };
		u32 rb[4] = { b[i].eax, b[i].ebx, b[i].ecx, b[i].edx };

		if (a[i].function != b[i].function || a[i].index != b[i].index ||
		    a[i].flags != b[i].flags)
			return false;
		dynamic(c, a[i].function, a[i].index, ra);
		dynamic(c, b[i].function, b[i].index, rb);
		if (memcmp(ra, rb, sizeof(ra)))
			return false;
	}
	return true;
}

/*
 * A leaf above the highest of its class gives the data of the highest basic leaf, on Intel
 * processors (SDM vol. 2, CPUID, "INPUT EAX"); AMD's give zeros.  The hypervisor's classes are 256
 * leaves each.
 */
static const struct um_cpuid_entry *out_of_range(const struct um_cpu *c, u32 leaf, u32 subleaf)
{
	const struct um_cpuid_entry *basic = find(c, 0, 0), *class;

	if (!basic || c->vendor == UM_VENDOR_AMD)
		return NULL;
	if (leaf >= 0x40000000 && leaf <= 0x4fffffff)
		class = find(c, leaf & 0xffffff00, 0);
	else if (leaf >= 0xc0000000)
		class = find(c, 0xc0000000, 0);
	else
		class = find(c, leaf & 0x80000000, 0);
	if (class && leaf <= class->eax)
		return NULL;
	return find(c, basic->eax, subleaf);
}

void um_cpuid(const struct um_cpu *c, u32 eax, u32 ecx, u32 out[4])
{
	const struct um_cpuid_entry *e = find(c, eax, ecx);

	memset(out, 0, 4 * sizeof(out[0]));
	if (!e)
		e = out_of_range(c, eax, ecx);
	if (e) {
		read_entry(c, e, out);
	} else if (eax == 0xb || eax == 0x1f) {
		/* Beyond the last level: the level asked for, and the x2APIC id all the same. */
		e = find(c, eax, 1);
		if (e) {
			out[UM_ECX] = ecx & 0xff;
			out[UM_EDX] = e->edx;
		}
	}
}

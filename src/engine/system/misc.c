// SPDX-License-Identifier: MIT
/*
 * The remaining system instructions, each a few lines: interrupt flag, AC, HLT, waiting, time,
 * CPUID, MSRs, caches, hypercalls.  SDM vol. 2 under their names.
 */
#include "cpu/cpuid.h"
#include "engine/system/system.h"

/* ---- IF, VIF ---- */

/* Which flag CLI and STI work on here: IF, VIF (vm86 with VME; PVI at CPL 3), or none: #GP(0). */
static u64 interrupt_flag(const struct um_cpu *c)
{
	if (!(c->cr0 & CR0_PE))
		return RFLAGS_IF;
	if (c->rflags & RFLAGS_VM) {
		if (um_sys_iopl(c) == 3)
			return RFLAGS_IF;
		return c->cr4 & CR4_VME ? RFLAGS_VIF : 0;
	}
	if (c->cpl <= um_sys_iopl(c))
		return RFLAGS_IF;
	return c->cpl == 3 && (c->cr4 & CR4_PVI) ? RFLAGS_VIF : 0;
}

const struct um_insn *um_sysop_cli(struct um_exec *x, const struct um_insn *i)
{
	u64 flag = interrupt_flag(&x->cpu);

	if (!flag)
		return um_sys_stop_gp0(x, i);
	x->cpu.rflags &= ~flag;
	return um_end(x, i);
}

const struct um_insn *um_sysop_sti(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 flag = interrupt_flag(c);

	if (!flag || (flag == RFLAGS_VIF && (c->rflags & RFLAGS_VIP)))
		return um_sys_stop_gp0(x, i);
	if (flag == RFLAGS_IF && !(c->rflags & RFLAGS_IF))
		um_sys_shadow(x, UM_SHADOW_STI);
	c->rflags |= flag;
	return um_end(x, i);
}

static const struct um_insn *set_ac(struct um_exec *x, const struct um_insn *i, bool ac)
{
	struct um_cpu *c = &x->cpu;

	if (!um_cpu_has(c, UM_F_SMAP) || c->cpl)
		return um_sys_stop_ud(x, i);
	c->rflags = ac ? c->rflags | RFLAGS_AC : c->rflags & ~RFLAGS_AC;
	um_sync_priv(x);
	return um_end(x, i);
}

const struct um_insn *um_sysop_stac(struct um_exec *x, const struct um_insn *i)
{
	return set_ac(x, i, true);
}

const struct um_insn *um_sysop_clac(struct um_exec *x, const struct um_insn *i)
{
	return set_ac(x, i, false);
}

/* ---- waiting ---- */

const struct um_insn *um_sysop_hlt(struct um_exec *x, const struct um_insn *i)
{
	if (x->cpu.cpl)
		return um_sys_stop_gp0(x, i);
	return um_sys_exit(x, i, UM_EXIT_HLT);
}

const struct um_insn *um_sysop_monitor(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	gva_t gva;
	u8 byte;

	if (c->cpl)
		return um_sys_stop_ud(x, i);
	if (!um_cpu_has_mwait(c))
		return x->monitor_is_nop ? um_end(x, i) : um_sys_stop_ud(x, i);
	if ((u32)c->gpr[UM_RCX])
		return um_sys_stop_gp0(x, i);
	/* Checked like a load of a byte; MWAIT waits for any event, so no address is armed. */
	if (!um_linear(x, i->seg, um_trunc(c->gpr[UM_RAX], i->asz), 1, UM_READ, &gva) ||
	    !um_lin_read(x, gva, &byte, 1))
		return um_stop(x, i);
	return um_end(x, i);
}

const struct um_insn *um_sysop_mwait(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;

	if (c->cpl)
		return um_sys_stop_ud(x, i);
	if (!um_cpu_has_mwait(c))
		return x->monitor_is_nop ? um_end(x, i) : um_sys_stop_ud(x, i);
	if ((u32)c->gpr[UM_RCX] & ~1u)
		return um_sys_stop_gp0(x, i);
	return um_sys_exit(x, i, UM_EXIT_MWAIT);
}

/* ---- time ---- */

static u64 guest_tsc(const struct um_cpu *c)
{
	u64 tsc = __builtin_ia32_rdtsc();

	if (c->tsc_ratio)
		tsc = (u64)((u128)tsc * c->tsc_ratio >> 48);
	return tsc + c->tsc_offset;
}

static void put_edx_eax(struct um_cpu *c, u64 v)
{
	c->gpr[UM_RAX] = (u32)v;
	c->gpr[UM_RDX] = v >> 32;
}

static bool tsc_allowed(const struct um_cpu *c)
{
	return !(c->cr4 & CR4_TSD) || !c->cpl;
}

const struct um_insn *um_sysop_rdtsc(struct um_exec *x, const struct um_insn *i)
{
	if (!tsc_allowed(&x->cpu))
		return um_sys_stop_gp0(x, i);
	put_edx_eax(&x->cpu, guest_tsc(&x->cpu));
	return um_end(x, i);
}

const struct um_insn *um_sysop_rdtscp(struct um_exec *x, const struct um_insn *i)
{
	if (!um_cpu_has(&x->cpu, UM_F_RDTSCP))
		return um_sys_stop_ud(x, i);
	if (!tsc_allowed(&x->cpu))
		return um_sys_stop_gp0(x, i);
	put_edx_eax(&x->cpu, guest_tsc(&x->cpu));
	x->cpu.gpr[UM_RCX] = (u32)x->cpu.msr.tsc_aux;
	return um_end(x, i);
}

const struct um_insn *um_sysop_rdpid(struct um_exec *x, const struct um_insn *i)
{
	if (!um_cpu_has(&x->cpu, UM_F_RDPID))
		return um_sys_stop_ud(x, i);
	x->cpu.gpr[i->reg[0] / 8] = (u32)x->cpu.msr.tsc_aux;
	return um_end(x, i);
}

/* There is no PMU: no counter exists, whatever the privilege. */
const struct um_insn *um_sysop_rdpmc(struct um_exec *x, const struct um_insn *i)
{
	return um_sys_stop_gp0(x, i);
}

/* ---- identification, MSRs ---- */

const struct um_insn *um_sysop_cpuid(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u32 r[4];

	if (!x->alone) /* serializing */
		x->code_doubt = true;
	um_cpuid(c, c->gpr[UM_RAX], c->gpr[UM_RCX], r);
	c->gpr[UM_RAX] = r[UM_EAX];
	c->gpr[UM_RBX] = r[UM_EBX];
	c->gpr[UM_RCX] = r[UM_ECX];
	c->gpr[UM_RDX] = r[UM_EDX];
	return um_end(x, i);
}

/* The segment-base MSRs, which kernels write at every task switch: no exit.  NULL: another MSR. */
static u64 *base_msr(struct um_cpu *c, u32 index)
{
	if (!(c->efer_allowed & EFER_LME)) /* no long mode, no such MSR */
		return NULL;
	switch (index) {
	case MSR_FS_BASE:
		return &c->seg[UM_FS].base;
	case MSR_GS_BASE:
		return &c->seg[UM_GS].base;
	case MSR_KERNEL_GS_BASE:
		return &c->msr.kernel_gs_base;
	default:
		return NULL;
	}
}

const struct um_insn *um_sysop_rdmsr(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 *msr = base_msr(c, c->gpr[UM_RCX]);

	if (c->cpl)
		return um_sys_stop_gp0(x, i);
	if (!msr || x->exit_on_msr)
		return um_sys_exit(x, i, UM_EXIT_RDMSR);
	um_count(x->counters, msr_accesses);
	put_edx_eax(c, *msr);
	return um_end(x, i);
}

const struct um_insn *um_sysop_wrmsr(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 *msr = base_msr(c, c->gpr[UM_RCX]);
	u64 v = (u32)c->gpr[UM_RAX] | c->gpr[UM_RDX] << 32;

	if (c->cpl)
		return um_sys_stop_gp0(x, i);
	if (!msr || x->exit_on_msr)
		return um_sys_exit(x, i, UM_EXIT_WRMSR);
	if (!um_sys_canonical(c, v))
		return um_sys_stop_gp0(x, i);
	um_count(x->counters, msr_accesses);
	*msr = v;
	um_sync_seg(x, UM_FS);
	um_sync_seg(x, UM_GS);
	return um_end(x, i);
}

/* ---- caches: host memory is coherent, so only the checks remain ---- */

/* INVD, WBINVD, WBNOINVD */
const struct um_insn *um_sysop_wbinvd(struct um_exec *x, const struct um_insn *i)
{
	if (x->cpu.cpl)
		return um_sys_stop_gp0(x, i);
	return um_end(x, i);
}

/* Like a load of a byte, which code segments that can only be executed allow too. */
static const struct um_insn *flush_line(struct um_exec *x, const struct um_insn *i)
{
	gva_t gva;

	if (!um_linear(x, i->seg, um_ea(x, i), 1, UM_READ, &gva) ||
	    !um_lin_probe(x, gva, 1, UM_READ))
		return um_stop(x, i);
	return um_end(x, i);
}

const struct um_insn *um_sysop_clflush(struct um_exec *x, const struct um_insn *i)
{
	return um_cpu_has(&x->cpu, UM_F_CLFLUSH) ? flush_line(x, i) : um_sys_stop_ud(x, i);
}

const struct um_insn *um_sysop_clflushopt(struct um_exec *x, const struct um_insn *i)
{
	return um_cpu_has(&x->cpu, UM_F_CLFLUSHOPT) ? flush_line(x, i) : um_sys_stop_ud(x, i);
}

const struct um_insn *um_sysop_clwb(struct um_exec *x, const struct um_insn *i)
{
	return um_cpu_has(&x->cpu, UM_F_CLWB) ? flush_line(x, i) : um_sys_stop_ud(x, i);
}

/* A hint that never faults; without the feature it is a NOP by its encoding. */
const struct um_insn *um_sysop_cldemote(struct um_exec *x, const struct um_insn *i)
{
	return um_end(x, i);
}

const struct um_insn *um_sysop_serialize(struct um_exec *x, const struct um_insn *i)
{
	if (!um_cpu_has(&x->cpu, UM_F_SERIALIZE))
		return um_sys_stop_ud(x, i);
	if (!x->alone)
		x->code_doubt = true;
	return um_end(x, i);
}

/* ---- hypervisors, SMM ---- */

/*
 * VMCALL (Intel) or VMMCALL (AMD): the vCPU layer checks privilege, by KVM's rules.  Guests that
 * took the other one get their code corrected, by a write as their own, and execute it again; or
 * #UD.
 */
const struct um_insn *um_sysop_hypercall(struct um_exec *x, const struct um_insn *i)
{
	static const u8 code[2][3] = { { 0x0f, 0x01, 0xc1 }, { 0x0f, 0x01, 0xd9 } };
	const struct um_cpu *c = &x->cpu;
	bool amd = c->vendor == UM_VENDOR_AMD;
	gva_t gva = c->gpr[UM_REG_PAGE] + i->off + i->len - sizeof(code[0]);

	if (c->vendor == UM_VENDOR_UNKNOWN || (i->op == ZYDIS_MNEMONIC_VMMCALL) == amd)
		return um_sys_exit(x, i, UM_EXIT_HYPERCALL);
	if (!x->fix_hypercall)
		return um_sys_stop_ud(x, i);
	/* Prefixes, which mean nothing here, stay. */
	if (!um_lin_write(x, x->mode == UM_MODE_64 ? gva : (u32)gva, code[amd], sizeof(code[0])))
		return um_stop(x, i);
	return um_sys_exit(x, i, UM_EXIT_KICK);
}

/* VMRUN and its kin (APM vol. 3): they exist if EFER.SVME is set. */
const struct um_insn *um_sysop_svm(struct um_exec *x, const struct um_insn *i)
{
	if (!(x->cpu.efer & EFER_SVME) || um_sys_not_protected(x))
		return um_sys_stop_ud(x, i);
	if (x->cpu.cpl)
		return um_sys_stop_gp0(x, i);
	return um_sys_exit(x, i, UM_EXIT_SVM);
}

const struct um_insn *um_sysop_rsm(struct um_exec *x, const struct um_insn *i)
{
	if (!x->cpu.smm)
		return um_sys_stop_ud(x, i);
	return um_sys_exit(x, i, UM_EXIT_RSM);
}

const struct um_insn *um_sysop_ud(struct um_exec *x, const struct um_insn *i)
{
	return um_sys_stop_ud(x, i);
}

// SPDX-License-Identifier: MIT
/*
 * Fast system calls and the bases of FS and GS (SDM vol. 2: SYSCALL, SYSRET, SYSENTER, SYSEXIT,
 * SWAPGS, RDFSBASE and its kin; APM vol. 3 for SYSCALL outside of 64-bit mode).
 *
 * Intel's processors know SYSCALL in 64-bit mode only.  A guest whose CPUID says AMD (or Hygon) has
 * it in compatibility and legacy mode too, and its kernels use it there.
 */
#include "cpu/cpuid.h"
#include "engine/system/system.h"

/* CPUID says AuthenticAMD or HygonGenuine. */
static bool is_amd(const struct um_cpu *c)
{
	u32 r[4];

	um_cpuid(c, 0, 0, r);
	return r[UM_EBX] == 0x68747541 || r[UM_EBX] == 0x6f677948;
}

/* Legacy SYSCALL and SYSRET: EIP from STAR, 32-bit segments. */
static const struct um_insn *syscall_legacy(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u16 cs = (c->msr.star >> 32) & 0xfffc;

	c->gpr[UM_RCX] = (u32)um_next_rip(x, i);
	c->rip = (u32)c->msr.star;
	c->rflags = um_get_rflags(x) & ~(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
	c->seg[UM_CS] = um_segment_flat_code(cs, 0, false);
	c->seg[UM_SS] = um_segment_flat_data(cs + 8, 0);
	c->cpl = 0;
	um_exec_sync(x);
	return NULL;
}

const struct um_insn *um_sysop_syscall(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	bool was64 = x->mode == UM_MODE_64;
	u64 rflags;
	u16 cs;

	if (!(c->efer & EFER_SCE) || !(c->cr0 & CR0_PE))
		return um_sys_stop_ud(x, i);
	if (unlikely(!was64)) {
		if (!is_amd(c))
			return um_sys_stop_ud(x, i);
		if (!um_cpu_long_mode(c))
			return syscall_legacy(x, i);
	}
	rflags = um_get_rflags(x) & ~RFLAGS_RF;
	cs = (c->msr.star >> 32) & 0xfffc;

	c->gpr[UM_RCX] = um_next_rip(x, i);
	c->gpr[UM_R11] = rflags;
	c->rip = was64 ? c->msr.lstar : c->msr.cstar;
	c->rflags = (rflags & ~c->msr.sfmask) | RFLAGS_FIXED1;
	c->seg[UM_CS] = um_segment_flat_code(cs, 0, true);
	c->seg[UM_SS] = um_segment_flat_data(cs + 8, 0);
	c->cpl = 0;
	if (likely(was64)) {
		um_set_status(x, c->rflags);
		um_sys_sync_cpl64(x);
	} else {
		um_exec_sync(x);
	}
	return NULL;
}

/*
 * SYSRET that sets TF traps at once, before the instruction that it returns to: as if the SYSCALL
 * had been stepped over.
 */
static void trap_at_once(struct um_exec *x)
{
	x->exit.kind = UM_EXIT_EXCEPTION;
	x->exit.exc =
		(struct um_event){ .vector = UM_VEC_DB, .kind = UM_EVENT_TRAP, .payload = DR6_BS };
	x->exit.insn_len = 0;
}

const struct um_insn *um_sysop_sysret(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u16 sel = c->msr.star >> 48;
	bool to64 = i->osz == 8;

	if (!(c->efer & EFER_SCE) || !(c->cr0 & CR0_PE) || (x->mode != UM_MODE_64 && !is_amd(c)))
		return um_sys_stop_ud(x, i);
	if (c->cpl || (c->rflags & RFLAGS_VM) || (to64 && !um_sys_canonical(c, c->gpr[UM_RCX])))
		return um_sys_stop_gp0(x, i);

	if (um_cpu_long_mode(c))
		c->rflags =
			(c->gpr[UM_R11] & (RFLAGS_ALL & ~(RFLAGS_RF | RFLAGS_VM))) | RFLAGS_FIXED1;
	else
		c->rflags = um_get_rflags(x) | RFLAGS_IF;
	c->rip = to64 ? c->gpr[UM_RCX] : (u32)c->gpr[UM_RCX];
	c->seg[UM_CS] = um_segment_flat_code((to64 ? sel + 16 : sel) | 3, 3, to64);
	c->seg[UM_SS] = um_segment_flat_data((sel + 8) | 3, 3);
	c->cpl = 3;
	if (likely(to64)) {
		um_set_status(x, c->rflags);
		um_sys_sync_cpl64(x);
	} else {
		um_exec_sync(x);
	}
	if (unlikely(c->rflags & RFLAGS_TF))
		trap_at_once(x);
	return NULL;
}

const struct um_insn *um_sysop_sysenter(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u16 sel = c->msr.sysenter_cs & 0xfffc;
	bool l = um_cpu_long_mode(c);

	if (!(c->cr0 & CR0_PE) || !sel)
		return um_sys_stop_gp0(x, i);
	c->rflags = um_get_rflags(x) & ~(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
	c->rip = l ? c->msr.sysenter_eip : (u32)c->msr.sysenter_eip;
	c->gpr[UM_RSP] = l ? c->msr.sysenter_esp : (u32)c->msr.sysenter_esp;
	c->seg[UM_CS] = um_segment_flat_code(sel, 0, l);
	c->seg[UM_SS] = um_segment_flat_data(sel + 8, 0);
	c->cpl = 0;
	um_exec_sync(x);
	return NULL;
}

const struct um_insn *um_sysop_sysexit(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u16 sel = c->msr.sysenter_cs & 0xfffc;
	bool to64 = i->osz == 8;
	u64 rip = c->gpr[UM_RDX], rsp = c->gpr[UM_RCX];

	if (um_sys_not_protected(x) || c->cpl || !sel ||
	    (to64 && (!um_sys_canonical(c, rip) || !um_sys_canonical(c, rsp))))
		return um_sys_stop_gp0(x, i);
	c->rflags = um_get_rflags(x);
	c->rip = to64 ? rip : (u32)rip;
	c->gpr[UM_RSP] = to64 ? rsp : (u32)rsp;
	sel += to64 ? 32 : 16;
	c->seg[UM_CS] = um_segment_flat_code(sel | 3, 3, to64);
	c->seg[UM_SS] = um_segment_flat_data((sel + 8) | 3, 3);
	c->cpl = 3;
	um_exec_sync(x);
	return NULL;
}

const struct um_insn *um_sysop_swapgs(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u64 base = c->seg[UM_GS].base;

	if (x->mode != UM_MODE_64)
		return um_sys_stop_ud(x, i);
	if (c->cpl)
		return um_sys_stop_gp0(x, i);
	c->seg[UM_GS].base = x->seg_base[UM_GS] = c->msr.kernel_gs_base;
	c->msr.kernel_gs_base = base;
	return um_end(x, i);
}

static const struct um_insn *read_base(struct um_exec *x, const struct um_insn *i, enum um_seg seg)
{
	if (x->mode != UM_MODE_64 || !(x->cpu.cr4 & CR4_FSGSBASE))
		return um_sys_stop_ud(x, i);
	um_sys_put_gpr(x, i->reg[0] / 8, x->cpu.seg[seg].base, i->osz);
	return um_end(x, i);
}

static const struct um_insn *write_base(struct um_exec *x, const struct um_insn *i, enum um_seg seg)
{
	u64 v = um_trunc(x->cpu.gpr[i->reg[0] / 8], i->osz);

	if (x->mode != UM_MODE_64 || !(x->cpu.cr4 & CR4_FSGSBASE))
		return um_sys_stop_ud(x, i);
	if (!um_sys_canonical(&x->cpu, v))
		return um_sys_stop_gp0(x, i);
	x->cpu.seg[seg].base = x->seg_base[seg] = v;
	return um_end(x, i);
}

const struct um_insn *um_sysop_rdfsbase(struct um_exec *x, const struct um_insn *i)
{
	return read_base(x, i, UM_FS);
}

const struct um_insn *um_sysop_rdgsbase(struct um_exec *x, const struct um_insn *i)
{
	return read_base(x, i, UM_GS);
}

const struct um_insn *um_sysop_wrfsbase(struct um_exec *x, const struct um_insn *i)
{
	return write_base(x, i, UM_FS);
}

const struct um_insn *um_sysop_wrgsbase(struct um_exec *x, const struct um_insn *i)
{
	return write_base(x, i, UM_GS);
}

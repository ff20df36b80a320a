// SPDX-License-Identifier: MIT
/*
 * The state that engines derive from the architectural state (engine/exec.h), kept in one place so
 * that each fact is derived in one way, and the end of an instruction that the vCPU layer finished.
 */
#include "engine/exec.h"

#include "engine/access.h"
#include "engine/engine.h"
#include "engine/flags.h"
#include "engine/interp/interp.h"

const char *um_exit_name(enum um_exit_kind k)
{
	static const char *const names[] = {
#define X(name, rip, todo) #name,
		UM_EXITS(X)
#undef X
	};

	return (unsigned)k < UM_EXIT_MAX ? names[k] : "?";
}

void um_sync_seg(struct um_exec *x, enum um_seg seg)
{
	const struct um_segment *s = &x->cpu.seg[seg];
	bool code = s->type & UM_DESC_CODE;

	x->seg_flat[seg] = 0;
	if (x->mode == UM_MODE_64) {
		/* SDM vol. 1 3.4.2.1: the bases of ES, CS, SS and DS count as 0; no limits. */
		x->seg_base[seg] = seg >= UM_FS ? s->base : 0;
		x->seg_flat[seg] = (1u << UM_READ) | (1u << UM_WRITE) | (1u << UM_FETCH);
	} else {
		x->seg_base[seg] = s->base & 0xffffffff;
		/* A segment of 4 GiB that isn't expand-down: only the type can forbid an access. */
		if (s->limit != 0xffffffff ||
		    (s->type & (UM_DESC_CODE | UM_DESC_EXPANDDOWN)) == UM_DESC_EXPANDDOWN)
			goto stack;
		if (x->mode == UM_MODE_REAL)
			x->seg_flat[seg] = (1u << UM_READ) | (1u << UM_WRITE);
		else if (!s->unusable && s->present)
			x->seg_flat[seg] =
				(!code || (s->type & UM_DESC_READABLE) ? 1u << UM_READ : 0) |
				(!code && (s->type & UM_DESC_WRITABLE) ? 1u << UM_WRITE : 0);
	}
stack:
	if (seg == UM_SS)
		x->sp_mask = x->mode == UM_MODE_64 ? ~0ull : s->db ? 0xffffffff : 0xffff;
}

/* Is a data breakpoint of the VMM's own (KVM_GUESTDBG_USE_HW_BP) armed?  The MMU doesn't know
 * those. */
static bool guest_data_breakpoint(const struct um_exec *x)
{
	for (unsigned n = 0; x->use_guest_dr && n < 4; n++) {
		if (DR7_ENABLED(x->guest_dr7, n) && DR7_RW(x->guest_dr7, n) != 0)
			return true;
	}
	return false;
}

void um_sync_priv(struct um_exec *x)
{
	const struct um_cpu *c = &x->cpu;
	bool ac = c->rflags & RFLAGS_AC;

	if (c->cpl == 3)
		x->priv = UM_PRIV_USER;
	else
		x->priv = (c->cr4 & CR4_SMAP) && ac ? UM_PRIV_KERNEL_AC : UM_PRIV_KERNEL;
	x->align_check = c->cpl == 3 && ac && (c->cr0 & CR0_AM);
	x->ctx_mask = x->align_check || x->recording || guest_data_breakpoint(x) ? 0 : 0xffff;
	um_interp_sync_ctx(x);
}

static bool insn_breakpoint(const struct um_exec *x)
{
	u64 dr7 = x->use_guest_dr ? x->guest_dr7 : x->cpu.dr7;

	for (unsigned n = 0; (dr7 & 0xff) && n < 4; n++) {
		if (DR7_ENABLED(dr7, n) && DR7_RW(dr7, n) == 0)
			return true;
	}
	return false;
}

void um_sync_special(struct um_exec *x)
{
	u32 special = x->special & UM_SPECIAL_DBHIT;

	if ((x->cpu.rflags & (RFLAGS_TF | RFLAGS_RF)) || x->cpu.int_shadow || x->guest_step ||
	    insn_breakpoint(x) || (x->trace && (x->trace->mask & BIT(UM_TRACE_insns))))
		special |= UM_SPECIAL_STEP;
	if (x->irq_window || x->nmi_window)
		special |= UM_SPECIAL_WINDOW;
	x->special = special;
}

void um_sync_mode(struct um_exec *x)
{
	x->mode = (u8)um_cpu_mode(&x->cpu);
	x->lin_mask = x->mode == UM_MODE_64 ? ~0ull : 0xffffffff;
	x->canon_shift = x->mode == UM_MODE_64 ? (u8)(64 - um_cpu_vaddr_bits(&x->cpu)) : 0;
	for (unsigned s = 0; s < UM_NR_SEGS; s++)
		um_sync_seg(x, (enum um_seg)s);
	um_sync_priv(x);
	um_sync_special(x);
}

void um_exec_sync(struct um_exec *x)
{
	x->cpu.gpr[UM_REG_ZERO] = 0;
	um_set_status(x, x->cpu.rflags);
	um_sync_mode(x);
	if (x->interp)
		um_interp_check_features(x);
}

void um_engine_mmio_done(struct um_exec *x, const void *data)
{
	struct um_mmio_log *l = &x->mmio;

	if (l->done >= UM_MMIO_MAX)
		return;
	l->e[l->done].gpa = x->exit.mmio.gpa;
	l->e[l->done].len = x->exit.mmio.len;
	l->e[l->done].write = x->exit.mmio.write;
	if (!x->exit.mmio.write)
		__builtin_memcpy(l->e[l->done].data, data, um_min(x->exit.mmio.len, 8));
	l->done++;
}

bool um_engine_retire(struct um_exec *x)
{
	struct um_cpu *c = &x->cpu;
	bool trap = (c->rflags & RFLAGS_TF) || x->guest_step;

	c->rip += x->exit.insn_len;
	if (um_cpu_mode(c) != UM_MODE_64)
		c->rip &= 0xffffffff;
	c->int_shadow = 0;
	c->rflags &= ~RFLAGS_RF;
	um_count(x->counters, insns);
	if (!trap && !x->db_hits)
		return false;
	x->exit.kind = UM_EXIT_EXCEPTION;
	x->exit.exc = (struct um_event){ .vector = UM_VEC_DB,
					 .kind = UM_EVENT_TRAP,
					 .payload = (trap ? DR6_BS : 0) | x->db_hits };
	x->db_hits = 0;
	return true;
}

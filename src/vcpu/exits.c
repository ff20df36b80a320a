// SPDX-License-Identifier: MIT
/*
 * What each exit of an engine means: one function for each, one table of who does it.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "vcpu/vcpu.h"

int um_vcpu_retire(struct um_vcpu *v)
{
	if (um_engine_retire(&v->x))
		return um_vcpu_exception(v, &v->x.exit.exc);
	return 1;
}

static int raise_gp(struct um_vcpu *v)
{
	um_vcpu_queue_exception(v, UM_VEC_GP, true, 0);
	return 1;
}

static int raise_ud(struct um_vcpu *v)
{
	um_vcpu_queue_exception(v, UM_VEC_UD, false, 0);
	return 1;
}

static int do_cr8_write(struct um_vcpu *v)
{
	u8 before = (u8)um_vcpu_get_cr8(v);
	u64 val = v->x.cpu.gpr[v->x.exit.reg];
	int r;

	if (!um_vcpu_set_cr8(v, val))
		return raise_gp(v);
	r = um_vcpu_retire(v);
	/* Without a LAPIC here, a lower priority may let an interrupt of the VMM's through. */
	if (r > 0 && !v->lapic && val < before) {
		v->run->exit_reason = KVM_EXIT_SET_TPR;
		return 0;
	}
	return r;
}

int um_vcpu_halt(struct um_vcpu *v)
{
	if (v->lapic || READ_ONCE(v->vm->disabled_exits) & KVM_X86_DISABLE_EXITS_HLT) {
		/* An offer that still stands would let interrupts of any priority wake it. */
		if (v->lapic)
			um_lapic_pv_eoi_exit(v->lapic);
		v->mp_state = KVM_MP_STATE_HALTED;
		return 1;
	}
	v->run->exit_reason = KVM_EXIT_HLT;
	return 0;
}

static int do_hlt(struct um_vcpu *v)
{
	int r;

	um_count(v->counters, halt_exits);
	r = um_vcpu_retire(v);
	/* Also if a debugger is told of the step (0): it halts afterwards. */
	return um_min(um_vcpu_halt(v), r);
}

#define DEATH_LINES 24

/* What the guest did last, for whoever looks after it (trace class "death"). */
static void report_death(struct um_vcpu *v)
{
	const struct um_trace *t = &v->vm->cfg.trace;
	char text[32768], *p;
	unsigned lines = 0;

	if (!um_trace_on(t, death))
		return;
	um_engine_report(&v->x, text, sizeof(text));
	for (p = text + strlen(text); p > text && lines <= DEATH_LINES; p--)
		lines += p[-1] == '\n';
	if (lines > DEATH_LINES)
		p++;
	if (*p)
		dprintf(t->fd, "vCPU %u: last instructions, newest last:\n%s", v->id, p);
}

int um_vcpu_shutdown(struct um_vcpu *v)
{
	v->exc_pending = false;
	v->triple_fault = false;
	v->run->exit_reason = KVM_EXIT_SHUTDOWN;
	report_death(v);
	return 0;
}

static int do_host_fault(struct um_vcpu *v)
{
	um_trace(&v->vm->cfg.trace, exits,
		 "vcpu %u: host memory at %#llx (gpa %#llx) is not accessible", v->id,
		 (unsigned long long)v->x.exit.hva, (unsigned long long)v->x.exit.gpa);
	return -EFAULT;
}

/* The bytes at CS:RIP, up to the end of their page.  Returns how many. */
static unsigned instruction_bytes(struct um_vcpu *v, u8 *bytes, unsigned max)
{
	const struct um_cpu *c = &v->x.cpu;
	struct um_fault f = {
		.gva = c->rip + (um_cpu_64bit(c) ? 0 : c->seg[UM_CS].base),
		.acc = UM_READ,
		.priv = UM_PRIV_KERNEL,
		.implicit = true,
		.probe = true,
	};
	unsigned n = (unsigned)um_min((u64)max, UM_PAGE_SIZE - (f.gva & ~UM_PAGE_MASK));

	if (um_mmu_access(v->mmu, &f) == UM_ACCESS_FAULT ||
	    um_mem_read(v->vm->mem, um_cpu_as(c), f.gpa, bytes, n))
		return 0;
	return n;
}

/* KVM_CAP_EXIT_ON_EMULATION_FAILURE or not: what the engine cannot do is always the VMM's to know. */
static int do_internal(struct um_vcpu *v)
{
	struct kvm_run *run = v->run;
	u8 size;

	um_log("vcpu %u: %s (rip %#llx)", v->id, v->x.exit.why ? v->x.exit.why : "internal error",
	       (unsigned long long)v->x.cpu.rip);
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	memset(&run->internal, 0, sizeof(run->internal));
	run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	/* Behind the flags and the bytes there is room for what is no part of the ABI. */
	run->internal.ndata = 4;
	run->internal.data[3] = v->x.cpu.rip;
	size = (u8)instruction_bytes(v, run->emulation_failure.insn_bytes,
				     sizeof(run->emulation_failure.insn_bytes));
	run->emulation_failure.insn_size = size;
	if (size)
		run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
	report_death(v);
	return 0;
}

int um_vcpu_handle_exit(struct um_vcpu *v, enum um_exit_kind kind)
{
	switch (kind) {
	case UM_EXIT_KICK:
		return 1;
	case UM_EXIT_IRQ_WINDOW:
		um_count(v->counters, irq_window_exits);
		return 1;
	case UM_EXIT_EXCEPTION:
		return um_vcpu_exception(v, &v->x.exit.exc);
	case UM_EXIT_MMIO:
		return um_vcpu_mmio(v);
	case UM_EXIT_PIO:
		return um_vcpu_pio(v);
	case UM_EXIT_HLT:
		return do_hlt(v);
	case UM_EXIT_RDMSR:
		return um_vcpu_rdmsr(v);
	case UM_EXIT_WRMSR:
		return um_vcpu_wrmsr(v);
	case UM_EXIT_CR8_READ:
		v->x.cpu.gpr[v->x.exit.reg] = um_vcpu_get_cr8(v);
		return um_vcpu_retire(v);
	case UM_EXIT_CR8_WRITE:
		return do_cr8_write(v);
	case UM_EXIT_HYPERCALL:
		return um_vcpu_hypercall(v);
	case UM_EXIT_MWAIT: /* a hint: ending at once is allowed (SDM vol. 2, MWAIT) */
	case UM_EXIT_WBINVD:
		return um_vcpu_retire(v);
	case UM_EXIT_PAUSE:
		sched_yield();
		return 1;
	case UM_EXIT_RSM:
		return um_vcpu_rsm(v);
	case UM_EXIT_SVM: /* EFER.SVME can't be set */
		return raise_ud(v);
	case UM_EXIT_SHUTDOWN:
		return um_vcpu_shutdown(v);
	case UM_EXIT_HOST_FAULT:
		return do_host_fault(v);
	case UM_EXIT_INTERNAL:
	case UM_EXIT_NONE:
	case UM_EXIT_MAX:
		break;
	}
	return do_internal(v);
}

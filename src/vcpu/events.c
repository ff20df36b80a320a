// SPDX-License-Identifier: MIT
/*
 * Events on their way into the guest: exceptions, NMIs, interrupts.
 *
 * Priority (SDM vol. 3 table 6-2, as far as it is decided here and not inside the engine): an exception
 * of the instruction just executed, then SMI, NMI, external interrupts.  What can't be delivered now asks
 * the engine to come back when it can (x.irq_window, x.nmi_window).
 *
 * An exception while another is delivered makes a double fault if both are of a kind (SDM vol. 3 table
 * 6-5), and a triple fault during that.
 */
#include <errno.h>
#include <string.h>

#include "vcpu/vcpu.h"

void um_trace_event(const struct um_vcpu *v, const struct um_event *ev)
{
	um_trace(&v->vm->cfg.trace, exceptions,
		 "vcpu %u: vector %u kind %u error %#x (%d) %#llx at %#llx", v->id, ev->vector,
		 ev->kind, ev->error_code, ev->has_error, (unsigned long long)ev->payload,
		 (unsigned long long)v->x.cpu.rip);
}

/* ---- what is allowed ---- */

bool um_vcpu_irq_allowed(const struct um_vcpu *v)
{
	return (v->x.cpu.rflags & RFLAGS_IF) && !v->x.cpu.int_shadow &&
	       !(v->debug.control & KVM_GUESTDBG_BLOCKIRQ);
}

bool um_vcpu_nmi_allowed(const struct um_vcpu *v)
{
	return !v->x.cpu.nmi_masked && !v->x.cpu.int_shadow &&
	       !(v->debug.control & KVM_GUESTDBG_BLOCKIRQ);
}

bool um_vcpu_has_interrupt(struct um_vcpu *v)
{
	return v->irq_pending || (v->lapic && um_lapic_has_interrupt(v->lapic));
}

bool um_vcpu_ready_for_injection(struct um_vcpu *v)
{
	if (v->lapic && (!um_lapic_accepts_extint(v->lapic) || um_lapic_extint_pending(v->lapic)))
		return false;
	return um_vcpu_irq_allowed(v) && !um_vcpu_has_interrupt(v) && !v->exc_pending;
}

/* ---- queueing ---- */

void um_vcpu_queue_exception(struct um_vcpu *v, enum um_vector vec, bool has_error, u32 error)
{
	v->exc = (struct um_event){
		.vector = vec,
		.kind = UM_EVENT_FAULT,
		.has_error = has_error,
		.error_code = error,
	};
	v->exc_pending = true;
}

int um_vcpu_interrupt(struct um_vcpu *v, u32 vector)
{
	struct um_irqchip *chip = um_vm_irqchip(v->vm);

	if (vector > 255)
		return -EINVAL;
	if (v->lapic) {
		if (!um_irqchip_is_split(chip))
			return -ENXIO;
		return um_lapic_set_extint(v->lapic, (u8)vector);
	}
	v->irq = (u8)vector;
	v->irq_soft = false;
	v->irq_pending = true;
	return 0;
}

void um_vcpu_nmi(struct um_vcpu *v)
{
	atomic_fetch_add(&v->nmi_queued, 1);
	um_vcpu_request(v, UM_REQ_NMI);
}

void um_vcpu_collect_nmis(struct um_vcpu *v)
{
	/* One in service or being served leaves room for one more to be latched. */
	unsigned limit = v->x.cpu.nmi_masked ? 1 : 2;
	unsigned n = v->nmi_pending + atomic_exchange(&v->nmi_queued, 0);

	v->nmi_pending = (u8)um_min(n, limit);
}

/* ---- delivery ---- */

/*
 * By what it tells, others may have changed code: the vCPU is no longer to trust what it knows of it.
 * The LAPIC's timer tells nothing of devices; of other vCPUs, if there are some, anything may.
 */
static bool is_news(struct um_vcpu *v, const struct um_event *ev)
{
	if (ev->kind == UM_EVENT_EXTINT)
		return !v->lapic || um_lapic_heard(v->lapic) || !v->x.alone;
	return ev->kind == UM_EVENT_NMI;
}

static bool deliver(struct um_vcpu *v, const struct um_event *ev)
{
	bool done;

	if (um_vcpu_enter_mmu(v)) {
		v->x.exit.kind = UM_EXIT_INTERNAL;
		v->x.exit.why = "out of memory for shadow pages";
		return false;
	}
	um_trace_event(v, ev);
	if (is_news(v, ev))
		v->x.code_doubt = true;
	done = um_engine_deliver(&v->x, ev);
	um_vcpu_leave_mmu(v);
	return done;
}

static bool is_exception(const struct um_event *ev)
{
	/* INT n, INT3, INTO and INT1 count as benign whatever their vector is. */
	return ev->kind == UM_EVENT_FAULT || ev->kind == UM_EVENT_TRAP;
}

static bool contributory(const struct um_event *ev)
{
	return ev->vector == UM_VEC_DE || (ev->vector >= UM_VEC_TS && ev->vector <= UM_VEC_GP) ||
	       ev->vector == UM_VEC_CP;
}

static bool double_fault(const struct um_event *first, const struct um_event *second)
{
	if (!is_exception(first))
		return false;
	if (first->vector == UM_VEC_PF)
		return second->vector == UM_VEC_PF || contributory(second);
	return contributory(first) && contributory(second);
}

bool um_vcpu_next_exception(struct um_vcpu *v, struct um_event first)
{
	const struct um_event *second = &v->x.exit.exc;

	if (first.vector == UM_VEC_DF && is_exception(&first)) {
		v->exc_pending = false;
		v->triple_fault = true;
		return false;
	}
	if (double_fault(&first, second)) {
		/* The page fault that was under way has loaded CR2 (SDM vol. 3 6.15, #PF). */
		if (second->vector == UM_VEC_PF)
			v->x.cpu.cr2 = second->payload;
		else if (first.vector == UM_VEC_PF)
			v->x.cpu.cr2 = first.payload;
		v->exc = (struct um_event){ .vector = UM_VEC_DF,
					    .kind = UM_EVENT_FAULT,
					    .has_error = true };
	} else {
		v->exc = *second;
	}
	v->exc_pending = true;
	return true;
}

int um_vcpu_deliver_exception(struct um_vcpu *v, struct um_event ev)
{
	v->exc = ev;
	v->exc_pending = true;
	/* Benign exceptions could follow each other for ever if a guest arranged it. */
	for (unsigned attempts = 0; attempts < 8; attempts++) {
		ev = v->exc;
		um_count(v->counters, exceptions);
		if (deliver(v, &ev)) {
			v->exc_pending = false;
			return 1;
		}
		if (v->x.exit.kind != UM_EXIT_EXCEPTION)
			return um_vcpu_handle_exit(v, v->x.exit.kind);
		if (!um_vcpu_next_exception(v, ev))
			break;
	}
	return um_vcpu_shutdown(v);
}

/* An interrupt or NMI; if its delivery faults, the fault is what is left of it. */
static int deliver_interrupt(struct um_vcpu *v, u8 vector, enum um_event_kind kind)
{
	struct um_event ev = { .vector = vector, .kind = (u8)kind };

	if (deliver(v, &ev))
		return 1;
	if (v->x.exit.kind == UM_EXIT_EXCEPTION)
		return um_vcpu_deliver_exception(v, v->x.exit.exc);
	return um_vcpu_handle_exit(v, v->x.exit.kind);
}

static int inject_nmi(struct um_vcpu *v)
{
	int r;

	v->nmi_pending--;
	v->x.cpu.nmi_masked = true;
	um_count(v->counters, nmi_injections);
	r = deliver_interrupt(v, UM_VEC_NMI, UM_EVENT_NMI);
	if (r < 0) { /* the host could not: nothing has happened */
		v->nmi_pending++;
		v->x.cpu.nmi_masked = false;
	}
	return r;
}

static int inject_irq(struct um_vcpu *v)
{
	int r;

	if (!v->irq_pending) {
		int vector = um_lapic_ack(v->lapic);

		if (vector < 0)
			return 1;
		v->irq = (u8)vector;
		v->irq_soft = false;
		v->irq_pending = true;
	}
	um_count(v->counters, irq_injections);
	r = deliver_interrupt(v, v->irq, UM_EVENT_EXTINT);
	if (r >= 0)
		v->irq_pending = false;
	return r;
}

int um_vcpu_inject(struct um_vcpu *v)
{
	struct um_exec *x = &v->x;
	/* A LAPIC that takes nothing from a PIC would leave the window open for nothing, for ever. */
	bool window = v->run->request_interrupt_window &&
		      (!v->lapic || um_lapic_accepts_extint(v->lapic));
	int r;

	x->irq_window = false;
	x->nmi_window = false;
	if (!v->exc_pending && !v->triple_fault && !v->nmi_pending && !um_vcpu_has_interrupt(v) &&
	    !v->smi_pending && !window)
		return 1;
	if (um_engine_io_pending(x)) {
		r = um_vcpu_finish_io(v);
		if (r <= 0)
			return r;
		if (um_engine_io_pending(x)) {
			/*
			 * It got the next of several answers.  The engine finishes it; and leaves then, for what
			 * waits here has not asked for its window.
			 */
			um_exec_kick(x);
			return 1;
		}
	}
	if (v->triple_fault)
		return um_vcpu_shutdown(v);
	if (v->exc_pending) {
		r = um_vcpu_deliver_exception(v, v->exc);
		if (r <= 0)
			return r;
	}
	if (v->smi_pending && um_vcpu_smi_allowed(v))
		um_vcpu_enter_smm(v);
	if (v->nmi_pending && um_vcpu_nmi_allowed(v)) {
		r = inject_nmi(v);
		if (r <= 0)
			return r;
	}
	if (um_vcpu_has_interrupt(v) && um_vcpu_irq_allowed(v)) {
		r = inject_irq(v);
		if (r <= 0)
			return r;
	}
	if (window && um_vcpu_ready_for_injection(v)) {
		v->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
		return 0;
	}
	if (!(v->debug.control & KVM_GUESTDBG_BLOCKIRQ)) {
		x->nmi_window = v->nmi_pending;
		x->irq_window = window || um_vcpu_has_interrupt(v);
	}
	return 1;
}

/* ---- the debugger's share ---- */

static int debug_exit(struct um_vcpu *v, const struct um_event *ev)
{
	struct kvm_debug_exit_arch *arch = &v->run->debug.arch;
	const struct um_cpu *c = &v->x.cpu;

	memset(arch, 0, sizeof(*arch));
	arch->exception = ev->vector;
	arch->pc = c->rip + (um_cpu_64bit(c) ? 0 : c->seg[UM_CS].base);
	arch->dr6 = ev->vector == UM_VEC_DB ? ev->payload | DR6_FIXED1 | DR6_RTM : 0;
	arch->dr7 = v->x.use_guest_dr ? v->x.guest_dr7 : c->dr7;
	v->run->exit_reason = KVM_EXIT_DEBUG;
	return 0;
}

int um_vcpu_exception(struct um_vcpu *v, const struct um_event *ev)
{
	u32 control = v->debug.control;

	if (control & KVM_GUESTDBG_ENABLE) {
		if (ev->vector == UM_VEC_DB && is_exception(ev) &&
		    (control & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)))
			return debug_exit(v, ev);
		if (ev->vector == UM_VEC_BP && ev->kind == UM_EVENT_SOFT_EXC &&
		    (control & KVM_GUESTDBG_USE_SW_BP))
			return debug_exit(v, ev);
	}
	v->exc = *ev;
	v->exc_pending = true;
	return 1;
}

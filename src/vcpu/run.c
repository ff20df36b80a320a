// SPDX-License-Identifier: MIT
/*
 * KVM_RUN.
 *
 * The loop: act on requests; sleep while the processor is halted; inject events; run the engine; act on
 * its exit.  It ends when the VMM is needed, or when the VMM wants it back: by immediate_exit, which a
 * signal handler sets, by umbra_interrupt(), or by a signal that KVM_SET_SIGNAL_MASK unblocks.
 *
 * Invariants:
 *  1. x.kick is cleared before requests are read, and set after they are written: no request waits
 *     longer than the engine's next look at x.kick.
 *  2. An instruction whose I/O was answered is finished before any event is injected, and before
 *     KVM_RUN returns: so the state that the VMM sees then is always between instructions.
 *  3. The thread is outside um_mmu_enter()/um_mmu_leave() whenever it may block.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vcpu/hyperv.h"
#include "vcpu/vcpu.h"

#define POLL_NS 1000000ull /* how late a blocked signal may be noticed: see signal_pending() */

/* ---- signals ---- */

/*
 * KVM_SET_SIGNAL_MASK: while KVM_RUN runs, the thread's mask is the given one; a signal that it lets
 * through ends KVM_RUN, and is handled only afterwards, under the thread's own mask.  Unblocking it for
 * real would run its handler too early, so it stays blocked, and this looks whether it is pending; a timer
 * makes sure that this happens often.
 */
static bool signal_pending(const struct um_vcpu *v)
{
	sigset_t pending;

	if (!v->sigmask_set || sigpending(&pending) < 0)
		return false;
	for (int sig = 1; sig <= SIGRTMAX; sig++) {
		if (sigismember(&pending, sig) == 1 && sigismember(&v->sigmask, sig) == 0)
			return true;
	}
	return false;
}

/* The VMM wants the thread back: invariants as of x.kick above. */
static bool wanted_back(const struct um_vcpu *v)
{
	return READ_ONCE(v->run->immediate_exit) ||
	       atomic_load_explicit(v->wanted_back, memory_order_relaxed) ||
	       atomic_load_explicit(&v->interrupt_run, memory_order_relaxed) || signal_pending(v);
}

/* In the helper thread. */
static void poll_signals(void *opaque)
{
	struct um_vcpu *v = opaque;

	if (atomic_load(&v->running)) {
		um_vcpu_kick(v);
		um_timer_arm(&v->poll_timer, um_timer_now() + POLL_NS);
	}
}

int um_vcpu_set_signal_mask(struct um_vcpu *v, const sigset_t *mask)
{
	int err = 0;

	if (!mask) {
		v->sigmask_set = false;
		return 0;
	}
	if (!v->poll_timer_ready) {
		struct um_vm *vm = v->vm;
		struct um_irqchip *chip = um_vm_irqchip(vm);

		pthread_mutex_lock(&vm->timers_lock);
		if (!chip && !vm->poll_timers)
			err = um_timers_create(&vm->poll_timers);
		pthread_mutex_unlock(&vm->timers_lock);
		if (!err)
			err = um_timer_init(&v->poll_timer,
					    chip ? um_irqchip_timers(chip) : vm->poll_timers,
					    poll_signals, v);
		if (err)
			return err;
		v->poll_timer_ready = true;
	}
	v->sigmask = *mask;
	/* What the engine needs for itself (base/uaccess.h) stays as it is. */
	sigdelset(&v->sigmask, SIGSEGV);
	sigdelset(&v->sigmask, SIGBUS);
	sigdelset(&v->sigmask, SIGFPE);
	v->sigmask_set = true;
	return 0;
}

void um_vcpu_interrupt_run(struct um_vcpu *v)
{
	atomic_store(&v->interrupt_run, true);
	um_vcpu_kick(v);
}

static int interrupted(struct um_vcpu *v)
{
	atomic_store(&v->interrupt_run, false);
	v->run->exit_reason = KVM_EXIT_INTR;
	um_count(v->counters, signal_exits);
	return -EINTR;
}

/* ---- sleeping ---- */

bool um_vcpu_runnable(struct um_vcpu *v)
{
	if (v->exc_pending || v->triple_fault || v->pv_unhalted)
		return true;
	if (v->smi_pending && um_vcpu_smi_allowed(v))
		return true;
	if (v->nmi_pending && um_vcpu_nmi_allowed(v))
		return true;
	/* Halted here without a LAPIC (KVM_CAP_X86_DISABLE_EXITS): the window is open during HLT. */
	if (!v->lapic && v->run->request_interrupt_window && um_vcpu_ready_for_injection(v))
		return true;
	return um_vcpu_irq_allowed(v) && um_vcpu_has_interrupt(v);
}

/* Requests that have to wait: SMM keeps INIT out. */
static unsigned latched(const struct um_vcpu *v)
{
	return v->x.cpu.smm ? UM_REQ_INIT : 0;
}

/* A halted processor has something to do. */
static void wake_up(struct um_vcpu *v)
{
	/* Only an SMI leaves it where it was: at the HLT. */
	if (v->smi_pending && um_vcpu_smi_allowed(v))
		v->smi_halted = !v->exc_pending && !v->pv_unhalted;
	v->mp_state = KVM_MP_STATE_RUNNABLE;
	v->pv_unhalted = false;
}

/* Sleep until there is a request or, if halted, an event.  1, or -EINTR. */
static int block(struct um_vcpu *v)
{
	/* A timeout makes the wait end with EINTR after any signal handler, even with SA_RESTART. */
	struct timespec timeout = { .tv_sec = 3600 };
	int r = 0;

	if (v->sigmask_set)
		timeout = (struct timespec){ .tv_nsec = POLL_NS };
	um_pv_update_steal(v, true);
	while (!r) {
		u32 word;

		atomic_store(&v->waiting, true);
		word = __atomic_load_n((u32 *)v->run, __ATOMIC_SEQ_CST);
		if (wanted_back(v))
			r = -EINTR;
		else if ((atomic_load(&v->requests) & ~latched(v)) ||
			 (v->mp_state == KVM_MP_STATE_HALTED && um_vcpu_runnable(v)))
			r = 1;
		else if (syscall(SYS_futex, v->run, FUTEX_WAIT_PRIVATE, word, &timeout, NULL, 0) <
				 0 &&
			 errno == EINTR)
			r = -EINTR;
	}
	atomic_store(&v->waiting, false);
	um_pv_update_steal(v, false);
	return r < 0 ? interrupted(v) : 1;
}

/* ---- requests ---- */

void um_vcpu_accept_events(struct um_vcpu *v)
{
	unsigned req;

	if (!v->lapic)
		return;
	/* A start-up IPI is lost on a processor that doesn't wait for it. */
	if (v->x.cpu.smm) {
		atomic_fetch_and(&v->requests, ~(unsigned)UM_REQ_SIPI);
		return;
	}
	req = atomic_fetch_and(&v->requests, ~(unsigned)(UM_REQ_INIT | UM_REQ_SIPI));
	if (req & UM_REQ_INIT) {
		um_vcpu_reset(v, true);
		/* SDM vol. 3 8.4.3: the bootstrap processor starts, the others wait for SIPI. */
		v->mp_state = um_lapic_get_base(v->lapic) & BIT(8) ? KVM_MP_STATE_RUNNABLE
								   : KVM_MP_STATE_INIT_RECEIVED;
	}
	if ((req & UM_REQ_SIPI) && v->mp_state == KVM_MP_STATE_INIT_RECEIVED) {
		u32 vector = atomic_load(&v->sipi_vector);

		v->x.cpu.seg[UM_CS].selector = (u16)(vector << 8);
		v->x.cpu.seg[UM_CS].base = vector << 12;
		v->x.cpu.rip = 0;
		v->mp_state = KVM_MP_STATE_RUNNABLE;
	}
}

static void act_on_requests(struct um_vcpu *v)
{
	unsigned req = atomic_load(&v->requests);

	if (likely(!req))
		return;
	if (req & (UM_REQ_INIT | UM_REQ_SIPI))
		um_vcpu_accept_events(v);
	req = atomic_fetch_and(&v->requests, UM_REQ_INIT | UM_REQ_SIPI);
	if (req & UM_REQ_SMI)
		v->smi_pending = true;
	if (req & UM_REQ_NMI)
		um_vcpu_collect_nmis(v);
	if (req & UM_REQ_UNHALT)
		v->pv_unhalted = true;
	if (req & UM_REQ_CLOCK) {
		um_pv_update_clock(v);
		um_hv_clock_changed(v);
	}
	if (req & UM_REQ_STIMER)
		um_hv_run_timers(v);
	if (req & UM_REQ_TLB_FLUSH)
		um_mmu_invpcid(v->mmu, 2, 0, 0); /* everything, global pages too */
}

/* As in the MMU's protocol: who asked sees that we have left, or we see that somebody asked. */
int um_vcpu_enter_mmu(struct um_vcpu *v)
{
	for (;;) {
		int err;

		atomic_store(&v->in_guest, true);
		err = um_mmu_enter(v->mmu);
		if (likely(!err && !(atomic_load(&v->requests) & UM_REQ_TLB_FLUSH)))
			return 0;
		if (err) {
			atomic_store(&v->in_guest, false);
			return err;
		}
		um_vcpu_leave_mmu(v);
		atomic_fetch_and(&v->requests, ~(unsigned)UM_REQ_TLB_FLUSH);
		um_mmu_invpcid(v->mmu, 2, 0, 0);
	}
}

void um_vcpu_leave_mmu(struct um_vcpu *v)
{
	um_mmu_leave(v->mmu);
	atomic_store(&v->in_guest, false);
}

/* ---- the loop ---- */

/*
 * Run the engine.  Guest exceptions are the most frequent exits by far: they are delivered at once,
 * as long as nobody debugs and nothing else waits.
 */
static enum um_exit_kind run_engine(struct um_vcpu *v)
{
	struct um_exec *x = &v->x;
	enum um_exit_kind kind;

	kind = um_engine_run(x);
	while (kind == UM_EXIT_EXCEPTION && !v->debug.control && !atomic_load(&x->kick)) {
		um_count(v->counters, exceptions);
		um_trace_event(v, &x->exit.exc);
		v->exc = x->exit.exc;
		if (!um_engine_deliver(x, &v->exc)) {
			/* Not the first again: a task gate may have changed the task already. */
			v->exc_pending = true;
			if (x->exit.kind != UM_EXIT_EXCEPTION)
				return x->exit.kind;
			um_vcpu_next_exception(v, v->exc);
			return UM_EXIT_KICK;
		}
		kind = um_engine_run(x);
	}
	return kind;
}

/* Finish the instruction whose I/O was answered.  As um_vcpu_handle_exit(). */
int um_vcpu_finish_io(struct um_vcpu *v)
{
	enum um_exit_kind kind;
	int err;

	err = um_vcpu_enter_mmu(v);
	if (err)
		return err;
	kind = um_engine_complete_io(&v->x);
	um_vcpu_leave_mmu(v);
	return um_vcpu_handle_exit(v, kind);
}

static void apply_quirks(struct um_vcpu *v)
{
	u64 disabled = READ_ONCE(v->vm->quirks_disabled);

	v->x.fix_hypercall = !(disabled & KVM_X86_QUIRK_FIX_HYPERCALL_INSN);
	v->x.monitor_is_nop = !(disabled & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS);
	v->x.cpu.mwait_by_msr = disabled & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT;
}

static int loop(struct um_vcpu *v)
{
	struct um_exec *x = &v->x;

	for (;;) {
		enum um_exit_kind kind;
		int r;

		atomic_store(&x->kick, 0);
		act_on_requests(v);
		if (wanted_back(v))
			return interrupted(v);
		r = um_hv_exit(v);
		if (r <= 0)
			return r;
		if (unlikely(v->mp_state != KVM_MP_STATE_RUNNABLE)) {
			if (v->mp_state == KVM_MP_STATE_HALTED && um_vcpu_runnable(v)) {
				wake_up(v);
			} else {
				r = block(v);
				if (r <= 0)
					return r;
			}
			continue;
		}
		um_pv_update_steal(v, false);
		if (unlikely(v->ring && um_dirty_ring_almost_full(v->ring))) {
			v->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
			return 0;
		}
		r = um_vcpu_inject(v);
		if (r <= 0)
			return r;
		if (v->lapic)
			um_lapic_pv_eoi_enter(v->lapic);
		r = um_vcpu_enter_mmu(v);
		if (r)
			return r;
		x->alone = atomic_load(&v->vm->nvcpus) == 1;
		/* Spinning is only worth it while whom it waits for may be running. */
		x->exit_on_pause = !x->alone && !(READ_ONCE(v->vm->disabled_exits) &
						  KVM_X86_DISABLE_EXITS_PAUSE);
		x->exit_on_msr = atomic_load_explicit(&v->vm->msr_filter, memory_order_relaxed);
		apply_quirks(v);
		kind = run_engine(v);
		um_vcpu_leave_mmu(v);
		um_trace(&v->vm->cfg.trace, engine, "vcpu %u: %s at %#llx", v->id,
			 um_exit_name(kind), (unsigned long long)x->cpu.rip);
		r = um_vcpu_handle_exit(v, kind);
		if (r > 0)
			r = um_vcpu_ioapic_eoi(v);
		if (r <= 0)
			return r;
	}
}

/* An application processor that has not got its INIT yet. */
static int wait_for_init(struct um_vcpu *v)
{
	int r;

	if (wanted_back(v))
		return interrupted(v);
	r = block(v);
	if (r < 0)
		return r;
	act_on_requests(v);
	return -EAGAIN; /* KVM's answer: the VMM calls again */
}

static int enter_guest(struct um_vcpu *v)
{
	struct kvm_run *run = v->run;
	int r;

	if (v->mp_state == KVM_MP_STATE_UNINITIALIZED)
		return wait_for_init(v);
	if ((run->kvm_valid_regs | run->kvm_dirty_regs) & ~KVM_SYNC_X86_VALID_FIELDS)
		return -EINVAL;
	if (run->kvm_dirty_regs) {
		r = um_vcpu_sync_in(v);
		if (r)
			return r;
	}
	if (!v->lapic && !um_vcpu_set_cr8(v, run->cr8))
		return -EINVAL;
	v->ran = true;
	v->x.code_doubt = true; /* the VMM had its chance to change code */
	r = um_vcpu_complete_user_io(v);
	if (r <= 0)
		return r;
	if (um_engine_io_pending(&v->x)) {
		r = um_vcpu_finish_io(v);
		if (r <= 0)
			return r;
	}
	/* To finish an instruction's I/O was all that the VMM wanted: the exit that asked for it stays readable. */
	if (READ_ONCE(run->immediate_exit))
		return -EINTR;
	return loop(v);
}

static void leave_guest(struct um_vcpu *v)
{
	struct kvm_run *run = v->run;

	run->if_flag = (v->x.cpu.rflags & RFLAGS_IF) != 0;
	run->cr8 = um_vcpu_get_cr8(v);
	run->apic_base = um_vcpu_get_apic_base(v);
	run->flags = v->x.cpu.smm ? KVM_RUN_X86_SMM : 0;
	run->ready_for_interrupt_injection =
		(v->lapic && !um_irqchip_is_split(um_vm_irqchip(v->vm))) ||
		um_vcpu_ready_for_injection(v);
	if (run->kvm_valid_regs)
		um_vcpu_sync_out(v);
}

int um_vcpu_run(struct um_vcpu *v)
{
	sigset_t own;
	int r;

	atomic_store(&v->running, true);
	um_pv_enter(v);
	if (v->sigmask_set) {
		/* Block what the given mask blocks; what it lets through stays as it is. */
		pthread_sigmask(SIG_BLOCK, &v->sigmask, &own);
		um_timer_arm(&v->poll_timer, um_timer_now() + POLL_NS);
	}
	r = enter_guest(v);
	if (v->lapic)
		um_lapic_pv_eoi_exit(v->lapic);
	leave_guest(v);
	um_pv_leave(v);
	atomic_store(&v->running, false);
	if (v->sigmask_set)
		pthread_sigmask(SIG_SETMASK, &own, NULL);
	if (!r)
		um_count(v->counters, exits);
	um_trace(&v->vm->cfg.trace, exits, "vcpu %u: KVM_RUN %d, exit_reason %u, rip %#llx", v->id,
		 r, v->run->exit_reason, (unsigned long long)v->x.cpu.rip);
	return r;
}

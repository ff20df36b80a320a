/* SPDX-License-Identifier: MIT */
/*
 * Virtual machines and virtual CPUs: what the KVM API's descriptors stand for.
 *
 * A vCPU runs in the thread that calls um_vcpu_run().  The run loop (run.c) is the only place where the
 * exits of an engine are acted on, and where events get into the guest.
 *
 *                      um_vcpu_run
 *          ┌──────────────┴───────────────────────────┐
 *      requests ─> block while halted ─> inject ─> engine ─> exit ─┬─> done here: once more
 *                                                                  └─> KVM_EXIT_...: return
 *
 * Locks, outermost first:
 *   vm->lock     creation of vCPUs, irqchip and PIT; capabilities that are enabled
 *   vcpu->lock   all of a vCPU but the fields below "any thread"; held throughout KVM_RUN
 *   a turn in vm->lockstep_queue, by engines (engine/jit/lockstep.c)
 *   vm->split_lock, by engines (engine/exec.h)
 *   the slots mutex (mem/), then the MMU's lock (mmu/)
 *   hv->lock (hyperv.h)
 *   the irqchip's locks (irqchip/irqchip.h)
 *   vm->clock_lock, vm->timers_lock, vm->coalesced_lock, vm->msr_filter_lock, that of the ioeventfds (leaves)
 * A vCPU never waits for another one while it is between um_mmu_enter() and um_mmu_leave().
 */
#ifndef UM_VCPU_VCPU_H
#define UM_VCPU_VCPU_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/jit_options.h"
#include "base/counters.h"
#include "base/trace.h"
#include "engine/engine.h"
#include "irqchip/ioeventfd.h"
#include "irqchip/irqchip.h"
#include "irqchip/lapic.h"
#include "irqchip/timer.h"
#include "mem/mem.h"
#include "mmu/mmu.h"

#define UM_MAX_VCPUS   1024  /* KVM_CAP_MAX_VCPUS; a block of counters each */
#define UM_TSC_KHZ_MIN 1000u /* that KVM_SET_TSC_KHZ takes */
#define UM_TSC_KHZ_MAX 100000000u
#define UM_RUN_PAGES   3 /* KVM_GET_VCPU_MMAP_SIZE: struct kvm_run, port data, coalesced ring */
#define UM_RING_PAGE   2 /* KVM_CAP_COALESCED_MMIO: which of them the ring is; one for the whole VM */

struct um_vcpu;

/* What every VM of this process is made with: from the environment, and measured once. */
struct um_vm_config {
	struct um_trace trace;
	bool tdp, audit;
	enum um_engine_kind engine;
	struct um_jit_options jit;
	u32 tsc_khz; /* of the host's TSC */
};

struct um_vm {
	struct um_vm_config cfg;
	atomic_uint refs;
	pthread_mutex_t lock;
	pthread_mutex_t split_lock; /* struct um_exec.split_lock */
	struct um_lockstep_queue lockstep_queue;

	struct um_mem *mem;
	struct um_mmu_vm *mmu;
	u32 ring_bytes; /* of each vCPU's dirty ring; 0: bitmaps.  Set once, before the first vCPU */
	_Atomic(struct um_irqchip *) irqchip; /* NULL: the VMM's own; set once */
	pthread_mutex_t timers_lock;	      /* leaf: poll_timers */
	struct um_timers *poll_timers;	      /* see um_vcpu.poll_timer; made when first needed */

	struct um_ioeventfds *ioeventfds;

	/* Coalesced writes (coalesced.c) */
	int ring_fd; /* one page, to be mapped as page UM_RING_PAGE of each vCPU */
	struct kvm_coalesced_mmio_ring *ring;
	pthread_mutex_t coalesced_lock; /* leaf: zones, and adding to the ring */
	struct um_coalesced_zone *zones;
	atomic_uint nr_zones;

	int stat_fd;
	struct um_stat_page *stat;
	int stats_fd; /* of KVM_GET_STATS_FD, -1: none yet; um_stat_share() */

	atomic_uint nvcpus; /* grows only, under lock */
	struct um_vcpu
		*vcpu[UM_MAX_VCPUS]; /* in the order of creation; they live as long as the VM */
	u32 bsp_id;
	u32 max_vcpu_ids; /* KVM_CAP_MAX_VCPU_ID; 0: not set, UM_MAX_VCPU_IDS */

	/* Set by the VMM, read back, of no consequence: there is no real mode under VT-x to serve. */
	u64 tss_addr, identity_map_addr;

	pthread_rwlock_t msr_filter_lock; /* leaf: what msr_filter points at (msr_exits.c) */
	_Atomic(struct um_msr_filter *) msr_filter;
	u32 user_msr_reasons; /* KVM_MSR_EXIT_REASON_...: KVM_CAP_X86_USER_SPACE_MSR */
	u32 disabled_exits;   /* KVM_X86_DISABLE_EXITS_... */

	u64 quirks_disabled; /* KVM_X86_QUIRK_... */
	u64 x2apic_flags;    /* KVM_CAP_X2APIC_API, until there is an irqchip */
	bool exception_payload, triple_fault_event, platform_info_hidden;
	u32 default_tsc_khz; /* KVM_SET_TSC_KHZ on the VM: for vCPUs to come */

	/* kvmclock (pv.c).  Nanoseconds; the host's TSC as their measure. */
	pthread_mutex_t clock_lock;
	u64 clock_tsc;	     /* host TSC at which ... */
	u64 clock_ns;	     /* ... kvmclock was this */
	u32 clock_times_set; /* by KVM_SET_CLOCK */
	u64 created_tsc;     /* host TSC when the VM was made */
	u64 tsc_offset;	     /* what vCPUs' TSCs have in common: struct um_cpu.tsc_offset */
	u64 tsc_ratio;	     /* of the first vCPU */
	u64 tsc_last_write, tsc_last_write_host; /* to recognize attempts to synchronize */
	bool tsc_written;
	pthread_mutex_t pages_lock; /* of vCPUs' kvmclock pages: one writer */
	gpa_t wall_clock;

	struct um_hv_vm *hv; /* hyperv.h */
};

/* Requests: things that other threads, or the vCPU itself, want done before it runs guest code. */
#define UM_REQ_NMI	 BIT(0) /* look at nmi_queued */
#define UM_REQ_INIT	 BIT(1)
#define UM_REQ_SIPI	 BIT(2) /* sipi_vector */
#define UM_REQ_UNHALT	 BIT(3) /* KVM_HC_KICK_CPU */
#define UM_REQ_CLOCK	 BIT(4) /* write the kvmclock page anew */
#define UM_REQ_EVENT	 BIT(5) /* look for interrupts */
#define UM_REQ_SMI	 BIT(6)
#define UM_REQ_STIMER	 BIT(7) /* hv->due */
#define UM_REQ_TLB_FLUSH BIT(8) /* the guest's, by a hypercall of another vCPU's */

/* What the instruction that left for the VMM is waiting for. */
enum um_user_io {
	UM_USER_NONE,
	UM_USER_PIO,
	UM_USER_MMIO,
	UM_USER_RDMSR,
	UM_USER_WRMSR,
	UM_USER_HV_CALL,
	UM_USER_HV_SYNDBG, /* no instruction: the VMM's answer is taken */
};

struct um_vcpu {
	struct um_exec x; /* first: the engines' address arithmetic */
	struct um_vm *vm;
	struct um_mmu *mmu;
	struct um_counters *counters;
	struct um_lapic *lapic;	    /* NULL: no irqchip in the library */
	struct kvm_run *run;	    /* um_vcpu_run_size() bytes, shared with the VMM */
	struct um_dirty_ring *ring; /* NULL: the VM has bitmaps */
	u32 id;
	unsigned index; /* in vm->vcpu */

	pthread_mutex_t lock;

	/* --- any thread --- */
	atomic_uint requests; /* UM_REQ_... */
	atomic_uint nmi_queued;
	atomic_uint sipi_vector;
	atomic_bool waiting; /* asleep, or about to: see um_vcpu_kick() */
	atomic_bool running; /* in KVM_RUN */
	/*
	 * Between um_vcpu_enter_mmu() and um_vcpu_leave_mmu(): may execute guest code without a look at requests, even if
	 * the MMU's own `running` is clear for a while, in which it waits for a lock.
	 */
	atomic_bool in_guest;
	atomic_bool interrupt_run; /* um_vcpu_interrupt_run() */

	/* --- under lock --- */
	const atomic_bool *wanted_back; /* the thread's: a signal handler wants KVM_RUN to return */

	u32 mp_state; /* KVM_MP_STATE_... */
	bool pv_unhalted;

	bool exc_pending; /* exc has to be delivered */
	struct um_event exc;
	bool irq_pending; /* a vector was acknowledged, or given by KVM_INTERRUPT, not yet delivered */
	u8 irq;
	bool irq_soft;	/* set by KVM_SET_VCPU_EVENTS */
	u8 nmi_pending; /* 0..2 */
	bool triple_fault;
	bool smi_pending;    /* the one that can wait */
	bool smi_halted;     /* ... and woke the processor up: RSM halts it again */
	bool smm_inside_nmi; /* in SMM: NMIs were masked outside */

	enum um_user_io user_io;
	u8 user_insn_len;   /* RDMSR, WRMSR, VMCALL: of the instruction */
	u64 cr8, apic_base; /* without a LAPIC */

	struct kvm_guest_debug debug;
	bool ran; /* has been in the engine: CPUID is fixed */

	bool sigmask_set; /* KVM_SET_SIGNAL_MASK */
	sigset_t sigmask;
	struct um_timer poll_timer; /* while a mask is set: to look for pending signals */
	bool poll_timer_ready;

	/* paravirtual (pv.c) */
	u64 pv_system_time; /* MSR_KVM_SYSTEM_TIME: address and enable bit */
	u32 pv_times_set;   /* the clock_times_set that the page tells of; vm->pages_lock */
	atomic_bool pv_guest_stopped; /* KVM_KVMCLOCK_CTRL */
	u64 pv_steal;		      /* MSR_KVM_STEAL_TIME */
	u64 pv_poll_control;
	bool pv_enforce;	/* KVM_CAP_ENFORCE_PV_FEATURE_CPUID: only what CPUID shows exists */
	u64 steal_ns;		/* accounted */
	bool steal_preempted;	/* the guest was told that it does not run */
	u64 steal_left;		/* the host's TSC when KVM_RUN returned */
	u64 steal_tsc;		/* the host's TSC at the last look, ... */
	u64 steal_delay;	/* ... the run delay of ... */
	pthread_t steal_thread; /* ... the thread it was */

	struct um_hv_vcpu *hv; /* hyperv.h */

	u32 tsc_khz; /* of the guest */

	int stats_fd; /* of KVM_GET_STATS_FD, -1: none yet */
};

/* ---- VMs: vm.c ---- */

/* One reference, the caller's.  0 or -errno. */
int um_vm_create(const struct um_vm_config *cfg, struct um_vm **vm);
void um_vm_get(struct um_vm *vm);
void um_vm_put(struct um_vm *vm); /* the last one destroys it; no vCPU is left then */

/* KVM_CREATE_IRQCHIP, KVM_CAP_SPLIT_IRQCHIP.  0, -EEXIST, -EINVAL (there are vCPUs), -ENOMEM. */
int um_vm_create_irqchip(struct um_vm *vm, bool split, u32 nr_reserved_pins);

static inline struct um_irqchip *um_vm_irqchip(struct um_vm *vm)
{
	return atomic_load_explicit(&vm->irqchip, memory_order_acquire);
}

/* The vCPU with this id, or NULL. */
struct um_vcpu *um_vm_find_vcpu(struct um_vm *vm, u32 id);

/*
 * KVM_CAP_DIRTY_LOG_RING: each vCPU to come has a ring of @bytes.  0; -EINVAL (not a power of two, too small,
 * there are rings or vCPUs already), -E2BIG.
 */
int um_vm_enable_dirty_rings(struct um_vm *vm, u64 bytes);

/* Every vCPU of @vm, in @v. */
#define um_for_each_vcpu(vm, i, v) \
	for ((i) = 0; (i) < atomic_load(&(vm)->nvcpus) && ((v) = (vm)->vcpu[i], true); (i)++)

/* ---- vCPUs: vcpu.c ---- */

/*
 * What a vCPU shares with the VMM: UM_RUN_PAGES; and behind a gap its dirty ring, if the VM has rings, at page
 * KVM_DIRTY_LOG_PAGE_OFFSET.
 */
size_t um_vcpu_run_size(const struct um_vm *vm);

/*
 * KVM_CREATE_VCPU.  @run: um_vcpu_run_size() zeroed bytes of a shared mapping, which the vCPU unmaps when
 * it is destroyed: with its VM, as in KVM.  Takes a reference to the VM for the caller, given back with
 * um_vm_put().  0; -EINVAL (id too large, too many), -EEXIST, -ENOMEM; then @run is still the caller's.
 */
int um_vcpu_create(struct um_vm *vm, u32 id, struct kvm_run *run, size_t size,
		   struct um_vcpu **vcpu);

/* By the VM at its end: nobody uses it any more. */
void um_vcpu_destroy(struct um_vcpu *v);

/* Make the vCPU look at its requests soon, waking it if it sleeps.  Any thread; never blocks. */
void um_vcpu_kick(struct um_vcpu *v);
/* KVM_RUN, this one or else the next, returns with -EINTR.  Any thread. */
void um_vcpu_interrupt_run(struct um_vcpu *v);
void um_vcpu_request(struct um_vcpu *v, unsigned req); /* and kick */

/* Power-up, or INIT. */
void um_vcpu_reset(struct um_vcpu *v, bool init);

/* Forget an instruction that was waiting for its I/O: the guest is somewhere else now. */
void um_vcpu_cancel_io(struct um_vcpu *v);

/* Control registers, EFER or CPUID were changed from outside: MMU and engine start anew. */
void um_vcpu_state_changed(struct um_vcpu *v);

/* ---- running: run.c ---- */

/* KVM_RUN; lock held, wanted_back set.  0 with run->exit_reason; -EINTR, -EAGAIN, -EFAULT, -EINVAL. */
int um_vcpu_run(struct um_vcpu *v);

/*
 * um_mmu_enter(), for whoever is about to execute guest code or access guest memory for the guest: flushes that
 * other vCPUs asked for by hypercalls are done.  0 or -ENOMEM.
 */
int um_vcpu_enter_mmu(struct um_vcpu *v);
void um_vcpu_leave_mmu(struct um_vcpu *v);

/* Is there something for a halted vCPU to wake up for? */
bool um_vcpu_runnable(struct um_vcpu *v);

/* Finish the instruction whose I/O was answered.  1: done; 0: exit to the VMM; -errno. */
int um_vcpu_finish_io(struct um_vcpu *v);

/* KVM_SET_SIGNAL_MASK; NULL: none.  0 or -errno. */
int um_vcpu_set_signal_mask(struct um_vcpu *v, const sigset_t *mask);

/* Act on INIT and SIPI that have arrived (also before KVM_GET_MP_STATE). */
void um_vcpu_accept_events(struct um_vcpu *v);

/* ---- events: events.c ---- */

/* Queue an exception that the vCPU layer itself raises; takes effect when the guest next runs. */
void um_vcpu_queue_exception(struct um_vcpu *v, enum um_vector vec, bool has_error, u32 error);

/* Move queued NMIs into nmi_pending. */
void um_vcpu_collect_nmis(struct um_vcpu *v);

/*
 * Deliver what is pending, by priority, and arrange windows for what can't be delivered now.  Returns 1:
 * run the guest; 0: exit to the VMM; -errno.
 */
int um_vcpu_inject(struct um_vcpu *v);

/* Deliver exception @ev through the guest's IDT, combining double faults.  As um_vcpu_inject(). */
int um_vcpu_deliver_exception(struct um_vcpu *v, struct um_event ev);
/*
 * The delivery of @first raised x.exit.exc: make pending what comes of the two, in v->exc.  False: a triple fault is
 * pending instead.
 */
bool um_vcpu_next_exception(struct um_vcpu *v, struct um_event first);

/* An exception that an engine reported: to the debugger (0), or pending for the guest (1). */
int um_vcpu_exception(struct um_vcpu *v, const struct um_event *ev);

/* Triple fault: KVM_EXIT_SHUTDOWN.  Returns 0. */
int um_vcpu_shutdown(struct um_vcpu *v);

void um_trace_event(const struct um_vcpu *v, const struct um_event *ev);

bool um_vcpu_irq_allowed(const struct um_vcpu *v);
bool um_vcpu_nmi_allowed(const struct um_vcpu *v);
/* May the VMM inject with KVM_INTERRUPT now? */
bool um_vcpu_ready_for_injection(struct um_vcpu *v);
/* An interrupt from any controller in the library is waiting. */
bool um_vcpu_has_interrupt(struct um_vcpu *v);

/* KVM_INTERRUPT, KVM_NMI. */
int um_vcpu_interrupt(struct um_vcpu *v, u32 vector);
void um_vcpu_nmi(struct um_vcpu *v);

/* ---- system-management mode: smm.c ---- */

bool um_vcpu_smi_allowed(const struct um_vcpu *v);
/* Take the SMI that is pending, between instructions. */
void um_vcpu_enter_smm(struct um_vcpu *v);
/* RSM.  As um_vcpu_handle_exit(). */
int um_vcpu_rsm(struct um_vcpu *v);

/* ---- exits: exits.c ---- */

/* Act on x->exit.  1: go on; 0: to the VMM; -errno. */
int um_vcpu_handle_exit(struct um_vcpu *v, enum um_exit_kind kind);

/* The processor is halted; or, without a LAPIC here, the VMM has to know.  As um_vcpu_handle_exit(). */
int um_vcpu_halt(struct um_vcpu *v);

/* End an instruction that this layer did, with the debug trap that may be due.  1 or 0. */
int um_vcpu_retire(struct um_vcpu *v);

/* ---- devices: io.c ---- */

int um_vcpu_pio(struct um_vcpu *v);
int um_vcpu_mmio(struct um_vcpu *v);
/* The VMM has called KVM_RUN again: take its answer from struct kvm_run.  As um_vcpu_handle_exit(). */
int um_vcpu_complete_user_io(struct um_vcpu *v);
/*
 * KVM_REGISTER_COALESCED_MMIO, KVM_UNREGISTER_COALESCED_MMIO: writes to a zone wait in the ring until the VMM
 * looks.  0; -EINVAL (neither MMIO nor ports); -ENOSPC, -ENOMEM.  Unregistering takes out the zones that
 * contain the given range; none is no error.
 */
int um_coalesced_register(struct um_vm *vm, const struct kvm_coalesced_mmio_zone *zone);
int um_coalesced_unregister(struct um_vm *vm, const struct kvm_coalesced_mmio_zone *zone);
/* True: the write is in the ring.  False: not in a zone, or the ring is full. */
bool um_coalesced_write(struct um_vm *vm, enum um_io_space space, u64 addr, unsigned len,
			const void *data);
/* At creation and at the end of a VM.  0 or -errno. */
int um_coalesced_init(struct um_vm *vm);
void um_coalesced_destroy(struct um_vm *vm);

/* Split irqchip: an EOI that the VMM's IOAPIC must see.  1: none; 0: exit. */
int um_vcpu_ioapic_eoi(struct um_vcpu *v);

/* ---- the guest's RDMSR and WRMSR: msr_exits.c.  As um_vcpu_handle_exit(). ---- */

int um_vcpu_rdmsr(struct um_vcpu *v);
int um_vcpu_wrmsr(struct um_vcpu *v);
int um_vcpu_complete_msr(struct um_vcpu *v, bool write);
/* KVM_X86_SET_MSR_FILTER.  0; -EINVAL: flags, bitmap too large, nothing allowed; -EFAULT; -ENOMEM. */
int um_vm_set_msr_filter(struct um_vm *vm, const struct kvm_msr_filter *args);
void um_vm_free_msr_filter(struct um_vm *vm); /* at its end */

/* ---- MSRs and control registers: msrs.c ---- */

/* @host: KVM_GET_MSRS, KVM_SET_MSRS.  False: #GP(0), or the end of the VMM's list. */
bool um_vcpu_get_msr(struct um_vcpu *v, u32 msr, bool host, u64 *val);
bool um_vcpu_set_msr(struct um_vcpu *v, u32 msr, bool host, u64 val);
u64 um_vcpu_get_cr8(struct um_vcpu *v);
bool um_vcpu_set_cr8(struct um_vcpu *v, u64 val); /* false: #GP(0) */
u64 um_vcpu_get_apic_base(struct um_vcpu *v);
bool um_vcpu_set_apic_base(struct um_vcpu *v, u64 val, bool host);
/* KVM_SET_TSC_KHZ; 0 means the VM's default.  0 or -EINVAL. */
int um_vcpu_set_tsc_khz(struct um_vcpu *v, u32 khz);

/* ---- uAPI structures: state.c ---- */

void um_vcpu_get_regs(struct um_vcpu *v, struct kvm_regs *r);
void um_vcpu_set_regs(struct um_vcpu *v, const struct kvm_regs *r);
void um_vcpu_get_sregs(struct um_vcpu *v, struct kvm_sregs *s);
void um_vcpu_get_sregs2(struct um_vcpu *v, struct kvm_sregs2 *s);
/* 0 or -EINVAL: a combination that the processor can't be in. */
int um_vcpu_set_sregs(struct um_vcpu *v, const struct kvm_sregs *s);
int um_vcpu_set_sregs2(struct um_vcpu *v, const struct kvm_sregs2 *s);
void um_vcpu_get_events(struct um_vcpu *v, struct kvm_vcpu_events *e);
int um_vcpu_set_events(struct um_vcpu *v, const struct kvm_vcpu_events *e);
void um_vcpu_get_debugregs(struct um_vcpu *v, struct kvm_debugregs *d);
int um_vcpu_set_debugregs(struct um_vcpu *v, const struct kvm_debugregs *d);
/* DR6 and DR7, with their fixed bits as they are. */
void um_vcpu_set_dr67(struct um_vcpu *v, u64 dr6, u64 dr7);
void um_vcpu_get_mp_state(struct um_vcpu *v, struct kvm_mp_state *s);
int um_vcpu_set_mp_state(struct um_vcpu *v, const struct kvm_mp_state *s);
/* KVM_SET_GUEST_DEBUG.  0; -EBUSY (an exception is pending already). */
int um_vcpu_set_guest_debug(struct um_vcpu *v, const struct kvm_guest_debug *d);
/* KVM_X86_SET_MCE.  0 or -EINVAL. */
int um_vcpu_set_mce(struct um_vcpu *v, const struct kvm_x86_mce *mce);
/* KVM_CAP_SYNC_REGS: struct kvm_run.s.regs.  um_vcpu_sync_in() returns 0 or -EINVAL. */
void um_vcpu_sync_out(struct um_vcpu *v);
int um_vcpu_sync_in(struct um_vcpu *v);

/* ---- paravirtualization: pv.c, hypercall.c ---- */

void um_clock_init(struct um_vm *vm);
/* CLOCK_REALTIME and the host's TSC at one moment, in ns. */
u64 um_clock_realtime(u64 *tsc);
/* kvmclock of the VM at host TSC @tsc, in ns. */
u64 um_clock_at(struct um_vm *vm, u64 tsc);
void um_clock_get(struct um_vm *vm, struct kvm_clock_data *d);
int um_clock_set(struct um_vm *vm, const struct kvm_clock_data *d);
/* A new vCPU's TSC: in step with the others'. */
void um_tsc_init(struct um_vcpu *v);
/* Do all vCPUs read the same TSC at the same moment? */
bool um_tsc_in_step(struct um_vm *vm);
/* KVM_VCPU_TSC_OFFSET. */
void um_tsc_set_offset(struct um_vcpu *v, u64 offset);
/* KVM_SET_MSRS of the TSC: values that mean the same moment get the same offset. */
void um_tsc_host_write(struct um_vcpu *v, u64 val);

bool um_pv_set_system_time(struct um_vcpu *v, u64 val);
bool um_pv_set_wall_clock(struct um_vcpu *v, u64 val);
bool um_pv_set_steal(struct um_vcpu *v, u64 val);
void um_pv_update_clock(struct um_vcpu *v);
/* Account stolen time; @preempted: the guest may count this vCPU as not running. */
void um_pv_update_steal(struct um_vcpu *v, bool preempted);
/* At the beginning and end of KVM_RUN. */
void um_pv_enter(struct um_vcpu *v);
void um_pv_leave(struct um_vcpu *v);
/* KVM_KVMCLOCK_CTRL.  0 or -EINVAL (no kvmclock). */
int um_pv_guest_stopped(struct um_vcpu *v);

/* VMCALL, VMMCALL.  As um_vcpu_handle_exit(). */
int um_vcpu_hypercall(struct um_vcpu *v);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's interface for guests ("enlightenments"), as KVM offers it: a guest whose CPUID says "Hv#1" finds
 * MSRs for time, interrupts and identification, and hypercalls (TLFS; numbers in x86/hyperv.h).
 *
 *	hyperv_cpuid.c   what can be offered; what this guest was offered
 *	hyperv.c         MSRs of the VM ("partition") and of the vCPU ("virtual processor"), exits
 *	hyperv_time.c    reference time, reference TSC page
 *	hyperv_synic.c   message and event pages, delivery of messages (the interrupts: irqchip/synic.h)
 *	hyperv_timer.c   synthetic timers
 *	hyperv_call.c    hypercalls
 *	hyperv_event.c   eventfds in place of one hypercall's exit
 *
 * What KVM does not have is not here either: nested enlightenments, port and partition management.
 */
#ifndef UM_VCPU_HYPERV_H
#define UM_VCPU_HYPERV_H

#include "irqchip/synic.h"
#include "vcpu/vcpu.h"
#include "x86/hyperv.h"

#define UM_HV_STIMERS 4

/* Of a VM.  Under lock, which is taken after vcpu->lock and before clock_lock. */
struct um_hv_vm {
	pthread_mutex_t lock;
	_Atomic u64 guest_os_id; /* 0: VMCALL is KVM's.  Read without the lock. */
	u64 hypercall;		 /* HV_MSR_HYPERCALL */
	u64 reference_tsc;	 /* HV_MSR_REFERENCE_TSC */
	/* The page's contents; sequence 0: it is not in use, and reference time is kvmclock. */
	struct hv_reference_tsc tsc;
	bool tsc_by_guest; /* the MSR was last written by the guest, and the page not since */
	u64 reenlightenment_control, tsc_emulation_control, tsc_emulation_status;
	u64 crash_param[HV_MSR_CRASH_P4 - HV_MSR_CRASH_P0 + 1], crash_ctl;
	struct {
		u64 control, status, send_page, recv_page, pending_page, options;
	} syndbg;
	struct um_hv_connection *connections;
};

struct um_hv_stimer {
	struct um_vcpu *v;
	unsigned index;
	struct um_timer timer;
	u64 config, count;
	u64 expiry;	  /* in reference time; 0: not started */
	bool msg_pending; /* expired, but the message slot was taken */
};

/* Of a vCPU, under its lock but for what it says. */
struct um_hv_vcpu {
	/* What CPUID says: EAX, EBX, EDX of HV_CPUID_FEATURES, EAX, EBX of HV_CPUID_HINTS, and the debugger's. */
	bool present; /* "Hv#1" */
	bool enforce; /* KVM_CAP_HYPERV_ENFORCE_CPUID: what CPUID doesn't say doesn't exist */
	u32 access, privileges, features, hints, spins, syndbg;

	_Atomic u32 vp_index; /* read by any thread */
	u64 assist_page;
	u64 runtime_offset; /* 100 ns, added to the thread's CPU time */

	u64 scontrol, siefp, simp;
	bool keep_pages; /* KVM_CAP_HYPERV_SYNIC2: a page that is enabled is not cleared */

	struct um_hv_stimer stimer[UM_HV_STIMERS];
	bool timers_ready;
	atomic_uint due; /* bits: timers to look at.  Any thread */

	u32 exits; /* UM_HV_EXIT_...: the VMM is to be told before the guest goes on */
	u32 synic_msr, syndbg_msr;
};

#define UM_HV_EXIT_SYNIC  BIT(0) /* KVM_EXIT_HYPERV_SYNIC */
#define UM_HV_EXIT_SYNDBG BIT(1) /* KVM_EXIT_HYPERV_SYNDBG */
#define UM_HV_EXIT_CRASH  BIT(2) /* KVM_EXIT_SYSTEM_EVENT */
#define UM_HV_EXIT_RESET  BIT(3)

/* ---- life ---- */

int um_hv_vm_init(struct um_vm *vm); /* 0 or -ENOMEM */
void um_hv_vm_destroy(struct um_vm *vm);
/* After its LAPIC is made, and before that is destroyed.  0 or -ENOMEM. */
int um_hv_vcpu_init(struct um_vcpu *v);
void um_hv_vcpu_destroy(struct um_vcpu *v);

/* ---- for the API ---- */

/*
 * KVM_GET_SUPPORTED_HV_CPUID.  @direct_timers: there is, or may be, a LAPIC in the library.  The number of
 * entries, or -E2BIG.
 */
int um_hv_supported_cpuid(bool direct_timers, struct kvm_cpuid_entry2 *e, unsigned max);
/* The guest's CPUID was set. */
void um_hv_cpuid_changed(struct um_vcpu *v);
/* KVM_CAP_HYPERV_SYNIC, KVM_CAP_HYPERV_SYNIC2 (@keep_pages).  0; -EINVAL without a LAPIC; -ENOMEM. */
int um_hv_enable_synic(struct um_vcpu *v, bool keep_pages);
/* KVM_HYPERV_EVENTFD.  0; -EINVAL, -ENOENT, -EEXIST as api.rst 4.113; -EBADF, -EMFILE, -ENOMEM. */
int um_hv_eventfd(struct um_vm *vm, const struct kvm_hyperv_eventfd *args);

/* ---- for the run loop ---- */

/* HV_MSR_FIRST to HV_MSR_LAST.  As um_vcpu_get_msr(), um_vcpu_set_msr(). */
bool um_hv_get_msr(struct um_vcpu *v, u32 msr, bool host, u64 *val);
bool um_hv_set_msr(struct um_vcpu *v, u32 msr, bool host, u64 val);

/* Is VMCALL a hypercall of Hyper-V's? */
static inline bool um_hv_calls_enabled(const struct um_vcpu *v)
{
	return v->hv->present &&
	       atomic_load_explicit(&v->vm->hv->guest_os_id, memory_order_relaxed);
}

/* As um_vcpu_handle_exit(). */
int um_hv_hypercall(struct um_vcpu *v);
int um_hv_complete_hypercall(struct um_vcpu *v);
int um_hv_complete_syndbg(struct um_vcpu *v);

/* Tell the VMM what it has to know.  1: nothing; 0: run->exit_reason. */
int um_hv_exit(struct um_vcpu *v);

/* UM_REQ_CLOCK: kvmclock or a TSC was changed. */
void um_hv_clock_changed(struct um_vcpu *v);
/* UM_REQ_STIMER: some timer may have expired. */
void um_hv_run_timers(struct um_vcpu *v);
/* um_lapic_ops.sint_eoi */
void um_hv_sint_eoi(struct um_vcpu *v, u32 sints);

/* ---- between the files of this module ---- */

/* Entry @leaf of the guest's CPUID, or NULL. */
const struct um_cpuid_entry *um_hv_cpuid_entry(const struct um_vcpu *v, u32 leaf);

/* In 100 ns since the VM was made (or KVM_SET_CLOCK). */
u64 um_hv_reference_time(struct um_vcpu *v);
void um_hv_set_reference_tsc(struct um_vcpu *v, bool host, u64 val); /* hv->lock held */

bool um_hv_synic_get(struct um_vcpu *v, u32 msr, u64 *val);
bool um_hv_synic_set(struct um_vcpu *v, u32 msr, bool host, u64 val);

enum um_hv_post {
	UM_HV_POSTED,
	UM_HV_POST_BUSY, /* the slot is taken: the guest will write EOM, or end the SINT's interrupt */
	UM_HV_POST_OFF,	    /* no message page: the guest will enable it */
	UM_HV_POST_NOWHERE, /* no memory there, perhaps while the VMM rearranges it */
};

/* Put a message into the slot of @sint and interrupt.  @lose: don't ask for an EOM if the slot is taken. */
enum um_hv_post um_hv_post_message(struct um_vcpu *v, unsigned sint, const struct hv_message *msg,
				   bool lose);

bool um_hv_stimer_get(struct um_vcpu *v, u32 msr, u64 *val);
bool um_hv_stimer_set(struct um_vcpu *v, u32 msr, bool host, u64 val);
/* Timers whose message waits for the slot of one of @sints: try again. */
void um_hv_retry_timers(struct um_vcpu *v, u32 sints);
/* Look at all timers that run: the clock may have jumped. */
void um_hv_check_timers(struct um_vcpu *v);
int um_hv_timers_init(struct um_vcpu *v); /* 0 or -ENOMEM */
void um_hv_timers_destroy(struct um_vcpu *v);

/* The eventfd of connection @id was signalled; false: there is none. */
bool um_hv_signal_connection(struct um_vm *vm, u32 id);
void um_hv_connections_destroy(struct um_vm *vm);

#endif

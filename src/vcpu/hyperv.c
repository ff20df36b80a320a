// SPDX-License-Identifier: MIT
/*
 * MSRs of Hyper-V's interface that belong to the VM as a whole and to the vCPU, and what the VMM is told of them.
 * TLFS, "Partition Properties", "Virtual Processors"; which MSR needs which bit of CPUID: "Feature and Interface
 * Discovery".
 *
 * The VMM may read and write all of them, with or without the interface in the guest's CPUID, so that it can save
 * and restore them; what it writes has no effects but those that restore the state.
 */
#include "vcpu/hyperv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define APIC_FREQUENCY 1000000000ull /* Hz: lapic.h */
#define CPU_UNIT_NS    100

/* ---- life ---- */

int um_hv_vm_init(struct um_vm *vm)
{
	vm->hv = calloc(1, sizeof(*vm->hv));
	if (!vm->hv)
		return -ENOMEM;
	pthread_mutex_init(&vm->hv->lock, NULL);
	return 0;
}

void um_hv_vm_destroy(struct um_vm *vm)
{
	if (!vm->hv)
		return;
	um_hv_connections_destroy(vm);
	pthread_mutex_destroy(&vm->hv->lock);
	free(vm->hv);
}

int um_hv_vcpu_init(struct um_vcpu *v)
{
	v->hv = calloc(1, sizeof(*v->hv));
	if (!v->hv)
		return -ENOMEM;
	atomic_init(&v->hv->vp_index, v->index);
	if (v->lapic)
		um_synic_set_vp_index(v->lapic, v->index);
	return 0;
}

void um_hv_vcpu_destroy(struct um_vcpu *v)
{
	if (v->hv)
		um_hv_timers_destroy(v);
	free(v->hv);
}

/* ---- what exists for the guest ---- */

static bool exists(const struct um_hv_vcpu *hv, u32 msr)
{
	if (!hv->present)
		return false;
	if (msr >= HV_MSR_SYNDBG_CONTROL && msr <= HV_MSR_SYNDBG_OPTIONS &&
	    !(hv->syndbg & HV_SYNDBG_KERNEL_DEBUGGING))
		return false;
	if (!hv->enforce)
		return true;
	switch (msr) {
	case HV_MSR_GUEST_OS_ID:
	case HV_MSR_HYPERCALL:
		return hv->access & HV_ACCESS_HYPERCALL;
	case HV_MSR_VP_INDEX:
		return hv->access & HV_ACCESS_VP_INDEX;
	case HV_MSR_RESET:
		return hv->access & HV_ACCESS_RESET;
	case HV_MSR_VP_RUNTIME:
		return hv->access & HV_ACCESS_VP_RUNTIME;
	case HV_MSR_TIME_REF_COUNT:
		return hv->access & HV_ACCESS_TIME_REF_COUNT;
	case HV_MSR_REFERENCE_TSC:
		return hv->access & HV_ACCESS_REFERENCE_TSC;
	case HV_MSR_TSC_FREQUENCY:
	case HV_MSR_APIC_FREQUENCY:
		return hv->access & HV_ACCESS_FREQUENCIES;
	case HV_MSR_EOI ... HV_MSR_VP_ASSIST_PAGE:
		return hv->access & HV_ACCESS_APIC;
	case HV_MSR_SCONTROL ... HV_MSR_SINT15:
		return hv->access & HV_ACCESS_SYNIC;
	case HV_MSR_STIMER0_CONFIG ... HV_MSR_STIMER3_COUNT:
		return hv->access & HV_ACCESS_STIMER;
	case HV_MSR_SYNDBG_CONTROL ... HV_MSR_SYNDBG_OPTIONS:
		return hv->features & HV_FEATURE_SYNDBG;
	case HV_MSR_CRASH_P0 ... HV_MSR_CRASH_CTL:
		return hv->features & HV_FEATURE_CRASH;
	case HV_MSR_REENLIGHTENMENT_CONTROL ... HV_MSR_TSC_EMULATION_STATUS:
		return hv->access & HV_ACCESS_REENLIGHTENMENT;
	}
	return false;
}

/* ---- MSRs of the VM; hv->lock held ---- */

/* The guest calls this page, so that it need not know which instruction it is. */
static bool write_hypercall_page(struct um_vcpu *v, gpa_t gpa)
{
	static const u8 vmcall[] = { 0x0f, 0x01, 0xc1, 0xc3 /* RET */ };
	static const u8 vmmcall[] = { 0x0f, 0x01, 0xd9, 0xc3 };
	bool amd = v->x.cpu.vendor == UM_VENDOR_AMD;

	return !um_mem_write(v->vm->mem, 0, gpa, amd ? vmmcall : vmcall, sizeof(vmcall));
}

static bool set_hypercall(struct um_vcpu *v, bool host, u64 val)
{
	struct um_hv_vm *hv = v->vm->hv;

	/* Nothing happens before the guest has said who it is, nor once it has locked the page. */
	if (!atomic_load(&hv->guest_os_id) || (!host && hv->hypercall & HV_HYPERCALL_LOCKED))
		return true;
	if (val & HV_PAGE_ENABLE && !write_hypercall_page(v, val & HV_PAGE_ADDRESS))
		return false;
	hv->hypercall = val;
	return true;
}

static void set_guest_os_id(struct um_hv_vm *hv, u64 val)
{
	atomic_store(&hv->guest_os_id, val);
	if (!val)
		hv->hypercall &= ~HV_PAGE_ENABLE;
}

static bool set_crash_ctl(struct um_vcpu *v, bool host, u64 val)
{
	if (host) /* what the guest may ask for */
		v->vm->hv->crash_ctl = val & HV_CRASH_CTL_NOTIFY;
	else if (val & HV_CRASH_CTL_NOTIFY)
		v->hv->exits |= UM_HV_EXIT_CRASH;
	return true;
}

static u64 *syndbg_field(struct um_hv_vm *hv, u32 msr)
{
	switch (msr) {
	case HV_MSR_SYNDBG_CONTROL:
		return &hv->syndbg.control;
	case HV_MSR_SYNDBG_STATUS:
		return &hv->syndbg.status;
	case HV_MSR_SYNDBG_SEND_BUFFER:
		return &hv->syndbg.send_page;
	case HV_MSR_SYNDBG_RECV_BUFFER:
		return &hv->syndbg.recv_page;
	case HV_MSR_SYNDBG_PENDING_BUFFER:
		return &hv->syndbg.pending_page;
	case HV_MSR_SYNDBG_OPTIONS:
		return &hv->syndbg.options;
	}
	return NULL;
}

static bool set_syndbg(struct um_vcpu *v, u32 msr, bool host, u64 val)
{
	u64 *field = syndbg_field(v->vm->hv, msr);

	if (!field)
		return false;
	*field = val;
	if (!host && (msr == HV_MSR_SYNDBG_CONTROL || msr == HV_MSR_SYNDBG_PENDING_BUFFER)) {
		v->hv->syndbg_msr = msr;
		v->hv->exits |= UM_HV_EXIT_SYNDBG;
	}
	return true;
}

static bool get_vm_msr(struct um_vcpu *v, u32 msr, u64 *val)
{
	struct um_hv_vm *hv = v->vm->hv;
	const u64 *field;

	switch (msr) {
	case HV_MSR_GUEST_OS_ID:
		*val = atomic_load(&hv->guest_os_id);
		return true;
	case HV_MSR_HYPERCALL:
		*val = hv->hypercall;
		return true;
	case HV_MSR_REFERENCE_TSC:
		*val = hv->reference_tsc;
		return true;
	case HV_MSR_CRASH_P0 ... HV_MSR_CRASH_P4:
		*val = hv->crash_param[msr - HV_MSR_CRASH_P0];
		return true;
	case HV_MSR_CRASH_CTL:
		*val = hv->crash_ctl;
		return true;
	case HV_MSR_REENLIGHTENMENT_CONTROL:
		*val = hv->reenlightenment_control;
		return true;
	case HV_MSR_TSC_EMULATION_CONTROL:
		*val = hv->tsc_emulation_control;
		return true;
	case HV_MSR_TSC_EMULATION_STATUS:
		*val = hv->tsc_emulation_status;
		return true;
	}
	field = syndbg_field(hv, msr);
	if (field)
		*val = *field;
	return field;
}

static bool set_vm_msr(struct um_vcpu *v, u32 msr, bool host, u64 val)
{
	struct um_hv_vm *hv = v->vm->hv;

	switch (msr) {
	case HV_MSR_GUEST_OS_ID:
		set_guest_os_id(hv, val);
		return true;
	case HV_MSR_HYPERCALL:
		return set_hypercall(v, host, val);
	case HV_MSR_REFERENCE_TSC:
		um_hv_set_reference_tsc(v, host, val);
		return true;
	case HV_MSR_CRASH_P0 ... HV_MSR_CRASH_P4:
		hv->crash_param[msr - HV_MSR_CRASH_P0] = val;
		return true;
	case HV_MSR_CRASH_CTL:
		return set_crash_ctl(v, host, val);
	case HV_MSR_REENLIGHTENMENT_CONTROL:
		hv->reenlightenment_control = val;
		return true;
	case HV_MSR_TSC_EMULATION_CONTROL:
		hv->tsc_emulation_control = val;
		return true;
	case HV_MSR_TSC_EMULATION_STATUS:
		if (val && !host)
			return false;
		hv->tsc_emulation_status = val;
		return true;
	}
	return set_syndbg(v, msr, host, val);
}

/* ---- MSRs of the vCPU ---- */

/* Time for which the vCPU's thread has had a CPU. */
static u64 runtime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ((u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec) / CPU_UNIT_NS;
}

/* The first word of the page is the flag of PV EOI, under another name. */
static bool set_assist_page(struct um_vcpu *v, bool host, u64 val)
{
	const u32 zero = 0;

	if (!v->lapic)
		return host && !val;
	if (val & HV_PAGE_ENABLE) {
		/* What else is in it is the guest's, and stays. */
		if (um_mem_write(v->vm->mem, 0, val & HV_PAGE_ADDRESS, &zero, sizeof(zero)))
			return false;
		um_lapic_set_pv_eoi(v->lapic, (val & HV_PAGE_ADDRESS) | 1);
	} else if (v->hv->assist_page & HV_PAGE_ENABLE) {
		um_lapic_set_pv_eoi(v->lapic, 0);
	}
	v->hv->assist_page = val;
	return true;
}

static bool set_vp_index(struct um_vcpu *v, bool host, u64 val)
{
	if (!host || val >= UM_MAX_VCPUS)
		return false;
	atomic_store(&v->hv->vp_index, (u32)val);
	if (v->lapic)
		um_synic_set_vp_index(v->lapic, (u32)val);
	return true;
}

static u32 apic_register(u32 msr)
{
	switch (msr) {
	case HV_MSR_EOI:
		return UM_LAPIC_EOI;
	case HV_MSR_ICR:
		return UM_LAPIC_ICR;
	}
	return UM_LAPIC_TPR;
}

bool um_hv_get_msr(struct um_vcpu *v, u32 msr, bool host, u64 *val)
{
	struct um_hv_vm *hv = v->vm->hv;
	bool ok;

	if (!host && !exists(v->hv, msr))
		return false;
	switch (msr) {
	case HV_MSR_VP_INDEX:
		*val = atomic_load(&v->hv->vp_index);
		return true;
	case HV_MSR_RESET:
		*val = 0;
		return true;
	case HV_MSR_VP_RUNTIME:
		*val = runtime() + v->hv->runtime_offset;
		return true;
	case HV_MSR_TIME_REF_COUNT:
		*val = um_hv_reference_time(v);
		return true;
	case HV_MSR_TSC_FREQUENCY:
		*val = v->tsc_khz * 1000ull;
		return true;
	case HV_MSR_APIC_FREQUENCY:
		*val = APIC_FREQUENCY;
		return true;
	case HV_MSR_EOI:
	case HV_MSR_ICR:
	case HV_MSR_TPR:
		return v->lapic && um_lapic_hv_read(v->lapic, apic_register(msr), val);
	case HV_MSR_VP_ASSIST_PAGE:
		*val = v->hv->assist_page;
		return true;
	case HV_MSR_SCONTROL ... HV_MSR_SINT15:
		return um_hv_synic_get(v, msr, val);
	case HV_MSR_STIMER0_CONFIG ... HV_MSR_STIMER3_COUNT:
		return um_hv_stimer_get(v, msr, val);
	}
	pthread_mutex_lock(&hv->lock);
	ok = get_vm_msr(v, msr, val);
	pthread_mutex_unlock(&hv->lock);
	return ok;
}

bool um_hv_set_msr(struct um_vcpu *v, u32 msr, bool host, u64 val)
{
	struct um_hv_vm *hv = v->vm->hv;
	bool ok;

	if (!host && !exists(v->hv, msr))
		return false;
	switch (msr) {
	case HV_MSR_VP_INDEX:
		return set_vp_index(v, host, val);
	case HV_MSR_RESET:
		if (!host && val & 1)
			v->hv->exits |= UM_HV_EXIT_RESET;
		return true;
	case HV_MSR_VP_RUNTIME:
		if (host)
			v->hv->runtime_offset = val - runtime();
		return host;
	case HV_MSR_TIME_REF_COUNT: /* read-only: the VMM may write back what it read, to no effect */
	case HV_MSR_TSC_FREQUENCY:
	case HV_MSR_APIC_FREQUENCY:
		return host;
	case HV_MSR_EOI:
	case HV_MSR_ICR:
	case HV_MSR_TPR:
		return v->lapic && um_lapic_hv_write(v->lapic, apic_register(msr), val);
	case HV_MSR_VP_ASSIST_PAGE:
		return set_assist_page(v, host, val);
	case HV_MSR_SCONTROL ... HV_MSR_SINT15:
		return um_hv_synic_set(v, msr, host, val);
	case HV_MSR_STIMER0_CONFIG ... HV_MSR_STIMER3_COUNT:
		return um_hv_stimer_set(v, msr, host, val);
	}
	pthread_mutex_lock(&hv->lock);
	ok = set_vm_msr(v, msr, host, val);
	pthread_mutex_unlock(&hv->lock);
	return ok;
}

/* ---- exits ---- */

static void synic_exit(struct um_vcpu *v)
{
	struct kvm_hyperv_exit *e = &v->run->hyperv;

	v->run->exit_reason = KVM_EXIT_HYPERV;
	memset(e, 0, sizeof(*e));
	e->type = KVM_EXIT_HYPERV_SYNIC;
	e->u.synic.msr = v->hv->synic_msr;
	e->u.synic.control = v->hv->scontrol;
	e->u.synic.evt_page = v->hv->siefp;
	e->u.synic.msg_page = v->hv->simp;
}

static void syndbg_exit(struct um_vcpu *v)
{
	struct kvm_hyperv_exit *e = &v->run->hyperv;
	struct um_hv_vm *hv = v->vm->hv;

	v->run->exit_reason = KVM_EXIT_HYPERV;
	memset(e, 0, sizeof(*e));
	e->type = KVM_EXIT_HYPERV_SYNDBG;
	e->u.syndbg.msr = v->hv->syndbg_msr;
	pthread_mutex_lock(&hv->lock);
	e->u.syndbg.control = hv->syndbg.control;
	e->u.syndbg.status = hv->syndbg.status;
	e->u.syndbg.send_page = hv->syndbg.send_page;
	e->u.syndbg.recv_page = hv->syndbg.recv_page;
	e->u.syndbg.pending_page = hv->syndbg.pending_page;
	pthread_mutex_unlock(&hv->lock);
	v->user_io = UM_USER_HV_SYNDBG;
}

/* The VMM has done what the control register says: how it went. */
int um_hv_complete_syndbg(struct um_vcpu *v)
{
	struct um_hv_vm *hv = v->vm->hv;

	if (v->run->hyperv.u.syndbg.msr == HV_MSR_SYNDBG_CONTROL) {
		pthread_mutex_lock(&hv->lock);
		hv->syndbg.status = v->run->hyperv.u.syndbg.status;
		pthread_mutex_unlock(&hv->lock);
	}
	return 1;
}

static void system_event(struct um_vcpu *v, u32 type)
{
	v->run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	memset(&v->run->system_event, 0, sizeof(v->run->system_event));
	v->run->system_event.type = type;
}

int um_hv_exit(struct um_vcpu *v)
{
	u32 *exits = &v->hv->exits, which;

	if (likely(!*exits))
		return 1;
	which = *exits & -*exits;
	*exits &= ~which;
	switch (which) {
	case UM_HV_EXIT_SYNIC:
		synic_exit(v);
		break;
	case UM_HV_EXIT_SYNDBG:
		syndbg_exit(v);
		break;
	case UM_HV_EXIT_CRASH:
		system_event(v, KVM_SYSTEM_EVENT_CRASH);
		break;
	case UM_HV_EXIT_RESET:
		system_event(v, KVM_SYSTEM_EVENT_RESET);
		break;
	}
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * The pages of the synthetic interrupt controller (TLFS, "Inter-Partition Communication"): one of messages, a slot
 * of 256 bytes for each SINT, and one of event flags, which is the VMM's to write.
 *
 * A slot is free when its type is HV_MESSAGE_NONE.  Who finds it taken sets a flag in it; the guest, when it frees
 * the slot, then writes EOM, and the message is tried again.  The VMM puts messages there, too: so it is told
 * where the pages are (KVM_EXIT_HYPERV_SYNIC).
 */
#include <errno.h>

#include "vcpu/hyperv.h"

#define ALL_SINTS GENMASK(UM_NR_SINTS - 1, 0)

int um_hv_enable_synic(struct um_vcpu *v, bool keep_pages)
{
	int err;

	if (!v->lapic)
		return -EINVAL;
	err = um_hv_timers_init(v);
	if (err)
		return err;
	v->hv->keep_pages = keep_pages;
	um_synic_activate(v->lapic);
	return 0;
}

static bool active(const struct um_vcpu *v)
{
	return v->lapic && um_synic_active(v->lapic);
}

bool um_hv_synic_get(struct um_vcpu *v, u32 msr, u64 *val)
{
	const struct um_hv_vcpu *hv = v->hv;

	switch (msr) {
	case HV_MSR_SCONTROL:
		*val = hv->scontrol;
		return true;
	case HV_MSR_SVERSION:
		*val = HV_SYNIC_VERSION;
		return true;
	case HV_MSR_SIEFP:
		*val = hv->siefp;
		return true;
	case HV_MSR_SIMP:
		*val = hv->simp;
		return true;
	case HV_MSR_EOM:
		*val = 0;
		return true;
	case HV_MSR_SINT0 ... HV_MSR_SINT15:
		*val = active(v) ? um_synic_get_sint(v->lapic, msr - HV_MSR_SINT0) : UM_SINT_MASKED;
		return true;
	}
	return false;
}

static bool set_page(struct um_vcpu *v, bool host, u64 *page, u64 val)
{
	static const u8 zeros[UM_PAGE_SIZE];

	if (val & HV_PAGE_ENABLE && !host && !v->hv->keep_pages &&
	    um_mem_write(v->vm->mem, 0, val & HV_PAGE_ADDRESS, zeros, sizeof(zeros)))
		return false;
	*page = val;
	return true;
}

static void tell(struct um_vcpu *v, bool host, u32 msr)
{
	if (host)
		return;
	v->hv->synic_msr = msr;
	v->hv->exits |= UM_HV_EXIT_SYNIC;
}

bool um_hv_synic_set(struct um_vcpu *v, u32 msr, bool host, u64 val)
{
	struct um_hv_vcpu *hv = v->hv;

	/* What it read without a SynIC the VMM may write back. */
	if (!active(v))
		return host && (!val || val == UM_SINT_MASKED);
	switch (msr) {
	case HV_MSR_SCONTROL:
		hv->scontrol = val;
		um_hv_retry_timers(v, ALL_SINTS);
		tell(v, host, msr);
		return true;
	case HV_MSR_SVERSION:
		return host;
	case HV_MSR_SIEFP:
	case HV_MSR_SIMP:
		if (!set_page(v, host, msr == HV_MSR_SIMP ? &hv->simp : &hv->siefp, val))
			return false;
		um_hv_retry_timers(v, ALL_SINTS);
		tell(v, host, msr);
		return true;
	case HV_MSR_EOM:
		um_synic_end_of_message(v->lapic);
		um_hv_retry_timers(v, ALL_SINTS);
		return true;
	case HV_MSR_SINT0 ... HV_MSR_SINT15:
		return um_synic_set_sint(v->lapic, msr - HV_MSR_SINT0, val, host);
	}
	return false;
}

enum um_hv_post um_hv_post_message(struct um_vcpu *v, unsigned sint, const struct hv_message *msg,
				   bool lose)
{
	const struct um_hv_vcpu *hv = v->hv;
	gpa_t slot = (hv->simp & HV_PAGE_ADDRESS) + sint * HV_MESSAGE_SIZE;
	struct um_mem *mem = v->vm->mem;
	const size_t rest = offsetof(struct hv_message, payload_size);
	struct hv_message now;

	if (!(hv->scontrol & HV_SCONTROL_ENABLE) || !(hv->simp & HV_PAGE_ENABLE))
		return UM_HV_POST_OFF;
	if (um_mem_read(mem, 0, slot, &now, offsetof(struct hv_message, payload)))
		return UM_HV_POST_NOWHERE;
	if (now.type != HV_MESSAGE_NONE) {
		if (lose)
			return UM_HV_POSTED;
		now.flags |= HV_MESSAGE_PENDING;
		if (um_mem_write(mem, 0, slot + offsetof(struct hv_message, flags), &now.flags,
				 sizeof(now.flags)))
			return UM_HV_POST_NOWHERE;
		return UM_HV_POST_BUSY;
	}
	/* The type last: it is what makes the slot taken. */
	if (um_mem_write(mem, 0, slot + rest, (const u8 *)msg + rest,
			 offsetof(struct hv_message, payload) - rest + msg->payload_size))
		return UM_HV_POST_NOWHERE;
	atomic_thread_fence(memory_order_release);
	if (um_mem_write(mem, 0, slot, &msg->type, sizeof(msg->type)))
		return UM_HV_POST_NOWHERE;
	um_synic_raise(v->lapic, sint);
	return UM_HV_POSTED;
}

void um_hv_sint_eoi(struct um_vcpu *v, u32 sints)
{
	um_hv_retry_timers(v, sints);
}

// SPDX-License-Identifier: MIT
/*
 * Reference time (TLFS, "Timers"): a count of 100 ns, which the guest reads from an MSR, or computes from its TSC by
 * the reference TSC page:
 *
 *	time = (TSC * scale >> 64) + offset
 *
 * Without the page, reference time is kvmclock.  With it, the page is the definition, for the MSR and the
 * timers too: so both ways to read it agree, and it is kvmclock as of when the page was written.  The page is
 * written anew when kvmclock or the TSC jumps, but for a guest that asked to be told of such changes
 * first (TSC_EMULATION_CONTROL): then it stays as it is, also over a migration.
 *
 * The page cannot be used (sequence 0) while the vCPUs' TSCs differ.
 */
#include "cpu/tsc.h"
#include "vcpu/hyperv.h"

#define UNITS_PER_SEC 10000000ull
#define NS_PER_UNIT   100
/* The page is left alone if it would change by no more: it is rounding. */
#define TOLERANCE 10

static u64 page_time(const struct hv_reference_tsc *t, u64 tsc)
{
	return (u64)((u128)tsc * t->scale >> 64) + (u64)t->offset;
}

u64 um_hv_reference_time(struct um_vcpu *v)
{
	struct um_hv_vm *hv = v->vm->hv;
	u64 tsc = __rdtsc(), time;

	pthread_mutex_lock(&hv->lock);
	if (hv->tsc.sequence)
		time = page_time(&hv->tsc, um_guest_tsc_at(&v->x.cpu, tsc));
	else
		time = um_clock_at(v->vm, tsc) / NS_PER_UNIT;
	pthread_mutex_unlock(&hv->lock);
	return time;
}

/* What the page should say now; sequence is 0 if it can't be used, 1 if it can. */
static struct hv_reference_tsc compute(struct um_vcpu *v)
{
	struct hv_reference_tsc t = { 0 };
	u64 hz = v->tsc_khz * 1000ull, tsc = __rdtsc();

	if (!um_tsc_in_step(v->vm) || hz <= UNITS_PER_SEC)
		return t;
	t.sequence = 1;
	t.scale = (u64)(((u128)UNITS_PER_SEC << 64) / hz);
	t.offset = (s64)(um_clock_at(v->vm, tsc) / NS_PER_UNIT -
			 page_time(&t, um_guest_tsc_at(&v->x.cpu, tsc)));
	return t;
}

static bool nearly_equal(const struct hv_reference_tsc *a, const struct hv_reference_tsc *b)
{
	u64 distance = (u64)a->offset - (u64)b->offset + TOLERANCE;

	return !a->sequence == !b->sequence && a->scale == b->scale && distance <= 2 * TOLERANCE;
}

/* Invalid first, then the contents, then the new sequence: other vCPUs read the page meanwhile. */
static bool write_page(struct um_vcpu *v, gpa_t gpa, struct hv_reference_tsc *t)
{
	struct um_mem *mem = v->vm->mem;
	u32 old, zero = 0;

	if (um_mem_read(mem, 0, gpa, &old, sizeof(old)) ||
	    um_mem_write(mem, 0, gpa, &zero, sizeof(zero)))
		return false;
	if (!t->sequence)
		return true;
	/* The guest tells by it that the page has changed; all ones are invalid, too. */
	t->sequence = old + 1 && old + 2 ? old + 1 : 1;
	atomic_thread_fence(memory_order_release);
	if (um_mem_write(mem, 0, gpa + offsetof(struct hv_reference_tsc, scale), &t->scale,
			 sizeof(t->scale) + sizeof(t->offset)))
		return false;
	atomic_thread_fence(memory_order_release);
	return !um_mem_write(mem, 0, gpa, &t->sequence, sizeof(t->sequence));
}

/* hv->lock held. */
static void refresh(struct um_vcpu *v)
{
	struct um_hv_vm *hv = v->vm->hv;
	gpa_t gpa = hv->reference_tsc & HV_PAGE_ADDRESS;
	struct hv_reference_tsc t;

	if (!(hv->reference_tsc & HV_PAGE_ENABLE))
		return;
	if (hv->tsc_emulation_control && !hv->tsc_by_guest) {
		/* Restored by the VMM: the page has come with the guest's memory. */
		if (!hv->tsc.sequence && !um_mem_read(v->vm->mem, 0, gpa, &t, sizeof(t)))
			hv->tsc = t;
		return;
	}
	t = compute(v);
	if (!hv->tsc_by_guest && nearly_equal(&t, &hv->tsc))
		return;
	hv->tsc_by_guest = false;
	if (!write_page(v, gpa, &t))
		t.sequence = 0;
	hv->tsc = t;
}

void um_hv_set_reference_tsc(struct um_vcpu *v, bool host, u64 val)
{
	struct um_hv_vm *hv = v->vm->hv;

	hv->reference_tsc = val;
	hv->tsc.sequence = 0;
	hv->tsc_by_guest = !host;
	if (!host)
		refresh(v);
	else /* when the other MSRs are restored, too */
		um_vcpu_request(v, UM_REQ_CLOCK);
}

void um_hv_clock_changed(struct um_vcpu *v)
{
	struct um_hv_vm *hv = v->vm->hv;

	pthread_mutex_lock(&hv->lock);
	refresh(v);
	pthread_mutex_unlock(&hv->lock);
	um_hv_check_timers(v);
}

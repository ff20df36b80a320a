// SPDX-License-Identifier: MIT
/*
 * Synthetic timers (TLFS, "Timers"): four for each vCPU, in units of reference time.  A one-shot timer has the time
 * at which it expires as its count, a periodic one its period.  It tells by a message to a SINT, or, in direct
 * mode, by a vector of the local APIC.
 *
 * The host's timer only says that it may be time (`due`); the vCPU's own thread looks, and does what is to be done,
 * because messages are written into guest memory.  So a host timer that comes early, for a clock that was
 * set back, does no harm.  All periodic timers are lazy, as in KVM: ticks for which the vCPU was too late
 * are lost, and a message for a slot that is still taken is not kept.
 */
#include <string.h>

#include "vcpu/hyperv.h"

#define NS_PER_UNIT 100
/* No shorter period than other timers of the library have (200 µs), none that overflows. */
#define MIN_PERIOD 2000ull
#define MAX_PERIOD (1ull << 60)
/* A message page that is not there may be in the middle of a change of slots: VMMs lay a page of theirs over it. */
#define RETRY_NS 1000000ull

static void look(struct um_hv_stimer *t)
{
	atomic_fetch_or(&t->v->hv->due, 1u << t->index);
	um_vcpu_request(t->v, UM_REQ_STIMER);
}

/* In the helper thread. */
static void on_timer(void *opaque)
{
	look(opaque);
}

int um_hv_timers_init(struct um_vcpu *v)
{
	struct um_hv_vcpu *hv = v->hv;

	if (hv->timers_ready)
		return 0;
	for (unsigned i = 0; i < UM_HV_STIMERS; i++) {
		struct um_hv_stimer *t = &hv->stimer[i];
		int err;

		t->v = v;
		t->index = i;
		err = um_timer_init(&t->timer, um_irqchip_timers(um_vm_irqchip(v->vm)), on_timer,
				    t);
		if (err) {
			um_hv_timers_destroy(v);
			return err;
		}
	}
	hv->timers_ready = true;
	return 0;
}

void um_hv_timers_destroy(struct um_vcpu *v)
{
	for (unsigned i = 0; i < UM_HV_STIMERS; i++) {
		um_timer_destroy(&v->hv->stimer[i].timer);
		memset(&v->hv->stimer[i].timer, 0, sizeof(v->hv->stimer[i].timer));
	}
}

/* ---- expiry ---- */

static void stop(struct um_hv_stimer *t)
{
	um_timer_cancel(&t->timer);
	t->expiry = 0;
	t->msg_pending = false;
}

static u64 period(const struct um_hv_stimer *t)
{
	return um_min(um_max(t->count, MIN_PERIOD), MAX_PERIOD);
}

/* Set the host's timer for the next expiry. */
static void start(struct um_hv_stimer *t, u64 now)
{
	if (t->config & HV_STIMER_PERIODIC) {
		if (!t->expiry)
			t->expiry = now + period(t);
		else if (t->expiry <= now) /* keep the phase */
			t->expiry = now + period(t) - (now - t->expiry) % period(t);
	} else {
		t->expiry = t->count;
	}
	if (t->expiry <= now)
		look(t);
	else /* A far one is looked at early, and set again. */
		um_timer_arm(&t->timer,
			     um_timer_now() + um_min(t->expiry - now, 1ull << 40) * NS_PER_UNIT);
}

static enum um_hv_post send(struct um_hv_stimer *t, u64 now)
{
	struct hv_timer_payload payload = { t->index, 0, t->expiry, now };
	struct hv_message msg = { .type = HV_MESSAGE_TIMER, .payload_size = sizeof(payload) };

	if (t->config & HV_STIMER_DIRECT) {
		um_lapic_fixed(t->v->lapic, HV_STIMER_VECTOR(t->config));
		return UM_HV_POSTED;
	}
	memcpy(msg.payload, &payload, sizeof(payload));
	return um_hv_post_message(t->v, HV_STIMER_SINT(t->config), &msg,
				  t->config & HV_STIMER_PERIODIC);
}

static void run(struct um_hv_stimer *t)
{
	u64 now;

	if (!(t->config & HV_STIMER_ENABLE) || !t->count) {
		stop(t);
		return;
	}
	now = um_hv_reference_time(t->v);
	if (t->expiry && t->expiry <= now) {
		enum um_hv_post sent = send(t, now);

		t->msg_pending = sent != UM_HV_POSTED;
		if (sent == UM_HV_POST_NOWHERE)
			um_timer_arm(&t->timer, um_timer_now() + RETRY_NS);
		if (!t->msg_pending && !(t->config & HV_STIMER_PERIODIC)) {
			t->config &= ~HV_STIMER_ENABLE;
			stop(t);
			return;
		}
	}
	if (!t->msg_pending)
		start(t, now);
}

void um_hv_run_timers(struct um_vcpu *v)
{
	struct um_hv_vcpu *hv = v->hv;
	unsigned due = atomic_exchange(&hv->due, 0);

	for (unsigned i = 0; i < UM_HV_STIMERS; i++) {
		if (due >> i & 1 && hv->timers_ready)
			run(&hv->stimer[i]);
	}
}

void um_hv_retry_timers(struct um_vcpu *v, u32 sints)
{
	for (unsigned i = 0; i < UM_HV_STIMERS; i++) {
		struct um_hv_stimer *t = &v->hv->stimer[i];

		if (t->msg_pending && sints >> HV_STIMER_SINT(t->config) & 1)
			look(t);
	}
}

void um_hv_check_timers(struct um_vcpu *v)
{
	for (unsigned i = 0; i < UM_HV_STIMERS; i++) {
		struct um_hv_stimer *t = &v->hv->stimer[i];

		if (t->config & HV_STIMER_ENABLE && !t->msg_pending)
			look(t);
	}
}

/* ---- MSRs ---- */

static bool is_count(u32 msr)
{
	return (msr - HV_MSR_STIMER0_CONFIG) & 1;
}

bool um_hv_stimer_get(struct um_vcpu *v, u32 msr, u64 *val)
{
	const struct um_hv_stimer *t = &v->hv->stimer[(msr - HV_MSR_STIMER0_CONFIG) / 2];

	*val = is_count(msr) ? t->count : t->config;
	return true;
}

static bool set_config(struct um_hv_stimer *t, bool host, u64 val)
{
	const struct um_hv_vcpu *hv = t->v->hv;

	if (!host && hv->enforce && val & HV_STIMER_DIRECT &&
	    !(hv->features & HV_FEATURE_STIMER_DIRECT))
		return false;
	/* SINT 0 is the hypervisor's own: a timer can't have it. */
	if (!(val & HV_STIMER_DIRECT) && !HV_STIMER_SINT(val))
		val &= ~HV_STIMER_ENABLE;
	t->config = val;
	return true;
}

static void set_count(struct um_hv_stimer *t, bool host, u64 val)
{
	t->count = val;
	if (host)
		return;
	if (!val)
		t->config &= ~HV_STIMER_ENABLE;
	else if (t->config & HV_STIMER_AUTO_ENABLE)
		t->config |= HV_STIMER_ENABLE;
}

bool um_hv_stimer_set(struct um_vcpu *v, u32 msr, bool host, u64 val)
{
	struct um_hv_stimer *t = &v->hv->stimer[(msr - HV_MSR_STIMER0_CONFIG) / 2];

	if (!v->hv->timers_ready)
		return host && !val;
	if (is_count(msr))
		set_count(t, host, val);
	else if (!set_config(t, host, val))
		return false;
	stop(t);
	if (t->config & HV_STIMER_ENABLE)
		look(t);
	return true;
}

// SPDX-License-Identifier: MIT
/*
 * The local APIC's timer (SDM "APIC Timer"): one-shot, periodic, TSC deadline.
 *
 * Its clock runs at 1 GHz before the divider, so a count is nanoseconds over the divider, and the
 * current count is computed from the clock when it is read.  The counter runs whether or not the
 * LVT entry is masked.  `running` and `target` say whether and when it expires next; um_timer is
 * only the alarm that makes the helper thread look.
 */
#include "irqchip/internal.h"

#define NSEC_PER_SEC 1000000000ull
/* A guest must not keep the helper thread busy for its own amusement. */
#define MIN_PERIOD 200000ull
/* Deadlines further away (292 years) than this are never. */
#define MAX_DELAY (1ull << 62)

static u32 timer_mode(const struct um_lapic *l)
{
	return reg_get(l, UM_LVT_TIMER) & LVT_TIMER_MODE;
}

/* Divide configuration register: bits 3, 1, 0 count from 2 in powers of two; 111 is 1. */
static u64 divider(const struct um_lapic *l)
{
	u32 tdcr = reg_get(l, APIC_TDCR);
	u32 code = (tdcr & 3) | (tdcr & 8) >> 1;

	return 1ull << ((code + 1) & 7);
}

static void run_until(struct um_lapic *l, u64 target)
{
	l->timer.running = true;
	l->timer.target = target;
	um_timer_arm(&l->timer.timer, target);
}

void lapic_timer_stop(struct um_lapic *l)
{
	l->timer.running = false;
	l->timer.tsc_deadline = 0;
	um_timer_cancel(&l->timer.timer);
}

static void expire(struct um_lapic *l)
{
	chip_count(l->chip, lapic_timers);
	lapic_deliver_lvt(l, UM_LVT_TIMER);
}

/* Place the TSC deadline on the host's clock; expire at once if it is past. */
static void start_deadline(struct um_lapic *l)
{
	u64 now, delay;
	u128 ns;
	u32 khz;

	l->ops->tsc(l->vcpu, &now, &khz);
	if (l->timer.tsc_deadline <= now) {
		l->timer.tsc_deadline = 0;
		l->timer.running = false;
		expire(l);
		return;
	}
	if (!khz)
		khz = 1;
	ns = ((u128)(l->timer.tsc_deadline - now) * 1000000 + khz - 1) / khz;
	delay = ns > MAX_DELAY ? MAX_DELAY : (u64)ns;
	run_until(l, um_timer_now() + delay);
}

static void periodic_expire(struct um_lapic *l, u64 now)
{
	struct lapic_timer *t = &l->timer;

	/* Periods that were missed altogether would have met their own request in IRR. */
	t->target += t->period * ((now - t->target) / t->period + 1);
	run_until(l, t->target);
	expire(l);
}

/* Expire if it is time.  The helper thread may be late. */
static void catch_up(struct um_lapic *l, u64 now)
{
	if (!l->timer.running || l->timer.target > now)
		return;
	switch (timer_mode(l)) {
	case LVT_DEADLINE:
		/* The two clocks may have drifted apart: the guest's TSC decides. */
		start_deadline(l);
		break;
	case LVT_PERIODIC:
		periodic_expire(l, now);
		break;
	default:
		l->timer.running = false;
		expire(l);
	}
}

/* The helper thread. */
static void alarm_rang(void *opaque)
{
	struct um_lapic *l = opaque;

	pthread_mutex_lock(&l->lock);
	if (!l->dead)
		catch_up(l, um_timer_now());
	pthread_mutex_unlock(&l->lock);
}

static void set_period(struct um_lapic *l, u64 ticks)
{
	l->timer.period = ticks * divider(l);
	if (timer_mode(l) == LVT_PERIODIC && l->timer.period && l->timer.period < MIN_PERIOD)
		l->timer.period = MIN_PERIOD;
}

void lapic_timer_set_count(struct um_lapic *l, u32 count)
{
	if (timer_mode(l) == LVT_DEADLINE)
		return;
	lapic_timer_stop(l);
	reg_set(l, APIC_TMICT, count);
	set_period(l, count);
	if (l->timer.period)
		run_until(l, um_timer_now() + l->timer.period);
}

/* Nanoseconds until the next expiry; 0 if there is none. */
static u64 remaining(const struct um_lapic *l)
{
	const struct lapic_timer *t = &l->timer;
	u64 now = um_timer_now();

	if (!t->running || timer_mode(l) == LVT_DEADLINE)
		return 0;
	if (t->target > now)
		return t->target - now;
	/* The helper thread is late. */
	if (timer_mode(l) != LVT_PERIODIC || !t->period)
		return 0;
	return t->period - (now - t->target) % t->period;
}

u32 lapic_timer_count(struct um_lapic *l)
{
	return (u32)(remaining(l) / divider(l));
}

u32 lapic_timer_save(struct um_lapic *l)
{
	u64 now = um_timer_now();

	catch_up(l, now);
	if (!l->timer.running || timer_mode(l) == LVT_DEADLINE)
		return 0;
	return um_max((u32)((l->timer.target - now) / divider(l)), 1u);
}

/* The count goes on from where it stands, at the new rate. */
void lapic_timer_set_divide(struct um_lapic *l, u32 tdcr)
{
	u64 left = remaining(l), old = divider(l);

	reg_set(l, APIC_TDCR, tdcr & 0xb);
	if (timer_mode(l) == LVT_DEADLINE)
		return;
	set_period(l, reg_get(l, APIC_TMICT));
	if (l->timer.running)
		run_until(l, um_timer_now() + left / old * divider(l));
}

void lapic_timer_set_lvt(struct um_lapic *l, u32 lvt)
{
	u32 old = timer_mode(l), new = lvt &LVT_TIMER_MODE;

	/* To and from TSC-deadline mode disarms (SDM "TSC-Deadline Mode"). */
	if (old != new && (old == LVT_DEADLINE || new == LVT_DEADLINE)) {
		lapic_timer_stop(l);
		reg_set(l, APIC_TMICT, 0);
		l->timer.period = 0;
	}
	reg_set(l, UM_LVT_TIMER, lvt);
	if (old != new &&new != LVT_DEADLINE)
		set_period(l, reg_get(l, APIC_TMICT));
}

void lapic_timer_restore(struct um_lapic *l)
{
	u64 left = (u64)reg_get(l, APIC_TMCCT) * divider(l);

	um_timer_cancel(&l->timer.timer);
	l->timer.running = false;
	l->timer.period = 0;
	if (timer_mode(l) == LVT_DEADLINE) {
		if (l->timer.tsc_deadline)
			start_deadline(l);
		return;
	}
	l->timer.tsc_deadline = 0;
	set_period(l, reg_get(l, APIC_TMICT));
	if (!l->timer.period)
		return;
	/* A periodic count of 0 is about to start over; a one-shot one has expired. */
	if (left)
		run_until(l, um_timer_now() + left);
	else if (timer_mode(l) == LVT_PERIODIC)
		run_until(l, um_timer_now() + l->timer.period);
}

u64 um_lapic_get_tsc_deadline(struct um_lapic *l)
{
	u64 ret;

	pthread_mutex_lock(&l->lock);
	ret = timer_mode(l) == LVT_DEADLINE ? l->timer.tsc_deadline : 0;
	pthread_mutex_unlock(&l->lock);
	return ret;
}

void um_lapic_set_tsc_deadline(struct um_lapic *l, u64 tsc)
{
	pthread_mutex_lock(&l->lock);
	if (lapic_enabled(l) && timer_mode(l) == LVT_DEADLINE) {
		lapic_timer_stop(l);
		l->timer.tsc_deadline = tsc;
		if (tsc)
			start_deadline(l);
	}
	pthread_mutex_unlock(&l->lock);
}

void um_lapic_tsc_changed(struct um_lapic *l)
{
	pthread_mutex_lock(&l->lock);
	if (timer_mode(l) == LVT_DEADLINE && l->timer.tsc_deadline)
		start_deadline(l);
	pthread_mutex_unlock(&l->lock);
}

int lapic_timer_init(struct um_lapic *l)
{
	return um_timer_init(&l->timer.timer, l->chip->timers, alarm_rang, l);
}

void lapic_timer_destroy(struct um_lapic *l)
{
	um_timer_destroy(&l->timer.timer);
}

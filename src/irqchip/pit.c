// SPDX-License-Identifier: MIT
/*
 * The 8254 programmable interval timer, and port 0x61 (Intel 8254 datasheet).
 *
 * A counter is never counted down: what it would hold, and its OUT pin, are computed from the time
 * since its count was loaded, at 1193182 Hz.  The state is KVM's struct kvm_pit_channel_state, with
 * what that lacks beside it.
 *
 * Channel 0's OUT is GSI 0.  A timer of the helper thread rings at each of its rising edges and
 * sends a pulse.  The gates of channels 0 and 1 are tied high, so modes 1 and 5, which wait for a
 * rising gate, never start there.
 *
 * Reinjection (KVM_REINJECT_CONTROL): a guest that counts ticks loses time if it is too slow to
 * acknowledge one before the next.  So ticks are counted in `backlog`, and each acknowledgement of
 * GSI 0 lets the next one go.  Unmasking the pin starts over: what came while it was masked is
 * lost.
 */
#include "irqchip/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIT_HZ	     1193182ull
#define NSEC_PER_SEC 1000000000ull
/* A guest must not keep the helper thread busy for its own amusement. */
#define MIN_PERIOD    200000ull
#define UNPROGRAMMED  0xff /* mode, until the guest writes a control word */
#define STATE_LEGACY  1	   /* KVM_PIT_FLAGS_HPET_LEGACY: the HPET has taken channel 0's place */
#define STATE_SPEAKER 2	   /* KVM_PIT_FLAGS_SPEAKER_DATA_ON: bit 1 of port 0x61 */

/* Access modes of a control word, and states of the byte sequence that follow from them. */
enum { RW_LATCH, RW_LSB, RW_MSB, RW_WORD0, RW_WORD1 };

struct channel {
	struct kvm_pit_channel_state s;
	bool waiting;  /* no count since the control word: the status byte's "null count" */
	bool stopped;  /* gate low in a mode that pauses: `paused` clocks have passed */
	bool no_start; /* mode 1 or 5, and no rising gate since */
	u64 paused;
};

struct pit {
	struct um_irqchip *chip;
	struct channel ch[3];
	bool speaker; /* port 0x61 is here */
	u32 flags;    /* STATE_* */
	struct um_timer timer;
	bool running, periodic;
	u64 target, period; /* ns */
	bool reinject;
	bool acked; /* the last tick was acknowledged */
	u32 backlog;
};

/* ---- Counting ---- */

static u64 ns_to_clocks(u64 ns)
{
	return (u64)((u128)ns * PIT_HZ / NSEC_PER_SEC);
}

static u64 clocks_to_ns(u64 clocks)
{
	return (u64)(((u128)clocks * NSEC_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}

/* The clocks in a full turn: what a count of 0 stands for. */
static u32 modulus(const struct channel *c)
{
	return c->s.bcd ? 10000 : 0x10000;
}

static u64 elapsed(const struct channel *c)
{
	u64 now = um_timer_now(), start = (u64)c->s.count_load_time;

	if (c->waiting || c->no_start)
		return 0;
	if (c->stopped)
		return c->paused;
	/* A time from another host's clock may lie ahead. */
	return now > start ? ns_to_clocks(now - start) : 0;
}

/* Clocks are counted from @clocks ago. */
static void set_elapsed(struct channel *c, u64 clocks)
{
	c->s.count_load_time = (s64)(um_timer_now() - clocks_to_ns(clocks));
}

static bool output(const struct channel *c)
{
	u64 d = elapsed(c), n = c->s.count;

	if (c->waiting || c->no_start)
		return c->s.mode != 0;
	switch (c->s.mode) {
	case 0:
	case 1:
		return d >= n;
	case 2:
		return !c->s.gate || d % n != n - 1;
	case 3:
		return !c->s.gate || d % n < (n + 1) / 2;
	case 4:
	case 5:
		return d != n;
	}
	return true;
}

static u16 to_bcd(u32 v)
{
	return (u16)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static u32 from_bcd(u16 v)
{
	return (v & 15) + (v >> 4 & 15) * 10u + (v >> 8 & 15) * 100u + (v >> 12) * 1000u;
}

/* What the counting element holds, as the guest would read it. */
static u16 current_count(const struct channel *c)
{
	u32 m = modulus(c), v;
	u64 d = elapsed(c), n = c->s.count;

	switch (c->s.mode) {
	case 2:
		v = (u32)(n - d % n);
		break;
	case 3: /* by twos, twice a period */
		v = (u32)(n - 2 * d % n);
		break;
	default: /* goes on through 0 */
		v = (u32)((n + m - d % m) % m);
	}
	v %= m;
	return c->s.bcd ? to_bcd(v) : (u16)v;
}

/* ---- Channel 0's interrupt ---- */

static void stop_timer(struct pit *p)
{
	p->running = false;
	um_timer_cancel(&p->timer);
}

static void start_timer(struct pit *p)
{
	struct channel *c = &p->ch[0];

	stop_timer(p);
	if ((p->flags & STATE_LEGACY) || c->waiting)
		return;
	switch (c->s.mode) {
	case 0:
	case 4:
		p->periodic = false;
		break;
	case 2:
	case 3:
		p->periodic = true;
		break;
	default:
		return;
	}
	p->period = clocks_to_ns(c->s.count);
	if (p->periodic)
		p->period = um_max(p->period, MIN_PERIOD);
	p->target = (u64)c->s.count_load_time + p->period;
	p->running = true;
	um_timer_arm(&p->timer, p->target);
}

/* LINT0 as an NMI: the old way to have a watchdog, driven by the PIT. */
static void tick_watchdogs(struct um_irqchip *chip)
{
	struct um_lapic *l;

	for_each_lapic(chip, id, l)
	{
		u32 lvt = reg_get(l, UM_LVT_LINT0);

		if ((lvt & (LVT_MASKED | LVT_MODE)) != (u32)DM_NMI << 8)
			continue;
		pthread_mutex_lock(&l->lock);
		lapic_deliver_lvt(l, UM_LVT_LINT0);
		pthread_mutex_unlock(&l->lock);
	}
}

void pit_send_tick(struct um_irqchip *chip)
{
	struct pit *p = chip->pit;

	if (p->reinject) {
		if (!p->acked)
			return;
		p->acked = false;
	}
	chip_count(chip, pit_ticks);
	routing_set_irq(chip, UM_IRQ_SOURCE_PIT, 0, true);
	routing_set_irq(chip, UM_IRQ_SOURCE_PIT, 0, false);
	tick_watchdogs(chip);
}

/* The helper thread. */
static void alarm_rang(void *opaque)
{
	struct pit *p = opaque;
	u64 now = um_timer_now(), ticks = 1;

	chip_lock(p->chip);
	if (p->running && p->target <= now) {
		if (p->periodic) {
			ticks += (now - p->target) / p->period;
			p->target += ticks * p->period;
			um_timer_arm(&p->timer, p->target);
		} else {
			p->running = false;
		}
		if (p->reinject)
			p->backlog = (u32)um_min(p->backlog + ticks, (u64)UINT32_MAX);
		p->chip->pit_kick = true;
	}
	chip_unlock(p->chip);
}

void pit_acked(struct um_irqchip *chip)
{
	struct pit *p = chip->pit;

	/* Acknowledgements of what others sent on GSI 0 are none of ours. */
	if (!p->reinject || p->acked)
		return;
	p->acked = true;
	if (p->backlog && --p->backlog)
		chip->pit_kick = true;
}

static void reset_reinject(struct pit *p)
{
	p->backlog = 0;
	p->acked = true;
}

void pit_unmasked(struct um_irqchip *chip)
{
	reset_reinject(chip->pit);
}

/* ---- Programming ---- */

static void load_count(struct pit *p, unsigned index, u16 val)
{
	struct channel *c = &p->ch[index];
	u32 n = c->s.bcd ? from_bcd(val) : val;

	c->s.count = n ? um_min(n, modulus(c)) : modulus(c);
	c->waiting = false;
	c->paused = 0;
	/* Modes 1 and 5 take the count with the next rising gate; a turn that is on goes on. */
	if (c->s.mode == 1 || c->s.mode == 5)
		return;
	set_elapsed(c, 0);
	if (index == 0) {
		reset_reinject(p);
		start_timer(p);
	}
}

static void set_gate(struct channel *c, bool gate)
{
	bool rising = gate && !c->s.gate, falling = !gate && c->s.gate;

	switch (c->s.mode) {
	case 1:
	case 5:
		if (rising) {
			c->no_start = false;
			set_elapsed(c, 0);
		}
		break;
	case 2:
	case 3:
		/* Low stops it, with OUT high; rising starts it over. */
		if (falling) {
			c->paused = 0;
			c->stopped = true;
		} else if (rising) {
			c->stopped = false;
			set_elapsed(c, 0);
		}
		break;
	default:
		if (falling) {
			c->paused = elapsed(c);
			c->stopped = true;
		} else if (rising) {
			c->stopped = false;
			set_elapsed(c, c->paused);
		}
	}
	c->s.gate = gate;
}

static void latch_count(struct channel *c)
{
	/* What is latched stays until it has been read. */
	if (c->s.count_latched)
		return;
	c->s.latched_count = current_count(c);
	c->s.count_latched = c->s.rw_mode;
}

static void latch_status(struct channel *c)
{
	if (c->s.status_latched)
		return;
	c->s.status = (u8)(output(c) << 7 | c->waiting << 6 | (c->s.rw_mode & 3) << 4 |
			   (c->s.mode & 7) << 1 | (c->s.bcd & 1));
	c->s.status_latched = 1;
}

static void read_back(struct pit *p, u8 val)
{
	for (unsigned i = 0; i < 3; i++) {
		if (!(val >> (i + 1) & 1))
			continue;
		if (!(val & 0x20))
			latch_count(&p->ch[i]);
		if (!(val & 0x10))
			latch_status(&p->ch[i]);
	}
}

static void write_control(struct pit *p, u8 val)
{
	unsigned index = val >> 6, rw = val >> 4 & 3, mode = val >> 1 & 7;
	struct channel *c;

	if (index == 3) {
		read_back(p, val);
		return;
	}
	c = &p->ch[index];
	if (rw == RW_LATCH) {
		latch_count(c);
		return;
	}
	c->s.rw_mode = c->s.read_state = c->s.write_state = (u8)rw;
	c->s.mode = (u8)(mode > 5 ? mode & 3 : mode); /* 6 and 7 are 2 and 3 */
	c->s.bcd = val & 1;
	c->s.count = um_min(c->s.count, modulus(c));
	c->s.count_latched = 0;
	c->s.status_latched = 0;
	c->waiting = true;
	c->no_start = c->s.mode == 1 || c->s.mode == 5;
	c->stopped = !c->s.gate && !c->no_start;
	c->paused = 0;
	if (index == 0)
		stop_timer(p);
}

static void write_count(struct pit *p, unsigned index, u8 val)
{
	struct kvm_pit_channel_state *s = &p->ch[index].s;

	switch (s->write_state) {
	case RW_LSB:
		load_count(p, index, val);
		break;
	case RW_MSB:
		load_count(p, index, (u16)(val << 8));
		break;
	case RW_WORD0:
		s->write_latch = val;
		s->write_state = RW_WORD1;
		break;
	case RW_WORD1:
		load_count(p, index, (u16)(s->write_latch | val << 8));
		s->write_state = RW_WORD0;
		break;
	}
}

static u8 read_latched(struct kvm_pit_channel_state *s)
{
	switch (s->count_latched) {
	case RW_MSB:
	case RW_WORD1:
		s->count_latched = 0;
		return (u8)(s->latched_count >> 8);
	case RW_WORD0:
		s->count_latched = RW_WORD1;
		return (u8)s->latched_count;
	}
	s->count_latched = 0;
	return (u8)s->latched_count;
}

static u8 read_count(struct channel *c)
{
	struct kvm_pit_channel_state *s = &c->s;
	u16 count;

	if (s->status_latched) {
		s->status_latched = 0;
		return s->status;
	}
	if (s->count_latched)
		return read_latched(s);
	count = current_count(c);
	switch (s->read_state) {
	case RW_MSB:
		return (u8)(count >> 8);
	case RW_WORD0:
		s->read_state = RW_WORD1;
		break;
	case RW_WORD1:
		s->read_state = RW_WORD0;
		return (u8)(count >> 8);
	}
	return (u8)count;
}

/* ---- Ports ---- */

bool pit_has_port(struct um_irqchip *chip, u16 port)
{
	if (!chip->pit)
		return false;
	return (port >= 0x40 && port <= 0x43) || (port == 0x61 && chip->pit->speaker);
}

u8 pit_read(struct um_irqchip *chip, u16 port)
{
	struct pit *p = chip->pit;
	struct channel *spk = &p->ch[2];

	if (port == 0x61)
		/* Bit 4 toggles with each refresh of the memory, every 15 us. */
		return (u8)(output(spk) << 5 | (um_timer_now() >> 14 & 1) << 4 |
			    !!(p->flags & STATE_SPEAKER) << 1 | !!spk->s.gate);
	if (port == 0x43)
		return 0; /* the control word cannot be read */
	return read_count(&p->ch[port & 3]);
}

void pit_write(struct um_irqchip *chip, u16 port, u8 val)
{
	struct pit *p = chip->pit;

	if (port == 0x61) {
		if (val & 2)
			p->flags |= STATE_SPEAKER;
		else
			p->flags &= ~(u32)STATE_SPEAKER;
		set_gate(&p->ch[2], val & 1);
	} else if (port == 0x43) {
		write_control(p, val);
	} else {
		write_count(p, port & 3, val);
	}
}

/* ---- Life and state ---- */

int um_irqchip_create_pit(struct um_irqchip *chip, u32 flags)
{
	struct pit *p;
	int err;

	if (chip->split)
		return -ENOENT;
	if (flags & ~(u32)KVM_PIT_SPEAKER_DUMMY)
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->chip = chip;
	p->speaker = flags & KVM_PIT_SPEAKER_DUMMY;
	p->reinject = true;
	reset_reinject(p);
	for (unsigned i = 0; i < 3; i++) {
		p->ch[i].s.mode = UNPROGRAMMED;
		p->ch[i].s.gate = i != 2;
		p->ch[i].s.count = 0x10000;
		set_elapsed(&p->ch[i], 0);
	}
	err = um_timer_init(&p->timer, chip->timers, alarm_rang, p);
	if (err)
		goto fail;
	chip_lock(chip);
	if (chip->pit) {
		chip_unlock(chip);
		um_timer_destroy(&p->timer);
		err = -EEXIST;
		goto fail;
	}
	chip->pit = p;
	ioapic_update_eoi_vectors(chip);
	chip_unlock(chip);
	return 0;
fail:
	free(p);
	return err;
}

void pit_destroy(struct um_irqchip *chip)
{
	struct pit *p = chip->pit;

	if (!p)
		return;
	chip_lock(chip);
	stop_timer(p);
	chip_unlock(chip);
	um_timer_destroy(&p->timer);
	chip->pit = NULL;
	free(p);
}

bool um_irqchip_has_pit(struct um_irqchip *chip)
{
	bool ret;

	chip_lock(chip);
	ret = chip->pit;
	chip_unlock(chip);
	return ret;
}

int um_irqchip_get_pit(struct um_irqchip *chip, struct kvm_pit_state2 *state)
{
	struct pit *p;

	memset(state, 0, sizeof(*state));
	chip_lock(chip);
	p = chip->pit;
	for (unsigned i = 0; p && i < 3; i++) {
		struct channel *c = &p->ch[i];

		/* A paused counter is told by a load time that gives what it has counted. */
		if (c->stopped)
			set_elapsed(c, c->paused);
		state->channels[i] = c->s;
	}
	if (p)
		state->flags = p->flags;
	chip_unlock(chip);
	return p ? 0 : -ENXIO;
}

static void set_channel(struct channel *c, const struct kvm_pit_channel_state *s)
{
	*c = (struct channel){ .s = *s };
	c->s.bcd &= 1;
	c->s.gate &= 1;
	if (!c->s.count || c->s.count > modulus(c))
		c->s.count = modulus(c);
	c->paused = elapsed(c);
	c->stopped = !c->s.gate && c->s.mode != 1 && c->s.mode != 5;
}

/* Channel 0 starts its count anew; the others keep their times, as with KVM. */
int um_irqchip_set_pit(struct um_irqchip *chip, const struct kvm_pit_state2 *state)
{
	struct pit *p;

	chip_lock(chip);
	p = chip->pit;
	if (!p) {
		chip_unlock(chip);
		return -ENXIO;
	}
	for (unsigned i = 0; i < 3; i++)
		set_channel(&p->ch[i], &state->channels[i]);
	p->flags = state->flags & (STATE_LEGACY | STATE_SPEAKER);
	set_elapsed(&p->ch[0], 0);
	reset_reinject(p);
	start_timer(p);
	chip_unlock(chip);
	return 0;
}

int um_irqchip_pit_reinject(struct um_irqchip *chip, bool reinject)
{
	struct pit *p;

	chip_lock(chip);
	p = chip->pit;
	if (p) {
		p->reinject = reinject;
		reset_reinject(p);
	}
	chip_unlock(chip);
	return p ? 0 : -ENXIO;
}

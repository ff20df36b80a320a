// SPDX-License-Identifier: MIT
/*
 * MC146818 real-time clock.
 *
 * The guest's time is the host's plus an offset, which changes when the guest sets the clock; while
 * the SET bit stops updates, the time registers are plain memory.  The flags of register C are
 * computed when somebody looks (catch_up()), from the time of the last look; timers run only while
 * the guest has an interrupt enabled, and do nothing but look.
 */
#include "rtc.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

/* Register numbers and bits: data sheet, "Address Map" and "Registers". */
enum {
	REG_SEC = 0,
	REG_SEC_ALARM = 1,
	REG_MIN = 2,
	REG_MIN_ALARM = 3,
	REG_HOUR = 4,
	REG_HOUR_ALARM = 5,
	REG_WDAY = 6,
	REG_MDAY = 7,
	REG_MONTH = 8,
	REG_YEAR = 9,
	REG_A = 10,
	REG_B = 11,
	REG_C = 12,
	REG_D = 13,
	REG_CENTURY = 0x32, /* where the FADT says */
};

#define A_UIP	0x80
#define A_RATE	0x0f
#define B_SET	0x80
#define B_PIE	0x40
#define B_AIE	0x20
#define B_UIE	0x10
#define B_DM	0x04 /* binary, not BCD */
#define B_24H	0x02
#define C_IRQF	0x80
#define C_PF	0x40
#define C_AF	0x20
#define C_UF	0x10
#define D_VRT	0x80
#define HOUR_PM 0x80

#define NSEC 1000000000ll
/* UIP is set this long before the update begins, and during it: 244 us + 1984 us. */
#define UIP_NSEC 2228000ll
#define TIME_MAX 9000000000ll /* the year 2255 */
/* An alarm is looked for in at most this much of the past: every time of day comes up in it. */
#define ALARM_WINDOW 86400ll

struct rtc {
	struct board *board;
	struct loop *loop;
	int second_timer, periodic_timer;

	pthread_mutex_t lock;
	u8 index;
	u8 cmos[128];
	s64 offset; /* ns: guest time - host time */
	s64 last;   /* guest time of the last catch_up(), ns */
	bool line;
};

static s64 guest_now(const struct rtc *r)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * NSEC + ts.tv_nsec + r->offset;
}

static s64 floor_div(s64 a, s64 b)
{
	return a / b - (a % b < 0);
}

static u8 encode(const struct rtc *r, unsigned v)
{
	return (u8)(r->cmos[REG_B] & B_DM ? v : (v / 10) << 4 | v % 10);
}

static unsigned decode(const struct rtc *r, u8 v)
{
	return r->cmos[REG_B] & B_DM ? v : (v >> 4) * 10u + (v & 15u);
}

static u8 encode_hour(const struct rtc *r, unsigned hour)
{
	if (r->cmos[REG_B] & B_24H)
		return encode(r, hour);
	return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc *r, u8 v)
{
	if (r->cmos[REG_B] & B_24H)
		return decode(r, v);
	return decode(r, v & 0x7f) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* Show the time @ns in the time registers. */
static void time_to_regs(struct rtc *r, s64 ns)
{
	time_t t = (time_t)floor_div(ns, NSEC);
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return;
	r->cmos[REG_SEC] = encode(r, (unsigned)tm.tm_sec);
	r->cmos[REG_MIN] = encode(r, (unsigned)tm.tm_min);
	r->cmos[REG_HOUR] = encode_hour(r, (unsigned)tm.tm_hour);
	r->cmos[REG_WDAY] = encode(r, (unsigned)tm.tm_wday + 1);
	r->cmos[REG_MDAY] = encode(r, (unsigned)tm.tm_mday);
	r->cmos[REG_MONTH] = encode(r, (unsigned)tm.tm_mon + 1);
	r->cmos[REG_YEAR] = encode(r, (unsigned)(tm.tm_year + 1900) % 100);
	r->cmos[REG_CENTURY] = encode(r, (unsigned)(tm.tm_year + 1900) / 100);
}

/* Take the time registers as the time from now on. */
static void regs_to_time(struct rtc *r)
{
	struct tm tm = {
		.tm_sec = (int)decode(r, r->cmos[REG_SEC]),
		.tm_min = (int)decode(r, r->cmos[REG_MIN]),
		.tm_hour = (int)decode_hour(r, r->cmos[REG_HOUR]),
		.tm_mday = (int)decode(r, r->cmos[REG_MDAY]),
		.tm_mon = (int)decode(r, r->cmos[REG_MONTH]) - 1,
		.tm_year = (int)(decode(r, r->cmos[REG_CENTURY]) * 100 +
				 decode(r, r->cmos[REG_YEAR])) -
			   1900,
	};

	s64 t = timegm(&tm);

	/* Registers may hold anything; keep the time within what counts in 64 bits of nanoseconds. */
	t = um_max(um_min(t, TIME_MAX), 0);
	r->offset += t * NSEC - guest_now(r);
	r->last = guest_now(r);
}

/* Nanoseconds between periodic interrupts, 0 if none (data sheet, table 5, 32768 Hz time base). */
static s64 period(const struct rtc *r)
{
	unsigned rate = r->cmos[REG_A] & A_RATE;

	if (!rate)
		return 0;
	if (rate <= 2)
		rate += 7;
	return NSEC * (1ll << (rate - 1)) / 32768;
}

static bool alarm_matches(const struct rtc *r, s64 sec)
{
	unsigned s = (unsigned)(sec % 60), m = (unsigned)(sec / 60 % 60);
	unsigned h = (unsigned)(sec / 3600 % 24);
	const u8 *c = r->cmos;

	/* The two top bits set mean "any". */
	return ((c[REG_SEC_ALARM] & 0xc0) == 0xc0 || decode(r, c[REG_SEC_ALARM]) == s) &&
	       ((c[REG_MIN_ALARM] & 0xc0) == 0xc0 || decode(r, c[REG_MIN_ALARM]) == m) &&
	       ((c[REG_HOUR_ALARM] & 0xc0) == 0xc0 || decode_hour(r, c[REG_HOUR_ALARM]) == h);
}

/* Set the flags for what happened since the last look, and drive the line. */
static void catch_up(struct rtc *r)
{
	s64 now = guest_now(r), p = period(r);
	u8 *c = r->cmos;
	bool level;

	if (p && now / p != r->last / p)
		c[REG_C] |= C_PF;
	if (!(c[REG_B] & B_SET)) {
		s64 from = floor_div(r->last, NSEC), to = floor_div(now, NSEC);

		if (to != from)
			c[REG_C] |= C_UF;
		if (to - from > ALARM_WINDOW)
			from = to - ALARM_WINDOW;
		for (s64 s = from + 1; s <= to && !(c[REG_C] & C_AF); s++)
			if (s >= 0 && alarm_matches(r, s))
				c[REG_C] |= C_AF;
		time_to_regs(r, now);
	}
	r->last = now;

	level = c[REG_C] & c[REG_B] & (C_PF | C_AF | C_UF);
	c[REG_C] = (u8)((c[REG_C] & ~C_IRQF) | (level ? C_IRQF : 0));
	if (level != r->line) {
		r->line = level;
		board_set_line(r->board, RTC_IRQ, level);
	}
}

/* Run the timers that the enabled interrupts need. */
static void set_timers(struct rtc *r)
{
	struct itimerspec second = { 0 }, periodic = { 0 };
	s64 p = period(r);

	if ((r->cmos[REG_B] & (B_UIE | B_AIE)) && !(r->cmos[REG_B] & B_SET)) {
		s64 now = guest_now(r);
		s64 next = (floor_div(now, NSEC) + 1) * NSEC - now;

		second.it_value.tv_sec = next / NSEC;
		second.it_value.tv_nsec = next % NSEC;
		second.it_interval.tv_sec = 1;
	}
	if (p && (r->cmos[REG_B] & B_PIE)) {
		periodic.it_interval.tv_sec = p / NSEC;
		periodic.it_interval.tv_nsec = p % NSEC;
		periodic.it_value = periodic.it_interval;
	}
	timerfd_settime(r->second_timer, 0, &second, NULL);
	timerfd_settime(r->periodic_timer, 0, &periodic, NULL);
}

static void on_timer(struct rtc *r, int fd)
{
	u64 expirations;

	if (read(fd, &expirations, sizeof(expirations)) < 0)
		return;
	pthread_mutex_lock(&r->lock);
	catch_up(r);
	pthread_mutex_unlock(&r->lock);
}

static void on_second(void *opaque, short revents)
{
	struct rtc *r = opaque;

	(void)revents;
	on_timer(r, r->second_timer);
}

static void on_period(void *opaque, short revents)
{
	struct rtc *r = opaque;

	(void)revents;
	on_timer(r, r->periodic_timer);
}

static bool is_time_reg(u8 index)
{
	return index == REG_SEC || index == REG_MIN || index == REG_HOUR ||
	       (index >= REG_WDAY && index <= REG_YEAR) || index == REG_CENTURY;
}

static u8 read_reg(struct rtc *r)
{
	s64 into;
	u8 v;

	catch_up(r);
	v = r->cmos[r->index];
	switch (r->index) {
	case REG_A:
		into = ((r->last % NSEC) + NSEC) % NSEC;
		if (!(r->cmos[REG_B] & B_SET) && into >= NSEC - UIP_NSEC)
			v |= A_UIP;
		break;
	case REG_C:
		r->cmos[REG_C] = 0;
		catch_up(r);
		break;
	default:
		break;
	}
	return v;
}

static void write_reg(struct rtc *r, u8 v)
{
	u8 old;

	catch_up(r);
	switch (r->index) {
	case REG_A:
		r->cmos[REG_A] = v & 0x7f;
		set_timers(r);
		break;
	case REG_B:
		old = r->cmos[REG_B];
		/* A new format: the registers are encoded anew at the next look. */
		if ((old & B_SET) && !(v & B_SET)) {
			r->cmos[REG_B] = v;
			regs_to_time(r);
		}
		r->cmos[REG_B] = v & B_SET ? (u8)(v & ~B_UIE) : v; /* SET clears UIE */
		catch_up(r);
		set_timers(r);
		break;
	case REG_C:
	case REG_D: /* read-only */
		break;
	default:
		r->cmos[r->index] = v;
		if (is_time_reg(r->index) && !(r->cmos[REG_B] & B_SET))
			regs_to_time(r);
	}
}

void rtc_io(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct rtc *r = opaque;
	u8 *p = data;

	(void)len;
	pthread_mutex_lock(&r->lock);
	if (offset == 0) {
		/* Bit 7 masks NMIs on a PC; the index port reads as open bus. */
		if (write)
			r->index = *p & 0x7f;
		else
			*p = 0xff;
	} else if (write) {
		write_reg(r, *p);
	} else {
		*p = read_reg(r);
	}
	pthread_mutex_unlock(&r->lock);
}

/* Memory sizes, where the PC/AT and its successors' BIOSes leave them. */
static void set_memory_size(u8 *cmos, const struct memory *mem)
{
	u64 low = mem_low_size(mem), high = mem->size - low;
	u64 kib = um_min((low >> 10) - 1024, 0xffffull);
	u64 above_16m = low > (16u << 20) ? um_min((low >> 16) - 256, 0xffffull) : 0;

	cmos[0x15] = 640 & 0xff;
	cmos[0x16] = 640 >> 8;
	cmos[0x17] = cmos[0x30] = (u8)kib;
	cmos[0x18] = cmos[0x31] = (u8)(kib >> 8);
	cmos[0x34] = (u8)above_16m;
	cmos[0x35] = (u8)(above_16m >> 8);
	cmos[0x5b] = (u8)(high >> 16);
	cmos[0x5c] = (u8)(high >> 24);
	cmos[0x5d] = (u8)(high >> 32);
}

struct rtc *rtc_new(struct board *board, struct loop *loop, const struct memory *mem)
{
	struct rtc *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->board = board;
	r->loop = loop;
	pthread_mutex_init(&r->lock, NULL);
	r->cmos[REG_A] = 0x26; /* 32768 Hz, 1024 Hz periodic */
	r->cmos[REG_B] = B_24H;
	r->cmos[REG_D] = D_VRT;
	set_memory_size(r->cmos, mem);
	r->last = guest_now(r);
	time_to_regs(r, r->last);
	r->second_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	r->periodic_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (r->second_timer < 0 || r->periodic_timer < 0 ||
	    loop_add(loop, r->second_timer, POLLIN, on_second, r) < 0 ||
	    loop_add(loop, r->periodic_timer, POLLIN, on_period, r) < 0) {
		rtc_free(r);
		return NULL;
	}
	return r;
}

void rtc_free(struct rtc *r)
{
	if (!r)
		return;
	loop_set_events(r->loop, r->second_timer, 0);
	loop_set_events(r->loop, r->periodic_timer, 0);
	if (r->second_timer >= 0)
		close(r->second_timer);
	if (r->periodic_timer >= 0)
		close(r->periodic_timer);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

// SPDX-License-Identifier: MIT
/*
 * ACPI's fixed hardware.  The machine is always in ACPI mode (the FADT names no SMI command port), so
 * SCI_EN is stuck at 1.  The timer is 32 bits wide.  Its carry status is computed when read: no SCI is
 * raised for TMR_EN, which nobody needs with 20 minutes between carries of bit 31.
 */
#include "pm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TMR_STS	    0x0001
#define PWRBTN_STS  0x0100
#define PM1_EN_BITS 0x0521 /* TMR, GBL, PWRBTN, RTC */
#define SCI_EN	    0x0001
#define SLP_TYP(v)  (((v) >> 10) & 7)
#define SLP_EN	    0x2000

struct pm {
	struct board *board;
	struct timespec start;
	pthread_mutex_t lock;
	u16 status, enable, control;
	bool carry; /* bit 31 of the timer at the last look */
	bool line;
};

static u32 timer_now(const struct pm *pm)
{
	struct timespec now;
	u64 ns;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ns = (u64)(now.tv_sec - pm->start.tv_sec) * 1000000000u + (u64)now.tv_nsec -
	     (u64)pm->start.tv_nsec;
	return (u32)((u128)ns * PM_TIMER_HZ / 1000000000u);
}

static void update(struct pm *pm)
{
	bool carry = timer_now(pm) >> 31, level;

	if (carry != pm->carry) {
		pm->carry = carry;
		pm->status |= TMR_STS;
	}
	level = pm->status & pm->enable & PWRBTN_STS;
	if (level != pm->line) {
		pm->line = level;
		board_set_line(pm->board, PM_SCI_IRQ, level);
	}
}

static void write_control(struct pm *pm, u16 v)
{
	pm->control = v & ~SLP_EN;
	if ((v & SLP_EN) && SLP_TYP(v) == PM_S5_TYPE)
		board_stop(pm->board, STOP_POWEROFF, 0);
}

void pm_io(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct pm *pm = opaque;
	u8 regs[PM_NPORTS] = { 0 };
	u32 timer;
	u16 v16;

	pthread_mutex_lock(&pm->lock);
	update(pm);
	/* The registers as bytes, so that any width at any offset works. */
	timer = timer_now(pm);
	memcpy(regs + PM1_EVT, &pm->status, 2);
	memcpy(regs + PM1_EVT + 2, &pm->enable, 2);
	v16 = pm->control | SCI_EN;
	memcpy(regs + PM1_CNT, &v16, 2);
	memcpy(regs + PM_TMR, &timer, 4);
	if (!write) {
		memcpy(data, regs + offset, len);
	} else {
		u8 status_clear[PM_NPORTS] = { 0 };

		memcpy(status_clear + offset, data, len);
		memcpy(regs + offset, data, len);
		memcpy(&v16, status_clear + PM1_EVT, 2);
		pm->status &= (u16)~v16; /* write one to clear */
		memcpy(&v16, regs + PM1_EVT + 2, 2);
		pm->enable = v16 & PM1_EN_BITS;
		if (offset < PM1_CNT + 2 && offset + len > PM1_CNT) {
			memcpy(&v16, regs + PM1_CNT, 2);
			write_control(pm, v16);
		}
		update(pm);
	}
	pthread_mutex_unlock(&pm->lock);
}

void pm_power_button(void *opaque)
{
	struct pm *pm = opaque;

	pthread_mutex_lock(&pm->lock);
	pm->status |= PWRBTN_STS;
	update(pm);
	pthread_mutex_unlock(&pm->lock);
}

/* Bit 2 resets the CPU; bit 1 says how hard, which makes no difference here. */
void pm_reset_control(struct board *board, u8 v)
{
	if (v & 0x04)
		board_stop(board, STOP_RESET, 0);
}

void debug_exit_io(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	u32 v = 0;

	(void)offset;
	if (!write) {
		memset(data, 0, len);
		return;
	}
	memcpy(&v, data, len);
	board_stop(opaque, STOP_DEBUG, (int)((v << 1 | 1) & 0xff));
}

struct pm *pm_new(struct board *board)
{
	struct pm *pm = calloc(1, sizeof(*pm));

	if (!pm)
		return NULL;
	pm->board = board;
	clock_gettime(CLOCK_MONOTONIC, &pm->start);
	pthread_mutex_init(&pm->lock, NULL);
	return pm;
}

void pm_free(struct pm *pm)
{
	if (!pm)
		return;
	pthread_mutex_destroy(&pm->lock);
	free(pm);
}

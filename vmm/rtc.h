/* SPDX-License-Identifier: MIT */
/*
 * The real-time clock and its CMOS memory (Motorola MC146818A data sheet), ports 0x70 and 0x71.
 *
 * Time of day in UTC; update-in-progress, alarm, periodic and update-ended interrupts on IRQ 8; the
 * memory-size bytes that a BIOS would have set.
 */
#ifndef VMM_RTC_H
#define VMM_RTC_H

#include "base/types.h"
#include "board.h"
#include "memory.h"

struct loop;
struct rtc;

#define RTC_PORT   0x70
#define RTC_NPORTS 2
#define RTC_IRQ	   8

/* NULL if memory or descriptors are short. */
struct rtc *rtc_new(struct board *board, struct loop *loop, const struct memory *mem);
void rtc_free(struct rtc *r);

/* A bus_fn of width 1. */
void rtc_io(void *opaque, u64 offset, void *data, unsigned len, bool write);

#endif

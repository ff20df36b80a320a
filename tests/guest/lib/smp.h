/* SPDX-License-Identifier: MIT */
/* The other processors. */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "types.h"

typedef void (*cpu_fn)(void);

/*
 * Start processor @cpu (1 and up, which is its APIC id as well) by INIT and start-up IPI and let
 * it run @fn on the stack of that number, in the mode of the program, with descriptor tables of
 * its own; afterwards it halts.  False if it does not answer within a second.
 */
bool smp_start(unsigned cpu, cpu_fn fn);

/* Wait until @fn has returned. */
void smp_wait(unsigned cpu);

/*
 * Code for the first 64 KiB of memory: an assembly file puts it between the labels @begin and
 * @end; it is copied to LOW_BASE.
 */
#define LOW_BASE 0x8000ul
void low_copy(const void *begin, const void *end);

#endif

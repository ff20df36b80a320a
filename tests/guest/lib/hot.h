/* SPDX-License-Identifier: MIT */
/*
 * System instructions in code that is executed again and again, for programs of either width: an
 * engine that translates such code must do in it what it does in code that is executed once.  Every
 * sequence is executed HOT times from the same place, and its rare cases come when it is hot.
 */
#ifndef GUEST_HOT_H
#define GUEST_HOT_H

#include "types.h"

#define HOT 120

/* An interrupt every 50 us, whenever they are let in; or none any more. */
void hot_timer(bool on);
/* How many of these have come. */
unsigned hot_ticks(void);
/* Have @n come?  If not yet, they are waited for: the host may have had no time for its timers. */
bool hot_ticked(unsigned n);

/* Random numbers. */
u32 hot_random(void);

/* CHECK_EQ() that says whether it was: loops end when it was not. */
#define HOT_EQ(got, want, what) hot_equal((got), (want), (what), __FILE__, __LINE__)
bool hot_equal(u64 got, u64 want, const char *what, const char *file, int line);

/* ---- tests that are the same for both widths; they need the local APIC enabled ---- */
/*
 * PUSHF, and what comes between flags and their reader; POPF.  With @undefined, also behind
 * instructions that leave flags undefined: these are in the image, too, though not looked at.
 */
void hot_flags(bool undefined);
/*
 * All system instructions, and then @more, if there is that.  Twice, the second time with an
 * interrupt every 50 us: a whole program.
 */
void hot_system(void (*more)(void));

/* hot_events.c: parts of hot_system() */
void hot_interrupts(void); /* STI, CLI, POPF, IRET with an interrupt pending */
void hot_smap(void);	   /* STAC, CLAC; by paging of its own */
void hot_tsc(void);	   /* RDTSC, RDTSCP */

#endif

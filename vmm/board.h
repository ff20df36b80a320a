/* SPDX-License-Identifier: MIT */
/*
 * What a device may ask of the board that it is plugged into: drive an interrupt line, send a
 * message-signalled interrupt, stop the machine.  The machine implements it (machine.c); unit tests
 * implement it to watch a device.
 *
 * All three may be called from any thread and with the device's own lock held: no board function
 * calls back into a device.
 */
#ifndef VMM_BOARD_H
#define VMM_BOARD_H

#include "base/bits.h"
#include "base/types.h"

enum stop_reason {
	STOP_NONE,
	STOP_POWEROFF, /* the guest powered off */
	STOP_RESET,    /* the guest asked for a reset */
	STOP_DIED,     /* triple fault, internal error: the guest cannot go on */
	STOP_HOST,     /* the host failed us */
	STOP_DEBUG,    /* the guest wrote its exit status to the debug-exit port */
	STOP_USER,     /* the user quit */
	STOP_SIGNAL,   /* a signal asks us to end; the code is its number */
};

struct board {
	/* Drive the line of global system interrupt @gsi. */
	void (*set_line)(struct board *b, unsigned gsi, bool level);
	/* Send the message @data to @addr (SDM vol. 3, 11.11 "Message Signalled Interrupts"). */
	void (*send_msi)(struct board *b, u64 addr, u32 data);
	/* Stop all vCPUs and end the run.  The first reason counts.  Returns at once. */
	void (*stop)(struct board *b, enum stop_reason reason, int code);
};

static inline void board_set_line(struct board *b, unsigned gsi, bool level)
{
	b->set_line(b, gsi, level);
}

static inline void board_send_msi(struct board *b, u64 addr, u32 data)
{
	b->send_msi(b, addr, data);
}

static inline void board_stop(struct board *b, enum stop_reason reason, int code)
{
	b->stop(b, reason, code);
}

#endif

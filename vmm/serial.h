/* SPDX-License-Identifier: MIT */
/*
 * A 16550A UART, COM1 of the PC (National Semiconductor PC16550D data sheet).
 *
 * No baud rate: what is written is sent at once, so the transmitter is always empty, and input is
 * there as soon as the user typed it.
 */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include "base/types.h"
#include "board.h"

struct serial;
struct terminal;

#define SERIAL_COM1_PORT 0x3f8
#define SERIAL_COM1_IRQ	 4
#define SERIAL_NPORTS	 8

/* @input: the terminal's input comes here; output goes there in any case.  NULL if out of memory. */
struct serial *serial_new(struct board *board, unsigned gsi, struct terminal *term, bool input);
void serial_free(struct serial *s);

/* A bus_fn of width 1. */
void serial_io(void *opaque, u64 offset, void *data, unsigned len, bool write);

/* A term_event_fn: input arrived. */
void serial_input(void *opaque);

#endif

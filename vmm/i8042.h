/* SPDX-License-Identifier: MIT */
/*
 * The keyboard controller, ports 0x60 and 0x64, with nothing plugged in: it passes its self-test,
 * answers commands, times out on what is sent to a keyboard or mouse, and resets the machine.
 */
#ifndef VMM_I8042_H
#define VMM_I8042_H

#include "base/types.h"
#include "board.h"

#define I8042_DATA_PORT	  0x60
#define I8042_STATUS_PORT 0x64
#define I8042_IRQ	  1

struct i8042;

struct i8042 *i8042_new(struct board *board);
void i8042_free(struct i8042 *k);

/* bus_fns of width 1, one port each. */
void i8042_data_io(void *opaque, u64 offset, void *data, unsigned len, bool write);
void i8042_status_io(void *opaque, u64 offset, void *data, unsigned len, bool write);

#endif

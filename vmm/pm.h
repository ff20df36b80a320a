/* SPDX-License-Identifier: MIT */
/*
 * ACPI's fixed hardware (ACPI 6.4, 4.8 "ACPI Hardware Specification"): PM1 event and control
 * registers, the PM timer, the power button, and the reset register at port 0xcf9 (pci.c passes it
 * on); and the debug-exit port.
 */
#ifndef VMM_PM_H
#define VMM_PM_H

#include "base/types.h"
#include "board.h"

#define PM_PORT		0x600
#define PM1_EVT		0x0 /* status, then enable, 2 bytes each */
#define PM1_CNT		0x4
#define PM_TMR		0x8
#define PM_NPORTS	0x10
#define PM_SCI_IRQ	9
#define PM_S5_TYPE	5 /* what DSDT's \_S5 says: the value of SLP_TYP that powers off */
#define PM_TIMER_HZ	3579545u
#define RESET_PORT	0xcf9
#define RESET_VALUE	0x06
#define DEBUG_EXIT_PORT 0xf4

struct pm;

struct pm *pm_new(struct board *board);
void pm_free(struct pm *pm);

/* A bus_fn of width 4 at PM_PORT. */
void pm_io(void *opaque, u64 offset, void *data, unsigned len, bool write);

/* Press the power button. */
void pm_power_button(void *opaque);

/* A write to the reset control register; @board is asked to stop if it resets. */
void pm_reset_control(struct board *board, u8 v);

/*
 * A bus_fn of width 4 at DEBUG_EXIT_PORT, @opaque being the board: writing v ends the run with exit
 * status (v << 1) | 1.  For guests that are tests.
 */
void debug_exit_io(void *opaque, u64 offset, void *data, unsigned len, bool write);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The machine: a PC with a KVM irqchip, memory, vCPUs and devices, loaded with a kernel.
 *
 * A main program makes one, watches whatever descriptors of its own in the machine's loop, runs it,
 * and frees it.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "accel.h"
#include "board.h"
#include "loop.h"
#include "options.h"
#include "terminal.h"

struct machine;

/*
 * Build a machine as @opts say, with the console on @in_fd and @out_fd, and load the kernel.  The
 * caller has blocked the signals that it wants to receive in its loop: the threads made here inherit
 * that.  0, or -errno after a message.
 */
int machine_new(struct machine **m, const struct accel *accel, const struct run_options *opts,
		int in_fd, int out_fd);

/*
 * Run until it stops, whatever the reason; on return all vCPUs have ended, and the terminal is
 * restored.  *@code is what came with the reason.
 */
enum stop_reason machine_run(struct machine *m, int *code);

/*
 * Write out what the guest has still to say (which may wait for a slow reader), and free it all.  False if
 * some of it was lost.
 */
bool machine_free(struct machine *m);

struct loop *machine_loop(struct machine *m);
struct board *machine_board(struct machine *m);
struct terminal *machine_terminal(struct machine *m);

/* The terminal's window changed its size. */
void machine_resized(struct machine *m);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * An engine runs guest instructions.  The vCPU layer's view.
 */
#ifndef UM_ENGINE_ENGINE_H
#define UM_ENGINE_ENGINE_H

#include "engine/exec.h"

/*
 * Prepare @x (zeroed by the caller; tlb, mmu, counters, trace set) for running: allocates the block
 * cache.  Process-wide things (signal handlers, native stubs' memory) are set up the first time.
 * Returns 0, -ENOMEM or another -errno.
 */
int um_engine_init(struct um_exec *x);
void um_engine_destroy(struct um_exec *x);

/*
 * The state in x->cpu was changed from outside (ioctl, reset, event delivery by others): recompute
 * what is derived from it.  Also after CPUID changes.  um_engine_run() does it at entry by itself.
 */
void um_exec_sync(struct um_exec *x);

/*
 * Run until something needs the vCPU layer: returns x->exit.kind, never UM_EXIT_NONE.  The
 * architectural state in x->cpu is exact at return.  The caller has um_mmu_enter()ed and leaves
 * afterwards.
 *
 * If an instruction's I/O was pending, it is finished first.
 */
enum um_exit_kind um_engine_run(struct um_exec *x);

/*
 * Finish the instruction whose I/O is pending (x->mmio, x->pio) and nothing more: for KVM_RUN with
 * immediate_exit, and before events are injected.  Returns UM_EXIT_KICK when done, or the exit that
 * it made (a second MMIO, an exception, ...).
 */
enum um_exit_kind um_engine_complete_io(struct um_exec *x);
static inline bool um_engine_io_pending(const struct um_exec *x)
{
	return x->pio.state == UM_PIO_DONE || x->mmio.done;
}

/* The access in x->exit.mmio was done (for a read: @data has exit.mmio.len bytes). */
void um_engine_mmio_done(struct um_exec *x, const void *data);

/*
 * The instruction at cpu.rip, x->exit.insn_len bytes long, is complete: advance rip, clear the
 * interrupt shadow and RF.  If TF (or guest_step) was on, a #DB trap is due: then returns true, and
 * x->exit is that exception.
 */
bool um_engine_retire(struct um_exec *x);

/*
 * Deliver an event through the guest's IVT or IDT: checks, stack switch, frame, task gates (SDM
 * vol. 3 6.12-6.14).  Applies the payload (CR2, DR6) of the event.  Returns true when done; false
 * if delivery itself faulted: then x->exit is an exception (or HOST_FAULT, INTERNAL) and the state
 * is as before.  The caller combines double faults.
 */
bool um_engine_deliver(struct um_exec *x, const struct um_event *e);

/* Hardware task switch on behalf of nobody but tests and the vCPU layer: see engine/system/. */

/*
 * Show the last instructions executed at block granularity, newest last, for reports of a guest's
 * death.  Of translated code: the blocks in which it was left, up to the instruction where it was.
 */
void um_engine_report(struct um_exec *x, char *text, size_t size);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The interpreter's inside: how an instruction is bound to the C function that executes it.
 *
 * An instruction function (um_insn_fn) executes *i completely and returns
 *   - i + 1 to go on with the next instruction of the block, or
 *   - NULL with x->exit.kind == UM_EXIT_NONE and cpu.rip set: the block is over (um_end(),
 * branches), or
 *   - NULL with another x->exit.kind: um_stop().
 * It must have no effect unless it completes.  Status flags go through engine/flags.h.
 *
 * Binding tries, in this order, the tables of: core.c and its kin (integer instructions, branches,
 * strings), system/ (everything privileged, far transfers, segment registers), native.c (all other
 * unprivileged instructions, run by the host CPU through a generated stub).  What no table takes is
 * #UD.
 */
#ifndef UM_ENGINE_INTERP_H
#define UM_ENGINE_INTERP_H

#include "engine/access.h"
#include "engine/engine.h"

/* Integer instructions executed in C.  NULL: not mine. */
um_insn_fn um_core_bind(const struct um_insn *i);

/*
 * System instructions, executed in C (engine/system/).  NULL: not mine.  The binder has set
 * UM_INSN_END on all of these.  Feature checks (CPUID bits) are made at execution or here through
 * @x.
 */
um_insn_fn um_system_bind(struct um_exec *x, const struct um_insn *i);

/*
 * The rest, through a native stub: fills i->fn and i->aux.  @bytes are the instruction's i->len
 * bytes.  Returns false if the host CPU or the guest's CPUID does not have it (#UD).  -ENOMEM shows
 * as x->exit INTERNAL when executed: um_native_no_memory().
 */
bool um_native_bind(struct um_exec *x, struct um_insn *i, const u8 *bytes);
const struct um_insn *um_native_no_memory(struct um_exec *x, const struct um_insn *i);

/*
 * Bind i->fn (and i->aux) by the tables above; sets UM_INSN_END where the decoder did not know that
 * a system instruction ends its block.
 */
void um_interp_bind(struct um_exec *x, struct um_insn *i, const u8 *bytes);

/*
 * um_decode() and, if it is not 0, um_interp_bind(): from x->interp's cache, if an instruction like
 * it was there before.
 */
unsigned um_interp_decode(struct um_exec *x, struct um_insn *i, enum um_mode mode, const u8 *bytes,
			  unsigned avail, u16 off);

/*
 * Must the loop be left?  Looked at before each block, and now and then in long string
 * instructions.
 */
static inline bool um_interp_kicked(const struct um_exec *x)
{
	return atomic_load_explicit(&x->kick, memory_order_relaxed) ||
	       (x->immediate_exit && *x->immediate_exit);
}

/*
 * Is it a Jcc that um_core_bind() bound?  Blocks go on behind these: they return i + 1 if not
 * taken; if taken, they take imm2, the number of instructions behind them in the block, back from
 * the count.
 */
bool um_is_jcc(const struct um_insn *i);

/*
 * Reload x->ctx and x->fetch_ctx: whenever x->tlb's contexts, the CPL or x->ctx_mask may have
 * changed.
 */
static inline void um_interp_sync_ctx(struct um_exec *x)
{
	x->ctx = x->tlb->ctx[x->priv] & x->ctx_mask;
	x->fetch_ctx = x->tlb->ctx[x->cpu.cpl == 3 ? UM_PRIV_USER : UM_PRIV_KERNEL];
}
/* If the guest's CPUID changed since blocks were bound, forget them. */
void um_interp_check_features(struct um_exec *x);

/*
 * Native stubs leave the guest's MXCSR and x87 state in the processor's registers, since moving
 * them to and fro costs more than most instructions (the engine's own code has no floating point).
 * This puts them back into cpu.fpu, and the thread's own into the registers: whoever looks at
 * cpu.fpu.mxcsr or cpu.fpu.fxsave within a run calls it, and um_engine_run() before it returns.
 */
void um_native_fpu_put(struct um_exec *x);
static inline void um_native_fpu_sync(struct um_exec *x)
{
	if (unlikely(x->mxcsr_live | x->x87_live))
		um_native_fpu_put(x);
}

/* Raises #UD. */
const struct um_insn *um_op_ud(struct um_exec *x, const struct um_insn *i);

#endif

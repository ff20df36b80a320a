// SPDX-License-Identifier: MIT
/*
 * The interpreter's loop.
 *
 *	forever:
 *		kicked?  special circumstances?
 *		find the block at rip, verify it
 *		execute its instructions
 *
 * Instructions call each other (UM_NEXT in interp/ops.h) as long as they are on their fast paths,
 * and come back here with the next one when they took a slow path: only slow paths can set x->brk.
 *
 * Special circumstances (x->special) make the loop take one instruction at a time: TF, RF, an
 * interrupt shadow, breakpoints on instructions, single-stepping by the VMM, tracing (SDM vol. 3
 * 6.8.3, 17.3).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/huge.h"
#include "engine/flags.h"
#include "engine/interp/block.h"
#include "engine/interp/native.h"
#include "engine/jit/jit.h"

/*
 * Of block @b, entered at its start, how many instructions are complete if cpu.rip is where we
 * stopped?
 */
static unsigned completed(const struct um_exec *x, const struct um_block *b)
{
	for (unsigned n = 0; n < b->ninsns; n++) {
		if (um_rip(x, &b->insn[n]) == x->cpu.rip)
			return n;
	}
	return b->ninsns;
}

/* Execute block @b; x->exit.kind is UM_EXIT_NONE before, and after if nothing stopped it. */
static inline void execute(struct um_exec *x, const struct um_block *b)
{
	const struct um_insn *i = b->insn;
	struct um_ring_entry *r = &x->interp->ring[x->interp->ring_pos++ % UM_RING_SIZE];

	r->rip = x->cpu.rip;
	r->block = b;
	r->translated = NULL;
	um_count_add(x->counters, insns, b->ninsns);
	do
		i = i->fn(x, i);
	while (i && likely(!x->brk));

	if (unlikely(x->brk)) {
		x->brk = false;
		if (i) {
			x->cpu.rip = um_rip(x, i);
			um_count_add(x->counters, insns, (u64)(i - b->insn) - b->ninsns);
			return;
		}
	}
	if (unlikely(x->exit.kind != UM_EXIT_NONE)) {
		um_count_add(x->counters, insns, (u64)completed(x, b) - b->ninsns);
		/* Data breakpoints of an instruction that did not complete don't count. */
		x->db_hits = 0;
		x->special &= ~UM_SPECIAL_DBHIT;
	}
}

/* ---- one instruction at a time ---- */

static void trace_insn(struct um_exec *x, const struct um_block *b)
{
	const u8 *bytes = (const u8 *)b->words + (b->nwords ? b->hva & 7 : 0);
	char text[128];

	um_disassemble((enum um_mode)x->mode, bytes, b->len, x->cpu.rip, text, sizeof(text));
	um_trace(x->trace, insns, "%04x:%016llx  %s", x->cpu.seg[UM_CS].selector,
		 (unsigned long long)x->cpu.rip, text);
}

static void trace_changes(struct um_exec *x, const u64 *before, u64 rflags)
{
	static const char *const names[UM_NR_GPRS] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
						       "rsi", "rdi", "r8",  "r9",  "r10", "r11",
						       "r12", "r13", "r14", "r15" };

	for (unsigned n = 0; n < UM_NR_GPRS; n++) {
		if (x->cpu.gpr[n] != before[n])
			um_trace(x->trace, insns, "    %s = %llx", names[n],
				 (unsigned long long)x->cpu.gpr[n]);
	}
	if (um_get_rflags(x) != rflags)
		um_trace(x->trace, insns, "    rflags = %llx",
			 (unsigned long long)um_get_rflags(x));
}

/* Breakpoints on the instruction at rip (SDM vol. 3 17.3.1.1): DR6 bits. */
static u64 insn_breakpoints(const struct um_exec *x)
{
	u64 dr7 = x->use_guest_dr ? x->guest_dr7 : x->cpu.dr7;
	const u64 *dr = x->use_guest_dr ? x->guest_dr : x->cpu.dr;
	u64 lin = (x->cpu.rip + x->seg_base[UM_CS]) & x->lin_mask, hits = 0;

	for (unsigned n = 0; n < 4; n++) {
		if (DR7_ENABLED(dr7, n) && DR7_RW(dr7, n) == 0 && dr[n] == lin)
			hits |= DR6_B(n);
	}
	return hits;
}

static void debug_exception(struct um_exec *x, enum um_event_kind kind, u64 dr6)
{
	x->exit.kind = UM_EXIT_EXCEPTION;
	x->exit.exc = (struct um_event){ .vector = UM_VEC_DB, .kind = (u8)kind, .payload = dr6 };
	x->exit.insn_len = 0;
}

/* After instruction @b: the debug traps that are due. */
static void debug_traps(struct um_exec *x, bool step)
{
	u64 dr6 = x->db_hits;

	if (step && !(x->cpu.int_shadow & UM_SHADOW_MOVSS))
		dr6 |= DR6_BS;
	if (x->cpu.int_shadow & UM_SHADOW_MOVSS)
		return; /* held back until after the next instruction; db_hits stay */
	x->db_hits = 0;
	x->special &= ~UM_SPECIAL_DBHIT;
	if (dr6)
		debug_exception(x, UM_EVENT_TRAP, dr6);
}

/* Execute one instruction with everything that special circumstances ask for. */
static void step(struct um_exec *x)
{
	u8 shadow = x->cpu.int_shadow;
	u64 rf = x->cpu.rflags & RFLAGS_RF, rip = x->cpu.rip, before[UM_NR_GPRS], rflags = 0;
	bool trap = (x->cpu.rflags & RFLAGS_TF) || x->guest_step, tracing;
	const struct um_block *b;
	u64 hits;

	if (!rf && !(shadow & UM_SHADOW_MOVSS) && (hits = insn_breakpoints(x))) {
		debug_exception(x, UM_EVENT_FAULT, hits);
		return;
	}
	b = um_block_enter(x, x->mode | UM_BLOCK_SINGLE);
	if (!b)
		return;
	tracing = x->trace && (x->trace->mask & BIT(UM_TRACE_insns));
	if (tracing) {
		trace_insn(x, b);
		memcpy(before, x->cpu.gpr, sizeof(before));
		rflags = um_get_rflags(x);
	}
	/* The instruction ends both, or sets them anew (STI, MOV SS, IRET). */
	x->cpu.int_shadow = 0;
	x->cpu.rflags &= ~RFLAGS_RF;
	execute(x, b);
	if (x->exit.kind != UM_EXIT_NONE && x->cpu.rip == rip) {
		x->cpu.int_shadow |= shadow;
		x->cpu.rflags |= rf;
	} else if (x->cpu.rip == rip && (b->insn[0].flags & (UM_INSN_REP | UM_INSN_REPNE))) {
		x->cpu.rflags |= RFLAGS_RF; /* between two iterations: SDM vol. 3 17.3.1.1 */
	}
	/*
	 * SYSCALL masks TF away together with the trap (SDM vol. 2 SYSCALL), and so does INT n,
	 * which delivers its interrupt itself (vol. 3 17.3.1.4).
	 */
	if ((b->insn[0].op == ZYDIS_MNEMONIC_SYSCALL || b->insn[0].op == ZYDIS_MNEMONIC_INT) &&
	    !(x->cpu.rflags & RFLAGS_TF))
		trap = x->guest_step;
	um_sync_special(x);
	if (tracing)
		trace_changes(x, before, rflags);
	if (x->exit.kind == UM_EXIT_NONE || (x->exit.kind == UM_EXIT_PAUSE && trap)) {
		x->exit.kind = UM_EXIT_NONE;
		debug_traps(x, trap);
	}
}

/* x->special is not 0.  Returns false if a normal block may run. */
static bool special(struct um_exec *x)
{
	if ((x->special & UM_SPECIAL_DBHIT) && !(x->cpu.int_shadow & UM_SHADOW_MOVSS)) {
		debug_traps(x, false);
		return true;
	}
	if ((x->special & UM_SPECIAL_WINDOW) && !x->cpu.int_shadow &&
	    ((x->irq_window && (x->cpu.rflags & RFLAGS_IF)) ||
	     (x->nmi_window && !x->cpu.nmi_masked))) {
		x->exit.kind = UM_EXIT_IRQ_WINDOW;
		return true;
	}
	if (!(x->special & UM_SPECIAL_STEP))
		return false;
	/*
	 * RF alone, as after every return from a fault: nothing looks at it but breakpoints, so it
	 * may as well be cleared before the instruction as after it.
	 */
	if ((x->cpu.rflags & RFLAGS_RF) && !(x->cpu.rflags & RFLAGS_TF) && !x->cpu.int_shadow) {
		x->cpu.rflags &= ~RFLAGS_RF;
		um_sync_special(x);
		if (!(x->special & UM_SPECIAL_STEP))
			return false;
		x->cpu.rflags |= RFLAGS_RF;
	}
	step(x);
	return true;
}

/* ---- the loop ---- */

_Static_assert(2 * UM_JIT_KEY_USER <= UM_BLOCK_UNKNOWN, "keys fit, too");

/* Run translated code, if there is some for the place where the vCPU is.  False: none. */
static bool run_translated(struct um_exec *x)
{
	struct um_jit_block *jb = x->translator ? um_jit_find(x) : NULL;

	if (!jb)
		return false;
	if (x->lockstep)
		um_lockstep_run(x, jb);
	else
		um_jit_run(x, jb);
	return true;
}

/*
 * The block behind @prev, if nothing is new since it was entered last: it wasn't translated, and
 * isn't hot.
 */
static inline struct um_block *next_cold(struct um_exec *x, struct um_block *prev)
{
	struct um_block *b;

	if (!prev || !prev->steady)
		return NULL;
	um_interp_sync_ctx(x);
	b = um_block_find(x, x->mode, prev);
	if (!b || b->untranslated != (u8)x->jit_key)
		return NULL;
	if (!x->translator || b->hits == UM_BLOCK_NEVER)
		return b;
	if (b->hits >= x->jit_threshold)
		return NULL;
	b->hits++;
	return b;
}

static void loop(struct um_exec *x)
{
	struct um_block *prev = NULL, *b;
	bool ran, shadow;

	while (x->exit.kind == UM_EXIT_NONE) {
		if (unlikely(um_interp_kicked(x))) {
			x->exit.kind = UM_EXIT_KICK;
			return;
		}
		if (unlikely(x->lockstep) && !um_lockstep_turn(x))
			return;
		if (unlikely(x->special) && special(x)) {
			prev = NULL;
			continue;
		}
		b = next_cold(x, prev);
		if (b) {
			execute(x, b);
			prev = b;
			continue;
		}
		ran = run_translated(x);
		shadow = ran && um_jit_in_shadow(x);
		if (ran) {
			prev = NULL;
			if (unlikely(shadow) && (x->exit.kind != UM_EXIT_NONE || x->special))
				um_jit_open_shadow(x);
			if (x->lockstep || x->exit.kind != UM_EXIT_NONE ||
			    (!shadow && unlikely(um_interp_kicked(x))) ||
			    (unlikely(x->special) && special(x)))
				continue;
			/* It may have left without doing anything: the interpreter has to, now. */
		}
		um_interp_sync_ctx(x);
		b = um_block_find(x, x->mode, prev);
		if (unlikely(!b)) {
			u64 flushes = x->interp->flushes;

			b = um_block_enter(x, x->mode);
			if (!b && shadow)
				um_jit_open_shadow(x);
			if (b && prev && x->interp->flushes == flushes)
				um_block_link(prev, b);
		}
		if (unlikely(!b))
			continue;
		if (!ran)
			b->untranslated = (u8)x->jit_key;
		if (x->translator && b->hits != UM_BLOCK_NEVER && b->hits++ >= x->jit_threshold) {
			b->hits = um_jit_add(x, b) ? 0 : UM_BLOCK_NEVER;
			b->untranslated = UM_BLOCK_UNKNOWN;
		}
		execute(x, b);
		if (unlikely(shadow) && x->exit.kind != UM_EXIT_NONE && um_jit_in_shadow(x))
			um_jit_open_shadow(x); /* that one was not complete */
		prev = b;
	}
}

static enum um_exit_kind leave(struct um_exec *x)
{
	um_native_fpu_sync(x);
	x->cpu.rflags = um_get_rflags(x);
	if (x->trace)
		um_trace(x->trace, engine, "exit %s at %016llx", um_exit_name(x->exit.kind),
			 (unsigned long long)x->cpu.rip);
	return x->exit.kind;
}

enum um_exit_kind um_engine_complete_io(struct um_exec *x)
{
	x->exit.kind = UM_EXIT_NONE;
	x->exit.insn_len = 0;
	um_exec_sync(x);
	x->mmio.pos = 0;
	if (!x->lockstep || um_lockstep_enter(x))
		step(x);
	if (x->lockstep)
		um_lockstep_leave(x);
	if (x->exit.kind != UM_EXIT_MMIO)
		x->mmio.done = 0;
	x->mmio.pos = 0;
	if (x->exit.kind == UM_EXIT_NONE)
		x->exit.kind = UM_EXIT_KICK;
	return leave(x);
}

enum um_exit_kind um_engine_run(struct um_exec *x)
{
	if (um_engine_io_pending(x) && um_engine_complete_io(x) != UM_EXIT_KICK)
		return x->exit.kind;
	x->exit.kind = UM_EXIT_NONE;
	x->exit.insn_len = 0;
	x->brk = false;
	um_exec_sync(x);
	if (x->translator)
		um_jit_begin(x);
	if (!x->lockstep || um_lockstep_enter(x))
		loop(x);
	if (x->lockstep)
		um_lockstep_leave(x);
	return leave(x);
}

/* ---- life ---- */

int um_engine_init(struct um_exec *x)
{
	struct um_interp *in;
	int err = um_uaccess_init();

	if (err)
		return err;
	in = calloc(1, sizeof(*in));
	if (!in)
		return -ENOMEM;
	in->hash = calloc(1ul << UM_HASH_BITS, sizeof(in->hash[0]));
	in->arena = um_huge_map(UM_ARENA_SIZE);
	if (!in->hash || !in->arena) {
		free(in->hash);
		um_huge_unmap(in->arena, UM_ARENA_SIZE);
		free(in);
		return -ENOMEM;
	}
	memcpy(in->features, x->cpu.features, sizeof(in->features));
	um_native_prepare();
	x->interp = in;
	if (x->engine == UM_ENGINE_INTERP)
		return 0;
	err = um_jit_init(x);
	if (!err && x->engine == UM_ENGINE_LOCKSTEP)
		err = um_lockstep_init(x);
	if (err)
		um_engine_destroy(x);
	return err;
}

void um_engine_destroy(struct um_exec *x)
{
	um_lockstep_destroy(x);
	um_jit_destroy(x);
	if (!x->interp)
		return;
	um_huge_unmap(x->interp->arena, UM_ARENA_SIZE);
	free(x->interp->hash);
	free(x->interp);
	x->interp = NULL;
}

void um_interp_check_features(struct um_exec *x)
{
	if (likely(!memcmp(x->interp->features, x->cpu.features, sizeof(x->cpu.features))))
		return;
	memcpy(x->interp->features, x->cpu.features, sizeof(x->cpu.features));
	um_decode_forget(&x->interp->decoded);
	um_block_flush(x);
}

/* ---- the report ---- */

#define REPORT_LINES 40

/* Text that is written to until it is full. */
struct report {
	char *text;
	size_t size, at;
	unsigned lines, skip; /* lines so far; how many of the first to leave out */
};

static void report_insn(struct report *r, const struct um_insn *i, const u8 *bytes, u64 rip)
{
	char line[128];
	int len;

	if (r->lines++ < r->skip || r->at + 1 >= r->size)
		return;
	um_disassemble((enum um_mode)i->mode, bytes, i->len, rip, line, sizeof(line));
	len = snprintf(r->text + r->at, r->size - r->at, "%016llx  %s\n", (unsigned long long)rip,
		       line);
	r->at += len > 0 ? (size_t)len : 0;
}

/*
 * The instructions of block @b, entered at @rip, up to the one that went on to @next (or is there).
 */
static void report_block(struct report *r, const struct um_block *b, u64 rip, u64 next)
{
	const u8 *bytes = (const u8 *)b->words + (b->nwords ? b->hva & 7 : 0);

	for (unsigned k = 0; k < b->ninsns; k++) {
		const struct um_insn *i = &b->insn[k];

		report_insn(r, i, bytes, rip);
		if (rip == next && k > 0)
			return;
		rip += i->len;
		bytes += i->len;
		if (um_is_jcc(i) && rip + i->imm == next)
			return;
	}
}

/*
 * Of translated code only the blocks are known in which it was left: what was executed on the way
 * there isn't.
 */
static void report_translated(struct report *r, const struct um_jit_block *b, u64 rip,
			      unsigned count)
{
	enum um_mode mode = b->key & UM_JIT_KEY_64 ? UM_MODE_64 : UM_MODE_32;
	static const char note[] = "... translated code, left in\n";

	if (r->lines++ >= r->skip && r->at + sizeof(note) <= r->size) {
		memcpy(r->text + r->at, note, sizeof(note));
		r->at += sizeof(note) - 1;
	}
	for (unsigned k = 0; k < count && k < b->ninsns; k++) {
		unsigned at = b->map[k].off;
		struct um_insn i = { .mode = (u8)mode };

		i.len = (u8)um_min(b->len - at, 15u);
		report_insn(r, &i, b->bytes + at, rip + at);
	}
}

static void report_ring(struct report *r, const struct um_exec *x)
{
	const struct um_interp *in = x->interp;

	for (unsigned n = 0; n < UM_RING_SIZE; n++) {
		const struct um_ring_entry *e = &in->ring[(in->ring_pos + n) % UM_RING_SIZE];
		const struct um_ring_entry *after =
			&in->ring[(in->ring_pos + n + 1) % UM_RING_SIZE];

		if (e->translated)
			report_translated(r, e->translated, e->rip, e->count);
		if (e->block)
			report_block(r, e->block, e->rip,
				     n + 1 < UM_RING_SIZE ? after->rip : x->cpu.rip);
	}
}

void um_engine_report(struct um_exec *x, char *text, size_t size)
{
	struct report r = { .text = text };

	if (size)
		text[0] = 0;
	if (!x->interp)
		return;
	report_ring(&r, x); /* count */
	r.skip = r.lines > REPORT_LINES ? r.lines - REPORT_LINES : 0;
	r.lines = 0;
	r.size = size;
	report_ring(&r, x);
}

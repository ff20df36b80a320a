// SPDX-License-Identifier: MIT
/*
 * The engine "lockstep": the interpreter and the translator, compared after every block.
 *
 * A block is executed by the interpreter's functions first.  All its stores go through access.c,
 * since the TLB is out of use meanwhile (x->ctx_mask), and are recorded.  Then memory and registers
 * become what they were, and the translation is executed, alone: it leaves at its end, however that
 * is linked.  Registers, exceptions and the bytes stored must be the same.
 *
 * Some blocks are the interpreter's only, because they can't be taken back or don't come out the
 * same twice: system instructions, device accesses, stores to page tables and to code, RDRAND, and
 * more stores than are recorded.  Both executions stop before an instruction that is known for it.
 *
 * Between the two executions a device of the VMM may write to memory.  So a difference counts when
 * it is there again, three times.  Other vCPUs wait (um_lockstep_enter()).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/flags.h"
#include "engine/jit/regs.h"

#define MAX_STORES 256
#define ATTEMPTS   3
#define TURN	   64 /* blocks, before another vCPU has its turn */

struct store {
	u8 *p;
	u8 len;
	u8 before[64], after[64]; /* after the interpreter's execution */
};

struct state {
	u64 gpr[18], rip, rflags;
	u8 int_shadow;
	struct um_fpu fpu;
	struct um_exit exit;
};

struct um_lockstep {
	bool plain; /* the block can be taken back */
	unsigned nstores;
	struct store store[MAX_STORES];
	struct state before, interp, jit;
	struct um_insn decoded[UM_BLOCK_MAX];  /* the block, as it is */
	struct um_insn insn[UM_BLOCK_MAX + 1]; /* as it is executed */
	char what[128];			       /* the difference */
	unsigned blocks;
};

int um_lockstep_init(struct um_exec *x)
{
	x->lockstep = aligned_alloc(64, ALIGN_UP(sizeof(*x->lockstep), 64ul));
	if (!x->lockstep)
		return -ENOMEM;
	memset(x->lockstep, 0, sizeof(*x->lockstep));
	return 0;
}

void um_lockstep_destroy(struct um_exec *x)
{
	free(x->lockstep);
	x->lockstep = NULL;
}

/* ---- one vCPU at a time ---- */

bool um_lockstep_enter(struct um_exec *x)
{
	struct um_lockstep_queue *q = x->lockstep_queue;
	bool waited = false;
	u64 mine;

	if (!q)
		return true;
	pthread_mutex_lock(&q->lock);
	mine = q->next++;
	while (q->serving != mine) {
		if (!waited) {
			/* Whose turn it is may be waiting for this vCPU to drop translations. */
			waited = true;
			pthread_mutex_unlock(&q->lock);
			um_mmu_leave(x->mmu);
			pthread_mutex_lock(&q->lock);
			continue;
		}
		pthread_cond_wait(&q->changed, &q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	if (!waited)
		return true;
	if (um_mmu_enter(x->mmu))
		return um_internal(x, "no memory for a shadow root");
	um_interp_sync_ctx(x);
	return true;
}

void um_lockstep_leave(struct um_exec *x)
{
	struct um_lockstep_queue *q = x->lockstep_queue;

	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	q->serving++;
	pthread_cond_broadcast(&q->changed);
	pthread_mutex_unlock(&q->lock);
}

bool um_lockstep_turn(struct um_exec *x)
{
	struct um_lockstep_queue *q = x->lockstep_queue;

	if (!q || ++x->lockstep->blocks % TURN ||
	    __atomic_load_n(&q->next, __ATOMIC_RELAXED) == q->serving + 1)
		return true;
	um_lockstep_leave(x);
	return um_lockstep_enter(x);
}

/* ---- there and back ---- */

static bool is_random(const struct um_insn *i)
{
	return i->op == ZYDIS_MNEMONIC_RDRAND || i->op == ZYDIS_MNEMONIC_RDSEED;
}

bool um_lockstep_repeatable(const struct um_insn *i)
{
	return !(i->flags & (UM_INSN_SYSTEM | UM_INSN_END)) && !is_random(i);
}

/*
 * Can its translation be stopped where the interpreter is?  Not before what is no system
 * instruction.
 */
static bool comparable(const struct um_lockstep *l, const struct um_jit_block *b)
{
	for (unsigned n = 0; n < b->ninsns; n++) {
		if (is_random(&l->decoded[n]))
			return false;
	}
	return um_lockstep_repeatable(&l->decoded[0]);
}

void um_lockstep_store(struct um_exec *x, void *p, unsigned len, bool tracked)
{
	struct um_lockstep *l = x->lockstep;
	u8 *at = p;

	if (tracked || !p)
		l->plain = false;
	while (len && l->plain) {
		unsigned n = um_min(len, (unsigned)sizeof(l->store[0].before));
		struct store *s = &l->store[l->nstores];

		if (l->nstores == MAX_STORES || um_copy_from(s->before, at, n)) {
			l->plain = false;
			return;
		}
		s->p = at;
		s->len = (u8)n;
		l->nstores++;
		at += n;
		len -= n;
	}
}

/*
 * Instructions that are C functions of the interpreter, system instructions apart, have only
 * general registers.
 */
static bool leaves_fpu(const struct um_lockstep *l, struct um_jit_block *b)
{
	if (b->lockstep_fpu)
		return b->lockstep_fpu == 1;
	b->lockstep_fpu = 1;
	for (unsigned n = 0; n < b->ninsns; n++) {
		if (um_core_bind(&l->decoded[n]) != l->decoded[n].fn)
			b->lockstep_fpu = 2;
	}
	return b->lockstep_fpu == 1;
}

static void save(struct um_exec *x, struct state *s, bool fpu)
{
	um_native_fpu_sync(x);
	memcpy(s->gpr, x->cpu.gpr, sizeof(s->gpr));
	s->rip = x->cpu.rip;
	s->rflags = um_get_rflags(x);
	s->int_shadow = x->cpu.int_shadow;
	if (fpu)
		s->fpu = x->cpu.fpu;
	s->exit = x->exit;
}

static void restore(struct um_exec *x, const struct state *s, bool fpu)
{
	memcpy(x->cpu.gpr, s->gpr, sizeof(s->gpr));
	x->cpu.rip = s->rip;
	x->cpu.rflags = s->rflags;
	um_set_status(x, s->rflags);
	x->cpu.int_shadow = s->int_shadow;
	if (fpu)
		x->cpu.fpu = s->fpu;
	x->exit = s->exit;
}

static void take_back_stores(struct um_lockstep *l)
{
	for (unsigned n = l->nstores; n-- > 0;)
		(void)um_copy_to(l->store[n].p, l->store[n].before, l->store[n].len);
}

static const struct um_insn *op_close(struct um_exec *x, const struct um_insn *i)
{
	return um_end(x, i);
}

/* Stop before this instruction. */
static const struct um_insn *op_before(struct um_exec *x, const struct um_insn *i)
{
	x->cpu.rip = um_rip(x, i);
	return NULL;
}

static void interpret(struct um_exec *x, const struct um_jit_block *b)
{
	struct um_lockstep *l = x->lockstep;
	const struct um_insn *i = l->insn, *last = &l->decoded[b->ninsns - 1];

	memcpy(l->insn, l->decoded, b->ninsns * sizeof(l->insn[0]));
	for (unsigned n = 1; n < b->ninsns; n++) {
		if (!um_lockstep_repeatable(&l->decoded[n]))
			l->insn[n].fn = op_before;
	}
	l->insn[b->ninsns] = (struct um_insn){ .fn = op_close,
					       .off = (u16)(last->off + last->len),
					       .mode = last->mode };
	x->code_page = b->hva & UM_PAGE_MASK;
	um_count_add(x->counters, insns, b->ninsns);
	do
		i = i->fn(x, i);
	while (i && likely(!x->brk));
	if (x->brk) {
		x->brk = false;
		l->plain = false;
		if (i)
			x->cpu.rip = um_rip(x, i);
	}
	if (x->exit.kind != UM_EXIT_NONE) {
		/* Data breakpoints of an instruction that did not complete don't count. */
		x->db_hits = 0;
		x->special &= ~UM_SPECIAL_DBHIT;
	}
}

/* ---- comparing ---- */

static bool differ(struct um_lockstep *l, const char *what, u64 interp, u64 jit)
{
	snprintf(l->what, sizeof(l->what),
		 "%s is %#llx by the interpreter and %#llx by the translation", what,
		 (unsigned long long)interp, (unsigned long long)jit);
	return true;
}

/* Status flags that some way through the block may leave undefined. */
static u64 undefined_flags(const struct um_exec *x, const struct um_jit_block *b)
{
	const u8 *bytes = b->bytes;
	u64 undefined = 0, ever = 0;

	for (unsigned n = 0; n < b->ninsns; n++) {
		const struct um_insn *i = &x->lockstep->decoded[n];
		struct um_facts f;

		if (um_is_jcc(i) || x->exit.kind == UM_EXIT_EXCEPTION)
			ever |= undefined;
		if (um_jit_analyse((enum um_mode)i->mode, bytes, i->len, &f)) {
			if (!f.flags_maybe)
				undefined &= ~(u64)f.flags_written;
			undefined |= f.flags_undefined;
		}
		bytes += i->len;
	}
	return ever | undefined;
}

static bool fpu_differs(struct um_lockstep *l)
{
	const struct um_fpu *a = &l->interp.fpu, *b = &l->jit.fpu;
	char name[40];

	if (!memcmp(a, b, sizeof(*a)))
		return false;
	for (unsigned n = 0; n < 32 * 8; n++) {
		const u64 *va = (const u64 *)a->zmm, *vb = (const u64 *)b->zmm;

		if (va[n] != vb[n]) {
			snprintf(name, sizeof(name), "zmm%u, quadword %u,", n / 8, n % 8);
			return differ(l, name, va[n], vb[n]);
		}
	}
	for (unsigned n = 0; n < 160; n++) {
		/* 24..31 is MXCSR's place, the last six bytes of a register are reserved. */
		if ((n >= 24 && n < 32) || (n >= 32 && n % 16 >= 10) ||
		    a->fxsave[n] == b->fxsave[n])
			continue;
		snprintf(name, sizeof(name), "byte %u of the x87 state", n);
		return differ(l, name, a->fxsave[n], b->fxsave[n]);
	}
	for (unsigned n = 0; n < 8; n++) {
		if (a->k[n] != b->k[n])
			return differ(l, "an opmask register", a->k[n], b->k[n]);
	}
	return (a->mxcsr != b->mxcsr && differ(l, "mxcsr", a->mxcsr, b->mxcsr)) ||
	       /* (It may say of more that it is in use.) */
	       ((a->xinuse & ~b->xinuse) &&
		differ(l, "what is in use of the vector state", a->xinuse, b->xinuse));
}

static bool stores_differ(struct um_lockstep *l)
{
	for (unsigned n = 0; n < l->nstores; n++) {
		const struct store *s = &l->store[n];
		u8 now[64];

		if (um_copy_from(now, s->p, s->len))
			continue; /* the host took the page */
		for (unsigned k = 0; k < s->len; k++) {
			if (now[k] != s->after[k])
				return differ(l, "a byte stored", s->after[k], now[k]);
		}
	}
	return false;
}

static bool differs(struct um_exec *x, struct um_jit_block *b)
{
	struct um_lockstep *l = x->lockstep;
	const struct state *i = &l->interp, *j = &l->jit;
	u64 flags = i->rflags ^ j->rflags;
	char name[16];

	if (i->rip != j->rip)
		return differ(l, "rip", i->rip, j->rip);
	if (i->exit.kind != j->exit.kind)
		return differ(l, "the kind of exit", i->exit.kind, j->exit.kind);
	if (i->exit.kind == UM_EXIT_EXCEPTION) {
		if (i->exit.exc.vector != j->exit.exc.vector)
			return differ(l, "the vector", i->exit.exc.vector, j->exit.exc.vector);
		if (i->exit.exc.payload != j->exit.exc.payload)
			return differ(l, "CR2", i->exit.exc.payload, j->exit.exc.payload);
		if (i->exit.exc.error_code != j->exit.exc.error_code)
			return differ(l, "the error code", i->exit.exc.error_code,
				      j->exit.exc.error_code);
	}
	for (unsigned n = 0; n < UM_NR_GPRS; n++) {
		if (i->gpr[n] != j->gpr[n]) {
			snprintf(name, sizeof(name), "gpr %u", n);
			return differ(l, name, i->gpr[n], j->gpr[n]);
		}
	}
	if (flags && (flags & ~undefined_flags(x, b)))
		return differ(l, "rflags", i->rflags, j->rflags);
	return (!leaves_fpu(l, b) && fpu_differs(l)) || stores_differ(l);
}

/* ---- the report ---- */

static void report_state(const char *name, const struct state *s)
{
	const u64 *g = s->gpr;

#define U(v) (unsigned long long)(v)
	um_log("  %s: rip %llx rflags %llx exit %s", name, U(s->rip), U(s->rflags),
	       um_exit_name(s->exit.kind));
	for (unsigned n = 0; n < UM_NR_GPRS; n += 4)
		um_log("    r%u-%u: %016llx %016llx %016llx %016llx", n, n + 3, U(g[n]),
		       U(g[n + 1]), U(g[n + 2]), U(g[n + 3]));
#undef U
}

static void report(const struct um_exec *x, const struct um_jit_block *b)
{
	const struct um_lockstep *l = x->lockstep;
	const u8 *bytes = b->bytes;
	u64 rip = l->before.rip;

	um_log("the interpreter and the translation of a block differ: %s", l->what);
	for (unsigned n = 0; n < b->ninsns; n++) {
		char text[96], hex[32];
		const struct um_insn *i = &l->decoded[n];
		unsigned len = i->len;

		um_disassemble((enum um_mode)i->mode, bytes, len, rip, text, sizeof(text));
		for (unsigned k = 0; k < len; k++)
			snprintf(hex + 2 * k, 3, "%02x", bytes[k]);
		um_log("  %016llx  %-32s %s", (unsigned long long)rip, hex, text);
		bytes += len;
		rip += len;
	}
	report_state("before", &l->before);
	report_state("the interpreter", &l->interp);
	report_state("the translation", &l->jit);
	for (unsigned n = 0; n < l->nstores; n++) {
		u64 v[2] = { 0, 0 };
		unsigned len = um_min(l->store[n].len, 8u);

		memcpy(&v[0], l->store[n].before, len);
		memcpy(&v[1], l->store[n].after, len);
		um_log("    store of %u bytes at %p: %llx, was %llx", l->store[n].len,
		       (void *)l->store[n].p, (unsigned long long)v[1], (unsigned long long)v[0]);
	}
}

/* ---- a block ---- */

/* Execute @b by the interpreter, recording.  True if it can be taken back: then it has been. */
static bool there_and_back(struct um_exec *x, struct um_jit_block *b)
{
	struct um_lockstep *l = x->lockstep;
	bool fpu = !leaves_fpu(l, b);
	u32 special = x->special;

	l->plain = true;
	l->nstores = 0;
	save(x, &l->before, fpu);
	x->recording = true;
	um_sync_priv(x);
	interpret(x, b);
	x->recording = false;
	um_sync_priv(x);
	save(x, &l->interp, fpu);
	if (!l->plain || b->dead || x->special != special ||
	    (x->exit.kind != UM_EXIT_NONE && x->exit.kind != UM_EXIT_EXCEPTION))
		return false;
	for (unsigned n = 0; n < l->nstores; n++)
		(void)um_copy_from(l->store[n].after, l->store[n].p, l->store[n].len);
	take_back_stores(l);
	restore(x, &l->before, fpu);
	return true;
}

/* What @b goes on in if look-ups fail is there, too: @b must stay while it is executed.  NULL: it is gone. */
static struct um_jit_block *with_other(struct um_exec *x, struct um_jit_block *b)
{
	if (!b->nanchors || um_jit_lookup(x->translator, b->hva, b->key | UM_JIT_KEY_APART))
		return b;
	um_jit_apart(x, b);
	return um_jit_find(x);
}

void um_lockstep_run(struct um_exec *x, struct um_jit_block *b)
{
	struct um_lockstep *l = x->lockstep;

	b = with_other(x, b);
	if (!b)
		return;
	for (unsigned n = 0; n < b->ninsns; n++)
		l->decoded[n] = *um_jit_insn(x, b, n);
	if (!comparable(l, b)) {
		interpret(x, b);
		return;
	}
	for (unsigned n = 0; n < ATTEMPTS; n++) {
		if (!there_and_back(x, b))
			return;
		um_jit_run_alone(x, b, l->interp.rip);
		save(x, &l->jit, !leaves_fpu(l, b));
		if (!differs(x, b)) {
			um_count(x->counters, lockstep_blocks);
			return;
		}
		if (b->dead || x->special || um_interp_kicked(x))
			return; /* a long string instruction may have been left halfway */
		take_back_stores(l);
		restore(x, &l->before, !leaves_fpu(l, b));
	}
	report(x, b);
	um_internal(x, "the interpreter and the translator differ");
}

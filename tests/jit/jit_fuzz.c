// SPDX-License-Identifier: MIT
/*
 * Random programs three ways: by the interpreter, by the translator, on the real CPU.
 *
 * All that a program can see must be equal: at each exception its kind, its address and the general
 * registers and flags; in the end all registers and memory.  Each program runs with the translator
 * twice, since what is executed for the first time is interpreted.
 *
 * A difference is reported with the seed and the program, cut down to the instructions that it
 * takes.
 *
 *	jit-fuzz [--seed N] [--seconds S | --programs N] [--blocks N] [--no-native] [--break MNEMONIC] [--lockstep]
 *	jit-fuzz --seed N --print
 *
 * --break runs an engine that leaves out all instructions of a name: so the test itself is tested.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../fuzz/rng.h"
#include "../oracle/host.h"
#include "cpu/xsave.h"
#include "engine/interp/interp.h"
#include "engine/jit/vec.h"
#include "native.h"

#define TICK_US	    4000
#define TICKS	    5
#define MAX_SHOWN   10
#define EVENT_SHOWN 8

enum way { WAY_INTERP, WAY_FIRST, WAY_AGAIN, WAY_NATIVE, NR_WAYS };
static const char *const way_names[NR_WAYS] = { "the interpreter", "the translator's first run",
						"the translator", "the real CPU" };

struct fuzz {
	struct machine *interp, *jit;
	struct native *native;
	int broken;	 /* mnemonic; -1: none */
	int patience;	 /* ticks until a program counts as endless */
	unsigned vector; /* bytes of a vector register */
	unsigned long programs, natives, endless, lost, strays, events, differences, blocks;
};

/* What the command line asks for. */
struct wanted {
	u64 seed;
	double until;			/* now() */
	unsigned long programs, blocks; /* if not 0, so many instead */
	bool native, lockstep;
};

/*
 * So many programs by one process: the arena of native stubs (engine/interp/native_arena.c) is a
 * process's, and twice as many programs fill it with instructions that differ.
 */
#define SLICE 250000

/* ---- time ---- */

static volatile sig_atomic_t ticks;
static struct um_exec *volatile running;

/* Kicks come at any time, and change nothing. */
static void on_tick(int sig)
{
	struct um_exec *x = running;

	ticks++;
	if (x)
		um_exec_kick(x);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- by an engine ---- */

static u8 prop_of(unsigned page, const struct program *p)
{
	const u8 plain = P_PRESENT | P_WRITE | P_USER | P_NOEXEC;

	switch (page) {
	case PG_CODE:
	case PG_CODE + 1:
		return P_PRESENT | P_WRITE | P_USER;
	case PG_READONLY:
		return P_PRESENT | P_USER | P_NOEXEC;
	case PG_DEVICE:
		return p->native ? 0 : plain | P_MMIO;
	case PG_TRACKED:
		return p->native ? plain : plain | P_TRACKED;
	case PG_CODE + 2:
	case PG_CTL + 1:
	case PG_NONE:
	case PG_DATA5 + 1:
		return 0;
	default:
		return page > PG_CODE && page < PG_END ? plain : 0;
	}
}

/* The vector registers that engines have. */
static unsigned vector_size(void)
{
	enum um_vec_class c = um_vec_host_class(um_host());

	return um_min(c == UM_VEC_CLASS_AVX512 ? 64u
		      : c == UM_VEC_CLASS_AVX  ? 32u
					       : 16u,
		      host_vector());
}

/* Clear what is beyond: the real CPU may have more of it, if some is masked. */
static void narrow(const struct fuzz *f, struct um_fpu *fpu)
{
	for (unsigned n = 0; n < 32; n++) {
		unsigned have = n < 16 || f->vector == 64 ? f->vector : 0;

		memset(fpu->zmm[n] + have, 0, 64 - have);
	}
	if (f->vector < 64)
		memset(fpu->k, 0, sizeof(fpu->k));
}

static void prepare(struct fuzz *f, struct machine *m, const struct program *p)
{
	struct um_exec *x = &m->x;
	struct um_cpu *c = &x->cpu;
	struct rng r = rng_stream(p->seed, 4);
	bool flush = rng_one_in(&r, 4);

	for (unsigned n = 0; n < MEM_PAGES; n++) {
		flush |= m->prop[n] != prop_of(n, p);
		m->prop[n] = prop_of(n, p);
	}
	if (flush)
		machine_flush(m);
	m->no_tlb = rng_one_in(&r, 16);
	m->kick_after = rng_one_in(&r, 4) ? rng_below(&r, 50) : 0;
	program_memory(p, m->mem + (PROGRAM_CODE - MEM_BASE));

	machine_mode(m, p->code32 ? UM_MODE_32 : UM_MODE_64);
	c->cr0 |= CR0_MP | CR0_AM;
	c->cr4 |= CR4_OSXMMEXCPT | CR4_OSXSAVE;
	c->xcr0 = um_xsave_layout()->supported;
	for (unsigned s = 0; s < UM_NR_SEGS; s++) {
		c->seg[s].dpl = 3;
		c->seg[s].selector = s == UM_CS ? (p->code32 ? 0x23 : 0x33) : s >= UM_FS ? 0 : 0x2b;
	}
	c->seg[UM_GS].base = p->code32 ? 0 : PROGRAM_GS;
	c->cpl = 3;
	memcpy(c->gpr, p->gpr, sizeof(p->gpr));
	c->rflags = p->rflags;
	c->rip = PROGRAM_CODE + p->block[0];
	c->int_shadow = 0;
	c->dr6 = 0;
	um_fpu_init(&c->fpu, UM_XSAVE_ALL);
	program_vectors(p, &c->fpu);
	narrow(f, &c->fpu);
	x->code_doubt = true;
	x->mmio.done = 0;
	x->pio.state = UM_PIO_IDLE;
	x->jit_threshold = rng_one_in(&r, 4) ? rng_below(&r, 4) : 0;
}

/* What a device answers. */
static u64 device_answer(gpa_t gpa, unsigned n)
{
	return (gpa + n * 0x1234567) * 0x9e3779b97f4a7c15ull;
}

static void note(const struct program *p, struct um_exec *x, struct outcome *o)
{
	struct event *e = &o->ev[o->nevents++];

	/*
	 * INT1: the real CPU says it of the next instruction, and for engines that is the vCPU
	 * layer's business.
	 */
	if (x->exit.kind == UM_EXIT_EXCEPTION && x->exit.exc.kind == UM_EVENT_PRIV_EXC)
		x->cpu.rip += x->exit.insn_len;
	*e = (struct event){ .kind = (u16)x->exit.kind, .rip = x->cpu.rip };
	e->flags = x->cpu.rflags & OUTCOME_FLAGS & ~program_undefined(p, x->cpu.rip);
	memcpy(e->gpr, x->cpu.gpr, sizeof(e->gpr));
	if (x->exit.kind == UM_EXIT_EXCEPTION) {
		e->vector = x->exit.exc.vector;
		if (e->vector == UM_VEC_PF) {
			e->error = x->exit.exc.error_code;
			e->address = x->exit.exc.payload;
		}
	} else if (x->exit.kind == UM_EXIT_MMIO) {
		e->address = x->exit.mmio.gpa;
		e->error = x->exit.mmio.len | (x->exit.mmio.write ? BIT(7) : 0);
		if (x->exit.mmio.write)
			memcpy(&e->data, x->exit.mmio.data, x->exit.mmio.len);
	}
}

/* Go on after an exit.  False: the program is over. */
static bool proceed(const struct program *p, struct um_exec *x, struct program_run *run)
{
	struct um_cpu *c = &x->cpu;

	switch (x->exit.kind) {
	case UM_EXIT_KICK:
		atomic_store(&x->kick, 0);
		return true;
	case UM_EXIT_MMIO: {
		u64 answer = device_answer(x->exit.mmio.gpa, run->nevents);

		um_engine_mmio_done(x, &answer);
		return ++run->nevents < PROGRAM_EVENTS;
	}
	case UM_EXIT_EXCEPTION:
		c->int_shadow = 0;
		c->rflags &= ~RFLAGS_RF;
		x->mmio.done = 0;
		return program_resume(p, run, x->exit.exc.vector, &c->rip, &c->rflags,
				      &c->gpr[UM_RSP]);
	default:
		return false;
	}
}

static void run_engine(struct fuzz *f, struct machine *m, const struct program *p,
		       struct outcome *o)
{
	struct program_run run = { 0 };
	struct um_exec *x = &m->x;
	int start = ticks;
	bool more;

	prepare(f, m, p);
	o->status = OUTCOME_DONE;
	o->native = false;
	o->nevents = 0;
	running = x;
	do {
		um_engine_run(x);
		if (x->exit.kind != UM_EXIT_KICK)
			note(p, x, o);
		else if (ticks - start > f->patience)
			o->status = OUTCOME_ENDLESS;
		more = proceed(p, x, &run);
	} while (more && o->status == OUTCOME_DONE);
	running = NULL;
	o->fpu = x->cpu.fpu;
	memcpy(o->gpr, x->cpu.gpr, sizeof(o->gpr));
	memcpy(o->mem, m->mem + (PROGRAM_CODE - MEM_BASE), PROGRAM_MEM_SIZE);
}

/* The program as an engine has it that leaves out instructions of one name. */
static const struct program *broken(struct fuzz *f, const struct program *p)
{
	static struct program copy;

	if (f->broken < 0)
		return p;
	copy = *p;
	for (unsigned n = 0; n < p->ninsns; n++) {
		if (p->insn[n].op == f->broken)
			program_drop(&copy, n);
	}
	return &copy;
}

/* Has the program stored to its instructions where it was not meant to? */
static bool code_overwritten(const struct machine *m, const struct program *p)
{
	const u8 *now = m->mem + (PROGRAM_CODE - MEM_BASE);

	for (unsigned n = 0; n < p->ninsns; n++) {
		for (unsigned off = p->insn[n].off, k = 0; k < p->insn[n].len; k++) {
			bool meant = now[off + k] == p->code[off + k];

			for (unsigned s = 0; !meant && s < p->npatched; s++)
				meant = p->patched[s] == off + k;
			if (!meant)
				return true;
		}
	}
	return false;
}

/*
 * Does execution come to where no instruction of the program begins?  Then undefined flags may have
 * been used.
 */
static bool stray(struct fuzz *f, const struct program *p)
{
	struct program_run run = { 0 };
	struct um_exec *x = &f->interp->x;
	bool astray = false, more = true;
	int start = ticks;

	prepare(f, f->interp, p);
	x->guest_step = true;
	while (more && !astray && ticks - start <= f->patience) {
		u64 off = x->cpu.rip - PROGRAM_CODE, tf = x->cpu.rflags & RFLAGS_TF;

		astray = off < PROGRAM_CODE_SIZE && !(p->undefined[off] & PROGRAM_KNOWN);
		um_engine_run(x);
		if (x->exit.kind == UM_EXIT_EXCEPTION && x->exit.exc.vector == UM_VEC_DB && !tf)
			continue;
		more = proceed(p, x, &run);
	}
	x->guest_step = false;
	return astray || code_overwritten(f->interp, p);
}

/* ---- comparing ---- */

/* Is it a fault of which processors make something else, or which they have later or not at all? */
static bool program_soft(const struct program *p, const struct event *e)
{
	const struct program_insn *i = program_at(p, e->rip);

	return i && i->soft && program_memory_fault(e->vector);
}

struct diff {
	char text[160];
};

static bool differ(struct diff *d, const char *what, u64 a, u64 b)
{
	snprintf(d->text, sizeof(d->text), "%s: %#llx, %#llx", what, (unsigned long long)a,
		 (unsigned long long)b);
	return true;
}

static bool event_differs(const struct program *p, const struct event *a, const struct event *b,
			  unsigned n, struct diff *d)
{
	u64 mask = p->code32 ? 0xffffffff : ~0ull;
	char what[32];

#define FIELD(name)                                                          \
	do {                                                                 \
		if (a->name != b->name) {                                    \
			snprintf(what, sizeof(what), "event %u: " #name, n); \
			return differ(d, what, a->name, b->name);            \
		}                                                            \
	} while (0)
	FIELD(rip);
	FIELD(kind);
	FIELD(vector);
	FIELD(error);
	FIELD(address);
	FIELD(data);
	FIELD(flags);
#undef FIELD
	for (unsigned r = 0; r < (p->code32 ? 8u : 16u); r++) {
		if ((a->gpr[r] ^ b->gpr[r]) & mask) {
			snprintf(what, sizeof(what), "event %u: gpr %u", n, r);
			return differ(d, what, a->gpr[r] & mask, b->gpr[r] & mask);
		}
	}
	return false;
}

static bool vectors_differ(const struct um_fpu *a, const struct um_fpu *b, struct diff *d)
{
	char what[32];

	for (unsigned n = 0; n < 32; n++) {
		if (!memcmp(a->zmm[n], b->zmm[n], 64))
			continue;
		for (unsigned q = 0; q < 64; q += 8) {
			u64 va, vb;

			memcpy(&va, &a->zmm[n][q], 8);
			memcpy(&vb, &b->zmm[n][q], 8);
			if (va == vb)
				continue;
			snprintf(what, sizeof(what), "v%u, byte %u", n, q);
			return differ(d, what, va, vb);
		}
	}
	for (unsigned k = 0; k < 8; k++) {
		if (a->k[k] != b->k[k])
			return differ(d, "opmask", a->k[k], b->k[k]);
	}
	if (a->mxcsr != b->mxcsr)
		return differ(d, "mxcsr", a->mxcsr, b->mxcsr);
	for (unsigned n = 0; n < 160; n++) {
		if ((n >= 24 && n < 32) || (n >= 32 && n % 16 >= 10) ||
		    a->fxsave[n] == b->fxsave[n])
			continue;
		snprintf(what, sizeof(what), "x87 image, byte %u", n);
		return differ(d, what, a->fxsave[n], b->fxsave[n]);
	}
	return false;
}

static bool outcomes_differ(const struct program *p, const struct outcome *a,
			    const struct outcome *b, struct diff *d)
{
	u64 mask = p->code32 ? 0xffffffff : ~0ull;
	char what[32];

	if (a->status == OUTCOME_DONE && b->status == OUTCOME_ENDLESS)
		return differ(d, "ends", true, false);
	if (a->status != OUTCOME_DONE || b->status != OUTCOME_DONE)
		return false;
	for (unsigned n = 0; n < a->nevents && n < b->nevents; n++) {
		if (b->native && (program_soft(p, &a->ev[n]) || program_soft(p, &b->ev[n])))
			return false;
		if (event_differs(p, &a->ev[n], &b->ev[n], n, d))
			return true;
	}
	if (a->nevents != b->nevents)
		return differ(d, "events", a->nevents, b->nevents);
	for (unsigned r = 0; r < (p->code32 ? 8u : 16u); r++) {
		if ((a->gpr[r] ^ b->gpr[r]) & mask) {
			snprintf(what, sizeof(what), "gpr %u", r);
			return differ(d, what, a->gpr[r] & mask, b->gpr[r] & mask);
		}
	}
	if (vectors_differ(&a->fpu, &b->fpu, d))
		return true;
	if (!memcmp(a->mem, b->mem, PROGRAM_MEM_SIZE))
		return false;
	for (unsigned n = 0; n < PROGRAM_MEM_SIZE; n++) {
		if (a->mem[n] == b->mem[n])
			continue;
		snprintf(what, sizeof(what), "memory at %llx",
			 (unsigned long long)PROGRAM_CODE + n);
		return differ(d, what, a->mem[n], b->mem[n]);
	}
	return false;
}

/* ---- a difference ---- */

/*
 * Run @p by the interpreter and by @way.  True if they differ, and the program does nothing
 * undefined.
 */
static bool still_differs(struct fuzz *f, const struct program *p, enum way way,
			  struct outcome o[2], struct diff *d)
{
	run_engine(f, f->interp, p, &o[0]);
	if (way == WAY_NATIVE) {
		*native_program(f->native, 0) = *p;
		native_start(f->native, 1);
		native_wait(f->native);
		o[1] = *native_outcome(f->native, 0);
		narrow(f, &o[1].fpu);
		if (o[1].status != OUTCOME_DONE)
			return false;
	} else {
		run_engine(f, f->jit, broken(f, p), &o[1]);
		if (way == WAY_AGAIN)
			run_engine(f, f->jit, broken(f, p), &o[1]);
	}
	return outcomes_differ(p, &o[0], &o[1], d) && !stray(f, p);
}

static void shrink(struct fuzz *f, struct program *p, enum way way, struct outcome o[2],
		   struct diff *d)
{
	static struct program attempt;
	struct diff other;
	bool changed = true;

	for (unsigned pass = 0; changed && pass < 4; pass++) {
		changed = false;
		for (unsigned n = p->ninsns - 1; n-- > 0;) {
			if (p->insn[n].keep || p->code[p->insn[n].off] == 0x90)
				continue;
			attempt = *p;
			program_drop(&attempt, n);
			if (!still_differs(f, &attempt, way, o, &other))
				continue;
			*p = attempt;
			changed = true;
		}
	}
	still_differs(f, p, way, o, d);
}

static void print_registers(const struct program *p)
{
	static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					       "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					       "r12", "r13", "r14", "r15" };

	for (unsigned r = 0; r < (p->code32 ? 8u : 16u); r++)
		printf("%s%s %llx", r % 8 ? "  " : "\n  ", names[r], (unsigned long long)p->gpr[r]);
	printf("\n  rflags %llx  mxcsr %x  fcw %x\n", (unsigned long long)p->rflags, p->mxcsr,
	       p->fcw);
}

static void print_events(const struct outcome *o, const char *name)
{

	printf("  %s:", name);
	for (unsigned n = 0; n < o->nevents; n++) {
		const struct event *e = &o->ev[n];

		if (n == EVENT_SHOWN / 2 && o->nevents > EVENT_SHOWN) {
			n = o->nevents - EVENT_SHOWN / 2;
			e = &o->ev[n];
			printf(" ...");
		}
		printf(" [%llx ", (unsigned long long)e->rip);
		if (e->kind == UM_EXIT_EXCEPTION)
			printf("vector %u", e->vector);
		else
			printf("%s", um_exit_name((enum um_exit_kind)e->kind));
		if (e->address)
			printf(" %llx %x", (unsigned long long)e->address, e->error);
		printf("]");
	}
	printf("\n");
}

/* Program @found differed, in @how; @slow: in that it did not end in time. */
static void report(struct fuzz *f, const struct program *found, enum way way,
		   const struct diff *how, bool slow)
{
	static struct outcome o[2];
	static struct program p;
	struct diff d = { "" };
	bool again;

	p = *found;
	f->patience = 1000 * TICKS; /* what changes its own code is translated again and again */
	again = still_differs(f, &p, way, o, &d);
	f->patience = TICKS;
	if (!again) {
		if (stray(f, &p)) {
			f->strays++;
		} else if (!slow) {
			printf("seed %llu: %s differed from the interpreter, once, in\n  %s\n",
			       (unsigned long long)p.seed, way_names[way], how->text);
			f->differences++;
		}
		return;
	}
	if (f->differences++ >= MAX_SHOWN)
		return;
	printf("seed %llu, %s-bit: the interpreter and %s differ in\n  %s\n",
	       (unsigned long long)p.seed, p.code32 ? "32" : "64", way_names[way], d.text);
	print_events(&o[0], "the interpreter");
	print_events(&o[1], way_names[way]);
	shrink(f, &p, way, o, &d);
	printf("  and, cut down to what follows, in\n  %s\n", d.text);
	print_events(&o[0], "the interpreter");
	print_events(&o[1], way_names[way]);
	program_print(&p);
	print_registers(&p);
	fflush(stdout);
}

/* ---- programs ---- */

static bool can_execute(void *arg, struct um_insn *i, const u8 *bytes)
{
	struct fuzz *f = arg;

	if (i->flags & (UM_INSN_UD | UM_INSN_TOOLONG))
		return false;
	um_interp_bind(&f->interp->x, i, bytes);
	return i->fn != um_op_ud;
}

static void draw(struct fuzz *f, struct program *p, u64 seed)
{
	struct rng r = rng_stream(seed, 5);
	bool code32 = rng_one_in(&r, 3), native = rng_below(&r, 3);

	if (code32 && f->native && !native_has_code32(f->native))
		native = false;
	program_make(p, seed, code32, native, can_execute, f);
}

static struct outcome by_interp[NATIVE_BATCH];

static void run_batch(struct fuzz *f, u64 seed, unsigned count)
{
	static struct program program[NATIVE_BATCH];
	static unsigned native_of[NATIVE_BATCH];
	static struct outcome o;
	struct diff d;
	unsigned nnatives = 0;

	for (unsigned k = 0; k < count; k++) {
		draw(f, &program[k], seed + k);
		native_of[k] = NATIVE_BATCH;
		if (!f->native || !program[k].native)
			continue;
		native_of[k] = nnatives;
		*native_program(f->native, nnatives++) = program[k];
	}
	if (nnatives)
		native_start(f->native, nnatives);
	for (unsigned k = 0; k < count; k++) {
		const struct program *p = &program[k];

		run_engine(f, f->interp, p, &by_interp[k]);
		f->programs++;
		f->events += by_interp[k].nevents;
		if (by_interp[k].status != OUTCOME_DONE) {
			f->endless++;
			continue;
		}
		for (enum way w = WAY_FIRST; w <= WAY_AGAIN; w++) {
			run_engine(f, f->jit, broken(f, p), &o);
			if (!outcomes_differ(p, &by_interp[k], &o, &d))
				continue;
			/* (The batch that the real CPU is at must be left alone.) */
			report(f, p, w, &d, o.status == OUTCOME_ENDLESS);
			break;
		}
	}
	if (nnatives)
		native_wait(f->native);
	for (unsigned k = 0; k < count; k++) {
		struct outcome *n;

		if (native_of[k] == NATIVE_BATCH || by_interp[k].status != OUTCOME_DONE)
			continue;
		n = native_outcome(f->native, native_of[k]);
		narrow(f, &n->fpu);
		if (n->status != OUTCOME_DONE) {
			f->lost++;
			continue;
		}
		f->natives++;
		if (!outcomes_differ(&program[k], &by_interp[k], n, &d))
			continue;
		report(f, &program[k], WAY_NATIVE, &d, false);
		/* That has taken the batch's place. */
		for (k++; k < count; k++)
			f->lost += native_of[k] != NATIVE_BATCH;
	}
}

static struct machine *new_machine(enum um_engine_kind engine)
{
	struct machine *m = machine_new_engine(engine);

	m->x.jit_threshold = 0;
	return m;
}

static int mnemonic(const char *name)
{
	for (int m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
		if (!strcmp(ZydisMnemonicGetString((ZydisMnemonic)m), name))
			return m;
	}
	fprintf(stderr, "jit-fuzz: no such mnemonic: %s\n", name);
	exit(2);
}

static void start_ticks(void)
{
	const struct itimerval tick = { { 0, TICK_US }, { 0, TICK_US } };
	struct sigaction sa = { .sa_handler = on_tick, .sa_flags = SA_RESTART };

	sigaction(SIGVTALRM, &sa, NULL);
	setitimer(ITIMER_VIRTUAL, &tick, NULL);
}

static bool enough(const struct fuzz *f, const struct wanted *w)
{
	return w->programs ? f->programs >= w->programs
	       : w->blocks ? f->blocks >= w->blocks
			   : now() >= w->until;
}

static void begin(struct fuzz *f, const struct wanted *w)
{
	f->vector = vector_size();
	f->native = w->native ? native_new() : NULL;
	if (w->native && !f->native)
		printf("no process for the real CPU: without it\n");
	f->interp = new_machine(UM_ENGINE_INTERP);
	f->jit = new_machine(w->lockstep ? UM_ENGINE_LOCKSTEP : UM_ENGINE_JIT);
}

/* What is left of @w, or a slice of it.  In a process of its own. */
static void fuzz_slice(struct fuzz *f, const struct wanted *w)
{
	const unsigned long before = f->blocks, last = f->programs + SLICE;

	begin(f, w);
	start_ticks();
	do {
		unsigned count = NATIVE_BATCH;

		if (w->programs)
			count = um_min(count, (unsigned)(w->programs - f->programs));
		run_batch(f, w->seed + f->programs, count);
		f->blocks = before + f->jit->counters.v[UM_CNT_jit_blocks];
	} while (!enough(f, w) && f->programs < last);
	native_free(f->native);
	machine_free(f->interp);
	machine_free(f->jit);
}

/* False: it came to no end. */
static bool fuzz(struct fuzz *f, const struct wanted *w)
{
	struct fuzz *shared =
		mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared == MAP_FAILED)
		return false;
	do {
		pid_t child;
		int status;

		fflush(stdout);
		child = fork();
		if (child == 0) {
			fuzz_slice(f, w);
			*shared = *f;
			fflush(stdout);
			_exit(0);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || status)
			return false;
		*f = *shared;
	} while (!enough(f, w));
	return true;
}

int main(int argc, char **argv)
{
	struct fuzz f = { .broken = -1, .patience = TICKS };
	struct wanted w = { .seed = 1, .native = true };
	double seconds = 5;
	bool print = false, ended;

	for (int a = 1; a < argc; a++) {
		bool value = a + 1 < argc;

		if (!strcmp(argv[a], "--seed") && value)
			w.seed = strtoull(argv[++a], NULL, 0);
		else if (!strcmp(argv[a], "--seconds") && value)
			seconds = atof(argv[++a]);
		else if (!strcmp(argv[a], "--programs") && value)
			w.programs = strtoul(argv[++a], NULL, 0);
		else if (!strcmp(argv[a], "--blocks") && value)
			w.blocks = strtoul(argv[++a], NULL, 0);
		else if (!strcmp(argv[a], "--break") && value)
			f.broken = mnemonic(argv[++a]);
		else if (!strcmp(argv[a], "--no-native"))
			w.native = false;
		else if (!strcmp(argv[a], "--lockstep"))
			w.lockstep = true;
		else if (!strcmp(argv[a], "--print"))
			print = true;
		else
			return fprintf(stderr, "usage: jit-fuzz [--seed N] [--seconds S | "
					       "--programs N | --blocks N] "
					       "[--no-native] [--break MNEMONIC]\n"),
			       2;
	}
	f.vector = vector_size();
	if (print) {
		static struct program p;

		begin(&f, &w);
		draw(&f, &p, w.seed);
		program_print(&p);
		print_registers(&p);
		return 0;
	}
	w.until = now() + seconds;
	ended = fuzz(&f, &w);
	if (!ended)
		printf("the process of the programs from seed %llu on did not come to its end\n",
		       (unsigned long long)(w.seed + f.programs));
	printf("%lu programs, %lu of them on the real CPU; %lu blocks translated, %lu events; %lu "
	       "endless, %lu lost, "
	       "%lu astray; %lu differences\n",
	       f.programs, f.natives, f.blocks, f.events, f.endless, f.lost, f.strays,
	       f.differences);
	return !ended || f.differences || !f.programs;
}

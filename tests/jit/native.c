// SPDX-License-Identifier: MIT
/*
 * Programs on the real CPU (native.h).
 *
 * The process shares the batch with its parent.  It maps a memfd twice: at the guest's addresses,
 * with the rights that the pages of a program have, and once more for itself.  A seccomp filter
 * turns system calls from the guest's addresses into signals.  A program that doesn't end is left
 * at a tick of a timer.
 */
#include "native.h"

#include <asm/prctl.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../oracle/host.h"

#define TICK_US	   4000
#define TICKS	   3
#define WAIT_S	   20
#define CODE32_RAX 0x12345678

struct shared {
	sem_t go, done;
	unsigned count;
	bool code32;
	struct program program[NATIVE_BATCH];
	struct outcome outcome[NATIVE_BATCH];
};

struct native {
	struct shared *s;
	pid_t pid;
};

/* ---- the child ---- */

struct trial {
	const struct program *p;
	struct outcome *o;
	struct program_run run;
	unsigned ticks;
	enum outcome_status status;
};

static bool on_fault(void *arg, struct host_fault *f)
{
	struct trial *t = arg;
	struct outcome *o = t->o;
	const struct program_insn *i;
	struct event *e;

	if (f->vector == HOST_TICK) {
		if (++t->ticks < TICKS)
			return true;
		t->status = OUTCOME_ENDLESS;
		return false;
	}
	if (f->vector == HOST_SYSCALL) {
		t->status = OUTCOME_LOST;
		return false;
	}
	if (f->vector == UM_VEC_BP || f->vector == UM_VEC_OF)
		f->rip--; /* as engines have it: the instruction, of one byte */
	e = &o->ev[o->nevents++];
	*e = (struct event){ .kind = UM_EXIT_EXCEPTION,
			     .vector = (u16)f->vector,
			     .rip = f->rip,
			     .flags = f->flags & OUTCOME_FLAGS & ~program_undefined(t->p, f->rip) };
	memcpy(e->gpr, f->gpr, sizeof(e->gpr));
	if (f->vector == UM_VEC_PF) {
		e->error = f->error;
		e->address = f->cr2;
		/*
		 * Linux says that what is behind a process's part of the address space is present.
		 */
		if (f->cr2 >= (1ull << 47) - UM_PAGE_SIZE)
			e->error &= ~PFERR_PRESENT;
	}
	i = program_at(t->p, f->rip);
	if (i && i->soft && program_memory_fault((unsigned)f->vector))
		return false; /* no more of it is comparable */
	return program_resume(t->p, &t->run, (unsigned)f->vector, &f->rip, &f->flags,
			      &f->gpr[UM_RSP]);
}

static bool set_gs(void)
{
	return !syscall(SYS_arch_prctl, ARCH_SET_GS, PROGRAM_GS);
}

static void run_one(const struct program *p, struct outcome *o, u8 *mem)
{
	static struct host_state in, out;
	struct trial t = { .p = p, .o = o };

	o->native = true;
	o->nevents = 0;
	program_memory(p, mem);
	(void)*(volatile u8 *)PAGE(PG_READONLY); /* present: what the error code says */
	program_vectors(p, &o->fpu);
	memcpy(in.zmm, o->fpu.zmm, sizeof(in.zmm));
	memcpy(in.k, o->fpu.k, sizeof(in.k));
	memcpy(in.fxsave, o->fpu.fxsave, sizeof(in.fxsave));
	memcpy(in.fxsave + 24, &o->fpu.mxcsr, 4);
	memcpy(in.gpr, p->gpr, sizeof(in.gpr));
	in.flags = p->rflags;
	(void)set_gs(); /* a program that went astray may have loaded it */
	host_run_at(PROGRAM_CODE + p->block[0], p->code32, &in, &out, on_fault, &t);
	memcpy(o->fpu.zmm, out.zmm, sizeof(out.zmm));
	memcpy(o->fpu.k, out.k, sizeof(out.k));
	memcpy(o->fpu.fxsave, out.fxsave, sizeof(out.fxsave));
	memcpy(&o->fpu.mxcsr, out.fxsave + 24, 4);
	memcpy(o->gpr, out.gpr, sizeof(o->gpr));
	memcpy(o->mem, mem, PROGRAM_MEM_SIZE);
	o->status = t.status;
}

static int rights(unsigned page)
{
	switch (page) {
	case PG_CODE:
	case PG_CODE + 1:
		return PROT_READ | PROT_WRITE | PROT_EXEC;
	case PG_READONLY:
		return PROT_READ;
	case PG_CODE + 2:
	case PG_CTL + 1:
	case PG_NONE:
	case PG_DEVICE:
	case PG_DATA5 + 1:
		return PROT_NONE;
	default:
		return PROT_READ | PROT_WRITE;
	}
}

static u8 *map_memory(void)
{
	int fd = memfd_create("program", 0);
	u8 *alias;

	if (fd < 0 || ftruncate(fd, PROGRAM_MEM_SIZE) < 0)
		return NULL;
	alias = mmap(NULL, PROGRAM_MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	for (unsigned n = 0; n < PROGRAM_MEM_PAGES; n++) {
		void *at = (void *)PAGE(PG_CODE + n);

		if (mmap(at, UM_PAGE_SIZE, rights(PG_CODE + n),
			 MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd,
			 (off_t)(n * UM_PAGE_SIZE)) != at)
			return NULL;
	}
	close(fd);
	return alias == MAP_FAILED ? NULL : alias;
}

static bool filter_calls(void)
{
	const unsigned ip = offsetof(struct seccomp_data, instruction_pointer);
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ip + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ip),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, MEM_BASE, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, MEM_BASE + MEM_SIZE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(f) / sizeof(f[0]), .filter = f };

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

/*
 * Does 32-bit code run?  MOV EAX, CODE32_RAX; INC EDX; DEC EAX; UD2, which in 64-bit mode is
 * something else.
 */
static bool leave_at_ud(void *arg, struct host_fault *f)
{
	return f->vector == HOST_TICK;
}
static bool try_code32(u8 *mem)
{
	static const u8 code[] = { 0xb8, 0x78, 0x56, 0x34, 0x12, 0x42, 0x48, 0x0f, 0x0b };
	static struct host_state in, out;

	memcpy(mem, code, sizeof(code));
	memset(&in, 0, sizeof(in));
	in.flags = RFLAGS_FIXED1;
	in.gpr[UM_RSP] = PROGRAM_RSP;
	in.fxsave[24] = 0x80;
	in.fxsave[25] = 0x1f;
	host_run_at(PROGRAM_CODE, true, &in, &out, leave_at_ud, NULL);
	return (u32)out.gpr[UM_RAX] == CODE32_RAX - 1 && (u32)out.gpr[UM_RDX] == 1;
}

static void child(struct shared *s)
{
	const struct itimerval tick = { { 0, TICK_US }, { 0, TICK_US } };
	u8 *mem = map_memory();

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!mem || !set_gs() || !filter_calls())
		_exit(1);
	host_init();
	setitimer(ITIMER_VIRTUAL, &tick, NULL);
	s->code32 = try_code32(mem);
	sem_post(&s->done);
	for (;;) {
		while (sem_wait(&s->go) < 0)
			;
		for (unsigned n = 0; n < s->count; n++)
			run_one(&s->program[n], &s->outcome[n], mem);
		sem_post(&s->done);
	}
}

/* ---- the parent ---- */

/* Wait for the child.  False: it is gone. */
static bool wait_done(struct native *n)
{
	struct timespec t;

	for (unsigned tries = 0; tries < WAIT_S * 10; tries++) {
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += 100000000;
		t.tv_sec += t.tv_nsec / 1000000000;
		t.tv_nsec %= 1000000000;
		if (!sem_timedwait(&n->s->done, &t))
			return true;
		if (waitpid(n->pid, NULL, WNOHANG) == n->pid) {
			n->pid = 0;
			return false;
		}
	}
	kill(n->pid, SIGKILL);
	waitpid(n->pid, NULL, 0);
	n->pid = 0;
	return false;
}

static bool spawn(struct native *n)
{
	sem_init(&n->s->go, 1, 0);
	sem_init(&n->s->done, 1, 0);
	fflush(stdout);
	n->pid = fork();
	if (n->pid == 0)
		child(n->s);
	return n->pid > 0 && wait_done(n);
}

struct native *native_new(void)
{
	struct native *n;

#ifdef __SANITIZE_ADDRESS__
	return NULL; /* its shadow is memory where programs expect none */
#endif
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->s = mmap(NULL, sizeof(*n->s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (n->s == MAP_FAILED || !spawn(n)) {
		free(n);
		return NULL;
	}
	return n;
}

void native_free(struct native *n)
{
	if (!n)
		return;
	if (n->pid) {
		kill(n->pid, SIGKILL);
		waitpid(n->pid, NULL, 0);
	}
	munmap(n->s, sizeof(*n->s));
	free(n);
}

bool native_has_code32(const struct native *n)
{
	return n->s->code32;
}

struct program *native_program(struct native *n, unsigned k)
{
	return &n->s->program[k];
}

struct outcome *native_outcome(const struct native *n, unsigned k)
{
	return &n->s->outcome[k];
}

void native_start(struct native *n, unsigned count)
{
	n->s->count = count;
	for (unsigned k = 0; k < count; k++)
		n->s->outcome[k].status = OUTCOME_LOST;
	if (n->pid)
		sem_post(&n->s->go);
}

void native_wait(struct native *n)
{
	if (n->pid && wait_done(n))
		return;
	/* What it had not done is lost. */
	if (!n->pid)
		spawn(n);
}

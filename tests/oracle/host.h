/* SPDX-License-Identifier: MIT */
/*
 * One instruction on the host CPU, with all of its unprivileged registers under control: the
 * oracle.
 *
 * Faults are caught and come back as the vector of the exception.  Single-threaded.
 */
#ifndef TESTS_ORACLE_HOST_H
#define TESTS_ORACLE_HOST_H

#include "base/types.h"

struct host_state {
	u8 zmm[32][64] __attribute__((aligned(64)));
	u8 fxsave[512] __attribute__((aligned(64))); /* x87 only, and MXCSR */
	u64 k[8];
	u64 gpr[16];
	u64 flags;
};

/* Vector lengths that the host has: 16, 32 or 64. */
unsigned host_vector(void);

/* Where the instruction will be executed: its guest rip, too. */
u8 *host_code(void);

/* Install signal handlers.  Call it before the library installs its own, which chains to these. */
void host_init(void);

/*
 * Execute the @len bytes at host_code(), which must fall through, from @in to @out.  Returns -1, or
 * the vector of the exception that it raised; then @out is the state at the fault.
 */
int host_run(const struct host_state *in, struct host_state *out, unsigned len);

/* ---- whole programs ---- */

/* A fault, a trap, or */
#define HOST_TICK    0x100 /* SIGVTALRM */
#define HOST_SYSCALL 0x101 /* SIGSYS: a seccomp filter has stopped a system call */
struct host_fault {
	int vector;
	u32 error; /* of #PF; so is cr2 */
	u64 cr2;
	u64 rip, flags, gpr[16]; /* may be changed */
};
/* Runs as a signal handler.  True: go on with the registers in *f. */
typedef bool host_fault_fn(void *arg, struct host_fault *f);

/*
 * Execute code of the caller's at @rip, in 64-bit mode or, @compat, as 32-bit code, until @fn says
 * so: it sees every fault and every tick.  @out is the state then, but for rip and RFLAGS.TF.
 */
void host_run_at(u64 rip, bool compat, const struct host_state *in, struct host_state *out,
		 host_fault_fn *fn, void *arg);

#endif

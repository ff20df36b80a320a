/* SPDX-License-Identifier: MIT */
/*
 * One instruction on the host CPU, with all of its unprivileged registers under control: the oracle.
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
 * Execute the @len bytes at host_code(), which must fall through, from @in to @out.  Returns -1, or the
 * vector of the exception that it raised; then @out is the state at the fault.
 */
int host_run(const struct host_state *in, struct host_state *out, unsigned len);

#endif

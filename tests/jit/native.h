/* SPDX-License-Identifier: MIT */
/*
 * Programs on the real CPU, in a process of their own that can make no system calls, with guest
 * memory mapped where the guest has it.
 */
#ifndef TESTS_JIT_NATIVE_H
#define TESTS_JIT_NATIVE_H

#include "outcome.h"

#define NATIVE_BATCH 32

struct native;

/* NULL: it can't be had. */
struct native *native_new(void);
void native_free(struct native *n);
/* Can it execute 32-bit code? */
bool native_has_code32(const struct native *n);

/*
 * Run programs [0, count) of native_program(); the answers are in native_outcome() after
 * native_wait().
 */
void native_start(struct native *n, unsigned count);
void native_wait(struct native *n);
struct program *native_program(struct native *n, unsigned k);
struct outcome *native_outcome(const struct native *n, unsigned k);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What became of a program: everything that its engine, or the real CPU, left behind.
 */
#ifndef TESTS_JIT_OUTCOME_H
#define TESTS_JIT_OUTCOME_H

#include "program.h"

/* An exception, or another exit of the engine. */
struct event {
	u16 kind;    /* enum um_exit_kind */
	u16 vector;  /* of UM_EXIT_EXCEPTION */
	u32 error;   /* #PF: error code; #DB: DR6 bits; UM_EXIT_MMIO: length, BIT(7) for a write */
	u64 address; /* #PF: CR2; UM_EXIT_MMIO: physical address */
	u64 data;    /* UM_EXIT_MMIO: what was written */
	u64 rip, flags, gpr[16];
};

enum outcome_status {
	OUTCOME_DONE,
	OUTCOME_ENDLESS,
	OUTCOME_LOST, /* the real CPU: a system call, or its process died */
};

struct outcome {
	enum outcome_status status;
	bool native;
	unsigned nevents;
	struct event ev[PROGRAM_EVENTS + 1];
	struct um_fpu fpu;
	u64 gpr[16];
	u8 mem[PROGRAM_MEM_SIZE];
};

#define OUTCOME_FLAGS (RFLAGS_STATUS | RFLAGS_DF | RFLAGS_TF | RFLAGS_ID)

#endif

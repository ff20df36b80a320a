/* SPDX-License-Identifier: MIT */
/*
 * What can be chosen of the translator: one list, from which come the environment variables that umbra_open() reads
 * and the options of `umbra run` and `umbra exec` that set them.
 *
 * Translated code is in one area for the whole process.  So the first VM's choice is that of all, but for the threshold.
 */
#ifndef UM_BASE_JIT_OPTIONS_H
#define UM_BASE_JIT_OPTIONS_H

#include <limits.h>

#include "base/bits.h"
#include "base/types.h"

/* X(enumerator, environment variable, option, its argument: required or optional) */
#define UM_JIT_OPTIONS(X)                                            \
	X(DUMP_CODE, "UMBRA_DUMP_CODE", "dump-code", optional)       \
	X(DUMP_PASSES, "UMBRA_DUMP_PASSES", "dump-passes", required) \
	X(DUMP_RANGE, "UMBRA_DUMP_RANGE", "dump-range", required)    \
	X(PERF, "UMBRA_PERF", "perf", required)                      \
	X(CODE_CACHE, "UMBRA_CODE_CACHE", "code-cache", required)    \
	X(THRESHOLD, "UMBRA_JIT_THRESHOLD", "jit-threshold", required)

enum um_jit_option {
#define X(name, env, option, argument) UM_JIT_OPT_##name,
	UM_JIT_OPTIONS(X)
#undef X
		UM_JIT_OPT_MAX
};

/* X(pass, what is shown of a block) */
#define UM_DUMP_PASSES(X)                                                  \
	X(guest, "its instructions")                                       \
	X(facts, "how each is done; the registers and flags that it uses") \
	X(liveness, "the status flags that matter before each")            \
	X(host, "the code made of each")

enum um_dump_pass {
#define X(name, help) UM_DUMP_##name,
	UM_DUMP_PASSES(X)
#undef X
		UM_DUMP_MAX
};

/* What perf(1) is told of translated code. */
enum um_perf {
	UM_PERF_NONE,
	UM_PERF_MAP,	 /* /tmp/perf-PID.map: addresses and names */
	UM_PERF_JITDUMP, /* jit-PID.dump in the working directory: code, too, with times */
};

/* Bytes of translated code in the process; the tables beside it take as much again, at most. */
#define UM_CODE_CACHE_DEFAULT (64ull << 20)
#define UM_CODE_CACHE_MIN     (1ull << 20)
#define UM_CODE_CACHE_MAX     (512ull << 20)

/* A block is translated when it is executed once more than this; 0: all blocks are, also what the interpreter does as fast. */
#define UM_JIT_THRESHOLD     16
#define UM_JIT_THRESHOLD_MAX 1000000

struct um_jit_options {
	u64 code_cache;
	u32 threshold;
	u8 dump_passes; /* BIT(UM_DUMP_...); only with a name in `dump` */
	u8 perf;	/* enum um_perf */
	/* Blocks that overlap this range of the guest's linear addresses are dumped. */
	u64 dump_first, dump_last;
	char dump[PATH_MAX]; /* where to; "-": standard error; "": no dump */
};

/* How it is without any option. */
void um_jit_options_init(struct um_jit_options *o);
/* 0, or -EINVAL: the value is none for this option. */
int um_jit_option_set(struct um_jit_options *o, enum um_jit_option n, const char *value);
const char *um_jit_option_env(enum um_jit_option n);
const char *um_jit_option_name(enum um_jit_option n);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Showing translated code to people: dumps of the passes (dump.c), symbols for perf(1) (perf.c).
 * Both have files for the whole process, opened with the code area, and cost one look when a block
 * is translated if they are off.
 */
#ifndef UM_ENGINE_JIT_DUMP_H
#define UM_ENGINE_JIT_DUMP_H

#include "base/jit_options.h"
#include "engine/jit/trans.h"

/* Open what @o asks for.  Once, before any block is translated.  0 or -errno. */
int um_dump_open(const struct um_jit_options *o);
int um_perf_open(enum um_perf kind);
/* In a child of fork(): perf's files are the parent's, and are left. */
void um_perf_leave(void);

/*
 * The passes' results for the block of @t, which is at cpu.rip.  @jb: what came of it; NULL: it
 * isn't translated.
 */
void um_dump_block(const struct um_trans *t, const struct um_jit_block *jb);

/* [code, code + size) of the executable mapping is @name. */
void um_perf_code(const char *name, const void *code, size_t size);
/*
 * Name @jb, translated for cpu.rip, after its mode, privilege and address:
 * guest64.cpl3.7f0012345678.
 */
void um_perf_block(const struct um_exec *x, const struct um_jit_block *jb);

#endif

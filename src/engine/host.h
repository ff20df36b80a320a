/* SPDX-License-Identifier: MIT */
/*
 * The host's processor: which instructions it has.
 *
 * Both ways of running guest instructions as they are, native stubs (interp/native.h) and copies in
 * translated code (jit/copy.h), take only what is listed here: an allow-list by Zydis's ISA sets.
 */
#ifndef UM_ENGINE_HOST_H
#define UM_ENGINE_HOST_H

#include <Zydis/Zydis.h>

#include "cpu/cpuid.h"

struct um_host {
	u64 features[4]; /* bit enum um_feature */
	u64 states;	 /* XCR0_... components that its operating system saves */
};

/* This host.  Thread-safe; asked once in the process. */
const struct um_host *um_host(void);

static inline bool um_host_feature(const struct um_host *h, unsigned f)
{
	return h->features[f / 64] >> (f % 64) & 1;
}

/*
 * Has it the SIMD, x87 or other instruction that needs a native stub, and does its operating system
 * save the state?
 */
bool um_host_has(const struct um_host *h, const ZydisDecodedInstruction *z);

/* Has it the integer instruction? */
bool um_host_has_core(const struct um_host *h, const ZydisDecodedInstruction *z);

#endif

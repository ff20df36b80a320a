/* SPDX-License-Identifier: MIT */
/*
 * The guest's time-stamp counter: the host's, scaled and shifted (struct um_cpu.tsc_ratio,
 * tsc_offset).
 */
#ifndef UM_CPU_TSC_H
#define UM_CPU_TSC_H

#include <x86intrin.h>

#include "cpu/cpu.h"

#define UM_TSC_RATIO_SHIFT 48

/* @host in the guest's units: multiplied by @ratio / 2^48 (0: by 1). */
static inline u64 um_tsc_scale(u64 host, u64 ratio)
{
	return ratio ? (u64)((u128)host * ratio >> UM_TSC_RATIO_SHIFT) : host;
}

static inline u64 um_guest_tsc_at(const struct um_cpu *c, u64 host)
{
	return um_tsc_scale(host, c->tsc_ratio) + c->tsc_offset;
}

/* What RDTSC gives now. */
static inline u64 um_guest_tsc(const struct um_cpu *c)
{
	return um_guest_tsc_at(c, __rdtsc());
}

#endif

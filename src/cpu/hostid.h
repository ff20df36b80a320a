/* SPDX-License-Identifier: MIT */
/*
 * The host's processor, as CPUID describes it: all that is told to guests, or used by the engine, comes from here.
 *
 * UMBRA_HOST_MASK in the environment is a list of features, by the names of cpu/cpuid.h (avx2,bmi2), that it does not have.
 * What needs a feature goes with it.  So hosts without it can be tried.
 */
#ifndef UM_CPU_HOSTID_H
#define UM_CPU_HOSTID_H

#include "cpu/cpuid.h"

/* The CPUID instruction of the host, without what is masked; out[] by enum um_cpuid_reg. */
void um_host_cpuid(u32 leaf, u32 subleaf, u32 out[4]);
/* The greatest leaf of the class (0, 0x80000000). */
u32 um_host_max_leaf(u32 class);
bool um_host_has_feature(enum um_feature f);

/* 0, or -EINVAL with *@bad the first word that is no feature. */
int um_host_mask_check(const char *list, const char **bad);

#endif

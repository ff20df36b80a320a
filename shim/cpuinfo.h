/* SPDX-License-Identifier: MIT */
/*
 * /proc/cpuinfo, which scripts and programs search for "vmx" or "svm" before they look for /dev/kvm: a copy with the
 * flag of the host's vendor in it.  What guests are told (KVM_GET_SUPPORTED_CPUID) is another matter.
 */
#ifndef UM_SHIM_CPUINFO_H
#define UM_SHIM_CPUINFO_H

#include <stdbool.h>

/* Is this its name?  Other spellings are not looked for. */
bool um_shim_is_cpuinfo(const char *path);

/* A descriptor of the copy, as open(2) with @flags gives it; -1 with errno. */
int um_shim_open_cpuinfo(int flags);

#endif

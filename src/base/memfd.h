/* SPDX-License-Identifier: MIT */
/* Files in memory: for what is mapped twice, or shared with the VMM. */
#ifndef UM_BASE_MEMFD_H
#define UM_BASE_MEMFD_H

#include <stddef.h>

/*
 * A memfd of @size zero bytes that closes on exec.  Returns the descriptor, or -errno: -EFBIG if the process may not
 * have files of that size (RLIMIT_FSIZE), for which the kernel would kill it.
 */
int um_memfd_create(const char *name, size_t size);

#endif

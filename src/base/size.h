/* SPDX-License-Identifier: MIT */
#ifndef UM_BASE_SIZE_H
#define UM_BASE_SIZE_H

#include "base/types.h"

/* A size as people write it: a number with K, M, G or T behind it, or of MiB.  False if it is none. */
bool um_parse_size(const char *s, u64 *bytes);

#endif

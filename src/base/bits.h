/* SPDX-License-Identifier: MIT */
/* Bits, ranges and compiler attributes. */
#ifndef UM_BASE_BITS_H
#define UM_BASE_BITS_H

#include "base/types.h"

#define BIT(n)		 (1ull << (n))
#define GENMASK(hi, lo)	 ((~0ull >> (63 - (hi))) & (~0ull << (lo)))
#define ARRAY_SIZE(a)	 (sizeof(a) / sizeof((a)[0]))
#define ALIGN_UP(x, a)	 (((x) + (a)-1) & ~((__typeof__(x))(a)-1))
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1))

#define likely(x)	 __builtin_expect(!!(x), 1)
#define unlikely(x)	 __builtin_expect(!!(x), 0)
#define READ_ONCE(x)	 (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))

#define um_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define um_min(a, b) ((a) < (b) ? (a) : (b))
#define um_max(a, b) ((a) > (b) ? (a) : (b))

/* The low @bytes bytes of @v (1, 2, 4 or 8), zero-extended. */
static inline u64 um_trunc(u64 v, unsigned bytes)
{
	return bytes >= 8 ? v : v & ((1ull << (bytes * 8)) - 1);
}

/* The low @bytes bytes of @v (1, 2, 4 or 8), sign-extended to 64 bits. */
static inline s64 um_sext(u64 v, unsigned bytes)
{
	unsigned shift = 64 - bytes * 8;

	return (s64)(v << shift) >> shift;
}

#endif

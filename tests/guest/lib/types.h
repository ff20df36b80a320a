/* SPDX-License-Identifier: MIT */
/* Integer types of the guest programs; a ulong is the register size of the mode it is built for. */
#ifndef GUEST_TYPES_H
#define GUEST_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64; /* so that %llx is its format in both modes */
typedef int32_t s32;
typedef long long s64;
typedef unsigned long ulong;

#define BIT(n)	     (1ul << (n))
#define BIT64(n)     (1ull << (n))
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The label NAME that an asm() of ours defines, as a number. */
#define ADDR(name) ((ulong)(name))

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The project's glossary as types.  Every address in umbra says in its type, and in its name's
 * suffix, which space it lives in:
 *
 *   gva   guest virtual (linear) address: after segmentation, before paging
 *   gpa   guest physical address;  gfn = gpa >> 12
 *   ngpa  nested guest physical address
 *   hva   host virtual address, in the process of the VMM
 *   gpte  an entry of a guest page table;  spte  an entry of a shadow page table
 */
#ifndef UM_BASE_TYPES_H
#define UM_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef unsigned __int128 u128;

typedef u64 gva_t;
typedef u64 gpa_t;
typedef u64 gfn_t;
typedef uintptr_t hva_t;

#define UM_INVALID_GPA (~(gpa_t)0)
#define UM_INVALID_HVA (~(hva_t)0)

#define UM_PAGE_SHIFT 12
#define UM_PAGE_SIZE  (1ul << UM_PAGE_SHIFT)
#define UM_PAGE_MASK  (~(u64)(UM_PAGE_SIZE - 1))

#endif

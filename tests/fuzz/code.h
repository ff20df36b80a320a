/* SPDX-License-Identifier: MIT */
/*
 * Random guest code with a bias towards what is intricate, and the guest's map that it refers to.
 */
#ifndef FUZZ_CODE_H
#define FUZZ_CODE_H

#include "rng.h"

/* Guest-physical map.  The first piece is RAM; what a world is made of lies in it. */
#define RAM_SIZE   0x400000ull
#define GDT_ADDR   0x1000ull
#define IDT_ADDR   0x2000ull
#define TSS_ADDR   0x3000ull /* two pages: I/O bitmap */
#define LDT_ADDR   0x5000ull
#define TSS2_ADDR  0x6000ull /* what task switches go to */
#define STACK_ADDR 0x8000ull
#define STACK_SIZE 0x8000ull
#define CODE_ADDR  0x10000ull
#define CODE_SIZE  0x10000ull
#define PT_ADDR	   0x20000ull
#define PT_PAGES   16
#define DATA_ADDR  0x40000ull
#define ROM_ADDR   0x500000ull /* a read-only slot, with copies of the code and the page tables */
#define ROM_SIZE   0x40000ull
#define ALIAS_ADDR 0x600000ull /* the second half of RAM again */
#define ALIAS_SIZE 0x200000ull
#define HIGH_ADDR  0x100000000ull
#define HIGH_SIZE  0x40000ull

#define CODE_BLOCK 256 /* an instruction begins at each multiple */

/* Selectors of the worlds' GDT. */
enum {
	SEL_CODE32 = 1 << 3,
	SEL_DATA = 2 << 3,
	SEL_CODE64 = 3 << 3,
	SEL_USER_CODE32 = 4 << 3 | 3,
	SEL_USER_DATA = 5 << 3 | 3,
	SEL_USER_CODE64 = 6 << 3 | 3,
	SEL_CODE16 = 7 << 3,
	SEL_DATA16 = 8 << 3,
	SEL_CONFORMING = 9 << 3,
	SEL_EXPAND_DOWN = 10 << 3,
	SEL_TSS = 12 << 3, /* and the next, in 64-bit mode; the same for LDT and gates */
	SEL_LDT = 14 << 3,
	SEL_TSS2 = 16 << 3,
	SEL_TASK_GATE = 18 << 3,
	SEL_GATE = 20 << 3, /* five gates to the end */
	GDT_ENTRIES = 32,
};

/* A number that may mean something: an address of the map, an edge, a count. */
uint64_t fuzz_value(struct rng *r);
/* A selector of the GDT, mostly. */
uint16_t fuzz_selector(struct rng *r);
/* A guest-linear address with code, mostly at the beginning of an instruction. */
uint64_t fuzz_code_address(struct rng *r);
/* An MSR's number: one of @msrs, or of those that the SDM gives a meaning, or any. */
uint32_t fuzz_msr(struct rng *r);
/* Values of CR0, CR3, CR4, CR8, EFER that a processor may or may not take. */
uint64_t fuzz_cr(struct rng *r, unsigned n);
uint64_t fuzz_efer(struct rng *r);

/* Fill @out with instructions for code of @bits (16, 32, 64). */
void fuzz_code(struct rng *r, uint8_t *out, size_t len, unsigned bits);

#endif

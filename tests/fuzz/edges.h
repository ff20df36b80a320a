/* SPDX-License-Identifier: MIT */
/*
 * Operands where results turn: ends of ranges, and among floating-point numbers ones, infinities,
 * NaNs and what is denormal.
 */
#ifndef FUZZ_EDGES_H
#define FUZZ_EDGES_H

#include <stdint.h>

static const uint64_t edge_values[] = {
	/* integers */
	0,
	1,
	2,
	0x7f,
	0x80,
	0xff,
	0x7fff,
	0x8000,
	0xffff,
	0x7fffffff,
	0x80000000,
	0xffffffff,
	0x7fffffffffffffff,
	0x8000000000000000,
	0xffffffffffffffff,
	/* double precision */
	0x3ff0000000000000,
	0x7ff0000000000000,
	0x7ff8000000000001,
	0xfff0000000000001,
	0x000fffffffffffff,
	/* two of single precision */
	0x3f800000bf800000,
	0x7f800000ff800000,
	0x7fc00000ffc00001,
	0x7f80000100000001,
	0x0080000080800000,
	/* four of half precision */
	0x3c003c00bc007c00,
	0x7e00fc017bff0001,
};

#endif

/* SPDX-License-Identifier: MIT */
/* Random numbers that a seed repeats: SplitMix64. */
#ifndef FUZZ_RNG_H
#define FUZZ_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rng {
	uint64_t s;
};

static inline uint64_t rng64(struct rng *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Another stream, independent of @seed's own: one for each thread. */
static inline struct rng rng_stream(uint64_t seed, uint64_t stream)
{
	struct rng r = { seed * 0xd1342543de82ef95 + stream };

	rng64(&r);
	return r;
}

/* 0 .. n - 1. */
static inline unsigned rng_below(struct rng *r, unsigned n)
{
	return (unsigned)((rng64(r) >> 32) * n >> 32);
}

static inline bool rng_one_in(struct rng *r, unsigned n)
{
	return !rng_below(r, n);
}

static inline void rng_fill(struct rng *r, void *buf, size_t len)
{
	uint8_t *p = buf;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v = rng64(r);

		memcpy(p, &v, 8);
	}
	while (len--)
		*p++ = (uint8_t)rng64(r);
}

#define rng_pick(r, array) ((array)[rng_below(r, sizeof(array) / sizeof((array)[0]))])

#endif

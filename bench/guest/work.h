/* SPDX-License-Identifier: MIT */
/*
 * The benchmark programs: executables that run natively, and in a guest.
 *
 * Each program does a fixed amount of work, several times, and prints the best time, the sum of all times, and a
 * checksum, which is a function of the work's result; runs on different machines must agree on it:
 *
 *	bench begin NAME
 *	bench CLASS NAME NANOSECONDS ALL-NANOSECONDS CHECKSUM
 *
 * Of an executable, driver.c has main(), and one of the other files programs[].
 */
#ifndef BENCH_WORK_H
#define BENCH_WORK_H

#include <stdint.h>
#include <string.h>

struct program {
	const char *class, *name; /* class NULL: the end of the list */
	uint64_t (*run)(void);
};

extern const struct program programs[];

/* What the lists are made of. */
uint64_t sieve(void), sort(void), fnv(void), sha1(void), chase(void), copy(void), calls(void),
	strings(void);
uint64_t bytecode(void), coldcode(void);
uint64_t matrix(void), mandelbrot(void), nbody(void), fft(void), libm(void);
uint64_t do_syscall(void), do_fork(void), do_exec(void), do_fault(void), do_mmap(void),
	do_pipe(void), do_signal(void);
uint64_t deflate_inflate(void), sqlite(void), lua(void), gcc(void), aes_gcm(void), sha256(void);

/* What pid 1 runs behind its own programs; NULL: nothing. */
extern const char *const next_executable;

static inline uint32_t lcg(uint32_t *s)
{
	return *s = *s * 1664525u + 1013904223u;
}

/* FNV-1a, for checksums over results. */
static inline uint64_t digest(uint64_t h, const void *data, size_t size)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < size; i++)
		h = (h ^ p[i]) * 1099511628211ull;
	return h;
}

static inline uint64_t bits(double d)
{
	uint64_t u;

	memcpy(&u, &d, sizeof(u));
	return u;
}

#endif

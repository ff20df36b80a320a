// SPDX-License-Identifier: MIT
/* Integer and memory: loops, sorting, hashes, pointers, copies, indirect calls, string functions. */
#include "work.h"

#include <stdlib.h>
#include <string.h>

uint64_t sieve(void)
{
	enum { N = 4 << 20 };
	static uint8_t composite[N];
	uint64_t count = 0;

	memset(composite, 0, N);
	for (uint32_t i = 2; i < N; i++) {
		if (composite[i])
			continue;
		count++;
		for (uint32_t j = 2 * i; j < N; j += i)
			composite[j] = 1;
	}
	return count;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

uint64_t sort(void)
{
	enum { N = 200000 };
	static uint32_t v[N];
	uint32_t s = 1;
	uint64_t sum = 0;

	for (int i = 0; i < N; i++)
		v[i] = lcg(&s);
	qsort(v, N, sizeof(v[0]), compare);
	for (int i = 0; i < N; i++)
		sum = sum * 31 + v[i];
	return sum;
}

uint64_t fnv(void)
{
	static uint8_t text[1 << 16];
	uint64_t h = 14695981039346656037ull;

	for (int round = 0; round < 256; round++) {
		for (size_t i = 0; i < sizeof(text); i++)
			h = (h ^ text[i]) * 1099511628211ull;
	}
	return h;
}

static uint32_t rol(uint32_t v, int n)
{
	return v << n | v >> (32 - n);
}

uint64_t sha1(void)
{
	uint32_t h[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 };
	uint32_t w[80], s = 7;

	for (int block = 0; block < 40000; block++) {
		uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];

		for (int i = 0; i < 16; i++)
			w[i] = lcg(&s);
		for (int i = 16; i < 80; i++)
			w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
		for (int i = 0; i < 80; i++) {
			uint32_t f, k, t;

			if (i < 20)
				f = (b & c) | (~b & d), k = 0x5a827999;
			else if (i < 40)
				f = b ^ c ^ d, k = 0x6ed9eba1;
			else if (i < 60)
				f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
			else
				f = b ^ c ^ d, k = 0xca62c1d6;
			t = rol(a, 5) + f + e + k + w[i];
			e = d, d = c, c = rol(b, 30), b = a, a = t;
		}
		h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
	}
	return (uint64_t)h[0] << 32 | h[4];
}

uint64_t chase(void)
{
	enum { N = 1 << 18 };
	static uint32_t next[N];
	uint32_t s = 3, p = 0;

	for (uint32_t i = 0; i < N; i++)
		next[i] = i;
	for (uint32_t i = N - 1; i > 0; i--) { /* Sattolo: one cycle */
		uint32_t j = lcg(&s) % i, t = next[i];

		next[i] = next[j], next[j] = t;
	}
	for (int i = 0; i < 2000000; i++)
		p = next[p];
	return p;
}

uint64_t copy(void)
{
	static uint8_t a[1 << 20], b[1 << 20];

	for (int i = 0; i < 256; i++) {
		a[i] = (uint8_t)i;
		memcpy(b, a, sizeof(a));
		memmove(a + 1, b, sizeof(a) - 1);
	}
	return a[256] + 256u * b[255];
}

static uint64_t op_add(uint64_t a, uint64_t b)
{
	return a + b;
}
static uint64_t op_xor(uint64_t a, uint64_t b)
{
	return a ^ (b << 1);
}
static uint64_t op_mul(uint64_t a, uint64_t b)
{
	return a * (b | 1);
}
static uint64_t op_sub(uint64_t a, uint64_t b)
{
	return a - b;
}

uint64_t calls(void)
{
	uint64_t (*const volatile op[4])(uint64_t, uint64_t) = { op_add, op_xor, op_mul, op_sub };
	uint64_t v = 1;
	uint32_t s = 11;

	for (int i = 0; i < 2000000; i++)
		v = op[lcg(&s) >> 30](v, (uint64_t)i);
	return v;
}

uint64_t strings(void)
{
	static char text[1 << 16];
	uint64_t n = 0;
	uint32_t s = 5;

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + (lcg(&s) >> 24) % 26);
	for (int round = 0; round < 1000; round++) {
		for (char *p = text; (p = strchr(p, 'q')); p++)
			n += (uint64_t)(p - text);
		n += strlen(text);
		n += strstr(text, "qqqqq") != NULL;
	}
	return n;
}

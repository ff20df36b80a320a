// SPDX-License-Identifier: MIT
/*
 * Code that is new: thirty thousand instructions are written and executed twenty times, so that finding, decoding and
 * translating them is most of the work. Each round has other constants: nothing that was kept of earlier ones fits.
 */
#include "work.h"

#include <sys/mman.h>

enum { BLOCKS = 4000, TIMES = 20, BLOCK_SIZE = 31 };

/* One block, eight instructions; *x and *y are what eax and ecx will be. */
static uint8_t *put_block(uint8_t *p, uint32_t k)
{
	static const uint8_t code[BLOCK_SIZE] = {
		0x05, 0,    0,	  0, 0,	   /* add $k, %eax */
		0x31, 0xc1,		   /* xor %eax, %ecx */
		0xc1, 0xc1, 7,		   /* rol $7, %ecx */
		0x69, 0xc0, 0,	  0, 0, 0, /* imul $(k | 1), %eax, %eax */
		0x89, 0x0f,		   /* mov %ecx, (%rdi) */
		0x03, 0x07,		   /* add (%rdi), %eax */
		0xa9, 0x01, 0,	  0, 0,	   /* test $1, %eax */
		0x74, 0x04,		   /* je to the next block */
		0x0f, 0x1f, 0x40, 0,	   /* nop */
	};

	memcpy(p, code, sizeof(code));
	memcpy(p + 1, &k, 4);
	k |= 1;
	memcpy(p + 12, &k, 4);
	return p + sizeof(code);
}

uint64_t coldcode(void)
{
	static uint32_t seed = 1;
	const size_t size = BLOCKS * BLOCK_SIZE + 64;
	uint32_t s = seed, a = 0, c = 0, cell, good = 1;
	uint8_t *code = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		*p = code;
	/* mov %esi, %eax; mov %edx, %ecx */
	static const uint8_t head[] = { 0x89, 0xf0, 0x89, 0xd1 };
	uint32_t (*run)(uint32_t * cell, uint32_t a, uint32_t c);

	if (code == MAP_FAILED)
		return 0;
	memcpy(p, head, sizeof(head));
	p += sizeof(head);
	for (int i = 0; i < BLOCKS; i++)
		p = put_block(p, lcg(&s));
	*p = 0xc3; /* ret */
	memcpy(&run, &code, sizeof(run));
	for (int t = 0; t < TIMES; t++) {
		uint32_t x = a, y = c;

		a = run(&cell, a, c);
		c = cell;
		s = seed;
		for (int i = 0; i < BLOCKS; i++) {
			uint32_t k = lcg(&s);

			x += k;
			y ^= x;
			y = y << 7 | y >> 25;
			x = x * (k | 1) + y;
		}
		good &= a == x && c == y;
	}
	seed = s;
	munmap(code, size);
	return good ? BLOCKS : 0;
}

// SPDX-License-Identifier: MIT
/*
 * What code costs before it runs fast: nanoseconds for each guest instruction that is decoded, and that is translated.
 * Compiled code, this program's own, is gone through block by block; nothing is executed.
 * Usage: translate-speed [rounds]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../tests/unit/engine/fixture.h"
#include "engine/jit/jit.h"

#define PAGES	   56
#define MAX_BLOCKS (PAGES * 1024)

/* Of the linker: the end of the program's code. */
extern const char etext[];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct cost {
	double decode, translate;
	unsigned decoded, translated, blocks, bytes;
};

static struct um_block *block[MAX_BLOCKS];
static gva_t where[MAX_BLOCKS];

/* All blocks from the start of the code to its end, one behind the other. */
static unsigned decode(struct machine *m, struct cost *c)
{
	const gva_t end = CODE + PAGES * UM_PAGE_SIZE;
	unsigned n = 0;

	m->x.cpu.rip = CODE;
	while (m->x.cpu.rip + 16 < end && n < MAX_BLOCKS) {
		struct um_block *b = um_block_enter(&m->x, UM_MODE_64);

		if (!b) { /* a byte that begins nothing */
			m->x.exit.kind = UM_EXIT_NONE;
			m->x.cpu.rip++;
			continue;
		}
		block[n] = b;
		where[n++] = m->x.cpu.rip;
		c->decoded += b->ninsns;
		m->x.cpu.rip += um_max(um_block_code(b), 1u);
	}
	return n;
}

static void translate(struct machine *m, unsigned n, struct cost *c)
{
	u64 *count = m->counters.v, blocks = count[UM_CNT_jit_blocks];

	for (unsigned k = 0; k < n; k++) {
		u64 before = count[UM_CNT_jit_insns];
		double start = now();

		m->x.cpu.rip = where[k];
		um_jit_add(&m->x, block[k]);
		if (count[UM_CNT_jit_insns] != before)
			c->translate += now() - start;
		c->translated += (unsigned)(count[UM_CNT_jit_insns] - before);
	}
	c->blocks = (unsigned)(count[UM_CNT_jit_blocks] - blocks);
}

static struct cost round_of(struct machine *m)
{
	struct cost c = { 0 };
	double start;
	unsigned n;

	um_block_flush(&m->x);
	um_jit_flush(&m->x);
	memset(&m->x.translator->facts, 0, sizeof(m->x.translator->facts));
	um_decode_forget(&m->x.interp->decoded);
	start = now();
	n = decode(m, &c);
	c.decode = now() - start;
	translate(m, n, &c);
	return c;
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 10;
	struct machine *m = machine_new_engine(UM_ENGINE_JIT);
	struct cost best = { 0 }, c;
	const size_t size = PAGES * UM_PAGE_SIZE;
	u64 code = (u64)etext & UM_PAGE_MASK;
	double clock = 0;

	/* Usual code doesn't leave most of its instructions to the interpreter. */
	m->x.jit_threshold = UM_JIT_THRESHOLD;
	memcpy(at(m, CODE), (void *)(code - size), size);
	um_exec_sync(&m->x);
	for (unsigned n = 0; n < 1000; n++)
		clock -= now() - now();
	clock /= 1000;
	for (unsigned r = 0; r < um_max(rounds, 1u); r++) {
		c = round_of(m);
		c.translate -= clock * c.blocks;
		if (!r || c.decode + c.translate < best.decode + best.translate)
			best = c;
	}
	if (!best.translated)
		return 1;
	printf("decoding     %7.0f ns an instruction (%u)\n", best.decode / best.decoded,
	       best.decoded);
	printf("translating  %7.0f ns an instruction (%u in %u blocks)\n",
	       best.translate / best.translated, best.translated, best.blocks);
	machine_free(m);
	return 0;
}

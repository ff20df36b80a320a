// SPDX-License-Identifier: MIT
/*
 * A bytecode interpreter whose instructions are functions, called by pointer: it counts the steps of Collatz sequences, and
 * keeps a histogram of them in memory.
 */
#include "work.h"

struct machine;
struct insn {
	void (*run)(struct machine *m, const struct insn *i);
	uint8_t to, a, b;
	int32_t value; /* a constant, or where to go on */
};

struct machine {
	uint64_t r[8];
	uint64_t cell[1024];
	const struct insn *next, *code;
};

static void set(struct machine *m, const struct insn *i)
{
	m->r[i->to] = (uint64_t)i->value;
}

static void add(struct machine *m, const struct insn *i)
{
	m->r[i->to] = m->r[i->a] + m->r[i->b] + (uint64_t)i->value;
}

static void mul(struct machine *m, const struct insn *i)
{
	m->r[i->to] = m->r[i->a] * (uint64_t)i->value + m->r[i->b];
}

static void half(struct machine *m, const struct insn *i)
{
	m->r[i->to] = m->r[i->a] >> 1;
}

static void bump(struct machine *m, const struct insn *i)
{
	m->cell[m->r[i->a] % 1024] += m->r[i->b];
}

static void if_odd(struct machine *m, const struct insn *i)
{
	if (m->r[i->a] & 1)
		m->next = m->code + i->value;
}

static void if_less(struct machine *m, const struct insn *i)
{
	if (m->r[i->a] < m->r[i->b])
		m->next = m->code + i->value;
}

static void jump(struct machine *m, const struct insn *i)
{
	m->next = m->code + i->value;
}

static void stop(struct machine *m, const struct insn *i)
{
	(void)i;
	m->next = NULL;
}

uint64_t bytecode(void)
{
	/* r0 = 0, r1 = the number, r2 = its steps, r3 = where it has got to, r4 = the end, r5 = 2, r6 = 1 */
	enum { LAST = 30000, NUMBER = 4, STEP = 6, ODD = 11, DONE = 13 };
	static const struct insn code[] = {
		{ set, 1, 0, 0, 1 },
		{ set, 4, 0, 0, LAST },
		{ set, 5, 0, 0, 2 },
		{ set, 6, 0, 0, 1 },
		[NUMBER] = { set, 2, 0, 0, 0 },
		{ add, 3, 1, 0, 0 },
		[STEP] = { if_less, 0, 3, 5, DONE },
		{ add, 2, 2, 0, 1 },
		{ if_odd, 0, 3, 0, ODD },
		{ half, 3, 3, 0, 0 },
		{ jump, 0, 0, 0, STEP },
		[ODD] = { mul, 3, 3, 6, 3 },
		{ jump, 0, 0, 0, STEP },
		[DONE] = { bump, 0, 2, 6, 0 },
		{ add, 1, 1, 0, 1 },
		{ if_less, 0, 1, 4, NUMBER },
		{ stop, 0, 0, 0, 0 },
	};
	static struct machine m;

	memset(&m, 0, sizeof(m));
	m.code = m.next = code;
	while (m.next) {
		const struct insn *i = m.next++;

		i->run(&m, i);
	}
	return digest(1, m.cell, sizeof(m.cell));
}

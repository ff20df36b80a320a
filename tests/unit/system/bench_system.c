// SPDX-License-Identifier: MIT
/*
 * What the transfers cost that kernels make all the time: nanoseconds for each, alone, with a warm
 * TLB.  Interpretation around them (finding blocks) is not included.
 */
#include <stdio.h>
#include <time.h>

#include "machine.h"

#define ROUNDS 1000000
#define HIGH   0xffff800000000000ull

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void warm(struct machine *m, gva_t gva, enum um_tlb_priv priv)
{
	struct um_tlb_entry *e = &m->tlb.e[um_tlb_index(gva, m->tlb.ctx[priv])];

	for (unsigned acc = UM_READ; acc <= UM_FETCH; acc++)
		e->tag[acc] = (gva & UM_PAGE_MASK) | m->tlb.ctx[priv];
	e->addend = (u64)m->mem + (gva & (MEM_SIZE - 1)) - gva;
	um_tlb_note_written(&m->tlb, e);
}

static void prepare(struct um_insn *i, um_insn_fn *fn, struct machine *m, const char *bytes,
		    unsigned len)
{
	assert_int_equal(um_decode(i, UM_MODE_64, (const u8 *)bytes, len, 0), len);
	*fn = um_system_bind(&m->x, i);
	assert_non_null(*fn);
}

static void report(const char *what, double start)
{
	printf("%-24s %6.1f ns\n", what, (now() - start) / ROUNDS);
}

int main(void)
{
	struct machine *m = m_new();
	struct um_exec *x = &m->x;
	struct um_event irq = { .vector = 0x30, .kind = UM_EVENT_EXTINT };
	struct um_insn syscall, sysret, iretq, stac, movfs;
	um_insn_fn syscall_fn, sysret_fn, iretq_fn, stac_fn, movfs_fn;
	double start;

	m_long64(m, 3);
	x->cpu.msr.star = 0x001b000800000000ull;
	x->cpu.msr.lstar = HIGH + HANDLER;
	x->cpu.msr.sfmask = RFLAGS_IF;
	prepare(&syscall, &syscall_fn, m, "\x0f\x05", 2);
	prepare(&sysret, &sysret_fn, m, "\x48\x0f\x07", 3);
	prepare(&iretq, &iretq_fn, m, "\x48\xcf", 2);
	prepare(&stac, &stac_fn, m, "\x0f\x01\xcb", 3);
	prepare(&movfs, &movfs_fn, m, "\x8e\xe1", 2);
	x->exit.kind = UM_EXIT_NONE;

	start = now();
	for (unsigned n = 0; n < ROUNDS; n++) {
		x->cpu.gpr[UM_REG_PAGE] = CODE_AT;
		syscall_fn(x, &syscall);
		sysret_fn(x, &sysret);
	}
	report("SYSCALL + SYSRET", start);

	warm(m, GDT_AT, UM_PRIV_KERNEL);
	warm(m, IDT_AT, UM_PRIV_KERNEL);
	warm(m, TSS_AT, UM_PRIV_KERNEL);
	warm(m, HIGH + STACK0 - 1, UM_PRIV_KERNEL);
	start = now();
	for (unsigned n = 0; n < ROUNDS; n++) {
		um_engine_deliver(x, &irq);
		um_exec_sync(x);
		iretq_fn(x, &iretq);
	}
	report("interrupt + IRETQ", start);
	start = now();
	for (unsigned n = 0; n < ROUNDS; n++) {
		um_engine_deliver(x, &irq);
		x->cpu.cpl = 3;
	}
	report("interrupt", start);

	m_long64(m, 0);
	x->cpu.cr4 |= CR4_SMAP;
	start = now();
	for (unsigned n = 0; n < ROUNDS; n++)
		stac_fn(x, &stac);
	report("STAC", start);
	x->cpu.gpr[UM_RCX] = DS32;
	start = now();
	for (unsigned n = 0; n < ROUNDS; n++)
		movfs_fn(x, &movfs);
	report("MOV FS, r", start);
	m_free(m);
	return 0;
}

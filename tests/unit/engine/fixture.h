/* SPDX-License-Identifier: MIT */
/*
 * A processor on a small fake MMU: a table of pages whose properties a test sets at will, mapped at
 * MEM_BASE.  No guest page tables, no shadow pages: those have tests of their own.
 */
#ifndef TESTS_ENGINE_FIXTURE_H
#define TESTS_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/access.h"
#include "engine/engine.h"
#include "engine/flags.h"

#define MEM_PAGES 64
#define MEM_BASE  0x10000ull /* gva and gpa of page 0 */
#define MEM_SIZE  (MEM_PAGES * UM_PAGE_SIZE)
#define PAGE(n)	  (MEM_BASE + (n)*UM_PAGE_SIZE)

/* Where tests put things. */
#define CODE  PAGE(1)
#define DATA  PAGE(8)
#define STACK PAGE(5) /* grows down from here */

enum prop {
	P_PRESENT = 1,
	P_WRITE = 2,
	P_USER = 4,
	P_MMIO = 8,
	P_TRACKED = 16,
	P_GONE = 32, /* the host has no page there: EFAULT */
	P_NOEXEC = 64,
};

/* What the fake MMU was told by um_mmu_written(). */
struct written {
	gpa_t gpa;
	unsigned len;
};

struct machine {
	struct um_exec x;
	struct um_tlb tlb;
	struct um_counters counters;
	struct um_trace trace;
	u8 *mem;
	/* the same memory, mapped a second time: a device or another processor writes here */
	u8 *alias;
	u8 prop[MEM_PAGES];
	bool no_tlb; /* never fill the TLB: every access takes the slow path */
	bool precise; /* a page's change flushes that page only, and MOV to CR3, where nothing is out of date, nothing */
	unsigned nwritten;
	struct written written[64];
	unsigned accesses;   /* calls of um_mmu_access() */
	unsigned kick_after; /* set x.kick at that many further calls */
	/*
	 * At that many further calls, another processor takes a page away: its properties change.
	 */
	unsigned take_after, take_page;
	u8 take_prop;
};

/*
 * A processor in 64-bit mode, CPL 0; code, data and stack pages present and writable.
 * machine_new() takes the engine from the environment: UMBRA_ENGINE, as libumbra does, but
 * translates code that is executed for the second time.  The options of base/jit_options.h come
 * from there in any case.
 */
struct machine *machine_new(void);
struct machine *machine_new_engine(enum um_engine_kind engine);
void machine_free(struct machine *m);
/* The same, in real mode, 16-bit or 32-bit protected mode. */
void machine_mode(struct machine *m, enum um_mode mode);
/* Change a page's properties as the guest or VMM would: with the TLB flushed. */
void machine_prop(struct machine *m, unsigned page, u8 prop);
void machine_flush(struct machine *m);
static inline u8 *at(struct machine *m, gva_t gva)
{
	return m->mem + (gva - MEM_BASE);
}
/* Memory at any alignment. */
static inline u64 peek(struct machine *m, gva_t gva, unsigned size)
{
	u64 v = 0;

	memcpy(&v, at(m, gva), size);
	return v;
}
static inline void poke(struct machine *m, gva_t gva, unsigned size, u64 v)
{
	memcpy(at(m, gva), &v, size);
}
/* Load @code at @gva, point rip there. */
void machine_code(struct machine *m, gva_t gva, const u8 *code, const u8 *end);
/* um_engine_run() */
enum um_exit_kind machine_run(struct machine *m);

/* Run and expect HLT. */
#define run_to_hlt(m) assert_int_equal(machine_run(m), UM_EXIT_HLT)
#define expect_fault(m, v)                                           \
	do {                                                         \
		assert_int_equal(machine_run(m), UM_EXIT_EXCEPTION); \
		assert_int_equal((m)->x.exit.exc.vector, v);         \
	} while (0)

/*
 * A piece of guest code: CODE64(name, "asm"), Intel syntax; name..name_end are its bytes.
 */
#define GUEST_CODE(bits, name, text)                                                       \
	asm(".pushsection .rodata\n.intel_syntax noprefix\n.code" #bits "\n.global " #name \
	    ", " #name "_end\n" #name ":\n" text "\n" #name                                \
	    "_end:\n.code64\n.att_syntax prefix\n.popsection\n");                          \
	extern const u8 name[], name##_end[]
#define CODE64(name, text) GUEST_CODE(64, name, text)
#define CODE32(name, text) GUEST_CODE(32, name, text)
#define CODE16(name, text) GUEST_CODE(16, name, text)
#define load_code(m, name) machine_code(m, CODE, name, name##_end)

#endif

/* SPDX-License-Identifier: MIT */
/*
 * A processor with 1 MiB of memory and no page tables, to execute single system instructions on.
 *
 * Linear addresses map to memory by their low 20 bits if they are below 1 MiB or in the canonical
 * upper half; others have no page.  Pages can be taken away or write-protected (m_page()).
 * um_mmu_access() and its kin are the machine's own, and record their calls.
 *
 * The GDT and the rest of the layout are the same for all tests; each changes what it needs.
 */
#ifndef TEST_SYSTEM_MACHINE_H
#define TEST_SYSTEM_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/cpuid.h"
#include "engine/engine.h"
#include "engine/flags.h"
#include "engine/interp/interp.h"
#include "engine/system/system.h"

#define MEM_SIZE 0x100000u

/* Where things are. */
#define GDT_AT	0x1000u
#define IDT_AT	0x2000u
#define LDT_AT	0x2800u
#define TSS_AT	0x3000u /* 32- and 64-bit; its I/O map starts at + 0x88 + redirection map */
#define TSSB_AT 0x4000u
#define DATA_AT 0x5000u
#define CODE_AT 0x6000u
#define HANDLER 0x7000u
#define STACK0	0x9000u /* top, privilege 0, from the TSS */
#define STACK1	0xa000u /* privilege 1 */
#define STACK3	0xb000u /* present stack of CPL 3 */
#define KSTACK	0xc000u /* present stack of CPL 0 */
#define ISTACK	0xd000u /* IST1 */
#define IOMAP	0x88u	/* in the TSS */

enum sel {
	CS32 = 0x08, /* 32-bit code, DPL 0 */
	DS32 = 0x10, /* 32-bit data, DPL 0 */
	UCS32 = 0x1b,
	UDS32 = 0x23,
	CS64 = 0x28,
	UCS64 = 0x33,
	CCS32 = 0x38, /* conforming, DPL 0 */
	TSS = 0x40,   /* 16 bytes */
	LDT = 0x50,   /* 16 bytes */
	GATE = 0x60,  /* 16 bytes, for call gates */
	TSSB = 0x70,  /* another task */
	CS16 = 0x78,
	DS16 = 0x80,
	CS1 = 0x89, /* DPL 1 */
	DS1 = 0x91,
	RODATA = 0x98,
	XONLY = 0xa0,	/* execute-only code */
	ABSENT = 0xa8,	/* data, not present */
	ABSENTC = 0xb0, /* code, not present */
	FREE = 0xb8,	/* for the test */
	DOWN = 0xc0,	/* expand-down data, limit 0xfff, 32 bits */
	GDT_END = 0xd0,
};

/* Types with S, P clear DPL: for m_desc_make(). */
enum {
	T_CODE = 0x1a,
	T_CODE_C = 0x1e,
	T_XONLY = 0x18,
	T_DATA = 0x12,
	T_RODATA = 0x10,
	T_DOWN = 0x16
};

struct machine {
	struct um_exec x;
	struct um_tlb tlb;
	struct um_counters counters;
	struct um_trace trace;
	u8 *mem;
	u8 absent[MEM_SIZE >> 12], readonly[MEM_SIZE >> 12];
	gpa_t mmio; /* one page of memory that is MMIO, 0: none */
	struct um_insn insn;
	struct um_cpu before; /* at the last m_run(), m_deliver() */
	bool warm;	      /* fill the TLB before each m_run(), m_deliver() */
	/* calls into the MMU */
	unsigned new_cr3, resets, rights, invlpg, invpcid;
	bool cr3_flush;
	gva_t invlpg_gva;
	int pdptr_result;
};

struct machine *m_new(void);
void m_free(struct machine *m);
/* Everything that is supported, by a processor of @vendor. */
void m_vendor(struct machine *m, const char *vendor);

/* Modes: flat segments, IDT with interrupt gates to HANDLER, TSS loaded, IF set. */
void m_real(struct machine *m);
void m_prot32(struct machine *m, unsigned cpl);
void m_long64(struct machine *m, unsigned cpl);
void m_compat(struct machine *m, unsigned cpl); /* 32-bit code in IA-32e mode */
void m_vm86(struct machine *m, unsigned iopl);

/* Memory. */
u64 m_get(struct machine *m, u32 at, unsigned size);
void m_put(struct machine *m, u32 at, u64 v, unsigned size);

/* Descriptors.  @type as above (S included), limit in bytes; flags: 'p' present, 'd' D/B, 'l' L. */
u64 m_desc_make(u32 base, u32 limit, unsigned type, unsigned dpl, const char *flags);
u64 m_gate_make(u16 sel, u32 off, unsigned type, unsigned dpl, unsigned low);
void m_desc(struct machine *m, u16 sel, u64 lo, u64 hi); /* hi is written only in IA-32e mode */
u64 m_desc_get(struct machine *m, u16 sel);
/* An IDT entry of the present mode's size. */
void m_idt(struct machine *m, unsigned vector, u64 gate, u64 hi);

/* Execute the bytes at CS:RIP = CODE_AT (or as set).  x.exit tells the rest. */
void m_run(struct machine *m, const void *bytes, unsigned len);
#define RUN(m, ...)                                         \
	do {                                                \
		static const u8 bytes_[] = { __VA_ARGS__ }; \
		m_run(m, bytes_, sizeof(bytes_));           \
	} while (0)
bool m_deliver(struct machine *m, const struct um_event *e);

/* Expectations. */
void m_expect_fault(struct machine *m, unsigned vec, u32 code); /* state unchanged but CR2, DR6 */
void m_expect_ud(struct machine *m);
void m_expect_next(struct machine *m);		      /* no exit, rip after the instruction */
void m_expect_at(struct machine *m, u16 cs, u64 rip); /* no exit */
void m_expect_stack(struct machine *m, u32 at, unsigned size, unsigned n, const u64 *v);
#define EXPECT_STACK(m, at, size, ...)                           \
	do {                                                     \
		const u64 v_[] = { __VA_ARGS__ };                \
		m_expect_stack(m, at, size, ARRAY_SIZE(v_), v_); \
	} while (0)

/* cmocka fixtures: *state is a struct machine. */
int m_setup(void **state);
int m_teardown(void **state);
int m_setup_warm(void **state);
/* Each test runs twice: every access goes to the MMU, or finds its page in the TLB. */
#define M_TEST(f)                                                   \
	{ #f, f, m_setup, m_teardown, NULL },                       \
	{                                                           \
#f " (warm TLB)", f, m_setup_warm, m_teardown, NULL \
	}

#endif

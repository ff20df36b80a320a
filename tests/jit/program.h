/* SPDX-License-Identifier: MIT */
/*
 * Random programs of unprivileged code: what the translator is tested with.
 *
 * A program is some blocks of instructions with jumps, loops, calls and indirect transfers among
 * them.  It always ends: loops share one counter.  When an instruction faults, program_resume()
 * says where execution goes on, so one program has many faults, in the midst of whatever was going
 * on.
 *
 * Flags that the manuals leave undefined differ between processors and engines.  So nothing reads
 * them: a generator that is about to use one puts an instruction before it that defines all.  What
 * is undefined at each instruction is recorded, for whoever looks at the flags there.
 */
#ifndef TESTS_JIT_PROGRAM_H
#define TESTS_JIT_PROGRAM_H

#include "engine/exec.h"
#include "fixture.h"

/* The map: pages of the fixture's memory (tests/unit/engine/fixture.h), by number. */
enum {
	PG_CODE = 1, /* two */
	PG_CTL = 4,  /* the loops' counter, tables of code addresses */
	PG_DATA = 6, /* three */
	PG_READONLY = 9,
	PG_DATA2 = 10,
	PG_NONE = 11,
	PG_DATA3 = 12,
	PG_DEVICE = 13, /* nothing, for programs that the real CPU runs */
	PG_DATA4 = 14,
	PG_TRACKED = 15, /* as if it held a page table */
	PG_DATA5 = 16,
	PG_STACK = 18, /* two */
	PG_END = 20,
};
#define PROGRAM_CODE	  PAGE(PG_CODE)
#define PROGRAM_CODE_SIZE (2 * UM_PAGE_SIZE)
#define PROGRAM_COUNTER	  PAGE(PG_CTL)
#define PROGRAM_TABLE	  (PAGE(PG_CTL) + 64)
#define PROGRAM_RSP	  (PAGE(PG_END) - 1024)
#define PROGRAM_GS	  PAGE(PG_DATA) /* base of GS */

/* Pages whose contents a program starts with and leaves behind: PG_CODE up to here. */
#define PROGRAM_MEM_PAGES (PG_END - PG_CODE)
#define PROGRAM_MEM_SIZE  (PROGRAM_MEM_PAGES * UM_PAGE_SIZE)

#define PROGRAM_INSNS  256
#define PROGRAM_BLOCKS 12

struct program_insn {
	u16 off; /* from PROGRAM_CODE */
	u8 len;
	bool soft; /* a fault of it may leave part of its effects on the real CPU */
	bool keep; /* defines flags: not to be dropped */
	u16 op;	   /* ZydisMnemonic */
};

#define PROGRAM_KNOWN BIT(15) /* undefined[]: an instruction starts here */

struct program {
	u64 seed;
	bool native; /* the real CPU can run it: nothing but memory and faults */
	bool code32; /* 32-bit code; otherwise 64-bit */
	u16 end;     /* offset of the UD2 that ends it */
	u16 ninsns, nblocks;
	struct program_insn insn[PROGRAM_INSNS];
	u16 block[PROGRAM_BLOCKS]; /* offsets */
	u16 patched[8], npatched;  /* offsets of bytes of the code that it stores to on purpose */
	u16 undefined
		[PROGRAM_CODE_SIZE]; /* flags undefined before the instruction there; PROGRAM_KNOWN */
	u64 gpr[16], rflags;
	u32 mxcsr;
	u16 fcw;
	u8 code[PROGRAM_CODE_SIZE];
};

/*
 * Is the processor that will run it able to?  For the generator: can @x execute @i, whose bytes are
 * @bytes?
 */
typedef bool program_can_fn(void *arg, struct um_insn *i, const u8 *bytes);

/* Draw a program.  Which kinds are wanted: 32-bit, for the real CPU. */
void program_make(struct program *p, u64 seed, bool code32, bool native, program_can_fn *can,
		  void *arg);

/* The memory it starts with, PROGRAM_MEM_SIZE bytes. */
void program_memory(const struct program *p, u8 *mem);
/* Vector registers and x87 state it starts with. */
void program_vectors(const struct program *p, struct um_fpu *f);

/*
 * A fault or trap: how it goes on.
 */
#define PROGRAM_EVENTS 48
struct program_run {
	unsigned nevents, block, steps;
};
/*
 * After an exception at *rip (of the instruction for faults, else the next).  False: the program
 * has ended.
 */
bool program_resume(const struct program *p, struct program_run *r, unsigned vector, u64 *rip,
		    u64 *rflags, u64 *rsp);
/* Is it an exception of a memory access? */
static inline bool program_memory_fault(unsigned vector)
{
	return vector == UM_VEC_PF || vector == UM_VEC_GP || vector == UM_VEC_SS ||
	       vector == UM_VEC_AC;
}
/* Flags that are undefined at @rip. */
u64 program_undefined(const struct program *p, u64 rip);
/* The instruction at @rip; NULL: none. */
const struct program_insn *program_at(const struct program *p, u64 rip);

/* Replace instruction @n by NOPs. */
void program_drop(struct program *p, unsigned n);
/* Print the code, without runs of NOPs. */
void program_print(const struct program *p);

#endif

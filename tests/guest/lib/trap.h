/* SPDX-License-Identifier: MIT */
/*
 * Exceptions, as values.
 *
 *	struct trap t = trap_call(divide_by_zero, 0);
 *	CHECK_EQ(t.vector, VEC_DE, "division by zero");
 *
 * trap_call() calls a function; if an exception comes, it is recorded, the stack is cut back
 * and trap_call() returns.  user_call() does the same with the function in ring 3.  For
 * interrupts, and for traps that the program goes on from, install a handler.
 */
#ifndef GUEST_TRAP_H
#define GUEST_TRAP_H

#include "types.h"

/* The registers of interrupted code; the order is that in which trap32.S or trap64.S pushes. */
struct frame {
#ifdef __x86_64__
	ulong r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
#else
	ulong gs, fs, es, ds;
	ulong di, si, bp, sp_of_pusha, bx, dx, cx, ax;
#endif
	ulong vector, error; /* error is 0 for vectors that have none */
	ulong ip, cs, flags;
	ulong sp, ss; /* 32-bit mode: only when it came from another ring */
#ifndef __x86_64__
	ulong vm_es, vm_ds, vm_fs, vm_gs; /* only when it came from virtual-8086 mode */
#endif
};

#define TRAP_NONE (-1) /* the function returned */

struct trap {
	int vector;
	ulong error, ip, cs, flags, sp;
	ulong cr2; /* of a #PF */
	ulong dr6; /* of a #DB */
	ulong ax;
	ulong value; /* what the function returned, with TRAP_NONE */
};

typedef ulong (*guest_fn)(ulong arg);

/* Call @fn(@arg) until it returns or an exception without handler comes. */
struct trap trap_call(guest_fn fn, ulong arg);

/*
 * The same in ring 3, with interrupts as they are, on the user stack.  @fn must be in memory that
 * ring 3 may execute: anything, except in a program that maps itself otherwise (then USERTEXT).
 * @flags are added to EFLAGS (FLAG_AC, FLAG_TF; IOPL is 0).
 */
struct trap user_call(guest_fn fn, ulong arg);
struct trap user_call_flags(guest_fn fn, ulong arg, ulong flags);

/* A handler: true resumes the interrupted code with the registers in @f, false makes it a trap. */
typedef bool (*trap_handler)(struct frame *f);
void trap_handle(u8 vector, trap_handler handler);

/* How often interrupts that no handler knows have come: vectors 32 and up end quietly. */
unsigned trap_count(u8 vector);

/* The vector that ends user_call(). */
#define VEC_USER_RETURN 0x80

#define MAX_CPUS   4
#define STACK_SIZE 16384
extern u8 stacks[MAX_CPUS][STACK_SIZE];
extern u8 user_stack[STACK_SIZE];

/* The number of this processor, by its stack: 0 is the one that was started first. */
unsigned this_cpu(void);

/* Sections of their own for code and data that ring 3 reaches in programs that map themselves
 * as a supervisor's. */
#define USERTEXT __attribute__((section(".utext"), noinline))
#define USERDATA __attribute__((section(".udata")))
extern u8 user_begin[], user_end[], image_begin[], image_end[];

/*
 * PROBE(name, before, insn) defines ulong name(ulong arg), with @arg in AX (%eax or %rax), and the
 * label name_at at the instruction insn, which is where a fault is to be reported, and
 * name_after behind it.  USER_PROBE() puts it into memory that ring 3 always may execute.
 */
#ifdef __x86_64__
#define PROBE_ENTRY "mov %rdi, %rax\n"
#define AX	    "%rax"
#else
#define PROBE_ENTRY
#define AX "%eax"
#endif
#define PROBE_IN(section, name, before, insn)                                             \
	asm(".pushsection " section ", \"ax\"\n.globl " #name ", " #name "_at, " #name    \
	    "_after\n" #name ":\n" PROBE_ENTRY before "\n" #name "_at:\n" insn "\n" #name \
	    "_after:\nret\n.popsection");                                                 \
	ulong name(ulong arg);                                                            \
	extern const u8 name##_at[], name##_after[]
#define PROBE(name, before, insn)      PROBE_IN(".text", name, before, insn)
#define USER_PROBE(name, before, insn) PROBE_IN(".utext", name, before, insn)

/* All that one expects of a fault. */
#define CHECK_TRAP(t, vec, err, at, what) \
	check_trap((t), (vec), (err), (ulong)(at), (what), __FILE__, __LINE__)
void check_trap(struct trap t, int vector, ulong error, ulong ip, const char *what,
		const char *file, int line);

/* For the start-up code. */
void trap_init(void);
extern const ulong trap_stubs[256];

#endif

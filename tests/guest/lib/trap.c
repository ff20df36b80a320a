// SPDX-License-Identifier: MIT
/*
 * Exceptions, as values.  trap_call() saves the stack pointer and the registers that a function
 * must preserve (trap_save, in assembly) and calls.  When an exception comes without a handler
 * for it, trap_entry() records it and returns through the saved registers instead of its frame
 * (trap_resume), so that trap_save() seems to return a second time, with the vector.
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

struct resume {
	ulong saved[8]; /* trap_save() and trap_enter_user() fill it in */
	ulong value;
	bool active;
	struct trap trap;
};

int trap_save(struct resume *r, guest_fn fn, ulong arg);
_Noreturn void trap_resume(struct resume *r, int vector);
int trap_enter_user(struct resume *r, guest_fn fn, ulong arg, ulong sp, ulong flags);
void trap_entry(struct frame *f);
extern u8 user_stack_top[];

u8 stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(4096)));

static struct resume resumes[MAX_CPUS];
static trap_handler handlers[256];
static unsigned counts[256];

#ifndef __x86_64__
#endif

unsigned this_cpu(void)
{
	u8 here;
	ulong offset = (ulong)&here - (ulong)stacks;

	return offset < sizeof(stacks) ? offset / STACK_SIZE : 0;
}

void trap_handle(u8 vector, trap_handler handler)
{
	handlers[vector] = handler;
}

unsigned trap_count(u8 vector)
{
	return __atomic_load_n(&counts[vector], __ATOMIC_RELAXED);
}

void trap_entry(struct frame *f)
{
	struct resume *r = &resumes[this_cpu()];
	struct trap *t = &r->trap;

	__atomic_add_fetch(&counts[f->vector & 255], 1, __ATOMIC_RELAXED);
	if (handlers[f->vector] && handlers[f->vector](f))
		return;
	if (f->vector >= 32 && f->vector != VEC_USER_RETURN && !handlers[f->vector])
		return;
	if (!r->active) {
		say("unexpected exception %lu (error 0x%lx) at 0x%lx, cs 0x%lx, flags 0x%lx, cr2 "
		    "0x%lx, cpu %u\n",
		    f->vector, f->error, f->ip, f->cs, f->flags, read_cr2(), this_cpu());
		guest_exit(GUEST_FAIL);
	}
	*t = (struct trap){
		.vector = f->vector,
		.error = f->error,
		.ip = f->ip,
		.cs = f->cs,
		.flags = f->flags,
		.cr2 = f->vector == VEC_PF ? read_cr2() : 0,
		.dr6 = f->vector == VEC_DB ? read_dr6() : 0,
		.ax = f->ax,
	};
	if (IS_64BIT || f->cs & 3 || f->flags & FLAG_VM)
		t->sp = f->sp;
	else
		t->sp = (ulong)&f->sp;
	trap_resume(r, f->vector);
}

struct trap trap_call(guest_fn fn, ulong arg)
{
	struct resume *r = &resumes[this_cpu()];

	r->active = true;
	if (trap_save(r, fn, arg) == TRAP_NONE) {
		r->trap = (struct trap){ .vector = TRAP_NONE };
#ifdef __x86_64__
		r->trap.value = r->value;
#else
		r->trap.value = r->saved[6];
#endif
	}
	r->active = false;
	return r->trap;
}

struct trap user_call_flags(guest_fn fn, ulong arg, ulong flags)
{
	struct resume *r = &resumes[this_cpu()];

	/* The return address is there already: with SMAP we could not write it. */
	r->active = true;
	trap_enter_user(r, fn, arg, (ulong)user_stack_top,
			(read_flags() & FLAG_IF) | FLAG_FIXED | flags);
	r->active = false;
	if (r->trap.vector == VEC_USER_RETURN) {
		r->trap.vector = TRAP_NONE;
		r->trap.value = r->trap.ax;
	}
	return r->trap;
}

struct trap user_call(guest_fn fn, ulong arg)
{
	return user_call_flags(fn, arg, 0);
}

void check_trap(struct trap t, int vector, ulong error, ulong ip, const char *what,
		const char *file, int line)
{
	if (t.vector == vector && t.error == error && (!ip || t.ip == ip)) {
		check_true(true, what, file, line);
		return;
	}
	check_true(false, what, file, line);
	if (t.vector == TRAP_NONE)
		say("  no exception came");
	else
		say("  exception %d, error 0x%lx, at 0x%lx", t.vector, t.error, t.ip);
	say("; wanted %d, error 0x%lx, at 0x%lx\n", vector, error, ip);
}

void trap_init(void)
{
	for (unsigned vec = 0; vec < 256; vec++)
		idt_default(vec);
	idt_set_dpl(VEC_USER_RETURN, 3);
}

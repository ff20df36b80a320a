/* SPDX-License-Identifier: MIT */
/*
 * Trace events: what happens inside a VM, one line an event, for the classes that were asked for
 * (`umbra run --trace exits,mmu`, or UMBRA_TRACE=exits,mmu in the environment of any VMM).
 *
 * A call site costs one test of a bit when its class is off.
 */
#ifndef UM_BASE_TRACE_H
#define UM_BASE_TRACE_H

#include "base/types.h"
#include "base/bits.h"

/* X(class, what it shows) */
#define UM_TRACE_CLASSES(X)                                                             \
	X(exits, "every return of KVM_RUN: reason and data")                            \
	X(engine, "every engine exit")                                                  \
	X(insns, "every instruction, with registers that changed (very long)")          \
	X(exceptions, "exceptions and interrupts delivered to the guest")               \
	X(mmu, "shadow pages and sptes: created, zapped, unsynchronized, synchronized") \
	X(faults, "every software TLB miss and its outcome")                            \
	X(irq, "interrupt controllers: lines, messages, acknowledgements")              \
	X(msr, "MSR reads and writes")                                                  \
	X(cr, "control register writes")                                                \
	X(slots, "memory slots and MMU notifier events")                                \
	X(ioctl, "ioctls and their results")                                            \
	X(death, "the last instructions of a vCPU that dies")

enum um_trace_class {
#define X(name, help) UM_TRACE_##name,
	UM_TRACE_CLASSES(X)
#undef X
		UM_TRACE_MAX
};

struct um_trace {
	u32 mask; /* BIT(UM_TRACE_...) of the classes that are on */
	int fd;	  /* where the lines go */
};

/*
 * Parse a comma-separated list of classes ("all" for every one) into a mask.
 * Returns 0, or -EINVAL with *@bad pointing at the first unknown word.
 */
int um_trace_parse(const char *list, u32 *mask, const char **bad);
const char *um_trace_class_name(enum um_trace_class c);
const char *um_trace_class_help(enum um_trace_class c);

void um_trace_print(const struct um_trace *t, enum um_trace_class c, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define um_trace_on(t, class) unlikely((t)->mask &BIT(UM_TRACE_##class))
#define um_trace(t, class, ...)                                           \
	do {                                                              \
		if (um_trace_on(t, class))                                \
			um_trace_print(t, UM_TRACE_##class, __VA_ARGS__); \
	} while (0)

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Access to guest memory in the host's address space, where the page may be gone.
 *
 * Guest memory is the VMM's ordinary memory: it may be unmapped, mprotected, or backed by a file that
 * was truncated, at any moment.  So every access to it goes through one of these accessors.  Each is
 * a single instruction with an entry in a table (section um_extable); if the host faults on it
 * (SIGSEGV, SIGBUS), the library's signal handler continues at the accessor's failure label, and the
 * accessor returns false.  There is no cost on the path that succeeds.
 *
 * Aligned accesses of 1, 2, 4 and 8 bytes are single-copy atomic, as guest accesses must be.
 *
 * um_uaccess_init() must have been called once in the process.
 */
#ifndef UM_BASE_UACCESS_H
#define UM_BASE_UACCESS_H

#include <signal.h>

#include "base/bits.h"
#include "base/types.h"

/*
 * One entry of the table: a host instruction that may fault, and where to go on.  Both are relative
 * to the entry's own fields, so the table needs no relocation.
 */
struct um_extable_entry {
	s32 insn;
	s32 fixup;
};

#define UM_EXTABLE(insn_label, fixup_label)  \
	".pushsection um_extable, \"a\"\n\t" \
	".balign 4\n\t"                      \
	".long " insn_label " - .\n\t"       \
	".long " fixup_label " - .\n\t"      \
	".popsection\n\t"

/*
 * A second source of fixups, for code that is generated: given the faulting host pc and the signal,
 * return the pc to go on at, or 0 if the pc is not yours.  @uc is the signal's context and may be
 * changed.  Called in a signal handler.
 */
typedef uintptr_t (*um_fixup_fn)(uintptr_t pc, const siginfo_t *si, void *uc);

/*
 * Install the handlers of SIGSEGV, SIGBUS and SIGFPE.  Signals that are not ours go on to the
 * handlers that were installed before.  Idempotent, thread-safe.  Returns 0 or -errno.
 */
int um_uaccess_init(void);

/*
 * As sigaction(2), for programs in whose process the library lives: for its own signals it changes, or tells,
 * to whom those are passed on that are not the library's.  0 or -errno.
 */
int um_uaccess_sigaction(int sig, const struct sigaction *act, struct sigaction *old);

/* Register the fixups of generated code (one for each engine part; at most 4).  0 or -ENOSPC. */
int um_uaccess_add_fixup(um_fixup_fn fn);

/*
 * um_get8/16/32/64(hva, &val): load.  um_put8/16/32/64(hva, val): store.
 * Return false if the host page cannot be accessed; *val is then unchanged.
 */
#define UM_DEFINE_GET_PUT(bits, suffix, reg)                                           \
	static inline bool um_get##bits(const void *hva, u##bits *val)                 \
	{                                                                              \
		u##bits v;                                                             \
		asm goto("1: mov" suffix " %1, %0\n\t" UM_EXTABLE("1b", "%l[fault]")   \
			 : "=" reg(v)                                                  \
			 : "m"(*(const volatile u##bits *)hva)                         \
			 : "memory"                                                    \
			 : fault);                                                     \
		*val = v;                                                              \
		return true;                                                           \
	fault:                                                                         \
		return false;                                                          \
	}                                                                              \
	static inline bool um_put##bits(void *hva, u##bits val)                        \
	{                                                                              \
		asm goto("1: mov" suffix " %0, (%1)\n\t" UM_EXTABLE("1b", "%l[fault]") \
			 :                                                             \
			 : reg "i"(val), "r"(hva)                                      \
			 : "memory"                                                    \
			 : fault);                                                     \
		return true;                                                           \
	fault:                                                                         \
		return false;                                                          \
	}

UM_DEFINE_GET_PUT(8, "b", "q")
UM_DEFINE_GET_PUT(16, "w", "r")
UM_DEFINE_GET_PUT(32, "l", "r")
#undef UM_DEFINE_GET_PUT

static inline bool um_get64(const void *hva, u64 *val)
{
	u64 v;
	asm goto("1: movq %1, %0\n\t" UM_EXTABLE("1b", "%l[fault]")
		 : "=r"(v)
		 : "m"(*(const volatile u64 *)hva)
		 : "memory"
		 : fault);
	*val = v;
	return true;
fault:
	return false;
}

static inline bool um_put64(void *hva, u64 val)
{
	asm goto("1: movq %0, (%1)\n\t" UM_EXTABLE("1b", "%l[fault]")
		 :
		 : "re"(val), "r"(hva)
		 : "memory"
		 : fault);
	return true;
fault:
	return false;
}

/*
 * Atomic compare and exchange: if *@hva == *@old, store @new and set *@done, else set *@old to what is
 * there and clear *@done.  Return false on a host fault.
 */
bool um_cmpxchg32(void *hva, u32 *old, u32 new, bool *done);
bool um_cmpxchg64(void *hva, u64 *old, u64 new, bool *done);

/* Atomically OR @bits into *@hva.  False on a host fault. */
bool um_or32(void *hva, u32 bits);
bool um_or64(void *hva, u64 bits);

/*
 * Copy @len bytes out of or into guest memory.  Return the number of bytes NOT copied (0: all done).
 * Lengths of 1, 2, 4 and 8 are one access if aligned.
 */
size_t um_copy_from(void *dst, const void *hva, size_t len);
size_t um_copy_to(void *hva, const void *src, size_t len);
/* Copy between two places of guest memory (ascending, as REP MOVSB). */
size_t um_copy_in(void *hva_dst, const void *hva_src, size_t len);
/*
 * The same for @n elements of @size bytes (1, 2, 4 or 8), descending, as REP MOVS with DF set: @hva_dst and @hva_src are the highest
 * ones.  Returns how many elements were not copied.
 */
size_t um_copy_down(void *hva_dst, const void *hva_src, size_t n, unsigned size);
/* Fill with a byte. */
size_t um_fill(void *hva, u8 byte, size_t len);

#endif

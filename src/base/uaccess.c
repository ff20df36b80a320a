// SPDX-License-Identifier: MIT
/*
 * Signal handlers and the out-of-line accessors of base/uaccess.h.
 *
 * The dispositions of signals belong to the process, so this file is the one place under src/ with
 * state of the process: the handlers that were there before ours, and the fixups of generated code.
 */
#include "base/uaccess.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

extern const struct um_extable_entry __start_um_extable[] __attribute__((visibility("hidden")));
extern const struct um_extable_entry __stop_um_extable[] __attribute__((visibility("hidden")));

#define MAX_FIXUPS 4

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static bool installed;
static um_fixup_fn fixups[MAX_FIXUPS];
static const int our_signals[] = { SIGSEGV, SIGBUS, SIGFPE };
static struct sigaction previous[ARRAY_SIZE(our_signals)];

static uintptr_t find_fixup(uintptr_t pc)
{
	const struct um_extable_entry *e;

	for (e = __start_um_extable; e < __stop_um_extable; e++) {
		if ((uintptr_t)&e->insn + (uintptr_t)(intptr_t)e->insn == pc)
			return (uintptr_t)&e->fixup + (uintptr_t)(intptr_t)e->fixup;
	}
	return 0;
}

/* Restore the default action, past libraries that wrap sigaction(3).  Async-signal-safe. */
static void set_default(int sig)
{
	/* What the kernel takes: no restorer is needed for a default. */
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		u64 mask;
	} dfl = { .handler = NULL };

	syscall(SYS_rt_sigaction, sig, &dfl, NULL, sizeof(dfl.mask));
}

static struct sigaction *previous_of(int sig)
{
	for (size_t i = 0; i < ARRAY_SIZE(our_signals); i++) {
		if (our_signals[i] == sig)
			return &previous[i];
	}
	return NULL;
}

/* Hand a signal that is not ours to whoever had it before, or asked for it with um_uaccess_sigaction(). */
static void chain(int sig, siginfo_t *si, void *uc)
{
	struct sigaction *old = previous_of(sig);
	void (*fn)(int, siginfo_t *, void *);
	sigset_t mask;
	int flags;

	if (!old)
		return;
	/* One form for both kinds of handlers: the plain one ignores two arguments. */
	fn = __atomic_load_n(&old->sa_sigaction, __ATOMIC_ACQUIRE);
	flags = __atomic_load_n(&old->sa_flags, __ATOMIC_RELAXED);
	mask = old->sa_mask;

	if ((void *)fn == (void *)SIG_DFL || ((void *)fn == (void *)SIG_IGN && si->si_code > 0)) {
		/* Take the default action: the instruction faults again, or the signal is re-sent. */
		set_default(sig);
		if (si->si_code <= 0)
			raise(sig);
	} else if ((void *)fn != (void *)SIG_IGN) {
		if (flags & SA_RESETHAND)
			__atomic_store_n(&old->sa_handler, SIG_DFL, __ATOMIC_RELEASE);
		/* The kernel restores the thread's mask when the handler returns. */
		if (!(flags & SA_NODEFER))
			sigaddset(&mask, sig);
		pthread_sigmask(SIG_BLOCK, &mask, NULL);
		fn(sig, si, uc);
	}
}

static void handle_fault(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
	uintptr_t next = 0;
	int saved_errno = errno;

	if (si->si_code > 0) { /* raised by the CPU, not sent by a process */
		next = find_fixup(pc);
		for (unsigned i = 0; !next && i < MAX_FIXUPS; i++) {
			um_fixup_fn fn = __atomic_load_n(&fixups[i], __ATOMIC_ACQUIRE);

			if (fn)
				next = fn(pc, si, uc);
		}
	}
	if (next)
		uc->uc_mcontext.gregs[REG_RIP] = (greg_t)next;
	else
		chain(sig, si, ucv);
	errno = saved_errno;
}

int um_uaccess_init(void)
{
	struct sigaction sa = { .sa_sigaction = handle_fault,
				.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	int err = 0;

	pthread_mutex_lock(&init_lock);
	for (size_t i = 0; !installed && !err && i < ARRAY_SIZE(our_signals); i++) {
		if (sigaction(our_signals[i], &sa, &previous[i]) < 0)
			err = -errno;
	}
	installed = installed || !err;
	pthread_mutex_unlock(&init_lock);
	return err;
}

int um_uaccess_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction *prev = previous_of(sig);
	sigset_t all, own;
	int err = 0;

	/* Also handlers may call this. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &own);
	pthread_mutex_lock(&init_lock);
	if (!prev || !installed) {
		err = sigaction(sig, act, old) < 0 ? -errno : 0;
	} else {
		struct sigaction was = *prev;

		if (act) {
			prev->sa_mask = act->sa_mask;
			__atomic_store_n(&prev->sa_flags, act->sa_flags, __ATOMIC_RELAXED);
			__atomic_store_n(&prev->sa_sigaction, act->sa_sigaction, __ATOMIC_RELEASE);
		}
		if (old)
			*old = was;
	}
	pthread_mutex_unlock(&init_lock);
	pthread_sigmask(SIG_SETMASK, &own, NULL);
	return err;
}

int um_uaccess_add_fixup(um_fixup_fn fn)
{
	int err = -ENOSPC;

	pthread_mutex_lock(&init_lock);
	for (unsigned i = 0; i < MAX_FIXUPS; i++) {
		if (fixups[i] == fn || !fixups[i]) {
			__atomic_store_n(&fixups[i], fn, __ATOMIC_RELEASE);
			err = 0;
			break;
		}
	}
	pthread_mutex_unlock(&init_lock);
	return err;
}

#define UM_DEFINE_ATOMIC(bits, suffix)                                                     \
	bool um_cmpxchg##bits(void *hva, u##bits *old, u##bits new, bool *done)            \
	{                                                                                  \
		u##bits o = *old;                                                          \
		bool ok;                                                                   \
		asm goto("1: lock cmpxchg" suffix " %3, (%2)\n\t"                          \
			 "sete %b1\n\t" UM_EXTABLE("1b", "%l[fault]")                      \
			 : "+a"(o), "=&q"(ok)                                              \
			 : "r"(hva), "r"(new)                                              \
			 : "memory", "cc"                                                  \
			 : fault);                                                         \
		*old = o;                                                                  \
		*done = ok;                                                                \
		return true;                                                               \
	fault:                                                                             \
		return false;                                                              \
	}                                                                                  \
	bool um_or##bits(void *hva, u##bits bits_)                                         \
	{                                                                                  \
		asm goto("1: lock or" suffix " %0, (%1)\n\t" UM_EXTABLE("1b", "%l[fault]") \
			 :                                                                 \
			 : "r"(bits_), "r"(hva)                                            \
			 : "memory", "cc"                                                  \
			 : fault);                                                         \
		return true;                                                               \
	fault:                                                                             \
		return false;                                                              \
	}

UM_DEFINE_ATOMIC(32, "l")
UM_DEFINE_ATOMIC(64, "q")

/* REP MOVSB/STOSB leave in rcx what they did not do when they fault: the answer we want. */
static size_t rep_movsb(void *dst, const void *src, size_t len)
{
	asm volatile("1: rep movsb\n"
		     "2:\n\t" UM_EXTABLE("1b", "2b")
		     : "+c"(len), "+D"(dst), "+S"(src)
		     :
		     : "memory");
	return len;
}

size_t um_fill(void *hva, u8 byte, size_t len)
{
	asm volatile("1: rep stosb\n"
		     "2:\n\t" UM_EXTABLE("1b", "2b")
		     : "+c"(len), "+D"(hva)
		     : "a"(byte)
		     : "memory");
	return len;
}

size_t um_copy_from(void *dst, const void *hva, size_t len)
{
	u8 b;
	u16 w;
	u32 l;
	u64 q;

	switch (len) {
	case 1:
		return um_get8(hva, &b) ? memcpy(dst, &b, 1), 0 : 1;
	case 2:
		return um_get16(hva, &w) ? memcpy(dst, &w, 2), 0 : 2;
	case 4:
		return um_get32(hva, &l) ? memcpy(dst, &l, 4), 0 : 4;
	case 8:
		return um_get64(hva, &q) ? memcpy(dst, &q, 8), 0 : 8;
	}
	return rep_movsb(dst, hva, len);
}

size_t um_copy_to(void *hva, const void *src, size_t len)
{
	u16 w;
	u32 l;
	u64 q;

	switch (len) {
	case 1:
		return um_put8(hva, *(const u8 *)src) ? 0 : 1;
	case 2:
		memcpy(&w, src, 2);
		return um_put16(hva, w) ? 0 : 2;
	case 4:
		memcpy(&l, src, 4);
		return um_put32(hva, l) ? 0 : 4;
	case 8:
		memcpy(&q, src, 8);
		return um_put64(hva, q) ? 0 : 8;
	}
	return rep_movsb(hva, src, len);
}

size_t um_copy_in(void *hva_dst, const void *hva_src, size_t len)
{
	return rep_movsb(hva_dst, hva_src, len);
}

/* A fault leaves the direction as it was, down, which nobody else expects. */
#define DEFINE_COPY_DOWN(bits, insn)                                        \
	static size_t copy_down##bits(void *dst, const void *src, size_t n) \
	{                                                                   \
		asm volatile("std\n"                                        \
			     "1: rep " insn "\n"                            \
			     "2: cld\n\t" UM_EXTABLE("1b", "2b")            \
			     : "+c"(n), "+D"(dst), "+S"(src)                \
			     :                                              \
			     : "memory", "cc");                             \
		return n;                                                   \
	}

DEFINE_COPY_DOWN(8, "movsb")
DEFINE_COPY_DOWN(16, "movsw")
DEFINE_COPY_DOWN(32, "movsl")
DEFINE_COPY_DOWN(64, "movsq")

size_t um_copy_down(void *hva_dst, const void *hva_src, size_t n, unsigned size)
{
	switch (size) {
	case 1:
		return copy_down8(hva_dst, hva_src, n);
	case 2:
		return copy_down16(hva_dst, hva_src, n);
	case 4:
		return copy_down32(hva_dst, hva_src, n);
	default:
		return copy_down64(hva_dst, hva_src, n);
	}
}

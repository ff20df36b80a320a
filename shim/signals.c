// SPDX-License-Identifier: MIT
/*
 * Signal handlers of the program, and KVM_RUN.
 *
 * In the kernel, a signal ends KVM_RUN with EINTR, and its handler runs when the thread is back in the
 * program.  A handler may count on that: call ioctl() on the same vCPU, or jump out.  So here too: instead of
 * a handler of the program, the kernel gets ours, on_signal().  If it finds the thread inside libumbra, it
 *	- asks KVM_RUN to return (umbra_interrupt),
 *	- sends the same signal again, with all it tells, to this thread, and
 *	- returns to libumbra with all signals blocked;
 * when the thread leaves libumbra, its mask is set back, and the kernel delivers the signal: now for good,
 * with the right mask, stack and order.  Elsewhere on_signal() calls the program's handler at once.
 *
 * What the CPU raises (SIGSEGV ...) is never put off.  Three of those signals are handled by libumbra, which
 * passes on to on_signal() what is not its own: umbra_sigaction().
 *
 * Programs that ask for their handlers are told theirs.  Handlers that exist in a child of vfork() only are
 * not recorded: there, the calls go straight to the C library.
 */
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpuid_mask.h"
#include "shim.h"

typedef void (*handler_t)(int, siginfo_t *, void *);

/* What the program has asked for, where it is a function. */
static struct {
	_Atomic(handler_t) fn;
	atomic_int flags; /* of sa_flags: those below */
} handlers[NSIG];

#define OUR_FLAGS (SA_SIGINFO | SA_RESETHAND)

static atomic_flag changing = ATOMIC_FLAG_INIT; /* with all signals blocked */

__thread volatile sig_atomic_t um_shim_deferred;
static __thread sigset_t mask_outside __attribute__((tls_model("initial-exec")));

/* What CPUID raises (cpuid_mask.h), or 0: always handled, and never blocked. */
static int cpuid_signal;

/* ---- delivery ---- */

static bool raised_by_cpu(int sig, const siginfo_t *si)
{
	return si->si_code > 0 && (sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE ||
				   sig == SIGILL || sig == SIGTRAP || sig == SIGSYS);
}

/* Signals that must not be blocked while code runs that may raise them. */
static bool is_fault(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL ||
	       sig == SIGTRAP || sig == SIGSYS;
}

/* Put it off until the thread is outside.  False if the kernel can't queue it. */
static bool defer(int sig, siginfo_t *si, ucontext_t *uc)
{
	int saved_errno = errno;
	/* Not by getpid() and its like: filters.c */
	long r = syscall(SYS_rt_tgsigqueueinfo, syscall(SYS_getpid), syscall(SYS_gettid), sig, si);

	errno = saved_errno;
	if (r < 0)
		return false;
	/*
	 * The last of these masks is the thread's own: KVM_SET_SIGNAL_MASK's, which a first signal may find,
	 * lets nothing through that the thread's own blocks, and is set back before KVM_RUN returns.
	 */
	mask_outside = uc->uc_sigmask;
	for (int s = 1; s < NSIG; s++) {
		if (!is_fault(s))
			sigaddset(&uc->uc_sigmask, s);
	}
	um_shim_deferred = 1;
	return true;
}

void um_shim_deliver(void)
{
	int saved_errno = errno;
	sigset_t mask = mask_outside;

	um_shim_deferred = 0;
	/* The handlers run here. */
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	errno = saved_errno;
}

/* As if there were no handler of ours: a fault comes again, what was sent is sent again. */
static void take_default(int sig, const siginfo_t *si)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };

	um_next()->sigaction(sig, &dfl, NULL);
	if (!raised_by_cpu(sig, si))
		raise(sig);
}

static void on_signal(int sig, siginfo_t *si, void *uc)
{
	unsigned in = um_shim_in;
	handler_t fn;

	if (raised_by_cpu(sig, si) && um_cpuid_fixup(sig, uc))
		return;
	if (!raised_by_cpu(sig, si) && umbra_interrupt() && !is_fault(sig) && defer(sig, si, uc))
		return;
	fn = atomic_load(&handlers[sig].fn);
	if (!fn && sig == cpuid_signal) {
		take_default(sig, si);
		return;
	}
	if (!fn) /* taken away at this moment */
		return;
	/* Not 0 a few instructions before and after libumbra.  The program's handler is not part of it. */
	um_shim_in = 0;
	if (atomic_load(&handlers[sig].flags) & SA_RESETHAND) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		sigaction(sig, &dfl, NULL);
	}
	fn(sig, si, uc);
	um_shim_in = in;
}

/* Takes out of a mask what must not be blocked: below. */
static void strip(sigset_t *set);

/* ---- sigaction() ---- */

static bool is_function(const struct sigaction *sa)
{
	return sa->sa_handler != SIG_DFL && sa->sa_handler != SIG_IGN &&
	       sa->sa_handler != SIG_ERR && sa->sa_handler != SIG_HOLD;
}

/* What the kernel said of its handler, in the program's words. */
static void tell(int sig, struct sigaction *old, handler_t fn, int flags)
{
	if (old->sa_sigaction != on_signal)
		return;
	if (!fn) {
		old->sa_handler = SIG_DFL;
		return;
	}
	old->sa_sigaction = fn;
	old->sa_flags = (old->sa_flags & ~OUR_FLAGS) | flags;
}

static int change(int sig, const struct sigaction *act, struct sigaction *old)
{
	handler_t was = atomic_load(&handlers[sig].fn);
	int was_flags = atomic_load(&handlers[sig].flags), r;
	struct sigaction k;

	if (act) {
		k = *act;
		if (is_function(act)) {
			atomic_store(&handlers[sig].flags, act->sa_flags & OUR_FLAGS);
			atomic_store(&handlers[sig].fn, act->sa_sigaction);
			k.sa_sigaction = on_signal;
			k.sa_flags = (k.sa_flags & ~SA_RESETHAND) | SA_SIGINFO;
		} else if (sig == cpuid_signal) {
			atomic_store(&handlers[sig].fn, NULL);
			k.sa_sigaction = on_signal;
			k.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
		}
		strip(&k.sa_mask);
	}
	r = umbra_sigaction(sig, act ? &k : NULL, old);
	if (r < 0) {
		atomic_store(&handlers[sig].flags, was_flags);
		atomic_store(&handlers[sig].fn, was);
	} else if (old) {
		tell(sig, old, was, was_flags);
	}
	return r;
}

UM_SHIM int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction copy, told;
	sigset_t all, own;
	int r;

	if (um_shim_in || sig <= 0 || sig >= NSIG)
		return um_next()->sigaction(sig, act, old);
	if (um_shim_foreign()) {
		r = um_next()->sigaction(sig, act, old);
		if (!r && old)
			tell(sig, old, atomic_load(&handlers[sig].fn),
			     atomic_load(&handlers[sig].flags));
		return r;
	}
	if (act) /* a wrong address faults here, with nothing held */
		copy = *act;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &own);
	while (atomic_flag_test_and_set_explicit(&changing, memory_order_acquire))
		;
	um_shim_in++;
	r = change(sig, act ? &copy : NULL, old ? &told : NULL);
	um_shim_in--;
	atomic_flag_clear_explicit(&changing, memory_order_release);
	pthread_sigmask(SIG_SETMASK, &own, NULL);
	if (!r && old)
		*old = told;
	return r;
}

int __sigaction(int sig, const struct sigaction *act, struct sigaction *old)
	UM_SHIM_ALIAS(sigaction);

/* A child of fork() has one thread, which holds nothing. */
static void after_fork_child(void)
{
	atomic_flag_clear(&changing);
}

/* ---- CPUID ---- */

/* The program itself is the first object. */
static int arrange_cpuid(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	cpuid_signal =
		um_cpuid_init("/proc/self/exe", info->dlpi_phdr, info->dlpi_phnum, info->dlpi_addr);
	return 1;
}

__attribute__((constructor)) static void init(void)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };

	pthread_atfork(NULL, NULL, after_fork_child);
	dl_iterate_phdr(arrange_cpuid, NULL);
	if (cpuid_signal)
		sigaction(cpuid_signal, &dfl, NULL);
}

/* ---- masks ---- */

/*
 * A signal that the CPU raises while it is blocked ends the program.  What libumbra and CPUID count on is therefore never
 * blocked; that also goes for programs that block all signals while a vCPU runs, as they may with KVM.
 */
static void strip(sigset_t *set)
{
	sigdelset(set, SIGSEGV);
	sigdelset(set, SIGBUS);
	sigdelset(set, SIGFPE);
	if (cpuid_signal)
		sigdelset(set, cpuid_signal);
}

/* What to give the kernel for @set; @room is for a copy. */
static const sigset_t *stripped(int how, const sigset_t *set, sigset_t *room)
{
	if (!set || how == SIG_UNBLOCK)
		return set;
	*room = *set;
	strip(room);
	return room;
}

UM_SHIM int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t room;

	return um_next()->pthread_sigmask(how, stripped(how, set, &room), old);
}

UM_SHIM int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t room;

	return um_next()->sigprocmask(how, stripped(how, set, &room), old);
}

/* ---- the older relatives ---- */

static sighandler_t set_handler(int sig, sighandler_t handler, int flags)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags }, old;

	if (handler == SIG_ERR) {
		errno = EINVAL;
		return SIG_ERR;
	}
	return sigaction(sig, &sa, &old) < 0 ? SIG_ERR : old.sa_handler;
}

UM_SHIM sighandler_t signal(int sig, sighandler_t handler)
{
	return set_handler(sig, handler, SA_RESTART);
}

sighandler_t bsd_signal(int sig, sighandler_t handler) UM_SHIM_ALIAS(signal);
sighandler_t ssignal(int sig, sighandler_t handler) UM_SHIM_ALIAS(signal);

UM_SHIM sighandler_t sysv_signal(int sig, sighandler_t handler)
{
	return set_handler(sig, handler, SA_RESETHAND | SA_NODEFER);
}

sighandler_t __sysv_signal(int sig, sighandler_t handler) UM_SHIM_ALIAS(sysv_signal);

UM_SHIM int sigignore(int sig)
{
	return set_handler(sig, SIG_IGN, 0) == SIG_ERR ? -1 : 0;
}

/* POSIX: SIG_HOLD blocks the signal; any other disposition unblocks it; tells SIG_HOLD if it was blocked. */
UM_SHIM sighandler_t sigset(int sig, sighandler_t handler)
{
	struct sigaction old;
	sigset_t one, was;
	int r;

	sigemptyset(&one);
	if (sigaddset(&one, sig) < 0)
		return SIG_ERR;
	if (handler == SIG_HOLD) {
		if (sigaction(sig, NULL, &old) < 0 || sigprocmask(SIG_BLOCK, &one, &was) < 0)
			return SIG_ERR;
		return sigismember(&was, sig) ? SIG_HOLD : old.sa_handler;
	}
	old.sa_handler = set_handler(sig, handler, 0);
	if (old.sa_handler == SIG_ERR)
		return SIG_ERR;
	r = sigprocmask(SIG_UNBLOCK, &one, &was);
	if (r < 0)
		return SIG_ERR;
	return sigismember(&was, sig) ? SIG_HOLD : old.sa_handler;
}

// SPDX-License-Identifier: MIT
/*
 * Signals of a supervised program.
 *
 * All that have a handler come to um_load_signal_entry() (stubs.S).  In the program's life the handler is called at once,
 * on the stack and with the mask that the kernel has chosen, as if it stood in the kernel's table itself.  In ours
 * the signal is sent again to the thread, all are blocked, and KVM_RUN is asked to return: the thread's mask is set back
 * when it is in the program's life again, and there the signal comes for good.
 *
 * Faults (SIGSEGV, SIGBUS, SIGFPE) that happen in our life are libumbra's: it has asked sigaction() for them, which for
 * this process is the one below.
 *
 * SIGSYS is never blocked, whatever the program asks: a system call would end it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpuid_mask.h"
#include "load/load.h"
#include "shim.h"

#define DFL		       0ull
#define IGN		       1ull
#define SA_RESTORER_FLAG       0x04000000ull
#define MASK_SIZE	       8
#define SYS_USER_DISPATCH_CODE 2 /* si_code: <asm-generic/siginfo.h> */

#define SUPERVISED \
	(UM_LOAD_BIT(SIGSYS) | UM_LOAD_BIT(SIGSEGV) | UM_LOAD_BIT(SIGILL) | UM_LOAD_BIT(SIGTRAP))

static atomic_flag lock = ATOMIC_FLAG_INIT;
static struct um_load_sigaction program[NSIG]; /* as the program asked */
static struct sigaction ours[NSIG];	       /* as libumbra asked */

static bool in_set(uint64_t set, int sig)
{
	return set & UM_LOAD_BIT(sig);
}

static bool raised_by_cpu(int sig, const siginfo_t *si)
{
	return si->si_code > 0 && in_set(UM_LOAD_FAULTS, sig);
}

static void get_lock(void)
{
	while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
		;
}

static void put_lock(void)
{
	atomic_flag_clear_explicit(&lock, memory_order_release);
}

static long kernel_sigaction(int sig, const struct um_load_sigaction *act,
			     struct um_load_sigaction *old)
{
	return um_load_syscall(SYS_rt_sigaction, sig, (long)act, (long)old, MASK_SIZE, 0, 0);
}

/* Tell the kernel what is wanted of @sig by the program and by us together. */
static long install(int sig)
{
	struct um_load_sigaction k = program[sig];
	bool function = k.handler != DFL && k.handler != IGN;

	if (!function && !ours[sig].sa_sigaction && !in_set(SUPERVISED, sig))
		return kernel_sigaction(sig, &k, NULL);
	k.handler = (uint64_t)um_load_signal_entry;
	k.flags = (k.flags & ~(uint64_t)SA_RESETHAND) | SA_SIGINFO | SA_RESTORER_FLAG;
	k.restorer = um_load_near(um_load_stub_restorer);
	k.mask = UM_LOAD_ALL; /* until the program's handler runs */
	if (in_set(UM_LOAD_FAULTS, sig))
		k.flags |= SA_ONSTACK | SA_NODEFER;
	return kernel_sigaction(sig, &k, NULL);
}

int um_load_signals_init(void)
{
	uint64_t unblock = UM_LOAD_NEVER_MASKED;
	long r = 0;

	for (int sig = 1; sig < NSIG && !r; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		/* What was there: the default, or ignored, which a program inherits. */
		kernel_sigaction(sig, NULL, &program[sig]);
		if (program[sig].handler != IGN)
			program[sig] = (struct um_load_sigaction){ .handler = DFL };
		if (in_set(SUPERVISED, sig))
			r = install(sig);
	}
	if (!r)
		r = um_load_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&unblock, 0, MASK_SIZE,
				    0, 0);
	return (int)r;
}

/* In a child of fork(), where nobody holds it. */
void um_load_signals_child(void)
{
	put_lock();
}

/* What libumbra and other libraries of ours get for sigaction(3). */
UM_SHIM int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	long r = 0;

	if (sig <= 0 || sig >= NSIG || sig == SIGKILL || sig == SIGSTOP) {
		errno = EINVAL;
		return -1;
	}
	get_lock();
	if (old)
		*old = ours[sig];
	if (act) {
		ours[sig] = *act;
		if (act->sa_handler == SIG_IGN)
			ours[sig].sa_handler = SIG_DFL;
		r = install(sig);
	}
	put_lock();
	if (r < 0)
		errno = (int)-r;
	return r < 0 ? -1 : 0;
}

/* ---- what the program asks ---- */

/* In a child of vfork(): handlers are the child's own, which ends soon by execve(). */
static long foreign_sigaction(int sig, const struct um_load_sigaction *act)
{
	struct um_load_sigaction k = *act;

	if (in_set(SUPERVISED, sig))
		return 0;
	k.restorer = um_load_near(um_load_stub_restorer);
	k.flags |= SA_RESTORER_FLAG;
	return kernel_sigaction(sig, &k, NULL);
}

long um_load_sigaction(int sig, uint64_t act, uint64_t old, size_t size)
{
	struct um_load_sigaction want, was;
	long r = 0;

	if (size != MASK_SIZE || sig <= 0 || sig >= NSIG)
		return -EINVAL;
	if (act && um_load_copy(&want, (void *)act, sizeof(want)))
		return -EFAULT;
	if (act && (sig == SIGKILL || sig == SIGSTOP))
		return -EINVAL;
	get_lock();
	was = program[sig];
	if (act && um_load_foreign()) {
		r = foreign_sigaction(sig, &want);
	} else if (act) {
		program[sig] = want;
		r = install(sig);
		if (r < 0)
			program[sig] = was;
	}
	put_lock();
	if (!r && old && um_load_copy((void *)old, &was, sizeof(was)))
		return -EFAULT;
	return r;
}

/* ---- delivery ---- */

/* End the program, by this signal, as it would have ended without us. */
static void take_default(int sig, const siginfo_t *si)
{
	static const struct um_load_sigaction dfl = { .handler = DFL };

	kernel_sigaction(sig, &dfl, NULL);
	/* A fault comes again when its instruction is executed again. */
	if (!raised_by_cpu(sig, si) || sig == SIGTRAP || sig == SIGSYS)
		um_load_syscall(SYS_tgkill, getpid(), um_load_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0),
				sig, 0, 0, 0);
}

/* The mask that the program's handler is to run with: the kernel's rule. */
static void set_handlers_mask(struct um_load_thread *t, int sig, const ucontext_t *uc,
			      const struct um_load_sigaction *act)
{
	uint64_t mask;

	memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	mask |= act->mask;
	if (!(act->flags & SA_NODEFER))
		mask |= UM_LOAD_BIT(sig);
	t->mask = mask & ~UM_LOAD_NEVER_MASKED;
	t->deferred = 1;
}

static uint64_t program_signal(struct um_load_thread *t, int sig, siginfo_t *si, ucontext_t *uc)
{
	struct um_load_sigaction *act = &program[sig];
	uint64_t handler = act->handler;

	if (sig == SIGSYS && si->si_code == SYS_USER_DISPATCH_CODE) {
		um_load_dispatch(t, uc);
		return 0;
	}
	if (raised_by_cpu(sig, si) &&
	    (um_cpuid_fixup(sig, uc) || (sig == SIGTRAP && um_load_patch_trap(uc))))
		return 0;
	if (handler == IGN && !raised_by_cpu(sig, si))
		return 0;
	if (handler == DFL || handler == IGN) {
		take_default(sig, si);
		return 0;
	}
	set_handlers_mask(t, sig, uc, act);
	if (act->flags & SA_RESETHAND) {
		get_lock();
		act->handler = DFL;
		install(sig);
		put_lock();
	}
	return handler;
}

uint64_t um_load_program_signal(struct um_load_thread *t, int sig, siginfo_t *si, ucontext_t *uc)
{
	uint64_t handler;

	um_load_take_altstack(t);
	handler = program_signal(t, sig, si, uc);
	um_load_give_altstack(t);
	return handler;
}

/* Send it to this thread again, and let nothing come before the thread is in the program's life. */
static void put_off(struct um_load_thread *t, int sig, siginfo_t *si, ucontext_t *uc)
{
	uint64_t mask;

	um_load_syscall(SYS_rt_tgsigqueueinfo, getpid(),
			um_load_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0), sig, (long)si, 0, 0);
	/* The last of these is the thread's own: KVM_SET_SIGNAL_MASK's, which a first signal may find, adds to it. */
	memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	t->mask = mask;
	t->deferred = 1;
	mask = UM_LOAD_ALL | UM_LOAD_BIT(sig);
	memcpy(&uc->uc_sigmask, &mask, sizeof(mask));
}

void um_load_our_signal(struct um_load_thread *t, int sig, siginfo_t *si, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	int saved_errno = errno;

	if (!raised_by_cpu(sig, si)) {
		umbra_interrupt();
		put_off(t, sig, si, uc);
	} else if ((const uint8_t *)g[REG_RIP] == um_load_copy_insn) {
		g[REG_RIP] = (greg_t)um_load_copy_end;
	} else if (!um_cpuid_fixup(sig, uc)) {
		if (ours[sig].sa_sigaction)
			ours[sig].sa_sigaction(sig, si, uc);
		else
			take_default(sig, si);
	}
	errno = saved_errno;
}

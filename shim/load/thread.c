// SPDX-License-Identifier: MIT
/*
 * The program's threads.
 *
 * Each is made by our C library, so that it has thread-local storage for libumbra, and then takes up the program's life
 * with the registers that clone() was called with.  When the program ends it, the thread comes back, and ends as our C
 * library wants.  What the kernel would do for the program at that moment is done here: the program's word for the
 * thread's number is cleared and waked (CLONE_CHILD_CLEARTID), and its robust mutexes are marked.
 *
 * A thread's place holds its struct, room for its extended state, a signal stack, and the stack that our code runs on.
 * Places are never unmapped: the table of them is what a signal handler would look at.
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "load/load.h"
#include "shim.h"

#define HEAD	 0x8000ull /* the struct, and the extended state */
#define GUARD	 0x1000ull
#define ALTSTACK ((uint64_t)ALTSTACK_SIZE)
#define PLACE	 0xc0000ull
#define PLACES	 1024u
#define XSAVE_AT 1024u
#define OWN_SIZE 0x40000u /* the stack that our C library makes, hardly used */

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE 2
#endif

#define ASSERT_AT(field, offset) \
	_Static_assert(offsetof(struct um_load_thread, field) == (offset), "offsets.h")
ASSERT_AT(self, T_SELF);
ASSERT_AT(our_fs, T_OUR_FS);
ASSERT_AT(program_fs, T_PROGRAM_FS);
ASSERT_AT(stack_top, T_STACK);
ASSERT_AT(program_rsp, T_PROGRAM_RSP);
ASSERT_AT(mask, T_MASK);
ASSERT_AT(xsave, T_XSAVE);
ASSERT_AT(exit_rsp, T_EXIT_RSP);
ASSERT_AT(fast_ioctl, T_FAST_IOCTL);
ASSERT_AT(altstack_low, T_ALTSTACK);
ASSERT_AT(kernel_low, T_KERNEL_LOW);
ASSERT_AT(kernel_size, T_KERNEL_SIZE);
ASSERT_AT(dispatched, T_DISPATCHED);
ASSERT_AT(selector, T_SELECTOR);
ASSERT_AT(deferred, T_DEFERRED);
ASSERT_AT(fsgsbase, T_FSGSBASE);
ASSERT_AT(xsavec, T_XSAVEC);
_Static_assert(sizeof(struct um_load_thread) <= XSAVE_AT, "the extended state is behind it");

static uint8_t *places;
static atomic_bool used[PLACES];
static atomic_uint hint; /* where to look for a free place first */
static bool fsgsbase, xsavec;
static __thread struct um_load_thread *me __attribute__((tls_model("initial-exec")));

struct um_load_thread *um_load_self(void)
{
	return me;
}

/* ---- places ---- */

static struct um_load_thread *take_place(void)
{
	unsigned first = atomic_load(&hint);

	for (unsigned i = 0; i < PLACES; i++) {
		unsigned n = (first + i) % PLACES;
		uint8_t *p = places + n * PLACE;
		struct um_load_thread *t = (void *)p;

		if (atomic_exchange(&used[n], true))
			continue;
		if (mprotect(p, HEAD, PROT_READ | PROT_WRITE) < 0 ||
		    mprotect(p + HEAD + GUARD, ALTSTACK, PROT_READ | PROT_WRITE) < 0 ||
		    mprotect(p + HEAD + ALTSTACK + 2 * GUARD, PLACE - HEAD - ALTSTACK - 2 * GUARD,
			     PROT_READ | PROT_WRITE) < 0) {
			atomic_store(&used[n], false);
			return NULL;
		}
		atomic_store(&hint, n + 1);
		memset(t, 0, sizeof(*t));
		t->self = t;
		t->stack_top = (uint64_t)p + PLACE;
		t->xsave = p + XSAVE_AT;
		t->fast_ioctl = um_load_fast_ioctl;
		t->altstack = (stack_t){ .ss_sp = p + HEAD + GUARD, .ss_size = ALTSTACK };
		t->altstack_low = t->kernel_low = (uint64_t)t->altstack.ss_sp;
		t->kernel_size = ALTSTACK;
		t->program_altstack = t->altstack;
		t->dispatched = um_load_dispatched;
		t->fsgsbase = fsgsbase;
		t->xsavec = xsavec;
		t->main = false;
		return t;
	}
	return NULL;
}

static void free_place(struct um_load_thread *t)
{
	atomic_store(&used[((uint8_t *)t - places) / (ptrdiff_t)PLACE], false);
}

/* The calling thread has place @t from now on. */
static void settle(struct um_load_thread *t)
{
	um_load_syscall(SYS_arch_prctl, ARCH_SET_GS, (long)t, 0, 0, 0, 0);
	um_load_syscall(SYS_arch_prctl, ARCH_GET_FS, (long)&t->our_fs, 0, 0, 0, 0);
}

/* ---- signal stacks ---- */

static bool has_own_altstack(const struct um_load_thread *t)
{
	return t->program_altstack.ss_sp != t->altstack.ss_sp;
}

void um_load_take_altstack(struct um_load_thread *t)
{
	if (has_own_altstack(t))
		um_load_sigaltstack(&t->altstack);
}

void um_load_give_altstack(struct um_load_thread *t)
{
	if (has_own_altstack(t))
		um_load_sigaltstack(&t->program_altstack);
}

long um_load_set_altstack(struct um_load_thread *t, const stack_t *ss)
{
	/* The kernel checks it.  It stays with ours, if this is not ours, until um_load_give_altstack(). */
	long r = um_load_sigaltstack(ss);

	if (r)
		return r;
	t->program_altstack = *ss;
	t->kernel_low = (uint64_t)ss->ss_sp;
	t->kernel_size = ss->ss_size;
	um_load_sigaltstack(&t->altstack);
	return 0;
}

void um_load_set_fs(struct um_load_thread *t, uint64_t base)
{
	t->program_fs = base;
}

int um_load_arm(struct um_load_thread *t)
{
	uint64_t start, size;

	um_load_near_range(&start, &size);
	return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, start, size, &t->selector) <
			       0
		       ? -errno
		       : 0;
}

int um_load_threads_init(struct um_load_thread **first)
{
	unsigned a, b, c, d;
	uint8_t *p = mmap(NULL, PLACES * PLACE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	places = p;
	fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	if (!__get_cpuid_count(0xd, 0, &a, &b, &c, &d) || XSAVE_AT + b > HEAD)
		return -EOPNOTSUPP;
	xsavec = __get_cpuid_count(0xd, 1, &a, &b, &c, &d) && a & 2;
	*first = take_place();
	if (!*first)
		return -ENOMEM;
	(*first)->main = true;
	me = *first;
	settle(me);
	sigaltstack(&me->altstack, NULL);
	return 0;
}

/* ---- threads ---- */

struct start {
	struct um_load_thread *t;
	gregset_t gregs;
	long flags;
	uint64_t parent_tid, child_tid;
	long tid;
	sem_t ready;
};

/* A store that does nothing if the program gave a wrong address. */
static void store_tid(uint64_t addr, int tid)
{
	um_load_copy((void *)addr, &tid, sizeof(tid));
}

/*
 * What a mutex of the thread's robust list gets when its owner dies: <linux/futex.h> and the kernel's
 * robust-futex-ABI document.  The list is the program's, and may be anything.
 */
static void release_robust(const struct um_load_thread *t, uint32_t tid)
{
	struct robust_list_head head;
	uint64_t entry, next;

	if (!t->robust_list || um_load_copy(&head, (void *)t->robust_list, sizeof(head)))
		return;
	entry = (uint64_t)head.list.next;
	for (int i = 0; i < ROBUST_LIST_LIMIT && (entry & ~1ull) != t->robust_list; i++) {
		uint64_t word = (entry & ~1ull) + (uint64_t)head.futex_offset;
		uint32_t value;

		if (um_load_copy(&next, (void *)(entry & ~1ull), sizeof(next)))
			return;
		if (!um_load_copy(&value, (void *)word, sizeof(value)) &&
		    (value & FUTEX_TID_MASK) == tid) {
			uint32_t dead = (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED;

			if (__atomic_compare_exchange_n((uint32_t *)word, &value, dead, false,
							__ATOMIC_SEQ_CST, __ATOMIC_RELAXED) &&
			    (value & FUTEX_WAITERS))
				um_load_syscall(SYS_futex, (long)word, FUTEX_WAKE, 1, 0, 0, 0);
		}
		entry = next;
	}
}

/* The program is through with this thread: it must find nothing of it when it is told. */
static void finish(struct um_load_thread *t)
{
	uint64_t clear = t->clear_tid;
	stack_t none = { .ss_flags = SS_DISABLE };

	prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0);
	sigaltstack(&none, NULL);
	release_robust(t, (uint32_t)um_load_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0));
	if (clear) {
		store_tid(clear, 0);
		um_load_syscall(SYS_futex, (long)clear, FUTEX_WAKE, 1, 0, 0, 0);
	}
}

static void *start_thread(void *arg)
{
	struct start *s = arg;
	struct um_load_thread *t = s->t;
	gregset_t gregs;

	me = t;
	settle(t);
	sigaltstack(&t->altstack, NULL);
	s->tid = um_load_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
	if (s->flags & CLONE_PARENT_SETTID)
		store_tid(s->parent_tid, (int)s->tid);
	if (s->flags & CLONE_CHILD_SETTID)
		store_tid(s->child_tid, (int)s->tid);
	if (um_load_arm(t) < 0)
		s->tid = -EAGAIN;
	memcpy(gregs, s->gregs, sizeof(gregs));
	if (s->tid < 0) {
		sem_post(&s->ready);
	} else {
		sem_post(&s->ready); /* *s is gone from here on */
		um_load_enter(t, gregs);
		finish(t);
	}
	um_load_syscall(SYS_arch_prctl, ARCH_SET_GS, 0, 0, 0, 0, 0);
	free_place(t);
	return NULL;
}

static void own_registers(gregset_t out, const ucontext_t *uc, uint64_t stack)
{
	memcpy(out, uc->uc_mcontext.gregs, sizeof(gregset_t));
	out[REG_RAX] = 0;
	if (stack)
		out[REG_RSP] = (greg_t)stack;
}

static uint64_t mask_of(const ucontext_t *uc)
{
	uint64_t mask;

	memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	return mask;
}

static long new_thread(struct um_load_thread *t, ucontext_t *uc, long flags, uint64_t stack,
		       uint64_t ptid, uint64_t ctid, uint64_t tls)
{
	struct start s = { .flags = flags, .parent_tid = ptid, .child_tid = ctid };
	sigset_t all, own;
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	s.t = take_place();
	if (!s.t)
		return -EAGAIN;
	own_registers(s.gregs, uc, stack);
	s.t->program_fs = flags & CLONE_SETTLS ? tls : t->program_fs;
	s.t->clear_tid = flags & CLONE_CHILD_CLEARTID ? ctid : 0;
	/* The thread begins with all signals blocked, and its own mask when it is the program's. */
	s.t->mask = mask_of(uc);
	s.t->deferred = 1;
	sem_init(&s.ready, 0, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, OWN_SIZE);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &own);
	err = pthread_create(&thread, &attr, start_thread, &s);
	if (!err) {
		while (sem_wait(&s.ready) < 0)
			;
		err = s.tid < 0 ? (int)-s.tid : 0;
	} else {
		free_place(s.t);
	}
	pthread_sigmask(SIG_SETMASK, &own, NULL);
	pthread_attr_destroy(&attr);
	sem_destroy(&s.ready);
	return err ? -err : s.tid;
}

void um_load_do_exit(struct um_load_thread *t, long status)
{
	uint64_t all = ~0ull;

	um_load_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, 0, sizeof(all), 0, 0);
	if (!t->main)
		um_load_leave(t);
	finish(t);
	for (;;)
		um_load_syscall(SYS_exit, status, 0, 0, 0, 0, 0);
}

/* ---- processes ---- */

bool um_load_foreign(void)
{
	return um_shim_foreign();
}

/* In a child that has a copy of our memory, and one thread. */
static void begin_child(struct um_load_thread *t)
{
	for (unsigned i = 0; i < PLACES; i++)
		atomic_store(&used[i], places + i * PLACE == (uint8_t *)t);
	t->main = true;
	um_load_signals_child();
	um_load_brk_child();
	um_load_near_child();
	um_load_arm(t);
}

static long fork_process(struct um_load_thread *t, ucontext_t *uc, long flags, uint64_t stack,
			 uint64_t ptid, uint64_t ctid, uint64_t tls)
{
	const long plain = CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID |
			   CSIGNAL | CLONE_VFORK | CLONE_SETTLS;
	long pid;

	if (!(flags & ~plain) && (flags & CSIGNAL) == SIGCHLD) {
		pid = fork(); /* with what libraries have asked for at a fork */
		if (pid < 0)
			return -errno;
	} else {
		pid = um_load_syscall(SYS_clone,
				      flags & ~(CLONE_SETTLS | CLONE_CHILD_SETTID |
						CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID),
				      0, 0, 0, 0, 0);
		if (pid < 0)
			return pid;
		if (!pid)
			um_shim_own();
	}
	if (pid) {
		if (flags & CLONE_PARENT_SETTID)
			store_tid(ptid, (int)pid);
		return pid;
	}
	begin_child(t);
	if (flags & CLONE_CHILD_SETTID)
		store_tid(ctid, getpid());
	t->clear_tid = flags & CLONE_CHILD_CLEARTID ? ctid : 0;
	if (flags & CLONE_SETTLS)
		t->program_fs = tls;
	if (stack)
		uc->uc_mcontext.gregs[REG_RSP] = (greg_t)stack;
	return 0;
}

struct vfork {
	struct um_load_thread *t;
	ucontext_t *uc;
	uint64_t stack;
};

/*
 * A child that shares our memory while its parent waits.  It has a place of its own, and goes on by returning from the
 * signal that the parent is in: with the parent's registers, but for three words, which the parent sets back.
 */
static void begin_vfork(void *arg)
{
	struct vfork *v = arg;
	greg_t *g = v->uc->uc_mcontext.gregs;

	um_load_syscall(SYS_arch_prctl, ARCH_SET_GS, (long)v->t, 0, 0, 0, 0);
	um_load_arm(v->t);
	g[REG_RAX] = 0;
	if (v->stack)
		g[REG_RSP] = (greg_t)v->stack;
	v->uc->uc_stack = v->t->altstack;
	sigaltstack(&v->t->altstack,
		    NULL); /* the frame's is not taken from a frame that lies on another */
	um_load_sigreturn(v->t, v->uc, (void *)um_load_near(um_load_stub_restorer));
}

static long vfork_process(struct um_load_thread *t, ucontext_t *uc, long flags, uint64_t stack,
			  uint64_t ptid, uint64_t ctid, uint64_t tls)
{
	stack_t altstack = uc->uc_stack;
	greg_t rsp = uc->uc_mcontext.gregs[REG_RSP];
	struct vfork v = { .t = take_place(), .uc = uc, .stack = stack };
	long pid;

	if (!v.t)
		return -EAGAIN;
	v.t->our_fs = t->our_fs;
	v.t->program_fs = flags & CLONE_SETTLS ? tls : t->program_fs;
	v.t->main = true;
	pid = um_load_clone(flags & ~CLONE_SETTLS, v.t->stack_top, (long)ptid, (long)ctid,
			    begin_vfork, &v);
	uc->uc_stack = altstack;
	uc->uc_mcontext.gregs[REG_RSP] = rsp;
	free_place(v.t);
	return pid;
}

long um_load_do_clone(struct um_load_thread *t, ucontext_t *uc, long flags, uint64_t stack,
		      uint64_t ptid, uint64_t ctid, uint64_t tls)
{
	const long thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

	if ((flags & thread) == thread && !(flags & CLONE_VFORK))
		return new_thread(t, uc, flags, stack, ptid, ctid, tls);
	if (flags & CLONE_THREAD)
		return -EINVAL;
	if ((flags & (CLONE_VM | CLONE_VFORK)) == (CLONE_VM | CLONE_VFORK))
		return vfork_process(t, uc, flags, stack, ptid, ctid, tls);
	if (flags & CLONE_VM)
		return -EINVAL;
	return fork_process(t, uc, flags, stack, ptid, ctid, tls);
}

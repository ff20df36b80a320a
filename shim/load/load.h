/* SPDX-License-Identifier: MIT */
/*
 * The supervisor: runs a program that the preload library cannot reach (a static executable, one for another C
 * library, one with system call instructions of its own) in a process where libumbra is.
 *
 * Its main program, umbra-load, is an ordinary dynamically linked program.  It maps the program's file, as the kernel
 * would (image.c), and jumps to its entry.  From then on each of the program's threads has two lives:
 *   - the program's: its registers, its stack, its thread-local storage.  Every system call instruction outside of our
 *     stubs raises SIGSYS, by the kernel's "syscall user dispatch" (Linux 5.11);
 *   - ours: the same kernel thread with a stack of its own and the thread-local storage of our C library, so that
 *     libumbra finds what it needs.
 * `selector`, a byte that the kernel reads at each system call, says which of the two it is.
 *
 *  1. A signal in the program's life is the program's: its handler runs at once.
 *  2. A signal in our life waits until the thread is back, and ends KVM_RUN (signal.c).
 *  3. What the program asks of /dev/kvm is answered here (syscalls.c); all else goes to the kernel, in the program's
 *     life, so that it may block and be interrupted.
 *  4. A system call site that has raised SIGSYS is rewritten to a jump, where that can be proven harmless (patch.c);
 *     so KVM_RUN costs no signal.
 */
#ifndef UM_SHIM_LOAD_LOAD_H
#define UM_SHIM_LOAD_LOAD_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <ucontext.h>

#include "load/offsets.h"

struct um_load_thread {
	struct um_load_thread *self;
	uint64_t our_fs, program_fs;
	uint64_t stack_top;
	uint64_t program_rsp;
	uint64_t mask;
	void *xsave;
	uint64_t exit_rsp;
	long (*fast_ioctl)(struct um_load_thread *t, long fd, long request, long arg);
	uint64_t altstack_low, kernel_low, kernel_size;
	void (*dispatched)(void);
	volatile uint8_t selector, deferred, fsgsbase, xsavec;
	/* not known to stubs.S */
	uint64_t clear_tid;   /* set_tid_address() of the program */
	uint64_t robust_list; /* set_robust_list() of the program */
	stack_t altstack;     /* ours */
	stack_t program_altstack; /* the kernel's in the program's life: the program's, or ours if it has none */
	bool main;		  /* the process's first, which our C library did not make */
};

/* What the kernel takes and tells of a signal's handler. */
struct um_load_sigaction {
	uint64_t handler, flags, restorer, mask;
};

/* ---- stubs.S ---- */

/*
 * The stubs' code is copied to where the program's image is (patch.c), because the kernel lets one range of addresses
 * pass, and a rewritten system call has to reach it by a jump of 32 bits.  These are offsets into the copy.
 */
extern const uint8_t um_load_stubs[], um_load_stubs_end[];
extern const uint8_t um_load_stub_pass[], um_load_stub_pass_mask[], um_load_stub_restorer[];
extern const uint8_t um_load_stub_mask[], um_load_stub_ioctl[];

void um_load_dispatched(void);

/* The kernel's handler of all signals that have one. */
void um_load_signal_entry(int sig, siginfo_t *si, void *uc);
/* Where um_load_signal_entry() and um_load_enter() find the copy of um_load_stub_mask. */
extern uint64_t um_load_mask_stub;

/*
 * Begin or go on with the program's life: registers from @gregs, FS base and signal mask from the thread.  Returns when
 * um_load_leave() is called, in the same thread.
 */
void um_load_enter(struct um_load_thread *t, const greg_t *gregs);
_Noreturn void um_load_leave(struct um_load_thread *t);
/* Return from a signal's frame: the thread goes on with what is in @uc, and the given FS base. */
_Noreturn void um_load_sigreturn(struct um_load_thread *t, ucontext_t *uc, const void *restorer);

/* A system call, here and now.  -errno if it fails. */
long um_load_syscall(long nr, long a, long b, long c, long d, long e, long f);
/* sigaltstack(2), also when we are on a signal stack: with signals blocked.  0 or -errno. */
long um_load_sigaltstack(const stack_t *ss);
/* clone(2) of a child that shares our memory and calls @fn(@arg) on its own stack. */
long um_load_clone(long flags, uint64_t stack, long ptid, long ctid, void (*fn)(void *), void *arg);

/* Copy between our memory and the program's, which may be wrong: the number of bytes not copied. */
size_t um_load_copy(void *dst, const void *src, size_t n);
/* Where that may fault, and where it goes on then. */
extern const uint8_t um_load_copy_insn[], um_load_copy_end[];

/* ---- C code that stubs.S calls, in our life ---- */

/* ioctl() from a rewritten site: the result, or PASS if it is not for us. */
#define UM_LOAD_PASS (-0x10000L)
long um_load_fast_ioctl(struct um_load_thread *t, long fd, long request, long arg);
/* A signal in the program's life.  The program's handler, to be called now, or 0: go on. */
uint64_t um_load_program_signal(struct um_load_thread *t, int sig, siginfo_t *si, ucontext_t *uc);
/* A signal in ours. */
void um_load_our_signal(struct um_load_thread *t, int sig, siginfo_t *si, ucontext_t *uc);

/* ---- thread.c ---- */

/* Reserve room for threads, and make the calling thread the program's first.  0 or -errno. */
int um_load_threads_init(struct um_load_thread **t);
/* From now on, system calls of the calling thread's program raise SIGSYS.  0 or -errno. */
int um_load_arm(struct um_load_thread *t);
struct um_load_thread *um_load_self(void);
/* clone(), fork() and vfork(): what the program gets in the parent; in a child it may not return. */
long um_load_do_clone(struct um_load_thread *t, ucontext_t *uc, long flags, uint64_t stack,
		      uint64_t ptid, uint64_t ctid, uint64_t tls);
/*
 * Our life begins, and ends, in a signal that has the program's signal stack to return to: in between, the kernel has
 * to use ours, where nothing is that could be overwritten.
 */
void um_load_take_altstack(struct um_load_thread *t);
void um_load_give_altstack(struct um_load_thread *t);
/* Make @ss the thread's signal stack in the program's life.  0 or -errno. */
long um_load_set_altstack(struct um_load_thread *t, const stack_t *ss);
/* exit(): of the thread. */
_Noreturn void um_load_do_exit(struct um_load_thread *t, long status);
void um_load_set_fs(struct um_load_thread *t, uint64_t base);
/* Is the calling thread in a child of vfork()? */
bool um_load_foreign(void);

/* ---- patch.c ---- */

/* Make the copy of the stubs near [@start, @end), the program's image.  0 or -errno. */
int um_load_near_init(uint64_t start, uint64_t end);
/* In a child of fork(): its copy is its own. */
void um_load_near_child(void);
/* The address in the copy of a stub. */
uint64_t um_load_near(const uint8_t *stub);
void um_load_near_range(uint64_t *start, uint64_t *size);
/* The system call instruction at @ip has raised SIGSYS, with number @nr; @pass: the kernel will always do it. */
void um_load_patch(uint64_t ip, long nr, bool pass);
/* SIGTRAP at @uc: is it from a site that is being rewritten?  Then go on behind it. */
bool um_load_patch_trap(ucontext_t *uc);

/* ---- image.c ---- */

struct um_load_image {
	uint64_t start, end; /* what the file takes */
	uint64_t bias;	     /* what is added to its addresses */
	uint64_t entry, phdr, phnum;
	uint64_t base; /* of the program's own loader, or 0 */
	uint64_t jump; /* where to begin: the loader's entry, or the program's */
};

/* Map the executable @path.  0 or -errno. */
int um_load_image(const char *path, struct um_load_image *img);
/* The words that the program finds on its stack: how many, and write them. */
size_t um_load_stack_words(char **argv, char **envp);
void um_load_stack_fill(uint64_t *words, char **argv, char **envp, const struct um_load_image *img,
			const char *path);
/* Is this code of the program, from its file? */
bool um_load_is_text(uint64_t start, uint64_t size);
/* brk(2). */
uint64_t um_load_brk(uint64_t want);
void um_load_brk_child(void);

/* ---- signal.c ---- */

int um_load_signals_init(void);
void um_load_signals_child(void);
long um_load_sigaction(int sig, uint64_t act, uint64_t old, size_t size);
/* Signal @n in a mask of the kernel; the signals that code of ours raises, and all others. */
#define UM_LOAD_BIT(n) (1ull << ((n)-1))
#define UM_LOAD_FAULTS                                                                            \
	(UM_LOAD_BIT(SIGSEGV) | UM_LOAD_BIT(SIGBUS) | UM_LOAD_BIT(SIGFPE) | UM_LOAD_BIT(SIGILL) | \
	 UM_LOAD_BIT(SIGTRAP) | UM_LOAD_BIT(SIGSYS))
#define UM_LOAD_ALL (~UM_LOAD_FAULTS)
/* What the program never gets blocked: without SIGSYS it could not call the kernel, and others are libumbra's. */
#define UM_LOAD_NEVER_MASKED UM_LOAD_FAULTS

/* ---- syscalls.c ---- */

/* The program's system call that is in @uc: its result, or where to go on, goes there. */
void um_load_dispatch(struct um_load_thread *t, ucontext_t *uc);
/* The program's file, for /proc/self/exe. */
void um_load_set_exe(const char *path);

#endif

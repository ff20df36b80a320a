/* SPDX-License-Identifier: MIT */
/*
 * umbra: the Linux KVM API, in process.
 *
 * The four functions take the place of open, ioctl, mmap and close on /dev/kvm and the descriptors
 * that come from it.  Requests, structures, capabilities, return values and errno are those of
 * <linux/kvm.h> and of the kernel's Documentation/virt/kvm/api.rst.
 *
 * Descriptors are real ones: they count against RLIMIT_NOFILE, close on exec, and are not reused
 * while open.  They must be closed with umbra_close().
 *
 * Environment read by umbra_open():
 *   UMBRA_ENGINE=jit|interp|lockstep  which engine runs guest code
 *   UMBRA_TRACE=CLASS[,CLASS...]  trace to standard error ("all", or classes of `umbra run --help`)
 *   UMBRA_MMU=shadow|tdp          shadow paging (default), or two-dimensional paging
 *   UMBRA_AUDIT=1                 check the shadow MMU's invariants after every step (slow), and say
 *                                 what was found when the VM ends
 *   UMBRA_CODE_CACHE=SIZE         bound of translated code in the process (64M)
 *   UMBRA_DUMP_CODE, UMBRA_DUMP_PASSES, UMBRA_DUMP_RANGE, UMBRA_PERF
 *                                 as the options of `umbra run` with these names: umbra(1)
 *   UMBRA_HOST_MASK=F[,F...]      features of the host's processor (avx2, bmi2) that are not used, nor
 *                                 offered to guests
 */
#ifndef UMBRA_H
#define UMBRA_H

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UMBRA_EXPORT __attribute__((visibility("default")))

/*
 * Open the system descriptor (what open("/dev/kvm") gives).
 * Returns a descriptor, or -1 with errno: EMFILE, ENOMEM; EINVAL if an environment variable above
 * has a value that is not understood (a message says which).
 */
UMBRA_EXPORT int umbra_open(void);

/*
 * An ioctl on a system, VM, vCPU or device descriptor.  @arg is the pointer or the integer that the
 * request takes.  Returns what the kernel returns: >= 0, or -1 with errno (EBADF if @fd is not ours).
 */
UMBRA_EXPORT int umbra_ioctl(int fd, unsigned long request, void *arg);

/*
 * Map a vCPU's descriptor (struct kvm_run and the pages behind it), as mmap(2).
 * Returns MAP_FAILED with errno on error.  Undo with munmap(2).
 */
UMBRA_EXPORT void *umbra_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);

/* Close a descriptor.  A VM lives until its own descriptor and those of its vCPUs are closed. */
UMBRA_EXPORT int umbra_close(int fd);

/*
 * Signals.  In the kernel a signal ends KVM_RUN with EINTR, and its handler runs after that.  Here KVM_RUN is
 * a function, which a handler interrupts like any other.  A handler that wants KVM_RUN to return calls
 * umbra_interrupt(), or sets immediate_exit in struct kvm_run.
 *
 * umbra_interrupt() is async-signal-safe and keeps errno.  It returns 1 if the calling thread is inside a
 * function of this library: if that is KVM_RUN, it returns soon, with EINTR unless it has an exit to
 * report; until then the handler must not call the library, nor jump out.  It returns 0 and does nothing if
 * the thread is elsewhere.
 */
UMBRA_EXPORT int umbra_interrupt(void);

/*
 * umbra_enter() and umbra_leave() make what stands between them one function of this library, as seen by
 * umbra_interrupt(): the next KVM_RUN between them knows of an interrupt that came since umbra_enter().  They nest,
 * belong to the calling thread, and are async-signal-safe.
 */
UMBRA_EXPORT void umbra_enter(void);
UMBRA_EXPORT void umbra_leave(void);

/*
 * KVM_RUN of the vCPU @fd returns with EINTR, in whichever thread it is; if it is in none, the next one does.
 * 0, or -1 with errno: EBADF (@fd is not ours), EINVAL (not a vCPU).
 */
UMBRA_EXPORT int umbra_interrupt_vcpu(int fd);

/*
 * The library handles SIGSEGV, SIGBUS and SIGFPE from the first umbra_open() on, and passes on those that
 * are not its own.  A program that wants handlers for these signals after that must use this function, which
 * is as sigaction(2) and changes or tells to whom they are passed on.  For other signals it is sigaction(2).
 */
UMBRA_EXPORT int umbra_sigaction(int sig, const struct sigaction *act, struct sigaction *oldact);

/*
 * For programs that handle descriptors on behalf of others, like the preload library.
 *
 * umbra_kind: which kind of descriptor @fd is, UMBRA_KIND_NONE (0) if it is not ours.  Fast, and
 *	async-signal-safe.
 * umbra_next: the lowest descriptor of ours that is not below @fd, or -1.
 * umbra_dup: @newfd, which the caller has made a duplicate of @fd by dup(2) or its like, is a descriptor of
 *	the same object from now on.  What @newfd stood for before is forgotten.  0, or -1 with errno: EBADF
 *	(@fd is not ours), ENFILE, ENOMEM.
 * umbra_forget: @fd is about to be closed by other means, or was replaced by dup2(2): like umbra_close(), but
 *	leaves the descriptor itself alone.
 *
 * umbra_adopt: @fd came here from another process (SCM_RIGHTS), or was inherited over exec().  If it was made by this
 *	library there, it is a descriptor of it here too.  Returns its kind, UMBRA_KIND_NONE if it is something
 *	else, or -1 with errno: ENFILE, ENOMEM, EINVAL (see umbra_open).
 *
 * A system descriptor that was adopted is as good as one that was opened.  With VMs and vCPUs of another process, and
 * in a child of fork() with those of the parent, requests fail with EIO, as KVM's do.
 */
#define UMBRA_KIND_NONE	  0
#define UMBRA_KIND_SYSTEM 1
#define UMBRA_KIND_VM	  2
#define UMBRA_KIND_VCPU	  3

UMBRA_EXPORT int umbra_kind(int fd);
UMBRA_EXPORT int umbra_next(int fd);
UMBRA_EXPORT int umbra_dup(int fd, int newfd);
UMBRA_EXPORT int umbra_forget(int fd);
UMBRA_EXPORT int umbra_adopt(int fd);

/* The version, "MAJOR.MINOR.PATCH". */
UMBRA_EXPORT const char *umbra_version(void);

#ifdef __cplusplus
}
#endif
#endif

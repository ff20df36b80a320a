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
 *   UMBRA_ENGINE=interp|auto      which engine runs guest code
 *   UMBRA_TRACE=CLASS[,CLASS...]  trace to standard error ("all", or classes of `umbra run --help`)
 *   UMBRA_MMU=shadow|tdp          shadow paging (default), or two-dimensional paging
 *   UMBRA_AUDIT=1                 check the shadow MMU's invariants after every step (slow), and say
 *                                 what was found when the VM ends
 */
#ifndef UMBRA_H
#define UMBRA_H

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

/* The version, "MAJOR.MINOR.PATCH". */
UMBRA_EXPORT const char *umbra_version(void);

#ifdef __cplusplus
}
#endif
#endif

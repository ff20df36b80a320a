/* SPDX-License-Identifier: MIT */
/*
 * Where the KVM API comes from: four functions.  Everything else in this folder calls KVM through
 * such a table and cannot tell libumbra from the kernel (nor from the fake one of the unit tests).
 */
#ifndef VMM_ACCEL_H
#define VMM_ACCEL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct accel {
	const char *name;
	int (*open)(void);					/* /dev/kvm */
	int (*ioctl)(int fd, unsigned long request, void *arg); /* -1 and errno on error */
	void *(*mmap)(void *, size_t, int prot, int flags, int fd, off_t); /* a vCPU's kvm_run */
	int (*close)(int fd);
};

enum accel_choice { ACCEL_AUTO, ACCEL_SOFT, ACCEL_HOST };

/* libumbra, and the host's /dev/kvm. */
extern const struct accel accel_soft;
extern const struct accel accel_host;

/*
 * The table for @choice.  ACCEL_AUTO is the host's KVM if it can run guests (accel_host_usable()),
 * else libumbra.  With @verbose a message says which was picked and why.
 */
const struct accel *accel_pick(enum accel_choice choice, bool verbose);

/*
 * Can the host's KVM run guests?  The CPU must have VMX or SVM (else /dev/kvm is not even opened),
 * and KVM_CREATE_VM must work.  *@why is set to a phrase that tells what decided.
 */
bool accel_host_usable(const char **why);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Filters of system calls that a program puts on itself know what the program calls, not what KVM_RUN needs when it is a
 * function: timers, futexes, memory.  A filter that the program installs is widened: in front of it stands that
 * calls from the code of this library pass.
 *
 * In a supervised process the library's code is everything that the dynamic loader has loaded, since the program is not
 * part of that; under the preload library it is libumbra and the preload library, not the C library, which is the
 * program's too.  Returning from a signal and setting a signal mask pass from everywhere, in a
 * supervised process also setting FS base.
 */
#ifndef UM_SHIM_SECCOMP_H
#define UM_SHIM_SECCOMP_H

#include <linux/filter.h>

struct um_seccomp_filter {
	struct sock_fprog prog;
};

/* @f: @prog with that in front.  0, -ENOMEM, or -EINVAL if it gets too long. */
int um_seccomp_widen(struct um_seccomp_filter *f, const struct sock_fprog *prog);
void um_seccomp_free(struct um_seccomp_filter *f);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Descriptors: which of the process's file descriptors are ours, and what they stand for.
 *
 * Each is a real descriptor (a memfd), so the number is taken, counts against RLIMIT_NOFILE, and closes on
 * exec.  This table says what is behind it.  It is state of the process by nature, and the only such state
 * of this folder but for the measured frequency of the TSC (host.c).
 */
#ifndef UM_API_HANDLE_H
#define UM_API_HANDLE_H

#include "base/types.h"

enum um_handle_kind { UM_HANDLE_SYSTEM, UM_HANDLE_VM, UM_HANDLE_VCPU };

/* What is behind a descriptor: @release is called with @obj when nobody uses it any more. */
struct um_handle {
	enum um_handle_kind kind;
	void *obj;
	void (*release)(void *obj);
};

/*
 * Make descriptor @fd stand for @h; from then on it belongs to the table.  Returns @fd, or -ENFILE (a
 * number out of range) or -ENOMEM; then @fd is closed, and @h->obj is still the caller's.
 */
int um_handle_install(int fd, const struct um_handle *h);

/* Use and end of use.  get: false if @fd is not ours; else *@h is valid until put. */
bool um_handle_get(int fd, struct um_handle *h);
void um_handle_put(int fd);

/* umbra_close(): 0 or -EBADF.  Object and number are released when the last user is done. */
int um_handle_close(int fd);

#endif

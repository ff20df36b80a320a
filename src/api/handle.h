/* SPDX-License-Identifier: MIT */
/*
 * Descriptors: which of the process's file descriptors are ours, and what they stand for.
 *
 * Each is a real descriptor (a memfd), so the number is taken, counts against RLIMIT_NOFILE, and closes on
 * exec.  As in the kernel, several descriptors can stand for one object (um_handle_dup), and the object
 * lives until the last of them is closed and the last call that uses it has returned.
 *
 * After fork() the child has the descriptors but not the threads and the memory behind VMs: there they are
 * marked dead, can be closed, and nothing behind them is touched.
 *
 * The table is state of the process by nature, and the only such state of this folder but for the measured
 * frequency of the TSC (host.c) and what each thread is doing (thread.c).
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
	bool foreign; /* of another process's: @obj is NULL, and nothing can be done with it */
	/* Set by um_handle_get() */
	struct um_file *file;
	bool dead; /* from the parent of this process, and of no use here */
};

/*
 * Make descriptor @fd stand for @h; from then on it belongs to the table.  Returns @fd, or -ENFILE (a
 * number out of range) or -ENOMEM; then @fd is closed, and @h->obj is still the caller's.
 */
int um_handle_install(int fd, const struct um_handle *h);

/* The same for a descriptor that stays the caller's if that fails.  0, -ENFILE or -ENOMEM. */
int um_handle_adopt(int fd, const struct um_handle *h);

/* Use and end of use.  get: false if @fd is not ours; else *@h is valid until put. */
bool um_handle_get(int fd, struct um_handle *h);
void um_handle_put(const struct um_handle *h);

/* umbra_close(): 0 or -EBADF. */
int um_handle_close(int fd);
/* The same, without closing the descriptor itself. */
int um_handle_forget(int fd);

/*
 * Make @newfd, which the caller has made a duplicate of @fd, stand for what @fd stands for.  If it stood
 * for something else, that is forgotten.  0, -EBADF (@fd is not ours), -ENFILE or -ENOMEM.
 */
int um_handle_dup(int fd, int newfd);

/* The kind of @fd, or -1 if it is not ours.  Async-signal-safe; nothing is held. */
int um_handle_kind(int fd);

/* The lowest of our descriptors that is not below @fd, or -1. */
int um_handle_next(int fd);

#endif

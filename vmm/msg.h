/* SPDX-License-Identifier: MIT */
/*
 * Messages of the umbra program to its user: one line each on standard error, "umbra: " in front.
 *
 * Whoever finds a problem says so here, where the details are known, and returns a negative errno;
 * callers pass the number on and add nothing.
 */
#ifndef VMM_MSG_H
#define VMM_MSG_H

void msg(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same, and return -@err, so that `return msg_err(EINVAL, "...")` reads well. */
int msg_err(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif

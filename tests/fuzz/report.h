/* SPDX-License-Identifier: MIT */
/*
 * How a fuzzer tells of what it finds: whatever ends the process, the run's seed is the last line.
 *
 * Standard error is a file in memory meanwhile, since what the library logs is a verdict too.
 */
#ifndef FUZZ_REPORT_H
#define FUZZ_REPORT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Call first in main(), before the library installs its handlers.  @name is the program's. */
void report_init(const char *name);
/* The run that is on: how to repeat it. */
void report_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A line on the real standard error. */
void report_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A property does not hold: say so, and end the process with status 1. */
void report_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* The same for a thread that does not come back: shows where it is. */
void report_hang(pthread_t thread, const char *what) __attribute__((noreturn));
/*
 * Look at what the library logged since the last call.  A guest may bring about this only: that it
 * fetches instructions from a device, or has an event or task switch go through one.  Fails on all
 * others, such as what the MMU's auditor says.  Returns the number of lines.
 */
unsigned report_log(void);

#endif

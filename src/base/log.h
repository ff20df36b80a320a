/* SPDX-License-Identifier: MIT */
/*
 * Messages to the person who runs the VMM.  One line each, to standard error, prefixed "umbra: ".
 * For conditions that a user can act on; events inside a VM go to base/trace.h.
 */
#ifndef UM_BASE_LOG_H
#define UM_BASE_LOG_H

#include <stdarg.h>

void um_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * Write @start (less than 1000 bytes), @fmt and a newline to @fd, cut at 1 KiB: by one write(2),
 * so that lines of several threads do not mix.
 */
void um_write_line(int fd, const char *start, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

#endif

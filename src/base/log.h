/* SPDX-License-Identifier: MIT */
/*
 * Messages to the person who runs the VMM.  One line each, to standard error, prefixed "umbra: ".
 * For conditions that a user can act on; events inside a VM go to base/trace.h.
 */
#ifndef UM_BASE_LOG_H
#define UM_BASE_LOG_H

void um_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif

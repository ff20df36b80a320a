/* SPDX-License-Identifier: MIT */
/* `umbra exec`: run a program that was written for /dev/kvm. */
#ifndef UM_VMM_EXEC_H
#define UM_VMM_EXEC_H

#include <stdbool.h>

int cmd_exec(int argc, char **argv);

/*
 * The preload library's file, in @path of PATH_MAX bytes: beside this program in its build tree, or where
 * libraries were installed.  False, with a message, if it is in none of these places.
 */
bool exec_find_preload(char *path, bool verbose);

/* The same for the supervisor of static executables; no message. */
bool exec_find_loader(char *path);

#endif

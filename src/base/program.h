/* SPDX-License-Identifier: MIT */
/*
 * Executables: which of them a preloaded library reaches, and which need the supervisor (shim/load/).  For `umbra exec`
 * and for the libraries that it puts into programs.  Memory comes from the stack: callers may be children of vfork().
 */
#ifndef UM_BASE_PROGRAM_H
#define UM_BASE_PROGRAM_H

#include <stdbool.h>

enum um_program {
	UM_PROGRAM_DYNAMIC, /* started by this C library's dynamic loader, which takes preloads */
	UM_PROGRAM_SUPERVISED, /* static, for another C library, or made by Go */
	UM_PROGRAM_FOREIGN,    /* not for x86-64 */
	UM_PROGRAM_PRIVILEGED, /* changes its user or group when it is run */
	UM_PROGRAM_SCRIPT,     /* names its interpreter */
	UM_PROGRAM_UNKNOWN,    /* not readable, or something else */
};

/*
 * What the file @path is.  For a script, *@path is overwritten by its interpreter's path, and @arg by the argument
 * that the first line gives it ("" if none); both have PATH_MAX bytes.
 */
enum um_program um_program_of(char *path, char *arg);

/* The same, of what runs in the end: the interpreter's kind for a script. */
enum um_program um_program_in_the_end(const char *path);

/* Look for @name as execvp(3) does, with the given value of PATH or NULL.  0 and @path of PATH_MAX bytes, or errno. */
int um_program_find(const char *name, const char *dirs, char *path);

#endif

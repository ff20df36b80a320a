/* SPDX-License-Identifier: MIT */
/* The command line of `umbra run`. */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include "accel.h"
#include "base/jit_options.h"
#include "base/types.h"

#define MAX_DISKS 24
#define MAX_CPUS  254 /* APIC ids that a local APIC entry of the MADT can say */

struct disk_option {
	char *path;
	bool read_only;
};

struct run_options {
	const char *kernel, *initrd;
	const char *append; /* never NULL after parsing */
	u64 mem;	    /* bytes */
	unsigned cpus;
	struct disk_option disk[MAX_DISKS];
	unsigned ndisks;
	enum accel_choice accel;
	const char *engine, *trace;	 /* NULL: as the environment says */
	const char *jit[UM_JIT_OPT_MAX]; /* likewise */
	bool virtio_console;		 /* input goes to virtio-console, not to the serial port */
	bool smm;			 /* memory in the address space of system-management mode */
	bool debug_exit;
	bool verbose;
};

enum options_result { OPTIONS_OK, OPTIONS_HELP, OPTIONS_BAD };

/*
 * Parse the arguments of `umbra run` (argv[0] is "run").  OPTIONS_BAD comes after a message,
 * OPTIONS_HELP after printing the help.  Free with options_free() in any case.
 */
enum options_result options_parse(struct run_options *o, int argc, char **argv);
void options_free(struct run_options *o);

/*
 * Are these classes of base/trace.h?  A message and false if not.  The library parses them again, from the
 * environment.
 */
bool options_check_trace(const char *list);

/*
 * The options of base/jit_options.h: for getopt_long(), behind another option, by numbers from OPT_JIT.
 * options_check_jit() has a message and false for what is no value; options_set_jit() puts them into the environment, 0 or -1
 * and errno.
 */
enum { OPT_JIT = 512 };
#define OPTION_JIT(name, env, option, argument)                                \
	,                                                                      \
	{                                                                      \
		option, argument##_argument, NULL, OPT_JIT + UM_JIT_OPT_##name \
	}
#define OPTIONS_JIT UM_JIT_OPTIONS(OPTION_JIT)
bool options_check_jit(int c, const char *arg, const char *values[UM_JIT_OPT_MAX]);
int options_set_jit(const char *const values[UM_JIT_OPT_MAX]);

#endif

/* SPDX-License-Identifier: MIT */
/* What the fuzzers are told, and for how long they go on. */
#ifndef FUZZ_OPTIONS_H
#define FUZZ_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct fuzz_options {
	const char *program;
	/* Of the first run; the next ones follow. */
	unsigned long seed;
	/* Whichever is over first; without either, one run. */
	unsigned long runs, seconds;
	/* How long a run is: the option's name, and its default. */
	const char *length_name;
	unsigned long length;
	/* An option without a value; NULL: the program has none. */
	const char *flag_name;
	bool flag;

	unsigned long done; /* runs */
	double start;
};

/*
 * Take up the command line.  @o has the program's names and defaults, and is zero otherwise.  Ends
 * the process with status 2 if something is wrong with it.
 */
void fuzz_options_init(struct fuzz_options *o, int argc, char **argv);
/* Is there another run to do?  Then @o->done are done, and fuzz_options_seed() is its seed. */
bool fuzz_options_more(const struct fuzz_options *o);
/* Seconds since the start. */
double fuzz_options_elapsed(const struct fuzz_options *o);

static inline unsigned long fuzz_options_seed(const struct fuzz_options *o)
{
	return o->seed + o->done;
}

#endif

// SPDX-License-Identifier: MIT
/* options.h */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static __attribute__((noreturn)) void usage(const struct fuzz_options *o)
{
	fprintf(stderr, "usage: %s [--seed N] [--runs N] [--seconds N] [%s N]", o->program,
		o->length_name);
	if (o->flag_name)
		fprintf(stderr, " [%s]", o->flag_name);
	fprintf(stderr, "\n");
	exit(2);
}

/* Where the value of option @name goes; NULL: there is no such option. */
static unsigned long *find(struct fuzz_options *o, const char *name)
{
	if (!strcmp(name, "--seed"))
		return &o->seed;
	if (!strcmp(name, "--runs"))
		return &o->runs;
	if (!strcmp(name, "--seconds"))
		return &o->seconds;
	return strcmp(name, o->length_name) ? NULL : &o->length;
}

void fuzz_options_init(struct fuzz_options *o, int argc, char **argv)
{
	o->seed = 1;
	o->runs = ~0ul;
	for (int i = 1; i < argc; i++) {
		unsigned long *value;

		if (o->flag_name && !strcmp(argv[i], o->flag_name)) {
			o->flag = true;
			continue;
		}
		value = find(o, argv[i]);
		if (!value || ++i == argc)
			usage(o);
		*value = strtoul(argv[i], NULL, 0);
	}
	if (o->runs == ~0ul && !o->seconds)
		o->runs = 1;
	o->start = now();
}

bool fuzz_options_more(const struct fuzz_options *o)
{
	return o->done < o->runs && (!o->seconds || fuzz_options_elapsed(o) < (double)o->seconds);
}

double fuzz_options_elapsed(const struct fuzz_options *o)
{
	return now() - o->start;
}

// SPDX-License-Identifier: MIT
/*
 * `umbra exec -- CMD...`: put the preload library into the environment, and become the program.
 *
 * The preload reaches programs that the dynamic loader starts.  For static executables, and those of another C library,
 * umbra-load takes the loader's place (shim/load/).  Others (set-user-ID ones) would run without either, and
 * find the host's /dev/kvm or none: they are refused before they start.
 */
#include "exec.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accel.h"
#include "base/bits.h"
#include "base/program.h"
#include "base/types.h"
#include "msg.h"
#include "options.h"

#define PRELOAD_FILE "libumbra-preload.so"
#define LOADER_FILE  "umbra-load"
#define EXIT_USAGE   2
#define EXIT_NOEXEC  126 /* as in the shell: found, but cannot be run */
#define EXIT_NOTHERE 127

static const char help[] =
	"Usage: umbra exec [OPTION]... [--] COMMAND [ARGUMENT]...\n"
	"Run a program that uses /dev/kvm, with or without virtualization hardware.\n"
	"\n"
	"  --accel ACCEL    soft: umbra's engine; host: the host's /dev/kvm; auto (default): host "
	"if\n"
	"                   it works\n"
	"  --engine ENGINE  what runs guest code: jit (default), interp, lockstep\n"
	"  --supervise      for a program with system call instructions of its own: catch them\n"
	"                   (static executables and Go programs need no option)\n"
	"  --trace LIST     trace events to standard error; see `umbra run --help`\n"
	"  --dump-code[=FILE], --dump-passes LIST, --dump-range FIRST-LAST, --perf KIND,\n"
	"  --code-cache SIZE, --jit-threshold N\n"
	"                   about translated code; see `umbra run --help`\n"
	"  -v, --verbose    say what is picked\n"
	"  -h, --help       this text\n"
	"\n"
	"The program and those that it starts find a /dev/kvm, whether or not the host has one.\n"
	"\n"
	"Exit status: the program's; 2 for errors of usage, and if the program cannot run this "
	"way;\n"
	"126 if it cannot be run at all, 127 if it is not found.\n";

enum { OPT_ACCEL = 256, OPT_ENGINE, OPT_SUPERVISE, OPT_TRACE };

static const struct option longopts[] = {
	{ "accel", required_argument, NULL, OPT_ACCEL },
	{ "engine", required_argument, NULL, OPT_ENGINE },
	{ "supervise", no_argument, NULL, OPT_SUPERVISE },
	{ "trace", required_argument, NULL, OPT_TRACE } OPTIONS_JIT,
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

struct exec_options {
	enum accel_choice accel;
	const char *engine, *trace;
	const char *jit[UM_JIT_OPT_MAX];
	bool verbose, supervise;
};

/* ---- the library ---- */

/* From the directory of this program: an installation, a build tree, both in one place. */
static bool find_beside(const char *const *places, size_t n, char *path)
{
	char self[PATH_MAX], candidate[2 * PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len <= 0)
		return false;
	self[len] = 0;
	*strrchr(self, '/') = 0;
	for (size_t i = 0; i < n; i++) {
		snprintf(candidate, sizeof(candidate), "%s/%s", self, places[i]);
		if (realpath(candidate, path))
			return true;
	}
	return false;
}

bool exec_find_preload(char *path, bool verbose)
{
	static const char *const places[] = {
		"../lib/x86_64-linux-gnu/" PRELOAD_FILE,
		"../lib64/" PRELOAD_FILE,
		"../lib/" PRELOAD_FILE,
		"../shim/" PRELOAD_FILE,
		PRELOAD_FILE,
	};

	if (find_beside(places, ARRAY_SIZE(places), path) ||
	    realpath(UMBRA_LIBDIR "/" PRELOAD_FILE, path))
		return true;
	if (verbose)
		msg("%s is neither beside this program nor in %s", PRELOAD_FILE, UMBRA_LIBDIR);
	return false;
}

bool exec_find_loader(char *path)
{
	static const char *const places[] = {
		"../libexec/umbra/" LOADER_FILE,
		"../shim/" LOADER_FILE,
		LOADER_FILE,
	};

	return find_beside(places, ARRAY_SIZE(places), path) ||
	       realpath(UMBRA_LIBEXECDIR "/" LOADER_FILE, path);
}

/* ---- the program ---- */

/*
 * 0, or the exit status, with a message.  @path of PATH_MAX bytes: the program's file.  *@supervised: whether it should be
 * supervised if it can be reached otherwise, and then whether it will be.
 */
static int check_program(const char *name, char *path, bool *supervised)
{
	int err = um_program_find(name, getenv("PATH"), path);
	enum um_program kind;

	if (err) {
		msg("%s: %s", name, strerror(err));
		return err == ENOENT ? EXIT_NOTHERE : EXIT_NOEXEC;
	}
	kind = um_program_in_the_end(path);
	*supervised = kind == UM_PROGRAM_SUPERVISED || (*supervised && kind == UM_PROGRAM_DYNAMIC);
	switch (kind) {
	case UM_PROGRAM_FOREIGN:
		msg("%s is not an x86-64 program", path);
		return EXIT_USAGE;
	case UM_PROGRAM_PRIVILEGED:
		msg("%s changes its user or group when it is run: the dynamic loader ignores "
		    "LD_PRELOAD then",
		    path);
		return EXIT_USAGE;
	default:
		return 0;
	}
}

/* Become @path under the supervisor: umbra-load FILE NAME [ARGUMENT]... */
static void exec_loader(const char *loader, char *path, char **argv)
{
	size_t n = 0;
	char **v;

	while (argv[n])
		n++;
	v = calloc(n + 3, sizeof(*v));
	if (!v)
		return;
	v[0] = (char *)loader;
	v[1] = path;
	memcpy(v + 2, argv, n * sizeof(*argv));
	execv(loader, v);
	free(v);
}

/* ---- the command ---- */

/*
 * UMBRA_PRELOAD and UMBRA_LOADER tell where both are, for the programs that the program starts.  umbra-load itself takes
 * no preloads: what was in LD_PRELOAD is in UMBRA_LD_PRELOAD for it.
 */
static int set_environment(const char *preload, const char *loader, bool supervised,
			   const struct exec_options *o)
{
	const char *others = getenv("LD_PRELOAD");
	char *value;
	int r;

	if (strpbrk(preload, ": ")) {
		msg("%s: the dynamic loader takes no names with colons or spaces", preload);
		return -1;
	}
	if (others && strstr(others, preload)) /* umbra exec umbra exec ... */
		value = strdup(others);
	else if (asprintf(&value, "%s%s%s", preload, others && *others ? ":" : "",
			  others ? others : "") < 0)
		value = NULL;
	if (!value)
		return msg_err(ENOMEM, "no memory"), -1;
	r = setenv(supervised ? "UMBRA_LD_PRELOAD" : "LD_PRELOAD", value, 1);
	free(value);
	if (!r && supervised)
		r = unsetenv("LD_PRELOAD");
	if (!r)
		r = setenv("UMBRA_PRELOAD", preload, 1);
	if (!r && o->supervise)
		r = setenv("UMBRA_SUPERVISE", "1", 1);
	if (!r && *loader)
		r = setenv("UMBRA_LOADER", loader, 1);
	if (!r && o->engine)
		r = setenv("UMBRA_ENGINE", o->engine, 1);
	if (!r && o->trace)
		r = setenv("UMBRA_TRACE", o->trace, 1);
	if (!r)
		r = options_set_jit(o->jit);
	if (r < 0)
		msg("environment: %s", strerror(errno));
	return r;
}

static int parse_accel(const char *word, enum accel_choice *a)
{
	if (!strcmp(word, "auto"))
		*a = ACCEL_AUTO;
	else if (!strcmp(word, "soft"))
		*a = ACCEL_SOFT;
	else if (!strcmp(word, "host"))
		*a = ACCEL_HOST;
	else
		return -1;
	return 0;
}

/* 1: go on; else the exit status is *status. */
static int parse(struct exec_options *o, int argc, char **argv, int *status)
{
	int c;

	*o = (struct exec_options){ .accel = ACCEL_AUTO };
	*status = EXIT_USAGE;
	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:hv", longopts, NULL)) != -1) {
		switch (c) {
		case OPT_ACCEL:
			if (parse_accel(optarg, &o->accel) < 0) {
				msg("--accel: '%s' is unknown; see `umbra exec --help`", optarg);
				return 0;
			}
			break;
		case OPT_ENGINE:
			if (strcmp(optarg, "interp") && strcmp(optarg, "jit") &&
			    strcmp(optarg, "lockstep") && strcmp(optarg, "auto")) {
				msg("--engine: '%s' is unknown; see `umbra exec --help`", optarg);
				return 0;
			}
			o->engine = optarg;
			break;
		case OPT_SUPERVISE:
			o->supervise = true;
			break;
		case OPT_TRACE:
			if (!options_check_trace(optarg))
				return 0;
			o->trace = optarg;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'h':
			printf("%s", help);
			*status = 0;
			return 0;
		case ':':
			msg("%s: an argument is missing", argv[optind - 1]);
			return 0;
		case '?':
			msg("%s: no such option; see `umbra exec --help`", argv[optind - 1]);
			return 0;
		default:
			if (!options_check_jit(c, optarg, o->jit))
				return 0;
			break;
		}
	}
	if (optind == argc) {
		msg("no command; see `umbra exec --help`");
		return 0;
	}
	return 1;
}

int cmd_exec(int argc, char **argv)
{
	struct exec_options o;
	char preload[PATH_MAX], loader[PATH_MAX], path[PATH_MAX];
	bool supervised;
	int status;

	if (!parse(&o, argc, argv, &status))
		return status;
	argv += optind;
	if (accel_pick(o.accel, o.verbose) == &accel_soft) {
		if (!exec_find_preload(preload, true))
			return EXIT_USAGE;
		supervised = o.supervise;
		status = check_program(argv[0], path, &supervised);
		if (status)
			return status;
		if (!exec_find_loader(loader))
			*loader = 0;
		if (supervised && !*loader) {
			msg("%s is a static executable, or one for another C library, and %s, "
			    "which "
			    "such programs need, is neither beside this program nor in %s",
			    path, LOADER_FILE, UMBRA_LIBEXECDIR);
			return EXIT_USAGE;
		}
		if (set_environment(preload, loader, supervised, &o) < 0)
			return EXIT_USAGE;
		if (supervised)
			exec_loader(loader, path, argv);
	}
	execvp(argv[0], argv);
	status = errno == ENOENT ? EXIT_NOTHERE : EXIT_NOEXEC;
	msg("%s: %s", argv[0], strerror(errno));
	return status;
}

// SPDX-License-Identifier: MIT
/*
 * `umbra exec -- CMD...`: put the preload library into the environment, and become the program.
 *
 * The preload reaches programs that the dynamic loader starts.  For static executables, and those of another C library,
 * umbra-load takes the loader's place (shim/load/).  Others (set-user-ID ones) would run without either, and
 * find the host's /dev/kvm or none: they are refused before they start.
 */
#include "exec.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accel.h"
#include "base/bits.h"
#include "base/types.h"
#include "msg.h"
#include "options.h"

#define PRELOAD_FILE "libumbra-preload.so"
#define MAX_SCRIPTS  4 /* interpreters of interpreters, as in the kernel */
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
	"  --engine ENGINE  what runs guest code: interp, jit, auto (default)\n"
	"  --trace LIST     trace events to standard error; see `umbra run --help`\n"
	"  -v, --verbose    say what is picked\n"
	"  -h, --help       this text\n"
	"\n"
	"The program and those that it starts find a /dev/kvm, whether or not the host has one.\n"
	"\n"
	"Exit status: the program's; 2 for errors of usage, and if the program cannot run this "
	"way;\n"
	"126 if it cannot be run at all, 127 if it is not found.\n";

enum { OPT_ACCEL = 256, OPT_ENGINE, OPT_TRACE };

static const struct option longopts[] = {
	{ "accel", required_argument, NULL, OPT_ACCEL },
	{ "engine", required_argument, NULL, OPT_ENGINE },
	{ "trace", required_argument, NULL, OPT_TRACE },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

struct exec_options {
	enum accel_choice accel;
	const char *engine, *trace;
	bool verbose;
};

/* ---- the library ---- */

bool exec_find_preload(char *path, bool verbose)
{
	/* From the directory of this program: an installation, a build tree, both in one place. */
	static const char *const places[] = {
		"../lib/x86_64-linux-gnu/" PRELOAD_FILE,
		"../lib64/" PRELOAD_FILE,
		"../lib/" PRELOAD_FILE,
		"../shim/" PRELOAD_FILE,
		PRELOAD_FILE,
	};
	char self[PATH_MAX], candidate[2 * PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = 0;
		*strrchr(self, '/') = 0;
		for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
			snprintf(candidate, sizeof(candidate), "%s/%s", self, places[i]);
			if (realpath(candidate, path))
				return true;
		}
	}
	if (realpath(UMBRA_LIBDIR "/" PRELOAD_FILE, path))
		return true;
	if (verbose)
		msg("%s is neither beside this program nor in %s", PRELOAD_FILE, UMBRA_LIBDIR);
	return false;
}

/* ---- the program ---- */

/* As execvp(3) finds it.  0 or errno. */
static int find_program(const char *name, char *path)
{
	const char *dirs = getenv("PATH");
	int err = ENOENT;

	if (strchr(name, '/')) {
		if (snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
			return ENAMETOOLONG;
		return access(path, X_OK) < 0 ? errno : 0;
	}
	for (dirs = dirs ? dirs : "/usr/local/bin:/usr/bin:/bin"; *name;) {
		size_t len = strcspn(dirs, ":");
		struct stat st;

		if (snprintf(path, PATH_MAX, "%.*s%s%s", (int)len, dirs, len ? "/" : "", name) <
			    PATH_MAX &&
		    stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			if (access(path, X_OK) == 0)
				return 0;
			err = EACCES;
		}
		if (!dirs[len])
			break;
		dirs += len + 1;
	}
	return err;
}

enum reach { REACHED, SUPERVISED, FOREIGN, PRIVILEGED, SCRIPT, UNKNOWN };

/* Does the ELF file's program header table ask for this system's dynamic loader? */
static enum reach elf_reach(int fd, const Elf64_Ehdr *e)
{
	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_machine != EM_X86_64)
		return FOREIGN;
	for (unsigned i = 0; i < e->e_phnum; i++) {
		Elf64_Phdr p;

		if (pread(fd, &p, sizeof(p), (off_t)(e->e_phoff + i * sizeof(p))) != sizeof(p))
			return UNKNOWN;
		if (p.p_type == PT_INTERP)
			return REACHED;
	}
	return STATIC;
}

/* Will the loader put the preload into @path?  For a script, @path becomes its interpreter. */
static enum reach reach_of(char *path)
{
	union {
		Elf64_Ehdr elf;
		char text[PATH_MAX];
	} head = { .text = "" };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum reach r = UNKNOWN;
	struct stat st;
	ssize_t n;

	if (fd < 0) /* executable but not readable: the kernel knows more */
		return UNKNOWN;
	n = read(fd, head.text, sizeof(head.text) - 1);
	if (n >= (ssize_t)sizeof(head.elf) && !memcmp(head.elf.e_ident, ELFMAG, SELFMAG)) {
		r = elf_reach(fd, &head.elf);
		if (r == REACHED && fstat(fd, &st) == 0 &&
		    (((st.st_mode & S_ISUID) && st.st_uid != geteuid()) ||
		     ((st.st_mode & S_ISGID) && st.st_gid != getegid())))
			r = PRIVILEGED;
	} else if (n > 2 && !memcmp(head.text, "#!", 2)) {
		char *word = head.text + 2;

		word += strspn(word, " \t");
		word[strcspn(word, " \t\n")] = 0;
		snprintf(path, PATH_MAX, "%s", word);
		r = *path ? SCRIPT : UNKNOWN;
	}
	close(fd);
	return r;
}

/* 0, or the exit status, with a message. */
static int check_program(const char *name)
{
	char path[PATH_MAX];
	enum reach r = SCRIPT;
	int err = find_program(name, path);

	if (err) {
		msg("%s: %s", name, strerror(err));
		return err == ENOENT ? EXIT_NOTHERE : EXIT_NOEXEC;
	}
	for (int i = 0; i < MAX_SCRIPTS && r == SCRIPT; i++)
		r = reach_of(path);
	switch (r) {
	case STATIC:
		msg("%s is a static executable.  The dynamic loader does not start it, so the "
		    "library cannot be put in front of it, and there is no supervisor for such "
		    "programs yet.",
		    path);
		return EXIT_USAGE;
	case FOREIGN:
		msg("%s is not an x86-64 program", path);
		return EXIT_USAGE;
	case PRIVILEGED:
		msg("%s changes its user or group when it is run: the dynamic loader ignores "
		    "LD_PRELOAD then",
		    path);
		return EXIT_USAGE;
	default:
		return 0;
	}
}

/* ---- the command ---- */

static int set_environment(const char *preload, const struct exec_options *o)
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
	r = setenv("LD_PRELOAD", value, 1);
	free(value);
	if (!r && o->engine)
		r = setenv("UMBRA_ENGINE", o->engine, 1);
	if (!r && o->trace)
		r = setenv("UMBRA_TRACE", o->trace, 1);
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
			if (strcmp(optarg, "interp") && strcmp(optarg, "jit") && strcmp(optarg, "auto")) {
				msg("--engine: '%s' is unknown; see `umbra exec --help`", optarg);
				return 0;
			}
			o->engine = optarg;
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
		default:
			msg("%s: no such option; see `umbra exec --help`", argv[optind - 1]);
			return 0;
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
	char preload[PATH_MAX];
	int status;

	if (!parse(&o, argc, argv, &status))
		return status;
	argv += optind;
	if (accel_pick(o.accel, o.verbose) == &accel_soft) {
		if (!exec_find_preload(preload, true))
			return EXIT_USAGE;
		status = check_program(argv[0]);
		if (status)
			return status;
		if (set_environment(preload, &o) < 0)
			return EXIT_USAGE;
	}
	execvp(argv[0], argv);
	status = errno == ENOENT ? EXIT_NOTHERE : EXIT_NOEXEC;
	msg("%s: %s", argv[0], strerror(errno));
	return status;
}

// SPDX-License-Identifier: MIT
/* The command line of `umbra run`, with getopt_long(3). */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "base/trace.h"
#include "memory.h"
#include "msg.h"
#include "terminal.h"

#define DEFAULT_MEM (512ull << 20)

enum {
	OPT_KERNEL = 256,
	OPT_INITRD,
	OPT_APPEND,
	OPT_MEM,
	OPT_CPUS,
	OPT_DISK,
	OPT_ENGINE,
	OPT_ACCEL,
	OPT_TRACE,
	OPT_CONSOLE,
	OPT_SMM,
	OPT_DEBUG_EXIT,
};

static const struct option longopts[] = {
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "initrd", required_argument, NULL, OPT_INITRD },
	{ "append", required_argument, NULL, OPT_APPEND },
	{ "mem", required_argument, NULL, OPT_MEM },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "disk", required_argument, NULL, OPT_DISK },
	{ "engine", required_argument, NULL, OPT_ENGINE },
	{ "accel", required_argument, NULL, OPT_ACCEL },
	{ "trace", required_argument, NULL, OPT_TRACE } OPTIONS_JIT,
	{ "console", required_argument, NULL, OPT_CONSOLE },
	{ "smm", no_argument, NULL, OPT_SMM },
	{ "debug-exit", no_argument, NULL, OPT_DEBUG_EXIT },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static const char help[] =
	"Usage: umbra run --kernel FILE [OPTION]...\n"
	"Boot a kernel, with its serial console on standard input and output.\n"
	"\n"
	"  --kernel FILE        bzImage, ELF with a PVH entry, or Multiboot 1 image\n"
	"  --initrd FILE        initial RAM disk (Multiboot: a module)\n"
	"  --append STRING      kernel command line (default: the console's name)\n"
	"  --mem SIZE           memory, in MiB or with K, M, G, T behind it (512M)\n"
	"  --cpus N             virtual CPUs (1)\n"
	"  --disk FILE[,ro]     virtio disk; may be repeated: vda, vdb ...\n"
	"  --console KIND       where input goes: serial (ttyS0, default) or virtio (hvc0)\n"
	"  --engine ENGINE      what runs guest code: jit (default), interp, lockstep\n"
	"  --accel ACCEL        soft: the engine; host: /dev/kvm; auto (default): host if it "
	"works\n"
	"  --trace LIST         trace events to standard error, see below\n"
	"  --dump-code[=FILE]   write what is translated to FILE, or to standard error\n"
	"  --dump-passes LIST   of that: guest, facts, liveness, host (default: all)\n"
	"  --dump-range RANGE   only blocks there: FIRST-LAST, hexadecimal\n"
	"  --perf KIND          name translated code for perf: map (/tmp/perf-PID.map) or jitdump\n"
	"                       (jit-PID.dump)\n"
	"  --code-cache SIZE    bound of translated code, from 1M to 512M (64M)\n"
	"  --jit-threshold N    translate what was executed N times (16); 0: all\n"
	"  --smm                system-management mode has the memory, too\n"
	"  --debug-exit         writing V to port 0xf4 ends the run with exit status V * 2 + 1\n"
	"  -v, --verbose        say what is picked and loaded\n"
	"  -h, --help           this text\n"
	"\n"
	"Exit status: 0 when the guest powers off or resets, or the user quits; 1 when the guest\n"
	"dies; 2 for errors of usage and of the host.\n"
	"\n"
	"Keys, if standard input is a terminal:\n";

static void print_help(void)
{
	printf("%s", help);
	for (const char *p = term_help; *p;) {
		int len = (int)strcspn(p, "\n");

		printf("  %.*s\n", len, p);
		p += len + 1;
	}
	printf("\nTrace classes (all, or some with commas between):\n");
#define X(name, text) printf("  %-11s %s\n", #name, text);
	UM_TRACE_CLASSES(X)
#undef X
}

static bool parse_cpus(const char *s, unsigned *cpus)
{
	char *end;
	long v;

	errno = 0;
	v = strtol(s, &end, 10);
	if (errno || end == s || *end || v < 1 || v > MAX_CPUS)
		return false;
	*cpus = (unsigned)v;
	return true;
}

/* FILE or FILE,ro.  A comma that is part of the name is written twice. */
static bool parse_disk(struct run_options *o, const char *arg)
{
	struct disk_option *d = &o->disk[o->ndisks];
	char *out;

	if (o->ndisks == MAX_DISKS) {
		msg("--disk: at most %d disks", MAX_DISKS);
		return false;
	}
	out = d->path = malloc(strlen(arg) + 1);
	if (!out)
		return false;
	o->ndisks++;
	d->read_only = false;
	while (*arg && (*arg != ',' || arg[1] == ',')) {
		arg += *arg == ',';
		*out++ = *arg++;
	}
	*out = 0;
	if (!strcmp(arg, ",ro"))
		d->read_only = true;
	else if (*arg) {
		msg("--disk: '%s' is unknown (only ',ro' is an option; write ',,' for a comma)",
		    arg + 1);
		return false;
	}
	if (!*d->path) {
		msg("--disk: no file name");
		return false;
	}
	return true;
}

/* The index of @word in @words (NULL at the end); a message and -1 if it is none of them. */
static int parse_word(const char *option, const char *word, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(word, words[i]))
			return i;
	msg("%s: '%s' is unknown; see `umbra run --help`", option, word);
	return -1;
}

bool options_check_trace(const char *list)
{
	static const char *const classes[] = { "all",
#define X(name, text) #name,
					       UM_TRACE_CLASSES(X)
#undef X
						       NULL };

	while (*list) {
		char word[32];
		size_t len = strcspn(list, ",");

		snprintf(word, sizeof(word), "%.*s", (int)len, list);
		if (len >= sizeof(word) || parse_word("--trace", word, classes) < 0)
			return false;
		list += len + (list[len] == ',');
	}
	return true;
}

bool options_check_jit(int c, const char *arg, const char *values[UM_JIT_OPT_MAX])
{
	struct um_jit_options o;
	enum um_jit_option n = (enum um_jit_option)(c - OPT_JIT);

	if (!arg) /* --dump-code */
		arg = "-";
	um_jit_options_init(&o);
	if (um_jit_option_set(&o, n, arg)) {
		msg("--%s: '%s' is not understood", um_jit_option_name(n), arg);
		return false;
	}
	values[n] = arg;
	return true;
}

int options_set_jit(const char *const values[UM_JIT_OPT_MAX])
{
	for (unsigned n = 0; n < UM_JIT_OPT_MAX; n++) {
		if (values[n] && setenv(um_jit_option_env((enum um_jit_option)n), values[n], 1) < 0)
			return -1;
	}
	return 0;
}

static bool set_option(struct run_options *o, int c, char *arg)
{
	static const char *const accels[] = { "auto", "soft", "host", NULL };
	static const char *const engines[] = { "interp", "jit", "lockstep", "auto", NULL };
	static const char *const consoles[] = { "serial", "virtio", NULL };
	int n;

	switch (c) {
	case OPT_KERNEL:
		o->kernel = arg;
		return true;
	case OPT_INITRD:
		o->initrd = arg;
		return true;
	case OPT_APPEND:
		o->append = arg;
		return true;
	case OPT_MEM:
		if (um_parse_size(arg, &o->mem) && o->mem >= MEM_MIN && o->mem % UM_PAGE_SIZE == 0)
			return true;
		msg("--mem: '%s' is not a size of at least 2M and in whole pages, like 512M or 2G",
		    arg);
		return false;
	case OPT_CPUS:
		if (parse_cpus(arg, &o->cpus))
			return true;
		msg("--cpus: '%s' is not a number from 1 to %d", arg, MAX_CPUS);
		return false;
	case OPT_DISK:
		return parse_disk(o, arg);
	case OPT_ENGINE:
		o->engine = arg;
		return parse_word("--engine", arg, engines) >= 0;
	case OPT_ACCEL:
		n = parse_word("--accel", arg, accels);
		o->accel = (enum accel_choice)n;
		return n >= 0;
	case OPT_TRACE:
		o->trace = arg;
		return options_check_trace(arg);
	case OPT_CONSOLE:
		n = parse_word("--console", arg, consoles);
		o->virtio_console = n == 1;
		return n >= 0;
	case OPT_SMM:
		o->smm = true;
		return true;
	case OPT_DEBUG_EXIT:
		o->debug_exit = true;
		return true;
	case 'v':
		o->verbose = true;
		return true;
	default:
		return options_check_jit(c, arg, o->jit);
	}
}

enum options_result options_parse(struct run_options *o, int argc, char **argv)
{
	int c;

	*o = (struct run_options){ .mem = DEFAULT_MEM, .cpus = 1, .accel = ACCEL_AUTO };
	optind = 0; /* start over: tests parse more than once */
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":hv", longopts, NULL)) != -1) {
		if (c == 'h') {
			print_help();
			return OPTIONS_HELP;
		}
		if (c == ':') {
			msg("%s: an argument is missing", argv[optind - 1]);
			return OPTIONS_BAD;
		}
		if (c == '?') {
			msg("%s: no such option; see `umbra run --help`", argv[optind - 1]);
			return OPTIONS_BAD;
		}
		if (!set_option(o, c, optarg))
			return OPTIONS_BAD;
	}
	if (optind < argc) {
		msg("'%s': what is that for?  See `umbra run --help`", argv[optind]);
		return OPTIONS_BAD;
	}
	if (!o->kernel) {
		msg("no kernel (--kernel FILE); see `umbra run --help`");
		return OPTIONS_BAD;
	}
	if (!o->append)
		o->append = o->virtio_console ? "console=hvc0" : "console=ttyS0";
	return OPTIONS_OK;
}

void options_free(struct run_options *o)
{
	for (unsigned i = 0; i < o->ndisks; i++)
		free(o->disk[i].path);
	o->ndisks = 0;
}

// SPDX-License-Identifier: MIT
/*
 * umbra-load FILE NAME [ARGUMENT]...: become the program FILE, with NAME as its argv[0] (load.h).
 *
 * `umbra exec`, and execve() in the programs that it runs, start it for programs that need it; they say in UMBRA_PRELOAD
 * where the preload library is, for the children that can have it, in UMBRA_LD_PRELOAD what LD_PRELOAD is for the program,
 * and by UMBRA_SUPERVISE that also a program of this C library is to be supervised.  Nobody else calls it.
 */
#include <alloca.h>
#include <elf.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/program.h"
#include "cpuid_mask.h"
#include "load/load.h"
#include "shim.h"

#define MAX_SCRIPTS 4
#define EXIT_USAGE  2
#define EXIT_NOEXEC 126

__attribute__((format(printf, 2, 3))) static int fail(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("umbra: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	return status;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/*
 * /proc/PID/cmdline and `ps` show the memory where the arguments are: move ours, which stand in front of the
 * program's, out of the way.
 */
static void shift_arguments(char **argv, unsigned n, int argc)
{
	char *start = argv[0], *end = argv[argc - 1] + strlen(argv[argc - 1]) + 1;
	size_t by = (size_t)(argv[n] - start);

	memmove(start, start + by, (size_t)(end - start) - by);
	memset(end - by, 0, by);
	for (int i = (int)n; i < argc; i++)
		argv[i] -= by;
}

/* LD_PRELOAD for the program: what it was, without our library, which children get anew when they can have it. */
static void restore_preload(void)
{
	const char *value = getenv("UMBRA_LD_PRELOAD"), *own = getenv("UMBRA_PRELOAD"), *at;
	size_t len = own ? strlen(own) : 0;
	char *others;

	unsetenv("LD_PRELOAD");
	if (!value)
		return;
	others = strdup(value);
	at = others && len ? strstr(others, own) : NULL;
	if (at && (at == others || at[-1] == ':') && (!at[len] || at[len] == ':'))
		memmove((char *)at, at + len + (at[len] == ':'),
			strlen(at + len + (at[len] == ':')) + 1);
	if (others && *others && strcmp(others, ":") != 0)
		setenv("LD_PRELOAD", others, 1);
	free(others);
	unsetenv("UMBRA_LD_PRELOAD");
}

/* The program's life. */
static int run(struct um_load_thread *t, const struct um_load_image *img, char **argv,
	       const char *path)
{
	size_t n = um_load_stack_words(argv, environ);
	uint64_t *words = alloca(n * sizeof(*words) + 16);
	gregset_t gregs = { 0 };

	words = (uint64_t *)(((uint64_t)words + 15) & ~15ull);
	um_load_stack_fill(words, argv, environ, img, path);
	gregs[REG_RSP] = (greg_t)words;
	gregs[REG_RIP] = (greg_t)img->jump;
	um_load_enter(t, gregs);
	return EXIT_NOEXEC;
}

/* Scripts: FILE becomes their interpreter, with the arguments that it gets. */
static char **resolve(char *path, int argc, char **argv)
{
	char arg[PATH_MAX], script[PATH_MAX];
	enum um_program kind = UM_PROGRAM_SCRIPT;

	for (int i = 0; i < MAX_SCRIPTS; i++) {
		char **v;
		int n = 0;

		strcpy(script, path);
		kind = um_program_of(path, arg);
		if (kind != UM_PROGRAM_SCRIPT)
			break;
		v = calloc((size_t)argc + 3, sizeof(*v));
		if (!v)
			return NULL;
		v[n++] = strdup(path);
		if (*arg)
			v[n++] = strdup(arg);
		v[n++] = strdup(script);
		for (int j = 1; j < argc; j++)
			v[n++] = argv[j];
		argv = v;
		argc = n;
	}
	return argv;
}

int main(int argc, char **argv)
{
	static char path[PATH_MAX], full[PATH_MAX], rest[PATH_MAX];
	struct um_load_image img;
	struct um_load_thread *t;
	char **args, arg[PATH_MAX];
	enum um_program kind;
	bool force;
	int err;

	if (argc < 3)
		return fail(EXIT_USAGE, "umbra-load is for `umbra exec`");
	if (snprintf(path, sizeof(path), "%s", argv[1]) >= (int)sizeof(path))
		return fail(EXIT_NOEXEC, "%s: %s", argv[1], strerror(ENAMETOOLONG));
	force = getenv("UMBRA_SUPERVISE") != NULL;
	unsetenv("UMBRA_SUPERVISE");
	restore_preload();
	shift_arguments(argv, 2, argc);
	args = resolve(path, argc - 2, argv + 2);
	strcpy(arg, path);
	if (!args)
		return fail(EXIT_NOEXEC, "%s: %s", path, strerror(ENOMEM));
	kind = um_program_of(arg, rest);
	if (kind != UM_PROGRAM_SUPERVISED && !(kind == UM_PROGRAM_DYNAMIC && force)) {
		execve(path, args, environ);
		return fail(EXIT_NOEXEC, "%s: %s", path, strerror(errno));
	}
	if (!realpath(path, full))
		return fail(EXIT_NOEXEC, "%s: %s", path, strerror(errno));
	err = um_load_image(full, &img);
	if (err)
		return fail(EXIT_NOEXEC, "%s: %s", path, strerror(-err));
	um_load_set_exe(full);
	err = um_load_near_init(img.start, img.end);
	if (!err)
		err = um_load_threads_init(&t);
	if (!err)
		err = um_load_signals_init();
	if (err)
		return fail(EXIT_NOEXEC, "%s: cannot be supervised: %s", path, strerror(-err));
	err = um_load_arm(t);
	if (err)
		return fail(EXIT_USAGE,
			    "%s is a static executable, or one for another C library.  Such "
			    "programs need "
			    "syscall user dispatch: Linux 5.11 or later (%s)",
			    path, strerror(-err));
	prctl(PR_SET_NAME, base_name(path));
	um_cpuid_init(full, (const Elf64_Phdr *)img.phdr, img.phnum, img.bias);
	return run(t, &img, args, path);
}

// SPDX-License-Identifier: MIT
/*
 * Programs that the program starts run under the library too, whatever environment they are given: LD_PRELOAD
 * names it, and what libumbra reads from the environment (UMBRA_...) is there.
 *
 * This may run in a child of vfork(), or of fork() in a program with threads: memory comes from the stack.
 */
#include <alloca.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/program.h"
#include "shim.h"

#define PRELOAD "LD_PRELOAD="
#define PREFIX	"UMBRA_"
#define OTHERS	"UMBRA_LD_PRELOAD=" /* for umbra-load: what LD_PRELOAD was */
#define MAX_OWN 16

static const char *self;   /* the preload library's file */
static const char *loader; /* the supervisor's */
static char *own[MAX_OWN]; /* UMBRA_... as this program got them */

__attribute__((constructor)) static void init(void)
{
	const char *given = getenv("UMBRA_PRELOAD");
	unsigned n = 0;
	Dl_info info;

	if (UM_SHIM_SUPERVISOR)
		self = given ? strdup(given) : NULL;
	else if (dladdr((void *)um_next, &info) && info.dli_fname)
		self = realpath(info.dli_fname, NULL);
	given = getenv("UMBRA_LOADER");
	loader = given ? strdup(given) : NULL;
	for (char **e = environ; e && *e && n < MAX_OWN; e++) {
		if (!strncmp(*e, PREFIX, strlen(PREFIX))) {
			own[n] = strdup(*e);
			n += own[n] != NULL;
		}
	}
}

/* The element of @env that sets the variable of @var ("NAME=..."), or NULL. */
static char *find(char *const *env, const char *var)
{
	size_t len = (size_t)(strchr(var, '=') - var) + 1;

	for (; *env; env++) {
		if (!strncmp(*env, var, len))
			return *env;
	}
	return NULL;
}

static size_t count(char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

static bool is_complete(char *const *env)
{
	const char *preload = find(env, PRELOAD);

	if (!preload || !strstr(preload, self))
		return false;
	for (unsigned i = 0; i < MAX_OWN && own[i]; i++) {
		if (!find(env, own[i]))
			return false;
	}
	return true;
}

/* How many bytes complete() needs for the value of LD_PRELOAD. */
static size_t preload_size(char *const *env)
{
	const char *preload = find(env, PRELOAD);

	return strlen(PRELOAD) + strlen(self) + 2 + (preload ? strlen(preload) : 0);
}

/* @env with what is missing, in @out of count(env) + MAX_OWN + 2 elements. */
static void complete(char **out, char *const *env, char *room)
{
	const char *preload = find(env, PRELOAD);
	size_t n = 0;

	for (; *env; env++) {
		if (*env != preload)
			out[n++] = *env;
	}
	strcpy(room, PRELOAD);
	strcat(room, self);
	if (preload && !strstr(preload, self)) {
		strcat(room, ":");
		strcat(room, preload + strlen(PRELOAD));
	}
	out[n++] = preload && strstr(preload, self) ? (char *)preload : room;
	for (unsigned i = 0; i < MAX_OWN && own[i]; i++) {
		out[n] = NULL;
		if (!find(out, own[i]))
			out[n++] = own[i];
	}
	out[n] = NULL;
}

/* The environment to start a program with, on the caller's stack. */
#define COMPLETED(env)                                                                             \
	({                                                                                         \
		char *const none[] = { NULL }, *const *e_ = (env) ? (env) : none, *const *r_ = e_; \
		if (self && !um_shim_in && !is_complete(e_)) {                                     \
			char **out_ = alloca((count(e_) + MAX_OWN + 2) * sizeof(*out_));           \
			complete(out_, e_, alloca(preload_size(e_)));                              \
			r_ = out_;                                                                 \
		}                                                                                  \
		r_;                                                                                \
	})

/* ---- programs that the library does not reach ---- */

static bool needs_loader(const char *path)
{
	return loader && !um_shim_in && um_program_in_the_end(path) == UM_PROGRAM_SUPERVISED;
}

/*
 * umbra-load FILE ARGV..., in @out of count(@argv) + 4 elements.  A program without argv[0] gets one, as from
 * Linux 5.18 on.
 */
static void loader_arguments(char **out, const char *path, char *const *argv)
{
	size_t n = count(argv);

	out[0] = (char *)loader;
	out[1] = (char *)path;
	out[2] = (char *)"";
	if (n)
		memcpy(out + 2, argv, n * sizeof(*argv));
	out[2 + (n ? n : 1)] = NULL;
}

/* @env, complete, without LD_PRELOAD, which is not for umbra-load: as OTHERS.  In @out of count(@env) + 2. */
static void loader_environment(char **out, char *const *env, char *room)
{
	const char *preload = find(env, PRELOAD);
	size_t n = 0;

	for (; *env; env++) {
		if (*env != preload && strncmp(*env, OTHERS, strlen(OTHERS)) != 0)
			out[n++] = *env;
	}
	if (preload) {
		strcpy(room, OTHERS);
		strcat(room, preload + strlen(PRELOAD));
		out[n++] = room;
	}
	out[n] = NULL;
}

#define LOADER_ARGV(path, argv)                                            \
	({                                                                 \
		char **argv_ = alloca((count(argv) + 4) * sizeof(*argv_)); \
		loader_arguments(argv_, path, argv);                       \
		argv_;                                                     \
	})

#define LOADER_ENV(env)                                                                  \
	({                                                                               \
		char *const *full_ = COMPLETED(env);                                     \
		const char *preload_ = find(full_, PRELOAD);                             \
		char **env_ = alloca((count(full_) + 2) * sizeof(*env_));                \
		loader_environment(                                                      \
			env_, full_,                                                     \
			alloca(strlen(OTHERS) + (preload_ ? strlen(preload_) : 0) + 1)); \
		env_;                                                                    \
	})

/* ---- the functions ---- */

UM_SHIM int execve(const char *path, char *const argv[], char *const envp[])
{
	if (needs_loader(path))
		return um_next()->execve(loader, LOADER_ARGV(path, argv), LOADER_ENV(envp));
	return um_next()->execve(path, argv, COMPLETED(envp));
}

UM_SHIM int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

UM_SHIM int execvpe(const char *file, char *const argv[], char *const envp[])
{
	char path[PATH_MAX];

	if (um_program_find(file, getenv("PATH"), path) == 0 && needs_loader(path))
		return um_next()->execve(loader, LOADER_ARGV(path, argv), LOADER_ENV(envp));
	return um_next()->execvpe(file, argv, COMPLETED(envp));
}

UM_SHIM int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

UM_SHIM int fexecve(int fd, char *const argv[], char *const envp[])
{
	return um_next()->fexecve(fd, argv, COMPLETED(envp));
}

UM_SHIM int execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags)
{
	return um_next()->execveat(dirfd, path, argv, COMPLETED(envp), flags);
}

UM_SHIM int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
			const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	if (needs_loader(path))
		return um_next()->posix_spawn(pid, loader, actions, attr, LOADER_ARGV(path, argv),
					      LOADER_ENV(envp));
	return um_next()->posix_spawn(pid, path, actions, attr, argv, COMPLETED(envp));
}

UM_SHIM int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
			 const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	char path[PATH_MAX];

	if (um_program_find(file, getenv("PATH"), path) == 0 && needs_loader(path))
		return um_next()->posix_spawn(pid, loader, actions, attr, LOADER_ARGV(path, argv),
					      LOADER_ENV(envp));
	return um_next()->posix_spawnp(pid, file, actions, attr, argv, COMPLETED(envp));
}

/* The arguments of execl() and its like, up to their NULL, as an array; @ap stands behind it then. */
static size_t count_args(va_list ap)
{
	size_t n = 1;

	while (va_arg(ap, char *))
		n++;
	return n;
}

#define COLLECT(argv, first, ap)                                     \
	do {                                                         \
		va_start(ap, first);                                 \
		argv = alloca((count_args(ap) + 1) * sizeof(*argv)); \
		va_end(ap);                                          \
		va_start(ap, first);                                 \
		argv[0] = (char *)(first);                           \
		for (size_t i_ = 0; argv[i_];)                       \
			argv[++i_] = va_arg(ap, char *);             \
	} while (0)

UM_SHIM int execl(const char *path, const char *arg, ...)
{
	char **argv;
	va_list ap;

	COLLECT(argv, arg, ap);
	va_end(ap);
	return execv(path, argv);
}

UM_SHIM int execlp(const char *file, const char *arg, ...)
{
	char **argv;
	va_list ap;

	COLLECT(argv, arg, ap);
	va_end(ap);
	return execvp(file, argv);
}

UM_SHIM int execle(const char *path, const char *arg, ...)
{
	char *const *envp;
	char **argv;
	va_list ap;

	COLLECT(argv, arg, ap);
	envp = va_arg(ap, char *const *);
	va_end(ap);
	return execve(path, argv, envp);
}

// SPDX-License-Identifier: MIT
/*
 * Programs that the program starts run under the library too, whatever environment they are given: LD_PRELOAD
 * names it, and what libumbra reads from the environment (UMBRA_...) is there.
 *
 * This may run in a child of vfork(), or of fork() in a program with threads: memory comes from the stack.
 */
#include <alloca.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

#define PRELOAD "LD_PRELOAD="
#define PREFIX	"UMBRA_"
#define MAX_OWN 16

static const char *self;   /* this library's file */
static char *own[MAX_OWN]; /* UMBRA_... as this program got them */

__attribute__((constructor)) static void init(void)
{
	unsigned n = 0;
	Dl_info info;

	if (dladdr((void *)um_next, &info) && info.dli_fname)
		self = realpath(info.dli_fname, NULL);
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

UM_SHIM int execve(const char *path, char *const argv[], char *const envp[])
{
	return um_next()->execve(path, argv, COMPLETED(envp));
}

UM_SHIM int execv(const char *path, char *const argv[])
{
	return um_next()->execve(path, argv, COMPLETED(environ));
}

UM_SHIM int execvpe(const char *file, char *const argv[], char *const envp[])
{
	return um_next()->execvpe(file, argv, COMPLETED(envp));
}

UM_SHIM int execvp(const char *file, char *const argv[])
{
	return um_next()->execvpe(file, argv, COMPLETED(environ));
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
	return um_next()->posix_spawn(pid, path, actions, attr, argv, COMPLETED(envp));
}

UM_SHIM int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
			 const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
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

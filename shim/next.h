/* SPDX-License-Identifier: MIT */
/*
 * The functions that the preload library stands in front of: um_next()->NAME is the one that the program
 * would have got without it (the C library's, or another preload's).
 *
 * The vocabulary is one list, X(return type, name, parameters).  What an older or newer C library lacks is
 * NULL.
 */
#ifndef UM_SHIM_NEXT_H
#define UM_SHIM_NEXT_H

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

struct statx;

#define UM_NEXT_FUNCTIONS(X)                                                                     \
	/* files.c */                                                                            \
	X(int, open, (const char *, int, ...))                                                   \
	X(int, openat, (int, const char *, int, ...))                                            \
	X(FILE *, fopen, (const char *, const char *))                                           \
	X(int, access, (const char *, int))                                                      \
	X(int, faccessat, (int, const char *, int, int))                                         \
	X(int, euidaccess, (const char *, int))                                                  \
	X(int, stat, (const char *, struct stat *))                                              \
	X(int, lstat, (const char *, struct stat *))                                             \
	X(int, fstat, (int, struct stat *))                                                      \
	X(int, fstatat, (int, const char *, struct stat *, int))                                 \
	X(int, __xstat, (int, const char *, struct stat *))                                      \
	X(int, __lxstat, (int, const char *, struct stat *))                                     \
	X(int, __fxstat, (int, int, struct stat *))                                              \
	X(int, __fxstatat, (int, int, const char *, struct stat *, int))                         \
	X(int, statx, (int, const char *, int, unsigned, struct statx *))                        \
	X(char *, realpath, (const char *, char *))                                              \
	X(char *, __realpath_chk, (const char *, char *, size_t))                                \
	X(char *, canonicalize_file_name, (const char *))                                        \
	X(ssize_t, readlink, (const char *, char *, size_t))                                     \
	X(ssize_t, readlinkat, (int, const char *, char *, size_t))                              \
	/* attributes.c */                                                                       \
	X(int, chown, (const char *, uid_t, gid_t))                                              \
	X(int, lchown, (const char *, uid_t, gid_t))                                             \
	X(int, fchownat, (int, const char *, uid_t, gid_t, int))                                 \
	X(int, chmod, (const char *, mode_t))                                                    \
	X(int, fchmodat, (int, const char *, mode_t, int))                                       \
	X(int, mknod, (const char *, mode_t, dev_t))                                             \
	X(int, mknodat, (int, const char *, mode_t, dev_t))                                      \
	X(ssize_t, getxattr, (const char *, const char *, void *, size_t))                       \
	X(ssize_t, lgetxattr, (const char *, const char *, void *, size_t))                      \
	X(ssize_t, listxattr, (const char *, char *, size_t))                                    \
	X(ssize_t, llistxattr, (const char *, char *, size_t))                                   \
	X(int, setxattr, (const char *, const char *, const void *, size_t, int))                \
	X(int, lsetxattr, (const char *, const char *, const void *, size_t, int))               \
	X(int, removexattr, (const char *, const char *))                                        \
	X(int, lremovexattr, (const char *, const char *))                                       \
	/* descriptors.c */                                                                      \
	X(int, ioctl, (int, unsigned long, ...))                                                 \
	X(void *, mmap, (void *, size_t, int, int, int, off_t))                                  \
	X(int, close, (int))                                                                     \
	X(int, close_range, (unsigned, unsigned, int))                                           \
	X(void, closefrom, (int))                                                                \
	X(int, fclose, (FILE *))                                                                 \
	X(int, dup, (int))                                                                       \
	X(int, dup2, (int, int))                                                                 \
	X(int, dup3, (int, int, int))                                                            \
	X(int, fcntl, (int, int, ...))                                                           \
	/* signals.c */                                                                          \
	X(int, sigaction, (int, const struct sigaction *, struct sigaction *))                   \
	X(int, sigprocmask, (int, const sigset_t *, sigset_t *))                                 \
	X(int, pthread_sigmask, (int, const sigset_t *, sigset_t *))                             \
	/* filters.c */                                                                          \
	X(int, prctl, (int, ...))                                                                \
	X(long, syscall, (long, ...))                                                            \
	/* cancel.c */                                                                           \
	X(int, pthread_setcanceltype, (int, int *))                                              \
	X(int, pthread_cancel, (pthread_t))                                                      \
	/* exec.c */                                                                             \
	X(int, execve, (const char *, char *const *, char *const *))                             \
	X(int, execvpe, (const char *, char *const *, char *const *))                            \
	X(int, fexecve, (int, char *const *, char *const *))                                     \
	X(int, execveat, (int, const char *, char *const *, char *const *, int))                 \
	X(int, posix_spawn,                                                                      \
	  (pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, \
	   char *const *, char *const *))                                                        \
	X(int, posix_spawnp,                                                                     \
	  (pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, \
	   char *const *, char *const *))

struct um_next {
#define X(type, name, params) type(*name) params;
	UM_NEXT_FUNCTIONS(X)
#undef X
};

/* Never NULL, also before constructors have run. */
const struct um_next *um_next(void);

#define UM_SHIM __attribute__((visibility("default")))

/* Another name of the same function: struct stat and off_t are the same with 64 in the name. */
#define UM_SHIM_ALIAS(target) __attribute__((visibility("default"), alias(#target)))

#endif

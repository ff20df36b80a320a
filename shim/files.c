// SPDX-License-Identifier: MIT
/*
 * The name /dev/kvm: opening it, and all questions about it.
 *
 * Answers are those for a character device 10:232 that everybody may read and write, whether or not the host
 * has such a node; the host's is never opened.  Other spellings of the name (relative ones, "/dev//kvm",
 * symbolic links on the way) are resolved if the last component is "kvm".  Links to it with other names are found
 * when the kernel finds nothing behind them; on a host that has such a node, before it looks.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cpuinfo.h"
#include "shim.h"

#define KVM_PATH  "/dev/kvm"
#define KVM_MAJOR 10 /* the kernel's list of devices: misc ... */
#define KVM_MINOR 232
#define MAX_LINKS 40 /* as many as the kernel follows */

/* ---- is it the one? ---- */

/* @path ends in "/kvm", or is "kvm": does it lie in /dev? */
static bool resolves_to_kvm(int dirfd, const char *path, size_t len)
{
	char dir[PATH_MAX], resolved[PATH_MAX];
	int saved_errno = errno;
	bool is;
	int n;

	len -= 3;
	if (*path == '/' || dirfd == AT_FDCWD)
		n = snprintf(dir, sizeof(dir), "%.*s", len ? (int)len : 1, len ? path : ".");
	else
		n = snprintf(dir, sizeof(dir), "/proc/self/fd/%d/%.*s", dirfd, (int)len, path);
	is = n < (int)sizeof(dir) && um_next()->realpath(dir, resolved) &&
	     !strcmp(resolved, "/dev");
	errno = saved_errno;
	return is;
}

bool um_shim_is_kvm(int dirfd, const char *path)
{
	size_t len;

	if (!path || um_shim_in)
		return false;
	if (!strcmp(path, KVM_PATH))
		return true;
	len = strlen(path);
	if (len < 3 || len >= PATH_MAX || strcmp(path + len - 3, "kvm") ||
	    (len > 3 && path[len - 4] != '/'))
		return false;
	return resolves_to_kvm(dirfd, path, len);
}

/* The descriptor whose link in /proc @path is, or -1. */
static int descriptor_link(const char *path)
{
	static const char *const dirs[] = { "/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/" };

	for (unsigned i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		size_t len = strlen(dirs[i]);
		char *end;
		long fd;

		if (strncmp(path, dirs[i], len) || path[len] < '0' || path[len] > '9')
			continue;
		fd = strtol(path + len, &end, 10);
		return *end || fd > INT_MAX ? -1 : (int)fd;
	}
	return -1;
}

/* Is @path a symbolic link to /dev/kvm, perhaps by other links? */
static bool is_link_to_kvm(int dirfd, const char *path)
{
	char name[PATH_MAX], target[PATH_MAX];
	int saved_errno = errno, links;
	bool is = false;

	if (um_shim_in || !path || strlen(path) >= sizeof(name))
		return false;
	strcpy(name, path);
	for (links = 0; !is && links < MAX_LINKS; links++) {
		ssize_t n = um_next()->readlinkat(dirfd, name, target, sizeof(target) - 1);
		char *slash = strrchr(name, '/');
		size_t dir = slash ? (size_t)(slash + 1 - name) : 0;

		if (n <= 0)
			break;
		target[n] = 0;
		if (*target == '/')
			dir = 0;
		if (dir + (size_t)n >= sizeof(name))
			break;
		memcpy(name + dir, target, (size_t)n + 1);
		is = um_shim_is_kvm(dirfd, name);
	}
	errno = saved_errno;
	return is;
}

/* Has the host such a node?  Then a link must be seen before the kernel follows it. */
static bool host_has_node(void)
{
	static atomic_int has; /* 0: not known yet */
	int is = atomic_load_explicit(&has, memory_order_relaxed);

	if (!is) {
		int saved_errno = errno;
		struct stat st;

		is = um_next()->lstat(KVM_PATH, &st) < 0 ? -1 : 1;
		atomic_store_explicit(&has, is, memory_order_relaxed);
		errno = saved_errno;
	}
	return is > 0;
}

/* The same as um_shim_is_kvm() for a function that follows links. */
bool um_shim_leads_to_kvm(int dirfd, const char *path)
{
	if (um_shim_is_kvm(dirfd, path))
		return true;
	if (um_shim_in || !path)
		return false;
	return um_shim_kind(descriptor_link(path)) == UMBRA_KIND_SYSTEM ||
	       (host_has_node() && is_link_to_kvm(dirfd, path));
}

/* The kernel found nothing: because it is a link to what it does not have? */
static bool missed(int r, int dirfd, const char *path)
{
	return r < 0 && errno == ENOENT && is_link_to_kvm(dirfd, path);
}

/* ---- open ---- */

int um_shim_open(int flags)
{
	int fd;

	if ((flags & O_CREAT) && (flags & O_EXCL)) {
		errno = EEXIST;
		return -1;
	}
	if (flags & O_DIRECTORY) {
		errno = ENOTDIR;
		return -1;
	}
	um_shim_enter();
	fd = umbra_open();
	um_shim_leave();
	if (fd >= 0 && !(flags & O_CLOEXEC))
		um_next()->fcntl(fd, F_SETFD, 0);
	if (fd >= 0 && (flags & O_NONBLOCK))
		um_next()->fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* VMs and vCPUs have no name that could be opened: they are not in any directory. */
static bool is_nameless(const char *path)
{
	return path && um_shim_kind(descriptor_link(path)) > UMBRA_KIND_SYSTEM;
}

/* True: *fd is the answer. */
static bool opened(int dirfd, const char *path, int flags, int *fd)
{
	*fd = -1;
	if (um_shim_leads_to_kvm(dirfd, path))
		*fd = um_shim_open(flags);
	else if (is_nameless(path))
		errno = ENXIO;
	else if (um_shim_is_cpuinfo(path))
		*fd = um_shim_open_cpuinfo(flags);
	else
		return false;
	return true;
}

UM_SHIM int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;
	int fd;

	if (opened(AT_FDCWD, path, flags, &fd))
		return fd;
	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	fd = um_next()->open(path, flags, mode);
	return missed(fd, AT_FDCWD, path) ? um_shim_open(flags) : fd;
}

UM_SHIM int openat(int dirfd, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;
	int fd;

	if (opened(dirfd, path, flags, &fd))
		return fd;
	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	fd = um_next()->openat(dirfd, path, flags, mode);
	return missed(fd, dirfd, path) ? um_shim_open(flags) : fd;
}

int open64(const char *path, int flags, ...) UM_SHIM_ALIAS(open);
int __open(const char *path, int flags, ...) UM_SHIM_ALIAS(open);
int __open64(const char *path, int flags, ...) UM_SHIM_ALIAS(open);
int openat64(int dirfd, const char *path, int flags, ...) UM_SHIM_ALIAS(openat);

/* The forms that _FORTIFY_SOURCE makes of calls without a mode. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags);
int __openat64_2(int dirfd, const char *path, int flags);

UM_SHIM int __open_2(const char *path, int flags)
{
	return open(path, flags);
}

int __open64_2(const char *path, int flags) UM_SHIM_ALIAS(__open_2);

UM_SHIM int __openat_2(int dirfd, const char *path, int flags)
{
	return openat(dirfd, path, flags);
}

int __openat64_2(int dirfd, const char *path, int flags) UM_SHIM_ALIAS(__openat_2);

UM_SHIM FILE *fopen(const char *path, const char *mode)
{
	int fd, flags = (strchr(mode, 'e') ? O_CLOEXEC : 0) |
			(strchr(mode, 'x') ? O_CREAT | O_EXCL : 0);
	FILE *f;

	if (um_shim_leads_to_kvm(AT_FDCWD, path))
		fd = um_shim_open(flags);
	else if (um_shim_is_cpuinfo(path) && *mode == 'r' && !strchr(mode, '+'))
		fd = um_shim_open_cpuinfo(O_RDONLY | (strchr(mode, 'e') ? O_CLOEXEC : 0));
	else if ((f = um_next()->fopen(path, mode)) || !missed(-1, AT_FDCWD, path))
		return f;
	else
		fd = um_shim_open(flags);
	if (fd < 0)
		return NULL;
	f = fdopen(fd, mode);
	if (!f)
		close(fd);
	return f;
}

FILE *fopen64(const char *path, const char *mode) UM_SHIM_ALIAS(fopen);

/* ---- access ---- */

static int kvm_access(int mode)
{
	if (mode & ~(R_OK | W_OK | X_OK)) {
		errno = EINVAL;
		return -1;
	}
	if (mode & X_OK) { /* nobody has it, not even root */
		errno = EACCES;
		return -1;
	}
	return 0;
}

UM_SHIM int access(const char *path, int mode)
{
	int r;

	if (um_shim_leads_to_kvm(AT_FDCWD, path))
		return kvm_access(mode);
	r = um_next()->access(path, mode);
	return missed(r, AT_FDCWD, path) ? kvm_access(mode) : r;
}

UM_SHIM int faccessat(int dirfd, const char *path, int mode, int flags)
{
	int r;

	if (um_shim_leads_to_kvm(dirfd, path))
		return kvm_access(mode);
	r = um_next()->faccessat(dirfd, path, mode, flags);
	return missed(r, dirfd, path) ? kvm_access(mode) : r;
}

UM_SHIM int euidaccess(const char *path, int mode)
{
	int r;

	if (um_shim_leads_to_kvm(AT_FDCWD, path))
		return kvm_access(mode);
	r = um_next()->euidaccess(path, mode);
	return missed(r, AT_FDCWD, path) ? kvm_access(mode) : r;
}

int eaccess(const char *path, int mode) UM_SHIM_ALIAS(euidaccess);

/* ---- stat ---- */

/* Time stamps and the file system from what is there: the node itself, or its neighbour. */
static int kvm_stat(struct stat *st)
{
	int saved_errno = errno;

	if (um_next()->stat(KVM_PATH, st) < 0 && um_next()->stat("/dev/null", st) < 0) {
		memset(st, 0, sizeof(*st));
		st->st_ino = KVM_MINOR;
		st->st_blksize = 4096;
	}
	errno = saved_errno;
	st->st_mode = S_IFCHR | 0666;
	st->st_rdev = makedev(KVM_MAJOR, KVM_MINOR);
	st->st_nlink = 1;
	st->st_size = 0;
	st->st_blocks = 0;
	return 0;
}

/* The kind of a descriptor, one of another process's included: @st is what the kernel tells of it. */
static int kind_of(int fd, const struct stat *st)
{
	int kind = um_shim_kind(fd);

	/* A memfd is a file without a name. */
	if (!kind && S_ISREG(st->st_mode) && !st->st_nlink)
		kind = um_shim_adopt(fd);
	return kind;
}

/* What the kernel tells of a descriptor of ours; @st is what it tells of the memfd. */
static void descriptor_stat(int kind, struct stat *st)
{
	if (kind <= UMBRA_KIND_NONE)
		return;
	if (kind == UMBRA_KIND_SYSTEM) {
		kvm_stat(st);
		return;
	}
	st->st_mode = 0600; /* an anonymous inode has no type */
	st->st_size = 0;
	st->st_blocks = 0;
	st->st_nlink = 1;
	st->st_rdev = 0;
}

/* What it says of a name that may be a link. */
static int followed(int r, int dirfd, const char *path, struct stat *st)
{
	return missed(r, dirfd, path) ? kvm_stat(st) : r;
}

UM_SHIM int stat(const char *path, struct stat *st)
{
	if (um_shim_leads_to_kvm(AT_FDCWD, path))
		return kvm_stat(st);
	return followed(um_next()->stat(path, st), AT_FDCWD, path, st);
}

UM_SHIM int lstat(const char *path, struct stat *st)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? kvm_stat(st) : um_next()->lstat(path, st);
}

UM_SHIM int fstat(int fd, struct stat *st)
{
	int r = um_next()->fstat(fd, st);

	if (!r)
		descriptor_stat(kind_of(fd, st), st);
	return r;
}

UM_SHIM int fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
	if ((flags & AT_EMPTY_PATH) && path && !*path)
		return dirfd == AT_FDCWD ? um_next()->fstatat(dirfd, path, st, flags)
					 : fstat(dirfd, st);
	if (flags & AT_SYMLINK_NOFOLLOW)
		return um_shim_is_kvm(dirfd, path) ? kvm_stat(st)
						   : um_next()->fstatat(dirfd, path, st, flags);
	if (um_shim_leads_to_kvm(dirfd, path))
		return kvm_stat(st);
	return followed(um_next()->fstatat(dirfd, path, st, flags), dirfd, path, st);
}

/* clang-format off */
int stat64(const char *path, struct stat64 *st) UM_SHIM_ALIAS(stat);
int lstat64(const char *path, struct stat64 *st) UM_SHIM_ALIAS(lstat);
int fstat64(int fd, struct stat64 *st) UM_SHIM_ALIAS(fstat);
int fstatat64(int dirfd, const char *path, struct stat64 *st, int flags) UM_SHIM_ALIAS(fstatat);
/* clang-format on */

/* What programs call that were built against a C library before 2.33. */
int __xstat(int ver, const char *path, struct stat *st);
int __lxstat(int ver, const char *path, struct stat *st);
int __fxstat(int ver, int fd, struct stat *st);
int __fxstatat(int ver, int dirfd, const char *path, struct stat *st, int flags);
int __xstat64(int ver, const char *path, struct stat *st);
int __lxstat64(int ver, const char *path, struct stat *st);
int __fxstat64(int ver, int fd, struct stat *st);
int __fxstatat64(int ver, int dirfd, const char *path, struct stat *st, int flags);

UM_SHIM int __xstat(int ver, const char *path, struct stat *st)
{
	if (um_shim_leads_to_kvm(AT_FDCWD, path))
		return kvm_stat(st);
	return followed(um_next()->__xstat(ver, path, st), AT_FDCWD, path, st);
}

UM_SHIM int __lxstat(int ver, const char *path, struct stat *st)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? kvm_stat(st) : um_next()->__lxstat(ver, path, st);
}

UM_SHIM int __fxstat(int ver, int fd, struct stat *st)
{
	int r = um_next()->__fxstat(ver, fd, st);

	if (!r)
		descriptor_stat(kind_of(fd, st), st);
	return r;
}

UM_SHIM int __fxstatat(int ver, int dirfd, const char *path, struct stat *st, int flags)
{
	return um_shim_is_kvm(dirfd, path) ? kvm_stat(st)
					   : um_next()->__fxstatat(ver, dirfd, path, st, flags);
}

int __xstat64(int ver, const char *path, struct stat *st) UM_SHIM_ALIAS(__xstat);
int __lxstat64(int ver, const char *path, struct stat *st) UM_SHIM_ALIAS(__lxstat);
int __fxstat64(int ver, int fd, struct stat *st) UM_SHIM_ALIAS(__fxstat);
int __fxstatat64(int ver, int dirfd, const char *path, struct stat *st, int flags)
	UM_SHIM_ALIAS(__fxstatat);

static struct statx_timestamp timestamp(struct timespec t)
{
	return (struct statx_timestamp){ .tv_sec = t.tv_sec, .tv_nsec = (__u32)t.tv_nsec };
}

UM_SHIM int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *sx)
{
	struct stat st;

	bool follow = !(flags & AT_SYMLINK_NOFOLLOW);
	int r;

	if ((flags & AT_EMPTY_PATH) && path && !*path && um_shim_kind(dirfd)) {
		if (fstat(dirfd, &st) < 0)
			return -1;
	} else if (follow ? um_shim_leads_to_kvm(dirfd, path) : um_shim_is_kvm(dirfd, path)) {
		kvm_stat(&st);
	} else {
		r = um_next()->statx(dirfd, path, flags, mask, sx);
		if (!follow || !missed(r, dirfd, path))
			return r;
		kvm_stat(&st);
	}
	memset(sx, 0, sizeof(*sx));
	sx->stx_mask = STATX_BASIC_STATS;
	sx->stx_blksize = (__u32)st.st_blksize;
	sx->stx_nlink = (__u32)st.st_nlink;
	sx->stx_uid = st.st_uid;
	sx->stx_gid = st.st_gid;
	sx->stx_mode = (__u16)st.st_mode;
	sx->stx_ino = st.st_ino;
	sx->stx_size = (__u64)st.st_size;
	sx->stx_blocks = (__u64)st.st_blocks;
	sx->stx_atime = timestamp(st.st_atim);
	sx->stx_mtime = timestamp(st.st_mtim);
	sx->stx_ctime = timestamp(st.st_ctim);
	sx->stx_rdev_major = major(st.st_rdev);
	sx->stx_rdev_minor = minor(st.st_rdev);
	sx->stx_dev_major = major(st.st_dev);
	sx->stx_dev_minor = minor(st.st_dev);
	return 0;
}

/* ---- names ---- */

static char *kvm_realpath(char *resolved)
{
	return resolved ? strcpy(resolved, KVM_PATH) : strdup(KVM_PATH);
}

UM_SHIM char *realpath(const char *path, char *resolved)
{
	char *r;

	if (um_shim_leads_to_kvm(AT_FDCWD, path))
		return kvm_realpath(resolved);
	r = um_next()->realpath(path, resolved);
	return missed(r ? 0 : -1, AT_FDCWD, path) ? kvm_realpath(resolved) : r;
}

char *__realpath_chk(const char *path, char *resolved, size_t size);

UM_SHIM char *__realpath_chk(const char *path, char *resolved, size_t size)
{
	char *r;

	if (um_shim_leads_to_kvm(AT_FDCWD, path))
		return kvm_realpath(resolved);
	r = um_next()->__realpath_chk(path, resolved, size);
	return missed(r ? 0 : -1, AT_FDCWD, path) ? kvm_realpath(resolved) : r;
}

UM_SHIM char *canonicalize_file_name(const char *path)
{
	char *r;

	if (um_shim_leads_to_kvm(AT_FDCWD, path))
		return kvm_realpath(NULL);
	r = um_next()->canonicalize_file_name(path);
	return missed(r ? 0 : -1, AT_FDCWD, path) ? kvm_realpath(NULL) : r;
}

/* The name of a descriptor of ours, if @path is its link in /proc; else NULL. */
static const char *descriptor_name(const char *path)
{
	switch (path ? um_shim_kind(descriptor_link(path)) : UMBRA_KIND_NONE) {
	case UMBRA_KIND_SYSTEM:
		return KVM_PATH;
	case UMBRA_KIND_VM:
		return "anon_inode:kvm-vm";
	case UMBRA_KIND_VCPU:
		return "anon_inode:kvm-vcpu";
	}
	return NULL;
}

static ssize_t answer_link(const char *name, char *buf, size_t size)
{
	size_t len = strlen(name);

	if (!size) {
		errno = EINVAL;
		return -1;
	}
	len = len < size ? len : size;
	memcpy(buf, name, len);
	return (ssize_t)len;
}

static ssize_t not_a_link(void)
{
	errno = EINVAL;
	return -1;
}

UM_SHIM ssize_t readlink(const char *path, char *buf, size_t size)
{
	const char *name = descriptor_name(path);

	if (name)
		return answer_link(name, buf, size);
	return um_shim_is_kvm(AT_FDCWD, path) ? not_a_link() : um_next()->readlink(path, buf, size);
}

UM_SHIM ssize_t readlinkat(int dirfd, const char *path, char *buf, size_t size)
{
	const char *name = descriptor_name(path);

	if (name)
		return answer_link(name, buf, size);
	return um_shim_is_kvm(dirfd, path) ? not_a_link()
					   : um_next()->readlinkat(dirfd, path, buf, size);
}

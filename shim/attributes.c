// SPDX-License-Identifier: MIT
/*
 * Owner, mode and extended attributes of /dev/kvm.  Programs that prepare a host or a container change them; here
 * everybody may open it anyway, so root's changes are taken and forgotten, and others are told that they may not.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "shim.h"

static int change(void)
{
	if (geteuid() == 0)
		return 0;
	errno = EPERM;
	return -1;
}

UM_SHIM int chown(const char *path, uid_t uid, gid_t gid)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? change() : um_next()->chown(path, uid, gid);
}

UM_SHIM int lchown(const char *path, uid_t uid, gid_t gid)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? change() : um_next()->lchown(path, uid, gid);
}

UM_SHIM int fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
	return um_shim_is_kvm(dirfd, path) ? change()
					   : um_next()->fchownat(dirfd, path, uid, gid, flags);
}

UM_SHIM int chmod(const char *path, mode_t mode)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? change() : um_next()->chmod(path, mode);
}

UM_SHIM int fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
	return um_shim_is_kvm(dirfd, path) ? change()
					   : um_next()->fchmodat(dirfd, path, mode, flags);
}

/* It is there already. */
static int exists(void)
{
	errno = EEXIST;
	return -1;
}

UM_SHIM int mknod(const char *path, mode_t mode, dev_t dev)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? exists() : um_next()->mknod(path, mode, dev);
}

UM_SHIM int mknodat(int dirfd, const char *path, mode_t mode, dev_t dev)
{
	return um_shim_is_kvm(dirfd, path) ? exists() : um_next()->mknodat(dirfd, path, mode, dev);
}

/* ---- extended attributes: it has none (`ls -l` asks for access lists), and takes none ---- */

static ssize_t no_attribute(void)
{
	errno = ENODATA;
	return -1;
}

UM_SHIM ssize_t getxattr(const char *path, const char *name, void *value, size_t size)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? no_attribute()
					      : um_next()->getxattr(path, name, value, size);
}

UM_SHIM ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? no_attribute()
					      : um_next()->lgetxattr(path, name, value, size);
}

UM_SHIM ssize_t listxattr(const char *path, char *list, size_t size)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? 0 : um_next()->listxattr(path, list, size);
}

UM_SHIM ssize_t llistxattr(const char *path, char *list, size_t size)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? 0 : um_next()->llistxattr(path, list, size);
}

static int unsupported(void)
{
	errno = ENOTSUP;
	return -1;
}

UM_SHIM int setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? unsupported()
					      : um_next()->setxattr(path, name, value, size, flags);
}

UM_SHIM int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
	return um_shim_is_kvm(AT_FDCWD, path)
		       ? unsupported()
		       : um_next()->lsetxattr(path, name, value, size, flags);
}

UM_SHIM int removexattr(const char *path, const char *name)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? (int)no_attribute()
					      : um_next()->removexattr(path, name);
}

UM_SHIM int lremovexattr(const char *path, const char *name)
{
	return um_shim_is_kvm(AT_FDCWD, path) ? (int)no_attribute()
					      : um_next()->lremovexattr(path, name);
}

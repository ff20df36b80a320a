// SPDX-License-Identifier: MIT
#include "base/memfd.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

int um_memfd_create(const char *name, size_t size)
{
	struct rlimit limit;
	int fd, err;

	/* ftruncate() beyond it raises SIGXFSZ. */
	if (size && getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < size)
		return -EFBIG;
	fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (size && ftruncate(fd, (off_t)size) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

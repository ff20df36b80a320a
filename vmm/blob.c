// SPDX-License-Identifier: MIT
/* Files are read, not mapped: a mapping of a file that shrinks meanwhile would kill us with SIGBUS. */
#include "blob.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "msg.h"

static int read_all(struct blob *b, int fd)
{
	size_t have = 0;

	while (have < b->len) {
		ssize_t n = read(fd, b->data + have, b->len - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		have += (size_t)n;
	}
	b->len = have;
	return 0;
}

int blob_read(struct blob *b, const char *what, const char *path, u64 max)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err = 0;
	struct stat st;

	*b = (struct blob){ 0 };
	if (fd < 0)
		return msg_err(errno, "%s %s: %s", what, path, strerror(errno));
	if (fstat(fd, &st) < 0)
		err = msg_err(errno, "%s %s: %s", what, path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		err = msg_err(EINVAL, "%s %s: not a regular file", what, path);
	else if ((u64)st.st_size > max)
		err = msg_err(EFBIG,
			      "%s %s: %" PRIu64 " bytes do not fit into the guest's memory (--mem)",
			      what, path, (u64)st.st_size);
	if (err)
		goto out;
	b->len = (size_t)st.st_size;
	b->data = malloc(b->len ? b->len : 1);
	err = b->data ? read_all(b, fd) : -ENOMEM;
	if (err) {
		msg("%s %s: %s", what, path, strerror(-err));
		blob_free(b);
	}
out:
	close(fd);
	return err;
}

void blob_free(struct blob *b)
{
	free(b->data);
	*b = (struct blob){ 0 };
}

bool blob_get(const struct blob *b, u64 offset, void *data, size_t len)
{
	if (offset > b->len || len > b->len - offset)
		return false;
	memcpy(data, b->data + offset, len);
	return true;
}

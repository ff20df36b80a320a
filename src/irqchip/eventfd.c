// SPDX-License-Identifier: MIT
/* Holding, recognizing, signalling and reading eventfds.  See eventfd(2), proc(5) on fdinfo. */
#include "irqchip/eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

int um_eventfd_id(int fd, u64 *id)
{
	char path[64], text[512], *p, *end;
	ssize_t n;
	int info;

	if (fcntl(fd, F_GETFD) < 0)
		return -EBADF;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return errno == EMFILE || errno == ENFILE ? -errno : -EINVAL;
	n = read(info, text, sizeof(text) - 1);
	close(info);
	text[n > 0 ? n : 0] = 0;
	p = strstr(text, "eventfd-id:");
	if (!p)
		return -EINVAL;
	p += strlen("eventfd-id:");
	*id = strtoull(p, &end, 10);
	return end == p ? -EINVAL : 0;
}

int um_eventfd_get(int fd, struct um_eventfd *e)
{
	int err;

	/* The duplicate comes first: it names what it names, whatever becomes of @fd. */
	e->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (e->fd < 0)
		return errno == EMFILE ? -EMFILE : -EBADF;
	err = um_eventfd_id(e->fd, &e->id);
	if (err)
		um_eventfd_put(e);
	return err;
}

void um_eventfd_put(struct um_eventfd *e)
{
	if (e->fd >= 0)
		close(e->fd);
	e->fd = -1;
}

void um_eventfd_signal(const struct um_eventfd *e)
{
	const u64 one = 1;

	/* A full non-blocking eventfd (EAGAIN) is as signalled as can be. */
	while (write(e->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool um_eventfd_take(const struct um_eventfd *e)
{
	struct pollfd p = { .fd = e->fd, .events = POLLIN };
	u64 count;
	struct iovec iov = { .iov_base = &count, .iov_len = sizeof(count) };
	ssize_t n = preadv2(e->fd, &iov, 1, -1, RWF_NOWAIT);

	/* Eventfds know RWF_NOWAIT since Linux 5.8. */
	if (n < 0 && errno == EOPNOTSUPP && poll(&p, 1, 0) == 1)
		n = read(e->fd, &count, sizeof(count));
	return n == sizeof(count);
}

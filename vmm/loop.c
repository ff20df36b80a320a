// SPDX-License-Identifier: MIT
/* The event loop: each round polls a copy of the table, so that callbacks and threads may change it. */
#include "loop.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int loop_init(struct loop *l)
{
	memset(l, 0, sizeof(*l));
	pthread_mutex_init(&l->lock, NULL);
	l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return l->wake < 0 ? -errno : 0;
}

void loop_fini(struct loop *l)
{
	close(l->wake);
	pthread_mutex_destroy(&l->lock);
}

static void wake(struct loop *l)
{
	u64 one = 1;

	/* Fails only when the counter is full: then the loop is awake anyway. */
	if (write(l->wake, &one, sizeof(one)) < 0)
		return;
}

int loop_add(struct loop *l, int fd, short events, loop_fn fn, void *opaque)
{
	int err = -ENOSPC;

	pthread_mutex_lock(&l->lock);
	if (l->nfds < LOOP_MAX_FDS) {
		l->fds[l->nfds++] = (struct loop_fd){ fd, events, fn, opaque };
		err = 0;
	}
	pthread_mutex_unlock(&l->lock);
	wake(l);
	return err;
}

void loop_set_events(struct loop *l, int fd, short events)
{
	bool changed = false;

	pthread_mutex_lock(&l->lock);
	for (unsigned i = 0; i < l->nfds; i++)
		if (l->fds[i].fd == fd && l->fds[i].events != events) {
			l->fds[i].events = events;
			changed = true;
		}
	pthread_mutex_unlock(&l->lock);
	if (changed)
		wake(l);
}

void loop_run(struct loop *l)
{
	struct loop_fd copy[LOOP_MAX_FDS];
	struct pollfd p[LOOP_MAX_FDS + 1];

	for (;;) {
		unsigned n;
		u64 count;

		pthread_mutex_lock(&l->lock);
		if (l->stop) {
			pthread_mutex_unlock(&l->lock);
			return;
		}
		n = l->nfds;
		memcpy(copy, l->fds, sizeof(copy));
		pthread_mutex_unlock(&l->lock);

		/* A negative descriptor is ignored by poll(2): an idle one must not report POLLHUP. */
		for (unsigned i = 0; i < n; i++)
			p[i] = (struct pollfd){ copy[i].events ? copy[i].fd : -1, copy[i].events,
						0 };
		p[n] = (struct pollfd){ l->wake, POLLIN, 0 };
		if (poll(p, n + 1, -1) < 0)
			continue;
		if (p[n].revents && read(l->wake, &count, sizeof(count)) < 0)
			continue;
		for (unsigned i = 0; i < n; i++)
			if (p[i].revents)
				copy[i].fn(copy[i].opaque, p[i].revents);
	}
}

void loop_stop(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_mutex_unlock(&l->lock);
	wake(l);
}

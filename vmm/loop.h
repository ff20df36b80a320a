/* SPDX-License-Identifier: MIT */
/*
 * The event loop of the main thread: descriptors (terminal, timers, signals) and what to call when
 * they are ready.  poll(2) rather than epoll, since standard input may be a regular file or /dev/null.
 *
 * Callbacks run on the thread that is in loop_run(), without a lock of the loop held.
 */
#ifndef VMM_LOOP_H
#define VMM_LOOP_H

#include <poll.h>
#include <pthread.h>

#include "base/types.h"

typedef void (*loop_fn)(void *opaque, short revents);

#define LOOP_MAX_FDS 16

struct loop {
	pthread_mutex_t lock;
	int wake; /* eventfd: the set of descriptors changed, or loop_stop() */
	bool stop;
	unsigned nfds;
	struct loop_fd {
		int fd;
		short events;
		loop_fn fn;
		void *opaque;
	} fds[LOOP_MAX_FDS];
};

int loop_init(struct loop *l);
void loop_fini(struct loop *l);

/* Watch @fd, which stays the caller's.  0 or -ENOSPC.  @events may be 0, to be set later. */
int loop_add(struct loop *l, int fd, short events, loop_fn fn, void *opaque);
/* Watch for other events; with 0 the descriptor is left alone.  Any thread. */
void loop_set_events(struct loop *l, int fd, short events);

/* Run until loop_stop(), which any thread may call, once or more. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);

#endif

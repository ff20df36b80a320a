/* SPDX-License-Identifier: MIT */
/*
 * The VMM's eventfds, as irqfds and ioeventfds hold them.
 *
 * The VMM may close its descriptor once it has handed it over, so what is kept is a duplicate.  Which
 * eventfd a descriptor names is told by the id that the host kernel gives it (since Linux 5.2), so
 * that deassigning works with any descriptor of the same eventfd, as in KVM.
 */
#ifndef UM_IRQCHIP_EVENTFD_H
#define UM_IRQCHIP_EVENTFD_H

#include "base/types.h"

struct um_eventfd {
	int fd; /* our own descriptor, or -1 */
	u64 id;
};

/* The id behind @fd.  0; -EBADF; -EINVAL: not an eventfd, or the host kernel doesn't tell. */
int um_eventfd_id(int fd, u64 *id);

/* Make *@e hold the eventfd of @fd.  0, or as um_eventfd_id(), or -EMFILE. */
int um_eventfd_get(int fd, struct um_eventfd *e);
void um_eventfd_put(struct um_eventfd *e);

/* Add 1.  Blocks only if the count is at its limit, 2^64 - 2, which none reaches by this. */
void um_eventfd_signal(const struct um_eventfd *e);

/* Take the count, or 1 of a semaphore; never blocks.  False: it was 0, or somebody else took it. */
bool um_eventfd_take(const struct um_eventfd *e);

#endif

// SPDX-License-Identifier: MIT
/* KVM_GET_STATS_FD (api.rst 4.133): the counters of a VM or a vCPU as a file.  base/counters.c makes it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "api/api.h"

/*
 * One more descriptor of the file @fd, as KVM's: read-only, with a position of its own.  Without /proc it shares
 * both with @fd.
 */
static int reopen(int fd)
{
	char path[32];
	int new;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	new = open(path, O_RDONLY | O_CLOEXEC);
	if (new < 0 && errno != EMFILE)
		new = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return new < 0 ? -errno : new;
}

/* @kept: the descriptor of the VM's or vCPU's file, -1 as long as there is none; its lock held. */
static int stats_fd(struct um_vm *vm, unsigned block, int *kept, const char *id)
{
	if (*kept < 0) {
		int fd = um_stat_share(vm->stat, vm->stat_fd, block, id);

		if (fd < 0)
			return fd;
		*kept = fd;
	}
	return reopen(*kept);
}

int um_vm_stats_fd(struct um_vm *vm)
{
	char id[UM_STAT_ID_LEN];
	int fd;

	snprintf(id, sizeof(id), "kvm-%d", (int)getpid());
	pthread_mutex_lock(&vm->lock);
	fd = stats_fd(vm, 0, &vm->stats_fd, id);
	pthread_mutex_unlock(&vm->lock);
	return fd;
}

int um_vcpu_stats_fd(struct um_vcpu *v)
{
	char id[UM_STAT_ID_LEN];

	/* The vCPU's own lock, which is inside of vm->lock, is enough for its block and descriptor. */
	snprintf(id, sizeof(id), "kvm-%d/vcpu-%u", (int)getpid(), v->id);
	return stats_fd(v->vm, 1 + v->index, &v->stats_fd, id);
}

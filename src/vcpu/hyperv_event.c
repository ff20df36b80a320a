// SPDX-License-Identifier: MIT
/*
 * KVM_HYPERV_EVENTFD (api.rst 4.113): connections that HvSignalEvent signals without an exit.
 *
 * There are a few for each device of a VMM's VMBus, so a list will do.
 */
#include <errno.h>
#include <stdlib.h>

#include "irqchip/eventfd.h"
#include "vcpu/hyperv.h"

struct um_hv_connection {
	u32 id;
	struct um_eventfd event;
	struct um_hv_connection *next;
};

/* Where the connection is linked, or would be.  hv->lock held. */
static struct um_hv_connection **find(struct um_hv_vm *hv, u32 id)
{
	struct um_hv_connection **p = &hv->connections;

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	return p;
}

static void release(struct um_hv_connection *c)
{
	um_eventfd_put(&c->event);
	free(c);
}

static int assign(struct um_hv_vm *hv, u32 id, int fd)
{
	struct um_hv_connection *c = calloc(1, sizeof(*c)), **p;
	int err;

	if (!c)
		return -ENOMEM;
	err = um_eventfd_get(fd, &c->event);
	if (err) {
		free(c);
		return err;
	}
	c->id = id;
	pthread_mutex_lock(&hv->lock);
	p = find(hv, id);
	if (*p)
		err = -EEXIST;
	else
		*p = c;
	pthread_mutex_unlock(&hv->lock);
	if (err)
		release(c);
	return err;
}

static int deassign(struct um_hv_vm *hv, u32 id)
{
	struct um_hv_connection **p, *c;

	pthread_mutex_lock(&hv->lock);
	p = find(hv, id);
	c = *p;
	if (c)
		*p = c->next;
	pthread_mutex_unlock(&hv->lock);
	if (!c)
		return -ENOENT;
	release(c);
	return 0;
}

int um_hv_eventfd(struct um_vm *vm, const struct kvm_hyperv_eventfd *args)
{
	if (args->flags & ~(u32)KVM_HYPERV_EVENTFD_DEASSIGN ||
	    args->conn_id & ~(u32)KVM_HYPERV_CONN_ID_MASK)
		return -EINVAL;
	if (args->flags & KVM_HYPERV_EVENTFD_DEASSIGN)
		return deassign(vm->hv, args->conn_id);
	return assign(vm->hv, args->conn_id, args->fd);
}

bool um_hv_signal_connection(struct um_vm *vm, u32 id)
{
	struct um_hv_connection *c;

	pthread_mutex_lock(&vm->hv->lock);
	c = *find(vm->hv, id);
	if (c)
		um_eventfd_signal(&c->event);
	pthread_mutex_unlock(&vm->hv->lock);
	return c;
}

void um_hv_connections_destroy(struct um_vm *vm)
{
	struct um_hv_connection *c;

	while ((c = vm->hv->connections)) {
		vm->hv->connections = c->next;
		release(c);
	}
}

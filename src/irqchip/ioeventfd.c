// SPDX-License-Identifier: MIT
/*
 * Matching guest writes with eventfds.
 *
 * They stand in an array sorted by address, for each address space, under a read-write lock: vCPUs match in
 * parallel.  In front of it is a filter of 64 bits, one for each hash of an address, read without the lock:
 * most writes to devices have nothing to do with eventfds, and see that at once.  It is enough that a bit is
 * set before KVM_IOEVENTFD returns, and gone some time after.
 *
 * Of two that would match the same write the second is refused, so there is at most one match.
 */
#include "irqchip/ioeventfd.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "irqchip/eventfd.h"

/* The third is another machine's: it can be filled, and nothing here ever looks. */
#define SPACE_CCW  (UM_IO_PIO + 1)
#define NR_SPACES  (SPACE_CCW + 1)
#define MAX_LENGTH 8

struct ioeventfd {
	u64 addr;
	u32 length; /* 0: a write of any length */
	bool match; /* only of `data` */
	u64 data;
	struct um_eventfd event;
};

struct space {
	struct ioeventfd *v;
	size_t n;
	u64 filter; /* read without the lock */
};

struct um_ioeventfds {
	pthread_rwlock_t lock;
	struct space space[NR_SPACES];
};

struct um_ioeventfds *um_ioeventfds_create(void)
{
	struct um_ioeventfds *set = calloc(1, sizeof(*set));

	if (set)
		pthread_rwlock_init(&set->lock, NULL);
	return set;
}

void um_ioeventfds_destroy(struct um_ioeventfds *set)
{
	for (unsigned i = 0; i < NR_SPACES; i++) {
		for (size_t k = 0; k < set->space[i].n; k++)
			um_eventfd_put(&set->space[i].v[k].event);
		free(set->space[i].v);
	}
	pthread_rwlock_destroy(&set->lock);
	free(set);
}

/* Fibonacci hashing: neighbours (doorbells 4 or 4096 bytes apart) fall on different bits. */
static u64 filter_bit(u64 addr)
{
	return BIT(addr * 0x9e3779b97f4a7c15ull >> 58);
}

static void update_filter(struct space *s)
{
	u64 filter = 0;

	for (size_t i = 0; i < s->n; i++)
		filter |= filter_bit(s->v[i].addr);
	__atomic_store_n(&s->filter, filter, __ATOMIC_RELEASE);
}

/* The first with an address not below @addr. */
static size_t lower_bound(const struct space *s, u64 addr)
{
	size_t lo = 0, hi = s->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (s->v[mid].addr < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct space *space_of(struct um_ioeventfds *set, u32 flags)
{
	if (flags & KVM_IOEVENTFD_FLAG_PIO)
		return &set->space[UM_IO_PIO];
	if (flags & KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY)
		return &set->space[SPACE_CCW];
	return &set->space[UM_IO_MMIO];
}

/* Is there a write that both would match? */
static bool collide(const struct ioeventfd *a, const struct ioeventfd *b)
{
	if (a->addr != b->addr)
		return false;
	if (!a->length || !b->length)
		return true;
	return a->length == b->length && (!a->match || !b->match || a->data == b->data);
}

static int insert(struct space *s, const struct ioeventfd *new)
{
	size_t at = lower_bound(s, new->addr);
	struct ioeventfd *v;

	for (size_t i = at; i < s->n && s->v[i].addr == new->addr; i++)
		if (collide(&s->v[i], new))
			return -EEXIST;
	v = realloc(s->v, (s->n + 1) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->v = v;
	memmove(&v[at + 1], &v[at], (s->n - at) * sizeof(*v));
	v[at] = *new;
	s->n++;
	update_filter(s);
	return 0;
}

static bool valid(const struct kvm_ioeventfd *args)
{
	const u32 flags = (1u << kvm_ioeventfd_flag_nr_max) - 1;

	switch (args->len) {
	case 0:
	case 1:
	case 2:
	case 4:
	case 8:
		break;
	default:
		return false;
	}
	if (args->addr + args->len < args->addr || args->flags & ~flags)
		return false;
	return args->len || !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
}

static int assign(struct um_ioeventfds *set, const struct kvm_ioeventfd *args)
{
	struct ioeventfd new = {
		.addr = args->addr,
		.length = args->len,
		.match = args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH,
		.data = args->datamatch,
	};
	int err;

	if (!valid(args))
		return -EINVAL;
	err = um_eventfd_get(args->fd, &new.event);
	if (err)
		return err;
	pthread_rwlock_wrlock(&set->lock);
	err = insert(space_of(set, args->flags), &new);
	pthread_rwlock_unlock(&set->lock);
	if (err)
		um_eventfd_put(&new.event);
	return err;
}

static bool same(const struct ioeventfd *e, const struct kvm_ioeventfd *args, u64 id)
{
	bool match = args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH;

	return e->event.id == id && e->addr == args->addr && e->length == args->len &&
	       e->match == match && (!match || e->data == args->datamatch);
}

static int deassign(struct um_ioeventfds *set, const struct kvm_ioeventfd *args)
{
	struct space *s = space_of(set, args->flags);
	int err = -ENOENT;
	u64 id = 0;
	int bad = um_eventfd_id(args->fd, &id);

	if (bad)
		return bad;
	pthread_rwlock_wrlock(&set->lock);
	for (size_t i = lower_bound(s, args->addr); err && i < s->n; i++) {
		if (!same(&s->v[i], args, id))
			continue;
		um_eventfd_put(&s->v[i].event);
		s->n--;
		memmove(&s->v[i], &s->v[i + 1], (s->n - i) * sizeof(s->v[0]));
		update_filter(s);
		err = 0;
	}
	pthread_rwlock_unlock(&set->lock);
	return err;
}

int um_ioeventfds_set(struct um_ioeventfds *set, const struct kvm_ioeventfd *args)
{
	return args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? deassign(set, args) : assign(set, args);
}

bool um_ioeventfds_write(struct um_ioeventfds *set, enum um_io_space space, u64 addr, unsigned len,
			 const void *data)
{
	struct space *s = &set->space[space];
	bool hit = false;
	u64 val = 0;

	if (likely(!(__atomic_load_n(&s->filter, __ATOMIC_ACQUIRE) & filter_bit(addr))))
		return false;
	memcpy(&val, data, um_min(len, (unsigned)MAX_LENGTH));
	pthread_rwlock_rdlock(&set->lock);
	for (size_t i = lower_bound(s, addr); !hit && i < s->n && s->v[i].addr == addr; i++) {
		const struct ioeventfd *e = &s->v[i];

		if (e->length && (e->length != len || (e->match && e->data != val)))
			continue;
		um_eventfd_signal(&e->event);
		hit = true;
	}
	pthread_rwlock_unlock(&set->lock);
	return hit;
}

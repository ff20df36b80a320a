// SPDX-License-Identifier: MIT
/*
 * Virtio: status, features and split virtqueues.
 *
 * The rings are plain memory shared with other threads, the guest's vCPUs: indexes are read with
 * acquire and published with release semantics, and a descriptor is copied before it is checked, so
 * that it cannot change in between.
 */
#include "virtio.h"

#include <string.h>

#include "base/bits.h"

#define RING_FEATURES \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX))

void virtio_init(struct virtio *v, const struct virtio_ops *ops, const struct memory *mem,
		 u64 features)
{
	v->ops = ops;
	v->mem = mem;
	v->offered = features | RING_FEATURES;
	pthread_mutex_init(&v->lock, NULL);
	for (unsigned q = 0; q < ops->nqueues; q++)
		v->queue[q].size = VQ_MAX_SIZE;
}

void virtio_fini(struct virtio *v)
{
	pthread_mutex_destroy(&v->lock);
}

void virtio_reset(struct virtio *v)
{
	if (v->ops->reset)
		v->ops->reset(v);
	v->resets++;
	v->features = 0;
	v->status = 0;
	for (unsigned q = 0; q < v->ops->nqueues; q++)
		v->queue[q] = (struct virtq){ .size = VQ_MAX_SIZE };
}

void virtio_set_status(struct virtio *v, u8 status)
{
	if (!status) {
		virtio_reset(v);
		return;
	}
	/* Features that don't work out: FEATURES_OK stays clear, and the driver sees it (3.1.1). */
	if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && !(v->status & VIRTIO_CONFIG_S_FEATURES_OK) &&
	    ((v->features & ~v->offered) || !virtio_has(v, VIRTIO_F_VERSION_1)))
		status &= (u8)~VIRTIO_CONFIG_S_FEATURES_OK;
	/* The driver can only add bits, and NEEDS_RESET is ours. */
	v->status |= status & (u8)~VIRTIO_CONFIG_S_NEEDS_RESET;
}

void virtio_enable_queue(struct virtio *v, unsigned q)
{
	struct virtq *vq = &v->queue[q];
	u64 avail_len = sizeof(struct vring_avail) + sizeof(u16) * (vq->size + 1u);
	u64 used_len = sizeof(struct vring_used) + sizeof(struct vring_used_elem) * vq->size + 2;

	if (vq->enabled)
		return;
	vq->desc = mem_hva(v->mem, vq->desc_gpa, sizeof(struct vring_desc) * vq->size);
	vq->avail = mem_hva(v->mem, vq->avail_gpa, avail_len);
	vq->used = mem_hva(v->mem, vq->used_gpa, used_len);
	if (!vq->desc || !vq->avail || !vq->used || vq->desc_gpa % VRING_DESC_ALIGN_SIZE ||
	    vq->avail_gpa % VRING_AVAIL_ALIGN_SIZE || vq->used_gpa % VRING_USED_ALIGN_SIZE) {
		virtio_fail(v);
		return;
	}
	vq->last_avail = 0;
	vq->used_idx = 0;
	vq->signalled = 0;
	vq->enabled = true;
}

void virtio_fail(struct virtio *v)
{
	if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
		v->interrupt(v, NULL);
}

void virtio_config_changed(struct virtio *v)
{
	v->config_generation++;
	if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
		v->interrupt(v, NULL);
}

bool vq_ready(const struct virtio *v, unsigned q)
{
	return v->queue[q].enabled && (v->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
	       !(v->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/*
 * Copy an entry of a table of descriptors that the guest may be changing, and that an indirect
 * descriptor may have put at any address.  The barrier keeps the compiler from reading it again.
 */
static struct vring_desc fetch(const struct vring_desc *table, unsigned i)
{
	struct vring_desc d;

	memcpy(&d, (const u8 *)table + i * sizeof(d), sizeof(d));
	__asm__ volatile("" : "+m"(d));
	return d;
}

/*
 * Walk a table of @n descriptors from entry @i, adding buffers to @c.  The first may point to an
 * indirect table if @indirect_ok; only one level is allowed.  Returns false if the chain is broken.
 */
static bool walk(struct virtio *v, const struct vring_desc *table, unsigned n, unsigned i,
		 bool indirect_ok, struct vq_chain *c)
{
	for (unsigned steps = 0; steps < n; steps++) {
		struct vring_desc d;
		void *hva;

		if (i >= n)
			return false;
		d = fetch(table, i);
		hva = mem_hva(v->mem, d.addr, d.len);
		if (!hva)
			return false;
		if (d.flags & VRING_DESC_F_INDIRECT) {
			unsigned entries = d.len / sizeof(struct vring_desc);

			if (!indirect_ok || !virtio_has(v, VIRTIO_RING_F_INDIRECT_DESC) ||
			    (d.flags & VRING_DESC_F_NEXT) || !entries ||
			    d.len % sizeof(struct vring_desc))
				return false;
			return walk(v, hva, entries, 0, false, c);
		}
		if (c->nout + c->nin == VQ_MAX_SEGS)
			return false;
		if (d.flags & VRING_DESC_F_WRITE)
			c->nin++;
		else if (c->nin)
			return false; /* readable behind writable */
		else
			c->nout++;
		c->iov[c->nout + c->nin - 1] = (struct iovec){ hva, d.len };
		if (!(d.flags & VRING_DESC_F_NEXT))
			return true;
		i = d.next;
	}
	return false; /* longer than the table: a loop */
}

/* A field of a ring that the driver may be writing. */
static u16 ring_get(const u16 *field)
{
	return __atomic_load_n(field, __ATOMIC_RELAXED);
}

bool vq_pop(struct virtio *v, unsigned q, struct vq_chain *c)
{
	struct virtq *vq = &v->queue[q];
	u16 avail;

	if (!vq_ready(v, q))
		return false;
	avail = __atomic_load_n(&vq->avail->idx, __ATOMIC_ACQUIRE);
	if (avail == vq->last_avail)
		return false;
	c->nout = c->nin = 0;
	c->head = ring_get(&vq->avail->ring[vq->last_avail % vq->size]);
	if ((u16)(avail - vq->last_avail) > vq->size ||
	    !walk(v, vq->desc, vq->size, c->head, true, c)) {
		virtio_fail(v);
		return false;
	}
	vq->last_avail++;
	return true;
}

void vq_push(struct virtio *v, unsigned q, const struct vq_chain *c, u32 written)
{
	struct virtq *vq = &v->queue[q];
	struct vring_used_elem *e;

	if (!vq->enabled)
		return;
	e = &vq->used->ring[vq->used_idx % vq->size];
	WRITE_ONCE(e->id, c->head);
	WRITE_ONCE(e->len, written);
	vq->used_idx++;
	__atomic_store_n(&vq->used->idx, vq->used_idx, __ATOMIC_RELEASE);
}

void vq_signal(struct virtio *v, unsigned q)
{
	struct virtq *vq = &v->queue[q];
	u16 old = vq->signalled;
	bool wanted;

	if (!vq->enabled || old == vq->used_idx)
		return;
	vq->signalled = vq->used_idx;
	/* The used index must be visible before we look whether the driver wants to hear of it. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (virtio_has(v, VIRTIO_RING_F_EVENT_IDX))
		wanted = vring_need_event(ring_get(&vq->avail->ring[vq->size]), vq->used_idx, old);
	else
		wanted = !(ring_get(&vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	if (wanted)
		v->interrupt(v, vq);
}

bool vq_more(struct virtio *v, unsigned q)
{
	struct virtq *vq = &v->queue[q];

	if (!vq_ready(v, q))
		return false;
	/* The avail event index lies behind the used ring (vring_avail_event()). */
	if (virtio_has(v, VIRTIO_RING_F_EVENT_IDX))
		__atomic_store_n((u16 *)&vq->used->ring[vq->size], vq->last_avail,
				 __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return ring_get(&vq->avail->idx) != vq->last_avail;
}

size_t iov_len(const struct iovec *iov, unsigned n)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

unsigned iov_part(const struct iovec *iov, unsigned n, size_t offset, size_t len,
		  struct iovec *part)
{
	unsigned out = 0;

	for (unsigned i = 0; i < n && len; i++) {
		size_t take;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		take = um_min(len, iov[i].iov_len - offset);
		part[out++] = (struct iovec){ (u8 *)iov[i].iov_base + offset, take };
		len -= take;
		offset = 0;
	}
	return out;
}

static size_t iov_copy(const struct iovec *iov, unsigned n, size_t offset, void *data, size_t len,
		       bool put)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		u8 *base = iov[i].iov_base;
		size_t take;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		take = um_min(len - done, iov[i].iov_len - offset);
		if (put)
			memcpy(base + offset, (u8 *)data + done, take);
		else
			memcpy((u8 *)data + done, base + offset, take);
		done += take;
		offset = 0;
	}
	return done;
}

size_t iov_get(const struct iovec *iov, unsigned n, size_t offset, void *data, size_t len)
{
	return iov_copy(iov, n, offset, data, len, false);
}

size_t iov_put(const struct iovec *iov, unsigned n, size_t offset, const void *data, size_t len)
{
	return iov_copy(iov, n, offset, (void *)data, len, true);
}

void virtio_config_copy(const void *config, size_t size, u32 offset, void *data, unsigned len)
{
	memset(data, 0, len);
	if (offset < size)
		memcpy(data, (const u8 *)config + offset, um_min((size_t)len, size - offset));
}

/* SPDX-License-Identifier: MIT */
/*
 * Virtio devices, apart from how they are plugged in (virtio_pci.c) and what they do (virtio_blk.c ...):
 * feature negotiation, status, and split virtqueues (Virtual I/O Device 1.1, 2.6), with indirect
 * descriptors and event indexes.
 *
 * The guest's rings are hostile input.  Whatever is wrong with them (an address that is no RAM, a loop,
 * a chain too long, an index out of bounds) makes the device "need reset" (2.1.2), and it does nothing
 * more until the driver resets it.
 *
 * Locking: struct virtio's lock protects all fields here and the rings.  A device may drop it during
 * I/O; reset() must then wait until the I/O is over.
 */
#ifndef VMM_VIRTIO_H
#define VMM_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <sys/uio.h>

#include "base/types.h"
#include "memory.h"

#define VQ_MAX_SIZE	  256
#define VQ_MAX_SEGS	  256 /* of one chain, indirect ones included */
#define VIRTIO_MAX_QUEUES 2

struct virtio;

struct virtq {
	/* As the driver set them. */
	u16 size;
	bool enabled;
	u64 desc_gpa, avail_gpa, used_gpa;
	u16 vector; /* the transport's */

	/* While enabled. */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	u16 last_avail; /* next entry of avail->ring to take */
	u16 used_idx;	/* next entry of used->ring to fill */
	u16 signalled;	/* used_idx at the last vq_signal() */
};

/* A chain of descriptors: @nout readable buffers, then @nin writable ones. */
struct vq_chain {
	u16 head;
	unsigned nout, nin;
	struct iovec iov[VQ_MAX_SEGS];
};

struct virtio_ops {
	u16 id;	   /* VIRTIO_ID_... */
	u32 class; /* PCI class code */
	unsigned nqueues;
	/* Device configuration space.  @offset and @len may be anything.  Lock held. */
	void (*config_read)(struct virtio *v, u32 offset, void *data, unsigned len);
	void (*config_write)(struct virtio *v, u32 offset, const void *data, unsigned len);
	/* The driver put buffers into queue @q.  On a vCPU's thread; lock not held. */
	void (*notify)(struct virtio *v, unsigned q);
	/* Stop all I/O: when this returns the device touches no guest memory.  Lock held. */
	void (*reset)(struct virtio *v);
};

struct virtio {
	const struct virtio_ops *ops;
	const struct memory *mem;
	u64 offered; /* feature bits, set before the device is plugged in */
	/* How the transport interrupts: for queue @vq, or NULL for a configuration change.  Lock held. */
	void (*interrupt)(struct virtio *v, const struct virtq *vq);
	void *transport; /* the transport's own */

	pthread_mutex_t lock;
	u64 features; /* that the driver accepted */
	u8 status;    /* VIRTIO_CONFIG_S_... */
	u8 config_generation;
	u32 resets; /* counts them, for work that was begun before one */
	struct virtq queue[VIRTIO_MAX_QUEUES];
};

/* @features: the device's own; those of rings and VIRTIO_F_VERSION_1 are added. */
void virtio_init(struct virtio *v, const struct virtio_ops *ops, const struct memory *mem,
		 u64 features);
void virtio_fini(struct virtio *v);

/* All below with the lock held. */

/* What a transport does: reset, write the status register (0 resets), enable a queue. */
void virtio_reset(struct virtio *v);
void virtio_set_status(struct virtio *v, u8 status);
void virtio_enable_queue(struct virtio *v, unsigned q);

/* The driver broke the rules: set NEEDS_RESET and tell it. */
void virtio_fail(struct virtio *v);
/* The device's configuration changed. */
void virtio_config_changed(struct virtio *v);

static inline bool virtio_has(const struct virtio *v, unsigned feature)
{
	return v->features & (1ull << feature);
}

/* May the device touch the queue? */
bool vq_ready(const struct virtio *v, unsigned q);

/*
 * Take the next chain.  False if there is none, or the queue is not ready, or the rings are broken
 * (then virtio_fail() was called).
 */
bool vq_pop(struct virtio *v, unsigned q, struct vq_chain *c);

/* Give the chain back, @written bytes of its writable part having been filled. */
void vq_push(struct virtio *v, unsigned q, const struct vq_chain *c, u32 written);

/* Interrupt the driver for what was pushed since the last call, if it wants that. */
void vq_signal(struct virtio *v, unsigned q);

/*
 * Ask for a notification of the next buffer.  True if buffers came meanwhile: the caller goes on with
 * vq_pop().
 */
bool vq_more(struct virtio *v, unsigned q);

/* Scatter-gather helpers: total length; copy @len bytes at @offset out of or into; return the count. */
size_t iov_len(const struct iovec *iov, unsigned n);
size_t iov_get(const struct iovec *iov, unsigned n, size_t offset, void *data, size_t len);
size_t iov_put(const struct iovec *iov, unsigned n, size_t offset, const void *data, size_t len);
/* The part [@offset, @offset + @len) of @iov as a list of its own; returns the number of entries. */
unsigned iov_part(const struct iovec *iov, unsigned n, size_t offset, size_t len,
		  struct iovec *part);

/* Copy from or into a device's configuration structure, bytes outside of it reading as 0. */
void virtio_config_copy(const void *config, size_t size, u32 offset, void *data, unsigned len);

#endif

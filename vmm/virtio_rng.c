// SPDX-License-Identifier: MIT
/*
 * virtio-rng (Virtual I/O Device 1.1, 5.4).  getrandom(2) does not wait and is fast, so buffers are
 * filled on the vCPU's thread; a request gets at most MAX_BYTES (it may get less than its size), and a
 * notification serves at most a queue full, so that the guest cannot keep the thread here.
 */
#include "virtio_rng.h"

#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/bits.h"

#define MAX_BYTES 4096u

struct virtio_rng {
	struct virtio v;
	struct vq_chain chain;
};

static struct virtio_rng *of(struct virtio *v)
{
	return um_container_of(v, struct virtio_rng, v);
}

static void config_read(struct virtio *v, u32 offset, void *data, unsigned len)
{
	(void)v;
	virtio_config_copy(NULL, 0, offset, data, len);
}

/* One request.  False if it breaks the protocol. */
static bool fill(struct vq_chain *c, size_t *written)
{
	u8 buf[MAX_BYTES];
	size_t want = um_min(iov_len(c->iov + c->nout, c->nin), sizeof(buf)), have = 0;

	if (c->nout || !want)
		return false;
	while (have < want) {
		ssize_t n = getrandom(buf + have, want - have, 0);

		if (n > 0)
			have += (size_t)n;
	}
	*written = iov_put(c->iov, c->nin, 0, buf, have);
	return true;
}

static void notify(struct virtio *v, unsigned q)
{
	struct vq_chain *c = &of(v)->chain;
	unsigned served = 0;

	pthread_mutex_lock(&v->lock);
	do {
		while (served < VQ_MAX_SIZE && vq_pop(v, q, c)) {
			size_t written;

			if (!fill(c, &written)) {
				virtio_fail(v);
				break;
			}
			vq_push(v, q, c, (u32)written);
			served++;
		}
		vq_signal(v, q);
	} while (vq_more(v, q) && served < VQ_MAX_SIZE);
	pthread_mutex_unlock(&v->lock);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_RNG,
	.class = 0x00ff00,
	.nqueues = 1,
	.config_read = config_read,
	.notify = notify,
};

struct virtio_rng *virtio_rng_new(const struct memory *mem)
{
	struct virtio_rng *r = calloc(1, sizeof(*r));

	if (r)
		virtio_init(&r->v, &ops, mem, 0);
	return r;
}

struct virtio *virtio_rng_device(struct virtio_rng *r)
{
	return &r->v;
}

void virtio_rng_free(struct virtio_rng *r)
{
	if (!r)
		return;
	virtio_fini(&r->v);
	free(r);
}

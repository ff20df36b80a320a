// SPDX-License-Identifier: MIT
/*
 * virtio-console (Virtual I/O Device 1.1, 5.3), queue 0 to the guest, queue 1 from it.
 *
 * Input is taken from the terminal's queue when the guest has given a buffer for it, never before.
 * Output is written on the vCPU's thread, which waits if the terminal is slow, as with the serial
 * port; the device's lock is dropped meanwhile, and `tx_lock` keeps the order.
 */
#include "virtio_console.h"

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "terminal.h"

#define RXQ 0
#define TXQ 1

struct virtio_console {
	struct virtio v;
	struct terminal *term;
	struct virtio_console_config config;
	struct vq_chain rx;
	pthread_mutex_t tx_lock; /* taken before v.lock */
	struct vq_chain tx;	 /* protected by tx_lock */
};

static struct virtio_console *of(struct virtio *v)
{
	return um_container_of(v, struct virtio_console, v);
}

/* Move what waits in the terminal's queue into the guest's buffers.  Lock held. */
static void receive(struct virtio_console *c)
{
	do {
		size_t avail;

		while ((avail = term_avail(c->term)) > 0 && vq_pop(&c->v, RXQ, &c->rx)) {
			size_t n = um_min(avail, iov_len(c->rx.iov, c->rx.nin));

			if (c->rx.nout || !n) {
				virtio_fail(&c->v);
				return;
			}
			for (size_t i = 0; i < n; i++) {
				u8 byte = term_peek(c->term, i);

				iov_put(c->rx.iov, c->rx.nin, i, &byte, 1);
			}
			term_consume(c->term, n);
			vq_push(&c->v, RXQ, &c->rx, (u32)n);
		}
		vq_signal(&c->v, RXQ);
	} while (vq_more(&c->v, RXQ) && term_avail(c->term));
}

/* At most a queue full for a notification, so that the guest cannot keep the thread here. */
static void transmit(struct virtio_console *c)
{
	unsigned served = 0;

	pthread_mutex_lock(&c->tx_lock);
	pthread_mutex_lock(&c->v.lock);
	do {
		while (served < VQ_MAX_SIZE && vq_pop(&c->v, TXQ, &c->tx)) {
			u32 resets = c->v.resets;

			served++;
			pthread_mutex_unlock(&c->v.lock);
			for (unsigned i = 0; i < c->tx.nout; i++)
				term_write(c->term, c->tx.iov[i].iov_base, c->tx.iov[i].iov_len);
			pthread_mutex_lock(&c->v.lock);
			if (resets == c->v.resets)
				vq_push(&c->v, TXQ, &c->tx, 0);
		}
		vq_signal(&c->v, TXQ);
	} while (vq_more(&c->v, TXQ) && served < VQ_MAX_SIZE);
	pthread_mutex_unlock(&c->v.lock);
	pthread_mutex_unlock(&c->tx_lock);
}

static void notify(struct virtio *v, unsigned q)
{
	if (q == TXQ)
		transmit(of(v));
	else
		virtio_console_input(of(v));
}

static void config_read(struct virtio *v, u32 offset, void *data, unsigned len)
{
	virtio_config_copy(&of(v)->config, sizeof(of(v)->config), offset, data, len);
}

/* The emergency write: a character without a queue. */
static void config_write(struct virtio *v, u32 offset, const void *data, unsigned len)
{
	u8 byte;

	if (offset != offsetof(struct virtio_console_config, emerg_wr) || !len)
		return;
	memcpy(&byte, data, 1);
	pthread_mutex_unlock(&v->lock);
	term_write(of(v)->term, &byte, 1);
	pthread_mutex_lock(&v->lock);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_CONSOLE,
	.class = 0x078000,
	.nqueues = 2,
	.config_read = config_read,
	.config_write = config_write,
	.notify = notify,
};

void virtio_console_input(void *opaque)
{
	struct virtio_console *c = opaque;

	pthread_mutex_lock(&c->v.lock);
	receive(c);
	pthread_mutex_unlock(&c->v.lock);
}

void virtio_console_resized(struct virtio_console *c)
{
	u16 cols, rows;

	if (!(c->v.offered & BIT(VIRTIO_CONSOLE_F_SIZE)) || !term_size(c->term, &cols, &rows))
		return;
	pthread_mutex_lock(&c->v.lock);
	if (cols != c->config.cols || rows != c->config.rows) {
		c->config.cols = cols;
		c->config.rows = rows;
		virtio_config_changed(&c->v);
	}
	pthread_mutex_unlock(&c->v.lock);
}

struct virtio_console *virtio_console_new(struct terminal *term, const struct memory *mem)
{
	struct virtio_console *c = calloc(1, sizeof(*c));
	u64 features = BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
	u16 cols, rows;

	if (!c)
		return NULL;
	c->term = term;
	if (term_size(term, &cols, &rows)) {
		features |= BIT(VIRTIO_CONSOLE_F_SIZE);
		c->config.cols = cols;
		c->config.rows = rows;
	}
	c->config.max_nr_ports = 1;
	virtio_init(&c->v, &ops, mem, features);
	pthread_mutex_init(&c->tx_lock, NULL);
	return c;
}

struct virtio *virtio_console_device(struct virtio_console *c)
{
	return &c->v;
}

void virtio_console_free(struct virtio_console *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->tx_lock);
	virtio_fini(&c->v);
	free(c);
}

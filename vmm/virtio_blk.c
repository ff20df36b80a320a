// SPDX-License-Identifier: MIT
/*
 * virtio-blk (Virtual I/O Device 1.1, 5.2).
 *
 * One worker thread takes requests in order: it pops a chain under the lock, does the I/O without it
 * (`busy` makes a reset wait), and pushes the answer under it.  A request whose chain has no room for
 * an answer breaks the protocol (NEEDS_RESET); any other failure is a status for the guest.
 */
#include "virtio_blk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "msg.h"

#define SECTOR	      512u
#define MAX_WIPE      (1u << 22) /* sectors of one discard or write-zeroes segment: 2 GiB */
#define MAX_WIPE_SEGS 16

struct virtio_blk {
	struct virtio v;
	int fd;
	bool read_only;
	u64 sectors;
	char id[VIRTIO_BLK_ID_BYTES];
	struct virtio_blk_config config;

	pthread_t worker;
	pthread_cond_t work, idle;
	bool kicked, busy, stopping; /* protected by v.lock */

	/* The worker's own. */
	struct vq_chain chain;
	struct iovec part[VQ_MAX_SEGS];
};

static struct virtio_blk *of(struct virtio *v)
{
	return um_container_of(v, struct virtio_blk, v);
}

/* Is [@sector, @sector + @len bytes) on the disk, and are they whole sectors? */
static bool on_disk(const struct virtio_blk *b, u64 sector, u64 len)
{
	return len % SECTOR == 0 && sector <= b->sectors && len / SECTOR <= b->sectors - sector;
}

/*
 * Read or write all of @n buffers at @offset; they are consumed.  0 or -errno; the end of the file
 * (it was truncated under us) is -EIO.
 */
static int transfer(int fd, struct iovec *iov, unsigned n, off_t offset, bool write)
{
	while (n) {
		ssize_t done =
			write ? pwritev(fd, iov, (int)n, offset) : preadv(fd, iov, (int)n, offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		if (!done)
			return -EIO;
		offset += done;
		while (n && (size_t)done >= iov->iov_len) {
			done -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n) {
			iov->iov_base = (u8 *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

/* Zeroes the slow way, for file systems that cannot do better. */
static int write_zeroes_by_hand(int fd, off_t offset, u64 len)
{
	static const u8 zeroes[65536];

	while (len) {
		struct iovec iov = { (void *)zeroes, um_min(len, (u64)sizeof(zeroes)) };
		size_t n = iov.iov_len;
		int err = transfer(fd, &iov, 1, offset, true);

		if (err)
			return err;
		offset += (off_t)n;
		len -= n;
	}
	return 0;
}

/* Discard or zero one range.  A discard that the host cannot do is done: it is only a hint. */
static int wipe(const struct virtio_blk *b, bool zero, bool unmap, off_t offset, u64 len)
{
	int mode = FALLOC_FL_KEEP_SIZE;

	if (!len)
		return 0;
	mode |= !zero || unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
	if (fallocate(b->fd, mode, offset, (off_t)len) == 0)
		return 0;
	if (!zero)
		return errno == EOPNOTSUPP || errno == ENODEV ? 0 : -errno;
	return write_zeroes_by_hand(b->fd, offset, len);
}

static u8 do_wipe(struct virtio_blk *b, bool zero)
{
	const struct vq_chain *c = &b->chain;
	size_t len = iov_len(c->iov, c->nout) - sizeof(struct virtio_blk_outhdr);
	size_t at = sizeof(struct virtio_blk_outhdr);
	struct virtio_blk_discard_write_zeroes r;

	if (b->read_only || !len || len % sizeof(r) || len / sizeof(r) > MAX_WIPE_SEGS)
		return VIRTIO_BLK_S_IOERR;
	for (; len; len -= sizeof(r), at += sizeof(r)) {
		u32 allowed = zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
		u64 bytes;

		iov_get(c->iov, c->nout, at, &r, sizeof(r));
		bytes = (u64)r.num_sectors * SECTOR;
		if (r.flags & ~allowed)
			return VIRTIO_BLK_S_UNSUPP;
		if (r.num_sectors > MAX_WIPE || !on_disk(b, r.sector, bytes) ||
		    wipe(b, zero, r.flags, (off_t)(r.sector * SECTOR), bytes) < 0)
			return VIRTIO_BLK_S_IOERR;
	}
	return VIRTIO_BLK_S_OK;
}

static u8 do_transfer(struct virtio_blk *b, u64 sector, bool write)
{
	const struct vq_chain *c = &b->chain;
	const struct iovec *iov = write ? c->iov : c->iov + c->nout;
	unsigned niov = write ? c->nout : c->nin, n;
	size_t skip = write ? sizeof(struct virtio_blk_outhdr) : 0;
	size_t len = iov_len(iov, niov) - (write ? skip : 1);

	if (!on_disk(b, sector, len) || (write && b->read_only))
		return VIRTIO_BLK_S_IOERR;
	n = iov_part(iov, niov, skip, len, b->part);
	return transfer(b->fd, b->part, n, (off_t)(sector * SECTOR), write) ? VIRTIO_BLK_S_IOERR
									    : VIRTIO_BLK_S_OK;
}

/* Do the request in b->chain; returns its status. */
static u8 do_request(struct virtio_blk *b, const struct virtio_blk_outhdr *h)
{
	const struct vq_chain *c = &b->chain;

	switch (h->type) {
	case VIRTIO_BLK_T_IN:
		return do_transfer(b, h->sector, false);
	case VIRTIO_BLK_T_OUT:
		return do_transfer(b, h->sector, true);
	case VIRTIO_BLK_T_FLUSH:
		return fdatasync(b->fd) < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_GET_ID:
		if (iov_len(c->iov + c->nout, c->nin) < sizeof(b->id) + 1)
			return VIRTIO_BLK_S_IOERR;
		iov_put(c->iov + c->nout, c->nin, 0, b->id, sizeof(b->id));
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_DISCARD:
		return do_wipe(b, false);
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return do_wipe(b, true);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/* Everything that waits.  Lock held, dropped meanwhile. */
static void serve(struct virtio_blk *b)
{
	struct vq_chain *c = &b->chain;

	while (!b->stopping && vq_pop(&b->v, 0, c)) {
		struct virtio_blk_outhdr h;
		size_t in = iov_len(c->iov + c->nout, c->nin);
		u8 status;

		if (!in || iov_get(c->iov, c->nout, 0, &h, sizeof(h)) != sizeof(h)) {
			virtio_fail(&b->v);
			return;
		}
		b->busy = true;
		pthread_mutex_unlock(&b->v.lock);
		status = do_request(b, &h);
		iov_put(c->iov + c->nout, c->nin, in - 1, &status, 1);
		pthread_mutex_lock(&b->v.lock);
		/* A reset that came meanwhile waits for `busy`: the queue is still as it was. */
		vq_push(&b->v, 0, c, (u32)in);
		vq_signal(&b->v, 0);
		b->busy = false;
		pthread_cond_broadcast(&b->idle);
	}
}

static void *worker_thread(void *arg)
{
	struct virtio_blk *b = arg;

	pthread_mutex_lock(&b->v.lock);
	while (!b->stopping) {
		while (!b->kicked && !b->stopping)
			pthread_cond_wait(&b->work, &b->v.lock);
		b->kicked = false;
		do
			serve(b);
		while (!b->stopping && vq_more(&b->v, 0));
	}
	pthread_mutex_unlock(&b->v.lock);
	return NULL;
}

static void config_read(struct virtio *v, u32 offset, void *data, unsigned len)
{
	virtio_config_copy(&of(v)->config, sizeof(of(v)->config), offset, data, len);
}

static void notify(struct virtio *v, unsigned q)
{
	(void)q;
	pthread_mutex_lock(&v->lock);
	of(v)->kicked = true;
	pthread_cond_signal(&of(v)->work);
	pthread_mutex_unlock(&v->lock);
}

static void reset(struct virtio *v)
{
	while (of(v)->busy)
		pthread_cond_wait(&of(v)->idle, &v->lock);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_BLOCK,
	.class = 0x018000,
	.nqueues = 1,
	.config_read = config_read,
	.notify = notify,
	.reset = reset,
};

/* Open and measure.  0 or -errno after a message. */
static int open_backing(struct virtio_blk *b, const char *path)
{
	struct stat st;
	u64 size;

	b->fd = open(path, (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (b->fd < 0)
		return msg_err(errno, "disk %s: %s", path, strerror(errno));
	if (fstat(b->fd, &st) < 0)
		return msg_err(errno, "disk %s: %s", path, strerror(errno));
	if (S_ISREG(st.st_mode)) {
		size = (u64)st.st_size;
	} else if (!S_ISBLK(st.st_mode)) {
		return msg_err(EINVAL, "disk %s: neither a file nor a block device", path);
	} else if (ioctl(b->fd, BLKGETSIZE64, &size) < 0) {
		return msg_err(errno, "disk %s: %s", path, strerror(errno));
	}
	/* Two VMs that write to one file destroy it. */
	if (flock(b->fd, (b->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return msg_err(EBUSY, "disk %s: in use by another VM", path);
	b->sectors = size / SECTOR;
	if (size % SECTOR)
		msg("disk %s: its last %u bytes are no whole sector and stay unused", path,
		    (unsigned)(size % SECTOR));
	return 0;
}

struct virtio_blk *virtio_blk_new(const char *path, bool read_only, unsigned index,
				  const struct memory *mem)
{
	struct virtio_blk *b = calloc(1, sizeof(*b));
	u64 features =
		BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH);
	int err;

	if (!b)
		return NULL;
	b->read_only = read_only;
	err = open_backing(b, path);
	if (err)
		goto fail;
	snprintf(b->id, sizeof(b->id), "umbra-disk-%u", index);
	if (read_only)
		features |= BIT(VIRTIO_BLK_F_RO);
	else
		features |= BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	b->config = (struct virtio_blk_config){
		.capacity = b->sectors,
		.seg_max = VQ_MAX_SEGS - 2, /* the header and the status have their own */
		.blk_size = SECTOR,
		.max_discard_sectors = MAX_WIPE,
		.max_discard_seg = MAX_WIPE_SEGS,
		.discard_sector_alignment = 4096 / SECTOR,
		.max_write_zeroes_sectors = MAX_WIPE,
		.max_write_zeroes_seg = MAX_WIPE_SEGS,
		.write_zeroes_may_unmap = 1,
	};
	virtio_init(&b->v, &ops, mem, features);
	pthread_cond_init(&b->work, NULL);
	pthread_cond_init(&b->idle, NULL);
	err = pthread_create(&b->worker, NULL, worker_thread, b);
	if (!err)
		return b;
	msg("disk %s: cannot create a thread: %s", path, strerror(err));
	virtio_fini(&b->v);
fail:
	if (b->fd >= 0)
		close(b->fd);
	free(b);
	return NULL;
}

struct virtio *virtio_blk_device(struct virtio_blk *b)
{
	return &b->v;
}

void virtio_blk_free(struct virtio_blk *b)
{
	if (!b)
		return;
	pthread_mutex_lock(&b->v.lock);
	b->stopping = true;
	pthread_cond_signal(&b->work);
	pthread_mutex_unlock(&b->v.lock);
	pthread_join(b->worker, NULL);
	pthread_cond_destroy(&b->work);
	pthread_cond_destroy(&b->idle);
	virtio_fini(&b->v);
	close(b->fd);
	free(b);
}

/* SPDX-License-Identifier: MIT */
/*
 * A disk: virtio-blk on a file or block device, with a thread of its own for the I/O, so that no vCPU
 * waits.  Every error of the host becomes an I/O error of the guest.
 */
#ifndef VMM_VIRTIO_BLK_H
#define VMM_VIRTIO_BLK_H

#include "virtio.h"

struct virtio_blk;

/*
 * Open @path.  @index makes the serial number that GET_ID tells.  NULL after a message: no such file,
 * no permission, neither file nor block device, in use by another VM.
 */
struct virtio_blk *virtio_blk_new(const char *path, bool read_only, unsigned index,
				  const struct memory *mem);
struct virtio *virtio_blk_device(struct virtio_blk *b);

/* Wait for the I/O under way, and free.  The vCPUs must have stopped. */
void virtio_blk_free(struct virtio_blk *b);

#endif

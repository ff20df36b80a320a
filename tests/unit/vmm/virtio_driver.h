/* SPDX-License-Identifier: MIT */
/*
 * A small virtio driver, as a guest would have: it finds the device's structures through PCI
 * capabilities and talks to it through the bus only.
 */
#ifndef TEST_VMM_VIRTIO_DRIVER_H
#define TEST_VMM_VIRTIO_DRIVER_H

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "fixture.h"
#include "vmm/memory.h"
#include "vmm/pci.h"

#define QUEUE_SIZE  16
#define QUEUE_GPA   0x100000u /* queue q: a 64 KiB area at QUEUE_GPA + q * 0x10000 */
#define AVAIL_AT    0x1000u
#define USED_AT	    0x2000u
#define BUFFERS_GPA 0x200000u

struct driver {
	struct mock_board *board;
	struct pci_host *pci;
	const struct memory *mem;
	unsigned slot;
	u64 common, isr, device, notify, msix;
	u16 avail_idx[2], used_idx[2];
};

u32 drv_conf(struct driver *d, unsigned reg);
void drv_set_conf(struct driver *d, unsigned reg, u32 v);
u64 drv_read(struct driver *d, u64 gpa, unsigned len);
void drv_write(struct driver *d, u64 gpa, u64 v, unsigned len);

/* Find the structures of the device in @slot. */
void drv_probe(struct driver *d, unsigned slot);

/* Reset and negotiate: all offered features within @features, and VERSION_1.  Sets DRIVER_OK after
 * setting up @nqueues queues; vector q + 1 for queue q, 0 for the configuration, if @msix. */
void drv_start(struct driver *d, u64 features, unsigned nqueues, bool msix);

struct buffer {
	u64 gpa;
	u32 len;
	bool in;
};

/* Put a chain of @n descriptors from number @first on into queue @q and notify. */
void drv_submit(struct driver *d, unsigned q, unsigned first, const struct buffer *b, unsigned n);
void drv_kick(struct driver *d, unsigned q);

struct vring_desc *drv_desc(struct driver *d, unsigned q);
struct vring_avail *drv_avail(struct driver *d, unsigned q);
struct vring_used *drv_used(struct driver *d, unsigned q);

/* Wait for the next used chain; its length, its head in *@head. */
u32 drv_wait(struct driver *d, unsigned q, u32 *head);

u8 drv_status(struct driver *d);

#endif

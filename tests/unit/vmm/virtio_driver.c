// SPDX-License-Identifier: MIT
#include "virtio_driver.h"

#include <linux/pci_regs.h>

u32 drv_conf(struct driver *d, unsigned reg)
{
	out32(pci_conf_io, d->pci, 0, 0x80000000u | d->slot << 11 | (reg & ~3u));
	return in32(pci_conf_io, d->pci, 4);
}

void drv_set_conf(struct driver *d, unsigned reg, u32 v)
{
	out32(pci_conf_io, d->pci, 0, 0x80000000u | d->slot << 11 | (reg & ~3u));
	out32(pci_conf_io, d->pci, 4, v);
}

u64 drv_read(struct driver *d, u64 gpa, unsigned len)
{
	u64 v = 0;

	pci_mmio(d->pci, gpa - PCI_MMIO_BASE, &v, len, false);
	return v;
}

void drv_write(struct driver *d, u64 gpa, u64 v, unsigned len)
{
	pci_mmio(d->pci, gpa - PCI_MMIO_BASE, &v, len, true);
}

void drv_probe(struct driver *d, unsigned slot)
{
	unsigned caps = 0;

	d->slot = slot;
	assert_int_equal(drv_conf(d, PCI_VENDOR_ID) & 0xffff, 0x1af4);
	drv_set_conf(d, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	for (u8 at = (u8)drv_conf(d, PCI_CAPABILITY_LIST); at; caps++) {
		u32 head = drv_conf(d, at);
		u8 type = head >> 24;

		assert_true(caps < 16);
		if ((head & 0xff) == PCI_CAP_ID_VNDR) {
			u32 bar =
				drv_conf(d, PCI_BASE_ADDRESS_0 + 4 * (drv_conf(d, at + 4) & 0xff));
			u64 gpa = (bar & ~15u) + drv_conf(d, at + 8);

			if (type == VIRTIO_PCI_CAP_COMMON_CFG)
				d->common = gpa;
			else if (type == VIRTIO_PCI_CAP_ISR_CFG)
				d->isr = gpa;
			else if (type == VIRTIO_PCI_CAP_DEVICE_CFG)
				d->device = gpa;
			else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
				d->notify = gpa;
		} else if ((head & 0xff) == PCI_CAP_ID_MSIX) {
			u32 table = drv_conf(d, at + 4);

			d->msix = (drv_conf(d, PCI_BASE_ADDRESS_0 + 4 * (table & 7)) & ~15u) +
				  (table & ~7u);
			drv_set_conf(d, at, (head & 0x7fffffff));
		}
		at = (head >> 8) & 0xff;
	}
	assert_true(d->common && d->isr && d->device && d->notify && d->msix);
}

static void enable_msix(struct driver *d)
{
	for (u8 at = (u8)drv_conf(d, PCI_CAPABILITY_LIST); at;) {
		u32 head = drv_conf(d, at);

		if ((head & 0xff) == PCI_CAP_ID_MSIX)
			drv_set_conf(d, at, head | 0x80000000u);
		at = (head >> 8) & 0xff;
	}
	for (unsigned v = 0; v < 3; v++) {
		drv_write(d, d->msix + v * 16, 0xfee00000, 4);
		drv_write(d, d->msix + v * 16 + 4, 0, 4);
		drv_write(d, d->msix + v * 16 + 8, 0x40 + v, 4);
		drv_write(d, d->msix + v * 16 + 12, 0, 4);
	}
}

static void set_queue(struct driver *d, unsigned q, bool msix)
{
	u64 at = QUEUE_GPA + q * 0x10000u;

	memset(mem_hva(d->mem, at, 0x10000), 0, 0x10000);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SELECT, q, 2);
	assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SIZE, QUEUE_SIZE, 2);
	assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_SIZE, 2), QUEUE_SIZE);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_DESCLO, at, 4);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_DESCHI, 0, 4);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_AVAILLO, at + AVAIL_AT, 8);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_USEDLO, at + USED_AT, 4);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_USEDHI, 0, 4);
	if (msix) {
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, q + 1, 2);
		assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, 2), q + 1);
	}
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	d->avail_idx[q] = d->used_idx[q] = 0;
}

void drv_start(struct driver *d, u64 features, unsigned nqueues, bool msix)
{
	u64 offered, status = d->common + VIRTIO_PCI_COMMON_STATUS;

	drv_write(d, status, 0, 1);
	assert_int_equal(drv_status(d), 0);
	drv_write(d, status, VIRTIO_CONFIG_S_ACKNOWLEDGE, 1);
	drv_write(d, status, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, 1);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	offered = drv_read(d, d->common + VIRTIO_PCI_COMMON_DF, 4);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	offered |= drv_read(d, d->common + VIRTIO_PCI_COMMON_DF, 4) << 32;
	features = (features & offered) | 1ull << VIRTIO_F_VERSION_1;
	drv_write(d, d->common + VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_GF, (u32)features, 4);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_GF, features >> 32, 4);
	drv_write(d, status, 0x0b, 1);
	assert_int_equal(drv_status(d), 0x0b);
	if (msix) {
		enable_msix(d);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_MSIX, 0, 2);
	}
	for (unsigned q = 0; q < nqueues; q++)
		set_queue(d, q, msix);
	drv_write(d, status, 0x0f, 1);
	assert_int_equal(drv_status(d), 0x0f);
}

struct vring_desc *drv_desc(struct driver *d, unsigned q)
{
	return mem_hva(d->mem, QUEUE_GPA + q * 0x10000u, 0x1000);
}

struct vring_avail *drv_avail(struct driver *d, unsigned q)
{
	return mem_hva(d->mem, QUEUE_GPA + q * 0x10000u + AVAIL_AT, 0x1000);
}

struct vring_used *drv_used(struct driver *d, unsigned q)
{
	return mem_hva(d->mem, QUEUE_GPA + q * 0x10000u + USED_AT, 0x1000);
}

void drv_kick(struct driver *d, unsigned q)
{
	drv_write(d, d->notify + 4 * q, q, 2);
}

void drv_submit(struct driver *d, unsigned q, unsigned first, const struct buffer *b, unsigned n)
{
	struct vring_desc *desc = drv_desc(d, q);
	struct vring_avail *avail = drv_avail(d, q);

	for (unsigned i = 0; i < n; i++)
		desc[first + i] = (struct vring_desc){
			.addr = b[i].gpa,
			.len = b[i].len,
			.flags = (b[i].in ? VRING_DESC_F_WRITE : 0) |
				 (i + 1 < n ? VRING_DESC_F_NEXT : 0),
			.next = (u16)(first + i + 1),
		};
	avail->ring[d->avail_idx[q]++ % QUEUE_SIZE] = (u16)first;
	__atomic_store_n(&avail->idx, d->avail_idx[q], __ATOMIC_SEQ_CST);
	drv_kick(d, q);
}

u32 drv_wait(struct driver *d, unsigned q, u32 *head)
{
	struct vring_used *used = drv_used(d, q);
	struct vring_used_elem e;

	wait_until(__atomic_load_n(&used->idx, __ATOMIC_SEQ_CST) != d->used_idx[q]);
	e = used->ring[d->used_idx[q]++ % QUEUE_SIZE];
	if (head)
		*head = e.id;
	return e.len;
}

u8 drv_status(struct driver *d)
{
	return (u8)drv_read(d, d->common + VIRTIO_PCI_COMMON_STATUS, 1);
}

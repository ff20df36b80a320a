// SPDX-License-Identifier: MIT
/*
 * PCI host bridge and bus 0.
 *
 * Configuration space is an array of bytes with an array of writable bits beside it: writes are merged
 * by mask, which also makes BAR sizing work.  A device with side effects on its capabilities gets
 * config_event().
 *
 * Locks: `lock` (reader: BAR accesses; writer: configuration) is taken before any device's lock;
 * `intx_lock` after it.  So a device may drive its pin with its own lock held.
 */
#include "pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pm.h"

const u8 pci_line_gsi[PCI_NLINES] = { 10, 11, 5, 7 };

#define CONF_ENABLE 0x80000000u

struct pci_host {
	struct board *board;
	pthread_rwlock_t lock;
	pthread_mutex_t intx_lock;
	u32 address; /* the CONFIG_ADDRESS register */
	u32 next_bar;
	struct pci_dev *slot[PCI_MAX_SLOTS];
	struct pci_dev bridge;
	unsigned line_count[PCI_NLINES]; /* how many devices drive the line */
};

static u16 get16(const u8 *p)
{
	u16 v;

	memcpy(&v, p, 2);
	return v;
}

static void put16(u8 *p, u16 v)
{
	memcpy(p, &v, 2);
}

static void put32(u8 *p, u32 v)
{
	memcpy(p, &v, 4);
}

static u32 bar_base(const struct pci_dev *d, unsigned bar)
{
	u32 v;

	memcpy(&v, d->config + PCI_BASE_ADDRESS_0 + 4 * bar, 4);
	return v & PCI_BASE_ADDRESS_MEM_MASK;
}

/* intx_lock held. */
static void update_intx(struct pci_dev *d)
{
	struct pci_host *h = d->host;
	bool drive = d->intx_wanted && !(get16(d->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);
	unsigned line = d->slot % PCI_NLINES;

	if (d->intx_wanted)
		d->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		d->config[PCI_STATUS] &= (u8)~PCI_STATUS_INTERRUPT;
	if (drive == d->intx_driven)
		return;
	d->intx_driven = drive;
	if (drive ? h->line_count[line]++ == 0 : --h->line_count[line] == 0)
		board_set_line(h->board, pci_line_gsi[line], drive);
}

void pci_set_intx(struct pci_dev *d, bool level)
{
	pthread_mutex_lock(&d->host->intx_lock);
	d->intx_wanted = level;
	update_intx(d);
	pthread_mutex_unlock(&d->host->intx_lock);
}

static void config_read(struct pci_dev *d, unsigned offset, u8 *data, unsigned len)
{
	if (offset >= PCI_STD_HEADER_SIZEOF && d->config_event)
		d->config_event(d, offset, len, false);
	memcpy(data, d->config + offset, len);
}

static void config_write(struct pci_dev *d, unsigned offset, const u8 *data, unsigned len)
{
	pthread_mutex_lock(&d->host->intx_lock);
	for (unsigned i = 0; i < len; i++) {
		u8 mask = d->writable[offset + i];

		d->config[offset + i] = (u8)((d->config[offset + i] & ~mask) | (data[i] & mask));
	}
	update_intx(d); /* the disable bit may have changed */
	pthread_mutex_unlock(&d->host->intx_lock);
	if (offset >= PCI_STD_HEADER_SIZEOF && d->config_event)
		d->config_event(d, offset, len, true);
}

/* An access to CONFIG_DATA.  Only bus 0 and function 0 exist. */
static void config_data(struct pci_host *h, unsigned byte, u8 *data, unsigned len, bool write)
{
	u32 a = h->address;
	struct pci_dev *d = NULL;
	unsigned offset = (a & 0xfc) + byte;

	if ((a & CONF_ENABLE) && !(a & 0x00ff0700))
		d = h->slot[(a >> 11) & 31];
	if (d && write)
		config_write(d, offset, data, len);
	else if (d)
		config_read(d, offset, data, len);
	else if (!write)
		memset(data, 0xff, len);
}

void pci_conf_io(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct pci_host *h = opaque;

	/* One byte of CONFIG_ADDRESS's ports is the reset control register's. */
	if (offset == RESET_PORT - PCI_CONF_PORT && len == 1) {
		if (write)
			pm_reset_control(h->board, *(u8 *)data);
		else
			*(u8 *)data = 0;
		return;
	}
	pthread_rwlock_wrlock(&h->lock);
	if (offset >= 4) {
		unsigned byte = (unsigned)offset - 4;

		config_data(h, byte, data, um_min(len, 4 - byte), write);
	} else if (offset == 0 && len == 4) {
		/* Only a 4-byte access reaches CONFIG_ADDRESS. */
		if (write)
			memcpy(&h->address, data, 4);
		else
			memcpy(data, &h->address, 4);
	} else if (!write) {
		memset(data, 0xff, len);
	}
	pthread_rwlock_unlock(&h->lock);
}

void pci_bar_access(struct pci_dev *d, unsigned bar, u32 offset, void *data, unsigned len,
		    bool write)
{
	if (bar < PCI_NBARS && d->bar[bar].size && offset < d->bar[bar].size &&
	    len <= d->bar[bar].size - offset)
		d->bar[bar].fn(d->opaque, offset, data, len, write);
	else if (!write)
		memset(data, 0xff, len);
}

void pci_mmio(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct pci_host *h = opaque;
	u64 addr = PCI_MMIO_BASE + offset;

	pthread_rwlock_rdlock(&h->lock);
	for (unsigned s = 0; s < PCI_MAX_SLOTS; s++) {
		struct pci_dev *d = h->slot[s];

		if (!d || !(get16(d->config + PCI_COMMAND) & PCI_COMMAND_MEMORY))
			continue;
		for (unsigned b = 0; b < PCI_NBARS; b++) {
			u32 base = bar_base(d, b);

			if (!d->bar[b].size || addr < base || addr - base >= d->bar[b].size)
				continue;
			pci_bar_access(d, b, (u32)(addr - base), data, len, write);
			goto out;
		}
	}
	if (!write)
		memset(data, 0xff, len);
out:
	pthread_rwlock_unlock(&h->lock);
}

static int assign_bar(struct pci_host *h, struct pci_dev *d, unsigned b)
{
	u32 size = d->bar[b].size, base = ALIGN_UP(h->next_bar, size);
	u8 *reg = d->config + PCI_BASE_ADDRESS_0 + 4 * b;

	if (base < h->next_bar || base > PCI_MMIO_END - size)
		return -ENOSPC;
	h->next_bar = base + size;
	put32(reg, base | PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_32);
	put32(d->writable + PCI_BASE_ADDRESS_0 + 4 * b, ~(size - 1));
	return 0;
}

int pci_add(struct pci_host *h, struct pci_dev *d)
{
	u8 *c = d->config, *w = d->writable;
	unsigned slot = 0;

	while (slot < PCI_MAX_SLOTS && h->slot[slot])
		slot++;
	if (slot == PCI_MAX_SLOTS)
		return -ENOSPC;
	d->host = h;
	d->slot = slot;
	put16(c + PCI_VENDOR_ID, d->vendor);
	put16(c + PCI_DEVICE_ID, d->device);
	c[PCI_REVISION_ID] = d->revision;
	c[PCI_CLASS_PROG] = (u8)d->class;
	put16(c + PCI_CLASS_DEVICE, (u16)(d->class >> 8));
	put16(c + PCI_SUBSYSTEM_VENDOR_ID, d->subsystem_vendor);
	put16(c + PCI_SUBSYSTEM_ID, d->subsystem);
	w[PCI_CACHE_LINE_SIZE] = 0xff;
	w[PCI_LATENCY_TIMER] = 0xff;
	for (unsigned b = 0; b < PCI_NBARS; b++) {
		int err = d->bar[b].size ? assign_bar(h, d, b) : 0;

		if (err)
			return err;
	}
	put16(w + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	if (d->bar[0].size)
		put16(c + PCI_COMMAND, PCI_COMMAND_MEMORY);
	if (d->has_intx) {
		c[PCI_INTERRUPT_PIN] = 1;
		c[PCI_INTERRUPT_LINE] = pci_line_gsi[slot % PCI_NLINES];
		w[PCI_INTERRUPT_LINE] = 0xff;
	}
	d->next_cap = PCI_STD_HEADER_SIZEOF;
	d->last_cap_ptr = PCI_CAPABILITY_LIST;
	h->slot[slot] = d;
	return 0;
}

unsigned pci_add_capability(struct pci_dev *d, const void *cap, unsigned len)
{
	unsigned at = d->next_cap;

	memcpy(d->config + at, cap, len);
	d->config[at + PCI_CAP_LIST_NEXT] = 0;
	d->config[d->last_cap_ptr] = (u8)at;
	d->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	d->last_cap_ptr = (u8)(at + PCI_CAP_LIST_NEXT);
	d->next_cap = (u8)ALIGN_UP(at + len, 4u);
	return at;
}

struct pci_host *pci_host_new(struct board *board)
{
	struct pci_host *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->board = board;
	h->next_bar = PCI_MMIO_BASE;
	pthread_rwlock_init(&h->lock, NULL);
	pthread_mutex_init(&h->intx_lock, NULL);
	h->bridge = (struct pci_dev){
		/* A host bridge without registers of its own. */
		.vendor = 0x8086,
		.device = 0x0d57,
		.class = 0x060000,
	};
	pci_add(h, &h->bridge);
	return h;
}

void pci_host_free(struct pci_host *h)
{
	if (!h)
		return;
	pthread_rwlock_destroy(&h->lock);
	pthread_mutex_destroy(&h->intx_lock);
	free(h);
}

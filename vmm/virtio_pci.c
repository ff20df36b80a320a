// SPDX-License-Identifier: MIT
/*
 * Virtio over PCI.  BAR 0 has a page for each structure that the capabilities point to:
 *
 *   0x0000  common configuration      0x2000  device configuration
 *   0x1000  interrupt status (ISR)    0x3000  notification, 4 bytes a queue
 *
 * and BAR 1 the MSI-X table.
 */
#include "virtio_pci.h"

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>

#include "msg.h"
#include "msix.h"

#define VENDOR_REDHAT 0x1af4
#define DEVICE_MODERN 0x1040 /* plus the virtio device id */
#define COMMON_AT     0x0000u
#define ISR_AT	      0x1000u
#define DEVICE_AT     0x2000u
#define NOTIFY_AT     0x3000u
#define NOTIFY_STRIDE 4u
#define BAR_PAGE      0x1000u
#define BAR_SIZE      0x4000u
#define ISR_QUEUE     1
#define ISR_CONFIG    2

struct virtio_pci {
	struct pci_dev pci;
	struct virtio *v;
	struct msix msix;
	unsigned cfg_cap; /* offset of VIRTIO_PCI_CAP_PCI_CFG */

	/* Protected by the device's lock. */
	u32 device_feature_select, driver_feature_select;
	u16 config_vector, queue_select;
	u8 isr;
};

/* The interrupt() of struct virtio.  @v's lock held. */
static void interrupt(struct virtio *v, const struct virtq *vq)
{
	struct virtio_pci *p = v->transport;

	if (msix_enabled(&p->msix)) {
		msix_send(&p->msix, vq ? vq->vector : p->config_vector);
		return;
	}
	p->isr |= vq ? ISR_QUEUE : ISR_CONFIG;
	pci_set_intx(&p->pci, true);
}

static void reset_transport(struct virtio_pci *p)
{
	p->device_feature_select = p->driver_feature_select = 0;
	p->config_vector = VIRTIO_MSI_NO_VECTOR;
	p->queue_select = 0;
	p->isr = 0;
	for (unsigned q = 0; q < p->v->ops->nqueues; q++)
		p->v->queue[q].vector = VIRTIO_MSI_NO_VECTOR;
	msix_reset(&p->msix);
	pci_set_intx(&p->pci, false);
}

static struct virtq *selected(struct virtio_pci *p)
{
	return p->queue_select < p->v->ops->nqueues ? &p->v->queue[p->queue_select] : NULL;
}

static u32 feature_word(u64 features, u32 select)
{
	return select < 2 ? (u32)(features >> (32 * select)) : 0;
}

/* Reads see a snapshot of the whole structure, so any width at any offset works. */
static void common_read(struct virtio_pci *p, u32 offset, void *data, unsigned len)
{
	const struct virtio *v = p->v;
	const struct virtq *vq = selected(p);
	struct virtio_pci_common_cfg c = {
		.device_feature_select = p->device_feature_select,
		.device_feature = feature_word(v->offered, p->device_feature_select),
		.guest_feature_select = p->driver_feature_select,
		.guest_feature = feature_word(v->features, p->driver_feature_select),
		.msix_config = p->config_vector,
		.num_queues = (u16)v->ops->nqueues,
		.device_status = v->status,
		.config_generation = v->config_generation,
		.queue_select = p->queue_select,
	};

	if (vq) {
		c.queue_size = vq->size;
		c.queue_msix_vector = vq->vector;
		c.queue_enable = vq->enabled;
		c.queue_notify_off = p->queue_select;
		c.queue_desc_lo = (u32)vq->desc_gpa;
		c.queue_desc_hi = (u32)(vq->desc_gpa >> 32);
		c.queue_avail_lo = (u32)vq->avail_gpa;
		c.queue_avail_hi = (u32)(vq->avail_gpa >> 32);
		c.queue_used_lo = (u32)vq->used_gpa;
		c.queue_used_hi = (u32)(vq->used_gpa >> 32);
	}
	virtio_config_copy(&c, sizeof(c), offset, data, len);
}

/* A vector that does not exist is refused: the driver reads back NO_VECTOR (4.1.5.1.2). */
static u16 vector(const struct virtio_pci *p, u16 n)
{
	return n < p->msix.nvectors ? n : VIRTIO_MSI_NO_VECTOR;
}

static void set_low(u64 *field, u32 value)
{
	*field = (*field & ~0xffffffffull) | value;
}

static void set_high(u64 *field, u32 value)
{
	*field = (*field & 0xffffffffull) | (u64)value << 32;
}

static void write_queue_field(struct virtio_pci *p, struct virtq *vq, u32 offset, u32 value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		if (value && value <= VQ_MAX_SIZE && !(value & (value - 1)))
			vq->size = (u16)value;
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		vq->vector = vector(p, (u16)value);
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)
			virtio_enable_queue(p->v, p->queue_select);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		set_low(&vq->desc_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		set_high(&vq->desc_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		set_low(&vq->avail_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		set_high(&vq->avail_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		set_low(&vq->used_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		set_high(&vq->used_gpa, value);
		break;
	default: /* read-only */
		break;
	}
}

static void common_write(struct virtio_pci *p, u32 offset, u32 value)
{
	struct virtio *v = p->v;
	struct virtq *vq = selected(p);

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		p->device_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		p->driver_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		if (v->status & VIRTIO_CONFIG_S_FEATURES_OK)
			break; /* negotiated */
		if (p->driver_feature_select == 0)
			set_low(&v->features, value);
		else if (p->driver_feature_select == 1)
			set_high(&v->features, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		p->config_vector = vector(p, (u16)value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_set_status(v, (u8)value);
		if (!(u8)value)
			reset_transport(p);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		p->queue_select = (u16)value;
		break;
	default:
		/* An enabled queue keeps its place and size. */
		if (vq && (!vq->enabled || offset == VIRTIO_PCI_COMMON_Q_MSIX))
			write_queue_field(p, vq, offset, value);
	}
}

/* Addresses of 64 bits may be written at once or in halves; the rest in its own width (4.1.3.1). */
static void common_access(struct virtio_pci *p, u32 offset, void *data, unsigned len, bool write)
{
	u32 value = 0;

	if (!write) {
		common_read(p, offset, data, len);
		return;
	}
	memcpy(&value, data, um_min(len, 4u));
	common_write(p, offset, value);
	if (len == 8) {
		memcpy(&value, (u8 *)data + 4, 4);
		common_write(p, offset + 4, value);
	}
}

static void isr_access(struct virtio_pci *p, void *data, unsigned len, bool write)
{
	if (write)
		return;
	memset(data, 0, len);
	*(u8 *)data = p->isr;
	p->isr = 0;
	pci_set_intx(&p->pci, false);
}

static void bar_access(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct virtio_pci *p = opaque;
	struct virtio *v = p->v;
	u32 in_page = (u32)offset & (BAR_PAGE - 1);

	if (offset >= NOTIFY_AT) {
		if (!write)
			memset(data, 0, len);
		else if (in_page / NOTIFY_STRIDE < v->ops->nqueues)
			v->ops->notify(v, in_page / NOTIFY_STRIDE);
		return;
	}
	pthread_mutex_lock(&v->lock);
	if (offset >= DEVICE_AT) {
		if (!write)
			v->ops->config_read(v, in_page, data, len);
		else if (v->ops->config_write)
			v->ops->config_write(v, in_page, data, len);
	} else if (offset >= ISR_AT) {
		isr_access(p, data, len, write);
	} else {
		common_access(p, in_page, data, len, write);
	}
	pthread_mutex_unlock(&v->lock);
}

static void msix_access(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct virtio_pci *p = opaque;

	pthread_mutex_lock(&p->v->lock);
	msix_bar(&p->msix, (u32)offset, data, len, write);
	pthread_mutex_unlock(&p->v->lock);
}

/*
 * The window in configuration space through which firmware may reach the BARs (4.1.4.8): an access to
 * its data field is one to the BAR, offset and length that the capability says.
 */
static void window_access(struct virtio_pci *p, bool write)
{
	struct virtio_pci_cap cap;
	u8 *data = p->pci.config + p->cfg_cap + sizeof(cap);

	memcpy(&cap, p->pci.config + p->cfg_cap, sizeof(cap));
	if ((cap.length == 1 || cap.length == 2 || cap.length == 4) && cap.offset % cap.length == 0)
		pci_bar_access(&p->pci, cap.bar, cap.offset, data, cap.length, write);
}

static void config_event(struct pci_dev *d, unsigned offset, unsigned len, bool write)
{
	struct virtio_pci *p = d->opaque;
	unsigned window = p->cfg_cap + sizeof(struct virtio_pci_cap);

	if (offset < window + 4 && offset + len > window)
		window_access(p, write);
	if (write) {
		pthread_mutex_lock(&p->v->lock);
		msix_config_written(&p->msix);
		pthread_mutex_unlock(&p->v->lock);
	}
}

static unsigned add_cap(struct virtio_pci *p, u8 type, u32 offset, u32 length, u32 extra,
			unsigned extra_len)
{
	struct {
		struct virtio_pci_cap cap;
		u32 extra;
	} c = {
		.cap = {
			.cap_vndr = PCI_CAP_ID_VNDR,
			.cap_len = (u8)(sizeof(struct virtio_pci_cap) + extra_len),
			.cfg_type = type,
			.bar = 0,
			.offset = offset,
			.length = length,
		},
		.extra = extra,
	};

	return pci_add_capability(&p->pci, &c, c.cap.cap_len);
}

static void add_capabilities(struct virtio_pci *p)
{
	u8 *writable;

	add_cap(p, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_AT, BAR_PAGE, 0, 0);
	add_cap(p, VIRTIO_PCI_CAP_ISR_CFG, ISR_AT, BAR_PAGE, 0, 0);
	add_cap(p, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_AT, BAR_PAGE, 0, 0);
	add_cap(p, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_AT, BAR_PAGE, NOTIFY_STRIDE, 4);
	p->cfg_cap = add_cap(p, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0, 4);
	writable = p->pci.writable + p->cfg_cap;
	writable[VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(writable + VIRTIO_PCI_CAP_OFFSET, 0xff, 12); /* offset, length, data */
}

struct virtio_pci *virtio_pci_new(struct virtio *v, struct pci_host *host, struct board *board)
{
	struct virtio_pci *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->v = v;
	p->pci = (struct pci_dev){
		.vendor = VENDOR_REDHAT,
		.device = (u16)(DEVICE_MODERN + v->ops->id),
		.subsystem_vendor = VENDOR_REDHAT,
		.subsystem = v->ops->id,
		.revision = 1,
		.class = v->ops->class,
		.has_intx = true,
		.bar = { { BAR_SIZE, bar_access }, { MSIX_BAR_SIZE, msix_access } },
		.opaque = p,
		.config_event = config_event,
	};
	if (pci_add(host, &p->pci) < 0) {
		msg("too many devices: the PCI bus is full");
		free(p);
		return NULL;
	}
	msix_init(&p->msix, board, &p->pci, 1, v->ops->nqueues + 1);
	add_capabilities(p);
	v->transport = p;
	v->interrupt = interrupt;
	reset_transport(p);
	return p;
}

void virtio_pci_free(struct virtio_pci *p)
{
	free(p);
}

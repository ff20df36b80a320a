/* SPDX-License-Identifier: MIT */
/*
 * The PCI transport of virtio devices: modern ("1.0") interface only, MSI-X and INTx (Virtual I/O
 * Device 1.1, 4.1).
 */
#ifndef VMM_VIRTIO_PCI_H
#define VMM_VIRTIO_PCI_H

#include "board.h"
#include "pci.h"
#include "virtio.h"

struct virtio_pci;

/*
 * Plug @v into the bus.  From then on its interrupt() is set.  NULL after a message if the bus is full.
 * The device must outlive this.
 */
struct virtio_pci *virtio_pci_new(struct virtio *v, struct pci_host *host, struct board *board);
void virtio_pci_free(struct virtio_pci *p);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * MSI-X (PCI Local Bus 3.0, 6.8.2): the capability, and a table of messages with mask and pending bits
 * in a BAR of their own.  The owner serializes all calls.
 */
#ifndef VMM_MSIX_H
#define VMM_MSIX_H

#include "base/types.h"
#include "pci.h"

#define MSIX_MAX_VECTORS 16
#define MSIX_BAR_SIZE	 0x1000u
#define MSIX_PBA_OFFSET	 0x800u

struct msix {
	struct board *board;
	struct pci_dev *dev;
	unsigned cap; /* offset of the capability */
	unsigned nvectors;
	u32 table[MSIX_MAX_VECTORS][4]; /* address, address high, data, control */
	u32 pending;
};

/* Add the capability to @dev, whose BAR @bar has MSIX_BAR_SIZE. */
void msix_init(struct msix *m, struct board *board, struct pci_dev *dev, unsigned bar,
	       unsigned nvectors);

/* Has the guest enabled MSI-X (and so given up INTx)? */
bool msix_enabled(const struct msix *m);

/* Send vector @n, or remember it while it is masked.  Vectors that don't exist are ignored. */
void msix_send(struct msix *m, unsigned n);

/* An access to the BAR, @len at most 4 (or 8, aligned). */
void msix_bar(struct msix *m, u32 offset, void *data, unsigned len, bool write);

/* Configuration space was written: send what became unmasked. */
void msix_config_written(struct msix *m);

/* Forget pending interrupts (the device was reset). */
void msix_reset(struct msix *m);

#endif

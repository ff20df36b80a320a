/* SPDX-License-Identifier: MIT */
/*
 * PCI: a host bridge with configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2) and one bus of up
 * to 31 single-function devices.
 *
 * BARs are 32-bit memory BARs within PCI_MMIO_BASE..END.  They are assigned when a device is added, as
 * firmware would have done, and the guest may move them.
 */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include "base/types.h"
#include "board.h"
#include "bus.h"

#define PCI_CONF_PORT	0xcf8
#define PCI_CONF_NPORTS 8
#define PCI_MMIO_BASE	0xc0000000u
#define PCI_MMIO_END	0xfec00000u
#define PCI_MAX_SLOTS	32
#define PCI_NBARS	2

struct pci_host;
struct pci_dev;

/*
 * Interrupt pins: INTA of slot n goes to line n % 4 of these GSIs.  They are below 16, so the same
 * routing serves kernels that use the PIC.
 */
#define PCI_NLINES 4
extern const u8 pci_line_gsi[PCI_NLINES];

struct pci_dev {
	/* Set by the owner before pci_add(). */
	u16 vendor, device, subsystem_vendor, subsystem;
	u8 revision;
	u32 class; /* base class << 16 | subclass << 8 | interface */
	bool has_intx;
	struct {
		u32 size; /* a power of two >= 16, or 0 */
		bus_fn fn;
	} bar[PCI_NBARS];
	void *opaque; /* for fn */
	/*
	 * Called before a read and after a write of configuration space behind the header; may be
	 * NULL.  Changes config[] through pci_dev.config.
	 */
	void (*config_event)(struct pci_dev *d, unsigned offset, unsigned len, bool write);

	/* Owned by pci.c; capabilities are added with pci_add_capability(). */
	struct pci_host *host;
	unsigned slot;
	u8 config[256];
	u8 writable[256]; /* which bits of config[] the guest may write */
	u8 next_cap, last_cap_ptr;
	bool intx_wanted, intx_driven;
};

struct pci_host *pci_host_new(struct board *board);
void pci_host_free(struct pci_host *h); /* not the devices */

/* bus_fns, both of width 4: configuration ports, and the memory window from PCI_MMIO_BASE. */
void pci_conf_io(void *opaque, u64 offset, void *data, unsigned len, bool write);
void pci_mmio(void *opaque, u64 offset, void *data, unsigned len, bool write);

/* Plug in; 0, or -ENOSPC if slots or addresses are used up. */
int pci_add(struct pci_host *h, struct pci_dev *d);

/*
 * Append a capability of @len bytes with the contents @cap (its first byte is the identifier, the
 * second is filled in).  After pci_add().  Returns its offset in configuration space.
 */
unsigned pci_add_capability(struct pci_dev *d, const void *cap, unsigned len);

/* Drive INTA.  Any thread. */
void pci_set_intx(struct pci_dev *d, bool level);

/* An access to BAR @bar, as through memory (for capabilities that are windows on BARs). */
void pci_bar_access(struct pci_dev *d, unsigned bar, u32 offset, void *data, unsigned len,
		    bool write);

#endif

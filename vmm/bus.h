/* SPDX-License-Identifier: MIT */
/*
 * A bus: ranges of port or memory addresses and the devices that answer there.
 *
 * Filled while the machine is built, read-only afterwards, so vCPU threads look up without a lock.
 * (PCI BARs, which do move, are one range each for ports and memory here; pci.c looks further.)
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include "base/types.h"

/*
 * An access of @len bytes at @offset within the range: read into @data, or written from it.
 * Called on vCPU threads, several at once; the device does its own locking.
 */
typedef void (*bus_fn)(void *opaque, u64 offset, void *data, unsigned len, bool write);

#define BUS_MAX_RANGES 32

struct bus {
	struct bus_range {
		u64 base, size;
		unsigned width; /* the widest access that @fn takes; wider ones are split */
		bus_fn fn;
		void *opaque;
	} range[BUS_MAX_RANGES];
	unsigned nranges;
};

/* Add a range.  0, -EEXIST if it overlaps another, -ENOSPC. */
int bus_add(struct bus *bus, u64 base, u64 size, unsigned width, bus_fn fn, void *opaque);

/* An access of 1 to 8 bytes.  Where nobody answers, reads give all ones and writes are lost. */
void bus_access(struct bus *bus, u64 addr, void *data, unsigned len, bool write);

#endif

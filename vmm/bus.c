// SPDX-License-Identifier: MIT
/* A bus is searched linearly: a PC has a dozen ranges, and an access costs an exit anyway. */
#include "bus.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"

int bus_add(struct bus *bus, u64 base, u64 size, unsigned width, bus_fn fn, void *opaque)
{
	for (unsigned i = 0; i < bus->nranges; i++) {
		const struct bus_range *r = &bus->range[i];

		if (base < r->base + r->size && r->base < base + size)
			return -EEXIST;
	}
	if (bus->nranges == BUS_MAX_RANGES)
		return -ENOSPC;
	bus->range[bus->nranges++] = (struct bus_range){ base, size, width, fn, opaque };
	return 0;
}

static struct bus_range *find(struct bus *bus, u64 addr)
{
	for (unsigned i = 0; i < bus->nranges; i++)
		if (addr - bus->range[i].base < bus->range[i].size)
			return &bus->range[i];
	return NULL;
}

void bus_access(struct bus *bus, u64 addr, void *data, unsigned len, bool write)
{
	u8 *p = data;

	while (len) {
		struct bus_range *r = find(bus, addr);
		unsigned n = len;

		if (!r) {
			n = 1;
			if (!write)
				*p = 0xff;
		} else {
			n = um_min(n, r->width);
			if (addr - r->base + n > r->size)
				n = 1;
			r->fn(r->opaque, addr - r->base, p, n, write);
		}
		addr += n;
		p += n;
		len -= n;
	}
}

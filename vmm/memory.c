// SPDX-License-Identifier: MIT
/* Guest memory: one anonymous mapping a region. */
#include "memory.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/huge.h"
#include "msg.h"

static int add_region(struct memory *m, u64 gpa, u64 size)
{
	void *hva = um_huge_map(size);

	if (!hva)
		return msg_err(errno, "cannot map %" PRIu64 " MiB of guest memory: %s", size >> 20,
			       strerror(errno));
	m->region[m->nregions++] = (struct mem_region){ gpa, size, hva };
	return 0;
}

int mem_init(struct memory *m, u64 size)
{
	u64 low = um_min(size, MEM_LOW_MAX);
	int err;

	memset(m, 0, sizeof(*m));
	if (size < MEM_MIN || size % UM_PAGE_SIZE)
		return msg_err(EINVAL,
			       "guest memory must be a multiple of 4 KiB and at least %llu MiB",
			       MEM_MIN >> 20);
	m->size = size;
	err = add_region(m, 0, low);
	if (!err && size > low)
		err = add_region(m, MEM_HIGH_BASE, size - low);
	if (err)
		mem_fini(m);
	return err;
}

void mem_fini(struct memory *m)
{
	for (unsigned i = 0; i < m->nregions; i++)
		um_huge_unmap(m->region[i].hva, m->region[i].size);
	m->nregions = 0;
}

void *mem_hva(const struct memory *m, u64 gpa, u64 len)
{
	for (unsigned i = 0; i < m->nregions; i++) {
		const struct mem_region *r = &m->region[i];

		if (gpa >= r->gpa && gpa - r->gpa <= r->size && len <= r->size - (gpa - r->gpa))
			return r->hva + (gpa - r->gpa);
	}
	return NULL;
}

int mem_write(const struct memory *m, u64 gpa, const void *data, u64 len)
{
	void *hva = mem_hva(m, gpa, len);

	if (!hva)
		return -EFAULT;
	memcpy(hva, data, len);
	return 0;
}

unsigned mem_e820(const struct memory *m, struct e820_entry map[E820_MAX])
{
	unsigned n = 0;

	map[n++] = (struct e820_entry){ 0, MEM_EBDA, E820_TYPE_RAM };
	map[n++] = (struct e820_entry){ MEM_EBDA, MEM_HOLE - MEM_EBDA, E820_TYPE_RESERVED };
	map[n++] = (struct e820_entry){ MEM_BIOS, MEM_BIOS_END - MEM_BIOS, E820_TYPE_RESERVED };
	map[n++] =
		(struct e820_entry){ MEM_BIOS_END, mem_low_size(m) - MEM_BIOS_END, E820_TYPE_RAM };
	map[n++] = (struct e820_entry){ MEM_KVM_PAGES, MEM_HIGH_BASE - MEM_KVM_PAGES,
					E820_TYPE_RESERVED };
	if (m->nregions > 1)
		map[n++] = (struct e820_entry){ MEM_HIGH_BASE, m->region[1].size, E820_TYPE_RAM };
	return n;
}

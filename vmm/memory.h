/* SPDX-License-Identifier: MIT */
/*
 * The guest's physical memory: where RAM is, as the guest sees it and as this process does.
 *
 *   0                  low RAM (up to 3 GiB)
 *   0xa0000-0xfffff    RAM too, but reserved in the memory map: legacy holes and, from 0xe0000, the
 *                      ACPI tables, where a BIOS would have them
 *   0xc0000000-4 GiB   no RAM: PCI memory, IOAPIC, local APICs, KVM's own pages
 *   4 GiB              high RAM (what is more than 3 GiB)
 *
 * The memory is anonymous and not reserved: the host provides pages as the guest touches them.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include "base/types.h"

#define MEM_LOW_MAX	0xc0000000ull /* RAM below 4 GiB ends here at the latest */
#define MEM_HIGH_BASE	0x100000000ull
#define MEM_EBDA	0x9fc00u /* the last KiB of conventional memory, as after a BIOS */
#define MEM_HOLE	0xa0000u
#define MEM_BIOS	0xe0000u /* ACPI tables */
#define MEM_BIOS_END	0x100000u
#define MEM_KVM_PAGES	0xfffbc000u /* identity map page, then three of the real-mode TSS */
#define MEM_MIN		(2ull << 20)
#define MEM_MAX_REGIONS 2

struct mem_region {
	u64 gpa, size;
	u8 *hva;
};

struct memory {
	u64 size; /* all RAM, bytes */
	struct mem_region region[MEM_MAX_REGIONS];
	unsigned nregions;
};

/* Map @size bytes (a multiple of 4096, at least MEM_MIN).  0 or -errno after a message. */
int mem_init(struct memory *m, u64 size);
void mem_fini(struct memory *m);

/*
 * The host address of guest range [@gpa, @gpa + @len), or NULL if not all of it is RAM of one region.
 * This is the only way in: every address that a guest gives a device passes here.
 */
void *mem_hva(const struct memory *m, u64 gpa, u64 len);

/* Copy into or zero guest memory.  0 or -EFAULT, as mem_hva(). */
int mem_write(const struct memory *m, u64 gpa, const void *data, u64 len);

/* Bytes of RAM below 4 GiB. */
static inline u64 mem_low_size(const struct memory *m)
{
	return m->region[0].size;
}

/* The memory map as a BIOS gives it (ACPI 6.4, 15 "System Address Map Interfaces"). */
enum e820_type { E820_TYPE_RAM = 1, E820_TYPE_RESERVED = 2 };

struct e820_entry {
	u64 addr, size;
	u32 type;
};

#define E820_MAX 8

/* Fill @map and return the number of entries. */
unsigned mem_e820(const struct memory *m, struct e820_entry map[E820_MAX]);

#endif

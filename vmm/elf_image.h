/* SPDX-License-Identifier: MIT */
/* Reading ELF files of either class for x86, as far as loading a kernel needs it. */
#ifndef VMM_ELF_IMAGE_H
#define VMM_ELF_IMAGE_H

#include "blob.h"
#include "load.h"

struct elf_segment {
	u32 type; /* PT_... */
	u64 offset, vaddr, paddr, filesz, memsz;
};

struct elf_image {
	u64 entry;
	unsigned nsegments;
	const struct blob *blob;
	u64 phoff;
	u32 phentsize;
	bool is64;
};

/*
 * Parse the header.  1; 0 if this is no ELF file for x86; -ENOEXEC if its program headers are not all
 * in the file (no message).
 */
int elf_open(struct elf_image *e, const struct blob *b);

/* Program header @i < nsegments. */
struct elf_segment elf_segment(const struct elf_image *e, unsigned i);

/* The entry point as a physical address: moved as the segment that it is in was. */
u64 elf_physical_entry(const struct elf_image *e);

/* Load all PT_LOAD segments at their physical addresses.  0 or -errno after a message. */
int elf_load(const struct elf_image *e, struct load *l);

#endif

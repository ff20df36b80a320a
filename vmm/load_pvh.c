// SPDX-License-Identifier: MIT
/*
 * ELF kernels with a PVH entry: an ELF note of owner "Xen" and type 18 gives the physical address of a
 * 32-bit entry point, which takes the address of a start_info structure in EBX (Xen's "x86/HVM direct
 * boot ABI").
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "elf_image.h"
#include "load.h"
#include "msg.h"

#define NOTE_PHYS32_ENTRY 18
#define START_MAGIC	  0x336ec578
#define INFO_GPA	  BOOT_INFO
#define MODULE_GPA	  (BOOT_INFO + 0x100)
#define MAP_GPA		  (BOOT_INFO + 0x200)

struct start_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist, cmdline, rsdp;
	u64 memmap; /* version 1 */
	u32 memmap_entries, reserved;
};

struct module_entry {
	u64 paddr, size, cmdline, reserved;
};

struct memmap_entry {
	u64 addr, size;
	u32 type, reserved;
};

/* Search the notes of one segment.  True if found. */
static bool search_notes(const struct blob *b, const struct elf_segment *s, u64 *entry)
{
	u64 at = s->offset, end = s->offset + s->filesz;

	while (end >= at && end - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n; /* the same in both classes */
		u64 desc;
		char name[4];

		if (!blob_get(b, at, &n, sizeof(n)))
			return false;
		at += sizeof(n);
		desc = at + ALIGN_UP((u64)n.n_namesz, 4u);
		if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 && blob_get(b, at, name, 4) &&
		    !memcmp(name, "Xen", 4) && (n.n_descsz == 4 || n.n_descsz == 8)) {
			*entry = 0;
			return blob_get(b, desc, entry, n.n_descsz);
		}
		at = desc + ALIGN_UP((u64)n.n_descsz, 4u);
	}
	return false;
}

static bool find_entry(const struct elf_image *e, u64 *entry)
{
	for (unsigned i = 0; i < e->nsegments; i++) {
		struct elf_segment s = elf_segment(e, i);

		if (s.type == PT_NOTE && s.offset + s.filesz >= s.offset &&
		    search_notes(e->blob, &s, entry))
			return true;
	}
	return false;
}

static int write_info(struct load *l, u64 initrd)
{
	struct e820_entry map[E820_MAX];
	unsigned n = mem_e820(l->mem, map);
	struct start_info info = {
		.magic = START_MAGIC,
		.version = 1,
		.nr_modules = initrd ? 1 : 0,
		.modlist = initrd ? MODULE_GPA : 0,
		.cmdline = BOOT_CMDLINE,
		.rsdp = l->req->rsdp,
		.memmap = MAP_GPA,
		.memmap_entries = n,
	};
	struct module_entry module = { .paddr = initrd, .size = l->initrd.len };
	int err = mem_write(l->mem, INFO_GPA, &info, sizeof(info));

	if (!err)
		err = mem_write(l->mem, MODULE_GPA, &module, sizeof(module));
	for (unsigned i = 0; i < n && !err; i++) {
		struct memmap_entry m = { map[i].addr, map[i].size, map[i].type, 0 };

		err = mem_write(l->mem, MAP_GPA + i * sizeof(m), &m, sizeof(m));
	}
	return err;
}

int load_pvh(struct load *l, struct boot *boot)
{
	struct elf_image e;
	u64 entry, initrd;
	int err = elf_open(&e, &l->kernel);

	if (!err)
		return 0;
	if (err < 0)
		return msg_err(ENOEXEC, "kernel %s: truncated or corrupt ELF file", l->req->kernel);
	if (!find_entry(&e, &entry))
		return msg_err(ENOEXEC,
			       "kernel %s: an ELF file with neither a PVH entry (CONFIG_PVH) nor a "
			       "Multiboot header; "
			       "use the bzImage",
			       l->req->kernel);
	if (entry >> 32 || !mem_hva(l->mem, entry, 1))
		return msg_err(ENOEXEC, "kernel %s: corrupt: its PVH entry is outside of memory",
			       l->req->kernel);
	err = elf_load(&e, l);
	if (!err)
		err = load_cmdline(l, BOOT_CMDLINE_MAX - 1);
	if (!err)
		err = load_initrd_top(l, MEM_LOW_MAX, &initrd);
	if (!err)
		err = write_info(l, initrd);
	if (err)
		return err;
	*boot = (struct boot){ .format = "ELF, PVH entry", .rip = entry, .rbx = INFO_GPA };
	return 1;
}

// SPDX-License-Identifier: MIT
/*
 * Multiboot 1 (Multiboot Specification 0.6.96): a header somewhere in the first 8 KiB, then an ELF file
 * or, with the address fields (the "a.out kludge"), a flat image.  Started in 32-bit protected mode.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "elf_image.h"
#include "load.h"
#include "msg.h"

#define SEARCH_LEN	8192u
#define HEADER_MAGIC	0x1badb002u
#define LOADER_MAGIC	0x2badb002u
#define FLAG_MUST	0x0000ffffu /* a loader that does not know one of these must give up */
#define FLAG_PAGE_ALIGN 0x00000001u
#define FLAG_MEMORY	0x00000002u
#define FLAG_VIDEO	0x00000004u
#define FLAG_ADDRESSES	0x00010000u
#define INFO_MEMORY	0x001u
#define INFO_CMDLINE	0x004u
#define INFO_MODS	0x008u
#define INFO_MMAP	0x040u
#define INFO_NAME	0x200u

#define INFO_GPA   BOOT_INFO
#define MODULE_GPA (BOOT_INFO + 0x100)
#define NAME_GPA   (BOOT_INFO + 0x180)
#define MAP_GPA	   (BOOT_INFO + 0x200)
#define STRING_GPA (BOOT_INFO + 0x1000) /* the module's command line: its path */

struct mb_header {
	u32 magic, flags, checksum;
	u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

struct mb_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
	u32 syms[4];
	u32 mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
	u32 apm_table;
};

struct mb_module {
	u32 start, end, string, reserved;
};

struct mb_map {
	u32 size;
	u64 addr, len;
	u32 type;
} __attribute__((packed));

/* Find the header; its offset, or -1.  The address fields are 0 where the file ends before them. */
static s64 find_header(const struct blob *b, struct mb_header *h)
{
	for (u64 at = 0; at + 12 <= um_min((u64)SEARCH_LEN, b->len); at += 4) {
		memset(h, 0, sizeof(*h));
		blob_get(b, at, h, 12);
		if (h->magic != HEADER_MAGIC || h->magic + h->flags + h->checksum)
			continue;
		blob_get(b, at, h, sizeof(*h));
		return (s64)at;
	}
	return -1;
}

/* The a.out kludge: the header says where the file's bytes go (3.1.3). */
static int load_flat(struct load *l, const struct mb_header *h, u64 header_at)
{
	u64 before = h->header_addr - h->load_addr, offset, filesz, memsz;

	if (h->load_addr > h->header_addr || before > header_at ||
	    (h->load_end_addr && h->load_end_addr < h->load_addr))
		return msg_err(ENOEXEC, "kernel %s: corrupt Multiboot header", l->req->kernel);
	offset = header_at - before;
	filesz = h->load_end_addr ? h->load_end_addr - h->load_addr : l->kernel.len - offset;
	memsz = filesz;
	if (h->bss_end_addr) {
		if (h->bss_end_addr < h->load_addr + filesz)
			return msg_err(ENOEXEC, "kernel %s: corrupt Multiboot header",
				       l->req->kernel);
		memsz = h->bss_end_addr - h->load_addr;
	}
	return load_range(l, h->load_addr, offset, filesz, memsz);
}

static int write_info(struct load *l, u64 initrd)
{
	static const char name[] = "umbra";
	struct e820_entry map[E820_MAX];
	unsigned n = mem_e820(l->mem, map);
	struct mb_module module = {
		.start = (u32)initrd,
		.end = (u32)(initrd + l->initrd.len),
		.string = STRING_GPA,
	};
	struct mb_info info = {
		.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_NAME,
		.mem_lower = MEM_EBDA >> 10,
		.mem_upper = (u32)((mem_low_size(l->mem) - MEM_BIOS_END) >> 10),
		.cmdline = BOOT_CMDLINE,
		.mods_count = initrd ? 1 : 0,
		.mods_addr = MODULE_GPA,
		.mmap_length = n * sizeof(struct mb_map),
		.mmap_addr = MAP_GPA,
		.boot_loader_name = NAME_GPA,
	};
	char string[512];
	int err = mem_write(l->mem, INFO_GPA, &info, sizeof(info));

	snprintf(string, sizeof(string), "%s", l->req->initrd ? l->req->initrd : "");
	if (!err)
		err = mem_write(l->mem, MODULE_GPA, &module, sizeof(module));
	if (!err)
		err = mem_write(l->mem, STRING_GPA, string, sizeof(string));
	if (!err)
		err = mem_write(l->mem, NAME_GPA, name, sizeof(name));
	for (unsigned i = 0; i < n && !err; i++) {
		struct mb_map m = { sizeof(m) - 4, map[i].addr, map[i].size, map[i].type };

		err = mem_write(l->mem, MAP_GPA + i * sizeof(m), &m, sizeof(m));
	}
	return err;
}

int load_multiboot(struct load *l, struct boot *boot)
{
	struct mb_header h;
	s64 at = find_header(&l->kernel, &h);
	struct elf_image e;
	u64 entry, initrd;
	int err;

	if (at < 0)
		return 0;
	if (h.flags & FLAG_MUST & ~(FLAG_PAGE_ALIGN | FLAG_MEMORY | FLAG_VIDEO))
		return msg_err(ENOEXEC,
			       "kernel %s: needs Multiboot features that are unknown (flags 0x%x)",
			       l->req->kernel, h.flags);
	if (h.flags & FLAG_ADDRESSES) {
		entry = h.entry_addr;
		err = load_flat(l, &h, (u64)at);
	} else {
		if (elf_open(&e, &l->kernel) != 1)
			return msg_err(ENOEXEC,
				       "kernel %s: a Multiboot header, but neither load addresses "
				       "nor an ELF file",
				       l->req->kernel);
		entry = elf_physical_entry(&e);
		err = elf_load(&e, l);
	}
	if (!err && (entry >> 32 || !mem_hva(l->mem, entry, 1)))
		err = msg_err(ENOEXEC, "kernel %s: corrupt: its entry is outside of memory",
			      l->req->kernel);
	if (!err)
		err = load_cmdline(l, BOOT_CMDLINE_MAX - 1);
	if (!err)
		err = load_initrd_after(l, &initrd);
	if (!err)
		err = write_info(l, initrd);
	if (err)
		return err;
	*boot = (struct boot){
		.format = "Multiboot",
		.rip = entry,
		.rax = LOADER_MAGIC,
		.rbx = INFO_GPA,
	};
	return 1;
}

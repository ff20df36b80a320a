// SPDX-License-Identifier: MIT
/*
 * Linux bzImage, by the boot protocol (the kernel's Documentation/x86/boot.rst): a real-mode part that
 * is not run, whose header says how to load the rest, and the protected-mode part.  Started at its
 * 64-bit entry where it has one (XLF_KERNEL_64), else at its 32-bit entry.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "load.h"
#include "msg.h"

#define HEADER_AT    0x1f1u
#define BOOT_FLAG    0xaa55
#define MAGIC	     0x53726448 /* "HdrS" */
#define SECTOR	     512u
#define LOADER_OTHER 0xff
#define ENTRY_64     0x200u
#define DEFAULT_LOAD 0x100000u

/* The header's fields that depend on the protocol's version, with what older ones mean. */
struct layout {
	u64 payload; /* offset of the protected-mode part in the file */
	u64 payload_len;
	u64 load;	  /* where it goes */
	u64 room;	  /* bytes it needs there */
	u64 initrd_limit; /* first address that the initrd must not reach */
	u64 cmdline_max;
	bool entry64;
};

static bool is_bzimage(const struct blob *b, struct setup_header *h)
{
	return blob_get(b, HEADER_AT, h, sizeof(*h)) && h->boot_flag == BOOT_FLAG &&
	       h->header == MAGIC;
}

static int read_layout(const struct load *l, const struct setup_header *h, struct layout *o)
{
	const char *name = l->req->kernel;
	u64 sects = h->setup_sects ? h->setup_sects : 4;
	u64 declared;

	if (h->version < 0x0202 || !(h->loadflags & LOADED_HIGH))
		return msg_err(
			ENOEXEC,
			"kernel %s: a zImage, or of a boot protocol before 2.02 (it is %u.%02u)",
			name, h->version >> 8, h->version & 0xff);
	o->payload = (sects + 1) * SECTOR;
	if (o->payload >= l->kernel.len)
		return msg_err(ENOEXEC, "kernel %s: truncated: ends within its real-mode part",
			       name);
	o->payload_len = l->kernel.len - o->payload;
	/* syssize counts paragraphs and has 32 bits since 2.04; signatures may follow what it counts. */
	declared = (u64)(h->version >= 0x0204 ? h->syssize : h->syssize & 0xffff) * 16;
	if (declared > o->payload_len + 15)
		return msg_err(ENOEXEC,
			       "kernel %s: truncated: has %" PRIu64 " of %" PRIu64 " bytes", name,
			       o->payload_len, declared);
	if (h->version >= 0x0204 && declared)
		o->payload_len = um_min(o->payload_len, declared);
	o->load = h->version >= 0x020a ? h->pref_address : DEFAULT_LOAD;
	o->room = h->version >= 0x020a ? um_max((u64)h->init_size, o->payload_len) : o->payload_len;
	o->initrd_limit = (h->version >= 0x0203 ? (u64)h->initrd_addr_max : 0x37ffffffu) + 1;
	o->cmdline_max = h->version >= 0x0206 ? h->cmdline_size : 255;
	o->entry64 = h->version >= 0x020c && (h->xloadflags & XLF_KERNEL_64);
	if (o->load < MEM_BIOS_END || o->load + o->room < o->load)
		return msg_err(ENOEXEC, "kernel %s: corrupt header (load address 0x%" PRIx64 ")",
			       name, o->load);
	if (o->entry64 && o->payload_len <= ENTRY_64)
		return msg_err(ENOEXEC, "kernel %s: truncated: ends before its entry", name);
	return 0;
}

static void fill_params(struct boot_params *p, const struct load *l)
{
	struct e820_entry map[E820_MAX];
	unsigned n = mem_e820(l->mem, map);
	u64 kib_above_1m = (mem_low_size(l->mem) - MEM_BIOS_END) >> 10;

	for (unsigned i = 0; i < n; i++)
		p->e820_table[i] =
			(struct boot_e820_entry){ map[i].addr, map[i].size, map[i].type };
	p->e820_entries = (u8)n;
	p->acpi_rsdp_addr = l->req->rsdp;
	/* For kernels that predate the memory map. */
	p->alt_mem_k = (u32)kib_above_1m;
	p->screen_info.ext_mem_k = (u16)um_min(kib_above_1m, 0xffffull);
}

int load_bzimage(struct load *l, struct boot *boot)
{
	struct setup_header h;
	struct boot_params p;
	struct layout o = { 0 };
	u64 initrd;
	size_t header_len;
	int err;

	if (!is_bzimage(&l->kernel, &h))
		return 0;
	err = read_layout(l, &h, &o);
	if (!err)
		err = load_range(l, o.load, o.payload, o.payload_len, o.room);
	if (!err)
		err = load_cmdline(l, o.cmdline_max);
	if (!err)
		err = load_initrd_top(l, o.initrd_limit, &initrd);
	if (err)
		return err;

	/* Take over the header as far as the kernel says it goes (the byte at 0x201); the rest is 0. */
	memset(&p, 0, sizeof(p));
	header_len = um_min(0x202u + (h.jump >> 8) - HEADER_AT, sizeof(h));
	memcpy(&p.hdr, &h, header_len);
	p.hdr.type_of_loader = LOADER_OTHER;
	p.hdr.vid_mode = 0xffff; /* "normal" */
	p.hdr.code32_start = (u32)o.load;
	p.hdr.cmd_line_ptr = BOOT_CMDLINE;
	p.hdr.ramdisk_image = (u32)initrd;
	p.hdr.ramdisk_size = (u32)l->initrd.len;
	p.hdr.setup_data = 0;
	fill_params(&p, l);
	err = mem_write(l->mem, BOOT_PARAMS, &p, sizeof(p));
	if (err)
		return err;

	*boot = (struct boot){
		.long_mode = o.entry64,
		.format = o.entry64 ? "bzImage, 64-bit entry" : "bzImage, 32-bit entry",
		.rip = o.load + (o.entry64 ? ENTRY_64 : 0),
		.rsi = BOOT_PARAMS,
	};
	return 1;
}

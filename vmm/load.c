// SPDX-License-Identifier: MIT
/* Loading a kernel: the file's format, and what the formats have in common. */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "msg.h"

int load_range(struct load *l, u64 gpa, u64 offset, u64 filesz, u64 memsz)
{
	const char *name = l->req->kernel;
	void *hva = mem_hva(l->mem, gpa, memsz);

	if (offset > l->kernel.len || filesz > l->kernel.len - offset || filesz > memsz)
		return msg_err(ENOEXEC, "kernel %s: truncated or corrupt (%zu bytes are too few)",
			       name, l->kernel.len);
	if (gpa < BOOT_RESERVED_END)
		return msg_err(ENOEXEC,
			       "kernel %s: wants to be at 0x%" PRIx64
			       ", below 0x%x, in the loader's memory",
			       name, gpa, BOOT_RESERVED_END);
	if (gpa < MEM_BIOS_END && gpa + memsz > MEM_EBDA)
		return msg_err(ENOEXEC,
			       "kernel %s: wants to be in 0x%x-0x%x, where the firmware is", name,
			       MEM_EBDA, MEM_BIOS_END - 1);
	if (!hva)
		return msg_err(ENOMEM,
			       "kernel %s: needs memory at 0x%" PRIx64 "-0x%" PRIx64
			       ", of which the guest has %" PRIu64 " MiB: give it more (--mem)",
			       name, gpa, gpa + memsz, l->mem->size >> 20);
	memcpy(hva, l->kernel.data + offset, filesz);
	l->kernel_end = um_max(l->kernel_end, gpa + memsz);
	return 0;
}

static int put_initrd(struct load *l, u64 gpa)
{
	return mem_write(l->mem, gpa, l->initrd.data, l->initrd.len);
}

static int initrd_too_big(const struct load *l)
{
	return msg_err(ENOMEM,
		       "initrd %s: its %zu KiB do not fit into memory beside the kernel: give the "
		       "guest more (--mem)",
		       l->req->initrd, l->initrd.len >> 10);
}

int load_initrd_top(struct load *l, u64 limit, u64 *gpa)
{
	u64 top = um_min(limit, mem_low_size(l->mem));

	*gpa = 0;
	if (!l->initrd.len)
		return 0;
	if (top < l->initrd.len)
		return initrd_too_big(l);
	*gpa = ALIGN_DOWN(top - l->initrd.len, (u64)UM_PAGE_SIZE);
	if (*gpa < um_max(l->kernel_end, (u64)MEM_BIOS_END))
		return initrd_too_big(l);
	return put_initrd(l, *gpa);
}

int load_initrd_after(struct load *l, u64 *gpa)
{
	*gpa = 0;
	if (!l->initrd.len)
		return 0;
	*gpa = ALIGN_UP(um_max(l->kernel_end, (u64)MEM_BIOS_END), (u64)UM_PAGE_SIZE);
	if (!mem_hva(l->mem, *gpa, l->initrd.len))
		return initrd_too_big(l);
	return put_initrd(l, *gpa);
}

int load_cmdline(struct load *l, u64 max)
{
	size_t len = strlen(l->req->cmdline);

	if (len > um_min(max, (u64)BOOT_CMDLINE_MAX - 1))
		return msg_err(E2BIG,
			       "--append: %zu characters, but the kernel takes at most %" PRIu64,
			       len, um_min(max, (u64)BOOT_CMDLINE_MAX - 1));
	return mem_write(l->mem, BOOT_CMDLINE, l->req->cmdline, len + 1);
}

/*
 * Null, unused, flat code, flat data (SDM vol. 3, 3.4.5 "Segment Descriptors").  The code segment is
 * of 64 or 32 bits.
 */
static int write_gdt(const struct load *l, bool long_mode)
{
	u64 gdt[4] = { 0, 0, long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff,
		       0x00cf93000000ffff };

	return mem_write(l->mem, BOOT_GDT, gdt, sizeof(gdt));
}

/* One PML4 entry, four PDPT entries, 2048 large pages: the first 4 GiB (SDM vol. 3, 4.5). */
static int write_page_tables(const struct load *l)
{
	const u64 table = 0x3, large = 0x83; /* present, writable; and page size */
	u64 *t = mem_hva(l->mem, BOOT_PAGES, 6 * UM_PAGE_SIZE);

	if (!t)
		return -EFAULT;
	memset(t, 0, 6 * UM_PAGE_SIZE);
	t[0] = (BOOT_PAGES + UM_PAGE_SIZE) | table;
	for (u64 i = 0; i < 4; i++)
		t[512 + i] = (BOOT_PAGES + (2 + i) * UM_PAGE_SIZE) | table;
	for (u64 i = 0; i < 4 * 512; i++)
		t[1024 + i] = i << 21 | large;
	return 0;
}

static int load_any(struct load *l, struct boot *boot)
{
	int r = load_bzimage(l, boot);

	if (!r)
		r = load_multiboot(l, boot);
	if (!r)
		r = load_pvh(l, boot);
	if (!r)
		return msg_err(ENOEXEC,
			       "kernel %s: not a kernel that can be booted (bzImage, ELF with a "
			       "PVH entry, Multiboot)",
			       l->req->kernel);
	return r < 0 ? r : 0;
}

int load_kernel(const struct load_request *req, const struct memory *mem, struct boot *boot)
{
	struct load l = { .req = req, .mem = mem };
	int err = blob_read(&l.kernel, "kernel", req->kernel, mem->size);

	*boot = (struct boot){ 0 };
	if (!err && req->initrd)
		err = blob_read(&l.initrd, "initrd", req->initrd, mem->size);
	if (!err)
		err = load_any(&l, boot);
	if (!err)
		err = write_gdt(&l, boot->long_mode);
	if (!err && boot->long_mode)
		err = write_page_tables(&l);
	blob_free(&l.kernel);
	blob_free(&l.initrd);
	return err;
}

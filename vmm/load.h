/* SPDX-License-Identifier: MIT */
/*
 * Loading a kernel into guest memory, and saying how the boot processor must start it.
 *
 * Formats: Linux bzImage (load_bzimage.c), ELF with a PVH entry (load_pvh.c), Multiboot 1
 * (load_multiboot.c).  Files are not trusted: whatever a header says is checked against the file and
 * the memory.
 *
 * Guest memory below BOOT_RESERVED_END belongs to the loader; kernels that want to be there are
 * refused.
 */
#ifndef VMM_LOAD_H
#define VMM_LOAD_H

#include "blob.h"
#include "memory.h"

#define BOOT_GDT	  0x500u  /* a descriptor table, see struct boot */
#define BOOT_INFO	  0x1000u /* PVH or Multiboot information, up to four pages */
#define BOOT_PARAMS	  0x7000u /* Linux' "zero page" */
#define BOOT_PAGES	  0x9000u /* six pages: identity map of 4 GiB */
#define BOOT_CMDLINE	  0x10000u
#define BOOT_CMDLINE_MAX  0x10000u
#define BOOT_RESERVED_END 0x20000u

struct load_request {
	const char *kernel; /* path */
	const char *initrd; /* path or NULL */
	const char *cmdline;
	u64 rsdp; /* guest physical address */
};

/*
 * How to start: flat segments (code selector 0x10, data 0x18, from the descriptor table at BOOT_GDT),
 * interrupts off; in 32-bit protected mode without paging, or in 64-bit mode with the page tables at
 * BOOT_PAGES.  The tables are written by load_kernel().
 */
struct boot {
	bool long_mode;
	const char *format; /* for messages */
	u64 rip, rax, rbx, rsi;
};

/* What the loaders of the formats work on. */
struct load {
	const struct load_request *req;
	const struct memory *mem;
	struct blob kernel, initrd;
	u64 kernel_end; /* first address behind the kernel */
};

/* Find out the format and load.  0, or -errno after a message. */
int load_kernel(const struct load_request *req, const struct memory *mem, struct boot *boot);

/* The formats.  Each: 1 if the file is of this format and was loaded, 0 if it is another, -errno. */
int load_bzimage(struct load *l, struct boot *boot);
int load_pvh(struct load *l, struct boot *boot);
int load_multiboot(struct load *l, struct boot *boot);

/*
 * Helpers of the formats; all give a message with their -errno.
 *
 * load_range() copies part of the kernel's file to @gpa and accounts for @memsz bytes there.
 * load_initrd_top() puts the initrd as high as it goes below @limit, load_initrd_after() right behind
 * the kernel; *@gpa is 0 if there is none.
 */
int load_range(struct load *l, u64 gpa, u64 offset, u64 filesz, u64 memsz);
int load_initrd_top(struct load *l, u64 limit, u64 *gpa);
int load_initrd_after(struct load *l, u64 *gpa);
int load_cmdline(struct load *l, u64 max);

#endif

// SPDX-License-Identifier: MIT
/* ELF: both classes are turned into one form, a program header at a time. */
#include "elf_image.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "msg.h"

#define MAX_SEGMENTS 64

int elf_open(struct elf_image *e, const struct blob *b)
{
	u8 ident[EI_NIDENT];
	u64 size;

	*e = (struct elf_image){ .blob = b };
	if (!blob_get(b, 0, ident, sizeof(ident)) || memcmp(ident, ELFMAG, SELFMAG) ||
	    ident[EI_DATA] != ELFDATA2LSB)
		return 0;
	if (ident[EI_CLASS] == ELFCLASS64) {
		Elf64_Ehdr h;

		if (!blob_get(b, 0, &h, sizeof(h)))
			return -ENOEXEC;
		if (h.e_machine != EM_X86_64)
			return 0;
		e->is64 = true;
		e->entry = h.e_entry;
		e->nsegments = h.e_phnum;
		e->phoff = h.e_phoff;
		e->phentsize = h.e_phentsize;
		size = sizeof(Elf64_Phdr);
	} else if (ident[EI_CLASS] == ELFCLASS32) {
		Elf32_Ehdr h;

		if (!blob_get(b, 0, &h, sizeof(h)))
			return -ENOEXEC;
		if (h.e_machine != EM_386)
			return 0;
		e->entry = h.e_entry;
		e->nsegments = h.e_phnum;
		e->phoff = h.e_phoff;
		e->phentsize = h.e_phentsize;
		size = sizeof(Elf32_Phdr);
	} else {
		return 0;
	}
	if (e->nsegments > MAX_SEGMENTS || e->phentsize < size || e->phoff > b->len ||
	    (u64)e->nsegments * e->phentsize > b->len - e->phoff)
		return -ENOEXEC;
	return 1;
}

struct elf_segment elf_segment(const struct elf_image *e, unsigned i)
{
	u64 at = e->phoff + (u64)i * e->phentsize;

	if (e->is64) {
		Elf64_Phdr p = { 0 };

		blob_get(e->blob, at, &p, sizeof(p));
		return (struct elf_segment){ p.p_type,	p.p_offset, p.p_vaddr,
					     p.p_paddr, p.p_filesz, p.p_memsz };
	} else {
		Elf32_Phdr p = { 0 };

		blob_get(e->blob, at, &p, sizeof(p));
		return (struct elf_segment){ p.p_type,	p.p_offset, p.p_vaddr,
					     p.p_paddr, p.p_filesz, p.p_memsz };
	}
}

u64 elf_physical_entry(const struct elf_image *e)
{
	for (unsigned i = 0; i < e->nsegments; i++) {
		struct elf_segment s = elf_segment(e, i);

		if (s.type == PT_LOAD && e->entry - s.vaddr < s.memsz)
			return e->entry - s.vaddr + s.paddr;
	}
	return e->entry;
}

int elf_load(const struct elf_image *e, struct load *l)
{
	unsigned loaded = 0;

	for (unsigned i = 0; i < e->nsegments; i++) {
		struct elf_segment s = elf_segment(e, i);
		int err;

		if (s.type != PT_LOAD || !s.memsz)
			continue;
		err = load_range(l, s.paddr, s.offset, s.filesz, s.memsz);
		if (err)
			return err;
		loaded++;
	}
	if (!loaded)
		return msg_err(ENOEXEC, "kernel %s: an ELF file with nothing to load",
			       l->req->kernel);
	return 0;
}

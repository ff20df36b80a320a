// SPDX-License-Identifier: MIT
/*
 * Loaders: images made here, good ones and ones that lie in every field.  Arguments are real
 * kernels, which must load into 512 MiB.
 */
#include "fixture.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>

#include "vmm/load.h"

#define MEM	  (64ull << 20)
#define LOAD_ADDR 0x1000000ull

static struct memory mem;
static struct boot boot;

static int load_into(u64 size, const void *image, size_t len, const char *initrd,
		     const char *cmdline)
{
	char *path = temp_file(image, len);
	struct load_request req = { path, initrd, cmdline, 0xe0000 };
	int err;

	assert_int_equal(mem_init(&mem, size), 0);
	err = load_kernel(&req, &mem, &boot);
	unlink(path);
	free(path);
	return err;
}

static int load(const void *image, size_t len)
{
	return load_into(MEM, image, len, NULL, "hello");
}

static void done(void)
{
	mem_fini(&mem);
}

/* A bzImage of 2 setup sectors and `body` bytes of protected-mode code that count up. */
struct bz {
	u8 setup[3 * 512];
	u8 body[8192];
};

static struct setup_header *header(struct bz *b)
{
	return (struct setup_header *)(b->setup + 0x1f1);
}

static void make_bz(struct bz *b)
{
	struct setup_header *h = header(b);

	memset(b, 0, sizeof(*b));
	h->setup_sects = 2;
	h->syssize = sizeof(b->body) / 16;
	h->boot_flag = 0xaa55;
	h->jump = 0x6aeb; /* header to 0x26c */
	h->header = 0x53726448;
	h->version = 0x020f;
	h->loadflags = LOADED_HIGH;
	h->initrd_addr_max = 0x7fffffff;
	h->kernel_alignment = 0x200000;
	h->relocatable_kernel = 1;
	h->xloadflags = XLF_KERNEL_64;
	h->cmdline_size = 2047;
	h->pref_address = LOAD_ADDR;
	h->init_size = 1 << 20;
	for (unsigned i = 0; i < sizeof(b->body); i++)
		b->body[i] = (u8)i;
}

static void test_bzimage(void **state)
{
	static u8 initrd_data[10000];
	const struct boot_params *p;
	char *initrd;
	struct bz b;
	const u64 *pages;

	(void)state;
	make_bz(&b);
	memset(initrd_data, 0x3c, sizeof(initrd_data));
	initrd = temp_file(initrd_data, sizeof(initrd_data));
	assert_int_equal(load_into(MEM, &b, sizeof(b), initrd, "root=/dev/vda quiet"), 0);
	assert_true(boot.long_mode);
	assert_int_equal(boot.rip, LOAD_ADDR + 0x200);
	assert_int_equal(boot.rsi, BOOT_PARAMS);
	assert_memory_equal(mem_hva(&mem, LOAD_ADDR, sizeof(b.body)), b.body, sizeof(b.body));
	p = mem_hva(&mem, BOOT_PARAMS, sizeof(*p));
	assert_int_equal(p->hdr.type_of_loader, 0xff);
	assert_int_equal(p->hdr.code32_start, LOAD_ADDR);
	assert_string_equal(mem_hva(&mem, p->hdr.cmd_line_ptr, 32), "root=/dev/vda quiet");
	assert_int_equal(p->acpi_rsdp_addr, 0xe0000);
	assert_int_equal(p->hdr.ramdisk_size, sizeof(initrd_data));
	assert_true(p->hdr.ramdisk_image >= LOAD_ADDR + (1 << 20));
	assert_int_equal(p->hdr.ramdisk_image % 4096, 0);
	assert_memory_equal(mem_hva(&mem, p->hdr.ramdisk_image, sizeof(initrd_data)), initrd_data,
			    sizeof(initrd_data));
	assert_int_equal(p->sentinel, 0);
	assert_true(p->e820_entries >= 4);
	/* Page tables: identity for the last 2 MiB below 4 GiB. */
	pages = mem_hva(&mem, BOOT_PAGES, 6 * 4096);
	assert_int_equal(pages[0] & ~0xfffull, BOOT_PAGES + 4096);
	assert_int_equal(pages[512 + 3] & ~0xfffull, BOOT_PAGES + 5 * 4096);
	assert_int_equal(pages[5 * 512 + 511], 0xffe00083);
	done();
	unlink(initrd);
	free(initrd);
}

static void test_bzimage_32(void **state)
{
	struct bz b;

	(void)state;
	make_bz(&b);
	header(&b)->xloadflags = 0;
	assert_int_equal(load(&b, sizeof(b)), 0);
	assert_false(boot.long_mode);
	assert_int_equal(boot.rip, LOAD_ADDR);
	done();
	/* An old protocol: no preferred address. */
	header(&b)->version = 0x0203;
	assert_int_equal(load(&b, sizeof(b)), 0);
	assert_int_equal(boot.rip, 0x100000);
	done();
}

#define REFUSED(change, image)                                \
	do {                                                  \
		make_bz(&image);                              \
		change;                                       \
		assert_true(load(&image, sizeof(image)) < 0); \
		done();                                       \
	} while (0)

static void test_bad_bzimage(void **state)
{
	static char long_cmdline[3000];
	static u8 big[60 << 20];
	char *initrd;
	struct bz b;

	(void)state;
	REFUSED(header(&b)->boot_flag = 0, b);
	REFUSED(header(&b)->header = 0, b);
	REFUSED(header(&b)->version = 0x0201, b);
	REFUSED(header(&b)->loadflags = 0, b);
	REFUSED(header(&b)->setup_sects = 255, b);
	REFUSED(header(&b)->syssize = 0xffffffff, b);
	REFUSED(header(&b)->syssize = sizeof(b.body) / 16 + 1, b);
	REFUSED(header(&b)->pref_address = 0, b);
	REFUSED(header(&b)->pref_address = 0x7000, b);
	REFUSED(header(&b)->pref_address = ~0ull, b);
	REFUSED(header(&b)->pref_address = MEM, b);
	REFUSED(header(&b)->init_size = 0xffffffff, b);
	REFUSED(header(&b)->init_size = MEM - LOAD_ADDR + 1, b);

	/* Truncated at every size. */
	make_bz(&b);
	for (size_t len = 0; len < sizeof(b); len += 511) {
		assert_true(load(&b, len) < 0);
		done();
	}
	memset(long_cmdline, 'x', sizeof(long_cmdline) - 1);
	assert_int_equal(load_into(MEM, &b, sizeof(b), NULL, long_cmdline), -E2BIG);
	done();
	/* An initrd that does not fit beside the kernel, or that is not there. */
	initrd = temp_file(big, sizeof(big));
	assert_int_equal(load_into(MEM, &b, sizeof(b), initrd, ""), -ENOMEM);
	done();
	unlink(initrd);
	assert_int_equal(load_into(MEM, &b, sizeof(b), initrd, ""), -ENOENT);
	done();
	free(initrd);
	/* Too little memory for the kernel. */
	assert_int_equal(load_into(8 << 20, &b, sizeof(b), NULL, ""), -ENOMEM);
	done();
}

/* ELF64: one segment of code, one note. */
struct elf {
	Elf64_Ehdr h;
	Elf64_Phdr p[2];
	struct {
		Elf64_Nhdr h;
		char name[4];
		u64 entry;
	} note;
	u8 code[256];
};

static void make_elf(struct elf *e)
{
	memset(e, 0, sizeof(*e));
	memcpy(e->h.e_ident, ELFMAG, SELFMAG);
	e->h.e_ident[EI_CLASS] = ELFCLASS64;
	e->h.e_ident[EI_DATA] = ELFDATA2LSB;
	e->h.e_machine = EM_X86_64;
	e->h.e_entry = 0xffffffff81000000;
	e->h.e_phoff = offsetof(struct elf, p);
	e->h.e_phentsize = sizeof(Elf64_Phdr);
	e->h.e_phnum = 2;
	e->p[0] = (Elf64_Phdr){ .p_type = PT_LOAD,
				.p_offset = offsetof(struct elf, code),
				.p_vaddr = 0xffffffff81000000,
				.p_paddr = LOAD_ADDR,
				.p_filesz = sizeof(e->code),
				.p_memsz = 4096 };
	e->p[1] = (Elf64_Phdr){ .p_type = PT_NOTE,
				.p_offset = offsetof(struct elf, note),
				.p_filesz = sizeof(e->note) };
	e->note.h = (Elf64_Nhdr){ 4, 8, 18 };
	memcpy(e->note.name, "Xen", 4);
	e->note.entry = LOAD_ADDR + 16;
	memset(e->code, 0x90, sizeof(e->code));
}

static u64 get64(u64 gpa)
{
	u64 v;

	memcpy(&v, mem_hva(&mem, gpa, 8), 8);
	return v;
}

static u32 get32(u64 gpa)
{
	u32 v;

	memcpy(&v, mem_hva(&mem, gpa, 4), 4);
	return v;
}

static void test_pvh(void **state)
{
	char *initrd = temp_file("initrd!", 7);
	struct elf e;
	u64 info, module;

	(void)state;
	make_elf(&e);
	assert_int_equal(load_into(MEM, &e, sizeof(e), initrd, "hello"), 0);
	assert_false(boot.long_mode);
	assert_int_equal(boot.rip, LOAD_ADDR + 16);
	info = boot.rbx;
	assert_int_equal(get32(info), 0x336ec578);
	assert_int_equal(get32(info + 4), 1);
	assert_int_equal(get32(info + 12), 1);
	module = get64(info + 16);
	assert_memory_equal(mem_hva(&mem, get64(module), 7), "initrd!", 7);
	assert_int_equal(get64(module + 8), 7);
	assert_string_equal(mem_hva(&mem, get64(info + 24), 6), "hello");
	assert_int_equal(get64(info + 32), 0xe0000);
	assert_true(get32(info + 48) >= 4);
	assert_int_equal(get64(get64(info + 40) + 8), MEM_EBDA);
	assert_int_equal(*(u8 *)mem_hva(&mem, LOAD_ADDR + 255, 1), 0x90);
	assert_int_equal(*(u8 *)mem_hva(&mem, LOAD_ADDR + 256, 1), 0);
	done();
	unlink(initrd);
	free(initrd);
}

#define ELF_REFUSED(change)                           \
	do {                                          \
		make_elf(&e);                         \
		change;                               \
		assert_true(load(&e, sizeof(e)) < 0); \
		done();                               \
	} while (0)

static void test_bad_elf(void **state)
{
	struct elf e;

	(void)state;
	ELF_REFUSED(e.h.e_machine = EM_AARCH64);
	ELF_REFUSED(e.h.e_ident[EI_CLASS] = 7);
	ELF_REFUSED(e.h.e_ident[EI_DATA] = ELFDATA2MSB);
	ELF_REFUSED(e.h.e_phnum = 0xffff);
	ELF_REFUSED(e.h.e_phoff = ~0ull);
	ELF_REFUSED(e.h.e_phoff = sizeof(e) - 10);
	ELF_REFUSED(e.h.e_phentsize = 8);
	ELF_REFUSED(e.p[0].p_offset = ~0ull);
	ELF_REFUSED(e.p[0].p_filesz = sizeof(e));
	ELF_REFUSED(e.p[0].p_memsz = 1);
	ELF_REFUSED(e.p[0].p_memsz = ~0ull);
	ELF_REFUSED(e.p[0].p_paddr = 0);
	ELF_REFUSED(e.p[0].p_paddr = 0xa0000);
	ELF_REFUSED(e.p[0].p_paddr = 0xfffff);
	ELF_REFUSED(e.p[0].p_paddr = MEM - 256);
	ELF_REFUSED(e.p[0].p_type = PT_NULL);
	ELF_REFUSED(e.note.h.n_type = 1);
	ELF_REFUSED(e.note.h.n_descsz = 7);
	ELF_REFUSED(e.note.h.n_namesz = 0xffffffff);
	ELF_REFUSED(e.note.entry = MEM);
	ELF_REFUSED(e.note.entry = ~0ull);
	ELF_REFUSED(e.p[1].p_offset = ~0ull);
	ELF_REFUSED(e.p[1].p_filesz = ~0ull);
	make_elf(&e);
	for (size_t len = 0; len < sizeof(e); len += 7) {
		assert_true(load(&e, len) < 0);
		done();
	}
}

struct flat {
	u32 head[8];
	u8 code[4064];
};

static void make_flat(struct flat *f)
{
	u32 base = 0x200000;

	memset(f, 0x90, sizeof(*f));
	f->head[0] = 0x1badb002;
	f->head[1] = 0x10003;
	f->head[2] = -(f->head[0] + f->head[1]);
	f->head[3] = base;
	f->head[4] = base;
	f->head[5] = base + sizeof(*f);
	f->head[6] = base + 2 * sizeof(*f);
	f->head[7] = base + 32;
}

static void test_multiboot(void **state)
{
	char *module = temp_file("module", 6);
	struct flat f;
	u64 info, mods, map, end;

	(void)state;
	make_flat(&f);
	assert_int_equal(load_into(MEM, &f, sizeof(f), module, "hello"), 0);
	assert_int_equal(boot.rax, 0x2badb002);
	assert_int_equal(boot.rip, 0x200020);
	info = boot.rbx;
	assert_int_equal(get32(info) & 0x24d, 0x24d);
	assert_int_equal(get32(info + 4), 639 /* KiB below the EBDA */);
	assert_int_equal(get32(info + 8), (MEM >> 10) - 1024);
	assert_string_equal(mem_hva(&mem, get32(info + 16), 6), "hello");
	assert_int_equal(get32(info + 20), 1);
	mods = get32(info + 24);
	assert_int_equal(get32(mods) % 4096, 0);
	assert_true(get32(mods) >= 0x200000 + 2 * sizeof(f));
	assert_memory_equal(mem_hva(&mem, get32(mods), 6), "module", 6);
	assert_int_equal(get32(mods + 4) - get32(mods), 6);
	assert_string_equal(mem_hva(&mem, get32(mods + 8), 64), module);
	map = get32(info + 48);
	end = map + get32(info + 44);
	for (; map < end; map += get32(map) + 4)
		assert_int_equal(get32(map), 20);
	assert_int_equal(map, end);
	done();
	unlink(module);
	free(module);
}

#define FLAT_REFUSED(change)                          \
	do {                                          \
		make_flat(&f);                        \
		change;                               \
		f.head[2] = -(f.head[0] + f.head[1]); \
		assert_true(load(&f, sizeof(f)) < 0); \
		done();                               \
	} while (0)

static void test_bad_multiboot(void **state)
{
	struct flat f;

	(void)state;
	FLAT_REFUSED(f.head[1] |= 8);
	FLAT_REFUSED(f.head[1] = 3); /* neither addresses nor ELF */
	FLAT_REFUSED(f.head[3] = 0x1000);
	FLAT_REFUSED(f.head[4] = f.head[3] + 4);
	FLAT_REFUSED(f.head[4] = f.head[3] - 4);
	FLAT_REFUSED(f.head[5] = 0x100000);
	FLAT_REFUSED(f.head[5] = 0x200000 + sizeof(f) + 4);
	FLAT_REFUSED(f.head[6] = 0x200004);
	FLAT_REFUSED(f.head[6] = 0xfffffff0);
	FLAT_REFUSED(f.head[7] = 0xfffffff0);
	FLAT_REFUSED((f.head[3] = f.head[4] = 0x1000, f.head[5] = f.head[6] = 0));
	make_flat(&f);
	f.head[2]++;
	assert_int_equal(load(&f, sizeof(f)), -ENOEXEC);
	done();
}

static void test_garbage(void **state)
{
	static u8 garbage[20000];

	(void)state;
	srand(7);
	for (unsigned n = 0; n < 50; n++) {
		for (size_t i = 0; i < sizeof(garbage); i++)
			garbage[i] = (u8)rand();
		assert_int_equal(load(garbage, sizeof(garbage)), -ENOEXEC);
		done();
	}
	assert_int_equal(load(garbage, 0), -ENOEXEC);
	done();
}

/* Good images with random bytes changed: loaded or refused, but never a crash. */
static void test_mutations(void **state)
{
	struct elf e;
	struct flat f;
	struct bz b;

	(void)state;
	srand(11);
	for (unsigned n = 0; n < 300; n++) {
		make_bz(&b);
		make_elf(&e);
		make_flat(&f);
		for (unsigned i = 0; i < 3; i++) {
			b.setup[0x1f1 + (unsigned)rand() % 128] = (u8)rand();
			((u8 *)&e)[(unsigned)rand() % offsetof(struct elf, code)] = (u8)rand();
			((u8 *)&f)[12 + (unsigned)rand() % 20] = (u8)rand();
		}
		load(&b, sizeof(b));
		done();
		load(&e, sizeof(e));
		done();
		load(&f, sizeof(f));
		done();
	}
}

static int nkernels;
static char **kernels;

static void test_real_kernels(void **state)
{
	(void)state;
	for (int i = 0; i < nkernels; i++) {
		struct load_request req = { kernels[i], NULL, "console=ttyS0", 0xe0000 };

		assert_int_equal(mem_init(&mem, 512 << 20), 0);
		assert_int_equal(load_kernel(&req, &mem, &boot), 0);
		printf("%s: %s, entry 0x%llx\n", kernels[i], boot.format,
		       (unsigned long long)boot.rip);
		done();
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bzimage),	      cmocka_unit_test(test_bzimage_32),
		cmocka_unit_test(test_bad_bzimage),   cmocka_unit_test(test_pvh),
		cmocka_unit_test(test_bad_elf),	      cmocka_unit_test(test_multiboot),
		cmocka_unit_test(test_bad_multiboot), cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_mutations),     cmocka_unit_test(test_real_kernels),
	};

	nkernels = argc - 1;
	kernels = argv + 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * The program's file in memory, and what it finds on its stack: as the kernel does it for execve(2).  ELF-64 and the
 * x86-64 psABI say how.
 *
 * The break is our own: the process's real one is moved by our C library's malloc(), and two that move one break do
 * not get along.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "load/load.h"
#include "shim.h"

#define PAGE	  4096ull
#define MAX_PHDRS 128
#define MAX_TEXTS 16
#define BREAK_MAX (1ull << 30)

#define DOWN(x) ((x) & ~(PAGE - 1))
#define UP(x)	DOWN((x) + PAGE - 1)

/* Where the program's code is: ranges that are mapped from files, readable and executable, not writable. */
static struct {
	uint64_t start, end;
} texts[MAX_TEXTS];
static unsigned nr_texts;

bool um_load_is_text(uint64_t start, uint64_t size)
{
	for (unsigned i = 0; i < nr_texts; i++) {
		if (start >= texts[i].start && start + size <= texts[i].end)
			return true;
	}
	return false;
}

static int prot_of(const Elf64_Phdr *p)
{
	return (p->p_flags & PF_R ? PROT_READ : 0) | (p->p_flags & PF_W ? PROT_WRITE : 0) |
	       (p->p_flags & PF_X ? PROT_EXEC : 0);
}

static void *map(uint64_t addr, uint64_t size, int prot, int flags, int fd, uint64_t offset)
{
	return um_next()->mmap((void *)addr, size, prot, flags, fd, (off_t)offset);
}

/* Memory behind the file's part of a segment is zero. */
static int map_zero(uint64_t bias, const Elf64_Phdr *p)
{
	uint64_t file_end = bias + p->p_vaddr + p->p_filesz, end = bias + p->p_vaddr + p->p_memsz;
	int prot = prot_of(p);

	if (end <= file_end)
		return 0;
	if (p->p_filesz && file_end != UP(file_end) && (prot & PROT_WRITE))
		memset((void *)file_end, 0, (size_t)(UP(file_end) - file_end));
	if (!p->p_filesz)
		file_end = DOWN(file_end);
	if (UP(end) > UP(file_end) &&
	    map(UP(file_end), UP(end) - UP(file_end), prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		-1, 0) == MAP_FAILED)
		return -errno;
	return 0;
}

static int map_segment(int fd, uint64_t bias, const Elf64_Phdr *p)
{
	uint64_t start = DOWN(bias + p->p_vaddr), skew = p->p_vaddr % PAGE;
	int prot = prot_of(p);

	if (p->p_filesz && map(start, p->p_filesz + skew, prot, MAP_PRIVATE | MAP_FIXED, fd,
			       p->p_offset - skew) == MAP_FAILED)
		return -errno;
	if (prot == (PROT_READ | PROT_EXEC) && p->p_filesz && nr_texts < MAX_TEXTS) {
		texts[nr_texts].start = start;
		texts[nr_texts++].end = start + skew + p->p_filesz;
	}
	return map_zero(bias, p);
}

/* Reserve what all segments take together: *bias is what is added to the addresses in the file. */
static int reserve(const Elf64_Ehdr *e, const Elf64_Phdr *ph, uint64_t *bias, uint64_t *start,
		   uint64_t *end)
{
	uint64_t lo = UINT64_MAX, hi = 0, align = PAGE;
	void *p;

	for (unsigned i = 0; i < e->e_phnum; i++) {
		uint64_t top = ph[i].p_vaddr + ph[i].p_memsz;

		if (ph[i].p_type != PT_LOAD)
			continue;
		if (top < ph[i].p_vaddr || top >= 1ull << 47 || ph[i].p_filesz > ph[i].p_memsz ||
		    (ph[i].p_vaddr - ph[i].p_offset) % PAGE)
			return -ENOEXEC;
		lo = DOWN(ph[i].p_vaddr) < lo ? DOWN(ph[i].p_vaddr) : lo;
		hi = UP(top) > hi ? UP(top) : hi;
		if (ph[i].p_align > align && !(ph[i].p_align & (ph[i].p_align - 1)))
			align = ph[i].p_align;
	}
	if (lo >= hi || align > 1ull << 30)
		return -ENOEXEC;
	if (e->e_type == ET_EXEC) {
		p = map(lo, hi - lo, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
		if (p == MAP_FAILED)
			return -errno;
		if (p != (void *)lo) /* a kernel before 4.17 takes the address as a hint */
			return -EEXIST;
		*bias = 0;
	} else {
		p = map(0, hi - lo + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);
		if (p == MAP_FAILED)
			return -errno;
		*bias = (((uint64_t)p + align - 1) & ~(align - 1)) - lo;
	}
	*start = *bias + lo;
	*end = *bias + hi;
	return 0;
}

struct object {
	Elf64_Ehdr e;
	Elf64_Phdr ph[MAX_PHDRS];
	uint64_t bias, start, end;
	char interp[PATH_MAX];
};

static int map_object(const char *path, struct object *o)
{
	int fd = um_next()->open(path, O_RDONLY | O_CLOEXEC), err = 0;
	size_t size;

	if (fd < 0)
		return -errno;
	o->interp[0] = 0;
	if (pread(fd, &o->e, sizeof(o->e), 0) != sizeof(o->e) ||
	    memcmp(o->e.e_ident, ELFMAG, SELFMAG) || o->e.e_machine != EM_X86_64 ||
	    (o->e.e_type != ET_EXEC && o->e.e_type != ET_DYN) ||
	    o->e.e_phentsize != sizeof(Elf64_Phdr) || o->e.e_phnum > MAX_PHDRS)
		err = -ENOEXEC;
	size = o->e.e_phnum * sizeof(Elf64_Phdr);
	if (!err && pread(fd, o->ph, size, (off_t)o->e.e_phoff) != (ssize_t)size)
		err = -ENOEXEC;
	if (!err)
		err = reserve(&o->e, o->ph, &o->bias, &o->start, &o->end);
	for (unsigned i = 0; !err && i < o->e.e_phnum; i++) {
		const Elf64_Phdr *p = &o->ph[i];

		if (p->p_type == PT_LOAD)
			err = map_segment(fd, o->bias, p);
		else if (p->p_type == PT_INTERP &&
			 (p->p_filesz >= sizeof(o->interp) ||
			  pread(fd, o->interp, p->p_filesz, (off_t)p->p_offset) !=
				  (ssize_t)p->p_filesz))
			err = -ENOEXEC;
	}
	um_next()->close(fd);
	return err;
}

/* Where the program header table is in memory. */
static uint64_t phdr_address(const struct object *o)
{
	for (unsigned i = 0; i < o->e.e_phnum; i++) {
		const Elf64_Phdr *p = &o->ph[i];

		if (p->p_type == PT_PHDR)
			return o->bias + p->p_vaddr;
		if (p->p_type == PT_LOAD && o->e.e_phoff >= p->p_offset &&
		    o->e.e_phoff < p->p_offset + p->p_filesz)
			return o->bias + p->p_vaddr + o->e.e_phoff - p->p_offset;
	}
	return 0;
}

int um_load_image(const char *path, struct um_load_image *img)
{
	static struct object program, loader; /* once for each process, before there are threads */
	int err = map_object(path, &program);

	if (err)
		return err;
	*img = (struct um_load_image){
		.start = program.start,
		.end = program.end,
		.bias = program.bias,
		.entry = program.bias + program.e.e_entry,
		.phdr = phdr_address(&program),
		.phnum = program.e.e_phnum,
	};
	img->jump = img->entry;
	if (program.interp[0]) {
		err = map_object(program.interp, &loader);
		if (err)
			return err;
		img->base = loader.bias;
		img->jump = loader.bias + loader.e.e_entry;
	}
	return 0;
}

/* ---- the stack ---- */

static size_t count(char **list)
{
	size_t n = 0;

	while (list[n])
		n++;
	return n;
}

/* What the kernel has told us, up to and with AT_NULL. */
static const ElfW(auxv_t) * own_auxv(size_t *n)
{
	static ElfW(auxv_t) v[64];
	int fd = um_next()->open("/proc/self/auxv", O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? 0 : read(fd, v, sizeof(v) - sizeof(v[0]));

	if (fd >= 0)
		um_next()->close(fd);
	for (*n = 0; size > 0 && *n < (size_t)size / sizeof(v[0]) && v[*n].a_type != AT_NULL;)
		++*n;
	return v;
}

size_t um_load_stack_words(char **argv, char **envp)
{
	size_t n;

	own_auxv(&n);
	return 1 + count(argv) + 1 + count(envp) + 1 + 2 * (n + 1) + 1;
}

static uint64_t auxv_value(const ElfW(auxv_t) * a, const struct um_load_image *img,
			   const char *path)
{
	static uint8_t noise[16];

	switch (a->a_type) {
	case AT_PHDR:
		return img->phdr;
	case AT_PHNUM:
		return img->phnum;
	case AT_BASE:
		return img->base;
	case AT_ENTRY:
		return img->entry;
	case AT_EXECFN:
		return (uint64_t)path;
	case AT_RANDOM: /* ours is in our C library's secrets */
		return getrandom(noise, sizeof(noise), GRND_NONBLOCK) == sizeof(noise)
			       ? (uint64_t)noise
			       : a->a_un.a_val;
	default:
		return a->a_un.a_val;
	}
}

void um_load_stack_fill(uint64_t *w, char **argv, char **envp, const struct um_load_image *img,
			const char *path)
{
	const ElfW(auxv_t) * a;
	size_t n;

	a = own_auxv(&n);
	*w++ = count(argv);
	while (*argv)
		*w++ = (uint64_t)*argv++;
	*w++ = 0;
	while (*envp)
		*w++ = (uint64_t)*envp++;
	*w++ = 0;
	for (size_t i = 0; i < n; i++) {
		*w++ = a[i].a_type;
		*w++ = auxv_value(&a[i], img, path);
	}
	*w++ = AT_NULL;
	*w++ = 0;
}

/* ---- the break ---- */

static atomic_flag break_lock = ATOMIC_FLAG_INIT;

void um_load_brk_child(void)
{
	atomic_flag_clear(&break_lock);
}

uint64_t um_load_brk(uint64_t want)
{
	static uint64_t start, now; /* under the lock */
	uint64_t r;
	void *p;

	while (atomic_flag_test_and_set_explicit(&break_lock, memory_order_acquire))
		;
	if (!start) {
		p = map(0, BREAK_MAX, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			0);
		start = now = p == MAP_FAILED ? 0 : (uint64_t)p;
	}
	if (want >= start && want <= start + BREAK_MAX && start) {
		bool ok = true;

		if (UP(want) > UP(now))
			ok = mprotect((void *)UP(now), UP(want) - UP(now),
				      PROT_READ | PROT_WRITE) == 0;
		else if (UP(want) < UP(now)) /* what comes back later is zero */
			ok = map(UP(want), UP(now) - UP(want), PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
				 0) != MAP_FAILED;
		if (ok)
			now = want;
	}
	r = now;
	atomic_flag_clear_explicit(&break_lock, memory_order_release);
	return r;
}

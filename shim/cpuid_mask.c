// SPDX-License-Identifier: MIT
/* CPUID: SDM vol. 2A.  Faulting: the kernel's arch_prctl(2).  .eh_frame: the LSB's and DWARF's call frame information. */
#include "cpuid_mask.h"

#include <Zydis/Zydis.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "next.h"

#define MAX_SITES  256
#define TRAP_UD	   6
#define TRAP_GP	   13
#define LEAF1_VMX  (1u << 5)
#define LEAF81_SVM (1u << 2)

static const uint8_t cpuid_insn[] = { 0x0f, 0xa2 };
#define UD2_BYTE 0x0b /* behind 0x0f */

static int raised; /* the signal, or 0 */
static bool is_amd;
static uint64_t sites[MAX_SITES];
static unsigned nr_sites;

/* ---- answering ---- */

/* Not by the C library: filters let this library's own calls pass. */
static long set_faulting(bool on)
{
	long r;

	asm volatile("syscall"
		     : "=a"(r)
		     : "a"(SYS_arch_prctl), "D"(ARCH_SET_CPUID), "S"((long)!on)
		     : "rcx", "r11", "memory");
	return r;
}

static bool is_site(uint64_t ip)
{
	for (unsigned i = 0; i < nr_sites; i++) {
		if (sites[i] == ip)
			return true;
	}
	return false;
}

bool um_cpuid_fixup(int sig, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	uint64_t ip = (uint64_t)g[REG_RIP];
	uint32_t leaf = (uint32_t)g[REG_RAX], a, b, c, d;

	if (!raised || sig != raised)
		return false;
	if (sig == SIGILL ? g[REG_TRAPNO] != TRAP_UD || !is_site(ip)
			  : g[REG_TRAPNO] != TRAP_GP ||
				    memcmp((void *)ip, cpuid_insn, sizeof(cpuid_insn)) != 0)
		return false;
	if (sig == SIGSEGV)
		set_faulting(false);
	__cpuid_count(leaf, (uint32_t)g[REG_RCX], a, b, c, d);
	if (sig == SIGSEGV)
		set_faulting(true);
	if (leaf == 1 && !is_amd)
		c |= LEAF1_VMX;
	if (leaf == 0x80000001 && is_amd)
		c |= LEAF81_SVM;
	g[REG_RAX] = a;
	g[REG_RBX] = b;
	g[REG_RCX] = c;
	g[REG_RDX] = d;
	g[REG_RIP] += sizeof(cpuid_insn);
	return true;
}

/* ---- finding the instructions ---- */

struct text {
	uint64_t start, end;
};

static bool has_cpuid(const struct text *t)
{
	return t->end > t->start && memmem((void *)t->start, (size_t)(t->end - t->start),
					   cpuid_insn, sizeof(cpuid_insn));
}

/* One function: straight through, as compilers and assemblers write them. */
static void scan_function(const ZydisDecoder *dec, uint64_t start, uint64_t end)
{
	ZydisDecodedInstruction insn;

	while (start < end) {
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(dec, NULL, (void *)start,
								end - start, &insn)))
			return; /* data: what follows can't be told */
		if (insn.mnemonic == ZYDIS_MNEMONIC_CPUID && insn.length == sizeof(cpuid_insn) &&
		    nr_sites < MAX_SITES)
			sites[nr_sites++] = start;
		start += insn.length;
	}
}

#define PCREL_SDATA4 0x1b /* the pointers' encoding that compilers for x86-64 use */

static int32_t get32(const uint8_t *p)
{
	int32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static const uint8_t *skip_leb(const uint8_t *p)
{
	while (*p++ & 0x80)
		;
	return p;
}

/*
 * A CIE: length, 0, version, augmentation, three numbers, and for "zR..." the augmentation's size and the encoding of
 * pointers in its FDEs.
 */
static bool cie_is_usual(const uint8_t *cie)
{
	const uint8_t *p = cie + 8, *aug = p + 1;

	/* Others are functions with exception handlers: not where CPUID is. */
	if (*p != 1 || aug[0] != 'z' || aug[1] != 'R')
		return false;
	p = aug + strlen((const char *)aug) + 1;
	for (int i = 0; i < 4; i++)
		p = skip_leb(p);
	return *p == PCREL_SDATA4;
}

/* .eh_frame: CIEs and FDEs, each behind its length.  An FDE: length, distance of its CIE, function, size, ... */
static void scan_functions(const uint8_t *rec, const uint8_t *end, const struct text *texts,
			   unsigned n)
{
	ZydisDecoder dec;
	uint32_t len;

	ZydisDecoderInit(&dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (; end - rec >= 16; rec += 4 + len) {
		struct text f;

		len = (uint32_t)get32(rec);
		if (len < 12 || len > (size_t)(end - rec) - 4)
			return; /* the end, or more than 4 GiB of it */
		if (!get32(rec + 4) || !cie_is_usual(rec + 4 - get32(rec + 4)))
			continue;
		f.start = (uint64_t)rec + 8 + (uint64_t)(int64_t)get32(rec + 8);
		f.end = f.start + (uint32_t)get32(rec + 12);
		for (unsigned t = 0; t < n; t++) {
			if (f.start >= texts[t].start && f.end <= texts[t].end && has_cpuid(&f))
				scan_function(&dec, f.start, f.end);
		}
	}
}

/* Where .eh_frame is by the file's section header table: static executables have no program header for it. */
static bool find_section(const char *path, uint64_t bias, struct text *at)
{
	int fd = um_next()->open(path, O_RDONLY | O_CLOEXEC);
	Elf64_Shdr sh, names;
	Elf64_Ehdr e;
	char name[16];
	bool found = false;

	if (fd < 0)
		return false;
	if (pread(fd, &e, sizeof(e), 0) == sizeof(e) && e.e_shentsize == sizeof(sh) &&
	    pread(fd, &names, sizeof(names), (off_t)(e.e_shoff + e.e_shstrndx * sizeof(sh))) ==
		    sizeof(names)) {
		for (unsigned i = 0; !found && i < e.e_shnum; i++) {
			if (pread(fd, &sh, sizeof(sh), (off_t)(e.e_shoff + i * sizeof(sh))) !=
				    sizeof(sh) ||
			    !(sh.sh_flags & SHF_ALLOC) ||
			    pread(fd, name, sizeof(name), (off_t)(names.sh_offset + sh.sh_name)) <
				    10)
				continue;
			found = !memcmp(name, ".eh_frame", 10);
			at->start = bias + sh.sh_addr;
			at->end = at->start + sh.sh_size;
		}
	}
	um_next()->close(fd);
	return found;
}

/*
 * ... and by the program header, which is that of .eh_frame_hdr: version, encodings of what follows, and first the
 * pointer to .eh_frame, which lies in the same segment.
 */
static bool find_frames(const Elf64_Phdr *ph, size_t n, uint64_t bias, struct text *at)
{
	const uint8_t *hdr = NULL;

	for (size_t i = 0; i < n; i++) {
		if (ph[i].p_type == PT_GNU_EH_FRAME && ph[i].p_memsz >= 12)
			hdr = (const uint8_t *)(bias + ph[i].p_vaddr);
	}
	if (!hdr || hdr[0] != 1 || hdr[1] != PCREL_SDATA4)
		return false;
	at->start = (uint64_t)hdr + 4 + (uint64_t)(int64_t)get32(hdr + 4);
	for (size_t i = 0; i < n; i++) {
		uint64_t start = bias + ph[i].p_vaddr;

		if (ph[i].p_type == PT_LOAD && at->start >= start &&
		    at->start < start + ph[i].p_filesz) {
			at->end = start + ph[i].p_filesz;
			return true;
		}
	}
	return false;
}

/* One byte of each changes. */
static void patch_sites(void)
{
	for (unsigned i = 0; i < nr_sites; i++) {
		uint64_t at = sites[i] + 1, page = at & ~0xfffull;

		if (mprotect((void *)page, 0x1000, PROT_READ | PROT_WRITE) < 0) {
			sites[i] = 0;
			continue;
		}
		*(volatile uint8_t *)at = UD2_BYTE;
		mprotect((void *)page, 0x1000, PROT_READ | PROT_EXEC);
	}
}

/* ---- which way ---- */

static enum um_cpuid_mode asked(void)
{
	const char *s = getenv("UMBRA_CPUID");

	if (s && !strcmp(s, "fault"))
		return UM_CPUID_FAULT;
	if (s && !strcmp(s, "patch"))
		return UM_CPUID_PATCH;
	return s && !strcmp(s, "off") ? UM_CPUID_OFF : UM_CPUID_AUTO;
}

int um_cpuid_init(const char *path, const Elf64_Phdr *ph, size_t n, uint64_t bias)
{
	struct text frames;
	enum um_cpuid_mode mode = asked();
	struct text texts[16];
	unsigned nr_texts = 0, a, b, c, d;
	bool any = false;

	if (mode == UM_CPUID_OFF)
		return 0;
	__cpuid(0, a, b, c, d);
	is_amd = b == signature_AMD_ebx || b == 0x6f677948 /* "Hygo" */;
	for (size_t i = 0; i < n; i++) {
		if (ph[i].p_type != PT_LOAD ||
		    (ph[i].p_flags & (PF_R | PF_W | PF_X)) != (PF_R | PF_X) || nr_texts == 16)
			continue;
		texts[nr_texts].start = bias + ph[i].p_vaddr;
		texts[nr_texts].end = texts[nr_texts].start + ph[i].p_filesz;
		any |= has_cpuid(&texts[nr_texts++]);
	}
	if (!any)
		return 0;
	if (mode != UM_CPUID_PATCH && set_faulting(true) == 0)
		return raised = SIGSEGV;
	if (mode == UM_CPUID_FAULT ||
	    (!find_frames(ph, n, bias, &frames) && !find_section(path, bias, &frames)))
		return 0;
	scan_functions((const uint8_t *)frames.start, (const uint8_t *)frames.end, texts, nr_texts);
	patch_sites();
	return raised = nr_sites ? SIGILL : 0;
}

// SPDX-License-Identifier: MIT
/* CPUID: SDM vol. 2A.  Faulting: the kernel's arch_prctl(2).  .eh_frame: the LSB's and DWARF's call frame information. */
#include "cpuid_mask.h"

#include <Zydis/Zydis.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

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

/* Pointer encodings of .eh_frame_hdr and of FDEs, of which linkers for x86-64 write one each. */
#define DATAREL_SDATA4 0x3b
#define PCREL_SDATA4   0x1b
#define UDATA4	       0x03

static int32_t get32(const uint8_t *p)
{
	int32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/*
 * .eh_frame_hdr: version, three encodings, pointer to .eh_frame, number of entries, and sorted pairs of
 * (function, FDE), both relative to this section's start.  An FDE: length, distance of its CIE, function, size.
 */
static void scan_functions(const Elf64_Phdr *frame, uint64_t bias, const struct text *texts,
			   unsigned n)
{
	const uint8_t *hdr = (const uint8_t *)(bias + frame->p_vaddr), *row;
	ZydisDecoder dec;
	uint32_t rows;

	if (frame->p_memsz < 12 || hdr[0] != 1 || hdr[1] != PCREL_SDATA4 || hdr[2] != UDATA4 ||
	    hdr[3] != DATAREL_SDATA4)
		return;
	rows = (uint32_t)get32(hdr + 8);
	if (rows > (frame->p_memsz - 12) / 8)
		return;
	ZydisDecoderInit(&dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	row = hdr + 12;
	for (uint32_t i = 0; i < rows; i++, row += 8) {
		struct text f = { .start = (uint64_t)hdr + (uint64_t)(int64_t)get32(row) };
		const uint8_t *fde = hdr + get32(row + 4);

		/* If the pointer's format is PCREL_SDATA4, the size is the fourth word. */
		if ((uint64_t)fde + 8 + (uint64_t)(int64_t)get32(fde + 8) != f.start)
			continue;
		f.end = f.start + (uint32_t)get32(fde + 12);
		for (unsigned t = 0; t < n; t++) {
			if (f.start >= texts[t].start && f.end <= texts[t].end && has_cpuid(&f))
				scan_function(&dec, f.start, f.end);
		}
	}
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

int um_cpuid_init(const Elf64_Phdr *ph, size_t n, uint64_t bias)
{
	const Elf64_Phdr *frame = NULL;
	enum um_cpuid_mode mode = asked();
	struct text texts[16];
	unsigned nr_texts = 0, a, b, c, d;
	bool any = false;

	if (mode == UM_CPUID_OFF)
		return 0;
	__cpuid(0, a, b, c, d);
	is_amd = b == signature_AMD_ebx || b == 0x6f677948 /* "Hygo" */;
	for (size_t i = 0; i < n; i++) {
		if (ph[i].p_type == PT_GNU_EH_FRAME)
			frame = &ph[i];
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
	if (mode == UM_CPUID_FAULT || !frame)
		return 0;
	scan_functions(frame, bias, texts, nr_texts);
	patch_sites();
	return raised = nr_sites ? SIGILL : 0;
}

// SPDX-License-Identifier: MIT
/*
 * The instructions in front of a program's filter: <linux/seccomp.h>, <linux/filter.h>.  Jumps in a filter are relative,
 * so it can be moved.
 */
#include "seccomp.h"

#include <errno.h>
#include <link.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "shim.h"

#define PER_RANGE 6

struct builder {
	struct sock_filter *code;
	unsigned n, max;
};

static void add(struct builder *b, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
	if (b->n < b->max)
		b->code[b->n] = (struct sock_filter){ code, jt, jf, k };
	b->n++;
}

static void load(struct builder *b, size_t offset)
{
	add(b, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

static void allow_call(struct builder *b, uint32_t nr)
{
	add(b, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, nr);
	add(b, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
}

/* The instruction pointer in seccomp_data is that behind the SYSCALL. */
static void allow_range(struct builder *b, uint64_t start, uint64_t end)
{
	const size_t ip = offsetof(struct seccomp_data, instruction_pointer);

	if (start >> 32 != end >> 32)
		return;
	load(b, ip + 4);
	add(b, BPF_JMP | BPF_JEQ | BPF_K, 0, PER_RANGE - 2, (uint32_t)(start >> 32));
	load(b, ip);
	add(b, BPF_JMP | BPF_JGT | BPF_K, 0, 2, (uint32_t)start);
	add(b, BPF_JMP | BPF_JGT | BPF_K, 1, 0, (uint32_t)end);
	add(b, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
}

static bool contains(const struct dl_phdr_info *info, uint64_t addr)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && addr - info->dlpi_addr - p->p_vaddr < p->p_memsz)
			return true;
	}
	return false;
}

static int allow_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	if (!UM_SHIM_SUPERVISOR && !contains(info, (uint64_t)(uintptr_t)um_seccomp_widen) &&
	    !contains(info, (uint64_t)(uintptr_t)umbra_version()))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uint64_t start = info->dlpi_addr + p->p_vaddr;

		if (p->p_type == PT_LOAD && (p->p_flags & PF_X))
			allow_range(arg, start, start + p->p_memsz);
	}
	return 0;
}

int um_seccomp_widen(struct um_seccomp_filter *f, const struct sock_fprog *prog)
{
	struct builder b = { .max = BPF_MAXINSNS };

	b.code = malloc(BPF_MAXINSNS * sizeof(b.code[0]));
	if (!b.code)
		return -ENOMEM;
	load(&b, offsetof(struct seccomp_data, nr));
	allow_call(&b, SYS_rt_sigreturn);
	allow_call(&b, SYS_rt_sigprocmask);
	if (UM_SHIM_SUPERVISOR) /* FS base, on the way in and out, where there is no instruction for it */
		allow_call(&b, SYS_arch_prctl);
	dl_iterate_phdr(allow_object, &b);
	if (b.n + prog->len > BPF_MAXINSNS) {
		free(b.code);
		return -EINVAL;
	}
	memcpy(b.code + b.n, prog->filter, prog->len * sizeof(b.code[0]));
	f->prog.filter = b.code;
	f->prog.len = (unsigned short)(b.n + prog->len);
	return 0;
}

void um_seccomp_free(struct um_seccomp_filter *f)
{
	free(f->prog.filter);
}

// SPDX-License-Identifier: MIT
/* What a dead vCPU looked like: registers, and the instructions at RIP. */
#include <Zydis/Zydis.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vcpu.h"

#define CODE_BYTES 32
#define MAX_LINES  6

static void print_segment(FILE *f, const char *name, const struct kvm_segment *s)
{
	fprintf(f, "  %-3s %04x base %016llx limit %08x type %x%s dpl %u%s%s%s\n", name,
		s->selector, s->base, s->limit, s->type, s->s ? "" : " sys", s->dpl,
		s->present ? "" : " absent",
		s->l	? " 64-bit"
		: s->db ? " 32-bit"
			: " 16-bit",
		s->unusable ? " unusable" : "");
}

static void print_registers(FILE *f, const struct kvm_regs *r, const struct kvm_sregs *s)
{
	fprintf(f, "  rip %016llx  rflags %08llx\n", r->rip, r->rflags);
	fprintf(f, "  rax %016llx  rbx %016llx  rcx %016llx  rdx %016llx\n", r->rax, r->rbx, r->rcx,
		r->rdx);
	fprintf(f, "  rsi %016llx  rdi %016llx  rbp %016llx  rsp %016llx\n", r->rsi, r->rdi, r->rbp,
		r->rsp);
	fprintf(f, "  r8  %016llx  r9  %016llx  r10 %016llx  r11 %016llx\n", r->r8, r->r9, r->r10,
		r->r11);
	fprintf(f, "  r12 %016llx  r13 %016llx  r14 %016llx  r15 %016llx\n", r->r12, r->r13, r->r14,
		r->r15);
	fprintf(f, "  cr0 %08llx  cr2 %016llx  cr3 %016llx  cr4 %08llx  cr8 %llx  efer %llx\n",
		s->cr0, s->cr2, s->cr3, s->cr4, s->cr8, s->efer);
	print_segment(f, "cs", &s->cs);
	print_segment(f, "ss", &s->ss);
	print_segment(f, "ds", &s->ds);
	print_segment(f, "es", &s->es);
	print_segment(f, "fs", &s->fs);
	print_segment(f, "gs", &s->gs);
	print_segment(f, "ldt", &s->ldt);
	print_segment(f, "tr", &s->tr);
	fprintf(f, "  gdt %016llx limit %04x   idt %016llx limit %04x\n", s->gdt.base, s->gdt.limit,
		s->idt.base, s->idt.limit);
}

/* Guest linear memory, as far as it is mapped to RAM; the number of bytes got. */
static unsigned read_linear(const struct vcpu_env *env, int fd, u64 linear, u8 *buf, unsigned len)
{
	unsigned got = 0;

	while (got < len) {
		struct kvm_translation t = { .linear_address = linear + got };
		unsigned n =
			um_min(len - got, (unsigned)(UM_PAGE_SIZE - (linear + got) % UM_PAGE_SIZE));
		const void *hva;

		if (env->accel->ioctl(fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
			break;
		hva = mem_hva(env->mem, t.physical_address, n);
		if (!hva)
			break;
		memcpy(buf + got, hva, n);
		got += n;
	}
	return got;
}

static ZydisMachineMode machine_mode(const struct kvm_sregs *s)
{
	if (s->cs.l)
		return ZYDIS_MACHINE_MODE_LONG_64;
	if (s->cs.db)
		return ZYDIS_MACHINE_MODE_LEGACY_32;
	return s->cr0 & 1 ? ZYDIS_MACHINE_MODE_LEGACY_16 : ZYDIS_MACHINE_MODE_REAL_16;
}

static void print_code(FILE *f, const struct kvm_regs *r, const struct kvm_sregs *s, const u8 *code,
		       unsigned len)
{
	unsigned at = 0;

	if (!len)
		fprintf(f, "  (no code: rip is not mapped to memory)\n");
	for (unsigned line = 0; line < MAX_LINES && at < len; line++) {
		ZydisDisassembledInstruction in;

		fprintf(f, "  %016llx ", r->rip + at);
		if (!ZYAN_SUCCESS(ZydisDisassembleIntel(machine_mode(s), r->rip + at, code + at,
							len - at, &in))) {
			while (at < len)
				fprintf(f, " %02x", code[at++]);
			fprintf(f, "  (no instruction)\n");
			return;
		}
		for (unsigned i = 0; i < in.info.length; i++)
			fprintf(f, " %02x", code[at + i]);
		fprintf(f, "%*s %s\n", 3 * (int)(10 - um_min(in.info.length, 10)), "", in.text);
		at += in.info.length;
	}
}

void vcpu_dump(const struct vcpu_env *env, int fd, unsigned id)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	u8 code[CODE_BYTES];
	char *text = NULL;
	size_t size;
	FILE *f;

	if (env->accel->ioctl(fd, KVM_GET_REGS, &regs) < 0 ||
	    env->accel->ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
		return;
	/* In one piece, so that two vCPUs' dumps do not mix. */
	f = open_memstream(&text, &size);
	if (!f)
		return;
	fprintf(f, "vCPU %u:\n", id);
	print_registers(f, &regs, &sregs);
	print_code(f, &regs, &sregs, code,
		   read_linear(env, fd, (sregs.cs.l ? 0 : sregs.cs.base) + regs.rip, code,
			       sizeof(code)));
	fclose(f);
	fputs(text, stderr);
	free(text);
}

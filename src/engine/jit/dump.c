// SPDX-License-Identifier: MIT
/*
 * Dumps of translations: for each block what it was made from, what the passes found out, and the
 * code.
 *
 * A block is one write(2), so that those of several vCPUs don't mix.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/jit/dump.h"

static struct {
	bool on;
	int fd;
	u8 passes; /* BIT(UM_DUMP_...) */
	u64 first, last;
} dump;

int um_dump_open(const struct um_jit_options *o)
{
	if (!o->dump[0])
		return 0;
	if (!strcmp(o->dump, "-")) {
		dump.fd = STDERR_FILENO;
	} else {
		dump.fd = open(o->dump, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
		if (dump.fd < 0) {
			int err = -errno;

			um_log("%s: %s", o->dump, strerror(-err));
			return err;
		}
	}
	dump.passes = o->dump_passes;
	dump.first = o->dump_first;
	dump.last = o->dump_last;
	dump.on = true;
	return 0;
}

/* ---- words ---- */

static void print_regs(FILE *f, const char *what, u16 regs)
{
	static const char *const names[UM_NR_GPRS] = { "ax",  "cx",  "dx",  "bx", "sp",	 "bp",
						       "si",  "di",  "r8",  "r9", "r10", "r11",
						       "r12", "r13", "r14", "r15" };

	if (!regs)
		return;
	fprintf(f, " %s", what);
	for (unsigned n = 0; n < UM_NR_GPRS; n++) {
		if (regs & BIT(n))
			fprintf(f, " %s", names[n]);
	}
	fprintf(f, ";");
}

static void print_flags(FILE *f, const char *what, u64 flags)
{
	static const struct {
		u64 flag;
		const char *name;
	} names[] = { { RFLAGS_CF, "cf" }, { RFLAGS_PF, "pf" }, { RFLAGS_AF, "af" },
		      { RFLAGS_ZF, "zf" }, { RFLAGS_SF, "sf" }, { RFLAGS_OF, "of" } };

	if (!(flags & RFLAGS_STATUS))
		return;
	fprintf(f, " %s", what);
	for (unsigned n = 0; n < ARRAY_SIZE(names); n++) {
		if (flags & names[n].flag)
			fprintf(f, " %s", names[n].name);
	}
	fprintf(f, ";");
}

static const char *how_name(enum um_how how)
{
	static const char *const names[UM_HOW_MAX] = {
#define X(name, text) [UM_HOW_##name] = text,
		UM_HOWS(X)
#undef X
	};

	return names[how];
}

/* ---- passes ---- */

static u64 rip_of(const struct um_trans *t, unsigned k)
{
	return t->x->cpu.rip + t->b->insn[k].off - t->b->insn[0].off;
}

static void print_insn(FILE *f, const struct um_trans *t, unsigned k)
{
	const struct um_insn *i = &t->b->insn[k];
	u64 rip = rip_of(t, k);
	char text[128];

	um_disassemble((enum um_mode)i->mode, um_bytes_of(t, i), i->len, rip, text, sizeof(text));
	fprintf(f, "  %llx  %s", (unsigned long long)rip, text);
}

static void print_facts(FILE *f, const struct um_trans *t, unsigned k)
{
	const struct um_facts *a = &t->facts[k];

	fprintf(f, "    %s:", how_name(t->how[k]));
	print_regs(f, "reads", a->reads);
	print_regs(f, "writes", a->writes);
	print_regs(f, "address", a->address);
	print_flags(f, "reads", a->flags_read);
	print_flags(f, a->flags_maybe ? "may write" : "writes", a->flags_written);
	if (a->mem_size)
		fprintf(f, " memory %u%s%s;", a->mem_size, a->mem_read ? " read" : "",
			a->mem_write ? " written" : "");
	if (a->vec)
		fprintf(f, " vector class %u;", a->vec);
	if (a->may_fault)
		fprintf(f, " may fault;");
	fprintf(f, "\n");
}

/* One instruction of @len bytes at most, in the executable mapping; its length. */
static u32 print_host(FILE *f, const u8 *rx, u32 len)
{
	char text[128];

	len = um_disassemble(UM_MODE_64, um_arena_rw_of(rx), len, (u64)rx, text, sizeof(text));
	fprintf(f, "      %llx  %s\n", (unsigned long long)rx, text);
	return len;
}

static void print_hot(FILE *f, const struct um_jit_block *jb, u32 from, u32 to)
{
	while (from < to)
		from += print_host(f, jb->code + from, to - from);
}

static void print_labels(FILE *f, const struct um_trans *t, const struct um_jit_block *jb, u32 off)
{
	for (unsigned k = 0; k < jb->ninsns; k++) {
		if (jb->map[k].slow == off)
			fprintf(f, "   %llx by the interpreter:\n",
				(unsigned long long)rip_of(t, k));
	}
	for (unsigned n = 0; n < jb->nlinks; n++) {
		if (um_has_stub(&jb->link[n]) && jb->link[n].stub == off)
			fprintf(f, "   to offset %x, not linked yet:\n", jb->link[n].off);
	}
}

static void print_cold(FILE *f, const struct um_trans *t, const struct um_jit_block *jb)
{
	fprintf(f, "  cold\n");
	for (u32 off = 0; off < jb->cold_len;) {
		print_labels(f, t, jb, off);
		off += print_host(f, jb->cold + off, jb->cold_len - off);
	}
}

static void print_block(FILE *f, const struct um_trans *t, const struct um_jit_block *jb)
{
	bool host = jb && (dump.passes & BIT(UM_DUMP_host));

	fprintf(f, "block %llx, %s-bit, cpl %u, key %x: %u instructions, %u bytes; ",
		(unsigned long long)t->x->cpu.rip, t->m64 ? "64" : "32", t->x->cpu.cpl, t->key,
		t->b->ninsns, t->b->len);
	if (jb)
		fprintf(f, "%u + %u bytes at %llx\n", jb->code_len, jb->cold_len,
			(unsigned long long)jb->code);
	else
		fprintf(f, "not translated\n");
	if (host && jb->map[0].start) {
		fprintf(f, "  entry\n");
		print_hot(f, jb, 0, jb->map[0].start);
	}
	for (unsigned k = 0; k < t->b->ninsns; k++) {
		if (dump.passes & ~BIT(UM_DUMP_liveness)) {
			print_insn(f, t, k);
			fprintf(f, "\n");
		}
		if (jb && (dump.passes & BIT(UM_DUMP_liveness))) {
			fprintf(f, "    live:");
			print_flags(f, "flags", t->live[k]);
			fprintf(f, "\n");
		}
		if (dump.passes & BIT(UM_DUMP_facts))
			print_facts(f, t, k);
		if (host)
			print_hot(f, jb, jb->map[k].start, jb->map[k + 1].start);
	}
	if (host) {
		fprintf(f, "  behind\n");
		print_hot(f, jb, jb->map[jb->ninsns].start, jb->code_len);
		print_cold(f, t, jb);
	}
	fprintf(f, "\n");
}

void um_dump_block(const struct um_trans *t, const struct um_jit_block *jb)
{
	char *text = NULL, *p;
	size_t size, left;
	FILE *f;

	if (likely(!dump.on) || t->x->cpu.rip > dump.last ||
	    t->x->cpu.rip + t->b->len - 1 < dump.first)
		return;
	f = open_memstream(&text, &size);
	if (!f)
		return;
	print_block(f, t, jb);
	if (fclose(f)) {
		free(text);
		return;
	}
	for (p = text, left = size; left;) {
		ssize_t n = write(dump.fd, p, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		p += n;
		left -= (size_t)n;
	}
	free(text);
}

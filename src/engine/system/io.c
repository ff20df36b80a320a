// SPDX-License-Identifier: MIT
/*
 * Port I/O (SDM vol. 1 ch. 18, vol. 2: IN, OUT, INS, OUTS).
 *
 * An instruction runs twice.  First it makes all checks, for INS those of its destination too, puts
 * the request into x->pio and exits; when the vCPU layer has answered (UM_PIO_DONE), it runs again
 * and completes.  An answer that isn't for the instruction at hand (the VMM moved RIP meanwhile) is
 * dropped.
 *
 * REP INS and REP OUTS go in batches: as many elements as lie in the page, in the segment and in
 * x->pio.  After each batch that isn't the last, rip still is the instruction's: interrupts can
 * come in, as between iterations.
 */
#include "engine/system/system.h"

/* CPL > IOPL, or virtual-8086 mode: the bits of all bytes in the TSS's map must be clear. */
static bool bitmap_allows(struct um_exec *x, u16 port, unsigned size)
{
	const struct um_cpu *c = &x->cpu;
	u16 base, bits;

	if (!(c->tr.type & 8) || c->tr.limit < 0x67)
		return um_sys_gp0(x);
	if (!um_sys_table_read(x, c->tr.base + 0x66, &base, 2, 0))
		return false;
	/* Two bytes are always read, so the map ends with a byte of ones. */
	if (base + port / 8u + 1 > c->tr.limit)
		return um_sys_gp0(x);
	if (!um_sys_table_read(x, c->tr.base + base + port / 8u, &bits, 2, 0))
		return false;
	if (bits >> (port & 7) & ((1u << size) - 1))
		return um_sys_gp0(x);
	return true;
}

bool um_sys_io_allowed(struct um_exec *x, u16 port, unsigned size)
{
	const struct um_cpu *c = &x->cpu;

	if (likely(!(c->cr0 & CR0_PE) || (!(c->rflags & RFLAGS_VM) && c->cpl <= um_sys_iopl(c))))
		return true;
	return bitmap_allows(x, port, size);
}

/* ---- breakpoints on ports: DR7.RW = 2 with CR4.DE (SDM vol. 3 17.2.4) ---- */

static u64 breakpoint_dr7(const struct um_exec *x)
{
	u64 dr7 = x->use_guest_dr ? x->guest_dr7 : x->cpu.dr7;

	return x->cpu.cr4 & CR4_DE ? dr7 : 0;
}

static bool have_io_breakpoint(const struct um_exec *x)
{
	u64 dr7 = breakpoint_dr7(x);

	for (unsigned n = 0; (dr7 & 0xff) && n < 4; n++)
		if (DR7_ENABLED(dr7, n) && DR7_RW(dr7, n) == 2)
			return true;
	return false;
}

/* The access is done: a trap follows if a breakpoint is on one of its ports. */
static void note_io_breakpoints(struct um_exec *x, u16 port, unsigned size)
{
	static const u8 sizes[4] = { 1, 2, 8, 4 };
	const u64 *dr = x->use_guest_dr ? x->guest_dr : x->cpu.dr;
	u64 dr7 = breakpoint_dr7(x);

	for (unsigned n = 0; (dr7 & 0xff) && n < 4; n++) {
		unsigned len = sizes[DR7_LEN(dr7, n)];
		u64 at = dr[n] & ~(u64)(len - 1);

		if (DR7_ENABLED(dr7, n) && DR7_RW(dr7, n) == 2 && at < (u64)port + size &&
		    port < at + len) {
			x->db_hits |= DR6_B(n);
			x->special |= UM_SPECIAL_DBHIT;
		}
	}
}

/* ---- the request and its answer ---- */

/* Is the answer to exactly this access there?  Any other is dropped. */
static bool answered(struct um_exec *x, u16 port, unsigned size, bool write, bool string)
{
	struct um_pio *p = &x->pio;

	if (p->state == UM_PIO_DONE && p->port == port && p->size == size && p->write == write &&
	    p->string == string && p->count)
		return true;
	p->state = UM_PIO_IDLE;
	return false;
}

static const struct um_insn *request(struct um_exec *x, const struct um_insn *i, u16 port,
				     unsigned size, bool write, bool string, unsigned count)
{
	struct um_pio *p = &x->pio;

	p->state = UM_PIO_PENDING;
	p->port = port;
	p->size = size;
	p->write = write;
	p->string = string;
	p->count = count;
	return um_sys_exit(x, i, UM_EXIT_PIO);
}

static void finish(struct um_exec *x)
{
	x->pio.state = UM_PIO_IDLE;
	note_io_breakpoints(x, x->pio.port, x->pio.size);
}

/* ---- IN and OUT ---- */

/* The operand that names the port: an immediate or DX. */
static u16 port_of(const struct um_exec *x, const struct um_insn *i, unsigned n)
{
	return i->kind[n] == UM_OPD_IMM ? (u8)i->imm : (u16)x->cpu.gpr[UM_RDX];
}

const struct um_insn *um_sysop_in(struct um_exec *x, const struct um_insn *i)
{
	u64 *rax = &x->cpu.gpr[UM_RAX];
	u16 port = port_of(x, i, 1);
	unsigned size = i->osz > 4 ? 4 : i->osz;
	u64 v = 0;

	if (!answered(x, port, size, false, false)) {
		if (!um_sys_io_allowed(x, port, size))
			return um_stop(x, i);
		return request(x, i, port, size, false, false, 1);
	}
	__builtin_memcpy(&v, x->pio.data, size);
	*rax = size == 4 ? v : (*rax & ~(size == 2 ? 0xffffull : 0xffull)) | v;
	finish(x);
	return um_end(x, i);
}

const struct um_insn *um_sysop_out(struct um_exec *x, const struct um_insn *i)
{
	u16 port = port_of(x, i, 0);
	unsigned size = i->osz > 4 ? 4 : i->osz;

	if (!answered(x, port, size, true, false)) {
		if (!um_sys_io_allowed(x, port, size))
			return um_stop(x, i);
		__builtin_memcpy(x->pio.data, &x->cpu.gpr[UM_RAX], size);
		return request(x, i, port, size, true, false, 1);
	}
	finish(x);
	return um_end(x, i);
}

/* ---- INS and OUTS ---- */

static unsigned string_size(const struct um_insn *i)
{
	switch (i->op) {
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_OUTSB:
		return 1;
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_OUTSW:
		return 2;
	default:
		return 4;
	}
}

/* Add @delta to an index or count register at the address size: 32 bits zero-extend. */
static void advance(struct um_exec *x, unsigned reg, s64 delta, unsigned asz)
{
	um_sys_put_gpr(x, reg, x->cpu.gpr[reg] + (u64)delta, asz);
}

static u64 count_left(const struct um_exec *x, const struct um_insn *i)
{
	if (!(i->flags & (UM_INSN_REP | UM_INSN_REPNE)))
		return 1;
	return um_trunc(x->cpu.gpr[UM_RCX], i->asz);
}

/*
 * How many elements the next batch takes, at offset @off of @seg: 1 if in doubt.  Sets the linear
 * address of the first, for which all checks have been made.
 */
static bool batch(struct um_exec *x, const struct um_insn *i, enum um_seg seg, u64 off,
		  unsigned size, enum um_access acc, gva_t *gva, unsigned *n)
{
	u64 left = count_left(x, i), max = UM_PIO_MAX / size, room, span = um_trunc(~0ull, i->asz);
	bool tracked;
	void *p;

	*n = 1;
	if (!um_linear(x, seg, off, size, acc, gva) || !um_check_align(x, *gva, size))
		return false;
	if (left == 1 || (x->cpu.rflags & RFLAGS_DF) || (x->special & UM_SPECIAL_STEP) ||
	    have_io_breakpoint(x))
		return true;
	room = (UM_PAGE_SIZE - (*gva & ~UM_PAGE_MASK)) / size;
	max = um_min(max, um_min(left, room));
	/* The offset must not wrap, and all must lie in the segment. */
	if (max <= 1 || max * size - 1 > span - off ||
	    !(x->seg_flat[seg] & (1u << acc) ||
	      um_segment_holds(&x->cpu.seg[seg], off, max * size)))
		return true;
	/* Devices get one element at a time. */
	if (!um_lin_map(x, *gva, size, acc, &p, &tracked))
		return false;
	if (p)
		*n = max;
	return true;
}

/* @n elements are done: registers, and whether the instruction is. */
static const struct um_insn *string_done(struct um_exec *x, const struct um_insn *i, unsigned reg,
					 unsigned size, unsigned n)
{
	s64 bytes = (s64)size * n;

	advance(x, reg, x->cpu.rflags & RFLAGS_DF ? -bytes : bytes, i->asz);
	if (i->flags & (UM_INSN_REP | UM_INSN_REPNE)) {
		advance(x, UM_RCX, -(s64)n, i->asz);
		if (count_left(x, i)) {
			x->cpu.rip = um_rip(x, i);
			return NULL;
		}
	}
	return um_end(x, i);
}

const struct um_insn *um_sysop_ins(struct um_exec *x, const struct um_insn *i)
{
	struct um_pio *p = &x->pio;
	u64 off = um_trunc(x->cpu.gpr[UM_RDI], i->asz);
	u16 port = x->cpu.gpr[UM_RDX];
	unsigned size = string_size(i), n;
	gva_t gva;

	if (!count_left(x, i))
		return um_end(x, i);
	if (!answered(x, port, size, false, true)) {
		if (!um_sys_io_allowed(x, port, size) ||
		    !batch(x, i, UM_ES, off, size, UM_WRITE, &gva, &n) ||
		    !um_lin_probe(x, gva, n * size, UM_WRITE))
			return um_stop(x, i);
		return request(x, i, port, size, false, true, n);
	}
	n = um_min(p->count, count_left(x, i));
	if (!um_linear(x, UM_ES, off, size, UM_WRITE, &gva) ||
	    !um_lin_write(x, gva, p->data, n * size)) {
		/* To MMIO the data goes on when that exit is answered; a fault forgets it. */
		if (x->exit.kind != UM_EXIT_MMIO)
			p->state = UM_PIO_IDLE;
		return um_stop(x, i);
	}
	finish(x);
	return string_done(x, i, UM_RDI, size, n);
}

const struct um_insn *um_sysop_outs(struct um_exec *x, const struct um_insn *i)
{
	struct um_pio *p = &x->pio;
	u64 off = um_trunc(x->cpu.gpr[UM_RSI], i->asz);
	u16 port = x->cpu.gpr[UM_RDX];
	unsigned size = string_size(i), n;
	gva_t gva;

	if (!count_left(x, i))
		return um_end(x, i);
	if (!answered(x, port, size, true, true)) {
		if (!um_sys_io_allowed(x, port, size) ||
		    !batch(x, i, i->seg, off, size, UM_READ, &gva, &n) ||
		    !um_lin_read(x, gva, p->data, n * size))
			return um_stop(x, i);
		return request(x, i, port, size, true, true, n);
	}
	n = um_min(p->count, count_left(x, i));
	finish(x);
	return string_done(x, i, UM_RSI, size, n);
}

// SPDX-License-Identifier: MIT
/*
 * The instructions of random programs.
 *
 * An instruction is drawn as bytes of some opcode map and decoded; what is not unprivileged
 * computing is thrown away.  Its memory operand is then encoded anew: an addressing form is drawn,
 * and registers are loaded such that it hits the page that was drawn.  Where a register's value is
 * known from before, it is used again.
 */
#include "gen.h"

#include "../fuzz/edges.h"

u64 gen_edge(struct rng *r)
{
	switch (rng_below(r, 8)) {
	case 0:
	case 1:
		return rng_pick(r, edge_values);
	case 2:
	case 3:
		return rng64(r) >> rng_below(r, 64);
	case 4:
		return PAGE(PG_DATA) + rng_below(r, 3 * UM_PAGE_SIZE);
	default:
		return rng64(r);
	}
}

/* ---- decoding, accounting ---- */

bool gen_decode(struct gen *g, const u8 *b, struct decoded *d)
{
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->d, b, 15, &d->z, d->ops));
}

/* Number of the general register that @r is a part of; -1: it is another. */
static int gpr_of(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return ZydisRegisterGetId(
			ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
	default:
		return -1;
	}
}

static bool is_shift(u16 op)
{
	switch (op) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
		return true;
	}
	return false;
}

static void account_flags(struct gen *g, const ZydisDecodedInstruction *z)
{
	const ZydisAccessedFlags *f = z->cpu_flags;
	u16 undefined, written;

	if (!f)
		return;
	undefined = f->undefined & RFLAGS_STATUS;
	written = (f->modified | f->set_0 | f->set_1) & RFLAGS_STATUS;
	/* What they do with a count of 0: nothing. */
	if (is_shift(z->mnemonic)) {
		undefined |= RFLAGS_OF | RFLAGS_AF | RFLAGS_CF;
		written = 0;
	} else if (z->attributes &
		   (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_REPE)) {
		written = 0;
	}
	g->undefined = (g->undefined & (u16)~written) | undefined;
}

/* May a fault of it leave something behind, or be one of several? */
static bool is_soft(const struct decoded *d)
{
	bool vector = false, x87 = false;

	for (unsigned n = 0; n < d->z.operand_count; n++) {
		const ZydisDecodedOperand *o = &d->ops[n];

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			vector |= o->mem.type == ZYDIS_MEMOP_TYPE_VSIB;
			continue;
		}
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(o->reg.value)) {
		case ZYDIS_REGCLASS_X87:
		case ZYDIS_REGCLASS_MMX:
			x87 = true;
			break;
		case ZYDIS_REGCLASS_XMM:
		case ZYDIS_REGCLASS_YMM:
		case ZYDIS_REGCLASS_ZMM:
			vector = true;
			break;
		default:
			break;
		}
	}
	/* Its registers are written one by one. */
	if (d->z.mnemonic == ZYDIS_MNEMONIC_POPA || d->z.mnemonic == ZYDIS_MNEMONIC_POPAD)
		return true;
	return x87 || d->z.meta.isa_set == ZYDIS_ISA_SET_X87 || vector ||
	       d->z.meta.isa_ext == ZYDIS_ISA_EXT_X87 ||
	       d->z.meta.isa_set == ZYDIS_ISA_SET_FXSAVE ||
	       d->z.meta.isa_set == ZYDIS_ISA_SET_FXSAVE64;
}

/* Append the instruction at @b, whose decoded form is @d. */
static void append(struct gen *g, const u8 *b, const struct decoded *d)
{
	struct program *p = g->p;
	struct program_insn *i = &p->insn[p->ninsns++];

	*i = (struct program_insn){
		.off = (u16)g->at, .len = d->z.length, .op = (u16)d->z.mnemonic, .soft = is_soft(d)
	};
	memcpy(p->code + g->at, b, i->len);
	p->undefined[g->at] = PROGRAM_KNOWN | g->undefined;
	g->at += i->len;
	account_flags(g, &d->z);
	for (unsigned n = 0; n < d->z.operand_count; n++) {
		const ZydisDecodedOperand *o = &d->ops[n];
		int r;

		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		r = gpr_of(o->reg.value);
		if (r >= 0)
			g->known &= (u16) ~(1u << r);
	}
}

bool gen_room(const struct gen *g)
{
	return g->at < g->limit && g->p->ninsns < PROGRAM_INSNS - 24;
}

/* An instruction of which the generator is sure. */
void gen_put(struct gen *g, const u8 *b, unsigned len)
{
	u8 bytes[16] = { 0 };
	struct decoded d;

	memcpy(bytes, b, len);
	if (gen_decode(g, bytes, &d) && d.z.length == len)
		append(g, bytes, &d);
}
/* Define the flags, if they aren't: CMP of two registers. */
void gen_settle(struct gen *g)
{
	u8 regs = (u8)below(g, 64);

	if (!g->undefined)
		return;
	if (is64(g) && one_in(g, 2))
		PUT(g, 0x48, 0x39, 0xc0 | regs);
	else
		PUT(g, 0x39, 0xc0 | regs);
	g->p->insn[g->p->ninsns - 1].keep = true;
}

/* MOV @r, @v: some encoding that leaves the flags alone. */
void gen_load(struct gen *g, unsigned r, u64 v)
{
	u8 b = r >> 3 & 1;

	if (!is64(g)) {
		PUT(g, 0xb8 | r, LE32(v));
		v &= 0xffffffff;
	} else if (v >> 32 && v >> 31 != 0x1ffffffff) {
		PUT(g, 0x48 | b, 0xb8 | (r & 7), LE32(v), LE32(v >> 32));
	} else if (v >> 32 || (v < 0x80000000 && one_in(g, 4))) {
		PUT(g, 0x48 | b, 0xc7, 0xc0 | (r & 7), LE32(v));
	} else if (b) {
		PUT(g, 0x41, 0xb8 | (r & 7), LE32(v));
	} else {
		PUT(g, 0xb8 | r, LE32(v));
	}
	g->known |= (u16)(1u << r);
	g->value[r] = v;
}

/* ---- memory operands ---- */

static u64 data_page(struct gen *g)
{
	static const u8 pages[] = { PG_DATA,  PG_DATA + 1, PG_DATA + 2, PG_DATA2,
				    PG_DATA3, PG_DATA4,	   PG_DATA5 };

	return PAGE(rng_pick(&g->r, pages));
}

/* Where a memory operand is to be. */
static u64 target(struct gen *g)
{
	unsigned k = below(g, 100);

	if (k < 60)
		return data_page(g) + below(g, UM_PAGE_SIZE / 64) * 64;
	if (k < 76)
		return data_page(g) + below(g, UM_PAGE_SIZE);
	if (k < 86)
		return data_page(g) + UM_PAGE_SIZE - 1 - below(g, 16);
	if (k < 89)
		return PAGE(PG_READONLY) + below(g, UM_PAGE_SIZE);
	if (k < 91)
		return PAGE(PG_NONE) + below(g, UM_PAGE_SIZE);
	if (k < 94)
		return PAGE(PG_DEVICE) + below(g, UM_PAGE_SIZE / 8) * 8;
	if (k < 96)
		return PAGE(PG_TRACKED) + below(g, UM_PAGE_SIZE);
	if (k < 98) /* in the pages of the code, but not code */
		return one_in(g, 2) ? PROGRAM_CODE + below(g, 56)
				    : PROGRAM_CODE + PROGRAM_CODE_SIZE - 64 - below(g, 400);
	return PAGE(PG_STACK) + below(g, 2 * UM_PAGE_SIZE);
}

struct operand {
	u8 mod, rm, sib;
	bool has_sib, x, b;
	u8 dsize;
	u64 disp; /* rip: the address itself */
	bool rip;
};

/* A register with a known address, or any. */
static unsigned base_register(struct gen *g, bool high)
{
	unsigned n = high ? 16 : 8, r = below(g, n);

	if (below(g, 4)) {
		for (unsigned k = 0; k < n; k++, r = (r + 1) % n) {
			if ((g->known >> r & 1) && r != UM_RSP && g->value[r] - MEM_BASE < MEM_SIZE)
				return r;
		}
	}
	return r == UM_RSP ? (unsigned)UM_RBX : r;
}

/* What the next few operands are fields of: a register points there, often to the end of a page. */
static void begin_fields(struct gen *g)
{
	unsigned r = below(g, is64(g) ? 16 : 8);
	u64 t = target(g);

	if ((r & 7) == UM_RSP)
		r = UM_RBX;
	if (t - PROGRAM_CODE < PROGRAM_CODE_SIZE) /* too near to the code */
		t = data_page(g);
	if (one_in(g, 2))
		t = (t & UM_PAGE_MASK) + UM_PAGE_SIZE - below(g, 160);
	gen_load(g, r, t);
	g->field = r;
	g->nfields = 3 + below(g, 10);
}

/* One of these.  False: not this time. */
static bool draw_field(struct gen *g, bool high, bool disp8, struct operand *o)
{
	unsigned r = g->field;
	s64 disp = one_in(g, 16) ? (s64)below(g, 600) - 300 : (s64)below(g, 20) * 8 - 32;

	if (!g->nfields || (r > 7 && !high) || one_in(g, 8))
		return false;
	g->nfields--;
	if (r == UM_RSP) {
		o->has_sib = true;
		o->sib = 4 << 3 | 4;
	} else if (!(g->known >> r & 1)) {
		if (one_in(g, 4))
			return false;
		begin_fields(g);
		r = g->field;
		if (r > 7 && !high)
			return false;
	} else if (one_in(g, 10)) { /* LEA: it moves on */
		u64 to = g->value[r] + 24;

		if (r > 7)
			PUT(g, 0x4d, 0x8d, 0x40 | (r & 7) << 3 | (r & 7), 24);
		else if (is64(g))
			PUT(g, 0x48, 0x8d, 0x40 | r << 3 | r, 24);
		else
			PUT(g, 0x8d, 0x40 | r << 3 | r, 24);
		g->known |= (u16)(1u << r);
		g->value[r] = to;
	}
	o->rm = r & 7;
	o->b = r >> 3;
	o->disp = (u64)disp & (is64(g) ? ~0ull : 0xffffffff);
	o->mod = disp8 && disp == (s8)disp ? 1 : 2;
	o->dsize = o->mod == 1 ? 1 : 4;
	return true;
}

/* Draw an addressing form for @t, loading registers. */
static struct operand draw_operand(struct gen *g, u64 t, bool high, bool disp8)
{
	struct operand o = { 0 };
	unsigned form = below(g, 10), base, index = UM_RSP, scale = below(g, 4);
	u64 part = 0;

	if (draw_field(g, high, disp8, &o))
		return o;
	if (form < 3) {
		o.dsize = 4;
		o.disp = t;
		o.rm = 5;
		o.rip = is64(g) && form;
		if (is64(g) && !form) { /* absolute */
			o.rm = 4;
			o.has_sib = true;
			o.sib = (u8)(scale << 6 | 4 << 3 | 5);
		}
		return o;
	}
	if (form == 3) { /* on the stack */
		o.mod = disp8 ? 1 : 2;
		o.dsize = disp8 ? 1 : 4;
		o.rm = 4;
		o.has_sib = true;
		o.sib = 4 << 3 | 4;
		o.disp = below(g, 128);
		return o;
	}
	base = base_register(g, high);
	if (form >= 7) {
		index = below(g, high ? 16 : 8);
		if (index == base && one_in(g, 2))
			index = UM_RSI;
		if (index == UM_RSP)
			index = UM_RDI;
		if (index != base && !(g->known >> index & 1))
			gen_load(g, index,
				 one_in(g, 8) && is64(g) ? (u64) - (s64)below(g, 64)
							 : below(g, 64));
		if (index != base)
			part = g->value[index] << scale;
	}
	if (index == base) { /* base << scale + base: no aim at all */
		o.disp = t;
	} else {
		if (!(g->known >> base & 1) || one_in(g, 4))
			gen_load(g, base,
				 t - part -
					 (one_in(g, 3)
						  ? 0
						  : (s64)below(g, disp8 ? 256 : 0x8000) - 128));
		o.disp = t - part - g->value[base];
	}
	if (!is64(g))
		o.disp &= 0xffffffff;
	o.rm = base & 7;
	o.b = base >> 3;
	if (index != UM_RSP || o.rm == 4) {
		o.has_sib = true;
		o.sib = (u8)(scale << 6 | (index & 7) << 3 | (base & 7));
		o.x = index >> 3;
		o.rm = 4;
	}
	if (!o.disp && (base & 7) != 5) {
		o.mod = 0;
	} else if (disp8 && (s64)(s8)o.disp == (is64(g) ? (s64)o.disp : (s64)(s32)o.disp)) {
		o.mod = 1;
		o.dsize = 1;
	} else {
		o.mod = 2;
		o.dsize = 4;
	}
	return o;
}

/*
 * Put B and X of the operand into the prefix of instruction @b, @len bytes.  Returns its length
 * now.
 */
static unsigned put_prefix(u8 *b, unsigned len, const ZydisDecodedInstruction *z,
			   const struct operand *o)
{
	u8 inverted = (o->x ? 0 : 0x40) | (o->b ? 0 : 0x20);
	unsigned at;

	switch (z->encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		if (z->raw.vex.size == 3)
			b[z->raw.vex.offset + 1] = (b[z->raw.vex.offset + 1] & 0x9f) | inverted;
		return len;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX:
		b[z->raw.evex.offset + 1] = (b[z->raw.evex.offset + 1] & 0x9f) | inverted;
		return len;
	default:
		break;
	}
	if (z->attributes & ZYDIS_ATTRIB_HAS_REX) {
		b[z->raw.rex.offset] = (b[z->raw.rex.offset] & 0xfc) | (u8)(o->x << 1) | o->b;
		return len;
	}
	if (!o->x && !o->b)
		return len;
	for (at = 0; at < z->raw.prefix_count; at++)
		;
	memmove(b + at + 1, b + at, len - at);
	b[at] = 0x40 | (u8)(o->x << 1) | o->b;
	return len + 1;
}

/* Encode the memory operand of @b anew, aimed at something.  False: leave it. */
static bool aim(struct gen *g, u8 *b, struct decoded *d)
{
	const ZydisDecodedInstruction *z = &d->z;
	bool evex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
	bool high = is64(g) &&
		    (z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || evex ||
		     (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && z->raw.vex.size == 3));
	unsigned m = z->raw.modrm.offset, tail, ntail, len;
	struct operand o;
	u8 rest[16], n[24];

	if (!(z->attributes & ZYDIS_ATTRIB_HAS_MODRM)) {
		u64 t = target(g);

		if (z->raw.disp.size)
			memcpy(b + z->raw.disp.offset, &t, z->raw.disp.size / 8);
		return true;
	}
	if (z->raw.modrm.mod == 3)
		return true;
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
	    z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW ||
	    (z->attributes & ZYDIS_ATTRIB_HAS_ADDRESSSIZE))
		return false;
	for (unsigned k = 0; k < z->operand_count_visible; k++) {
		if (d->ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    d->ops[k].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			return true;
	}
	tail = m + 1 + (z->attributes & ZYDIS_ATTRIB_HAS_SIB ? 1 : 0) + z->raw.disp.size / 8;
	ntail = z->length - tail;
	memcpy(rest, b + tail, ntail);
	switch (z->mnemonic) { /* the register addresses memory, too */
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		if (gpr_of(d->ops[1].reg.value) > 0 && gpr_of(d->ops[1].reg.value) != UM_RSP)
			gen_load(g, (unsigned)gpr_of(d->ops[1].reg.value),
				 (u64)(s64)((int)below(g, 1024) - 512));
		break;
	default:
		break;
	}
	o = draw_operand(g, target(g), high, !evex);
	memcpy(n, b, m);
	n[m] = (u8)(o.mod << 6 | z->raw.modrm.reg << 3 | o.rm);
	len = m + 1;
	if (o.has_sib)
		n[len++] = o.sib;
	len += o.dsize;
	memcpy(n + len, rest, ntail);
	memcpy(n + len - o.dsize, &o.disp, o.dsize);
	{
		unsigned before = len + ntail, after = put_prefix(n, before, z, &o);

		len += after - before;
		if (o.rip) {
			u32 rel = (u32)(o.disp - (PROGRAM_CODE + g->at + after));

			memcpy(n + len - 4, &rel, 4);
		}
		if (after > 15)
			return false;
		memset(b, 0, 16);
		memcpy(b, n, after);
	}
	return gen_decode(g, b, d);
}

/* ---- random instructions ---- */

static bool class_allowed(const struct gen *g, const struct decoded *d)
{
	switch (d->z.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SEGOP:
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_RDRAND:
	case ZYDIS_CATEGORY_RDSEED:
	case ZYDIS_CATEGORY_RDWRFSGS:
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT:
	case ZYDIS_CATEGORY_WAITPKG:
	case ZYDIS_CATEGORY_UINTR:
	case ZYDIS_CATEGORY_KEYLOCKER:
	case ZYDIS_CATEGORY_KEYLOCKER_WIDE:
	case ZYDIS_CATEGORY_AMX_TILE:
	case ZYDIS_CATEGORY_SGX:
	case ZYDIS_CATEGORY_SMAP:
	case ZYDIS_CATEGORY_PKU:
	case ZYDIS_CATEGORY_CET:
	case ZYDIS_CATEGORY_ENQCMD:
	case ZYDIS_CATEGORY_MOVDIR:
	case ZYDIS_CATEGORY_PADLOCK:
	case ZYDIS_CATEGORY_CLZERO:
		return false;
	default:
		break;
	}
	if ((d->z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) ||
	    d->z.meta.isa_ext == ZYDIS_ISA_EXT_RTM)
		return false;
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_MONITOR:
	case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_MONITORX:
	case ZYDIS_MNEMONIC_MWAITX:
	case ZYDIS_MNEMONIC_PAUSE:
	case ZYDIS_MNEMONIC_PUSHF: /* drawn apart */
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_MASKMOVQ: /* may fault for bytes that they don't store */
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_FXRSTOR: /* cuts pointers to the processor's address width */
	case ZYDIS_MNEMONIC_FXRSTOR64:
		if (g->p->native)
			return false;
		break;
	case ZYDIS_MNEMONIC_UD0: /* how long they are, and whether they read memory, differs */
	case ZYDIS_MNEMONIC_UD1:
		return false;
	default:
		break;
	}
	/* Those that fault at once may have cut their registers to 32 bits already. */
	if (g->p->native && d->z.meta.category == ZYDIS_CATEGORY_STRINGOP &&
	    (d->z.attributes & ZYDIS_ATTRIB_HAS_ADDRESSSIZE))
		return false;
	for (unsigned n = 0; n < d->z.operand_count; n++) {
		const ZydisDecodedOperand *o = &d->ops[n];

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (o->mem.segment == ZYDIS_REGISTER_FS ||
		     (g->p->code32 && o->mem.segment == ZYDIS_REGISTER_GS)))
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return false;
	}
	return true;
}

/* Fifteen bytes that start with an instruction, perhaps. */
static void draw_bytes(struct gen *g, u8 *b)
{
	static const u8 mandatory[] = { 0x66, 0xf2, 0xf3 };
	static const u8 integer_0f[] = {
		0x40, 0x48, 0x90, 0x98, 0xa0, 0xa8, 0xb0, 0xb8, 0xc0, 0xc8
	};
	static const u8 evex_maps[] = { 1, 1, 2, 2, 2, 3, 5, 6 };
	unsigned kind = below(g, g->plain ? 66 : 100), n = 0;

	memset(b, 0, 32);
	if (kind < 85) {
		if (one_in(g, 64))
			b[n++] = one_in(g, 3) ? 0x67 : 0x65;
		if (one_in(g, kind < 60 ? 12 : 3))
			b[n++] = rng_pick(&g->r, mandatory);
		if (is64(g) && below(g, 3))
			b[n++] = (u8)(one_in(g, 2) ? 0x48 | below(g, 8) : 0x40 | below(g, 16));
	}
	if (kind < 52) {
		b[n++] = (u8)rng64(&g->r);
	} else if (kind < 66) {
		b[n++] = 0x0f;
		b[n++] = rng_pick(&g->r, integer_0f) | (u8)below(g, 8);
	} else if (kind < 73) {
		b[n++] = 0x0f;
		b[n++] = (u8)rng64(&g->r);
	} else if (kind < 77) {
		b[n++] = 0x0f;
		b[n++] = one_in(g, 2) ? 0x38 : 0x3a;
		b[n++] = (u8)rng64(&g->r);
	} else if (kind < 80) {
		b[n++] = 0x0f;
		b[n++] = 0x38;
		b[n++] = 0xf0 | (u8)below(g, 8); /* MOVBE, CRC32, ADX */
	} else if (kind < 85) {
		b[n++] = 0xd8 | (u8)below(g, 8);
	} else if (kind < 93) {
		if (one_in(g, 4)) {
			b[n++] = 0xc5;
			b[n++] = (u8)rng64(&g->r);
		} else {
			b[n++] = 0xc4;
			b[n++] = (u8)((rng64(&g->r) & 0xe0) | (1 + below(g, 3)));
			b[n++] = (u8)rng64(&g->r);
		}
		if (one_in(g, 2))
			b[n - 1] |= 0x78;
		if (!is64(g))
			b[1] |= 0xc0;
		b[n++] = one_in(g, 4) ? 0xf0 | (u8)below(g, 8) : (u8)rng64(&g->r);
	} else {
		b[n++] = 0x62;
		b[n++] = (u8)((rng64(&g->r) & 0xf0) | rng_pick(&g->r, evex_maps));
		b[n++] = (u8)((rng64(&g->r) & 0xfb) | 4);
		if (one_in(g, 2))
			b[n - 1] |= 0x78;
		b[n] = (u8)rng64(&g->r);
		if (one_in(g, 2))
			b[n] &= 0x6f;
		if (one_in(g, 2))
			b[n] |= 8;
		n++;
		if (!is64(g))
			b[1] |= 0xc0;
		b[n++] = (u8)rng64(&g->r);
	}
	/* ModRM, SIB, displacement, immediate. */
	b[n] = (u8)rng64(&g->r) | (one_in(g, 2) ? 0xc0 : 0);
	rng_fill(&g->r, b + n + 1, 10);
	if (one_in(g, 3)) { /* small immediates */
		memset(b + n + 2, 0, 8);
	}
}

/* MOV to RSP, or LEA, ADD, SUB by less than a page: near the boundary of the stack's two pages, sometimes. */
static void move_stack(struct gen *g)
{
	u8 by = (u8)(below(g, 16) * 8);

	if (one_in(g, 8)) {
		gen_load(g, UM_RSP, PAGE(PG_STACK) + UM_PAGE_SIZE - 64 + below(g, 16) * 8);
		return;
	}
	if (is64(g))
		PUT(g, 0x48, 0x83, one_in(g, 2) ? 0xec : 0xc4, by);
	else if (one_in(g, 2))
		PUT(g, 0x83, one_in(g, 2) ? 0xec : 0xc4, by);
	else
		PUT(g, 0x8d, 0x64, 0x24, by);
}

/* A function's beginning, or end. */
static void stack_frame(struct gen *g)
{
	bool begin = one_in(g, 2);

	if (!begin || one_in(g, 3))
		move_stack(g);
	for (unsigned n = below(g, 5); n; n--) {
		u8 r = (u8)below(g, 8);

		if (begin)
			PUT(g, 0x50 | r);
		else if (r != UM_RSP || one_in(g, 8))
			PUT(g, 0x58 | r);
	}
	if (begin)
		move_stack(g);
	g->field = UM_RSP;
	g->nfields = below(g, 6);
}

static void prepare_string(struct gen *g, const ZydisDecodedInstruction *z)
{
	if (below(g, 5))
		gen_load(g, UM_RSI, target(g));
	if (below(g, 5))
		gen_load(g, UM_RDI, target(g));
	if ((z->attributes &
	     (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_REPE)) &&
	    below(g, 8))
		gen_load(g, UM_RCX, one_in(g, 4) ? 0 : below(g, one_in(g, 3) ? 3000 : 40));
}

/* Something that the random bytes seldom come to. */
static bool special(struct gen *g)
{
	static const u8 refused[] = { 0xf4, 0xfa, 0xfb };

	switch (below(g, 40)) {
	case 0: /* POPF: any flags; now and then, single steps */
	case 1: {
		u32 f = (u32)(rng64(&g->r) & (RFLAGS_STATUS | RFLAGS_ID));

		if (one_in(g, 6))
			f |= RFLAGS_DF;
		if (one_in(g, 8))
			f |= RFLAGS_TF;
		PUT(g, 0x68, LE32(f));
		PUT(g, 0x9d);
		g->undefined = 0;
		return true;
	}
	case 2:
		gen_settle(g);
		PUT(g, 0x9c);
		PUT(g, 0x58 | (one_in(g, 2) ? UM_RAX : UM_RDX));
		return true;
	case 3:
		if (!one_in(g, 4))
			return false;
		PUT(g, rng_pick(&g->r, refused)); /* #GP: privileged */
		return true;
	case 4:
		if (!one_in(g, 4))
			return false;
		PUT(g, 0xcc);
		return true;
	case 5: /* a division that works */
		gen_load(g, UM_RDX, one_in(g, 2) ? 0 : gen_edge(&g->r));
		PUT(g, 0xf7, (one_in(g, 2) ? 0xf0 : 0xf8) | (one_in(g, 2) ? UM_RBX : UM_RCX));
		return true;
	case 6: /* a store into the code: where, see patch_stores() */
	case 7:
		if (g->nsmc == ARRAY_SIZE(g->smc))
			return false;
		if (is64(g)) {
			PUT(g, 0xc6, 0x04, 0x25, LE32(0), (u8)rng64(&g->r));
		} else {
			PUT(g, 0xc6, 0x05, LE32(0), (u8)rng64(&g->r));
		}
		g->smc[g->nsmc++] = (u16)(g->at - 5);
		return true;
	case 8:
		gen_settle(g);
		PUT(g, 0x80, 0xf9, 1); /* CMP CL, 1 */
		return true;
	case 9:
	case 10:
		begin_fields(g);
		return true;
	case 11:
		stack_frame(g);
		return true;
	default:
		return false;
	}
}

void gen_random_insn(struct gen *g)
{
	struct decoded d;
	struct um_insn i = { 0 };
	u8 b[32];

	if (special(g))
		return;
	for (unsigned tries = 0; tries < 50; tries++) {
		bool memory = false;

		draw_bytes(g, b);
		if (!gen_decode(g, b, &d) || !class_allowed(g, &d))
			continue;
		for (unsigned n = 0; n < d.z.operand_count_visible; n++)
			memory |= d.ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY;
		um_decode(&i, is64(g) ? UM_MODE_64 : UM_MODE_32, b, 15, 0);
		if (!g->can(g->arg, &i, b))
			continue;
		if (memory && one_in(g, 5) && (d.z.attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK) &&
		    !(d.z.attributes & ZYDIS_ATTRIB_HAS_LOCK)) {
			memmove(b + 1, b, 15);
			b[0] = 0xf0;
			if (!gen_decode(g, b, &d))
				continue;
		}
		if (d.z.cpu_flags && (d.z.cpu_flags->tested & g->undefined))
			gen_settle(g);
		if (d.z.meta.category == ZYDIS_CATEGORY_STRINGOP)
			prepare_string(g, &d.z);
		else if (memory && !aim(g, b, &d))
			continue;
		append(g, b, &d);
		return;
	}
}

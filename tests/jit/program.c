// SPDX-License-Identifier: MIT
/*
 * Random programs (program.h): their blocks, what they start with, and how they go on after a
 * fault.
 */
#include "gen.h"

/* ---- blocks and transfers ---- */

static void fix_rel(struct gen *g, unsigned block)
{
	g->fix[g->nfix++] = (struct fixup){ (u16)(g->at - 4), (u16)g->at, (u8)block };
}

/* MOV of a block's address to @r. */
static void load_block(struct gen *g, unsigned r, unsigned block)
{
	if (r >> 3)
		PUT(g, 0x41, 0xb8 | (r & 7), LE32(0));
	else
		PUT(g, 0xb8 | r, LE32(0));
	g->fix[g->nfix++] = (struct fixup){ (u16)(g->at - 4), 0, (u8)block };
}

/* Back to an earlier block, if the counter allows it. */
static void loop_back(struct gen *g, unsigned block, unsigned to)
{
	int rel;

	if (one_in(g, 2)) {
		/* Flags of before the loop's end are those of the jump. */
		if (is64(g))
			PUT(g, 0x8b, 0x0c, 0x25, LE32(PROGRAM_COUNTER));
		else
			PUT(g, 0x8b, 0x0d, LE32(PROGRAM_COUNTER));
		PUT(g, 0xe3, is64(g) ? 3 + 7 + 6 : 3 + 6 + 6);
		PUT(g, 0x8d, 0x49, 0xff);
		if (is64(g))
			PUT(g, 0x89, 0x0c, 0x25, LE32(PROGRAM_COUNTER));
		else
			PUT(g, 0x89, 0x0d, LE32(PROGRAM_COUNTER));
		PUT(g, 0x0f, 0x80 | below(g, 16), LE32(0));
		fix_rel(g, to);
		return;
	}
	if (is64(g))
		PUT(g, 0x83, 0x2c, 0x25, LE32(PROGRAM_COUNTER), 1);
	else
		PUT(g, 0x83, 0x2d, LE32(PROGRAM_COUNTER), 1);
	PUT(g, 0x0f, 0x8e, LE32(0));
	fix_rel(g, block + 1);
	rel = (int)g->p->block[to] - (int)(g->at + 2);
	if (rel >= -128 && below(g, 3))
		PUT(g,
		    one_in(g, 4)   ? 0xe0 | below(g, 3)
		    : one_in(g, 8) ? 0xeb
				   : 0x70 | below(g, 16),
		    (u8)rel);
	else if (one_in(g, 3)) {
		PUT(g, 0xe9, LE32(0));
		fix_rel(g, to);
	} else {
		PUT(g, 0x0f, 0x80 | below(g, 16), LE32(0));
		fix_rel(g, to);
	}
}

/* The end of block @n of @count. */
static void transfer(struct gen *g, unsigned n, unsigned count)
{
	unsigned forward = n + 1 + below(g, count - n), r = below(g, is64(g) ? 16 : 8);

	gen_settle(g);
	switch (below(g, 12)) {
	case 0:
	case 1:
		PUT(g, 0x0f, 0x80 | below(g, 16), LE32(0));
		fix_rel(g, forward);
		break;
	case 2:
		PUT(g, 0xe9, LE32(0));
		fix_rel(g, forward);
		break;
	case 3:
	case 4:
	case 5:
		loop_back(g, n, below(g, n + 1));
		break;
	case 6:
		PUT(g, 0xe8, LE32(0));
		fix_rel(g, forward);
		g->calls++;
		break;
	case 7:
		if (!g->calls && below(g, 3))
			break;
		g->calls -= !!g->calls;
		if (one_in(g, 4))
			PUT(g, 0xc2, (u8)(below(g, 4) * 8), 0);
		else
			PUT(g, 0xc3);
		break;
	case 8: /* JMP or CALL register */
		if (r == UM_RSP)
			r = UM_RAX;
		load_block(g, r, forward);
		if (r >> 3)
			PUT(g, 0x41, 0xff, (one_in(g, 2) ? 0xd0 : 0xe0) | (r & 7));
		else
			PUT(g, 0xff, (one_in(g, 2) ? 0xd0 : 0xe0) | r);
		break;
	case 9: { /* through the table */
		u32 entry = (u32)PROGRAM_TABLE + forward * 8;

		if (is64(g))
			PUT(g, 0xff, one_in(g, 2) ? 0x14 : 0x24, 0x25, LE32(entry));
		else
			PUT(g, 0xff, one_in(g, 2) ? 0x15 : 0x25, LE32(entry));
		break;
	}
	case 10: /* PUSH, RET */
		PUT(g, 0x68, LE32(0));
		g->fix[g->nfix++] = (struct fixup){ (u16)(g->at - 4), 0, (u8)forward };
		PUT(g, 0xc3);
		break;
	default:
		break;
	}
}

/* A conditional jump over a few instructions. */
static void jump_over(struct gen *g)
{
	unsigned at;

	gen_settle(g);
	PUT(g, one_in(g, 8) ? 0xe3 : 0x70 | below(g, 16), 0);
	at = g->at;
	g->known = 0;
	for (unsigned n = below(g, 3); n < 3 && gen_room(g); n++) {
		unsigned was = g->at;

		gen_random_insn(g);
		if (g->at - at > 100 && was != at)
			break;
	}
	if (g->at - at < 128)
		g->p->code[at - 1] = (u8)(g->at - at);
	g->known = 0;
}

static void make_block(struct gen *g, unsigned n, unsigned count)
{
	unsigned insns = below(g, 4) ? 1 + below(g, 8) : below(g, 24);

	g->p->block[n] = (u16)g->at;
	g->known = 0;
	while (insns-- && gen_room(g)) {
		if (one_in(g, 10))
			jump_over(g);
		else
			gen_random_insn(g);
	}
	transfer(g, n, count);
	gen_settle(g);
	g->known = 0;
}

static void resolve(struct gen *g)
{
	for (unsigned k = 0; k < g->nfix; k++) {
		const struct fixup *f = &g->fix[k];
		u32 to = g->p->block[f->block], v = f->end ? to - f->end : (u32)PROGRAM_CODE + to;

		memcpy(g->p->code + f->at, &v, 4);
	}
}

/*
 * Where stores into the code go: an immediate of an instruction, or an operation that becomes a
 * related one.  Nothing that makes a loop endless or an undefined flag matter.
 */
static void patch_stores(struct gen *g)
{
	struct program *p = g->p;

	for (unsigned k = 0; k < g->nsmc; k++) {
		u32 to = (u32)PROGRAM_CODE + 8;

		for (unsigned tries = 0; tries < 30; tries++) {
			const struct program_insn *i = &p->insn[below(g, p->ninsns)];
			struct decoded d;
			u8 b[16] = { 0 };

			memcpy(b, p->code + i->off, i->len);
			if (!gen_decode(g, b, &d))
				continue;
			switch (d.z.mnemonic) {
			case ZYDIS_MNEMONIC_MOV:
			case ZYDIS_MNEMONIC_ADD:
			case ZYDIS_MNEMONIC_SUB:
			case ZYDIS_MNEMONIC_CMP:
			case ZYDIS_MNEMONIC_XOR:
			case ZYDIS_MNEMONIC_ADC:
			case ZYDIS_MNEMONIC_TEST:
				break;
			default:
				continue;
			}
			/*
			 * The first byte of an immediate: of the code's own stores and counters
			 * too, but for the latter's 1.
			 */
			if (d.z.raw.imm[0].size && d.ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
				to = (u32)PROGRAM_CODE + i->off + d.z.raw.imm[0].offset;
				break;
			}
		}
		memcpy(p->code + g->smc[k], &to, 4);
		p->patched[p->npatched++] = (u16)(to - PROGRAM_CODE);
	}
}

void program_make(struct program *p, u64 seed, bool code32, bool native, program_can_fn *can,
		  void *arg)
{
	struct gen g = { .r = rng_stream(seed, 1), .p = p, .can = can, .arg = arg };
	unsigned count;

	g.plain = below(&g, 3);
	p->seed = seed;
	p->native = native;
	p->code32 = code32;
	p->ninsns = p->nblocks = p->npatched = 0;
	memset(p->undefined, 0, sizeof(p->undefined));
	memset(p->code, 0xcc, sizeof(p->code));
	um_zydis_init(&g.d, code32 ? UM_MODE_32 : UM_MODE_64);
	/* Often across the pages' boundary. */
	g.at = one_in(&g, 2) ? UM_PAGE_SIZE - below(&g, 400) : 64 + below(&g, 3000);
	g.limit = PROGRAM_CODE_SIZE - 1024;
	count = 2 + below(&g, PROGRAM_BLOCKS - 2);
	for (unsigned n = 0; n + 1 < count; n++) {
		make_block(&g, n, count - 1);
		p->nblocks++;
	}
	p->block[p->nblocks++] = (u16)g.at;
	p->end = (u16)g.at;
	PUT(&g, 0x0f, 0x0b);
	resolve(&g);
	patch_stores(&g);

	for (unsigned r = 0; r < 16; r++)
		p->gpr[r] = gen_edge(&g.r) & (code32 ? 0xffffffff : ~0ull);
	for (unsigned r = 8; code32 && r < 16; r++)
		p->gpr[r] = 0;
	p->gpr[UM_RSP] = PROGRAM_RSP;
	p->rflags = (rng64(&g.r) & RFLAGS_STATUS) | RFLAGS_FIXED1 | RFLAGS_IF;
	if (one_in(&g, 16))
		p->rflags |= RFLAGS_AC;
	p->mxcsr = 0x1f80;
	p->fcw = 0x37f;
	if (one_in(&g, 6))
		p->mxcsr = (u32)rng64(&g.r) & 0xffff;
	if (one_in(&g, 6))
		p->fcw = (u16)((rng64(&g.r) & 0xf3f) | 0x40);
}

void program_memory(const struct program *p, u8 *mem)
{
	static u64 pattern[PROGRAM_MEM_SIZE / 8];
	static bool filled;
	struct rng r = rng_stream(p->seed, 2);
	unsigned step = p->code32 ? 4 : 8;
	u32 counter = rng_below(&r, 40);
	u64 salt = rng64(&r);

	if (!filled) {
		struct rng f = rng_stream(0, 2);

		for (size_t n = 0; n < ARRAY_SIZE(pattern); n++)
			pattern[n] = gen_edge(&f);
		filled = true;
	}
	memcpy(mem, pattern, PROGRAM_MEM_SIZE);
	for (size_t n = 0; n < PROGRAM_MEM_SIZE / 8; n += 8) {
		u64 v = pattern[n] ^ salt;

		memcpy(mem + n * 8, &v, 8);
	}
	memcpy(mem, p->code, PROGRAM_CODE_SIZE);
	mem += (u64)(PROGRAM_COUNTER - PROGRAM_CODE);
	memcpy(mem, &counter, 4);
	memset(mem + 4, 0, 4);
	mem += PROGRAM_TABLE - PROGRAM_COUNTER;
	for (unsigned n = 0; n < p->nblocks; n++) {
		u64 a = PROGRAM_CODE + p->block[n];

		memcpy(mem + n * 8, &a, 8);
	}
	/* What unbalanced RETs find. */
	mem += PROGRAM_RSP - PROGRAM_TABLE;
	for (unsigned n = 0; n < 512; n += step) {
		u64 a = PROGRAM_CODE + p->block[rng_below(&r, p->nblocks)];

		memcpy(mem + n, &a, step);
	}
}

void program_vectors(const struct program *p, struct um_fpu *f)
{
	struct rng r = rng_stream(p->seed, 3);
	u16 fsw = (u16)(rng64(&r) & 0x7f00);

	for (unsigned n = 0; n < 32; n++) {
		for (unsigned q = 0; q < 64; q += 8) {
			u64 v = gen_edge(&r);

			if (n % 4 == 3) /* usable as indices of gathers */
				v &= 0x000000ff000000ffull;
			memcpy(&f->zmm[n][q], &v, 8);
		}
	}
	for (unsigned k = 0; k < 8; k++)
		f->k[k] = rng64(&r) & (rng_one_in(&r, 2) ? ~0ull : rng64(&r));
	memset(f->fxsave, 0, sizeof(f->fxsave));
	memcpy(f->fxsave, &p->fcw, 2);
	memcpy(f->fxsave + 2, &fsw, 2);
	f->fxsave[4] = rng_one_in(&r, 2) ? 0 : (u8)rng64(&r);
	for (unsigned n = 0; n < 8; n++) {
		u64 m = gen_edge(&r) | (rng_below(&r, 4) ? BIT(63) : 0);
		u16 e = (u16)rng64(&r);

		if (rng_one_in(&r, 2))
			e = (u16)(0x3fff + rng_below(&r, 70) - 5) | (u16)(rng_below(&r, 2) << 15);
		memcpy(f->fxsave + 32 + n * 16, &m, 8);
		memcpy(f->fxsave + 32 + n * 16 + 8, &e, 2);
	}
	f->mxcsr = p->mxcsr;
	f->xinuse = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512;
}

/* ---- running ---- */

static unsigned block_of(const struct program *p, u64 rip)
{
	unsigned n = 0;

	while (n + 1 < p->nblocks && rip - PROGRAM_CODE >= p->block[n + 1])
		n++;
	return n;
}

bool program_resume(const struct program *p, struct program_run *r, unsigned vector, u64 *rip,
		    u64 *rflags, u64 *rsp)
{
	u64 off = *rip - PROGRAM_CODE;

	if (++r->nevents >= PROGRAM_EVENTS || (vector == UM_VEC_UD && off == p->end))
		return false;
	*rflags &= ~program_undefined(p, *rip);
	if (vector == UM_VEC_DB) {
		if (r->steps++ % 16 > 10)
			*rflags &= ~RFLAGS_TF;
		return true;
	}
	if (off < PROGRAM_CODE_SIZE)
		r->block = block_of(p, *rip);
	r->block = um_min(r->block + 1, p->nblocks - 1u);
	*rip = PROGRAM_CODE + p->block[r->block];
	*rsp = PROGRAM_RSP;
	return true;
}

u64 program_undefined(const struct program *p, u64 rip)
{
	u64 off = rip - PROGRAM_CODE;

	return off < PROGRAM_CODE_SIZE ? p->undefined[off] & ~PROGRAM_KNOWN : 0;
}

const struct program_insn *program_at(const struct program *p, u64 rip)
{
	for (unsigned n = 0; n < p->ninsns; n++) {
		if (PROGRAM_CODE + p->insn[n].off == rip)
			return &p->insn[n];
	}
	return NULL;
}

/* ---- reports ---- */

void program_drop(struct program *p, unsigned n)
{
	const struct program_insn *i = &p->insn[n];

	for (unsigned k = 0; k < i->len; k++) {
		p->code[i->off + k] = 0x90;
		p->undefined[i->off + k] = p->undefined[i->off];
	}
}

void program_print(const struct program *p)
{
	enum um_mode mode = p->code32 ? UM_MODE_32 : UM_MODE_64;

	for (unsigned n = 0; n < p->ninsns; n++) {
		const struct program_insn *i = &p->insn[n];
		char text[96];

		if (p->code[i->off] == 0x90)
			continue;
		for (unsigned k = 0; k < p->nblocks; k++) {
			if (p->block[k] == i->off)
				printf("block %u:\n", k);
		}
		um_disassemble(mode, p->code + i->off, i->len, PROGRAM_CODE + i->off, text,
			       sizeof(text));
		printf("  %llx  %-48s ", (unsigned long long)(PROGRAM_CODE + i->off), text);
		for (unsigned k = 0; k < i->len; k++)
			printf("%02x", p->code[i->off + k]);
		printf("\n");
	}
}

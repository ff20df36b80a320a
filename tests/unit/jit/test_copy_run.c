// SPDX-License-Identifier: MIT
/*
 * Copies of instructions, and the facts about them, against the real CPU (tests/oracle/host.h).
 *
 * Each generated instruction runs as it is, on random registers; its copy runs with the same values
 * in other registers, and its memory operand elsewhere addressed: all results must be the same.
 * Then the facts:
 *   - what isn't said to be written keeps its value,
 *   - what isn't said to be read may have any value: the results are the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/mman.h>

#include "engine/jit/copy.h"
#include "gen.h"
#include "tests/oracle/host.h"

#define MXCSR_AT 24 /* in an FXSAVE image */
#define X87_AT	 32 /* in an FXSAVE image: ST0..7 */
#define MIDDLE	 2048

static u8 *page; /* between pages that can't be accessed */

struct trial {
	struct gen *g;
	const u8 *bytes;
	unsigned len;
	struct um_facts f;
	struct um_places p;
	struct host_state in, out;
	u8 mem_in[UM_PAGE_SIZE], mem_out[UM_PAGE_SIZE];
	int vector;
	unsigned copies, in_memory, faults;
};

#define CHECK(t, cond)                       \
	do {                                 \
		if (!(cond))                 \
			fail_with(t, #cond); \
	} while (0)

static void fail_with(const struct trial *t, const char *what)
{
	char a[128];

	um_disassemble(UM_MODE_64, t->bytes, t->len, 0, a, sizeof(a));
	print_error("%s:", a);
	for (unsigned n = 0; n < t->len; n++)
		print_error(" %02x", t->bytes[n]);
	print_error(" ");
	fail_msg("%s", what);
}

/* ---- running ---- */

static u32 mxcsr(const struct host_state *s)
{
	u32 v;

	memcpy(&v, s->fxsave + MXCSR_AT, 4);
	return v;
}

static void set_mxcsr(struct host_state *s, u32 v)
{
	memcpy(s->fxsave + MXCSR_AT, &v, 4);
}

static u64 value(struct gen *g)
{
	static const u64 edges[] = { 0,
				     1,
				     31,
				     32,
				     0x7f,
				     0x80,
				     0xffff,
				     0x80000000,
				     0xffffffff,
				     0x8000000000000000,
				     ~0ull,
				     0x3f800000bf800000,
				     0x3ff0000000000000,
				     0x7ff0000000000000,
				     0x7fc00000ffc00001 };

	switch (gen_below(g, 4)) {
	case 0:
		return edges[gen_below(g, ARRAY_SIZE(edges))];
	case 1:
		return gen_rnd(g) >> gen_below(g, 64);
	default:
		return gen_rnd(g);
	}
}

static void fill(struct gen *g, void *p, size_t size)
{
	u64 *v = p;

	for (size_t n = 0; n < size / 8; n++)
		v[n] = value(g);
}

/* MXCSR that raises nothing: any rounding, DAZ, FTZ. */
static u32 some_mxcsr(struct gen *g)
{
	return 0x1f80 | ((u32)gen_rnd(g) & 0xe040);
}

static u64 some_flags(struct gen *g)
{
	return (gen_rnd(g) & RFLAGS_STATUS) | 0x202;
}

static void random_state(struct gen *g, struct host_state *s)
{
	u16 fcw = 0x37f;

	u16 fsw = (u16)(gen_rnd(g) & 0x7f00);

	memset(s->fxsave, 0, sizeof(s->fxsave));
	if (!gen_below(g, 4)) { /* unmasked exceptions; one may be pending */
		fcw &= (u16)~gen_below(g, 64);
		fsw |= (u16)gen_below(g, 64);
		if (fsw & ~fcw & 0x3f)
			fsw |= 0x8080; /* ES, B */
	}
	memcpy(s->fxsave, &fcw, 2);
	memcpy(s->fxsave + 2, &fsw, 2);
	s->fxsave[4] = (u8)(gen_below(g, 2) ? 0xff : gen_rnd(g));
	for (unsigned r = 0; r < 8; r++) {
		u16 exp = (u16)(gen_below(g, 4) ? 0x3ff0 + gen_below(g, 32) : gen_rnd(g));

		fill(g, s->fxsave + X87_AT + r * 16, 8);
		s->fxsave[X87_AT + r * 16 + 7] |= 0x80;
		memcpy(s->fxsave + X87_AT + r * 16 + 8, &exp, 2);
	}
	set_mxcsr(s, some_mxcsr(g));
	fill(g, s->zmm, sizeof(s->zmm));
	fill(g, s->k, sizeof(s->k));
	fill(g, s->gpr, sizeof(s->gpr));
	s->flags = some_flags(g);
}

/* FCW, FSW, FTW and the registers; not the last instruction's addresses. */
static bool same_x87(const struct host_state *a, const struct host_state *b)
{
	return !memcmp(a->fxsave, b->fxsave, 5) &&
	       !memcmp(a->fxsave + X87_AT, b->fxsave + X87_AT, 128);
}

/* FOP: 0 if not noted, as on processors that do so for unmasked exceptions only. */
static u16 fop(const struct host_state *s)
{
	u16 v;

	memcpy(&v, s->fxsave + 6, 2);
	return v;
}

static int run(const u8 *code, unsigned len, const struct host_state *in, struct host_state *out,
	       const u8 *mem_in, u8 *mem_out)
{
	int vector;

	memcpy(page, mem_in, UM_PAGE_SIZE);
	memcpy(host_code(), code, len);
	vector = host_run(in, out, len);
	memcpy(mem_out, page, UM_PAGE_SIZE);
	return vector;
}

/* ---- places ---- */

static unsigned bit_register(const struct trial *t)
{
	return t->f.enc.reg.n;
}

/* How far a bit string's element is from the operand, in bytes. */
static s64 bit_move(const struct trial *t)
{
	unsigned size = t->f.mem_size;
	u64 v = t->in.gpr[bit_register(t)];
	s64 at = size == 2 ? (s16)v : size == 4 ? (s32)v : (s64)v;

	return (at >> (size == 2 ? 4 : size == 4 ? 5 : 6)) * (s64)size;
}

static u16 operands_of(const struct um_facts *f)
{
	return f->reads | f->writes | f->explicit_regs | f->implied;
}

/* Random ones; AH..BH where they can be. */
static void random_places(struct trial *t)
{
	const struct um_facts *f = &t->f;
	u16 ops = operands_of(f), taken = f->implied;

	memset(&t->p, 0, sizeof(t->p));
	for (unsigned n = 0; n < 16; n++) {
		unsigned m = n;

		if (!(f->implied >> n & 1) && (ops >> n & 1)) {
			do {
				m = gen_below(t->g, f->high ? 4 : 16);
			} while (taken >> m & 1);
			taken |= (u16)(1u << m);
		}
		t->p.gpr[n] = (u8)m;
	}
	do {
		t->p.base = (u8)gen_below(t->g, f->high ? 8 : 16);
	} while (taken >> t->p.base & 1);
	t->p.disp = gen_below(t->g, 2) ? (s32)gen_below(t->g, 4096) - 2048 : 0;
	t->p.bit_string = f->bit_string;
}

/* The state in which the copy runs. */
static void placed_state(const struct trial *t, struct host_state *s)
{
	u16 ops = operands_of(&t->f);

	*s = t->in;
	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = gen_rnd(t->g);
	for (unsigned n = 0; n < 16; n++) {
		if (ops >> n & 1)
			s->gpr[t->p.gpr[n]] = t->in.gpr[n];
	}
	if (!t->f.mem_size)
		return;
	s->gpr[t->p.base] = (u64)(uintptr_t)page + MIDDLE - (u64)(s64)t->p.disp;
	if (t->f.bit_string) {
		s->gpr[t->p.base] += (u64)bit_move(t);
		s->gpr[t->p.gpr[bit_register(t)]] &= t->f.mem_size * 8u - 1;
	}
}

/* ---- comparisons ---- */

static void same_rest(const struct trial *t, const struct host_state *out, const u8 *mem)
{
	CHECK(t, !memcmp(out->zmm, t->out.zmm, sizeof(out->zmm)));
	CHECK(t, !memcmp(out->k, t->out.k, sizeof(out->k)));
	CHECK(t, mxcsr(out) == mxcsr(&t->out));
	CHECK(t, same_x87(out, &t->out));
	/* Undefined ones may differ: OF of rotates does from run to run on some processors. */
	CHECK(t, !((out->flags ^ t->out.flags) & RFLAGS_STATUS & ~(u64)t->f.flags_undefined));
	CHECK(t, !memcmp(mem, t->mem_out, UM_PAGE_SIZE));
}

static void check_copy(struct trial *t)
{
	struct host_state in, out;
	u8 code[UM_ENCODE_MAX], mem[UM_PAGE_SIZE];
	u16 used = 0, ops = operands_of(&t->f);
	unsigned len;

	random_places(t);
	len = um_jit_copy(&t->f, &t->p, code);
	if (!len) {
		CHECK(t, t->f.high);
		return;
	}
	placed_state(t, &in);
	CHECK(t, run(code, len, &in, &out, t->mem_in, mem) == t->vector);
	if (t->vector >= 0)
		return;
	same_rest(t, &out, mem);
	CHECK(t, !fop(&t->out) == !fop(&out));
	CHECK(t, !fop(&out) || fop(&out) == um_jit_fop(code));
	for (unsigned n = 0; n < 16; n++) {
		unsigned m = t->p.gpr[n];

		if (!(ops >> n & 1))
			continue;
		used |= (u16)(1u << m);
		if (t->f.bit_string && n == bit_register(t))
			CHECK(t, out.gpr[m] == in.gpr[m]);
		else
			CHECK(t, out.gpr[m] == t->out.gpr[n]);
	}
	for (unsigned m = 0; m < 16; m++) {
		if (!(used >> m & 1))
			CHECK(t, out.gpr[m] == in.gpr[m]);
	}
	t->copies++;
}

/* With the register ModRM.rm in memory. */
static void check_copy_rm(struct trial *t)
{
	struct host_state in, out;
	u8 code[UM_ENCODE_MAX], mem[UM_PAGE_SIZE], mem_in[UM_PAGE_SIZE];
	unsigned len, rm = t->f.enc.rm.n;
	bool twice;
	u64 v;

	random_places(t);
	len = um_jit_copy_rm(&t->f, &t->p, code);
	if (!len)
		return;
	twice = (t->f.enc.reg.kind >= UM_FIELD_GPR && t->f.enc.reg.n == rm) ||
		(t->f.enc.vvvv.kind >= UM_FIELD_GPR && t->f.enc.vvvv.n == rm) ||
		(t->f.implied >> rm & 1);
	if (twice && t->f.rm_written)
		return;
	placed_state(t, &in);
	in.gpr[t->p.base] = (u64)(uintptr_t)page + MIDDLE - (u64)(s64)t->p.disp;
	memcpy(mem_in, t->mem_in, UM_PAGE_SIZE);
	memcpy(mem_in + MIDDLE, &t->in.gpr[rm], 8);
	CHECK(t, run(code, len, &in, &out, mem_in, mem) == t->vector);
	if (t->vector >= 0)
		return;
	memcpy(&v, mem + MIDDLE, 8);
	CHECK(t, v == (t->f.rm_written ? t->out.gpr[rm] : t->in.gpr[rm]));
	memcpy(mem + MIDDLE, t->mem_in + MIDDLE, 8);
	same_rest(t, &out, mem);
	for (unsigned n = 0; n < 16; n++) {
		if ((operands_of(&t->f) >> n & 1) && (n != rm || twice))
			CHECK(t, out.gpr[t->p.gpr[n]] == t->out.gpr[n]);
	}
	t->in_memory++;
}

/* ---- facts ---- */

static void check_written(const struct trial *t)
{
	const struct um_facts *f = &t->f;
	const struct host_state *a = &t->in, *b = &t->out;
	unsigned at = MIDDLE + (f->bit_string ? (unsigned)bit_move(t) : 0);

	for (unsigned n = 0; n < 16; n++) {
		if (!(f->writes >> n & 1))
			CHECK(t, a->gpr[n] == b->gpr[n]);
		if (f->writes32 >> n & 1)
			CHECK(t, !(b->gpr[n] >> 32));
		if (f->partial >> n & 1)
			CHECK(t, a->gpr[n] >> 16 == b->gpr[n] >> 16);
		CHECK(t, !(f->partial & f->writes32));
	}
	CHECK(t, !((a->flags ^ b->flags) & RFLAGS_STATUS & ~(u64)f->flags_written));
	if (!f->mxcsr)
		CHECK(t, mxcsr(a) == mxcsr(b));
	CHECK(t, f->x87 || f->mmx || same_x87(a, b));
	CHECK(t, !fop(b) || (f->x87_pointers && fop(b) == f->x87_fop));
	if (!f->mem_write) {
		CHECK(t, !memcmp(t->mem_in, t->mem_out, UM_PAGE_SIZE));
	} else {
		CHECK(t, !memcmp(t->mem_in, t->mem_out, at));
		CHECK(t, !memcmp(t->mem_in + at + f->mem_size, t->mem_out + at + f->mem_size,
				 UM_PAGE_SIZE - at - f->mem_size));
	}
	for (unsigned n = 0; n < 32; n++) {
		bool low = memcmp(a->zmm[n], b->zmm[n], 16);
		bool mid = memcmp(a->zmm[n] + 16, b->zmm[n] + 16, 16);
		bool high = memcmp(a->zmm[n] + 32, b->zmm[n] + 32, 32);

		if (n >= 16) {
			CHECK(t, !(low || mid || high) || f->vec == UM_VEC_CLASS_AVX512);
			CHECK(t, !(low || mid || high) || (f->xinuse & XCR0_HI16_ZMM));
			continue;
		}
		CHECK(t, !low || (f->vec >= UM_VEC_CLASS_SSE && (f->xinuse & XCR0_SSE)) ||
				 f->enc.opcode == 0x77); /* VZEROALL brings nothing into use */
		CHECK(t, !(mid || high) || f->vec >= UM_VEC_CLASS_AVX);
	}
	if (memcmp(a->k, b->k, sizeof(a->k)))
		CHECK(t, f->vec == UM_VEC_CLASS_AVX512 && (f->xinuse & XCR0_OPMASK));
}

/* The same with other values where nothing is read. */
static void check_read(const struct trial *t)
{
	const struct um_facts *f = &t->f;
	struct host_state in = t->in, out;
	u8 mem_in[UM_PAGE_SIZE], mem[UM_PAGE_SIZE];
	u64 flags = f->flags_written & ~(u64)f->flags_undefined;

	for (unsigned n = 0; n < 16; n++) {
		if (!((f->reads | f->address) >> n & 1))
			in.gpr[n] = gen_rnd(t->g);
	}
	in.flags = (t->in.flags & f->flags_read) | (some_flags(t->g) & ~(u64)f->flags_read);
	if (!f->mxcsr)
		set_mxcsr(&in, some_mxcsr(t->g));
	memcpy(mem_in, t->mem_in, UM_PAGE_SIZE);
	if (!f->mem_read)
		fill(t->g, mem_in, UM_PAGE_SIZE);
	CHECK(t, run(t->bytes, t->len, &in, &out, mem_in, mem) == t->vector);
	if (t->vector >= 0)
		return;
	for (unsigned n = 0; n < 16; n++) {
		if (f->writes >> n & 1)
			CHECK(t, out.gpr[n] == t->out.gpr[n]);
	}
	if (!f->flags_maybe)
		CHECK(t, !((out.flags ^ t->out.flags) & flags));
	CHECK(t, !memcmp(out.zmm, t->out.zmm, sizeof(out.zmm)));
	CHECK(t, !memcmp(out.k, t->out.k, sizeof(out.k)));
	/* (An unmasked exception keeps an x87 instruction from storing.) */
	if (f->mem_write && !f->mem_masked && !f->bit_string && !f->x87)
		CHECK(t, !memcmp(mem + MIDDLE, t->mem_out + MIDDLE, f->mem_size));
}

/* ---- all ---- */

static void prepare(struct trial *t)
{
	const struct um_facts *f = &t->f;

	random_state(t->g, &t->in);
	fill(t->g, t->mem_in, UM_PAGE_SIZE);
	if (f->may_fault && gen_below(t->g, 2)) /* let divisions succeed */
		t->in.gpr[UM_RDX] = 0;
	if (f->bit_string) {
		unsigned r = bit_register(t), bits = f->mem_size * 8u;
		u64 v = (u64)(s64)((int)gen_below(t->g, 8192) - 4096);

		t->in.gpr[r] = bits == 64 ? v : (gen_rnd(t->g) << bits) | (v & (BIT(bits) - 1));
	}
	if (f->mxcsr && f->mem_size && gen_below(t->g, 2)) { /* LDMXCSR: most values are #GP */
		u32 v = some_mxcsr(t->g);

		memcpy(t->mem_in + MIDDLE, &v, 4);
	}
	for (unsigned n = 0; n < 16; n++) {
		if (f->mem_size && (f->address >> n & 1))
			t->in.gpr[n] = (u64)(uintptr_t)page + MIDDLE;
	}
}

static void one(void *arg, const u8 *bytes)
{
	struct trial *t = arg;
	ZydisDecoder dec;
	ZydisDecodedInstruction z;

	um_zydis_init(&dec, UM_MODE_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&dec, NULL, bytes, 15, &z)))
		return;
	t->bytes = bytes;
	t->len = z.length;
	if (!um_jit_analyse(UM_MODE_64, bytes, z.length, &t->f) || t->f.nothing)
		return;
	if (z.mnemonic == ZYDIS_MNEMONIC_RDRAND || z.mnemonic == ZYDIS_MNEMONIC_RDSEED)
		return;
	if (t->f.mem_size) {
		u16 a = t->f.address;

		/* (A prefix as opcode makes other memory operands.) */
		if ((a != BIT(UM_RSI) && a != BIT(UM_RDI)) || z.raw.disp.size ||
		    (z.attributes & (ZYDIS_ATTRIB_HAS_SIB | ZYDIS_ATTRIB_HAS_SEGMENT |
				     ZYDIS_ATTRIB_HAS_ADDRESSSIZE)))
			return;
		if (t->f.bit_string && (t->f.reads & a))
			return;
	}
	prepare(t);
	t->vector = run(bytes, t->len, &t->in, &t->out, t->mem_in, t->mem_out);
	CHECK(t, t->vector != 6 && t->vector != 14);
	if (t->vector >= 0) {
		CHECK(t, t->f.may_fault);
		t->faults++;
	}
	check_copy(t);
	check_copy_rm(t);
	if (t->vector < 0)
		check_written(t);
	check_read(t);
}

static void test_run(void **state)
{
	struct gen g = { .rng = 0x123456789abcdef, .plain_memory = true };
	struct trial *t = calloc(1, sizeof(*t));

	host_init(); /* (cmocka has its own handlers before a test) */
	t->g = &g;
	gen_all(&g, true, 5, one, t);
	assert_true(t->copies > 20000 && t->in_memory > 2000 && t->faults > 10);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_run) };

	page = mmap(NULL, 3 * UM_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return 1;
	page += UM_PAGE_SIZE;
	if (mprotect(page, UM_PAGE_SIZE, PROT_READ | PROT_WRITE))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

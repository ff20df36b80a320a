// SPDX-License-Identifier: MIT
/*
 * Copies of instructions, as Zydis reads them: over generated encodings (gen.h), the copy must be
 * the same instruction with the same operands, but for the registers that were given new numbers
 * and the memory operand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include <stdlib.h>

#include "engine/jit/copy.h"
#include "gen.h"

struct decoded {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

static bool decode(enum um_mode mode, const u8 *bytes, unsigned len, struct decoded *d)
{
	ZydisDecoder dec;

	um_zydis_init(&dec, mode);
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&dec, bytes, len, &d->z, d->ops));
}

struct run {
	struct gen *g;
	enum um_mode mode;
	struct um_host host; /* some are masked */
	struct um_fact_cache *cache;
	unsigned copied, refused, in_memory, lost;
	const u8 *bytes;
	u8 out[UM_ENCODE_MAX];
	unsigned len, out_len;
};

#define CHECK(r, cond)                       \
	do {                                 \
		if (!(cond))                 \
			fail_with(r, #cond); \
	} while (0)

static void fail_with(const struct run *r, const char *what)
{
	char a[128], b[128] = "";

	um_disassemble(r->mode, r->bytes, r->len, 0, a, sizeof(a));
	if (r->out_len)
		um_disassemble(UM_MODE_64, r->out, r->out_len, 0, b, sizeof(b));
	print_error("%s ->%s:", a, b);
	for (unsigned n = 0; n < r->len; n++)
		print_error(" %02x", r->bytes[n]);
	print_error(" ->");
	for (unsigned n = 0; n < r->out_len; n++)
		print_error(" %02x", r->out[n]);
	fail_msg("%s", what);
}

/* ---- operands ---- */

static bool is_gpr_class(ZydisRegisterClass c)
{
	return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
	       c == ZYDIS_REGCLASS_GPR64;
}

/* Number of a general register; *high: AH..BH. */
static unsigned number(ZydisRegister r, bool *high)
{
	*high = r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
	if (*high)
		return (unsigned)(r - ZYDIS_REGISTER_AH);
	if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR8)
		return r >= ZYDIS_REGISTER_SPL ? (unsigned)(r - ZYDIS_REGISTER_SPL + 4)
					       : (unsigned)(r - ZYDIS_REGISTER_AL);
	return (unsigned)ZydisRegisterGetId(r);
}

static void same_register(struct run *r, ZydisRegister a, ZydisRegister b,
			  const struct um_places *p)
{
	ZydisRegisterClass c = ZydisRegisterGetClass(a);
	bool high_a, high_b;
	unsigned n, m;

	CHECK(r, ZydisRegisterGetClass(b) == c);
	if (!is_gpr_class(c)) {
		CHECK(r, a == b);
		return;
	}
	n = number(a, &high_a);
	m = number(b, &high_b);
	CHECK(r, high_a == high_b);
	CHECK(r, m == p->gpr[n]);
}

static void is_memory(struct run *r, const ZydisDecodedOperand *o, unsigned base, s64 disp)
{
	CHECK(r, o->type == ZYDIS_OPERAND_TYPE_MEMORY);
	CHECK(r, ZydisRegisterGetClass(o->mem.base) == ZYDIS_REGCLASS_GPR64);
	CHECK(r, ZydisRegisterGetId(o->mem.base) == (ZyanI8)base);
	CHECK(r, o->mem.index == ZYDIS_REGISTER_NONE);
	CHECK(r, o->mem.disp.value == disp);
}

static void same_operand(struct run *r, const ZydisDecodedOperand *a, const ZydisDecodedOperand *b,
			 const struct um_places *p)
{
	CHECK(r, a->type == b->type);
	CHECK(r, a->size == b->size);
	CHECK(r, a->actions == b->actions);
	CHECK(r, a->element_type == b->element_type);
	CHECK(r, a->element_size == b->element_size);
	CHECK(r, a->element_count == b->element_count);
	switch (a->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		same_register(r, a->reg.value, b->reg.value, p);
		break;
	case ZYDIS_OPERAND_TYPE_MEMORY:
		is_memory(r, b, p->base, p->disp);
		break;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		CHECK(r, a->imm.value.u == b->imm.value.u);
		break;
	default:
		fail_with(r, "kind of operand");
	}
}

static void same_instruction(struct run *r, const struct decoded *a, const struct decoded *b)
{
	CHECK(r, a->z.mnemonic == b->z.mnemonic);
	CHECK(r, a->z.operand_count_visible == b->z.operand_count_visible);
	CHECK(r, (a->z.attributes & ZYDIS_ATTRIB_HAS_LOCK) ==
			 (b->z.attributes & ZYDIS_ATTRIB_HAS_LOCK));
	CHECK(r, !(b->z.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT | ZYDIS_ATTRIB_HAS_ADDRESSSIZE)));
	CHECK(r, a->z.avx.vector_length == b->z.avx.vector_length);
	CHECK(r, a->z.avx.mask.mode == b->z.avx.mask.mode);
	CHECK(r, a->z.avx.mask.reg == b->z.avx.mask.reg);
	CHECK(r, a->z.avx.broadcast.mode == b->z.avx.broadcast.mode);
	CHECK(r, a->z.avx.rounding.mode == b->z.avx.rounding.mode);
	CHECK(r, a->z.avx.has_sae == b->z.avx.has_sae);
	CHECK(r, a->z.cpu_flags == b->z.cpu_flags ||
			 !memcmp(a->z.cpu_flags, b->z.cpu_flags, sizeof(*a->z.cpu_flags)));
}

/* ---- places ---- */

static void random_places(struct gen *g, const struct um_facts *f, struct um_places *p)
{
	static const s32 disps[] = { 0, 0, 1, -128, 127, 128, -129, 0x12345678 };
	u16 taken = f->implied;

	memset(p, 0, sizeof(*p));
	for (unsigned n = 0; n < 16; n++) {
		unsigned m;

		if (f->implied >> n & 1) {
			p->gpr[n] = (u8)n;
			continue;
		}
		do {
			m = gen_below(g, f->high >> n & 1 && gen_below(g, 8) ? 4 : 16);
		} while ((taken >> m & 1) && (f->explicit_regs >> n & 1));
		p->gpr[n] = (u8)m;
		if (f->explicit_regs >> n & 1)
			taken |= (u16)(1u << m);
	}
	p->base = (u8)gen_below(g, 16);
	p->disp = disps[gen_below(g, ARRAY_SIZE(disps))];
	p->bit_string = f->bit_string;
}

/*
 * May a copy be refused?  AH..BH have no encoding with registers 8..15, SPL..DIL, or in other
 * places than 0..3.
 */
static bool impossible(const struct um_facts *f, const struct um_places *p)
{
	unsigned regs = f->explicit_regs;

	if (!f->high)
		return false;
	for (unsigned n = 0; n < 16; n++) {
		if ((regs >> n & 1) && p->gpr[n] >= 4)
			return true;
	}
	return f->mem_size && p->base >= 8;
}

static void check_copy(struct run *r, const struct decoded *a, const struct um_facts *f)
{
	struct um_places p;
	struct decoded b;

	random_places(r->g, f, &p);
	r->out_len = um_jit_copy(f, &p, r->out);
	if (!r->out_len) {
		CHECK(r, f->nothing || impossible(f, &p));
		return;
	}
	CHECK(r, decode(UM_MODE_64, r->out, r->out_len, &b));
	CHECK(r, b.z.length == r->out_len);
	same_instruction(r, a, &b);
	for (unsigned n = 0; n < a->z.operand_count_visible; n++)
		same_operand(r, &a->ops[n], &b.ops[n], &p);
	r->copied++;
}

static void check_copy_rm(struct run *r, const struct decoded *a, const struct um_facts *f)
{
	struct um_places p;
	struct decoded b;
	unsigned found = 0;

	random_places(r->g, f, &p);
	r->out_len = um_jit_copy_rm(f, &p, r->out);
	if (!r->out_len)
		return;
	CHECK(r, decode(UM_MODE_64, r->out, r->out_len, &b));
	CHECK(r, b.z.length == r->out_len);
	same_instruction(r, a, &b);
	for (unsigned n = 0; n < a->z.operand_count_visible; n++) {
		const ZydisDecodedOperand *o = &a->ops[n], *m = &b.ops[n];
		bool high;

		if (m->type != ZYDIS_OPERAND_TYPE_MEMORY) {
			same_operand(r, o, m, &p);
			continue;
		}
		found++;
		CHECK(r, o->type == ZYDIS_OPERAND_TYPE_REGISTER);
		CHECK(r, o->actions == m->actions);
		number(o->reg.value, &high);
		is_memory(r, m, p.base, p.disp + high);
		CHECK(r, m->size <= o->size);
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			CHECK(r, m->size == o->size && o->size != 32);
	}
	CHECK(r, found == 1);
	r->in_memory++;
}

static void one(void *arg, const u8 *bytes)
{
	struct run *r = arg;
	struct um_facts f;
	struct decoded d;

	if (!decode(r->mode, bytes, 15, &d))
		return;
	r->bytes = bytes;
	r->len = d.z.length;
	r->out_len = 0;
	if (!um_jit_analyse(r->mode, bytes, r->len, &f)) {
		r->refused++;
		return;
	}
	check_copy(r, &d, &f);
	check_copy_rm(r, &d, &f);
}

/* What is remembered is what would be found: displacements and immediates vary. */
static void cached(void *arg, const u8 *bytes)
{
	struct run *r = arg;
	struct um_facts fresh, known;
	struct decoded d;
	bool ok;
	u8 b[16];

	memcpy(b, bytes, 15);
	for (unsigned n = 0; n < 4; n++) {
		if (!decode(r->mode, b, 15, &d))
			return;
		r->bytes = b;
		r->len = d.z.length;
		ok = um_jit_analyse(r->mode, b, r->len, &fresh);
		CHECK(r, um_jit_analyse_cached(r->cache, r->mode, b, r->len, &known) == ok);
		CHECK(r, !ok || !memcmp(&fresh, &known, sizeof(fresh)));
		/*
		 * Other bytes where these two are.  (They are at the end, if the instruction has
		 * them.)
		 */
		for (unsigned k = d.z.raw.disp.size ? d.z.raw.disp.offset
						    : r->len - d.z.raw.imm[0].size / 8;
		     k < r->len; k++)
			b[k] = (u8)gen_rnd(r->g);
		r->copied += ok;
	}
}

static void test_cached(void **state)
{
	static const enum um_mode modes[] = { UM_MODE_64, UM_MODE_32, UM_MODE_64 };
	struct gen g = { .rng = 4711 };
	struct run r = { .g = &g, .cache = calloc(1, sizeof(*r.cache)) };

	for (unsigned n = 0; n < ARRAY_SIZE(modes); n++) {
		r.mode = modes[n];
		gen_all(&g, r.mode == UM_MODE_64, 1, cached, &r);
	}
	assert_true(r.copied > 100000);
	free(r.cache);
}

static void all_encodings(enum um_mode mode)
{
	struct gen g = { .rng = 0x9e3779b97f4a7c15 };
	struct run r = { .g = &g, .mode = mode };

	gen_all(&g, mode == UM_MODE_64, 6, one, &r);
	assert_true(r.copied > 100000 && r.refused && r.in_memory > 5000);
}

static void test_64bit(void **state)
{
	all_encodings(UM_MODE_64);
}

static void test_32bit(void **state)
{
	all_encodings(UM_MODE_32);
}

/* ---- single cases ---- */

#define IDENTITY                                                     \
	{                                                            \
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 \
	}

static void expect_copy(enum um_mode mode, const char *bytes, unsigned len,
			const struct um_places *p, const char *want, unsigned want_len)
{
	struct um_facts f;
	u8 out[UM_ENCODE_MAX];

	assert_true(um_jit_analyse(mode, (const u8 *)bytes, len, &f));
	assert_int_equal(um_jit_copy(&f, p, out), want_len);
	assert_memory_equal(out, want, want_len);
}
#define COPY(mode, from, p, to) expect_copy(mode, from, sizeof(from) - 1, p, to, sizeof(to) - 1)

static void expect_refused(enum um_mode mode, const char *bytes, unsigned len)
{
	struct um_facts f;

	assert_false(um_jit_analyse(mode, (const u8 *)bytes, len, &f));
}
#define REFUSED(mode, bytes) expect_refused(mode, bytes, sizeof(bytes) - 1)

static void test_forms(void **state)
{
	struct um_places p = { .gpr = IDENTITY, .base = 7 };

	/* VEX.W is ignored outside 64-bit mode: vpcmpestri xmm0, xmm1, 88h has its lengths in EAX and EDX. */
	COPY(UM_MODE_32, "\xc4\xe3\xf9\x61\xc1\x88", &p, "\xc4\xe3\x79\x61\xc1\x88");
	COPY(UM_MODE_32, "\xc4\xe3\xf9\x60\xc1\x88", &p, "\xc4\xe3\x79\x60\xc1\x88");
	COPY(UM_MODE_64, "\xc4\xe3\xf9\x61\xc1\x88", &p, "\xc4\xe3\xf9\x61\xc1\x88");
	p.gpr[0] = 9;
	p.gpr[1] = 12;
	COPY(UM_MODE_64, "\x48\x01\xc1", &p, "\x4d\x01\xcc"); /* add rcx, rax */
	COPY(UM_MODE_64, "\x05\x01\x02\x03\x04", &p, "\x41\x81\xc1\x01\x02\x03\x04"); /* add eax, */
	COPY(UM_MODE_64, "\xa8\x80", &p, "\x41\xf6\xc1\x80");	      /* test al, 80h */
	COPY(UM_MODE_64, "\x48\x91", &p, "\x4d\x87\xcc");	      /* xchg rcx, rax */
	COPY(UM_MODE_64, "\x41\x90", &p, "\x45\x87\xc8");	      /* xchg r8d, eax */
	COPY(UM_MODE_32, "\x40", &p, "\x41\xff\xc1");		      /* inc eax */
	COPY(UM_MODE_32, "\x66\x49", &p, "\x66\x41\xff\xcc");	      /* dec cx */
	COPY(UM_MODE_32, "\xa1\x78\x56\x34\x12", &p, "\x44\x8b\x0f"); /* mov eax, [12345678h] */
	COPY(UM_MODE_32, "\x66\xa3\x78\x56\x34\x12", &p, "\x66\x44\x89\x0f");
	COPY(UM_MODE_32, "\x82\xc1\x05", &p, "\x41\x80\xc4\x05");     /* add cl, 5 */
	COPY(UM_MODE_64, "\x64\x67\xf0\xff\x00", &p, "\xf0\xff\x07"); /* lock inc dword fs:[eax] */
	/* ... and vmovd xmm0, eax. */
	COPY(UM_MODE_32, "\xc4\xe1\xf9\x6e\xc0", &p, "\xc4\xc1\x79\x6e\xc1");
}

static void test_memory_forms(void **state)
{
	struct um_places p = { .gpr = IDENTITY };
	struct um_facts f;
	u8 out[UM_ENCODE_MAX];

	/* mov rax, [rbx]: bases that need SIB or a displacement. */
	for (unsigned base = 0; base < 16; base++) {
		static const s32 disps[] = { 0, 5, -128, 128, -70000 };

		for (unsigned n = 0; n < ARRAY_SIZE(disps); n++) {
			struct decoded d;
			unsigned len;

			assert_true(um_jit_analyse(UM_MODE_64, (const u8 *)"\x48\x8b\x03", 3, &f));
			p.base = (u8)base;
			p.disp = disps[n];
			len = um_jit_copy(&f, &p, out);
			assert_true(len && decode(UM_MODE_64, out, len, &d));
			assert_int_equal(ZydisRegisterGetId(d.ops[1].mem.base), base);
			assert_int_equal(d.ops[1].mem.disp.value, disps[n]);
		}
	}
	/* Not with AH in its place, and an implied register elsewhere. */
	assert_true(um_jit_analyse(UM_MODE_64, (const u8 *)"\x8a\x23", 2, &f)); /* mov ah, [rbx] */
	p.base = 7;
	assert_int_not_equal(um_jit_copy(&f, &p, out), 0);
	p.gpr[0] = 5;
	assert_int_equal(um_jit_copy(&f, &p, out), 0);
	assert_true(um_jit_analyse(UM_MODE_64, (const u8 *)"\xf7\xe1", 2, &f)); /* mul ecx */
	assert_int_equal(um_jit_copy(&f, &p, out), 0);
	/* bts [rbx], rcx */
	p.gpr[0] = 0;
	assert_true(um_jit_analyse(UM_MODE_64, (const u8 *)"\x48\x0f\xab\x0b", 4, &f));
	assert_true(f.bit_string && f.mem_size == 8);
	assert_int_equal(um_jit_copy(&f, &p, out), 0);
	p.bit_string = true;
	assert_int_not_equal(um_jit_copy(&f, &p, out), 0);
}

static void test_refused(void **state)
{
	REFUSED(UM_MODE_64, "\x0f\x0b");		 /* ud2 */
	REFUSED(UM_MODE_64, "\x0f\x05");		 /* syscall */
	REFUSED(UM_MODE_64, "\xcc");			 /* int3 */
	REFUSED(UM_MODE_64, "\xf4");			 /* hlt */
	REFUSED(UM_MODE_64, "\xeb\x00");		 /* jmp */
	REFUSED(UM_MODE_64, "\xff\xe0");		 /* jmp rax */
	REFUSED(UM_MODE_64, "\xff\xd0");		 /* call rax */
	REFUSED(UM_MODE_64, "\xc3");			 /* ret */
	REFUSED(UM_MODE_64, "\x50");			 /* push rax */
	REFUSED(UM_MODE_64, "\x8f\xc0");		 /* pop rax */
	REFUSED(UM_MODE_64, "\xa4");			 /* movsb */
	REFUSED(UM_MODE_64, "\xd7");			 /* xlat */
	REFUSED(UM_MODE_64, "\x9d");			 /* popfq */
	REFUSED(UM_MODE_64, "\xfa");			 /* cli */
	REFUSED(UM_MODE_64, "\xfc");			 /* cld */
	REFUSED(UM_MODE_64, "\xe4\x60");		 /* in */
	REFUSED(UM_MODE_64, "\x48\x8d\x03");		 /* lea */
	REFUSED(UM_MODE_64, "\x8c\xd8");		 /* mov eax, ds */
	REFUSED(UM_MODE_64, "\x8e\xd8");		 /* mov ds, eax */
	REFUSED(UM_MODE_64, "\x0f\x20\xc0");		 /* mov rax, cr0 */
	REFUSED(UM_MODE_64, "\x0f\xa2");		 /* cpuid */
	REFUSED(UM_MODE_64, "\x0f\x31");		 /* rdtsc */
	REFUSED(UM_MODE_64, "\x0f\x01\xd0");		 /* xgetbv */
	REFUSED(UM_MODE_64, "\xf3\x90");		 /* pause */
	REFUSED(UM_MODE_64, "\x0f\xae\x3b");		 /* clflush */
	REFUSED(UM_MODE_64, "\x0f\xae\x03");		 /* fxsave */
	REFUSED(UM_MODE_64, "\x66\x0f\xf7\xc1");	 /* maskmovdqu */
	REFUSED(UM_MODE_64, "\xc4\xe2\x69\x90\x04\x0b"); /* vpgatherdd */
	REFUSED(UM_MODE_64, "\x66\x0f\xc8");		 /* bswap ax */
	REFUSED(UM_MODE_64, "\xf0\x01\xc8");		 /* lock with a register */
	REFUSED(UM_MODE_64, "\xf3\x48\x0f\xae\xc0");	 /* rdfsbase */
	REFUSED(UM_MODE_32, "\x27");			 /* daa */
	REFUSED(UM_MODE_32, "\x62\x03");		 /* bound */
	REFUSED(UM_MODE_32, "\xc5\x03");		 /* lds */
	REFUSED(UM_MODE_32, "\x0f\xa8");		 /* push gs */
	REFUSED(UM_MODE_32, "\x67\x8b\x00");		 /* 16-bit address */
	REFUSED(UM_MODE_16, "\x01\xc8");
	REFUSED(UM_MODE_REAL, "\x01\xc8");
}

static void expect_nothing(const char *bytes, unsigned len)
{
	struct um_facts f;

	assert_true(um_jit_analyse(UM_MODE_64, (const u8 *)bytes, len, &f));
	assert_true(f.nothing && !f.reads && !f.writes && !f.mem_size && !f.flags_written);
}

static void test_nothing(void **state)
{
	expect_nothing("\x90", 1);
	expect_nothing("\x66\x90", 2);
	expect_nothing("\x0f\x1f\x84\x00\x00\x00\x00\x00", 8);
	expect_nothing("\x0f\x18\x0b", 3);     /* prefetcht0 */
	expect_nothing("\x0f\x0d\x0b", 3);     /* prefetchw */
	expect_nothing("\xf3\x0f\x1e\xfa", 4); /* endbr64 */
}

/* ---- a host that lacks something ---- */

struct lack {
	unsigned feature;
	const char *bytes;
	unsigned len;
};

static const struct lack lacks[] = {
	{ UM_F_BMI1, "\xf3\x0f\xbc\xc1", 4 },		  /* tzcnt */
	{ UM_F_ABM, "\xf3\x0f\xbd\xc1", 4 },		  /* lzcnt */
	{ UM_F_POPCNT, "\xf3\x0f\xb8\xc1", 4 },		  /* popcnt */
	{ UM_F_MOVBE, "\x0f\x38\xf0\x03", 4 },		  /* movbe */
	{ UM_F_CX16, "\x48\x0f\xc7\x0b", 4 },		  /* cmpxchg16b */
	{ UM_F_BMI1, "\xc4\xe2\x70\xf2\xc2", 5 },	  /* andn */
	{ UM_F_BMI2, "\xc4\xe2\x71\xf7\xc2", 5 },	  /* shlx */
	{ UM_F_ADX, "\x66\x0f\x38\xf6\xc1", 5 },	  /* adcx */
	{ UM_F_SSE4_2, "\xf2\x0f\x38\xf0\xc1", 5 },	  /* crc32 */
	{ UM_F_SSE4_1, "\x66\x0f\x38\x17\xc1", 5 },	  /* ptest */
	{ UM_F_AES, "\x66\x0f\x38\xdc\xc1", 5 },	  /* aesenc */
	{ UM_F_AVX, "\xc5\xf8\x58\xc1", 4 },		  /* vaddps xmm */
	{ UM_F_AVX2, "\xc5\xfd\xfe\xc1", 4 },		  /* vpaddd ymm */
	{ UM_F_FMA, "\xc4\xe2\x71\x98\xc2", 5 },	  /* vfmadd132ps */
	{ UM_F_AVX512F, "\x62\xf1\x7c\x48\x58\xc1", 6 },  /* vaddps zmm */
	{ UM_F_AVX512VL, "\x62\xf1\x7c\x08\x58\xc1", 6 }, /* vaddps xmm */
	{ UM_F_AVX512VL, "\x62\xf1\x7c\x48\x58\xc1", 6 }, /* vaddps zmm: all or nothing */
	{ UM_F_AVX512BW, "\xc4\xe1\xf5\x41\xc2", 5 },	  /* kandd */
	{ UM_F_RDRAND, "\x0f\xc7\xf0", 3 },		  /* rdrand */
};

static void test_lacking(void **state)
{
	for (unsigned n = 0; n < ARRAY_SIZE(lacks); n++) {
		const struct lack *l = &lacks[n];
		struct um_host host;
		struct um_facts f;

		memset(&host, 0xff, sizeof(host)); /* has all */
		assert_true(
			um_jit_analyse_for(&host, UM_MODE_64, (const u8 *)l->bytes, l->len, &f));
		host.features[l->feature / 64] &= ~BIT(l->feature % 64);
		assert_false(
			um_jit_analyse_for(&host, UM_MODE_64, (const u8 *)l->bytes, l->len, &f));
		/* What it has nothing to do with stays. */
		assert_true(um_jit_analyse_for(&host, UM_MODE_64, (const u8 *)"\x01\xc8", 2, &f));
	}
}

/* Nothing of a class without the state for it, or the feature. */
static void without_state(void *arg, const u8 *bytes)
{
	struct run *r = arg;
	struct um_facts f;
	struct decoded d;

	if (!decode(r->mode, bytes, 15, &d))
		return;
	r->bytes = bytes;
	r->len = d.z.length;
	if (!um_jit_analyse_for(&r->host, r->mode, bytes, r->len, &f)) {
		r->lost += um_jit_analyse(r->mode, bytes, r->len, &f);
		return;
	}
	r->copied++;
	CHECK(r, f.vec <= UM_VEC_CLASS_SSE || (r->host.states & XCR0_AVX));
	CHECK(r, f.vec <= UM_VEC_CLASS_AVX || (r->host.states & XCR0_AVX512) == XCR0_AVX512);
	CHECK(r, d.z.meta.isa_set != ZYDIS_ISA_SET_BMI2);
}

static void test_old_hosts(void **state)
{
	static const u64 states[] = { XCR0_X87 | XCR0_SSE, XCR0_X87 | XCR0_SSE | XCR0_AVX };

	for (unsigned n = 0; n < ARRAY_SIZE(states); n++) {
		struct gen g = { .rng = 77 };
		struct run r = { .g = &g, .mode = UM_MODE_64, .host = *um_host() };

		r.host.features[UM_F_BMI2 / 64] &= ~BIT(UM_F_BMI2 % 64);
		r.host.states &= states[n];
		gen_all(&g, true, 1, without_state, &r);
		assert_true(r.copied > 10000);
		if (um_host()->states & ~states[n] & (XCR0_AVX | XCR0_AVX512))
			assert_true(r.lost > 1000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_64bit),	cmocka_unit_test(test_32bit),
		cmocka_unit_test(test_forms),	cmocka_unit_test(test_memory_forms),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_lacking), cmocka_unit_test(test_old_hosts),
		cmocka_unit_test(test_cached),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

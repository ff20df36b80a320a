// SPDX-License-Identifier: MIT
/*
 * Loading and storing the guest's vector registers (engine/jit/vec.h), on the host: from one
 * context, and from its registers into another.  General registers and flags must stay.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/xsave.h"
#include "engine/jit/jit.h"
#include "engine/jit/vec.h"
#include "gen.h"

#define NGPR 14 /* all but rsp, rbp */

/* What the code under test runs with. */
static struct {
	u64 rbp[2]; /* contexts of the first and the second piece of code */
	u64 gpr[NGPR], flags;
	u64 gpr_out[NGPR], flags_out;
} io;

static u8 *code;
static struct gen rng = { .rng = 0xfeedface12345 };

static const u8 numbers[NGPR] = { 0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

static void put(struct um_emit *e, const char *bytes, unsigned n)
{
	um_emit_bytes(e, bytes, n);
}
#define PUT(e, bytes) put(e, bytes, sizeof(bytes) - 1)

/* MOV register @r from or to absolute @p: rbp is the base, and lost. */
static void move(struct um_emit *e, bool store, unsigned r, u64 *p)
{
	um_emit_mov_imm(e, H_RBP, (u64)(uintptr_t)p);
	if (store)
		um_emit_store(e, 1, r, H_RBP, 0);
	else
		um_emit_load(e, 1, r, H_RBP, 0);
}

/* Run @n pieces of code, the last one with the second context, the others with the first. */
static void run(const u8 (*pieces)[UM_VEC_EMIT_MAX], const unsigned *len, unsigned n)
{
	struct um_emit e = { .p = code, .end = code + 8 * UM_PAGE_SIZE };
	void (*fn)(void) = (void (*)(void))(void *)code;

	PUT(&e, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57"); /* push rbx, rbp, r12-r15 */
	um_emit_mov_imm(&e, H_RBP, (u64)(uintptr_t)&io.flags);
	PUT(&e, "\xff\x75\x00\x9d"); /* push [rbp]; popfq */
	for (unsigned r = 0; r < NGPR; r++)
		move(&e, false, numbers[r], &io.gpr[r]);
	for (unsigned k = 0; k < n; k++) {
		um_emit_mov_imm(&e, H_RBP, io.rbp[k == n - 1]);
		um_emit_bytes(&e, pieces[k], len[k]);
	}
	for (unsigned r = 0; r < NGPR; r++)
		move(&e, true, numbers[r], &io.gpr_out[r]);
	um_emit_mov_imm(&e, H_RBP, (u64)(uintptr_t)&io.flags_out);
	PUT(&e, "\x9c\x8f\x45\x00"); /* pushfq; pop [rbp] */
	PUT(&e, "\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3");
	assert_false(e.full);
	for (unsigned r = 0; r < NGPR; r++)
		io.gpr[r] = gen_rnd(&rng);
	io.flags = (gen_rnd(&rng) & RFLAGS_STATUS) | 0x202;
	fn();
	assert_memory_equal(io.gpr, io.gpr_out, sizeof(io.gpr));
	assert_int_equal(io.flags & RFLAGS_STATUS, io.flags_out & RFLAGS_STATUS);
}

static struct um_exec *context(void)
{
	struct um_exec *x = aligned_alloc(64, (sizeof(*x) + 63) & ~63ul);
	u64 *p = (u64 *)&x->cpu.fpu;

	memset(x, 0, sizeof(*x));
	for (size_t n = 0; n < sizeof(x->cpu.fpu) / 8; n++)
		p[n] = gen_rnd(&rng);
	x->cpu.fpu.mxcsr = 0x1f80;
	return x;
}

static void restore_mxcsr(struct um_exec *x)
{
	assert_true(x->mxcsr_live);
	asm volatile("ldmxcsr %0" ::"m"(x->host_mxcsr));
	x->mxcsr_live = false;
}

/* The invariant: a component that is not in use is zero. */
static void set_in_use(struct um_exec *x, u64 xinuse)
{
	x->cpu.fpu.xinuse = xinuse;
	for (unsigned r = 0; r < 16; r++) {
		if (!(xinuse & XCR0_ZMM_HI256))
			memset(x->cpu.fpu.zmm[r] + 32, 0, 32);
		if (!(xinuse & XCR0_AVX))
			memset(x->cpu.fpu.zmm[r] + 16, 0, 16);
	}
}

/* Is @b's state @a's, as far as class @c goes, and untouched beyond? */
static void expect_moved(const struct um_exec *a, const struct um_exec *b,
			 const struct um_fpu *before, enum um_vec_class c)
{
	static const unsigned bytes[] = { 0, 16, 32, 64 };
	unsigned n = bytes[c];

	if (c == UM_VEC_CLASS_AVX && (a->cpu.fpu.xinuse & XCR0_ZMM_HI256))
		n = 64;
	for (unsigned r = 0; r < 32; r++) {
		unsigned m = r < 16 || c == UM_VEC_CLASS_AVX512 ? n : 0;

		assert_memory_equal(b->cpu.fpu.zmm[r], a->cpu.fpu.zmm[r], m);
		assert_memory_equal(b->cpu.fpu.zmm[r] + m, before->zmm[r] + m, 64 - m);
	}
	assert_memory_equal(b->cpu.fpu.k, c == UM_VEC_CLASS_AVX512 ? a->cpu.fpu.k : before->k,
			    sizeof(before->k));
}

static const u64 in_use[] = {
	0,	     XCR0_SSE,	    XCR0_SSE | XCR0_AVX,   XCR0_SSE | XCR0_AVX | XCR0_AVX512,
	XCR0_AVX512, XCR0_HI16_ZMM, XCR0_OPMASK | XCR0_X87
};

static void move_all(enum um_vec_class c, u64 xinuse)
{
	static u8 piece[2][UM_VEC_EMIT_MAX];
	struct um_exec *a = context(), *b = context();
	struct um_fpu before = b->cpu.fpu;
	unsigned len[2];

	set_in_use(a, xinuse);
	io.rbp[0] = (u64)(uintptr_t)a + UM_JIT_BIAS;
	io.rbp[1] = (u64)(uintptr_t)b + UM_JIT_BIAS;
	len[0] = um_vec_emit_load(piece[0], UM_VEC_CLASS_NONE, c);
	len[1] = um_vec_emit_store(piece[1], c);
	assert_in_range(len[0], 1, UM_VEC_EMIT_MAX - 1);
	assert_in_range(len[1], 1, UM_VEC_EMIT_MAX - 1);
	/* What the load found decides what is stored. */
	b->jit.vec_zmm = (xinuse & XCR0_ZMM_HI256) != 0;
	run(piece, len, 2);
	restore_mxcsr(a);
	if (c == UM_VEC_CLASS_AVX && um_vec_host_class(um_host()) == UM_VEC_CLASS_AVX512)
		assert_int_equal(!!a->jit.vec_zmm, !!(xinuse & XCR0_ZMM_HI256));
	expect_moved(a, b, &before, c);
	free(a);
	free(b);
}

static void test_moves(void **state)
{
	enum um_vec_class most = um_vec_host_class(um_host());

	for (unsigned c = UM_VEC_CLASS_SSE; c <= most; c++) {
		for (unsigned n = 0; n < ARRAY_SIZE(in_use); n++) {
			u64 has = um_vec_states(most) | XCR0_X87;

			if (!(in_use[n] & ~has))
				move_all(c, in_use[n]);
		}
	}
}

/* From a class to the next: what is in the registers counts, not what memory has of it. */
static void upgrade(enum um_vec_class have, enum um_vec_class want)
{
	static u8 piece[4][UM_VEC_EMIT_MAX];
	struct um_exec *a = context(), *b = context();
	struct um_fpu before = b->cpu.fpu, was;
	unsigned len[4];

	set_in_use(a, um_vec_states(um_vec_host_class(um_host())) & ~XCR0_ZMM_HI256);
	was = a->cpu.fpu;
	io.rbp[0] = (u64)(uintptr_t)a + UM_JIT_BIAS;
	io.rbp[1] = (u64)(uintptr_t)b + UM_JIT_BIAS;
	len[0] = um_vec_emit_load(piece[0], UM_VEC_CLASS_NONE, have);
	memcpy(piece[1], "\x0f\x57\xdb", 3); /* xorps xmm3, xmm3 */
	len[1] = 3;
	len[2] = um_vec_emit_load(piece[2], have, want);
	len[3] = um_vec_emit_store(piece[3], want);
	b->jit.vec_zmm = 0;
	run(piece, len, 4);
	restore_mxcsr(a);
	memset(was.zmm[3], 0, 16);
	assert_memory_equal(a->cpu.fpu.zmm, was.zmm, sizeof(was.zmm));
	expect_moved(a, b, &before, want);
	free(a);
	free(b);
}

static void test_upgrades(void **state)
{
	enum um_vec_class most = um_vec_host_class(um_host());
	u8 out[UM_VEC_EMIT_MAX];

	for (unsigned want = UM_VEC_CLASS_AVX; want <= most; want++) {
		for (unsigned have = UM_VEC_CLASS_SSE; have < want; have++)
			upgrade(have, want);
	}
	assert_int_equal(um_vec_emit_load(out, UM_VEC_CLASS_AVX, UM_VEC_CLASS_AVX), 0);
	assert_int_equal(um_vec_emit_load(out, UM_VEC_CLASS_AVX, UM_VEC_CLASS_SSE), 0);
	assert_int_equal(um_vec_emit_store(out, UM_VEC_CLASS_NONE), 0);
}

/* XINUSE, after code that is of no consequence but for that: into cpu.rip. */
static unsigned xgetbv_1(u8 *out)
{
	struct um_emit e = { .p = out, .end = out + UM_VEC_EMIT_MAX };

	PUT(&e,
	    "\x50\x51\x52\xb9\x01\0\0\0\x0f\x01\xd0"); /* push rax, rcx, rdx; mov ecx, 1; xgetbv */
	um_emit_store(&e, 0, H_RAX, H_RBP, (s32)(offsetof(struct um_exec, cpu.rip) - UM_JIT_BIAS));
	PUT(&e, "\x5a\x59\x58");
	return (unsigned)(e.p - out);
}

/* Upper halves that are zero are clean, in use or not, whatever was there before. */
static void test_clean(void **state)
{
	enum um_vec_class most = um_vec_host_class(um_host());
	static u8 piece[3][UM_VEC_EMIT_MAX];
	struct um_exec *a = context();
	unsigned len[3];

	if (most < UM_VEC_CLASS_AVX || !um_host_feature(um_host(), UM_F_XGETBV1))
		skip();
	set_in_use(a, 0);
	io.rbp[0] = io.rbp[1] = (u64)(uintptr_t)a + UM_JIT_BIAS;
	for (unsigned c = UM_VEC_CLASS_AVX; c <= most; c++) {
		memcpy(piece[0], "\xc5\xf8\x77", 3); /* vzeroupper */
		len[0] = 3;
		len[1] = xgetbv_1(piece[1]);
		run(piece, len, 2);
		if (a->cpu.rip & (XCR0_AVX | XCR0_ZMM_HI256))
			skip(); /* a processor that takes them to be in use always */
		for (unsigned used = 0; used < 2; used++) {
			a->cpu.fpu.xinuse = used ? um_vec_states(c) : 0;
			len[0] = um_vec_emit_load(piece[0], UM_VEC_CLASS_NONE, c);
			len[2] = um_vec_emit_store(piece[2], c);
			run(piece, len, 3);
			restore_mxcsr(a);
			assert_int_equal(a->cpu.rip & (XCR0_AVX | XCR0_ZMM_HI256), 0);
		}
		/* One bit of one register counts. */
		for (unsigned r = 0; r < 16; r++) {
			for (unsigned byte = 16; byte < (most == UM_VEC_CLASS_AVX512 ? 64 : 32);
			     byte++) {
				a->cpu.fpu.xinuse = um_vec_states(most);
				a->cpu.fpu.zmm[r][byte] = (u8)(1 << (byte + r) % 8);
				len[0] = um_vec_emit_load(piece[0], UM_VEC_CLASS_NONE, c);
				len[2] = um_vec_emit_store(piece[2], c);
				run(piece, len, 3);
				restore_mxcsr(a);
				assert_int_not_equal(a->cpu.rip & (XCR0_AVX | XCR0_ZMM_HI256), 0);
				assert_int_equal(a->cpu.fpu.zmm[r][byte], 1 << (byte + r) % 8);
				a->cpu.fpu.zmm[r][byte] = 0;
			}
		}
	}
	free(a);
}

/* The guest's MXCSR, without bits that would be #GP; once only. */
static void test_mxcsr(void **state)
{
	static u8 piece[2][UM_VEC_EMIT_MAX];
	struct um_exec *a = context();
	unsigned len[2];
	u32 host, now;

	asm volatile("stmxcsr %0" : "=m"(host));
	set_in_use(a, 0);
	a->cpu.fpu.mxcsr = 0xabcd7f80; /* rounding toward zero */
	io.rbp[0] = io.rbp[1] = (u64)(uintptr_t)a + UM_JIT_BIAS;
	len[0] = um_vec_emit_load(piece[0], UM_VEC_CLASS_NONE, UM_VEC_CLASS_SSE);
	len[1] = 0;
	run(piece, len, 2);
	asm volatile("stmxcsr %0" : "=m"(now));
	assert_int_equal(now, 0x7f80);
	assert_int_equal(a->host_mxcsr, host);
	/* It is live now, and may be newer than cpu.fpu. */
	a->cpu.fpu.mxcsr = 0x1f80;
	run(piece, len, 2);
	asm volatile("stmxcsr %0" : "=m"(now));
	assert_int_equal(now, 0x7f80);
	restore_mxcsr(a);
	assert_int_equal(a->host_mxcsr, host);
	free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_upgrades),
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_mxcsr),
	};

	code = mmap(NULL, 8 * UM_PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

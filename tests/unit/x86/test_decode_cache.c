// SPDX-License-Identifier: MIT
/*
 * The cache of decoded instructions against the decoder: random instructions, and others that begin
 * like them but have other bytes behind, must come out the same by both, field by field.  Usage:
 * test-x86-decode-cache [rounds]: each is about 300,000 instructions; by default 4.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "x86/decode_cache.h"

/* What um_decode() fills: all but fn and aux, and without the padding. */
#define FIRST offsetof(struct um_insn, imm)
#define SIZE  (offsetof(struct um_insn, plain) + 1 - FIRST)

static unsigned rounds = 4;
static u64 rng = 88172645463325252ull;

static struct um_decode_cache cache;
static u64 hits, total, plain, known;

static u64 next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static unsigned below(unsigned n)
{
	return (unsigned)((next() >> 33) % n);
}

/* Some have more ones, or more zeroes, than chance gives them. */
static void fill(u8 *b, unsigned n)
{
	static const u8 edge[] = { 0, 1, 0x7f, 0x80, 0xff, 0x40, 0x66, 0x05, 0x25, 0xc0 };

	for (unsigned k = 0; k < n; k++)
		b[k] = below(4) ? (u8)(next() >> 20) : edge[below(sizeof(edge))];
}

static void differ(enum um_mode mode, const u8 *b, unsigned avail, const char *what)
{
	char hex[64], *p = hex;

	for (unsigned k = 0; k < 15; k++)
		p += sprintf(p, "%02x", b[k]);
	fail_msg("mode %d, %s, %u of them: %s", (int)mode, hex, avail, what);
}

/* Decode the 15 bytes by both ways, as if @avail of them were there. */
static void compare(enum um_mode mode, const u8 *b, unsigned avail)
{
	struct um_decode_entry *entry;
	struct um_insn a = { 0 }, c = { 0 };
	u16 off = (u16)below(4096);
	unsigned len = um_decode(&a, mode, b, avail, off);
	/*
	 * What is behind those bytes must not be looked at: it is other memory here, which
	 * sanitizers watch.
	 */
	u8 *own = malloc(avail);
	u64 before = hits;

	memcpy(own, b, avail);
	hits += um_insn_head(mode, own, avail).len > 0;
	if (um_decode_cached(&cache, &c, mode, own, avail, off, &entry) != len)
		differ(mode, b, avail, "another length");
	free(own);
	known += hits - before;
	hits = before;
	total++;
	if (!len)
		return;
	if (memcmp((char *)&a + FIRST, (char *)&c + FIRST, SIZE))
		differ(mode, b, avail, "other fields");
	if (!!entry != (a.plain && um_insn_head(mode, b, avail).len))
		differ(mode, b, avail, "kept, or not");
	plain += a.plain;
	if (!entry)
		return;
	/* Who is bound stays so. */
	if (c.fn) {
		hits++;
		assert_ptr_equal(c.aux, (void *)(size_t)c.op);
		return;
	}
	assert_null(c.aux);
	c.fn = (um_insn_fn)(size_t)1;
	c.aux = (void *)(size_t)c.op;
	um_decode_keep(entry, &c);
}

/* What begins like @b: with other bytes behind the @head first ones. */
static void compare_kin(enum um_mode mode, const u8 *b, unsigned head)
{
	unsigned more = head + 1;
	u8 kin[15];

	for (unsigned k = 0; k < 4; k++) {
		memcpy(kin, b, 15);
		if (k)
			fill(kin + head, 15 - head);
		compare(mode, kin, k == 2 ? 1 + below(15) : 15);
	}
	/* Near its end. */
	compare(mode, kin, um_max(head, 1u));
	more += below(4);
	compare(mode, kin, um_min(more, 15u));
}

static bool is_control(const struct um_insn *i)
{
	return i->kind[0] == UM_OPD_CR || i->kind[0] == UM_OPD_DR || i->kind[1] == UM_OPD_CR ||
	       i->kind[1] == UM_OPD_DR;
}

static void test_one(enum um_mode mode, const u8 *b)
{
	struct um_insn i = { 0 };
	struct um_insn_head h = um_insn_head(mode, b, 15);

	um_decode(&i, mode, b, 15, 0);
	/*
	 * (What the head has too much of keeps the key from being common, but not from being
	 * right.)
	 */
	compare_kin(mode, b, h.len ? h.len : i.len);
	/*
	 * (MOV to and from control and debug registers has no operand in memory, whatever its ModRM
	 * says.)
	 */
	if (h.len && i.plain &&
	    h.len > (i.disp_len	 ? i.disp_at
		     : i.imm_len ? i.imm_at
				 : i.len) &&
	    !is_control(&i))
		differ(mode, b, 15, "its beginning is too long");
}

/* Every opcode of the four maps, by each prefix that may select another instruction. */
static void test_opcodes(void **state)
{
	static const u8 prefixes[] = { 0, 0x66, 0xf2, 0xf3, 0x67, 0x48, 0x4d };

	for (unsigned r = 0; r < rounds; r++) {
		for (unsigned n = 0; n < 4 * 4 * 256 * sizeof(prefixes); n++) {
			enum um_mode mode = (enum um_mode)(n & 3);
			unsigned map = (n >> 2) & 3, op = (n >> 4) & 255, at = 0;
			u8 b[15], prefix = prefixes[n >> 12];

			fill(b, sizeof(b));
			if (prefix)
				b[at++] = prefix;
			if (map)
				b[at++] = 0x0f;
			if (map > 1)
				b[at++] = map == 2 ? 0x38 : 0x3a;
			b[at] = (u8)op;
			test_one(mode, b);
		}
	}
}

/* VEX and EVEX, whose bits mean so much. */
static void test_vex(void **state)
{
	for (unsigned n = 0; n < rounds * 12000; n++) {
		enum um_mode mode = n & 1 ? UM_MODE_64 : (enum um_mode)below(4);
		unsigned at = 0;
		u8 b[15];

		fill(b, sizeof(b));
		if (!below(4))
			b[at++] = 0x67;
		switch (below(3)) {
		case 0:
			b[at] = 0xc5;
			b[at + 1] |= mode == UM_MODE_64 ? 0 : 0xc0;
			break;
		case 1:
			b[at] = 0xc4;
			b[at + 1] = (u8)((b[at + 1] & 0xe0) | (mode == UM_MODE_64 ? 0 : 0xc0) |
					 (below(8) ? 1 + below(3) : below(32)));
			break;
		default:
			b[at] = 0x62;
			b[at + 1] = (u8)((b[at + 1] & 0xf0) | (mode == UM_MODE_64 ? 0 : 0xc0) |
					 (below(8) ? 1 + below(3) : below(8)));
			b[at + 2] |= 4;
			break;
		}
		test_one(mode, b);
	}
}

static void test_random(void **state)
{
	static const u8 prefixes[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67,
				       0xf0, 0xf2, 0xf3, 0x48, 0x41, 0x8f, 0x0f };

	for (unsigned n = 0; n < rounds * 12000; n++) {
		u8 b[15];

		fill(b, sizeof(b));
		for (unsigned k = 0; k < sizeof(b) && below(3); k++)
			b[k] = prefixes[below(sizeof(prefixes))];
		test_one((enum um_mode)(n & 3), b);
	}
	/* It was the cache that answered. */
	print_message("%llu instructions, %llu plain, of %llu the beginning was known, %llu from "
		      "the cache\n",
		      (unsigned long long)total, (unsigned long long)plain,
		      (unsigned long long)known, (unsigned long long)hits);
	assert_true(hits > total / 4 && hits > plain / 2);
}

static void test_forget(void **state)
{
	static const u8 nop[15] = { 0x90 };
	struct um_decode_entry *entry;
	struct um_insn i;

	compare(UM_MODE_64, nop, 15);
	um_decode_cached(&cache, &i, UM_MODE_64, nop, 15, 0, &entry);
	assert_non_null(i.fn);
	um_decode_forget(&cache);
	um_decode_cached(&cache, &i, UM_MODE_64, nop, 15, 0, &entry);
	assert_null(i.fn);
	assert_non_null(entry);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opcodes),
		cmocka_unit_test(test_vex),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_forget),
	};

	if (argc > 1)
		rounds = (unsigned)um_max(atoi(argv[1]), 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Random instructions.
 *
 * Bytes drawn evenly are mostly #UD or plain arithmetic, so the kinds are drawn first: templates of
 * system and other intricate instructions, short sequences that load what such an instruction
 * needs, and any opcode of any map with a plausible rest.
 *
 * A template is text: pairs of hexadecimal digits are bytes; the letters are
 *   M, E, R  ModRM with any operand, one in memory, a register; "/n" before it fixes the reg field
 *   B, W, Z, Q  an immediate of 8, 16, 16 or 32 bits, 64 bits
 *   P        a far pointer
 */
#include "code.h"

struct emitter {
	struct rng *r;
	uint8_t *p, *end;
	unsigned bits;
};

static const char *const system_templates[] = {
	/* descriptor tables, segments */
	"0f01/0E",
	"0f01/1E",
	"0f01/2E",
	"0f01/3E",
	"0f01/4M",
	"0f01/6M",
	"0f01/7E",
	"0f00/0M",
	"0f00/1M",
	"0f00/2M",
	"0f00/3M",
	"0f00/4M",
	"0f00/5M",
	"0f02M",
	"0f03M",
	"8e/0M",
	"8e/2M",
	"8e/3M",
	"8e/4M",
	"8e/5M",
	"8cM",
	"1f",
	"07",
	"17",
	"0fa1",
	"0fa9",
	"c4E",
	"c5E",
	"0fb2E",
	"0fb4E",
	"0fb5E",
	"63M",
	"62E",
	/* control and debug registers, caches, TLB */
	"0f06",
	"0f20R",
	"0f22R",
	"0f21R",
	"0f23R",
	"0f08",
	"0f09",
	"0f01f8",
	"0f01f9",
	"660f3882E",
	"0faef8",
	"0faef0",
	"0fae/7E",
	"660fae/7E",
	"0f01e8",
	/* MSRs, counters, XCR0, hints */
	"0f30",
	"0f32",
	"0f31",
	"0f33",
	"0fa2",
	"0f01d0",
	"0f01d1",
	"0f01c8",
	"0f01c9",
	"0f01ee",
	"0f01ef",
	"f390",
	"0f01ca",
	"0f01cb",
	"f30fc7R",
	"f30fae/0R",
	"f30fae/1R",
	"f30fae/2R",
	"f30fae/3R",
	/* virtualization's, power, SMM */
	"0f01c1",
	"0f01d9",
	"0f01d8",
	"0f01df",
	"0faa",
	"f4",
	"f1",
	/* flags */
	"fa",
	"fb",
	"fbf4",
	"9c",
	"9d",
	"ccfb",
	"fd",
	"fc",
	"8ed0",
	"17cf",
	/* I/O */
	"e4B",
	"e5B",
	"e6B",
	"e7B",
	"ec",
	"ed",
	"ee",
	"ef",
	"6c",
	"6d",
	"6e",
	"6f",
	"f36c",
	"f36d",
	"f36e",
	"f36f",
	"f26f",
};

static const char *const transfer_templates[] = {
	"cf",	"48cf",	 "66cf",  "cb",	     "caW",	"48cb",	 "c3",	   "c2W",  "eaP",
	"9aP",	"ff/3E", "ff/5E", "48ff/3E", "48ff/5E", "ff/2M", "ff/4M",  "cdB",  "cc",
	"ce",	"0f05",	 "0f07",  "480f07",  "0f34",	"0f35",	 "480f35", "c8WB", "c9",
	"ebB",	"e8Z",	 "7eB",	  "e2B",     "e3B",	"0fb9M", "0f0b",   "60",   "61",
	"f3c3", "ffM",	 "feM",	  "8f/0M",   "0fff",	"c7f8Z", "c6f8B",  "54",   "5c",
};

static const char *const memory_templates[] = {
	/* strings */
	"f3a4",
	"f3a5",
	"f348a5",
	"f3aa",
	"f3ab",
	"f348ab",
	"f3ac",
	"f3a6",
	"f2a7",
	"f3ae",
	"f2af",
	"a4",
	"a5",
	"a6",
	"a7",
	"aa",
	"ab",
	"ac",
	"ad",
	"ae",
	"67f3a5",
	"d7",
	/* locked */
	"f00fb1E",
	"f0480fb1E",
	"f00fc7/1E",
	"f0480fc7/1E",
	"f00fc1E",
	"f001E",
	"f081/4EZ",
	"87E",
	"f00fabE",
	"f00fbbE",
	"f0ff/0E",
	"f0ff/1E",
	"0fbaE",
	"0fa3E",
	"0fabE",
	"f0f7/2E",
	/* state */
	"0fae/0E",
	"0fae/1E",
	"0fae/2E",
	"0fae/3E",
	"0fae/4E",
	"0fae/5E",
	"0fae/6E",
	"480fae/4E",
	"480fae/5E",
	"0fc7/3E",
	"0fc7/4E",
	"0fc7/5E",
	"0fc7/6M",
	"0fc7/7M",
	"dd/4E",
	"dd/6E",
	"d9/4E",
	"d9/6E",
	"9bd9/7E",
	"d9/5E",
	"df/4E",
	"db/5E",
	"db/7E",
	"d9/3E",
	"dbe3",
	"9b",
	"dbe2",
	"0f77",
	/* wide and masked operands */
	"0f29E",
	"0f10M",
	"660fe7E",
	"0f2bE",
	"c5f877",
	"c5fd6fM",
	"c5fd7fM",
	"c4e27d8eE",
	"c4e2f990E",
	"c4e27592E",
	"62f17d48e7E",
	"62f27d4990E",
	"62f27d49a0E",
	"62f1fe496fM",
	"62f1fe497fM",
	"62f27d4988E",
	"62f27d498aE",
	"660ff7R",
	"0ff7R",
	"c5f9f7R",
	"f2480ff0E",
	"f30f38f8E",
	"660f38f8E",
	"0f38f9E",
	"0f38f1E",
	"0f0d/1E",
	"0f18/0E",
	"0fc3E",
};

static void byte(struct emitter *e, unsigned b)
{
	if (e->p < e->end)
		*e->p++ = (uint8_t)b;
}

static void bytes(struct emitter *e, uint64_t v, unsigned n)
{
	while (n--) {
		byte(e, (unsigned)(v & 0xff));
		v >>= 8;
	}
}

uint64_t fuzz_code_address(struct rng *r)
{
	uint64_t at = CODE_ADDR + rng_below(r, CODE_SIZE / CODE_BLOCK) * CODE_BLOCK;

	if (rng_one_in(r, 32))
		at += rng_below(r, CODE_BLOCK);
	else if (rng_one_in(r, 32))
		at += ROM_ADDR - CODE_ADDR;
	return at;
}

uint16_t fuzz_selector(struct rng *r)
{
	if (rng_one_in(r, 16))
		return (uint16_t)rng64(r);
	if (rng_one_in(r, 16))
		return (uint16_t)(rng_below(r, 8) << 3 | 4 | rng_below(r, 4));
	return (uint16_t)(rng_below(r, GDT_ENTRIES) << 3 |
			  (rng_one_in(r, 2) ? rng_below(r, 4) : 0));
}

uint64_t fuzz_value(struct rng *r)
{
	static const uint64_t places[] = { GDT_ADDR,   IDT_ADDR,   TSS_ADDR,	     LDT_ADDR,
					   STACK_ADDR, CODE_ADDR,  PT_ADDR,	     DATA_ADDR,
					   ROM_ADDR,   ALIAS_ADDR, HIGH_ADDR,	     RAM_SIZE,
					   0xfee00000, 0xfec00000, 0x500000 - 0x1000 };
	static const uint64_t edges[] = { 0,
					  1,
					  2,
					  8,
					  0x7f,
					  0xff,
					  0xffff,
					  0x10000,
					  0x7fffffff,
					  0x80000000,
					  0xffffffff,
					  0x7ffffffff000,
					  0x7fffffffffff,
					  0x800000000000,
					  0xffff800000000000,
					  0xffffffff80000000,
					  0xfffffffffffff000,
					  ~0ull,
					  1ull << 45,
					  1ull << 52,
					  1ull << 63 };

	switch (rng_below(r, 8)) {
	case 0:
		return rng_pick(r, edges);
	case 1:
		return rng_pick(r, edges) - rng_below(r, 64);
	case 2: /* around a page's end */
		return rng_pick(r, places) + 0x1000 - rng_below(r, 64);
	case 3:
		return rng64(r);
	case 4:
		return fuzz_code_address(r);
	case 5:
		return rng_below(r, 0x1000);
	case 6: /* page tables through themselves and the upper half */
		return 0xffff800000000000 | rng_below(r, 0x40000000);
	default:
		return rng_pick(r, places) + rng_below(r, 0x10000);
	}
}

uint32_t fuzz_msr(struct rng *r)
{
	static const uint32_t msrs[] = {
		0x10,	    0x1b,	0x3a,	    0x3b,	0x48,	    0x49,	0x8b,
		0xc1,	    0xfe,	0x10a,	    0x10b,	0x122,	    0x174,	0x175,
		0x176,	    0x179,	0x17a,	    0x17b,	0x186,	    0x198,	0x199,
		0x1a0,	    0x1d9,	0x1db,	    0x200,	0x201,	    0x20f,	0x250,
		0x258,	    0x26f,	0x277,	    0x2ff,	0x345,	    0x38d,	0x38f,
		0x400,	    0x401,	0x402,	    0x403,	0x480,	    0x48b,	0x600,
		0x6e0,	    0xda0,	0x11,	    0x12,	0x4b564d00, 0x4b564d01, 0x4b564d02,
		0x4b564d03, 0x4b564d04, 0x4b564d05, 0x4b564d06, 0x4b564d07, 0x4b564d08, 0x40000000,
		0x40000001, 0x40000020, 0x40000073, 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083,
		0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0010015, 0xc001001f,
		0xc0010117, 0xc001102a,
	};

	if (rng_one_in(r, 8))
		return 0x800 + rng_below(r, 0x40); /* x2APIC */
	return rng_one_in(r, 32) ? (uint32_t)rng64(r) : rng_pick(r, msrs);
}

uint64_t fuzz_cr(struct rng *r, unsigned n)
{
	uint64_t v;

	switch (n) {
	case 0: /* PE, PG and WP are what the rest depends on */
		v = 0x80010033;
		if (rng_one_in(r, 4))
			v &= ~0x80000000ull;
		if (rng_one_in(r, 8))
			v &= ~1ull;
		if (rng_one_in(r, 4))
			v ^= 1ull << (rng_one_in(r, 16) ? rng_below(r, 64) : rng_below(r, 32));
		return rng_one_in(r, 3) ? v ^ 0x10000 : v;
	case 3:
		v = PT_ADDR + (rng_below(r, PT_PAGES) << 12);
		if (rng_one_in(r, 8))
			v += ROM_ADDR - CODE_ADDR;
		if (rng_one_in(r, 16))
			v = fuzz_value(r);
		if (rng_one_in(r, 4))
			v |= rng_below(r, 0x1000);
		return rng_one_in(r, 16) ? v | 1ull << 63 : v;
	case 4:
		v = 0x406f0 | (rng64(r) & 0x731c0f);
		if (rng_one_in(r, 8))
			v ^= 1ull << (rng_one_in(r, 16) ? rng_below(r, 64) : rng_below(r, 24));
		return rng_one_in(r, 8) ? v ^ 0x20 : v;
	case 8:
		return rng_below(r, rng_one_in(r, 16) ? 256 : 16);
	default:
		return fuzz_value(r);
	}
}

uint64_t fuzz_efer(struct rng *r)
{
	uint64_t v = 0x501 | (rng_one_in(r, 4) ? 0 : 0x800);

	return rng_one_in(r, 4) ? v ^ 1ull << rng_below(r, 16) : v;
}

/* mov @reg, @v, as wide as the mode allows. */
static void load(struct emitter *e, unsigned reg, uint64_t v)
{
	if (e->bits == 64 && (v >> 32 || rng_one_in(e->r, 4))) {
		byte(e, 0x48 | reg >> 3);
		byte(e, 0xb8 | (reg & 7));
		bytes(e, v, 8);
		return;
	}
	if (e->bits == 64 && reg >= 8)
		byte(e, 0x41);
	if (e->bits == 16)
		byte(e, 0x66);
	byte(e, 0xb8 | (reg & 7));
	bytes(e, v, 4);
}

static unsigned any_reg(struct emitter *e)
{
	return rng_below(e->r, e->bits == 64 ? 16 : 8);
}

static void displacement(struct emitter *e, unsigned n)
{
	if (n == 1)
		byte(e, rng_below(e->r, 256));
	else
		bytes(e, fuzz_value(e->r), n);
}

/* ModRM, SIB and displacement (SDM vol. 2 2.1.5), as addresses of the mode have them. */
static void modrm(struct emitter *e, char kind, int reg)
{
	unsigned mod = kind == 'R' ? 3 : kind == 'E' ? rng_below(e->r, 3) : rng_below(e->r, 4);
	unsigned rm = rng_below(e->r, 8);

	if (reg < 0)
		reg = (int)rng_below(e->r, 8);
	byte(e, mod << 6 | (unsigned)reg << 3 | rm);
	if (mod == 3)
		return;
	if (e->bits == 16) {
		if (mod == 1)
			displacement(e, 1);
		else if (mod == 2 || rm == 6)
			displacement(e, 2);
		return;
	}
	if (rm == 4) {
		unsigned sib = rng_below(e->r, 256);

		byte(e, sib);
		if (!mod && (sib & 7) == 5)
			displacement(e, 4);
	}
	if (mod == 1)
		displacement(e, 1);
	else if (mod == 2 || (!mod && rm == 5))
		displacement(e, 4);
}

static unsigned hex(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void template(struct emitter *e, const char *t)
{
	int reg = -1;

	if (e->bits == 64 && rng_one_in(e->r, 3) && !(t[0] == '4' && t[1] == '8') && t[0] != 'c')
		byte(e, 0x40 | rng_below(e->r, 16));
	while (*t) {
		switch (*t) {
		case '/':
			reg = t[1] - '0';
			t += 2;
			continue;
		case 'M':
		case 'E':
		case 'R':
			modrm(e, *t, reg);
			break;
		case 'B':
			byte(e, rng_below(e->r, 256));
			break;
		case 'W':
			bytes(e, rng_below(e->r, rng_one_in(e->r, 4) ? 0x10000 : 64), 2);
			break;
		case 'Z': /* short ways mostly: a jump far away ends the show */
			bytes(e, rng_below(e->r, 0x400), e->bits == 16 ? 2 : 4);
			break;
		case 'Q':
			bytes(e, fuzz_value(e->r), 8);
			break;
		case 'P':
			bytes(e, fuzz_code_address(e->r), e->bits == 16 ? 2 : 4);
			bytes(e, fuzz_selector(e->r), 2);
			break;
		default:
			byte(e, hex(t[0]) << 4 | hex(t[1]));
			t += 2;
			continue;
		}
		t++;
	}
}

/* Load what the instruction takes, and do it. */
static void sequence(struct emitter *e)
{
	static const unsigned crs[] = { 0, 0, 2, 3, 3, 3, 4, 4, 8 };
	struct rng *r = e->r;
	unsigned n;

	switch (rng_below(r, 10)) {
	case 0: /* WRMSR, RDMSR */
		n = fuzz_msr(r);
		load(e, 1, n);
		load(e, 0, n == 0xc0000080 ? fuzz_efer(r) : fuzz_value(r));
		load(e, 2, rng_one_in(r, 3) ? fuzz_value(r) : 0);
		template(e, rng_one_in(r, 3) ? "0f32" : "0f30");
		break;
	case 1:
	case 2: /* MOV CR */
		n = rng_pick(r, crs);
		load(e, 0, fuzz_cr(r, n));
		if (n == 8)
			byte(e, e->bits == 64 ? 0x44 : 0xf0); /* REX.R, or LOCK as AMD has it */
		byte(e, 0x0f);
		byte(e, 0x22);
		byte(e, 0xc0 | (n & 7) << 3);
		break;
	case 3: /* MOV DR: breakpoints on code and data */
		n = rng_below(r, 8);
		load(e, 0, n == 7 ? rng64(r) & 0xffff27ff : fuzz_value(r));
		byte(e, 0x0f);
		byte(e, 0x23);
		byte(e, 0xc0 | n << 3);
		break;
	case 4: /* a string instruction with all it needs */
		load(e, 1, rng_one_in(r, 2) ? rng_below(r, 0x3000) : fuzz_value(r));
		load(e, 6, fuzz_value(r));
		load(e, 7, fuzz_value(r));
		byte(e, rng_one_in(r, 2) ? 0xfc : 0xfd);
		template(e, memory_templates[rng_below(r, 21)]);
		break;
	case 5: /* a port with a name, or any */
		load(e, 2, rng_one_in(r, 2) ? rng_below(r, 0x100) : rng_below(r, 0x10000));
		load(e, 0, fuzz_value(r));
		byte(e, 0xec + rng_below(r, 4));
		break;
	case 6: /* INVPCID, INVLPG */
		load(e, 0, rng_below(r, 5));
		load(e, 3, fuzz_value(r));
		template(e, rng_one_in(r, 2) ? "660f388203" : "0f013b");
		break;
	case 7: /* an edit of a page table, or of code; then, perhaps, what makes it known */
		load(e, 3,
		     rng_one_in(r, 2) ? PT_ADDR + rng_below(r, PT_PAGES << 12)
				      : fuzz_code_address(r));
		load(e, 0,
		     rng_one_in(r, 2) ? rng_below(r, 0x400) << 12 | rng_below(r, 0x200)
				      : fuzz_value(r));
		if (e->bits == 64 && rng_one_in(r, 2))
			byte(e, 0x48);
		template(e, rng_one_in(r, 2) ? "8903" : "f00fb103");
		if (rng_one_in(r, 4))
			template(e, "0f20d80f22d8");
		break;
	case 8: /* XSETBV */
		load(e, 1, rng_below(r, 16) == 0);
		load(e, 0, rng_below(r, 256));
		load(e, 2, 0);
		template(e, "0f01d1");
		break;
	default: /* a hypercall */
		load(e, 0, rng_below(r, 16));
		load(e, 3, fuzz_value(r));
		load(e, 1, fuzz_value(r));
		template(e, rng_one_in(r, 2) ? "0f01c1" : "0f01d9");
		break;
	}
}

static void vex(struct emitter *e)
{
	struct rng *r = e->r;

	if (rng_one_in(r, 2)) {
		byte(e, 0xc5);
	} else {
		byte(e, 0xc4);
		byte(e, (rng_below(r, 8) << 5) | (1 + rng_below(r, rng_one_in(r, 16) ? 31 : 3)));
	}
	byte(e, rng_below(r, 256));
	byte(e, rng_below(r, 256));
	modrm(e, 'M', -1);
	if (rng_one_in(r, 2))
		byte(e, rng_below(r, 256));
}

/* SDM vol. 2 2.7.1; the fixed bits are right, mostly. */
static void evex(struct emitter *e)
{
	struct rng *r = e->r;
	unsigned p0 = rng_below(r, 256), p1 = rng_below(r, 256) | 4, p2 = rng_below(r, 256);

	if (!rng_one_in(r, 8))
		p0 = (p0 & 0xf0) | (1 + rng_below(r, 3));
	if (rng_one_in(r, 16))
		p1 &= ~4u;
	byte(e, 0x62);
	byte(e, p0);
	byte(e, p1);
	byte(e, p2);
	byte(e, rng_below(r, 256));
	modrm(e, 'M', -1);
	if (rng_one_in(r, 2))
		byte(e, rng_below(r, 256));
}

static void any_opcode(struct emitter *e)
{
	static const uint8_t prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e,
					    0x36, 0x3e, 0x26, 0x64, 0x65 };
	struct rng *r = e->r;

	while (rng_one_in(r, 4))
		byte(e, rng_pick(r, prefixes));
	if (e->bits == 64 && rng_one_in(r, 2))
		byte(e, 0x40 | rng_below(r, 16));
	switch (rng_below(r, 8)) {
	case 0:
	case 1:
	case 2:
		byte(e, rng_below(r, 256));
		break;
	case 3:
		byte(e, 0x0f);
		byte(e, rng_one_in(r, 2) ? 0x38 : 0x3a);
		byte(e, rng_below(r, 256));
		break;
	case 4: /* x87 */
		byte(e, 0xd8 + rng_below(r, 8));
		break;
	default:
		byte(e, 0x0f);
		byte(e, rng_below(r, 256));
		break;
	}
	modrm(e, 'M', -1);
	if (rng_one_in(r, 3))
		displacement(e, 1);
}

static void instruction(struct emitter *e)
{
	struct rng *r = e->r;

	switch (rng_below(r, 16)) {
	case 0:
	case 1:
		template(e, rng_pick(r, system_templates));
		break;
	case 2:
		template(e, rng_pick(r, transfer_templates));
		break;
	case 3:
	case 4:
		template(e, rng_pick(r, memory_templates));
		break;
	case 5:
	case 6:
		sequence(e);
		break;
	case 7:
		vex(e);
		break;
	case 8:
		evex(e);
		break;
	case 9:
	case 10:
	case 11: /* addresses to work with */
		load(e, any_reg(e), fuzz_value(r));
		break;
	default:
		any_opcode(e);
		break;
	}
}

void fuzz_code(struct rng *r, uint8_t *out, size_t len, unsigned bits)
{
	struct emitter e = { .r = r, .p = out, .end = out + len, .bits = bits };

	while (e.p < e.end)
		instruction(&e);
}

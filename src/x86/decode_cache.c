// SPDX-License-Identifier: MIT
/*
 * The cache of decoded instructions (x86/decode_cache.h), and what it has to know of encodings: where an instruction's displacement and
 * immediate start.
 *
 * Where in doubt, the first bytes are more than need be: that costs a miss.  Fewer would be wrong.
 */
#include "x86/decode_cache.h"

#include <string.h>

/* Opcodes that have a ModRM byte: rows by the upper four bits, bits by the lower (SDM vol. 2 tables ). */
static const u16 has_modrm[2][16] = {
	{
		0x0f0f, 0x0f0f, 0x0f0f, 0x0f0f, /* arithmetic, but for AL and eAX with immediate */
		0, 0,				/* INC, DEC or REX; PUSH, POP */
		0x0a0c,				/* BOUND, ARPL or MOVSXD, IMUL with immediate */
		0,				/* Jcc rel8 */
		0xffff,				/* group 1, TEST, XCHG, MOV, LEA, POP */
		0, 0, 0, 0x00f3,		/* shifts, LES, LDS, MOV with immediate */
		0xff0f,				/* shifts, x87 */
		0, 0xc0c0,			/* groups 3, 4, 5 */
	},
	{
		0xa00f, /* groups 6, 7, LAR, LSL; PREFETCH, 3DNow! */
		0xffff, /* moves, hints */
		0xff0f, /* control and debug registers, moves, conversions */
		0,	/* RDMSR and its kin; the escapes are not looked up here */
		0xffff, /* CMOVcc */
		0xffff,
		0xffff,
		0xff7f, /* all but EMMS */
		0,	/* Jcc */
		0xffff, /* SETcc */
		0xf8f8, /* all but PUSH, POP, CPUID, RSM */
		0xffff,
		0x00ff, /* all but BSWAP */
		0xffff,
		0xffff,
		0xffff,
	},
};

static bool is_legacy_prefix(u8 b)
{
	switch (b) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	default:
		return false;
	}
}

struct um_insn_head um_insn_head(enum um_mode mode, const u8 *bytes, unsigned avail)
{
	bool m64 = mode == UM_MODE_64, short_addresses = mode <= UM_MODE_16, seen = false;
	struct um_insn_head h = { 0 };
	unsigned n = 0;
	u8 second, modrm;

	avail = um_min(avail, 15u);
	for (; n < avail; n++) {
		if (m64 && (bytes[n] & 0xf0) == 0x40)
			continue;
		if (!is_legacy_prefix(bytes[n]))
			break;
		seen |= bytes[n] == 0x67;
	}
	if (n >= avail)
		return h;
	short_addresses ^= seen && !m64;
	second = n + 1 < avail ? bytes[n + 1] : 0;
	switch (bytes[n]) {
	case 0x0f:
		h.map = second == 0x38 ? 2 : second == 0x3a ? 3 : 1;
		n += h.map > 1 ? 2 : 1;
		break;
	case 0x62:
	case 0xc4:
	case 0xc5:
		/* Outside 64-bit mode, BOUND, LES and LDS if the operand is memory. */
		if (!m64 && second < 0xc0)
			break;
		h.vex = true;
		h.map = bytes[n] == 0xc5 ? 1 : second & (bytes[n] == 0xc4 ? 31 : 7);
		n += bytes[n] == 0xc5 ? 2 : bytes[n] == 0xc4 ? 3 : 4;
		break;
	case 0x8f: /* XOP, or POP */
		if ((second & 31) >= 8)
			return h;
		break;
	}
	if (n >= avail)
		return h;
	h.opcode = (u8)n;
	if ((h.vex ? h.map == 1 && bytes[n] == 0x77 : h.map < 2) &&
	    !(has_modrm[h.map][bytes[n] >> 4] & BIT(bytes[n] & 15))) {
		h.len = (u8)(n + 1);
		return h;
	}
	if (n + 1 >= avail)
		return h;
	modrm = bytes[n + 1];
	n += 2;
	n += modrm < 0xc0 && (modrm & 7) == 4 && !short_addresses;
	h.len = n <= avail ? (u8)n : 0;
	return h;
}

/* The first bytes of an instruction as a number; zeroes behind. */
typedef unsigned __int128 image;

static inline image image_of(const u8 *bytes, unsigned avail)
{
	u64 word[2] = { 0 };

	if (likely(avail >= sizeof(word)))
		memcpy(word, bytes, sizeof(word));
	else
		memcpy(word, bytes, avail);
	return (image)word[1] << 64 | word[0];
}

static inline struct um_insn_key key_of(enum um_mode mode, image all, unsigned len)
{
	image first = all & (((image)1 << len * 8) - 1);
	u64 tag = (u64)(len | (unsigned)mode << 4 | 0x80) << 56;

	return (struct um_insn_key){ { (u64)first, (u64)(first >> 64) | tag } };
}

struct um_insn_key um_insn_key(enum um_mode mode, const u8 *bytes, unsigned len)
{
	return key_of(mode, image_of(bytes, len), len);
}

/* The number of @len bytes, 1..8, at @at. */
static inline s64 number(image all, unsigned at, unsigned len, bool is_signed)
{
	unsigned unused = 64 - len * 8;
	u64 v = (u64)(all >> at * 8) << unused;

	return is_signed ? (s64)v >> unused : (s64)(v >> unused);
}

unsigned um_decode_cached(struct um_decode_cache *c, struct um_insn *i, enum um_mode mode,
			  const u8 *bytes, unsigned avail, u16 off, struct um_decode_entry **entry)
{
	struct um_insn_head h = um_insn_head(mode, bytes, avail);
	image all = image_of(bytes, avail);
	struct um_insn_key key = key_of(mode, all, h.len);
	struct um_decode_entry *e = &c->entry[um_insn_key_hash(&key, UM_DECODE_CACHE_BITS)];
	unsigned len;

	*entry = NULL;
	if (likely(h.len) && likely(um_insn_key_is(&e->key, &key))) {
		if (unlikely(e->insn.len > avail))
			return 0;
		*i = e->insn;
		i->off = off;
		if (i->disp_len)
			i->disp = number(all, i->disp_at, i->disp_len, true) * i->disp_scale;
		if (i->base == UM_REG_PAGE)
			i->disp += off + i->len;
		if (i->imm_len)
			i->imm = (u64)number(all, i->imm_at, i->imm_len, i->imm_signed);
		*entry = e;
		return i->len;
	}
	i->fn = NULL;
	i->aux = NULL;
	len = um_decode(i, mode, bytes, avail, off);
	if (len && h.len && i->plain) {
		e->key = key;
		e->insn = *i;
		*entry = e;
	}
	return len;
}

void um_decode_forget(struct um_decode_cache *c)
{
	memset(c, 0, sizeof(*c));
}

// SPDX-License-Identifier: MIT
/*
 * Facts remembered.  Decoding anew takes Zydis a third of a microsecond, and most instructions differ from others only in their
 * displacement and immediate, on which facts don't depend.  So they are kept by what comes before: prefixes, opcode,
 * ModRM and SIB (SDM vol. 2 figure 2-1).
 *
 * Where in doubt, a key is longer than it need be: that costs a miss.
 */
#include <string.h>

#include "engine/jit/copy.h"

static bool is_prefix(u8 b, enum um_mode mode)
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
		return mode == UM_MODE_64 && (b & 0xf0) == 0x40;
	}
}

/* One-byte opcodes that are followed by an immediate or absolute address at once. */
static bool has_no_modrm(u8 op)
{
	return (op < 0x40 && (op & 7) >= 4) || (op >= 0xa0 && op < 0xc0);
}

/* Facts depend on the immediate: the count of a shift; a register in the immediate of VEX map 3. */
static bool immediate_matters(const u8 *op, unsigned escapes, u8 first)
{
	if (escapes == 0)
		return op[0] == 0xc0 || op[0] == 0xc1 || (first == 0xc4 && (op[-2] & 31) == 3);
	return escapes == 1 && (op[0] == 0xa4 || op[0] == 0xac);
}

/* How many bytes of the instruction its facts depend on. */
static unsigned key_length(enum um_mode mode, const u8 *bytes, unsigned len)
{
	unsigned n = 0, escapes = 0, modrm;
	u8 first;

	while (n < len && is_prefix(bytes[n], mode))
		n++;
	if (n >= len)
		return len;
	first = bytes[n];
	if (first == 0xc5 || first == 0xc4 ||
	    first == 0x62) { /* VEX, EVEX; in 32-bit mode, perhaps */
		n += first == 0xc5 ? 2 : first == 0xc4 ? 3 : 4;
	} else if (first == 0x0f) {
		escapes = 1;
		n++;
		if (n < len && (bytes[n] == 0x38 || bytes[n] == 0x3a)) {
			escapes = 2;
			n++;
		}
	}
	if (n + 1 >= len || immediate_matters(bytes + n, escapes, first))
		return len;
	if (!escapes && has_no_modrm(first))
		return n + 1;
	modrm = bytes[n + 1];
	return n + 2 + (modrm < 0xc0 && (modrm & 7) == 4 && n + 2 < len);
}

bool um_jit_analyse_cached(struct um_fact_cache *c, enum um_mode mode, const u8 *bytes,
			   unsigned len, struct um_facts *f)
{
	unsigned n = key_length(mode, bytes, len);
	struct um_fact_entry *e;
	u8 image[16] = { 0 };
	u64 key[2];

	memcpy(image, bytes, n);
	image[15] = (u8)(n | (unsigned)mode << 4);
	memcpy(key, image, sizeof(key));
	e = &c->entry[(key[0] * 0x9e3779b97f4a7c15 ^ key[1] * 0xc2b2ae3d27d4eb4f) >>
		      (64 - UM_FACT_CACHE_BITS)];
	if (e->key[0] != key[0] || e->key[1] != key[1]) {
		e->key[0] = key[0];
		e->key[1] = key[1];
		e->copyable = um_jit_analyse(mode, bytes, len, &e->facts);
	}
	if (!e->copyable)
		return false;
	*f = e->facts;
	if (n < len)
		memcpy(f->enc.imm, bytes + len - f->enc.nimm, f->enc.nimm);
	return true;
}

// SPDX-License-Identifier: MIT
/*
 * Facts remembered.  Decoding anew takes Zydis a third of a microsecond, and most instructions
 * differ from others only in their displacement and immediate, on which facts don't depend.  So
 * they are kept by what comes before: prefixes, opcode, ModRM and SIB, as decoded instructions are
 * (x86/decode_cache.h).
 */
#include <string.h>

#include "engine/jit/copy.h"
#include "x86/decode_cache.h"

/* Facts depend on the immediate: the count of a shift; a register in the immediate of VEX map 3. */
static bool immediate_matters(const struct um_insn_head *h, u8 op)
{
	if (h->vex)
		return h->map == 3;
	return h->map ? h->map == 1 && (op == 0xa4 || op == 0xac) : op == 0xc0 || op == 0xc1;
}

bool um_jit_analyse_cached(struct um_fact_cache *c, enum um_mode mode, const u8 *bytes,
			   unsigned len, struct um_facts *f)
{
	struct um_insn_head h = um_insn_head(mode, bytes, len);
	unsigned n = !h.len || immediate_matters(&h, bytes[h.opcode]) ? len : h.len;
	struct um_insn_key key = um_insn_key(mode, bytes, n);
	struct um_fact_entry *e = &c->entry[um_insn_key_hash(&key, UM_FACT_CACHE_BITS)];

	if (!um_insn_key_is(&e->key, &key)) {
		e->key = key;
		e->copyable = um_jit_analyse(mode, bytes, len, &e->facts);
	}
	if (!e->copyable)
		return false;
	*f = e->facts;
	if (n < len)
		memcpy(f->enc.imm, bytes + len - f->enc.nimm, f->enc.nimm);
	return true;
}

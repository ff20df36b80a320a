// SPDX-License-Identifier: MIT
/*
 * The decoded instructions of translated blocks, for the interpreter to execute when translated
 * code leaves.
 *
 * A decoded instruction takes as much memory as its translation, and few are wanted often.  So
 * blocks don't keep them: they are decoded again, into a small cache.
 */
#include "engine/jit/jit.h"

static const struct um_insn *op_stop(struct um_exec *x, const struct um_insn *i)
{
	return i;
}

static void load(struct um_exec *x, const struct um_jit_block *b, unsigned k, struct um_insn *i)
{
	enum um_mode mode = b->key & UM_JIT_KEY_64 ? UM_MODE_64 : UM_MODE_32;
	unsigned at = b->map[k].off;

	um_interp_decode(x, i, mode, b->bytes + at, b->len - at,
			 (u16)((b->hva & ~UM_PAGE_MASK) + at));
}

const struct um_insn *um_jit_insn(struct um_exec *x, const struct um_jit_block *b, unsigned k)
{
	struct um_jit *j = x->translator;
	struct um_jit_decoded *d =
		&j->decoded[((b->id * 9 + k) * 0x9e3779b1u) >> (32 - UM_JIT_DECODED_BITS)];

	if (likely(d->block == b && d->k == k))
		return d->insn;
	load(x, b, k, &d->insn[0]);
	d->insn[1] = (struct um_insn){
		.fn = op_stop,
		.off = (u16)(d->insn[0].off + d->insn[0].len),
		.mode = d->insn[0].mode,
	};
	d->block = b;
	d->k = k;
	return d->insn;
}

const struct um_block *um_jit_block_of(struct um_insn *insn, unsigned n, hva_t hva, const u8 *bytes,
				       unsigned len)
{
	struct um_block *r = (struct um_block *)(insn + n + 1);
	const struct um_insn *last = &insn[n - 1];

	insn[n] = (struct um_insn){
		.fn = op_stop,
		.off = (u16)(last->off + last->len),
		.mode = last->mode,
	};
	*r = (struct um_block){
		.hva = hva,
		.ninsns = (u8)n,
		.nwords = 1,
		.len = (u16)len,
		.len1 = (u16)len,
		.insn = insn,
	};
	memcpy((u8 *)r->words + (hva & 7), bytes, len);
	return r;
}

const struct um_block *um_jit_rebuild(struct um_exec *x, const struct um_jit_block *b, void *room)
{
	struct um_insn *insn = room;

	for (unsigned k = 0; k < b->ninsns; k++)
		insn[k] = *um_jit_insn(x, b, k);
	return um_jit_block_of(insn, b->ninsns, b->hva, b->bytes, b->len);
}

void um_jit_forget_insns(struct um_jit *j)
{
	for (unsigned n = 0; n < ARRAY_SIZE(j->decoded); n++)
		j->decoded[n].block = NULL;
}

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

const struct um_block *um_jit_rebuild(struct um_exec *x, const struct um_jit_block *b, void *room)
{
	struct um_insn *insn = room;
	struct um_block *r = (struct um_block *)(insn + b->ninsns + 1);

	for (unsigned k = 0; k < b->ninsns; k++)
		insn[k] = *um_jit_insn(x, b, k);
	insn[b->ninsns] = um_jit_insn(x, b, b->ninsns - 1u)[1];
	*r = (struct um_block){
		.hva = b->hva,
		.ninsns = b->ninsns,
		.nwords = 1,
		.len = b->len,
		.len1 = b->len1,
		.insn = insn,
	};
	memcpy((u8 *)r->words + (b->hva & 7), b->bytes, b->len);
	return r;
}

void um_jit_forget_insns(struct um_jit *j)
{
	for (unsigned n = 0; n < ARRAY_SIZE(j->decoded); n++)
		j->decoded[n].block = NULL;
}

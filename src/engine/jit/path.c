// SPDX-License-Identifier: MIT
/*
 * What is executed often is translated once more, by then along the way that execution takes: behind a conditional jump that is seldom
 * taken, at the target of one that mostly is, and at that of a jump; as long as this goes forward, in one page.  The bytes of the block are all
 * from its first instruction to its last, though some of them may be skipped.
 */
#include "engine/jit/jit.h"

#define UNKNOWN_MAX \
	2 /* conditional jumps in a row of which it is not known how often they are taken */

/* A way through code. */
struct path {
	const struct um_jit_block
		*from; /* the block where it is, whose jumps were counted; NULL: none */
	unsigned end;  /* of that, from the path's start */
	unsigned jcc;  /* its next conditional jump */
	u32 reached;   /* executions of what comes next */
	unsigned unknown;
};

static void enter(struct um_exec *x, struct path *p, const struct um_jit_block *first, unsigned pos)
{
	const struct um_jit_block *b = um_jit_lookup(x->translator, first->hva + pos, first->key);

	p->from = b && b->choice.stage == UM_JIT_NEW && b->left <= um_jit_stage(x, UM_JIT_NEW)
			  ? b
			  : NULL;
	if (!p->from)
		return;
	p->end = pos + b->len;
	p->jcc = 0;
	p->reached = (u32)(um_jit_stage(x, UM_JIT_NEW) - b->left);
}

enum way { BEHIND, TAKEN, NEITHER };

static enum way choose(struct path *p, const struct um_insn *i)
{
	u32 reached = p->reached, taken;

	if (!um_is_forward(i))
		return NEITHER; /* a loop */
	if (!p->from || p->jcc == UM_BLOCK_JCC)
		return p->unknown++ < UNKNOWN_MAX ? BEHIND : NEITHER;
	taken = p->from->taken[p->jcc++];
	p->reached -= um_min(taken, reached);
	p->unknown = 0;
	return taken > reached / 2 ? TAKEN : BEHIND;
}

const struct um_block *um_jit_path(struct um_exec *x, const struct um_jit_block *b, u32 *followed,
				   void *room)
{
	unsigned off = b->hva & ~UM_PAGE_MASK, pos = 0, len = 0, n = 0, jumps = 0;
	unsigned avail = um_min((unsigned)UM_PAGE_SIZE - off, (unsigned)UM_BLOCK_BYTES);
	enum um_mode mode = b->key & UM_JIT_KEY_64 ? UM_MODE_64 : UM_MODE_32;
	struct path p = { 0 };
	struct um_insn *insn = room;
	u8 bytes[UM_BLOCK_BYTES];

	*followed = 0;
	if (x->lockstep || um_copy_from(bytes, (void *)b->hva, avail))
		return um_jit_rebuild(x, b, room);
	enter(x, &p, b, 0);
	while (n < UM_BLOCK_MAX && pos < avail) {
		struct um_insn *i = &insn[n];
		enum way way = BEHIND;
		s64 target;

		if (p.from && pos >= p.end)
			enter(x, &p, b, pos);
		if (!um_interp_decode(x, i, mode, bytes + pos, avail - pos, (u16)(off + pos)) ||
		    (i->flags & UM_INSN_UD))
			break;
		n++;
		pos += i->len;
		len = pos;
		if (!(i->flags & (UM_INSN_BRANCH | UM_INSN_END)))
			continue;
		/* (In 32-bit code, what truncates EIP.) */
		if ((mode != UM_MODE_64 && i->osz != 4) ||
		    (i->flags & (UM_INSN_REP | UM_INSN_REPNE)))
			break;
		target = um_target_of(i) - off;
		if (um_is_jcc(i))
			way = ++jumps < UM_JIT_JCC ? choose(&p, i) : NEITHER;
		else
			way = i->op == ZYDIS_MNEMONIC_JMP && i->kind[0] == UM_OPD_REL ? TAKEN
										      : NEITHER;
		if (way == NEITHER || (way == TAKEN && (target < (s64)pos || target >= (s64)avail)))
			break; /* (Or too far.) */
		if (way == TAKEN) {
			*followed |= (u32)BIT(n - 1);
			pos = (unsigned)target;
			enter(x, &p, b, pos);
		}
	}
	return n ? um_jit_block_of(insn, n, b->hva, bytes, len) : um_jit_rebuild(x, b, room);
}

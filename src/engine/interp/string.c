// SPDX-License-Identifier: MIT
/*
 * MOVS CMPS SCAS LODS STOS, with their repeat prefixes.
 *
 * An iteration is the unit: it is done in full, registers included, or not at all, and between two
 * iterations the instruction can be left (rip still on it) for a fault, an interrupt, a trap, MMIO,
 * or because it stored to its own page (SDM vol. 2 REP).
 *
 * MOVS and STOS do as many iterations at once as stay in the pages at hand, if both are plain
 * memory in the TLB (or would be but for translated code: um_lin_over_code()).  Copying bytes in
 * ascending order is the same as copying elements, unless the destination starts less than one
 * element after the source.
 */
#include "engine/interp/ops.h"

#define KICK_INTERVAL 4096 /* iterations between two looks at the kick flag */

/* ---- address registers ---- */

UM_INLINE u64 offset(const struct um_exec *x, const struct um_insn *i, enum um_gpr r)
{
	return um_reg(x, r * 8, i->asz);
}

static void advance(struct um_exec *x, const struct um_insn *i, enum um_gpr r, u64 n)
{
	u64 by = n * i->osz;

	if (x->cpu.rflags & RFLAGS_DF)
		by = -by;
	um_set_reg(x, r * 8, i->asz, offset(x, i, r) + by);
}

/* ---- one iteration ---- */

static bool load(struct um_exec *x, const struct um_insn *i, enum um_seg seg, enum um_gpr r, u64 *v)
{
	gva_t gva;
	void *p;

	if (!um_linear(x, seg, offset(x, i, r), i->osz, UM_READ, &gva) ||
	    !um_check_align(x, gva, i->osz))
		return false;
	p = um_fast_lin(x, gva, i->osz, UM_READ);
	if (likely(p) && likely(um_get(p, i->osz, v)))
		return true;
	*v = 0;
	return um_lin_read(x, gva, v, i->osz);
}

static bool store(struct um_exec *x, const struct um_insn *i, u64 v)
{
	gva_t gva;
	void *p;

	if (!um_linear(x, UM_ES, offset(x, i, UM_RDI), i->osz, UM_WRITE, &gva) ||
	    !um_check_align(x, gva, i->osz))
		return false;
	p = um_fast_lin(x, gva, i->osz, UM_WRITE);
	if (likely(p) && likely(um_put(p, i->osz, v)))
		return true;
	return um_lin_write(x, gva, &v, i->osz);
}

enum string { MOVS, CMPS, SCAS, LODS, STOS };

UM_INLINE bool one(struct um_exec *x, const struct um_insn *i, enum string op)
{
	unsigned size = i->osz;
	u64 a = um_reg(x, UM_RAX * 8, size), b;

	switch (op) {
	case MOVS:
		if (!load(x, i, i->seg, UM_RSI, &a) || !store(x, i, a))
			return false;
		break;
	case CMPS:
		/* In the order of Intel's processors: it shows when both fault. */
		if (!load(x, i, UM_ES, UM_RDI, &b) || !load(x, i, i->seg, UM_RSI, &a))
			return false;
		um_cc_sub(x, a, b, a - b, size);
		break;
	case SCAS:
		if (!load(x, i, UM_ES, UM_RDI, &b))
			return false;
		um_cc_sub(x, a, b, a - b, size);
		break;
	case LODS:
		if (!load(x, i, i->seg, UM_RSI, &a))
			return false;
		um_set_reg(x, UM_RAX * 8, size, a);
		break;
	case STOS:
		if (!store(x, i, a))
			return false;
		break;
	}
	if (op == MOVS || op == CMPS || op == LODS)
		advance(x, i, UM_RSI, 1);
	if (op != LODS)
		advance(x, i, UM_RDI, 1);
	return true;
}

/* ---- many iterations ---- */

/*
 * Where the lowest of the elements at @r is, and how many of @n are in the same page, in flat memory in the
 * TLB.
 */
static u64 run_of(struct um_exec *x, const struct um_insn *i, enum um_seg seg, enum um_gpr r,
		  enum um_access acc, u64 n, void **p)
{
	u64 off = offset(x, i, r), left;
	bool down = x->cpu.rflags & RFLAGS_DF;
	gva_t gva;

	if (!(x->seg_flat[seg] & (1u << acc)))
		return 0;
	gva = (off + x->seg_base[seg]) & x->lin_mask;
	left = UM_PAGE_SIZE - (gva & ~UM_PAGE_MASK);
	if (i->asz < 8) /* the offset register may wrap first */
		left = um_min(left, (1ull << (i->asz * 8)) - off);
	if (down) {
		if (left < i->osz) /* the first one is in two pages, or wraps */
			return 0;
		left = um_min(gva & ~UM_PAGE_MASK, off) + i->osz;
	}
	n = um_min(n, left / i->osz);
	if (down && n)
		gva -= (n - 1) * i->osz;
	*p = um_fast_lin(x, gva, 1, acc);
	if (unlikely(!*p) && acc == UM_WRITE && n > 1)
		*p = um_lin_over_code(x, gva, (unsigned)n * i->osz);
	return *p ? n : 0;
}

/* @n elements downwards, to the uppermost of the @ndst at @dst.  Returns how many were done. */
static u64 copy_down(const struct um_insn *i, u8 *dst, u64 ndst, u8 *src, u64 n)
{
	return n - um_copy_down(dst + (ndst - 1) * i->osz, src + (n - 1) * i->osz, n, i->osz);
}

static u64 many_movs(struct um_exec *x, const struct um_insn *i, u64 n)
{
	u64 done, ndst;
	void *src, *dst;

	/* The destination first: getting its address may take others back. */
	n = ndst = run_of(x, i, UM_ES, UM_RDI, UM_WRITE, n, &dst);
	if (n)
		n = run_of(x, i, i->seg, UM_RSI, UM_READ, n, &src);
	if (!n)
		return 0;
	if (x->cpu.rflags & RFLAGS_DF)
		done = copy_down(i, dst, ndst, src, n);
	else if ((hva_t)dst - (hva_t)src - 1 < i->osz - 1u)
		return 0;
	else
		done = (n * i->osz - um_copy_in(dst, src, n * i->osz)) / i->osz;
	advance(x, i, UM_RSI, done);
	advance(x, i, UM_RDI, done);
	return done;
}

static u64 many_stos(struct um_exec *x, const struct um_insn *i, u64 n)
{
	u64 v = um_reg(x, UM_RAX * 8, i->osz), done;
	void *dst;

	n = run_of(x, i, UM_ES, UM_RDI, UM_WRITE, n, &dst);
	if (!n)
		return 0;
	if (v == um_trunc((u8)v * 0x0101010101010101ull, i->osz)) {
		done = (n * i->osz - um_fill(dst, (u8)v, n * i->osz)) / i->osz;
	} else {
		for (done = 0; done < n; done++) {
			if (!um_put((u8 *)dst + done * i->osz, i->osz, v))
				break;
		}
	}
	/* Downwards, the first ones are at the upper end.  (What was stored for nothing is stored again.) */
	if ((x->cpu.rflags & RFLAGS_DF) && done < n)
		return 0;
	advance(x, i, UM_RDI, done);
	return done;
}

UM_INLINE const struct um_insn *string(struct um_exec *x, const struct um_insn *i, enum string op)
{
	bool compares = op == CMPS || op == SCAS;
	bool until_equal = i->flags & UM_INSN_REPNE;
	/* One iteration: single-stepping; the answers of MMIO are for the present iteration. */
	bool once = (x->special & UM_SPECIAL_STEP) || x->mmio.done;
	/*
	 * Registers go with the iterations, flags change at the end: SDM vol. 2 REP has it for
	 * faults.
	 */
	const struct um_cc before = x->cc;
	u64 since = 0;

	if (!(i->flags & (UM_INSN_REP | UM_INSN_REPNE)))
		return one(x, i, op) ? i + 1 : um_stop(x, i);

	for (;;) {
		u64 count = offset(x, i, UM_RCX), n = 0;

		if (!count)
			return i + 1;
		if (!once && !x->align_check) {
			if (op == MOVS)
				n = many_movs(x, i, count);
			else if (op == STOS)
				n = many_stos(x, i, count);
		}
		if (!n) {
			if (!one(x, i, op)) {
				x->cc = before;
				return um_stop(x, i);
			}
			n = 1;
		}
		um_set_reg(x, UM_RCX * 8, i->asz, count - n);
		if (count == n || (compares && um_zf(x) == until_equal))
			return i + 1;
		since += n;
		if (once || x->brk || (since >= KICK_INTERVAL && um_interp_kicked(x)))
			break;
		if (since >= KICK_INTERVAL)
			since = 0;
	}
	/* What comes in between two iterations finds RF set (SDM vol. 3 17.3.1.1). */
	x->cc = before;
	x->cpu.rip = um_rip(x, i);
	x->cpu.rflags |= RFLAGS_RF;
	um_sync_special(x);
	return NULL;
}

#define DEFINE(op)                                                                       \
	static const struct um_insn *op_##op(struct um_exec *x, const struct um_insn *i) \
	{                                                                                \
		return string(x, i, op);                                                 \
	}
DEFINE(MOVS)
DEFINE(CMPS)
DEFINE(SCAS)
DEFINE(LODS)
DEFINE(STOS)

um_insn_fn um_bind_string(const struct um_insn *i)
{
	/* MOVSD and CMPSD are SSE2 instructions too: those have operands. */
	if (i->kind[0] == UM_OPD_VEC || i->kind[1] == UM_OPD_VEC)
		return NULL;
	switch (i->op) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
		return op_MOVS;
	case ZYDIS_MNEMONIC_CMPSB:
	case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSD:
	case ZYDIS_MNEMONIC_CMPSQ:
		return op_CMPS;
	case ZYDIS_MNEMONIC_SCASB:
	case ZYDIS_MNEMONIC_SCASW:
	case ZYDIS_MNEMONIC_SCASD:
	case ZYDIS_MNEMONIC_SCASQ:
		return op_SCAS;
	case ZYDIS_MNEMONIC_LODSB:
	case ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_LODSD:
	case ZYDIS_MNEMONIC_LODSQ:
		return op_LODS;
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		return op_STOS;
	}
	return NULL;
}

// SPDX-License-Identifier: MIT
/*
 * XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B.
 *
 * XCHG with memory is locked whatever its prefixes say.  The compare-and-exchange instructions
 * always write their operand, with its old value if the comparison failed (SDM vol. 2 CMPXCHG): so
 * they fault on memory that can't be written.
 */
#include "engine/interp/ops.h"

#include <string.h>

static const struct um_insn *op_xchg_reg(struct um_exec *x, const struct um_insn *i)
{
	u64 a = um_reg(x, i->reg[0], i->osz), b = um_reg(x, i->reg[1], i->osz);

	um_set_reg(x, i->reg[0], i->osz, b);
	um_set_reg(x, i->reg[1], i->osz, a);
	UM_NEXT(x, i);
}

static const struct um_insn *op_xchg_mem(struct um_exec *x, const struct um_insn *i)
{
	unsigned reg = i->kind[0] == UM_OPD_MEM ? i->reg[1] : i->reg[0];
	enum um_rmw_result done;
	struct um_rmw m;

	do {
		if (!um_rmw_begin(x, i, um_ea(x, i), i->osz, true, &m))
			return um_stop(x, i);
		done = um_rmw_commit(x, &m, um_reg(x, reg, i->osz));
		if (done == UM_RMW_FAULT)
			return um_stop(x, i);
	} while (done == UM_RMW_AGAIN);
	um_set_reg(x, reg, i->osz, m.old);
	return i + 1;
}

static const struct um_insn *op_xadd(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz;
	u64 b = um_reg(x, i->reg[1], size);
	enum um_rmw_result done;
	struct um_rmw m;

	if (i->kind[0] == UM_OPD_GPR) {
		m.old = um_reg(x, i->reg[0], size);
		um_set_reg(x, i->reg[1], size, m.old);
		um_set_reg(x, i->reg[0], size, m.old + b);
	} else {
		do {
			if (!um_rmw_begin(x, i, um_ea(x, i), size, i->flags & UM_INSN_LOCK, &m))
				return um_stop(x, i);
			done = um_rmw_commit(x, &m, m.old + b);
			if (done == UM_RMW_FAULT)
				return um_stop(x, i);
		} while (done == UM_RMW_AGAIN);
		um_set_reg(x, i->reg[1], size, m.old);
	}
	um_cc_add(x, m.old, b, m.old + b, size);
	return i + 1;
}

static const struct um_insn *op_cmpxchg(struct um_exec *x, const struct um_insn *i)
{
	unsigned size = i->osz;
	u64 acc = um_reg(x, UM_RAX * 8, size), src = um_reg(x, i->reg[1], size);
	enum um_rmw_result done;
	struct um_rmw m;

	if (i->kind[0] == UM_OPD_GPR) {
		m.old = um_reg(x, i->reg[0], size);
		/* (Not equal: the accumulator alone is written, and zero-extended.) */
		if (m.old == acc)
			um_set_reg(x, i->reg[0], size, src);
	} else {
		do {
			if (!um_rmw_begin(x, i, um_ea(x, i), size, i->flags & UM_INSN_LOCK, &m))
				return um_stop(x, i);
			done = um_rmw_commit(x, &m, m.old == acc ? src : m.old);
			if (done == UM_RMW_FAULT)
				return um_stop(x, i);
		} while (done == UM_RMW_AGAIN);
	}
	if (m.old != acc)
		um_set_reg(x, UM_RAX * 8, size, m.old);
	um_cc_sub(x, acc, m.old, acc - m.old, size);
	return i + 1;
}

static void put_zf(struct um_exec *x, bool zf)
{
	um_set_status(x, (um_status(x) & ~RFLAGS_ZF) | (zf ? RFLAGS_ZF : 0));
}

static const struct um_insn *op_cmpxchg8b(struct um_exec *x, const struct um_insn *i)
{
	u64 expected = (u32)x->cpu.gpr[UM_RAX] | x->cpu.gpr[UM_RDX] << 32;
	u64 new = (u32)x->cpu.gpr[UM_RBX] | x->cpu.gpr[UM_RCX] << 32;
	enum um_rmw_result done;
	struct um_rmw m;

	do {
		if (!um_rmw_begin(x, i, um_ea(x, i), 8, i->flags & UM_INSN_LOCK, &m))
			return um_stop(x, i);
		done = um_rmw_commit(x, &m, m.old == expected ? new : m.old);
		if (done == UM_RMW_FAULT)
			return um_stop(x, i);
	} while (done == UM_RMW_AGAIN);
	if (m.old != expected) {
		um_set_reg(x, UM_RAX * 8, 4, m.old);
		um_set_reg(x, UM_RDX * 8, 4, m.old >> 32);
	}
	put_zf(x, m.old == expected);
	return i + 1;
}

/* The host's CMPXCHG16B at @p.  False: host fault. */
static bool cmpxchg16(void *p, u64 expected[2], const u64 new[2], bool *equal)
{
	u64 lo = expected[0], hi = expected[1];
	bool ok;

	asm goto("1: lock cmpxchg16b (%3)\n\t"
		 "sete %b2\n\t" UM_EXTABLE("1b", "%l[fault]")
		 : "+a"(lo), "+d"(hi), "=&q"(ok)
		 : "S"(p), "b"(new[0]), "c"(new[1])
		 : "memory", "cc"
		 : fault);
	expected[0] = lo;
	expected[1] = hi;
	*equal = ok;
	return true;
fault:
	return false;
}

static const struct um_insn *op_cmpxchg16b(struct um_exec *x, const struct um_insn *i)
{
	u64 old[2] = { x->cpu.gpr[UM_RAX], x->cpu.gpr[UM_RDX] };
	u64 new[2] = { x->cpu.gpr[UM_RBX], x->cpu.gpr[UM_RCX] }, now[2];
	bool tracked, equal, ok;
	u64 off = um_ea(x, i);
	gva_t gva;
	void *p;

	/*
	 * Even with an address that isn't canonical, for which it would be #SS by RSP or RBP: so do
	 * processors.
	 */
	if ((x->seg_base[i->seg] + off) & 15) {
		um_raise_code(x, UM_VEC_GP, 0);
		return um_stop(x, i);
	}
	if (!um_linear(x, i->seg, off, 16, UM_WRITE, &gva))
		return um_stop(x, i);
	if (!um_lin_map(x, gva, 16, UM_WRITE, &p, &tracked))
		return um_stop(x, i);
	if (p) {
		if (!cmpxchg16(p, old, new, &equal)) {
			um_host_fault(x, gva, p);
			return um_stop(x, i);
		}
		if (tracked)
			um_lin_written(x, gva, 16);
	} else {
		if (!um_split_lock(x))
			return um_stop(x, i);
		ok = um_lin_read(x, gva, now, 16);
		equal = ok && !memcmp(now, old, 16);
		ok = ok && um_lin_write(x, gva, equal ? new : now, 16);
		um_split_unlock(x);
		if (!ok)
			return um_stop(x, i);
		memcpy(old, now, 16);
	}
	if (!equal) {
		x->cpu.gpr[UM_RAX] = old[0];
		x->cpu.gpr[UM_RDX] = old[1];
	}
	put_zf(x, equal);
	return i + 1;
}

um_insn_fn um_bind_exchange(const struct um_insn *i)
{
	switch (i->op) {
	case ZYDIS_MNEMONIC_XCHG:
		return i->flags & UM_INSN_MEM ? op_xchg_mem : op_xchg_reg;
	case ZYDIS_MNEMONIC_XADD:
		return op_xadd;
	case ZYDIS_MNEMONIC_CMPXCHG:
		return op_cmpxchg;
	case ZYDIS_MNEMONIC_CMPXCHG8B:
		return op_cmpxchg8b;
	case ZYDIS_MNEMONIC_CMPXCHG16B:
		return op_cmpxchg16b;
	}
	return NULL;
}

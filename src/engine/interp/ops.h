/* SPDX-License-Identifier: MIT */
/*
 * What the files of integer instructions share.  Private to interp/.
 *
 * An instruction is written once, as an inline function whose parameters say the operation, the
 * form of its operands and their size.  Specializations for the hot forms are instances of it with
 * constant parameters, listed in a table that the binder indexes; all have a fast path, for
 * operands in registers or in memory that hits the TLB, and leave everything else to one general
 * function for the instruction (op_..._slow), which is also what exactness rests on: it makes all
 * checks, in order.
 *
 * Dispatch.  A fast path ends in UM_NEXT, which calls the next instruction's function as the last
 * thing it does: the compiler makes a jump of it.  A slow path returns the next instruction to the
 * loop in run.c, which looks at x->brk.  (If the compiler makes a real call instead, the stack is
 * still bounded by the length of a block.)
 */
#ifndef UM_ENGINE_INTERP_OPS_H
#define UM_ENGINE_INTERP_OPS_H

#include "engine/flags.h"
#include "engine/interp/interp.h"

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__)
#define UM_NEXT(x, i) return (i)[1].fn((x), (i) + 1)
#else
#define UM_NEXT(x, i) return (i) + 1
#endif

#define UM_INLINE static inline __attribute__((always_inline))
#define UM_SLOW	  __attribute__((noinline, cold))

/* ---- registers, by byte offset into gpr[] (struct um_insn.reg) ---- */
UM_INLINE u64 um_reg(const struct um_exec *x, unsigned off, unsigned size)
{
	const char *p = (const char *)x->cpu.gpr + off;

	switch (size) {
	case 1:
		return *(const u8 *)p;
	case 2:
		return *(const u16 *)p;
	case 4:
		return *(const u32 *)p;
	default:
		return *(const u64 *)p;
	}
}
/* 1 and 2 bytes merge, 4 bytes zero-extend (SDM vol. 1 3.4.1.1). */
UM_INLINE void um_set_reg(struct um_exec *x, unsigned off, unsigned size, u64 v)
{
	char *p = (char *)x->cpu.gpr + off;

	switch (size) {
	case 1:
		*(u8 *)p = (u8)v;
		break;
	case 2:
		*(u16 *)p = (u16)v;
		break;
	case 4:
		*(u64 *)p = (u32)v;
		break;
	default:
		*(u64 *)p = v;
		break;
	}
}

/* ---- fast memory operands ---- */
/* How the address is formed. */
enum um_addr {
	UM_ADDR_64,	/* 64-bit mode, 64-bit addresses: no limits, no truncation */
	UM_ADDR_LEGACY, /* any other: flat segments are fast */
};
UM_INLINE enum um_addr um_addr_of(const struct um_insn *i)
{
	return i->mode == UM_MODE_64 && i->asz == 8 ? UM_ADDR_64 : UM_ADDR_LEGACY;
}

/*
 * The host address of [gva, gva + size) if it is in the TLB.  The last byte's page is compared, the
 * first byte's entry is looked at: so an access that crosses a page misses (its entry can't hold
 * the next page, which has another index).  A store to the page of the running code misses too.
 */
UM_INLINE void *um_fast_lin(const struct um_exec *x, gva_t gva, unsigned size, enum um_access acc)
{
	const struct um_tlb_entry *e = &x->tlb->e[um_tlb_index(gva, x->ctx)];
	hva_t p;

	if (unlikely(e->tag[acc] != (((gva + size - 1) & UM_PAGE_MASK) | x->ctx)))
		return NULL;
	p = gva + e->addend;
	if (acc == UM_WRITE && unlikely((p & UM_PAGE_MASK) == x->code_page))
		return NULL;
	return (void *)p;
}
UM_INLINE void *um_fast(const struct um_exec *x, const struct um_insn *i, enum um_addr addr,
			unsigned size, enum um_access acc)
{
	if (addr == UM_ADDR_64)
		return um_fast_lin(x,
				   x->cpu.gpr[i->base] + (x->cpu.gpr[i->index] << i->scale) +
					   (u64)i->disp + x->seg_base[i->seg],
				   size, acc);
	if (unlikely(!(x->seg_flat[i->seg] & (1u << acc))))
		return NULL;
	return um_fast_lin(x, (um_ea(x, i) + x->seg_base[i->seg]) & x->lin_mask, size, acc);
}
UM_INLINE bool um_fast_load(const struct um_exec *x, const struct um_insn *i, enum um_addr addr,
			    unsigned size, u64 *v)
{
	const void *p = um_fast(x, i, addr, size, UM_READ);

	return likely(p) && likely(um_get(p, size, v));
}
UM_INLINE bool um_fast_store(const struct um_exec *x, const struct um_insn *i, enum um_addr addr,
			     unsigned size, u64 v)
{
	void *p = um_fast(x, i, addr, size, UM_WRITE);

	return likely(p) && likely(um_put(p, size, v));
}

/* ---- operands in general (slow paths) ---- */
/* Value of operand @n at @size bytes. */
static inline bool um_operand(struct um_exec *x, const struct um_insn *i, unsigned n, unsigned size,
			      u64 *v)
{
	switch (i->kind[n]) {
	case UM_OPD_GPR:
		*v = um_reg(x, i->reg[n], size);
		return true;
	case UM_OPD_MEM:
		return um_load(x, i, size, v);
	default:
		*v = um_trunc(i->imm, size);
		return true;
	}
}

/* ---- forms ---- */
/* R: register, I: immediate, M: memory; destination first. */
#define UM_FORMS(X) X(RR) X(RI) X(RM) X(MR) X(MI)
enum um_form {
#define X(f) UM_FORM_##f,
	UM_FORMS(X)
#undef X
		UM_NR_FORMS
};
#define UM_FORM_WRITES_MEM(f) ((f) == UM_FORM_MR || (f) == UM_FORM_MI)

/* Form of the first two operands of @i, or -1. */
static inline int um_form_of(const struct um_insn *i)
{
	bool mem0 = i->kind[0] == UM_OPD_MEM;

	if (!mem0 && i->kind[0] != UM_OPD_GPR)
		return -1;
	switch (i->kind[1]) {
	case UM_OPD_GPR:
		return mem0 ? UM_FORM_MR : UM_FORM_RR;
	case UM_OPD_IMM:
		return mem0 ? UM_FORM_MI : UM_FORM_RI;
	case UM_OPD_MEM:
		return UM_FORM_RM;
	default:
		return -1;
	}
}
/* Index of an operand size in tables: 1, 2, 4, 8 -> 0..3. */
static inline unsigned um_size_index(unsigned size)
{
	return size ? (unsigned)__builtin_ctz(size) & 3 : 0;
}

/* ---- jumps ---- */
/* May execution go on at @rip?  Canonical, or within CS (SDM vol. 2 JMP, CALL, RET: #GP(0)). */
static inline bool um_target_ok(const struct um_exec *x, u64 rip)
{
	return x->mode == UM_MODE_64 ? um_is_canonical(x, rip) : rip <= x->cpu.seg[UM_CS].limit;
}
/* @rip cut to what the branch instruction @i can hold. */
static inline u64 um_trunc_target(const struct um_insn *i, u64 rip)
{
	if (i->mode == UM_MODE_64)
		return rip;
	return i->osz == 2 ? (u16)rip : (u32)rip;
}

/* ---- binders, one a file: the function for @i, or NULL ---- */
um_insn_fn um_bind_alu(const struct um_insn *i);
um_insn_fn um_bind_unary(const struct um_insn *i);
um_insn_fn um_bind_mov(const struct um_insn *i);
um_insn_fn um_bind_extend(const struct um_insn *i);
um_insn_fn um_bind_lea(const struct um_insn *i);
um_insn_fn um_bind_cond(const struct um_insn *i);
um_insn_fn um_bind_stack(const struct um_insn *i);
um_insn_fn um_bind_branch(const struct um_insn *i);
um_insn_fn um_bind_shift(const struct um_insn *i);
um_insn_fn um_bind_muldiv(const struct um_insn *i);
um_insn_fn um_bind_bits(const struct um_insn *i);
um_insn_fn um_bind_exchange(const struct um_insn *i);
um_insn_fn um_bind_string(const struct um_insn *i);
um_insn_fn um_bind_misc(const struct um_insn *i);

#endif

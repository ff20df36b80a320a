/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as instructions see it: segmentation, paging, alignment, page crossing, MMIO replay,
 * debug watchpoints.  For both engines.
 *
 * Every function that returns bool returns false when the access did not happen: then x->exit says
 * why (a guest exception, an MMIO request, a host fault) and the instruction must be abandoned with
 * no effect done.  The pattern in an instruction:
 *
 *	if (!um_load(x, i, &a))
 *		return um_stop(x, i);
 */
#ifndef UM_ENGINE_ACCESS_H
#define UM_ENGINE_ACCESS_H

#include "base/uaccess.h"
#include "engine/exec.h"

/* ---- raising ---- */
/* Record an exception in x->exit; returns false for the caller to pass on. */
bool um_raise(struct um_exec *x, enum um_vector v); /* no error code */
bool um_raise_code(struct um_exec *x, enum um_vector v, u32 error_code);
bool um_internal(struct um_exec *x, const char *why);

/* The instruction's linear rip as the guest knows it (rip, not linear address), and its
 * successor's. */
static inline u64 um_rip_mask(const struct um_exec *x)
{
	return x->mode == UM_MODE_64 ? ~0ull : 0xffffffffull;
}
static inline u64 um_rip(const struct um_exec *x, const struct um_insn *i)
{
	return (x->cpu.gpr[UM_REG_PAGE] + i->off - x->seg_base[UM_CS]) & um_rip_mask(x);
}
static inline u64 um_next_rip(const struct um_exec *x, const struct um_insn *i)
{
	return (um_rip(x, i) + i->len) & um_rip_mask(x);
}

/* Abandon instruction @i: x->exit is set; put rip on it. */
static inline const struct um_insn *um_stop(struct um_exec *x, const struct um_insn *i)
{
	x->cpu.rip = um_rip(x, i);
	x->exit.insn_len = i->len;
	return NULL;
}

/* Instruction @i is complete and was the last of its block; cpu.rip := the next. */
static inline const struct um_insn *um_end(struct um_exec *x, const struct um_insn *i)
{
	x->cpu.rip = um_next_rip(x, i);
	return NULL;
}

/* ---- effective and linear addresses ---- */
/* Offset in the segment of the memory operand of @i. */
static inline u64 um_ea(const struct um_exec *x, const struct um_insn *i)
{
	u64 ea = x->cpu.gpr[i->base] + (x->cpu.gpr[i->index] << i->scale) + (u64)i->disp;

	if (i->base == UM_REG_PAGE) /* disp is relative to the page's linear address */
		ea -= x->seg_base[UM_CS];
	return um_trunc(ea, i->asz);
}

/*
 * Segment checks (present, type, limit, canonical: SDM vol. 3 5.3, 5.5) of [off, off + len) for
 * @acc, giving the linear address.  #SS for the stack segment, else #GP.
 */
bool um_linear_slow(struct um_exec *x, enum um_seg seg, u64 off, unsigned len, enum um_access acc,
		    gva_t *gva);
static inline bool um_linear(struct um_exec *x, enum um_seg seg, u64 off, unsigned len,
			     enum um_access acc, gva_t *gva)
{
	u64 a = (off + x->seg_base[seg]) & x->lin_mask, last = a + len - 1;

	if (likely((x->seg_flat[seg] & (1u << acc)) &&
		   (u64)((s64)(a << x->canon_shift) >> x->canon_shift) == a &&
		   (u64)((s64)(last << x->canon_shift) >> x->canon_shift) == last)) {
		*gva = a;
		return true;
	}
	return um_linear_slow(x, seg, off, len, acc, gva);
}

/* Is @gva canonical?  Always so outside 64-bit mode. */
static inline bool um_is_canonical(const struct um_exec *x, gva_t gva)
{
	return (u64)((s64)(gva << x->canon_shift) >> x->canon_shift) == gva;
}

/* #AC(0) if alignment is checked and @gva is not a multiple of @size (a power of two). */
static inline bool um_check_align(struct um_exec *x, gva_t gva, unsigned size)
{
	if (likely(!x->align_check || !(gva & (size - 1))))
		return true;
	return um_raise_code(x, UM_VEC_AC, 0);
}

/* ---- linear accesses, explicit: with the current privilege (x->priv) ---- */
/* Any length up to 4096; page crossing handled; a write happens in full or not at all. */
bool um_lin_read(struct um_exec *x, gva_t gva, void *buf, unsigned len);
bool um_lin_write(struct um_exec *x, gva_t gva, const void *buf, unsigned len);
/* Would a write succeed?  For instructions that must fault before they have other effects. */
bool um_lin_probe(struct um_exec *x, gva_t gva, unsigned len, enum um_access acc);

/*
 * A host pointer for direct use by a native stub or an atomic operation: only if all of [gva, gva +
 * len) lies in one page of plain memory.  *@tracked is set if um_lin_written() must follow a write.
 * Returns false with x->exit if the access faults; true with *@p = NULL if it must be done in
 * pieces (crosses a page, MMIO): then use um_lin_read/um_lin_write on a buffer.  @acc = UM_WRITE
 * covers read-modify-write.
 */
bool um_lin_map(struct um_exec *x, gva_t gva, unsigned len, enum um_access acc, void **p,
		bool *tracked);
void um_lin_written(struct um_exec *x, gva_t gva, unsigned len);

/*
 * Stores of @len bytes at @gva, in one page, will follow, and miss the TLB.  If that is only
 * because the page has translated code: drop what they overlap, and return the host address to
 * store to.  Else NULL, and nothing was done.
 */
void *um_lin_over_code(struct um_exec *x, gva_t gva, unsigned len);

/* ---- linear accesses, implicit supervisor: descriptor tables, TSS, IDT, stacks of event delivery
 * ---- */
bool um_sys_read(struct um_exec *x, gva_t gva, void *buf, unsigned len);
bool um_sys_write(struct um_exec *x, gva_t gva, const void *buf, unsigned len);
/* With a privilege of the caller's choice (a new CPL's stack during far transfers). */
bool um_priv_read(struct um_exec *x, enum um_tlb_priv priv, gva_t gva, void *buf, unsigned len);
bool um_priv_write(struct um_exec *x, enum um_tlb_priv priv, gva_t gva, const void *buf,
		   unsigned len);

/* ---- stack, with SS, the current stack size and privilege ---- */
/* Push the low @size bytes of @v (2, 4, 8).  RSP changes only on success. */
bool um_push(struct um_exec *x, u64 v, unsigned size);
bool um_pop(struct um_exec *x, u64 *v, unsigned size);
/* Read @size bytes at RSP + @off without popping. */
bool um_stack_peek(struct um_exec *x, unsigned off, u64 *v, unsigned size);

/* ---- the explicit memory operand of an instruction, @size = 1, 2, 4, 8 bytes, zero-extended ----
 */
bool um_load(struct um_exec *x, const struct um_insn *i, unsigned size, u64 *v);
bool um_store(struct um_exec *x, const struct um_insn *i, unsigned size, u64 v);

/*
 * Read-modify-write of the memory operand, plain or locked:
 *
 *	do {
 *		if (!um_rmw_begin(x, i, ea, size, locked, &m))
 *			return um_stop(x, i);
 *		... compute from m.old ...
 *		done = um_rmw_commit(x, &m, new);
 *		if (done == UM_RMW_FAULT)
 *			return um_stop(x, i);
 *	} while (done == UM_RMW_AGAIN);
 *	... effects on registers and flags ...
 *
 * Every begin that succeeds is followed by a commit.  UM_RMW_AGAIN comes only if locked: another
 * processor changed the operand in between.
 */
struct um_rmw {
	u64 old;
	gva_t gva;
	void *p; /* NULL: done in pieces, under x->split_lock if locked */
	u8 size;
	bool locked, tracked;
};
enum um_rmw_result { UM_RMW_DONE, UM_RMW_AGAIN, UM_RMW_FAULT };

bool um_rmw_begin(struct um_exec *x, const struct um_insn *i, u64 ea, unsigned size, bool locked,
		  struct um_rmw *m);
enum um_rmw_result um_rmw_commit(struct um_exec *x, struct um_rmw *m, u64 v);
/*
 * Held around locked accesses that are done in pieces.  If it must wait it leaves the MMU
 * meanwhile, so host addresses from before are not valid any more.  False: x->exit (no memory to
 * re-enter).
 */
bool um_split_lock(struct um_exec *x);
void um_split_unlock(struct um_exec *x);

/* Load and store at a host pointer; @size = 1, 2, 4, 8.  False: the host page is gone
 * (um_host_fault()). */
static inline bool um_get(const void *p, unsigned size, u64 *v)
{
	u8 b;
	u16 w;
	u32 l;

	switch (size) {
	case 1:
		return um_get8(p, &b) ? *v = b, true : false;
	case 2:
		return um_get16(p, &w) ? *v = w, true : false;
	case 4:
		return um_get32(p, &l) ? *v = l, true : false;
	default:
		return um_get64(p, v);
	}
}
static inline bool um_put(void *p, unsigned size, u64 v)
{
	switch (size) {
	case 1:
		return um_put8(p, (u8)v);
	case 2:
		return um_put16(p, (u16)v);
	case 4:
		return um_put32(p, (u32)v);
	default:
		return um_put64(p, v);
	}
}
/* Record that the host page of guest address @gva, at @p, can't be accessed; returns false. */
bool um_host_fault(struct um_exec *x, gva_t gva, const void *p);

/* ---- what is derived from x->cpu: recompute after changing it inside an instruction ---- */
void um_sync_seg(struct um_exec *x,
		 enum um_seg seg);	 /* one segment register (SS: also the stack size) */
void um_sync_priv(struct um_exec *x);	 /* CPL, RFLAGS.AC, CR0.AM, CR4.SMAP, contexts of the TLB */
void um_sync_special(struct um_exec *x); /* TF, RF, int_shadow, DR7, irq_window */
void um_sync_mode(struct um_exec *x);	 /* everything but the status flags */

/* ---- RFLAGS in full, whatever form the engine keeps them in ---- */
u64 um_get_rflags(const struct um_exec *x);
/* Sets all of RFLAGS and, if TF, IF, AC, VM or IOPL changed, what depends on them (special, priv).
 */
void um_set_rflags(struct um_exec *x, u64 rflags);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as instructions see it: segmentation, paging, alignment, page crossing, MMIO replay,
 * debug watchpoints.  For both engines.
 *
 * Every function that returns bool returns false when the access did not happen: then x->exit says why (a
 * guest exception, an MMIO request, a host fault) and the instruction must be abandoned with no effect
 * done.  The pattern in an instruction:
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
bool um_raise(struct um_exec *x, enum um_vector v);                       /* no error code */
bool um_raise_code(struct um_exec *x, enum um_vector v, u32 error_code);
bool um_internal(struct um_exec *x, const char *why);

/* The instruction's linear rip as the guest knows it (rip, not linear address), and its successor's. */
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
 * Segment checks (present, type, limit, canonical: SDM vol. 3 5.3, 5.5) of [off, off + len) for @acc, giving the
 * linear address.  #SS for the stack segment, else #GP.
 */
bool um_linear_slow(struct um_exec *x, enum um_seg seg, u64 off, unsigned len, enum um_access acc,
		    gva_t *gva);
static inline bool um_linear(struct um_exec *x, enum um_seg seg, u64 off, unsigned len,
			     enum um_access acc, gva_t *gva)
{
	if (likely(x->seg_flat[seg] & (1u << acc))) {
		*gva = (off + x->seg_base[seg]) & x->lin_mask;
		return true;
	}
	return um_linear_slow(x, seg, off, len, acc, gva);
}

/* ---- linear accesses, explicit: with the current privilege (x->priv) ---- */
/* Any length up to 4096; page crossing handled; a write happens in full or not at all. */
bool um_lin_read(struct um_exec *x, gva_t gva, void *buf, unsigned len);
bool um_lin_write(struct um_exec *x, gva_t gva, const void *buf, unsigned len);
/* Would a write succeed?  For instructions that must fault before they have other effects. */
bool um_lin_probe(struct um_exec *x, gva_t gva, unsigned len, enum um_access acc);

/*
 * A host pointer for direct use by a native stub or an atomic operation: only if all of [gva, gva + len) lies in
 * one page of plain memory.  *@tracked is set if um_lin_written() must follow a write.  Returns false with
 * x->exit if the access faults; true with *@p = NULL if it must be done in pieces (crosses a page, MMIO):
 * then use um_lin_read/um_lin_write on a buffer.  @acc = UM_WRITE covers read-modify-write.
 */
bool um_lin_map(struct um_exec *x, gva_t gva, unsigned len, enum um_access acc, void **p,
		bool *tracked);
void um_lin_written(struct um_exec *x, gva_t gva, unsigned len);

/* ---- linear accesses, implicit supervisor: descriptor tables, TSS, IDT, stacks of event delivery ---- */
bool um_sys_read(struct um_exec *x, gva_t gva, void *buf, unsigned len);
bool um_sys_write(struct um_exec *x, gva_t gva, const void *buf, unsigned len);
/* With a privilege of the caller's choice (a new CPL's stack during far transfers). */
bool um_priv_read(struct um_exec *x, enum um_tlb_priv priv, gva_t gva, void *buf, unsigned len);
bool um_priv_write(struct um_exec *x, enum um_tlb_priv priv, gva_t gva, const void *buf, unsigned len);

/* ---- stack, with SS, the current stack size and privilege ---- */
/* Push the low @size bytes of @v (2, 4, 8).  RSP changes only on success. */
bool um_push(struct um_exec *x, u64 v, unsigned size);
bool um_pop(struct um_exec *x, u64 *v, unsigned size);
/* Read @size bytes at RSP + @off without popping. */
bool um_stack_peek(struct um_exec *x, unsigned off, u64 *v, unsigned size);

/* ---- RFLAGS in full, whatever form the engine keeps them in ---- */
u64 um_get_rflags(const struct um_exec *x);
/* Sets all of RFLAGS and, if TF, IF, AC, VM or IOPL changed, what depends on them (special, priv). */
void um_set_rflags(struct um_exec *x, u64 rflags);

#endif

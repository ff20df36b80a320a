// SPDX-License-Identifier: MIT
/*
 * Descriptor tables and segment registers: reading descriptors, the checks of SDM vol. 3 5.4-5.7,
 * and the instructions that load and store segment registers (SDM vol. 2: MOV, POP, PUSH, LDS and
 * its kin).
 *
 * Order of checks, for every load in protected mode: null selector, table limit, type and
 * privilege, presence, and last the accessed bit in memory, whose write may fault.
 */
#include "engine/system/system.h"

static bool table_address(struct um_exec *x, gva_t *gva, unsigned len, u32 ext)
{
	const struct um_cpu *c = &x->cpu;

	if (!um_cpu_long_mode(c))
		*gva = (u32)*gva;
	else if (!um_sys_canonical(c, *gva) || !um_sys_canonical(c, *gva + len - 1))
		return um_raise_code(x, UM_VEC_GP, ext);
	return true;
}

bool um_sys_table_read(struct um_exec *x, gva_t gva, void *buf, unsigned len, u32 ext)
{
	unsigned head = um_sys_head(gva, len);

	if (!table_address(x, &gva, len, ext) || !um_sys_read(x, gva, buf, head))
		return false;
	return likely(head == len) ||
	       um_sys_read(x, um_sys_next_gva(&x->cpu, gva, head), (u8 *)buf + head, len - head);
}

bool um_sys_table_write(struct um_exec *x, gva_t gva, const void *buf, unsigned len, u32 ext)
{
	unsigned head = um_sys_head(gva, len);

	if (!table_address(x, &gva, len, ext) || !um_sys_write(x, gva, buf, head))
		return false;
	return likely(head == len) || um_sys_write(x, um_sys_next_gva(&x->cpu, gva, head),
						   (const u8 *)buf + head, len - head);
}

/* Where descriptor @sel is; false: outside of its table. */
static bool locate(const struct um_cpu *c, u16 sel, unsigned len, gva_t *gva)
{
	u64 base = c->gdt.base;
	u32 limit = c->gdt.limit;

	if (SEL_TI(sel)) {
		if (c->ldt.unusable || !c->ldt.present)
			return false;
		base = c->ldt.base;
		limit = c->ldt.limit;
	}
	if ((sel & ~7u) + len - 1 > limit)
		return false;
	*gva = base + (sel & ~7u);
	return true;
}

bool um_sys_desc_find(struct um_exec *x, u16 sel, struct um_sys_desc *d, bool *found)
{
	d->hi = 0;
	*found = locate(&x->cpu, sel, 8, &d->gva);
	return !*found || um_sys_table_words(x, d->gva, &d->lo, 1, 0);
}

bool um_sys_desc_read(struct um_exec *x, u16 sel, enum um_vector vec, u32 ext,
		      struct um_sys_desc *d)
{
	const struct um_cpu *c = &x->cpu;

	d->hi = 0;
	if (!locate(c, sel, 8, &d->gva))
		return um_raise_code(x, vec, SEL_ERR(sel) | ext);
	if (!um_sys_table_words(x, d->gva, &d->lo, 1, ext))
		return false;
	if (likely(um_desc_s(d->lo)) || !um_cpu_long_mode(c))
		return true;
	if (!locate(c, sel, 16, &d->gva))
		return um_raise_code(x, vec, SEL_ERR(sel) | ext);
	return um_sys_table_words(x, d->gva + 8, &d->hi, 1, ext);
}

bool um_sys_desc_accessed(struct um_exec *x, struct um_sys_desc *d, u32 ext)
{
	u8 access;

	/* Tables may be in read-only pages if all bits are set already: don't write then. */
	if (likely(um_desc_type(d->lo) & UM_DESC_ACCESSED))
		return true;
	access = (d->lo >> 40) | UM_DESC_ACCESSED;
	if (!um_sys_table_write(x, d->gva + 5, &access, 1, ext))
		return false;
	d->lo |= (u64)UM_DESC_ACCESSED << 40;
	return true;
}

bool um_sys_desc_set_busy(struct um_exec *x, struct um_sys_desc *d, bool busy, u32 ext)
{
	u8 access = (d->lo >> 40 & ~2u) | (busy ? 2 : 0);

	if (!um_sys_table_write(x, d->gva + 5, &access, 1, ext))
		return false;
	d->lo = (d->lo & ~(0xffull << 40)) | (u64)access << 40;
	return true;
}

bool um_sys_check_ss(struct um_exec *x, u16 sel, unsigned cpl, enum um_vector vec, u32 ext,
		     struct um_segment *out)
{
	struct um_sys_desc d;

	if (SEL_IS_NULL(sel))
		return um_raise_code(x, vec, ext);
	if (!um_sys_desc_read(x, sel, vec, ext, &d))
		return false;
	if (SEL_RPL(sel) != cpl || !um_desc_is_writable(d.lo) || um_desc_dpl(d.lo) != cpl)
		return um_raise_code(x, vec, SEL_ERR(sel) | ext);
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_SS, SEL_ERR(sel) | ext);
	if (!um_sys_desc_accessed(x, &d, ext))
		return false;
	*out = um_segment_unpack(sel, d.lo, 0);
	return true;
}

bool um_sys_check_data(struct um_exec *x, u16 sel, unsigned cpl, enum um_vector vec, u32 ext,
		       struct um_segment *out)
{
	struct um_sys_desc d;

	if (SEL_IS_NULL(sel)) {
		*out = um_segment_null(sel, 0);
		return true;
	}
	if (!um_sys_desc_read(x, sel, vec, ext, &d))
		return false;
	if (!um_desc_is_readable(d.lo) ||
	    (!um_desc_is_conforming(d.lo) && um_max(cpl, SEL_RPL(sel)) > um_desc_dpl(d.lo)))
		return um_raise_code(x, vec, SEL_ERR(sel) | ext);
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel) | ext);
	if (!um_sys_desc_accessed(x, &d, ext))
		return false;
	*out = um_segment_unpack(sel, d.lo, 0);
	return true;
}

void um_sys_load_real(struct um_cpu *c, enum um_seg seg, u16 sel)
{
	struct um_segment *s = &c->seg[seg];

	if (c->rflags & RFLAGS_VM) {
		*s = um_segment_vm86(sel);
		return;
	}
	if (s->unusable) { /* null since protected mode: no limit to keep */
		*s = um_segment_vm86(sel);
		s->dpl = 0;
	}
	s->selector = sel;
	s->base = (u64)sel << 4;
}

void um_sys_null_inner_segments(struct um_cpu *c, unsigned new_cpl)
{
	static const u8 segs[] = { UM_ES, UM_DS, UM_FS, UM_GS };

	for (unsigned n = 0; n < ARRAY_SIZE(segs); n++) {
		struct um_segment *s = &c->seg[segs[n]];
		bool conforming = (s->type & (UM_DESC_CODE | UM_DESC_CONFORMING)) ==
				  (UM_DESC_CODE | UM_DESC_CONFORMING);
		u64 base = s->base;

		if (s->unusable || s->dpl >= new_cpl || conforming)
			continue;
		*s = um_segment_null(0, 0);
		/*
		 * In 64-bit mode the bases of FS and GS work without a segment: they are not lost.
		 */
		if (um_cpu_long_mode(c))
			s->base = base;
	}
}

/* Check @sel for @seg as MOV does. */
static bool check_load(struct um_exec *x, enum um_seg seg, u16 sel, struct um_segment *out)
{
	struct um_cpu *c = &x->cpu;

	if (seg != UM_SS)
		return um_sys_check_data(x, sel, c->cpl, UM_VEC_GP, 0, out);
	if (SEL_IS_NULL(sel) && um_cpu_64bit(c) && c->cpl != 3 && SEL_RPL(sel) == c->cpl) {
		*out = um_segment_null(sel, c->cpl);
		return true;
	}
	return um_sys_check_ss(x, sel, c->cpl, UM_VEC_GP, 0, out);
}

/* Load @seg with all checks; and what is derived from it.  False: nothing changed. */
static bool load(struct um_exec *x, enum um_seg seg, u16 sel)
{
	struct um_cpu *c = &x->cpu;
	struct um_segment s;

	if (x->mode == UM_MODE_REAL) {
		um_sys_load_real(c, seg, sel);
	} else {
		if (!check_load(x, seg, sel, &s))
			return false;
		c->seg[seg] = s;
	}
	um_sync_seg(x, seg);
	return true;
}

const struct um_insn *um_sysop_mov_to_sreg(struct um_exec *x, const struct um_insn *i)
{
	u64 next = um_next_rip(x, i);
	u16 sel;

	if (i->reg[0] == UM_CS || i->reg[0] >= UM_NR_SEGS)
		return um_sys_stop_ud(x, i);
	if (!um_sys_get16(x, i, 1, &sel) || !load(x, i->reg[0], sel))
		return um_stop(x, i);
	if (i->reg[0] == UM_SS)
		um_sys_shadow(x, UM_SHADOW_MOVSS);
	x->cpu.rip = next;
	return NULL;
}

const struct um_insn *um_sysop_mov_from_sreg(struct um_exec *x, const struct um_insn *i)
{
	if (i->reg[1] >= UM_NR_SEGS)
		return um_sys_stop_ud(x, i);
	if (!um_sys_put_word(x, i, x->cpu.seg[i->reg[1]].selector))
		return um_stop(x, i);
	return um_end(x, i);
}

const struct um_insn *um_sysop_push_sreg(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	u16 sel = c->seg[i->reg[0]].selector;
	u64 sp;
	gva_t gva;

	if (i->osz != 4) {
		if (!um_push(x, sel, i->osz))
			return um_stop(x, i);
		return um_end(x, i);
	}
	/* A 32-bit push of a segment register leaves the upper half of the slot as it was. */
	sp = (c->gpr[UM_RSP] - 4) & x->sp_mask;
	if (!um_linear(x, UM_SS, sp, 2, UM_WRITE, &gva) || !um_lin_write(x, gva, &sel, 2))
		return um_stop(x, i);
	c->gpr[UM_RSP] = um_sys_merge_sp(c->gpr[UM_RSP], sp, x->sp_mask);
	return um_end(x, i);
}

const struct um_insn *um_sysop_pop_sreg(struct um_exec *x, const struct um_insn *i)
{
	u64 next = um_next_rip(x, i), mask = x->sp_mask, v;
	u64 *rsp = &x->cpu.gpr[UM_RSP];

	if (!um_stack_peek(x, 0, &v, i->osz) || !load(x, i->reg[0], v))
		return um_stop(x, i);
	*rsp = um_sys_merge_sp(*rsp, *rsp + i->osz, mask);
	if (i->reg[0] == UM_SS)
		um_sys_shadow(x, UM_SHADOW_MOVSS);
	x->cpu.rip = next;
	return NULL;
}

/* LES, LDS, LSS, LFS, LGS: offset, then selector. */
const struct um_insn *um_sysop_load_far_pointer(struct um_exec *x, const struct um_insn *i)
{
	u64 next = um_next_rip(x, i), off = 0;
	enum um_seg seg;
	u8 p[10];
	u16 sel;

	switch (i->op) {
	case ZYDIS_MNEMONIC_LES:
		seg = UM_ES;
		break;
	case ZYDIS_MNEMONIC_LDS:
		seg = UM_DS;
		break;
	case ZYDIS_MNEMONIC_LSS:
		seg = UM_SS;
		break;
	case ZYDIS_MNEMONIC_LFS:
		seg = UM_FS;
		break;
	default:
		seg = UM_GS;
		break;
	}
	if (!um_sys_load(x, i, p, i->osz + 2))
		return um_stop(x, i);
	__builtin_memcpy(&off, p, i->osz);
	__builtin_memcpy(&sel, p + i->osz, 2);
	if (!load(x, seg, sel))
		return um_stop(x, i);
	um_sys_put_gpr(x, i->reg[0] / 8, off, i->osz);
	x->cpu.rip = next;
	return NULL;
}

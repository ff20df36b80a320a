// SPDX-License-Identifier: MIT
/*
 * Guest memory in translated code: the linear address, and the software TLB (mmu/tlb.h) looked up inline.
 *
 *	lea  t1, [operand]
 *	rorx t0, t1, 7;  and t0, 3ffe0h			offset of the entry: (page number mod 8192) * 32
 *	add  t0, [tlb]					of the context
 *	lea  t2, [t1 + size - 1]			an access that crosses a page misses
 *	and  t2, ~fffh;  or t2, [ctx];  cmp t2, [t0 + tag]
 *	jne  slow
 *	add  t1, [t0 + addend]
 *
 * Many accesses go to the page that they went to the last time.  So what the look-up found is kept in a "window", one for each kind
 * of access and, roughly, base register, and comes first:
 *
 *	sub  t1, [window.start]
 *	cmp  t1, [window.limit]
 *	ja   miss				restore t1; look up; keep what was found
 *	add  t1, [window.host]
 *
 * A window is a page, or as many pages in a row as the TLB is known to have at addresses of the host in a row: a region (window.c).
 * Which accesses have one: window.c.
 *
 * Several accesses by one register are looked up together: anchor.c.
 */
#include "engine/jit/trans.h"

void um_emit_get(struct um_trans *t, unsigned host, unsigned guest)
{
	unsigned h = um_jit_host(guest);

	if (h == UM_JIT_IN_MEMORY)
		um_emit_load(&t->e, 1, host, H_CTX, um_jit_gpr(guest));
	else if (h != host)
		um_emit_mov(&t->e, 1, host, h);
}

void um_emit_put(struct um_trans *t, unsigned guest, unsigned host)
{
	unsigned h = um_jit_host(guest);

	if (h == UM_JIT_IN_MEMORY)
		um_emit_store(&t->e, 1, host, H_CTX, um_jit_gpr(guest));
	else if (h != host)
		um_emit_mov(&t->e, 1, h, host);
}

void um_emit_add(struct um_trans *t, unsigned guest, s32 n)
{
	unsigned h = um_jit_host(guest);

	if (h == UM_JIT_IN_MEMORY) {
		um_emit_load(&t->e, 1, H_T2, H_CTX, um_jit_gpr(guest));
		um_emit_lea(&t->e, t->m64, H_T2, H_T2, H_RSP, 0, n);
		um_emit_store(&t->e, 1, H_T2, H_CTX, um_jit_gpr(guest));
	} else {
		um_emit_lea(&t->e, t->m64, h, h, H_RSP, 0, n);
	}
}

bool um_segment_ok(const struct um_trans *t, const struct um_insn *i)
{
	if (i->asz == 2)
		return false;
	if (t->m64)
		return true;
	if (i->seg == UM_FS)
		return t->key & UM_JIT_KEY_FS;
	if (i->seg == UM_GS)
		return t->key & UM_JIT_KEY_GS;
	return i->seg != UM_CS; /* it may be unreadable, and can't be written */
}

/* The host register that has guest register @guest, loaded into @scratch if need be. */
static unsigned reg_in(struct um_trans *t, unsigned guest, unsigned scratch)
{
	unsigned h = um_jit_host(guest);

	if (h != UM_JIT_IN_MEMORY)
		return h;
	um_emit_load(&t->e, 1, scratch, H_CTX, um_jit_gpr(guest));
	return scratch;
}

void um_emit_offset(struct um_trans *t, const struct um_insn *i, unsigned dst, unsigned w)
{
	struct um_emit *e = &t->e;
	unsigned base, index;

	if (i->base == UM_REG_ZERO && i->index == UM_REG_ZERO) {
		um_emit_mov_imm(e, dst, w ? (u64)i->disp : (u32)i->disp);
	} else if (i->disp != (s32)i->disp) {
		t->failed = true; /* no encoding has this */
	} else if (i->base == UM_REG_PAGE) {
		um_emit_load(e, 1, H_T1, H_CTX, UM_JIT_PAGE);
		um_emit_lea(e, w, dst, H_T1, H_RSP, 0, (s32)i->disp);
	} else if (i->base == UM_REG_ZERO) {
		index = reg_in(t, i->index, H_T1);
		um_emit_lea_nobase(e, w, dst, index, i->scale, (s32)i->disp);
	} else if (i->index == UM_REG_ZERO) {
		base = reg_in(t, i->base, H_T1);
		if (i->disp || !w)
			um_emit_lea(e, w, dst, base, H_RSP, 0, (s32)i->disp);
		else if (base != dst)
			um_emit_mov(e, 1, dst, base);
	} else {
		base = reg_in(t, i->base, H_T1);
		index = reg_in(t, i->index, H_T2);
		um_emit_lea(e, w, dst, base, index, i->scale, (s32)i->disp);
	}
}

void um_emit_linear(struct um_trans *t, const struct um_insn *i)
{
	um_emit_offset(t, i, H_T1, i->asz == 8);
	if (i->seg >=
	    UM_FS) /* ADD t1, [base]: of 32 bits outside 64-bit mode, where linear addresses are that wide */
		um_emit_rm(&t->e, t->m64, 0x03, H_T1, H_CTX, UM_JIT_OFF(seg_base) + i->seg * 8);
}

void um_emit_to_slow(struct um_trans *t, u8 *site, bool saved)
{
	if (t->nsites == UM_MAX_SITES) {
		t->failed = true;
		return;
	}
	t->site[t->nsites++] = (struct um_site){ .at = site, .insn = (u8)t->k, .saved = saved };
	t->has_slow[t->k] = true;
}

/* H_T0 := the TLB's entry for the linear address in H_T1, which may be used, or the slow path is taken. */
static void emit_lookup(struct um_trans *t, unsigned size, enum um_access acc)
{
	struct um_emit *e = &t->e;
	s32 tag = (s32)offsetof(struct um_tlb_entry, tag) + 8 * (s32)acc;

	um_emit_entry_offset(e);
	um_emit_rm(e, 1, 0x03, H_T0, H_CTX, UM_JIT_OFF(jit.tlb));
	if (size > 1)
		um_emit_lea(e, 1, H_T2, H_T1, H_RSP, 0, (s32)size - 1);
	else
		um_emit_mov(e, 1, H_T2, H_T1);
	um_emit_alu_imm(e, 1, 4, H_T2, -(s32)UM_PAGE_SIZE);
	um_emit_rm(e, 1, 0x0b, H_T2, H_CTX, UM_JIT_OFF(jit.ctx));
	um_emit_rm(e, 1, 0x3b, H_T2, H_T0, tag);
	if (t->anchoring == UM_NO_ANCHOR)
		um_emit_to_slow(t, um_emit_jcc(e, CC_NZ), false);
	else
		t->anchor[t->anchoring].miss = um_emit_jcc(e, CC_NZ);
}

bool um_is_plain(const struct um_trans *t)
{
	return t->choice.plain & BIT(t->k);
}

void um_emit_check(struct um_trans *t, unsigned size, enum um_access acc, unsigned window)
{
	struct um_emit *e = &t->e;
	struct um_miss *m = &t->miss[t->nmisses];

	if (window == UM_NO_WINDOW || t->nmisses == UM_MAX_MISSES || um_is_plain(t) ||
	    (t->choice.stage == UM_JIT_NEW && window != UM_RSP && window != UM_JIT_KERNEL_WINDOW)) {
		if (t->entry_in_t0)
			um_emit_store(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.spare[0]));
		emit_lookup(t, size, acc);
		um_emit_rm(e, 1, 0x03, H_T1, H_T0, offsetof(struct um_tlb_entry, addend));
		if (t->entry_in_t0)
			um_emit_load(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.spare[0]));
		return;
	}
	m->insn = (u8)t->k;
	m->size = (u8)size;
	m->acc = (u8)acc;
	m->window = (u8)window;
	m->anchor = (u8)t->anchoring;
	m->entry_in_t0 = t->entry_in_t0;
	um_emit_rm(e, 1, 0x2b, H_T1, H_CTX, um_jit_window_start(acc, window));
	um_emit_rm(e, 1, 0x3b, H_T1, H_CTX, um_jit_window_limit(acc, window, size));
	m->jump = um_emit_jcc(e, CC_A);
	um_emit_rm(e, 1, 0x03, H_T1, H_CTX, um_jit_window_host(acc, window));
	m->back = e->p;
	t->nmisses++;
}

void um_emit_count(struct um_emit *e, const void *p, unsigned n)
{
	um_emit8(e, 0x83);
	um_emit8(e, (u8)(n << 3 | 5)); /* [rip + disp32] */
	um_emit32(e, (u32)((const u8 *)p - (um_arena_rx_of(e->p) + 5)));
	um_emit8(e, 1);
}

bool um_is_unsettled(const struct um_trans *t)
{
	if (!(t->key & UM_JIT_KEY_USER) || (t->key & UM_JIT_KEY_APART) || t->tail)
		return false;
	for (unsigned k = 0; k < t->b->ninsns; k++) {
		const struct um_insn *i = &t->b->insn[k];

		if (t->choice.stage == UM_JIT_NEW && (i->flags & UM_INSN_BRANCH) &&
		    i->kind[0] == UM_OPD_REL && i->op != ZYDIS_MNEMONIC_CALL && um_is_forward(i))
			return true;
		if (t->how[k] != UM_HOW_OUT && (i->flags & UM_INSN_MEM) &&
		    um_window_of(t, i) != UM_RSP && !(t->choice.plain & BIT(k)))
			return true;
	}
	return false;
}

void um_emit_execution(struct um_trans *t)
{
	um_emit_count(&t->e, &um_block_of(t)->left, 5);
	t->over = um_emit_jcc(&t->e, CC_S);
}

void um_emit_miss(struct um_trans *t, const struct um_miss *m)
{
	struct um_emit *e = &t->e;
	u8 *back;

	t->k = m->insn;
	um_emit_patch_here(e, m->jump);
	if (t->choice.stage == UM_JIT_TRIAL)
		um_emit_count(e, &um_windowed_of(t)[m - t->miss].misses, 0);
	um_emit_lea(e, 1, H_T2, H_T1, H_RSP, 0, m->size - 1);
	if (m->entry_in_t0)
		um_emit_push(e, H_T0);
	um_emit_call(e, um_arena_code()->miss[m->acc][m->window]);
	if (m->entry_in_t0)
		um_emit_pop(e, H_T0);
	back = um_emit_jcc(e, CC_Z);
	um_emit_patch_to(e, back, m->back);
	if (m->anchor == UM_NO_ANCHOR)
		um_emit_slow(t);
	else
		um_emit_anchor_miss(t, &t->anchor[m->anchor]);
}

void um_emit_stack(struct um_trans *t, s32 off, unsigned size, enum um_access acc)
{
	unsigned sp = reg_in(t, UM_RSP, H_T1);

	um_emit_lea(&t->e, t->m64, H_T1, sp, H_RSP, 0, off);
	um_emit_check(t, size, acc, t->key & UM_JIT_KEY_USER ? UM_RSP : UM_JIT_KERNEL_WINDOW);
}

unsigned um_window_of(const struct um_trans *t, const struct um_insn *i)
{
	if (!(t->key & UM_JIT_KEY_USER))
		return i->seg < UM_FS && i->base == UM_RSP && i->index == UM_REG_ZERO
			       ? UM_JIT_KERNEL_WINDOW
			       : UM_NO_WINDOW;
	if (i->seg >= UM_FS)
		return 16 + (i->seg == UM_GS);
	if (i->base == UM_REG_PAGE)
		return 18 + ((i->off + i->disp) >> UM_PAGE_SHIFT & 3);
	if (i->base == UM_REG_ZERO)
		return i->index == UM_REG_ZERO ? 22 : i->index;
	if (i->index == UM_REG_ZERO || i->scale)
		return i->base;
	return (i->base ^ i->index) % UM_NR_GPRS;
}

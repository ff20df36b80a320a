// SPDX-License-Identifier: MIT
/*
 * What ends a block: near jumps, calls and returns.
 *
 * A target in the same page is linked: one jump, patched when the target is there.  Going back, it looks whether the
 * vCPU is wanted elsewhere first, so no loop of translated code is without an end.
 *
 * A direct jump or call to another page is linked, too, but that holds only for one linear address of its own page, and one stamp (as
 * entries of the jump cache do, below); a jump by a pointer in memory at a fixed place, for the address that it had and one stamp:
 *
 *	mov  t2, stamp; cmp [stamp], t2; jne behind	(kicked: the stamp is no entry's)
 *	mov  t2, page;  cmp [page], t2;  jne behind	or: mov t2, target; cmp t1, t2; jne behind
 *	... effects of the instruction ...
 *	mov  [page], the target's
 *	jmp  target
 *
 * If it doesn't hold, or not yet, the target is looked up; one in some times, the interpreter executes the instruction and a far link
 * is made of what it came to (run.c).  So those that are executed often have one that holds, and those that would not keep one don't
 * cost much.
 *
 * Any other target is a linear address, looked up in the jump cache:
 *
 *	imul t0, t1, K;  shr t0, 11;  and t0, 1fffe0h;  add t0, [jump]
 *	cmp  [t0], t1;   jne slow
 *	mov  t2, [stamp]; cmp t2, [t0 + 8]; jne renew	(kicked: the stamp is no entry's)
 *	... effects of the instruction ...
 *	and  t1, ~fffh; mov [page], t1
 *	jmp  [t0 + 16]
 *
 * A call puts the return address on the host's stack, too, and is a call of the host; so RET is a RET of the host, whose processor knows
 * where that goes, if the address that it finds on the guest's stack is the one below the host's return address:
 *
 *	CALL	...; or rsp, 800h	(below there is no room: the oldest are overwritten)
 *		push return address; call target
 *		pop t1; sub t1, its offset; mov [page], t1; jmp what is behind the call
 *	RET	mov t1, [guest's stack]; cmp [rsp + 8], t1; jne other
 *		add guest's stack pointer, 8; ret
 *	other	mov rsp, [sp]; look t1 up in the jump cache
 *
 * What is on the host's stack holds for one stamp, and as long as no block is gone: else what comes back from C forgets them (run.c), and
 * SYSCALL and SYSRET do.  (No loop goes by calls and returns alone.)
 *
 * An entry's address is canonical and was executable, so a hit checks that too.  If only the stamp is another, a routine (arena.c) looks
 * whether the TLB still has the entry's translation, gives it the stamp of now, and goes on.  A miss has the
 * interpreter execute the instruction.
 */
#include "engine/jit/trans.h"

#define JUMP_MASK ((s32)(((1u << UM_JIT_JUMP_BITS) - 1) << 5))

/* ---- links ---- */

void um_emit_exit(struct um_trans *t, unsigned n, enum um_jit_exit kind)
{
	um_emit_mov_imm(&t->e, H_RSI, UM_JIT_EXIT(t->id, n, kind));
	um_emit_jump(&t->e, um_arena_code()->leave);
}

/* PUSHFQ, POP [rbp + disp8], opcode of JMP: as many bytes as a JMP has. */
#define SAVING 5

/* An exit to offset @off of the page; NULL: there are too many. */
static struct um_jit_link *new_link(struct um_trans *t, unsigned off)
{
	struct um_jit_link *l = &t->link[t->nlinks];

	if (t->nlinks == UM_MAX_LINKS) {
		t->failed = true;
		return NULL;
	}
	*l = (struct um_jit_link){ .off = off & 0x1fff };
	t->link_sites[t->nlinks].n = 0;
	t->link_sites[t->nlinks++].kicked[0] = NULL;
	return l;
}

/* The jump at @site goes to the stub of exit @l. */
static void to_stub(struct um_trans *t, const struct um_jit_link *l, u8 *site)
{
	struct um_link_sites *s = &t->link_sites[l - t->link];

	s->at[s->n++] = site;
}

void um_emit_stub(struct um_trans *t, unsigned n)
{
	struct um_link_sites *s = &t->link_sites[n];

	if (s->kicked[0]) {
		um_emit_patch_here(&t->e, s->kicked[0]);
		um_emit_patch_here(&t->e, s->kicked[1]);
		um_flags_emit_save(t, &s->flags);
	}
	t->link[n].stub = (u16)(t->e.p - t->cold_start);
	for (unsigned k = 0; k < s->n; k++)
		um_emit_patch_here(&t->e, s->at[k]);
	um_emit_exit(t, n, UM_JIT_EXIT_LINK);
}

/* Jumps that are taken if the vCPU is kicked.  Clobbers the host's flags. */
static void emit_kicked(struct um_trans *t, u8 *site[2])
{
	struct um_emit *e = &t->e;

	um_emit_rm(e, 0, 0x83, 7, H_CTX, UM_JIT_OFF(kick)); /* CMP dword, 0 */
	um_emit8(e, 0);
	site[0] = um_emit_jcc(e, CC_NZ);
	um_emit_load(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.immediate_exit));
	um_emit_rm(e, 0, 0x80, 7, H_T0, 0); /* CMP byte, 0 */
	um_emit8(e, 0);
	site[1] = um_emit_jcc(e, CC_NZ);
}

/* JMP or CALL, to be patched. */
static u8 *emit_to(struct um_emit *e, bool call)
{
	u8 *site = um_emit_jmp(e);

	if (!e->full)
		site[-1] = call ? 0xe8 : 0xe9;
	return site;
}

/*
 * A jump or @call to offset @off of the page; the flags are saved on the way, unless @skip (um_jit_link.skip) says otherwise: then it is the
 * displacement of a conditional jump to here, or NULL for the block's last way on.
 */
static void emit_link(struct um_trans *t, unsigned off, u8 *skip, bool call)
{
	struct um_flag_state before = t->flags;
	struct um_jit_link *l = new_link(t, off);
	bool back = off <= t->b->insn[t->k].off;
	/* (If it is to be left there, the flags have to be had again.) */
	bool can_skip = !(before.where & UM_FLAGS_SAVED) && (before.where & UM_FLAGS_HOST) &&
			(!back || (skip && (before.where & UM_FLAGS_RECIPE)));
	u8 *start = t->e.p, *kicked[2], *site;

	if (!l)
		return;
	um_flags_save(t);
	if (can_skip) {
		l->skip = (s32)((skip ? skip : start) - t->start);
		l->by_jcc = skip != NULL;
		l->full = skip ? (u16)(start - t->cold_start) : 0;
		l->on = back ? (u16)(t->e.p - t->cold_start) : 0;
	}
	if (back) {
		struct um_link_sites *s = &t->link_sites[l - t->link];

		emit_kicked(t, kicked);
		if (can_skip) {
			memcpy(s->kicked, kicked, sizeof(kicked));
			s->flags = before;
			s->flags.where = UM_FLAGS_RECIPE;
		} else {
			to_stub(t, l, kicked[0]);
			to_stub(t, l, kicked[1]);
		}
	}
	site = emit_to(&t->e, call);
	l->site = (s32)(site - t->start);
	to_stub(t, l, site);
	if (can_skip && !skip && site - start != SAVING)
		l->skip = 0;
}

/* The place of um_jit_link.skip if that is where the flags are saved. */
static struct um_emit saving_of(const struct um_jit_link *l)
{
	u8 *at = um_arena_rw_of(l->from->code) + l->skip;

	return (struct um_emit){ .p = at, .end = at + SAVING };
}

/* From where a far link has its stamp to the page, or target. */
#define FAR_SECOND 20

void um_emit_far_linked(struct um_jit_link *l, const struct um_jit_block *to, u64 stamp, gva_t gva)
{
	u8 *code = um_arena_rw_of(l->from->code);

	um_emit_patch(code + l->site, um_arena_rw_of(to->code));
	memcpy(code + l->skip + FAR_SECOND, &gva, sizeof(gva));
	memcpy(code + l->skip, &stamp, sizeof(stamp));
}

void um_emit_linked(struct um_jit_link *l, const struct um_jit_block *to)
{
	u8 *code = um_arena_rw_of(l->from->code), *target = um_arena_rw_of(to->code);

	um_emit_patch(code + l->site, target);
	if (!l->skip || !to->flags_dead)
		return;
	if (!l->by_jcc) {
		struct um_emit e = saving_of(l);

		um_emit_patch(um_emit_jmp(&e), target);
	} else {
		um_emit_patch(code + l->skip,
			      l->on ? um_arena_rw_of(l->from->cold) + l->on : target);
	}
}

void um_emit_unlinked(struct um_jit_link *l)
{
	u8 *code = um_arena_rw_of(l->from->code), *cold = um_arena_rw_of(l->from->cold);

	if (l->far) {
		memset(code + l->skip, 0, sizeof(u64)); /* nobody's stamp */
		return;
	}
	um_emit_patch(code + l->site, cold + l->stub);
	if (!l->skip)
		return;
	if (!l->by_jcc) {
		struct um_emit e = saving_of(l);

		um_emit_flags_save(&e, H_CTX, UM_JIT_OFF(jit.flags));
		um_emit8(&e, 0xe9); /* the jump whose displacement `site` is */
	} else {
		um_emit_patch(code + l->skip, cold + l->full);
	}
}

/* ---- the jump cache ---- */

void um_emit_jump_slot(struct um_emit *e)
{
	um_emit_rex(e, 0, H_T0, 0, H_T1); /* IMUL t0, t1, imm32 */
	um_emit8(e, 0x69);
	um_emit8(e, 0xc0 | (H_T0 & 7) << 3 | (H_T1 & 7));
	um_emit32(e, UM_JUMP_HASH);
	um_emit_shift(e, 0, 5, H_T0, 32 - UM_JIT_JUMP_BITS - 5);
	um_emit_alu_imm(e, 0, 4, H_T0, JUMP_MASK);
	um_emit_rm(e, 1, 0x03, H_T0, H_CTX, UM_JIT_OFF(jit.jump));
}

/* @l: the exit that it is if there is no entry that holds; NULL: it's the instruction's slow path. */
static void emit_lookup_or(struct um_trans *t, const struct um_jit_link *l)
{
	struct um_emit *e = &t->e;
	struct um_renewal *r;
	u8 *site;

	if (t->nrenewals == UM_MAX_LINKS) {
		t->failed = true;
		t->nrenewals = 0;
	}
	r = &t->renewal[t->nrenewals++];

	um_emit_jump_slot(e);
	um_emit_rm(e, 1, 0x39, H_T1, H_T0, offsetof(struct um_jump, lin));
	site = um_emit_jcc(e, CC_NZ);
	if (l)
		to_stub(t, l, site);
	else
		um_emit_to_slow(t, site, true);
	um_emit_load(e, 1, H_T2, H_CTX, UM_JIT_OFF(jit.stamp));
	um_emit_rm(e, 1, 0x3b, H_T2, H_T0, offsetof(struct um_jump, stamp));
	r->site = um_emit_jcc(e, CC_NZ);
	r->back = e->p;
	r->insn = t->k;
	r->link = l ? (s8)(l - t->link) : -1;
}

static void emit_lookup(struct um_trans *t)
{
	emit_lookup_or(t, NULL);
}

void um_emit_renewal(struct um_trans *t, const struct um_renewal *r)
{
	struct um_emit *e = &t->e;
	u8 *site;

	t->k = r->insn;
	um_emit_patch_here(e, r->site);
	um_emit_call(e, um_arena_code()->renew);
	site = um_emit_jcc(e, CC_Z);
	um_emit_patch_to(e, site, r->back);
	if (r->link < 0)
		um_emit_slow(t);
	else
		to_stub(t, &t->link[r->link], um_emit_jmp(e));
}

void um_emit_dead(struct um_jit_block *b)
{
	u8 *code = um_arena_rw_of(b->code);
	struct um_emit e = { .p = code, .end = code + UM_JIT_CODE_ALIGN };

	um_emit_mov_imm(&e, H_RSI, UM_JIT_EXIT(b->id, 0, UM_JIT_EXIT_ENTER));
	um_emit_jump(&e, um_arena_code()->leave);
}

static void emit_enter_page(struct um_trans *t)
{
	um_emit_alu_imm(&t->e, 1, 4, H_T1, -(s32)UM_PAGE_SIZE);
	um_emit_store(&t->e, 1, H_T1, H_CTX, UM_JIT_PAGE);
}

static void emit_jump_entry(struct um_trans *t)
{
	um_emit_rm(&t->e, 0, 0xff, 4, H_T0, offsetof(struct um_jump, code));
}

/* @host := linear address of offset @off of the page. */
static void emit_address(struct um_trans *t, unsigned host, s32 off)
{
	um_emit_load(&t->e, 1, host, H_CTX, UM_JIT_PAGE);
	um_emit_lea(&t->e, t->m64, host, host, H_RSP, 0, off);
}

/* ---- far links ---- */

/* MOV t2, imm64: to be patched.  Returns where that is. */
static u8 *emit_constant(struct um_emit *e)
{
	um_emit_rex(e, 1, 0, 0, H_T2);
	um_emit8(e, 0xb8 | (H_T2 & 7));
	um_emit64(e, 0);
	return e->p - 8;
}

/*
 * A far link of instruction @insn (UM_JIT_NO_INSN: the end of the block) begins: what is behind this comes only if it holds.  H_T2 is
 * the page, or if @by_target, H_T1 is the target and stays.
 */
static struct um_jit_link *begin_far(struct um_trans *t, unsigned insn, unsigned off,
				     bool by_target)
{
	struct um_jit_link *l = new_link(t, off);
	struct um_far *f = &t->far[t->nfar];
	struct um_emit *e = &t->e;
	u8 *stamp, *second;

	if (!l)
		return NULL;
	t->nfar++;
	f->insn = t->k;
	f->link = (u8)(l - t->link);
	l->far = true;
	l->insn = (u8)insn;
	l->by_target = by_target;
	stamp = emit_constant(e);
	um_emit_rm(e, 1, 0x39, H_T2, H_CTX, UM_JIT_OFF(jit.stamp));
	f->site[0] = um_emit_jcc(e, CC_NZ);
	second = emit_constant(e);
	if (by_target)
		um_emit_rr(e, 1, 0x39, H_T2, H_T1);
	else
		um_emit_rm(e, 1, 0x39, H_T2, H_CTX, UM_JIT_PAGE);
	f->site[1] = um_emit_jcc(e, CC_NZ);
	l->skip = (s32)(stamp - t->start);
	if (!e->full && second - stamp != FAR_SECOND)
		t->failed = true;
	return l;
}

/* It goes to offset @off from the page, which H_T2 is. */
static void end_far(struct um_trans *t, struct um_jit_link *l, s32 off, bool call)
{
	s32 page = off & ~(s32)(UM_PAGE_SIZE - 1);

	um_emit_lea(&t->e, t->m64, H_T2, H_T2, H_RSP, 0, page);
	um_emit_store(&t->e, 1, H_T2, H_CTX, UM_JIT_PAGE);
	l->site = (s32)(emit_to(&t->e, call) - t->start);
}

/*
 * A jump to offset @off from the page, of instruction @insn; or off the end of the page (UM_JIT_NO_INSN): then no instruction is left to
 * have executed, and a miss is an exit like that of a link.
 */
static void far_jump(struct um_trans *t, unsigned insn, s32 off)
{
	struct um_jit_link *l = begin_far(t, insn, (unsigned)off, false);

	if (l)
		end_far(t, l, off, false);
}

void um_emit_tail_check(struct um_trans *t)
{
	u64 page = t->tail & UM_PAGE_MASK;
	struct um_jit_link *l = new_link(t, t->b->insn[0].off);
	struct um_emit *e = &t->e;

	l->again = true;
	emit_address(t, H_T1, UM_PAGE_SIZE);
	um_emit_mov(e, 0, H_T0, H_T1);
	um_emit_shift(e, 0, 5, H_T0, UM_PAGE_SHIFT - 5);
	um_emit_alu_imm(e, 0, 4, H_T0, (UM_TLB_PAGES - 1) << 5);
	um_emit_rm(e, 1, 0x03, H_T0, H_CTX, UM_JIT_OFF(jit.fetch_tlb));
	um_emit_mov(e, 1, H_T2, H_T1);
	um_emit_rm(e, 1, 0x0b, H_T2, H_CTX, UM_JIT_OFF(jit.fetch_ctx));
	um_emit_rm(e, 1, 0x3b, H_T2, H_T0, offsetof(struct um_tlb_entry, tag[UM_FETCH]));
	to_stub(t, l, um_emit_jcc(e, CC_NZ));
	um_emit_rm(e, 1, 0x03, H_T1, H_T0, offsetof(struct um_tlb_entry, addend));
	um_emit_mov_imm(e, H_T2, page);
	um_emit_rr(e, 1, 0x3b, H_T1, H_T2);
	to_stub(t, l, um_emit_jcc(e, CC_NZ));
	um_emit_rm(e, 1, 0x0b, H_T2, H_CTX, UM_JIT_OFF(jit.doubt));
	um_emit_load(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.checked));
	um_emit_rm(e, 1, 0x3b, H_T2, H_T0,
		   (s32)((um_jit_checked_slot(t->j, page) - t->j->checked) * 8));
	to_stub(t, l, um_emit_jcc(e, CC_NZ));
}

void um_emit_goto(struct um_trans *t, unsigned off)
{
	if (off < UM_PAGE_SIZE) {
		emit_link(t, off, NULL, false);
		return;
	}
	um_flags_save(t);
	far_jump(t, UM_JIT_NO_INSN, (s32)off);
}

/* ---- instructions ---- */

static bool same_page(s64 off)
{
	return off >= 0 && off < (s64)UM_PAGE_SIZE;
}

/* @skip: as for emit_link(). */
static void jump_rel(struct um_trans *t, s64 off, u8 *skip)
{
	if (same_page(off)) {
		emit_link(t, (unsigned)off, skip, false);
		return;
	}
	um_flags_save(t);
	far_jump(t, t->k, (s32)off);
}

/* H_T1 := the target that operand 0 has. */
static void emit_target(struct um_trans *t, const struct um_insn *i)
{
	if (i->kind[0] == UM_OPD_GPR) {
		um_emit_get(t, H_T1, i->reg[0] / 8);
		return;
	}
	um_emit_linear(t, i);
	um_emit_check(t, t->m64 ? 8 : 4, UM_READ, um_window_of(t, i));
	um_emit_load(&t->e, t->m64, H_T1, H_T1, 0);
}

/* To where H_T1 says. */
static void jump_by_cache(struct um_trans *t)
{
	emit_lookup(t);
	emit_enter_page(t);
	emit_jump_entry(t);
}

static void jump_indirect(struct um_trans *t, const struct um_insn *i)
{
	struct um_jit_link *l;

	um_flags_save(t);
	emit_target(t, i);
	if (i->kind[0] == UM_OPD_GPR || i->index != UM_REG_ZERO ||
	    (i->base != UM_REG_PAGE && i->base != UM_REG_ZERO)) {
		jump_by_cache(t);
		return;
	}
	l = begin_far(t, t->k, 0, true);
	if (l) {
		emit_enter_page(t);
		l->site = (s32)(um_emit_jmp(&t->e) - t->start);
	}
}

static unsigned word(const struct um_trans *t)
{
	return t->m64 ? 8 : 4;
}

/* ---- calls and returns ---- */

/* @host is the linear address to which the call that comes now returns. */
static void emit_push_return(struct um_emit *e, unsigned host)
{
	um_emit_alu_imm(e, 1, 1, H_RSP, UM_JIT_RETURNS); /* the oldest go when there are too many */
	um_emit_push(e, host);
}

/* Behind the call: what it returned to. */
static void emit_landing(struct um_trans *t, const struct um_insn *i)
{
	t->landing = t->e.p;
	um_emit_pop(&t->e, H_T1);
	um_emit_lea(&t->e, t->m64, H_T1, H_T1, H_RSP, 0, -(s32)(i->off + i->len));
	um_emit_store(&t->e, 1, H_T1, H_CTX, UM_JIT_PAGE);
	um_emit_goto(t, i->off + i->len);
}

/* The return address is stored before the stack pointer moves: a fault of the store leaves nothing done. */
static void call_near(struct um_trans *t, const struct um_insn *i, s64 off)
{
	um_flags_save(t);
	um_emit_stack(t, -(s32)word(t), word(t), UM_WRITE);
	emit_address(t, H_T2, i->off + i->len);
	um_emit_store(&t->e, t->m64, H_T2, H_T1, 0);
	um_emit_add(t, UM_RSP, -(s32)word(t)); /* (It is in a register: H_T2 stays.) */
	emit_push_return(&t->e, H_T2);
	emit_link(t, (unsigned)off, NULL, true);
	emit_landing(t, i);
}

/* By the jump cache.  Its entry, which has the target, stays in H_T0 while the stack is looked up. */
static void call_by_cache(struct um_trans *t, const struct um_insn *i, bool rel, s64 off)
{
	struct um_emit *e = &t->e;

	if (rel)
		emit_address(t, H_T1, (s32)off);
	else
		emit_target(t, i);
	emit_lookup(t);
	t->entry_in_t0 = true;
	um_emit_stack(t, -(s32)word(t), word(t), UM_WRITE);
	t->entry_in_t0 = false;
	emit_address(t, H_T2, i->off + i->len);
	um_emit_store(e, t->m64, H_T2, H_T1, 0);
	um_emit_add(t, UM_RSP, -(s32)word(t));
	emit_push_return(e, H_T2);
	um_emit_load(e, 1, H_T1, H_T0, offsetof(struct um_jump, lin));
	emit_enter_page(t);
	um_emit_rm(e, 0, 0xff, 2, H_T0, offsetof(struct um_jump, code)); /* CALL */
}

static void call_indirect(struct um_trans *t, const struct um_insn *i)
{
	um_flags_save(t);
	call_by_cache(t, i, false, 0);
	emit_landing(t, i);
}

/* To another page. */
static void call_far(struct um_trans *t, const struct um_insn *i, s64 off)
{
	struct um_emit *e = &t->e;
	struct um_jit_link *l;

	um_flags_save(t);
	um_emit_stack(t, -(s32)word(t), word(t), UM_WRITE);
	l = begin_far(t, t->k, 0, false);
	if (!l)
		return;
	um_emit_lea(e, t->m64, H_T0, H_T2, H_RSP, 0, i->off + i->len);
	um_emit_store(e, t->m64, H_T0, H_T1, 0);
	um_emit_add(t, UM_RSP, -(s32)word(t));
	emit_push_return(e, H_T0);
	end_far(t, l, (s32)off, true);
	emit_landing(t, i);
}

void um_emit_far(struct um_trans *t, const struct um_far *f)
{
	const struct um_insn *i = &t->b->insn[f->insn];
	const struct um_jit_link *l = &t->link[f->link];
	struct um_emit *e = &t->e;
	u8 *often, *back;

	t->k = f->insn;
	um_emit_patch_here(e, f->site[0]);
	um_emit_patch_here(e, f->site[1]);
	um_emit_rm(e, 0, 0x83, 5, H_CTX, UM_JIT_OFF(far_patience)); /* SUB dword, 1 */
	um_emit8(e, 1);
	often = um_emit_jcc(e, CC_S);
	if (l->insn == UM_JIT_NO_INSN) {
		to_stub(t, l, often);
		emit_address(t, H_T1, l->off);
		emit_lookup_or(t, l);
		emit_enter_page(t);
		emit_jump_entry(t);
		return;
	}
	um_emit_to_slow(t, often, true);
	if (l->by_target) {
		jump_by_cache(t);
	} else if (i->op == ZYDIS_MNEMONIC_CALL) {
		call_by_cache(t, i, true, um_target_of(i));
		back = um_emit_jmp(e);
		um_emit_patch_to(e, back, t->landing);
	} else {
		emit_address(t, H_T1, (s32)um_target_of(i));
		jump_by_cache(t);
	}
}

static void emit_pop_return(struct um_trans *t, const struct um_insn *i)
{
	um_emit_add(t, UM_RSP, (s32)(word(t) + (i->nops ? (u16)i->imm : 0)));
}

static void ret(struct um_trans *t, const struct um_insn *i)
{
	s32 off = 0;

	um_flags_save(t);
	if (!um_in_run(t, &off))
		um_emit_stack(t, 0, word(t), UM_READ);
	um_emit_load(&t->e, t->m64, H_T1, H_T1, off);
	um_emit_rm(&t->e, 1, 0x39, H_T1, H_RSP, 8);
	t->no_match = um_emit_jcc(&t->e, CC_NZ);
	emit_pop_return(t, i);
	um_emit8(&t->e, 0xc3);
}

void um_emit_other_return(struct um_trans *t)
{
	t->k = t->b->ninsns - 1u;
	um_emit_patch_here(&t->e, t->no_match);
	um_emit_forget_returns(&t->e);
	emit_lookup(t);
	emit_pop_return(t, &t->b->insn[t->k]);
	emit_enter_page(t);
	emit_jump_entry(t);
}

/* The condition code that Jcc has in its opcode. */
static unsigned condition(const struct um_trans *t, const struct um_insn *i)
{
	const u8 *end = um_bytes_of(t, i) + i->len;

	/* Either a byte of displacement behind 70h + cc, or four (two with 66h: not for us) behind 0F 80h + cc. */
	if (i->len >= 6 && end[-6] == 0x0f)
		return end[-5] & 15;
	return end[-2] & 15;
}

static void jcc(struct um_trans *t, const struct um_insn *i)
{
	struct um_cold *c = &t->cold[t->ncold++];

	um_flags_want(t);
	c->insn = t->k;
	c->flags = t->flags;
	c->site = um_emit_jcc(&t->e, condition(t, i) ^ um_is_followed(t, t->k));
}

void um_emit_cold_jump(struct um_trans *t, const struct um_cold *c)
{
	const struct um_insn *i = &t->b->insn[c->insn];

	t->k = c->insn;
	t->flags = c->flags;
	um_emit_patch_here(&t->e, c->site);
	if (t->choice.stage == UM_JIT_NEW && um_is_forward(i)) {
		um_flags_save(t);
		um_emit_count(&t->e, &um_block_of(t)->taken[c - t->cold], 0);
	}
	jump_rel(t, um_is_followed(t, t->k) ? i->off + i->len : um_target_of(i), c->site);
}

static bool takes_operand(const struct um_trans *t, const struct um_insn *i)
{
	return i->kind[0] == UM_OPD_GPR || (i->kind[0] == UM_OPD_MEM && um_segment_ok(t, i));
}

bool um_branch_ok(const struct um_trans *t, const struct um_insn *i)
{
	bool rel = i->kind[0] == UM_OPD_REL;

	if ((i->flags & (UM_INSN_FAR | UM_INSN_UD)) || (!t->m64 && i->osz != 4))
		return false;
	if (um_is_jcc(i))
		return t->m64 || i->osz == 4;
	switch (i->op) {
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
		return rel || takes_operand(t, i);
	case ZYDIS_MNEMONIC_RET:
		return true;
	}
	return false;
}

bool um_emit_branch(struct um_trans *t, const struct um_insn *i)
{
	bool rel = i->kind[0] == UM_OPD_REL;

	if (!um_branch_ok(t, i))
		return false;
	if (um_is_jcc(i))
		jcc(t, i);
	else if (i->op == ZYDIS_MNEMONIC_RET)
		ret(t, i);
	else if (i->op == ZYDIS_MNEMONIC_JMP && rel)
		jump_rel(t, um_target_of(i), NULL);
	else if (i->op == ZYDIS_MNEMONIC_JMP)
		jump_indirect(t, i);
	else if (rel && same_page(um_target_of(i)))
		call_near(t, i, um_target_of(i));
	else if (rel)
		call_far(t, i, um_target_of(i));
	else
		call_indirect(t, i);
	return true;
}

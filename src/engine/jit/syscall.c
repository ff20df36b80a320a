// SPDX-License-Identifier: MIT
/*
 * SYSCALL and SYSRETQ in translated code, the way that 64-bit kernels use them; all else is the
 * interpreter's (engine/system/syscall.c).
 *
 * A block makes sure of the usual: RFLAGS.AC is clear before and after, so the kernel's windows are
 * of the context that the kernel comes back to, and nothing has its alignment checked; TF will be
 * clear; nobody waits for IF; SYSRETQ's target is in the lower half, so canonical.  Then a routine
 * does everything that is left, and goes on at the target by way of the jump cache: without a way
 * back to the instruction.  If the target isn't in there, the exit says to look where cpu.rip is
 * (UM_JIT_GO_ON).
 *
 * The stamp that entries of the jump cache must have depends on the CPL.  Only its lower half is
 * written here: the upper one is what a kick writes (um_exec_kick()), so none is lost.
 */
#include "cpu/segment.h"
#include "engine/jit/trans.h"

#define CPU(field) UM_JIT_OFF(cpu.field)

static void store8(struct um_emit *e, s32 off, unsigned imm)
{
	um_emit_rm(e, 0, 0xc6, 0, H_CTX, off);
	um_emit8(e, imm);
}

static void store16(struct um_emit *e, unsigned reg, s32 off)
{
	um_emit8(e, 0x66);
	um_emit_store(e, 0, reg, H_CTX, off);
}

/* ---- routines ---- */

/* H_T0, an image of RFLAGS, is the new one.  Clobbers H_T0. */
static void put_rflags(struct um_emit *e)
{
	um_emit_alu_imm(e, 0, 1, H_T0, RFLAGS_FIXED1);
	um_emit_store(e, 1, H_T0, H_CTX, CPU(rflags));
	um_emit_alu_imm(e, 0, 4, H_T0, RFLAGS_STATUS);
	um_emit_alu_imm(e, 0, 1, H_T0, UM_JIT_HOST_FLAGS);
	um_emit_store(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.flags));
}

/* Segment @seg := @s with the selector in H_T0.  Clobbers H_T2. */
static void put_segment(struct um_emit *e, enum um_seg seg, const struct um_segment *s)
{
	const s32 off = CPU(seg) + (s32)seg * (s32)sizeof(*s),
		  sel = (s32)offsetof(struct um_segment, selector),
		  rest = (s32)offsetof(struct um_segment, s);
	u32 w[3];

	_Static_assert(offsetof(struct um_segment, selector) == 12 && sizeof(*s) == 24,
		       "three words from the selector on");
	memcpy(w, &s->selector, sizeof(w));
	um_emit_mov(e, 0, H_T2, H_T0);
	um_emit_alu_imm(e, 0, 4, H_T2, 0xffff);
	um_emit_alu_imm(e, 0, 1, H_T2, (s32)(w[0] & 0xffff0000));
	um_emit_store_imm(e, 1, off + (s32)offsetof(struct um_segment, base), 0);
	um_emit_store_imm(e, 0, off + (s32)offsetof(struct um_segment, limit), s->limit);
	um_emit_store(e, 0, H_T2, H_CTX, off + sel);
	um_emit_store_imm(e, 0, off + rest, w[1]);
	um_emit_store_imm(e, 0, off + rest + 4, w[2]);
}

/*
 * The contexts in which data is accessed and code fetched are now those of CPL 3 (@user) or 0.
 * Clobbers H_T0, H_T2.
 */
static void put_contexts(struct um_emit *e, bool user)
{
	const s32 to = user ? UM_JIT_OFF(jit.user) : UM_JIT_OFF(jit.kernel[0]),
		  ctx = to + (s32)offsetof(struct um_jit_context, ctx);
	const s32 key = (s32)UM_JIT_KEY_USER << UM_STAMP_KEY_SHIFT;

	store8(e, CPU(cpl), user ? 3 : 0);
	store8(e, UM_JIT_OFF(priv), user ? UM_PRIV_USER : UM_PRIV_KERNEL);
	um_emit_load(e, 1, H_T0, H_CTX, to + (s32)offsetof(struct um_jit_context, tlb));
	um_emit_store(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.tlb));
	um_emit_store(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.fetch_tlb));
	um_emit_load(e, 0, H_T0, H_CTX, ctx);
	um_emit_store(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.ctx));
	um_emit_store(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.fetch_ctx));
	store16(e, H_T0, UM_JIT_OFF(ctx));
	store16(e, H_T0, UM_JIT_OFF(fetch_ctx));
	um_emit_rm(e, 0, 0x80, user ? 1 : 4, H_CTX, UM_JIT_OFF(jit_key)); /* OR, AND byte */
	um_emit8(e, user ? UM_JIT_KEY_USER : 0xff & ~UM_JIT_KEY_USER);
	um_emit_load(e, 0, H_T2, H_CTX, UM_JIT_OFF(jit.stamp));
	um_emit_alu_imm(e, 0, 4, H_T2, ~(key | ((1 << UM_STAMP_KEY_SHIFT) - 1)));
	um_emit_rr(e, 0, 0x0b, H_T2, H_T0);
	um_emit_rm(e, 0, 0x0b, H_T2, H_CTX, UM_JIT_OFF(jit_seq) + (user ? 4 : 0));
	um_emit_store(e, 0, H_T2, H_CTX, UM_JIT_OFF(jit.stamp));
}

/* Go on at H_T1.  H_T2 is the stamp's lower half. */
static void go_on(struct um_emit *e)
{
	u8 *miss[2], *renew[2], *hit;

	um_emit_forget_returns(e); /* they are another privilege's */
	um_emit_jump_slot(e);
	um_emit_rm(e, 1, 0x39, H_T1, H_T0, offsetof(struct um_jump, lin));
	miss[0] = um_emit_jcc(e, CC_NZ);
	/*
	 * (By halves: the whole was not written at once, which the host doesn't forward to a load.)
	 */
	um_emit_rm(e, 0, 0x3b, H_T2, H_T0, offsetof(struct um_jump, stamp));
	renew[0] = um_emit_jcc(e, CC_NZ);
	um_emit_load(e, 0, H_T2, H_CTX, UM_JIT_OFF(jit.stamp) + 4);
	um_emit_rm(e, 0, 0x3b, H_T2, H_T0, offsetof(struct um_jump, stamp) + 4);
	renew[1] = um_emit_jcc(e, CC_NZ);
	hit = e->p;
	um_emit_alu_imm(e, 1, 4, H_T1, -(s32)UM_PAGE_SIZE);
	um_emit_store(e, 1, H_T1, H_CTX, um_jit_gpr(UM_REG_PAGE));
	um_emit_rm(e, 0, 0xff, 4, H_T0, offsetof(struct um_jump, code));
	for (unsigned n = 0; n < ARRAY_SIZE(renew); n++)
		um_emit_patch(renew[n], e->p);
	um_emit_call(e, um_arena_code()->renew);
	um_emit_patch(um_emit_jcc(e, CC_Z), hit);
	um_emit_patch(miss[0], e->p);
	um_emit_store(e, 1, H_T1, H_CTX, CPU(rip));
	um_emit_mov_imm(e, H_RSI, UM_JIT_EXIT(0, UM_JIT_GO_ON, UM_JIT_EXIT_STOP));
	um_emit_jump(e, um_arena_code()->leave);
}

void um_emit_syscall_routine(struct um_emit *e)
{
	const struct um_segment cs = um_segment_flat_code(0, 0, true),
				ss = um_segment_flat_data(0, 0);

	um_emit_mov(e, 1, H_RCX, H_T1);
	um_emit_load(e, 0, H_T0, H_CTX, CPU(rflags));
	um_emit_alu_imm(e, 0, 4, H_T0, (s32) ~(RFLAGS_STATUS | RFLAGS_RF));
	um_emit_load(e, 0, H_T2, H_CTX, UM_JIT_OFF(jit.flags));
	um_emit_alu_imm(e, 0, 4, H_T2, RFLAGS_STATUS);
	um_emit_rr(e, 0, 0x0b, H_T0, H_T2);
	um_emit_alu_imm(e, 0, 1, H_T0, RFLAGS_FIXED1);
	um_emit_store(e, 1, H_T0, H_CTX, um_jit_gpr(UM_R11));
	um_emit_load(e, 0, H_T2, H_CTX, CPU(msr.sfmask));
	um_emit_rr(e, 0, 0xf7, 2, H_T2); /* NOT */
	um_emit_rr(e, 0, 0x23, H_T0, H_T2);
	put_rflags(e);
	um_emit_load(e, 0, H_T0, H_CTX, CPU(msr.star) + 4);
	um_emit_alu_imm(e, 0, 4, H_T0, 0xfffc);
	put_segment(e, UM_CS, &cs);
	um_emit_alu_imm(e, 0, 0, H_T0, 8);
	put_segment(e, UM_SS, &ss);
	put_contexts(e, false);
	um_emit_load(e, 1, H_T1, H_CTX, CPU(msr.lstar));
	go_on(e);
}

void um_emit_sysret_routine(struct um_emit *e)
{
	const struct um_segment cs = um_segment_flat_code(0, 3, true),
				ss = um_segment_flat_data(0, 3);

	um_emit_load(e, 0, H_T0, H_CTX, um_jit_gpr(UM_R11));
	um_emit_alu_imm(e, 0, 4, H_T0, (s32)(RFLAGS_ALL & ~(RFLAGS_RF | RFLAGS_VM)));
	put_rflags(e);
	um_emit_load(e, 0, H_T0, H_CTX, CPU(msr.star) + 4);
	um_emit_shift(e, 0, 5, H_T0, 16);
	um_emit_alu_imm(e, 0, 0, H_T0, 16);
	um_emit_alu_imm(e, 0, 1, H_T0, 3);
	put_segment(e, UM_CS, &cs);
	um_emit_load(e, 0, H_T0, H_CTX, CPU(msr.star) + 4);
	um_emit_shift(e, 0, 5, H_T0, 16);
	um_emit_alu_imm(e, 0, 0, H_T0, 8);
	um_emit_alu_imm(e, 0, 1, H_T0, 3);
	put_segment(e, UM_SS, &ss);
	put_contexts(e, true);
	um_emit_mov(e, 1, H_T1, H_RCX);
	go_on(e);
}

/* ---- instructions ---- */

static void need_usual(struct um_trans *t)
{
	um_emit_test32(&t->e, CPU(efer), EFER_SCE);
	um_emit_slow_if(t, CC_Z);
	um_emit_rm(&t->e, 0, 0x83, 7, H_CTX, UM_JIT_OFF(special)); /* CMP dword, 0 */
	um_emit8(&t->e, 0);
	um_emit_slow_if(t, CC_NZ);
	/*
	 * (Data breakpoints that the VMM has set: no context is one in which accesses hit the TLB.)
	 */
	um_emit_rm(&t->e, 0, 0x83, 7, H_CTX, UM_JIT_OFF(jit.user.ctx));
	um_emit8(&t->e, 0);
	um_emit_slow_if(t, CC_Z);
	um_emit_test32(&t->e, CPU(rflags), RFLAGS_AC);
	um_emit_slow_if(t, CC_NZ);
}

static void emit_syscall(struct um_trans *t, const struct um_insn *i)
{
	struct um_emit *e = &t->e;

	need_usual(t);
	um_emit_load(e, 1, H_T1, H_CTX, um_jit_gpr(UM_REG_PAGE));
	um_emit_lea(e, 1, H_T1, H_T1, H_RSP, 0, i->off + i->len);
	um_emit_jump(e, um_arena_code()->syscall);
}

static void emit_sysret(struct um_trans *t)
{
	struct um_emit *e = &t->e;

	um_emit_rm(e, 0, 0x80, 7, H_CTX, CPU(cpl)); /* CMP byte, 0 */
	um_emit8(e, 0);
	um_emit_slow_if(t, CC_NZ);
	need_usual(t);
	um_emit_test32(e, um_jit_gpr(UM_R11), RFLAGS_TF | RFLAGS_AC);
	um_emit_slow_if(t, CC_NZ);
	um_emit_mov(e, 1, H_T1, H_RCX);
	um_emit_shift(e, 1, 5, H_T1, 47);
	um_emit_slow_if(t, CC_NZ);
	um_emit_jump(e, um_arena_code()->sysret);
}

bool um_syscall_ok(const struct um_trans *t, const struct um_insn *i)
{
	bool user = t->key & UM_JIT_KEY_USER;

	/*
	 * In lockstep, one of both engines must be able to stop before what the other has not
	 * executed.
	 */
	if (t->x->lockstep || !t->m64 || (i->flags & (UM_INSN_UD | UM_INSN_TOOLONG | UM_INSN_LOCK)))
		return false;
	return i->op == ZYDIS_MNEMONIC_SYSCALL	? user
	       : i->op == ZYDIS_MNEMONIC_SYSRET ? !user && i->osz == 8
						: false;
}

void um_emit_syscall(struct um_trans *t, const struct um_insn *i)
{
	um_flags_save(t);
	t->slow_flags[t->k] = t->flags;
	if (i->op == ZYDIS_MNEMONIC_SYSCALL)
		emit_syscall(t, i);
	else
		emit_sysret(t);
}

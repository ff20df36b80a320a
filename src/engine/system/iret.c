// SPDX-License-Identifier: MIT
/*
 * IRET (SDM vol. 2 IRET/IRETD/IRETQ, vol. 3 20.2.1, 20.3): from real and virtual-8086 mode, to the
 * same and outer privilege, to virtual-8086 mode, to another task, and in 64-bit mode, where SS:RSP
 * is always popped.
 *
 * Which bits of RFLAGS a return may change:
 *   status, TF, DF, NT (and with 32 or 64 bits RF, AC, ID)  always
 *   IF                                                     CPL <= IOPL
 *   IOPL, and with 32 or 64 bits VIF, VIP                   CPL = 0
 *   VM                                                     only by a return to virtual-8086 mode
 */
#include <string.h>

#include "engine/system/system.h"

#define FLAGS16 (RFLAGS_STATUS | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT)

/* New RFLAGS: the bits in @mask from @image, the others from @old. */
static u64 merge_flags(u64 old, u64 image, u64 mask)
{
	return (old & ~mask) | (image & mask) | RFLAGS_FIXED1;
}

/* Bits that an image of @osz bytes carries to a return at @c->cpl. */
static u64 flags_mask(const struct um_cpu *c, unsigned osz)
{
	u64 mask = FLAGS16;

	if (osz != 2)
		mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
	if (c->cpl == 0) {
		if (osz != 2)
			mask |= RFLAGS_VIF | RFLAGS_VIP;
	} else {
		mask &= ~RFLAGS_IOPL;
		if (c->cpl > um_sys_iopl(c))
			mask &= ~RFLAGS_IF;
	}
	return mask;
}

/* The three values that every IRET pops, from the current stack. */
static bool pop3(struct um_exec *x, unsigned osz, u64 v[3])
{
	for (unsigned k = 0; k < 3; k++)
		if (!um_stack_peek(x, k * osz, &v[k], osz))
			return false;
	return true;
}

static bool iret_real(struct um_exec *x, unsigned osz)
{
	struct um_cpu *c = &x->cpu;
	u64 v[3], mask = FLAGS16 | (osz == 4 ? RFLAGS_RF | RFLAGS_AC | RFLAGS_ID : 0);

	if (!pop3(x, osz, v))
		return false;
	if (v[0] > c->seg[UM_CS].limit)
		return um_sys_gp0(x);
	c->gpr[UM_RSP] = um_sys_merge_sp(c->gpr[UM_RSP], c->gpr[UM_RSP] + 3 * osz, x->sp_mask);
	um_sys_load_real(c, UM_CS, v[1]);
	c->rip = v[0];
	c->rflags = merge_flags(c->rflags, v[2], mask);
	return true;
}

static bool iret_vm86(struct um_exec *x, unsigned osz)
{
	struct um_cpu *c = &x->cpu;
	u64 v[3], mask = FLAGS16 & ~RFLAGS_IOPL, image;

	if (um_sys_iopl(c) < 3 && (!(c->cr4 & CR4_VME) || osz != 2))
		return um_sys_gp0(x);
	if (!pop3(x, osz, v))
		return false;
	if (v[0] > 0xffff)
		return um_sys_gp0(x);
	image = v[2];
	if (um_sys_iopl(c) == 3) {
		if (osz == 4)
			mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
	} else {
		/* Virtual interrupts: the image's IF goes to VIF (20.3.3). */
		if ((image & RFLAGS_TF) || ((image & RFLAGS_IF) && (c->rflags & RFLAGS_VIP)))
			return um_sys_gp0(x);
		image = image & RFLAGS_IF ? image | RFLAGS_VIF : image & ~RFLAGS_VIF;
		mask = (mask & ~RFLAGS_IF) | RFLAGS_VIF;
	}
	c->gpr[UM_RSP] = um_sys_merge_sp(c->gpr[UM_RSP], c->gpr[UM_RSP] + 3 * osz, x->sp_mask);
	um_sys_load_real(c, UM_CS, v[1]);
	c->rip = v[0];
	c->rflags = merge_flags(c->rflags, image, mask);
	return true;
}

/* From CPL 0 to virtual-8086 mode; @v: EIP, CS, EFLAGS. */
static bool iret_to_vm86(struct um_exec *x, const u64 *v)
{
	static const u8 order[] = { UM_SS, UM_ES, UM_DS, UM_FS, UM_GS };
	struct um_cpu *c = &x->cpu;
	u64 esp, sel[ARRAY_SIZE(order)];

	if (!um_stack_peek(x, 12, &esp, 4))
		return false;
	for (unsigned k = 0; k < ARRAY_SIZE(order); k++)
		if (!um_stack_peek(x, 16 + 4 * k, &sel[k], 4))
			return false;
	if (v[0] > 0xffff)
		return um_sys_gp0(x);
	for (unsigned k = 0; k < ARRAY_SIZE(order); k++)
		c->seg[order[k]] = um_segment_vm86(sel[k]);
	c->seg[UM_CS] = um_segment_vm86(v[1]);
	c->gpr[UM_RSP] = (u32)esp;
	c->rip = v[0];
	c->rflags = (v[2] & RFLAGS_ALL) | RFLAGS_FIXED1;
	c->cpl = 3;
	return true;
}

/* NT is set: back to the task that the back link names.  */
static bool iret_task(struct um_exec *x, u64 next, struct um_task_result *task)
{
	struct um_cpu *c = &x->cpu;
	struct um_sys_desc d;
	unsigned type;
	u16 sel;

	if (um_cpu_long_mode(c))
		return um_sys_gp0(x);
	if (!um_sys_table_read(x, c->tr.base, &sel, 2, 0))
		return false;
	if (SEL_IS_NULL(sel) || SEL_TI(sel))
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(sel));
	if (!um_sys_desc_read(x, sel, UM_VEC_TS, 0, &d))
		return false;
	type = um_desc_s(d.lo) ? 0 : um_desc_type(d.lo);
	if (type != UM_SYS_TSS16_BUSY && type != UM_SYS_TSS_BUSY)
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(sel));
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel));
	return um_sys_task_switch(x, UM_TASK_IRET, sel, &d, next, NULL, 0, task);
}

/* Privilege and stack change as in RET, from a frame of @osz slots. */
static bool iret_protected(struct um_exec *x, unsigned osz)
{
	struct um_cpu *c = &x->cpu;
	u64 v[3], rsp, ss_sel, mask;
	struct um_segment cs, ss;
	bool outer;

	if (!pop3(x, osz, v))
		return false;
	if ((v[2] & RFLAGS_VM) && osz == 4 && c->cpl == 0 && !um_cpu_long_mode(c))
		return iret_to_vm86(x, v);
	if (!um_sys_check_return_cs(x, v[1], &cs))
		return false;
	outer = SEL_RPL(cs.selector) > c->cpl || um_cpu_64bit(c);
	if (outer &&
	    (!um_stack_peek(x, 3 * osz, &rsp, osz) || !um_stack_peek(x, 4 * osz, &ss_sel, osz) ||
	     !um_sys_check_return_ss(x, ss_sel, &cs, &ss)))
		return false;
	if (!um_sys_check_rip(x, &cs, v[0], 0))
		return false;

	c->rflags = merge_flags(c->rflags, v[2], flags_mask(c, osz));
	c->seg[UM_CS] = cs;
	c->rip = v[0];
	if (!outer) {
		c->gpr[UM_RSP] =
			um_sys_merge_sp(c->gpr[UM_RSP], c->gpr[UM_RSP] + 3 * osz, x->sp_mask);
		return true;
	}
	c->seg[UM_SS] = ss;
	/*
	 * A 16-bit stack takes only SP from the frame: the upper half of ESP keeps the inner
	 * stack's, as on the processors that kernels work around.
	 */
	mask = um_cpu_64bit(c) ? ~0ull : um_sys_sp_mask(&ss);
	c->gpr[UM_RSP] = um_sys_merge_sp(c->gpr[UM_RSP], rsp, mask);
	if (SEL_RPL(cs.selector) > c->cpl) {
		c->cpl = SEL_RPL(cs.selector);
		um_sys_null_inner_segments(c, c->cpl);
	}
	return true;
}

/*
 * 64-bit mode, 64-bit operands: the return of every kernel from its exceptions and interrupts.  The
 * frame is read in one piece.  @same_mode: the target is 64-bit code, too.
 */
static bool iretq(struct um_exec *x, bool *same_mode)
{
	struct um_cpu *c = &x->cpu;
	u64 v[5]; /* RIP, CS, RFLAGS, RSP, SS */
	struct um_segment cs, ss;
	gva_t gva;

	if (!likely(um_sys_get_words(x, c->gpr[UM_RSP], v, 5, x->ctx)) &&
	    (!um_linear(x, UM_SS, c->gpr[UM_RSP], sizeof(v), UM_READ, &gva) ||
	     !um_check_align(x, gva, 8) || !um_lin_read(x, gva, v, sizeof(v))))
		return false;
	if (!um_sys_check_return_cs(x, v[1], &cs) || !um_sys_check_return_ss(x, v[4], &cs, &ss) ||
	    !um_sys_check_rip(x, &cs, v[0], 0))
		return false;

	c->rflags = merge_flags(c->rflags, v[2], flags_mask(c, 8));
	c->seg[UM_CS] = cs;
	c->seg[UM_SS] = ss;
	c->rip = v[0];
	c->gpr[UM_RSP] = um_sys_merge_sp(c->gpr[UM_RSP], v[3], cs.l ? ~0ull : um_sys_sp_mask(&ss));
	if (SEL_RPL(cs.selector) > c->cpl) {
		c->cpl = SEL_RPL(cs.selector);
		um_sys_null_inner_segments(c, c->cpl);
	}
	*same_mode = cs.l;
	return true;
}

const struct um_insn *um_sysop_iret(struct um_exec *x, const struct um_insn *i)
{
	struct um_cpu *c = &x->cpu;
	struct um_task_result task = { 0 };
	bool ok, same_mode = false;
	u64 next = um_next_rip(x, i);

	/* The flags that the return keeps are in the engine's form. */
	c->rflags = um_get_rflags(x);
	/* NMIs are unblocked even by an IRET that faults (SDM vol. 3 6.7.1, 26.3). */
	c->nmi_masked = false;

	if (c->rflags & RFLAGS_VM)
		ok = iret_vm86(x, i->osz);
	else if (!(c->cr0 & CR0_PE))
		ok = iret_real(x, i->osz);
	else if (c->rflags & RFLAGS_NT)
		ok = iret_task(x, next, &task);
	else if (x->mode == UM_MODE_64 && i->osz == 8)
		ok = iretq(x, &same_mode);
	else
		ok = iret_protected(x, i->osz);

	if (unlikely(!ok || task.committed))
		return um_sys_task_end(x, i, ok, &task);
	if (likely(same_mode)) {
		um_set_status(x, c->rflags);
		um_sys_sync_cpl64(x);
	} else {
		um_exec_sync(x);
	}
	return NULL;
}

// SPDX-License-Identifier: MIT
/*
 * Delivery of exceptions and interrupts (SDM vol. 3 ch. 6; 20.1.4 for real mode, 20.2-20.3 for
 * virtual-8086 mode), and the instructions that ask for it: INT n, INT3, INTO, INT1.
 *
 * A delivery reads its way from IDT to gate to code segment to stack, with the new state in local
 * variables; the frame is written last, then everything is committed.  So a delivery that faults
 * has changed nothing but, on a faulting frame, bytes below the stack pointer.  Two exceptions:
 *   - CR2 and DR6 are written first: they belong to the event, not to its delivery, and keep their
 *     values when a double fault takes the event's place;
 *   - a task gate commits to the new task before it loads that task's segments (SDM vol. 3 7.3).
 *
 * Error codes of faults in here (6.13): vector * 8 + IDT (2) + EXT, or selector + EXT.  EXT is 0
 * for what the program asked for (INT n, INT3, INTO), else 1.
 */
#include "engine/system/system.h"

struct delivery {
	const struct um_event *e;
	u64 rip;   /* to save */
	u64 flags; /* image to save */
	u32 ext;
	bool soft; /* the gate's DPL is checked */
};

static u32 idt_error(const struct delivery *d)
{
	return d->e->vector * 8 + 2 + d->ext;
}

static void apply_payload(struct um_cpu *c, const struct um_event *e)
{
	if (e->kind != UM_EVENT_FAULT && e->kind != UM_EVENT_TRAP && e->kind != UM_EVENT_PRIV_EXC)
		return;
	if (e->kind == UM_EVENT_FAULT && e->vector == UM_VEC_PF)
		c->cr2 = e->payload;
	else if (e->vector == UM_VEC_DB && e->payload)
		c->dr6 = (c->dr6 & (DR6_BD | DR6_BS | DR6_BT)) | DR6_FIXED1 | e->payload;
}

/* What the start of a debug handler turns off (SDM vol. 3 17.2.4 GD, 17.4.1 LBR and BTF). */
static void entered(struct um_cpu *c, const struct um_event *e)
{
	if (e->vector == UM_VEC_DB && e->kind != UM_EVENT_SOFT_INT && e->kind != UM_EVENT_EXTINT) {
		c->dr7 &= ~DR7_GD;
		c->msr.debugctl &= ~3ull;
	}
	if (e->kind == UM_EVENT_NMI)
		c->nmi_masked = true;
	c->int_shadow = 0;
}

/* Through a table of real-mode pointers at @table; flags as in vm86 with VME are the caller's. */
static bool deliver_ivt(struct um_exec *x, const struct delivery *d, gva_t table, u64 new_flags)
{
	struct um_cpu *c = &x->cpu;
	struct um_sys_stack st = um_sys_current_stack(c, d->ext);
	u64 frame[] = { d->rip, c->seg[UM_CS].selector, d->flags };
	u16 p[2]; /* IP, CS */

	if (!um_sys_table_read(x, table + d->e->vector * 4u, p, 4, d->ext))
		return false;
	if (!um_sys_push_frame(x, &st, frame, 3, 2))
		return false;
	c->gpr[UM_RSP] = st.sp;
	um_sys_load_real(c, UM_CS, p[1]);
	c->rip = p[0];
	c->rflags = new_flags;
	return true;
}

static bool deliver_real(struct um_exec *x, const struct delivery *d)
{
	struct um_cpu *c = &x->cpu;

	if (d->e->vector * 4u + 3 > c->idt.limit)
		return um_raise_code(x, UM_VEC_GP, idt_error(d));
	return deliver_ivt(x, d, c->idt.base,
			   c->rflags & ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF));
}

/*
 * INT n in virtual-8086 mode (SDM vol. 3 table 20-2).  *@done: it went to the 8086 program's own
 * handler; else it is for the IDT.
 */
static bool soft_int_vm86(struct um_exec *x, const struct delivery *d, bool *done)
{
	struct um_cpu *c = &x->cpu;
	struct delivery redirected = *d;
	u64 flags = c->rflags & ~(RFLAGS_TF | RFLAGS_RF);
	u16 io_base;
	u8 map;

	*done = false;
	if (c->cr4 & CR4_VME) {
		/* The redirection map is the 32 bytes below the I/O permission map. */
		if (c->tr.limit < 0x67 || !(c->tr.type & 8))
			return um_sys_gp0(x);
		if (!um_sys_table_read(x, c->tr.base + 0x66, &io_base, 2, 0))
			return false;
		io_base -= 32 - d->e->vector / 8;
		if (io_base > c->tr.limit)
			return um_sys_gp0(x);
		if (!um_sys_table_read(x, c->tr.base + io_base, &map, 1, 0))
			return false;
		if (!(map >> (d->e->vector & 7) & 1)) {
			if (um_sys_iopl(c) == 3) {
				flags &= ~RFLAGS_IF;
			} else {
				/* The program sees IOPL 3 and VIF in the place of IF. */
				redirected.flags = (d->flags & ~RFLAGS_IF) | RFLAGS_IOPL |
						   (c->rflags & RFLAGS_VIF ? RFLAGS_IF : 0);
				flags &= ~RFLAGS_VIF;
			}
			*done = true;
			return deliver_ivt(x, &redirected, 0, flags);
		}
	}
	return um_sys_iopl(c) == 3 || um_sys_gp0(x);
}

/* The code segment of an interrupt or trap gate. */
static bool gate_code(struct um_exec *x, u16 sel, u32 ext, struct um_segment *cs)
{
	const struct um_cpu *c = &x->cpu;
	bool conforming, bad;
	struct um_sys_desc d;
	unsigned dpl, cpl;

	if (SEL_IS_NULL(sel))
		return um_raise_code(x, UM_VEC_GP, ext);
	if (!um_sys_desc_read(x, sel, UM_VEC_GP, ext, &d))
		return false;
	dpl = um_desc_dpl(d.lo);
	conforming = um_desc_is_conforming(d.lo);
	bad = !um_desc_is_code(d.lo) || dpl > c->cpl;
	if (um_cpu_long_mode(c))
		bad |= !um_desc_l(d.lo) || um_desc_db(d.lo);
	/* From virtual-8086 mode only to privilege 0. */
	if (c->rflags & RFLAGS_VM)
		bad |= conforming || dpl != 0;
	if (bad)
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel) | ext);
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel) | ext);
	if (!um_sys_desc_accessed(x, &d, ext))
		return false;
	cpl = conforming ? c->cpl : dpl;
	*cs = um_segment_unpack((sel & ~3u) | cpl, d.lo, 0);
	return true;
}

static u64 handler_flags(const struct um_cpu *c, unsigned gate_type)
{
	u64 clear = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM;

	/* Interrupt gates have an even type, trap gates an odd one. */
	return c->rflags & ~(clear | (gate_type & 1 ? 0 : RFLAGS_IF));
}

/* IA-32e mode (SDM vol. 3 6.14). */
static bool deliver_64(struct um_exec *x, const struct delivery *d)
{
	struct um_cpu *c = &x->cpu;
	unsigned type, cpl, n = 0;
	struct um_segment cs;
	struct um_sys_stack st = { .mask = ~0ull, .err = d->ext };
	u64 gate[2], rip, frame[6];

	if (d->e->vector * 16u + 15 > c->idt.limit)
		return um_raise_code(x, UM_VEC_GP, idt_error(d));
	if (!um_sys_table_words(x, c->idt.base + d->e->vector * 16u, gate, 2, d->ext))
		return false;
	type = um_desc_s(gate[0]) ? 0 : um_desc_type(gate[0]);
	if ((type != UM_SYS_INTGATE && type != UM_SYS_TRAPGATE) ||
	    (d->soft && um_desc_dpl(gate[0]) < c->cpl))
		return um_raise_code(x, UM_VEC_GP, idt_error(d));
	if (!um_desc_present(gate[0]))
		return um_raise_code(x, UM_VEC_NP, idt_error(d));
	if (!gate_code(x, um_gate_selector(gate[0]), d->ext, &cs))
		return false;
	cpl = SEL_RPL(cs.selector);

	if (um_gate_ist(gate[0])) {
		if (!um_sys_tss64_rsp(x, um_gate_ist(gate[0]) + 3, d->ext, &st.sp))
			return false;
	} else if (cpl < c->cpl) {
		if (!um_sys_tss64_rsp(x, cpl, d->ext, &st.sp))
			return false;
	} else {
		st.sp = c->gpr[UM_RSP];
	}
	st.sp &= ~15ull;
	st.priv = um_sys_priv(c, cpl, c->rflags);
	rip = um_gate_offset(gate[0]) | gate[1] << 32;
	if (!um_sys_canonical(c, rip))
		return um_raise_code(x, UM_VEC_GP, d->ext);

	if (d->e->has_error)
		frame[n++] = d->e->error_code;
	frame[n++] = d->rip;
	frame[n++] = c->seg[UM_CS].selector;
	frame[n++] = d->flags;
	frame[n++] = c->gpr[UM_RSP];
	frame[n++] = c->seg[UM_SS].selector;
	if (!um_sys_push_frame(x, &st, frame, n, 8))
		return false;

	if (cpl < c->cpl)
		c->seg[UM_SS] = um_segment_null(cpl, cpl);
	c->seg[UM_CS] = cs;
	c->cpl = cpl;
	c->gpr[UM_RSP] = st.sp;
	c->rip = rip;
	c->rflags = handler_flags(c, type);
	return true;
}

static bool deliver(struct um_exec *x, const struct um_event *e, bool *committed);

/* The event goes to a task (SDM vol. 3 6.12.2). */
static bool deliver_task(struct um_exec *x, const struct delivery *d, u64 gate, bool *committed)
{
	static const struct um_event trap = { .vector = UM_VEC_DB,
					      .kind = UM_EVENT_TRAP,
					      .payload = DR6_BT };
	u16 sel = um_gate_selector(gate);
	struct um_task_result r = { 0 };
	u64 flags = x->cpu.rflags;
	struct um_sys_desc tss;
	bool ok;

	if (!um_sys_task_gate(x, sel, d->ext, &tss))
		return false;
	/* The flags that the old task gets saved include the event's RF. */
	x->cpu.rflags = d->flags;
	ok = um_sys_task_switch(x, UM_TASK_EVENT, sel, &tss, d->rip,
				d->e->has_error ? &d->e->error_code : NULL, d->ext, &r);
	if (!r.committed)
		x->cpu.rflags = flags;
	*committed |= r.committed;
	if (ok && r.trap && d->e->vector != UM_VEC_DB)
		return deliver(x, &trap, committed);
	return ok;
}

/* Protected mode, 16- and 32-bit gates, from virtual-8086 mode too (SDM vol. 3 6.12, 20.3.1). */
static bool deliver_32(struct um_exec *x, const struct delivery *d, bool *committed)
{
	static const u8 nulled[] = { UM_ES, UM_DS, UM_FS, UM_GS };
	struct um_cpu *c = &x->cpu;
	bool vm86 = c->rflags & RFLAGS_VM;
	unsigned type, cpl, size, n = 0;
	struct um_segment cs, ss;
	struct um_sys_stack st;
	u64 gate, rip, frame[10];
	bool inner;

	if (d->e->vector * 8u + 7 > c->idt.limit)
		return um_raise_code(x, UM_VEC_GP, idt_error(d));
	if (!um_sys_table_words(x, c->idt.base + d->e->vector * 8u, &gate, 1, d->ext))
		return false;
	type = um_desc_s(gate) ? 0 : um_desc_type(gate);
	switch (type) {
	case UM_SYS_TASKGATE:
	case UM_SYS_INTGATE16:
	case UM_SYS_TRAPGATE16:
	case UM_SYS_INTGATE:
	case UM_SYS_TRAPGATE:
		break;
	default:
		return um_raise_code(x, UM_VEC_GP, idt_error(d));
	}
	if (d->soft && um_desc_dpl(gate) < c->cpl)
		return um_raise_code(x, UM_VEC_GP, idt_error(d));
	if (!um_desc_present(gate))
		return um_raise_code(x, UM_VEC_NP, idt_error(d));
	if (type == UM_SYS_TASKGATE)
		return deliver_task(x, d, gate, committed);
	if (!gate_code(x, um_gate_selector(gate), d->ext, &cs))
		return false;
	cpl = SEL_RPL(cs.selector);
	inner = cpl < c->cpl;
	size = type & 8 ? 4 : 2;
	rip = size == 4 ? um_gate_offset(gate) : (u16)gate;

	if (!inner)
		st = um_sys_current_stack(c, d->ext);
	else if (!um_sys_tss_stack(x, cpl, d->ext, &ss, &st))
		return false;
	if (!um_sys_check_rip(x, &cs, rip, d->ext))
		return false;

	if (d->e->has_error)
		frame[n++] = d->e->error_code;
	frame[n++] = d->rip;
	frame[n++] = c->seg[UM_CS].selector;
	frame[n++] = d->flags;
	if (inner) {
		frame[n++] = c->gpr[UM_RSP];
		frame[n++] = c->seg[UM_SS].selector;
	}
	if (vm86)
		for (unsigned k = 0; k < ARRAY_SIZE(nulled); k++)
			frame[n++] = c->seg[nulled[k]].selector;
	if (!um_sys_push_frame(x, &st, frame, n, size))
		return false;

	if (inner)
		c->seg[UM_SS] = ss;
	if (vm86)
		for (unsigned k = 0; k < ARRAY_SIZE(nulled); k++)
			c->seg[nulled[k]] = um_segment_null(0, 0);
	c->seg[UM_CS] = cs;
	c->cpl = cpl;
	c->gpr[UM_RSP] = st.sp;
	c->rip = rip;
	c->rflags = handler_flags(c, type);
	return true;
}

/* Without synchronization.  *@committed: see um_sys_task_switch(). */
static bool deliver(struct um_exec *x, const struct um_event *e, bool *committed)
{
	struct um_cpu *c = &x->cpu;
	struct delivery d = { .e = e, .rip = c->rip, .flags = c->rflags | RFLAGS_FIXED1 };
	bool done = false, ok;

	apply_payload(c, e);
	switch (e->kind) {
	case UM_EVENT_SOFT_INT:
	case UM_EVENT_SOFT_EXC:
		d.soft = true;
		d.rip += e->insn_len;
		break;
	case UM_EVENT_PRIV_EXC:
		d.ext = 1;
		d.rip += e->insn_len;
		break;
	default:
		d.ext = 1;
		break;
	}
	if (um_cpu_mode(c) != UM_MODE_64)
		d.rip = (u32)d.rip;
	/*
	 * Faults are saved with RF set, so that a restarted instruction doesn't hit its breakpoint
	 * again (SDM vol. 3 17.3.1.1): but those of a breakpoint itself, whose handler decides.
	 */
	if (e->kind == UM_EVENT_FAULT && e->vector != UM_VEC_DF && e->vector != UM_VEC_MC &&
	    (e->vector != UM_VEC_DB || (e->payload & DR6_BD)))
		d.flags |= RFLAGS_RF;

	if (!(c->cr0 & CR0_PE)) {
		ok = deliver_real(x, &d);
	} else if (um_cpu_long_mode(c)) {
		ok = deliver_64(x, &d);
	} else {
		ok = true;
		if ((c->rflags & RFLAGS_VM) && e->kind == UM_EVENT_SOFT_INT)
			ok = soft_int_vm86(x, &d, &done);
		if (ok && !done)
			ok = deliver_32(x, &d, committed);
	}
	if (ok)
		entered(c, e);
	return ok;
}

bool um_engine_deliver(struct um_exec *x, const struct um_event *e)
{
	bool committed = false, ok = deliver(x, e, &committed);

	/* Tables and stacks in MMIO can't be replayed: nobody puts them there. */
	if (!ok && x->exit.kind == UM_EXIT_MMIO)
		um_internal(x, "event delivery through MMIO");
	return ok;
}

/* ---- instructions ---- */

/*
 * Deliver here and now: the guest's own software interrupts are frequent and need nothing of the
 * layers above.
 */
static const struct um_insn *soft_int(struct um_exec *x, const struct um_insn *i, u8 vector)
{
	struct um_event e = { .vector = vector, .kind = UM_EVENT_SOFT_INT, .insn_len = i->len };
	bool committed = false;

	x->cpu.rip = um_rip(x, i);
	x->cpu.rflags = um_get_rflags(x);
	if (!deliver(x, &e, &committed) && !committed)
		return um_stop(x, i);
	if (!committed)
		um_sync_mode(x);
	return NULL;
}

const struct um_insn *um_sysop_int(struct um_exec *x, const struct um_insn *i)
{
	return soft_int(x, i, i->imm);
}

/* INT3, INTO and INT1 are exceptions, which debuggers may want to see first. */
static const struct um_insn *soft_exception(struct um_exec *x, const struct um_insn *i, u8 vector,
					    enum um_event_kind kind)
{
	x->exit.kind = UM_EXIT_EXCEPTION;
	x->exit.exc = (struct um_event){ .vector = vector, .kind = kind, .insn_len = i->len };
	return um_stop(x, i);
}

const struct um_insn *um_sysop_int3(struct um_exec *x, const struct um_insn *i)
{
	return soft_exception(x, i, UM_VEC_BP, UM_EVENT_SOFT_EXC);
}

const struct um_insn *um_sysop_into(struct um_exec *x, const struct um_insn *i)
{
	if (!um_of(x))
		return um_end(x, i);
	return soft_exception(x, i, UM_VEC_OF, UM_EVENT_SOFT_EXC);
}

const struct um_insn *um_sysop_int1(struct um_exec *x, const struct um_insn *i)
{
	return soft_exception(x, i, UM_VEC_DB, UM_EVENT_PRIV_EXC);
}

// SPDX-License-Identifier: MIT
/*
 * Hardware task switches (SDM vol. 3 ch. 7), 16- and 32-bit, outside of IA-32e mode.
 *
 *   1. save the old task into its TSS
 *   2. read the new TSS; check what must be right before the old task is left (limit, PDPTEs)
 *   3. links and busy bits:          JMP    CALL, event   IRET
 *        old TSS descriptor          avail  stays busy    avail
 *        new TSS descriptor          busy   busy          stays busy
 *        back link in the new TSS    -      old selector  -
 *        NT in the new EFLAGS        image  set           image
 *        NT in the saved EFLAGS      as is  as is         clear
 *   4. commit: registers, CR3, TR, CR0.TS, local breakpoints off
 *   5. LDTR and segment registers, which may fault: in the new task's context
 *   6. the error code of an event
 *
 * A fault in 1-3 leaves the processor as it was; what may have been written is the old task's own
 * state to its own TSS, which the retry writes again.
 */
#include <string.h>

#include "engine/system/system.h"

#define TSS16_SIZE 44u
#define TSS32_SIZE 104u

/* A task's state in the form of either TSS. */
struct task {
	u32 cr3, eip, eflags, gpr[8];
	u16 seg[UM_NR_SEGS], ldt;
	bool t;
};

static u32 get32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

static u16 get16(const u8 *p)
{
	u16 v;

	memcpy(&v, p, 2);
	return v;
}

/*
 * Offsets of the dynamic fields: EIP first, then EFLAGS, EAX..EDI, ES CS SS DS (FS GS), each @size
 * bytes.
 */
static unsigned dynamic_offset(bool tss32)
{
	return tss32 ? 0x20 : 0x0e;
}

static bool save(struct um_exec *x, u64 rip, u64 rflags)
{
	const struct um_cpu *c = &x->cpu;
	bool tss32 = c->tr.type & 8;
	unsigned size = tss32 ? 4 : 2, nseg = tss32 ? 6 : 4, n = 0;
	u8 image[16 * 4];
	u32 v[16];

	v[n++] = rip;
	v[n++] = rflags;
	for (unsigned k = 0; k < 8; k++)
		v[n++] = c->gpr[k];
	for (unsigned k = 0; k < nseg; k++)
		v[n++] = c->seg[k].selector;
	for (unsigned k = 0; k < n; k++)
		memcpy(image + k * size, &v[k], size);
	return um_sys_table_write(x, c->tr.base + dynamic_offset(tss32), image, n * size, 0);
}

static bool read_tss(struct um_exec *x, u64 base, bool tss32, struct task *t)
{
	unsigned size = tss32 ? 4 : 2, nseg = tss32 ? 6 : 4;
	u8 image[TSS32_SIZE];
	const u8 *p = image + dynamic_offset(tss32);

	*t = (struct task){ 0 };
	if (!um_sys_table_read(x, base, image, tss32 ? TSS32_SIZE : TSS16_SIZE, 0))
		return false;
	t->eip = tss32 ? get32(p) : get16(p);
	p += size;
	t->eflags = tss32 ? get32(p) : get16(p);
	p += size;
	for (unsigned k = 0; k < 8; k++, p += size)
		t->gpr[k] = tss32 ? get32(p) : get16(p);
	for (unsigned k = 0; k < nseg; k++, p += size)
		t->seg[k] = get16(p);
	t->ldt = get16(p);
	if (tss32) {
		t->cr3 = get32(image + 0x1c);
		t->t = image[0x64] & 1;
	}
	return true;
}

/* Step 5. CPL is the new task's. */
static bool load_ldt(struct um_exec *x, u16 sel, u32 ext)
{
	struct um_cpu *c = &x->cpu;
	struct um_sys_desc d;

	if (SEL_IS_NULL(sel))
		return true;
	if (SEL_TI(sel))
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(sel) | ext);
	if (!um_sys_desc_read(x, sel, UM_VEC_TS, ext, &d))
		return false;
	if (um_desc_s(d.lo) || um_desc_type(d.lo) != UM_SYS_LDT || !um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(sel) | ext);
	c->ldt = um_segment_unpack(sel, d.lo, 0);
	return true;
}

static bool load_cs(struct um_exec *x, u16 sel, u32 ext)
{
	struct um_cpu *c = &x->cpu;
	struct um_sys_desc d;
	unsigned dpl;

	if (SEL_IS_NULL(sel))
		return um_raise_code(x, UM_VEC_TS, ext);
	if (!um_sys_desc_read(x, sel, UM_VEC_TS, ext, &d))
		return false;
	dpl = um_desc_dpl(d.lo);
	if (!um_desc_is_code(d.lo) ||
	    (um_desc_is_conforming(d.lo) ? dpl > SEL_RPL(sel) : dpl != SEL_RPL(sel)))
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(sel) | ext);
	if (!um_desc_present(d.lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel) | ext);
	if (!um_sys_desc_accessed(x, &d, ext))
		return false;
	c->seg[UM_CS] = um_segment_unpack(sel, d.lo, 0);
	return true;
}

static bool load_segments(struct um_exec *x, const struct task *t, u32 ext)
{
	static const u8 data[] = { UM_DS, UM_ES, UM_FS, UM_GS };
	struct um_cpu *c = &x->cpu;

	if (!load_ldt(x, t->ldt, ext))
		return false;
	if (c->rflags & RFLAGS_VM) {
		for (unsigned k = 0; k < UM_NR_SEGS; k++)
			c->seg[k] = um_segment_vm86(t->seg[k]);
		return true;
	}
	if (!load_cs(x, t->seg[UM_CS], ext) ||
	    !um_sys_check_ss(x, t->seg[UM_SS], c->cpl, UM_VEC_TS, ext, &c->seg[UM_SS]))
		return false;
	for (unsigned k = 0; k < ARRAY_SIZE(data); k++)
		if (!um_sys_check_data(x, t->seg[data[k]], c->cpl, UM_VEC_TS, ext,
				       &c->seg[data[k]]))
			return false;
	return true;
}

/* Steps 4 to 6, after which there is no way back. */
static bool enter(struct um_exec *x, const struct task *t, bool tss32, bool nested,
		  const u64 pdptr[4], const u32 *error, u32 ext)
{
	struct um_cpu *c = &x->cpu;
	struct um_sys_stack st;
	u64 code;

	if (tss32 && (c->cr0 & CR0_PG)) {
		memcpy(c->pdptr, pdptr, sizeof(c->pdptr));
		c->cr3 = t->cr3;
		um_mmu_new_cr3(x->mmu, true);
	}
	c->cr0 |= CR0_TS;
	if (c->dr7 & 0x155) { /* L0-L3, LE: of this task only */
		c->dr7 &= ~0x155ull;
		um_mmu_rights_changed(x->mmu);
	}
	c->rip = t->eip;
	c->rflags = (t->eflags & RFLAGS_ALL) | RFLAGS_FIXED1 | (nested ? RFLAGS_NT : 0);
	for (unsigned k = 0; k < 8; k++)
		c->gpr[k] = t->gpr[k];
	c->cpl = c->rflags & RFLAGS_VM ? 3 : SEL_RPL(t->seg[UM_CS]);
	c->ldt = um_segment_null(t->ldt, 0);
	for (unsigned k = 0; k < UM_NR_SEGS; k++)
		c->seg[k] = um_segment_null(t->seg[k], c->cpl);
	c->int_shadow = 0;

	if (!load_segments(x, t, ext))
		return false;
	if (!error)
		return true;
	st = um_sys_current_stack(c, ext);
	code = *error;
	if (!um_sys_push_frame(x, &st, &code, 1, tss32 ? 4 : 2))
		return false;
	c->gpr[UM_RSP] = st.sp;
	return true;
}

bool um_sys_task_switch(struct um_exec *x, enum um_task_cause cause, u16 sel, struct um_sys_desc *d,
			u64 rip, const u32 *error, u32 ext, struct um_task_result *r)
{
	struct um_cpu *c = &x->cpu;
	bool tss32 = um_desc_type(d->lo) & 8;
	bool nested = cause == UM_TASK_CALL || cause == UM_TASK_EVENT;
	struct um_segment tr = um_segment_unpack(sel, d->lo, 0);
	struct um_sys_desc old;
	u64 pdptr[4] = { 0 };
	struct task t;
	bool ok;

	if (tr.limit < (tss32 ? TSS32_SIZE : TSS16_SIZE) - 1)
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(sel) | ext);
	if (SEL_IS_NULL(c->tr.selector)) /* no task to leave: TR was never loaded */
		return um_raise_code(x, UM_VEC_TS, ext);
	if (!um_sys_desc_read(x, c->tr.selector, UM_VEC_TS, ext, &old) ||
	    !save(x, rip, cause == UM_TASK_IRET ? c->rflags & ~RFLAGS_NT : c->rflags) ||
	    !read_tss(x, tr.base, tss32, &t))
		return false;
	if (tss32 && (c->cr0 & CR0_PG) && (c->cr4 & CR4_PAE) &&
	    um_mmu_load_pdptrs(x->mmu, t.cr3, pdptr))
		return um_raise_code(x, UM_VEC_TS, SEL_ERR(sel) | ext);
	if (nested && !um_sys_table_write(x, tr.base, &c->tr.selector, 2, ext))
		return false;
	if (cause != UM_TASK_IRET && !um_sys_desc_set_busy(x, d, true, ext))
		return false;
	if (!nested && !um_sys_desc_set_busy(x, &old, false, ext))
		return false;

	tr.type |= 2;
	c->tr = tr;
	r->committed = true;
	r->trap = t.t;
	ok = enter(x, &t, tss32, nested, pdptr, error, ext);
	if (!ok && x->exit.kind == UM_EXIT_MMIO)
		um_internal(x, "task switch through MMIO");
	um_exec_sync(x);
	return ok;
}

bool um_sys_task_gate(struct um_exec *x, u16 sel, u32 ext, struct um_sys_desc *tss)
{
	unsigned type;

	if (SEL_TI(sel) || SEL_IS_NULL(sel))
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel) | ext);
	if (!um_sys_desc_read(x, sel, UM_VEC_GP, ext, tss))
		return false;
	type = um_desc_s(tss->lo) ? 0 : um_desc_type(tss->lo);
	if (type != UM_SYS_TSS16_AVAIL && type != UM_SYS_TSS_AVAIL)
		return um_raise_code(x, UM_VEC_GP, SEL_ERR(sel) | ext);
	if (!um_desc_present(tss->lo))
		return um_raise_code(x, UM_VEC_NP, SEL_ERR(sel) | ext);
	return true;
}

const struct um_insn *um_sys_task_end(struct um_exec *x, const struct um_insn *i, bool ok,
				      const struct um_task_result *r)
{
	if (!r->committed)
		return um_stop(x, i);
	if (ok && r->trap) {
		x->exit.kind = UM_EXIT_EXCEPTION;
		x->exit.exc = (struct um_event){ .vector = UM_VEC_DB,
						 .kind = UM_EVENT_TRAP,
						 .payload = DR6_BT };
	}
	return NULL;
}

/* SPDX-License-Identifier: MIT */
/*
 * What the system instructions share: descriptor tables, segment registers, stacks, far transfers,
 * events.  Private to engine/system/ and its tests; the rest of the engine uses um_system_bind()
 * and um_engine_deliver().
 *
 * Conventions
 *  - Functions that return bool return false when x->exit says why (as in engine/access.h).  Unless
 *    said otherwise nothing has changed then but accessed and busy bits of descriptors and bytes
 *    below a stack pointer, which hardware may change too.
 *  - @ext is 0, or 1 when an event is being delivered: bit 0 of selector error codes (SDM vol. 3
 *    6.13).
 *  - Functions work on x->cpu alone, not on what um_exec_sync() derives from it, except where they
 *    take an instruction: so event delivery needs no synchronization before it.  Whoever changes
 *    x->cpu synchronizes afterwards.
 */
#ifndef UM_ENGINE_SYSTEM_H
#define UM_ENGINE_SYSTEM_H

#include "cpu/segment.h"
#include "engine/access.h"
#include "engine/engine.h"
#include "engine/flags.h"

#define SEL_RPL(sel)   ((sel)&3u)
#define SEL_TI(sel)    ((sel)&4u)
#define SEL_IS_NULL(s) (((s)&0xfffcu) == 0)
#define SEL_ERR(sel)   ((u32)(sel)&0xfffcu)

/* ---- small predicates ---- */
static inline bool um_sys_gp0(struct um_exec *x)
{
	return um_raise_code(x, UM_VEC_GP, 0);
}

/* Real-address or virtual-8086 mode: many system instructions do not exist. */
static inline bool um_sys_not_protected(const struct um_exec *x)
{
	return x->mode == UM_MODE_REAL;
}

static inline unsigned um_sys_iopl(const struct um_cpu *c)
{
	return (c->rflags & RFLAGS_IOPL) >> 12;
}

static inline bool um_sys_canonical(const struct um_cpu *c, u64 gva)
{
	return um_canonical(gva, um_cpu_vaddr_bits(c));
}

/* The privilege of data accesses at @cpl; @rflags for AC. */
static inline enum um_tlb_priv um_sys_priv(const struct um_cpu *c, unsigned cpl, u64 rflags)
{
	if (cpl == 3)
		return UM_PRIV_USER;
	return (c->cr4 & CR4_SMAP) && (rflags & RFLAGS_AC) ? UM_PRIV_KERNEL_AC : UM_PRIV_KERNEL;
}

/* ---- keeping derived state ---- */
/*
 * CPL or RFLAGS (but for its status flags) changed between two moments in 64-bit mode.  Cheap: for
 * system calls, interrupts.  Everything else that changes CPL, CS or modes calls um_sync_mode().
 */
static inline void um_sys_sync_cpl64(struct um_exec *x)
{
	um_sync_priv(x);
	um_sync_special(x);
}
/* An interrupt shadow was opened. */
static inline void um_sys_shadow(struct um_exec *x, u8 shadow)
{
	x->cpu.int_shadow |= shadow;
	um_sync_special(x);
}

/* ---- control registers (control.c) ---- */
/* Write CR0 with all checks and effects, from MOV, LMSW or CLTS. */
bool um_sys_set_cr0(struct um_exec *x, u64 v);

/* ---- descriptor tables and system memory (segment.c) ---- */
/*
 * Implicit supervisor accesses of at most a page.  In IA-32e mode addresses have 64 bits whatever
 * the mode of the code that runs, and a non-canonical one raises #GP(@ext).
 */
bool um_sys_table_read(struct um_exec *x, gva_t gva, void *buf, unsigned len, u32 ext);
bool um_sys_table_write(struct um_exec *x, gva_t gva, const void *buf, unsigned len, u32 ext);
/*
 * The fast path of both, and of stacks: @n words of 8 bytes, if the TLB has their page; a hit
 * implies that the address is canonical.  False: nothing was done, go the long way.
 */
static inline bool um_sys_get_words(const struct um_exec *x, gva_t gva, u64 *v, unsigned n,
				    unsigned ctx)
{
	const u8 *p = um_tlb_lookup_sized(x->tlb, gva, n * 8, UM_READ, ctx);

	if (unlikely(!p))
		return false;
	for (unsigned k = 0; k < n; k++)
		if (unlikely(!um_get64(p + k * 8, &v[k])))
			return false;
	return true;
}
static inline bool um_sys_put_words(struct um_exec *x, gva_t gva, const u64 *v, unsigned n,
				    unsigned ctx)
{
	u8 *p = um_tlb_lookup_sized(x->tlb, gva, n * 8, UM_WRITE, ctx);

	if (unlikely(!p || ((hva_t)p & UM_PAGE_MASK) == x->code_page))
		return false;
	for (unsigned k = n; k-- > 0;)
		if (unlikely(!um_put64(p + k * 8, v[k])))
			return false;
	return true;
}
/* A table's words, for which IA-32e mode has 64-bit addresses and others 32-bit ones. */
static inline bool um_sys_table_words(struct um_exec *x, gva_t gva, u64 *v, unsigned n, u32 ext)
{
	if (!um_cpu_long_mode(&x->cpu))
		gva = (u32)gva;
	return likely(um_sys_get_words(x, gva, v, n, x->tlb->ctx[UM_PRIV_KERNEL])) ||
	       um_sys_table_read(x, gva, v, n * 8, ext);
}
/* The first part of [gva, gva + len), up to the page's end. */
static inline unsigned um_sys_head(gva_t gva, unsigned len)
{
	unsigned n = UM_PAGE_SIZE - (gva & ~UM_PAGE_MASK);

	return um_min(n, len);
}
/* The linear address @gva with @n added: modulo 2^32 in legacy modes. */
static inline gva_t um_sys_next_gva(const struct um_cpu *c, gva_t gva, unsigned n)
{
	return um_cpu_long_mode(c) ? gva + n : (u32)(gva + n);
}

/* A descriptor, and where it was read. */
struct um_sys_desc {
	u64 lo, hi; /* hi: only of 16-byte descriptors, else 0 */
	gva_t gva;
};

/*
 * Read the descriptor of @sel from GDT or LDT; outside of the table's limit raises @vec(@sel |
 * @ext).  In IA-32e mode a system descriptor is read in full, 16 bytes.
 */
bool um_sys_desc_read(struct um_exec *x, u16 sel, enum um_vector vec, u32 ext,
		      struct um_sys_desc *d);
/* The same, but @found = false in place of the exception: for LAR, LSL, VERR, VERW. */
bool um_sys_desc_find(struct um_exec *x, u16 sel, struct um_sys_desc *d, bool *found);
/* Set the accessed bit in memory if it is clear, and in *@d. */
bool um_sys_desc_accessed(struct um_exec *x, struct um_sys_desc *d, u32 ext);
/* Write the type field of a TSS descriptor: busy or available. */
bool um_sys_desc_set_busy(struct um_exec *x, struct um_sys_desc *d, bool busy, u32 ext);

/*
 * Checks of a new SS at privilege @cpl, giving its hidden part.  @vec: #GP, or #TS for stacks from
 * a TSS and task switches.  The caller has dealt with null selectors that are allowed.
 */
bool um_sys_check_ss(struct um_exec *x, u16 sel, unsigned cpl, enum um_vector vec, u32 ext,
		     struct um_segment *out);
/* Checks of a selector for ES, DS, FS, GS at @cpl in protected mode; null is fine. */
bool um_sys_check_data(struct um_exec *x, u16 sel, unsigned cpl, enum um_vector vec, u32 ext,
		       struct um_segment *out);
/*
 * Base of a segment register in real-address mode: limit and size stay (SDM vol. 3 9.9.1,
 * "unreal").
 */
void um_sys_load_real(struct um_cpu *c, enum um_seg seg, u16 sel);
/* ES, DS, FS, GS that an outer privilege must not see become null (SDM vol. 2 RET, IRET). */
void um_sys_null_inner_segments(struct um_cpu *c, unsigned new_cpl);

/* ---- stacks (far.c) ---- */
/* A stack on which a far transfer or event builds its frame. */
struct um_sys_stack {
	const struct um_segment *ss; /* NULL: 64-bit mode, no segment checks */
	u64 sp;
	u64 mask;	       /* of the stack pointer: ~0, 0xffffffff, 0xffff */
	enum um_tlb_priv priv; /* of the writes */
	bool align;	       /* alignment checks are on */
	u32 err;	       /* error code of its #SS */
};

/* The current stack of a processor. */
struct um_sys_stack um_sys_current_stack(const struct um_cpu *c, u32 ext);
/* The mask that a stack in @ss has outside of 64-bit mode. */
static inline u64 um_sys_sp_mask(const struct um_segment *ss)
{
	return ss->db ? 0xffffffff : 0xffff;
}
/* RSP with its part under @mask replaced; a 32-bit stack zeroes the upper half. */
static inline u64 um_sys_merge_sp(u64 rsp, u64 sp, u64 mask)
{
	return mask == 0xffff ? (rsp & ~mask) | (sp & mask) : sp & mask;
}
/*
 * Push @n values of @size bytes so that v[0] ends up lowest.  All checks come before the first
 * write; st->sp moves on success.
 */
bool um_sys_push_frame(struct um_exec *x, struct um_sys_stack *st, const u64 *v, unsigned n,
		       unsigned size);
/*
 * The stack for privilege @cpl from the current 16- or 32-bit TSS (SDM vol. 3 7.2.1): checked, *@ss
 * filled.
 */
bool um_sys_tss_stack(struct um_exec *x, unsigned cpl, u32 ext, struct um_segment *ss,
		      struct um_sys_stack *st);
/* RSP0..2 (@slot 0..2) or IST1..7 (@slot 4..10: 3 + IST) from the current 64-bit TSS (7.7). */
bool um_sys_tss64_rsp(struct um_exec *x, unsigned slot, u32 ext, u64 *rsp);

/* Is @rip a legal target in @cs?  Else #GP(@ext). */
bool um_sys_check_rip(struct um_exec *x, const struct um_segment *cs, u64 rip, u32 ext);

/*
 * Checks of CS and SS that RET and IRET popped, giving their hidden parts: the return goes to CPL =
 * @sel.RPL >= the present one.
 */
bool um_sys_check_return_cs(struct um_exec *x, u16 sel, struct um_segment *cs);
bool um_sys_check_return_ss(struct um_exec *x, u16 sel, const struct um_segment *cs,
			    struct um_segment *ss);

/* CALL or JMP through a call gate @d of selector @sel (gate.c).  @ret: the return address. */
bool um_sys_call_gate(struct um_exec *x, u16 sel, const struct um_sys_desc *d, bool call, u64 ret);

/* ---- task switches (task.c) ---- */
enum um_task_cause { UM_TASK_JMP, UM_TASK_CALL, UM_TASK_IRET, UM_TASK_EVENT };

struct um_task_result {
	/* the new task's state is loaded, cpu.rip is its own, all is synchronized */
	bool committed;
	bool trap; /* its T bit asks for a #DB (DR6.BT) before its first instruction */
};

/*
 * Switch to the task of TSS descriptor @d (16 or 32 bits; type and presence checked by the caller,
 * see um_sys_task_gate()).  @rip: the address that the old task resumes at.  cpu.rflags is
 * complete.  @error: NULL, or the error code to push on the new task's stack.
 *
 * False: x->exit; if r->committed, it is a fault of the new task (its segments are bad: SDM vol. 3
 * 7.3).
 */
bool um_sys_task_switch(struct um_exec *x, enum um_task_cause cause, u16 sel, struct um_sys_desc *d,
			u64 rip, const u32 *error, u32 ext, struct um_task_result *r);
/*
 * End an instruction that tried a task switch: @ok is what um_sys_task_switch() returned.  The trap
 * becomes an exit; a fault is reported at the old or new task's rip.
 */
const struct um_insn *um_sys_task_end(struct um_exec *x, const struct um_insn *i, bool ok,
				      const struct um_task_result *r);
/*
 * The TSS that a task gate names: #GP(@sel) or #NP(@sel) if it isn't an available TSS in the GDT.
 */
bool um_sys_task_gate(struct um_exec *x, u16 sel, u32 ext, struct um_sys_desc *tss);

/* ---- I/O permission (io.c) ---- */
bool um_sys_io_allowed(struct um_exec *x, u16 port, unsigned size);

/* ---- instructions' operands ---- */
/* Memory operand of @i: @len bytes. */
static inline bool um_sys_load(struct um_exec *x, const struct um_insn *i, void *buf, unsigned len)
{
	gva_t gva;

	return um_linear(x, i->seg, um_ea(x, i), len, UM_READ, &gva) &&
	       um_lin_read(x, gva, buf, len);
}
static inline bool um_sys_store(struct um_exec *x, const struct um_insn *i, const void *buf,
				unsigned len)
{
	gva_t gva;

	return um_linear(x, i->seg, um_ea(x, i), len, UM_WRITE, &gva) &&
	       um_lin_write(x, gva, buf, len);
}
/* Operand @n, a 16-bit register or memory. */
static inline bool um_sys_get16(struct um_exec *x, const struct um_insn *i, unsigned n, u16 *v)
{
	if (i->kind[n] == UM_OPD_MEM)
		return um_sys_load(x, i, v, 2);
	*v = x->cpu.gpr[i->reg[n] / 8];
	return true;
}
/* Write a register operand with the width rules: 16 bits merge, 32 bits zero-extend. */
static inline void um_sys_put_gpr(struct um_exec *x, unsigned reg, u64 v, unsigned size)
{
	u64 *r = &x->cpu.gpr[reg];

	*r = size == 2 ? (*r & ~0xffffull) | (u16)v : um_trunc(v, size);
}
/* Operand 0 := selector or status word: 16 bits of memory, or a register of the operand size. */
static inline bool um_sys_put_word(struct um_exec *x, const struct um_insn *i, u64 v)
{
	u16 w = v;

	if (i->kind[0] == UM_OPD_MEM)
		return um_sys_store(x, i, &w, 2);
	um_sys_put_gpr(x, i->reg[0] / 8, v, i->osz);
	return true;
}

/* Raise in an instruction function: return um_sys_stop_gp0(x, i). */
static inline const struct um_insn *um_sys_stop_gp0(struct um_exec *x, const struct um_insn *i)
{
	um_sys_gp0(x);
	return um_stop(x, i);
}
static inline const struct um_insn *um_sys_stop_ud(struct um_exec *x, const struct um_insn *i)
{
	um_raise(x, UM_VEC_UD);
	return um_stop(x, i);
}
/* Exit to the vCPU layer at this instruction. */
static inline const struct um_insn *um_sys_exit(struct um_exec *x, const struct um_insn *i,
						enum um_exit_kind kind)
{
	x->exit.kind = kind;
	return um_stop(x, i);
}

/* ---- the instructions, um_sysop_...: bind.c says which mnemonic is which ---- */
#define UM_SYSOP(name) \
	const struct um_insn *um_sysop_##name(struct um_exec *x, const struct um_insn *i)

/* clang-format off */
/* segment.c */
UM_SYSOP(mov_to_sreg); UM_SYSOP(mov_from_sreg); UM_SYSOP(push_sreg); UM_SYSOP(pop_sreg);
UM_SYSOP(load_far_pointer);
/* far.c */
UM_SYSOP(far_jmp); UM_SYSOP(far_call); UM_SYSOP(far_ret);
/* iret.c */
UM_SYSOP(iret);
/* event.c */
UM_SYSOP(int); UM_SYSOP(int3); UM_SYSOP(into); UM_SYSOP(int1);
/* syscall.c */
UM_SYSOP(syscall); UM_SYSOP(sysret); UM_SYSOP(sysenter); UM_SYSOP(sysexit); UM_SYSOP(swapgs);
UM_SYSOP(rdfsbase); UM_SYSOP(rdgsbase); UM_SYSOP(wrfsbase); UM_SYSOP(wrgsbase);
/* control.c */
UM_SYSOP(mov_to_cr); UM_SYSOP(mov_from_cr); UM_SYSOP(mov_to_dr); UM_SYSOP(mov_from_dr);
UM_SYSOP(lmsw); UM_SYSOP(smsw); UM_SYSOP(clts); UM_SYSOP(invlpg); UM_SYSOP(invpcid);
/* tables.c */
UM_SYSOP(lgdt); UM_SYSOP(lidt); UM_SYSOP(sgdt); UM_SYSOP(sidt); UM_SYSOP(lldt); UM_SYSOP(sldt);
UM_SYSOP(ltr); UM_SYSOP(str);
/* check.c */
UM_SYSOP(lar); UM_SYSOP(lsl); UM_SYSOP(verr); UM_SYSOP(verw); UM_SYSOP(arpl);
/* io.c */
UM_SYSOP(in); UM_SYSOP(out); UM_SYSOP(ins); UM_SYSOP(outs);
/* misc.c */
UM_SYSOP(cli); UM_SYSOP(sti); UM_SYSOP(stac); UM_SYSOP(clac); UM_SYSOP(hlt); UM_SYSOP(monitor);
UM_SYSOP(mwait); UM_SYSOP(rdtsc); UM_SYSOP(rdtscp); UM_SYSOP(rdpid); UM_SYSOP(rdpmc);
UM_SYSOP(cpuid); UM_SYSOP(rdmsr); UM_SYSOP(wrmsr); UM_SYSOP(wbinvd); UM_SYSOP(clflush);
UM_SYSOP(clflushopt); UM_SYSOP(clwb); UM_SYSOP(cldemote); UM_SYSOP(serialize); UM_SYSOP(hypercall);
UM_SYSOP(svm); UM_SYSOP(rsm); UM_SYSOP(ud);
/* clang-format on */

#undef UM_SYSOP

#endif

// SPDX-License-Identifier: MIT
/*
 * Running native stubs.
 *
 * The order of checks is that of SDM vol. 2 2.4 (instruction exception specification): #UD and #NM
 * for the state of the FPU; segment; alignment of what must be aligned; #AC; paging; and only then
 * the instruction's own exceptions, from the host.
 *
 * A memory operand in one page of plain memory is given to the stub as it is: the host CPU accesses
 * guest memory directly, as wide and as atomic as the guest asked.  Else (crossing a page, MMIO) it
 * works on a buffer that has the same alignment.  A store to the buffer reaches memory after the
 * stub, and may end in an MMIO exit: then what the stub changed besides (the x87 stack, MXCSR) is
 * put back, and the instruction starts again with the answer.
 */
#include "engine/interp/native.h"

#include <string.h>

#include "cpu/xsave.h"
#include "engine/flags.h"
#include "engine/interp/ops.h"

static bool allowed(const struct um_exec *x, const struct um_native *n)
{
	return likely(!((x->cpu.cr0 & (n->k.cr0_ud | n->k.cr0_nm)) | (~x->cpu.cr4 & n->k.cr4_need) |
			(~x->cpu.xcr0 & n->k.xcr0_need)));
}

static bool not_allowed(struct um_exec *x, const struct um_native *n)
{
	if ((x->cpu.cr0 & n->k.cr0_ud) || (~x->cpu.cr4 & n->k.cr4_need) ||
	    (~x->cpu.xcr0 & n->k.xcr0_need))
		return um_raise(x, UM_VEC_UD);
	return um_raise(x, UM_VEC_NM);
}

bool um_native_allowed(struct um_exec *x, const struct um_native *n)
{
	return allowed(x, n) || not_allowed(x, n);
}

bool um_native_fault(struct um_exec *x, u64 ret, gva_t gva, const void *mem)
{
	switch (ret & ~UM_NATIVE_FAULT) {
	case UM_NATIVE_MF:
		return um_raise(x, UM_VEC_MF);
	case UM_NATIVE_XM:
		/* Without OSXMMEXCPT they are #UD (SDM vol. 3 2.5). */
		return um_raise(x, x->cpu.cr4 & CR4_OSXMMEXCPT ? UM_VEC_XM : UM_VEC_UD);
	case UM_NATIVE_GP:
		return um_raise_code(x, UM_VEC_GP, 0);
	default:
		return um_host_fault(x, gva, mem);
	}
}

static void mxcsr_get(struct um_exec *x)
{
	u32 v = x->cpu.fpu.mxcsr & UM_MXCSR_MASK;

	asm volatile("stmxcsr %0; ldmxcsr %1" : "=m"(x->host_mxcsr) : "m"(v));
	x->mxcsr_live = true;
}

void um_native_fpu_put(struct um_exec *x)
{
	if (x->mxcsr_live) {
		asm volatile("stmxcsr %0; ldmxcsr %1"
			     : "=m"(x->cpu.fpu.mxcsr)
			     : "m"(x->host_mxcsr));
		x->mxcsr_live = false;
	}
	if (x->x87_live)
		um_native_x87_put(x);
}

UM_INLINE bool call(struct um_exec *x, const struct um_native *n, void *mem, gva_t gva)
{
	u64 r;

	if (n->k.mxcsr && unlikely(!x->mxcsr_live))
		mxcsr_get(x);
	if (n->k.x87 && unlikely(!x->x87_live))
		um_native_x87_get(x);
	r = n->code(x, mem, n->k.status_in ? um_status(x) : 0);
	if (r) {
		if (unlikely(r & UM_NATIVE_FAULT))
			return um_native_fault(x, r, gva, mem);
		um_set_status(x, r);
	}
	x->cpu.fpu.xinuse |= n->k.xinuse;
	return true;
}

bool um_native_call(struct um_exec *x, const struct um_native *n, void *mem, gva_t gva)
{
	return call(x, n, mem, gva);
}

/* The part of the state that a store instruction may change, for putting it back. */
struct undo {
	u8 x87[160];
	u64 xinuse;
	u32 mxcsr;
	struct um_cc cc;
};

static void undo_save(struct um_exec *x, struct undo *u)
{
	um_native_fpu_sync(x);
	memcpy(u->x87, x->cpu.fpu.fxsave, sizeof(u->x87));
	u->mxcsr = x->cpu.fpu.mxcsr;
	u->xinuse = x->cpu.fpu.xinuse;
	u->cc = x->cc;
}

static void undo_restore(struct um_exec *x, const struct undo *u)
{
	um_native_fpu_sync(x);
	memcpy(x->cpu.fpu.fxsave, u->x87, sizeof(u->x87));
	x->cpu.fpu.mxcsr = u->mxcsr;
	x->cpu.fpu.xinuse = u->xinuse;
	x->cc = u->cc;
}

/* Through a buffer. */
static bool run_bounced(struct um_exec *x, const struct um_native *n, gva_t gva)
{
	u8 buf[128] __attribute__((aligned(64)));
	u8 *p = buf + (gva & 63);
	struct undo u;

	memset(buf, 0, sizeof(buf));
	if (n->k.reads && !um_lin_read(x, gva, p, n->k.len))
		return false;
	if (!n->k.writes)
		return call(x, n, p, gva);
	undo_save(x, &u);
	if (!call(x, n, p, gva))
		return false;
	if (n->k.pointers && um_native_x87_suppressed(x))
		return true;
	if (um_lin_write(x, gva, p, n->k.len))
		return true;
	undo_restore(x, &u);
	return false;
}

bool um_native_mem(struct um_exec *x, const struct um_native *n, gva_t gva)
{
	unsigned len = n->k.len;
	bool tracked;
	void *p;

	/* Wider accesses than 8 bytes are not checked (SDM vol. 3 table 6-7); m80 counts as 8. */
	if (unlikely(x->align_check) && len > 1 && (len <= 8 || len == 10) &&
	    !um_check_align(x, gva,
			    len == 10	      ? 8
			    : len & (len - 1) ? 2
					      : len))
		return false;
	/*
	 * Whether an x87 store accesses memory shows only when it has run: see
	 * um_native_x87_suppressed().
	 */
	if (n->k.x87 && n->k.writes && !um_tlb_lookup_sized(x->tlb, gva, len, UM_WRITE, x->ctx))
		return run_bounced(x, n, gva);
	if (!um_lin_map(x, gva, len, n->k.writes ? UM_WRITE : UM_READ, &p, &tracked))
		return false;
	if (!p)
		return run_bounced(x, n, gva);
	if (!call(x, n, p, gva))
		return false;
	if (tracked)
		um_lin_written(x, gva, len);
	return true;
}

bool um_native_gva(struct um_exec *x, const struct um_insn *i, const struct um_native *n,
		   gva_t *gva)
{
	if (!um_linear(x, (enum um_seg)i->seg, um_ea(x, i), n->k.len,
		       n->k.writes ? UM_WRITE : UM_READ, gva))
		return false;
	if (unlikely(*gva & n->k.align))
		return um_raise_code(x, UM_VEC_GP, 0);
	return true;
}

const struct um_insn *um_native_reg(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;

	if (unlikely(!allowed(x, n)) && !not_allowed(x, n))
		return um_stop(x, i);
	if (unlikely(!call(x, n, NULL, 0)))
		return um_stop(x, i);
	UM_NEXT(x, i);
}

/* Everything but going on; false: it did not complete. */
UM_INLINE bool run_mem(struct um_exec *x, const struct um_insn *i, enum um_access acc)
{
	const struct um_native *n = i->aux;
	gva_t gva;
	void *p;

	if (unlikely(!allowed(x, n)) && !not_allowed(x, n))
		return false;
	if (unlikely(!um_linear(x, (enum um_seg)i->seg, um_ea(x, i), n->k.len, acc, &gva)))
		return false;
	if (unlikely(gva & n->k.align)) {
		um_raise_code(x, UM_VEC_GP, 0);
		return false;
	}
	p = um_tlb_lookup_sized(x->tlb, gva, n->k.len, acc, x->ctx);
	if (likely(p)) {
		if (acc == UM_WRITE && unlikely(((hva_t)p & UM_PAGE_MASK) == x->code_page))
			x->brk = true;
		if (unlikely(!call(x, n, p, gva)))
			return false;
	} else if (!um_native_mem(x, n, gva)) {
		return false;
	}
	return true;
}

const struct um_insn *um_native_load(struct um_exec *x, const struct um_insn *i)
{
	if (unlikely(!run_mem(x, i, UM_READ)))
		return um_stop(x, i);
	UM_NEXT(x, i);
}

const struct um_insn *um_native_store(struct um_exec *x, const struct um_insn *i)
{
	if (unlikely(!run_mem(x, i, UM_WRITE)))
		return um_stop(x, i);
	if (unlikely(x->brk))
		return um_end(x, i);
	UM_NEXT(x, i);
}

/*
 * x87 and MMX.  A stub's FIP and FDP are its own; um_native_x87_put() replaces them by what is
 * noted here.  So nothing may put the state away between the note and the instruction; and if that
 * does not complete, the older note is still the right one.
 */
const struct um_insn *um_native_x87(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;
	u64 rip = x->x87_rip, ea = x->x87_ea;
	u16 fop[2] = { x->x87_fop[0], x->x87_fop[1] };
	enum um_access acc = n->k.writes ? UM_WRITE : UM_READ;
	void *p = NULL;
	gva_t gva = 0;
	bool ok;

	if (unlikely(!(x->cpu.cr0 & CR0_NE)))
		return um_native_x87_ignne(x, i);
	if (unlikely(!allowed(x, n)) && !not_allowed(x, n))
		return um_stop(x, i);
	if (n->k.len) {
		if (likely(um_native_gva(x, i, n, &gva)))
			p = um_tlb_lookup_sized(x->tlb, gva, n->k.len, acc, x->ctx);
		if (unlikely(!p)) {
			/* A pending exception comes before what the access may raise. */
			um_native_fpu_sync(x);
			if (n->k.waits && um_native_x87_pending(x))
				um_raise(x, UM_VEC_MF);
			if (x->exit.kind != UM_EXIT_NONE)
				return um_stop(x, i);
		} else if (n->k.writes && unlikely(((hva_t)p & UM_PAGE_MASK) == x->code_page)) {
			x->brk = true;
		}
	}
	if (n->k.pointers) {
		x->x87_rip = um_rip(x, i);
		x->x87_fop[0] = n->k.fop_host;
		x->x87_fop[1] = n->k.fop_guest;
		if (n->k.len)
			x->x87_ea = um_ea(x, i);
	}
	if (!n->k.len || likely(p))
		ok = call(x, n, p, gva);
	else
		ok = um_native_mem(x, n, gva);
	if (likely(ok)) {
		if (unlikely(x->brk))
			return um_end(x, i);
		UM_NEXT(x, i);
	}
	x->x87_rip = rip;
	x->x87_ea = ea;
	x->x87_fop[0] = fop[0];
	x->x87_fop[1] = fop[1];
	return um_stop(x, i);
}

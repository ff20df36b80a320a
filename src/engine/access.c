// SPDX-License-Identifier: MIT
/*
 * Guest memory as instructions see it (engine/access.h).
 *
 * Every access goes down the same path: offset -> um_linear() (segmentation) -> span_of() (paging,
 * one page at a time) -> host memory or MMIO.  An access that crosses a page first translates both
 * its pages, and moves data only then, so a fault on the second page finds nothing done.
 *
 * MMIO is by replay: the instruction is abandoned at its first unanswered access and run again when
 * the answer is in x->mmio (engine/exec.h).
 *
 * Data breakpoints (SDM vol. 3 17.2.4): pages with one never are in the TLB, so the slow path sees
 * all their accesses, notes the hits, and makes the block end after the instruction.
 */
#include "engine/access.h"

#include <string.h>

#include "engine/flags.h"
#include "engine/interp/interp.h"
#include "engine/jit/jit.h"

/* ---- raising ---- */

static bool raise_event(struct um_exec *x, enum um_vector v, bool has_error, u32 code, u64 payload)
{
	x->exit.kind = UM_EXIT_EXCEPTION;
	x->exit.exc = (struct um_event){ .vector = (u8)v,
					 .kind = UM_EVENT_FAULT,
					 .has_error = has_error,
					 .error_code = code,
					 .payload = payload };
	return false;
}

bool um_raise(struct um_exec *x, enum um_vector v)
{
	return raise_event(x, v, false, 0, 0);
}

bool um_raise_code(struct um_exec *x, enum um_vector v, u32 error_code)
{
	return raise_event(x, v, true, error_code, 0);
}

bool um_internal(struct um_exec *x, const char *why)
{
	x->exit.kind = UM_EXIT_INTERNAL;
	x->exit.why = why;
	return false;
}

bool um_host_fault(struct um_exec *x, gva_t gva, const void *p)
{
	struct um_fault f = {
		.gva = gva, .acc = UM_READ, .priv = (enum um_tlb_priv)x->priv, .probe = true
	};

	/* The gpa is for the message only; the translation may be gone by now. */
	x->exit.kind = UM_EXIT_HOST_FAULT;
	x->exit.hva = (hva_t)p;
	x->exit.gpa = UM_INVALID_GPA;
	if (um_mmu_access(x->mmu, &f) != UM_ACCESS_FAULT)
		x->exit.gpa = f.gpa;
	um_interp_sync_ctx(x);
	return false;
}

/* ---- segmentation ---- */

static bool segment_fault(struct um_exec *x, enum um_seg seg)
{
	return um_raise_code(x, seg == UM_SS ? UM_VEC_SS : UM_VEC_GP, 0);
}

bool um_linear_slow(struct um_exec *x, enum um_seg seg, u64 off, unsigned len, enum um_access acc,
		    gva_t *gva)
{
	const struct um_segment *s = &x->cpu.seg[seg];
	u64 last = off + len - 1;

	*gva = (off + x->seg_base[seg]) & x->lin_mask;
	if (x->mode == UM_MODE_64) {
		if (!um_is_canonical(x, *gva) || !um_is_canonical(x, *gva + len - 1))
			return segment_fault(x, seg);
		return true;
	}
	if (x->mode != UM_MODE_REAL) {
		bool code = s->type & UM_DESC_CODE;

		if (s->unusable || !s->present)
			return segment_fault(x, seg);
		if (acc == UM_WRITE && (code || !(s->type & UM_DESC_WRITABLE)))
			return segment_fault(x, seg);
		if (acc == UM_READ && code && !(s->type & UM_DESC_READABLE))
			return segment_fault(x, seg);
	}
	if ((s->type & (UM_DESC_CODE | UM_DESC_EXPANDDOWN)) == UM_DESC_EXPANDDOWN) {
		if (off <= s->limit || last > (s->db ? 0xffffffffu : 0xffffu))
			return segment_fault(x, seg);
	} else if (last > s->limit && !(s->limit == 0xffffffff && off <= s->limit)) {
		/* (With a limit of 4 GiB an access wraps.) */
		return segment_fault(x, seg);
	}
	return true;
}

/* ---- breakpoints, MMIO ---- */

/* Note which data breakpoints [gva, gva + len) touches.  SDM vol. 3 17.2.4, 17.2.5. */
static void note_breakpoints(struct um_exec *x, gva_t gva, unsigned len, enum um_access acc)
{
	u64 dr7 = x->use_guest_dr ? x->guest_dr7 : x->cpu.dr7;
	const u64 *dr = x->use_guest_dr ? x->guest_dr : x->cpu.dr;
	static const u8 sizes[4] = { 1, 2, 8, 4 };

	for (unsigned n = 0; n < 4; n++) {
		unsigned rw = DR7_RW(dr7, n), size = sizes[DR7_LEN(dr7, n)];
		u64 at = dr[n] & ~(u64)(size - 1);

		if (!DR7_ENABLED(dr7, n) || !(rw == 3 || (rw == 1 && acc == UM_WRITE)))
			continue;
		if (at < gva + len && gva < at + size) {
			x->db_hits |= 1u << n;
			x->special |= UM_SPECIAL_DBHIT;
			x->brk = true;
		}
	}
}

/* One access of 1..8 bytes to MMIO: from the log of answers, or an exit. */
static bool mmio(struct um_exec *x, gpa_t gpa, void *buf, unsigned len, bool write)
{
	struct um_mmio_log *l = &x->mmio;

	if (l->pos < l->done) {
		if (l->e[l->pos].gpa == gpa && l->e[l->pos].len == len &&
		    l->e[l->pos].write == write) {
			if (!write)
				memcpy(buf, l->e[l->pos].data, len);
			l->pos++;
			return true;
		}
		/* Another processor changed something: the instruction goes another way than
		 * before. */
		l->done = l->pos;
	}
	if (l->done >= UM_MMIO_MAX)
		return um_internal(x, "an instruction with too many MMIO accesses");
	x->exit.kind = UM_EXIT_MMIO;
	x->exit.mmio.gpa = gpa;
	x->exit.mmio.len = (u8)len;
	x->exit.mmio.write = write;
	if (write)
		memcpy(x->exit.mmio.data, buf, len);
	return false;
}

/* ---- paging ---- */

/* Where a piece of an access, within one page, goes. */
struct span {
	u8 *p;	      /* host address, NULL: MMIO */
	gpa_t gpa;    /* if MMIO or tracked */
	bool tracked; /* um_mmu_written() must follow a store */
};

/* Whose access it is. */
struct who {
	enum um_tlb_priv priv;
	bool implicit;
};

static unsigned context_of(const struct um_exec *x, struct who w)
{
	return w.implicit ? x->tlb->ctx[w.priv] : x->tlb->ctx[w.priv] & x->ctx_mask;
}

static bool span_of(struct um_exec *x, struct who w, gva_t gva, unsigned len, enum um_access acc,
		    struct span *s)
{
	struct um_fault f = { .gva = gva, .acc = acc, .priv = w.priv, .implicit = w.implicit };

	s->tracked = false;
	s->gpa = 0;
	s->p = um_tlb_lookup(x->tlb, gva, acc, context_of(x, w));
	if (likely(s->p))
		goto memory;
	if (!um_is_canonical(x, gva))
		return um_raise_code(x, UM_VEC_GP, 0);
	switch (um_mmu_access(x->mmu, &f)) {
	case UM_ACCESS_TRACKED:
		s->tracked = true;
		s->gpa = f.gpa;
		s->p = f.hva;
		break;
	case UM_ACCESS_OK:
		s->p = f.hva;
		break;
	case UM_ACCESS_MMIO:
		s->gpa = f.gpa;
		break;
	case UM_ACCESS_FAULT:
		um_interp_sync_ctx(x);
		return raise_event(x, UM_VEC_PF, true, f.error_code, gva);
	case UM_ACCESS_HOST:
		um_interp_sync_ctx(x);
		x->exit.kind = UM_EXIT_HOST_FAULT;
		x->exit.hva = (hva_t)f.hva;
		x->exit.gpa = f.gpa;
		return false;
	}
	um_interp_sync_ctx(x);
	if (!w.implicit && unlikely((x->use_guest_dr ? x->guest_dr7 : x->cpu.dr7) & 0xff))
		note_breakpoints(x, gva, len, acc);
	if (acc == UM_WRITE && s->p && unlikely(um_tlb_guarded(x->tlb, (hva_t)s->p)) &&
	    x->translator)
		um_jit_written(x, s->p, len);
memory:
	if (acc == UM_WRITE && ((hva_t)s->p & UM_PAGE_MASK) == x->code_page)
		x->brk = true;
	return true;
}

static unsigned to_page_end(gva_t gva)
{
	return UM_PAGE_SIZE - (gva & ~UM_PAGE_MASK);
}

/*
 * What linear addresses wrap at: implicit accesses have 64-bit addresses in all of IA-32e mode,
 * whatever the mode of the code.
 */
static u64 wrap(const struct um_exec *x, struct who w)
{
	return w.implicit && um_cpu_long_mode(&x->cpu) ? ~0ull : x->lin_mask;
}

static bool probe(struct um_exec *x, struct who w, gva_t gva, unsigned len, enum um_access acc)
{
	struct span s;

	while (len) {
		unsigned n = um_min(len, to_page_end(gva));

		if (!span_of(x, w, gva, n, acc, &s))
			return false;
		gva = (gva + n) & wrap(x, w);
		len -= n;
	}
	return true;
}

/* MMIO is at most 8 bytes at a time. */
static bool mmio_span(struct um_exec *x, gpa_t gpa, u8 *buf, unsigned len, bool write)
{
	while (len) {
		unsigned n = um_min(len, 8u);

		if (!mmio(x, gpa, buf, n, write))
			return false;
		gpa += n;
		buf += n;
		len -= n;
	}
	return true;
}

/* Between @buf and the page piece @s.  False: an MMIO exit, or the host has no page. */
static bool move(struct um_exec *x, const struct span *s, gva_t gva, u8 *buf, unsigned len,
		 bool write)
{
	if (unlikely(x->recording) && (write || !s->p))
		um_lockstep_store(x, s->p, len, s->tracked);
	if (unlikely(!s->p))
		return mmio_span(x, s->gpa, buf, len, write);
	if (likely(!(write ? um_copy_to(s->p, buf, len) : um_copy_from(buf, s->p, len))))
		return true;
	return um_host_fault(x, gva, s->p);
}

/* Tell the MMU of a store to @s.  Host addresses from before are no good afterwards. */
static void moved(struct um_exec *x, const struct span *s, unsigned len)
{
	if (unlikely(s->tracked)) {
		um_mmu_written(x->mmu, s->gpa, len);
		um_interp_sync_ctx(x);
	}
}

static bool access_as(struct um_exec *x, struct who w, gva_t gva, u8 *buf, unsigned len,
		      enum um_access acc);

#define CROSSING_TRIES 64

/*
 * An access to two pages.  It needs both host addresses at once, and translating the second may
 * have taken the first back (mmu/mmu.h): then again.  Devices come first, since an exit to them
 * must find nothing done.
 *
 * If others take translations away as fast as we get them, the halves go one by one in the end:
 * then the access may fault on its second page with its first part stored.
 */
static __attribute__((noinline)) bool access_crossing(struct um_exec *x, struct who w, gva_t gva,
						      u8 *buf, unsigned len, enum um_access acc)
{
	const gva_t at[2] = { gva, (gva + to_page_end(gva)) & wrap(x, w) };
	const unsigned n[2] = { to_page_end(gva), len - to_page_end(gva) };
	u8 *const data[2] = { buf, buf + n[0] };
	struct span s[2];
	unsigned tries = 0;
	u32 seq;

	do {
		if (tries++ == CROSSING_TRIES)
			return access_as(x, w, at[0], data[0], n[0], acc) &&
			       access_as(x, w, at[1], data[1], n[1], acc);
		seq = x->tlb->seq;
		if (!span_of(x, w, at[0], n[0], acc, &s[0]) ||
		    !span_of(x, w, at[1], n[1], acc, &s[1]))
			return false;
	} while (unlikely(x->tlb->seq != seq));

	for (unsigned k = 0; k < 2; k++) {
		if (!s[k].p && !move(x, &s[k], at[k], data[k], n[k], acc == UM_WRITE))
			return false;
	}
	for (unsigned k = 0; k < 2; k++) {
		if (s[k].p && !move(x, &s[k], at[k], data[k], n[k], acc == UM_WRITE))
			return false;
	}
	for (unsigned k = 0; k < 2; k++)
		moved(x, &s[k], n[k]);
	return true;
}

static bool access_as(struct um_exec *x, struct who w, gva_t gva, u8 *buf, unsigned len,
		      enum um_access acc)
{
	struct span s;

	if (unlikely(len > to_page_end(gva)))
		return access_crossing(x, w, gva, buf, len, acc);
	if (!span_of(x, w, gva, len, acc, &s) || !move(x, &s, gva, buf, len, acc == UM_WRITE))
		return false;
	moved(x, &s, len);
	return true;
}

static bool read_as(struct um_exec *x, struct who w, gva_t gva, void *buf, unsigned len)
{
	return access_as(x, w, gva, buf, len, UM_READ);
}

static bool write_as(struct um_exec *x, struct who w, gva_t gva, const void *buf, unsigned len)
{
	return access_as(x, w, gva, (u8 *)buf, len, UM_WRITE);
}

static struct who explicit(const struct um_exec *x)
{
	return (struct who){ (enum um_tlb_priv)x->priv, false };
}

bool um_lin_read(struct um_exec *x, gva_t gva, void *buf, unsigned len)
{
	return read_as(x, explicit(x), gva, buf, len);
}

bool um_lin_write(struct um_exec *x, gva_t gva, const void *buf, unsigned len)
{
	return write_as(x, explicit(x), gva, buf, len);
}

bool um_lin_probe(struct um_exec *x, gva_t gva, unsigned len, enum um_access acc)
{
	return probe(x, explicit(x), gva, len, acc);
}

bool um_sys_read(struct um_exec *x, gva_t gva, void *buf, unsigned len)
{
	return read_as(x, (struct who){ UM_PRIV_KERNEL, true }, gva, buf, len);
}

bool um_sys_write(struct um_exec *x, gva_t gva, const void *buf, unsigned len)
{
	return write_as(x, (struct who){ UM_PRIV_KERNEL, true }, gva, buf, len);
}

bool um_priv_read(struct um_exec *x, enum um_tlb_priv priv, gva_t gva, void *buf, unsigned len)
{
	return read_as(x, (struct who){ priv, false }, gva, buf, len);
}

bool um_priv_write(struct um_exec *x, enum um_tlb_priv priv, gva_t gva, const void *buf,
		   unsigned len)
{
	return write_as(x, (struct who){ priv, false }, gva, buf, len);
}

bool um_lin_map(struct um_exec *x, gva_t gva, unsigned len, enum um_access acc, void **p,
		bool *tracked)
{
	struct span s = { .p = NULL };

	*p = NULL;
	*tracked = false;
	if (len > to_page_end(gva))
		return true;
	if (!span_of(x, explicit(x), gva, len, acc, &s))
		return false;
	*p = s.p;
	if (unlikely(x->recording) && s.p && acc == UM_WRITE)
		um_lockstep_store(x, s.p, len, s.tracked);
	if (s.p && s.tracked) {
		*tracked = true;
		x->tracked_gva = gva;
		x->tracked_gpa = s.gpa;
	}
	return true;
}

void um_lin_written(struct um_exec *x, gva_t gva, unsigned len)
{
	um_mmu_written(x->mmu, x->tracked_gpa + (gva - x->tracked_gva), len);
	um_interp_sync_ctx(x);
}

void *um_lin_over_code(struct um_exec *x, gva_t gva, unsigned len)
{
	struct um_fault f = { .gva = gva, .acc = UM_WRITE, .priv = (enum um_tlb_priv)x->priv };
	const void *p = um_tlb_lookup(x->tlb, gva, UM_READ, x->ctx);
	enum um_access_result r;

	/* (Pages with data breakpoints are not in the TLB.) */
	if (!p || !x->translator || x->recording || !um_tlb_guarded(x->tlb, (hva_t)p))
		return NULL;
	/* Whether it may be stored to, and that it is dirty then. */
	r = um_mmu_access(x->mmu, &f);
	um_interp_sync_ctx(x);
	if (r != UM_ACCESS_OK || ((hva_t)f.hva & UM_PAGE_MASK) == x->code_page)
		return NULL;
	if (um_tlb_guarded(x->tlb, (hva_t)f.hva))
		um_jit_written(x, f.hva, len);
	return f.hva;
}

/* ---- the explicit memory operand ---- */

bool um_load(struct um_exec *x, const struct um_insn *i, unsigned size, u64 *v)
{
	u64 buf = 0;
	gva_t gva;
	void *p;

	if (!um_linear(x, i->seg, um_ea(x, i), size, UM_READ, &gva))
		return false;
	p = um_tlb_lookup_sized(x->tlb, gva, size, UM_READ, x->ctx);
	if (likely(p) && likely(um_get(p, size, v)))
		return true;
	if (!um_check_align(x, gva, size) || !um_lin_read(x, gva, &buf, size))
		return false;
	*v = buf;
	return true;
}

bool um_store(struct um_exec *x, const struct um_insn *i, unsigned size, u64 v)
{
	gva_t gva;

	return um_linear(x, i->seg, um_ea(x, i), size, UM_WRITE, &gva) &&
	       um_check_align(x, gva, size) && um_lin_write(x, gva, &v, size);
}

bool um_split_lock(struct um_exec *x)
{
	int err;

	if (!x->split_lock || !pthread_mutex_trylock(x->split_lock))
		return true;
	/* Its holder may be waiting for this processor to drop translations. */
	um_mmu_leave(x->mmu);
	pthread_mutex_lock(x->split_lock);
	err = um_mmu_enter(x->mmu);
	um_interp_sync_ctx(x);
	if (!err)
		return true;
	pthread_mutex_unlock(x->split_lock);
	return um_internal(x, "no memory for a shadow root");
}

void um_split_unlock(struct um_exec *x)
{
	if (x->split_lock)
		pthread_mutex_unlock(x->split_lock);
}

bool um_rmw_begin(struct um_exec *x, const struct um_insn *i, u64 ea, unsigned size, bool locked,
		  struct um_rmw *m)
{
	m->size = (u8)size;
	m->locked = locked;
	m->old = 0;
	if (!um_linear(x, i->seg, ea, size, UM_WRITE, &m->gva) ||
	    !um_check_align(x, m->gva, size) ||
	    !um_lin_map(x, m->gva, size, UM_WRITE, &m->p, &m->tracked))
		return false;
	if (likely(m->p))
		return um_get(m->p, size, &m->old) || um_host_fault(x, m->gva, m->p);
	if (!um_lin_probe(x, m->gva, size, UM_WRITE))
		return false;
	if (locked && !um_split_lock(x))
		return false;
	if (um_lin_read(x, m->gva, &m->old, size))
		return true;
	if (locked)
		um_split_unlock(x);
	return false;
}

/* The host's compare-and-exchange.  False: host fault. */
#define DEFINE_CMPXCHG(bits, suffix, reg)                                \
	static bool cmpxchg##bits(void *p, u64 old, u64 new, bool *done) \
	{                                                                \
		u##bits o = (u##bits)old;                                \
		bool ok;                                                 \
                                                                         \
		asm goto("1: lock cmpxchg" suffix " %3, (%2)\n\t"        \
			 "sete %b1\n\t" UM_EXTABLE("1b", "%l[fault]")    \
			 : "+a"(o), "=&q"(ok)                            \
			 : "r"(p), reg((u##bits) new)                    \
			 : "memory", "cc"                                \
			 : fault);                                       \
		*done = ok;                                              \
		return true;                                             \
	fault:                                                           \
		return false;                                            \
	}

DEFINE_CMPXCHG(8, "b", "q")
DEFINE_CMPXCHG(16, "w", "r")
DEFINE_CMPXCHG(32, "l", "r")
DEFINE_CMPXCHG(64, "q", "r")

static bool cmpxchg(void *p, unsigned size, u64 old, u64 new, bool *done)
{
	switch (size) {
	case 1:
		return cmpxchg8(p, old, new, done);
	case 2:
		return cmpxchg16(p, old, new, done);
	case 4:
		return cmpxchg32(p, old, new, done);
	default:
		return cmpxchg64(p, old, new, done);
	}
}

enum um_rmw_result um_rmw_commit(struct um_exec *x, struct um_rmw *m, u64 v)
{
	bool ok = true;

	if (unlikely(!m->p)) {
		ok = um_lin_write(x, m->gva, &v, m->size);
		if (m->locked)
			um_split_unlock(x);
		return ok ? UM_RMW_DONE : UM_RMW_FAULT;
	}
	if (!(m->locked ? cmpxchg(m->p, m->size, m->old, v, &ok) : um_put(m->p, m->size, v))) {
		um_host_fault(x, m->gva, m->p);
		return UM_RMW_FAULT;
	}
	if (!ok)
		return UM_RMW_AGAIN;
	if (m->tracked)
		um_lin_written(x, m->gva, m->size);
	return UM_RMW_DONE;
}

/* ---- stack ---- */

/* RSP with its low part, as wide as the stack is, replaced. */
static void set_sp(struct um_exec *x, u64 sp)
{
	u64 keep = x->sp_mask == 0xffff ? x->cpu.gpr[UM_RSP] & ~0xffffull : 0;

	x->cpu.gpr[UM_RSP] = keep | (sp & x->sp_mask);
}

bool um_push(struct um_exec *x, u64 v, unsigned size)
{
	u64 sp = (x->cpu.gpr[UM_RSP] - size) & x->sp_mask;
	gva_t gva;

	if (!um_linear(x, UM_SS, sp, size, UM_WRITE, &gva) || !um_check_align(x, gva, size) ||
	    !um_lin_write(x, gva, &v, size))
		return false;
	set_sp(x, sp);
	return true;
}

bool um_stack_peek(struct um_exec *x, unsigned off, u64 *v, unsigned size)
{
	u64 buf = 0;
	gva_t gva;

	if (!um_linear(x, UM_SS, (x->cpu.gpr[UM_RSP] + off) & x->sp_mask, size, UM_READ, &gva) ||
	    !um_check_align(x, gva, size) || !um_lin_read(x, gva, &buf, size))
		return false;
	*v = buf;
	return true;
}

bool um_pop(struct um_exec *x, u64 *v, unsigned size)
{
	if (!um_stack_peek(x, 0, v, size))
		return false;
	set_sp(x, x->cpu.gpr[UM_RSP] + size);
	return true;
}

/* ---- RFLAGS ---- */

u64 um_get_rflags(const struct um_exec *x)
{
	return (x->cpu.rflags & ~RFLAGS_STATUS) | um_status(x) | RFLAGS_FIXED1;
}

void um_set_rflags(struct um_exec *x, u64 rflags)
{
	u64 changed = x->cpu.rflags ^ rflags;

	x->cpu.rflags = rflags | RFLAGS_FIXED1;
	um_set_status(x, rflags);
	if (changed & (RFLAGS_AC | RFLAGS_VM))
		um_sync_priv(x);
	/* IF matters to those who wait for the interrupt window. */
	um_sync_special(x);
}

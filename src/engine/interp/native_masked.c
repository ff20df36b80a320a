// SPDX-License-Identifier: MIT
/*
 * Vector instructions that access memory element by element: masked loads and stores (with "fault
 * suppression": an element that the mask leaves out is not accessed at all), compress and expand,
 * gathers and scatters, MASKMOV.
 *
 * Masked accesses whose whole operand is plain memory in one page run like any other.  Otherwise
 * active elements are read one by one into a buffer, the stub runs on it, and active elements are
 * written back one by one, after a probe of all.
 *
 * Gathers and scatters are C altogether.  When an element faults, those before it are complete and
 * their mask bits clear, as SDM vol. 2 has it; an MMIO exit starts the instruction over instead,
 * with its log of answers, so nothing is committed then.
 */
#include "engine/interp/native.h"

#include <string.h>

#include "engine/flags.h"

/* Bit n: memory element n is accessed. */
static u64 active_elements(const struct um_exec *x, const struct um_native *n)
{
	u64 k, active = 0;

	switch (n->k.mask_kind) {
	case UM_MASK_SIGN:
		for (unsigned e = 0; e < n->k.nelem; e++) {
			if (x->cpu.fpu.zmm[n->k.mask][(e + 1) * n->k.esz - 1] & 0x80)
				active |= BIT(e);
		}
		return active;
	case UM_MASK_NONE:
		return n->k.nelem >= 64 ? ~0ull : BIT(n->k.nelem) - 1;
	}
	k = x->cpu.fpu.k[n->k.mask];
	if (n->k.nmask < 64)
		k &= BIT(n->k.nmask) - 1;
	if (n->k.mask_kind == UM_MASK_COMPRESS) {
		unsigned count = (unsigned)__builtin_popcountll(k);

		return count == 64 ? ~0ull : BIT(count) - 1;
	}
	for (unsigned b = 0; b < n->k.nmask; b++) { /* a broadcast serves several mask bits */
		if (k & BIT(b))
			active |= BIT(n->k.group ? b / n->k.group % n->k.nelem : b % n->k.nelem);
	}
	return active;
}

/* Linear address of element @e, and its segment check. */
static bool element(struct um_exec *x, const struct um_insn *i, const struct um_native *n,
		    unsigned e, enum um_access acc, gva_t *gva)
{
	u64 ea = um_trunc(um_ea(x, i) + e * n->k.esz, i->asz);

	return um_linear(x, (enum um_seg)i->seg, ea, n->k.esz, acc, gva) &&
	       um_check_align(x, *gva, n->k.esz);
}

static bool run_elements(struct um_exec *x, const struct um_insn *i, const struct um_native *n,
			 u64 active)
{
	u8 buf[128] __attribute__((aligned(64)));
	enum um_access acc = n->k.writes ? UM_WRITE : UM_READ;
	gva_t gva[64];
	struct um_cc cc = x->cc;
	u32 mxcsr;

	memset(buf, 0, sizeof(buf));
	for (unsigned e = 0; e < n->k.nelem; e++) {
		if (!(active & BIT(e)))
			continue;
		if (!element(x, i, n, e, acc, &gva[e]))
			return false;
		if (n->k.reads && !um_lin_read(x, gva[e], buf + e * n->k.esz, n->k.esz))
			return false;
		if (n->k.writes && !um_lin_probe(x, gva[e], n->k.esz, UM_WRITE))
			return false;
	}
	um_native_fpu_sync(x);
	mxcsr = x->cpu.fpu.mxcsr;
	if (!um_native_call(x, n, buf, 0))
		return false;
	for (unsigned e = 0; n->k.writes && e < n->k.nelem; e++) {
		if (!(active & BIT(e)))
			continue;
		if (!um_lin_write(x, gva[e], buf + e * n->k.esz, n->k.esz)) {
			um_native_fpu_sync(x);
			x->cc = cc;
			x->cpu.fpu.mxcsr = mxcsr;
			return false;
		}
	}
	return true;
}

/* The whole operand, if that is plain memory in one page: 1 done, 0 failed, -1 not so. */
static int run_whole(struct um_exec *x, const struct um_insn *i, const struct um_native *n)
{
	enum um_access acc = n->k.writes ? UM_WRITE : UM_READ;
	bool brk = x->brk, tracked = false;
	void *p = NULL;
	gva_t gva;

	if (x->align_check ||
	    !um_linear(x, (enum um_seg)i->seg, um_ea(x, i), n->k.len, acc, &gva) ||
	    !um_lin_map(x, gva, n->k.len, acc, &p, &tracked) || !p) {
		x->exit.kind = UM_EXIT_NONE;
		x->brk = brk;
		return -1;
	}
	if (!um_native_call(x, n, p, gva))
		return 0;
	if (tracked)
		um_lin_written(x, gva, n->k.len);
	return 1;
}

const struct um_insn *um_native_masked(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;
	u64 active;
	int done;

	if (!um_native_allowed(x, n))
		return um_stop(x, i);
	active = active_elements(x, n);
	/* Without an active element there is no access that could be misaligned. */
	if (active && (((um_ea(x, i) + x->seg_base[i->seg]) & x->lin_mask) & n->k.align)) {
		um_raise_code(x, UM_VEC_GP, 0);
		return um_stop(x, i);
	}
	done = active ? run_whole(x, i, n) : -1;
	if (done < 0)
		done = run_elements(x, i, n, active);
	if (!done)
		return um_stop(x, i);
	return um_native_next(x, i);
}

/* ---- gathers and scatters ---- */

static s64 index_of(const struct um_exec *x, const struct um_native *n, unsigned e)
{
	const u8 *p = &x->cpu.fpu.zmm[n->k.idx][e * n->k.isz];
	s32 d;
	s64 q;

	if (n->k.isz == 4) {
		memcpy(&d, p, 4);
		return d;
	}
	memcpy(&q, p, 8);
	return q;
}

static bool vsib(struct um_exec *x, const struct um_insn *i, const struct um_native *n, unsigned e,
		 enum um_access acc, gva_t *gva)
{
	u64 ea = um_ea(x, i) + ((u64)index_of(x, n, e) << i->scale);

	return um_linear(x, (enum um_seg)i->seg, um_trunc(ea, i->asz), n->k.esz, acc, gva) &&
	       um_check_align(x, *gva, n->k.esz);
}

static bool selected(const struct um_exec *x, const struct um_native *n, unsigned e)
{
	if (n->k.mask_kind == UM_MASK_SIGN)
		return x->cpu.fpu.zmm[n->k.mask][(e + 1) * n->k.esz - 1] & 0x80;
	return x->cpu.fpu.k[n->k.mask] & BIT(e);
}

static void deselect(struct um_exec *x, const struct um_native *n, unsigned e)
{
	if (n->k.mask_kind == UM_MASK_SIGN)
		memset(&x->cpu.fpu.zmm[n->k.mask][e * n->k.esz], 0, n->k.esz);
	else
		x->cpu.fpu.k[n->k.mask] &= ~BIT(e);
}

/*
 * Before anything else, an AVX2 gather extends the sign bits of its mask over the elements, and
 * zeroes the rest of that register.
 */
static void extend_mask(struct um_exec *x, const struct um_native *n)
{
	u8 *mask = x->cpu.fpu.zmm[n->k.mask];
	unsigned esz = n->k.esz;

	if (n->k.mask_kind != UM_MASK_SIGN)
		return;
	for (unsigned e = 0; e < n->k.vl / esz; e++)
		memset(mask + e * esz, selected(x, n, e) ? 0xff : 0, esz);
	memset(mask + n->k.vl, 0, 64 - n->k.vl);
}

const struct um_insn *um_native_gather(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;
	u8 *dst = x->cpu.fpu.zmm[n->k.dst];
	unsigned esz = n->k.esz, e;
	bool any = false;
	u8 data[64];
	gva_t gva;

	if (!um_native_allowed(x, n))
		return um_stop(x, i);
	for (e = 0; e < n->k.nelem; e++) {
		if (selected(x, n, e) &&
		    (!vsib(x, i, n, e, UM_READ, &gva) || !um_lin_read(x, gva, data + e * esz, esz)))
			break;
	}
	if (e < n->k.nelem && (x->exit.kind != UM_EXIT_EXCEPTION || x->mmio.done))
		return um_stop(x, i);
	extend_mask(x, n);
	for (unsigned d = 0; d < e; d++) {
		if (selected(x, n, d)) {
			memcpy(dst + d * esz, data + d * esz, esz);
			any = true;
		}
		deselect(x, n, d);
	}
	x->cpu.fpu.xinuse |= n->k.xinuse;
	if (e < n->k.nelem) {
		if (any) /* what writing any element does to the rest of the register */
			memset(dst + n->k.vl, 0, 64 - n->k.vl);
		return um_stop(x, i);
	}
	memset(dst + n->k.nelem * esz, 0, 64 - n->k.nelem * esz);
	if (n->k.mask_kind == UM_MASK_SIGN)
		memset(x->cpu.fpu.zmm[n->k.mask], 0, 64);
	else
		x->cpu.fpu.k[n->k.mask] = 0;
	return i + 1;
}

const struct um_insn *um_native_scatter(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;
	unsigned esz = n->k.esz, e;
	gva_t gva;

	if (!um_native_allowed(x, n))
		return um_stop(x, i);
	for (e = 0; e < n->k.nelem; e++) {
		if (selected(x, n, e) &&
		    (!vsib(x, i, n, e, UM_WRITE, &gva) ||
		     !um_lin_write(x, gva, &x->cpu.fpu.zmm[n->k.dst][e * esz], esz)))
			break;
	}
	if (e < n->k.nelem) {
		if (x->exit.kind == UM_EXIT_EXCEPTION && !x->mmio.done) {
			for (unsigned d = 0; d < e; d++)
				deselect(x, n, d);
		}
		return um_stop(x, i);
	}
	x->cpu.fpu.k[n->k.mask] = 0;
	return um_native_next(x, i);
}

/* ---- MASKMOVQ, MASKMOVDQU: bytes of a register to [rDI], those with the mask's sign bits ---- */

const struct um_insn *um_native_maskmov(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;
	const u8 *data, *mask;
	u8 mm[8], mmask[8];
	u64 ea = um_trunc(x->cpu.gpr[UM_RDI], i->asz);
	gva_t gva[16];

	if (!um_native_allowed(x, n))
		return um_stop(x, i);
	if (n->k.mmx) {
		/*
		 * MMX registers are the physical x87 registers; the image has them in stack order.
		 */
		u8 *st = x->cpu.fpu.fxsave + 32;
		u16 fsw;

		um_native_fpu_sync(x);
		memcpy(&fsw, x->cpu.fpu.fxsave + 2, 2);
		if ((fsw & 0x80) && (x->cpu.cr0 & CR0_NE)) {
			um_raise(x, UM_VEC_MF);
			return um_stop(x, i);
		}
		memcpy(mm, st + ((n->k.dst - (fsw >> 11)) & 7) * 16, 8);
		memcpy(mmask, st + ((n->k.src - (fsw >> 11)) & 7) * 16, 8);
		data = mm;
		mask = mmask;
	} else {
		data = x->cpu.fpu.zmm[n->k.dst];
		mask = x->cpu.fpu.zmm[n->k.src];
	}
	for (unsigned b = 0; b < n->k.nelem; b++) {
		if ((mask[b] & 0x80) &&
		    (!um_linear(x, (enum um_seg)i->seg, um_trunc(ea + b, i->asz), 1, UM_WRITE,
				&gva[b]) ||
		     !um_lin_probe(x, gva[b], 1, UM_WRITE)))
			return um_stop(x, i);
	}
	for (unsigned b = 0; b < n->k.nelem; b++) {
		if ((mask[b] & 0x80) && !um_lin_write(x, gva[b], &data[b], 1))
			return um_stop(x, i);
	}
	if (n->k.mmx)
		um_native_mmx_enter(x);
	return um_native_next(x, i);
}

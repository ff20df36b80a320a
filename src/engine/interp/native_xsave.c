// SPDX-License-Identifier: MIT
/*
 * Instructions that work on the state as a whole, in C: FXSAVE and XSAVE families, MXCSR, XCR0,
 * PKRU, VZEROUPPER, VZEROALL (SDM vol. 1 10.5, 13.7-13.10; vol. 2).
 *
 * Images are composed in and loaded from a buffer (cpu/xsave.h).  An XSAVE leaves bytes of the area
 * alone that it does not own, so what is written goes in pieces: the legacy region, the header,
 * each component.
 *
 * XSAVES and XRSTORS differ from XSAVEC and XRSTOR by their privilege and their format, which is
 * always compacted: IA32_XSS enables no supervisor component.
 */
#include "engine/interp/native.h"

#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/xsave.h"
#include "mmu/mmu.h"

static const struct um_insn *general_protection(struct um_exec *x, const struct um_insn *i)
{
	um_raise_code(x, UM_VEC_GP, 0);
	return um_stop(x, i);
}

static const struct um_insn *undefined(struct um_exec *x, const struct um_insn *i)
{
	um_raise(x, UM_VEC_UD);
	return um_stop(x, i);
}

/* EDX:EAX of XSAVE and friends, restricted to what XCR0 enables: "RFBM". */
static u64 requested(const struct um_exec *x)
{
	return ((x->cpu.gpr[UM_RDX] << 32) | (u32)x->cpu.gpr[UM_RAX]) & x->cpu.xcr0;
}

/*
 * Linear address of an area of @len bytes at the memory operand, aligned to @align.  #AC comes
 * before #GP(0) for misalignment where both apply, but only if alignment checks are on.
 */
static bool area(struct um_exec *x, const struct um_insn *i, unsigned len, unsigned align,
		 enum um_access acc, gva_t *gva)
{
	if (!um_linear(x, (enum um_seg)i->seg, um_ea(x, i), len, acc, gva))
		return false;
	if (*gva & (align - 1))
		return um_raise_code(x, UM_VEC_GP, 0);
	return true;
}

/* ---- MXCSR ---- */

static const struct um_insn *op_ldmxcsr(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	um_native_fpu_sync(x);
	if (!um_native_allowed(x, i->aux) || !um_load(x, i, 4, &v))
		return um_stop(x, i);
	if (v & ~(u64)UM_MXCSR_MASK)
		return general_protection(x, i);
	x->cpu.fpu.mxcsr = (u32)v;
	return i + 1;
}

static const struct um_insn *op_stmxcsr(struct um_exec *x, const struct um_insn *i)
{
	um_native_fpu_sync(x);
	if (!um_native_allowed(x, i->aux) || !um_store(x, i, 4, x->cpu.fpu.mxcsr))
		return um_stop(x, i);
	return um_native_next(x, i);
}

/* ---- FXSAVE ---- */

/* EFER.FFXSR (AMD): at CPL 0 in 64-bit mode the vector registers are left out. */
static bool fx_vectors(const struct um_exec *x)
{
	return !((x->cpu.efer & EFER_FFXSR) && x->mode == UM_MODE_64 && x->cpu.cpl == 0);
}

static unsigned fx_nxmm(const struct um_exec *x)
{
	return x->mode == UM_MODE_64 ? 16 : 8;
}

/*
 * Bytes 464..511 are software's, and not written; so are the upper XMM registers outside 64-bit
 * mode.
 */
static unsigned fx_len(const struct um_exec *x)
{
	return fx_vectors(x) ? 160 + 16 * fx_nxmm(x) : 160;
}

static const struct um_insn *op_fxsave(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;
	u8 image[UM_FXSAVE_SIZE] = { 0 };
	gva_t gva;

	um_native_fpu_sync(x);
	if (!um_native_allowed(x, n) || !area(x, i, UM_FXSAVE_SIZE, 16, UM_WRITE, &gva))
		return um_stop(x, i);
	um_fpu_to_fxsave(&x->cpu.fpu, image, n->k.wide, fx_vectors(x), fx_nxmm(x));
	if (!um_lin_probe(x, gva, UM_FXSAVE_SIZE, UM_WRITE) ||
	    !um_lin_write(x, gva, image, fx_len(x)))
		return um_stop(x, i);
	return um_native_next(x, i);
}

static const struct um_insn *op_fxrstor(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;
	u8 image[UM_FXSAVE_SIZE];
	u32 mxcsr;
	gva_t gva;

	um_native_fpu_sync(x);
	if (!um_native_allowed(x, n) || !area(x, i, UM_FXSAVE_SIZE, 16, UM_READ, &gva) ||
	    !um_lin_read(x, gva, image, sizeof(image)))
		return um_stop(x, i);
	memcpy(&mxcsr, image + 24, 4);
	if (fx_vectors(x) && (mxcsr & ~UM_MXCSR_MASK))
		return general_protection(x, i);
	um_fpu_from_fxsave(&x->cpu.fpu, image, n->k.wide, fx_vectors(x), fx_nxmm(x));
	return i + 1;
}

/* ---- XSAVE ---- */

/* Outside 64-bit mode only the first eight registers are saved and restored (SDM vol. 1 13.5). */
static void keep_upper_registers(struct um_fpu *to, const struct um_fpu *from)
{
	memcpy(to->zmm[8], from->zmm[8], 24 * 64);
}

/* Write [off, off + len) of @image. */
static bool put_piece(struct um_exec *x, gva_t gva, const u8 *image, u32 off, u32 len)
{
	return !len || um_lin_write(x, (gva + off) & x->lin_mask, image + off, len);
}

/*
 * Save the components of @write (in the format that @image was composed in) and the header.  @bv:
 * compacted, the components that the area has room for; 0: standard format.
 */
static bool put_image(struct um_exec *x, gva_t gva, const u8 *image, u64 write, u64 bv, bool mxcsr)
{
	const struct um_xsave_layout *l = um_xsave_layout();
	unsigned nxmm = fx_nxmm(x);
	bool narrow = nxmm < 16;

	if ((write & XCR0_X87) &&
	    (!put_piece(x, gva, image, 0, 24) || !put_piece(x, gva, image, 32, 128)))
		return false;
	if (mxcsr && !put_piece(x, gva, image, 24, 8))
		return false;
	if ((write & XCR0_SSE) && !put_piece(x, gva, image, 160, 16 * nxmm))
		return false;
	for (unsigned n = 2; n < UM_XSAVE_NR; n++) {
		u64 below = bv & (BIT(n) - 1);
		u32 off = l->c[n].offset, len = l->c[n].size;

		if (!(write & BIT(n)) || (narrow && BIT(n) == XCR0_HI16_ZMM))
			continue;
		if (bv) {
			off = um_xsave_image_size(below, true);
			if (l->c[n].aligned)
				off = ALIGN_UP(off, 64u);
		}
		if (narrow && (BIT(n) == XCR0_AVX || BIT(n) == XCR0_ZMM_HI256))
			len /= 2;
		if (!put_piece(x, gva, image, off, len))
			return false;
	}
	return put_piece(x, gva, image, UM_XSAVE_HEADER, bv ? 16 : 8);
}

enum xsave_kind { XSAVE_PLAIN, XSAVE_OPT, XSAVE_COMPACT };

static const struct um_insn *xsave(struct um_exec *x, const struct um_insn *i, enum xsave_kind kind)
{
	const struct um_native *n = i->aux;
	bool compacted = kind == XSAVE_COMPACT;
	u8 image[UM_XSAVE_MAX] = { 0 };
	u64 rfbm, inuse, write;
	u32 size;
	gva_t gva;
	bool mxcsr;

	um_native_fpu_sync(x);
	if (!um_native_allowed(x, n))
		return um_stop(x, i);
	rfbm = requested(x);
	size = um_xsave_image_size(rfbm, compacted);
	if (!area(x, i, size, 64, UM_WRITE, &gva) || !um_lin_probe(x, gva, size, UM_WRITE))
		return um_stop(x, i);
	if (!compacted &&
	    !um_lin_read(x, (gva + UM_XSAVE_HEADER) & x->lin_mask, image + UM_XSAVE_HEADER, 8))
		return um_stop(x, i);
	um_fpu_to_xsave(&x->cpu.fpu, image, rfbm, compacted);
	if (!n->k.wide) { /* XSAVE without REX.W: 32-bit pointers and selectors, as FXSAVE */
		memset(image + 12, 0, 4);
		memset(image + 20, 0, 4);
	}
	memcpy(&inuse, image + UM_XSAVE_HEADER, 8);
	write = kind == XSAVE_PLAIN ? rfbm : rfbm & inuse;
	mxcsr = compacted ? write & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
	if (!put_image(x, gva, image, write, compacted ? rfbm | UM_XSAVE_COMPACT : 0, mxcsr))
		return um_stop(x, i);
	return um_native_next(x, i);
}

static const struct um_insn *op_xsave(struct um_exec *x, const struct um_insn *i)
{
	return xsave(x, i, XSAVE_PLAIN);
}

/* The modified optimization would need a record of the last XRSTOR; it is allowed, not required. */
static const struct um_insn *op_xsaveopt(struct um_exec *x, const struct um_insn *i)
{
	if (!um_cpu_has(&x->cpu, UM_F_XSAVEOPT))
		return undefined(x, i);
	return xsave(x, i, XSAVE_OPT);
}

static const struct um_insn *op_xsavec(struct um_exec *x, const struct um_insn *i)
{
	if (!um_cpu_has(&x->cpu, UM_F_XSAVEC))
		return undefined(x, i);
	return xsave(x, i, XSAVE_COMPACT);
}

/* What XSAVES and XRSTORS check first. */
static bool supervisor_allowed(struct um_exec *x, const struct um_insn *i)
{
	if (!um_cpu_has(&x->cpu, UM_F_XSAVES))
		return um_raise(x, UM_VEC_UD);
	if (!um_native_allowed(x, i->aux))
		return false;
	return !x->cpu.cpl || um_raise_code(x, UM_VEC_GP, 0);
}

static const struct um_insn *op_xsaves(struct um_exec *x, const struct um_insn *i)
{
	return supervisor_allowed(x, i) ? xsave(x, i, XSAVE_COMPACT) : um_stop(x, i);
}

static const struct um_insn *xrstor(struct um_exec *x, const struct um_insn *i, bool supervisor)
{
	const struct um_native *n = i->aux;
	u8 image[UM_XSAVE_MAX];
	u64 rfbm, xcomp, bv;
	u32 pkru, size;
	bool compacted;
	gva_t gva;

	um_native_fpu_sync(x);
	if (!um_native_allowed(x, n))
		return um_stop(x, i);
	rfbm = requested(x);
	if (!area(x, i, UM_XSAVE_EXT, 64, UM_READ, &gva) ||
	    !um_lin_read(x, gva, image, UM_XSAVE_EXT))
		return um_stop(x, i);
	memcpy(&bv, image + UM_XSAVE_HEADER, 8);
	memcpy(&xcomp, image + UM_XSAVE_HEADER + 8, 8);
	compacted = xcomp & UM_XSAVE_COMPACT;
	if (supervisor ? !compacted : compacted && !um_cpu_has(&x->cpu, UM_F_XSAVEC))
		return general_protection(x, i);
	if (um_xsave_check(image, rfbm, x->cpu.xcr0) < 0)
		return general_protection(x, i);

	/* Only components that will be loaded are read. */
	if (compacted) {
		u64 last = rfbm & bv & ~(XCR0_X87 | XCR0_SSE);

		size = last ? um_xsave_image_size(
				      xcomp & ((2ull << (63 - __builtin_clzll(last))) - 1), true)
			    : UM_XSAVE_EXT;
	} else {
		size = um_xsave_image_size(rfbm & bv, false);
	}
	if (size > UM_XSAVE_EXT && (!area(x, i, size, 64, UM_READ, &gva) ||
				    !um_lin_read(x, (gva + UM_XSAVE_EXT) & x->lin_mask,
						 image + UM_XSAVE_EXT, size - UM_XSAVE_EXT)))
		return um_stop(x, i);

	pkru = x->cpu.fpu.pkru;
	if (x->mode == UM_MODE_64) {
		um_fpu_from_xsave(&x->cpu.fpu, image, rfbm);
	} else {
		struct um_fpu old = x->cpu.fpu;

		um_fpu_from_xsave(&x->cpu.fpu, image, rfbm);
		keep_upper_registers(&x->cpu.fpu, &old);
	}
	if (!n->k.wide && (rfbm & XCR0_X87)) {
		memset(x->cpu.fpu.fxsave + 12, 0, 4);
		memset(x->cpu.fpu.fxsave + 20, 0, 4);
	}
	if (x->cpu.fpu.pkru != pkru) {
		um_mmu_rights_changed(x->mmu);
		um_interp_sync_ctx(x);
	}
	return um_native_next(x, i);
}

static const struct um_insn *op_xrstor(struct um_exec *x, const struct um_insn *i)
{
	return xrstor(x, i, false);
}

static const struct um_insn *op_xrstors(struct um_exec *x, const struct um_insn *i)
{
	return supervisor_allowed(x, i) ? xrstor(x, i, true) : um_stop(x, i);
}

/* ---- XCR0 ---- */

static const struct um_insn *op_xgetbv(struct um_exec *x, const struct um_insn *i)
{
	u64 v;

	if (!um_native_allowed(x, i->aux))
		return um_stop(x, i);
	switch ((u32)x->cpu.gpr[UM_RCX]) {
	case 0:
		v = x->cpu.xcr0;
		break;
	case 1:
		if (!um_cpu_has(&x->cpu, UM_F_XGETBV1))
			return general_protection(x, i);
		v = um_fpu_inuse(&x->cpu.fpu, x->cpu.xcr0);
		break;
	default:
		return general_protection(x, i);
	}
	x->cpu.gpr[UM_RAX] = (u32)v;
	x->cpu.gpr[UM_RDX] = v >> 32;
	return i + 1;
}

/* Which values may XCR0 have?  SDM vol. 1 13.3. */
static bool xcr0_valid(const struct um_exec *x, u64 v)
{
	if ((v & ~x->cpu.xcr0_allowed) || !(v & XCR0_X87))
		return false;
	if ((v & XCR0_AVX) && !(v & XCR0_SSE))
		return false;
	if (v & XCR0_AVX512)
		return (v & XCR0_AVX512) == XCR0_AVX512 && (v & XCR0_AVX);
	return true;
}

static const struct um_insn *op_xsetbv(struct um_exec *x, const struct um_insn *i)
{
	u64 v = (x->cpu.gpr[UM_RDX] << 32) | (u32)x->cpu.gpr[UM_RAX];

	if (!um_native_allowed(x, i->aux))
		return um_stop(x, i);
	if (x->cpu.cpl || (u32)x->cpu.gpr[UM_RCX] || !xcr0_valid(x, v))
		return general_protection(x, i);
	x->cpu.xcr0 = v;
	return um_end(x, i);
}

/* ---- PKRU ---- */

static const struct um_insn *op_rdpkru(struct um_exec *x, const struct um_insn *i)
{
	if (!um_native_allowed(x, i->aux))
		return um_stop(x, i);
	if ((u32)x->cpu.gpr[UM_RCX])
		return general_protection(x, i);
	x->cpu.gpr[UM_RAX] = x->cpu.fpu.pkru;
	x->cpu.gpr[UM_RDX] = 0;
	return i + 1;
}

static const struct um_insn *op_wrpkru(struct um_exec *x, const struct um_insn *i)
{
	if (!um_native_allowed(x, i->aux))
		return um_stop(x, i);
	if ((u32)x->cpu.gpr[UM_RCX] || (u32)x->cpu.gpr[UM_RDX])
		return general_protection(x, i);
	x->cpu.fpu.pkru = (u32)x->cpu.gpr[UM_RAX];
	x->cpu.fpu.xinuse |= XCR0_PKRU;
	um_mmu_rights_changed(x->mmu);
	um_interp_sync_ctx(x);
	return um_end(x, i);
}

/* ---- VZEROUPPER, VZEROALL: registers 0..15, or 0..7 outside 64-bit mode ---- */

static const struct um_insn *vzero(struct um_exec *x, const struct um_insn *i, unsigned from)
{
	unsigned regs = fx_nxmm(x);

	if (!um_native_allowed(x, i->aux))
		return um_stop(x, i);
	for (unsigned r = 0; r < regs; r++)
		memset(x->cpu.fpu.zmm[r] + from, 0, 64 - from);
	if (regs == 16) {
		x->cpu.fpu.xinuse &= ~(XCR0_AVX | XCR0_ZMM_HI256);
		if (!from)
			x->cpu.fpu.xinuse &= ~XCR0_SSE;
	}
	return i + 1;
}

static const struct um_insn *op_vzeroupper(struct um_exec *x, const struct um_insn *i)
{
	return vzero(x, i, 16);
}

static const struct um_insn *op_vzeroall(struct um_exec *x, const struct um_insn *i)
{
	return vzero(x, i, 0);
}

um_insn_fn um_native_xsave_bind(u16 op)
{
	switch (op) {
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
		return op_ldmxcsr;
	case ZYDIS_MNEMONIC_STMXCSR:
	case ZYDIS_MNEMONIC_VSTMXCSR:
		return op_stmxcsr;
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
		return op_fxsave;
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		return op_fxrstor;
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
		return op_xsave;
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
		return op_xsaveopt;
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
		return op_xsavec;
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
		return op_xrstor;
	case ZYDIS_MNEMONIC_XSAVES:
	case ZYDIS_MNEMONIC_XSAVES64:
		return op_xsaves;
	case ZYDIS_MNEMONIC_XRSTORS:
	case ZYDIS_MNEMONIC_XRSTORS64:
		return op_xrstors;
	case ZYDIS_MNEMONIC_XGETBV:
		return op_xgetbv;
	case ZYDIS_MNEMONIC_XSETBV:
		return op_xsetbv;
	case ZYDIS_MNEMONIC_RDPKRU:
		return op_rdpkru;
	case ZYDIS_MNEMONIC_WRPKRU:
		return op_wrpkru;
	case ZYDIS_MNEMONIC_VZEROUPPER:
		return op_vzeroupper;
	case ZYDIS_MNEMONIC_VZEROALL:
		return op_vzeroall;
	}
	return NULL;
}

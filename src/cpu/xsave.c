// SPDX-License-Identifier: MIT
/*
 * struct um_fpu <-> FXSAVE and XSAVE images.
 *
 * Each state component is moved by itself: copy_out() and copy_in() know where it lives in struct
 * um_fpu, the layout knows where it lives in the image.  Sizes and offsets of extended components
 * come from CPUID leaf 0DH, subleaves 2 and up (SDM vol. 1 13.2).
 */
#include "cpu/xsave.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "cpu/hostid.h"

/* The legacy region (SDM vol. 1 table 10-2) */
#define FX_FCW	      0
#define FX_FSW	      2
#define FX_FTW	      4
#define FX_FOP	      6
#define FX_FIP	      8
#define FX_FDP	      16
#define FX_MXCSR      24
#define FX_MXCSR_MASK 28
#define FX_ST	      32
#define FX_ST_SIZE    128
#define FX_XMM	      160

#define XCOMP_BV (UM_XSAVE_HEADER + 8)

/* CPUID answers cost a VM exit on most hosts, so ask once in the process: they don't change. */
static struct um_xsave_layout host_layout;
static pthread_once_t host_layout_once = PTHREAD_ONCE_INIT;

static u64 host_xcr0(void)
{
	u32 regs[4], a, d;
	u64 xcr0;

	um_host_cpuid(1, 0, regs);
	if (!(regs[UM_ECX] & bit_OSXSAVE) || !um_host_has_feature(UM_F_XSAVE))
		return 0;
	asm("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	xcr0 = a | (u64)d << 32;
	/* Components whose instructions aren't there: only if they are masked. */
	if (!um_host_has_feature(UM_F_AVX))
		xcr0 &= ~XCR0_AVX;
	if (!um_host_has_feature(UM_F_AVX512F))
		xcr0 &= ~XCR0_AVX512;
	return xcr0;
}

static void read_host_layout(void)
{
	struct um_xsave_layout *l = &host_layout;
	u64 xcr0 = host_xcr0();
	u32 regs[4];

	l->supported = (xcr0 & UM_XSAVE_ALL) | XCR0_X87 | XCR0_SSE;
	for (unsigned n = 2; n < UM_XSAVE_NR; n++) {
		if (!(l->supported & BIT(n)))
			continue;
		um_host_cpuid(0xd, n, regs);
		l->c[n] = (struct um_xsave_component){ .offset = regs[UM_EBX],
						       .size = regs[UM_EAX],
						       .aligned = regs[UM_ECX] & 2 };
	}
	l->c[0] = (struct um_xsave_component){ .offset = 0, .size = FX_XMM };
	l->c[1] = (struct um_xsave_component){ .offset = FX_XMM, .size = 256 };
}

const struct um_xsave_layout *um_xsave_layout(void)
{
	pthread_once(&host_layout_once, read_host_layout);
	return &host_layout;
}

/* Offset of component @n in the image; in the compacted format those of @bv below it come before.
 */
static u32 component_offset(const struct um_xsave_layout *l, unsigned n, u64 bv, bool compacted)
{
	u32 off = UM_XSAVE_EXT;

	if (!compacted || n < 2)
		return l->c[n].offset;
	for (unsigned i = 2; i <= n; i++) {
		if (!(bv & BIT(i)))
			continue;
		if (l->c[i].aligned)
			off = ALIGN_UP(off, 64u);
		if (i < n)
			off += l->c[i].size;
	}
	return off;
}

u32 um_xsave_image_size(u64 mask, bool compacted)
{
	const struct um_xsave_layout *l = um_xsave_layout();
	u32 size = UM_XSAVE_EXT;

	mask &= l->supported;
	for (unsigned n = 2; n < UM_XSAVE_NR; n++) {
		if (mask & BIT(n))
			size = um_max(size, component_offset(l, n, mask, compacted) + l->c[n].size);
	}
	return size;
}

/* ---- components ---- */

static void copy_out(const struct um_fpu *f, unsigned n, u8 *p)
{
	switch (BIT(n)) {
	case XCR0_X87:
		memcpy(p, f->fxsave, FX_MXCSR);
		memcpy(p + FX_ST, f->fxsave + FX_ST, FX_ST_SIZE);
		break;
	case XCR0_SSE: /* @p is the start of the XMM registers */
		for (unsigned r = 0; r < 16; r++)
			memcpy(p + r * 16, f->zmm[r], 16);
		break;
	case XCR0_AVX:
		for (unsigned r = 0; r < 16; r++)
			memcpy(p + r * 16, f->zmm[r] + 16, 16);
		break;
	case XCR0_OPMASK:
		memcpy(p, f->k, sizeof(f->k));
		break;
	case XCR0_ZMM_HI256:
		for (unsigned r = 0; r < 16; r++)
			memcpy(p + r * 32, f->zmm[r] + 32, 32);
		break;
	case XCR0_HI16_ZMM:
		memcpy(p, f->zmm[16], 16 * 64);
		break;
	case XCR0_PKRU:
		memcpy(p, &f->pkru, 4);
		memset(p + 4, 0, 4);
		break;
	}
}

/* Reserved bits read as what they are fixed at; ES and B say whether an unmasked exception is flagged. */
static void copy_in_x87(struct um_fpu *f, const u8 *p)
{
	u16 fcw, fsw, fop;

	memcpy(f->fxsave, p, FX_MXCSR);
	memcpy(f->fxsave + FX_ST, p + FX_ST, FX_ST_SIZE);
	memcpy(&fcw, p + FX_FCW, 2);
	memcpy(&fsw, p + FX_FSW, 2);
	memcpy(&fop, p + FX_FOP, 2);
	fcw = (fcw & 0x1f7f) | 0x40;
	fsw &= 0x7f7f;
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	fop &= 0x7ff;
	memcpy(f->fxsave + FX_FCW, &fcw, 2);
	memcpy(f->fxsave + FX_FSW, &fsw, 2);
	memcpy(f->fxsave + FX_FOP, &fop, 2);
	f->fxsave[FX_FTW + 1] = 0;
	for (unsigned r = 0; r < 8; r++)
		memset(f->fxsave + FX_ST + r * 16 + 10, 0, 6);
}

static void copy_in(struct um_fpu *f, unsigned n, const u8 *p)
{
	switch (BIT(n)) {
	case XCR0_X87:
		copy_in_x87(f, p);
		break;
	case XCR0_SSE:
		for (unsigned r = 0; r < 16; r++)
			memcpy(f->zmm[r], p + r * 16, 16);
		break;
	case XCR0_AVX:
		for (unsigned r = 0; r < 16; r++)
			memcpy(f->zmm[r] + 16, p + r * 16, 16);
		break;
	case XCR0_OPMASK:
		memcpy(f->k, p, sizeof(f->k));
		break;
	case XCR0_ZMM_HI256:
		for (unsigned r = 0; r < 16; r++)
			memcpy(f->zmm[r] + 32, p + r * 32, 32);
		break;
	case XCR0_HI16_ZMM:
		memcpy(f->zmm[16], p, 16 * 64);
		break;
	case XCR0_PKRU:
		memcpy(&f->pkru, p, 4);
		break;
	}
	f->xinuse |= BIT(n);
}

static void init_component(struct um_fpu *f, unsigned n)
{
	static const u8 zero[16 * 64];
	static const u8 x87[FX_XMM] = { [FX_FCW] = 0x7f, [FX_FCW + 1] = 0x03 };

	copy_in(f, n, BIT(n) == XCR0_X87 ? x87 : zero);
	f->xinuse &= ~BIT(n);
}

void um_fpu_init(struct um_fpu *f, u64 mask)
{
	for (unsigned n = 0; n < UM_XSAVE_NR; n++) {
		if (mask & BIT(n))
			init_component(f, n);
	}
}

void um_fpu_reset(struct um_fpu *f)
{
	memset(f, 0, sizeof(*f));
	um_fpu_init(f, UM_XSAVE_ALL);
	f->mxcsr = UM_MXCSR_INIT;
}

u64 um_fpu_inuse(const struct um_fpu *f, u64 mask)
{
	return f->xinuse & mask;
}

/* ---- XSAVE ---- */

void um_fpu_to_xsave(const struct um_fpu *f, void *image, u64 mask, bool compacted)
{
	const struct um_xsave_layout *l = um_xsave_layout();
	u8 *p = image;
	u64 bv, inuse;

	mask &= l->supported;
	inuse = um_fpu_inuse(f, mask);
	if (compacted) {
		/* There MXCSR belongs to component 1, and is not initial if it isn't 1F80H. */
		if (f->mxcsr != UM_MXCSR_INIT)
			inuse |= mask & XCR0_SSE;
		bv = inuse;
	} else {
		memcpy(&bv, p + UM_XSAVE_HEADER, 8);
		bv = (bv & ~mask) | inuse;
	}

	for (unsigned n = 0; n < UM_XSAVE_NR; n++) {
		if ((compacted ? inuse : mask) & BIT(n))
			copy_out(f, n, p + component_offset(l, n, mask, compacted));
	}
	if (compacted ? inuse & XCR0_SSE : mask & (XCR0_SSE | XCR0_AVX)) {
		u32 m = UM_MXCSR_MASK;

		memcpy(p + FX_MXCSR, &f->mxcsr, 4);
		memcpy(p + FX_MXCSR_MASK, &m, 4);
	}
	memcpy(p + UM_XSAVE_HEADER, &bv, 8);
	if (compacted) {
		u64 xcomp = mask | UM_XSAVE_COMPACT;

		memcpy(p + XCOMP_BV, &xcomp, 8);
	}
}

int um_xsave_check(const void *image, u64 mask, u64 xcr0)
{
	const u8 *p = image;
	u64 bv, xcomp, reserved[6];
	u32 mxcsr;
	bool compacted;

	memcpy(&bv, p + UM_XSAVE_HEADER, 8);
	memcpy(&xcomp, p + XCOMP_BV, 8);
	memcpy(reserved, p + UM_XSAVE_HEADER + 16, sizeof(reserved));
	compacted = xcomp & UM_XSAVE_COMPACT;

	if (compacted) {
		if ((xcomp & ~UM_XSAVE_COMPACT & ~xcr0) || (bv & ~xcomp))
			return -EINVAL;
		for (unsigned n = 0; n < ARRAY_SIZE(reserved); n++) {
			if (reserved[n])
				return -EINVAL;
		}
	} else if ((bv & ~xcr0) || xcomp || reserved[0]) {
		return -EINVAL;
	}
	memcpy(&mxcsr, p + FX_MXCSR, 4);
	if (compacted ? mask & bv & XCR0_SSE : mask & (XCR0_SSE | XCR0_AVX)) {
		if (mxcsr & ~UM_MXCSR_MASK)
			return -EINVAL;
	}
	return 0;
}

void um_fpu_from_xsave(struct um_fpu *f, const void *image, u64 mask)
{
	const struct um_xsave_layout *l = um_xsave_layout();
	const u8 *p = image;
	u64 bv, xcomp;
	bool compacted;

	memcpy(&bv, p + UM_XSAVE_HEADER, 8);
	memcpy(&xcomp, p + XCOMP_BV, 8);
	compacted = xcomp & UM_XSAVE_COMPACT;
	mask &= l->supported;

	for (unsigned n = 0; n < UM_XSAVE_NR; n++) {
		if (!(mask & BIT(n)))
			continue;
		if (bv & BIT(n))
			copy_in(f, n, p + component_offset(l, n, xcomp, compacted));
		else
			init_component(f, n);
	}
	if (compacted) {
		if ((mask & XCR0_SSE) && !(bv & XCR0_SSE))
			f->mxcsr = UM_MXCSR_INIT;
		else if (mask & XCR0_SSE)
			memcpy(&f->mxcsr, p + FX_MXCSR, 4);
	} else if (mask & (XCR0_SSE | XCR0_AVX)) {
		memcpy(&f->mxcsr, p + FX_MXCSR, 4);
	}
}

/* ---- FXSAVE ---- */

void um_fpu_to_fxsave(const struct um_fpu *f, void *image, bool wide, bool vectors, unsigned nxmm)
{
	u8 *p = image;
	u32 mask = UM_MXCSR_MASK;

	copy_out(f, 0, p);
	if (!wide) {
		memset(p + FX_FIP + 4, 0, 4);
		memset(p + FX_FDP + 4, 0, 4);
	}
	memcpy(p + FX_MXCSR, &f->mxcsr, 4);
	memcpy(p + FX_MXCSR_MASK, &mask, 4);
	for (unsigned r = 0; vectors && r < nxmm; r++)
		memcpy(p + FX_XMM + r * 16, f->zmm[r], 16);
}

void um_fpu_from_fxsave(struct um_fpu *f, const void *image, bool wide, bool vectors, unsigned nxmm)
{
	const u8 *p = image;

	copy_in(f, 0, p);
	if (!wide) {
		memset(f->fxsave + FX_FIP + 4, 0, 4);
		memset(f->fxsave + FX_FDP + 4, 0, 4);
	}
	if (!vectors)
		return;
	memcpy(&f->mxcsr, p + FX_MXCSR, 4);
	for (unsigned r = 0; r < nxmm; r++)
		memcpy(f->zmm[r], p + FX_XMM + r * 16, 16);
	f->xinuse |= XCR0_SSE;
}

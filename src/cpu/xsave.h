/* SPDX-License-Identifier: MIT */
/*
 * The XSAVE image: what struct um_fpu looks like in memory (SDM vol. 1 ch. 13).
 *
 * For the guest's FXSAVE and XSAVE families (engine/interp/native_xsave.c) and for KVM_GET_XSAVE,
 * KVM_SET_XSAVE, KVM_GET_FPU and KVM_SET_FPU.  Images are plain host memory: whoever works for the guest
 * copies them out of and into guest memory.
 *
 * The layout of the standard format is the host's, so that it agrees with a CPUID leaf 0DH passed through.
 */
#ifndef UM_CPU_XSAVE_H
#define UM_CPU_XSAVE_H

#include "cpu/cpu.h"

#define UM_XSAVE_NR 10 /* state components 0 (x87) to 9 (PKRU) */

/* All state components that umbra can have. */
#define UM_XSAVE_ALL (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512 | XCR0_PKRU)

#define UM_FXSAVE_SIZE	 512
#define UM_XSAVE_HEADER	 512	 /* offset of XSTATE_BV; XCOMP_BV follows */
#define UM_XSAVE_EXT	 576	 /* end of the header */
#define UM_XSAVE_COMPACT BIT(63) /* in XCOMP_BV */
#define UM_XSAVE_MAX	 4096	 /* bytes that no image of ours exceeds */

#define UM_MXCSR_INIT 0x1f80u
#define UM_MXCSR_MASK 0xffffu

struct um_xsave_component {
	u32 offset, size; /* in the standard format */
	bool aligned;	  /* at 64 bytes in the compacted format */
};

struct um_xsave_layout {
	u64 supported; /* components that host and umbra have; at least x87 and SSE */
	struct um_xsave_component c[UM_XSAVE_NR];
};

/* The host's layout.  Never fails. */
const struct um_xsave_layout *um_xsave_layout(void);

/* Bytes of an image with the components @mask, header included.  At most UM_XSAVE_MAX. */
u32 um_xsave_image_size(u64 mask, bool compacted);

/* The state after power-up, as KVM has it: x87 as after FNINIT, MXCSR 1F80H, everything else zero. */
void um_fpu_reset(struct um_fpu *f);
/* Initial state of the components @mask (SDM vol. 1 13.6). */
void um_fpu_init(struct um_fpu *f, u64 mask);

/* Components of @mask that are not in their initial state, as far as tracked (XINUSE, SDM vol. 1 13.6). */
u64 um_fpu_inuse(const struct um_fpu *f, u64 mask);

/*
 * Write the components @mask and the header.  Bytes of the image that belong to other components, or to
 * nobody, stay.  Standard format: initial components are written too, and XSTATE_BV bits outside @mask
 * stay.  Compacted: initial components are left out of XSTATE_BV and not written.
 */
void um_fpu_to_xsave(const struct um_fpu *f, void *image, u64 mask, bool compacted);

/*
 * May the image be loaded on a processor with @xcr0?  Header and MXCSR as XRSTOR checks them (SDM vol. 1
 * 13.8).  Returns 0 or -EINVAL (the guest's #GP(0)).  @mask: the components that will be loaded.
 */
int um_xsave_check(const void *image, u64 mask, u64 xcr0);

/*
 * Load the components @mask of an image that passed um_xsave_check(): those not in XSTATE_BV become
 * initial.
 */
void um_fpu_from_xsave(struct um_fpu *f, const void *image, u64 mask);

/*
 * The legacy region alone: FXSAVE64's format, or FXSAVE's (@wide = false), where instruction and data
 * pointers are 32 bits and selectors read as 0.
 */
void um_fpu_to_fxsave(const struct um_fpu *f, void *image, bool wide, bool vectors, unsigned nxmm);
void um_fpu_from_fxsave(struct um_fpu *f, const void *image, bool wide, bool vectors,
			unsigned nxmm);

#endif

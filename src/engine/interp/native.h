/* SPDX-License-Identifier: MIT */
/*
 * Native stubs: SIMD, x87 and other unprivileged instructions that the host CPU executes for us.
 *
 * A stub is a function of generated code for one instruction with its registers.  It loads the
 * guest's registers that the instruction uses from struct um_exec, executes the instruction
 * re-encoded for 64-bit mode with its memory operand at [rsi], and stores the registers that it
 * writes.  So guests get the bits, the flags and the rounding of the real processor.
 *
 *	u64 stub(struct um_exec *x (rdi), void *mem (rsi), u64 status (rdx));
 *
 * MXCSR and the x87 registers are the guest's when an instruction that works on them is called
 * (k.mxcsr, k.x87; um_native_fpu_sync()).
 *
 * It returns 0 or, if the instruction writes status flags, RFLAGS; or UM_NATIVE_FAULT | an enum
 * um_native_fault if the instruction faulted on the host, and then no register of the guest has
 * changed but MXCSR's exception flags for UM_NATIVE_XM, as the SDM has it.
 *
 * Files: native.c binds instructions; native_emit.c writes the code; native_arena.c keeps it and
 * maps faults; native_run.c executes; native_masked.c has gathers, scatters and masked accesses;
 * native_x87.c and native_xsave.c have what works on the state as a whole.
 */
#ifndef UM_ENGINE_INTERP_NATIVE_H
#define UM_ENGINE_INTERP_NATIVE_H

#include "engine/interp/interp.h"

typedef u64 (*um_stub_fn)(struct um_exec *x, void *mem, u64 status);

#define UM_NATIVE_FAULT BIT(63)
enum um_native_fault {
	UM_NATIVE_GP = 1, /* #GP: alignment, reserved MXCSR bits */
	UM_NATIVE_HOST,	  /* the host page is gone */
	UM_NATIVE_MF,	  /* pending x87 exception */
	UM_NATIVE_XM,	  /* unmasked SIMD floating-point exception */
};

#define UM_STUB_MAX 256 /* bytes of code */

/*
 * How the memory operand's active elements are chosen (masked accesses don't fault for the others).
 */
enum um_mask_kind {
	UM_MASK_NONE,
	UM_MASK_K, /* opmask register @mask, @nmask bits, folded onto the elements (broadcast) */
	UM_MASK_COMPRESS, /* opmask: as many elements as it has bits set, from the first */
	UM_MASK_SIGN,	  /* sign bits of the elements of vector register @mask */
};

/*
 * Everything about a bound instruction but its address and memory operand, which are in struct
 * um_insn.  Equal ones are shared, so all of it that matters is compared: no padding (see the
 * assertion), no pointers.
 */
struct um_native_key {
	u64 xinuse;		 /* state components that it brings into use */
	u64 xcr0_need;		 /* #UD unless all are enabled in XCR0 (then CR4.OSXSAVE too) */
	u32 cr4_need;		 /* #UD unless all are set */
	u32 cr0_ud;		 /* #UD if one is set */
	u32 cr0_nm;		 /* #NM if one is set */
	u16 op;			 /* ZydisMnemonic */
	u16 align;		 /* #GP(0) if one of these bits of the linear address is set */
	u16 fop_host, fop_guest; /* x87: FOP as the stub's encoding and the guest's have it */
	u8 len;			 /* bytes of the memory operand */
	u8 reads, writes;	 /* it is read; it is written */
	u8 status_in, status_out;
	u8 x87;	      /* 1: x87, 2: MMX */
	u8 waits;     /* x87: raises a pending #MF first */
	u8 mask_kind; /* enum um_mask_kind */
	u8 mask, nmask;
	u8 esz, nelem; /* elements of the memory operand */
	/* gathers and scatters */
	u8 vl;	     /* vector length in bytes */
	u8 dst, idx; /* vector registers */
	u8 isz;	     /* bytes of an index */
	u8 evex;
	u8 wide;     /* REX.W: FXSAVE64, XSAVE64 */
	u8 src;	     /* second vector register: MASKMOVDQU's mask */
	u8 mmx;	     /* MASKMOVQ: registers are MMX */
	u8 mxcsr;    /* the result depends on MXCSR, or its flags are set */
	u8 pointers; /* x87: leaves FIP, FDP, FOP */
	u8 group;    /* UM_MASK_K: mask bits that share an element; 0: see there */
	u8 reserved[1];
};
_Static_assert(sizeof(struct um_native_key) == 64, "no padding: compared with memcmp()");

struct um_native {
	struct um_native_key k;
	um_stub_fn code; /* NULL: executed in C */
	struct um_native *next;
	u32 code_len;
};

/* ---- native_arena.c ---- */
/*
 * Have the arena made now, if it was not: a VMM may let its vCPU threads make no executable
 * mappings later.  Without one, um_native_get() fails.
 */
void um_native_prepare(void);

/*
 * The one @k, @code[0..len) there is, made if it is new.  NULL: out of memory.  Thread-safe.  Lives
 * as long as the process.
 */
struct um_native *um_native_get(const struct um_native_key *k, const u8 *code, unsigned len);

/* Is @pc in a stub? */
bool um_native_is_stub(u64 pc);

/* ---- native_emit.c ---- */
/*
 * Write the stub of an instruction to @buf (UM_STUB_MAX bytes).  Returns its length, or 0: it can't
 * be done.
 */
unsigned um_native_emit(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			const u8 *bytes, struct um_native_key *k, u8 *buf);
/* Of those x87 instructions that run in stubs: does it leave FIP, FDP and FOP alone? */
bool um_native_x87_is_control(ZydisMnemonic op);
/* Does the result depend on MXCSR, or does the instruction set its flags? */
bool um_native_uses_mxcsr(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);

/* ---- native.c ---- */
/*
 * What an instruction needs of the state and does with its memory operand: all of *@k (zeroed
 * before) that doesn't depend on how it is executed.
 */
void um_native_describe(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			struct um_native_key *k);

/* ---- native_run.c ---- */
const struct um_insn *um_native_reg(struct um_exec *x, const struct um_insn *i);
const struct um_insn *um_native_load(struct um_exec *x, const struct um_insn *i);
const struct um_insn *um_native_store(struct um_exec *x, const struct um_insn *i);
const struct um_insn *um_native_x87(struct um_exec *x, const struct um_insn *i);
/*
 * Why the state forbids the instruction now: raises #UD or #NM; returns false.  True: it may run.
 */
bool um_native_allowed(struct um_exec *x, const struct um_native *n);
/* Turn a stub's fault into the guest's exception or a host fault; returns false. */
bool um_native_fault(struct um_exec *x, u64 ret, gva_t gva, const void *mem);
/* Run the stub on @mem and take its flags: false if it faulted. */
bool um_native_call(struct um_exec *x, const struct um_native *n, void *mem, gva_t gva);
/* Run on a memory operand at @gva, by whatever way the access needs. */
bool um_native_mem(struct um_exec *x, const struct um_native *n, gva_t gva);
/* Linear address of the memory operand, segment and alignment checked. */
bool um_native_gva(struct um_exec *x, const struct um_insn *i, const struct um_native *n,
		   gva_t *gva);

/* The next instruction, or the end of the block if code that follows was overwritten. */
static inline const struct um_insn *um_native_next(struct um_exec *x, const struct um_insn *i)
{
	return unlikely(x->brk) ? um_end(x, i) : i + 1;
}

/* ---- native_masked.c ---- */
const struct um_insn *um_native_masked(struct um_exec *x, const struct um_insn *i);
const struct um_insn *um_native_gather(struct um_exec *x, const struct um_insn *i);
const struct um_insn *um_native_scatter(struct um_exec *x, const struct um_insn *i);
const struct um_insn *um_native_maskmov(struct um_exec *x, const struct um_insn *i);

/* ---- native_x87.c ---- */
/* The guest's x87 state into the host's registers, and back into cpu.fpu. */
void um_native_x87_get(struct um_exec *x);
void um_native_x87_put(struct um_exec *x);
const struct um_insn *um_native_x87_ignne(struct um_exec *x, const struct um_insn *i);
/*
 * An x87 store that has run on a buffer: did an unmasked exception keep it from storing?  (All but
 * precision do: SDM vol. 1 8.5.)  Then memory is not accessed at all.
 */
bool um_native_x87_suppressed(struct um_exec *x);
/* Is an unmasked exception pending (FSW.ES)?  After um_native_fpu_sync(). */
bool um_native_x87_pending(const struct um_exec *x);
/* The state as after any MMX instruction. */
void um_native_mmx_enter(struct um_exec *x);
/* In C, or NULL: a stub will do. */
um_insn_fn um_native_x87_bind(u16 op);

/* ---- native_xsave.c ---- */
um_insn_fn um_native_xsave_bind(u16 op);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Copying an instruction with other registers: what makes a translator from x86 to x86 cheap.  Pure
 * functions of bytes.
 *
 * The translator asks um_jit_analyse() what an instruction reads and writes, decides where its
 * operands are, and has um_jit_copy() encode the same instruction anew for the host's 64-bit mode.
 */
#ifndef UM_ENGINE_JIT_COPY_H
#define UM_ENGINE_JIT_COPY_H

#include "engine/encode.h"
#include "engine/host.h"
#include "x86/decode_cache.h"

/* The vector state that an instruction works on: each class includes those before it. */
enum um_vec_class {
	UM_VEC_CLASS_NONE,
	UM_VEC_CLASS_SSE,    /* XMM0-15 by legacy encodings: upper halves stay; MXCSR */
	UM_VEC_CLASS_AVX,    /* YMM0-15, VEX */
	UM_VEC_CLASS_AVX512, /* ZMM0-31, opmasks; EVEX, and VEX-encoded opmask instructions */
};

struct um_facts {
	/*
	 * General registers, bit n for register n.  Those of the memory operand's address are in
	 * `address` only.  AH, CH, DH, BH count as registers 0..3.
	 */
	u16 reads, writes; /* as operands, explicit or implied */
	u16 writes32;	   /* of the written ones: the upper half is cleared, in any case */
	/* of the written ones: 8 or 16 bits, the rest stays (so they count as read too) */
	u16 partial;
	/*
	 * of the written ones: may stay as they are (CMOVcc, BSF, CMPXCHG's accumulator); read too
	 */
	u16 conditional;
	u16 explicit_regs; /* named by a field of the copy's encoding: these may be renumbered */
	u16 implied;	   /* operands that no field names: must keep their numbers */
	u16 address;	   /* base and index of the memory operand */
	bool rm_written;   /* the one in ModRM.rm is among the written (for um_jit_copy_rm()) */
	u16 high;	   /* of AH, CH, DH, BH (as registers 0..3): among the operands */
	/* Status flags, as bits of RFLAGS. */
	u16 flags_read;	     /* the result depends on them */
	u16 flags_written;   /* set, cleared, or undefined afterwards */
	u16 flags_undefined; /* of those: undefined */
	bool flags_maybe;    /* may leave all as they are (shifts and rotates by CL) */
	u8 mem_size; /* bytes of the explicit memory operand; 0: none, or nothing is accessed */
	bool mem_read, mem_write;
	bool mem_masked;  /* not all of it may be accessed: by opmask or mask register */
	bool mem_aligned; /* #GP if not aligned to its size */
	/*
	 * BT, BTS, BTR, BTC with memory and register: the operand accessed is `mem_size` bytes at
	 * the effective address + (register >> (4, 5, 6 for 2, 4, 8 bytes), arithmetically) *
	 * mem_size.  See um_places.
	 */
	bool bit_string;
	/* has no effect at all (NOP, prefetch, ENDBR): nothing to copy, nothing is accessed */
	bool nothing;
	u8 vec;	       /* enum um_vec_class */
	bool x87, mmx; /* x87 registers; as MMX registers */
	/*
	 * It leaves its address in FIP, FOP and, with a memory operand, FDP: all x87 instructions
	 * but control ones.  The guest's FOP; the copy's is um_jit_fop().
	 */
	bool x87_pointers;
	u16 x87_fop;
	bool mxcsr;	/* depends on MXCSR or sets its flags; loads or stores it */
	bool may_fault; /* besides its memory operand: #DE; #XM; #GP of LDMXCSR */
	u16 xinuse;	/* XCR0_... state components that it brings into use */
	u16 xclear;	/* those that it makes initial: VZEROUPPER, VZEROALL */
	/*
	 * enum um_feature that the guest must have, else it is another instruction or #UD;
	 * UM_F_MAX: none
	 */
	u16 feature;

	struct um_encoding enc; /* for um_jit_copy() */
};

/*
 * What the unprivileged instruction of @len bytes at @bytes, read in @mode, does.  Returns false if
 * it can't be copied at all: system instructions, branches, string instructions, stack
 * instructions, LEA, segment registers as operands, 16-bit modes and addresses, implied memory
 * operands, gathers and scatters, what the host CPU lacks, and what 64-bit mode doesn't have (AAA,
 * BOUND, ...).  *@f is undefined then.
 *
 * What the state of the processor forbids (CR0, CR4, XCR0) is not looked at: `vec`, `x87`, `mmx`
 * say what is needed.
 */
bool um_jit_analyse(enum um_mode mode, const u8 *bytes, unsigned len, struct um_facts *f);
/* The same for another host (tests). */
bool um_jit_analyse_for(const struct um_host *host, enum um_mode mode, const u8 *bytes,
			unsigned len, struct um_facts *f);

/*
 * The same from memory, in some nanoseconds, if an instruction that differs in displacement and
 * immediate only was asked for before.  @c starts as zeroes; one thread at a time.  @len is 1..15.
 */
#define UM_FACT_CACHE_BITS 13
struct um_fact_cache {
	struct um_fact_entry {
		struct um_insn_key key; /* engine/jit/facts.c */
		bool copyable;
		struct um_facts facts;
	} entry[1 << UM_FACT_CACHE_BITS];
};
bool um_jit_analyse_cached(struct um_fact_cache *c, enum um_mode mode, const u8 *bytes,
			   unsigned len, struct um_facts *f);

/* Where things are for the copy. */
struct um_places {
	/*
	 * The host's number of each guest register that is an operand; those that are implied must
	 * have their own number.  AH..BH must be in 0..3.
	 */
	u8 gpr[UM_NR_GPRS];
	u8 base;  /* host register that holds the host address of the memory operand ... */
	s32 disp; /* ... minus this */
	/*
	 * For `bit_string`: base and disp are of the element accessed, the bit offset's place holds
	 * it modulo the element's width.
	 */
	bool bit_string;
};

/*
 * Encode the analysed instruction for the host with @p's registers; the memory operand becomes
 * [base + disp], without index or segment.  @out has room for UM_ENCODE_MAX bytes.  Returns the
 * length; 0 if it can't be encoded: AH..BH together with what needs a REX prefix, implied operands
 * not in their places, a bit string that was not prepared, `nothing`.  LOCK stays.
 */
unsigned um_jit_copy(const struct um_facts *f, const struct um_places *p, u8 *out);

/*
 * The same with the explicit general register in ModRM.rm replaced by the memory operand [base +
 * disp]: for guest registers that live in memory.  Its place in @p doesn't matter then.  Only if
 * the instruction has no memory operand, the register is not written as 32 bits (its upper half
 * must be cleared), and there is such a form.  Returns 0 if not.
 *
 * @disp is that of the register's lowest byte; the access has the operand's width, to AH..BH at the
 * byte above.
 */
unsigned um_jit_copy_rm(const struct um_facts *f, const struct um_places *p, u8 *out);

/* FOP as an x87 instruction that um_jit_copy() wrote leaves it. */
static inline u16 um_jit_fop(const u8 *copy)
{
	unsigned rex = (copy[0] & 0xf0) == 0x40;

	return (u16)((copy[rex] & 7) << 8 | copy[rex + 1]);
}

#endif

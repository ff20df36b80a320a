// SPDX-License-Identifier: MIT
/*
 * Binding of the instructions that are neither the core's nor the system's: which exist, which
 * state they need, and how they are executed (native.h).
 *
 * An instruction exists if the host has it and umbra can offer it (engine/host.h).  What a guest's
 * CPUID hides but the host has executes anyway, as on hardware, which cannot hide instructions from
 * guests either; what needs extended state is refused by XCR0.
 */
#include "engine/interp/native.h"

#include "engine/flags.h"
#include "engine/host.h"

/* ---- what it needs of the state ---- */

#define XCR0_VEX  (XCR0_SSE | XCR0_AVX)
#define XCR0_EVEX (XCR0_VEX | XCR0_AVX512)

/* Register files that the operands touch. */
struct use {
	bool vec, mmx, k, k_written;
	u64 vec_written;		/* bit of each vector register */
	const ZydisDecodedOperand *mem; /* explicit memory operand */
};

static struct use use_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	struct use u = { 0 };

	for (unsigned n = 0; n < z->operand_count; n++) {
		const ZydisDecodedOperand *o = &ops[n];
		bool written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			u.mem = o;
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(o->reg.value)) {
		case ZYDIS_REGCLASS_XMM:
		case ZYDIS_REGCLASS_YMM:
		case ZYDIS_REGCLASS_ZMM:
			u.vec = true;
			if (written)
				u.vec_written |= BIT(ZydisRegisterGetId(o->reg.value));
			break;
		case ZYDIS_REGCLASS_MMX:
			u.mmx = true;
			break;
		case ZYDIS_REGCLASS_MASK:
			u.k = true;
			u.k_written |= written;
			break;
		default:
			break;
		}
	}
	return u;
}

static bool is_x87(const ZydisDecodedInstruction *z)
{
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	       z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       ((z->opcode >= 0xd8 && z->opcode <= 0xdf) || z->opcode == 0x9b);
}

/* Instructions that do not wait for pending x87 exceptions (SDM vol. 1 8.3.11). */
static bool x87_waits(ZydisMnemonic op)
{
	switch (op) {
	case ZYDIS_MNEMONIC_FNINIT:
	case ZYDIS_MNEMONIC_FNCLEX:
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FENI8087_NOP:
	case ZYDIS_MNEMONIC_FDISI8087_NOP:
	case ZYDIS_MNEMONIC_FSETPM287_NOP:
		return false;
	default:
		return true;
	}
}

/* SSE instructions that may have no SSE register as an operand. */
static bool from_memory_to_gpr(ZydisMnemonic op)
{
	switch (op) {
	case ZYDIS_MNEMONIC_CVTSS2SI:
	case ZYDIS_MNEMONIC_CVTTSS2SI:
	case ZYDIS_MNEMONIC_CVTSD2SI:
	case ZYDIS_MNEMONIC_CVTTSD2SI:
		return true;
	default:
		return false;
	}
}

/* SDM vol. 2 2.4 (types 1 to 14), 2.8 (EVEX); vol. 3 13.1, 2.5 (EM, TS, MP). */
static void state_needs(const ZydisDecodedInstruction *z, const struct use *u,
			struct um_native_key *k)
{
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || (u->k && !u->mmx)) {
		k->xcr0_need = XCR0_EVEX;
		k->cr4_need = CR4_OSXSAVE;
		k->cr0_nm = CR0_TS;
		if (u->vec_written & 0xffff)
			k->xinuse |= XCR0_VEX | (z->avx.vector_length == 512 ? XCR0_ZMM_HI256 : 0);
		if (u->vec_written >> 16)
			k->xinuse |= XCR0_HI16_ZMM;
		if (u->k_written)
			k->xinuse |= XCR0_OPMASK;
		return;
	}
	switch (z->meta.isa_set) {
	case ZYDIS_ISA_SET_FXSAVE:
	case ZYDIS_ISA_SET_FXSAVE64:
		k->cr0_nm = CR0_EM | CR0_TS;
		return;
	case ZYDIS_ISA_SET_XSAVE:
	case ZYDIS_ISA_SET_XSAVEC:
	case ZYDIS_ISA_SET_XSAVES:
	case ZYDIS_ISA_SET_XSAVEOPT:
		k->cr4_need = CR4_OSXSAVE;
		if (z->mnemonic != ZYDIS_MNEMONIC_XGETBV && z->mnemonic != ZYDIS_MNEMONIC_XSETBV)
			k->cr0_nm = CR0_TS;
		return;
	case ZYDIS_ISA_SET_PKU:
		k->cr4_need = CR4_PKE;
		return;
	case ZYDIS_ISA_SET_SSEMXCSR:
		k->cr0_ud = CR0_EM;
		k->cr4_need = CR4_OSFXSR;
		k->cr0_nm = CR0_TS;
		return;
	default:
		break;
	}
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		if (!u->vec && z->meta.isa_set != ZYDIS_ISA_SET_AVX)
			return; /* BMI */
		k->xcr0_need = XCR0_VEX;
		k->cr4_need = CR4_OSXSAVE;
		k->cr0_nm = CR0_TS;
		k->xinuse = u->vec_written ? XCR0_VEX : 0;
		return;
	}
	if (is_x87(z)) {
		k->x87 = 1;
		k->waits = x87_waits(z->mnemonic);
		k->cr0_nm = z->mnemonic == ZYDIS_MNEMONIC_FWAIT ? 0 : CR0_EM | CR0_TS;
		k->xinuse = XCR0_X87;
		return;
	}
	/* (CVTPI2PS and CVTPI2PD from memory leave the x87 state alone.) */
	if (u->mmx || z->mnemonic == ZYDIS_MNEMONIC_EMMS) {
		k->x87 = 2;
		k->waits = true;
		k->cr0_ud = CR0_EM;
		k->cr0_nm = CR0_TS;
		k->xinuse = XCR0_X87;
	}
	if (u->vec || from_memory_to_gpr(z->mnemonic)) {
		k->cr0_ud = CR0_EM;
		k->cr4_need = CR4_OSFXSR;
		k->cr0_nm = CR0_TS;
		k->xinuse |= u->vec_written ? XCR0_SSE : 0;
	}
}

/* What must be aligned: SDM vol. 2 tables 2-18 to 2-21. */
static u16 alignment(const ZydisDecodedInstruction *z, const struct use *u)
{
	unsigned len = u->mem->size / 8;

	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_AVX1:
	case ZYDIS_EXCEPTION_CLASS_E1:
	case ZYDIS_EXCEPTION_CLASS_E1NF:
		return (u16)(len - 1);
	default:
		break;
	}
	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || len != 16)
		return 0;
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return 0;
	default:
		return 15;
	}
}

/* ---- masked and scattered accesses ---- */

/*
 * EVEX instructions that access all of their operand whatever the mask says ("NF": no fault
 * suppression).
 */
static bool accesses_all(const ZydisDecodedInstruction *z)
{
	/* As SDM vol. 2 says of these. */
	if (z->mnemonic == ZYDIS_MNEMONIC_VCVTNE2PS2BF16 || z->mnemonic == ZYDIS_MNEMONIC_VDBPSADBW)
		return true;
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return true;
	default:
		return false;
	}
}

static bool is_scalar(const ZydisDecodedInstruction *z)
{
	return z->meta.isa_set == ZYDIS_ISA_SET_AVX512F_SCALAR ||
	       z->meta.isa_set == ZYDIS_ISA_SET_AVX512DQ_SCALAR ||
	       z->meta.isa_set == ZYDIS_ISA_SET_AVX512_FP16_SCALAR;
}

static bool is_gf2_affine(const ZydisDecodedInstruction *z)
{
	return z->mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEQB ||
	       z->mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB;
}

/* How many bits of the opmask count. */
static unsigned mask_bits(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			  const struct use *u)
{
	if (is_scalar(z))
		return 1;
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_VFMULCPH: /* complex numbers: two halves an element */
	case ZYDIS_MNEMONIC_VFCMULCPH:
	case ZYDIS_MNEMONIC_VFMADDCPH:
	case ZYDIS_MNEMONIC_VFCMADDCPH:
		return z->avx.vector_length / 32;
	default:
		break;
	}
	if (ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    ZydisRegisterGetClass(ops[0].reg.value) == ZYDIS_REGCLASS_MASK)
		return z->avx.vector_length / u->mem->element_size;
	return ops[0].element_count;
}

static void mask_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		    const struct use *u, struct um_native_key *k)
{
	k->nelem = (u8)um_max(u->mem->element_count, 1);
	k->esz = (u8)(k->len / k->nelem);
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		k->mask_kind = UM_MASK_SIGN;
		k->mask = (u8)ZydisRegisterGetId(ops[1].reg.value);
		return;
	default:
		break;
	}
	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX || !z->raw.evex.aaa || accesses_all(z))
		return;
	k->mask_kind = UM_MASK_K;
	k->mask = z->raw.evex.aaa;
	k->nmask = (u8)mask_bits(z, ops, u);
	if (is_gf2_affine(z)) {
		/*
		 * The operand is 8 x 8 bit matrices, the mask is of bytes: any of eight wants its
		 * matrix.
		 */
		k->group = 8;
	} else if (z->raw.evex.b) {
		/*
		 * A conversion to narrower elements leaves part of its destination without mask
		 * bits.
		 */
		k->nmask = (u8)um_min(k->nmask,
				      (16u << (z->raw.evex.L2 << 1 | z->raw.evex.L)) / k->esz);
	} else if (z->avx.broadcast.mode == ZYDIS_BROADCAST_MODE_INVALID) {
		k->nmask = (u8)um_min(k->nmask, k->nelem);
	}
	if (z->meta.category == ZYDIS_CATEGORY_COMPRESS ||
	    z->meta.category == ZYDIS_CATEGORY_EXPAND ||
	    z->mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSB ||
	    z->mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSW || z->mnemonic == ZYDIS_MNEMONIC_VPEXPANDB ||
	    z->mnemonic == ZYDIS_MNEMONIC_VPEXPANDW)
		k->mask_kind = UM_MASK_COMPRESS;
	if (k->nelem > k->nmask) { /* dot products: a mask bit for several source elements */
		k->nelem = k->nmask;
		k->esz = (u8)(k->len / k->nelem);
	}
}

static um_insn_fn bind_vsib(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			    const struct use *u, struct um_native_key *k)
{
	bool evex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX, scatter = u->mem == &ops[0];
	bool w = evex ? z->raw.evex.W : z->raw.vex.W;

	/* (Zydis's vector length is that of the data, where indices are wider.) */
	k->vl = (u8)(16 << (evex ? z->raw.evex.L2 << 1 | z->raw.evex.L : z->raw.vex.L));
	k->isz = z->opcode & 1 ? 8 : 4;
	k->esz = w ? 8 : 4;
	k->nelem = k->vl / um_max(k->isz, k->esz);
	k->idx = (u8)ZydisRegisterGetId(u->mem->mem.index);
	k->evex = evex;
	k->mask_kind = evex ? UM_MASK_K : UM_MASK_SIGN;
	k->mask = (u8)(evex ? z->raw.evex.aaa : ZydisRegisterGetId(ops[2].reg.value));
	k->dst = (u8)ZydisRegisterGetId(ops[scatter ? 2 : 0].reg.value);
	k->len = 0;
	return scatter ? um_native_scatter : um_native_gather;
}

/* ---- binding ---- */

const struct um_insn *um_native_no_memory(struct um_exec *x, const struct um_insn *i)
{
	um_internal(x, "no memory for a native stub");
	return um_stop(x, i);
}

static void flags_of(const ZydisDecodedInstruction *z, struct um_native_key *k)
{
	const ZydisAccessedFlags *f = z->cpu_flags;
	u32 defined, out;

	if (!f)
		return;
	defined = (f->modified | f->set_0 | f->set_1) & RFLAGS_STATUS;
	out = (defined | f->undefined) & RFLAGS_STATUS;
	k->status_out = out != 0;
	/* Flags that it leaves alone, or leaves undefined, come from what the guest had. */
	k->status_in = (f->tested & RFLAGS_STATUS) || (out && defined != RFLAGS_STATUS);
}

/* In C, or NULL. */
static um_insn_fn bind_c(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			 const struct use *u, struct um_native_key *k)
{
	um_insn_fn fn = um_native_x87_bind((u16)z->mnemonic);

	if (!fn)
		fn = um_native_xsave_bind((u16)z->mnemonic);
	if (fn)
		return fn;
	if (u->mem && u->mem->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		return bind_vsib(z, ops, u, k);
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVQ:
		k->mmx = 1;
		/* fall through */
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		k->dst = (u8)ZydisRegisterGetId(ops[0].reg.value);
		k->src = (u8)ZydisRegisterGetId(ops[1].reg.value);
		k->nelem = k->mmx ? 8 : 16;
		return um_native_maskmov;
	default:
		return NULL;
	}
}

static bool is_wide(ZydisMnemonic op)
{
	switch (op) {
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XRSTOR64:
	case ZYDIS_MNEMONIC_XSAVES64:
	case ZYDIS_MNEMONIC_XRSTORS64:
		return true;
	default:
		return false;
	}
}

void um_native_describe(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			struct um_native_key *k)
{
	struct use u = use_of(z, ops);

	k->op = (u16)z->mnemonic;
	k->wide = is_wide(z->mnemonic);
	state_needs(z, &u, k);
	flags_of(z, k);
	k->mxcsr = k->x87 != 1 && um_native_uses_mxcsr(z, ops);
	if (!u.mem || u.mem->size / 8 > 64)
		return;
	k->len = (u8)(u.mem->size / 8);
	k->reads = (u.mem->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
	k->writes = (u.mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
	k->align = alignment(z, &u);
	/* VEXTRACT...: what the mask leaves out is kept, though all is accessed. */
	if (k->writes && z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && z->raw.evex.aaa &&
	    accesses_all(z))
		k->reads = true;
	if (k->len && u.mem->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
		mask_of(z, ops, &u, k);
}

bool um_native_bind(struct um_exec *x, struct um_insn *i, const u8 *bytes)
{
	ZydisDecoder d;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct um_native_key k = { 0 };
	struct um_native *n;
	struct use u;
	u8 code[UM_STUB_MAX];
	unsigned len = 0;

	if (i->flags & (UM_INSN_UD | UM_INSN_TOOLONG | UM_INSN_LOCK))
		return false;
	um_zydis_init(&d, (enum um_mode)i->mode);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, i->len, &z, ops)) ||
	    !um_host_has(um_host(), &z))
		return false;
	if (z.mnemonic == ZYDIS_MNEMONIC_MOVDIR64B || z.meta.isa_set == ZYDIS_ISA_SET_CLDEMOTE)
		return false;

	um_native_describe(&z, ops, &k);
	u = use_of(&z, ops);
	i->fn = bind_c(&z, ops, &u, &k);
	if (!i->fn) {
		if (u.mem && !k.len)
			return false;
		len = um_native_emit(&z, ops, bytes, &k, code);
		if (!len)
			return false;
		if (k.x87)
			i->fn = um_native_x87;
		else if (k.mask_kind)
			i->fn = um_native_masked;
		else if (u.mem)
			i->fn = k.writes ? um_native_store : um_native_load;
		else
			i->fn = um_native_reg;
	}
	n = um_native_get(&k, code, len);
	i->aux = n;
	if (!n)
		i->fn = um_native_no_memory;
	if (z.mnemonic == ZYDIS_MNEMONIC_XSETBV || z.mnemonic == ZYDIS_MNEMONIC_WRPKRU)
		i->flags |= UM_INSN_END;
	return true;
}

// SPDX-License-Identifier: MIT
/*
 * System instructions that kernels execute all the time, in translated code: the ways that they
 * nearly always go.  Whatever else they may do (another CPL, a flag that changes what code means)
 * is the interpreter's, as for all instructions.
 *
 * Translated code runs only while um_exec.special is clear but for a wanted interrupt window, so TF
 * and RF are 0, and there is no interrupt shadow.  STI opens one: it lasts for one instruction,
 * which nobody notices but who stops just there.  So STI notes where that is, and if translated
 * code is left at that place, the loop (interp/run.c) executes an instruction before it stops, or
 * opens the shadow.
 */
#include "cpu/cpuid.h"
#include "engine/jit/trans.h"

#define CPU(field) UM_JIT_OFF(cpu.field)

/* CMP byte, AND and OR dword [rbp + @off], @imm */
static void emit_cmp8(struct um_trans *t, s32 off, unsigned imm)
{
	um_emit_rm(&t->e, 0, 0x80, 7, H_CTX, off);
	um_emit8(&t->e, imm);
}

static void emit_and32(struct um_trans *t, s32 off, u32 imm)
{
	um_emit_rm(&t->e, 0, 0x81, 4, H_CTX, off);
	um_emit32(&t->e, imm);
}

static void emit_or32(struct um_trans *t, s32 off, u32 imm)
{
	um_emit_rm(&t->e, 0, 0x81, 1, H_CTX, off);
	um_emit32(&t->e, imm);
}

static void emit_alu32(struct um_trans *t, unsigned n, unsigned reg, u32 imm)
{
	um_emit_alu_imm(&t->e, 0, n, reg, (s32)imm);
}

static void need_cpl0(struct um_trans *t)
{
	emit_cmp8(t, CPU(cpl), 0);
	um_emit_slow_if(t, CC_NZ);
}

/* If somebody waits for IF, the interpreter's loop must see it set. */
static void need_no_window(struct um_trans *t)
{
	emit_cmp8(t, UM_JIT_OFF(special), 0);
	um_emit_slow_if(t, CC_NZ);
}

static void emit_cli(struct um_trans *t)
{
	need_cpl0(t);
	emit_and32(t, CPU(rflags), (u32)~RFLAGS_IF);
}

static void emit_sti(struct um_trans *t, const struct um_insn *i)
{
	u8 *set;

	need_cpl0(t);
	need_no_window(t);
	um_emit_test32(&t->e, CPU(rflags), RFLAGS_IF);
	set = um_emit_jcc(&t->e, CC_NZ);
	emit_or32(t, CPU(rflags), RFLAGS_IF);
	um_emit_load(&t->e, 1, H_T1, H_CTX, UM_JIT_PAGE);
	um_emit_lea(&t->e, t->m64, H_T1, H_T1, H_RSP, 0, i->off + i->len);
	um_emit_store(&t->e, 1, H_T1, H_CTX, UM_JIT_OFF(jit.shadow_rip));
	um_emit_patch_here(&t->e, set);
}

/* Go over to the other of the kernel's data contexts. */
static void emit_ac(struct um_trans *t, bool ac)
{
	s32 from = UM_JIT_OFF(jit.kernel) + (s32)sizeof(struct um_jit_context) * ac;

	need_cpl0(t);
	if (ac)
		emit_or32(t, CPU(rflags), RFLAGS_AC);
	else
		emit_and32(t, CPU(rflags), (u32)~RFLAGS_AC);
	um_emit_load(&t->e, 1, H_T1, H_CTX, from + (s32)offsetof(struct um_jit_context, tlb));
	um_emit_store(&t->e, 1, H_T1, H_CTX, UM_JIT_OFF(jit.tlb));
	um_emit_load(&t->e, 0, H_T1, H_CTX, from + (s32)offsetof(struct um_jit_context, ctx));
	um_emit_store(&t->e, 1, H_T1, H_CTX, UM_JIT_OFF(jit.ctx));
	um_emit8(&t->e, 0x66);
	um_emit_store(&t->e, 0, H_T1, H_CTX, UM_JIT_OFF(ctx));
	um_emit_load(&t->e, 0, H_T2, H_CTX, from + (s32)offsetof(struct um_jit_context, priv));
	um_emit_rm(&t->e, 0, 0x88, H_T2, H_CTX, UM_JIT_OFF(priv)); /* MOV byte */
	if (ac) /* windows allow no more than what is allowed now */
		return;
	um_emit_mov_imm(&t->e, H_T1, UM_JIT_NOWHERE);
	for (unsigned acc = UM_READ; acc <= UM_WRITE; acc++) {
		um_emit_store(&t->e, 1, H_T1, H_CTX,
			      um_jit_window_start(acc, UM_JIT_KERNEL_WINDOW));
		um_emit_store(&t->e, 1, H_T1, H_CTX, um_jit_window_host(acc, UM_JIT_KERNEL_WINDOW));
	}
}

/* @reg := RFLAGS as PUSHF has them.  @tmp is clobbered. */
static void emit_rflags(struct um_trans *t, unsigned reg, unsigned tmp)
{
	um_emit_load(&t->e, 0, reg, H_CTX, CPU(rflags));
	emit_alu32(t, 4, reg, (u32) ~(RFLAGS_STATUS | RFLAGS_RF | RFLAGS_VM));
	um_emit_load(&t->e, 0, tmp, H_CTX, UM_JIT_OFF(jit.flags));
	emit_alu32(t, 4, tmp, RFLAGS_STATUS);
	um_emit_rr(&t->e, 0, 0x0b, reg, tmp);
}

static void emit_pushf(struct um_trans *t)
{
	unsigned size = t->m64 ? 8 : 4;

	um_emit_stack(t, -(s32)size, size, UM_WRITE);
	emit_rflags(t, H_T0, H_T2);
	um_emit_store(&t->e, t->m64, H_T0, H_T1, 0);
	um_emit_add(t, UM_RSP, -(s32)size);
}

static void emit_popf(struct um_trans *t)
{
	const u32 rare = RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID | RFLAGS_IOPL;
	unsigned size = t->m64 ? 8 : 4;
	u8 *off;

	need_cpl0(t);
	um_emit_stack(t, 0, size, UM_READ);
	um_emit_load(&t->e, t->m64, H_T0, H_T1, 0);
	um_emit_load(&t->e, 0, H_T1, H_CTX, CPU(rflags));
	um_emit_mov(&t->e, 0, H_T2, H_T1);
	um_emit_rr(&t->e, 0, 0x33, H_T2, H_T0);
	um_emit_rex(&t->e, 0, 0, 0, H_T2); /* TEST t2, rare */
	um_emit8(&t->e, 0xf7);
	um_emit8(&t->e, 0xc0 | (H_T2 & 7));
	um_emit32(&t->e, rare);
	um_emit_slow_if(t, CC_NZ);
	um_emit_rex(&t->e, 0, 0, 0, H_T0); /* TEST t0, IF */
	um_emit8(&t->e, 0xf7);
	um_emit8(&t->e, 0xc0 | (H_T0 & 7));
	um_emit32(&t->e, RFLAGS_IF);
	off = um_emit_jcc(&t->e, CC_Z);
	need_no_window(t);
	um_emit_patch_here(&t->e, off);
	emit_alu32(t, 4, H_T1, (u32)~RFLAGS_IF);
	um_emit_mov(&t->e, 0, H_T2, H_T0);
	emit_alu32(t, 4, H_T2, RFLAGS_IF);
	um_emit_rr(&t->e, 0, 0x0b, H_T1, H_T2);
	um_emit_store(&t->e, 0, H_T1, H_CTX, CPU(rflags));
	emit_alu32(t, 4, H_T0, RFLAGS_STATUS);
	emit_alu32(t, 1, H_T0, UM_JIT_HOST_FLAGS);
	um_emit_store(&t->e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.flags));
	um_emit_add(t, UM_RSP, (s32)size);
	t->flags.where = UM_FLAGS_SAVED;
}

static s32 segment_base(enum um_seg seg)
{
	return CPU(seg) + seg * (s32)sizeof(struct um_segment) +
	       (s32)offsetof(struct um_segment, base);
}

static void emit_swapgs(struct um_trans *t)
{
	s32 base = segment_base(UM_GS);

	need_cpl0(t);
	um_emit_load(&t->e, 1, H_T0, H_CTX, base);
	um_emit_load(&t->e, 1, H_T1, H_CTX, CPU(msr.kernel_gs_base));
	um_emit_store(&t->e, 1, H_T0, H_CTX, CPU(msr.kernel_gs_base));
	um_emit_store(&t->e, 1, H_T1, H_CTX, base);
	um_emit_store(&t->e, 1, H_T1, H_CTX, UM_JIT_OFF(seg_base) + UM_GS * 8);
}

static void need_fsgsbase(struct um_trans *t)
{
	um_emit_test32(&t->e, CPU(cr4), CR4_FSGSBASE);
	um_emit_slow_if(t, CC_Z);
}

static void emit_read_base(struct um_trans *t, const struct um_insn *i, enum um_seg seg)
{
	need_fsgsbase(t);
	um_emit_load(&t->e, i->osz == 8, H_T0, H_CTX, segment_base(seg));
	um_emit_put(t, i->reg[0] / 8, H_T0);
}

static void emit_write_base(struct um_trans *t, const struct um_insn *i, enum um_seg seg)
{
	need_fsgsbase(t);
	um_emit_get(t, H_T0, i->reg[0] / 8);
	um_emit_mov(&t->e, i->osz == 8, H_T0, H_T0);
	/* What isn't canonical with 48 bits may be with 57: not often. */
	um_emit_mov(&t->e, 1, H_T2, H_T0);
	um_emit_shift(&t->e, 1, 4, H_T2, 16);
	um_emit_shift(&t->e, 1, 7, H_T2, 16);
	um_emit_rr(&t->e, 1, 0x3b, H_T2, H_T0);
	um_emit_slow_if(t, CC_NZ);
	um_emit_store(&t->e, 1, H_T0, H_CTX, segment_base(seg));
	um_emit_store(&t->e, 1, H_T0, H_CTX, UM_JIT_OFF(seg_base) + seg * 8);
}

static void emit_mov_from_sreg(struct um_trans *t, const struct um_insn *i)
{
	um_emit_rex(&t->e, 0, H_T0, 0, H_CTX); /* MOVZX word */
	um_emit8(&t->e, 0x0f);
	um_emit8(&t->e, 0xb7);
	um_emit_modrm_mem(&t->e, H_T0, H_CTX,
			  CPU(seg) + i->reg[1] * (s32)sizeof(struct um_segment) +
				  (s32)offsetof(struct um_segment, selector));
	um_emit_put(t, i->reg[0] / 8, H_T0);
}

static const s32 control_register[] = { CPU(cr0), 0, CPU(cr2), CPU(cr3), CPU(cr4) };

static void emit_mov_from_cr(struct um_trans *t, const struct um_insn *i)
{
	need_cpl0(t);
	um_emit_load(&t->e, t->m64, H_T0, H_CTX, control_register[i->reg[1]]);
	um_emit_put(t, i->reg[0] / 8, H_T0);
}

/* MOV from a segment or control register. */
static bool mov_ok(const struct um_insn *i, struct um_facts *f)
{
	if (i->kind[0] != UM_OPD_GPR)
		return false;
	f->writes = (u16)BIT(i->reg[0] / 8);
	if (i->kind[1] == UM_OPD_SEG)
		return i->osz >= 4 && i->reg[1] < UM_NR_SEGS;
	return i->kind[1] == UM_OPD_CR && i->reg[1] < ARRAY_SIZE(control_register) &&
	       i->reg[1] != 1;
}

static void emit_rdtsc(struct um_trans *t, const struct um_insn *i)
{
	struct um_emit *e = &t->e;
	u8 *allowed;

	um_emit_test32(&t->e, CPU(cr4), CR4_TSD);
	allowed = um_emit_jcc(e, CC_Z);
	need_cpl0(t);
	um_emit_patch_here(&t->e, allowed);
	um_emit_rm(e, 1, 0x83, 7, H_CTX, CPU(tsc_ratio)); /* CMP qword, 0 */
	um_emit8(e, 0);
	um_emit_slow_if(t, CC_NZ);
	um_emit8(e, 0x0f);
	um_emit8(e, 0x31);
	um_emit_shift(e, 1, 4, H_RDX, 32);
	um_emit_rr(e, 1, 0x0b, H_RDX, H_RAX);
	um_emit_rm(e, 1, 0x03, H_RDX, H_CTX, CPU(tsc_offset));
	um_emit_mov(e, 0, H_RAX, H_RDX);
	um_emit_shift(e, 1, 5, H_RDX, 32);
	if (i->op == ZYDIS_MNEMONIC_RDTSCP)
		um_emit_load(e, 0, H_RCX, H_CTX, CPU(msr.tsc_aux));
}

/* With other vCPUs it raises doubts about code: the interpreter's. */
static void emit_serialize(struct um_trans *t)
{
	emit_cmp8(t, UM_JIT_OFF(alone), 0);
	um_emit_slow_if(t, CC_Z);
}

bool um_system_ok(const struct um_trans *t, const struct um_insn *i, struct um_facts *f)
{
	const struct um_cpu *c = &t->x->cpu;
	bool word = i->osz == (t->m64 ? 8 : 4);

	*f = (struct um_facts){ .may_fault = true };
	/* There one of both engines must be able to stop before what the other has not executed. */
	if (t->x->lockstep || (i->flags & (UM_INSN_UD | UM_INSN_TOOLONG | UM_INSN_LOCK)))
		return false;
	switch (i->op) {
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_STI:
		return true;
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
		return um_cpu_has(c, UM_F_SMAP);
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_STD:
		return true;
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		f->writes = BIT(UM_RSP);
		f->mem_size = i->osz;
		return word;
	case ZYDIS_MNEMONIC_SWAPGS:
		return t->m64;
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE:
		f->writes = (u16)BIT(i->reg[0] / 8);
		return t->m64;
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
		return t->m64;
	case ZYDIS_MNEMONIC_MOV:
		return mov_ok(i, f);
	case ZYDIS_MNEMONIC_RDTSC:
		f->writes = BIT(UM_RAX) | BIT(UM_RDX);
		return true;
	case ZYDIS_MNEMONIC_RDTSCP:
		f->writes = BIT(UM_RAX) | BIT(UM_RDX) | BIT(UM_RCX);
		return um_cpu_has(c, UM_F_RDTSCP);
	case ZYDIS_MNEMONIC_SERIALIZE:
		return um_cpu_has(c, UM_F_SERIALIZE);
	}
	return false;
}

void um_emit_system(struct um_trans *t, const struct um_insn *i)
{
	if (i->op == ZYDIS_MNEMONIC_PUSHFD || i->op == ZYDIS_MNEMONIC_PUSHFQ)
		um_flags_save(t);
	else
		um_flags_spill(t);
	t->slow_flags[t->k] = t->flags;
	um_flags_registers(t);
	switch (i->op) {
	case ZYDIS_MNEMONIC_CLI:
		emit_cli(t);
		break;
	case ZYDIS_MNEMONIC_STI:
		emit_sti(t, i);
		break;
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
		emit_ac(t, i->op == ZYDIS_MNEMONIC_STAC);
		break;
	case ZYDIS_MNEMONIC_CLD:
		emit_and32(t, CPU(rflags), (u32)~RFLAGS_DF);
		break;
	case ZYDIS_MNEMONIC_STD:
		emit_or32(t, CPU(rflags), RFLAGS_DF);
		break;
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
		emit_pushf(t);
		break;
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		emit_popf(t);
		break;
	case ZYDIS_MNEMONIC_SWAPGS:
		emit_swapgs(t);
		break;
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE:
		emit_read_base(t, i, i->op == ZYDIS_MNEMONIC_RDFSBASE ? UM_FS : UM_GS);
		break;
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
		emit_write_base(t, i, i->op == ZYDIS_MNEMONIC_WRFSBASE ? UM_FS : UM_GS);
		break;
	case ZYDIS_MNEMONIC_MOV:
		if (i->kind[1] == UM_OPD_SEG)
			emit_mov_from_sreg(t, i);
		else
			emit_mov_from_cr(t, i);
		break;
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
		emit_rdtsc(t, i);
		break;
	case ZYDIS_MNEMONIC_SERIALIZE:
		emit_serialize(t);
		break;
	}
}

// SPDX-License-Identifier: MIT
/*
 * The real CPU as the oracle.
 *
 * Random instructions with random and edge operands run twice: on the host CPU as they are
 * (host.c), and through the function that the interpreter binds to them; or, with -e jit, as a
 * translated block of one instruction.  Everything that an unprivileged program could see must be
 * equal afterwards: general, vector, opmask and x87 registers, MXCSR, flags, memory, or the
 * exception.
 *
 * Guest memory is one page, at the same address for both, between pages that neither can access;
 * the TLB entries are made by hand.  The engines' #PF is whatever misses in the TLB.
 *
 * Status flags that the SDM leaves undefined are compared for native stubs (there the host decides)
 * and not for instructions in C.
 *
 *	oracle [-e interp|jit] [-t seconds] [-s seed] [-m mnemonic] [-v]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../fuzz/edges.h"
#include "cpu/xsave.h"
#include "engine/flags.h"
#include "engine/engine.h"
#include "engine/jit/jit.h"
#include "host.h"

/* ---- the MMU: nothing but the TLB entry ---- */

enum um_access_result um_mmu_access(struct um_mmu *m, struct um_fault *f)
{
	f->error_code = 0;
	return UM_ACCESS_FAULT;
}
void um_mmu_written(struct um_mmu *m, gpa_t gpa, unsigned len) {}
bool um_mmu_watched(const struct um_cpu *cpu, gva_t gva)
{
	return false;
}
/* What unprivileged instructions of one processor never call. */
int um_mmu_enter(struct um_mmu *m)
{
	return 0;
}
void um_mmu_leave(struct um_mmu *m) {}
void um_mmu_rights_changed(struct um_mmu *m) {}
void um_mmu_reset_context(struct um_mmu *m) {}
void um_mmu_new_cr3(struct um_mmu *m, bool flush) {}
void um_mmu_invlpg(struct um_mmu *m, gva_t gva) {}
void um_mmu_invpcid(struct um_mmu *m, unsigned type, u64 pcid, gva_t gva) {}
int um_mmu_load_pdptrs(struct um_mmu *m, u64 cr3, u64 pdptr[4])
{
	return 0;
}

/* ---- random numbers ---- */

static u64 rng;

static u64 rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static unsigned below(unsigned n)
{
	return (unsigned)((rnd() >> 20) % n);
}

static u64 edge64(void)
{
	switch (below(4)) {
	case 0:
		return edge_values[below(ARRAY_SIZE(edge_values))];
	case 1:
		return rnd() >> below(64);
	default:
		return rnd();
	}
}

/* ---- one trial ---- */

static u8 *page; /* the guest's page */
static struct um_exec x;
static struct um_tlb tlb;
static unsigned vector;

enum kind { K_INT, K_0F, K_0F38, K_0F3A, K_VEX, K_EVEX, K_X87, K_MAX };

static void put_modrm(u8 *p)
{
	unsigned n = 0;
	u8 m = (u8)rnd();

	if (below(2))
		m |= 0xc0;
	p[n++] = m;
	for (unsigned i = 0; i < 8; i++)
		p[n++] = (u8)rnd();
}

/* Fifteen bytes that start with an instruction, perhaps. */
static void generate(enum kind k, u8 *b)
{
	static const u8 mandatory[] = { 0x66, 0xf2, 0xf3 };
	unsigned n = 0;

	memset(b, 0, 32);
	if (k <= K_0F3A || k == K_X87) {
		if (below(32) == 0)
			b[n++] = 0x67;
		if (k != K_INT && k != K_X87 && below(4))
			b[n++] = mandatory[below(3)];
		else if (below(8) == 0)
			b[n++] = mandatory[below(3)];
		if (below(2))
			b[n++] = (u8)(0x40 | below(16));
	}
	switch (k) {
	case K_INT:
		b[n++] = (u8)rnd();
		break;
	case K_0F:
		b[n++] = 0x0f;
		b[n++] = (u8)rnd();
		break;
	case K_0F38:
		b[n++] = 0x0f;
		b[n++] = 0x38;
		b[n++] = (u8)rnd();
		break;
	case K_0F3A:
		b[n++] = 0x0f;
		b[n++] = 0x3a;
		b[n++] = (u8)rnd();
		break;
	case K_VEX:
		if (below(4) == 0) {
			b[n++] = 0xc5;
			b[n++] = (u8)rnd();
		} else {
			b[n++] = 0xc4;
			b[n++] = (u8)((rnd() & 0xe0) | (1 + below(3)));
			b[n++] = (u8)rnd();
		}
		if (below(2)) /* many instructions want vvvv = 1111b */
			b[n - 1] |= 0x78;
		b[n++] = (u8)rnd();
		break;
	case K_EVEX: {
		static const u8 maps[] = { 1, 1, 2, 2, 2, 3, 5, 6 };

		b[n++] = 0x62;
		b[n++] = (u8)((rnd() & 0xf0) | maps[below(ARRAY_SIZE(maps))]);
		b[n++] = (u8)((rnd() & 0xfb) | 4);
		if (below(2))
			b[n - 1] |= 0x78;
		b[n] = (u8)rnd();
		if (below(2)) /* no zeroing, no broadcast: more instructions are valid */
			b[n] &= 0x6f;
		if (below(2))
			b[n] |= 8;
		n++;
		b[n++] = (u8)rnd();
		break;
	}
	default:
		b[n++] = (u8)(0xd8 | below(8));
		break;
	}
	put_modrm(b + n);
}

static bool is_string(u16 op)
{
	switch (op) {
	case ZYDIS_MNEMONIC_MOVSB ... ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_CMPSB ... ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_SCASB ... ZYDIS_MNEMONIC_SCASW:
	case ZYDIS_MNEMONIC_LODSB ... ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_STOSB ... ZYDIS_MNEMONIC_STOSW:
		return true;
	}
	return false;
}

/* Not for this test: answers differ by nature, or have effects beyond this process's registers. */
static bool unsuitable(const struct um_insn *i)
{
	if (i->flags & (UM_INSN_SYSTEM | UM_INSN_BRANCH | UM_INSN_END | UM_INSN_TOOLONG))
		return true;
	switch (i->op) {
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_RDPKRU:
	case ZYDIS_MNEMONIC_WRPKRU:
	case ZYDIS_MNEMONIC_PUSHF: /* shows IF and IOPL of the host */
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_ENTER: /* moves RSP out of the page */
	case ZYDIS_MNEMONIC_XSAVE: /* XSTATE_BV shows the host's tracking; tests/unit/engine has them */
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
		return true;
	}
	return false;
}

static u32 random_mxcsr(void)
{
	u32 v = UM_MXCSR_INIT;

	if (below(2))
		v = (u32)rnd() & UM_MXCSR_MASK;
	if (below(4))
		v |= UM_MXCSR_INIT;
	return v;
}

static void random_state(struct host_state *s)
{
	u16 fcw = 0x37f, fsw, fop = 0;

	memset(s, 0, sizeof(*s));
	for (unsigned r = 0; r < 16; r++)
		s->gpr[r] = edge64();
	s->gpr[UM_RSP] = (u64)page + 2048 + below(64) * 8;
	s->flags =
		(rnd() & (RFLAGS_STATUS | (below(4) ? 0 : RFLAGS_DF))) | RFLAGS_FIXED1 | RFLAGS_IF;
	for (unsigned r = 0; r < (vector == 64 ? 32u : 16u); r++) {
		for (unsigned q = 0; q < vector / 8; q++) {
			u64 v = edge64();

			if (r % 4 == 3) /* usable as indices of gathers */
				v &= 0x000000ff000000ffull;
			memcpy(&s->zmm[r][q * 8], &v, 8);
		}
	}
	for (unsigned k = 0; vector == 64 && k < 8; k++)
		s->k[k] = below(3) ? rnd() : rnd() & rnd() & rnd();
	if (below(3) == 0)
		fcw = (u16)((rnd() & 0x1f7f) | 0x40);
	if (below(4))
		fcw |= 0x3f;
	fsw = (u16)(rnd() & 0x7f3f);
	if (below(4))
		fsw &= (u16)~0x3f;
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	memcpy(s->fxsave, &fcw, 2);
	memcpy(s->fxsave + 2, &fsw, 2);
	s->fxsave[4] = (u8)(below(2) ? 0xff : rnd());
	memcpy(s->fxsave + 6, &fop, 2);
	for (unsigned r = 0; r < 8; r++) {
		u64 m = edge64();
		u16 e = (u16)rnd();

		if (below(2))
			e = (u16)(0x3fff + below(70) - 5) | (u16)(below(2) << 15);
		else if (below(4) == 0)
			e = below(2) ? 0 : 0x7fff;
		if (below(4))
			m |= BIT(63);
		memcpy(s->fxsave + 32 + r * 16, &m, 8);
		memcpy(s->fxsave + 32 + r * 16 + 8, &e, 2);
	}
	{
		u32 mxcsr = random_mxcsr();

		memcpy(s->fxsave + 24, &mxcsr, 4);
	}
}

/* Make the memory operand point into the page.  False: can't. */
static bool aim(struct host_state *s, const struct um_insn *i)
{
	u64 t = (u64)page + below(63) * 64;

	if (i->seg == UM_FS || i->seg == UM_GS)
		return false;
	switch (below(8)) {
	case 0:
		t += below(64);
		break;
	case 1:
		t = (u64)page + 4096 - below(80);
		break;
	}
	if (is_string(i->op) && !i->nops) {
		s->gpr[UM_RCX] = below(40);
		s->gpr[UM_RSI] = (u64)page + 1024 + below(1024);
		s->gpr[UM_RDI] = (u64)page + 1024 + below(1024);
		return true;
	}
	switch (i->op) {
	case ZYDIS_MNEMONIC_XLAT:
		s->gpr[UM_RBX] = t;
		return true;
	case ZYDIS_MNEMONIC_LEAVE:
		s->gpr[UM_RBP] = (u64)page + 2048;
		return true;
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		s->gpr[UM_RDI] = t;
		return true;
	}
	if (!(i->flags & UM_INSN_MEM))
		return true;
	if (i->base >= UM_REG_ZERO || i->base == i->index)
		return false;
	if (i->kind[1] == UM_OPD_GPR && i->nops == 2) {
		switch (i->op) {
		case ZYDIS_MNEMONIC_BT: /* the register addresses memory, too */
		case ZYDIS_MNEMONIC_BTS:
		case ZYDIS_MNEMONIC_BTR:
		case ZYDIS_MNEMONIC_BTC:
			if (i->reg[1] / 8 == i->base || i->reg[1] / 8 == i->index)
				return false;
			s->gpr[i->reg[1] / 8] = (u64)(s64)(s32)(below(1024) - 512);
		}
	}
	s->gpr[i->base] =
		t - (u64)i->disp - (i->index == UM_REG_ZERO ? 0 : s->gpr[i->index] << i->scale);
	return true;
}

static void to_exec(const struct host_state *s)
{
	struct um_cpu *c = &x.cpu;

	memcpy(c->gpr, s->gpr, sizeof(s->gpr));
	c->gpr[UM_REG_ZERO] = 0;
	c->gpr[UM_REG_PAGE] = (u64)host_code() & UM_PAGE_MASK;
	c->rflags = s->flags;
	um_fpu_init(&c->fpu, UM_XSAVE_ALL);
	c->fpu.xinuse = um_xsave_layout()->supported;
	memcpy(c->fpu.zmm, s->zmm, sizeof(s->zmm));
	memcpy(c->fpu.k, s->k, sizeof(s->k));
	memcpy(c->fpu.fxsave, s->fxsave, 24);
	memcpy(c->fpu.fxsave + 32, s->fxsave + 32, 128);
	memcpy(&c->fpu.mxcsr, s->fxsave + 24, 4);
	um_set_status(&x, s->flags);
	x.exit.kind = UM_EXIT_NONE;
	x.brk = false;
}

static void exec_init(void)
{
	struct um_cpu *c = &x.cpu;

	c->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP | CR0_ET;
	c->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_PKE;
	c->efer = EFER_LMA | EFER_LME;
	c->xcr0 = um_xsave_layout()->supported;
	c->cpl = 3;
	x.mode = UM_MODE_64;
	x.lin_mask = x.sp_mask = ~0ull;
	x.canon_shift = 16;
	memset(x.seg_flat, 7, sizeof(x.seg_flat));
	x.priv = UM_PRIV_USER;
	x.ctx = 1;
	x.ctx_mask = 0xffff;
	x.tlb = &tlb;
	for (unsigned p = 0; p < UM_NR_PRIVS; p++)
		tlb.ctx[p] = 1;
	tlb.e[um_tlb_index((gva_t)page, x.ctx)] =
		(struct um_tlb_entry){ .tag = { (u64)page | 1, (u64)page | 1, (u64)page | 1 },
				       .addend = 0 };
}

/* The rest of what the translator wants: the page of code can be fetched from, and no more. */
static int translator_init(void)
{
	static struct um_counters counters;
	u64 code = (u64)host_code() & UM_PAGE_MASK;
	int err;

	x.counters = &counters;
	x.engine = UM_ENGINE_JIT;
	x.fetch_ctx = 1;
	memset(x.cpu.features, 0xff, sizeof(x.cpu.features));
	if (um_tlb_index(code, x.ctx) == um_tlb_index((gva_t)page, x.ctx))
		return -EEXIST;
	tlb.e[um_tlb_index(code, x.ctx)] =
		(struct um_tlb_entry){ .tag = { UM_TLB_EMPTY, UM_TLB_EMPTY, code | 1 } };
	err = um_engine_init(&x);
	if (!err)
		um_jit_begin(&x);
	return err;
}

struct stats {
	unsigned long trials, native, translated, faults, undefined, failures;
	unsigned mnemonics;
};
static u32 seen[ZYDIS_MNEMONIC_MAX_VALUE + 1], failed[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static bool verbose;

static int outcome; /* of the present trial: -1 or a vector */

static void report(const struct um_insn *i, const u8 *bytes, const char *what, u64 host, u64 ours)
{
	char text[96];

	if (failed[i->op]++ > (verbose ? 20u : 0u))
		return;
	um_disassemble(UM_MODE_64, bytes, 15, 0, text, sizeof(text));
	printf("%-44s %-10s host %#018llx, umbra %#018llx  [", text, what, (unsigned long long)host,
	       (unsigned long long)ours);
	for (unsigned n = 0; n < i->len; n++)
		printf("%02x", bytes[n]);
	printf("]");
	if (outcome >= 0)
		printf(" vector %d", outcome);
	printf("\n");
}

/* Status flags that an instruction in C may leave differently. */
static u64 undefined_flags(const struct um_insn *i, const u8 *bytes)
{
	ZydisDecoder d;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	u64 u = 0;

	um_zydis_init(&d, UM_MODE_64);
	if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, i->len, &z, ops)) && z.cpu_flags)
		u = z.cpu_flags->undefined;
	switch (i->op) {
	case ZYDIS_MNEMONIC_SHL: /* OF only for counts of 1, CF only for counts below the width */
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		u |= RFLAGS_OF | RFLAGS_AF | (i->osz <= 2 ? RFLAGS_CF : 0);
		break;
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
		u |= RFLAGS_OF;
		break;
	}
	return u;
}

/* True if everything is equal. */
static bool compare(const struct um_insn *i, const u8 *bytes, const struct host_state *h,
		    u64 flag_mask, const u8 *host_mem, bool faulted)
{
	const struct um_cpu *c = &x.cpu;
	u64 flags = um_status(&x) | (c->rflags & RFLAGS_DF);
	u32 mxcsr;

	for (unsigned r = 0; r < 16; r++) {
		if (h->gpr[r] != c->gpr[r])
			return report(i, bytes, "gpr", h->gpr[r], c->gpr[r]), false;
	}
	if ((h->flags ^ flags) & flag_mask)
		return report(i, bytes, "flags", h->flags & flag_mask, flags & flag_mask), false;
	for (unsigned r = 0; r < 32; r++) {
		for (unsigned b = 0; b < 64; b += 8) {
			u64 hv, ov;

			memcpy(&hv, &h->zmm[r][b], 8);
			memcpy(&ov, &c->fpu.zmm[r][b], 8);
			if (hv != ov) {
				char what[16];

				snprintf(what, sizeof(what), "v%u:%u", r, b);
				return report(i, bytes, what, hv, ov), false;
			}
		}
	}
	for (unsigned k = 0; k < 8; k++) {
		if (h->k[k] != c->fpu.k[k])
			return report(i, bytes, "opmask", h->k[k], c->fpu.k[k]), false;
	}
	memcpy(&mxcsr, h->fxsave + 24, 4);
	/* (A conversion whose store faults may have set flags already.) */
	if (mxcsr != c->fpu.mxcsr && !(faulted && i->kind[0] == UM_OPD_MEM))
		return report(i, bytes, "mxcsr", mxcsr, c->fpu.mxcsr), false;
	for (unsigned b = 0; b < 160; b++) {
		if ((b >= 24 && b < 32) || (b >= 32 && b % 16 >= 10))
			continue;
		/* An MMX store that faults may have made the transition to MMX already. */
		if (faulted && (i->kind[0] == UM_OPD_MMX || i->kind[1] == UM_OPD_MMX))
			continue;
		/* A FIP that is not canonical is cut to the host's width. */
		if (b >= 8 && b < 16 &&
		    (i->op == ZYDIS_MNEMONIC_FXRSTOR || i->op == ZYDIS_MNEMONIC_FXRSTOR64))
			continue;
		if (h->fxsave[b] != c->fpu.fxsave[b])
			return report(i, bytes, "x87 byte", b << 8 | h->fxsave[b],
				      c->fpu.fxsave[b]),
			       false;
	}
	/* The host's x87 may have stored half of what faults at the end of the page. */
	for (unsigned b = 0; b < (faulted ? 4096u - 128 : 4096u); b++) {
		if (host_mem[b] != page[b])
			return report(i, bytes, "memory", b << 8 | host_mem[b], page[b]), false;
	}
	return true;
}

/* What follows the instruction: the trial is over. */
static const struct um_insn *op_end(struct um_exec *e, const struct um_insn *i)
{
	return NULL;
}

/* As an engine's block. */
static struct um_block *make_block(struct um_insn *insns)
{
	static union {
		struct um_block b;
		u8 room[sizeof(struct um_block) + 4 * sizeof(u64)];
	} u;
	hva_t hva = (hva_t)host_code();
	unsigned end = (unsigned)(hva & 7) + insns[0].len;

	memset(&u, 0, sizeof(u));
	u.b.hva = hva;
	u.b.key = UM_MODE_64;
	u.b.ninsns = 1;
	u.b.nwords = (u16)((end + 7) / 8);
	u.b.len = u.b.len1 = insns[0].len;
	u.b.insn = insns;
	memcpy(u.b.words, (void *)(hva & ~7ull), u.b.nwords * sizeof(u64));
	return &u.b;
}

/* Execute the instruction at host_code() by its translation.  False: it has none. */
static bool run_translated(struct um_insn *insns, const struct host_state *in, struct stats *st)
{
	u64 rip = (u64)host_code(), slow = x.counters->v[UM_CNT_jit_slow];
	struct um_jit_block *b;

	um_jit_written(&x, host_code(), 15);
	x.cpu.rip = rip;
	if (!um_jit_add(&x, make_block(insns)))
		return false;
	b = um_jit_find(&x);
	if (!b)
		return false;
	to_exec(in);
	um_jit_run_alone(&x, b, rip + insns[0].len);
	st->translated += x.counters->v[UM_CNT_jit_slow] == slow;
	return true;
}

static void trial(enum kind k, struct stats *st, int only)
{
	static u8 before[4096], after[4096];
	struct host_state in, out;
	struct um_insn insns[2] = { 0 }, *i = &insns[0];
	u8 bytes[32];
	u64 flag_mask = RFLAGS_STATUS | RFLAGS_DF;
	int host, ours = -1;
	bool native = false;

	generate(k, bytes);
	um_decode(i, UM_MODE_64, bytes, 15, (u16)((u64)host_code() & ~UM_PAGE_MASK));
	if (only >= 0 && i->op != only)
		return;

	if (i->flags & UM_INSN_UD) {
		/* These opcode maps have nothing that could hurt: is it #UD there too? */
		if (k != K_VEX && k != K_EVEX)
			return;
		random_state(&in);
		memcpy(host_code(), bytes, 15);
		host = host_run(&in, &out, 15);
		st->undefined++;
		if (host != UM_VEC_UD)
			report(i, bytes, "is #UD", (u64)host, UM_VEC_UD), st->failures++;
		return;
	}
	if (unsuitable(i))
		return;
	insns[1].fn = op_end;
	i->fn = um_core_bind(i);
	if (!i->fn) {
		native = um_native_bind(&x, i, bytes);
		if (!native)
			return;
	}
	random_state(&in);
	if (!aim(&in, i))
		return;
	if (!seen[i->op]++)
		st->mnemonics++;
	st->trials++;
	st->native += native;

	for (unsigned n = 0; n < 4096; n += 8) {
		u64 v = edge64();

		memcpy(before + n, &v, 8);
	}
	memcpy(page, before, 4096);
	memcpy(host_code(), bytes, i->len);
	outcome = host = host_run(&in, &out, i->len);
	memcpy(after, page, 4096);

	memcpy(page, before, 4096);
	if (x.translator) {
		if (!run_translated(insns, &in, st)) {
			report(i, bytes, "is not translated", 0, 0), st->failures++;
			return;
		}
	} else {
		to_exec(&in);
		for (const struct um_insn *n = i; n;)
			n = n->fn(&x, n);
	}
	um_native_fpu_sync(&x);
	if (x.exit.kind != UM_EXIT_NONE)
		ours = x.exit.kind == UM_EXIT_EXCEPTION ? x.exit.exc.vector
							: 1000 + (int)x.exit.kind;

	/* MASKMOV may fault for bytes that it does not store, or not (SDM vol. 2). */
	if (host == UM_VEC_PF && ours < 0 &&
	    (i->op == ZYDIS_MNEMONIC_MASKMOVQ || i->op == ZYDIS_MNEMONIC_MASKMOVDQU ||
	     i->op == ZYDIS_MNEMONIC_VMASKMOVDQU))
		return;
	if (host != ours) {
		report(i, bytes, "outcome", (u64)(s64)host, (u64)(s64)ours);
		st->failures++;
		return;
	}
	if (host >= 0)
		st->faults++;
	if (!native && host < 0)
		flag_mask &= ~undefined_flags(i, bytes);
	if (!compare(i, bytes, &out, flag_mask, after, host >= 0))
		st->failures++;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int mnemonic(const char *name)
{
	for (int m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
		if (!strcmp(ZydisMnemonicGetString((ZydisMnemonic)m), name))
			return m;
	}
	fprintf(stderr, "oracle: no such mnemonic: %s\n", name);
	exit(2);
}

int main(int argc, char **argv)
{
	const char *env = getenv("UMBRA_ORACLE_SECONDS");
	double seconds = env ? atof(env) : 3, start;
	struct stats st = { 0 };
	bool translator = false;
	int only = -1;
	u8 *area;

	rng = 0x9e3779b97f4a7c15ull;
	for (int a = 1; a < argc; a++) {
		if (!strcmp(argv[a], "-t") && a + 1 < argc)
			seconds = atof(argv[++a]);
		else if (!strcmp(argv[a], "-s") && a + 1 < argc)
			rng ^= strtoull(argv[++a], NULL, 0) * 0xbf58476d1ce4e5b9ull;
		else if (!strcmp(argv[a], "-m") && a + 1 < argc)
			only = mnemonic(argv[++a]);
		else if (!strcmp(argv[a], "-e") && a + 1 < argc)
			translator = !strcmp(argv[++a], "jit");
		else if (!strcmp(argv[a], "-v"))
			verbose = true;
		else
			return fprintf(stderr, "usage: oracle [-e interp|jit] [-t seconds] [-s "
					       "seed] [-m mnemonic] [-v]\n"),
			       2;
	}
	/* Below 2 GiB, so that 67h can reach it; no access on either side. */
	area = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (area == MAP_FAILED || mprotect(area + 4096, 4096, PROT_READ | PROT_WRITE) < 0)
		return perror("oracle"), 1;
	page = area + 4096;
	host_init();
	vector = host_vector();
	exec_init();
	if (um_uaccess_init() < 0 || (translator && translator_init()))
		return 1;

	start = now();
	do {
		for (unsigned n = 0; n < 1000; n++)
			trial((enum kind)below(K_MAX), &st, only);
	} while (now() - start < seconds);
	if (translator)
		printf("%lu translated; ", st.translated);
	printf("%lu trials of %u mnemonics, %lu through native stubs, %lu faults; %lu undefined "
	       "encodings; %lu failures\n",
	       st.trials, st.mnemonics, st.native, st.faults, st.undefined, st.failures);
	return st.failures || !st.trials || (translator && !st.translated);
}

// SPDX-License-Identifier: MIT
/*
 * x87 and MMX.
 *
 * Stubs work on the x87 registers of the host, which hold the guest's state from the first x87
 * instruction of a run until somebody asks (um_native_fpu_sync()): loading and saving it takes a
 * hundred times as long as an instruction.  Pointers to the last instruction and operand (FIP, FDP)
 * are then those of the stub; they are replaced by the guest's when the state is put away.
 *
 * Pending exceptions (SDM vol. 1 8.7).  The host raises #MF at the next waiting instruction, and so
 * does the guest, if CR0.NE is set.  With CR0.NE clear a PC would assert FERR#, and the chipset IRQ
 * 13; umbra has no such wire and behaves as a processor with IGNNE# asserted: the exception stays
 * pending and the instruction executes.
 *
 * The environment instructions are done in C, since their formats depend on the guest's mode (SDM
 * vol. 1 8.1.10, figures 8-9 to 8-12).
 */
#include "engine/interp/native.h"

#include <string.h>

#include "engine/flags.h"

/* The state in struct um_fpu.fxsave: FXSAVE64's layout. */
struct x87 {
	u16 fcw, fsw;
	u8 ftw; /* abridged: a bit for each register that is not empty */
	u8 reserved;
	u16 fop;
	u64 fip, fdp;
	u32 mxcsr, mxcsr_mask;
	u8 st[8][16];
};
_Static_assert(offsetof(struct x87, st) == 32, "FXSAVE image");

#define FCW_INIT       0x37f
#define FCW_EXCEPTIONS 0x3f
#define FCW_ONE	       0x40 /* bit 6 reads as one */
#define FCW_DEFINED    0x1f7f
#define FSW_EXCEPTIONS 0x3f
#define FSW_PE	       0x20
#define FSW_SF	       0x40
#define FSW_ES	       0x80
#define FSW_B	       0x8000
#define FSW_TOP(fsw)   (((fsw) >> 11) & 7)

static struct x87 *state(struct um_exec *x)
{
	return (struct x87 *)x->cpu.fpu.fxsave;
}

/* ES and B say whether an exception is flagged that is not masked. */
static void update_summary(struct x87 *s)
{
	s->fsw &= (u16) ~(FSW_ES | FSW_B);
	if (s->fsw & ~s->fcw & FSW_EXCEPTIONS)
		s->fsw |= FSW_ES | FSW_B;
}

bool um_native_x87_suppressed(struct um_exec *x)
{
	const struct x87 *s = state(x);

	um_native_fpu_sync(x);
	return s->fsw & ~s->fcw & FSW_EXCEPTIONS & ~FSW_PE;
}

bool um_native_x87_pending(const struct um_exec *x)
{
	return ((const struct x87 *)x->cpu.fpu.fxsave)->fsw & FSW_ES;
}

/* The image has registers in stack order: a new TOP rotates them. */
static void set_top(struct x87 *s, unsigned top)
{
	unsigned old = FSW_TOP(s->fsw);
	u8 st[8][16];

	if (top == old)
		return;
	for (unsigned r = 0; r < 8; r++)
		memcpy(st[r], s->st[(r + top - old) & 7], 16);
	memcpy(s->st, st, sizeof(st));
	s->fsw = (u16)((s->fsw & ~0x3800) | top << 11);
}

/* What every MMX instruction does first: TOP = 0, all registers valid. */
void um_native_mmx_enter(struct um_exec *x)
{
	struct x87 *s = state(x);

	set_top(s, 0);
	s->ftw = 0xff;
	x->cpu.fpu.xinuse |= XCR0_X87;
}

/* May the instruction start?  #NM, #MF. */
static bool x87_start(struct um_exec *x, const struct um_native *n)
{
	um_native_fpu_sync(x);
	if (!um_native_allowed(x, n))
		return false;
	if (n->k.waits && unlikely(state(x)->fsw & FSW_ES) && (x->cpu.cr0 & CR0_NE))
		return um_raise(x, UM_VEC_MF);
	return true;
}

/* Everything that the processor has, with the guest's own pointers. */
void um_native_x87_put(struct um_exec *x)
{
	struct x87 *s = state(x);
	u64 fdp = s->fdp;
	u16 fop = s->fop;

	asm volatile("fxsave64 %0; fninit; fldcw %1"
		     : "=m"(x->cpu.fpu.fxsave)
		     : "m"(x->host_fcw)
		     : "memory");
	x->x87_live = false;
	if (um_native_is_stub(s->fip)) {
		s->fip = x->x87_rip;
		/* (The processor may leave FOP as it was, but when an exception is unmasked.) */
		if (s->fop != fop && s->fop == x->x87_fop[0])
			s->fop = x->x87_fop[1];
	}
	if (s->fdp != fdp && s->fdp) /* a host address; FNINIT makes it 0 */
		s->fdp = x->x87_ea;
}

void um_native_x87_get(struct um_exec *x)
{
	/* FXRSTOR loads MXCSR, too: leave it as it is. */
	asm volatile("fnstcw %0; stmxcsr %1; fxrstor64 %2"
		     : "=m"(x->host_fcw), "=m"(state(x)->mxcsr)
		     : "m"(x->cpu.fpu.fxsave)
		     : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
		       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	x->x87_live = true;
}

/* With CR0.NE clear: hide a pending exception from the host, which has its own CR0.NE set. */
const struct um_insn *um_native_x87_ignne(struct um_exec *x, const struct um_insn *i)
{
	const struct um_native *n = i->aux;
	u16 pending = 0;
	gva_t gva = 0;
	bool ok;

	um_native_fpu_sync(x);
	if (!um_native_allowed(x, n) || (n->k.len && !um_native_gva(x, i, n, &gva)))
		return um_stop(x, i);
	if (n->k.waits && (state(x)->fsw & FSW_ES)) {
		pending = state(x)->fsw & (FSW_ES | FSW_B | FSW_EXCEPTIONS);
		state(x)->fsw &= (u16)~pending;
	}
	if (n->k.pointers) {
		x->x87_rip = um_rip(x, i);
		x->x87_fop[0] = n->k.fop_host;
		x->x87_fop[1] = n->k.fop_guest;
		x->x87_ea = um_ea(x, i);
	}
	ok = n->k.len ? um_native_mem(x, n, gva) : um_native_call(x, n, NULL, 0);
	um_native_fpu_sync(x);
	state(x)->fsw |= pending;
	return ok ? um_native_next(x, i) : um_stop(x, i);
}

static const struct um_insn *op_fwait(struct um_exec *x, const struct um_insn *i)
{
	if ((x->cpu.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)) {
		um_raise(x, UM_VEC_NM);
		return um_stop(x, i);
	}
	if (x->x87_live) { /* cheaper than putting the state away */
		u16 fsw;

		asm volatile("fnstsw %0" : "=a"(fsw));
		if (!(fsw & FSW_ES))
			return i + 1;
	}
	if (!x87_start(x, i->aux))
		return um_stop(x, i);
	return i + 1;
}

/* ---- the environment ---- */

/* Tags as the 16-bit word has them: 0 valid, 1 zero, 2 special, 3 empty (SDM vol. 1 8.1.7). */
static u16 full_tags(const struct x87 *s)
{
	unsigned top = FSW_TOP(s->fsw);
	u16 tags = 0;

	for (unsigned phys = 0; phys < 8; phys++) {
		const u8 *st = s->st[(phys - top) & 7];
		u64 significand;
		u16 exponent;
		unsigned tag;

		memcpy(&significand, st, 8);
		memcpy(&exponent, st + 8, 2);
		exponent &= 0x7fff;
		if (!(s->ftw & (1u << phys)))
			tag = 3;
		else if (exponent == 0 && significand == 0)
			tag = 1;
		else if (exponent == 0 || exponent == 0x7fff || !(significand >> 63))
			tag = 2;
		else
			tag = 0;
		tags |= (u16)(tag << (phys * 2));
	}
	return tags;
}

static void set_full_tags(struct x87 *s, u16 tags)
{
	s->ftw = 0;
	for (unsigned phys = 0; phys < 8; phys++) {
		if (((tags >> (phys * 2)) & 3) != 3)
			s->ftw |= (u8)(1u << phys);
	}
}

static unsigned env_size(const struct um_insn *i)
{
	return i->osz == 2 ? 14 : 28;
}

static void put16(u8 *p, u16 v)
{
	memcpy(p, &v, 2);
}

static void put32(u8 *p, u32 v)
{
	memcpy(p, &v, 4);
}

static u32 get16(const u8 *p)
{
	u16 v;

	memcpy(&v, p, 2);
	return v;
}

static u32 get32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

/* Selectors read as 0: the processor has deprecated FCS and FDS (CPUID.07H:EBX[13]). */
static void env_store(struct um_exec *x, const struct um_insn *i, u8 *p)
{
	const struct x87 *s = state(x);
	bool real = x->mode == UM_MODE_REAL;
	u32 fip = (u32)s->fip, fdp = (u32)s->fdp;

	if (i->osz == 2) {
		put16(p, s->fcw);
		put16(p + 2, s->fsw);
		put16(p + 4, full_tags(s));
		put16(p + 6, (u16)fip);
		put16(p + 8, real ? (u16)((fip >> 16 & 15) << 12 | (s->fop & 0x7ff)) : 0);
		put16(p + 10, (u16)fdp);
		put16(p + 12, real ? (u16)((fdp >> 16 & 15) << 12) : 0);
		return;
	}
	put32(p, s->fcw | 0xffff0000u);
	put32(p + 4, s->fsw | 0xffff0000u);
	put32(p + 8, full_tags(s) | 0xffff0000u);
	if (real) {
		put32(p + 12, (fip & 0xffff) | 0xffff0000u);
		put32(p + 16, (fip >> 16) << 12 | (s->fop & 0x7ff));
		put32(p + 20, (fdp & 0xffff) | 0xffff0000u);
		put32(p + 24, (fdp >> 16) << 12);
	} else {
		put32(p + 12, fip);
		put32(p + 16, (u32)(s->fop & 0x7ff) << 16);
		put32(p + 20, fdp);
		put32(p + 24, 0xffff0000u);
	}
}

static void env_load(struct um_exec *x, const struct um_insn *i, const u8 *p)
{
	struct x87 *s = state(x);
	bool real = x->mode == UM_MODE_REAL;
	unsigned w = i->osz == 2 ? 2 : 4;
	u32 fip, fdp, hi;

	s->fcw = (u16)((get16(p) & FCW_DEFINED) | FCW_ONE);
	set_top(s, FSW_TOP(get16(p + w)));
	s->fsw = (u16)get16(p + w);
	set_full_tags(s, (u16)get16(p + w * 2));
	fip = w == 2 ? get16(p + 6) : get32(p + 12);
	hi = w == 2 ? get16(p + 8) : get32(p + 16);
	fdp = w == 2 ? get16(p + 10) : get32(p + 20);
	if (real) {
		u32 dhi = w == 2 ? get16(p + 12) : get32(p + 24);

		fip = (fip & 0xffff) | (hi >> 12) << 16;
		fdp = (fdp & 0xffff) | (dhi >> 12) << 16;
		s->fop = hi & 0x7ff;
	} else if (w == 4) {
		s->fop = (hi >> 16) & 0x7ff;
	} else {
		s->fop = 0;
	}
	s->fip = fip;
	s->fdp = fdp;
	update_summary(s);
	x->cpu.fpu.xinuse |= XCR0_X87;
}

static void fninit(struct um_exec *x)
{
	struct x87 *s = state(x);

	set_top(s, 0);
	s->fcw = FCW_INIT;
	s->fsw = 0;
	s->ftw = 0;
	s->fop = 0;
	s->fip = s->fdp = 0;
}

/* Segment check and #AC of an area of @len bytes; environments are aligned by their words. */
static bool area(struct um_exec *x, const struct um_insn *i, unsigned len, enum um_access acc,
		 gva_t *gva)
{
	return um_linear(x, (enum um_seg)i->seg, um_ea(x, i), len, acc, gva) &&
	       um_check_align(x, *gva, i->osz == 2 ? 2 : 4);
}

static const struct um_insn *op_fnstenv(struct um_exec *x, const struct um_insn *i)
{
	struct x87 *s = state(x);
	u8 env[28];
	gva_t gva;

	if (!x87_start(x, i->aux))
		return um_stop(x, i);
	env_store(x, i, env);
	if (!area(x, i, env_size(i), UM_WRITE, &gva) || !um_lin_write(x, gva, env, env_size(i)))
		return um_stop(x, i);
	s->fcw |= FCW_EXCEPTIONS;
	update_summary(s);
	x->cpu.fpu.xinuse |= XCR0_X87;
	return um_native_next(x, i);
}

static const struct um_insn *op_fldenv(struct um_exec *x, const struct um_insn *i)
{
	u8 env[28];
	gva_t gva;

	if (!x87_start(x, i->aux) || !area(x, i, env_size(i), UM_READ, &gva) ||
	    !um_lin_read(x, gva, env, env_size(i)))
		return um_stop(x, i);
	env_load(x, i, env);
	return um_native_next(x, i);
}

static const struct um_insn *op_fnsave(struct um_exec *x, const struct um_insn *i)
{
	unsigned n = env_size(i);
	u8 buf[28 + 80];
	gva_t gva;

	if (!x87_start(x, i->aux))
		return um_stop(x, i);
	env_store(x, i, buf);
	for (unsigned r = 0; r < 8; r++)
		memcpy(buf + n + r * 10, state(x)->st[r], 10);
	if (!area(x, i, n + 80, UM_WRITE, &gva) || !um_lin_write(x, gva, buf, n + 80))
		return um_stop(x, i);
	fninit(x);
	x->cpu.fpu.xinuse |= XCR0_X87;
	return um_native_next(x, i);
}

static const struct um_insn *op_frstor(struct um_exec *x, const struct um_insn *i)
{
	unsigned n = env_size(i);
	u8 buf[28 + 80];
	gva_t gva;

	if (!x87_start(x, i->aux) || !area(x, i, n + 80, UM_READ, &gva) ||
	    !um_lin_read(x, gva, buf, n + 80))
		return um_stop(x, i);
	env_load(x, i, buf);
	for (unsigned r = 0; r < 8; r++) {
		memcpy(state(x)->st[r], buf + n + r * 10, 10);
		memset(state(x)->st[r] + 10, 0, 6);
	}
	return um_native_next(x, i);
}

/*
 * In C, since it makes an exception go away that left its FOP and FDP, while the next x87
 * instruction may leave none: so these have to become the guest's now, while x->x87_fop and
 * x->x87_ea are of the instruction that raised it.
 */
static const struct um_insn *op_fnclex(struct um_exec *x, const struct um_insn *i)
{
	if (!x87_start(x, i->aux))
		return um_stop(x, i);
	state(x)->fsw &= (u16) ~(FSW_EXCEPTIONS | FSW_SF | FSW_ES | FSW_B);
	x->cpu.fpu.xinuse |= XCR0_X87;
	return um_native_next(x, i);
}

um_insn_fn um_native_x87_bind(u16 op)
{
	switch (op) {
	case ZYDIS_MNEMONIC_FNCLEX:
		return op_fnclex;
	case ZYDIS_MNEMONIC_FWAIT:
		return op_fwait;
	case ZYDIS_MNEMONIC_FNSTENV:
		return op_fnstenv;
	case ZYDIS_MNEMONIC_FLDENV:
		return op_fldenv;
	case ZYDIS_MNEMONIC_FNSAVE:
		return op_fnsave;
	case ZYDIS_MNEMONIC_FRSTOR:
		return op_frstor;
	}
	return NULL;
}

// SPDX-License-Identifier: MIT
/*
 * From a block of decoded guest instructions to host code.  Passes:
 *
 *	classify	how each instruction is done: copied, written anew, or by the interpreter
 *	liveness	which status flags matter where (flags.c)
 *	emit		the straight path
 *	emit_cold	the other ways of conditional jumps; those to the interpreter
 *	finish		describe the block, put it into the tables
 *
 * The order within an instruction is what makes restarting exact: memory is checked first, then the one host instruction that has effects
 * executes; guest registers that live in memory are written last.
 */
#include "cpu/cpuid.h"
#include "engine/jit/dump.h"
#include "engine/jit/trans.h"

#define ROOM_USUAL 2048	 /* bytes of code that a block takes at most, as a rule */
#define ROOM	   16384 /* ... without exception */

/* ---- classify ---- */

static enum um_how classify_stack(const struct um_trans *t, const struct um_insn *i,
				  struct um_facts *f)
{
	*f = (struct um_facts){ .mem_size = 8, .writes = BIT(UM_RSP) };
	if (i->osz != (t->m64 ? 8 : 4))
		return UM_HOW_OUT;
	switch (i->op) {
	case ZYDIS_MNEMONIC_PUSH:
		if (i->kind[0] == UM_OPD_GPR || i->kind[0] == UM_OPD_IMM ||
		    (i->kind[0] == UM_OPD_MEM && um_segment_ok(t, i)))
			return UM_HOW_PUSH;
		break;
	case ZYDIS_MNEMONIC_POP:
		if (i->kind[0] != UM_OPD_GPR)
			break;
		f->writes |= (u16)BIT(i->reg[0] / 8);
		return UM_HOW_POP;
	case ZYDIS_MNEMONIC_LEAVE:
		f->writes |= BIT(UM_RBP);
		return UM_HOW_LEAVE;
	}
	return UM_HOW_OUT;
}

/* Is it the instruction for the guest that it is for the host? */
static bool has_feature(const struct um_trans *t, const struct um_facts *f)
{
	return f->feature == UM_F_MAX || um_cpu_has(&t->x->cpu, (enum um_feature)f->feature);
}

static enum um_how classify_one(const struct um_trans *t, const struct um_insn *i, const u8 *bytes,
				struct um_facts *f)
{
	if (um_system_ok(t, i, f))
		return UM_HOW_SYSTEM;
	*f = (struct um_facts){ .may_fault = true };
	if (um_syscall_ok(t, i))
		return UM_HOW_SYSCALL;
	if (um_string_ok(t, i, f))
		return UM_HOW_STRING;
	*f = (struct um_facts){ .may_fault = true };
	if (i->flags & (UM_INSN_UD | UM_INSN_TOOLONG | UM_INSN_REP | UM_INSN_REPNE))
		return UM_HOW_OUT;
	if (i->flags & UM_INSN_BRANCH) {
		if (!um_branch_ok(t, i))
			return UM_HOW_OUT;
		if (um_is_jcc(i) || !um_is_followed(t, (unsigned)(i - t->b->insn)))
			return UM_HOW_BRANCH;
		*f = (struct um_facts){ 0 };
		return UM_HOW_NOTHING;
	}
	if (i->flags & (UM_INSN_END | UM_INSN_SYSTEM))
		return UM_HOW_OUT;
	switch (i->op) {
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_LEAVE:
		return classify_stack(t, i, f);
	case ZYDIS_MNEMONIC_LEA:
		if (i->osz < 4 || i->asz < 4)
			return UM_HOW_OUT;
		*f = (struct um_facts){ .writes = (u16)BIT(i->reg[0] / 8) };
		return UM_HOW_LEA;
	}
	if (!um_jit_analyse_cached(&t->x->translator->facts, (enum um_mode)i->mode, bytes, i->len,
				   f) ||
	    !has_feature(t, f) || f->x87 || f->mmx ||
	    (f->bit_string && (i->osz < 4 || i->asz != (t->m64 ? 8 : 4))) ||
	    f->vec > (t->key & UM_JIT_KEY_VEC) >> UM_JIT_KEY_VEC_SHIFT) {
		*f = (struct um_facts){ .may_fault = true };
		return UM_HOW_OUT;
	}
	if (f->nothing)
		return UM_HOW_NOTHING;
	/* (What a mask leaves out of an operand is not accessed.  If all of the operand could be, that makes no difference.) */
	if ((i->flags & UM_INSN_MEM) && (!f->mem_size || f->mem_size > 64 || !um_segment_ok(t, i)))
		return UM_HOW_OUT;
	for (unsigned g = 0; g < UM_NR_GPRS; g++) {
		if ((f->implied & BIT(g)) && um_jit_host(g) != g)
			return UM_HOW_OUT;
	}
	return UM_HOW_COPY;
}

static bool classify(struct um_trans *t)
{
	unsigned out = 0;

	for (unsigned k = 0; k < t->b->ninsns; k++) {
		const struct um_insn *i = &t->b->insn[k];

		t->how[k] = classify_one(t, i, um_bytes_of(t, i), &t->facts[k]);
		out += t->how[k] == UM_HOW_OUT;
		if (t->how[k] == UM_HOW_COPY)
			t->vec = um_max(t->vec, t->facts[k].vec);
	}
	/*
	 * Leaving and coming back costs what some instructions gain; but what is not translated costs that once, too.  (Tests want
	 * everything translated.)
	 */
	return !t->x->jit_threshold || out <= 1 || out * 2 <= t->b->ninsns;
}

/* ---- emit ---- */

static void emit_out(struct um_trans *t)
{
	t->slow_flags[t->k] = t->flags;
	t->has_slow[t->k] = true;
	um_emit_to_slow(t, um_emit_jmp(&t->e), false);
	t->flags.where = UM_FLAGS_SAVED;
}

static void emit_locked_check(struct um_trans *t, unsigned size)
{
	if (size == 1)
		return;
	um_emit_rex(&t->e, 0, 0, 0, H_T1); /* TEST t1, size - 1 */
	um_emit8(&t->e, 0xf7);
	um_emit8(&t->e, 0xc0 | (H_T1 & 7));
	um_emit32(&t->e, size - 1);
	um_emit_to_slow(t, um_emit_jcc(&t->e, CC_NZ), false);
}

/*
 * BT and its kin with a register: what is accessed is the element that has the bit.  H_T0 := the bit's number in there.
 */
static void check_bit_element(struct um_trans *t, const struct um_insn *i)
{
	const struct um_facts *f = &t->facts[t->k];
	unsigned wide = i->osz == 8;

	um_emit_linear(t, i);
	um_emit_get(t, H_T0, i->reg[1] / 8);
	um_emit_rr(&t->e, 1, wide ? 0x8b : 0x63, H_T2, H_T0); /* MOV, MOVSXD */
	um_emit_shift(&t->e, 1, 7, H_T2, wide ? 6 : 5);
	um_emit_lea(&t->e, t->m64, H_T1, H_T1, H_T2, wide ? 3 : 2, 0);
	if (i->flags & UM_INSN_LOCK)
		emit_locked_check(t, f->mem_size);
	um_emit_check(t, f->mem_size, f->mem_write ? UM_WRITE : UM_READ, UM_NO_WINDOW);
	um_emit_get(t, H_T0, i->reg[1] / 8);
	um_emit_alu_imm(&t->e, 0, 4, H_T0, i->osz * 8 - 1);
	t->known.insn = NULL;
}

/*
 * Of two registers, have the one in memory in ModRM.rm: the other direction of ADD, OR, ... CMP, MOV is the opcode with bit 1 set; TEST
 * has none.
 */
static void prefer_rm(struct um_facts *f)
{
	struct um_encoding *e = &f->enc;
	struct um_field reg = e->reg;
	bool alu = (e->opcode & 0xc6) == 0 || (e->opcode & 0xfe) == 0x88;

	if (e->form != UM_FORM_LEGACY || e->map || e->mem || !e->modrm || reg.kind < UM_FIELD_GPR ||
	    e->rm.kind < UM_FIELD_GPR || um_jit_host(reg.n) != UM_JIT_IN_MEMORY ||
	    um_jit_host(e->rm.n) == UM_JIT_IN_MEMORY || !(alu || (e->opcode & 0xfe) == 0x84))
		return;
	e->reg = e->rm;
	e->rm = reg;
	if (alu) {
		e->opcode |= 2;
		f->rm_written = false;
	}
}

/* The guest register in memory that may take the place of ModRM.rm as a memory operand; UM_NR_GPRS: none. */
static unsigned rm_in_memory(const struct um_facts *f)
{
	const struct um_encoding *e = &f->enc;
	const struct um_field *other[] = { &e->reg, &e->vvvv, &e->low };

	if (f->mem_size || e->mem || !e->modrm || e->rm.kind < UM_FIELD_GPR ||
	    um_jit_host(e->rm.n) != UM_JIT_IN_MEMORY)
		return UM_NR_GPRS;
	for (unsigned n = 0; n < ARRAY_SIZE(other); n++) {
		if (other[n]->kind >= UM_FIELD_GPR && other[n]->n == e->rm.n)
			return UM_NR_GPRS;
	}
	return e->rm.n;
}

/*
 * Encode the copy: guest registers in memory get the scratch registers, *@nscratch of them; but for @rm, which is an operand in
 * memory (UM_NR_GPRS: none is).  The guest's memory operand is at H_T1 + @disp.  Returns the length or 0.
 */
static unsigned encode(const struct um_facts *f, unsigned rm, s32 disp, struct um_places *p,
		       unsigned *nscratch, u8 *copy)
{
	static const u8 scratch[] = { H_T0, H_T2, H_T1 };
	unsigned n = 0, avail = f->mem_size ? 2 : 3;

	*p = (struct um_places){ .base = H_T1, .disp = disp, .bit_string = f->bit_string };
	if (rm < UM_NR_GPRS) {
		p->base = H_CTX;
		p->disp = um_jit_gpr(rm);
	}
	for (unsigned g = 0; g < UM_NR_GPRS; g++) {
		p->gpr[g] = f->bit_string ? H_T0 : (u8)um_jit_host(g);
		if (p->gpr[g] != UM_JIT_IN_MEMORY || !(f->explicit_regs & BIT(g)) || g == rm)
			continue;
		if (n == avail)
			return 0;
		p->gpr[g] = scratch[n++];
	}
	*nscratch = n;
	return rm < UM_NR_GPRS ? um_jit_copy_rm(f, p, copy) : um_jit_copy(f, p, copy);
}

/* ---- one address, several accesses ---- */

static bool same_operand(const struct um_insn *a, const struct um_insn *b)
{
	return a->seg == b->seg && a->base == b->base && a->index == b->index &&
	       (a->index == UM_REG_ZERO || a->scale == b->scale) && a->disp == b->disp &&
	       a->asz == b->asz;
}

static bool changes_address(const struct um_facts *f, const struct um_insn *i)
{
	return (i->base < UM_NR_GPRS && (f->writes & BIT(i->base))) ||
	       (i->index < UM_NR_GPRS && (f->writes & BIT(i->index)));
}

/* Does the copy of @f use all scratch registers? */
static bool takes_scratch(const struct um_facts *f)
{
	unsigned n = 0;

	for (unsigned g = 0; g < UM_NR_GPRS; g++)
		n += (f->explicit_regs & BIT(g)) && um_jit_host(g) == UM_JIT_IN_MEMORY;
	return n > 2;
}

/* The present instruction @i is checked: is that the check of one behind it, too, that writes the same operand? */
static bool written_next(const struct um_trans *t, const struct um_insn *i)
{
	const struct um_facts *f = &t->facts[t->k];

	for (unsigned k = t->k + 1; k < t->b->ninsns; k++) {
		const struct um_facts *g = &t->facts[k];

		if (changes_address(f, i) || t->how[k] != UM_HOW_COPY || takes_scratch(g))
			return false;
		if (g->mem_size)
			return g->mem_write && g->mem_size <= t->facts[t->k].mem_size &&
			       same_operand(i, &t->b->insn[k]);
		f = g;
	}
	return false;
}

/*
 * The host address of @i's operand is in H_T1 still, from the instruction before or a little earlier?  Whoever executed that by the
 * interpreter does so with @i: goes_on.
 */
static bool is_known(const struct um_trans *t, const struct um_insn *i)
{
	const struct um_facts *f = &t->facts[t->k];

	return t->known.insn && same_operand(t->known.insn, i) && f->mem_size <= t->known.size &&
	       (t->known.write || !f->mem_write) && !(i->flags & UM_INSN_LOCK) &&
	       i->op != ZYDIS_MNEMONIC_XCHG;
}

static void check_operand(struct um_trans *t, const struct um_insn *i)
{
	const struct um_facts *f = &t->facts[t->k];
	bool write = f->mem_write || written_next(t, i);

	t->t1 = 0;
	if (f->bit_string) {
		check_bit_element(t, i);
		return;
	}
	if (is_known(t, i)) {
		for (unsigned k = t->k; &t->b->insn[k] != t->known.insn; k--)
			t->map[k].goes_on = true;
		return;
	}
	um_emit_linear(t, i);
	if ((i->flags & UM_INSN_LOCK) || i->op == ZYDIS_MNEMONIC_XCHG)
		emit_locked_check(t, f->mem_size);
	um_emit_check(t, f->mem_size, write ? UM_WRITE : UM_READ, um_window_of(t, i));
	t->known.insn = i;
	t->known.size = f->mem_size;
	t->known.write = write;
}

static bool emit_copy(struct um_trans *t, const struct um_insn *i)
{
	struct um_facts *f = &t->facts[t->k];
	struct um_anchoring *anchor = is_known(t, i) ? NULL : um_anchor_for(t, i);
	s32 disp = anchor ? (s32)i->disp - anchor->a.lo : 0;
	unsigned len = 0, nscratch, rm;
	struct um_places p;
	u8 copy[UM_ENCODE_MAX];

	prefer_rm(f);
	rm = rm_in_memory(f);
	if (rm < UM_NR_GPRS)
		len = encode(f, rm, 0, &p, &nscratch, copy);
	if (!len)
		len = encode(f, rm = UM_NR_GPRS, disp, &p, &nscratch, copy);
	if (!len)
		return false;

	if (anchor && !um_anchor_is_new(t, anchor)) {
		um_flags_before(t, i, f);
		t->slow_flags[t->k] = t->flags;
		um_flags_registers(t);
		um_emit_anchored(t, anchor);
	} else if (f->mem_size) {
		um_flags_spill(t);
		t->slow_flags[t->k] = t->flags;
		if (anchor)
			um_emit_anchor(t, i, anchor);
		else
			check_operand(t, i);
		um_flags_before(t, i, f);
		um_flags_registers(t);
	} else {
		um_flags_before(t, i, f);
		t->slow_flags[t->k] = t->flags;
		um_flags_registers(t);
	}
	t->has_slow[t->k] |= f->mem_size || f->may_fault;

	for (unsigned g = 0; g < UM_NR_GPRS; g++) {
		if (um_jit_host(g) == UM_JIT_IN_MEMORY && g != rm && !f->bit_string &&
		    (f->explicit_regs & (f->reads | f->partial | f->conditional) & BIT(g)))
			um_emit_load(&t->e, 1, p.gpr[g], H_CTX, um_jit_gpr(g));
	}
	um_emit_bytes(&t->e, copy, len);
	for (unsigned g = 0; g < UM_NR_GPRS; g++) {
		if ((f->writes & BIT(g)) && um_jit_host(g) == UM_JIT_IN_MEMORY && g != rm)
			um_emit_store(&t->e, 1, p.gpr[g], H_CTX, um_jit_gpr(g));
	}
	um_flags_written(t, i, f, nscratch ? NULL : copy, len);
	if (t->known.insn && (changes_address(f, t->known.insn) || nscratch > 2))
		t->known.insn = NULL;
	if (nscratch > 2)
		t->t1 = 0;
	return true;
}

static void emit_lea(struct um_trans *t, const struct um_insn *i)
{
	unsigned g = i->reg[0] / 8, h = um_jit_host(g);

	um_flags_registers(t);
	um_emit_offset(t, i, h == UM_JIT_IN_MEMORY ? H_T1 : h, i->osz == 8 && i->asz == 8);
	if (h == UM_JIT_IN_MEMORY)
		um_emit_put(t, g, H_T1);
}

/* What all stack instructions begin with. */
static void begin_stack(struct um_trans *t)
{
	um_flags_spill(t);
	t->slow_flags[t->k] = t->flags;
	um_flags_registers(t); /* (The flags as they are before it are the slow path's.) */
}

/* ---- several words of the stack ---- */

#define RUN_MAX 64 /* bytes that a window is asked for */

static bool in_run(const struct um_trans *t, unsigned k, enum um_how how)
{
	const struct um_insn *i = &t->b->insn[k];

	if (how == UM_HOW_POP && i->op == ZYDIS_MNEMONIC_RET)
		return t->how[k] == UM_HOW_BRANCH && !(i->flags & UM_INSN_FAR);
	return t->how[k] == how && i->kind[0] != UM_OPD_MEM &&
	       !(how == UM_HOW_POP && i->reg[0] / 8 == UM_RSP);
}

/* The present instruction uses the stack: how many words do it and those behind it push, or pop? */
static unsigned words_of_run(const struct um_trans *t, unsigned size)
{
	enum um_how how = t->how[t->k];
	unsigned n = 0;

	if (um_is_plain(t))
		return 1;
	while (t->k + n < t->b->ninsns && n < RUN_MAX / size && in_run(t, t->k + n, how)) {
		if (t->how[t->k + n++] == UM_HOW_BRANCH)
			break;
	}
	return um_max(n, 1u);
}

bool um_in_run(struct um_trans *t, s32 *off)
{
	if (!t->run.left)
		return false;
	t->run.left--;
	*off = t->run.off;
	t->map[t->k].goes_on = true;
	t->has_slow[t->k] = true;
	return true;
}

/* Have the stack for @n words from @off on, and for what uses the next ones: the first's is at H_T1 + what is returned. */
static s32 begin_run(struct um_trans *t, unsigned n, unsigned size, enum um_access acc)
{
	bool down = acc == UM_WRITE;

	begin_stack(t);
	um_emit_stack(t, down ? -(s32)(n * size) : 0, n * size, acc);
	t->run.left = n - 1;
	t->map[t->k].run = n > 1;
	return down ? (s32)((n - 1) * size) : 0;
}

/* The same for those behind it. */
static void continue_run(struct um_trans *t)
{
	t->slow_flags[t->k] = t->flags;
	um_flags_registers(t);
}

static void emit_push_memory(struct um_trans *t, const struct um_insn *i, unsigned size)
{
	struct um_emit *e = &t->e;

	begin_stack(t);
	um_emit_linear(t, i);
	um_emit_check(t, size, UM_READ, um_window_of(t, i));
	um_emit_load(e, t->m64, H_T1, H_T1, 0);
	um_emit_store(e, 1, H_T1, H_CTX, UM_JIT_OFF(jit.spare[0]));
	um_emit_stack(t, -(s32)size, size, UM_WRITE);
	um_emit_load(e, 1, H_T0, H_CTX, UM_JIT_OFF(jit.spare[0]));
	um_emit_store(e, t->m64, H_T0, H_T1, 0);
	um_emit_add(t, UM_RSP, -(s32)size);
}

static void emit_push(struct um_trans *t, const struct um_insn *i)
{
	unsigned size = t->m64 ? 8 : 4, g = i->reg[0] / 8, h;
	struct um_emit *e = &t->e;
	s32 off;

	if (i->kind[0] == UM_OPD_MEM) {
		emit_push_memory(t, i, size);
		return;
	}
	if (um_in_run(t, &off))
		continue_run(t);
	else
		off = begin_run(t, words_of_run(t, size), size, UM_WRITE);
	t->run.off = off - (s32)size;
	if (i->kind[0] == UM_OPD_IMM) {
		um_emit_rm(e, t->m64, 0xc7, 0, H_T1, off);
		um_emit32(e, (u32)i->imm);
	} else {
		h = um_jit_host(g);
		if (h == UM_JIT_IN_MEMORY)
			um_emit_get(t, h = H_T0, g);
		um_emit_store(e, t->m64, h, H_T1, off);
	}
	um_emit_add(t, UM_RSP, -(s32)size);
}

static void emit_pop(struct um_trans *t, const struct um_insn *i)
{
	unsigned size = t->m64 ? 8 : 4, g = i->reg[0] / 8, h = um_jit_host(g);
	s32 off;

	if (um_in_run(t, &off))
		continue_run(t);
	else
		off = begin_run(t, g == UM_RSP ? 1 : words_of_run(t, size), size, UM_READ);
	t->run.off = off + (s32)size;
	um_emit_load(&t->e, t->m64, h == UM_JIT_IN_MEMORY ? H_T0 : h, H_T1, off);
	if (h == UM_JIT_IN_MEMORY)
		um_emit_put(t, g, H_T0);
	if (g != UM_RSP)
		um_emit_add(t, UM_RSP, (s32)size);
}

static void emit_leave(struct um_trans *t)
{
	unsigned size = t->m64 ? 8 : 4;

	begin_stack(t);
	um_emit_get(t, H_T1, UM_RBP);
	um_emit_check(t, size, UM_READ, t->key & UM_JIT_KEY_USER ? UM_RBP : UM_NO_WINDOW);
	um_emit_load(&t->e, t->m64, H_T1, H_T1, 0);
	um_emit_get(t, H_T0, UM_RBP);
	um_emit_lea(&t->e, t->m64, H_T0, H_T0, H_RSP, 0, (s32)size);
	um_emit_put(t, UM_RSP, H_T0);
	um_emit_put(t, UM_RBP, H_T1);
}

static void emit_one(struct um_trans *t, const struct um_insn *i)
{
	if (t->how[t->k] != UM_HOW_COPY)
		t->known.insn = NULL;
	if (t->how[t->k] != UM_HOW_COPY && t->how[t->k] != UM_HOW_NOTHING && !um_is_jcc(i))
		t->t1 = 0;
	switch (t->how[t->k]) {
	case UM_HOW_COPY:
		if (emit_copy(t, i))
			return;
		t->known.insn = NULL;
		t->t1 = 0;
		break;
	case UM_HOW_BRANCH:
		t->slow_flags[t->k] = (struct um_flag_state){ .where = UM_FLAGS_SAVED };
		um_emit_branch(t, i);
		return;
	case UM_HOW_SYSTEM:
		um_emit_system(t, i);
		return;
	case UM_HOW_SYSCALL:
		um_emit_syscall(t, i);
		return;
	case UM_HOW_STRING:
		um_emit_string(t, i);
		return;
	case UM_HOW_LEA:
		emit_lea(t, i);
		return;
	case UM_HOW_PUSH:
		emit_push(t, i);
		return;
	case UM_HOW_POP:
		emit_pop(t, i);
		return;
	case UM_HOW_LEAVE:
		emit_leave(t);
		return;
	case UM_HOW_NOTHING:
		return;
	case UM_HOW_OUT:
	case UM_HOW_MAX:
		break;
	}
	emit_out(t);
}

static void emit(struct um_trans *t)
{
	const struct um_insn *last = &t->b->insn[t->b->ninsns - 1];

	t->flags.where = UM_FLAGS_SAVED;
	if (t->tail)
		um_emit_tail_check(t);
	if (t->vec) {
		um_emit_rm(&t->e, 0, 0x83, 7, H_CTX, UM_JIT_OFF(jit.vec)); /* CMP dword, class */
		um_emit8(&t->e, t->vec);
		t->no_vec = um_emit_jcc(&t->e, CC_B);
	}
	if (t->choice.stage != UM_JIT_SETTLED)
		um_emit_execution(t);
	for (unsigned k = 0; k < t->b->ninsns; k++) {
		const struct um_insn *i = &t->b->insn[k];

		t->k = k;
		/* The other translation goes on here: without flags. */
		if ((t->key & UM_JIT_KEY_APART) && t->facts[k].mem_size)
			um_flags_spill(t);
		t->map[k].start = (u16)(t->e.p - t->start);
		t->map[k].off = (i->off - t->b->insn[0].off) & 0x1ff;
		t->map[k].host_flags = t->flags.where & UM_FLAGS_HOST;
		t->map[k].t1 = t->t1 & 15;
		emit_one(t, i);
		um_anchors_step(t);
	}
	um_anchors_end(t);
	t->map[t->b->ninsns].start = (u16)(t->e.p - t->start);
	t->map[t->b->ninsns].host_flags = t->flags.where & UM_FLAGS_HOST;
	if (um_is_followed(t, t->b->ninsns - 1u))
		um_emit_goto(t, (unsigned)um_target_of(last));
	else if (um_is_jcc(last) || t->how[t->b->ninsns - 1] == UM_HOW_SYSTEM ||
		 !(last->flags & (UM_INSN_BRANCH | UM_INSN_END)))
		um_emit_goto(t, last->off + last->len);
}

/* ---- emit_cold ---- */

void um_emit_slow(struct um_trans *t)
{
	unsigned k = t->k;
	u8 *site;

	t->has_slow[k] = true;
	if (t->slow[k]) {
		site = um_emit_jmp(&t->e);
		um_emit_patch_to(&t->e, site, t->slow[k]);
		return;
	}
	t->map[k].slow = (u16)(t->e.p - t->cold_start);
	if (t->how[k] == UM_HOW_STRING)
		um_emit_string_fault(t, &t->b->insn[k]);
	t->slow[k] = t->e.p;
	um_flags_emit_save(t, &t->slow_flags[k]);
	t->slow_saved[k] = t->e.p;
	um_emit_exit(t, k, UM_JIT_EXIT_SLOW);
}

static void emit_cold(struct um_trans *t)
{
	if (t->vec)
		um_emit_patch_here(&t->e, t->no_vec);
	if (t->choice.stage != UM_JIT_SETTLED)
		um_emit_patch_here(&t->e, t->over);
	if (t->vec || t->choice.stage != UM_JIT_SETTLED)
		um_emit_exit(t, 0, UM_JIT_EXIT_ENTER);
	for (unsigned n = 0; n < t->ncold; n++)
		um_emit_cold_jump(t, &t->cold[n]);
	if (t->no_match)
		um_emit_other_return(t);
	for (unsigned n = 0; n < t->nfar; n++)
		um_emit_far(t, &t->far[n]);
	for (unsigned n = 0; n < t->nmisses; n++)
		um_emit_miss(t, &t->miss[n]);
	um_emit_anchor_misses(t);
	for (unsigned n = 0; n < t->nrenewals; n++)
		um_emit_renewal(t, &t->renewal[n]);
	for (t->k = 0; t->k < t->b->ninsns; t->k++) {
		if (t->has_slow[t->k] && !t->slow[t->k])
			um_emit_slow(t);
	}
	for (unsigned n = 0; n < t->nlinks; n++) {
		if (um_has_stub(&t->link[n]))
			um_emit_stub(t, n);
	}
	um_anchor_links(t);
	for (unsigned n = 0; n < t->nsites && !t->e.full; n++) {
		const struct um_site *s = &t->site[n];

		um_emit_patch(s->at, s->saved ? t->slow_saved[s->insn] : t->slow[s->insn]);
	}
}

/* ---- finish ---- */

static size_t meta_size(const struct um_block *b, unsigned nlinks, unsigned nanchors,
			unsigned nmisses)
{
	return sizeof(struct um_jit_block) + nlinks * sizeof(struct um_jit_link) +
	       nanchors * sizeof(struct um_jit_anchor) +
	       (b->ninsns + 1u) * sizeof(struct um_jit_insn) +
	       nmisses * sizeof(struct um_jit_windowed) + b->len;
}

static struct um_jit_block *finish(struct um_trans *t, const u8 *code_end)
{
	unsigned n = t->b->ninsns;
	size_t map = (n + 1) * sizeof(t->map[0]), links = t->nlinks * sizeof(t->link[0]),
	       anchors = t->nanchors * sizeof(struct um_jit_anchor),
	       windowed = t->nmisses * sizeof(struct um_jit_windowed);
	struct um_jit_block *jb = um_block_of(t);
	char *p = (char *)(jb + 1);

	*jb = (struct um_jit_block){
		.hva = t->b->hva,
		.key = t->key,
		.id = t->id,
		.code = um_arena_rx_of(t->start),
		.cold = um_arena_rx_of(t->cold_start),
		.code_len = (u16)(code_end - t->start),
		.cold_len = (u16)(t->e.p - t->cold_start),
		.len = t->b->len,
		.len1 = t->b->len1,
		.ninsns = (u8)n,
		.nlinks = (u8)t->nlinks,
		.nwindowed = (u8)t->nmisses,
		.nanchors = (u8)t->nanchors,
		.vec = t->vec,
		.choice = t->choice,
		.left = um_jit_stage(t->x, (enum um_jit_stage)t->choice.stage),
		.flags_dead =
			!t->live[0] && !t->vec && !t->tail && t->choice.stage == UM_JIT_SETTLED,
		.dead = true, /* until it is in the tables */
	};
	jb->windowed = um_windowed_of(t);
	for (unsigned m = 0; m < t->nmisses; m++)
		jb->windowed[m] = (struct um_jit_windowed){ .insn = t->miss[m].insn };
	jb->link = memcpy(p += windowed, t->link, links);
	jb->anchor = (void *)(p += links);
	for (unsigned a = 0; a < t->nanchors; a++)
		jb->anchor[a] = t->anchor[a].a;
	jb->map = memcpy(p += anchors, t->map, map);
	jb->bytes = memcpy(p + map, t->bytes, t->b->len);
	for (unsigned l = 0; l < t->nlinks; l++)
		jb->link[l].from = jb;
	um_jit_commit(t->x, jb, meta_size(t->b, t->nlinks, t->nanchors, t->nmisses));
	return jb;
}

static struct um_jit_block *translate(struct um_exec *x, const struct um_block *b, hva_t tail,
				      u32 key, struct um_jit_choice choice, size_t room, bool *full)
{
	struct um_jit *j = x->translator;
	struct um_jit_block *jb;
	const u8 *code_end;
	struct um_trans t;

	*full = !um_jit_room(
		x, room,
		meta_size(b, UM_MAX_LINKS + UM_MAX_ANCHORS, UM_MAX_ANCHORS, UM_MAX_MISSES));
	if (*full)
		return NULL;
	memset(&t, 0, offsetof(struct um_trans, site));
	t.x = x;
	t.j = j;
	t.b = b;
	t.bytes = (const u8 *)b->words + (tail ? 0 : b->hva & 7);
	t.tail = tail;
	t.key = key;
	t.choice = choice;
	t.id = (u32)((j->newest->meta - j->meta) / UM_JIT_ALIGN);
	t.m64 = key & UM_JIT_KEY_64;
	t.e = (struct um_emit){ .p = j->newest->code, .end = j->newest->code_end };
	t.start = t.e.p;
	t.cold_start = j->newest->cold;
	t.nsites = t.ncold = t.nlinks = t.nmisses = t.nfar = t.nrenewals = 0;
	t.nanchors = t.t1 = 0;
	t.anchoring = UM_NO_ANCHOR;
	t.failed = false;
	t.entry_in_t0 = false;
	t.run.left = 0;
	t.no_match = NULL;
	memset(t.has_slow, 0, sizeof(t.has_slow));
	memset(t.slow, 0, sizeof(t.slow));
	memset(t.map, 0, sizeof(t.map));
	for (unsigned k = 0; k < b->ninsns; k++)
		t.map[k].slow = UM_JIT_NO_SLOW;
	if (!classify(&t)) {
		um_dump_block(&t, NULL);
		return NULL;
	}
	if (!um_is_unsettled(&t))
		t.choice.stage = UM_JIT_SETTLED;
	um_flags_liveness(&t);
	emit(&t);
	code_end = t.e.p;
	if (!t.e.full) {
		t.e = (struct um_emit){ .p = t.cold_start, .end = j->newest->cold_end };
		emit_cold(&t);
	}
	*full = t.e.full;
	if (t.failed || t.e.full)
		return NULL;
	jb = finish(&t, code_end);
	um_dump_block(&t, jb);
	um_perf_block(x, jb);
	return jb;
}

struct um_jit_block *um_jit_translate(struct um_exec *x, const struct um_block *b, hva_t tail,
				      u32 key, struct um_jit_choice choice, bool *full)
{
	struct um_jit_block *jb = NULL;

	*full = false;
	/* (In lockstep, a block must not leave before its first instruction.) */
	if (b->nwords || (tail && !x->lockstep))
		jb = translate(x, b, tail, key, choice, ROOM_USUAL, full);
	if (*full) /* the chunk's rest was too small for it; or there is none */
		jb = translate(x, b, tail, key, choice, ROOM, full);
	return jb;
}

struct um_jit_block *um_jit_translate_again(struct um_exec *x, const struct um_jit_block *b,
					    const struct um_block *as, u32 key,
					    struct um_jit_choice choice)
{
	_Alignas(struct um_insn) char room[UM_BLOCK_ROOM];
	u64 rip = x->cpu.rip;
	struct um_jit_block *to;
	bool full;

	/* (Dumps have addresses.) */
	x->cpu.rip = x->cpu.gpr[UM_REG_PAGE] + (b->hva & ~UM_PAGE_MASK);
	to = um_jit_translate(x, as ? as : um_jit_rebuild(x, b, room), 0, key, choice, &full);
	x->cpu.rip = rip;
	return to;
}

/* SPDX-License-Identifier: MIT */
/*
 * One translation in progress: what its passes share.  translate.c has the order of passes; flags.c
 * keeps track of where the status flags are; memory.c writes accesses to guest memory; branch.c
 * what ends a block.
 */
#ifndef UM_ENGINE_JIT_TRANS_H
#define UM_ENGINE_JIT_TRANS_H

#include "engine/jit/copy.h"
#include "engine/jit/regs.h"

/* Where the guest's status flags can be had. */
#define UM_FLAGS_HOST	BIT(0) /* in the host's RFLAGS */
#define UM_FLAGS_SAVED	BIT(1) /* in x->jit.flags */
#define UM_FLAGS_RECIPE BIT(2) /* by executing the recipe, which needs only registers */

struct um_recipe {
	u8 len;
	u16 regs; /* of the guest, that it reads */
	u8 code[64];
};

struct um_flag_state {
	u8 where; /* UM_FLAGS_... */
	struct um_recipe recipe;
};

/* How an instruction is translated.  X(name, text for dumps) */
#define UM_HOWS(X)                                 \
	X(OUT, "interpreted")                      \
	X(COPY, "copied")                          \
	X(BRANCH, "a branch")                      \
	X(SYSTEM, "a system instruction")          \
	X(SYSCALL, "a system call")                \
	X(STRING, "a repeated string instruction") \
	X(LEA, "lea")                              \
	X(PUSH, "push")                            \
	X(POP, "pop")                              \
	X(LEAVE, "leave")                          \
	X(NOTHING, "nothing that can be seen")

enum um_how {
#define X(name, text) UM_HOW_##name,
	UM_HOWS(X)
#undef X
		UM_HOW_MAX
};

/* Something to be written behind the block's straight path. */
struct um_cold {
	unsigned insn; /* a conditional jump, to where the straight path doesn't go */
	u8 *site;
	struct um_flag_state flags;
};

/* An access by a window (memory.c), and what is written behind the straight path for it. */
struct um_miss {
	u8 *jump, *back; /* the jump to be patched; where the host address is expected */
	u8 insn, size, acc, window;
	u8 anchor;	  /* number of the one that it is for; UM_NO_ANCHOR: none */
	bool entry_in_t0; /* H_T0 has to stay */
};

/* One look-up for several accesses, being written (anchor.c). */
struct um_anchoring {
	struct um_jit_anchor a;
	u8 until;      /* the last instruction that may use it */
	bool closed;   /* it is used no more */
	bool reloaded; /* its slot is */
	u8 *store;     /* where it is filled */
	u8 *miss;      /* a jump, if it is not by a window */
	u8 *out;       /* the jump to the slow path, or to the other translation */
};
#define UM_MAX_ANCHORS 12
#define UM_NO_ANCHOR   0xffu
#define UM_MAX_MISSES  (UM_JIT_MAX_INSNS * 2)
#define UM_NO_WINDOW   0xffu

/* A look-up in the jump cache that found an entry with another stamp. */
struct um_renewal {
	unsigned insn; /* whose slow path it takes if the entry doesn't hold ... */
	s8 link;       /* ... unless it is an exit that then isn't linked; -1: none */
	u8 *site, *back;
};

/* A far link's way when it doesn't hold. */
struct um_far {
	unsigned insn;
	u8 link;
	u8 *site[2];
};

#define UM_MAX_SITES  (UM_JIT_MAX_INSNS * 8)
#define UM_MAX_LINKS  (UM_JIT_JCC + 3)
#define UM_LINK_SITES 3

struct um_trans {
	struct um_exec *x;
	struct um_jit *j;
	const struct um_block *b;
	const u8 *bytes; /* of the guest */
	hva_t tail;	 /* where the last of them are, if they are in a second page; else 0 */
	u32 key, id;
	struct um_jit_choice choice;
	bool m64;
	struct um_emit e;
	u8 *start, *cold_start; /* where its code and its cold code begin */

	unsigned k; /* the instruction being translated */
	struct um_facts facts[UM_JIT_MAX_INSNS];
	enum um_how how[UM_JIT_MAX_INSNS];
	u16 live[UM_JIT_MAX_INSNS + 1]; /* status flags that matter before instruction n */
	u8 vec;				/* enum um_vec_class: what the block needs */
	u8 *no_vec;			/* the jump that finds it missing */
	u8 *over;			/* the one that finds the block's stage over */

	struct um_flag_state flags;

	/*
	 * H_T1 is the host address of this memory operand, checked for `size` bytes; insn NULL: of
	 * none.
	 */
	struct {
		const struct um_insn *insn;
		u8 size;
		bool write;
	} known;

	/*
	 * Looked up for several accesses; H_T1 is what is in the slot t1 - 1, unless that is 0.
	 */
	struct um_anchoring anchor[UM_MAX_ANCHORS];
	unsigned nanchors, t1;
	unsigned anchoring; /* the one that um_emit_check() is for; UM_NO_ANCHOR: none */

	/*
	 * What is left of a run of PUSH, or POP and RET: so many behind the present instruction, whose
	 * operands are at H_T1 + off and on.
	 */
	struct {
		unsigned left;
		s32 off;
	} run;

	/* jumps to the slow path of an instruction: to its start, or behind what saves the flags */
	struct um_site {
		u8 *at;
		u8 insn;
		bool saved;
	} site[UM_MAX_SITES];
	unsigned nsites;
	struct um_cold cold[UM_JIT_JCC];
	unsigned ncold;
	struct um_miss miss[UM_MAX_MISSES];
	unsigned nmisses;
	struct um_far far[UM_MAX_LINKS];
	unsigned nfar;
	u8 *landing; /* where the block's call returns to */
	u8 *no_match; /* the jump of its RET to another address than that on the host's stack; NULL: none */
	struct um_renewal renewal[UM_MAX_LINKS];
	unsigned nrenewals;
	bool entry_in_t0; /* an entry of the jump cache is: um_emit_check() lets it stay */
	bool has_slow[UM_JIT_MAX_INSNS];
	/* The slow path and, behind its first part, what does without saving the flags; NULL: not there yet. */
	u8 *slow[UM_JIT_MAX_INSNS], *slow_saved[UM_JIT_MAX_INSNS];
	struct um_flag_state slow_flags[UM_JIT_MAX_INSNS]; /* as the slow path finds them */
	struct um_jit_insn map[UM_JIT_MAX_INSNS + 1];
	struct um_jit_link link[UM_MAX_LINKS + UM_MAX_ANCHORS];
	struct um_link_sites {
		u8 *at[UM_LINK_SITES]; /* jumps to the stub */
		unsigned n;
		u8 *kicked[2]; /* jumps to where the flags are saved before; NULL: none */
		struct um_flag_state flags;
	} link_sites[UM_MAX_LINKS];
	unsigned nlinks;
	bool failed;
};

/* The description that the block will have; and where that has its accesses by windows. */
static inline struct um_jit_block *um_block_of(const struct um_trans *t)
{
	return (struct um_jit_block *)t->j->newest->meta;
}
static inline struct um_jit_windowed *um_windowed_of(const struct um_trans *t)
{
	return (struct um_jit_windowed *)(um_block_of(t) + 1);
}

static inline const u8 *um_bytes_of(const struct um_trans *t, const struct um_insn *i)
{
	return t->bytes + (i->off - t->b->insn[0].off);
}

/* Does the target of branch @k come next? */
static inline bool um_is_followed(const struct um_trans *t, unsigned k)
{
	return t->choice.followed & BIT(k);
}

/* ---- flags.c ---- */
/* Which flags matter, from the end of the block backwards. */
void um_flags_liveness(struct um_trans *t);
/* The host's flags are about to be overwritten by the translator's own code. */
void um_flags_spill(struct um_trans *t);
/* They must be in x->jit.flags (and may be overwritten). */
void um_flags_save(struct um_trans *t);
/* They must be in the host's RFLAGS. */
void um_flags_want(struct um_trans *t);
/* Save them from state @s at the place of @t's emitter (cold code). */
void um_flags_emit_save(struct um_trans *t, const struct um_flag_state *s);
/* The present instruction @i, copied, comes now: give it the flags that it needs. */
void um_flags_before(struct um_trans *t, const struct um_insn *i, const struct um_facts *f);
/*
 * The present instruction has the flags that it needs and can go to the slow path no more: it is
 * about to write registers.
 */
void um_flags_registers(struct um_trans *t);
/*
 * It has written flags; @f says which; @copy is its encoding for the host, of length @len, or NULL if
 * that has operands in scratch registers.
 */
void um_flags_written(struct um_trans *t, const struct um_insn *i, const struct um_facts *f,
		      const u8 *copy, unsigned len);

/* ---- translate.c ---- */
/* Is the present instruction in a run that was looked up before?  Then *@off is where its operand is, from H_T1. */
bool um_in_run(struct um_trans *t, s32 *off);
/* In cold code: the slow path of the present instruction comes here, or a jump to where it is. */
void um_emit_slow(struct um_trans *t);

/* ---- memory.c ---- */
/*
 * @dst := the offset that @i's memory operand stands for; of 64 bits if @w.  Clobbers H_T1, H_T2.
 */
void um_emit_offset(struct um_trans *t, const struct um_insn *i, unsigned dst, unsigned w);
/*
 * H_T1 := linear address of @i's memory operand.  Clobbers H_T2 and flags (call um_flags_spill()
 * before).
 */
void um_emit_linear(struct um_trans *t, const struct um_insn *i);
/*
 * H_T1, a linear address, becomes the host address of @size bytes for @acc, or the slow path is
 * taken.  Clobbers H_T0, H_T2.  @window: by which it is done, or UM_NO_WINDOW.
 */
void um_emit_check(struct um_trans *t, unsigned size, enum um_access acc, unsigned window);
/* The window for @i's memory operand. */
unsigned um_window_of(const struct um_trans *t, const struct um_insn *i);
/* The cold part of um_emit_check(). */
void um_emit_miss(struct um_trans *t, const struct um_miss *m);
/* The same for the stack: H_T1 := guest's stack pointer + @off, checked. */
void um_emit_stack(struct um_trans *t, s32 off, unsigned size, enum um_access acc);
/* @host := guest register. */
void um_emit_get(struct um_trans *t, unsigned host, unsigned guest);
void um_emit_put(struct um_trans *t, unsigned guest, unsigned host);
/* Guest register += @n, flags untouched. */
void um_emit_add(struct um_trans *t, unsigned guest, s32 n);
/* Was the present instruction found to be none for windows and runs? */
bool um_is_plain(const struct um_trans *t);
/* Is there something to be learnt of it by executing it?  (The stack's window is good.) */
bool um_is_unsettled(const struct um_trans *t);
/* ADD (@n = 0) or SUB (5) dword [@p], 1, in a block's description. */
void um_emit_count(struct um_emit *e, const void *p, unsigned n);
/* Count this execution; the last one of the stage leaves (t->over). */
void um_emit_execution(struct um_trans *t);
/* Can the segment of @i's operand be used here? */
bool um_segment_ok(const struct um_trans *t, const struct um_insn *i);
/* Jump at @site (a displacement) to the slow path of the present instruction. */
void um_emit_to_slow(struct um_trans *t, u8 *site, bool saved);
/* The same if condition @cc holds now. */
static inline void um_emit_slow_if(struct um_trans *t, unsigned cc)
{
	um_emit_to_slow(t, um_emit_jcc(&t->e, cc), false);
}

/* ---- anchor.c ---- */
/* Where the present instruction's operand is looked up for several accesses; NULL: it is not. */
struct um_anchoring *um_anchor_for(struct um_trans *t, const struct um_insn *i);
/* Is that the first of these accesses, which looks up? */
static inline bool um_anchor_is_new(const struct um_trans *t, const struct um_anchoring *a)
{
	return a == &t->anchor[t->nanchors];
}
/* H_T1 := the host address of @a's memory, looked up (call um_flags_spill() before); or known.  The latter leaves flags alone. */
void um_emit_anchor(struct um_trans *t, const struct um_insn *i, struct um_anchoring *a);
void um_emit_anchored(struct um_trans *t, struct um_anchoring *a);
/* The present instruction is written: see what no longer holds. */
void um_anchors_step(struct um_trans *t);
/* The block's straight path is. */
void um_anchors_end(struct um_trans *t);
/* The cold part: the look-up failed, ... */
void um_emit_anchor_misses(struct um_trans *t);
void um_emit_anchor_miss(struct um_trans *t, struct um_anchoring *a);
/* ... behind the slow paths: where it goes then. */
void um_anchor_links(struct um_trans *t);

/* ---- system.c ---- */
/* Is it a system instruction that is translated?  Then @f is filled in. */
bool um_system_ok(const struct um_trans *t, const struct um_insn *i, struct um_facts *f);
void um_emit_system(struct um_trans *t, const struct um_insn *i);

/* ---- string.c ---- */
/* Is it a repeated string instruction that is translated?  Then @f is filled in. */
bool um_string_ok(const struct um_trans *t, const struct um_insn *i, struct um_facts *f);
void um_emit_string(struct um_trans *t, const struct um_insn *i);
/* Where it goes on when it faulted, before its slow path. */
void um_emit_string_fault(struct um_trans *t, const struct um_insn *i);

/* ---- syscall.c ---- */
/* Is it a SYSCALL or SYSRET that is translated? */
bool um_syscall_ok(const struct um_trans *t, const struct um_insn *i);
void um_emit_syscall(struct um_trans *t, const struct um_insn *i);

/* ---- branch.c ---- */
/* H_T0 := where the jump cache has linear address H_T1, if it has. */
void um_emit_jump_slot(struct um_emit *e);
/* Leave with UM_JIT_EXIT(block, @n, @kind). */
void um_emit_exit(struct um_trans *t, unsigned n, enum um_jit_exit kind);
/* See that the second page of the block's bytes is still where it was, and not in doubt. */
void um_emit_tail_check(struct um_trans *t);
/* Translate the instruction if it is a near branch.  False: it isn't, or not one for here. */
bool um_emit_branch(struct um_trans *t, const struct um_insn *i);
/* The block goes on at offset @off of its page (or in the next one). */
void um_emit_goto(struct um_trans *t, unsigned off);
/* (Other exits leave by the slow path of their instruction.) */
static inline bool um_has_stub(const struct um_jit_link *l)
{
	return !l->apart && (!l->far || l->insn == UM_JIT_NO_INSN);
}
/* The cold part of exit @n: where it goes when it is not linked. */
void um_emit_stub(struct um_trans *t, unsigned n);
/* The cold part of a RET. */
void um_emit_other_return(struct um_trans *t);
/* The cold part of a far link. */
void um_emit_far(struct um_trans *t, const struct um_far *f);
/* The cold part of a look-up. */
void um_emit_renewal(struct um_trans *t, const struct um_renewal *r);
/* The cold part of a conditional jump. */
void um_emit_cold_jump(struct um_trans *t, const struct um_cold *c);
bool um_branch_ok(const struct um_trans *t, const struct um_insn *i);

#endif

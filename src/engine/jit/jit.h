/* SPDX-License-Identifier: MIT */
/*
 * The translator: hot blocks of guest code become host code.  Private to the engine.
 *
 * What is translated.  Blocks come from the interpreter's cache (interp/block.h) when they were
 * executed often enough: decoded instructions of one guest page (or the one that goes on in the
 * next), in 64-bit mode or in 32-bit protected mode with flat segments.  An instruction is copied
 * with its registers renumbered and its memory operand replaced (copy.h), or it is written anew
 * (branches, the stack, what kernels do all the time), or translated code leaves, the interpreter's
 * function executes it, and translated code goes on behind it.  This third way is also what every
 * hard case of the others takes: a TLB miss, a device, a fault.  So exactness is the interpreter's.
 * What is executed very often becomes another block in up to two more stages: enum um_jit_stage, path.c, window.c.
 *
 * Registers in translated code (JIT_HOST below):
 *	rbp		struct um_exec + UM_JIT_BIAS
 *	rsi, rdi, r11	scratch, dead between instructions
 *	rsp		the host's stack; on it, the guest's return addresses with the host's (branch.c)
 *	all others	general registers of the guest; five of those stay in memory
 *
 * Status flags are in the host's RFLAGS, or in x->jit.flags, or can be computed again from
 * registers: translate.c keeps track.  Between blocks they are in x->jit.flags.
 *
 * Accesses to guest memory look the TLB up inline, or by a "window" (memory.c): the translation
 * that accesses by the same base register used last.  Windows hold for one context and as long as
 * the TLB forgets nothing; whoever changes x->jit.ctx goes through sync_state() (run.c).  CPL 3 has
 * windows of its own, so that system calls leave them alone: UM_JIT_KEY_USER.
 *
 * Code is position-independent in the guest: a block serves all linear addresses that its page is
 * mapped at; cpu.gpr[UM_REG_PAGE] has the page in force.  Within a page, blocks are linked by
 * jumps.  All other transfers look the linear target up in the jump cache, whose entries hold for
 * one stamp: a generation of translations, a mode, and a version of address translation.  If only
 * the last differs, as after a switch of address spaces, one look into the TLB makes the entry good
 * again.  A direct jump or call to another page, and a jump by a pointer at a fixed place, is such an entry of its own once it was
 * executed often: a far link.
 *
 * When guest code changes:
 *   - stores of this vCPU: a page with translated code has no write tag in its TLB
 *     (um_tlb_guard()), so they come to um_jit_written(), which drops the blocks that they
 *     overlap.
 *   - stores of others (processors, devices): what a page's blocks were made from is compared with
 *     memory before the first use after an event by which this vCPU can have learnt of them: an
 *     interrupt, an exit to the VMM, CPUID or SERIALIZE; and when it gets a new translation in the
 *     TLB.  `doubt` counts those events.  (If there is no other vCPU, only devices are left, which
 *     tell by interrupts or are asked by exits: then the local APIC's timer, CPUID, SERIALIZE and a
 *     new translation are nothing to it.)
 *
 * Code memory (arena.c) is one area for the process, mapped twice, once writable and once
 * executable.  A vCPU takes chunks of it, and gives up one when it can't have another
 * (cache.c).  Then what was in there is gone at once.
 */
#ifndef UM_ENGINE_JIT_JIT_H
#define UM_ENGINE_JIT_JIT_H

#include "base/jit_options.h"
#include "engine/interp/block.h"
#include "engine/jit/copy.h"
#include "engine/jit/emit.h"

/* So that short displacements from rbp reach the guest's registers that are in memory, and what is before them. */
#define UM_JIT_BIAS ((s32)offsetof(struct um_exec, cpu.gpr[UM_REG_PAGE]) - 120)

#define UM_JIT_CHUNK (128ul << 10) /* code */
#define UM_JIT_CHUNK_HOT \
	(64ul << 10) /* of that: for what is executed every time, apart from the rest */
#define UM_JIT_CHUNK_META   (120ul << 10) /* descriptions of blocks */
#define UM_JIT_ALIGN	    32		  /* of descriptions */
#define UM_JIT_CODE_ALIGN   16		  /* of blocks: what um_emit_dead() writes has room there */
#define UM_JIT_HASH_BITS    17
#define UM_JIT_DECODED_BITS 13
#define UM_JIT_JUMP_BITS    16
#define UM_JIT_CHECKED_BITS 12
#define UM_JIT_MAX_INSNS    UM_BLOCK_MAX
#define UM_JIT_SPAN	    128 /* bytes that are looked up at once, at most */

/* What POPFQ must load besides the guest's status flags. */
#define UM_JIT_HOST_FLAGS (RFLAGS_IF | RFLAGS_FIXED1)

/* Scratch registers and the context. */
enum { H_CTX = H_RBP, H_T0 = H_RSI, H_T1 = H_RDI, H_T2 = H_R11 };
#define UM_JIT_IN_MEMORY 0xff

/*
 * Key of a block: everything but the bytes that its translation depends on.
 */
enum {
	UM_JIT_KEY_64 = 1,
	UM_JIT_KEY_VEC = 3 << 1, /* enum um_vec_class that may be used */
	UM_JIT_KEY_FS = 1 << 3,	 /* FS, GS are flat but for their base */
	UM_JIT_KEY_GS = 1 << 4,
	UM_JIT_KEY_USER = 1 << 5, /* CPL 3: which windows are used */
	/*
	 * No key of a state, but of a second translation of a block, where each access is looked up by itself (anchor.c).  The first one
	 * goes on there.
	 */
	UM_JIT_KEY_APART = 1 << 6,
};
#define UM_JIT_KEY_VEC_SHIFT 1
#define UM_JIT_KEY_NONE	     0xffffffffu /* this state can't be translated */

/* Why translated code returns: in the low bits; the block's number above. */
enum um_jit_exit {
	UM_JIT_EXIT_SLOW, /* insn: execute it by the interpreter */
	UM_JIT_EXIT_LINK, /* exit `insn` of the block: link it, go on there */
	/* the block needs the vector registers: load them, enter it again; or its stage is over; or it was dropped */
	UM_JIT_EXIT_ENTER,
	/*
	 * through the jump cache: the end of a block that runs alone; UM_JIT_GO_ON; or a fault of
	 * nobody's
	 */
	UM_JIT_EXIT_STOP,
};
/* With UM_JIT_EXIT_STOP, and no block: go on at cpu.rip. */
#define UM_JIT_GO_ON		 63u
#define UM_JIT_EXIT(id, n, kind) ((u64)(id) << 8 | (unsigned)(n) << 2 | (kind))
#define UM_JIT_MAX_ID		 (1u << 24)

struct um_jit_page;
struct um_jit_block;

/* Room for code and the descriptions of blocks: what is evicted at a time. */
struct um_jit_chunk {
	u8 *code, *code_end; /* writable mapping: the rest of it */
	u8 *cold, *cold_end; /* the same for what is seldom executed */
	char *meta, *meta_end;
	struct um_jit_block *blocks;
	unsigned live;		   /* of those: that aren't dropped */
	struct um_jit_chunk *next; /* the owner's next younger one; the next free one */
};

/*
 * A way out of a block to a place that is known relative to the block's page: in the same page, or, with `far`, in another one, or
 * at the address that a jump found in memory the last time.
 */
struct um_jit_link {
	struct um_jit_block *from, *to; /* to: if linked */
	struct um_jit_link *next;	/* of the links into a block */
	s32 site;			/* of the jump's displacement, from the block's code */
	/*
	 * If the target has no use for the flags, they need not be saved on the way (skip != 0).  If a conditional jump leads here, `skip`
	 * is where its displacement is, and it goes to `full`; or to `on`, which is behind the saving, or to the target if that is 0 (both
	 * are in cold code).  Else `skip` is where they are saved.  Of a far link: where the stamp is that it holds for (branch.c).
	 */
	s32 skip;
	u16 full, on;
	u16 stub;      /* where it goes when not linked: from its cold code */
	u16 off : 13;  /* target's offset in the page */
	u16 again : 1; /* to the block's own start, by the interpreter */
	u16 linked : 1;
	u16 by_jcc : 1;
	u8 insn; /* far: that makes it, or UM_JIT_NO_INSN, the end of the block */
	u8 far : 1;
	u8 by_target : 1; /* far: it holds for this target, not for this page of the jump */
	u8 apart : 1; /* to the same instruction of the block's other translation: um_jit_anchor */
};
#define UM_JIT_NO_INSN 0xffu

/* An access by a window (memory.c). */
struct um_jit_windowed {
	u32 misses; /* in UM_JIT_TRIAL: all, counted by translated code; else those that were seen when there were many */
	u8 insn;
};

/* What a block is translated with besides its key: window.c decides. */
enum um_jit_stage {
	UM_JIT_NEW,   /* no windows but the stack's, and its executions are counted */
	UM_JIT_TRIAL, /* all windows; executions and misses are counted */
	UM_JIT_SETTLED,
};
struct um_jit_choice {
	u32 plain;    /* instructions, as bits, that do without windows and are in no run */
	u32 followed; /* branches, as bits, whose target comes next (path.c) */
	u8 stage;
};
_Static_assert(UM_BLOCK_MAX <= 32, "bits of um_jit_choice");
#define UM_JIT_JCC \
	6 /* conditional jumps in a block that is executed often: otherwise UM_BLOCK_JCC */

struct um_jit_insn {
	u16 start; /* host code, from the block's code */
	u16 slow; /* the way to UM_JIT_EXIT_SLOW, from its cold code; UM_JIT_NO_SLOW: it has none, since it can't fault */
	u16 off : 9; /* guest bytes, from the block's first */
	/* H_T1 is what is in this slot for anchors, which is one less; 0: nothing that is needed */
	u16 t1 : 4;
	/* the first of several that use the stack, which is looked up once for all of them */
	u16 run : 1;
	/* it takes the host address from the instruction before: no code is entered here */
	u16 goes_on : 1;
	u16 host_flags : 1; /* it expects flags in the host's RFLAGS */
};

#define UM_JIT_NO_SLOW 0xffff
_Static_assert(UM_BLOCK_BYTES < 1 << 9, "um_jit_insn.off");

/*
 * One look-up for several accesses (anchor.c): of `size` bytes from register `base` + lo on.  Their host address is in a slot from behind
 * instruction `first` until `last`, whose entry nobody may go through without it.
 */
struct um_jit_anchor {
	s32 lo;
	u8 size, acc;
	u8 base, seg;
	u8 first, last;
	u8 slot, link;
};

struct um_jit_block {
	hva_t hva;
	struct um_jit_block *next, *page_next, *chunk_next;
	struct um_jit_page *page;
	/* If its one instruction goes on in the next page: that page, and the others that do so. */
	struct um_jit_page *tail_page;
	struct um_jit_block *tail_next;
	u8 *code, *cold; /* executable mapping */
	u32 key, id;
	u16 code_len, cold_len;
	u16 len, len1; /* guest bytes; of those: in the first page */
	u8 ninsns, nlinks;
	u8 vec;		 /* enum um_vec_class: what it needs */
	bool flags_dead; /* it overwrites the flags before anybody can see them */
	bool dead;
	u8 nwindowed, nanchors;
	u8 crossings; /* times that the stack for a run was not to be had at once */
	u8 lost;      /* times that memory for several accesses wasn't */
	struct um_jit_choice choice;
	s32 left; /* if it isn't settled: executions of this stage, counted by translated code */
	u32 taken[UM_BLOCK_JCC]; /* in UM_JIT_NEW: times that its conditional jumps forward were */
	/* lockstep: 1 if it leaves the FPU's state alone, 2 if not; 0: not known yet */
	u8 lockstep_fpu;
	const u8 *bytes;	 /* of the guest, that it was made from */
	struct um_jit_insn *map; /* ninsns + 1 */
	struct um_jit_link *link;
	struct um_jit_windowed *windowed;
	struct um_jit_anchor *anchor;
	struct um_jit_link *in; /* jumps to this block */
};

struct um_jit_page {
	hva_t hva;
	struct um_jit_page *next;
	struct um_jit_block *blocks;
	struct um_jit_block *tails; /* blocks of the page before whose instruction ends here */
	bool guarded;		    /* stores to it come to um_jit_written() */
	u64 doubt;		    /* compared when j->doubt was this */
	u64 covered;		    /* 64 pieces of 64 bytes: translated from */
	u32 stores;		    /* since it was guarded */
	u32 patience;		    /* how many it takes to give up its code */
};

/*
 * The jump cache is indexed by the upper bits of the product of a linear address's low 32 bits with
 * this.
 */
#define UM_JUMP_HASH 0x9e3779b1u

struct um_jump {
	gva_t lin;
	u64 stamp;
	void *code;
	hva_t hva; /* where lin was mapped to */
};
_Static_assert(sizeof(struct um_jump) == 32, "indexed by shifts in translated code");

/*
 * Stamps: bits 63..32 um_jit.gen, 31..24 the block's key, 23..12 um_jit.map_seq of its CPL, 11..0 the fetch
 * context.  No entry's: 0, which is that of entries that were never used, or are forgotten; and
 * what a kick makes of one, with a generation of 0.
 */
#define UM_STAMP_GEN_SHIFT 32
#define UM_STAMP_KEY_SHIFT 24
#define UM_STAMP_SEQ_SHIFT 12
#define UM_STAMP_SEQ_BITS  12

/*
 * Pages in a row whose hosts' pages are, too, and which the TLB had, all of them, since its seq changed: at the place for each
 * 64 KiB of linear addresses that it has a part of.
 */
struct um_jit_region {
	gva_t start;
	hva_t host;
	u64 last; /* its length - 1 */
	u64 reserved;
};
#define UM_JIT_REGIONS	    256
#define UM_JIT_REGION_SHIFT 16
_Static_assert(sizeof(struct um_jit_region) == 32, "indexed by shifts in translated code");

struct um_jit {
	struct um_jit_block *hash[1 << UM_JIT_HASH_BITS];
	struct um_jit_page *pages[1 << 12];
	struct um_jump jump[1 << UM_JIT_JUMP_BITS];
	struct um_fact_cache facts;

	/* code and descriptions: the chunk in use is the newest */
	struct um_jit_chunk *oldest, *newest;
	unsigned nchunks, npages;
	u32 chance;	/* cache.c */
	char *meta;	/* um_arena_meta() */
	u32 generation; /* um_arena_generation(), when it was made */

	u8 host_vec;   /* enum um_vec_class */
	u8 vec_missed; /* class that was missing last ... */
	u8 vec_turns;  /* ... and for how many more entries it is brought along */
	u64 doubt;
	u32 window_seq, window_epoch; /* the TLB's, as of x->window */
	u16 window_ctx;		      /* the context that CPL 3's are of */
	u64 contexts;		      /* contexts_of() as of x->jit */
	u64 missed_at;		      /* host's TSC when x->jit.patience was new */
	struct um_jit_region region[2][UM_JIT_REGIONS]; /* of UM_READ, UM_WRITE, at CPL 3 */
	bool regions;					/* there are some */
	/*
	 * Pages compared since the last doubt: address | um_jit_doubt_tag(), at
	 * um_jit_checked_slot().
	 */
	u64 checked[1 << UM_JIT_CHECKED_BITS];
	u64 gen;   /* of translations, from 1 to 2^32 - 1: um_jit_forget_jumps() */
	u64 drops; /* counts blocks that were taken out of use */
	/* Of what is executed at CPL 3 ([1]), or else. */
	u32 map_seq[2];	 /* counts doubts, and changes of the TLB's code_seq ... */
	u32 code_seq[2]; /* ... which was this */
	u64 features[4];
	/* um_jit_insn() */
	struct um_jit_decoded {
		const struct um_jit_block *block; /* NULL: none */
		u32 k;
		struct um_insn insn[2]; /* the second one stops */
	} decoded[1 << UM_JIT_DECODED_BITS];
};

static inline unsigned um_jit_bucket(hva_t hva)
{
	return um_code_bucket(hva, UM_JIT_HASH_BITS);
}

/* In the bits that a page's address doesn't have: 28 bits of @doubt. */
static inline u64 um_jit_doubt_tag(u64 doubt)
{
	return (doubt & ~UM_PAGE_MASK) | (doubt >> UM_PAGE_SHIFT) << 48;
}
#define UM_JIT_DOUBT_BITS 28

static inline u64 *um_jit_checked_slot(struct um_jit *j, hva_t hva)
{
	return &j->checked[(hva >> UM_PAGE_SHIFT) % ARRAY_SIZE(j->checked)];
}

/* ---- arena.c ---- */
/*
 * Make the process's code area, as @o says, and the routines that every vCPU enters by.
 * Idempotent: later options have no effect.  0 or -errno.
 */
int um_arena_init(const struct um_jit_options *o);
/* An empty chunk for who has @own already; NULL: it may have none, or there is none. */
struct um_jit_chunk *um_arena_get(unsigned own);
void um_arena_put(struct um_jit_chunk *c);
/* Should who has @own chunks give one back? */
bool um_arena_crowded(unsigned own);
/* Make it empty. */
void um_arena_clear(struct um_jit_chunk *c);
/* The one that block @id is in. */
struct um_jit_chunk *um_arena_chunk(u32 id);
/* The same for pages. */
struct um_jit_page *um_arena_page_get(unsigned own);
void um_arena_page_put(struct um_jit_page *p);
/*
 * Where descriptions start: a block's number is its distance from there in units of UM_JIT_ALIGN.
 */
char *um_arena_meta(void);
/* Between the two mappings. */
u8 *um_arena_rx_of(const u8 *rw);
u8 *um_arena_rw_of(const u8 *rx);
bool um_arena_has(u64 pc);
/* Chunks of another generation than this are gone: they were a parent process's. */
u32 um_arena_generation(void);
/* Routines */
struct um_arena_code {
	/*
	 * Run the code at @code, which is entered in that way.  When it is left, x->jit_on_exit says where and how to go on, within this
	 * call, or to end it (out): it returns 0.  If that is NULL, it ends at once, and returns UM_JIT_EXIT().
	 */
	u64 (*enter)(struct um_exec *x, const void *code, const u8 *way);
	/* Ways; with the host's flags from x->jit.flags; with those, and x->anchor in its place, and H_T1. */
	const u8 *plain, *flags, *anchored;
	const u8 *out;
	/* Where translated code goes to be left; rsi is UM_JIT_EXIT(). */
	const u8 *leave;
	/* Where the host's RET goes when it returns by no address of the guest's (branch.c). */
	const u8 *no_return;
	/* For an entry of the jump cache: return UM_JIT_EXIT_STOP. */
	const u8 *stop;
	/*
	 * By enum um_access and window, called: rdi is a linear address, r11 that of the last byte
	 * of the access, both less the window's start.  ZF: rdi is the host address, and the window
	 * has its page; else it is undefined.  Clobber rsi, r11.  In vain now and then so that C
	 * can look into it (x->jit.patience).
	 */
	const u8 *miss[2][UM_JIT_WINDOWS];
	/*
	 * Called with the entry in H_T0, the linear target in H_T1: ZF = 1 if the entry holds now.
	 * Clobbers H_T2.
	 */
	const u8 *renew;
	/*
	 * Jumped to by SYSCALL, H_T1 being the address behind it, and SYSRET, when nothing can go
	 * wrong with them any more.
	 */
	const u8 *syscall, *sysret;
};
const struct um_arena_code *um_arena_code(void);

/* ---- insn.c ---- */
/*
 * Instruction @k of @b, decoded, and behind it one that returns itself.  Good until the next call.
 */
const struct um_insn *um_jit_insn(struct um_exec *x, const struct um_jit_block *b, unsigned k);
/* @b, which crosses no page, as it was when it was translated, in @room of UM_BLOCK_ROOM bytes. */
const struct um_block *um_jit_rebuild(struct um_exec *x, const struct um_jit_block *b, void *room);
/* A block of the @n instructions in @insn, which has UM_BLOCK_ROOM bytes; from @hva on, where @len bytes were @bytes. */
const struct um_block *um_jit_block_of(struct um_insn *insn, unsigned n, hva_t hva, const u8 *bytes,
				       unsigned len);
/* Blocks are gone. */
void um_jit_forget_insns(struct um_jit *j);

/* ---- translate.c ---- */
/*
 * Translate @b, executed at x's state, for @key; its last bytes are at @tail, if they are in a
 * second page, else that is 0.  NULL: it can't be, or there is no room now (*@full).
 */
struct um_jit_block *um_jit_translate(struct um_exec *x, const struct um_block *b, hva_t tail,
				      u32 key, struct um_jit_choice choice, bool *full);
/* The same at the place of @b, which crosses no page: @as, or, if that is NULL, @b's instructions.  @b may be gone then. */
struct um_jit_block *um_jit_translate_again(struct um_exec *x, const struct um_jit_block *b,
					    const struct um_block *as, u32 key,
					    struct um_jit_choice choice);

/* ---- anchor.c ---- */
/*
 * The interpreter has executed what is before instruction @k of *@b.  True: translated code can go on at *@b's, which may be another
 * translation by now; *@anchored: in that way.  False: it can't, the interpreter is to go on; *@b NULL: by cpu.rip.
 */
bool um_jit_resume(struct um_exec *x, struct um_jit_block **b, unsigned k, bool *anchored);
/* The other translation of @b; NULL: none, and @b may be gone. */
struct um_jit_block *um_jit_apart(struct um_exec *x, struct um_jit_block *b);
/* The block of that key; NULL: none. */
static inline struct um_jit_block *um_jit_lookup(const struct um_jit *j, hva_t hva, u32 key)
{
	struct um_jit_block *b = j->hash[um_jit_bucket(hva)];

	while (b && (b->hva != hva || b->key != key))
		b = b->next;
	return b;
}

/* ---- flags.c ---- */
/* Can the flags of @i, which may be of any kind, only be had again from what its destination was, x->jit.operand? */
bool um_jit_keeps_operand(const struct um_insn *i);

/* ---- branch.c ---- */
/* Have exit @l go to @to from now on; and back to its stub. */
void um_emit_linked(struct um_jit_link *l, const struct um_jit_block *to);
void um_emit_unlinked(struct um_jit_link *l);
/* The first for a far link, as long as the stamp is @stamp, and the block's page or, if l->by_target, the jump's target @gva. */
void um_emit_far_linked(struct um_jit_link *l, const struct um_jit_block *to, u64 stamp, gva_t gva);
/* Make @b, which was dropped, say so when it is entered: UM_JIT_EXIT_ENTER. */
void um_emit_dead(struct um_jit_block *b);

/* ---- syscall.c ---- */
/* um_arena_code.syscall, sysret */
void um_emit_syscall_routine(struct um_emit *e);
void um_emit_sysret_routine(struct um_emit *e);

/* ---- page.c ---- */
struct um_jit_page *um_jit_page_find(struct um_jit *j, hva_t hva);
/* Have a description of the page of @hva, before a block of it is translated. */
bool um_jit_page_reserve(struct um_exec *x, hva_t hva);
/*
 * @b was translated: note its page; and that of @tail, where its last bytes are, if it has a second
 * one.
 */
bool um_jit_page_add(struct um_exec *x, struct um_jit_block *b, hva_t tail);
/* Compare what was translated of the page with memory; drop what changed. */
void um_jit_page_check(struct um_exec *x, struct um_jit_page *p);
/* The host bytes [hva, hva + len) of one page are about to be, or were, stored to by this vCPU. */
void um_jit_written(struct um_exec *x, const void *hva, unsigned len);
/* The page of @hva was mapped anew for execution: compare it now. */
void um_jit_mapped(struct um_exec *x, hva_t hva);
/* @b is to be executed no more: take it out of the tables, and jumps to it back. */
void um_jit_unlink(struct um_exec *x, struct um_jit_block *b);
/* The same since its code changed, or another is in its place. */
void um_jit_drop(struct um_exec *x, struct um_jit_block *b);
/* Blocks of @p were unlinked. */
void um_jit_page_settle(struct um_exec *x, struct um_jit_page *p);

/* ---- cache.c ---- */
/* Forget all translations. */
void um_jit_flush(struct um_exec *x);
void um_jit_cache_destroy(struct um_jit *j);
/*
 * See that there is room for @code bytes of code, as many of cold code, and @meta of descriptions in
 * the newest chunk.  May evict others.
 */
bool um_jit_room(struct um_exec *x, size_t code, size_t meta);
/* @b has taken up the newest chunk's code up to its ends, and @meta bytes. */
void um_jit_commit(struct um_exec *x, struct um_jit_block *b, size_t meta);
/* Jump @l, which is linked, is no longer among those into its target. */
void um_jit_forget_link(struct um_jit_link *l);
/* A description of a page, to be filled in.  May evict blocks.  NULL: none to be had. */
struct um_jit_page *um_jit_page_new(struct um_exec *x);

/* ---- path.c ---- */
/* Where a relative branch goes, from the start of the page. */
static inline s64 um_target_of(const struct um_insn *i)
{
	return (s64)i->off + i->len + (s64)i->imm;
}
/* Is that in its page, behind itself?  Then a path may follow it. */
static inline bool um_is_forward(const struct um_insn *i)
{
	return um_target_of(i) >= i->off + i->len && um_target_of(i) < (s64)UM_PAGE_SIZE;
}
/* What is to be translated in place of @b, which was executed often; @followed: um_jit_choice.  In @room of UM_BLOCK_ROOM bytes. */
const struct um_block *um_jit_path(struct um_exec *x, const struct um_jit_block *b, u32 *followed,
				   void *room);

/* ---- window.c ---- */
/*
 * When this many accesses missed their windows, and it took less than a number of cycles each, the last is looked at.
 */
#define UM_JIT_WINDOW_MISSES 256
void um_jit_forget_windows(struct um_exec *x);
/*
 * Forget those that don't hold any more.  They do as long as the TLB forgets nothing: CPL 3's for its context; the kernel's for the
 * context that allows less (x->priv is UM_PRIV_KERNEL), unless translated code was left with the other.  @same: it wasn't, or the
 * kernel still has that.
 */
void um_jit_check_windows(struct um_exec *x, bool same);
/* Instruction @k of @b was left with x->jit.patience < 0.  True: @b may be gone now. */
bool um_jit_missed_window(struct um_exec *x, struct um_jit_block *b, unsigned k);
/* ... and is the first of several that use the stack. */
bool um_jit_missed_run(struct um_exec *x, struct um_jit_block *b, unsigned k);
/* Executions of a block in @stage. */
s32 um_jit_stage(const struct um_exec *x, enum um_jit_stage stage);
/* Is that over? */
static inline bool um_jit_stage_over(const struct um_jit_block *b)
{
	return b->choice.stage != UM_JIT_SETTLED && b->left <= 0;
}
/* Then this is what takes its place (or @b); cpu.rip is there.  NULL: nothing. */
struct um_jit_block *um_jit_next_stage(struct um_exec *x, struct um_jit_block *b);

/* ---- run.c ---- */
int um_jit_init(struct um_exec *x);
void um_jit_destroy(struct um_exec *x);
/* No entry of the jump cache holds any more. */
void um_jit_forget_jumps(struct um_jit *j);
/* Translate @b, which the state of @x is about to execute.  False: it can't be. */
bool um_jit_add(struct um_exec *x, const struct um_block *b);
/* The block translated for the state of @x; NULL: none yet. */
struct um_jit_block *um_jit_find(struct um_exec *x);
/* Run @b and what follows, until the interpreter or the vCPU layer must act. */
void um_jit_run(struct um_exec *x, struct um_jit_block *b);
/*
 * Was STI the last instruction of that (system.c)?  Or it was at this place some time before: then
 * the shadow is one that nobody can tell from an interrupt that comes later.  Unless the next
 * instruction is executed before anything else can happen, it is to be opened.
 */
bool um_jit_in_shadow(const struct um_exec *x);
void um_jit_open_shadow(struct um_exec *x);
/*
 * Run @b and nothing behind it.  Where the block goes is @next: jumps to other addresses are left
 * to the interpreter.
 */
void um_jit_run_alone(struct um_exec *x, struct um_jit_block *b, u64 next);
/* @b, whose last bytes are at @tail if that isn't 0, goes into the tables.  False: it can't. */
bool um_jit_publish(struct um_exec *x, struct um_jit_block *b, hva_t tail);
/* At the start of um_engine_run(). */
void um_jit_begin(struct um_exec *x);

/*
 * ---- lockstep.c: the engine "lockstep" ----
 *
 * Each block is executed by the interpreter, taken back, and executed by its translation; what is
 * different then stops the VM with UM_EXIT_INTERNAL and a report.
 */
int um_lockstep_init(struct um_exec *x);
void um_lockstep_destroy(struct um_exec *x);
/*
 * Around everything that executes guest code: only one vCPU of a VM does at a time, so that none
 * sees stores that are taken back.  False: x->exit; the turn is taken all the same.
 */
bool um_lockstep_enter(struct um_exec *x);
void um_lockstep_leave(struct um_exec *x);
/* Let others, now and then.  False: x->exit. */
bool um_lockstep_turn(struct um_exec *x);
/*
 * Before @len bytes at @p are stored to; @tracked: the MMU will be told of it; NULL: to a device.
 */
void um_lockstep_store(struct um_exec *x, void *p, unsigned len, bool tracked);
/*
 * Does @i come out the same when it is executed again?  If not, um_jit_run_alone() stops before it,
 * unless it is the first.
 */
bool um_lockstep_repeatable(const struct um_insn *i);
/* Execute the block at cpu.rip, whose translation is @b. */
void um_lockstep_run(struct um_exec *x, struct um_jit_block *b);

#endif

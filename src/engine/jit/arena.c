// SPDX-License-Identifier: MIT
/*
 * The process's area of translated code, and the routines by which C enters it.
 *
 * One memfd, mapped writable here and, behind the tables, executable there: no page is ever both.  It is made when the
 * first vCPU is, and never grows, so that a VMM may forbid mmap, mprotect and memfd_create
 * afterwards; memory is used as chunks are, a huge page at a time.
 *
 * A fault in translated code continues at the way to the interpreter of the instruction that it is
 * part of, which executes it anew: until an instruction has succeeded, it has changed no register
 * of the guest.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/huge.h"
#include "base/memfd.h"
#include "engine/jit/dump.h"
#include "engine/jit/regs.h"
#include "engine/jit/vec.h"

#define HEAD (64ul << 10) /* for the routines */

/*
 * The last quarter, or so, of what is free stays so for vCPUs to come: a vCPU may have SHARE times
 * as much as is free.  N vCPUs that translate all the time so come to have SHARE / (SHARE * N + 1)
 * of it each.  Those that don't keep what they have.
 */
#define SHARE 3u

static struct {
	pthread_mutex_t lock; /* the pool's, too */
	int failed;	      /* -errno of the only try */
	u8 *rw;
	u8 *rx; /* set last: read by the signal handler */
	size_t size;
	size_t huge; /* so many bytes from the start are in huge pages, or were to be */
	struct um_arena_code code;
	bool hooked;	/* fixups and what a child of fork does are registered */
	u32 generation; /* counts the areas that were left behind by fork() */

	/* The tables: chunks, descriptions, pages. */
	char *tables;
	size_t tables_size;
	struct um_jit_chunk *chunk, *free;
	char *meta;
	struct um_jit_page *free_page, *fresh_page; /* fresh: untouched memory from there on */
	unsigned nchunks, nfree, nfree_pages;
} arena = { .lock = PTHREAD_MUTEX_INITIALIZER };

bool um_arena_has(u64 pc)
{
	u64 rx = (u64)__atomic_load_n(&arena.rx, __ATOMIC_ACQUIRE);

	return rx && pc - rx < arena.size;
}

u8 *um_arena_rx_of(const u8 *rw)
{
	return arena.rx + (rw - arena.rw);
}

u8 *um_arena_rw_of(const u8 *rx)
{
	return arena.rw + (rx - arena.rx);
}

char *um_arena_meta(void)
{
	return arena.meta;
}

const struct um_arena_code *um_arena_code(void)
{
	return &arena.code;
}

/* ---- the pool ---- */

void um_arena_clear(struct um_jit_chunk *c)
{
	size_t n = (size_t)(c - arena.chunk);

	c->code = arena.rw + HEAD + n * UM_JIT_CHUNK;
	c->code_end = c->cold = c->code + UM_JIT_CHUNK_HOT;
	c->cold_end = c->code + UM_JIT_CHUNK;
	c->meta = arena.meta + n * UM_JIT_CHUNK_META;
	c->meta_end = c->meta + UM_JIT_CHUNK_META;
	c->blocks = NULL;
	c->live = 0;
}

struct um_jit_chunk *um_arena_chunk(u32 id)
{
	return &arena.chunk[id / (UM_JIT_CHUNK_META / UM_JIT_ALIGN)];
}

/* The last one is for who has none. */
static bool may_have(unsigned own, unsigned free)
{
	return free && (!own || own < SHARE * (free - 1));
}

/*
 * Code is spread over all of a chunk, and programs over many: with small pages, a compiler takes a twentieth more time.  Returns where the
 * next huge page begins that @c needs; NULL: it has all that it needs, or @c is in the last part, which is none.
 */
static u8 *next_huge(const struct um_jit_chunk *c)
{
	size_t end = HEAD + ((size_t)(c - arena.chunk) + 1) * UM_JIT_CHUNK;
	u8 *at = arena.rw + arena.huge;

	if (arena.huge >= end || arena.size - arena.huge < UM_HUGE_PAGE)
		return NULL;
	arena.huge += UM_HUGE_PAGE;
	return at;
}

static void make_huge(u8 *rw)
{
	*(volatile u8 *)rw; /* touched, so that there is something to collapse */
	um_huge_collapse(rw);
	um_huge_collapse(um_arena_rx_of(rw));
}

struct um_jit_chunk *um_arena_get(unsigned own)
{
	struct um_jit_chunk *c = NULL;
	u8 *huge = NULL;

	pthread_mutex_lock(&arena.lock);
	if (may_have(own, arena.nfree)) {
		c = arena.free;
		arena.free = c->next;
		arena.nfree--;
		huge = next_huge(c);
	}
	pthread_mutex_unlock(&arena.lock);
	if (huge)
		make_huge(huge);
	if (c)
		um_arena_clear(c);
	return c;
}

void um_arena_put(struct um_jit_chunk *c)
{
	pthread_mutex_lock(&arena.lock);
	c->blocks = NULL;
	c->next = arena.free;
	arena.free = c;
	arena.nfree++;
	pthread_mutex_unlock(&arena.lock);
}

bool um_arena_crowded(unsigned own)
{
	bool crowded;

	pthread_mutex_lock(&arena.lock);
	crowded = own > SHARE * arena.nfree;
	pthread_mutex_unlock(&arena.lock);
	return crowded;
}

struct um_jit_page *um_arena_page_get(unsigned own)
{
	struct um_jit_page *p = NULL;

	pthread_mutex_lock(&arena.lock);
	if (may_have(own, arena.nfree_pages)) {
		p = arena.free_page;
		if (p)
			arena.free_page = p->next;
		else
			p = arena.fresh_page++;
		arena.nfree_pages--;
	}
	pthread_mutex_unlock(&arena.lock);
	return p;
}

void um_arena_page_put(struct um_jit_page *p)
{
	pthread_mutex_lock(&arena.lock);
	p->next = arena.free_page;
	arena.free_page = p;
	arena.nfree_pages++;
	pthread_mutex_unlock(&arena.lock);
}

/* ---- faults ---- */

/* The number of the block's instruction whose host code has @off. */
static unsigned insn_at(const struct um_jit_block *b, u32 off)
{
	unsigned n = b->ninsns - 1;

	while (n && b->map[n].start > off)
		n--;
	return n;
}

/* In a signal handler, in the thread of the vCPU, which has the chunk. */
static uintptr_t arena_fixup(uintptr_t pc, const siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	const struct um_jit_block *b;
	uintptr_t chunk;

	if (!um_arena_has(pc))
		return 0;
	chunk = (pc - (uintptr_t)arena.rx - HEAD) / UM_JIT_CHUNK; /* (too large for the routines) */
	if (chunk >= arena.nchunks)
		return 0;
	for (b = arena.chunk[chunk].blocks; b; b = b->chunk_next) {
		unsigned k = 0;

		if (pc - (uintptr_t)b->code < b->code_len) {
			k = insn_at(b, (u32)(pc - (uintptr_t)b->code));
			if (b->map[k].slow != UM_JIT_NO_SLOW)
				return (uintptr_t)b->cold + b->map[k].slow;
		} else if (pc - (uintptr_t)b->cold >= b->cold_len) {
			continue;
		}
		/* An instruction that can't fault has: a broken invariant, which ends the VM. */
		uc->uc_mcontext.gregs[REG_RSI] = (greg_t)UM_JIT_EXIT(b->id, k, UM_JIT_EXIT_STOP);
		return (uintptr_t)arena.code.leave;
	}
	return 0;
}

/* ---- the routines ---- */

/* What comes is a routine: where it is executed. */
static const u8 *begin_routine(struct um_emit *e)
{
	e->p = (u8 *)ALIGN_UP((u64)e->p, 64);
	return um_arena_rx_of(e->p);
}

static const u8 saved[] = { H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15 };

static void emit_set_vec(struct um_emit *e, enum um_vec_class c)
{
	um_emit_store_imm(e, 0, UM_JIT_OFF(jit.vec), (u32)c);
}

static void emit_vec_load(struct um_emit *e, enum um_vec_class c)
{
	e->p += um_vec_emit_load(e->p, UM_VEC_CLASS_NONE, c);
	emit_set_vec(e, c);
}

static void emit_vec_store(struct um_emit *e, enum um_vec_class c)
{
	e->p += um_vec_emit_store(e->p, c);
	emit_set_vec(e, UM_VEC_CLASS_NONE);
}

/*
 * If the word at [ctx + @off] is vector class c, for any c, do the code that @emit writes for it.
 */
static void emit_by_class(struct um_emit *e, s32 off,
			  void (*emit)(struct um_emit *e, enum um_vec_class c))
{
	u8 *done[UM_VEC_CLASS_AVX512 + 1];
	enum um_vec_class greatest = um_vec_host_class(um_host());

	um_emit_rm(e, 0, 0x83, 7, H_CTX, off); /* CMP dword, 0 */
	um_emit8(e, 0);
	done[0] = um_emit_jcc(e, CC_Z);
	for (unsigned c = 1; c <= greatest; c++) {
		u8 *other;

		um_emit_rm(e, 0, 0x83, 7, H_CTX, off);
		um_emit8(e, c);
		other = um_emit_jcc(e, CC_NZ);
		emit(e, (enum um_vec_class)c);
		done[c] = um_emit_jmp(e);
		um_emit_patch(other, e->p);
	}
	for (unsigned c = 0; c <= greatest; c++)
		um_emit_patch(done[c], e->p);
}

/* What is kept for the accesses behind the place that is entered, by way of H_T1, which gets one of them. */
static void emit_anchors(struct um_emit *e)
{
	for (unsigned n = 0; n < UM_JIT_ANCHORS; n++) {
		um_emit_load(e, 1, H_T1, H_CTX, UM_JIT_OFF(anchor) + (s32)n * 8);
		um_emit_store(e, 1, H_T1, H_CTX, um_jit_anchor(n));
	}
	um_emit_load(e, 1, H_T1, H_CTX, UM_JIT_OFF(t1));
}

/*
 * The host's stack while translated code runs, from the top: what enter() saves; at a multiple of 2 * UM_JIT_RETURNS, a return address
 * that is nobody's, and the guest's, going round in UM_JIT_RETURNS bytes (branch.c); when it is left, the frames of C.  So return
 * addresses outlive exits, and a signal, whose frame comes below all that is in use, overwrites nothing.
 */
#define BELOW_RETURNS (UM_JIT_RETURNS + 64) /* the last call's two words are below them */
_Static_assert(BELOW_RETURNS % 16 == 0, "aligned for calls");

/* u64 enter(x: rdi, code: rsi, way: rdx) */
static void emit_enter(struct um_emit *e)
{
	for (unsigned n = 0; n < ARRAY_SIZE(saved); n++)
		um_emit_push(e, saved[n]);
	um_emit_alu_imm(e, 1, 5, H_RSP, 8); /* the stack is aligned for calls */
	um_emit_lea(e, 1, H_CTX, H_RDI, H_RSP, 0, UM_JIT_BIAS);
	um_emit_store(e, 1, H_RSP, H_CTX, UM_JIT_OFF(jit.host_sp));
	um_emit_alu_imm(e, 1, 4, H_RSP, -2 * UM_JIT_RETURNS);
	um_emit_bytes(e, "\x6a\x00", 2); /* PUSH 0 */
	um_emit_mov_imm(e, H_T2, (u64)arena.code.no_return);
	um_emit_push(e, H_T2);
	um_emit_store(e, 1, H_RSP, H_CTX, UM_JIT_OFF(jit.sp));
	um_emit_rr(e, 0, 0xff, 4, H_RDX); /* JMP */
}

/* At rsi, in one of the ways. */
static void emit_way(struct um_emit *e, bool flags, bool anchored)
{
	for (unsigned g = 0; g < UM_NR_GPRS; g++) {
		if (um_jit_host(g) != UM_JIT_IN_MEMORY)
			um_emit_load(e, 1, um_jit_host(g), H_CTX, um_jit_gpr(g));
	}
	emit_by_class(e, UM_JIT_OFF(jit.want), emit_vec_load);
	if (anchored)
		emit_anchors(e);
	if (flags)
		um_emit_flags_load(e, H_CTX, UM_JIT_OFF(jit.flags));
	um_emit_rr(e, 0, 0xff, 4, H_RSI); /* JMP */
}

/*
 * RET found nothing on the host's stack but the 0 that was there first, to which it returns: H_T1.  (The guest's stack pointer has
 * changed already.)
 */
static void emit_no_return(struct um_emit *e)
{
	um_emit_store(e, 1, H_T1, H_CTX, UM_JIT_OFF(cpu.rip));
	um_emit_mov_imm(e, H_RSI, UM_JIT_EXIT(0, UM_JIT_GO_ON, UM_JIT_EXIT_STOP));
	um_emit_jump(e, arena.code.leave);
}

/* The end of enter(), which returns rax. */
static void emit_out(struct um_emit *e)
{
	um_emit_load(e, 1, H_RSP, H_CTX, UM_JIT_OFF(jit.host_sp));
	um_emit_alu_imm(e, 1, 0, H_RSP, 8);
	for (unsigned n = ARRAY_SIZE(saved); n-- > 0;)
		um_emit_pop(e, saved[n]);
	um_emit8(e, 0xc3);
}

static void emit_leave(struct um_emit *e)
{
	u8 *handled;

	for (unsigned g = 0; g < UM_NR_GPRS; g++) {
		if (um_jit_host(g) != UM_JIT_IN_MEMORY)
			um_emit_store(e, 1, um_jit_host(g), H_CTX, um_jit_gpr(g));
	}
	emit_by_class(e, UM_JIT_OFF(jit.vec), emit_vec_store);
	um_emit_mov(e, 1, H_RAX, H_RSI);
	um_emit_rm(e, 1, 0x83, 7, H_CTX, UM_JIT_OFF(jit_on_exit)); /* CMP, 0 */
	um_emit8(e, 0);
	handled = um_emit_jcc(e, CC_NZ);
	um_emit_jump(e, arena.code.out);
	um_emit_patch_here(e, handled);
	um_emit_store(e, 1, H_RSP, H_CTX, UM_JIT_OFF(jit_returns_sp));
	um_emit_load(e, 1, H_RSP, H_CTX, UM_JIT_OFF(jit.sp));
	um_emit_alu_imm(e, 1, 5, H_RSP, BELOW_RETURNS);
	um_emit_lea(e, 1, H_RDI, H_CTX, H_RSP, 0, -UM_JIT_BIAS);
	um_emit_rm(e, 0, 0xff, 2, H_CTX, UM_JIT_OFF(jit_on_exit)); /* CALL */
	um_emit_mov(e, 1, H_RSI, H_RAX);
	um_emit_load(e, 1, H_RSP, H_CTX, UM_JIT_OFF(jit_returns_sp));
	um_emit_rr(e, 0, 0xff, 4, H_RDX); /* JMP */
}

/*
 * rsi := the TLB's entry for rdi; ZF if it holds for @acc up to the page of r11, which becomes the
 * tag.
 */
static void emit_tlb(struct um_emit *e, unsigned acc)
{
	um_emit_entry_offset(e);
	um_emit_rm(e, 1, 0x03, H_T0, H_CTX, UM_JIT_OFF(jit.tlb));
	um_emit_alu_imm(e, 1, 4, H_T2, -(s32)UM_PAGE_SIZE);
	um_emit_rm(e, 1, 0x0b, H_T2, H_CTX, UM_JIT_OFF(jit.ctx));
	um_emit_rm(e, 1, 0x3b, H_T2, H_T0, (s32)(offsetof(struct um_tlb_entry, tag) + 8 * acc));
}

/* H_T1 and H_T2 += (0x03) or -= (0x2b) the quadword at [@base + @disp]. */
static void emit_both(struct um_emit *e, unsigned op, unsigned base, s32 disp)
{
	um_emit_rm(e, 1, op, H_T1, base, disp);
	um_emit_rm(e, 1, op, H_T2, base, disp);
}

#define REGION(field) ((s32)offsetof(struct um_jit_region, field))

/* If the region where H_T1 is has all up to H_T2, it becomes the window, and H_T1 the host address: return. */
static void emit_region(struct um_emit *e, unsigned acc, unsigned window)
{
	s32 table = (s32)(acc * UM_JIT_REGIONS * sizeof(struct um_jit_region));
	u8 *no[2];

	um_emit_mov(e, 1, H_T0, H_T1);
	um_emit_shift(e, 1, 5, H_T0, UM_JIT_REGION_SHIFT - 5);
	um_emit_alu_imm(e, 0, 4, H_T0, (UM_JIT_REGIONS - 1) << 5);
	um_emit_rm(e, 1, 0x03, H_T0, H_CTX, UM_JIT_OFF(jit.regions));
	emit_both(e, 0x2b, H_T0, table + REGION(start));
	um_emit_rm(e, 1, 0x3b, H_T2, H_T0, table + REGION(last));
	no[0] = um_emit_jcc(e, CC_A);
	um_emit_rr(e, 1, 0x3b, H_T1, H_T2);
	no[1] = um_emit_jcc(e, CC_A);
	um_emit_load(e, 1, H_T2, H_T0, table + REGION(start));
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_start(acc, window));
	um_emit_load(e, 1, H_T2, H_T0, table + REGION(host));
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_host(acc, window));
	um_emit_rr(e, 1, 0x03, H_T1, H_T2);
	um_emit_load(e, 1, H_T2, H_T0, table + REGION(last));
	um_emit_alu_imm(e, 1, 5, H_T2, 8 - 1);
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_limit(acc, window, 8));
	um_emit_alu_imm(e, 1, 5, H_T2, 64 - 8);
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_limit(acc, window, 64));
	um_emit_alu_imm(e, 1, 5, H_T2, UM_JIT_SPAN - 64);
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_limit(acc, window, UM_JIT_SPAN));
	um_emit_rr(e, 0, 0x3b, H_T0, H_T0);
	um_emit8(e, 0xc3);
	um_emit_patch_here(e, no[0]);
	um_emit_patch_here(e, no[1]);
	emit_both(e, 0x03, H_T0, table + REGION(start));
}

static const u8 *emit_miss(struct um_emit *e, unsigned acc, unsigned window)
{
	const u8 *start = begin_routine(e);
	u8 *no, *enough;

	emit_both(e, 0x03, H_CTX, um_jit_window_start(acc, window));
	um_emit_rm(e, 0, 0x83, 5, H_CTX, UM_JIT_OFF(jit.patience)); /* SUB dword, 1 */
	um_emit8(e, 1);
	enough = um_emit_jcc(e, CC_S);
	if (window != UM_JIT_KERNEL_WINDOW)
		emit_region(e, acc, window);
	emit_tlb(e, acc);
	no = um_emit_jcc(e, CC_NZ);
	um_emit_rm(e, 1, 0x2b, H_T2, H_CTX, UM_JIT_OFF(jit.ctx));
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_start(acc, window));
	um_emit_load(e, 1, H_T0, H_T0, offsetof(struct um_tlb_entry, addend));
	um_emit_rr(e, 1, 0x03, H_T2, H_T0);
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_host(acc, window));
	um_emit_store_imm(e, 1, um_jit_window_limit(acc, window, 8), UM_PAGE_SIZE - 8);
	um_emit_store_imm(e, 1, um_jit_window_limit(acc, window, 64), UM_PAGE_SIZE - 64);
	um_emit_store_imm(e, 1, um_jit_window_limit(acc, window, UM_JIT_SPAN),
			  UM_PAGE_SIZE - UM_JIT_SPAN);
	um_emit_rr(e, 1, 0x03, H_T1, H_T0);
	um_emit_rr(e, 0, 0x3b, H_T0, H_T0);
	um_emit_patch_here(e, no);
	um_emit8(e, 0xc3);
	um_emit_patch_here(e, enough);
	um_emit_store(e, 1, H_T1, H_CTX, UM_JIT_OFF(missed));
	um_emit_store_imm(e, 0, UM_JIT_OFF(missed_window), acc | window << 1);
	um_emit8(e, 0xc3); /* (not ZF, as from SUB) */
	return start;
}

/* branch.c: an entry of the jump cache, H_T0, has H_T1 for its address, and another stamp. */
static void emit_renew(struct um_emit *e)
{
	const s32 stamp = offsetof(struct um_jump, stamp);
	u8 *miss[5];

	um_emit_push(e, H_RAX);
	/* Of this generation, for this kind of code? */
	um_emit_load(e, 1, H_RAX, H_T0, stamp);
	um_emit_rm(e, 1, 0x33, H_RAX, H_CTX, UM_JIT_OFF(jit.stamp)); /* XOR */
	um_emit_shift(e, 1, 5, H_RAX, UM_STAMP_KEY_SHIFT);
	miss[0] = um_emit_jcc(e, CC_NZ);
	/* Does the TLB have it, where it was? */
	um_emit_mov(e, 0, H_RAX, H_T1);
	um_emit_shift(e, 0, 5, H_RAX, UM_PAGE_SHIFT - 5);
	um_emit_alu_imm(e, 0, 4, H_RAX, (UM_TLB_PAGES - 1) << 5);
	um_emit_rm(e, 1, 0x03, H_RAX, H_CTX, UM_JIT_OFF(jit.fetch_tlb));
	um_emit_mov(e, 1, H_T2, H_T1);
	um_emit_alu_imm(e, 1, 4, H_T2, -(s32)UM_PAGE_SIZE);
	um_emit_rm(e, 1, 0x0b, H_T2, H_CTX, UM_JIT_OFF(jit.fetch_ctx));
	um_emit_rm(e, 1, 0x3b, H_T2, H_RAX, offsetof(struct um_tlb_entry, tag[UM_FETCH]));
	miss[1] = um_emit_jcc(e, CC_NZ);
	um_emit_load(e, 1, H_T2, H_RAX, offsetof(struct um_tlb_entry, addend));
	um_emit_rr(e, 1, 0x03, H_T2, H_T1);
	um_emit_rm(e, 1, 0x3b, H_T2, H_T0, offsetof(struct um_jump, hva));
	miss[2] = um_emit_jcc(e, CC_NZ);
	/* Was its page compared since the last doubt? */
	um_emit_mov(e, 1, H_RAX, H_T2);
	um_emit_shift(e, 1, 5, H_RAX, UM_PAGE_SHIFT);
	um_emit_alu_imm(e, 0, 4, H_RAX, (1 << UM_JIT_CHECKED_BITS) - 1);
	um_emit_shift(e, 0, 4, H_RAX, 3);
	um_emit_rm(e, 1, 0x03, H_RAX, H_CTX, UM_JIT_OFF(jit.checked));
	um_emit_alu_imm(e, 1, 4, H_T2, -(s32)UM_PAGE_SIZE);
	um_emit_rm(e, 1, 0x0b, H_T2, H_CTX, UM_JIT_OFF(jit.doubt));
	um_emit_rm(e, 1, 0x39, H_T2, H_RAX, 0);
	miss[3] = um_emit_jcc(e, CC_NZ);
	/* um_tlb_note_code() */
	um_emit_mov(e, 1, H_RAX, H_T1);
	um_emit_shift(e, 1, 5, H_RAX, 30);
	um_emit_mov(e, 1, H_T2, H_T1);
	um_emit_shift(e, 1, 5, H_T2, UM_PAGE_SHIFT);
	um_emit_rr(e, 0, 0x33, H_RAX, H_T2);
	um_emit_alu_imm(e, 0, 4, H_RAX, UM_TLB_CODE_BITS / 2 - 1);
	um_emit_mov(e, 1, H_T2, H_T1);
	um_emit_shift(e, 1, 5, H_T2, 63);
	um_emit_shift(e, 0, 4, H_T2, UM_TLB_CODE_SHIFT - 1);
	um_emit_rr(e, 0, 0x0b, H_RAX, H_T2);
	_Static_assert(UM_PRIV_USER == 2 && UM_PRIV_KERNEL == 0,
		       "bit 1 of a context number that is fetched with");
	um_emit_load(e, 0, H_T2, H_CTX, UM_JIT_OFF(jit.fetch_ctx));
	um_emit_alu_imm(e, 0, 4, H_T2, UM_PRIV_USER);
	um_emit_shift(e, 0, 4, H_T2, UM_TLB_CODE_SHIFT - 1);
	um_emit_rr(e, 0, 0x0b, H_RAX, H_T2);
	um_emit_load(e, 1, H_T2, H_CTX, UM_JIT_OFF(jit.code_pages));
	um_emit_rex(e, 0, H_RAX, 0, H_T2); /* BTS [t2], eax */
	um_emit8(e, 0x0f);
	um_emit8(e, 0xab);
	um_emit_modrm_mem(e, H_RAX, H_T2, 0);
	um_emit_load(e, 1, H_T2, H_CTX, UM_JIT_OFF(jit.stamp));
	um_emit_mov(e, 1, H_RAX, H_T2);
	um_emit_shift(e, 1, 5, H_RAX, UM_STAMP_GEN_SHIFT);
	miss[4] = um_emit_jcc(e, CC_Z);
	um_emit_store(e, 1, H_T2, H_T0, stamp);
	um_emit_pop(e, H_RAX);
	um_emit_rr(e, 0, 0x39, H_T0, H_T0); /* CMP: ZF = 1 */
	um_emit8(e, 0xc3);
	for (unsigned n = 0; n < ARRAY_SIZE(miss); n++)
		um_emit_patch(miss[n], e->p);
	um_emit_pop(e, H_RAX);
	um_emit_rr(e, 1, 0x85, H_CTX, H_CTX); /* TEST: ZF = 0 */
	um_emit8(e, 0xc3);
}

static void emit_plain(struct um_emit *e)
{
	emit_way(e, false, false);
}

static void emit_flags(struct um_emit *e)
{
	emit_way(e, true, false);
}

static void emit_anchored(struct um_emit *e)
{
	emit_way(e, true, true);
}

static void emit_stop(struct um_emit *e)
{
	um_emit_mov_imm(e, H_RSI, UM_JIT_EXIT(0, 0, UM_JIT_EXIT_STOP));
	um_emit_jump(e, arena.code.leave);
}

/* Where @emit's code is executed. */
static const u8 *routine(struct um_emit *e, const char *name, void (*emit)(struct um_emit *e))
{
	const u8 *start = begin_routine(e);

	emit(e);
	um_perf_code(name, start, (size_t)(um_arena_rx_of(e->p) - start));
	return start;
}

static void make_routines(void)
{
	struct um_emit e = { .p = arena.rw, .end = arena.rw + HEAD };
	struct um_arena_code *c = &arena.code;

	c->out = routine(&e, "umbra.out", emit_out);
	c->leave = routine(&e, "umbra.leave", emit_leave); /* the others go there */
	c->no_return = routine(&e, "umbra.no_return", emit_no_return);
	c->enter = (void *)routine(&e, "umbra.enter", emit_enter);
	c->plain = routine(&e, "umbra.plain", emit_plain);
	c->flags = routine(&e, "umbra.flags", emit_flags);
	c->anchored = routine(&e, "umbra.anchored", emit_anchored);
	c->stop = routine(&e, "umbra.stop", emit_stop);
	c->renew = routine(&e, "umbra.renew", emit_renew);
	c->syscall = routine(&e, "umbra.syscall", um_emit_syscall_routine);
	c->sysret = routine(&e, "umbra.sysret", um_emit_sysret_routine);
	for (unsigned acc = UM_READ; acc <= UM_WRITE; acc++) {
		for (unsigned w = 0; w < UM_JIT_WINDOWS; w++)
			c->miss[acc][w] = emit_miss(&e, acc, w);
	}
}

/* Where code is to be executed: behind the tables, to which it has displacements of 32 bits. */
static void *code_place(void)
{
	return arena.tables + arena.tables_size;
}

/*
 * The same without a file: perf looks at its map for memory that has none, of which shared
 * anonymous memory is (an old size of 0 maps it again).
 */
static int map_anonymous(void *rw)
{
	void *rx;

	if (mmap(rw, arena.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		return -errno;
	rx = mremap(rw, 0, arena.size, MREMAP_MAYMOVE | MREMAP_FIXED, code_place());
	if (rx == MAP_FAILED || mprotect(rx, arena.size, PROT_READ | PROT_EXEC) < 0)
		return -errno;
	return 0;
}

static int map_file(void *rw)
{
	int fd = um_memfd_create("umbra-jit", arena.size), err = 0;

	if (fd < 0)
		return fd;
	if (mmap(rw, arena.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
		    MAP_FAILED ||
	    mmap(code_place(), arena.size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) ==
		    MAP_FAILED)
		err = -errno;
	close(fd);
	return err;
}

static int map_code(enum um_perf perf)
{
	void *rw = um_huge_map(arena.size); /* (a place that is aligned) */
	int err;

	if (!rw)
		return -ENOMEM;
	err = perf == UM_PERF_MAP ? map_anonymous(rw) : map_file(rw);
	if (err) {
		um_huge_unmap(rw, arena.size);
		return err;
	}
	arena.rw = rw;
	arena.huge = 0;
	__atomic_store_n(&arena.rx, code_place(), __ATOMIC_RELEASE);
	return 0;
}

_Static_assert(UM_CODE_CACHE_MAX / UM_JIT_CHUNK * UM_JIT_CHUNK_META / UM_JIT_ALIGN <= UM_JIT_MAX_ID,
	       "32 bits for UM_JIT_EXIT()");
_Static_assert(UM_CODE_CACHE_MAX + UM_HUGE_PAGE +
			       UM_CODE_CACHE_MAX / UM_JIT_CHUNK * (UM_JIT_CHUNK_META + 4096) <
		       1ul << 31,
	       "displacements of 32 bits");
_Static_assert(UM_JIT_CHUNK_META % UM_JIT_ALIGN == 0, "chunks of descriptions begin aligned");

/* A page for each 8 KiB of code: seldom what there is too little of. */
static int map_tables(u64 code)
{
	unsigned npages = (unsigned)(code >> 13);
	size_t meta = (size_t)arena.nchunks * UM_JIT_CHUNK_META,
	       pages = npages * sizeof(struct um_jit_page),
	       chunks = arena.nchunks * sizeof(struct um_jit_chunk);

	arena.tables_size = ALIGN_UP(meta + pages + chunks, UM_HUGE_PAGE);
	arena.tables = um_huge_map(arena.tables_size + arena.size);
	if (!arena.tables)
		return -ENOMEM;
	arena.meta = arena.tables;
	arena.chunk = (struct um_jit_chunk *)(arena.tables + meta + pages);
	arena.free = arena.chunk;
	arena.nfree = arena.nchunks;
	for (unsigned n = 0; n + 1 < arena.nchunks; n++)
		arena.chunk[n].next = &arena.chunk[n + 1];
	arena.free_page = NULL;
	arena.fresh_page = (struct um_jit_page *)(arena.tables + meta);
	arena.nfree_pages = npages;
	return 0;
}

u32 um_arena_generation(void)
{
	return arena.generation;
}

/*
 * In a child of fork(): the memory is the parent's, who goes on writing to it.  VMs of the parent
 * don't run here; new ones get another area.
 */
static void forget_arena(void)
{
	pthread_mutex_init(&arena.lock, NULL);
	if (!arena.rx)
		return;
	munmap(arena.rw, arena.size);
	um_huge_unmap(arena.tables, arena.tables_size + arena.size);
	arena.rx = arena.rw = NULL;
	um_perf_leave();
	arena.generation++;
}

static bool hook(void)
{
	if (!arena.hooked && um_uaccess_init() == 0 && um_uaccess_add_fixup(arena_fixup) == 0 &&
	    pthread_atfork(NULL, NULL, forget_arena) == 0)
		arena.hooked = true;
	return arena.hooked;
}

static int make_arena(const struct um_jit_options *o)
{
	int err;

	arena.nchunks = (unsigned)(o->code_cache / UM_JIT_CHUNK);
	arena.size = HEAD + arena.nchunks * UM_JIT_CHUNK;
	err = hook() ? map_tables(o->code_cache) : -ENOMEM;
	if (err)
		return err;
	err = map_code((enum um_perf)o->perf);
	if (err)
		um_huge_unmap(arena.tables, arena.tables_size + arena.size);
	else
		make_routines();
	return err;
}

int um_arena_init(const struct um_jit_options *o)
{
	int err;

	pthread_mutex_lock(&arena.lock);
	if (!arena.rx && !arena.failed) {
		arena.failed = um_perf_open((enum um_perf)o->perf);
		if (!arena.failed)
			arena.failed = um_dump_open(o);
		if (!arena.failed)
			arena.failed = make_arena(o);
	}
	err = arena.failed;
	pthread_mutex_unlock(&arena.lock);
	return err;
}

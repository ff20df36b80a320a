// SPDX-License-Identifier: MIT
/*
 * The process's area of translated code, and the routines by which C enters it.
 *
 * One memfd, mapped writable here and executable there: no page is ever both.  It is made when the first vCPU is, and never grows, so
 * that a VMM may forbid mmap, mprotect and memfd_create afterwards; memory is used as it is touched.
 *
 * A fault in translated code continues at the way to the interpreter of the instruction that it is part of, which executes it anew:
 * until an instruction has succeeded, it has changed no register of the guest.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/memfd.h"
#include "engine/jit/regs.h"
#include "engine/jit/vec.h"

#define NR_CHUNKS (UM_ARENA_DEFAULT / UM_JIT_CHUNK)

static struct {
	pthread_mutex_t lock;
	int failed; /* -errno of the only try */
	u8 *rw;
	u8 *rx;		      /* set last: read by the signal handler */
	bool used[NR_CHUNKS]; /* [0]: the routines */
	struct um_arena_code code;
	bool hooked;	/* fixups and what a child of fork does are registered */
	u32 generation; /* counts the areas that were left behind by fork() */
} arena = { .lock = PTHREAD_MUTEX_INITIALIZER };

bool um_arena_has(u64 pc)
{
	u64 rx = (u64)__atomic_load_n(&arena.rx, __ATOMIC_ACQUIRE);

	return rx && pc - rx < UM_ARENA_DEFAULT;
}

u8 *um_arena_rx_of(const u8 *rw)
{
	return arena.rx + (rw - arena.rw);
}

u8 *um_arena_rw_of(const u8 *rx)
{
	return arena.rw + (rx - arena.rx);
}

u8 *um_arena_rw(unsigned chunk)
{
	return arena.rw + chunk * UM_JIT_CHUNK;
}

const struct um_arena_code *um_arena_code(void)
{
	return &arena.code;
}

int um_arena_get(void)
{
	int found = -1;

	pthread_mutex_lock(&arena.lock);
	for (unsigned n = 1; n < NR_CHUNKS && found < 0; n++) {
		if (!arena.used[n]) {
			arena.used[n] = true;
			found = (int)n;
		}
	}
	pthread_mutex_unlock(&arena.lock);
	return found;
}

void um_arena_put(unsigned chunk)
{
	pthread_mutex_lock(&arena.lock);
	arena.used[chunk] = false;
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

/* In a signal handler, in the thread of the vCPU: rbp is its context. */
static uintptr_t arena_fixup(uintptr_t pc, const siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	const struct um_exec *x;
	const struct um_jit *j;

	if (!um_arena_has(pc))
		return 0;
	x = (const void *)(uc->uc_mcontext.gregs[REG_RBP] - UM_JIT_BIAS);
	j = x->translator;
	for (u32 n = j->nblocks; n-- > 0;) {
		const struct um_jit_block *b = j->block[n];
		unsigned k;

		if (pc - (uintptr_t)b->code >= b->code_len)
			continue;
		k = insn_at(b, (u32)(pc - (uintptr_t)b->code));
		if (b->map[k].slow)
			return (uintptr_t)b->code + b->map[k].slow;
		/* An instruction that can't fault has: a broken invariant, which ends the VM. */
		uc->uc_mcontext.gregs[REG_RSI] = (greg_t)UM_JIT_EXIT(b->id, k, UM_JIT_EXIT_STOP);
		return (uintptr_t)arena.code.leave;
	}
	return 0;
}

/* ---- the routines ---- */

static const u8 saved[] = { H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15 };

static void emit_push(struct um_emit *e, unsigned op, unsigned reg)
{
	um_emit_rex(e, 0, 0, 0, reg);
	um_emit8(e, op | (reg & 7));
}

static void emit_set_vec(struct um_emit *e, enum um_vec_class c)
{
	um_emit_rm(e, 0, 0xc7, 0, H_CTX, UM_JIT_OFF(jit.vec));
	um_emit32(e, (u32)c);
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

/* If the word at [ctx + @off] is vector class c, for any c, do the code that @emit writes for it. */
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

/* u64 enter(x: rdi, code: rsi) */
static void emit_enter(struct um_emit *e, bool flags)
{
	for (unsigned n = 0; n < ARRAY_SIZE(saved); n++)
		emit_push(e, 0x50, saved[n]);
	um_emit_alu_imm(e, 1, 5, H_RSP, 8); /* the stack is aligned for calls */
	um_emit_lea(e, 1, H_CTX, H_RDI, H_RSP, 0, UM_JIT_BIAS);
	for (unsigned g = 0; g < UM_NR_GPRS; g++) {
		if (um_jit_host(g) != UM_JIT_IN_MEMORY)
			um_emit_load(e, 1, um_jit_host(g), H_CTX, um_jit_gpr(g));
	}
	emit_by_class(e, UM_JIT_OFF(jit.want), emit_vec_load);
	if (flags)
		um_emit_flags_load(e, H_CTX, UM_JIT_OFF(jit.flags));
	um_emit8(e, 0xff); /* jmp rsi */
	um_emit8(e, 0xe6);
}

static void emit_leave(struct um_emit *e)
{
	for (unsigned g = 0; g < UM_NR_GPRS; g++) {
		if (um_jit_host(g) != UM_JIT_IN_MEMORY)
			um_emit_store(e, 1, um_jit_host(g), H_CTX, um_jit_gpr(g));
	}
	emit_by_class(e, UM_JIT_OFF(jit.vec), emit_vec_store);
	um_emit_mov(e, 1, H_RAX, H_RSI);
	um_emit_alu_imm(e, 1, 0, H_RSP, 8);
	for (unsigned n = ARRAY_SIZE(saved); n-- > 0;)
		emit_push(e, 0x58, saved[n]);
	um_emit8(e, 0xc3);
}

/* rsi := the TLB's entry for rdi; ZF if it holds for @acc up to the page of r11, which becomes the tag. */
static void emit_tlb(struct um_emit *e, unsigned acc)
{
	um_emit_mov(e, 0, H_T0, H_T1);
	um_emit_shift(e, 0, 5, H_T0, UM_JIT_ENTRY_SHIFT);
	um_emit_alu_imm(e, 0, 4, H_T0, UM_JIT_ENTRY_MASK);
	um_emit_rm(e, 1, 0x03, H_T0, H_CTX, UM_JIT_OFF(jit.tlb));
	um_emit_alu_imm(e, 1, 4, H_T2, -(s32)UM_PAGE_SIZE);
	um_emit_rm(e, 1, 0x0b, H_T2, H_CTX, UM_JIT_OFF(jit.ctx));
	um_emit_rm(e, 1, 0x3b, H_T2, H_T0, (s32)(offsetof(struct um_tlb_entry, tag) + 8 * acc));
}

static const u8 *emit_lookup(struct um_emit *e, unsigned acc)
{
	const u8 *start = um_arena_rx_of(e->p = (u8 *)ALIGN_UP((u64)e->p, 64));
	u8 *no;

	emit_tlb(e, acc);
	no = um_emit_jcc(e, CC_NZ);
	um_emit_rm(e, 1, 0x03, H_T1, H_T0, offsetof(struct um_tlb_entry, addend));
	um_emit_rr(e, 0, 0x3b, H_T0, H_T0); /* CMP: ZF */
	um_emit_patch(no, e->p);
	um_emit8(e, 0xc3);
	return start;
}

static const u8 *emit_miss(struct um_emit *e, unsigned acc, unsigned window)
{
	const u8 *start = um_arena_rx_of(e->p = (u8 *)ALIGN_UP((u64)e->p, 64));
	u8 *no, *enough;

	um_emit_rm(e, 0, 0x83, 5, H_CTX, UM_JIT_OFF(jit.patience)); /* SUB dword, 1 */
	um_emit8(e, 1);
	enough = um_emit_jcc(e, CC_S);
	emit_tlb(e, acc);
	no = um_emit_jcc(e, CC_NZ);
	um_emit_rm(e, 1, 0x2b, H_T2, H_CTX, UM_JIT_OFF(jit.ctx));
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_page(acc, window));
	um_emit_load(e, 1, H_T0, H_T0, offsetof(struct um_tlb_entry, addend));
	um_emit_rr(e, 1, 0x03, H_T2, H_T0);
	um_emit_store(e, 1, H_T2, H_CTX, um_jit_window_host(acc, window));
	um_emit_rr(e, 1, 0x03, H_T1, H_T0);
	um_emit_rr(e, 0, 0x3b, H_T0, H_T0);
	um_emit_patch(no, e->p);
	um_emit_patch(enough, e->p); /* (SF: not ZF) */
	um_emit8(e, 0xc3);
	return start;
}

static void make_routines(void)
{
	struct um_emit e = { .p = arena.rw, .end = arena.rw + UM_JIT_CHUNK };

	arena.code.enter = (void *)um_arena_rx_of(e.p);
	emit_enter(&e, false);
	e.p = (u8 *)ALIGN_UP((u64)e.p, 64);
	arena.code.enter_flags = (void *)um_arena_rx_of(e.p);
	emit_enter(&e, true);
	e.p = (u8 *)ALIGN_UP((u64)e.p, 64);
	arena.code.leave = um_arena_rx_of(e.p);
	emit_leave(&e);
	e.p = (u8 *)ALIGN_UP((u64)e.p, 64);
	arena.code.stop = um_arena_rx_of(e.p);
	um_emit_mov_imm(&e, H_RSI, UM_JIT_EXIT(0, 0, UM_JIT_EXIT_STOP));
	um_emit8(&e, 0xe9);
	um_emit32(&e, (u32)(arena.code.leave - (um_arena_rx_of(e.p) + 4)));
	for (unsigned acc = UM_READ; acc <= UM_WRITE; acc++) {
		arena.code.lookup[acc] = emit_lookup(&e, acc);
		for (unsigned w = 0; w < UM_JIT_WINDOWS; w++)
			arena.code.miss[acc][w] = emit_miss(&e, acc, w);
	}
}

static int map_arena(void)
{
	int fd = um_memfd_create("umbra-jit", UM_ARENA_DEFAULT), err = 0;
	void *rw, *rx;

	if (fd < 0)
		return fd;
	rw = mmap(NULL, UM_ARENA_DEFAULT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	rx = mmap(NULL, UM_ARENA_DEFAULT, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (rw == MAP_FAILED || rx == MAP_FAILED) {
		err = -errno;
		if (rw != MAP_FAILED)
			munmap(rw, UM_ARENA_DEFAULT);
		if (rx != MAP_FAILED)
			munmap(rx, UM_ARENA_DEFAULT);
	}
	close(fd);
	if (err)
		return err;
	arena.rw = rw;
	__atomic_store_n(&arena.rx, rx, __ATOMIC_RELEASE);
	return 0;
}

u32 um_arena_generation(void)
{
	return arena.generation;
}

/*
 * In a child of fork(): the memory is the parent's, who goes on writing to it.  VMs of the parent don't run here; new ones
 * get another area.
 */
static void forget_arena(void)
{
	pthread_mutex_init(&arena.lock, NULL);
	if (!arena.rx)
		return;
	munmap(arena.rx, UM_ARENA_DEFAULT);
	munmap(arena.rw, UM_ARENA_DEFAULT);
	arena.rx = arena.rw = NULL;
	memset(arena.used, 0, sizeof(arena.used));
	arena.generation++;
}

static bool hook(void)
{
	if (!arena.hooked && um_uaccess_init() == 0 && um_uaccess_add_fixup(arena_fixup) == 0 &&
	    pthread_atfork(NULL, NULL, forget_arena) == 0)
		arena.hooked = true;
	return arena.hooked;
}

int um_arena_init(void)
{
	int err;

	pthread_mutex_lock(&arena.lock);
	if (!arena.rx && !arena.failed) {
		arena.failed = hook() ? map_arena() : -ENOMEM;
		if (!arena.failed) {
			arena.used[0] = true;
			make_routines();
		}
	}
	err = arena.failed;
	pthread_mutex_unlock(&arena.lock);
	return err;
}

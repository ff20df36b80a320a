// SPDX-License-Identifier: MIT
/*
 * Where native stubs live: one arena for the process, since the signal handler that meets a fault
 * in a stub knows nothing but the program counter, and since VMs of a kind use the same stubs.
 *
 * The code is written through one mapping of a memfd and executed through another (no page is ever
 * both writable and executable).  Descriptors and code are never moved or freed: both areas are
 * bounded, and reserved rather than allocated, so they cost what is used.  When one is full, new
 * instructions stop the VM that needs them; the limit is some hundred thousand different
 * (instruction, registers) pairs.
 *
 * A stub that faults continues at the address that it has in r11: its own exit, with the fault in
 * rax.
 */
#include "base/memfd.h"
#include "engine/interp/native.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define ARENA_CODE    (32ul << 20)
#define ARENA_STUBS   (1u << 18)
#define ARENA_BUCKETS (1u << 16)
#define CODE_ALIGN    16u

static struct {
	pthread_mutex_t lock;
	bool failed;
	u8 *rw;	     /* the code, writable */
	u8 *rx;	     /* the same, executable: read by the signal handler */
	size_t used; /* bytes of code */
	struct um_native *stubs;
	unsigned nstubs;
	struct um_native **buckets;
	bool hooked; /* fixups and what a child of fork does are registered */
} arena = { .lock = PTHREAD_MUTEX_INITIALIZER };

bool um_native_is_stub(u64 pc)
{
	u64 rx = (u64)__atomic_load_n(&arena.rx, __ATOMIC_ACQUIRE);

	return rx && pc - rx < ARENA_CODE;
}

/* In a signal handler: @pc faulted. */
static uintptr_t native_fixup(uintptr_t pc, const siginfo_t *si, void *ucv)
{
	const u8 *rx = __atomic_load_n(&arena.rx, __ATOMIC_ACQUIRE);
	ucontext_t *uc = ucv;
	u64 fault;

	if (!rx || pc < (uintptr_t)rx || pc >= (uintptr_t)rx + ARENA_CODE)
		return 0;
	if (si->si_signo == SIGFPE)
		fault = uc->uc_mcontext.gregs[REG_TRAPNO] == UM_VEC_MF ? UM_NATIVE_MF
								       : UM_NATIVE_XM;
	else if (si->si_signo == SIGSEGV && si->si_code == SI_KERNEL)
		fault = UM_NATIVE_GP; /* Linux gives no address for #GP */
	else
		fault = UM_NATIVE_HOST;
	uc->uc_mcontext.gregs[REG_RAX] = (greg_t)(UM_NATIVE_FAULT | fault);
	return (uintptr_t)uc->uc_mcontext.gregs[REG_R11];
}

static void *map_anonymous(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/*
 * In a child of fork(): the code is the parent's, whose VMs don't run here.  New ones get another
 * arena.
 */
static void forget_arena(void)
{
	pthread_mutex_init(&arena.lock, NULL);
	if (!arena.rx)
		return;
	munmap(arena.rx, ARENA_CODE);
	munmap(arena.rw, ARENA_CODE);
	munmap(arena.stubs, ARENA_STUBS * sizeof(*arena.stubs));
	munmap(arena.buckets, ARENA_BUCKETS * sizeof(*arena.buckets));
	arena.rx = arena.rw = NULL;
	arena.used = 0;
	arena.nstubs = 0;
}

static bool hook(void)
{
	if (!arena.hooked && um_uaccess_init() == 0 && um_uaccess_add_fixup(native_fixup) == 0 &&
	    pthread_atfork(NULL, NULL, forget_arena) == 0)
		arena.hooked = true;
	return arena.hooked;
}

/* Under the lock, once. */
static bool arena_init(void)
{
	int fd = um_memfd_create("umbra-code", ARENA_CODE);
	void *rw = MAP_FAILED, *rx = MAP_FAILED;

	if (fd >= 0) {
		rw = mmap(NULL, ARENA_CODE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		rx = mmap(NULL, ARENA_CODE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
		close(fd);
	}
	arena.stubs = map_anonymous(ARENA_STUBS * sizeof(*arena.stubs));
	arena.buckets = map_anonymous(ARENA_BUCKETS * sizeof(*arena.buckets));
	if (rw == MAP_FAILED || rx == MAP_FAILED || !arena.stubs || !arena.buckets || !hook()) {
		/* Whatever was mapped stays: this happens once, and there is no second try. */
		arena.failed = true;
		return false;
	}
	arena.rw = rw;
	__atomic_store_n(&arena.rx, rx, __ATOMIC_RELEASE);
	return true;
}

static u32 hash(const void *p, size_t n, u32 h)
{
	for (const u8 *b = p; n; n--)
		h = (h ^ *b++) * 16777619u; /* FNV-1a */
	return h;
}

void um_native_prepare(void)
{
	pthread_mutex_lock(&arena.lock);
	if (!arena.rx && !arena.failed)
		arena_init();
	pthread_mutex_unlock(&arena.lock);
}

struct um_native *um_native_get(const struct um_native_key *k, const u8 *code, unsigned len)
{
	u32 b = hash(code, len, hash(k, sizeof(*k), 2166136261u)) % ARENA_BUCKETS;
	struct um_native *n = NULL;

	pthread_mutex_lock(&arena.lock);
	if (arena.failed || (!arena.rx && !arena_init()))
		goto out;
	for (n = arena.buckets[b]; n; n = n->next) {
		if (n->code_len == len && !memcmp(&n->k, k, sizeof(*k)) &&
		    (!len || !memcmp((const void *)n->code, code, len)))
			goto out;
	}
	if (arena.nstubs == ARENA_STUBS || arena.used + len > ARENA_CODE)
		goto out;
	n = &arena.stubs[arena.nstubs++];
	n->k = *k;
	n->code_len = len;
	if (len) {
		memcpy(arena.rw + arena.used, code, len);
		n->code = (um_stub_fn)(arena.rx + arena.used);
		arena.used = ALIGN_UP(arena.used + len, (size_t)CODE_ALIGN);
	}
	n->next = arena.buckets[b];
	arena.buckets[b] = n;
out:
	pthread_mutex_unlock(&arena.lock);
	return n;
}

// SPDX-License-Identifier: MIT
/*
 * Rewriting the program's system call sites, so that they need no signal.
 *
 * A site is
 *	mov $NR, %eax	5 bytes
 *	syscall		2 bytes
 * and only the MOV is replaced, by a jump to a trampoline of the site, which goes on behind the SYSCALL.  Who jumps to
 * the SYSCALL itself still finds it there.  That the bytes are these two instructions is known because the SYSCALL has
 * just been executed with the number NR in rax; a REX prefix, with which the MOV would load another register, is looked
 * for.  Other forms of sites are left alone: they go on raising signals.
 *
 * Other threads may be running the bytes (SDM vol. 3 8.1.3, cross-modifying code): first the opcode becomes INT3, then
 * the displacement is written, then the opcode of the jump, and after each of them membarrier(2) serializes all
 * processors that run this process.  A thread that meets the INT3 loads the number and goes on at the SYSCALL.
 *
 * The stubs and the trampolines lie together where a jump reaches them from the program.  They are written through a
 * second mapping: no page is writable and executable at the same time, but for the page of a site while it is changed.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "load/load.h"
#include "shim.h"

#define SIZE	   0x10000ull
#define TRAMPOLINE 32u
#define FIRST	   0x1000u /* the stubs are below */
#define REACH	   0x70000000ull
#define STEP	   0x100000ull
#define MOV_SIZE   5
#define SITE_SIZE  7

static uint8_t *writable, *near;
static unsigned next_trampoline = FIRST;
static atomic_flag lock = ATOMIC_FLAG_INIT;
static bool can_patch;
/* Sites that are, or were, being rewritten; read by handlers of other threads. */
static struct {
	atomic_ullong site;
	int nr;
} sites[(SIZE - FIRST) / TRAMPOLINE];
static atomic_uint nr_sites;

uint64_t um_load_mask_stub;

/* ---- the area ---- */

static uint8_t *map_near(int fd, uint64_t start, uint64_t end)
{
	for (uint64_t d = STEP; d < REACH - SIZE - (end - start); d += STEP) {
		uint64_t at = ((end + STEP - 1) & ~(STEP - 1)) + d - STEP;
		void *p = mmap((void *)at, SIZE, PROT_READ | PROT_EXEC,
			       MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);

		if (p == (void *)at)
			return p;
		if (p != MAP_FAILED)
			munmap(p, SIZE);
		if (start < d + SIZE + STEP)
			continue;
		at = (start & ~(STEP - 1)) - d;
		p = mmap((void *)at, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE,
			 fd, 0);
		if (p == (void *)at)
			return p;
		if (p != MAP_FAILED)
			munmap(p, SIZE);
	}
	errno = ENOMEM;
	return NULL;
}

static void register_membarrier(void)
{
	can_patch = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0,
			    0) == 0;
}

int um_load_near_init(uint64_t start, uint64_t end)
{
	int fd = memfd_create("umbra-stubs", MFD_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, SIZE) < 0)
		err = -errno;
	writable = err ? MAP_FAILED : mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!err && writable == MAP_FAILED)
		err = -errno;
	near = err ? NULL : map_near(fd, start, end);
	if (!err && !near)
		err = -errno;
	um_next()->close(fd);
	if (err)
		return err;
	memcpy(writable, um_load_stubs, (size_t)(um_load_stubs_end - um_load_stubs));
	um_load_mask_stub = um_load_near(um_load_stub_mask);
	register_membarrier();
	return 0;
}

/* The area is shared with the parent, and both would write their trampolines to the same places: have a copy. */
void um_load_near_child(void)
{
	int fd = memfd_create("umbra-stubs", MFD_CLOEXEC);
	uint8_t *copy = MAP_FAILED;

	atomic_flag_clear(&lock);
	if (fd >= 0 && ftruncate(fd, SIZE) == 0)
		copy = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	can_patch = false;
	if (copy != MAP_FAILED) {
		memcpy(copy, writable, SIZE);
		if (mmap(near, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) ==
		    near) {
			munmap(writable, SIZE);
			writable = copy;
			register_membarrier();
		} else {
			munmap(copy, SIZE);
		}
	}
	if (fd >= 0)
		um_next()->close(fd);
}

uint64_t um_load_near(const uint8_t *stub)
{
	return (uint64_t)near + (uint64_t)(stub - um_load_stubs);
}

void um_load_near_range(uint64_t *start, uint64_t *size)
{
	*start = (uint64_t)near;
	*size = SIZE;
}

/* ---- a site ---- */

static unsigned put(unsigned at, const void *bytes, size_t n)
{
	memcpy(writable + at, bytes, n);
	return at + (unsigned)n;
}

/* E8 or E9, and where to: from @at in the area. */
static unsigned put_branch(unsigned at, uint8_t opcode, uint64_t target)
{
	int32_t rel = (int32_t)(target - ((uint64_t)near + at + 5));

	at = put(at, &opcode, 1);
	return put(at, &rel, 4);
}

static void make_trampoline(unsigned at, uint64_t back, int nr, bool pass)
{
	static const uint8_t mov_eax = 0xb8, syscall_insn[] = { 0x0f, 0x05 };
	/* lea -128(%rsp), %rsp; lea 128(%rsp), %rsp: below the red zone, with all flags kept */
	static const uint8_t down[] = { 0x48, 0x8d, 0x64, 0x24, 0x80 };
	static const uint8_t up[] = { 0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0 };

	if (pass) {
		at = put(at, &mov_eax, 1);
		at = put(at, &nr, 4);
		at = put(at, syscall_insn, sizeof(syscall_insn));
	} else {
		at = put(at, down, sizeof(down));
		at = put_branch(at, 0xe8, um_load_near(um_load_stub_ioctl));
		at = put(at, up, sizeof(up));
	}
	put_branch(at, 0xe9, back);
}

static void serialize(void)
{
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

static void rewrite(uint64_t site, uint64_t target)
{
	uint64_t page = site & ~0xfffull, size = ((site + SITE_SIZE + 0xfff) & ~0xfffull) - page;
	volatile uint8_t *p = (uint8_t *)site;
	int32_t rel = (int32_t)(target - (site + 5));

	if (mprotect((void *)page, size, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
		return; /* the host forbids it: signals, then */
	p[0] = 0xcc;
	serialize();
	for (int i = 0; i < 4; i++)
		p[1 + i] = (uint8_t)((uint32_t)rel >> 8 * i);
	serialize();
	p[0] = 0xe9;
	serialize();
	mprotect((void *)page, size, PROT_READ | PROT_EXEC);
}

static bool is_site(uint64_t site, int nr)
{
	const uint8_t *p = (const uint8_t *)site;
	int imm;

	if (!um_load_is_text(site - 1, SITE_SIZE + 1) || p[0] != 0xb8 || p[5] != 0x0f ||
	    p[6] != 0x05)
		return false;
	memcpy(&imm, p + 1, sizeof(imm));
	return imm == nr && (p[-1] & 0xf0) != 0x40;
}

void um_load_patch(uint64_t ip, long nr, bool pass)
{
	uint64_t site = ip - MOV_SIZE;
	int64_t distance = (int64_t)(site - (uint64_t)near);
	unsigned n;

	if (!can_patch || distance > (int64_t)REACH || distance < -(int64_t)REACH ||
	    !is_site(site, (int)nr) || um_load_foreign())
		return;
	while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
		;
	n = atomic_load(&nr_sites);
	if (next_trampoline + TRAMPOLINE <= SIZE && is_site(site, (int)nr)) {
		make_trampoline(next_trampoline, site + SITE_SIZE, (int)nr, pass);
		sites[n].nr = (int)nr;
		atomic_store(&sites[n].site, site);
		atomic_store(&nr_sites, n + 1);
		rewrite(site, (uint64_t)near + next_trampoline);
		next_trampoline += TRAMPOLINE;
	}
	atomic_flag_clear_explicit(&lock, memory_order_release);
}

bool um_load_patch_trap(ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;

	for (unsigned i = 0; i < atomic_load(&nr_sites); i++) {
		if (atomic_load(&sites[i].site) + 1 == (uint64_t)g[REG_RIP]) {
			g[REG_RAX] = sites[i].nr;
			g[REG_RIP] += MOV_SIZE - 1;
			return true;
		}
	}
	return false;
}

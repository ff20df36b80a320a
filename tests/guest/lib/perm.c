// SPDX-License-Identifier: MIT
/*
 * What page-table entries permit.  expect() states the rules of SDM vol. 3, 4.6 and 4.7 in the
 * order in which a walk applies them; everything else here is loops.
 */
#include "perm.h"
#include "cpu.h"
#include "guest.h"
#include "trap.h"

/*
 * The page under test: no table on the way to it but the root is one that the program itself is
 * mapped by.  Its low 30 bits are those of its physical address, for any page size.
 */
static ulong test_va;

static void choose_page(enum paging_mode mode)
{
	test_va = 0x40000000;
#ifdef __x86_64__
	test_va = mode == PAGING_5LEVEL ? 0x001a5a5500000000 : 0x00005a5500000000;
#endif
	test_va |= SCRATCH_PHYS;
}

#define RET_INSN 0xc3

enum access { READ, WRITE, FETCH };

struct control {
	bool wp, nxe, smep, smap, ac;
};

struct outcome {
	int vector; /* TRAP_NONE or VEC_PF */
	unsigned error;
};

PROBE(perm_kernel_read, "", "mov (" AX "), %al");
USER_PROBE(perm_user_read, "", "mov (" AX "), %al");
PROBE(perm_kernel_write, "", "movb $0xc3, (" AX ")");
USER_PROBE(perm_user_write, "", "movb $0xc3, (" AX ")");

static struct trap attempt(enum access access, bool user)
{
	static const guest_fn fn[2][2] = { { perm_kernel_read, perm_user_read },
					   { perm_kernel_write, perm_user_write } };
	guest_fn f = access == FETCH ? (guest_fn)test_va : fn[access == WRITE][user];

	return user ? user_call(f, test_va) : trap_call(f, test_va);
}

static struct outcome expect(const struct space *s, const u64 *entries, unsigned leaf,
			     const struct control *c, enum access access, bool user)
{
	bool has_nx = s->mode != PAGING_2LEVEL;
	bool writable = true, user_page = true, no_exec = false, refused;
	unsigned error = (access == WRITE ? PF_W : 0) | (user ? PF_U : 0);

	if (access == FETCH && (c->smep || (has_nx && c->nxe)))
		error |= PF_I;
	for (unsigned level = s->levels; level >= leaf; level--) {
		u64 e = entries[level];

		if (s->mode == PAGING_PAE && level == 3)
			continue; /* has no such bits */
		if (!(e & PTE_P))
			return (struct outcome){ VEC_PF, error };
		if (e & PTE_NX && !c->nxe)
			return (struct outcome){ VEC_PF, error | PF_P | PF_RSVD };
		writable &= !!(e & PTE_W);
		user_page &= !!(e & PTE_U);
		no_exec |= !!(e & PTE_NX);
	}
	if (user)
		refused = !user_page || (access == WRITE && !writable);
	else
		refused = (access == WRITE && !writable && c->wp) ||
			  (access != FETCH && user_page && c->smap && !c->ac) ||
			  (access == FETCH && user_page && c->smep);
	refused |= access == FETCH && no_exec;
	return refused ? (struct outcome){ VEC_PF, error | PF_P }
		       : (struct outcome){ TRAP_NONE, 0 };
}

static void apply(const struct control *c)
{
	ulong cr4 = read_cr4() & ~(CR4_SMEP | CR4_SMAP);

	write_cr4(cr4 | (c->smep ? CR4_SMEP : 0) | (c->smap ? CR4_SMAP : 0));
	write_cr0((read_cr0() & ~CR0_WP) | (c->wp ? CR0_WP : 0));
	if (cpuid_if(0x80000001, 0).d & BIT(20))
		wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~(u64)EFER_NXE) | (c->nxe ? EFER_NXE : 0));
}

/* Wrong outcomes; those of reserved bits apart, so that the report says which of the two it is. */
static unsigned mismatches, reserved_mismatches, attempts;

static void try_all(struct space *s, const u64 *entries, unsigned leaf, const struct control *c)
{
	for (unsigned level = leaf; level <= s->levels; level++)
		if (!(s->mode == PAGING_PAE && level == 3))
			space_set(s, test_va, level, entries[level]);
	for (unsigned i = 0; i < 6; i++) {
		enum access access = i / 2;
		bool user = i & 1;
		struct outcome want = expect(s, entries, leaf, c, access, user);
		struct trap got;

		invlpg(test_va);
		write_flags((read_flags() & ~FLAG_AC) | (c->ac ? FLAG_AC : 0));
		got = attempt(access, user);
		write_flags(read_flags() & ~FLAG_AC);
		attempts++;
		if (got.vector == want.vector &&
		    (got.vector == TRAP_NONE || (got.error == want.error && got.cr2 == test_va)))
			continue;
		if ((want.error & PF_RSVD ? reserved_mismatches++ : mismatches++) >= 8)
			continue;
		say("  %s %s: exception %d, error 0x%lx, cr2 0x%lx; wanted %d, error 0x%x\n",
		    user ? "user" : "supervisor",
		    access == READ    ? "read"
		    : access == WRITE ? "write"
				      : "fetch",
		    got.vector, got.error, got.cr2, want.vector, want.error);
		say("    wp %u nxe %u smep %u smap %u ac %u, entries from level %u:", c->wp, c->nxe,
		    c->smep, c->smap, c->ac, leaf);
		for (unsigned level = leaf; level <= s->levels; level++)
			say(" 0x%llx", entries[level]);
		say("\n");
	}
}

/* The n-th combination of the four bits; not present has one only: nothing else counts then. */
static u64 combination(const struct space *s, unsigned n)
{
	if (n == 8)
		return PTE_W | PTE_U;
	return PTE_P | (n & 1 ? PTE_W : 0) | (n & 2 ? PTE_U : 0) |
	       (n & 4 && s->mode != PAGING_2LEVEL ? PTE_NX : 0);
}

static unsigned largest_leaf(const struct space *s)
{
	if (s->mode == PAGING_2LEVEL)
		write_cr4(read_cr4() | CR4_PSE);
	return s->levels > 3 && cpuid_if(0x80000001, 0).d & BIT(26) ? 3 : 2;
}

static u64 leaf_address(const struct space *s, unsigned leaf)
{
	return (SCRATCH_PHYS & -space_size(s, leaf)) | (leaf > 1 ? PTE_PS : 0);
}

/* The tables down to the test page, with every permission. */
static void clear_path(struct space *s, u64 *entries)
{
	space_set(s, test_va, 1, SCRATCH_PHYS | PTE_P | PTE_W | PTE_U);
	for (unsigned level = 1; level <= s->levels; level++)
		entries[level] = space_get(s, test_va, level);
}

static void enumerate_entries(struct space *s, const u64 *path, unsigned leaf,
			      const struct control *c)
{
	for (unsigned upper = leaf + 1; upper <= s->levels; upper++) {
		if (s->mode == PAGING_PAE && upper == 3 && leaf < 2)
			continue;
		for (unsigned u = 0; u < 9; u++) {
			for (unsigned l = 0; l < 9; l++) {
				u64 entries[6];

				memcpy(entries, path, sizeof(entries));
				entries[upper] = (path[upper] & PTE_ADDR) | combination(s, u);
				entries[leaf] = leaf_address(s, leaf) | combination(s, l);
				try_all(s, entries, leaf, c);
			}
		}
	}
	if (leaf == s->levels)
		for (unsigned l = 0; l < 9; l++) {
			u64 entries[6] = { 0 };

			entries[leaf] = leaf_address(s, leaf) | combination(s, l);
			try_all(s, entries, leaf, c);
		}
	for (unsigned level = leaf; level <= s->levels; level++)
		if (!(s->mode == PAGING_PAE && level == 3))
			space_set(s, test_va, level, path[level]);
}

void perm_enumerate(enum paging_mode mode)
{
	struct space s = space_kernel(mode, false, false);
	struct cpuid seven = cpuid_if(7, 0);
	bool has_nx = mode != PAGING_2LEVEL && cpuid_if(0x80000001, 0).d & BIT(20);
	bool has_smep = seven.b & BIT(7), has_smap = seven.b & BIT(20);
	unsigned max_leaf = largest_leaf(&s);
	u64 path[6] = { 0 };

	choose_page(mode);
	clear_path(&s, path);
	*(volatile u8 *)SCRATCH_PHYS = RET_INSN;
	space_load(&s);
	for (unsigned n = 0; n < 32; n++) {
		struct control c = { n & 1, n & 2, n & 4, n & 8, n & 16 };

		if ((c.nxe && !has_nx) || (c.smep && !has_smep) || (c.smap && !has_smap) ||
		    (c.ac && !c.smap))
			continue;
		apply(&c);
		for (unsigned leaf = 1; leaf <= max_leaf; leaf++)
			enumerate_entries(&s, path, leaf, &c);
	}
	apply(&(struct control){ 0 });
	say("%u accesses: %u with nx, %u with smep, %u with smap\n", attempts, has_nx, has_smep,
	    has_smap);
	CHECK_EQ(mismatches, 0, "who may access a page, error code and CR2");
	CHECK_EQ(reserved_mismatches, 0, "NX is a reserved bit without EFER.NXE");
}

/* The reserved bits of an entry at @level that is a leaf or not, with NX in use. */
static u64 reserved_bits(const struct space *s, unsigned level, bool leaf)
{
	u64 mask = 0;

	if (s->mode == PAGING_2LEVEL) /* PSE36: bits 13..20 are address bits 32..39 */
		return level == 2 && leaf ? BIT64(21) : 0;
	for (unsigned bit = phys_bits(); bit < (s->mode == PAGING_PAE ? 63 : 52); bit++)
		mask |= BIT64(bit);
	if (level > 3)
		mask |= PTE_PS;
	if (level > 1 && leaf)
		mask |= (space_size(s, level) - 1) & ~0x1fffull;
	return mask;
}

void perm_reserved(enum paging_mode mode)
{
	struct space s = space_kernel(mode, false, false);
	unsigned max_leaf = largest_leaf(&s);
	u64 path[6] = { 0 };
	unsigned wrong = 0, tried = 0;

	choose_page(mode);
	clear_path(&s, path);
	space_load(&s);
	apply(&(struct control){ .nxe = mode != PAGING_2LEVEL });
	for (unsigned leaf = 1; leaf <= max_leaf; leaf++) {
		for (unsigned level = leaf; level <= s.levels; level++) {
			u64 mask = reserved_bits(&s, level, level == leaf);

			if (mode == PAGING_PAE && level == 3)
				continue; /* loaded with CR3, which a test of its own covers */
			for (unsigned bit = 0; bit < 64; bit++) {
				u64 entry = path[level];
				struct trap t;

				if (!(mask & BIT64(bit)))
					continue;
				if (leaf > 1 || level == leaf)
					space_set(&s, test_va, leaf, leaf_address(&s, leaf) | 7);
				if (level == leaf)
					entry = leaf_address(&s, leaf) | 7;
				space_set(&s, test_va, level, entry | BIT64(bit));
				invlpg(test_va);
				t = user_call(perm_user_write, test_va);
				tried++;
				if ((t.vector != VEC_PF ||
				     t.error != (PF_P | PF_W | PF_U | PF_RSVD) ||
				     t.ip != ADDR(perm_user_write_at) || t.cr2 != test_va) &&
				    wrong++ < 8)
					say("  bit %u at level %u, leaf %u: exception %d, error "
					    "0x%lx\n",
					    bit, level, leaf, t.vector, t.error);
				space_set(&s, test_va, level, path[level]);
				space_set(&s, test_va, leaf, path[leaf]);
			}
		}
	}
	invlpg(test_va);
	apply(&(struct control){ 0 });
	say("%u reserved bits\n", tried);
	CHECK_EQ(wrong, 0, "each reserved bit is a page fault with P and RSVD");
	CHECK_EQ(user_call(perm_user_read, test_va).vector, TRAP_NONE,
		 "and without it there is none");
}

// SPDX-License-Identifier: MIT
/* Page tables of every format. */
#include "paging.h"
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

static bool wide(const struct space *s)
{
	return s->mode != PAGING_2LEVEL;
}

static unsigned shift(const struct space *s, unsigned level)
{
	return 12 + (level - 1) * (wide(s) ? 9 : 10);
}

u64 space_size(const struct space *s, unsigned level)
{
	return BIT64(shift(s, level));
}

struct space space_new(enum paging_mode mode)
{
	static const u8 levels[] = { 2, 3, 4, 5 };
	struct space s = { .mode = mode, .levels = levels[mode], .root = (ulong)alloc_page() };

	/* The four entries of a PAE root are loaded with CR3: they must be there before. */
	if (mode == PAGING_PAE)
		for (unsigned i = 0; i < 4; i++)
			((u64 *)s.root)[i] = (ulong)alloc_page() | PTE_P;
	return s;
}

static u64 get(const struct space *s, const volatile void *e)
{
	return wide(s) ? *(const volatile u64 *)e : *(const volatile u32 *)e;
}

static void set(const struct space *s, volatile void *e, u64 v)
{
	if (wide(s))
		*(volatile u64 *)e = v;
	else
		*(volatile u32 *)e = v;
}

volatile void *space_entry(struct space *s, ulong va, unsigned level)
{
	ulong table = s->root;

	for (unsigned at = s->levels;; at--) {
		ulong index = va >> shift(s, at) & (wide(s) ? 511 : 1023);
		volatile void *e = (void *)(table + index * (wide(s) ? 8 : 4));

		if (at == level)
			return e;
		if (!get(s, e))
			set(s, e, (ulong)alloc_page() | PTE_P | PTE_W | PTE_U);
		table = get(s, e) & PTE_ADDR;
	}
}

void space_set(struct space *s, ulong va, unsigned level, u64 entry)
{
	set(s, space_entry(s, va, level), entry);
}

u64 space_get(struct space *s, ulong va, unsigned level)
{
	return get(s, space_entry(s, va, level));
}

struct space space_kernel(enum paging_mode mode, bool global, bool devices)
{
	struct space s = space_new(mode);
	u64 bits = PTE_P | PTE_W | (global ? PTE_G : 0);

	for (ulong va = 0; va < 0x1000000; va += 4096) {
		bool user = va >= (ulong)user_begin && va < (ulong)user_end;

		space_map(&s, va, va, bits | (user ? PTE_U : 0));
	}
	for (ulong va = 0xfec00000; devices && va < 0xff000000; va += 4096)
		space_map(&s, va, va, bits | PTE_PCD);
	return s;
}

void space_load(const struct space *s)
{
#ifndef __x86_64__
	if (!(read_cr0() & CR0_PG)) {
		ulong cr4 = read_cr4() & ~CR4_PAE;

		write_cr4(s->mode == PAGING_PAE ? cr4 | CR4_PAE : cr4);
		write_cr3(s->root);
		write_cr0(read_cr0() | CR0_PG);
		return;
	}
#endif
	write_cr3(s->root);
}

void paging_off(void)
{
	write_cr0(read_cr0() & ~CR0_PG);
}

unsigned phys_bits(void)
{
	unsigned bits = cpuid_if(0x80000008, 0).a & 0xff;

	return bits ? bits : 36;
}

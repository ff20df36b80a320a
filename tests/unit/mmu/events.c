// SPDX-License-Identifier: MIT
/*
 * The events that drive the MMU, one test each, all with the auditor after every step.  What a test expects in terms
 * of shadow pages (created, zapped, unsync) is part of it: an MMU that threw everything away would be right,
 * and fail here.
 */
#include "guest.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM  (16 * MB)
#define RW   (PTE_P | PTE_W | PTE_U)
#define KGVA 0xffff888000000000ull /* a linear map of all memory, as kernels have */
#define UGVA 0x7f0000000000ull

static gva_t linear(gpa_t gpa)
{
	return KGVA + gpa;
}

/* A 64-bit guest with its memory mapped linearly by 4K pages in every root. */
static void init64(struct guest *g)
{
	guest_init(g, RAM, false, true);
	guest_paging(g, GUEST_64);
	for (gpa_t a = 0; a < RAM; a += UM_PAGE_SIZE)
		guest_map(g, linear(a), a | PTE_P | PTE_W | PTE_A | PTE_D, 1);
}

/* Another root that shares the kernel's half with the current one. */
static gpa_t fork_root(struct guest *g)
{
	gpa_t root = guest_new_root(g);

	memcpy(g->ram + root + 2048, g->ram + (g->cpu->cr3 & GPTE_ADDR) + 2048, 2048);
	return root;
}

/* A guest access to a missing translation, in every paging mode: the tables are followed, A and D set. */
static void missing_translation(void **state)
{
	for (enum guest_mode mode = GUEST_32; mode <= GUEST_LA57; mode++) {
		gva_t gva = mode >= GUEST_64 ? 0xffff888012345000 : 0xc2345000;
		struct guest g;
		gpa_t pte;

		guest_init(&g, RAM, false, true);
		guest_paging(&g, mode);
		pte = guest_map(&g, gva, 8 * MB | RW, 1);
		memcpy(g.ram + 8 * MB, "8 bytes!", 8);
		assert_int_equal(guest_load(&g, gva), 0x2173657479622038);
		assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A);
		assert_true(guest_access(&g, gva, UM_READ, UM_PRIV_KERNEL).hit);
		assert_false(guest_access(&g, gva, UM_WRITE, UM_PRIV_KERNEL).hit);
		assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A | PTE_D);
		assert_int_equal(guest_store(&g, gva + 8, 42, 8), UM_ACCESS_OK);
		assert_int_equal(g.ram[8 * MB + 8], 42);
		guest_destroy(&g);
	}
}

/* A true guest fault is reflected, and costs no spte. */
static void guest_fault(void **state)
{
	struct outcome o;
	struct guest g;

	init64(&g);
	o = guest_access(&g, UGVA, UM_WRITE, UM_PRIV_USER);
	assert_int_equal(o.result, UM_ACCESS_FAULT);
	assert_int_equal(o.error, PFERR_WRITE | PFERR_USER);
	guest_map(&g, UGVA, 8 * MB | PTE_P | PTE_U, 1);
	o = guest_access(&g, UGVA, UM_WRITE, UM_PRIV_USER);
	assert_int_equal(o.error, PFERR_PRESENT | PFERR_WRITE | PFERR_USER);
	assert_int_equal(guest_spte(&g, UGVA), 0);
	assert_int_equal(COUNT(&g, pf_guest), 2);
	guest_destroy(&g);
}

/* Protected for the dirty log: the first write after each fetch of the log is seen, others cost nothing. */
static void dirty_logging(void **state)
{
	u64 log[RAM / UM_PAGE_SIZE / 64];
	gpa_t a = 8 * MB, page = a / UM_PAGE_SIZE;
	struct guest g;

	init64(&g);
	guest_store(&g, linear(a), 1, 8);
	assert_int_equal(guest_slot(&g, 0, 0, RAM, g.ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
	assert_false(guest_access(&g, linear(a), UM_WRITE, UM_PRIV_KERNEL).hit);
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), 0);
	assert_true(log[page / 64] & BIT(page % 64));
	assert_false(log[(page + 1) / 64] & BIT((page + 1) % 64));
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), 0);
	assert_int_equal(log[page / 64], 0);

	guest_load(&g, linear(a));
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), 0);
	assert_int_equal(log[page / 64], 0);
	guest_store(&g, linear(a), 2, 8);
	assert_true(guest_access(&g, linear(a), UM_WRITE, UM_PRIV_KERNEL).hit);
	guest_store(&g, linear(a), 3, 8);
	/* Umbra's own writes count, and so do the A and D bits that the walker sets. */
	assert_int_equal(um_mem_write(g.mem, 0, 9 * MB, "x", 1), 0);
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), 0);
	assert_true(log[page / 64] & BIT(page % 64));
	assert_true(log[9 * MB / UM_PAGE_SIZE / 64] & BIT(9 * MB / UM_PAGE_SIZE % 64));

	assert_int_equal(guest_slot(&g, 0, 0, RAM, g.ram, 0), 0);
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), -2 /* ENOENT */);
	guest_store(&g, linear(a), 4, 8);
	guest_destroy(&g);
}

/* A store to a last-level table: unsync, free from then on, synchronized by INVLPG. */
static void unsync_invlpg(void **state)
{
	struct guest g;
	gpa_t pte;

	init64(&g);
	g.ram[8 * MB] = 'a';
	g.ram[9 * MB] = 'b';
	pte = guest_map(&g, UGVA, 8 * MB | RW, 1);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'a');
	assert_int_equal(COUNT(&g, mmu_unsync), 0);
	assert_int_equal(guest_store(&g, linear(pte), 9 * MB | RW | PTE_A, 8), UM_ACCESS_OK);
	assert_int_equal(COUNT(&g, mmu_unsync), 1);
	assert_true(guest_page_at(&g, UGVA, 1)->unsync);
	assert_int_equal(guest_page_at(&g, UGVA, 2)->unsync_children, 1);
	assert_int_equal(guest_page_at(&g, UGVA, 4)->unsync_children, 1);
	/* Like a TLB: the old translation may still be used. */
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'a');
	assert_true(guest_access(&g, linear(pte), UM_WRITE, UM_PRIV_KERNEL).hit);
	um_mmu_invlpg(g.mmu, UGVA);
	/* The entry was reinstated: no guest walk is needed. */
	assert_true(guest_spte(&g, UGVA) & SPTE_PRESENT);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	assert_int_equal(COUNT(&g, mmu_pte_write), 0);
	/* A new entry needs no flush at all. */
	guest_store(&g, linear(pte + 8), 10 * MB | RW, 8);
	g.ram[10 * MB] = 'c';
	assert_int_equal(guest_load(&g, UGVA + 4096) & 0xff, 'c');
	guest_destroy(&g);
}

/* … or by a TLB flush; then the table is write-protected again. */
static void unsync_flush(void **state)
{
	struct guest g;
	gpa_t pte, cr3;
	u64 zapped;

	init64(&g);
	cr3 = g.cpu->cr3;
	g.ram[8 * MB] = 'a';
	g.ram[9 * MB] = 'b';
	pte = guest_map(&g, UGVA, 8 * MB | RW, 1);
	guest_load(&g, UGVA);
	guest_store(&g, linear(pte), 9 * MB | RW | PTE_A, 8);
	zapped = COUNT(&g, mmu_shadow_zapped);
	guest_set_cr3(&g, cr3);
	assert_false(guest_page_at(&g, UGVA, 1)->unsync);
	assert_int_equal(guest_page_at(&g, UGVA, 4)->unsync_children, 0);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	assert_int_equal(COUNT(&g, mmu_shadow_zapped), zapped);
	/* The first store is seen again. */
	assert_false(guest_access(&g, linear(pte), UM_WRITE, UM_PRIV_KERNEL).hit);
	assert_int_equal(COUNT(&g, mmu_unsync), 2);
	guest_destroy(&g);
}

/* A store to an upper-level table is emulated, and what it changed is dropped. */
static void upper_level_write(void **state)
{
	struct guest g;
	gpa_t pde, other;

	init64(&g);
	g.ram[8 * MB] = 'a';
	g.ram[9 * MB] = 'b';
	guest_map(&g, UGVA, 8 * MB | RW, 1);
	guest_load(&g, UGVA);
	pde = guest_entry(&g, UGVA, 2);
	other = guest_table(&g);
	guest_write(&g, other, 9 * MB | RW);
	assert_int_equal(guest_store(&g, linear(pde), other | RW, 8), UM_ACCESS_TRACKED);
	assert_int_equal(COUNT(&g, mmu_pte_write), 1);
	assert_int_equal(COUNT(&g, mmu_pde_zapped), 1);
	assert_null(guest_page_at(&g, UGVA, 1));
	/* No INVLPG: stricter than a TLB, but the guest may expect nothing else. */
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	assert_non_null(guest_page_at(&g, UGVA, 1));
	guest_destroy(&g);
}

/* No memory: mmio, cached in an spte, until memory appears there. */
static void mmio(void **state)
{
	void *more = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct outcome o;
	struct guest g;
	gva_t gva;

	init64(&g);
	gva = UGVA + 0x30;
	guest_map(&g, gva, 0xfee00000 | RW, 1);
	o = guest_access(&g, gva, UM_WRITE, UM_PRIV_KERNEL);
	assert_int_equal(o.result, UM_ACCESS_MMIO);
	assert_int_equal(o.gpa, 0xfee00030);
	assert_true(spte_mmio(guest_spte(&g, gva)));
	assert_int_equal(COUNT(&g, pf_mmio_spte), 0);
	o = guest_access(&g, gva, UM_READ, UM_PRIV_KERNEL);
	assert_int_equal(o.result, UM_ACCESS_MMIO);
	assert_int_equal(o.gpa, 0xfee00030);
	assert_int_equal(COUNT(&g, pf_mmio_spte), 1);
	/* Rights still count. */
	g.cpu->cr4 |= CR4_SMAP;
	um_mmu_reset_context(g.mmu);
	assert_int_equal(guest_access(&g, gva, UM_READ, UM_PRIV_KERNEL).result, UM_ACCESS_FAULT);
	assert_int_equal(guest_access(&g, gva, UM_READ, UM_PRIV_KERNEL_AC).result, UM_ACCESS_MMIO);

	assert_int_equal(guest_slot(&g, 1, 0xfee00000, MB, more, 0), 0);
	*(char *)more = 'm';
	assert_int_equal(guest_access(&g, gva, UM_READ, UM_PRIV_KERNEL_AC).result, UM_ACCESS_OK);
	assert_int_equal(guest_slot(&g, 1, 0xfee00000, 0, NULL, 0), 0);
	assert_int_equal(guest_access(&g, gva, UM_READ, UM_PRIV_KERNEL_AC).result, UM_ACCESS_MMIO);
	guest_destroy(&g);
	munmap(more, MB);
}

/* The generation in mmio sptes wraps: none that is older may count as current. */
static void mmio_generation_wraps(void **state)
{
	void *more = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct guest g;

	guest_init(&g, MB, false, true);
	guest_paging(&g, GUEST_REAL);
	assert_int_equal(guest_access(&g, 0x90000000, UM_READ, 0).result, UM_ACCESS_MMIO);
	/* 2^11 changes later, with memory there. */
	for (unsigned i = 0; i < (1u << SPTE_MMIO_GEN_BITS); i++)
		assert_int_equal(guest_slot(&g, 1, 0x90000000, i % 2 ? 0 : MB, more, 0), 0);
	assert_int_equal(guest_slot(&g, 1, 0x90000000, MB, more, 0), 0);
	for (unsigned i = 1; i < (1u << SPTE_MMIO_GEN_BITS); i++)
		assert_int_equal(guest_slot(&g, 2, 0xa0000000, i % 2 ? MB : 0, more, 0), 0);
	assert_int_equal(guest_access(&g, 0x90000000, UM_READ, 0).result, UM_ACCESS_OK);
	guest_destroy(&g);
	munmap(more, MB);
}

/* Loading CR3 and loading the old one again: no shadow page is made, TLB entries are still there. */
static void cr3_switch_back(void **state)
{
	struct guest g;
	gpa_t a, b;
	u64 created;

	init64(&g);
	a = g.cpu->cr3;
	b = fork_root(&g);
	guest_map(&g, UGVA, 8 * MB | RW, 1);
	g.ram[8 * MB] = 'a';
	guest_load(&g, UGVA);
	guest_load(&g, linear(0));
	guest_set_cr3(&g, b);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, UM_PRIV_KERNEL).result, UM_ACCESS_FAULT);
	guest_map(&g, UGVA, 9 * MB | RW, 1);
	g.ram[9 * MB] = 'b';
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	/* The kernel's half is the same shadow pages. */
	guest_load(&g, linear(0));
	created = COUNT(&g, mmu_shadow_created);
	for (unsigned i = 0; i < 10; i++) {
		guest_set_cr3(&g, i % 2 ? b : a);
		assert_true(guest_access(&g, linear(0), UM_READ, UM_PRIV_KERNEL).result ==
			    UM_ACCESS_OK);
		assert_int_equal(guest_load(&g, UGVA) & 0xff, i % 2 ? 'b' : 'a');
	}
	assert_int_equal(COUNT(&g, mmu_shadow_created), created);
	assert_true(COUNT(&g, mmu_root_reused) >= 10);
	guest_set_cr3(&g, a);
	guest_load(&g, linear(0x5000));
	guest_set_cr3(&g, b);
	guest_set_cr3(&g, a);
	assert_true(guest_access(&g, linear(0x5000), UM_READ, UM_PRIV_KERNEL).hit);
	guest_destroy(&g);
}

/* More roots than a vCPU keeps: they come out of the hash again. */
static void many_roots(void **state)
{
	gpa_t root[3 * MMU_ROOTS];
	struct guest g;
	u64 created;

	init64(&g);
	HOST_VOID(&g, um_mmu_set_nr_pages(g.vm, 1000));
	for (unsigned i = 0; i < ARRAY_SIZE(root); i++) {
		root[i] = fork_root(&g);
		guest_set_cr3(&g, root[i]);
		guest_map(&g, UGVA, (8 * MB + i * 4096) | RW, 1);
		g.ram[8 * MB + i * 4096] = (u8)i;
		assert_int_equal(guest_load(&g, UGVA) & 0xff, i);
	}
	created = COUNT(&g, mmu_shadow_created);
	for (unsigned i = 0; i < ARRAY_SIZE(root); i++) {
		guest_set_cr3(&g, root[i]);
		assert_int_equal(guest_load(&g, UGVA) & 0xff, i);
	}
	assert_int_equal(COUNT(&g, mmu_shadow_created), created);
	guest_destroy(&g);
}

/* PCID: without a flush stale is allowed and nothing is synchronized; with one, it is. */
static void pcid(void **state)
{
	gpa_t a, b, pte;
	struct guest g;
	u64 synced;

	init64(&g);
	a = g.cpu->cr3;
	b = fork_root(&g);
	g.cpu->cr4 |= CR4_PCIDE;
	g.cpu->cr3 = a | 1;
	um_mmu_reset_context(g.mmu);
	pte = guest_map(&g, UGVA, 8 * MB | RW, 1);
	g.ram[8 * MB] = 'a';
	g.ram[9 * MB] = 'b';
	guest_load(&g, UGVA);
	g.cpu->cr3 = b | 2;
	um_mmu_new_cr3(g.mmu, true);
	guest_store(&g, linear(pte), 9 * MB | RW | PTE_A, 8);
	synced = COUNT(&g, mmu_synced);
	g.cpu->cr3 = a | 1;
	um_mmu_new_cr3(g.mmu, false);
	assert_int_equal(COUNT(&g, mmu_synced), synced);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'a');
	/* INVPCID of the other PCID doesn't concern this one; of this one does. */
	um_mmu_invpcid(g.mmu, 1, 2, 0);
	assert_int_equal(COUNT(&g, mmu_synced), synced);
	um_mmu_invpcid(g.mmu, 1, 1, 0);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');

	/* Flushed while another is current: at the next load, though that doesn't ask for it. */
	g.cpu->cr3 = b | 2;
	um_mmu_new_cr3(g.mmu, false);
	guest_store(&g, linear(pte), 8 * MB | RW | PTE_A, 8);
	um_mmu_invpcid(g.mmu, 1, 1, 0);
	g.cpu->cr3 = a | 1;
	um_mmu_new_cr3(g.mmu, false);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'a');
	/* One address of a PCID that isn't current. */
	g.cpu->cr3 = b | 2;
	um_mmu_new_cr3(g.mmu, false);
	guest_store(&g, linear(pte), 9 * MB | RW | PTE_A, 8);
	um_mmu_invpcid(g.mmu, 0, 1, UGVA);
	g.cpu->cr3 = a | 1;
	um_mmu_new_cr3(g.mmu, false);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	/* All of them, by INVPCID types 2 and 3. */
	for (unsigned type = 2; type <= 3; type++) {
		guest_store(&g, linear(pte), (type == 2 ? 8 : 9) * MB | RW | PTE_A, 8);
		um_mmu_invpcid(g.mmu, type, 0, 0);
		assert_int_equal(guest_load(&g, UGVA) & 0xff, type == 2 ? 'a' : 'b');
	}
	guest_destroy(&g);
}

/* CR0.WP, EFER.NXE, CR4.SMEP: other rules at once, and the shadow pages of before when the bit comes back. */
static void control_registers(void **state)
{
	struct guest g;
	u64 created;

	init64(&g);
	guest_map(&g, UGVA, 8 * MB | PTE_P | PTE_U | PTE_NX, 1);
	assert_int_equal(guest_access(&g, UGVA, UM_WRITE, UM_PRIV_KERNEL).result, UM_ACCESS_FAULT);
	g.cpu->cr0 &= ~CR0_WP;
	um_mmu_reset_context(g.mmu);
	assert_int_equal(guest_access(&g, UGVA, UM_WRITE, UM_PRIV_KERNEL).result, UM_ACCESS_OK);
	assert_int_equal(guest_access(&g, UGVA, UM_WRITE, UM_PRIV_USER).result, UM_ACCESS_FAULT);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, UM_PRIV_USER).result, UM_ACCESS_OK);
	g.cpu->cr0 |= CR0_WP;
	um_mmu_reset_context(g.mmu);
	assert_int_equal(guest_access(&g, UGVA, UM_WRITE, UM_PRIV_KERNEL).result, UM_ACCESS_FAULT);
	created = COUNT(&g, mmu_shadow_created);

	g.cpu->efer &= ~EFER_NXE;
	um_mmu_reset_context(g.mmu);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, UM_PRIV_USER).error,
			 PFERR_PRESENT | PFERR_USER | PFERR_RSVD);
	assert_true(COUNT(&g, mmu_shadow_created) > created);
	g.cpu->efer |= EFER_NXE;
	um_mmu_reset_context(g.mmu);
	created = COUNT(&g, mmu_shadow_created);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, UM_PRIV_USER).result, UM_ACCESS_OK);
	assert_int_equal(COUNT(&g, mmu_shadow_created), created);

	/* Paging off and on again. */
	g.cpu->cr0 &= ~CR0_PG;
	g.cpu->efer &= ~EFER_LMA;
	um_mmu_reset_context(g.mmu);
	g.ram[0x1234] = 'r';
	assert_int_equal(guest_load(&g, 0x1234) & 0xff, 'r');
	g.cpu->cr0 |= CR0_PG;
	g.cpu->efer |= EFER_LMA;
	um_mmu_reset_context(g.mmu);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, UM_PRIV_USER).result, UM_ACCESS_OK);
	guest_destroy(&g);
}

/* CR4.PSE decides whether an entry of a 32-bit guest is a table or a 4M page. */
static void pse_toggle(void **state)
{
	struct guest g;
	gpa_t table;

	guest_init(&g, RAM, false, true);
	guest_paging(&g, GUEST_32);
	table = guest_table(&g);
	guest_write(&g, table, 8 * MB | RW);
	guest_write(&g, g.cpu->cr3 + 4, table | RW | PTE_PS);
	g.ram[8 * MB] = 't';
	assert_int_equal(guest_load(&g, 4 * MB) & 0xff, 't');
	g.cpu->cr4 |= CR4_PSE;
	um_mmu_reset_context(g.mmu);
	guest_write(&g, g.cpu->cr3 + 8, 12 * MB | RW | PTE_PS);
	g.ram[12 * MB + 5] = 'l';
	assert_int_equal(guest_load(&g, 8 * MB + 5) & 0xff, 'l');
	/* PSE-36: bits 39:32 are in bits 20:13. */
	guest_write(&g, g.cpu->cr3 + 12, 4 * MB | RW | PTE_PS | 3u << 13);
	assert_int_equal(guest_access(&g, 12 * MB + 5, UM_READ, 0).gpa, (3ull << 32) + 4 * MB + 5);
	guest_destroy(&g);
}

/* A 32-bit guest's tables have 1024 entries: halves and quarters. */
static void quadrants(void **state)
{
	struct guest g;

	guest_init(&g, RAM, false, true);
	guest_paging(&g, GUEST_32);
	for (u64 gva = 0; gva < BIT(32); gva += 0x1f400000) {
		for (unsigned k = 0; k < 1024; k += 341) {
			gpa_t gpa = 4 * MB + ((gva >> 20) + k) % 2048 * 4096;

			guest_map(&g, gva + k * 4096, gpa | RW, 1);
			*(u64 *)(g.ram + gpa) = gva + k;
			assert_int_equal(guest_load(&g, gva + k * 4096), gva + k);
		}
	}
	/* Writes to both levels reach the right ones. */
	guest_map(&g, 0x5000, 1 * MB | RW, 1); /* the root */
	assert_int_equal(g.cpu->cr3, 1 * MB);
	guest_store(&g, 0x5000 + 0x3f4 * 4, 0, 4);
	assert_int_equal(guest_access(&g, 0xfd000000, UM_READ, 0).result, UM_ACCESS_FAULT);
	guest_destroy(&g);
}

static void invalidate(void **state)
{
	struct guest g;

	init64(&g);
	guest_load(&g, linear(8 * MB));
	guest_load(&g, linear(10 * MB));
	HOST_VOID(&g, um_mem_invalidate(g.mem, (hva_t)g.ram + 8 * MB, (hva_t)g.ram + 9 * MB));
	assert_int_equal(guest_spte(&g, linear(8 * MB)), 0);
	assert_true(guest_spte(&g, linear(10 * MB)) & SPTE_PRESENT);
	assert_false(guest_access(&g, linear(8 * MB), UM_READ, UM_PRIV_KERNEL).hit);
	HOST_VOID(&g, um_mem_change(g.mem, (hva_t)g.ram + 10 * MB + 5));
	assert_int_equal(guest_spte(&g, linear(10 * MB)), 0);
	guest_destroy(&g);
}

static void *end_invalidation(void *opaque)
{
	struct guest *g = opaque;

	usleep(50000);
	g->ram[8 * MB] = 'n';
	um_mem_invalidate_end(g->mem, (hva_t)g->ram + 8 * MB, (hva_t)g->ram + 9 * MB);
	return NULL;
}

/* Between start and end a fault waits. */
static void invalidate_waits(void **state)
{
	struct guest g;
	pthread_t t;

	init64(&g);
	g.ram[8 * MB] = 'o';
	guest_load(&g, linear(8 * MB));
	HOST_VOID(&g, um_mem_invalidate_start(g.mem, (hva_t)g.ram + 8 * MB, (hva_t)g.ram + 9 * MB));
	guest_load(&g, linear(10 * MB)); /* others don't */
	pthread_create(&t, NULL, end_invalidation, &g);
	assert_int_equal(guest_load(&g, linear(8 * MB)) & 0xff, 'n');
	pthread_join(t, NULL);
	guest_destroy(&g);
}

static void aging(void **state)
{
	hva_t page;
	struct guest g;

	init64(&g);
	page = (hva_t)g.ram + 8 * MB;
	guest_load(&g, linear(8 * MB));
	assert_true(HOST(&g, um_mem_test_young(g.mem, page, page + 4096)));
	assert_true(HOST(&g, um_mem_clear_young(g.mem, page, page + 4096)));
	assert_false(HOST(&g, um_mem_test_young(g.mem, page, page + 4096)));
	assert_false(HOST(&g, um_mem_clear_young(g.mem, page, page + 4096)));
	/* The neighbours were made on suspicion only. */
	assert_true(guest_spte(&g, linear(8 * MB + 4096)) & SPTE_PRESENT);
	assert_false(HOST(&g, um_mem_test_young(g.mem, page + 4096, page + 2 * 4096)));
	guest_load(&g, linear(8 * MB));
	assert_true(HOST(&g, um_mem_test_young(g.mem, page, page + 4096)));
	guest_destroy(&g);
}

/* Host memory that is gone is an answer, not a crash. */
static void host_page_gone(void **state)
{
	struct guest g;

	init64(&g);
	guest_load(&g, linear(8 * MB));
	munmap(g.ram + 8 * MB, 4096);
	HOST_VOID(&g,
		  um_mem_invalidate(g.mem, (hva_t)g.ram + 8 * MB, (hva_t)g.ram + 8 * MB + 4096));
	assert_int_equal(guest_access(&g, linear(8 * MB), UM_READ, 0).result, UM_ACCESS_HOST);
	mprotect(g.ram + 9 * MB, 4096, PROT_READ);
	assert_int_equal(guest_access(&g, linear(9 * MB), UM_READ, 0).result, UM_ACCESS_OK);
	HOST_VOID(&g,
		  um_mem_invalidate(g.mem, (hva_t)g.ram + 9 * MB, (hva_t)g.ram + 9 * MB + 4096));
	assert_int_equal(guest_access(&g, linear(9 * MB), UM_WRITE, 0).result, UM_ACCESS_HOST);
	/* The same under a table. */
	munmap(g.ram + (g.cpu->cr3 & GPTE_ADDR), 4096);
	HOST(&g, um_mmu_shrink(g.vm, 1000));
	assert_int_equal(guest_access(&g, UGVA, UM_READ, 0).result, UM_ACCESS_HOST);
	guest_destroy(&g);
}

static void slots_change(void **state)
{
	u8 *b = mmap(NULL, 4 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct guest g;

	init64(&g);
	guest_map(&g, UGVA, 64 * MB | RW, 1);
	guest_map(&g, UGVA + 4096, 80 * MB | RW, 1);
	assert_int_equal(guest_slot(&g, 1, 64 * MB, 4 * MB, b, 0), 0);
	guest_store(&g, UGVA, 'x', 1);
	assert_int_equal(b[0], 'x');
	assert_int_equal(guest_access(&g, UGVA + 4096, UM_READ, 0).result, UM_ACCESS_MMIO);
	/* Move. */
	assert_int_equal(guest_slot(&g, 1, 80 * MB, 4 * MB, b, 0), 0);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, 0).result, UM_ACCESS_MMIO);
	assert_int_equal(guest_load(&g, UGVA + 4096) & 0xff, 'x');
	/* An alias of the same host memory. */
	assert_int_equal(guest_slot(&g, 2, 64 * MB, 4 * MB, b, 0), 0);
	guest_store(&g, UGVA, 'y', 1);
	assert_int_equal(guest_load(&g, UGVA + 4096) & 0xff, 'y');
	HOST_VOID(&g, um_mem_invalidate(g.mem, (hva_t)b, (hva_t)b + 4096));
	assert_int_equal(guest_spte(&g, UGVA), 0);
	assert_int_equal(guest_spte(&g, UGVA + 4096), 0);
	/* Delete both. */
	guest_load(&g, UGVA);
	assert_int_equal(guest_slot(&g, 2, 0, 0, NULL, 0), 0);
	assert_int_equal(guest_slot(&g, 1, 0, 0, NULL, 0), 0);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, 0).result, UM_ACCESS_MMIO);
	guest_destroy(&g);
	munmap(b, 4 * MB);
}

/* Reads of a read-only slot are memory, writes are mmio. */
static void read_only_slot(void **state)
{
	u8 *b = mmap(NULL, MB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct outcome o;
	struct guest g;

	init64(&g);
	assert_int_equal(guest_slot(&g, 1, 64 * MB, MB, b, KVM_MEM_READONLY), 0);
	guest_map(&g, UGVA, 64 * MB | RW, 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(guest_access(&g, UGVA, UM_READ, 0).result, UM_ACCESS_OK);
		o = guest_access(&g, UGVA + 7, UM_WRITE, 0);
		assert_int_equal(o.result, UM_ACCESS_MMIO);
		assert_int_equal(o.gpa, 64 * MB + 7);
	}
	assert_int_equal(um_mem_write(g.mem, 0, 64 * MB, "x", 1), -14 /* EFAULT */);
	guest_destroy(&g);
	munmap(b, MB);
}

/* The slot that holds the tables themselves goes, while they are in use. */
static void slot_under_tables(void **state)
{
	struct guest g;

	init64(&g);
	guest_load(&g, linear(0));
	assert_int_equal(guest_slot(&g, 0, 0, 0, NULL, 0), 0);
	assert_int_equal(guest_access(&g, linear(0), UM_READ, 0).result, UM_ACCESS_FAULT);
	assert_int_equal(guest_slot(&g, 0, 0, RAM, g.ram, 0), 0);
	g.ram[0] = 'z';
	assert_int_equal(guest_load(&g, linear(0)) & 0xff, 'z');
	guest_destroy(&g);
}

/* The pool is bounded: a guest that uses more tables than fit still runs, by recycling. */
static void pool(void **state)
{
	struct guest g;

	guest_init(&g, RAM, false, true);
	guest_paging(&g, GUEST_64);
	assert_int_equal(um_mmu_get_nr_pages(g.vm), RAM / 4096 * 20 / 1000);
	HOST_VOID(&g, um_mmu_set_nr_pages(g.vm, 10));
	assert_int_equal(um_mmu_get_nr_pages(g.vm), 64);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 150; i++) {
			gva_t gva = UGVA + i * (1ull << 30);

			if (!round)
				guest_map(&g, gva, (8 * MB + i * 4096) | RW, 1);
			*(u64 *)(g.ram + 8 * MB + i * 4096) = i * 3;
			assert_int_equal(guest_load(&g, gva), i * 3);
			assert_true(g.vm->used <= 64);
		}
	}
	assert_true(COUNT(&g, mmu_recycled) > 300);
	assert_true(HOST(&g, um_mmu_shrink(g.vm, 5)) == 5);
	assert_true(HOST(&g, um_mmu_shrink(g.vm, 1000)) > 20);
	assert_int_equal(g.vm->used, 2); /* the root, and that from before paging */
	assert_int_equal(guest_load(&g, UGVA), 0);
	guest_destroy(&g);
}

/* So many PAE roots that they alone would fill the pool. */
static void pool_of_roots(void **state)
{
	struct guest g;

	guest_init(&g, RAM, false, true);
	guest_paging(&g, GUEST_PAE);
	HOST_VOID(&g, um_mmu_set_nr_pages(g.vm, 64));
	for (unsigned i = 0; i < 60; i++) {
		guest_set_cr3(&g, guest_new_root(&g));
		for (unsigned k = 0; k < 4; k++) {
			gva_t gva = ((gva_t)k << 30) + i * 4096;

			guest_map(&g, gva, (8 * MB + i * 4096) | PTE_P | PTE_W, 1);
			g.ram[8 * MB + i * 4096] = (u8)i;
			assert_int_equal(guest_load(&g, gva) & 0xff, i);
			assert_true(g.vm->used <= 64);
		}
	}
	guest_destroy(&g);
}

/* One frame mapped by a hundred thousand entries: write-protecting it takes linear time. */
static void long_rmap(void **state)
{
	struct guest g;
	u64 n = 0;

	guest_init(&g, RAM, false, false);
	guest_paging(&g, GUEST_64);
	HOST_VOID(&g, um_mmu_set_nr_pages(g.vm, 1000));
	for (unsigned t = 0; t < 200; t++) {
		gva_t gva = UGVA + t * 2 * MB;
		gpa_t pte = guest_entry(&g, gva, 1);

		for (unsigned i = 0; i < 512; i++)
			guest_write(&g, pte + i * 8, 8 * MB | RW | PTE_A | PTE_D);
		for (unsigned i = 0; i < 512; i += 8)
			guest_store(&g, gva + i * 4096, 1, 8);
		n += 512;
	}
	assert_int_equal(um_ptelist_count(um_rmap(g.vm, 0, 8 * MB / 4096, 1)), n);
	/* It becomes a page table. */
	memset(g.ram + 8 * MB, 0, 4096);
	guest_write(&g, guest_entry(&g, UGVA + (1ull << 30), 2), 8 * MB | RW);
	guest_write(&g, 8 * MB, 9 * MB | RW);
	guest_load(&g, UGVA + (1ull << 30));
	assert_false(guest_access(&g, UGVA, UM_WRITE, UM_PRIV_KERNEL).hit);
	HOST_VOID(&g, um_mem_invalidate(g.mem, (hva_t)g.ram + 8 * MB, (hva_t)g.ram + 9 * MB));
	assert_int_equal(um_ptelist_count(um_rmap(g.vm, 0, 8 * MB / 4096, 1)), 0);
	guest_destroy(&g);
}

static void flooding(void **state)
{
	struct guest g;
	gpa_t pde;

	init64(&g);
	guest_map(&g, UGVA, 8 * MB | RW, 1);
	guest_load(&g, UGVA);
	pde = guest_entry(&g, UGVA, 2);
	/* Used in between: no flood. */
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(guest_store(&g, linear(pde + 8), 0, 8), UM_ACCESS_TRACKED);
		guest_load(&g, UGVA);
		um_tlb_flush(um_mmu_tlb(g.mmu));
		HOST_VOID(&g, um_mem_invalidate(g.mem, (hva_t)g.ram + 8 * MB,
						(hva_t)g.ram + 8 * MB + 1));
	}
	assert_int_equal(COUNT(&g, mmu_flooded), 0);
	guest_load(&g, UGVA);
	for (unsigned i = 0; i < 3; i++)
		guest_store(&g, linear(pde + 16), i, 8);
	assert_int_equal(COUNT(&g, mmu_flooded), 1);
	/* Plain memory now. */
	assert_int_equal(guest_store(&g, linear(pde + 16), 0, 8), UM_ACCESS_OK);
	assert_true(guest_access(&g, linear(pde), UM_WRITE, UM_PRIV_KERNEL).hit);
	guest_load(&g, UGVA);
	guest_destroy(&g);
}

static void misaligned_write(void **state)
{
	struct guest g;
	gpa_t pde;

	init64(&g);
	guest_map(&g, UGVA, 8 * MB | RW, 1);
	pde = guest_entry(&g, UGVA, 2);
	guest_load(&g, UGVA);
	guest_store(&g, linear(pde + 8), 0, 4); /* half an entry is fine */
	assert_int_equal(COUNT(&g, mmu_misaligned), 0);
	guest_store(&g, linear(pde + 9), 0, 1);
	assert_int_equal(COUNT(&g, mmu_misaligned), 1);
	guest_load(&g, UGVA);
	guest_store(&g, linear(pde + 12), 0, 8);
	assert_int_equal(COUNT(&g, mmu_misaligned), 2);
	guest_load(&g, UGVA);
	guest_destroy(&g);
}

/* Large guest pages: one spte where that is possible, a direct page of small ones where it isn't. */
static void large_pages(void **state)
{
	struct guest g;

	guest_init(&g, RAM, false, true);
	guest_paging(&g, GUEST_64);
	guest_map(&g, UGVA, 8 * MB | RW | PTE_PS, 2);
	guest_load(&g, UGVA + 0x12345);
	assert_true(guest_spte(&g, UGVA) & SPTE_LARGE);
	assert_int_equal(COUNT(&g, mmu_large_sptes), 1);
	guest_store(&g, UGVA + 0x54321, 7, 1);
	assert_int_equal(g.ram[8 * MB + 0x54321], 7);
	/* Pages of tables are in the range: small ones, the tables' are protected. */
	guest_map(&g, UGVA + 2 * MB, 0 * MB | RW | PTE_PS, 2);
	guest_map(&g, KGVA, 0 | RW | PTE_PS, 3);
	guest_load(&g, KGVA + 8 * MB);
	guest_load(&g, KGVA + 1 * MB);
	assert_false(guest_spte(&g, KGVA) & SPTE_LARGE);
	assert_true(guest_page_at(&g, KGVA, 1)->role.direct);
	/* A table is made in a range that has a large spte: that one is replaced. */
	guest_map(&g, UGVA + 4 * MB, 10 * MB | RW | PTE_PS, 2);
	guest_store(&g, UGVA + 4 * MB, 1, 1);
	guest_write(&g, guest_entry(&g, UGVA + (1ull << 30), 2), 11 * MB | RW);
	guest_write(&g, 11 * MB, 12 * MB | RW);
	guest_load(&g, UGVA + (1ull << 30));
	assert_false(guest_access(&g, UGVA + 4 * MB, UM_WRITE, 0).hit);
	assert_false(guest_spte(&g, UGVA + 4 * MB) & SPTE_LARGE);
	/* Its write protection works through the small ones. */
	assert_int_equal(guest_store(&g, UGVA + 5 * MB, 13 * MB | RW, 8), UM_ACCESS_OK);
	assert_true(guest_page_at(&g, UGVA + (1ull << 30), 1)->unsync);

	/* Dirty logging needs small ones, too; and lets large ones come back. */
	assert_int_equal(guest_slot(&g, 0, 0, RAM, g.ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
	guest_store(&g, UGVA + 0x3000, 1, 1);
	assert_false(guest_spte(&g, UGVA + 0x3000) & SPTE_LARGE);
	assert_int_equal(guest_slot(&g, 0, 0, RAM, g.ram, 0), 0);
	guest_store(&g, UGVA + 0x3000, 1, 1);
	assert_true(guest_spte(&g, UGVA + 0x3000) & SPTE_LARGE);
	guest_destroy(&g);
}

/* The dirty bit of a large entry is set by the first write, though small sptes are behind it. */
static void large_page_dirty(void **state)
{
	struct guest g;
	gpa_t pde;

	guest_init(&g, RAM, false, true);
	guest_paging(&g, GUEST_64);
	pde = guest_map(&g, UGVA, 0 | RW | PTE_PS, 2);
	guest_load(&g, UGVA + 0x5000);
	assert_false(guest_read(&g, pde) & PTE_D);
	guest_store(&g, UGVA + 0x6000, 1, 1);
	assert_true(guest_read(&g, pde) & PTE_D);
	guest_destroy(&g);
}

/* A large page in whose range the tables lie that lead to it: they are shadowed only while it is being mapped. */
static void large_page_over_its_tables(void **state)
{
	const gpa_t pdpt = 8 * MB, pd = pdpt + UM_PAGE_SIZE;
	struct guest g;

	guest_init(&g, RAM, false, true);
	guest_paging(&g, GUEST_64);
	guest_map(&g, UGVA, pdpt | RW, 4);
	guest_write(&g, pdpt, pd | RW);
	guest_write(&g, pd, 8 * MB | RW | PTE_PS);
	guest_store(&g, UGVA + 1 * MB, 1, 1);
	assert_false(guest_spte(&g, UGVA + 1 * MB) & SPTE_LARGE);
	assert_int_equal(guest_store(&g, UGVA + UM_PAGE_SIZE + 8, 12 * MB | RW | PTE_PS, 8),
			 UM_ACCESS_TRACKED);
	g.ram[12 * MB] = 7;
	assert_int_equal(guest_load(&g, UGVA + 2 * MB) & 0xff, 7);
	guest_destroy(&g);
}

/* Direct mode: linear, in all of 32 bits. */
static void direct_mode(void **state)
{
	struct guest g;

	guest_init(&g, RAM, false, true);
	guest_paging(&g, GUEST_REAL);
	g.ram[0xf000] = 'd';
	assert_int_equal(guest_load(&g, 0xf000) & 0xff, 'd');
	assert_true(guest_spte(&g, 0xf000) & SPTE_LARGE);
	guest_store(&g, 10 * MB, 5, 1);
	assert_int_equal(g.ram[10 * MB], 5);
	assert_int_equal(guest_access(&g, 0xfffffff0, UM_FETCH, 0).result, UM_ACCESS_MMIO);
	assert_int_equal(guest_access(&g, 0xfffffff0, UM_FETCH, UM_PRIV_USER).gpa, 0xfffffff0);
	guest_destroy(&g);
}

/* A page with a data breakpoint has no TLB entries for data. */
static void watchpoints(void **state)
{
	struct guest g;

	init64(&g);
	guest_load(&g, linear(8 * MB));
	g.cpu->dr[1] = linear(8 * MB) + 0x123;
	g.cpu->dr7 = 1u << 2 | 1u << 20; /* L1, writes */
	um_mmu_rights_changed(g.mmu);
	assert_false(guest_access(&g, linear(8 * MB), UM_READ, 0).hit);
	assert_false(guest_access(&g, linear(8 * MB), UM_READ, 0).hit);
	guest_access(&g, linear(8 * MB), UM_FETCH, 0);
	assert_true(guest_access(&g, linear(8 * MB), UM_FETCH, 0).hit);
	g.cpu->dr7 = 0;
	um_mmu_rights_changed(g.mmu);
	guest_load(&g, linear(8 * MB));
	assert_true(guest_access(&g, linear(8 * MB), UM_READ, 0).hit);
	guest_destroy(&g);
}

/* The guest clears A or D in an entry and flushes: the next access sets them again. */
static void accessed_dirty_cleared(void **state)
{
	struct guest g;
	gpa_t pte;

	init64(&g);
	pte = guest_map(&g, UGVA, 8 * MB | RW, 1);
	guest_store(&g, UGVA, 1, 1);
	guest_store(&g, linear(pte), 8 * MB | RW | PTE_A, 8);
	um_mmu_invlpg(g.mmu, UGVA);
	guest_load(&g, UGVA);
	assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A);
	guest_store(&g, UGVA, 1, 1);
	assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A | PTE_D);
	guest_store(&g, linear(pte), 8 * MB | RW, 8);
	guest_set_cr3(&g, g.cpu->cr3);
	guest_load(&g, UGVA);
	assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A);
	guest_destroy(&g);
}

/* A frame is a table at two levels (a recursive mapping). */
static void recursive_mapping(void **state)
{
	struct guest g;
	gva_t rec = 0xffffff0000000000ull + (UGVA >> 12 << 3 & 0x7fffffffffull); /* slot 510 */
	gpa_t cr3;

	init64(&g);
	cr3 = g.cpu->cr3;
	g.ram[8 * MB] = 'a';
	g.ram[9 * MB] = 'b';
	guest_write(&g, cr3 + 510 * 8, cr3 | PTE_P | PTE_W);
	guest_map(&g, UGVA, 8 * MB | RW, 1);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'a');
	/* The last-level table through the recursive entry: it is a page then, and may be unsync. */
	assert_int_equal(guest_load(&g, rec) & ~0xfffull, 8 * MB);
	guest_store(&g, rec, 9 * MB | RW, 8);
	um_mmu_invlpg(g.mmu, UGVA);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	/* The root through itself four times is its own last level: such a frame can't be unsync. */
	guest_load(&g, 0xffffff7fbfdfe000);
	assert_int_equal(guest_store(&g, 0xffffff7fbfdfe000 + 8 * (UGVA >> 39 & 511), 0, 8),
			 UM_ACCESS_TRACKED);
	um_mmu_invlpg(g.mmu, UGVA);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, 0).result, UM_ACCESS_FAULT);
	guest_destroy(&g);
}

/* A probe changes nothing. */
static void probe(void **state)
{
	struct um_fault f = { .gva = UGVA + 5, .acc = UM_WRITE, .probe = true };
	struct guest g;
	gpa_t pte;

	init64(&g);
	assert_int_equal(um_mmu_access(g.mmu, &f), UM_ACCESS_FAULT);
	pte = guest_map(&g, UGVA, 8 * MB | RW, 1);
	assert_int_equal(um_mmu_access(g.mmu, &f), UM_ACCESS_OK);
	assert_ptr_equal(f.hva, g.ram + 8 * MB + 5);
	assert_int_equal(f.gpa, 8 * MB + 5);
	assert_int_equal(guest_read(&g, pte), 8 * MB | RW);
	assert_int_equal(guest_spte(&g, UGVA), 0);
	guest_destroy(&g);
}

static void pdptrs(void **state)
{
	u64 pdptr[4] = { 0 };
	struct guest g;

	guest_init(&g, RAM, false, true);
	g.mode = GUEST_PAE;
	guest_write(&g, 8 * MB + 32, 9 * MB | PTE_P);
	assert_int_equal(um_mmu_load_pdptrs(g.mmu, 8 * MB + 32, pdptr), 0);
	assert_int_equal(pdptr[0], 9 * MB | PTE_P);
	guest_write(&g, 8 * MB + 40, 9 * MB | PTE_W); /* not present: anything goes */
	assert_int_equal(um_mmu_load_pdptrs(g.mmu, 8 * MB + 32, pdptr), 0);
	for (unsigned bit = 1; bit < 64; bit++) {
		bool reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= 40;

		guest_write(&g, 8 * MB + 40, BIT(bit) | PTE_P);
		assert_int_equal(um_mmu_load_pdptrs(g.mmu, 8 * MB + 32, pdptr), reserved);
	}
	assert_int_equal(um_mmu_load_pdptrs(g.mmu, 0xf0000000, pdptr), -14 /* EFAULT */);
	guest_destroy(&g);
}

static void dump(void **state)
{
	char *text = NULL;
	size_t size = 0;
	struct guest g;
	FILE *f;

	init64(&g);
	guest_load(&g, linear(8 * MB));
	guest_map(&g, UGVA, 0xfee00000 | RW, 1);
	guest_access(&g, UGVA, UM_READ, 0);
	f = open_memstream(&text, &size);
	um_mmu_dump(g.vm, f);
	fclose(f);
	assert_non_null(strstr(text, "root level 4 gfn 0x100 uwx pae nx lma (1 loaded)"));
	assert_non_null(strstr(text, "leaf gfn 0x800 x1"));
	assert_non_null(strstr(text, "leaf gfn 0x801 x7"));
	assert_non_null(strstr(text, "mmio gfn 0xfee00"));
	free(text);
	guest_destroy(&g);
}

/* The auditor itself: each kind of damage is found. */
static void auditor_sees(void **state)
{
	struct um_shadow_page *sp;
	char why[256];
	struct guest g;
	u64 spte;

	init64(&g);
	guest_store(&g, linear(8 * MB), 1, 8);
	g.vm->cfg.audit = false;
	sp = guest_page_at(&g, linear(8 * MB), 1);
	spte = sp->spt[0];
	assert_int_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	/* A guest entry changed behind its back; rights; another host page. */
	guest_write(&g, guest_entry(&g, linear(8 * MB), 1), 9 * MB | RW);
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	guest_write(&g, guest_entry(&g, linear(8 * MB), 1), 8 * MB | PTE_P | PTE_W | PTE_A | PTE_D);
	sp->spt[0] = spte ^ SPTE_USER;
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	sp->spt[0] = spte + 4096;
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	/* Less than the TLB allows. */
	sp->spt[0] = spte & ~SPTE_DIRTY;
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	sp->spt[0] = spte & ~SPTE_ACCESSED;
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	sp->spt[0] = 0;
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	sp->spt[0] = spte;
	/* Counts and marks. */
	sp->nr_present++;
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	sp->nr_present--;
	sp->unsync = true;
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	sp->unsync = false;
	sp->root_count++;
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	sp->root_count--;
	assert_int_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	g.vm->cfg.audit = true;
	guest_destroy(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(missing_translation),
		cmocka_unit_test(guest_fault),
		cmocka_unit_test(dirty_logging),
		cmocka_unit_test(unsync_invlpg),
		cmocka_unit_test(unsync_flush),
		cmocka_unit_test(upper_level_write),
		cmocka_unit_test(mmio),
		cmocka_unit_test(mmio_generation_wraps),
		cmocka_unit_test(cr3_switch_back),
		cmocka_unit_test(many_roots),
		cmocka_unit_test(pcid),
		cmocka_unit_test(control_registers),
		cmocka_unit_test(pse_toggle),
		cmocka_unit_test(quadrants),
		cmocka_unit_test(invalidate),
		cmocka_unit_test(invalidate_waits),
		cmocka_unit_test(aging),
		cmocka_unit_test(host_page_gone),
		cmocka_unit_test(slots_change),
		cmocka_unit_test(read_only_slot),
		cmocka_unit_test(slot_under_tables),
		cmocka_unit_test(pool),
		cmocka_unit_test(pool_of_roots),
		cmocka_unit_test(long_rmap),
		cmocka_unit_test(flooding),
		cmocka_unit_test(misaligned_write),
		cmocka_unit_test(large_pages),
		cmocka_unit_test(large_page_dirty),
		cmocka_unit_test(large_page_over_its_tables),
		cmocka_unit_test(direct_mode),
		cmocka_unit_test(watchpoints),
		cmocka_unit_test(accessed_dirty_cleared),
		cmocka_unit_test(recursive_mapping),
		cmocka_unit_test(probe),
		cmocka_unit_test(pdptrs),
		cmocka_unit_test(dump),
		cmocka_unit_test(auditor_sees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

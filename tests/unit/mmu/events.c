// SPDX-License-Identifier: MIT
/*
 * What the guest does that the MMU has to act on, one test each, all with the auditor after every
 * step.  What a test expects in terms of shadow pages (created, zapped, unsync) is part of it: an
 * MMU that threw everything away would be right, and fail here.
 */
#include "guest.h"

#include <string.h>

#define RAM (16 * MB)

static void init64(struct guest *g)
{
	guest_init_linear(g, RAM, false, true);
}

/* Another root that shares the kernel's half with the current one. */
static gpa_t fork_root(struct guest *g)
{
	gpa_t root = guest_new_root(g);

	memcpy(g->ram + root + 2048, g->ram + (g->cpu->cr3 & GPTE_ADDR) + 2048, 2048);
	return root;
}

/*
 * A guest access to a missing translation, in every paging mode: the tables are followed, A and D
 * set.
 */
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
	assert_int_equal(guest_store(&g, guest_linear(pte), 9 * MB | RW | PTE_A, 8), UM_ACCESS_OK);
	assert_int_equal(COUNT(&g, mmu_unsync), 1);
	assert_true(guest_page_at(&g, UGVA, 1)->unsync);
	assert_int_equal(guest_page_at(&g, UGVA, 2)->unsync_children, 1);
	assert_int_equal(guest_page_at(&g, UGVA, 4)->unsync_children, 1);
	/* Like a TLB: the old translation may still be used. */
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'a');
	assert_true(guest_access(&g, guest_linear(pte), UM_WRITE, UM_PRIV_KERNEL).hit);
	um_mmu_invlpg(g.mmu, UGVA);
	/* The entry was reinstated: no guest walk is needed. */
	assert_true(guest_spte(&g, UGVA) & SPTE_PRESENT);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	assert_int_equal(COUNT(&g, mmu_pte_write), 0);
	/* A new entry needs no flush at all. */
	guest_store(&g, guest_linear(pte + 8), 10 * MB | RW, 8);
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
	guest_store(&g, guest_linear(pte), 9 * MB | RW | PTE_A, 8);
	zapped = COUNT(&g, mmu_shadow_zapped);
	guest_set_cr3(&g, cr3);
	assert_false(guest_page_at(&g, UGVA, 1)->unsync);
	assert_int_equal(guest_page_at(&g, UGVA, 4)->unsync_children, 0);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	assert_int_equal(COUNT(&g, mmu_shadow_zapped), zapped);
	/* The first store is seen again. */
	assert_false(guest_access(&g, guest_linear(pte), UM_WRITE, UM_PRIV_KERNEL).hit);
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
	assert_int_equal(guest_store(&g, guest_linear(pde), other | RW, 8), UM_ACCESS_TRACKED);
	assert_int_equal(COUNT(&g, mmu_pte_write), 1);
	assert_int_equal(COUNT(&g, mmu_pde_zapped), 1);
	assert_null(guest_page_at(&g, UGVA, 1));
	/* No INVLPG: stricter than a TLB, but the guest may expect nothing else. */
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	assert_non_null(guest_page_at(&g, UGVA, 1));
	guest_destroy(&g);
}

/*
 * Loading CR3 and loading the old one again: no shadow page is made, TLB entries are still there.
 */
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
	guest_load(&g, guest_linear(0));
	guest_set_cr3(&g, b);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, UM_PRIV_KERNEL).result, UM_ACCESS_FAULT);
	guest_map(&g, UGVA, 9 * MB | RW, 1);
	g.ram[9 * MB] = 'b';
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	/* The kernel's half is the same shadow pages. */
	guest_load(&g, guest_linear(0));
	created = COUNT(&g, mmu_shadow_created);
	for (unsigned i = 0; i < 10; i++) {
		guest_set_cr3(&g, i % 2 ? b : a);
		assert_true(guest_access(&g, guest_linear(0), UM_READ, UM_PRIV_KERNEL).result ==
			    UM_ACCESS_OK);
		assert_int_equal(guest_load(&g, UGVA) & 0xff, i % 2 ? 'b' : 'a');
	}
	assert_int_equal(COUNT(&g, mmu_shadow_created), created);
	assert_true(COUNT(&g, mmu_root_reused) >= 10);
	guest_set_cr3(&g, a);
	guest_load(&g, guest_linear(0x5000));
	guest_set_cr3(&g, b);
	guest_set_cr3(&g, a);
	assert_true(guest_access(&g, guest_linear(0x5000), UM_READ, UM_PRIV_KERNEL).hit);
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
	guest_store(&g, guest_linear(pte), 9 * MB | RW | PTE_A, 8);
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
	guest_store(&g, guest_linear(pte), 8 * MB | RW | PTE_A, 8);
	um_mmu_invpcid(g.mmu, 1, 1, 0);
	g.cpu->cr3 = a | 1;
	um_mmu_new_cr3(g.mmu, false);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'a');
	/* One address of a PCID that isn't current. */
	g.cpu->cr3 = b | 2;
	um_mmu_new_cr3(g.mmu, false);
	guest_store(&g, guest_linear(pte), 9 * MB | RW | PTE_A, 8);
	um_mmu_invpcid(g.mmu, 0, 1, UGVA);
	g.cpu->cr3 = a | 1;
	um_mmu_new_cr3(g.mmu, false);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	/* All of them, by INVPCID types 2 and 3. */
	for (unsigned type = 2; type <= 3; type++) {
		guest_store(&g, guest_linear(pte), (type == 2 ? 8 : 9) * MB | RW | PTE_A, 8);
		um_mmu_invpcid(g.mmu, type, 0, 0);
		assert_int_equal(guest_load(&g, UGVA) & 0xff, type == 2 ? 'a' : 'b');
	}
	guest_destroy(&g);
}

/*
 * CR0.WP, EFER.NXE, CR4.SMEP: other rules at once, and the shadow pages of before when the bit
 * comes back.
 */
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
		assert_int_equal(guest_store(&g, guest_linear(pde + 8), 0, 8), UM_ACCESS_TRACKED);
		guest_load(&g, UGVA);
		um_tlb_flush(um_mmu_tlb(g.mmu));
		HOST_VOID(&g, um_mem_invalidate(g.mem, (hva_t)g.ram + 8 * MB,
						(hva_t)g.ram + 8 * MB + 1));
	}
	assert_int_equal(COUNT(&g, mmu_flooded), 0);
	guest_load(&g, UGVA);
	for (unsigned i = 0; i < 3; i++)
		guest_store(&g, guest_linear(pde + 16), i, 8);
	assert_int_equal(COUNT(&g, mmu_flooded), 1);
	/* Plain memory now. */
	assert_int_equal(guest_store(&g, guest_linear(pde + 16), 0, 8), UM_ACCESS_OK);
	assert_true(guest_access(&g, guest_linear(pde), UM_WRITE, UM_PRIV_KERNEL).hit);
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
	guest_store(&g, guest_linear(pde + 8), 0, 4); /* half an entry is fine */
	assert_int_equal(COUNT(&g, mmu_misaligned), 0);
	guest_store(&g, guest_linear(pde + 9), 0, 1);
	assert_int_equal(COUNT(&g, mmu_misaligned), 1);
	guest_load(&g, UGVA);
	guest_store(&g, guest_linear(pde + 12), 0, 8);
	assert_int_equal(COUNT(&g, mmu_misaligned), 2);
	guest_load(&g, UGVA);
	guest_destroy(&g);
}

/*
 * Large guest pages: one spte where that is possible, a direct page of small ones where it isn't.
 */
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

/*
 * A large page in whose range the tables lie that lead to it: they are shadowed only while it is
 * being mapped.
 */
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
	guest_load(&g, guest_linear(8 * MB));
	g.cpu->dr[1] = guest_linear(8 * MB) + 0x123;
	g.cpu->dr7 = 1u << 2 | 1u << 20; /* L1, writes */
	um_mmu_rights_changed(g.mmu);
	assert_false(guest_access(&g, guest_linear(8 * MB), UM_READ, 0).hit);
	assert_false(guest_access(&g, guest_linear(8 * MB), UM_READ, 0).hit);
	guest_access(&g, guest_linear(8 * MB), UM_FETCH, 0);
	assert_true(guest_access(&g, guest_linear(8 * MB), UM_FETCH, 0).hit);
	g.cpu->dr7 = 0;
	um_mmu_rights_changed(g.mmu);
	guest_load(&g, guest_linear(8 * MB));
	assert_true(guest_access(&g, guest_linear(8 * MB), UM_READ, 0).hit);
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
	guest_store(&g, guest_linear(pte), 8 * MB | RW | PTE_A, 8);
	um_mmu_invlpg(g.mmu, UGVA);
	guest_load(&g, UGVA);
	assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A);
	guest_store(&g, UGVA, 1, 1);
	assert_int_equal(guest_read(&g, pte) & (PTE_A | PTE_D), PTE_A | PTE_D);
	guest_store(&g, guest_linear(pte), 8 * MB | RW, 8);
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
	/*
	 * The last-level table through the recursive entry: it is a page then, and may be unsync.
	 */
	assert_int_equal(guest_load(&g, rec) & ~0xfffull, 8 * MB);
	guest_store(&g, rec, 9 * MB | RW, 8);
	um_mmu_invlpg(g.mmu, UGVA);
	assert_int_equal(guest_load(&g, UGVA) & 0xff, 'b');
	/*
	 * The root through itself four times is its own last level: such a frame can't be unsync.
	 */
	guest_load(&g, 0xffffff7fbfdfe000);
	assert_int_equal(guest_store(&g, 0xffffff7fbfdfe000 + 8 * (UGVA >> 39 & 511), 0, 8),
			 UM_ACCESS_TRACKED);
	um_mmu_invlpg(g.mmu, UGVA);
	assert_int_equal(guest_access(&g, UGVA, UM_READ, 0).result, UM_ACCESS_FAULT);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(missing_translation),
		cmocka_unit_test(guest_fault),
		cmocka_unit_test(unsync_invlpg),
		cmocka_unit_test(unsync_flush),
		cmocka_unit_test(upper_level_write),
		cmocka_unit_test(cr3_switch_back),
		cmocka_unit_test(many_roots),
		cmocka_unit_test(pcid),
		cmocka_unit_test(control_registers),
		cmocka_unit_test(pse_toggle),
		cmocka_unit_test(quadrants),
		cmocka_unit_test(flooding),
		cmocka_unit_test(misaligned_write),
		cmocka_unit_test(large_pages),
		cmocka_unit_test(large_page_dirty),
		cmocka_unit_test(large_page_over_its_tables),
		cmocka_unit_test(direct_mode),
		cmocka_unit_test(watchpoints),
		cmocka_unit_test(accessed_dirty_cleared),
		cmocka_unit_test(recursive_mapping),
		cmocka_unit_test(pdptrs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

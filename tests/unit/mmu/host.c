// SPDX-License-Identifier: MIT
/*
 * What the VMM and the host do: slots, dirty logs, devices, invalidations, the bounds of the MMU's
 * memory; and what it shows of itself.  One test each, all with the auditor after every step.
 */
#include "guest.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM (16 * MB)

static void init64(struct guest *g)
{
	guest_init_linear(g, RAM, false, true);
}

/*
 * Protected for the dirty log: the first write after each fetch of the log is seen, others cost
 * nothing.
 */
static void dirty_logging(void **state)
{
	u64 log[RAM / UM_PAGE_SIZE / 64];
	gpa_t a = 8 * MB, page = a / UM_PAGE_SIZE;
	struct guest g;

	init64(&g);
	guest_store(&g, guest_linear(a), 1, 8);
	assert_int_equal(guest_slot(&g, 0, 0, RAM, g.ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
	assert_false(guest_access(&g, guest_linear(a), UM_WRITE, UM_PRIV_KERNEL).hit);
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), 0);
	assert_true(log[page / 64] & BIT(page % 64));
	assert_false(log[(page + 1) / 64] & BIT((page + 1) % 64));
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), 0);
	assert_int_equal(log[page / 64], 0);

	guest_load(&g, guest_linear(a));
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), 0);
	assert_int_equal(log[page / 64], 0);
	guest_store(&g, guest_linear(a), 2, 8);
	assert_true(guest_access(&g, guest_linear(a), UM_WRITE, UM_PRIV_KERNEL).hit);
	guest_store(&g, guest_linear(a), 3, 8);
	/* Umbra's own writes count, and so do the A and D bits that the walker sets. */
	assert_int_equal(um_mem_write(g.mem, 0, 9 * MB, "x", 1), 0);
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), 0);
	assert_true(log[page / 64] & BIT(page % 64));
	assert_true(log[9 * MB / UM_PAGE_SIZE / 64] & BIT(9 * MB / UM_PAGE_SIZE % 64));

	assert_int_equal(guest_slot(&g, 0, 0, RAM, g.ram, 0), 0);
	assert_int_equal(HOST(&g, um_mem_get_dirty_log(g.mem, 0, log)), -2 /* ENOENT */);
	guest_store(&g, guest_linear(a), 4, 8);
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

static void invalidate(void **state)
{
	struct guest g;

	init64(&g);
	guest_load(&g, guest_linear(8 * MB));
	guest_load(&g, guest_linear(10 * MB));
	HOST_VOID(&g, um_mem_invalidate(g.mem, (hva_t)g.ram + 8 * MB, (hva_t)g.ram + 9 * MB));
	assert_int_equal(guest_spte(&g, guest_linear(8 * MB)), 0);
	assert_true(guest_spte(&g, guest_linear(10 * MB)) & SPTE_PRESENT);
	assert_false(guest_access(&g, guest_linear(8 * MB), UM_READ, UM_PRIV_KERNEL).hit);
	HOST_VOID(&g, um_mem_change(g.mem, (hva_t)g.ram + 10 * MB + 5));
	assert_int_equal(guest_spte(&g, guest_linear(10 * MB)), 0);
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
	guest_load(&g, guest_linear(8 * MB));
	HOST_VOID(&g, um_mem_invalidate_start(g.mem, (hva_t)g.ram + 8 * MB, (hva_t)g.ram + 9 * MB));
	guest_load(&g, guest_linear(10 * MB)); /* others don't */
	pthread_create(&t, NULL, end_invalidation, &g);
	assert_int_equal(guest_load(&g, guest_linear(8 * MB)) & 0xff, 'n');
	pthread_join(t, NULL);
	guest_destroy(&g);
}

static void aging(void **state)
{
	hva_t page;
	struct guest g;

	init64(&g);
	page = (hva_t)g.ram + 8 * MB;
	guest_load(&g, guest_linear(8 * MB));
	assert_true(HOST(&g, um_mem_test_young(g.mem, page, page + 4096)));
	assert_true(HOST(&g, um_mem_clear_young(g.mem, page, page + 4096)));
	assert_false(HOST(&g, um_mem_test_young(g.mem, page, page + 4096)));
	assert_false(HOST(&g, um_mem_clear_young(g.mem, page, page + 4096)));
	/* The neighbours were made on suspicion only. */
	assert_true(guest_spte(&g, guest_linear(8 * MB + 4096)) & SPTE_PRESENT);
	assert_false(HOST(&g, um_mem_test_young(g.mem, page + 4096, page + 2 * 4096)));
	guest_load(&g, guest_linear(8 * MB));
	assert_true(HOST(&g, um_mem_test_young(g.mem, page, page + 4096)));
	guest_destroy(&g);
}

/* Host memory that is gone is an answer, not a crash. */
static void host_page_gone(void **state)
{
	struct guest g;

	init64(&g);
	guest_load(&g, guest_linear(8 * MB));
	munmap(g.ram + 8 * MB, 4096);
	HOST_VOID(&g,
		  um_mem_invalidate(g.mem, (hva_t)g.ram + 8 * MB, (hva_t)g.ram + 8 * MB + 4096));
	assert_int_equal(guest_access(&g, guest_linear(8 * MB), UM_READ, 0).result, UM_ACCESS_HOST);
	mprotect(g.ram + 9 * MB, 4096, PROT_READ);
	assert_int_equal(guest_access(&g, guest_linear(9 * MB), UM_READ, 0).result, UM_ACCESS_OK);
	HOST_VOID(&g,
		  um_mem_invalidate(g.mem, (hva_t)g.ram + 9 * MB, (hva_t)g.ram + 9 * MB + 4096));
	assert_int_equal(guest_access(&g, guest_linear(9 * MB), UM_WRITE, 0).result,
			 UM_ACCESS_HOST);
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
	guest_load(&g, guest_linear(0));
	assert_int_equal(guest_slot(&g, 0, 0, 0, NULL, 0), 0);
	assert_int_equal(guest_access(&g, guest_linear(0), UM_READ, 0).result, UM_ACCESS_FAULT);
	assert_int_equal(guest_slot(&g, 0, 0, RAM, g.ram, 0), 0);
	g.ram[0] = 'z';
	assert_int_equal(guest_load(&g, guest_linear(0)) & 0xff, 'z');
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

static void dump(void **state)
{
	char *text = NULL;
	size_t size = 0;
	struct guest g;
	FILE *f;

	init64(&g);
	guest_load(&g, guest_linear(8 * MB));
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
	guest_store(&g, guest_linear(8 * MB), 1, 8);
	g.vm->cfg.audit = false;
	sp = guest_page_at(&g, guest_linear(8 * MB), 1);
	spte = sp->spt[0];
	assert_int_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	/* A guest entry changed behind its back; rights; another host page. */
	guest_write(&g, guest_entry(&g, guest_linear(8 * MB), 1), 9 * MB | RW);
	assert_int_not_equal(HOST(&g, um_mmu_audit(g.vm, why, sizeof(why))), 0);
	guest_write(&g, guest_entry(&g, guest_linear(8 * MB), 1),
		    8 * MB | PTE_P | PTE_W | PTE_A | PTE_D);
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
		cmocka_unit_test(dirty_logging),
		cmocka_unit_test(mmio),
		cmocka_unit_test(mmio_generation_wraps),
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
		cmocka_unit_test(probe),
		cmocka_unit_test(dump),
		cmocka_unit_test(auditor_sees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

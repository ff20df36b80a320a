// SPDX-License-Identifier: MIT
/*
 * The two address spaces that slots are in, as a processor sees them that enters and leaves
 * system-management mode: each with its own slots, shadow pages and TLB contexts, and with memory
 * in common.  The auditor looks after every step.
 */
#include "guest.h"

#include <errno.h>
#include <sys/mman.h>

#define RAM   (16 * MB)
#define SMM   ((u32)UM_AS_SMM << 16) /* bits of a slot's number */
#define SMRAM (8 * MB)

struct machine {
	struct guest g;
	u8 *smram; /* what the second address space has at SMRAM; the rest is RAM in both */
};

static void init(struct machine *m, bool tdp, enum guest_mode mode)
{
	struct guest *g = &m->g;

	guest_init(g, RAM, tdp, true);
	guest_paging(g, mode);
	m->smram = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(m->smram, MAP_FAILED);
	assert_int_equal(guest_slot(g, SMM | 0, 0, SMRAM, g->ram, 0), 0);
	assert_int_equal(guest_slot(g, SMM | 1, SMRAM, MB, m->smram, 0), 0);
	assert_int_equal(guest_slot(g, SMM | 2, SMRAM + MB, 7 * MB, g->ram + SMRAM + MB, 0), 0);
	if (mode == GUEST_64) {
		for (gpa_t a = 0; a < RAM; a += UM_PAGE_SIZE)
			guest_map(g, KGVA + a, a | PTE_P | PTE_W | PTE_A | PTE_D, 1);
	}
	g->ram[SMRAM] = 'r';
	m->smram[0] = 's';
}

static void destroy(struct machine *m)
{
	guest_destroy(&m->g);
	munmap(m->smram, MB);
}

static void set_smm(struct guest *g, bool smm)
{
	g->cpu->smm = smm;
	um_mmu_reset_context(g->mmu);
}

/* What is at an address depends on the mode, whatever was cached before. */
static void own_memory(void **state)
{
	static const enum guest_mode modes[] = { GUEST_REAL, GUEST_64 };

	for (unsigned i = 0; i < 4; i++) {
		enum guest_mode mode = modes[i & 1];
		gva_t base = mode == GUEST_64 ? KGVA : 0;
		struct machine m;
		struct guest *g = &m.g;

		init(&m, i & 2, mode);
		for (unsigned round = 0; round < 3; round++) {
			assert_int_equal(guest_load(g, base + SMRAM) & 0xff, 'r');
			set_smm(g, true);
			assert_int_equal(guest_load(g, base + SMRAM) & 0xff, 's');
			assert_int_equal(guest_store(g, base + SMRAM + 8, round, 1), UM_ACCESS_OK);
			assert_int_equal(m.smram[8], round);
			assert_int_equal(guest_store(g, base + 4 * MB, round, 1), UM_ACCESS_OK);
			set_smm(g, false);
			assert_int_equal(guest_load(g, base + 4 * MB) & 0xff, round);
			assert_int_equal(guest_load(g, base + SMRAM + 8) & 0xff, 0);
		}
		destroy(&m);
	}
}

/* Tables in memory that both have: who stores to them where is seen by the other's shadow pages. */
static void common_tables(void **state)
{
	struct machine m;
	struct guest *g = &m.g;
	gpa_t pte, pde, other;

	init(&m, false, GUEST_64);
	g->ram[4 * MB] = 'a';
	g->ram[5 * MB] = 'b';
	g->ram[6 * MB] = 'c';
	pte = guest_map(g, UGVA, 4 * MB | RW, 1);
	pde = guest_entry(g, UGVA, 2);
	other = guest_table(g);
	guest_write(g, other, 6 * MB | RW | PTE_A);
	assert_int_equal(guest_load(g, UGVA) & 0xff, 'a');

	set_smm(g, true);
	assert_int_equal(guest_load(g, UGVA) & 0xff, 'a');
	guest_store(g, KGVA + pte, 5 * MB | RW, 8);
	um_mmu_invlpg(g->mmu, UGVA);
	assert_int_equal(guest_load(g, UGVA) & 0xff, 'b');
	set_smm(g, false);
	assert_int_equal(guest_load(g, UGVA) & 0xff, 'b');

	/*
	 * An upper level, in the other direction; the table had no shadow page in this space
	 * before.
	 */
	set_smm(g, true);
	assert_int_equal(guest_store(g, KGVA + pde, other | RW, 8), UM_ACCESS_TRACKED);
	set_smm(g, false);
	assert_int_equal(guest_load(g, UGVA) & 0xff, 'c');
	guest_store(g, KGVA + pde, (pte & GPTE_ADDR) | RW, 8);
	um_mmu_invlpg(g->mmu, UGVA);
	assert_int_equal(guest_load(g, UGVA) & 0xff, 'b');
	set_smm(g, true);
	assert_int_equal(guest_load(g, UGVA) & 0xff, 'b');
	destroy(&m);
}

/*
 * Slots of one space come and go without a trace in the other, but that tables in the way are
 * zapped.
 */
static void slots(void **state)
{
	struct machine m;
	struct guest *g = &m.g;

	init(&m, false, GUEST_64);
	guest_load(g, KGVA + SMRAM);
	set_smm(g, true);
	guest_load(g, KGVA + SMRAM);
	assert_int_equal(guest_slot(g, SMM | 1, 0, 0, NULL, 0), 0);
	assert_int_equal(guest_access(g, KGVA + SMRAM, UM_READ, 0).result, UM_ACCESS_MMIO);
	set_smm(g, false);
	assert_int_equal(guest_load(g, KGVA + SMRAM) & 0xff, 'r');

	/* The slot of the tables: gone from one space, then there again. */
	assert_int_equal(guest_slot(g, SMM | 0, 0, 0, NULL, 0), 0);
	assert_int_equal(guest_load(g, KGVA + SMRAM) & 0xff, 'r');
	assert_int_equal(guest_slot(g, SMM | 0, 0, SMRAM, g->ram, 0), 0);
	assert_int_equal(guest_load(g, KGVA + SMRAM) & 0xff, 'r');
	set_smm(g, true);
	assert_int_equal(guest_slot(g, SMM | 1, SMRAM, MB, m.smram, 0), 0);
	assert_int_equal(guest_load(g, KGVA + SMRAM) & 0xff, 's');

	/* Overlap is a matter of one space; numbers, too. */
	assert_int_equal(guest_slot(g, SMM | 5, SMRAM, MB, m.smram, 0), -EEXIST);
	assert_int_equal(guest_slot(g, 5, RAM + MB, MB, m.smram, 0), 0);
	assert_int_equal(guest_slot(g, 2u << 16, RAM + MB, MB, m.smram, 0), -EINVAL);
	destroy(&m);
}

/* A dirty log is of one slot, in one space. */
static void logs(void **state)
{
	struct machine m;
	struct guest *g = &m.g;
	u64 log[RAM / UM_PAGE_SIZE / 64];

	init(&m, false, GUEST_64);
	assert_int_equal(guest_slot(g, SMM | 1, SMRAM, MB, m.smram, KVM_MEM_LOG_DIRTY_PAGES), 0);
	guest_store(g, KGVA + SMRAM, 'R', 1);
	assert_int_equal(HOST(g, um_mem_get_dirty_log(g->mem, SMM | 1, log)), 0);
	assert_int_equal(log[0], 0);
	set_smm(g, true);
	guest_store(g, KGVA + SMRAM + UM_PAGE_SIZE, 'S', 1);
	assert_int_equal(um_mem_write(g->mem, UM_AS_SMM, SMRAM + 2 * UM_PAGE_SIZE, "S", 1), 0);
	assert_int_equal(HOST(g, um_mem_get_dirty_log(g->mem, SMM | 1, log)), 0);
	assert_int_equal(log[0], BIT(1) | BIT(2));
	guest_store(g, KGVA + SMRAM + UM_PAGE_SIZE, 'T', 1);
	assert_int_equal(HOST(g, um_mem_get_dirty_log(g->mem, SMM | 1, log)), 0);
	assert_int_equal(log[0], BIT(1));
	assert_int_equal(HOST(g, um_mem_get_dirty_log(g->mem, 1, log)), -ENOENT);
	assert_int_equal(HOST(g, um_mem_get_dirty_log(g->mem, 2 << 16, log)), -EINVAL);
	destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_memory),
		cmocka_unit_test(common_tables),
		cmocka_unit_test(slots),
		cmocka_unit_test(logs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

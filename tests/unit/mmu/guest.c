// SPDX-License-Identifier: MIT
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/uaccess.h"

int guest_slot(struct guest *g, u32 slot, gpa_t gpa, u64 size, void *hva, u32 flags)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return g->mmu ? HOST(g, um_mem_set_region(g->mem, &r)) : um_mem_set_region(g->mem, &r);
}

/* cmocka puts its own signal handlers in place for every test; the accessors need the library's. */
static void install_handlers(void)
{
	static struct sigaction ours[2];
	static bool have;

	assert_int_equal(um_uaccess_init(), 0);
	if (!have) {
		sigaction(SIGSEGV, NULL, &ours[0]);
		sigaction(SIGBUS, NULL, &ours[1]);
		have = true;
	}
	sigaction(SIGSEGV, &ours[0], NULL);
	sigaction(SIGBUS, &ours[1], NULL);
}

static void kick(void *opaque) {}

void guest_init(struct guest *g, size_t size, bool tdp, bool audit)
{
	struct um_mmu_config cfg = { .tdp = tdp, .audit = audit };

	memset(g, 0, sizeof(*g));
	install_handlers();
	g->mem = um_mem_create(&g->trace);
	assert_non_null(g->mem);
	cfg.trace = &g->trace;
	cfg.counters = &g->counters;
	g->vm = um_mmu_vm_create(g->mem, &cfg);
	assert_non_null(g->vm);
	g->size = size;
	g->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(g->ram, MAP_FAILED);
	assert_int_equal(guest_slot(g, 0, 0, size, g->ram, 0), 0);
	g->cpu = aligned_alloc(64, ALIGN_UP(sizeof(*g->cpu), 64));
	memset(g->cpu, 0, sizeof(*g->cpu));
	g->cpu->maxphyaddr = 40;
	g->cpu->ncpuid = 2;
	g->cpu->cpuid[0] = (struct um_cpuid_entry){ .function = 1, .edx = 1u << 17 };
	g->cpu->cpuid[1] = (struct um_cpuid_entry){ .function = 0x80000001, .edx = 1u << 26 };
	g->mmu = um_mmu_create(g->vm, g->cpu, &g->counters, kick, NULL);
	assert_non_null(g->mmu);
	g->next_table = 1 * MB;
	assert_int_equal(um_mmu_enter(g->mmu), 0);
}

void guest_init_linear(struct guest *g, size_t size, bool tdp, bool audit)
{
	guest_init(g, size, tdp, audit);
	guest_paging(g, GUEST_64);
	for (gpa_t a = 0; a < size; a += UM_PAGE_SIZE)
		guest_map(g, guest_linear(a), a | PTE_P | PTE_W | PTE_A | PTE_D, 1);
}

void guest_destroy(struct guest *g)
{
	guest_audit(g);
	um_mmu_leave(g->mmu);
	um_mmu_destroy(g->mmu);
	assert_int_equal(g->vm->audit_failures, 0);
	um_mmu_vm_destroy(g->vm);
	um_mem_destroy(g->mem);
	munmap(g->ram, g->size);
	free(g->cpu);
}

static unsigned entry_size(const struct guest *g)
{
	return g->mode == GUEST_32 || g->mode == GUEST_PSE ? 4 : 8;
}

static unsigned top_level(const struct guest *g)
{
	switch (g->mode) {
	case GUEST_64:
		return 4;
	case GUEST_LA57:
		return 5;
	default:
		return 2;
	}
}

u64 guest_read(struct guest *g, gpa_t gpa)
{
	u64 v = 0;

	memcpy(&v, g->ram + gpa, entry_size(g));
	return v;
}

void guest_write(struct guest *g, gpa_t gpa, u64 entry)
{
	memcpy(g->ram + gpa, &entry, entry_size(g));
}

gpa_t guest_table(struct guest *g)
{
	gpa_t t = g->next_table;

	g->next_table += UM_PAGE_SIZE;
	assert_true(g->next_table <= 4 * MB);
	memset(g->ram + t, 0, UM_PAGE_SIZE);
	return t;
}

/* For PAE: a page that holds the four PDPTEs, each with its own page directory. */
gpa_t guest_new_root(struct guest *g)
{
	gpa_t root = guest_table(g);

	if (g->mode == GUEST_PAE) {
		for (unsigned i = 0; i < 4; i++)
			guest_write(g, root + i * 8, guest_table(g) | PTE_P);
	}
	return root;
}

void guest_set_cr3(struct guest *g, gpa_t root)
{
	g->cpu->cr3 = root;
	if (g->mode == GUEST_PAE)
		assert_int_equal(um_mmu_load_pdptrs(g->mmu, root, g->cpu->pdptr), 0);
	um_mmu_new_cr3(g->mmu, true);
}

void guest_paging(struct guest *g, enum guest_mode mode)
{
	struct um_cpu *c = g->cpu;

	g->mode = mode;
	c->cr0 = CR0_PE | CR0_WP | (mode == GUEST_REAL ? 0 : CR0_PG);
	c->cr4 = 0;
	c->efer = 0;
	if (mode == GUEST_PSE)
		c->cr4 |= CR4_PSE;
	if (mode >= GUEST_PAE) {
		c->cr4 |= CR4_PAE;
		c->efer |= EFER_NXE;
	}
	if (mode >= GUEST_64)
		c->efer |= EFER_LME | EFER_LMA;
	if (mode == GUEST_LA57)
		c->cr4 |= CR4_LA57;
	if (mode != GUEST_REAL) {
		c->cr3 = guest_new_root(g);
		if (mode == GUEST_PAE)
			assert_int_equal(um_mmu_load_pdptrs(g->mmu, c->cr3, c->pdptr), 0);
	}
	um_mmu_reset_context(g->mmu);
}

gpa_t guest_entry(struct guest *g, gva_t gva, unsigned level)
{
	unsigned size = entry_size(g), bits = size == 8 ? 9 : 10;
	gpa_t table = g->cpu->cr3 & GPTE_ADDR;

	if (g->mode == GUEST_PAE)
		table = guest_read(g, (g->cpu->cr3 & ~0x1full) + ((gva >> 30) & 3) * 8) & GPTE_ADDR;
	for (unsigned l = top_level(g);; l--) {
		gpa_t e = table + ((gva >> (12 + bits * (l - 1))) & ((1u << bits) - 1)) * size;

		if (l == level)
			return e;
		if (!(guest_read(g, e) & PTE_P))
			guest_write(g, e, guest_table(g) | PTE_P | PTE_W | PTE_U | PTE_A);
		table = guest_read(g, e) & GPTE_ADDR;
	}
}

gpa_t guest_map(struct guest *g, gva_t gva, u64 entry, unsigned level)
{
	gpa_t e = guest_entry(g, gva, level);

	guest_write(g, e, entry);
	return e;
}

struct outcome guest_access(struct guest *g, gva_t gva, enum um_access acc, enum um_tlb_priv priv)
{
	struct um_tlb *t = um_mmu_tlb(g->mmu);
	struct um_fault f = { .gva = gva, .acc = acc, .priv = priv };
	struct outcome o = { 0 };

	/* As an engine does between instructions. */
	if (atomic_load(&t->flush)) {
		um_mmu_leave(g->mmu);
		assert_int_equal(um_mmu_enter(g->mmu), 0);
	}
	o.hva = um_tlb_lookup(t, gva, acc, t->ctx[priv]);
	if (o.hva) {
		o.hit = true;
		o.result = UM_ACCESS_OK;
		return o;
	}
	o.result = um_mmu_access(g->mmu, &f);
	o.error = f.error_code;
	o.gpa = f.gpa;
	o.hva = f.hva;
	return o;
}

u64 guest_load(struct guest *g, gva_t gva)
{
	struct outcome o = guest_access(g, gva, UM_READ, UM_PRIV_KERNEL);
	u64 v = 0;

	assert_int_equal(o.result, UM_ACCESS_OK);
	assert_true(um_get64(o.hva, &v));
	return v;
}

enum um_access_result guest_store(struct guest *g, gva_t gva, u64 val, unsigned size)
{
	struct outcome o = guest_access(g, gva, UM_WRITE, UM_PRIV_KERNEL);

	if (o.result != UM_ACCESS_OK && o.result != UM_ACCESS_TRACKED)
		return o.result;
	assert_int_equal(um_copy_to(o.hva, &val, size), 0);
	if (o.result == UM_ACCESS_TRACKED)
		um_mmu_written(g->mmu, o.gpa, size);
	return o.result;
}

struct um_shadow_page *guest_page_at(struct guest *g, u64 addr, unsigned level)
{
	const struct um_mmu *m = g->mmu;
	unsigned l = m->root_level;
	struct um_shadow_page *sp = m->root->sp[l == 2 ? (addr >> 30) & 3 : 0];

	for (; sp && l > level; l--) {
		u64 spte = sp->spt[spt_index(addr, l)];

		if (!spte_nonleaf(spte, l))
			return NULL;
		sp = um_sptep_page(spte_child(spte));
	}
	return sp;
}

u64 guest_spte(struct guest *g, u64 addr)
{
	for (unsigned level = 1; level <= 3; level++) {
		struct um_shadow_page *sp = guest_page_at(g, addr, level);

		if (sp)
			return sp->spt[spt_index(addr, level)];
	}
	return 0;
}

void guest_audit(struct guest *g)
{
	char why[256] = "";

	/* TLBs of vCPUs that run are left out. */
	if (HOST(g, um_mmu_audit(g->vm, why, sizeof(why))))
		fail_msg("audit: %s", why);
}

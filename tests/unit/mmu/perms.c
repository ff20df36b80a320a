// SPDX-License-Identifier: MIT
/*
 * Every combination of P, W, U, A, D, PS, NX, a reserved bit and a protection key in one entry, at
 * every level of every paging mode, with every combination of CR0.WP, CR4.SMEP, SMAP, PKE and
 * EFER.NXE, for every kind of access and privilege, against the oracle: result, exact error code,
 * physical address, accessed and dirty bits.  In shadow mode and in two-dimensional mode.  Then
 * random bits in all levels at once.
 */
#include "oracle.h"

#include <stdlib.h>
#include <string.h>

#define RAM	(16 * MB)
#define NR_KIND 9 /* 3 accesses x 3 privileges */

static unsigned long checked;

static u64 entry_at(struct guest *g, gpa_t gpa)
{
	return guest_read(g, gpa);
}

/* One access, compared in everything that a guest can see. */
static void check(struct guest *g, gva_t gva, enum um_access acc, enum um_tlb_priv priv)
{
	struct verdict v = oracle(g, gva, acc, priv);
	u64 before[5];
	struct outcome o;

	for (unsigned i = 0; i < v.n; i++)
		before[i] = entry_at(g, v.entry[i]);
	o = guest_access(g, gva, acc, priv);
	checked++;

	if (v.fault != (o.result == UM_ACCESS_FAULT) || o.error != v.error) {
		for (unsigned i = 0; i < v.n; i++)
			print_error("entry %u: %#lx\n", i, before[i]);
		fail_msg("mode %d gva %#lx acc %d priv %d cr0 %#lx cr4 %#lx efer %#lx pkru %#x: "
			 "result %d error %#x, expected %s %#x",
			 g->mode, gva, acc, priv, g->cpu->cr0, g->cpu->cr4, g->cpu->efer,
			 g->cpu->fpu.pkru, o.result, o.error, v.fault ? "fault" : "ok", v.error);
	}
	if (!v.fault) {
		if (v.gpa < RAM) {
			if (o.result != UM_ACCESS_OK && o.result != UM_ACCESS_TRACKED)
				fail_msg("gpa %#lx: result %d", v.gpa, o.result);
			if (o.hva != g->ram + v.gpa)
				fail_msg("gpa %#lx: wrong host address", v.gpa);
		} else if (o.result != UM_ACCESS_MMIO || o.gpa != v.gpa) {
			fail_msg("mmio gpa %#lx: result %d gpa %#lx", v.gpa, o.result, o.gpa);
		}
	}
	for (unsigned i = 0; i < v.n; i++) {
		u64 want = before[i];

		if (!v.fault)
			want |= PTE_A;
		if (v.sets_dirty && i == v.n - 1)
			want |= PTE_D;
		if (entry_at(g, v.entry[i]) != want)
			fail_msg("mode %d gva %#lx acc %d: entry %u was %#lx, is %#lx, expected "
				 "%#lx",
				 g->mode, gva, acc, i, before[i], entry_at(g, v.entry[i]), want);
	}
}

static void check_kinds(struct guest *g, gva_t gva)
{
	for (unsigned k = 0; k < NR_KIND; k++)
		check(g, gva, (enum um_access)(k % 3), (enum um_tlb_priv)(k / 3));
}

static void set_controls(struct guest *g, unsigned n)
{
	struct um_cpu *c = g->cpu;

	c->cr0 = n & 1 ? c->cr0 | CR0_WP : c->cr0 & ~CR0_WP;
	c->cr4 = n & 2 ? c->cr4 | CR4_SMEP : c->cr4 & ~CR4_SMEP;
	c->cr4 = n & 4 ? c->cr4 | CR4_SMAP : c->cr4 & ~CR4_SMAP;
	if (g->mode >= GUEST_PAE)
		c->efer = n & 8 ? c->efer | EFER_NXE : c->efer & ~EFER_NXE;
	c->cr4 = n & 16 ? c->cr4 | CR4_PKE : c->cr4 & ~CR4_PKE;
	um_mmu_reset_context(g->mmu);
}

/* Combinations of control bits that mean something in the mode. */
static unsigned nr_controls(const struct guest *g)
{
	return g->mode >= GUEST_64 ? 32 : g->mode == GUEST_PAE ? 16 : 8;
}

static unsigned levels(const struct guest *g)
{
	return g->mode == GUEST_64 ? 4 : g->mode == GUEST_LA57 ? 5 : 2;
}

/* The same as a guest's store to its table, followed by what makes it visible. */
static void set_entry(struct guest *g, gva_t gva, gpa_t gpa, u64 e)
{
	guest_write(g, gpa, e);
	um_mmu_written(g->mmu, gpa, g->mode == GUEST_32 || g->mode == GUEST_PSE ? 4 : 8);
	/* Nobody watches tables in two-dimensional mode. */
	if (g->vm->cfg.tdp)
		um_mmu_invlpg(g->mmu, gva);
}

/* Apply pattern @bits to @base, an entry of @level whose other bits are permissive. */
static u64 pattern(const struct guest *g, u64 base, unsigned level, unsigned bits)
{
	static const u64 keys[4] = { 0, 1, 2, 3 };
	u64 e = base & ~(PTE_P | PTE_W | PTE_U | PTE_A | PTE_D);

	e |= (bits & 1 ? PTE_P : 0) | (bits & 2 ? PTE_W : 0) | (bits & 4 ? PTE_U : 0) |
	     (bits & 8 ? PTE_A : 0) | (bits & 16 ? PTE_D : 0);
	if (bits & 32)
		e ^= PTE_PS;
	if (g->mode >= GUEST_PAE)
		e |= bits & 64 ? PTE_NX : 0;
	if (bits & 128)
		e |= g->mode >= GUEST_64 ? BIT(45) : g->mode == GUEST_PAE ? BIT(55) : BIT(21);
	if (g->mode >= GUEST_64)
		e |= keys[(bits >> 8) & 3] << 59;
	return e;
}

static void enumerate(struct guest *g, gva_t gva, unsigned leaf)
{
	u64 leaf_bits = PTE_P | PTE_W | PTE_U | (leaf > 1 ? PTE_PS : 0);
	unsigned npatterns = g->mode >= GUEST_64 ? 1024 : 256;

	guest_map(g, gva, (leaf == 3 ? 0 : 8 * MB) | leaf_bits, leaf);
	for (unsigned level = leaf; level <= levels(g); level++) {
		gpa_t entry = guest_entry(g, gva, level);
		u64 base = entry_at(g, entry);

		for (unsigned n = 0; n < nr_controls(g); n++) {
			set_controls(g, n);
			/* Key 1: no access; 2: no writes; 3: both. */
			g->cpu->fpu.pkru = 1u << 2 | 2u << 4 | 3u << 6;
			um_mmu_rights_changed(g->mmu);
			for (unsigned bits = 0; bits < npatterns; bits++) {
				set_entry(g, gva, entry, pattern(g, base, level, bits));
				check_kinds(g, gva);
			}
		}
		set_entry(g, gva, entry, base);
	}
	set_entry(g, gva, guest_entry(g, gva, leaf), 0);
	guest_audit(g);
}

static void enumerate_mode(enum guest_mode mode, bool tdp)
{
	gva_t gva = mode >= GUEST_64 ? 0x7f4140000000 + 8 * MB : 0x40000000 + 8 * MB;
	struct guest g;

	checked = 0;
	guest_init(&g, RAM, tdp, false);
	guest_paging(&g, mode);
	for (unsigned leaf = 1; leaf <= 3; leaf++) {
		if ((leaf == 2 && mode == GUEST_32) || (leaf == 3 && mode < GUEST_64))
			continue;
		enumerate(&g, gva + 0x1000 * leaf, leaf);
	}
	print_message("mode %d%s: %lu accesses\n", mode, tdp ? " tdp" : "", checked);
	assert_true(checked > 10000);
	guest_destroy(&g);
}

static void all_modes_shadow(void **state)
{
	for (enum guest_mode mode = GUEST_32; mode <= GUEST_LA57; mode++)
		enumerate_mode(mode, false);
}

static void all_modes_tdp(void **state)
{
	for (enum guest_mode mode = GUEST_32; mode <= GUEST_LA57; mode++)
		enumerate_mode(mode, true);
}

static void random_entries(void **state)
{
	u64 seed = 12345;

	for (unsigned run = 0; run < 10; run++) {
		enum guest_mode mode = GUEST_32 + run % 5;
		gva_t gva = mode >= GUEST_64 ? 0xffff800000000000 : 0;
		struct guest g;

		guest_init(&g, RAM, run >= 5, false);
		guest_paging(&g, mode);
		for (unsigned i = 0; i < 4000; i++) {
			gva_t at = gva + (i % 4 * 0x1000);
			unsigned rnd[6];

			guest_map(&g, at, (8 * MB + i % 4 * 0x1000) | PTE_P, 1);
			for (unsigned l = 1; l <= 5; l++) {
				seed = seed * 6364136223846793005ull + 1442695040888963407ull;
				rnd[l] = seed >> 33;
			}
			set_controls(&g, rnd[1] >> 20);
			g.cpu->fpu.pkru = 0xe4;
			um_mmu_rights_changed(g.mmu);
			for (unsigned l = 1; l <= levels(&g); l++) {
				gpa_t e = guest_entry(&g, at, l);
				/* Mostly present, rarely large or reserved. */
				unsigned bits = rnd[l] & 0x37f & ~32u;

				if (rnd[l] >> 12 & 15)
					bits |= 7;
				set_entry(&g, at, e, pattern(&g, entry_at(&g, e), l, bits));
			}
			check_kinds(&g, at);
			/* Undo what cuts tables off, for the next guest_map(). */
			for (unsigned l = levels(&g); l >= 2; l--) {
				gpa_t e = guest_entry(&g, at, l);

				set_entry(&g, at, e,
					  (entry_at(&g, e) & GENMASK(39, 12)) | PTE_P | PTE_W |
						  PTE_U);
			}
		}
		guest_destroy(&g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_modes_shadow),
		cmocka_unit_test(all_modes_tdp),
		cmocka_unit_test(random_entries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

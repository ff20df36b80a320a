// SPDX-License-Identifier: MIT
#include "oracle.h"

#include <string.h>

/* The state of one translation. */
struct t {
	struct guest *g;
	struct verdict v;
	bool w, u, nx; /* of all entries: all writable, all user, any NX */
	unsigned pk;
	bool present, reserved;
};

static u64 bits(unsigned hi, unsigned lo)
{
	u64 m = 0;

	for (unsigned i = lo; i <= hi && i < 64; i++)
		m |= 1ull << i;
	return m;
}

static u64 fetch_entry(struct t *t, gpa_t gpa, unsigned size)
{
	u64 e = 0;

	memcpy(&e, t->g->ram + gpa, size);
	t->v.entry[t->v.n++] = gpa;
	return e;
}

/* Take one entry into account.  @rsvd: its reserved bits.  Returns false if the walk ends here. */
static bool use(struct t *t, u64 e, u64 rsvd)
{
	if (!(e & 1)) {
		t->present = false;
		return false;
	}
	if (e & rsvd) {
		t->reserved = true;
		return false;
	}
	t->w &= e >> 1 & 1;
	t->u &= e >> 2 & 1;
	t->nx |= e >> 63;
	return true;
}

/* 4.3: 32-bit paging. */
static void walk_32(struct t *t, gva_t gva)
{
	const struct um_cpu *c = t->g->cpu;
	u64 pde = fetch_entry(t, (c->cr3 & 0xfffff000) + (gva >> 22 & 0x3ff) * 4, 4), pte;

	if ((c->cr4 & CR4_PSE) && (pde & 0x80)) {
		/* Table 4-4, with PSE-36 and M = min(40, MAXPHYADDR): bits 21:(M-19). */
		unsigned m = c->maxphyaddr < 40 ? c->maxphyaddr : 40;

		t->v.leaf_level = 2;
		if (use(t, pde, bits(21, m - 19)))
			t->v.gpa = (pde & 0xffc00000) | (pde >> 13 & 0xff) << 32 | (gva & 0x3fffff);
		return;
	}
	if (!use(t, pde, 0))
		return;
	pte = fetch_entry(t, (pde & 0xfffff000) + (gva >> 12 & 0x3ff) * 4, 4);
	t->v.leaf_level = 1;
	if (use(t, pte, 0))
		t->v.gpa = (pte & 0xfffff000) | (gva & 0xfff);
}

/* 4.4.2: PAE, from the PDPTE registers. */
static void walk_pae(struct t *t, gva_t gva)
{
	const struct um_cpu *c = t->g->cpu;
	u64 pdpte = c->pdptr[gva >> 30 & 3], pde, pte;
	u64 rsvd = bits(62, c->maxphyaddr) | (c->efer & EFER_NXE ? 0 : 1ull << 63);
	u64 addr = bits(c->maxphyaddr - 1, 12);

	if (!(pdpte & 1)) {
		t->present = false;
		return;
	}
	pde = fetch_entry(t, (pdpte & addr) + (gva >> 21 & 0x1ff) * 8, 8);
	if (pde & 0x80) {
		t->v.leaf_level = 2;
		if (use(t, pde, rsvd | bits(20, 13)))
			t->v.gpa = (pde & addr & ~0x1fffffull) | (gva & 0x1fffff);
		return;
	}
	if (!use(t, pde, rsvd))
		return;
	pte = fetch_entry(t, (pde & addr) + (gva >> 12 & 0x1ff) * 8, 8);
	t->v.leaf_level = 1;
	if (use(t, pte, rsvd))
		t->v.gpa = (pte & addr) | (gva & 0xfff);
}

/* 4.5: 4- and 5-level paging. */
static void walk_64(struct t *t, gva_t gva)
{
	const struct um_cpu *c = t->g->cpu;
	u64 rsvd = bits(51, c->maxphyaddr) | (c->efer & EFER_NXE ? 0 : 1ull << 63);
	u64 addr = bits(c->maxphyaddr - 1, 12), table = c->cr3 & addr;

	for (int level = c->cr4 & CR4_LA57 ? 5 : 4; level >= 1; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		u64 e = fetch_entry(t, table + (gva >> shift & 0x1ff) * 8, 8), r = rsvd;
		bool leaf = level == 1;

		if (level >= 4)
			r |= 0x80; /* PS is reserved in PML5E and PML4E */
		if ((level == 2 || level == 3) && (e & 0x80)) {
			leaf = true;
			r |= bits(shift - 1, 13);
		}
		if (leaf)
			t->v.leaf_level = level;
		if (!use(t, e, r))
			return;
		if (leaf) {
			t->v.gpa =
				(e & addr & ~((1ull << shift) - 1)) | (gva & ((1ull << shift) - 1));
			t->pk = e >> 59 & 15;
			return;
		}
		table = e & addr;
	}
}

/* 4.6.1 and 4.6.2: does the processor allow it?  Sets *@pk_violation. */
static bool permitted(const struct t *t, enum um_access acc, bool user_mode, bool ac,
		      bool *pk_violation)
{
	const struct um_cpu *c = t->g->cpu;
	bool wp = c->cr0 & CR0_WP, smep = c->cr4 & CR4_SMEP, smap = c->cr4 & CR4_SMAP;
	bool user_address = t->u;

	*pk_violation = false;
	if ((c->efer & EFER_LMA) && (c->cr4 & CR4_PKE) && user_address && acc != UM_FETCH) {
		bool ad = c->fpu.pkru >> (2 * t->pk) & 1, wd = c->fpu.pkru >> (2 * t->pk + 1) & 1;

		if (ad)
			*pk_violation = true;
		else if (wd && acc == UM_WRITE && (user_mode || wp))
			*pk_violation = true;
	}

	if (user_mode && !user_address)
		return false;
	if (!user_mode && user_address) {
		if (acc == UM_FETCH && smep)
			return false;
		if (acc != UM_FETCH && smap && !ac)
			return false;
	}
	if (acc == UM_FETCH && t->nx)
		return false;
	if (acc == UM_WRITE && !t->w && (user_mode || wp))
		return false;
	return !*pk_violation;
}

struct verdict oracle(struct guest *g, gva_t gva, enum um_access acc, enum um_tlb_priv priv)
{
	struct t t = { .g = g, .w = true, .u = true, .present = true };
	const struct um_cpu *c = g->cpu;
	bool user_mode = priv == UM_PRIV_USER, pk = false, ok;
	u32 e = 0;

	if (c->efer & EFER_LMA)
		walk_64(&t, gva);
	else if (c->cr4 & CR4_PAE)
		walk_pae(&t, gva);
	else
		walk_32(&t, gva);

	ok = t.present && !t.reserved &&
	     permitted(&t, acc, user_mode, priv == UM_PRIV_KERNEL_AC, &pk);
	if (!ok) {
		/* 4.7, bit by bit. */
		if (t.present)
			e |= 1;
		if (acc == UM_WRITE)
			e |= 2;
		if (user_mode)
			e |= 4;
		if (t.reserved)
			e |= 8;
		if (acc == UM_FETCH &&
		    ((c->cr4 & CR4_SMEP) || ((c->cr4 & CR4_PAE) && (c->efer & EFER_NXE))))
			e |= 16;
		if (pk)
			e |= 32;
	}
	t.v.fault = !ok;
	t.v.error = e;
	t.v.sets_dirty = ok && acc == UM_WRITE;
	return t.v;
}

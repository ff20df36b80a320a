// SPDX-License-Identifier: MIT
/*
 * The guest page walker.
 *
 * All paging modes are one loop over levels, from the entry that CR3 (or a PDPTE) leads to down to the one that
 * maps the page.  At each level, in the order of SDM vol. 3 4.7: not present ends the walk; so does a
 * reserved bit; then the rights are multiplied.  Rights are checked once, at the end.  Accessed bits (all
 * levels) and the dirty bit are set only if the access is allowed, by compare-and-exchange with the entry that was
 * read: if the guest changed it meanwhile, the walk starts over.
 */
#include "mmu/walker.h"

#include "base/uaccess.h"

static bool cpuid_edx(const struct um_cpu *cpu, u32 function, unsigned bit)
{
	for (unsigned i = 0; i < cpu->ncpuid; i++) {
		if (cpu->cpuid[i].function == function)
			return cpu->cpuid[i].edx & (1u << bit);
	}
	return false;
}

void um_paging_init(struct um_paging *p, const struct um_cpu *cpu)
{
	bool pae = cpu->cr4 & CR4_PAE, lma = cpu->efer & EFER_LMA;

	*p = (struct um_paging){ .enabled = cpu->cr0 & CR0_PG };
	/* These are the processor's, whether it is paging now or not (um_sp_format). */
	p->fmt.gbpages = cpuid_edx(cpu, 0x80000001, 26);
	p->fmt.pse36 = cpuid_edx(cpu, 1, 17);
	p->fmt.maxphyaddr = cpu->maxphyaddr ? cpu->maxphyaddr : 36;
	if (!p->enabled)
		return;
	p->levels = !lma ? 2 : cpu->cr4 & CR4_LA57 ? 5 : 4;
	p->pae_root = pae && !lma;
	p->fmt.pae = pae;
	p->fmt.pse = pae || (cpu->cr4 & CR4_PSE);
	p->fmt.lma = lma;
	p->fmt.nx = pae && (cpu->efer & EFER_NXE);
	p->wp = cpu->cr0 & CR0_WP;
	p->smep = cpu->cr4 & CR4_SMEP;
	p->smap = cpu->cr4 & CR4_SMAP;
	p->pke = lma && (cpu->cr4 & CR4_PKE);
	p->fetch_in_error = p->smep || p->fmt.nx;
}

/* Bits lo..hi, none if lo > hi. */
static u64 bits_or_none(unsigned hi, unsigned lo)
{
	return lo > hi ? 0 : GENMASK(hi, lo);
}

static u64 reserved_mask(const struct um_gpte_format *f, unsigned level, bool large)
{
	u64 mask;

	if (!f->pae) {
		unsigned phys = um_min(f->maxphyaddr, 40);

		if (!large)
			return 0;
		/* PSE-36 puts address bits 39:32 into bits 20:13 (SDM vol. 3 table 4-4). */
		return f->pse36 ? bits_or_none(21, phys - 32 + 13) : GENMASK(21, 13);
	}
	mask = bits_or_none(51, f->maxphyaddr);
	if (!f->lma)
		mask |= GENMASK(62, 52);
	if (!f->nx)
		mask |= GPTE_NX;
	if (large)
		mask |= level == 3 ? GENMASK(29, 13) : GENMASK(20, 13);
	/* PS where there is no large page. */
	if (level >= 4 || (level == 3 && !f->gbpages))
		mask |= GPTE_PS;
	return mask;
}

bool um_gpte_large(const struct um_gpte_format *f, u64 gpte, unsigned level)
{
	if (!(gpte & GPTE_PS))
		return false;
	return (level == 2 && f->pse) || (level == 3 && f->gbpages);
}

u64 um_gpte_reserved(const struct um_gpte_format *f, u64 gpte, unsigned level)
{
	return gpte & reserved_mask(f, level, um_gpte_large(f, gpte, level));
}

u64 um_gpte_access(const struct um_gpte_format *f, u64 gpte)
{
	u64 access = gpte & (GPTE_WRITABLE | GPTE_USER);

	_Static_assert(ACC_WRITE == GPTE_WRITABLE && ACC_USER == GPTE_USER, "same places");
	if (!f->nx || !(gpte & GPTE_NX))
		access |= ACC_EXEC;
	return access;
}

gfn_t um_gpte_gfn(const struct um_gpte_format *f, u64 gpte, unsigned level)
{
	if (level == 1)
		return (gpte & (f->pae ? GPTE_ADDR : GENMASK(31, 12))) >> UM_PAGE_SHIFT;
	if (f->pae)
		return (gpte & GPTE_ADDR & ~((level_pages(level) << UM_PAGE_SHIFT) - 1)) >>
		       UM_PAGE_SHIFT;
	return ((gpte & GENMASK(31, 22)) | (f->pse36 ? (gpte >> 13 & 0xff) << 32 : 0)) >>
	       UM_PAGE_SHIFT;
}

bool um_gpte_read(const struct um_gpte_format *f, const void *hva, u64 *gpte)
{
	u32 v;

	if (f->pae)
		return um_get64(hva, gpte);
	if (!um_get32(hva, &v))
		return false;
	*gpte = v;
	return true;
}

/* Protection keys (SDM vol. 3 4.6.2): data accesses that PKRU takes away from a user-mode address. */
static unsigned pkey_denied(const struct um_paging *p, enum um_tlb_priv priv, u64 access,
			    unsigned pkey, u32 pkru)
{
	unsigned bits = (pkru >> (pkey * 2)) & 3;

	if (!p->pke || !(access & ACC_USER))
		return 0;
	if (bits & 1)
		return 1u << UM_READ | 1u << UM_WRITE;
	if ((bits & 2) && (priv == UM_PRIV_USER || p->wp))
		return 1u << UM_WRITE;
	return 0;
}

unsigned um_allowed(const struct um_paging *p, enum um_tlb_priv priv, u64 access, unsigned pkey,
		    u32 pkru)
{
	bool user_page = access & ACC_USER;
	unsigned ok = 1u << UM_READ;

	if (!p->enabled)
		return 1u << UM_READ | 1u << UM_WRITE | 1u << UM_FETCH;
	if (access & ACC_EXEC)
		ok |= 1u << UM_FETCH;
	if (access & ACC_WRITE)
		ok |= 1u << UM_WRITE;
	if (priv == UM_PRIV_USER) {
		if (!user_page)
			return 0;
	} else {
		if (!p->wp)
			ok |= 1u << UM_WRITE;
		if (user_page && p->smep)
			ok &= ~(1u << UM_FETCH);
		if (user_page && p->smap && priv != UM_PRIV_KERNEL_AC)
			ok &= ~(1u << UM_READ | 1u << UM_WRITE);
	}
	return ok & ~pkey_denied(p, priv, access, pkey, pkru);
}

/* What the error code says about the access itself (SDM vol. 3 4.7). */
static u32 request_error(const struct um_paging *p, const struct um_fault *f, enum um_access acc)
{
	u32 e = 0;

	if (acc == UM_WRITE)
		e |= PFERR_WRITE;
	if (f->priv == UM_PRIV_USER)
		e |= PFERR_USER;
	if (acc == UM_FETCH && p->fetch_in_error)
		e |= PFERR_FETCH;
	return e;
}

struct entry_ref {
	void *hva;
	struct um_slot *slot;
};

/* Whose memory it is, and who is to record that a table was written to. */
struct writer {
	struct um_mem *mem;
	struct um_dirty_ring *ring;
};

/* Set @bits in the entry.  Returns 1 if it changed under us. */
static int set_bits(const struct writer *by, const struct um_paging *p, struct entry_ref *ref,
		    u64 *gpte, u64 bits, gfn_t table, bool *host_ok)
{
	bool done;

	if ((*gpte & bits) == bits || (ref->slot->flags & KVM_MEM_READONLY))
		return 0;
	if (p->fmt.pae) {
		u64 old = *gpte;

		*host_ok = um_cmpxchg64(ref->hva, &old, *gpte | bits, &done);
	} else {
		u32 old = (u32)*gpte;

		*host_ok = um_cmpxchg32(ref->hva, &old, (u32)(*gpte | bits), &done);
	}
	if (!*host_ok)
		return 0;
	if (!done)
		return 1;
	um_mem_mark_dirty(by->mem, ref->slot, table, by->ring);
	*gpte |= bits;
	return 0;
}

/* Accessed bits top down, then the dirty bit.  UM_WALK_FAULT stands for "start over". */
static enum um_walk_result update_ad(const struct writer *by, const struct um_paging *p,
				     struct um_walk *w, struct entry_ref *ref, bool write)
{
	bool host_ok = true;

	for (unsigned level = w->top; level >= w->leaf; level--) {
		u64 bits = GPTE_ACCESSED;

		if (level == w->leaf && write)
			bits |= GPTE_DIRTY;
		if (set_bits(by, p, &ref[level], &w->gpte[level], bits, w->table[level], &host_ok))
			return UM_WALK_FAULT;
		if (!host_ok)
			return UM_WALK_HOST;
	}
	return UM_WALK_OK;
}

static enum um_walk_result walk_once(struct um_mem *mem, const struct um_paging *p,
				     const struct um_cpu *cpu, struct um_fault *f,
				     struct um_walk *w, struct entry_ref *ref)
{
	enum um_access acc = f->locked_rmw ? UM_WRITE : f->acc;
	u32 error = request_error(p, f, acc);
	unsigned size = p->fmt.pae ? 8 : 4, level = p->levels, ok;
	u64 access = ACC_ALL, gpte, page_mask;
	gpa_t table;

	if (p->pae_root) {
		table = cpu->pdptr[(f->gva >> 30) & 3];
		f->table_gpa = cpu->cr3 & GENMASK(31, 5);
		f->error_code = error;
		if (!(table & GPTE_PRESENT))
			return UM_WALK_FAULT;
		table &= GPTE_ADDR;
	} else {
		table = cpu->cr3 & (p->fmt.lma ? GPTE_ADDR : GENMASK(31, 12));
	}

	w->top = level;
	for (;; level--) {
		gpa_t gpa = table + um_gpte_index(&p->fmt, f->gva, level) * size;

		f->table_gpa = gpa;
		f->level = (u8)level;
		f->error_code = error;
		/* A table where there is no memory reads as not present. */
		ref[level].slot = um_mem_slot(mem, um_cpu_as(cpu), gpa >> UM_PAGE_SHIFT);
		if (!ref[level].slot)
			return UM_WALK_FAULT;
		ref[level].hva = (void *)(um_slot_hva(ref[level].slot, gpa >> UM_PAGE_SHIFT) +
					  (gpa & ~UM_PAGE_MASK));
		if (!um_gpte_read(&p->fmt, ref[level].hva, &gpte))
			return UM_WALK_HOST;
		w->table[level] = gpa >> UM_PAGE_SHIFT;
		w->gpte[level] = gpte;
		if (!(gpte & GPTE_PRESENT))
			return UM_WALK_FAULT;
		if (um_gpte_reserved(&p->fmt, gpte, level)) {
			f->error_code |= PFERR_PRESENT | PFERR_RSVD;
			return UM_WALK_FAULT;
		}
		access &= um_gpte_access(&p->fmt, gpte);
		w->access[level] = access;
		if (level == 1 || um_gpte_large(&p->fmt, gpte, level))
			break;
		table = gpte & (p->fmt.pae ? GPTE_ADDR : GENMASK(31, 12));
	}

	w->leaf = level;
	w->pkey = p->fmt.lma ? spte_pkey(gpte) : 0;
	f->pte_access = (u32)access;
	ok = um_allowed(p, f->priv, access, w->pkey, cpu->fpu.pkru);
	if (!(ok & (1u << acc))) {
		f->error_code |= PFERR_PRESENT;
		if (acc != UM_FETCH &&
		    (pkey_denied(p, f->priv, access, w->pkey, cpu->fpu.pkru) & (1u << acc)))
			f->error_code |= PFERR_PK;
		return UM_WALK_FAULT;
	}

	f->error_code = 0;
	page_mask = level == 1	 ? 0xfff
		    : p->fmt.pae ? (level_pages(level) << UM_PAGE_SHIFT) - 1
				 : GENMASK(21, 0);
	w->gpa = (um_gpte_gfn(&p->fmt, gpte, level) << UM_PAGE_SHIFT) | (f->gva & page_mask);
	f->gpa = w->gpa;
	return UM_WALK_OK;
}

enum um_walk_result um_walk(struct um_mem *mem, struct um_dirty_ring *ring,
			    const struct um_paging *p, const struct um_cpu *cpu, struct um_fault *f,
			    struct um_walk *w)
{
	const struct writer by = { .mem = mem, .ring = ring };
	struct entry_ref ref[PT_MAX_LEVEL + 1];
	bool write = f->locked_rmw || f->acc == UM_WRITE;

	for (;;) {
		enum um_walk_result r = walk_once(mem, p, cpu, f, w, ref);

		if (r == UM_WALK_OK && !f->probe) {
			r = update_ad(&by, p, w, ref, write);
			if (r == UM_WALK_FAULT)
				continue;
		}
		/* A write has set it, but in a read-only slot, where it counts as set. */
		w->dirty = r == UM_WALK_OK && (write || (w->gpte[w->leaf] & GPTE_DIRTY));
		return r;
	}
}

/* SPDX-License-Identifier: MIT */
/*
 * A guest without a processor: memory, page tables written with plain stores, and a struct um_cpu
 * whose registers the test sets.  Accesses go through a struct guest the way an engine does them:
 * look up the TLB, then ask the MMU.
 */
#ifndef UM_TEST_MMU_GUEST_H
#define UM_TEST_MMU_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mmu/mmu_internal.h"

#define MB (1ull << 20)

enum guest_mode { GUEST_REAL, GUEST_32, GUEST_PSE, GUEST_PAE, GUEST_64, GUEST_LA57 };

struct guest {
	struct um_mem *mem;
	struct um_mmu_vm *vm;
	struct um_mmu *mmu;
	struct um_cpu *cpu;
	struct um_trace trace;
	struct um_counters counters;
	u8 *ram;
	size_t size;
	gpa_t next_table; /* bump allocator for tables */
	enum guest_mode mode;
};

/* What an access came to. */
struct outcome {
	enum um_access_result result;
	u32 error;
	gpa_t gpa;
	void *hva;
	bool hit; /* answered by the TLB */
};

/* A guest with @size bytes of memory at 0 (slot 0), paging off. */
void guest_init(struct guest *g, size_t size, bool tdp, bool audit);
void guest_destroy(struct guest *g);
/* The same in 64-bit mode, with its memory mapped linearly by 4K pages at KGVA. */
void guest_init_linear(struct guest *g, size_t size, bool tdp, bool audit);
#define KGVA 0xffff888000000000ull /* a linear map of all memory, as kernels have */
#define UGVA 0x7f0000000000ull	   /* where a program may be */
static inline gva_t guest_linear(gpa_t gpa)
{
	return KGVA + gpa;
}
int guest_slot(struct guest *g, u32 slot, gpa_t gpa, u64 size, void *hva, u32 flags);

/* Switch on paging in @mode, with an empty root table (or PDPTEs). */
void guest_paging(struct guest *g, enum guest_mode mode);
gpa_t guest_table(struct guest *g);
gpa_t guest_new_root(struct guest *g);
void guest_set_cr3(struct guest *g, gpa_t root);

u64 guest_read(struct guest *g, gpa_t gpa);		 /* one entry of the mode's size */
void guest_write(struct guest *g, gpa_t gpa, u64 entry); /* behind the MMU's back */
/* The gpa of the entry for @gva at @level, making tables (P|W|U|A) on the way. */
gpa_t guest_entry(struct guest *g, gva_t gva, unsigned level);
/* Map @gva by a leaf at @level. */
gpa_t guest_map(struct guest *g, gva_t gva, u64 entry, unsigned level);

struct outcome guest_access(struct guest *g, gva_t gva, enum um_access acc, enum um_tlb_priv priv);
/* Accesses that must succeed; they go through the whole path, with um_mmu_written(). */
u64 guest_load(struct guest *g, gva_t gva);
enum um_access_result guest_store(struct guest *g, gva_t gva, u64 val, unsigned size);

/* The last-level spte for @addr of the root's space, 0 if none. */
u64 guest_spte(struct guest *g, u64 addr);
struct um_shadow_page *guest_page_at(struct guest *g, u64 addr, unsigned level);
void guest_audit(struct guest *g);

/*
 * What a thread of the VMM does while the guest executes: here there is one thread, so the guest
 * stops for it.
 */
#define HOST(g, expr)                                        \
	({                                                   \
		um_mmu_leave((g)->mmu);                      \
		__typeof__(expr) result_ = (expr);           \
		assert_int_equal(um_mmu_enter((g)->mmu), 0); \
		result_;                                     \
	})
#define HOST_VOID(g, call) HOST(g, ((call), 0))

#define COUNT(g, name) ((g)->counters.v[UM_CNT_##name])

#define PTE_P  GPTE_PRESENT
#define PTE_W  GPTE_WRITABLE
#define PTE_U  GPTE_USER
#define PTE_A  GPTE_ACCESSED
#define PTE_D  GPTE_DIRTY
#define PTE_PS GPTE_PS
#define PTE_G  BIT(8)
#define PTE_NX GPTE_NX
#define RW     (PTE_P | PTE_W | PTE_U)

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The MMU's inside: shadow pages, rmap, and who may touch what.
 *
 * vm->lock protects everything here that says nothing else.  Sptes are written only under it, and read
 * without it by vCPUs that are between um_mmu_enter() and um_mmu_leave(): so a shadow page is reused only after
 * a flush has made sure that nobody walks it any more (lock.c).  Order of locks: slots mutex of
 * struct um_mem, then vm->lock.  A vCPU that waits for vm->lock has left.  Guest page tables are read
 * under the lock; whoever resolves host faults on them (userfaultfd) must not need the lock.
 */
#ifndef UM_MMU_INTERNAL_H
#define UM_MMU_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <urcu/list.h>

#include "mmu/mmu.h"
#include "mmu/role.h"
#include "mmu/spte.h"
#include "mmu/walker.h"

/* A set of pointers to sptes: none, one in place, or a chain of blocks (rmap.c). */
struct um_ptelist {
	uintptr_t val;
};

struct um_shadow_page {
	struct cds_list_head lru; /* vm->active; the most recently used first */
	struct um_shadow_page *hash_next;
	union um_role role;
	gfn_t gfn; /* of the guest's table, or (direct) of the first page of the range */
	u64 *spt;
	gfn_t *gfns; /* of each present leaf; NULL if direct: they follow from gfn */
	/* Bit (slot id % 64) for every slot, of the role's address space, that a leaf spte maps a page of. */
	u64 slot_bitmap;
	unsigned
		root_count; /* loaded roots of vCPUs that are this page; it can't be freed meanwhile */
	unsigned nr_present; /* sptes that are not zero */
	/* The nonleaf sptes that point here (the seeds' multimapped, parent_pte, parent_ptes). */
	struct um_ptelist parents;
	bool unsync; /* level 1: the guest may write to the table; sptes may be stale like TLB entries */
	u8 accounted; /* bit n: in the count of shadowed frames of its slot in address space n */
	bool zapped;  /* out of the hash; waits for the flush, or for root_count */
	/* Sptes that lead to unsync pages, directly or not. */
	unsigned unsync_children;
	u64 unsync_child_bitmap[SPTES_PER_PAGE / 64];
	unsigned write_flooding_count; /* writes to the table since the page was last used */
	/*
	 * Where in the root's space the page is, as long as that is one place: then dropping its sptes
	 * costs a TLB flush of some pages only.
	 */
	bool gva_known, gva_multi;
	gva_t gva;
};

/*
 * Pools of spt's: 256 KiB, aligned to that, so that from any spte's address one finds its page: the
 * first 4 KiB hold the pointers to the struct um_shadow_page of the 63 spt's that follow.
 */
#define CHUNK_SIZE  (64 * UM_PAGE_SIZE)
#define CHUNK_PAGES 63
struct um_chunk {
	struct um_shadow_page *sp[CHUNK_PAGES + 1]; /* by page index; 0 is this header */
	struct um_chunk *next;
};

static inline struct um_shadow_page *um_sptep_page(const u64 *sptep)
{
	uintptr_t a = (uintptr_t)sptep;
	struct um_chunk *c = (struct um_chunk *)(a & ~(uintptr_t)(CHUNK_SIZE - 1));

	return c->sp[(a & (CHUNK_SIZE - 1)) >> UM_PAGE_SHIFT];
}

static inline unsigned um_sptep_index(const u64 *sptep)
{
	return ((uintptr_t)sptep & (UM_PAGE_SIZE - 1)) / sizeof(u64);
}

/* The guest frame that leaf spte @i of @sp maps (its first, if large). */
static inline gfn_t um_sp_gfn(const struct um_shadow_page *sp, unsigned i)
{
	return sp->gfns ? READ_ONCE(sp->gfns[i]) : sp->gfn + i * level_pages(sp->role.level);
}

/* Levels that leaf sptes may have: 4K, 2M, 1G. */
#define MAX_LEAF_LEVEL 3

/* What the MMU hangs off a slot. */
struct um_slot_mmu {
	gfn_t base;
	u64 npages;
	struct um_ptelist *rmap[MAX_LEAF_LEVEL + 1]; /* [level][frame of that level in the slot] */
	u32 *disallow_lpage[MAX_LEAF_LEVEL + 1];     /* reasons against a large spte there */
	/*
	 * Indirect shadow pages of each gfn, in whichever address space: what both have in common is stored to
	 * through either.  (Where a frame is something else in each, this only protects a frame too many.)
	 */
	u16 *shadowed;
};

/* The slot of @gfn in address space @as, under the lock. */
#define um_vm_slot(v, as, gfn) um_slots_find((v)->slots[as], gfn)

/* Every slot of every address space. */
#define um_for_each_slot(v, as, i, s)                                                           \
	for ((as) = 0; (as) < UM_NR_AS; (as)++)                                                 \
		for ((i) = 0; (i) < (v)->slots[as]->n && ((s) = (v)->slots[as]->slot[i], true); \
		     (i)++)

static inline u64 um_slot_index(const struct um_slot_mmu *a, gfn_t gfn, unsigned level)
{
	return (gfn >> (9 * (level - 1))) - (a->base >> (9 * (level - 1)));
}

/* Translations that were weakened or dropped since the lock was taken, and TLBs may still hold. */
#define MAX_FLUSH_RANGES 16
struct um_flush {
	bool needed; /* other vCPUs must flush */
	bool all;    /* the own TLB: everything, not only the ranges */
	unsigned n;
	struct {
		gva_t gva;
		u64 npages;
	} range[MAX_FLUSH_RANGES];
	/* In place of `all`, where nothing global is concerned: the contexts of the owner's roots, not the shared one. */
	bool idle, current;
};

#define HASH_BITS      12
#define MIN_MMU_PAGES  64 /* KVM's smallest limit */
#define MMU_PERMILLE   20 /* of the guest's pages: KVM's default limit */
#define FREE_FOR_FAULT 12 /* pages that one fault may need: five levels, and roots */

struct um_mmu_vm {
	struct um_mmu_config cfg;
	struct um_mem *mem;
	struct um_mem_listener listener;
	/*
	 * The slots as the MMU knows them: changes under the lock only, when it is told (slot.c).  So an
	 * spte's rmap is always found, to the very end of its slot.
	 */
	const struct um_slots *slots[UM_NR_AS];
	u64 slots_generation; /* of the newer one */
	struct um_counters *counters;
	struct um_counters own_counters; /* if the configuration gave none */
	struct um_trace no_trace;
	const struct um_trace *trace;

	pthread_mutex_t lock;
	struct um_mmu *owner; /* the vCPU that holds the lock, or NULL: another thread */
	struct um_mmu *mmus;  /* all vCPUs */
	/* What a vCPU's CPUID says of entries; the same for all that share tables. */
	struct um_gpte_format cpu_format;
	bool reload_roots; /* a loaded root was zapped: all vCPUs must look theirs up again */
	struct um_flush flush;

	/* Shadow pages. */
	struct um_shadow_page *hash[1u << HASH_BITS];
	struct cds_list_head active;
	struct cds_list_head zapped; /* to be freed after the flush */
	struct cds_list_head free;
	struct um_chunk *chunks;
	unsigned long used, limit;
	bool limit_set; /* by KVM_SET_NR_MMU_PAGES */

	/* Blocks for long ptelists. */
	struct um_ptelist_block *free_blocks;

	/*
	 * The notifier's state.  A fault finds its host page without the lock; it is used only if @seq is
	 * still what it was before, and no invalidation covers it now.
	 */
	atomic_ulong notifier_seq;
	unsigned notifier_count;
	hva_t notifier_start, notifier_end;
	pthread_cond_t notifier_done;
	bool released;

	u64 mmio_generation_seen; /* whose high part says that the sptes' generations wrapped */

	unsigned long audits;
	unsigned audit_failures;
	char audit_why[256];
};

#define MMU_ROOTS \
	8 /* roots that a vCPU keeps: the current one and those it is likely to load again */

struct um_root {
	bool valid;
	bool need_sync; /* a flush that covers it happened while it wasn't current */
	u64 key;	/* CR3's address bits and PCID; 0 without paging */
	union um_role mode;
	u64 pdptr[4];
	struct um_shadow_page *sp[4]; /* PAE and 2-level: one for each GiB; else the first */
	u64 used;		      /* for LRU */
	bool own_kernel;	      /* its kernel's context is not the shared one (context.c) */
	/* Context numbers, good while the TLB's epoch is the same. */
	u16 ctx[UM_NR_PRIVS];
	u32 epoch;
};

struct um_mmu {
	struct um_mmu_vm *vm;
	struct um_cpu *cpu;
	struct um_dirty_ring *ring; /* NULL: none */
	struct um_counters *counters;
	void (*kick)(void *opaque);
	void *opaque;
	struct um_mmu *next;

	struct um_paging paging;
	bool direct; /* the root's space is guest-physical: no paging, or tdp */
	u8 root_level;
	union um_role
		mode; /* of the roots in this paging mode; access, level, quadrant filled in */

	struct um_root *root; /* the current one; NULL: to be loaded */
	struct um_root roots[MMU_ROOTS];
	u64 clock; /* for LRU */
	/* The context that roots in the mode `shared_mode` share for UM_PRIV_KERNEL, good while the TLB's epoch is this. */
	u16 shared_ctx;
	u32 shared_epoch;
	union um_role shared_mode;

	/* What the fills of the TLB depended on, to see whether changes matter. */
	u32 pkru;
	u64 dr7, dr[4];
	/* tdp: bounds of what was filled from large guest pages, which INVLPG must drop as a whole. */
	gva_t large_lo, large_hi;
	/*
	 * Frames of tables that the vCPU may have stored to without having told, plus 1; 0 if none.  Two: an access may
	 * cross a page.  For the auditor.
	 */
	_Atomic(gfn_t) storing[2];

	struct um_tlb *tlb;
};

/* context.c */
/* Is the kernel's context that of all roots?  Then it has global translations only. */
bool um_root_shared(const struct um_mmu *m);
/* Give the current root one of its own. */
void um_root_unshare(struct um_mmu *m);
/* Forget the current root's own contexts. */
void um_root_renew(struct um_mmu *m);
/* Forget the contexts of all roots but the current one. */
void um_root_forget_idle(struct um_mmu *m);

/* lock.c: the lock and the flush protocol */
void um_vm_lock(struct um_mmu_vm *v); /* by a thread that isn't a vCPU's */
void um_mmu_lock(struct um_mmu *m); /* by vCPU @m; leaves while it waits, does requested flushes */
void um_vm_unlock(struct um_mmu_vm *v); /* both; flushes what is noted */
void um_flush_note(struct um_mmu_vm *v, const struct um_shadow_page *sp, unsigned i);
void um_flush_note_all(struct um_mmu_vm *v);
void um_flush_now(struct um_mmu_vm *v);
void um_flush_remote(struct um_mmu_vm *v); /* other vCPUs' TLBs, if needed; the own stays noted */
/* Out of the bracket around something that may block, without the lock.  Returns what to give back. */
bool um_mmu_pause(struct um_mmu *m);
void um_mmu_resume(struct um_mmu *m, bool was_running);

/* rmap.c */
bool um_ptelist_add(struct um_mmu_vm *v, struct um_ptelist *l, u64 *sptep);
bool um_ptelist_del(struct um_mmu_vm *v, struct um_ptelist *l, u64 *sptep);
/*
 * Visit all: start with a cursor of zeros; NULL at the end.  The list must not change meanwhile.  (A guest
 * can make lists of a million: a visit takes linear time.)
 */
struct um_ptelist_cursor {
	const struct um_ptelist_block *block;
	unsigned i;
	bool started;
};
u64 *um_ptelist_next(const struct um_ptelist *l, struct um_ptelist_cursor *c);
u64 *um_ptelist_first(const struct um_ptelist *l);
unsigned um_ptelist_count(const struct um_ptelist *l);
void um_ptelist_free_blocks(struct um_mmu_vm *v);
struct um_ptelist *um_rmap(struct um_mmu_vm *v, unsigned as, gfn_t gfn, unsigned level);
bool um_rmap_write_protect(struct um_mmu_vm *v, unsigned as, gfn_t gfn);
bool um_rmap_protect_table(struct um_mmu_vm *v, gfn_t gfn);
bool um_rmap_zap(struct um_mmu_vm *v, struct um_slot *slot, gfn_t first, u64 npages);

/* page.c */
struct um_shadow_page *um_sp_get(struct um_mmu_vm *v, gfn_t gfn, union um_role role, gva_t gva);
struct um_shadow_page *um_sp_lookup(struct um_mmu_vm *v, gfn_t gfn, union um_role role);
void um_sp_zap(struct um_mmu_vm *v, struct um_shadow_page *sp);
void um_sp_free_zapped(struct um_mmu_vm *v);
void um_sp_make_room(struct um_mmu_vm *v, unsigned long pages);
unsigned long um_sp_recycle(struct um_mmu_vm *v, unsigned long pages);
void um_sp_put_root(struct um_mmu_vm *v, struct um_shadow_page *sp);
void um_sp_set_gva(struct um_shadow_page *sp, gva_t gva);
bool um_sp_link(struct um_mmu_vm *v, struct um_shadow_page *parent, unsigned i,
		struct um_shadow_page *child);
void um_sp_drop_spte(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i);
void um_sp_zap_all(struct um_mmu_vm *v);
void um_sp_free_pool(struct um_mmu_vm *v);
/* Visit every indirect page that shadows the table at @gfn, in any address space. */
struct um_shadow_page *um_sp_first_of(struct um_mmu_vm *v, gfn_t gfn);
struct um_shadow_page *um_sp_next_of(struct um_shadow_page *sp);
#define um_for_each_table(sp, v, gfn) \
	for ((sp) = um_sp_first_of(v, gfn); (sp); (sp) = um_sp_next_of(sp))

/* map.c */
enum um_map_result {
	UM_MAP_OK,
	UM_MAP_MMIO,	  /* an mmio spte was made */
	UM_MAP_PROTECTED, /* mapped, but the write must be emulated: the frame is a page table */
	UM_MAP_NOMEM,
};

/* What a leaf spte shall say. */
struct um_leaf {
	gfn_t gfn;
	u64 access; /* ACC_... */
	unsigned pkey;
	bool dirty;    /* the guest's entry is dirty (or there is none) */
	bool global;   /* the guest's entry is */
	bool write;    /* made for a write: may unsynchronize, marks dirty */
	bool prefetch; /* made on suspicion: not accessed, never unsynchronizes */
};
enum um_map_result um_map_leaf(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i,
			       const struct um_leaf *leaf);
unsigned um_max_mapping_level(struct um_mmu_vm *v, unsigned as, gfn_t gfn, unsigned max);

/* sync.c */
void um_mark_unsync(struct um_shadow_page *sp);
void um_clear_unsync(struct um_shadow_page *sp);
void um_unsync_child_set(struct um_shadow_page *parent, unsigned i);
void um_unsync_child_clear(struct um_shadow_page *parent, unsigned i);
bool um_try_unsync(struct um_mmu_vm *v, gfn_t gfn, bool can_unsync);
void um_sync_entries(struct um_mmu_vm *v, struct um_shadow_page *sp);
void um_sync_entry(struct um_mmu_vm *v, struct um_shadow_page *sp, unsigned i, bool reinstate);
void um_sync_children(struct um_mmu_vm *v, struct um_shadow_page *root);
/* Where the guest entry of spte @i is: its gpa; and the formats of a page. */
gpa_t um_sp_gpte_gpa(const struct um_shadow_page *sp, unsigned i);
void um_sp_format(const struct um_mmu_vm *v, const struct um_shadow_page *sp,
		  struct um_gpte_format *f);
bool um_sp_read_gpte(struct um_mmu_vm *v, const struct um_shadow_page *sp, unsigned i, u64 *gpte);

/* context.c */
int um_root_load(struct um_mmu *m, bool sync);
void um_root_drop_invalid(struct um_mmu *m);
void um_root_drop_idle(struct um_mmu *m);

/* slot.c */
void um_listener_init(struct um_mmu_vm *v);
void um_account_shadowed(struct um_mmu_vm *v, struct um_shadow_page *sp, bool shadowed);
unsigned um_gfn_shadowed(struct um_mmu_vm *v, unsigned as, gfn_t gfn);
void um_update_limit(struct um_mmu_vm *v);

/* audit.c: under the lock */
void um_audit_event(struct um_mmu_vm *v);
/* At the end of the VM, without the lock: how often the auditor looked, and what it found. */
void um_audit_summary(const struct um_mmu_vm *v);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Guest memory: slots, which say what host memory a range of guest frames is, and the notifier
 * chain, through which those who keep translations derived from slots hear that they changed.
 *
 * Slots are those of KVM_SET_USER_MEMORY_REGION: each maps [base_gfn, base_gfn + npages) to
 * [userspace_addr, ...) of the VMM's own memory.  Several slots may alias the same host memory, but
 * never overlap in guest-physical space.
 *
 * There are two such spaces, each with slots of its own: a processor sees the second one while it is in
 * system-management mode (KVM_CAP_MULTI_ADDRESS_SPACE).  Bits 31:16 of the number that the VMM gives a slot say
 * which one it is in.
 *
 * Locks.  The slots mutex (inside struct um_mem) serializes changes of slots.  Order: slots mutex, then
 * a listener's own lock (the MMU's mmu_lock).  Readers take neither: a change publishes a new table,
 * tells the listeners, waits until every read-side section that could have seen the old table has
 * ended, and only then frees what was replaced.  A listener that looks slots up under its own lock keeps
 * the pointer to the table that it knows, and replaces it by um_mem_slots() under that lock in slot_flush and
 * slot_commit: these are called between publication and release.  (A fresh um_mem_slot() each time
 * would see changes in the middle of a critical section, before it was told of them.)
 */
#ifndef UM_MEM_MEM_H
#define UM_MEM_MEM_H

#include <linux/kvm.h>
#include <pthread.h>

#include "base/bits.h"
#include "base/trace.h"
#include "base/types.h"

#define UM_NR_SLOTS 32764 /* KVM_CAP_NR_MEMSLOTS, for user memory */
#define UM_NR_AS    2	  /* address spaces */
#define UM_AS_SMM   1	  /* that of system-management mode */

struct um_mem;
struct um_dirty_ring;

struct um_slot {
	gfn_t base;
	u64 npages;
	hva_t hva;
	u32 flags; /* KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY */
	u16 id;
	u8 as;	    /* the address space it is in */
	u64 *dirty; /* bitmap of npages bits, if KVM_MEM_LOG_DIRTY_PAGES; set atomically */
	void *arch; /* the MMU's per-slot tables (rmap, write tracking, large-page info) */
};

/*
 * The notifier chain (the user-space likeness of Linux's MMU notifiers).  Every callback is optional.
 * Called with no lock of mem held but the slots mutex where it says so.  Ranges are host-virtual,
 * half open.
 */
struct um_mem_listener {
	/* Between start and end, no translation to [start, end) may be made or used. */
	void (*invalidate_range_start)(struct um_mem_listener *l, hva_t start, hva_t end);
	void (*invalidate_range_end)(struct um_mem_listener *l, hva_t start, hva_t end);
	/* The page's contents moved or its protection changed; translations must be dropped. */
	void (*change)(struct um_mem_listener *l, hva_t hva);
	/* Was any page in the range accessed since the last clear_young?  clear_young also resets. */
	bool (*clear_young)(struct um_mem_listener *l, hva_t start, hva_t end);
	bool (*test_young)(struct um_mem_listener *l, hva_t start, hva_t end);
	/* The memory goes away for good: drop everything. */
	void (*release)(struct um_mem_listener *l);

	/* Slot changes; slots mutex held.  @old or @new is NULL on creation and deletion. */
	/* Allocate what hangs off a new or moved slot (slot->arch).  0 or -ENOMEM. */
	int (*slot_prepare)(struct um_mem_listener *l, struct um_slot *new,
			    const struct um_slot *old);
	/* Drop all translations through @old before it disappears. */
	void (*slot_flush)(struct um_mem_listener *l, struct um_slot *old);
	/*
	 * After the change is visible, and before what it replaced is freed: start or stop write protection for
	 * dirty logging, …
	 */
	void (*slot_commit)(struct um_mem_listener *l, const struct um_slot *old,
			    struct um_slot *new);
	/*
	 * Release slot->arch.  Not called for a slot that was only given new flags: its successor took arch
	 * over in slot_prepare.
	 */
	void (*slot_free)(struct um_mem_listener *l, struct um_slot *slot);
	/*
	 * The VMM fetched and cleared the dirty bits that are set in mask[0..nwords), of which bit 0 of mask[0]
	 * is page @first (a multiple of 64) of the slot: protect these pages again.  When it returns, no vCPU
	 * can write to them without marking them dirty.
	 */
	void (*dirty_cleared)(struct um_mem_listener *l, struct um_slot *slot, u64 first,
			      const u64 *mask, size_t nwords);

	struct um_mem_listener *next;
};

/* Create and destroy.  Returns NULL on ENOMEM.  @trace must live as long. */
struct um_mem *um_mem_create(const struct um_trace *trace);
void um_mem_destroy(struct um_mem *m); /* calls release, then slot_free */

/* Register at VM creation, before the first slot. */
void um_mem_add_listener(struct um_mem *m, struct um_mem_listener *l);
/* Take it out when nobody uses @m any more; its slot_free is called for all slots. */
void um_mem_remove_listener(struct um_mem *m, struct um_mem_listener *l);

/*
 * KVM_SET_USER_MEMORY_REGION (api.rst 4.35).  Returns 0 or -EINVAL (alignment, overflow, bad flags,
 * bad slot number, size change, flag change not allowed), -EEXIST (overlap), -ENOMEM, as the kernel.
 * May run while vCPUs run.
 */
int um_mem_set_region(struct um_mem *m, const struct kvm_userspace_memory_region *r);

/*
 * KVM_GET_DIRTY_LOG: one bit a page.  Copies, and clears unless that is done by hand (below).
 * 0; -EINVAL (slot number); -ENOENT (no such slot, or not logged); -ENXIO (rings); -EFAULT; -ENOMEM.
 */
int um_mem_get_dirty_log(struct um_mem *m, u32 slot, void *bitmap);

/* Is a log being cleared, so that pages may be writable that it doesn't have any more?  For the auditor. */
bool um_mem_clearing(const struct um_mem *m);

/*
 * KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE (KVM_GET_DIRTY_LOG does not
 * clear) and KVM_DIRTY_LOG_INITIALLY_SET (a log begins with all pages dirty).
 */
void um_mem_set_manual_dirty_log(struct um_mem *m, u64 flags);

/*
 * KVM_CLEAR_DIRTY_LOG: clear the bits given, so that the next write to these pages is logged.  The VMM
 * does so before it copies them.  0; -EINVAL (slot number; pages that don't begin at a multiple of 64, end
 * beyond the slot, or end at neither a multiple of 64 nor its end); -ENOENT; -ENXIO; -EFAULT; -ENOMEM.
 */
int um_mem_clear_dirty_log(struct um_mem *m, const struct kvm_clear_dirty_log *log);

/*
 * Look-ups, lock-free: to be called inside a read-side section, between um_mem_read_lock() and
 * um_mem_read_unlock() with the token that the former returned.  Sections may nest.  They may fault on
 * guest memory, but should otherwise be short: a slot change waits for them (so changing slots inside
 * one is a deadlock).  The slot stays valid to the end of the section.
 */
unsigned um_mem_read_lock(struct um_mem *m);
void um_mem_read_unlock(struct um_mem *m, unsigned token);
/* NULL: no memory there (MMIO) */
struct um_slot *um_mem_slot(struct um_mem *m, unsigned as, gfn_t gfn);
u64 um_mem_generation(struct um_mem *m); /* changes with every slot change; needs no section */

/* The table of slots of an address space, by ascending base.  Same rules as um_mem_slot(). */
struct um_slots {
	u64 generation; /* um_mem_generation() since it was published; of one of the tables: the newest */
	u64 npages; /* of all its slots together */
	unsigned n;
	struct um_slot *slot[];
};
const struct um_slots *um_mem_slots(struct um_mem *m, unsigned as);
struct um_slot *um_slots_find(const struct um_slots *t, gfn_t gfn);

static inline hva_t um_slot_hva(const struct um_slot *s, gfn_t gfn)
{
	return s->hva + ((gfn - s->base) << UM_PAGE_SHIFT);
}

/*
 * Record that the guest (or umbra for it) wrote to @gfn of @slot.  Any thread; inside a read-side section.  @ring: of
 * the vCPU that did, if there are rings; NULL: any.
 */
void um_mem_mark_dirty(struct um_mem *m, struct um_slot *slot, gfn_t gfn,
		       struct um_dirty_ring *ring);

/*
 * Dirty rings (KVM_CAP_DIRTY_LOG_RING; ring.c), instead of bitmaps: um_mem_enable_rings(), before the first
 * vCPU; then um_mem_add_ring() for each.  From then on KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG fail with
 * -ENXIO.
 */
#define UM_RING_RESERVED \
	704 /* a block of 32 instructions, each up to 19 pages with its page tables; an event */
#define UM_RING_MAX_ENTRIES 65536 /* as KVM */

void um_mem_enable_rings(struct um_mem *m);
/*
 * @entries: shared with the VMM; as long as @m.  @n, a power of two, > UM_RING_RESERVED.  @kick: it is almost
 * full; by any thread, must not block.  The ring lives as long as @m.  0 or -ENOMEM.
 */
int um_mem_add_ring(struct um_mem *m, struct kvm_dirty_gfn *entries, u32 n,
		    void (*kick)(void *opaque), void *opaque, struct um_dirty_ring **ring);
/* The vCPU has to leave: KVM_EXIT_DIRTY_RING_FULL. */
bool um_dirty_ring_almost_full(const struct um_dirty_ring *r);
/* KVM_RESET_DIRTY_RINGS: how many entries were taken back; -EINVAL (no rings), -ENOMEM. */
long um_mem_reset_rings(struct um_mem *m);

/*
 * Copy from and to guest-physical memory, across pages and slots.  For umbra's own structures (kvmclock,
 * steal time, page-table walks have their own).  0, or -EFAULT (no slot, read-only slot on write, host
 * page gone; earlier pages may have been copied).
 */
int um_mem_read(struct um_mem *m, unsigned as, gpa_t gpa, void *buf, size_t len);
int um_mem_write(struct um_mem *m, unsigned as, gpa_t gpa, const void *buf, size_t len);

/*
 * The host side of the notifier chain: what the VMM (or umbra's own reclaim) does to its memory.
 * start and end come in pairs around the change (munmap, mremap, mprotect, MADV_DONTNEED, …), by any
 * thread that is not between um_mmu_enter() and um_mmu_leave(); vCPUs that fault on the range meanwhile
 * wait.
 */
void um_mem_invalidate_start(struct um_mem *m, hva_t start, hva_t end);
void um_mem_invalidate_end(struct um_mem *m, hva_t start, hva_t end);
void um_mem_invalidate(struct um_mem *m, hva_t start, hva_t end); /* start+end around nothing */
void um_mem_change(struct um_mem *m, hva_t hva);
bool um_mem_clear_young(struct um_mem *m, hva_t start, hva_t end);
bool um_mem_test_young(struct um_mem *m, hva_t start, hva_t end);

#endif

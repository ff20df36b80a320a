/* SPDX-License-Identifier: MIT */
/*
 * The shadow MMU as the layers above see it: contexts, translations, events.
 *
 * One struct um_mmu_vm a VM (shadow pages, rmap, the lock), one struct um_mmu a vCPU (current root,
 * walker configuration, software TLB).  The engines look up the TLB inline (mmu/tlb.h) and come here on
 * a miss; the vCPU layer comes here with control-register changes and flush requests.
 *
 * Thread rules: functions on struct um_mmu are called by the vCPU's own thread, or under its mutex while
 * it does not run.  A host address that um_mmu_access() returned is valid until the next call into the MMU
 * or the next um_mmu_enter(), and only between enter and leave is it protected from others.  An access that
 * crosses a page needs two: note tlb->seq, translate both halves, and translate again if it changed.
 *
 * A thread that is between um_mmu_enter() and um_mmu_leave() must not change slots or call the host side
 * of the notifier chain: it would wait for itself.
 */
#ifndef UM_MMU_MMU_H
#define UM_MMU_MMU_H

#include <stdio.h>

#include "base/counters.h"
#include "base/trace.h"
#include "cpu/cpu.h"
#include "mem/mem.h"
#include "mmu/tlb.h"

struct um_mmu_vm;
struct um_mmu;

struct um_mmu_config {
	bool tdp;   /* two-dimensional mode: sptes map gpa->hva, the walker walks both dimensions */
	bool audit; /* run the auditor after every event (tests) */
	const struct um_trace *trace;
	struct um_counters *counters; /* the VM's own block */
};

/* Registers itself as a listener of @mem.  NULL on ENOMEM. */
struct um_mmu_vm *um_mmu_vm_create(struct um_mem *mem, const struct um_mmu_config *cfg);
void um_mmu_vm_destroy(struct um_mmu_vm *v); /* after its last um_mmu and before its um_mem */

/*
 * KVM_SET_NR_MMU_PAGES / KVM_GET_NR_MMU_PAGES: the limit on shadow pages; more are recycled.  At least 64 (the
 * ioctl refuses less); by default 20 for each 1000 pages of the slots.
 */
void um_mmu_set_nr_pages(struct um_mmu_vm *v, unsigned long n);
unsigned long um_mmu_get_nr_pages(struct um_mmu_vm *v);

/* Memory pressure: free up to @nr shadow pages, least recently used first.  Returns how many. */
unsigned long um_mmu_shrink(struct um_mmu_vm *v, unsigned long nr);

/*
 * The MMU of a vCPU, working on the registers in @cpu (it reads cr0, cr3, cr4, efer, rflags.AC, cpl, pkru,
 * dr7, pdptr; it writes none but pdptr).  @kick makes the vCPU's engine leave its loop soon, from any
 * thread, without blocking.
 */
struct um_mmu *um_mmu_create(struct um_mmu_vm *v, struct um_cpu *cpu, struct um_counters *counters,
			     void (*kick)(void *opaque), void *opaque);
void um_mmu_destroy(struct um_mmu *m);
/* Before it runs: what it makes dirty goes into this ring. */
void um_mmu_set_dirty_ring(struct um_mmu *m, struct um_dirty_ring *ring);
struct um_tlb *um_mmu_tlb(struct um_mmu *m);

/*
 * Bracket guest execution.  Between enter and leave the thread may use TLB entries, and others that
 * drop translations wait for it (so leave before blocking on anything).  um_mmu_enter() makes sure that
 * a root is loaded and requested flushes are done.  Returns 0 or -ENOMEM.  All other functions of this
 * header may be called inside or outside the bracket, and leave and re-enter by themselves where they
 * must block.
 */
int um_mmu_enter(struct um_mmu *m);
void um_mmu_leave(struct um_mmu *m);

/*
 * Events from the guest.  Call them after the register in struct um_cpu has its new value.
 */
/* CR0 (PG, WP, …), CR4 (PAE, PSE, SMEP, …), EFER (NXE, LMA) changed: new paging mode, new root.  Flushes as
 * the SDM says (4.10.4.1). */
void um_mmu_reset_context(struct um_mmu *m);
/* CR3 written.  @flush: false if bit 63 of the source asked to keep the new PCID's translations. */
void um_mmu_new_cr3(struct um_mmu *m, bool flush);
/* INVLPG. */
void um_mmu_invlpg(struct um_mmu *m, gva_t gva);
/* INVPCID, types 0..3 (SDM vol. 2). */
void um_mmu_invpcid(struct um_mmu *m, unsigned type, u64 pcid, gva_t gva);
/* CPL, EFLAGS.AC: nothing to call; the engine picks the context.  PKRU or DR7 changed: */
void um_mmu_rights_changed(struct um_mmu *m);
/* Everything (INIT, reset, KVM_SET_SREGS). */
void um_mmu_flush_all(struct um_mmu *m);

/*
 * Read the four PDPTEs of PAE paging at @cr3 and check their reserved bits.  Returns 0 and fills @pdptr;
 * 1 if a present one has reserved bits set (the guest's MOV CR raises #GP(0)); -EFAULT if not in memory.
 */
int um_mmu_load_pdptrs(struct um_mmu *m, u64 cr3, u64 pdptr[4]);

/* How an access came out.  Never negative. */
enum um_access_result {
	UM_ACCESS_OK,	   /* hva is usable for this access within its page */
	UM_ACCESS_TRACKED, /* write only: store to hva, then call um_mmu_written() */
	UM_ACCESS_FAULT,   /* #PF for the guest: error_code, cr2 = gva */
	UM_ACCESS_MMIO,	   /* no memory at gpa (or a write to a read-only slot) */
	UM_ACCESS_HOST,	   /* the host cannot provide the page: EFAULT, at hva/gpa */
};

/* A fault: the request (set by the caller), what was derived, and the result. */
struct um_fault {
	/* request */
	gva_t gva;
	enum um_access acc;
	enum um_tlb_priv priv;
	bool implicit; /* implicit supervisor access (descriptor tables, TSS): not subject to AC */
	bool probe; /* no side effects: no A/D bits, no sptes, no TLB fill (KVM_TRANSLATE, debuggers) */
	bool locked_rmw; /* an RMW: check for write even when reading */
	/* derived */
	gpa_t gpa;
	gpa_t table_gpa; /* where the walk stopped, for messages */
	u32 pte_access;
	u8 level;
	bool write_protected;
	/* result */
	u32 error_code; /* PFERR_... */
	void *hva;
};

/*
 * The slow path: translate f->gva for one access that does not cross a page.  Walks the guest's tables,
 * sets A/D bits, makes sptes, fills the TLB where allowed (memory, not tracked for this kind of access, no
 * watchpoint on the page).  @f->hva is the host address of the very byte.
 */
enum um_access_result um_mmu_access(struct um_mmu *m, struct um_fault *f);

/*
 * After a store through UM_ACCESS_TRACKED: [gpa, gpa + len) has new contents.  Reacts as seeds' "emulate the
 * instruction; update translations that it modified": sptes of shadowed tables are updated or zapped, the
 * write-flooding and misaligned-write heuristics applied, dirty bits set.
 */
void um_mmu_written(struct um_mmu *m, gpa_t gpa, unsigned len);
/*
 * A store to @gpa's page by other means than um_mmu_access() is about to happen; um_mmu_written() will follow.  Until
 * then the auditor doesn't hold the page's contents against the sptes.
 */
void um_mmu_storing(struct um_mmu *m, gpa_t gpa);

/* Is a data breakpoint enabled on this page?  (Then its accesses always come to um_mmu_access.) */
bool um_mmu_watched(const struct um_cpu *cpu, gva_t gva);

/* The auditor (mmu/audit.c).  Returns the number of violations; the first is described in @why. */
unsigned um_mmu_audit(struct um_mmu_vm *v, char *why, size_t size);
/* With cfg.audit: how many violations were found after events so far, and the first of them. */
unsigned um_mmu_audit_failures(struct um_mmu_vm *v, char *why, size_t size);

/*
 * The shadow page tables as text, for `umbra mmu`: roots of each vCPU, pages as trees, runs of sptes that
 * continue each other as one line.
 */
void um_mmu_dump(struct um_mmu_vm *v, FILE *out);

#endif

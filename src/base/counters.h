/* SPDX-License-Identifier: MIT */
/*
 * Counters: one list, from which come the enumerators, the names that `umbra stat` prints, and the
 * layout of the page that it reads.
 *
 * Each vCPU has a block of its own, written only by its thread, plainly; the VM has one more block
 * for what happens outside vCPU threads, written under the lock of the part that counts.  The blocks
 * live in a memfd named "umbra-stat" that describes itself (struct um_stat_page), so `umbra stat PID`
 * can map it from /proc/PID/fd and needs no cooperation.
 *
 * KVM_GET_STATS_FD promises a file for each VM and vCPU, with a head of its own.  A block that is asked for
 * moves into such a file: um_stat_share().
 */
#ifndef UM_BASE_COUNTERS_H
#define UM_BASE_COUNTERS_H

#include "base/types.h"

/* X(name, what it counts) */
#define UM_COUNTERS(X)                                                                    \
	X(insns, "guest instructions retired by the interpreter")                         \
	X(blocks_decoded, "blocks decoded")                                               \
	X(blocks_stale, "blocks decoded again because their bytes changed")               \
	X(block_flushes, "times the block cache was full and started over")               \
	X(jit_blocks, "blocks translated")                                                \
	X(jit_insns, "guest instructions translated")                                     \
	X(jit_slow, "instructions that translated code left to the interpreter")          \
	X(jit_unlinked, "times that translated code left for a place not linked to it")   \
	X(jit_vec, "times that translated code needed the vector registers loaded")       \
	X(jit_unwindowed, "memory accesses that went without a window from then on")      \
	X(jit_apart, "blocks translated without shared look-ups, too")                    \
	X(jit_enters, "times that a block was looked up to enter translated code")        \
	X(jit_links, "jumps in translated code linked to their target")                   \
	X(jit_jump_misses, "transfers to elsewhere that were left to C code")             \
	X(jit_dropped, "translated blocks dropped: changed, or replaced")                 \
	X(jit_evicted, "translated blocks dropped to make room")                          \
	X(jit_evictions, "chunks of the code cache emptied to make room")                 \
	X(lockstep_blocks, "blocks that two engines executed alike")                      \
	X(jit_flushes, "times that all translations were thrown away")                    \
	X(native_stubs, "native stubs generated")                                         \
	X(exits, "returns of KVM_RUN to the VMM")                                         \
	X(io_exits, "port I/O exits to the VMM")                                          \
	X(mmio_exits, "MMIO exits to the VMM")                                            \
	X(signal_exits, "returns of KVM_RUN with EINTR")                                  \
	X(halt_exits, "HLT instructions")                                                 \
	X(kernel_mmio, "MMIO accesses served by the irqchip")                             \
	X(kernel_io, "port accesses served by the irqchip")                               \
	X(hypercalls, "VMCALL/VMMCALL instructions")                                      \
	X(msr_accesses, "RDMSR and WRMSR instructions")                                   \
	X(exceptions, "exceptions delivered to the guest")                                \
	X(irq_injections, "external interrupts delivered to the guest")                   \
	X(nmi_injections, "NMIs delivered to the guest")                                  \
	X(irq_window_exits, "engine exits because the guest opened its interrupt window") \
	X(irq_lines, "interrupt lines driven by the VMM or an irqfd")                     \
	X(msis, "message-signalled interrupts")                                           \
	X(ipis, "interrupts sent by a local APIC")                                        \
	X(lapic_timers, "expiries of local APIC timers")                                  \
	X(pit_ticks, "PIT ticks sent to GSI 0")                                           \
	X(tlb_misses, "software TLB misses")                                              \
	X(tlb_flushes, "software TLB flushes")                                            \
	X(remote_tlb_flushes, "TLB flushes asked of other vCPUs")                         \
	X(pf_guest, "page faults reflected to the guest")                                 \
	X(pf_fixed, "faults resolved by instantiating an spte")                           \
	X(pf_mmio_spte, "faults answered by a cached mmio spte")                          \
	X(mmu_shadow_zapped, "shadow pages zapped")                                       \
	X(mmu_shadow_created, "shadow pages created")                                     \
	X(mmu_pte_write, "guest writes to a shadowed page table")                         \
	X(mmu_pte_updated, "sptes updated after a guest page table write")                \
	X(mmu_pde_zapped, "nonleaf sptes zapped after a guest page table write")          \
	X(mmu_flooded, "shadow pages zapped by the write-flooding heuristic")             \
	X(mmu_misaligned, "shadow pages zapped by the misaligned-write heuristic")        \
	X(mmu_recycled, "shadow pages recycled under the limit")                          \
	X(mmu_unsync, "shadow pages that became unsynchronized")                          \
	X(mmu_synced, "shadow pages resynchronized")                                      \
	X(mmu_cache_miss, "shadow page lookups that missed")                              \
	X(mmu_root_reused, "CR3 loads that found their root cached")                      \
	X(invlpg, "INVLPG and INVPCID of one address")                                    \
	X(mmu_notifier_invalidate, "host ranges invalidated through the MMU notifier")    \
	X(mmu_large_sptes, "large sptes created")

enum um_counter {
#define X(name, help) UM_CNT_##name,
	UM_COUNTERS(X)
#undef X
		UM_CNT_MAX
};

struct um_counters {
	u64 v[UM_CNT_MAX];
};

#define um_count(counters, name)	((counters)->v[UM_CNT_##name]++)
#define um_count_add(counters, name, n) ((counters)->v[UM_CNT_##name] += (n))

#define UM_STAT_MAGIC	   0x3261747361726d75ull /* "umrasta2" */
#define UM_STAT_MAX_BLOCKS 1025			 /* the VM's own, then one a vCPU */
#define UM_STAT_NAME_LEN   32
#define UM_STAT_BLOCK_SIZE 4096 /* a page, whose memory can be exchanged */

union um_stat_block {
	struct um_counters counters;
	struct {
		u8 room[UM_STAT_BLOCK_SIZE - sizeof(s32)];
		/* 0, or 1 + the descriptor that the process has of the file in which the counters are now. */
		s32 moved;
	};
};

_Static_assert(sizeof(union um_stat_block) == UM_STAT_BLOCK_SIZE,
	       "as many counters as fit in a page");

/* What the memfd holds.  block[0] is the VM's own, block[1 + i] that of the vCPU created i-th. */
struct um_stat_page {
	u64 magic;
	u32 ncounters; /* UM_CNT_MAX of the writer */
	u32 nblocks;   /* blocks in use */
	char names[UM_CNT_MAX][UM_STAT_NAME_LEN];
	union um_stat_block block[UM_STAT_MAX_BLOCKS] __attribute__((aligned(UM_STAT_BLOCK_SIZE)));
};

/* Name and help of a counter, for printing. */
const char *um_counter_name(enum um_counter c);
const char *um_counter_help(enum um_counter c);

/*
 * Make the memfd and map it.  Returns the descriptor or -errno; *@page is unmapped with
 * um_stat_unmap() and the descriptor closed by the caller.
 */
int um_stat_create(struct um_stat_page **page);
void um_stat_unmap(struct um_stat_page *page);

/*
 * Move block @b of the page, whose memfd is @stat_fd, to a file in the format of KVM_GET_STATS_FD with @id as its
 * name, less than UM_STAT_ID_LEN bytes.  Pointers to the block stay good, and no count is lost.  At most once for
 * each block.  Returns the file's descriptor, which the caller keeps as long as the page exists, or -errno.
 */
#define UM_STAT_ID_LEN 48
int um_stat_share(struct um_stat_page *page, int stat_fd, unsigned b, const char *id);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What an engine executes on: a processor's state, its MMU, and what the engine keeps between
 * instructions.  And what it answers: an exit.
 *
 * An engine never calls upward.  Whatever it can't finish by itself (a device access, HLT, an MSR
 * with behaviour, a guest exception) ends the run with a value in x->exit, and the vCPU layer acts
 * on it.
 *
 * Restarting.  Every exit but UM_EXIT_TRAP-like ones (see enum) leaves cpu.rip at the instruction
 * that asked, with no effect of it done; it is executed again from its start when the answer is
 * there:
 *   - MMIO: answers are appended to x->mmio; the instruction finds them there, in the order in
 * which it makes its accesses, instead of exiting again ("replay").
 *   - port I/O: the answer is in x->pio.
 *   - RDMSR, WRMSR, CR8, HYPERCALL, HLT, PAUSE, ...: the vCPU layer does the whole job and then
 * calls um_engine_retire().
 */
#ifndef UM_ENGINE_EXEC_H
#define UM_ENGINE_EXEC_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/counters.h"
#include "base/trace.h"
#include "cpu/cpu.h"
#include "mmu/mmu.h"

/* X(name, cpu.rip then, what the vCPU layer must do) */
#define UM_EXITS(X)                                                                            \
	X(NONE, "the next instruction", "nothing: internal to engines")                        \
	X(KICK, "the next instruction", "look at requests and signals")                        \
	X(IRQ_WINDOW, "the next instruction", "an interrupt can be injected now")              \
	X(EXCEPTION, "the faulting instruction, or the next for traps", "deliver x->exit.exc") \
	X(MMIO, "the instruction", "do x->exit.mmio; um_engine_mmio_done(); run")              \
	X(PIO, "the instruction", "do x->pio; set pio.state = UM_PIO_DONE; run")               \
	X(HLT, "the instruction", "retire, then wait for an event")                            \
	X(RDMSR, "the instruction", "read MSR ECX; EDX:EAX; retire; or #GP(0)")                \
	X(WRMSR, "the instruction", "write MSR ECX; retire; or #GP(0)")                        \
	X(CR8_READ, "the instruction", "gpr[exit.reg] = CR8; retire")                          \
	X(CR8_WRITE, "the instruction", "CR8 = gpr[exit.reg]; retire; or #GP(0)")              \
	X(HYPERCALL, "the instruction", "VMCALL or VMMCALL: do it; retire")                    \
	X(MWAIT, "the instruction", "retire; may wait")                                        \
	X(PAUSE, "the next instruction", "a spin loop: may yield the processor")               \
	X(WBINVD, "the instruction", "retire")                                                 \
	X(RSM, "the instruction", "leave SMM")                                                 \
	X(SVM, "the instruction", "VMRUN, VMLOAD, ... (nested/)")                              \
	X(SHUTDOWN, "the faulting instruction", "triple fault")                                \
	X(HOST_FAULT, "the instruction", "KVM_RUN fails with EFAULT; exit.hva, exit.gpa")      \
	X(INTERNAL, "the instruction", "KVM_EXIT_INTERNAL_ERROR; exit.why")

enum um_exit_kind {
#define X(name, rip, todo) UM_EXIT_##name,
	UM_EXITS(X)
#undef X
		UM_EXIT_MAX
};

const char *um_exit_name(enum um_exit_kind k);

/* A guest exception or interrupt, on its way to the IDT. */
enum um_event_kind {
	UM_EVENT_FAULT,	   /* exception; saved rip is the instruction */
	UM_EVENT_TRAP,	   /* #DB trap: saved rip is the next instruction (= cpu.rip) */
	UM_EVENT_SOFT_EXC, /* INT3, INTO: cpu.rip is the instruction, saved rip is cpu.rip +
			      insn_len */
	UM_EVENT_PRIV_EXC, /* INT1: the same, but no DPL check */
	UM_EVENT_SOFT_INT, /* INT n: the same as SOFT_EXC */
	UM_EVENT_EXTINT,   /* external interrupt */
	UM_EVENT_NMI,
};

struct um_event {
	u8 vector;
	u8 kind; /* enum um_event_kind */
	u8 insn_len;
	bool has_error;
	u32 error_code;
	u64 payload; /* #PF: CR2.  #DB: DR6 bits to merge (active high, BIT(16) RTM excluded) */
};

struct um_exit {
	enum um_exit_kind kind;
	u8 reg;	     /* CR8_*: number of the general register */
	u8 insn_len; /* of the instruction, for retiring */
	struct um_event exc;
	struct {
		gpa_t gpa;
		u8 len; /* 1..8 */
		bool write;
		u8 data[8];
	} mmio;
	gpa_t gpa;
	hva_t hva;
	const char *why; /* INTERNAL: static text */
};

/* MMIO accesses that the current instruction has had answered. */
#define UM_MMIO_MAX 72 /* 64 bytes of a vector in 8s; FXSAVE in 8s */
struct um_mmio_log {
	u16 done; /* answered */
	u16 pos;  /* used by the present execution of the instruction */
	struct {
		gpa_t gpa;
		u8 len;
		bool write;
		u8 data[8];
	} e[UM_MMIO_MAX];
};

enum um_pio_state { UM_PIO_IDLE, UM_PIO_PENDING, UM_PIO_DONE };
#define UM_PIO_MAX 1024 /* bytes in a batch of INS or OUTS */
struct um_pio {
	u8 state;
	u8 size; /* 1, 2, 4 */
	bool write;
	bool string;
	u16 port;
	u16 count; /* elements: 1 unless a repeated string instruction */
	u8 data[UM_PIO_MAX];
};

/*
 * Status flags, lazily: engine/flags.h has the functions.  Valid only inside an engine.
 */
struct um_cc {
	u64 res;
	u64 aux;
	u64 aux2;
};

/* Reasons to take the slow path at the top of the run loop, seen only by the vCPU's own thread. */
#define UM_SPECIAL_STEP \
	BIT(0) /* one instruction at a time: TF, int_shadow, breakpoints, KVM_GUESTDBG */
#define UM_SPECIAL_WINDOW BIT(1) /* leave as soon as interrupts are open */
#define UM_SPECIAL_DBHIT \
	BIT(2) /* a data breakpoint was hit by the instruction just done: x->db_hits */

/* What executes guest code. */
enum um_engine_kind {
	UM_ENGINE_INTERP,   /* the interpreter alone */
	UM_ENGINE_JIT,	    /* the translator for what is executed often, else the interpreter */
	UM_ENGINE_LOCKSTEP, /* both, compared after every block */
};

struct um_interp;
struct um_jit;
struct um_jit_options;
struct um_lockstep;

/* The vCPUs of a VM take turns, in the order of asking: engine/jit/lockstep.c. */
struct um_lockstep_queue {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	u64 next, serving;
};

/* Data accesses at one privilege. */
struct um_jit_context {
	struct um_tlb_entry *tlb; /* the TLB's entries for `ctx` */
	u32 ctx, priv;		  /* as um_exec.ctx, um_exec.priv */
};

/*
 * The memory that was accessed last by some of the translated code's memory operands, for one kind
 * of access: a TLB hit remembered, so that the next access there costs a subtraction and a
 * comparison.  Pages in a row, of which one is the rule.  Good as long as neither the context nor
 * tlb->seq changes.
 */
struct um_jit_window {
	gva_t start;
	hva_t host;
	u64 limit; /* greatest distance from the start for an access of 8 bytes at most */
};
#define UM_JIT_ANCHORS	     4 /* host addresses kept at a time (engine/jit/anchor.c) */
#define UM_JIT_WINDOWS	     25
#define UM_JIT_KERNEL_WINDOW 24 /* the last is CPL 0's, for the stack */

/*
 * What translated code reads and writes all the time, the most used of it within short reach of its
 * base register: derived from the rest, but for the flags.
 */
struct um_jit_state {
	struct um_tlb_entry *fetch_tlb;	 /* the TLB's entries for the context `fetch_ctx` */
	u64 fetch_ctx;			 /* = um_exec.fetch_ctx */
	u64 *code_pages;		 /* the TLB's notes of code pages, the kernel's first */
	u64 *checked;			 /* um_jit.checked */
	u64 doubt;			 /* um_jit_doubt_tag() of now */
	struct um_jit_context kernel[2]; /* with EFLAGS.AC clear, set */
	struct um_jit_context user;
	u64 shadow_rip; /* the linear address of the instruction behind the last STI that set IF */
	u32 want;	/* enum um_vec_class: what entering translated code must bring there */
	u32 vec_zmm; /* with class AVX: bits 511..256 of ZMM0-15 are there, too (engine/jit/vec.h) */
	u64 operand;  /* of the last shift or multiplication, for having its flags again */
	u64 spare[2]; /* scratch */
	struct um_jit_region *regions; /* the first of um_jit.region */
	void *host_sp; /* the host's stack pointer when translated code was entered ... */
	void *sp;      /* ... and while no return address of the guest's is on its stack */
	/* From here on, and some of cpu.gpr[], within 128 bytes of the base register. */
	struct um_jit_window stack[2]; /* the window of RSP, at CPL 3 */
	u32 vec; /* enum um_vec_class: what of the guest's vector state is in the host's registers */
	s32 patience;		  /* misses of windows until one is looked at */
	struct um_tlb_entry *tlb; /* the TLB's entries for the context `ctx` */
	u64 ctx;		  /* = um_exec.ctx */
	u64 flags;		  /* status flags, as in RFLAGS (other bits are the host's) */
	u64 stamp;		  /* of jump cache entries that hold now; upper half 0: kicked */
	void *jump;		  /* the jump cache */
	const volatile u8 *immediate_exit; /* never NULL */
};

/* Where translated code goes on: at @code, entered through @way, a routine of engine/jit/arena.c. */
struct um_jit_next {
	const void *code, *way;
};

struct um_exec {
	u8 engine;	   /* enum um_engine_kind; set before um_engine_init() */
	u32 jit_threshold; /* executions after which a block is translated */
	const struct um_jit_options *jit_options; /* read by um_engine_init(); NULL: the usual */
	struct um_tlb *tlb;
	struct um_mmu *mmu;
	struct um_counters *counters;
	struct um_jit *translator;    /* NULL: none */
	struct um_lockstep *lockstep; /* NULL but with UM_ENGINE_LOCKSTEP */
	/* Right before cpu: UM_JIT_BIAS. */
	struct um_jit_state jit;
	/* Set by any thread to make the engine leave its loop within one block: um_exec_kick(). */
	atomic_uint kick;
	s32 far_patience; /* of translated code: jumps that find no far link until one is made */
	struct um_cpu cpu;

	const struct um_trace *trace;
	struct um_interp *interp;
	/* --- what the engines keep, derived from cpu by um_exec_sync() --- */
	struct um_cc cc;
	u64 seg_base[UM_NR_SEGS]; /* bases in force: 0 for ES CS SS DS in 64-bit mode */
	u64 lin_mask;		  /* ~0 in 64-bit mode, 0xffffffff else */
	u64 sp_mask;		  /* stack size: ~0, 0xffffffff or 0xffff */
	u8 seg_flat[UM_NR_SEGS];  /* bit enum um_access: no segment check needed for this access */
	u8 mode;		  /* enum um_mode */
	u8 priv;		  /* enum um_tlb_priv of explicit data accesses */
	u16 ctx;		  /* tlb->ctx[priv] */
	u16 fetch_ctx;		  /* tlb->ctx[cpl == 3 ? UM_PRIV_USER : UM_PRIV_KERNEL] */
	/*
	 * ~0, or 0 if every data access must take the slow path (alignment checks, data breakpoints
	 * of the VMM): then ctx is 0, which matches no TLB entry.
	 */
	u16 ctx_mask;
	u8 canon_shift;	  /* 64 - significant bits of linear addresses; 0 outside 64-bit mode */
	bool align_check; /* CR0.AM, RFLAGS.AC, CPL 3 */
	/*
	 * The guest's MXCSR, its x87 state are in the processor's registers, and newer than
	 * cpu.fpu; the thread's own are kept here.  Only within a run: um_native_fpu_sync().
	 */
	bool mxcsr_live, x87_live;
	u16 host_fcw;
	u32 host_mxcsr;
	u64 x87_rip, x87_ea; /* last non-control x87 instruction, last with a memory operand */
	u16 x87_fop[2];	     /* FOP as the stub's encoding had it, and as the guest's */
	u32 special;	     /* UM_SPECIAL_... */
	u32 db_hits;	     /* DR6.B0-3 */
	bool brk;	     /* end the block after the current instruction */
	hva_t code_page;     /* host page of the running block: a store to it sets brk */
	gva_t tracked_gva;   /* the last um_lin_map() that said "tracked", and where it was */
	gpa_t tracked_gpa;

	/*
	 * kvm_run.immediate_exit, which a signal handler of the VMM sets in this very thread:
	 * tested wherever kick is, with the same effect.  NULL: there is none (tests).
	 */
	const volatile u8 *immediate_exit;
	/*
	 * Shared by the vCPUs of a VM: held by locked instructions that can't be one atomic access
	 * of the host (crossing a page, MMIO).  NULL if there is only one vCPU.
	 */
	pthread_mutex_t *split_lock;

	/* --- set by the vCPU layer before a run --- */
	bool irq_window; /* wants UM_EXIT_IRQ_WINDOW when IF is set and no shadow blocks */
	bool nmi_window; /* wants it when NMIs are not masked (IRET) and no shadow blocks */
	bool guest_step; /* KVM_GUESTDBG_SINGLESTEP: #DB exception exit after each instruction */
	u64 guest_dr7;	 /* KVM_GUESTDBG_USE_HW_BP: used with guest_dr[] in place of cpu.dr7/dr */
	u64 guest_dr[4];
	bool use_guest_dr;
	bool exit_on_pause;
	bool alone;	  /* the VM has no other vCPU */
	bool exit_on_msr; /* also those that an engine could do by itself: there is a filter */
	/* the other vendor's instruction is replaced by the right one: no #UD */
	bool fix_hypercall;
	bool monitor_is_nop; /* MONITOR and MWAIT without the feature: no #UD */

	struct um_exit exit;
	struct um_mmio_log mmio;
	struct um_pio pio;

	/* Translated code was left, with that UM_JIT_EXIT(): where to go on, and in which way (engine/jit/arena.c). */
	struct um_jit_next (*jit_on_exit)(struct um_exec *x, u64 ret);
	void *jit_returns_sp; /* the host's stack pointer then, and where to go on */
	u32 jit_key;
	/* Of CPL 3 ([1]), or else: what jit.stamp has of um_jit.map_seq, and of the key that is the CPL's. */
	u32 jit_seq[2];
	struct um_lockstep_queue *lockstep_queue; /* NULL if there is only one vCPU */
	/* stores are to be taken back: um_lockstep_store() is to be told before each */
	bool recording;
	/* others may have changed code since translated code ran: engine/jit/jit.h */
	bool code_doubt;
	/*
	 * Translated code's, of UM_READ, UM_WRITE; and um_jit_window.limit for accesses of up to 64
	 * bytes, and of up to UM_JIT_SPAN.
	 */
	struct um_jit_window window[2][UM_JIT_WINDOWS];
	u64 window_wide[2][UM_JIT_WINDOWS];
	u64 window_span[2][UM_JIT_WINDOWS];
	/* What it is entered with in the middle of a block; and in its scratch register H_T1. */
	u64 anchor[UM_JIT_ANCHORS], t1;
	gva_t missed;	   /* the last access whose window's miss is to be looked at */
	u32 missed_window; /* ... enum um_access, and from bit 1 the window */
};

/*
 * From any thread: make the engine leave its loop.  The order is what engine/jit/run.c relies on.  The
 * stamp's lower half is left alone: translated code writes it (engine/jit/syscall.c).
 */
static inline void um_exec_kick(struct um_exec *x)
{
	atomic_store(&x->kick, 1);
	__atomic_store_n((u32 *)&x->jit.stamp + 1, 0, __ATOMIC_SEQ_CST);
}

#endif

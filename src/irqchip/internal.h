/* SPDX-License-Identifier: MIT */
/*
 * What the files of src/irqchip share: the chip, the local APIC, the message between them.
 * The locks and their order are in irqchip.h.
 */
#ifndef UM_IRQCHIP_INTERNAL_H
#define UM_IRQCHIP_INTERNAL_H

#include <pthread.h>

#include "base/bits.h"
#include "irqchip/irqchip.h"
#include "irqchip/lapic.h"
#include "irqchip/synic.h"
#include "irqchip/timer.h"

#define PIC_PINS    16
#define IOAPIC_PINS KVM_IOAPIC_NUM_PINS

/*
 * Fields that are written under a lock but read without it, where an old value is as good as a new
 * one that arrives a moment later.
 */
#define load_relaxed(p)	    __atomic_load_n(p, __ATOMIC_RELAXED)
#define store_relaxed(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)

/* Events that several threads count in the VM's one block. */
#define chip_count(chip, name)                                                     \
	do {                                                                       \
		if ((chip)->counters)                                              \
			__atomic_fetch_add(&(chip)->counters->v[UM_CNT_##name], 1, \
					   __ATOMIC_RELAXED);                      \
	} while (0)

/* ---- Messages (SDM "Interrupt Command Register", "Message Signalled Interrupts") ---- */

enum delivery_mode {
	DM_FIXED = 0,
	DM_LOWEST = 1,
	DM_SMI = 2,
	DM_RESERVED = 3,
	DM_NMI = 4,
	DM_INIT = 5,
	DM_SIPI = 6,
	DM_EXTINT = 7,
};

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

struct irq_msg {
	u32 dest;
	u8 vector;
	u8 mode; /* enum delivery_mode */
	bool logical;
	bool level;	      /* level-triggered: the target's TMR bit, an EOI broadcast follows */
	bool lowest;	      /* to one of the matching CPUs */
	bool broadcast;	      /* to all */
	bool broadcast_xapic; /* to all in xAPIC mode, whatever it means to those in x2APIC mode */
	u8 shorthand;	      /* enum shorthand */
};

/* ---- Local APIC ---- */

/* Register offsets in the xAPIC page; the x2APIC MSR is 0x800 + offset / 16. */
enum {
	APIC_ID = 0x20,
	APIC_VERSION = 0x30,
	APIC_TPR = 0x80,
	APIC_APR = 0x90,
	APIC_PPR = 0xa0,
	APIC_EOI = 0xb0,
	APIC_LDR = 0xd0,
	APIC_DFR = 0xe0,
	APIC_SPIV = 0xf0,
	APIC_ISR = 0x100,
	APIC_TMR = 0x180,
	APIC_IRR = 0x200,
	APIC_ESR = 0x280,
	APIC_ICR = 0x300,
	APIC_ICR2 = 0x310,
	APIC_TMICT = 0x380,
	APIC_TMCCT = 0x390,
	APIC_TDCR = 0x3e0,
	APIC_SELF_IPI = 0x3f0,
};

#define APIC_NR_REGS (KVM_APIC_REG_SIZE / 16)

#define APIC_BASE_BSP	 BIT(8)
#define APIC_BASE_X2APIC BIT(10)
#define APIC_BASE_ENABLE BIT(11)

#define SPIV_ENABLED	 0x100u
#define SPIV_DIRECTED	 0x1000u /* suppress EOI broadcasts */
#define VERSION_DIRECTED 0x1000000u

#define LVT_VECTOR     0xffu
#define LVT_MODE       0x700u
#define LVT_POLARITY   0x2000u
#define LVT_LEVEL      0x8000u
#define LVT_MASKED     0x10000u
#define LVT_TIMER_MODE 0x60000u
#define LVT_PERIODIC   0x20000u
#define LVT_DEADLINE   0x40000u

#define ESR_SEND_VECTOR 0x20u /* Send Illegal Vector */
#define ESR_RECV_VECTOR 0x40u /* Received Illegal Vector */
#define ESR_REGISTER	0x80u /* Illegal Register Address */

struct lapic_timer {
	struct um_timer timer;
	bool running;
	u64 target;	  /* ns: next expiry, while running */
	u64 period;	  /* ns: initial count times divider; 0 if the count is 0 */
	u64 tsc_deadline; /* guest TSC; 0: not armed */
};

/* SINTs (synic.c).  Written under the LAPIC's lock, read without. */
struct synic {
	bool active;
	u32 vp_index;
	u64 sint[UM_NR_SINTS];
	u64 vectors[4],
		auto_eoi[4]; /* of the SINTs that are not masked: all, and those with AutoEOI */
};

struct um_lapic {
	struct um_irqchip *chip;
	const struct um_lapic_ops *ops;
	void *vcpu;
	u32 vcpu_id;
	bool bsp;
	struct um_lapic *next_dead;

	/* Read without the lock. */
	u64 base; /* IA32_APIC_BASE */
	u32 regs[APIC_NR_REGS];
	int hint;	  /* vector that can be delivered, or -1 */
	bool accepts_pic; /* external interrupts pass */
	int ext_vector;	  /* split: from KVM_INTERRUPT, or -1 */
	u32 arb;	  /* lowest-priority messages taken: equals take turns */
	int isr_top;	  /* highest vector in service, or -1 */
	bool pv_pending;  /* the guest may EOI by its flag */
	bool heard;	  /* others than its timer have asked for an interrupt: um_lapic_heard() */
	u64 pv_eoi;	  /* MSR_KVM_PV_EOI_EN */
	struct synic synic;

	pthread_mutex_t lock;
	bool dead; /* destroyed: no more callbacks */
	u32 esr;   /* errors since ESR was last written */
	bool has_x2apic, has_deadline, has_cmci;
	unsigned maxphyaddr;
	struct lapic_timer timer;
	u64 eoi_exit[4]; /* split: vectors whose EOI the VMM has to see */
};

static inline u32 reg_get(const struct um_lapic *l, u32 reg)
{
	return load_relaxed(&l->regs[reg >> 4]);
}

static inline void reg_set(struct um_lapic *l, u32 reg, u32 val)
{
	store_relaxed(&l->regs[reg >> 4], val);
}

/* A bit of ISR, TMR or IRR: 32 vectors a register. */
static inline bool vec_test(const struct um_lapic *l, u32 reg, u8 vec)
{
	return reg_get(l, reg + (vec >> 5) * 16u) >> (vec & 31) & 1;
}

static inline void vec_set(struct um_lapic *l, u32 reg, u8 vec)
{
	reg += (vec >> 5) * 16u;
	reg_set(l, reg, reg_get(l, reg) | 1u << (vec & 31));
}

static inline void vec_clear(struct um_lapic *l, u32 reg, u8 vec)
{
	reg += (vec >> 5) * 16u;
	reg_set(l, reg, reg_get(l, reg) & ~(1u << (vec & 31)));
}

static inline bool lapic_enabled(const struct um_lapic *l)
{
	return load_relaxed(&l->base) & APIC_BASE_ENABLE;
}

static inline bool lapic_x2apic(const struct um_lapic *l)
{
	return (load_relaxed(&l->base) & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) ==
	       (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
}

static inline bool lapic_sw_enabled(const struct um_lapic *l)
{
	return reg_get(l, APIC_SPIV) & SPIV_ENABLED;
}

/* The number that messages call it by. */
static inline u32 lapic_number(const struct um_lapic *l)
{
	u32 id = reg_get(l, APIC_ID);

	return lapic_x2apic(l) ? id : id >> 24;
}

/* lapic.c; all with l->lock held. */
void lapic_update(struct um_lapic *l);
bool lapic_deliver_lvt(struct um_lapic *l, u32 reg);
void lapic_error(struct um_lapic *l, u32 esr_bit);
/*
 * Take a message.  1; 0 if it coalesced with one pending, or this LAPIC is disabled or does not
 * know the mode.  *@accepted is set if it was taken or coalesced.
 */
int lapic_accept(struct um_lapic *l, u8 mode, u8 vector, bool level, bool *accepted);
void lapic_set_mode_id(struct um_lapic *l);
void lapic_clear(struct um_lapic *l);

/* lapic.c; no lock held, the vCPU's thread. */
void lapic_eoi(struct um_lapic *l);

/* synic.c.  A SINT uses the vector; it ends when it is acknowledged. */
static inline bool synic_has_vector(const struct um_lapic *l, u8 vec)
{
	return load_relaxed(&l->synic.vectors[vec >> 6]) >> (vec & 63) & 1;
}

static inline bool synic_auto_eoi(const struct um_lapic *l, u8 vec)
{
	return load_relaxed(&l->synic.auto_eoi[vec >> 6]) >> (vec & 63) & 1;
}

/* EOI of a vector that some SINT uses.  No lock held, the vCPU's thread. */
void synic_eoi(struct um_lapic *l, u8 vec);
/* A GSI that is routed to a SINT; chip->lock held. */
int synic_set_irq(struct um_irqchip *chip, u32 vp_index, u32 sint);

/* lapic_timer.c; l->lock held, but for the first two. */
int lapic_timer_init(struct um_lapic *l);
void lapic_timer_destroy(struct um_lapic *l);
void lapic_timer_stop(struct um_lapic *l);
void lapic_timer_set_lvt(struct um_lapic *l, u32 lvt);
void lapic_timer_set_count(struct um_lapic *l, u32 count);
void lapic_timer_set_divide(struct um_lapic *l, u32 tdcr);
u32 lapic_timer_count(struct um_lapic *l);
/* The current count to save: 0 only if the timer does not run; then its request, if any, is in IRR. */
u32 lapic_timer_save(struct um_lapic *l);
/* Take up LVT, initial count, divider and current count as they stand in the registers. */
void lapic_timer_restore(struct um_lapic *l);

/* ---- The chip ---- */

struct pic {
	struct kvm_pic_state s[2]; /* master, slave */
	u32 lines[PIC_PINS];	   /* which sources hold the pin */
	bool output;		   /* INTR; read without the lock */
};

struct ioapic {
	u32 select, id;
	u32 irr;       /* pins that are asserted */
	u32 delivered; /* edge pins whose edge was delivered */
	u64 redir[IOAPIC_PINS];
	u32 lines[IOAPIC_PINS];
};

#define REDIR_VECTOR	 GENMASK(7, 0)
#define REDIR_MODE_SHIFT 8
#define REDIR_LOGICAL	 BIT(11)
#define REDIR_STATUS	 BIT(12)
#define REDIR_REMOTE_IRR BIT(14)
#define REDIR_LEVEL	 BIT(15)
#define REDIR_MASKED	 BIT(16)
#define REDIR_DEST_SHIFT 56

struct pit;
struct routing;
struct irqfd;

struct um_irqchip {
	bool split;
	u32 nr_reserved_pins;
	const struct um_trace *trace;
	struct um_counters *counters;
	struct um_timers *timers;

	/* Read without the lock. */
	u64 quirks_off;
	u64 x2apic_api;
	struct um_lapic *lapics[UM_MAX_VCPU_IDS]; /* by vCPU id */
	u32 nr_ids;				  /* all ids are below */
	bool ids_changed;			  /* some guest wrote an APIC id: no shortcut */
	u64 eoi_vectors[4]; /* vectors whose EOI the IOAPIC, or the VMM's, wants to see */

	pthread_mutex_t lock;
	struct pic pic;
	struct ioapic ioapic;
	struct pit *pit;
	struct routing *routing;
	struct um_lapic *dead;
	bool pit_kick;		  /* a PIT tick is to be sent before the lock is dropped */
	struct irqfd *resamplers; /* irqfds with a resample descriptor */

	pthread_mutex_t irqfds_lock; /* outside of lock */
	struct irqfd *irqfds;
};

void chip_lock(struct um_irqchip *chip);
/* Sends what was put off while the lock was held, then unlocks. */
void chip_unlock(struct um_irqchip *chip);

static inline struct um_lapic *chip_lapic(struct um_irqchip *chip, u32 id)
{
	return __atomic_load_n(&chip->lapics[id], __ATOMIC_ACQUIRE);
}

#define for_each_lapic(chip, id, l)                                                     \
	for (u32 id = 0, id##_end = __atomic_load_n(&(chip)->nr_ids, __ATOMIC_ACQUIRE); \
	     id < id##_end; id++)                                                       \
		if ((l = chip_lapic(chip, id)) != NULL)

static inline bool chip_wants_eoi(struct um_irqchip *chip, u8 vec)
{
	return load_relaxed(&chip->eoi_vectors[vec >> 6]) >> (vec & 63) & 1;
}

/*
 * delivery.c: send a message; no LAPIC lock held.  @src is the LAPIC that an IPI comes from.
 * Returns as um_irqchip_set_irq.  *@accepted (may be NULL): some LAPIC took it or had it pending.
 */
int deliver(struct um_irqchip *chip, struct um_lapic *src, const struct irq_msg *msg,
	    bool *accepted);
bool msg_matches(struct um_lapic *l, const struct irq_msg *msg);
/* An 8-bit destination 0xff as devices and xAPIC IPIs mean it. */
void msg_set_device_dest(struct um_irqchip *chip, struct irq_msg *msg, u32 dest);
void msg_from_msi(struct um_irqchip *chip, struct irq_msg *msg, u32 address_lo, u32 address_hi,
		  u32 data);
bool msi_address_valid(struct um_irqchip *chip, u32 address_hi);
/* Send the message in the ICR.  No lock held. */
void lapic_send_ipi(struct um_lapic *l, u64 icr);

/* pic.c; chip->lock held. */
void pic_init(struct um_irqchip *chip);
int pic_set_line(struct um_irqchip *chip, unsigned pin, bool level);
int pic_ack(struct um_irqchip *chip); /* INTA: the vector, or -1 if INTR is low */
u8 pic_read(struct um_irqchip *chip, u16 port);
void pic_write(struct um_irqchip *chip, u16 port, u8 val);
bool pic_has_port(u16 port);
void pic_get(struct um_irqchip *chip, unsigned which, struct kvm_pic_state *s);
void pic_set(struct um_irqchip *chip, unsigned which, const struct kvm_pic_state *s);

/* ioapic.c; chip->lock held. */
void ioapic_init(struct um_irqchip *chip);
int ioapic_set_line(struct um_irqchip *chip, unsigned pin, bool level);
void ioapic_eoi(struct um_irqchip *chip, u8 vector, bool level);
u32 ioapic_read(struct um_irqchip *chip, u32 offset);
void ioapic_write(struct um_irqchip *chip, u32 offset, u32 val);
void ioapic_get(struct um_irqchip *chip, struct kvm_ioapic_state *s);
void ioapic_set(struct um_irqchip *chip, const struct kvm_ioapic_state *s);
void ioapic_update_eoi_vectors(struct um_irqchip *chip);

/* routing.c; chip->lock held. */
int routing_init(struct um_irqchip *chip);
int routing_set_irq(struct um_irqchip *chip, enum um_irq_source source, u32 gsi, bool level);
/* The GSI that is routed to a pin of @which (KVM_IRQCHIP_*), or -1. */
int routing_gsi_of(struct um_irqchip *chip, unsigned which, unsigned pin);
/* EOIs of SINTs (bits) of a vCPU: tell the irqfds of the GSIs that are routed there. */
void routing_sints_acked(struct um_irqchip *chip, u32 vp_index, u32 sints);
/* Split: may an EOI of @vec at @l be one that the VMM's IOAPIC waits for? */
bool routing_level_vector(struct um_irqchip *chip, struct um_lapic *l, u8 vec);

/*
 * irqchip.c; chip->lock held.  A pin's interrupt was acknowledged (EOI), or the guest changed its
 * mask: whoever drives the pin's GSI may care.
 */
void chip_pin_acked(struct um_irqchip *chip, unsigned which, unsigned pin);
/* Does someone care for acknowledgements of this pin even if it is edge-triggered? */
bool chip_pin_watched(struct um_irqchip *chip, unsigned which, unsigned pin);
void chip_pin_mask(struct um_irqchip *chip, unsigned which, unsigned pin, bool masked);

/* pit.c; chip->lock held, but for create's failure-free parts and destroy. */
bool pit_has_port(struct um_irqchip *chip, u16 port);
u8 pit_read(struct um_irqchip *chip, u16 port);
void pit_write(struct um_irqchip *chip, u16 port, u8 val);
void pit_acked(struct um_irqchip *chip);
void pit_unmasked(struct um_irqchip *chip);
void pit_send_tick(struct um_irqchip *chip);
void pit_destroy(struct um_irqchip *chip); /* without the lock */

/* irqfd.c.  The first two with chip->lock held: an interrupt of @gsi was acknowledged; does it matter? */
void irqfd_acked(struct um_irqchip *chip, u32 gsi);
bool irqfd_wants_ack(struct um_irqchip *chip, u32 gsi);
void irqfds_destroy(struct um_irqchip *chip); /* before the timers; without the lock */

#endif

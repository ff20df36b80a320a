// SPDX-License-Identifier: MIT
/*
 * The state of a vCPU in the structures of <linux/kvm.h>, both ways.
 */
#include <errno.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "vcpu/vcpu.h"

#define MCG_STATUS_MCIP BIT(2)
#define MCI_STATUS_VAL	BIT(63)
#define MCI_STATUS_OVER BIT(62)
#define MCI_STATUS_UC	BIT(61)
#define MCI_STATUS_PCC	BIT(57)
#define MCI_STATUS_S	BIT(56)
#define MCI_STATUS_AR	BIT(55)

/* ---- general registers ---- */

/* In the order of struct kvm_regs. */
static const u8 regs_order[] = { UM_RAX, UM_RBX, UM_RCX, UM_RDX, UM_RSI, UM_RDI, UM_RSP, UM_RBP,
				 UM_R8,	 UM_R9,	 UM_R10, UM_R11, UM_R12, UM_R13, UM_R14, UM_R15 };

_Static_assert(offsetof(struct kvm_regs, rip) == sizeof(regs_order) * sizeof(u64),
	       "general registers come first");

void um_vcpu_get_regs(struct um_vcpu *v, struct kvm_regs *r)
{
	u64 *out = (u64 *)r;

	for (unsigned i = 0; i < ARRAY_SIZE(regs_order); i++)
		out[i] = v->x.cpu.gpr[regs_order[i]];
	r->rip = v->x.cpu.rip;
	r->rflags = v->x.cpu.rflags;
}

void um_vcpu_set_regs(struct um_vcpu *v, const struct kvm_regs *r)
{
	struct um_cpu *c = &v->x.cpu;
	const u64 *in = (const u64 *)r;

	for (unsigned i = 0; i < ARRAY_SIZE(regs_order); i++)
		c->gpr[regs_order[i]] = in[i];
	/*
	 * A VMM may change registers between an I/O exit and its completion, which then still happens;
	 * but not if it sends the guest elsewhere.
	 */
	if (c->rip != r->rip)
		um_vcpu_cancel_io(v);
	c->rip = r->rip;
	c->rflags = (r->rflags & RFLAGS_ALL) | RFLAGS_FIXED1;
	um_cpu_derive_cpl(c);
	v->exc_pending = false;
}

/* ---- system registers ---- */

static void get_segment(const struct um_segment *s, struct kvm_segment *k)
{
	*k = (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->type,
		.present = s->present,
		.dpl = s->dpl,
		.db = s->db,
		.s = s->s,
		.l = s->l,
		.g = s->g,
		.avl = s->avl,
		.unusable = s->unusable || !s->present,
	};
}

static void set_segment(struct um_segment *s, const struct kvm_segment *k)
{
	*s = (struct um_segment){
		.base = k->base,
		.limit = k->limit,
		.selector = k->selector,
		.type = k->type & 15,
		.dpl = k->dpl & 3,
		.s = k->s & 1,
		.present = k->present && !k->unusable,
		.avl = k->avl & 1,
		.l = k->l & 1,
		.db = k->db & 1,
		.g = k->g & 1,
		.unusable = k->unusable || !k->present,
	};
}

static void get_common(struct um_vcpu *v, struct kvm_sregs *s)
{
	const struct um_cpu *c = &v->x.cpu;

	get_segment(&c->seg[UM_CS], &s->cs);
	get_segment(&c->seg[UM_DS], &s->ds);
	get_segment(&c->seg[UM_ES], &s->es);
	get_segment(&c->seg[UM_FS], &s->fs);
	get_segment(&c->seg[UM_GS], &s->gs);
	get_segment(&c->seg[UM_SS], &s->ss);
	get_segment(&c->tr, &s->tr);
	get_segment(&c->ldt, &s->ldt);
	s->gdt.base = c->gdt.base;
	s->gdt.limit = c->gdt.limit;
	s->idt.base = c->idt.base;
	s->idt.limit = c->idt.limit;
	s->cr0 = c->cr0;
	s->cr2 = c->cr2;
	s->cr3 = c->cr3;
	s->cr4 = c->cr4;
	s->cr8 = um_vcpu_get_cr8(v);
	s->efer = c->efer;
	s->apic_base = um_vcpu_get_apic_base(v);
}

void um_vcpu_get_sregs(struct um_vcpu *v, struct kvm_sregs *s)
{
	memset(s, 0, sizeof(*s));
	get_common(v, s);
	if (v->irq_pending && !v->irq_soft)
		s->interrupt_bitmap[v->irq / 64] |= 1ull << (v->irq % 64);
}

static bool pae_paging(const struct um_cpu *c)
{
	return (c->cr0 & CR0_PG) && (c->cr4 & CR4_PAE) && !(c->efer & EFER_LMA);
}

/* struct kvm_sregs2 begins as struct kvm_sregs does, up to the interrupt bitmap. */
_Static_assert(offsetof(struct kvm_sregs, interrupt_bitmap) == offsetof(struct kvm_sregs2, flags),
	       "common part of the two");

void um_vcpu_get_sregs2(struct um_vcpu *v, struct kvm_sregs2 *s)
{
	struct kvm_sregs common = { 0 };

	get_common(v, &common);
	memset(s, 0, sizeof(*s));
	memcpy(s, &common, offsetof(struct kvm_sregs2, flags));
	if (pae_paging(&v->x.cpu)) {
		memcpy(s->pdptrs, v->x.cpu.pdptr, sizeof(s->pdptrs));
		s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	}
}

/* Combinations that MOV CR and WRMSR could not have made (SDM vol. 3 2.5, 4.1). */
static bool valid_sregs(const struct um_vcpu *v, const struct kvm_sregs *s)
{
	const struct um_cpu *c = &v->x.cpu;

	if ((s->efer & EFER_LME) && (s->cr0 & CR0_PG)) {
		if (!(s->cr4 & CR4_PAE) || !(s->efer & EFER_LMA))
			return false;
		if (s->cr3 & ~GENMASK(c->maxphyaddr - 1, 0))
			return false;
	} else if ((s->efer & EFER_LMA) || s->cs.l) {
		return false;
	}
	if (s->efer & ~um_supported_efer())
		return false;
	if (s->cr0 >> 32 || ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE)) ||
	    ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)))
		return false;
	return !(s->cr4 & ~c->cr4_allowed) && s->cr8 <= 15;
}

static int set_common(struct um_vcpu *v, const struct kvm_sregs *s)
{
	struct um_cpu *c = &v->x.cpu;
	u64 cs_base = c->seg[UM_CS].base;

	if (!valid_sregs(v, s) || !um_vcpu_set_apic_base(v, s->apic_base, true))
		return -EINVAL;
	set_segment(&c->seg[UM_CS], &s->cs);
	set_segment(&c->seg[UM_DS], &s->ds);
	set_segment(&c->seg[UM_ES], &s->es);
	set_segment(&c->seg[UM_FS], &s->fs);
	set_segment(&c->seg[UM_GS], &s->gs);
	set_segment(&c->seg[UM_SS], &s->ss);
	set_segment(&c->tr, &s->tr);
	set_segment(&c->ldt, &s->ldt);
	c->gdt = (struct um_dtable){ .base = s->gdt.base, .limit = s->gdt.limit };
	c->idt = (struct um_dtable){ .base = s->idt.base, .limit = s->idt.limit };
	c->cr0 = (s->cr0 & CR0_DEFINED) | CR0_ET;
	c->cr2 = s->cr2;
	c->cr3 = s->cr3;
	c->cr4 = s->cr4;
	c->efer = s->efer;
	um_vcpu_set_cr8(v, s->cr8);
	um_cpu_derive_cpl(c);
	if (c->seg[UM_CS].base != cs_base)
		um_vcpu_cancel_io(v);
	/* A VMM that resets the bootstrap processor by its registers alone means it to run. */
	if (v->id == v->vm->bsp_id && c->rip == 0xfff0 && s->cs.selector == 0xf000 &&
	    s->cs.base == 0xffff0000 && !(c->cr0 & CR0_PE))
		v->mp_state = KVM_MP_STATE_RUNNABLE;
	return 0;
}

int um_vcpu_set_sregs(struct um_vcpu *v, const struct kvm_sregs *s)
{
	int err = set_common(v, s);

	if (err)
		return err;
	if (pae_paging(&v->x.cpu))
		um_mmu_load_pdptrs(v->mmu, s->cr3, v->x.cpu.pdptr);
	um_vcpu_state_changed(v);
	for (unsigned vec = 0; vec < 256; vec++) {
		if (s->interrupt_bitmap[vec / 64] >> (vec % 64) & 1) {
			v->irq = (u8)vec;
			v->irq_soft = false;
			v->irq_pending = true;
			break;
		}
	}
	return 0;
}

int um_vcpu_set_sregs2(struct um_vcpu *v, const struct kvm_sregs2 *s)
{
	struct kvm_sregs common = { 0 };
	bool pdptrs = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
	int err;

	if (s->flags & ~(u64)KVM_SREGS2_FLAGS_PDPTRS_VALID)
		return -EINVAL;
	memcpy(&common, s, offsetof(struct kvm_sregs2, flags));
	if (pdptrs && (!(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE) || (s->efer & EFER_LMA)))
		return -EINVAL;
	err = set_common(v, &common);
	if (err)
		return err;
	if (pdptrs)
		memcpy(v->x.cpu.pdptr, s->pdptrs, sizeof(s->pdptrs));
	else if (pae_paging(&v->x.cpu))
		um_mmu_load_pdptrs(v->mmu, s->cr3, v->x.cpu.pdptr);
	um_vcpu_state_changed(v);
	return 0;
}

/* ---- events ---- */

static u8 get_shadow(const struct um_cpu *c)
{
	return (c->int_shadow & UM_SHADOW_MOVSS ? KVM_X86_SHADOW_INT_MOV_SS : 0) |
	       (c->int_shadow & UM_SHADOW_STI ? KVM_X86_SHADOW_INT_STI : 0);
}

void um_vcpu_get_events(struct um_vcpu *v, struct kvm_vcpu_events *e)
{
	bool hardware = v->exc.kind == UM_EVENT_FAULT || v->exc.kind == UM_EVENT_TRAP;

	memset(e, 0, sizeof(*e));
	if (atomic_load(&v->nmi_queued))
		um_vcpu_collect_nmis(v);
	if (atomic_fetch_and(&v->requests, ~(unsigned)UM_REQ_SMI) & UM_REQ_SMI)
		v->smi_pending = true;
	/* INT3 and its like are simply executed again. */
	if (v->exc_pending && hardware) {
		e->exception.nr = v->exc.vector;
		e->exception.has_error_code = v->exc.has_error;
		e->exception.error_code = v->exc.error_code;
		if (v->vm->exception_payload) {
			e->exception.pending = 1;
			e->exception_has_payload =
				v->exc.vector == UM_VEC_DB || v->exc.vector == UM_VEC_PF;
			e->exception_payload = v->exc.payload;
		} else {
			/* It can't be told apart from one whose payload is in CR2 or DR6: put it there. */
			e->exception.injected = 1;
			if (v->exc.vector == UM_VEC_PF)
				v->x.cpu.cr2 = v->exc.payload;
			else if (v->exc.vector == UM_VEC_DB)
				v->x.cpu.dr6 |=
					v->exc.payload & (DR6_B(0) | DR6_B(1) | DR6_B(2) |
							  DR6_B(3) | DR6_BD | DR6_BS | DR6_BT);
		}
	}
	e->interrupt.injected = v->irq_pending && !v->irq_soft;
	e->interrupt.nr = v->irq;
	e->interrupt.soft = v->irq_pending && v->irq_soft;
	e->interrupt.shadow = get_shadow(&v->x.cpu);
	e->nmi.pending = v->nmi_pending != 0;
	e->nmi.masked = v->x.cpu.nmi_masked;
	e->smi.smm = v->x.cpu.smm;
	e->smi.pending = v->smi_pending;
	e->smi.smm_inside_nmi = v->smm_inside_nmi;
	e->smi.latched_init = v->lapic && (atomic_load(&v->requests) & UM_REQ_INIT);
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		   KVM_VCPUEVENT_VALID_SMM;
	if (v->vm->exception_payload)
		e->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (v->vm->triple_fault_event) {
		e->triple_fault.pending = v->triple_fault;
		e->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	}
}

static bool valid_events(const struct um_vcpu *v, const struct kvm_vcpu_events *e)
{
	if (e->flags & ~(u32)(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			      KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |
			      KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT))
		return false;
	if (e->flags & KVM_VCPUEVENT_VALID_PAYLOAD) {
		if (!v->vm->exception_payload || (e->exception.pending && e->exception.injected))
			return false;
	}
	if ((e->exception.injected || e->exception.pending) &&
	    (e->exception.nr > 31 || e->exception.nr == UM_VEC_NMI))
		return false;
	if ((e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) && !v->vm->triple_fault_event)
		return false;
	/* INIT would wait until RSM. */
	if ((e->flags & KVM_VCPUEVENT_VALID_SMM) && (e->smi.smm || e->smi.pending) &&
	    v->mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return false;
	return true;
}

static void set_smi(struct um_vcpu *v, const struct kvm_vcpu_events *e)
{
	struct um_cpu *c = &v->x.cpu;
	bool smm = e->smi.smm;

	atomic_fetch_and(&v->requests, ~(unsigned)UM_REQ_SMI);
	v->smi_pending = e->smi.pending;
	v->smm_inside_nmi = smm && e->smi.smm_inside_nmi;
	if (smm != c->smm) {
		c->smm = smm;
		um_vcpu_state_changed(v);
	}
	if (!v->lapic)
		return;
	if (e->smi.latched_init)
		um_vcpu_request(v, UM_REQ_INIT);
	else
		atomic_fetch_and(&v->requests, ~(unsigned)UM_REQ_INIT);
}

int um_vcpu_set_events(struct um_vcpu *v, const struct kvm_vcpu_events *e)
{
	struct um_cpu *c = &v->x.cpu;
	bool pending = (e->flags & KVM_VCPUEVENT_VALID_PAYLOAD) && e->exception.pending;

	if (!valid_events(v, e))
		return -EINVAL;
	v->exc_pending = e->exception.injected || pending;
	v->exc = (struct um_event){
		.vector = e->exception.nr,
		.kind = e->exception.nr == UM_VEC_DB ? UM_EVENT_TRAP : UM_EVENT_FAULT,
		.has_error = e->exception.has_error_code,
		.error_code = e->exception.error_code,
	};
	if (pending && e->exception_has_payload)
		v->exc.payload = e->exception_payload;
	else if (e->exception.nr == UM_VEC_PF)
		v->exc.payload = c->cr2; /* delivering loads CR2: with what is there */
	v->irq_pending = e->interrupt.injected;
	v->irq = e->interrupt.nr;
	v->irq_soft = e->interrupt.soft;
	if (e->flags & KVM_VCPUEVENT_VALID_SHADOW)
		c->int_shadow =
			(e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? UM_SHADOW_MOVSS : 0) |
			(e->interrupt.shadow & KVM_X86_SHADOW_INT_STI ? UM_SHADOW_STI : 0);
	if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
		atomic_store(&v->nmi_queued, 0);
		v->nmi_pending = e->nmi.pending ? 1 : 0;
	}
	if (e->nmi.injected)
		v->nmi_pending = (u8)um_min(v->nmi_pending + 1, 2);
	c->nmi_masked = e->nmi.masked && !e->nmi.injected;
	if ((e->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR) && v->lapic)
		atomic_store(&v->sipi_vector, e->sipi_vector & 0xff);
	if (e->flags & KVM_VCPUEVENT_VALID_SMM)
		set_smi(v, e);
	if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		v->triple_fault = e->triple_fault.pending;
	return 0;
}

/* ---- debug registers ---- */

void um_vcpu_get_debugregs(struct um_vcpu *v, struct kvm_debugregs *d)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->db, v->x.cpu.dr, sizeof(d->db));
	d->dr6 = v->x.cpu.dr6;
	d->dr7 = v->x.cpu.dr7;
}

void um_vcpu_set_dr67(struct um_vcpu *v, u64 dr6, u64 dr7)
{
	v->x.cpu.dr6 = (dr6 & (GENMASK(3, 0) | DR6_BD | DR6_BS | DR6_BT)) | DR6_FIXED1 | DR6_RTM;
	v->x.cpu.dr7 = ((u32)dr7 & ~(BIT(11) | BIT(12) | BIT(14) | BIT(15))) | DR7_FIXED1;
	um_mmu_rights_changed(v->mmu);
}

int um_vcpu_set_debugregs(struct um_vcpu *v, const struct kvm_debugregs *d)
{
	if (d->flags || d->dr6 >> 32 || d->dr7 >> 32)
		return -EINVAL;
	memcpy(v->x.cpu.dr, d->db, sizeof(d->db));
	um_vcpu_set_dr67(v, d->dr6, d->dr7);
	return 0;
}

int um_vcpu_set_guest_debug(struct um_vcpu *v, const struct kvm_guest_debug *d)
{
	struct um_exec *x = &v->x;
	bool on = d->control & KVM_GUESTDBG_ENABLE;

	if (d->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		if (v->exc_pending)
			return -EBUSY;
		um_vcpu_queue_exception(
			v, d->control & KVM_GUESTDBG_INJECT_DB ? UM_VEC_DB : UM_VEC_BP, false, 0);
	}
	memset(&v->debug, 0, sizeof(v->debug));
	if (on)
		v->debug = *d;
	x->guest_step = on && (d->control & KVM_GUESTDBG_SINGLESTEP);
	x->use_guest_dr = on && (d->control & KVM_GUESTDBG_USE_HW_BP);
	x->guest_dr7 = x->use_guest_dr ? d->arch.debugreg[7] : 0;
	memcpy(x->guest_dr, d->arch.debugreg, sizeof(x->guest_dr));
	um_mmu_rights_changed(v->mmu);
	return 0;
}

/* ---- multiprocessor state ---- */

void um_vcpu_get_mp_state(struct um_vcpu *v, struct kvm_mp_state *s)
{
	um_vcpu_accept_events(v);
	s->mp_state = v->mp_state == KVM_MP_STATE_HALTED && v->pv_unhalted ? KVM_MP_STATE_RUNNABLE
									   : v->mp_state;
}

int um_vcpu_set_mp_state(struct um_vcpu *v, const struct kvm_mp_state *s)
{
	if (!v->lapic && s->mp_state != KVM_MP_STATE_RUNNABLE)
		return -EINVAL;
	/* In SMM, and on the way there, INIT waits: this can't be the state. */
	if ((v->x.cpu.smm || v->smi_pending) && (s->mp_state == KVM_MP_STATE_INIT_RECEIVED ||
						 s->mp_state == KVM_MP_STATE_SIPI_RECEIVED))
		return -EINVAL;
	switch (s->mp_state) {
	case KVM_MP_STATE_RUNNABLE:
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_HALTED:
		v->mp_state = s->mp_state;
		return 0;
	case KVM_MP_STATE_SIPI_RECEIVED:
		v->mp_state = KVM_MP_STATE_INIT_RECEIVED;
		um_vcpu_request(v, UM_REQ_SIPI);
		return 0;
	}
	return -EINVAL;
}

/* ---- machine checks (SDM vol. 3 15.3.2.2: what may overwrite what) ---- */

/*
 * What the processor tells by a corrected machine-check interrupt, if at all: corrected errors, and uncorrected
 * ones of which the OS need not do anything (UCNA, SDM vol. 3 15.6.3).
 */
static bool needs_no_action(const struct kvm_x86_mce *mce)
{
	return !mce->mcg_status && !(mce->status & (MCI_STATUS_PCC | MCI_STATUS_S | MCI_STATUS_AR));
}

int um_vcpu_set_mce(struct um_vcpu *v, const struct kvm_x86_mce *mce)
{
	struct um_msrs *m = &v->x.cpu.msr;
	u64 *bank, status = mce->status;

	if (mce->bank >= (m->mcg_cap & 0xff) || !(status & MCI_STATUS_VAL))
		return -EINVAL;
	bank = m->mc[mce->bank];
	if (needs_no_action(mce)) {
		bank[1] = status;
		bank[2] = mce->addr;
		bank[3] = mce->misc;
		m->mcg_status = 0;
		if (v->lapic && (m->mcg_cap & UM_MCG_CMCI_P) &&
		    (m->mc_ctl2[mce->bank] & UM_MC_CTL2_CMCI_EN))
			um_lapic_local_deliver(v->lapic, UM_LVT_CMCI);
		return 0;
	}
	if (status & MCI_STATUS_UC) {
		/* Disabled by the guest: lost. */
		if (((m->mcg_cap & BIT(8)) && m->mcg_ctl != ~0ull) || bank[0] != ~0ull)
			return 0;
		if ((m->mcg_status & MCG_STATUS_MCIP) || !(v->x.cpu.cr4 & CR4_MCE)) {
			v->triple_fault = true;
			um_vcpu_kick(v);
			return 0;
		}
		if (bank[1] & MCI_STATUS_VAL)
			status |= MCI_STATUS_OVER;
		m->mcg_status = mce->mcg_status;
		um_vcpu_queue_exception(v, UM_VEC_MC, false, 0);
	} else if ((bank[1] & MCI_STATUS_VAL) && (bank[1] & MCI_STATUS_UC)) {
		bank[1] |= MCI_STATUS_OVER;
		return 0;
	} else if (bank[1] & MCI_STATUS_VAL) {
		status |= MCI_STATUS_OVER;
	}
	bank[1] = status;
	bank[2] = mce->addr;
	bank[3] = mce->misc;
	return 0;
}

/* ---- KVM_CAP_SYNC_REGS ---- */

void um_vcpu_sync_out(struct um_vcpu *v)
{
	struct kvm_run *run = v->run;

	if (run->kvm_valid_regs & KVM_SYNC_X86_REGS)
		um_vcpu_get_regs(v, &run->s.regs.regs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
		um_vcpu_get_sregs(v, &run->s.regs.sregs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS)
		um_vcpu_get_events(v, &run->s.regs.events);
}

int um_vcpu_sync_in(struct um_vcpu *v)
{
	struct kvm_run *run = v->run;

	if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS) {
		struct kvm_regs regs = run->s.regs.regs;

		um_vcpu_set_regs(v, &regs);
		run->kvm_dirty_regs &= ~(u64)KVM_SYNC_X86_REGS;
	}
	if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) {
		struct kvm_sregs sregs = run->s.regs.sregs;

		if (um_vcpu_set_sregs(v, &sregs))
			return -EINVAL;
		run->kvm_dirty_regs &= ~(u64)KVM_SYNC_X86_SREGS;
	}
	if (run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) {
		struct kvm_vcpu_events events = run->s.regs.events;

		if (um_vcpu_set_events(v, &events))
			return -EINVAL;
		run->kvm_dirty_regs &= ~(u64)KVM_SYNC_X86_EVENTS;
	}
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * System-management mode: SMI, RSM, and the map of the processor's state that lies in SMRAM between them (SDM
 * vol. 3 chapter 31 in newer editions, APM vol. 2 chapter 10).
 *
 * An SMI is taken between instructions, before NMIs and interrupts, and waits while the processor is in SMM
 * already; one can wait.  The state goes to the last 512 bytes of the 64 KiB at SMBASE, and execution starts at
 * SMBASE + 8000h, in something like real mode with 4 GiB segments.  While in SMM, memory is that of the second
 * address space (mem/mem.h); NMIs are masked, INIT waits.  RSM takes the state from SMRAM, which the handler
 * may have changed: what no processor could be in leads to shutdown.
 *
 * There are two maps, and KVM's rule of which it is: processors with long mode (CPUID) have AMD's 64-bit map (APM
 * table 10-1), others the 32-bit one (SDM table 31-1, with the hidden registers where the P6 family has them).  I/O
 * restart is not offered, as bit 16 of the revision says; auto-HALT restart is.
 */
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/segment.h"
#include "vcpu/vcpu.h"

#define SMM_ENTRY     0x8000 /* from SMBASE: the handler */
#define SMM_MAP	      0xfe00 /* from SMBASE: the map of the state */
#define SMM_MAP_SIZE  512
#define SMM_RELOCATES BIT(17) /* revision: SMBASE can be changed */
#define SMM_REV_64    0x64
#define HALT_RESTART  BIT(0)

/* Of a segment's rights (cpu/segment.h), those that the maps have. */
#define RIGHTS	 0xffffu
#define PRESENT	 BIT(7)
#define UNUSABLE BIT(16)

/* ---- the maps ---- */

struct smm_segment64 {
	u16 selector;
	u16 rights;
	u32 limit;
	u64 base;
};

struct smm_map64 {
	struct smm_segment64 seg[UM_NR_SEGS]; /* ES CS SS DS FS GS */
	struct smm_segment64 gdt, ldt, idt, tr;
	u64 io_restart_regs[4];
	u32 io_trap, local_smi;
	u8 io_restart;
	u8 halt_restart;
	u8 nmi_mask;
	u8 int_shadow; /* reserved in the manual; where KVM keeps it */
	u8 reserved1[4];
	u64 efer;
	u64 svm[3];
	u8 reserved2[12];
	u32 revision;
	u32 smbase;
	u8 reserved3[68];
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
	u64 gpr[16]; /* R15 first */
};

struct smm_segment32 {
	u32 rights; /* as in a descriptor's second half: from bit 8 on */
	u32 limit;
	u32 base;
};

struct smm_map32 {
	u8 reserved1[248];
	u32 smbase;
	u32 revision;
	u16 io_restart;
	u16 halt_restart;
	u32 io_restart_regs[4];
	u32 cr4;
	u8 reserved2[2];
	u8 int_shadow; /* as above */
	u8 reserved3[17];
	struct smm_segment32 ds_fs_gs[3];
	u32 reserved4;
	u32 idt_limit, idt_base;
	struct smm_segment32 tr;
	u32 reserved5[2];
	u32 gdt_limit, gdt_base;
	struct smm_segment32 ldt;
	struct smm_segment32 es_cs_ss[3];
	u32 selector[UM_NR_SEGS];
	u32 ldt_selector, tr_selector;
	u32 dr7, dr6;
	u32 gpr[8];
	u32 eip, eflags, cr3, cr0;
};

union smm_map {
	struct smm_map64 m64;
	struct smm_map32 m32;
};

_Static_assert(sizeof(struct smm_map64) == SMM_MAP_SIZE, "to the end of the 64 KiB");
_Static_assert(sizeof(struct smm_map32) == SMM_MAP_SIZE, "to the end of the 64 KiB");
#define AT(map, field, offset) \
	_Static_assert(SMM_MAP + offsetof(struct map, field) == (offset), "as in the manual")
AT(smm_map64, gdt, 0xfe60);
AT(smm_map64, tr, 0xfe90);
AT(smm_map64, io_restart, 0xfec8);
AT(smm_map64, efer, 0xfed0);
AT(smm_map64, revision, 0xfefc);
AT(smm_map64, smbase, 0xff00);
AT(smm_map64, cr4, 0xff48);
AT(smm_map64, gpr, 0xff80);
AT(smm_map32, smbase, 0xfef8);
AT(smm_map32, halt_restart, 0xff02);
AT(smm_map32, cr4, 0xff14);
AT(smm_map32, ds_fs_gs, 0xff2c);
AT(smm_map32, idt_limit, 0xff54);
AT(smm_map32, tr, 0xff5c);
AT(smm_map32, gdt_limit, 0xff70);
AT(smm_map32, ldt, 0xff78);
AT(smm_map32, selector, 0xffa8);
AT(smm_map32, tr_selector, 0xffc4);
AT(smm_map32, dr7, 0xffc8);
AT(smm_map32, eip, 0xfff0);
#undef AT
_Static_assert(UM_ES == 0 && UM_CS == 1 && UM_SS == 2 && UM_DS == 3 && UM_FS == 4 && UM_GS == 5,
	       "the order of segments in the maps");

/* ---- between the maps and the processor ---- */

/* What RSM takes, from either map: so there is one place that checks and loads it. */
struct smm_state {
	u64 gpr[16];
	u64 rip, rflags, cr0, cr3, cr4, efer, dr6, dr7;
	struct um_segment seg[UM_NR_SEGS], ldt, tr;
	struct um_dtable gdt, idt;
	u32 smbase;
	u8 int_shadow;
	bool halted;
};

static struct smm_segment64 save_segment64(const struct um_segment *s)
{
	return (struct smm_segment64){
		.selector = s->selector,
		.rights = (u16)um_segment_rights(s),
		.limit = s->limit,
		.base = s->base,
	};
}

static struct um_segment load_segment(u16 selector, u32 rights, u32 limit, u64 base)
{
	struct um_segment s = { .selector = selector, .limit = limit, .base = base };

	um_segment_set_rights(&s, (rights & RIGHTS) | (rights & PRESENT ? 0 : UNUSABLE));
	return s;
}

static struct um_segment load_segment64(const struct smm_segment64 *m)
{
	return load_segment(m->selector, m->rights, m->limit, m->base);
}

static void save64(const struct um_cpu *c, struct smm_map64 *m, bool halted)
{
	for (unsigned i = 0; i < UM_NR_SEGS; i++)
		m->seg[i] = save_segment64(&c->seg[i]);
	m->ldt = save_segment64(&c->ldt);
	m->tr = save_segment64(&c->tr);
	m->gdt = (struct smm_segment64){ .limit = c->gdt.limit, .base = c->gdt.base };
	m->idt = (struct smm_segment64){ .limit = c->idt.limit, .base = c->idt.base };
	m->halt_restart = halted ? HALT_RESTART : 0;
	m->int_shadow = c->int_shadow;
	m->revision = SMM_RELOCATES | SMM_REV_64;
	m->smbase = (u32)c->msr.smbase;
	m->efer = c->efer;
	m->cr0 = c->cr0;
	m->cr3 = c->cr3;
	m->cr4 = c->cr4;
	m->dr6 = c->dr6;
	m->dr7 = c->dr7;
	m->rflags = c->rflags;
	m->rip = c->rip;
	for (unsigned i = 0; i < 16; i++)
		m->gpr[15 - i] = c->gpr[i];
}

static void load64(const struct smm_map64 *m, struct smm_state *s)
{
	for (unsigned i = 0; i < UM_NR_SEGS; i++)
		s->seg[i] = load_segment64(&m->seg[i]);
	s->ldt = load_segment64(&m->ldt);
	s->tr = load_segment64(&m->tr);
	s->gdt = (struct um_dtable){ .limit = (u16)m->gdt.limit, .base = m->gdt.base };
	s->idt = (struct um_dtable){ .limit = (u16)m->idt.limit, .base = m->idt.base };
	s->halted = m->halt_restart & HALT_RESTART;
	s->int_shadow = m->int_shadow;
	s->smbase = m->smbase;
	s->efer = m->efer;
	s->cr0 = m->cr0;
	s->cr3 = m->cr3;
	s->cr4 = m->cr4;
	s->dr6 = m->dr6;
	s->dr7 = m->dr7;
	s->rflags = m->rflags;
	s->rip = m->rip;
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = m->gpr[15 - i];
}

static struct smm_segment32 *segment32(struct smm_map32 *m, unsigned i)
{
	return i < UM_DS ? &m->es_cs_ss[i] : &m->ds_fs_gs[i - UM_DS];
}

static struct smm_segment32 save_segment32(const struct um_segment *s)
{
	return (struct smm_segment32){
		.rights = (um_segment_rights(s) & RIGHTS) << 8,
		.limit = s->limit,
		.base = (u32)s->base,
	};
}

static void save32(const struct um_cpu *c, struct smm_map32 *m, bool halted)
{
	for (unsigned i = 0; i < UM_NR_SEGS; i++) {
		*segment32(m, i) = save_segment32(&c->seg[i]);
		m->selector[i] = c->seg[i].selector;
	}
	m->ldt = save_segment32(&c->ldt);
	m->ldt_selector = c->ldt.selector;
	m->tr = save_segment32(&c->tr);
	m->tr_selector = c->tr.selector;
	m->gdt_limit = c->gdt.limit;
	m->gdt_base = (u32)c->gdt.base;
	m->idt_limit = c->idt.limit;
	m->idt_base = (u32)c->idt.base;
	m->halt_restart = halted ? HALT_RESTART : 0;
	m->int_shadow = c->int_shadow;
	m->revision = SMM_RELOCATES;
	m->smbase = (u32)c->msr.smbase;
	m->cr0 = (u32)c->cr0;
	m->cr3 = (u32)c->cr3;
	m->cr4 = (u32)c->cr4;
	m->dr6 = (u32)c->dr6;
	m->dr7 = (u32)c->dr7;
	m->eflags = (u32)c->rflags;
	m->eip = (u32)c->rip;
	for (unsigned i = 0; i < 8; i++)
		m->gpr[i] = (u32)c->gpr[i];
}

static void load32(struct smm_map32 *m, struct smm_state *s)
{
	for (unsigned i = 0; i < UM_NR_SEGS; i++) {
		const struct smm_segment32 *g = segment32(m, i);

		s->seg[i] = load_segment((u16)m->selector[i], g->rights >> 8, g->limit, g->base);
	}
	s->ldt = load_segment((u16)m->ldt_selector, m->ldt.rights >> 8, m->ldt.limit, m->ldt.base);
	s->tr = load_segment((u16)m->tr_selector, m->tr.rights >> 8, m->tr.limit, m->tr.base);
	s->gdt = (struct um_dtable){ .limit = (u16)m->gdt_limit, .base = m->gdt_base };
	s->idt = (struct um_dtable){ .limit = (u16)m->idt_limit, .base = m->idt_base };
	s->halted = m->halt_restart & HALT_RESTART;
	s->int_shadow = m->int_shadow;
	s->smbase = m->smbase;
	s->cr0 = m->cr0;
	s->cr3 = m->cr3;
	s->cr4 = m->cr4;
	s->dr6 = m->dr6;
	s->dr7 = m->dr7;
	s->rflags = m->eflags;
	s->rip = m->eip;
	for (unsigned i = 0; i < 8; i++)
		s->gpr[i] = m->gpr[i];
}

static bool has_map64(const struct um_cpu *c)
{
	return um_cpu_has(c, UM_F_LM);
}

static gpa_t map_gpa(const struct um_cpu *c)
{
	return c->msr.smbase + SMM_MAP;
}

/* ---- entry ---- */

bool um_vcpu_smi_allowed(const struct um_vcpu *v)
{
	return !v->x.cpu.smm && !(v->debug.control & KVM_GUESTDBG_BLOCKIRQ);
}

/* 4 GiB of data, readable and writable; what a load of a selector leaves in there later is as in real mode. */
static struct um_segment smm_segment(u16 selector, u64 base)
{
	struct um_segment s = um_segment_flat_data(selector, 0);

	s.base = base;
	s.db = false;
	return s;
}

/* SDM vol. 3 table 31-4. */
static void enter_handler(struct um_cpu *c)
{
	c->rflags = RFLAGS_FIXED1;
	c->rip = SMM_ENTRY;
	c->cr0 &= ~(u64)(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
	c->cr4 = 0;
	if (has_map64(c))
		c->efer = 0;
	c->dr7 = DR7_FIXED1;
	c->idt = (struct um_dtable){ 0 };
	for (unsigned i = 0; i < UM_NR_SEGS; i++)
		c->seg[i] = smm_segment(0, 0);
	c->seg[UM_CS] = smm_segment((u16)(c->msr.smbase >> 4), c->msr.smbase);
	c->cpl = 0;
	c->int_shadow = 0;
}

void um_vcpu_enter_smm(struct um_vcpu *v)
{
	struct um_cpu *c = &v->x.cpu;
	union smm_map map;

	um_trace(&v->vm->cfg.trace, exceptions, "vcpu %u: SMI at %#llx, SMBASE %#llx", v->id,
		 (unsigned long long)c->rip, (unsigned long long)c->msr.smbase);
	v->smi_pending = false;
	c->msr.smi_count++;
	memset(&map, 0, sizeof(map));
	if (has_map64(c))
		save64(c, &map.m64, v->smi_halted);
	else
		save32(c, &map.m32, v->smi_halted);
	v->smi_halted = false;
	v->smm_inside_nmi = c->nmi_masked;
	c->nmi_masked = true;
	c->smm = true;
	enter_handler(c);
	um_vcpu_state_changed(v);
	um_mmu_storing(v->mmu, map_gpa(c));
	/* Without memory there the state is lost, and the handler's first instruction is not to be had either. */
	if (!um_mem_write(v->vm->mem, UM_AS_SMM, map_gpa(c), &map, sizeof(map)))
		um_mmu_written(v->mmu, map_gpa(c), sizeof(map));
	v->x.code_doubt = true; /* it may lie in code */
}

/* ---- RSM ---- */

/* Is it a state that a processor can be in (SDM vol. 3 31.5, APM vol. 2 10.4)?  Derives EFER.LMA. */
static bool check(const struct um_cpu *c, struct smm_state *s)
{
	bool paging = s->cr0 & CR0_PG;

	s->efer &= ~EFER_LMA;
	if (paging && (s->efer & EFER_LME))
		s->efer |= EFER_LMA;
	if (s->cr0 >> 32 || (paging && !(s->cr0 & CR0_PE)) ||
	    ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)))
		return false;
	if ((s->cr4 & ~c->cr4_allowed) || (s->efer & ~um_supported_efer()))
		return false;
	if (s->efer & EFER_LMA)
		return (s->cr4 & CR4_PAE) && !(s->cr3 & ~GENMASK(c->maxphyaddr - 1, 0)) &&
		       !(s->rflags & RFLAGS_VM);
	return !(s->cr4 & CR4_PCIDE);
}

static void load(struct um_vcpu *v, const struct smm_state *s)
{
	struct um_cpu *c = &v->x.cpu;

	memcpy(c->gpr, s->gpr, sizeof(s->gpr));
	c->rip = s->rip;
	c->rflags = (s->rflags & RFLAGS_ALL) | RFLAGS_FIXED1;
	c->cr0 = (s->cr0 & CR0_DEFINED) | CR0_ET;
	c->cr3 = s->cr3;
	c->cr4 = s->cr4;
	c->efer = s->efer;
	um_vcpu_set_dr67(v, s->dr6, s->dr7);
	memcpy(c->seg, s->seg, sizeof(s->seg));
	c->ldt = s->ldt;
	c->tr = s->tr;
	c->gdt = s->gdt;
	c->idt = s->idt;
	c->int_shadow = s->int_shadow & (UM_SHADOW_STI | UM_SHADOW_MOVSS);
	c->msr.smbase = s->smbase;
	if (!(c->cr0 & CR0_PE))
		c->rflags &= ~(u64)RFLAGS_VM;
	um_cpu_derive_cpl(c);
}

/* Leave SMM; what it did to memory and to registers that RSM doesn't load stays. */
static int leave(struct um_vcpu *v, const struct smm_state *s)
{
	struct um_cpu *c = &v->x.cpu;
	bool step = v->x.guest_step;

	c->smm = false;
	c->nmi_masked = v->smm_inside_nmi;
	v->smm_inside_nmi = false;
	load(v, s);
	um_vcpu_state_changed(v);
	v->x.code_doubt = true; /* serializing: SDM vol. 3 8.3 */
	um_trace(&v->vm->cfg.trace, exceptions, "vcpu %u: RSM to %#llx, SMBASE %#llx", v->id,
		 (unsigned long long)c->rip, (unsigned long long)c->msr.smbase);
	if (s->halted)
		return um_vcpu_halt(v);
	if (step) {
		struct um_event ev = { .vector = UM_VEC_DB,
				       .kind = UM_EVENT_TRAP,
				       .payload = DR6_BS };

		return um_vcpu_exception(v, &ev);
	}
	return 1;
}

static bool pae_paging(const struct smm_state *s)
{
	return (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
}

/* The PDPTEs are in the memory of the space that RSM goes back to. */
static int load_pdptrs(struct um_vcpu *v, u64 cr3)
{
	struct um_cpu *c = &v->x.cpu;
	int r;

	c->smm = false;
	r = um_mmu_load_pdptrs(v->mmu, cr3, c->pdptr);
	c->smm = true;
	return r;
}

int um_vcpu_rsm(struct um_vcpu *v)
{
	struct um_cpu *c = &v->x.cpu;
	struct smm_state s = { 0 };
	union smm_map map;

	if (um_mem_read(v->vm->mem, UM_AS_SMM, map_gpa(c), &map, sizeof(map))) {
		v->x.exit.why = "RSM without memory at SMBASE";
		return um_vcpu_handle_exit(v, UM_EXIT_INTERNAL);
	}
	if (has_map64(c)) {
		load64(&map.m64, &s);
	} else {
		load32(&map.m32, &s);
		s.efer = c->efer;
	}
	if (!check(c, &s) || (pae_paging(&s) && load_pdptrs(v, s.cr3) > 0))
		return um_vcpu_shutdown(v);
	return leave(v, &s);
}

// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "machine.h"

struct um_mmu {
	struct machine m;
};

static struct machine *machine_of(struct um_mmu *mmu)
{
	return &mmu->m;
}

/* ---- the MMU's interface ---- */

enum um_access_result um_mmu_access(struct um_mmu *mmu, struct um_fault *f)
{
	struct machine *m = machine_of(mmu);
	u32 at = f->gva & (MEM_SIZE - 1);
	bool user = f->priv == UM_PRIV_USER;
	bool have = (f->gva < MEM_SIZE || f->gva >> 47 == 0x1ffff) && !m->absent[at >> 12];

	f->gpa = at;
	f->hva = m->mem + at;
	if (!have || (f->acc == UM_WRITE && m->readonly[at >> 12])) {
		f->error_code = (have ? PFERR_PRESENT : 0) |
				(f->acc == UM_WRITE ? PFERR_WRITE : 0) | (user ? PFERR_USER : 0);
		return UM_ACCESS_FAULT;
	}
	return m->mmio && (at & ~0xfffu) == m->mmio ? UM_ACCESS_MMIO : UM_ACCESS_OK;
}

void um_mmu_written(struct um_mmu *mmu, gpa_t gpa, unsigned len) {}

int um_mmu_enter(struct um_mmu *mmu)
{
	return 0;
}

void um_mmu_leave(struct um_mmu *mmu) {}

void um_mmu_reset_context(struct um_mmu *mmu)
{
	machine_of(mmu)->resets++;
}

void um_mmu_new_cr3(struct um_mmu *mmu, bool flush)
{
	machine_of(mmu)->new_cr3++;
	machine_of(mmu)->cr3_flush = flush;
}

void um_mmu_invlpg(struct um_mmu *mmu, gva_t gva)
{
	machine_of(mmu)->invlpg++;
	machine_of(mmu)->invlpg_gva = gva;
}

void um_mmu_invpcid(struct um_mmu *mmu, unsigned type, u64 pcid, gva_t gva)
{
	machine_of(mmu)->invpcid++;
}

void um_mmu_rights_changed(struct um_mmu *mmu)
{
	machine_of(mmu)->rights++;
}

int um_mmu_load_pdptrs(struct um_mmu *mmu, u64 cr3, u64 pdptr[4])
{
	for (unsigned n = 0; n < 4; n++)
		pdptr[n] = cr3 + n;
	return machine_of(mmu)->pdptr_result;
}

/*
 * The machine has no native instructions; the library's function is used if it is linked for other
 * reasons.
 */
__attribute__((weak)) bool um_native_bind(struct um_exec *x, struct um_insn *i, const u8 *bytes)
{
	return false;
}

/* ---- memory, descriptors ---- */

u64 m_get(struct machine *m, u32 at, unsigned size)
{
	u64 v = 0;

	memcpy(&v, m->mem + at, size);
	return v;
}

void m_put(struct machine *m, u32 at, u64 v, unsigned size)
{
	memcpy(m->mem + at, &v, size);
}

u64 m_desc_make(u32 base, u32 limit, unsigned type, unsigned dpl, const char *flags)
{
	bool g = limit > 0xfffff;
	u64 l = g ? limit >> 12 : limit;
	u64 access = type | dpl << 5 | (strchr(flags, 'p') ? 0x80 : 0);
	u64 high = (strchr(flags, 'd') ? 4 : 0) | (strchr(flags, 'l') ? 2 : 0) | (g ? 8 : 0);

	return (l & 0xffff) | (u64)(base & 0xffffff) << 16 | access << 40 | (l & 0xf0000) << 32 |
	       high << 52 | (u64)(base >> 24) << 56;
}

u64 m_gate_make(u16 sel, u32 off, unsigned type, unsigned dpl, unsigned low)
{
	u64 access = type | dpl << 5 | 0x80;

	return (off & 0xffff) | (u64)sel << 16 | (u64)low << 32 | access << 40 |
	       (u64)(off >> 16) << 48;
}

void m_desc(struct machine *m, u16 sel, u64 lo, u64 hi)
{
	u32 at = (sel & 4 ? LDT_AT : GDT_AT) + (sel & ~7u);

	m_put(m, at, lo, 8);
	if (m->x.cpu.efer & EFER_LMA)
		m_put(m, at + 8, hi, 8);
}

u64 m_desc_get(struct machine *m, u16 sel)
{
	return m_get(m, (sel & 4 ? LDT_AT : GDT_AT) + (sel & ~7u), 8);
}

void m_idt(struct machine *m, unsigned vector, u64 gate, u64 hi)
{
	if (m->x.cpu.efer & EFER_LMA) {
		m_put(m, IDT_AT + vector * 16, gate, 8);
		m_put(m, IDT_AT + vector * 16 + 8, hi, 8);
	} else {
		m_put(m, IDT_AT + vector * 8, gate, 8);
	}
}

static void fill_gdt(struct machine *m)
{
	const u32 all = 0xffffffff;

	m_desc(m, CS32, m_desc_make(0, all, T_CODE, 0, "pd"), 0);
	m_desc(m, DS32, m_desc_make(0, all, T_DATA, 0, "pd"), 0);
	m_desc(m, UCS32, m_desc_make(0, all, T_CODE, 3, "pd"), 0);
	m_desc(m, UDS32, m_desc_make(0, all, T_DATA, 3, "pd"), 0);
	m_desc(m, CS64, m_desc_make(0, all, T_CODE, 0, "pl"), 0);
	m_desc(m, UCS64, m_desc_make(0, all, T_CODE, 3, "pl"), 0);
	m_desc(m, CCS32, m_desc_make(0, all, T_CODE_C, 0, "pd"), 0);
	m_desc(m, TSS, m_desc_make(TSS_AT, 0x1fff, UM_SYS_TSS_BUSY, 0, "p"), 0);
	m_desc(m, LDT, m_desc_make(LDT_AT, 0x3f, UM_SYS_LDT, 0, "p"), 0);
	m_desc(m, GATE, 0, 0);
	m_desc(m, TSSB, m_desc_make(TSSB_AT, 0x67, UM_SYS_TSS_AVAIL, 0, "p"), 0);
	m_desc(m, CS16, m_desc_make(0, 0xffff, T_CODE, 0, "p"), 0);
	m_desc(m, DS16, m_desc_make(0, 0xffff, T_DATA, 0, "p"), 0);
	m_desc(m, CS1, m_desc_make(0, all, T_CODE, 1, "pd"), 0);
	m_desc(m, DS1, m_desc_make(0, all, T_DATA, 1, "pd"), 0);
	m_desc(m, RODATA, m_desc_make(0, all, T_RODATA, 0, "pd"), 0);
	m_desc(m, XONLY, m_desc_make(0, all, T_XONLY, 0, "pd"), 0);
	m_desc(m, ABSENT, m_desc_make(0, all, T_DATA, 0, "d"), 0);
	m_desc(m, ABSENTC, m_desc_make(0, all, T_CODE, 0, "d"), 0);
	m_desc(m, DOWN, m_desc_make(0, 0xfff, T_DOWN, 0, "pd"), 0);
}

/* ---- modes ---- */

static void load(struct machine *m, enum um_seg seg, u16 sel)
{
	m->x.cpu.seg[seg] = um_segment_unpack(sel, m_desc_get(m, sel) | BIT(40), 0);
}

static void common(struct machine *m)
{
	struct um_cpu *c = &m->x.cpu;

	memset(m->mem, 0xcc, MEM_SIZE);
	memset(m->mem + GDT_AT, 0, TSSB_AT + 0x1000 - GDT_AT);
	memset(m->mem + TSS_AT + 0x68, 0xff, TSSB_AT - TSS_AT - 0x68);
	c->gdt = (struct um_dtable){ .base = GDT_AT, .limit = GDT_END - 1 };
	c->idt = (struct um_dtable){ .base = IDT_AT, .limit = 0x7ff };
	c->dr6 = DR6_FIXED1;
	c->dr7 = DR7_FIXED1;
	c->rip = CODE_AT;
	c->rflags = RFLAGS_FIXED1 | RFLAGS_IF;
	c->gpr[UM_RSP] = KSTACK;
	for (unsigned n = 0; n < UM_NR_GPRS; n++)
		if (n != UM_RSP)
			c->gpr[n] = 0x1111111111111111ull * n;
	c->maxphyaddr = 46;
}

static void protected(struct machine *m, unsigned cpl, u16 cs)
{
	struct um_cpu *c = &m->x.cpu;
	u16 ds = cpl == 3 ? UDS32 : DS32;

	c->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
	c->cpl = cpl;
	fill_gdt(m);
	load(m, UM_CS, cs);
	for (unsigned s = 0; s < UM_NR_SEGS; s++)
		if (s != UM_CS)
			load(m, s, ds);
	c->tr = um_segment_unpack(TSS, m_desc_get(m, TSS), 0);
	c->ldt = um_segment_unpack(LDT, m_desc_get(m, LDT), 0);
	c->gpr[UM_RSP] = cpl == 3 ? STACK3 : KSTACK;
	m_put(m, TSS_AT + 0x66, IOMAP, 2);
}

void m_real(struct machine *m)
{
	struct um_cpu *c = &m->x.cpu;

	c->efer = c->cr4 = 0;
	c->cr0 = CR0_ET;
	c->cpl = 0;
	common(m);
	c->idt = (struct um_dtable){ .base = 0, .limit = 0x3ff };
	for (unsigned n = 0; n < 256; n++)
		m_put(m, n * 4, HANDLER, 4);
	for (unsigned s = 0; s < UM_NR_SEGS; s++) {
		c->seg[s] = um_segment_vm86(0);
		c->seg[s].dpl = 0;
	}
	um_exec_sync(&m->x);
}

void m_prot32(struct machine *m, unsigned cpl)
{
	struct um_cpu *c = &m->x.cpu;

	c->efer = c->cr4 = 0;
	common(m);
	protected(m, cpl, cpl == 3 ? UCS32 : CS32);
	m_put(m, TSS_AT + 4, STACK0, 4);
	m_put(m, TSS_AT + 8, DS32, 2);
	m_put(m, TSS_AT + 12, STACK1, 4);
	m_put(m, TSS_AT + 16, DS1, 2);
	for (unsigned n = 0; n < 256; n++)
		m_idt(m, n, m_gate_make(CS32, HANDLER, UM_SYS_INTGATE, 0, 0), 0);
	um_exec_sync(&m->x);
}

static void long_mode(struct machine *m, unsigned cpl, u16 cs)
{
	struct um_cpu *c = &m->x.cpu;

	c->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	c->cr4 = CR4_PAE;
	common(m);
	protected(m, cpl, cs);
	c->idt.limit = 16 * 64 - 1;
	m_put(m, TSS_AT + 4, 0xffff800000000000ull + STACK0, 8);
	m_put(m, TSS_AT + 12, 0xffff800000000000ull + STACK1, 8);
	m_put(m, TSS_AT + 0x24, 0xffff800000000000ull + ISTACK, 8);
	for (unsigned n = 0; n < 64; n++)
		m_idt(m, n, m_gate_make(CS64, HANDLER, UM_SYS_INTGATE, 0, 0), 0xffff8000);
	um_exec_sync(&m->x);
}

void m_long64(struct machine *m, unsigned cpl)
{
	long_mode(m, cpl, cpl == 3 ? UCS64 : CS64);
}

void m_compat(struct machine *m, unsigned cpl)
{
	long_mode(m, cpl, cpl == 3 ? UCS32 : CS32);
}

void m_vm86(struct machine *m, unsigned iopl)
{
	struct um_cpu *c = &m->x.cpu;

	m_prot32(m, 3);
	c->rflags |= RFLAGS_VM | (u64)iopl << 12;
	for (unsigned s = 0; s < UM_NR_SEGS; s++)
		c->seg[s] = um_segment_vm86(0);
	c->seg[UM_DS] = um_segment_vm86(0x500);
	for (unsigned n = 0; n < 256; n++)
		m_put(m, n * 4, HANDLER, 4);
	um_exec_sync(&m->x);
}

/* ---- execution ---- */

/*
 * Every page that is there gets an entry, which has room for one address and one context: the
 * stacks from the 64-bit TSS are in the upper half, the present one of CPL 3 is user's.
 */
static void fill_tlb(struct machine *m)
{
	bool l = m->x.cpu.efer & EFER_LMA;

	memset(m->tlb.e, 0xff, sizeof(m->tlb.e));
	for (u32 at = 0; m->warm && at < MEM_SIZE; at += UM_PAGE_SIZE) {
		bool upper = l && (at == STACK0 - UM_PAGE_SIZE || at == STACK1 - UM_PAGE_SIZE ||
				   at == ISTACK - UM_PAGE_SIZE);
		gva_t gva = (upper ? 0xffff800000000000ull : 0) + at;
		bool user = m->x.cpu.cpl == 3 && (at == STACK3 - UM_PAGE_SIZE || at == STACK3);
		unsigned ctx = m->tlb.ctx[user ? UM_PRIV_USER : UM_PRIV_KERNEL];
		struct um_tlb_entry *e = &m->tlb.e[um_tlb_index(gva, ctx)];

		if (m->absent[at >> 12] || (m->mmio && m->mmio == at))
			continue;
		e->tag[UM_READ] = e->tag[UM_FETCH] = gva | ctx;
		e->addend = (u64)m->mem + at - gva;
		if (!m->readonly[at >> 12]) {
			e->tag[UM_WRITE] = e->tag[UM_READ];
			um_tlb_note_written(&m->tlb, e);
		}
	}
}

void m_run(struct machine *m, const void *bytes, unsigned len)
{
	struct um_exec *x = &m->x;
	struct um_cpu *c = &x->cpu;
	u64 lin;
	um_insn_fn fn;

	um_exec_sync(x);
	lin = (c->rip + x->seg_base[UM_CS]) & x->lin_mask;
	memcpy(m->mem + (lin & (MEM_SIZE - 1)), bytes, len);
	/*
	 * Decoded as in protected mode: the decoder's own #UD in real mode isn't what is tested
	 * here.
	 */
	assert_int_equal(um_decode(&m->insn, x->mode == UM_MODE_REAL ? UM_MODE_16 : x->mode, bytes,
				   len, lin & 0xfff),
			 len);
	assert_false(m->insn.flags & (UM_INSN_UD | UM_INSN_TOOLONG));
	fn = um_system_bind(x, &m->insn);
	assert_non_null(fn);
	c->gpr[UM_REG_PAGE] = lin & UM_PAGE_MASK;
	x->exit.kind = UM_EXIT_NONE;
	x->mmio.pos = 0;
	fill_tlb(m);
	m->before = *c;
	assert_null(fn(x, &m->insn));
	c->rflags = um_get_rflags(x);
}

bool m_deliver(struct machine *m, const struct um_event *e)
{
	bool done;

	fill_tlb(m);
	m->before = m->x.cpu;
	m->x.exit.kind = UM_EXIT_NONE;
	done = um_engine_deliver(&m->x, e);
	if (done)
		um_exec_sync(&m->x); /* as um_engine_run() does */
	return done;
}

void m_expect_fault(struct machine *m, unsigned vec, u32 code)
{
	struct um_exec *x = &m->x;

	assert_int_equal(x->exit.kind, UM_EXIT_EXCEPTION);
	assert_int_equal(x->exit.exc.vector, vec);
	assert_int_equal(x->exit.exc.kind, UM_EVENT_FAULT);
	assert_true(x->exit.exc.has_error);
	assert_int_equal(x->exit.exc.error_code, code);
	m->before.cr2 = x->cpu.cr2;
	m->before.dr6 = x->cpu.dr6;
	m->before.rflags = (m->before.rflags & ~RFLAGS_STATUS) | (x->cpu.rflags & RFLAGS_STATUS);
	assert_memory_equal(&m->before, &x->cpu, sizeof(x->cpu));
}

void m_expect_ud(struct machine *m)
{
	assert_int_equal(m->x.exit.kind, UM_EXIT_EXCEPTION);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_UD);
	assert_false(m->x.exit.exc.has_error);
	assert_memory_equal(&m->before, &m->x.cpu, sizeof(m->x.cpu));
}

void m_expect_next(struct machine *m)
{
	assert_int_equal(m->x.exit.kind, UM_EXIT_NONE);
	assert_int_equal(m->x.cpu.rip, m->before.rip + m->insn.len);
}

void m_expect_at(struct machine *m, u16 cs, u64 rip)
{
	assert_int_equal(m->x.exit.kind, UM_EXIT_NONE);
	assert_int_equal(m->x.cpu.seg[UM_CS].selector, cs);
	assert_int_equal(m->x.cpu.rip, rip);
	assert_int_equal(m->x.mode, um_cpu_mode(&m->x.cpu));
}

void m_expect_stack(struct machine *m, u32 at, unsigned size, unsigned n, const u64 *v)
{
	for (unsigned k = 0; k < n; k++)
		assert_int_equal(m_get(m, at + k * size, size), um_trunc(v[k], size));
}

/* ---- life ---- */

void m_vendor(struct machine *m, const char *vendor)
{
	struct kvm_cpuid_entry2 e[UM_MAX_CPUID_ENTRIES];
	int n = um_cpuid_supported(e, ARRAY_SIZE(e));

	assert_in_range(n, 1, ARRAY_SIZE(e));
	for (int k = 0; k < n; k++) {
		if (e[k].function != 0)
			continue;
		memcpy(&e[k].ebx, vendor, 4);
		memcpy(&e[k].edx, vendor + 4, 4);
		memcpy(&e[k].ecx, vendor + 8, 4);
	}
	um_cpuid_init(&m->x.cpu);
	assert_int_equal(um_cpuid_set(&m->x.cpu, e, n), 0);
}

struct machine *m_new(void)
{
	struct um_mmu *mmu = aligned_alloc(64, ALIGN_UP(sizeof(*mmu), 64));
	struct machine *m;

	assert_non_null(mmu);
	memset(mmu, 0, sizeof(*mmu));
	m = &mmu->m;
	m->mem = aligned_alloc(4096, MEM_SIZE);
	assert_non_null(m->mem);
	m->x.tlb = &m->tlb;
	memset(m->tlb.e, 0xff, sizeof(m->tlb.e)); /* empty */
	for (unsigned n = 0; n < UM_NR_PRIVS; n++)
		m->tlb.ctx[n] = n + 1;
	m->x.mmu = mmu;
	m->x.counters = &m->counters;
	m->x.trace = &m->trace;
	assert_int_equal(um_uaccess_init(), 0);
	m_vendor(m, "GenuineIntel");
	return m;
}

void m_free(struct machine *m)
{
	free(m->mem);
	free(m->x.mmu);
}

int m_setup(void **state)
{
	*state = m_new();
	return 0;
}

int m_setup_warm(void **state)
{
	struct machine *m = m_new();

	m->warm = true;
	*state = m;
	return 0;
}

int m_teardown(void **state)
{
	m_free(*state);
	return 0;
}

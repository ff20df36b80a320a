// SPDX-License-Identifier: MIT
/*
 * Worlds: identity-mapped where code has to run, so that guests live for a while, and then spoiled:
 * how much is drawn first, so that some worlds are whole.
 */

#include "code.h"
#include "world.h"

#define PTE_P  1ull
#define PTE_RW 2ull
#define PTE_US 4ull
#define PTE_A  0x20ull
#define PTE_D  0x40ull
#define PTE_PS 0x80ull
#define PTE_G  0x100ull

const char *world_mode_name(enum world_mode mode)
{
	static const char *const names[] = {
		"real",		 "protected 16-bit", "protected 32-bit", "2-level", "PAE",
		"compatibility", "4-level",	     "5-level",		 "vm86"
	};

	return names[mode];
}

static bool is_long(const struct world *w)
{
	return w->mode == WORLD_COMPAT || w->mode == WORLD_LONG || w->mode == WORLD_LONG5;
}

static unsigned code_bits(const struct world *w)
{
	switch (w->mode) {
	case WORLD_REAL:
	case WORLD_PROT16:
	case WORLD_VM86:
		return 16;
	case WORLD_LONG:
	case WORLD_LONG5:
		return 64;
	default:
		return 32;
	}
}

static void put(struct world *w, uint64_t at, uint64_t v, unsigned n)
{
	if (at + n <= WORLD_IMAGE)
		memcpy(w->image + at, &v, n);
}

/* ---- descriptors (SDM vol. 3 3.4.5, 3.5, 5.8.3, 6.11) ---- */

static uint64_t segment(uint64_t base, uint32_t limit, unsigned access, unsigned flags)
{
	return (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)access << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 |
	       (base >> 24 & 0xff) << 56;
}

static uint64_t gate(uint16_t selector, uint64_t offset, unsigned access, unsigned low)
{
	return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)low << 32 |
	       (uint64_t)access << 40 | (offset >> 16 & 0xffff) << 48;
}

static void put_descriptor(struct world *w, unsigned selector, uint64_t d)
{
	put(w, GDT_ADDR + (selector & ~7u), d, 8);
}

static void build_gdt(struct world *w, struct rng *r)
{
	unsigned tss = is_long(w) || !rng_one_in(r, 8) ? 0x89 : 0x81;

	memset(w->image + GDT_ADDR, 0, 0x1000);
	put_descriptor(w, SEL_CODE32, segment(0, 0xfffff, 0x9b, 0xc));
	put_descriptor(w, SEL_DATA, segment(0, 0xfffff, 0x93, 0xc));
	put_descriptor(w, SEL_CODE64, segment(0, 0xfffff, 0x9b, 0xa));
	put_descriptor(w, SEL_USER_CODE32, segment(0, 0xfffff, 0xfb, 0xc));
	put_descriptor(w, SEL_USER_DATA, segment(0, 0xfffff, 0xf3, 0xc));
	put_descriptor(w, SEL_USER_CODE64, segment(0, 0xfffff, 0xfb, 0xa));
	put_descriptor(w, SEL_CODE16, segment(CODE_ADDR, 0xffff, 0x9b, 0));
	put_descriptor(w, SEL_DATA16, segment(0, 0xffff, 0x93, 0));
	put_descriptor(w, SEL_CONFORMING, segment(0, 0xfffff, 0x9f, is_long(w) ? 0xa : 0xc));
	put_descriptor(w, SEL_EXPAND_DOWN, segment(0, rng_below(r, 0x10000), 0x97, 0x4));
	put_descriptor(w, SEL_TSS, segment(TSS_ADDR, 0x1fff, tss, 0));
	put_descriptor(w, SEL_LDT, segment(LDT_ADDR, 0x3f, 0x82, 0));
	put_descriptor(w, SEL_TSS2, segment(TSS2_ADDR, 0x67 + rng_below(r, 0x100), tss, 0));
	if (!is_long(w))
		put_descriptor(w, SEL_TASK_GATE, gate(SEL_TSS2, 0, 0xe5, 0));
	for (unsigned s = SEL_GATE; s < GDT_ENTRIES << 3; s += 16) {
		static const uint16_t targets[] = { SEL_CODE32, SEL_CODE64, SEL_CONFORMING,
						    SEL_USER_CODE32, SEL_CODE16 };

		put_descriptor(w, s,
			       gate(rng_pick(r, targets), fuzz_code_address(r),
				    0xe0 | (rng_one_in(r, 8) ? 4 : 12), rng_below(r, 8)));
	}
	for (unsigned i = 0; i < 8; i++)
		put(w, LDT_ADDR + i * 8,
		    segment(fuzz_value(r), (uint32_t)rng64(r), rng_below(r, 256), rng_below(r, 16)),
		    8);
}

static void build_idt(struct world *w, struct rng *r)
{
	unsigned size = is_long(w) ? 16 : 8;
	uint16_t cs = is_long(w) ? SEL_CODE64 : SEL_CODE32;

	if (w->mode == WORLD_REAL) {
		for (unsigned v = 0; v < 256; v++) {
			put(w, v * 4, rng_below(r, 0x10000), 2);
			put(w, v * 4 + 2, rng_one_in(r, 16) ? rng64(r) : CODE_ADDR >> 4, 2);
		}
	}
	for (unsigned v = 0; v < 256; v++) {
		uint64_t at = IDT_ADDR + v * size, to = fuzz_code_address(r);
		unsigned type = rng_one_in(r, 4) ? 0x8f : 0x8e;
		unsigned ist = is_long(w) && rng_one_in(r, 4) ? rng_below(r, 8) : 0;
		uint16_t sel = rng_one_in(r, 64) ? fuzz_selector(r) : cs;

		if (rng_one_in(r, 64))
			type = rng_below(r, 256);
		else if (rng_one_in(r, 32) && !is_long(w))
			type = 0x85, sel = SEL_TSS2;
		if (rng_one_in(r, 3))
			type |= 0x60;
		if (at + size > IDT_ADDR + 0x1000)
			break;
		put(w, at, gate(sel, to, type, ist), 8);
		if (is_long(w))
			put(w, at + 8, to >> 32, 8);
	}
}

static void build_tss(struct world *w, struct rng *r)
{
	memset(w->image + TSS_ADDR, 0, 0x2000);
	for (unsigned i = 0; i < 16; i++) {
		uint64_t stack = STACK_ADDR + STACK_SIZE - (rng_below(r, 64) << 3);

		if (rng_one_in(r, 16))
			stack = fuzz_value(r);
		/* 64-bit: RSP and IST from 4 on; 32-bit: ESP0, SS0, … */
		if (is_long(w)) {
			put(w, TSS_ADDR + 4 + i * 8, stack, 8);
		} else if (i < 3) {
			put(w, TSS_ADDR + 4 + i * 8, stack, 4);
			put(w, TSS_ADDR + 8 + i * 8, SEL_DATA, 4);
		}
	}
	put(w, TSS_ADDR + 0x66, rng_one_in(r, 4) ? rng_below(r, 0x2100) : 0x68, 2);
	for (unsigned i = 0; i < 0x400; i++)
		w->image[TSS_ADDR + 0x88 + i] = rng_one_in(r, 2) ? 0 : (uint8_t)rng64(r);
	/* What a task switch loads: CR3, EIP, EFLAGS, registers, selectors, LDT. */
	put(w, TSS2_ADDR + 0x1c, PT_ADDR, 4);
	put(w, TSS2_ADDR + 0x20, fuzz_code_address(r), 4);
	put(w, TSS2_ADDR + 0x24, rng_one_in(r, 4) ? rng64(r) : 0x202, 4);
	for (unsigned i = 0; i < 8; i++)
		put(w, TSS2_ADDR + 0x28 + i * 4, fuzz_value(r), 4);
	put(w, TSS2_ADDR + 0x38, STACK_ADDR + STACK_SIZE - 64, 4);
	for (unsigned i = 0; i < 7; i++)
		put(w, TSS2_ADDR + 0x48 + i * 4,
		    rng_one_in(r, 16) ? fuzz_selector(r)
		    : i == 1	      ? SEL_CODE32
		    : i == 6	      ? 0
				      : SEL_DATA,
		    4);
}

/* ---- page tables (SDM vol. 3 chapter 4) ---- */

struct tables {
	struct world *w;
	struct rng *r;
	unsigned used, size; /* pages handed out; bytes of an entry */
	uint64_t flags;	     /* of every entry */
};

static uint64_t table_page(struct tables *t)
{
	return PT_ADDR + (t->used < PT_PAGES ? t->used++ : rng_below(t->r, PT_PAGES)) * 0x1000ull;
}

static void entry(struct tables *t, uint64_t table, unsigned i, uint64_t v)
{
	put(t->w, table + i * t->size, v, t->size);
}

/* A table of the last level, or a large page in its place: [@from, …) onto itself. */
static uint64_t low_entry(struct tables *t, uint64_t from)
{
	unsigned n = 4096 / t->size;
	uint64_t pt;

	if (rng_one_in(t->r, 3))
		return from | t->flags | PTE_PS | (rng_one_in(t->r, 4) ? PTE_G : 0);
	pt = table_page(t);
	for (unsigned i = 0; i < n; i++) {
		uint64_t e = (from + i * 0x1000ull) | t->flags;

		if (rng_one_in(t->r, 64))
			e ^= 1ull << rng_below(t->r, 12);
		if (rng_one_in(t->r, 64))
			e = (fuzz_value(t->r) & 0xfffffffff000) | t->flags;
		entry(t, pt, i, e);
	}
	return pt | t->flags;
}

/* A page directory: the first 8 MiB, twice. */
static uint64_t directory(struct tables *t)
{
	uint64_t pd = table_page(t), step = t->size == 4 ? 0x400000 : 0x200000;
	unsigned n = 4096 / t->size;

	for (unsigned i = 0; i < 0x800000 / step; i++) {
		uint64_t e = low_entry(t, i * step);

		entry(t, pd, i, e);
		entry(t, pd, n / 2 + i, e);
	}
	entry(t, pd, n - 1, pd | t->flags); /* itself */
	if (t->size == 4)		    /* PSE36: above 4 GiB */
		entry(t, pd, n - 2, t->flags | PTE_PS | 1 << 13);
	return pd;
}

static uint64_t build_tables(struct world *w, struct rng *r)
{
	struct tables t = { .w = w, .r = r, .size = w->mode == WORLD_PAGED ? 4 : 8 };
	uint64_t root, pdpt, pd;

	memset(w->image + PT_ADDR, 0, PT_PAGES * 0x1000);
	t.flags = PTE_P | PTE_RW | (w->user || rng_one_in(r, 2) ? PTE_US : 0) |
		  (rng_one_in(r, 2) ? PTE_A | PTE_D : 0);
	root = table_page(&t);
	if (w->mode == WORLD_PAGED) {
		t.used--;
		directory(&t);
	} else if (w->mode == WORLD_PAE) {
		pd = directory(&t);
		for (unsigned i = 0; i < 4; i++)
			entry(&t, root, i, (rng_one_in(r, 8) ? PT_ADDR : pd) | PTE_P);
	} else {
		pdpt = root;
		for (unsigned l = w->mode == WORLD_LONG5 ? 5 : 4; l > 3; l--) {
			uint64_t next = table_page(&t);

			entry(&t, pdpt, 0, next | t.flags);
			entry(&t, pdpt, 256, next | t.flags);
			entry(&t, pdpt, 511, next | t.flags);
			entry(&t, pdpt, 510, pdpt | t.flags);
			pdpt = next;
		}
		pd = directory(&t);
		entry(&t, pdpt, 0, pd | t.flags);
		entry(&t, pdpt, 510, pd | t.flags);
		entry(&t, pdpt, 3, t.flags | PTE_PS | 0xc0000000); /* devices */
		entry(&t, pdpt, 4, HIGH_ADDR | t.flags | PTE_PS);
		entry(&t, pdpt, 5, pdpt | t.flags);
	}
	return root;
}

/*
 * Entries where a table points out of memory, at a device, at what is read-only, at itself; flipped
 * bits.
 */
static void spoil_tables(struct world *w, struct rng *r)
{
	static const uint64_t places[] = { ROM_ADDR,   ROM_ADDR + PT_ADDR - CODE_ADDR,
					   ALIAS_ADDR, HIGH_ADDR,
					   0xfee00000, 0xfec00000,
					   RAM_SIZE,   1ull << 38,
					   1ull << 45, 1ull << 51,
					   PT_ADDR,    PT_ADDR + 0x1000,
					   CODE_ADDR,  GDT_ADDR };
	unsigned n = rng_one_in(r, 3) ? 0 : 1u << rng_below(r, 8);
	unsigned size = w->mode == WORLD_PAGED ? 4 : 8;

	while (n--) {
		uint64_t at = PT_ADDR + (rng_below(r, PT_PAGES) << 12), v = 0;

		/* The first and the last entries are in use. */
		at += (rng_one_in(r, 2) ? rng_below(r, 16) : rng_below(r, 4096 / size)) * size;
		memcpy(&v, w->image + at, size);
		if (rng_one_in(r, 2))
			v ^= 1ull << rng_below(r, size * 8);
		else if (rng_one_in(r, 8))
			v = rng64(r);
		else
			v = rng_pick(r, places) | (v & 0xfff) | PTE_P;
		if (size == 8 && rng_one_in(r, 8))
			v |= (uint64_t)rng_below(r, 32) << 59;
		put(w, at, v, size);
	}
}

static void spoil_rest(struct world *w, struct rng *r)
{
	unsigned n = rng_one_in(r, 2) ? 0 : 1u << rng_below(r, 6);

	while (n--)
		w->image[GDT_ADDR + rng_below(r, (unsigned)(STACK_ADDR - GDT_ADDR))] ^=
			(uint8_t)(1u << rng_below(r, 8));
}

/* ---- registers ---- */

static struct kvm_segment flat(uint16_t selector, unsigned type, unsigned dpl, unsigned l,
			       unsigned db)
{
	return (struct kvm_segment){ .limit = 0xffffffff,
				     .selector = selector,
				     .type = type & 15,
				     .present = 1,
				     .dpl = dpl & 3,
				     .db = db & 1,
				     .s = 1,
				     .l = l & 1,
				     .g = 1 };
}

static struct kvm_segment real_segment(uint16_t selector, unsigned type, unsigned dpl)
{
	return (struct kvm_segment){ .base = (uint64_t)selector << 4,
				     .limit = 0xffff,
				     .selector = selector,
				     .type = type & 15,
				     .present = 1,
				     .dpl = dpl & 3,
				     .s = 1 };
}

static void set_segments(struct world *w)
{
	struct kvm_sregs *s = &w->sregs;
	unsigned dpl = w->user ? 3 : 0;
	bool wide = w->mode == WORLD_LONG || w->mode == WORLD_LONG5;

	if (w->mode == WORLD_REAL || w->mode == WORLD_VM86) {
		dpl = w->mode == WORLD_VM86 ? 3 : 0;
		s->cs = real_segment(CODE_ADDR >> 4, dpl ? 3 : 11, dpl);
		s->ss = s->ds = s->fs = real_segment(0, 3, dpl);
		s->es = s->gs = real_segment(DATA_ADDR >> 4, 3, dpl);
	} else if (w->mode == WORLD_PROT16) {
		s->cs = real_segment(SEL_CODE16, 11, 0);
		s->cs.base = CODE_ADDR;
		s->ss = s->ds = s->es = s->fs = s->gs = flat(SEL_DATA, 3, 0, 0, 0);
	} else {
		uint16_t cs = w->user ? (wide ? SEL_USER_CODE64 : SEL_USER_CODE32)
				      : (wide ? SEL_CODE64 : SEL_CODE32);

		s->cs = flat(cs, 11, dpl, wide, !wide);
		s->ss = flat(w->user ? SEL_USER_DATA : SEL_DATA, 3, dpl, 0, 1);
		s->ds = s->es = s->fs = s->gs = s->ss;
	}
	s->tr = (struct kvm_segment){
		.base = TSS_ADDR, .limit = 0x1fff, .selector = SEL_TSS, .type = 11, .present = 1
	};
	s->ldt = (struct kvm_segment){
		.base = LDT_ADDR, .limit = 0x3f, .selector = SEL_LDT, .type = 2, .present = 1
	};
	s->gdt.base = GDT_ADDR;
	s->gdt.limit = GDT_ENTRIES * 8 - 1;
	s->idt.base = w->mode == WORLD_REAL ? 0 : IDT_ADDR;
	s->idt.limit = w->mode == WORLD_REAL ? 0x3ff : 0xfff;
}

static void set_control(struct world *w, struct rng *r, uint64_t root)
{
	struct kvm_sregs *s = &w->sregs;
	bool paged = w->mode >= WORLD_PAGED && (w->mode != WORLD_VM86 || rng_one_in(r, 2));

	s->cr0 = 0x30 | (w->mode == WORLD_REAL ? 0 : 1) | (paged ? 0x80000000 : 0) |
		 (rng_one_in(r, 2) ? 0x10000 : 0) | (rng_one_in(r, 8) ? 0x40000 : 0);
	/*
	 * DE, PSE, MCE, PGE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE; SMEP and SMAP by chance.
	 */
	s->cr4 = 0x50ed8 | (rng_one_in(r, 4) ? 0x100000 : 0) | (rng_one_in(r, 4) ? 0x200000 : 0) |
		 (rng_one_in(r, 8) ? 3 : 0);
	s->cr3 = root;
	s->efer = 1;
	if (w->mode == WORLD_PAE || is_long(w))
		s->cr4 |= 0x20;
	if (is_long(w))
		s->efer |= 0x500;
	if (w->mode == WORLD_LONG5)
		s->cr4 |= 0x1000;
	if (w->mode == WORLD_PAGED && rng_one_in(r, 8))
		s->cr4 &= ~0x10ull;
	if (s->cr4 & 0x20)
		s->efer |= 0x800;
	if (is_long(w) && rng_one_in(r, 3))
		s->cr4 |= 0x20000; /* PCIDE */
	s->cr2 = fuzz_value(r);
	s->cr8 = rng_one_in(r, 2) ? 0 : rng_below(r, 16);
}

void world_regs(struct world *w, struct rng *r)
{
	uint64_t *gpr = (uint64_t *)&w->regs;

	for (unsigned i = 0; i < 16; i++)
		gpr[i] = fuzz_value(r);
	if (!rng_one_in(r, 8))
		w->regs.rsp = STACK_ADDR + STACK_SIZE - (rng_below(r, 0x100) << 3);
	w->regs.rip = fuzz_code_address(r);
	if (w->mode == WORLD_REAL || w->mode == WORLD_PROT16 || w->mode == WORLD_VM86)
		w->regs.rip -= CODE_ADDR; /* the base of CS */
	w->regs.rflags = 2 | (rng_one_in(r, 2) ? 0x200 : 0) | (rng_one_in(r, 8) ? 0x100 : 0) |
			 (rng_one_in(r, 4) ? 0x3000 : 0) |
			 (rng_one_in(r, 4) ? rng64(r) & 0xcd5 : 0) |
			 (w->mode == WORLD_VM86 ? 0x20000 : 0) | (rng_one_in(r, 16) ? 0x40000 : 0);
}

void world_build(struct world *w, struct rng *r)
{
	uint64_t root;

	w->mode = rng_below(r, WORLD_MODES);
	w->user = w->mode >= WORLD_PROT32 && w->mode != WORLD_VM86 && rng_one_in(r, 4);
	rng_fill(r, w->image, WORLD_IMAGE);
	for (uint64_t at = 0; at < CODE_SIZE; at += CODE_BLOCK)
		fuzz_code(r, w->image + CODE_ADDR + at, CODE_BLOCK, code_bits(w));
	build_tss(w, r);
	build_gdt(w, r);
	build_idt(w, r);
	root = build_tables(w, r);
	spoil_tables(w, r);
	spoil_rest(w, r);
	set_segments(w);
	set_control(w, r, root);
	world_regs(w, r);
}

void world_spoil_sregs(struct kvm_sregs *s, struct rng *r)
{
	struct kvm_segment *segs[] = { &s->cs, &s->ds, &s->es, &s->fs,
				       &s->gs, &s->ss, &s->tr, &s->ldt };
	unsigned n = 1 + rng_below(r, 3);

	while (n--) {
		struct kvm_segment *seg = rng_pick(r, segs);

		switch (rng_below(r, 9)) {
		case 0:
			s->cr0 = fuzz_cr(r, 0);
			break;
		case 1:
			s->cr4 = fuzz_cr(r, 4);
			break;
		case 2:
			s->efer = fuzz_efer(r);
			break;
		case 3:
			s->cr3 = fuzz_cr(r, 3);
			break;
		case 4:
			rng_fill(r, seg, sizeof(*seg));
			break;
		case 5:
			seg->base = fuzz_value(r);
			seg->limit = (uint32_t)fuzz_value(r);
			break;
		case 6:
			((uint8_t *)seg)[rng_below(r, sizeof(*seg))] ^=
				(uint8_t)(1u << rng_below(r, 8));
			break;
		case 7:
			s->idt.base = fuzz_value(r);
			s->gdt.limit = (uint16_t)rng64(r);
			break;
		default:
			s->interrupt_bitmap[rng_below(r, 4)] = 1ull << rng_below(r, 64);
			s->cr8 = fuzz_cr(r, 8);
			break;
		}
	}
}

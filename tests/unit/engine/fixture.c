// SPDX-License-Identifier: MIT
#include "fixture.h"
#include "base/jit_options.h"
#include "engine/interp/interp.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The engine's view of struct um_mmu is opaque: here it is the machine. */
static struct machine *machine_of(struct um_mmu *mmu)
{
	return (struct machine *)mmu;
}

static void fill(struct machine *m, gva_t gva, unsigned ctx, u8 *host, unsigned allowed)
{
	struct um_tlb_entry *e = &m->tlb.e[um_tlb_index(gva, ctx)];
	u64 page = gva & UM_PAGE_MASK;

	if (um_tlb_guarded(&m->tlb, (hva_t)host))
		allowed &= ~(1u << UM_WRITE);
	for (unsigned a = 0; a < 3; a++)
		e->tag[a] = allowed & (1u << a) ? page | ctx : UM_TLB_EMPTY;
	e->addend = (u64)host - page;
	if (allowed & (1u << UM_WRITE))
		um_tlb_note_written(&m->tlb, e);
}

enum um_access_result um_mmu_access(struct um_mmu *mmu, struct um_fault *f)
{
	struct machine *m = machine_of(mmu);
	u64 page = (f->gva - MEM_BASE) >> UM_PAGE_SHIFT;
	bool user = f->priv == UM_PRIV_USER && !f->implicit;
	u8 prop = page < MEM_PAGES ? m->prop[page] : 0;
	u8 *host = m->mem + (page << UM_PAGE_SHIFT);

	m->accesses++;
	if (m->kick_after && !--m->kick_after)
		atomic_store(&m->x.kick, 1);
	if (m->take_after && !--m->take_after) {
		machine_prop(m, m->take_page, m->take_prop);
		m->tlb.seq++;
		prop = page < MEM_PAGES ? m->prop[page] : 0;
	}
	f->gpa = f->gva;
	f->error_code = (f->acc == UM_WRITE ? PFERR_WRITE : 0) | (user ? PFERR_USER : 0) |
			(f->acc == UM_FETCH ? PFERR_FETCH : 0);
	if (!(prop & P_PRESENT))
		return UM_ACCESS_FAULT;
	f->error_code |= PFERR_PRESENT;
	if ((f->acc == UM_WRITE && !(prop & P_WRITE)) || (user && !(prop & P_USER)) ||
	    (f->acc == UM_FETCH && (prop & P_NOEXEC)))
		return UM_ACCESS_FAULT;
	if (prop & P_MMIO)
		return UM_ACCESS_MMIO;
	f->hva = host + (f->gva & ~UM_PAGE_MASK);
	if (prop & P_GONE)
		return UM_ACCESS_HOST;
	if ((prop & P_TRACKED) && f->acc == UM_WRITE)
		return UM_ACCESS_TRACKED;
	if (!f->probe && !m->no_tlb && !um_mmu_watched(&m->x.cpu, f->gva))
		fill(m, f->gva, m->tlb.ctx[f->priv], host,
		     (1u << UM_READ) | (prop & P_NOEXEC ? 0 : 1u << UM_FETCH) |
			     ((prop & (P_WRITE | P_TRACKED)) == P_WRITE ? 1u << UM_WRITE : 0));
	return UM_ACCESS_OK;
}

void um_mmu_written(struct um_mmu *mmu, gpa_t gpa, unsigned len)
{
	struct machine *m = machine_of(mmu);

	if (m->nwritten < ARRAY_SIZE(m->written))
		m->written[m->nwritten] = (struct written){ gpa, len };
	m->nwritten++;
}

int um_mmu_enter(struct um_mmu *mmu)
{
	return 0;
}
void um_mmu_leave(struct um_mmu *mmu) {}

bool um_mmu_watched(const struct um_cpu *cpu, gva_t gva)
{
	for (unsigned n = 0; n < 4; n++) {
		if (DR7_ENABLED(cpu->dr7, n) && DR7_RW(cpu->dr7, n) &&
		    !((cpu->dr[n] ^ gva) & UM_PAGE_MASK))
			return true;
	}
	return false;
}

/* What the guest's control instructions tell an MMU: nothing here depends on it but the TLB. */
void um_mmu_reset_context(struct um_mmu *mmu)
{
	machine_flush(machine_of(mmu));
}
void um_mmu_new_cr3(struct um_mmu *mmu, bool flush)
{
	if (!machine_of(mmu)->precise)
		machine_flush(machine_of(mmu));
}
void um_mmu_invlpg(struct um_mmu *mmu, gva_t gva)
{
	machine_flush(machine_of(mmu));
}
void um_mmu_invpcid(struct um_mmu *mmu, unsigned type, u64 pcid, gva_t gva)
{
	machine_flush(machine_of(mmu));
}
void um_mmu_rights_changed(struct um_mmu *mmu)
{
	machine_flush(machine_of(mmu));
}
void um_mmu_flush_all(struct um_mmu *mmu)
{
	machine_flush(machine_of(mmu));
}
int um_mmu_load_pdptrs(struct um_mmu *mmu, u64 cr3, u64 pdptr[4])
{
	return 0;
}

void machine_flush(struct machine *m)
{
	for (unsigned n = 0; n < UM_TLB_ENTRIES; n++)
		for (unsigned a = 0; a < 3; a++)
			m->tlb.e[n].tag[a] = UM_TLB_EMPTY;
	m->tlb.seq++;
	m->tlb.epoch++;
	for (unsigned user = 0; user < 2; user++)
		m->tlb.code_seq[user]++;
}

/* One page, as mmu/tlb.c does it: translated code is told only if it noted the page. */
static void flush_page(struct machine *m, gva_t gva)
{
	unsigned bit = um_tlb_code_bit(gva);

	for (unsigned n = 0; n < UM_TLB_ENTRIES; n++) {
		for (unsigned a = 0; a < 3; a++) {
			if (m->tlb.e[n].tag[a] >> UM_PAGE_SHIFT == gva >> UM_PAGE_SHIFT)
				m->tlb.e[n].tag[a] = UM_TLB_EMPTY;
		}
	}
	m->tlb.seq++;
	for (unsigned user = 0; user < 2; user++) {
		if (!(m->tlb.code[user][bit / 64] >> (bit % 64) & 1))
			continue;
		m->tlb.code_seq[user]++;
		memset(m->tlb.code[user], 0, sizeof(m->tlb.code[user]));
	}
}

void machine_prop(struct machine *m, unsigned page, u8 prop)
{
	m->prop[page] = prop;
	if (m->precise)
		flush_page(m, PAGE(page));
	else
		machine_flush(m);
}

static struct um_segment segment(unsigned type, bool l, bool db, u32 limit)
{
	return (struct um_segment){ .limit = limit,
				    .selector = 8,
				    .type = (u8)type,
				    .s = true,
				    .present = true,
				    .l = l,
				    .db = db,
				    .g = limit == 0xffffffff };
}

void machine_mode(struct machine *m, enum um_mode mode)
{
	struct um_cpu *c = &m->x.cpu;
	u32 limit = mode == UM_MODE_REAL ? 0xffff : 0xffffffff;
	bool db = mode == UM_MODE_32;

	c->cr0 = mode == UM_MODE_REAL ? CR0_ET : CR0_ET | CR0_PE | CR0_PG | CR0_NE;
	c->cr4 = CR4_PAE | CR4_OSFXSR;
	c->efer = mode == UM_MODE_64 ? EFER_LMA | EFER_LME : 0;
	for (unsigned s = 0; s < UM_NR_SEGS; s++)
		c->seg[s] = segment(UM_DESC_WRITABLE | UM_DESC_ACCESSED, false, db, limit);
	c->seg[UM_CS] = segment(UM_DESC_CODE | UM_DESC_READABLE | UM_DESC_ACCESSED,
				mode == UM_MODE_64, db, limit);
	if (mode == UM_MODE_REAL) {
		for (unsigned s = 0; s < UM_NR_SEGS; s++) {
			c->seg[s].base = MEM_BASE;
			c->seg[s].selector = MEM_BASE >> 4;
		}
	}
	um_exec_sync(&m->x);
}

struct machine *machine_new(void)
{
	const char *engine = getenv("UMBRA_ENGINE");

	if (engine && !strcmp(engine, "jit"))
		return machine_new_engine(UM_ENGINE_JIT);
	if (engine && !strcmp(engine, "lockstep"))
		return machine_new_engine(UM_ENGINE_LOCKSTEP);
	return machine_new_engine(UM_ENGINE_INTERP);
}

static const struct um_jit_options *read_options(struct um_jit_options *o)
{
	um_jit_options_init(o);
	for (unsigned n = 0; n < UM_JIT_OPT_MAX; n++) {
		const char *value = getenv(um_jit_option_env((enum um_jit_option)n));

		if (value)
			assert_int_equal(um_jit_option_set(o, (enum um_jit_option)n, value), 0);
	}
	return o;
}

struct machine *machine_new_engine(enum um_engine_kind engine)
{
	struct um_jit_options options;
	struct machine *m = aligned_alloc(64, ALIGN_UP(sizeof(*m), 64));
	int fd = memfd_create("guest", 0);

	assert_non_null(m);
	memset(m, 0, sizeof(*m));
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, MEM_SIZE), 0);
	m->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	m->alias = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(m->mem != MAP_FAILED && m->alias != MAP_FAILED);
	close(fd);
	m->tlb.ctx[UM_PRIV_KERNEL] = 1;
	m->tlb.ctx[UM_PRIV_KERNEL_AC] = 2;
	m->tlb.ctx[UM_PRIV_USER] = 3;
	m->x.tlb = &m->tlb;
	m->x.mmu = (struct um_mmu *)m;
	m->x.counters = &m->counters;
	m->x.trace = &m->trace;
	m->x.engine = (u8)engine;
	m->x.jit_options = read_options(&options);
	memset(m->prop, P_PRESENT | P_WRITE | P_USER, sizeof(m->prop));
	m->x.cpu.maxphyaddr = 52;
	m->x.cpu.rflags = RFLAGS_FIXED1;
	m->x.cpu.gpr[UM_RSP] = STACK;
	memset(m->x.cpu.features, 0xff, sizeof(m->x.cpu.features));
	assert_int_equal(um_engine_init(&m->x), 0);
	machine_flush(m);
	machine_mode(m, UM_MODE_64);
	return m;
}

void machine_free(struct machine *m)
{
	um_engine_destroy(&m->x);
	munmap(m->mem, MEM_SIZE);
	munmap(m->alias, MEM_SIZE);
	free(m);
}

void machine_code(struct machine *m, gva_t gva, const u8 *code, const u8 *end)
{
	memcpy(at(m, gva), code, (size_t)(end - code));
	m->x.code_doubt = true;
	m->x.cpu.rip = gva - m->x.cpu.seg[UM_CS].base;
}

enum um_exit_kind machine_run(struct machine *m)
{
	m->x.code_doubt = true; /* tests change code as other processors do */
	return um_engine_run(&m->x);
}

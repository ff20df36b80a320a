// SPDX-License-Identifier: MIT
/* Port I/O: permissions, request and answer, batches, breakpoints. */
#include "machine.h"

#define PIO(m) (&(m)->x.pio)

/* Open ports [port, port + n) in the TSS's map. */
static void open_ports(struct machine *m, unsigned port, unsigned n)
{
	for (unsigned p = port; p < port + n; p++)
		m->mem[TSS_AT + IOMAP + p / 8] &= ~(1 << (p & 7));
}

static void expect_request(struct machine *m, u16 port, unsigned size, bool write, unsigned count)
{
	assert_int_equal(m->x.exit.kind, UM_EXIT_PIO);
	assert_int_equal(m->x.cpu.rip, m->before.rip);
	assert_int_equal(PIO(m)->state, UM_PIO_PENDING);
	assert_int_equal(PIO(m)->port, port);
	assert_int_equal(PIO(m)->size, size);
	assert_int_equal(PIO(m)->write, write);
	assert_int_equal(PIO(m)->count, count);
	/* Nothing has happened yet. */
	assert_memory_equal(m->before.gpr, m->x.cpu.gpr, sizeof(m->before.gpr));
}

static void out_and_in(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	m->x.cpu.gpr[UM_RAX] = 0x1122334455667788;
	m->x.cpu.gpr[UM_RDX] = 0xffff03f8;
	RUN(m, 0xee);
	expect_request(m, 0x3f8, 1, true, 1);
	assert_int_equal(PIO(m)->data[0], 0x88);
	PIO(m)->state = UM_PIO_DONE;
	RUN(m, 0xee);
	m_expect_next(m);
	assert_int_equal(PIO(m)->state, UM_PIO_IDLE);

	static const struct {
		u8 bytes[3];
		u8 len, size;
		u64 rax;
	} ins[] = {
		{ { 0xe4, 0x71 }, 2, 1, 0x11223344556677aa },
		{ { 0x66, 0xe5, 0x71 }, 3, 2, 0x112233445566bbaa },
		{ { 0xe5, 0x71 }, 2, 4, 0xddccbbaa },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(ins); n++) {
		m->x.cpu.rip = CODE_AT;
		m->x.cpu.gpr[UM_RAX] = 0x1122334455667788;
		m_run(m, ins[n].bytes, ins[n].len);
		expect_request(m, 0x71, ins[n].size, false, 1);
		memcpy(PIO(m)->data, "\xaa\xbb\xcc\xdd", 4);
		PIO(m)->state = UM_PIO_DONE;
		m_run(m, ins[n].bytes, ins[n].len);
		m_expect_next(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], ins[n].rax);
	}
}

/* An answer to something else isn't taken. */
static void foreign_answer(void **state)
{
	struct machine *m = *state;

	m_prot32(m, 0);
	RUN(m, 0xe4, 0x71);
	PIO(m)->state = UM_PIO_DONE;
	RUN(m, 0xe4, 0x72);
	expect_request(m, 0x72, 1, false, 1);
	PIO(m)->state = UM_PIO_DONE;
	RUN(m, 0xe6, 0x72);
	expect_request(m, 0x72, 1, true, 1);
}

static void permissions(void **state)
{
	struct machine *m = *state;

	/* IOPL. */
	m_prot32(m, 3);
	RUN(m, 0xe4, 0x71);
	m_expect_fault(m, UM_VEC_GP, 0);
	m->x.cpu.rflags |= RFLAGS_IOPL;
	RUN(m, 0xe4, 0x71);
	expect_request(m, 0x71, 1, false, 1);
	/* The map: each byte of the access counts, across bytes of the map too. */
	m_prot32(m, 3);
	open_ports(m, 0x76, 3);
	for (unsigned port = 0x74; port < 0x7a; port++)
		for (unsigned size = 1; size <= 4; size *= 2) {
			static const u8 opcodes[] = { 0, 0xec, 0xed, 0, 0xed };
			const u8 b[] = { 0x66, opcodes[size] };

			m->x.cpu.rip = CODE_AT;
			m->x.cpu.gpr[UM_RDX] = port;
			m_run(m, b + (size != 2), 2 - (size != 2));
			if (port >= 0x76 && port + size <= 0x79)
				expect_request(m, port, size, false, 1);
			else
				m_expect_fault(m, UM_VEC_GP, 0);
		}
	/* Beyond the TSS's limit: both bytes must be inside. */
	open_ports(m, 0, 0x100);
	m->x.cpu.gpr[UM_RDX] = 0x10;
	m->x.cpu.tr.limit = IOMAP + 2;
	RUN(m, 0xec);
	m_expect_fault(m, UM_VEC_GP, 0);
	m->x.cpu.tr.limit = IOMAP + 3;
	RUN(m, 0xec);
	expect_request(m, 0x10, 1, false, 1);
	/* A 16-bit TSS has no map, nor one that ends before the map's pointer. */
	m->x.cpu.tr.limit = 0x66;
	RUN(m, 0xec);
	m_expect_fault(m, UM_VEC_GP, 0);
	m_prot32(m, 3);
	open_ports(m, 0, 0x100);
	m->x.cpu.tr.type = UM_SYS_TSS16_BUSY;
	RUN(m, 0xe4, 0x10);
	m_expect_fault(m, UM_VEC_GP, 0);
	/* vm86: the map, whatever IOPL says. */
	m_vm86(m, 3);
	RUN(m, 0xe4, 0x10);
	m_expect_fault(m, UM_VEC_GP, 0);
	open_ports(m, 0x10, 1);
	RUN(m, 0xe4, 0x10);
	expect_request(m, 0x10, 1, false, 1);
	m_real(m);
	RUN(m, 0xe4, 0x10);
	expect_request(m, 0x10, 1, false, 1);
}

static void ins_batches(void **state)
{
	struct machine *m = *state;
	struct um_cpu *c = &m->x.cpu;

	m_prot32(m, 0);
	c->gpr[UM_RDX] = 0x1f0;
	c->gpr[UM_RDI] = DATA_AT + 0xff0;
	c->gpr[UM_RCX] = 16;
	/* To the page's end first, then the rest. */
	RUN(m, 0x66, 0xf3, 0x6d);
	expect_request(m, 0x1f0, 2, false, 8);
	memset(PIO(m)->data, 0x5a, 16);
	PIO(m)->state = UM_PIO_DONE;
	RUN(m, 0x66, 0xf3, 0x6d);
	assert_int_equal(m->x.exit.kind, UM_EXIT_NONE);
	assert_int_equal(c->rip, CODE_AT);
	assert_int_equal(c->gpr[UM_RCX], 8);
	assert_int_equal(c->gpr[UM_RDI], DATA_AT + 0x1000);
	assert_int_equal(m_get(m, DATA_AT + 0xff8, 8), 0x5a5a5a5a5a5a5a5a);
	/* DF: one by one, downwards. */
	m_prot32(m, 0);
	c->rflags |= RFLAGS_DF;
	c->gpr[UM_RDX] = 0x1f0;
	c->gpr[UM_RDI] = DATA_AT + 0x800;
	c->gpr[UM_RCX] = 2;
	for (unsigned n = 0; n < 2; n++) {
		RUN(m, 0xf3, 0x6d);
		expect_request(m, 0x1f0, 4, false, 1);
		PIO(m)->state = UM_PIO_DONE;
		RUN(m, 0xf3, 0x6d);
		assert_int_equal(c->gpr[UM_RDI], DATA_AT + 0x7fc - 4 * n);
	}
	m_expect_next(m);
	/* RCX = 0 does nothing. */
	c->rip = CODE_AT;
	RUN(m, 0xf3, 0x6d);
	m_expect_next(m);
	/* At most UM_PIO_MAX bytes; with 16-bit addresses only CX counts. */
	m_prot32(m, 0);
	c->gpr[UM_RDI] = 0x10000 | DATA_AT;
	c->gpr[UM_RCX] = 0x10000 | 0x800;
	RUN(m, 0x67, 0xf3, 0x6c);
	assert_int_equal(PIO(m)->count, UM_PIO_MAX);
	memset(PIO(m)->data, 0x33, UM_PIO_MAX);
	PIO(m)->state = UM_PIO_DONE;
	RUN(m, 0x67, 0xf3, 0x6c);
	assert_int_equal(c->gpr[UM_RDI], 0x10000 | (DATA_AT + UM_PIO_MAX));
	assert_int_equal(c->gpr[UM_RCX], 0x10000 | (0x800 - UM_PIO_MAX));
	assert_int_equal(m_get(m, DATA_AT, 4), 0x33333333);
}

/* The destination is checked before the device is asked. */
static void ins_faults_first(void **state)
{
	struct machine *m = *state;
	struct um_cpu *c = &m->x.cpu;

	m_prot32(m, 0);
	c->gpr[UM_RDI] = DATA_AT + 0xffe;
	c->gpr[UM_RCX] = 4;
	m->absent[(DATA_AT >> 12) + 1] = 1;
	RUN(m, 0xf3, 0x6d);
	m_expect_fault(m, UM_VEC_PF, PFERR_WRITE);
	assert_int_equal(PIO(m)->state, UM_PIO_IDLE);
	m->absent[(DATA_AT >> 12) + 1] = 0;
	RUN(m, 0xf3, 0x6d);
	assert_int_equal(PIO(m)->count, 1); /* it crosses the page */
	m_prot32(m, 0);
	c->seg[UM_ES] = um_segment_unpack(RODATA, m_desc_get(m, RODATA), 0);
	RUN(m, 0x6c);
	m_expect_fault(m, UM_VEC_GP, 0);
	/* The batch ends at the segment's limit. */
	m_prot32(m, 0);
	c->seg[UM_ES].limit = DATA_AT + 9;
	c->gpr[UM_RDI] = DATA_AT;
	c->gpr[UM_RCX] = 100;
	RUN(m, 0xf3, 0x6d);
	assert_int_equal(PIO(m)->count, 1);
}

static void outs(void **state)
{
	struct machine *m = *state;
	struct um_cpu *c = &m->x.cpu;

	m_prot32(m, 0);
	c->seg[UM_FS].base = 0x1000;
	c->gpr[UM_RDX] = 0x1f0;
	c->gpr[UM_RSI] = DATA_AT - 0x1000;
	c->gpr[UM_RCX] = 3;
	memcpy(m->mem + DATA_AT, "abcdef", 6);
	RUN(m, 0x64, 0x66, 0xf3, 0x6f); /* rep outs dx, word fs:[esi] */
	expect_request(m, 0x1f0, 2, true, 3);
	assert_memory_equal(PIO(m)->data, "abcdef", 6);
	PIO(m)->state = UM_PIO_DONE;
	RUN(m, 0x64, 0x66, 0xf3, 0x6f);
	m_expect_next(m);
	assert_int_equal(c->gpr[UM_RCX], 0);
	assert_int_equal(c->gpr[UM_RSI], DATA_AT - 0x1000 + 6);
}

/* INS into MMIO: the port's answer waits for the memory write's. */
static void ins_to_mmio(void **state)
{
	struct machine *m = *state;
	struct um_cpu *c = &m->x.cpu;

	m_prot32(m, 0);
	m->mmio = DATA_AT;
	c->gpr[UM_RDI] = DATA_AT;
	c->gpr[UM_RDX] = 0x1f0;
	c->gpr[UM_RCX] = 2;
	RUN(m, 0xf3, 0x6d);
	expect_request(m, 0x1f0, 4, false, 1);
	memcpy(PIO(m)->data, "wxyz", 4);
	PIO(m)->state = UM_PIO_DONE;
	RUN(m, 0xf3, 0x6d);
	assert_int_equal(m->x.exit.kind, UM_EXIT_MMIO);
	assert_memory_equal(m->x.exit.mmio.data, "wxyz", 4);
	um_engine_mmio_done(&m->x, NULL);
	RUN(m, 0xf3, 0x6d);
	assert_int_equal(m->x.exit.kind, UM_EXIT_NONE);
	assert_int_equal(c->gpr[UM_RCX], 1);
	assert_int_equal(PIO(m)->state, UM_PIO_IDLE);
}

static void breakpoints(void **state)
{
	struct machine *m = *state;
	struct um_cpu *c = &m->x.cpu;

	m_prot32(m, 0);
	c->dr[1] = 0x3f8;
	c->dr7 = DR7_FIXED1 | 1ull << 2 | 2ull << 20 | 1ull << 22; /* L1, I/O, two ports */
	for (unsigned de = 0; de < 2; de++)
		for (u16 port = 0x3f6; port < 0x3fc; port++) {
			c->cr4 = de ? CR4_DE : 0;
			c->rip = CODE_AT;
			c->gpr[UM_RDX] = port;
			m->x.db_hits = 0;
			RUN(m, 0xec);
			assert_int_equal(m->x.db_hits, 0);
			PIO(m)->state = UM_PIO_DONE;
			RUN(m, 0xec);
			assert_int_equal(m->x.db_hits,
					 de && (port == 0x3f8 || port == 0x3f9) ? 2 : 0);
			assert_int_equal(!!(m->x.special & UM_SPECIAL_DBHIT), !!m->x.db_hits);
			m->x.special &= ~UM_SPECIAL_DBHIT;
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		M_TEST(out_and_in),  M_TEST(foreign_answer),   M_TEST(permissions),
		M_TEST(ins_batches), M_TEST(ins_faults_first), M_TEST(outs),
		M_TEST(ins_to_mmio), M_TEST(breakpoints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

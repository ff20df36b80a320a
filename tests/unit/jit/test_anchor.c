// SPDX-License-Identifier: MIT
/*
 * One look-up for several accesses (engine/jit/anchor.c): what comes between them, and where it can't be had.
 */
#include "engine/jit/jit.h"
#include "fixture.h"

CODE64(fields, "mov eax, [rdi]\n add eax, [rdi + 8]\n mov [rdi + 16], eax\n"
	       "mov edx, [rdi + 20]\n hlt");
CODE64(taken, "mov eax, [rdi]\n mov edx, [rsi]\n mov ebx, [rdi + 8]\n hlt");
CODE64(moved, "mov eax, [rdi]\n mov edx, [rdi + 8]\n add rdi, 4096\n mov ebx, [rdi]\n"
	      "mov ecx, [rdi + 8]\n hlt");
CODE64(shifted, "mov [rdi], ecx\n shl ecx, 3\n mov [rdi], ecx\n mov edx, [rsi]\n"
		"pushfq\n pop rax\n hlt");

static struct machine *start(const u8 *code, const u8 *end)
{
	struct machine *m = machine_new_engine(UM_ENGINE_JIT);

	machine_code(m, CODE, code, end);
	return m;
}

static void run_fields(struct machine *m, gva_t where)
{
	static u32 n;

	n += 3;
	poke(m, where, 4, n);
	poke(m, where + 8, 4, 5 * n);
	poke(m, where + 20, 4, 7 * n);
	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RDI] = where;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 6 * n);
	assert_int_equal(peek(m, where + 16, 4), 6 * n);
	assert_int_equal(m->x.cpu.gpr[UM_RDX], 7 * n);
}

/* Fields on two pages: soon they don't leave translated code any more. */
static void test_crossing(void **state)
{
	struct machine *m = start(fields, fields_end);
	u64 *count = m->counters.v, slow;

	for (unsigned n = 0; n < 10; n++)
		run_fields(m, DATA + 64 * n);
	assert_int_equal(count[UM_CNT_jit_apart], 0);
	for (unsigned n = 0; n < 10; n++)
		run_fields(m, DATA + UM_PAGE_SIZE - 12);
	assert_int_equal(count[UM_CNT_jit_apart], 1);
	slow = count[UM_CNT_jit_slow];
	for (unsigned n = 0; n < 10; n++) {
		run_fields(m, DATA + UM_PAGE_SIZE - 12);
		run_fields(m, DATA);
	}
	assert_int_equal(count[UM_CNT_jit_slow], slow + 20); /* HLT */
	/* Its code changes: both are gone. */
	m->x.code_doubt = true;
	poke(m, CODE, 2, 0xf4f4);
	m->x.cpu.rip = CODE;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.rip, CODE);
	machine_free(m);
}

/* What may be read is, though it is looked up for a store that faults. */
static void test_readonly(void **state)
{
	struct machine *m = start(fields, fields_end);

	for (unsigned n = 0; n < 5; n++)
		run_fields(m, DATA);
	machine_prop(m, (DATA - MEM_BASE) >> UM_PAGE_SHIFT, P_PRESENT);
	for (unsigned n = 0; n < 10; n++) {
		poke(m, DATA, 4, n);
		m->x.cpu.rip = CODE;
		expect_fault(m, UM_VEC_PF);
		assert_int_equal(m->x.cpu.rip, CODE + 5);
		assert_int_equal(m->x.exit.exc.payload, DATA + 16);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], n + peek(m, DATA + 8, 4));
		m->x.exit.kind = UM_EXIT_NONE;
	}
	machine_free(m);
}

/* Another processor takes the page away while the interpreter executes what is between two accesses. */
static void test_taken(void **state)
{
	struct machine *m = start(taken, taken_end);

	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RSI] = DATA + UM_PAGE_SIZE;
	for (unsigned n = 0; n < 5; n++) {
		m->x.cpu.rip = CODE;
		run_to_hlt(m);
	}
	/* Of all pages only the second of the data is not in the TLB: each run is the same. */
	for (unsigned n = 0; n < 5; n++) {
		machine_prop(m, (DATA - MEM_BASE) >> UM_PAGE_SHIFT, P_PRESENT | P_WRITE);
		m->x.cpu.gpr[UM_RSI] = DATA;
		m->x.cpu.rip = CODE;
		run_to_hlt(m);
		m->x.cpu.gpr[UM_RSI] = DATA + UM_PAGE_SIZE;
		m->take_after = 1;
		m->take_page = (DATA - MEM_BASE) >> UM_PAGE_SHIFT;
		m->take_prop = 0;
		m->x.cpu.rip = CODE;
		expect_fault(m, UM_VEC_PF);
		assert_int_equal(m->x.cpu.rip, CODE + 4);
		assert_int_equal(m->x.exit.exc.payload, DATA + 8);
		m->x.exit.kind = UM_EXIT_NONE;
	}
	machine_free(m);
}

/* The register changes: what follows is another look-up. */
static void test_moved(void **state)
{
	struct machine *m = start(moved, moved_end);

	for (unsigned n = 0; n < 10; n++) {
		for (unsigned k = 0; k < 4; k++)
			poke(m, DATA + (k & 2) * UM_PAGE_SIZE / 2 + 8 * (k & 1), 4, 100 * n + k);
		m->x.cpu.gpr[UM_RDI] = DATA;
		m->x.cpu.rip = CODE;
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 100 * n);
		assert_int_equal(m->x.cpu.gpr[UM_RDX], 100 * n + 1);
		assert_int_equal(m->x.cpu.gpr[UM_RBX], 100 * n + 2);
		assert_int_equal(m->x.cpu.gpr[UM_RCX], 100 * n + 3);
	}
	machine_free(m);
}

/* Flags of a shift that the interpreter executed on the way: translated code computes them from what was shifted. */
static void test_shifted(void **state)
{
	static const struct {
		u32 v;
		u64 flags;
	} cases[] = { { 0x20000001, RFLAGS_CF },
		      { 0x10000000, RFLAGS_SF | RFLAGS_PF },
		      { 0, RFLAGS_ZF | RFLAGS_PF },
		      { 0x20000000, RFLAGS_CF | RFLAGS_ZF | RFLAGS_PF } };
	const u64 defined = RFLAGS_CF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_PF;
	struct machine *m = start(shifted, shifted_end);

	for (unsigned n = 0; n < 24; n++) {
		/* (No store to a page that is tracked goes by the TLB.) */
		machine_prop(m, (DATA - MEM_BASE) >> UM_PAGE_SHIFT,
			     P_PRESENT | P_WRITE | (n < 8 ? 0 : P_TRACKED));
		m->nwritten = 0;
		m->x.cpu.gpr[UM_RDI] = DATA;
		m->x.cpu.gpr[UM_RSI] = DATA + UM_PAGE_SIZE;
		m->x.cpu.gpr[UM_RCX] = cases[n % 4].v;
		m->x.cpu.gpr[UM_RSP] = STACK;
		m->x.cpu.rip = CODE;
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX] & defined, cases[n % 4].flags);
	}
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crossing), cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_taken),	 cmocka_unit_test(test_moved),
		cmocka_unit_test(test_shifted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Which accesses go by windows (engine/jit/window.c).
 */
#include "engine/interp/interp.h"
#include "engine/jit/jit.h"
#include "fixture.h"

/* By RSI to one page, by RDI to two in turn (which are no region: the one between is accessed never). */
CODE64(two, "1: mov eax, [rsi]\n mov edx, [rdi]\n xor edi, 8192\n add ebx, edx\n dec ecx\n jnz "
	    "1b\n ud2");

static void run_loop(struct machine *m, u32 times)
{
	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RCX] = times;
	expect_fault(m, UM_VEC_UD);
	m->x.exit.kind = UM_EXIT_NONE;
}

static struct um_jit_choice choice(struct machine *m)
{
	struct um_jit_block *b;

	m->x.cpu.rip = CODE;
	b = um_jit_find(&m->x);
	assert_non_null(b);
	return b->choice;
}

/* What a block goes through, by the number of its executions; the access that misses does without in the end. */
static void test_stages(void **state)
{
	struct machine *m = machine_new_engine(UM_ENGINE_JIT);
	const u8 prop = P_PRESENT | P_WRITE | P_USER;
	u32 sum = 0;

	for (gva_t at = CODE; at < DATA + 3 * UM_PAGE_SIZE; at += UM_PAGE_SIZE)
		machine_prop(m, (at - MEM_BASE) >> UM_PAGE_SHIFT, prop);
	load_code(m, two);
	poke(m, DATA, 4, 3);
	poke(m, DATA + 2 * UM_PAGE_SIZE, 4, 5);
	m->x.cpu.cpl = 3;
	um_sync_priv(&m->x);
	m->x.jit_threshold = 1;
	m->x.cpu.gpr[UM_RSI] = m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RBX] = 0;

	run_loop(m, 100);
	assert_int_equal(choice(m).stage, UM_JIT_NEW);
	run_loop(m, (u32)um_jit_stage(&m->x, UM_JIT_NEW));
	assert_int_equal(choice(m).stage, UM_JIT_TRIAL);
	run_loop(m, (u32)um_jit_stage(&m->x, UM_JIT_TRIAL));
	assert_int_equal(choice(m).stage, UM_JIT_SETTLED);
	assert_int_equal(choice(m).plain, BIT(1));
	assert_int_equal(m->counters.v[UM_CNT_jit_unwindowed], 1);
	sum = 100 + (u32)um_jit_stage(&m->x, UM_JIT_NEW) + (u32)um_jit_stage(&m->x, UM_JIT_TRIAL);
	assert_int_equal(m->x.cpu.gpr[UM_RBX], sum * 4);

	/* Its code changes: what comes is new. */
	m->x.code_doubt = true;
	poke(m, CODE, 2, 0x0b0f);
	run_loop(m, 1);
	assert_int_equal(m->x.cpu.gpr[UM_RBX], sum * 4);
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

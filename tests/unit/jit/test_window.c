// SPDX-License-Identifier: MIT
/*
 * What becomes of a block that is executed often: which accesses go by windows (engine/jit/window.c), which way is translated
 * (engine/jit/path.c).
 */
#include "engine/interp/interp.h"
#include "engine/jit/jit.h"
#include "fixture.h"

/* By RSI to one page, by RDI to two in turn (which are no region: the one between is accessed never). */
CODE64(two, "1: mov eax, [rsi]\n mov edx, [rdi]\n xor edi, 8192\n add ebx, edx\n dec ecx\n jnz "
	    "1b\n ud2");

/* A jump that is taken, or not, as RSI says. */
CODE64(ways,
       "1: cmp esi, 1\n je 2f\n add eax, 100\n 2: inc eax\n jmp 3f\n add eax, 1000\n 3: dec ecx\n"
       "jnz 1b\n ud2");

/* A jump that truncates EIP. */
CODE32(truncating, "cmp esi, 1\n .byte 0x66, 0xeb, 0x01\n nop\n ud2");

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

static struct machine *new_user(const u8 *code, const u8 *end)
{
	struct machine *m = machine_new_engine(UM_ENGINE_JIT);
	const u8 prop = P_PRESENT | P_WRITE | P_USER;

	for (gva_t at = CODE; at < DATA + 3 * UM_PAGE_SIZE; at += UM_PAGE_SIZE)
		machine_prop(m, (at - MEM_BASE) >> UM_PAGE_SHIFT, prop);
	machine_code(m, CODE, code, end);
	m->x.cpu.cpl = 3;
	um_sync_priv(&m->x);
	m->x.jit_threshold = 1;
	return m;
}

static u32 stage(const struct machine *m, enum um_jit_stage stage)
{
	return (u32)um_jit_stage(&m->x, stage);
}

/* What a block goes through, by the number of its executions; the access that misses does without in the end. */
static void test_stages(void **state)
{
	struct machine *m = new_user(two, two_end);
	u32 sum = 0;

	poke(m, DATA, 4, 3);
	poke(m, DATA + 2 * UM_PAGE_SIZE, 4, 5);
	m->x.cpu.gpr[UM_RSI] = m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RBX] = 0;

	run_loop(m, 100);
	assert_int_equal(choice(m).stage, UM_JIT_NEW);
	run_loop(m, stage(m, UM_JIT_NEW));
	assert_int_equal(choice(m).stage, UM_JIT_TRIAL);
	run_loop(m, stage(m, UM_JIT_TRIAL));
	assert_int_equal(choice(m).stage, UM_JIT_SETTLED);
	assert_int_equal(choice(m).plain, BIT(1));
	assert_int_equal(m->counters.v[UM_CNT_jit_unwindowed], 1);
	sum = 100 + stage(m, UM_JIT_NEW) + stage(m, UM_JIT_TRIAL);
	assert_int_equal(m->x.cpu.gpr[UM_RBX], sum * 4);

	/* Its code changes: what comes is new. */
	m->x.code_doubt = true;
	poke(m, CODE, 2, 0x0b0f);
	run_loop(m, 1);
	assert_int_equal(m->x.cpu.gpr[UM_RBX], sum * 4);
	machine_free(m);
}

/* A jump that is mostly taken is followed, and so is one without a condition; and what is left out is there when it is wanted. */
static void test_path(void **state)
{
	struct machine *m = new_user(ways, ways_end);
	u32 n = stage(m, UM_JIT_NEW) + 100;

	m->x.cpu.gpr[UM_RSI] = 1;
	m->x.cpu.gpr[UM_RAX] = 0;
	run_loop(m, n);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], n);
	assert_int_equal(choice(m).followed, BIT(1) | BIT(3));
	m->x.cpu.gpr[UM_RSI] = 0;
	m->x.cpu.gpr[UM_RAX] = 0;
	run_loop(m, 1000);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 1000 * 101);
	/* In the other case from the start: only the jump without a condition. */
	um_jit_flush(&m->x);
	m->x.cpu.gpr[UM_RAX] = 0;
	run_loop(m, n);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], n * 101);
	assert_int_equal(choice(m).followed, BIT(4));
	/* The code changes. */
	m->x.code_doubt = true;
	poke(m, CODE + 7, 1, 50); /* what is added */
	m->x.cpu.gpr[UM_RAX] = 0;
	run_loop(m, 10);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 10 * 51);
	machine_free(m);
}

/* What isn't translated isn't followed, either. */
static void test_not_followed(void **state)
{
	struct machine *m = new_user(truncating, truncating_end);

	machine_mode(m, UM_MODE_32);
	m->x.cpu.cpl = 3;
	um_sync_priv(&m->x);
	for (u32 n = 0; n < stage(m, UM_JIT_NEW) + stage(m, UM_JIT_TRIAL) + 100; n++) {
		m->x.cpu.rip = CODE;
		expect_fault(m, UM_VEC_PF);
		assert_int_equal(m->x.cpu.rip, (CODE + 7) & 0xffff);
		m->x.exit.kind = UM_EXIT_NONE;
	}
	assert_true(m->counters.v[UM_CNT_jit_dropped] > 0); /* (It was translated again.) */
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stages),
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_not_followed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

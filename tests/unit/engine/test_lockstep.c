// SPDX-License-Identifier: MIT
/*
 * The engine "lockstep" itself: it executes as others do, takes back what it must, and finds what
 * differs.
 */
#include "engine/jit/jit.h"
#include "fixture.h"

CODE64(sums, "1: mov eax, [rdi]\n add [rdi+8], rax\n push rax\n pop rbx\n imul ebx, ebx, 3\n add "
	     "rdx, rbx\n"
	     "dec ecx\n jnz 1b\n hlt");
CODE64(to_device, "mov eax, [rdi]\n add eax, 1\n mov [rdi], eax\n hlt");
CODE64(reads_on, "1: mov [rdi], ecx\n mov eax, [rsi]\n add rsi, 512\n inc ecx\n jmp 1b");
CODE64(changes_code, "1: inc byte ptr [rip+2f+1]\n 2: mov al, 0\n movzx eax, al\n add edx, eax\n "
		     "dec ecx\n jnz 1b\n hlt");
CODE64(walks, "1: mov rax, [rsp+0x54]\n xor edx, edx\n mov [rsp+0x10], edx\n 2: test rax, rax\n jz "
	      "3f\n inc dword ptr "
	      "[rsp+0x10]\n mov rax, [rax]\n jmp 2b\n 3: dec ecx\n jnz 1b\n hlt");
CODE64(counts, "1: add rax, 5\n mov [rdi], rax\n dec ecx\n jnz 1b\n hlt");

static int setup(void **state)
{
	*state = machine_new_engine(UM_ENGINE_LOCKSTEP);
	return 0;
}

static int teardown(void **state)
{
	machine_free(*state);
	return 0;
}

static void test_plain(void **state)
{
	struct machine *m = *state;

	poke(m, DATA, 8, 7);
	poke(m, DATA + 8, 8, 0);
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RCX] = 100;
	load_code(m, sums);
	run_to_hlt(m);
	assert_int_equal(peek(m, DATA + 8, 8), 700);
	assert_int_equal(m->x.cpu.gpr[UM_RDX], 2100);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK);
	assert_in_range(m->counters.v[UM_CNT_lockstep_blocks], 90, 200);
}

/* Accesses of devices are made once. */
static void test_device(void **state)
{
	struct machine *m = *state;

	machine_prop(m, 8, P_PRESENT | P_WRITE | P_MMIO);
	m->x.cpu.gpr[UM_RDI] = DATA;
	for (unsigned round = 0; round < 3; round++) {
		u32 v = 41 + round;

		load_code(m, to_device);
		assert_int_equal(machine_run(m), UM_EXIT_MMIO);
		assert_false(m->x.exit.mmio.write);
		um_engine_mmio_done(&m->x, &v);
		assert_int_equal(machine_run(m), UM_EXIT_MMIO);
		assert_true(m->x.exit.mmio.write);
		assert_int_equal(m->x.exit.mmio.data[0], v + 1);
		um_engine_mmio_done(&m->x, NULL);
		run_to_hlt(m);
	}
}

/* A fault in the midst of a block, with stores before it. */
static void test_fault(void **state)
{
	struct machine *m = *state;

	machine_prop(m, 11, 0);
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RSI] = PAGE(9);
	load_code(m, reads_on);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.payload, PAGE(11));
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 2 * 8);
	assert_int_equal(peek(m, DATA, 4), 2 * 8);
	assert_true(m->counters.v[UM_CNT_lockstep_blocks] > 10);
}

/*
 * Accesses that are looked up at once cross a page.  The other translation, in which each is by itself, is gone by the time that it is needed:
 * so the interpreter executes the rest of the block, over its conditional jump.
 */
static void test_crossing(void **state)
{
	struct machine *m = *state;
	struct um_jit_block *b, *apart;

	for (unsigned n = 0; n < 3; n++)
		poke(m, DATA + 16 * n, 8, n < 2 ? DATA + 16 * n + 16 : 0);
	m->x.cpu.gpr[UM_RSP] = PAGE(9) - 0x20;
	poke(m, PAGE(9) - 0x20 + 0x54, 8, DATA);
	for (unsigned n = 0; n < 3; n++) {
		m->x.cpu.gpr[UM_RCX] = 10;
		load_code(m, walks);
		run_to_hlt(m);
		assert_int_equal(peek(m, PAGE(9) - 0x10, 4), 3);

		m->x.cpu.rip = CODE;
		um_exec_sync(&m->x);
		b = um_jit_find(&m->x);
		assert_non_null(b);
		assert_in_range(b->nanchors, 1, 2);
		apart = um_jit_lookup(m->x.translator, b->hva, b->key | UM_JIT_KEY_APART);
		assert_non_null(apart);
		um_jit_drop(&m->x, apart);
	}
}

static void test_self_modifying(void **state)
{
	struct machine *m = *state;

	m->x.cpu.gpr[UM_RCX] = 10;
	load_code(m, changes_code);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RDX], 55);
}

/* The interpreter's side of a block is made to do something else. */
static void test_difference(void **state)
{
	struct machine *m = *state;
	struct um_jit_block *b;

	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RCX] = 10;
	load_code(m, counts);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 50);

	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RCX] = 10;
	um_exec_sync(&m->x);
	b = um_jit_find(&m->x);
	assert_non_null(b);
	((struct um_insn *)um_jit_insn(&m->x, b, 0))->imm = 6;
	assert_int_equal(machine_run(m), UM_EXIT_INTERNAL);
	/* Nothing of the block is done. */
	assert_int_equal(m->x.cpu.rip, CODE);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 50);
	assert_int_equal(peek(m, DATA, 8), 50);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_plain),	  T(test_device),	  T(test_fault),
		T(test_crossing), T(test_self_modifying), T(test_difference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

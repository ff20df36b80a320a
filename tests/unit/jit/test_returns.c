// SPDX-License-Identifier: MIT
/*
 * Return addresses on the host's stack (engine/jit/branch.c): they outlive exits from translated code, but not the code that they lead to,
 * nor its place in the address space.
 */
#include "engine/jit/jit.h"
#include "fixture.h"

#define CALLEE PAGE(2)
#define TIMES  50

/* FNOP is left to the interpreter.  CALLEE - CODE is 1000h; the call site is at offset 0 of its page. */
CODE64(calls, "1: .byte 0xe8; .long 0x1000 - 5\n add eax, 1\n dec ecx\n jnz 1b\n hlt");
CODE64(near, "1: call 2f\n add eax, 1\n dec ecx\n jnz 1b\n hlt\n 2: fnop\n fnop\n ret");
CODE64(leaves, "fnop\n fnop\n ret");
CODE64(nested, "call 1f\n add eax, 1\n ret\n 1: fnop\n call 2f\n ret\n 2: fnop\n ret");
CODE64(writes, "mov [rdi], cl\n ret");
CODE64(reads, "add rbx, rsi\n mov edx, [rbx]\n mov r8, [rsp]\n fnop\n mov r8, [rsp]\n fnop\n ret");
CODE64(walks, "1: add rbx, rsi\n mov edx, [rbx]\n .byte 0xe8; .long 0x1000 - 10\n add eax, 1\n dec "
	      "ecx\n jnz 1b\n hlt");
CODE64(reloads, "mov rdx, cr3\n mov cr3, rdx\n ret");
CODE64(pops, "fnop\n add rsp, 8\n add rbp, 1\n jmp rsi");
CODE64(lies, "mov [rsp], rsi\n fnop\n ret");

#define SITE (CODE + 5) /* behind the CALL */

static struct machine *new_machine(const u8 *callee, const u8 *end)
{
	struct machine *m = machine_new_engine(UM_ENGINE_JIT);

	machine_code(m, CALLEE, callee, end);
	load_code(m, calls);
	m->x.cpu.gpr[UM_RSP] = STACK;
	m->x.cpu.gpr[UM_RBX] = DATA;
	m->x.cpu.gpr[UM_RDI] = SITE + 2;
	return m;
}
#define NEW_MACHINE(callee) new_machine(callee, callee##_end)

static u64 run_times(struct machine *m, u64 n)
{
	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RAX] = 0;
	m->x.cpu.gpr[UM_RCX] = n;
	run_to_hlt(m);
	return m->x.cpu.gpr[UM_RAX];
}

/* The entry of the jump cache that would be made or renewed if @lin were looked up; NULL: there is none. */
static struct um_jump *entry_of(const struct machine *m, gva_t lin)
{
	struct um_jit *j = m->x.translator;

	for (unsigned n = 0; n < ARRAY_SIZE(j->jump); n++) {
		if (j->jump[n].lin == lin)
			return &j->jump[n];
	}
	return NULL;
}

/* Nothing that returned was looked up, though translated code was left before each return. */
static void test_exit(void **state)
{
	struct machine *m = NEW_MACHINE(leaves);
	u64 *count = m->counters.v, slow;
	struct um_jump *e;

	load_code(m, near);
	assert_int_equal(run_times(m, TIMES), TIMES);
	e = entry_of(m, SITE); /* from the first times */
	assert_non_null(e);
	e->stamp = 0;
	slow = count[UM_CNT_jit_slow];
	assert_int_equal(run_times(m, TIMES), TIMES);
	assert_in_range(count[UM_CNT_jit_slow] - slow, 2 * TIMES, 3 * TIMES - 1); /* and no RET */
	assert_int_equal(e->lin, SITE);
	assert_int_equal(e->stamp, 0);
	machine_free(m);
}

static void test_nested(void **state)
{
	struct machine *m = NEW_MACHINE(nested);

	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(run_times(m, TIMES), 2 * TIMES);
	machine_free(m);
}

/* The callee writes what is behind the call: ADD's operand, the low byte of the counter. */
static void test_written(void **state)
{
	struct machine *m = NEW_MACHINE(writes);

	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(run_times(m, TIMES), TIMES * (TIMES + 1) / 2);
	machine_free(m);
}

/* While the callee waits for its data, for the 20th time, the caller's page is taken away. */
static void test_taken(void **state)
{
	struct machine *m = NEW_MACHINE(reads);
	u8 prop = m->prop[1];

	m->precise = true; /* so RET's own look-up succeeds */
	for (unsigned n = 0; n < 3; n++) {
		machine_prop(m, 1, prop);
		m->x.cpu.gpr[UM_RBX] = PAGE(9 + n);
		m->x.cpu.gpr[UM_RSI] = 0;
		assert_int_equal(run_times(m, TIMES), TIMES);
		m->x.cpu.rip = CODE;
		m->x.cpu.gpr[UM_RAX] = 0;
		m->x.cpu.gpr[UM_RCX] = TIMES;
		m->x.cpu.gpr[UM_RBX] =
			PAGE(10 + n) - 8 * 20ull; /* the 20th access is not the TLB's */
		m->x.cpu.gpr[UM_RSI] = 8;
		m->take_after = 1;
		m->take_page = 1;
		m->take_prop = prop | P_NOEXEC;
		expect_fault(m, UM_VEC_PF);
		assert_int_equal(m->x.cpu.rip, SITE);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 19);
		assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK);
	}
	machine_free(m);
}

/*
 * The caller's page is taken away while the caller itself waits for its data; and its callee, which flushes nothing, should then not find its
 * way back.
 */
static void test_taken_before(void **state)
{
	struct machine *m = NEW_MACHINE(reloads);

	m->precise = true;
	m->x.jit_threshold = 4;
	load_code(m, walks);
	m->x.cpu.gpr[UM_RBX] = PAGE(9);
	m->x.cpu.gpr[UM_RSI] = 0;
	for (unsigned n = 0; n < 4; n++)
		run_times(m, 20000);
	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RAX] = 0;
	m->x.cpu.gpr[UM_RCX] = 300;
	m->x.cpu.gpr[UM_RBX] = PAGE(10) - 8 * 200ull; /* the 200th access is not the TLB's */
	m->x.cpu.gpr[UM_RSI] = 8;
	m->take_after = 1;
	m->take_page = 1;
	m->take_prop = m->prop[1] | P_NOEXEC;
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 199);
	machine_free(m);
}

/* A callee that doesn't return, but goes to where its caller would be. */
static void test_popped(void **state)
{
	struct machine *m = NEW_MACHINE(pops);

	m->x.cpu.gpr[UM_RSI] = SITE;
	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(run_times(m, 1000), 1000);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK);
	machine_free(m);
}

/*
 * A callee that returns to what it likes: to addresses of the host's that are on the host's stack, too.  (A return address that the guest
 * made up must never be matched by them.)
 */
static void test_made_up(void **state)
{
	struct machine *m = NEW_MACHINE(lies);
	const struct um_arena_code *a = um_arena_code();
	const u64 lie[] = { (u64)a->no_return, (u64)a->leave, 0, (u64)m->x.jit.sp, ~0ull };

	for (unsigned n = 0; n < ARRAY_SIZE(lie); n++) {
		m->x.cpu.gpr[UM_RSI] = SITE;
		assert_int_equal(run_times(m, TIMES), TIMES);
		m->x.cpu.rip = CODE;
		m->x.cpu.gpr[UM_RSI] = lie[n];
		assert_int_equal(machine_run(m), UM_EXIT_EXCEPTION);
		m->x.cpu.gpr[UM_RSP] = STACK;
	}
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit),	     cmocka_unit_test(test_nested),
		cmocka_unit_test(test_written),	     cmocka_unit_test(test_taken),
		cmocka_unit_test(test_taken_before), cmocka_unit_test(test_popped),
		cmocka_unit_test(test_made_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

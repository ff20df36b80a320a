// SPDX-License-Identifier: MIT
/*
 * Locked instructions of two processors on the same memory: nothing may get lost, within a page,
 * across two pages (under the VM's lock), and for every size.
 */
#include "fixture.h"

#define ROUNDS 100000ull

CODE64(lock_inc, "1: lock inc dword ptr [rdi]\n dec rcx\n jnz 1b\n hlt");
CODE64(lock_add1, "1: lock add byte ptr [rdi], 1\n dec rcx\n jnz 1b\n hlt");
CODE64(lock_adc2, "1: clc\n lock adc word ptr [rdi], 1\n dec rcx\n jnz 1b\n hlt");
CODE64(lock_xadd, "1: mov eax, 1\n lock xadd [rdi], rax\n dec rcx\n jnz 1b\n hlt");
CODE64(lock_cmpxchg, "1: mov rax, [rdi]\n 2: lea rdx, [rax+1]\n lock cmpxchg [rdi], rdx\n jnz 2b\n"
		     "dec rcx\n jnz 1b\n hlt");
CODE64(lock_cmpxchg16, "1: mov rax, [rdi]\n mov rdx, [rdi+8]\n"
		       "2: mov rbx, rax\n mov rsi, rcx\n mov rcx, rdx\n add rbx, 1\n adc rcx, 0\n"
		       "lock cmpxchg16b [rdi]\n mov rcx, rsi\n jnz 2b\n dec rcx\n jnz 1b\n hlt");
/* A spin lock around a plain increment. */
CODE64(xchg_lock, "1: mov eax, 1\n 2: xchg eax, [rdi+8]\n test eax, eax\n jnz 2b\n"
		  "inc qword ptr [rdi]\n mov dword ptr [rdi+8], 0\n dec rcx\n jnz 1b\n hlt");
/* Two bits of one byte, toggled by one processor each. */
CODE64(lock_btc, "1: lock btc dword ptr [rdi], edx\n jc 3f\n lock btc [rdi], edx\n jnc 3f\n"
		 "dec rcx\n jnz 1b\n hlt\n 3: ud2");
CODE64(lock_not, "1: lock not qword ptr [rdi]\n dec rcx\n jnz 1b\n hlt");

struct cpu {
	struct machine *m;
	enum um_exit_kind result;
};

static void *run(void *arg)
{
	struct cpu *c = arg;

	c->result = um_engine_run(&c->m->x);
	return NULL;
}

static struct machine *ma, *mb;

static void both(const u8 *code, const u8 *end, gva_t operand)
{
	struct cpu cpu[2] = { { ma, 0 }, { mb, 0 } };
	pthread_t t[2];

	for (unsigned k = 0; k < 2; k++) {
		machine_code(cpu[k].m, CODE, code, end);
		cpu[k].m->x.cpu.gpr[UM_RDI] = operand;
		cpu[k].m->x.cpu.gpr[UM_RCX] = ROUNDS;
		cpu[k].m->x.cpu.gpr[UM_RDX] = k;
	}
	for (unsigned k = 0; k < 2; k++)
		assert_int_equal(pthread_create(&t[k], NULL, run, &cpu[k]), 0);
	for (unsigned k = 0; k < 2; k++) {
		pthread_join(t[k], NULL);
		assert_int_equal(cpu[k].result, UM_EXIT_HLT);
	}
}

#define BOTH(name, operand) both(name, name##_end, operand)

static void test_locked(void **state)
{
	u64 *p = (u64 *)at(ma, DATA + 64);

	memset(p, 0, 16);
	BOTH(lock_inc, DATA + 64);
	assert_int_equal(*p, 2 * ROUNDS);
	*p = 0;
	BOTH(lock_add1, DATA + 64);
	assert_int_equal(*p, (u8)(2 * ROUNDS));
	*p = 0;
	BOTH(lock_adc2, DATA + 64);
	assert_int_equal(*p, (u16)(2 * ROUNDS));
	*p = 0;
	BOTH(lock_xadd, DATA + 64);
	assert_int_equal(*p, 2 * ROUNDS);
	BOTH(lock_cmpxchg, DATA + 64);
	assert_int_equal(*p, 4 * ROUNDS);
	p[0] = ~0ull - 1000;
	p[1] = 0;
	BOTH(lock_cmpxchg16, DATA + 64);
	assert_int_equal(p[0], 2 * ROUNDS - 1001);
	assert_int_equal(p[1], 1);
	p[0] = p[1] = 0;
	BOTH(xchg_lock, DATA + 64);
	assert_int_equal(p[0], 2 * ROUNDS);
	p[0] = 0;
	BOTH(lock_btc, DATA + 64);
	assert_int_equal(p[0], 0);
	BOTH(lock_not, DATA + 64);
	assert_int_equal(p[0], 0);
}

static void test_crossing(void **state)
{
	const gva_t edge = PAGE(9) - 3;

	poke(ma, edge, 8, 0);
	BOTH(lock_inc, edge);
	assert_int_equal(peek(ma, edge, 4), 2 * ROUNDS);
	poke(ma, edge, 8, 0);
	BOTH(lock_xadd, edge);
	assert_int_equal(peek(ma, edge, 8), 2 * ROUNDS);
	BOTH(lock_cmpxchg, edge);
	assert_int_equal(peek(ma, edge, 8), 4 * ROUNDS);
}

/* Locked stores to tracked pages are reported, too. */
static void test_tracked(void **state)
{
	ma->nwritten = 0;
	machine_prop(ma, 8, P_PRESENT | P_WRITE | P_TRACKED);
	machine_code(ma, CODE, lock_inc, lock_inc_end);
	ma->x.cpu.gpr[UM_RDI] = DATA + 64;
	ma->x.cpu.gpr[UM_RCX] = 5;
	assert_int_equal(machine_run(ma), UM_EXIT_HLT);
	assert_int_equal(ma->nwritten, 5);
	machine_prop(ma, 8, P_PRESENT | P_WRITE);
}

static pthread_mutex_t split = PTHREAD_MUTEX_INITIALIZER;
static struct um_lockstep_queue turns = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0,
					  0 };

static int setup(void **state)
{
	ma = machine_new();
	mb = machine_new();
	/* The second processor sees the first one's memory. */
	mb->mem = ma->mem;
	ma->x.split_lock = mb->x.split_lock = &split;
	ma->x.lockstep_queue = mb->x.lockstep_queue = &turns;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_locked),
		cmocka_unit_test(test_crossing),
		cmocka_unit_test(test_tracked),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}

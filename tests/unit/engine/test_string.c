// SPDX-License-Identifier: MIT
/*
 * String instructions: against a model that does one element after the other, over overlaps,
 * directions, sizes and page boundaries; and what happens when one is interrupted.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "fixture.h"

static int setup(void **state)
{
	*state = machine_new();
	return 0;
}
static int teardown(void **state)
{
	machine_free(*state);
	return 0;
}

CODE64(rep_movsb, "rep movsb\n hlt");
CODE64(rep_movsw, "rep movsw\n hlt");
CODE64(rep_movsd, "rep movsd\n hlt");
CODE64(rep_movsq, "rep movsq\n hlt");
CODE64(rep_stosb, "rep stosb\n hlt");
CODE64(rep_stosw, "rep stosw\n hlt");
CODE64(rep_stosd, "rep stosd\n hlt");
CODE64(rep_stosq, "rep stosq\n hlt");
CODE64(rep_lodsd, "rep lodsd\n hlt");
CODE64(repe_cmpsb, "repe cmpsb\n hlt");
CODE64(repne_scasb, "repne scasb\n hlt");
CODE64(repe_scasq, "repe scasq\n hlt");
CODE64(rep_movsb_32, "rep movsb byte ptr [edi], byte ptr [esi]\n hlt");
CODE64(movsq_fs, ".byte 0x64, 0x48, 0xa5\n hlt");
CODE16(rep_movsb_16, "rep movsb\n hlt");
CODE16(rep_stosw_16, "rep stosw\n hlt");

static const struct {
	const u8 *code, *end;
	unsigned size;
	bool stos;
} copies[] = {
#define R(n, s, st)               \
	{                         \
		n, n##_end, s, st \
	}
	R(rep_movsb, 1, false), R(rep_movsw, 2, false), R(rep_movsd, 4, false),
	R(rep_movsq, 8, false), R(rep_stosb, 1, true),	R(rep_stosw, 2, true),
	R(rep_stosd, 4, true),	R(rep_stosq, 8, true),
};

static void model(u8 *mem, u64 dst, u64 src, u64 n, unsigned size, bool stos, bool down, u64 rax)
{
	while (n--) {
		u8 v[8];

		memcpy(v, stos ? (u8 *)&rax : mem + src, size);
		memcpy(mem + dst, v, size);
		dst += down ? -(u64)size : size;
		src += down ? -(u64)size : size;
	}
}

static void test_against_model(void **state)
{
	struct machine *m = *state;
	static u8 expected[MEM_SIZE];
	const u64 lo = DATA - MEM_BASE, span = 3 * UM_PAGE_SIZE;

	for (unsigned round = 0; round < 4000; round++) {
		unsigned k = (unsigned)random() % ARRAY_SIZE(copies), size = copies[k].size;
		u64 n = (u64)random() % (round & 1 ? 20 : 1200 / size), bytes = n * size;
		bool down = random() & 1;
		u64 room = span - bytes, src, dst, last = n ? bytes - size : 0;
		u64 rax = random() & 1 ? 0x4242424242424242 : (u64)random() << 32 | (u64)random();

		src = lo + (u64)random() % room;
		/* Half of them overlap, often by little. */
		dst = round & 2 ? lo + (u64)random() % room : src + (u64)(random() % 33) - 16;
		if (dst < lo || dst + bytes > lo + span)
			dst = lo;
		for (unsigned b = 0; b < span; b++)
			m->mem[lo + b] = (u8)random();
		memcpy(expected, m->mem, MEM_SIZE);
		m->no_tlb = !(round % 7);
		machine_prop(m, 9,
			     round % 5 ? P_PRESENT | P_WRITE : P_PRESENT | P_WRITE | P_TRACKED);
		/* (Each at a place of its own: what is executed often enough is translated.) */
		machine_code(m, CODE + 16 * k, copies[k].code, copies[k].end);
		memcpy(expected + CODE + 16 * k - MEM_BASE, copies[k].code,
		       (size_t)(copies[k].end - copies[k].code));
		m->x.cpu.gpr[UM_RSI] = MEM_BASE + src + (down ? last : 0);
		m->x.cpu.gpr[UM_RDI] = MEM_BASE + dst + (down ? last : 0);
		m->x.cpu.gpr[UM_RCX] = n;
		m->x.cpu.gpr[UM_RAX] = rax;
		m->x.cpu.rflags = RFLAGS_FIXED1 | (down ? RFLAGS_DF : 0);
		model(expected, dst + (down ? last : 0), src + (down ? last : 0), n, size,
		      copies[k].stos, down, rax);
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RCX], 0);
		assert_int_equal(m->x.cpu.gpr[UM_RDI],
				 MEM_BASE + dst + (down ? last - bytes : bytes));
		if (!copies[k].stos)
			assert_int_equal(m->x.cpu.gpr[UM_RSI],
					 MEM_BASE + src + (down ? last - bytes : bytes));
		assert_memory_equal(m->mem + lo, expected + lo, span);
	}
}

/* A fault in the middle: registers say how far it came, and it goes on from there. */
static void test_fault(void **state)
{
	struct machine *m = *state;

	for (unsigned k = 0; k < ARRAY_SIZE(copies); k++) {
		unsigned size = copies[k].size;

		for (unsigned skew = 0; skew < size; skew += size - 1 ? size - 1 : 1) {
			u64 before = (64 - skew) / size;

			machine_prop(m, 12, 0);
			memset(at(m, DATA), 0x5a, UM_PAGE_SIZE);
			memset(at(m, PAGE(11)), 0, 2 * UM_PAGE_SIZE);
			machine_code(m, CODE, copies[k].code, copies[k].end);
			m->x.cpu.gpr[UM_RAX] = 0x5a5a5a5a5a5a5a5a;
			m->x.cpu.gpr[UM_RSI] = DATA;
			m->x.cpu.gpr[UM_RDI] = PAGE(12) - 64 + skew;
			m->x.cpu.gpr[UM_RCX] = 100;
			expect_fault(m, UM_VEC_PF);
			assert_int_equal(m->x.cpu.rip, CODE);
			assert_int_equal(m->x.cpu.gpr[UM_RCX], 100 - before);
			assert_int_equal(m->x.cpu.gpr[UM_RDI],
					 PAGE(12) - 64 + skew + before * size);
			/* The element that crosses stored nothing. */
			for (u64 a = PAGE(12) - 64 + skew + before * size; a < PAGE(12); a++)
				assert_int_equal(*at(m, a), 0);
			machine_prop(m, 12, P_PRESENT | P_WRITE);
			run_to_hlt(m);
			assert_int_equal(m->x.cpu.gpr[UM_RCX], 0);
			for (u64 b = 0; b < 100 * size; b++)
				assert_int_equal(*at(m, PAGE(12) - 64 + skew + b), 0x5a);
			if (size == 1)
				break;
		}
	}
}

static void test_compare(void **state)
{
	struct machine *m = *state;

	memset(at(m, DATA), 'a', 256);
	memset(at(m, PAGE(10)), 'a', 256);
	*at(m, DATA + 100) = 'b';
	load_code(m, repe_cmpsb);
	m->x.cpu.gpr[UM_RSI] = DATA;
	m->x.cpu.gpr[UM_RDI] = PAGE(10);
	m->x.cpu.gpr[UM_RCX] = 200;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 99);
	assert_int_equal(m->x.cpu.gpr[UM_RSI], DATA + 101);
	assert_int_equal(m->x.cpu.rflags & (RFLAGS_ZF | RFLAGS_CF), 0); /* 'b' > 'a' */

	load_code(m, repne_scasb);
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RCX] = ~0ull;
	m->x.cpu.gpr[UM_RAX] = 'b';
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RDI], DATA + 101);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], ~0ull - 101);
	assert_true(m->x.cpu.rflags & RFLAGS_ZF);

	load_code(m, repe_scasq);
	m->x.cpu.gpr[UM_RDI] = PAGE(10);
	m->x.cpu.gpr[UM_RCX] = 10;
	m->x.cpu.gpr[UM_RAX] = 0x6161616161616161;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0);
	assert_true(m->x.cpu.rflags & RFLAGS_ZF);

	/* A count of 0 does nothing, flags included. */
	load_code(m, repe_cmpsb);
	m->x.cpu.gpr[UM_RCX] = 0;
	m->x.cpu.gpr[UM_RSI] = 0;
	m->x.cpu.rflags = RFLAGS_FIXED1 | RFLAGS_CF;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.rflags, RFLAGS_FIXED1 | RFLAGS_CF);

	load_code(m, rep_lodsd);
	for (unsigned k = 0; k < 8; k++)
		((u32 *)at(m, DATA))[k] = k + 100;
	m->x.cpu.gpr[UM_RSI] = DATA;
	m->x.cpu.gpr[UM_RCX] = 8;
	m->x.cpu.gpr[UM_RAX] = ~0ull;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 107);
}

/* 32-bit addresses in 64-bit mode zero-extend; 16-bit ones wrap. */
static void test_address_size(void **state)
{
	struct machine *m = *state;

	memcpy(at(m, DATA), "hello", 5);
	load_code(m, rep_movsb_32);
	m->x.cpu.gpr[UM_RSI] = 0xdead00000000 | DATA;
	m->x.cpu.gpr[UM_RDI] = 0xdead00000000 | PAGE(10);
	m->x.cpu.gpr[UM_RCX] = 0xdead00000005;
	run_to_hlt(m);
	assert_memory_equal(at(m, PAGE(10)), "hello", 5);
	assert_int_equal(m->x.cpu.gpr[UM_RSI], DATA + 5);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0);

	m->x.cpu.seg[UM_FS].base = DATA;
	*(u64 *)at(m, DATA + 64) = 4711;
	load_code(m, movsq_fs);
	m->x.cpu.gpr[UM_RSI] = 64;
	m->x.cpu.gpr[UM_RDI] = PAGE(10);
	run_to_hlt(m);
	assert_int_equal(*(u64 *)at(m, PAGE(10)), 4711);

	machine_mode(m, UM_MODE_REAL);
	memcpy(at(m, MEM_BASE + 0xfffe), "xy", 2);
	memcpy(at(m, MEM_BASE), "zw", 2);
	load_code(m, rep_movsb_16);
	m->x.cpu.gpr[UM_RSI] = 0x5555fffe;
	m->x.cpu.gpr[UM_RDI] = DATA - MEM_BASE;
	m->x.cpu.gpr[UM_RCX] = 0x77770004;
	run_to_hlt(m);
	assert_memory_equal(at(m, DATA), "xyzw", 4);
	assert_int_equal(m->x.cpu.gpr[UM_RSI], 0x55550002);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0x77770000);
	/* Downwards, too. */
	memcpy(at(m, MEM_BASE + 0xfffe), "xy", 2);
	memcpy(at(m, MEM_BASE), "zw", 2);
	load_code(m, rep_movsb_16);
	m->x.cpu.gpr[UM_RSI] = 0x55550001;
	m->x.cpu.gpr[UM_RDI] = DATA - MEM_BASE + 13;
	m->x.cpu.gpr[UM_RCX] = 0x77770004;
	m->x.cpu.rflags |= RFLAGS_DF;
	run_to_hlt(m);
	assert_memory_equal(at(m, DATA + 10), "xyzw", 4);
	assert_int_equal(m->x.cpu.gpr[UM_RSI], 0x5555fffd);
	m->x.cpu.rflags &= ~RFLAGS_DF;
	/* A word at offset ffff is beyond the limit: the words before it are stored. */
	load_code(m, rep_stosw_16);
	m->x.cpu.gpr[UM_RDI] = 0xfffb;
	m->x.cpu.gpr[UM_RCX] = 4;
	m->x.cpu.gpr[UM_RAX] = 0x3131;
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 2);
	assert_int_equal(m->x.cpu.gpr[UM_RDI], 0xffff);
}

/* To and from a device: one exit an element, each finished before the next. */
static void test_mmio(void **state)
{
	struct machine *m = *state;
	u32 answer;

	machine_prop(m, 10, P_PRESENT | P_WRITE | P_MMIO);
	load_code(m, rep_movsd);
	m->x.cpu.gpr[UM_RSI] = PAGE(10);
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RCX] = 3;
	for (unsigned k = 0; k < 3; k++) {
		assert_int_equal(machine_run(m), UM_EXIT_MMIO);
		assert_int_equal(m->x.exit.mmio.gpa, PAGE(10) + 4 * k);
		assert_int_equal(m->x.cpu.gpr[UM_RCX], 3 - k);
		answer = 1000 + k;
		um_engine_mmio_done(&m->x, &answer);
		if (k == 1) { /* asked to finish the element alone */
			assert_int_equal(um_engine_complete_io(&m->x), UM_EXIT_KICK);
			assert_int_equal(m->x.cpu.rip, CODE);
			assert_int_equal(m->x.cpu.gpr[UM_RCX], 1);
		}
	}
	run_to_hlt(m);
	for (unsigned k = 0; k < 3; k++)
		assert_int_equal(((u32 *)at(m, DATA))[k], 1000 + k);

	load_code(m, rep_stosd);
	m->x.cpu.gpr[UM_RDI] = PAGE(10) - 4;
	m->x.cpu.gpr[UM_RCX] = 3;
	m->x.cpu.gpr[UM_RAX] = 42;
	for (unsigned k = 0; k < 2; k++) {
		assert_int_equal(machine_run(m), UM_EXIT_MMIO);
		assert_true(m->x.exit.mmio.write);
		assert_int_equal(m->x.exit.mmio.gpa, PAGE(10) + 4 * k);
		um_engine_mmio_done(&m->x, NULL);
	}
	run_to_hlt(m);
	assert_int_equal(*(u32 *)at(m, PAGE(10) - 4), 42);
}

/* A kick gets through between iterations. */
/* cmocka puts handlers of its own in place of the library's around each test. */
static struct sigaction library_segv;

/* The host takes away a page that the TLB has: nothing is done, and registers are as they were. */
static void test_host_fault(void **state)
{
	struct machine *m = *state;

	sigaction(SIGSEGV, &library_segv, NULL);
	for (unsigned k = 0; k < ARRAY_SIZE(copies); k++) {
		for (unsigned round = 0; round < 16; round++) {
			unsigned gone = round < 4 ? 0 : round & 1 && !copies[k].stos ? 8 : 11;
			u64 down = round < 8 ? 0 : RFLAGS_DF;

			machine_code(m, CODE + 16 * k, copies[k].code, copies[k].end);
			m->x.cpu.gpr[UM_RSI] = DATA + 264;
			m->x.cpu.gpr[UM_RDI] = PAGE(11) + 264;
			m->x.cpu.gpr[UM_RCX] = 21;
			m->x.cpu.rflags = RFLAGS_FIXED1 | RFLAGS_CF | RFLAGS_SF | down;
			if (!gone) {
				run_to_hlt(m);
				continue;
			}
			mprotect(at(m, PAGE(gone)), UM_PAGE_SIZE, PROT_NONE);
			assert_int_equal(machine_run(m), UM_EXIT_HOST_FAULT);
			mprotect(at(m, PAGE(gone)), UM_PAGE_SIZE, PROT_READ | PROT_WRITE);
			assert_int_equal(m->x.cpu.rip, CODE + 16 * k);
			assert_int_equal(m->x.cpu.gpr[UM_RSI], DATA + 264);
			assert_int_equal(m->x.cpu.gpr[UM_RDI], PAGE(11) + 264);
			assert_int_equal(m->x.cpu.gpr[UM_RCX], 21);
			assert_int_equal(m->x.cpu.rflags,
					 RFLAGS_FIXED1 | RFLAGS_CF | RFLAGS_SF | down);
			run_to_hlt(m);
			assert_int_equal(m->x.cpu.gpr[UM_RDI],
					 PAGE(11) + 264 + (down ? -21ll : 21ll) * copies[k].size);
		}
	}
}

static void test_kick(void **state)
{
	struct machine *m = *state;

	machine_prop(m, 8, P_PRESENT | P_WRITE | P_TRACKED);
	load_code(m, repne_scasb);
	memset(at(m, DATA), 0, MEM_BASE + MEM_SIZE - DATA);
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RCX] = ~0ull;
	m->x.cpu.gpr[UM_RAX] = 1;
	/* The flag is set once the loop runs: by the MMU, as another processor's flush would. */
	m->kick_after = 3;
	assert_int_equal(machine_run(m), UM_EXIT_KICK);
	assert_int_equal(m->x.cpu.rip, CODE);
	assert_true(m->x.cpu.gpr[UM_RDI] > DATA && m->x.cpu.gpr[UM_RDI] < MEM_BASE + MEM_SIZE);
	assert_int_equal(~m->x.cpu.gpr[UM_RCX], m->x.cpu.gpr[UM_RDI] - DATA);
	assert_true(m->x.cpu.rflags & RFLAGS_RF); /* as an interrupt that comes now must save it */
	atomic_store(&m->x.kick, 0);
	expect_fault(m, UM_VEC_PF); /* and it goes on, to the end of memory */
	load_code(m, repne_scasb);
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RCX] = 3;
	run_to_hlt(m);
	assert_false(m->x.cpu.rflags & RFLAGS_RF);
	/* A trap after an iteration that isn't the last. */
	load_code(m, repne_scasb);
	m->x.cpu.gpr[UM_RCX] = 2;
	m->x.cpu.rflags |= RFLAGS_TF;
	for (unsigned left = 2; left--;) {
		expect_fault(m, UM_VEC_DB);
		assert_int_equal(m->x.cpu.gpr[UM_RCX], left);
		assert_int_equal(!!(m->x.cpu.rflags & RFLAGS_RF), left != 0);
	}
	m->x.cpu.rflags &= ~(u64)RFLAGS_TF;
	load_code(m, repne_scasb);
	m->x.cpu.gpr[UM_RDI] = MEM_BASE + MEM_SIZE;
	m->x.cpu.gpr[UM_RCX] = 1;
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.payload, MEM_BASE + MEM_SIZE);
}

CODE64(hot_then_stos, "1: call r8\n dec ebx\n jnz 1b\n rep stosb\n call r8\n hlt");
CODE64(hot_then_movs, "1: call r8\n dec ebx\n jnz 1b\n rep movsb\n call r8\n hlt");
CODE64(count_calls, "inc rdx\n ret");

/*
 * A page that has translated code, again and again, is overwritten as fast as any other, and none
 * of it is executed any more.
 */
static void test_over_code(void **state)
{
	const gva_t where[] = { DATA, DATA + UM_PAGE_SIZE - (count_calls_end - count_calls) };
	struct machine *m = *state;

	for (unsigned n = 0; n < 32; n++) {
		unsigned before;

		memset(at(m, PAGE(10)), 0xc3, UM_PAGE_SIZE);
		memset(at(m, DATA), 0x90, UM_PAGE_SIZE);
		memcpy(at(m, where[n & 1]), count_calls, (size_t)(count_calls_end - count_calls));
		m->x.cpu.gpr[UM_R8] = where[n & 1];
		m->x.cpu.gpr[UM_RDI] = DATA;
		m->x.cpu.gpr[UM_RSI] = PAGE(10);
		m->x.cpu.gpr[UM_RAX] = 0xc3;
		m->x.cpu.gpr[UM_RDX] = 0;
		m->x.cpu.gpr[UM_RBX] = 100;
		m->x.cpu.gpr[UM_RCX] = UM_PAGE_SIZE;
		if (n & 2)
			load_code(m, hot_then_movs);
		else
			load_code(m, hot_then_stos);
		before = m->accesses;
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RDX], 100);
		assert_int_equal(m->x.cpu.gpr[UM_RCX], 0);
		assert_int_equal(m->x.cpu.gpr[UM_RDI], DATA + UM_PAGE_SIZE);
		assert_memory_equal(at(m, DATA), at(m, PAGE(10)), UM_PAGE_SIZE);
		if (!m->x.lockstep) /* which has no TLB */
			assert_true(m->accesses - before < 100);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_against_model), T(test_fault), T(test_compare),	 T(test_address_size),
		T(test_mmio),	       T(test_kick),  T(test_over_code), T(test_host_fault),
	};

	/* The library's handler is there once an engine is. */
	machine_free(machine_new());
	sigaction(SIGSEGV, NULL, &library_segv);

	return cmocka_run_group_tests(tests, NULL, NULL);
}

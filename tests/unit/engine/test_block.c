// SPDX-License-Identifier: MIT
/*
 * The block cache: self-modifying code, code changed by others, instructions across pages, fetch
 * faults.
 */
#include <sys/mman.h>

#include "engine/interp/block.h"
#include "cpu/cpuid.h"
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

/* The immediate of the very next instruction is overwritten: the new one must count. */
CODE64(smc, "mov byte ptr [rip+1f+1], 5\n 1: mov eax, 1\n hlt");
CODE64(smc_push, "push rbx\n mov eax, 1\n hlt");
CODE64(smc_rep, "rep stosb\n mov eax, 1\n hlt");
CODE64(smc_lock, "lock or dword ptr [rip+1f+1], 6\n 1: mov eax, 1\n hlt");
CODE64(loop_add, "1: add eax, 1\n dec ecx\n jnz 1b\n hlt");

static void test_self_modifying(void **state)
{
	struct machine *m = *state;

	for (unsigned slow = 0; slow < 2; slow++) {
		m->no_tlb = slow;
		machine_flush(m);
		for (unsigned k = 0; k < 3; k++) { /* decoded, cached, stale, ... */
			load_code(m, smc);
			run_to_hlt(m);
			assert_int_equal(m->x.cpu.gpr[UM_RAX], 5);
		}
		load_code(m, smc_lock);
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 7);

		load_code(m, smc_push); /* the stack is the code */
		m->x.cpu.gpr[UM_RSP] = CODE + 10;
		memcpy(&m->x.cpu.gpr[UM_RBX], "\x04\x00\x00\x00\xf4\x00\x00\x00", 8);
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 4);
		m->x.cpu.gpr[UM_RSP] = STACK;

		load_code(m, smc_rep);
		m->x.cpu.gpr[UM_RDI] = CODE + 3;
		m->x.cpu.gpr[UM_RCX] = 1;
		m->x.cpu.gpr[UM_RAX] = 0x22;
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x22);
		assert_int_equal(m->x.cpu.gpr[UM_RDI], CODE + 4);
	}
}

/* A store through another mapping of the memory, as devices and other processors make them. */
/* Are the counters those of the interpreter? */
static bool interpreted(const struct machine *m)
{
	return m->x.engine == UM_ENGINE_INTERP;
}

static void test_foreign_write(void **state)
{
	struct machine *m = *state;
	u64 decoded;

	load_code(m, loop_add);
	m->x.cpu.gpr[UM_RCX] = 10;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 10);
	decoded = m->counters.v[UM_CNT_blocks_decoded];
	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RCX] = 1000;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 1010);
	if (interpreted(m)) {
		/* all from the cache */
		assert_int_equal(m->counters.v[UM_CNT_blocks_decoded], decoded);
		assert_int_equal(m->counters.v[UM_CNT_insns], 3 * 10 + 3 * 1000);
	}

	m->alias[CODE - MEM_BASE + 2] = 3; /* add eax, 3 */
	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RCX] = 10;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 1040);
	if (interpreted(m))
		assert_int_equal(m->counters.v[UM_CNT_blocks_stale], 1);
	/* Bytes around the block don't matter. */
	m->alias[CODE - MEM_BASE + 100] = 3;
	m->alias[CODE - MEM_BASE - 1] = 3;
	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RCX] = 10;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 1070);
	if (interpreted(m))
		assert_int_equal(m->counters.v[UM_CNT_blocks_stale], 1);
}

/* Every alignment of a block's start and end in its words, and every byte of it changed. */
static void test_verify_every_byte(void **state)
{
	struct machine *m = *state;
	u8 code[40];

	for (unsigned skew = 0; skew < 8; skew++) {
		for (unsigned len = 1; len < sizeof(code) - 1; len++) {
			gva_t at_ = CODE + 64 + skew;
			u64 stale;

			memset(code, 0x90, sizeof(code));
			code[len] = 0xf4;
			machine_code(m, at_, code, code + len + 1);
			run_to_hlt(m);
			for (unsigned k = 0; k < len; k++) {
				stale = m->counters.v[UM_CNT_blocks_stale];
				m->alias[at_ + k - MEM_BASE] = 0xf4;
				m->x.cpu.rip = at_;
				run_to_hlt(m);
				assert_int_equal(m->x.cpu.rip, at_ + k);
				assert_true(!interpreted(m) ||
					    m->counters.v[UM_CNT_blocks_stale] > stale);
				m->alias[at_ + k - MEM_BASE] = 0x90;
				m->x.cpu.rip = at_;
				run_to_hlt(m);
				assert_int_equal(m->x.cpu.rip, at_ + len);
			}
		}
	}
}

CODE64(no_insn, ".byte 0xf2, 0x4a, 0x0f, 0x16, 0x02");
CODE64(with_its_prefixes, "mov eax, 7\n repne nop\n hlt");

/* What is not an instruction may become one by a change of any of its bytes. */
static void test_undefined_then_not(void **state)
{
	struct machine *m = *state;
	const u8 *moved = with_its_prefixes + 5; /* the same first byte */

	assert_int_equal(*moved, *no_insn);
	load_code(m, no_insn);
	expect_fault(m, UM_VEC_UD);
	machine_code(m, CODE, moved, with_its_prefixes_end);
	run_to_hlt(m);
	load_code(m, no_insn);
	expect_fault(m, UM_VEC_UD);
}

/* ---- across pages ---- */
CODE64(mov_imm, "movabs rax, 0x1122334455667788\n hlt");

static void test_crossing(void **state)
{
	struct machine *m = *state;

	for (unsigned first = 1; first < 10; first++) {
		gva_t start = PAGE(2) - first;

		machine_code(m, start, mov_imm, mov_imm_end);
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x1122334455667788);
		assert_int_equal(m->x.cpu.rip, start + 10);
		/* Changes of either part are seen. */
		m->alias[start + 9 - MEM_BASE] = 0x99;
		m->x.cpu.rip = start;
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x9922334455667788);
		if (first > 2) {
			m->alias[start + 2 - MEM_BASE] = 0x77;
			m->x.cpu.rip = start;
			run_to_hlt(m);
			assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x9922334455667777);
		}
		/* The second page is gone: #PF at its start, though the block is cached. */
		machine_prop(m, 2, 0);
		m->x.cpu.rip = start;
		expect_fault(m, UM_VEC_PF);
		assert_int_equal(m->x.exit.exc.payload, PAGE(2));
		assert_int_equal(m->x.exit.exc.error_code, PFERR_FETCH);
		assert_int_equal(m->x.cpu.rip, start);
		/* A shorter instruction in the same place doesn't touch it. */
		m->alias[start - MEM_BASE] = 0xf4;
		run_to_hlt(m);
		machine_prop(m, 2, P_PRESENT | P_WRITE | P_USER);
	}
}

CODE64(call_crossing, "1: call rdi\n dec ecx\n jnz 1b\n mov [rsi], dl\n call rdi\n hlt");

/* Either part of a hot instruction is stored to by the code that executes it. */
static void test_crossing_stored_to(void **state)
{
	static const u8 code[] = { 0xb8, 1, 1, 1, 1, 0xc3 }; /* mov eax, 1010101h; ret */
	struct machine *m = *state;

	for (unsigned first = 1; first < 5; first++) {
		for (unsigned byte = 1; byte < 5; byte++) {
			memcpy(at(m, PAGE(2) - first), code, sizeof(code));
			m->x.cpu.gpr[UM_RDI] = PAGE(2) - first;
			m->x.cpu.gpr[UM_RSI] = PAGE(2) - first + byte;
			m->x.cpu.gpr[UM_RCX] = 100;
			m->x.cpu.gpr[UM_RDX] = 2;
			load_code(m, call_crossing);
			run_to_hlt(m);
			assert_int_equal(m->x.cpu.gpr[UM_RAX],
					 0x1010101u + (1u << (8 * (byte - 1))));
		}
	}
}

/* Code runs off the end of a page into one that isn't there, or into the non-canonical hole. */
static void test_fetch_faults(void **state)
{
	struct machine *m = *state;

	memset(at(m, CODE), 0x90, UM_PAGE_SIZE);
	machine_prop(m, 2, 0);
	m->x.cpu.rip = CODE + 4000;
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.payload, PAGE(2));
	assert_int_equal(m->x.cpu.rip, PAGE(2));
	assert_int_equal(m->counters.v[UM_CNT_insns], 96);
	m->x.cpu.rip = 0x0000800000000000;
	expect_fault(m, UM_VEC_GP);
	machine_prop(m, 2, P_PRESENT | P_MMIO);
	m->x.cpu.rip = PAGE(2);
	assert_int_equal(machine_run(m), UM_EXIT_INTERNAL);
}

CODE64(jump_out, "mov rax, 0x800000000000\n jmp rax");
CODE64(call_out, "mov rax, 0x800000000000\n call rax");
CODE64(ret_out, "ret");
CODE64(too_long,
       ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
CODE64(longest,
       ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90\n hlt");
CODE64(undefined, "ud2");
CODE64(bad_lock, ".byte 0xf0, 0x90");

static void test_faults(void **state)
{
	struct machine *m = *state;

	load_code(m, jump_out);
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.cpu.rip, CODE + 10);
	load_code(m, call_out);
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.cpu.rip, CODE + 10);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK);
	assert_int_equal(*(u64 *)at(m, STACK - 8), CODE + 12); /* stored all the same */
	load_code(m, ret_out);
	m->x.cpu.gpr[UM_RSP] = STACK - 8;
	*(u64 *)at(m, STACK - 8) = 0x0000800000000000;
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK - 8);
	assert_int_equal(m->x.cpu.rip, CODE);
	load_code(m, too_long);
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.cpu.rip, CODE);
	load_code(m, longest);
	run_to_hlt(m);
	load_code(m, undefined);
	expect_fault(m, UM_VEC_UD);
	assert_false(m->x.exit.exc.has_error);
	load_code(m, bad_lock);
	expect_fault(m, UM_VEC_UD);
}

CODE16(nops16, "nop\n nop\n nop\n mov ax, 0x1234\n hlt");

/* The limit of CS cuts a block in two, or an instruction. */
static void test_code_limit(void **state)
{
	struct machine *m = *state;

	machine_mode(m, UM_MODE_REAL);
	load_code(m, nops16);
	run_to_hlt(m); /* cached as one block */
	for (unsigned limit = 0; limit < 7; limit++) {
		m->x.cpu.seg[UM_CS].limit = (u32)(CODE - MEM_BASE + limit);
		m->x.cpu.rip = CODE - MEM_BASE;
		m->x.cpu.gpr[UM_RAX] = 0;
		if (limit == 6) {
			run_to_hlt(m);
			assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x1234);
			break;
		}
		expect_fault(m, UM_VEC_GP);
		/* The MOV is at 3..5: it is fetched in full or not at all. */
		assert_int_equal(m->x.cpu.rip,
				 CODE - MEM_BASE + (limit == 5 ? 6 : um_min(limit + 1, 3u)));
		assert_int_equal(m->x.cpu.gpr[UM_RAX], limit == 5 ? 0x1234 : 0);
	}
	/* The end of a 64 KiB segment: no wrap. */
	machine_mode(m, UM_MODE_REAL);
	*at(m, MEM_BASE + 0xffff) = 0x90;
	m->x.cpu.rip = 0xffff;
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.cpu.rip, 0x10000);
}

/* ---- leaving ---- */
CODE64(spin, "1: jmp 1b");

static void test_kick(void **state)
{
	struct machine *m = *state;
	volatile u8 immediate_exit = 1;

	load_code(m, spin);
	atomic_store(&m->x.kick, 1);
	assert_int_equal(machine_run(m), UM_EXIT_KICK);
	atomic_store(&m->x.kick, 0);
	m->x.immediate_exit = &immediate_exit;
	assert_int_equal(machine_run(m), UM_EXIT_KICK);
	m->x.immediate_exit = NULL;
	assert_int_equal(m->x.cpu.rip, CODE);
}

/* More code than the arena holds: the cache starts over and everything still runs. */
static void test_arena_full(void **state)
{
	struct machine *m = *state;
	char text[4096];

	for (unsigned round = 0; m->counters.v[UM_CNT_block_flushes] < 2; round++) {
		assert_true(round < 1000000);
		memset(at(m, CODE), 0x90, 64);
		*(u32 *)at(m, CODE) = 0xb8 | round << 8; /* mov eax, imm32: always new bytes */
		at(m, CODE)[4] = (u8)(round >> 24);
		at(m, CODE)[64] = 0xf4;
		m->x.cpu.rip = CODE;
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], round);
	}
	um_engine_report(&m->x, text, sizeof(text));
	if (interpreted(m))
		assert_non_null(strstr(text, "hlt"));
}

/* Code that the cache forgets again and again is hot all the same. */
static void test_hot_and_forgotten(void **state)
{
	struct machine *m = *state;

	m->x.jit_threshold = 3;
	load_code(m, loop_add);
	for (unsigned k = 0; k < 5; k++) {
		m->x.cpu.rip = CODE;
		m->x.cpu.gpr[UM_RCX] = 1;
		run_to_hlt(m);
		um_block_flush(&m->x);
	}
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 5);
	assert_int_equal(m->counters.v[UM_CNT_jit_blocks] != 0, m->x.engine != UM_ENGINE_INTERP);
}

/* What takes its place in memory is not. */
static void test_hot_and_replaced(void **state)
{
	struct machine *m = *state;

	m->x.jit_threshold = 3;
	for (unsigned k = 0; k < 20; k++) {
		load_code(m, loop_add);
		*at(m, CODE + 2) = (u8)k; /* of ADD's immediate */
		m->x.cpu.gpr[UM_RCX] = 1;
		run_to_hlt(m);
		um_block_flush(&m->x);
	}
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 19 * 20 / 2);
	assert_true(m->counters.v[UM_CNT_jit_blocks] <= 1); /* HLT's */
}

/* What CPUID says decides what instructions are: cached blocks must not outlive it. */
static void test_features(void **state)
{
	struct machine *m = *state;
	u64 decoded;

	load_code(m, loop_add);
	m->x.cpu.gpr[UM_RCX] = 1;
	run_to_hlt(m);
	decoded = m->counters.v[UM_CNT_blocks_decoded];
	m->x.cpu.features[1] ^= 1;
	m->x.cpu.rip = CODE;
	m->x.cpu.gpr[UM_RCX] = 1;
	run_to_hlt(m);
	assert_true(m->counters.v[UM_CNT_blocks_decoded] > decoded);
}

CODE64(count_tz, "tzcnt rax, rdx\n hlt");
CODE64(count_lz, "lzcnt rax, rdx\n hlt");
CODE64(count_ones, "popcnt rax, rdx\n hlt");
CODE64(load_swapped, "movbe rax, [rdi]\n hlt");
CODE64(exchange_8, "cmpxchg8b [rdi]\n hlt");
CODE64(exchange_16, "cmpxchg16b [rdi]\n hlt");
CODE64(load_flags, "lahf\n hlt");

/*
 * Instructions that are executed in C are there if CPUID says so; without, two of them mean
 * something else.
 */
static void test_instruction_features(void **state)
{
	static const struct {
		const u8 *code, *end;
		enum um_feature f;
		u64 with, without; /* rax; 0: #UD */
	} rows[] = {
#define ROW(name, feature, ...) { name, name##_end, UM_F_##feature, __VA_ARGS__ }
		ROW(count_tz, BMI1, 64, 7),	    ROW(count_lz, ABM, 64, 7),
		ROW(count_ones, POPCNT, 0, 0),	    ROW(load_swapped, MOVBE, 0x0102030405060708, 0),
		ROW(exchange_8, CX8, 7, 0),	    ROW(exchange_16, CX16, 7, 0),
		ROW(load_flags, LAHF_LM, 0x207, 0),
	};
	struct machine *m = *state;

	for (unsigned n = 0; n < 2 * ARRAY_SIZE(rows); n++) {
		enum um_feature f = rows[n / 2].f;

		memset(m->x.cpu.features, 0xff, sizeof(m->x.cpu.features));
		if (n & 1)
			m->x.cpu.features[f / 64] &= ~BIT(f % 64);
		poke(m, DATA, 8, f == UM_F_MOVBE ? 0x0807060504030201 : 7);
		poke(m, DATA + 8, 8, 0);
		machine_code(m, CODE, rows[n / 2].code, rows[n / 2].end);
		m->x.cpu.gpr[UM_RDI] = DATA;
		m->x.cpu.gpr[UM_RAX] = 7;
		m->x.cpu.gpr[UM_RDX] = 0;
		m->x.cpu.rflags = RFLAGS_FIXED1;
		if ((n & 1) && !rows[n / 2].without) {
			expect_fault(m, UM_VEC_UD);
			assert_int_equal(m->x.cpu.rip, CODE);
			continue;
		}
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX],
				 n & 1 ? rows[n / 2].without : rows[n / 2].with);
	}
}

/*
 * The same function and the same stub, whether or not an instruction that begins like it was bound
 * before.
 */
static void test_bound_from_memory(void **state)
{
	static const u8 maps[][2] = {
		{ 0, 0 }, { 0x0f, 0 }, { 0x66, 0x0f }, { 0xf3, 0x0f }, { 0xc5, 0xf9 }
	};
	struct machine *m = *state;
	u64 rng = 88172645463325252ull;
	unsigned bound = 0, stubs = 0, kept = 0;

	for (unsigned n = 0; n < 256 * ARRAY_SIZE(maps); n++) {
		enum um_mode mode = n % 3 ? UM_MODE_64 : UM_MODE_32;
		const u8 *map = maps[n % ARRAY_SIZE(maps)];
		u8 b[16], at = 0;

		for (unsigned kin = 0; kin < 4; kin++) {
			struct um_insn i = { 0 }, j;

			rng ^= rng << 13;
			rng ^= rng >> 7;
			rng ^= rng << 17;
			if (!kin) {
				at = 0;
				for (unsigned k = 0; k < 2; k++) {
					if (map[k])
						b[at++] = map[k];
				}
				b[at++] = (u8)(n / ARRAY_SIZE(maps));
				b[at++] = (u8)rng; /* ModRM, mostly */
				b[at++] = (u8)(rng >> 8);
			}
			memcpy(b + at, &rng, 8);
			if (!um_decode(&i, mode, b, 15, 0))
				continue;
			um_interp_bind(&m->x, &i, b);
			assert_int_equal(um_interp_decode(&m->x, &j, mode, b, 15, 0), i.len);
			assert_memory_equal(&i, &j, offsetof(struct um_insn, plain));
			bound += i.fn != um_op_ud;
			stubs += i.aux != NULL;
			j = (struct um_insn){ 0 };
			um_decode_cached(&m->x.interp->decoded, &j, mode, b, 15, 0,
					 &(struct um_decode_entry *){ NULL });
			kept += j.aux != NULL;
		}
	}
	assert_true(bound > 2000 && stubs > 500 && kept > 400 && kept < stubs);
}

CODE64(fault_inside, "mov eax, 1\n inc ebx\n mov [rdi], eax\n inc ebx\n hlt");

/*
 * A fault in the middle of a block: what was before is done, and the count of instructions is
 * right.
 */
static void test_fault_inside(void **state)
{
	struct machine *m = *state;

	machine_prop(m, 8, 0);
	m->x.cpu.gpr[UM_RDI] = DATA;
	load_code(m, fault_inside);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.cpu.rip, CODE + 7);
	assert_int_equal(m->x.cpu.gpr[UM_RBX], 1);
	assert_int_equal(m->counters.v[UM_CNT_insns], 2);
	assert_int_equal(m->x.exit.insn_len, 2);
	machine_prop(m, 8, P_PRESENT | P_WRITE);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RBX], 2);
	assert_int_equal(m->counters.v[UM_CNT_insns], 4);
}

CODE64(call_changed,
       "1: call rdi\n dec ecx\n jnz 1b\n mov [rdi], bl\n mov [rsi + 1], dl\n call rdi\n hlt");

/*
 * A block that is one jump is stored to, then the block that it went to, then it is called: by what
 * the caller remembers of it, if it was translated, since nothing has looked for it anew.
 */
static void test_jump_that_changed(void **state)
{
	static const u8 jump[] = { 0xe9, 0x3b, 0, 0, 0 };      /* jmp target */
	static const u8 target[] = { 0xb8, 0, 0, 0, 0, 0xc3 }; /* mov eax, 0; ret */
	struct machine *m = *state;
	u64 dropped = m->counters.v[UM_CNT_jit_dropped];

	memcpy(at(m, PAGE(2)), jump, sizeof(jump));
	memcpy(at(m, PAGE(2) + 0x40), target, sizeof(target));
	m->x.cpu.gpr[UM_RDI] = PAGE(2);
	m->x.cpu.gpr[UM_RSI] = PAGE(2) + 0x40;
	m->x.cpu.gpr[UM_RBX] = jump[0];
	for (unsigned n = 1; n < 4; n++) {
		m->x.cpu.gpr[UM_RCX] = 100;
		m->x.cpu.gpr[UM_RDX] = n;
		load_code(m, call_changed);
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], n);
	}
	if (m->x.engine == UM_ENGINE_JIT)
		assert_true(m->counters.v[UM_CNT_jit_dropped] >= dropped + 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_self_modifying),
		T(test_foreign_write),
		T(test_verify_every_byte),
		T(test_undefined_then_not),
		T(test_crossing),
		T(test_crossing_stored_to),
		T(test_fetch_faults),
		T(test_faults),
		T(test_code_limit),
		T(test_kick),
		T(test_arena_full),
		T(test_hot_and_forgotten),
		T(test_hot_and_replaced),
		T(test_features),
		T(test_fault_inside),
		T(test_jump_that_changed),
		T(test_instruction_features),
		T(test_bound_from_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

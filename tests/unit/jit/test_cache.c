// SPDX-License-Identifier: MIT
/*
 * The code cache when there is more code than fits: UMBRA_CODE_CACHE is its least, which several
 * processors share.
 */
#include "engine/jit/jit.h"
#include "fixture.h"

#define FIRST	   2
#define LAST	   62 /* pages of code */
#define BLOCK_SIZE 7  /* ADD EAX, imm32; JMP to the next */
#define BLOCKS	   ((UM_PAGE_SIZE - 16) / BLOCK_SIZE)

CODE64(calls, "1: inc eax\n call 2f\n dec ecx\n jnz 1b\n hlt\n 2: ret");
CODE64(serializing, "1: .byte 0x0f, 0x01, 0xe8\n dec ecx\n jnz 1b\n hlt");

/* Many short blocks, one behind the other.  Returns what they add up to. */
static u32 write_code(struct machine *m, u32 seed)
{
	u32 sum = 0;

	for (unsigned page = FIRST; page < LAST; page++) {
		u8 *p = at(m, PAGE(page));

		for (unsigned n = 0; n < BLOCKS; n++) {
			u32 v = seed = seed * 1103515245 + 12345;

			*p++ = 0x05;
			memcpy(p, &v, 4);
			p[4] = 0xeb;
			p[5] = 0;
			p += 6;
			sum += v;
		}
		if (page + 1 < LAST) { /* JMP to the next page; or HLT */
			s32 rel = (s32)(UM_PAGE_SIZE - BLOCKS * BLOCK_SIZE - 5);

			*p = 0xe9;
			memcpy(p + 1, &rel, 4);
		} else {
			*p = 0xf4;
		}
	}
	m->x.code_doubt = true;
	return sum;
}

static void run_code(struct machine *m, u32 sum)
{
	m->x.cpu.gpr[UM_RAX] = 0;
	m->x.cpu.rip = PAGE(FIRST);
	run_to_hlt(m);
	assert_int_equal((u32)m->x.cpu.gpr[UM_RAX], sum);
}

static struct machine *new_machine(void)
{
	return machine_new_engine(UM_ENGINE_JIT);
}

static bool has_block(const struct um_jit_chunk *c, const struct um_jump *e)
{
	for (const struct um_jit_block *b = c->blocks; b; b = b->chunk_next) {
		if (b->code == e->code && b->hva == e->hva)
			return true;
	}
	return false;
}

/*
 * Entries of the jump cache that hold are of blocks that are there; and none, whatever it holds, is
 * for a kicked processor.  How many hold.
 */
static unsigned check_jumps(const struct machine *m)
{
	const struct um_jit *j = m->x.translator;
	unsigned used = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(j->jump); n++) {
		const struct um_jump *e = &j->jump[n];
		bool there = false;

		assert_true(e->stamp >> UM_STAMP_GEN_SHIFT || !e->stamp);
		if (e->stamp >> UM_STAMP_GEN_SHIFT != j->gen)
			continue;
		for (const struct um_jit_chunk *c = j->oldest; c && !there; c = c->next)
			there = has_block(c, e);
		assert_true(there);
		used++;
	}
	return used;
}

/* What is evicted is translated again, and what is right stays right. */
static void test_evict(void **state)
{
	struct machine *m = new_machine();
	u64 *count = m->counters.v;

	for (u32 round = 0; round < 6; round++) {
		u32 sum = write_code(m, round / 2);

		run_code(m, sum);
		run_code(m, sum);
		check_jumps(m);
	}
	load_code(m, calls);
	m->x.cpu.gpr[UM_RCX] = 100;
	run_to_hlt(m);
	assert_true(check_jumps(m) > 0);
	run_code(m, write_code(m, 100));
	check_jumps(m);
	assert_true(count[UM_CNT_jit_evicted] > 10000);
	assert_true(count[UM_CNT_jit_evictions] > 10);
	assert_int_equal(count[UM_CNT_jit_flushes], 0);
	assert_true(count[UM_CNT_jit_blocks] > 3 * (LAST - FIRST) * BLOCKS);
	machine_free(m);
}

/* What was translated is entered again without being decoded, if only the TLB has forgotten where it is. */
static void test_mapped(void **state)
{
	struct machine *m = new_machine();
	u64 *count = m->counters.v, decoded, enters;

	for (unsigned round = 0; round < 12; round++) {
		load_code(m, calls);
		m->x.alone = round > 5;
		m->x.cpu.gpr[UM_RCX] = 100;
		m->x.cpu.gpr[UM_RAX] = 0;
		machine_flush(m);
		if (round > 2)
			um_block_flush(&m->x);
		decoded = count[UM_CNT_blocks_decoded];
		enters = count[UM_CNT_jit_enters];
		run_to_hlt(m);
		assert_int_equal((u32)m->x.cpu.gpr[UM_RAX], 100);
		if (round > 2)
			assert_int_equal(count[UM_CNT_blocks_decoded], decoded);
		assert_true(count[UM_CNT_jit_enters] > enters);
	}
	machine_free(m);
}

/* SERIALIZE raises doubts about code, and leaves translated code for that; but not in a VM of one vCPU. */
static void test_serialize(void **state)
{
	struct machine *m = new_machine();

	for (unsigned round = 0; round < 4; round++) {
		u64 slow = 0, doubt = 0;

		load_code(m, serializing);
		m->x.alone = round & 1;
		for (unsigned warm = 0; warm < 2; warm++) {
			m->x.cpu.rip = CODE;
			m->x.cpu.gpr[UM_RCX] = 100;
			slow = m->counters.v[UM_CNT_jit_slow];
			doubt = m->x.translator->doubt;
			run_to_hlt(m);
		}
		slow = m->counters.v[UM_CNT_jit_slow] - slow;
		doubt = m->x.translator->doubt - doubt;
		if (m->x.alone) {
			assert_true(slow < 10);
			assert_true(doubt < 10);
		} else {
			assert_true(slow >= 90);
			assert_true(doubt >= 90);
		}
	}
	m->x.cpu.features[UM_F_SERIALIZE / 64] &= ~BIT(UM_F_SERIALIZE % 64);
	load_code(m, serializing);
	m->x.cpu.gpr[UM_RCX] = 100;
	expect_fault(m, UM_VEC_UD);
	machine_free(m);
}

/* What is counted besides. */
static void test_counters(void **state)
{
	struct machine *m = new_machine();
	u64 *count = m->counters.v;

	for (unsigned round = 0; round < 3; round++) {
		load_code(m, calls);
		m->x.cpu.gpr[UM_RCX] = 100;
		run_to_hlt(m);
	}
	assert_true(count[UM_CNT_jit_insns] > count[UM_CNT_jit_blocks]);
	assert_true(count[UM_CNT_jit_links] > 0);
	assert_true(count[UM_CNT_jit_unlinked] >= count[UM_CNT_jit_links]);
	assert_true(count[UM_CNT_jit_jump_misses] > 0);
	assert_true(count[UM_CNT_jit_slow] > 0);
	assert_true(count[UM_CNT_jit_enters] > 0);
	assert_int_equal(count[UM_CNT_jit_dropped], 0);
	*at(m, CODE) = 0x90; /* as another processor does */
	*at(m, CODE + 1) = 0x90;
	m->x.code_doubt = true;
	m->x.cpu.gpr[UM_RCX] = 100;
	m->x.cpu.rip = CODE;
	run_to_hlt(m);
	assert_true(count[UM_CNT_jit_dropped] > 0);
	assert_int_equal(count[UM_CNT_jit_flushes], 0);
	m->x.cpu.features[0] ^= 1;
	m->x.cpu.gpr[UM_RCX] = 100;
	m->x.cpu.rip = CODE;
	run_to_hlt(m);
	assert_int_equal(count[UM_CNT_jit_flushes], 1);
	machine_free(m);
}

/* A block whose code was changed while it was translated is nowhere but in its chunk. */
static void test_past(void **state)
{
	struct machine *m = new_machine();
	struct um_block *b;
	u32 sum;

	*at(m, CODE) = 0x90;
	*at(m, CODE + 1) = 0xf4;
	m->x.cpu.rip = CODE;
	um_exec_sync(&m->x);
	b = um_block_enter(&m->x, UM_MODE_64);
	assert_non_null(b);
	*at(m, CODE) = 0xf8;
	assert_true(um_jit_add(&m->x, b));
	assert_int_equal(m->counters.v[UM_CNT_jit_blocks], 0);
	assert_non_null(m->x.translator->newest);
	sum = write_code(m, 1);
	run_code(m, sum);
	assert_true(m->counters.v[UM_CNT_jit_evictions] > 0);
	machine_free(m);
}

/* The pages' descriptions are bounded, too: some code in each of more pages. */
static void test_pages(void **state)
{
	struct machine *m[2];

	for (unsigned n = 0; n < ARRAY_SIZE(m); n++) {
		m[n] = new_machine();
		for (unsigned page = FIRST; page < LAST; page++) {
			u8 *p = at(m[n], PAGE(page));
			s32 rel = (s32)UM_PAGE_SIZE - 7;

			p[0] = 0xff; /* INC EAX; JMP to the next page */
			p[1] = 0xc0;
			p[2] = 0xe9;
			memcpy(p + 3, &rel, 4);
		}
		*at(m[n], PAGE(LAST)) = 0xf4;
		for (unsigned round = 0; round < 5; round++)
			run_code(m[n], LAST - FIRST);
	}
	/* The first has what it needs; the second takes turns with itself. */
	assert_true(m[1]->counters.v[UM_CNT_jit_blocks] > LAST - FIRST);
	assert_true(m[1]->counters.v[UM_CNT_jit_evicted] > 0);
	assert_true(m[1]->x.translator->npages < LAST - FIRST);
	for (unsigned n = 0; n < ARRAY_SIZE(m); n++)
		machine_free(m[n]);
}

/* Who comes late gets a part; who goes gives back all of it. */
static void test_shared(void **state)
{
	struct machine *m[4];
	u64 blocks[4] = { 0 };
	unsigned all = UM_CODE_CACHE_MIN / UM_JIT_CHUNK, before, sum;

	for (unsigned n = 0; n < 4; n++)
		m[n] = new_machine();
	for (unsigned round = 0; round < 4; round++) {
		unsigned total = 0;

		for (unsigned n = 0; n < 4; n++) {
			/* (Not the same in all, and not the same as before.) */
			sum = write_code(m[n], 100 * round + n);
			run_code(m[n], sum);
			run_code(m[n], sum);
			total += m[n]->x.translator->nchunks;
			/* Those who were first have learnt of the others. */
			if (round > 1)
				assert_true(m[n]->counters.v[UM_CNT_jit_blocks] > blocks[n]);
			blocks[n] = m[n]->counters.v[UM_CNT_jit_blocks];
		}
		assert_true(total <= all);
	}
	before = m[0]->x.translator->nchunks;
	assert_true(before < all / 2);
	for (unsigned n = 1; n < 4; n++)
		machine_free(m[n]);
	sum = write_code(m[0], 1000);
	run_code(m[0], sum);
	assert_true(m[0]->x.translator->nchunks > before);
	/* Never all of it: there may be others to come. */
	assert_true(m[0]->x.translator->nchunks < all);
	machine_free(m[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_evict),	  cmocka_unit_test(test_mapped),
		cmocka_unit_test(test_serialize), cmocka_unit_test(test_counters),
		cmocka_unit_test(test_past),	  cmocka_unit_test(test_pages),
		cmocka_unit_test(test_shared)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

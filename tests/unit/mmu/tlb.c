// SPDX-License-Identifier: MIT
/*
 * The software TLB by itself: what an entry answers to, and that an empty one answers to nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "mmu/tlb.h"

static struct um_tlb *new_tlb(void)
{
	struct um_tlb *t = aligned_alloc(64, ALIGN_UP(sizeof(*t), 64));

	assert_non_null(t);
	um_tlb_init(t);
	return t;
}

/* Context 0 stands for "no context": even page 0 has no entry for it, in no state of the table. */
static void no_context(void **state)
{
	struct um_tlb *t = new_tlb();
	static const gva_t pages[] = { 0, 0x1000, 0xfffff000, 0xfffffffffffff000 };
	u8 page;

	for (unsigned round = 0; round < 4; round++) {
		for (unsigned n = 0; n < ARRAY_SIZE(pages); n++)
			for (unsigned acc = UM_READ; acc <= UM_FETCH; acc++)
				assert_null(um_tlb_lookup(t, pages[n], acc, 0));
		if (round == 0)
			um_tlb_fill(t, 0, t->ctx[0], &page, 1u << UM_READ);
		if (round == 1)
			um_tlb_flush_page(t, 0);
		if (round == 2) /* until the numbers start over */
			for (unsigned n = 0; n < UM_TLB_NR_CTX; n++)
				um_tlb_flush(t);
	}
	free(t);
}

static void fill_and_forget(void **state)
{
	struct um_tlb *t = new_tlb();
	u8 page[8];

	um_tlb_fill(t, 0x5000, t->ctx[0], page, 1u << UM_READ);
	assert_ptr_equal(um_tlb_lookup(t, 0x5007, UM_READ, t->ctx[0]), page + 7);
	assert_null(um_tlb_lookup(t, 0x5007, UM_WRITE, t->ctx[0]));
	assert_null(um_tlb_lookup(t, 0x5007, UM_READ, t->ctx[1]));
	assert_null(um_tlb_lookup(t, 0x5000 + UM_TLB_ENTRIES * UM_PAGE_SIZE, UM_READ, t->ctx[0]));
	assert_null(um_tlb_lookup_sized(t, 0x5ffd, 4, UM_READ, t->ctx[0]));
	um_tlb_flush(t);
	assert_null(um_tlb_lookup(t, 0x5000, UM_READ, t->ctx[0]));
	free(t);
}

/* Guarded pages have no write tag; others do, whatever their address has in common with them. */
static void guard(void **state)
{
	struct um_tlb *t = new_tlb();
	char *host = (char *)0x7f0000000000;

	um_tlb_fill(t, 0x5000, t->ctx[0], host, 1u << UM_READ | 1u << UM_WRITE);
	assert_true(um_tlb_guard(t, (hva_t)host));
	assert_true(um_tlb_guarded(t, (hva_t)host + 0xfff));
	assert_null(um_tlb_lookup(t, 0x5000, UM_WRITE, t->ctx[0]));
	assert_ptr_equal(um_tlb_lookup(t, 0x5000, UM_READ, t->ctx[0]), host);
	um_tlb_fill(t, 0x5000, t->ctx[0], host, 1u << UM_READ | 1u << UM_WRITE);
	assert_null(um_tlb_lookup(t, 0x5000, UM_WRITE, t->ctx[0]));
	for (unsigned n = 12; n < 40; n++) {
		um_tlb_fill(t, 0x5000, t->ctx[0], host + BIT(n), 1u << UM_WRITE);
		assert_ptr_equal(um_tlb_lookup(t, 0x5000, UM_WRITE, t->ctx[0]), host + BIT(n));
	}
	um_tlb_unguard(t, (hva_t)host);
	um_tlb_fill(t, 0x5000, t->ctx[0], host, 1u << UM_WRITE);
	assert_ptr_equal(um_tlb_lookup(t, 0x5000, UM_WRITE, t->ctx[0]), host);
	free(t);
}

/* Whatever was guarded before, and forgotten, and wherever it is: a page that is guarded loses all its write tags. */
static void guard_written(void **state)
{
	struct um_tlb *t = new_tlb();
	hva_t page = 0x7f0000000000;

	for (unsigned n = 0; n < 64; n++) {
		for (unsigned alias = 0; alias < 2; alias++)
			um_tlb_fill(t, (n + 100 * alias) * UM_PAGE_SIZE, t->ctx[alias],
				    (void *)(page + n * UM_PAGE_SIZE), 1u << UM_WRITE);
	}
	for (unsigned n = 0; n < 64; n++) {
		u32 seq = t->seq;

		assert_true(um_tlb_guard(t, page + n * UM_PAGE_SIZE));
		assert_int_not_equal(t->seq, seq);
		for (unsigned k = 0; k < 64; k++) {
			void *there = k <= n ? NULL : (void *)(page + k * UM_PAGE_SIZE);

			for (unsigned alias = 0; alias < 2; alias++)
				assert_ptr_equal(um_tlb_lookup(t, (k + 100 * alias) * UM_PAGE_SIZE,
							       UM_WRITE, t->ctx[alias]),
						 there);
		}
	}
	free(t);
}

/* When there is no room for a page to be guarded, it is said; after all were let go, there is. */
static void guard_room(void **state)
{
	struct um_tlb *t = new_tlb();
	hva_t page = 0x7f0000000000;
	unsigned n = 0;

	while (um_tlb_guard(t, page + n * UM_PAGE_SIZE))
		assert_in_range(++n, 1, UM_TLB_GUARD_SETS * UM_TLB_GUARD_WAYS);
	assert_false(um_tlb_guarded(t, page + n * UM_PAGE_SIZE));
	for (unsigned k = 0; k < n; k++)
		assert_true(um_tlb_guarded(t, page + k * UM_PAGE_SIZE));
	um_tlb_unguard_all(t);
	assert_false(um_tlb_guarded(t, page));
	assert_true(um_tlb_guard(t, page + n * UM_PAGE_SIZE));
	free(t);
}

/* Who notes pages of code learns of their flushes; CPL 3 and the others each of their own. */
static void code(void **state)
{
	struct um_tlb *t = new_tlb();
	const gva_t own[2] = { 0xffffffff81000000, 0x401000 };
	u32 seq[2];

	for (unsigned user = 0; user < 2; user++) {
		seq[0] = t->code_seq[0];
		seq[1] = t->code_seq[1];
		for (unsigned n = 0; n < 2; n++)
			um_tlb_note_code(t, own[n], n);
		um_tlb_flush_page(t, 0x7000);
		um_tlb_flush_page(t, own[user] + UM_PAGE_SIZE);
		assert_int_equal(t->code_seq[user], seq[user]);
		um_tlb_flush_range(t, own[user] - 2 * UM_PAGE_SIZE, 4);
		assert_int_equal(t->code_seq[user], seq[user] + 1);
		um_tlb_flush_page(t, own[user]); /* forgotten by now */
		assert_int_equal(t->code_seq[user], seq[user] + 1);
		assert_int_equal(t->code_seq[!user], seq[!user]);
	}
	/* Until context numbers start over. */
	for (unsigned user = 0; user < 2; user++)
		seq[user] = t->code_seq[user];
	for (unsigned n = 0; n < UM_TLB_NR_CTX; n++)
		um_tlb_new_context(t);
	for (unsigned user = 0; user < 2; user++)
		assert_in_range(t->code_seq[user] - seq[user], 1, 8);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_context), cmocka_unit_test(fill_and_forget),
		cmocka_unit_test(guard),      cmocka_unit_test(guard_written),
		cmocka_unit_test(guard_room), cmocka_unit_test(code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

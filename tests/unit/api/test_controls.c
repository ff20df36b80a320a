// SPDX-License-Identifier: MIT
/* What a VMM asks for with KVM_ENABLE_CAP and attributes, and what a guest then does to it. */
#include "guest.h"

static int enable(int fd, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg } };

	return io(fd, KVM_ENABLE_CAP, &c);
}

/* ---- dirty logs by hand ---- */

static uint64_t dirty(struct guest *g)
{
	uint64_t bits = 0;
	struct kvm_dirty_log log = { .dirty_bitmap = &bits };

	assert_int_equal(io(g->vm, KVM_GET_DIRTY_LOG, &log), 0);
	return bits;
}

static void clear_dirty(struct guest *g, uint64_t bits)
{
	struct kvm_clear_dirty_log log = { .num_pages = GUEST_MEM / 4096, .dirty_bitmap = &bits };

	assert_int_equal(io(g->vm, KVM_CLEAR_DIRTY_LOG, &log), 0);
}

static void set_logging(struct guest *g, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.flags = flags,
		.memory_size = GUEST_MEM,
		.userspace_addr = (uintptr_t)g->mem,
	};

	assert_int_equal(io(g->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
}

static void test_manual_dirty_log(void **state)
{
	static const uint8_t code[] = {
		0xa2, 0x00, 0x30, /* 1: mov %al, 0x3000 */
		0xa2, 0x00, 0x50, /* mov %al, 0x5000 */
		0xe6, 0x80,	  /* out %al, $0x80 */
		0xeb, 0xf6,	  /* jmp 1b */
	};
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), 3);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 2));
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 5));
	assert_int_equal(enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1), 0);
	set_logging(&g, KVM_MEM_LOG_DIRTY_PAGES);
	assert_exit(&g, KVM_EXIT_IO);
	for (int i = 0; i < 2; i++)
		assert_int_equal(dirty(&g), 1 << 3 | 1 << 5);
	clear_dirty(&g, 1 << 3);
	assert_int_equal(dirty(&g), 1 << 5);
	clear_dirty(&g, 1 << 5 | 1 << 7);
	assert_int_equal(dirty(&g), 0);
	/* The guest has translations to both, and is seen to write all the same. */
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(dirty(&g), 1 << 3 | 1 << 5);
	/* One call that fetches and clears, again. */
	assert_int_equal(enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0), 0);
	assert_int_equal(dirty(&g), 1 << 3 | 1 << 5);
	assert_int_equal(dirty(&g), 0);
	/* A log that begins full. */
	assert_int_equal(enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3), 0);
	set_logging(&g, 0);
	set_logging(&g, KVM_MEM_LOG_DIRTY_PAGES);
	assert_int_equal(dirty(&g), 0xffff);
	clear_dirty(&g, 0xffff);
	assert_int_equal(dirty(&g), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(dirty(&g), 1 << 3 | 1 << 5);
	guest_stop(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manual_dirty_log),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

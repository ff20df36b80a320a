// SPDX-License-Identifier: MIT
/*
 * Dirty rings as a VMM uses them: KVM_CAP_DIRTY_LOG_RING, the mapping, harvesting,
 * KVM_RESET_DIRTY_RINGS, and the exit when a ring is full.
 */
#include "guest.h"

#include <stdlib.h>

#define PAGE	4096
#define BYTES	16384 /* of a ring: 1024 entries */
#define ENTRIES (BYTES / sizeof(struct kvm_dirty_gfn))
#define OFFSET	(KVM_DIRTY_LOG_PAGE_OFFSET * PAGE)
#define DATA	0x100000 /* guest address of the slot that is logged */
#define PAGES	1024
#define SLOT	7

/*
 * Big real mode: write to one page after the other from EBX on, as often as ECX says, and tell the
 * port.  Then the same again.
 */
asm(".pushsection .rodata\n"
    ".code16\n"
    "writer: mov %ebx, %edi; mov %ecx, %esi\n"
    "1:	incl (%edi); add $0x1000, %edi; dec %esi; jnz 1b\n"
    "	out %al, $0x10\n"
    "	jmp writer\n"
    "writer_end:\n"
    ".code64\n"
    ".popsection\n");
extern const uint8_t writer[], writer_end[];

struct machine {
	struct guest g;
	uint8_t *data;
	struct kvm_dirty_gfn *ring;
	unsigned next; /* to be harvested */
};

static int enable(int vm, uint32_t cap, uint64_t bytes)
{
	struct kvm_enable_cap e = { .cap = cap, .args = { bytes } };

	return io(vm, KVM_ENABLE_CAP, &e);
}

static void set_slot(struct machine *m, uint32_t flags)
{
	struct kvm_userspace_memory_region r = { SLOT, flags, DATA, PAGES * PAGE,
						 (uintptr_t)m->data };

	assert_int_equal(io(m->g.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
}

static void set_work(struct machine *m, unsigned page, unsigned n)
{
	struct kvm_regs regs = {
		.rip = GUEST_CODE, .rflags = 2, .rbx = DATA + page * PAGE, .rcx = n
	};

	assert_int_equal(io(m->g.vcpu, KVM_SET_REGS, &regs), 0);
}

static void init(struct machine *m)
{
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_MEM };
	struct guest *g = &m->g;
	struct kvm_sregs sregs;

	m->next = 0;
	guest_open_vm(g, NO_CHIP);
	assert_int_equal(enable(g->vm, KVM_CAP_DIRTY_LOG_RING, BYTES), 0);
	g->mem = mmap(NULL, GUEST_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m->data = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	memcpy(g->mem + GUEST_CODE, writer, (size_t)(writer_end - writer));
	region.userspace_addr = (uintptr_t)g->mem;
	assert_int_equal(io(g->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
	set_slot(m, KVM_MEM_LOG_DIRTY_PAGES);
	g->vcpu = io(g->vm, KVM_CREATE_VCPU, 0);
	assert_true(g->vcpu >= 0);
	g->run = umbra_mmap(NULL, (size_t)io(g->sys, KVM_GET_VCPU_MMAP_SIZE, 0),
			    PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	assert_ptr_not_equal(g->run, MAP_FAILED);
	m->ring = umbra_mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, OFFSET);
	assert_ptr_not_equal(m->ring, MAP_FAILED);
	assert_int_equal(io(g->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = sregs.cs.selector = 0;
	sregs.ds.limit = 0xffffffff;
	sregs.ds.g = 1;
	assert_int_equal(io(g->vcpu, KVM_SET_SREGS, &sregs), 0);
}

static void destroy(struct machine *m)
{
	munmap(m->ring, BYTES);
	guest_stop(&m->g);
	munmap(m->data, PAGES * PAGE);
}

/* Harvest what is dirty, which must be pages from @first on; how many. */
static unsigned harvest(struct machine *m, unsigned first)
{
	unsigned n = 0;

	for (;;) {
		struct kvm_dirty_gfn *e = &m->ring[m->next % ENTRIES];

		if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			return n;
		assert_int_equal(e->slot, SLOT);
		assert_int_equal(e->offset, first + n);
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		m->next++;
		n++;
	}
}

static void test_enable(void **state)
{
	struct guest g;

	guest_open_vm(&g, NO_CHIP);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING), 1 << 20);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_ACQ_REL), 1 << 20);
	assert_errno(EINVAL, io(g.vm, KVM_RESET_DIRTY_RINGS, 0));
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_DIRTY_LOG_RING, 0));
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_DIRTY_LOG_RING, 4096));
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_DIRTY_LOG_RING, 3 * 16384));
	assert_errno(E2BIG, enable(g.vm, KVM_CAP_DIRTY_LOG_RING, 2 << 20));
	assert_int_equal(enable(g.vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, BYTES), 0);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_DIRTY_LOG_RING, BYTES));
	assert_int_equal(io(g.vm, KVM_RESET_DIRTY_RINGS, 0), 0);
	guest_stop(&g);

	/* Not after the first vCPU. */
	guest_start(&g, NO_CHIP, "\xf4", 1);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_DIRTY_LOG_RING, BYTES));
	guest_stop(&g);
}

static void test_mapping(void **state)
{
	static const struct {
		int prot, flags;
	} bad[] = {
		{ PROT_READ, MAP_PRIVATE },
		{ PROT_READ | PROT_WRITE, MAP_PRIVATE },
		{ PROT_READ | PROT_EXEC, MAP_SHARED },
	};
	struct machine m;
	void *p;

	init(&m);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		errno = 0;
		assert_ptr_equal(
			umbra_mmap(NULL, BYTES, bad[i].prot, bad[i].flags, m.g.vcpu, OFFSET),
			MAP_FAILED);
		assert_int_equal(errno, EINVAL);
	}
	/* The other pages don't care; and one mapping of all is as good. */
	p = umbra_mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, m.g.vcpu, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	munmap(p, PAGE);
	p = umbra_mmap(NULL, OFFSET + BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, m.g.vcpu, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	m.ring[5].offset = 12345;
	assert_int_equal(((struct kvm_dirty_gfn *)((char *)p + OFFSET))[5].offset, 12345);
	munmap(p, OFFSET + BYTES);
	destroy(&m);
}

static void test_round_trip(void **state)
{
	uint64_t log[PAGES / 64];
	struct kvm_dirty_log dirty = { .slot = SLOT, .dirty_bitmap = log };
	struct kvm_clear_dirty_log clear = { .slot = SLOT, .num_pages = 64, .dirty_bitmap = log };
	struct machine m;

	init(&m);
	assert_errno(ENXIO, io(m.g.vm, KVM_GET_DIRTY_LOG, &dirty));
	assert_errno(ENXIO, io(m.g.vm, KVM_CLEAR_DIRTY_LOG, &clear));
	for (unsigned round = 0; round < 20; round++) {
		set_work(&m, round, 100);
		assert_exit(&m.g, KVM_EXIT_IO);
		assert_int_equal(harvest(&m, round), 100);
		/* Harvested, but not taken back: writes cost nothing, and are not listed. */
		assert_exit(&m.g, KVM_EXIT_IO);
		assert_int_equal(harvest(&m, round), 0);
		assert_int_equal(io(m.g.vm, KVM_RESET_DIRTY_RINGS, 0), 100);
	}
	assert_int_equal(m.data[0], 2);
	assert_int_equal(m.data[20 * PAGE], 40);
	/* Not logged any more, and again. */
	set_slot(&m, 0);
	assert_exit(&m.g, KVM_EXIT_IO);
	assert_int_equal(harvest(&m, 0), 0);
	set_slot(&m, KVM_MEM_LOG_DIRTY_PAGES);
	assert_exit(&m.g, KVM_EXIT_IO);
	assert_int_equal(harvest(&m, 19), 100);
	destroy(&m);
}

/*
 * A ring that is almost full ends KVM_RUN, again and again, until there is room; nothing is lost.
 */
static void test_full(void **state)
{
	unsigned n, all = 0, exits = 0;
	struct machine m;

	init(&m);
	set_work(&m, 0, PAGES);
	for (;;) {
		assert_int_equal(io(m.g.vcpu, KVM_RUN, 0), 0);
		if (m.g.run->exit_reason == KVM_EXIT_IO)
			break;
		assert_int_equal(m.g.run->exit_reason, KVM_EXIT_DIRTY_RING_FULL);
		assert_exit(&m.g, KVM_EXIT_DIRTY_RING_FULL);
		exits++;
		n = harvest(&m, all);
		assert_in_range(n, 1, ENTRIES - 1);
		all += n;
		assert_exit(&m.g, KVM_EXIT_DIRTY_RING_FULL);
		assert_int_equal(io(m.g.vm, KVM_RESET_DIRTY_RINGS, 0), n);
	}
	all += harvest(&m, all);
	assert_int_equal(all, PAGES);
	assert_true(exits > 1);
	destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enable),
		cmocka_unit_test(test_mapping),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_full),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

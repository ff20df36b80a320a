// SPDX-License-Identifier: MIT
/*
 * Memory slots without an MMU: the errors of KVM_SET_USER_MEMORY_REGION, look-ups, copies, dirty
 * logs, readers.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base/uaccess.h"
#include "mem/mem.h"

#define MB  (1ull << 20)
#define RAM (4 * MB)

static const struct um_trace no_trace;

struct fixture {
	struct um_mem *m;
	u8 *ram;
};

static int set(struct fixture *f, u32 slot, u64 gpa, u64 size, const void *hva, u32 flags)
{
	struct kvm_userspace_memory_region r = { slot, flags, gpa, size, (uintptr_t)hva };

	return um_mem_set_region(f->m, &r);
}

static struct sigaction
	handler; /* the library's, of SIGSEGV: cmocka puts its own in place for every test */

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->m = um_mem_create(&no_trace);
	f->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*state = f;
	return f->m && f->ram != MAP_FAILED ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	um_mem_destroy(f->m);
	munmap(f->ram, RAM);
	free(f);
	return 0;
}

static void errors(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(set(f, 0, 0, RAM, f->ram, 4), -EINVAL); /* flag */
	assert_int_equal(set(f, 0, 0, 100, f->ram, 0), -EINVAL); /* alignment of each */
	assert_int_equal(set(f, 0, 100, RAM, f->ram, 0), -EINVAL);
	assert_int_equal(set(f, 0, 0, RAM, f->ram + 1, 0), -EINVAL);
	assert_int_equal(set(f, UM_NR_SLOTS, 0, RAM, f->ram, 0), -EINVAL);
	assert_int_equal(set(f, (u32)UM_NR_AS << 16, 0, RAM, f->ram, 0),
			 -EINVAL);					 /* address space */
	assert_int_equal(set(f, 0, -4096ull, 8192, f->ram, 0), -EINVAL); /* wraps */
	assert_int_equal(set(f, 0, 0, RAM, (void *)BIT(63), 0), -EINVAL);
	assert_int_equal(set(f, 0, 0, 1ull << 45, (void *)4096, 0), -EINVAL); /* too many pages */
	assert_int_equal(set(f, 0, BIT(52), RAM, f->ram, 0), -EINVAL);
	assert_int_equal(set(f, 0, 0, 0, f->ram, 0), -EINVAL); /* delete what isn't there */
	assert_int_equal(um_mem_generation(f->m), 0);

	assert_int_equal(set(f, 0, 0, RAM, f->ram, 0), 0);
	assert_int_equal(set(f, 1, RAM - 4096, 8192, f->ram, 0), -EEXIST);
	assert_int_equal(set(f, 1, 0, 4096, f->ram, 0), -EEXIST);
	assert_int_equal(set(f, 0, 0, RAM / 2, f->ram, 0), -EINVAL);	/* other size */
	assert_int_equal(set(f, 0, 0, RAM, f->ram + 4096, 0), -EINVAL); /* other memory */
	assert_int_equal(set(f, 0, 0, RAM, f->ram, KVM_MEM_READONLY), -EINVAL);
	assert_int_equal(um_mem_generation(f->m), 1);
	assert_int_equal(set(f, 0, 0, RAM, f->ram, 0), 0); /* nothing changes */
	assert_int_equal(um_mem_generation(f->m), 1);
	assert_int_equal(set(f, 1, RAM, RAM, f->ram, 0), 0);	   /* an alias */
	assert_int_equal(set(f, 0, RAM, RAM, f->ram, 0), -EEXIST); /* move onto another */
	assert_int_equal(set(f, 0, 4 * RAM, RAM, f->ram, 0), 0);
	assert_null(um_mem_slot(f->m, 0, 0));
	assert_int_equal(um_mem_slot(f->m, 0, 4 * RAM / 4096)->id, 0);
	assert_int_equal(set(f, 0, 0, 0, NULL, 0), 0);
	assert_int_equal(set(f, 0, 0, 0, NULL, 0), -EINVAL);
}

static void lookups(void **state)
{
	struct fixture *f = *state;

	/* Every other page a slot, made in a scrambled order. */
	for (unsigned i = 0; i < 512; i++) {
		unsigned k = i * 37 % 512;

		assert_int_equal(set(f, k, k * 8192ull, 4096, f->ram + k * 4096, 0), 0);
	}
	for (unsigned k = 0; k < 512; k++) {
		struct um_slot *s = um_mem_slot(f->m, 0, k * 2);

		assert_non_null(s);
		assert_int_equal(s->id, k);
		assert_int_equal(um_slot_hva(s, k * 2), (uintptr_t)f->ram + k * 4096);
		assert_null(um_mem_slot(f->m, 0, k * 2 + 1));
	}
	assert_int_equal(um_mem_slots(f->m, 0)->n, 512);
	assert_int_equal(um_mem_slots(f->m, 0)->npages, 512);
	for (unsigned k = 0; k < 512; k += 2)
		assert_int_equal(set(f, k, 0, 0, NULL, 0), 0);
	for (unsigned k = 0; k < 512; k++)
		assert_true(!um_mem_slot(f->m, 0, k * 2) == !(k % 2));
}

static void copies(void **state)
{
	struct fixture *f = *state;
	u8 in[10000], out[10000];

	for (unsigned i = 0; i < sizeof(in); i++)
		in[i] = (u8)(i * 7);
	/* Two slots, neighbours for the guest but not on the host. */
	assert_int_equal(set(f, 0, 0, MB, f->ram + 2 * MB, 0), 0);
	assert_int_equal(set(f, 1, MB, MB, f->ram, 0), 0);
	assert_int_equal(um_mem_write(f->m, 0, MB - 5001, in, sizeof(in)), 0);
	assert_int_equal(um_mem_read(f->m, 0, MB - 5001, out, sizeof(out)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_memory_equal(f->ram + 3 * MB - 5001, in, 5001);
	assert_memory_equal(f->ram, in + 5001, sizeof(in) - 5001);
	assert_int_equal(um_mem_read(f->m, 0, 2 * MB - 1, out, 2), -EFAULT);
	assert_int_equal(um_mem_write(f->m, 0, 3 * MB, out, 1), -EFAULT);
}

static void dirty_log(void **state)
{
	struct fixture *f = *state;
	u64 log[MB / 4096 / 64];

	sigaction(SIGSEGV, &handler, NULL);
	assert_int_equal(set(f, 3, 0, MB, f->ram, 0), 0);
	assert_int_equal(um_mem_get_dirty_log(f->m, 3, log), -ENOENT);
	assert_int_equal(um_mem_get_dirty_log(f->m, 4, log), -ENOENT);
	assert_int_equal(um_mem_get_dirty_log(f->m, (u32)UM_NR_AS << 16, log), -EINVAL);
	assert_int_equal(set(f, 3, 0, MB, f->ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
	assert_int_equal(um_mem_write(f->m, 0, 70 * 4096, "x", 1), 0);
	assert_int_equal(um_mem_get_dirty_log(f->m, 3, (void *)8), -EFAULT);
	assert_int_equal(um_mem_write(f->m, 0, 71 * 4096, "x", 1), 0);
	memset(log, 0xff, sizeof(log));
	assert_int_equal(um_mem_get_dirty_log(f->m, 3, log), 0);
	assert_int_equal(log[0], 0);
	assert_int_equal(log[1], BIT(7));
	assert_int_equal(um_mem_get_dirty_log(f->m, 3, log), 0);
	assert_int_equal(log[1], 0);
}

static int clear(struct fixture *f, u32 slot, u64 first, u32 npages, void *bitmap)
{
	struct kvm_clear_dirty_log log = {
		.slot = slot, .first_page = first, .num_pages = npages, .dirty_bitmap = bitmap
	};

	return um_mem_clear_dirty_log(f->m, &log);
}

/* Pages that the listener was told to protect again. */
struct protector {
	struct um_mem_listener l;
	u64 pages[4];
};

static void on_cleared(struct um_mem_listener *l, struct um_slot *slot, u64 first, const u64 *mask,
		       size_t nwords)
{
	struct protector *p = (struct protector *)l;

	for (size_t i = 0; i < nwords; i++)
		p->pages[first / 64 + i] |= mask[i];
}

static void dirty_log_by_hand(void **state)
{
	struct fixture *f = *state;
	struct protector p = { .l.dirty_cleared = on_cleared };
	u64 log[4], all[4] = { ~0ull, ~0ull, ~0ull, ~0ull }, mask[4] = { 0 };
	const u64 size = 200 * 4096;

	sigaction(SIGSEGV, &handler, NULL);
	um_mem_add_listener(f->m, &p.l);
	um_mem_set_manual_dirty_log(f->m, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
	assert_int_equal(set(f, 3, 0, size, f->ram, 0), 0);
	assert_int_equal(clear(f, 3, 0, 64, mask), -ENOENT);
	assert_int_equal(clear(f, 4, 0, 64, mask), -ENOENT);
	assert_int_equal(clear(f, (u32)UM_NR_AS << 16, 0, 64, mask), -EINVAL);
	assert_int_equal(set(f, 3, 0, size, f->ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
	assert_int_equal(clear(f, 3, 1, 64, mask), -EINVAL);
	assert_int_equal(clear(f, 3, 64, 63, mask), -EINVAL);
	assert_int_equal(clear(f, 3, 0, 201, mask), -EINVAL);
	assert_int_equal(clear(f, 3, 64, 137, mask), -EINVAL);
	assert_int_equal(clear(f, 3, 256, 0, mask), -EINVAL);
	assert_int_equal(clear(f, 3, ~63ull, 64, mask), -EINVAL);
	assert_int_equal(clear(f, 3, 0, 64, (void *)8), -EFAULT);
	assert_int_equal(clear(f, 3, 0, 0, mask), 0);

	/* Fetching changes nothing. */
	for (u64 page = 60; page < 70; page++)
		assert_int_equal(um_mem_write(f->m, 0, page * 4096, "x", 1), 0);
	assert_int_equal(um_mem_write(f->m, 0, 199 * 4096, "x", 1), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(um_mem_get_dirty_log(f->m, 3, log), 0);
		assert_int_equal(log[0], GENMASK(63, 60));
		assert_int_equal(log[1], GENMASK(5, 0));
		assert_int_equal(log[2], 0);
		assert_int_equal(log[3], BIT(7));
		assert_int_equal(p.pages[0] | p.pages[1] | p.pages[3], 0);
	}
	/* What is cleared and was dirty is protected; nothing else. */
	mask[0] = GENMASK(61, 58); /* of pages 64 on */
	mask[0] |= BIT(1);
	assert_int_equal(clear(f, 3, 64, 64, mask), 0);
	assert_int_equal(p.pages[0], 0);
	assert_int_equal(p.pages[1], BIT(1));
	assert_int_equal(um_mem_get_dirty_log(f->m, 3, log), 0);
	assert_int_equal(log[0], GENMASK(63, 60));
	assert_int_equal(log[1], GENMASK(5, 0) & ~BIT(1));
	assert_int_equal(clear(f, 3, 64, 136, all), 0); /* to the end, which is no multiple of 64 */
	assert_int_equal(p.pages[1], GENMASK(5, 0));
	assert_int_equal(p.pages[3], BIT(7));
	assert_int_equal(um_mem_get_dirty_log(f->m, 3, log), 0);
	assert_int_equal(log[0], GENMASK(63, 60));
	assert_int_equal(log[1] | log[2] | log[3], 0);

	/* A log that begins full. */
	um_mem_set_manual_dirty_log(f->m, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
						  KVM_DIRTY_LOG_INITIALLY_SET);
	assert_int_equal(set(f, 3, 0, size, f->ram, 0), 0);
	assert_int_equal(set(f, 3, 0, size, f->ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
	assert_int_equal(um_mem_get_dirty_log(f->m, 3, log), 0);
	assert_memory_equal(log, all, 24);
	assert_int_equal(log[3], 0xff);
	um_mem_remove_listener(f->m, &p.l);
}

struct reader {
	struct fixture *f;
	atomic_bool stop;
	atomic_ulong looks, bad;
};

/* A slot that was found stays good to the end of the section, whatever happens to it meanwhile. */
static void *read_slots(void *opaque)
{
	struct reader *r = opaque;

	while (!r->stop) {
		unsigned token = um_mem_read_lock(r->f->m), inner;
		struct um_slot *s = um_mem_slot(r->f->m, 0, 0);

		inner = um_mem_read_lock(r->f->m);
		for (unsigned i = 0; s && i < 50; i++) {
			struct um_slot now = *(volatile struct um_slot *)s;

			if (now.npages != RAM / 4096 || now.hva != (uintptr_t)r->f->ram || now.base)
				r->bad++;
		}
		um_mem_read_unlock(r->f->m, inner);
		um_mem_read_unlock(r->f->m, token);
		r->looks++;
	}
	return NULL;
}

static void readers(void **state)
{
	struct reader r = { .f = *state };
	pthread_t t[2];

	for (unsigned i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, read_slots, &r);
	for (unsigned i = 0; i < 2000 || r.looks < 1000; i++) {
		assert_int_equal(set(r.f, 0, 0, RAM, r.f->ram, 0), 0);
		assert_int_equal(set(r.f, 0, 0, RAM, r.f->ram, KVM_MEM_LOG_DIRTY_PAGES), 0);
		assert_int_equal(set(r.f, 0, 64 * MB, RAM, r.f->ram, 0), 0);
		assert_int_equal(set(r.f, 0, 0, 0, NULL, 0), 0);
	}
	r.stop = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(r.bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(errors, setup, teardown),
		cmocka_unit_test_setup_teardown(lookups, setup, teardown),
		cmocka_unit_test_setup_teardown(copies, setup, teardown),
		cmocka_unit_test_setup_teardown(dirty_log, setup, teardown),
		cmocka_unit_test_setup_teardown(dirty_log_by_hand, setup, teardown),
		cmocka_unit_test_setup_teardown(readers, setup, teardown),
	};

	if (um_uaccess_init() || sigaction(SIGSEGV, NULL, &handler))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

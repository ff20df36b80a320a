// SPDX-License-Identifier: MIT
/*
 * The flush protocol and the lock, with threads: what one thread takes away, no vCPU uses any more
 * when the call returns; what a vCPU changes in its tables, another one sees after the flush that
 * the guest does.
 */
#include "guest.h"
#include "base/uaccess.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RAM    (16 * MB)
#define NPAGES 64

/* A second vCPU with a thread of its own. */
struct vcpu {
	struct guest *g;
	struct um_cpu *cpu;
	struct um_mmu *mmu;
	struct um_counters counters;
	pthread_t thread;
	atomic_uint kicked;
	atomic_bool stop;
	_Atomic u64 stores, refused;
	_Atomic u64 shoot, acked;
	_Atomic u64 wrong;
	unsigned id;
};

static void kick(void *opaque)
{
	struct vcpu *v = opaque;

	atomic_store(&v->kicked, 1);
}

/* What an engine's loop does between instructions. */
static void poll_kick(struct vcpu *v)
{
	if (atomic_load_explicit(&v->kicked, memory_order_relaxed)) {
		atomic_store(&v->kicked, 0);
		um_mmu_leave(v->mmu);
		if (um_mmu_enter(v->mmu))
			abort();
	}
}

static enum um_access_result access_vcpu(struct vcpu *v, gva_t gva, enum um_access acc, void **hva,
					 gpa_t *gpa)
{
	struct um_tlb *t = um_mmu_tlb(v->mmu);
	struct um_fault f = { .gva = gva, .acc = acc };
	enum um_access_result r;

	poll_kick(v);
	*hva = um_tlb_lookup(t, gva, acc, t->ctx[0]);
	if (*hva)
		return UM_ACCESS_OK;
	r = um_mmu_access(v->mmu, &f);
	*hva = f.hva;
	*gpa = f.gpa;
	return r;
}

static bool store_vcpu(struct vcpu *v, gva_t gva, u64 val)
{
	enum um_access_result r;
	void *hva;
	gpa_t gpa = 0;

	r = access_vcpu(v, gva, UM_WRITE, &hva, &gpa);
	if (r != UM_ACCESS_OK && r != UM_ACCESS_TRACKED)
		return false;
	if (!um_put64(hva, val))
		return false;
	if (r == UM_ACCESS_TRACKED)
		um_mmu_written(v->mmu, gpa, 8);
	return true;
}

static void start(struct vcpu *v, struct guest *g, void *(*fn)(void *), unsigned id)
{
	memset(v, 0, sizeof(*v));
	v->g = g;
	v->id = id;
	v->cpu = aligned_alloc(64, ALIGN_UP(sizeof(*v->cpu), 64));
	memcpy(v->cpu, g->cpu, sizeof(*v->cpu));
	v->mmu = um_mmu_create(g->vm, v->cpu, &v->counters, kick, v);
	assert_non_null(v->mmu);
	assert_int_equal(pthread_create(&v->thread, NULL, fn, v), 0);
}

static void finish(struct vcpu *v)
{
	atomic_store(&v->stop, true);
	pthread_join(v->thread, NULL);
	um_mmu_destroy(v->mmu);
	free(v->cpu);
}

/* Stores to all pages in turn, for as long as the test wants. */
static void *store_loop(void *opaque)
{
	struct vcpu *v = opaque;
	u64 n = 0;

	if (um_mmu_enter(v->mmu))
		abort();
	while (!atomic_load_explicit(&v->stop, memory_order_relaxed)) {
		gva_t gva = KGVA + 8 * MB + n % NPAGES * 4096 + 8 * v->id;

		if (store_vcpu(v, gva, ++n))
			v->stores++;
		else
			v->refused++;
	}
	um_mmu_leave(v->mmu);
	return NULL;
}

static void init(struct guest *g)
{
	guest_init_linear(g, RAM, false, false);
	/* The first vCPU only stands by. */
	um_mmu_leave(g->mmu);
}

static bool expired(struct timespec *t0, double seconds)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (t.tv_sec - t0->tv_sec) + (t.tv_nsec - t0->tv_nsec) * 1e-9 > seconds;
}

/* When a slot has been deleted or its memory invalidated, nothing is stored there any more. */
static void delete_under_stores(void **state)
{
	u8 *b = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u8 *copy = malloc(MB);
	struct timespec t0;
	struct vcpu v[2];
	struct guest g;
	unsigned rounds = 0;

	init(&g);
	/* Split the memory, so that the pages under test are a slot of their own. */
	um_mem_set_region(g.mem, &(struct kvm_userspace_memory_region){ 0 });
	assert_int_equal(um_mem_set_region(g.mem,
					   &(struct kvm_userspace_memory_region){
						   .slot = 0,
						   .memory_size = 8 * MB,
						   .userspace_addr = (uintptr_t)g.ram }),
			 0);
	for (unsigned i = 0; i < 2; i++)
		start(&v[i], &g, store_loop, i);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	while (!expired(&t0, 2.0) || rounds < 20) {
		struct kvm_userspace_memory_region r = { .slot = 1,
							 .guest_phys_addr = 8 * MB,
							 .memory_size = MB,
							 .userspace_addr = (uintptr_t)b };
		u64 before = v[0].stores + v[1].stores, refused = v[0].refused;

		assert_int_equal(um_mem_set_region(g.mem, &r), 0);
		while (v[0].stores + v[1].stores < before + 200 && !expired(&t0, 30))
			sched_yield();
		if (rounds % 2) {
			um_mem_invalidate_start(g.mem, (hva_t)b, (hva_t)b + MB);
			memcpy(copy, b, MB);
			usleep(200);
			assert_memory_equal(copy, b, MB);
			um_mem_invalidate_end(g.mem, (hva_t)b, (hva_t)b + MB);
		}
		r.memory_size = 0;
		assert_int_equal(um_mem_set_region(g.mem, &r), 0);
		memcpy(copy, b, MB);
		while (v[0].refused < refused + 20 && !expired(&t0, 30))
			sched_yield();
		assert_memory_equal(copy, b, MB);
		rounds++;
	}
	for (unsigned i = 0; i < 2; i++)
		finish(&v[i]);
	print_message("%u rounds, %lu stores\n", rounds, (unsigned long)v[0].stores);
	assert_true(v[0].stores > 1000);
	um_mmu_enter(g.mmu);
	guest_destroy(&g);
	munmap(b, MB);
	free(copy);
}

/*
 * Live migration: what the log says is copied until the guest stops; then the copy is the memory.
 */
static void migration(void **state)
{
	u64 log[RAM / 4096 / 64];
	struct timespec t0;
	struct vcpu v[2];
	struct guest g;
	u8 *copy = malloc(RAM);
	unsigned rounds = 0;

	init(&g);
	for (unsigned i = 0; i < 2; i++)
		start(&v[i], &g, store_loop, i);
	assert_int_equal(um_mem_set_region(g.mem,
					   &(struct kvm_userspace_memory_region){
						   .slot = 0,
						   .flags = KVM_MEM_LOG_DIRTY_PAGES,
						   .memory_size = RAM,
						   .userspace_addr = (uintptr_t)g.ram }),
			 0);
	memcpy(copy, g.ram, RAM);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (bool last = false;; rounds++) {
		if (!last && expired(&t0, 2.0) && rounds > 20) {
			for (unsigned i = 0; i < 2; i++)
				finish(&v[i]);
			last = true;
		}
		assert_int_equal(um_mem_get_dirty_log(g.mem, 0, log), 0);
		for (unsigned p = 0; p < RAM / 4096; p++) {
			if (log[p / 64] & BIT(p % 64))
				memcpy(copy + p * 4096ul, g.ram + p * 4096ul, 4096);
		}
		if (last)
			break;
	}
	print_message("%u rounds, %lu stores\n", rounds, (unsigned long)v[0].stores);
	assert_true(v[0].stores > 1000);
	assert_memory_equal(copy, g.ram, RAM);
	um_mmu_enter(g.mmu);
	guest_destroy(&g);
	free(copy);
}

#define TEST_GVA 0x7f0000000000ull

/*
 * Reads an address; on request flushes it and acknowledges.  After that it must see the new page.
 */
static void *read_loop(void *opaque)
{
	struct vcpu *v = opaque;
	u64 seen = 0, val;
	void *hva;
	gpa_t gpa;

	if (um_mmu_enter(v->mmu))
		abort();
	while (!atomic_load_explicit(&v->stop, memory_order_relaxed)) {
		u64 shoot = atomic_load(&v->shoot);

		if (shoot != seen) {
			if (shoot % 3)
				um_mmu_invlpg(v->mmu, TEST_GVA);
			else
				um_mmu_new_cr3(v->mmu, true);
			seen = shoot;
			atomic_store(&v->acked, seen);
		}
		if (access_vcpu(v, TEST_GVA, UM_READ, &hva, &gpa) != UM_ACCESS_OK ||
		    !um_get64(hva, &val)) {
			v->wrong++;
			continue;
		}
		/*
		 * The pages hold their numbers; the entry may be newer than the request, not older.
		 */
		if (val < seen)
			v->wrong++;
		v->stores++;
	}
	um_mmu_leave(v->mmu);
	return NULL;
}

static void shootdown(void **state)
{
	struct timespec t0;
	struct vcpu a = { 0 }, b;
	struct guest g;
	gpa_t pte;
	u64 n = 0;

	init(&g);
	pte = guest_map(&g, TEST_GVA, 8 * MB | RW, 1);
	start(&b, &g, read_loop, 0);
	/* This thread is the vCPU that edits, with the guest's first MMU. */
	a.g = &g;
	a.mmu = um_mmu_create(g.vm, g.cpu, &a.counters, kick, &a);
	assert_non_null(a.mmu);
	assert_int_equal(um_mmu_enter(a.mmu), 0);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	while (!expired(&t0, 2.0)) {
		gpa_t page = 8 * MB + (n + 1) % 512 * 4096;

		n++;
		assert_true(store_vcpu(&a, KGVA + page, n));
		assert_true(store_vcpu(&a, KGVA + pte, page | RW | (n & 1 ? PTE_A : 0)));
		if (n % 5 == 0) {
			/*
			 * Sometimes through the upper level: take the table away and give it back.
			 */
			gpa_t pde = guest_entry(&g, TEST_GVA, 2);

			assert_true(store_vcpu(&a, KGVA + pde, guest_read(&g, pde)));
		}
		if (n % 7 == 0)
			um_mmu_new_cr3(a.mmu, true);
		atomic_store(&b.shoot, n);
		while (atomic_load(&b.acked) != n && !expired(&t0, 30))
			poll_kick(&a);
	}
	um_mmu_leave(a.mmu);
	finish(&b);
	print_message("%lu shootdowns, %lu reads\n", (unsigned long)n, (unsigned long)b.stores);
	assert_int_equal(b.wrong, 0);
	assert_true(n >= 10);
	um_mmu_destroy(a.mmu);
	um_mmu_enter(g.mmu);
	guest_destroy(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(delete_under_stores),
		cmocka_unit_test(migration),
		cmocka_unit_test(shootdown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

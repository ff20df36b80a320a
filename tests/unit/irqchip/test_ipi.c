// SPDX-License-Identifier: MIT
/*
 * Interprocessor interrupts: ICR in both modes, shorthands, destinations, SIPI, self-IPI, the
 * hypercall.
 */
#include "fixture.h"

#include <errno.h>

static void icr(struct cpu *c, u32 dest, u32 low)
{
	mmio_write(c, 0x310, dest << 24);
	mmio_write(c, 0x300, low);
}

/* Which CPUs have @vec, as a bitmap; takes it from them. */
static unsigned who(struct vm *vm, int vec)
{
	unsigned map = 0;

	for (int i = 0; i < vm->ncpus; i++) {
		int got = take(&vm->cpu[i]);

		if (got >= 0) {
			assert_int_equal(got, vec);
			map |= 1u << i;
		}
	}
	return map;
}

static void test_physical(void **state)
{
	struct vm *vm = *state;

	icr(&vm->cpu[0], 2, 0x4061);
	assert_int_equal(who(vm, 0x61), 4);
	icr(&vm->cpu[0], 0, 0x4061);
	assert_int_equal(who(vm, 0x61), 1);
	icr(&vm->cpu[0], 0xff, 0x4061);
	assert_int_equal(who(vm, 0x61), 0xf);
	icr(&vm->cpu[0], 9, 0x4061);
	assert_int_equal(who(vm, 0x61), 0);
	/* What was written reads back, but for the delivery status. */
	icr(&vm->cpu[3], 2, 0x4061 | 1 << 12);
	assert_int_equal(mmio_read(&vm->cpu[3], 0x300), 0x4061);
	assert_int_equal(mmio_read(&vm->cpu[3], 0x310), 2 << 24);
	assert_int_equal(who(vm, 0x61), 4);
	/* Writing the upper half sends nothing. */
	mmio_write(&vm->cpu[3], 0x310, 1 << 24);
	assert_int_equal(who(vm, 0x61), 0);
}

static void test_shorthands(void **state)
{
	struct vm *vm = *state;

	icr(&vm->cpu[1], 3, 0x44061);
	assert_int_equal(who(vm, 0x61), 2);
	icr(&vm->cpu[1], 3, 0x84061);
	assert_int_equal(who(vm, 0x61), 0xf);
	icr(&vm->cpu[1], 3, 0xc4061);
	assert_int_equal(who(vm, 0x61), 0xd);
}

static void test_logical_flat(void **state)
{
	struct vm *vm = *state;

	for (int i = 0; i < 4; i++)
		mmio_write(&vm->cpu[i], 0xd0, 1u << (24 + i));
	icr(&vm->cpu[0], 0x0a, 0x4861);
	assert_int_equal(who(vm, 0x61), 0xa);
	icr(&vm->cpu[0], 0xf0, 0x4861);
	assert_int_equal(who(vm, 0x61), 0);
	icr(&vm->cpu[0], 0xff, 0x4861);
	assert_int_equal(who(vm, 0x61), 0xf);
}

static void test_logical_cluster(void **state)
{
	struct vm *vm = *state;

	/* Clusters 0 and 1, members 1 and 2. */
	for (u32 i = 0; i < 4; i++) {
		mmio_write(&vm->cpu[i], 0xe0, 0);
		assert_int_equal(mmio_read(&vm->cpu[i], 0xe0), 0x0fffffff);
		mmio_write(&vm->cpu[i], 0xd0, (i >> 1) << 28 | 1u << (24 + (i & 1)));
	}
	icr(&vm->cpu[0], 0x03, 0x4861);
	assert_int_equal(who(vm, 0x61), 3);
	icr(&vm->cpu[0], 0x12, 0x4861);
	assert_int_equal(who(vm, 0x61), 8);
	icr(&vm->cpu[0], 0x23, 0x4861);
	assert_int_equal(who(vm, 0x61), 0);
}

static void test_lowest(void **state)
{
	struct vm *vm = *state;

	for (int i = 0; i < 4; i++) {
		mmio_write(&vm->cpu[i], 0xd0, 1u << (24 + i));
		mmio_write(&vm->cpu[i], 0x80, i == 2 ? 0x10 : 0x30);
	}
	icr(&vm->cpu[0], 0x0f, 0x4961);
	assert_int_equal(who(vm, 0x61), 4);
	icr(&vm->cpu[0], 0x04 | 0x08, 0x4961);
	assert_int_equal(who(vm, 0x61), 4);
	icr(&vm->cpu[0], 0x08, 0x4961);
	assert_int_equal(who(vm, 0x61), 8);
	/* To all, physically, is to all. */
	icr(&vm->cpu[0], 0xff, 0x4161);
	assert_int_equal(who(vm, 0x61), 0xf);
}

static void test_nmi_smi_init_sipi(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[1];

	icr(&vm->cpu[0], 1, 0x4400);
	assert_int_equal(c->nmis, 1);
	icr(&vm->cpu[0], 1, 0x4200);
	assert_int_equal(c->smis, 1);
	icr(&vm->cpu[0], 1, 0xc500);
	assert_int_equal(c->inits, 1);
	icr(&vm->cpu[0], 1, 0x8500); /* level de-assert */
	assert_int_equal(c->inits, 1);
	icr(&vm->cpu[0], 1, 0x0500); /* edge: the level bit has no meaning */
	assert_int_equal(c->inits, 2);
	icr(&vm->cpu[0], 1, 0x4699);
	assert_int_equal(c->sipis, 1);
	assert_int_equal(c->sipi_vector, 0x99);
	icr(&vm->cpu[0], 0, 0xc4500); /* INIT to all others */
	assert_int_equal(vm->cpu[0].inits, 0);
	assert_int_equal(c->inits, 3);
	assert_int_equal(vm->cpu[3].inits, 1);
	/* A LAPIC that software disabled takes these; one that is disabled in its base does not. */
	mmio_write(c, 0xf0, 0xff);
	icr(&vm->cpu[0], 1, 0x4400);
	assert_int_equal(c->nmis, 2);
	assert_true(um_lapic_set_base(c->l, UM_LAPIC_BASE, false));
	icr(&vm->cpu[0], 1, 0x4400);
	assert_int_equal(c->nmis, 2);
	/* External interrupts and the reserved mode cannot be sent. */
	icr(&vm->cpu[0], 2, 0x4761);
	icr(&vm->cpu[0], 2, 0x4361);
	assert_int_equal(vm->cpu[2].kicks, 0);
}

static void test_x2apic(void **state)
{
	struct vm *vm = *state;

	for (int i = 0; i < 4; i++)
		enter_x2apic(&vm->cpu[i]);
	msr_write(&vm->cpu[0], 0x830, 2ull << 32 | 0x4061);
	assert_int_equal(msr_read(&vm->cpu[0], 0x830), 2ull << 32 | 0x4061);
	assert_int_equal(who(vm, 0x61), 4);
	msr_write(&vm->cpu[0], 0x830, 0xffffffffull << 32 | 0x4061);
	assert_int_equal(who(vm, 0x61), 0xf);
	/* 255 is a number here. */
	msr_write(&vm->cpu[0], 0x830, 0xffull << 32 | 0x4061);
	assert_int_equal(who(vm, 0x61), 0);
	/* Logical: cluster 0, a bit for each. */
	msr_write(&vm->cpu[0], 0x830, 0x0000000aull << 32 | 0x4861);
	assert_int_equal(who(vm, 0x61), 0xa);
	msr_write(&vm->cpu[0], 0x830, 0x0001000aull << 32 | 0x4861);
	assert_int_equal(who(vm, 0x61), 0);
	msr_write(&vm->cpu[3], 0x83f, 0x77);
	assert_int_equal(who(vm, 0x77), 8);
	/* Self-IPI with an illegal vector is an error like any. */
	msr_write(&vm->cpu[3], 0x83f, 0x07);
	msr_write(&vm->cpu[3], 0x828, 0);
	assert_int_equal(msr_read(&vm->cpu[3], 0x828), 0x20);
}

static void test_hypercall(void **state)
{
	struct vm *vm = *state;

	assert_int_equal(um_irqchip_pv_ipi(vm->chip, 0xd, 0, 0, 0x61, 64), 3);
	assert_int_equal(who(vm, 0x61), 0xd);
	assert_int_equal(um_irqchip_pv_ipi(vm->chip, 1, 0, 2, 0x400, 64), 1);
	assert_int_equal(vm->cpu[2].nmis, 1);
	/* The second word starts where the first ends: 32 or 64 on. */
	assert_int_equal(um_irqchip_pv_ipi(vm->chip, 0, 1, (u32)-32, 0x61, 32), 0);
	assert_int_equal(um_irqchip_pv_ipi(vm->chip, ~0ull, ~0ull, 4090, 0x61, 64), 0);
	assert_int_equal(um_irqchip_pv_ipi(vm->chip, 1ull << 32 | 2, 0, 0, 0x61, 32), 1);
	assert_int_equal(who(vm, 0x61), 2);
	assert_int_equal(um_irqchip_pv_ipi(vm->chip, 1, 0, 0, 0x500, 64), -EINVAL);
	assert_int_equal(um_irqchip_pv_ipi(vm->chip, 1, 0, 0, 0x80061, 64), -EINVAL);
	assert_int_equal(um_irqchip_pv_ipi(vm->chip, 1, 0, 0, 0x861, 64), -EINVAL);
	assert_int_equal(who(vm, 0), 0);
}

static int setup4(void **state)
{
	*state = vm_create(4, false);
	return 0;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup4, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_physical),	 T(test_shorthands), T(test_logical_flat),
		T(test_logical_cluster), T(test_lowest),     T(test_nmi_smi_init_sipi),
		T(test_x2apic),		 T(test_hypercall),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

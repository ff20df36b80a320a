// SPDX-License-Identifier: MIT
/* Synthetic interrupt sources: registers, AutoEOI, ends of interrupts, routes and irqfds. */
#include "fixture.h"

#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "irqchip/synic.h"

#define PPR 0xa0
#define ISR 0x100 /* of vectors 0-31; 16 bytes on for the next 32 */

static bool in_service(struct cpu *c, u8 vec)
{
	return mmio_read(c, ISR + (vec >> 5) * 16u) >> (vec & 31) & 1;
}

static int setup_synic(void **state)
{
	struct vm *vm = vm_create(2, false);

	for (int i = 0; i < vm->ncpus; i++) {
		um_synic_activate(vm->cpu[i].l);
		um_synic_set_vp_index(vm->cpu[i].l, (u32)i);
	}
	*state = vm;
	return 0;
}

static void test_inactive(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];

	assert_false(um_synic_active(c->l));
	assert_true(um_synic_set_sint(c->l, 2, 0x50, true));
	assert_int_equal(um_synic_raise(c->l, 2), -1);
	assert_int_equal(take(c), -1);
}

static void test_registers(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];

	for (unsigned n = 0; n < UM_NR_SINTS; n++) {
		assert_int_equal(um_synic_get_sint(c->l, n), UM_SINT_MASKED);
		assert_int_equal(um_synic_raise(c->l, n), -1);
	}
	/* Vectors of exceptions are refused, unless the source is masked or the VMM's. */
	assert_false(um_synic_set_sint(c->l, 3, 15, false));
	assert_true(um_synic_set_sint(c->l, 3, 15 | UM_SINT_MASKED, false));
	assert_true(um_synic_set_sint(c->l, 3, 0, true));
	assert_true(um_synic_set_sint(c->l, 3, 0x10 | UM_SINT_AUTO_EOI, false));
	assert_int_equal(um_synic_get_sint(c->l, 3), 0x10 | UM_SINT_AUTO_EOI);
	/* There are 16. */
	assert_int_equal(um_synic_raise(c->l, UM_NR_SINTS), -1);
	assert_int_equal(um_synic_raise(c->l, ~0u), -1);
}

static void test_interrupt(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];
	int kicks = c->kicks;

	assert_true(um_synic_set_sint(c->l, 2, 0x50, false));
	assert_true(um_synic_raise(c->l, 2) > 0);
	assert_true(c->kicks > kicks);
	assert_int_equal(um_synic_raise(c->l, 2), 0); /* coalesced */
	assert_int_equal(um_lapic_ack(c->l), 0x50);
	assert_true(in_service(c, 0x50));
	assert_int_equal(c->sints, 0);
	eoi(c);
	assert_false(in_service(c, 0x50));
	assert_int_equal(c->sints, 1 << 2);
	/* The guest that looks by itself gets none. */
	assert_true(um_synic_set_sint(c->l, 2, 0x50 | UM_SINT_POLLING, false));
	assert_int_equal(um_synic_raise(c->l, 2), -1);
	assert_int_equal(take(c), -1);
}

/*
 * Ended when acknowledged: nothing is in service, and one of the same priority can follow at once.
 */
static void test_auto_eoi(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];

	assert_true(um_synic_set_sint(c->l, 2, 0x50 | UM_SINT_AUTO_EOI, false));
	assert_true(um_synic_set_sint(c->l, 3, 0x51, false));
	assert_true(um_synic_raise(c->l, 2) > 0);
	assert_int_equal(um_lapic_ack(c->l), 0x50);
	assert_false(in_service(c, 0x50));
	assert_int_equal(mmio_read(c, PPR), 0);
	assert_true(um_synic_raise(c->l, 2) > 0);
	assert_true(um_synic_raise(c->l, 3) > 0);
	assert_int_equal(um_lapic_ack(c->l), 0x51);
	assert_int_equal(um_lapic_ack(c->l), -1); /* 0x51 is in service */
	eoi(c);
	assert_int_equal(um_lapic_ack(c->l), 0x50);
	/* Masked again, the vector is like any other. */
	assert_true(um_synic_set_sint(c->l, 2, 0x50 | UM_SINT_AUTO_EOI | UM_SINT_MASKED, false));
	assert_true(um_lapic_fixed(c->l, 0x50) > 0);
	assert_int_equal(um_lapic_ack(c->l), 0x50);
	assert_true(in_service(c, 0x50));
	c->sints = 0;
	eoi(c);
	assert_int_equal(c->sints, 0);
}

/* The EOI of such a vector has to be seen, so it is not left to the flag in memory. */
static void test_no_pv_eoi(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0];

	assert_true(um_lapic_set_pv_eoi(c->l, PV_FLAG | 1));
	assert_true(um_lapic_fixed(c->l, 0x60) > 0);
	assert_int_equal(um_lapic_ack(c->l), 0x60);
	um_lapic_pv_eoi_enter(c->l);
	assert_int_equal(c->flag & 1, 1);
	c->flag = 0;
	um_lapic_pv_eoi_exit(c->l);
	assert_true(um_synic_set_sint(c->l, 2, 0x50, false));
	assert_true(um_synic_raise(c->l, 2) > 0);
	assert_int_equal(um_lapic_ack(c->l), 0x50);
	um_lapic_pv_eoi_enter(c->l);
	assert_int_equal(c->flag & 1, 0);
}

static void test_hv_registers(void **state)
{
	struct cpu *c = &((struct vm *)*state)->cpu[0], *other = &((struct vm *)*state)->cpu[1];
	u64 val;

	assert_false(um_lapic_hv_read(c->l, UM_LAPIC_EOI, &val));
	assert_false(um_lapic_hv_read(c->l, UM_LVT_TIMER, &val));
	assert_false(um_lapic_hv_write(c->l, UM_LVT_TIMER, 0));
	assert_true(um_lapic_hv_write(c->l, UM_LAPIC_TPR, 0x40));
	assert_true(um_lapic_hv_read(c->l, UM_LAPIC_TPR, &val));
	assert_int_equal(val, 0x40);
	/* To the APIC id in the upper half, as xAPIC has it */
	assert_true(um_lapic_hv_write(c->l, UM_LAPIC_ICR, 1ull << 56 | 0x77));
	assert_true(um_lapic_hv_read(c->l, UM_LAPIC_ICR, &val));
	assert_int_equal(val, 1ull << 56 | 0x77);
	assert_int_equal(um_lapic_ack(other->l), 0x77);
	assert_true(um_lapic_hv_write(other->l, UM_LAPIC_EOI, 1));
	assert_false(in_service(other, 0x77));
}

/* ---- routes ---- */

static int route(struct vm *vm, u32 gsi, u32 vp, u32 sint)
{
	struct kvm_irq_routing_entry e = {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_HV_SINT,
		.u.hv_sint = { .vcpu = vp, .sint = sint },
	};

	return um_irqchip_set_routing(vm->chip, &e, 1, 0);
}

static void test_route(void **state)
{
	struct vm *vm = *state;
	struct kvm_irq_routing_entry two[2] = {
		{ .gsi = 40, .type = KVM_IRQ_ROUTING_HV_SINT },
		{ .gsi = 40, .type = KVM_IRQ_ROUTING_HV_SINT },
	};

	assert_true(um_synic_set_sint(vm->cpu[1].l, 4, 0x61, false));
	assert_int_equal(route(vm, 40, 1, 4), 0);
	assert_true(line(vm, 40, 1) > 0);
	assert_int_equal(line(vm, 40, 0), -1);
	assert_int_equal(take(&vm->cpu[0]), -1);
	assert_int_equal(take(&vm->cpu[1]), 0x61);
	/* By index, not by id */
	um_synic_set_vp_index(vm->cpu[1].l, 9);
	assert_int_equal(line(vm, 40, 1), -1);
	assert_int_equal(route(vm, 40, 9, 4), 0);
	assert_true(line(vm, 40, 1) > 0);
	assert_int_equal(take(&vm->cpu[1]), 0x61);
	/* What isn't there is found out when it is used. */
	assert_int_equal(route(vm, 40, 9, 16), 0);
	assert_int_equal(line(vm, 40, 1), -1);
	assert_int_equal(route(vm, 40, ~0u, ~0u), 0);
	assert_int_equal(line(vm, 40, 1), -1);
	/* One of a GSI, and nothing beside it */
	assert_int_equal(um_irqchip_set_routing(vm->chip, two, 2, 0), -EINVAL);
	two[0].flags = 1;
	assert_int_equal(um_irqchip_set_routing(vm->chip, two, 1, 0), -EINVAL);
}

static u64 count(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	u64 n = 0;

	if (poll(&p, 1, ms) == 1)
		assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	return n;
}

/* A VMM's message: eventfd, interrupt, and the end of it told by another eventfd. */
static void test_irqfd(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[1];
	const u64 one = 1;
	int fd = eventfd(0, EFD_CLOEXEC), ack = eventfd(0, EFD_CLOEXEC);
	struct kvm_irqfd args = {
		.fd = (u32)fd, .gsi = 40, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = (u32)ack
	};

	assert_true(fd >= 0 && ack >= 0);
	assert_true(um_synic_set_sint(c->l, 4, 0x61, false));
	assert_int_equal(route(vm, 40, 1, 4), 0);
	assert_int_equal(um_irqchip_irqfd(vm->chip, &args), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
		wait_interrupt(c);
		assert_int_equal(um_lapic_ack(c->l), 0x61);
		assert_int_equal(count(ack, 0), 0);
		eoi(c);
		assert_int_equal(count(ack, 0), 1);
	}
	/* With AutoEOI the guest says by EOM that it is done. */
	assert_true(um_synic_set_sint(c->l, 4, 0x61 | UM_SINT_AUTO_EOI, false));
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	wait_interrupt(c);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	assert_int_equal(count(ack, 0), 0);
	um_synic_end_of_message(vm->cpu[0].l); /* another vCPU's */
	assert_int_equal(count(ack, 0), 0);
	um_synic_end_of_message(c->l);
	assert_int_equal(count(ack, 0), 1);
	args.flags |= KVM_IRQFD_FLAG_DEASSIGN;
	assert_int_equal(um_irqchip_irqfd(vm->chip, &args), 0);
	close(fd);
	close(ack);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_inactive, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_registers, setup_synic, teardown),
		cmocka_unit_test_setup_teardown(test_interrupt, setup_synic, teardown),
		cmocka_unit_test_setup_teardown(test_auto_eoi, setup_synic, teardown),
		cmocka_unit_test_setup_teardown(test_no_pv_eoi, setup_synic, teardown),
		cmocka_unit_test_setup_teardown(test_hv_registers, setup_synic, teardown),
		cmocka_unit_test_setup_teardown(test_route, setup_synic, teardown),
		cmocka_unit_test_setup_teardown(test_irqfd, setup_synic, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

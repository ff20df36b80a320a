// SPDX-License-Identifier: MIT
/* The IOAPIC: entries, edges and levels, Remote IRR, delivery modes. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

#define LEVEL  0x8000ull
#define REMOTE 0x4000ull
#define MASKED 0x10000ull
#define TO(id) ((u64)(id) << 56)

static void test_registers(void **state)
{
	struct vm *vm = *state;
	u8 b[8] = { 0 };

	assert_int_equal(io_read(vm, 1), 0x00170011);
	io_write(vm, 0, 0xff000000);
	assert_int_equal(io_read(vm, 0), 0x0f000000);
	assert_int_equal(io_read(vm, 2), 0x0f000000);
	assert_int_equal(io_read(vm, 0x40), 0);
	for (unsigned pin = 0; pin < 24; pin++)
		assert_int_equal(redir_read(vm, pin), MASKED);
	/* Delivery status and Remote IRR are read-only, and what is reserved reads as 0. */
	redir_write(vm, 7, ~0ull);
	assert_int_equal(redir_read(vm, 7), 0xff00000000000000ull | (0x1ffff & ~0x5000ull));
	/* Accesses of other widths, and outside. */
	assert_true(um_irqchip_mmio_write(vm->chip, UM_IOAPIC_BASE, 1, "\1"));
	assert_true(um_irqchip_mmio_read(vm->chip, UM_IOAPIC_BASE + 0x10, 8, b));
	assert_memory_equal(b, "\x11\0\x17\0\0\0\0\0", 8);
	assert_true(um_irqchip_mmio_read(vm->chip, UM_IOAPIC_BASE + 0x40, 4, b));
	assert_memory_equal(b, "\0\0\0\0", 4);
	assert_false(um_irqchip_mmio_read(vm->chip, UM_IOAPIC_BASE + 0x100, 4, b));
	assert_false(um_irqchip_mmio_read(vm->chip, UM_IOAPIC_BASE - 4, 4, b));
}

static void test_edge(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[1];

	redir_write(vm, 4, TO(1) | 0x51);
	assert_int_equal(line(vm, 4, 1), 1);
	assert_int_equal(vm->cpu[0].kicks, 0);
	assert_int_equal(vm->cpu[1].kicks, 1);
	assert_int_equal(line(vm, 4, 1), 0); /* no edge */
	assert_int_equal(take(c), 0x51);
	assert_int_equal(take(c), -1);
	assert_int_equal(line(vm, 4, 1), 0); /* still none */
	assert_int_equal(take(c), -1);
	line(vm, 4, 0);
	assert_int_equal(line(vm, 4, 1), 1);
	line(vm, 4, 0);
	assert_int_equal(line(vm, 4, 1), 0); /* still in IRR */
	assert_int_equal(take(c), 0x51);
	assert_int_equal(take(c), -1);
	assert_int_equal(redir_read(vm, 4) & REMOTE, 0);
}

static void test_edge_while_masked_is_lost(void **state)
{
	struct vm *vm = *state;

	redir_write(vm, 20, MASKED | 0x51);
	assert_int_equal(line(vm, 20, 1), -1);
	redir_write(vm, 20, 0x51);
	assert_int_equal(take(&vm->cpu[0]), -1);
	line(vm, 20, 0);
	assert_int_equal(line(vm, 20, 1), 1);
	assert_int_equal(take(&vm->cpu[0]), 0x51);
}

static void test_level_and_remote_irr(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];

	redir_write(vm, 20, LEVEL | 0x61);
	assert_int_equal(line(vm, 20, 1), 1);
	assert_int_equal(redir_read(vm, 20) & REMOTE, REMOTE);
	assert_int_equal(line(vm, 20, 1), 0);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	assert_int_equal(mmio_read(c, 0x180 + 0x30) >> 1 & 1, 1); /* TMR */
	assert_false(um_lapic_has_interrupt(c->l));
	/* Still high at the EOI: again. */
	eoi(c);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	line(vm, 20, 0);
	assert_int_equal(redir_read(vm, 20) & REMOTE, REMOTE);
	eoi(c);
	assert_int_equal(redir_read(vm, 20) & REMOTE, 0);
	assert_int_equal(um_lapic_ack(c->l), -1);
}

static void test_level_unmask(void **state)
{
	struct vm *vm = *state;

	redir_write(vm, 20, MASKED | LEVEL | 0x61);
	assert_int_equal(line(vm, 20, 1), -1);
	redir_write(vm, 20, LEVEL | 0x61);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	line(vm, 20, 0);
}

static void test_remote_irr_cleared_by_edge(void **state)
{
	struct vm *vm = *state;

	redir_write(vm, 20, LEVEL | 0x61);
	line(vm, 20, 1);
	line(vm, 20, 0);
	assert_int_equal(redir_read(vm, 20) & REMOTE, REMOTE);
	redir_write(vm, 20, MASKED | 0x61);
	redir_write(vm, 20, LEVEL | 0x61);
	assert_int_equal(redir_read(vm, 20) & REMOTE, 0);
}

/* Two pins with one vector: one EOI ends both. */
static void test_shared_vector(void **state)
{
	struct vm *vm = *state;

	redir_write(vm, 20, LEVEL | 0x61);
	redir_write(vm, 21, LEVEL | 0x61);
	line(vm, 20, 1);
	line(vm, 21, 1);
	assert_int_equal(redir_read(vm, 20) & redir_read(vm, 21) & REMOTE, REMOTE);
	assert_int_equal(um_lapic_ack(vm->cpu[0].l), 0x61);
	line(vm, 20, 0);
	eoi(&vm->cpu[0]);
	assert_int_equal(redir_read(vm, 20) & REMOTE, 0);
	assert_int_equal(redir_read(vm, 21) & REMOTE, REMOTE);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
}

/* An EOI at one CPU clears Remote IRR, and the message then goes to the other. */
static void test_retarget(void **state)
{
	struct vm *vm = *state;

	redir_write(vm, 20, TO(0) | LEVEL | 0x61);
	line(vm, 20, 1);
	assert_int_equal(um_lapic_ack(vm->cpu[0].l), 0x61);
	io_write(vm, 0x10 + 41, 1 << 24);
	eoi(&vm->cpu[0]);
	assert_int_equal(um_lapic_ack(vm->cpu[0].l), -1);
	assert_int_equal(um_lapic_ack(vm->cpu[1].l), 0x61);
}

static void test_shared_line(void **state)
{
	struct vm *vm = *state;

	redir_write(vm, 20, LEVEL | 0x61);
	um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_USER, 20, 1);
	um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_RESAMPLE, 20, 1);
	um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_RESAMPLE, 20, 0);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	assert_int_equal(um_lapic_ack(vm->cpu[0].l), 0x61);
	um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_USER, 20, 0);
	eoi(&vm->cpu[0]);
	assert_int_equal(um_lapic_ack(vm->cpu[0].l), -1);
}

static void test_delivery_modes(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[1];

	/* SMI, NMI, INIT; these have no EOI, so Remote IRR stays clear even with the level bit. */
	redir_write(vm, 20, TO(1) | 0x200);
	assert_int_equal(line(vm, 20, 1), 1);
	assert_int_equal(c->smis, 1);
	redir_write(vm, 21, TO(1) | LEVEL | 0x400);
	assert_int_equal(line(vm, 21, 1), 1);
	assert_int_equal(c->nmis, 1);
	assert_int_equal(redir_read(vm, 21) & REMOTE, 0);
	redir_write(vm, 22, TO(1) | 0x500);
	assert_int_equal(line(vm, 22, 1), 1);
	assert_int_equal(c->inits, 1);
	assert_int_equal(vm->cpu[0].smis + vm->cpu[0].nmis + vm->cpu[0].inits, 0);
	/* Nobody has this number. */
	redir_write(vm, 23, TO(9) | 0x61);
	assert_int_equal(line(vm, 23, 1), -1);
}

static void test_logical_and_broadcast(void **state)
{
	struct vm *vm = *state;

	mmio_write(&vm->cpu[0], 0xd0, 0x01000000);
	mmio_write(&vm->cpu[1], 0xd0, 0x02000000);
	redir_write(vm, 20, TO(3) | 0x800 | 0x61);
	assert_int_equal(line(vm, 20, 1), 2);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	assert_int_equal(take(&vm->cpu[1]), 0x61);
	redir_write(vm, 21, TO(0xff) | 0x62);
	assert_int_equal(line(vm, 21, 1), 2);
	assert_int_equal(take(&vm->cpu[0]), 0x62);
	assert_int_equal(take(&vm->cpu[1]), 0x62);
}

static void test_lowest_priority(void **state)
{
	struct vm *vm = *state;

	mmio_write(&vm->cpu[0], 0xd0, 0x01000000);
	mmio_write(&vm->cpu[1], 0xd0, 0x02000000);
	redir_write(vm, 20, TO(3) | 0x800 | 0x100 | 0x61);
	/* The one with the lower task priority. */
	mmio_write(&vm->cpu[0], 0x80, 0x20);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(line(vm, 20, 1), 1);
		line(vm, 20, 0);
		assert_int_equal(take(&vm->cpu[0]), -1);
		assert_int_equal(take(&vm->cpu[1]), 0x61);
	}
	mmio_write(&vm->cpu[1], 0x80, 0x30);
	line(vm, 20, 1);
	line(vm, 20, 0);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	/* Equals take turns. */
	mmio_write(&vm->cpu[0], 0x80, 0);
	mmio_write(&vm->cpu[1], 0x80, 0);
	int got[2] = { 0, 0 };
	for (int i = 0; i < 10; i++) {
		line(vm, 20, 1);
		line(vm, 20, 0);
		for (int n = 0; n < 2; n++)
			got[n] += take(&vm->cpu[n]) == 0x61;
	}
	assert_int_equal(got[0] + got[1], 10);
	assert_true(got[0] >= 4 && got[1] >= 4);
	/* One that is disabled by software is not chosen. */
	mmio_write(&vm->cpu[0], 0xf0, 0xff);
	for (int i = 0; i < 3; i++) {
		line(vm, 20, 1);
		line(vm, 20, 0);
		assert_int_equal(take(&vm->cpu[1]), 0x61);
	}
}

/* A LAPIC that is disabled takes nothing, so Remote IRR does not get stuck. */
static void test_disabled_target(void **state)
{
	struct vm *vm = *state;

	mmio_write(&vm->cpu[0], 0xf0, 0xff);
	redir_write(vm, 20, LEVEL | 0x61);
	assert_int_equal(line(vm, 20, 1), 0);
	assert_int_equal(redir_read(vm, 20) & REMOTE, 0);
	mmio_write(&vm->cpu[0], 0xf0, 0x1ff);
	assert_int_equal(line(vm, 20, 1), 1);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
}

static void test_state(void **state)
{
	struct vm *vm = *state, *other = vm_create(2, false);
	struct kvm_irqchip s = { .chip_id = KVM_IRQCHIP_IOAPIC }, back = s;

	redir_write(vm, 5, TO(1) | 0x55);
	redir_write(vm, 20, TO(1) | LEVEL | 0x61);
	redir_write(vm, 21, TO(1) | LEVEL | MASKED | 0x62);
	io_write(vm, 0, 0x03000000);
	line(vm, 5, 1);
	line(vm, 20, 1);
	line(vm, 21, 1);
	assert_int_equal(um_irqchip_get_state(vm->chip, &s), 0);
	assert_int_equal(s.chip.ioapic.base_address, UM_IOAPIC_BASE);
	/* The edge was delivered and is not to be delivered again; the levels stand. */
	assert_int_equal(s.chip.ioapic.irr, 1 << 20 | 1 << 21);
	assert_int_equal(um_irqchip_set_state(other->chip, &s), 0);
	assert_int_equal(um_irqchip_get_state(other->chip, &back), 0);
	assert_memory_equal(&s.chip.ioapic, &back.chip.ioapic, sizeof(s.chip.ioapic));
	assert_false(um_lapic_has_interrupt(other->cpu[1].l));
	redir_write(other, 21, TO(1) | LEVEL | 0x62);
	assert_int_equal(um_lapic_ack(other->cpu[1].l), 0x62);
	line(other, 21, 0);
	eoi(&other->cpu[1]);

	/* A request that was not sent yet is sent by setting the state. */
	s.chip.ioapic.irr = 1 << 5;
	assert_int_equal(um_irqchip_set_state(other->chip, &s), 0);
	assert_int_equal(take(&other->cpu[1]), 0x55);
	vm_destroy(other);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup2, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_registers),
		T(test_edge),
		T(test_edge_while_masked_is_lost),
		T(test_level_and_remote_irr),
		T(test_level_unmask),
		T(test_remote_irr_cleared_by_edge),
		T(test_shared_vector),
		T(test_retarget),
		T(test_shared_line),
		T(test_delivery_modes),
		T(test_logical_and_broadcast),
		T(test_lowest_priority),
		T(test_disabled_target),
		T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* The split chip: the VMM has PIC, IOAPIC and PIT, and is told of EOIs. */
#include "fixture.h"

#include <errno.h>

static struct kvm_irq_routing_entry msi_route(u32 gsi, u32 address_lo, u32 data)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = address_lo, .data = data },
	};
}

static void test_what_is_not_there(void **state)
{
	struct vm *vm = *state;
	struct um_irqchip_config cfg = { .split = true, .nr_reserved_pins = 4097 };
	struct um_irqchip *chip;
	struct kvm_irqchip s = { 0 };
	struct kvm_irq_routing_entry e = { .gsi = 1, .type = KVM_IRQ_ROUTING_IRQCHIP };
	u32 val;

	assert_true(um_irqchip_is_split(vm->chip));
	assert_false(um_irqchip_mmio_read(vm->chip, UM_IOAPIC_BASE, 4, &val));
	assert_false(um_irqchip_mmio_write(vm->chip, UM_IOAPIC_BASE, 4, &val));
	assert_false(um_irqchip_pio_read(vm->chip, 0x20, 1, &val));
	assert_false(um_irqchip_pio_write(vm->chip, 0x20, 1, &val));
	assert_int_equal(um_irqchip_get_state(vm->chip, &s), -ENXIO);
	assert_int_equal(um_irqchip_set_state(vm->chip, &s), -ENXIO);
	assert_int_equal(um_irqchip_set_routing(vm->chip, &e, 1, 0), -EINVAL);
	assert_int_equal(line(vm, 4, 1), -1); /* the table is empty */
	assert_int_equal(um_irqchip_create(&chip, &cfg), -EINVAL);
	/* Directed EOI is advertised: the VMM's IOAPIC may have the register for it. */
	assert_int_equal(mmio_read(&vm->cpu[0], 0x30), 0x1050014);
	mmio_write(&vm->cpu[0], 0xf0, 0x11ff);
	assert_int_equal(mmio_read(&vm->cpu[0], 0xf0), 0x11ff);
	um_lapic_set_cpuid(vm->cpu[0].l, false, true, 40);
	assert_int_equal(mmio_read(&vm->cpu[0], 0x30), 0x50014);
}

static void test_extint(void **state)
{
	struct vm *vm = *state, *full = vm_create(1, false);
	struct um_lapic *l = vm->cpu[0].l;

	assert_int_equal(um_lapic_set_extint(full->cpu[0].l, 0x33), -ENXIO);
	vm_destroy(full);
	assert_true(um_lapic_accepts_extint(l));
	assert_false(um_lapic_accepts_extint(vm->cpu[1].l));
	assert_int_equal(um_lapic_set_extint(l, 0x33), 0);
	assert_true(vm->cpu[0].kicks > 0);
	assert_true(um_lapic_extint_pending(l));
	assert_int_equal(um_lapic_set_extint(l, 0x34), -EEXIST);
	assert_true(um_lapic_has_interrupt(l));
	/* It goes before the LAPIC's own, and past TPR. */
	msi(vm, 0xfee00000, 0xf1);
	um_lapic_set_cr8(l, 15);
	assert_int_equal(um_lapic_ack(l), 0x33);
	assert_false(um_lapic_extint_pending(l));
	assert_int_equal(um_lapic_ack(l), -1);
	/* Not while LINT0 is masked. */
	mmio_write(&vm->cpu[0], 0x350, 0x10700);
	assert_int_equal(um_lapic_set_extint(l, 0x33), 0);
	assert_false(um_lapic_has_interrupt(l));
	assert_int_equal(um_lapic_ack(l), -1);
	mmio_write(&vm->cpu[0], 0x350, 0x700);
	assert_int_equal(um_lapic_ack(l), 0x33);
}

static void test_eoi_exits(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];
	struct kvm_irq_routing_entry e[] = {
		msi_route(3, 0xfee00000, 0xc000 | 0x61),  /* level, to CPU 0 */
		msi_route(4, 0xfee00000, 0x62),		  /* edge */
		msi_route(5, 0xfee01000, 0xc000 | 0x63),  /* level, to CPU 1 */
		msi_route(30, 0xfee00000, 0xc000 | 0x64), /* not a pin */
	};

	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 4, 0), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(line(vm, 3, 1), 1);
		assert_int_equal(um_lapic_ack(c->l), 0x61);
		assert_int_equal(um_lapic_take_ioapic_eoi(c->l), -1);
		eoi(c);
		assert_int_equal(um_lapic_take_ioapic_eoi(c->l), 0x61);
		assert_int_equal(um_lapic_take_ioapic_eoi(c->l), -1);
	}
	line(vm, 4, 1);
	assert_int_equal(take(c), 0x62);
	assert_int_equal(um_lapic_take_ioapic_eoi(c->l), -1);
	line(vm, 30, 1);
	assert_int_equal(take(c), 0x64);
	assert_int_equal(um_lapic_take_ioapic_eoi(c->l), -1);
	/* Two before the VMM is asked. */
	line(vm, 3, 1);
	assert_int_equal(take(c), 0x61);
	msi(vm, 0xfee00000, 0xc063);
	assert_int_equal(take(c), 0x63);
	assert_int_equal(um_lapic_take_ioapic_eoi(c->l), 0x63);
	assert_int_equal(um_lapic_take_ioapic_eoi(c->l), 0x61);
	/* Delivered as an edge, but its route says level by the time of the EOI. */
	msi(vm, 0xfee00000, 0x61);
	assert_int_equal(take(c), 0x61);
	assert_int_equal(um_lapic_take_ioapic_eoi(c->l), 0x61);
	/* The same vector elsewhere is somebody else's. */
	msi(vm, 0xfee00000, 0x63);
	assert_int_equal(take(c), 0x63);
	assert_int_equal(um_lapic_take_ioapic_eoi(c->l), -1);
	/* No offer of PV EOI for what the VMM waits for. */
	assert_true(um_lapic_set_pv_eoi(c->l, PV_FLAG | 1));
	line(vm, 3, 1);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	um_lapic_pv_eoi_enter(c->l);
	assert_int_equal(c->flag, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup_split, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_what_is_not_there),
		T(test_extint),
		T(test_eoi_exits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* GSI routing and MSI. */
#include "fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct kvm_irq_routing_entry chip_route(u32 gsi, u32 chip, u32 pin)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = chip, .pin = pin },
	};
}

static struct kvm_irq_routing_entry msi_route(u32 gsi, u32 address_lo, u32 data)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = address_lo, .data = data },
	};
}

static int set1(struct vm *vm, struct kvm_irq_routing_entry e)
{
	return um_irqchip_set_routing(vm->chip, &e, 1, 0);
}

/* Every GSI of the default table reaches its pins, and no other. */
static void test_default_table(void **state)
{
	struct vm *vm = *state;

	for (u32 pin = 0; pin < 24; pin++)
		redir_write(vm, pin, 0x8000 | (0x40 + pin));
	mmio_write(&vm->cpu[0], 0x350, 0x10700);
	pic_program(vm, 0xffff);
	for (u32 gsi = 0; gsi < 24; gsi++) {
		bool pic = gsi < 16 && gsi != 2;

		assert_int_equal(line(vm, gsi, 1), pic ? 2 : 1);
		assert_int_equal(take(&vm->cpu[0]), 0x40 + gsi);
		line(vm, gsi, 0);
		outb(vm, 0x20, 0x0a);
		outb(vm, 0xa0, 0x0a);
		if (pic && gsi < 8)
			assert_int_equal(inb(vm, 0x20) >> gsi & 1, 1);
		else if (pic)
			assert_int_equal(inb(vm, 0xa0) >> (gsi - 8) & 1, 1);
		take(&vm->cpu[0]);
	}
	assert_int_equal(line(vm, 24, 1), -1);
	assert_int_equal(line(vm, 4095, 1), -1);
	assert_int_equal(line(vm, 0xffffffff, 1), -1);
	assert_int_equal(um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_MAX, 4, 1), -1);
}

static void test_replaced_table(void **state)
{
	struct vm *vm = *state;
	struct kvm_irq_routing_entry e[] = {
		msi_route(4095, 0xfee00000, 0x71),
		chip_route(0, KVM_IRQCHIP_IOAPIC, 2),
		chip_route(0, KVM_IRQCHIP_PIC_MASTER, 0),
		msi_route(100, 0xfee01000, 0x72),
	};

	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 4, 0), 0);
	redir_write(vm, 2, 0x61);
	redir_write(vm, 0, 0x62);
	assert_int_equal(line(vm, 0, 1), 1);
	assert_int_equal(line(vm, 5, 1), -1);
	mmio_write(&vm->cpu[0], 0x350, 0x10000);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	assert_int_equal(line(vm, 4095, 1), 1);
	assert_int_equal(take(&vm->cpu[0]), 0x71);
	assert_int_equal(line(vm, 4095, 0), -1); /* a message has no falling edge */
	assert_int_equal(line(vm, 100, 1), 1);
	assert_int_equal(line(vm, 100, 1), 0); /* coalesced */
	assert_int_equal(take(&vm->cpu[1]), 0x72);
	/* And the PIT follows its GSI. */
	outb(vm, 0x43, 0x34);
	outb(vm, 0x40, 0xa9);
	outb(vm, 0x40, 0x04);
	line(vm, 0, 0);
	wait_interrupt(&vm->cpu[0]);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	/* An empty table. */
	assert_int_equal(um_irqchip_set_routing(vm->chip, NULL, 0, 0), 0);
	assert_int_equal(line(vm, 100, 1), -1);
}

static void test_errors(void **state)
{
	struct vm *vm = *state;
	struct kvm_irq_routing_entry e[4] = { 0 }, bad;

	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 4097, 0), -EINVAL);
	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 0, 1), -EINVAL);
	assert_int_equal(set1(vm, chip_route(4096, KVM_IRQCHIP_IOAPIC, 0)), -EINVAL);
	assert_int_equal(set1(vm, chip_route(0xffffffff, KVM_IRQCHIP_IOAPIC, 0)), -EINVAL);
	assert_int_equal(set1(vm, chip_route(0, KVM_IRQCHIP_IOAPIC, 24)), -EINVAL);
	assert_int_equal(set1(vm, chip_route(0, KVM_IRQCHIP_PIC_MASTER, 8)), -EINVAL);
	assert_int_equal(set1(vm, chip_route(0, KVM_IRQCHIP_PIC_SLAVE, 8)), -EINVAL);
	assert_int_equal(set1(vm, chip_route(0, 3, 0)), -EINVAL);
	bad = chip_route(0, KVM_IRQCHIP_IOAPIC, 0);
	bad.flags = KVM_MSI_VALID_DEVID;
	assert_int_equal(set1(vm, bad), -EINVAL);
	bad = msi_route(0, 0xfee00000, 0x61);
	bad.flags = KVM_MSI_VALID_DEVID;
	assert_int_equal(set1(vm, bad), 0);
	bad.flags = 2;
	assert_int_equal(set1(vm, bad), -EINVAL);
	for (u32 type = 0; type < 8; type++) {
		bad = msi_route(0, 0xfee00000, 0x61);
		bad.type = type;
		assert_int_equal(set1(vm, bad),
				 type == KVM_IRQ_ROUTING_MSI || type == KVM_IRQ_ROUTING_HV_SINT
					 ? 0
					 : -EINVAL);
	}
	/* A GSI twice to one chip; a message beside anything. */
	e[0] = chip_route(7, KVM_IRQCHIP_IOAPIC, 7);
	e[1] = chip_route(7, KVM_IRQCHIP_IOAPIC, 8);
	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 2, 0), -EINVAL);
	e[1] = msi_route(7, 0xfee00000, 0x61);
	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 2, 0), -EINVAL);
	e[0] = msi_route(7, 0xfee00000, 0x61);
	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 2, 0), -EINVAL);
	e[1] = chip_route(7, KVM_IRQCHIP_IOAPIC, 7);
	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 2, 0), -EINVAL);
	e[0] = chip_route(7, KVM_IRQCHIP_PIC_MASTER, 1);
	e[2] = chip_route(7, KVM_IRQCHIP_PIC_SLAVE, 1);
	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 3, 0), 0);
	/* A refused table leaves the old one. */
	e[2].u.irqchip.pin = 9;
	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 3, 0), -EINVAL);
	redir_write(vm, 7, 0x61);
	line(vm, 7, 1);
	mmio_write(&vm->cpu[0], 0x350, 0x10000);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
}

static void test_full_table(void **state)
{
	struct vm *vm = *state;
	struct kvm_irq_routing_entry *e = calloc(4096, sizeof(*e));

	assert_non_null(e);
	for (u32 i = 0; i < 4096; i++)
		e[i] = msi_route(4095 - i, 0xfee00000, 0x20 + i % 200);
	assert_int_equal(um_irqchip_set_routing(vm->chip, e, 4096, 0), 0);
	for (u32 i = 0; i < 4096; i += 37) {
		assert_int_equal(line(vm, 4095 - i, 1), 1);
		assert_int_equal(take(&vm->cpu[0]), 0x20 + i % 200);
	}
	free(e);
}

static void test_msi(void **state)
{
	struct vm *vm = *state;
	struct kvm_msi m = { .address_lo = 0xfee00000, .data = 0x61, .flags = 2 };

	assert_int_equal(um_irqchip_send_msi(vm->chip, &m), -EINVAL);
	m.flags = KVM_MSI_VALID_DEVID;
	assert_int_equal(um_irqchip_send_msi(vm->chip, &m), 1);
	assert_int_equal(um_irqchip_send_msi(vm->chip, &m), 0);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	/* Nobody there is -1. */
	assert_int_equal(msi(vm, 0xfee09000, 0x61), -1);
	/* All; logical; with redirection hint to one of two. */
	assert_int_equal(msi(vm, 0xfeeff000, 0x61), 2);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	assert_int_equal(take(&vm->cpu[1]), 0x61);
	mmio_write(&vm->cpu[0], 0xd0, 0x01000000);
	mmio_write(&vm->cpu[1], 0xd0, 0x02000000);
	assert_int_equal(msi(vm, 0xfee03004, 0x61), 2);
	assert_int_equal(take(&vm->cpu[0]), 0x61);
	assert_int_equal(take(&vm->cpu[1]), 0x61);
	assert_int_equal(msi(vm, 0xfee0300c, 0x61), 1);
	assert_int_equal((take(&vm->cpu[0]) == 0x61) + (take(&vm->cpu[1]) == 0x61), 1);
	/* Delivery modes. */
	assert_int_equal(msi(vm, 0xfee01000, 0x400), 1);
	assert_int_equal(vm->cpu[1].nmis, 1);
	assert_int_equal(msi(vm, 0xfee01000, 0x200), 1);
	assert_int_equal(vm->cpu[1].smis, 1);
}

static void test_32bit_ids(void **state)
{
	struct vm *vm = *state;
	struct cpu big = { 0 };
	struct kvm_msi m = { .address_lo = 0xfee23000, .address_hi = 0x100, .data = 0x61 };
	struct kvm_irq_routing_entry e = msi_route(5, 0xfee00000, 0x61);

	assert_int_equal(um_lapic_create(&big.l, vm->chip, 0x123, false, &fixture_ops, &big), 0);
	enter_x2apic(&big);
	msr_write(&big, 0x80f, 0x1ff);
	assert_int_equal(um_irqchip_send_msi(vm->chip, &m), -1); /* 8 bits: CPU 0x23 */
	assert_int_equal(um_irqchip_set_x2apic_api(vm->chip, KVM_X2APIC_API_USE_32BIT_IDS), 0);
	assert_int_equal(um_irqchip_send_msi(vm->chip, &m), 1);
	assert_int_equal(take(&big), 0x61);
	m.address_hi = 0x101;
	assert_int_equal(um_irqchip_send_msi(vm->chip, &m), -EINVAL);
	e.u.msi.address_hi = 1;
	assert_int_equal(set1(vm, e), -EINVAL);

	/* 255 is everybody, until the VMM says otherwise. */
	assert_int_equal(msi(vm, 0xfeeff000, 0x62), 3);
	assert_int_equal(take(&big), 0x62);
	assert_int_equal(
		um_irqchip_set_x2apic_api(vm->chip, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK), 0);
	take(&vm->cpu[0]);
	take(&vm->cpu[1]);
	assert_int_equal(msi(vm, 0xfeeff000, 0x62), 2);
	assert_int_equal(take(&big), -1);
	um_lapic_destroy(big.l);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup2, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_default_table), T(test_replaced_table), T(test_errors), T(test_full_table),
		T(test_msi),	       T(test_32bit_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* The 8259 pair, seen through LINT0 of the boot CPU. */
#include "fixture.h"

#include <errno.h>

static struct cpu *cpu(struct vm *vm)
{
	return &vm->cpu[0];
}

static int ack(struct vm *vm)
{
	return um_lapic_ack(cpu(vm)->l);
}

static void pulse(struct vm *vm, u32 gsi)
{
	line(vm, gsi, 1);
	line(vm, gsi, 0);
}

/* After reset LINT0 of the boot CPU, and of no other, is open for the PIC. */
static void test_virtual_wire(void **state)
{
	struct vm *vm = *state;

	/* The fixture wrote SPIV with the enable bit, which leaves the LVT alone. */
	assert_int_equal(mmio_read(cpu(vm), 0x350), 0x700);
	pic_program(vm, 0xffff);
	pulse(vm, 4);
	assert_true(um_lapic_has_interrupt(vm->cpu[0].l));
	assert_false(um_lapic_has_interrupt(vm->cpu[1].l));
	assert_true(vm->cpu[0].kicks > 0);
	assert_int_equal(vm->cpu[1].kicks, 0);
	assert_int_equal(um_lapic_ack(vm->cpu[1].l), -1);
	assert_int_equal(ack(vm), 0x24);
	assert_false(um_lapic_has_interrupt(vm->cpu[0].l));

	/* Masked LINT0: the PIC is not heard. */
	outb(vm, 0x20, 0x20);
	mmio_write(cpu(vm), 0x350, 0x10700);
	pulse(vm, 4);
	assert_false(um_lapic_has_interrupt(cpu(vm)->l));
	mmio_write(cpu(vm), 0x350, 0x700);
	assert_int_equal(ack(vm), 0x24);

	/* A LAPIC that is disabled in IA32_APIC_BASE is a wire. */
	outb(vm, 0x20, 0x20);
	assert_true(um_lapic_set_base(vm->cpu[1].l, UM_LAPIC_BASE, false));
	pulse(vm, 3);
	assert_int_equal(um_lapic_ack(vm->cpu[1].l), 0x23);
}

static void test_priorities_and_eoi(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	pulse(vm, 5);
	pulse(vm, 3);
	assert_int_equal(ack(vm), 0x23);
	/* 5 waits for 3's EOI; 1 does not. */
	assert_int_equal(ack(vm), -1);
	pulse(vm, 1);
	assert_int_equal(ack(vm), 0x21);
	outb(vm, 0x20, 0x0b);
	assert_int_equal(inb(vm, 0x20), 0x0a); /* ISR */
	outb(vm, 0x20, 0x0a);
	assert_int_equal(inb(vm, 0x20), 0x20); /* IRR */
	outb(vm, 0x20, 0x20);		       /* ends 1 */
	assert_int_equal(ack(vm), -1);
	outb(vm, 0x20, 0x63); /* specific, ends 3 */
	assert_int_equal(ack(vm), 0x25);
}

static void test_slave_and_cascade(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	pulse(vm, 10);
	pulse(vm, 8);
	pulse(vm, 3);
	/* The slave's pins are between 1 and 3. */
	assert_int_equal(ack(vm), 0x28);
	assert_int_equal(ack(vm), -1);
	outb(vm, 0xa0, 0x20);
	assert_int_equal(ack(vm), -1); /* the master still has its pin 2 in service */
	outb(vm, 0x20, 0x20);
	assert_int_equal(ack(vm), 0x2a);
	outb(vm, 0xa0, 0x20);
	outb(vm, 0x20, 0x20);
	assert_int_equal(ack(vm), 0x23);
	/* Nobody else drives the cascade. */
	outb(vm, 0x20, 0x20);
	pulse(vm, 2);
	assert_int_equal(ack(vm), -1);
}

static void test_special_fully_nested(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	outb(vm, 0x20, 0x11);
	outb(vm, 0x21, 0x20);
	outb(vm, 0x21, 4);
	outb(vm, 0x21, 0x11);
	outb(vm, 0x21, 0);
	pulse(vm, 12);
	assert_int_equal(ack(vm), 0x2c);
	pulse(vm, 9); /* above 12 in the slave: passes, although pin 2 is in service */
	assert_int_equal(ack(vm), 0x29);
}

static void test_mask(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff & ~0x10);
	assert_int_equal(inb(vm, 0x21), 0x10);
	assert_int_equal(line(vm, 4, 1), -1); /* masked, and so is the IOAPIC's pin */
	assert_int_equal(ack(vm), -1);
	outb(vm, 0x21, 0); /* the edge was latched */
	assert_int_equal(ack(vm), 0x24);
}

static void test_edge_and_level(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	/* Edge: once, however long the line stays up. */
	assert_int_equal(line(vm, 5, 1), 1);
	assert_int_equal(line(vm, 5, 1), 1);
	assert_int_equal(ack(vm), 0x25);
	outb(vm, 0x20, 0x20);
	assert_int_equal(ack(vm), -1);
	line(vm, 5, 0);
	assert_int_equal(line(vm, 5, 1), 1);
	line(vm, 5, 0);
	assert_int_equal(line(vm, 5, 1), 0); /* coalesced */
	assert_int_equal(take(cpu(vm)), 0x25);
	outb(vm, 0x20, 0x20);
	line(vm, 5, 0);

	/* Level: until it goes down. */
	outb(vm, 0x4d0, 0xff);
	assert_int_equal(inb(vm, 0x4d0), 0xf8);
	outb(vm, 0x4d1, 0xff);
	assert_int_equal(inb(vm, 0x4d1), 0xde);
	assert_int_equal(line(vm, 5, 1), 1);
	assert_int_equal(line(vm, 5, 1), 0); /* coalesced */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ack(vm), 0x25);
		outb(vm, 0x20, 0x20);
	}
	line(vm, 5, 0);
	assert_false(um_lapic_has_interrupt(cpu(vm)->l));
	assert_int_equal(ack(vm), -1);
}

static void test_shared_line(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	outb(vm, 0x4d1, 0x02); /* pin 9 */
	um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_USER, 9, 1);
	um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_RESAMPLE, 9, 1);
	um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_USER, 9, 0);
	assert_true(um_lapic_has_interrupt(cpu(vm)->l));
	um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_RESAMPLE, 9, 0);
	assert_false(um_lapic_has_interrupt(cpu(vm)->l));
}

static void test_auto_eoi_and_rotation(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	outb(vm, 0x20, 0x11);
	outb(vm, 0x21, 0x20);
	outb(vm, 0x21, 4);
	outb(vm, 0x21, 3); /* automatic EOI */
	pulse(vm, 3);
	pulse(vm, 5);
	assert_int_equal(ack(vm), 0x23);
	assert_int_equal(ack(vm), 0x25); /* nothing is in service */
	outb(vm, 0x20, 0x0b);
	assert_int_equal(inb(vm, 0x20), 0);

	outb(vm, 0x20, 0x80); /* rotate in automatic EOI mode */
	pulse(vm, 3);
	assert_int_equal(ack(vm), 0x23); /* 4 is first now */
	pulse(vm, 3);
	pulse(vm, 4);
	assert_int_equal(ack(vm), 0x24); /* 5 is first now */
	outb(vm, 0x20, 0x00);
	assert_int_equal(ack(vm), 0x23);
}

static void test_rotation_by_command(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	outb(vm, 0x20, 0xc4); /* 4 is last: 5 6 7 0 1 .. */
	pulse(vm, 4);
	pulse(vm, 1);
	pulse(vm, 6);
	pulse(vm, 5);
	assert_int_equal(ack(vm), 0x25);
	outb(vm, 0x20, 0x20);
	assert_int_equal(ack(vm), 0x26);
	outb(vm, 0x20, 0xa0); /* rotate on non-specific EOI: 7 0 1 .. 6 */
	assert_int_equal(ack(vm), 0x21);
	outb(vm, 0x20, 0xe1); /* rotate on specific EOI: 2 .. 7 0 1 */
	pulse(vm, 1);
	assert_int_equal(ack(vm), 0x24);
	outb(vm, 0x20, 0x20);
	assert_int_equal(ack(vm), 0x21);
}

static void test_special_mask(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	pulse(vm, 1);
	assert_int_equal(ack(vm), 0x21);
	pulse(vm, 6);
	assert_int_equal(ack(vm), -1);
	/* Mask 1 while in service, set special mask mode: 6 may come in. */
	outb(vm, 0x21, 0x02);
	outb(vm, 0x20, 0x68);
	assert_int_equal(ack(vm), 0x26);
	/* The non-specific EOI passes over the masked one. */
	outb(vm, 0x20, 0x20);
	outb(vm, 0x20, 0x0b);
	assert_int_equal(inb(vm, 0x20), 0x02);
	/* And back. */
	outb(vm, 0x20, 0x48);
	pulse(vm, 6);
	assert_int_equal(ack(vm), -1);
	outb(vm, 0x20, 0x61);
	assert_int_equal(ack(vm), 0x26);
}

static void test_poll(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	outb(vm, 0x20, 0x0c);
	assert_int_equal(inb(vm, 0x20), 0);
	pulse(vm, 5);
	outb(vm, 0x20, 0x0c);
	assert_int_equal(inb(vm, 0x20), 0x85);
	assert_int_equal(ack(vm), -1); /* the poll was the acknowledgement */
	outb(vm, 0x20, 0x0b);
	assert_int_equal(inb(vm, 0x20), 0x20);
}

static void test_init_forgets_edges(void **state)
{
	struct vm *vm = *state;

	pic_program(vm, 0xffff);
	outb(vm, 0x4d0, 0x80);
	pulse(vm, 5);
	line(vm, 7, 1);
	outb(vm, 0x20, 0x11);
	outb(vm, 0x21, 0x40);
	outb(vm, 0x21, 4);
	outb(vm, 0x21, 1);
	assert_int_equal(inb(vm, 0x21), 0); /* unmasked */
	assert_int_equal(ack(vm), 0x47);
	line(vm, 7, 0);
	outb(vm, 0x20, 0x20);
	assert_int_equal(ack(vm), -1);
}

static void test_ports(void **state)
{
	struct vm *vm = *state;
	u8 buf[4] = { 0xaa, 0xaa, 0xaa, 0xaa };

	assert_false(um_irqchip_pio_read(vm->chip, 0x22, 1, buf));
	assert_false(um_irqchip_pio_write(vm->chip, 0x4d2, 1, buf));
	assert_false(um_irqchip_pio_read(vm->chip, 0x3f8, 1, buf));
	pic_program(vm, 0);
	assert_true(um_irqchip_pio_read(vm->chip, 0x21, 2, buf));
	assert_int_equal(buf[0] | buf[1], 0);
	assert_true(um_irqchip_pio_write(vm->chip, 0x21, 4, "\0\0\0\0"));
	assert_int_equal(inb(vm, 0x21), 0xff);
}

static void test_state(void **state)
{
	struct vm *vm = *state, *other = vm_create(1, false);
	struct kvm_irqchip s = { 0 }, back;

	pic_program(vm, 0xff7f);
	outb(vm, 0x20, 0xc2);
	outb(vm, 0xa0, 0x68);
	outb(vm, 0x4d1, 0x0c);
	pulse(vm, 4);
	line(vm, 10, 1);
	assert_int_equal(ack(vm), 0x24);
	for (u32 id = 0; id < 2; id++) {
		s.chip_id = back.chip_id = id;
		assert_int_equal(um_irqchip_get_state(vm->chip, &s), 0);
		assert_int_equal(um_irqchip_set_state(other->chip, &s), 0);
	}
	/* Read when both are there: the slave shows in the master. */
	for (u32 id = 0; id < 2; id++) {
		s.chip_id = back.chip_id = id;
		assert_int_equal(um_irqchip_get_state(vm->chip, &s), 0);
		assert_int_equal(um_irqchip_get_state(other->chip, &back), 0);
		assert_memory_equal(&s.chip.pic, &back.chip.pic, sizeof(s.chip.pic));
	}
	assert_true(other->cpu[0].kicks == 0);
	/* 4 is in service and above the slave, since 2 is last; then the level on 10 comes. */
	assert_int_equal(ack(other), -1);
	outb(other, 0x20, 0x20);
	assert_int_equal(ack(other), 0x2a);
	s.chip_id = 3;
	assert_int_equal(um_irqchip_get_state(vm->chip, &s), -EINVAL);
	assert_int_equal(um_irqchip_set_state(vm->chip, &s), -EINVAL);
	vm_destroy(other);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup1, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_virtual_wire, setup2, teardown),
		T(test_priorities_and_eoi),
		T(test_slave_and_cascade),
		T(test_special_fully_nested),
		T(test_mask),
		T(test_edge_and_level),
		T(test_shared_line),
		T(test_auto_eoi_and_rotation),
		T(test_rotation_by_command),
		T(test_special_mask),
		T(test_poll),
		T(test_init_forgets_edges),
		T(test_ports),
		T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

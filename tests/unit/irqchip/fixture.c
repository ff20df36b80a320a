// SPDX-License-Identifier: MIT
#include "fixture.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ADD(counter) __atomic_fetch_add(&(counter), 1, __ATOMIC_SEQ_CST)

static void op_kick(void *vcpu)
{
	ADD(((struct cpu *)vcpu)->kicks);
}

static void op_nmi(void *vcpu)
{
	ADD(((struct cpu *)vcpu)->nmis);
}

static void op_smi(void *vcpu)
{
	ADD(((struct cpu *)vcpu)->smis);
}

static void op_init(void *vcpu)
{
	ADD(((struct cpu *)vcpu)->inits);
}

static void op_sipi(void *vcpu, u8 vector)
{
	struct cpu *c = vcpu;

	c->sipi_vector = vector;
	ADD(c->sipis);
}

static void op_tsc(void *vcpu, u64 *now, u32 *khz)
{
	struct cpu *c = vcpu;

	*now = um_timer_now() * (TSC_KHZ / 1000000) + (u64)c->tsc_offset;
	*khz = TSC_KHZ;
}

static bool op_read8(void *vcpu, gpa_t gpa, u8 *val)
{
	if (gpa != PV_FLAG)
		return false;
	*val = ((struct cpu *)vcpu)->flag;
	return true;
}

static bool op_write8(void *vcpu, gpa_t gpa, u8 val)
{
	if (gpa != PV_FLAG)
		return false;
	((struct cpu *)vcpu)->flag = val;
	return true;
}

static void op_sint_eoi(void *vcpu, u32 sints)
{
	((struct cpu *)vcpu)->sints |= sints;
}

const struct um_lapic_ops fixture_ops = {
	.kick = op_kick,
	.nmi = op_nmi,
	.smi = op_smi,
	.init = op_init,
	.sipi = op_sipi,
	.tsc = op_tsc,
	.guest_read8 = op_read8,
	.guest_write8 = op_write8,
	.sint_eoi = op_sint_eoi,
};

struct vm *vm_create(int ncpus, bool split)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	struct um_irqchip_config cfg = { .split = split, .nr_reserved_pins = 24 };

	assert_non_null(vm);
	assert_int_equal(um_irqchip_create(&vm->chip, &cfg), 0);
	vm->ncpus = ncpus;
	for (int i = 0; i < ncpus; i++) {
		struct cpu *c = &vm->cpu[i];

		assert_int_equal(um_lapic_create(&c->l, vm->chip, (u32)i, i == 0, &fixture_ops, c),
				 0);
		mmio_write(c, 0xf0, 0x1ff);
	}
	if (!split) {
		assert_int_equal(um_irqchip_create_pit(vm->chip, KVM_PIT_SPEAKER_DUMMY), 0);
		/* Power-on leaves every pin unmasked. */
		pic_program(vm, 0);
	}
	return vm;
}

void vm_destroy(struct vm *vm)
{
	for (int i = 0; i < vm->ncpus; i++)
		um_lapic_destroy(vm->cpu[i].l);
	um_irqchip_destroy(vm->chip);
	free(vm);
}

int setup1(void **state)
{
	*state = vm_create(1, false);
	return 0;
}

int setup2(void **state)
{
	*state = vm_create(2, false);
	return 0;
}

int setup_split(void **state)
{
	*state = vm_create(2, true);
	return 0;
}

int teardown(void **state)
{
	vm_destroy(*state);
	return 0;
}

u32 mmio_read(struct cpu *c, u32 reg)
{
	u32 val = 0xdeadbeef;

	assert_true(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + reg, 4, &val));
	return val;
}

void mmio_write(struct cpu *c, u32 reg, u32 val)
{
	assert_true(um_lapic_mmio_write(c->l, UM_LAPIC_BASE + reg, 4, &val));
}

u8 inb(struct vm *vm, u16 port)
{
	u8 val = 0;

	assert_true(um_irqchip_pio_read(vm->chip, port, 1, &val));
	return val;
}

void outb(struct vm *vm, u16 port, u8 val)
{
	assert_true(um_irqchip_pio_write(vm->chip, port, 1, &val));
}

u32 io_read(struct vm *vm, u8 reg)
{
	u32 index = reg, val = 0;

	assert_true(um_irqchip_mmio_write(vm->chip, UM_IOAPIC_BASE, 4, &index));
	assert_true(um_irqchip_mmio_read(vm->chip, UM_IOAPIC_BASE + 0x10, 4, &val));
	return val;
}

void io_write(struct vm *vm, u8 reg, u32 val)
{
	u32 index = reg;

	assert_true(um_irqchip_mmio_write(vm->chip, UM_IOAPIC_BASE, 4, &index));
	assert_true(um_irqchip_mmio_write(vm->chip, UM_IOAPIC_BASE + 0x10, 4, &val));
}

u64 redir_read(struct vm *vm, unsigned pin)
{
	return io_read(vm, (u8)(0x10 + 2 * pin)) | (u64)io_read(vm, (u8)(0x11 + 2 * pin)) << 32;
}

void redir_write(struct vm *vm, unsigned pin, u64 entry)
{
	io_write(vm, (u8)(0x11 + 2 * pin), (u32)(entry >> 32));
	io_write(vm, (u8)(0x10 + 2 * pin), (u32)entry);
}

int line(struct vm *vm, u32 gsi, int level)
{
	return um_irqchip_set_irq(vm->chip, UM_IRQ_SOURCE_USER, gsi, level);
}

int msi(struct vm *vm, u32 address_lo, u32 data)
{
	struct kvm_msi m = { .address_lo = address_lo, .data = data };

	return um_irqchip_send_msi(vm->chip, &m);
}

void eoi(struct cpu *c)
{
	if (um_lapic_get_base(c->l) & 0x400)
		msr_write(c, 0x80b, 0);
	else
		mmio_write(c, 0xb0, 0);
}

int take(struct cpu *c)
{
	int vec = um_lapic_ack(c->l);

	if (vec >= 0)
		eoi(c);
	return vec;
}

void enter_x2apic(struct cpu *c)
{
	assert_true(um_lapic_set_base(c->l, um_lapic_get_base(c->l) | 0x400, false));
}

u64 msr_read(struct cpu *c, u32 msr)
{
	u64 val = 0xdeadbeefdeadbeef;

	assert_true(um_lapic_msr_read(c->l, msr, &val));
	return val;
}

void msr_write(struct cpu *c, u32 msr, u64 val)
{
	assert_true(um_lapic_msr_write(c->l, msr, val));
}

void pic_program(struct vm *vm, u16 unmasked)
{
	static const u16 command[2] = { 0x20, 0xa0 };

	for (int i = 0; i < 2; i++) {
		outb(vm, command[i], 0x11);
		outb(vm, command[i] + 1, i ? 0x28 : 0x20);
		outb(vm, command[i] + 1, i ? 2 : 4);
		outb(vm, command[i] + 1, 1);
	}
	outb(vm, 0x21, (u8)~unmasked);
	outb(vm, 0xa1, (u8)(~unmasked >> 8));
}

void sleep_ns(u64 ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / 1000000000),
			       .tv_nsec = (long)(ns % 1000000000) };

	while (nanosleep(&ts, &ts))
		;
}

u64 wait_interrupt(struct cpu *c)
{
	u64 end = um_timer_now() + TEST_LIMIT;

	while (!um_lapic_has_interrupt(c->l)) {
		assert_true(um_timer_now() < end);
		sleep_ns(50000);
	}
	return um_timer_now();
}
